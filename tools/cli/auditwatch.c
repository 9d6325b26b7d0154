/* leadglass audit watch: follows the log, raises alerts, has them delivered; nothing is missed over a restart. */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "../alert/deliver.h"
#include "auditselect.h"
#include "leadglass/clock.h"
#include "leadglass/follow.h"

enum { BURST = 20000, SAVE_MS = 1000, STOP_MS = 3000, FAILURES = 8, STATE_VERSION = 2, SIGNED_MS = 5000, SHOW_MS = 2000 };

struct watch {
    const struct cli *c;
    const char *file; /* of the configuration; NULL: built in */
    struct lg_alert_config *config;
    bool noted; /* it is the key manager's own log, and that it is read is on record */
    struct lg_alerts *alerts;
    struct lg_delivery *delivery;
    struct lg_follow *follow;
    char dir[4096], state[4096]; /* not changed by a configuration that is read anew */
    uint8_t *note; /* LG_FOLLOW_NOTE_MAX bytes */
    int signals;
    bool say;      /* alerts on standard output */
    bool dirty, stop, unsaved_told;
    int64_t saved_ms, signed_ms; /* signed_ms: when it was last looked at whether heads are signed */
    struct failure {
        char subject[32], text[512];
    } failure[FAILURES];
    unsigned n_failures;
    uint64_t raised; /* alerts since the start */
    struct lg_alert last;
    uint64_t shown; /* of them, and when */
    int64_t shown_ms;
};

/* ---- alerts ------------------------------------------------------------------------------------------------------------------------------- */

static void on_alert(void *arg, const struct lg_alert *a)
{
    struct watch *w = arg;
    char line[1536], when[LG_AUDIT_TIME_LEN + 1], *json;
    lg_delivery_add(w->delivery, a);
    w->dirty = true;
    w->raised++;
    w->last = *a;
    if (!w->say)
        return;
    if (w->c->json) {
        json = lg_alert_json(a);
        puts(json ? json : "{}");
        free(json);
    } else {
        lg_audit_time_text(a->time_us, when);
        lg_alert_line(a, line, sizeof line);
        printf("%.19sZ %s\n", when, line);
    }
    fflush(stdout);
}

/* Within delivery: raised once that is done. */
static void on_failure(void *arg, const char *subject, const char *text)
{
    struct watch *w = arg;
    fprintf(stderr, "leadglass: alerts: %s\n", text);
    if (w->n_failures == FAILURES)
        return;
    struct failure *f = &w->failure[w->n_failures++];
    snprintf(f->subject, sizeof f->subject, "%s", subject);
    snprintf(f->text, sizeof f->text, "%s", text);
}

static void deliver(struct watch *w)
{
    lg_delivery_run(w->delivery, lg_clock_ms());
    for (unsigned i = 0; i < w->n_failures; i++)
        lg_alerts_own(w->alerts, LG_ALERT_DELIVERY, w->failure[i].subject, w->failure[i].text, lg_clock_us());
    w->n_failures = 0;
}

/* ---- what is kept over a restart ---------------------------------------------------------------------------------------------------------------- */

static void save(struct watch *w)
{
    struct lg_wr wr = lg_wr(w->note, LG_FOLLOW_NOTE_MAX);
    lg_wr_u16(&wr, STATE_VERSION);
    lg_alerts_save(w->alerts, &wr);
    lg_delivery_save(w->delivery, &wr);
    lg_alerts_save_silence(w->alerts, &wr);
    int rc = wr.bad ? -E2BIG : lg_follow_save(w->follow, w->note, wr.len);
    w->saved_ms = lg_clock_ms();
    w->dirty = rc != 0;
    if (rc && !w->unsaved_told) {
        char text[512];
        snprintf(text, sizeof text, "%.300s: %s; after a restart alerts since then come again", w->state, strerror(-rc));
        fprintf(stderr, "leadglass: alerts: %s\n", text);
        lg_alerts_own(w->alerts, LG_ALERT_DELIVERY, "state", text, lg_clock_us());
    }
    w->unsaved_told = rc != 0;
}

/* For `leadglass status`: STATE.json. */
static void show(struct watch *w, bool ended)
{
    char path[4200], tmp[4210];
    cJSON *j = cJSON_CreateObject(), *last = w->raised ? lg_alert_object(&w->last) : NULL;
    w->shown_ms = lg_clock_ms();
    w->shown = w->raised;
    cJSON_AddBoolToObject(j, "running", !ended);
    cJSON_AddNumberToObject(j, "pid", getpid());
    cJSON_AddNumberToObject(j, "time", (double)(lg_clock_us() / 1000000));
    cJSON_AddStringToObject(j, "log", w->dir);
    cJSON_AddNumberToObject(j, "alerts", (double)w->raised);
    cJSON_AddNumberToObject(j, "waiting", lg_delivery_waiting(w->delivery));
    if (last)
        cJSON_AddItemToObject(j, "last_alert", last);
    char *text = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    snprintf(path, sizeof path, "%.4090s.json", w->state);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    int fd = text ? open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd >= 0) {
        bool whole = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
        close(fd);
        if (!whole || rename(tmp, path))
            (void)unlink(tmp);
    }
    free(text);
}

static void load(struct watch *w)
{
    size_t len;
    const void *note = lg_follow_note(w->follow, &len);
    if (!note || !len)
        return;
    struct lg_rd r = lg_rd(note, len);
    unsigned version = lg_rd_u16(&r);
    int rc = version < 1 || version > STATE_VERSION ? -EPROTO : lg_alerts_load(w->alerts, &r);
    if (!rc)
        rc = lg_delivery_load(w->delivery, &r);
    if (!rc && version > 1)
        rc = lg_alerts_load_silence(w->alerts, &r);
    if (rc)
        fprintf(stderr, "leadglass: alerts: %s is of another version: records go on where they were, counters begin anew\n", w->state);
}

/* ---- configuration -------------------------------------------------------------------------------------------------------------------------------- */

static void span(unsigned s, char out[16])
{
    if (s % 86400 == 0)
        snprintf(out, 16, "%ud", s / 86400);
    else if (s % 3600 == 0)
        snprintf(out, 16, "%uh", s / 3600);
    else if (s % 60 == 0)
        snprintf(out, 16, "%um", s / 60);
    else
        snprintf(out, 16, "%us", s);
}

static cJSON *list(const struct lg_alert_list *l)
{
    cJSON *j = cJSON_CreateArray();
    for (unsigned i = 0; i < l->n; i++)
        cJSON_AddItemToArray(j, cJSON_CreateString(l->s[i]));
    return j;
}

static int check_json(const struct lg_alert_config *g)
{
    cJSON *j = cJSON_CreateObject(), *rules = cJSON_AddArrayToObject(j, "rules"), *o;
    for (unsigned i = 0; i < LG_ALERT_RULES; i++) {
        const struct lg_alert_setting *s = &g->rule[i];
        o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "rule", lg_alert_rule_info(i)->name);
        cJSON_AddBoolToObject(o, "enabled", s->on);
        cJSON_AddStringToObject(o, "grade", lg_alert_grade_name(s->grade));
        if (lg_alert_rule_info(i)->counted) { /* the others fire once something has lasted as long as the window */
            cJSON_AddStringToObject(o, "counted", lg_alert_rule_info(i)->counted);
            cJSON_AddNumberToObject(o, "threshold", s->threshold);
        }
        cJSON_AddNumberToObject(o, "window", s->window_s);
        cJSON_AddNumberToObject(o, "cooldown", s->cooldown_s);
        cJSON_AddItemToObject(o, "exempt_users", list(&s->users));
        cJSON_AddItemToObject(o, "exempt_programs", list(&s->programs));
        cJSON_AddItemToArray(rules, o);
    }
    o = cJSON_AddObjectToObject(j, "syslog");
    cJSON_AddBoolToObject(o, "enabled", g->syslog);
    cJSON_AddStringToObject(o, "socket", g->socket);
    cJSON_AddStringToObject(o, "facility", lg_alert_facility_name(g->facility));
    cJSON_AddStringToObject(o, "grade", lg_alert_grade_name(g->syslog_grade));
    if (g->program[0]) {
        o = cJSON_AddObjectToObject(j, "program");
        cJSON_AddStringToObject(o, "path", g->program);
        cJSON_AddStringToObject(o, "grade", lg_alert_grade_name(g->program_grade));
        cJSON_AddNumberToObject(o, "timeout", g->timeout_s);
        cJSON_AddNumberToObject(o, "attempts", g->attempts);
        cJSON_AddNumberToObject(o, "retry", g->retry_s);
    }
    return cli_print_json(j);
}

static void exempt(const char *what, const struct lg_alert_list *l)
{
    for (unsigned i = 0; i < l->n; i++)
        printf("%s%s", i ? ", " : what, l->s[i]);
}

static int check(const struct watch *w)
{
    static const char *const days[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };
    const struct lg_alert_config *g = w->config;
    char window[16], cooldown[16], over[32];
    if (w->c->json)
        return check_json(g);
    printf("%s\n\n%-17s %-9s %-24s %-9s %s\n", w->file ? w->file : "no configuration: built-in rules", "rule", "grade", "when", "cool-down", "what");
    for (unsigned i = 0; i < LG_ALERT_RULES; i++) {
        const struct lg_alert_setting *s = &g->rule[i];
        const struct lg_alert_rule_info *info = lg_alert_rule_info(i);
        span(s->window_s, window);
        span(s->cooldown_s, cooldown);
        if (!info->counted)
            snprintf(over, sizeof over, "for %s", window);
        else if (s->threshold > 1)
            snprintf(over, sizeof over, "%u %s in %s", s->threshold, info->counted, window);
        else
            snprintf(over, sizeof over, "each");
        printf("%-17s %-9s %-24s %-9s %s", info->name, s->on ? lg_alert_grade_name(s->grade) : "off", s->on ? over : "-", s->on ? cooldown : "-", info->what);
        exempt("; but not by ", &s->users);
        exempt("; but not through ", &s->programs);
        putchar('\n');
    }
    printf("\nworking hours  %02u:%02u-%02u:%02u, %s time, on", g->hours_from / 60, g->hours_from % 60, g->hours_to / 60, g->hours_to % 60, g->utc ? "UTC" : "local");
    for (unsigned i = 0; i < 7; i++)
        if (g->days >> i & 1)
            printf(" %s", days[i]);
    if (g->syslog)
        printf("\nsyslog         %s, facility %s, %s and above", g->socket, lg_alert_facility_name(g->facility), lg_alert_grade_name(g->syslog_grade));
    else
        printf("\nsyslog         off");
    if (g->program[0])
        printf("\nprogram        %s, %s and above, at most %u s, %u attempts\n", g->program, lg_alert_grade_name(g->program_grade), g->timeout_s, g->attempts);
    else
        printf("\nprogram        none\n");
    return CLI_OK;
}

/* A bad configuration changes nothing. */
static bool same_list(const struct lg_alert_list *a, const struct lg_alert_list *b)
{
    bool same = a->n == b->n;
    for (unsigned i = 0; same && i < a->n; i++)
        same = strcmp(a->s[i], b->s[i]) == 0;
    return same;
}

/* What is alerted from now on otherwise than before, in words; empty: nothing. */
static void differences(const struct lg_alert_config *a, const struct lg_alert_config *b, char *out, size_t cap)
{
    size_t n = 0;
    out[0] = 0;
    for (unsigned i = 0; i < LG_ALERT_RULES && n < cap; i++) {
        const struct lg_alert_setting *x = &a->rule[i], *y = &b->rule[i];
        const char *name = lg_alert_rule_info((enum lg_alert_rule)i)->name, *sep = n ? ", " : "";
        if (x->on != y->on)
            n += (size_t)snprintf(out + n, cap - n, "%s%s %s", sep, name, y->on ? "on" : "off");
        else if (y->on && x->threshold != y->threshold)
            n += (size_t)snprintf(out + n, cap - n, "%s%s %u to %u", sep, name, x->threshold, y->threshold);
        else if (y->on && (x->grade != y->grade || x->window_s != y->window_s || x->cooldown_s != y->cooldown_s || !same_list(&x->users, &y->users) || !same_list(&x->programs, &y->programs)))
            n += (size_t)snprintf(out + n, cap - n, "%s%s otherwise", sep, name);
    }
    bool hours = a->hours_from != b->hours_from || a->hours_to != b->hours_to || a->days != b->days || a->utc != b->utc;
    bool outcomes = a->n_outcomes != b->n_outcomes || memcmp(a->outcome, b->outcome, a->n_outcomes * sizeof *a->outcome) != 0;
    bool delivery = a->syslog != b->syslog || a->facility != b->facility || a->syslog_grade != b->syslog_grade || strcmp(a->socket, b->socket) != 0 || strcmp(a->program, b->program) != 0 ||
                    a->program_grade != b->program_grade || a->attempts != b->attempts || a->timeout_s != b->timeout_s || a->retry_s != b->retry_s;
    const struct { bool is; const char *what; } other[] = { { hours, "hours" }, { outcomes, "outcomes" }, { delivery, "delivery" } };
    for (unsigned i = 0; i < sizeof other / sizeof *other && n < cap; i++)
        if (other[i].is)
            n += (size_t)snprintf(out + n, cap - n, "%s%s otherwise", n ? ", " : "", other[i].what);
}

/* Whoever silences a rule is on record. */
static void note_rules(const struct watch *w, const struct lg_alert_config *g)
{
    char what[900], text[950];
    struct lg_client *k = NULL;
    differences(w->config, g, what, sizeof what);
    if (!what[0] || !w->noted)
        return;
    snprintf(text, sizeof text, "watch-rules %s", what);
    int rc = lg_client_new(w->c->socket, &k);
    if (!rc)
        rc = lg_client_audit_note(k, text);
    if (rc)
        fprintf(stderr, "leadglass: that the rules differ is not in the access log: %s\n", strerror(-rc));
    lg_client_free(k);
}

static void reload(struct watch *w)
{
    char error[1024];
    struct lg_alert_config *g;
    if (lg_alert_config_load(w->file, &g, error, sizeof error)) {
        fprintf(stderr, "leadglass: %s; the rules stay as they were\n", error);
        lg_alerts_own(w->alerts, LG_ALERT_DELIVERY, "configuration", error, lg_clock_us());
        return;
    }
    note_rules(w, g);
    lg_alerts_config(w->alerts, g);
    lg_delivery_config(w->delivery, g);
    lg_alert_config_free(w->config);
    w->config = g;
    fprintf(stderr, "leadglass: %s was read anew\n", w->file ? w->file : "the built-in configuration");
}

/* ---- starting ---------------------------------------------------------------------------------------------------------------------------------------- */

/* The log's place, and the record that it is read from now on. */
static int where(struct watch *w)
{
    const struct cli *c = w->c;
    struct lg_client *k = NULL;
    struct lg_audit_info *i = calloc(1, sizeof *i);
    int code = CLI_OK;
    snprintf(w->dir, sizeof w->dir, "%s", c->argc ? c->argv[0] : w->config->log);
    if (i && !c->audit.offline && c->socket && lg_client_new(c->socket, &k) == 0 && lg_client_audit_info(k, i) == 0) {
        if (!w->dir[0])
            snprintf(w->dir, sizeof w->dir, "%s", i->dir);
        w->noted = strcmp(w->dir, i->dir) == 0;
        int rc = w->noted ? lg_client_audit_note(k, "watch") : 0;
        if (rc && rc != -EACCES)
            code = cli_explain(c, rc, "recording that the log is read");
    }
    if (!code && !w->dir[0])
        code = cli_fail(CLI_NO_KEYD, "no key manager answers at %s: say where the log is (leadglass audit watch DIR, or log = DIR in [watch])", c->socket ? c->socket : "its socket");
    lg_client_free(k);
    free(i);
    return code;
}

static int configure(struct watch *w)
{
    char error[1024];
    w->file = w->c->watch.config;
    if (!w->file && access(CLI_AUDIT_CONFIG, F_OK) == 0)
        w->file = CLI_AUDIT_CONFIG;
    return lg_alert_config_load(w->file, &w->config, error, sizeof error) ? cli_fail(CLI_USAGE, "%s", error) : CLI_OK;
}

static int open_log(struct watch *w)
{
    const char *state = w->c->watch.state ? w->c->watch.state : w->config->state[0] ? w->config->state : CLI_WATCH_STATE;
    if (snprintf(w->state, sizeof w->state, "%s", state) >= (int)sizeof w->state)
        return cli_fail(CLI_FAILED, "%s: %s", state, strerror(ENAMETOOLONG));
    struct lg_follow_options o = { .dir = w->dir, .position = w->state, .all = w->c->all };
    int rc = lg_follow_open(&o, &w->follow);
    if (rc == -EWOULDBLOCK)
        return cli_fail(CLI_BUSY, "%s: another `audit watch` uses it (each needs a --state of its own)", w->state);
    if (rc == -EPROTO)
        return cli_fail(CLI_FAILED, "%s: not the state of an `audit watch`, or damaged. Remove it to begin at the end of the log, or with --all at its beginning", w->state);
    return rc ? cli_fail(CLI_FAILED, "log %s, state %s: %s", w->dir, w->state, strerror(-rc)) : CLI_OK;
}

static int start(struct watch *w)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    signal(SIGPIPE, SIG_IGN);
    w->say = w->c->json || w->c->watch.once || isatty(1);
    w->note = malloc(LG_FOLLOW_NOTE_MAX);
    int rc = w->note ? lg_alerts_new(w->config, on_alert, w, &w->alerts) : -ENOMEM;
    if (!rc)
        rc = lg_delivery_new(w->config, on_failure, w, &w->delivery);
    if (!rc && (sigprocmask(SIG_BLOCK, &set, NULL) || (w->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0))
        rc = -errno;
    if (rc)
        return cli_fail(CLI_FAILED, "%s", strerror(-rc));
    int code = open_log(w);
    if (code)
        return code;
    load(w);
    lg_alerts_begin(w->alerts, lg_clock_us());
    save(w); /* from here on nothing is missed */
    return CLI_OK;
}

/* ---- going on ------------------------------------------------------------------------------------------------------------------------------------------ */

/* Of every chain that is still written: one that was given up, and another begun beside it, is never signed to its end. */
static void look_for_heads(struct watch *w)
{
    static struct lg_audit_chain all[LG_FOLLOW_CHAINS_MAX], newest;
    struct lg_audit_ends e;
    unsigned n = 0;
    w->signed_ms = lg_clock_ms();
    if (lg_audit_chains(w->dir, all, LG_FOLLOW_CHAINS_MAX, &n))
        return;
    for (unsigned i = 0; i < n && i < LG_FOLLOW_CHAINS_MAX; i++) {
        char base[64];
        snprintf(base, sizeof base, "%.63s", all[i].name);
        base[strcspn(base, ".")] = 0;
        if (lg_audit_find(w->dir, base, &newest) == 0 && strcmp(newest.name, all[i].name) == 0 && lg_audit_ends(w->dir, newest.name, &e) == 0)
            lg_alerts_signed(w->alerts, newest.name, e.last, e.last_us, e.signed_seq, lg_clock_us());
    }
}

/* 1: there is more; 0: nothing at present; or why the log cannot be read. */
static int read_some(struct watch *w)
{
    struct lg_followed x;
    int rc = 1;
    for (unsigned i = 0; i < BURST && (rc = lg_follow_next(w->follow, &x)) == 1; i++) {
        w->dirty = true;
        if (x.record)
            lg_alerts_record(w->alerts, x.chain->name, x.record);
        else
            lg_alerts_finding(w->alerts, x.chain->name, &x.finding, lg_clock_us());
    }
    if (rc < 0) {
        char text[512];
        snprintf(text, sizeof text, "the access log %.300s cannot be read: %s", w->dir, strerror(-rc));
        lg_alerts_own(w->alerts, LG_ALERT_LOG_BROKEN, w->dir, text, lg_clock_us());
    }
    if (rc <= 0)
        lg_alerts_tick(w->alerts, lg_clock_us());
    if (rc <= 0 && (!w->signed_ms || lg_clock_ms() - w->signed_ms >= SIGNED_MS))
        look_for_heads(w);
    return rc;
}

static void rest(struct watch *w, int timeout_ms)
{
    struct pollfd p[LG_DELIVERY_RUNNING + 1];
    unsigned n = lg_delivery_fds(w->delivery, p);
    struct signalfd_siginfo si;
    p[n] = (struct pollfd){ .fd = w->signals, .events = POLLIN };
    (void)poll(p, n + 1, timeout_ms);
    while (read(w->signals, &si, sizeof si) == sizeof si) {
        if (si.ssi_signo == SIGHUP)
            reload(w);
        else
            w->stop = true;
    }
}

static void going(struct watch *w)
{
    while (!w->stop) {
        int rc = read_some(w);
        deliver(w);
        /* An alert at once, that it may come again as seldom as can be; mere records every second. */
        if (lg_delivery_changed(w->delivery) || (w->dirty && lg_clock_ms() - w->saved_ms >= SAVE_MS))
            save(w);
        if (!w->shown_ms || lg_clock_ms() - w->shown_ms >= SHOW_MS || w->shown != w->raised)
            show(w, false);
        if (w->c->watch.once && rc != 1 && !lg_delivery_running(w->delivery))
            break;
        rest(w, rc == 1 ? 0 : LG_FOLLOW_POLL_MS);
    }
    lg_delivery_close(w->delivery); /* what has been begun may end; what has not is kept */
    for (int64_t until = lg_clock_ms() + STOP_MS; w->stop && lg_delivery_running(w->delivery) && lg_clock_ms() < until;) {
        deliver(w);
        rest(w, 50);
    }
    save(w);
    show(w, true);
}

int cli_audit_watch(const struct cli *c)
{
    struct watch w = { .c = c, .signals = -1 };
    int code = configure(&w);
    if (!code && c->watch.check) {
        code = check(&w);
        lg_alert_config_free(w.config);
        return code;
    }
    if (!code)
        code = where(&w);
    if (!code)
        code = start(&w);
    if (!code) {
        going(&w);
        unsigned left = lg_delivery_waiting(w.delivery);
        if (w.unsaved_told)
            code = CLI_FAILED;
        else if (c->watch.once && left)
            code = cli_fail(CLI_FAILED, "%u alerts are not delivered yet; the next run goes on with them", left);
    }
    lg_delivery_free(w.delivery);
    lg_alerts_free(w.alerts);
    lg_follow_close(w.follow);
    lg_alert_config_free(w.config);
    free(w.note);
    if (w.signals >= 0)
        close(w.signals);
    return code;
}

const struct cli_option cli_audit_watch_options[] = {
    { "config", "FILE", "watch: rules and delivery; export: the receiver (default " CLI_AUDIT_CONFIG ", else built in)", CLI_TEXT, CLI_INTO(watch.config), 0 },
    { "state", "FILE", "watch: where it keeps how far it is (default " CLI_WATCH_STATE ")", CLI_TEXT, CLI_INTO(watch.state), 0 },
    { "once", NULL, "watch: what is new since the last time, then end", CLI_FLAG, CLI_INTO(watch.once), 0 },
    { "all", NULL, "watch: the first time, everything that is in the log", CLI_FLAG, CLI_INTO(all), 0 },
    { "check", NULL, "watch: check the configuration, print the rules in force, and end", CLI_FLAG, CLI_INTO(watch.check), 0 },
    { NULL, NULL, NULL, CLI_FLAG, 0, 0 },
};
