/* leadglass audit export --follow: the log, as DICOM audit messages, by way of the spool to a syslog receiver; nothing is lost over restarts and outages. */
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "auditselect.h"
#include "leadglass/clock.h"
#include "leadglass/follow.h"
#include "frame.h"
#include "link.h"
#include "settings.h"
#include "spool.h"
#include "studies.h"

enum side { IN, OUT };
enum { BURST = 256, SENT_AT_ONCE = 256 << 10, SETTLE_MS = 2000, STOP_MS = 5000, KEYD_MS = 1000, STATE_MS = 1000, STOPPED_BY_SIGNAL = -1 };

struct exporter {
    const struct cli *c;
    struct lg_export_settings g;
    char dir[4096], host[256];
    struct lg_dicom_source source;
    struct lg_client *keyd;
    struct lg_secret *key;
    struct lg_studies *studies;
    struct lg_follow *follow;
    struct lg_spool *spool;
    int signals;
    bool stop;
    /* from the log to the spool */
    struct lg_followed held; /* read, and not put yet */
    bool holding, unsaved, full;
    int64_t held_us, wait_until_ms;
    struct lg_spool_note note;
    /* from the spool to the receiver */
    struct lg_link *link;
    struct lg_spool_place sent;
    struct {
        bool on;
        struct lg_spool_place upto;
        uint64_t octets;
        int64_t ms;
    } settling; /* what counts as delivered once it has been acknowledged and the connection has lived on for SETTLE_MS */
    int64_t retry_ms, backoff_ms;
    uint64_t n_sent;
    int64_t delivered_us, outage_us; /* when something counted as delivered last; since when the receiver cannot be reached. 0: not */
    /* for people */
    char why[2][256], alarm[256]; /* nothing is taken in, or given out, because; the last alert */
    int64_t state_ms;
    char frame[LG_SPOOL_RECORD_MAX], xml[LG_DICOM_MAX];
};

static void say(void *arg, int level, const char *text)
{
    struct exporter *x = arg;
    fprintf(stderr, "leadglass: export: %s\n", text);
    syslog(LOG_AUTHPRIV | level, "%s", text);
    if (level <= LOG_ALERT)
        snprintf(x->alarm, sizeof x->alarm, "%s", text);
}

/* Why it does not go on; said when it changes. Empty: it goes on. */
static void because(struct exporter *x, enum side side, int level, const char *fmt, ...) LG_PRINTF(4, 5);
static void because(struct exporter *x, enum side side, int level, const char *fmt, ...)
{
    char text[sizeof x->why[0]];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (strcmp(text, x->why[side]) == 0)
        return;
    snprintf(x->why[side], sizeof x->why[side], "%s", text);
    say(x, level, text[0] ? text : side == IN ? "the access log is followed" : "the receiver takes messages");
}

/* ---- what others can see -------------------------------------------------------------------------------------------------------------------- */

static void state_write(struct exporter *x, bool ended)
{
    char path[300], tmp[310];
    struct lg_spool_state s = { .empty = true };
    cJSON *j = cJSON_CreateObject();
    x->state_ms = lg_clock_ms();
    if (x->spool)
        lg_spool_state(x->spool, &s);
    cJSON_AddBoolToObject(j, "running", !ended);
    cJSON_AddNumberToObject(j, "pid", getpid());
    cJSON_AddNumberToObject(j, "time", (double)(lg_clock_us() / 1000000));
    cJSON_AddStringToObject(j, "receiver", x->g.host);
    cJSON_AddStringToObject(j, "port", x->g.port);
    cJSON_AddBoolToObject(j, "tls", x->g.tls);
    cJSON_AddBoolToObject(j, "connected", x->link != NULL);
    cJSON_AddNumberToObject(j, "sent", (double)x->n_sent);
    cJSON_AddNumberToObject(j, "delivered", (double)(x->delivered_us / 1000000));
    cJSON_AddNumberToObject(j, "outage_since", (double)(x->outage_us / 1000000));
    cJSON_AddBoolToObject(j, "spool_empty", s.empty);
    cJSON_AddNumberToObject(j, "spool_bytes", (double)s.bytes);
    cJSON_AddNumberToObject(j, "spool_max", (double)s.max);
    cJSON_AddBoolToObject(j, "spool_full", x->full);
    cJSON_AddStringToObject(j, "log_waits", x->why[IN]);
    cJSON_AddStringToObject(j, "receiver_waits", x->why[OUT]);
    cJSON_AddStringToObject(j, "alarm", x->alarm);
    char *text = cJSON_Print(j);
    cJSON_Delete(j);
    snprintf(path, sizeof path, "%s/state.json", x->g.spool);
    snprintf(tmp, sizeof tmp, "%s.new", path);
    FILE *f = text ? fopen(tmp, "we") : NULL;
    if (f) {
        fprintf(f, "%s\n", text);
        if (fclose(f) == 0)
            (void)!rename(tmp, path);
    }
    free(text);
}

static int state_show(const struct cli *c, const struct lg_export_settings *g)
{
    char path[300];
    snprintf(path, sizeof path, "%s/state.json", g->spool);
    cJSON *j = cli_json_file(path);
    if (!j)
        return cli_fail(CLI_FAILED, "%s: no export has run with this configuration (leadglass audit export --follow)", path);
    if (c->json)
        return cli_print_json(j);
    const char *in = cli_json_string(j, "log_waits"), *out = cli_json_string(j, "receiver_waits"), *alarm = cli_json_string(j, "alarm");
    char when[32];
    cli_time(cli_json_number(j, "time"), when);
    printf("receiver  %s port %s, %s\n", g->host, g->port, cJSON_IsTrue(cJSON_GetObjectItem(j, "connected")) ? "connected" : "not connected");
    printf("export    %s, as of %s; %llu messages sent since its start\n", cJSON_IsTrue(cJSON_GetObjectItem(j, "running")) ? "running" : "not running", when,
           (unsigned long long)cli_json_number(j, "sent"));
    printf("spool     %llu of %llu bytes%s\n", (unsigned long long)cli_json_number(j, "spool_bytes"), (unsigned long long)cli_json_number(j, "spool_max"),
           cJSON_IsTrue(cJSON_GetObjectItem(j, "spool_full")) ? ", FULL: the log is not followed until there is room" : "");
    if (in[0])
        printf("log       %s\n", in);
    if (out[0])
        printf("receiver  %s\n", out);
    if (alarm[0])
        printf("ALARM     %s\n", alarm);
    cJSON_Delete(j);
    return CLI_OK;
}

/* ---- from the log to the spool ----------------------------------------------------------------------------------------------------------------- */

/* What is held, as a message in the spool. 0; else it stays held. */
static int put(struct exporter *x)
{
    const struct lg_followed *h = &x->held;
    const struct lg_audit_record *r = h->record;
    struct lg_dicom_event e = { .record = r, .finding = r ? NULL : &h->finding, .finding_us = x->held_us, .chain = h->chain };
    size_t len, n;
    if (!lg_dicom_wanted(&e))
        return 0;
    int rc = r && r->has & LG_AUDIT_STUDY ? lg_studies_of(x->studies, r->study, &e.study_uid, &e.patient_id) : 0;
    if (rc) {
        because(x, IN, LOG_WARNING, "%s: the next record names a study, and its UID cannot be asked for", rc == -ENOKEY ? "the keyring is locked" : "the key manager does not answer");
        x->wait_until_ms = lg_clock_ms() + KEYD_MS;
        return rc;
    }
    struct lg_frame_header hd = { lg_dicom_warning(&e), r ? r->time_us : x->held_us, x->host, getpid() };
    rc = lg_dicom_encode(&x->source, &e, x->xml, sizeof x->xml, &len);
    if (!rc)
        rc = lg_frame_encode(&hd, x->xml, len, x->frame, sizeof x->frame, &n);
    if (!rc)
        rc = lg_spool_put(x->spool, x->frame, n);
    if (rc == -ENOSPC && !x->full)
        say(x, LOG_ALERT, "the spool is full: the access log is not followed until the receiver takes something. Nothing is lost as long as the log is kept");
    else if (rc && rc != -ENOSPC)
        because(x, IN, LOG_ALERT, "the spool cannot be written: %s", strerror(-rc));
    if (!rc && x->full)
        say(x, LOG_NOTICE, "the spool has room again");
    x->full = rc == -ENOSPC;
    if (rc)
        x->wait_until_ms = lg_clock_ms() + 200;
    if (!rc && r && !r->outcome && strcmp(r->event, "key.destroy") == 0 && r->has & LG_AUDIT_STUDY)
        lg_studies_forget(x->studies, r->study);
    return rc;
}

/* True: there is more to take at once. */
static bool take(struct exporter *x)
{
    bool more = true;
    if (lg_clock_ms() < x->wait_until_ms)
        return false;
    for (unsigned i = 0; i < BURST && more; i++) {
        int rc = x->holding ? 1 : lg_follow_next(x->follow, &x->held);
        if (rc < 0) {
            because(x, IN, LOG_ERR, "the access log %.150s cannot be read: %s", x->dir, strerror(-rc));
            x->wait_until_ms = lg_clock_ms() + KEYD_MS;
        }
        more = rc == 1;
        if (more && !x->holding)
            x->held_us = lg_clock_us();
        x->holding = more && put(x);
        more = more && !x->holding;
        x->unsaved = x->unsaved || more;
        if (rc >= 0 && !x->holding)
            because(x, IN, LOG_NOTICE, "%s", "");
    }
    return more;
}

/* What was put is sent only after the position that covers it is safe: else it would come again after a crash. */
static void keep(struct exporter *x)
{
    uint8_t note[LG_SPOOL_NOTE];
    struct lg_spool_note n;
    if (!x->unsaved)
        return;
    int rc = lg_spool_sync(x->spool, &n);
    if (!rc) {
        lg_spool_note_encode(&n, note);
        rc = lg_follow_save(x->follow, note, sizeof note);
    }
    if (rc) {
        because(x, IN, LOG_ALERT, "it cannot be noted how far the export is: %s", strerror(-rc));
        x->wait_until_ms = lg_clock_ms() + KEYD_MS;
        return;
    }
    x->note = n;
    x->unsaved = false;
}

/* ---- from the spool to the receiver ---------------------------------------------------------------------------------------------------------------- */

static void hang_up(struct exporter *x, const char *why)
{
    if (why)
        because(x, OUT, LOG_WARNING, "%s", why);
    if (why && !x->outage_us)
        x->outage_us = lg_clock_us();
    lg_link_close(x->link);
    x->link = NULL;
    x->settling.on = false;
    x->backoff_ms = x->backoff_ms ? x->backoff_ms * 2 : 1000;
    if (x->backoff_ms > (int64_t)x->g.retry_s * 1000)
        x->backoff_ms = (int64_t)x->g.retry_s * 1000;
    x->retry_ms = lg_clock_ms() + x->backoff_ms;
}

static bool waiting(const struct exporter *x, const struct lg_spool_place *from) { return lg_spool_place_cmp(from, &x->note.end) < 0; }

static void dial(struct exporter *x)
{
    const struct lg_export_settings *g = &x->g;
    struct lg_link_options o = { g->host, g->port, g->tls, g->name, g->ca, g->cert, g->key };
    struct lg_spool_place first = lg_spool_first(x->spool);
    char error[256];
    if (x->link || lg_clock_ms() < x->retry_ms || !waiting(x, &first))
        return;
    if (lg_link_open(&o, &x->link, error, sizeof error)) {
        hang_up(x, error);
        return;
    }
    x->sent = first; /* whatever was under way when the last connection ended, comes again */
}

static void settle(struct exporter *x)
{
    uint64_t sent, taken;
    lg_link_progress(x->link, &sent, &taken);
    if (x->settling.on && taken >= x->settling.octets && lg_clock_ms() - x->settling.ms >= SETTLE_MS) {
        struct lg_spool_place upto = x->settling.upto, first = lg_spool_first(x->spool);
        x->settling.on = false;
        int rc = lg_spool_done(x->spool, &upto);
        if (rc)
            because(x, OUT, LOG_ERR, "the spool cannot be written: %s", strerror(-rc));
        else if (lg_spool_place_cmp(&upto, &first) > 0) {
            x->backoff_ms = 0;
            x->delivered_us = lg_clock_us();
            x->outage_us = 0;
            because(x, OUT, LOG_NOTICE, "%s", "");
        }
        x->wait_until_ms = x->full ? 0 : x->wait_until_ms;
    }
    struct lg_spool_place first = lg_spool_first(x->spool);
    if (!x->settling.on && lg_spool_place_cmp(&first, &x->sent) < 0) {
        x->settling.on = true;
        x->settling.upto = x->sent;
        x->settling.octets = sent;
        x->settling.ms = lg_clock_ms();
    }
}

/* True: there is more to send at once. */
static bool give(struct exporter *x)
{
    char error[256];
    size_t len, sum = 0;
    int rc = 1;
    dial(x);
    if (!x->link)
        return false;
    while (sum < SENT_AT_ONCE && waiting(x, &x->sent) && (rc = lg_spool_next(x->spool, &x->sent, (uint8_t *)x->frame, &len)) == 1) {
        if (lg_link_send(x->link, x->frame, len, error, sizeof error)) {
            hang_up(x, error);
            return false;
        }
        sum += len;
        x->n_sent++;
    }
    if (rc < 0)
        because(x, OUT, LOG_ALERT, "the spool cannot be read: %s", strerror(-rc));
    struct lg_spool_place first = lg_spool_first(x->spool);
    if (lg_link_check(x->link, error, sizeof error)) {
        hang_up(x, waiting(x, &first) ? error : NULL); /* one that has nothing to wait for may hang up */
        return false;
    }
    settle(x);
    return rc == 1 && waiting(x, &x->sent);
}

/* ---- starting ------------------------------------------------------------------------------------------------------------------------------------- */

static void rest(struct exporter *x, int ms)
{
    struct signalfd_siginfo si;
    struct pollfd p = { x->signals, POLLIN, 0 };
    (void)poll(&p, 1, ms);
    while (read(x->signals, &si, sizeof si) == sizeof si)
        x->stop = true;
}

static int configure(struct exporter *x)
{
    char error[512];
    const char *file = x->c->watch.config ? x->c->watch.config : CLI_AUDIT_CONFIG;
    if (lg_export_settings_load(file, &x->g, error, sizeof error))
        return cli_fail(CLI_USAGE, "%s", error);
    if (!x->g.host[0])
        return cli_fail(CLI_USAGE, "%s: there is no [export] with host = RECEIVER in it; leadglass-audit.conf(5) tells how", file);
    if (x->c->audit.follow && !x->g.release)
        return cli_fail(CLI_USAGE,
                        "%s: DICOM audit messages name studies and patients, which the access log does not. If they shall leave this machine, say release-study-uids = yes in [export]; it is recorded",
                        file);
    return CLI_OK;
}

/* Where the log is: asked while the keyring may be locked. */
static int find_log(struct exporter *x)
{
    struct lg_audit_info *i = calloc(1, sizeof *i);
    int code = i ? cli_client(x->c, &x->keyd) : cli_fail(CLI_FAILED, "out of memory"), rc = 0;
    while (!code && !x->stop && (rc = lg_client_audit_info(x->keyd, i))) {
        because(x, IN, LOG_WARNING, "no key manager answers at %.150s", x->c->socket);
        rest(x, KEYD_MS);
    }
    if (!code && !x->stop && !i->on)
        code = cli_fail(CLI_FAILED, "the key manager keeps no access log (--audit off)");
    if (!code && !x->stop)
        snprintf(x->dir, sizeof x->dir, "%s", x->g.log[0] ? x->g.log : i->dir);
    free(i);
    return code ? code : x->stop ? STOPPED_BY_SIGNAL : CLI_OK;
}

static int open_log(struct exporter *x)
{
    char path[300];
    snprintf(path, sizeof path, "%s/position", x->g.spool);
    if (mkdir(x->g.spool, 0700) && errno != EEXIST)
        return cli_fail(CLI_FAILED, "%s: %s", x->g.spool, strerror(errno));
    struct lg_follow_options o = { .dir = x->dir, .position = path, .all = x->g.all };
    int rc = lg_follow_open(&o, &x->follow);
    if (rc == -EWOULDBLOCK)
        return cli_fail(CLI_BUSY, "%s: another export uses it (each needs a spool of its own)", path);
    if (rc == -EPROTO)
        return cli_fail(CLI_FAILED, "%s: not the position of an export, or damaged. Remove it to begin at the end of the log, or with begin = all at its beginning", path);
    return rc ? cli_fail(CLI_FAILED, "log %s, position %s: %s", x->dir, path, strerror(-rc)) : CLI_OK;
}

/* Nothing is exported before the key manager has recorded that it is, and where to. */
static int announce(struct exporter *x)
{
    char target[600];
    int rc = 0;
    snprintf(target, sizeof target, "syslog-%s://%s:%s", x->g.tls ? "tls" : "tcp", x->g.host, x->g.port);
    x->key = lg_secret_new();
    while (x->key && !x->stop && (rc = lg_client_audit_export(x->keyd, target, x->key))) {
        if (rc == -EACCES || rc == -EPROTONOSUPPORT)
            return cli_explain(x->c, rc, "audit export");
        because(x, IN, LOG_WARNING, "%s", rc == -ENOKEY ? "the keyring is locked: the export begins when it is unlocked" : rc == -ECANCELED ? "the access log cannot be written, so the export cannot be recorded" : "the key manager does not answer");
        rest(x, KEYD_MS);
    }
    return !x->key ? cli_fail(CLI_FAILED, "out of memory") : x->stop ? STOPPED_BY_SIGNAL : CLI_OK;
}

static int open_spool(struct exporter *x)
{
    struct lg_spool_note n;
    size_t len;
    const void *note = lg_follow_note(x->follow, &len);
    bool have = lg_follow_resumed(x->follow) && len;
    if (have && lg_spool_note_decode(note, len, &n))
        return cli_fail(CLI_FAILED, "%s/position: not of an export", x->g.spool);
    struct lg_spool_options o = { .dir = x->g.spool, .key = x->key, .max = x->g.spool_max, .note = have ? &n : NULL, .say = say, .arg = x };
    int rc = lg_spool_open(&o, &x->spool);
    if (rc == -EKEYREJECTED)
        return cli_fail(CLI_FAILED, "%s: this spool was written with another keyring. Deliver it with that, or remove its *.spool files: the access log has what was in them", x->g.spool);
    if (!rc)
        rc = lg_studies_new(x->keyd, &x->studies);
    if (rc)
        return cli_fail(CLI_FAILED, "%s: %s", x->g.spool, strerror(-rc));
    x->unsaved = true; /* from here on nothing is missed */
    keep(x);
    return x->unsaved ? CLI_FAILED : CLI_OK;
}

static int start(struct exporter *x)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    signal(SIGPIPE, SIG_IGN);
    umask(077);
    openlog("leadglass-export", LOG_PID, LOG_AUTHPRIV);
    if (sigprocmask(SIG_BLOCK, &set, NULL) || (x->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return cli_fail(CLI_FAILED, "%s", strerror(errno));
    if (gethostname(x->host, sizeof x->host - 1) || !x->host[0])
        snprintf(x->host, sizeof x->host, "localhost");
    x->source = (struct lg_dicom_source){ .id = x->g.source[0] ? x->g.source : x->host, .site = x->g.site, .host = x->host, .log = x->dir };
    int code = find_log(x);
    if (!code)
        code = open_log(x);
    if (!code)
        code = announce(x);
    if (!code)
        code = open_spool(x);
    if (!code && lg_studies_fill(x->studies))
        say(x, LOG_WARNING, "the studies cannot be listed now: those that are destroyed before they are used again are named by their key's id alone");
    if (!code)
        because(x, IN, LOG_NOTICE, "%s", "");
    return code;
}

static void going(struct exporter *x)
{
    while (!x->stop) {
        bool more = take(x);
        keep(x);
        more = give(x) || more;
        if (lg_clock_ms() - x->state_ms >= STATE_MS)
            state_write(x, false);
        rest(x, more ? 0 : LG_FOLLOW_POLL_MS);
    }
    for (int64_t until = lg_clock_ms() + STOP_MS; x->link && lg_clock_ms() < until;) { /* what is under way may arrive, so that it need not come again */
        struct lg_spool_place first = lg_spool_first(x->spool);
        if (!waiting(x, &first))
            break;
        (void)give(x);
        rest(x, 50);
    }
    state_write(x, true);
}

int cli_audit_follow(const struct cli *c)
{
    struct exporter *x = calloc(1, sizeof *x);
    if (!x)
        return cli_fail(CLI_FAILED, "out of memory");
    x->c = c;
    x->signals = -1;
    int code = configure(x);
    if (!code && !c->audit.follow) {
        code = state_show(c, &x->g);
        free(x);
        return code;
    }
    if (!code)
        code = start(x);
    if (!code)
        going(x);
    lg_link_close(x->link);
    lg_studies_free(x->studies);
    lg_spool_close(x->spool);
    lg_follow_close(x->follow);
    lg_secret_free(x->key);
    lg_client_free(x->keyd);
    if (x->signals >= 0)
        close(x->signals);
    free(x);
    return code == STOPPED_BY_SIGNAL ? CLI_OK : code;
}
