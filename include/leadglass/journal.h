/* journal.h: the redo journal of one vault (docs/FORMAT.md, "Journal"): physical and keyless, so that it replays while locked.
 *
 * A record holds everything that one commit changes in place inside what was committed before; it is durable before any of it is written
 * there (review rule R4). Preallocated, so that it works on a full disk; fsyncs of several files share one fdatasync. Thread-safe. */
#ifndef LEADGLASS_JOURNAL_H
#define LEADGLASS_JOURNAL_H

#include <time.h>

#include "leadglass/format.h"
#include "leadglass/sys.h"

#define LG_JOURNAL_NAME "leadglass.journal"

struct lg_journal;

/* Makes the journal file in the vault directory, durable (the directory itself is the caller's to sync). */
int lg_journal_create(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN]) LG_MUST;

/* Opens it and replays every record not yet retired, in order (R6): durable on return. Files are found by handle, else by their file id under
 * the vault's root directory. -EPROTO: damaged header. -EPROTONOSUPPORT: newer version. read_only: replays nothing, -EROFS when there is
 * something to replay. The descriptor is borrowed for the journal's life. */
int lg_journal_open(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN], bool read_only, struct lg_journal **ret) LG_MUST;

/* Writes everything in place, durable, and retires it. */
int lg_journal_checkpoint(struct lg_journal *j) LG_MUST;

/* Checkpoints and frees; the journal is freed on error too. */
int lg_journal_close(struct lg_journal *j) LG_MUST;

#endif
