#include "pack.h"

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

enum { LEVEL = 3, PIECE = 256 * 1024 };

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0)
            return k ? -errno : -EIO;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

int lg_pack(int in, int out)
{
    ZSTD_CCtx *c = ZSTD_createCCtx();
    char *from = malloc(PIECE), *to = malloc(PIECE);
    int rc = c && from && to ? 0 : -ENOMEM;
    bool last = false;
    if (!rc && (ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_compressionLevel, LEVEL)) || ZSTD_isError(ZSTD_CCtx_setParameter(c, ZSTD_c_checksumFlag, 1))))
        rc = -EINVAL;
    while (!rc && !last) {
        ssize_t n = read(in, from, PIECE);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = -errno;
        last = n == 0;
        ZSTD_inBuffer i = { from, n > 0 ? (size_t)n : 0, 0 };
        size_t left = 1;
        while (!rc && (last ? left != 0 : i.pos < i.size)) {
            ZSTD_outBuffer o = { to, PIECE, 0 };
            left = ZSTD_compressStream2(c, &o, &i, last ? ZSTD_e_end : ZSTD_e_continue);
            rc = ZSTD_isError(left) ? -EIO : write_all(out, to, o.pos);
        }
    }
    ZSTD_freeCCtx(c);
    free(from);
    free(to);
    return rc;
}

int lg_unpack(int in, size_t max, int (*piece)(void *arg, const char *s, size_t len), void *arg)
{
    ZSTD_DCtx *d = ZSTD_createDCtx();
    char *from = malloc(PIECE), *to = malloc(PIECE);
    int rc = d && from && to ? 0 : -ENOMEM;
    size_t hint = 1;
    for (ssize_t n = 1; !rc && n;) {
        n = read(in, from, PIECE);
        if (n < 0) {
            rc = errno == EINTR ? 0 : -errno;
            n = 1;
            continue;
        }
        ZSTD_inBuffer i = { from, (size_t)n, 0 };
        while (!rc && i.pos < i.size) {
            ZSTD_outBuffer o = { to, PIECE, 0 };
            hint = ZSTD_decompressStream(d, &o, &i);
            if (ZSTD_isError(hint) || o.pos > max) {
                rc = -EBADMSG;
                break;
            }
            max -= o.pos;
            rc = o.pos ? piece(arg, to, o.pos) : 0;
        }
    }
    if (!rc && hint != 0) /* ended within a frame */
        rc = -EBADMSG;
    ZSTD_freeDCtx(d);
    free(from);
    free(to);
    return rc;
}
