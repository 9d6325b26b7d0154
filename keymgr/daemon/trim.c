/* Retiring old versions of study keys. Twice asked: first every mount commits what it has and uses newest versions only from then on; when the asker has seen that no
 * file needs the old ones, they go, some hundred studies at a time. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"

enum { BATCH = 1024 };
static const uint8_t none[LG_ID_LEN];

static void answer(struct lg_worker *w, struct lg_op *op, int status, const struct lg_rotated *done, struct lg_unconfirmed *u)
{
    struct lg_unconfirmed *empty = u ? NULL : calloc(1, sizeof *empty);
    struct lg_answer a = { .status = status ? status : u || empty ? 0 : -ENOMEM, .unconfirmed = u ? u : empty };
    char hex[2 * LG_ID_LEN + 1];
    if (done)
        a.rotated = *done;
    lg_hex_encode(op->act, LG_ID_LEN, hex);
    if (op->now)
        snprintf(op->reason, sizeof op->reason, "act %s: older versions of the keys of %u studies retired%s", hex, a.rotated.n, !status && a.rotated.end ? "; that was all" : "");
    else
        snprintf(op->reason, sizeof op->reason, "act %s: mounts told", hex);
    if (status)
        lg_log(LOG_WARNING, "old versions of study keys are not retired: %s", strerror(-status));
    lg_op_done(w, &a);
    free(empty);
}

static void carry_out(struct lg_worker *w, struct lg_op *op)
{
    struct lg_rotated done = { .n = 0 };
    unsigned destroyed;
    int rc = memcmp(op->act, w->trim_told, LG_ID_LEN) != 0 || memcmp(op->act, none, LG_ID_LEN) == 0 ? -ENOTCONN : lg_keyring_begin(w->keyring);
    if (!rc) {
        rc = lg_keyring_trim(w->keyring, op->act, op->has_after ? op->kid : NULL, BATCH, &done);
        if (rc)
            lg_keyring_abort(w->keyring);
        else
            rc = lg_keyring_commit(w->keyring);
    }
    if (!rc && done.n) {
        lg_keyd_cosign(w); /* the log up to here is signed before anything is destroyed */
        lg_backup_drop(w, NULL);
        rc = lg_keyring_destroy(w->keyring, &destroyed);
        int told = lg_root_to_supervisor(w); /* the root may have changed even if a later step failed */
        rc = rc ? rc : told;
        if (rc)
            lg_log(LOG_ERR, "old versions of study keys are being retired but are not yet (%s): the next unlock goes on", strerror(-rc));
    }
    if (!rc && done.end && lg_keyring_keep(w->keyring))
        lg_log(LOG_ERR, "the file of tombstones could not be brought up to date; the next unlock tries again");
    if (done.end)
        memset(w->trim_told, 0, LG_ID_LEN);
    answer(w, op, rc, &done, NULL);
}

void lg_trim_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_act *a = malloc(sizeof *a);
    struct lg_act_record *r = malloc(sizeof *r);
    uint8_t kid[1][LG_ID_LEN];
    int rc = !a || !r ? -ENOMEM : lg_keyring_unlocked(w->keyring) ? 0 : -ENOKEY;
    if (!rc && op->now) {
        free(a);
        free(r);
        carry_out(w, op);
        return;
    }
    memset(w->trim_told, 0, LG_ID_LEN);
    if (!rc)
        rc = lg_keyring_begin(w->keyring);
    if (!rc) { /* what the clocks say is stored */
        rc = lg_keyring_trim_ready(w->keyring, op->act, a, r);
        if (rc)
            lg_keyring_abort(w->keyring);
        else
            rc = lg_keyring_commit(w->keyring);
    }
    if (rc) {
        answer(w, op, rc, NULL, NULL);
    } else {
        bool one = a->uid[0] != 0;
        memcpy(kid[0], a->kid, LG_ID_LEN);
        snprintf(op->uid_text, sizeof op->uid_text, "%s", a->uid);
        op->event = lg_mounts_tell(w, LG_EVENT_TRIMMED, (const uint8_t(*)[LG_ID_LEN])kid, one);
        op->deadline = lg_ms() + LG_ACK_MS;
        op->begun = true;
    }
    free(a);
    free(r);
}

void lg_trim_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    if (u) {
        lg_mounts_unconfirmed(w, op->event, u);
        if (!u->n)
            memcpy(w->trim_told, op->act, LG_ID_LEN);
    }
    answer(w, op, u ? 0 : -ENOMEM, NULL, u);
    free(u);
}
