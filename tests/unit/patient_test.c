/* A retention rule counts from the patient's last study: what is refused, what waits and is kept after all, and a random walk whose every answer is held against all
 * studies there are, looked through as `study due` does. Keyrings from before patients were noted, and those that an earlier version used meanwhile. */
#include "office.h"

static struct person sam, ruth;

static struct lg_keyring *unlocked(void)
{
    struct lg_roots r;
    struct lg_keyring *k;
    assert_int_equal(lg_keyring_open(at("k"), at("k.root"), NULL, &k), 0);
    lg_keyring_set_clock(k, clock_read, NULL);
    assert_int_equal(lg_slotfile_unlock(at("k.root"), LG_SLOT_PASSPHRASE, NULL, "p", 1, &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    lg_roots_done(&r);
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    return k;
}

static int setup(void **state)
{
    (void)state;
    make_top("lgpatient");
    assert_int_equal(lg_keyring_create(at("k"), at("k.root"), "p", 1, 5), 0);
    sam = person("Sam", LG_ROLE_SECURITY, 101), ruth = person("Ruth", LG_ROLE_RETENTION, 102);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    lg_secret_free(sam.seed), lg_secret_free(ruth.seed);
    remove_tree(top, true);
    return 0;
}

static void rules(struct lg_keyring *k, uint32_t first, uint32_t second)
{
    struct lg_policy p;
    struct lg_act a = act_of(k, LG_ACT_POLICY, NULL);
    lg_policy_default(&p);
    p.n_rules = 2;
    p.rules[0].years = first;
    snprintf(p.rules[1].name, sizeof p.rules[1].name, "inpatient");
    p.rules[1].years = second;
    assert_int_equal(lg_policy_encode(&p, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, NULL), 0);
}

static void officers(struct lg_keyring *k)
{
    const struct person *const two[] = { &sam, &ruth };
    for (unsigned i = 0; i < 2; i++) {
        struct lg_act a = act_of(k, LG_ACT_OFFICER_ADD, NULL);
        assert_int_equal(lg_officer_encode(&two[i]->o, a.data, &a.data_len), 0);
        assert_int_equal(submit(k, &a, NULL), 0);
    }
}

static void arrives(struct lg_keyring *k, const char *uid, const char *patient, const char *date)
{
    struct lg_study_info info = { 0 };
    struct lg_key key;
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    snprintf(info.patient_id, sizeof info.patient_id, "%s", patient);
    snprintf(info.date, sizeof info.date, "%s", date);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_secret_free(key.key);
}

static int asks(struct lg_keyring *k, const char *uid, bool exception, struct lg_act *ret)
{
    *ret = act_of(k, LG_ACT_REVOKE, uid);
    ret->number = exception;
    return submit(k, ret, &ruth);
}

static unsigned falls_due(struct lg_keyring *k)
{
    uint8_t kids[64][LG_ID_LEN];
    unsigned n, gone = 0;
    struct lg_kept kept;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_due(k, 64, kids, &n, &kept), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    if (n)
        assert_int_equal(lg_keyring_destroy(k, &gone), 0);
    assert_int_equal(gone, n);
    return n;
}

static void week(struct lg_keyring *k)
{
    struct lg_keyring_time t;
    for (unsigned i = 0; i < 8; i++) {
        pass_time(DAY);
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_tick(k, &t), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
    }
}

static void rule(struct lg_keyring *k, const char *uid, uint64_t number)
{
    struct lg_act a = act_of(k, LG_ACT_RULE, uid);
    a.number = number;
    int rc = submit(k, &a, &ruth);
    assert_int_equal(rc ? rc : approve(k, &a, &sam), 0);
}

static enum lg_key_state state_of(struct lg_keyring *k, const char *uid)
{
    struct lg_study s;
    assert_int_equal(lg_keyring_study_show(k, uid, &s), 0);
    return s.state;
}

/* It is 2027: a study of 2010 is due after fifteen years, one of 2020 is not. */
static void test_last_study(void **state)
{
    (void)state;
    struct lg_act a, b;
    struct lg_keyring *k = unlocked();
    rules(k, 15, 30), officers(k);
    arrives(k, "1.1", "P1", "20100101");
    arrives(k, "1.2", "P1", "20110101");
    arrives(k, "1.3", "P1", "20200101");
    arrives(k, "2.1", "P2", "20100101");
    arrives(k, "3.1", "", "20100101");
    arrives(k, "3.2", "", "20200101");
    assert_int_equal(asks(k, "1.1", false, &a), -EDOM);
    assert_int_equal(asks(k, "1.3", false, &a), -EDOM);
    assert_int_equal(asks(k, "2.1", false, &a), 0);
    assert_int_equal(asks(k, "3.1", false, &a), 0); /* nobody: each for itself */
    assert_int_equal(asks(k, "1.1", true, &a), 0);  /* said so, and shown to the approver */
    rule(k, "1.3", 1);                              /* follows another rule: it keeps only what does too */
    assert_int_equal(asks(k, "1.1", false, &b), 0);
    rule(k, "1.3", 0);
    assert_int_equal(approve(k, &b, &sam), -EDOM); /* looked at again at approval */
    rule(k, "1.3", 1);
    assert_int_equal(approve(k, &b, &sam), 0);
    week(k);
    rule(k, "1.3", 0); /* and again when it falls due */
    assert_int_equal(falls_due(k), 0);
    rule(k, "1.3", 1);
    assert_int_equal(falls_due(k), 1);
    /* One that arrives while another waits, with its patient, or whose patient becomes known then. */
    assert_int_equal(asks(k, "2.1", false, &a), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    arrives(k, "2.2", "", "20250101");
    arrives(k, "2.2", "P2", "");
    week(k);
    assert_int_equal(falls_due(k), 0);
    /* Two of one patient wait together: neither keeps the other; one that is destroyed keeps nothing. */
    arrives(k, "4.1", "P4", "20100101"), arrives(k, "4.2", "P4", "20110101");
    assert_int_equal(asks(k, "4.1", false, &a), 0);
    assert_int_equal(asks(k, "4.2", false, &b), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    assert_int_equal(approve(k, &b, &sam), 0);
    arrives(k, "5.1", "P5", "20100101"), arrives(k, "5.2", "P5", "20260101");
    assert_int_equal(asks(k, "5.2", true, &a), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    assert_int_equal(asks(k, "5.1", false, &b), -EDOM); /* it waits, it is there */
    week(k);
    assert_int_equal(falls_due(k), 3);
    assert_int_equal(asks(k, "5.1", false, &b), 0);
    /* Two of one patient fall due at once, under two rules: what was seen of the one rule says nothing of the other. */
    arrives(k, "6.1", "P6", "20100101"), arrives(k, "6.2", "P6", "19900101"), arrives(k, "6.3", "P6", "20000101");
    rule(k, "6.2", 1);
    assert_int_equal(asks(k, "6.1", false, &a), 0);
    assert_int_equal(asks(k, "6.2", false, &b), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    pass_time(1);
    assert_int_equal(approve(k, &b, &sam), 0);
    rule(k, "6.3", 1);
    week(k);
    assert_int_equal(falls_due(k), 1);
    struct lg_study s;
    assert_int_equal(lg_keyring_study_show(k, "6.2", &s), 0);
    assert_int_equal(s.state, LG_KEY_DESTROY_APPROVED);
    lg_keyring_close(k);
}

/* One administrator alone: the same. */
static void test_alone(void **state)
{
    (void)state;
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    struct lg_keyring *k = unlocked();
    rules(k, 15, 30);
    arrives(k, "1.1", "P1", "20100101"), arrives(k, "1.2", "P1", "20200101"), arrives(k, "2.1", "P2", "20100101");
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, "1.1", "because", 0, kids, 4, &n), -EDOM);
    assert_int_equal(lg_keyring_revoke(k, "2.1", "because", 0, kids, 4, &n), 0);
    lg_keyring_abort(k);
    lg_keyring_close(k);
}

/* ---- from before ------------------------------------------------------------------------------------------------------------------------------ */

/* As a version before this leaves it; mark: only its own studies are not among those that were noted. */
static void forget_rows(struct lg_keyring *k, bool mark)
{
    uint8_t key[64] = { 'p' };
    size_t key_len = 1, len;
    const uint8_t *p;
    assert_int_equal(lg_keyring_begin(k), 0);
    while (lg_store_next(k->store, LG_T_STATE, true, key, &key_len, &p, &len) == 0 && key[0] == 'p')
        if (key_len == 17 || (mark && key_len == 8))
            assert_int_equal(lg_store_del(k->store, LG_T_STATE, key, key_len), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static uint64_t rows(struct lg_keyring *k)
{
    uint8_t key[64] = { 'p' };
    size_t key_len = 1, len;
    const uint8_t *p;
    uint64_t n = 0;
    while (lg_store_next(k->store, LG_T_STATE, true, key, &key_len, &p, &len) == 0 && key[0] == 'p')
        n += key_len == 17;
    return n;
}

static void gather_all(struct lg_keyring *k, unsigned at_once)
{
    bool left = true;
    for (unsigned i = 0; left; i++) {
        assert_int_equal(lg_keyring_gather(k, at_once, &left), 0);
        assert_true(i < 1000);
    }
}

static void test_from_before(void **state)
{
    (void)state;
    struct lg_act a;
    char uid[16], patient[16];
    bool left;
    struct lg_keyring *k = unlocked();
    rules(k, 15, 30), officers(k);
    for (unsigned i = 0; i < 40; i++) {
        snprintf(uid, sizeof uid, "1.%u", i), snprintf(patient, sizeof patient, "P%u", i / 4);
        arrives(k, uid, patient, i % 4 == 3 && i < 20 ? "20200101" : "20100101");
    }
    assert_int_equal(rows(k), 40);
    forget_rows(k, true);
    lg_keyring_close(k);
    k = unlocked();
    assert_int_equal(asks(k, "1.0", false, &a), -EINPROGRESS);
    assert_int_equal(asks(k, "1.3", false, &a), -EDOM); /* kept by its own date, whatever the others' */
    assert_int_equal(asks(k, "1.0", true, &a), 0);
    assert_int_equal(lg_keyring_gather(k, 7, &left), 0);
    assert_int_equal(lg_keyring_gather(k, 7, &left), 0);
    assert_true(left);
    arrives(k, "1.40", "P9", "20200101"), arrives(k, "1.41", "P8", "20200101"), arrives(k, "1.42", "P7", "20200101"); /* before and behind where it is */
    lg_keyring_close(k);
    k = unlocked(); /* it goes on */
    gather_all(k, 7);
    assert_int_equal(rows(k), 43);
    assert_int_equal(asks(k, "1.0", false, &a), -EDOM);
    assert_int_equal(asks(k, "1.36", false, &a), -EDOM);
    assert_int_equal(asks(k, "1.28", false, &a), -EDOM);
    assert_int_equal(asks(k, "1.24", false, &a), 0);
    /* An earlier version makes a study meanwhile: it leaves the mark as it is. */
    k->gather.phase = LG_UNGATHERED;
    arrives(k, "1.43", "P6", "20200101");
    assert_int_equal(rows(k), 43);
    lg_keyring_close(k);
    k = unlocked();
    assert_int_equal(asks(k, "1.24", false, &a), -EINPROGRESS);
    gather_all(k, 1);
    assert_int_equal(rows(k), 44);
    assert_int_equal(asks(k, "1.24", false, &a), -EDOM);
    /* What waits is kept meanwhile, and holds up no exception behind it. */
    arrives(k, "2.1", "P21", "20100101"), arrives(k, "2.2", "P22", "20100101"), arrives(k, "2.3", "P22", "20200101"), arrives(k, "2.4", "P23", "20200101");
    assert_int_equal(asks(k, "2.1", false, &a), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    pass_time(1);
    assert_int_equal(asks(k, "2.3", true, &a), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    week(k);
    forget_rows(k, true);
    lg_keyring_close(k);
    k = unlocked();
    assert_int_equal(falls_due(k), 1);
    assert_int_equal(state_of(k, "2.1"), LG_KEY_DESTROY_APPROVED);
    assert_int_equal(state_of(k, "2.3"), LG_KEY_DESTROYED);
    gather_all(k, 64);
    assert_int_equal(asks(k, "2.4", true, &a), 0);
    assert_int_equal(approve(k, &a, &sam), 0);
    week(k);
    /* Whoever takes rows away makes nothing due, and holds up no exception either. */
    forget_rows(k, false);
    assert_int_equal(asks(k, "1.20", false, &a), -EPROTO);
    assert_int_equal(falls_due(k), 1);
    assert_int_equal(state_of(k, "2.1"), LG_KEY_DESTROY_APPROVED);
    assert_int_equal(state_of(k, "2.4"), LG_KEY_DESTROYED);
    lg_keyring_close(k);
}

static void test_nobody(void **state)
{
    (void)state;
    struct lg_act a;
    struct lg_study_info info = { .patient_id = "0", .date = "20100101" };
    struct lg_key key;
    bool created;
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    struct lg_keyring *k = unlocked();
    rules(k, 15, 30);
    assert_int_equal(lg_keyring_begin(k), 0);
    for (unsigned i = 0; i <= LG_PATIENT_STUDIES_MAX; i++) {
        snprintf(info.uid, sizeof info.uid, "1.%u", i);
        if (i == LG_PATIENT_STUDIES_MAX)
            assert_int_equal(lg_keyring_revoke(k, "1.5", "because", 0, kids, 4, &n), 0), assert_int_equal(rows(k), i - 1);
        assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
        lg_secret_free(key.key);
    }
    assert_int_equal(lg_keyring_revoke(k, "1.6", "because", 0, kids, 4, &n), 0);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(info.uid, sizeof info.uid, "2.%u", i);
        assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
        lg_secret_free(key.key);
    }
    assert_int_equal(lg_keyring_revoke(k, "1.7", "because", 0, kids, 4, &n), -EDOM);
    assert_int_equal(lg_keyring_commit(k), 0);
    officers(k);
    assert_int_equal(asks(k, "1.7", false, &a), -EDOM);
    assert_int_equal(asks(k, "1.7", true, &a), 0);
    lg_keyring_close(k);
}

/* ---- against all studies ------------------------------------------------------------------------------------------------------------------------ */

enum { UIDS = 24, PATIENTS = 4, LIST = 512 };
static uint64_t seed_state;
static uint32_t dice(uint32_t n)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed_state >> 33) % n;
}

static bool looked_through(struct lg_keyring *k, const struct lg_study *s, uint64_t wall)
{
    struct lg_study *all = calloc(LIST, sizeof *all);
    struct lg_policy p;
    unsigned n;
    uint64_t last = 0;
    assert_int_equal(lg_keyring_policy(k, &p), 0);
    assert_int_equal(lg_keyring_studies(k, NULL, all, LIST, &n), 0);
    assert_true(n < LIST);
    for (unsigned i = 0; i < n; i++)
        if (all[i].state != LG_KEY_DESTROYED && all[i].rule == s->rule && (strcmp(all[i].info.uid, s->info.uid) == 0 || (s->info.patient_id[0] && strcmp(all[i].info.patient_id, s->info.patient_id) == 0))) {
            uint64_t due = lg_policy_due(&p, s->rule, all[i].info.date, all[i].created);
            last = due > last ? due : last;
        }
    free(all);
    return last <= wall;
}

static void test_walk(void **state)
{
    (void)state;
    const char *seed = getenv("LG_SEED");
    seed_state = seed ? strtoull(seed, NULL, 10) : 20261127;
    struct lg_keyring *k = unlocked();
    unsigned refused = 0, destroyed = 0, n;
    uint8_t kids[4][LG_ID_LEN];
    rules(k, 15, 30);
    for (unsigned step = 0; step < 6000; step++) {
        char uid[16], patient[16] = "", date[16];
        struct lg_study s;
        snprintf(uid, sizeof uid, "1.%u", dice(UIDS));
        int there = lg_keyring_study_show(k, uid, &s);
        unsigned what = dice(8);
        if (there == 0 && s.state == LG_KEY_DESTROYED) { /* its UID is free again; the list keeps to those that are there */
            if (destroyed > 150)
                break;
            struct lg_act a = act_of(k, LG_ACT_READMIT, uid);
            assert_int_equal(submit(k, &a, NULL), 0);
            continue;
        }
        if (there == 0) { /* as of any day */
            struct lg_record r;
            uint64_t wall = 1100000000 + (uint64_t)dice(20000) * DAY;
            assert_int_equal(lg_record_get(k, s.kid, &r), 0);
            assert_int_equal(lg_patient_keeps(k, &r, wall, NULL), looked_through(k, &s, wall) ? 0 : -EDOM);
        }
        if (there || what < 2) {
            if (dice(4))
                snprintf(patient, sizeof patient, "P%u", dice(PATIENTS));
            snprintf(date, sizeof date, "%u0101", 1990 + dice(dice(4) ? 22 : 37));
            arrives(k, uid, patient, dice(6) ? date : "");
        } else if (what == 2) {
            struct lg_act a = act_of(k, LG_ACT_RULE, uid);
            a.number = s.rule ^ 1;
            assert_int_equal(submit(k, &a, NULL), 0);
        } else if (what == 3 && dice(30) == 0) {
            pass_time(100 * DAY); /* else nothing that is left is due after a while */
        } else if (what == 3 && dice(20) == 0) {
            forget_rows(k, true);
            lg_keyring_close(k);
            k = unlocked();
            gather_all(k, dice(9) + 1);
        } else if (what > 3) {
            int want = looked_through(k, &s, now.wall_s) ? 0 : -EDOM;
            assert_int_equal(lg_keyring_begin(k), 0);
            int rc = lg_keyring_revoke(k, uid, "because", 0, kids, 4, &n);
            if (rc != want)
                fail_msg("seed %s, step %u, study %s: %d, expected %d", seed ? seed : "of the test", step, uid, rc, want);
            if (rc || dice(3)) { /* not destroyed after all */
                lg_keyring_abort(k);
                refused += rc != 0;
                continue;
            }
            assert_int_equal(lg_keyring_commit(k), 0);
            assert_int_equal(lg_keyring_destroy(k, &n), 0);
            destroyed += n;
        }
    }
    print_message("%u refused, %u destroyed\n", refused, destroyed);
    assert_true(refused > 100 && destroyed > 50);
    lg_keyring_close(k);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_last_study, setup, teardown), cmocka_unit_test_setup_teardown(test_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(test_from_before, setup, teardown), cmocka_unit_test_setup_teardown(test_nobody, setup, teardown),
        cmocka_unit_test_setup_teardown(test_walk, setup, teardown),
    };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
