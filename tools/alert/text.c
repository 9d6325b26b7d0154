#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "alert.h"

struct cJSON *lg_alert_object(const struct lg_alert *a)
{
    char time[LG_AUDIT_TIME_LEN + 1], study[2 * LG_ID_LEN + 1], host[65] = "", clean[65];
    cJSON *j = cJSON_CreateObject();
    lg_audit_time_text(a->time_us, time);
    cJSON_AddNumberToObject(j, "v", 1);
    cJSON_AddStringToObject(j, "id", a->id);
    cJSON_AddStringToObject(j, "rule", lg_alert_rule_info(a->rule)->name);
    cJSON_AddStringToObject(j, "grade", lg_alert_grade_name(a->grade));
    cJSON_AddStringToObject(j, "time", time);
    if (gethostname(host, sizeof host - 1) == 0) {
        lg_alert_clean(host, clean, sizeof clean);
        cJSON_AddStringToObject(j, "host", clean);
    }
    cJSON_AddStringToObject(j, "subject", a->subject);
    cJSON_AddStringToObject(j, "text", a->text);
    cJSON_AddNumberToObject(j, "count", (double)a->count);
    if (a->window_s)
        cJSON_AddNumberToObject(j, "window", a->window_s);
    cJSON_AddNumberToObject(j, "held_back", (double)a->held);
    if (a->has_user) {
        cJSON_AddNumberToObject(j, "uid", a->uid);
        cJSON_AddStringToObject(j, "user", a->user);
        cJSON_AddStringToObject(j, "program", a->exe);
    }
    if (a->has_study) {
        lg_hex_encode(a->study, LG_ID_LEN, study);
        cJSON_AddStringToObject(j, "key_id", study);
    }
    if (a->event[0]) {
        cJSON_AddStringToObject(j, "event", a->event);
        cJSON_AddStringToObject(j, "outcome", lg_audit_outcome_name(a->outcome));
    }
    if (a->chain[0]) {
        cJSON_AddStringToObject(j, "log", a->chain);
        cJSON_AddNumberToObject(j, "seq", (double)a->seq);
    }
    return j;
}

char *lg_alert_json(const struct lg_alert *a)
{
    cJSON *j = lg_alert_object(a);
    char *s = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    return s;
}

struct line {
    char *s;
    size_t n, cap;
};

static void add(struct line *l, const char *fmt, ...) LG_PRINTF(2, 3);
static void add(struct line *l, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(l->s + l->n, l->cap - l->n, fmt, ap);
    va_end(ap);
    l->n = n < 0 ? l->n : l->n + (size_t)n < l->cap ? l->n + (size_t)n : l->cap - 1;
}

static void quoted(struct line *l, const char *name, const char *s)
{
    char buf[LG_ALERT_TEXT + 1];
    snprintf(buf, sizeof buf, "%s", s);
    for (char *p = buf; *p; p++)
        if (*p == '"' || *p == '\\')
            *p = '\'';
    add(l, " %s=\"%s\"", name, buf);
}

void lg_alert_line(const struct lg_alert *a, char *out, size_t cap)
{
    struct line l = { out, 0, cap };
    char study[2 * LG_ID_LEN + 1];
    add(&l, "grade=%s rule=%s", lg_alert_grade_name(a->grade), lg_alert_rule_info(a->rule)->name);
    quoted(&l, "text", a->text);
    if (a->has_user) {
        quoted(&l, "user", a->user);
        add(&l, " uid=%u", a->uid);
        quoted(&l, "program", a->exe);
    }
    add(&l, " count=%llu", (unsigned long long)a->count);
    if (a->window_s)
        add(&l, " window=%u", a->window_s);
    if (a->held)
        add(&l, " held_back=%llu", (unsigned long long)a->held);
    if (a->event[0])
        add(&l, " event=%s outcome=%s", a->event, lg_audit_outcome_name(a->outcome));
    if (a->has_study) {
        lg_hex_encode(a->study, LG_ID_LEN, study);
        add(&l, " key_id=%s", study);
    }
    if (a->chain[0])
        add(&l, " log=%s seq=%llu", a->chain, (unsigned long long)a->seq);
    add(&l, " id=%s", a->id);
}
