#include "leadglass/format.h"

enum { HEAD_CHUNKS = LG_HEAD_ENTRIES, REGION0 = LG_REGION_ENTRIES, REGION0_TABLE = REGION0 * LG_ENTRY_LEN };

/* The region that holds entry i >= 80: its number k, its first entry, and where its table stands. */
struct region {
    unsigned k;
    uint64_t first, base;
};

static struct region region_of(uint32_t chunk_size, uint64_t i)
{
    uint64_t q = (i - HEAD_CHUNKS) / REGION0 + 1;
    unsigned k = 63u - (unsigned)__builtin_clzll(q);
    uint64_t before = (1ull << k) - 1; /* regions 0 .. k-1 hold 128 * (2^k - 1) entries */
    return (struct region){ k, HEAD_CHUNKS + REGION0 * before,
                            LG_HEADER_LEN + (uint64_t)HEAD_CHUNKS * chunk_size + before * (REGION0_TABLE + (uint64_t)REGION0 * chunk_size) };
}

uint64_t lg_format_entry_off(uint32_t chunk_size, uint64_t i)
{
    if (i < HEAD_CHUNKS)
        return 3 * LG_SECTOR + i * LG_ENTRY_LEN;
    struct region r = region_of(chunk_size, i);
    return r.base + (i - r.first) * LG_ENTRY_LEN;
}

uint64_t lg_format_chunk_off(uint32_t chunk_size, uint64_t i)
{
    if (i < HEAD_CHUNKS)
        return LG_HEADER_LEN + i * chunk_size;
    struct region r = region_of(chunk_size, i);
    return r.base + ((uint64_t)REGION0_TABLE << r.k) + (i - r.first) * chunk_size;
}

uint64_t lg_format_run(uint64_t i)
{
    if (i < HEAD_CHUNKS)
        return HEAD_CHUNKS - i;
    struct region r = region_of(1, i);
    return r.first + ((uint64_t)REGION0 << r.k) - i;
}

uint64_t lg_format_cipher_size(uint32_t chunk_size, uint64_t plain_size)
{
    if (plain_size == 0)
        return LG_HEADER_LEN;
    uint64_t last = (plain_size - 1) / chunk_size;
    return lg_format_chunk_off(chunk_size, last) + (plain_size - last * chunk_size);
}

uint64_t lg_format_plain_size(uint32_t chunk_size, uint64_t cipher_size)
{
    if (cipher_size <= LG_HEADER_LEN)
        return 0;
    uint64_t left = cipher_size - LG_HEADER_LEN, plain = 0, run = (uint64_t)HEAD_CHUNKS * chunk_size, table = REGION0_TABLE;
    for (unsigned k = 0; k < 64; k++) {
        if (left <= run)
            return plain + left;
        left -= run;
        plain += run;
        if (left <= table)
            return plain; /* ends inside a table: no committed file does */
        left -= table;
        run = ((uint64_t)REGION0 * chunk_size) << k;
        table = (uint64_t)REGION0_TABLE << (k + 1);
    }
    return plain;
}
