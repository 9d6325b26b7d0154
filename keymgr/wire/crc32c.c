/* CRC-32C in whichever way the processor has: by carry-less products, by its own instruction, or bit by bit. */
#include "leadglass/bytes.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

static uint32_t crc32c_bitwise(uint32_t crc, const uint8_t *p, size_t len)
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

__attribute__((target("sse4.2"))) static uint32_t crc32c_sse42(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t c = crc;
    for (; len >= 8; len -= 8, p += 8)
        c = _mm_crc32_u64(c, word(p));
    for (; len; len--, p++)
        c = _mm_crc32_u8((uint32_t)c, *p);
    return (uint32_t)c;
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
__attribute__((target("sse4.2,pclmul"))) static uint32_t crc32c_lanes(uint32_t crc, const uint8_t *p, size_t len)
{
    uint64_t a = crc;
    for (; len; len -= 3 * LANE, p += 3 * LANE) {
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

/* One block after another is folded into the next: of each 16 bytes the two halves, times x^(8*FOLD+63) and x^(8*FOLD-1) mod P, reflected, are the same to the crc FOLD bytes further
 * on (Gopal et al., "Fast CRC Computation for Generic Polynomials Using PCLMULQDQ Instruction", Intel, 2009). len: a multiple of FOLD, and not 0. */
#define FOLD 256u
__attribute__((target("avx512f,vpclmulqdq,sse4.2"))) static uint32_t crc32c_folded(uint32_t crc, const uint8_t *p, size_t len)
{
    const __m512i k = _mm512_broadcast_i32x4(_mm_set_epi64x(0x1426a81500000000, (long long)0xe9a5d8be00000000));
    uint8_t last[FOLD];
    __m512i x[FOLD / 64];
#pragma GCC unroll 4
    for (unsigned i = 0; i < FOLD / 64; i++)
        x[i] = _mm512_loadu_si512(p + 64 * i);
    x[0] = _mm512_xor_si512(x[0], _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)crc)));
    for (size_t at = FOLD; at < len; at += FOLD)
#pragma GCC unroll 4
        for (unsigned i = 0; i < FOLD / 64; i++)
            x[i] = _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(x[i], k, 0x00), _mm512_clmulepi64_epi128(x[i], k, 0x11), _mm512_loadu_si512(p + at + 64 * i), 0x96);
    memcpy(last, x, FOLD);
    return crc32c_sse42(0, last, FOLD);
}
#endif

uint32_t lg_crc32c_by(enum lg_crc32c_way most, uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
    (void)most;
#if defined(__x86_64__)
    size_t n = 0;
    if (most >= LG_CRC32C_FOLDED && len >= FOLD && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("vpclmulqdq") && __builtin_cpu_supports("sse4.2")) {
        n = len / FOLD * FOLD;
        crc = ~crc32c_folded(~crc, p, n);
    } else if (most >= LG_CRC32C_LANES && len >= 3 * LANE && __builtin_cpu_supports("sse4.2") && __builtin_cpu_supports("pclmul")) {
        n = len / (3 * LANE) * (3 * LANE);
        crc = ~crc32c_lanes(~crc, p, n);
    }
    p += n;
    len -= n;
    if (most >= LG_CRC32C_INSTRUCTION && __builtin_cpu_supports("sse4.2"))
        return ~crc32c_sse42(~crc, p, len);
#endif
    return ~crc32c_bitwise(~crc, p, len);
}

uint32_t lg_crc32c(uint32_t crc, const void *data, size_t len) { return lg_crc32c_by(LG_CRC32C_FOLDED, crc, data, len); }
