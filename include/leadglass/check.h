/* check.h: what of a keyring is damaged and what is not. Reads files and nothing else: LMDB does not open them, no file is made, no byte is changed.
 *
 * Without a secret everything is looked at that can be told without one: the slot file's hash, LMDB's pages, the form of every record and what they say of
 * each other. With one, every wrap and everything sealed is opened too. */
#ifndef LEADGLASS_CHECK_H
#define LEADGLASS_CHECK_H

#include "leadglass/keyring.h"

struct lg_check_damage {
    const char *part; /* "slot file", "keys", "buckets" ..., as docs/FORMAT-keyring.md calls tables; "tables", "free list" */
    const char *what; /* a phrase that follows its subject */
    char subject[128]; /* such as "slot passphrase"; empty: the part itself, or the key, bucket or page below */
    bool has_kid, has_page;
    uint8_t kid[LG_ID_LEN]; /* key id */
    int bucket;             /* -1: none */
    uint64_t page;          /* of data.mdb, 4096 bytes each */
};

struct lg_check_copy { /* what one copy holds */
    bool there;            /* its meta record could be read: what follows is known */
    uint8_t keyring_id[LG_ID_LEN];
    uint64_t commits, epoch, generation; /* generation: what the keyring asks of its slot file */
    bool slot_there;
    uint64_t slot_generation, slot_epoch; /* of the newest root in it */
    unsigned slots;
    uint64_t buckets, studies, destroyed, provisional, vaults, sessions, heads, backups, acts, tombstones, versions; /* versions: wrapped keys */
    uint64_t opened;  /* wraps and sealed records that were opened */
    uint64_t unknown; /* records that this version knows nothing of */
    uint64_t damages;
};

struct lg_check {
    const struct lg_roots *roots; /* NULL: nothing is opened */
    void *arg;
    void (*damage)(void *arg, const struct lg_check_damage *d);
    void (*progress)(void *arg, uint64_t done, uint64_t pages); /* NULL is fine */
    /* Is this a head of an access log that the holder of pub signed? NULL: not looked at. */
    int (*head)(const char *text, size_t len, const uint8_t *pub);
};
/* One copy: its directory and its slot file. -EWOULDBLOCK: a key manager has it open. -ENOENT: there is no such directory. */
int lg_check_keyring(const struct lg_check *c, const char *dir, const char *slot_path, struct lg_check_copy *ret) LG_MUST;

#endif
