/* A new root, in four steps each of which a crash may follow:
 *   1. the slot file with the old root and the new one, durable
 *   2. one commit with everything under the new root
 *   3. everything rewrapped is read back and unwrapped
 *   4. the slot file with the new root only, durable
 * Destruction, rotation and the removal of a slot differ in what they change on the way. Unlocking goes on from wherever a crash left it. */
#include <stdlib.h>
#include <string.h>

#include "record.h"

int lg_keyring_step(struct lg_keyring *k, const char *name) { return k->hook ? k->hook(k->hook_arg, name) : 0; }

int lg_slotfile_load(const struct lg_keyring *k, struct lg_slotfile *s)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    struct lg_roots all = { 0 };
    size_t len;
    int rc = lg_slots_read(k, bytes, &len);
    if (!rc)
        rc = lg_slotfile_decode(bytes, len, s);
    if (!rc) {
        s->chip = k->chip;
        rc = lg_slotfile_roots(s, &k->root, &all);
    }
    if (!rc) /* what we write next would be believed: nothing of somebody else's may get into it */
        rc = lg_slotfile_verify(bytes, len, all.r[all.n - 1].key);
    lg_roots_done(&all);
    return rc == -EKEYREJECTED || rc == -EBADMSG ? -EPROTO : rc;
}

/* ---- all buckets' wraps at a time ------------------------------------------------------------------------------------------------------------ */

struct buckets {
    uint8_t wrapped[LG_BUCKETS][LG_WRAPPED_LEN];
    bool there[LG_BUCKETS];
    struct lg_secret *key; /* of LG_KEYS_AT_ONCE of them */
};
_Static_assert(LG_BUCKETS % LG_KEYS_AT_ONCE == 0, "they go by the full hand");

static bool bucket_row(const struct lg_row *row, unsigned *ret)
{
    if (row->key_len != 2 || row->len != LG_WRAPPED_LEN)
        return false;
    *ret = (unsigned)row->key[0] << 8 | row->key[1];
    return *ret < LG_BUCKETS;
}

static int take_row(struct lg_row *row, void *arg)
{
    struct buckets *w = arg;
    unsigned b;
    if (bucket_row(row, &b)) {
        memcpy(w->wrapped[b], row->value, LG_WRAPPED_LEN);
        w->there[b] = true;
    }
    return 0;
}

static int put_row(struct lg_row *row, void *arg)
{
    const struct buckets *w = arg;
    unsigned b;
    if (bucket_row(row, &b))
        row->value = w->wrapped[b];
    return 0;
}

static void buckets_free(struct buckets *w)
{
    if (w)
        lg_secret_dealloc(w->key);
    free(w);
}

static int buckets_take(struct lg_keyring *k, struct buckets **ret)
{
    struct buckets *w = calloc(1, sizeof *w);
    int rc = w && (w->key = lg_secret_alloc(LG_KEYS_AT_ONCE * sizeof *w->key)) ? lg_store_walk(k->store, LG_T_BUCKETS, NULL, 0, take_row, w) : -ENOMEM;
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b++)
        rc = w->there[b] ? 0 : -EPROTO;
    if (rc)
        buckets_free(w);
    else
        *ret = w;
    return rc;
}

static int rewrap_all(struct lg_keyring *k, const struct lg_root_change *c, const struct lg_rooted *root)
{
    struct buckets *w;
    int rc = buckets_take(k, &w);
    if (rc)
        return rc;
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b += LG_KEYS_AT_ONCE) {
        rc = lg_buckets_open(k, b, LG_KEYS_AT_ONCE, &k->rooted, w->wrapped[b], w->key);
        for (unsigned i = 0; !rc && c->bucket && i < LG_KEYS_AT_ONCE; i++)
            rc = c->bucket(k, b + i, &w->key[i], c->arg);
        if (!rc)
            rc = lg_buckets_wrap(k, b, LG_KEYS_AT_ONCE, root, w->key, w->wrapped[b]);
    }
    if (!rc)
        rc = lg_store_walk(k->store, LG_T_BUCKETS, NULL, 0, put_row, w);
    buckets_free(w);
    return rc;
}

/* Step 3, in a transaction that sees only what was committed. */
static int check_all(struct lg_keyring *k, const struct lg_root_change *c)
{
    LG_SECRET_AUTO lookup = lg_secret_new();
    LG_SECRET_AUTO record = lg_secret_new();
    struct buckets *w = NULL;
    int rc = lookup && record ? lg_meta_read(k) : -ENOMEM;
    if (!rc)
        rc = lg_meta_unwrap(k, &k->root, lookup, record);
    if (!rc)
        rc = buckets_take(k, &w);
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b += LG_KEYS_AT_ONCE) {
        rc = lg_buckets_open(k, b, LG_KEYS_AT_ONCE, &k->rooted, w->wrapped[b], w->key);
        for (unsigned i = 0; !rc && c->check && i < LG_KEYS_AT_ONCE; i++)
            rc = c->check(k, b + i, &w->key[i], c->arg);
    }
    buckets_free(w);
    return rc;
}

static void adopt(struct lg_keyring *k, struct lg_root *root, struct lg_rooted *rooted)
{
    lg_secret_free(k->root.key);
    lg_siv_free(k->rooted.siv);
    k->root = *root;
    k->rooted = *rooted;
    root->key = NULL;
    rooted->siv = NULL;
    lg_wipe(k->bucket, (size_t)LG_BUCKETS * LG_SIV_KEY_LEN);
    memset(k->have_bucket, 0, sizeof k->have_bucket);
}

/* Step 1; or, when a crash followed it, the new root that it left in the slot file. */
static int new_root(struct lg_keyring *k, const struct lg_root_change *c, struct lg_root *ret, uint64_t *ret_generation)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    struct lg_roots all;
    struct lg_root fresh = { k->root.epoch + 1, NULL };
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc && s->n_roots == 2) {
        rc = c->edit || s->epoch[0] != k->root.epoch ? -EPROTO : lg_slotfile_roots(s, &k->root, &all);
        if (!rc && all.n != 2) {
            lg_roots_done(&all);
            rc = -EPROTO;
        }
        if (!rc) {
            fresh = all.r[1];
            all.r[1].key = NULL;
            lg_roots_done(&all);
        }
    } else if (!rc) {
        if (c->edit)
            rc = c->edit(s, &k->root, c->edit_arg);
        if (!rc)
            rc = (fresh.key = lg_secret_random()) ? 0 : -ENOMEM;
        s->anchored[1] = c->anchor == LG_ANCHOR_BEGIN || (c->anchor == LG_ANCHOR_AS_IT_IS && s->anchored[0]);
        if (!rc && s->anchored[1]) /* durable in the chip before any file relies on it */
            rc = lg_anchor_next(k, s, fresh.epoch);
        if (!rc)
            rc = lg_keyring_step(k, "slot-both");
        if (!rc)
            rc = lg_slotfile_root_add(s, &k->root, &fresh);
        if (!rc)
            rc = lg_slots_write(k, s, fresh.key);
    }
    if (rc) {
        lg_secret_free(fresh.key);
    } else {
        *ret = fresh;
        *ret_generation = s->generation;
    }
    free(s);
    return rc;
}

/* Step 2. root: the new one. */
static int commit_new_root(struct lg_keyring *k, const struct lg_root_change *c, const struct lg_root *root, const struct lg_rooted *rooted, uint64_t generation)
{
    int rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = rewrap_all(k, c, rooted);
    if (!rc)
        rc = lg_meta_wrap(k, root);
    k->meta.epoch = root->epoch;
    k->meta.generation = generation;
    k->meta_dirty = true;
    if (!rc)
        rc = lg_keyring_step(k, "commit");
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc;
}

/* Steps 3 and 4; k->root is the new one. */
static int forget_old_root(struct lg_keyring *k, const struct lg_root_change *c)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_keyring_step(k, "verify") : -ENOMEM;
    if (!rc)
        rc = k->stale ? -ESTALE : 0; /* a copy that is behind still needs the old root */
    if (!rc)
        rc = check_all(k, c);
    if (!rc)
        rc = lg_slotfile_load(k, s);
    if (!rc && s->n_roots == 2) {
        rc = s->epoch[1] == k->root.epoch ? lg_keyring_step(k, "slot-new") : -EPROTO;
        if (!rc) {
            lg_slotfile_root_drop(s);
            rc = lg_slots_write(k, s, k->root.key);
        }
    }
    free(s);
    return rc;
}

int lg_root_change_left(struct lg_keyring *k, bool *ret)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc)
        *ret = s->n_roots == 2;
    free(s);
    return rc;
}

int lg_root_change_end(struct lg_keyring *k, const struct lg_root_change *c)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc && s->n_roots == 2 && s->epoch[1] == k->root.epoch)
        rc = forget_old_root(k, c);
    free(s);
    return rc;
}

int lg_root_change(struct lg_keyring *k, const struct lg_root_change *c)
{
    struct lg_root root = { 0 };
    struct lg_rooted rooted = { 0 };
    uint64_t generation;
    int rc = new_root(k, c, &root, &generation);
    if (!rc)
        rc = lg_siv_new(root.key, &rooted.siv);
    rooted.epoch = root.epoch;
    if (!rc)
        rc = commit_new_root(k, c, &root, &rooted, generation);
    if (!rc) {
        adopt(k, &root, &rooted);
        rc = forget_old_root(k, c);
    }
    if (!rc)
        rc = lg_anchor_settle(k, false);
    lg_siv_free(rooted.siv);
    lg_secret_free(root.key);
    return rc;
}

int lg_root_change_ready(struct lg_keyring *k)
{
    bool left;
    unsigned n;
    int rc = !lg_keyring_unlocked(k) ? -ENOKEY : lg_keyring_in_txn(k) ? -EBUSY : lg_mirror_ready(k);
    if (!rc)
        rc = lg_root_change_left(k, &left);
    return !rc && left ? lg_keyring_destroy(k, &n) : rc;
}

int lg_keyring_rotate_root(struct lg_keyring *k)
{
    int rc = lg_root_change_ready(k);
    return rc ? rc : lg_root_change(k, &(struct lg_root_change){ 0 });
}
