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
#define MAP_SIZE (4ull << 30)

struct lg_store {
    MDB_env *env;
    MDB_dbi dbi[LG_TABLES];
    MDB_txn *write, *read; /* read: renewed for every question asked outside a transaction */
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

/* LMDB trusts its file: look first. */
static int check_file(const char *dir)
{
    char path[PATH_MAX];
    if (snprintf(path, sizeof path, "%s/data.mdb", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    return lg_pages_check(path);
}

/* Those from `create` on are made when they are missing. */
static int open_tables(struct lg_store *s, unsigned create, unsigned flags)
{
    MDB_txn *txn;
    int rc = rc_of(mdb_txn_begin(s->env, NULL, flags, &txn));
    if (rc)
        return rc;
    for (unsigned t = 0; !rc && t < LG_TABLES; t++)
        rc = rc_of(mdb_dbi_open(txn, names[t], t >= create ? MDB_CREATE : 0, &s->dbi[t]));
    if (rc)
        mdb_txn_abort(txn);
    else
        rc = rc_of(mdb_txn_commit(txn));
    return rc;
}

int lg_store_open(const char *dir, bool create, struct lg_store **ret)
{
    struct lg_store *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    int rc = create ? 0 : check_file(dir);
    if (!rc)
        rc = rc_of(mdb_env_create(&s->env));
    if (!rc)
        rc = rc_of(mdb_env_set_mapsize(s->env, MAP_SIZE));
    if (!rc)
        rc = rc_of(mdb_env_set_maxdbs(s->env, LG_TABLES));
    if (!rc)
        rc = rc_of(mdb_env_open(s->env, dir, MDB_NOTLS | MDB_NORDAHEAD, 0600));
    if (!rc)
        rc = open_tables(s, create ? 0 : LG_TABLES, create ? 0 : MDB_RDONLY);
    if (rc == -ENOENT) /* a file from before the later ones: they are made now */
        rc = open_tables(s, LG_T_OFFICERS, 0);
    if (rc == -ENOENT)
        rc = -EPROTO;
    if (rc)
        lg_store_close(s);
    else
        *ret = s;
    return rc;
}

void lg_store_close(struct lg_store *s)
{
    if (!s)
        return;
    lg_store_abort(s);
    if (s->read)
        mdb_txn_abort(s->read);
    if (s->env)
        mdb_env_close(s->env);
    free(s);
}

int lg_store_begin(struct lg_store *s)
{
    if (s->write)
        return -EBUSY;
    if (s->read)
        mdb_txn_reset(s->read);
    return rc_of(mdb_txn_begin(s->env, NULL, 0, &s->write));
}

int lg_store_commit(struct lg_store *s)
{
    MDB_txn *txn = s->write;
    s->write = NULL;
    return txn ? rc_of(mdb_txn_commit(txn)) : -EINVAL;
}

void lg_store_abort(struct lg_store *s)
{
    if (s->write)
        mdb_txn_abort(s->write);
    s->write = NULL;
}

bool lg_store_in_txn(const struct lg_store *s) { return s->write != NULL; }

uint64_t lg_store_bytes(const struct lg_store *s)
{
    MDB_envinfo info;
    MDB_stat st;
    return mdb_env_info(s->env, &info) || mdb_env_stat(s->env, &st) ? 0 : ((uint64_t)info.me_last_pgno + 1) * st.ms_psize;
}

static int txn_get(struct lg_store *s, MDB_txn **ret)
{
    int rc = 0;
    if (!s->write && !s->read) {
        rc = rc_of(mdb_txn_begin(s->env, NULL, MDB_RDONLY, &s->read));
    } else if (!s->write) {
        mdb_txn_reset(s->read); /* the last commit, not the one of the first question */
        rc = rc_of(mdb_txn_renew(s->read));
    }
    *ret = s->write ? s->write : s->read;
    return rc;
}

int lg_store_get(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const uint8_t **ret, size_t *ret_len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
    MDB_txn *txn;
    int rc = txn_get(s, &txn);
    if (!rc)
        rc = rc_of(mdb_get(txn, s->dbi[t], &k, &v));
    if (!rc) {
        *ret = v.mv_data;
        *ret_len = v.mv_size;
    }
    return rc;
}

int lg_store_put(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const void *value, size_t len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v = { len, (void *)(uintptr_t)value };
    return s->write ? rc_of(mdb_put(s->write, s->dbi[t], &k, &v, 0)) : -EINVAL;
}

int lg_store_del(struct lg_store *s, enum lg_table t, const void *key, size_t key_len)
{
    MDB_val k = { key_len, (void *)(uintptr_t)key };
    int rc = s->write ? rc_of(mdb_del(s->write, s->dbi[t], &k, NULL)) : -EINVAL;
    return rc == -ENOENT ? 0 : rc;
}

int lg_store_next(struct lg_store *s, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len)
{
    MDB_val k = { *key_len, key }, v;
    MDB_cursor *c;
    MDB_txn *txn;
    int rc = txn_get(s, &txn);
    if (!rc)
        rc = rc_of(mdb_cursor_open(txn, s->dbi[t], &c));
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
