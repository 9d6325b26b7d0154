/* What keeps a study, and what officers do to one. Hold and retention are looked at in the transaction that destroys, not before it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "govern.h"

static const uint8_t no_id[LG_ID_LEN];
static const char wait_purpose[8] = "waiting.", rate_purpose[8] = "suspends";

/* ---- what keeps it ------------------------------------------------------------------------------------------------------------------------- */

int lg_may_destroy(struct lg_keyring *k, const struct lg_record *r, const struct lg_time *t, bool exception, struct lg_patient_looked *looked)
{
    if (memcmp(r->c.hold, no_id, LG_ID_LEN) != 0)
        return -EBUSY;
    if (r->c.retain_until && (t->frozen || r->c.retain_until > t->last_wall))
        return -EDOM;
    return exception ? 0 : lg_patient_keeps(k, r, t->frozen ? 0 : t->last_wall, looked); /* frozen: nothing is due */
}

/* ---- the studies in their waiting period, by when it ends ------------------------------------------------------------------------------------ */

enum { WAIT_KEY = 1 + 8 + LG_ID_LEN };

static void wait_key(const struct lg_record *r, uint8_t out[WAIT_KEY])
{
    out[0] = 'w';
    for (unsigned i = 0; i < 8; i++)
        out[1 + i] = (uint8_t)(r->c.due_wall >> (56 - 8 * i));
    memcpy(out + 9, r->kid, LG_ID_LEN);
}

static int wait_put(struct lg_keyring *k, const struct lg_record *r)
{
    uint8_t key[WAIT_KEY];
    wait_key(r, key);
    return lg_sealed_put(k, LG_T_STATE, wait_purpose, key, sizeof key, "\1", 1);
}

static int wait_del(struct lg_keyring *k, const struct lg_record *r)
{
    uint8_t key[WAIT_KEY];
    wait_key(r, key);
    return lg_store_del(k->store, LG_T_STATE, key, sizeof key);
}

static int wait_again(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const struct lg_time *t, const struct lg_policy *p)
{
    struct lg_record r;
    struct lg_act_record act;
    int rc = lg_record_get(k, kid, &r);
    if (!rc)
        rc = wait_del(k, &r);
    if (!rc)
        rc = lg_keyring_act_get(k, r.c.act, &act);
    r.c.due_wall = t->last_wall + p->waiting_s;
    r.c.due_run = t->run + p->waiting_s;
    act.due = r.c.due_wall;
    if (!rc)
        rc = lg_record_put(k, &r);
    if (!rc)
        rc = wait_put(k, &r);
    return rc ? rc : lg_act_put(k, r.c.act, &act);
}

int lg_waiting_restart(struct lg_keyring *k)
{
    uint8_t key[64] = { 'w' }, (*kids)[LG_ID_LEN] = NULL;
    size_t key_len = 1, len, n = 0;
    const uint8_t *p;
    struct lg_time t;
    struct lg_policy policy;
    int rc = lg_keyring_policy(k, &policy);
    if (!rc)
        rc = lg_time_now(k, &t);
    while (!rc && !(rc = lg_store_next(k->store, LG_T_STATE, key_len > 1, key, &key_len, &p, &len)) && key[0] == 'w' && key_len == WAIT_KEY) {
        void *more = reallocarray(kids, n + 1, LG_ID_LEN);
        rc = more ? 0 : -ENOMEM;
        kids = more ? more : kids;
        if (!rc)
            memcpy(kids[n++], key + 9, LG_ID_LEN);
    }
    rc = rc == -ENOENT ? 0 : rc;
    for (size_t i = 0; !rc && i < n; i++)
        rc = wait_again(k, kids[i], &t, &policy);
    free(kids);
    return rc;
}

static int begin_destroying(struct lg_keyring *k, struct lg_record *r)
{
    int rc = wait_del(k, r);
    if (!rc)
        rc = lg_patient_forget(k, r);
    r->state = LG_KEY_DESTROYING;
    r->changed = lg_keyring_wall(k);
    if (!rc)
        rc = lg_record_put(k, r);
    return rc ? rc : lg_pending_put(k, r);
}

/* Once: from then on the act has changed after the study fell due (one second after, if both are of the same second). */
static int keep(struct lg_keyring *k, const struct lg_record *r, struct lg_act_record *act, const struct lg_time *t, int why, struct lg_kept *kept)
{
    if (!kept || kept->n == LG_KEPT_MAX || act->changed > r->c.due_wall)
        return 0;
    act->changed = t->last_wall > r->c.due_wall ? t->last_wall : r->c.due_wall + 1;
    memcpy(kept->study[kept->n].kid, r->kid, LG_ID_LEN);
    kept->study[kept->n++].why = why;
    return lg_act_put(k, r->c.act, act);
}

int lg_keyring_due(struct lg_keyring *k, unsigned max, uint8_t (*ret)[LG_ID_LEN], unsigned *ret_n, struct lg_kept *ret_kept)
{
    uint8_t key[64] = { 'w' }, b[8];
    size_t key_len = 1, len;
    unsigned n = 0;
    struct lg_time t;
    struct lg_act_record act;
    struct lg_act a;
    struct lg_record r;
    struct lg_patient_looked looked = { .any = false };
    int rc = lg_keyring_need(k, true);
    if (ret_kept)
        ret_kept->n = 0;
    if (!rc)
        rc = lg_time_now(k, &t);
    if (!rc && (t.frozen || k->rolled || lg_keyring_restored(k)))
        max = 0;
    while (!rc && n < max) {
        rc = lg_sealed_next(k, LG_T_STATE, wait_purpose, key_len > 1, key, &key_len, b, sizeof b, &len);
        if (rc == -EBADMSG && key[0] != 'w') /* behind the last one */
            rc = -ENOENT;
        if (rc)
            break;
        if (key_len != WAIT_KEY)
            return -EPROTO;
        rc = lg_record_get(k, key + 9, &r);
        if (rc)
            return rc == -ENOENT ? -EPROTO : rc;
        if (r.state != LG_KEY_DESTROY_APPROVED)
            return -EPROTO;
        if (r.c.due_wall > t.last_wall)
            break;
        if (r.c.due_run > t.run)
            continue;
        rc = lg_keyring_act_get(k, r.c.act, &act);
        if (!rc)
            rc = lg_act_decode(act.doc, act.doc_len, &a);
        if (rc)
            return rc == -ENOENT ? -EPROTO : rc;
        rc = lg_may_destroy(k, &r, &t, a.number & 1, &looked);
        if (rc == -EINPROGRESS) {
            rc = 0;
            continue;
        }
        /* Placed while it waited, or what tells of its patient is damaged: it stays unreadable, and stays; the others are not held up. */
        if (rc == -EBUSY || rc == -EDOM || rc == -EPROTO || rc == -EBADMSG) {
            rc = keep(k, &r, &act, &t, rc, ret_kept);
            continue;
        }
        if (!rc)
            rc = begin_destroying(k, &r);
        act.state = LG_ACT_DONE;
        act.changed = t.last_wall;
        if (!rc)
            rc = lg_act_put(k, r.c.act, &act);
        memcpy(ret[n++], r.kid, LG_ID_LEN);
    }
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return 0;
}

int lg_keyring_due_next(struct lg_keyring *k, uint64_t *ret_wall_s)
{
    uint8_t key[64] = { 'w' };
    size_t key_len = 1, len;
    const uint8_t *p;
    uint64_t at = 0;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_store_next(k->store, LG_T_STATE, false, key, &key_len, &p, &len);
    if (rc)
        return rc;
    if (key[0] != 'w' || key_len != WAIT_KEY)
        return -ENOENT;
    for (unsigned i = 0; i < 8; i++)
        at = at << 8 | key[1 + i];
    *ret_wall_s = at;
    return 0;
}

/* ---- acts ---------------------------------------------------------------------------------------------------------------------------------------- */

/* The study that is meant: the key id in the document must still be the one of this UID. */
static int subject(struct lg_keyring *k, const struct lg_act *a, struct lg_record *r)
{
    int rc = lg_record_find(k, a->uid, r);
    return rc ? rc : memcmp(r->kid, a->kid, LG_ID_LEN) == 0 ? 0 : -ESTALE;
}

/* Held and retained until the moment it is gone; but not once nothing can stop it. */
static int changeable(const struct lg_record *r) { return r->state == LG_KEY_DESTROYING || r->state == LG_KEY_DESTROYED ? -EKEYREVOKED : 0; }

static void set_state(struct lg_record *r, struct lg_acting *x, enum lg_key_state s)
{
    r->state = s;
    r->changed = x->time.last_wall;
    r->changed_by = x->account;
    memcpy(r->c.act, x->act->nonce, LG_ID_LEN);
    snprintf(r->reason, sizeof r->reason, "%s", x->act->reason);
}

int lg_do_revoke(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    struct lg_policy p;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && r.state == LG_KEY_DESTROY_APPROVED)
        rc = -EALREADY;
    if (!rc)
        rc = lg_may_destroy(k, &r, &x->time, x->act->number & 1, NULL);
    if (!rc)
        rc = lg_keyring_policy(k, &p);
    if (rc || x->dry)
        return rc;
    r.c.before = (uint8_t)r.state;
    r.c.due_wall = x->time.last_wall + p.waiting_s;
    r.c.due_run = x->time.run + p.waiting_s;
    r.c.unconfirmed = 1;
    set_state(&r, x, LG_KEY_DESTROY_APPROVED);
    x->record->state = LG_ACT_WAITING;
    x->record->due = r.c.due_wall;
    x->effect = LG_EFFECT_DROP;
    rc = lg_record_put(k, &r);
    if (!rc)
        rc = lg_reap_want(k, x->act);
    return rc ? rc : wait_put(k, &r);
}

static int revive(struct lg_keyring *k, struct lg_acting *x, struct lg_record *r, enum lg_key_state to)
{
    int rc = wait_del(k, r);
    if (!rc)
        rc = lg_reap_forget(k, r->kid);
    r->c.due_wall = r->c.due_run = 0;
    r->c.before = r->c.unconfirmed = 0;
    set_state(r, x, to);
    x->effect = to == LG_KEY_ACTIVE ? LG_EFFECT_AGAIN : LG_EFFECT_NONE;
    return rc ? rc : lg_record_put(k, r);
}

int lg_do_cancel(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_act_record target;
    struct lg_act a;
    struct lg_record r;
    int rc = lg_keyring_act_get(k, x->act->kid, &target);
    if (!rc)
        rc = lg_act_decode(target.doc, target.doc_len, &a);
    if (!rc && target.state != LG_ACT_PENDING && target.state != LG_ACT_APPROVED && target.state != LG_ACT_WAITING)
        rc = -EALREADY;
    if (!rc && target.state == LG_ACT_WAITING && a.action == LG_ACT_TRIM) {
        if (!x->dry)
            rc = lg_trim_forget(k, a.nonce);
    } else if (!rc && target.state == LG_ACT_WAITING) {
        rc = subject(k, &a, &r);
        if (!rc && (r.state != LG_KEY_DESTROY_APPROVED || memcmp(r.c.act, a.nonce, LG_ID_LEN) != 0))
            rc = -EALREADY;
        if (!rc && !x->dry)
            rc = revive(k, x, &r, r.c.before == LG_KEY_SUSPENDED || r.c.before == LG_KEY_COMPROMISED || r.c.before == LG_KEY_RESTORED ? (enum lg_key_state)r.c.before : LG_KEY_ACTIVE);
    }
    if (rc || x->dry)
        return rc;
    target.state = LG_ACT_CANCELLED;
    target.changed = x->time.last_wall;
    memcpy(target.ended_by, x->act->nonce, LG_ID_LEN);
    return lg_act_put(k, x->act->kid, &target);
}

/* One officer alone may suspend: at a limited rate, so that one insider cannot blind the hospital. */
static int rate(struct lg_keyring *k, struct lg_acting *x)
{
    static const uint8_t nobody[LG_SIGN_PUB_LEN];
    uint8_t key[1 + LG_SIGN_PUB_LEN] = { 'r' }, b[16];
    uint64_t since = x->time.run; /* not the wall clock, which can be moved */
    uint32_t n = 0;
    size_t len;
    struct lg_policy p;
    if (memcmp(x->act->by, nobody, sizeof nobody) == 0)
        return 0;
    memcpy(key + 1, x->act->by, LG_SIGN_PUB_LEN);
    int rc = lg_keyring_policy(k, &p);
    if (!rc)
        rc = lg_sealed_get(k, LG_T_STATE, rate_purpose, key, sizeof key, b, sizeof b, &len);
    if (rc && rc != -ENOENT)
        return rc;
    if (!rc) {
        struct lg_rd rd = lg_rd(b, len);
        uint64_t at = lg_rd_u64(&rd);
        uint32_t had = lg_rd_u32(&rd);
        if (!lg_rd_done(&rd))
            return -EPROTO;
        if (at + p.suspend_s > x->time.run) {
            since = at;
            n = had;
        }
    }
    if (n >= p.suspend_max)
        return -EDQUOT;
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, since);
    lg_wr_u32(&w, n + 1);
    return lg_sealed_put(k, LG_T_STATE, rate_purpose, key, sizeof key, b, w.len);
}

int lg_do_suspend(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && r.state != LG_KEY_ACTIVE)
        rc = -EALREADY;
    if (rc || x->dry)
        return rc;
    rc = rate(k, x);
    if (rc)
        return rc;
    set_state(&r, x, LG_KEY_SUSPENDED);
    x->effect = LG_EFFECT_DROP;
    return lg_record_put(k, &r);
}

int lg_do_resume(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && r.state != LG_KEY_SUSPENDED)
        rc = -EALREADY;
    return rc || x->dry ? rc : revive(k, x, &r, LG_KEY_ACTIVE);
}

int lg_do_readmit(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc && r.state != LG_KEY_DESTROYED)
        rc = -EALREADY;
    /* The tombstone stays; the UID alone is free again and gets a key of its own when it arrives. */
    return rc || x->dry ? rc : lg_store_del(k->store, LG_T_LOOKUP, r.lookup, sizeof r.lookup);
}

int lg_do_hold(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && memcmp(r.c.hold, no_id, LG_ID_LEN) != 0)
        rc = -EALREADY;
    if (rc || x->dry)
        return rc;
    memcpy(r.c.hold, x->act->nonce, LG_ID_LEN);
    return lg_record_put(k, &r);
}

int lg_do_release(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && memcmp(r.c.hold, no_id, LG_ID_LEN) == 0)
        rc = -EALREADY;
    if (rc || x->dry)
        return rc;
    memset(r.c.hold, 0, LG_ID_LEN);
    return lg_record_put(k, &r);
}

int lg_do_retain(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc && x->act->number == r.c.retain_until)
        rc = -EALREADY;
    if (!rc && (x->act->number < r.c.retain_until) != (x->act->action == LG_ACT_SHORTEN))
        rc = -EDOM; /* longer needs one officer, shorter two */
    if (rc || x->dry)
        return rc;
    r.c.retain_until = x->act->number;
    return lg_record_put(k, &r);
}

int lg_do_rule(struct lg_keyring *k, struct lg_acting *x)
{
    struct lg_record r;
    struct lg_policy p;
    int rc = subject(k, x->act, &r);
    if (!rc)
        rc = changeable(&r);
    if (!rc)
        rc = lg_keyring_policy(k, &p);
    if (!rc && x->act->number >= p.n_rules)
        rc = -EINVAL;
    if (rc || x->dry)
        return rc;
    r.c.rule = (uint8_t)x->act->number;
    return lg_record_put(k, &r);
}

int lg_keyring_confirmed(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    struct lg_record r;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_record_get(k, kid, &r);
    if (rc || !r.c.unconfirmed)
        return rc;
    r.c.unconfirmed = 0;
    return lg_record_put(k, &r);
}

int lg_keyring_kids(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint8_t (*ret)[LG_ID_LEN], unsigned max, unsigned *ret_n)
{
    uint8_t key[64];
    size_t len = LG_ID_LEN, vlen;
    const uint8_t *p;
    unsigned n = 0;
    int rc;
    if (n < max)
        memcpy(ret[n++], kid, LG_ID_LEN);
    memcpy(key, kid, LG_ID_LEN);
    while (!(rc = lg_store_next(k->store, LG_T_ATTACHED, len != LG_ID_LEN, key, &len, &p, &vlen)) && len == 2 * LG_ID_LEN && memcmp(key, kid, LG_ID_LEN) == 0)
        if (n < max)
            memcpy(ret[n++], key + LG_ID_LEN, LG_ID_LEN);
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return 0;
}
