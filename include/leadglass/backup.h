/* backup.h: a keyring backup, which is a logical export under a key of its own. The bytes are docs/FORMAT-keyring.md, "Backup".
 *
 * The backup key is made by whoever asks for the backup and wrapped by what shall open it; the keyring neither keeps nor learns that. What is
 * exported opens nothing but itself: no root, slot or bucket key is in it. */
#ifndef LEADGLASS_BACKUP_H
#define LEADGLASS_BACKUP_H

#include "leadglass/keyring.h"
#include "leadglass/shares.h"

#define LG_BACKUP_FRAME_MAX 65536u /* a sealed frame, its length not counted */

/* ---- making one, in the key manager ---- */

/* The keyring as it is now, whatever changes meanwhile. k must outlive it; unlocked, without an open transaction (-EBUSY). */
struct lg_backup;
int lg_backup_begin(struct lg_keyring *k, const struct lg_secret *key, struct lg_backup **ret) LG_MUST;
const uint8_t *lg_backup_id(const struct lg_backup *b);
/* The next sealed frame into buf (LG_BACKUP_FRAME_MAX bytes). *ret_end with the last one. */
int lg_backup_next(struct lg_backup *b, uint8_t *buf, size_t *ret_len, bool *ret_end) LG_MUST;
/* Enters it into the inventory, as one that may be whole: durable before the last frame leaves the key manager, since from then on a file may hold all of it whatever
 * becomes of whoever writes it. Needs begin of the keyring. */
int lg_backup_note(struct lg_keyring *k, const struct lg_backup *b, const char *name) LG_MUST;
/* ... and that all of it is safe: from then on it counts as a copy of the keys. Needs begin. -ENOENT. */
int lg_backup_whole(struct lg_keyring *k, const uint8_t id[LG_ID_LEN]) LG_MUST;
void lg_backup_free(struct lg_backup *b); /* NULL is fine */

/* The inventory. */
#define LG_BACKUP_NAME_MAX 255u
struct lg_backup_entry {
    uint8_t id[LG_ID_LEN];
    uint64_t created; /* seconds since 1970 */
    uint64_t voided;  /* 0: outstanding */
    uint64_t keys;    /* studies it knows of, destroyed ones included */
    uint64_t versions; /* how many versions had been added to studies' keys by then */
    uint64_t others;   /* how many keys had been made that are no study's */
    uint64_t epoch;    /* of the root when it was begun: it holds the keys that a later epoch's root change destroys; 0: not known (entries from before) */
    uint64_t bytes;    /* of its file; 0: not known */
    bool whole;        /* whoever wrote it said that it is safe; without that it is outstanding all the same, but no copy to rely on */
    char name[LG_BACKUP_NAME_MAX + 1];
};
/* All of them, oldest first; to be freed. */
int lg_backup_list(struct lg_keyring *k, struct lg_backup_entry **ret, unsigned *ret_n) LG_MUST;
/* Notes that this backup was destroyed. Needs begin. -ENOENT, -EALREADY. */
int lg_backup_void(struct lg_keyring *k, const uint8_t id[LG_ID_LEN]) LG_MUST;

/* ---- reading one, without a key manager ---- */

struct lg_backup_header {
    uint8_t id[LG_ID_LEN];
    uint64_t created;
    struct lg_scrypt_params {
        uint8_t log2_n, r, p, salt[32];
    } scrypt;
    uint8_t k, n; /* in place of a passphrase: opened by any k of n shares; 0: by the passphrase */
    uint8_t set[LG_SHARE_SET_LEN];
    uint8_t wrapped[48]; /* wrap(scrypt(passphrase), or what the shares give; backup key) */
};
#define LG_BACKUP_HEADER_LEN (8u + 4u + LG_ID_LEN + 8u + 35u + 48u + 32u)
/* Makes a backup key and the header that gives it to the passphrase. The id is the key manager's. */
int lg_backup_header_make(const uint8_t id[LG_ID_LEN], const struct lg_secret *key, const void *pass, size_t len, unsigned scrypt_ms,
                          uint8_t out[LG_BACKUP_HEADER_LEN]) LG_MUST;
/* The same for n shares (ret) of which any k open it. -EINVAL: lg_shares_split. */
int lg_backup_header_make_shares(const uint8_t id[LG_ID_LEN], const struct lg_secret *key, unsigned k, unsigned n, uint8_t out[LG_BACKUP_HEADER_LEN], struct lg_share *ret) LG_MUST;
int lg_backup_header_read(const uint8_t in[LG_BACKUP_HEADER_LEN], struct lg_backup_header *ret) LG_MUST; /* -EPROTO, -EPROTONOSUPPORT */
/* -EKEYREJECTED. */
int lg_backup_header_open(const struct lg_backup_header *h, const void *pass, size_t len, struct lg_secret *ret_key) LG_MUST;
/* -EXDEV: a share of another backup. -EKEYREJECTED. Otherwise as lg_shares_join. */
int lg_backup_header_join(const struct lg_backup_header *h, const struct lg_share *s, unsigned n, struct lg_secret *ret_key) LG_MUST;

/* What a backup holds, counted while every frame is authenticated and every key tried on its study's record. */
struct lg_backup_counts {
    uint8_t keyring_id[LG_ID_LEN];
    uint64_t created, epoch, keys, studies, destroyed, vaults, versions, bad; /* bad: keys that do not open their record */
    uint64_t tombstones, tombstones_bad, tombstones_cut; /* of a restore with some: good; damaged or altered; cut off at a file's end */
    int aside; /* of a restore: 0, or why the tombstones of the keyring that stood there before could not be set aside: a negated errno */
};
/* A source of bytes: exactly len, or -EPROTO at the end. */
typedef int (*lg_backup_read)(void *arg, void *buf, size_t len);
/* Reads all frames. -EBADMSG: altered, cut or reordered. */
int lg_backup_check(const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, struct lg_backup_counts *ret) LG_MUST;
/* What is known of the time after the backup. All zeros: nothing. */
struct lg_backup_later {
    const char *destroyed;  /* key ids or study UIDs, one a line (NUL-terminated text), or NULL */
    const void *tombstones; /* the bytes of a file SLOTFILE.tombstones, or NULL */
    size_t tombstones_len;
    uint64_t now; /* seconds since 1970; 0: the system's clock */
    const char *name; /* of the backup's file, for the inventory; or NULL */
    bool damaged_too; /* tombstones that are damaged or altered do not stop it: what they seem to name is quarantined, and they are counted */
};
/* A new keyring and slot file from it, of the same keyring id in a new incarnation: higher epoch, session numbers never used, acts signed before are
 * not taken any more, and nothing is destroyed until lg_keyring_restored_confirm. Studies destroyed later become `restored` and are not served.
 * -EEXIST; -ENOMSG: no file of tombstones; -EXDEV: another keyring's; -EKEYREJECTED: one is damaged or not signed by the keyring (and not damaged_too); -ENODATA: the backup
 * does not know the key that signs them. Nothing is left behind on error. */
int lg_backup_restore(const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const char *dir, const char *slot_path,
                      const void *pass, size_t pass_len, unsigned scrypt_ms, const struct lg_backup_later *later, struct lg_backup_counts *ret, unsigned *ret_quarantined) LG_MUST;

#endif
