/* One chain against its heads. Pure: bytes in, verdict out; nothing is kept of a line but its hash. */
#include <stdlib.h>
#include <string.h>

#include "leadglass/audit.h"

struct known {
    struct lg_audit_head h;
    bool good, outside; /* outside: from an anchor or the key manager, not from the log directory */
};

struct lg_audit_verifier {
    uint8_t chain[LG_ID_LEN], pub[LG_SIGN_PUB_LEN];
    bool have_pub, heads_settled;
    struct known *k; /* ascending by seq once settled */
    size_t n_k, cap_k, next_k;
    uint64_t last_n; /* of the heads in the directory */
    struct lg_audit_problem head_problem[LG_AUDIT_PROBLEMS_MAX];
    unsigned n_head_problems;

    uint64_t expected;              /* number of the next record; 0: none seen */
    uint8_t prev[LG_MAC_LEN];       /* hash of the one before */
    bool prev_known;
    bool disturbed;                 /* since the last good head something was found already */
    bool forked;
    uint64_t signed_from;           /* the record after the last good head */
    struct lg_audit_report r;
};

const char *lg_audit_verdict_name(enum lg_audit_verdict v)
{
    static const char *const names[] = { "intact",    "altered", "missing",  "duplicate",     "reordered", "foreign",
                                         "truncated", "forked",  "bad-head", "heads-missing", "no-heads",  "unreadable" };
    return (unsigned)v < sizeof names / sizeof *names ? names[v] : "unknown";
}

int lg_audit_verifier_new(const uint8_t chain_id[LG_ID_LEN], const uint8_t *pub, struct lg_audit_verifier **ret)
{
    struct lg_audit_verifier *v = calloc(1, sizeof *v);
    if (!v)
        return -ENOMEM;
    memcpy(v->chain, chain_id, LG_ID_LEN);
    memcpy(v->r.chain, chain_id, LG_ID_LEN);
    if (pub) {
        memcpy(v->pub, pub, LG_SIGN_PUB_LEN);
        v->have_pub = true;
    }
    *ret = v;
    return 0;
}

void lg_audit_verifier_free(struct lg_audit_verifier *v)
{
    if (v)
        free(v->k);
    free(v);
}

static void found(struct lg_audit_report *r, enum lg_audit_verdict what, uint64_t from, uint64_t to, unsigned segment)
{
    if (r->n_problems < LG_AUDIT_PROBLEMS_MAX)
        r->problem[r->n_problems] = (struct lg_audit_problem){ what, from, to, segment };
    r->n_problems++;
}

static void problem(struct lg_audit_verifier *v, enum lg_audit_verdict what, uint64_t from, uint64_t to, unsigned segment)
{
    found(&v->r, what, from, to, segment);
    v->disturbed = true;
}

static void head_problem(struct lg_audit_verifier *v, enum lg_audit_verdict what, uint64_t from, uint64_t to)
{
    if (v->n_head_problems < LG_AUDIT_PROBLEMS_MAX)
        v->head_problem[v->n_head_problems] = (struct lg_audit_problem){ what, from, to, 0 };
    v->n_head_problems++;
}

/* ---- heads ---------------------------------------------------------------------------------------------------------------- */

static int add(struct lg_audit_verifier *v, const struct lg_audit_head *h, bool outside)
{
    if (v->n_k == v->cap_k) {
        size_t cap = v->cap_k ? 2 * v->cap_k : 64;
        struct known *k = reallocarray(v->k, cap, sizeof *k);
        if (!k)
            return -ENOMEM;
        v->k = k;
        v->cap_k = cap;
    }
    v->k[v->n_k++] = (struct known){ *h, false, outside };
    return 0;
}

int lg_audit_verifier_head(struct lg_audit_verifier *v, const char *untrusted, size_t len)
{
    struct lg_audit_head h;
    if (!v->have_pub)
        return 0;
    if (lg_audit_head_parse(untrusted, len, &h) || memcmp(h.chain, v->chain, LG_ID_LEN) != 0 || h.n <= v->last_n) {
        head_problem(v, LG_AUDIT_BAD_HEAD, v->last_n + 1, v->last_n + 1);
        return 0;
    }
    if (v->last_n && h.n > v->last_n + 1)
        head_problem(v, LG_AUDIT_HEADS_MISSING, v->last_n + 1, h.n - 1);
    v->last_n = h.n;
    return add(v, &h, false);
}

int lg_audit_verifier_against(struct lg_audit_verifier *v, const struct lg_audit_head *h)
{
    if (!v->have_pub || memcmp(h->chain, v->chain, LG_ID_LEN) != 0)
        return 0;
    return add(v, h, true);
}

static int by_seq(const void *a, const void *b)
{
    const struct known *x = a, *y = b;
    return x->h.seq != y->h.seq ? (x->h.seq < y->h.seq ? -1 : 1) : (x->h.n > y->h.n) - (x->h.n < y->h.n);
}

/* One signature vouches for every head that leads up to it by digests; where that leads nowhere, a head needs its own. */
static void heads_settle(struct lg_audit_verifier *v)
{
    uint8_t digest[LG_MAC_LEN];
    const struct lg_audit_head *after = NULL; /* a good one, of the directory */
    uint64_t newest_outside = 0;
    v->heads_settled = true;
    for (size_t i = v->n_k; i-- > 0;) {
        struct known *k = &v->k[i];
        bool next = after && !k->outside && after->n == k->h.n + 1;
        bool linked = next && lg_audit_head_digest(&k->h, digest) == 0 && memcmp(digest, after->prev, LG_MAC_LEN) == 0;
        k->good = linked || (!next && lg_audit_head_check(&k->h, v->pub) == 0);
        if (!k->good)
            head_problem(v, LG_AUDIT_BAD_HEAD, k->h.n, k->h.n);
        else if (k->outside)
            newest_outside = k->h.n > newest_outside ? k->h.n : newest_outside;
        else
            after = &k->h;
    }
    /* The newest may have been signed a moment ago and not be stored yet. */
    if (newest_outside > v->last_n + 1)
        head_problem(v, LG_AUDIT_HEADS_MISSING, v->last_n + 1, newest_outside - 1);
    size_t n = 0;
    for (size_t i = 0; i < v->n_k; i++)
        if (v->k[i].good)
            v->k[n++] = v->k[i];
    v->n_k = n;
    if (n)
        qsort(v->k, n, sizeof *v->k, by_seq);
    v->r.heads = n;
}

/* Record seq, which stands in its place, has this hash. */
static void heads_check(struct lg_audit_verifier *v, uint64_t seq, const uint8_t hash[LG_MAC_LEN], unsigned segment)
{
    for (; v->next_k < v->n_k && v->k[v->next_k].h.seq <= seq; v->next_k++) {
        const struct lg_audit_head *h = &v->k[v->next_k].h;
        if (h->seq < seq)
            continue; /* of a record that is not there */
        if (memcmp(h->hash, hash, LG_MAC_LEN) == 0) {
            if (!v->forked) {
                v->r.signed_seq = seq;
                v->r.signed_us = h->time_us;
            }
            v->signed_from = seq + 1;
            v->disturbed = false;
        } else {
            if (!v->disturbed && !v->forked)
                problem(v, LG_AUDIT_FORKED, v->signed_from ? v->signed_from : v->r.first, seq, segment);
            v->forked = true;
        }
    }
}

/* ---- lines ---------------------------------------------------------------------------------------------------------------- */

/* A line out of its turn: was it thought missing? */
static bool was_missing(struct lg_audit_verifier *v, uint64_t seq)
{
    struct lg_audit_report *r = &v->r;
    for (unsigned i = 0; i < r->n_problems && i < LG_AUDIT_PROBLEMS_MAX; i++) {
        struct lg_audit_problem *p = &r->problem[i];
        if ((p->what == LG_AUDIT_MISSING || p->what == LG_AUDIT_REORDERED) && seq >= p->from && seq <= p->to) {
            p->what = LG_AUDIT_REORDERED;
            return true;
        }
    }
    return false;
}

static void begin(struct lg_audit_verifier *v, const struct lg_audit_envelope *e, const char *line, size_t len)
{
    struct lg_audit_record *rec;
    v->expected = v->r.first = e->seq;
    if (e->seq == 1) {
        lg_audit_genesis(v->chain, v->prev);
        v->prev_known = true;
        return;
    }
    v->prev_known = false;
    rec = malloc(sizeof *rec);
    if (rec && lg_audit_record_parse(line, len, rec) == 0 && rec->has & LG_AUDIT_PREV) { /* a segment tells what it follows */
        memcpy(v->prev, rec->prev, LG_MAC_LEN);
        v->prev_known = true;
    }
    free(rec);
}

static void pruned(struct lg_audit_verifier *v, const char *line, size_t len)
{
    struct lg_audit_record *rec = malloc(sizeof *rec);
    if (rec && lg_audit_record_parse(line, len, rec) == 0 && rec->to > v->r.pruned)
        v->r.pruned = rec->to;
    free(rec);
}

int lg_audit_verifier_line(struct lg_audit_verifier *v, unsigned segment, const char *untrusted, size_t len)
{
    struct lg_audit_envelope e;
    uint8_t hash[LG_MAC_LEN];
    static const char pruned_event[] = "log.pruned", clock_event[] = "log.clock";
    if (!v->heads_settled)
        heads_settle(v);
    v->r.records++;
    if (lg_audit_envelope(untrusted, len, &e)) {
        problem(v, LG_AUDIT_ALTERED, v->expected ? v->expected : 1, v->expected ? v->expected : 1, segment);
        v->prev_known = false;
        if (v->expected)
            v->expected++;
        return 0;
    }
    if (memcmp(e.chain, v->chain, sizeof e.chain) != 0) {
        problem(v, LG_AUDIT_FOREIGN, v->expected ? v->expected : e.seq, v->expected ? v->expected : e.seq, segment);
        return 0;
    }
    if (!v->expected)
        begin(v, &e, untrusted, len);
    if (e.seq < v->expected) {
        if (e.seq < v->r.first) { /* the first ones */
            problem(v, LG_AUDIT_REORDERED, e.seq, v->r.first - 1, segment);
            v->r.first = e.seq;
        } else if (!was_missing(v, e.seq)) {
            problem(v, LG_AUDIT_DUPLICATE, e.seq, e.seq, segment);
        }
        return 0;
    }
    if (e.seq > v->expected) {
        problem(v, LG_AUDIT_MISSING, v->expected, e.seq - 1, segment);
        v->prev_known = false;
    }
    if (v->prev_known) {
        int rc = lg_audit_link(v->prev, untrusted, e.body_len, hash);
        if (rc)
            return rc;
        if (memcmp(hash, e.hash, LG_MAC_LEN) != 0)
            problem(v, LG_AUDIT_ALTERED, e.seq, e.seq, segment);
    }
    heads_check(v, e.seq, e.hash, segment);
    if (e.event_len == sizeof pruned_event - 1 && memcmp(e.event, pruned_event, e.event_len) == 0)
        pruned(v, untrusted, len);
    v->r.clock_back += e.event_len == sizeof clock_event - 1 && memcmp(e.event, clock_event, e.event_len) == 0;
    if (e.seq == v->r.signed_seq + 1)
        v->r.tail_us = e.time_us;
    memcpy(v->prev, e.hash, LG_MAC_LEN);
    v->prev_known = true;
    v->r.last = e.seq;
    v->expected = e.seq + 1;
    return 0;
}

void lg_audit_verifier_unreadable(struct lg_audit_verifier *v, unsigned segment)
{
    problem(v, LG_AUDIT_UNREADABLE, v->expected, v->expected, segment);
}

static int by_place(const void *a, const void *b)
{
    const struct lg_audit_problem *x = a, *y = b;
    return (x->from > y->from) - (x->from < y->from);
}

void lg_audit_verifier_end(struct lg_audit_verifier *v, size_t rest, struct lg_audit_report *ret)
{
    if (!v->heads_settled)
        heads_settle(v);
    struct lg_audit_report r = v->r;
    uint64_t newest = v->n_k ? v->k[v->n_k - 1].h.seq : 0;
    r.incomplete = rest != 0;
    if (newest > r.last)
        found(&r, LG_AUDIT_TRUNCATED, r.last + 1, newest, 0);
    if (r.first > 1 && r.pruned < r.first - 1)
        found(&r, LG_AUDIT_MISSING, 1, r.first - 1, 0);
    if (r.n_problems > 1 && r.n_problems <= LG_AUDIT_PROBLEMS_MAX)
        qsort(r.problem, r.n_problems, sizeof *r.problem, by_place);
    r.tail = r.first && r.last > r.signed_seq ? r.last - (r.signed_seq ? r.signed_seq : r.first - 1) : 0;
    for (unsigned i = 0; i < v->n_head_problems; i++)
        if (i < LG_AUDIT_PROBLEMS_MAX)
            found(&r, v->head_problem[i].what, v->head_problem[i].from, v->head_problem[i].to, 0);
        else
            r.n_problems++;
    r.verdict = r.n_problems ? r.problem[0].what : r.heads || !r.records ? LG_AUDIT_INTACT : LG_AUDIT_NO_HEADS;
    *ret = r;
}
