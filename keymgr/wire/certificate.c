#include "leadglass/certificate.h"

#include <string.h>

static const char tomb_magic[8] = "LGTOMB1", cert_magic[3][8] = { "LGCERT1", "LGCERT2", "LGCERT3" };

int lg_tombstone_encode(const struct lg_tombstone *t, uint8_t out[LG_TOMBSTONE_LEN])
{
    struct lg_wr w = lg_wr(out, LG_TOMBSTONE_LEN);
    lg_wr_bytes(&w, tomb_magic, sizeof tomb_magic);
    lg_wr_bytes(&w, t->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, t->kid, LG_ID_LEN);
    lg_wr_bytes(&w, t->act, LG_ID_LEN);
    lg_wr_bytes(&w, t->lookup, LG_MAC_LEN);
    lg_wr_u64(&w, t->created);
    lg_wr_u64(&w, t->destroyed);
    lg_wr_u64(&w, t->epoch_before);
    lg_wr_u64(&w, t->epoch);
    lg_wr_u64(&w, t->generation);
    lg_wr_u32(&w, t->versions);
    lg_wr_u32(&w, t->attached);
    lg_wr_u32(&w, t->version);
    lg_wr_u64(&w, 0);
    lg_wr_bytes(&w, t->sig, sizeof t->sig);
    return w.bad || w.len != LG_TOMBSTONE_LEN ? -EINVAL : 0;
}

int lg_tombstone_decode(const uint8_t *untrusted, size_t len, struct lg_tombstone *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_tombstone t;
    const uint8_t *m = lg_rd_bytes(&r, sizeof tomb_magic);
    if (!m || memcmp(m, tomb_magic, sizeof tomb_magic) != 0)
        return -EPROTO;
    lg_rd_copy(&r, t.keyring_id, LG_ID_LEN);
    lg_rd_copy(&r, t.kid, LG_ID_LEN);
    lg_rd_copy(&r, t.act, LG_ID_LEN);
    lg_rd_copy(&r, t.lookup, LG_MAC_LEN);
    t.created = lg_rd_u64(&r);
    t.destroyed = lg_rd_u64(&r);
    t.epoch_before = lg_rd_u64(&r);
    t.epoch = lg_rd_u64(&r);
    t.generation = lg_rd_u64(&r);
    t.versions = lg_rd_u32(&r);
    t.attached = lg_rd_u32(&r);
    t.version = lg_rd_u32(&r);
    if (lg_rd_u64(&r))
        return -EPROTO;
    lg_rd_copy(&r, t.sig, sizeof t.sig);
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = t;
    return 0;
}

int lg_certificate_encode(const struct lg_certificate *c, uint8_t out[LG_CERT_MAX], size_t *ret_len)
{
    uint8_t tomb[LG_TOMBSTONE_LEN], act[LG_ACT_RECORD_MAX];
    size_t act_len;
    struct lg_wr w = lg_wr(out, LG_CERT_MAX);
    int rc = c->n_backups > LG_CERT_BACKUPS_MAX || c->version < 1 || c->version > 3 ? -EINVAL : lg_tombstone_encode(&c->tombstone, tomb);
    if (!rc)
        rc = lg_act_record_encode(&c->act, act, &act_len);
    if (rc)
        return rc;
    lg_wr_bytes(&w, cert_magic[c->version - 1], sizeof cert_magic[0]);
    lg_wr_bytes(&w, c->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, c->pub, sizeof c->pub);
    lg_wr_u64(&w, c->issued);
    lg_wr_str(&w, c->uid);
    lg_wr_bytes(&w, tomb, sizeof tomb);
    lg_wr_u16(&w, (uint16_t)act_len);
    lg_wr_bytes(&w, act, act_len);
    lg_wr_u8(&w, c->anchored);
    lg_wr_u64(&w, c->files);
    lg_wr_u64(&w, c->bytes);
    if (c->version >= 2) {
        lg_wr_u16(&w, (uint16_t)c->vaults_counted);
        lg_wr_u16(&w, (uint16_t)c->vaults);
        lg_wr_u64(&w, c->removed);
    }
    if (c->version >= 3) {
        lg_wr_u64(&w, c->restored);
        lg_wr_u64(&w, c->restored_from);
        lg_wr_u64(&w, c->backups_all);
    }
    lg_wr_u16(&w, (uint16_t)c->n_backups);
    for (unsigned i = 0; i < c->n_backups; i++) {
        lg_wr_bytes(&w, c->backups[i].id, LG_ID_LEN);
        lg_wr_u64(&w, c->backups[i].created);
    }
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_certificate_decode(const uint8_t *untrusted, size_t len, struct lg_certificate *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_certificate *c = ret;
    const uint8_t *m = lg_rd_bytes(&r, sizeof cert_magic[0]);
    memset(c, 0, sizeof *c);
    for (unsigned v = 1; m && v <= 3; v++)
        if (memcmp(m, cert_magic[v - 1], sizeof cert_magic[0]) == 0)
            c->version = v;
    if (!c->version)
        return -EPROTO;
    lg_rd_copy(&r, c->keyring_id, LG_ID_LEN);
    lg_rd_copy(&r, c->pub, sizeof c->pub);
    c->issued = lg_rd_u64(&r);
    lg_rd_str(&r, c->uid, LG_UID_MAX);
    const uint8_t *tomb = lg_rd_bytes(&r, LG_TOMBSTONE_LEN);
    size_t act_len = lg_rd_u16(&r);
    const uint8_t *act = lg_rd_bytes(&r, act_len);
    if (!tomb || !act || lg_tombstone_decode(tomb, LG_TOMBSTONE_LEN, &c->tombstone) || lg_act_record_decode(act, act_len, &c->act))
        return -EPROTO;
    uint8_t anchored = lg_rd_u8(&r);
    c->anchored = anchored == 1;
    c->files = lg_rd_u64(&r);
    c->bytes = lg_rd_u64(&r);
    if (c->version >= 2) {
        c->vaults_counted = lg_rd_u16(&r);
        c->vaults = lg_rd_u16(&r);
        c->removed = lg_rd_u64(&r);
        if (!c->vaults)
            return -EPROTO;
    }
    if (c->version >= 3) {
        c->restored = lg_rd_u64(&r);
        c->restored_from = lg_rd_u64(&r);
        c->backups_all = lg_rd_u64(&r);
    }
    c->n_backups = lg_rd_u16(&r);
    if (c->version < 3)
        c->backups_all = c->n_backups;
    if (anchored > 1 || c->n_backups > LG_CERT_BACKUPS_MAX || c->n_backups > c->backups_all || (!c->n_backups && c->backups_all))
        return -EPROTO;
    for (unsigned i = 0; i < c->n_backups; i++) {
        lg_rd_copy(&r, c->backups[i].id, LG_ID_LEN);
        c->backups[i].created = lg_rd_u64(&r);
    }
    return lg_rd_done(&r) ? 0 : -EPROTO;
}

static bool zero(const void *p, size_t len)
{
    const uint8_t *b = p;
    uint8_t any = 0;
    for (size_t i = 0; i < len; i++)
        any |= b[i];
    return !any;
}

int lg_certificate_verify(const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN], struct lg_certificate *ret)
{
    struct lg_act a;
    uint8_t tomb[LG_TOMBSTONE_LEN];
    int rc = lg_certificate_decode(doc, len, ret);
    if (!rc)
        rc = lg_sign_verify(ret->pub, doc, len, sig);
    if (!rc)
        rc = lg_tombstone_encode(&ret->tombstone, tomb);
    if (!rc)
        rc = lg_sign_verify(ret->pub, tomb, LG_TOMBSTONE_SIGNED, ret->tombstone.sig);
    if (!rc)
        rc = lg_act_decode(ret->act.doc, ret->act.doc_len, &a);
    if (rc)
        return rc;
    if (memcmp(ret->keyring_id, a.keyring_id, LG_ID_LEN) != 0 || memcmp(ret->keyring_id, ret->tombstone.keyring_id, LG_ID_LEN) != 0 ||
        memcmp(a.kid, ret->tombstone.kid, LG_ID_LEN) != 0 || memcmp(a.nonce, ret->tombstone.act, LG_ID_LEN) != 0 || a.action != LG_ACT_REVOKE || ret->tombstone.version ||
        strcmp(a.uid, ret->uid) != 0 || ret->act.state != LG_ACT_DONE)
        return -EBADMSG;
    if (zero(a.by, sizeof a.by)) /* single-administrator mode: nobody signed, and the certificate says so */
        return zero(ret->act.asked.pub, LG_SIGN_PUB_LEN) && zero(ret->act.approved.pub, LG_SIGN_PUB_LEN) ? 0 : -EBADMSG;
    if (memcmp(a.by, ret->act.asked.pub, LG_SIGN_PUB_LEN) != 0 || memcmp(a.by, ret->act.approved.pub, LG_SIGN_PUB_LEN) == 0)
        return -EBADMSG;
    rc = lg_act_verify(a.by, LG_ACT_ASK, ret->act.doc, ret->act.doc_len, ret->act.asked.sig);
    return rc ? rc : lg_act_verify(ret->act.approved.pub, LG_ACT_APPROVE, ret->act.doc, ret->act.doc_len, ret->act.approved.sig);
}
