/* Requests about slots and rotation. */
#include <stdlib.h>
#include <syslog.h>

#include "daemon.h"

enum { ROTATE_BATCH = 500 }; /* studies in one turn: a few milliseconds */

static const char *verb(const struct lg_op *op)
{
    switch (op->type) {
    case LG_MSG_SLOT_ADD: return "added";
    case LG_MSG_SLOT_CHANGE: return "changed";
    default: return "removed";
    }
}

/* The root may have changed even if a later step failed. */
static int after_root_change(struct lg_worker *w, int rc)
{
    int told = lg_root_to_supervisor(w);
    return rc ? rc : told;
}

static int remove_slot(struct lg_worker *w, const struct lg_op *op)
{
    lg_keyd_cosign(w); /* what led up to it is signed before the root changes */
    int rc = after_root_change(w, lg_keyring_slot_remove(w->keyring, op->slot_name));
    if (!rc)
        lg_log(LOG_NOTICE, "slot \"%s\" was removed by user %u", op->slot_name, (unsigned)op->uid);
    return rc;
}

static int rotate_root(struct lg_worker *w, const struct lg_op *op)
{
    struct lg_keyring_stat st;
    lg_keyd_cosign(w);
    int rc = after_root_change(w, lg_keyring_rotate_root(w->keyring));
    if (!rc)
        rc = lg_keyring_stat(w->keyring, &st);
    if (rc)
        lg_log(LOG_ERR, "the change of the root key is not complete (%s): ask again, or the next unlock ends it", strerror(-rc));
    else
        lg_log(LOG_NOTICE, "root key changed by user %u: epoch %llu", (unsigned)op->uid, (unsigned long long)st.epoch);
    return rc;
}

/* Certificates say whether old copies of the slot file are useless: to give that up takes two, as destroying does. */
static int may_unanchor(struct lg_worker *w, const struct lg_op *op)
{
    if (!lg_keyring_anchor_nv(w->keyring))
        return -EALREADY;
    int rc = lg_keyring_begin(w->keyring);
    if (rc)
        return rc;
    rc = lg_act_allowed(w, op->act, LG_ACT_UNANCHOR, NULL);
    if (rc)
        lg_keyring_abort(w->keyring);
    return rc ? rc : lg_keyring_commit(w->keyring);
}

static int anchor(struct lg_worker *w, const struct lg_op *op)
{
    int rc = op->now ? 0 : may_unanchor(w, op);
    if (rc) {
        lg_log(LOG_WARNING, "the slot file's anchor was not given up for user %u: %s", (unsigned)op->uid, strerror(-rc));
        return rc;
    }
    lg_keyd_cosign(w);
    rc = after_root_change(w, lg_keyring_anchor(w->keyring, op->now));
    if (rc)
        lg_log(LOG_ERR, "the slot file's anchor was not %s: %s%s%s", op->now ? "begun" : "given up and destroyed", strerror(-rc), w->tpm && *lg_tpm_why(w->tpm) ? ", " : "",
               w->tpm ? lg_tpm_why(w->tpm) : "");
    else
        lg_log(LOG_NOTICE, op->now ? "the slot file is anchored in the TPM, by user %u" : "the slot file's anchor was given up, by user %u", (unsigned)op->uid);
    return rc;
}

void lg_slot_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { 0 };
    bool later = false;
    if (!lg_keyring_unlocked(w->keyring)) {
        a.status = -ENOKEY;
    } else if (op->type == LG_MSG_SLOT_REMOVE) {
        a.status = remove_slot(w, op);
    } else if (op->type == LG_MSG_ROTATE_ROOT) {
        a.status = rotate_root(w, op);
    } else if (op->type == LG_MSG_SLOT_ANCHOR) {
        a.status = anchor(w, op);
    } else if (op->type == LG_MSG_SLOT_TEST) {
        later = !lg_op_too_early(w, op, &a) && !(a.status = lg_op_derive(w, op, lg_derive_unlock));
    } else {
        a.status = op->slot_name[0] ? lg_op_derive(w, op, op->slot_type == LG_SLOT_TPM ? lg_derive_tpm : lg_derive_draft) : -EINVAL;
        later = !a.status;
    }
    if (!later)
        lg_op_done(w, &a);
}

/* The draft into the file. */
static int write_slot(struct lg_worker *w, const struct lg_op *op)
{
    struct lg_derivation *d = &w->derivation;
    int rc = d->rc;
    if (!rc && op->type == LG_MSG_SLOT_ADD)
        rc = lg_keyring_slot_add(w->keyring, d->draft);
    else if (!rc) {
        lg_keyd_cosign(w);
        rc = after_root_change(w, lg_keyring_slot_change(w->keyring, d->draft));
    }
    lg_slot_draft_free(d->draft);
    d->draft = NULL;
    if (!rc)
        lg_log(LOG_NOTICE, "slot \"%s\" was %s by user %u", op->slot_name, verb(op), (unsigned)op->uid);
    return rc;
}

void lg_slot_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { 0 };
    struct lg_derivation *d = &w->derivation;
    if (op->type != LG_MSG_SLOT_TEST && !op->written) {
        a.status = write_slot(w, op);
        op->written = true;
        if (!a.status)
            a.status = lg_op_derive(w, op, lg_derive_unlock); /* as whoever unlocks next will */
        if (!a.status)
            return;
    } else {
        a.status = d->rc;
        if (!a.status)
            a.status = lg_keyring_slot_proved(w->keyring, d->roots.slot);
        lg_roots_done(&d->roots);
        if (op->type == LG_MSG_SLOT_TEST)
            lg_op_counted(w, op, &a);
        else if (a.status)
            lg_log(LOG_ERR, "slot \"%s\" was %s but does not open: %s", op->slot_name, verb(op), strerror(-a.status));
    }
    lg_op_done(w, &a);
}

void lg_on_slot_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_slot_info slots[LG_SLOTS_MAX];
    struct lg_answer a = { .type = q->type, .id = q->id, .slots = slots };
    a.status = lg_slotfile_list(lg_slot_now(w), slots, &a.n_slots);
    lg_reply(w, c, &a);
}

/* Answered, and told to the mounts, once it is committed: they ask in a later turn. */
void lg_on_rotate_study(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    uint8_t kid[1][LG_ID_LEN];
    int rc = lg_keyring_rotate_study(w->keyring, q->uid, kid[0]);
    if (!rc) {
        struct lg_event e = { .kind = LG_EVENT_ROTATED, .n_kids = 1, .kids = (const uint8_t(*)[LG_ID_LEN])kid };
        lg_mounts_notify(w, &e);
    }
    lg_reply_status(w, c, q, rc);
}

void lg_on_rotate_studies(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = { .type = q->type, .id = q->id };
    a.status = lg_keyring_rotate_studies(w->keyring, q->has_after ? q->kid : NULL, ROTATE_BATCH, &a.rotated);
    if (!a.status && a.rotated.end) {
        struct lg_event e = { .kind = LG_EVENT_ROTATED };
        lg_mounts_notify(w, &e);
        lg_log(LOG_NOTICE, "every study has a new version of its key, by user %u", (unsigned)c->uid);
    }
    lg_reply(w, c, &a);
}
