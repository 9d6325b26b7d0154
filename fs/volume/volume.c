#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/closer.h"
#include "relink.h"

enum { HELPERS_MAX = 8 };

/* Others may be reached over a network and give a file that is open another name when its own is removed (NFS, SMB), so that its directory is not empty. */
static bool is_local(long type) { return type == TMPFS_MAGIC || type == EXT4_SUPER_MAGIC || type == XFS_SUPER_MAGIC || type == BTRFS_SUPER_MAGIC; }

static void volume_free(struct lg_volume *v)
{
    lg_nodes_free(v);
    lg_names_free(v->names);
    lg_pool_free(v->env.pool);
    lg_suspects_free(v->env.suspects);
    if (v->rootfd >= 0)
        close(v->rootfd);
    if (v->lockfd >= 0)
        close(v->lockfd);
    if (v->dirfd >= 0)
        close(v->dirfd);
    pthread_rwlock_destroy(&v->ns);
    pthread_mutex_destroy(&v->relinking);
    pthread_mutex_destroy(&v->table);
    free(v);
}

int lg_volume_open(const char *dir, const struct lg_volume_options *opt, struct lg_volume **ret)
{
    struct lg_volume *v = calloc(1, sizeof *v);
    struct lg_kref *k = NULL;
    if (!v)
        return -ENOMEM;
    v->opt = *opt;
    v->rootfd = v->lockfd = -1;
    v->uid = geteuid();
    v->gid = getegid();
    pthread_mutex_init(&v->relinking, NULL);
    lg_nodes_init(v);
    clock_gettime(CLOCK_REALTIME_COARSE, &v->opened);
    pthread_rwlockattr_t attr; /* a stream of lookups must not keep a create waiting for ever */
    pthread_rwlockattr_init(&attr);
    pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    pthread_rwlock_init(&v->ns, &attr);
    pthread_rwlockattr_destroy(&attr);
    v->dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = v->dirfd < 0 ? -errno : 0;
    if (!rc) {
        v->lockfd = openat(v->dirfd, LG_VAULT_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        rc = v->lockfd < 0 ? -errno : 0;
    }
    if (!rc && flock(v->lockfd, LOCK_EX | LOCK_NB))
        rc = -errno;
    if (!rc)
        rc = lg_keys_vault(opt->keys, &k);
    if (!rc)
        rc = lg_vault_verify(v->dirfd, k->key, &v->info);
    if (!rc)
        rc = lg_names_new(k->key, &v->names);
    if (k)
        lg_kref_unref(k);
    if (!rc) {
        v->rootfd = openat(v->dirfd, LG_ROOT_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        rc = v->rootfd < 0 ? -errno : 0;
    }
    if (!rc)
        rc = lg_node_root(v);
    struct statvfs fs;
    struct statfs type;
    v->every_read = !rc && !fstatvfs(v->rootfd, &fs) && !(fs.f_flag & (ST_NOATIME | ST_RELATIME));
    bool local = !rc && !opt->sys && !fstatfs(v->rootfd, &type) && is_local(type.f_type);
    v->closes_soon = local && lg_closer_start();
    v->env = (struct lg_file_env){
        .sys = opt->sys ? opt->sys : &lg_sys_posix,
        .keys = opt->keys,
        .chunk_size = v->info.chunk_size,
        .session = opt->session,
        .unclean = opt->unclean,
        .n_unclean = opt->n_unclean,
        .read_only = opt->read_only,
        .cache_told = local && type.f_type != TMPFS_MAGIC, /* in memory it always is */
        .path_rule = opt->path_rule,
        .finding = opt->finding,
        .arg = opt->arg,
    };
    v->attrs_lost = opt->n_unclean > 0;
    v->env.suspects = lg_suspects_new();
    if (!rc && !v->env.suspects)
        rc = -ENOMEM;
    memcpy(v->env.vault_id, v->info.vault_id, LG_ID_LEN);
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    if (!rc && !opt->sys && cores > 1) /* an injected backend sees writes in the order of the code */
        rc = lg_pool_new(cores > HELPERS_MAX ? HELPERS_MAX : (unsigned)cores - 1, &v->env.pool);
    if (!rc)
        rc = lg_journal_open(v->env.sys, v->dirfd, v->info.vault_id, opt->read_only, &v->env.journal);
    if (rc) {
        volume_free(v);
        return rc;
    }
    lg_relink_replay(v);
    *ret = v;
    return 0;
}

bool lg_volume_handles(const struct lg_volume *v) { return v->handles; }

const struct lg_file_env *lg_volume_env(const struct lg_volume *v) { return &v->env; }
int lg_volume_rootfd(const struct lg_volume *v) { return v->rootfd; }

int lg_nodes_each(struct lg_volume *v, bool dirty, int (*each)(struct lg_volume *v, struct lg_node *n, void *arg), void *arg)
{
    pthread_mutex_lock(&v->table);
    size_t n = 0, want = dirty ? 0 : v->n_nodes;
    for (size_t b = 0; dirty && b < v->n_buckets; b++)
        for (struct lg_node *x = v->by_id[b]; x; x = x->next_id)
            want += atomic_load(&x->dirty_since) != 0;
    struct lg_node **all = malloc((want + 1) * sizeof(struct lg_node *));
    for (size_t b = 0; all && n < want && b < v->n_buckets; b++)
        for (struct lg_node *x = v->by_id[b]; x && n < want; x = x->next_id) {
            if (dirty && !atomic_load(&x->dirty_since))
                continue;
            x->refs++;
            all[n++] = x;
        }
    pthread_mutex_unlock(&v->table);
    int rc = all ? 0 : -ENOMEM;
    for (size_t i = 0; i < n; i++) {
        int r = each(v, all[i], arg);
        rc = r ? r : rc;
        lg_node_unref(v, all[i]);
    }
    free(all);
    return rc;
}

static int commit_one(struct lg_volume *v, struct lg_node *n, void *arg)
{
    (void)v, (void)arg;
    lg_node_lock(v, n);
    int rc = n->f ? lg_file_commit(n->f) : 0;
    lg_node_unlock(v, n);
    return rc;
}

int lg_volume_commit_all(struct lg_volume *v) { return lg_errno(lg_nodes_each(v, false, commit_one, NULL)); }

static int tick_one(struct lg_volume *v, struct lg_node *n, void *arg)
{
    time_t now = *(const time_t *)arg, since = atomic_load(&n->dirty_since);
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
    if (!since || now - since < LG_COMMIT_AFTER_S)
        return 0;
    int rc = 0;
    lg_node_lock(v, n);
    if (n->f && lg_file_kid(n->f, kid, &version)) { /* one whose key is not known yet waits for more bytes or its close */
        atomic_store(&n->dirty_since, 0);
        n->opens++; /* stays open without the lock: nobody is to wait for this */
        lg_node_unlock(v, n);
        rc = lg_file_commit(n->f);
        if (rc)
            atomic_store(&n->dirty_since, (uint32_t)since);
        lg_node_lock(v, n);
        lg_node_file_done(v, n);
    }
    lg_node_unlock(v, n);
    return rc;
}

void lg_volume_tick(struct lg_volume *v)
{
    time_t now = time(NULL);
    int rc = lg_nodes_each(v, true, tick_one, &now); /* what fails is tried again, and told at flush or fsync */
    if (now - v->checkpointed >= LG_COMMIT_AFTER_S) {
        v->checkpointed = now;
        rc = lg_journal_checkpoint(v->env.journal);
    }
    (void)rc;
}

struct drop {
    const uint8_t (*kids)[LG_ID_LEN];
    unsigned n;
    bool discard;
    void (*each)(void *arg, uint64_t node);
    void *arg;
};

static int drop_one(struct lg_volume *v, struct lg_node *n, void *arg)
{
    const struct drop *d = arg;
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
    (void)v;
    if (!S_ISREG(n->type))
        return 0;
    lg_node_lock(v, n);
    bool known = n->f ? lg_file_kid(n->f, kid, &version) : n->id_known, hit = !d->kids;
    if (!n->f && known)
        memcpy(kid, n->kid, LG_ID_LEN);
    for (unsigned i = 0; !hit && known && i < d->n; i++)
        hit = memcmp(kid, d->kids[i], LG_ID_LEN) == 0;
    if (hit && n->f)
        lg_file_drop_keys(n->f, d->discard);
    lg_node_unlock(v, n);
    if (hit && d->each)
        d->each(d->arg, n->id);
    return 0;
}

void lg_volume_drop_keys(struct lg_volume *v, const uint8_t (*kids)[LG_ID_LEN], unsigned n, bool discard, void (*each)(void *arg, uint64_t node), void *arg)
{
    struct drop d = { kids, n, discard, each, arg };
    if (!kids) {
        pthread_rwlock_wrlock(&v->ns);
        lg_names_free(v->names);
        v->names = NULL;
        pthread_rwlock_unlock(&v->ns);
    }
    (void)!lg_nodes_each(v, false, drop_one, &d);
}

struct kids {
    struct lg_volume_kid *kid;
    size_t n, cap;
};

/* Sorted, each once. */
static int kid_one(struct lg_volume *v, struct lg_node *n, void *arg)
{
    struct kids *ks = arg;
    struct lg_volume_kid x = { .version = 0 };
    if (!S_ISREG(n->type))
        return 0;
    lg_node_lock(v, n);
    bool known = n->f && lg_file_holds_key(n->f, x.kid, &x.version);
    lg_node_unlock(v, n);
    size_t lo = 0, hi = ks->n;
    while (known && lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        int c = memcmp(ks->kid[mid].kid, x.kid, LG_ID_LEN);
        c = c ? c : (ks->kid[mid].version > x.version) - (ks->kid[mid].version < x.version);
        if (!c)
            return 0;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (!known)
        return 0;
    if (ks->n == ks->cap) {
        size_t cap = ks->cap ? 2 * ks->cap : 64;
        void *p = reallocarray(ks->kid, cap, sizeof *ks->kid);
        if (!p)
            return -ENOMEM;
        ks->kid = p;
        ks->cap = cap;
    }
    memmove(ks->kid + lo + 1, ks->kid + lo, (ks->n - lo) * sizeof *ks->kid);
    ks->kid[lo] = x;
    ks->n++;
    return 0;
}

int lg_volume_kids(struct lg_volume *v, struct lg_volume_kid **ret, size_t *ret_n)
{
    struct kids ks = { .kid = NULL };
    int rc = lg_nodes_each(v, false, kid_one, &ks);
    if (rc) {
        free(ks.kid);
        return rc;
    }
    *ret = ks.kid;
    *ret_n = ks.n;
    return 0;
}

static int sync_one(struct lg_volume *v, struct lg_node *n, void *arg)
{
    (void)v, (void)arg;
    lg_node_lock(v, n);
    int rc = n->f ? lg_file_sync(n->f) : 0;
    lg_node_unlock(v, n);
    return rc;
}

int lg_volume_close(struct lg_volume *v)
{
    int rc = lg_nodes_each(v, false, sync_one, NULL);
    struct lg_node *root = lg_node_ref(v, LG_ROOT_NODE);
    for (size_t b = 0; b < v->n_buckets; b++) /* files still open go with their nodes, before the journal does */
        for (struct lg_node *n = v->by_id[b]; n; n = n->next_id) {
            lg_file_free(n->f);
            n->f = NULL;
        }
    lg_node_unref(v, root);
    int r = lg_journal_close(v->env.journal);
    rc = rc ? rc : r;
    if (!rc && lg_suspects_any(v->env.suspects))
        rc = -EIO;
    /* Files that were closed without fsync: from here on their session counts as durable. */
    if (!rc && !v->opt.read_only && syncfs(v->rootfd))
        rc = -errno;
    volume_free(v);
    return lg_errno(rc);
}
