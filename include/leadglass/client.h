/* client.h: talking to the key manager. The bytes are docs/PROTOCOL.md; encoding is keymgr/wire.
 *
 * A client object is one connection, used by any number of threads (requests on it are serialised), reconnecting by itself when
 * the key manager was restarted. Every call waits at most its deadline (10 s ordinarily; unlock 60 s; lock and revoke 30 s).
 * Errors everywhere: -ECONNREFUSED or -ENOENT (nobody answers), -ECONNRESET (ended the connection), -ETIMEDOUT, -EPROTO, -EPROTONOSUPPORT, -EACCES (this user may not),
 * -ENOKEY (locked). */
#ifndef LEADGLASS_CLIENT_H
#define LEADGLASS_CLIENT_H

#include "leadglass/certificate.h"
#include "leadglass/keyring.h"
#include "leadglass/secret.h"
#include "leadglass/study.h"

struct lg_client;

/* LEADGLASS_SOCKET if set, else /run/leadglass/keyd.sock for root, else $XDG_RUNTIME_DIR/leadglass/keyd.sock. */
int lg_client_default_socket(char *out, size_t cap) LG_MUST;

/* Does not connect yet. socket_path NULL: the default. */
int lg_client_new(const char *socket_path, struct lg_client **ret) LG_MUST;
void lg_client_free(struct lg_client *c);

struct lg_keyd_status {
    bool unlocked;
    char version[32];
    uint32_t pid;
    uint64_t uptime_s;
    struct lg_keyring_stat keyring;
    uint32_t anchor_nv; /* of the slot file's anchor; 0: none */
    char keyring_dir[4096], slot_path[4096], mirror_dir[4096]; /* mirror_dir: empty without a mirror; keyring.stale tells whether it is in step */
    bool memory_unlocked;  /* --allow-unlocked-memory took effect */
    unsigned officers;     /* registered; 0 too while locked */
    bool officer_mode;     /* false while unlocked: one administrator alone may destroy */
    uint8_t frozen;        /* enum lg_frozen */
    uint64_t reaps_due, reaps_waiting; /* studies whose files are to be removed from a vault: destroyed; waiting for that */
    unsigned n_mounts;
    struct lg_keyd_mount {
        uint8_t vault_id[LG_ID_LEN];
        uint64_t session;
        uint32_t pid;
        uint64_t away; /* since when the key manager has no connection to it (seconds since 1970); 0: it has */
        char mountpoint[1024];
    } mounts[64];
};
int lg_client_status(struct lg_client *c, struct lg_keyd_status *ret) LG_MUST;

/* A vault shows its anchor (len 0: it has none). With want, ret (LG_VAULT_ANCHOR_LEN bytes) is what it keeps from now on; *ret_len 0: what it has. */
int lg_client_anchor(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], const uint8_t *anchor, size_t len, bool want, uint8_t ret[LG_VAULT_ANCHOR_LEN], size_t *ret_len) LG_MUST;

/* -EKEYREJECTED: wrong; *ret_wait_s then tells after how many seconds the next attempt is taken. -EAGAIN: too early, *ret_wait_s more
 * seconds to wait; not tried. */
int lg_client_unlock(struct lg_client *c, const void *pass, size_t pass_len, unsigned *ret_wait_s) LG_MUST;

/* Mounts that did not confirm in time. */
struct lg_unconfirmed {
    unsigned n;
    struct lg_unconfirmed_mount {
        uint8_t vault_id[LG_ID_LEN];
        uint64_t away;   /* since when the key manager has no connection to it; 0: it has */
        uint64_t latest; /* when it gives up by itself, at the latest, what it was leased, if it runs; 0: its daemon is gone */
        char mountpoint[1024];
    } mount[64];
};
/* 0 with ret->n > 0: done in the key manager, but these mounts have not confirmed. */
int lg_client_lock(struct lg_client *c, struct lg_unconfirmed *ret) LG_MUST;
/* now must be true while no officers are registered (-EPERM otherwise). ret_state: destroyed, or how far it came.
 * -ENOENT: no such study. -EKEYREVOKED: destroyed already. */
int lg_client_study_revoke(struct lg_client *c, const char *uid, const char *reason, bool now, enum lg_key_state *ret_state,
                           struct lg_unconfirmed *ret) LG_MUST;
int lg_client_study_show(struct lg_client *c, const char *uid, struct lg_study *ret) LG_MUST;
/* By the id of its newest key. -ENOENT: none has it. */
int lg_client_study_by_kid(struct lg_client *c, const uint8_t kid[LG_ID_LEN], struct lg_study *ret) LG_MUST;
/* Calls back for every study; stops when it returns non-zero and returns that. */
int lg_client_study_list(struct lg_client *c, int (*each)(void *arg, const struct lg_study *s), void *arg) LG_MUST;

/* ---- slots and rotation (errors of the keyring's functions of these names) ---- */

/* The secret is the SHA-256 of the key file's bytes. Otherwise as unlock. */
int lg_client_unlock_key(struct lg_client *c, const uint8_t digest[32], unsigned *ret_wait_s) LG_MUST;
/* With a TPM slot of this machine. -ENODATA: there is none; -ENODEV, -EXDEV, -EBADE, -EOPNOTSUPP as in leadglass/tpm.h. */
int lg_client_unlock_tpm(struct lg_client *c) LG_MUST;
int lg_client_slot_list(struct lg_client *c, struct lg_slot_info ret[LG_SLOTS_MAX], unsigned *ret_n) LG_MUST;
/* Does the key manager reach a TPM? Errors as in leadglass/tpm.h. */
int lg_client_tpm(struct lg_client *c) LG_MUST;
/* Errors of lg_keyring_anchor. Giving up, where officers are registered, needs their approved act (NULL: none): -EPERM, -ENOENT, -ETIME. */
int lg_client_slot_anchor(struct lg_client *c, bool on, const uint8_t *act) LG_MUST;
/* On return the new secret has opened its slot from the file. -EEXIST, -ENOSPC, -EINVAL (name). Of a TPM slot the secret
 * is the list of PCRs as text (leadglass/tpm.h): -EDOM: it is none; the TPM's errors; from change -EPERM: no other slot would be left that was proved. */
int lg_client_slot_add(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len) LG_MUST;
int lg_client_slot_change(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len) LG_MUST;
int lg_client_slot_remove(struct lg_client *c, const char *name) LG_MUST;
/* Does this secret open that slot? Wrong ones are counted as in unlock. -ENOENT. */
int lg_client_slot_test(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len, unsigned *ret_wait_s) LG_MUST;
int lg_client_rotate_root(struct lg_client *c) LG_MUST;
int lg_client_rotate_study(struct lg_client *c, const char *uid) LG_MUST;
/* One batch of all studies, from *after on (NULL: from the start); go on after ret->last until ret->end. */
int lg_client_rotate_studies(struct lg_client *c, const uint8_t *after, struct lg_rotated *ret) LG_MUST;

/* Retiring old versions (lg_keyring_trim). First now = false: every mount stops using them; then, when the caller has seen that no file needs them, now = true, from
 * after on until ret->end. -ENOTCONN: that first call has not been made for this act, or a mount had not confirmed it (then it was named). */
int lg_client_trim(struct lg_client *c, const uint8_t act[LG_ID_LEN], bool now, const uint8_t *after, struct lg_rotated *ret, struct lg_unconfirmed *ret_u) LG_MUST;

/* Calls back for every key that files of this UID's destroyed studies name (lg_keyring_destroyed_kids). */
int lg_client_destroyed_kids(struct lg_client *c, const char *uid, int (*each)(void *arg, const struct lg_kid_pair *p), void *arg) LG_MUST;
int lg_client_reaped(struct lg_client *c, const uint8_t kid[LG_ID_LEN], const uint8_t vault[LG_ID_LEN], uint64_t files, uint64_t bytes, bool removed, struct lg_reaped *ret) LG_MUST;

/* ---- officers (leadglass/act.h; errors of lg_keyring_act_submit and lg_keyring_act_approve) ---- */

struct lg_governance {
    uint8_t keyring_id[LG_ID_LEN], sign_pub[LG_SIGN_PUB_LEN]; /* sign_pub: the key that signs tombstones and certificates */
    bool officer_mode;
    unsigned n_officers;
    struct lg_officer officers[LG_OFFICERS_MAX];
    struct lg_policy policy;
    struct lg_keyring_time time;
};
int lg_client_governance(struct lg_client *c, struct lg_governance *ret) LG_MUST;
/* sig NULL: single-administrator mode. */
int lg_client_act_submit(struct lg_client *c, const uint8_t *doc, size_t len, const uint8_t *sig, struct lg_act_record *ret, struct lg_unconfirmed *ret_u) LG_MUST;
int lg_client_act_approve(struct lg_client *c, const uint8_t id[LG_ID_LEN], const uint8_t pub[LG_SIGN_PUB_LEN], const uint8_t sig[LG_SIGN_LEN], struct lg_act_record *ret,
                          struct lg_unconfirmed *ret_u) LG_MUST;
int lg_client_act_get(struct lg_client *c, const uint8_t id[LG_ID_LEN], struct lg_act_record *ret) LG_MUST;
/* Calls back for every act (open: pending, approved and waiting ones); stops when it returns non-zero and returns that. */
int lg_client_act_list(struct lg_client *c, bool open, int (*each)(void *arg, const struct lg_act_record *r), void *arg) LG_MUST;
/* doc: room for LG_CERT_MAX. -EALREADY: not destroyed. -ENOTCONN: a mount has not confirmed. */
int lg_client_certificate(struct lg_client *c, const char *uid, uint8_t *ret_doc, size_t *ret_len, uint8_t ret_sig[LG_SIGN_LEN]) LG_MUST;

/* ---- keyring backups (leadglass/backup.h) ---- */

/* Begins one under key, on this connection; then frames are called for one after the other. */
int lg_client_backup_begin(struct lg_client *c, const struct lg_secret *key, const char *name, uint8_t ret_id[LG_ID_LEN]) LG_MUST;
int lg_client_backup_next(struct lg_client *c, uint8_t *buf, size_t cap, size_t *ret_len, bool *ret_end) LG_MUST;
int lg_client_backup_done(struct lg_client *c, const uint8_t id[LG_ID_LEN]) LG_MUST;
/* All of the inventory, oldest first; to be freed. */
struct lg_backup_entry;
struct lg_backups {
    struct lg_backup_entry *e;
    unsigned n;
    uint64_t restored, restored_from; /* lg_incarnation, lg_restored_from */
};
int lg_client_backup_list(struct lg_client *c, struct lg_backups *ret) LG_MUST;
/* act: the approved act where officers are registered, else NULL. -EPERM: it is not approved. -ENOENT, -EALREADY. */
int lg_client_backup_void(struct lg_client *c, const uint8_t id[LG_ID_LEN], const uint8_t *act) LG_MUST;
int lg_client_restore_confirm(struct lg_client *c, const uint8_t *act) LG_MUST;

/* ---- for leadglass-fs --------------------------------------------------------------------------------------------------- */

#define LG_LEASE_S (24u * 3600u)

int lg_client_vault_add(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], uint8_t ret_keyring_id[LG_ID_LEN],
                        struct lg_key *ret_vault, struct lg_key *ret_general) LG_MUST;
/* -ENOENT: this keyring does not know the vault. */
int lg_client_vault_get(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], uint8_t ret_keyring_id[LG_ID_LEN],
                        struct lg_key *ret_vault, struct lg_key *ret_general) LG_MUST;

/* Keys on lease: drop them when ret_lease_s have passed, on lock, on revocation. On return a new key is durable. */
int lg_client_study_key(struct lg_client *c, const struct lg_study_info *info, struct lg_key *ret, unsigned *ret_lease_s) LG_MUST;
int lg_client_key_by_id(struct lg_client *c, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *ret_lease_s) LG_MUST;
int lg_client_provisional(struct lg_client *c, struct lg_key *ret, unsigned *ret_lease_s) LG_MUST;
int lg_client_attach(struct lg_client *c, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) LG_MUST;

/* May this file, whose key is from, be re-encrypted under that of another study? now: it is about to be (lg_keyring_assign). */
int lg_client_assign(struct lg_client *c, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now) LG_MUST;

/* A mount's session. Begin fails with -EBUSY while another live mount has the vault; unclean sessions of the vault are listed. */
#define LG_UNCLEAN_MAX 1024u
/* unlogged: the mount keeps no access log; that is recorded in the key manager's. */
int lg_client_session_begin(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], const char *mountpoint, bool unlogged, uint64_t *ret_session,
                            uint64_t *ret_unclean, unsigned *ret_n_unclean) LG_MUST;
int lg_client_session_end(struct lg_client *c, uint64_t session) LG_MUST;
/* Tells that everything of an unclean session has been recovered. */
int lg_client_session_close(struct lg_client *c, uint64_t session) LG_MUST;

/* The access log (leadglass/audit.h): heads travel as text. */
#define LG_AUDIT_HEADS_MAX 128u
struct lg_audit_heads {
    unsigned n;
    char head[LG_AUDIT_HEADS_MAX][LG_HEAD_TEXT_MAX + 1];
};
struct lg_audit_info {
    char dir[4096], log[4096]; /* of the key manager's own chain: its current file */
    uint8_t pub[32];           /* zeros: none yet */
    uint64_t seq, signed_seq;
    bool on, failing, keep_going;
    uint32_t used_percent;
};
int lg_client_audit_info(struct lg_client *c, struct lg_audit_info *ret) LG_MUST;
/* ret empty: none was signed yet. */
int lg_client_audit_state(struct lg_client *c, const uint8_t chain[LG_ID_LEN], char ret[LG_HEAD_TEXT_MAX + 1]) LG_MUST;
/* want: chain, seq and hash of the record to sign, n and prev of the head it builds on. -EBADMSG: that is not the last head of this chain. -ENOKEY: locked. */
int lg_client_audit_head(struct lg_client *c, const char *want, char ret[LG_HEAD_TEXT_MAX + 1]) LG_MUST;
int lg_client_audit_heads(struct lg_client *c, struct lg_audit_heads *ret) LG_MUST;
/* Has it recorded that this user reads a log; how: tail, query ... */
int lg_client_audit_note(struct lg_client *c, const char *how) LG_MUST;
/* Has it recorded what the scrub of that session found. */
int lg_client_scrub_found(struct lg_client *c, uint64_t session, const char *what) LG_MUST;
/* Answered once it is recorded, durably, that the scrub reads this file (by its pseudonym; zeros: not known). */
int lg_client_scrub_salvage(struct lg_client *c, uint64_t session, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file[LG_ID_LEN]) LG_MUST;

/* Has a manifest signed that the scrub of that session, which is this process's own, has written: vault_id, begun, entries and hash of s are given, the rest is filled in, and
 * verified under pub (-EKEYREJECTED: it is not that key's). It is in the access log, durably, before. -ENOTSUP: no access log is kept, so nothing is signed. -EINVAL: the session is
 * no scrub's. */
struct lg_manifest_sig;
int lg_client_manifest_sign(struct lg_client *c, uint64_t session, const uint8_t pub[32], struct lg_manifest_sig *s) LG_MUST;
/* The public key of those signatures. */
int lg_client_manifest_key(struct lg_client *c, uint8_t ret_pub[32]) LG_MUST;

/* Has it recorded that the log is exported to target, study UIDs and all, and gets the key of the export's spool. -ENOENT: no log is kept. */
int lg_client_audit_export(struct lg_client *c, const char *target, struct lg_secret *ret) LG_MUST;

/* Events to a mount, on a connection and a thread of its own, which reconnects for ever until lg_watch_stop. The callback does what the
 * event asks and returns when that is complete: its return is the acknowledgement (0), or the lack of one. It must not use the watch. */
enum lg_event_kind {
    LG_EVENT_LOCK = 1,   /* drop every key, invalidate every inode */
    LG_EVENT_REVOKE = 2, /* drop the keys named, invalidate their files */
    LG_EVENT_UNLOCK = 3, /* keys may be asked for again */
    LG_EVENT_RESYNC = 4, /* (re)connected: something may have been missed; drop all leased keys unless freshly asked for */
    LG_EVENT_TRIMMED = 6, /* versions of these keys (none named: of all) are about to be retired: what is uncommitted is committed, every version is asked for again */
    LG_EVENT_ROTATED = 5, /* these keys (none named: all) have a newer version: new files ask again. Nothing is dropped */
};
struct lg_event {
    enum lg_event_kind kind;
    unsigned n_kids;
    const uint8_t (*kids)[LG_ID_LEN];
};
struct lg_watch;
int lg_watch_start(const char *socket_path, uint64_t session, int (*cb)(void *arg, const struct lg_event *e), void *arg,
                   struct lg_watch **ret) LG_MUST;
void lg_watch_stop(struct lg_watch *w);

#endif
