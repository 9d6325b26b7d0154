/* The position file. Its bytes are foreign when they are read back. */
#include <string.h>

#include "leadglass/bytes.h"
#include "leadglass/follow.h"

static const char magic[8] = "lgfollow";
enum { VERSION = 1, HASHED = 1, GONE = 2 };

int lg_follow_encode(const struct lg_follow_position *p, unsigned n, const void *note, size_t note_len, uint8_t *out, size_t cap, size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, cap);
    uint8_t sum[LG_MAC_LEN];
    if (n > LG_FOLLOW_CHAINS_MAX || note_len > LG_FOLLOW_NOTE_MAX)
        return -E2BIG;
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_u16(&w, VERSION);
    lg_wr_u16(&w, (uint16_t)n);
    lg_wr_u32(&w, (uint32_t)note_len);
    for (unsigned i = 0; i < n; i++, p++) {
        lg_wr_bytes(&w, p->chain, LG_ID_LEN);
        lg_wr_u32(&w, p->segment);
        lg_wr_u64(&w, p->offset);
        lg_wr_u64(&w, p->seq);
        lg_wr_u8(&w, (p->hashed ? HASHED : 0) | (p->gone ? GONE : 0));
        lg_wr_bytes(&w, p->hash, LG_MAC_LEN);
    }
    lg_wr_bytes(&w, note, note_len);
    if (w.bad)
        return -ENOSPC;
    int rc = lg_sha256(out, w.len, sum);
    lg_wr_bytes(&w, sum, sizeof sum);
    if (rc || w.bad)
        return rc ? rc : -ENOSPC;
    *ret_len = w.len;
    return 0;
}

int lg_follow_decode(const void *untrusted, size_t len, struct lg_follow_position *ret, unsigned *ret_n, const uint8_t **ret_note, size_t *ret_note_len)
{
    uint8_t sum[LG_MAC_LEN];
    if (len < sizeof sum || len > LG_FOLLOW_FILE_MAX)
        return -EPROTO;
    struct lg_rd r = lg_rd(untrusted, len - sizeof sum);
    const uint8_t *m = lg_rd_bytes(&r, sizeof magic);
    bool ours = m && memcmp(m, magic, sizeof magic) == 0 && lg_rd_u16(&r) == VERSION;
    unsigned n = lg_rd_u16(&r);
    size_t note_len = lg_rd_u32(&r);
    if (!ours || n > LG_FOLLOW_CHAINS_MAX || note_len > LG_FOLLOW_NOTE_MAX)
        return -EPROTO;
    for (unsigned i = 0; i < n; i++) {
        struct lg_follow_position *p = &ret[i];
        lg_rd_copy(&r, p->chain, LG_ID_LEN);
        p->segment = lg_rd_u32(&r);
        p->offset = lg_rd_u64(&r);
        p->seq = lg_rd_u64(&r);
        unsigned flags = lg_rd_u8(&r);
        p->hashed = flags & HASHED;
        p->gone = flags & GONE;
        lg_rd_copy(&r, p->hash, LG_MAC_LEN);
        if (flags & ~(unsigned)(HASHED | GONE) || p->segment > 99999999 || p->offset > INT64_MAX / 2 || p->seq > INT64_MAX)
            return -EPROTO;
    }
    const uint8_t *note = lg_rd_bytes(&r, note_len);
    if (!lg_rd_done(&r) || lg_sha256(untrusted, len - sizeof sum, sum) || memcmp(sum, (const uint8_t *)untrusted + len - sizeof sum, sizeof sum) != 0)
        return -EPROTO;
    *ret_n = n;
    *ret_note = note;
    *ret_note_len = note_len;
    return 0;
}
