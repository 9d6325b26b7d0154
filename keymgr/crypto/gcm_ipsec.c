/* AES-256-GCM by libipsec-mb, whose only user this is. It is faster than OpenSSL and libgcrypt where processors have VAES, with AVX-512 or without, and makes a key
 * ready in a tenth of their time (docs/PERFORMANCE.md). Its functions keep nothing between calls and only read a key, so that threads share one without a lock. */
#include <errno.h>
#include <intel-ipsec-mb.h>

#include "internal.h"

enum { ALIGN = 64 }; /* a key's: the widest registers */
#define LEN_MAX ((1ull << 36) - 32) /* NIST SP 800-38D, 5.2.1.1. The library tells nobody that it did nothing for more */

struct lg_gcm {
    struct gcm_key_data *key; /* in room */
    uint8_t room[sizeof(struct gcm_key_data) + ALIGN - 1];
};

static IMB_MGR *mgr; /* the functions for this processor; nothing that they are given goes there */

int lg_gcm_init(void)
{
    if (!mgr && !(mgr = alloc_mb_mgr(0)))
        return -ENOTSUP;
    init_mb_mgr_auto(mgr, NULL); /* and every algorithm is tested against known answers */
    return !imb_get_errno(mgr) && mgr->features & IMB_FEATURE_SELF_TEST_PASS && mgr->features & IMB_FEATURE_SAFE_DATA ? 0 : -ENOTSUP;
}

int lg_gcm_new(const struct lg_secret *key, struct lg_gcm **ret)
{
    struct lg_gcm *g = lg_secret_alloc(sizeof *g);
    if (!g)
        return -ENOMEM;
    g->key = (struct gcm_key_data *)(((uintptr_t)g->room + ALIGN - 1) / ALIGN * ALIGN);
    IMB_AES256_GCM_PRE(mgr, key->b, g->key);
    *ret = g;
    return 0;
}

void lg_gcm_free(struct lg_gcm *g) { lg_secret_dealloc(g); }

int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, uint8_t tag[LG_TAG_LEN])
{
    struct gcm_context_data c;
    if (len > LEN_MAX)
        return -EINVAL;
    IMB_AES256_GCM_ENC(mgr, g->key, &c, out, in, len, nonce, ad, ad_len, tag, LG_TAG_LEN);
    lg_wipe(&c, sizeof c);
    return 0;
}

int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, const uint8_t tag[LG_TAG_LEN])
{
    struct gcm_context_data c;
    uint8_t got[LG_TAG_LEN];
    if (len > LEN_MAX)
        return -EINVAL;
    IMB_AES256_GCM_DEC(mgr, g->key, &c, out, in, len, nonce, ad, ad_len, got, LG_TAG_LEN);
    lg_wipe(&c, sizeof c);
    bool ok = lg_equal(got, tag, sizeof got);
    lg_wipe(got, sizeof got); /* with it, what does not verify would */
    if (ok)
        return 0;
    lg_wipe(out, len);
    return -EBADMSG;
}
