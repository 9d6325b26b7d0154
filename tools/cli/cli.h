/* Inside the leadglass command. */
#ifndef LG_CLI_H
#define LG_CLI_H

#include <stddef.h>
#include <sys/stat.h>

#include <cjson/cJSON.h>

#include "leadglass/client.h"
#include "leadglass/passphrase.h"

/* Exit status of every command; docs/man/leadglass.1 lists them. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_PASSPHRASE = 3, CLI_LOCKED = 4, CLI_NO_KEYD = 5, CLI_UNCONFIRMED = 6, CLI_BUSY = 7, CLI_REVOKED = 9, CLI_DAMAGE = 10,
       CLI_DIFFERS = 11, CLI_INCOMPLETE = 12, CLI_UNKNOWN_KEYS = 13, CLI_INTERRUPTED = 14, CLI_DEGRADED = 15, CLI_REFUSED = 16, CLI_ALTERED = 17, CLI_CANNOT_TELL = 18,
       CLI_UNAVAILABLE = 69 };

struct cli {
    const char *command;
    const char *socket; /* as chosen, else in socket_buf */
    char socket_buf[4096];
    bool json, help;
    struct lg_passphrase_source pass;
    /* of single commands */
    const char *shares, *shares_dir;
    struct cli_list {
        unsigned n;
        const char *s[32];
    } share_files;
    const char *new_pass_file, *destroyed, *tombstones, *act; /* backup */
    bool damaged;
    bool drill;
    const char *keyring, *reason, *mount_options, *key_file, *study;
    const char *pcrs; /* of a TPM slot */
    bool tpm, none;
    /* of officers (act.h) */
    const char *sign, *offline, *as, *key, *role, *account, *raw, *waiting;
    const char *until, *rule, *patient, *state, *from, *to, *out, *verify;
    bool yes, approve, all, before_due, held;
    const char *no_copies; /* key trim */
    const char *reap;      /* study revoke: the vault */
    bool count;            /* study reap */
    bool others_gone, quiet; /* quiet: what comes of an act is not printed */
    bool foreground, now, allow_unlocked, generate, root, all_studies;
    const char *vault; /* backup: of a drill */
    unsigned chunk_kib, rate, older_than, sample;
    struct {
        bool keyless, read_only, accept_crash, repair, remove, resume;
        const char *manifest, *against, *salvage, *state, *rate;
    } scrub;
    struct {
        const char *key, *against;
        bool offline, follow, manifests;
        unsigned lines;
    } audit;
    struct {
        const char *from, *to, *user, *patient, *program, *outcome, *event, *hours;
        unsigned limit;
        bool csv, html;
    } query; /* audit query, audit report */
    struct {
        bool dicom;
    } export; /* audit export */
    struct {
        const char *config, *state;
        bool once, check;
    } watch; /* audit watch */
    int argc; /* what is left after options */
    char **argv;
};

/* One option of a command. A list ends with one without a name. */
enum { CLI_OPTION_LISTS = 6 };
enum cli_kind { CLI_FLAG, CLI_TEXT, CLI_NUMBER, CLI_LIST /* may be given again: struct cli_list */ };
struct cli_option {
    const char *name, *arg, *help; /* arg: as --help shows it; NULL for a flag. help: further lines follow a newline */
    enum cli_kind kind;
    size_t into; /* offset in struct cli of a bool, const char * or unsigned: CLI_INTO */
    char letter; /* its short form, or 0 */
};
#define CLI_INTO(field) offsetof(struct cli, field)
extern const struct cli_option cli_json_options[], cli_pass_options[], cli_key_file_options[], cli_tpm_options[], cli_keyring_options[]; /* main.c: of several commands */

/* Each command describes itself beside its code; main.c lists them. */
struct cli_command {
    const char *name, *args, *what, *more; /* more: whole lines for --help */
    const char *brief;                     /* args for the overview, when they are long */
    const struct cli_option *options[CLI_OPTION_LISTS];
    int (*run)(struct cli *c);
    bool offline; /* needs no socket */
};
extern const struct cli_command cli_init, cli_mount, cli_umount, cli_unlock, cli_lock, cli_status, cli_identify, cli_study, cli_slot, cli_key, cli_backup, cli_scrub,
    cli_officer, cli_request, cli_policy, cli_clock, cli_audit;

int cli_fail(int code, const char *fmt, ...) LG_PRINTF(2, 3);
/* Explains an error of the client; the exit status. */
int cli_explain(const struct cli *c, int rc, const char *what);
int cli_client(const struct cli *c, struct lg_client **ret);
int cli_print_json(cJSON *j); /* and frees it */
/* Names the mounts that have not confirmed, in j (freed) or on standard error; the exit status. */
void cli_unconfirmed_tell(const struct cli *c, const struct lg_unconfirmed *u, cJSON *j);
int cli_unconfirmed(const struct cli *c, const struct lg_unconfirmed *u, cJSON *j);
void cli_hex(const uint8_t id[LG_ID_LEN], char out[2 * LG_ID_LEN + 1]);
void cli_time(uint64_t t, char out[32]);
void cli_json_time(cJSON *j, const char *name, uint64_t t); /* 0: null */

/* What status says of the access log: into j, or printed when that is NULL. */
/* Whether a mount's process says of itself that it keeps no access log. */
bool cli_unlogged(uint32_t pid);
void cli_audit_status(struct lg_client *k, const struct lg_keyd_status *s, cJSON *j);
/* auditstate.c: how the programs that follow the access log are getting on; j as above, the object "audit". */
void cli_audit_services(const struct cli *c, cJSON *j);
#define CLI_AUDIT_CONFIG "/etc/leadglass/audit.conf"
#define CLI_WATCH_STATE "/var/lib/leadglass/audit-watch"
cJSON *cli_json_file(const char *path); /* NULL: not there, or no JSON object */
uint64_t cli_json_number(const cJSON *j, const char *name);    /* 0: not there, or not what we write */
const char *cli_json_string(const cJSON *j, const char *name); /* "": likewise */
bool cli_alive(const cJSON *state); /* the process that wrote it is there still */

/* Starting other programs of ours. */
int cli_find(const char *name, char out[4096]);
int cli_run(char *const argv[], int pass_fd); /* exit status */
/* A key manager that answers and is unlocked: started if need be (and created, if create). An exit status. */
int cli_need_keyd(struct cli *c, bool create, struct lg_client **ret);

/* The secret that the options name: of a passphrase its bytes (asked for if need be), of a key file its SHA-256, of a TPM its PCRs. ret: LG_PASSPHRASE_MAX + 1
 * bytes of secret memory. An exit status. */
int cli_secret(const struct cli *c, const char *prompt, bool fresh, enum lg_slot_type *ret_type, char *ret, size_t *ret_len);
/* After -EKEYREJECTED and -EAGAIN. */
int cli_rejected(int rc, enum lg_slot_type type, unsigned wait_s);
/* What a TPM's error means, or NULL: it is none. */
const char *cli_tpm_error(int rc);

/* ---- shares.c ---- */
struct lg_share;
struct lg_backup_header;
int shares_parse(const char *text, unsigned *ret_k, unsigned *ret_n); /* K/N; an exit status */
int shares_put(const struct cli *c, const struct lg_share *s, const char *title); /* printed, a page each, or into --shares-dir; an exit status */
int shares_get(const struct cli *c, const struct lg_backup_header *h, struct lg_secret *ret_key); /* from --share-file, or typed; an exit status */

/* ---- walk.c ---- */
/* Where the vault is mounted; an exit status. Needs root. */
int cli_mount_of(const struct cli *c, struct lg_client *k, const char *vault, char ret[1024]);
/* Of a file on a mount: -ENODATA and -EOPNOTSUPP when it is on none. Needs root. */
struct cli_file {
    const char *path;
    const struct stat *st;
    uint8_t kid[LG_ID_LEN], file_id[LG_ID_LEN]; /* as its header names them */
    uint32_t version;
    int error; /* instead of these */
};
int cli_key_of(const char *path, struct cli_file *f);
int cli_key_parse(const char *untrusted, size_t len, struct cli_file *f); /* -EPROTO */
/* Everything beneath a directory but the directories themselves, links not followed. error (negative): what cannot be looked at, st then NULL; a directory that could not
 * be listed to its end; -EXDEV: a directory of another file system, which is passed over. each returns an exit status to stop. The last one. */
int cli_tree(const char *top, int (*each)(void *arg, const char *path, const struct stat *st, int error), void *arg);
/* Every regular file below, and every directory that cannot be read. each returns CLI_FAILED to stop. The last exit status. */
int cli_walk(const char *mountpoint, int (*each)(void *arg, const struct cli_file *f), void *arg);

/* ---- reencrypt.c ---- */
int cli_reencrypt(const struct cli *c, struct lg_client *k, const char *vault);

/* ---- reap.c ---- */
int cli_reap(const struct cli *c, struct lg_client *k, const char *uid, const char *vault);

/* ---- trim.c ---- */
int cli_trim(const struct cli *c, struct lg_client *k, char **vault, int n);

/* ---- assign.c ---- */
int cli_assign(const struct cli *c, struct lg_client *k, const char *file, const char *uid);

#endif
