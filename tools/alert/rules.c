/* The rules: which records count, whom they are about, when it is too many, and what is held back. */
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "window.h"

enum { HELD = 512, UNSIGNED = 256 };

/* What was told of a rule and subject, for the length of its cool-down. */
struct told {
    bool used;
    int64_t until_us;
    uint64_t held;
    struct lg_alert last; /* told, or held back last */
};

/* A chain with records that no head signs. */
struct unsigned_chain {
    char chain[64];
    uint64_t signed_seq;
    int64_t since_us; /* 0: none */
    bool told;
};

struct lg_alerts {
    const struct lg_alert_config *c;
    void (*raise)(void *arg, const struct lg_alert *a);
    void *arg;
    struct lg_counts counts;
    struct lg_pairs *pairs;
    struct told told[HELD];
    unsigned n_told; /* the array is filled from its start */
    int64_t due_us;  /* when the first cool-down with something held back ends; INT64_MAX: none */
    int64_t minute; /* for which off_hours holds; -1: none */
    bool off_hours;
    int64_t heard_us; /* of the last record, or when listening began; 0: not yet */
    bool silent;      /* that it is, was told */
    struct unsigned_chain chain[UNSIGNED];
    unsigned n_chains;
};

int lg_alerts_new(const struct lg_alert_config *c, void (*raise)(void *arg, const struct lg_alert *a), void *arg, struct lg_alerts **ret)
{
    struct lg_alerts *x = calloc(1, sizeof *x);
    if (!x)
        return -ENOMEM;
    *x = (struct lg_alerts){ .c = c, .raise = raise, .arg = arg, .due_us = INT64_MAX, .minute = -1 };
    x->counts.c = calloc(LG_COUNTS, sizeof *x->counts.c);
    int rc = x->counts.c ? lg_pairs_new(&x->pairs) : -ENOMEM;
    if (rc) {
        lg_alerts_free(x);
        return rc;
    }
    *ret = x;
    return 0;
}

void lg_alerts_free(struct lg_alerts *x)
{
    if (!x)
        return;
    lg_pairs_free(x->pairs);
    free(x->counts.c);
    free(x);
}

void lg_alerts_config(struct lg_alerts *x, const struct lg_alert_config *c)
{
    x->c = c;
    x->minute = -1;
}

void lg_alert_clean(const char *s, char *out, size_t cap)
{
    size_t n = 0;
    for (; *s && n + 1 < cap; s++)
        out[n++] = *s >= 32 && *s < 127 ? *s : '?';
    out[n] = 0;
}

/* ---- telling, and holding back ------------------------------------------------------------------------------------------------------------------ */

static void due_again(struct lg_alerts *x)
{
    x->due_us = INT64_MAX;
    for (unsigned i = 0; i < x->n_told; i++)
        if (x->told[i].held && x->told[i].until_us < x->due_us)
            x->due_us = x->told[i].until_us;
}

/* The cool-down of one with something held back is over: told with its count, and another begins. */
static void tell_held(struct lg_alerts *x, struct told *t, int64_t now_us)
{
    struct lg_alert a = t->last;
    a.held = t->held;
    t->held = 0;
    t->until_us = now_us + (int64_t)x->c->rule[a.rule].cooldown_s * 1000000;
    size_t n = strlen(a.id);
    snprintf(a.id + n, sizeof a.id - n, "-x%llu", (unsigned long long)a.held);
    x->raise(x->arg, &a);
}

static void span(unsigned s, char out[32])
{
    if (s % 86400 == 0)
        snprintf(out, 32, "%u d", s / 86400);
    else if (s % 3600 == 0)
        snprintf(out, 32, "%u h", s / 3600);
    else if (s % 60 == 0)
        snprintf(out, 32, "%u min", s / 60);
    else
        snprintf(out, 32, "%u s", s);
}

static void silence(struct lg_alerts *x, int64_t now_us)
{
    const struct lg_alert_setting *s = &x->c->rule[LG_ALERT_LOG_SILENT];
    char text[160], span_text[32], when[LG_AUDIT_TIME_LEN + 1];
    if (!s->on || x->silent || !x->heard_us || now_us - x->heard_us < (int64_t)s->window_s * 1000000)
        return;
    x->silent = true;
    span(s->window_s, span_text);
    lg_audit_time_text(x->heard_us, when);
    snprintf(text, sizeof text, "nothing at all was recorded for %s, since %.19sZ: is anything mounted, and is this the log that is written?", span_text, when);
    lg_alerts_own(x, LG_ALERT_LOG_SILENT, "the access log", text, now_us);
}

void lg_alerts_begin(struct lg_alerts *x, int64_t now_us)
{
    if (!x->heard_us)
        x->heard_us = now_us;
}

void lg_alerts_tick(struct lg_alerts *x, int64_t now_us)
{
    silence(x, now_us);
    if (now_us < x->due_us)
        return;
    for (unsigned i = 0; i < x->n_told; i++)
        if (x->told[i].held && x->told[i].until_us <= now_us)
            tell_held(x, &x->told[i], now_us);
    due_again(x);
}

static struct told *told_of(struct lg_alerts *x, const struct lg_alert *a)
{
    struct told *old = NULL;
    for (unsigned i = 0; i < x->n_told; i++) {
        struct told *t = &x->told[i];
        if (t->last.rule == a->rule && strcmp(t->last.subject, a->subject) == 0)
            return t;
        if (!old || t->until_us < old->until_us)
            old = t;
    }
    if (x->n_told < HELD)
        return &x->told[x->n_told++];
    if (old->held) /* nothing is dropped: earlier than its time */
        tell_held(x, old, a->time_us);
    *old = (struct told){ .used = false };
    return old;
}

static void tell(struct lg_alerts *x, struct lg_alert *a)
{
    int64_t cool_us = (int64_t)x->c->rule[a->rule].cooldown_s * 1000000;
    struct told *t = told_of(x, a);
    /* A clock that went back further than a cool-down does not silence anybody. */
    if (t->used && a->time_us < t->until_us && a->time_us >= t->until_us - 2 * cool_us) {
        t->held++;
        t->last = *a;
        if (t->until_us < x->due_us)
            x->due_us = t->until_us;
        return;
    }
    a->held = t->used ? t->held : 0;
    *t = (struct told){ .used = true, .until_us = a->time_us + cool_us, .last = *a };
    x->raise(x->arg, a);
    due_again(x);
}

/* ---- what counts ---------------------------------------------------------------------------------------------------------------------------------- */

static bool exempt(const struct lg_alert_setting *s, const struct lg_audit_record *r)
{
    char number[16] = "";
    if (s->users.n)
        snprintf(number, sizeof number, "%u", r->uid);
    for (unsigned i = 0; i < s->users.n; i++)
        if (strcmp(s->users.s[i], r->user) == 0 || strcmp(s->users.s[i], number) == 0)
            return true;
    for (unsigned i = 0; r->exe[0] && i < s->programs.n; i++)
        if (fnmatch(s->programs.s[i], r->exe, 0) == 0)
            return true;
    return false;
}

static bool off_hours(struct lg_alerts *x, int64_t time_us)
{
    struct tm tm;
    time_t t = (time_t)(time_us / 1000000);
    if (time_us / 60000000 == x->minute)
        return x->off_hours;
    if (!(x->c->utc ? gmtime_r(&t, &tm) : localtime_r(&t, &tm)))
        return false;
    unsigned of_day = (unsigned)(tm.tm_hour * 60 + tm.tm_min);
    x->minute = time_us / 60000000;
    x->off_hours = !(x->c->days >> tm.tm_wday & 1) || of_day < x->c->hours_from || of_day >= x->c->hours_to;
    return x->off_hours;
}

static bool is(const struct lg_audit_record *r, const char *event) { return strcmp(r->event, event) == 0; }

/* Bytes that stood there are changed: what an encrypting intruder does, whichever way he goes about it. */
static bool changes(const struct lg_audit_record *r)
{
    if (r->outcome)
        return false;
    return is(r, "file.unlink") || is(r, "file.rename") || is(r, "file.truncate") || (is(r, "file.open") && strcmp(r->how, "write") == 0);
}

static bool denied(const struct lg_alert_config *c, const struct lg_audit_record *r)
{
    for (unsigned i = 0; r->outcome && i < c->n_outcomes; i++)
        if (c->outcome[i] == r->outcome)
            return true;
    return false;
}

/* A mount that keeps no log, as the key manager tells of it. */
static bool unlogged(const struct lg_audit_record *r) { return is(r, "config") && !r->outcome && strncmp(r->text, "audit=off:", 10) == 0; }

/* Events that do not happen to files, by the rule that they belong to. */
static enum lg_alert_rule rule_of(const struct lg_audit_record *r)
{
    static const struct {
        const char *event;
        enum lg_alert_rule rule;
    } events[] = { { "file.tampered", LG_ALERT_TAMPERING },   { "log.failed", LG_ALERT_LOG_FAILED }, { "log.space", LG_ALERT_LOG_SPACE },
                   { "log.broken", LG_ALERT_LOG_BROKEN },     { "log.fork", LG_ALERT_LOG_BROKEN },   { "log.clock", LG_ALERT_LOG_CLOCK },         { "keyring.clock-frozen", LG_ALERT_LOG_CLOCK },
                   { "mirror.degraded", LG_ALERT_MIRROR },    { "keyring.rolled-back", LG_ALERT_ROLLBACK },    { "study.returned", LG_ALERT_RETURNED_STUDY }, { "scrub.found", LG_ALERT_SCRUB } };
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        if (is(r, events[i].event))
            return events[i].rule;
    if (is(r, "unlock") && (r->outcome == -EKEYREJECTED || r->outcome == -EAGAIN))
        return LG_ALERT_UNLOCK_FAILED;
    if (unlogged(r))
        return LG_ALERT_LOG_FAILED;
    if ((is(r, "file.open") || is(r, "file.lookup")) && r->outcome == -EKEYREVOKED)
        return LG_ALERT_REVOKED_STUDY;
    return LG_ALERT_RULES;
}

/* ---- an alert -------------------------------------------------------------------------------------------------------------------------------------- */

static void describe(struct lg_alert *a, const struct lg_audit_record *r)
{
    char window[32], detail[240] = "";
    const char *what = lg_alert_rule_info(a->rule)->what;
    unsigned long long n = a->count;
    span(a->window_s, window);
    if (a->rule != LG_ALERT_REVOKED_STUDY && a->rule != LG_ALERT_RETURNED_STUDY) /* of the others the log's own words; never a reason that a person gave */
        lg_alert_clean(r->text, detail, sizeof detail);
    switch (a->rule) {
    case LG_ALERT_OFF_HOURS: snprintf(a->text, sizeof a->text, "%s opened files outside working hours: %llu within %s", a->subject, n, window); break;
    case LG_ALERT_MANY_STUDIES: snprintf(a->text, sizeof a->text, "%s opened %llu different studies within %s", a->subject, n, window); break;
    case LG_ALERT_MASS_CHANGE: snprintf(a->text, sizeof a->text, "%s overwrote, renamed or removed files %llu times within %s", a->subject, n, window); break;
    case LG_ALERT_DENIALS: snprintf(a->text, sizeof a->text, "%s was refused %llu times within %s, last with %s", a->subject, n, window, lg_audit_outcome_name(a->outcome)); break;
    case LG_ALERT_UNLOCK_FAILED: snprintf(a->text, sizeof a->text, "%llu failed unlocks within %s", n, window); break;
    default: snprintf(a->text, sizeof a->text, "%s%s%s", unlogged(r) ? "access goes on without a record" : what, detail[0] ? ": " : "", detail); break;
    }
}

static void who(struct lg_alert *a, const struct lg_audit_record *r)
{
    if (!(r->has & LG_AUDIT_WHO))
        return;
    a->has_user = true;
    a->uid = r->uid;
    lg_alert_clean(r->user, a->user, sizeof a->user);
    lg_alert_clean(r->exe, a->exe, sizeof a->exe);
}

static void raise_from(struct lg_alerts *x, enum lg_alert_rule rule, const char *subject, const char *chain, const struct lg_audit_record *r, uint64_t count)
{
    char id[17];
    struct lg_alert a = { .rule = rule, .grade = x->c->rule[rule].grade, .time_us = r->time_us, .seq = r->seq, .outcome = r->outcome, .count = count, .window_s = x->c->rule[rule].window_s };
    snprintf(a.subject, sizeof a.subject, "%s", subject);
    lg_hex_encode(r->chain, sizeof r->chain, id);
    snprintf(a.id, sizeof a.id, "%s-%s-%llu", lg_alert_rule_info(rule)->name, id, (unsigned long long)r->seq);
    lg_alert_clean(chain, a.chain, sizeof a.chain);
    memcpy(a.event, r->event, sizeof a.event);
    who(&a, r);
    if (r->has & LG_AUDIT_STUDY) {
        a.has_study = true;
        memcpy(a.study, r->study, LG_ID_LEN);
    }
    describe(&a, r);
    tell(x, &a);
}

/* ---- counting ---------------------------------------------------------------------------------------------------------------------------------------- */

static void count(struct lg_alerts *x, enum lg_alert_rule rule, const char *subject, const char *chain, const struct lg_audit_record *r)
{
    const struct lg_alert_setting *s = &x->c->rule[rule];
    uint64_t weight = r->has & LG_AUDIT_COUNT && r->count && rule != LG_ALERT_LOG_FAILED ? r->count : 1, n = weight;
    if (s->threshold > 1)
        n = lg_count_add(&x->counts, rule, subject, s->window_s, r->time_us, weight);
    if (n < s->threshold)
        return;
    raise_from(x, rule, subject, chain, r, n);
    if (s->threshold > 1)
        lg_count_clear(&x->counts, rule, subject); /* the next one takes as many again */
}

static void studies(struct lg_alerts *x, const char *subject, const char *chain, const struct lg_audit_record *r)
{
    const struct lg_alert_setting *s = &x->c->rule[LG_ALERT_MANY_STUDIES];
    unsigned n = lg_pairs_add(x->pairs, r->uid, r->study, s->window_s, r->time_us);
    if (n < s->threshold)
        return;
    raise_from(x, LG_ALERT_MANY_STUDIES, subject, chain, r, n);
    lg_pairs_clear(x->pairs, r->uid);
}

static bool asked(const struct lg_alerts *x, enum lg_alert_rule rule, const struct lg_audit_record *r) { return x->c->rule[rule].on && !exempt(&x->c->rule[rule], r); }

static void of_user(struct lg_alerts *x, const char *chain, const struct lg_audit_record *r)
{
    char name[LG_AUDIT_NAME_MAX + 1], subject[LG_ALERT_SUBJECT + 1];
    bool open = is(r, "file.open");
    if (r->outcome ? !denied(x->c, r) : !open && !changes(r))
        return;
    lg_alert_clean(r->user, name, sizeof name);
    if (name[0])
        snprintf(subject, sizeof subject, "user %.50s (%u)", name, r->uid);
    else
        snprintf(subject, sizeof subject, "user %u", r->uid);
    if (r->outcome) {
        if (asked(x, LG_ALERT_DENIALS, r))
            count(x, LG_ALERT_DENIALS, subject, chain, r);
        return;
    }
    if (changes(r) && asked(x, LG_ALERT_MASS_CHANGE, r))
        count(x, LG_ALERT_MASS_CHANGE, subject, chain, r);
    if (open && r->has & LG_AUDIT_STUDY && asked(x, LG_ALERT_MANY_STUDIES, r))
        studies(x, subject, chain, r);
    if (open && x->c->rule[LG_ALERT_OFF_HOURS].on && off_hours(x, r->time_us) && asked(x, LG_ALERT_OFF_HOURS, r))
        count(x, LG_ALERT_OFF_HOURS, subject, chain, r);
}

void lg_alerts_record(struct lg_alerts *x, const char *chain, const struct lg_audit_record *r)
{
    char subject[LG_ALERT_SUBJECT + 1];
    lg_alerts_tick(x, r->time_us);
    x->heard_us = r->has & LG_AUDIT_COUNT && r->until_us > r->time_us ? r->until_us : r->time_us;
    x->silent = false;
    if (r->has & LG_AUDIT_WHO)
        of_user(x, chain, r);
    enum lg_alert_rule rule = rule_of(r);
    if (rule == LG_ALERT_RULES || !x->c->rule[rule].on)
        return;
    lg_alert_clean(chain, subject, sizeof subject);
    count(x, rule, subject, chain, r);
}

void lg_alerts_finding(struct lg_alerts *x, const char *chain, const struct lg_audit_problem *p, int64_t now_us)
{
    const struct lg_alert_setting *s = &x->c->rule[LG_ALERT_LOG_BROKEN];
    unsigned long long from = p->from, to = p->to;
    struct lg_alert a = { .rule = LG_ALERT_LOG_BROKEN, .grade = s->grade, .time_us = now_us, .seq = p->from, .count = 1, .outcome = -EBADMSG };
    if (!s->on)
        return;
    lg_alert_clean(chain, a.chain, sizeof a.chain);
    snprintf(a.subject, sizeof a.subject, "%s", a.chain);
    snprintf(a.id, sizeof a.id, "log-broken-%.40s-%llu", a.chain, from);
    switch (p->what) {
    case LG_AUDIT_MISSING: snprintf(a.text, sizeof a.text, "access log %s: records %llu to %llu are not there (removed, or past their retention before they were read)", a.chain, from, to); break;
    case LG_AUDIT_REORDERED: snprintf(a.text, sizeof a.text, "access log %s: record %llu stands after later ones", a.chain, from); break;
    case LG_AUDIT_FOREIGN: snprintf(a.text, sizeof a.text, "access log %s: in the place of record %llu stands one of another log", a.chain, from); break;
    case LG_AUDIT_TRUNCATED: snprintf(a.text, sizeof a.text, "access log %s: it was cut off before record %llu; %llu had been read", a.chain, from, to); break;
    case LG_AUDIT_UNREADABLE: snprintf(a.text, sizeof a.text, "access log %s: a segment cannot be read, from record %llu on", a.chain, from); break;
    default: snprintf(a.text, sizeof a.text, "access log %s: altered at record %llu: it does not follow from the one before it", a.chain, from); break;
    }
    tell(x, &a);
}

void lg_alerts_own(struct lg_alerts *x, enum lg_alert_rule rule, const char *subject, const char *text, int64_t now_us)
{
    struct lg_alert a = { .rule = rule, .grade = x->c->rule[rule].grade, .time_us = now_us, .count = 1 };
    if (!x->c->rule[rule].on)
        return;
    lg_alert_clean(subject, a.subject, sizeof a.subject);
    lg_alert_clean(text, a.text, sizeof a.text);
    snprintf(a.id, sizeof a.id, "%s-%lld", lg_alert_rule_info(rule)->name, (long long)(now_us / 1000));
    tell(x, &a);
}

static struct unsigned_chain *chain_of(struct lg_alerts *x, const char *name)
{
    for (unsigned i = 0; i < x->n_chains; i++)
        if (strcmp(x->chain[i].chain, name) == 0)
            return &x->chain[i];
    if (x->n_chains == UNSIGNED)
        return NULL;
    struct unsigned_chain *c = &x->chain[x->n_chains++];
    snprintf(c->chain, sizeof c->chain, "%s", name);
    return c;
}

void lg_alerts_signed(struct lg_alerts *x, const char *chain, uint64_t last, int64_t last_us, uint64_t signed_seq, int64_t now_us)
{
    const struct lg_alert_setting *s = &x->c->rule[LG_ALERT_LOG_UNSIGNED];
    char name[64], text[256], span_text[32];
    lg_alert_clean(chain, name, sizeof name);
    struct unsigned_chain *c = chain_of(x, name);
    if (!c)
        return;
    if (last <= signed_seq) {
        c->since_us = 0;
        c->told = false;
    } else if (!c->since_us || c->signed_seq != signed_seq || now_us < c->since_us) { /* each head begins anew: it goes on */
        c->since_us = last_us > 0 && last_us < now_us ? last_us : now_us;
        c->told = false;
    }
    c->signed_seq = signed_seq;
    if (!c->since_us || c->told || !s->on || now_us - c->since_us < (int64_t)s->window_s * 1000000)
        return;
    c->told = true;
    span(s->window_s, span_text);
    snprintf(text, sizeof text, "access log %s: records %llu to %llu are not signed for %s: the keyring is locked, or the daemon that writes it is gone", name,
             (unsigned long long)signed_seq + 1, (unsigned long long)last, span_text);
    lg_alerts_own(x, LG_ALERT_LOG_UNSIGNED, name, text, now_us);
}

/* ---- over a restart ------------------------------------------------------------------------------------------------------------------------------------ */

void lg_alert_encode(const struct lg_alert *a, struct lg_wr *w)
{
    lg_wr_u8(w, (uint8_t)a->rule);
    lg_wr_u8(w, (uint8_t)a->grade);
    lg_wr_str(w, a->id);
    lg_wr_str(w, a->subject);
    lg_wr_u64(w, (uint64_t)a->time_us);
    lg_wr_str(w, a->chain);
    lg_wr_u64(w, a->seq);
    lg_wr_str(w, a->event);
    lg_wr_u32(w, (uint32_t)-a->outcome);
    lg_wr_u8(w, (a->has_user ? 1 : 0) | (a->has_study ? 2 : 0));
    lg_wr_u32(w, a->uid);
    lg_wr_str(w, a->user);
    lg_wr_str(w, a->exe);
    lg_wr_bytes(w, a->study, LG_ID_LEN);
    lg_wr_u64(w, a->count);
    lg_wr_u32(w, a->window_s);
    lg_wr_u64(w, a->held);
    lg_wr_str(w, a->text);
}

void lg_alert_decode(struct lg_rd *r, struct lg_alert *ret)
{
    struct lg_alert *a = ret;
    memset(a, 0, sizeof *a);
    a->rule = lg_rd_u8(r);
    a->grade = lg_rd_u8(r);
    lg_rd_str(r, a->id, LG_ALERT_ID);
    lg_rd_str(r, a->subject, LG_ALERT_SUBJECT);
    a->time_us = (int64_t)lg_rd_u64(r);
    lg_rd_str(r, a->chain, sizeof a->chain - 1);
    a->seq = lg_rd_u64(r);
    lg_rd_str(r, a->event, LG_AUDIT_EVENT_MAX);
    uint32_t outcome = lg_rd_u32(r);
    unsigned has = lg_rd_u8(r);
    a->uid = lg_rd_u32(r);
    lg_rd_str(r, a->user, LG_AUDIT_NAME_MAX);
    lg_rd_str(r, a->exe, LG_AUDIT_EXE_MAX);
    lg_rd_copy(r, a->study, LG_ID_LEN);
    a->count = lg_rd_u64(r);
    a->window_s = lg_rd_u32(r);
    a->held = lg_rd_u64(r);
    lg_rd_str(r, a->text, LG_ALERT_TEXT);
    if (a->rule >= LG_ALERT_RULES || a->grade >= LG_ALERT_GRADES || outcome > 4095 || has > 3 || a->time_us < 0 || a->time_us > INT64_MAX / 32)
        r->bad = true;
    char *told[] = { a->id, a->subject, a->chain, a->event, a->user, a->exe, a->text };
    for (unsigned i = 0; i < sizeof told / sizeof *told; i++)
        lg_alert_clean(told[i], told[i], strlen(told[i]) + 1);
    a->outcome = -(int)(outcome & 4095);
    a->has_user = has & 1;
    a->has_study = has & 2;
}

void lg_alerts_save(const struct lg_alerts *x, struct lg_wr *w)
{
    uint32_t n = 0;
    for (unsigned i = 0; i < LG_COUNTS; i++)
        n += x->counts.c[i].used;
    lg_wr_u32(w, n);
    for (unsigned i = 0; i < LG_COUNTS; i++) {
        const struct lg_count *c = &x->counts.c[i];
        if (!c->used)
            continue;
        lg_wr_u8(w, c->rule);
        lg_wr_str(w, c->subject);
        lg_wr_u32(w, c->window_s);
        lg_wr_u64(w, (uint64_t)c->newest);
        for (unsigned k = 0; k < LG_COUNT_SLOTS; k++)
            lg_wr_u32(w, c->n[k]);
    }
    lg_pairs_save(x->pairs, w);
    lg_wr_u32(w, x->n_told);
    for (unsigned i = 0; i < x->n_told; i++) {
        lg_wr_u64(w, (uint64_t)x->told[i].until_us);
        lg_wr_u64(w, x->told[i].held);
        lg_alert_encode(&x->told[i].last, w);
    }
}

static void load_counts(struct lg_alerts *x, struct lg_rd *r)
{
    uint32_t n = lg_rd_u32(r);
    if (n > LG_COUNTS)
        r->bad = true;
    for (uint32_t i = 0; i < n && lg_rd_ok(r); i++) {
        char subject[LG_ALERT_SUBJECT + 1];
        unsigned rule = lg_rd_u8(r);
        lg_rd_str(r, subject, LG_ALERT_SUBJECT);
        unsigned window_s = lg_rd_u32(r);
        uint64_t newest = lg_rd_u64(r);
        if (rule >= LG_ALERT_RULES || !window_s || window_s > LG_ALERT_WINDOW_MAX_S || newest > INT64_MAX / 32)
            r->bad = true;
        for (unsigned k = 0; k < LG_COUNT_SLOTS; k++) {
            uint32_t v = lg_rd_u32(r);
            if (lg_rd_ok(r))
                lg_count_restore(&x->counts, rule, subject, window_s, (int64_t)newest, k, v);
        }
    }
}

int lg_alerts_load(struct lg_alerts *x, struct lg_rd *r)
{
    load_counts(x, r);
    lg_pairs_load(x->pairs, r);
    uint32_t n = lg_rd_u32(r);
    if (n > HELD)
        r->bad = true;
    for (uint32_t i = 0; i < n && lg_rd_ok(r); i++) {
        struct told *t = &x->told[i];
        t->used = true;
        t->until_us = (int64_t)lg_rd_u64(r);
        t->held = lg_rd_u64(r);
        lg_alert_decode(r, &t->last);
        if (t->until_us < 0 || t->until_us > INT64_MAX / 32)
            r->bad = true;
    }
    if (!lg_rd_ok(r)) {
        memset(x->counts.c, 0, LG_COUNTS * sizeof *x->counts.c);
        lg_pairs_reset(x->pairs);
        memset(x->told, 0, sizeof x->told);
        return -EPROTO;
    }
    x->n_told = n;
    due_again(x);
    return 0;
}

void lg_alerts_save_silence(const struct lg_alerts *x, struct lg_wr *w)
{
    lg_wr_u64(w, (uint64_t)x->heard_us);
    lg_wr_u8(w, x->silent);
}

int lg_alerts_load_silence(struct lg_alerts *x, struct lg_rd *r)
{
    uint64_t heard = lg_rd_u64(r);
    unsigned silent = lg_rd_u8(r);
    if (!lg_rd_ok(r) || heard > INT64_MAX / 32 || silent > 1)
        return -EPROTO;
    x->heard_us = (int64_t)heard;
    x->silent = silent;
    return 0;
}
