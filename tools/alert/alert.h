/* Alerts: what in the access log somebody has to be told of. Rules and counters are pure: records and times in, alerts out. Delivery is deliver.h. */
#ifndef LG_ALERT_H
#define LG_ALERT_H

#include "leadglass/audit.h"
#include "leadglass/bytes.h"

enum lg_alert_grade { LG_ALERT_WARNING, LG_ALERT_MAJOR, LG_ALERT_CRITICAL, LG_ALERT_GRADES };
const char *lg_alert_grade_name(enum lg_alert_grade g);

enum lg_alert_rule {
    LG_ALERT_OFF_HOURS,
    LG_ALERT_MANY_STUDIES,
    LG_ALERT_MASS_CHANGE,
    LG_ALERT_DENIALS,
    LG_ALERT_UNLOCK_FAILED,
    LG_ALERT_REVOKED_STUDY,
    LG_ALERT_TAMPERING,
    LG_ALERT_LOG_FAILED,
    LG_ALERT_LOG_SPACE,
    LG_ALERT_LOG_BROKEN,
    LG_ALERT_LOG_CLOCK,
    LG_ALERT_MIRROR,
    LG_ALERT_ROLLBACK,
    LG_ALERT_DELIVERY, /* an alert could not be delivered; told by syslog alone */
    LG_ALERT_RETURNED_STUDY, /* numbers stand in position files: new ones come last */
    LG_ALERT_SCRUB,
    LG_ALERT_LOG_SILENT,
    LG_ALERT_LOG_UNSIGNED,
    LG_ALERT_RULES,
};
/* What a rule is, and how it stands when the configuration does not say. */
struct lg_alert_rule_info {
    const char *name;      /* its section in the configuration */
    const char *counted;   /* the setting that holds its threshold; NULL: there is none, it fires once something has lasted as long as its window */
    const char *what;      /* for people */
    bool off, per_user;    /* off: unless switched on. per_user: knows exempt-users and exempt-programs, and counts every user by himself */
    enum lg_alert_grade grade;
    unsigned threshold, threshold_max, window_s, cooldown_s;
};
const struct lg_alert_rule_info *lg_alert_rule_info(enum lg_alert_rule r);

/* ---- configuration (config.c) ------------------------------------------------------------------------------------------------------------- */

enum { LG_ALERT_LIST_MAX = 256, LG_ALERT_OUTCOMES_MAX = 32, LG_ALERT_WINDOW_MAX_S = 7 * 86400, LG_ALERT_COOLDOWN_MAX_S = 31 * 86400, LG_ALERT_TIMEOUT_MAX_S = 3600 };

struct lg_alert_list {
    char **s;
    unsigned n;
};
struct lg_alert_setting {
    bool on;
    enum lg_alert_grade grade;
    unsigned threshold, window_s, cooldown_s;
    struct lg_alert_list users, programs; /* exempt: names or numbers; patterns of paths (fnmatch) */
};
struct lg_alert_config {
    struct lg_alert_setting rule[LG_ALERT_RULES];
    unsigned hours_from, hours_to, days; /* minutes of the day, [from, to); bit 0: Sunday */
    bool utc;                            /* else local time */
    int outcome[LG_ALERT_OUTCOMES_MAX];  /* denials: -errno */
    unsigned n_outcomes;
    bool syslog;
    int facility; /* as in syslog.h */
    enum lg_alert_grade syslog_grade;    /* and above */
    char socket[108];
    char program[4096]; /* empty: none */
    enum lg_alert_grade program_grade;
    unsigned timeout_s, attempts, retry_s;
    char log[4096], state[4096]; /* empty: not said */
};
/* file NULL: what holds without any. error: "FILE:LINE: what is wrong, and what is allowed". */
int lg_alert_config_load(const char *file, struct lg_alert_config **ret, char *error, size_t cap) LG_MUST;
void lg_alert_config_free(struct lg_alert_config *c);
int lg_alert_facility(const char *name); /* -1 */
const char *lg_alert_facility_name(int facility);

/* ---- alerts --------------------------------------------------------------------------------------------------------------------------------- */

enum { LG_ALERT_SUBJECT = 79, LG_ALERT_ID = 79, LG_ALERT_TEXT = 383 };
/* Strings hold printable ASCII alone. Nothing here says more than the log does; never a path, a name of a file or the reason of a key action. */
struct lg_alert {
    enum lg_alert_rule rule;
    enum lg_alert_grade grade;
    char id[LG_ALERT_ID + 1]; /* the same whenever the same records are read again */
    char subject[LG_ALERT_SUBJECT + 1]; /* whom or what it is about: repeated alerts of one rule and subject are held back */
    int64_t time_us;          /* of the record that raised it */
    char chain[64];
    uint64_t seq;
    char event[LG_AUDIT_EVENT_MAX + 1];
    int outcome;
    bool has_user, has_study;
    uint32_t uid;
    char user[LG_AUDIT_NAME_MAX + 1], exe[LG_AUDIT_EXE_MAX + 1];
    uint8_t study[LG_ID_LEN];
    uint64_t count;      /* how many made it an alert */
    unsigned window_s;   /* within; 0: one is enough */
    uint64_t held;       /* so many alerts more were held back until time_us */
    char text[LG_ALERT_TEXT + 1];
};

/* Counters of all rules and what is held back. Not thread-safe. Bounded: the busiest 4,096 users are counted at a time, and 65,536 pairs of user and study. */
struct lg_alerts;
int lg_alerts_new(const struct lg_alert_config *c, void (*raise)(void *arg, const struct lg_alert *a), void *arg, struct lg_alerts **ret) LG_MUST;
void lg_alerts_free(struct lg_alerts *x);
/* Other rules from now on; c must outlive x or the next change. */
void lg_alerts_config(struct lg_alerts *x, const struct lg_alert_config *c);
void lg_alerts_record(struct lg_alerts *x, const char *chain, const struct lg_audit_record *r);
/* What following the log has found. */
void lg_alerts_finding(struct lg_alerts *x, const char *chain, const struct lg_audit_problem *p, int64_t now_us);
/* Silence is counted from now on, unless a record was seen before. */
void lg_alerts_begin(struct lg_alerts *x, int64_t now_us);
/* How a chain stands: its last record and when that was, and the last one under a head. To be told every few seconds. */
void lg_alerts_signed(struct lg_alerts *x, const char *chain, uint64_t last, int64_t last_us, uint64_t signed_seq, int64_t now_us);
/* Something of the watch's own: the log cannot be read, an alert not be delivered. */
void lg_alerts_own(struct lg_alerts *x, enum lg_alert_rule rule, const char *subject, const char *text, int64_t now_us);
/* Tells what was held back and whose cool-down has ended, and that nothing was recorded for long. */
void lg_alerts_tick(struct lg_alerts *x, int64_t now_us);
/* Counters and what is held back, to go on with after a restart. Foreign bytes when they come back: -EPROTO, and x is as new. */
void lg_alerts_save(const struct lg_alerts *x, struct lg_wr *w);
int lg_alerts_load(struct lg_alerts *x, struct lg_rd *r) LG_MUST;
/* How long it has been silent: behind the rest, as notes of version 1 have none. */
void lg_alerts_save_silence(const struct lg_alerts *x, struct lg_wr *w);
int lg_alerts_load_silence(struct lg_alerts *x, struct lg_rd *r) LG_MUST;

void lg_alert_encode(const struct lg_alert *a, struct lg_wr *w);
void lg_alert_decode(struct lg_rd *r, struct lg_alert *ret); /* sets r->bad; texts are clean */

/* ---- text (text.c) ------------------------------------------------------------------------------------------------------------------------------ */

/* One JSON object without newline; malloced, NULL: out of memory. */
char *lg_alert_json(const struct lg_alert *a);
struct cJSON *lg_alert_object(const struct lg_alert *a);
/* One line for syslog: name=value pairs. */
void lg_alert_line(const struct lg_alert *a, char *out, size_t cap);
/* Copies what is printable ASCII; everything else becomes '?'. out may be s. */
void lg_alert_clean(const char *s, char *out, size_t cap);

#endif
