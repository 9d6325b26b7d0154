/* Inside the leadglass command. */
#ifndef LG_CLI_H
#define LG_CLI_H

#include <cjson/cJSON.h>

#include "leadglass/client.h"
#include "leadglass/passphrase.h"

/* Exit status of every command; docs/man/leadglass.1 lists them. */
enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_PASSPHRASE = 3, CLI_LOCKED = 4, CLI_NO_KEYD = 5, CLI_UNCONFIRMED = 6, CLI_BUSY = 7, CLI_REVOKED = 9, CLI_UNAVAILABLE = 69 };

struct cli {
    const char *command;
    char socket[4096];
    bool json;
    struct lg_passphrase_source pass;
    /* of single commands */
    const char *keyring, *reason, *mount_options;
    const char *key_file, *study;
    bool foreground, now, allow_unlocked, generate, root, all_studies;
    unsigned chunk_kib;
    int argc; /* what is left after options */
    char **argv;
};

int cli_fail(int code, const char *fmt, ...) LG_PRINTF(2, 3);
/* Explains an error of the client; the exit status. */
int cli_explain(const struct cli *c, int rc, const char *what);
int cli_client(const struct cli *c, struct lg_client **ret);
int cli_print_json(cJSON *j); /* and frees it */
void cli_hex(const uint8_t id[LG_ID_LEN], char out[2 * LG_ID_LEN + 1]);
void cli_time(uint64_t t, char out[32]);

/* Starting other programs of ours. */
int cli_find(const char *name, char out[4096]);
int cli_run(char *const argv[], int pass_fd); /* exit status */
/* A key manager that answers and is unlocked: started if need be (and created, if create). An exit status. */
int cli_need_keyd(struct cli *c, bool create, struct lg_client **ret);

/* The secret that the options name: of a passphrase its bytes (asked for if need be), of a key file its SHA-256. ret: LG_PASSPHRASE_MAX + 1
 * bytes of secret memory. An exit status. */
int cli_secret(const struct cli *c, const char *prompt, bool fresh, enum lg_slot_type *ret_type, char *ret, size_t *ret_len);
/* After -EKEYREJECTED and -EAGAIN. */
int cli_rejected(int rc, enum lg_slot_type type, unsigned wait_s);

int cmd_unlock(struct cli *c);
int cmd_lock(struct cli *c);
int cmd_status(struct cli *c);
int cmd_init(struct cli *c);
int cmd_mount(struct cli *c);
int cmd_umount(struct cli *c);
int cmd_identify(struct cli *c);
int cmd_slot(struct cli *c);
int cmd_key(struct cli *c);
int cmd_study(struct cli *c);

#endif
