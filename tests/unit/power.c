#include "power.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/fs.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { PAGE = 4096 };

/* One change that is not durable yet, with what undoes it. */
struct change {
    enum { WRITTEN, RESIZED, MADE, RENAMED, REMOVED } what;
    dev_t dev; /* WRITTEN, RESIZED, MADE: the file */
    ino_t ino;
    int fd;    /* WRITTEN, RESIZED: of the file, of our own */
    off_t off; /* WRITTEN; RESIZED: the old size */
    size_t len;
    uint8_t *old;
    char path[PATH_MAX], to[PATH_MAX], kept[PATH_MAX]; /* kept: a second name of what was replaced or removed; empty: nothing was */
};

static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX];
static bool on, gone;
static unsigned calls, cut, kept_n;
static struct change **change;
static size_t n_change, cap_change;

static bool beneath(const char *path)
{
    size_t n = strlen(root);
    return on && strncmp(path, root, n) == 0 && (path[n] == '/' || !path[n]);
}

static bool path_of(int fd, char out[PATH_MAX])
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, link, out, PATH_MAX - 1);
    if (n <= 0)
        return false;
    out[n] = 0;
    return beneath(out);
}

static bool of_fd(int fd)
{
    char path[PATH_MAX];
    return on && path_of(fd, path);
}

/* With mu: is this call the one before which the power goes, or a later one? */
static bool cut_now(void)
{
    calls += !gone;
    if (cut && calls >= cut)
        gone = true;
    errno = EIO;
    return gone;
}

static struct change *add(int what)
{
    if (n_change == cap_change) {
        cap_change = cap_change ? 2 * cap_change : 64;
        change = realloc(change, cap_change * sizeof *change);
    }
    struct change *c = calloc(1, sizeof *c);
    c->what = what;
    c->fd = -1;
    return change[n_change++] = c;
}

static void forget(size_t i)
{
    struct change *c = change[i];
    if (c->fd >= 0)
        syscall(SYS_close, c->fd);
    if (c->kept[0])
        syscall(SYS_unlinkat, AT_FDCWD, c->kept, 0);
    free(c->old);
    free(c);
    memmove(change + i, change + i + 1, (--n_change - i) * sizeof *change);
}

static int own_fd(int fd)
{
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    return (int)syscall(SYS_openat, AT_FDCWD, link, O_RDWR | O_CLOEXEC, 0);
}

/* Before a file is written or cut off: what stands there. */
static void note_bytes(int fd, off_t off, size_t len)
{
    struct stat st;
    int flags = fcntl(fd, F_GETFL);
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || flags & O_DSYNC)
        return;
    if (flags & O_APPEND)
        off = st.st_size;
    struct change *r = add(RESIZED);
    r->dev = st.st_dev, r->ino = st.st_ino, r->fd = own_fd(fd), r->off = st.st_size;
    while (len) { /* page by page: each may have reached the disk without the others */
        size_t n = PAGE - (size_t)(off % PAGE);
        n = n < len ? n : len;
        struct change *c = add(WRITTEN);
        c->dev = st.st_dev, c->ino = st.st_ino, c->fd = own_fd(fd), c->off = off;
        c->old = calloc(1, n);
        ssize_t had = syscall(SYS_pread64, c->fd, c->old, n, off);
        c->len = had > 0 ? (size_t)had : 0;
        off += (off_t)n;
        len -= n;
    }
}

/* Another name for what is about to lose its own. */
static void keep(struct change *c, const char *path)
{
    snprintf(c->kept, sizeof c->kept, "%.1000s.power-%u", root, kept_n++);
    if (syscall(SYS_linkat, AT_FDCWD, path, AT_FDCWD, c->kept, 0))
        c->kept[0] = 0;
}

/* ---- the calls -------------------------------------------------------------------------------------------------------------------------------------- */

ssize_t write(int fd, const void *p, size_t len)
{
    pthread_mutex_lock(&mu);
    bool ours = of_fd(fd), dead = ours && cut_now();
    if (ours && !dead)
        note_bytes(fd, (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR), len);
    pthread_mutex_unlock(&mu);
    return dead ? -1 : syscall(SYS_write, fd, p, len);
}

static ssize_t do_pwrite(int fd, const void *p, size_t len, off_t off)
{
    pthread_mutex_lock(&mu);
    bool ours = of_fd(fd), dead = ours && cut_now();
    if (ours && !dead)
        note_bytes(fd, off, len);
    pthread_mutex_unlock(&mu);
    return dead ? -1 : syscall(SYS_pwrite64, fd, p, len, off);
}
ssize_t pwrite(int fd, const void *p, size_t len, off_t off) { return do_pwrite(fd, p, len, off); }
ssize_t pwrite64(int fd, const void *p, size_t len, off64_t off) { return do_pwrite(fd, p, len, off); }

static size_t iov_len(const struct iovec *v, int n)
{
    size_t len = 0;
    while (n--)
        len += v[n].iov_len;
    return len;
}
static ssize_t do_pwritev(int fd, const struct iovec *v, int n, off_t off)
{
    pthread_mutex_lock(&mu);
    bool ours = of_fd(fd), dead = ours && cut_now();
    if (ours && !dead)
        note_bytes(fd, off, iov_len(v, n));
    pthread_mutex_unlock(&mu);
    return dead ? -1 : syscall(SYS_pwritev, fd, v, n, off, 0);
}
ssize_t pwritev(int fd, const struct iovec *v, int n, off_t off) { return do_pwritev(fd, v, n, off); }
ssize_t pwritev64(int fd, const struct iovec *v, int n, off64_t off) { return do_pwritev(fd, v, n, off); }
ssize_t writev(int fd, const struct iovec *v, int n)
{
    pthread_mutex_lock(&mu);
    bool ours = of_fd(fd), dead = ours && cut_now();
    if (ours && !dead)
        note_bytes(fd, (off_t)syscall(SYS_lseek, fd, 0, SEEK_CUR), iov_len(v, n));
    pthread_mutex_unlock(&mu);
    return dead ? -1 : syscall(SYS_writev, fd, v, n);
}

static int do_truncate(int fd, off_t len)
{
    struct stat st;
    pthread_mutex_lock(&mu);
    bool ours = of_fd(fd), dead = ours && cut_now();
    if (ours && !dead && fstat(fd, &st) == 0)
        note_bytes(fd, len, len < st.st_size ? (size_t)(st.st_size - len) : 0);
    pthread_mutex_unlock(&mu);
    return dead ? -1 : (int)syscall(SYS_ftruncate, fd, len);
}
int ftruncate(int fd, off_t len) { return do_truncate(fd, len); }
int ftruncate64(int fd, off64_t len) { return do_truncate(fd, len); }

static int do_sync(int fd, long call)
{
    char path[PATH_MAX];
    struct stat st;
    pthread_mutex_lock(&mu);
    bool ours = on && path_of(fd, path), dead = ours && cut_now();
    int rc = dead ? -1 : (int)syscall(call, fd);
    if (ours && !rc && fstat(fd, &st) == 0)
        for (size_t i = n_change; i--;) {
            struct change *c = change[i];
            bool bytes = c->what == WRITTEN || c->what == RESIZED;
            size_t n = strlen(path);
            bool in_here = !bytes && strncmp(c->path, path, n) == 0 && c->path[n] == '/' && !strchr(c->path + n + 1, '/');
            if (bytes ? c->dev == st.st_dev && c->ino == st.st_ino : S_ISDIR(st.st_mode) && in_here)
                forget(i);
        }
    pthread_mutex_unlock(&mu);
    return rc;
}
int fsync(int fd) { return do_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return do_sync(fd, SYS_fdatasync); }

static int do_open(const char *path, int flags, mode_t mode)
{
    struct stat st;
    pthread_mutex_lock(&mu);
    bool there = syscall(SYS_newfstatat, AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0;
    bool changes = beneath(path) && ((flags & O_CREAT && !there) || (flags & O_TRUNC && there && st.st_size)), dead = changes && cut_now();
    int fd = -1;
    if (!dead && changes && there) { /* cut off, as by ftruncate */
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC, 0);
        note_bytes(fd, 0, (size_t)st.st_size);
        syscall(SYS_close, fd);
    }
    if (!dead)
        fd = (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
    if (fd >= 0 && changes && !there) {
        struct change *c = add(MADE);
        snprintf(c->path, sizeof c->path, "%s", path);
    }
    pthread_mutex_unlock(&mu);
    return dead ? -1 : fd;
}
#define OPEN(name)                                                                                                                                     \
    int name(const char *path, int flags, ...)                                                                                                         \
    {                                                                                                                                                  \
        va_list ap;                                                                                                                                    \
        va_start(ap, flags);                                                                                                                           \
        mode_t mode = flags & O_CREAT ? va_arg(ap, mode_t) : 0;                                                                                        \
        va_end(ap);                                                                                                                                    \
        return do_open(path, flags, mode);                                                                                                             \
    }
OPEN(open)
OPEN(open64)
int mkdir(const char *path, mode_t mode)
{
    pthread_mutex_lock(&mu);
    bool ours = beneath(path), dead = ours && cut_now();
    int rc = dead ? -1 : (int)syscall(SYS_mkdirat, AT_FDCWD, path, mode);
    if (ours && !rc)
        snprintf(add(MADE)->path, PATH_MAX, "%s", path);
    pthread_mutex_unlock(&mu);
    return rc;
}

static int do_rename(const char *from, const char *to, unsigned flags)
{
    pthread_mutex_lock(&mu);
    bool ours = beneath(to), dead = ours && cut_now();
    struct change c = { .what = RENAMED };
    if (ours && !dead)
        keep(&c, to);
    int rc = dead ? -1 : (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
    if (ours && !rc) {
        struct change *a = add(RENAMED);
        *a = c;
        a->fd = -1;
        snprintf(a->path, sizeof a->path, "%s", to);
        snprintf(a->to, sizeof a->to, "%s", from);
    } else if (c.kept[0]) {
        syscall(SYS_unlinkat, AT_FDCWD, c.kept, 0);
    }
    pthread_mutex_unlock(&mu);
    return rc;
}
int rename(const char *from, const char *to) { return do_rename(from, to, 0); }
int renameat2(int a, const char *from, int b, const char *to, unsigned flags)
{
    (void)a, (void)b;
    return do_rename(from, to, flags);
}

int unlink(const char *path)
{
    struct stat st;
    pthread_mutex_lock(&mu);
    bool ours = beneath(path) && syscall(SYS_newfstatat, AT_FDCWD, path, &st, AT_SYMLINK_NOFOLLOW) == 0, dead = ours && cut_now();
    struct change *c = ours && !dead ? add(REMOVED) : NULL;
    if (c) {
        snprintf(c->path, sizeof c->path, "%s", path);
        keep(c, path);
    }
    int rc = dead ? -1 : (int)syscall(SYS_unlinkat, AT_FDCWD, path, 0);
    pthread_mutex_unlock(&mu);
    return rc;
}

/* ---- the test's side ---------------------------------------------------------------------------------------------------------------------------------- */

void power_on(const char *dir, unsigned cut_before)
{
    snprintf(root, sizeof root, "%s", dir);
    gone = false;
    calls = 0;
    cut = cut_before;
    on = true;
}

unsigned power_calls(void) { return calls; }
bool power_gone(void) { return gone; }
void power_fail(void) { gone = true; }

static void undo(struct change *c)
{
    switch (c->what) {
    case WRITTEN:
        if (c->len)
            syscall(SYS_pwrite64, c->fd, c->old, c->len, c->off);
        break;
    case RESIZED: syscall(SYS_ftruncate, c->fd, c->off); break;
    case MADE:
        if (syscall(SYS_unlinkat, AT_FDCWD, c->path, 0))
            syscall(SYS_unlinkat, AT_FDCWD, c->path, AT_REMOVEDIR);
        break;
    case RENAMED:
        syscall(SYS_renameat2, AT_FDCWD, c->path, AT_FDCWD, c->to, 0);
        if (c->kept[0])
            syscall(SYS_renameat2, AT_FDCWD, c->kept, AT_FDCWD, c->path, 0);
        c->kept[0] = 0;
        break;
    case REMOVED:
        if (c->kept[0])
            syscall(SYS_renameat2, AT_FDCWD, c->kept, AT_FDCWD, c->path, 0);
        c->kept[0] = 0;
        break;
    }
}

void power_off(enum power_loss loss, uint64_t seed)
{
    size_t names = 0, lost_from = 0;
    on = false;
    for (size_t i = 0; i < n_change; i++)
        names += change[i]->what > RESIZED;
    seed = seed * 6364136223846793005ull + 1442695040888963407ull;
    lost_from = loss == POWER_LOSE_SOME ? (seed >> 33) % (names + 1) : 0;
    for (size_t i = n_change; gone && loss != POWER_KEEP_ALL && i--;) {
        struct change *c = change[i];
        seed = seed * 6364136223846793005ull + 1442695040888963407ull;
        bool lose = loss == POWER_LOSE_ALL || seed >> 63;
        if (c->what > RESIZED)
            lose = --names >= lost_from; /* names in their order */
        if (lose)
            undo(c);
    }
    while (n_change)
        forget(n_change - 1);
    gone = false;
}
