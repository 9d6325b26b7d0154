/* file.h: the plaintext contents of one lower file: format version 1 (docs/FORMAT.md) over the injectable backend.
 *
 * One lg_file per lower inode, shared by every open of it; thread-safe (a reader-writer lock inside). It owns the lower descriptor. It never
 * looks at names. Uncommitted state lives in memory until lg_file_commit. */
#ifndef LEADGLASS_FILE_H
#define LEADGLASS_FILE_H

#include "leadglass/crypto.h"
#include "leadglass/keys.h"
#include "leadglass/pool.h"
#include "leadglass/sys.h"

struct lg_journal;
struct lg_file;

/* Files that this session left behind half committed, or not known durable, because a call below failed: the next to open one recovers it, as
 * after a crash. Thread-safe. No memory to keep one: then all files are taken for such. */
struct lg_suspects;
struct lg_suspects *lg_suspects_new(void) LG_MUST; /* NULL: no memory */
void lg_suspects_free(struct lg_suspects *s);
bool lg_suspects_any(struct lg_suspects *s); /* then the session has not ended cleanly */
/* A file without names, which nobody has open: what was wrong with it is over. fd: of the lower file, read for its id. */
struct lg_file_env;
void lg_suspects_gone(const struct lg_file_env *env, int fd);

/* What went wrong below, for logs. from/to: plaintext byte range, to 0 when it is the whole file. */
struct lg_finding {
    const char *kind; /* such as "chunk does not verify" */
    uint8_t file_id[LG_ID_LEN];
    uint64_t from, to;
    uint64_t ino; /* of what stands below, when it is a name, a directory, a link or an attribute: then there is no file id. Else 0 */
    uint8_t kid[LG_ID_LEN]; /* the key that the file is under, as far as its header says */
    uint32_t key_version;   /* 0: not known */
};

/* Common to all files of a mounted vault. Filled in by the volume; outlives every file. */
struct lg_file_env {
    const struct lg_sys *sys;
    struct lg_keys *keys;
    struct lg_journal *journal;
    uint8_t vault_id[LG_ID_LEN];
    uint32_t chunk_size;
    uint64_t session;
    const uint64_t *unclean; /* sessions of this vault that ended uncleanly, ascending */
    unsigned n_unclean; /* becomes 0 when a sweep has been through (__atomic) */
    bool read_only;
    bool cache_told; /* the filesystem below keeps its pages with the inode that is open, so that lg_sys's cached counts them: overlayfs keeps them elsewhere */
    struct lg_pool *pool; /* large requests are sealed, and where there are cores to spare opened, on several; NULL: in the calling thread, in order */
    bool accept_crash; /* every session counts as one that ended uncleanly: for copies made of a live mount (scrub --accept-crash) */
    struct lg_suspects *suspects; /* may be NULL */
    /* Path rules: decides by path when bytes name no study. Returns 0 with info filled in, or -ENOENT for the general key. May be NULL. */
    int (*path_rule)(void *arg, const char *path, struct lg_study_info *ret);
    void (*finding)(void *arg, const struct lg_finding *f); /* may be NULL */
    void *arg;
};

/* Takes fd (O_RDWR, or O_RDONLY when env->read_only), also on error. Reads and checks the header if there is one; a lower file of length
 * zero that this process did not make is -EBADMSG (a closed empty file has a header). -ENOKEY/-EKEYREVOKED as the key's state says:
 * then nothing is returned. -EBADMSG: no valid header. -EPROTONOSUPPORT: newer format.
 * path: plaintext path relative to the mount, for path rules (copied); NULL where there are none (else -ENOMEM: there was no memory for it). */
int lg_file_open(const struct lg_file_env *env, int fd, const char *path, struct lg_file **ret) LG_MUST;
/* The same for a lower file that the caller has just created (empty): undecided until bytes or a close decide its study. */
int lg_file_create(const struct lg_file_env *env, int fd, const char *path, struct lg_file **ret) LG_MUST;
/* Commits what is left, at the second try if the first fails (errors are lost: call lg_file_commit before), and closes fd. What cannot be committed is cut off again, so that the file
 * holds its last commit; should that fail too, it is among env->suspects. */
void lg_file_free(struct lg_file *f);
/* The same in two steps, for a file that others may be looking at: after lg_file_close, only lg_file_look, lg_file_kid, lg_file_hold and lg_file_drop. Every
 * lg_file_hold has its lg_file_drop, the file itself one more; the last ends it. */
void lg_file_close(struct lg_file *f);
void lg_file_hold(struct lg_file *f);
void lg_file_drop(struct lg_file *f);

/* From now on what is read through f moves the access time below, if the filesystem there has it so; until then, and after lg_file_hide_reads, nothing does. False: a
 * part of it is not there to be read (holes, or no bytes at all), or its lock was not to be had at once (later.h), and nothing has changed. */
bool lg_file_show_reads(struct lg_file *f) LG_MUST;
void lg_file_hide_reads(struct lg_file *f); /* the caller sees to it that no other descriptor takes the place of f's meanwhile (lg_file_switch) */
bool lg_file_shows_reads(const struct lg_file *f);

/* lg_file_open, read, write, commit, lost and lg_journal's part in them: -LG_ELATER as later.h says, with nothing changed but what doing it again changes once more. */

/* Reads at most len bytes into buf; returns how many (short only at the end of the file). -EBADMSG when a chunk does not verify, after
 * reporting it; -ENOKEY, -EKEYREVOKED. */
ssize_t lg_file_read(struct lg_file *f, void *buf, size_t len, uint64_t off) LG_MUST;
/* Writes all of it, or fails with nothing changed in what was committed. */
int lg_file_write(struct lg_file *f, const void *buf, size_t len, uint64_t off) LG_MUST;
int lg_file_truncate(struct lg_file *f, uint64_t size) LG_MUST;
/* FALLOC_FL_KEEP_SIZE, FALLOC_FL_PUNCH_HOLE|KEEP_SIZE, FALLOC_FL_ZERO_RANGE[|KEEP_SIZE], 0. -EOPNOTSUPP otherwise. */
int lg_file_fallocate(struct lg_file *f, int mode, uint64_t off, uint64_t len) LG_MUST;
/* SEEK_DATA or SEEK_HOLE. -ENXIO past the end. */
int lg_file_seek(struct lg_file *f, uint64_t off, int whence, uint64_t *ret) LG_MUST;

/* Makes what was written part of the file below (FLUSH, RELEASE, timer): survives this process. Decides the study if still undecided. */
int lg_file_commit(struct lg_file *f) LG_MUST;
/* Commits and makes it durable (FSYNC). */
int lg_file_sync(struct lg_file *f) LG_MUST;
/* After lg_file_sync: owner, mode, times and attributes of the file below durable as well. */
int lg_file_sync_attrs(struct lg_file *f) LG_MUST;
/* Commits and puts everything in place: from here on nothing is written below before something changes. */
int lg_file_place(struct lg_file *f) LG_MUST;

/* What a stat shows of it, as of the last change that is complete. Never waits for a call below that may be slow, nor for a key. */
#define LG_BLOCKS_BELOW UINT64_MAX
struct lg_file_look {
    uint64_t size;
    uint64_t blocks; /* 512-byte blocks that it takes below: what memory still holds, and what is to be given back, are counted as if that had been done.
                        LG_BLOCKS_BELOW: the lower file's own are right */
    struct timespec mtime; /* tv_nsec UTIME_OMIT: the lower file's own is right */
    bool mtime_below;      /* and it may be newer than what the caller knows of it */
    bool dirty;            /* something uncommitted? */
    bool reserved;         /* space was set aside: it takes no fewer blocks than the lower file does now */
};
void lg_file_look(struct lg_file *f, struct lg_file_look *ret);
uint64_t lg_file_size(struct lg_file *f);
/* Application set times (either may be UTIME_OMIT; no UTIME_NOW): commits first, then sets them below; later commits keep them. */
int lg_file_utimens(struct lg_file *f, const struct timespec ts[2]) LG_MUST;

/* Which key protects it; false while undecided. */
bool lg_file_kid(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version);
/* The same; false too while it does not hold the key: not read yet, or dropped. */
bool lg_file_holds_key(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version);
/* As lg_file_kid, without waiting for a slow call below once that is settled: a re-encryption that is just taking effect may not be seen yet. */
bool lg_file_kid_soon(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version);
void lg_file_id(const struct lg_file *f, uint8_t ret[LG_ID_LEN]); /* never changes */
/* For lock (commits first if it still can) and revocation (discard: uncommitted bytes are lost): waits for operations under way, then
 * forgets keys and plaintext. Later operations ask lg_keys again. */
void lg_file_drop_keys(struct lg_file *f, bool discard);
/* Why bytes that were written and not committed were given up with the keys since *seen (0 at first), or 0; *seen moves on. For whoever wrote to be told once. */
int lg_file_lost(struct lg_file *f, unsigned *seen) LG_MUST;
/* Whether closing may make things durable first, wait for its lock, or let go of what cold reads brought into memory below, for which the system may wait for other processors, or
 * write. Takes no lock for long. */
bool lg_file_close_waits(struct lg_file *f);

/* Re-encryption, in two steps, so that the file below is at every moment wholly the old one or wholly the new one. First a second ciphertext of the
 * file goes to fd (empty, O_RDWR; taken, also on error): same file id, a new file key wrapped by `as`, holes kept, seq above the old one's, durable
 * on return. Readers and writers go on meanwhile; -EAGAIN when one wrote. */
int lg_file_recrypt(struct lg_file *f, struct lg_kref *as, int fd, uint64_t *ret_seq) LG_MUST;
/* Then, if nothing was written since (-EAGAIN otherwise): calls publish, which puts the new lower file in the old one's place, with f's locks
 * held; when that returns 0, f is the new one, at fd (taken, also on error). */
int lg_file_switch(struct lg_file *f, int fd, uint64_t seq, int (*publish)(void *arg), void *arg) LG_MUST;
/* What a header says of itself: the file's id, and key id and version in the newest commit slot with a good checksum. Needs no key, and proves nothing. -EBADMSG: there
 * is none. */
struct lg_claim {
    uint8_t file_id[LG_ID_LEN], kid[LG_ID_LEN];
    uint32_t version, oldest; /* oldest: of that key, in either slot: what is needed should the newest turn out not to have reached the disk */
    uint64_t seq;             /* of the newest slot, as the commitment */
    uint8_t commitment[LG_MAC_LEN];
};
int lg_file_claim(const struct lg_sys *sys, int fd, struct lg_claim *ret) LG_MUST;

/* ---- for fs/scrub: of a file that nobody writes to ---- */

/* What a manifest says of a file: its id, and which state of it this is. The MAC of the newest slot covers everything but the chunks' bytes, and
 * these by their tags. */
struct lg_file_identity {
    uint8_t file_id[LG_ID_LEN];
    uint64_t seq, size;
    uint8_t mac[LG_MAC_LEN];
};
int lg_file_identity(struct lg_file *f, struct lg_file_identity *ret) LG_MUST;
/* Reads every chunk; one that does not verify is reported, and reading goes on. *ret_bad counts them. pace is called with no lock held after every
 * MiB or so; non-zero ends it with that. */
int lg_file_verify(struct lg_file *f, int (*pace)(void *arg, size_t n), void *arg, uint64_t *ret_bad) LG_MUST;

/* Takes out of a damaged lower file (open as fd, borrowed) each chunk that verifies under the entry that stands there, whatever else is wrong.
 * All that this proves is that these bytes once stood at that place of that file: with the header or table damaged nobody can tell whether they
 * are the latest. Holes and what is lost are left out. -EBADMSG: nothing in it leads to its key, or nothing verifies under it; -ENOKEY, -EKEYREVOKED; or what a callback returned. */
struct lg_salvage_sink {
    void *arg;
    /* Before anything is put: what is about to be, and under which key; twice when parts of it may be under the keys of two studies. Non-zero: nothing is. May be NULL. */
    int (*begin)(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN]);
    int (*put)(void *arg, uint64_t off, const void *data, size_t len);
    int (*lost)(void *arg, uint64_t from, uint64_t to);
};
struct lg_salvaged {
    uint8_t file_id[LG_ID_LEN];
    uint64_t size, good; /* bytes: as long as it may have been; of these put */
};
int lg_file_salvage(const struct lg_file_env *env, int fd, const struct lg_salvage_sink *out, struct lg_salvaged *ret) LG_MUST;

/* Plaintext size from the physical size of the lower file: pure, opens nothing. Exact for every committed file. */
uint64_t lg_file_plain_size(uint32_t chunk_size, uint64_t physical_size);

#endif
