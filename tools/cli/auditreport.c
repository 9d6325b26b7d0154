/* leadglass audit report: a period in one page (HTML with its pictures inside), as JSON, or its counts for a spreadsheet. */
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "auditselect.h"
#include "leadglass/bytes.h"

enum { DAYS_MAX = 400, TOP = 15, LIST_MAX = 200, CHAINS_MAX = 256 };

/* A name and how often. */
struct tally {
    char name[LG_AUDIT_EXE_MAX + 1];
    unsigned long long n, failed, off;
};
struct tallies {
    void *tree;
    struct tally **all;
    size_t n, cap;
};
struct event {
    int64_t time_us;
    char event[LG_AUDIT_EVENT_MAX + 1], outcome[24], user[LG_AUDIT_NAME_MAX + 1], study[LG_UID_MAX + 1], text[160];
    unsigned long long count;
};
struct events {
    struct event *e;
    size_t n, cap;
    unsigned long long all;
};
struct report {
    const struct cli *c;
    struct cli_audit_selection x;
    unsigned from_h, to_h; /* working hours, UTC */
    unsigned long long opens, refused, off, day[DAYS_MAX], day_refused[DAYS_MAX], hour[24], read, written;
    int64_t first_day;
    unsigned days;
    struct tallies users, programs;
    struct events denied, keys, integrity;
};

static int by_name(const void *a, const void *b) { return strcmp(((const struct tally *)a)->name, ((const struct tally *)b)->name); }

static struct tally *tally(struct tallies *t, const char *name)
{
    struct tally want, **have;
    snprintf(want.name, sizeof want.name, "%s", name);
    have = tfind(&want, &t->tree, by_name);
    if (have)
        return *have;
    struct tally *new = calloc(1, sizeof *new);
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        struct tally **more = reallocarray(t->all, cap, sizeof(struct tally *));
        if (more) {
            t->all = more;
            t->cap = cap;
        }
    }
    if (!new || t->n == t->cap || (memcpy(new->name, want.name, sizeof new->name), !tsearch(new, &t->tree, by_name))) {
        free(new);
        return NULL;
    }
    return t->all[t->n++] = new;
}

static int most(const void *a, const void *b)
{
    const struct tally *x = *(struct tally *const *)a, *y = *(struct tally *const *)b;
    return x->n < y->n ? 1 : x->n > y->n ? -1 : strcmp(x->name, y->name);
}

static void tallies_free(struct tallies *t)
{
    tdestroy(t->tree, free);
    free(t->all);
}

static int keep(struct report *p, struct events *l, const struct lg_audit_record *r, unsigned long long count)
{
    l->all += count;
    if (l->n == LIST_MAX) { /* the newest are kept; chains come one after the other, so the oldest of all goes */
        size_t oldest = 0;
        for (size_t i = 1; i < l->n; i++)
            if (l->e[i].time_us < l->e[oldest].time_us)
                oldest = i;
        if (l->e[oldest].time_us > r->time_us)
            return 0;
        l->e[oldest] = l->e[--l->n];
    }
    if (l->n == l->cap) {
        size_t cap = l->cap ? l->cap * 2 : 32;
        struct event *more = reallocarray(l->e, cap, sizeof *more);
        if (!more)
            return -ENOMEM;
        l->e = more;
        l->cap = cap;
    }
    struct event *e = &l->e[l->n++];
    memset(e, 0, sizeof *e);
    e->time_us = r->time_us;
    e->count = count;
    memcpy(e->event, r->event, sizeof e->event);
    snprintf(e->outcome, sizeof e->outcome, "%s", lg_audit_outcome_name(r->outcome));
    memcpy(e->user, r->user, sizeof e->user);
    snprintf(e->text, sizeof e->text, "%.159s", r->text);
    if (r->has & LG_AUDIT_STUDY) {
        const struct cli_audit_study *s = cli_audit_study(&p->x, r->study);
        if (s && s->uid[0])
            memcpy(e->study, s->uid, sizeof e->study);
        else
            lg_hex_encode(r->study, LG_ID_LEN, e->study);
    }
    return 0;
}

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

static int open_counted(struct report *p, const struct lg_audit_record *r, unsigned long long n)
{
    struct tm tm;
    time_t t = (time_t)(r->time_us / 1000000);
    int64_t day = r->time_us / 86400000000;
    gmtime_r(&t, &tm);
    bool off = tm.tm_wday == 0 || tm.tm_wday == 6 || (unsigned)tm.tm_hour < p->from_h || (unsigned)tm.tm_hour >= p->to_h;
    char uid[24];
    snprintf(uid, sizeof uid, "uid %u", r->uid); /* one whose name could not be learnt */
    struct tally *u = tally(&p->users, r->user[0] ? r->user : uid), *e = tally(&p->programs, r->exe[0] ? r->exe : "?");
    if (!u || !e)
        return -ENOMEM;
    p->opens += n;
    p->hour[tm.tm_hour] += n;
    if (day >= p->first_day && day - p->first_day < (int64_t)p->days) {
        p->day[day - p->first_day] += n;
        p->day_refused[day - p->first_day] += r->outcome ? n : 0;
    }
    p->off += off ? n : 0;
    p->refused += r->outcome ? n : 0;
    u->n += n;
    e->n += n;
    u->off += off ? n : 0;
    u->failed += r->outcome ? n : 0;
    e->failed += r->outcome ? n : 0;
    return 0;
}

static bool one_of(const char *event, const char *const *list, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        if (strcmp(event, list[i]) == 0)
            return true;
    return false;
}

/* Something was found to be wrong, with a file or with the log. */
static bool trouble(const char *event)
{
    static const char *const what[] = { "file.tampered", "log.failed", "log.space", "log.recovered", "log.broken", "log.fork", "log.clock", "mirror.degraded", "scrub.found", "vault.anchor" };
    return one_of(event, what, sizeof what / sizeof *what) || begins(event, "keyring.");
}

/* Somebody changed what keys there are, who may use them, or how they are kept. */
static bool key_action(const char *event)
{
    static const char *const groups[] = { "slot.", "officer.", "study.", "backup.", "vault.", "key.", "policy.", "act.", "scrub.", "clock." };
    static const char *const daily[] = { "study.list", "study.show", "study.returned", "key.lease", "key.create", "key.provisional", "key.attach", "key.request", "slot.list", "officer.show", "backup.read", "officer.list", "backup.list" };
    static const char *const alone[] = { "unlock", "lock", "config" };
    if (one_of(event, daily, sizeof daily / sizeof *daily))
        return false;
    for (unsigned i = 0; i < sizeof groups / sizeof *groups; i++)
        if (begins(event, groups[i]))
            return true;
    return one_of(event, alone, sizeof alone / sizeof *alone);
}

static int each(void *arg, const char *chain, const struct lg_audit_record *r)
{
    struct report *p = arg;
    unsigned long long n = r->has & LG_AUDIT_COUNT ? r->count : 1;
    int rc = 0;
    (void)chain;
    if (!cli_audit_wanted(p->c, &p->x, r))
        return 0;
    if (strcmp(r->event, "file.open") == 0) {
        rc = open_counted(p, r, n);
    } else if (strcmp(r->event, "file.close") == 0) {
        p->read += r->read;
        p->written += r->written;
    } else if (trouble(r->event)) {
        rc = keep(p, &p->integrity, r, n);
    } else if (key_action(r->event)) {
        rc = keep(p, &p->keys, r, n);
    }
    if (!rc && r->outcome && (begins(r->event, "file.") || r->outcome == -EACCES || r->outcome == -EPERM || strcmp(r->event, "study.returned") == 0))
        rc = keep(p, &p->denied, r, n);
    return rc;
}

/* ---- HTML ------------------------------------------------------------------------------------------------------------------------------------ */

static void esc(const char *s)
{
    for (; *s; s++)
        switch (*s) {
        case '&': fputs("&amp;", stdout); break;
        case '<': fputs("&lt;", stdout); break;
        case '>': fputs("&gt;", stdout); break;
        case '"': fputs("&quot;", stdout); break;
        case '\'': fputs("&#39;", stdout); break;
        default: putchar((unsigned char)*s < 32 || *s == 127 ? ' ' : *s);
        }
}

static void bars(const char *title, const unsigned long long *v, const unsigned long long *part, unsigned n, void (*label)(const struct report *p, unsigned i, char out[16]), const struct report *p)
{
    unsigned long long top = 1;
    double w = 700.0 / (n ? n : 1);
    char text[16];
    for (unsigned i = 0; i < n; i++)
        top = v[i] > top ? v[i] : top;
    printf("<figure><figcaption>%s (highest: %llu)</figcaption><svg viewBox=\"0 0 720 150\" role=\"img\" aria-label=\"%s\">", title, top, title);
    for (unsigned i = 0; i < n; i++) {
        double h = 120.0 * (double)v[i] / (double)top, d = part ? 120.0 * (double)part[i] / (double)top : 0;
        label(p, i, text);
        printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#35618f\"><title>%s: %llu</title></rect>", 10 + i * w, 125 - h, w * 0.85, h, text, v[i]);
        if (d > 0)
            printf("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"#b3362b\"/>", 10 + i * w, 125 - d, w * 0.85, d);
        if (i % ((n + 11) / 12) == 0)
            printf("<text x=\"%.1f\" y=\"143\" font-size=\"10\">%s</text>", 10 + i * w, text);
    }
    puts("</svg></figure>");
}

static void day_label(const struct report *p, unsigned i, char out[16])
{
    time_t t = (time_t)((p->first_day + i) * 86400);
    struct tm tm;
    gmtime_r(&t, &tm);
    strftime(out, 16, "%m-%d", &tm);
}

static void hour_label(const struct report *p, unsigned i, char out[16])
{
    (void)p;
    snprintf(out, 16, "%02u h", i);
}

static void tally_table(const char *title, const struct tallies *t, bool off)
{
    printf("<section><h2>%s</h2><table><tr><th>name<th class=n>opens<th class=n>refused%s</tr>", title, off ? "<th class=n>outside hours" : "");
    for (size_t i = 0; i < t->n && i < TOP; i++) {
        fputs("<tr><td>", stdout);
        esc(t->all[i]->name);
        printf("<td class=n>%llu<td class=n>%llu", t->all[i]->n, t->all[i]->failed);
        if (off)
            printf("<td class=n>%llu", t->all[i]->off);
        puts("</tr>");
    }
    if (t->n > TOP)
        printf("<tr><td>and %zu more<td><td>%s</tr>", t->n - TOP, off ? "<td>" : "");
    puts("</table></section>");
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct event *)a)->time_us, y = ((const struct event *)b)->time_us;
    return x < y ? -1 : x > y;
}

static void event_table(const char *title, struct events *l)
{
    char t[LG_AUDIT_TIME_LEN + 1];
    if (l->n)
        qsort(l->e, l->n, sizeof *l->e, by_time);
    printf("<section><h2>%s</h2>", title);
    if (!l->n)
        fputs("<p>none</p>", stdout);
    else
        fputs("<table><tr><th>time (UTC)<th>event<th>outcome<th>user<th>study<th class=n>times<th>detail</tr>", stdout);
    for (size_t i = 0; i < l->n; i++) {
        const struct event *e = &l->e[i];
        lg_audit_time_text(e->time_us, t);
        printf("<tr><td>%.19s<td>", t);
        esc(e->event);
        fputs("<td>", stdout);
        esc(e->outcome);
        fputs("<td>", stdout);
        esc(e->user);
        fputs("<td>", stdout);
        esc(e->study);
        printf("<td class=n>%llu<td>", e->count);
        esc(e->text);
        puts("</tr>");
    }
    printf("%s%s</section>\n", l->n ? "</table>" : "", l->n == LIST_MAX ? "<p>The newest of them; leadglass audit query shows all.</p>" : "");
}

static void study_tables(const struct report *p)
{
    unsigned held = 0, pending = 0;
    fputs("<section><h2>Open legal holds and pending destructions</h2>", stdout);
    if (!p->x.resolved) {
        puts("<p>not known: the key manager did not name the studies</p></section>");
        return;
    }
    fputs("<table><tr><th>study<th>patient<th>state<th>hold<th>not destroyed before</tr>", stdout);
    for (size_t i = 0; i < p->x.n_studies; i++) {
        const struct cli_audit_study *s = &p->x.studies[i];
        bool waits = s->state == LG_KEY_DESTROY_APPROVED || s->state == LG_KEY_DESTROYING;
        char t[32] = "";
        if (!s->held && !waits)
            continue;
        held += s->held;
        pending += waits;
        if (held + pending > LIST_MAX)
            continue;
        if (waits && s->due)
            cli_time(s->due, t);
        fputs("<tr><td>", stdout);
        esc(s->uid);
        fputs("<td>", stdout);
        esc(s->patient);
        printf("<td>%s<td>%s<td>%s</tr>", lg_key_state_name(s->state), s->held ? "yes" : "", t);
    }
    printf("</table><p>%u on hold, %u waiting for destruction</p></section>\n", held, pending);
}

/* Chains and their verdicts; false when one is not intact. */
static bool chain_states(const struct report *p, cJSON *list)
{
    struct lg_audit_chain *all = calloc(CHAINS_MAX, sizeof *all);
    struct lg_audit_report r;
    unsigned n = 0;
    bool good = all && lg_audit_chains(p->x.dir, all, CHAINS_MAX, &n) == 0;
    for (unsigned i = 0; good && i < n && i < CHAINS_MAX; i++) {
        int rc = lg_audit_verify(p->x.dir, &all[i], p->x.have_pub ? p->x.pub : NULL, NULL, 0, &r);
        const char *verdict = rc ? strerror(-rc) : lg_audit_verdict_name(r.verdict);
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "log", all[i].name);
        cJSON_AddStringToObject(j, "verdict", verdict);
        cJSON_AddNumberToObject(j, "records", rc ? 0 : (double)r.records);
        cJSON_AddNumberToObject(j, "signed", rc ? 0 : (double)r.signed_seq);
        cJSON_AddNumberToObject(j, "unsigned_tail", rc ? 0 : (double)r.tail);
        cJSON_AddItemToArray(list, j);
        good = good && !rc && (r.verdict == LG_AUDIT_INTACT || r.verdict == LG_AUDIT_NO_HEADS);
    }
    free(all);
    return good;
}

static void html(struct report *p, const cJSON *chains)
{
    char from[LG_AUDIT_TIME_LEN + 1], to[LG_AUDIT_TIME_LEN + 1], now[LG_AUDIT_TIME_LEN + 1];
    lg_audit_time_text(p->x.from_us, from);
    lg_audit_time_text(p->x.to_us, to);
    lg_audit_time_text((int64_t)time(NULL) * 1000000, now);
    printf("<!DOCTYPE html><html lang=\"en\"><meta charset=\"utf-8\"><title>Access report %.10s to %.10s</title><style>"
           "body{font:14px/1.4 sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}h1{font-size:1.5em}h2{font-size:1.1em;margin-top:1.6em;border-bottom:1px solid #ccc}"
           "table{border-collapse:collapse;width:100%%;font-size:12px}td,th{text-align:left;padding:2px 6px;border-bottom:1px solid #eee;overflow-wrap:anywhere}.n{text-align:right}"
           "figure{margin:1em 0}figcaption{font-weight:bold}.bad{color:#b3362b;font-weight:bold}@media print{body{margin:0;font-size:11px}section,figure{break-inside:avoid}}</style>"
           "<h1>Access to studies, %.16s to %.16s UTC</h1><p>Made %.19s UTC by Leadglass " LEADGLASS_VERSION " from the access log. Working hours: %02u to %02u h UTC, Monday to Friday.</p>",
           from, to, from, to, now, p->from_h, p->to_h);
    bool much = p->read + p->written >= 1ull << 31;
    double unit = much ? 1073741824.0 : 1048576.0;
    const char *name = much ? "GiB" : "MiB";
    printf("<p>%llu files opened, %llu refused, %llu outside working hours; %.1f %s read through the mounts, %.1f %s written. %llu findings of tampering or trouble with the log.</p>", p->opens,
           p->refused, p->off, (double)p->read / unit, name, (double)p->written / unit, name, p->integrity.all);
    bars("Opens per day, refused in red", p->day, p->day_refused, p->days, day_label, p);
    bars("Opens per hour of the day (UTC)", p->hour, NULL, 24, hour_label, p);
    tally_table("Users", &p->users, true);
    tally_table("Programs", &p->programs, false);
    event_table("Refused", &p->denied);
    event_table("Keys, officers, holds, configuration", &p->keys);
    event_table("Integrity", &p->integrity);
    study_tables(p);
    fputs("<section><h2>State of the log</h2><table><tr><th>chain<th>verdict<th class=n>records<th class=n>signed up to<th class=n>not signed yet</tr>", stdout);
    const cJSON *j;
    cJSON_ArrayForEach(j, chains)
    {
        const char *v = cJSON_GetStringValue(cJSON_GetObjectItem(j, "verdict"));
        fputs("<tr><td>", stdout);
        esc(cJSON_GetStringValue(cJSON_GetObjectItem(j, "log")));
        printf("<td%s>", v && strcmp(v, "intact") == 0 ? "" : " class=bad");
        esc(v ? v : "");
        printf("<td class=n>%.0f<td class=n>%.0f<td class=n>%.0f</tr>", cJSON_GetNumberValue(cJSON_GetObjectItem(j, "records")), cJSON_GetNumberValue(cJSON_GetObjectItem(j, "signed")),
               cJSON_GetNumberValue(cJSON_GetObjectItem(j, "unsigned_tail")));
    }
    puts("</table></section></html>");
}

/* ---- JSON ------------------------------------------------------------------------------------------------------------------------------------ */

static void tally_json(cJSON *j, const char *name, const struct tallies *t)
{
    cJSON *a = cJSON_AddArrayToObject(j, name);
    for (size_t i = 0; i < t->n; i++) {
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", t->all[i]->name);
        cJSON_AddNumberToObject(o, "opens", (double)t->all[i]->n);
        cJSON_AddNumberToObject(o, "refused", (double)t->all[i]->failed);
        cJSON_AddNumberToObject(o, "off_hours", (double)t->all[i]->off);
        cJSON_AddItemToArray(a, o);
    }
}

static void events_json(cJSON *j, const char *name, struct events *l)
{
    char t[LG_AUDIT_TIME_LEN + 1];
    cJSON *a = cJSON_AddArrayToObject(j, name);
    if (l->n)
        qsort(l->e, l->n, sizeof *l->e, by_time);
    for (size_t i = 0; i < l->n; i++) {
        const struct event *e = &l->e[i];
        cJSON *o = cJSON_CreateObject();
        lg_audit_time_text(e->time_us, t);
        cJSON_AddStringToObject(o, "time", t);
        cJSON_AddStringToObject(o, "event", e->event);
        cJSON_AddStringToObject(o, "outcome", e->outcome);
        cJSON_AddStringToObject(o, "user", e->user);
        cJSON_AddStringToObject(o, "study", e->study);
        cJSON_AddNumberToObject(o, "count", (double)e->count);
        cJSON_AddStringToObject(o, "text", e->text);
        cJSON_AddItemToArray(a, o);
    }
}

static void studies_json(cJSON *j, const struct report *p)
{
    if (!p->x.resolved)
        return;
    cJSON *a = cJSON_AddArrayToObject(j, "holds_and_destructions");
    for (size_t i = 0; i < p->x.n_studies; i++) {
        const struct cli_audit_study *s = &p->x.studies[i];
        if (!s->held && s->state != LG_KEY_DESTROY_APPROVED && s->state != LG_KEY_DESTROYING)
            continue;
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "study", s->uid);
        cJSON_AddStringToObject(o, "patient", s->patient);
        cJSON_AddStringToObject(o, "state", lg_key_state_name(s->state));
        cJSON_AddBoolToObject(o, "held", s->held);
        cJSON_AddNumberToObject(o, "due", (double)s->due);
        cJSON_AddItemToArray(a, o);
    }
}

static void tally_csv(const char *section, const struct tallies *t)
{
    for (size_t i = 0; i < t->n; i++) {
        printf("%s,", section);
        cli_audit_csv(stdout, t->all[i]->name);
        printf("%llu,%llu,%llu\r\n", t->all[i]->n, t->all[i]->failed, t->all[i]->off);
    }
}

/* Counts only: the records one by one are `audit query --csv`. */
static int csv(const struct report *p)
{
    char label[16];
    printf("section,name,opens,refused,off_hours\r\ntotal,,%llu,%llu,%llu\r\n", p->opens, p->refused, p->off);
    for (unsigned i = 0; i < p->days; i++) {
        time_t t = (time_t)((p->first_day + i) * 86400);
        struct tm tm;
        gmtime_r(&t, &tm);
        strftime(label, sizeof label, "%Y-%m-%d", &tm);
        printf("day,%s,%llu,%llu,\r\n", label, p->day[i], p->day_refused[i]);
    }
    for (unsigned i = 0; i < 24; i++)
        printf("hour,%02u,%llu,,\r\n", i, p->hour[i]);
    tally_csv("user", &p->users);
    tally_csv("program", &p->programs);
    return fflush(stdout) ? cli_fail(CLI_FAILED, "standard output: %s", strerror(errno)) : CLI_OK;
}

static int json(struct report *p, cJSON *chains)
{
    char t[LG_AUDIT_TIME_LEN + 1], label[16];
    cJSON *j = cJSON_CreateObject(), *days, *hours;
    lg_audit_time_text(p->x.from_us, t);
    cJSON_AddStringToObject(j, "from", t);
    lg_audit_time_text(p->x.to_us, t);
    cJSON_AddStringToObject(j, "to", t);
    cJSON_AddNumberToObject(j, "opens", (double)p->opens);
    cJSON_AddNumberToObject(j, "refused", (double)p->refused);
    cJSON_AddNumberToObject(j, "off_hours", (double)p->off);
    cJSON_AddNumberToObject(j, "bytes_read", (double)p->read);
    cJSON_AddNumberToObject(j, "bytes_written", (double)p->written);
    cJSON_AddNumberToObject(j, "key_actions", (double)p->keys.all);
    cJSON_AddNumberToObject(j, "integrity_findings", (double)p->integrity.all);
    days = cJSON_AddObjectToObject(j, "opens_per_day");
    for (unsigned i = 0; i < p->days; i++) {
        day_label(p, i, label);
        cJSON_AddNumberToObject(days, label, (double)p->day[i]);
    }
    hours = cJSON_AddArrayToObject(j, "opens_per_hour");
    for (unsigned i = 0; i < 24; i++)
        cJSON_AddItemToArray(hours, cJSON_CreateNumber((double)p->hour[i]));
    tally_json(j, "users", &p->users);
    tally_json(j, "programs", &p->programs);
    events_json(j, "denied", &p->denied);
    events_json(j, "key_events", &p->keys);
    events_json(j, "findings", &p->integrity);
    studies_json(j, p);
    cJSON_AddItemToObject(j, "log", chains);
    return cli_print_json(j);
}

static int hours(const char *text, unsigned *from, unsigned *to)
{
    char *end;
    unsigned long a = strtoul(text, &end, 10), b = *end == '-' ? strtoul(end + 1, &end, 10) : 99;
    if (*end || a > 23 || b > 24 || a >= b)
        return -EINVAL;
    *from = (unsigned)a;
    *to = (unsigned)b;
    return 0;
}

int cli_audit_report(const struct cli *c)
{
    struct report p = { .c = c, .from_h = 7, .to_h = 19 };
    if (c->query.hours && hours(c->query.hours, &p.from_h, &p.to_h))
        return cli_fail(CLI_USAGE, "--hours %s: expected such as 7-19", c->query.hours);
    if (!c->query.html && !c->json && !c->query.csv)
        return cli_fail(CLI_USAGE, "say --html, --json or --csv (records one by one: leadglass audit query --csv)");
    int code = cli_audit_selection(c, "report", 30 * 86400, &p.x);
    if (!code && p.x.to_us == INT64_MAX)
        p.x.to_us = ((int64_t)time(NULL) + 1) * 1000000;
    if (!code && p.x.from_us >= p.x.to_us)
        code = cli_fail(CLI_USAGE, "the period is empty");
    p.first_day = p.x.from_us / 86400000000;
    if (!code) {
        int64_t days = (p.x.to_us - 1) / 86400000000 - p.first_day + 1;
        p.days = days > DAYS_MAX ? DAYS_MAX : (unsigned)days;
        code = cli_audit_each(&p.x, each, &p);
    }
    if (!code) {
        cJSON *chains = cJSON_CreateArray();
        bool good = chain_states(&p, chains);
        if (p.users.n)
            qsort(p.users.all, p.users.n, sizeof(struct tally *), most);
        if (p.programs.n)
            qsort(p.programs.all, p.programs.n, sizeof(struct tally *), most);
        if (c->json) {
            code = json(&p, chains);
        } else if (c->query.csv) {
            code = csv(&p);
            cJSON_Delete(chains);
        } else {
            html(&p, chains);
            cJSON_Delete(chains);
            if (fflush(stdout))
                code = cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
        }
        if (!code && !good)
            code = cli_fail(CLI_ALTERED, "the log is not intact: see leadglass audit verify");
    }
    tallies_free(&p.users);
    tallies_free(&p.programs);
    free(p.denied.e);
    free(p.keys.e);
    free(p.integrity.e);
    cli_audit_selection_done(&p.x);
    return code;
}
