/* Ed25519 (RFC 8032). The private key is its 32-byte seed. */
#include "leadglass/crypto.h"

#include "internal.h"

static EVP_PKEY *private_key(const struct lg_secret *seed) { return EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, seed->b, sizeof seed->b); }

int lg_sign_public(const struct lg_secret *seed, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    EVP_PKEY *k = private_key(seed);
    size_t len = LG_SIGN_PUB_LEN;
    int ok = k && EVP_PKEY_get_raw_public_key(k, ret_pub, &len) > 0 && len == LG_SIGN_PUB_LEN;
    EVP_PKEY_free(k);
    return ok ? 0 : -ENOMEM;
}

int lg_sign(const struct lg_secret *seed, const void *msg, size_t len, uint8_t ret_sig[LG_SIGN_LEN])
{
    EVP_PKEY *k = private_key(seed);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    size_t n = LG_SIGN_LEN;
    int ok = k && c && EVP_DigestSignInit(c, NULL, NULL, NULL, k) > 0 && EVP_DigestSign(c, ret_sig, &n, msg, len) > 0 && n == LG_SIGN_LEN;
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(k);
    return ok ? 0 : -ENOMEM;
}

int lg_sign_verify(const uint8_t pub[LG_SIGN_PUB_LEN], const void *msg, size_t len, const uint8_t sig[LG_SIGN_LEN])
{
    EVP_PKEY *k = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, pub, LG_SIGN_PUB_LEN);
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    int rc = k && c && EVP_DigestVerifyInit(c, NULL, NULL, NULL, k) > 0 ? 0 : -ENOMEM;
    if (!rc && EVP_DigestVerify(c, sig, LG_SIGN_LEN, msg, len) != 1)
        rc = -EBADMSG;
    EVP_MD_CTX_free(c);
    EVP_PKEY_free(k);
    return rc;
}
