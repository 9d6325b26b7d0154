/* Inside the keyring module: the root-slot file as a structure. Its bytes are described in docs/FORMAT-keyring.md. */
#ifndef LEADGLASS_KEYRING_INTERNAL_H
#define LEADGLASS_KEYRING_INTERNAL_H

#include "leadglass/crypto.h"
#include "leadglass/keyring.h"

#define LG_SLOTFILE_MAX 32768u
#define LG_SLOTFILE_VERSION 2u
#define LG_SEALED_MAX 768u

struct lg_slot {
    uint8_t number; /* for the slot's whole life: what is wrapped is bound to it */
    uint8_t type;   /* enum lg_slot_type */
    char name[LG_SLOT_NAME_MAX + 1];
    uint64_t created, proved; /* seconds since 1970; proved: when its secret was first seen to open it from the file, 0 never */
    struct lg_scrypt scrypt;  /* not TPM */
    size_t sealed_len;        /* TPM: what the chip gives the slot's secret for */
    uint8_t sealed[LG_SEALED_MAX];
    uint8_t slot_key[LG_WRAPPED_LEN];     /* wrap(key from the secret, slot key) */
    uint8_t root[2][LG_WRAPPED_LEN];      /* wrap(slot key, root) */
    uint8_t root_slot[2][LG_WRAPPED_LEN]; /* wrap(root, slot key): a new root needs no secret to be present */
};
struct lg_slotfile {
    uint64_t generation;
    uint8_t keyring_id[LG_ID_LEN];
    unsigned n_roots, n_slots; /* slots ascend by number */
    uint64_t epoch[2];
    bool anchored[2];                   /* this root is wrapped under slot key and anchor together */
    uint32_t anchor_nv;                 /* the first of two TPM NV indexes; 0: none. Also while an anchor that was given up is still to be destroyed */
    const struct lg_chip *chip;         /* borrowed, not in the file: has the anchors; NULL: none */
    struct lg_slot slots[LG_SLOTS_MAX];
    uint64_t generation_floor;
    uint8_t tombstones[LG_MAC_LEN], audit_head[LG_MAC_LEN], officers[LG_MAC_LEN];
};

/* Pure: bounded, accepts exactly what encode writes; checks the damage hash, not the MAC. */
int lg_slotfile_decode(const uint8_t *untrusted, size_t len, struct lg_slotfile *ret) LG_MUST;
int lg_slotfile_encode(const struct lg_slotfile *s, const struct lg_secret *newest, uint8_t out[LG_SLOTFILE_MAX], size_t *ret_len) LG_MUST;
/* -EBADMSG unless these bytes were written by a holder of the newest root. */
int lg_slotfile_verify(const uint8_t *bytes, size_t len, const struct lg_secret *newest) LG_MUST;

int lg_slotfile_read(const char *path, uint8_t out[LG_SLOTFILE_MAX], size_t *ret_len) LG_MUST;
/* Temporary file, fsync, rename, fsync of the directory; with fresh, -EEXIST instead of replacing. */
int lg_slotfile_write(const char *path, const struct lg_slotfile *s, const struct lg_secret *newest, bool fresh) LG_MUST;

/* ---- slots.c ---- */
static inline bool lg_slot_has_secret(unsigned type) { return type == LG_SLOT_PASSPHRASE || type == LG_SLOT_KEY_FILE; }
int lg_slotfile_make(struct lg_slotfile *s, const uint8_t keyring_id[LG_ID_LEN], const struct lg_root *root, const void *pass,
                     size_t pass_len, unsigned scrypt_ms) LG_MUST;
/* Gives every slot a second root, and afterwards forgets the first. */
int lg_slotfile_root_add(struct lg_slotfile *s, const struct lg_root *old, const struct lg_root *fresh) LG_MUST;
void lg_slotfile_root_drop(struct lg_slotfile *s);
/* The roots of the file from one of them on. -EKEYREJECTED: it is none of this file's. Of a single root no anchor is needed. */
int lg_slotfile_roots(const struct lg_slotfile *s, const struct lg_root *have, struct lg_roots *ret) LG_MUST;
/* Do the wraps of one slot give these roots, which are all of the file's? Only the slot's own secret can tell the rest. -EBADMSG; -ENODEV: an anchor is needed. */
int lg_slotfile_slot_check(const struct lg_slotfile *s, unsigned i, const struct lg_roots *roots) LG_MUST;
/* -ENOENT. */
int lg_slotfile_find(const struct lg_slotfile *s, const char *name, unsigned *ret_i) LG_MUST;
/* Changes of a file with one root, given it. -EEXIST, -ENOSPC; -ENOENT, -EPERM (the last proved one). */
int lg_slotfile_add(struct lg_slotfile *s, const struct lg_root *root, const struct lg_slot_draft *d) LG_MUST;
int lg_slotfile_change(struct lg_slotfile *s, const struct lg_root *root, const struct lg_slot_draft *d) LG_MUST;
int lg_slotfile_remove(struct lg_slotfile *s, const char *name) LG_MUST;

/* ---- rotate.c: a new root in four steps, each of which a crash may follow ---- */
struct lg_rooted;
enum lg_anchoring { LG_ANCHOR_AS_IT_IS = 0, LG_ANCHOR_BEGIN, LG_ANCHOR_END };
struct lg_root_change {
    enum lg_anchoring anchor; /* of the new root */
    /* step 1: changes the slots of the file that is about to hold both roots (NULL: none) */
    int (*edit)(struct lg_slotfile *s, const struct lg_root *root, void *arg);
    void *edit_arg;
    /* step 2: may give a bucket another key, and stores what is wrapped under it (NULL: all keep theirs) */
    int (*bucket)(struct lg_keyring *k, unsigned bucket, struct lg_secret *key, void *arg);
    /* step 3: reads the bucket's records back (NULL: only its key is) */
    int (*check)(struct lg_keyring *k, unsigned bucket, const struct lg_secret *key, void *arg);
    void *arg;
};
/* May a root change begin now? -ENOKEY, -EBUSY; one that was interrupted is ended first. */
int lg_root_change_ready(struct lg_keyring *k) LG_MUST;
/* The whole sequence, or (without edit) the rest of one that stopped after step 1. */
int lg_root_change(struct lg_keyring *k, const struct lg_root_change *c) LG_MUST;
/* Ends a root change that was interrupted between steps 2 and 4. */
int lg_root_change_end(struct lg_keyring *k, const struct lg_root_change *c) LG_MUST;
/* Does the slot file hold a second root? */
int lg_root_change_left(struct lg_keyring *k, bool *ret) LG_MUST;
int lg_slotfile_load(const struct lg_keyring *k, struct lg_slotfile *s) LG_MUST;
int lg_keyring_step(struct lg_keyring *k, const char *name) LG_MUST; /* the hook */

/* ---- anchor.c ---- */
/* The anchor's value of root e; NULL when it has none. Errors as lg_slotfile_unlock_with. The caller frees. */
int lg_anchor_read(const struct lg_slotfile *s, unsigned e, struct lg_secret **ret) LG_MUST;
/* Before step 1: a new value for the epoch to come. */
int lg_anchor_next(struct lg_keyring *k, const struct lg_slotfile *s, uint64_t epoch) LG_MUST;
/* After step 4, and whatever a crash left: the value of every other epoch is overwritten; of an anchor given up everything is destroyed, of which failure
 * is an error only if it must. Without an open transaction. */
int lg_anchor_settle(struct lg_keyring *k, bool must) LG_MUST;

/* ---- mirror.c: the second copy ---- */
/* Opens both copies of k (mirror_dir set), brings them in step. -ESTALE: only the one that fell behind is there. -EXDEV: another keyring's.
 * -ENOTEMPTY: somebody else's directory. */
int lg_mirror_open(struct lg_keyring *k) LG_MUST;
/* After a commit: notes durably that copies (bits) fell behind. */
int lg_mirror_failed(struct lg_keyring *k, unsigned failed) LG_MUST;
/* May roots and slots be changed: are keyrings and slot files in step? The latter are brought so. -ESTALE while a keyring is behind. Unlocked. */
int lg_mirror_ready(struct lg_keyring *k) LG_MUST;
int lg_slots_read(const struct lg_keyring *k, uint8_t bytes[LG_SLOTFILE_MAX], size_t *ret_len) LG_MUST;
int lg_slots_write(struct lg_keyring *k, const struct lg_slotfile *s, const struct lg_secret *newest) LG_MUST;
int lg_slots_level(struct lg_keyring *k, const struct lg_slotfile *s, const uint8_t *bytes, size_t len, const struct lg_secret *newest) LG_MUST;
/* ---- inventory.c: when the newest backup that is whole and not void was made (0: none), and how many studies it does not know ---- */
void lg_backup_age(struct lg_keyring *k, uint64_t *ret_last, uint64_t *ret_uncovered, uint64_t *ret_others);

/* ---- making a keyring (keyring.c) and what a backup needs to know of it ---- */
/* lg_keyring_create with rows (NULL: an empty one) called on the empty store, instead of lg_keyring_fill; it sets the id and the root's epoch. */
int lg_keyring_make(const char *dir, const char *slot_path, const void *pass, size_t pass_len, unsigned scrypt_ms, int (*rows)(struct lg_keyring *k, void *arg), void *arg) LG_MUST;
int lg_keyring_fill(struct lg_keyring *k) LG_MUST; /* buckets and meta, under k->root; lookup and record key are made when there are none */
/* record.c: a row of meta that is up to max numbers of 8 bytes: how many it has (0: there is no such row; what it lacks is left as it is), or -EPROTO. */
int lg_meta_numbers(struct lg_keyring *k, const char *name, uint64_t *ret, int max) LG_MUST;
int lg_meta_numbers_put(struct lg_keyring *k, const char *name, const uint64_t *n, int count) LG_MUST;
bool lg_meta_own(const void *key, size_t len);     /* is this the meta record, or the count of commits? */
bool lg_scrypt_ok(const struct lg_scrypt *s);      /* within what a hostile file may cost us */
int lg_keyring_lock_dir(const char *dir, int *ret_fd) LG_MUST;
int lg_slotfile_dir_sync(const char *path) LG_MUST; /* of the directory that this name stands in */

/* pages.c: is every page of this LMDB file that LMDB may follow one that it can follow safely? -EPROTO: no. Reads the whole tree once. */
int lg_pages_check(const char *path) LG_MUST;
/* The same walk over a file that may be damaged: what is bad is told and passed over. Rows come by table (in the order of enum lg_table), in each as they stand.
 * -EPROTO: nothing of it could be read. Otherwise what row returned, or 0. */
enum lg_table { LG_T_META, LG_T_BUCKETS, LG_T_KEYS, LG_T_LOOKUP, LG_T_ATTACHED, LG_T_VAULTS, LG_T_SESSIONS, LG_T_PENDING, LG_T_OFFICERS, LG_T_ACTS, LG_T_TOMBSTONES, LG_T_STATE, LG_TABLES };
struct lg_pages_visitor {
    void *arg;
    void (*damage)(void *arg, const char *part, uint64_t page, const char *what);
    int (*row)(void *arg, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len); /* key: at most 511 bytes. -EPROTO is no error */
    void (*progress)(void *arg, uint64_t done, uint64_t pages); /* NULL is fine */
};
int lg_pages_walk(const char *path, const struct lg_pages_visitor *v) LG_MUST;

/* ---- store.c: the only place that knows LMDB ---------------------------------------------------------------------------------------- */
struct lg_store;
int lg_store_open(const char *dir, bool create, struct lg_store **ret) LG_MUST;
void lg_store_close(struct lg_store *s);
int lg_store_begin(struct lg_store *s) LG_MUST;
/* Every live copy has it on return. *ret_failed: bits of copies that failed just now and are not used any more, while another has it. */
int lg_store_commit(struct lg_store *s, unsigned *ret_failed) LG_MUST;
void lg_store_abort(struct lg_store *s);
void lg_store_break(struct lg_store *s); /* nothing more is written: -EIO */
/* Copies in step: what is written goes to each, what is read comes from the first that lives. */
#define LG_COPIES 2u
void lg_store_join(struct lg_store *s, struct lg_store *mirror); /* takes over the mirror, which is in step */
int lg_store_clone(struct lg_store *s, int fd) LG_MUST; /* the whole file, synced */
int lg_store_commits(struct lg_store *s, uint64_t *ret) LG_MUST; /* how many there have been: tells which copy is ahead */
/* The last commit, unchanged by later ones; freed before the store is closed. Otherwise as lg_store_next. */
struct lg_snapshot;
int lg_store_snapshot(struct lg_store *s, struct lg_snapshot **ret) LG_MUST;
int lg_snapshot_next(struct lg_snapshot *n, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len) LG_MUST;
void lg_snapshot_free(struct lg_snapshot *n); /* NULL is fine */
const char *lg_table_name(enum lg_table t);
int lg_table_of(const char *name, enum lg_table *ret) LG_MUST; /* -EPROTONOSUPPORT */
/* For crash tests: before each copy's commit. */
typedef int (*lg_store_hook)(void *arg, const char *step);
void lg_store_set_hook(struct lg_store *s, lg_store_hook hook, void *arg);
bool lg_store_in_txn(const struct lg_store *s);
uint64_t lg_store_bytes(const struct lg_store *s);
/* *ret points into the database: good until the next call. -ENOENT. Outside a transaction it reads the last commit. */
int lg_store_get(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const uint8_t **ret, size_t *ret_len) LG_MUST;
int lg_store_count(struct lg_store *s, enum lg_table t, uint64_t *ret) LG_MUST; /* rows; LMDB knows, none is looked at */
int lg_store_put(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const void *value, size_t len) LG_MUST;
int lg_store_del(struct lg_store *s, enum lg_table t, const void *key, size_t key_len) LG_MUST; /* 0 when it was not there */
/* The first key >= (or, with after, >) the given one; key must have room for 64 bytes. -ENOENT: none. */
int lg_store_next(struct lg_store *s, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len) LG_MUST;
/* Every row from the first key >= the given one on (key_len 0: all), until each does not return 0: a negative number is an error, a positive one ends the walk. When
 * each lets value and len say something else, in a transaction, that is put in the row's place. It asks the store nothing itself. */
struct lg_row {
    const uint8_t *key, *value;
    size_t key_len, len;
};
int lg_store_walk(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, int (*each)(struct lg_row *row, void *arg), void *arg) LG_MUST;

#endif
