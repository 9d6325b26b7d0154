#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { DIRFDS_MAX = 1024, BUCKETS_MIN = 1024 };

int lg_errno(int rc) { return rc == -EBADMSG || rc == -EPROTO || rc == -EPROTONOSUPPORT ? -EIO : rc; }

static uint64_t hash_bytes(const void *p, size_t n, uint64_t h)
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3ull;
    return h ^ h >> 29;
}

static uint64_t key_hash(dev_t dev, ino_t ino) { return hash_bytes(&ino, sizeof ino, 0xcbf29ce484222325ull ^ dev); }

/* table held, for the next three */
static int grow(struct lg_volume *v)
{
    size_t n = v->n_buckets ? v->n_buckets * 2 : BUCKETS_MIN;
    struct lg_node **id = calloc(n, sizeof(struct lg_node *)), **key = calloc(n, sizeof(struct lg_node *));
    if (!id || !key) {
        free(id);
        free(key);
        return -ENOMEM;
    }
    for (size_t b = 0; b < v->n_buckets; b++)
        for (struct lg_node *x = v->by_id[b], *next; x; x = next) {
            next = x->next_id;
            x->next_id = id[x->id % n];
            id[x->id % n] = x;
            uint64_t k = key_hash(x->dev, x->ino) % n;
            x->next_key = key[k];
            key[k] = x;
        }
    free(v->by_id);
    free(v->by_key);
    v->by_id = id;
    v->by_key = key;
    v->n_buckets = n;
    return 0;
}

static size_t handle_size(size_t len) { return offsetof(struct lg_handle_bytes, b) + len; }

/* name may be NULL. Without memory it keeps the one that it has. */
static void name_set(struct lg_volume *v, struct lg_node *n, const char *name)
{
    size_t len = name ? strlen(name) + 1 : 0;
    char *copy = name ? lg_slab_get(&v->slab, len) : NULL;
    if (name && !copy)
        return;
    if (n->name)
        lg_slab_put(&v->slab, n->name, strlen(n->name) + 1);
    n->name = name ? memcpy(copy, name, len) : NULL;
}

static void node_free(struct lg_volume *v, struct lg_node *n)
{
    lg_file_free(n->f);
    if (n->fd >= 0) {
        close(n->fd);
        if (S_ISDIR(n->type))
            v->n_dirfds--;
    }
    v->attrs_lost |= n->attrs_pending;
    if (n->entries)
        pthread_rwlock_destroy(n->entries);
    free(n->entries);
    for (struct lg_handle_bytes *h = n->handle, *earlier; h; h = earlier) {
        earlier = h->earlier;
        lg_slab_put(&v->slab, h, handle_size(h->len));
    }
    name_set(v, n, NULL);
    lg_slab_put(&v->slab, n, sizeof *n);
}

static void unlink_node(struct lg_volume *v, struct lg_node *n)
{
    struct lg_node **p = &v->by_id[n->id % v->n_buckets];
    while (*p != n)
        p = &(*p)->next_id;
    *p = n->next_id;
    p = &v->by_key[key_hash(n->dev, n->ino) % v->n_buckets];
    while (*p != n)
        p = &(*p)->next_key;
    *p = n->next_key;
    v->n_nodes--;
}

static struct lg_node *find(struct lg_volume *v, uint64_t id)
{
    struct lg_node *n = v->by_id[id % v->n_buckets];
    while (n && n->id != id)
        n = n->next_id;
    return n;
}

struct lg_node *lg_node_named(struct lg_volume *v, const struct stat *st, uint64_t parent, const char *name)
{
    pthread_mutex_lock(&v->table);
    struct lg_node *n = v->by_key[key_hash(st->st_dev, st->st_ino) % v->n_buckets];
    while (n && !(n->dev == st->st_dev && n->ino == st->st_ino && n->parent == parent && n->name && strcmp(n->name, name) == 0))
        n = n->next_key;
    if (n)
        n->refs++;
    pthread_mutex_unlock(&v->table);
    return n;
}

void lg_nodes_unread(struct lg_volume *v, const struct stat *st)
{
    pthread_mutex_lock(&v->table);
    for (struct lg_node *n = v->by_key[key_hash(st->st_dev, st->st_ino) % v->n_buckets]; n; n = n->next_key)
        if (n->dev == st->st_dev && n->ino == st->st_ino)
            atomic_store(&n->read_at, 0);
    pthread_mutex_unlock(&v->table);
}

static struct lg_node *ref(struct lg_volume *v, uint64_t id, int *ret_fd)
{
    pthread_mutex_lock(&v->table);
    struct lg_node *n = find(v, id);
    if (n) {
        n->refs++;
        *ret_fd = n->fd;
    }
    pthread_mutex_unlock(&v->table);
    return n;
}

struct lg_node *lg_node_ref(struct lg_volume *v, uint64_t id)
{
    int fd;
    return ref(v, id, &fd);
}

static struct lg_node_wait *wait_of(struct lg_volume *v, const struct lg_node *n) { return &v->waits[n->id % LG_NODE_WAITS]; }

void lg_node_lock(struct lg_volume *v, struct lg_node *n)
{
    struct lg_node_wait *w = wait_of(v, n);
    pthread_mutex_lock(&w->mu);
    while (n->locked)
        pthread_cond_wait(&w->free, &w->mu);
    n->locked = true;
    pthread_mutex_unlock(&w->mu);
}

void lg_node_file_set(struct lg_volume *v, struct lg_node *n, struct lg_file *f)
{
    struct lg_node_wait *w = wait_of(v, n);
    pthread_mutex_lock(&w->mu);
    n->f = f;
    if (f && !++n->was_open)
        n->was_open = 1;
    pthread_mutex_unlock(&w->mu);
}

bool lg_node_trylock(struct lg_volume *v, struct lg_node *n)
{
    struct lg_node_wait *w = wait_of(v, n);
    pthread_mutex_lock(&w->mu);
    bool got = !n->locked;
    n->locked = true;
    pthread_mutex_unlock(&w->mu);
    return got;
}

void lg_node_unlock(struct lg_volume *v, struct lg_node *n)
{
    struct lg_node_wait *w = wait_of(v, n);
    pthread_mutex_lock(&w->mu);
    n->locked = false;
    pthread_cond_broadcast(&w->free);
    pthread_mutex_unlock(&w->mu);
}

/* table held; n may be NULL */
static void release(struct lg_volume *v, struct lg_node *n, uint64_t lookups, unsigned refs)
{
    if (!n)
        return;
    n->lookups -= lookups < n->lookups ? lookups : n->lookups;
    n->refs -= refs;
    if (!n->lookups && !n->refs && n->id != LG_ROOT_NODE) {
        unlink_node(v, n);
        node_free(v, n);
    }
}

void lg_node_unref2(struct lg_volume *v, struct lg_node *n, struct lg_node *m)
{
    if (!n && !m)
        return;
    pthread_mutex_lock(&v->table);
    release(v, n, 0, 1);
    release(v, m, 0, 1);
    pthread_mutex_unlock(&v->table);
}

void lg_node_unref(struct lg_volume *v, struct lg_node *n) { lg_node_unref2(v, n, NULL); }

void lg_volume_forget(struct lg_volume *v, uint64_t node, uint64_t n)
{
    pthread_mutex_lock(&v->table);
    release(v, find(v, node), n, 0);
    pthread_mutex_unlock(&v->table);
}

union handle {
    struct file_handle h;
    uint8_t room[sizeof(struct file_handle) + LG_HANDLE_MAX];
};

static const uint8_t *handle_bytes(const union handle *u) { return u->room + offsetof(struct file_handle, f_handle); }

static struct lg_handle_bytes *handle_keep(struct lg_volume *v, const union handle *u, struct lg_handle_bytes *earlier)
{
    struct lg_handle_bytes *h = lg_slab_get(&v->slab, handle_size(u->h.handle_bytes));
    if (h) {
        h->earlier = earlier;
        h->type = (uint8_t)u->h.handle_type; /* the kernel's enum fid_type ends at 255 */
        h->len = (uint8_t)u->h.handle_bytes;
        memcpy(h->b, handle_bytes(u), u->h.handle_bytes);
    }
    return h;
}

static bool same_handle(const struct lg_handle_bytes *h, const union handle *u)
{
    return !h || !u ? !h && !u : h->type == u->h.handle_type && h->len == u->h.handle_bytes && !memcmp(h->b, handle_bytes(u), h->len);
}

/* The node of a lower inode. fd (O_PATH) is taken over if it is needed. */
static int node_get(struct lg_volume *v, const struct lg_node *parent, const union handle *u, int fd, const struct stat *st, const char *name, bool count,
                    struct lg_node **ret)
{
    uint32_t len = v->handles ? u->h.handle_bytes : 0;
    if (len && (u->h.handle_type < 0 || u->h.handle_type > UINT8_MAX))
        return -EOVERFLOW;
    pthread_mutex_lock(&v->table);
    int rc = v->n_nodes + 1 > v->n_buckets ? grow(v) : 0;
    struct lg_node *n = rc ? NULL : v->by_key[key_hash(st->st_dev, st->st_ino) % v->n_buckets];
    /* The handle holds the inode's generation: a number used again is another node. */
    while (n && !(n->dev == st->st_dev && n->ino == st->st_ino && same_handle(n->handle, len ? u : NULL)))
        n = n->next_key;
    if (!rc && !n) {
        n = lg_slab_get(&v->slab, sizeof *n);
        struct lg_handle_bytes *kept = n && len ? handle_keep(v, u, NULL) : NULL;
        if (n)
            *n = (struct lg_node){ .handle = kept };
        if (n && ((S_ISDIR(st->st_mode) && !(n->entries = malloc(sizeof *n->entries))) || (len && !kept))) {
            lg_slab_put(&v->slab, kept, handle_size(len));
            free(n->entries);
            lg_slab_put(&v->slab, n, sizeof *n);
            n = NULL;
        }
        if (!n)
            rc = -ENOMEM;
        if (!rc) {
            n->id = v->next_id++;
            n->dev = (uint32_t)st->st_dev;
            n->ino = st->st_ino;
            n->type = (uint16_t)(st->st_mode & S_IFMT);
            n->fd = -1;
            n->attrs_pending = v->attrs_lost;
            if (n->entries)
                pthread_rwlock_init(n->entries, NULL);
            n->next_id = v->by_id[n->id % v->n_buckets];
            v->by_id[n->id % v->n_buckets] = n;
            uint64_t k = key_hash(n->dev, n->ino) % v->n_buckets;
            n->next_key = v->by_key[k];
            v->by_key[k] = n;
            v->n_nodes++;
        }
    }
    if (!rc && n->fd < 0 && fd >= 0 && (!len || (S_ISDIR(n->type) && v->n_dirfds < DIRFDS_MAX))) {
        n->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
        if (n->fd >= 0 && S_ISDIR(n->type))
            v->n_dirfds++;
        else if (n->fd < 0 && !len)
            rc = -errno;
    }
    if (!rc && name && (S_ISREG(n->type) || S_ISDIR(n->type)) && (!n->name || strcmp(n->name, name) != 0))
        name_set(v, n, name);
    if (!rc) {
        if (parent)
            n->parent = parent->id;
        n->lookups += count;
        n->refs++;
        *ret = n;
    }
    pthread_mutex_unlock(&v->table);
    return rc;
}

int lg_node_of_fd(struct lg_volume *v, const struct lg_node *parent, int fd, const char *name, bool count, struct lg_node **ret, struct stat *st)
{
    union handle u = { .h.handle_bytes = LG_HANDLE_MAX };
    int mount_id;
    if (fstat(fd, st))
        return -errno;
    if (v->handles && name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH))
        return -errno;
    return node_get(v, parent, &u, fd, st, name, count, ret);
}

int lg_node_at(struct lg_volume *v, const struct lg_node *parent, int dirfd, const char *lower, const char *name, bool count, struct lg_node **ret,
               struct stat *st)
{
    union handle u = { .h.handle_bytes = LG_HANDLE_MAX };
    int mount_id, fd = -1;
    if (v->handles) {
        if (name_to_handle_at(dirfd, lower, &u.h, &mount_id, 0) || fstatat(dirfd, lower, st, AT_SYMLINK_NOFOLLOW))
            return -errno;
        if (!S_ISDIR(st->st_mode))
            return node_get(v, parent, &u, -1, st, name, count, ret);
    }
    fd = openat(dirfd, lower, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = lg_node_of_fd(v, parent, fd, name, count, ret, st);
    close(fd);
    return rc;
}

int lg_node_root(struct lg_volume *v)
{
    struct stat st;
    struct lg_node *n;
    union handle u = { .h.handle_bytes = LG_HANDLE_MAX };
    int mount_id;
    v->next_id = LG_ROOT_NODE;
    v->handles = name_to_handle_at(v->rootfd, "", &u.h, &mount_id, AT_EMPTY_PATH) == 0;
    if (v->handles) { /* may they be opened as well? */
        int fd = open_by_handle_at(v->rootfd, &u.h, O_PATH | O_CLOEXEC);
        v->handles = fd >= 0;
        if (fd >= 0)
            close(fd);
    }
    int rc = lg_node_of_fd(v, NULL, v->rootfd, "", true, &n, &st);
    if (!rc)
        lg_node_unref(v, n);
    return rc;
}

int lg_node_rebind(struct lg_volume *v, struct lg_node *n, int fd)
{
    union handle u = { .h.handle_bytes = LG_HANDLE_MAX };
    int mount_id, rc = 0;
    struct stat st;
    const struct lg_handle_bytes *was = n->handle;
    if (fstat(fd, &st) || (was && name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH)))
        return -errno;
    if (was && (u.h.handle_bytes != was->len || u.h.handle_type != was->type))
        return -EXDEV;
    pthread_mutex_lock(&v->table);
    struct lg_handle_bytes *h = was ? handle_keep(v, &u, n->handle) : NULL;
    if (was && !h)
        rc = -ENOMEM;
    else if (!was && dup3(fd, n->fd, O_CLOEXEC) < 0)
        rc = -errno;
    if (!rc) {
        struct lg_node **p = &v->by_key[key_hash(n->dev, n->ino) % v->n_buckets];
        while (*p != n)
            p = &(*p)->next_key;
        *p = n->next_key;
        n->ino = st.st_ino;
        if (h)
            n->handle = h;
        p = &v->by_key[key_hash(n->dev, n->ino) % v->n_buckets];
        n->next_key = *p;
        *p = n;
    }
    pthread_mutex_unlock(&v->table);
    return rc;
}

void lg_node_moved(struct lg_volume *v, struct lg_node *n, uint64_t parent, const char *name)
{
    pthread_mutex_lock(&v->table);
    n->parent = parent;
    name_set(v, n, name);
    pthread_mutex_unlock(&v->table);
}

char *lg_node_path(struct lg_volume *v, uint64_t id)
{
    enum { DEPTH = 256 };
    const char *part[DEPTH];
    size_t n = 0, len = 1;
    char *out = NULL;
    pthread_mutex_lock(&v->table);
    for (struct lg_node *x = find(v, id); x && x->id != LG_ROOT_NODE && n < DEPTH && x->name; x = find(v, x->parent)) {
        part[n++] = x->name;
        len += strlen(x->name) + 1;
    }
    out = malloc(len);
    if (out) {
        char *p = out;
        while (n--) {
            size_t l = strlen(part[n]);
            memcpy(p, part[n], l);
            p += l;
            if (n)
                *p++ = '/';
        }
        *p = 0;
    }
    pthread_mutex_unlock(&v->table);
    return out;
}

int lg_node_open_read(struct lg_volume *v, const struct lg_node *n, int flags)
{
    int fd;
    flags |= O_CLOEXEC;
    if (n->id == LG_ROOT_NODE) {
        fd = openat(v->rootfd, ".", flags);
    } else if (n->handle) {
        union handle u;
        const struct lg_handle_bytes *h;
        do { /* re-encryption may put another inode in its place just now */
            h = n->handle;
            u.h.handle_bytes = h->len;
            u.h.handle_type = h->type;
            memcpy(u.room + offsetof(struct file_handle, f_handle), h->b, h->len);
            fd = open_by_handle_at(v->rootfd, &u.h, flags | O_NOFOLLOW);
        } while (fd < 0 && errno == ESTALE && h != n->handle);
    } else if (flags & O_PATH) {
        fd = fcntl(n->fd, F_DUPFD_CLOEXEC, 3);
    } else {
        char path[32];
        lg_fd_path(n->fd, path);
        fd = open(path, flags & ~O_NOFOLLOW); /* this link is to be followed; what it leads to is no name that could be another */
    }
    return fd < 0 ? -errno : fd;
}

int lg_node_open(struct lg_volume *v, const struct lg_node *n, int flags)
{
    int fd = lg_node_open_read(v, n, flags & O_PATH ? flags : flags | O_NOATIME);
    return fd == -EPERM ? lg_node_open_read(v, n, flags) : fd; /* of another owner, and this is no privileged process */
}

static int dirfd_of(struct lg_volume *v, const struct lg_node *n, int kept)
{
    if (n->id == LG_ROOT_NODE)
        return v->rootfd;
    if (!S_ISDIR(n->type))
        return -ENOTDIR;
    return kept >= 0 ? kept : lg_node_open(v, n, O_PATH | O_DIRECTORY);
}

int lg_node_dirfd(struct lg_volume *v, struct lg_node *n)
{
    pthread_mutex_lock(&v->table);
    int fd = n->fd;
    pthread_mutex_unlock(&v->table);
    return dirfd_of(v, n, fd);
}

struct lg_node *lg_node_ref_dir(struct lg_volume *v, uint64_t id, int *ret_fd)
{
    int kept;
    struct lg_node *n = ref(v, id, &kept);
    *ret_fd = n ? dirfd_of(v, n, kept) : -ESTALE;
    return n;
}

void lg_dir_changed(struct lg_node *n)
{
    uint32_t t = atomic_load(&n->traits);
    if (!S_ISDIR(n->type))
        return;
    while (!atomic_compare_exchange_weak(&n->traits, &t, (t & ~(LG_DIR_CHANGE - 1)) + LG_DIR_CHANGE))
        ;
}

void lg_node_done(const struct lg_node *n, int fd)
{
    if (n->id != LG_ROOT_NODE && fd >= 0 && fd != n->fd)
        close(fd);
}

/* Size, blocks and times of a regular file, from those below. Waits neither for the node's lock nor for the file's: whoever holds them may be in a slow call
 * below, or wait for a key. */
static void stat_file(struct lg_volume *v, struct lg_node *n, struct stat *st)
{
    struct lg_node_wait *w = wait_of(v, n);
    struct lg_file_look l = { .mtime_below = false };
    struct lg_file *f;
    for (uint8_t seen = 0;;) {
        pthread_mutex_lock(&w->mu);
        f = n->f;
        if (f)
            lg_file_hold(f);
        uint8_t was_open = n->was_open;
        pthread_mutex_unlock(&w->mu);
        if (f) {
            lg_file_look(f, &l);
            lg_file_drop(f);
        }
        if (f ? !l.mtime_below : was_open == seen) /* closed, and not open meanwhile: what was seen below was no half of a change */
            break;
        struct stat now;
        int fd = lg_node_open(v, n, O_PATH | O_NOFOLLOW);
        if (fd >= 0 && !fstat(fd, &now))
            *st = now;
        if (fd >= 0)
            close(fd);
        if (f)
            break;
        seen = was_open;
    }
    if (!f) {
        st->st_size = (off_t)lg_file_plain_size(v->info.chunk_size, (uint64_t)st->st_size);
        return;
    }
    st->st_size = (off_t)l.size;
    if (l.blocks != LG_BLOCKS_BELOW && !(l.reserved && l.blocks < (uint64_t)st->st_blocks))
        st->st_blocks = (blkcnt_t)l.blocks;
    if (l.mtime.tv_nsec != UTIME_OMIT) {
        st->st_mtim = l.mtime;
        /* Changed in memory only, so far. */
        if (l.dirty && (l.mtime.tv_sec > st->st_ctim.tv_sec || (l.mtime.tv_sec == st->st_ctim.tv_sec && l.mtime.tv_nsec > st->st_ctim.tv_nsec)))
            st->st_ctim = l.mtime;
    }
}

void lg_node_stat(struct lg_volume *v, struct lg_node *n, struct stat *st)
{
    if (S_ISLNK(st->st_mode)) {
        char text[LG_TARGET_SEALED_MAX + 1];
        int fd = st->st_size == LG_TARGET_LOWER_MAX ? lg_node_open(v, n, O_PATH | O_NOFOLLOW) : -1;
        ssize_t len = fd >= 0 ? lg_link_text(fd, text) : -1;
        if (fd >= 0)
            close(fd);
        st->st_size = (off_t)lg_target_len(len < 0 ? (size_t)st->st_size : (size_t)len);
    } else if (S_ISREG(st->st_mode)) {
        stat_file(v, n, st);
        for (bool again = st->st_mtim.tv_nsec == LG_MTIME_MOVED_NS; again;) {
            char path[32];
            struct stat now;
            int fd = lg_node_open(v, n, O_PATH | O_NOFOLLOW);
            lg_fd_path(fd, path);
            /* Re-encryption may have put another in its place since: then that one's time is the one to be asked for. */
            again = fd >= 0 && !lg_mtime_moved(path, st) && !fstat(fd, &now) && (now.st_mtim.tv_sec != st->st_mtim.tv_sec || now.st_mtim.tv_nsec != st->st_mtim.tv_nsec);
            if (again) {
                *st = now;
                stat_file(v, n, st);
                again = st->st_mtim.tv_nsec == LG_MTIME_MOVED_NS;
            }
            if (fd >= 0)
                close(fd);
        }
    }
    st->st_blksize = (blksize_t)v->info.chunk_size;
}

void lg_nodes_init(struct lg_volume *v)
{
    pthread_mutexattr_t attr; /* held for less than it takes to fall asleep */
    pthread_mutexattr_init(&attr);
    pthread_mutexattr_settype(&attr, PTHREAD_MUTEX_ADAPTIVE_NP);
    pthread_mutex_init(&v->table, &attr);
    pthread_mutexattr_destroy(&attr);
    for (unsigned i = 0; i < LG_NODE_WAITS; i++) {
        pthread_mutex_init(&v->waits[i].mu, NULL);
        pthread_cond_init(&v->waits[i].free, NULL);
    }
}

void lg_nodes_free(struct lg_volume *v)
{
    for (size_t b = 0; b < v->n_buckets; b++)
        for (struct lg_node *n = v->by_id[b], *next; n; n = next) {
            next = n->next_id;
            node_free(v, n);
        }
    for (unsigned i = 0; i < LG_NODE_WAITS; i++) {
        pthread_cond_destroy(&v->waits[i].free);
        pthread_mutex_destroy(&v->waits[i].mu);
    }
    lg_slab_free(&v->slab);
    free(v->by_id);
    free(v->by_key);
}
