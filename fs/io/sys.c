#include "internal.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "leadglass/closer.h"
#include "leadglass/later.h"

/* Whether to try once more: what was removed before may give its space back only now. */
static bool more_room(void) { return (errno == ENOSPC || errno == EDQUOT) && lg_close_wait(); }

static ssize_t sys_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    (void)arg;
    ssize_t n = pread(fd, buf, len, off);
    return n < 0 ? -errno : n;
}
static ssize_t sys_pwritev(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    (void)arg;
    ssize_t w;
    do
        w = pwritev(fd, iov, n, off);
    while (w < 0 && more_room());
    return w < 0 ? -errno : w;
}
/* A filesystem that cannot say whether it would wait: one in memory never does, any other (network, FUSE) may. One vault, one filesystem: asked once. */
static ssize_t sys_pread_cached(void *arg, int fd, void *buf, size_t len, off_t off)
{
    enum { ASK, NEVER_WAITS, MAY_WAIT };
    static _Atomic int silent;
    struct iovec v = { buf, len };
    struct statfs fs;
    int s = atomic_load_explicit(&silent, memory_order_relaxed);
    ssize_t n = s == ASK ? preadv2(fd, &v, 1, off, RWF_NOWAIT) : -1;
    if (n >= 0 || (s == ASK && errno != EOPNOTSUPP))
        return n < 0 ? -errno : n;
    if (s == ASK) {
        s = fstatfs(fd, &fs) == 0 && (fs.f_type == TMPFS_MAGIC || fs.f_type == RAMFS_MAGIC) ? NEVER_WAITS : MAY_WAIT;
        atomic_store_explicit(&silent, s, memory_order_relaxed);
    }
    return s == NEVER_WAITS ? sys_pread(arg, fd, buf, len, off) : -EOPNOTSUPP;
}
static ssize_t sys_pread_pieces(void *arg, int fd, void *buf, size_t len, off_t off, size_t piece, int (*each)(void *each_arg, size_t at, size_t n), void *each_arg)
{
    (void)arg;
    ssize_t n = lg_uring_read(fd, buf, len, off, piece, each, each_arg);
    return n == -EINVAL || n == -EOPNOTSUPP ? -ENOSYS : n; /* a ring without this kind of read */
}
/* cachestat(2), Linux 6.5, which C libraries do not know yet. */
#if !defined SYS_cachestat && ((defined __x86_64__ && !defined __ILP32__) || defined __aarch64__ || defined __riscv)
#define SYS_cachestat 451
#endif
static size_t sys_cached(void *arg, int fd, off_t off, size_t len)
{
#ifdef SYS_cachestat
    struct { uint64_t off, len; } range = { (uint64_t)off, len };
    struct { uint64_t cached, dirty, writeback, evicted, recently_evicted; } got;
    if (syscall(SYS_cachestat, fd, &range, &got, 0))
        return len;
    uint64_t n = got.cached * (uint64_t)sysconf(_SC_PAGESIZE);
    len = n < len ? (size_t)n : len;
#endif
    return (void)arg, (void)fd, (void)off, len;
}

static void sys_forget(void *arg, int fd, off_t off, off_t len) { (void)arg, (void)!posix_fadvise(fd, off, len, POSIX_FADV_DONTNEED); }
static int sys_fdatasync(void *arg, int fd) { return (void)arg, fdatasync(fd) ? -errno : 0; }
static int sys_fsync(void *arg, int fd) { return (void)arg, fsync(fd) ? -errno : 0; }
static int sys_ftruncate(void *arg, int fd, off_t len) { return (void)arg, ftruncate(fd, len) ? -errno : 0; }
static int sys_fallocate(void *arg, int fd, int mode, off_t off, off_t len)
{
    (void)arg;
    int rc;
    do
        rc = fallocate(fd, mode, off, len);
    while (rc && more_room());
    return rc ? -errno : 0;
}
static int sys_fstat(void *arg, int fd, struct stat *st) { return (void)arg, fstat(fd, st) ? -errno : 0; }
static off_t sys_lseek(void *arg, int fd, off_t off, int whence)
{
    (void)arg;
    off_t r = lseek(fd, off, whence);
    return r < 0 ? -errno : r;
}
static int sys_futimens(void *arg, int fd, const struct timespec ts[2]) { return (void)arg, futimens(fd, ts) ? -errno : 0; }

const struct lg_sys lg_sys_posix = {
    .pread = sys_pread,
    .pwritev = sys_pwritev,
    .fdatasync = sys_fdatasync,
    .fsync = sys_fsync,
    .ftruncate = sys_ftruncate,
    .fallocate = sys_fallocate,
    .fstat = sys_fstat,
    .lseek = sys_lseek,
    .futimens = sys_futimens,
    .pread_cached = sys_pread_cached,
    .pread_pieces = sys_pread_pieces,
    .cached = sys_cached,
    .forget = sys_forget,
};

void lg_noatime(int fd) { (void)!fcntl(fd, F_SETFL, O_NOATIME); }

ssize_t lg_sys_read_full(const struct lg_sys *sys, int fd, void *buf, size_t len, uint64_t off)
{
    ssize_t (*pread)(void *, int, void *, size_t, off_t) = lg_later() && sys->pread_cached ? sys->pread_cached : sys->pread;
    size_t done = 0;
    while (done < len) {
        ssize_t n = pread(sys->arg, fd, (uint8_t *)buf + done, len - done, (off_t)(off + done));
        if (n == -EINTR)
            continue;
        if (pread == sys->pread_cached && (n == -EAGAIN || n == -EOPNOTSUPP))
            return -LG_ELATER;
        if (n < 0)
            return n;
        if (n == 0)
            break;
        done += (size_t)n;
    }
    return (ssize_t)done;
}

ssize_t lg_sys_read_pieces(const struct lg_sys *sys, int fd, void *buf, size_t len, uint64_t off, size_t piece, int (*each)(void *arg, size_t at, size_t n),
                           void *arg)
{
    ssize_t got = sys->pread_pieces ? sys->pread_pieces(sys->arg, fd, buf, len, (off_t)off, piece, each, arg) : -ENOSYS;
    if (got != -ENOSYS)
        return got;
    got = lg_sys_read_full(sys, fd, buf, len, off);
    for (size_t at = 0; got >= 0 && at < len; at += piece) {
        size_t n = (size_t)got > at ? (size_t)got - at : 0, most = len - at < piece ? len - at : piece;
        int rc = each(arg, at, n < most ? n : most);
        got = rc ? rc : got;
    }
    return got;
}

int lg_sys_writev_full(const struct lg_sys *sys, int fd, struct iovec *iov, int n, uint64_t off)
{
    while (n > 0) {
        ssize_t w = sys->pwritev(sys->arg, fd, iov, n, (off_t)off);
        if (w == -EINTR)
            continue;
        if (w < 0)
            return (int)w;
        if (w == 0)
            return -EIO;
        off += (uint64_t)w;
        while (n > 0 && (size_t)w >= iov->iov_len) {
            w -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + w;
            iov->iov_len -= (size_t)w;
        }
    }
    return 0;
}

int lg_sys_write_full(const struct lg_sys *sys, int fd, const void *buf, size_t len, uint64_t off)
{
    struct iovec v = { (void *)(uintptr_t)buf, len };
    return lg_sys_writev_full(sys, fd, &v, 1, off);
}
