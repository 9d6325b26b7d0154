/* Acts: taken once, from those who may, and carried out in the transaction that records them. */
#include <stdio.h>

#include "govern.h"

static const char purpose[8] = "act.....";
enum { SKEW_S = 300 }; /* a document made on another machine may be a little ahead */

typedef int act_handler(struct lg_keyring *k, struct lg_acting *x);

static int do_policy(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_policy p;
    int rc = lg_policy_decode(x->act->data, x->act->data_len, &p);
    return rc ? -EINVAL : x->dry ? 0 : lg_policy_put(k, &p);
}

static int do_officer_add(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_officer o;
    if (lg_officer_decode(x->act->data, x->act->data_len, &o))
        return -EINVAL;
    o.added = lg_keyring_wall(k);
    memcpy(o.added_by, x->act->nonce, LG_ID_LEN);
    return lg_officer_put(k, &o, x->dry);
}

static int do_officer_remove(struct lg_keyring *k, struct lg_acting *x)
{
    return x->act->data_len != LG_SIGN_PUB_LEN ? -EINVAL : lg_officer_del(k, x->act->data, x->dry);
}

static int do_accept(struct lg_keyring *k, struct lg_acting *x) { return lg_rollback_accept(k, x->dry); }
static int do_clock(struct lg_keyring *k, struct lg_acting *x) { return x->dry ? 0 : lg_time_confirm(k); }

/* Those that are not here are carried out elsewhere, with lg_keyring_act_claim. */
static act_handler *const handlers[LG_ACT_LAST + 1] = {
    [LG_ACT_REVOKE] = lg_do_revoke,   [LG_ACT_CANCEL] = lg_do_cancel,   [LG_ACT_SUSPEND] = lg_do_suspend,     [LG_ACT_RESUME] = lg_do_resume,
    [LG_ACT_READMIT] = lg_do_readmit, [LG_ACT_HOLD] = lg_do_hold,       [LG_ACT_RELEASE] = lg_do_release,     [LG_ACT_RETAIN] = lg_do_retain,
    [LG_ACT_SHORTEN] = lg_do_retain,  [LG_ACT_RULE] = lg_do_rule,       [LG_ACT_POLICY] = do_policy,          [LG_ACT_OFFICER_ADD] = do_officer_add,
    [LG_ACT_OFFICER_REMOVE] = do_officer_remove, [LG_ACT_CLOCK] = do_clock, [LG_ACT_ACCEPT] = do_accept,   [LG_ACT_TRIM] = lg_do_trim,
};

int lg_act_put(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], const struct lg_act_record *r)
{
    uint8_t b[LG_ACT_RECORD_MAX];
    size_t len;
    int rc = lg_act_record_encode(r, b, &len);
    return rc ? rc : lg_sealed_put(k, LG_T_ACTS, purpose, id, LG_ID_LEN, b, len);
}

static void expire(struct lg_keyring *k, struct lg_act_record *r)
{
    struct lg_act a;
    if ((r->state == LG_ACT_PENDING || r->state == LG_ACT_APPROVED) && !lg_act_decode(r->doc, r->doc_len, &a) && lg_keyring_wall(k) > a.expires)
        r->state = LG_ACT_EXPIRED;
}

int lg_keyring_act_get(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], struct lg_act_record *ret)
{
    uint8_t b[LG_ACT_RECORD_MAX];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_ACTS, purpose, id, LG_ID_LEN, b, sizeof b, &len);
    if (!rc)
        rc = lg_act_record_decode(b, len, ret);
    if (!rc)
        expire(k, ret);
    return rc;
}

int lg_keyring_acts(struct lg_keyring *k, const uint8_t *after, bool open, struct lg_act_record *ret, unsigned max, unsigned *ret_n, uint8_t ret_last[LG_ID_LEN])
{
    uint8_t key[64], b[LG_ACT_RECORD_MAX];
    size_t key_len = after ? LG_ID_LEN : 0, len;
    unsigned n = 0, seen = 0;
    int rc = lg_keyring_need(k, false);
    if (after)
        memcpy(key, after, LG_ID_LEN);
    while (!rc && n < max && seen++ < 4096) {
        rc = lg_sealed_next(k, LG_T_ACTS, purpose, key_len != 0, key, &key_len, b, sizeof b, &len);
        if (!rc && key_len != LG_ID_LEN)
            rc = -EPROTO;
        if (!rc)
            rc = lg_act_record_decode(b, len, &ret[n]);
        if (rc)
            break;
        expire(k, &ret[n]);
        memcpy(ret_last, key, LG_ID_LEN);
        n += !open || ret[n].state == LG_ACT_PENDING || ret[n].state == LG_ACT_APPROVED || ret[n].state == LG_ACT_WAITING;
    }
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return rc ? 1 : 0; /* 1: there are no more */
}

/* Made before the keyring was restored: it may have been used, or cancelled, after the backup, and nobody here knows. */
static bool of_before(struct lg_keyring *k, const struct lg_act *a) { return a->created <= lg_incarnation(k); }

/* ---- who ------------------------------------------------------------------------------------------------------------------------------- */

static bool none(const void *p, size_t len)
{
    static const uint8_t zero[LG_SIGN_PUB_LEN];
    return memcmp(p, zero, len) == 0;
}

/* A registered officer signed these bytes, and whoever hands them in is that officer or an administrator who carries them. */
static int signer(struct lg_keyring *k, const uint8_t pub[LG_SIGN_PUB_LEN], const char purpose_of[8], const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN],
                  const struct lg_asker *who, struct lg_officer *ret)
{
    int rc = lg_officer_get(k, pub, ret);
    if (rc)
        return rc == -ENOENT ? -EKEYREJECTED : rc;
    rc = lg_act_verify(pub, purpose_of, doc, len, sig);
    if (rc)
        return rc == -EBADMSG ? -EKEYREJECTED : rc;
    return who->admin || who->account == ret->account ? 0 : -EACCES;
}

static void sign_off(struct lg_keyring *k, struct lg_signed *s, const struct lg_officer *o, const uint8_t sig[LG_SIGN_LEN])
{
    memcpy(s->pub, o->pub, sizeof s->pub);
    memcpy(s->sig, sig, sizeof s->sig);
    memcpy(s->name, o->name, sizeof s->name);
    s->account = o->account;
    s->at = lg_keyring_wall(k);
}

/* ---- carrying out ------------------------------------------------------------------------------------------------------------------------ */

static int carry_out(struct lg_keyring *k, const struct lg_act *a, struct lg_act_record *r, uint32_t account, bool dry, enum lg_act_effect *ret)
{
    const struct lg_action_info *info = lg_action_info(a->action);
    struct lg_acting x = { .act = a, .record = r, .account = account, .dry = dry };
    int rc = lg_time_now(k, &x.time);
    /* What a wrong clock could bring forward waits until it was looked at. */
    if (!rc && !dry && x.time.frozen && info->approve && a->action != LG_ACT_CLOCK)
        rc = -ENOLCK;
    /* A keyring that was put back is not to be changed: but what protects, and what ends that. */
    if (!rc && k->rolled && info->approve && a->action != LG_ACT_ACCEPT && a->action != LG_ACT_CLOCK)
        rc = -EROFS;
    if (rc)
        return rc;
    r->changed = x.time.last_wall;
    struct lg_assign what;
    if (a->action == LG_ACT_ASSIGN && lg_assign_decode(a->data, a->data_len, &what))
        return -EINVAL;
    if (info->claimed) {
        r->state = dry ? LG_ACT_PENDING : LG_ACT_APPROVED;
        return 0;
    }
    r->state = dry ? LG_ACT_PENDING : LG_ACT_DONE;
    rc = handlers[a->action](k, &x);
    if (!rc)
        *ret = x.effect;
    return rc;
}

int lg_keyring_act_submit(struct lg_keyring *k, const uint8_t *doc, size_t len, const uint8_t *sig, const struct lg_asker *who, struct lg_act_record *ret, enum lg_act_effect *ret_effect)
{
    struct lg_act a;
    struct lg_act_record r = { .state = LG_ACT_PENDING, .doc_len = len }, old;
    struct lg_officer o;
    enum lg_act_effect effect = LG_EFFECT_NONE;
    bool mode;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = k->officers_bad ? -EBADMSG : lg_act_decode(doc, len, &a);
    if (rc)
        return rc;
    const struct lg_action_info *info = lg_action_info(a.action);
    memcpy(r.doc, doc, len);
    uint64_t now = lg_keyring_wall(k);
    if (memcmp(a.keyring_id, k->meta.keyring_id, LG_ID_LEN) != 0)
        return -EXDEV;
    if (!a.reason[0] || none(a.nonce, LG_ID_LEN) || (info->study != (a.uid[0] != 0) && a.action != LG_ACT_TRIM)) /* trim: one study, or all */
        return -EINVAL;
    if (a.created > now + SKEW_S || a.expires < now || a.expires > a.created + LG_ACT_LIFE_MAX_S || of_before(k, &a))
        return -ETIME;
    rc = lg_keyring_officer_mode(k, &mode);
    if (rc)
        return rc;
    bool alone = none(a.by, sizeof a.by);
    if (alone && (mode || !who->admin))
        return mode ? -EPERM : -EACCES;
    if (!alone && !sig)
        return -EKEYREJECTED;
    if (!alone)
        rc = signer(k, a.by, LG_ACT_ASK, doc, len, sig, who, &o);
    if (!rc && !alone && !(o.role & info->ask))
        rc = -EACCES;
    if (rc)
        return rc;
    /* Only now, as who may not ask need not learn which nonces there are. */
    rc = lg_keyring_act_get(k, a.nonce, &old);
    if (rc != -ENOENT)
        return rc ? rc : -EALREADY;
    if (alone)
        r.asked = (struct lg_signed){ .account = who->account, .at = now };
    else
        sign_off(k, &r.asked, &o, sig);
    rc = carry_out(k, &a, &r, who->account, !alone && info->approve, &effect);
    if (!rc)
        rc = lg_act_put(k, a.nonce, &r);
    if (rc)
        return rc;
    *ret = r;
    *ret_effect = effect;
    return 0;
}

int lg_keyring_act_approve(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], const uint8_t pub[LG_SIGN_PUB_LEN], const uint8_t sig[LG_SIGN_LEN], const struct lg_asker *who,
                           struct lg_act_record *ret, enum lg_act_effect *ret_effect)
{
    struct lg_act a;
    struct lg_act_record r;
    struct lg_officer o, asker;
    enum lg_act_effect effect = LG_EFFECT_NONE;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = k->officers_bad ? -EBADMSG : lg_keyring_act_get(k, id, &r);
    if (!rc)
        rc = lg_act_decode(r.doc, r.doc_len, &a);
    if (rc)
        return rc;
    rc = signer(k, pub, LG_ACT_APPROVE, r.doc, r.doc_len, sig, who, &o);
    if (!rc && !(o.role & lg_action_info(a.action)->approve))
        rc = -EACCES;
    /* Two people: another key, another account, another name, whatever was registered or removed in between. */
    if (!rc && (memcmp(pub, r.asked.pub, LG_SIGN_PUB_LEN) == 0 || o.account == r.asked.account || strcmp(o.name, r.asked.name) == 0))
        rc = -ELOOP;
    if (!rc && r.state != LG_ACT_PENDING)
        rc = r.state == LG_ACT_EXPIRED ? -ETIME : -EALREADY;
    if (!rc && of_before(k, &a))
        rc = -ETIME;
    if (!rc && lg_officer_get(k, r.asked.pub, &asker)) /* is no officer any more */
        rc = -EACCES;
    if (rc)
        return rc;
    sign_off(k, &r.approved, &o, sig);
    rc = carry_out(k, &a, &r, o.account, false, &effect);
    if (!rc)
        rc = lg_act_put(k, id, &r);
    if (rc)
        return rc;
    *ret = r;
    *ret_effect = effect;
    return 0;
}

/* An act that could be claimed now. */
static int claimable(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], enum lg_action action, const uint8_t *kid, struct lg_act *a, struct lg_act_record *r)
{
    int rc = lg_keyring_act_get(k, id, r);
    if (!rc)
        rc = lg_act_decode(r->doc, r->doc_len, a);
    if (!rc && (a->action != action || !lg_action_info(action)->claimed || (kid && memcmp(kid, a->kid, LG_ID_LEN) != 0)))
        rc = -EINVAL;
    if (!rc && r->state != LG_ACT_APPROVED)
        rc = r->state == LG_ACT_PENDING ? -EPERM : r->state == LG_ACT_EXPIRED ? -ETIME : -EALREADY;
    if (!rc && of_before(k, a))
        rc = -ETIME;
    return rc;
}

int lg_keyring_act_claim(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], enum lg_action action, const uint8_t *kid, struct lg_act *ret)
{
    struct lg_act a;
    struct lg_act_record r;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = claimable(k, id, action, kid, &a, &r);
    if (rc)
        return rc;
    r.state = LG_ACT_DONE;
    r.changed = lg_keyring_wall(k);
    rc = lg_act_put(k, id, &r);
    if (!rc)
        *ret = a;
    return rc;
}

/* One administrator alone: it is on record like an act of officers. */
static int assign_noted(struct lg_keyring *k, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], uint32_t account)
{
    char reason[160], f[2 * LG_ID_LEN + 1], g[2 * LG_ID_LEN + 1];
    uint8_t id[LG_ID_LEN];
    struct lg_record r;
    int rc = lg_record_find(k, uid, &r);
    lg_hex_encode(file_id, LG_ID_LEN, f);
    lg_hex_encode(from, LG_ID_LEN, g);
    snprintf(reason, sizeof reason, "single-administrator mode: file %s, until now under key %s", f, g);
    return rc ? rc : lg_act_note(k, LG_ACT_ASSIGN, &r, uid, reason, account, id);
}

int lg_keyring_assign(struct lg_keyring *k, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], uint32_t account, bool now)
{
    struct lg_act a;
    struct lg_act_record r;
    struct lg_record study;
    struct lg_assign what;
    bool officers;
    int rc = lg_keyring_need(k, now);
    if (!rc)
        rc = lg_keyring_officer_mode(k, &officers);
    if (!rc && !act)
        return officers ? -EPERM : now ? assign_noted(k, uid, from, file_id, account) : 0;
    if (!rc)
        rc = claimable(k, act, LG_ACT_ASSIGN, NULL, &a, &r);
    if (!rc)
        rc = lg_assign_decode(a.data, a.data_len, &what) ? -EINVAL : 0;
    if (!rc && (strcmp(a.uid, uid) != 0 || memcmp(what.file_id, file_id, LG_ID_LEN) != 0 || memcmp(what.from, from, LG_ID_LEN) != 0))
        rc = -EINVAL;
    if (!rc)
        rc = lg_record_find(k, uid, &study);
    if (!rc && memcmp(study.kid, a.kid, LG_ID_LEN) != 0)
        rc = -ESTALE; /* destroyed and readmitted since */
    return rc || !now ? rc : lg_keyring_act_claim(k, act, LG_ACT_ASSIGN, NULL, &a);
}

int lg_act_note(struct lg_keyring *k, enum lg_action action, const struct lg_record *r, const char *uid, const char *reason, uint32_t account, uint8_t ret_id[LG_ID_LEN])
{
    struct lg_act a = { .action = action, .created = lg_keyring_wall(k) };
    struct lg_act_record rec = { .state = LG_ACT_DONE, .changed = a.created, .asked = { .account = account, .at = a.created } };
    a.expires = a.created;
    memcpy(a.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(a.kid, r->kid, LG_ID_LEN);
    if (strlen(uid) > LG_UID_MAX || strlen(reason) > LG_ACT_REASON_MAX)
        return -EINVAL;
    memcpy(a.uid, uid, strlen(uid) + 1);
    memcpy(a.reason, reason, strlen(reason) + 1);
    int rc = lg_random(a.nonce, LG_ID_LEN);
    if (!rc)
        rc = lg_act_encode(&a, rec.doc, &rec.doc_len);
    if (!rc)
        rc = lg_act_put(k, a.nonce, &rec);
    if (!rc)
        memcpy(ret_id, a.nonce, LG_ID_LEN);
    return rc;
}
