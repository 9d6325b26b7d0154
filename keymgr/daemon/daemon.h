/* Inside leadglass-keyd. Two processes: the supervisor holds the listening socket and, while unlocked, the root key; the worker does everything else and
 * may die without anybody having to type a passphrase. They speak over a socketpair in messages of fixed size. */
#ifndef LG_DAEMON_H
#define LG_DAEMON_H

#include <limits.h>
#include <sys/types.h>

#include "leadglass/passphrase.h"
#include "leadglass/tpm.h"
#include "leadglass/wire.h"

enum { LG_EXIT_OK = 0, LG_EXIT_FAILED = 1, LG_EXIT_USAGE = 2, LG_EXIT_PASSPHRASE = 3, LG_EXIT_BUSY = 7, LG_EXIT_FATAL = 8 /* worker: no use to start it again */ };

/* ---- log.c ---- */
void lg_log_open(bool to_syslog);
void lg_log(int level, const char *fmt, ...) LG_PRINTF(2, 3);

/* ---- between supervisor and worker ---- */
enum lg_super_kind {
    LG_SUPER_START = 1,  /* to the worker: root if epoch is not 0 */
    LG_SUPER_ROOT = 2,   /* to the supervisor: keep this one */
    LG_SUPER_FORGET = 3, /* to the supervisor */
    LG_SUPER_DONE = 4,   /* its answer to both */
    LG_SUPER_READY = 5,  /* to the supervisor: serving */
};
struct lg_super {
    uint32_t kind, first; /* start: first worker of this supervisor: a TPM slot may unlock. Later ones find a keyring that somebody may have locked */
    uint64_t epoch;
    uint8_t root[LG_KEY_LEN];
};
int lg_super_send(int fd, const struct lg_super *m) LG_MUST;
int lg_super_recv(int fd, struct lg_super *m) LG_MUST; /* waits; -ECONNRESET when the other side is gone */

/* ---- supervisor.c ---- */
int lg_keyd_run(int argc, char **argv); /* the whole program; returns the exit code */

/* ---- check.c ---- */
struct lg_check_options {
    const char *tpm; /* for an anchored slot file; NULL: never */
    const char *keyring, *slot, *mirror, *key_file; /* NULL: none */
    struct lg_passphrase_source pass; /* none: what can be told without a secret */
    bool json;
};
int lg_keyd_check(const struct lg_check_options *o); /* the exit code */

/* ---- worker.c ---- */
struct lg_worker_options {
    const char *keyring, *slot, *socket, *mirror; /* mirror: NULL none */
    const char *tpm;                              /* how to reach it; NULL: never */
    int listen_fd, super_fd;
    bool to_syslog;
    const char *audit; /* directory of the access log; NULL: none is kept */
    unsigned audit_keep; /* days; 0: for ever */
    bool audit_continue;
};
int lg_worker_run(const struct lg_worker_options *o);

enum { LG_CLIENTS_MAX = 256, LG_MOUNTS_MAX = LG_WIRE_MOUNTS_MAX, LG_OPS_MAX = 32, LG_WAITS_MAX = 64 };
enum { LG_HALF_MS = 10000, LG_ACK_MS = 20000, LG_BACK_MS = 3000 /* fifteen times the interval of lg_watch */ };

struct lg_conn {
    int fd; /* -1: free */
    uint64_t serial; /* tells a connection from a later one in the same place */
    uid_t uid;
    gid_t gid;
    pid_t pid;
    uint8_t *in; /* LG_WIRE_REQUEST_MAX bytes of secret memory */
    size_t in_len;
    int64_t in_since, out_since;
    uint8_t *out; /* secret memory, out_len bytes from out_at on are still to be sent */
    size_t out_at, out_len, out_cap;
    bool watching, closing;
};

struct lg_mount {
    bool used;
    uint64_t session;
    uint8_t vault_id[LG_ID_LEN];
    pid_t pid;
    int pidfd; /* -1: could not be had */
    char mountpoint[LG_WIRE_MOUNTPOINT_MAX + 1];
    struct lg_conn *watch; /* NULL: not connected */
    uint64_t waits_for;    /* event number not acknowledged yet; 0: none */
    bool failed;           /* acknowledged with an error */
    bool expected;         /* stood when this key manager was started, and has not come back */
    bool placed;           /* where it stands is known: always, but for an expected one of an earlier version */
    uint64_t away;         /* since when it has no connection, seconds since 1970; 0: it has one, or is only just beginning */
};

/* What takes several turns: unlock, lock, revoke. One at a time, in order. */
struct lg_op {
    uint16_t type;
    struct lg_conn *conn;
    uint64_t serial, id;
    uid_t uid;
    gid_t gid;
    pid_t pid;
    bool begun;
    int64_t asked_us, deadline;
    uint64_t event;
    char uid_text[LG_UID_MAX + 1], reason[LG_REASON_MAX + 1];
    uint8_t *pass; /* secret memory */
    size_t pass_len;
    enum lg_slot_type slot_type;
    char slot_name[LG_SLOT_NAME_MAX + 1];
    bool now; /* slot anchor: on; trim: carried out; an act: mounts are only told to ask again */
    bool written; /* slot add, change: now it is tried */
    uint8_t kid[LG_ID_LEN], study[LG_ID_LEN]; /* acts: the act's id, the key id of the study that mounts drop */
    uint8_t act[LG_ID_LEN]; /* trim: the act, and whether it is carried out now, behind kid */
    bool has_after;
};

struct lg_wait { /* after a wrong passphrase, per user */
    uid_t uid;
    unsigned failures;
    int64_t until;
};

struct lg_worker {
    struct lg_worker_options o;
    struct lg_keyring *keyring;
    int epoll, wake; /* wake: the passphrase thread is done */
    int64_t started;
    struct lg_conn conns[LG_CLIENTS_MAX];
    uint64_t next_serial, next_event;
    struct lg_mount mounts[LG_MOUNTS_MAX];
    struct { /* what mounts are being told and have to confirm */
        enum lg_event_kind kind;
        uint8_t (*kid)[LG_ID_LEN];
        size_t n;
        uint64_t first, last; /* numbers of its messages */
    } telling;
    struct lg_op ops[LG_OPS_MAX];
    unsigned n_ops;
    struct lg_wait waits[LG_WAITS_MAX];
    struct held { /* answers of this turn: sent once what they rest on is committed */
        struct lg_conn *conn;
        uint64_t serial, id;
        uint16_t type;
        uint8_t *frame; /* secret memory */
        size_t len;
    } held[LG_CLIENTS_MAX * 4];
    unsigned n_held;
    struct { /* being made, for the connection of that serial */
        struct lg_backup *b; /* NULL: none, or its last frame is out */
        uint64_t serial;
        bool ended;          /* the last frame is out, and it is in the inventory: backup done is awaited */
        uint8_t id[LG_ID_LEN];
        char name[LG_REASON_MAX + 1];
    } backup;
    unsigned stale; /* as last reported */
    int unkept;     /* likewise */
    char mirror_slot[PATH_MAX];
    bool stop;
    uint8_t trim_told[LG_ID_LEN]; /* the act for which every mount has confirmed that it uses newest versions only; zeros: none */
    int64_t tick_at;  /* when the clocks are looked at again */
    bool gathering;   /* which studies are of one patient: some more of it at gather_at */
    int gather_rc;
    int64_t gather_at;
    bool frozen_said; /* that they cannot be believed was logged */
    struct lg_audit_log *audit; /* NULL: none is kept */
    bool audit_durable;         /* something of this turn is in it before it is answered */
    int64_t cosigned;
    const struct lg_request *asked; /* being handled */
    int64_t asked_us;               /* since then: lg_us */
    const char *asked_event;        /* what is recorded of it, when that is not what the table says; NULL: that */
    const struct lg_op *asked_op;   /* being answered */
    struct lg_tpm *tpm; /* NULL: none; used by the derivation's thread while there is one */
    struct lg_chip chip;
    struct lg_derivation { /* scrypt, or the TPM, in a thread of its own; one at a time */
        bool busy;
        void (*run)(struct lg_derivation *d);
        const char *slot, *name; /* name: of the one slot that is meant; NULL: any */
        enum lg_slot_type type;
        const uint8_t *pass;
        size_t pass_len;
        struct lg_tpm *tpm;
        const struct lg_chip *chip; /* NULL: none */
        int rc, wake;
        struct lg_roots roots;       /* what lg_derive_unlock found */
        struct lg_slot_draft *draft; /* what lg_derive_draft made */
    } derivation;
};

/* ---- audit.c ---- */
int lg_keyd_audit_start(struct lg_worker *w) LG_MUST;
void lg_keyd_audit_stop(struct lg_worker *w);
int lg_keyd_audit_may(struct lg_worker *w, uint16_t type) LG_MUST; /* -ECANCELED: nothing can be recorded now */
void lg_keyd_audit_answer(struct lg_worker *w, const struct lg_conn *c, const struct lg_answer *a);
/* Something that is no answer to one request. kid and text may be NULL. It is durable before this turn's answers leave. */
void lg_keyd_audit(struct lg_worker *w, const char *event, uid_t uid, pid_t pid, int outcome, const uint8_t *kid, const char *text);
/* Makes what was recorded until now durable. Why that cannot be, unless the log is one that goes on without records. */
int lg_keyd_audit_now(struct lg_worker *w) LG_MUST;
void lg_keyd_audit_turn(struct lg_worker *w);
void lg_keyd_cosign(struct lg_worker *w); /* signs what the key manager's own chain has come to */
int64_t lg_keyd_audit_deadline(const struct lg_worker *w);
void lg_keyd_audit_tick(struct lg_worker *w);
void lg_on_audit_info(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_audit_state(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_audit_head(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_audit_heads(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_audit_export(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_audit_note(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

int64_t lg_ms(void);
int64_t lg_us(void); /* the same clock */
void lg_copies_report(struct lg_worker *w); /* logs when a copy of the keyring fell behind since the last time */
/* The slot file to read now. */
static inline const char *lg_slot_now(const struct lg_worker *w) { return lg_slotfile_pick(w->o.slot, w->o.mirror ? w->mirror_slot : NULL); }
void lg_conn_send(struct lg_worker *w, struct lg_conn *c, const uint8_t *frame, size_t len);
/* Holds the answer until the end of the turn. */
void lg_reply(struct lg_worker *w, struct lg_conn *c, const struct lg_answer *a);
void lg_reply_status(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q, int status);
int lg_root_to_supervisor(struct lg_worker *w) LG_MUST;
int lg_root_forget(struct lg_worker *w) LG_MUST;

/* ---- requests.c ---- */
void lg_request_handle(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
/* Goes on with the op at the head of the queue, as far as it goes. */
void lg_ops_step(struct lg_worker *w);
int64_t lg_ops_deadline(const struct lg_worker *w); /* -1: none */

/* For what takes several turns. done answers the op at the head of the queue and takes it out. */
void lg_op_done(struct lg_worker *w, struct lg_answer *a);
int lg_op_derive(struct lg_worker *w, struct lg_op *op, void (*run)(struct lg_derivation *d)) LG_MUST;
void lg_derive_unlock(struct lg_derivation *d);
void lg_derive_draft(struct lg_derivation *d);
/* Wrong secrets are counted per user and make the next attempt wait. Too early: answers -EAGAIN and returns true. */
bool lg_op_too_early(struct lg_worker *w, const struct lg_op *op, struct lg_answer *a);
void lg_op_counted(struct lg_worker *w, const struct lg_op *op, struct lg_answer *a);

/* ---- sessions.c ---- */
void lg_on_session_begin(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_session_end(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_session_close(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_found(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_watch(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_ack(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- manifest.c ---- */
void lg_on_manifest_sign(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_manifest_key(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- slots.c: slots, and rotation ---- */
void lg_slot_begin(struct lg_worker *w, struct lg_op *op);
void lg_slot_end(struct lg_worker *w, struct lg_op *op);
void lg_on_slot_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_rotate_study(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_rotate_studies(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- tpm.c ---- */
int lg_keyd_tpm_new(const char *tcti, struct lg_tpm **ret, struct lg_chip *ret_chip) LG_MUST; /* call before there are threads */
int lg_keyd_tpm_start(struct lg_worker *w) LG_MUST;
const char *lg_tpm_explain(int rc);
void lg_keyd_tpm_stop(struct lg_worker *w);
void lg_derive_tpm(struct lg_derivation *d);
void lg_tpm_look_begin(struct lg_worker *w, struct lg_op *op);
void lg_tpm_look_end(struct lg_worker *w, struct lg_op *op);
void lg_tpm_report(const struct lg_worker *w, int rc); /* logs why it does not unlock */
void lg_unlock_alone(struct lg_worker *w);             /* at the start, when there is a TPM slot */

/* ---- officers.c: acts, certificates, what becomes due ---- */
enum { LG_OP_DUE = LG_MSG_DUE };
bool lg_officer_account(struct lg_worker *w, uid_t uid);
void lg_officers_unlocked(struct lg_worker *w); /* after every unlock */
void lg_on_act_get(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_act_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_assign(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_governance(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_act_begin(struct lg_worker *w, struct lg_op *op);
void lg_act_end(struct lg_worker *w, struct lg_op *op);
void lg_certificate_begin(struct lg_worker *w, struct lg_op *op);
void lg_certificate_end(struct lg_worker *w, struct lg_op *op);
void lg_due_begin(struct lg_worker *w, struct lg_op *op);
void lg_due_end(struct lg_worker *w, struct lg_op *op);
void lg_trim_begin(struct lg_worker *w, struct lg_op *op);
void lg_trim_end(struct lg_worker *w, struct lg_op *op);
/* Has every mount drop these studies' keys and those attached to them; the op waits for that. */
void lg_tell_drop(struct lg_worker *w, struct lg_op *op, const uint8_t (*kid)[LG_ID_LEN], unsigned n_studies);
void lg_revoke_confirmed(struct lg_worker *w, const char *uid); /* every mount has answered a revocation */
void lg_tick(struct lg_worker *w); /* every turn; does something once a minute, or when something is due */
int lg_time_look(struct lg_worker *w, struct lg_keyring_time *ret) LG_MUST;

/* ---- reap.c ---- */
void lg_on_kids(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_reaped(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- backup.c ---- */
/* The one that this connection (NULL: any) has begun; its requests get -ESTALE from then on. It holds keys as they were when it began, so it is given up at a
 * lock, and before a key is destroyed. One whose last frame is out is in the inventory and holds nothing any more: only its connection's end, or the next one, ends it. */
void lg_backup_drop(struct lg_worker *w, const struct lg_conn *c);
/* Where officers are, uses up the act of theirs that allows this (within a transaction of the caller's); -EPERM, -ENOENT, -ETIME. */
int lg_act_allowed(struct lg_worker *w, const uint8_t act[LG_ID_LEN], enum lg_action action, const uint8_t *kid) LG_MUST;
void lg_on_backup_begin(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_backup_next(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_backup_done(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_backup_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_backup_void(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
void lg_on_restore_confirm(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- rollback.c ---- */
void lg_rollback_unlock(struct lg_worker *w, int *status); /* an unlock failed: was it that? */
void lg_rollback_unlocked(struct lg_worker *w);            /* after every unlock */
bool lg_rollback_refuses(struct lg_worker *w, uint16_t type);
void lg_on_anchor(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);

/* ---- mounts.c ---- */
bool lg_mount_alive(const struct lg_mount *m);
struct lg_mount *lg_mount_of(struct lg_worker *w, uint64_t session);
int lg_mount_add(struct lg_worker *w, uint64_t session, const uint8_t vault_id[LG_ID_LEN], const struct lg_conn *c, const char *mountpoint, struct lg_mount **ret) LG_MUST;
void lg_mount_remove(struct lg_worker *w, struct lg_mount *m);
void lg_mounts_reap(struct lg_worker *w); /* those whose process is gone and whose mountpoint is no longer mounted */
/* Tells every mount, in as many messages as it takes; afterwards each has waits_for set that has still to acknowledge. The number of the last message, by which to
 * wait. What was told before is not waited for any more. */
uint64_t lg_mounts_tell(struct lg_worker *w, enum lg_event_kind kind, const uint8_t (*kids)[LG_ID_LEN], size_t n);
/* A mount has acknowledged a message: it gets the next. False: that one was not waited for. */
bool lg_mounts_acked(struct lg_worker *w, struct lg_mount *m, uint64_t number, bool failed);
/* Tells every mount without caring for answers; what somebody else waits for is not disturbed. */
void lg_mounts_notify(struct lg_worker *w, const struct lg_event *e);
bool lg_mounts_waiting(const struct lg_worker *w, uint64_t number);
/* After a start: the sessions that the keyring has as open are mounts that have to come back, unless they have ended with their process. */
int lg_mounts_expect(struct lg_worker *w) LG_MUST;
bool lg_mounts_expected(struct lg_worker *w); /* one of them lives and is not back */
void lg_place_of(pid_t pid, const char *mountpoint, struct lg_session_place *ret);
int lg_pidfd(pid_t pid); /* -1: no such process */
size_t lg_proc_read(pid_t pid, const char *name, char *buf, size_t cap); /* /proc/PID/name, up to cap - 1 bytes and a NUL; how many. 0: nothing, or no such process */
void lg_mounts_unconfirmed(struct lg_worker *w, uint64_t number, struct lg_unconfirmed *ret);

#endif
