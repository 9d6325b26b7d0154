/* All of some bytes, written to a descriptor. */
#ifndef LEADGLASS_WRITE_H
#define LEADGLASS_WRITE_H

#include <stddef.h>
#include <unistd.h>

#include "leadglass/status.h"

/* On error, a part of them may have been written. */
static inline LG_MUST int lg_write_all(int fd, const void *bytes, size_t len)
{
    for (const char *p = bytes; len;) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n ? -errno : -EIO;
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

#endif
