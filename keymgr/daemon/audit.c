/* The key manager's own chain of the access log, and its signature under the heads of every chain. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"
#include "leadglass/audit.h"
#include "leadglass/bytes.h"

enum { COSIGN_MS = 5000, WINDOW_S = 10 };

/* What is recorded of which request; tests/boundaries/check.py sees to it that none is forgotten and that docs/AUDIT.md tells of each. One that is not in this
 * table all the same is recorded as key.request. */
static const struct {
    const char *event;
    bool counted, durable, always; /* durable: before it is answered; always: not refused when nothing can be recorded */
} table[LG_MSG_LAST + 1] = {
    [LG_MSG_STATUS] = { NULL, false, false, true },
    [LG_MSG_UNLOCK] = { "unlock", false, true, true },
    [LG_MSG_UNLOCK_KEY] = { "unlock", false, true, true },
    [LG_MSG_UNLOCK_TPM] = { "unlock", false, true, true },
    [LG_MSG_LOCK] = { "lock", false, true, true },
    [LG_MSG_REVOKE] = { "key.destroy", false, true, false }, /* key.revoke, when it begins */
    [LG_MSG_STUDY_SHOW] = { "study.show", true, false, false },
    [LG_MSG_STUDY_LIST] = { "study.list", true, false, false },
    [LG_MSG_VAULT_ADD] = { "vault.add", false, true, false },
    [LG_MSG_VAULT_GET] = { "key.lease", true, false, false },
    [LG_MSG_STUDY_KEY] = { "key.lease", true, false, false },
    [LG_MSG_KEY_BY_ID] = { "key.lease", true, false, false },
    [LG_MSG_PROVISIONAL] = { "key.provisional", true, false, false },
    [LG_MSG_ATTACH] = { "key.attach", false, false, false },
    [LG_MSG_SESSION_BEGIN] = { "mount", false, true, false },
    [LG_MSG_SESSION_END] = { "unmount", false, false, true },
    [LG_MSG_SESSION_CLOSE] = { "session.close", false, false, true },
    [LG_MSG_ANCHOR] = { NULL, false, false, true }, /* vault.anchor or keyring.rolled-back, when there is anything to say */
    [LG_MSG_WATCH] = { NULL, false, false, true },
    [LG_MSG_ACK] = { NULL, false, false, true },
    [LG_MSG_SLOT_LIST] = { "slot.list", true, false, true },
    [LG_MSG_SLOT_ADD] = { "slot.add", false, true, false },
    [LG_MSG_SLOT_CHANGE] = { "slot.change", false, true, false },
    [LG_MSG_SLOT_REMOVE] = { "slot.remove", false, true, false },
    [LG_MSG_SLOT_ANCHOR] = { "slot.anchor", false, true, false },
    [LG_MSG_TPM] = { NULL, false, false, true },
    [LG_MSG_SLOT_TEST] = { "slot.test", false, true, false },
    [LG_MSG_ROTATE_ROOT] = { "key.rotate-root", false, true, false },
    [LG_MSG_ROTATE_STUDY] = { "key.rotate", false, true, false },
    [LG_MSG_ROTATE_STUDIES] = { "key.rotate-studies", false, true, false },
    [LG_MSG_BACKUP_BEGIN] = { "backup.begin", false, true, false },
    [LG_MSG_BACKUP_NEXT] = { "backup.read", true, false, false },
    [LG_MSG_BACKUP_DONE] = { "backup.create", false, true, false },
    [LG_MSG_BACKUP_LIST] = { "backup.list", true, false, false },
    [LG_MSG_BACKUP_VOID] = { "backup.void", false, true, false },
    [LG_MSG_RESTORE_CONFIRM] = { "backup.confirm", false, true, false },
    [LG_MSG_ACT_SUBMIT] = { "officer.act", false, true, false }, /* these two by their action: see act() */
    [LG_MSG_ACT_APPROVE] = { "officer.act", false, true, false },
    [LG_MSG_ACT_GET] = { "officer.show", true, false, false },
    [LG_MSG_ACT_LIST] = { "officer.show", true, false, false },
    [LG_MSG_GOVERNANCE] = { "officer.show", true, false, false },
    [LG_MSG_CERTIFICATE] = { "study.certificate", false, true, false },
    [LG_MSG_TRIM] = { "key.trim", false, true, false },
    [LG_MSG_KIDS] = { "study.show", true, false, false },
    [LG_MSG_REAPED] = { "study.reap", false, true, false },
    [LG_MSG_ASSIGN] = { "study.assign", false, true, false },
    [LG_MSG_DUE] = { NULL, false, false, true }, /* the key manager's own: key.destroy for every study whose waiting period has ended */
    [LG_MSG_EVENT] = { NULL, false, false, true }, /* never asked */
    [LG_MSG_AUDIT_INFO] = { NULL, false, false, true },
    [LG_MSG_AUDIT_STATE] = { NULL, false, false, true },
    [LG_MSG_AUDIT_HEAD] = { NULL, false, false, true },
    [LG_MSG_AUDIT_HEADS] = { NULL, false, false, true },
    [LG_MSG_AUDIT_NOTE] = { "log.read", false, true, true },
    [LG_MSG_AUDIT_EXPORT] = { "config", false, true, false },
    [LG_MSG_SCRUB_FOUND] = { "scrub.found", false, true, true },
    [LG_MSG_SCRUB_SALVAGE] = { "file.open", false, true, false }, /* how: salvage */
    [LG_MSG_MANIFEST_SIGN] = { "scrub.manifest", false, true, false }, /* a refused one; one that is signed is recorded before it is */
    [LG_MSG_MANIFEST_KEY] = { NULL, false, false, true },
};

/* ---- life ------------------------------------------------------------------------------------------------------------------------ */

static void alarmed(void *arg, int level, const char *text)
{
    (void)arg;
    lg_log(level, "%s", text);
}

/* Whoever has the log can check it with this; a copy kept elsewhere is what to trust. */
static void write_pub(struct lg_worker *w)
{
    uint8_t pub[LG_SIGN_PUB_LEN];
    if (lg_keyring_audit_pub(w->keyring, pub) == 0)
        lg_audit_write_pub(w->o.audit, pub);
}

int lg_keyd_audit_start(struct lg_worker *w)
{
    struct lg_audit_chain chain;
    struct lg_audit_head last = { .n = 0 };
    char text[LG_HEAD_TEXT_MAX + 1];
    if (!w->o.audit)
        return 0;
    struct lg_audit_options o = { .dir = w->o.audit, .name = "keyd", .kind = "keyd", .window_s = WINDOW_S, .keep_days = w->o.audit_keep, .keep_going = w->o.audit_continue, .alarm = alarmed };
    int rc = lg_audit_find(o.dir, o.name, &chain);
    if (!rc && lg_keyring_head_get(w->keyring, chain.id, text) == 0 && lg_audit_head_parse(text, strlen(text), &last))
        return -EPROTO;
    rc = lg_audit_open(&o, &last, &w->audit);
    if (rc)
        return rc;
    struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "start");
    snprintf(r.text, sizeof r.text, "leadglass-keyd %s", LEADGLASS_VERSION);
    lg_audit_put(w->audit, &r);
    lg_audit_record_init(&r); /* at every start, so that a change shows */
    snprintf(r.event, sizeof r.event, "config");
    snprintf(r.text, sizeof r.text, "audit.keep=%u audit.on-failure=%s", w->o.audit_keep, w->o.audit_continue ? "continue" : "refuse");
    lg_audit_put(w->audit, &r);
    write_pub(w);
    return 0;
}

void lg_keyd_audit_stop(struct lg_worker *w)
{
    struct lg_audit_record r;
    if (!w->audit)
        return;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "stop");
    lg_audit_put(w->audit, &r);
    (void)!lg_audit_flush(w->audit, true); /* counts of open windows too: then everything is under the last head */
    lg_keyd_cosign(w);
    lg_audit_close(w->audit);
    w->audit = NULL;
}

/* ---- recording --------------------------------------------------------------------------------------------------------------------- */

int lg_keyd_audit_may(struct lg_worker *w, uint16_t type) { return !w->audit || table[type].always ? 0 : lg_audit_ready(w->audit); }

static void who(void *arg, struct lg_audit_record *r)
{
    (void)arg;
    lg_audit_exe(r->pid, r->exe);
}

void lg_keyd_audit(struct lg_worker *w, const char *event, uid_t uid, pid_t pid, int outcome, const uint8_t *kid, const char *text)
{
    struct lg_audit_record r;
    if (!w->audit)
        return;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "%s", event);
    r.outcome = outcome;
    r.has = LG_AUDIT_WHO;
    r.uid = r.gid = uid;
    r.pid = pid;
    lg_audit_exe(pid, r.exe);
    if (kid) {
        r.has |= LG_AUDIT_STUDY;
        memcpy(r.study, kid, LG_ID_LEN);
    }
    snprintf(r.text, sizeof r.text, "%s", text ? text : "");
    lg_audit_put(w->audit, &r);
    w->audit_durable = true;
}

/* The id of the key that a request concerns, without naming the study. */
static bool subject(struct lg_worker *w, const struct lg_answer *a, const char *uid, struct lg_audit_record *r)
{
    if (a->key[0].key && a->type != LG_MSG_VAULT_ADD && a->type != LG_MSG_VAULT_GET && a->type != LG_MSG_AUDIT_EXPORT) {
        memcpy(r->study, a->key[0].kid, LG_ID_LEN);
        r->key = a->key[0].version;
        return true;
    }
    if (!uid || !uid[0] || !lg_keyring_unlocked(w->keyring))
        return false;
    struct lg_study *s = calloc(1, sizeof *s);
    bool found = s && lg_keyring_study_show(w->keyring, uid, s) == 0;
    if (found) {
        memcpy(r->study, s->kid, LG_ID_LEN);
        r->key = s->version;
    }
    free(s);
    return found;
}

/* The act that was handed in or approved, as it stands now; of a refused one what was handed in, if it can be read. */
static int act_of(struct lg_worker *w, const struct lg_answer *a, struct lg_act_record *rec, struct lg_act *doc)
{
    const struct lg_op *op = w->asked_op;
    int rc = a->status ? -ENOENT : lg_act_record_decode(a->blob, a->blob_len, rec);
    if (!rc)
        return lg_act_decode(rec->doc, rec->doc_len, doc);
    *rec = (struct lg_act_record){ .state = 0 };
    if (!op)
        return -ENOENT;
    if (op->type == LG_MSG_ACT_SUBMIT) {
        struct lg_rd rd = lg_rd(op->pass, op->pass_len);
        (void)lg_rd_u8(&rd);
        size_t len = lg_rd_u16(&rd);
        const uint8_t *p = lg_rd_bytes(&rd, len);
        return p ? lg_act_decode(p, len, doc) : -EPROTO;
    }
    rc = lg_keyring_unlocked(w->keyring) ? lg_keyring_act_get(w->keyring, op->kid, rec) : -ENOKEY;
    return rc ? rc : lg_act_decode(rec->doc, rec->doc_len, doc);
}

/* An officer's act says itself what it is and which key it concerns. */
static void act(struct lg_worker *w, const struct lg_answer *a, struct lg_audit_record *r)
{
    struct lg_act_record *rec = calloc(1, sizeof *rec);
    struct lg_act *doc = calloc(1, sizeof *doc);
    static const uint8_t none[LG_ID_LEN];
    snprintf(r->how, sizeof r->how, "%s", a->type == LG_MSG_ACT_SUBMIT ? "submit" : "approve");
    if (rec && doc && act_of(w, a, rec, doc) == 0) {
        char id[2 * LG_ID_LEN + 1];
        const char *name = lg_action_info(doc->action)->name;
        lg_hex_encode(doc->nonce, LG_ID_LEN, id);
        snprintf(r->event, sizeof r->event, "officer.%.20s", strncmp(name, "officer-", 8) == 0 ? name + 8 : name);
        snprintf(r->text, sizeof r->text, "act %s, %s: %.900s", id, a->status ? "refused" : lg_act_state_name(rec->state), doc->reason);
        if (memcmp(doc->kid, none, LG_ID_LEN) != 0) {
            r->has |= LG_AUDIT_STUDY;
            memcpy(r->study, doc->kid, LG_ID_LEN);
        }
    }
    free(rec);
    free(doc);
}

/* How a log is read, as its reader says; behind a space what else there is to say, in letters that say nothing in another's name. */
static void note(const char *said, struct lg_audit_record *r)
{
    size_t how = strspn(said, "abcdefghijklmnopqrstuvwxyz-"), all = said[how] == ' ' ? how + strspn(said + how, "abcdefghijklmnopqrstuvwxyz0123456789-, ") : how;
    bool fit = !said[all] && how <= LG_AUDIT_EVENT_MAX;
    snprintf(r->how, sizeof r->how, "%.*s", fit ? (int)how : 7, fit ? said : "unknown");
    snprintf(r->text, sizeof r->text, "%s", fit && said[how] ? said + how + 1 : "");
}

void lg_keyd_audit_answer(struct lg_worker *w, const struct lg_conn *c, const struct lg_answer *a)
{
    struct lg_audit_record r;
    bool known = a->type <= LG_MSG_LAST && (table[a->type].event || table[a->type].always);
    const char *event = !known ? "key.request" : w->asked_event ? w->asked_event : table[a->type].event;
    const struct lg_request *q = w->asked && w->asked->type == a->type ? w->asked : NULL;
    if (!w->audit || !event || !event[0] || a->status == -ECANCELED) /* those are counted in log.failed */
        return;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "%s", event);
    r.outcome = a->status;
    r.has = LG_AUDIT_WHO;
    r.uid = c->uid;
    r.gid = c->gid;
    r.pid = c->pid;
    int64_t since = q ? w->asked_us : w->asked_op ? w->asked_op->asked_us : 0;
    if (since) {
        r.has |= LG_AUDIT_US;
        r.us = (uint64_t)(lg_us() - since);
    }
    if (subject(w, a, q ? q->uid[0] ? q->uid : q->info.uid : w->asked_op ? w->asked_op->uid_text : NULL, &r))
        r.has |= LG_AUDIT_STUDY;
    if (!known)
        snprintf(r.text, sizeof r.text, "request %u", (unsigned)a->type);
    else if (a->type == LG_MSG_AUDIT_NOTE)
        note(q ? q->reason : "", &r);
    else if (a->type == LG_MSG_AUDIT_EXPORT)
        snprintf(r.text, sizeof r.text, "audit.export=%.900s (with study UIDs)", q ? q->reason : "");
    else
        snprintf(r.text, sizeof r.text, "%s", q ? a->type == LG_MSG_SESSION_BEGIN ? q->mountpoint : q->reason : w->asked_op ? w->asked_op->reason : "");
    if (a->type == LG_MSG_ACT_SUBMIT || a->type == LG_MSG_ACT_APPROVE)
        act(w, a, &r);
    if (a->type == LG_MSG_SESSION_BEGIN || a->type == LG_MSG_SESSION_END || a->type == LG_MSG_SCRUB_FOUND || a->type == LG_MSG_SCRUB_SALVAGE ||
        a->type == LG_MSG_MANIFEST_SIGN) {
        r.has |= LG_AUDIT_SESSION;
        r.session = a->type == LG_MSG_SESSION_BEGIN ? a->session : q ? q->session : 0;
    }
    if (q && a->type == LG_MSG_SCRUB_SALVAGE) {
        static const uint8_t unknown[LG_ID_LEN];
        const struct lg_mount *m = lg_mount_of(w, q->session);
        snprintf(r.how, sizeof r.how, "salvage");
        r.has |= LG_AUDIT_STUDY | (memcmp(q->vault_id, unknown, LG_ID_LEN) ? LG_AUDIT_FILE : 0) | (m ? LG_AUDIT_VAULT : 0);
        memcpy(r.study, q->kid, LG_ID_LEN);
        r.key = q->version;
        memcpy(r.file, q->vault_id, LG_ID_LEN);
        if (m)
            memcpy(r.vault, m->vault_id, LG_ID_LEN);
    }
    if (q && (a->type == LG_MSG_SESSION_BEGIN || a->type == LG_MSG_VAULT_ADD)) {
        r.has |= LG_AUDIT_VAULT;
        memcpy(r.vault, q->vault_id, LG_ID_LEN);
    }
    if (!known || table[a->type].counted || a->status == -EACCES) /* nobody fills the log, or keeps the disk busy, by asking for what he may not */
        lg_audit_count(w->audit, &r, who, NULL);
    else {
        who(NULL, &r);
        lg_audit_put(w->audit, &r);
    }
    if (q && q->unlogged && !a->status) { /* durable with the record of the mount */
        snprintf(r.event, sizeof r.event, "config");
        snprintf(r.text, sizeof r.text, "audit=off: NO ACCESS LOG is kept of the mount at %.900s", q->mountpoint);
        r.time_us = 0;
        lg_audit_put(w->audit, &r);
    }
    w->audit_durable = w->audit_durable || (known && table[a->type].durable && a->status != -EACCES);
}

/* Before answers leave: those of changes are true only once they are in the log for good. */
int lg_keyd_audit_now(struct lg_worker *w)
{
    int rc = w->audit ? lg_audit_flush(w->audit, false) : 0;
    return w->o.audit_continue ? 0 : rc;
}

void lg_keyd_audit_turn(struct lg_worker *w)
{
    if (!w->audit || !w->audit_durable)
        return;
    w->audit_durable = false;
    if (lg_keyring_unlocked(w->keyring))
        lg_keyd_cosign(w);
    else
        (void)!lg_audit_flush(w->audit, false); /* what may not be done without a record was refused before; the alarm is raised */
}

/* ---- heads -------------------------------------------------------------------------------------------------------------------------- */

/* In a transaction. The next head of a chain, if it follows from the last. */
static int sign_next(struct lg_worker *w, const struct lg_audit_head *want, struct lg_audit_head *ret)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    struct lg_audit_head last = { .n = 0 }, h = *want;
    struct lg_keyring_stat st;
    char text[LG_HEAD_TEXT_MAX + 1];
    size_t len;
    int rc = seed ? lg_keyring_head_get(w->keyring, want->chain, text) : -ENOMEM;
    if (!rc)
        rc = lg_audit_head_parse(text, strlen(text), &last) ? -EPROTO : 0;
    else if (rc == -ENOENT)
        rc = 0;
    if (!rc && last.n && last.seq == want->seq && memcmp(last.hash, want->hash, LG_MAC_LEN) == 0) { /* asked again */
        *ret = last;
        return 0;
    }
    if (!rc && (want->n != last.n || want->seq <= last.seq || (last.n && memcmp(want->prev, last.hash, LG_MAC_LEN) != 0)))
        rc = -EBADMSG;
    if (!rc)
        rc = lg_keyring_stat(w->keyring, &st);
    if (!rc)
        rc = lg_keyring_audit_key(w->keyring, seed);
    if (rc)
        return rc;
    memcpy(h.keyring, st.keyring_id, LG_ID_LEN);
    memset(h.prev, 0, sizeof h.prev);
    if (last.n)
        rc = lg_audit_head_digest(&last, h.prev);
    h.n = last.n + 1;
    h.time_us = (int64_t)time(NULL) * 1000000;
    if (!rc)
        rc = lg_audit_head_sign(&h, seed);
    if (!rc)
        rc = lg_audit_head_encode(&h, text, sizeof text, &len);
    if (!rc)
        rc = lg_keyring_head_put(w->keyring, h.chain, text, len);
    if (!rc)
        *ret = h;
    return rc;
}

void lg_keyd_cosign(struct lg_worker *w)
{
    struct lg_audit_head tip, head;
    if (!w->audit || !lg_keyring_unlocked(w->keyring) || lg_keyring_in_txn(w->keyring) || lg_audit_flush(w->audit, false))
        return;
    w->cosigned = lg_ms();
    bool fresh = lg_audit_tip(w->audit, &tip);
    if (!fresh)
        return;
    int rc = lg_keyring_begin(w->keyring);
    if (!rc)
        rc = sign_next(w, &tip, &head);
    if (!rc)
        rc = lg_keyring_commit(w->keyring);
    else if (lg_keyring_in_txn(w->keyring))
        lg_keyring_abort(w->keyring);
    if (!rc)
        rc = lg_audit_head_store(w->audit, &head);
    if (rc)
        lg_log(LOG_ERR, "the access log cannot be signed: %s", strerror(-rc));
    write_pub(w);
}

int64_t lg_keyd_audit_deadline(const struct lg_worker *w)
{
    return w->audit && lg_keyring_unlocked(w->keyring) ? w->cosigned + COSIGN_MS : -1;
}

void lg_keyd_audit_tick(struct lg_worker *w)
{
    if (w->audit && lg_keyring_unlocked(w->keyring) && lg_ms() >= w->cosigned + COSIGN_MS)
        lg_keyd_cosign(w);
}

/* ---- requests ---------------------------------------------------------------------------------------------------------------------------- */

void lg_on_audit_info(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_audit_info *i = calloc(1, sizeof *i);
    struct lg_answer a = { .type = q->type, .id = q->id, .status = i ? 0 : -ENOMEM, .audit = i };
    if (i && w->audit) {
        struct lg_audit_state s;
        lg_audit_state(w->audit, &s);
        snprintf(i->dir, sizeof i->dir, "%s", w->o.audit);
        snprintf(i->log, sizeof i->log, "%s", s.path);
        i->on = true;
        i->seq = s.seq;
        i->signed_seq = s.signed_seq;
        i->failing = s.failing;
        i->keep_going = w->o.audit_continue;
        i->used_percent = s.used_percent;
    }
    if (i && lg_keyring_audit_pub(w->keyring, i->pub))
        memset(i->pub, 0, sizeof i->pub);
    lg_reply(w, c, &a);
    free(i);
}

void lg_on_audit_state(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = { .type = q->type, .id = q->id };
    a.status = lg_keyring_head_get(w->keyring, q->vault_id, a.head);
    if (a.status == -ENOENT)
        a.status = 0;
    lg_reply(w, c, &a);
}

void lg_on_audit_head(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = { .type = q->type, .id = q->id };
    struct lg_audit_head want, head = { .n = 0 };
    char id[2 * LG_ID_LEN + 1];
    size_t len;
    a.status = lg_audit_head_parse(q->head, strlen(q->head), &want);
    uint64_t base = a.status ? 0 : want.n - 1; /* n of a head is at least 1: the asker names the one it wants */
    want.n = base;
    if (!a.status)
        a.status = sign_next(w, &want, &head);
    if (!a.status)
        a.status = lg_audit_head_encode(&head, a.head, sizeof a.head - 1, &len);
    if (!a.status)
        a.head[len] = 0;
    lg_hex_encode(want.chain, LG_ID_LEN, id);
    if (!a.status && !base)
        lg_keyd_audit(w, "log.chain", c->uid, c->pid, 0, NULL, id);
    if (a.status == -EBADMSG) {
        lg_log(LOG_ALERT, "refused to sign the access log %s: it does not follow from what was signed last (process %d, user %u)", id, (int)c->pid, (unsigned)c->uid);
        lg_keyd_audit(w, "log.fork", c->uid, c->pid, a.status, NULL, id);
    }
    lg_reply(w, c, &a);
}

void lg_on_audit_heads(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_audit_heads *h = calloc(1, sizeof *h);
    struct lg_answer a = { .type = q->type, .id = q->id, .status = h ? 0 : -ENOMEM, .heads = h };
    if (h)
        a.status = lg_keyring_heads(w->keyring, h->head, LG_AUDIT_HEADS_MAX, &h->n);
    lg_reply(w, c, &a);
    free(h);
}

/* What is answered is in the log before, for good: nobody exports unrecorded. */
void lg_on_audit_export(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_keyring_stat st;
    struct lg_answer a = { .type = q->type, .id = q->id, .key[0] = { .version = 1, .kind = LG_KIND_VAULT, .state = LG_KEY_ACTIVE, .key = lg_secret_new() } };
    a.status = !a.key[0].key ? -ENOMEM : !w->audit ? -ENOENT : lg_keyring_stat(w->keyring, &st);
    if (!a.status)
        a.status = lg_keyring_export_key(w->keyring, a.key[0].key);
    if (!a.status)
        memcpy(a.key[0].kid, st.keyring_id, LG_ID_LEN);
    lg_reply(w, c, &a);
    lg_answer_done(&a);
}

void lg_on_audit_note(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q) { lg_reply_status(w, c, q, 0); }
