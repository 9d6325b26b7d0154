#include "image.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- errors from below --------------------------------------------------------------------------------------------------------------- */

unsigned long disk_calls;
unsigned disk_n_reserved;
struct fault fault;

enum call { CALL_WRITE = 1, CALL_SYNC = 2, CALL_SPACE = 4 /* may need space */, CALL_OTHER = 8 };

/* Ranges set aside by fallocate: to a full disk they are no news. */
static struct range {
    ino_t ino;
    off_t from, to;
} reserved[256];

static bool needs_space(int fd, off_t off, off_t len)
{
    struct stat st;
    if (fstat(fd, &st))
        return true;
    for (unsigned i = 0; i < disk_n_reserved; i++)
        if (reserved[i].ino == st.st_ino && reserved[i].from <= off && off + len <= reserved[i].to)
            return false;
    /* The journal has its space, though an image holds its zeros as a hole. */
    struct dent *j = recording ? image_dent_find(&recording->im->inode[0], "leadglass.journal") : NULL;
    if (j && recording->im->inode[j->inode].ino == st.st_ino)
        return false;
    for (off_t block = off - off % 4096; block < off + len; block += 4096)
        if (lseek(fd, block, SEEK_DATA) != block)
            return true;
    return false;
}

/* The error of this call, or 0. */
static int trip(unsigned call)
{
    disk_calls++;
    bool counts = fault.kind == FAULT_ERROR || (fault.kind == FAULT_SPACE && call & CALL_SPACE) || (fault.kind == FAULT_LOST_SYNC && call & CALL_SYNC) ||
                  ((fault.kind == FAULT_PART || fault.kind == FAULT_SHORT) && call & CALL_WRITE);
    if (!counts)
        return 0;
    fault.calls++;
    if (fault.calls < fault.at || fault.calls - fault.at >= fault.times)
        return 0;
    fault.hits++;
    return fault.error;
}

static int trip_errno(unsigned call)
{
    int rc = trip(call);
    errno = rc ? -rc : errno;
    return rc ? -1 : 0;
}

static int full_errno(void)
{
    if (fault.kind != FAULT_FULL)
        return 0;
    fault.hits++;
    errno = -fault.error;
    return -1;
}

/* ---- the backend --------------------------------------------------------------------------------------------------------------------- */

static ssize_t d_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    disk_calls++;
    return lg_sys_posix.pread(arg, fd, buf, len, off);
}
/* The first len bytes of it. */
static int first_bytes(struct iovec *to, const struct iovec *from, int n, size_t len)
{
    int k = 0;
    for (; k < n && len; k++) {
        to[k] = (struct iovec){ from[k].iov_base, from[k].iov_len < len ? from[k].iov_len : len };
        len -= to[k].iov_len;
    }
    return k;
}
static ssize_t pwritev_locked(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    off_t len = 0;
    for (int i = 0; i < n; i++)
        len += (off_t)iov[i].iov_len;
    bool one = len < 2; /* cannot be done by half */
    int rc = fault.kind == FAULT_FULL && needs_space(fd, off, len) ? (fault.hits++, fault.error)
             : one && fault.kind == FAULT_SHORT                    ? 0
                                                                   : trip(CALL_WRITE | CALL_SPACE);
    size_t half = (size_t)len / 2;
    if (fault.kind == FAULT_PART) { /* sectors are written whole or not at all */
        size_t cut = ((size_t)off + half) % SECTOR;
        half -= cut < half ? cut : half;
    }
    bool part = rc && ((fault.kind == FAULT_PART && !fault.parted) || fault.kind == FAULT_SHORT) && half;
    if (rc && !part)
        return rc;
    struct iovec *some = part ? disk_need(calloc((size_t)n, sizeof *some)) : NULL;
    if (part) {
        n = first_bytes(some, iov, n, half);
        iov = some;
        if (fault.kind == FAULT_PART) { /* the rest of it meets the error */
            fault.at = fault.calls + 1;
            fault.parted = true;
        }
    }
    ssize_t w = lg_sys_posix.pwritev(arg, fd, iov, n, off);
    size_t inode = record_inode_of(fd);
    if (w > 0 && inode != SIZE_MAX) {
        struct entry *e = record_note(WRITE);
        e->inode = inode;
        e->off = (uint64_t)off;
        e->len = (uint64_t)w;
        e->data = disk_need(malloc((size_t)w));
        size_t at = 0;
        for (int i = 0; i < n && at < (size_t)w; i++) {
            size_t m = iov[i].iov_len < (size_t)w - at ? iov[i].iov_len : (size_t)w - at;
            memcpy(e->data + at, iov[i].iov_base, m);
            at += m;
        }
        record_attrs_fd(fd); /* its time */
    }
    free(some);
    return w;
}
/* Large writes come from several threads, in any order. */
static ssize_t d_pwritev(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mu);
    ssize_t w = pwritev_locked(arg, fd, iov, n, off);
    pthread_mutex_unlock(&mu);
    return w;
}

/* What a barrier that failed was to make durable. */
static void lose(size_t inode)
{
    for (size_t i = recording ? recording->n : 0; i-- > 0;) {
        struct entry *e = &recording->e[i];
        if (e->kind == BARRIER_ALL || (e->kind == BARRIER && e->inode == inode))
            break;
        if (e->kind == WRITE && e->inode == inode)
            e->lost = true;
    }
}

static int sync_or_fail(int fd, bool data_only)
{
    int rc = trip(CALL_SYNC | CALL_SPACE);
    if (rc && fault.kind == FAULT_LOST_SYNC && record_inode_of(fd) != SIZE_MAX)
        lose(record_inode_of(fd));
    size_t inode = rc ? SIZE_MAX : record_inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = record_note(BARRIER);
        e->inode = inode;
        e->data_only = data_only;
    }
    return rc;
}
static int d_fdatasync(void *arg, int fd) { return (void)arg, sync_or_fail(fd, true); }
static int d_fsync(void *arg, int fd) { return (void)arg, sync_or_fail(fd, false); }
static int d_ftruncate(void *arg, int fd, off_t len)
{
    int rc = trip(CALL_OTHER);
    if (!rc)
        rc = lg_sys_posix.ftruncate(arg, fd, len);
    size_t inode = rc ? SIZE_MAX : record_inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = record_note(TRUNCATE);
        e->inode = inode;
        e->len = (uint64_t)len;
        record_attrs_fd(fd);
    }
    return rc;
}
static int d_fallocate(void *arg, int fd, int mode, off_t off, off_t len)
{
    bool space = !(mode & FALLOC_FL_PUNCH_HOLE);
    int rc = fault.kind == FAULT_FULL && space && needs_space(fd, off, len) ? (fault.hits++, fault.error) : trip(space ? CALL_SPACE : CALL_OTHER);
    struct stat st;
    if (!rc)
        rc = lg_sys_posix.fallocate(arg, fd, mode, off, len);
    if (!rc && space && disk_n_reserved < sizeof reserved / sizeof *reserved && fstat(fd, &st) == 0)
        reserved[disk_n_reserved++] = (struct range){ st.st_ino, off, off + len };
    size_t inode = rc || !(mode & FALLOC_FL_PUNCH_HOLE) ? SIZE_MAX : record_inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = record_note(ZERO);
        e->inode = inode;
        e->off = (uint64_t)off;
        e->len = (uint64_t)len;
        record_attrs_fd(fd);
    }
    return rc;
}
static int d_fstat(void *arg, int fd, struct stat *st) { return lg_sys_posix.fstat(arg, fd, st); }
static off_t d_lseek(void *arg, int fd, off_t off, int whence) { return lg_sys_posix.lseek(arg, fd, off, whence); }
static int d_futimens(void *arg, int fd, const struct timespec ts[2])
{
    int rc = trip(CALL_OTHER);
    return rc ? rc : lg_sys_posix.futimens(arg, fd, ts);
}

const struct lg_sys disk_sys = { .pread = d_pread, .pwritev = d_pwritev, .fdatasync = d_fdatasync, .fsync = d_fsync, .ftruncate = d_ftruncate,
                                 .fallocate = d_fallocate, .fstat = d_fstat, .lseek = d_lseek, .futimens = d_futimens };

/* ---- names, by the linker's --wrap ------------------------------------------------------------------------------------------------------ */

int __real_openat(int dirfd, const char *name, int flags, ...);
int __real_mkdirat(int dirfd, const char *name, mode_t mode);
int __real_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev);
int __real_symlinkat(const char *target, int dirfd, const char *name);
int __real_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags);
int __real_unlinkat(int dirfd, const char *name, int flags);
int __real_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags);
int __real_syncfs(int fd);
int __real_fsync(int fd);
int __wrap_openat(int dirfd, const char *name, int flags, ...);
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode);
int __wrap_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev);
int __wrap_symlinkat(const char *target, int dirfd, const char *name);
int __wrap_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags);
int __wrap_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags);
int __wrap_syncfs(int fd);
int __wrap_fsync(int fd);

static void created(int dirfd, const char *name, const char *target)
{
    size_t dir = record_inode_of(dirfd);
    struct stat st;
    if (dir == SIZE_MAX || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    size_t n = image_inode_add(recording->im, st.st_mode, st.st_ino);
    char path[320];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dirfd, name);
    const struct attrs *a = image_attrs_of(recording->im, path, false);
    recording->im->inode[n].attrs = a;
    if (target)
        recording->im->inode[n].target = image_own(recording->im, disk_need(strdup(target)));
    struct entry *e = record_note(CREATE);
    e->inode = n;
    e->dir = dir;
    e->name = disk_need(strdup(name));
}

int __wrap_openat(int dirfd, const char *name, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    bool create = flags & O_CREAT && recording && faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    bool makes = create || (recording && (flags & O_TMPFILE) == O_TMPFILE);
    if (makes && (full_errno() || trip_errno(CALL_SPACE)))
        return -1;
    int fd = __real_openat(dirfd, name, flags, mode);
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE) {
        struct stat st;
        if (recording && fstat(fd, &st) == 0) {
            char path[32];
            size_t n = image_inode_add(recording->im, st.st_mode, st.st_ino);
            const struct attrs *a = image_attrs_of(recording->im, disk_fd_path(fd, path), true);
            recording->im->inode[n].attrs = a;
        }
    }
    if (fd >= 0 && create)
        created(dirfd, name, NULL);
    return fd;
}
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_mkdirat(dirfd, name, mode);
    if (!rc)
        created(dirfd, name, NULL);
    return rc;
}
int __wrap_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_mknodat(dirfd, name, mode, dev);
    if (!rc)
        created(dirfd, name, NULL);
    return rc;
}
int __wrap_symlinkat(const char *target, int dirfd, const char *name)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_symlinkat(target, dirfd, name);
    if (!rc)
        created(dirfd, name, target);
    return rc;
}
int __wrap_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_linkat(olddirfd, old, newdirfd, name, flags);
    size_t dir = rc ? SIZE_MAX : record_inode_of(newdirfd);
    struct stat st;
    if (dir != SIZE_MAX && fstatat(newdirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        size_t n = image_find_ino(recording->im, st.st_ino);
        if (n == SIZE_MAX)
            disk_fail("link to an unknown inode");
        struct entry *e = record_note(LINK);
        e->inode = n;
        e->dir = dir;
        e->name = disk_need(strdup(name));
    }
    return rc;
}
int __wrap_unlinkat(int dirfd, const char *name, int flags)
{
    if (trip_errno(CALL_OTHER))
        return -1;
    int rc = __real_unlinkat(dirfd, name, flags);
    size_t dir = rc ? SIZE_MAX : record_inode_of(dirfd);
    if (dir != SIZE_MAX) {
        struct entry *e = record_note(UNLINK);
        e->dir = dir;
        e->name = disk_need(strdup(name));
    }
    return rc;
}
int __wrap_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags)
{
    struct stat a = { 0 }, b = { 0 };
    bool same = recording && !fstatat(olddirfd, old, &a, AT_SYMLINK_NOFOLLOW) && !fstatat(newdirfd, name, &b, AT_SYMLINK_NOFOLLOW) && a.st_ino == b.st_ino;
    bool grows = !(flags & 2) && faccessat(newdirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    if ((grows && full_errno()) || trip_errno(grows ? CALL_SPACE : CALL_OTHER))
        return -1;
    int rc = __real_renameat2(olddirfd, old, newdirfd, name, flags);
    size_t dir = rc || same ? SIZE_MAX : record_inode_of(olddirfd);
    if (dir != SIZE_MAX) {
        struct entry *e = record_note(flags & 2 ? EXCHANGE : RENAME); /* RENAME_EXCHANGE */
        e->dir = dir;
        e->dir2 = record_inode_of(newdirfd);
        e->name = disk_need(strdup(old));
        e->name2 = disk_need(strdup(name));
    }
    return rc;
}
int __wrap_syncfs(int fd)
{
    if (trip_errno(CALL_SYNC)) {
        for (size_t k = 0; fault.kind == FAULT_LOST_SYNC && recording && k < recording->im->n; k++)
            lose(k);
        return -1;
    }
    if (record_inode_of(fd) != SIZE_MAX)
        record_note(BARRIER_ALL);
    return 0;
}
int __wrap_fsync(int fd)
{
    int rc = sync_or_fail(fd, false);
    errno = rc ? -rc : errno;
    return rc ? -1 : 0;
}

/* ---- attributes, likewise ---------------------------------------------------------------------------------------------------------------- */

int __real_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __real_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int __real_removexattr(const char *path, const char *name);
int __real_chmod(const char *path, mode_t mode);
int __real_fchmod(int fd, mode_t mode);
int __real_fchown(int fd, uid_t uid, gid_t gid);
int __real_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
int __real_futimens(int fd, const struct timespec ts[2]);
int __real_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags);
int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __wrap_removexattr(const char *path, const char *name);
int __wrap_chmod(const char *path, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int __wrap_fchown(int fd, uid_t uid, gid_t gid);
int __wrap_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
int __wrap_futimens(int fd, const struct timespec ts[2]);
int __wrap_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags);

static int noted(int rc, const char *path)
{
    if (!rc)
        record_attrs(path);
    return rc;
}
static int noted_fd(int rc, int fd)
{
    if (!rc)
        record_attrs_fd(fd);
    return rc;
}

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    return full_errno() || trip_errno(CALL_SPACE) ? -1 : noted(__real_setxattr(path, name, value, size, flags), path);
}
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    return full_errno() || trip_errno(CALL_SPACE) ? -1 : noted_fd(__real_fsetxattr(fd, name, value, size, flags), fd);
}
int __wrap_removexattr(const char *path, const char *name) { return trip_errno(CALL_OTHER) ? -1 : noted(__real_removexattr(path, name), path); }
int __wrap_chmod(const char *path, mode_t mode) { return trip_errno(CALL_OTHER) ? -1 : noted(__real_chmod(path, mode), path); }
int __wrap_fchmod(int fd, mode_t mode) { return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchmod(fd, mode), fd); }
int __wrap_fchown(int fd, uid_t uid, gid_t gid) { return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchown(fd, uid, gid), fd); }
int __wrap_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchownat(dirfd, path, uid, gid, flags), dirfd); /* the core's are all of the descriptor itself */
}
/* Errors of times come through the backend. */
int __wrap_futimens(int fd, const struct timespec ts[2]) { return noted_fd(__real_futimens(fd, ts), fd); }
int __wrap_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
    return noted_fd(__real_utimensat(dirfd, path, ts, flags), dirfd);
}

/* ---- the clock ------------------------------------------------------------------------------------------------------------------------- */

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);

/* How long something took must not decide what is recorded, or a seed would not say it all: every look at the time is a little later than the last. */
int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    static _Atomic uint64_t looks;
    enum { STEP_NS = 3000000, BEGIN_S = 1700000000 };
    if (clock != CLOCK_REALTIME)
        return __real_clock_gettime(clock, t);
    uint64_t ns = ++looks * STEP_NS;
    *t = (struct timespec){ BEGIN_S + (time_t)(ns / 1000000000), (long)(ns % 1000000000) };
    return 0;
}
