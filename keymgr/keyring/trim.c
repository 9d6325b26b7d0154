/* Retiring old versions of study keys, by the sequence that destroys keys (destroy.c). What is retired cannot be read any more in any copy: it takes two officers, who
 * declare that no ciphertext from before a day is kept anywhere, and whoever carries it out has looked through every vault just before. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "govern.h"

static const char wait_purpose[8] = "trimwait";
enum { WAIT_KEY = 1 + LG_ID_LEN, SEEN_MAX = 65536 };
static const uint8_t no_id[LG_ID_LEN];

/* ---- when one that was approved may be carried out -------------------------------------------------------------------------------------- */

static void wait_key(const uint8_t act[LG_ID_LEN], uint8_t out[WAIT_KEY])
{
    out[0] = 't';
    memcpy(out + 1, act, LG_ID_LEN);
}

static int wait_put(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], uint64_t wall, uint64_t run)
{
    uint8_t key[WAIT_KEY], b[16];
    struct lg_wr w = lg_wr(b, sizeof b);
    wait_key(act, key);
    lg_wr_u64(&w, wall);
    lg_wr_u64(&w, run);
    return lg_sealed_put(k, LG_T_STATE, wait_purpose, key, sizeof key, b, w.len);
}

/* -ENOLCK: the clock is frozen. -EAGAIN: it still waits. */
static int wait_over(struct lg_keyring *k, const uint8_t act[LG_ID_LEN])
{
    uint8_t key[WAIT_KEY], b[16];
    size_t len;
    struct lg_time t;
    wait_key(act, key);
    int rc = lg_time_now(k, &t);
    if (!rc)
        rc = lg_sealed_get(k, LG_T_STATE, wait_purpose, key, sizeof key, b, sizeof b, &len);
    if (rc)
        return rc == -ENOENT ? -EPROTO : rc;
    struct lg_rd r = lg_rd(b, len);
    uint64_t wall = lg_rd_u64(&r), run = lg_rd_u64(&r);
    return !lg_rd_done(&r) ? -EPROTO : t.frozen ? -ENOLCK : wall > t.last_wall || run > t.run ? -EAGAIN : 0;
}

int lg_trim_forget(struct lg_keyring *k, const uint8_t act[LG_ID_LEN])
{
    uint8_t key[WAIT_KEY];
    wait_key(act, key);
    return lg_store_del(k->store, LG_T_STATE, key, sizeof key);
}

/* ---- the act ------------------------------------------------------------------------------------------------------------------------------- */

/* Is every vault of this keyring among those looked through, or declared to hold nothing? -EREMOTE: one is not. */
static int vaults_named(struct lg_keyring *k, const struct lg_trim *what)
{
    uint8_t key[64];
    size_t len = 0, vlen;
    const uint8_t *p;
    int rc = 0;
    while (!what->others_gone && !rc && !(rc = lg_store_next(k->store, LG_T_VAULTS, len != 0, key, &len, &p, &vlen))) {
        unsigned i = 0;
        while (i < what->n_vaults && memcmp(what->vault[i], key, LG_ID_LEN) != 0)
            i++;
        if (len != LG_ID_LEN || i == what->n_vaults)
            return -EREMOTE;
    }
    return rc == -ENOENT ? 0 : rc;
}

/* May the older versions of this study go? Whatever was encrypted before the newest one was made is from before the declared day. */
static int may_trim(const struct lg_record *r, uint64_t declared)
{
    if (r->state != LG_KEY_ACTIVE)
        return -EKEYREVOKED;
    if (memcmp(r->c.hold, no_id, LG_ID_LEN) != 0)
        return -EBUSY;
    if (r->n < 2)
        return -EALREADY;
    return !r->c.rotated || r->c.rotated > declared ? -EDOM : 0; /* 0: made by a version that did not note it: another one has to be made first */
}

int lg_do_trim(struct lg_keyring *k, struct lg_acting *x)
{
    const struct lg_act *a = x->act;
    struct lg_trim what;
    struct lg_record *r = malloc(sizeof *r);
    struct lg_policy p;
    int rc = !r ? -ENOMEM : lg_trim_decode(a->data, a->data_len, &what) || (a->uid[0] != 0) != (memcmp(a->kid, no_id, LG_ID_LEN) != 0) ? -EINVAL : 0;
    if (!rc)
        rc = vaults_named(k, &what);
    if (!rc && a->number > lg_keyring_wall(k))
        rc = -EDOM;
    if (!rc && a->uid[0]) {
        rc = lg_record_find(k, a->uid, r);
        if (!rc)
            rc = memcmp(r->kid, a->kid, LG_ID_LEN) != 0 ? -ESTALE : may_trim(r, a->number);
    }
    if (!rc)
        rc = lg_keyring_policy(k, &p);
    free(r);
    if (rc || x->dry)
        return rc;
    bool alone = memcmp(a->by, (const uint8_t[LG_SIGN_PUB_LEN]){ 0 }, LG_SIGN_PUB_LEN) == 0;
    uint64_t wait = alone ? 0 : p.waiting_s;
    x->record->state = LG_ACT_WAITING;
    x->record->due = x->time.last_wall + wait;
    return wait_put(k, a->nonce, x->record->due, x->time.run + wait);
}

/* ---- carrying it out -------------------------------------------------------------------------------------------------------------------------- */

int lg_keyring_trim_ready(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], struct lg_act *ret, struct lg_act_record *ret_record)
{
    struct lg_trim what;
    int rc = lg_keyring_need(k, true);
    if (!rc && (k->rolled || lg_keyring_restored(k)))
        rc = -EROFS;
    if (!rc)
        rc = lg_keyring_act_get(k, act, ret_record);
    if (!rc)
        rc = lg_act_decode(ret_record->doc, ret_record->doc_len, ret);
    if (!rc && ret->created <= lg_incarnation(k)) /* it may have been cancelled after the backup that the keyring was restored from */
        rc = -ETIME;
    if (!rc && (ret->action != LG_ACT_TRIM || lg_trim_decode(ret->data, ret->data_len, &what)))
        rc = -EINVAL;
    if (!rc && ret_record->state != LG_ACT_WAITING)
        rc = ret_record->state == LG_ACT_PENDING ? -EPERM : ret_record->state == LG_ACT_EXPIRED ? -ETIME : -EALREADY;
    if (!rc)
        rc = vaults_named(k, &what); /* one that came since was not looked through */
    return rc ? rc : wait_over(k, act);
}

uint32_t lg_trim_below(const uint8_t key[LG_TRIM_KEY])
{
    const uint8_t *b = key + LG_ID_LEN;
    return (uint32_t)b[0] << 24 | (uint32_t)b[1] << 16 | (uint32_t)b[2] << 8 | b[3];
}

static void trim_key(const uint8_t kid[LG_ID_LEN], uint32_t below, uint8_t out[LG_TRIM_KEY])
{
    memcpy(out, kid, LG_ID_LEN);
    for (unsigned i = 0; i < 4; i++)
        out[LG_ID_LEN + i] = (uint8_t)(below >> (24 - 8 * i));
}

void lg_record_trim(struct lg_record *r, uint32_t below)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < r->n; i++)
        if (r->version[i] >= below) {
            r->version[n] = r->version[i];
            memmove(r->wrapped[n++], r->wrapped[i], LG_WRAPPED_LEN);
        }
    lg_wipe(r->wrapped[n], (size_t)(r->n - n) * LG_WRAPPED_LEN);
    r->n = n;
}

/* What the tombstones will say, while it can still be seen. */
static int pending_put(struct lg_keyring *k, const struct lg_record *r, const uint8_t act[LG_ID_LEN])
{
    uint8_t key[LG_TRIM_KEY], b[8 + LG_ID_LEN + 1 + 4 * LG_KEY_VERSIONS_MAX];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, k->meta.epoch);
    lg_wr_bytes(&w, act, LG_ID_LEN);
    lg_wr_u8(&w, (uint8_t)(r->n - 1));
    for (uint32_t i = 0; i + 1 < r->n; i++)
        lg_wr_u32(&w, r->version[i]);
    trim_key(r->kid, r->version[r->n - 1], key);
    return w.bad ? -EINVAL : lg_store_put(k->store, LG_T_PENDING, key, sizeof key, b, w.len);
}

/* Those of this batch, in the order of their ids: buckets are touched one after the other, each once. */
static int batch(struct lg_keyring *k, const struct lg_act *a, uint64_t asked, const uint8_t *after, unsigned max, struct lg_record *r, struct lg_rotated *out)
{
    uint8_t key[64];
    size_t len = after ? LG_ID_LEN : 0, vlen;
    const uint8_t *p;
    int rc = 0;
    if (after)
        memcpy(key, after, LG_ID_LEN);
    for (unsigned seen = 0; !rc && out->n < max && seen < SEEN_MAX; seen++) {
        rc = lg_store_next(k->store, LG_T_KEYS, len != 0, key, &len, &p, &vlen);
        if (!rc && len != LG_ID_LEN)
            rc = -EPROTO;
        if (!rc)
            memcpy(out->last, key, LG_ID_LEN);
        if (rc || p[0] != LG_KIND_STUDY)
            continue;
        rc = lg_record_parse(k, key, p, vlen, r);
        if (rc || r->n < 2)
            continue;
        /* A version that was made after it was asked for was not spoken of: then the one before it may be needed. */
        if (may_trim(r, a->number) || r->c.rotated > asked) {
            out->full++;
            continue;
        }
        rc = pending_put(k, r, a->nonce);
        out->n += !rc;
    }
    if (rc == -ENOENT) {
        out->end = true;
        rc = 0;
    }
    return rc;
}

int lg_keyring_trim(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], const uint8_t *after, unsigned max, struct lg_rotated *ret)
{
    struct lg_record *r = malloc(sizeof *r);
    struct lg_act *a = malloc(sizeof *a);
    struct lg_act_record *rec = malloc(sizeof *rec);
    struct lg_rotated out = { .n = 0 };
    int rc = r && a && rec ? lg_keyring_trim_ready(k, act, a, rec) : -ENOMEM;
    if (!rc && a->uid[0]) {
        out.end = true;
        rc = lg_record_find(k, a->uid, r);
        if (!rc)
            rc = memcmp(r->kid, a->kid, LG_ID_LEN) != 0 ? -ESTALE : may_trim(r, a->number);
        if (!rc && r->c.rotated > rec->asked.at)
            rc = -ESTALE;
        if (!rc)
            rc = pending_put(k, r, a->nonce);
        out.n = !rc;
        memcpy(out.last, a->kid, LG_ID_LEN);
    } else if (!rc) {
        rc = batch(k, a, rec->asked.at, after, max, r, &out);
    }
    if (!rc && out.end) {
        rec->state = LG_ACT_DONE;
        rec->changed = lg_keyring_wall(k);
        rc = lg_act_put(k, act, rec);
        if (!rc)
            rc = lg_trim_forget(k, act);
    }
    free(r);
    free(a);
    free(rec);
    if (!rc)
        *ret = out;
    return rc;
}

int lg_trim_mark(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint32_t below, bool moot, uint64_t generation)
{
    uint8_t key[LG_TRIM_KEY], act[LG_ID_LEN];
    struct lg_record *r = malloc(sizeof *r);
    uint32_t version[LG_KEY_VERSIONS_MAX];
    const uint8_t *p;
    size_t len;
    unsigned n = 0;
    uint64_t epoch = 0;
    trim_key(kid, below, key);
    int rc = r ? lg_store_get(k->store, LG_T_PENDING, key, sizeof key, &p, &len) : -ENOMEM;
    if (!rc) {
        struct lg_rd rd = lg_rd(p, len);
        epoch = lg_rd_u64(&rd);
        lg_rd_copy(&rd, act, LG_ID_LEN);
        n = lg_rd_u8(&rd);
        for (unsigned i = 0; i < n && i < LG_KEY_VERSIONS_MAX; i++)
            version[i] = lg_rd_u32(&rd);
        rc = lg_rd_done(&rd) && n <= LG_KEY_VERSIONS_MAX ? 0 : -EPROTO;
    }
    if (!rc)
        rc = lg_record_get(k, kid, r);
    if (!rc && r->n && r->version[0] < below)
        rc = -EPROTO; /* still wrapped: must not be */
    for (unsigned i = 0; !rc && !moot && i < n; i++) /* with the whole key goes one tombstone for all */
        rc = lg_tombstone_version(k, r, version[i], act, epoch, generation);
    if (!rc)
        rc = lg_store_del(k->store, LG_T_PENDING, key, sizeof key);
    free(r);
    return rc;
}
