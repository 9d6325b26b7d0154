/* The inventory of keyring backups: those that were made, and which of them are known to be destroyed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup.h"

#define ROW_PREFIX "backup/"
#define ORIGIN_NAME "origin"
#define MARK_NAME "inventory"

static size_t entry_key(const uint8_t id[LG_ID_LEN], uint64_t created, uint8_t out[64])
{
    struct lg_wr w = lg_wr(out, 64);
    lg_wr_bytes(&w, ROW_PREFIX, strlen(ROW_PREFIX));
    for (unsigned i = 0; i < 8; i++) /* big-endian: in order of time */
        lg_wr_u8(&w, (uint8_t)(created >> (56 - 8 * i)));
    lg_wr_bytes(&w, id, LG_ID_LEN);
    return w.len;
}

int lg_backup_entry_put(struct lg_keyring *k, const struct lg_backup_entry *e)
{
    uint8_t key[64], value[8 + 8 + 8 + 2 + LG_BACKUP_NAME_MAX + 8 + 8 + 8 + 8 + 1];
    size_t key_len = entry_key(e->id, e->created, key);
    struct lg_wr w = lg_wr(value, sizeof value);
    lg_wr_u64(&w, e->created);
    lg_wr_u64(&w, e->voided);
    lg_wr_u64(&w, e->keys);
    lg_wr_str(&w, e->name);
    lg_wr_u64(&w, e->versions);
    lg_wr_u64(&w, e->others);
    lg_wr_u64(&w, e->epoch);
    lg_wr_u64(&w, e->bytes);
    lg_wr_u8(&w, e->whole);
    return w.bad ? -EINVAL : lg_store_put(k->store, LG_T_META, key, key_len, value, w.len);
}

/* Calls each for every entry, oldest first; those of one second in the order of their ids. */
static int entries(struct lg_keyring *k, int (*each)(void *arg, const struct lg_backup_entry *e), void *arg)
{
    uint8_t key[64] = ROW_PREFIX;
    size_t len = strlen(ROW_PREFIX), vlen;
    const uint8_t *p;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_META, true, key, &len, &p, &vlen))) {
        struct lg_backup_entry e = { .whole = true };
        struct lg_rd r = lg_rd(p, vlen);
        if (len != strlen(ROW_PREFIX) + 8 + LG_ID_LEN || memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) != 0)
            return len > strlen(ROW_PREFIX) && memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) == 0 ? -EPROTO : 0;
        memcpy(e.id, key + strlen(ROW_PREFIX) + 8, LG_ID_LEN);
        e.created = lg_rd_u64(&r);
        e.voided = lg_rd_u64(&r);
        e.keys = lg_rd_u64(&r);
        lg_rd_str(&r, e.name, LG_BACKUP_NAME_MAX);
        if (lg_rd_ok(&r) && r.left) /* entries from before have none */
            e.versions = lg_rd_u64(&r);
        if (lg_rd_ok(&r) && r.left)
            e.others = lg_rd_u64(&r);
        if (lg_rd_ok(&r) && r.left) {
            e.epoch = lg_rd_u64(&r);
            e.bytes = lg_rd_u64(&r);
            e.whole = lg_rd_u8(&r) != 0;
        }
        if (!lg_rd_done(&r))
            return -EPROTO;
        rc = each(arg, &e);
        if (rc)
            return rc;
    }
    return rc == -ENOENT ? 0 : rc;
}

struct listing {
    struct lg_backup_entry *all;
    unsigned n, cap;
};
static int list_one(void *arg, const struct lg_backup_entry *e)
{
    struct listing *l = arg;
    if (l->n == l->cap) {
        unsigned cap = l->cap ? 2 * l->cap : 64;
        struct lg_backup_entry *all = cap > l->cap ? reallocarray(l->all, cap, sizeof *all) : NULL;
        if (!all)
            return -ENOMEM;
        l->all = all;
        l->cap = cap;
    }
    unsigned at = l->n++;
    for (; at && l->all[at - 1].created == e->created && l->all[at - 1].keys > e->keys; at--) /* made in one second: the keyring only grew */
        l->all[at] = l->all[at - 1];
    l->all[at] = *e;
    return 0;
}

int lg_backup_list(struct lg_keyring *k, struct lg_backup_entry **ret, unsigned *ret_n)
{
    struct listing l = { 0 };
    int rc = entries(k, list_one, &l);
    if (rc) {
        free(l.all);
        return rc;
    }
    *ret = l.all;
    *ret_n = l.n;
    return 0;
}

struct counting {
    const struct lg_tombstone *t;
    struct lg_cert_backup *out;
    unsigned max, n;
    uint64_t all;
};
static int count_one(void *arg, const struct lg_backup_entry *e)
{
    struct counting *c = arg;
    /* By epochs, which no clock sets back: a key is in the backups that were begun before the root changed that its destruction changed. */
    if (e->voided || (e->epoch ? e->epoch >= c->t->epoch : e->created > c->t->destroyed))
        return 0;
    c->all++;
    if (c->n < c->max) {
        memcpy(c->out[c->n].id, e->id, LG_ID_LEN);
        c->out[c->n++].created = e->created;
    }
    return 0;
}

int lg_backups_outstanding(struct lg_keyring *k, const struct lg_tombstone *t, struct lg_cert_backup *ret, unsigned max, unsigned *ret_n, uint64_t *ret_all)
{
    struct counting c = { .t = t, .out = ret, .max = max };
    int rc = entries(k, count_one, &c);
    if (rc)
        return rc;
    *ret_n = c.n;
    *ret_all = c.all;
    return 0;
}

struct finding {
    const uint8_t *id;
    struct lg_backup_entry e;
};
static int find_one(void *arg, const struct lg_backup_entry *e)
{
    struct finding *f = arg;
    if (memcmp(e->id, f->id, LG_ID_LEN) != 0)
        return 0;
    f->e = *e;
    return -EEXIST;
}

/* To be changed. */
static int find(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], struct lg_backup_entry *ret)
{
    struct finding f = { .id = id };
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = entries(k, find_one, &f);
    if (rc != -EEXIST)
        return rc ? rc : -ENOENT;
    *ret = f.e;
    return 0;
}

int lg_backup_void(struct lg_keyring *k, const uint8_t id[LG_ID_LEN])
{
    struct lg_backup_entry e;
    int rc = find(k, id, &e);
    if (rc || e.voided)
        return rc ? rc : -EALREADY;
    e.voided = (uint64_t)time(NULL);
    return lg_backup_entry_put(k, &e);
}

int lg_backup_whole(struct lg_keyring *k, const uint8_t id[LG_ID_LEN])
{
    struct lg_backup_entry e = { 0 };
    int rc = find(k, id, &e);
    e.whole = true;
    return rc ? rc : lg_backup_entry_put(k, &e);
}

static int newest_one(void *arg, const struct lg_backup_entry *e)
{
    struct lg_backup_entry *newest = arg;
    if (!e->voided && e->whole && (e->created > newest->created || e->keys > newest->keys || (e->keys == newest->keys && e->versions >= newest->versions)))
        *newest = *e;
    return 0;
}

void lg_backup_age(struct lg_keyring *k, uint64_t *ret_last, uint64_t *ret_uncovered, uint64_t *ret_others)
{
    struct lg_backup_entry e = { 0 };
    uint64_t all = k->meta.studies + k->meta.destroyed, versions = lg_versions_added(k);
    if (entries(k, newest_one, &e))
        e = (struct lg_backup_entry){ 0 };
    *ret_last = e.created;
    *ret_uncovered = all > e.keys ? all - e.keys : 0;
    if (e.created && versions > e.versions) /* what is written under a newer version of a study's key does not open with the backup either */
        *ret_uncovered += versions - e.versions;
    uint64_t others = lg_others_made(k);
    if (!e.created && others < 2 * k->meta.vaults) /* of before they were counted */
        others = 2 * k->meta.vaults;
    *ret_others = others > e.others ? others - e.others : 0;
}

/* ---- after a restore ---------------------------------------------------------------------------------------------------------------------------- */

bool lg_inventory_marked(struct lg_keyring *k)
{
    uint64_t n;
    return lg_meta_numbers(k, MARK_NAME, &n, 1) != 0;
}

int lg_inventory_mark(struct lg_keyring *k) { return lg_meta_numbers_put(k, MARK_NAME, (const uint64_t[]){ 1 }, 1); }

bool lg_inventory_row(enum lg_table t, const uint8_t *key, size_t len)
{
    return t == LG_T_META && ((len == strlen(MARK_NAME) && memcmp(key, MARK_NAME, len) == 0) || (len > strlen(ROW_PREFIX) && memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) == 0));
}

/* When the backup was made, and its epoch, which those restored by a version before this lack. */
static void origin(struct lg_keyring *k, uint64_t ret[2])
{
    ret[0] = ret[1] = 0;
    (void)!lg_meta_numbers(k, ORIGIN_NAME, ret, 2);
}

uint64_t lg_restored_from(struct lg_keyring *k)
{
    uint64_t from[2];
    origin(k, from);
    return from[0];
}

bool lg_inventory_complete(struct lg_keyring *k, const struct lg_tombstone *t)
{
    uint64_t from[2];
    origin(k, from);
    return !lg_incarnation(k) || (from[1] ? t->epoch <= from[1] : from[0] && t->destroyed < from[0]);
}

int lg_inventory_restored(struct lg_keyring *k, const struct lg_backup_entry *from, bool carried)
{
    struct lg_backup_entry e = *from;
    e.keys = k->meta.studies + k->meta.destroyed;
    e.versions = lg_versions_added(k);
    e.others = lg_others_made(k);
    e.whole = true;
    int rc = lg_backup_entry_put(k, &e);
    if (rc || lg_incarnation(k) || !carried) /* restored before: what was made after that backup is unknown for ever; and so is what was made before one that tells of none */
        return rc;
    return lg_meta_numbers_put(k, ORIGIN_NAME, (const uint64_t[]){ e.created, e.epoch }, 2);
}
