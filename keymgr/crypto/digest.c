/* Algorithms, randomness, hashes, MACs, derivation. */
#include "leadglass/crypto.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <pthread.h>
#include <string.h>
#include <sys/random.h>

#include "internal.h"

struct lg_algorithms lg_alg;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

enum {
    INFO_MAX = 256, /* label, NUL, context */
};

int lg_crypto_init(void)
{
    pthread_mutex_lock(&init_lock);
    if (!lg_alg.gcm) {
        lg_alg.siv = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
        lg_alg.ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
        lg_alg.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        lg_alg.hmac = EVP_MAC_fetch(NULL, "HMAC", NULL);
        lg_alg.hkdf = EVP_KDF_fetch(NULL, "HKDF", NULL);
        lg_alg.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
        lg_alg.gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    }
    pthread_mutex_unlock(&init_lock);
    return lg_alg.gcm && lg_alg.siv && lg_alg.ecb && lg_alg.sha256 && lg_alg.hmac && lg_alg.hkdf && lg_alg.scrypt ? 0 : -ENOTSUP;
}

int lg_random(void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -EIO;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

int lg_derive_bytes(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, void *out, size_t out_len)
{
    uint8_t info[INFO_MAX];
    size_t label_len = strlen(label) + 1;
    if (label_len > sizeof info || ctx_len > sizeof info - label_len)
        return -EINVAL;
    memcpy(info, label, label_len);
    if (ctx_len)
        memcpy(info + label_len, ctx, ctx_len);
    char digest[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, (void *)(uintptr_t)key->b, sizeof key->b),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, label_len + ctx_len),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF_CTX *k = EVP_KDF_CTX_new(lg_alg.hkdf);
    int ok = k && EVP_KDF_derive(k, out, out_len, params) > 0;
    EVP_KDF_CTX_free(k);
    return ok ? 0 : -ENOMEM;
}

int lg_derive(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, struct lg_secret *out)
{
    return lg_derive_bytes(key, label, ctx, ctx_len, out->b, sizeof out->b);
}

int lg_sha256_2(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[LG_MAC_LEN])
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int ok = c && EVP_DigestInit_ex2(c, lg_alg.sha256, NULL) > 0 && EVP_DigestUpdate(c, a, a_len) > 0 &&
             EVP_DigestUpdate(c, b, b_len) > 0 && EVP_DigestFinal_ex(c, out, NULL) > 0;
    EVP_MD_CTX_free(c);
    return ok ? 0 : -ENOMEM;
}

int lg_sha256(const void *data, size_t len, uint8_t out[LG_MAC_LEN]) { return lg_sha256_2(data, len, "", 0, out); }

int lg_hmac(const struct lg_secret *key, const void *data, size_t len, uint8_t out[LG_MAC_LEN])
{
    char digest[] = "SHA256";
    OSSL_PARAM params[] = { OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_end() };
    EVP_MAC_CTX *m = EVP_MAC_CTX_new(lg_alg.hmac);
    size_t n = 0;
    int ok = m && EVP_MAC_init(m, key->b, sizeof key->b, params) > 0 && EVP_MAC_update(m, data, len) > 0 &&
             EVP_MAC_final(m, out, &n, LG_MAC_LEN) > 0;
    EVP_MAC_CTX_free(m);
    return ok && n == LG_MAC_LEN ? 0 : -ENOMEM;
}
