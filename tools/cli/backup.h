/* Inside `leadglass backup`. */
#ifndef LG_CLI_BACKUP_H
#define LG_CLI_BACKUP_H

#include "cli.h"
#include "leadglass/backup.h"

enum { DRILL_SAMPLE = 100, BACKUP_SCRYPT_MS = 500 };
int backup_create(const struct cli *c, struct lg_client *k, const char *file); /* an exit status */
/* What the inventory says of this one, for whoever decides about it. -ENOENT. */
int backup_describe(struct lg_client *k, const uint8_t id[LG_ID_LEN], char *out, size_t cap) LG_MUST;
struct drill_result {
    uint64_t files, sampled, verified, revoked, no_key, damaged, unchecked;
};
/* Reads --sample files of --vault, chosen by chance, with the keys of a restore that is taken away again. An exit status; when *ret_rc is not 0 it says
 * why the restore failed, and nothing was printed. */
int backup_drill(const struct cli *c, const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const struct lg_backup_later *later,
                 struct lg_backup_counts *n, unsigned *quarantined, struct drill_result *ret, int *ret_rc);

#endif
