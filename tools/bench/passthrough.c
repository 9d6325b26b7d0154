/* passthrough [-o io_uring] [other libfuse options] LOWER MOUNTPOINT: an unencrypted mirror of a directory, the least that a FUSE filesystem can do. It is
 * what `compare` compares with: same libfuse, same transport, same kernel options as leadglass-fs, no keys. Not for data that anybody needs.
 *
 * It is also the slow disk of tests and measurements: every read and fsync takes as many milliseconds longer as LG_SLOW_READ_MS and LG_SLOW_FSYNC_MS in the
 * environment say, and waits while the file that LG_GATE names exists. With any of them the kernel keeps none of its pages, so every read comes here.
 * LG_MAX_READ: bytes that the kernel may ask for at a time; the same goes into -o max_read.
 *
 * Built with floor.c it is bench_floor. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "floor.h"

enum { IO_MAX = 1024 * 1024, BUCKETS = 1 << 16 };
static const double TIMEOUT = 60;

struct node {
    fuse_ino_t id;
    ino_t ino;
    int fd; /* O_PATH */
    uint64_t lookups;
    struct node *next_id, *next_ino;
};

static struct node *by_id[BUCKETS], *by_ino[BUCKETS];
static pthread_rwlock_t table = PTHREAD_RWLOCK_INITIALIZER;
static fuse_ino_t last_id = FUSE_ROOT_ID;

static long slow_read_ms, slow_fsync_ms;
static const char *gate;

static void be_slow(long ms)
{
    if (ms)
        usleep((useconds_t)ms * 1000);
    while (gate && access(gate, F_OK) == 0)
        usleep(5000);
}

static bool slow(void) { return slow_read_ms || slow_fsync_ms || gate; }

static long number(const char *name)
{
    const char *v = getenv(name);
    return v ? strtol(v, NULL, 10) : 0;
}

static int fd_of(fuse_ino_t id)
{
    pthread_rwlock_rdlock(&table);
    struct node *n = by_id[id % BUCKETS];
    while (n && n->id != id)
        n = n->next_id;
    int fd = n ? n->fd : -1;
    pthread_rwlock_unlock(&table);
    return fd;
}

static void proc(int fd, char path[64]) { snprintf(path, 64, "/proc/self/fd/%d", fd); }

static int find(fuse_ino_t parent, const char *name, struct fuse_entry_param *ret)
{
    struct node *n;
    floor_lookup(name);
    int fd = openat(fd_of(parent), name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    *ret = (struct fuse_entry_param){ .attr_timeout = TIMEOUT, .entry_timeout = TIMEOUT };
    if (fd < 0)
        return errno;
    if (fstat(fd, &ret->attr)) {
        close(fd);
        return errno;
    }
    pthread_rwlock_wrlock(&table);
    struct node **head = &by_ino[ret->attr.st_ino % BUCKETS];
    for (n = *head; n && n->ino != ret->attr.st_ino; n = n->next_ino)
        ;
    if (n) {
        close(fd);
    } else {
        n = calloc(1, sizeof *n);
        if (!n)
            abort();
        *n = (struct node){ .id = ++last_id, .ino = ret->attr.st_ino, .fd = fd, .next_ino = *head };
        *head = n;
        n->next_id = by_id[n->id % BUCKETS];
        by_id[n->id % BUCKETS] = n;
    }
    n->lookups++;
    ret->ino = n->id;
    pthread_rwlock_unlock(&table);
    return 0;
}

static void forget(fuse_ino_t id, uint64_t count)
{
    pthread_rwlock_wrlock(&table);
    struct node **at = &by_id[id % BUCKETS], *n;
    while (*at && (*at)->id != id)
        at = &(*at)->next_id;
    n = *at;
    if (n && id != FUSE_ROOT_ID && (n->lookups -= count) == 0) {
        struct node **other = &by_ino[n->ino % BUCKETS];
        *at = n->next_id;
        while (*other != n)
            other = &(*other)->next_ino;
        *other = n->next_ino;
        close(n->fd);
        free(n);
    }
    pthread_rwlock_unlock(&table);
}

static void op_init(void *user, struct fuse_conn_info *c)
{
    (void)user;
    c->want &= ~(unsigned)(FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
    c->want |= c->capable & (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS | FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ |
                             FUSE_CAP_ASYNC_DIO | FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_DONT_MASK);
#ifdef FUSE_CAP_HANDLE_KILLPRIV_V2
    c->want |= c->capable & FUSE_CAP_HANDLE_KILLPRIV_V2;
#endif
    c->max_write = IO_MAX;
    c->max_readahead = IO_MAX;
    c->max_read = (unsigned)number("LG_MAX_READ");
    c->max_background = 64;
    c->congestion_threshold = 48;
}

static void op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e;
    int rc = find(parent, name, &e);
    if (rc && rc != ENOENT)
        fuse_reply_err(req, rc);
    else
        fuse_reply_entry(req, &e);
}

static void op_forget(fuse_req_t req, fuse_ino_t id, uint64_t n)
{
    forget(id, n);
    fuse_reply_none(req);
}

static void op_forget_multi(fuse_req_t req, size_t n, struct fuse_forget_data *f)
{
    for (size_t i = 0; i < n; i++)
        forget(f[i].ino, f[i].nlookup);
    fuse_reply_none(req);
}

static void reply_attr(fuse_req_t req, fuse_ino_t id)
{
    struct stat st;
    if (fstat(fd_of(id), &st))
        fuse_reply_err(req, errno);
    else
        fuse_reply_attr(req, &st, TIMEOUT);
}

static void op_getattr(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    (void)fi;
    reply_attr(req, id);
}

static void op_setattr(fuse_req_t req, fuse_ino_t id, struct stat *st, int set, struct fuse_file_info *fi)
{
    char path[64];
    (void)fi;
    proc(fd_of(id), path);
    struct timespec t[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };
    if (set & FUSE_SET_ATTR_ATIME)
        t[0] = st->st_atim;
    if (set & FUSE_SET_ATTR_MTIME)
        t[1] = st->st_mtim;
    if (set & FUSE_SET_ATTR_ATIME_NOW)
        t[0].tv_nsec = UTIME_NOW;
    if (set & FUSE_SET_ATTR_MTIME_NOW)
        t[1].tv_nsec = UTIME_NOW;
    if ((set & FUSE_SET_ATTR_SIZE && truncate(path, st->st_size)) || (set & FUSE_SET_ATTR_MODE && chmod(path, st->st_mode)) ||
        (set & (FUSE_SET_ATTR_UID | FUSE_SET_ATTR_GID) && chown(path, set & FUSE_SET_ATTR_UID ? st->st_uid : (uid_t)-1, set & FUSE_SET_ATTR_GID ? st->st_gid : (gid_t)-1)) ||
        (set & (FUSE_SET_ATTR_ATIME | FUSE_SET_ATTR_MTIME) && utimensat(AT_FDCWD, path, t, 0)))
        fuse_reply_err(req, errno);
    else
        reply_attr(req, id);
}

static void op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
    struct fuse_entry_param e;
    int rc = mkdirat(fd_of(parent), name, mode) ? errno : find(parent, name, &e);
    if (rc)
        fuse_reply_err(req, rc);
    else
        fuse_reply_entry(req, &e);
}

static void op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
    struct fuse_entry_param e;
    int rc = symlinkat(target, fd_of(parent), name) ? errno : find(parent, name, &e);
    if (rc)
        fuse_reply_err(req, rc);
    else
        fuse_reply_entry(req, &e);
}

static void op_readlink(fuse_req_t req, fuse_ino_t id)
{
    char target[4097];
    ssize_t n = readlinkat(fd_of(id), "", target, sizeof target - 1);
    if (n < 0) {
        fuse_reply_err(req, errno);
        return;
    }
    target[n] = 0;
    fuse_reply_readlink(req, target);
}

static void op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name) { fuse_reply_err(req, unlinkat(fd_of(parent), name, 0) ? errno : 0); }
static void op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name) { fuse_reply_err(req, unlinkat(fd_of(parent), name, AT_REMOVEDIR) ? errno : 0); }

static void op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to, const char *to_name, unsigned flags)
{
    fuse_reply_err(req, renameat2(fd_of(parent), name, fd_of(to), to_name, flags) ? errno : 0);
}

static void op_open(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    char path[64];
    proc(fd_of(id), path);
    int fd = open(path, (fi->flags & ~(O_NOFOLLOW | O_APPEND)) | O_CLOEXEC);
    if ((fi->flags & O_ACCMODE) == O_RDONLY)
        floor_open(fd);
    fi->fh = (uint64_t)fd;
    fi->keep_cache = !slow();
    fi->direct_io = slow();
    if (fd < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_open(req, fi);
}

static void op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, struct fuse_file_info *fi)
{
    struct fuse_entry_param e;
    int fd = openat(fd_of(parent), name, (fi->flags | O_CREAT | O_CLOEXEC) & ~(O_NOFOLLOW | O_APPEND), mode);
    int rc = fd < 0 ? errno : find(parent, name, &e);
    fi->fh = (uint64_t)fd;
    fi->keep_cache = !slow();
    fi->direct_io = slow();
    if (rc)
        fuse_reply_err(req, rc);
    else
        fuse_reply_create(req, &e, fi);
}

static char *buffer(fuse_req_t req, size_t len)
{
    static _Thread_local char *own;
#if FUSE_USE_VERSION >= 318
    char *p;
    size_t have;
    if (fuse_req_is_uring(req) && fuse_req_get_payload(req, &p, &have, NULL) == 0 && have >= len)
        return p;
#else
    (void)req;
#endif
    if (!own && posix_memalign((void **)&own, 4096, IO_MAX))
        abort();
    return len <= IO_MAX ? own : NULL;
}

static void op_read(fuse_req_t req, fuse_ino_t id, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)id;
    char *buf = buffer(req, size);
    be_slow(slow_read_ms);
    ssize_t n = floor_read((int)fi->fh, buf, size, off);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_buf(req, buf, (size_t)n);
}

static void op_write(fuse_req_t req, fuse_ino_t id, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    (void)id;
    ssize_t n = pwrite((int)fi->fh, buf, size, off);
    if (n < 0)
        fuse_reply_err(req, errno);
    else
        fuse_reply_write(req, (size_t)n);
}

static void op_release(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    (void)id;
    floor_release((int)fi->fh);
    fuse_reply_err(req, close((int)fi->fh) ? errno : 0);
}

static void op_fsync(fuse_req_t req, fuse_ino_t id, int data_only, struct fuse_file_info *fi)
{
    (void)id, (void)data_only;
    be_slow(slow_fsync_ms);
    fuse_reply_err(req, fdatasync((int)fi->fh) ? errno : 0);
}

static void op_fallocate(fuse_req_t req, fuse_ino_t id, int mode, off_t off, off_t len, struct fuse_file_info *fi)
{
    (void)id;
    fuse_reply_err(req, fallocate((int)fi->fh, mode, off, len) ? errno : 0);
}

static void op_opendir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    int fd = openat(fd_of(id), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    fi->fh = (uintptr_t)d;
    if (!d)
        fuse_reply_err(req, errno);
    else
        fuse_reply_open(req, fi);
}

static void list(fuse_req_t req, fuse_ino_t id, size_t size, off_t off, struct fuse_file_info *fi, bool plus)
{
    DIR *d = (DIR *)(uintptr_t)fi->fh;
    char *buf = buffer(req, size);
    size_t len = 0, n;
    seekdir(d, off);
    for (struct dirent *e; (e = readdir(d)); len += n) {
        n = 0;
        struct fuse_entry_param p = { .attr = { .st_ino = e->d_ino, .st_mode = (mode_t)DTTOIF(e->d_type) } };
        bool dots = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0;
        if (plus && !dots && find(id, e->d_name, &p))
            continue;
        n = plus ? fuse_add_direntry_plus(req, buf + len, size - len, e->d_name, &p, e->d_off) : fuse_add_direntry(req, buf + len, size - len, e->d_name, &p.attr, e->d_off);
        if (n > size - len) {
            if (plus && !dots)
                forget(p.ino, 1);
            break;
        }
    }
    fuse_reply_buf(req, buf, len);
}

static void op_readdir(fuse_req_t req, fuse_ino_t id, size_t size, off_t off, struct fuse_file_info *fi) { list(req, id, size, off, fi, false); }
static void op_readdirplus(fuse_req_t req, fuse_ino_t id, size_t size, off_t off, struct fuse_file_info *fi) { list(req, id, size, off, fi, true); }

static void op_releasedir(fuse_req_t req, fuse_ino_t id, struct fuse_file_info *fi)
{
    (void)id;
    fuse_reply_err(req, closedir((DIR *)(uintptr_t)fi->fh) ? errno : 0);
}

static void op_statfs(fuse_req_t req, fuse_ino_t id)
{
    struct statvfs st;
    (void)id;
    if (fstatvfs(fd_of(FUSE_ROOT_ID), &st))
        fuse_reply_err(req, errno);
    else
        fuse_reply_statfs(req, &st);
}

static const struct fuse_lowlevel_ops ops = {
    .init = op_init, .lookup = op_lookup, .forget = op_forget, .forget_multi = op_forget_multi, .getattr = op_getattr, .setattr = op_setattr, .mkdir = op_mkdir,
    .unlink = op_unlink, .rmdir = op_rmdir, .rename = op_rename, .open = op_open, .create = op_create, .read = op_read, .write = op_write, .release = op_release,
    .fsync = op_fsync, .symlink = op_symlink, .readlink = op_readlink, .fallocate = op_fallocate, .opendir = op_opendir, .readdir = op_readdir, .readdirplus = op_readdirplus, .releasedir = op_releasedir, .statfs = op_statfs };

int main(int argc, char **argv)
{
    if (argc < 3) {
        fputs("usage: passthrough [-o libfuse options] LOWER MOUNTPOINT\n", stderr);
        return 2;
    }
    slow_read_ms = number("LG_SLOW_READ_MS");
    slow_fsync_ms = number("LG_SLOW_FSYNC_MS");
    gate = getenv("LG_GATE");
    const char *lower = argv[argc - 2], *mountpoint = argv[argc - 1];
    struct node *root = calloc(1, sizeof *root);
    struct fuse_args args = FUSE_ARGS_INIT(argc - 2, argv);
    if (!root)
        return 1;
    *root = (struct node){ .id = FUSE_ROOT_ID, .fd = open(lower, O_PATH | O_DIRECTORY | O_CLOEXEC), .lookups = 1 };
    by_id[FUSE_ROOT_ID % BUCKETS] = root;
    struct fuse_session *se = root->fd < 0 ? NULL : fuse_session_new(&args, &ops, sizeof ops, NULL);
    if (!se || fuse_set_signal_handlers(se) || fuse_session_mount(se, mountpoint)) {
        fprintf(stderr, "passthrough: cannot mount %s at %s\n", lower, mountpoint);
        return 1;
    }
    umask(0);
    floor_begin();
    fuse_daemonize(0);
    struct fuse_loop_config *c = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(c, 1);
    fuse_loop_cfg_set_max_threads(c, slow() ? 200 : 10);
    fuse_loop_cfg_set_idle_threads(c, 10);
    int rc = fuse_session_loop_mt(se, c);
    fuse_session_unmount(se);
    fuse_session_destroy(se);
    return rc != 0;
}
