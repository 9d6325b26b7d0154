/* Algorithms, randomness, hashes, MACs, derivation. */
#include "leadglass/crypto.h"

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
    if (!lg_alg.ready) {
        lg_alg.cbc = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        lg_alg.ctr = EVP_CIPHER_fetch(NULL, "AES-256-CTR", NULL);
        lg_alg.ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
        lg_alg.sha256 = EVP_MD_fetch(NULL, "SHA256", NULL);
        lg_alg.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
        lg_alg.ready = lg_alg.cbc && lg_alg.ctr && lg_alg.ecb && lg_alg.sha256 && lg_alg.scrypt && lg_gcm_init() == 0;
    }
    pthread_mutex_unlock(&init_lock);
    return lg_alg.ready ? 0 : -ENOTSUP;
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

/* HMAC (RFC 2104) over two strings, concatenated, spelled out on the digest that is fetched already: OpenSSL 3.0's own, and HKDF on top of it, look the digest up
 * by its name each time, which costs more than the hashing. */
static int hmac_with(EVP_MD_CTX *c, const uint8_t key[LG_KEY_LEN], const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[LG_MAC_LEN])
{
    enum { BLOCK = 64 };
    uint8_t in[BLOCK], outer[BLOCK], inner[LG_MAC_LEN];
    memset(in, 0x36, sizeof in);
    memset(outer, 0x5c, sizeof outer);
    for (unsigned i = 0; i < LG_KEY_LEN; i++) {
        in[i] ^= key[i];
        outer[i] ^= key[i];
    }
    int ok = EVP_DigestInit_ex2(c, lg_alg.sha256, NULL) > 0 && EVP_DigestUpdate(c, in, sizeof in) > 0 && EVP_DigestUpdate(c, a, a_len) > 0 &&
             EVP_DigestUpdate(c, b, b_len) > 0 && EVP_DigestFinal_ex(c, inner, NULL) > 0 && EVP_DigestInit_ex2(c, lg_alg.sha256, NULL) > 0 &&
             EVP_DigestUpdate(c, outer, sizeof outer) > 0 && EVP_DigestUpdate(c, inner, sizeof inner) > 0 && EVP_DigestFinal_ex(c, out, NULL) > 0;
    lg_wipe(in, sizeof in);
    lg_wipe(outer, sizeof outer);
    lg_wipe(inner, sizeof inner);
    return ok ? 0 : -ENOMEM;
}

static int extract(EVP_MD_CTX *c, const struct lg_secret *key, uint8_t prk[LG_MAC_LEN])
{
    static const uint8_t no_salt[LG_KEY_LEN];
    return hmac_with(c, no_salt, key->b, sizeof key->b, "", 0, prk);
}

static int expand(EVP_MD_CTX *c, const uint8_t prk[LG_MAC_LEN], const char *label, const void *ctx, size_t ctx_len, void *out, size_t out_len)
{
    uint8_t info[INFO_MAX + 1], t[LG_MAC_LEN], *to = out;
    size_t label_len = strlen(label) + 1, len = label_len + ctx_len;
    if (label_len > INFO_MAX || ctx_len > INFO_MAX - label_len || out_len > 255 * LG_MAC_LEN)
        return -EINVAL;
    memcpy(info, label, label_len);
    if (ctx_len)
        memcpy(info + label_len, ctx, ctx_len);
    int rc = 0;
    for (uint8_t n = 1; !rc && out_len; n++) {
        size_t m = out_len < sizeof t ? out_len : sizeof t;
        info[len] = n;
        rc = hmac_with(c, prk, t, n > 1 ? sizeof t : 0, info, len + 1, t);
        if (!rc)
            memcpy(to, t, m);
        to += m;
        out_len -= m;
    }
    lg_wipe(t, sizeof t);
    return rc;
}

int lg_derive_bytes(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, void *out, size_t out_len)
{
    uint8_t prk[LG_MAC_LEN];
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int rc = c ? extract(c, key, prk) : -ENOMEM;
    if (!rc)
        rc = expand(c, prk, label, ctx, ctx_len, out, out_len);
    EVP_MD_CTX_free(c);
    lg_wipe(prk, sizeof prk);
    return rc;
}

int lg_derive_all(const struct lg_secret *key, const struct lg_derived *d, unsigned n)
{
    uint8_t prk[LG_MAC_LEN];
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int rc = c ? extract(c, key, prk) : -ENOMEM;
    for (unsigned i = 0; !rc && i < n; i++)
        rc = expand(c, prk, d[i].label, d[i].ctx, d[i].ctx_len, d[i].out, d[i].out_len);
    EVP_MD_CTX_free(c);
    lg_wipe(prk, sizeof prk);
    return rc;
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
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int rc = c ? hmac_with(c, key->b, data, len, "", 0, out) : -ENOMEM;
    EVP_MD_CTX_free(c);
    return rc;
}
