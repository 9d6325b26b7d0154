/* AES-256-GCM for chunks: which library does it on this machine. */
#include "internal.h"

static const struct lg_gcm_lib *lib;

int lg_gcm_new(const struct lg_secret *key, struct lg_gcm **ret) { return lib->make(key, ret); }

void lg_gcm_free(struct lg_gcm *g)
{
    if (g)
        lib->done(g);
}

/* What either library does, and does not only say so. */
static bool possible(const void *ad, size_t ad_len, const void *in, size_t len, const void *out)
{
    return ad_len <= LG_GCM_MAX && len <= LG_GCM_MAX && (!ad_len || ad) && (!len || (in && out));
}

int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len, void *out, uint8_t tag[LG_TAG_LEN])
{
    return possible(ad, ad_len, in, len, out) ? lib->seal(g, nonce, ad, ad_len, in, len, out, tag) : -EINVAL;
}

int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len, void *out, const uint8_t tag[LG_TAG_LEN])
{
    if (!possible(ad, ad_len, in, len, out))
        return -EINVAL;
    int rc = lib->open(g, nonce, ad, ad_len, in, len, out, tag);
    if (rc)
        lg_wipe(out, len);
    return rc;
}

/* Test case 14 of the paper that GCM comes from (McGrew, Viega). */
static bool known_answer(void)
{
    static const uint8_t nonce[LG_NONCE_LEN], want[16 + LG_TAG_LEN] = { 0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18,
                                                                        0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19 };
    uint8_t got[sizeof want] = { 0 };
    LG_SECRET_AUTO zero = lg_secret_new();
    struct lg_gcm *g = NULL;
    bool ok = zero && !lg_gcm_new(zero, &g) && !lg_gcm_seal(g, nonce, NULL, 0, got, 16, got, got + 16) && lg_equal(got, want, sizeof want) &&
              !lg_gcm_open(g, nonce, NULL, 0, got, 16, got, want + 16) && lg_equal(got, (const uint8_t[16]){ 0 }, 16);
    lg_gcm_free(g);
    return ok;
}

int lg_gcm_choose(enum lg_gcm_kind most)
{
    int kind = -ENOTSUP;
#ifdef LG_IPSEC_MB
    lib = &lg_gcm_ipsec;
    if (most > LG_GCM_OPENSSL)
        kind = lg_gcm_ipsec_init(most);
#else
    (void)most;
#endif
    if (kind < 0) {
        lib = &lg_gcm_openssl;
        kind = lg_gcm_openssl_init() ? -ENOTSUP : LG_GCM_OPENSSL;
    }
    return kind >= 0 && known_answer() ? kind : -ENOTSUP;
}
