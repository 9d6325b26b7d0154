/* Who the officers are. The slot file holds a hash of the set, so that an older keyring file cannot bring back an officer who was removed. */
#include <strings.h>

#include "govern.h"

static const char purpose[8] = "officer.", mode_purpose[8] = "offmode.", mode_name[] = "officers", dirty_purpose[8] = "offdirty", dirty_name[] = "officers dirty";

int lg_officer_get(struct lg_keyring *k, const uint8_t pub[LG_SIGN_PUB_LEN], struct lg_officer *ret)
{
    uint8_t b[LG_OFFICER_REC_MAX];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_OFFICERS, purpose, pub, LG_SIGN_PUB_LEN, b, sizeof b, &len);
    return rc ? rc : lg_officer_decode(b, len, ret);
}

int lg_keyring_officers(struct lg_keyring *k, struct lg_officer ret[LG_OFFICERS_MAX], unsigned *ret_n)
{
    uint8_t key[64], b[LG_OFFICER_REC_MAX];
    size_t key_len = 0, len;
    unsigned n = 0;
    int rc = lg_keyring_need(k, false);
    while (!rc && !(rc = lg_sealed_next(k, LG_T_OFFICERS, purpose, key_len != 0, key, &key_len, b, sizeof b, &len))) {
        if (n == LG_OFFICERS_MAX || key_len != LG_SIGN_PUB_LEN)
            return -EPROTO;
        rc = lg_officer_decode(b, len, &ret[n]);
        if (!rc && memcmp(ret[n].pub, key, key_len) != 0)
            rc = -EPROTO;
        n++;
    }
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return 0;
}

static bool quorum(const struct lg_officer *o, unsigned n)
{
    unsigned have = 0;
    for (unsigned i = 0; i < n; i++)
        have |= o[i].role;
    return (have & LG_ROLE_BOTH) == LG_ROLE_BOTH; /* roles are one each, so these are two people */
}

int lg_keyring_officer_mode(struct lg_keyring *k, bool *ret)
{
    uint8_t b[8];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, mode_purpose, mode_name, sizeof mode_name - 1, b, sizeof b, &len);
    if (!rc && (len != 1 || b[0] != 1))
        rc = -EPROTO;
    if (rc && rc != -ENOENT)
        return rc;
    *ret = !rc;
    return 0;
}

/* In the transaction that changes the set: the slot file's hash is behind from its commit on, and a crash before it is written is no forgery. */
int lg_officers_dirty(struct lg_keyring *k) { return lg_sealed_put(k, LG_T_STATE, dirty_purpose, dirty_name, sizeof dirty_name - 1, "\1", 1); }

int lg_officer_put(struct lg_keyring *k, struct lg_officer *o, bool dry)
{
    struct lg_officer all[LG_OFFICERS_MAX];
    uint8_t b[LG_OFFICER_REC_MAX];
    size_t len;
    unsigned n;
    bool mode;
    int rc = lg_keyring_officers(k, all, &n);
    if (!rc && n == LG_OFFICERS_MAX)
        rc = -ENOSPC;
    for (unsigned i = 0; !rc && i < n; i++)
        if (memcmp(all[i].pub, o->pub, sizeof o->pub) == 0 || strcasecmp(all[i].name, o->name) == 0 || all[i].account == o->account)
            rc = -EEXIST;
    if (!rc)
        rc = lg_officer_encode(o, b, &len);
    if (!rc)
        rc = lg_keyring_officer_mode(k, &mode);
    if (rc || dry)
        return rc;
    rc = lg_sealed_put(k, LG_T_OFFICERS, purpose, o->pub, sizeof o->pub, b, len);
    all[n++] = *o;
    if (!rc && !mode && quorum(all, n)) /* for good: nothing takes this away again */
        rc = lg_sealed_put(k, LG_T_STATE, mode_purpose, mode_name, sizeof mode_name - 1, "\1", 1);
    return rc ? rc : lg_officers_dirty(k);
}

int lg_officer_del(struct lg_keyring *k, const uint8_t pub[LG_SIGN_PUB_LEN], bool dry)
{
    struct lg_officer all[LG_OFFICERS_MAX];
    unsigned n, left = 0;
    bool mode;
    int rc = lg_keyring_officers(k, all, &n);
    if (!rc)
        rc = lg_keyring_officer_mode(k, &mode);
    if (rc)
        return rc;
    for (unsigned i = 0; i < n; i++)
        if (memcmp(all[i].pub, pub, LG_SIGN_PUB_LEN) != 0)
            all[left++] = all[i];
    if (left == n)
        return -ENOENT;
    if (mode && !quorum(all, left))
        return -EUSERS;
    if (dry)
        return 0;
    rc = lg_store_del(k->store, LG_T_OFFICERS, pub, LG_SIGN_PUB_LEN);
    return rc ? rc : lg_officers_dirty(k);
}

/* ---- the hash in the slot file ------------------------------------------------------------------------------------------------------- */

/* SHA-256 over the records in key order; zeros when there are none. */
static int set_hash(struct lg_keyring *k, uint8_t out[LG_MAC_LEN])
{
    struct lg_officer all[LG_OFFICERS_MAX];
    uint8_t b[LG_OFFICER_REC_MAX];
    size_t len;
    unsigned n;
    memset(out, 0, LG_MAC_LEN);
    int rc = lg_keyring_officers(k, all, &n);
    for (unsigned i = 0; !rc && i < n; i++) {
        rc = lg_officer_encode(&all[i], b, &len);
        if (!rc)
            rc = lg_sha256_2(out, LG_MAC_LEN, b, len, out);
    }
    return rc;
}

int lg_keyring_officers_note(struct lg_keyring *k)
{
    struct lg_slotfile s;
    uint8_t h[LG_MAC_LEN], b[8];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, dirty_purpose, dirty_name, sizeof dirty_name - 1, b, sizeof b, &len);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    rc = set_hash(k, h);
    if (!rc)
        rc = lg_slotfile_load(k, &s);
    if (!rc && s.n_roots != 1)
        rc = -EBUSY; /* a root change is under way: its end comes first */
    if (!rc)
        rc = lg_keyring_step(k, "officers-slot");
    if (!rc) {
        memcpy(s.officers, h, sizeof h);
        s.generation++;
        rc = lg_slots_write(k, &s, k->root.key);
    }
    if (!rc)
        rc = lg_keyring_step(k, "officers-clean");
    if (!rc)
        rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_store_del(k->store, LG_T_STATE, dirty_name, sizeof dirty_name - 1);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc;
}

int lg_keyring_officers_check(struct lg_keyring *k)
{
    struct lg_slotfile s;
    uint8_t h[LG_MAC_LEN];
    int rc = lg_keyring_officers_note(k);
    if (!rc)
        rc = set_hash(k, h);
    if (!rc)
        rc = lg_slotfile_load(k, &s);
    if (!rc && memcmp(h, s.officers, sizeof h) != 0)
        rc = -EBADMSG;
    k->officers_bad = rc == -EBADMSG;
    return rc;
}
