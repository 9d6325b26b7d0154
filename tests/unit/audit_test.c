/* Records, chain, heads and verdicts, in memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "leadglass/audit.h"

enum { N = 40, EVERY = 10 };

static struct lg_secret *seed;
static uint8_t pub[LG_SIGN_PUB_LEN];
static const uint8_t chain_a[LG_ID_LEN] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, chain_b[LG_ID_LEN] = { 9, 9, 9 };

/* ---- records ------------------------------------------------------------------------------------------------------------------ */

static struct lg_audit_record record(uint64_t seq, const uint8_t chain[LG_ID_LEN])
{
    struct lg_audit_record r;
    lg_audit_record_init(&r);
    r.seq = seq;
    r.time_us = 1764019805123456 + (int64_t)seq;
    memcpy(r.chain, chain, sizeof r.chain);
    snprintf(r.event, sizeof r.event, "file.open");
    snprintf(r.how, sizeof r.how, "read");
    r.has = LG_AUDIT_WHO;
    r.uid = 1000;
    r.pid = 77;
    return r;
}

static void same(const struct lg_audit_record *a, const struct lg_audit_record *b)
{
    assert_memory_equal(a, b, offsetof(struct lg_audit_record, user));
    assert_string_equal(a->user, b->user);
    assert_string_equal(a->host, b->host);
    assert_string_equal(a->exe, b->exe);
    assert_string_equal(a->text, b->text);
    assert_string_equal(a->path, b->path);
    assert_string_equal(a->target, b->target);
}

static void round_trip(struct lg_audit_record *r)
{
    static char line[LG_AUDIT_LINE_MAX];
    static struct lg_audit_record back;
    struct lg_audit_envelope e;
    uint8_t prev[LG_MAC_LEN] = { 1 };
    size_t len;
    assert_int_equal(lg_audit_record_encode(r, prev, line, sizeof line, &len), 0);
    for (size_t i = 0; i < len; i++)
        assert_true((unsigned char)line[i] >= 0x20 && line[i] != 0x7f);
    assert_int_equal(lg_audit_record_parse(line, len, &back), 0);
    same(r, &back);
    assert_int_equal(lg_audit_envelope(line, len, &e), 0);
    assert_int_equal(e.seq, r->seq);
    assert_memory_equal(e.hash, r->hash, LG_MAC_LEN);
}

static void records(void **state)
{
    (void)state;
    static struct lg_audit_record r;
    r = record(1, chain_a);
    round_trip(&r);
    r.has = LG_AUDIT_WHO | LG_AUDIT_VAULT | LG_AUDIT_SESSION | LG_AUDIT_STUDY | LG_AUDIT_FILE | LG_AUDIT_COUNT | LG_AUDIT_MOVED | LG_AUDIT_US | LG_AUDIT_RANGE | LG_AUDIT_PREV;
    r.session = UINT64_MAX;
    r.key = UINT32_MAX;
    r.count = 3;
    r.until_us = r.time_us + 5;
    r.outcome = -EKEYREVOKED;
    memset(r.study, 0xab, LG_ID_LEN);
    snprintf(r.user, sizeof r.user, "orthanc");
    round_trip(&r);
    /* every octet, alone and within text */
    for (unsigned c = 1; c < 256; c++) {
        snprintf(r.path, sizeof r.path, "a%cb", (char)c);
        snprintf(r.target, sizeof r.target, "%c", (char)c);
        round_trip(&r);
    }
    static const char *const hostile[] = { "\",\"outcome\":\"ok\"}\n{\"v\":1,\"seq\":2", "a\nb\r\n", ("\xe2\x80\xa8\xe2\x80\xae" "evil"), "\xee\xbe\x80", "\xf4\x90\x80\x80", "\xed\xa0\x80", "\xc3\xa4\xc3\x28", "\\u0000", "\xff\xfe" };
    for (size_t i = 0; i < sizeof hostile / sizeof *hostile; i++) {
        snprintf(r.path, sizeof r.path, "%s", hostile[i]);
        snprintf(r.text, sizeof r.text, "%s", hostile[i]);
        round_trip(&r);
    }
    memset(r.path, 0x01, LG_AUDIT_PATH_MAX); /* as long as can be */
    memset(r.target, 0xff, LG_AUDIT_PATH_MAX);
    memset(r.text, 0x80, LG_AUDIT_TEXT_MAX);
    memset(r.exe, 0x7f, LG_AUDIT_EXE_MAX);
    memset(r.user, 2, LG_AUDIT_NAME_MAX);
    memset(r.host, 2, LG_AUDIT_NAME_MAX);
    round_trip(&r);
    snprintf(r.event, sizeof r.event, "a\"b");
    char line[256];
    size_t len;
    uint8_t prev[LG_MAC_LEN] = { 0 };
    assert_int_equal(lg_audit_record_encode(&r, prev, line, sizeof line, &len), -EINVAL);
    r = record(1, chain_a);
    assert_int_equal(lg_audit_record_encode(&r, prev, line, 100, &len), -ENOSPC);
}

static void times(void **state)
{
    (void)state;
    static const struct {
        int64_t us;
        const char *text;
    } t[] = { { 0, "1970-01-01T00:00:00.000000Z" }, { 951782400000001, "2000-02-29T00:00:00.000001Z" }, { 253402300799999999, "9999-12-31T23:59:59.999999Z" }, { 1764019805123456, "2025-11-24T21:30:05.123456Z" } };
    char out[LG_AUDIT_TIME_LEN + 1];
    int64_t us;
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        lg_audit_time_text(t[i].us, out);
        assert_string_equal(out, t[i].text);
        assert_int_equal(lg_audit_time_parse(out, LG_AUDIT_TIME_LEN, &us), 0);
        assert_int_equal(us, t[i].us);
    }
    assert_int_equal(lg_audit_time_parse("2001-02-29T00:00:00.000000Z", LG_AUDIT_TIME_LEN, &us), -EPROTO);
    assert_int_equal(lg_audit_time_parse("2001-02-28T24:00:00.000000Z", LG_AUDIT_TIME_LEN, &us), -EPROTO);
}

/* ---- a log -------------------------------------------------------------------------------------------------------------------- */

struct log {
    char *line[2 * N];
    unsigned n;
    struct lg_audit_head head[N];
    unsigned n_heads;
};

static void log_free(struct log *l)
{
    for (unsigned i = 0; i < l->n; i++)
        free(l->line[i]);
    l->n = l->n_heads = 0;
}

static void sign(struct log *l, const uint8_t chain[LG_ID_LEN], uint64_t seq, const uint8_t hash[LG_MAC_LEN])
{
    struct lg_audit_head h = { .n = l->n_heads + 1, .seq = seq, .time_us = 1764019805123456 };
    memcpy(h.chain, chain, LG_ID_LEN);
    memcpy(h.hash, hash, LG_MAC_LEN);
    if (l->n_heads)
        assert_int_equal(lg_audit_head_digest(&l->head[l->n_heads - 1], h.prev), 0);
    assert_int_equal(lg_audit_head_sign(&h, seed), 0);
    l->head[l->n_heads++] = h;
}

/* n records, a head after every tenth; from the record `from` on another pid is written, as somebody would who wrote the log anew. */
static void make(struct log *l, const uint8_t chain[LG_ID_LEN], unsigned n, unsigned from, bool heads)
{
    static char line[LG_AUDIT_LINE_MAX];
    uint8_t prev[LG_MAC_LEN];
    size_t len;
    l->n = l->n_heads = 0;
    lg_audit_genesis(chain, prev);
    for (unsigned i = 1; i <= n; i++) {
        static struct lg_audit_record r;
        r = record(i, chain);
        if (i >= from)
            r.pid = 66;
        assert_int_equal(lg_audit_record_encode(&r, prev, line, sizeof line, &len), 0);
        l->line[l->n++] = strndup(line, len);
        memcpy(prev, r.hash, LG_MAC_LEN);
        if (heads && i % EVERY == 0)
            sign(l, chain, i, r.hash);
    }
}

static struct lg_audit_report verify(const struct log *l, const uint8_t *key, const struct lg_audit_head *against, size_t cut)
{
    struct lg_audit_verifier *v;
    struct lg_audit_report r;
    char text[LG_AUDIT_HEAD_MAX];
    size_t len;
    assert_int_equal(lg_audit_verifier_new(chain_a, key, &v), 0);
    for (unsigned i = 0; i < l->n_heads; i++) {
        assert_int_equal(lg_audit_head_encode(&l->head[i], text, sizeof text, &len), 0);
        assert_int_equal(lg_audit_verifier_head(v, text, len), 0);
    }
    if (against)
        assert_int_equal(lg_audit_verifier_against(v, against), 0);
    for (unsigned i = 0; i < l->n; i++)
        assert_int_equal(lg_audit_verifier_line(v, 1, l->line[i], strlen(l->line[i])), 0);
    lg_audit_verifier_end(v, cut, &r);
    lg_audit_verifier_free(v);
    return r;
}

static void says(const struct log *l, enum lg_audit_verdict what, uint64_t from, uint64_t to)
{
    struct lg_audit_report r = verify(l, pub, NULL, 0);
    if (r.verdict != what || r.problem[0].from != from || r.problem[0].to != to)
        fail_msg("%s %llu-%llu instead of %s %llu-%llu", lg_audit_verdict_name(r.verdict), (unsigned long long)r.problem[0].from, (unsigned long long)r.problem[0].to, lg_audit_verdict_name(what),
                 (unsigned long long)from, (unsigned long long)to);
}

static void intact(void **state)
{
    (void)state;
    struct log l;
    make(&l, chain_a, N + 3, N * 2, true);
    struct lg_audit_report r = verify(&l, pub, NULL, 0);
    assert_int_equal(r.verdict, LG_AUDIT_INTACT);
    assert_int_equal(r.signed_seq, N);
    assert_int_equal(r.tail, 3);
    assert_int_equal(r.heads, N / EVERY);
    r = verify(&l, pub, NULL, 17); /* a line being written */
    assert_int_equal(r.verdict, LG_AUDIT_INTACT);
    assert_true(r.incomplete);
    r = verify(&l, NULL, NULL, 0);
    assert_int_equal(r.verdict, LG_AUDIT_NO_HEADS);
    log_free(&l);
}

static void drop(struct log *l, unsigned i)
{
    free(l->line[i]);
    memmove(&l->line[i], &l->line[i + 1], (--l->n - i) * sizeof *l->line);
}

/* Every record, and every byte of some, in every way. */
static void tampered(void **state)
{
    (void)state;
    struct log l, other;
    for (unsigned i = 0; i < N; i++) { /* record i + 1 */
        make(&l, chain_a, N, N * 2, true);
        drop(&l, i);
        if (i == N - 1)
            says(&l, LG_AUDIT_TRUNCATED, N, N);
        else
            says(&l, LG_AUDIT_MISSING, i + 1, i + 1);
        log_free(&l);
        make(&l, chain_a, N, N * 2, true);
        l.line[l.n++] = strdup(l.line[i]);
        says(&l, LG_AUDIT_DUPLICATE, i + 1, i + 1);
        log_free(&l);
        make(&l, chain_a, N, N * 2, true);
        char *x = l.line[i];
        l.line[i] = l.line[(i + 1) % N];
        l.line[(i + 1) % N] = x;
        if (i < N - 1)
            says(&l, LG_AUDIT_REORDERED, i + 1, i + 1);
        log_free(&l);
        make(&l, chain_a, N, N * 2, true);
        make(&other, chain_b, N, N * 2, true);
        free(l.line[i]);
        l.line[i] = strdup(other.line[i]);
        says(&l, LG_AUDIT_FOREIGN, i + 1, i + 1);
        log_free(&other);
        log_free(&l);
    }
    make(&l, chain_a, N, N * 2, true);
    for (size_t b = 0; b < strlen(l.line[4]); b++) {
        l.line[4][b] ^= 1;
        struct lg_audit_report r = verify(&l, pub, NULL, 0);
        assert_int_not_equal(r.verdict, LG_AUDIT_INTACT);
        assert_true(r.problem[0].from == 5 || r.problem[0].from == 6 || (r.problem[0].from == 4 && r.verdict == LG_AUDIT_DUPLICATE));
        l.line[4][b] ^= 1;
    }
    assert_int_equal(verify(&l, pub, NULL, 0).verdict, LG_AUDIT_INTACT);
    log_free(&l);
}

static void rolled_back(void **state)
{
    (void)state;
    struct log l, evil;
    make(&l, chain_a, N, N * 2, true);
    struct lg_audit_head last = l.head[l.n_heads - 1];
    while (l.n > 15)
        free(l.line[--l.n]);
    says(&l, LG_AUDIT_TRUNCATED, 16, N); /* the log alone */
    l.n_heads = 1;
    says(&l, LG_AUDIT_INTACT, 0, 0); /* with its heads: from within nothing is to be seen */
    struct lg_audit_report r = verify(&l, pub, &last, 0);
    assert_int_equal(r.verdict, LG_AUDIT_TRUNCATED); /* who remembers the later head sees it */
    assert_int_equal(r.problem[0].to, N);
    log_free(&l);
    /* Written anew from record 13 on, every hash made to fit. */
    make(&l, chain_a, N, N * 2, true);
    make(&evil, chain_a, N, 13, false);
    memcpy(evil.head, l.head, sizeof l.head);
    evil.n_heads = l.n_heads;
    says(&evil, LG_AUDIT_FORKED, 11, 20);
    /* and signed with another key than the key manager's */
    LG_SECRET_AUTO stolen = lg_secret_random();
    struct lg_secret *mine = seed;
    seed = stolen;
    log_free(&evil);
    make(&evil, chain_a, N, 13, true);
    seed = mine;
    says(&evil, LG_AUDIT_BAD_HEAD, 4, 4);
    /* two that went on from the same state: one is signed, the other is not the one signed */
    log_free(&evil);
    make(&evil, chain_a, N, 31, false);
    memcpy(evil.head, l.head, sizeof l.head);
    evil.n_heads = 3;
    r = verify(&evil, pub, NULL, 0);
    assert_int_equal(r.verdict, LG_AUDIT_INTACT);
    assert_int_equal(r.signed_seq, 30);
    assert_int_equal(r.tail, 10);
    r = verify(&evil, pub, &l.head[3], 0);
    assert_int_equal(r.verdict, LG_AUDIT_FORKED);
    log_free(&evil);
    log_free(&l);
}

static void heads(void **state)
{
    (void)state;
    struct log l;
    make(&l, chain_a, N, N * 2, true);
    struct lg_audit_head keep = l.head[1], last = l.head[3], back;
    char text[LG_AUDIT_HEAD_MAX];
    size_t len;
    l.head[1].hash[3] ^= 1;
    says(&l, LG_AUDIT_BAD_HEAD, 2, 2);
    l.head[1] = l.head[2];
    l.head[2] = l.head[3];
    l.n_heads = 3;
    says(&l, LG_AUDIT_HEADS_MISSING, 2, 2);
    l.head[1] = keep;
    l.n_heads = 2;
    struct lg_audit_report r = verify(&l, pub, &last, 0);
    assert_int_equal(r.verdict, LG_AUDIT_HEADS_MISSING);
    assert_int_equal(r.problem[0].from, 3);
    assert_int_equal(lg_audit_head_encode(&keep, text, sizeof text, &len), 0);
    assert_int_equal(lg_audit_head_parse(text, len, &back), 0);
    assert_memory_equal(&back, &keep, sizeof keep);
    for (size_t i = 0; i < len; i++) { /* every byte counts */
        text[i] ^= 1;
        assert_true(lg_audit_head_parse(text, len, &back) != 0 || lg_audit_head_check(&back, pub) != 0);
        text[i] ^= 1;
    }
    log_free(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(records), cmocka_unit_test(times), cmocka_unit_test(intact), cmocka_unit_test(tampered), cmocka_unit_test(rolled_back), cmocka_unit_test(heads) };
    if (lg_secret_init(true) || lg_crypto_init() || !(seed = lg_secret_random()) || lg_sign_public(seed, pub))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    lg_secret_free(seed);
    return rc;
}
