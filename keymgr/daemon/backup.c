/* Requests about keyring backups. One is made at a time, for one connection; the asker has the key that opens it and writes the file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "daemon.h"
#include "leadglass/act.h"
#include "leadglass/backup.h"

void lg_backup_drop(struct lg_worker *w, const struct lg_conn *c)
{
    if (c && w->backup.serial != c->serial)
        return;
    lg_backup_free(w->backup.b);
    w->backup.b = NULL;
    w->backup.ended = w->backup.ended && !c;
}

static void reply(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q, int status, uint8_t *blob, size_t len)
{
    struct lg_answer a = { .type = q->type, .id = q->id, .status = status, .blob = blob, .blob_len = status ? 0 : len };
    lg_reply(w, c, &a);
}

void lg_on_backup_begin(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    LG_SECRET_AUTO key = lg_secret_new();
    uint8_t id[LG_ID_LEN] = { 0 };
    int rc = !key ? -ENOMEM : q->pass_len != LG_KEY_LEN || strlen(q->reason) > LG_BACKUP_NAME_MAX ? -EINVAL : 0;
    if (!rc && (w->backup.b || w->backup.ended) && w->backup.serial != c->serial)
        rc = -EBUSY;
    if (!rc && lg_keyring_in_txn(w->keyring)) /* what this turn has changed is in it too */
        rc = lg_keyring_commit(w->keyring);
    if (!rc) {
        lg_backup_drop(w, c);
        memcpy(key->b, q->pass, LG_KEY_LEN);
        rc = lg_backup_begin(w->keyring, key, &w->backup.b);
    }
    if (!rc) {
        w->backup.serial = c->serial;
        snprintf(w->backup.name, sizeof w->backup.name, "%s", q->reason);
        memcpy(id, lg_backup_id(w->backup.b), LG_ID_LEN);
        memcpy(w->backup.id, id, LG_ID_LEN);
        w->backup.ended = false;
    }
    reply(w, c, q, rc, id, sizeof id);
}

/* It is answered, as all of a turn is, when that is durable: whoever has the last frame has a backup that certificates count. */
static int noted(struct lg_worker *w)
{
    int rc = lg_keyring_in_txn(w->keyring) ? 0 : lg_keyring_begin(w->keyring);
    return rc ? rc : lg_backup_note(w->keyring, w->backup.b, w->backup.name);
}

void lg_on_backup_next(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    static uint8_t b[1 + LG_BACKUP_FRAME_MAX];
    size_t len = 0;
    bool end = false;
    int rc = w->backup.ended ? -EINVAL : !w->backup.b ? -ESTALE : w->backup.serial != c->serial ? -EINVAL : lg_backup_next(w->backup.b, b + 1, &len, &end);
    b[0] = end;
    if (!rc && end)
        rc = noted(w);
    if (!rc && end) {
        lg_backup_drop(w, NULL);
        w->backup.ended = true;
    }
    reply(w, c, q, rc, b, len + 1);
}

void lg_on_backup_done(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    bool its = w->backup.serial == c->serial && memcmp(w->backup.id, q->kid, LG_ID_LEN) == 0;
    int rc = !its || w->backup.b ? -EINVAL : !w->backup.ended ? -ESTALE : lg_backup_whole(w->keyring, w->backup.id);
    if (!rc) {
        lg_log(LOG_NOTICE, "a keyring backup was made by user %u: %s", (unsigned)c->uid, w->backup.name);
        w->backup.ended = false;
    }
    lg_reply_status(w, c, q, rc);
}

/* Those behind the one that is named, as many as fit. */
void lg_on_backup_list(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    enum { LONGEST = LG_ID_LEN + 3 * 8 + 2 + LG_BACKUP_NAME_MAX + 8 + 1 };
    struct lg_backup_entry *e = NULL;
    uint8_t *b = malloc(LG_WIRE_BLOB_MAX);
    unsigned n = 0, first = 0, fit = 0;
    int rc = b ? lg_backup_list(w->keyring, &e, &n) : -ENOMEM;
    if (!rc && q->has_after)
        while (first < n && memcmp(e[first++].id, q->kid, LG_ID_LEN) != 0)
            ;
    if (!rc && q->has_after && (!first || memcmp(e[first - 1].id, q->kid, LG_ID_LEN) != 0))
        rc = -ENOENT;
    fit = n - first > (LG_WIRE_BLOB_MAX - 2 * 8 - 4) / LONGEST ? (LG_WIRE_BLOB_MAX - 2 * 8 - 4) / LONGEST : n - first;
    struct lg_wr wr = lg_wr(b, b ? LG_WIRE_BLOB_MAX : 0);
    lg_wr_u64(&wr, rc ? 0 : lg_incarnation(w->keyring));
    lg_wr_u64(&wr, rc ? 0 : lg_restored_from(w->keyring));
    lg_wr_u32(&wr, fit);
    for (unsigned i = first; !rc && i < first + fit; i++) {
        lg_wr_bytes(&wr, e[i].id, LG_ID_LEN);
        lg_wr_u64(&wr, e[i].created);
        lg_wr_u64(&wr, e[i].voided);
        lg_wr_u64(&wr, e[i].keys);
        lg_wr_str(&wr, e[i].name);
        lg_wr_u64(&wr, e[i].bytes);
        lg_wr_u8(&wr, e[i].whole);
    }
    reply(w, c, q, rc, b, wr.len);
    free(e);
    free(b);
}

/* Where officers are, two of them must have approved. */
int lg_act_allowed(struct lg_worker *w, const uint8_t act[LG_ID_LEN], enum lg_action action, const uint8_t *kid)
{
    static const uint8_t none[LG_ID_LEN];
    struct lg_act a;
    bool officers;
    int rc = lg_keyring_officer_mode(w->keyring, &officers);
    if (!rc && officers && memcmp(act, none, LG_ID_LEN) == 0)
        rc = -EPERM;
    return rc || !officers ? rc : lg_keyring_act_claim(w->keyring, act, action, kid, &a);
}

void lg_on_backup_void(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    int rc = lg_backup_void(w->keyring, q->kid);
    if (!rc)
        rc = lg_act_allowed(w, q->vault_id, LG_ACT_BACKUP_VOID, q->kid);
    if (rc)
        lg_keyring_abort(w->keyring);
    else
        lg_log(LOG_NOTICE, "a keyring backup was declared destroyed by user %u", (unsigned)c->uid);
    lg_reply_status(w, c, q, rc);
}

void lg_on_restore_confirm(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    int rc = lg_keyring_restored_confirm(w->keyring);
    if (!rc)
        rc = lg_act_allowed(w, q->vault_id, LG_ACT_DESTROY_ENABLE, NULL);
    if (rc)
        lg_keyring_abort(w->keyring);
    else
        lg_log(LOG_NOTICE, "the restored keyring was confirmed by user %u: destruction is allowed", (unsigned)c->uid);
    lg_reply_status(w, c, q, rc);
}
