#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leadglass/bytes.h"
#include "scrub.h"

enum { LINE_MAX_LEN = 2 * 1024 * 1024 };

static cJSON *finding_json(const struct lg_scrub_finding *f)
{
    char id[2 * LG_ID_LEN + 1];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "class", lg_scrub_class_name(f->cls));
    cJSON_AddStringToObject(j, "kind", f->kind);
    if (f->path)
        cJSON_AddStringToObject(j, "path", f->path);
    cJSON_AddStringToObject(j, "lower", f->lower);
    if (f->has_id) {
        cli_hex(f->file_id, id);
        cJSON_AddStringToObject(j, "file_id", id);
    }
    if (f->to) {
        cJSON_AddNumberToObject(j, "from", (double)f->from);
        cJSON_AddNumberToObject(j, "to", (double)f->to);
    }
    if (f->other)
        cJSON_AddStringToObject(j, "other", f->other);
    return j;
}

static void line(struct run *r, cJSON *j)
{
    char *text = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    if (!text || fprintf(r->log, "%s\n", text) < 0)
        r->log_bad = true;
    free(text);
}

static void stat_json(cJSON *j, const struct lg_scrub_stat *s)
{
    cJSON *f = cJSON_AddObjectToObject(j, "found");
    for (unsigned i = 0; i < LG_SCRUB_CLASSES; i++)
        cJSON_AddNumberToObject(f, lg_scrub_class_name((enum lg_scrub_class)i), (double)s->found[i]);
    const struct { const char *name; uint64_t n; } part[] = { { "files", s->files }, { "verified", s->verified }, { "directories", s->dirs }, { "symbolic_links", s->links }, { "others", s->others }, { "bytes", s->bytes } };
    for (unsigned i = 0; i < sizeof part / sizeof *part; i++)
        cJSON_AddNumberToObject(j, part[i].name, (double)part[i].n);
}

static void stat_read(const cJSON *j, struct lg_scrub_stat *s)
{
    const cJSON *f = cJSON_GetObjectItemCaseSensitive(j, "found");
    for (unsigned i = 0; i < LG_SCRUB_CLASSES; i++)
        s->found[i] = cli_json_number(f, lg_scrub_class_name((enum lg_scrub_class)i));
    s->files = cli_json_number(j, "files");
    s->verified = cli_json_number(j, "verified");
    s->dirs = cli_json_number(j, "directories");
    s->links = cli_json_number(j, "symbolic_links");
    s->others = cli_json_number(j, "others");
    s->bytes = cli_json_number(j, "bytes");
}

static void position_json(struct run *r, const struct lg_scrub_stat *total, const char *position, bool done)
{
    cJSON *j = cJSON_CreateObject();
    if (done)
        cJSON_AddBoolToObject(j, "done", true);
    else
        cJSON_AddStringToObject(j, "position", position);
    stat_json(j, total);
    line(r, j);
    if (fflush(r->log) || (r->state && fdatasync(fileno(r->log)) && errno != EINVAL))
        r->log_bad = true;
}

void state_position(struct run *r, const struct lg_scrub_stat *total, const char *position) { position_json(r, total, position, false); }
void state_done(struct run *r, const struct lg_scrub_stat *total) { position_json(r, total, NULL, true); }
void state_finding(struct run *r, const struct lg_scrub_finding *f) { line(r, finding_json(f)); }

static cJSON *header(const struct run *r)
{
    char id[2 * LG_ID_LEN + 1];
    cJSON *j = cJSON_CreateObject();
    cli_hex(r->vault_id, id);
    cJSON_AddNumberToObject(j, "leadglass_scrub", 1);
    cJSON_AddStringToObject(j, "vault_id", id);
    cJSON_AddStringToObject(j, "mode", r->keyless ? "keyless" : "keys");
    cJSON_AddStringToObject(j, "manifest", r->o.manifest ? r->o.manifest : "");
    cJSON_AddStringToObject(j, "against", r->o.against ? r->o.against : "");
    return j;
}

/* One line, parsed; NULL at the end or at what is none. */
static cJSON *next(FILE *f, char **buf, size_t *cap)
{
    ssize_t n = getline(buf, cap, f);
    return n > 0 && n < LINE_MAX_LEN && (*buf)[n - 1] == '\n' ? cJSON_ParseWithLength(*buf, (size_t)n) : NULL;
}

/* Whatever stands behind the last position is cut off: that part comes again. */
static int go_on(struct run *r, char **ret_position)
{
    char *buf = NULL, *position = NULL;
    size_t cap = 0;
    off_t keep = 0;
    cJSON *want = header(r), *j = next(r->log, &buf, &cap);
    bool same = j && want && cJSON_Compare(j, want, true);
    cJSON_Delete(want);
    for (; same && j; j = next(r->log, &buf, &cap)) {
        const cJSON *p = cJSON_GetObjectItemCaseSensitive(j, "position");
        bool done = cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(j, "done"));
        if (cJSON_IsString(p) || done) {
            char *copy = strdup(done ? "" : p->valuestring);
            if (copy) {
                free(position);
                position = copy;
                r->complete = done;
                stat_read(j, &r->base);
                keep = ftello(r->log);
            }
        } else if (!keep) {
            keep = ftello(r->log);
        }
        cJSON_Delete(j);
    }
    free(buf);
    if (!same) {
        cJSON_Delete(j);
        free(position);
        return cli_fail(CLI_USAGE, "%s is not the state of such a check of this vault (same mode, --manifest and --against); without --resume it begins anew", r->state);
    }
    if (ftruncate(fileno(r->log), keep) || fseeko(r->log, 0, SEEK_END)) {
        free(position);
        return cli_fail(CLI_FAILED, "%s: %s", r->state, strerror(errno));
    }
    *ret_position = position;
    return 0;
}

int state_open(struct run *r, char **ret_position)
{
    *ret_position = NULL;
    if (r->resume && access(r->state, F_OK) && errno == ENOENT)
        r->resume = false; /* the first of several */
    r->log = !r->state ? tmpfile() : fopen(r->state, r->resume ? "r+e" : "w+e");
    if (!r->log)
        return cli_fail(CLI_FAILED, "%s: %s", r->state ? r->state : "a temporary file", strerror(errno));
    if (r->resume)
        return go_on(r, ret_position);
    line(r, header(r));
    return 0;
}

int state_print(struct run *r, const struct lg_scrub_stat *total)
{
    char *buf = NULL;
    size_t cap = 0;
    bool first = true;
    cJSON *j = header(r), *x;
    cJSON_AddStringToObject(j, "vault", r->o.dir);
    cJSON_AddBoolToObject(j, "complete", r->complete);
    cJSON_AddBoolToObject(j, "live", total->live);
    if (total->against_version)
        cJSON_AddBoolToObject(j, "against_signed", total->against_version > 1);
    stat_json(j, total);
    char *text = cJSON_PrintUnformatted(j);
    cJSON_Delete(j);
    if (!text)
        return cli_fail(CLI_FAILED, "out of memory");
    printf("%.*s,\n\"findings\":[", (int)strlen(text) - 1, text); /* they may be more than memory holds */
    free(text);
    rewind(r->log);
    while ((x = next(r->log, &buf, &cap)) != NULL) {
        if (cJSON_GetObjectItemCaseSensitive(x, "class")) {
            printf("%s\n%.*s", first ? "" : ",", (int)strlen(buf) - 1, buf);
            first = false;
        }
        cJSON_Delete(x);
    }
    free(buf);
    return puts("\n]}") < 0 || fflush(stdout) ? cli_fail(CLI_FAILED, "standard output: %s", strerror(errno)) : 0;
}

/* Names come from below: what a terminal would obey is written as \xx. */
static void print_safely(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '\\')
            printf("\\%02x", (unsigned char)*s);
        else
            putchar(*s);
}

void scrub_print_finding(const struct lg_scrub_finding *f)
{
    char id[2 * LG_ID_LEN + 1];
    printf("%-10s ", lg_scrub_class_name(f->cls));
    if (f->path)
        print_safely(*f->path ? f->path : ".");
    else {
        printf("[");
        print_safely(f->lower);
        printf("]");
    }
    if (f->has_id) {
        cli_hex(f->file_id, id);
        printf(" (id %s%s", id, f->to ? "" : ")");
    }
    if (f->to)
        printf("%sbytes %llu to %llu)", f->has_id ? ", " : " (", (unsigned long long)f->from, (unsigned long long)f->to - 1);
    printf(": %s", f->kind);
    if (f->other) {
        printf(" [");
        print_safely(f->other);
        printf("]");
    }
    putchar('\n');
}
