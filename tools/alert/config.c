/* The configuration of alerts: one section per rule, and those of delivery. docs/man/leadglass-audit.conf.5 describes it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "alert.h"
#include "leadglass/config.h"

static const struct lg_alert_rule_info infos[LG_ALERT_RULES] = {
    [LG_ALERT_OFF_HOURS] = { "off-hours", "opens", "files opened outside working hours", true, true, LG_ALERT_WARNING, 1, 1000000, 3600, 12 * 3600 },
    [LG_ALERT_MANY_STUDIES] = { "many-studies", "studies", "one user opens unusually many different studies", false, true, LG_ALERT_MAJOR, 300, 20000, 3600, 3600 },
    [LG_ALERT_MASS_CHANGE] = { "mass-change", "changes", "one user overwrites, renames or removes very many files", false, true, LG_ALERT_CRITICAL, 5000, 100000000, 600, 600 },
    [LG_ALERT_DENIALS] = { "denials", "denials", "one user is refused again and again", false, true, LG_ALERT_WARNING, 20, 100000000, 600, 3600 },
    [LG_ALERT_UNLOCK_FAILED] = { "unlock-failed", "failures", "wrong passphrases", false, false, LG_ALERT_MAJOR, 3, 100000, 600, 600 },
    [LG_ALERT_REVOKED_STUDY] = { "revoked-study", "requests", "a file of a revoked or destroyed study is opened", false, false, LG_ALERT_WARNING, 1, 100000000, 3600, 3600 },
    [LG_ALERT_TAMPERING] = { "tampering", "findings", "a file was changed beneath the mount", false, false, LG_ALERT_CRITICAL, 1, 100000, 600, 3600 },
    [LG_ALERT_LOG_FAILED] = { "log-failed", "failures", "records could not be written", false, false, LG_ALERT_CRITICAL, 1, 100000, 600, 600 },
    [LG_ALERT_LOG_SPACE] = { "log-space", "notes", "the access log runs out of space", false, false, LG_ALERT_MAJOR, 1, 100000, 600, 3600 },
    [LG_ALERT_LOG_BROKEN] = { "log-broken", "findings", "the access log was altered, cut off or forked, or cannot be read", false, false, LG_ALERT_CRITICAL, 1, 100000, 600, 3600 },
    [LG_ALERT_LOG_CLOCK] = { "log-clock", "steps", "the clock jumped", false, false, LG_ALERT_WARNING, 1, 100000, 600, 3600 },
    [LG_ALERT_MIRROR] = { "mirror", "failures", "a copy of the keyring has failed or fallen behind", false, false, LG_ALERT_MAJOR, 1, 100000, 600, 3600 },
    [LG_ALERT_ROLLBACK] = { "rollback", "findings", "an older keyring or root-slot file was put in place", false, false, LG_ALERT_CRITICAL, 1, 100000, 600, 3600 },
    [LG_ALERT_DELIVERY] = { "delivery", "failures", "an alert could not be delivered", false, false, LG_ALERT_MAJOR, 1, 100000, 600, 600 },
    [LG_ALERT_RETURNED_STUDY] = { "returned-study", "arrivals", "a revoked or destroyed study arrives again", false, false, LG_ALERT_MAJOR, 1, 100000000, 3600, 3600 },
    [LG_ALERT_SCRUB] = { "scrub", "findings", "a scrub found damage, or what its manifest does not say", false, false, LG_ALERT_MAJOR, 1, 100000000, 86400, 3600 },
    [LG_ALERT_LOG_SILENT] = { "log-silent", NULL, "nothing at all was recorded", false, false, LG_ALERT_WARNING, 1, 1, 3 * 86400, 86400 },
    [LG_ALERT_LOG_UNSIGNED] = { "log-unsigned", NULL, "records are not signed: the keyring is locked, or a daemon is gone", false, false, LG_ALERT_MAJOR, 1, 1, 900, 86400 },
};
const struct lg_alert_rule_info *lg_alert_rule_info(enum lg_alert_rule r) { return &infos[r]; }

static const char *const grades[LG_ALERT_GRADES] = { "warning", "major", "critical" };
const char *lg_alert_grade_name(enum lg_alert_grade g) { return (unsigned)g < LG_ALERT_GRADES ? grades[g] : "?"; }

static const char *const day_names[7] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };

static const struct {
    const char *name;
    int value;
} facilities[] = { { "auth", LOG_AUTH },     { "authpriv", LOG_AUTHPRIV }, { "daemon", LOG_DAEMON }, { "user", LOG_USER },     { "local0", LOG_LOCAL0 }, { "local1", LOG_LOCAL1 },
                   { "local2", LOG_LOCAL2 }, { "local3", LOG_LOCAL3 },     { "local4", LOG_LOCAL4 }, { "local5", LOG_LOCAL5 }, { "local6", LOG_LOCAL6 }, { "local7", LOG_LOCAL7 } };
int lg_alert_facility(const char *name)
{
    for (size_t i = 0; i < sizeof facilities / sizeof *facilities; i++)
        if (strcmp(facilities[i].name, name) == 0)
            return facilities[i].value;
    return -1;
}
const char *lg_alert_facility_name(int facility)
{
    for (size_t i = 0; i < sizeof facilities / sizeof *facilities; i++)
        if (facilities[i].value == facility)
            return facilities[i].name;
    return "?";
}

/* ---- values: true, and *out is set ----------------------------------------------------------------------------------------------------------- */

static bool to_bool(const char *s, bool *out)
{
    bool yes = strcasecmp(s, "yes") == 0 || strcasecmp(s, "on") == 0, no = strcasecmp(s, "no") == 0 || strcasecmp(s, "off") == 0;
    if (yes || no)
        *out = yes;
    return yes || no;
}

static bool to_number(const char *s, unsigned min, unsigned max, unsigned *out)
{
    size_t n = strspn(s, "0123456789");
    if (!n || n > 9 || s[n])
        return false;
    unsigned long v = strtoul(s, NULL, 10);
    if (v < min || v > max)
        return false;
    *out = (unsigned)v;
    return true;
}

static bool to_duration(const char *s, unsigned max_s, unsigned *out)
{
    static const struct {
        char letter;
        unsigned s;
    } units[] = { { 0, 1 }, { 's', 1 }, { 'm', 60 }, { 'h', 3600 }, { 'd', 86400 } };
    size_t n = strspn(s, "0123456789");
    if (!n || n > 9 || (s[n] && s[n + 1]))
        return false;
    for (size_t i = 0; i < sizeof units / sizeof *units; i++)
        if (units[i].letter == s[n]) {
            unsigned long v = strtoul(s, NULL, 10) * units[i].s;
            if (v < 1 || v > max_s)
                return false;
            *out = (unsigned)v;
            return true;
        }
    return false;
}

static bool to_grade(const char *s, enum lg_alert_grade *out)
{
    for (unsigned i = 0; i < LG_ALERT_GRADES; i++)
        if (strcmp(s, grades[i]) == 0) {
            *out = i;
            return true;
        }
    return false;
}

/* 7, 07:30 or 24 */
static bool to_minute(const char *s, size_t n, unsigned *out)
{
    char buf[6];
    unsigned h, m = 0;
    if (!n || n >= sizeof buf)
        return false;
    memcpy(buf, s, n);
    buf[n] = 0;
    char *colon = strchr(buf, ':');
    if (colon)
        *colon = 0;
    if (!to_number(buf, 0, 24, &h) || (colon && !to_number(colon + 1, 0, 59, &m)) || h * 60 + m > 1440)
        return false;
    *out = h * 60 + m;
    return true;
}

static bool to_hours(const char *s, unsigned *from, unsigned *to)
{
    const char *dash = strchr(s, '-');
    unsigned a, b;
    if (!dash || !to_minute(s, (size_t)(dash - s), &a) || !to_minute(dash + 1, strlen(dash + 1), &b) || a >= b)
        return false;
    *from = a;
    *to = b;
    return true;
}

static int day_of(const char *s, size_t n)
{
    for (int i = 0; i < 7; i++)
        if (n == 3 && strncasecmp(s, day_names[i], 3) == 0)
            return i;
    return -1;
}

/* mon-fri, or sat, or several of these with commas */
static bool to_days(const char *s, unsigned *out)
{
    unsigned days = 0;
    for (;;) {
        s += strspn(s, " \t,");
        size_t n = strcspn(s, " \t,");
        if (!n)
            break;
        int a = day_of(s, n < 3 ? n : 3), b = n == 7 && s[3] == '-' ? day_of(s + 4, 3) : n == 3 ? a : -1;
        if (a < 0 || b < 0)
            return false;
        for (int i = a;; i = (i + 1) % 7) {
            days |= 1u << i;
            if (i == b)
                break;
        }
        s += n;
    }
    if (days)
        *out = days;
    return days != 0;
}

static bool to_list(const char *s, struct lg_alert_list *l)
{
    for (;;) {
        s += strspn(s, " \t,");
        size_t n = strcspn(s, " \t,");
        if (!n)
            return true;
        char **more = l->n < LG_ALERT_LIST_MAX ? reallocarray(l->s, l->n + 1, sizeof *more) : NULL;
        if (!more)
            return false;
        l->s = more;
        if (!(l->s[l->n] = strndup(s, n)))
            return false;
        l->n++;
        s += n;
    }
}

/* ---- sections ---------------------------------------------------------------------------------------------------------------------------------- */

struct loading {
    struct lg_alert_config *c;
    bool outcomes_said;
};

static bool wrong(char *error, size_t cap, const char *section, const char *name, const char *value, const char *fmt, ...) LG_PRINTF(6, 7);
static bool wrong(char *error, size_t cap, const char *section, const char *name, const char *value, const char *fmt, ...)
{
    char allowed[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(allowed, sizeof allowed, fmt, ap);
    va_end(ap);
    snprintf(error, cap, "[%.32s] %.32s = %.64s: expected %s", section, name, value, allowed);
    return false;
}

static bool add_outcomes(struct loading *l, const char *s)
{
    struct lg_alert_config *c = l->c;
    if (!l->outcomes_said)
        c->n_outcomes = 0;
    l->outcomes_said = true;
    for (;;) {
        s += strspn(s, " \t,");
        size_t n = strcspn(s, " \t,");
        if (!n)
            return true;
        if (c->n_outcomes == LG_ALERT_OUTCOMES_MAX || lg_audit_outcome_parse(s, n, &c->outcome[c->n_outcomes]) || !c->outcome[c->n_outcomes])
            return false;
        c->n_outcomes++;
        s += n;
    }
}

static bool off_hours(struct lg_alert_config *c, const char *name, const char *v, char *error, size_t cap, bool *ret_known)
{
    *ret_known = true;
    if (strcmp(name, "hours") == 0)
        return to_hours(v, &c->hours_from, &c->hours_to) || wrong(error, cap, "off-hours", name, v, "the working hours, such as 7-19 or 07:30-18:00");
    if (strcmp(name, "days") == 0)
        return to_days(v, &c->days) || wrong(error, cap, "off-hours", name, v, "the working days, such as mon-fri or mon-thu, sat");
    if (strcmp(name, "time") == 0) {
        c->utc = strcasecmp(v, "utc") == 0;
        return c->utc || strcmp(v, "local") == 0 || wrong(error, cap, "off-hours", name, v, "local or UTC");
    }
    *ret_known = false;
    return true;
}

static bool rule(struct loading *l, enum lg_alert_rule id, const char *name, const char *v, char *error, size_t cap)
{
    const struct lg_alert_rule_info *i = &infos[id];
    struct lg_alert_setting *s = &l->c->rule[id];
    bool known = false;
    if (strcmp(name, "enabled") == 0)
        return to_bool(v, &s->on) || wrong(error, cap, i->name, name, v, "yes or no");
    if (strcmp(name, "grade") == 0)
        return to_grade(v, &s->grade) || wrong(error, cap, i->name, name, v, "warning, major or critical");
    if (strcmp(name, "cooldown") == 0)
        return to_duration(v, LG_ALERT_COOLDOWN_MAX_S, &s->cooldown_s) || wrong(error, cap, i->name, name, v, "a time of 1s to 31d, such as 90s, 15m, 2h or 1d");
    if (strcmp(name, "window") == 0)
        return to_duration(v, LG_ALERT_WINDOW_MAX_S, &s->window_s) || wrong(error, cap, i->name, name, v, "a time of 1s to 7d, such as 90s, 15m, 2h or 1d");
    if (i->counted && strcmp(name, i->counted) == 0)
        return to_number(v, 1, i->threshold_max, &s->threshold) || wrong(error, cap, i->name, name, v, "a number from 1 to %u", i->threshold_max);
    if (i->per_user && strcmp(name, "exempt-users") == 0)
        return to_list(v, &s->users) || wrong(error, cap, i->name, name, v, "at most %d names or numbers of users", LG_ALERT_LIST_MAX);
    if (i->per_user && strcmp(name, "exempt-programs") == 0)
        return to_list(v, &s->programs) || wrong(error, cap, i->name, name, v, "at most %d paths of programs (* and ? stand for others)", LG_ALERT_LIST_MAX);
    if (id == LG_ALERT_DENIALS && strcmp(name, "outcomes") == 0)
        return add_outcomes(l, v) || wrong(error, cap, i->name, name, v, "at most %d names of errors, such as EACCES", LG_ALERT_OUTCOMES_MAX);
    if (id == LG_ALERT_OFF_HOURS) {
        bool ok = off_hours(l->c, name, v, error, cap, &known);
        if (known)
            return ok;
    }
    snprintf(error, cap, "[%s] %.32s: there is no such setting; there are enabled, grade, cooldown, window%s%s%s%s", i->name, name, i->counted ? ", " : "", i->counted ? i->counted : "",
             i->per_user ? ", exempt-users, exempt-programs" : "", id == LG_ALERT_DENIALS ? ", outcomes" : id == LG_ALERT_OFF_HOURS ? ", hours, days, time" : "");
    return false;
}

static bool absolute(const char *v, char *out, size_t cap, char *error, size_t ecap, const char *section, const char *name)
{
    if (v[0] != '/' || strlen(v) >= cap)
        return wrong(error, ecap, section, name, v, "an absolute path");
    snprintf(out, cap, "%s", v);
    return true;
}

static bool syslog_section(struct lg_alert_config *c, const char *name, const char *v, char *error, size_t cap)
{
    if (strcmp(name, "enabled") == 0)
        return to_bool(v, &c->syslog) || wrong(error, cap, "syslog", name, v, "yes or no");
    if (strcmp(name, "grade") == 0)
        return to_grade(v, &c->syslog_grade) || wrong(error, cap, "syslog", name, v, "warning, major or critical: the least that is told");
    if (strcmp(name, "facility") == 0) {
        c->facility = lg_alert_facility(v);
        return c->facility >= 0 || wrong(error, cap, "syslog", name, v, "auth, authpriv, daemon, user or local0 to local7");
    }
    if (strcmp(name, "socket") == 0)
        return absolute(v, c->socket, sizeof c->socket, error, cap, "syslog", name);
    snprintf(error, cap, "[syslog] %.32s: there is no such setting; there are enabled, grade, facility, socket", name);
    return false;
}

static bool program_section(struct lg_alert_config *c, const char *name, const char *v, char *error, size_t cap)
{
    if (strcmp(name, "path") == 0)
        return !v[0] || absolute(v, c->program, sizeof c->program, error, cap, "program", name);
    if (strcmp(name, "grade") == 0)
        return to_grade(v, &c->program_grade) || wrong(error, cap, "program", name, v, "warning, major or critical: the least that is told");
    if (strcmp(name, "timeout") == 0)
        return to_duration(v, LG_ALERT_TIMEOUT_MAX_S, &c->timeout_s) || wrong(error, cap, "program", name, v, "a time of 1s to 1h");
    if (strcmp(name, "retry") == 0)
        return to_duration(v, LG_ALERT_TIMEOUT_MAX_S, &c->retry_s) || wrong(error, cap, "program", name, v, "a time of 1s to 1h");
    if (strcmp(name, "attempts") == 0)
        return to_number(v, 1, 100, &c->attempts) || wrong(error, cap, "program", name, v, "a number from 1 to 100");
    snprintf(error, cap, "[program] %.32s: there is no such setting; there are path, grade, timeout, attempts, retry", name);
    return false;
}

static bool watch_section(struct lg_alert_config *c, const char *name, const char *v, char *error, size_t cap)
{
    if (strcmp(name, "state") == 0)
        return absolute(v, c->state, sizeof c->state, error, cap, "watch", name);
    if (strcmp(name, "log") == 0)
        return absolute(v, c->log, sizeof c->log, error, cap, "watch", name);
    snprintf(error, cap, "[watch] %.32s: there is no such setting; there are log, state", name);
    return false;
}

static bool setting(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap)
{
    struct loading *l = arg;
    error[0] = 0;
    for (unsigned i = 0; i < LG_ALERT_RULES; i++)
        if (strcmp(section, infos[i].name) == 0)
            return rule(l, i, name, value, error, cap);
    if (strcmp(section, "syslog") == 0)
        return syslog_section(l->c, name, value, error, cap);
    if (strcmp(section, "program") == 0)
        return program_section(l->c, name, value, error, cap);
    if (strcmp(section, "watch") == 0)
        return watch_section(l->c, name, value, error, cap);
    if (strcmp(section, "export") == 0) /* of audit export, which reads the same file */
        return true;
    size_t n = (size_t)snprintf(error, cap, "[%.32s]: there is no such section; there are watch, export, syslog, program and the rules", section);
    for (unsigned i = 0; i < LG_ALERT_RULES && n < cap; i++)
        n += (size_t)snprintf(error + n, cap - n, "%s %s", i ? "," : "", infos[i].name);
    return false;
}

static void defaults(struct lg_alert_config *c)
{
    for (unsigned i = 0; i < LG_ALERT_RULES; i++)
        c->rule[i] = (struct lg_alert_setting){ .on = !infos[i].off, .grade = infos[i].grade, .threshold = infos[i].threshold, .window_s = infos[i].window_s, .cooldown_s = infos[i].cooldown_s };
    c->hours_from = 7 * 60;
    c->hours_to = 19 * 60;
    c->days = 0x3e;
    c->outcome[0] = -EACCES;
    c->outcome[1] = -EPERM;
    c->outcome[2] = -EKEYREVOKED;
    c->n_outcomes = 3;
    c->syslog = true;
    c->facility = LOG_AUTHPRIV;
    snprintf(c->socket, sizeof c->socket, "/dev/log");
    c->timeout_s = 30;
    c->attempts = 5;
    c->retry_s = 60;
}

/* It runs with our rights: nobody else may say what it does. */
static int check_program(const struct lg_alert_config *c, const char *file, char *error, size_t cap)
{
    struct stat st;
    const char *why = NULL;
    if (!c->program[0])
        return 0;
    if (stat(c->program, &st))
        why = strerror(errno);
    else if (!S_ISREG(st.st_mode) || access(c->program, X_OK))
        why = "not a program that can be run";
    else if (st.st_mode & 022 || (st.st_uid && st.st_uid != geteuid()))
        why = "others than root could change what it does (chown root, chmod go-w)";
    if (why)
        snprintf(error, cap, "%s: [program] path = %.200s: %s", file, c->program, why);
    return why ? -EINVAL : 0;
}

int lg_alert_config_load(const char *file, struct lg_alert_config **ret, char *error, size_t cap)
{
    struct loading l = { .c = calloc(1, sizeof *l.c) };
    if (!l.c) {
        snprintf(error, cap, "out of memory");
        return -ENOMEM;
    }
    defaults(l.c);
    int rc = file ? lg_config_read(file, setting, &l, error, cap) : 0;
    if (!rc)
        rc = check_program(l.c, file, error, cap);
    if (rc) {
        lg_alert_config_free(l.c);
        return rc;
    }
    *ret = l.c;
    return 0;
}

static void list_free(struct lg_alert_list *l)
{
    for (unsigned i = 0; i < l->n; i++)
        free(l->s[i]);
    free(l->s);
}

void lg_alert_config_free(struct lg_alert_config *c)
{
    for (unsigned i = 0; c && i < LG_ALERT_RULES; i++) {
        list_free(&c->rule[i].users);
        list_free(&c->rule[i].programs);
    }
    free(c);
}
