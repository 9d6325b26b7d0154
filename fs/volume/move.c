#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <string.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/closer.h"

/* ---- removing and moving -------------------------------------------------------------------------------------------------------------- */

enum {
    HEAVY = 128, /* blocks of 512 bytes from which on giving them back takes longer than a thread takes to wake */
    ROOM_MIB = 128, ROOM_FILES = 1024, /* with less free below, somebody may need at once what is given back, and not only this process */
    ROOM_MS = 10, /* for as long as this it is taken to be there still */
};

static bool has_room(struct lg_volume *v, int fd)
{
    struct statfs fs;
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    int64_t now = (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
    if (now < atomic_load_explicit(&v->room_until_ms, memory_order_relaxed))
        return true;
    if (fstatfs(fd, &fs) || fs.f_bavail < ((uint64_t)ROOM_MIB << 20) / (uint64_t)fs.f_bsize || (fs.f_files && fs.f_ffree < ROOM_FILES))
        return false;
    atomic_store_explicit(&v->room_until_ms, now + ROOM_MS, memory_order_relaxed);
    return true;
}

/* What is about to lose a name, if that file may be half committed, or its space takes long to give back: a descriptor, or -1. */
static int losing(const struct lg_volume *v, const struct lg_place *p, const struct stat *st)
{
    if (!S_ISREG(st->st_mode) || !(lg_suspects_any(v->env.suspects) || (v->closes_soon && st->st_nlink == 1 && st->st_blocks >= HEAVY)))
        return -1;
    return openat(p->fd, p->lower, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

/* If that was its last, and nobody has it open (else closing it does this), the session may end cleanly for all it is concerned. No lock is held. */
static void lost(struct lg_volume *v, int fd)
{
    struct lg_node *n;
    struct stat st;
    if (fd < 0)
        return;
    if (lg_suspects_any(v->env.suspects) && !fstat(fd, &st) && !st.st_nlink && !lg_node_of_fd(v, NULL, fd, NULL, false, &n, &st)) {
        lg_node_lock(v, n);
        if (!n->f)
            lg_suspects_gone(&v->env, fd);
        lg_node_unlock(v, n);
        lg_node_unref(v, n);
    }
    if (v->closes_soon && has_room(v, fd))
        lg_close_soon(fd);
    else
        close(fd);
}

int lg_volume_unlink(struct lg_volume *v, uint64_t parent, const char *name, struct lg_subject *ret_of)
{
    struct lg_place p;
    struct lg_node *n = NULL;
    struct stat st;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    bool seen = !rc && fstatat(p.fd, p.lower, &st, AT_SYMLINK_NOFOLLOW) == 0;
    int held = seen ? losing(v, &p, &st) : -1;
    if (seen && ret_of)
        n = lg_node_named(v, &st, parent, name);
    if (!rc && unlinkat(p.fd, p.lower, 0))
        rc = -errno;
    if (!rc && seen) /* it may have other names */
        lg_nodes_unread(v, &st);
    if (!rc)
        lg_sidecar_drop(p.fd, p.lower);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    lost(v, held);
    if (ret_of)
        *ret_of = lg_node_subject(v, n);
    lg_node_unref(v, n);
    return lg_errno(rc);
}

/* Takes away an empty directory of ours, hidden first so that a crash leaves nothing half empty under a name. */
static int discard_dir(int parentfd, const char *lower)
{
    char tmp[32];
    int fd = openat(parentfd, lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int rc = lg_dir_empty(fd);
    lg_tmp_name(tmp);
    const char *at = tmp;
    if (!rc && renameat2(parentfd, lower, parentfd, tmp, RENAME_NOREPLACE)) {
        if (errno == ENOSPC || errno == EDQUOT) /* no room for another name: a crash may leave it without its id, and empty */
            at = lower;
        else
            rc = -errno;
    }
    if (!rc) {
        DIR *d = fdopendir(fd);
        if (d) {
            fd = -1;
            for (struct dirent *e; (e = readdir(d));) {
                if (strncmp(e->d_name, LG_HIDDEN, sizeof LG_HIDDEN - 1) != 0 || unlinkat(dirfd(d), e->d_name, 0) == 0)
                    continue;
                int sub = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW); /* what a crash left of an earlier one */
                if (sub >= 0) {
                    unlinkat(sub, LG_DIRID_NAME, 0);
                    close(sub);
                    unlinkat(dirfd(d), e->d_name, AT_REMOVEDIR);
                }
            }
            closedir(d);
        }
        if (unlinkat(parentfd, at, AT_REMOVEDIR) && at == lower) /* hidden it is gone; what is left of it goes with its parent */
            rc = -errno;
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

/* Exclusively, each once, in the order of their ids. NULL and others are passed over; the order in set is changed. */
static void lock_dirs(struct lg_node **set, size_t n)
{
    for (size_t i = 0; i < n; i++)
        for (size_t k = i + 1; k < n; k++)
            if (!set[i] || (set[k] && set[k]->id < set[i]->id)) {
                struct lg_node *x = set[i];
                set[i] = set[k];
                set[k] = x;
            }
    for (size_t i = 0; i < n; i++)
        if (set[i] && set[i]->entries && (!i || set[i] != set[i - 1]))
            pthread_rwlock_wrlock(set[i]->entries);
}

static void unlock_dirs(struct lg_node **set, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (set[i] && set[i]->entries && (!i || set[i] != set[i - 1]))
            pthread_rwlock_unlock(set[i]->entries);
}

int lg_volume_rmdir(struct lg_volume *v, uint64_t parent, const char *name)
{
    struct lg_place p;
    struct lg_node *dir = NULL, *now = NULL;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_NONE, &p);
    for (bool again = !rc; again;) { /* until the directory that is there is the one locked */
        struct stat st;
        struct lg_node *set[] = { p.dir, dir };
        lock_dirs(set, 2);
        rc = lg_node_at(v, NULL, p.fd, p.lower, NULL, false, &now, &st);
        again = !rc && S_ISDIR(now->type) && now != dir;
        if (!rc && !again)
            rc = discard_dir(p.fd, p.lower);
        if (!rc && !again)
            lg_sidecar_drop(p.fd, p.lower);
        unlock_dirs(set, 2);
        lg_node_unref(v, dir);
        dir = now;
        now = NULL;
    }
    lg_node_unref(v, dir);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

/* Both directories are locked, and to too if it is one. to: what stands at b, NULL: nothing. */
static int rename_at(struct lg_place *a, struct lg_place *b, const struct lg_node *from, const struct lg_node *to, unsigned flags)
{
    int rc = lg_sidecar_make(b->fd, b->sealed, b->lower);
    if (rc)
        return rc;
    if (!flags && to && S_ISDIR(from->type) && S_ISDIR(to->type) && from != to) {
        /* Over an empty directory: its id stands in the way of an ordinary rename. */
        int fd = openat(b->fd, b->lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        rc = fd < 0 ? -errno : lg_dir_empty(fd);
        if (fd >= 0)
            close(fd);
        if (!rc && renameat2(a->fd, a->lower, b->fd, b->lower, RENAME_EXCHANGE))
            rc = -errno;
        return rc ? rc : discard_dir(a->fd, a->lower);
    }
    if (renameat2(a->fd, a->lower, b->fd, b->lower, flags)) {
        rc = -errno;
        if (!to)
            lg_sidecar_drop(b->fd, b->lower);
    }
    return rc;
}

/* To a name that nothing has, the commonest: what stands there need not be asked for first. False, whatever the reason: that is to be found out. */
static bool rename_free(const struct lg_place *a, const struct lg_place *b, unsigned flags)
{
    return !(flags & RENAME_EXCHANGE) && !lg_name_is_long(b->lower) && renameat2(a->fd, a->lower, b->fd, b->lower, RENAME_NOREPLACE) == 0;
}

int lg_volume_rename(struct lg_volume *v, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags, struct lg_subject *ret_of)
{
    struct lg_place a, b = { 0 };
    struct lg_node *dir = NULL, *moved = NULL;
    int held = -1;
    if (ret_of)
        ret_of->known = false;
    if (flags & ~(unsigned)(RENAME_NOREPLACE | RENAME_EXCHANGE))
        return -EINVAL;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_NONE, &a);
    if (!rc)
        rc = lg_place_get(v, new_parent, new_name, LG_HOLD_NONE, &b);
    for (bool again = !rc; again;) { /* until the directory that is to be replaced is the one locked */
        struct lg_node *n = NULL, *m = NULL, *set[] = { a.dir, b.dir, dir };
        struct stat st;
        lock_dirs(set, 3);
        rc = lg_node_at(v, NULL, a.fd, a.lower, NULL, false, &n, &st);
        bool done = !rc && rename_free(&a, &b, flags);
        if (!rc && !done)
            rc = lg_node_at(v, NULL, b.fd, b.lower, NULL, false, &m, &st);
        if (rc == -ENOENT && n && !(flags & RENAME_EXCHANGE))
            rc = 0;
        again = !rc && !flags && m && m != n && S_ISDIR(m->type) && m != dir;
        if (!rc && !again && m && m != n && !flags)
            held = losing(v, &b, &st);
        if (!rc && !again && !done)
            rc = rename_at(&a, &b, n, m, flags);
        if (!rc && !again) {
            bool same = a.dir == b.dir && strcmp(a.lower, b.lower) == 0;
            if (!same && !(flags & RENAME_EXCHANGE) && lg_name_is_long(a.lower) && lg_name_exists(a.fd, a.lower) == 0) /* two links to one inode stay both */
                lg_sidecar_drop(a.fd, a.lower);
            atomic_store(&n->read_at, 0);
            if (m)
                atomic_store(&m->read_at, 0);
            lg_node_moved(v, n, new_parent, new_name);
            lg_sweep_moved(v, n);
            if (flags & RENAME_EXCHANGE) {
                lg_node_moved(v, m, parent, name);
                lg_sweep_moved(v, m);
            }
        }
        unlock_dirs(set, 3);
        if (again)
            lg_node_unref(v, n);
        else
            moved = n;
        lg_node_unref(v, dir);
        dir = m;
    }
    lg_node_unref(v, dir);
    lg_place_done(v, &a);
    lg_place_done(v, &b);
    lg_ns_unlock(v);
    lost(v, held);
    if (ret_of) /* may wait for whoever is opening the file, so no lock is held */
        *ret_of = lg_node_subject(v, moved);
    lg_node_unref(v, moved);
    return lg_errno(rc);
}
