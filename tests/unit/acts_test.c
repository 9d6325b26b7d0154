/* Officers, acts, holds, retention, the waiting period and the clock: every refusal, and a random walk through the whole state machine against a simple
 * model, with crashes at every step that destruction writes. The clock is the test's own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "backup.h"
#include "govern.h"

static char top[64], dir[80], slot[96];
static const char pass[] = "correct horse";
static struct lg_clock now;
static const struct lg_asker admin = { .account = 0, .admin = true };

static void clock_read(void *arg, struct lg_clock *ret)
{
    (void)arg;
    *ret = now;
}

/* Time that passes as it should. */
static void pass_time(uint64_t s)
{
    now.wall_s += s;
    now.boot_s += s;
    now.run_s += s;
}

static int setup(void **state)
{
    (void)state;
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/lgacts-XXXXXX" : "/tmp/lgacts-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    now = (struct lg_clock){ .wall_s = 1800000000, .boot_s = 1000, .run_s = 1000, .boot_id = "boot one" };
    assert_int_equal(lg_keyring_create(dir, slot, pass, strlen(pass), 10), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[160];
    static const char *const names[] = { "data.mdb", "lock.mdb", "lock" };
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", dir, names[i]);
        unlink(path);
    }
    rmdir(dir);
    unlink(slot);
    snprintf(path, sizeof path, "%s.tombstones", slot);
    unlink(path);
    return rmdir(top);
}

static struct lg_keyring *opened(void)
{
    struct lg_keyring *k;
    struct lg_roots roots;
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    lg_keyring_set_clock(k, clock_read, NULL);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &roots), 0);
    assert_int_equal(lg_keyring_unlock(k, &roots), 0);
    lg_roots_done(&roots);
    return k;
}

static void tick(struct lg_keyring *k);
/* As the key manager does after an unlock: running time counts from then on. */
static struct lg_keyring *reopened(struct lg_keyring *k)
{
    lg_keyring_close(k);
    k = opened();
    assert_int_equal(lg_keyring_officers_check(k), 0);
    tick(k);
    return k;
}

static void tick(struct lg_keyring *k)
{
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

/* ---- people -------------------------------------------------------------------------------------------------------------------------------- */

struct person {
    struct lg_secret *seed;
    struct lg_officer o;
};

static struct person person(const char *name, enum lg_role role, uint32_t account)
{
    struct person p = { .seed = lg_secret_random(), .o = { .role = role, .account = account } };
    assert_non_null(p.seed);
    assert_int_equal(lg_sign_public(p.seed, p.o.pub), 0);
    snprintf(p.o.name, sizeof p.o.name, "%s", name);
    return p;
}

static struct lg_asker as(const struct person *p) { return (struct lg_asker){ .account = p->o.account, .admin = false }; }

static struct lg_act act_of(struct lg_keyring *k, enum lg_action action, const char *uid)
{
    struct lg_act a = { .action = action, .created = now.wall_s, .expires = now.wall_s + 86400, .reason = "because" };
    struct lg_study s;
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    memcpy(a.keyring_id, st.keyring_id, LG_ID_LEN);
    assert_int_equal(lg_random(a.nonce, LG_ID_LEN), 0);
    if (uid) {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        if (lg_keyring_study_show(k, uid, &s) == 0)
            memcpy(a.kid, s.kid, LG_ID_LEN);
    }
    return a;
}

/* p NULL: unsigned, from an administrator. */
static int submit(struct lg_keyring *k, struct lg_act *a, const struct person *p, enum lg_act_state *ret)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_act_record r;
    enum lg_act_effect e;
    struct lg_asker who = p ? as(p) : admin;
    if (p)
        memcpy(a->by, p->o.pub, sizeof a->by);
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    if (p)
        assert_int_equal(lg_act_sign(p->seed, LG_ACT_ASK, doc, len, sig), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    int rc = lg_keyring_act_submit(k, doc, len, p ? sig : NULL, &who, &r, &e);
    if (rc)
        lg_keyring_abort(k);
    else
        assert_int_equal(lg_keyring_commit(k), 0);
    if (!rc && ret)
        *ret = r.state;
    if (!rc)
        assert_int_equal(lg_keyring_officers_note(k), 0);
    return rc;
}

static int approve(struct lg_keyring *k, const struct lg_act *a, const struct person *p)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_act_record r;
    enum lg_act_effect e;
    struct lg_asker who = as(p);
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    assert_int_equal(lg_act_sign(p->seed, LG_ACT_APPROVE, doc, len, sig), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    int rc = lg_keyring_act_approve(k, a->nonce, p->o.pub, sig, &who, &r, &e);
    if (rc)
        lg_keyring_abort(k);
    else
        assert_int_equal(lg_keyring_commit(k), 0);
    if (!rc)
        assert_int_equal(lg_keyring_officers_note(k), 0);
    return rc;
}

static int register_one(struct lg_keyring *k, const struct person *p, const struct person *by, const struct person *second)
{
    struct lg_act a = act_of(k, LG_ACT_OFFICER_ADD, NULL);
    assert_int_equal(lg_officer_encode(&p->o, a.data, &a.data_len), 0);
    int rc = submit(k, &a, by, NULL);
    return rc || !second ? rc : approve(k, &a, second);
}

static void both(struct lg_keyring *k, enum lg_action action, const char *uid, uint64_t number, const struct person *a, const struct person *b)
{
    struct lg_act x = act_of(k, action, uid);
    x.number = number;
    assert_int_equal(submit(k, &x, a, NULL), 0);
    assert_int_equal(approve(k, &x, b), 0);
}

static void study(struct lg_keyring *k, const char *uid)
{
    struct lg_study_info info = { .patient_id = "P1", .date = "20200101" };
    struct lg_key key;
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_secret_free(key.key);
}

static enum lg_key_state state_of(struct lg_keyring *k, const char *uid)
{
    struct lg_study s;
    assert_int_equal(lg_keyring_study_show(k, uid, &s), 0);
    return s.state;
}

static struct lg_kept kept; /* of the last carry_out */

static unsigned carry_out(struct lg_keyring *k)
{
    uint8_t kids[64][LG_ID_LEN];
    unsigned n, destroyed = 0;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_due(k, 64, kids, &n, &kept), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    if (n)
        assert_int_equal(lg_keyring_destroy(k, &destroyed), 0);
    assert_int_equal(destroyed, n);
    return n;
}

enum { DAY = 86400, WEEK = 7 * DAY };

static struct person sec, ret, sec2, aud;
static struct lg_keyring *with_officers(void)
{
    struct lg_keyring *k = opened();
    sec = person("Sam", LG_ROLE_SECURITY, 101);
    ret = person("Ruth", LG_ROLE_RETENTION, 102);
    sec2 = person("Olga", LG_ROLE_SECURITY, 103);
    aud = person("Aude", LG_ROLE_AUDITOR, 104);
    tick(k);
    assert_int_equal(register_one(k, &sec, NULL, NULL), 0);
    assert_int_equal(register_one(k, &ret, NULL, NULL), 0);
    assert_int_equal(register_one(k, &sec2, &sec, &ret), 0);
    assert_int_equal(register_one(k, &aud, &sec, &ret), 0);
    study(k, "1.1");
    study(k, "1.2");
    return k;
}

static void people_done(void)
{
    lg_secret_free(sec.seed);
    lg_secret_free(ret.seed);
    lg_secret_free(sec2.seed);
    lg_secret_free(aud.seed);
}

/* ---- one person, one signature, once --------------------------------------------------------------------------------------------------------- */

static void test_mode(void **state)
{
    (void)state;
    struct lg_keyring *k = opened();
    bool mode;
    study(k, "1.1");
    sec = person("Sam", LG_ROLE_SECURITY, 101), ret = person("Ruth", LG_ROLE_RETENTION, 102);
    struct person same_key = person("Other", LG_ROLE_RETENTION, 109), same_name = person("sAM", LG_ROLE_RETENTION, 109), same_account = person("Other", LG_ROLE_RETENTION, 101);
    memcpy(same_key.o.pub, sec.o.pub, sizeof sec.o.pub);
    assert_int_equal(register_one(k, &sec, NULL, NULL), 0);
    assert_int_equal(lg_keyring_officer_mode(k, &mode), 0);
    assert_false(mode);
    assert_int_equal(register_one(k, &same_key, NULL, NULL), -EEXIST);
    assert_int_equal(register_one(k, &same_name, NULL, NULL), -EEXIST);
    assert_int_equal(register_one(k, &same_account, NULL, NULL), -EEXIST);
    assert_int_equal(register_one(k, &ret, NULL, NULL), 0);
    assert_int_equal(lg_keyring_officer_mode(k, &mode), 0);
    assert_true(mode);
    k = reopened(k);
    assert_int_equal(lg_keyring_officer_mode(k, &mode), 0);
    assert_true(mode);
    /* Nothing without a signature any more, and no way back. */
    struct lg_act a = act_of(k, LG_ACT_HOLD, "1.1");
    assert_int_equal(submit(k, &a, NULL, NULL), -EPERM);
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, "1.1", "x", 0, kids, 4, &n), -EPERM);
    lg_keyring_abort(k);
    a = act_of(k, LG_ACT_OFFICER_REMOVE, NULL);
    a.data_len = LG_SIGN_PUB_LEN;
    memcpy(a.data, sec.o.pub, LG_SIGN_PUB_LEN);
    assert_int_equal(submit(k, &a, &ret, NULL), -EUSERS);
    lg_keyring_close(k);
    struct person *all[] = { &sec, &ret, &same_key, &same_name, &same_account };
    for (unsigned i = 0; i < 5; i++)
        lg_secret_free(all[i]->seed);
}

static void test_signatures(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    struct lg_act_record r;
    enum lg_act_effect e;
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_act a = act_of(k, LG_ACT_REVOKE, "1.1");
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(submit(k, &a, &ret, NULL), -EALREADY); /* replayed */
    assert_int_equal(approve(k, &a, &ret), -ELOOP);         /* by oneself */
    assert_int_equal(approve(k, &a, &aud), -EACCES);        /* not this role */
    struct person stranger = person("Nobody", LG_ROLE_SECURITY, 105);
    assert_int_equal(approve(k, &a, &stranger), -EKEYREJECTED);
    assert_int_equal(submit(k, &(struct lg_act){ .action = LG_ACT_CLOCK, .created = now.wall_s, .expires = now.wall_s, .reason = "x", .nonce = { 1 } }, &sec, NULL), -EXDEV);
    /* The same key under another name: registered again by a third pair after removal, it still does not count twice. */
    struct lg_act gone = act_of(k, LG_ACT_OFFICER_REMOVE, NULL);
    struct person ret2 = person("Rita", LG_ROLE_RETENTION, 106), again = ret;
    assert_int_equal(register_one(k, &ret2, &sec, &ret), 0);
    gone.data_len = LG_SIGN_PUB_LEN;
    memcpy(gone.data, ret.o.pub, LG_SIGN_PUB_LEN);
    assert_int_equal(submit(k, &gone, &sec, NULL), 0);
    assert_int_equal(approve(k, &gone, &sec2), 0);
    assert_int_equal(approve(k, &a, &sec), -EACCES); /* who asked is no officer any more */
    snprintf(again.o.name, sizeof again.o.name, "Rose");
    again.o.account = 107;
    assert_int_equal(register_one(k, &again, &sec, &ret2), 0);
    assert_int_equal(approve(k, &a, &again), -ELOOP);
    struct person account = person("Renate", LG_ROLE_RETENTION, 102), name = person("Ruth", LG_ROLE_RETENTION, 108);
    assert_int_equal(register_one(k, &account, &sec, &ret2), 0);
    assert_int_equal(register_one(k, &name, &sec, &ret2), 0);
    assert_int_equal(approve(k, &a, &account), -ELOOP);
    assert_int_equal(approve(k, &a, &name), -ELOOP);
    /* Altered at every byte; an approval is no request, a request no approval. */
    struct lg_act b = act_of(k, LG_ACT_HOLD, "1.2");
    memcpy(b.by, sec.o.pub, sizeof b.by);
    assert_int_equal(lg_act_encode(&b, doc, &len), 0);
    assert_int_equal(lg_act_sign(sec.seed, LG_ACT_APPROVE, doc, len, sig), 0);
    struct lg_asker who = as(&sec);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_submit(k, doc, len, sig, &who, &r, &e), -EKEYREJECTED);
    assert_int_equal(lg_act_sign(sec.seed, LG_ACT_ASK, doc, len, sig), 0);
    for (size_t i = 0; i < len; i++) {
        doc[i] ^= 1;
        assert_true(lg_keyring_act_submit(k, doc, len, sig, &who, &r, &e) != 0);
        doc[i] ^= 1;
    }
    struct lg_asker elsewhere = { .account = 102 };
    assert_int_equal(lg_keyring_act_submit(k, doc, len, sig, &elsewhere, &r, &e), -EACCES);
    assert_int_equal(lg_keyring_act_submit(k, doc, len, sig, &who, &r, &e), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    /* Expired: as a request, and while it waited for approval. */
    struct lg_act late = act_of(k, LG_ACT_REVOKE, "1.1");
    late.created -= 2 * DAY, late.expires = now.wall_s - 1;
    assert_int_equal(submit(k, &late, &sec, NULL), -ETIME);
    late = act_of(k, LG_ACT_REVOKE, "1.1"), late.created += 3600, late.expires += 3600;
    assert_int_equal(submit(k, &late, &sec, NULL), -ETIME);
    late = act_of(k, LG_ACT_REVOKE, "1.1"), late.expires = late.created + LG_ACT_LIFE_MAX_S + 1;
    assert_int_equal(submit(k, &late, &sec, NULL), -ETIME);
    late = act_of(k, LG_ACT_REVOKE, "1.1");
    assert_int_equal(submit(k, &late, &sec, NULL), 0);
    pass_time(DAY + 1);
    assert_int_equal(approve(k, &late, &ret2), -ETIME);
    assert_int_equal(state_of(k, "1.1"), LG_KEY_ACTIVE);
    /* A nonce is spent for ever, in the next process too. */
    k = reopened(k);
    pass_time(60);
    b.created = now.wall_s, b.expires = now.wall_s + 60;
    assert_int_equal(submit(k, &b, &sec, NULL), -EALREADY);
    lg_keyring_close(k);
    lg_secret_free(stranger.seed), lg_secret_free(ret2.seed), lg_secret_free(account.seed), lg_secret_free(name.seed);
    people_done();
}

/* Officers put back with an older keyring file, or taken away: the slot file knows better. */
static void test_set(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    struct lg_store *st;
    unsigned failed;
    struct lg_act a = act_of(k, LG_ACT_HOLD, "1.1");
    k = reopened(k);
    lg_keyring_close(k);
    assert_int_equal(lg_store_open(dir, false, &st), 0);
    assert_int_equal(lg_store_begin(st), 0);
    assert_int_equal(lg_store_del(st, LG_T_OFFICERS, sec2.o.pub, LG_SIGN_PUB_LEN), 0);
    assert_int_equal(lg_store_commit(st, &failed), 0);
    lg_store_close(st);
    k = opened();
    assert_int_equal(lg_keyring_officers_check(k), -EBADMSG);
    assert_int_equal(submit(k, &a, &sec, NULL), -EBADMSG);
    lg_keyring_close(k);
    people_done();
}

/* ---- what keeps a study ------------------------------------------------------------------------------------------------------------------------- */

static void test_waiting(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    struct lg_act a = act_of(k, LG_ACT_REVOKE, "1.1"), b, c;
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(state_of(k, "1.1"), LG_KEY_ACTIVE); /* asking alone blinds nobody */
    assert_int_equal(approve(k, &a, &sec), 0);
    assert_int_equal(state_of(k, "1.1"), LG_KEY_DESTROY_APPROVED);
    struct lg_key key;
    assert_int_equal(lg_keyring_study_find(k, "1.1", &key), -EKEYREVOKED);
    /* The wall clock alone is not enough ... */
    k = reopened(k);
    for (unsigned i = 0; i < 9; i++) { /* the host is off: nothing runs; a day at a time is believed */
        now.wall_s += 19 * 3600, now.boot_s = 10, now.run_s = 10;
        now.boot_id[0] = (uint8_t)('a' + i);
        k = reopened(k);
        tick(k);
    }
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_time(k, &t), 0);
    assert_int_equal(t.frozen, LG_FROZEN_DOWN); /* more than a week in all, and hardly a second of running time: not believed */
    assert_int_equal(carry_out(k), 0);
    b = act_of(k, LG_ACT_CLOCK, NULL);
    assert_int_equal(submit(k, &b, &ret, NULL), 0);
    assert_int_equal(approve(k, &b, &sec), 0);
    assert_int_equal(carry_out(k), 0); /* ... the running time has to come too */
    pass_time(WEEK - 3600);
    assert_int_equal(carry_out(k), 0);
    assert_int_equal(kept.n, 0);
    pass_time(3600);
    /* A hold placed while it waits is seen by the transaction that destroys, and told, once; so is a longer retention. */
    b = act_of(k, LG_ACT_HOLD, "1.1");
    assert_int_equal(submit(k, &b, &ret, NULL), 0);
    assert_int_equal(carry_out(k), 0);
    assert_int_equal(kept.n, 1);
    assert_int_equal(kept.study[0].why, -EBUSY);
    assert_memory_equal(kept.study[0].kid, a.kid, LG_ID_LEN);
    assert_int_equal(carry_out(k), 0);
    assert_int_equal(kept.n, 0);
    k = reopened(k);
    tick(k);
    assert_int_equal(carry_out(k), 0);
    assert_int_equal(kept.n, 0);
    c = act_of(k, LG_ACT_RETAIN, "1.1"), c.number = now.wall_s + DAY;
    assert_int_equal(submit(k, &c, &ret, NULL), 0);
    both(k, LG_ACT_RELEASE, "1.1", 0, &sec, &ret);
    assert_int_equal(carry_out(k), 0);
    pass_time(DAY + 1);
    assert_int_equal(carry_out(k), 1);
    assert_int_equal(state_of(k, "1.1"), LG_KEY_DESTROYED);
    c = act_of(k, LG_ACT_CANCEL, NULL);
    memcpy(c.kid, a.nonce, LG_ID_LEN);
    assert_int_equal(submit(k, &c, &ret, NULL), -EALREADY);
    c = act_of(k, LG_ACT_HOLD, "1.1");
    assert_int_equal(submit(k, &c, &ret, NULL), -EKEYREVOKED);
    lg_keyring_close(k);
    people_done();
}

static void frozen_by(struct lg_keyring *k, enum lg_frozen want)
{
    struct lg_keyring_time t;
    tick(k);
    assert_int_equal(lg_keyring_time(k, &t), 0);
    assert_int_equal(t.frozen, want);
    struct lg_act a = act_of(k, LG_ACT_REVOKE, "1.2");
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(approve(k, &a, &sec), -ENOLCK);
    assert_int_equal(carry_out(k), 0);
    a = act_of(k, LG_ACT_HOLD, "1.2"); /* what protects goes on */
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    struct lg_act fix = act_of(k, LG_ACT_CLOCK, NULL);
    assert_int_equal(submit(k, &fix, &ret, NULL), 0);
    assert_int_equal(approve(k, &fix, &ret), -ELOOP);
    assert_int_equal(approve(k, &fix, &sec), 0);
    both(k, LG_ACT_RELEASE, "1.2", 0, &ret, &sec);
    assert_int_equal(lg_keyring_time(k, &t), 0);
    assert_int_equal(t.frozen, LG_FROZEN_NOT);
}

static void test_clock(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    both(k, LG_ACT_REVOKE, "1.1", 0, &ret, &sec);
    pass_time(DAY);
    now.wall_s += 100; /* what a time server corrects */
    tick(k);
    now.wall_s += 20 * DAY; /* forward, at the sight of everybody */
    frozen_by(k, LG_FROZEN_FORWARD);
    now.wall_s -= 20 * DAY; /* back */
    frozen_by(k, LG_FROZEN_BACK);
    lg_keyring_close(k); /* forward while the key manager was not there, but the host was */
    now.wall_s += 20 * DAY, now.boot_s += 60;
    k = reopened(opened());
    frozen_by(k, LG_FROZEN_FORWARD);
    now.boot_s = 5, now.run_s = 5, now.boot_id[0] = 'x'; /* back across a boot */
    now.wall_s -= DAY;
    k = reopened(k);
    frozen_by(k, LG_FROZEN_BACK);
    now.boot_s = 5, now.run_s = 5, now.boot_id[0] = 'y'; /* forward across a boot */
    now.wall_s += 3650ull * DAY;
    k = reopened(k);
    frozen_by(k, LG_FROZEN_DOWN);
    assert_int_equal(state_of(k, "1.1"), LG_KEY_DESTROY_APPROVED);
    /* A slow theft is bounded: three hundred seconds, and a thousandth. */
    struct lg_keyring_time t = { .frozen = LG_FROZEN_NOT };
    unsigned stolen = 0;
    while (t.frozen == LG_FROZEN_NOT && stolen < 100000) {
        pass_time(60);
        now.wall_s += 20, stolen += 20;
        tick(k);
        assert_int_equal(lg_keyring_time(k, &t), 0);
    }
    assert_true(stolen > 250 && stolen < 400);
    lg_keyring_close(k);
    people_done();
}

static void test_retention(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    struct lg_act a = act_of(k, LG_ACT_POLICY, NULL);
    struct lg_policy p;
    lg_policy_default(&p);
    p.n_rules = 2;
    p.rules[0].years = 5;
    snprintf(p.rules[1].name, sizeof p.rules[1].name, "inpatient");
    p.rules[1].years = 30;
    p.suspend_max = 2;
    assert_int_equal(lg_policy_encode(&p, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(approve(k, &a, &sec), 0);
    /* The study is of 2020, and it is 2027: due by the first rule, not by the second. */
    a = act_of(k, LG_ACT_REVOKE, "1.1");
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    both(k, LG_ACT_RULE, "1.1", 1, &ret, &sec);
    assert_int_equal(approve(k, &a, &sec), -EDOM); /* looked at again at approval */
    struct lg_act early = act_of(k, LG_ACT_REVOKE, "1.1");
    early.number = 1; /* said so, and shown to the approver */
    assert_int_equal(submit(k, &early, &ret, NULL), 0);
    struct lg_act r = act_of(k, LG_ACT_RETAIN, "1.1");
    r.number = now.wall_s + DAY;
    assert_int_equal(submit(k, &r, &sec, NULL), 0);
    assert_int_equal(approve(k, &early, &sec), -EDOM); /* no exception from a date */
    r = act_of(k, LG_ACT_RETAIN, "1.1"), r.number = now.wall_s + 100;
    assert_int_equal(submit(k, &r, &sec, NULL), -EDOM); /* shorter takes two */
    r = act_of(k, LG_ACT_SHORTEN, "1.1"), r.number = now.wall_s + 100;
    assert_int_equal(submit(k, &r, &sec, NULL), 0);
    assert_int_equal(approve(k, &r, &sec), -ELOOP);
    assert_int_equal(approve(k, &r, &ret), 0);
    pass_time(101);
    assert_int_equal(approve(k, &early, &sec), 0);
    /* Suspensions are counted by running time. */
    study(k, "1.3");
    struct lg_act s = act_of(k, LG_ACT_SUSPEND, "1.2");
    assert_int_equal(submit(k, &s, &sec, NULL), 0);
    s = act_of(k, LG_ACT_RESUME, "1.2");
    assert_int_equal(submit(k, &s, &ret, NULL), 0);
    s = act_of(k, LG_ACT_SUSPEND, "1.2");
    assert_int_equal(submit(k, &s, &sec, NULL), 0);
    s = act_of(k, LG_ACT_SUSPEND, "1.3");
    assert_int_equal(submit(k, &s, &sec, NULL), -EDQUOT);
    assert_int_equal(submit(k, &s, &ret, NULL), 0); /* another officer has a count of their own */
    pass_time(3601);
    s = act_of(k, LG_ACT_RESUME, "1.3");
    assert_int_equal(submit(k, &s, &sec, NULL), 0);
    s = act_of(k, LG_ACT_SUSPEND, "1.3");
    assert_int_equal(submit(k, &s, &sec, NULL), 0);
    lg_keyring_close(k);
    people_done();
}

static void test_claim(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    struct lg_act a = act_of(k, LG_ACT_ASSIGN, "1.1"), got;
    const struct lg_assign what = { .name = "f" };
    assert_int_equal(lg_assign_encode(&what, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_claim(k, a.nonce, LG_ACT_ASSIGN, a.kid, &got), -EPERM);
    lg_keyring_abort(k);
    assert_int_equal(approve(k, &a, &sec), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_claim(k, a.nonce, LG_ACT_TRIM, NULL, &got), -EINVAL);
    assert_int_equal(lg_keyring_act_claim(k, a.nonce, LG_ACT_ASSIGN, a.nonce, &got), -EINVAL);
    assert_int_equal(lg_keyring_act_claim(k, a.nonce, LG_ACT_ASSIGN, a.kid, &got), 0);
    assert_string_equal(got.uid, "1.1");
    assert_int_equal(lg_keyring_act_claim(k, a.nonce, LG_ACT_ASSIGN, a.kid, &got), -EALREADY);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_keyring_close(k);
    people_done();
}

static void test_assign(void **state)
{
    (void)state;
    struct lg_keyring *k = opened();
    uint8_t file[LG_ID_LEN] = "file", other[LG_ID_LEN] = "other";
    uint8_t last[LG_ID_LEN];
    struct lg_act_record *r = calloc(1, sizeof *r);
    struct lg_act noted;
    struct lg_study s;
    unsigned n;
    study(k, "1.1");
    study(k, "1.2");
    assert_int_equal(lg_keyring_study_show(k, "1.1", &s), 0);
    /* One administrator alone: noted, with the file and its first key. */
    assert_int_equal(lg_keyring_assign(k, NULL, "1.2", s.kid, file, 7, false), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_assign(k, NULL, "9.9", s.kid, file, 7, true), -ENOENT);
    assert_int_equal(lg_keyring_assign(k, NULL, "1.2", s.kid, file, 7, true), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_true(lg_keyring_acts(k, NULL, false, r, 1, &n, last) >= 0);
    assert_int_equal(n, 1);
    assert_int_equal(lg_act_decode(r->doc, r->doc_len, &noted), 0);
    assert_true(noted.action == LG_ACT_ASSIGN && r->state == LG_ACT_DONE && r->asked.account == 7 && strcmp(noted.uid, "1.2") == 0 && strstr(noted.reason, "66696c65"));
    free(r);
    lg_keyring_close(k);

    teardown(NULL);
    setup(NULL);
    k = with_officers();
    assert_int_equal(lg_keyring_study_show(k, "1.1", &s), 0);
    assert_int_equal(lg_keyring_assign(k, NULL, "1.2", s.kid, file, 7, false), -EPERM);
    struct lg_assign what = { .name = "mnt/f" };
    struct lg_act a = act_of(k, LG_ACT_ASSIGN, "1.2");
    assert_int_equal(submit(k, &a, &ret, NULL), -EINVAL); /* which file? */
    memcpy(what.file_id, file, LG_ID_LEN);
    memcpy(what.from, s.kid, LG_ID_LEN);
    assert_int_equal(lg_assign_encode(&what, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", s.kid, file, 7, false), -EPERM); /* nobody has approved */
    assert_int_equal(approve(k, &a, &ret), -ELOOP);
    assert_int_equal(approve(k, &a, &sec), 0);
    assert_int_equal(lg_keyring_assign(k, other, "1.2", s.kid, file, 7, false), -ENOENT);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.1", s.kid, file, 7, false), -EINVAL);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", other, file, 7, false), -EINVAL);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", s.kid, other, 7, false), -EINVAL);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", s.kid, file, 7, false), 0); /* looking uses nothing up */
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", s.kid, file, 7, true), 0);
    assert_int_equal(lg_keyring_assign(k, a.nonce, "1.2", s.kid, file, 7, true), -EALREADY);
    assert_int_equal(lg_keyring_commit(k), 0);
    /* Of another kind, expired, and of a study that has another key by now. */
    struct lg_act b = act_of(k, LG_ACT_BACKUP_VOID, NULL);
    assert_int_equal(submit(k, &b, &ret, NULL), 0);
    assert_int_equal(approve(k, &b, &sec), 0);
    assert_int_equal(lg_keyring_assign(k, b.nonce, "1.2", s.kid, file, 7, false), -EINVAL);
    struct lg_act c = act_of(k, LG_ACT_ASSIGN, "1.2");
    memcpy(c.data, a.data, c.data_len = a.data_len);
    assert_int_equal(submit(k, &c, &ret, NULL), 0);
    assert_int_equal(approve(k, &c, &sec), 0);
    pass_time(86401);
    tick(k);
    assert_int_equal(lg_keyring_assign(k, c.nonce, "1.2", s.kid, file, 7, false), -ETIME);
    lg_keyring_close(k);
    people_done();
}

static void test_certificate(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN], kid[LG_ID_LEN];
    struct lg_certificate *c = calloc(1, sizeof *c);
    size_t len;
    both(k, LG_ACT_REVOKE, "1.1", 0, &ret, &sec);
    pass_time(WEEK);
    assert_int_equal(carry_out(k), 1);
    assert_int_equal(lg_keyring_certificate(k, "9.9", doc, sizeof doc, &len, sig, kid), -ENOENT);
    assert_int_equal(lg_keyring_certificate(k, "1.2", doc, sizeof doc, &len, sig, kid), -EALREADY);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), -ENOTCONN); /* no mount was ever asked */
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_confirmed(k, kid), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), 0);
    assert_int_equal(lg_certificate_verify(doc, len, sig, c), 0);
    assert_string_equal(c->act.asked.name, "Ruth");
    assert_string_equal(c->act.approved.name, "Sam");
    assert_int_equal(c->tombstone.versions, 1);
    assert_true(c->tombstone.epoch > c->tombstone.epoch_before);
    for (size_t i = 0; i < len; i++) {
        doc[i] ^= 4;
        assert_true(lg_certificate_verify(doc, len, sig, c) != 0);
        doc[i] ^= 4;
    }
    /* Readmitted, the UID gets another key; the tombstone stays, and the next destruction has a certificate of its own. */
    both(k, LG_ACT_READMIT, "1.1", 0, &sec, &ret);
    study(k, "1.1");
    assert_int_equal(state_of(k, "1.1"), LG_KEY_ACTIVE);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), 0);
    lg_keyring_close(k);
    free(c);
    people_done();
}

static void inventory_more(struct lg_keyring *k, unsigned from, unsigned to, uint64_t created)
{
    assert_int_equal(lg_keyring_begin(k), 0);
    for (unsigned i = from; i < to; i++) {
        struct lg_backup_entry e = { .id = { (uint8_t)(i >> 8), (uint8_t)i }, .created = created + i, .keys = 2, .name = "b" };
        assert_int_equal(lg_backup_entry_put(k, &e), 0);
    }
    assert_int_equal(lg_keyring_commit(k), 0);
}

/* Which of them hold a destroyed key is told by the epoch, whatever the clock was set to in between; of entries from before epochs were kept, by the clock. */
static void test_certificate_epochs(void **state)
{
    (void)state;
    struct lg_keyring *k = with_officers();
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN], kid[LG_ID_LEN];
    struct lg_certificate *c = calloc(1, sizeof *c);
    struct lg_keyring_stat st;
    size_t len;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    const uint64_t before = st.epoch;
    both(k, LG_ACT_REVOKE, "1.1", 0, &ret, &sec);
    pass_time(WEEK);
    assert_int_equal(carry_out(k), 1);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), -ENOTCONN);
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_true(st.epoch > before);
    const struct {
        uint64_t created, epoch;
        bool holds;
    } made[] = {
        { now.wall_s - WEEK, before, true },    { now.wall_s + 100 * WEEK, before, true }, { now.wall_s + WEEK, st.epoch, false },
        { now.wall_s - WEEK, st.epoch, false }, { now.wall_s - WEEK, 0, true },            { now.wall_s + WEEK, 0, false },
    };
    unsigned want = 0;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_confirmed(k, kid), 0);
    for (unsigned i = 0; i < sizeof made / sizeof *made; i++) {
        struct lg_backup_entry e = { .id = { (uint8_t)i }, .created = made[i].created, .epoch = made[i].epoch, .keys = 2, .whole = i & 1, .name = "b" };
        assert_int_equal(lg_backup_entry_put(k, &e), 0);
        want |= made[i].holds ? 1u << i : 0;
    }
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), 0);
    assert_int_equal(lg_certificate_verify(doc, len, sig, c), 0);
    for (unsigned i = 0; i < c->n_backups; i++)
        want ^= 1u << c->backups[i].id[0];
    assert_int_equal(want, 0);
    assert_int_equal(c->backups_all, c->n_backups);
    lg_keyring_close(k);
    free(c);
    people_done();
}

/* However many keyring backups there are, before a destruction and after it: a certificate says how many of them hold the key, and a listing has them all. */
static void test_certificate_backups(void **state)
{
    (void)state;
    enum { FIRST = 65, ALL = 257, LATER = 600 };
    struct lg_keyring *k = with_officers();
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN], kid[LG_ID_LEN];
    struct lg_certificate *c = calloc(1, sizeof *c);
    struct lg_backup_entry *e;
    unsigned n;
    size_t len;
    inventory_more(k, 0, 1, now.wall_s);
    pass_time(ALL + 1);
    tick(k);
    both(k, LG_ACT_REVOKE, "1.1", 0, &ret, &sec);
    pass_time(WEEK);
    assert_int_equal(carry_out(k), 1);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), -ENOTCONN);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_confirmed(k, kid), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    inventory_more(k, ALL, LATER, now.wall_s + 1); /* these do not hold it, and hide nothing */
    for (unsigned had = 1;; had = had < FIRST ? had + 1 : ALL) {
        if (had == 2 || had == LG_CERT_BACKUPS_MAX || had == FIRST || had == ALL || had == 1) {
            assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), 0);
            assert_int_equal(lg_certificate_verify(doc, len, sig, c), 0);
            assert_int_equal(c->version, 3);
            assert_int_equal(c->backups_all, had);
            assert_int_equal(c->n_backups, had < LG_CERT_BACKUPS_MAX ? had : LG_CERT_BACKUPS_MAX);
            for (unsigned i = 0; i < c->n_backups; i++)
                assert_true(c->backups[i].id[0] == i >> 8 && c->backups[i].id[1] == (uint8_t)i);
            assert_true(!c->restored && !c->restored_from);
        }
        if (had == ALL)
            break;
        inventory_more(k, had, had < FIRST ? had + 1 : ALL, now.wall_s - WEEK - ALL - 1);
    }
    assert_int_equal(lg_backup_list(k, &e, &n), 0);
    assert_int_equal(n, LATER);
    for (unsigned i = 0; i < n; i++)
        assert_true(e[i].id[0] == i >> 8 && e[i].id[1] == (uint8_t)i);
    free(e);
    uint8_t id[LG_ID_LEN] = { 0 };
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_backup_void(k, id), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_certificate(k, "1.1", doc, sizeof doc, &len, sig, kid), 0);
    assert_int_equal(lg_certificate_verify(doc, len, sig, c), 0);
    assert_int_equal(c->backups_all, ALL - 1);
    assert_int_equal(c->backups[0].id[1], 1);
    /* What counts fewer than it names, or names none of those it counts. */
    struct lg_certificate *d = calloc(1, sizeof *d);
    assert_non_null(d);
    static const struct {
        unsigned n, all;
        int want;
    } forms[] = { { 0, 0, 0 }, { 2, 2, 0 }, { 2, 1, -EPROTO }, { 0, 1, -EPROTO }, { 64, 65, 0 } };
    for (unsigned i = 0; i < sizeof forms / sizeof *forms; i++) {
        c->n_backups = forms[i].n, c->backups_all = forms[i].all;
        assert_int_equal(lg_certificate_encode(c, doc, &len), 0);
        assert_int_equal(lg_certificate_decode(doc, len, d), forms[i].want);
    }
    /* What earlier versions issued. */
    for (c->version = 1; c->version < 3; c->version++) {
        c->n_backups = 3;
        assert_int_equal(lg_certificate_encode(c, doc, &len), 0);
        assert_int_equal(memcmp(doc, c->version == 1 ? "LGCERT1" : "LGCERT2", 8), 0);
        assert_int_equal(lg_certificate_decode(doc, len, d), 0);
        assert_true(d->version == c->version && d->n_backups == 3 && d->backups_all == 3 && d->vaults == (c->version == 1 ? 0 : c->vaults));
    }
    lg_keyring_close(k);
    free(c);
    free(d);
    people_done();
}

/* ---- the whole machine against a model --------------------------------------------------------------------------------------------------------------- */

enum { STUDIES = 3 };
struct model {
    enum lg_key_state state;
    bool exists, held, again; /* again: readmitted, nothing has arrived yet */
    uint64_t retain, due_wall, due_run;
    struct lg_act revoke; /* pending or waiting */
    bool pending, suspended_before;
};
static uint64_t seed_state;
static uint32_t dice(uint32_t n)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed_state >> 33) % n;
}

static unsigned stop_in;
static int crash_hook(void *arg, const char *step)
{
    (void)arg, (void)step;
    return stop_in && --stop_in == 0 ? -EINTR : 0;
}

static bool gone(const struct model *m) { return m->state == LG_KEY_DESTROYED; }
static bool keeps(const struct model *m) { return m->held || m->retain > now.wall_s; }

static void check(struct lg_keyring *k, const struct model *m, const char *uid)
{
    struct lg_study s;
    struct lg_key key;
    int rc = lg_keyring_study_show(k, uid, &s);
    if (!m->exists || m->again) {
        assert_int_equal(rc, -ENOENT);
        return;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(s.state, m->state);
    assert_int_equal(s.held, m->held && !gone(m));
    if (!gone(m))
        assert_true(s.retain_until == m->retain);
    rc = lg_keyring_study_find(k, uid, &key);
    assert_int_equal(rc, m->state == LG_KEY_ACTIVE ? 0 : -EKEYREVOKED);
    if (!rc)
        lg_secret_free(key.key);
}

static void step_model(struct lg_keyring **kp, struct model *all, uint64_t *run)
{
    struct lg_keyring *k = *kp;
    unsigned i = dice(STUDIES), what = dice(15);
    struct model *m = &all[i];
    char uid[16];
    struct lg_act a;
    const struct person *p = dice(2) ? &sec : &ret, *q = p == &sec ? &ret : &sec;
    bool there = m->exists && !m->again;
    snprintf(uid, sizeof uid, "5.%u", i);
    switch (what) {
    case 0: /* arrives */
        if (there && m->state != LG_KEY_ACTIVE) {
            struct lg_study_info info = { 0 };
            struct lg_key key;
            bool created;
            snprintf(info.uid, sizeof info.uid, "%s", uid);
            assert_int_equal(lg_keyring_begin(k), 0);
            assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), -EKEYREVOKED);
            lg_keyring_abort(k);
            break;
        }
        if (!there)
            *m = (struct model){ .exists = true, .state = LG_KEY_ACTIVE };
        study(k, uid);
        break;
    case 1: /* asks for destruction */
        a = act_of(k, LG_ACT_REVOKE, uid);
        a.expires = a.created + LG_ACT_LIFE_MAX_S;
        assert_int_equal(submit(k, &a, p, NULL), !there ? -ENOENT : gone(m) ? -EKEYREVOKED : m->state == LG_KEY_DESTROY_APPROVED ? -EALREADY : m->held ? -EBUSY : keeps(m) ? -EDOM : 0);
        if (there && !gone(m) && m->state != LG_KEY_DESTROY_APPROVED && !keeps(m)) {
            m->revoke = a;
            m->pending = true;
        }
        break;
    case 2: { /* approves it */
        if (!m->pending)
            break;
        const struct person *other = memcmp(m->revoke.by, sec.o.pub, sizeof sec.o.pub) ? &sec : &ret;
        if (now.wall_s > m->revoke.expires) {
            assert_int_equal(approve(k, &m->revoke, other), -ETIME);
            m->pending = false;
            break;
        }
        int want = m->held ? -EBUSY : keeps(m) ? -EDOM : 0;
        assert_int_equal(approve(k, &m->revoke, other == &sec ? &ret : &sec), -ELOOP);
        assert_int_equal(approve(k, &m->revoke, other), want);
        if (!want) {
            m->suspended_before = m->state == LG_KEY_SUSPENDED;
            m->state = LG_KEY_DESTROY_APPROVED;
            m->due_wall = now.wall_s + WEEK;
            m->due_run = *run + WEEK;
            m->pending = false;
        }
        break;
    }
    case 3: /* cancels */
        if (m->state != LG_KEY_DESTROY_APPROVED || dice(4))
            break;
        a = act_of(k, LG_ACT_CANCEL, NULL);
        memcpy(a.kid, m->revoke.nonce, LG_ID_LEN);
        assert_int_equal(submit(k, &a, p, NULL), 0);
        m->state = m->suspended_before ? LG_KEY_SUSPENDED : LG_KEY_ACTIVE;
        break;
    case 4:
        if (dice(3))
            break;
        a = act_of(k, LG_ACT_HOLD, uid);
        assert_int_equal(submit(k, &a, p, NULL), !there ? -ENOENT : gone(m) ? -EKEYREVOKED : m->held ? -EALREADY : 0);
        m->held = m->held || (there && !gone(m));
        break;
    case 5:
        if (m->held && !gone(m)) {
            both(k, LG_ACT_RELEASE, uid, 0, p, q);
            m->held = false;
        }
        break;
    case 6: { /* keeps longer, or not so long */
        uint64_t until = now.wall_s + dice(12) * DAY + 1;
        if (dice(3) || !there || gone(m) || until == m->retain)
            break;
        if (until > m->retain) {
            a = act_of(k, LG_ACT_RETAIN, uid), a.number = until;
            assert_int_equal(submit(k, &a, p, NULL), 0);
        } else {
            both(k, LG_ACT_SHORTEN, uid, until, p, q);
        }
        m->retain = until;
        break;
    }
    case 7:
        a = act_of(k, LG_ACT_SUSPEND, uid);
        assert_int_equal(submit(k, &a, p, NULL), !there ? -ENOENT : gone(m) ? -EKEYREVOKED : m->state != LG_KEY_ACTIVE ? -EALREADY : 0);
        if (there && m->state == LG_KEY_ACTIVE)
            m->state = LG_KEY_SUSPENDED;
        break;
    case 8:
        a = act_of(k, LG_ACT_RESUME, uid);
        assert_int_equal(submit(k, &a, p, NULL), !there ? -ENOENT : gone(m) ? -EKEYREVOKED : m->state != LG_KEY_SUSPENDED ? -EALREADY : 0);
        if (there && m->state == LG_KEY_SUSPENDED)
            m->state = LG_KEY_ACTIVE;
        break;
    case 9:
        if (!there || !gone(m))
            break;
        both(k, LG_ACT_READMIT, uid, 0, p, q);
        m->again = true;
        break;
    case 10: /* the key manager dies between two requests */
        tick(k);
        k = reopened(k);
        break;
    default: /* time passes; what is due is carried out, or a crash comes between */
        for (unsigned d = dice(7) + 1, x = 0; x < d; x++) {
            pass_time(DAY);
            tick(k);
            *run += DAY;
        }
        uint8_t kids[64][LG_ID_LEN];
        unsigned n, want = 0, destroyed;
        for (unsigned j = 0; j < STUDIES; j++)
            if (all[j].state == LG_KEY_DESTROY_APPROVED && all[j].due_wall <= now.wall_s && all[j].due_run <= *run && !keeps(&all[j])) {
                all[j].state = LG_KEY_DESTROYED;
                want++;
            }
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_due(k, 64, kids, &n, NULL), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(n, want);
        if (!n)
            break;
        stop_in = dice(8);
        lg_keyring_set_hook(k, crash_hook, NULL);
        int rc = lg_keyring_destroy(k, &destroyed);
        lg_keyring_set_hook(k, NULL, NULL);
        if (rc)
            k = reopened(k); /* goes on from wherever it stopped */
        stop_in = 0;
        break;
    }
    *kp = k;
}

static void test_model(void **state)
{
    (void)state;
    static struct model all[STUDIES];
    const char *steps = getenv("LG_MODEL_STEPS"), *seed = getenv("LG_MODEL_SEED");
    unsigned n = steps ? (unsigned)strtoul(steps, NULL, 10) : 600, destroyed = 0;
    struct lg_keyring *k = with_officers();
    struct lg_time t;
    struct lg_act a = act_of(k, LG_ACT_POLICY, NULL);
    struct lg_policy p;
    char uid[16];
    lg_policy_default(&p);
    p.suspend_max = 1000000;
    assert_int_equal(lg_policy_encode(&p, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, &ret, NULL), 0);
    assert_int_equal(approve(k, &a, &sec), 0);
    memset(all, 0, sizeof all);
    seed_state = seed ? strtoull(seed, NULL, 10) : 20261124;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_time_now(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    uint64_t run = t.run;
    for (unsigned i = 0; i < n; i++) {
        step_model(&k, all, &run);
        for (unsigned j = 0; j < STUDIES; j++) {
            snprintf(uid, sizeof uid, "5.%u", j);
            check(k, &all[j], uid);
        }
    }
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    destroyed = (unsigned)st.destroyed;
    print_message("%u steps, %u studies destroyed\n", n, destroyed);
    assert_true(destroyed > n / 200);
    lg_keyring_close(k);
    people_done();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_mode, setup, teardown),      cmocka_unit_test_setup_teardown(test_signatures, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set, setup, teardown),       cmocka_unit_test_setup_teardown(test_waiting, setup, teardown),
        cmocka_unit_test_setup_teardown(test_clock, setup, teardown),     cmocka_unit_test_setup_teardown(test_retention, setup, teardown),
        cmocka_unit_test_setup_teardown(test_claim, setup, teardown),     cmocka_unit_test_setup_teardown(test_certificate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_certificate_backups, setup, teardown),
        cmocka_unit_test_setup_teardown(test_certificate_epochs, setup, teardown),
        cmocka_unit_test_setup_teardown(test_assign, setup, teardown),     cmocka_unit_test_setup_teardown(test_certificate, setup, teardown),
        cmocka_unit_test_setup_teardown(test_model, setup, teardown),
    };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
