/* The record parser, the head parser and the verifier. First byte: which. The verifier gets any bytes, and a chain of ours with good hashes and signatures, of
 * which the input leaves out, repeats, swaps and changes lines and heads. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/audit.h"

static void record(const char *s, size_t len)
{
    static struct lg_audit_record r, again;
    static char line[LG_AUDIT_LINE_MAX];
    struct lg_audit_envelope e;
    uint8_t prev[LG_MAC_LEN] = { 0 };
    size_t n;
    if (lg_audit_envelope(s, len, &e) == 0 && (e.body_len >= len || e.event < s || e.event + e.event_len > s + len))
        abort();
    if (lg_audit_record_parse(s, len, &r))
        return;
    /* What can be read can be written, and reads the same. */
    if (lg_audit_record_encode(&r, prev, line, sizeof line, &n) || lg_audit_record_parse(line, n, &again) || again.seq != r.seq || again.time_us != r.time_us ||
        strcmp(again.event, r.event) != 0 || strcmp(again.path, r.path) != 0 || strcmp(again.text, r.text) != 0 || again.outcome != r.outcome || memchr(line, '\n', n))
        abort();
}

static void verify(const char *s, size_t len)
{
    static const uint8_t id[LG_ID_LEN] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, nobody[LG_SIGN_PUB_LEN] = { 5 };
    struct lg_audit_verifier *v;
    struct lg_audit_report r;
    if (lg_audit_verifier_new(id, nobody, &v))
        return;
    bool heads = true;
    while (len) {
        const char *nl = memchr(s, '\n', len);
        size_t n = nl ? (size_t)(nl - s) : len;
        heads = heads && n;
        int rc = heads ? lg_audit_verifier_head(v, s, n) : lg_audit_verifier_line(v, 1, s, n);
        if (rc)
            break;
        s += n + (nl != NULL);
        len -= n + (nl != NULL);
    }
    lg_audit_verifier_end(v, 0, &r);
    if (r.heads) /* nobody signed anything here */
        abort();
    lg_audit_verifier_free(v);
}

enum { CHAIN = 8 };
static const uint8_t chain_id[LG_ID_LEN] = { 7, 7 };
static char lines[CHAIN][LG_AUDIT_LINE_MAX], heads[CHAIN][LG_AUDIT_HEAD_MAX];
static size_t line_len[CHAIN], head_len[CHAIN];
static struct lg_audit_head head[CHAIN];
static uint8_t pub[LG_SIGN_PUB_LEN];

static void chain_make(void)
{
    static struct lg_audit_record r;
    uint8_t prev[LG_MAC_LEN], digest[LG_MAC_LEN] = { 0 };
    LG_SECRET_AUTO seed = lg_secret_new();
    if (!seed || lg_sign_public(seed, pub))
        abort();
    lg_audit_genesis(chain_id, prev);
    for (unsigned i = 0; i < CHAIN; i++) {
        lg_audit_record_init(&r);
        r.seq = i + 1;
        r.time_us = 1764019805123456 + (int64_t)i;
        memcpy(r.chain, chain_id, sizeof r.chain);
        strcpy(r.event, i == 2 ? "log.pruned" : i == 4 ? "log.segment" : i == 5 ? "log.clock" : "file.open");
        r.has = i == 4 ? LG_AUDIT_PREV : LG_AUDIT_WHO | (i == 2 ? LG_AUDIT_RANGE : 0);
        r.to = 2;
        memcpy(r.prev, prev, sizeof prev);
        if (lg_audit_record_encode(&r, prev, lines[i], sizeof lines[i], &line_len[i]))
            abort();
        memcpy(prev, r.hash, sizeof prev);
        head[i] = (struct lg_audit_head){ .n = i + 1, .seq = i + 1, .time_us = r.time_us };
        memcpy(head[i].chain, chain_id, LG_ID_LEN);
        memcpy(head[i].hash, r.hash, LG_MAC_LEN);
        memcpy(head[i].prev, digest, LG_MAC_LEN);
        if (lg_audit_head_sign(&head[i], seed) || lg_audit_head_digest(&head[i], digest) || lg_audit_head_encode(&head[i], heads[i], sizeof heads[i], &head_len[i]))
            abort();
    }
}

/* Each pair of bytes: what to do, and with which. */
static void chain(const uint8_t *d, size_t len)
{
    static char changed[LG_AUDIT_LINE_MAX];
    struct lg_audit_verifier *v;
    struct lg_audit_report r;
    bool clean = true; /* nothing but lines as they are, from the first on */
    uint64_t next = 1;
    if (lg_audit_verifier_new(chain_id, len && d[0] & 1 ? pub : NULL, &v))
        return;
    for (size_t i = 1; i + 1 < len && i < 200; i += 2) {
        unsigned what = d[i] % 8, k = d[i + 1] % CHAIN;
        const char *from = what & 1 ? heads[k] : lines[k];
        size_t n = what & 1 ? head_len[k] : line_len[k];
        memcpy(changed, from, n);
        if (what >= 6) {
            clean = false;
            changed[d[i + 1] * 3u % n] ^= (char)(1 + d[i] / 8);
        }
        if (what == 3) {
            clean = false;
            if (lg_audit_verifier_against(v, &head[k]))
                break;
        } else if (what == 4 && k == 3) {
            clean = false;
            lg_audit_verifier_unreadable(v, 1);
        } else if (what & 1) {
            clean = false;
            if (lg_audit_verifier_head(v, changed, n))
                break;
        } else {
            clean &= next++ == k + 1;
            if (lg_audit_verifier_line(v, 1 + (unsigned)i / 64, changed, n))
                break;
        }
    }
    lg_audit_verifier_end(v, len % 2, &r);
    if ((unsigned)r.verdict > LG_AUDIT_UNREADABLE || !lg_audit_verdict_name(r.verdict)[0] || (clean && r.n_problems))
        abort();
    lg_audit_verifier_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static bool ready;
    struct lg_audit_head h, again;
    char line[LG_AUDIT_HEAD_MAX];
    size_t n;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    if (!ready)
        chain_make();
    ready = true;
    if (!len)
        return 0;
    const char *s = (const char *)data + 1;
    len--;
    if (*data % 4 == 3) {
        chain((const uint8_t *)s, len);
    } else if (*data % 4 == 0) {
        record(s, len);
    } else if (*data % 4 == 1) {
        if (lg_audit_head_parse(s, len, &h) == 0 && (lg_audit_head_encode(&h, line, sizeof line, &n) || n != len || memcmp(line, s, n) != 0 || lg_audit_head_parse(line, n, &again)))
            abort();
    } else {
        verify(s, len);
    }
    return 0;
}
