/* sys.h: the injectable backend: every system call by which the filesystem core changes or reads the lower filesystem's file contents, and
 * every barrier. The core calls these and nothing else for contents, so that tests can fail any one of them, cut it short, or record
 * writes and barriers and build crash states. Each returns what the system call returns, with -errno in place of -1. */
#ifndef LEADGLASS_SYS_H
#define LEADGLASS_SYS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "leadglass/status.h"

struct lg_sys {
    void *arg; /* passed to each */
    ssize_t (*pread)(void *arg, int fd, void *buf, size_t len, off_t off);
    ssize_t (*pwritev)(void *arg, int fd, const struct iovec *iov, int n, off_t off);
    int (*fdatasync)(void *arg, int fd);
    int (*fsync)(void *arg, int fd); /* directories too */
    int (*ftruncate)(void *arg, int fd, off_t len);
    int (*fallocate)(void *arg, int fd, int mode, off_t off, off_t len);
    int (*fstat)(void *arg, int fd, struct stat *st);
    off_t (*lseek)(void *arg, int fd, off_t off, int whence); /* SEEK_DATA only; -ENXIO past the last data */
    int (*futimens)(void *arg, int fd, const struct timespec ts[2]);
    /* What is at hand without waiting, -EAGAIN if nothing is. -EOPNOTSUPP: cannot be told here. NULL: everything is. */
    ssize_t (*pread_cached)(void *arg, int fd, void *buf, size_t len, off_t off);
    /* Reads in pieces, many at a time; calls each with place and length of every piece as it arrives, in any order, in this thread (shorter only where the
     * file ends). Returns the bytes read, or the first error of a read or of each. -ENOSYS: not here, nothing was read. NULL: never. */
    ssize_t (*pread_pieces)(void *arg, int fd, void *buf, size_t len, off_t off, size_t piece, int (*each)(void *each_arg, size_t at, size_t n), void *each_arg);
    /* How many of these bytes are in memory just now, by whole pages; len where that cannot be told. NULL: all. */
    size_t (*cached)(void *arg, int fd, off_t off, size_t len);
    /* May be NULL. These bytes need not stay in memory. */
    void (*forget)(void *arg, int fd, off_t off, off_t len);
};

/* The real ones. Cold reads go through io_uring where the system lets us. */
extern const struct lg_sys lg_sys_posix;
/* 0: they do. -errno: why not (EPERM, ENOSYS, ENOMEM ...; ECANCELED: switched off). */
int lg_uring_state(void);
void lg_uring_off(void); /* before the first read */

/* Whole transfers over a backend: loop over short ones and EINTR. read_full returns bytes read (short only at end of file); -LG_ELATER
 * as later.h says, where pread_cached is there. */
ssize_t lg_sys_read_full(const struct lg_sys *sys, int fd, void *buf, size_t len, uint64_t off) LG_MUST;
/* pread_pieces, or one whole read and then each in order. */
ssize_t lg_sys_read_pieces(const struct lg_sys *sys, int fd, void *buf, size_t len, uint64_t off, size_t piece, int (*each)(void *arg, size_t at, size_t n),
                           void *arg) LG_MUST;
int lg_sys_write_full(const struct lg_sys *sys, int fd, const void *buf, size_t len, uint64_t off) LG_MUST;
/* iov is used up. */
int lg_sys_writev_full(const struct lg_sys *sys, int fd, struct iovec *iov, int n, uint64_t off) LG_MUST;
/* Reading through fd, a file or directory just opened, is our own business and moves no access time. Where that is refused (another's file, and we are not root)
 * it does. */
void lg_noatime(int fd);

#endif
