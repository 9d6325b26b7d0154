/* leadglass audit export: a period as DICOM audit messages, one a line. Following the log to a receiver is exporter.c. */
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auditselect.h"
#include "dicom.h"

struct export {
    const struct cli *c;
    struct cli_audit_selection x;
    struct lg_dicom_source source;
    FILE *f;
};

static int each(void *arg, const char *name, const struct lg_audit_record *r)
{
    struct export *x = arg;
    struct lg_audit_chain chain = { .id = { 0 } };
    struct lg_dicom_event e = { .record = r, .chain = &chain };
    const struct cli_audit_study *s = r->has & LG_AUDIT_STUDY ? cli_audit_study(&x->x, r->study) : NULL;
    char out[LG_DICOM_MAX];
    size_t len;
    snprintf(chain.name, sizeof chain.name, "%s", name);
    snprintf(chain.kind, sizeof chain.kind, "%s", strncmp(name, "keyd", 4) == 0 ? "keyd" : "mount");
    memcpy(chain.id, r->chain, sizeof r->chain);
    e.study_uid = s ? s->uid : NULL;
    e.patient_id = s ? s->patient : NULL;
    if (!cli_audit_wanted(x->c, &x->x, r) || !lg_dicom_wanted(&e))
        return 0;
    int rc = lg_dicom_encode(&x->source, &e, out, sizeof out, &len);
    if (!rc && (fwrite(out, 1, len, x->f) != len || putc('\n', x->f) == EOF))
        rc = -EIO;
    return rc;
}

int cli_audit_export(const struct cli *c)
{
    struct export x = { .c = c, .f = stdout };
    char host[LG_AUDIT_NAME_MAX + 1] = "";
    if (!c->export.dicom && (c->audit.follow || c->watch.config))
        return c->argc ? cli_fail(CLI_USAGE, "with --follow the log's place is said in the configuration (log = DIR)") : cli_audit_follow(c);
    if (!c->export.dicom || c->audit.follow)
        return cli_fail(CLI_USAGE, "say --dicom for a period (JSON and CSV: audit query --json, --csv), --follow to send to a syslog receiver, or --config FILE alone to see how that is getting on");
    if (gethostname(host, sizeof host - 1) || !host[0])
        snprintf(host, sizeof host, "localhost");
    int code = cli_audit_selection(c, "export", 0, &x.x);
    x.source = (struct lg_dicom_source){ .id = host, .host = host, .log = x.x.dir };
    if (!code && c->out) {
        umask(077);
        x.f = fopen(c->out, "wxe");
        if (!x.f)
            code = cli_fail(CLI_FAILED, "%s: %s", c->out, strerror(errno));
    }
    if (!code)
        code = cli_audit_each(&x.x, each, &x);
    if (x.f && (c->out ? fclose(x.f) : fflush(x.f)) && !code)
        code = cli_fail(CLI_FAILED, "%s: %s", c->out ? c->out : "standard output", strerror(errno));
    cli_audit_selection_done(&x.x);
    return code;
}
