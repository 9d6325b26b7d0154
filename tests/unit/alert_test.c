/* Alerts: every rule fires when it should and not when it should not; holding back; configuration; state; delivery that hangs or fails. Times are made up. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "../../tools/alert/deliver.h"

#define S 1000000ll /* microseconds */
#define NOON 1764072000000000ll /* Tuesday 2025-11-25 12:00 UTC */
#define NIGHT (NOON + 11 * 3600 * S)
#define SUNDAY (NOON + 5 * 86400 * S)

enum { MAX = 4096 };
static struct lg_alert got[MAX];
static unsigned n_got;
static char top[64];

static void raised(void *arg, const struct lg_alert *a)
{
    (void)arg;
    if (n_got < MAX)
        got[n_got] = *a;
    n_got++;
}

static struct lg_alert_config *configured(const char *text)
{
    char path[128], error[1024] = "";
    struct lg_alert_config *c = NULL;
    snprintf(path, sizeof path, "%s/conf", top);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    if (lg_alert_config_load(path, &c, error, sizeof error))
        fail_msg("%s", error);
    return c;
}

static struct lg_alert_config *conf;
static struct lg_alerts *begin(const char *text)
{
    struct lg_alerts *x;
    conf = configured(text);
    n_got = 0;
    assert_int_equal(lg_alerts_new(conf, raised, NULL, &x), 0);
    return x;
}

static void end(struct lg_alerts *x)
{
    lg_alerts_free(x);
    lg_alert_config_free(conf);
}

static int fresh(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "/tmp/alert-XXXXXX");
    return mkdtemp(top) ? 0 : -1;
}

static int clean(void **state)
{
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", top);
    return system(cmd);
}

static uint64_t seq;
static struct lg_audit_record rec(const char *event, const char *how, int outcome, uint32_t uid, int64_t t)
{
    struct lg_audit_record r;
    lg_audit_record_init(&r);
    r.seq = ++seq;
    r.time_us = t;
    memset(r.chain, 0xab, sizeof r.chain);
    snprintf(r.event, sizeof r.event, "%s", event);
    snprintf(r.how, sizeof r.how, "%s", how);
    r.outcome = outcome;
    r.has = LG_AUDIT_WHO;
    r.uid = uid;
    snprintf(r.user, sizeof r.user, "u%u", uid);
    snprintf(r.exe, sizeof r.exe, "/usr/bin/viewer");
    return r;
}

static void put(struct lg_alerts *x, struct lg_audit_record r) { lg_alerts_record(x, "mount-1", &r); }

static void counted(struct lg_alerts *x, struct lg_audit_record r, uint64_t count)
{
    r.has |= LG_AUDIT_COUNT;
    r.count = count;
    put(x, r);
}

static void open_study(struct lg_alerts *x, uint32_t uid, unsigned study, int64_t t)
{
    struct lg_audit_record r = rec("file.open", "read", 0, uid, t);
    r.has |= LG_AUDIT_STUDY;
    memset(r.study, 0, sizeof r.study);
    memcpy(r.study, &study, sizeof study);
    put(x, r);
}

static void is_alert(unsigned n, enum lg_alert_rule rule, enum lg_alert_grade grade)
{
    if (n_got != n)
        fail_msg("%u alerts instead of %u%s%s", n_got, n, n_got ? "; the last: " : "", n_got ? got[(n_got - 1) % MAX].text : "");
    if (n) {
        assert_int_equal(got[n - 1].rule, rule);
        assert_int_equal(got[n - 1].grade, grade);
        assert_true(got[n - 1].text[0] && got[n - 1].id[0] && got[n - 1].subject[0]);
    }
}
#define nothing() is_alert(0, 0, 0)

/* ---- rules ------------------------------------------------------------------------------------------------------------------------------ */

static void off_hours(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[off-hours]\nenabled = yes\ntime = UTC\nhours = 7-19\ndays = mon-fri\nexempt-users = u7, 8\nexempt-programs = /usr/lib/*\n[log-silent]\nenabled = no\n[revoked-study]\nenabled = no\n");
    put(x, rec("file.open", "read", 0, 5, NOON));
    put(x, rec("file.open", "read", 0, 5, NOON + 7 * 3600 * S - 1)); /* 18:59:59.999999 */
    put(x, rec("file.close", "read", 0, 5, NIGHT));
    put(x, rec("file.open", "read", 0, 7, NIGHT));
    put(x, rec("file.open", "read", 0, 8, NIGHT));
    struct lg_audit_record r = rec("file.open", "read", 0, 5, NIGHT);
    snprintf(r.exe, sizeof r.exe, "/usr/lib/backup/rsync");
    put(x, r);
    put(x, rec("file.open", "read", -EKEYREVOKED, 5, NIGHT)); /* he got nothing */
    nothing();
    put(x, rec("file.open", "read", 0, 5, NOON + 7 * 3600 * S)); /* 19:00 */
    is_alert(1, LG_ALERT_OFF_HOURS, LG_ALERT_WARNING);
    assert_string_equal(got[0].subject, "user u5 (5)");
    assert_int_equal(got[0].uid, 5);
    put(x, rec("file.open", "read", 0, 6, SUNDAY));
    is_alert(2, LG_ALERT_OFF_HOURS, LG_ALERT_WARNING);
    end(x);
    x = begin("[off-hours]\nenabled = no\ntime = UTC\n");
    put(x, rec("file.open", "read", 0, 5, NIGHT));
    nothing();
    end(x);
}

static void many_studies(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[many-studies]\nstudies = 10\nwindow = 1h\ngrade = critical\ncooldown = 1s\nexempt-users = 9\n");
    for (unsigned k = 0; k < 100; k++) { /* nine studies, again and again; ten by two users */
        open_study(x, 1, k % 9, NOON + k * S);
        open_study(x, 2, k % 5, NOON + k * S);
        open_study(x, 3, 5 + k % 5, NOON + k * S);
        open_study(x, 9, k, NOON + k * S);
    }
    for (unsigned k = 0; k < 40; k++) /* never ten within the hour */
        open_study(x, 4, k, NOON + 100 * S + k * 400 * S);
    nothing();
    end(x);
    x = begin("[many-studies]\nstudies = 10\nwindow = 1h\ngrade = critical\ncooldown = 1s\n");
    for (unsigned k = 0; k < 9; k++)
        open_study(x, 1, k, NOON + k * 399 * S);
    nothing();
    open_study(x, 1, 9, NOON + 9 * 399 * S);
    is_alert(1, LG_ALERT_MANY_STUDIES, LG_ALERT_CRITICAL);
    assert_int_equal(got[0].count, 10);
    for (unsigned k = 0; k < 9; k++) /* counted anew */
        open_study(x, 1, k, NOON + 3600 * S);
    is_alert(1, LG_ALERT_MANY_STUDIES, LG_ALERT_CRITICAL);
    open_study(x, 1, 77, NOON + 3600 * S);
    is_alert(2, LG_ALERT_MANY_STUDIES, LG_ALERT_CRITICAL);
    end(x);
    x = begin("[many-studies]\nstudies = 20000\nwindow = 1h\n"); /* more pairs than are kept: bounded, and still right for the one who is busy */
    for (unsigned k = 0; k < 200000; k++)
        open_study(x, k % 500, k, NOON + k);
    nothing();
    for (unsigned k = 0; k < 20000; k++)
        open_study(x, 7777, k, NOON + S + k);
    is_alert(1, LG_ALERT_MANY_STUDIES, LG_ALERT_MAJOR);
    end(x);
}

static void mass_change(void **state)
{
    (void)state;
    const char *text = "[mass-change]\nchanges = 100\nwindow = 150s\ncooldown = 1s\nexempt-users = orthanc\n";
    struct lg_alerts *x = begin(text);
    for (unsigned k = 0; k < 1000; k++) {
        put(x, rec("file.open", "create", 0, 1, NOON + k)); /* storing */
        put(x, rec("file.open", "read", 0, 1, NOON + k));
        put(x, rec("file.unlink", "", -EACCES, 1, NOON + k)); /* not done */
        struct lg_audit_record r = rec("file.unlink", "", 0, 2, NOON + k);
        snprintf(r.user, sizeof r.user, "orthanc");
        put(x, r);
    }
    assert_true(n_got == 0 || got[0].rule != LG_ALERT_MASS_CHANGE); /* denials, rightly */
    end(x);
    x = begin(text);
    counted(x, rec("file.unlink", "", 0, 1, NOON), 99);
    counted(x, rec("file.unlink", "", 0, 1, NOON + 200 * S), 99); /* too far apart */
    counted(x, rec("file.unlink", "", 0, 2, NOON + 200 * S), 99); /* another */
    nothing();
    put(x, rec("file.rename", "", 0, 1, NOON + 345 * S)); /* within the window still, by all but the last of its fifteenths */
    is_alert(1, LG_ALERT_MASS_CHANGE, LG_ALERT_CRITICAL);
    assert_int_equal(got[0].count, 100);
    const char *ways[] = { "file.unlink", "file.rename", "file.truncate" };
    for (unsigned k = 0; k < 3; k++) {
        n_got = 0;
        counted(x, rec(ways[k], "", 0, 10 + k, NOON + 400 * S), 100);
        is_alert(1, LG_ALERT_MASS_CHANGE, LG_ALERT_CRITICAL);
    }
    n_got = 0;
    counted(x, rec("file.open", "write", 0, 20, NOON + 400 * S), 100);
    is_alert(1, LG_ALERT_MASS_CHANGE, LG_ALERT_CRITICAL);
    end(x);
}

static void denials(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[denials]\ndenials = 5\nwindow = 1m\noutcomes = EACCES,\n EKEYREVOKED\n[revoked-study]\nenabled = no\n");
    for (unsigned k = 0; k < 20; k++) {
        put(x, rec("study.list", "", 0, 1, NOON + k));
        put(x, rec("file.open", "read", -ENOKEY, 1, NOON + k)); /* not among those asked for */
        put(x, rec("study.list", "", -EACCES, 100 + k, NOON + k)); /* once each */
    }
    for (unsigned k = 0; k < 20; k++)
        put(x, rec("study.list", "", -EACCES, 2, NOON + k * 20 * S)); /* slowly */
    nothing();
    for (unsigned k = 0; k < 4; k++)
        put(x, rec(k & 1 ? "study.list" : "file.open", "", k & 1 ? -EACCES : -EKEYREVOKED, 3, NOON + k * S));
    nothing();
    put(x, rec("slot.add", "", -EACCES, 3, NOON + 5 * S));
    is_alert(1, LG_ALERT_DENIALS, LG_ALERT_WARNING);
    assert_int_equal(got[0].outcome, -EACCES);
    end(x);
}

static void unlock_failed(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[unlock-failed]\nfailures = 3\nwindow = 10m\n");
    put(x, rec("unlock", "", 0, 0, NOON));
    put(x, rec("unlock", "", 0, 0, NOON));
    put(x, rec("unlock", "", -EKEYREJECTED, 0, NOON));
    put(x, rec("unlock", "", 0, 0, NOON + S));
    put(x, rec("unlock", "", -EAGAIN, 0, NOON + S));
    put(x, rec("unlock", "", -EKEYREJECTED, 0, NOON + 1200 * S));
    nothing();
    put(x, rec("unlock", "", -EKEYREJECTED, 0, NOON + 1201 * S));
    put(x, rec("unlock", "", -EAGAIN, 0, NOON + 1202 * S));
    is_alert(1, LG_ALERT_UNLOCK_FAILED, LG_ALERT_MAJOR);
    end(x);
}

static void single_events(void **state)
{
    (void)state;
    static const struct {
        const char *event;
        int outcome;
        enum lg_alert_rule rule;
        enum lg_alert_grade grade;
        const char *other; /* much the same, and no alert */
        int other_outcome;
    } t[] = {
        { "file.tampered", -EIO, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL, "file.lookup", -EIO },
        { "log.failed", -ENOSPC, LG_ALERT_LOG_FAILED, LG_ALERT_CRITICAL, "log.recovered", 0 },
        { "log.space", 0, LG_ALERT_LOG_SPACE, LG_ALERT_MAJOR, "log.segment", 0 },
        { "log.broken", 0, LG_ALERT_LOG_BROKEN, LG_ALERT_CRITICAL, "log.pruned", 0 },
        { "log.fork", -EBADMSG, LG_ALERT_LOG_BROKEN, LG_ALERT_CRITICAL, "log.chain", 0 },
        { "log.clock", 0, LG_ALERT_LOG_CLOCK, LG_ALERT_WARNING, "log.read", 0 },
        { "keyring.clock-frozen", -ENOLCK, LG_ALERT_LOG_CLOCK, LG_ALERT_WARNING, "log.read", 0 },
        { "mirror.degraded", -EIO, LG_ALERT_MIRROR, LG_ALERT_MAJOR, "mirror.in-step", 0 },
        { "keyring.rolled-back", -EBADMSG, LG_ALERT_ROLLBACK, LG_ALERT_CRITICAL, "vault.anchor", -EBADMSG },
        { "file.open", -EKEYREVOKED, LG_ALERT_REVOKED_STUDY, LG_ALERT_WARNING, "file.open", -ENOKEY },
        { "file.lookup", -EKEYREVOKED, LG_ALERT_REVOKED_STUDY, LG_ALERT_WARNING, "key.lease", -EKEYREVOKED }, /* the same access, told by its mount */
        { "study.returned", -EKEYREVOKED, LG_ALERT_RETURNED_STUDY, LG_ALERT_MAJOR, "key.create", 0 },
        { "scrub.found", 0, LG_ALERT_SCRUB, LG_ALERT_MAJOR, "scrub.end", 0 },
    };
    for (size_t i = 0; i < sizeof t / sizeof *t; i++) {
        char off[64];
        struct lg_alerts *x = begin("");
        struct lg_audit_record r = rec(t[i].event, "", t[i].outcome, 0, NOON), o = rec(t[i].other, "", t[i].other_outcome, 0, NOON);
        snprintf(r.text, sizeof r.text, "because\n\x1b[2J of \xff");
        snprintf(r.path, sizeof r.path, "Meier^Anna/secret");
        r.has &= ~(unsigned)LG_AUDIT_WHO;
        put(x, o);
        nothing();
        put(x, r);
        is_alert(1, t[i].rule, t[i].grade);
        char *json = lg_alert_json(&got[0]), line[2048];
        lg_alert_line(&got[0], line, sizeof line);
        assert_null(strstr(json, "Meier"));
        assert_null(strstr(line, "Meier"));
        for (const char *p = line; *p; p++)
            assert_true(*p >= 32 && *p < 127);
        assert_null(strchr(json, '\n'));
        free(json);
        end(x);
        snprintf(off, sizeof off, "[%s]\nenabled = no\n", lg_alert_rule_info(t[i].rule)->name); /* each can be switched off */
        x = begin(off);
        put(x, r);
        nothing();
        end(x);
        snprintf(off, sizeof off, "[%s]\ngrade = warning\n%s = 2\n", lg_alert_rule_info(t[i].rule)->name, lg_alert_rule_info(t[i].rule)->counted);
        x = begin(off);
        put(x, r);
        nothing();
        put(x, r);
        is_alert(1, t[i].rule, LG_ALERT_WARNING);
        end(x);
    }
}

/* Mounted with audit=off: what would have been recorded is not. */
static void unlogged(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("");
    struct lg_audit_record r = rec("config", "", 0, 0, NOON);
    snprintf(r.text, sizeof r.text, "audit.keep=184 audit.on-failure=refuse");
    put(x, r);
    snprintf(r.text, sizeof r.text, "audit.export=audit=off:");
    put(x, r);
    nothing();
    snprintf(r.text, sizeof r.text, "audit=off: NO ACCESS LOG is kept of the mount at /srv/pacs");
    put(x, r);
    is_alert(1, LG_ALERT_LOG_FAILED, LG_ALERT_CRITICAL);
    assert_string_equal(got[0].text, "access goes on without a record: audit=off: NO ACCESS LOG is kept of the mount at /srv/pacs");
    end(x);
    x = begin("[log-failed]\nenabled = no\n");
    put(x, r);
    nothing();
    end(x);
}

static void findings(void **state)
{
    (void)state;
    static const enum lg_audit_verdict all[] = { LG_AUDIT_ALTERED, LG_AUDIT_MISSING, LG_AUDIT_REORDERED, LG_AUDIT_FOREIGN, LG_AUDIT_TRUNCATED, LG_AUDIT_UNREADABLE };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        struct lg_alerts *x = begin("");
        struct lg_audit_problem p = { all[i], 5, 9, 1 };
        lg_alerts_finding(x, "mount-1", &p, NOON);
        is_alert(1, LG_ALERT_LOG_BROKEN, LG_ALERT_CRITICAL);
        end(x);
        x = begin("[log-broken]\nenabled = no\n");
        lg_alerts_finding(x, "mount-1", &p, NOON);
        nothing();
        end(x);
    }
}

static void log_silent(void **state)
{
    (void)state;
    static uint8_t buf[4 << 20];
    const int64_t hour = 3600 * S;
    struct lg_alerts *x = begin("[log-silent]\nwindow = 2h\n"), *y;
    lg_alerts_tick(x, NOON);
    lg_alerts_tick(x, NOON + 100 * hour); /* not listening yet */
    nothing();
    lg_alerts_begin(x, NOON);
    lg_alerts_tick(x, NOON + 2 * hour - 1);
    put(x, rec("file.open", "read", 0, 1, NOON + 2 * hour - 1));
    lg_alerts_begin(x, NOON); /* it is later already */
    lg_alerts_tick(x, NOON + 4 * hour - 2);
    counted(x, rec("file.open", "read", 0, 1, NOON + 3 * hour), 5); /* one that was late */
    put(x, rec("file.open", "read", 0, 1, NOON + 4 * hour - 2));
    nothing();
    lg_alerts_tick(x, NOON + 6 * hour);
    is_alert(1, LG_ALERT_LOG_SILENT, LG_ALERT_WARNING);
    lg_alerts_tick(x, NOON + 60 * hour); /* once */
    is_alert(1, LG_ALERT_LOG_SILENT, LG_ALERT_WARNING);
    struct lg_wr w = lg_wr(buf, sizeof buf);
    lg_alerts_save_silence(x, &w);
    assert_int_equal(lg_alerts_new(conf, raised, NULL, &y), 0);
    struct lg_rd r = lg_rd(buf, w.len);
    assert_int_equal(lg_alerts_load_silence(y, &r), 0);
    assert_true(lg_rd_done(&r));
    lg_alerts_begin(y, NOON + 60 * hour);
    lg_alerts_tick(y, NOON + 61 * hour); /* over a restart too */
    is_alert(1, LG_ALERT_LOG_SILENT, LG_ALERT_WARNING);
    put(y, rec("file.open", "read", 0, 1, NOON + 61 * hour));
    put(y, rec("file.open", "read", 0, 1, NOON + 100 * hour)); /* as it would have been seen live */
    is_alert(2, LG_ALERT_LOG_SILENT, LG_ALERT_WARNING);
    for (size_t cut = 0; cut < w.len; cut++) {
        r = lg_rd(buf, cut);
        assert_int_equal(lg_alerts_load_silence(y, &r), -EPROTO);
    }
    lg_alerts_free(y);
    end(x);
    x = begin("[log-silent]\nenabled = no\n");
    lg_alerts_begin(x, NOON);
    lg_alerts_tick(x, NOON + 1000 * hour);
    nothing();
    end(x);
}

static void log_unsigned(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[log-unsigned]\nwindow = 10m\ncooldown = 1s\n");
    const int64_t minute = 60 * S;
    lg_alerts_signed(x, "mount-1", 100, NOON - 1000 * minute, 100, NOON); /* old, and signed */
    for (int i = 0; i < 60; i++) /* busy: heads are behind, but they come */
        lg_alerts_signed(x, "mount-1", 200 + 10 * (uint64_t)i, NOON + i * minute, 190 + 10 * (uint64_t)i, NOON + i * minute);
    lg_alerts_signed(x, "mount-1", 1000, NOON + 60 * minute, 1000, NOON + 60 * minute);
    lg_alerts_signed(x, "mount-1", 1001, NOON + 61 * minute, 1000, NOON + 61 * minute);
    lg_alerts_signed(x, "mount-1", 1002, NOON + 70 * minute, 1000, NOON + 71 * minute - 1);
    nothing();
    lg_alerts_signed(x, "mount-1", 1003, NOON + 71 * minute, 1000, NOON + 71 * minute);
    is_alert(1, LG_ALERT_LOG_UNSIGNED, LG_ALERT_MAJOR);
    assert_non_null(strstr(got[0].text, "records 1001 to 1003"));
    assert_string_equal(got[0].subject, "mount-1");
    lg_alerts_signed(x, "mount-1", 1004, NOON + 90 * minute, 1000, NOON + 90 * minute); /* once */
    is_alert(1, LG_ALERT_LOG_UNSIGNED, LG_ALERT_MAJOR);
    lg_alerts_signed(x, "mount-1", 1004, NOON + 90 * minute, 1004, NOON + 91 * minute);
    lg_alerts_signed(x, "mount-1", 1005, NOON + 91 * minute, 1004, NOON + 92 * minute);
    lg_alerts_signed(x, "mount-1", 1005, NOON + 91 * minute, 1004, NOON + 101 * minute); /* and again */
    is_alert(2, LG_ALERT_LOG_UNSIGNED, LG_ALERT_MAJOR);
    lg_alerts_signed(x, "keyd", 7, NOON + 50 * minute, 0, NOON + 101 * minute); /* of a log looked at the first time: since its last record */
    is_alert(3, LG_ALERT_LOG_UNSIGNED, LG_ALERT_MAJOR);
    end(x);
    x = begin("[log-unsigned]\nenabled = no\n");
    lg_alerts_signed(x, "keyd", 7, NOON, 0, NOON + 1000 * minute);
    nothing();
    end(x);
}

/* ---- holding back, clocks, restarts ------------------------------------------------------------------------------------------------------ */

static void cooldown(void **state)
{
    (void)state;
    struct lg_alerts *x = begin("[tampering]\ncooldown = 1h\n");
    for (unsigned k = 0; k < 50; k++)
        put(x, rec("file.tampered", "", -EIO, 0, NOON + k * S));
    is_alert(1, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    struct lg_audit_record r = rec("file.tampered", "", -EIO, 0, NOON + 60 * S); /* another subject is not held back */
    lg_alerts_record(x, "mount-2", &r);
    is_alert(2, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    lg_alerts_tick(x, NOON + 3599 * S);
    is_alert(2, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    lg_alerts_tick(x, NOON + 3600 * S);
    is_alert(3, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    assert_int_equal(got[2].held, 49);
    assert_string_equal(got[2].subject, "mount-1");
    assert_string_not_equal(got[2].id, got[0].id);
    lg_alerts_tick(x, NOON + 9999 * S); /* told once */
    is_alert(3, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    put(x, rec("file.tampered", "", -EIO, 0, NOON + 20000 * S));
    is_alert(4, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    assert_int_equal(got[3].held, 0);
    /* A clock set back by a day silences nobody. */
    put(x, rec("file.tampered", "", -EIO, 0, NOON - 86400 * S));
    is_alert(5, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    end(x);
    x = begin("[denials]\ndenials = 3\nwindow = 1m\n"); /* nor does it keep a count from growing */
    put(x, rec("study.list", "", -EACCES, 1, NOON));
    for (unsigned k = 0; k < 3; k++)
        put(x, rec("study.list", "", -EACCES, 1, NOON - 86400 * S + k));
    is_alert(1, LG_ALERT_DENIALS, LG_ALERT_WARNING);
    end(x);
    x = begin(""); /* more subjects than are remembered: told rather than lost */
    for (unsigned k = 0; k < 600; k++) {
        char chain[32];
        snprintf(chain, sizeof chain, "mount-%u", k);
        r = rec("file.tampered", "", -EIO, 0, NOON + k);
        lg_alerts_record(x, chain, &r);
        lg_alerts_record(x, chain, &r);
    }
    unsigned held = 0;
    for (unsigned k = 0; k < n_got; k++)
        held += got[k].held != 0;
    assert_int_equal(n_got, 600 + held);
    assert_true(held == 600 - 512);
    end(x);
}

static void restart(void **state)
{
    (void)state;
    static uint8_t buf[4 << 20];
    const char *text = "[denials]\ndenials = 6\nwindow = 1m\n[many-studies]\nstudies = 6\n";
    struct lg_alerts *x = begin(text), *y;
    for (unsigned k = 0; k < 3; k++) {
        put(x, rec("study.list", "", -EACCES, 1, NOON + k));
        open_study(x, 1, k, NOON + k);
    }
    put(x, rec("file.tampered", "", -EIO, 0, NOON));
    put(x, rec("file.tampered", "", -EIO, 0, NOON + S));
    is_alert(1, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    struct lg_wr w = lg_wr(buf, sizeof buf);
    lg_alerts_save(x, &w);
    assert_false(w.bad);
    assert_int_equal(lg_alerts_new(conf, raised, NULL, &y), 0);
    struct lg_rd r = lg_rd(buf, w.len);
    assert_int_equal(lg_alerts_load(y, &r), 0);
    assert_true(lg_rd_done(&r));
    for (unsigned k = 3; k < 5; k++) {
        put(y, rec("study.list", "", -EACCES, 1, NOON + k));
        open_study(y, 1, k, NOON + k);
    }
    put(y, rec("file.tampered", "", -EIO, 0, NOON + 2 * S)); /* still held back */
    is_alert(1, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    open_study(y, 1, 1, NOON + 6);
    is_alert(1, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    open_study(y, 1, 9, NOON + 6);
    is_alert(2, LG_ALERT_MANY_STUDIES, LG_ALERT_MAJOR);
    put(y, rec("study.list", "", -EACCES, 1, NOON + 7));
    is_alert(3, LG_ALERT_DENIALS, LG_ALERT_WARNING);
    lg_alerts_tick(y, NOON + 3600 * S);
    is_alert(4, LG_ALERT_TAMPERING, LG_ALERT_CRITICAL);
    assert_int_equal(got[3].held, 2);
    lg_alerts_free(y);
    for (size_t cut = 0; cut < w.len; cut++) { /* whatever is cut off: no crash, and as new */
        assert_int_equal(lg_alerts_new(conf, raised, NULL, &y), 0);
        r = lg_rd(buf, cut);
        assert_int_equal(lg_alerts_load(y, &r), -EPROTO);
        lg_alerts_free(y);
    }
    end(x);
}

/* ---- configuration ----------------------------------------------------------------------------------------------------------------------- */

static void configuration(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says[3];
    } bad[] = {
        { "[denials]\n\nwindow = 9x\n", { "conf:3:", "9x", "1s to 7d" } },
        { "[denials]\ndenials = 0\n", { "conf:2:", "0", "1 to 100000000" } },
        { "[denials]\nopens = 5\n", { "conf:2:", "opens", "denials" } },
        { "[denials]\noutcomes = EACCES, EFOO\n", { "conf:2:", "EFOO", "EACCES" } },
        { "[log-silent]\nfindings = 3\n", { "conf:2:", "findings", "window" } },
        { "[tampering]\nexempt-users = a\n", { "conf:2:", "exempt-users", "findings" } },
        { "[off-hours]\nhours = 19-7\n", { "conf:2:", "19-7", "7-19" } },
        { "[off-hours]\nhours = 7-24:30\n", { "conf:2:", "24:30", "7-19" } },
        { "[off-hours]\ndays = mon-fry\n", { "conf:2:", "mon-fry", "mon-fri" } },
        { "[off-hours]\ntime = CET\n", { "conf:2:", "CET", "UTC" } },
        { "[of-hours]\nhours = 7-19\n", { "conf:2:", "of-hours", "off-hours" } },
        { "[syslog]\nfacility = kern\n", { "conf:2:", "kern", "local0" } },
        { "[syslog]\nsocket = log\n", { "conf:2:", "log", "absolute" } },
        { "[program]\npath = page\n", { "conf:2:", "page", "absolute" } },
        { "[program]\npath = /etc/passwd\n", { "/etc/passwd", "run", "conf" } },
        { "[program]\npath = /nowhere/x\n", { "/nowhere/x", "No such", "conf" } },
        { "[program]\nattempts = 0\n", { "conf:2:", "0", "1 to 100" } },
        { "[mass-change]\ngrade = fatal\n", { "conf:2:", "fatal", "critical" } },
        { "[mass-change]\nenabled = maybe\n", { "conf:2:", "maybe", "yes or no" } },
        { "[mass-change]\nenabled\n", { "conf:2:", "expected", "name = value" } },
        { "[watch]\nstat = /x\n", { "conf:2:", "stat", "state" } },
        { "nothing = 1\n", { "conf:1:", "section", "off-hours" } },
    };
    char path[128], error[1024];
    struct lg_alert_config *c;
    snprintf(path, sizeof path, "%s/conf", top);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        FILE *f = fopen(path, "w");
        fputs(bad[i].text, f);
        fclose(f);
        assert_int_equal(lg_alert_config_load(path, &c, error, sizeof error), -EINVAL);
        for (unsigned k = 0; k < 3; k++)
            if (!strstr(error, bad[i].says[k]))
                fail_msg("%s\n  does not say %s of\n%s", error, bad[i].says[k], bad[i].text);
    }
    assert_int_equal(lg_alert_config_load("/nowhere/conf", &c, error, sizeof error), -ENOENT);
    assert_non_null(strstr(error, "/nowhere/conf"));
    char script[128];
    snprintf(script, sizeof script, "%s/script", top);
    FILE *f = fopen(script, "w");
    fputs("#!/bin/sh\n", f);
    fclose(f);
    chmod(script, 0777);
    f = fopen(path, "w");
    fprintf(f, "[program]\npath = %s\n", script);
    fclose(f);
    assert_int_equal(lg_alert_config_load(path, &c, error, sizeof error), -EINVAL); /* anybody could change it */
    chmod(script, 0755);
    assert_int_equal(lg_alert_config_load(path, &c, error, sizeof error), 0);
    lg_alert_config_free(c);
    c = configured("[off-hours]\nhours = 07:30-18\ndays = sat, mon-wed\n[syslog]\nfacility = local3\ngrade = major\n[many-studies]\nwindow = 2d\nexempt-users = a b,\n  c\n");
    assert_int_equal(c->hours_from, 450);
    assert_int_equal(c->hours_to, 1080);
    assert_int_equal(c->days, 0x4e);
    assert_int_equal(c->facility, LOG_LOCAL3);
    assert_int_equal(c->rule[LG_ALERT_MANY_STUDIES].window_s, 2 * 86400);
    assert_int_equal(c->rule[LG_ALERT_MANY_STUDIES].users.n, 3);
    lg_alert_config_free(c);
    /* What is shipped says what holds without it. */
    struct lg_alert_config *a, *b;
    assert_int_equal(lg_alert_config_load(LG_SOURCE "/packaging/audit.conf", &a, error, sizeof error), 0);
    assert_int_equal(lg_alert_config_load(NULL, &b, error, sizeof error), 0);
    assert_memory_equal(a, b, sizeof *a);
    lg_alert_config_free(a);
    lg_alert_config_free(b);
}

/* ---- delivery -------------------------------------------------------------------------------------------------------------------------------- */

static unsigned failures;
static char failure[32];
static void failed(void *arg, const char *subject, const char *text)
{
    (void)arg;
    assert_true(text[0]);
    snprintf(failure, sizeof failure, "%s", subject);
    failures++;
}

static struct lg_delivery *delivery(const char *script, const char *more)
{
    char path[128], text[512];
    struct lg_delivery *d;
    snprintf(path, sizeof path, "%s/script", top);
    FILE *f = fopen(path, "w");
    fprintf(f, "#!/bin/sh\n%s\n", script);
    fclose(f);
    chmod(path, 0755);
    snprintf(text, sizeof text, "[program]\npath = %s\ntimeout = 10s\nretry = 60s\nattempts = 3\n[syslog]\nsocket = %s/log\n%s", path, top, more);
    conf = configured(text);
    failures = 0;
    assert_int_equal(lg_delivery_new(conf, failed, NULL, &d), 0);
    return d;
}

static struct lg_alert alert(unsigned n, enum lg_alert_grade grade)
{
    struct lg_alert a = { .rule = LG_ALERT_TAMPERING, .grade = grade, .time_us = NOON, .count = n, .has_user = true, .uid = 5 };
    snprintf(a.id, sizeof a.id, "tampering-%u", n);
    snprintf(a.subject, sizeof a.subject, "mount-1");
    snprintf(a.text, sizeof a.text, "say \"hi\" \\ there");
    return a;
}

/* Until nothing runs; the clock stands still meanwhile. */
static void ended(struct lg_delivery *d, int64_t now_ms)
{
    struct pollfd p[LG_DELIVERY_RUNNING];
    for (unsigned i = 0; i < 1000 && (lg_delivery_run(d, now_ms), lg_delivery_running(d)); i++)
        (void)poll(p, lg_delivery_fds(d, p), 1000);
    assert_int_equal(lg_delivery_running(d), 0);
}

static int listening(void)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    int s = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0);
    snprintf(a.sun_path, sizeof a.sun_path, "%s/log", top);
    unlink(a.sun_path);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    return s;
}

static char *heard(int s)
{
    static char buf[4096];
    ssize_t n = recv(s, buf, sizeof buf - 1, 0);
    buf[n > 0 ? n : 0] = 0;
    return buf;
}

static size_t said(const char *name, char *out, size_t cap)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", top, name);
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? 0 : read(fd, out, cap - 1);
    if (fd >= 0)
        close(fd);
    out[n > 0 ? n : 0] = 0;
    return n > 0 ? (size_t)n : 0;
}

static void delivers(void **state)
{
    (void)state;
    char out[4096], script[512];
    int s = listening();
    snprintf(script, sizeof script, "cat >%s/in; tr '\\0' '\\n' </proc/$$/environ >%s/env; ls /proc/$$/fd >%s/fds", top, top, top);
    struct lg_delivery *d = delivery(script, "facility = local0\n");
    struct lg_alert a = alert(1, LG_ALERT_CRITICAL);
    setenv("SECRET", "x", 1);
    lg_delivery_add(d, &a);
    assert_true(lg_delivery_changed(d));
    ended(d, 0);
    assert_int_equal(lg_delivery_waiting(d), 0);
    said("in", out, sizeof out);
    char *json = lg_alert_json(&a);
    assert_string_equal(out, json);
    free(json);
    said("env", out, sizeof out);
    assert_null(strstr(out, "SECRET"));
    assert_non_null(strstr(out, "LEADGLASS_ALERT_GRADE=critical"));
    said("fds", out, sizeof out);
    assert_null(strstr(out, "3\n4\n"));
    assert_memory_equal(heard(s), "<130>", 5); /* local0 (16) times 8, critical (2) */
    a = alert(2, LG_ALERT_MAJOR);
    lg_delivery_add(d, &a);
    ended(d, 0);
    char *msg = heard(s);
    assert_memory_equal(msg, "<131>", 5);
    assert_non_null(strstr(msg, "rule=tampering"));
    assert_non_null(strstr(msg, "say 'hi' ' there"));
    a.rule = LG_ALERT_DELIVERY; /* by syslog alone */
    said("in", out, sizeof out);
    lg_delivery_add(d, &a);
    ended(d, 0);
    assert_non_null(strstr(heard(s), "rule=delivery"));
    char again[4096];
    said("in", again, sizeof again);
    assert_string_equal(out, again);
    assert_int_equal(failures, 0);
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    d = delivery("exit 0", "grade = critical\n"); /* the last section is syslog */
    a = alert(3, LG_ALERT_MAJOR);
    lg_delivery_add(d, &a);
    ended(d, 0);
    assert_string_equal(heard(s), "");
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    close(s);
}

/* A watch that was started with standard descriptors closed: every combination of them. */
static void closed_descriptors(void **state)
{
    (void)state;
    char path[128], out[64], script[256];
    snprintf(script, sizeof script, "x=$(cat) && echo said && echo \"$x\" >%s/closed", top);
    struct lg_delivery *d = delivery(script, ""); /* writes the script */
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    for (unsigned which = 0; which < 8; which++) {
        snprintf(path, sizeof path, "%s/closed", top);
        unlink(path);
        pid_t pid = fork(), program;
        if (!pid) {
            static char *const env[] = { NULL };
            int fd, status;
            for (int k = 0; k < 3; k++)
                if (which >> k & 1)
                    close(k);
            snprintf(path, sizeof path, "%s/script", top);
            if (lg_spawn(path, "hello", 5, env, &program, &fd) || waitpid(program, &status, 0) != program)
                _exit(2);
            _exit(WIFEXITED(status) ? WEXITSTATUS(status) : 3);
        }
        int status;
        assert_int_equal(waitpid(pid, &status, 0), pid);
        said("closed", out, sizeof out);
        if (status || strcmp(out, "hello\n") != 0)
            fail_msg("closed %x: status %x, it read %s", which, status, out);
    }
}

static void retries(void **state)
{
    (void)state;
    struct lg_delivery *d = delivery("exit 3", "enabled = no\n");
    struct lg_alert a = alert(1, LG_ALERT_MAJOR);
    lg_delivery_add(d, &a);
    ended(d, 0);
    assert_int_equal(failures, 1);
    assert_string_equal(failure, "program");
    ended(d, 59999); /* not yet */
    assert_int_equal(failures, 1);
    ended(d, 60000);
    assert_int_equal(failures, 2);
    ended(d, 60000 + 119999); /* twice as long */
    assert_int_equal(failures, 2);
    ended(d, 60000 + 120000);
    assert_int_equal(failures, 3);
    assert_string_equal(failure, "program, given up");
    assert_int_equal(lg_delivery_waiting(d), 0);
    lg_delivery_free(d);
    lg_alert_config_free(conf);
}

static void hangs(void **state)
{
    (void)state;
    char script[256], out[4096];
    int s = listening();
    /* the first two hang, with a child of their own each; others do not wait for them */
    snprintf(script, sizeof script, "read -r x; case $x in *tampering-[12]\\\"*) sleep 1000 & echo $! >>%s/children; sleep 1000;; *) echo x >>%s/done;; esac", top, top);
    struct lg_delivery *d = delivery(script, "");
    for (unsigned k = 1; k <= 7; k++) {
        struct lg_alert a = alert(k, LG_ALERT_MAJOR);
        lg_delivery_add(d, &a);
    }
    struct pollfd p[LG_DELIVERY_RUNNING];
    for (unsigned i = 0; i < 1000 && (lg_delivery_run(d, 0), said("done", out, sizeof out) < 10 || lg_delivery_waiting(d) > 2); i++)
        (void)poll(p, lg_delivery_fds(d, p), 100);
    assert_int_equal(said("done", out, sizeof out), 10);
    assert_int_equal(lg_delivery_waiting(d), 2);
    assert_int_equal(lg_delivery_running(d), 2);
    for (unsigned k = 1; k <= 7; k++) /* syslog had them all */
        assert_non_null(strstr(heard(s), "rule=tampering"));
    lg_delivery_run(d, 9999);
    assert_int_equal(lg_delivery_running(d), 2);
    ended(d, 10000);
    said("children", out, sizeof out); /* these were killed with them */
    char *rest = out;
    for (unsigned k = 0; k < 2; k++) {
        char stat[64], now = 0;
        snprintf(stat, sizeof stat, "/proc/%ld/stat", strtol(rest, &rest, 10));
        for (unsigned i = 0; i < 3000 && now != 'Z' && now != '-'; i++, usleep(20000)) {
            FILE *f = fopen(stat, "r");
            now = '-';
            if (f && fscanf(f, "%*d (%*[^)]) %c", &now) != 1)
                now = '-';
            if (f)
                fclose(f);
        }
        assert_true(now == 'Z' || now == '-');
    }
    assert_int_equal(failures, 2);
    assert_int_equal(lg_delivery_waiting(d), 2);
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    close(s);
}

static void no_receiver(void **state)
{
    (void)state;
    struct lg_delivery *d = delivery("exit 0", "");
    struct lg_alert a = alert(1, LG_ALERT_MAJOR);
    char path[128];
    snprintf(path, sizeof path, "%s/log", top);
    unlink(path);
    lg_delivery_add(d, &a);
    ended(d, 0);
    assert_int_equal(failures, 1);
    assert_int_equal(lg_delivery_waiting(d), 1);
    int s = listening();
    lg_delivery_run(d, 500); /* every second */
    assert_string_equal(heard(s), "");
    lg_delivery_run(d, 1000);
    assert_non_null(strstr(heard(s), "rule=tampering"));
    assert_int_equal(lg_delivery_waiting(d), 0);
    for (unsigned k = 0; k < 900; k++) { /* one that does not read: nobody waits for it */
        a = alert(k, LG_ALERT_MAJOR);
        lg_delivery_add(d, &a);
    }
    for (int64_t t = 0; t < 100; t++)
        lg_delivery_run(d, 2000 + t);
    assert_true(lg_delivery_waiting(d) > 0);
    unsigned n = 0;
    for (int64_t t = 0; t < 1000 && n < 900; t++) { /* and then everything, once, in order */
        for (char *m; *(m = heard(s)); n++) {
            char want[32];
            snprintf(want, sizeof want, "id=tampering-%u", n);
            assert_non_null(strstr(m, want));
        }
        lg_delivery_run(d, 5000 + t * 1000);
    }
    assert_int_equal(n, 900);
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    close(s);
}

static void queue(void **state)
{
    (void)state;
    static uint8_t buf[4 << 20];
    struct lg_delivery *d = delivery("exit 0", "enabled = no\n");
    lg_delivery_close(d); /* nothing is started: it fills */
    for (unsigned k = 0; k < LG_DELIVERY_QUEUE; k++) {
        struct lg_alert a = alert(k, k < 10 ? LG_ALERT_WARNING : LG_ALERT_MAJOR);
        lg_delivery_add(d, &a);
    }
    struct lg_alert a = alert(9999, LG_ALERT_CRITICAL);
    lg_delivery_add(d, &a);
    assert_int_equal(lg_delivery_waiting(d), LG_DELIVERY_QUEUE);
    lg_delivery_run(d, 0);
    assert_int_equal(failures, 1);
    assert_string_equal(failure, "queue");
    struct lg_wr w = lg_wr(buf, sizeof buf);
    lg_delivery_save(d, &w);
    assert_false(w.bad);
    lg_delivery_free(d);
    lg_alert_config_free(conf);
    d = delivery("exit 0", "enabled = no\n");
    struct lg_rd r = lg_rd(buf, w.len);
    assert_int_equal(lg_delivery_load(d, &r), 0);
    assert_true(lg_rd_done(&r));
    assert_int_equal(lg_delivery_waiting(d), LG_DELIVERY_QUEUE);
    lg_delivery_free(d);
    assert_int_equal(lg_delivery_new(conf, failed, NULL, &d), 0);
    for (size_t cut = 0; cut < 4000; cut++) {
        r = lg_rd(buf, cut);
        assert_int_equal(lg_delivery_load(d, &r), -EPROTO);
        assert_int_equal(lg_delivery_waiting(d), 0);
    }
    lg_delivery_free(d);
    lg_alert_config_free(conf);
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, fresh, clean)
    const struct CMUnitTest tests[] = { TEST(off_hours), TEST(many_studies), TEST(mass_change), TEST(denials),       TEST(unlock_failed), TEST(single_events), TEST(unlogged), TEST(findings), TEST(log_silent), TEST(log_unsigned), TEST(cooldown),
                                        TEST(restart),   TEST(configuration), TEST(delivers),   TEST(closed_descriptors), TEST(retries), TEST(hangs),         TEST(no_receiver),   TEST(queue) };
    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
