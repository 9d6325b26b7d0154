#include "govern.h"

struct ad {
    uint8_t b[8 + LG_ID_LEN + 64];
    size_t len;
};

static struct ad ad_of(const struct lg_keyring *k, const char purpose[8], const void *key, size_t key_len)
{
    struct ad ad;
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, purpose, 8);
    lg_wr_bytes(&w, k->meta.keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, key, key_len);
    ad.len = w.len;
    return ad;
}

int lg_sealed_put(struct lg_keyring *k, enum lg_table t, const char purpose[8], const void *key, size_t key_len, const void *value, size_t len)
{
    uint8_t b[LG_SEALED_VALUE_MAX + LG_SIV_TAG_LEN];
    if (len > LG_SEALED_VALUE_MAX || key_len > 64)
        return -EINVAL;
    struct ad ad = ad_of(k, purpose, key, key_len);
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_siv_seal_with(k->ctrl, ad.b, ad.len, value, len, b);
    return rc ? rc : lg_store_put(k->store, t, key, key_len, b, len + LG_SIV_TAG_LEN);
}

int lg_sealed_open(struct lg_keyring *k, const char purpose[8], const void *key, size_t key_len, const uint8_t *p, size_t len, void *out, size_t cap, size_t *ret_len)
{
    struct ad ad = ad_of(k, purpose, key, key_len);
    if (len < LG_SIV_TAG_LEN || len - LG_SIV_TAG_LEN > cap)
        return -EPROTO;
    int rc = lg_siv_open_with(k->ctrl, ad.b, ad.len, p, len, out);
    if (!rc)
        *ret_len = len - LG_SIV_TAG_LEN;
    return rc;
}

int lg_sealed_get(struct lg_keyring *k, enum lg_table t, const char purpose[8], const void *key, size_t key_len, void *out, size_t cap, size_t *ret_len)
{
    const uint8_t *p;
    size_t len;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_store_get(k->store, t, key, key_len, &p, &len);
    return rc ? rc : lg_sealed_open(k, purpose, key, key_len, p, len, out, cap, ret_len);
}

int lg_sealed_next(struct lg_keyring *k, enum lg_table t, const char purpose[8], bool after, void *key, size_t *key_len, void *out, size_t cap, size_t *ret_len)
{
    const uint8_t *p;
    size_t len;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_store_next(k->store, t, after, key, key_len, &p, &len);
    return rc ? rc : lg_sealed_open(k, purpose, key, *key_len, p, len, out, cap, ret_len);
}
