/* bytes.h: the one bounded cursor for untrusted bytes, its writing twin, and base64url text. Integers are little-endian. */
#ifndef LEADGLASS_BYTES_H
#define LEADGLASS_BYTES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "leadglass/status.h"

/* Reading. A cursor never passes its end: the first short read makes it bad, and bad cursors return zeros for ever;
 * check lg_rd_ok (or lg_rd_done: nothing left over either) once at the end. */
struct lg_rd {
    const uint8_t *p;
    size_t left;
    bool bad;
};

static inline struct lg_rd lg_rd(const void *p, size_t len) { return (struct lg_rd){ p, len, false }; }

/* The next n bytes in place, or NULL. */
static inline const uint8_t *lg_rd_bytes(struct lg_rd *r, size_t n)
{
    if (r->bad || n > r->left) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    r->left -= n;
    return p;
}
static inline void lg_rd_copy(struct lg_rd *r, void *out, size_t n)
{
    const uint8_t *p = lg_rd_bytes(r, n);
    if (p && n)
        memcpy(out, p, n);
    else if (n)
        memset(out, 0, n);
}
static inline uint64_t lg_rd_uint(struct lg_rd *r, unsigned width)
{
    const uint8_t *p = lg_rd_bytes(r, width);
    uint64_t v = 0;
    for (unsigned i = 0; p && i < width; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}
static inline uint8_t lg_rd_u8(struct lg_rd *r) { return (uint8_t)lg_rd_uint(r, 1); }
static inline uint16_t lg_rd_u16(struct lg_rd *r) { return (uint16_t)lg_rd_uint(r, 2); }
static inline uint32_t lg_rd_u32(struct lg_rd *r) { return (uint32_t)lg_rd_uint(r, 4); }
static inline uint64_t lg_rd_u64(struct lg_rd *r) { return lg_rd_uint(r, 8); }
/* A string with a 16-bit length of at most max bytes, copied with a terminating NUL into out[max + 1]; embedded NUL is bad. */
static inline void lg_rd_str(struct lg_rd *r, char *out, size_t max)
{
    size_t n = lg_rd_u16(r);
    if (n > max)
        r->bad = true;
    const uint8_t *p = lg_rd_bytes(r, n);
    if (p && n && memchr(p, 0, n))
        r->bad = true;
    if (!p || r->bad)
        n = 0;
    if (n)
        memcpy(out, p, n);
    out[n] = 0;
}
static inline bool lg_rd_ok(const struct lg_rd *r) { return !r->bad; }
static inline bool lg_rd_done(const struct lg_rd *r) { return !r->bad && r->left == 0; }

/* Writing into a buffer of fixed size; overflow makes it bad and writes nothing more. */
struct lg_wr {
    uint8_t *start;
    size_t len, cap;
    bool bad;
};

static inline struct lg_wr lg_wr(void *p, size_t cap) { return (struct lg_wr){ p, 0, cap, false }; }
static inline void lg_wr_bytes(struct lg_wr *w, const void *p, size_t n)
{
    if (w->bad || n > w->cap - w->len) {
        w->bad = true;
        return;
    }
    if (n)
        memcpy(w->start + w->len, p, n);
    w->len += n;
}
static inline void lg_wr_uint(struct lg_wr *w, uint64_t v, unsigned width)
{
    uint8_t b[8];
    for (unsigned i = 0; i < width; i++)
        b[i] = (uint8_t)(v >> (8 * i));
    lg_wr_bytes(w, b, width);
}
static inline void lg_wr_u8(struct lg_wr *w, uint8_t v) { lg_wr_uint(w, v, 1); }
static inline void lg_wr_u16(struct lg_wr *w, uint16_t v) { lg_wr_uint(w, v, 2); }
static inline void lg_wr_u32(struct lg_wr *w, uint32_t v) { lg_wr_uint(w, v, 4); }
static inline void lg_wr_u64(struct lg_wr *w, uint64_t v) { lg_wr_uint(w, v, 8); }
static inline void lg_wr_str(struct lg_wr *w, const char *s)
{
    size_t n = strlen(s);
    if (n > UINT16_MAX) {
        w->bad = true;
        return;
    }
    lg_wr_u16(w, (uint16_t)n);
    lg_wr_bytes(w, s, n);
}

/* base64url without padding (RFC 4648 section 5). */
static inline size_t lg_b64_len(size_t n) { return (n * 4 + 2) / 3; }
/* Writes lg_b64_len(n) characters and a NUL. */
void lg_b64_encode(const void *in, size_t n, char *out);
/* Decodes exactly len characters into at most cap bytes; strict (no padding, no spare bits). -EPROTO or -ENOSPC. */
int lg_b64_decode(const char *in, size_t len, uint8_t *out, size_t cap, size_t *ret_len) LG_MUST;
/* Lower-case hexadecimal, 2n characters and a NUL. */
void lg_hex_encode(const void *in, size_t n, char *out);
/* Exactly 2n hexadecimal digits. */
int lg_hex_decode(const char *in, uint8_t *out, size_t n) LG_MUST;

/* CRC-32C (Castagnoli), for accidental damage only. crc starts at 0. */
uint32_t lg_crc32c(uint32_t crc, const void *data, size_t len);
/* The same in no faster way than that one: for tests. */
enum lg_crc32c_way { LG_CRC32C_BITWISE, LG_CRC32C_INSTRUCTION, LG_CRC32C_LANES, LG_CRC32C_FOLDED };
uint32_t lg_crc32c_by(enum lg_crc32c_way most, uint32_t crc, const void *data, size_t len);

#endif
