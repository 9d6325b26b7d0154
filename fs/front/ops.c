#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/sysinfo.h>

#include "audit.h"
#include "leadglass/closer.h"
#include "leadglass/names.h"
#include "order.h"

/* LARGE: reads of that much, but for a file's first, come one behind the other, and several processors are to open them. */
enum { IO_MAX = 1024 * 1024, LARGE = 256 * 1024 };

static struct lg_front *front(fuse_req_t req) { return fuse_req_userdata(req); }
static struct lg_volume *vol(fuse_req_t req) { return front(req)->volume; }

static struct lg_cred cred(fuse_req_t req)
{
    const struct fuse_ctx *c = fuse_req_ctx(req);
    return (struct lg_cred){ .uid = c->uid, .gid = c->gid, .umask = c->umask, .pid = c->pid };
}

static void done(fuse_req_t req, int rc) { fuse_reply_err(req, -rc); }

/* Tried once more where there was no room below and what was removed is about to give it back. Who fails for that has undone what it did. */
#define ROOM(call)                                                                                                                                                            \
    __extension__({                                                                                                                                                           \
        int room_ = (call);                                                                                                                                                   \
        if ((room_ == -ENOSPC || room_ == -EDQUOT) && lg_close_wait())                                                                                                        \
            room_ = (call);                                                                                                                                                   \
        room_;                                                                                                                                                                \
    })

/* A change of names: refused while it cannot be recorded, and recorded before it is answered. */
#define RECORDED(req, event, subject, parent, name, to_parent, to, call)                                                                                                     \
    __extension__({                                                                                                                                                           \
        int rc_ = lg_front_ready(front(req));                                                                                                                                 \
        if (!rc_) {                                                                                                                                                           \
            int64_t began_ = lg_front_now(front(req));                                                                                                                        \
            struct lg_subject of_ = (subject);                                                                                                                                \
            rc_ = ROOM(call);                                                                                                                                                 \
            lg_front_changed(front(req), req, event, &of_, parent, name, to_parent, to, rc_, began_);                                                                        \
        }                                                                                                                                                                     \
        rc_;                                                                                                                                                                  \
    })
/* Of a node; of a name, whose file the call itself finds out (into of_); of something new. */
#define CHANGE(req, event, parent, name, to_parent, to, call) RECORDED(req, event, lg_front_subject(front(req), parent), parent, name, to_parent, to, call)
#define MOVE(req, event, parent, name, to_parent, to, call) RECORDED(req, event, (struct lg_subject){ .known = false }, parent, name, to_parent, to, call)
#define MAKE(req, event, parent, name, call) RECORDED(req, event, (struct lg_subject){ .known = false }, parent, name, 0, NULL, call)

/* One buffer per thread for what is read. */
static pthread_key_t buffer_key;
static pthread_once_t buffer_once = PTHREAD_ONCE_INIT;
static void buffer_init(void)
{
    if (pthread_key_create(&buffer_key, free))
        abort();
}
static void *buffer(size_t len)
{
    if (len > IO_MAX)
        return NULL;
    pthread_once(&buffer_once, buffer_init);
    void *p = pthread_getspecific(buffer_key);
    if (!p && posix_memalign(&p, 4096, IO_MAX) == 0)
        pthread_setspecific(buffer_key, p);
    return p;
}

/* Where what is read is put: in the ring's own buffer when there is one. */
static void *reply_buffer(fuse_req_t req, size_t len)
{
    void *p = lg_ring_buffer(req, len);
    return p ? p : buffer(len);
}

static void op_init(void *user, struct fuse_conn_info *c)
{
    struct lg_front *f = user;
    c->want &= ~(unsigned)(FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE |
                           FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS | FUSE_CAP_ATOMIC_O_TRUNC);
    /* One writer, this one: the kernel's pages are right until we say otherwise. O_TRUNC is to come as a change of size, as the kernel has set-id
     * bits cleared only then. */
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    c->want |= c->capable & FUSE_CAP_HANDLE_KILLPRIV_V2; /* else it asks for security.capability before every write */
#endif
    c->want |= c->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO |
                             FUSE_CAP_ASYNC_READ | FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_DONT_MASK);
    if (!f->unchecked) /* where ACLs count, so do mode bits, and the kernel asks for a directory's attributes after each change in it */
        c->want |= c->capable & FUSE_CAP_POSIX_ACL;
#if FUSE_USE_VERSION >= 318
    c->no_interrupt = 1; /* nothing here is broken off; libfuse finds no request of the ring that one is for, and would keep it, and the descriptor it came through */
#endif
    c->max_write = IO_MAX;
    c->max_readahead = IO_MAX;
    /* Over io_uring the kernel lets each processor's queue have its share of these; half of a queue stays free for requests that somebody waits for. */
    c->max_background = f->ring ? (unsigned)get_nprocs_conf() * LG_RING_DEPTH / 2 : 64;
    c->congestion_threshold = c->max_background * 3 / 4;
    c->time_gran = 1;
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    f->direct_writes = c->want & FUSE_CAP_HANDLE_KILLPRIV_V2 && lg_kernel_forgets(); /* without, nobody would take set-id bits away for them */
#endif
}

static struct fuse_entry_param entry_param(struct lg_front *f, const struct lg_entry *e)
{
    return (struct fuse_entry_param){ .ino = e->node, .attr = e->st, .attr_timeout = f->attr_timeout, .entry_timeout = f->entry_timeout };
}

static void reply_entry(fuse_req_t req, int rc, const struct lg_entry *e)
{
    struct fuse_entry_param p;
    if (rc) {
        done(req, rc);
        return;
    }
    p = entry_param(front(req), e);
    if (fuse_reply_entry(req, &p) == -ENOENT) /* interrupted: the kernel never heard of it */
        lg_volume_forget(vol(req), e->node, 1);
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct lg_entry e;
    int64_t began = lg_front_now(front(req));
    int rc = lg_volume_lookup(vol(req), parent, name, &e);
    if (rc == -ENOENT) { /* remembered by the kernel */
        struct fuse_entry_param p = { .ino = 0, .entry_timeout = front(req)->entry_timeout };
        fuse_reply_entry(req, &p);
        return;
    }
    if (rc == -ENOKEY || rc == -EKEYREVOKED || rc == -EIO) /* denied before it came to an open */
        lg_front_changed(front(req), req, "file.lookup", NULL, parent, name, 0, NULL, rc, began);
    reply_entry(req, rc, &e);
}

/* Over io_uring all that comes over /dev/fuse is what nobody waits for (and, seldom, an interrupt): it may gather, rather than wake this thread for each. */
static void linger(const struct lg_front *f)
{
    const struct timespec t = { .tv_nsec = 1000 * 1000 };
    if (f->lack == LG_RING_RUNS)
        (void)nanosleep(&t, NULL);
}

static void op_forget(fuse_req_t req, fuse_ino_t ino, uint64_t n)
{
    const struct lg_front *f = front(req);
    lg_volume_forget(vol(req), ino, n);
    fuse_reply_none(req);
    linger(f);
}

static void op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *of)
{
    const struct lg_front *f = front(req);
    for (size_t i = 0; i < count; i++)
        lg_volume_forget(vol(req), of[i].ino, of[i].nlookup);
    fuse_reply_none(req);
    linger(f);
}

static void op_getattr(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct stat st;
    (void)fi;
    int rc = lg_volume_getattr(vol(req), ino, &st);
    if (rc)
        done(req, rc);
    else
        fuse_reply_attr(req, &st, front(req)->attr_timeout);
}

#if FUSE_USE_VERSION >= 318
static struct statx_timestamp stamp(struct timespec t) { return (struct statx_timestamp){ .tv_sec = t.tv_sec, .tv_nsec = (uint32_t)t.tv_nsec }; }

/* Asked for only when somebody wants more than stat(2) gives: the birth time. */
static void op_statx(fuse_req_t req, fuse_ino_t ino, int flags, int mask, struct fuse_file_info *fi)
{
    struct stat st;
    struct timespec birth = { 0 };
    (void)flags, (void)mask, (void)fi;
    int rc = lg_volume_getattr(vol(req), ino, &st);
    if (rc) {
        done(req, rc);
        return;
    }
    struct statx x = { .stx_mask = STATX_BASIC_STATS,
                       .stx_blksize = (uint32_t)st.st_blksize,
                       .stx_nlink = (uint32_t)st.st_nlink,
                       .stx_uid = st.st_uid,
                       .stx_gid = st.st_gid,
                       .stx_mode = (uint16_t)st.st_mode,
                       .stx_ino = st.st_ino,
                       .stx_size = (uint64_t)st.st_size,
                       .stx_blocks = (uint64_t)st.st_blocks,
                       .stx_atime = stamp(st.st_atim),
                       .stx_mtime = stamp(st.st_mtim),
                       .stx_ctime = stamp(st.st_ctim),
                       .stx_rdev_major = major(st.st_rdev),
                       .stx_rdev_minor = minor(st.st_rdev) };
    if (lg_volume_birth(vol(req), ino, &birth) == 0) {
        x.stx_mask |= STATX_BTIME;
        x.stx_btime = stamp(birth);
    }
    fuse_reply_statx(req, 0, &x, front(req)->attr_timeout);
}
#endif

static void op_setattr(fuse_req_t req, fuse_ino_t ino, struct stat *attr, int to_set, struct fuse_file_info *fi)
{
    static const struct {
        int fuse;
        unsigned lg;
    } map[] = { { FUSE_SET_ATTR_MODE, LG_SET_MODE }, { FUSE_SET_ATTR_UID, LG_SET_UID },     { FUSE_SET_ATTR_GID, LG_SET_GID },
                { FUSE_SET_ATTR_SIZE, LG_SET_SIZE }, { FUSE_SET_ATTR_ATIME, LG_SET_ATIME }, { FUSE_SET_ATTR_MTIME, LG_SET_MTIME } };
    struct stat st = *attr, now;
    unsigned set = 0;
    (void)fi;
    for (size_t i = 0; i < sizeof map / sizeof *map; i++)
        if (to_set & map[i].fuse)
            set |= map[i].lg;
    if (to_set & FUSE_SET_ATTR_ATIME_NOW) {
        st.st_atim.tv_nsec = UTIME_NOW;
        set |= LG_SET_ATIME;
    }
    if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
        st.st_mtim.tv_nsec = UTIME_NOW;
        set |= LG_SET_MTIME;
    }
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    if (to_set & FUSE_SET_ATTR_KILL_SUID) /* FATTR_KILL_SUIDGID: both bits */
        set |= LG_SET_KILL_SUIDGID;
#endif
    unsigned told = set & (LG_SET_SIZE | LG_SET_MODE | LG_SET_UID | LG_SET_GID); /* times are set after every copy, and tell nobody anything */
    int rc = told ? CHANGE(req, set & LG_SET_SIZE ? "file.truncate" : "file.attr", ino, NULL, 0, NULL, lg_volume_setattr(vol(req), ino, &st, set, &now)) :
                    lg_volume_setattr(vol(req), ino, &st, set, &now);
    if (rc)
        done(req, rc);
    else
        fuse_reply_attr(req, &now, front(req)->attr_timeout);
}

static void op_readlink(fuse_req_t req, fuse_ino_t ino)
{
    char target[4097];
    int rc = lg_volume_readlink(vol(req), ino, target, sizeof target);
    if (rc)
        done(req, rc);
    else
        fuse_reply_readlink(req, target);
}

static void op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
    struct lg_entry e;
    struct lg_cred c = cred(req);
    reply_entry(req, MAKE(req, "file.mknod", parent, name, lg_volume_mknod(vol(req), parent, name, mode, rdev, &c, &e)), &e);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct lg_entry e;
    struct lg_cred c = cred(req);
    reply_entry(req, MAKE(req, "file.mkdir", parent, name, lg_volume_mkdir(vol(req), parent, name, mode, &c, &e)), &e);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct lg_entry e;
    struct lg_cred c = cred(req);
    reply_entry(req, MAKE(req, "file.symlink", parent, name, lg_volume_symlink(vol(req), parent, name, target, &c, &e)), &e);
}

static void op_link(fuse_req_t req, fuse_ino_t ino, fuse_ino_t parent, const char *name)
{
    struct lg_entry e;
    reply_entry(req, CHANGE(req, "file.link", ino, NULL, parent, name, lg_volume_link(vol(req), ino, parent, name, &e)), &e);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) { done(req, MOVE(req, "file.unlink", parent, name, 0, NULL, lg_volume_unlink(vol(req), parent, name, front(req)->audit ? &of_ : NULL))); }
static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) { done(req, MAKE(req, "file.rmdir", parent, name, lg_volume_rmdir(vol(req), parent, name))); }

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t new_parent, const char *new_name, unsigned flags)
{
    done(req, MOVE(req, "file.rename", parent, name, new_parent, new_name, lg_volume_rename(vol(req), parent, name, new_parent, new_name, flags, front(req)->audit ? &of_ : NULL)));
}

/* ---- files --------------------------------------------------------------------------------------------------------------------------- */

static struct lg_opened *open_of(const struct fuse_file_info *fi) { return (struct lg_opened *)(uintptr_t)fi->fh; }
static struct lg_handle *handle(const struct fuse_file_info *fi) { return open_of(fi)->h; }

static void release(struct lg_front *f, struct lg_opened *o)
{
    lg_front_closed(f, o);
    lg_volume_release(o->h);
    free(o);
}

static void opened(const struct lg_front *f, struct fuse_file_info *fi, struct lg_opened *o)
{
    fi->fh = (uintptr_t)o;
    fi->keep_cache = 1;
    /* What is only written goes past the kernel's pages: a copy less. Not with O_DSYNC, which would have each request made durable by itself; with O_DIRECT it does
     * so anyway. */
    fi->direct_io = o->direct = f->direct_writes && (fi->flags & (O_ACCMODE | O_DIRECT | O_DSYNC)) == O_WRONLY;
    fi->noflush = (fi->flags & O_ACCMODE) == O_RDONLY; /* nothing to commit */
}

static void op_open(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct lg_front *f = front(req);
    struct lg_opened *o = calloc(1, sizeof *o);
    int rc = o ? lg_front_ready(f) : -ENOMEM;
    if (!rc) {
        o->began_us = lg_front_now(f);
        lg_ring_try();
        rc = lg_volume_open_file(f->volume, ino, fi->flags, &o->h);
        if (lg_ring_tried(rc)) {
            free(o);
            return;
        }
        lg_front_opened(f, req, ino, o, (fi->flags & O_ACCMODE) == O_RDONLY ? "read" : "write", rc);
    }
    if (rc) {
        free(o);
        done(req, rc);
        return;
    }
    if (lg_volume_read_moved(o->h)) /* a read would make the kernel ask again, but it may have the pages */
        (void)!fuse_lowlevel_notify_inval_inode(f->session, ino, -1, 0);
    opened(f, fi, o);
    if (fuse_reply_open(req, fi) == -ENOENT)
        release(f, o);
}

/* What create and tmpfile have in common. o is taken. */
static void reply_created(fuse_req_t req, int rc, const struct lg_entry *e, struct lg_opened *o, struct fuse_file_info *fi)
{
    struct lg_front *f = front(req);
    if (rc) {
        free(o);
        done(req, rc);
        return;
    }
    struct fuse_entry_param p = entry_param(f, e);
    opened(f, fi, o);
    if (fuse_reply_create(req, &p, fi) == -ENOENT) {
        release(f, o);
        lg_volume_forget(f->volume, e->node, 1);
    }
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct lg_entry e;
    struct lg_cred c = cred(req);
    struct lg_front *f = front(req);
    if (f->ruled && lg_ring_put_off())
        return;
    struct lg_opened *o = calloc(1, sizeof *o);
    int rc = o ? lg_front_ready(f) : -ENOMEM;
    if (!rc) {
        o->began_us = lg_front_now(f);
        rc = ROOM(lg_volume_create_file(f->volume, parent, name, fi->flags, mode, &c, &e, &o->h));
        lg_front_opened(f, req, rc ? 0 : e.node, o, "create", rc);
    }
    reply_created(req, rc, &e, o, fi);
}

#if FUSE_USE_VERSION >= 317
static void op_tmpfile(fuse_req_t req, fuse_ino_t parent, mode_t mode, struct fuse_file_info *fi)
{
    struct lg_entry e;
    struct lg_cred c = cred(req);
    struct lg_front *f = front(req);
    struct lg_opened *o = calloc(1, sizeof *o);
    int rc = o ? lg_front_ready(f) : -ENOMEM;
    if (!rc) {
        o->began_us = lg_front_now(f);
        rc = ROOM(lg_volume_tmpfile(f->volume, parent, fi->flags, mode, &c, &e, &o->h));
        lg_front_opened(f, req, rc ? 0 : e.node, o, "create", rc);
    }
    reply_created(req, rc, &e, o, fi);
}
#endif

static void op_read(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    if (size >= LARGE && off > 0 && lg_ring_spread(front(req)))
        return;
    void *buf = reply_buffer(req, size);
    lg_ring_try();
    ssize_t n = buf ? lg_volume_read(handle(fi), buf, size, (uint64_t)off, fi->flags) : -ENOMEM;
    if (lg_ring_tried(n))
        return;
    if (n < 0) {
        done(req, (int)n);
        return;
    }
    atomic_fetch_add_explicit(&open_of(fi)->read, (uint64_t)n, memory_order_relaxed);
    fuse_reply_buf(req, buf, (size_t)n);
}

/* Before bytes change: the kernel asks for set-id bits to be taken away by those that may not keep them. */
static int kill_privileges(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi, bool setid)
{
    int rc = lg_volume_kill_privileges(handle(fi), setid);
    if (rc == 1) { /* it decides by the mode that it remembers who runs what */
        (void)!fuse_lowlevel_notify_inval_inode(front(req)->session, ino, -1, 0);
        rc = 0;
    }
    return rc;
}

static void op_write(fuse_req_t req, fuse_ino_t ino, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    bool setid = fi->kill_suidgid;
#else
    bool setid = false; /* the kernel does it by itself */
#endif
    /* For a handle past its pages the kernel leaves it to us to make a write durable that is to be so (RWF_DSYNC, RWF_SYNC), as it hands on the flags. */
    bool sync = open_of(fi)->direct && fi->flags & O_DSYNC;
    if (sync && lg_ring_put_off())
        return;
    ssize_t n = kill_privileges(req, ino, fi, setid);
    if (!n) {
        lg_ring_try();
        n = lg_volume_write(handle(fi), buf, size, (uint64_t)off);
        if (lg_ring_tried(n))
            return;
    }
    if (n > 0)
        atomic_fetch_add_explicit(&open_of(fi)->written, (uint64_t)n, memory_order_relaxed);
    int rc = n < 0 ? (int)n : sync ? lg_volume_fsync(handle(fi), (fi->flags & O_SYNC) != O_SYNC) : 0;
    if (rc)
        done(req, rc);
    else if (fi->flags & O_DIRECT && n > 0 && lg_volume_paged(handle(fi)))
        lg_pages_written(front(req), req, ino, off, (size_t)n);
    else
        fuse_reply_write(req, (size_t)n);
}

static void op_flush(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    lg_ring_try();
    int rc = lg_volume_flush(handle(fi));
    if (!lg_ring_tried(rc))
        done(req, rc);
}

static void op_release(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    if (lg_volume_release_waits(handle(fi)) && lg_ring_put_off())
        return;
    release(front(req), open_of(fi));
    done(req, 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)ino;
    if (lg_ring_put_off())
        return;
    done(req, lg_volume_fsync(handle(fi), data_only));
}

static void op_fallocate(fuse_req_t req, fuse_ino_t ino, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    int rc = kill_privileges(req, ino, fi, fuse_req_ctx(req)->uid != 0); /* the request does not say who has CAP_FSETID */
    done(req, rc ? rc : lg_volume_fallocate(handle(fi), mode, (uint64_t)off, (uint64_t)len));
}

static void op_lseek(fuse_req_t req, fuse_ino_t ino, off_t off, int whence, struct fuse_file_info *fi)
{
    uint64_t at;
    (void)ino;
    int rc = lg_volume_seek(handle(fi), (uint64_t)off, whence, &at);
    if (rc)
        done(req, rc);
    else
        fuse_reply_lseek(req, (off_t)at);
}

static void op_statfs(fuse_req_t req, fuse_ino_t ino)
{
    struct statvfs st;
    (void)ino;
    if (lg_close_pending() && lg_ring_put_off()) /* it waits for that */
        return;
    int rc = lg_volume_statfs(vol(req), &st);
    if (rc)
        done(req, rc);
    else
        fuse_reply_statfs(req, &st);
}

/* ---- directories ----------------------------------------------------------------------------------------------------------------------- */

static struct lg_dir *dir(const struct fuse_file_info *fi) { return (struct lg_dir *)(uintptr_t)fi->fh; }

static void op_opendir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    struct lg_dir *d;
    int rc = lg_volume_opendir(vol(req), ino, fi->flags, &d);
    if (rc) {
        done(req, rc);
        return;
    }
    fi->fh = (uintptr_t)d;
    if (fuse_reply_open(req, fi) == -ENOENT)
        lg_volume_releasedir(d);
}

struct filling {
    fuse_req_t req;
    char *buf;
    size_t len, cap;
    bool plus;
};

static bool fill(void *arg, const char *name, const struct lg_entry *e, uint64_t next)
{
    struct filling *f = arg;
    size_t n;
    if (f->plus) {
        struct fuse_entry_param p = entry_param(front(f->req), e);
        n = fuse_add_direntry_plus(f->req, f->buf + f->len, f->cap - f->len, name, &p, (off_t)next);
    } else {
        n = fuse_add_direntry(f->req, f->buf + f->len, f->cap - f->len, name, &e->st, (off_t)next);
    }
    if (n > f->cap - f->len)
        return false;
    f->len += n;
    return true;
}

static void list(fuse_req_t req, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    struct filling f = { .req = req, .buf = reply_buffer(req, size), .cap = size, .plus = plus };
    int rc = f.buf ? lg_volume_readdir(dir(fi), (uint64_t)off, plus, fill, &f) : -ENOMEM;
    if (rc && !f.len)
        done(req, rc);
    else
        fuse_reply_buf(req, f.buf, f.len);
}

static void op_readdir(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    list(req, size, off, fi, false);
}

static void op_readdirplus(fuse_req_t req, fuse_ino_t ino, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)ino;
    list(req, size, off, fi, true);
}

static void op_releasedir(fuse_req_t req, fuse_ino_t ino, struct fuse_file_info *fi)
{
    (void)ino;
    lg_volume_releasedir(dir(fi));
    done(req, 0);
}

static void op_fsyncdir(fuse_req_t req, fuse_ino_t ino, int data_only, struct fuse_file_info *fi)
{
    (void)ino, (void)data_only;
    if (lg_ring_put_off())
        return;
    done(req, lg_volume_fsyncdir(dir(fi)));
}

/* ---- extended attributes --------------------------------------------------------------------------------------------------------------- */

static bool in_group(fuse_req_t req, gid_t gid)
{
    enum { GROUPS_MAX = 1024 };
    gid_t list[GROUPS_MAX];
    const struct fuse_ctx *c = fuse_req_ctx(req);
    int n = c->uid == 0 || c->gid == gid ? 0 : fuse_req_getgroups(req, GROUPS_MAX, list);
    bool found = c->uid == 0 || c->gid == gid;
    for (int i = 0; !found && i < n && i < GROUPS_MAX; i++)
        found = list[i] == gid;
    return found;
}

/* An ACL may change the mode; as with chmod, set-gid goes unless the caller is of that group (the kernel leaves this to us). */
static int acl_kill_sgid(fuse_req_t req, fuse_ino_t ino)
{
    struct stat st;
    int rc = lg_volume_getattr(vol(req), ino, &st);
    if (rc || !(st.st_mode & S_ISGID) || in_group(req, st.st_gid))
        return rc;
    st.st_mode &= ~(mode_t)S_ISGID;
    return lg_volume_setattr(vol(req), ino, &st, LG_SET_MODE, &st);
}

/* The name in the value of LG_XATTR_REAP; this thread's until its next call. */
static const char *reaped(const char *value, size_t size)
{
    static _Thread_local char name[LG_PLAIN_NAME_MAX + 1];
    size_t len = size - 2 * LG_ID_LEN - 1;
    if (len >= sizeof name)
        len = sizeof name - 1;
    memcpy(name, value + 2 * LG_ID_LEN + 1, len);
    name[len] = 0;
    return name;
}

static void op_setxattr(fuse_req_t req, fuse_ino_t ino, const char *name, const char *value, size_t size, int flags)
{
    bool rekey = strcmp(name, LG_XATTR_REKEY) == 0 || strcmp(name, LG_XATTR_REKEY_LINKS) == 0, reap = strcmp(name, LG_XATTR_REAP) == 0;
    if ((rekey || reap) && lg_ring_put_off()) /* a file that is encrypted anew, a folder that is gone through */
        return;
    int rc = rekey ? CHANGE(req, "file.reencrypt", ino, NULL, 0, NULL, lg_volume_setxattr(vol(req), ino, name, value, size, flags)) :
             reap ? CHANGE(req, "file.reap", ino, size > 2 * LG_ID_LEN + 1 ? reaped(value, size) : NULL, 0, NULL, lg_volume_setxattr(vol(req), ino, name, value, size, flags)) :
                    ROOM(lg_volume_setxattr(vol(req), ino, name, value, size, flags));
    if (!rc && reap)
        lg_gone_tell(front(req), ino, reaped(value, size));
    if (!rc && strcmp(name, "system.posix_acl_access") == 0)
        rc = acl_kill_sgid(req, ino);
    done(req, rc);
}

static void reply_xattr(fuse_req_t req, ssize_t n, size_t size, const char *buf)
{
    if (n < 0)
        done(req, (int)n);
    else if (!size)
        fuse_reply_xattr(req, (size_t)n);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static void op_getxattr(fuse_req_t req, fuse_ino_t ino, const char *name, size_t size)
{
    char *buf = size ? buffer(size) : NULL;
    ssize_t n = size && !buf ? -ENOMEM : lg_volume_getxattr(vol(req), ino, name, buf, size);
    reply_xattr(req, n, size, buf);
}

static void op_listxattr(fuse_req_t req, fuse_ino_t ino, size_t size)
{
    char *buf = size ? buffer(size) : NULL;
    ssize_t n = size && !buf ? -ENOMEM : lg_volume_listxattr(vol(req), ino, fuse_req_ctx(req)->uid == 0, buf, size);
    reply_xattr(req, n, size, buf);
}

static void op_removexattr(fuse_req_t req, fuse_ino_t ino, const char *name) { done(req, lg_volume_removexattr(vol(req), ino, name)); }

const struct fuse_lowlevel_ops lg_front_ops = {
    .init = op_init,
    .lookup = op_lookup,
    .forget = op_forget,
    .forget_multi = op_forget_multi,
    .getattr = op_getattr,
    .setattr = op_setattr,
    .readlink = op_readlink,
    .mknod = op_mknod,
    .mkdir = op_mkdir,
    .symlink = op_symlink,
    .link = op_link,
    .unlink = op_unlink,
    .rmdir = op_rmdir,
    .rename = op_rename,
    .open = op_open,
    .create = op_create,
    .read = op_read,
    .write = op_write,
    .flush = op_flush,
    .release = op_release,
    .fsync = op_fsync,
    .fallocate = op_fallocate,
    .lseek = op_lseek,
    .statfs = op_statfs,
    .opendir = op_opendir,
    .readdir = op_readdir,
    .readdirplus = op_readdirplus,
    .releasedir = op_releasedir,
    .fsyncdir = op_fsyncdir,
    .setxattr = op_setxattr,
    .getxattr = op_getxattr,
    .listxattr = op_listxattr,
    .removexattr = op_removexattr,
#if FUSE_USE_VERSION >= 317
    .tmpfile = op_tmpfile,
#endif
#if FUSE_USE_VERSION >= 318
    .statx = op_statx,
#endif
};
