/* For keyring_model_test.c alone: vaults, and retiring old versions of study keys: asked for, approved, cancelled, carried out batch by batch. */
#ifndef LG_TEST_KEYRING_MODEL_TRIM_H
#define LG_TEST_KEYRING_MODEL_TRIM_H

#include "keyring_model_ops.h"

static unsigned retired_ever;

static const uint8_t *vault_of(unsigned i)
{
    static const uint8_t id[VAULTS][LG_ID_LEN] = { "vault one", "vault two", "vault three" };
    return id[i];
}

static int do_vault(unsigned i)
{
    struct lg_key v = { .key = NULL }, g = { .key = NULL };
    (void)i;
    want = 0;
    if (w.vaults == VAULTS || dice(4))
        return 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_vault_add(k, vault_of(w.vaults++), &v, &g);
    lg_secret_free(v.key), lg_secret_free(g.key);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

static int vaults_named(const struct lg_act *a)
{
    struct lg_trim what;
    assert_int_equal(lg_trim_decode(a->data, a->data_len, &what), 0);
    return what.others_gone || what.n_vaults >= w.vaults ? 0 : -EREMOTE;
}

/* May the older versions of this study go, when no ciphertext from before that time is kept? */
static int may_trim(const struct study_model *m, uint64_t declared)
{
    return m->state != LG_KEY_ACTIVE ? -EKEYREVOKED : m->held ? -EBUSY : live(m) < 2 ? -EALREADY : !m->rotated || m->rotated > declared ? -EDOM : 0;
}

/* What the act says of vaults, time and study; the same when it is asked for and when it is approved. */
static int trim_good(const struct trim_model *t)
{
    const struct study_model *m = &w.s[t->study];
    static const uint8_t none[LG_ID_LEN];
    int rc = !t->all && memcmp(t->a.kid, none, LG_ID_LEN) == 0 ? -EINVAL : vaults_named(&t->a);
    if (!rc && t->a.number > now.wall_s)
        rc = -EDOM;
    if (!rc && !t->all)
        rc = !m->state ? -ENOENT : memcmp(m->kid, t->a.kid, LG_ID_LEN) != 0 ? -ESTALE : may_trim(m, t->a.number);
    return rc;
}

static int do_trim_ask(unsigned i)
{
    for (unsigned j = 0; j < UIDS && dice(8) && (live(&w.s[i]) < 2 || w.s[i].state != LG_KEY_ACTIVE); j++)
        i = (i + 1) % UIDS;
    struct trim_model t = { .state = LG_ACT_PENDING, .all = dice(2), .study = i, .asked = now.wall_s };
    struct lg_trim what = { .n_vaults = w.vaults };
    const struct person *p = officer();
    t.a = act_of(k, LG_ACT_TRIM, t.all ? NULL : uid_of(i));
    t.a.number = dice(12) == 0 ? now.wall_s + 60 : dice(8) == 0 && w.s[i].rotated ? w.s[i].rotated - 1 : now.wall_s;
    for (unsigned v = 0; v < w.vaults; v++)
        memcpy(what.vault[v], vault_of(v), LG_ID_LEN);
    if (w.vaults && dice(8) == 0)
        what.n_vaults--;
    what.others_gone = dice(8) == 0;
    assert_int_equal(lg_trim_encode(&what, t.a.data, &t.a.data_len), 0);
    memcpy(t.a.by, p->o.pub, sizeof t.a.by);
    want = early(trim_good(&t));
    if (!want) {
        unsigned at_t = dice(TRIMS);
        for (unsigned j = 0; j < TRIMS && (w.trim[at_t].state == LG_ACT_PENDING || w.trim[at_t].state == LG_ACT_WAITING); j++)
            at_t = (at_t + 1) % TRIMS;
        w.trim[at_t] = t;
    }
    return submit(k, &t.a, p);
}

static struct trim_model *trim_in(enum lg_act_state state, unsigned i)
{
    for (unsigned j = 0; j < TRIMS; j++, i++)
        if (w.trim[i % TRIMS].state == state)
            return &w.trim[i % TRIMS];
    return NULL;
}

static int do_trim_approve(unsigned i)
{
    struct trim_model *t = trim_in(LG_ACT_PENDING, i);
    if (!t)
        return want = 0;
    struct lg_act a = t->a;
    if (dice(8) == 0) {
        want = -ELOOP;
        return approve(k, &a, who(&a));
    }
    want = now.wall_s > a.expires || a.created <= w.incarnation ? -ETIME : w.frozen ? -ENOLCK : trim_good(t);
    if (!want) {
        t->state = LG_ACT_WAITING;
        t->due_wall = now.wall_s + WEEK;
        t->due_run = w.run + WEEK;
    }
    return approve(k, &a, other(who(&a)));
}

static int do_trim_cancel(unsigned i)
{
    struct trim_model *t = trim_in(dice(2) ? LG_ACT_PENDING : LG_ACT_WAITING, i);
    if (!t || dice(3))
        return want = 0;
    struct lg_act a = act_of(k, LG_ACT_CANCEL, NULL);
    memcpy(a.kid, t->a.nonce, LG_ID_LEN);
    want = early(t->state == LG_ACT_PENDING && now.wall_s > t->a.expires ? -EALREADY : 0);
    if (!want)
        t->state = LG_ACT_CANCELLED;
    return submit(k, &a, officer());
}

static int trim_ready(const struct trim_model *t)
{
    if (w.restored || !t->state)
        return -EROFS;
    if (t->a.created <= w.incarnation)
        return -ETIME;
    if (t->state != LG_ACT_WAITING)
        return t->state != LG_ACT_PENDING ? -EALREADY : now.wall_s > t->a.expires ? -ETIME : -EPERM;
    int rc = vaults_named(&t->a);
    return rc ? rc : w.frozen ? -ENOLCK : t->due_wall > now.wall_s || t->due_run > w.run ? -EAGAIN : 0;
}

static void retire(struct study_model *m, uint32_t below)
{
    memmove(m->key[0], m->key[below - m->first], (size_t)(m->n - below + 1) * LG_KEY_LEN);
    m->first = below;
}

/* All but the newest, each with a tombstone. */
static void bury(struct study_model *m)
{
    m->buried_from = m->first, m->buried_to = m->n;
    w.tombstones += m->n - m->first;
    retire(m, m->n);
}

/* One batch: what becomes pending in one commit, and is gone after the next; of which a crash leaves the second to the next unlock. Then what is kept of it. */
static int do_trim_run(unsigned i)
{
    for (unsigned j = 0; j < TRIMS && dice(8) && trim_ready(&w.trim[i % TRIMS]); j++)
        i++;
    struct trim_model *t = &w.trim[i % TRIMS];
    struct lg_rotated done = { .n = 0 };
    unsigned n = 0, full = 0, max = dice(2) ? dice(3) + 1 : UIDS, destroyed;
    bool end = true;
    if (!t || !t->state)
        return want = 0;
    bool go_on = t->all && t->begun && dice(4);
    uint8_t act[LG_ID_LEN], after[LG_ID_LEN];
    memcpy(act, t->a.nonce, LG_ID_LEN), memcpy(after, t->last, LG_ID_LEN);
    want = trim_ready(t);
    if (!want && !t->all) {
        struct study_model *m = &w.s[t->study];
        want = !m->state ? -ENOENT : memcmp(m->kid, t->a.kid, LG_ID_LEN) != 0 ? -ESTALE : may_trim(m, t->a.number);
        if (!want && m->rotated > t->asked)
            want = -ESTALE;
        if (!want)
            bury(m), n = 1;
    } else if (!want) {
        uint8_t at_kid[LG_ID_LEN] = { 0 };
        struct study_model *m = NULL;
        if (go_on)
            memcpy(at_kid, after, LG_ID_LEN);
        for (;; memcpy(at_kid, m->kid, LG_ID_LEN)) { /* in the order of their ids */
            m = NULL;
            for (unsigned j = 0; j < UIDS; j++)
                if (live(&w.s[j]) >= 2 && memcmp(w.s[j].kid, at_kid, LG_ID_LEN) > 0 && (!m || memcmp(w.s[j].kid, m->kid, LG_ID_LEN) < 0))
                    m = &w.s[j];
            if (!m || n == max)
                break;
            if (may_trim(m, t->a.number) || m->rotated > t->asked)
                full++;
            else
                bury(m), n++;
        }
        end = n < max;
    }
    if (!want && end)
        t->state = LG_ACT_DONE;
    w.epoch += n != 0;
    retired_ever += n;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_trim(k, act, go_on ? after : NULL, max, &done);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    if (rc)
        return rc;
    if (want || done.n != n || done.full != full || done.end != end) {
        print_error("seed %llu, step %lu: %s retired versions of %u studies, passed over %u, ended %d; expected %d: %u, %u, %d\n", (unsigned long long)first_seed, step_no,
                    t->all ? "all" : "one", done.n, done.full, done.end, want, n, full, end);
        fail();
    }
    memcpy(t->last, done.last, LG_ID_LEN);
    t->begun = true;
    if (n)
        rc = lg_keyring_destroy(k, &destroyed);
    return rc ? rc : lg_keyring_keep(k);
}

#endif
