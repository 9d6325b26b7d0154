/* Every operation that touches keyring and slot files, with the power cut before every call that writes, syncs or renames; what was not synced is kept,
 * lost, or lost in part; then both copies come back, or one disk alone. Recovery is cut as well. Afterwards: no key lost, none revived, what was
 * acknowledged is there, what was not is there wholly or not at all. */
#include "powercut_ops.h"

static uint64_t seed_state = 20261126;

static uint64_t chance(void)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return seed_state >> 16;
}

static struct {
    unsigned op, stop, again;
    enum power_loss loss;
    unsigned after;
} now_at;

/* ---- what holds whatever happened -------------------------------------------------------------------------------------------------------------------- */

static void assert_key(struct lg_keyring *k, const struct lg_key *want, uint32_t version)
{
    struct lg_key x;
    assert_int_equal(lg_keyring_key_by_id(k, want->kid, version, &x), 0);
    if (version == want->version)
        assert_memory_equal(x.key->b, want->key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
}

static void assert_gone(struct lg_keyring *k, const struct lg_key *which)
{
    struct lg_key x;
    struct lg_record r;
    assert_int_equal(lg_keyring_key_by_id(k, which->kid, 1, &x), -EKEYREVOKED);
    assert_int_equal(lg_record_get(k, which->kid, &r), 0);
    assert_int_equal(r.n, 0);
}

static void assert_whole(struct lg_keyring *k)
{
    struct lg_study s;
    assert_key(k, &kept, 1);
    assert_key(k, &kept2, 2);
    if (ops[now_at.op].op != op_trim || !is_trim(k))
        assert_key(k, &kept2_old, 1);
    assert_gone(k, &done_for);
    s = shown(k, "victim");
    if (s.state == LG_KEY_ACTIVE)
        assert_key(k, &victim, 1), assert_key(k, &prov, 1);
    else if (s.state == LG_KEY_DESTROYED)
        assert_gone(k, &victim), assert_gone(k, &prov);
    else
        assert_int_equal(s.state, LG_KEY_DESTROY_APPROVED);
    s = shown(k, "waits");
    if (s.state == LG_KEY_DESTROYED)
        assert_gone(k, &waits);
    else if (s.state == LG_KEY_ACTIVE)
        assert_key(k, &waits, 1);
    else
        assert_int_equal(s.state, LG_KEY_DESTROY_APPROVED);
    s = shown(k, "suspended");
    assert_true(s.state == LG_KEY_SUSPENDED || s.state == LG_KEY_ACTIVE);
}

/* Each copy by itself says the same, under one root. */
static void assert_copies(bool effect, bool (*done)(struct lg_keyring *k))
{
    uint8_t a[LG_SLOTFILE_MAX], b[LG_SLOTFILE_MAX];
    size_t a_len, b_len;
    assert_int_equal(lg_slotfile_read(at("w/k.root"), a, &a_len), 0);
    assert_int_equal(lg_slotfile_read(at("w/m.root"), b, &b_len), 0);
    assert_true(a_len == b_len && memcmp(a, b, a_len) == 0);
    for (unsigned i = 0; i < 2; i++) {
        struct lg_keyring *k;
        struct lg_roots r;
        const char *slot_path = at(i ? "w/m.root" : "w/k.root");
        assert_int_equal(lg_keyring_open(at(i ? "w/m" : "w/k"), slot_path, NULL, &k), 0);
        lg_keyring_set_clock(k, clock_read, NULL);
        lg_keyring_set_chip(k, &chip);
        assert_int_equal(secret_opens(slot_path, "first", &r), 0);
        assert_int_equal(r.n, 1);
        assert_int_equal(lg_keyring_unlock(k, &r), 0);
        lg_roots_done(&r);
        assert_whole(k);
        if (done)
            assert_true(done(k) == effect);
        lg_keyring_close(k);
    }
}

static const char *const losses[] = { "kept", "lost", "lost in part" };
static void say_where(void)
{
    print_error("%s, before call %u, what was not synced %s, %s, recovery before call %u\n", ops[now_at.op].name, now_at.stop, losses[now_at.loss],
                now_at.after == 0 ? "both copies" : now_at.after == 1 ? "the mirror alone" : "the first copy alone", now_at.again);
}

static void lose_disk(unsigned after)
{
    if (!after)
        return;
    remove_tree(at(after == 1 ? "w/k" : "w/m"), true);
    unlink(at(after == 1 ? "w/k.root" : "w/m.root"));
    unlink(at(after == 1 ? "w/k.root.tombstones" : "w/m.root.tombstones"));
}

/* One operation, cut before one call. False: it came to its end before that. */
static bool run(unsigned what, unsigned stop, enum power_loss loss, unsigned after)
{
    struct lg_keyring *k = NULL;
    struct lg_clock then = now;
    struct lg_keyring_stat st;
    remove_tree(at("w"), true);
    copy_tree(at("t"), at("w"));
    now_at.op = what, now_at.stop = stop, now_at.loss = loss, now_at.after = after, now_at.again = 0;
    bool opening = ops[what].how == OPENING, first_gone = ops[what].op == op_degraded || opening;
    if (opening)
        lose_disk(what == OPS - 1 ? 1 : 2);
    else
        k = opened();
    if (ops[what].before)
        ops[what].before(k);
    if (k) {
        assert_int_equal(lg_keyring_stat(k, &st), 0);
        epoch_before = st.epoch;
    }
    power_on(at("w"), stop);
    int rc = opening ? open_as("first", &k) : 0;
    if (!rc)
        rc = ops[what].op(k);
    else
        k = NULL;
    bool cut = power_gone(), acked = rc == 0;
    if (!cut)
        assert_int_equal(rc, 0);
    power_fail(); /* after the last call, too: what was acknowledged is durable */
    if (k)
        lg_keyring_close(k);
    power_off(loss, chance());
    if (!first_gone || (opening && acked))
        lose_disk(after);
    /* Recovery, cut before some call of its own, until it is not. */
    for (unsigned cuts = 0; cut && cuts < 2; cuts++) {
        now_at.again = (unsigned)(chance() % 24) + 1;
        power_on(at("w"), now_at.again);
        k = NULL;
        rc = open_as("first", &k);
        bool again = power_gone();
        if (!rc)
            lg_keyring_close(k);
        else
            assert_true(again);
        power_off((enum power_loss)(chance() % POWER_LOSSES), chance());
    }
    now_at.again = 0;
    k = opened();
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_int_equal(st.stale, 0);
    assert_whole(k);
    bool effect = ops[what].done && ops[what].done(k);
    if (acked && ops[what].done)
        assert_true(effect);
    lg_keyring_close(k);
    assert_copies(effect, ops[what].done);
    now = then;
    return cut;
}

static bool failed = true;
static void test_every_call(void **state)
{
    (void)state;
    const char *only = getenv("LG_POWERCUT");
    unsigned runs = 0, calls = 0;
    failed = true;
    for (unsigned what = 0; what < OPS; what++) {
        unsigned stop = 1;
        if (only && strcmp(only, ops[what].name) != 0)
            continue;
        for (bool cut = true; cut; stop++) {
            cut = false;
            for (enum power_loss loss = 0; loss < POWER_LOSSES; loss++) {
                if (ops[what].how == ONCE && loss != stop % POWER_LOSSES)
                    continue;
                runs++;
                bool before = run(what, stop, loss, (stop + loss) % 3);
                for (unsigned i = 1; !before && i < 3; i++, runs++) /* it was acknowledged: each disk has it */
                    (void)run(what, stop, loss, (stop + loss + i) % 3);
                cut |= before;
            }
            assert_true(stop < 300);
        }
        calls += stop - 2;
    }
    failed = false;
    print_message("%u power cuts at %u calls of %u operations\n", runs, calls, (unsigned)OPS);
}

/* A keyring that is being made, and one that is being restored: there, or to be made anew; never half. */
static void test_making(void **state)
{
    (void)state;
    unsigned runs = 0;
    now_at.op = 0;
    for (unsigned restore = 0; restore < 2; restore++)
        for (bool cut = true, again = false; cut; again = false)
            for (unsigned stop = 1; cut || !again; stop++) {
                again = true;
                cut = false;
                for (enum power_loss loss = 0; loss < POWER_LOSSES; loss++, runs++) {
                    unsigned n;
                    struct lg_keyring *k;
                    struct lg_roots r;
                    remove_tree(at("w"), true);
                    assert_int_equal(mkdir(at("w"), 0700), 0);
                    power_on(at("w"), stop);
                    int rc = restore ? copy_restore(&backup, at("w/k"), at("w/k.root"), "first", NULL, &n) : lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0);
                    bool gone = power_gone();
                    cut |= gone;
                    power_off(loss, chance());
                    assert_true(gone || rc == 0);
                    bool there = access(at("w/k.root"), F_OK) == 0;
                    assert_true(there || rc);
                    if (!there) { /* nobody was told of it: away with what is left, and once more */
                        remove_tree(at("w/k"), true);
                        rc = restore ? copy_restore(&backup, at("w/k"), at("w/k.root"), "first", NULL, &n) : lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0);
                        assert_int_equal(rc, 0);
                    }
                    assert_int_equal(lg_keyring_open(at("w/k"), at("w/k.root"), NULL, &k), 0);
                    lg_keyring_set_clock(k, clock_read, NULL);
                    assert_int_equal(lg_slotfile_unlock(at("w/k.root"), LG_SLOT_PASSPHRASE, NULL, "first", 5, &r), 0);
                    assert_int_equal(lg_keyring_unlock(k, &r), 0);
                    lg_roots_done(&r);
                    if (restore) {
                        assert_whole(k);
                        assert_true(lg_keyring_restored(k));
                    }
                    lg_keyring_close(k);
                }
                if (!cut)
                    break;
                assert_true(stop < 400);
            }
    print_message("%u power cuts\n", runs);
}

static int setup(void **state)
{
    (void)state;
    make_top("lgpower");
    prepare();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    power_off(POWER_KEEP_ALL, 0);
    if (failed)
        say_where();
    struct lg_secret *all[] = { kept.key, kept2.key, kept2_old.key, victim.key, prov.key, done_for.key, waits.key, sam.seed, ruth.seed };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        lg_secret_free(all[i]);
    copy_free(&backup);
    remove_tree(top, true);
    return 0;
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_every_call, setup, teardown), cmocka_unit_test_setup_teardown(test_making, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
