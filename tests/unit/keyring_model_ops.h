/* For keyring_model_test.c alone: operations. Each makes the change in the world `w`, and returns what the keyring answered; want is what it should. */
#ifndef LG_TEST_KEYRING_MODEL_OPS_H
#define LG_TEST_KEYRING_MODEL_OPS_H

#include "keyring_model.h"

static int want;
static unsigned destroyed_ever;

static int early(int rc) { return now.wall_s <= w.incarnation ? -ETIME : rc; } /* of every new act */
static int keeps(const struct study_model *m) { return m->held ? -EBUSY : m->retain && (w.frozen || m->retain > now.wall_s) ? -EDOM : 0; }
static bool changeable(const struct study_model *m) { return m->state && m->state != LG_KEY_DESTROYED; }
static const struct person *officer(void) { return dice(2) ? &sam : &ruth; }
static const struct person *other(const struct person *p) { return p == &sam ? &ruth : &sam; }
static int subject(const struct study_model *m) { return !m->state ? -ENOENT : m->state == LG_KEY_DESTROYED ? -EKEYREVOKED : 0; }

static int do_arrive(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_study_info info = { 0 };
    struct lg_key key = { .key = NULL };
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid_of(i));
    want = m->state && m->state != LG_KEY_ACTIVE ? -EKEYREVOKED : 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_study_key(k, &info, &key, &created);
    if (!want && !m->state && !rc) {
        *m = (struct study_model){ .state = LG_KEY_ACTIVE, .first = 1, .n = 1 };
        memcpy(m->kid, key.kid, LG_ID_LEN);
        memcpy(m->key[0], key.key->b, LG_KEY_LEN);
        w.living++;
    } else if (!want && !rc) {
        assert_true(!created && key.version == m->n && memcmp(key.key->b, m->key[m->n - m->first], LG_KEY_LEN) == 0);
    }
    lg_secret_free(key.key);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

static int do_attach(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_study_info info = { 0 };
    struct lg_key p = { .key = NULL };
    if (m->state != LG_KEY_ACTIVE || m->has_prov)
        return want = 0;
    snprintf(info.uid, sizeof info.uid, "%s", uid_of(i));
    want = 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_provisional(k, &p);
    if (!rc)
        rc = lg_keyring_attach(k, p.kid, &info);
    if (!rc) {
        m->has_prov = true;
        memcpy(m->prov, p.kid, LG_ID_LEN);
        memcpy(m->prov_key, p.key->b, LG_KEY_LEN);
    }
    lg_secret_free(p.key);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

static int do_rotate(unsigned i)
{
    struct study_model *m = &w.s[i];
    uint8_t kid[LG_ID_LEN];
    struct lg_key x;
    want = !m->state ? -ENOENT : m->state != LG_KEY_ACTIVE ? -EKEYREVOKED : live(m) == LG_KEY_VERSIONS_MAX ? -ENOSPC : 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_rotate_study(k, uid_of(i), kid);
    if (!rc && !want && lg_keyring_study_find(k, uid_of(i), &x) == 0) {
        memcpy(m->key[++m->n - m->first], x.key->b, LG_KEY_LEN);
        m->rotated = now.wall_s;
        lg_secret_free(x.key);
    }
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

static int do_ask(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_REVOKE, uid_of(i));
    want = subject(m);
    if (!want && m->state == LG_KEY_DESTROY_APPROVED)
        want = -EALREADY;
    want = early(want ? want : keeps(m));
    const struct person *p = officer();
    memcpy(a.by, p->o.pub, sizeof a.by);
    if (!want && (!m->asked || now.wall_s > m->revoke.expires || m->revoke.created <= w.incarnation)) {
        m->asked = true;
        m->revoke = a;
    }
    return submit(k, &a, p);
}

static const struct person *who(const struct lg_act *a) { return memcmp(a->by, sam.o.pub, sizeof a->by) == 0 ? &sam : &ruth; }

static int do_approve(unsigned i)
{
    for (unsigned j = 0; j < UIDS && !w.s[i].asked; j++)
        i = (i + 1) % UIDS;
    struct study_model *m = &w.s[i];
    if (!m->asked)
        return want = 0;
    struct lg_act a = m->revoke;
    if (dice(8) == 0) { /* by whoever asked */
        want = -ELOOP;
        return approve(k, &a, who(&a));
    }
    want = now.wall_s > a.expires || a.created <= w.incarnation ? -ETIME : w.frozen ? -ENOLCK : subject(m);
    if (!want && memcmp(a.kid, m->kid, LG_ID_LEN) != 0)
        want = -ESTALE;
    if (!want && m->state == LG_KEY_DESTROY_APPROVED)
        want = -EALREADY;
    want = want ? want : keeps(m);
    if (!want) {
        m->before = m->state;
        m->state = LG_KEY_DESTROY_APPROVED;
        m->due_wall = now.wall_s + WEEK;
        m->due_run = w.run + WEEK;
        m->asked = false;
    }
    return approve(k, &a, other(who(&a)));
}

static int do_cancel(unsigned i)
{
    struct study_model *m = &w.s[i];
    if ((!m->asked && m->state != LG_KEY_DESTROY_APPROVED) || dice(3))
        return want = 0;
    struct lg_act a = act_of(k, LG_ACT_CANCEL, NULL);
    memcpy(a.kid, m->revoke.nonce, LG_ID_LEN);
    want = early(m->asked && now.wall_s > m->revoke.expires ? -EALREADY : 0);
    if (!want && m->asked) {
        m->asked = false;
    } else if (!want) {
        m->state = m->before == LG_KEY_SUSPENDED || m->before == LG_KEY_RESTORED ? m->before : LG_KEY_ACTIVE;
    }
    return submit(k, &a, officer());
}

static int do_suspend(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_SUSPEND, uid_of(i));
    want = subject(m);
    want = early(want ? want : m->state != LG_KEY_ACTIVE ? -EALREADY : 0);
    if (!want)
        m->state = LG_KEY_SUSPENDED;
    return submit(k, &a, officer());
}

static int do_resume(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_RESUME, uid_of(i));
    want = subject(m);
    want = early(want ? want : m->state != LG_KEY_SUSPENDED ? -EALREADY : 0);
    if (!want)
        m->state = LG_KEY_ACTIVE;
    return submit(k, &a, officer());
}

static int do_hold(unsigned i)
{
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_HOLD, uid_of(i));
    want = subject(m);
    want = early(want ? want : m->held ? -EALREADY : 0);
    if (!want)
        m->held = true;
    return submit(k, &a, officer());
}

/* What two officers do: asked for (which changes nothing), then approved. */
static int both(struct lg_act *a, int ask, int last)
{
    const struct person *p = officer();
    want = early(ask);
    int rc = submit(k, a, p);
    if (rc || want)
        return rc;
    want = w.frozen && a->action != LG_ACT_CLOCK ? -ENOLCK : last;
    return approve(k, a, other(p));
}

static int do_release(unsigned i)
{
    for (unsigned j = 0; j < UIDS && dice(4) && !w.s[i].held; j++)
        i = (i + 1) % UIDS;
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_RELEASE, uid_of(i));
    int ask = subject(m);
    ask = ask ? ask : m->held ? 0 : -EALREADY;
    if (!early(ask) && !w.frozen)
        m->held = false;
    return both(&a, ask, 0);
}

static int do_retain(unsigned i)
{
    struct study_model *m = &w.s[i];
    uint64_t until = now.wall_s - 15 * DAY + dice(20 * DAY);
    bool shorter = dice(3) == 0;
    struct lg_act a = act_of(k, shorter ? LG_ACT_SHORTEN : LG_ACT_RETAIN, uid_of(i));
    a.number = until;
    int ask = subject(m);
    ask = ask ? ask : until == m->retain ? -EALREADY : (until < m->retain) != shorter ? -EDOM : 0;
    if (!early(ask) && !(shorter && w.frozen))
        m->retain = until;
    if (shorter)
        return both(&a, ask, 0);
    want = early(ask);
    return submit(k, &a, officer());
}

static int do_readmit(unsigned i)
{
    for (unsigned j = 0; j < UIDS && dice(4) && w.s[i].state != LG_KEY_DESTROYED; j++)
        i = (i + 1) % UIDS;
    struct study_model *m = &w.s[i];
    struct lg_act a = act_of(k, LG_ACT_READMIT, uid_of(i));
    int ask = !m->state ? -ENOENT : m->state != LG_KEY_DESTROYED ? -EALREADY : 0;
    if (!early(ask) && !w.frozen)
        *m = (struct study_model){ 0 };
    return both(&a, ask, 0);
}

static int do_replay(unsigned i)
{
    struct lg_act a = act_of(k, LG_ACT_HOLD, uid_of(i)), b;
    struct study_model *m = &w.s[i];
    const struct person *p = officer();
    want = subject(m);
    want = early(want ? want : m->held ? -EALREADY : 0);
    if (!want)
        m->held = true;
    b = a;
    int rc = submit(k, &a, p);
    if (rc != want)
        return rc;
    want = want == 0 ? -EALREADY : want;
    return submit(k, &b, p);
}

static int do_clock(unsigned i)
{
    struct lg_act a = act_of(k, LG_ACT_CLOCK, NULL);
    (void)i;
    if (!early(0)) {
        w.frozen = false;
        w.base_wall = now.wall_s, w.base_boot = now.boot_s;
    }
    return both(&a, 0, 0);
}

static int do_officer(unsigned i)
{
    bool add = w.officers == 2;
    struct lg_act a = act_of(k, add ? LG_ACT_OFFICER_ADD : LG_ACT_OFFICER_REMOVE, NULL);
    (void)i;
    if (add) {
        assert_int_equal(lg_officer_encode(&third.o, a.data, &a.data_len), 0);
    } else {
        a.data_len = LG_SIGN_PUB_LEN;
        memcpy(a.data, third.o.pub, LG_SIGN_PUB_LEN);
    }
    if (!early(0) && !w.frozen)
        w.officers = add ? 3 : 2;
    return both(&a, 0, 0);
}

static int do_quorum(unsigned i)
{
    struct lg_act a = act_of(k, LG_ACT_OFFICER_REMOVE, NULL);
    (void)i;
    a.data_len = LG_SIGN_PUB_LEN;
    memcpy(a.data, ruth.o.pub, LG_SIGN_PUB_LEN);
    want = early(-EUSERS);
    return submit(k, &a, officer());
}

/* What became due is destroyed: two steps, of which a crash leaves the second to the next unlock. */
static int do_due(unsigned i)
{
    uint8_t kids[UIDS][LG_ID_LEN];
    unsigned n = 0, will = 0, destroyed;
    (void)i;
    for (unsigned j = 0; j < UIDS && !w.frozen && !w.restored; j++) {
        struct study_model *m = &w.s[j];
        if (m->state != LG_KEY_DESTROY_APPROVED || m->due_wall > now.wall_s || m->due_run > w.run || keeps(m))
            continue;
        m->state = LG_KEY_DESTROYED;
        memcpy(w.dead[w.n_dead++], m->kid, LG_ID_LEN);
        if (m->has_prov)
            memcpy(w.dead[w.n_dead++], m->prov, LG_ID_LEN);
        assert_true(w.n_dead < DEAD - 2);
        m->n = 0;
        m->held = m->has_prov = false;
        m->asked = false;
        w.living--, w.destroyed++, w.tombstones++;
        will++;
        destroyed_ever++;
    }
    w.epoch += will != 0;
    want = 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_due(k, UIDS, kids, &n, NULL);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    if (rc)
        return rc;
    assert_int_equal(n, will);
    return n ? lg_keyring_destroy(k, &destroyed) : 0;
}

static int do_root(unsigned i)
{
    (void)i;
    want = 0;
    w.epoch++;
    return lg_keyring_rotate_root(k);
}

static int do_slot(unsigned i)
{
    struct slot_model *s = &w.slot[i % SLOTS];
    struct lg_slot_draft *d;
    static unsigned made;
    char pass[12];
    unsigned usable = 0;
    for (unsigned j = 0; j < SLOTS; j++)
        usable += w.slot[j].there && w.slot[j].proved;
    if (s->there && dice(2)) {
        want = usable == 1 && s->proved ? -EPERM : 0;
        if (!want) {
            s->there = false;
            w.epoch++;
        }
        return lg_keyring_slot_remove(k, s->name);
    }
    snprintf(pass, sizeof pass, "p%u", made++);
    bool there = s->there;
    if (there && usable == 1 && s->proved)
        return want = 0; /* a change of the last one that works: its new secret has to be seen to work first */
    assert_int_equal(lg_slot_draft_new(at("k.root"), LG_SLOT_PASSPHRASE, s->name, pass, strlen(pass), &d), 0);
    want = 0;
    s->there = true;
    s->proved = false;
    snprintf(s->pass, sizeof s->pass, "%s", pass);
    w.epoch += there;
    int rc = there ? lg_keyring_slot_change(k, d) : lg_keyring_slot_add(k, d);
    lg_slot_draft_free(d);
    return rc;
}

static struct copy_of made_copy;
static int do_backup(unsigned i)
{
    (void)i;
    want = 0;
    copy_free(&made_copy);
    int rc = copy_make(k, "a backup", &made_copy);
    w.n_inventory++;
    unsigned c = dice(COPIES);
    w.inventory[c].there = true;
    w.inventory[c].voided = false;
    memcpy(w.inventory[c].id, made_copy.id, LG_ID_LEN);
    if (!rc) {
        copy_free(&copies[c].c);
        copies[c].c = made_copy;
        made_copy = (struct copy_of){ 0 };
        uint8_t(*dead)[LG_ID_LEN] = copies[c].w ? copies[c].w->dead : calloc(DEAD, LG_ID_LEN);
        copies[c].w = copies[c].w ? copies[c].w : malloc(sizeof w);
        *copies[c].w = w;
        copies[c].w->dead = dead;
        memcpy(dead, w.dead, w.n_dead * LG_ID_LEN);
    }
    return rc;
}

static int do_void(unsigned i)
{
    unsigned c = i % COPIES;
    uint8_t none[LG_ID_LEN] = "no such backup";
    const uint8_t *id = w.inventory[c].there ? w.inventory[c].id : none;
    want = !w.inventory[c].there ? -ENOENT : w.inventory[c].voided ? -EALREADY : 0;
    if (!want) {
        w.inventory[c].voided = true;
        w.n_void++;
    }
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_backup_void(k, id);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

static int do_confirm(unsigned i)
{
    struct lg_act a = act_of(k, LG_ACT_DESTROY_ENABLE, NULL), got;
    (void)i;
    want = early(0);
    const struct person *p = officer();
    int rc = submit(k, &a, p);
    if (rc || want)
        return rc;
    want = w.frozen ? -ENOLCK : 0;
    rc = approve(k, &a, other(p));
    if (rc || want)
        return rc;
    want = w.restored ? 0 : -EALREADY;
    if (!want) {
        w.restored = false;
        for (unsigned j = 0; j < UIDS; j++)
            if (w.s[j].state == LG_KEY_DESTROY_APPROVED) {
                w.s[j].due_wall = now.wall_s + WEEK;
                w.s[j].due_run = w.run + WEEK;
            }
    }
    rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_restored_confirm(k);
    if (!rc)
        rc = lg_keyring_act_claim(k, a.nonce, LG_ACT_DESTROY_ENABLE, NULL, &got);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

#endif
