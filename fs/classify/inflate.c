#include <zlib.h>

#include "internal.h"

int lg_inflate(const uint8_t *in, size_t len, bool raw, uint8_t *out, size_t cap, size_t *ret_len, bool *ret_end)
{
    z_stream z = { .next_in = (Bytef *)(uintptr_t)in, .avail_in = (uInt)len, .next_out = out, .avail_out = (uInt)cap };
    if (inflateInit2(&z, raw ? -15 : 15) != Z_OK)
        return -ENOMEM;
    int rc = inflate(&z, Z_SYNC_FLUSH);
    *ret_len = cap - z.avail_out;
    bool bad = rc != Z_OK && rc != Z_STREAM_END && rc != Z_BUF_ERROR;
    *ret_end = bad || rc == Z_STREAM_END;
    inflateEnd(&z);
    return bad && !*ret_len ? -EPROTO : 0;
}
