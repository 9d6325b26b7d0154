/* Destroying study keys so that they stay destroyed. LMDB keeps old bytes in freed pages, disks and snapshots keep more: nothing here relies on
 * overwriting. The victims' buckets get new keys, all buckets a new root, and the old root is forgotten (rotate.c); old bytes are then wrapped
 * under a key that nobody has. Until that is through the studies' state is `destroying`; unlocking goes on from wherever a crash left it. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

enum victim_kind { STUDY = 1, ATTACHED, TRIM };
struct victim {
    uint8_t kid[LG_ID_LEN];
    enum victim_kind kind;
    uint32_t below;  /* TRIM: versions below this one; else 0: the whole key */
    bool moot;       /* TRIM: the whole study goes as well */
};
struct victims { /* ascending by key id */
    struct victim *v;
    size_t n, studies, cap;
    bool bucket[LG_BUCKETS]; /* touched */
};

static int victim_add(struct victims *v, const uint8_t kid[LG_ID_LEN], enum victim_kind kind, uint32_t below)
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 16;
        void *p = reallocarray(v->v, cap, sizeof *v->v);
        if (!p)
            return -ENOMEM;
        v->v = p;
        v->cap = cap;
    }
    v->v[v->n] = (struct victim){ .kind = kind, .below = below };
    memcpy(v->v[v->n++].kid, kid, LG_ID_LEN);
    v->bucket[lg_bucket_of(kid)] = true;
    v->studies += kind == STUDY;
    return 0;
}

/* By key id; of one study what takes the most first: the whole key, then the most versions (what two requests left pending). */
static int by_kid(const void *a, const void *b)
{
    const struct victim *x = a, *y = b;
    int c = memcmp(x->kid, y->kid, LG_ID_LEN);
    c = c ? c : (int)x->kind - (int)y->kind;
    return c ? c : (x->below < y->below) - (x->below > y->below);
}

static const struct victim *victim_of(const struct victims *v, const uint8_t kid[LG_ID_LEN])
{
    size_t low = 0, high = v->n;
    while (low < high) { /* the first of this id */
        size_t mid = low + (high - low) / 2;
        if (memcmp(v->v[mid].kid, kid, LG_ID_LEN) < 0)
            low = mid + 1;
        else
            high = mid;
    }
    return low < v->n && memcmp(v->v[low].kid, kid, LG_ID_LEN) == 0 ? &v->v[low] : NULL;
}

static int victims_find(struct lg_keyring *k, struct victims *v)
{
    uint8_t key[64];
    size_t len = 0, vlen;
    const uint8_t *p;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_PENDING, len != 0, key, &len, &p, &vlen))) {
        if (len == LG_ID_LEN)
            rc = victim_add(v, key, STUDY, 0);
        else
            rc = len == LG_TRIM_KEY ? victim_add(v, key, TRIM, lg_trim_below(key)) : -EPROTO;
        if (rc)
            return rc;
    }
    if (rc != -ENOENT)
        return rc;
    for (size_t i = 0, n = v->n; i < n; i++) {
        uint8_t study[LG_ID_LEN];
        if (v->v[i].kind != STUDY)
            continue;
        len = LG_ID_LEN;
        memcpy(study, v->v[i].kid, LG_ID_LEN);
        memcpy(key, study, LG_ID_LEN);
        while (!(rc = lg_store_next(k->store, LG_T_ATTACHED, len != LG_ID_LEN, key, &len, &p, &vlen)) && len == 2 * LG_ID_LEN && memcmp(key, study, LG_ID_LEN) == 0)
            if ((rc = victim_add(v, key + LG_ID_LEN, ATTACHED, 0)) != 0)
                return rc;
        if (rc && rc != -ENOENT)
            return rc;
    }
    if (v->n)
        qsort(v->v, v->n, sizeof *v->v, by_kid);
    for (size_t i = 1; i < v->n; i++)
        v->v[i].moot = v->v[i].kind == TRIM && memcmp(v->v[i].kid, v->v[i - 1].kid, LG_ID_LEN) == 0 && (v->v[i - 1].kind != TRIM || v->v[i - 1].moot);
    return 0;
}

/* ---- a bucket's wraps at a time ------------------------------------------------------------------------------------------------------------------- */

struct wraps { /* of all records of one bucket, in their order; a victim's are left out: they are never under the new key, not even in memory */
    struct lg_keyring *k;
    const struct victims *v; /* NULL: nothing is left out */
    unsigned bucket;
    struct {
        uint8_t ad[LG_KEYS_AT_ONCE * LG_AD_LEN], wrapped[LG_KEYS_AT_ONCE * LG_WRAPPED_LEN];
    } *hand;
    size_t n, hands, next;
    uint8_t value[RECORD_MAX];
};

static bool goes(const struct victim *x, uint32_t version) { return x && (x->kind != TRIM || version < x->below); }

static uint8_t *wrap_of(const struct wraps *w, size_t i) { return w->hand[i / LG_KEYS_AT_ONCE].wrapped + i % LG_KEYS_AT_ONCE * LG_WRAPPED_LEN; }

static int wrap_add(struct wraps *w, const uint8_t kid[LG_ID_LEN], enum lg_key_kind kind, uint32_t version, const uint8_t *wrapped)
{
    if (w->n == w->hands * LG_KEYS_AT_ONCE) {
        void *p = reallocarray(w->hand, w->hands + 1, sizeof *w->hand);
        if (!p)
            return -ENOMEM;
        w->hand = p;
        w->hands++;
    }
    lg_version_ad(w->k, kid, kind, version, w->hand[w->n / LG_KEYS_AT_ONCE].ad + w->n % LG_KEYS_AT_ONCE * LG_AD_LEN);
    memcpy(wrap_of(w, w->n++), wrapped, LG_WRAPPED_LEN);
    return 0;
}

/* Of a row of the bucket; 1: it is past the last one. */
static int row_wraps(const struct lg_row *row, unsigned bucket, struct lg_wraps *ret)
{
    if (row->key_len != LG_ID_LEN)
        return -EPROTO;
    return lg_bucket_of(row->key) == bucket ? lg_wraps_find(row->value, row->len, ret) : 1;
}

static uint32_t version_at(const uint8_t *p)
{
    struct lg_rd rd = lg_rd(p, 4);
    return lg_rd_u32(&rd);
}

static int take_row(struct lg_row *row, void *arg)
{
    struct wraps *w = arg;
    struct lg_wraps at;
    int rc = row_wraps(row, w->bucket, &at);
    const struct victim *x = rc || !w->v ? NULL : victim_of(w->v, row->key);
    const uint8_t *p = rc ? NULL : row->value + at.off;
    for (uint32_t i = 0; !rc && i < at.n; i++, p += LG_VERSION_LEN)
        if (!goes(x, version_at(p)))
            rc = wrap_add(w, row->key, at.kind, version_at(p), p + 4);
    return rc;
}

static int wraps_next(struct wraps *w, uint32_t n, uint8_t *to, size_t step)
{
    if (n > w->n - w->next)
        return -EPROTO;
    for (; n; n--, to += step)
        memcpy(to, wrap_of(w, w->next++), LG_WRAPPED_LEN);
    return 0;
}

static int victim_row(struct wraps *w, const struct victim *x, struct lg_row *row)
{
    static const uint8_t no_hold[LG_ID_LEN];
    struct lg_record *r = malloc(sizeof *r);
    int rc = r ? lg_record_parse(w->k, row->key, row->value, row->len, r) : -ENOMEM;
    if (!rc && x->kind == TRIM) {
        lg_record_trim(r, x->below);
    } else if (!rc && memcmp(r->c.hold, no_hold, LG_ID_LEN) != 0) {
        rc = -EBUSY; /* none can be placed once a study is destroying; should one stand here, nothing of this batch is destroyed */
    } else if (!rc) {
        r->n = 0;
        r->has_info = false;
        lg_wipe(r->info, sizeof r->info);
    }
    if (!rc)
        rc = wraps_next(w, r->n, r->wrapped[0], LG_WRAPPED_LEN);
    if (!rc)
        rc = lg_record_encode(w->k, r, w->value, &row->len);
    free(r);
    return rc;
}

/* Of those that stay nothing else changes: what is sealed in them is sealed under other keys. */
static int put_row(struct lg_row *row, void *arg)
{
    struct wraps *w = arg;
    struct lg_wraps at;
    int rc = row_wraps(row, w->bucket, &at);
    if (rc)
        return rc;
    const struct victim *x = victim_of(w->v, row->key);
    if (x) {
        rc = victim_row(w, x, row);
    } else if (row->len <= sizeof w->value) {
        memcpy(w->value, row->value, row->len);
        rc = wraps_next(w, at.n, w->value + at.off + 4, LG_VERSION_LEN);
    } else {
        rc = -EPROTO;
    }
    row->value = w->value;
    return rc;
}

static int walk(struct wraps *w, int (*each)(struct lg_row *row, void *arg))
{
    uint8_t from[LG_ID_LEN] = { (uint8_t)(w->bucket >> 4), (uint8_t)(w->bucket << 4) }; /* key ids begin with their bucket's number */
    return lg_store_walk(w->k->store, LG_T_KEYS, from, sizeof from, each, w);
}

/* All wraps opened under old and, unless it is NULL, made anew under fresh. */
static int rewrap(struct wraps *w, const struct lg_secret *old, const struct lg_secret *fresh)
{
    struct lg_siv *from = NULL, *to = NULL;
    LG_SECRET_BUF_AUTO struct lg_secret *key = lg_secret_alloc(LG_KEYS_AT_ONCE * sizeof *key);
    int rc = key ? lg_siv_new(old, &from) : -ENOMEM;
    if (!rc && fresh)
        rc = lg_siv_new(fresh, &to);
    for (size_t h = 0; !rc && h < w->hands; h++) {
        size_t left = w->n - h * LG_KEYS_AT_ONCE, n = left < LG_KEYS_AT_ONCE ? left : LG_KEYS_AT_ONCE;
        rc = lg_keys_unwrap(from, w->hand[h].ad, LG_AD_LEN, w->hand[h].wrapped, n, key);
        if (!rc && fresh)
            rc = lg_keys_wrap(to, w->hand[h].ad, LG_AD_LEN, key, n, w->hand[h].wrapped);
    }
    lg_siv_free(from);
    lg_siv_free(to);
    return rc;
}

/* A victim's bucket gets a new key and its survivors are wrapped anew. */
static int rewrap_bucket(struct lg_keyring *k, unsigned b, struct lg_secret *key, void *arg)
{
    const struct victims *v = arg;
    if (!v->bucket[b])
        return 0;
    LG_SECRET_AUTO fresh = lg_secret_random();
    struct wraps w = { .k = k, .v = v, .bucket = b };
    int rc = fresh ? walk(&w, take_row) : -ENOMEM;
    if (!rc)
        rc = rewrap(&w, key, fresh);
    if (!rc)
        rc = walk(&w, put_row);
    if (!rc && w.next != w.n)
        rc = -EPROTO;
    if (!rc)
        *key = *fresh;
    free(w.hand);
    return rc;
}

static int check_bucket(struct lg_keyring *k, unsigned b, const struct lg_secret *key, void *arg)
{
    const struct victims *v = arg;
    if (!v->bucket[b])
        return 0;
    struct wraps w = { .k = k, .bucket = b };
    int rc = walk(&w, take_row);
    if (!rc)
        rc = rewrap(&w, key, NULL);
    free(w.hand);
    return rc;
}

/* One study, or a provisional key of one, in the transaction that ends the batch. */
static int mark_one(struct lg_keyring *k, const struct victim *x, struct lg_record *r, uint64_t generation)
{
    int rc = lg_record_get(k, x->kid, r);
    if (!rc && r->n)
        rc = -EPROTO; /* still wrapped: must not be */
    r->state = LG_KEY_DESTROYED;
    r->changed = lg_keyring_wall(k);
    if (!rc)
        rc = lg_record_put(k, r);
    if (rc || x->kind != STUDY)
        return rc;
    rc = lg_tombstone_put(k, r, generation);
    k->meta.studies -= k->meta.studies > 0;
    k->meta.destroyed++;
    return rc ? rc : lg_store_del(k->store, LG_T_PENDING, x->kid, LG_ID_LEN);
}

static int mark_destroyed(struct lg_keyring *k, const struct victims *v, unsigned *ret_destroyed)
{
    struct lg_record *r = malloc(sizeof *r);
    struct lg_slotfile s;
    int rc = r ? lg_keyring_step(k, "mark") : -ENOMEM;
    if (!rc)
        rc = lg_slotfile_load(k, &s);
    if (!rc)
        rc = lg_keyring_begin(k);
    if (rc) {
        free(r);
        return rc;
    }
    k->reaps.known = false; /* what waited for its destruction is due */
    for (size_t i = 0; !rc && i < v->n; i++)
        rc = v->v[i].kind == TRIM ? lg_trim_mark(k, v->v[i].kid, v->v[i].below, v->v[i].moot, s.generation) : mark_one(k, &v->v[i], r, s.generation);
    k->meta.generation = s.generation; /* no older slot file is accepted from here on */
    k->meta_dirty = true;
    free(r);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    if (!rc)
        *ret_destroyed = (unsigned)v->studies;
    return rc;
}

/* Are the wraps of every victim gone? After an error one batch may have lost them and a later one not. */
static int all_gone(struct lg_keyring *k, const struct victims *v, bool *ret)
{
    struct lg_record *r = malloc(sizeof *r);
    bool gone = true;
    int rc = r ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < v->n; i++) {
        rc = lg_record_get(k, v->v[i].kid, r);
        gone = gone && !rc && (r->n == 0 || (v->v[i].kind == TRIM && r->version[0] >= v->v[i].below));
    }
    free(r);
    if (!rc)
        *ret = gone;
    return rc;
}

static int keep(struct lg_keyring *k, const struct victims *v)
{
    uint8_t (*kid)[LG_ID_LEN] = reallocarray(NULL, v->studies, LG_ID_LEN);
    size_t n = 0;
    for (size_t i = 0; kid && i < v->n; i++)
        if (v->v[i].kind == STUDY)
            memcpy(kid[n++], v->v[i].kid, LG_ID_LEN);
    int rc = kid ? lg_tombstones_keep(k, (const uint8_t(*)[LG_ID_LEN])kid, n) : -ENOMEM;
    free(kid);
    return rc;
}

int lg_keyring_destroy(struct lg_keyring *k, unsigned *ret_destroyed)
{
    struct victims v = { 0 };
    const struct lg_root_change c = { .bucket = rewrap_bucket, .check = check_bucket, .arg = &v };
    bool left = false, gone = false;
    unsigned n = 0;
    if (!lg_keyring_unlocked(k))
        return -ENOKEY;
    if (lg_keyring_in_txn(k))
        return -EBUSY;
    if (k->rolled)
        return -EROFS;
    int rc = victims_find(k, &v);
    if (!rc && v.n && lg_keyring_restored(k))
        rc = -EPERM; /* until it is confirmed that what was restored is what is wanted */
    if (!rc)
        rc = lg_root_change_left(k, &left);
    if (!rc && (v.n || left)) /* not complete until every copy has it */
        rc = lg_mirror_ready(k);
    if (!rc && left)
        rc = lg_root_change_end(k, &c);
    if (!rc && left)
        rc = lg_root_change_left(k, &left);
    if (!rc && v.n)
        rc = all_gone(k, &v, &gone);
    if (!rc && ((v.n && !gone) || left)) /* left: a change of root that had only just begun is ended too */
        rc = lg_root_change(k, &c);
    if (!rc) /* before anything is called destroyed; after a crash also when nothing is */
        rc = lg_anchor_settle(k, false);
    if (!rc && v.n)
        rc = mark_destroyed(k, &v, &n);
    if (!rc && v.studies) /* they are destroyed, whether that can be written down or not */
        k->unkept = keep(k, &v);
    free(v.v);
    if (!rc)
        *ret_destroyed = n;
    return rc;
}
