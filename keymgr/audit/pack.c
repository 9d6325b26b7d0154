#include "pack.h"
#include "leadglass/write.h"

#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>
#include <zstd.h>

enum { LEVEL = 3, PIECE = 256 * 1024 };

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
            rc = ZSTD_isError(left) ? -EIO : lg_write_all(out, to, o.pos);
        }
    }
    ZSTD_freeCCtx(c);
    free(from);
    free(to);
    return rc;
}

struct lg_unpacker {
    ZSTD_DCtx *d;
    int in;
    size_t left;  /* of what may come out */
    size_t hint;  /* 0: a frame is complete */
    bool end;
    ZSTD_inBuffer i;
    char from[PIECE];
};

int lg_unpacker_new(int in, size_t max, struct lg_unpacker **ret)
{
    struct lg_unpacker *u = malloc(sizeof *u);
    if (!u)
        return -ENOMEM;
    *u = (struct lg_unpacker){ .d = ZSTD_createDCtx(), .in = in, .left = max, .hint = 1 };
    u->i.src = u->from;
    if (!u->d) {
        free(u);
        return -ENOMEM;
    }
    *ret = u;
    return 0;
}

void lg_unpacker_free(struct lg_unpacker *u)
{
    if (u)
        ZSTD_freeDCtx(u->d);
    free(u);
}

int lg_unpacker_read(struct lg_unpacker *u, char *out, size_t cap, size_t *ret_n)
{
    ZSTD_outBuffer o = { out, cap, 0 };
    while (!o.pos) {
        if (u->i.pos == u->i.size && !u->end) {
            ssize_t n = read(u->in, u->from, PIECE);
            if (n < 0 && errno == EINTR)
                continue;
            if (n < 0)
                return -errno;
            u->end = n == 0;
            u->i.size = (size_t)n;
            u->i.pos = 0;
        }
        if (u->end && u->hint == 0)
            break;
        size_t before = u->i.pos;
        u->hint = ZSTD_decompressStream(u->d, &o, &u->i);
        if (ZSTD_isError(u->hint) || o.pos > u->left)
            return -EBADMSG;
        if (u->end && !o.pos && u->i.pos == before && u->hint) /* ended within a frame */
            return -EBADMSG;
    }
    u->left -= o.pos;
    *ret_n = o.pos;
    return 0;
}

int lg_unpack(int in, size_t max, int (*piece)(void *arg, const char *s, size_t len), void *arg)
{
    struct lg_unpacker *u = NULL;
    char *to = malloc(PIECE);
    size_t n = 1;
    int rc = to ? lg_unpacker_new(in, max, &u) : -ENOMEM;
    while (!rc && n) {
        rc = lg_unpacker_read(u, to, PIECE, &n);
        if (!rc && n)
            rc = piece(arg, to, n);
    }
    lg_unpacker_free(u);
    free(to);
    return rc;
}
