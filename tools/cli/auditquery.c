/* leadglass audit query: the records that match, from all chains, in the order of time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auditselect.h"
#include "leadglass/bytes.h"

struct hit {
    int64_t time_us;
    char *text;
};
struct query {
    const struct cli *c;
    struct cli_audit_selection x;
    struct hit *hit;
    size_t n, cap;
    bool no_memory;
};

static cJSON *json(const struct query *q, const char *chain, const struct lg_audit_record *r)
{
    char t[LG_AUDIT_TIME_LEN + 1], id[2 * LG_ID_LEN + 1];
    cJSON *j = cJSON_CreateObject();
    lg_audit_time_text(r->time_us, t);
    cJSON_AddStringToObject(j, "time", t);
    cJSON_AddStringToObject(j, "log", chain);
    cJSON_AddNumberToObject(j, "seq", (double)r->seq);
    cJSON_AddStringToObject(j, "event", r->event);
    if (r->how[0])
        cJSON_AddStringToObject(j, "how", r->how);
    cJSON_AddStringToObject(j, "outcome", lg_audit_outcome_name(r->outcome));
    if (r->has & LG_AUDIT_WHO) {
        cJSON_AddNumberToObject(j, "uid", r->uid);
        cJSON_AddStringToObject(j, "user", r->user);
        cJSON_AddNumberToObject(j, "pid", r->pid);
        cJSON_AddStringToObject(j, "program", r->exe);
    }
    if (r->has & LG_AUDIT_STUDY) {
        const struct cli_audit_study *s = cli_audit_study(&q->x, r->study);
        lg_hex_encode(r->study, LG_ID_LEN, id);
        cJSON_AddStringToObject(j, "key_id", id);
        if (s && s->uid[0]) {
            cJSON_AddStringToObject(j, "study", s->uid);
            cJSON_AddStringToObject(j, "patient", s->patient);
        }
    }
    if (r->has & LG_AUDIT_FILE) {
        lg_hex_encode(r->file, LG_ID_LEN, id);
        cJSON_AddStringToObject(j, "file", id);
    }
    cJSON_AddNumberToObject(j, "count", r->has & LG_AUDIT_COUNT ? (double)r->count : 1);
    if (r->has & LG_AUDIT_MOVED) {
        cJSON_AddNumberToObject(j, "read", (double)r->read);
        cJSON_AddNumberToObject(j, "written", (double)r->written);
    }
    if (r->has & LG_AUDIT_US)
        cJSON_AddNumberToObject(j, "us", (double)r->us);
    if (r->text[0])
        cJSON_AddStringToObject(j, "text", r->text);
    if (r->path[0])
        cJSON_AddStringToObject(j, "path", r->path);
    if (r->target[0])
        cJSON_AddStringToObject(j, "target", r->target);
    return j;
}

static const char *text_of(const cJSON *j, const char *name)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItem(j, name));
    return s ? s : "";
}

void cli_audit_csv(FILE *f, const char *s)
{
    fputs(strchr("=+-@\t\r", s[0]) && s[0] ? "\"'" : "\"", f);
    for (; *s; s++) {
        if (*s == '"')
            putc('"', f);
        putc(*s, f);
    }
    fputs("\",", f);
}

static char *format(const struct query *q, const cJSON *j)
{
    static const char *const columns[] = { "time", "event", "how", "outcome", "user", "program", "study", "patient", "key_id", "file", "text", "log" };
    static const char *const numbers[] = { "uid", "pid", "read", "written", "us" };
    char *out = NULL, uid[16] = "";
    size_t len;
    if (q->c->json)
        return cJSON_PrintUnformatted(j);
    FILE *f = open_memstream(&out, &len);
    if (!f)
        return NULL;
    double count = cJSON_GetNumberValue(cJSON_GetObjectItem(j, "count"));
    if (q->c->query.csv) {
        for (unsigned i = 0; i < sizeof columns / sizeof *columns; i++)
            cli_audit_csv(f, text_of(j, columns[i]));
        fprintf(f, "%.0f", count);
        for (unsigned i = 0; i < sizeof numbers / sizeof *numbers; i++) {
            const cJSON *v = cJSON_GetObjectItem(j, numbers[i]);
            fprintf(f, v ? ",%.0f" : ",", v ? v->valuedouble : 0);
        }
        putc('\r', f);
    } else {
        const char *study = text_of(j, "study"), *user = text_of(j, "user");
        if (!user[0] && cJSON_GetObjectItem(j, "uid"))
            snprintf(uid, sizeof uid, "%.0f", cJSON_GetNumberValue(cJSON_GetObjectItem(j, "uid")));
        fprintf(f, "%.19sZ  %-14s %-6s %-12s %-12s %-28s %s", text_of(j, "time"), text_of(j, "event"), text_of(j, "how"), text_of(j, "outcome"), user[0] ? user : uid, text_of(j, "program"),
                study[0] ? study : text_of(j, "key_id"));
        if (count > 1)
            fprintf(f, "  x%.0f", count);
        if (text_of(j, "text")[0]) { /* written by others: nothing of it may move a cursor */
            fputs("  ", f);
            for (const char *s = text_of(j, "text"); *s; s++)
                putc((unsigned char)*s < 32 || *s == 127 ? '?' : *s, f);
        }
    }
    return fclose(f) ? NULL : out;
}

static int each(void *arg, const char *chain, const struct lg_audit_record *r)
{
    struct query *q = arg;
    if (!cli_audit_wanted(q->c, &q->x, r))
        return 0;
    if (q->n == q->cap) {
        size_t cap = q->cap ? q->cap * 2 : 1024;
        struct hit *more = reallocarray(q->hit, cap, sizeof *more);
        if (!more)
            return -ENOMEM;
        q->hit = more;
        q->cap = cap;
    }
    cJSON *j = json(q, chain, r);
    char *text = j ? format(q, j) : NULL;
    cJSON_Delete(j);
    if (!text)
        return -ENOMEM;
    q->hit[q->n++] = (struct hit){ r->time_us, text };
    return 0;
}

static int by_time(const void *a, const void *b)
{
    int64_t x = ((const struct hit *)a)->time_us, y = ((const struct hit *)b)->time_us;
    return x < y ? -1 : x > y;
}

int cli_audit_query(const struct cli *c)
{
    struct query q = { .c = c };
    int code = cli_audit_selection(c, "query", 0, &q.x);
    if (!code)
        code = cli_audit_each(&q.x, each, &q);
    if (q.n)
        qsort(q.hit, q.n, sizeof *q.hit, by_time);
    size_t first = c->query.limit && q.n > c->query.limit ? q.n - c->query.limit : 0;
    if (!code && c->json)
        fputs("[", stdout);
    if (!code && c->query.csv)
        fputs("time,event,how,outcome,user,program,study,patient,key_id,file,text,log,count,uid,pid,read,written,us\r\n", stdout);
    for (size_t i = 0; i < q.n; i++) {
        if (!code && i >= first)
            printf("%s%s%s", c->json && i > first ? ",\n" : "", q.hit[i].text, c->json ? "" : "\n");
        free(q.hit[i].text);
    }
    if (!code && c->json)
        fputs("]\n", stdout);
    if (!code && first)
        fprintf(stderr, "leadglass: the newest %u of %zu records\n", c->query.limit, q.n);
    if (!code && !q.n && !c->json)
        fputs("leadglass: no record matches\n", stderr);
    if (!code && fflush(stdout))
        code = cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
    free(q.hit);
    cli_audit_selection_done(&q.x);
    return code;
}
