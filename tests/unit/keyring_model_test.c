/* The keyring's whole life against a simple model in memory: random operations, every answer and everything that can be read compared; power cuts before a
 * random call of an operation, after which the keyring is as before it or as after it, wholly. The seed is printed: LG_MODEL_SEED, and LG_MODEL_STEPS.
 *
 * Not in it: what is compared with something outside the keyring. The anchor that a vault keeps and the chip's anchor of the slot file say which of two states of
 * keyring and slot file is the later one; this model has one state, and a keyring that was put back is no state that operations lead to. They are in powercut_test.c (an anchor
 * given to a vault, a keyring found to be put back and accepted, the slot file anchored, given up, and root, destruction and slot changes while anchored, each cut before every call),
 * anchor_test.c (the chip), and over the real programs e2e/anchor.py, rollback.py. */
#include "keyring_model_trim.h"

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
    memset(w.slot, 0, sizeof w.slot);
    for (unsigned i = 0; i < SLOTS; i++)
        snprintf(w.slot[i].name, sizeof w.slot[i].name, i ? "slot%u" : "passphrase", i);
    w.slot[0].there = w.slot[0].proved = true;
    snprintf(w.slot[0].pass, sizeof w.slot[0].pass, "first");
    w.restored = true; /* the inventory is the backup's, and the backup itself is in it, outstanding */
    w.incarnation = now.wall_s;
    for (unsigned i = 0; i < UIDS; i++) {
        struct study_model *m = &w.s[i];
        bool later_gone = false;
        for (size_t t = 24; changeable(m) && t < tombs_len; t += LG_TOMBSTONE_LEN) {
            struct lg_tombstone x;
            assert_int_equal(lg_tombstone_decode(tombs + t, LG_TOMBSTONE_LEN, &x), 0);
            if (memcmp(x.kid, m->kid, LG_ID_LEN) != 0)
                continue;
            later_gone = later_gone || !x.version || m->n <= x.version;
            if (x.version >= m->first && x.version < m->n) /* retired after the backup */
                retire(m, x.version + 1);
        }
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
                                            do_backup, do_void, do_confirm, do_vault,
                                            do_rotate, do_trim_ask, do_trim_ask, do_trim_approve, do_trim_approve, do_trim_cancel, do_trim_run, do_trim_run, do_trim_run };
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
    print_message("%lu steps: %u answers, %u of them refusals; %u power cuts, %u undone; %u restores; %u studies destroyed, %u times old versions retired\n", n, answers, refusals, cuts, undone, restores, destroyed_ever,
                  retired_ever);
    assert_true(n < 5000 || (cuts > n / 100 && undone && refusals > n / 10 && destroyed_ever > n / 400 && retired_ever > n / 4000 && restores));
    lg_keyring_close(k);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_model, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
