/* The records of an access log that a question asks for, with the studies that they are about. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "auditselect.h"
#include "leadglass/bytes.h"

enum { CHAINS_MAX = 256 };

int cli_audit_when(const char *text, bool end, int64_t *ret_us)
{
    static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%d" };
    char *rest;
    unsigned long n = strtoul(text, &rest, 10);
    if (rest != text && (strcmp(rest, "h") == 0 || strcmp(rest, "d") == 0) && n < 100000) { /* ago */
        *ret_us = ((int64_t)time(NULL) - (int64_t)n * (*rest == 'h' ? 3600 : 86400)) * 1000000;
        return 0;
    }
    for (unsigned i = 0; i < 3; i++) {
        struct tm tm = { 0 };
        const char *p = strptime(text, forms[i], &tm);
        if (!p || (*p && strcmp(p, "Z") != 0))
            continue;
        *ret_us = ((int64_t)timegm(&tm) + (end && i == 2 ? 86400 : 0)) * 1000000;
        return 0;
    }
    return -EINVAL;
}

/* ---- studies, by key id (the key manager lists them in that order) --------------------------------------------------------------------- */

static int add_study(void *arg, const struct lg_study *s)
{
    struct cli_audit_selection *x = arg;
    if (x->n_studies == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 1024;
        struct cli_audit_study *more = reallocarray(x->studies, cap, sizeof *more);
        if (!more)
            return -ENOMEM;
        x->studies = more;
        x->cap = cap;
    }
    struct cli_audit_study *t = &x->studies[x->n_studies++];
    memset(t, 0, sizeof *t);
    memcpy(t->kid, s->kid, LG_ID_LEN);
    memcpy(t->uid, s->info.uid, sizeof t->uid);
    memcpy(t->patient, s->info.patient_id, sizeof t->patient);
    t->state = s->state;
    t->held = s->held;
    t->due = s->due;
    return 0;
}

static int by_kid(const void *a, const void *b) { return memcmp(((const struct cli_audit_study *)a)->kid, ((const struct cli_audit_study *)b)->kid, LG_ID_LEN); }

const struct cli_audit_study *cli_audit_study(const struct cli_audit_selection *x, const uint8_t kid[LG_ID_LEN])
{
    struct cli_audit_study want;
    if (!x->n_studies)
        return NULL;
    memcpy(want.kid, kid, LG_ID_LEN);
    return bsearch(&want, x->studies, x->n_studies, sizeof want, by_kid);
}

/* ---- what is asked for ------------------------------------------------------------------------------------------------------------------- */

static bool is_ok(const char *s) { return strcmp(s, "ok") == 0; }

bool cli_audit_wanted(const struct cli *c, const struct cli_audit_selection *x, const struct lg_audit_record *r)
{
    char number[16], kid[2 * LG_ID_LEN + 1];
    const struct cli_audit_study *s = r->has & LG_AUDIT_STUDY ? cli_audit_study(x, r->study) : NULL;
    if (r->time_us < x->from_us || r->time_us >= x->to_us)
        return false;
    snprintf(number, sizeof number, "%u", r->uid);
    if (c->query.user && !(r->has & LG_AUDIT_WHO && (strcmp(c->query.user, r->user) == 0 || strcmp(c->query.user, number) == 0)))
        return false;
    if (c->study) {
        lg_hex_encode(r->study, LG_ID_LEN, kid);
        if (!(r->has & LG_AUDIT_STUDY) || (strcasecmp(c->study, kid) != 0 && (!s || strcmp(c->study, s->uid) != 0)))
            return false;
    }
    if (c->query.patient && (!s || strcmp(c->query.patient, s->patient) != 0))
        return false;
    if (c->query.program && !strstr(r->exe, c->query.program))
        return false;
    if (c->query.event && strncmp(r->event, c->query.event, strlen(c->query.event)) != 0)
        return false;
    if (c->query.outcome && strcmp(c->query.outcome, "failed") == 0)
        return r->outcome != 0;
    return !c->query.outcome || strcmp(c->query.outcome, is_ok(c->query.outcome) ? (r->outcome ? "" : "ok") : lg_audit_outcome_name(r->outcome)) == 0;
}

int cli_audit_selection(const struct cli *c, const char *how, int64_t default_span_s, struct cli_audit_selection *x)
{
    struct lg_client *k = NULL;
    struct lg_audit_info *i = calloc(1, sizeof *i);
    int64_t now = (int64_t)time(NULL) * 1000000;
    int code = i ? CLI_OK : cli_fail(CLI_FAILED, "out of memory"), rc;
    x->from_us = default_span_s ? now - default_span_s * 1000000 : INT64_MIN;
    x->to_us = INT64_MAX;
    if (!code && c->query.from && cli_audit_when(c->query.from, false, &x->from_us))
        code = cli_fail(CLI_USAGE, "--from %s: expected 2026-01-31, 2026-01-31T08:00, 36h or 7d (ago); times are UTC", c->query.from);
    if (!code && c->query.to && cli_audit_when(c->query.to, true, &x->to_us))
        code = cli_fail(CLI_USAGE, "--to %s: expected 2026-01-31, 2026-01-31T08:00, 36h or 7d (ago); times are UTC", c->query.to);
    if (!code && !c->audit.offline && c->socket && lg_client_new(c->socket, &k) == 0 && lg_client_audit_info(k, i) == 0) {
        rc = lg_client_audit_note(k, how); /* reading the log is recorded, naming studies all the more */
        if (rc && rc != -EACCES)
            code = cli_explain(c, rc, "recording that the log is read");
        rc = code ? 0 : lg_client_study_list(k, add_study, x);
        x->resolved = !code && !rc;
        if (!x->resolved && !code)
            fprintf(stderr, "leadglass: studies are not named: %s\n", rc == -ENOKEY ? "the keyring is locked" : strerror(-rc));
        memcpy(x->pub, i->pub, sizeof x->pub);
        x->have_pub = true;
    }
    if (!code)
        snprintf(x->dir, sizeof x->dir, "%s", c->argc ? c->argv[0] : i->dir);
    if (!code && !x->dir[0])
        code = cli_fail(CLI_NO_KEYD, "no key manager answers at %s: say where the log is (leadglass audit %s DIR)", c->socket ? c->socket : "its socket", how);
    if (!code && (c->query.patient || (c->study && strchr(c->study, '.'))) && !x->resolved)
        code = cli_fail(CLI_LOCKED, "studies and patients can be asked for only while the key manager answers and is unlocked (or give the key id as --study)");
    lg_client_free(k);
    free(i);
    return code;
}

void cli_audit_selection_done(struct cli_audit_selection *x)
{
    free(x->studies);
    x->studies = NULL;
}

struct reading {
    struct lg_audit_record *r;
    int (*each)(void *arg, const char *chain, const struct lg_audit_record *r);
    const char *chain;
    void *arg;
    unsigned long long bad;
};

static int line(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    struct reading *x = arg;
    (void)segment;
    if (cut)
        return 0;
    if (lg_audit_record_parse(s, len, x->r)) {
        x->bad++;
        return 0;
    }
    return x->each(x->arg, x->chain, x->r);
}

int cli_audit_each(const struct cli_audit_selection *x, int (*each)(void *arg, const char *chain, const struct lg_audit_record *r), void *arg)
{
    struct lg_audit_chain *all = calloc(CHAINS_MAX, sizeof *all);
    struct reading rd = { .r = calloc(1, sizeof *rd.r), .each = each, .arg = arg };
    unsigned n = 0;
    int rc = all && rd.r ? lg_audit_chains(x->dir, all, CHAINS_MAX, &n) : -ENOMEM;
    int code = rc ? cli_fail(CLI_FAILED, "%s: %s", x->dir, strerror(-rc)) : n ? CLI_OK : cli_fail(CLI_FAILED, "%s: there is no access log in it", x->dir);
    for (unsigned i = 0; !code && i < n && i < CHAINS_MAX; i++) {
        rd.chain = all[i].name;
        rc = lg_audit_read(x->dir, all[i].name, 0, line, &rd);
        if (rc && rc != -ENOENT)
            code = cli_fail(CLI_FAILED, "%s/%s: %s. See leadglass audit verify", x->dir, all[i].name, rc == -EBADMSG ? "a segment is damaged" : strerror(-rc));
    }
    if (rd.bad)
        fprintf(stderr, "leadglass: %llu lines are no records; see leadglass audit verify\n", rd.bad);
    free(all);
    free(rd.r);
    return code;
}
