/* Inside io: the real backend's cold reads. */
#ifndef LG_IO_INTERNAL_H
#define LG_IO_INTERNAL_H

#include "leadglass/sys.h"

/* As pread_pieces of struct lg_sys. -ENOSYS: no ring here. */
ssize_t lg_uring_read(int fd, void *buf, size_t len, off_t off, size_t piece, int (*each)(void *arg, size_t at, size_t n), void *arg) LG_MUST;

#endif
