/* The bytes of a spool: pure. */
#include "leadglass/bytes.h"
#include "spool.h"

static const char magic[8] = "LGSPOOL1";

int lg_spool_place_cmp(const struct lg_spool_place *a, const struct lg_spool_place *b)
{
    if (a->segment != b->segment)
        return a->segment < b->segment ? -1 : 1;
    return a->offset < b->offset ? -1 : a->offset > b->offset;
}

void lg_spool_note_encode(const struct lg_spool_note *n, uint8_t out[LG_SPOOL_NOTE])
{
    struct lg_wr w = lg_wr(out, LG_SPOOL_NOTE);
    lg_wr_u64(&w, n->first.segment);
    lg_wr_u64(&w, n->first.offset);
    lg_wr_u64(&w, n->end.segment);
    lg_wr_u64(&w, n->end.offset);
}

int lg_spool_note_decode(const void *untrusted, size_t len, struct lg_spool_note *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_spool_note n;
    n.first.segment = lg_rd_u64(&r);
    n.first.offset = lg_rd_u64(&r);
    n.end.segment = lg_rd_u64(&r);
    n.end.offset = lg_rd_u64(&r);
    if (!lg_rd_done(&r) || lg_spool_place_cmp(&n.first, &n.end) > 0 || n.end.segment >= LG_SPOOL_SEGMENTS)
        return -EPROTO;
    *ret = n;
    return 0;
}

static int check_of(const struct lg_secret *key, const uint8_t header[24], uint8_t ret[8]) { return lg_derive_bytes(key, "leadglass export spool check", header, 24, ret, 8); }

int lg_spool_header_make(const struct lg_secret *key, uint64_t segment, uint8_t ret[LG_SPOOL_HEADER])
{
    struct lg_wr w = lg_wr(ret, LG_SPOOL_HEADER);
    uint8_t salt[8];
    int rc = lg_random(salt, sizeof salt);
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_u64(&w, segment);
    lg_wr_bytes(&w, salt, sizeof salt);
    return rc ? rc : check_of(key, ret, ret + 24);
}

int lg_spool_header_check(const struct lg_secret *key, uint64_t segment, const uint8_t untrusted[LG_SPOOL_HEADER])
{
    struct lg_rd r = lg_rd(untrusted, LG_SPOOL_HEADER);
    uint8_t check[8];
    const uint8_t *m = lg_rd_bytes(&r, sizeof magic);
    if (memcmp(m, magic, sizeof magic) != 0 || lg_rd_u64(&r) != segment)
        return -EBADMSG;
    int rc = check_of(key, untrusted, check);
    return rc ? rc : lg_equal(check, untrusted + 24, sizeof check) ? 0 : -EBADMSG;
}

/* Where it stands belongs to it: none can be moved, repeated or taken into another segment. */
static void ad_of(const uint8_t header[LG_SPOOL_HEADER], uint64_t offset, uint8_t ret[LG_SPOOL_HEADER + 8])
{
    struct lg_wr w = lg_wr(ret, LG_SPOOL_HEADER + 8);
    lg_wr_bytes(&w, header, LG_SPOOL_HEADER);
    lg_wr_u64(&w, offset);
}

int lg_spool_seal(struct lg_siv *k, const uint8_t header[LG_SPOOL_HEADER], uint64_t offset, const void *data, size_t len, uint8_t *out, size_t *ret_len)
{
    uint8_t ad[LG_SPOOL_HEADER + 8];
    struct lg_wr w = lg_wr(out, 4);
    if (len > LG_SPOOL_RECORD_MAX)
        return -E2BIG;
    lg_wr_u32(&w, (uint32_t)len);
    ad_of(header, offset, ad);
    int rc = lg_siv_seal_with(k, ad, sizeof ad, data, len, out + 4);
    if (!rc)
        *ret_len = 4 + LG_SIV_TAG_LEN + len;
    return rc;
}

int lg_spool_unseal(struct lg_siv *k, const uint8_t header[LG_SPOOL_HEADER], uint64_t offset, const uint8_t *untrusted, size_t left, uint8_t *out, size_t *ret_len, size_t *ret_taken)
{
    uint8_t ad[LG_SPOOL_HEADER + 8];
    struct lg_rd r = lg_rd(untrusted, left);
    size_t len = lg_rd_u32(&r);
    if (lg_rd_ok(&r) && len > LG_SPOOL_RECORD_MAX)
        return -EBADMSG;
    const uint8_t *ct = lg_rd_bytes(&r, len + LG_SIV_TAG_LEN);
    if (!ct)
        return -EAGAIN;
    ad_of(header, offset, ad);
    int rc = lg_siv_open_with(k, ad, sizeof ad, ct, len + LG_SIV_TAG_LEN, out);
    if (rc)
        return rc;
    *ret_len = len;
    *ret_taken = 4 + LG_SIV_TAG_LEN + len;
    return 0;
}
