#include <fcntl.h>
#include <limits.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/bytes.h"

enum { KEY_MAX = 64 };
#define MAP_SIZE (32ull << 30) /* of addresses, not of memory: some twenty million studies */
#define COMMITS "commits"

struct copy {
    MDB_env *env;
    MDB_dbi dbi[LG_TABLES];
    MDB_txn *write, *read; /* read: renewed for every question asked outside a transaction */
    char path[PATH_MAX];   /* of its data.mdb */
    bool live;             /* false: failed, or not in step; not used again until the next open */
};
struct lg_store {
    struct copy c[LG_COPIES];
    unsigned from; /* the live copy that is read */
    bool broken;   /* what is on disk is not known any more */
    lg_store_hook hook;
    void *hook_arg;
};

static const char *const names[LG_TABLES] = { "meta", "buckets", "keys", "lookup", "attached", "vaults", "sessions", "pending", "officers", "acts", "tombstones", "state" };

static int rc_of(int rc)
{
    switch (rc) {
    case 0:
        return 0;
    case MDB_NOTFOUND:
        return -ENOENT;
    case MDB_MAP_FULL:
    case MDB_TXN_FULL:
        return -ENOSPC;
    case MDB_INVALID:
    case MDB_CORRUPTED:
    case MDB_PAGE_NOTFOUND:
    case MDB_VERSION_MISMATCH:
    case MDB_INCOMPATIBLE:
        return -EPROTO;
    default:
        return rc > 0 ? -rc : -EIO;
    }
}

static int step(struct lg_store *s, const char *name) { return s->hook ? s->hook(s->hook_arg, name) : 0; }

static void copy_close(struct copy *c)
{
    if (c->write)
        mdb_txn_abort(c->write);
    if (c->read)
        mdb_txn_abort(c->read);
    if (c->env)
        mdb_env_close(c->env);
    *c = (struct copy){ 0 };
}

/* Those from `create` on are made when they are missing. */
static int open_tables(struct copy *c, unsigned create, unsigned flags)
{
    MDB_txn *txn;
    int rc = rc_of(mdb_txn_begin(c->env, NULL, flags, &txn));
    if (rc)
        return rc;
    for (unsigned t = 0; !rc && t < LG_TABLES; t++)
        rc = rc_of(mdb_dbi_open(txn, names[t], t >= create ? MDB_CREATE : 0, &c->dbi[t]));
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = rc_of(mdb_txn_commit(txn));
    return rc;
}

static int copy_open(struct copy *c, const char *dir, bool create)
{
    int rc = snprintf(c->path, sizeof c->path, "%s/data.mdb", dir) >= (int)sizeof c->path ? -ENAMETOOLONG : 0;
    if (!rc && !create)
        rc = lg_pages_check(c->path); /* LMDB trusts its file: look first */
    if (!rc)
        rc = rc_of(mdb_env_create(&c->env));
    if (!rc)
        rc = rc_of(mdb_env_set_mapsize(c->env, MAP_SIZE));
    if (!rc)
        rc = rc_of(mdb_env_set_maxdbs(c->env, LG_TABLES));
    if (!rc)
        rc = rc_of(mdb_env_open(c->env, dir, MDB_NOTLS | MDB_NORDAHEAD, 0600));
    if (!rc) {
        rc = open_tables(c, create ? 0 : LG_TABLES, create ? 0 : MDB_RDONLY);
        if (rc == -ENOENT) /* a file from before the later ones: they are made now */
            rc = open_tables(c, LG_T_OFFICERS, 0);
        if (rc == -ENOENT)
            rc = -EPROTO;
    }
    if (rc)
        copy_close(c);
    c->live = !rc;
    return rc;
}

int lg_store_open(const char *dir, bool create, struct lg_store **ret)
{
    struct lg_store *s = calloc(1, sizeof *s);
    int rc = s ? copy_open(&s->c[0], dir, create) : -ENOMEM;
    if (rc)
        free(s);
    else
        *ret = s;
    return rc;
}

void lg_store_close(struct lg_store *s)
{
    if (!s)
        return;
    for (unsigned i = 0; i < LG_COPIES; i++)
        copy_close(&s->c[i]);
    free(s);
}

void lg_store_join(struct lg_store *s, struct lg_store *mirror)
{
    s->c[1] = mirror->c[0];
    free(mirror);
}

void lg_store_set_hook(struct lg_store *s, lg_store_hook hook, void *arg)
{
    s->hook = hook;
    s->hook_arg = arg;
}

int lg_store_clone(struct lg_store *s, int fd)
{
    int rc = rc_of(mdb_env_copyfd2(s->c[s->from].env, fd, 0));
    return rc ? rc : fsync(fd) ? -errno : 0;
}

int lg_store_commits(struct lg_store *s, uint64_t *ret)
{
    const uint8_t *p;
    size_t len;
    int rc = lg_store_get(s, LG_T_META, COMMITS, sizeof COMMITS - 1, &p, &len);
    struct lg_rd r = lg_rd(p, rc ? 0 : len);
    uint64_t n = rc == -ENOENT ? 0 : lg_rd_u64(&r);
    if (rc && rc != -ENOENT)
        return rc;
    if (!rc && !lg_rd_done(&r))
        return -EPROTO;
    *ret = n;
    return 0;
}

int lg_store_begin(struct lg_store *s)
{
    int rc = s->broken ? -EIO : s->c[s->from].write ? -EBUSY : 0;
    for (unsigned i = 0; !rc && i < LG_COPIES; i++) {
        struct copy *c = &s->c[i];
        if (!c->live)
            continue;
        if (c->read)
            mdb_txn_reset(c->read);
        rc = rc_of(mdb_txn_begin(c->env, NULL, 0, &c->write));
    }
    if (rc && rc != -EBUSY)
        lg_store_abort(s);
    return rc;
}

/* Is the file that is written still the one that the next start will find? */
static bool copy_there(const struct copy *c)
{
    struct stat a, b;
    mdb_filehandle_t fd;
    return mdb_env_get_fd(c->env, &fd) == 0 && fstat(fd, &a) == 0 && stat(c->path, &b) == 0 && a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

static int count_commit(struct lg_store *s)
{
    uint8_t b[8];
    uint64_t n;
    struct lg_wr w = lg_wr(b, sizeof b);
    int rc = lg_store_commits(s, &n);
    if (rc)
        return rc;
    lg_wr_u64(&w, n + 1);
    return lg_store_put(s, LG_T_META, COMMITS, sizeof COMMITS - 1, b, w.len);
}

/* Every copy, one after the other. *ret_failed: bits of those that could not; the others have it. */
int lg_store_commit(struct lg_store *s, unsigned *ret_failed)
{
    static const char *const names_of[LG_COPIES] = { "copy-1", "copy-2" };
    unsigned done = 0, failed = 0;
    int first = 0, rc = s->c[s->from].write ? count_commit(s) : -EINVAL;
    for (unsigned i = 0; !rc && i < LG_COPIES; i++) {
        struct copy *c = &s->c[i];
        if (!c->live)
            continue;
        rc = step(s, names_of[i]);
        if (rc) {
            s->broken = done != 0;
            break;
        }
        MDB_txn *txn = c->write;
        c->write = NULL;
        int one = rc_of(mdb_txn_commit(txn));
        if (!one && !copy_there(c))
            one = -EIO;
        done += !one;
        failed |= one ? 1u << i : 0;
        first = first ? first : one;
    }
    if (!rc && failed && !done)
        rc = first;
    if (rc) {
        lg_store_abort(s);
        return rc;
    }
    for (unsigned i = 0; i < LG_COPIES; i++)
        if (failed & 1u << i)
            s->c[i].live = false;
    for (s->from = 0; !s->c[s->from].live; s->from++)
        ;
    *ret_failed = failed;
    return 0;
}

void lg_store_abort(struct lg_store *s)
{
    for (unsigned i = 0; i < LG_COPIES; i++) {
        if (s->c[i].write)
            mdb_txn_abort(s->c[i].write);
        s->c[i].write = NULL;
    }
}

void lg_store_break(struct lg_store *s) { s->broken = true; }

bool lg_store_in_txn(const struct lg_store *s) { return s->c[s->from].write != NULL; }

uint64_t lg_store_bytes(const struct lg_store *s)
{
    MDB_envinfo info;
    MDB_stat st;
    MDB_env *env = s->c[s->from].env;
    return mdb_env_info(env, &info) || mdb_env_stat(env, &st) ? 0 : ((uint64_t)info.me_last_pgno + 1) * st.ms_psize;
}

static int txn_get(struct lg_store *s, struct copy **ret_copy, MDB_txn **ret)
{
    struct copy *c = &s->c[s->from];
    int rc = 0;
    if (!c->write && !c->read) {
        rc = rc_of(mdb_txn_begin(c->env, NULL, MDB_RDONLY, &c->read));
    } else if (!c->write) {
        mdb_txn_reset(c->read); /* the last commit, not the one of the first question */
        rc = rc_of(mdb_txn_renew(c->read));
    }
    *ret = c->write ? c->write : c->read;
    *ret_copy = c;
    return rc;
}

int lg_store_get(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const uint8_t **ret, size_t *ret_len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
    struct copy *c;
    MDB_txn *txn;
    int rc = txn_get(s, &c, &txn);
    if (!rc)
        rc = rc_of(mdb_get(txn, c->dbi[t], &k, &v));
    if (!rc) {
        *ret = v.mv_data;
        *ret_len = v.mv_size;
    }
    return rc;
}

int lg_store_count(struct lg_store *s, enum lg_table t, uint64_t *ret)
{
    MDB_stat st;
    struct copy *c;
    MDB_txn *txn;
    int rc = txn_get(s, &c, &txn);
    if (!rc)
        rc = rc_of(mdb_stat(txn, c->dbi[t], &st));
    if (!rc)
        *ret = st.ms_entries;
    return rc;
}

int lg_store_put(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const void *value, size_t len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v = { len, (void *)(uintptr_t)value };
    int rc = lg_store_in_txn(s) ? 0 : -EINVAL;
    for (unsigned i = 0; !rc && i < LG_COPIES; i++)
        if (s->c[i].write)
            rc = rc_of(mdb_put(s->c[i].write, s->c[i].dbi[t], &k, &v, 0));
    return rc;
}

int lg_store_del(struct lg_store *s, enum lg_table t, const void *key, size_t key_len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key };
    int rc = lg_store_in_txn(s) ? 0 : -EINVAL;
    for (unsigned i = 0; !rc && i < LG_COPIES; i++) {
        if (s->c[i].write)
            rc = rc_of(mdb_del(s->c[i].write, s->c[i].dbi[t], &k, NULL));
        if (rc == -ENOENT)
            rc = 0;
    }
    return rc;
}

static int next_in(MDB_txn *txn, MDB_dbi dbi, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len)
{
    MDB_val k = { *key_len, key }, v;
    MDB_cursor *c;
    int rc = rc_of(mdb_cursor_open(txn, dbi, &c));
    if (rc)
        return rc;
    rc = rc_of(mdb_cursor_get(c, &k, &v, *key_len ? MDB_SET_RANGE : MDB_FIRST));
    if (!rc && after && k.mv_size == *key_len && memcmp(k.mv_data, key, *key_len) == 0)
        rc = rc_of(mdb_cursor_get(c, &k, &v, MDB_NEXT));
    if (!rc && k.mv_size > KEY_MAX)
        rc = -EPROTO;
    if (!rc) {
        memcpy(key, k.mv_data, k.mv_size);
        *key_len = k.mv_size;
        *ret = v.mv_data;
        *ret_len = v.mv_size;
    }
    mdb_cursor_close(c);
    return rc;
}

int lg_store_next(struct lg_store *s, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len)
{
    struct copy *from;
    MDB_txn *txn;
    int rc = txn_get(s, &from, &txn);
    return rc ? rc : next_in(txn, from->dbi[t], after, key, key_len, ret, ret_len);
}

/* What was put in the place of the row that the cursor of the copy read stands at. */
static int replace(const struct lg_store *s, MDB_cursor *const c[LG_COPIES], const MDB_val *key, const struct lg_row *row)
{
    uint8_t b[KEY_MAX];
    MDB_val k = { key->mv_size, b };
    int rc = !lg_store_in_txn(s) ? -EINVAL : k.mv_size > sizeof b ? -EPROTO : 0;
    if (!rc)
        memcpy(b, key->mv_data, k.mv_size); /* its page may be another one soon */
    for (unsigned i = 0; !rc && i < LG_COPIES; i++) {
        MDB_val v = { row->len, (void *)(uintptr_t)row->value };
        if (c[i])
            rc = rc_of(mdb_cursor_put(c[i], &k, &v, 0));
    }
    return rc == -ENOENT ? -EPROTO : rc;
}

int lg_store_walk(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, int (*each)(struct lg_row *row, void *arg), void *arg)
{
    MDB_cursor *c[LG_COPIES] = { NULL };
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
    MDB_cursor_op op = key_len ? MDB_SET_RANGE : MDB_FIRST;
    struct copy *from;
    MDB_txn *txn;
    int rc = txn_get(s, &from, &txn), end = 0;
    for (unsigned i = 0; !rc && i < LG_COPIES; i++)
        if (&s->c[i] == from || s->c[i].write)
            rc = rc_of(mdb_cursor_open(&s->c[i] == from ? txn : s->c[i].write, s->c[i].dbi[t], &c[i]));
    while (!rc && !end) {
        rc = rc_of(mdb_cursor_get(c[s->from], &k, &v, op));
        if (rc)
            break;
        struct lg_row row = { .key = k.mv_data, .key_len = k.mv_size, .value = v.mv_data, .len = v.mv_size };
        end = each(&row, arg);
        if (!end && row.value != v.mv_data)
            rc = replace(s, c, &k, &row);
        op = MDB_NEXT;
    }
    for (unsigned i = 0; i < LG_COPIES; i++)
        if (c[i])
            mdb_cursor_close(c[i]);
    return end < 0 ? end : rc == -ENOENT ? 0 : rc;
}

/* ---- a snapshot ------------------------------------------------------------------------------------------------------------------------------ */

struct lg_snapshot {
    struct copy *c; /* the store outlives it */
    MDB_txn *txn;
};

int lg_store_snapshot(struct lg_store *s, struct lg_snapshot **ret)
{
    struct lg_snapshot *n = calloc(1, sizeof *n);
    if (!n)
        return -ENOMEM;
    n->c = &s->c[s->from];
    int rc = rc_of(mdb_txn_begin(n->c->env, NULL, MDB_RDONLY, &n->txn));
    if (rc)
        free(n);
    else
        *ret = n;
    return rc;
}

int lg_snapshot_next(struct lg_snapshot *n, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len)
{
    return next_in(n->txn, n->c->dbi[t], after, key, key_len, ret, ret_len);
}

void lg_snapshot_free(struct lg_snapshot *n)
{
    if (n)
        mdb_txn_abort(n->txn);
    free(n);
}

const char *lg_table_name(enum lg_table t) { return names[t]; }

int lg_table_of(const char *name, enum lg_table *ret)
{
    for (unsigned t = 0; t < LG_TABLES; t++)
        if (strcmp(names[t], name) == 0) {
            *ret = (enum lg_table)t;
            return 0;
        }
    return -EPROTONOSUPPORT;
}
