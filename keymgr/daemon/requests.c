#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"

enum { WAIT_CAP_S = 60 };

/* ---- who may ask what: everything that is not in this table is refused -------------------------------------------------------------- */

enum { ANYBODY = 1, ADMIN = 2, OFFICER = 4 }; /* ADMIN: root, and the user whom the key manager runs as; OFFICER: accounts of registered officers */

typedef void handler(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q);
static handler on_status, on_later, on_show, on_list, on_vault_add, on_vault_get, on_study_key, on_key_by_id, on_provisional, on_attach;

static const struct {
    handler *run;
    unsigned role;
    bool unlocked, changes;
} table[LG_MSG_LAST + 1] = {
    [LG_MSG_STATUS] = { on_status, ANYBODY, false, false },
    [LG_MSG_UNLOCK] = { on_later, ADMIN, false, false },
    [LG_MSG_LOCK] = { on_later, ADMIN, false, false },
    [LG_MSG_REVOKE] = { on_later, ADMIN, true, false },
    [LG_MSG_STUDY_SHOW] = { on_show, ADMIN | OFFICER, true, false },
    [LG_MSG_STUDY_LIST] = { on_list, ADMIN | OFFICER, true, false },
    [LG_MSG_VAULT_ADD] = { on_vault_add, ADMIN, true, true },
    [LG_MSG_VAULT_GET] = { on_vault_get, ADMIN, true, false },
    [LG_MSG_STUDY_KEY] = { on_study_key, ADMIN, true, false }, /* begins by itself when the study is new */
    [LG_MSG_KEY_BY_ID] = { on_key_by_id, ADMIN, true, false },
    [LG_MSG_PROVISIONAL] = { on_provisional, ADMIN, true, true },
    [LG_MSG_ATTACH] = { on_attach, ADMIN, true, true },
    [LG_MSG_SESSION_BEGIN] = { lg_on_session_begin, ADMIN, true, true },
    [LG_MSG_SESSION_END] = { lg_on_session_end, ADMIN, false, true },
    [LG_MSG_SESSION_CLOSE] = { lg_on_session_close, ADMIN, false, true },
    [LG_MSG_ANCHOR] = { lg_on_anchor, ADMIN, true, true },
    [LG_MSG_WATCH] = { lg_on_watch, ADMIN, false, false },
    [LG_MSG_ACK] = { lg_on_ack, ADMIN, false, false },
    [LG_MSG_SLOT_LIST] = { lg_on_slot_list, ADMIN, false, false },
    [LG_MSG_SLOT_ADD] = { on_later, ADMIN, true, false },
    [LG_MSG_SLOT_CHANGE] = { on_later, ADMIN, true, false },
    [LG_MSG_SLOT_REMOVE] = { on_later, ADMIN, true, false },
    [LG_MSG_UNLOCK_KEY] = { on_later, ADMIN, false, false },
    [LG_MSG_UNLOCK_TPM] = { on_later, ADMIN, false, false },
    [LG_MSG_SLOT_TEST] = { on_later, ADMIN, true, false },
    [LG_MSG_SLOT_ANCHOR] = { on_later, ADMIN, true, false },
    [LG_MSG_TPM] = { on_later, ADMIN, false, false },
    [LG_MSG_ROTATE_ROOT] = { on_later, ADMIN, true, false },
    [LG_MSG_BACKUP_BEGIN] = { lg_on_backup_begin, ADMIN, true, false },
    [LG_MSG_BACKUP_NEXT] = { lg_on_backup_next, ADMIN, true, false },
    [LG_MSG_BACKUP_DONE] = { lg_on_backup_done, ADMIN, true, true },
    [LG_MSG_BACKUP_LIST] = { lg_on_backup_list, ADMIN | OFFICER, true, false },
    [LG_MSG_BACKUP_VOID] = { lg_on_backup_void, ADMIN, true, true },
    [LG_MSG_RESTORE_CONFIRM] = { lg_on_restore_confirm, ADMIN, true, true },
    [LG_MSG_ROTATE_STUDY] = { lg_on_rotate_study, ADMIN, true, true },
    [LG_MSG_ROTATE_STUDIES] = { lg_on_rotate_studies, ADMIN, true, true },
    [LG_MSG_ACT_SUBMIT] = { on_later, ADMIN | OFFICER, true, false },
    [LG_MSG_ACT_APPROVE] = { on_later, ADMIN | OFFICER, true, false },
    [LG_MSG_ACT_GET] = { lg_on_act_get, ADMIN | OFFICER, true, false },
    [LG_MSG_ACT_LIST] = { lg_on_act_list, ADMIN | OFFICER, true, false },
    [LG_MSG_GOVERNANCE] = { lg_on_governance, ADMIN | OFFICER, true, true },
    [LG_MSG_CERTIFICATE] = { on_later, ADMIN | OFFICER, true, false },
    [LG_MSG_ASSIGN] = { lg_on_assign, ADMIN, true, true },
    [LG_MSG_TRIM] = { on_later, ADMIN, true, false },
    [LG_MSG_KIDS] = { lg_on_kids, ADMIN, true, false },
    [LG_MSG_REAPED] = { lg_on_reaped, ADMIN, true, true },
    [LG_MSG_AUDIT_INFO] = { lg_on_audit_info, ANYBODY, false, false },
    [LG_MSG_AUDIT_STATE] = { lg_on_audit_state, ADMIN, false, false },
    [LG_MSG_AUDIT_HEAD] = { lg_on_audit_head, ADMIN, true, true },
    [LG_MSG_AUDIT_HEADS] = { lg_on_audit_heads, ADMIN, false, false },
    [LG_MSG_AUDIT_NOTE] = { lg_on_audit_note, ADMIN, false, false },
    [LG_MSG_AUDIT_EXPORT] = { lg_on_audit_export, ADMIN, true, false },
    [LG_MSG_SCRUB_FOUND] = { lg_on_found, ADMIN, false, false },
    [LG_MSG_SCRUB_SALVAGE] = { lg_on_found, ADMIN, true, false },
    [LG_MSG_MANIFEST_SIGN] = { lg_on_manifest_sign, ADMIN, true, false },
    [LG_MSG_MANIFEST_KEY] = { lg_on_manifest_key, ADMIN | OFFICER, true, false },
};

static int begin(struct lg_worker *w) { return lg_keyring_in_txn(w->keyring) ? 0 : lg_keyring_begin(w->keyring); }

void lg_request_handle(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    unsigned have = c->uid == 0 || c->uid == geteuid() ? ANYBODY | ADMIN : ANYBODY;
    if (q->type > LG_MSG_LAST || !table[q->type].run) {
        c->closing = true;
        return;
    }
    int rc = 0;
    w->asked = q;
    w->asked_us = lg_us();
    if (!(have & ADMIN) && (table[q->type].role & OFFICER)) { /* who they are is sealed in the keyring */
        if (!lg_keyring_unlocked(w->keyring))
            rc = -ENOKEY;
        else if (lg_officer_account(w, c->uid))
            have |= OFFICER;
    }
    if (rc)
        ;
    else if (!(table[q->type].role & have))
        rc = -EACCES;
    else if (table[q->type].unlocked && !lg_keyring_unlocked(w->keyring))
        rc = -ENOKEY;
    else if ((rc = lg_keyd_audit_may(w, q->type)) != 0)
        ;
    else if (lg_rollback_refuses(w, q->type))
        rc = -EROFS;
    else if (table[q->type].changes)
        rc = begin(w);
    if (rc)
        lg_reply_status(w, c, q, rc);
    else
        table[q->type].run(w, c, q);
    w->asked = NULL;
    w->asked_event = NULL;
}

/* ---- questions ------------------------------------------------------------------------------------------------------------------------ */

static struct lg_answer answer(const struct lg_request *q, int status)
{
    return (struct lg_answer){ .type = q->type, .id = q->id, .status = status };
}

static void on_status(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    struct lg_answer a = answer(q, s ? 0 : -ENOMEM);
    if (s) {
        a.status = lg_keyring_stat(w->keyring, &s->keyring);
        s->anchor_nv = lg_keyring_anchor_nv(w->keyring);
        s->unlocked = lg_keyring_unlocked(w->keyring);
        snprintf(s->version, sizeof s->version, "%s", LEADGLASS_VERSION);
        s->pid = (uint32_t)getpid();
        s->uptime_s = (uint64_t)(lg_ms() - w->started) / 1000;
        snprintf(s->keyring_dir, sizeof s->keyring_dir, "%s", w->o.keyring);
        snprintf(s->slot_path, sizeof s->slot_path, "%s", w->o.slot);
        snprintf(s->mirror_dir, sizeof s->mirror_dir, "%s", w->o.mirror ? w->o.mirror : "");
        s->memory_unlocked = lg_secret_unlocked();
        struct lg_officer officers[LG_OFFICERS_MAX];
        struct lg_keyring_time t;
        if (s->unlocked && lg_keyring_officers(w->keyring, officers, &s->officers) == 0 && lg_keyring_officer_mode(w->keyring, &s->officer_mode) == 0 &&
            lg_time_look(w, &t) == 0)
            s->frozen = (uint8_t)t.frozen;
        if (s->unlocked && !a.status)
            a.status = lg_keyring_reaps(w->keyring, &s->reaps_due, &s->reaps_waiting);
        lg_mounts_reap(w);
        for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
            const struct lg_mount *m = &w->mounts[i];
            if (!m->used)
                continue;
            struct lg_keyd_mount *out = &s->mounts[s->n_mounts++];
            memcpy(out->vault_id, m->vault_id, LG_ID_LEN);
            out->session = m->session;
            out->pid = (uint32_t)m->pid;
            out->away = m->away;
            snprintf(out->mountpoint, sizeof out->mountpoint, "%s", m->mountpoint);
        }
        a.keyd = s;
    }
    lg_reply(w, c, &a);
    free(s);
}

static void on_show(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_study *s = calloc(1, sizeof *s);
    struct lg_answer a = answer(q, s ? lg_keyring_study_show(w->keyring, q->uid, s) : -ENOMEM);
    a.studies = s;
    a.n_studies = 1;
    lg_reply(w, c, &a);
    free(s);
}

static void on_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_study *s = calloc(LG_WIRE_STUDIES_MAX, sizeof *s);
    struct lg_answer a = answer(q, s ? 0 : -ENOMEM);
    a.studies = s;
    if (s)
        a.status = lg_keyring_studies(w->keyring, q->has_after ? q->kid : NULL, s, LG_WIRE_STUDIES_MAX, &a.n_studies);
    lg_reply(w, c, &a);
    free(s);
}

/* ---- keys -------------------------------------------------------------------------------------------------------------------------------- */

static void reply_keys(struct lg_worker *w, struct lg_conn *c, struct lg_answer *a)
{
    struct lg_keyring_stat st;
    a->lease_s = LG_LEASE_S;
    if (!a->status && (a->type == LG_MSG_VAULT_ADD || a->type == LG_MSG_VAULT_GET)) {
        a->status = lg_keyring_stat(w->keyring, &st);
        memcpy(a->keyring_id, st.keyring_id, LG_ID_LEN);
    }
    lg_reply(w, c, a);
    lg_answer_done(a);
}

static void on_vault_add(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = answer(q, 0);
    a.status = lg_keyring_vault_add(w->keyring, q->vault_id, &a.key[0], &a.key[1]);
    reply_keys(w, c, &a);
}

static void on_vault_get(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = answer(q, 0);
    a.status = lg_keyring_vault_get(w->keyring, q->vault_id, &a.key[0], &a.key[1]);
    reply_keys(w, c, &a);
}

static void on_study_key(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = answer(q, 0);
    bool created;
    a.status = q->info.uid[0] ? lg_keyring_study_find(w->keyring, q->info.uid, &a.key[0]) : -EINVAL;
    bool fresh = a.status == -ENOENT;
    if (fresh)
        a.status = lg_keyring_rolled_back(w->keyring) ? -EROFS : begin(w);
    if (fresh && !a.status)
        a.status = lg_keyring_study_key(w->keyring, &q->info, &a.key[0], &created);
    if (fresh)
        w->asked_event = "key.create";
    if (a.status == -EKEYREVOKED) {
        w->asked_event = "study.returned";
        lg_log(LOG_ALERT, "bytes of a study arrived whose key was revoked; refused (process %d, user %u)", (int)c->pid, (unsigned)c->uid);
    }
    reply_keys(w, c, &a);
}

static void on_key_by_id(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = answer(q, 0);
    a.status = lg_keyring_key_by_id(w->keyring, q->kid, q->version, &a.key[0]);
    reply_keys(w, c, &a);
}

static void on_provisional(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = answer(q, 0);
    a.status = lg_keyring_provisional(w->keyring, &a.key[0]);
    reply_keys(w, c, &a);
}

static void on_attach(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    int rc = lg_keyring_attach(w->keyring, q->kid, &q->info);
    if (rc == -EKEYREVOKED) /* the same, found out only after a while */
        w->asked_event = "study.returned";
    lg_reply_status(w, c, q, rc);
}

/* ---- unlock, lock, revoke: one after the other, over several turns ---------------------------------------------------------------------------- */

static void on_later(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    if (w->n_ops == LG_OPS_MAX) {
        lg_reply_status(w, c, q, -EBUSY);
        return;
    }
    if (q->type == LG_MSG_REVOKE && (!q->now || !q->reason[0])) {
        lg_reply_status(w, c, q, q->now ? -EINVAL : -EPERM);
        return;
    }
    struct lg_op *op = &w->ops[w->n_ops];
    *op = (struct lg_op){ .type = q->type, .conn = c, .serial = c->serial, .id = q->id, .uid = c->uid, .gid = c->gid, .pid = c->pid, .asked_us = lg_us() };
    if (q->pass) { /* a secret, or an act's bytes */
        op->pass = lg_secret_alloc(q->pass_len ? q->pass_len : 1);
        if (!op->pass) {
            lg_reply_status(w, c, q, -ENOMEM);
            return;
        }
        memcpy(op->pass, q->pass, q->pass_len);
        op->pass_len = q->pass_len;
    }
    memcpy(op->kid, q->kid, LG_ID_LEN);
    memcpy(op->act, q->vault_id, LG_ID_LEN);
    op->now = q->now;
    op->has_after = q->has_after;
    op->slot_type = q->type == LG_MSG_UNLOCK       ? LG_SLOT_PASSPHRASE
                    : q->type == LG_MSG_UNLOCK_KEY ? LG_SLOT_KEY_FILE
                    : q->type == LG_MSG_UNLOCK_TPM ? LG_SLOT_TPM
                                                   : (enum lg_slot_type)q->slot_type;
    snprintf(op->slot_name, sizeof op->slot_name, "%s", q->slot_name);
    snprintf(op->uid_text, sizeof op->uid_text, "%s", q->uid);
    snprintf(op->reason, sizeof op->reason, "%s", q->reason);
    w->n_ops++;
}

void lg_op_done(struct lg_worker *w, struct lg_answer *a)
{
    struct lg_op *op = &w->ops[0];
    a->type = op->type;
    a->id = op->id;
    struct lg_conn asker = { .uid = op->uid, .gid = op->gid, .pid = op->pid }; /* who may be gone by now */
    w->asked_op = op;
    lg_keyd_audit_answer(w, &asker, a);
    if (op->conn && op->conn->fd >= 0 && op->conn->serial == op->serial)
        lg_reply(w, op->conn, a);
    w->asked_op = NULL;
    lg_secret_dealloc(op->pass);
    memmove(w->ops, w->ops + 1, (--w->n_ops) * sizeof *w->ops);
}

static struct lg_wait *wait_of(struct lg_worker *w, uid_t uid, bool make)
{
    struct lg_wait *spare = &w->waits[0];
    for (unsigned i = 0; i < LG_WAITS_MAX; i++) {
        if (w->waits[i].failures && w->waits[i].uid == uid)
            return &w->waits[i];
        if (w->waits[i].until < spare->until)
            spare = &w->waits[i];
    }
    if (!make)
        return NULL;
    *spare = (struct lg_wait){ .uid = uid };
    return spare;
}

static uint32_t seconds_left(int64_t until) { return (uint32_t)((until - lg_ms() + 999) / 1000); }

bool lg_op_too_early(struct lg_worker *w, const struct lg_op *op, struct lg_answer *a)
{
    const struct lg_wait *wait = wait_of(w, op->uid, false);
    if (!wait || wait->until <= lg_ms())
        return false;
    a->status = -EAGAIN;
    a->wait_s = seconds_left(wait->until);
    return true;
}

void lg_op_counted(struct lg_worker *w, const struct lg_op *op, struct lg_answer *a)
{
    struct lg_wait *wait = wait_of(w, op->uid, a->status == -EKEYREJECTED);
    if (a->status == -EKEYREJECTED) {
        wait->failures++;
        unsigned s = wait->failures > 6 ? WAIT_CAP_S : 1u << (wait->failures - 1);
        if (s > WAIT_CAP_S)
            s = WAIT_CAP_S;
        wait->until = lg_ms() + (int64_t)s * 1000;
        a->wait_s = s;
        lg_log(LOG_WARNING, "wrong %s from user %u, process %d (%u in a row)", op->slot_type == LG_SLOT_KEY_FILE ? "key file" : "passphrase", (unsigned)op->uid, (int)op->pid,
               wait->failures);
    } else if (!a->status && wait) {
        wait->failures = 0;
    }
}

void lg_derive_unlock(struct lg_derivation *d) { d->rc = lg_slotfile_unlock_with(d->slot, d->chip, d->type, d->name, d->pass, d->pass_len, &d->roots); }
void lg_derive_draft(struct lg_derivation *d) { d->rc = lg_slot_draft_new(d->slot, d->type, d->name, d->pass, d->pass_len, &d->draft); }

static void *derive(void *arg)
{
    struct lg_derivation *d = arg;
    d->run(d);
    eventfd_write(d->wake, 1);
    return NULL;
}

/* scrypt takes half a second and must not keep the others waiting. */
int lg_op_derive(struct lg_worker *w, struct lg_op *op, void (*run)(struct lg_derivation *d))
{
    pthread_t t;
    w->derivation = (struct lg_derivation){ .busy = true, .run = run, .slot = lg_slot_now(w), .type = op->slot_type, .name = op->slot_name[0] ? op->slot_name : NULL,
                                            .pass = op->pass, .pass_len = op->pass_len, .tpm = w->tpm, .chip = w->tpm ? &w->chip : NULL, .wake = w->wake };
    int rc = pthread_create(&t, NULL, derive, &w->derivation);
    if (rc) {
        w->derivation.busy = false;
        return -rc;
    }
    pthread_detach(t);
    op->begun = true;
    return 0;
}

static void unlock_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { 0 };
    if (op->type == LG_MSG_UNLOCK_TPM || !lg_op_too_early(w, op, &a)) /* nothing is guessed at a TPM */
        a.status = lg_op_derive(w, op, lg_derive_unlock);
    if (a.status)
        lg_op_done(w, &a);
}

static void unlock_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { .status = w->derivation.rc };
    if (!a.status && !lg_keyring_unlocked(w->keyring)) {
        a.status = lg_keyring_unlock(w->keyring, &w->derivation.roots);
        lg_rollback_unlock(w, &a.status);
        if (!a.status)
            a.status = lg_root_to_supervisor(w);
        if (!a.status) {
            struct lg_event e = { .kind = LG_EVENT_UNLOCK };
            lg_mounts_notify(w, &e);
            lg_log(LOG_NOTICE, op->type != LG_MSG_UNLOCK_TPM ? "unlocked by user %u" : op->conn ? "unlocked by user %u, with the TPM" : "unlocked with the TPM, by itself", (unsigned)op->uid);
            lg_officers_unlocked(w);
            lg_rollback_unlocked(w);
            if (lg_keyring_unfinished(w->keyring))
                lg_log(LOG_ERR, "studies that were being destroyed still are (%s)", strerror(-lg_keyring_unfinished(w->keyring)));
        }
    }
    if (!a.status && lg_keyring_slot_proved(w->keyring, w->derivation.roots.slot))
        lg_log(LOG_WARNING, "that this slot opens could not be noted in the slot file");
    lg_roots_done(&w->derivation.roots);
    if (op->type != LG_MSG_UNLOCK_TPM)
        lg_op_counted(w, op, &a);
    else if (a.status)
        lg_tpm_report(w, a.status);
    lg_op_done(w, &a);
}

/* The mounts first, while their last bytes can still be given keys; then the keyring. */
static void lock_begin(struct lg_worker *w, struct lg_op *op)
{
    op->event = lg_mounts_tell(w, LG_EVENT_LOCK, NULL, 0);
    op->deadline = lg_ms() + LG_ACK_MS;
    op->begun = true;
}

static void finish(struct lg_worker *w, struct lg_op *op, int status, enum lg_key_state state)
{
    struct lg_answer a = { .status = status, .state = state, .unconfirmed = calloc(1, sizeof *a.unconfirmed) };
    if (!a.unconfirmed)
        a.status = a.status ? a.status : -ENOMEM;
    else
        lg_mounts_unconfirmed(w, op->event, a.unconfirmed);
    if (op->type == LG_MSG_REVOKE && a.unconfirmed && !a.unconfirmed->n)
        lg_revoke_confirmed(w, op->uid_text);
    struct lg_unconfirmed *u = a.unconfirmed;
    lg_op_done(w, &a);
    free(u);
}

static void lock_end(struct lg_worker *w, struct lg_op *op)
{
    lg_keyd_cosign(w); /* nothing can be signed from here on */
    lg_backup_drop(w, NULL);
    lg_keyring_lock(w->keyring);
    int rc = lg_root_forget(w);
    lg_log(LOG_NOTICE, "locked by user %u", (unsigned)op->uid);
    finish(w, op, rc, 0);
}

/* From the commit on no key of the study is served; the mounts forget theirs; then the key is destroyed for good. */
static void revoke_begin(struct lg_worker *w, struct lg_op *op)
{
    uint8_t kid[1][LG_ID_LEN];
    unsigned n = 0;
    struct lg_answer a = { .status = lg_keyring_unlocked(w->keyring) ? begin(w) : -ENOKEY };
    if (!a.status)
        a.status = lg_keyring_revoke(w->keyring, op->uid_text, op->reason, op->uid, kid, 1, &n);
    if (!a.status)
        a.status = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (a.status) {
        lg_op_done(w, &a);
        return;
    }
    lg_keyd_audit(w, "key.revoke", op->uid, op->pid, 0, kid[0], op->reason);
    lg_tell_drop(w, op, (const uint8_t(*)[LG_ID_LEN])kid, n);
}

static void revoke_end(struct lg_worker *w, struct lg_op *op)
{
    unsigned destroyed;
    int rc = -ENOKEY;
    if (lg_keyring_unlocked(w->keyring)) {
        lg_keyd_cosign(w);
        lg_backup_drop(w, NULL);
        rc = lg_keyring_destroy(w->keyring, &destroyed);
        int told = lg_root_to_supervisor(w); /* the root may have changed even if a later step failed */
        rc = rc ? rc : told;
    }
    if (rc)
        lg_log(LOG_ERR, "a study's key is revoked but not destroyed yet (%s): revoke it again, or the next unlock resumes it", strerror(-rc));
    else
        lg_log(LOG_NOTICE, "a study's key was destroyed for user %u", (unsigned)op->uid);
    finish(w, op, 0, rc ? LG_KEY_DESTROYING : LG_KEY_DESTROYED);
}

/* begin: alone with the keyring, nothing uncommitted. end: once the derivation is done, or every mount has answered or had its time. */
static const struct {
    void (*begin)(struct lg_worker *w, struct lg_op *op);
    void (*end)(struct lg_worker *w, struct lg_op *op);
} ops[LG_MSG_LAST + 1] = {
    [LG_MSG_UNLOCK] = { unlock_begin, unlock_end },
    [LG_MSG_UNLOCK_KEY] = { unlock_begin, unlock_end },
    [LG_MSG_UNLOCK_TPM] = { unlock_begin, unlock_end },
    [LG_MSG_LOCK] = { lock_begin, lock_end },
    [LG_MSG_REVOKE] = { revoke_begin, revoke_end },
    [LG_MSG_SLOT_ADD] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_SLOT_CHANGE] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_SLOT_REMOVE] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_SLOT_TEST] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_SLOT_ANCHOR] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_TPM] = { lg_tpm_look_begin, lg_tpm_look_end },
    [LG_MSG_ROTATE_ROOT] = { lg_slot_begin, lg_slot_end },
    [LG_MSG_ACT_SUBMIT] = { lg_act_begin, lg_act_end },
    [LG_MSG_ACT_APPROVE] = { lg_act_begin, lg_act_end },
    [LG_MSG_CERTIFICATE] = { lg_certificate_begin, lg_certificate_end },
    [LG_MSG_TRIM] = { lg_trim_begin, lg_trim_end },
    [LG_OP_DUE] = { lg_due_begin, lg_due_end },
};

/* What mounts have to confirm waits, after a start, for those that stood before and live: they come back in a moment, or are named. */
static bool too_early(struct lg_worker *w, const struct lg_op *op)
{
    bool tells = op->type == LG_MSG_LOCK || op->type == LG_MSG_REVOKE || op->type == LG_MSG_ACT_SUBMIT || op->type == LG_MSG_ACT_APPROVE || op->type == LG_MSG_TRIM || op->type == LG_OP_DUE;
    return tells && lg_ms() < w->started + LG_BACK_MS && lg_mounts_expected(w);
}

void lg_ops_step(struct lg_worker *w)
{
    /* What is being changed in this turn is committed first, so that an op has the keyring to itself. */
    while (w->n_ops && !lg_keyring_in_txn(w->keyring)) {
        struct lg_op *op = &w->ops[0];
        if (!op->begun && too_early(w, op)) {
            op->deadline = w->started + LG_BACK_MS;
            return;
        }
        if (!op->begun) {
            ops[op->type].begin(w, op);
            continue;
        }
        if (w->derivation.busy)
            return; /* the worker's loop is woken */
        if (op->event && lg_mounts_waiting(w, op->event) && lg_ms() < op->deadline)
            return;
        ops[op->type].end(w, op);
    }
}

int64_t lg_ops_deadline(const struct lg_worker *w) { return w->n_ops && (w->ops[0].begun ? w->ops[0].event != 0 : w->ops[0].deadline != 0) ? w->ops[0].deadline : -1; }
