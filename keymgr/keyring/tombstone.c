/* What is left of a destroyed study, signed by the keyring's own key. */
#include <string.h>

#include "govern.h"
#include "leadglass/certificate.h"

static const char key_purpose[8] = "signkey.", key_name[] = "signkey", purpose[8] = "tombston";
enum { TOMB_KEY = LG_MAC_LEN + LG_ID_LEN, PENDING_LEN = 4 + 4 + 8 };

/* ---- the keyring's signing key -------------------------------------------------------------------------------------------------------------- */

static int sign_key(struct lg_keyring *k, struct lg_secret *ret)
{
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, key_purpose, key_name, sizeof key_name - 1, ret->b, LG_KEY_LEN, &len);
    if (!rc && len != LG_KEY_LEN)
        rc = -EPROTO;
    if (rc != -ENOENT || !lg_keyring_in_txn(k))
        return rc;
    rc = lg_random(ret->b, LG_KEY_LEN);
    return rc ? rc : lg_sealed_put(k, LG_T_STATE, key_purpose, key_name, sizeof key_name - 1, ret->b, LG_KEY_LEN);
}

int lg_keyring_sign_pub(struct lg_keyring *k, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    LG_SECRET_AUTO seed = lg_secret_new();
    int rc = seed ? sign_key(k, seed) : -ENOMEM;
    return rc ? rc : lg_sign_public(seed, ret_pub);
}

/* ---- tombstones ------------------------------------------------------------------------------------------------------------------------------- */

int lg_pending_put(struct lg_keyring *k, const struct lg_record *r)
{
    uint8_t key[64], b[PENDING_LEN];
    size_t len = LG_ID_LEN, vlen;
    const uint8_t *p;
    uint32_t attached = 0;
    int rc;
    memcpy(key, r->kid, LG_ID_LEN);
    while (!(rc = lg_store_next(k->store, LG_T_ATTACHED, len != LG_ID_LEN, key, &len, &p, &vlen)) && len == 2 * LG_ID_LEN && memcmp(key, r->kid, LG_ID_LEN) == 0)
        attached++;
    if (rc && rc != -ENOENT)
        return rc;
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u32(&w, r->n);
    lg_wr_u32(&w, attached);
    lg_wr_u64(&w, k->meta.epoch);
    return lg_store_put(k->store, LG_T_PENDING, r->kid, LG_ID_LEN, b, w.len);
}

static void tomb_key(const uint8_t lookup[LG_MAC_LEN], const uint8_t kid[LG_ID_LEN], uint8_t out[TOMB_KEY])
{
    memcpy(out, lookup, LG_MAC_LEN);
    memcpy(out + LG_MAC_LEN, kid, LG_ID_LEN);
}

int lg_tombstone_put(struct lg_keyring *k, const struct lg_record *r, uint64_t generation)
{
    struct lg_tombstone t = { .created = r->created, .destroyed = r->changed, .epoch = k->meta.epoch, .epoch_before = k->meta.epoch - 1, .generation = generation };
    LG_SECRET_AUTO seed = lg_secret_new();
    uint8_t b[LG_TOMBSTONE_LEN], key[TOMB_KEY];
    const uint8_t *p;
    size_t len;
    int rc = seed ? lg_store_get(k->store, LG_T_PENDING, r->kid, LG_ID_LEN, &p, &len) : -ENOMEM;
    if (rc)
        return rc;
    if (len == PENDING_LEN) { /* one that began before this was kept has nothing */
        struct lg_rd rd = lg_rd(p, len);
        t.versions = lg_rd_u32(&rd);
        t.attached = lg_rd_u32(&rd);
        t.epoch_before = lg_rd_u64(&rd);
    }
    memcpy(t.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(t.kid, r->kid, LG_ID_LEN);
    memcpy(t.act, r->c.act, LG_ID_LEN);
    memcpy(t.lookup, r->lookup, LG_MAC_LEN);
    rc = sign_key(k, seed);
    if (!rc)
        rc = lg_tombstone_encode(&t, b);
    if (!rc)
        rc = lg_sign(seed, b, LG_TOMBSTONE_SIGNED, b + LG_TOMBSTONE_SIGNED);
    tomb_key(r->lookup, r->kid, key);
    return rc ? rc : lg_sealed_put(k, LG_T_TOMBSTONES, purpose, key, sizeof key, b, sizeof b);
}

/* The newest of this UID: after a readmission there may be several. */
static int tombstone_find(struct lg_keyring *k, const char *uid, struct lg_tombstone *ret)
{
    uint8_t lookup[LG_MAC_LEN], key[64], b[LG_TOMBSTONE_LEN];
    size_t key_len = LG_MAC_LEN, len;
    struct lg_tombstone t;
    bool any = false;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_hmac(k->lookup, uid, strlen(uid), lookup);
    memcpy(key, lookup, LG_MAC_LEN);
    while (!rc) {
        const uint8_t *p;
        rc = lg_store_next(k->store, LG_T_TOMBSTONES, key_len != LG_MAC_LEN, key, &key_len, &p, &len);
        if (rc || memcmp(key, lookup, LG_MAC_LEN) != 0)
            break;
        if (key_len != TOMB_KEY)
            return -EPROTO;
        rc = lg_sealed_get(k, LG_T_TOMBSTONES, purpose, key, key_len, b, sizeof b, &len);
        if (!rc)
            rc = lg_tombstone_decode(b, len, &t);
        if (!rc && (!any || t.destroyed >= ret->destroyed)) {
            *ret = t;
            any = true;
        }
    }
    return rc && rc != -ENOENT ? rc : any ? 0 : -ENOENT;
}

/* ---- certificates --------------------------------------------------------------------------------------------------------------------------------- */

int lg_keyring_certificate(struct lg_keyring *k, const char *uid, uint8_t *ret_doc, size_t cap, size_t *ret_len, uint8_t ret_sig[LG_SIGN_LEN], uint8_t ret_kid[LG_ID_LEN])
{
    struct lg_certificate c = { .issued = lg_keyring_wall(k), .files = LG_CERT_UNKNOWN, .bytes = LG_CERT_UNKNOWN };
    struct lg_record r;
    uint8_t doc[LG_CERT_MAX];
    size_t len;
    LG_SECRET_AUTO seed = lg_secret_new();
    int rc = seed && strlen(uid) <= LG_UID_MAX ? tombstone_find(k, uid, &c.tombstone) : -EINVAL;
    if (rc == -ENOENT)
        return lg_record_find(k, uid, &r) == 0 ? -EALREADY : -ENOENT;
    if (!rc)
        rc = lg_record_get(k, c.tombstone.kid, &r);
    if (!rc && r.c.unconfirmed) {
        memcpy(ret_kid, r.kid, LG_ID_LEN);
        return -ENOTCONN;
    }
    if (!rc)
        rc = lg_keyring_act_get(k, c.tombstone.act, &c.act);
    if (rc)
        return rc;
    memcpy(c.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(c.uid, uid, strlen(uid) + 1);
    rc = lg_backups_outstanding(k, c.tombstone.destroyed, c.backups, LG_CERT_BACKUPS_MAX, &c.n_backups);
    if (!rc)
        rc = lg_anchor_overwritten(k, &c.anchored);
    if (!rc)
        rc = sign_key(k, seed);
    if (!rc)
        rc = lg_sign_public(seed, c.pub);
    if (!rc)
        rc = lg_certificate_encode(&c, doc, &len);
    if (!rc && len > cap)
        rc = -ENOSPC;
    if (!rc)
        rc = lg_sign(seed, doc, len, ret_sig);
    if (rc)
        return rc;
    memcpy(ret_doc, doc, len);
    *ret_len = len;
    return 0;
}
