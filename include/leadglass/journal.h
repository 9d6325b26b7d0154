/* journal.h: the redo journal of one vault (docs/FORMAT.md, "Journal"): physical and keyless, so that it replays while locked.
 *
 * A record holds everything that one commit changes in place inside what was committed before; it is durable before any of it is written
 * there (review rule R4). Preallocated, so that it works on a full disk; fsyncs of several files share one fdatasync. Thread-safe. */
#ifndef LEADGLASS_JOURNAL_H
#define LEADGLASS_JOURNAL_H

#include <stdatomic.h>
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

/* Calls each for every record that is not yet retired (a file may come several times), reading only. -ENOENT, -EPROTO, -EPROTONOSUPPORT: the journal
 * is missing, damaged, newer; or what each returned. */
int lg_journal_pending(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN], int (*each)(void *arg, const uint8_t file_id[LG_ID_LEN]),
                       void *arg) LG_MUST;

/* Writes everything in place, durable, and retires it. */
int lg_journal_checkpoint(struct lg_journal *j) LG_MUST;

/* Checkpoints and frees; the journal is freed on error too. */
int lg_journal_close(struct lg_journal *j) LG_MUST;

/* ---- for fs/file -------------------------------------------------------------------------------------------------------------- */

#define LG_JOURNAL_HANDLE_MAX 128u

/* A lower file as the journal knows it. Prepared once per open file; must stay, with its descriptor, until nothing of it is unretired. */
struct lg_jfile {
    int fd;
    uint8_t file_id[LG_ID_LEN];
    bool located;        /* the handle was asked for: with its first record, as most files never have one */
    uint32_t handle_len; /* 0: the lower filesystem gives none */
    int32_t handle_type;
    uint8_t handle[LG_JOURNAL_HANDLE_MAX];
    uint64_t appended;         /* number of its last record, 0: none; under the file's lock */
    _Atomic uint64_t retired;  /* number of its last record that is in place and durable */
    _Atomic int64_t mtime_s;   /* the time that checkpoints leave below */
    _Atomic uint32_t mtime_ns; /* UTIME_OMIT: whatever it is */
};
void lg_jfile_init(struct lg_jfile *f, int fd, const uint8_t file_id[LG_ID_LEN]);
static inline bool lg_jfile_unretired(const struct lg_jfile *f) { return f->appended > atomic_load(&f->retired); }

enum lg_jop_kind {
    LG_JOP_WRITE = 1,    /* data at off */
    LG_JOP_ZERO = 2,     /* off .. off+len reads as zeros afterwards; space is given back where the lower filesystem can */
    LG_JOP_TRUNCATE = 3, /* the file is off bytes long */
};
struct lg_jop {
    enum lg_jop_kind kind;
    uint64_t off, len;
    const void *data;
};

/* Appends one record, all or nothing (not durable yet), and gives it the next number. seq: of the commit slot among its writes. Waits for a
 * checkpoint when the journal is full; takes no lock of any file. -EFBIG: larger than the journal can ever hold; or the error of a write below. */
int lg_journal_append(struct lg_journal *j, struct lg_jfile *f, uint64_t seq, const struct lg_jop *ops, uint32_t n_ops) LG_MUST;
/* f goes away with records that are not in place: from now on the journal has them itself, with f's descriptor, which it closes in the end. Until they
 * are in place, none of its files may be opened (lg_journal_has_adopted: checkpoint first). -ENOMEM: nothing changed. */
int lg_journal_adopt(struct lg_journal *j, const struct lg_jfile *f) LG_MUST;
bool lg_journal_has_adopted(struct lg_journal *j);
/* Returns when the record is durable; callers waiting together share one fdatasync. */
int lg_journal_sync(struct lg_journal *j, uint64_t record) LG_MUST;

#endif
