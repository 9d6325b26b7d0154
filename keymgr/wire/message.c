/* Frames: header, then the fields of the type in the order of the bits below. */
#include "leadglass/wire.h"

enum {
    /* requests */
    R_PASS = 1 << 0,
    R_VAULT = 1 << 1,
    R_KID = 1 << 2,
    R_VERSION = 1 << 3,
    R_SESSION = 1 << 4,
    R_UID = 1 << 5,
    R_REASON = 1 << 6,
    R_MOUNTPOINT = 1 << 7,
    R_INFO = 1 << 8,
    R_NOW = 1 << 9,
    R_AFTER = 1 << 10,
    R_EVENT = 1 << 11,
    R_SLOT = 1 << 12,
    R_ACT = 1 << 13,
    R_HEAD = 1 << 29,
    /* answers */
    A_KEYD = 1 << 0,
    A_STATE = 1 << 1,
    A_UNCONFIRMED = 1 << 2,
    A_STUDY = 1 << 3,
    A_STUDIES = 1 << 4,
    A_KEYRING = 1 << 5,
    A_KEY = 1 << 6,
    A_KEY2 = 1 << 7,
    A_LEASE = 1 << 8,
    A_SESSION = 1 << 9,
    A_UNCLEAN = 1 << 10,
    A_SLOTS = 1 << 11,
    A_ROTATED = 1 << 12,
    A_BLOB = 1 << 13,
    A_HEAD = 1 << 27,
    A_HEADS = 1 << 28,
    A_AUDIT = 1 << 29,
    NOTHING = 1 << 30, /* no fields, but known */
};

static const struct {
    unsigned request, answer;
} fields[LG_MSG_LAST + 1] = {
    [LG_MSG_STATUS] = { 0, A_KEYD },
    [LG_MSG_UNLOCK] = { R_PASS, 0 },
    [LG_MSG_LOCK] = { 0, A_UNCONFIRMED },
    [LG_MSG_REVOKE] = { R_UID | R_REASON | R_NOW, A_STATE | A_UNCONFIRMED },
    [LG_MSG_STUDY_SHOW] = { R_UID, A_STUDY },
    [LG_MSG_STUDY_LIST] = { R_KID | R_AFTER, A_STUDIES },
    [LG_MSG_VAULT_ADD] = { R_VAULT, A_KEYRING | A_KEY | A_KEY2 },
    [LG_MSG_VAULT_GET] = { R_VAULT, A_KEYRING | A_KEY | A_KEY2 },
    [LG_MSG_STUDY_KEY] = { R_INFO, A_KEY | A_LEASE },
    [LG_MSG_KEY_BY_ID] = { R_KID | R_VERSION, A_KEY | A_LEASE },
    [LG_MSG_PROVISIONAL] = { 0, A_KEY | A_LEASE },
    [LG_MSG_ATTACH] = { R_KID | R_INFO, 0 },
    [LG_MSG_SESSION_BEGIN] = { R_VAULT | R_MOUNTPOINT, A_SESSION | A_UNCLEAN },
    [LG_MSG_SESSION_END] = { R_SESSION, 0 },
    [LG_MSG_SESSION_CLOSE] = { R_SESSION, 0 },
    [LG_MSG_WATCH] = { R_SESSION, 0 },
    [LG_MSG_ACK] = { R_EVENT, 0 },
    [LG_MSG_ANCHOR] = { R_ACT | R_VAULT | R_NOW, A_BLOB },
    [LG_MSG_SLOT_LIST] = { 0, A_SLOTS },
    [LG_MSG_SLOT_ADD] = { R_PASS | R_SLOT, 0 },
    [LG_MSG_SLOT_CHANGE] = { R_PASS | R_SLOT, 0 },
    [LG_MSG_SLOT_REMOVE] = { R_SLOT, 0 },
    [LG_MSG_UNLOCK_KEY] = { R_PASS, 0 },
    [LG_MSG_SLOT_TEST] = { R_PASS | R_SLOT, 0 },
    [LG_MSG_UNLOCK_TPM] = { NOTHING, 0 },
    [LG_MSG_SLOT_ANCHOR] = { R_VAULT | R_NOW, 0 },
    [LG_MSG_TPM] = { NOTHING, 0 },
    [LG_MSG_ROTATE_ROOT] = { NOTHING, 0 },
    [LG_MSG_ROTATE_STUDY] = { R_UID, 0 },
    [LG_MSG_AUDIT_INFO] = { NOTHING, A_AUDIT },
    [LG_MSG_AUDIT_STATE] = { R_VAULT, A_HEAD },
    [LG_MSG_AUDIT_HEAD] = { R_HEAD, A_HEAD },
    [LG_MSG_AUDIT_HEADS] = { NOTHING, A_HEADS },
    [LG_MSG_AUDIT_NOTE] = { R_REASON, 0 },
    [LG_MSG_AUDIT_EXPORT] = { R_REASON, A_KEY },
    [LG_MSG_SCRUB_FOUND] = { R_SESSION | R_REASON, 0 },
    [LG_MSG_SCRUB_SALVAGE] = { R_VAULT | R_KID | R_VERSION | R_SESSION, 0 }, /* "vault": the file's pseudonym */
    [LG_MSG_MANIFEST_SIGN] = { R_ACT | R_SESSION, A_BLOB },
    [LG_MSG_MANIFEST_KEY] = { NOTHING, A_BLOB },
    [LG_MSG_ROTATE_STUDIES] = { R_KID | R_AFTER, A_ROTATED },
    [LG_MSG_BACKUP_BEGIN] = { R_PASS | R_REASON, A_BLOB },
    [LG_MSG_BACKUP_NEXT] = { NOTHING, A_BLOB },
    [LG_MSG_BACKUP_DONE] = { R_KID, 0 },
    [LG_MSG_BACKUP_LIST] = { R_KID | R_AFTER, A_BLOB },
    [LG_MSG_BACKUP_VOID] = { R_VAULT | R_KID, 0 },
    [LG_MSG_RESTORE_CONFIRM] = { R_VAULT, 0 },
    [LG_MSG_ACT_SUBMIT] = { R_ACT, A_UNCONFIRMED | A_BLOB },
    [LG_MSG_ACT_APPROVE] = { R_KID | R_ACT, A_UNCONFIRMED | A_BLOB },
    [LG_MSG_ACT_GET] = { R_KID, A_BLOB },
    [LG_MSG_ACT_LIST] = { R_KID | R_NOW | R_AFTER, A_BLOB },
    [LG_MSG_GOVERNANCE] = { NOTHING, A_BLOB },
    [LG_MSG_CERTIFICATE] = { R_UID, A_BLOB },
    [LG_MSG_TRIM] = { R_VAULT | R_KID | R_NOW | R_AFTER, A_UNCONFIRMED | A_ROTATED },
    [LG_MSG_KIDS] = { R_ACT | R_UID, A_BLOB },
    [LG_MSG_REAPED] = { R_ACT | R_VAULT | R_KID | R_NOW, A_BLOB },
    [LG_MSG_ASSIGN] = { R_ACT | R_VAULT | R_KID | R_UID | R_NOW, 0 },
};

static bool known(unsigned type) { return type <= LG_MSG_LAST && (fields[type].request | fields[type].answer); }

int lg_wire_header(const uint8_t *buf, size_t len, struct lg_header *ret)
{
    struct lg_rd r = lg_rd(buf, len);
    struct lg_header h;
    h.len = lg_rd_u32(&r);
    uint32_t magic = lg_rd_u32(&r);
    h.version = lg_rd_u16(&r);
    h.type = lg_rd_u16(&r);
    h.id = lg_rd_u64(&r);
    if (!lg_rd_ok(&r) || magic != LG_WIRE_MAGIC || h.len < LG_WIRE_HEADER || h.len > LG_WIRE_FRAME_MAX)
        return -EPROTO;
    *ret = h;
    return 0;
}

static struct lg_wr frame_start(uint8_t *buf, size_t cap, unsigned type, uint64_t id)
{
    struct lg_wr w = lg_wr(buf, cap < LG_WIRE_FRAME_MAX ? cap : LG_WIRE_FRAME_MAX);
    lg_wr_u32(&w, 0);
    lg_wr_u32(&w, LG_WIRE_MAGIC);
    lg_wr_u16(&w, LG_WIRE_VERSION);
    lg_wr_u16(&w, (uint16_t)type);
    lg_wr_u64(&w, id);
    return w;
}

static int frame_end(struct lg_wr *w, size_t *ret_len)
{
    if (w->bad)
        return -ENOSPC;
    struct lg_wr head = lg_wr(w->start, 4);
    lg_wr_u32(&head, (uint32_t)w->len);
    *ret_len = w->len;
    return 0;
}

/* A cursor on the body of a whole frame of our version. */
static int frame_open(const uint8_t *frame, size_t len, struct lg_header *h, struct lg_rd *ret)
{
    int e = lg_wire_header(frame, len, h);
    if (e)
        return e;
    if (h->version != LG_WIRE_VERSION)
        return -EPROTONOSUPPORT;
    if (h->len != len)
        return -EPROTO;
    *ret = lg_rd(frame + LG_WIRE_HEADER, len - LG_WIRE_HEADER);
    return 0;
}

static bool rd_bool(struct lg_rd *r)
{
    uint8_t v = lg_rd_u8(r);
    if (v > 1)
        r->bad = true;
    return v == 1;
}

static void wr_info(struct lg_wr *w, const struct lg_study_info *i)
{
    lg_wr_str(w, i->uid);
    lg_wr_str(w, i->patient_id);
    lg_wr_str(w, i->accession);
    lg_wr_str(w, i->date);
    lg_wr_str(w, i->modality);
}
static void rd_info(struct lg_rd *r, struct lg_study_info *i)
{
    lg_rd_str(r, i->uid, LG_UID_MAX);
    lg_rd_str(r, i->patient_id, LG_PATIENT_ID_MAX);
    lg_rd_str(r, i->accession, LG_ACCESSION_MAX);
    lg_rd_str(r, i->date, LG_DATE_MAX);
    lg_rd_str(r, i->modality, LG_MODALITY_MAX);
}

int lg_request_encode(const struct lg_request *q, uint8_t *buf, size_t cap, size_t *ret_len)
{
    if (!known(q->type) || q->pass_len > (fields[q->type].request & R_ACT ? LG_WIRE_ACT_MAX : LG_WIRE_PASS_MAX))
        return -EINVAL;
    unsigned f = fields[q->type].request;
    struct lg_wr w = frame_start(buf, cap < LG_WIRE_REQUEST_MAX ? cap : LG_WIRE_REQUEST_MAX, q->type, q->id);
    if (f & (R_PASS | R_ACT)) {
        lg_wr_u16(&w, (uint16_t)q->pass_len);
        lg_wr_bytes(&w, q->pass, q->pass_len);
    }
    if (f & R_VAULT)
        lg_wr_bytes(&w, q->vault_id, LG_ID_LEN);
    if (f & R_KID)
        lg_wr_bytes(&w, q->kid, LG_ID_LEN);
    if (f & R_VERSION)
        lg_wr_u32(&w, q->version);
    if (f & R_SESSION)
        lg_wr_u64(&w, q->session);
    if (f & R_UID)
        lg_wr_str(&w, q->uid);
    if (f & R_REASON)
        lg_wr_str(&w, q->reason);
    if (f & R_MOUNTPOINT) {
        lg_wr_str(&w, q->mountpoint);
        if (q->unlogged) /* older programs say nothing here, and older key managers expect nothing */
            lg_wr_u8(&w, 1);
    }
    if (f & R_INFO)
        wr_info(&w, &q->info);
    if (f & R_NOW)
        lg_wr_u8(&w, q->now);
    if (f & R_AFTER)
        lg_wr_u8(&w, q->has_after);
    if (f & R_HEAD)
        lg_wr_str(&w, q->head);
    if (f & R_EVENT) {
        lg_wr_u64(&w, q->event);
        lg_wr_u32(&w, (uint32_t)q->event_result);
    }
    if (f & R_SLOT) {
        lg_wr_u8(&w, q->slot_type);
        lg_wr_str(&w, q->slot_name);
    }
    return frame_end(&w, ret_len);
}

int lg_request_decode(const uint8_t *frame, size_t len, struct lg_request *ret)
{
    struct lg_header h;
    struct lg_rd r;
    int e = frame_open(frame, len, &h, &r);
    if (e)
        return e;
    if (!known(h.type))
        return -EPROTONOSUPPORT;
    unsigned f = fields[h.type].request;
    struct lg_request q = { .type = h.type, .id = h.id };
    if (f & (R_PASS | R_ACT)) {
        q.pass_len = lg_rd_u16(&r);
        if (q.pass_len > (f & R_ACT ? LG_WIRE_ACT_MAX : LG_WIRE_PASS_MAX))
            return -EPROTO;
        q.pass = lg_rd_bytes(&r, q.pass_len);
    }
    if (f & R_VAULT)
        lg_rd_copy(&r, q.vault_id, LG_ID_LEN);
    if (f & R_KID)
        lg_rd_copy(&r, q.kid, LG_ID_LEN);
    if (f & R_VERSION)
        q.version = lg_rd_u32(&r);
    if (f & R_SESSION)
        q.session = lg_rd_u64(&r);
    if (f & R_UID)
        lg_rd_str(&r, q.uid, LG_UID_MAX);
    if (f & R_REASON)
        lg_rd_str(&r, q.reason, LG_REASON_MAX);
    if (f & R_MOUNTPOINT) {
        lg_rd_str(&r, q.mountpoint, LG_WIRE_MOUNTPOINT_MAX);
        q.unlogged = lg_rd_ok(&r) && r.left == 1 && *r.p == 1 && lg_rd_u8(&r) == 1;
    }
    if (f & R_INFO)
        rd_info(&r, &q.info);
    if (f & R_NOW)
        q.now = rd_bool(&r);
    if (f & R_AFTER)
        q.has_after = rd_bool(&r);
    if (f & R_HEAD)
        lg_rd_str(&r, q.head, LG_HEAD_TEXT_MAX);
    if (f & R_EVENT) {
        q.event = lg_rd_u64(&r);
        q.event_result = (int32_t)lg_rd_u32(&r);
    }
    if (f & R_SLOT) {
        q.slot_type = lg_rd_u8(&r);
        lg_rd_str(&r, q.slot_name, LG_SLOT_NAME_MAX);
    }
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = q;
    return 0;
}

static void wr_study(struct lg_wr *w, const struct lg_study *s)
{
    wr_info(w, &s->info);
    lg_wr_bytes(w, s->kid, LG_ID_LEN);
    lg_wr_u8(w, (uint8_t)s->state);
    lg_wr_u32(w, s->version);
    lg_wr_u64(w, s->created);
    lg_wr_u64(w, s->changed);
    lg_wr_u32(w, s->changed_by);
    lg_wr_str(w, s->reason);
    lg_wr_u8(w, s->held);
    lg_wr_bytes(w, s->hold, LG_ID_LEN);
    lg_wr_bytes(w, s->act, LG_ID_LEN);
    lg_wr_u64(w, s->retain_until);
    lg_wr_u8(w, (uint8_t)s->rule);
    lg_wr_u64(w, s->due);
    lg_wr_u8(w, s->unconfirmed);
    lg_wr_u64(w, s->outstanding);
}
static enum lg_key_state rd_state(struct lg_rd *r)
{
    uint8_t v = lg_rd_u8(r);
    if (v < LG_KEY_ACTIVE || v > LG_KEY_RESTORED)
        r->bad = true;
    return (enum lg_key_state)v;
}
static void rd_study(struct lg_rd *r, struct lg_study *s)
{
    rd_info(r, &s->info);
    lg_rd_copy(r, s->kid, LG_ID_LEN);
    s->state = rd_state(r);
    s->version = lg_rd_u32(r);
    s->created = lg_rd_u64(r);
    s->changed = lg_rd_u64(r);
    s->changed_by = lg_rd_u32(r);
    lg_rd_str(r, s->reason, LG_REASON_MAX);
    s->held = rd_bool(r);
    lg_rd_copy(r, s->hold, LG_ID_LEN);
    lg_rd_copy(r, s->act, LG_ID_LEN);
    s->retain_until = lg_rd_u64(r);
    s->rule = lg_rd_u8(r);
    s->due = lg_rd_u64(r);
    s->unconfirmed = rd_bool(r);
    s->outstanding = lg_rd_u64(r);
}

static void wr_key(struct lg_wr *w, const struct lg_key *k)
{
    lg_wr_bytes(w, k->kid, LG_ID_LEN);
    lg_wr_u32(w, k->version);
    lg_wr_u8(w, (uint8_t)k->kind);
    lg_wr_u8(w, (uint8_t)k->state);
    if (k->key)
        lg_wr_bytes(w, k->key->b, LG_KEY_LEN);
    else
        w->bad = true;
}
static int rd_key(struct lg_rd *r, struct lg_key *k)
{
    k->key = lg_secret_new();
    if (!k->key)
        return -ENOMEM;
    lg_rd_copy(r, k->kid, LG_ID_LEN);
    k->version = lg_rd_u32(r);
    uint8_t kind = lg_rd_u8(r);
    if (kind < LG_KIND_STUDY || kind > LG_KIND_VAULT)
        r->bad = true;
    k->kind = (enum lg_key_kind)kind;
    k->state = rd_state(r);
    lg_rd_copy(r, k->key->b, LG_KEY_LEN);
    return 0;
}

static void wr_slot(struct lg_wr *w, const struct lg_slot_info *s)
{
    lg_wr_u8(w, (uint8_t)s->number);
    lg_wr_u8(w, (uint8_t)s->type);
    lg_wr_str(w, s->name);
    lg_wr_u64(w, s->created);
    lg_wr_u64(w, s->proved);
}
static void rd_slot(struct lg_rd *r, struct lg_slot_info *s)
{
    s->number = lg_rd_u8(r);
    uint8_t type = lg_rd_u8(r);
    if (type < LG_SLOT_PASSPHRASE || type > LG_SLOT_TPM)
        r->bad = true;
    s->type = (enum lg_slot_type)type;
    lg_rd_str(r, s->name, LG_SLOT_NAME_MAX);
    s->created = lg_rd_u64(r);
    s->proved = lg_rd_u64(r);
}

static void wr_unconfirmed(struct lg_wr *w, const struct lg_unconfirmed_mount *m)
{
    lg_wr_bytes(w, m->vault_id, LG_ID_LEN);
    lg_wr_u64(w, m->away);
    lg_wr_u64(w, m->latest);
    lg_wr_str(w, m->mountpoint);
}
static void rd_unconfirmed(struct lg_rd *r, struct lg_unconfirmed_mount *m)
{
    lg_rd_copy(r, m->vault_id, LG_ID_LEN);
    m->away = lg_rd_u64(r);
    m->latest = lg_rd_u64(r);
    lg_rd_str(r, m->mountpoint, LG_WIRE_MOUNTPOINT_MAX);
}

static void wr_keyd(struct lg_wr *w, const struct lg_keyd_status *s)
{
    lg_wr_u8(w, s->unlocked);
    lg_wr_str(w, s->version);
    lg_wr_u32(w, s->pid);
    lg_wr_u64(w, s->uptime_s);
    lg_wr_bytes(w, s->keyring.keyring_id, LG_ID_LEN);
    lg_wr_u64(w, s->keyring.epoch);
    lg_wr_u64(w, s->keyring.generation);
    lg_wr_u64(w, s->keyring.studies);
    lg_wr_u64(w, s->keyring.destroyed);
    lg_wr_u64(w, s->keyring.vaults);
    lg_wr_u64(w, s->keyring.file_bytes);
    lg_wr_str(w, s->keyring_dir);
    lg_wr_str(w, s->slot_path);
    lg_wr_u8(w, s->memory_unlocked);
    lg_wr_u32(w, s->officers);
    lg_wr_u8(w, s->officer_mode);
    lg_wr_u8(w, s->frozen);
    lg_wr_u32(w, s->n_mounts);
    for (unsigned i = 0; i < s->n_mounts && i < LG_WIRE_MOUNTS_MAX; i++) {
        lg_wr_bytes(w, s->mounts[i].vault_id, LG_ID_LEN);
        lg_wr_u64(w, s->mounts[i].session);
        lg_wr_u32(w, s->mounts[i].pid);
        lg_wr_u64(w, s->mounts[i].away);
        lg_wr_str(w, s->mounts[i].mountpoint);
    }
    lg_wr_str(w, s->mirror_dir);
    lg_wr_u8(w, (uint8_t)s->keyring.stale);
    lg_wr_u64(w, s->keyring.backup);
    lg_wr_u64(w, s->keyring.uncovered);
    lg_wr_u8(w, s->keyring.restored);
    lg_wr_u32(w, s->anchor_nv);
    lg_wr_u64(w, s->keyring.commits);
    lg_wr_u8(w, s->keyring.rolled);
    lg_wr_u64(w, s->keyring.uncovered_others);
    lg_wr_u64(w, s->reaps_due);
    lg_wr_u64(w, s->reaps_waiting);
}
static void rd_keyd(struct lg_rd *r, struct lg_keyd_status *s)
{
    s->unlocked = rd_bool(r);
    lg_rd_str(r, s->version, sizeof s->version - 1);
    s->pid = lg_rd_u32(r);
    s->uptime_s = lg_rd_u64(r);
    lg_rd_copy(r, s->keyring.keyring_id, LG_ID_LEN);
    s->keyring.epoch = lg_rd_u64(r);
    s->keyring.generation = lg_rd_u64(r);
    s->keyring.studies = lg_rd_u64(r);
    s->keyring.destroyed = lg_rd_u64(r);
    s->keyring.vaults = lg_rd_u64(r);
    s->keyring.file_bytes = lg_rd_u64(r);
    lg_rd_str(r, s->keyring_dir, LG_WIRE_PATH_MAX);
    lg_rd_str(r, s->slot_path, LG_WIRE_PATH_MAX);
    s->memory_unlocked = rd_bool(r);
    s->officers = lg_rd_u32(r);
    s->officer_mode = rd_bool(r);
    s->frozen = lg_rd_u8(r);
    uint32_t n = lg_rd_u32(r);
    if (n > LG_WIRE_MOUNTS_MAX) {
        r->bad = true;
        return;
    }
    s->n_mounts = n;
    for (unsigned i = 0; i < n && !r->bad; i++) {
        lg_rd_copy(r, s->mounts[i].vault_id, LG_ID_LEN);
        s->mounts[i].session = lg_rd_u64(r);
        s->mounts[i].pid = lg_rd_u32(r);
        s->mounts[i].away = lg_rd_u64(r);
        lg_rd_str(r, s->mounts[i].mountpoint, LG_WIRE_MOUNTPOINT_MAX);
    }
    lg_rd_str(r, s->mirror_dir, LG_WIRE_PATH_MAX);
    s->keyring.mirrored = s->mirror_dir[0] != 0;
    s->keyring.stale = lg_rd_u8(r);
    if (s->keyring.stale > LG_STALE_MIRROR)
        r->bad = true;
    s->keyring.backup = lg_rd_u64(r);
    s->keyring.uncovered = lg_rd_u64(r);
    s->keyring.restored = rd_bool(r);
    s->anchor_nv = lg_rd_u32(r);
    s->keyring.commits = lg_rd_u64(r);
    s->keyring.rolled = rd_bool(r);
    s->keyring.uncovered_others = lg_rd_u64(r);
    s->reaps_due = lg_rd_u64(r);
    s->reaps_waiting = lg_rd_u64(r);
}

static void wr_audit(struct lg_wr *w, const struct lg_audit_info *i)
{
    lg_wr_str(w, i->dir);
    lg_wr_str(w, i->log);
    lg_wr_bytes(w, i->pub, sizeof i->pub);
    lg_wr_u64(w, i->seq);
    lg_wr_u64(w, i->signed_seq);
    lg_wr_u8(w, i->on);
    lg_wr_u8(w, i->failing);
    lg_wr_u8(w, i->keep_going);
    lg_wr_u32(w, i->used_percent);
}
static void rd_audit(struct lg_rd *r, struct lg_audit_info *i)
{
    lg_rd_str(r, i->dir, LG_WIRE_PATH_MAX);
    lg_rd_str(r, i->log, LG_WIRE_PATH_MAX);
    lg_rd_copy(r, i->pub, sizeof i->pub);
    i->seq = lg_rd_u64(r);
    i->signed_seq = lg_rd_u64(r);
    i->on = rd_bool(r);
    i->failing = rd_bool(r);
    i->keep_going = rd_bool(r);
    i->used_percent = lg_rd_u32(r);
}

int lg_answer_encode(const struct lg_answer *a, uint8_t *buf, size_t cap, size_t *ret_len)
{
    /* A refusal may answer a type that we do not know. */
    unsigned f = a->status == 0 && known(a->type) ? fields[a->type].answer : 0;
    if (a->status > 0 || (a->status == 0 && !known(a->type)))
        return -EINVAL;
    struct lg_wr w = frame_start(buf, cap, a->type | LG_WIRE_ANSWER, a->id);
    lg_wr_u32(&w, (uint32_t)a->status);
    lg_wr_u32(&w, a->wait_s);
    if (f & A_KEYD)
        wr_keyd(&w, a->keyd);
    if (f & A_STATE)
        lg_wr_u8(&w, (uint8_t)a->state);
    if (f & A_UNCONFIRMED) {
        lg_wr_u32(&w, a->unconfirmed->n);
        for (unsigned i = 0; i < a->unconfirmed->n && i < LG_WIRE_MOUNTS_MAX; i++)
            wr_unconfirmed(&w, &a->unconfirmed->mount[i]);
    }
    if (f & A_STUDY)
        wr_study(&w, a->studies);
    if (f & A_STUDIES) {
        lg_wr_u32(&w, a->n_studies);
        for (unsigned i = 0; i < a->n_studies; i++)
            wr_study(&w, &a->studies[i]);
    }
    if (f & A_BLOB) {
        if (a->blob_len > LG_WIRE_BLOB_MAX)
            return -EINVAL;
        lg_wr_u32(&w, (uint32_t)a->blob_len);
        lg_wr_bytes(&w, a->blob, a->blob_len);
    }
    if (f & A_KEYRING)
        lg_wr_bytes(&w, a->keyring_id, LG_ID_LEN);
    if (f & A_KEY)
        wr_key(&w, &a->key[0]);
    if (f & A_KEY2)
        wr_key(&w, &a->key[1]);
    if (f & A_LEASE)
        lg_wr_u32(&w, a->lease_s);
    if (f & A_SESSION)
        lg_wr_u64(&w, a->session);
    if (f & A_HEAD)
        lg_wr_str(&w, a->head);
    if (f & A_HEADS) {
        lg_wr_u32(&w, a->heads->n);
        for (unsigned i = 0; i < a->heads->n && i < LG_AUDIT_HEADS_MAX; i++)
            lg_wr_str(&w, a->heads->head[i]);
    }
    if (f & A_AUDIT)
        wr_audit(&w, a->audit);
    if (f & A_UNCLEAN) {
        lg_wr_u32(&w, a->n_unclean);
        for (unsigned i = 0; i < a->n_unclean; i++)
            lg_wr_u64(&w, a->unclean[i]);
    }
    if (f & A_SLOTS) {
        lg_wr_u32(&w, a->n_slots);
        for (unsigned i = 0; i < a->n_slots; i++)
            wr_slot(&w, &a->slots[i]);
    }
    if (f & A_ROTATED) {
        lg_wr_u32(&w, a->rotated.n);
        lg_wr_u32(&w, a->rotated.full);
        lg_wr_u8(&w, a->rotated.end);
        lg_wr_bytes(&w, a->rotated.last, LG_ID_LEN);
    }
    return frame_end(&w, ret_len);
}

/* The fields of a successful answer. */
static int answer_body(struct lg_rd *r, unsigned f, struct lg_answer *a)
{
    int e = 0;
    if (f & A_KEYD)
        rd_keyd(r, a->keyd);
    if (f & A_STATE)
        a->state = rd_state(r);
    if (f & A_UNCONFIRMED) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_WIRE_MOUNTS_MAX)
            return -EPROTO;
        a->unconfirmed->n = n;
        for (unsigned i = 0; i < n; i++)
            rd_unconfirmed(r, &a->unconfirmed->mount[i]);
    }
    if (f & A_STUDY)
        rd_study(r, a->studies);
    if (f & A_STUDIES) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_WIRE_STUDIES_MAX)
            return -EPROTO;
        a->n_studies = n;
        for (unsigned i = 0; i < n && lg_rd_ok(r); i++)
            rd_study(r, &a->studies[i]);
    }
    if (f & A_BLOB) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_WIRE_BLOB_MAX)
            return -EPROTO;
        const uint8_t *p = lg_rd_bytes(r, n);
        if (!p || !a->blob)
            return -EPROTO;
        memcpy(a->blob, p, n);
        a->blob_len = n;
    }
    if (f & A_KEYRING)
        lg_rd_copy(r, a->keyring_id, LG_ID_LEN);
    if (f & A_KEY)
        e = rd_key(r, &a->key[0]);
    if (!e && (f & A_KEY2))
        e = rd_key(r, &a->key[1]);
    if (e)
        return e;
    if (f & A_LEASE)
        a->lease_s = lg_rd_u32(r);
    if (f & A_SESSION)
        a->session = lg_rd_u64(r);
    if (f & A_HEAD)
        lg_rd_str(r, a->head, LG_HEAD_TEXT_MAX);
    if (f & A_HEADS) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_AUDIT_HEADS_MAX)
            return -EPROTO;
        a->heads->n = n;
        for (unsigned i = 0; i < n && lg_rd_ok(r); i++)
            lg_rd_str(r, a->heads->head[i], LG_HEAD_TEXT_MAX);
    }
    if (f & A_AUDIT)
        rd_audit(r, a->audit);
    if (f & A_UNCLEAN) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_UNCLEAN_MAX)
            return -EPROTO;
        a->n_unclean = n;
        for (unsigned i = 0; i < n; i++)
            a->unclean[i] = lg_rd_u64(r);
    }
    if (f & A_SLOTS) {
        uint32_t n = lg_rd_u32(r);
        if (n > LG_SLOTS_MAX)
            return -EPROTO;
        a->n_slots = n;
        for (unsigned i = 0; i < n; i++)
            rd_slot(r, &a->slots[i]);
    }
    if (f & A_ROTATED) {
        a->rotated.n = lg_rd_u32(r);
        a->rotated.full = lg_rd_u32(r);
        a->rotated.end = rd_bool(r);
        lg_rd_copy(r, a->rotated.last, LG_ID_LEN);
    }
    return lg_rd_done(r) ? 0 : -EPROTO;
}

int lg_answer_decode(const uint8_t *frame, size_t len, struct lg_answer *a)
{
    struct lg_header h;
    struct lg_rd r;
    int e = lg_wire_header(frame, len, &h);
    if (e)
        return e;
    e = frame_open(frame, len, &h, &r);
    if (e)
        return e;
    if (!(h.type & LG_WIRE_ANSWER))
        return -EPROTO;
    a->type = (uint16_t)(h.type & ~LG_WIRE_ANSWER);
    a->id = h.id;
    uint32_t raw = lg_rd_u32(&r);
    a->wait_s = lg_rd_u32(&r);
    /* 4095 is the kernel's largest errno */
    if (!lg_rd_ok(&r) || (raw != 0 && raw < (uint32_t)-4095))
        return -EPROTO;
    a->status = (int32_t)raw;
    if (a->status)
        return lg_rd_done(&r) ? 0 : -EPROTO;
    if (!known(a->type))
        return -EPROTO;
    e = answer_body(&r, fields[a->type].answer, a);
    if (e)
        lg_answer_done(a);
    return e;
}

void lg_answer_done(struct lg_answer *a)
{
    for (unsigned i = 0; i < 2; i++) {
        lg_secret_free(a->key[i].key);
        a->key[i].key = NULL;
    }
}

int lg_event_encode(uint64_t number, const struct lg_event *e, uint8_t *buf, size_t cap, size_t *ret_len)
{
    if (e->n_kids > LG_WIRE_KIDS_MAX)
        return -EINVAL;
    struct lg_wr w = frame_start(buf, cap, LG_MSG_EVENT, number);
    lg_wr_u8(&w, (uint8_t)e->kind);
    lg_wr_u32(&w, e->n_kids);
    for (unsigned i = 0; i < e->n_kids; i++)
        lg_wr_bytes(&w, e->kids[i], LG_ID_LEN);
    return frame_end(&w, ret_len);
}

int lg_event_decode(const uint8_t *frame, size_t len, uint64_t *ret_number, struct lg_event *ret)
{
    struct lg_header h;
    struct lg_rd r;
    int e = frame_open(frame, len, &h, &r);
    if (e)
        return e;
    if (h.type != LG_MSG_EVENT)
        return -EPROTO;
    uint8_t kind = lg_rd_u8(&r);
    uint32_t n = lg_rd_u32(&r);
    /* resync is the watch's own, it never travels */
    if (kind < LG_EVENT_LOCK || kind == LG_EVENT_RESYNC || kind > LG_EVENT_TRIMMED || n > LG_WIRE_KIDS_MAX)
        return -EPROTO;
    const void *p = lg_rd_bytes(&r, (size_t)n * LG_ID_LEN);
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret_number = h.id;
    *ret = (struct lg_event){ .kind = (enum lg_event_kind)kind, .n_kids = n, .kids = p };
    return 0;
}
