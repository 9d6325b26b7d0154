#include "leadglass/client.h"
#include "leadglass/backup.h"
#include "leadglass/manifestsig.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "connect.h"

enum { DEADLINE_MS = 10000, UNLOCK_MS = 60000, REVOKE_MS = 30000 };

struct lg_client {
    char path[108];
    pthread_mutex_t mu;
    int fd;
    uint64_t id;
    uint8_t *frame; /* secret memory: keys and passphrases pass through */
};

int lg_client_default_socket(char *out, size_t cap)
{
    const char *env = getenv("LEADGLASS_SOCKET"), *run = getenv("XDG_RUNTIME_DIR");
    int n;
    if (env && *env)
        n = snprintf(out, cap, "%s", env);
    else if (geteuid() == 0)
        n = snprintf(out, cap, "/run/leadglass/keyd.sock");
    else if (run && *run)
        n = snprintf(out, cap, "%s/leadglass/keyd.sock", run);
    else
        return -ENOENT;
    return n < 0 || (size_t)n >= cap ? -ENAMETOOLONG : 0;
}

int lg_client_new(const char *socket_path, struct lg_client **ret)
{
    struct lg_client *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->fd = -1;
    int rc = 0;
    if (!socket_path)
        rc = lg_client_default_socket(c->path, sizeof c->path);
    else if (strlen(socket_path) >= sizeof c->path)
        rc = -ENAMETOOLONG;
    else
        memcpy(c->path, socket_path, strlen(socket_path) + 1);
    if (!rc && !(c->frame = lg_secret_alloc(LG_WIRE_FRAME_MAX)))
        rc = -ENOMEM;
    if (rc) {
        free(c);
        return rc;
    }
    pthread_mutex_init(&c->mu, NULL);
    *ret = c;
    return 0;
}

void lg_client_free(struct lg_client *c)
{
    if (!c)
        return;
    if (c->fd >= 0)
        close(c->fd);
    lg_secret_dealloc(c->frame);
    pthread_mutex_destroy(&c->mu);
    free(c);
}

static int once(struct lg_client *c, struct lg_request *q, struct lg_answer *a, int64_t deadline)
{
    size_t len;
    int rc = 0;
    if (c->fd < 0) {
        rc = lg_connect(c->path, deadline);
        if (rc < 0)
            return rc;
        c->fd = rc;
    }
    q->id = ++c->id;
    rc = lg_request_encode(q, c->frame, LG_WIRE_FRAME_MAX, &len);
    if (!rc)
        rc = lg_send_frame(c->fd, c->frame, len, deadline);
    if (!rc)
        rc = lg_recv_frame(c->fd, c->frame, LG_WIRE_FRAME_MAX, &len, deadline, -1);
    if (!rc)
        rc = lg_answer_decode(c->frame, len, a);
    if (!rc && (a->id != q->id || a->type != q->type)) {
        lg_answer_done(a);
        rc = -EPROTO;
    }
    lg_wipe(c->frame, len < LG_WIRE_FRAME_MAX ? len : LG_WIRE_FRAME_MAX);
    if (rc) {
        close(c->fd);
        c->fd = -1;
    }
    return rc ? rc : a->status;
}

/* A connection that the key manager's restart has closed is opened anew, once; every request may be sent twice. */
static int call(struct lg_client *c, struct lg_request *q, struct lg_answer *a, int64_t ms)
{
    int64_t deadline = lg_now_ms() + ms;
    pthread_mutex_lock(&c->mu);
    bool had = c->fd >= 0;
    int rc = once(c, q, a, deadline);
    if (had && (rc == -ECONNRESET || rc == -EPIPE))
        rc = once(c, q, a, deadline);
    pthread_mutex_unlock(&c->mu);
    return rc == -EPIPE ? -ECONNRESET : rc;
}

int lg_client_status(struct lg_client *c, struct lg_keyd_status *ret)
{
    struct lg_request q = { .type = LG_MSG_STATUS };
    struct lg_answer a = { .keyd = ret };
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_unlock(struct lg_client *c, const void *pass, size_t pass_len, unsigned *ret_wait_s)
{
    struct lg_request q = { .type = LG_MSG_UNLOCK, .pass = pass, .pass_len = pass_len };
    struct lg_answer a = { 0 };
    int rc = call(c, &q, &a, UNLOCK_MS);
    *ret_wait_s = a.wait_s;
    return rc;
}

int lg_client_lock(struct lg_client *c, struct lg_unconfirmed *ret)
{
    struct lg_request q = { .type = LG_MSG_LOCK };
    struct lg_answer a = { .unconfirmed = ret };
    return call(c, &q, &a, REVOKE_MS);
}

static void set_str(char *out, size_t cap, const char *s) { snprintf(out, cap, "%s", s); }

int lg_client_study_revoke(struct lg_client *c, const char *uid, const char *reason, bool now, enum lg_key_state *ret_state, struct lg_unconfirmed *ret)
{
    struct lg_request q = { .type = LG_MSG_REVOKE, .now = now };
    struct lg_answer a = { .unconfirmed = ret };
    if (strlen(uid) > LG_UID_MAX || strlen(reason) > LG_REASON_MAX)
        return -E2BIG;
    set_str(q.uid, sizeof q.uid, uid);
    set_str(q.reason, sizeof q.reason, reason);
    int rc = call(c, &q, &a, REVOKE_MS);
    if (!rc)
        *ret_state = a.state;
    return rc;
}

int lg_client_study_show(struct lg_client *c, const char *uid, struct lg_study *ret)
{
    struct lg_request q = { .type = LG_MSG_STUDY_SHOW };
    struct lg_answer a = { .studies = ret };
    if (strlen(uid) > LG_UID_MAX)
        return -ENOENT;
    set_str(q.uid, sizeof q.uid, uid);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_study_by_kid(struct lg_client *c, const uint8_t kid[LG_ID_LEN], struct lg_study *ret)
{
    struct lg_request q = { .type = LG_MSG_STUDY_LIST, .has_after = true };
    struct lg_study *s = calloc(LG_WIRE_STUDIES_MAX, sizeof *s);
    struct lg_answer a = { .studies = s };
    memcpy(q.kid, kid, LG_ID_LEN);
    unsigned i = LG_ID_LEN;
    while (i && q.kid[--i]-- == 0) /* begin behind the id before it; of the id of zeros, which is none, behind the last */
        ;
    int rc = s ? call(c, &q, &a, DEADLINE_MS) : -ENOMEM;
    if (!rc && (!a.n_studies || memcmp(s[0].kid, kid, LG_ID_LEN) != 0))
        rc = -ENOENT;
    if (!rc)
        *ret = s[0];
    free(s);
    return rc;
}

int lg_client_study_list(struct lg_client *c, int (*each)(void *arg, const struct lg_study *s), void *arg)
{
    struct lg_request q = { .type = LG_MSG_STUDY_LIST };
    struct lg_study *s = calloc(LG_WIRE_STUDIES_MAX, sizeof *s);
    int rc = s ? 0 : -ENOMEM;
    while (!rc) {
        struct lg_answer a = { .studies = s };
        rc = call(c, &q, &a, DEADLINE_MS);
        for (unsigned i = 0; !rc && i < a.n_studies; i++)
            rc = each(arg, &s[i]);
        if (rc || !a.n_studies)
            break;
        memcpy(q.kid, s[a.n_studies - 1].kid, LG_ID_LEN);
        q.has_after = true;
    }
    free(s);
    return rc;
}

/* ---- slots and rotation ------------------------------------------------------------------------------------------------------------------ */

static int slot_call(struct lg_client *c, uint16_t type, enum lg_slot_type slot_type, const char *name, const void *secret, size_t len, unsigned *ret_wait_s)
{
    struct lg_request q = { .type = type, .pass = secret, .pass_len = len, .slot_type = (uint8_t)slot_type };
    struct lg_answer a = { 0 };
    if (strlen(name) > LG_SLOT_NAME_MAX)
        return -EINVAL;
    set_str(q.slot_name, sizeof q.slot_name, name);
    int rc = call(c, &q, &a, UNLOCK_MS);
    if (ret_wait_s)
        *ret_wait_s = a.wait_s;
    return rc;
}

int lg_client_unlock_key(struct lg_client *c, const uint8_t digest[32], unsigned *ret_wait_s)
{
    return slot_call(c, LG_MSG_UNLOCK_KEY, LG_SLOT_KEY_FILE, "", digest, 32, ret_wait_s);
}
int lg_client_unlock_tpm(struct lg_client *c)
{
    struct lg_request q = { .type = LG_MSG_UNLOCK_TPM };
    struct lg_answer a = { 0 };
    return call(c, &q, &a, UNLOCK_MS);
}
int lg_client_tpm(struct lg_client *c)
{
    struct lg_request q = { .type = LG_MSG_TPM };
    struct lg_answer a = { 0 };
    return call(c, &q, &a, UNLOCK_MS);
}
int lg_client_slot_anchor(struct lg_client *c, bool on, const uint8_t *act)
{
    struct lg_request q = { .type = LG_MSG_SLOT_ANCHOR, .now = on };
    if (act)
        memcpy(q.vault_id, act, LG_ID_LEN);
    struct lg_answer a = { 0 };
    return call(c, &q, &a, UNLOCK_MS);
}
int lg_client_slot_add(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len)
{
    return slot_call(c, LG_MSG_SLOT_ADD, type, name, secret, len, NULL);
}
int lg_client_slot_change(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len)
{
    return slot_call(c, LG_MSG_SLOT_CHANGE, type, name, secret, len, NULL);
}
int lg_client_slot_remove(struct lg_client *c, const char *name) { return slot_call(c, LG_MSG_SLOT_REMOVE, 0, name, NULL, 0, NULL); }
int lg_client_slot_test(struct lg_client *c, enum lg_slot_type type, const char *name, const void *secret, size_t len, unsigned *ret_wait_s)
{
    return slot_call(c, LG_MSG_SLOT_TEST, type, name, secret, len, ret_wait_s);
}

int lg_client_slot_list(struct lg_client *c, struct lg_slot_info ret[LG_SLOTS_MAX], unsigned *ret_n)
{
    struct lg_request q = { .type = LG_MSG_SLOT_LIST };
    struct lg_answer a = { .slots = ret };
    int rc = call(c, &q, &a, DEADLINE_MS);
    if (!rc)
        *ret_n = a.n_slots;
    return rc;
}

int lg_client_rotate_root(struct lg_client *c)
{
    struct lg_request q = { .type = LG_MSG_ROTATE_ROOT };
    struct lg_answer a = { 0 };
    return call(c, &q, &a, UNLOCK_MS);
}

int lg_client_rotate_study(struct lg_client *c, const char *uid)
{
    struct lg_request q = { .type = LG_MSG_ROTATE_STUDY };
    struct lg_answer a = { 0 };
    if (strlen(uid) > LG_UID_MAX)
        return -ENOENT;
    set_str(q.uid, sizeof q.uid, uid);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_rotate_studies(struct lg_client *c, const uint8_t *after, struct lg_rotated *ret)
{
    struct lg_request q = { .type = LG_MSG_ROTATE_STUDIES, .has_after = after != NULL };
    struct lg_answer a = { 0 };
    if (after)
        memcpy(q.kid, after, LG_ID_LEN);
    int rc = call(c, &q, &a, DEADLINE_MS);
    if (!rc)
        *ret = a.rotated;
    return rc;
}

/* ---- officers --------------------------------------------------------------------------------------------------------------------------------- */

/* An answer that is a blob; decode gets its bytes. */
static int blob_call(struct lg_client *c, struct lg_request *q, struct lg_unconfirmed *u, int64_t ms, int (*decode)(void *arg, const uint8_t *p, size_t len), void *arg)
{
    struct lg_answer a = { .unconfirmed = u, .blob = malloc(LG_WIRE_BLOB_MAX) };
    int rc = a.blob ? call(c, q, &a, ms) : -ENOMEM;
    if (!rc)
        rc = decode(arg, a.blob, a.blob_len);
    free(a.blob);
    return rc;
}

static int to_governance(void *arg, const uint8_t *p, size_t len) { return lg_governance_decode(p, len, arg); }
static int to_record(void *arg, const uint8_t *p, size_t len) { return lg_act_record_decode(p, len, arg); }

int lg_client_governance(struct lg_client *c, struct lg_governance *ret)
{
    struct lg_request q = { .type = LG_MSG_GOVERNANCE };
    return blob_call(c, &q, NULL, DEADLINE_MS, to_governance, ret);
}

int lg_client_act_submit(struct lg_client *c, const uint8_t *doc, size_t len, const uint8_t *sig, struct lg_act_record *ret, struct lg_unconfirmed *ret_u)
{
    uint8_t b[LG_WIRE_ACT_MAX];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u8(&w, sig != NULL);
    lg_wr_u16(&w, (uint16_t)len);
    lg_wr_bytes(&w, doc, len);
    lg_wr_bytes(&w, sig ? sig : doc, sig ? LG_SIGN_LEN : 0);
    struct lg_request q = { .type = LG_MSG_ACT_SUBMIT, .pass = b, .pass_len = w.len };
    return w.bad ? -EINVAL : blob_call(c, &q, ret_u, REVOKE_MS, to_record, ret);
}

int lg_client_act_approve(struct lg_client *c, const uint8_t id[LG_ID_LEN], const uint8_t pub[LG_SIGN_PUB_LEN], const uint8_t sig[LG_SIGN_LEN], struct lg_act_record *ret,
                          struct lg_unconfirmed *ret_u)
{
    uint8_t b[LG_SIGN_PUB_LEN + LG_SIGN_LEN];
    memcpy(b, pub, LG_SIGN_PUB_LEN);
    memcpy(b + LG_SIGN_PUB_LEN, sig, LG_SIGN_LEN);
    struct lg_request q = { .type = LG_MSG_ACT_APPROVE, .pass = b, .pass_len = sizeof b };
    memcpy(q.kid, id, LG_ID_LEN);
    return blob_call(c, &q, ret_u, REVOKE_MS, to_record, ret);
}

int lg_client_act_get(struct lg_client *c, const uint8_t id[LG_ID_LEN], struct lg_act_record *ret)
{
    struct lg_request q = { .type = LG_MSG_ACT_GET };
    memcpy(q.kid, id, LG_ID_LEN);
    return blob_call(c, &q, NULL, DEADLINE_MS, to_record, ret);
}

struct pairs {
    int (*each)(void *arg, const struct lg_kid_pair *p);
    void *arg;
    bool end, any;
    struct lg_kid_pair last;
};

static int to_pairs(void *arg, const uint8_t *p, size_t len)
{
    struct pairs *x = arg;
    struct lg_rd r = lg_rd(p, len);
    int rc = 0;
    x->end = lg_rd_u8(&r) != 0;
    x->any = false;
    while (!rc && r.left && lg_rd_ok(&r)) {
        lg_rd_copy(&r, x->last.study, LG_ID_LEN);
        lg_rd_copy(&r, x->last.kid, LG_ID_LEN);
        rc = lg_rd_ok(&r) ? x->each(x->arg, &x->last) : -EPROTO;
        x->any = true;
    }
    return rc ? rc : lg_rd_done(&r) && (x->end || x->any) ? 0 : -EPROTO;
}

int lg_client_destroyed_kids(struct lg_client *c, const char *uid, int (*each)(void *arg, const struct lg_kid_pair *p), void *arg)
{
    struct lg_request q = { .type = LG_MSG_KIDS };
    struct pairs x = { .each = each, .arg = arg };
    uint8_t after[2 * LG_ID_LEN];
    int rc = 0;
    if (strlen(uid) > LG_UID_MAX)
        return -ENOENT;
    set_str(q.uid, sizeof q.uid, uid);
    while (!rc && !x.end) {
        rc = blob_call(c, &q, NULL, DEADLINE_MS, to_pairs, &x);
        memcpy(after, x.last.study, LG_ID_LEN);
        memcpy(after + LG_ID_LEN, x.last.kid, LG_ID_LEN);
        q.pass = after;
        q.pass_len = sizeof after;
    }
    return rc;
}

static int to_reaped(void *arg, const uint8_t *p, size_t len)
{
    struct lg_reaped *x = arg;
    struct lg_rd r = lg_rd(p, len);
    x->files = lg_rd_u64(&r);
    x->bytes = lg_rd_u64(&r);
    x->counted = lg_rd_u64(&r);
    x->removed = lg_rd_u64(&r);
    return lg_rd_done(&r) ? 0 : -EPROTO;
}

int lg_client_reaped(struct lg_client *c, const uint8_t kid[LG_ID_LEN], const uint8_t vault[LG_ID_LEN], uint64_t files, uint64_t bytes, bool removed, struct lg_reaped *ret)
{
    uint8_t b[16];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, files);
    lg_wr_u64(&w, bytes);
    struct lg_request q = { .type = LG_MSG_REAPED, .pass = b, .pass_len = w.len, .now = removed };
    memcpy(q.kid, kid, LG_ID_LEN);
    memcpy(q.vault_id, vault, LG_ID_LEN);
    return blob_call(c, &q, NULL, DEADLINE_MS, to_reaped, ret);
}

struct acts {
    int (*each)(void *arg, const struct lg_act_record *r);
    void *arg;
    bool end;
    uint8_t last[LG_ID_LEN];
};

static int to_acts(void *arg, const uint8_t *p, size_t len)
{
    struct acts *x = arg;
    struct lg_rd r = lg_rd(p, len);
    struct lg_act_record one;
    int rc = 0;
    x->end = lg_rd_u8(&r) != 0;
    lg_rd_copy(&r, x->last, LG_ID_LEN);
    unsigned n = lg_rd_u16(&r);
    for (unsigned i = 0; !rc && i < n; i++) {
        size_t m = lg_rd_u16(&r);
        const uint8_t *b = lg_rd_bytes(&r, m);
        rc = b ? lg_act_record_decode(b, m, &one) : -EPROTO;
        if (!rc)
            rc = x->each(x->arg, &one);
    }
    return rc ? rc : lg_rd_done(&r) ? 0 : -EPROTO;
}

int lg_client_act_list(struct lg_client *c, bool open, int (*each)(void *arg, const struct lg_act_record *r), void *arg)
{
    struct lg_request q = { .type = LG_MSG_ACT_LIST, .now = open };
    struct acts x = { .each = each, .arg = arg };
    int rc = 0;
    while (!rc && !x.end) {
        rc = blob_call(c, &q, NULL, DEADLINE_MS, to_acts, &x);
        memcpy(q.kid, x.last, LG_ID_LEN);
        q.has_after = true;
    }
    return rc;
}

struct cert {
    uint8_t *doc, *sig;
    size_t *len;
};

static int to_cert(void *arg, const uint8_t *p, size_t len)
{
    struct cert *x = arg;
    struct lg_rd r = lg_rd(p, len);
    size_t n = lg_rd_u16(&r);
    const uint8_t *doc = lg_rd_bytes(&r, n), *sig = lg_rd_bytes(&r, LG_SIGN_LEN);
    if (!lg_rd_done(&r) || n > LG_CERT_MAX)
        return -EPROTO;
    memcpy(x->doc, doc, n);
    memcpy(x->sig, sig, LG_SIGN_LEN);
    *x->len = n;
    return 0;
}

int lg_client_certificate(struct lg_client *c, const char *uid, uint8_t *ret_doc, size_t *ret_len, uint8_t ret_sig[LG_SIGN_LEN])
{
    struct lg_request q = { .type = LG_MSG_CERTIFICATE };
    struct cert x = { ret_doc, ret_sig, ret_len };
    if (strlen(uid) > LG_UID_MAX)
        return -ENOENT;
    set_str(q.uid, sizeof q.uid, uid);
    return blob_call(c, &q, NULL, REVOKE_MS, to_cert, &x);
}

/* ---- backups ------------------------------------------------------------------------------------------------------------------------------------ */

struct bytes {
    uint8_t *p;
    size_t cap, len;
};
static int to_bytes(void *arg, const uint8_t *p, size_t len)
{
    struct bytes *b = arg;
    if (len > b->cap)
        return -EPROTO;
    memcpy(b->p, p, len);
    b->len = len;
    return 0;
}

int lg_client_backup_begin(struct lg_client *c, const struct lg_secret *key, const char *name, uint8_t ret_id[LG_ID_LEN])
{
    struct lg_request q = { .type = LG_MSG_BACKUP_BEGIN, .pass = key->b, .pass_len = LG_KEY_LEN };
    struct bytes b = { ret_id, LG_ID_LEN, 0 };
    set_str(q.reason, sizeof q.reason, name);
    int rc = blob_call(c, &q, NULL, DEADLINE_MS, to_bytes, &b);
    return rc ? rc : b.len == LG_ID_LEN ? 0 : -EPROTO;
}

int lg_client_backup_next(struct lg_client *c, uint8_t *buf, size_t cap, size_t *ret_len, bool *ret_end)
{
    struct lg_request q = { .type = LG_MSG_BACKUP_NEXT };
    struct bytes b = { malloc(cap + 1), cap + 1, 0 };
    int rc = b.p ? blob_call(c, &q, NULL, DEADLINE_MS, to_bytes, &b) : -ENOMEM;
    if (!rc && b.len < 2)
        rc = -EPROTO;
    if (!rc) {
        memcpy(buf, b.p + 1, b.len - 1);
        *ret_len = b.len - 1;
        *ret_end = b.p[0] != 0;
    }
    free(b.p);
    return rc;
}

static int id_call(struct lg_client *c, uint16_t type, const uint8_t *id, const uint8_t *act)
{
    struct lg_request q = { .type = type };
    struct lg_answer a = { 0 };
    if (id)
        memcpy(q.kid, id, LG_ID_LEN);
    if (act)
        memcpy(q.vault_id, act, LG_ID_LEN);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_backup_done(struct lg_client *c, const uint8_t id[LG_ID_LEN]) { return id_call(c, LG_MSG_BACKUP_DONE, id, NULL); }
int lg_client_backup_void(struct lg_client *c, const uint8_t id[LG_ID_LEN], const uint8_t *act) { return id_call(c, LG_MSG_BACKUP_VOID, id, act); }
int lg_client_restore_confirm(struct lg_client *c, const uint8_t *act) { return id_call(c, LG_MSG_RESTORE_CONFIRM, NULL, act); }

static int to_backups(void *arg, const uint8_t *p, size_t len)
{
    struct lg_backups *l = arg;
    struct lg_rd r = lg_rd(p, len);
    l->restored = lg_rd_u64(&r);
    l->restored_from = lg_rd_u64(&r);
    uint32_t n = lg_rd_u32(&r);
    if (!lg_rd_ok(&r) || n > len || n > UINT32_MAX - l->n)
        return -EPROTO;
    struct lg_backup_entry *all = n ? reallocarray(l->e, (size_t)l->n + n, sizeof *all) : l->e;
    if (n && !all)
        return -ENOMEM;
    l->e = all;
    for (; n; n--) {
        struct lg_backup_entry *e = &all[l->n++];
        *e = (struct lg_backup_entry){ 0 };
        lg_rd_copy(&r, e->id, LG_ID_LEN);
        e->created = lg_rd_u64(&r);
        e->voided = lg_rd_u64(&r);
        e->keys = lg_rd_u64(&r);
        lg_rd_str(&r, e->name, LG_BACKUP_NAME_MAX);
        e->bytes = lg_rd_u64(&r);
        e->whole = lg_rd_u8(&r) != 0;
    }
    return lg_rd_done(&r) ? 0 : -EPROTO;
}

int lg_client_backup_list(struct lg_client *c, struct lg_backups *ret)
{
    struct lg_backups l = { 0 };
    unsigned before;
    int rc;
    do {
        struct lg_request q = { .type = LG_MSG_BACKUP_LIST, .has_after = l.n != 0 };
        before = l.n;
        if (l.n)
            memcpy(q.kid, l.e[l.n - 1].id, LG_ID_LEN);
        rc = blob_call(c, &q, NULL, DEADLINE_MS, to_backups, &l);
    } while (!rc && l.n > before);
    if (rc)
        free(l.e);
    else
        *ret = l;
    return rc;
}

/* ---- for leadglass-fs --------------------------------------------------------------------------------------------------------------------- */

static int vault_keys(struct lg_client *c, uint16_t type, const uint8_t vault_id[LG_ID_LEN], uint8_t ret_keyring_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    struct lg_request q = { .type = type };
    struct lg_answer a = { 0 };
    memcpy(q.vault_id, vault_id, LG_ID_LEN);
    int rc = call(c, &q, &a, DEADLINE_MS);
    if (rc)
        return rc;
    memcpy(ret_keyring_id, a.keyring_id, LG_ID_LEN);
    *v = a.key[0];
    *g = a.key[1];
    return 0;
}

int lg_client_vault_add(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], uint8_t ret_keyring_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general)
{
    return vault_keys(c, LG_MSG_VAULT_ADD, vault_id, ret_keyring_id, ret_vault, ret_general);
}

struct anchor_out {
    uint8_t *p;
    size_t len;
};
static int to_anchor(void *arg, const uint8_t *p, size_t len)
{
    struct anchor_out *o = arg;
    if (len > LG_VAULT_ANCHOR_LEN)
        return -EPROTO;
    memcpy(o->p, p, len);
    o->len = len;
    return 0;
}

int lg_client_anchor(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], const uint8_t *anchor, size_t len, bool want, uint8_t ret[LG_VAULT_ANCHOR_LEN], size_t *ret_len)
{
    struct lg_request q = { .type = LG_MSG_ANCHOR, .pass = anchor, .pass_len = len, .now = want };
    struct anchor_out o = { ret, 0 };
    memcpy(q.vault_id, vault_id, LG_ID_LEN);
    int rc = blob_call(c, &q, NULL, DEADLINE_MS, to_anchor, &o);
    if (!rc)
        *ret_len = o.len;
    return rc;
}

int lg_client_vault_get(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], uint8_t ret_keyring_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general)
{
    return vault_keys(c, LG_MSG_VAULT_GET, vault_id, ret_keyring_id, ret_vault, ret_general);
}

static int one_key(struct lg_client *c, struct lg_request *q, struct lg_key *ret, unsigned *ret_lease_s)
{
    struct lg_answer a = { 0 };
    int rc = call(c, q, &a, DEADLINE_MS);
    if (rc)
        return rc;
    *ret = a.key[0];
    *ret_lease_s = a.lease_s;
    return 0;
}

int lg_client_study_key(struct lg_client *c, const struct lg_study_info *info, struct lg_key *ret, unsigned *ret_lease_s)
{
    struct lg_request q = { .type = LG_MSG_STUDY_KEY, .info = *info };
    return one_key(c, &q, ret, ret_lease_s);
}

int lg_client_key_by_id(struct lg_client *c, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *ret_lease_s)
{
    struct lg_request q = { .type = LG_MSG_KEY_BY_ID, .version = version };
    memcpy(q.kid, kid, LG_ID_LEN);
    return one_key(c, &q, ret, ret_lease_s);
}

int lg_client_trim(struct lg_client *c, const uint8_t act[LG_ID_LEN], bool now, const uint8_t *after, struct lg_rotated *ret, struct lg_unconfirmed *ret_u)
{
    struct lg_request q = { .type = LG_MSG_TRIM, .now = now, .has_after = after != NULL };
    struct lg_answer a = { .unconfirmed = ret_u };
    memcpy(q.vault_id, act, LG_ID_LEN);
    if (after)
        memcpy(q.kid, after, LG_ID_LEN);
    int rc = call(c, &q, &a, REVOKE_MS);
    if (!rc)
        *ret = a.rotated;
    return rc;
}

int lg_client_assign(struct lg_client *c, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now)
{
    struct lg_request q = { .type = LG_MSG_ASSIGN, .pass = file_id, .pass_len = LG_ID_LEN, .now = now };
    struct lg_answer a = { 0 };
    if (act)
        memcpy(q.vault_id, act, LG_ID_LEN);
    memcpy(q.kid, from, LG_ID_LEN);
    set_str(q.uid, sizeof q.uid, uid);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_provisional(struct lg_client *c, struct lg_key *ret, unsigned *ret_lease_s)
{
    struct lg_request q = { .type = LG_MSG_PROVISIONAL };
    return one_key(c, &q, ret, ret_lease_s);
}

int lg_client_attach(struct lg_client *c, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    struct lg_request q = { .type = LG_MSG_ATTACH, .info = *info };
    struct lg_answer a = { 0 };
    memcpy(q.kid, kid, LG_ID_LEN);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_session_begin(struct lg_client *c, const uint8_t vault_id[LG_ID_LEN], const char *mountpoint, bool unlogged, uint64_t *ret_session, uint64_t *ret_unclean, unsigned *ret_n_unclean)
{
    struct lg_request q = { .type = LG_MSG_SESSION_BEGIN, .unlogged = unlogged };
    struct lg_answer a = { .unclean = ret_unclean };
    memcpy(q.vault_id, vault_id, LG_ID_LEN);
    set_str(q.mountpoint, sizeof q.mountpoint, mountpoint);
    int rc = call(c, &q, &a, DEADLINE_MS);
    if (rc)
        return rc;
    *ret_session = a.session;
    *ret_n_unclean = a.n_unclean;
    return 0;
}

static int session_call(struct lg_client *c, uint16_t type, uint64_t session)
{
    struct lg_request q = { .type = type, .session = session };
    struct lg_answer a = { 0 };
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_session_end(struct lg_client *c, uint64_t session) { return session_call(c, LG_MSG_SESSION_END, session); }
int lg_client_session_close(struct lg_client *c, uint64_t session) { return session_call(c, LG_MSG_SESSION_CLOSE, session); }

/* ---- the access log -------------------------------------------------------------------------------------------------------------------- */

int lg_client_audit_info(struct lg_client *c, struct lg_audit_info *ret)
{
    struct lg_request q = { .type = LG_MSG_AUDIT_INFO };
    struct lg_answer a = { .audit = ret };
    return call(c, &q, &a, DEADLINE_MS);
}

static int head_call(struct lg_client *c, struct lg_request *q, char ret[LG_HEAD_TEXT_MAX + 1])
{
    struct lg_answer a = { 0 };
    int rc = call(c, q, &a, DEADLINE_MS);
    if (!rc)
        memcpy(ret, a.head, sizeof a.head);
    return rc;
}

int lg_client_audit_state(struct lg_client *c, const uint8_t chain[LG_ID_LEN], char ret[LG_HEAD_TEXT_MAX + 1])
{
    struct lg_request q = { .type = LG_MSG_AUDIT_STATE };
    memcpy(q.vault_id, chain, LG_ID_LEN);
    return head_call(c, &q, ret);
}

int lg_client_audit_head(struct lg_client *c, const char *want, char ret[LG_HEAD_TEXT_MAX + 1])
{
    struct lg_request q = { .type = LG_MSG_AUDIT_HEAD };
    snprintf(q.head, sizeof q.head, "%s", want);
    return head_call(c, &q, ret);
}

int lg_client_audit_heads(struct lg_client *c, struct lg_audit_heads *ret)
{
    struct lg_request q = { .type = LG_MSG_AUDIT_HEADS };
    struct lg_answer a = { .heads = ret };
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_audit_note(struct lg_client *c, const char *how)
{
    struct lg_request q = { .type = LG_MSG_AUDIT_NOTE };
    struct lg_answer a = { 0 };
    snprintf(q.reason, sizeof q.reason, "%s", how);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_scrub_found(struct lg_client *c, uint64_t session, const char *what)
{
    struct lg_request q = { .type = LG_MSG_SCRUB_FOUND, .session = session };
    struct lg_answer a = { 0 };
    snprintf(q.reason, sizeof q.reason, "%s", what);
    return call(c, &q, &a, DEADLINE_MS);
}

int lg_client_scrub_salvage(struct lg_client *c, uint64_t session, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file[LG_ID_LEN])
{
    struct lg_request q = { .type = LG_MSG_SCRUB_SALVAGE, .session = session, .version = key_version };
    struct lg_answer a = { 0 };
    memcpy(q.kid, kid, LG_ID_LEN);
    memcpy(q.vault_id, file, LG_ID_LEN);
    return call(c, &q, &a, DEADLINE_MS);
}

static int to_sig(void *arg, const uint8_t *p, size_t len)
{
    if (len == LG_MANIFEST_SIG_LEN)
        lg_manifest_sig_decode(p, arg);
    return len == LG_MANIFEST_SIG_LEN ? 0 : -EPROTO;
}

int lg_client_manifest_sign(struct lg_client *c, uint64_t session, const uint8_t pub[LG_SIGN_PUB_LEN], struct lg_manifest_sig *s)
{
    uint8_t b[8 + 8 + LG_MAC_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, s->begun);
    lg_wr_u64(&w, s->entries);
    lg_wr_bytes(&w, s->hash, LG_MAC_LEN);
    struct lg_request q = { .type = LG_MSG_MANIFEST_SIGN, .session = session, .pass = b, .pass_len = w.len };
    struct lg_manifest_sig done = *s;
    int rc = blob_call(c, &q, NULL, DEADLINE_MS, to_sig, &done);
    if (!rc)
        rc = lg_manifest_sig_check(&done, pub);
    if (!rc)
        *s = done;
    return rc;
}

static int to_pub(void *arg, const uint8_t *p, size_t len)
{
    if (len == LG_SIGN_PUB_LEN)
        memcpy(arg, p, LG_SIGN_PUB_LEN);
    return len == LG_SIGN_PUB_LEN ? 0 : -EPROTO;
}

int lg_client_manifest_key(struct lg_client *c, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    struct lg_request q = { .type = LG_MSG_MANIFEST_KEY };
    return blob_call(c, &q, NULL, DEADLINE_MS, to_pub, ret_pub);
}

int lg_client_audit_export(struct lg_client *c, const char *target, struct lg_secret *ret)
{
    struct lg_request q = { .type = LG_MSG_AUDIT_EXPORT };
    struct lg_key k;
    unsigned lease;
    snprintf(q.reason, sizeof q.reason, "%s", target);
    int rc = one_key(c, &q, &k, &lease);
    if (!rc) {
        memcpy(ret->b, k.key->b, LG_KEY_LEN);
        lg_secret_free(k.key);
    }
    return rc;
}
