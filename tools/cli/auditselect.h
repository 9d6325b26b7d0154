/* What `audit query` and `audit report` share: the period, the filters, the names of studies, and the records. */
#ifndef LG_CLI_AUDITSELECT_H
#define LG_CLI_AUDITSELECT_H

#include "cli.h"
#include "leadglass/audit.h"

struct cli_audit_study {
    uint8_t kid[LG_ID_LEN];
    char uid[LG_UID_MAX + 1], patient[LG_PATIENT_ID_MAX + 1];
    enum lg_key_state state;
    bool held;
    uint64_t due;
};
struct cli_audit_selection {
    char dir[4096];
    int64_t from_us, to_us; /* [from, to) */
    struct cli_audit_study *studies;
    size_t n_studies, cap;
    bool resolved; /* the key manager has named the studies */
    bool have_pub;
    uint8_t pub[LG_SIGN_PUB_LEN];
};

/* 2026-01-31 (its end, if end), 2026-01-31T08:00[:00], 36h or 7d ago. UTC. -EINVAL. */
int cli_audit_when(const char *text, bool end, int64_t *ret_us);
/* Reads the filters, asks the key manager for the log's place and the studies' names, and has it recorded that the log is read. An exit status. */
int cli_audit_selection(const struct cli *c, const char *how, int64_t default_span_s, struct cli_audit_selection *x);
void cli_audit_selection_done(struct cli_audit_selection *x);
bool cli_audit_wanted(const struct cli *c, const struct cli_audit_selection *x, const struct lg_audit_record *r);
const struct cli_audit_study *cli_audit_study(const struct cli_audit_selection *x, const uint8_t kid[LG_ID_LEN]); /* NULL: not known, or destroyed */
/* Every record of every chain, each chain in its order. An exit status. */
int cli_audit_each(const struct cli_audit_selection *x, int (*each)(void *arg, const char *chain, const struct lg_audit_record *r), void *arg);

/* One field of CSV and the comma after it (RFC 4180); what a spreadsheet would take for a formula gets an apostrophe first. */
void cli_audit_csv(FILE *f, const char *s);

/* A public key, as export-key prints one. -EPROTO: it is none. */
int cli_audit_read_key(const char *path, uint8_t pub[LG_SIGN_PUB_LEN]);
int cli_audit_manifest(const struct cli *c);
int cli_audit_manifest_key(const struct cli *c); /* export-key --manifests */
int cli_audit_query(const struct cli *c);
int cli_audit_report(const struct cli *c);
int cli_audit_export(const struct cli *c);
int cli_audit_follow(const struct cli *c); /* exporter.c: export --follow, or how that is getting on */
int cli_audit_watch(const struct cli *c);
extern const struct cli_option cli_audit_watch_options[];

#endif
