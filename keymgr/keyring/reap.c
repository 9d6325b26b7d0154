/* What is left of destroyed studies in vaults: which keys their files name, and how many files there were when somebody looked. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

static const char purpose[8] = "reaped..", want_purpose[8] = "reapwant";
enum { ROW_KEY = 1 + 2 * LG_ID_LEN, FOUND = 'f', WANTED = 'g' };

static void row_key(uint8_t what, const uint8_t kid[LG_ID_LEN], const uint8_t vault[LG_ID_LEN], uint8_t out[ROW_KEY])
{
    out[0] = what;
    memcpy(out + 1, kid, LG_ID_LEN);
    memcpy(out + 1 + LG_ID_LEN, vault, LG_ID_LEN);
}

static int row_get(struct lg_keyring *k, const uint8_t *key, size_t len, struct lg_reaped *ret)
{
    uint8_t b[32];
    size_t n;
    int rc = lg_sealed_get(k, LG_T_STATE, purpose, key, len, b, sizeof b, &n);
    if (rc)
        return rc;
    struct lg_rd r = lg_rd(b, n);
    ret->files = lg_rd_u64(&r);
    ret->bytes = lg_rd_u64(&r);
    ret->counted = lg_rd_u64(&r);
    ret->removed = lg_rd_u64(&r);
    return lg_rd_done(&r) ? 0 : -EPROTO;
}

/* ---- what was asked for with a destruction ------------------------------------------------------------------------------------------------ */

int lg_reap_want(struct lg_keyring *k, const struct lg_act *a)
{
    struct lg_trim *from = malloc(sizeof *from);
    uint8_t key[ROW_KEY];
    const uint8_t *p;
    size_t len;
    int rc = from ? 0 : -ENOMEM;
    k->reaps.known = false;
    unsigned n = !rc && a->data_len && lg_trim_decode(a->data, a->data_len, from) == 0 ? from->n_vaults : 0;
    for (unsigned i = 0; !rc && i < n; i++) {
        rc = lg_store_get(k->store, LG_T_VAULTS, from->vault[i], LG_ID_LEN, &p, &len);
        if (rc == -ENOENT) { /* of another keyring: nobody could say that it is done */
            rc = 0;
            continue;
        }
        row_key(WANTED, a->kid, from->vault[i], key);
        if (!rc)
            rc = lg_sealed_put(k, LG_T_STATE, want_purpose, key, sizeof key, a->nonce, LG_ID_LEN);
    }
    free(from);
    return rc;
}

int lg_reap_forget(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    static const uint8_t first[LG_ID_LEN];
    uint8_t key[64];
    size_t len = ROW_KEY, vlen;
    const uint8_t *p;
    int rc;
    k->reaps.known = false;
    row_key(WANTED, kid, first, key);
    while (!(rc = lg_store_next(k->store, LG_T_STATE, false, key, &len, &p, &vlen)) && len == ROW_KEY && key[0] == WANTED && memcmp(key + 1, kid, LG_ID_LEN) == 0)
        if ((rc = lg_store_del(k->store, LG_T_STATE, key, len)) != 0)
            return rc;
    return rc == -ENOENT ? 0 : rc;
}

int lg_keyring_reaps(struct lg_keyring *k, uint64_t *ret_due, uint64_t *ret_waiting)
{
    uint8_t key[64] = { WANTED }, kid[LG_ID_LEN];
    size_t len = 1, vlen;
    const uint8_t *p;
    struct lg_record *r = malloc(sizeof *r);
    uint64_t due = 0, waiting = 0;
    int rc = r ? lg_keyring_need(k, false) : -ENOMEM;
    if (!rc && k->reaps.known) {
        *ret_due = k->reaps.due;
        *ret_waiting = k->reaps.waiting;
        free(r);
        return 0;
    }
    for (bool after = false; !rc && due + waiting < LG_REAPS_MAX; after = true) {
        rc = lg_store_next(k->store, LG_T_STATE, after, key, &len, &p, &vlen);
        if (!rc && (len != ROW_KEY || key[0] != WANTED))
            rc = -ENOENT;
        if (rc || (after && memcmp(kid, key + 1, LG_ID_LEN) == 0)) /* in several vaults: once */
            continue;
        memcpy(kid, key + 1, LG_ID_LEN);
        if (lg_record_get(k, kid, r) == 0 && r->state != LG_KEY_DESTROYED)
            waiting++;
        else /* one that cannot be read: let somebody look */
            due++;
    }
    free(r);
    if (rc && rc != -ENOENT)
        return rc;
    *ret_due = due;
    *ret_waiting = waiting;
    k->reaps.known = true;
    k->reaps.due = due;
    k->reaps.waiting = waiting;
    return 0;
}

/* ---- what there was ------------------------------------------------------------------------------------------------------------------------ */

/* Only of a key that is destroyed. */
static int destroyed(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    struct lg_record *r = malloc(sizeof *r);
    int rc = r ? lg_record_get(k, kid, r) : -ENOMEM;
    if (!rc && (r->kind != LG_KIND_STUDY || r->state != LG_KEY_DESTROYED))
        rc = -EPERM;
    free(r);
    return rc;
}

int lg_keyring_reaped(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const uint8_t vault[LG_ID_LEN], uint64_t files, uint64_t bytes, bool removed, struct lg_reaped *ret)
{
    struct lg_reaped x = { .files = files, .bytes = bytes };
    uint8_t key[ROW_KEY], b[32];
    const uint8_t *p;
    size_t len;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = destroyed(k, kid);
    if (!rc)
        rc = lg_store_get(k->store, LG_T_VAULTS, vault, LG_ID_LEN, &p, &len);
    if (rc)
        return rc;
    row_key(FOUND, kid, vault, key);
    rc = row_get(k, key, sizeof key, &x); /* what was found first counts: a later look sees what an earlier one left */
    if (rc && rc != -ENOENT)
        return rc;
    if (rc)
        x = (struct lg_reaped){ .files = files, .bytes = bytes, .counted = lg_keyring_wall(k) };
    else if (!x.removed && files > x.files) { /* a copy that came back */
        x.files = files;
        x.bytes = bytes;
    }
    if (removed)
        x.removed = lg_keyring_wall(k);
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, x.files);
    lg_wr_u64(&w, x.bytes);
    lg_wr_u64(&w, x.counted);
    lg_wr_u64(&w, x.removed);
    rc = lg_sealed_put(k, LG_T_STATE, purpose, key, sizeof key, b, w.len);
    row_key(WANTED, kid, vault, key);
    if (removed)
        k->reaps.known = false;
    if (!rc && removed)
        rc = lg_store_del(k->store, LG_T_STATE, key, sizeof key);
    if (!rc)
        *ret = x;
    return rc;
}

int lg_reaped_sum(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], struct lg_reaped *ret, unsigned *ret_vaults)
{
    static const uint8_t first[LG_ID_LEN];
    uint8_t key[64];
    size_t len = ROW_KEY, vlen;
    const uint8_t *p;
    struct lg_reaped sum = { 0 }, x;
    unsigned n = 0;
    bool all = true;
    int rc;
    row_key(FOUND, kid, first, key);
    for (bool after = false; !(rc = lg_store_next(k->store, LG_T_STATE, after, key, &len, &p, &vlen)); after = true) {
        if (len != ROW_KEY || key[0] != FOUND || memcmp(key + 1, kid, LG_ID_LEN) != 0)
            break;
        rc = row_get(k, key, len, &x);
        if (rc)
            return rc;
        sum.files += x.files;
        sum.bytes += x.bytes;
        sum.counted = x.counted > sum.counted ? x.counted : sum.counted;
        sum.removed = x.removed > sum.removed ? x.removed : sum.removed;
        all = all && x.removed;
        n++;
    }
    if (rc && rc != -ENOENT)
        return rc;
    if (!all)
        sum.removed = 0;
    *ret = sum;
    *ret_vaults = n;
    return 0;
}

int lg_keyring_destroyed_kids(struct lg_keyring *k, const char *uid, const uint8_t *after, struct lg_kid_pair *ret, unsigned max, unsigned *ret_n, bool *ret_end)
{
    uint8_t lookup[LG_MAC_LEN], key[64], row[64];
    size_t key_len = LG_MAC_LEN, len, row_len;
    const uint8_t *p;
    unsigned n = 0;
    bool any = false;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_hmac(k->lookup, uid, strlen(uid), lookup);
    if (rc)
        return rc;
    memcpy(key, lookup, LG_MAC_LEN);
    while (n < max && !(rc = lg_store_next(k->store, LG_T_TOMBSTONES, key_len != LG_MAC_LEN, key, &key_len, &p, &len)) && memcmp(key, lookup, LG_MAC_LEN) == 0) {
        const uint8_t *kid = key + LG_MAC_LEN;
        if (key_len != LG_MAC_LEN + LG_ID_LEN) /* of a version only */
            continue;
        any = true;
        int at = after ? memcmp(kid, after, LG_ID_LEN) : 1; /* behind it: all of it; it itself: what is attached behind */
        if (at < 0)
            continue;
        memcpy(row, kid, LG_ID_LEN);
        row_len = LG_ID_LEN;
        if (at > 0 || memcmp(after + LG_ID_LEN, kid, LG_ID_LEN) == 0) {
            if (at > 0) {
                memcpy(ret[n].study, kid, LG_ID_LEN);
                memcpy(ret[n++].kid, kid, LG_ID_LEN);
            }
        } else {
            memcpy(row + LG_ID_LEN, after + LG_ID_LEN, LG_ID_LEN);
            row_len = 2 * LG_ID_LEN;
        }
        while (n < max && !(rc = lg_store_next(k->store, LG_T_ATTACHED, row_len != LG_ID_LEN, row, &row_len, &p, &len)) && row_len == 2 * LG_ID_LEN && memcmp(row, kid, LG_ID_LEN) == 0) {
            memcpy(ret[n].study, kid, LG_ID_LEN);
            memcpy(ret[n++].kid, row + LG_ID_LEN, LG_ID_LEN);
        }
        if (rc && rc != -ENOENT)
            return rc;
    }
    if (rc && rc != -ENOENT)
        return rc;
    if (!any && !after) {
        struct lg_record *r = malloc(sizeof *r);
        rc = r && lg_record_find(k, uid, r) == 0 ? -EALREADY : -ENOENT;
        free(r);
        return rc;
    }
    *ret_n = n;
    *ret_end = n < max;
    return 0;
}
