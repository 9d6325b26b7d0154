#include "leadglass/bytes.h"

#if defined(__x86_64__)
#include <nmmintrin.h>
#include <wmmintrin.h>
#endif

static const char b64_chars[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

void lg_b64_encode(const void *in, size_t n, char *out)
{
    const uint8_t *p = in;
    size_t i = 0;
    for (; i + 3 <= n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (uint32_t)p[i + 1] << 8 | p[i + 2];
        *out++ = b64_chars[v >> 18];
        *out++ = b64_chars[v >> 12 & 63];
        *out++ = b64_chars[v >> 6 & 63];
        *out++ = b64_chars[v & 63];
    }
    if (n - i == 1) {
        *out++ = b64_chars[p[i] >> 2];
        *out++ = b64_chars[(p[i] & 3) << 4];
    } else if (n - i == 2) {
        uint32_t v = (uint32_t)p[i] << 8 | p[i + 1];
        *out++ = b64_chars[v >> 10];
        *out++ = b64_chars[v >> 4 & 63];
        *out++ = b64_chars[(v & 15) << 2];
    }
    *out = 0;
}

static int b64_value(char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    if (c == '-')
        return 62;
    if (c == '_')
        return 63;
    return -1;
}

int lg_b64_decode(const char *in, size_t len, uint8_t *out, size_t cap, size_t *ret_len)
{
    if (len % 4 == 1)
        return -EPROTO;
    size_t n = len * 3 / 4;
    if (n > cap)
        return -ENOSPC;
    uint32_t acc = 0;
    unsigned bits = 0;
    size_t o = 0;
    for (size_t i = 0; i < len; i++) {
        int v = b64_value(in[i]);
        if (v < 0)
            return -EPROTO;
        acc = acc << 6 | (uint32_t)v;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[o++] = (uint8_t)(acc >> bits);
            acc &= (1u << bits) - 1;
        }
    }
    if (acc) /* spare bits must be zero: one text for one value */
        return -EPROTO;
    *ret_len = o;
    return 0;
}

void lg_hex_encode(const void *in, size_t n, char *out)
{
    static const char hex[] = "0123456789abcdef";
    const uint8_t *p = in;
    for (size_t i = 0; i < n; i++) {
        *out++ = hex[p[i] >> 4];
        *out++ = hex[p[i] & 15];
    }
    *out = 0;
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int lg_hex_decode(const char *in, uint8_t *out, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int hi = hex_value(in[2 * i]);
        int lo = hi < 0 ? -1 : hex_value(in[2 * i + 1]);
        if (lo < 0)
            return -EPROTO;
        out[i] = (uint8_t)(hi << 4 | lo);
    }
    return in[2 * n] ? -EPROTO : 0;
}

static uint32_t crc32c_portable(uint32_t crc, const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        crc ^= p[i];
        for (int k = 0; k < 8; k++)
            crc = crc >> 1 ^ (0x82f63b78u & (0u - (crc & 1)));
    }
    return crc;
}

#if defined(__x86_64__)
static uint64_t word(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* The crc after n zero bytes more: a carry-less product with x^(8n-33) mod P, reflected, reduced by the instruction itself. */
#define LANE 1024u
#define AFTER_1_LANE 0x170076fa
#define AFTER_2_LANES 0xa51b6135
__attribute__((target("sse4.2,pclmul"))) static uint64_t crc_after(uint64_t crc, long long k)
{
    __m128i product = _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)crc), _mm_cvtsi64_si128(k), 0);
    return _mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(product));
}

/* The instruction takes three cycles but starts one in each: three lanes at a time (Gopal et al., Intel, 2011). */
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_lanes(uint32_t crc, const uint8_t *p, size_t n)
{
    uint64_t a = crc;
    for (; n; n--, p += 3 * LANE) {
        uint64_t b = 0, c = 0;
        for (size_t i = 0; i < LANE; i += 8) {
            a = _mm_crc32_u64(a, word(p + i));
            b = _mm_crc32_u64(b, word(p + LANE + i));
            c = _mm_crc32_u64(c, word(p + 2 * LANE + i));
        }
        a = crc_after(a, AFTER_2_LANES) ^ crc_after(b, AFTER_1_LANE) ^ c;
    }
    return (uint32_t)a;
}

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = crc;
    for (; len >= 8; len -= 8, p += 8)
        c = _mm_crc32_u64(c, word(p));
    for (; len; len--, p++)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
}
#endif

uint32_t lg_crc32c(uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
#if defined(__x86_64__)
    if (len >= 3 * LANE && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        size_t n = len / (3 * LANE);
        crc = ~crc32c_lanes(~crc, p, n);
        p += n * 3 * LANE;
        len -= n * 3 * LANE;
    }
    if (__builtin_cpu_supports("sse4.2"))
        return ~crc32c_sse42(~crc, p, len);
#endif
    return ~crc32c_portable(~crc, p, len);
}
