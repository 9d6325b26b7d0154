/* The record parser, the head parser and the verifier, and the ring that a killed process left in shared memory. First byte: which. The verifier gets any bytes, and
 * a chain of ours with good hashes and signatures, of which the input leaves out, repeats, swaps and changes lines and heads. The ring is one that is adopted, with
 * the input's numbers, entries and counts. */
#include "../../keymgr/audit/ring.c"

#include <stdio.h>

#include "scratch.h"

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

/* ---- the ring ---------------------------------------------------------------------------------------------------------------------------------------------- */

static const uint8_t ring_chain[LG_ID_LEN] = "whose ring it is";
static char ring_dir[64], ring_file[80];

static void ring_gone(void)
{
    unlink(ring_file);
    rmdir(ring_dir);
}

/* Most are small; 0xff: all of it. */
static uint64_t any(struct lg_rd *r)
{
    uint8_t n = lg_rd_u8(r);
    return n < 0xf8 ? n : n < 0xff ? (uint64_t)LG_RING_BYTES - 0xf8 + n - 3 : lg_rd_u64(r);
}

static void terminated(const struct lg_audit_record *rec)
{
    if (!memchr(rec->event, 0, sizeof rec->event) || !memchr(rec->how, 0, sizeof rec->how) || !memchr(rec->user, 0, sizeof rec->user) || !memchr(rec->host, 0, sizeof rec->host) ||
        !memchr(rec->exe, 0, sizeof rec->exe) || !memchr(rec->text, 0, sizeof rec->text) || !memchr(rec->path, 0, sizeof rec->path) || !memchr(rec->target, 0, sizeof rec->target))
        abort();
}

/* What the writer makes of a record: none, or one that can be read again. */
static void written(struct lg_audit_record *rec)
{
    static struct lg_audit_record again;
    static char line[LG_AUDIT_LINE_MAX];
    uint8_t prev[LG_MAC_LEN] = { 0 };
    size_t n;
    terminated(rec);
    rec->seq = 1;
    memcpy(rec->chain, ring_chain, sizeof rec->chain);
    int rc = lg_audit_record_encode(rec, prev, line, sizeof line, &n);
    if (rc != -EINVAL && (rc || lg_audit_record_parse(line, n, &again)))
        abort();
}

/* The file stays from one input to the next, as its pages cost more than all else. */
static void wipe(struct lg_ring *x, uint64_t from, uint64_t to)
{
    static const uint8_t zero[4096];
    for (uint64_t n; from < to; from += n) {
        n = to - from < sizeof zero ? to - from : sizeof zero;
        copy_in(x, from, zero, n);
    }
}

/* 1 byte what is wrong; head - tail, tail, and what was intended, as any(); entries (1 byte which: one of ours, a raw one with its length put right, raw bytes), each
 * with 1 byte of length; what is left is laid over groups, 2 bytes each: which, how much. */
static void ring(const uint8_t *d, size_t len)
{
    static struct lg_audit_record rec;
    struct lg_rd r = lg_rd(d, len);
    struct lg_ring *x;
    int fd = open(ring_file, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    uint8_t wrong = lg_rd_u8(&r);
    if (fd < 0 || ftruncate(fd, wrong == 1 ? 100 : (off_t)sizeof *x->s) || fchmod(fd, wrong == 2 ? 0644 : 0600))
        abort();
    close(fd);
    if (wrong == 1 || wrong == 2) {
        int rc = lg_ring_open(ring_file, ring_chain, &x);
        if (rc != (wrong == 2 ? -EPERM : 0))
            abort();
        if (!rc)
            lg_ring_close(x, true);
        return;
    }
    if (lg_ring_open(ring_file, ring_chain, &x)) /* makes it */
        abort();
    if (!lg_ring_empty(x) || lg_groups_used(x))
        abort();
    uint64_t more = any(&r), tail = any(&r), to = any(&r), seq = any(&r), n = any(&r);
    x->s->head = x->s->tail = tail;
    for (unsigned i = lg_rd_u8(&r) % 8; i && lg_rd_ok(&r); i--) {
        uint8_t what = lg_rd_u8(&r), b[260] = { 0 };
        size_t m = lg_rd_u8(&r);
        m = m < r.left ? m : r.left;
        const uint8_t *p = m ? lg_rd_bytes(&r, m) : d;
        if (what % 3 == 0) {
            lg_audit_record_init(&rec);
            strcpy(rec.event, "file.open");
            memcpy(&rec.outcome, p, m < offsetof(struct lg_audit_record, user) - offsetof(struct lg_audit_record, outcome) ? m : offsetof(struct lg_audit_record, user) - offsetof(struct lg_audit_record, outcome));
            memcpy(rec.text, p, m);
            rec.text[m] = 0;
            if (!lg_ring_push(x, &rec))
                abort();
            continue;
        }
        struct lg_wr w = lg_wr(b, 4);
        if (what % 3 == 1)
            lg_wr_u32(&w, (uint32_t)m + 4);
        memcpy(b + w.len, p, m);
        copy_in(x, x->s->head, b, w.len + m);
        x->s->head += w.len + m;
    }
    uint64_t end = x->s->head;
    x->s->head += more;
    lg_ring_intend(x, to, seq, n);
    while (lg_rd_ok(&r) && r.left >= 2) {
        unsigned which = lg_rd_u8(&r) * 9u % LG_GROUPS;
        size_t m = lg_rd_u8(&r);
        m = m < r.left ? m : r.left;
        memset(&x->s->group[which], 0, sizeof x->s->group[which]);
        if (m)
            memcpy(&x->s->group[which], lg_rd_bytes(&r, m), m);
        x->s->n_groups += wrong & 16 ? 77 : 1;
    }
    if (wrong & 4)
        x->s->group_size ^= 1;
    if (wrong & 8)
        x->s->chain[3] ^= 1;
    bool good = !(wrong & 12) && x->s->head >= x->s->tail && x->s->head - x->s->tail <= LG_RING_BYTES && x->s->head <= LG_RING_HEAD_MAX;
    lg_ring_close(x, false);
    if (lg_ring_open(ring_file, ring_chain, &x))
        abort();
    if (!good && (!lg_ring_empty(x) || lg_groups_used(x) || lg_ring_tail(x)))
        abort(); /* another's is nobody's */
    uint64_t lost, left = lg_ring_recover(x, 5, &lost), at = lg_ring_tail(x), found = 0;
    while (lg_ring_at(x, &at, &rec)) {
        found++;
        written(&rec);
    }
    if (at != lg_ring_head(x) || found != left || lg_ring_head(x) - lg_ring_tail(x) > LG_RING_BYTES)
        abort(); /* the writer would wait for the rest */
    wipe(x, tail, end);
    lg_ring_done(x, at);
    if (!lg_ring_empty(x) || lg_ring_free(x) != LG_RING_BYTES)
        abort();
    for (unsigned i = 0; i < LG_GROUPS && lg_groups_used(x); i++) {
        struct lg_group *g = lg_group_nth(x, i);
        if (!g)
            continue;
        lg_group_record(g, &rec);
        written(&rec);
        if (!lg_ring_push(x, &rec))
            abort();
        lg_group_free(x, g);
        struct lg_group *again = lg_group_find(x, &rec), *made = again ? NULL : lg_group_make(x, &rec);
        if (made && lg_group_find(x, &rec) != made)
            abort();
        if (made)
            lg_group_free(x, made);
    }
    if (lg_groups_used(x))
        abort();
    for (at = lg_ring_tail(x); lg_ring_at(x, &at, &rec);)
        terminated(&rec);
    if (at != lg_ring_head(x))
        abort();
    wipe(x, lg_ring_tail(x), at);
    lg_ring_done(x, at);
    lg_ring_close(x, false);
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
    if (!ready) {
        chain_make();
        fuzz_dir("lgring", ring_dir, sizeof ring_dir);
        snprintf(ring_file, sizeof ring_file, "%s/ring", ring_dir);
        atexit(ring_gone);
    }
    ready = true;
    if (!len)
        return 0;
    const char *s = (const char *)data + 1;
    len--;
    if (*data >= 0xf4) {
        ring((const uint8_t *)s, len);
    } else if (*data % 4 == 3) {
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
