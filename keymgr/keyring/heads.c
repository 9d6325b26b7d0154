/* The key that signs heads of access logs, that of their export, that which signs manifests of scrub, and the last head of every log. Heads are public: they can be read while the keyring is locked, and each vouches for itself. */
#include <string.h>

#include "record.h"

static const char key_name[] = "auditkey", head_name[] = "head";
enum { HEAD_KEY = sizeof head_name - 1 + LG_ID_LEN };

static void ad_of(const struct lg_keyring *k, uint8_t out[8 + LG_ID_LEN])
{
    memcpy(out, "auditkey", 8);
    memcpy(out + 8, k->meta.keyring_id, LG_ID_LEN);
}

/* Stored as wrap(record key, seed) and the public key, so that a new root concerns neither. */
int lg_keyring_audit_key(struct lg_keyring *k, struct lg_secret *ret_seed)
{
    uint8_t ad[8 + LG_ID_LEN], v[LG_WRAPPED_LEN + LG_SIGN_PUB_LEN];
    const uint8_t *p;
    size_t len;
    if (!lg_keyring_unlocked(k))
        return -ENOKEY;
    ad_of(k, ad);
    int rc = lg_store_get(k->store, LG_T_META, key_name, sizeof key_name - 1, &p, &len);
    if (!rc)
        return len == sizeof v ? lg_key_unwrap(k->record, ad, sizeof ad, p, ret_seed) : -EPROTO;
    if (rc != -ENOENT || !lg_keyring_in_txn(k))
        return rc;
    rc = lg_random(ret_seed->b, LG_KEY_LEN);
    if (!rc)
        rc = lg_key_wrap(k->record, ad, sizeof ad, ret_seed, v);
    if (!rc)
        rc = lg_sign_public(ret_seed, v + LG_WRAPPED_LEN);
    return rc ? rc : lg_store_put(k->store, LG_T_META, key_name, sizeof key_name - 1, v, sizeof v);
}

int lg_keyring_audit_pub(struct lg_keyring *k, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    const uint8_t *p;
    size_t len;
    int rc = lg_store_get(k->store, LG_T_META, key_name, sizeof key_name - 1, &p, &len);
    if (!rc && len != LG_WRAPPED_LEN + LG_SIGN_PUB_LEN)
        rc = -EPROTO;
    if (!rc)
        memcpy(ret_pub, p + LG_WRAPPED_LEN, LG_SIGN_PUB_LEN);
    return rc;
}

int lg_keyring_export_key(struct lg_keyring *k, struct lg_secret *ret)
{
    return lg_keyring_unlocked(k) ? lg_derive(k->record, "leadglass export spool", k->meta.keyring_id, LG_ID_LEN, ret) : -ENOKEY;
}

int lg_keyring_manifest_key(struct lg_keyring *k, struct lg_secret *ret_seed)
{
    return lg_keyring_unlocked(k) ? lg_derive(k->record, "leadglass manifest signature", k->meta.keyring_id, LG_ID_LEN, ret_seed) : -ENOKEY;
}

int lg_keyring_head_put(struct lg_keyring *k, const uint8_t chain[LG_ID_LEN], const char *head, size_t len)
{
    uint8_t key[HEAD_KEY];
    memcpy(key, head_name, sizeof head_name - 1);
    memcpy(key + sizeof head_name - 1, chain, LG_ID_LEN);
    return len > LG_HEAD_TEXT_MAX ? -EINVAL : lg_store_put(k->store, LG_T_META, key, sizeof key, head, len);
}

int lg_keyring_head_get(struct lg_keyring *k, const uint8_t chain[LG_ID_LEN], char ret[LG_HEAD_TEXT_MAX + 1])
{
    uint8_t key[HEAD_KEY];
    const uint8_t *p;
    size_t len;
    memcpy(key, head_name, sizeof head_name - 1);
    memcpy(key + sizeof head_name - 1, chain, LG_ID_LEN);
    int rc = lg_store_get(k->store, LG_T_META, key, sizeof key, &p, &len);
    if (!rc && len > LG_HEAD_TEXT_MAX)
        rc = -EPROTO;
    if (rc)
        return rc;
    memcpy(ret, p, len);
    ret[len] = 0;
    return 0;
}

int lg_keyring_heads(struct lg_keyring *k, char (*ret)[LG_HEAD_TEXT_MAX + 1], unsigned max, unsigned *ret_n)
{
    uint8_t key[64];
    size_t len = sizeof head_name - 1, vlen;
    const uint8_t *p;
    unsigned n = 0;
    int rc = 0;
    memcpy(key, head_name, len);
    while (!rc && n < max) {
        rc = lg_store_next(k->store, LG_T_META, true, key, &len, &p, &vlen);
        if (rc || len != HEAD_KEY || memcmp(key, head_name, sizeof head_name - 1) != 0)
            break;
        if (vlen > LG_HEAD_TEXT_MAX)
            return -EPROTO;
        memcpy(ret[n], p, vlen);
        ret[n++][vlen] = 0;
    }
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return 0;
}
