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
    bool foreground, now, allow_unlocked;
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

int cmd_unlock(struct cli *c);
int cmd_lock(struct cli *c);
int cmd_status(struct cli *c);
int cmd_init(struct cli *c);
int cmd_mount(struct cli *c);
int cmd_umount(struct cli *c);
int cmd_identify(struct cli *c);
int cmd_study(struct cli *c);

#endif
