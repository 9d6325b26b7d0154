#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { DEPTH_MAX = 1024, SHARE = 4, REST_NS_MAX = 200 * 1000 * 1000 }; /* works a quarter of the time */

struct sweep {
    struct lg_volume *v;
    uint64_t last; /* newest session that ended uncleanly */
    bool (*stop)(void *arg);
    void *arg;
    struct lg_sweep_stat stat;
};

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void rest(uint64_t worked_ns)
{
    uint64_t ns = worked_ns * (SHARE - 1) < REST_NS_MAX ? worked_ns * (SHARE - 1) : REST_NS_MAX;
    struct timespec t = { 0, (long)ns };
    nanosleep(&t, NULL);
}

/* What a later session has committed was recovered when that session opened it. Not yet authenticated: a forged number only leaves the file to
 * whoever opens it next, and there its MAC is bad. */
static bool of_later_session(const struct sweep *s, int fd)
{
    uint8_t head[3 * LG_SECTOR];
    struct lg_slot slot;
    uint64_t seq = 0, session = 0;
    if (lg_sys_read_full(s->v->env.sys, fd, head, sizeof head, 0) < (ssize_t)sizeof head)
        return false;
    for (unsigned i = 1; i <= 2; i++)
        if (!lg_slot_decode(head + i * LG_SECTOR, &slot) && slot.seq >= seq) {
            seq = slot.seq;
            session = slot.session;
        }
    return session > s->last;
}

static bool locked(const struct lg_volume *v)
{
    struct lg_kref *k;
    int rc = lg_keys_general(v->opt.keys, &k);
    if (!rc)
        lg_kref_unref(k);
    return rc != 0;
}

/* Opens it as anybody would: that recovers it. */
static int sweep_node(struct sweep *s, struct lg_node *n)
{
    int rc;
    for (;;) {
        uint64_t t = now_ns();
        lg_node_lock(s->v, n);
        bool open = n->f != NULL; /* then it was recovered already */
        rc = open ? 0 : lg_node_file(s->v, n);
        if (!open && !rc)
            lg_node_file_done(s->v, n);
        lg_node_unlock(s->v, n);
        rest(now_ns() - t);
        if (rc != -ENOKEY || !locked(s->v))
            break;
        if (s->stop(s->arg))
            return -ECANCELED;
        sleep(1); /* until unlocked */
    }
    s->stat.opened++;
    /* Nobody can recover what has no key or is damaged; scrub --accept-crash is there for a key that comes back. Anything else may pass. */
    if (rc == -EBADMSG || rc == -EPROTONOSUPPORT || rc == -ENOKEY || rc == -EKEYREVOKED)
        s->stat.refused++;
    else if (rc == -ESTALE || rc == -ENOENT)
        ; /* removed meanwhile */
    else if (rc)
        s->stat.failed++;
    return 0;
}

/* What a re-encryption that a crash cut short has left. The file that it was to replace is whole, and the journal has been replayed. Should a clock that was
 * set back make one of this mount's look old, that re-encryption fails and its file stays as it was. */
static bool is_temporary(const char *lower) { return strncmp(lower, LG_TMP_PREFIX, sizeof LG_TMP_PREFIX - 1) == 0 && strlen(lower) == sizeof LG_TMP_PREFIX - 1 + 16; }

static bool older_than_mount(const struct lg_volume *v, const struct stat *st)
{
    return st->st_ctim.tv_sec < v->opened.tv_sec || (st->st_ctim.tv_sec == v->opened.tv_sec && st->st_ctim.tv_nsec < v->opened.tv_nsec);
}

static int sweep_dir(struct sweep *s, int fd, unsigned depth);

static int sweep_entry(struct sweep *s, int dirfd, const char *lower, unsigned depth)
{
    struct stat st;
    struct lg_node *n;
    if (fstatat(dirfd, lower, &st, AT_SYMLINK_NOFOLLOW))
        return 0; /* gone; under which other name, the renaming told us */
    if (S_ISDIR(st.st_mode)) {
        int sub = openat(dirfd, lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (sub < 0 && errno == ENOENT)
            return 0;
        if (sub < 0 || !depth) {
            s->stat.failed++;
            if (sub >= 0)
                close(sub);
            return 0;
        }
        lg_noatime(sub);
        return sweep_dir(s, sub, depth - 1);
    }
    if (!S_ISREG(st.st_mode))
        return 0;
    if (is_temporary(lower)) {
        if (older_than_mount(s->v, &st) && unlinkat(dirfd, lower, 0) && errno != ENOENT)
            s->stat.failed++;
        return 0;
    }
    if (!st.st_size && !older_than_mount(s->v, &st))
        return 0; /* somebody is just making it: its header is on the way */
    s->stat.files++;
    uint64_t t = now_ns();
    int fd = openat(dirfd, lower, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0)
        lg_noatime(fd);
    bool later = fd >= 0 && of_later_session(s, fd);
    if (fd >= 0)
        close(fd);
    rest(now_ns() - t);
    if (later)
        return 0;
    if (lg_node_at(s->v, NULL, dirfd, lower, NULL, false, &n, &st))
        return 0;
    int rc = S_ISREG(n->type) ? sweep_node(s, n) : 0;
    lg_node_unref(s->v, n);
    return rc;
}

/* Takes fd. */
static int sweep_dir(struct sweep *s, int fd, unsigned depth)
{
    DIR *d = fdopendir(fd);
    int rc = 0;
    if (!d) {
        close(fd);
        s->stat.failed++;
        return 0;
    }
    while (!rc) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e) {
            s->stat.failed += errno != 0;
            break;
        }
        if (s->stop(s->arg))
            rc = -ECANCELED;
        else if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && e->d_type != DT_LNK)
            rc = sweep_entry(s, dirfd(d), e->d_name, depth);
    }
    closedir(d);
    return rc;
}

/* ---- what was renamed or linked meanwhile: the walk may have missed it ------------------------------------------------------------------- */

void lg_sweep_moved(struct lg_volume *v, struct lg_node *n)
{
    if (S_ISREG(n->type) && lg_node_trylock(v, n)) {
        bool known = n->was_open; /* recovered then, or made by this session */
        lg_node_unlock(v, n);
        if (known)
            return;
    }
    if (!S_ISREG(n->type) && !S_ISDIR(n->type))
        return;
    pthread_mutex_lock(&v->table);
    if (v->sweeping && v->n_moved == v->cap_moved) {
        size_t cap = v->cap_moved ? v->cap_moved * 2 : 64;
        struct lg_node **m = reallocarray(v->moved, cap, sizeof(struct lg_node *));
        if (m) {
            v->moved = m;
            v->cap_moved = cap;
        } else {
            v->moved_lost = true;
        }
    }
    if (v->sweeping && v->n_moved < v->cap_moved) {
        n->refs++;
        v->moved[v->n_moved++] = n;
    }
    pthread_mutex_unlock(&v->table);
}

static struct lg_node *pop_moved(struct lg_volume *v, bool last)
{
    pthread_mutex_lock(&v->table);
    struct lg_node *n = v->n_moved ? v->moved[--v->n_moved] : NULL;
    if (!n && last)
        v->sweeping = false;
    pthread_mutex_unlock(&v->table);
    return n;
}

/* NULL: none is left, and from now on none is added. No rename is under way then. */
static struct lg_node *next_moved(struct lg_volume *v)
{
    struct lg_node *n = pop_moved(v, false);
    if (n)
        return n;
    pthread_rwlock_wrlock(&v->ns);
    n = pop_moved(v, true);
    pthread_rwlock_unlock(&v->ns);
    return n;
}

static int sweep_moved(struct sweep *s, struct lg_node *n)
{
    if (S_ISREG(n->type))
        return sweep_node(s, n);
    int fd = lg_node_open(s->v, n, O_RDONLY | O_DIRECTORY);
    return fd < 0 ? 0 : sweep_dir(s, fd, DEPTH_MAX);
}

int lg_volume_sweep(struct lg_volume *v, bool (*stop)(void *arg), void *arg, struct lg_sweep_stat *ret)
{
    unsigned n = __atomic_load_n(&v->env.n_unclean, __ATOMIC_ACQUIRE);
    struct sweep s = { .v = v, .stop = stop, .arg = arg };
    struct lg_node *m;
    *ret = s.stat;
    if (!n)
        return 0;
    if (v->opt.read_only)
        return -EROFS;
    s.last = v->env.unclean[n - 1];
    pthread_mutex_lock(&v->table);
    v->sweeping = true;
    pthread_mutex_unlock(&v->table);
    int fd = openat(v->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = fd < 0 ? -errno : 0;
    if (!rc) {
        lg_noatime(fd);
        rc = sweep_dir(&s, fd, DEPTH_MAX);
    }
    while ((m = next_moved(v)) != NULL) {
        if (!rc)
            rc = sweep_moved(&s, m);
        lg_node_unref(v, m);
    }
    free(v->moved);
    v->moved = NULL;
    v->cap_moved = 0;
    *ret = s.stat;
    if (!rc && (s.stat.failed || v->moved_lost))
        rc = -EIO;
    v->moved_lost = false;
    if (!rc)
        __atomic_store_n(&v->env.n_unclean, 0, __ATOMIC_RELEASE); /* from here on nothing half committed is taken for a crash's work */
    return rc;
}
