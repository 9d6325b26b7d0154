/* AES-256-GCM for chunks: which library does it on this machine. */
#include "internal.h"

static const struct lg_gcm_lib *lib;

int lg_gcm_choose(enum lg_gcm_kind most)
{
#ifdef LG_IPSEC_MB
    int kind = most > LG_GCM_OPENSSL ? lg_gcm_ipsec_init(most) : -ENOTSUP;
    if (kind >= 0) {
        lib = &lg_gcm_ipsec;
        return kind;
    }
#else
    (void)most;
#endif
    if (lg_gcm_openssl_init())
        return -ENOTSUP;
    lib = &lg_gcm_openssl;
    return LG_GCM_OPENSSL;
}

int lg_gcm_new(const struct lg_secret *key, struct lg_gcm **ret) { return lib->make(key, ret); }

void lg_gcm_free(struct lg_gcm *g)
{
    if (g)
        lib->done(g);
}

int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len, void *out, uint8_t tag[LG_TAG_LEN])
{
    return ad_len > LG_GCM_MAX || len > LG_GCM_MAX || (ad_len && !ad) || (len && (!in || !out)) ? -EINVAL : lib->seal(g, nonce, ad, ad_len, in, len, out, tag);
}

int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len, void *out, const uint8_t tag[LG_TAG_LEN])
{
    if (ad_len > LG_GCM_MAX || len > LG_GCM_MAX || (ad_len && !ad) || (len && (!in || !out)))
        return -EINVAL;
    int rc = lib->open(g, nonce, ad, ad_len, in, len, out, tag);
    if (rc)
        lg_wipe(out, len);
    return rc;
}
