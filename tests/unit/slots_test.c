/* Slots and new roots over a real keyring, interrupted before every step that writes: no key is lost, what was removed opens nothing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "internal.h"

static char top[64], dir[80], slot[96];
static struct lg_key kept;

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "%s/lgslots-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    return lg_keyring_create(dir, slot, "first", 5, 0);
}

static int teardown(void **state)
{
    (void)state;
    static const char *const names[] = { "k/data.mdb", "k/lock.mdb", "k/lock", "k.root" };
    char path[128];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        unlink(path);
    }
    rmdir(dir);
    return rmdir(top);
}

static int opens(const char *pass)
{
    struct lg_roots r;
    int rc = lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
    if (!rc)
        lg_roots_done(&r);
    return rc;
}

static struct lg_keyring *opened(const char *pass)
{
    struct lg_keyring *k;
    struct lg_roots r;
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    assert_int_equal(lg_keyring_unfinished(k), 0);
    assert_int_equal(lg_keyring_slot_proved(k, r.slot), 0);
    lg_roots_done(&r);
    return k;
}

static struct lg_slot_draft *draft(const char *name, const char *pass)
{
    struct lg_slot_draft *d;
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, name, pass, strlen(pass), &d), 0);
    return d;
}

static int add(struct lg_keyring *k, const char *name, const char *pass)
{
    struct lg_slot_draft *d = draft(name, pass);
    int rc = lg_keyring_slot_add(k, d);
    lg_slot_draft_free(d);
    return rc;
}

static int change(struct lg_keyring *k, const char *name, const char *pass)
{
    struct lg_slot_draft *d = draft(name, pass);
    int rc = lg_keyring_slot_change(k, d);
    lg_slot_draft_free(d);
    return rc;
}

static void make_study(struct lg_keyring *k)
{
    struct lg_study_info info = { .uid = "1.2.3" };
    bool created;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &kept, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static void assert_kept(struct lg_keyring *k)
{
    struct lg_key x;
    assert_int_equal(lg_keyring_key_by_id(k, kept.kid, 1, &x), 0);
    assert_memory_equal(x.key->b, kept.key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
}

static unsigned roots(void)
{
    uint8_t b[LG_SLOTFILE_MAX];
    size_t len;
    struct lg_slotfile s;
    assert_int_equal(lg_slotfile_read(slot, b, &len), 0);
    assert_int_equal(lg_slotfile_decode(b, len, &s), 0);
    return s.n_roots;
}

static void test_slots(void **state)
{
    (void)state;
    struct lg_slot_info info[LG_SLOTS_MAX];
    struct lg_slot_draft *d;
    char name[16];
    unsigned n;
    struct lg_keyring *k = opened("first");
    make_study(k);
    assert_int_equal(lg_keyring_slot_remove(k, "passphrase"), -EPERM);
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, "", "x", 1, &d), -EINVAL);
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, "a\n", "x", 1, &d), -EINVAL);
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, "a", "", 0, &d), -EINVAL);
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_TPM, "a", "x", 1, &d), -EINVAL);
    assert_int_equal(add(k, "second", "2"), 0);
    assert_int_equal(add(k, "second", "3"), -EEXIST);
    assert_int_equal(change(k, "third", "3"), -ENOENT);
    assert_int_equal(lg_keyring_slot_remove(k, "third"), -ENOENT);
    /* The second was never seen to open: the first is the last one that was. */
    assert_int_equal(lg_keyring_slot_remove(k, "passphrase"), -EPERM);
    lg_keyring_close(k);
    k = opened("2");
    assert_int_equal(lg_keyring_slot_remove(k, "passphrase"), 0);
    assert_int_equal(opens("first"), -EKEYREJECTED);
    assert_int_equal(opens("2"), 0);
    assert_kept(k);
    /* A number that became free is used again; what was wrapped for it before opens nothing. */
    for (unsigned i = 1; i < LG_SLOTS_MAX; i++) {
        snprintf(name, sizeof name, "s%u", i);
        assert_int_equal(add(k, name, name), 0);
    }
    assert_int_equal(add(k, "more", "m"), -ENOSPC);
    assert_int_equal(lg_slotfile_list(slot, info, &n), 0);
    assert_int_equal(n, LG_SLOTS_MAX);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(info[i].number, i);
    assert_int_equal(change(k, "s7", "seven"), 0);
    assert_int_equal(opens("s7"), -EKEYREJECTED);
    assert_int_equal(lg_keyring_slot_remove(k, "s3"), 0);
    assert_int_equal(add(k, "more", "m"), 0);
    lg_keyring_close(k);
    static const char *const all[] = { "s1", "s2", "s4", "s15", "seven", "m", "2" };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++) {
        k = opened(all[i]);
        assert_kept(k);
        lg_keyring_close(k);
    }
    assert_int_equal(opens("s3"), -EKEYREJECTED);
    lg_secret_free(kept.key);
}

static const char *stop_at;
static unsigned seen;
static int hook(void *arg, const char *step)
{
    (void)arg;
    if (strcmp(step, stop_at) != 0)
        return 0;
    seen++;
    return -EINTR;
}

/* Each change, stopped before each step; then everything is opened again as after a crash, or the process goes on. */
static void test_crash(void **state)
{
    (void)state;
    static const char *const steps[] = { "slot-both", "commit", "verify", "slot-new" };
    struct lg_keyring *k = opened("first");
    struct lg_keyring_stat before, after;
    make_study(k);
    assert_int_equal(add(k, "work", "old"), 0);
    lg_keyring_close(k);
    for (unsigned round = 0; round < 3 * 4 * 2; round++) {
        const char *step = steps[round / 2 % 4];
        unsigned what = round / 8;
        bool crash = round % 2;
        k = opened("first");
        if (what == 0 && opens("old"))
            assert_int_equal(add(k, "work", "old"), 0);
        if (what == 1 && opens("old"))
            assert_int_equal(opens("new") ? add(k, "work", "old") : change(k, "work", "old"), 0);
        assert_int_equal(lg_keyring_stat(k, &before), 0);
        stop_at = step;
        seen = 0;
        lg_keyring_set_hook(k, hook, NULL);
        int rc = what == 0 ? lg_keyring_slot_remove(k, "work") : what == 1 ? change(k, "work", "new") : lg_keyring_rotate_root(k);
        assert_int_equal(rc, -EINTR);
        assert_int_equal(seen, 1);
        lg_keyring_set_hook(k, NULL, NULL);
        assert_kept(k);
        bool begun = strcmp(step, "slot-both") != 0;
        if (begun && what < 2)
            assert_int_equal(opens("old"), -EKEYREJECTED); /* from the first write on */
        if (begun && what == 1)
            assert_int_equal(opens("new"), 0);
        if (crash) {
            lg_keyring_close(k);
            k = opened("first");
        } else {
            assert_int_equal(lg_keyring_rotate_root(k), 0);
        }
        assert_int_equal(roots(), 1);
        assert_kept(k);
        assert_int_equal(lg_keyring_stat(k, &after), 0);
        assert_true(after.epoch == before.epoch + (crash ? begun : 1 + begun));
        lg_keyring_close(k);
    }
    lg_secret_free(kept.key);
}

static void test_versions(void **state)
{
    (void)state;
    struct lg_keyring *k = opened("first");
    struct lg_key x;
    struct lg_study s;
    struct lg_rotated r;
    uint8_t kid[LG_ID_LEN];
    make_study(k);
    assert_int_equal(lg_keyring_rotate_study(k, "1.2.3", kid), -EINVAL); /* needs begin */
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, "1.2.4", kid), -ENOENT);
    for (unsigned v = 2; v <= LG_KEY_VERSIONS_MAX; v++)
        assert_int_equal(lg_keyring_rotate_study(k, "1.2.3", kid), 0);
    assert_memory_equal(kid, kept.kid, LG_ID_LEN);
    assert_int_equal(lg_keyring_rotate_study(k, "1.2.3", kid), -ENOSPC);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_keyring_close(k);
    k = opened("first");
    assert_kept(k);
    assert_int_equal(lg_keyring_study_find(k, "1.2.3", &x), 0);
    assert_int_equal(x.version, LG_KEY_VERSIONS_MAX);
    assert_memory_not_equal(x.key->b, kept.key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
    assert_int_equal(lg_keyring_study_show(k, "1.2.3", &s), 0);
    assert_string_equal(s.info.uid, "1.2.3");
    /* All, three at a time: each once, the full one left alone. */
    assert_int_equal(lg_keyring_begin(k), 0);
    for (unsigned i = 0; i < 7; i++) {
        struct lg_study_info info = { 0 };
        bool created;
        snprintf(info.uid, sizeof info.uid, "2.%u", i);
        assert_int_equal(lg_keyring_study_key(k, &info, &x, &created), 0);
        lg_secret_free(x.key);
    }
    uint8_t after[LG_ID_LEN], *from = NULL;
    unsigned n = 0, full = 0, rounds = 0;
    do {
        assert_int_equal(lg_keyring_rotate_studies(k, from, 3, &r), 0);
        n += r.n;
        full += r.full;
        memcpy(after, r.last, LG_ID_LEN);
        from = after;
        assert_true(++rounds < 10);
    } while (!r.end);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(n, 7);
    assert_int_equal(full, 1);
    assert_int_equal(lg_keyring_study_show(k, "2.4", &s), 0);
    assert_int_equal(s.version, 2);
    assert_int_equal(lg_keyring_rotate_root(k), 0);
    assert_kept(k);
    lg_keyring_close(k);
    lg_secret_free(kept.key);
}

/* A chip that only gives out what it sealed itself. */
struct chip {
    uint8_t mark;
    bool pcrs_differ;
};
static int chip_unseal(void *arg, const uint8_t *sealed, size_t len, struct lg_secret *ret)
{
    const struct chip *c = arg;
    if (len != 1 + LG_KEY_LEN)
        return -EPROTO;
    if (sealed[0] != c->mark)
        return -EXDEV;
    if (c->pcrs_differ)
        return -EBADE;
    memcpy(ret->b, sealed + 1, LG_KEY_LEN);
    return 0;
}

static struct lg_slot_draft *sealed_draft(const char *name, const struct chip *c)
{
    uint8_t sealed[1 + LG_KEY_LEN] = { c->mark };
    struct lg_slot_draft *d;
    struct lg_secret *s = lg_secret_random();
    assert_non_null(s);
    memcpy(sealed + 1, s->b, LG_KEY_LEN);
    assert_int_equal(lg_slot_draft_tpm(name, s, sealed, sizeof sealed, &d), 0);
    lg_secret_free(s);
    return d;
}

static int add_sealed(struct lg_keyring *k, const char *name, const struct chip *c)
{
    struct lg_slot_draft *d = sealed_draft(name, c);
    int rc = lg_keyring_slot_add(k, d);
    lg_slot_draft_free(d);
    return rc;
}

static int opens_with(struct chip *c, const char *name, unsigned *ret_slot)
{
    struct lg_chip chip = { .arg = c, .unseal = chip_unseal };
    struct lg_roots r;
    int rc = lg_slotfile_unlock_with(slot, c ? &chip : NULL, LG_SLOT_TPM, name, NULL, 0, &r);
    if (!rc && ret_slot)
        *ret_slot = r.slot;
    if (!rc)
        lg_roots_done(&r);
    return rc;
}

static void test_sealed(void **state)
{
    (void)state;
    struct chip here = { 1, false }, there = { 2, false }, third = { 3, false };
    struct lg_slot_draft *d;
    struct lg_secret *s = lg_secret_random();
    uint8_t big[1024] = { 0 };
    unsigned number;
    struct lg_keyring *k = opened("first");
    make_study(k);
    assert_int_equal(opens_with(&here, NULL, NULL), -ENODATA);
    assert_int_equal(lg_slot_draft_tpm("", s, big, 9, &d), -EINVAL);
    assert_int_equal(lg_slot_draft_tpm("x", s, big, 0, &d), -EINVAL);
    assert_int_equal(lg_slot_draft_tpm("x", s, big, 769, &d), -EINVAL);
    lg_secret_free(s);
    assert_int_equal(add_sealed(k, "there", &there), 0);
    assert_int_equal(opens_with(&here, NULL, NULL), -EXDEV);
    assert_int_equal(add_sealed(k, "here", &here), 0);
    assert_int_equal(opens_with(&here, NULL, &number), 0);
    assert_int_equal(number, 2);
    assert_int_equal(opens_with(&here, "there", NULL), -EXDEV);
    assert_int_equal(opens_with(&here, "first", NULL), -ENODATA);
    assert_int_equal(opens_with(&third, NULL, NULL), -EXDEV);
    assert_int_equal(opens_with(NULL, NULL, NULL), -ENODEV);
    here.pcrs_differ = true; /* which slot is ours, and why it does not open, whatever its place */
    assert_int_equal(opens_with(&here, NULL, NULL), -EBADE);
    there.pcrs_differ = true;
    assert_int_equal(opens_with(&there, NULL, NULL), -EBADE);
    here.pcrs_differ = there.pcrs_differ = false;
    /* Proved or not, it does not count: neither removing the passphrase nor changing it into another TPM slot. */
    assert_int_equal(lg_keyring_slot_proved(k, number), 0);
    assert_int_equal(lg_keyring_slot_remove(k, "passphrase"), -EPERM);
    d = sealed_draft("passphrase", &here);
    assert_int_equal(lg_keyring_slot_change(k, d), -EPERM);
    lg_slot_draft_free(d);
    assert_int_equal(opens("first"), 0);
    /* It gets every new root; changed, the old secret opens nothing. */
    assert_int_equal(lg_keyring_rotate_root(k), 0);
    assert_int_equal(opens_with(&here, NULL, NULL), 0);
    d = sealed_draft("here", &third);
    assert_int_equal(lg_keyring_slot_change(k, d), 0);
    lg_slot_draft_free(d);
    assert_int_equal(opens_with(&here, NULL, NULL), -EXDEV);
    assert_int_equal(opens_with(&third, NULL, NULL), 0);
    assert_int_equal(lg_keyring_slot_remove(k, "here"), 0);
    assert_int_equal(opens_with(&third, NULL, NULL), -EXDEV);
    assert_kept(k);
    lg_keyring_close(k);
    lg_secret_free(kept.key);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_slots, setup, teardown), cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_sealed, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
