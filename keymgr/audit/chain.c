/* The chain of records, and the heads that are signed. */
#include <string.h>

#include "text.h"
#include "leadglass/bytes.h"

int lg_audit_file_id(const struct lg_secret *study_key, const uint8_t file_id[LG_ID_LEN], uint8_t ret[LG_ID_LEN])
{
    return lg_derive_bytes(study_key, "leadglass audit file", file_id, LG_ID_LEN, ret, LG_ID_LEN);
}

void lg_audit_genesis(const uint8_t chain_id[LG_ID_LEN], uint8_t ret[LG_MAC_LEN])
{
    memset(ret, 0, LG_MAC_LEN);
    memcpy(ret, chain_id, LG_ID_LEN);
}

int lg_audit_link(const uint8_t prev[LG_MAC_LEN], const char *body, size_t body_len, uint8_t ret[LG_MAC_LEN])
{
    char hex[LG_AUDIT_HASH_HEX + 1];
    lg_hex_encode(prev, LG_MAC_LEN, hex);
    return lg_sha256_2(hex, LG_AUDIT_HASH_HEX, body, body_len, ret);
}

int lg_audit_envelope(const char *untrusted, size_t len, struct lg_audit_envelope *ret)
{
    static const char tail[] = ",\"hash\":\"";
    enum { TAIL = sizeof tail - 1 + LG_AUDIT_HASH_HEX + 2 };
    if (len < TAIL || len > LG_AUDIT_LINE_MAX || memchr(untrusted, '\n', len))
        return -EPROTO;
    struct lg_scan s = { untrusted, untrusted + len - TAIL, false }, h = { untrusted + len - TAIL, untrusted + len, false };
    struct lg_audit_envelope e = { .body_len = len - TAIL };
    lg_scan_need(&s, "{\"v\":1,\"seq\":");
    e.seq = lg_scan_u64(&s);
    lg_scan_need(&s, ",\"time\":\"");
    if (s.bad || (size_t)(s.end - s.p) < LG_AUDIT_TIME_LEN || lg_audit_time_parse(s.p, LG_AUDIT_TIME_LEN, &e.time_us))
        return -EPROTO;
    s.p += LG_AUDIT_TIME_LEN;
    lg_scan_need(&s, "\",\"chain\":");
    lg_scan_hex(&s, e.chain, sizeof e.chain);
    lg_scan_need(&s, ",\"event\":\"");
    e.event = s.p;
    const char *quote = s.bad ? NULL : memchr(s.p, '"', (size_t)(s.end - s.p));
    lg_scan_need(&h, tail);
    h.p--;
    lg_scan_hex(&h, e.hash, LG_MAC_LEN);
    lg_scan_need(&h, "}");
    if (s.bad || h.bad || !quote || !e.seq)
        return -EPROTO;
    e.event_len = (size_t)(quote - e.event);
    *ret = e;
    return 0;
}

/* ---- heads ---------------------------------------------------------------------------------------------------------------- */

static const char head_magic[24] = "leadglass audit head 1";
enum { HEAD_BYTES = 24 + 2 * LG_ID_LEN + 8 + 8 + LG_MAC_LEN + 8 + LG_MAC_LEN };

static int head_bytes(const struct lg_audit_head *h, uint8_t out[HEAD_BYTES])
{
    struct lg_wr w = lg_wr(out, HEAD_BYTES);
    lg_wr_bytes(&w, head_magic, sizeof head_magic);
    lg_wr_bytes(&w, h->keyring, LG_ID_LEN);
    lg_wr_bytes(&w, h->chain, LG_ID_LEN);
    lg_wr_u64(&w, h->n);
    lg_wr_u64(&w, h->seq);
    lg_wr_bytes(&w, h->hash, LG_MAC_LEN);
    lg_wr_u64(&w, (uint64_t)h->time_us);
    lg_wr_bytes(&w, h->prev, LG_MAC_LEN);
    return w.bad || w.len != HEAD_BYTES ? -EINVAL : 0;
}

int lg_audit_head_digest(const struct lg_audit_head *h, uint8_t ret[LG_MAC_LEN])
{
    uint8_t b[HEAD_BYTES];
    int rc = head_bytes(h, b);
    return rc ? rc : lg_sha256(b, sizeof b, ret);
}

int lg_audit_head_sign(struct lg_audit_head *h, const struct lg_secret *seed)
{
    uint8_t b[HEAD_BYTES];
    int rc = head_bytes(h, b);
    return rc ? rc : lg_sign(seed, b, sizeof b, h->sig);
}

int lg_audit_head_check(const struct lg_audit_head *h, const uint8_t pub[LG_SIGN_PUB_LEN])
{
    uint8_t b[HEAD_BYTES];
    int rc = head_bytes(h, b);
    return rc ? rc : lg_sign_verify(pub, b, sizeof b, h->sig);
}

int lg_audit_head_encode(const struct lg_audit_head *h, char *out, size_t cap, size_t *ret_len)
{
    struct lg_text t = { out, 0, cap, false };
    char time[LG_AUDIT_TIME_LEN + 1];
    lg_audit_time_text(h->time_us, time);
    lg_text_lit(&t, "{\"v\":1,\"keyring\":\"");
    lg_text_hex(&t, h->keyring, LG_ID_LEN);
    lg_text_lit(&t, "\",\"chain\":\"");
    lg_text_hex(&t, h->chain, LG_ID_LEN);
    lg_text_lit(&t, "\",\"n\":");
    lg_text_u64(&t, h->n);
    lg_text_lit(&t, ",\"seq\":");
    lg_text_u64(&t, h->seq);
    lg_text_lit(&t, ",\"hash\":\"");
    lg_text_hex(&t, h->hash, LG_MAC_LEN);
    lg_text_lit(&t, "\",\"time\":\"");
    lg_text_lit(&t, time);
    lg_text_lit(&t, "\",\"prev\":\"");
    lg_text_hex(&t, h->prev, LG_MAC_LEN);
    lg_text_lit(&t, "\",\"sig\":\"");
    lg_text_hex(&t, h->sig, LG_SIGN_LEN);
    lg_text_lit(&t, "\"}");
    if (t.bad)
        return -ENOSPC;
    *ret_len = t.len;
    return 0;
}

int lg_audit_head_parse(const char *untrusted, size_t len, struct lg_audit_head *ret)
{
    struct lg_scan s = { untrusted, untrusted + len, len > LG_AUDIT_HEAD_MAX };
    struct lg_audit_head h = { .n = 0 };
    lg_scan_need(&s, "{\"v\":1,\"keyring\":");
    lg_scan_hex(&s, h.keyring, LG_ID_LEN);
    lg_scan_need(&s, ",\"chain\":");
    lg_scan_hex(&s, h.chain, LG_ID_LEN);
    lg_scan_need(&s, ",\"n\":");
    h.n = lg_scan_u64(&s);
    lg_scan_need(&s, ",\"seq\":");
    h.seq = lg_scan_u64(&s);
    lg_scan_need(&s, ",\"hash\":");
    lg_scan_hex(&s, h.hash, LG_MAC_LEN);
    lg_scan_need(&s, ",\"time\":\"");
    if (s.bad || (size_t)(s.end - s.p) < LG_AUDIT_TIME_LEN || lg_audit_time_parse(s.p, LG_AUDIT_TIME_LEN, &h.time_us))
        return -EPROTO;
    s.p += LG_AUDIT_TIME_LEN;
    lg_scan_need(&s, "\",\"prev\":");
    lg_scan_hex(&s, h.prev, LG_MAC_LEN);
    lg_scan_need(&s, ",\"sig\":");
    lg_scan_hex(&s, h.sig, LG_SIGN_LEN);
    lg_scan_need(&s, "}");
    if (s.bad || s.p != s.end || !h.n || !h.seq)
        return -EPROTO;
    *ret = h;
    return 0;
}
