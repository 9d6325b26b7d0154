/* Inside the checking of a keyring: check.c walks, checkrow.c knows each table. */
#ifndef LG_KEYRING_CHECK_H
#define LG_KEYRING_CHECK_H

#include "leadglass/check.h"
#include "govern.h"

struct known { /* a key record that was found */
    uint8_t kid[LG_ID_LEN];
    uint8_t kind;
    bool alive; /* has versions */
    uint64_t lookup; /* the hash of its study's UID, folded; 0: not opened */
    bool named; /* a UID, a vault or a study leads to it */
};
enum { BUCKET_MISSING = 0, BUCKET_THERE, BUCKET_BAD };

struct lg_checking {
    const struct lg_check *c;
    struct lg_check_copy *out;
    struct lg_keyring k; /* no store: what unwrapping needs */
    bool have_meta, open; /* open: the roots that were given are this keyring's */
    uint8_t bucket[LG_BUCKETS];
    struct known *known; /* ascending by key id once sorted */
    size_t n, cap;
    bool sorted;
    uint8_t (*vault)[LG_ID_LEN]; /* ids */
    size_t n_vault;
    uint64_t states[LG_KEY_RESTORED + 1]; /* of studies; opened alone */
    bool have_pub, have_sign; /* keys of the keyring's that sign heads and tombstones */
    uint8_t pub[LG_SIGN_PUB_LEN], sign[LG_SIGN_PUB_LEN];
    struct late { /* what can only be judged when everything was seen: heads, tombstones, sessions */
        enum lg_table t;
        uint8_t key[64];
        size_t key_len, len;
        uint8_t *value;
    } *late;
    size_t n_late;
};

void lg_check_say(struct lg_checking *x, const char *part, const char *what, const char *subject);
void lg_check_say_key(struct lg_checking *x, const char *part, const uint8_t kid[LG_ID_LEN], const char *what);
/* One record. 0, or -ENOMEM. */
int lg_check_row(struct lg_checking *x, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len) LG_MUST;
/* After the last one. */
int lg_check_rest(struct lg_checking *x) LG_MUST;

#endif
