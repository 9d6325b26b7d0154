/* Inside the keyring module: the root-slot file as a structure. Its bytes are described in docs/FORMAT-keyring.md. */
#ifndef LEADGLASS_KEYRING_INTERNAL_H
#define LEADGLASS_KEYRING_INTERNAL_H

#include "leadglass/crypto.h"
#include "leadglass/keyring.h"

#define LG_SLOTFILE_MAX 8192u
#define LG_SLOTFILE_VERSION 1u
#define LG_SLOT_PASSPHRASE 1u

struct lg_slot {
    uint8_t type;
    char name[LG_SLOT_NAME_MAX + 1];
    struct lg_scrypt scrypt;
    uint8_t slot_key[LG_WRAPPED_LEN];     /* wrap(passphrase key, slot key) */
    uint8_t root[2][LG_WRAPPED_LEN];      /* wrap(slot key, root) */
    uint8_t root_slot[2][LG_WRAPPED_LEN]; /* wrap(root, slot key): a new root needs no secret to be present */
};
struct lg_slotfile {
    uint64_t generation;
    uint8_t keyring_id[LG_ID_LEN];
    unsigned n_roots, n_slots;
    uint64_t epoch[2];
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

int lg_slotfile_make(struct lg_slotfile *s, const uint8_t keyring_id[LG_ID_LEN], const struct lg_root *root, const void *pass,
                     size_t pass_len, unsigned scrypt_ms) LG_MUST;
/* Gives every slot a second root, and afterwards forgets the first. */
int lg_slotfile_root_add(struct lg_slotfile *s, const struct lg_root *old, const struct lg_root *fresh) LG_MUST;
void lg_slotfile_root_drop(struct lg_slotfile *s);
/* All roots of the file, given any one of them. -EKEYREJECTED: it is none of this file's. */
int lg_slotfile_roots(const struct lg_slotfile *s, const struct lg_root *have, struct lg_roots *ret) LG_MUST;

/* pages.c: is every page of this LMDB file that LMDB may follow one that it can follow safely? -EPROTO: no. Reads the whole tree once. */
int lg_pages_check(const char *path) LG_MUST;

/* ---- store.c: the only place that knows LMDB ---------------------------------------------------------------------------------------- */
enum lg_table { LG_T_META, LG_T_BUCKETS, LG_T_KEYS, LG_T_LOOKUP, LG_T_ATTACHED, LG_T_VAULTS, LG_T_SESSIONS, LG_T_PENDING, LG_TABLES };
struct lg_store;
int lg_store_open(const char *dir, bool create, struct lg_store **ret) LG_MUST;
void lg_store_close(struct lg_store *s);
int lg_store_begin(struct lg_store *s) LG_MUST;
int lg_store_commit(struct lg_store *s) LG_MUST;
void lg_store_abort(struct lg_store *s);
bool lg_store_in_txn(const struct lg_store *s);
uint64_t lg_store_bytes(const struct lg_store *s);
/* *ret points into the database: good until the next call. -ENOENT. Outside a transaction it reads the last commit. */
int lg_store_get(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const uint8_t **ret, size_t *ret_len) LG_MUST;
int lg_store_put(struct lg_store *s, enum lg_table t, const void *key, size_t key_len, const void *value, size_t len) LG_MUST;
int lg_store_del(struct lg_store *s, enum lg_table t, const void *key, size_t key_len) LG_MUST; /* 0 when it was not there */
/* The first key >= (or, with after, >) the given one; key must have room for 64 bytes. -ENOENT: none. */
int lg_store_next(struct lg_store *s, enum lg_table t, bool after, void *key, size_t *key_len, const uint8_t **ret, size_t *ret_len) LG_MUST;

#endif
