/* Destroying study keys so that they stay destroyed. LMDB keeps old bytes in freed pages, disks and snapshots keep more: nothing here relies on
 * overwriting. The victims' buckets get new keys, all buckets a new root, and the old root is forgotten (rotate.c); old bytes are then wrapped
 * under a key that nobody has. Until that is through the studies' state is `destroying`; unlocking goes on from wherever a crash left it. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

struct victims {
    uint8_t (*kid)[LG_ID_LEN]; /* studies first, then the provisional keys attached to them */
    size_t n, studies, cap;
    bool bucket[LG_BUCKETS]; /* touched */
};

static int victim_add(struct victims *v, const uint8_t kid[LG_ID_LEN])
{
    if (v->n == v->cap) {
        size_t cap = v->cap ? v->cap * 2 : 16;
        void *p = reallocarray(v->kid, cap, sizeof *v->kid);
        if (!p)
            return -ENOMEM;
        v->kid = p;
        v->cap = cap;
    }
    memcpy(v->kid[v->n++], kid, LG_ID_LEN);
    v->bucket[lg_bucket_of(kid)] = true;
    return 0;
}

static bool is_victim(const struct victims *v, const uint8_t kid[LG_ID_LEN])
{
    for (size_t i = 0; i < v->n; i++)
        if (memcmp(v->kid[i], kid, LG_ID_LEN) == 0)
            return true;
    return false;
}

static int victims_find(struct lg_keyring *k, struct victims *v)
{
    uint8_t key[64];
    size_t len = 0, vlen;
    const uint8_t *p;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_PENDING, len != 0, key, &len, &p, &vlen)))
        if (len != LG_ID_LEN || (rc = victim_add(v, key)) != 0)
            return rc ? rc : -EPROTO;
    if (rc != -ENOENT)
        return rc;
    v->studies = v->n;
    for (size_t i = 0; i < v->studies; i++) {
        len = LG_ID_LEN;
        memcpy(key, v->kid[i], LG_ID_LEN);
        while (!(rc = lg_store_next(k->store, LG_T_ATTACHED, len != LG_ID_LEN, key, &len, &p, &vlen)) && len == 2 * LG_ID_LEN &&
               memcmp(key, v->kid[i], LG_ID_LEN) == 0)
            if ((rc = victim_add(v, key + LG_ID_LEN)) != 0)
                return rc;
        if (rc && rc != -ENOENT)
            return rc;
    }
    return 0;
}

struct rewrap {
    const struct victims *v;
    struct lg_siv *old, *fresh; /* of the bucket */
    struct lg_secret *key;      /* of one study at a time */
};

static int rewrap_record(struct lg_keyring *k, struct lg_record *r, void *arg)
{
    const struct rewrap *w = arg;
    int rc = 0;
    static const uint8_t no_hold[LG_ID_LEN];
    if (is_victim(w->v, r->kid)) {
        /* A hold cannot be placed once a study is destroying; should one stand here, nothing of this batch is destroyed. */
        if (memcmp(r->c.hold, no_hold, LG_ID_LEN) != 0)
            return -EBUSY;
        r->n = 0;
        r->has_info = false;
        lg_wipe(r->info, sizeof r->info);
    }
    for (uint32_t i = 0; !rc && i < r->n; i++) {
        rc = lg_version_unwrap_with(k, w->old, r, i, w->key);
        if (!rc)
            rc = lg_version_wrap_with(k, w->fresh, r, i, w->key);
    }
    return rc ? rc : lg_record_put(k, r);
}

/* A victim's bucket gets a new key and its survivors are wrapped anew. */
static int rewrap_bucket(struct lg_keyring *k, unsigned b, const struct lg_secret *key, const struct lg_rooted *root, void *arg)
{
    const struct victims *v = arg;
    if (!v->bucket[b])
        return lg_bucket_wrap(k, b, root, key);
    LG_SECRET_AUTO fresh = lg_secret_random();
    LG_SECRET_AUTO of_study = lg_secret_new();
    struct rewrap w = { .v = v, .key = of_study };
    int rc = fresh && of_study ? lg_siv_new(key, &w.old) : -ENOMEM;
    if (!rc)
        rc = lg_siv_new(fresh, &w.fresh);
    if (!rc)
        rc = lg_bucket_walk(k, b, rewrap_record, &w);
    lg_siv_free(w.old);
    lg_siv_free(w.fresh);
    return rc ? rc : lg_bucket_wrap(k, b, root, fresh);
}

static int check_record(struct lg_keyring *k, struct lg_record *r, void *arg)
{
    const struct rewrap *w = arg;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < r->n; i++)
        rc = lg_version_unwrap_with(k, w->fresh, r, i, w->key);
    return rc;
}

static int check_bucket(struct lg_keyring *k, unsigned b, const struct lg_secret *key, void *arg)
{
    const struct victims *v = arg;
    if (!v->bucket[b])
        return 0;
    LG_SECRET_AUTO of_study = lg_secret_new();
    struct rewrap w = { .v = v, .key = of_study };
    int rc = of_study ? lg_siv_new(key, &w.fresh) : -ENOMEM;
    if (!rc)
        rc = lg_bucket_walk(k, b, check_record, &w);
    lg_siv_free(w.fresh);
    return rc;
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
    for (size_t i = 0; !rc && i < v->n; i++) {
        rc = lg_record_get(k, v->kid[i], r);
        if (!rc && r->n)
            rc = -EPROTO; /* still wrapped: must not be */
        r->state = LG_KEY_DESTROYED;
        r->changed = lg_keyring_wall(k);
        if (!rc)
            rc = lg_record_put(k, r);
        if (!rc && i < v->studies)
            rc = lg_tombstone_put(k, r, s.generation);
        if (!rc && i < v->studies) {
            rc = lg_store_del(k->store, LG_T_PENDING, v->kid[i], LG_ID_LEN);
            k->meta.studies -= k->meta.studies > 0;
            k->meta.destroyed++;
        }
    }
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
        rc = lg_record_get(k, v->kid[i], r);
        gone = gone && !rc && r->n == 0;
    }
    free(r);
    if (!rc)
        *ret = gone;
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
    if (!rc && v.n) /* they are destroyed, whether that can be written down or not */
        k->unkept = lg_tombstones_keep(k, (const uint8_t(*)[LG_ID_LEN])v.kid, v.studies);
    free(v.kid);
    if (!rc)
        *ret_destroyed = n;
    return rc;
}
