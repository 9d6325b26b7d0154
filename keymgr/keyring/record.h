/* Inside the keyring: its state and its records. docs/FORMAT-keyring.md is the specification. */
#ifndef LG_KEYRING_RECORD_H
#define LG_KEYRING_RECORD_H

#include "internal.h"
#include "leadglass/bytes.h"

#define LG_KEYRING_VERSION 1u
enum { RECORD_MAX = 8192, CTRL_UNIT = 128, CTRL_MAX = 1280, INFO_LEN = 448, LG_AD_LEN = 8 + 2 * LG_ID_LEN + 8 + 4 /* of a wrap */ };

/* The one record of the meta table. */
struct lg_meta {
    uint32_t version;
    uint8_t keyring_id[LG_ID_LEN];
    uint64_t epoch, generation; /* generation: the slot file may not be older than this */
    uint64_t studies, destroyed, vaults, next_session;
    uint8_t lookup[LG_WRAPPED_LEN], record[LG_WRAPPED_LEN]; /* keys of the whole keyring, wrapped by the root */
};

/* One key of any kind. */
struct lg_record {
    uint8_t kid[LG_ID_LEN];
    enum lg_key_kind kind;
    uint32_t n; /* versions; 0: destroyed */
    uint32_t version[LG_KEY_VERSIONS_MAX];
    uint8_t wrapped[LG_KEY_VERSIONS_MAX][LG_WRAPPED_LEN];
    /* sealed under the record key, readable when the key is gone */
    enum lg_key_state state;
    uint64_t created, changed;
    uint32_t changed_by;
    uint8_t attached[LG_ID_LEN]; /* study that a provisional key belongs to; zero: none */
    uint8_t lookup[LG_MAC_LEN];
    char reason[LG_REASON_MAX + 1];
    struct lg_control { /* of studies; zeros in records from before these were kept */
        uint8_t act[LG_ID_LEN];  /* the act that made the present state */
        uint8_t hold[LG_ID_LEN]; /* the act that placed the legal hold */
        uint64_t retain_until;
        uint64_t due_wall, due_run; /* destroy-approved: carried out when both the wall clock and the running time have come so far */
        uint8_t before;             /* destroy-approved: the state that cancelling goes back to */
        uint8_t rule;
        uint8_t unconfirmed;        /* destroy-approved or later: a mount has not confirmed that it dropped everything */
        uint64_t rotated;           /* when the newest version was made; 0: the first, or made before this was kept */
    } c;
    /* sealed under the newest study key */
    bool has_info;
    uint8_t info[INFO_LEN + LG_SIV_TAG_LEN];
};

/* A root with its key schedule: buckets are many. */
struct lg_rooted {
    uint64_t epoch;
    struct lg_siv *siv;
};

/* How far the studies of each patient are gathered (patient.c). */
enum lg_gather_phase { LG_UNGATHERED = 0, LG_GATHERING, LG_GATHERED };
struct lg_gather {
    enum lg_gather_phase phase;
    uint64_t made;            /* studies there ever were, as of the last commit */
    uint8_t last[LG_ID_LEN];  /* gathering: up to this key id */
};

struct lg_keyring {
    char *dir, *slot_path;
    char *mirror_dir, *mirror_slot; /* NULL: none */
    int lockfd, mirror_lockfd;
    unsigned stale;   /* LG_STALE_...: that copy is not written any more */
    enum lg_mirror_news mirror_news;
    int mirror_error; /* why the copies could not be brought in step */
    struct lg_store *store;
    struct lg_meta meta, saved; /* saved: as of the last commit */
    bool meta_dirty;
    /* while unlocked */
    struct lg_root root;
    struct lg_rooted rooted; /* the same */
    struct lg_secret *lookup, *record;
    struct lg_siv *ctrl;
    uint8_t *bucket; /* LG_BUCKETS keys of LG_SIV_KEY_LEN bytes of secret memory, derived from the buckets' */
    bool have_bucket[LG_BUCKETS];
    int unfinished; /* of the destruction that unlocking resumed */
    int unkept;     /* why the file of tombstones is not up to date */
    enum lg_put_back put_back;
    bool rolled, rolled_saved; /* put back: read-only until officers accept it (seen.c); as it is on the disk */
    bool officers_bad; /* the set is not the one that the slot file vouches for: no act is taken */
    struct lg_gather gather;
    struct { /* whose files are to be removed from vaults, counted when asked for: until something of it changes (reap.c) */
        bool known;
        uint64_t due, waiting;
    } reaps;
    bool ticked;       /* running time is counted from ticked_run on */
    uint64_t ticked_run;
    const struct lg_chip *chip; /* borrowed; NULL: none */
    lg_keyring_clock clock;
    void *clock_arg;
    lg_keyring_hook hook;
    void *hook_arg;
};

static inline unsigned lg_bucket_of(const uint8_t kid[LG_ID_LEN]) { return (unsigned)kid[0] << 4 | kid[1] >> 4; }

bool lg_meta_is(const void *key, size_t len); /* is this the meta record? */
int lg_meta_parse(const uint8_t *p, size_t len, struct lg_meta *ret) LG_MUST;
int lg_meta_read(struct lg_keyring *k) LG_MUST;
int lg_meta_write(struct lg_keyring *k) LG_MUST;
int lg_meta_unwrap(struct lg_keyring *k, const struct lg_root *root, struct lg_secret *lookup, struct lg_secret *record) LG_MUST;
int lg_meta_wrap(struct lg_keyring *k, const struct lg_root *root) LG_MUST;
int lg_bucket_wrap(struct lg_keyring *k, unsigned bucket, const struct lg_rooted *root, const struct lg_secret *key) LG_MUST; /* stores it */
int lg_bucket_open(const struct lg_keyring *k, unsigned bucket, const struct lg_rooted *root, const uint8_t wrapped[LG_WRAPPED_LEN], struct lg_secret *ret) LG_MUST;
/* Up to LG_KEYS_AT_ONCE buckets from first on, their wraps one after the other. */
int lg_buckets_wrap(const struct lg_keyring *k, unsigned first, unsigned n, const struct lg_rooted *root, const struct lg_secret *keys, uint8_t *wrapped) LG_MUST;
int lg_buckets_open(const struct lg_keyring *k, unsigned first, unsigned n, const struct lg_rooted *root, const uint8_t *wrapped, struct lg_secret *ret) LG_MUST;
int lg_bucket_key(struct lg_keyring *k, unsigned bucket, struct lg_secret *ret) LG_MUST; /* as it is stored */
/* What wraps under it are made with: derived once while the keyring is unlocked and the root is the same. */
int lg_bucket_siv_key(struct lg_keyring *k, unsigned bucket, const uint8_t **ret) LG_MUST; /* LG_SIV_KEY_LEN bytes of the keyring's */
int lg_bucket_siv(struct lg_keyring *k, unsigned bucket, struct lg_siv **ret) LG_MUST;     /* the caller frees it */
int lg_version_wrap(const struct lg_keyring *k, struct lg_siv *bucket, struct lg_record *r, uint32_t i, const struct lg_secret *key) LG_MUST;
int lg_version_unwrap(const struct lg_keyring *k, struct lg_siv *bucket, const struct lg_record *r, uint32_t i, struct lg_secret *ret) LG_MUST;
/* What a version's wrap is bound to. */
void lg_version_ad(const struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], enum lg_key_kind kind, uint32_t version, uint8_t out[LG_AD_LEN]);
/* Where in a stored record its versions are, LG_VERSION_LEN bytes each: number, wrap. The rest is not looked at. */
enum { LG_VERSION_LEN = 4 + LG_WRAPPED_LEN };
struct lg_wraps {
    enum lg_key_kind kind;
    uint32_t n;
    size_t off;
};
int lg_wraps_find(const uint8_t *p, size_t len, struct lg_wraps *ret) LG_MUST;
/* Without a key: everything but what the control part says. */
int lg_record_split(const uint8_t kid[LG_ID_LEN], const uint8_t *p, size_t len, struct lg_record *ret, const uint8_t **ret_ctrl, size_t *ret_ctrl_len) LG_MUST;
int lg_record_parse(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const uint8_t *p, size_t len, struct lg_record *ret) LG_MUST;
int lg_record_get(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], struct lg_record *ret) LG_MUST; /* -ENOENT */
/* A new key, version 1, with its record not yet stored. The caller owns it. */
int lg_key_make(struct lg_keyring *k, enum lg_key_kind kind, struct lg_record *r, struct lg_key *ret) LG_MUST;
/* The key of version number i (its place, not its name). The caller owns it. */
int lg_record_key(struct lg_keyring *k, const struct lg_record *r, uint32_t i, struct lg_key *ret) LG_MUST;
int lg_record_find(struct lg_keyring *k, const char *uid, struct lg_record *ret) LG_MUST; /* -ENOENT */
int lg_keyring_need(const struct lg_keyring *k, bool txn) LG_MUST; /* unlocked, and perhaps in a transaction? -ENOKEY, -EINVAL */
int lg_record_encode(struct lg_keyring *k, const struct lg_record *r, uint8_t out[RECORD_MAX], size_t *ret_len) LG_MUST;
int lg_record_put(struct lg_keyring *k, const struct lg_record *r) LG_MUST;
/* version.c: how many versions were ever added to studies' keys: tells how many of them a backup does not have. */
uint64_t lg_versions_added(struct lg_keyring *k);
/* Likewise how many keys were made that are no study's: of vaults, general, provisional. 0 as long as none was since this is counted. */
uint64_t lg_others_made(struct lg_keyring *k);
int lg_others_add(struct lg_keyring *k) LG_MUST;
/* What is known of a study, sealed under its newest key. */
int lg_info_seal(const struct lg_keyring *k, struct lg_record *r, const struct lg_secret *key, const struct lg_study_info *info) LG_MUST;
int lg_info_open(const struct lg_keyring *k, const struct lg_record *r, const struct lg_secret *key, struct lg_study_info *ret) LG_MUST;

/* ---- tombstone.c: how many keyring backups hold what this study's tombstone is of; LG_OUTSTANDING_UNKNOWN: destroyed before tombstones were kept ---- */
int lg_tombstone_outstanding(struct lg_keyring *k, const struct lg_record *r, uint64_t *ret) LG_MUST;

#endif
