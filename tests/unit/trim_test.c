/* Retiring old versions of study keys: who may, when, what is kept and what goes; and stopped before every write of either copy of keyring and slot file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "govern.h"

static char top[64];
static struct lg_clock now;
static const struct lg_asker admin = { .account = 0, .admin = true };
static const uint8_t vault[LG_ID_LEN] = "vault one", elsewhere[LG_ID_LEN] = "vault two";

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
    static const char *const files[] = { "data.mdb", "lock.mdb", "lock", "data.mdb.tmp" };
    char name[64];
    for (unsigned i = 0; i < 4; i++) {
        snprintf(name, sizeof name, "%s/%s", dir, files[i]);
        unlink(at(name));
    }
    rmdir(at(dir));
}

static void remove_all(void)
{
    static const char *const slots[] = { "k.root", "m.root", "k.root.degraded", "m.root.degraded", "k.root.tmp", "m.root.tmp", "old.mdb", "k.root.tombstones", "m.root.tombstones" };
    remove_copy("k"), remove_copy("m");
    for (unsigned i = 0; i < sizeof slots / sizeof *slots; i++)
        unlink(at(slots[i]));
}

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "%s/lgtrim-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(top));
    now = (struct lg_clock){ .wall_s = 1800000000, .boot_s = 1000, .run_s = 1000, .boot_id = "boot one" };
    return lg_keyring_create(at("k"), at("k.root"), "pass", 4, 0);
}

static int teardown(void **state)
{
    (void)state;
    remove_all();
    return rmdir(top);
}

static void clock_read(void *arg, struct lg_clock *ret)
{
    (void)arg;
    *ret = now;
}

static void pass_time(uint64_t s)
{
    now.wall_s += s;
    now.boot_s += s;
    now.run_s += s;
}

static struct lg_keyring *opened(bool mirror)
{
    struct lg_keyring *k;
    struct lg_roots r;
    assert_int_equal(lg_keyring_open(at("k"), at("k.root"), mirror ? at("m") : NULL, &k), 0);
    lg_keyring_set_clock(k, clock_read, NULL);
    assert_int_equal(lg_slotfile_unlock(lg_slotfile_pick(at("k.root"), mirror ? at("m.root") : NULL), LG_SLOT_PASSPHRASE, NULL, "pass", 4, &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    lg_roots_done(&r);
    return k;
}

static void tick(struct lg_keyring *k)
{
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

/* A study with so many versions; *ret has them in order. */
static void study(struct lg_keyring *k, const char *uid, unsigned versions, struct lg_key *ret)
{
    struct lg_study_info info = { .patient_id = "P1" };
    uint8_t kid[LG_ID_LEN];
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    for (unsigned v = 0; v < versions; v++) {
        assert_int_equal(lg_keyring_begin(k), 0);
        if (v)
            assert_int_equal(lg_keyring_rotate_study(k, uid, kid), 0);
        assert_int_equal(lg_keyring_study_key(k, &info, &ret[v], &created), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(ret[v].version, v + 1);
    }
}

static void keys_done(struct lg_key *key, unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        lg_secret_free(key[i].key);
}

static int has(struct lg_keyring *k, const struct lg_key *want)
{
    struct lg_key x;
    int rc = lg_keyring_key_by_id(k, want->kid, want->version, &x);
    if (!rc) {
        assert_memory_equal(x.key->b, want->key->b, LG_KEY_LEN);
        lg_secret_free(x.key);
    }
    return rc;
}

static struct lg_act act_of(struct lg_keyring *k, const char *uid, uint64_t declared)
{
    struct lg_act a = { .action = LG_ACT_TRIM, .created = now.wall_s, .expires = now.wall_s + 86400, .reason = "policy", .number = declared };
    struct lg_trim what = { .n_vaults = 1 };
    struct lg_keyring_stat st;
    struct lg_study s;
    memcpy(what.vault[0], vault, LG_ID_LEN);
    assert_int_equal(lg_trim_encode(&what, a.data, &a.data_len), 0);
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    memcpy(a.keyring_id, st.keyring_id, LG_ID_LEN);
    assert_int_equal(lg_random(a.nonce, LG_ID_LEN), 0);
    if (uid) {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        assert_int_equal(lg_keyring_study_show(k, uid, &s), 0);
        memcpy(a.kid, s.kid, LG_ID_LEN);
    }
    return a;
}

static int submit(struct lg_keyring *k, struct lg_act *a, const struct lg_secret *seed, const struct lg_asker *who, enum lg_act_state *ret)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    struct lg_act_record *r = malloc(sizeof *r);
    enum lg_act_effect e;
    size_t len;
    if (seed)
        assert_int_equal(lg_sign_public(seed, a->by), 0);
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    if (seed)
        assert_int_equal(lg_act_sign(seed, LG_ACT_ASK, doc, len, sig), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    int rc = lg_keyring_act_submit(k, doc, len, seed ? sig : NULL, who, r, &e);
    if (!rc && ret)
        *ret = r->state;
    free(r);
    if (rc)
        lg_keyring_abort(k);
    else
        assert_int_equal(lg_keyring_commit(k), 0);
    return rc;
}

static int approve(struct lg_keyring *k, const struct lg_act *a, const struct lg_secret *seed, const struct lg_asker *who)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN], pub[LG_SIGN_PUB_LEN];
    struct lg_act_record *r = malloc(sizeof *r);
    enum lg_act_effect e;
    size_t len;
    assert_int_equal(lg_sign_public(seed, pub), 0);
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    assert_int_equal(lg_act_sign(seed, LG_ACT_APPROVE, doc, len, sig), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    int rc = lg_keyring_act_approve(k, a->nonce, pub, sig, who, r, &e);
    if (!rc)
        assert_int_equal(r->state, LG_ACT_WAITING);
    free(r);
    if (rc)
        lg_keyring_abort(k);
    else
        assert_int_equal(lg_keyring_commit(k), 0);
    return rc;
}

/* The transaction alone; then what destroys. */
static int pend(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], const uint8_t *after, unsigned max, struct lg_rotated *ret)
{
    int rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_keyring_trim(k, act, after, max, ret);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc;
}

static int trim(struct lg_keyring *k, const uint8_t act[LG_ID_LEN], const uint8_t *after, unsigned max, struct lg_rotated *ret)
{
    unsigned n;
    int rc = pend(k, act, after, max, ret);
    if (!rc)
        rc = lg_keyring_destroy(k, &n);
    if (!rc)
        assert_int_equal(n, 0); /* no study is */
    return rc;
}

static void add_vault(struct lg_keyring *k, const uint8_t id[LG_ID_LEN])
{
    struct lg_key a, b;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_vault_add(k, id, &a, &b), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_secret_free(a.key), lg_secret_free(b.key);
}

static bool version_tombstone(struct lg_keyring *k, const struct lg_key *key, const uint8_t act[LG_ID_LEN])
{
    struct lg_record *r = malloc(sizeof *r);
    struct lg_tombstone t;
    uint8_t id[LG_MAC_LEN + LG_ID_LEN + 4] = { 0 }, b[LG_TOMBSTONE_LEN], pub[LG_SIGN_PUB_LEN];
    size_t len;
    assert_int_equal(lg_record_get(k, key->kid, r), 0);
    memcpy(id, r->lookup, LG_MAC_LEN);
    memcpy(id + LG_MAC_LEN, key->kid, LG_ID_LEN);
    id[sizeof id - 1] = (uint8_t)key->version;
    free(r);
    if (lg_sealed_get(k, LG_T_TOMBSTONES, "tombston", id, sizeof id, b, sizeof b, &len))
        return false;
    assert_int_equal(lg_tombstone_decode(b, len, &t), 0);
    assert_int_equal(lg_keyring_sign_pub(k, pub), 0);
    assert_int_equal(lg_sign_verify(pub, b, LG_TOMBSTONE_SIGNED, t.sig), 0);
    assert_true(t.version == key->version && t.epoch > t.epoch_before && memcmp(t.act, act, LG_ID_LEN) == 0);
    return true;
}

static void copy(const char *from, const char *to)
{
    FILE *f = fopen(from, "rb"), *g = fopen(to, "wb");
    int c;
    while ((c = fgetc(f)) != EOF)
        fputc(c, g);
    fclose(f), fclose(g);
}

/* ---- one administrator alone -------------------------------------------------------------------------------------------------------------- */

static void test_single(void **state)
{
    (void)state;
    struct lg_keyring *k = opened(false);
    struct lg_key a[3], b[1], c[2];
    struct lg_rotated done;
    struct lg_study s;
    enum lg_act_state st;
    study(k, "1.1", 3, a), study(k, "1.2", 1, b), study(k, "1.3", 2, c);
    add_vault(k, vault);
    /* Refused: a declaration that the newest version is younger than, one of the future, a study with nothing to retire, a vault that nobody looked through. */
    struct lg_act x = act_of(k, "1.1", now.wall_s - 1);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EDOM);
    x = act_of(k, "1.1", now.wall_s + 60);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EDOM);
    x = act_of(k, "1.2", now.wall_s);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EALREADY);
    x = act_of(k, "1.1", now.wall_s);
    x.data_len--;
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EINVAL);
    add_vault(k, elsewhere);
    x = act_of(k, "1.1", now.wall_s);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EREMOTE);
    x.data[0] = 1; /* declared to be gone */
    assert_int_equal(submit(k, &x, NULL, &admin, &st), 0);
    assert_int_equal(st, LG_ACT_WAITING);
    lg_keyring_close(k);
    copy(at("k/data.mdb"), at("old.mdb"));
    k = opened(false);
    assert_int_equal(trim(k, x.nonce, NULL, 10, &done), 0);
    assert_true(done.n == 1 && done.end && !done.full);
    assert_true(has(k, &a[0]) == -EKEYREVOKED && has(k, &a[1]) == -EKEYREVOKED && has(k, &a[2]) == 0);
    assert_true(has(k, &b[0]) == 0 && has(k, &c[0]) == 0 && has(k, &c[1]) == 0);
    assert_true(version_tombstone(k, &a[0], x.nonce) && version_tombstone(k, &a[1], x.nonce) && !version_tombstone(k, &a[2], x.nonce) && !version_tombstone(k, &c[0], x.nonce));
    assert_int_equal(lg_keyring_study_show(k, "1.1", &s), 0);
    assert_true(s.state == LG_KEY_ACTIVE && s.version == 3 && strcmp(s.info.patient_id, "P1") == 0);
    assert_int_equal(trim(k, x.nonce, NULL, 10, &done), -EALREADY);
    /* More versions go on from there; and the study can still be destroyed. */
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    struct lg_key more;
    bool created;
    const struct lg_study_info info = { .uid = "1.1" };
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, "1.1", kids[0]), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &more, &created), 0);
    assert_int_equal(more.version, 4);
    assert_int_equal(lg_keyring_revoke(k, "1.1", "x", 0, kids, 4, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(has(k, &a[2]), -EKEYREVOKED);
    lg_secret_free(more.key);
    /* Yesterday's keyring has them still, under a root that nobody has. */
    lg_keyring_close(k);
    struct lg_roots r;
    copy(at("old.mdb"), at("k/data.mdb"));
    assert_int_equal(lg_keyring_open(at("k"), at("k.root"), NULL, &k), 0);
    assert_int_equal(lg_slotfile_unlock(at("k.root"), LG_SLOT_PASSPHRASE, NULL, "pass", 4, &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), -EKEYREJECTED);
    lg_roots_done(&r);
    lg_keyring_close(k);
    keys_done(a, 3), keys_done(b, 1), keys_done(c, 2);
}

/* All studies, in batches, each touching the buckets of its own; those that are held, suspended or rotated since are passed over. */
static void test_all(void **state)
{
    (void)state;
    enum { N = 40 };
    struct lg_keyring *k = opened(false);
    static struct lg_key key[N][2];
    struct lg_rotated done = { .n = 0 };
    uint8_t last[LG_ID_LEN];
    char uid[32];
    unsigned batches = 0, trimmed = 0, full = 0;
    for (unsigned i = 0; i < N; i++) {
        snprintf(uid, sizeof uid, "1.%u", i);
        study(k, uid, 2, key[i]);
    }
    struct lg_act hold = act_of(k, "1.0", 0), suspend = act_of(k, "1.1", 0);
    hold.action = LG_ACT_HOLD, suspend.action = LG_ACT_SUSPEND;
    hold.data_len = suspend.data_len = 0;
    assert_int_equal(submit(k, &hold, NULL, &admin, NULL), 0);
    assert_int_equal(submit(k, &suspend, NULL, &admin, NULL), 0);
    struct lg_act x = act_of(k, NULL, now.wall_s);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), 0);
    pass_time(10);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, "1.2", last), 0); /* its version 2 was the newest when it was asked for */
    assert_int_equal(lg_keyring_commit(k), 0);
    struct lg_act one = act_of(k, "1.0", now.wall_s);
    assert_int_equal(submit(k, &one, NULL, &admin, NULL), -EBUSY);
    one = act_of(k, "1.1", now.wall_s);
    assert_int_equal(submit(k, &one, NULL, &admin, NULL), -EKEYREVOKED);
    do {
        memcpy(last, done.last, LG_ID_LEN);
        assert_int_equal(trim(k, x.nonce, batches ? last : NULL, 7, &done), 0);
        trimmed += done.n;
        full += done.full;
        batches++;
        if (batches == 3) { /* a restart in between */
            lg_keyring_close(k);
            k = opened(false);
        }
    } while (!done.end);
    assert_int_equal(trimmed, N - 3);
    assert_int_equal(full, 3);
    assert_true(batches >= 6);
    for (unsigned i = 0; i < N; i++) {
        assert_int_equal(has(k, &key[i][0]), i == 1 ? -EKEYREVOKED : i < 3 ? 0 : -EKEYREVOKED);
        assert_int_equal(has(k, &key[i][1]), i == 1 ? -EKEYREVOKED : 0);
        keys_done(key[i], 2);
    }
    struct lg_record *r = malloc(sizeof *r);
    assert_int_equal(lg_record_find(k, "1.1", r), 0);
    assert_int_equal(r->n, 2);
    free(r);
    assert_int_equal(trim(k, x.nonce, NULL, 7, &done), -EALREADY);
    lg_keyring_close(k);
}

/* ---- two officers ----------------------------------------------------------------------------------------------------------------------------- */

static void officer(struct lg_keyring *k, const struct lg_secret *seed, const char *name, enum lg_role role, uint32_t account)
{
    struct lg_act a = act_of(k, NULL, 0);
    struct lg_officer o = { .role = role, .account = account };
    snprintf(o.name, sizeof o.name, "%s", name);
    assert_int_equal(lg_sign_public(seed, o.pub), 0);
    a.action = LG_ACT_OFFICER_ADD;
    assert_int_equal(lg_officer_encode(&o, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, NULL, &admin, NULL), 0);
    assert_int_equal(lg_keyring_officers_note(k), 0);
}

static void test_officers(void **state)
{
    (void)state;
    enum { WEEK = 7 * 86400 };
    struct lg_keyring *k = opened(false);
    LG_SECRET_AUTO sam = lg_secret_random();
    LG_SECRET_AUTO ruth = lg_secret_random();
    const struct lg_asker as_sam = { .account = 101 }, as_ruth = { .account = 102 };
    struct lg_key a[2];
    struct lg_rotated done;
    enum lg_act_state st;
    tick(k);
    study(k, "1.1", 2, a);
    officer(k, sam, "Sam", LG_ROLE_SECURITY, 101);
    officer(k, ruth, "Ruth", LG_ROLE_RETENTION, 102);
    struct lg_act x = act_of(k, "1.1", now.wall_s);
    assert_int_equal(submit(k, &x, NULL, &admin, NULL), -EPERM);
    assert_int_equal(submit(k, &x, sam, &as_sam, &st), 0);
    assert_int_equal(st, LG_ACT_PENDING);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EPERM);
    assert_int_equal(approve(k, &x, sam, &as_sam), -ELOOP);
    assert_int_equal(approve(k, &x, ruth, &as_ruth), 0);
    /* The waiting period: both clocks. The act's own expiry is for approving it. */
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EAGAIN);
    pass_time(WEEK - 1);
    tick(k);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EAGAIN);
    now.wall_s += 30 * 86400; /* set forward: frozen, not over */
    tick(k);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -ENOLCK);
    now.wall_s -= 30 * 86400;
    struct lg_act right = act_of(k, NULL, 0);
    right.action = LG_ACT_CLOCK, right.data_len = 0;
    assert_int_equal(submit(k, &right, sam, &as_sam, NULL), 0);
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN], pub[LG_SIGN_PUB_LEN];
    size_t len;
    struct lg_act_record *r = malloc(sizeof *r);
    enum lg_act_effect e;
    assert_int_equal(lg_act_encode(&right, doc, &len), 0);
    assert_int_equal(lg_act_sign(ruth, LG_ACT_APPROVE, doc, len, sig), 0);
    assert_int_equal(lg_sign_public(ruth, pub), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_approve(k, right.nonce, pub, sig, &as_ruth, r, &e), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    free(r);
    pass_time(2);
    tick(k);
    /* A vault that came since was looked through by nobody; a hold that was placed since keeps what there is. */
    struct lg_act hold = act_of(k, "1.1", 0);
    hold.action = LG_ACT_HOLD, hold.data_len = 0;
    assert_int_equal(submit(k, &hold, sam, &as_sam, NULL), 0);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EBUSY);
    struct lg_act release = act_of(k, "1.1", 0);
    release.action = LG_ACT_RELEASE, release.data_len = 0;
    assert_int_equal(submit(k, &release, sam, &as_sam, NULL), 0);
    assert_int_equal(lg_act_encode(&release, doc, &len), 0);
    assert_int_equal(lg_act_sign(ruth, LG_ACT_APPROVE, doc, len, sig), 0);
    r = malloc(sizeof *r);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_approve(k, release.nonce, pub, sig, &as_ruth, r, &e), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    free(r);
    assert_int_equal(trim(k, x.nonce, NULL, 10, &done), 0);
    assert_true(has(k, &a[0]) == -EKEYREVOKED && has(k, &a[1]) == 0);
    keys_done(a, 2);
    /* Cancelled while it waits, by either. */
    study(k, "1.2", 2, a);
    x = act_of(k, "1.2", now.wall_s);
    assert_int_equal(submit(k, &x, ruth, &as_ruth, NULL), 0);
    assert_int_equal(approve(k, &x, sam, &as_sam), 0);
    struct lg_act cancel = act_of(k, NULL, 0);
    cancel.action = LG_ACT_CANCEL, cancel.data_len = 0;
    memcpy(cancel.kid, x.nonce, LG_ID_LEN);
    assert_int_equal(submit(k, &cancel, ruth, &as_ruth, NULL), 0);
    pass_time(WEEK + 1);
    tick(k);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EALREADY);
    assert_true(has(k, &a[0]) == 0 && has(k, &a[1]) == 0);
    /* A vault that came while it waited. */
    x = act_of(k, "1.2", now.wall_s);
    assert_int_equal(submit(k, &x, ruth, &as_ruth, NULL), 0);
    assert_int_equal(approve(k, &x, sam, &as_sam), 0);
    pass_time(WEEK + 1);
    tick(k);
    add_vault(k, elsewhere);
    assert_int_equal(pend(k, x.nonce, NULL, 10, &done), -EREMOTE);
    keys_done(a, 2);
    lg_keyring_close(k);
}

/* ---- crashes ------------------------------------------------------------------------------------------------------------------------------------ */

static unsigned steps, stop;
static int hook(void *arg, const char *step)
{
    (void)arg;
    (void)step;
    return ++steps >= stop ? -EINTR : 0;
}

/* Retiring versions of two studies while a third is destroyed with one of them pending both ways: before every write, with both copies, or one of them lost afterwards. */
static void test_crash(void **state)
{
    (void)state;
    struct lg_key a[3], b[2], v[2], other[1], x;
    struct lg_rotated done;
    struct lg_study s;
    bool ended = false;
    for (unsigned after = 0; after < 3; after++)
        for (stop = 1, ended = false; !ended; stop++) {
            uint8_t kids[4][LG_ID_LEN];
            unsigned n;
            remove_all();
            assert_int_equal(lg_keyring_create(at("k"), at("k.root"), "pass", 4, 0), 0);
            struct lg_keyring *k = opened(true);
            study(k, "1.1", 3, a), study(k, "1.2", 2, b), study(k, "1.3", 2, v), study(k, "1.4", 1, other);
            struct lg_act act = act_of(k, NULL, now.wall_s);
            assert_int_equal(submit(k, &act, NULL, &admin, NULL), 0);
            steps = 0;
            lg_keyring_set_hook(k, hook, NULL);
            int rc = pend(k, act.nonce, NULL, 10, &done);
            bool pended = !rc;
            if (!rc) {
                assert_true(done.n == 3 && done.end);
                rc = lg_keyring_begin(k);
                if (!rc)
                    rc = lg_keyring_revoke(k, "1.3", "because", 0, kids, 4, &n);
                if (rc)
                    lg_keyring_abort(k);
                else
                    rc = lg_keyring_commit(k);
            }
            bool revoked = !rc;
            if (!rc)
                rc = lg_keyring_destroy(k, &n);
            assert_true(rc == 0 || rc == -EINTR);
            ended = !rc;
            lg_keyring_close(k);
            if (after == 1)
                remove_copy("k"), unlink(at("k.root"));
            if (after == 2)
                remove_copy("m"), unlink(at("m.root"));
            k = opened(true);
            assert_int_equal(lg_keyring_unfinished(k), 0);
            assert_true(has(k, &a[2]) == 0 && has(k, &b[1]) == 0 && has(k, &other[0]) == 0); /* nothing else is ever lost */
            int first = has(k, &a[0]);
            assert_true(first == 0 || first == -EKEYREVOKED);
            if (first == 0) { /* nothing of it was committed, on the copy that is left */
                assert_false(pended && revoked);
                assert_true(has(k, &a[1]) == 0 && has(k, &b[0]) == 0 && has(k, &v[0]) == 0 && !version_tombstone(k, &a[0], act.nonce));
                assert_int_equal(trim(k, act.nonce, NULL, 10, &done), 0); /* and it can still be done */
                assert_int_equal(done.n, 3);
            }
            assert_true(has(k, &a[0]) == -EKEYREVOKED && has(k, &a[1]) == -EKEYREVOKED && has(k, &b[0]) == -EKEYREVOKED);
            assert_true(version_tombstone(k, &a[0], act.nonce) && version_tombstone(k, &a[1], act.nonce) && version_tombstone(k, &b[0], act.nonce));
            assert_int_equal(lg_keyring_study_show(k, "1.3", &s), 0);
            assert_true(!revoked || s.state == LG_KEY_DESTROYED);
            assert_true(s.state == LG_KEY_ACTIVE || s.state == LG_KEY_DESTROYED);
            assert_int_equal(has(k, &v[1]), s.state == LG_KEY_ACTIVE ? 0 : -EKEYREVOKED);
            assert_int_equal(has(k, &v[0]), -EKEYREVOKED);
            const uint8_t *p;
            uint8_t key[64];
            size_t len = 0, vlen;
            assert_int_equal(lg_store_next(k->store, LG_T_PENDING, false, key, &len, &p, &vlen), -ENOENT);
            assert_int_equal(lg_keyring_begin(k), 0);
            bool created;
            assert_int_equal(lg_keyring_study_key(k, &(struct lg_study_info){ .uid = "new" }, &x, &created), 0);
            assert_int_equal(lg_keyring_commit(k), 0);
            lg_secret_free(x.key);
            lg_keyring_close(k);
            keys_done(a, 3), keys_done(b, 2), keys_done(v, 2), keys_done(other, 1);
            assert_true(stop < 60);
        }
}

/* What one request left pending, as a copy was behind just then, and another made more of: all of it goes at the next chance, and nothing else waits for ever. */
static void test_twice(void **state)
{
    (void)state;
    struct lg_key a[4], x;
    struct lg_rotated done;
    uint8_t kid[LG_ID_LEN];
    bool created;
    unsigned n;
    struct lg_keyring *k = opened(false);
    add_vault(k, vault);
    study(k, "1.1", 2, a);
    /* Of a version that was made when that was not noted yet nobody can say that it is old enough. */
    struct lg_record *r = malloc(sizeof *r);
    assert_int_equal(lg_record_get(k, a[0].kid, r), 0);
    uint64_t rotated = r->c.rotated;
    for (unsigned i = 0; i < 2; i++) {
        struct lg_act act = act_of(k, "1.1", now.wall_s);
        r->c.rotated = i ? rotated : 0;
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_record_put(k, r), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        if (!i)
            assert_int_equal(submit(k, &act, NULL, &admin, NULL), -EDOM);
    }
    free(r);
    /* An act from before a restore is not carried out: it may have been cancelled since the backup. */
    struct lg_act before = act_of(k, "1.1", now.wall_s);
    assert_int_equal(submit(k, &before, NULL, &admin, NULL), 0);
    uint8_t began[8];
    struct lg_wr w = lg_wr(began, sizeof began);
    lg_wr_u64(&w, now.wall_s);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_store_put(k->store, LG_T_META, "incarnation", 11, began, w.len), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(pend(k, before.nonce, NULL, 10, &done), -ETIME);
    pass_time(1);
    for (unsigned v = 2; v < 4; v++) {
        struct lg_act act = act_of(k, "1.1", now.wall_s);
        assert_int_equal(submit(k, &act, NULL, &admin, NULL), 0);
        assert_int_equal(pend(k, act.nonce, NULL, 10, &done), 0);
        assert_int_equal(done.n, 1);
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_rotate_study(k, "1.1", kid), 0);
        assert_int_equal(lg_keyring_study_key(k, &(struct lg_study_info){ .uid = "1.1" }, &a[v], &created), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        pass_time(1);
    }
    study(k, "1.2", 1, &x);
    uint8_t kids[4][LG_ID_LEN];
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, "1.2", "x", 0, kids, 4, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(n, 1);
    assert_true(has(k, &a[0]) == -EKEYREVOKED && has(k, &a[1]) == -EKEYREVOKED && has(k, &a[2]) == 0 && has(k, &a[3]) == 0 && has(k, &x) == -EKEYREVOKED);
    lg_keyring_close(k);
    keys_done(a, 4), lg_secret_free(x.key);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_single, setup, teardown),
        cmocka_unit_test_setup_teardown(test_all, setup, teardown),
        cmocka_unit_test_setup_teardown(test_officers, setup, teardown),
        cmocka_unit_test_setup_teardown(test_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(test_crash, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
