#include "deliver.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { SYSLOG_RETRY_MS = 1000, SYSLOG_TRIES = 600, RETRY_MAX_MS = 3600000 };

struct item {
    struct lg_alert a;
    bool syslog, program; /* still to be done */
    unsigned tries, attempts; /* of syslog, of the program */
    int64_t next_ms;      /* the program's next attempt */
    pid_t pid;            /* 0: not running */
    int pidfd;
    int64_t deadline_ms;
    bool killed;
};

struct lg_delivery {
    const struct lg_alert_config *c;
    void (*failed)(void *arg, const char *subject, const char *text);
    void *arg;
    struct item *q[LG_DELIVERY_QUEUE]; /* oldest first */
    unsigned n, running;
    unsigned long long dropped;
    bool changed, closing;
    int sock;
    int64_t sock_next_ms;
};

int lg_delivery_new(const struct lg_alert_config *c, void (*failed)(void *arg, const char *subject, const char *text), void *arg, struct lg_delivery **ret)
{
    struct lg_delivery *d = calloc(1, sizeof *d);
    if (!d)
        return -ENOMEM;
    *d = (struct lg_delivery){ .c = c, .failed = failed, .arg = arg, .sock = -1 };
    *ret = d;
    return 0;
}

static void sock_close(struct lg_delivery *d)
{
    if (d->sock >= 0)
        close(d->sock);
    d->sock = -1;
}

static void end_of(struct lg_delivery *d, struct item *i)
{
    if (!i->pid)
        return;
    close(i->pidfd);
    i->pid = 0;
    d->running--;
}

static void drop_all(struct lg_delivery *d)
{
    for (unsigned k = 0; k < d->n; k++) {
        struct item *i = d->q[k];
        if (i->pid) {
            kill(-i->pid, SIGKILL);
            (void)waitpid(i->pid, NULL, 0);
            end_of(d, i);
        }
        free(i);
    }
    d->n = 0;
}

void lg_delivery_free(struct lg_delivery *d)
{
    if (!d)
        return;
    drop_all(d);
    sock_close(d);
    free(d);
}

void lg_delivery_config(struct lg_delivery *d, const struct lg_alert_config *c)
{
    d->c = c;
    d->sock_next_ms = 0;
    sock_close(d);
    for (unsigned k = 0; k < d->n; k++) { /* perhaps what failed works now */
        d->q[k]->next_ms = 0;
        d->q[k]->syslog &= c->syslog;
        d->q[k]->program &= c->program[0] != 0;
    }
}

/* ---- the queue ------------------------------------------------------------------------------------------------------------------------------ */

static void remove_at(struct lg_delivery *d, unsigned k)
{
    free(d->q[k]);
    memmove(&d->q[k], &d->q[k + 1], (--d->n - k) * sizeof *d->q);
    d->changed = true;
}

static bool make_room(struct lg_delivery *d, enum lg_alert_grade grade)
{
    unsigned worst = LG_DELIVERY_QUEUE;
    if (d->n < LG_DELIVERY_QUEUE)
        return true;
    for (unsigned k = 0; k < d->n; k++)
        if (!d->q[k]->pid && d->q[k]->a.grade <= grade && (worst == LG_DELIVERY_QUEUE || d->q[k]->a.grade < d->q[worst]->a.grade))
            worst = k;
    d->dropped++;
    if (worst == LG_DELIVERY_QUEUE)
        return false;
    remove_at(d, worst);
    return true;
}

void lg_delivery_add(struct lg_delivery *d, const struct lg_alert *a)
{
    bool syslog = d->c->syslog && a->grade >= d->c->syslog_grade, program = d->c->program[0] && a->grade >= d->c->program_grade && a->rule != LG_ALERT_DELIVERY;
    if ((!syslog && !program) || !make_room(d, a->grade))
        return;
    struct item *i = calloc(1, sizeof *i);
    if (!i) {
        d->dropped++;
        return;
    }
    i->a = *a;
    i->syslog = syslog;
    i->program = program;
    d->q[d->n++] = i;
    d->changed = true;
}

void lg_delivery_close(struct lg_delivery *d) { d->closing = true; }
unsigned lg_delivery_waiting(const struct lg_delivery *d) { return d->n; }
unsigned lg_delivery_running(const struct lg_delivery *d) { return d->running; }

bool lg_delivery_changed(struct lg_delivery *d)
{
    bool was = d->changed;
    d->changed = false;
    return was;
}

unsigned lg_delivery_fds(const struct lg_delivery *d, struct pollfd *out)
{
    unsigned n = 0;
    for (unsigned k = 0; k < d->n && n < d->running; k++)
        if (d->q[k]->pid)
            out[n++] = (struct pollfd){ .fd = d->q[k]->pidfd, .events = POLLIN };
    return n;
}

/* ---- syslog ----------------------------------------------------------------------------------------------------------------------------------- */

/* Not syslog(3): that waits when whoever receives does not. The form is the same, that of RFC 3164 without a host. */
static int sock_open(struct lg_delivery *d)
{
    struct sockaddr_un to = { .sun_family = AF_UNIX };
    if (d->sock >= 0)
        return 0;
    memcpy(to.sun_path, d->c->socket, strlen(d->c->socket)); /* at most 107 bytes */
    d->sock = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (d->sock >= 0 && connect(d->sock, (struct sockaddr *)&to, sizeof to) == 0)
        return 0;
    int rc = -errno;
    sock_close(d);
    return rc;
}

static int send_syslog(struct lg_delivery *d, const struct lg_alert *a)
{
    static const int levels[LG_ALERT_GRADES] = { LOG_WARNING, LOG_ERR, LOG_CRIT };
    char line[1536], msg[1792], when[32] = "";
    struct tm tm;
    time_t now = time(NULL);
    if (localtime_r(&now, &tm))
        strftime(when, sizeof when, "%b %e %H:%M:%S ", &tm);
    lg_alert_line(a, line, sizeof line);
    int n = snprintf(msg, sizeof msg, "<%d>%sleadglass-alert[%d]: %s", d->c->facility | levels[a->grade], when, (int)getpid(), line);
    int rc = sock_open(d);
    if (!rc && send(d->sock, msg, (size_t)n, MSG_NOSIGNAL | MSG_DONTWAIT) != n)
        rc = -errno;
    if (rc)
        sock_close(d);
    return rc;
}

/* false: not now */
static bool syslog_item(struct lg_delivery *d, struct item *i, int64_t now_ms)
{
    char text[256];
    int rc = send_syslog(d, &i->a);
    if (!rc) {
        i->syslog = false;
        d->changed = true;
        return true;
    }
    d->sock_next_ms = now_ms + SYSLOG_RETRY_MS;
    if (++i->tries == 1 || i->tries >= SYSLOG_TRIES) {
        snprintf(text, sizeof text, "%s: %s; %s", d->c->socket, strerror(-rc), i->tries == 1 ? "it is tried again every second" : "an alert is given up");
        d->failed(d->arg, i->tries == 1 ? "syslog" : "syslog, given up", text);
    }
    if (i->tries >= SYSLOG_TRIES)
        i->syslog = false;
    return false;
}

/* ---- the program --------------------------------------------------------------------------------------------------------------------------------- */

static void attempt_failed(struct lg_delivery *d, struct item *i, int64_t now_ms, const char *why)
{
    char text[512];
    bool over = ++i->attempts >= d->c->attempts;
    int64_t wait_ms = (int64_t)d->c->retry_s * 1000 << (i->attempts < 12 ? i->attempts - 1 : 11);
    i->next_ms = now_ms + (wait_ms > RETRY_MAX_MS ? RETRY_MAX_MS : wait_ms);
    i->program = !over;
    d->changed = true;
    snprintf(text, sizeof text, "%.200s: %.100s; alert %.80s %s (attempt %u of %u)", d->c->program, why, i->a.id, over ? "was NOT delivered to it" : "is tried again", i->attempts, d->c->attempts);
    d->failed(d->arg, over ? "program, given up" : "program", text);
}

static void start(struct lg_delivery *d, struct item *i, int64_t now_ms)
{
    char grade[64], rule[64], *json = lg_alert_json(&i->a);
    snprintf(grade, sizeof grade, "LEADGLASS_ALERT_GRADE=%s", lg_alert_grade_name(i->a.grade));
    snprintf(rule, sizeof rule, "LEADGLASS_ALERT_RULE=%s", lg_alert_rule_info(i->a.rule)->name);
    char *env[] = { grade, rule, NULL };
    int rc = json ? lg_spawn(d->c->program, json, strlen(json), env, &i->pid, &i->pidfd) : -ENOMEM;
    free(json);
    if (rc) {
        attempt_failed(d, i, now_ms, strerror(-rc));
        return;
    }
    i->killed = false;
    i->deadline_ms = now_ms + (int64_t)d->c->timeout_s * 1000;
    d->running++;
}

static void reap(struct lg_delivery *d, struct item *i, int64_t now_ms)
{
    siginfo_t si = { .si_pid = 0 };
    char why[64];
    if (waitid(P_PID, (id_t)i->pid, &si, WEXITED | WNOHANG) || !si.si_pid) {
        if (!i->killed && now_ms >= i->deadline_ms) {
            kill(-i->pid, SIGKILL);
            i->killed = true;
        }
        return;
    }
    end_of(d, i);
    if (si.si_code == CLD_EXITED && si.si_status == 0) {
        i->program = false;
        d->changed = true;
        return;
    }
    if (i->killed)
        snprintf(why, sizeof why, "did not end within %u s and was killed", d->c->timeout_s);
    else if (si.si_code == CLD_EXITED)
        snprintf(why, sizeof why, si.si_status == 127 ? "cannot be started" : "exit status %d", si.si_status);
    else
        snprintf(why, sizeof why, "ended by signal %d", si.si_status);
    attempt_failed(d, i, now_ms, why);
}

void lg_delivery_run(struct lg_delivery *d, int64_t now_ms)
{
    bool syslog = now_ms >= d->sock_next_ms;
    for (unsigned k = 0; k < d->n; k++) {
        struct item *i = d->q[k];
        if (i->syslog && syslog)
            syslog = syslog_item(d, i, now_ms);
        if (i->pid)
            reap(d, i, now_ms);
    }
    for (unsigned k = 0; k < d->n && d->running < LG_DELIVERY_RUNNING && !d->closing; k++)
        if (d->q[k]->program && !d->q[k]->pid && now_ms >= d->q[k]->next_ms)
            start(d, d->q[k], now_ms);
    for (unsigned k = d->n; k-- > 0;)
        if (!d->q[k]->syslog && !d->q[k]->program && !d->q[k]->pid)
            remove_at(d, k);
    if (d->dropped) {
        char text[128];
        snprintf(text, sizeof text, "%llu alerts were dropped: more than %d wait", d->dropped, LG_DELIVERY_QUEUE);
        d->dropped = 0;
        d->failed(d->arg, "queue", text);
    }
}

/* ---- over a restart ---------------------------------------------------------------------------------------------------------------------------------- */

void lg_delivery_save(const struct lg_delivery *d, struct lg_wr *w)
{
    lg_wr_u32(w, d->n);
    for (unsigned k = 0; k < d->n; k++) {
        const struct item *i = d->q[k];
        lg_wr_u8(w, (i->syslog ? 1 : 0) | (i->program ? 2 : 0));
        lg_wr_u32(w, i->tries);
        lg_wr_u32(w, i->attempts);
        lg_alert_encode(&i->a, w);
    }
}

int lg_delivery_load(struct lg_delivery *d, struct lg_rd *r)
{
    uint32_t n = lg_rd_u32(r);
    if (n > LG_DELIVERY_QUEUE)
        r->bad = true;
    for (uint32_t k = 0; k < n && lg_rd_ok(r); k++) {
        struct item *i = calloc(1, sizeof *i);
        if (!i) {
            drop_all(d);
            return -ENOMEM;
        }
        d->q[d->n++] = i;
        unsigned what = lg_rd_u8(r);
        i->syslog = what & 1 && d->c->syslog;
        i->program = what & 2 && d->c->program[0];
        i->tries = lg_rd_u32(r) % SYSLOG_TRIES;
        i->attempts = lg_rd_u32(r) % 100;
        lg_alert_decode(r, &i->a);
    }
    if (lg_rd_ok(r))
        return 0;
    drop_all(d);
    return -EPROTO;
}
