/* keyring.h: the keyring (the only door to LMDB) and the root-slot file beside it.
 *
 * unlock slot -> slot key -> root key (epoch e) -> bucket key -> study key (version v). The LMDB file holds wrapped keys only.
 * One process, one thread uses a keyring object; the slot-file functions marked thread-safe may run elsewhere.
 *
 * Writes: lg_keyring_begin .. several changes .. lg_keyring_commit. Nothing a change returned may be used or answered before
 * lg_keyring_commit returned 0 (durable before use); commits are thereby grouped by the caller. */
#ifndef LEADGLASS_KEYRING_H
#define LEADGLASS_KEYRING_H

#include <stdbool.h>
#include <stdint.h>

#include "leadglass/act.h"
#include "leadglass/secret.h"
#include "leadglass/study.h"

#define LG_BUCKETS 4096u
#define LG_KEY_VERSIONS_MAX 64u
#define LG_REASON_MAX 1024u
#define LG_SLOTS_MAX 16u
#define LG_SLOT_NAME_MAX 63u

struct lg_keyring;

/* ---- the root-slot file -------------------------------------------------------------------------------------------- */

/* One root key and its epoch. */
struct lg_root {
    uint64_t epoch;
    struct lg_secret *key; /* owned */
};

/* What unlocking gives: one root, or two while a root change was interrupted (old epoch first). */
struct lg_roots {
    unsigned n;
    struct lg_root r[2];
    unsigned slot; /* number of the slot that opened */
};
void lg_roots_done(struct lg_roots *r);

enum lg_slot_type {
    LG_SLOT_PASSPHRASE = 1,
    LG_SLOT_KEY_FILE = 2, /* the secret is the SHA-256 of a file's bytes */
    LG_SLOT_TPM = 3,      /* the secret is sealed to this machine's TPM */
};
const char *lg_slot_type_name(enum lg_slot_type t); /* "passphrase", "key-file", "tpm" */

/* The machine's TPM as slots need it: leadglass/tpm.h behind it, or a test. */
struct lg_chip {
    void *arg;
    int (*unseal)(void *arg, const uint8_t *untrusted_sealed, size_t len, struct lg_secret *ret); /* errors as lg_tpm_unseal */
    /* The anchor's two places (nv and nv + 1), as lg_tpm_nv_...; NULL: it has none. */
    int (*nv_make)(void *arg, const uint8_t keyring_id[LG_ID_LEN], uint32_t *ret_nv);
    int (*nv_read)(void *arg, uint32_t nv, const uint8_t keyring_id[LG_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret);
    int (*nv_write)(void *arg, uint32_t nv, const uint8_t keyring_id[LG_ID_LEN], uint64_t epoch, const struct lg_secret *value);
    int (*nv_free)(void *arg, uint32_t nv, const uint8_t keyring_id[LG_ID_LEN]);
};

/* Thread-safe, slow (scrypt): reads the slot file and tries the secret on the slots of that type (LG_SLOT_PASSPHRASE, LG_SLOT_KEY_FILE), all or
 * (name not NULL) the one of that name. -EKEYREJECTED: none opens. -EPROTO: damaged file. -EPROTONOSUPPORT: newer version. -ENOENT: no such file. */
int lg_slotfile_unlock(const char *slot_path, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_roots *ret) LG_MUST;
/* The same with a TPM, or NULL. LG_SLOT_TPM takes no secret: -ENODATA: there is no such slot; else the chip's errors, of the slot that came nearest;
 * -ENODEV also without a chip. Of an anchored slot file, whatever the type: -ENODEV; -ENOMEDIUM: this chip has no anchor of the keyring;
 * -EKEYEXPIRED: it has another epoch's, as the slot file is an old copy. */
int lg_slotfile_unlock_with(const char *slot_path, const struct lg_chip *chip, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_roots *ret) LG_MUST;

struct lg_slot_info {
    unsigned number;
    enum lg_slot_type type;
    char name[LG_SLOT_NAME_MAX + 1];
    uint64_t created, proved; /* seconds since 1970; proved: when its secret was first seen to open it, 0 never */
};
/* The slots of a slot file, at most LG_SLOTS_MAX. Needs no key. Errors as above. */
int lg_slotfile_list(const char *slot_path, struct lg_slot_info ret[LG_SLOTS_MAX], unsigned *ret_n) LG_MUST;

/* A slot about to be made: its secret made into a key, by the costs of the file's other slots. Thread-safe, slow (scrypt).
 * -EINVAL: an empty name or secret, or a name with control characters. */
struct lg_slot_draft;
int lg_slot_draft_new(const char *slot_path, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_slot_draft **ret) LG_MUST;
/* A TPM slot: the secret (copied), and what the chip sealed it as. -EINVAL also when that is longer than 768 bytes. */
int lg_slot_draft_tpm(const char *name, const struct lg_secret *secret, const uint8_t *sealed, size_t len, struct lg_slot_draft **ret) LG_MUST;
void lg_slot_draft_free(struct lg_slot_draft *d); /* NULL is fine */

/* ---- life of a keyring --------------------------------------------------------------------------------------------- */

/* Creates DIR (0700) with an empty keyring, all 4096 bucket keys, and the slot file with one passphrase slot named "passphrase".
 * scrypt_ms: calibration target (500 ordinarily; 0: next to nothing, for tests). -EEXIST when either exists already; nothing is left behind on error. */
int lg_keyring_create(const char *dir, const char *slot_path, const void *pass, size_t pass_len, unsigned scrypt_ms) LG_MUST;

/* Opens it locked. mirror: a second copy in another directory (its slot file: MIRROR.root), or NULL. It is made when there is none, and
 * copies that differ are brought in step, the newer one over the older; where that cannot be, the keyring is degraded (lg_keyring_stat).
 * -EWOULDBLOCK: another key manager holds it. -EPROTONOSUPPORT: newer format. -ENOENT, -EPROTO. With a mirror: -ESTALE: only the copy that
 * fell behind is there; -EXDEV: it is another keyring's mirror; -ENOTEMPTY: the mirror's directory holds something else. */
int lg_keyring_open(const char *dir, const char *slot_path, const char *mirror, struct lg_keyring **ret) LG_MUST;
enum { LG_STALE_KEYRING = 1, LG_STALE_MIRROR = 2 };
enum lg_mirror_news { LG_MIRROR_NONE = 0, LG_MIRROR_MADE, LG_MIRROR_LEVELLED };
/* What opening did about the copies; *ret_error: 0, or why it failed. */
enum lg_mirror_news lg_keyring_mirror_news(const struct lg_keyring *k, int *ret_error);
/* Which of the two slot files to read: the one that is whole and newest. mirror_slot may be NULL. Thread-safe. */
const char *lg_slotfile_pick(const char *slot_path, const char *mirror_slot);
void lg_keyring_close(struct lg_keyring *k);
/* The TPM, before unlocking; borrowed until close. */
void lg_keyring_set_chip(struct lg_keyring *k, const struct lg_chip *chip);

/* Adopts root keys (copied), checks them against the keyring (-EKEYREJECTED when they do not belong to it; lg_keyring_put_back then tells why, if it is that), resumes an interrupted
 * destruction or root change from wherever a crash left it, and leaves the keyring unlocked. After that, lg_keyring_root gives the one
 * root in force (copy; caller frees), which changes when studies are destroyed: hand it to the supervisor each time. */
int lg_keyring_unlock(struct lg_keyring *k, const struct lg_roots *roots) LG_MUST;
int lg_keyring_root(struct lg_keyring *k, struct lg_root *ret) LG_MUST;
/* Of the two files one was put back in an older state, so that the last unlock could not open the keyring. */
enum lg_put_back { LG_PUT_BACK_NOT = 0, LG_PUT_BACK_SLOTS = 1, LG_PUT_BACK_KEYRING = 2 };
enum lg_put_back lg_keyring_put_back(const struct lg_keyring *k);
/* 0, or why the destruction that the last unlock resumed could not be ended: its studies stay destroying, everything else is served. */
int lg_keyring_unfinished(const struct lg_keyring *k);
/* 0, or why SLOTFILE.tombstones, which tells a restore what was destroyed after its backup, lacks some; the next unlock or destruction tries again. */
int lg_keyring_unkept(const struct lg_keyring *k);
/* Brings it up to date: after the last batch of lg_keyring_trim, whose tombstones are many. */
int lg_keyring_keep(struct lg_keyring *k) LG_MUST;
/* Forgets every key (wiped). Aborts a transaction that is open. */
void lg_keyring_lock(struct lg_keyring *k);
bool lg_keyring_unlocked(const struct lg_keyring *k);

int lg_keyring_begin(struct lg_keyring *k) LG_MUST;
int lg_keyring_commit(struct lg_keyring *k) LG_MUST; /* durable on return; on error everything since begin is undone */
void lg_keyring_abort(struct lg_keyring *k);
bool lg_keyring_in_txn(const struct lg_keyring *k);

/* Slots, by an unlocked keyring and without any other slot's secret. All: call without an open transaction (-EBUSY).
 * Durable on return. Changing and removing give the keyring a new root, so that the slot's old secret opens nothing of what comes;
 * the root may have changed even on error, and the next unlock ends what was begun (see lg_keyring_destroy).
 * -EEXIST, -ENOSPC (LG_SLOTS_MAX); -ENOENT; -EPERM: no other slot is left that was proved to work (a TPM one does not count). */
int lg_keyring_slot_add(struct lg_keyring *k, const struct lg_slot_draft *d) LG_MUST;
int lg_keyring_slot_change(struct lg_keyring *k, const struct lg_slot_draft *d) LG_MUST;
int lg_keyring_slot_remove(struct lg_keyring *k, const char *name) LG_MUST;
/* Notes that the slot's secret opened it (lg_roots.slot); writes only the first time. */
int lg_keyring_slot_proved(struct lg_keyring *k, unsigned number) LG_MUST;

/* A new version of a study's key, which new files use; the old versions go on decrypting. Needs begin.
 * -ENOENT, -EKEYREVOKED (not active), -ENOSPC (LG_KEY_VERSIONS_MAX versions: trim first). */
int lg_keyring_rotate_study(struct lg_keyring *k, const char *uid, uint8_t ret_kid[LG_ID_LEN]) LG_MUST;
/* The same for the next active studies in key-id order, from after (NULL: the start) on, at most max (1 or more). Needs begin. */
struct lg_rotated {
    unsigned n, full; /* given a new version; left alone as they have LG_KEY_VERSIONS_MAX */
    bool end;         /* there are no more */
    uint8_t last[LG_ID_LEN];
};
int lg_keyring_rotate_studies(struct lg_keyring *k, const uint8_t *after, unsigned max, struct lg_rotated *ret) LG_MUST;

/* Old versions of keys are retired, as an act of two officers says (or one in single-administrator mode), whose waiting period has ended. Needs begin.
 * ready only looks: -EPERM (nobody has approved), -EAGAIN (it still waits), -ETIME, -EALREADY, -EINVAL (no such act), -ENOENT, -ENOLCK (frozen clock), -EROFS (restored, not
 * confirmed), -EREMOTE (a vault is not among those that the act names).
 * lg_keyring_trim takes the next studies, in key-id order from after (NULL: the start) on, at most max, for which nothing of that stands in the way, and makes all versions but
 * the newest pending; then commit, and lg_keyring_destroy. ret->full: passed over, as they are held, suspended, or were given a version since it was asked for (one study: -EBUSY,
 * -EKEYREVOKED, -ESTALE). With the last batch the act is done. The caller has looked: no file needs these versions, and no mount makes any that does. */
int lg_keyring_trim_ready(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], struct lg_act *ret, struct lg_act_record *ret_record) LG_MUST;
int lg_keyring_trim(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], const uint8_t *after, unsigned max, struct lg_rotated *ret) LG_MUST;

/* A new root: every bucket key wrapped anew, the old root forgotten. No study key changes. */
int lg_keyring_rotate_root(struct lg_keyring *k) LG_MUST;

/* Begins, or gives up, anchoring the slot file: from the new root on that this makes, every root is wrapped under a value in the chip too, which each
 * change of root replaces and overwrites, so that copies of older slot files open nothing. -EALREADY. -ENODEV and other errors of the chip.
 * Giving up works while the chip is dead, with an error that tells that its values could not be destroyed: then the slot file needs them no more. */
int lg_keyring_anchor(struct lg_keyring *k, bool on) LG_MUST;

/* Of the slot file as it stands on the disk: the first NV index of its anchor; 0: it is not anchored. Works while locked; reads the file. */
uint32_t lg_keyring_anchor_nv(const struct lg_keyring *k);

/* Was this keyring restored from a backup and not confirmed since? Then nothing is destroyed. */
bool lg_keyring_restored(struct lg_keyring *k);
/* When this incarnation of the keyring began (seconds since 1970; 0: it was never restored). Acts made before are not taken. */
uint64_t lg_incarnation(struct lg_keyring *k);
/* When the backup was made that it came from; of a keyring restored more than once, the first. Backups made after that and before lg_incarnation may be missing in
 * the inventory. 0: that was not kept yet. */
uint64_t lg_restored_from(struct lg_keyring *k);
int lg_keyring_restored_confirm(struct lg_keyring *k) LG_MUST; /* needs begin; -EALREADY */

struct lg_keyring_stat {
    uint8_t keyring_id[LG_ID_LEN];
    uint64_t epoch;      /* of the root */
    uint64_t generation; /* of the slot file */
    uint64_t studies;    /* study keys, destroyed ones excluded */
    uint64_t destroyed;
    uint64_t vaults;
    uint64_t file_bytes; /* of the LMDB file */
    uint64_t backup;     /* when the newest keyring backup that is not void was made; 0: none */
    uint64_t uncovered;  /* studies that it does not know, and newer versions of the keys of those it does */
    uint64_t uncovered_others; /* keys of vaults, general and provisional keys that it does not know */
    uint64_t commits;    /* in its whole life; of this and the epoch a copy kept elsewhere tells whether both files were put back */
    bool rolled;         /* was put back, and nobody has accepted it: nothing changes. Unknown (false) while locked */
    bool restored;       /* from a backup, not confirmed yet: nothing is destroyed */
    bool mirrored;
    unsigned stale; /* LG_STALE_...: degraded, that copy fell behind and is not written; 0: in step */
};
int lg_keyring_stat(struct lg_keyring *k, struct lg_keyring_stat *ret) LG_MUST; /* works while locked */

/* ---- keys: all need the keyring unlocked (-ENOKEY otherwise); changes need begin -------------------------------------- */

struct lg_key {
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
    enum lg_key_kind kind;
    enum lg_key_state state;
    struct lg_secret *key; /* owned by the caller */
};

/* The newest key of the study, created (kind study) when it is new: then *ret_created is true and info becomes its record.
 * -EKEYREVOKED with any state that does not serve keys (everything but active). Empty record fields are filled in from info when it
 * knows more. Needs begin. */
int lg_keyring_study_key(struct lg_keyring *k, const struct lg_study_info *info, struct lg_key *ret, bool *ret_created) LG_MUST;
/* The same without creating or changing anything: -ENOENT when there is none. Needs no begin. */
int lg_keyring_study_find(struct lg_keyring *k, const char *uid, struct lg_key *ret) LG_MUST;

/* Any key by id and version (0: the newest). -ENOKEY: unknown. -EKEYREVOKED: its state (or the state of the study it is attached to) serves no keys. */
int lg_keyring_key_by_id(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret) LG_MUST;

/* A new provisional key; lg_keyring_attach ties it to a study (creating the study when new), whose states then govern it and with which it
 * is destroyed. Attaching twice to the same study is fine, to another is -EEXIST. */
int lg_keyring_provisional(struct lg_keyring *k, struct lg_key *ret) LG_MUST;
int lg_keyring_attach(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) LG_MUST;

/* ---- vaults and mount sessions ----------------------------------------------------------------------------------------- */

/* Registers a new vault: makes its vault key and its general key. */
int lg_keyring_vault_add(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general) LG_MUST;
int lg_keyring_vault_get(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general) LG_MUST;

enum lg_session_state {
    LG_SESSION_OPEN = 1,    /* being served by a mount now */
    LG_SESSION_CLEAN = 2,   /* ended cleanly */
    LG_SESSION_UNCLEAN = 3, /* ended without saying so: half-committed files of it may be recovered */
    LG_SESSION_CLOSED = 4,  /* was unclean; everything of it has been recovered since */
};
/* Numbers start at 1 and are never used again in this keyring. Begin marks any session of the vault that was still open as
 * unclean (one mount per vault: the caller has checked). */
int lg_keyring_session_begin(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], uint64_t *ret_session) LG_MUST;
int lg_keyring_session_set(struct lg_keyring *k, uint64_t session, enum lg_session_state state) LG_MUST;
/* Where an open session is served, so that a key manager that is started anew knows which mounts it has to expect. In the transaction of its begin. */
struct lg_session_place {
    uint64_t begun;       /* seconds since 1970 */
    uint32_t pid;         /* who serves it; which process of that number: since when (/proc/PID/stat), 0 unknown, in which boot of the machine */
    uint64_t pid_started;
    uint8_t boot[LG_ID_LEN];
    char mountpoint[1024];
};
struct lg_open_session {
    uint64_t number;
    uint8_t vault_id[LG_ID_LEN];
    enum lg_session_state state;
    bool placed; /* false: begun by a version that did not record it */
    struct lg_session_place place;
};
int lg_keyring_session_place(struct lg_keyring *k, uint64_t session, const struct lg_session_place *place) LG_MUST;
/* Works while locked. -ENOSPC: there are more than max, the first of which are returned. */
int lg_keyring_sessions_open(struct lg_keyring *k, struct lg_open_session *ret, unsigned max, unsigned *ret_n) LG_MUST;
/* One record, as it is stored. -EPROTO */
int lg_session_decode(const uint8_t *untrusted, size_t len, struct lg_open_session *ret) LG_MUST;
int lg_keyring_session_get(struct lg_keyring *k, uint64_t session, uint8_t ret_vault_id[LG_ID_LEN], enum lg_session_state *ret) LG_MUST;
/* Up to max unclean sessions of the vault, ascending; *ret_n is their whole number. */
int lg_keyring_sessions_unclean(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], uint64_t *ret, unsigned max, unsigned *ret_n) LG_MUST;

/* ---- studies: listing, states, destruction ------------------------------------------------------------------------------ */

struct lg_study {
    struct lg_study_info info; /* for a destroyed study only what its tombstone keeps: nothing but what the asker named */
    uint8_t kid[LG_ID_LEN];
    enum lg_key_state state;
    uint32_t version;    /* newest */
    uint64_t created;    /* seconds since 1970 */
    uint64_t changed;    /* last change of state */
    uint32_t changed_by; /* uid of the actor of it */
    char reason[LG_REASON_MAX + 1];
    bool held;             /* a legal hold is on it */
    uint8_t hold[LG_ID_LEN]; /* the act that placed it: reason and author stand there */
    uint8_t act[LG_ID_LEN];  /* the act that made the present state; zero: none */
    uint64_t retain_until; /* seconds since 1970; 0: not set */
    unsigned rule;         /* of the policy */
    uint64_t due;          /* destroy-approved: not destroyed before this time; else 0 */
    bool unconfirmed;      /* revoked, and a mount has not confirmed that it dropped everything */
    uint64_t outstanding;  /* of a destroyed one, when it alone was asked for: keyring backups that hold its key and are not void; LG_OUTSTANDING_UNKNOWN: not told */
};
#define LG_OUTSTANDING_UNKNOWN UINT64_MAX

/* Studies in key-id order, starting after *after (NULL: from the start), at most max; *ret_n tells how many. */
int lg_keyring_studies(struct lg_keyring *k, const uint8_t *after, struct lg_study *ret, unsigned max, unsigned *ret_n) LG_MUST;
int lg_keyring_study_show(struct lg_keyring *k, const char *uid, struct lg_study *ret) LG_MUST; /* -ENOENT */

/* Step 0 of destruction: marks the study destroying; from then on no key of it is served.
 * ret_kids receives the study's key id and those of provisional keys attached to it (at most max), for the mounts to drop. Needs begin.
 * A study that is destroying already keeps its actor and reason. -ENOENT, -EKEYREVOKED when it is destroyed. */
int lg_keyring_revoke(struct lg_keyring *k, const char *uid, const char *reason, uint32_t actor_uid,
                      uint8_t (*ret_kids)[LG_ID_LEN], unsigned max, unsigned *ret_n) LG_MUST;
/* Carries out every study in state destroying in one batch: the four steps of the design (slot file with both roots, durable; one commit
 * with the new epoch, the victims' wraps gone, survivors of their buckets under new bucket keys, all buckets under the new root; every
 * rewrapped record read back and unwrapped in a fresh transaction; slot file with the new root only, file and directory synced), then
 * marks them destroyed. Call without an open transaction. On error the state stays destroying; calling it
 * again, or the next unlock, goes on from there. The root may have changed even so. */
int lg_keyring_destroy(struct lg_keyring *k, unsigned *ret_destroyed) LG_MUST;

/* ---- was the keyring put back? (docs/KEYS.md, "Something was rolled back") -------------------------------------------------------- */

#define LG_VAULT_ANCHOR_LEN 144u
enum lg_anchor_verdict {
    LG_ANCHOR_AS_GIVEN = 0, /* what this keyring gave it, last or earlier */
    LG_ANCHOR_NONE = 1,     /* it has none, and was never given one */
    LG_ANCHOR_MISSING = 2,  /* it has none, and was given one */
    LG_ANCHOR_ALTERED = 3,  /* what it has is not this keyring's, or damaged */
    LG_ANCHOR_AHEAD = 4,    /* it has seen more of this keyring than there is: an older one was put in its place */
};
struct lg_rollback {
    bool is; /* was put back, and no officer has accepted it: nothing may change */
    uint64_t at;
    uint8_t vault_id[LG_ID_LEN]; /* the one whose anchor told */
    uint64_t seen_epoch, seen_commits, seen_at; /* what it had seen, and when */
};
bool lg_keyring_rolled_back(const struct lg_keyring *k);
int lg_keyring_rollback(struct lg_keyring *k, struct lg_rollback *ret) LG_MUST; /* unlocked */
/* A vault shows its anchor (len 0: it has none) and, with want, is given the one to keep from now on; *ret_len is 0 when it shall keep the one it has.
 * LG_ANCHOR_AHEAD makes the keyring read-only until LG_ACT_ACCEPT. Needs begin. -ENOENT: not a vault of this keyring. */
int lg_keyring_vault_anchor(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], const uint8_t *untrusted, size_t len, bool want, enum lg_anchor_verdict *ret,
                            uint8_t ret_anchor[LG_VAULT_ANCHOR_LEN], size_t *ret_len) LG_MUST;

/* ---- time ------------------------------------------------------------------------------------------------------------------ */

/* What keeps things waiting is compared with clocks that nobody can set: docs/ERASURE.md, "Time". */
enum lg_frozen {
    LG_FROZEN_NOT = 0,
    LG_FROZEN_FORWARD = 1, /* the wall clock ran ahead of CLOCK_BOOTTIME */
    LG_FROZEN_BACK = 2,    /* it fell behind, or behind the last time that was stored */
    LG_FROZEN_DOWN = 3,    /* the host was off for longer than can be believed */
};
struct lg_keyring_time {
    uint64_t wall_s, last_s; /* now; when it was last stored */
    uint64_t run_s;          /* how long the key manager has served unlocked, in all its life */
    enum lg_frozen frozen;   /* while it is, nothing becomes due and no act of two officers is taken but LG_ACT_CLOCK */
    uint64_t frozen_at;
};
/* Which studies are of one patient is kept, as retention rules count from a patient's last study. A keyring from before this is told, at most max studies at a
 * time (0 left: it knows all of them); until then rules answer -EINPROGRESS. Commits by itself. */
int lg_keyring_gather(struct lg_keyring *k, unsigned max, bool *ret_left) LG_MUST;
/* Takes the clocks in; call every minute or so while unlocked. Needs begin. */
int lg_keyring_tick(struct lg_keyring *k, struct lg_keyring_time *ret) LG_MUST;
int lg_keyring_time(struct lg_keyring *k, struct lg_keyring_time *ret) LG_MUST; /* as of the last tick; changes nothing */
int lg_keyring_time_look(struct lg_keyring *k, struct lg_keyring_time *ret) LG_MUST; /* as a tick now would have it; changes nothing */

struct lg_clock {
    uint64_t wall_s, boot_s, run_s; /* CLOCK_REALTIME, CLOCK_BOOTTIME, CLOCK_MONOTONIC */
    uint8_t boot_id[LG_ID_LEN];
};
/* For tests: other clocks. NULL: the system's. */
typedef void (*lg_keyring_clock)(void *arg, struct lg_clock *ret);
void lg_keyring_set_clock(struct lg_keyring *k, lg_keyring_clock clock, void *arg);

/* ---- officers, policy, acts ---------------------------------------------------------------------------------------------------- */

int lg_keyring_officers(struct lg_keyring *k, struct lg_officer ret[LG_OFFICERS_MAX], unsigned *ret_n) LG_MUST;
/* True from the moment on when a security officer and a retention officer were registered, for ever: destruction and what equals it then need two
 * officers. False: single-administrator mode. */
int lg_keyring_officer_mode(struct lg_keyring *k, bool *ret) LG_MUST;
/* After a commit that changed officers: brings the hash in the slot file up to date. Without an open transaction; 0 when there is nothing to do. */
int lg_keyring_officers_note(struct lg_keyring *k) LG_MUST;
/* After unlocking: does the set agree with the slot file? -EBADMSG: no; from then on no act is taken (-EBADMSG) until the next unlock. */
int lg_keyring_officers_check(struct lg_keyring *k) LG_MUST;

int lg_keyring_policy(struct lg_keyring *k, struct lg_policy *ret) LG_MUST;

struct lg_asker { /* whose process hands it in, as the kernel says */
    uint32_t account;
    bool admin;
};
/* What the mounts have to be told once the change is committed. The study is the act's subject. */
enum lg_act_effect { LG_EFFECT_NONE, LG_EFFECT_DROP /* LG_EVENT_REVOKE */, LG_EFFECT_AGAIN /* LG_EVENT_UNLOCK: keys may be asked for again */ };

/* Takes an act: with sig (64 bytes) from the officer it names; without (NULL) from an administrator in single-administrator mode. What one officer
 * alone may do, or anything in single-administrator mode, is carried out at once; the rest is pending. Needs begin; on any error abort the transaction.
 *   -EPROTO    no document         -EXDEV  another keyring's    -EINVAL  no reason, or fields that the action does not take
 *   -ETIME     expired, made in the future, or for too long     -EKEYREJECTED  the signature is not a registered officer's
 *   -EPERM     officers are registered: it needs their signatures   -EACCES  not this role, or not from this account
 *   -EALREADY  the document was used, or things are so already  -ESTALE  the UID has another key by now   -ENOENT
 *   -EBUSY     a legal hold        -EDOM  retention has not ended, which by a rule counts from the patient's last study (or longer where shorter was said, and the reverse)
 *   -EINPROGRESS  whether a rule keeps it cannot be told yet (lg_keyring_gather)
 *   -EDQUOT    too many suspensions  -ENOLCK  the clock is frozen  -EUSERS  too few officers would be left  -EEXIST  officer's key, name or account
 *   -EROFS     the keyring was put back, and this is not what accepts it
 *   -EKEYREVOKED  destroyed        -EBADMSG  the officers are not those the slot file vouches for */
int lg_keyring_act_submit(struct lg_keyring *k, const uint8_t *doc, size_t len, const uint8_t *sig, const struct lg_asker *who, struct lg_act_record *ret,
                          enum lg_act_effect *ret_effect) LG_MUST;
/* The second signature; carries the act out, or allows it to be claimed. Errors as above, and -ELOOP: nobody approves their own request. */
int lg_keyring_act_approve(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], const uint8_t pub[LG_SIGN_PUB_LEN], const uint8_t sig[LG_SIGN_LEN], const struct lg_asker *who,
                           struct lg_act_record *ret, enum lg_act_effect *ret_effect) LG_MUST;
/* For actions that are carried out elsewhere (assign, trim, backup void ...): takes the approval, once. Call it in the transaction of what is done, or of
 * its first lasting step. kid: the subject it must have, or NULL. -EPERM: not approved yet. -ETIME, -EALREADY, -EINVAL (another action or subject), -ENOENT.
 * In single-administrator mode submit approves at once: the same path serves both. */
int lg_keyring_act_claim(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], enum lg_action action, const uint8_t *kid, struct lg_act *ret) LG_MUST;
/* A file of the key `from` is to be re-encrypted under that of another study. act: the approved act that says so, or NULL: single-administrator mode, where
 * it is noted as an act of that account. now: takes the approval (once); else only looks whether it would. Needs begin when now. -EPERM: officers are
 * registered and there is no approved act. -EINVAL: it is for another file, key or study. -ENOENT (act; with now: study), -ETIME, -EALREADY. */
int lg_keyring_assign(struct lg_keyring *k, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], uint32_t account, bool now) LG_MUST;
int lg_keyring_act_get(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], struct lg_act_record *ret) LG_MUST;
/* In order of id, starting after *after (NULL: from the start); open: only those that are pending, approved or waiting. 1: there are no more behind
 * these; 0: go on after ret_last. */
int lg_keyring_acts(struct lg_keyring *k, const uint8_t *after, bool open, struct lg_act_record *ret, unsigned max, unsigned *ret_n, uint8_t ret_last[LG_ID_LEN]) LG_MUST;

/* ---- destruction after the waiting period ---------------------------------------------------------------------------------------- */

/* Those that a hold or a retention keeps, each the first time that it is found due; further ones come with the next call. */
#define LG_KEPT_MAX 256u
struct lg_kept {
    unsigned n;
    struct {
        uint8_t kid[LG_ID_LEN];
        int why; /* -EBUSY: a legal hold; -EDOM: retention */
    } study[LG_KEPT_MAX];
};
/* Studies whose waiting period has ended by the wall clock and by running time, that no hold and no retention keeps, become destroying: at most max.
 * Then tell the mounts, and lg_keyring_destroy. Needs begin. ret_kept: NULL: nobody is told of them, and they come another time. */
int lg_keyring_due(struct lg_keyring *k, unsigned max, uint8_t (*ret)[LG_ID_LEN], unsigned *ret_n, struct lg_kept *ret_kept) LG_MUST;
int lg_keyring_due_next(struct lg_keyring *k, uint64_t *ret_wall_s) LG_MUST; /* when the first may be; -ENOENT: none waits */
/* A study's key id and those of the provisional keys attached to it, at most max. */
int lg_keyring_kids(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint8_t (*ret)[LG_ID_LEN], unsigned max, unsigned *ret_n) LG_MUST;
/* Every mount has dropped what it had of the study. Needs begin. */
int lg_keyring_confirmed(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN]) LG_MUST;

/* The keyring's own signing key (Ed25519), made when it is first needed (then it needs begin; -ENOENT without). */
int lg_keyring_sign_pub(struct lg_keyring *k, uint8_t ret_pub[LG_SIGN_PUB_LEN]) LG_MUST;
/* The certificate of the newest destroyed key of this UID: a document (leadglass/certificate.h) and the keyring's signature of it.
 * -ENOENT: no such study, or it is not destroyed: -EALREADY. -ENOTCONN: a mount has not confirmed; ret_kid then names the key. */
int lg_keyring_certificate(struct lg_keyring *k, const char *uid, uint8_t *ret_doc, size_t cap, size_t *ret_len, uint8_t ret_sig[LG_SIGN_LEN], uint8_t ret_kid[LG_ID_LEN]) LG_MUST;

/* ---- what is left of destroyed studies in vaults ------------------------------------------------------------------------------------ */

struct lg_kid_pair {
    uint8_t study[LG_ID_LEN], kid[LG_ID_LEN]; /* kid: that of the study, or of a provisional key that went with it */
};
/* The keys that files of this UID's destroyed studies name (several studies after readmissions), from *after (study and kid; NULL: the start) on, at most max.
 * -ENOENT: no such study. -EALREADY: none is destroyed. */
int lg_keyring_destroyed_kids(struct lg_keyring *k, const char *uid, const uint8_t *after, struct lg_kid_pair *ret, unsigned max, unsigned *ret_n, bool *ret_end) LG_MUST;
struct lg_reaped {
    uint64_t files, bytes;     /* of ciphertext, as first counted */
    uint64_t counted, removed; /* seconds since 1970; removed 0: not yet */
};
/* So many files of a destroyed study were found in a vault; removed: none is left. For its certificate. Needs begin. -EPERM: not destroyed. -ENOENT. */
int lg_keyring_reaped(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const uint8_t vault[LG_ID_LEN], uint64_t files, uint64_t bytes, bool removed, struct lg_reaped *ret) LG_MUST;
/* Of how many studies files are still to be removed from a vault, as was asked for with their destruction: those that are destroyed, and those that are not yet. Counts no further
 * than LG_REAPS_MAX. Unlocked. */
#define LG_REAPS_MAX 10000u
int lg_keyring_reaps(struct lg_keyring *k, uint64_t *ret_due, uint64_t *ret_waiting) LG_MUST;

/* ---- heads of access logs (docs/AUDIT.md) ---------------------------------------------------------------------------------- */

/* The seed of the Ed25519 key that signs them, made when it is first asked for (needs begin then, else -ENOENT). Its public half can be read while locked. */
int lg_keyring_audit_key(struct lg_keyring *k, struct lg_secret *ret_seed) LG_MUST;
int lg_keyring_audit_pub(struct lg_keyring *k, uint8_t ret_pub[32]) LG_MUST;
/* The key under which the export of the access log keeps what its receiver has not taken yet: HKDF of the record key, "leadglass export spool". A new root does not change it.
 * -ENOKEY while locked. */
int lg_keyring_export_key(struct lg_keyring *k, struct lg_secret *ret) LG_MUST;
/* The seed of the Ed25519 key that signs manifests of scrub and nothing else: likewise, "leadglass manifest signature". */
int lg_keyring_manifest_key(struct lg_keyring *k, struct lg_secret *ret_seed) LG_MUST;
/* The last head signed for a chain, as text; reading works while locked, -ENOENT: none. put needs begin. */
#define LG_HEAD_TEXT_MAX 640u
int lg_keyring_head_put(struct lg_keyring *k, const uint8_t chain[LG_ID_LEN], const char *head, size_t len) LG_MUST;
int lg_keyring_head_get(struct lg_keyring *k, const uint8_t chain[LG_ID_LEN], char ret[LG_HEAD_TEXT_MAX + 1]) LG_MUST;
int lg_keyring_heads(struct lg_keyring *k, char (*ret)[LG_HEAD_TEXT_MAX + 1], unsigned max, unsigned *ret_n) LG_MUST;

/* For crash tests: called before each step of destruction that writes (numbered from 1) with a name; returning non-zero stops there with
 * that error, as a crash would. NULL: none. */
typedef int (*lg_keyring_hook)(void *arg, const char *step);
void lg_keyring_set_hook(struct lg_keyring *k, lg_keyring_hook hook, void *arg);

#endif
