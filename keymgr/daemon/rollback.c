/* A keyring, a root-slot file or both put back in an older state: said loudly, recorded, and answered by changing nothing until officers accept it. */
#include <stdio.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"

void lg_rollback_unlock(struct lg_worker *w, int *status)
{
    static const char *const what[] = { NULL, "the root-slot file is older than the keyring allows: an old copy of it was put in place", "the keyring is older than its root-slot file: an old copy of it was put in place" };
    enum lg_put_back b = lg_keyring_put_back(w->keyring);
    if (*status != -EKEYREJECTED || !b)
        return;
    *status = -EREMCHG;
    lg_log(LOG_ALERT, "ROLLED BACK: %s. Nothing can be opened. Put the right one back, or restore the keyring from a backup", what[b]);
    lg_keyd_audit(w, "keyring.rolled-back", geteuid(), getpid(), -EBADMSG, NULL, what[b]);
}

void lg_rollback_unlocked(struct lg_worker *w)
{
    if (lg_keyring_rolled_back(w->keyring))
        lg_log(LOG_ALERT, "ROLLED BACK: this keyring was put back in an older state. Nothing is changed until officers accept it (leadglass key accept)");
}

/* What changes keys or what opens them. Acts judge for themselves; sessions, reading and the log's heads go on. */
bool lg_rollback_refuses(struct lg_worker *w, uint16_t type)
{
    static const uint16_t refused[] = { LG_MSG_VAULT_ADD, LG_MSG_PROVISIONAL, LG_MSG_ATTACH, LG_MSG_REVOKE, LG_MSG_SLOT_ADD, LG_MSG_SLOT_CHANGE, LG_MSG_SLOT_REMOVE,
                                        LG_MSG_ROTATE_ROOT, LG_MSG_ROTATE_STUDY, LG_MSG_ROTATE_STUDIES, LG_MSG_BACKUP_VOID, LG_MSG_RESTORE_CONFIRM, LG_MSG_ASSIGN, LG_MSG_TRIM, LG_MSG_REAPED,
                                        LG_MSG_SLOT_ANCHOR };
    for (size_t i = 0; i < sizeof refused / sizeof *refused; i++)
        if (type == refused[i])
            return lg_keyring_rolled_back(w->keyring);
    return false;
}

/* A vault shows its anchor. */
void lg_on_anchor(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    uint8_t out[LG_VAULT_ANCHOR_LEN];
    char vault[2 * LG_ID_LEN + 1], text[400], at[40] = "";
    struct lg_answer a = { .type = q->type, .id = q->id, .blob = out };
    struct lg_rollback x = { 0 };
    enum lg_anchor_verdict v = LG_ANCHOR_NONE;
    bool before = lg_keyring_rolled_back(w->keyring);
    lg_hex_encode(q->vault_id, LG_ID_LEN, vault);
    a.status = lg_keyring_vault_anchor(w->keyring, q->vault_id, q->pass, q->pass_len, q->now, &v, out, &a.blob_len);
    if (!a.status && v == LG_ANCHOR_AHEAD && !before && lg_keyring_rollback(w->keyring, &x) == 0) {
        struct tm tm;
        time_t t = (time_t)x.seen_at;
        if (gmtime_r(&t, &tm))
            strftime(at, sizeof at, "%Y-%m-%d %H:%M:%S UTC", &tm);
        snprintf(text, sizeof text, "vault %s saw this keyring on %s at commit %llu of epoch %llu, which it does not remember", vault, at, (unsigned long long)x.seen_commits,
                 (unsigned long long)x.seen_epoch);
        lg_log(LOG_ALERT, "ROLLED BACK: %s. An older keyring and root-slot file were put in place. Studies stay readable; nothing is changed until the right files are back, or officers accept "
                          "these (leadglass key accept). If you restored this keyring from a backup a second time, that is why", text);
        lg_keyd_audit(w, "keyring.rolled-back", c->uid, c->pid, -EBADMSG, NULL, text);
    } else if (!a.status && (v == LG_ANCHOR_MISSING || v == LG_ANCHOR_ALTERED)) {
        snprintf(text, sizeof text, "vault %s: %s", vault, v == LG_ANCHOR_MISSING ? "its anchor is gone" : "its anchor is not one that this keyring made, or damaged");
        lg_log(LOG_WARNING, "%s. Whoever put back an older keyring would have taken it away; it is made anew", text);
        lg_keyd_audit(w, "vault.anchor", c->uid, c->pid, v == LG_ANCHOR_MISSING ? -ENOENT : -EBADMSG, NULL, text);
    }
    lg_reply(w, c, &a);
}
