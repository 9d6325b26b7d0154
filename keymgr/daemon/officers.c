/* Acts of officers, and what becomes due by itself. An act has the keyring to itself (an op), as an error undoes the whole transaction. */
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"

enum { TICK_MS = 60000, SOON_MS = 1000, DUE_MAX = 8192, GATHER_MS = 20, GATHER_MAX = 250 };

bool lg_officer_account(struct lg_worker *w, uid_t uid)
{
    struct lg_officer o[LG_OFFICERS_MAX];
    unsigned n;
    if (lg_keyring_officers(w->keyring, o, &n))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (o[i].account == uid)
            return true;
    return false;
}

void lg_officers_unlocked(struct lg_worker *w)
{
    int rc = lg_keyring_officers_check(w->keyring);
    if (rc == -EBADMSG)
        lg_log(LOG_ALERT, "the officers in the keyring are not those that the root-slot file vouches for: one of the two was put back. No act is taken. Restore the right one");
    else if (rc)
        lg_log(LOG_ERR, "the officers cannot be checked: %s", strerror(-rc));
    w->tick_at = 0;
}

/* ---- answers ---------------------------------------------------------------------------------------------------------------------------------- */

static void reply_blob(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q, int status, const uint8_t *blob, size_t len)
{
    struct lg_answer a = { .type = q->type, .id = q->id, .status = status, .blob = (uint8_t *)(uintptr_t)blob, .blob_len = status ? 0 : len };
    lg_reply(w, c, &a);
}

void lg_on_act_get(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_act_record r;
    uint8_t b[LG_ACT_RECORD_MAX];
    size_t len = 0;
    int rc = lg_keyring_act_get(w->keyring, q->kid, &r);
    if (!rc)
        rc = lg_act_record_encode(&r, b, &len);
    reply_blob(w, c, q, rc, b, len);
}

void lg_on_act_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_act_record *r = calloc(LG_ACTS_PER_ANSWER, sizeof *r);
    uint8_t *b = malloc(LG_WIRE_BLOB_MAX), last[LG_ID_LEN] = { 0 }, one[LG_ACT_RECORD_MAX];
    unsigned n = 0;
    size_t len;
    struct lg_wr wr = lg_wr(b, b ? LG_WIRE_BLOB_MAX : 0);
    int rc = r && b ? lg_keyring_acts(w->keyring, q->has_after ? q->kid : NULL, q->now, r, LG_ACTS_PER_ANSWER, &n, last) : -ENOMEM;
    if (rc >= 0) {
        lg_wr_u8(&wr, rc == 1);
        lg_wr_bytes(&wr, last, LG_ID_LEN);
        lg_wr_u16(&wr, (uint16_t)n);
        rc = 0;
    }
    for (unsigned i = 0; !rc && i < n; i++) {
        rc = lg_act_record_encode(&r[i], one, &len);
        lg_wr_u16(&wr, (uint16_t)len);
        lg_wr_bytes(&wr, one, len);
    }
    reply_blob(w, c, q, rc ? rc : wr.bad ? -ENOSPC : 0, b, wr.len);
    free(r);
    free(b);
}

void lg_on_governance(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_governance *g = calloc(1, sizeof *g);
    uint8_t *b = malloc(LG_WIRE_BLOB_MAX);
    struct lg_keyring_stat st;
    size_t len = 0;
    int rc = g && b ? lg_keyring_stat(w->keyring, &st) : -ENOMEM;
    if (!rc) {
        memcpy(g->keyring_id, st.keyring_id, LG_ID_LEN);
        rc = lg_keyring_officer_mode(w->keyring, &g->officer_mode);
    }
    if (!rc)
        rc = lg_keyring_officers(w->keyring, g->officers, &g->n_officers);
    if (!rc)
        rc = lg_keyring_policy(w->keyring, &g->policy);
    if (!rc)
        rc = lg_time_look(w, &g->time);
    if (!rc)
        rc = lg_keyring_sign_pub(w->keyring, g->sign_pub); /* begun: it may be the first time */
    if (!rc)
        rc = lg_governance_encode(g, b, LG_WIRE_BLOB_MAX, &len);
    reply_blob(w, c, q, rc, b, len);
    free(g);
    free(b);
}

void lg_on_assign(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    static const uint8_t none[LG_ID_LEN];
    const uint8_t *act = memcmp(q->vault_id, none, LG_ID_LEN) != 0 ? q->vault_id : NULL;
    int rc = q->pass_len != LG_ID_LEN ? -EINVAL : lg_keyring_assign(w->keyring, act, q->uid, q->kid, q->pass, (uint32_t)c->uid, q->now);
    if (rc == -ENOENT) /* no such act: not to be taken for a key manager that is not there */
        rc = -EINVAL;
    if (!q->now && !rc)
        w->asked_event = ""; /* only looked */
    else if (rc)
        lg_log(LOG_WARNING, "a file was not assigned to another study: %s", strerror(-rc));
    else
        lg_log(LOG_NOTICE, "a file is assigned to another study, %s", act ? "as two officers signed" : "in single-administrator mode");
    lg_reply_status(w, c, q, rc);
}

/* ---- acts --------------------------------------------------------------------------------------------------------------------------------------- */

static int take(struct lg_worker *w, struct lg_op *op, struct lg_act_record *r, enum lg_act_effect *effect)
{
    const struct lg_asker who = { .account = op->uid, .admin = op->uid == 0 || op->uid == geteuid() };
    struct lg_rd rd = lg_rd(op->pass, op->pass_len);
    if (op->type == LG_MSG_ACT_APPROVE) {
        uint8_t pub[LG_SIGN_PUB_LEN], sig[LG_SIGN_LEN];
        lg_rd_copy(&rd, pub, sizeof pub);
        lg_rd_copy(&rd, sig, sizeof sig);
        return lg_rd_done(&rd) ? lg_keyring_act_approve(w->keyring, op->kid, pub, sig, &who, r, effect) : -EPROTO;
    }
    uint8_t with_sig = lg_rd_u8(&rd);
    size_t len = lg_rd_u16(&rd);
    const uint8_t *doc = lg_rd_bytes(&rd, len), *sig = with_sig ? lg_rd_bytes(&rd, LG_SIGN_LEN) : NULL;
    return lg_rd_done(&rd) && with_sig <= 1 && doc ? lg_keyring_act_submit(w->keyring, doc, len, sig, &who, r, effect) : -EPROTO;
}

void lg_tell_drop(struct lg_worker *w, struct lg_op *op, const uint8_t (*kid)[LG_ID_LEN], unsigned n_studies)
{
    uint8_t (*kids)[LG_ID_LEN] = NULL;
    unsigned n = 0, cap = 0, more;
    for (unsigned i = 0; i < n_studies;) {
        unsigned room = cap - n;
        int rc = room ? lg_keyring_kids(w->keyring, kid[i], kids + n, room, &more) : 0;
        if (!rc && room && more < room) {
            n += more;
            i++;
            continue;
        }
        unsigned bigger = cap ? cap * 2 : 2 * n_studies + 64;
        void *p = rc ? NULL : reallocarray(kids, bigger, LG_ID_LEN);
        if (!p) { /* no key of them is served; mounts are told at least of the studies themselves */
            lg_log(LOG_ERR, "provisional keys of revoked studies could not be told to the mounts: %s", strerror(rc ? -rc : ENOMEM));
            break;
        }
        kids = p;
        cap = bigger;
    }
    op->event = n ? lg_mounts_tell(w, LG_EVENT_REVOKE, (const uint8_t(*)[LG_ID_LEN])kids, n) : lg_mounts_tell(w, LG_EVENT_REVOKE, kid, n_studies);
    op->deadline = lg_ms() + LG_ACK_MS;
    op->begun = true;
    free(kids);
}

static void answer_record(struct lg_worker *w, struct lg_op *op, struct lg_unconfirmed *u)
{
    struct lg_act_record r;
    uint8_t b[LG_ACT_RECORD_MAX];
    struct lg_unconfirmed *none = u ? NULL : calloc(1, sizeof *none);
    struct lg_answer a = { .status = u || none ? lg_keyring_act_get(w->keyring, op->kid, &r) : -ENOMEM, .unconfirmed = u ? u : none, .blob = b };
    if (!a.status)
        a.status = lg_act_record_encode(&r, b, &a.blob_len);
    lg_op_done(w, &a);
    free(none);
}

void lg_act_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_act_record r;
    struct lg_act a;
    enum lg_act_effect effect = LG_EFFECT_NONE;
    struct lg_answer refusal = { .status = lg_keyring_unlocked(w->keyring) ? lg_keyring_begin(w->keyring) : -ENOKEY };
    if (!refusal.status) {
        refusal.status = take(w, op, &r, &effect);
        if (!refusal.status)
            refusal.status = lg_act_decode(r.doc, r.doc_len, &a);
        if (refusal.status)
            lg_keyring_abort(w->keyring);
        else
            refusal.status = lg_keyring_commit(w->keyring);
    }
    if (refusal.status) {
        lg_log(LOG_WARNING, "an act handed in by user %u was refused: %s", (unsigned)op->uid, strerror(-refusal.status));
        lg_op_done(w, &refusal);
        return;
    }
    lg_log(LOG_NOTICE, "act %s, handed in by user %u: %s", lg_action_info(a.action)->name, (unsigned)op->uid, lg_act_state_name(r.state));
    memcpy(op->kid, a.nonce, LG_ID_LEN);
    memcpy(op->study, a.kid, LG_ID_LEN);
    int rc = lg_keyring_officers_note(w->keyring);
    if (rc)
        lg_log(LOG_ERR, "the root-slot file could not be told of the officers: %s. It is tried again at the next unlock", strerror(-rc));
    w->tick_at = 0;
    if (effect == LG_EFFECT_DROP) {
        lg_tell_drop(w, op, (const uint8_t(*)[LG_ID_LEN]) & op->study, 1);
        return;
    }
    if (effect == LG_EFFECT_AGAIN) { /* answered when mounts serve it again, or have had their time */
        op->event = lg_mounts_tell(w, LG_EVENT_UNLOCK, NULL, 0);
        op->deadline = lg_ms() + LG_ACK_MS;
        op->begun = op->now = true;
        return;
    }
    answer_record(w, op, NULL);
}

static void confirm(struct lg_worker *w, const uint8_t (*kid)[LG_ID_LEN], unsigned n)
{
    int rc = lg_keyring_unlocked(w->keyring) ? lg_keyring_begin(w->keyring) : -ENOKEY;
    for (unsigned i = 0; !rc && i < n; i++)
        rc = lg_keyring_confirmed(w->keyring, kid[i]);
    if (!rc)
        rc = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (rc)
        lg_log(LOG_ERR, "that every mount has dropped its keys could not be noted: %s", strerror(-rc));
}

void lg_act_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    if (u) {
        lg_mounts_unconfirmed(w, op->event, u);
        if (op->now) /* only told to ask again: nothing of it can be kept back by a mount that does not answer */
            u->n = 0;
        else if (!u->n)
            confirm(w, (const uint8_t(*)[LG_ID_LEN]) & op->study, 1);
    }
    answer_record(w, op, u);
    free(u);
}

void lg_revoke_confirmed(struct lg_worker *w, const char *uid)
{
    struct lg_study *s = calloc(1, sizeof *s);
    if (s && lg_keyring_study_show(w->keyring, uid, s) == 0)
        confirm(w, (const uint8_t(*)[LG_ID_LEN]) & s->kid, 1);
    free(s);
}

/* ---- certificates: a mount that had not confirmed is asked once more ------------------------------------------------------------------------------ */

static bool certify(struct lg_worker *w, struct lg_op *op, struct lg_answer *a, uint8_t b[LG_CERT_MAX + 128])
{
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_wr wr = lg_wr(b, LG_CERT_MAX + 128);
    a->status = lg_keyring_unlocked(w->keyring) ? lg_keyring_begin(w->keyring) : -ENOKEY;
    if (!a->status)
        a->status = lg_keyring_certificate(w->keyring, op->uid_text, doc, sizeof doc, &len, sig, op->study);
    if (!a->status)
        a->status = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (a->status)
        return a->status != -ENOTCONN;
    lg_wr_u16(&wr, (uint16_t)len);
    lg_wr_bytes(&wr, doc, len);
    lg_wr_bytes(&wr, sig, sizeof sig);
    a->blob = b;
    a->blob_len = wr.len;
    return true;
}

void lg_certificate_begin(struct lg_worker *w, struct lg_op *op)
{
    uint8_t b[LG_CERT_MAX + 128];
    struct lg_answer a = { 0 };
    if (certify(w, op, &a, b))
        lg_op_done(w, &a);
    else
        lg_tell_drop(w, op, (const uint8_t(*)[LG_ID_LEN]) & op->study, 1);
}

void lg_certificate_end(struct lg_worker *w, struct lg_op *op)
{
    uint8_t b[LG_CERT_MAX + 128];
    struct lg_answer a = { 0 };
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    if (u) {
        lg_mounts_unconfirmed(w, op->event, u);
        if (!u->n)
            confirm(w, (const uint8_t(*)[LG_ID_LEN]) & op->study, 1);
    }
    free(u);
    (void)certify(w, op, &a, b);
    lg_op_done(w, &a);
}

/* ---- what becomes due ------------------------------------------------------------------------------------------------------------------------------ */

static uint8_t due_kid[DUE_MAX][LG_ID_LEN];
static unsigned n_due;

/* Recorded, for good, before it is noted as told: rather twice, after a crash, than never. */
static int tell_kept(struct lg_worker *w, const struct lg_kept *kept)
{
    for (unsigned i = 0; i < kept->n; i++) {
        const char *what = kept->study[i].why == -EBUSY  ? "it is due, and a legal hold keeps it" :
                           kept->study[i].why == -EDOM ? "it is due, and its retention keeps it" :
                                                         "it is due, and what the keyring has of its patient is damaged: revoke it --before-due, or restore the keyring";
        lg_log(LOG_WARNING, "a study is not destroyed: %s", what);
        lg_keyd_audit(w, "key.destroy", geteuid(), getpid(), kept->study[i].why, kept->study[i].kid, what);
    }
    return kept->n ? lg_keyd_audit_now(w) : 0;
}

void lg_due_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_kept *kept = calloc(1, sizeof *kept); /* NULL: told another time */
    struct lg_answer a = { .status = lg_keyring_unlocked(w->keyring) ? lg_keyring_begin(w->keyring) : -ENOKEY };
    n_due = 0;
    if (!a.status)
        a.status = lg_keyring_due(w->keyring, DUE_MAX, due_kid, &n_due, kept);
    if (!a.status && kept)
        a.status = tell_kept(w, kept);
    free(kept);
    if (!a.status)
        a.status = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (a.status && a.status != -ENOKEY)
        lg_log(LOG_ERR, "studies whose waiting period has ended cannot be destroyed: %s", strerror(-a.status));
    if (a.status || !n_due)
        lg_op_done(w, &a);
    else
        lg_tell_drop(w, op, (const uint8_t(*)[LG_ID_LEN])due_kid, n_due);
}

void lg_due_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { 0 };
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    unsigned destroyed = 0;
    if (u) {
        lg_mounts_unconfirmed(w, op->event, u);
        if (!u->n)
            confirm(w, (const uint8_t(*)[LG_ID_LEN])due_kid, n_due);
        for (unsigned i = 0; i < u->n; i++)
            lg_log(LOG_WARNING, "unconfirmed: the mount at %s has not dropped what it had of studies that are destroyed now", u->mount[i].mountpoint);
    }
    free(u);
    int rc = -ENOKEY;
    if (lg_keyring_unlocked(w->keyring)) {
        lg_keyd_cosign(w); /* the log up to here is signed before anything is destroyed */
        lg_backup_drop(w, NULL);
        rc = lg_keyring_destroy(w->keyring, &destroyed);
        int told = lg_root_to_supervisor(w); /* the root may have changed even if a later step failed */
        rc = rc ? rc : told;
    }
    if (rc)
        lg_log(LOG_ERR, "%u studies are destroying but not destroyed yet: %s", n_due, strerror(-rc));
    else
        lg_log(LOG_NOTICE, "%u studies were destroyed: their waiting period had ended", destroyed);
    for (unsigned i = 0; i < n_due; i++)
        lg_keyd_audit(w, "key.destroy", geteuid(), getpid(), rc, due_kid[i], "its waiting period has ended");
    lg_op_done(w, &a);
}

static const char *frozen_name(enum lg_frozen f)
{
    return f == LG_FROZEN_FORWARD ? "it jumped forward" : f == LG_FROZEN_BACK ? "it went back" : "the host was off for too long";
}

/* For those who ask: a jump is not for the next minute to notice. That it was seen is stored at once. */
int lg_time_look(struct lg_worker *w, struct lg_keyring_time *ret)
{
    int rc = lg_keyring_time_look(w->keyring, ret);
    if (!rc && ret->frozen && !w->frozen_said)
        w->tick_at = 0;
    return rc;
}

static void tick(struct lg_worker *w, int64_t now)
{
    struct lg_keyring_time t = { 0 };
    uint64_t next;
    w->tick_at = now + TICK_MS;
    int rc = lg_keyring_begin(w->keyring);
    if (!rc)
        rc = lg_keyring_tick(w->keyring, &t);
    if (!rc)
        rc = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (rc) {
        lg_log(LOG_ERR, "the time cannot be stored: %s", strerror(-rc));
        return;
    }
    if (t.frozen && !w->frozen_said) {
        lg_keyd_audit(w, "keyring.clock-frozen", geteuid(), getpid(), -ENOLCK, NULL, frozen_name(t.frozen));
        lg_log(LOG_ALERT, "the clock cannot be believed (%s): nothing becomes due until officers confirm it (leadglass clock confirm)", frozen_name(t.frozen));
    }
    w->frozen_said = t.frozen;
    if (t.frozen || lg_keyring_due_next(w->keyring, &next))
        return;
    if (next > t.wall_s) {
        int64_t in = (int64_t)(next - t.wall_s) * 1000;
        if (in < TICK_MS)
            w->tick_at = now + (in > SOON_MS ? in : SOON_MS);
        return;
    }
    if (w->n_ops == LG_OPS_MAX)
        return;
    w->ops[w->n_ops++] = (struct lg_op){ .type = LG_OP_DUE };
    /* Those that only wait for running time are looked at every second while they are few enough to be first. */
    w->tick_at = now + SOON_MS;
}

/* Of a keyring from an earlier version, a little at a time: mounts ask for keys meanwhile. */
static bool gather(struct lg_worker *w)
{
    bool left = false;
    int rc = lg_keyring_gather(w->keyring, GATHER_MAX, &left);
    if (rc && rc != w->gather_rc)
        lg_log(LOG_ERR, "which studies are of one patient cannot be noted (%s): until then nothing is destroyed that a retention rule could keep", strerror(-rc));
    if (!rc && w->gathering && !left)
        lg_log(LOG_NOTICE, "which studies are of one patient is noted: retention rules count from a patient's last study");
    w->gather_rc = rc;
    w->gathering = left && !rc;
    return w->gathering;
}

void lg_tick(struct lg_worker *w)
{
    int64_t now = lg_ms();
    if (!lg_keyring_unlocked(w->keyring) || lg_keyring_in_txn(w->keyring))
        return;
    if (now >= w->tick_at)
        tick(w, now);
    else if (!w->gathering || now < w->gather_at)
        return;
    if (gather(w))
        w->gather_at = lg_ms() + GATHER_MS;
}
