/* Destroying study keys so that they stay destroyed. LMDB keeps old bytes in freed pages, disks and snapshots keep more: nothing here relies on
 * overwriting. The victims' buckets get new keys, all buckets a new root, and the old root is forgotten; old bytes are then wrapped under a key
 * that nobody has. Four steps, each of which a crash may follow:
 *   1. the slot file with the old root and the new one, durable
 *   2. one commit with everything under the new root
 *   3. everything rewrapped is read back and unwrapped
 *   4. the slot file with the new root only, durable
 * Until then the studies' state is `destroying`; unlocking goes on from wherever a crash left it. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "record.h"

struct victims {
    uint8_t (*kid)[LG_ID_LEN]; /* studies first, then the provisional keys attached to them */
    size_t n, studies, cap;
    bool bucket[LG_BUCKETS]; /* touched */
};

static int step(struct lg_keyring *k, const char *name) { return k->hook ? k->hook(k->hook_arg, name) : 0; }

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

/* Calls each for every record of a bucket: key ids begin with its number. */
static int bucket_walk(struct lg_keyring *k, unsigned bucket, int (*each)(struct lg_keyring *k, struct lg_record *r, void *arg), void *arg)
{
    uint8_t key[64] = { (uint8_t)(bucket >> 4), (uint8_t)(bucket << 4) };
    size_t len = LG_ID_LEN, vlen;
    const uint8_t *p;
    struct lg_record *r = malloc(sizeof *r);
    int rc = r ? 0 : -ENOMEM;
    for (bool after = false; !rc; after = true) {
        rc = lg_store_next(k->store, LG_T_KEYS, after, key, &len, &p, &vlen);
        if (!rc && len != LG_ID_LEN)
            rc = -EPROTO;
        if (rc || lg_bucket_of(key) != bucket)
            break;
        rc = lg_record_parse(k, key, p, vlen, r);
        if (!rc)
            rc = each(k, r, arg);
    }
    free(r);
    return rc == -ENOENT ? 0 : rc;
}

struct rewrap {
    const struct victims *v;
    const struct lg_secret *old, *fresh; /* of the bucket */
};

static int rewrap_record(struct lg_keyring *k, struct lg_record *r, void *arg)
{
    const struct rewrap *w = arg;
    LG_SECRET_AUTO key = lg_secret_new();
    int rc = key ? 0 : -ENOMEM;
    if (is_victim(w->v, r->kid)) {
        r->n = 0;
        r->has_info = false;
        lg_wipe(r->info, sizeof r->info);
    }
    for (uint32_t i = 0; !rc && i < r->n; i++) {
        rc = lg_version_unwrap(k, w->old, r, i, key);
        if (!rc)
            rc = lg_version_wrap(k, w->fresh, r, i, key);
    }
    return rc ? rc : lg_record_put(k, r);
}

static int rewrap_all(struct lg_keyring *k, const struct victims *v, const struct lg_root *root)
{
    LG_SECRET_AUTO old = lg_secret_new();
    LG_SECRET_AUTO fresh = lg_secret_new();
    int rc = old && fresh ? 0 : -ENOMEM;
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b++) {
        rc = lg_bucket_unwrap(k, b, &k->root, old);
        if (!rc && !v->bucket[b]) {
            rc = lg_bucket_wrap(k, b, root, old);
        } else if (!rc) {
            struct rewrap w = { v, old, fresh };
            rc = lg_random(fresh->b, LG_KEY_LEN);
            if (!rc)
                rc = bucket_walk(k, b, rewrap_record, &w);
            if (!rc)
                rc = lg_bucket_wrap(k, b, root, fresh);
        }
    }
    return rc;
}

static int check_record(struct lg_keyring *k, struct lg_record *r, void *arg)
{
    LG_SECRET_AUTO key = lg_secret_new();
    int rc = key ? 0 : -ENOMEM;
    for (uint32_t i = 0; !rc && i < r->n; i++)
        rc = lg_version_unwrap(k, arg, r, i, key);
    return rc;
}

/* Step 3, in a transaction that sees only what was committed. */
static int check_all(struct lg_keyring *k, const struct victims *v, const struct lg_root *root)
{
    LG_SECRET_AUTO key = lg_secret_new();
    LG_SECRET_AUTO record = lg_secret_new();
    int rc = key && record ? lg_meta_read(k) : -ENOMEM;
    if (!rc)
        rc = lg_meta_unwrap(k, root, key, record);
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b++) {
        rc = lg_bucket_unwrap(k, b, root, key);
        if (!rc && v->bucket[b])
            rc = bucket_walk(k, b, check_record, key);
    }
    return rc;
}

static int slot_load(const struct lg_keyring *k, struct lg_slotfile *s)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t len;
    int rc = lg_slotfile_read(k->slot_path, bytes, &len);
    return rc ? rc : lg_slotfile_decode(bytes, len, s);
}

static void adopt(struct lg_keyring *k, struct lg_root *root)
{
    lg_secret_free(k->root.key);
    k->root = *root;
    root->key = NULL;
    lg_wipe(k->bucket, (size_t)LG_BUCKETS * LG_KEY_LEN);
    memset(k->have_bucket, 0, sizeof k->have_bucket);
}

/* Step 2. root: the new one. */
static int commit_new_root(struct lg_keyring *k, const struct victims *v, const struct lg_root *root, uint64_t generation)
{
    int rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = rewrap_all(k, v, root);
    if (!rc)
        rc = lg_meta_wrap(k, root);
    k->meta.epoch = root->epoch;
    k->meta.generation = generation;
    k->meta_dirty = true;
    if (!rc)
        rc = step(k, "commit");
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc;
}

/* Steps 3 and 4; k->root is the new one. */
static int forget_old_root(struct lg_keyring *k, const struct victims *v)
{
    struct lg_slotfile s;
    int rc = step(k, "verify");
    if (!rc)
        rc = check_all(k, v, &k->root);
    if (!rc)
        rc = slot_load(k, &s);
    if (!rc && s.n_roots == 2) {
        rc = s.epoch[1] == k->root.epoch ? step(k, "slot-new") : -EPROTO;
        if (!rc) {
            lg_slotfile_root_drop(&s);
            rc = lg_slotfile_write(k->slot_path, &s, k->root.key, false);
        }
    }
    return rc;
}

static int mark_destroyed(struct lg_keyring *k, const struct victims *v, unsigned *ret_destroyed)
{
    struct lg_record *r = malloc(sizeof *r);
    struct lg_slotfile s;
    int rc = r ? step(k, "mark") : -ENOMEM;
    if (!rc)
        rc = slot_load(k, &s);
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
        r->changed = (uint64_t)time(NULL);
        if (!rc)
            rc = lg_record_put(k, r);
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

/* Step 1; or, when a crash followed it, the new root that it left in the slot file. */
static int new_root(struct lg_keyring *k, struct lg_root *ret, uint64_t *ret_generation)
{
    struct lg_slotfile s;
    struct lg_roots all;
    int rc = slot_load(k, &s);
    if (rc)
        return rc;
    *ret_generation = s.generation;
    if (s.n_roots == 2) {
        rc = lg_slotfile_roots(&s, &k->root, &all);
        if (rc)
            return rc;
        bool ours = all.r[0].epoch == k->root.epoch;
        if (ours) {
            *ret = all.r[1];
            all.r[1].key = NULL;
        }
        lg_roots_done(&all);
        return ours ? 0 : -EPROTO;
    }
    struct lg_root fresh = { k->root.epoch + 1, lg_secret_random() };
    if (!fresh.key)
        return -ENOMEM;
    rc = step(k, "slot-both");
    if (!rc)
        rc = lg_slotfile_root_add(&s, &k->root, &fresh);
    if (!rc)
        rc = lg_slotfile_write(k->slot_path, &s, fresh.key, false);
    if (rc) {
        lg_secret_free(fresh.key);
        return rc;
    }
    *ret = fresh;
    *ret_generation = s.generation;
    return 0;
}

/* Does the slot file still hold the old root beside the one in force: did something stop between steps 2 and 4? */
static int old_root_left(struct lg_keyring *k, bool *ret)
{
    struct lg_slotfile s;
    int rc = slot_load(k, &s);
    if (!rc)
        *ret = s.n_roots == 2 && s.epoch[1] == k->root.epoch;
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

static int change_root(struct lg_keyring *k, const struct victims *v)
{
    struct lg_root root = { 0 };
    uint64_t generation;
    int rc = new_root(k, &root, &generation);
    if (!rc)
        rc = commit_new_root(k, v, &root, generation);
    if (!rc) {
        adopt(k, &root);
        rc = forget_old_root(k, v);
    }
    lg_secret_free(root.key);
    return rc;
}

int lg_keyring_destroy(struct lg_keyring *k, unsigned *ret_destroyed)
{
    struct victims v = { 0 };
    bool left = false, gone = false;
    unsigned n = 0;
    if (!lg_keyring_unlocked(k))
        return -ENOKEY;
    if (lg_keyring_in_txn(k))
        return -EBUSY;
    int rc = victims_find(k, &v);
    if (!rc)
        rc = old_root_left(k, &left);
    if (!rc && left)
        rc = forget_old_root(k, &v);
    if (!rc && v.n) {
        rc = all_gone(k, &v, &gone);
        if (!rc && !gone)
            rc = change_root(k, &v);
        if (!rc)
            rc = mark_destroyed(k, &v, &n);
    }
    free(v.kid);
    if (!rc)
        *ret_destroyed = n;
    return rc;
}
