/* What a certificate has to know from elsewhere in the keyring: the inventory of keyring backups. */
#include <stdlib.h>

#include "govern.h"
#include "leadglass/backup.h"

int lg_backups_outstanding(struct lg_keyring *k, uint64_t destroyed, struct lg_cert_backup *ret, unsigned max, unsigned *ret_n)
{
    struct lg_backup_entry *e = calloc(LG_BACKUPS_MAX, sizeof *e);
    unsigned all = 0, n = 0;
    int rc = e ? lg_backup_list(k, e, LG_BACKUPS_MAX, &all) : -ENOMEM;
    for (unsigned i = 0; !rc && i < all; i++) {
        if (e[i].voided || e[i].created > destroyed)
            continue;
        if (n == max) {
            rc = -E2BIG;
            break;
        }
        memcpy(ret[n].id, e[i].id, LG_ID_LEN);
        ret[n++].created = e[i].created;
    }
    free(e);
    if (!rc)
        *ret_n = n;
    return rc;
}
