/* Keyring and mirror: every operation stopped before every write of either copy, then reopened with both copies, or with one of them gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "internal.h"

static char top[64];
static const char *const files[] = { "data.mdb", "lock.mdb", "lock", "data.mdb.tmp" };
static const char *at(const char *name)
{
    static char path[8][128];
    static unsigned n;
    char *p = path[n++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

static void remove_copy(const char *dir)
{
    char name[64];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s/%s", dir, files[i]);
        unlink(at(name));
    }
    rmdir(at(dir));
}

static void remove_all(void)
{
    static const char *const slots[] = { "k.root", "m.root", "k.root.degraded", "m.root.degraded", "k.root.tmp", "m.root.tmp", "k.root.tombstones", "m.root.tombstones" };
    remove_copy("k"), remove_copy("m"), remove_copy("old");
    for (unsigned i = 0; i < sizeof slots / sizeof *slots; i++)
        unlink(at(slots[i]));
}

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "%s/lgmirror-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(top));
    return lg_keyring_create(at("k"), at("k.root"), "pass", 4, 0);
}

static int teardown(void **state)
{
    (void)state;
    remove_all();
    return rmdir(top);
}

static int open_both(struct lg_keyring **ret) { return lg_keyring_open(at("k"), at("k.root"), at("m"), ret); }

static int unlock(struct lg_keyring *k)
{
    struct lg_roots r;
    int rc = lg_slotfile_unlock(lg_slotfile_pick(at("k.root"), at("m.root")), LG_SLOT_PASSPHRASE, NULL, "pass", 4, &r);
    if (rc)
        return rc;
    rc = lg_keyring_unlock(k, &r);
    lg_roots_done(&r);
    return rc;
}

static struct lg_keyring *opened(void)
{
    struct lg_keyring *k;
    assert_int_equal(open_both(&k), 0);
    assert_int_equal(unlock(k), 0);
    return k;
}

static int study(struct lg_keyring *k, const char *uid, struct lg_key *ret)
{
    struct lg_study_info info = { 0 };
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    int rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_keyring_study_key(k, &info, ret, &created);
    if (rc) {
        lg_keyring_abort(k);
        return rc;
    }
    rc = lg_keyring_commit(k);
    if (rc)
        lg_secret_free(ret->key);
    return rc;
}

static void assert_has(struct lg_keyring *k, const struct lg_key *want)
{
    struct lg_key x;
    assert_int_equal(lg_keyring_key_by_id(k, want->kid, want->version, &x), 0);
    assert_memory_equal(x.key->b, want->key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
}

static void test_life(void **state)
{
    (void)state;
    struct lg_keyring *k;
    struct lg_key a, b, c, x;
    struct lg_keyring_stat st;
    struct stat file;
    int why;
    assert_int_equal(mkdir(at("m"), 0700), 0);
    assert_int_equal(mkdir(at("m/x"), 0700), 0);
    assert_int_equal(open_both(&k), -ENOTEMPTY); /* somebody else's */
    rmdir(at("m/x"));
    remove_copy("m");
    k = opened();
    assert_int_equal(lg_keyring_mirror_news(k, &why), LG_MIRROR_MADE);
    assert_int_equal(study(k, "1", &a), 0);
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_true(st.mirrored && !st.stale);
    /* The first copy is deleted under load: the next commit notices, goes on with the mirror and says so. */
    assert_int_equal(unlink(at("k/data.mdb")), 0);
    assert_int_equal(study(k, "2", &b), 0);
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_int_equal(st.stale, LG_STALE_KEYRING);
    assert_int_equal(stat(at("k.root.degraded"), &file), 0);
    assert_int_equal(study(k, "3", &c), 0);
    assert_has(k, &a), assert_has(k, &b), assert_has(k, &c);
    /* Nothing is destroyed, and no root changed, while a copy is behind. */
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    assert_int_equal(lg_keyring_rotate_root(k), -ESTALE);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, "3", "because", 0, kids, 4, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), -ESTALE);
    lg_keyring_close(k);
    /* The next start makes the first copy again and ends the destruction. */
    k = opened();
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_int_equal(st.stale, 0);
    assert_int_equal(lg_keyring_unfinished(k), 0);
    assert_int_equal(stat(at("k.root.degraded"), &file), -1);
    assert_int_equal(lg_keyring_key_by_id(k, c.kid, 1, &x), -EKEYREVOKED);
    assert_has(k, &a), assert_has(k, &b);
    lg_keyring_close(k);
    /* Each copy alone has everything. */
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(rename(at(i ? "m" : "k"), at("old")), 0);
        k = opened();
        assert_has(k, &a), assert_has(k, &b);
        lg_keyring_close(k);
        remove_copy("old");
    }
    /* A mirror that fell behind does not serve alone. */
    k = opened();
    assert_int_equal(rename(at("m"), at("old")), 0);
    lg_secret_free(c.key);
    assert_int_equal(study(k, "4", &c), 0);
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_int_equal(st.stale, LG_STALE_MIRROR);
    lg_keyring_close(k);
    assert_int_equal(rename(at("old"), at("m")), 0);
    assert_int_equal(rename(at("k"), at("old")), 0);
    assert_int_equal(open_both(&k), -ESTALE);
    assert_int_equal(rename(at("old"), at("k")), 0);
    k = opened();
    assert_has(k, &c);
    lg_keyring_close(k);
    remove_copy("k");
    k = opened(); /* in step again: the mirror has it too */
    assert_has(k, &c);
    lg_keyring_close(k);
    /* Another keyring's mirror is refused. */
    remove_copy("k");
    unlink(at("k.root"));
    assert_int_equal(lg_keyring_create(at("k"), at("k.root"), "pass", 4, 0), 0);
    assert_int_equal(open_both(&k), -EXDEV);
    lg_secret_free(a.key), lg_secret_free(b.key), lg_secret_free(c.key);
}

static unsigned steps, stop;
static int hook(void *arg, const char *step)
{
    (void)arg;
    (void)step;
    return ++steps >= stop ? -EINTR : 0;
}

static int add_slot(struct lg_keyring *k)
{
    struct lg_slot_draft *d;
    assert_int_equal(lg_slot_draft_new(at("k.root"), LG_SLOT_PASSPHRASE, "gone", "other", 5, &d), 0);
    int rc = lg_keyring_slot_add(k, d);
    lg_slot_draft_free(d);
    return rc;
}

/* One operation on a prepared keyring; 0 when it came to its end. */
static int operate(struct lg_keyring *k, unsigned what)
{
    struct lg_key x;
    unsigned n;
    int rc;
    switch (what) {
    case 0:
        if ((rc = study(k, "new", &x)) == 0)
            lg_secret_free(x.key);
        return rc;
    case 1: return lg_keyring_rotate_root(k);
    case 2: return lg_keyring_slot_remove(k, "gone");
    case 3: return lg_keyring_destroy(k, &n);
    default: /* the first copy is gone: the commit that notices, and its mark */
        unlink(at("k/data.mdb"));
        if ((rc = study(k, "new", &x)) == 0)
            lg_secret_free(x.key);
        return rc;
    }
}

static void test_crash(void **state)
{
    (void)state;
    struct lg_key kept, victim, x;
    struct lg_roots r;
    struct lg_study s;
    uint8_t kids[4][LG_ID_LEN];
    unsigned n, ended = 0;
    for (unsigned what = 0; what < 5; what++)
        for (unsigned after = 0; after < 3; after++)
            for (stop = 1, ended = 0; !ended; stop++) {
                remove_all();
                assert_int_equal(lg_keyring_create(at("k"), at("k.root"), "pass", 4, 0), 0);
                struct lg_keyring *k = opened();
                assert_int_equal(study(k, "kept", &kept), 0);
                assert_int_equal(study(k, "victim", &victim), 0);
                if (what == 2)
                    assert_int_equal(add_slot(k), 0);
                if (what == 3) {
                    assert_int_equal(lg_keyring_begin(k), 0);
                    assert_int_equal(lg_keyring_revoke(k, "victim", "because", 0, kids, 4, &n), 0);
                    assert_int_equal(lg_keyring_commit(k), 0);
                }
                steps = 0;
                lg_keyring_set_hook(k, hook, NULL);
                int rc = operate(k, what);
                assert_true(rc == 0 || rc == -EINTR);
                ended = !rc;
                lg_keyring_close(k);
                bool have_k = what != 4, have_m = true;
                if (after == 1 && have_k)
                    remove_copy("k"), unlink(at("k.root"));
                if (after == 2 && have_k)
                    remove_copy("m"), unlink(at("m.root"));
                (void)have_m;
                k = opened();
                assert_int_equal(lg_keyring_unfinished(k), 0);
                assert_has(k, &kept);
                if (!rc && (what == 0 || what == 4)) { /* acknowledged */
                    assert_int_equal(lg_keyring_study_find(k, "new", &x), 0);
                    lg_secret_free(x.key);
                }
                if (what == 3) {
                    assert_int_equal(lg_keyring_study_show(k, "victim", &s), 0);
                    assert_int_equal(s.state, LG_KEY_DESTROYED);
                } else {
                    assert_has(k, &victim);
                }
                lg_keyring_close(k);
                /* Both slot files say the same, and both copies have the same commits: each alone does. */
                for (unsigned i = 0; i < 2; i++) {
                    const char *slot = at(i ? "m.root" : "k.root");
                    assert_int_equal(lg_keyring_open(at(i ? "m" : "k"), slot, NULL, &k), 0);
                    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "pass", 4, &r), 0);
                    assert_int_equal(r.n, 1);
                    assert_int_equal(lg_keyring_unlock(k, &r), 0);
                    lg_roots_done(&r);
                    assert_has(k, &kept);
                    lg_keyring_close(k);
                    rc = lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "other", 5, &r);
                    if (!rc)
                        lg_roots_done(&r);
                    assert_true(rc == -EKEYREJECTED || (what == 2 && !ended && rc == 0));
                }
                lg_secret_free(kept.key), lg_secret_free(victim.key);
                assert_true(stop < 40);
            }
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_life, setup, teardown), cmocka_unit_test_setup_teardown(test_crash, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
