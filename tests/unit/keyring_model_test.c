/* The keyring's whole life against a simple model in memory: random operations, every answer and everything that can be read compared; power cuts before a
 * random call of an operation, after which the keyring is as before it or as after it, wholly. The seed is printed: LG_MODEL_SEED, and LG_MODEL_STEPS. */
#include <fcntl.h>
#include <time.h>

#include "office.h"
#include "power.h"

enum { UIDS = 10, COPIES = 6, DEAD = 8192, SLOTS = 4, PENDING = 4 };

struct study_model {
    enum lg_key_state state; /* 0: there is none */
    enum lg_key_state before; /* of the approved destruction: where cancelling leads */
    bool held, has_prov, asked;
    uint64_t retain, due_wall, due_run;
    uint32_t n; /* versions */
    uint8_t kid[LG_ID_LEN], key[LG_KEY_VERSIONS_MAX][LG_KEY_LEN];
    uint8_t prov[LG_ID_LEN], prov_key[LG_KEY_LEN];
    struct lg_act revoke; /* asked for, or waiting */
};

struct slot_model {
    bool there, proved;
    char name[12], pass[12];
};

struct world {
    struct study_model s[UIDS];
    struct slot_model slot[SLOTS];
    uint8_t (*dead)[LG_ID_LEN]; /* of keys that were destroyed; it only grows */
    unsigned n_dead, officers;
    uint64_t run, base_wall, base_boot, incarnation, living, destroyed, epoch;
    bool frozen, restored;
    struct {
        bool there, voided;
        uint8_t id[LG_ID_LEN];
    } inventory[COPIES];
    unsigned n_inventory, n_void; /* in all */
};

static struct world w;
static struct person sam, ruth, third;
static struct lg_keyring *k;
static struct { /* keyring backups, and the world as it was */
    struct copy_of c;
    struct world *w;
} copies[COPIES];
static uint8_t (*all_dead)[LG_ID_LEN];
static uint8_t *tombs; /* of every keyring there was: the operator keeps them */
static size_t tombs_len;

static uint64_t seed_state, first_seed;
static unsigned long step_no;
static uint32_t dice(uint32_t n)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed_state >> 33) % n;
}

#define SAME(what)                                                                                                                                     \
    do {                                                                                                                                               \
        if (!(what)) {                                                                                                                                 \
            differs = #what;                                                                                                                           \
            return false;                                                                                                                              \
        }                                                                                                                                              \
    } while (0)
static const char *differs;

/* ---- what can be read ------------------------------------------------------------------------------------------------------------------------------- */

static const char *uid_of(unsigned i)
{
    static char uid[16];
    snprintf(uid, sizeof uid, "1.2.%u", i);
    return uid;
}

static bool key_is(const uint8_t kid[LG_ID_LEN], uint32_t version, int want, const uint8_t *bytes)
{
    struct lg_key x;
    int rc = lg_keyring_key_by_id(k, kid, version, &x);
    bool same = rc == want && (rc || !bytes || memcmp(x.key->b, bytes, LG_KEY_LEN) == 0);
    if (!rc)
        lg_secret_free(x.key);
    return same;
}

static bool study_matches(const struct study_model *m, unsigned i)
{
    struct lg_study s;
    int rc = lg_keyring_study_show(k, uid_of(i), &s);
    SAME(rc == (m->state ? 0 : -ENOENT));
    if (!m->state)
        return true;
    int want = m->state == LG_KEY_ACTIVE ? 0 : -EKEYREVOKED;
    bool gone = m->state == LG_KEY_DESTROYED;
    SAME(s.state == m->state);
    SAME(memcmp(s.kid, m->kid, LG_ID_LEN) == 0);
    SAME(gone || s.held == m->held);
    SAME(gone || s.retain_until == m->retain);
    SAME(s.version == (gone ? 0 : m->n));
    SAME(m->state != LG_KEY_DESTROY_APPROVED || s.due == m->due_wall);
    for (uint32_t v = 1; v <= m->n; v += 1 + m->n / 3)
        SAME(key_is(m->kid, v, want, m->key[v - 1]));
    SAME(gone || key_is(m->kid, m->n, want, m->key[m->n - 1]));
    SAME(gone || key_is(m->kid, m->n + 1, want ? want : -ENOKEY, NULL));
    SAME(!m->has_prov || gone || key_is(m->prov, 1, want, m->prov_key));
    struct lg_act_record r;
    if (m->asked || m->state == LG_KEY_DESTROY_APPROVED) {
        SAME(lg_keyring_act_get(k, m->revoke.nonce, &r) == 0);
        SAME(r.state == (m->state == LG_KEY_DESTROY_APPROVED && !m->asked ? LG_ACT_WAITING : now.wall_s > m->revoke.expires ? LG_ACT_EXPIRED : LG_ACT_PENDING));
    }
    return true;
}

static bool matches(const struct world *m, bool whole)
{
    struct lg_keyring_stat st;
    struct lg_keyring_time t;
    SAME(lg_keyring_stat(k, &st) == 0);
    SAME(st.studies == m->living);
    SAME(st.destroyed == m->destroyed);
    SAME(st.restored == m->restored);
    SAME(st.epoch == m->epoch);
    SAME(lg_keyring_time(k, &t) == 0);
    SAME((t.frozen != 0) == m->frozen);
    SAME(t.run_s == m->run);
    unsigned from = dice(UIDS);
    for (unsigned i = 0; i < (whole ? UIDS : 2); i++)
        if (!study_matches(&m->s[(from + i) % UIDS], (from + i) % UIDS))
            return false;
    for (unsigned i = 0; i < 4 && m->n_dead; i++)
        SAME(key_is(m->dead[dice(m->n_dead)], 0, -EKEYREVOKED, NULL));
    if (!whole)
        return true;
    struct lg_officer o[LG_OFFICERS_MAX];
    unsigned n, there = 0;
    SAME(lg_keyring_officers(k, o, &n) == 0 && n == m->officers);
    struct lg_slot_info info[LG_SLOTS_MAX];
    SAME(lg_slotfile_list(at("k.root"), info, &n) == 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        bool found = false;
        there += m->slot[i].there;
        for (unsigned j = 0; j < n; j++)
            if (strcmp(info[j].name, m->slot[i].name) == 0 && (info[j].proved != 0) == m->slot[i].proved)
                found = true;
        SAME(found == m->slot[i].there);
    }
    SAME(n == there);
    struct lg_backup_entry e[LG_BACKUPS_MAX];
    unsigned v = 0;
    SAME(lg_backup_list(k, e, LG_BACKUPS_MAX, &n) == 0);
    for (unsigned i = 0; i < n; i++)
        v += e[i].voided != 0;
    SAME(n == (m->n_inventory < LG_BACKUPS_MAX ? m->n_inventory : LG_BACKUPS_MAX));
    SAME(n == LG_BACKUPS_MAX || v == m->n_void);
    return true;
}

static void assert_world(const struct world *m, bool whole)
{
    if (!matches(m, whole)) {
        print_error("seed %llu, step %lu: %s\n", (unsigned long long)first_seed, step_no, differs);
        fail();
    }
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------------------------------- */

static void tick(void)
{
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static int open_with(const char *pass, struct lg_keyring **ret)
{
    struct lg_roots r;
    struct lg_keyring *x;
    int rc = lg_keyring_open(at("k"), at("k.root"), at("m"), &x);
    if (rc)
        return rc;
    lg_keyring_set_clock(x, clock_read, NULL);
    rc = lg_slotfile_unlock(lg_slotfile_pick(at("k.root"), at("m.root")), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
    if (!rc)
        rc = lg_keyring_unlock(x, &r);
    if (!rc)
        lg_roots_done(&r);
    if (!rc)
        rc = lg_keyring_unfinished(x);
    if (!rc)
        rc = lg_keyring_unkept(x);
    if (!rc)
        rc = lg_keyring_officers_check(x);
    if (rc)
        lg_keyring_close(x);
    else
        *ret = x;
    return rc;
}

/* The tombstones of this keyring, added to those that are kept. */
static void keep_tombstones(void)
{
    static uint8_t b[8 << 20];
    int fd = open(at("k.root.tombstones"), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, b, sizeof b);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    if (!tombs) {
        tombs = malloc(32 << 20);
        memcpy(tombs, b, 24);
        tombs_len = 24;
    }
    for (ssize_t at_b = 24; at_b < n; at_b += LG_TOMBSTONE_LEN)
        if (!memmem(tombs, tombs_len, b + at_b, LG_TOMBSTONE_LEN)) {
            memcpy(tombs + tombs_len, b + at_b, LG_TOMBSTONE_LEN);
            tombs_len += LG_TOMBSTONE_LEN;
        }
}

/* ---- operations: each makes the change in the world `w`, and returns what the keyring answered; want is what it should ----------------------------------- */

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
        *m = (struct study_model){ .state = LG_KEY_ACTIVE, .n = 1 };
        memcpy(m->kid, key.kid, LG_ID_LEN);
        memcpy(m->key[0], key.key->b, LG_KEY_LEN);
        w.living++;
    } else if (!want && !rc) {
        assert_true(!created && key.version == m->n && memcmp(key.key->b, m->key[m->n - 1], LG_KEY_LEN) == 0);
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
    want = !m->state ? -ENOENT : m->state != LG_KEY_ACTIVE ? -EKEYREVOKED : m->n == LG_KEY_VERSIONS_MAX ? -ENOSPC : 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_rotate_study(k, uid_of(i), kid);
    if (!rc && !want && lg_keyring_study_find(k, uid_of(i), &x) == 0) {
        memcpy(m->key[m->n++], x.key->b, LG_KEY_LEN);
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
        w.living--, w.destroyed++;
        will++;
        destroyed_ever++;
    }
    w.epoch += will != 0;
    want = 0;
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_due(k, UIDS, kids, &n);
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

/* ---- what happens around them: never cut ------------------------------------------------------------------------------------------------------------------ */

static void judge(void)
{
    uint64_t passed = now.boot_s - w.base_boot, right = w.base_wall + passed, slack = 300 + passed / 1000;
    w.frozen = w.frozen || now.wall_s > right + slack || now.wall_s + slack < right;
}

static void time_passes(void)
{
    for (unsigned d = dice(6) + 1; d--;) {
        pass_time(DAY);
        tick();
        w.run += DAY;
    }
    judge();
}

static void clock_jumps(void)
{
    uint64_t slack = 300 + (now.boot_s - w.base_boot) / 1000, by = 2 * slack + dice(3 * DAY);
    now.wall_s = dice(2) ? now.wall_s + by : now.wall_s - by;
    judge();
    tick();
}

static void reopen(void)
{
    unsigned i = dice(SLOTS);
    struct lg_roots r;
    while (!w.slot[i].there)
        i = (i + 1) % SLOTS;
    lg_keyring_close(k);
    assert_int_equal(open_with("wrong", &k), -EKEYREJECTED);
    assert_int_equal(open_with(w.slot[i].pass, &k), 0);
    assert_int_equal(lg_slotfile_unlock(at("k.root"), LG_SLOT_PASSPHRASE, NULL, w.slot[i].pass, strlen(w.slot[i].pass), &r), 0);
    assert_int_equal(lg_keyring_slot_proved(k, r.slot), 0);
    lg_roots_done(&r);
    w.slot[i].proved = true;
    tick();
}

static void lock_unlock(void)
{
    struct lg_root root;
    struct lg_key x;
    assert_int_equal(lg_keyring_root(k, &root), 0);
    struct lg_roots r = { .n = 1, .r = { root } };
    lg_keyring_lock(k);
    for (unsigned i = 0; i < UIDS; i++)
        assert_int_equal(lg_keyring_study_find(k, uid_of(i), &x), -ENOKEY);
    pass_time(DAY); /* no running time */
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    lg_roots_done(&r);
    assert_int_equal(lg_keyring_officers_check(k), 0);
    tick();
    judge();
}

/* The keyring is lost; an older backup of it is restored, with all tombstones that there ever were. */
static void restore(unsigned c)
{
    struct lg_backup_later later = { .tombstones = tombs, .tombstones_len = tombs_len };
    unsigned n, quarantined = 0;
    if (!copies[c].w)
        return;
    keep_tombstones();
    later = (struct lg_backup_later){ .tombstones = tombs, .tombstones_len = tombs_len };
    lg_keyring_close(k);
    static const char *const parts[] = { "k", "m" };
    for (unsigned i = 0; i < 2; i++) {
        char name[40];
        remove_tree(at(parts[i]), true);
        snprintf(name, sizeof name, "%s.root", parts[i]), unlink(at(name));
        snprintf(name, sizeof name, "%s.root.tombstones", parts[i]), unlink(at(name));
    }
    w = *copies[c].w;
    w.dead = all_dead;
    memcpy(w.dead, copies[c].w->dead, w.n_dead * LG_ID_LEN);
    memset(w.inventory, 0, sizeof w.inventory);
    memset(w.slot, 0, sizeof w.slot);
    for (unsigned i = 0; i < SLOTS; i++)
        snprintf(w.slot[i].name, sizeof w.slot[i].name, i ? "slot%u" : "passphrase", i);
    w.slot[0].there = w.slot[0].proved = true;
    snprintf(w.slot[0].pass, sizeof w.slot[0].pass, "first");
    w.n_inventory = w.n_void = 0;
    w.restored = true;
    w.incarnation = now.wall_s;
    for (unsigned i = 0; i < UIDS; i++) {
        struct study_model *m = &w.s[i];
        bool later_gone = false;
        for (size_t t = 24; changeable(m) && t < tombs_len; t += LG_TOMBSTONE_LEN)
            later_gone = later_gone || memcmp(tombs + t + 8 + LG_ID_LEN, m->kid, LG_ID_LEN) == 0;
        if (!later_gone || m->state == LG_KEY_RESTORED)
            continue;
        quarantined += m->state != LG_KEY_DESTROY_APPROVED || m->before != LG_KEY_RESTORED;
        if (m->state == LG_KEY_DESTROY_APPROVED)
            m->before = LG_KEY_RESTORED;
        else
            m->state = LG_KEY_RESTORED;
    }
    assert_int_equal(copy_restore(&copies[c].c, at("k"), at("k.root"), "first", &later, &n), 0);
    assert_int_equal(n, quarantined);
    assert_int_equal(open_with("first", &k), 0);
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_true(st.epoch > w.epoch && st.epoch % (1ull << 32) == 0);
    w.epoch = st.epoch;
    /* What was judged when the backup was made may not be what is judged now: base and running time are the backup's. */
    tick();
    judge();
}

/* ---- the walk ------------------------------------------------------------------------------------------------------------------------------------------------ */

static int (*const steps[])(unsigned i) = { do_arrive, do_arrive, do_arrive, do_attach, do_rotate, do_ask, do_ask, do_ask, do_approve, do_approve, do_approve, do_approve, do_cancel, do_suspend, do_resume,
                                            do_resume, do_hold, do_release, do_release, do_release, do_retain, do_readmit, do_readmit, do_replay, do_officer, do_quorum, do_due, do_due, do_due, do_due, do_root, do_slot,
                                            do_backup, do_void, do_confirm };
enum { STEPS = sizeof steps / sizeof *steps };
static unsigned cuts, undone, answers, refusals, restores;

static void crash_and_resolve(const struct world *before)
{
    unsigned i = dice(SLOTS);
    struct world after = w;
    while (!before->slot[i].there || !after.slot[i].there || strcmp(before->slot[i].pass, after.slot[i].pass) != 0)
        i = (i + 1) % SLOTS;
    cuts++;
    lg_keyring_close(k);
    power_off((enum power_loss)dice(POWER_LOSSES), seed_state);
    if (dice(2)) { /* recovery is cut as well */
        power_on(top, dice(20) + 1);
        if (open_with(after.slot[i].pass, &k) == 0)
            lg_keyring_close(k);
        power_off((enum power_loss)dice(POWER_LOSSES), seed_state);
    }
    assert_int_equal(open_with(after.slot[i].pass, &k), 0);
    uint64_t dice_was = seed_state;
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    /* A change of root that was undone may have been begun: then its end changed the root and nothing else. */
    struct world undo = *before;
    undo.epoch = st.epoch == before->epoch + 1 ? st.epoch : before->epoch;
    if (matches(&after, true)) {
        w = after;
    } else {
        const char *why = differs;
        seed_state = dice_was;
        if (!matches(&undo, true)) {
            print_error("seed %llu, step %lu: after a power cut neither as before (%s) nor as after (%s)\n", (unsigned long long)first_seed, step_no, differs, why);
            fail();
        }
        w = undo;
        undone++;
    }
    tick();
    judge();
}

static void step(void)
{
    unsigned what = dice(STEPS + 8), i = dice(UIDS);
    struct world *before = malloc(sizeof w);
    *before = w;
    if (what < STEPS) {
        bool cut = dice(6) == 0 && steps[what] != do_confirm && steps[what] != do_replay;
        if (cut)
            power_on(top, dice(dice(3) ? 10 : 40) + 1);
        want = 0;
        int rc = steps[what](i);
        if (cut && power_gone()) {
            crash_and_resolve(before);
        } else {
            if (cut)
                power_off(POWER_KEEP_ALL, 0);
            if (rc != want) {
                print_error("seed %llu, step %lu, operation %u: answered %d, expected %d\n", (unsigned long long)first_seed, step_no, what, rc, want);
                fail();
            }
            answers++;
            refusals += rc != 0;
        }
    } else if (what < STEPS + 5) {
        time_passes();
    } else if (what == STEPS + 5) {
        if (dice(3) == 0)
            reopen();
        else
            lock_unlock();
    } else if (what == STEPS + 6) {
        if (dice(4) == 0)
            clock_jumps();
    } else if (dice(10) == 0) {
        restore(dice(COPIES));
        restores++;
    }
    if (w.frozen && dice(4) == 0) {
        int rc = do_clock(0);
        assert_int_equal(rc, want);
    }
    free(before);
}

static int setup(void **state)
{
    (void)state;
    make_top("lgmodel");
    sam = person("Sam", LG_ROLE_SECURITY, 101), ruth = person("Ruth", LG_ROLE_RETENTION, 102), third = person("Olga", LG_ROLE_SECURITY, 103);
    all_dead = calloc(DEAD, LG_ID_LEN);
    return lg_keyring_create(at("k"), at("k.root"), "first", 5, 0);
}

static int teardown(void **state)
{
    (void)state;
    power_off(POWER_KEEP_ALL, 0);
    for (unsigned i = 0; i < COPIES; i++) {
        copy_free(&copies[i].c);
        if (copies[i].w)
            free(copies[i].w->dead);
        free(copies[i].w);
    }
    copy_free(&made_copy);
    free(all_dead);
    free(tombs);
    lg_secret_free(sam.seed), lg_secret_free(ruth.seed), lg_secret_free(third.seed);
    remove_tree(top, true);
    return 0;
}

static void test_model(void **state)
{
    (void)state;
    const char *env = getenv("LG_MODEL_STEPS"), *seed = getenv("LG_MODEL_SEED");
    unsigned long n = env ? strtoul(env, NULL, 10) : 20000;
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    first_seed = seed_state = seed ? strtoull(seed, NULL, 10) : (uint64_t)t.tv_sec * 1000003u + (uint64_t)t.tv_nsec;
    print_message("seed %llu\n", (unsigned long long)first_seed);
    memset(&w, 0, sizeof w);
    w.dead = all_dead;
    for (unsigned i = 0; i < SLOTS; i++)
        snprintf(w.slot[i].name, sizeof w.slot[i].name, i ? "slot%u" : "passphrase", i);
    w.slot[0].there = w.slot[0].proved = true;
    snprintf(w.slot[0].pass, sizeof w.slot[0].pass, "first");
    w.epoch = 1;
    assert_int_equal(open_with("first", &k), 0);
    tick();
    w.base_wall = now.wall_s, w.base_boot = now.boot_s;
    struct lg_policy p;
    lg_policy_default(&p);
    p.suspend_max = 1000000;
    struct lg_act a = act_of(k, LG_ACT_POLICY, NULL);
    assert_int_equal(lg_policy_encode(&p, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, NULL), 0);
    const struct person *const two[] = { &sam, &ruth };
    for (unsigned i = 0; i < 2; i++) {
        a = act_of(k, LG_ACT_OFFICER_ADD, NULL);
        assert_int_equal(lg_officer_encode(&two[i]->o, a.data, &a.data_len), 0);
        assert_int_equal(submit(k, &a, NULL), 0);
    }
    w.officers = 2;
    for (step_no = 0; step_no < n; step_no++) {
        step();
        assert_world(&w, step_no % 8 == 0);
    }
    print_message("%lu steps: %u answers, %u of them refusals; %u power cuts, %u undone; %u restores; %u studies destroyed\n", n, answers, refusals, cuts, undone, restores, destroyed_ever);
    assert_true(n < 5000 || (cuts > n / 100 && undone && refusals > n / 10 && destroyed_ever > n / 400 && restores));
    lg_keyring_close(k);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_model, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
