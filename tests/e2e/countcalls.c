/* Preloaded into leadglass-fs: counts what it calls of the filesystem below, and for random numbers, by kind, in the file that LG_CALLS names, a 64-bit number for each of KINDS. Requests
 * of the kernel come and go by other calls. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, CLOSE, STAT, READ, WRITE, FCNTL, HANDLE, UNLINK, RENAME, TIMES, RANDOM, KINDS }; /* as in roundtrips.py */

static _Atomic uint64_t nowhere[KINDS], *calls = nowhere;

__attribute__((constructor)) static void begin(void)
{
    const char *file = getenv("LG_CALLS");
    int fd = file ? open(file, O_RDWR | O_CLOEXEC) : -1;
    void *p = fd < 0 ? MAP_FAILED : mmap(NULL, sizeof nowhere, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (p != MAP_FAILED)
        calls = p;
    if (fd >= 0)
        close(fd);
}

#define COUNTED(kind, type, name, params, ...)                                                                                                                               \
    type name params;                                                                                                                                                        \
    type name params                                                                                                                                                         \
    {                                                                                                                                                                        \
        static type(*_Atomic real) params;                                                                                                                                   \
        type(*f) params = real;                                                                                                                                              \
        if (!f)                                                                                                                                                              \
            real = f = (type(*) params)(uintptr_t)dlsym(RTLD_NEXT, #name);                                                                                                   \
        calls[kind]++;                                                                                                                                                       \
        return f(__VA_ARGS__);                                                                                                                                               \
    }

COUNTED(OPEN, int, open_by_handle_at, (int fd, struct file_handle *h, int flags), fd, h, flags)
COUNTED(HANDLE, int, name_to_handle_at, (int fd, const char *path, struct file_handle *h, int *id, int flags), fd, path, h, id, flags)
COUNTED(CLOSE, int, close, (int fd), fd)
COUNTED(STAT, int, fstat, (int fd, struct stat *st), fd, st)
COUNTED(STAT, int, fstat64, (int fd, struct stat64 *st), fd, st)
COUNTED(STAT, int, fstatat, (int fd, const char *path, struct stat *st, int flags), fd, path, st, flags)
COUNTED(STAT, int, fstatat64, (int fd, const char *path, struct stat64 *st, int flags), fd, path, st, flags)
COUNTED(STAT, int, statx, (int fd, const char *path, int flags, unsigned mask, struct statx *st), fd, path, flags, mask, st)
COUNTED(READ, ssize_t, pread, (int fd, void *buf, size_t len, off_t off), fd, buf, len, off)
COUNTED(READ, ssize_t, pread64, (int fd, void *buf, size_t len, off64_t off), fd, buf, len, off)
COUNTED(WRITE, ssize_t, pwritev, (int fd, const struct iovec *v, int n, off_t off), fd, v, n, off)
COUNTED(UNLINK, int, unlinkat, (int fd, const char *path, int flags), fd, path, flags)
COUNTED(RENAME, int, renameat, (int fd, const char *path, int to, const char *name), fd, path, to, name)
COUNTED(RENAME, int, renameat2, (int fd, const char *path, int to, const char *name, unsigned flags), fd, path, to, name, flags)
COUNTED(TIMES, int, futimens, (int fd, const struct timespec ts[2]), fd, ts)
COUNTED(RANDOM, ssize_t, getrandom, (void *buf, size_t len, unsigned flags), buf, len, flags)

/* Whoever gives no third argument has none read: it is handed on as it stands. */
#define COUNTED_MORE(name)                                                                                                                                                   \
    int name(int fd, int what, ...);                                                                                                                                         \
    int name(int fd, int what, ...)                                                                                                                                          \
    {                                                                                                                                                                        \
        static int (*_Atomic real)(int, int, ...);                                                                                                                           \
        int (*f)(int, int, ...) = real;                                                                                                                                      \
        va_list ap;                                                                                                                                                          \
        va_start(ap, what);                                                                                                                                                  \
        long more = va_arg(ap, long);                                                                                                                                        \
        va_end(ap);                                                                                                                                                          \
        if (!f)                                                                                                                                                              \
            real = f = (int (*)(int, int, ...))(uintptr_t)dlsym(RTLD_NEXT, #name);                                                                                           \
        calls[FCNTL]++;                                                                                                                                                      \
        return f(fd, what, more);                                                                                                                                            \
    }

COUNTED_MORE(fcntl)
COUNTED_MORE(fcntl64)
