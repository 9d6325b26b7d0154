/* The slot file's anchor over a real keyring and a chip in memory, stopped before every step that writes, with writes of the chip that fail or are torn:
 * no key is lost, no value of an epoch that is over outlives what is reported, and what was copied before opens nothing any more. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "govern.h"

/* ---- the chip --------------------------------------------------------------------------------------------------------------------------------- */

enum { PLACES = 4, NV = 0x1800000 };
struct nvram {
    struct {
        bool defined, written, torn;
        uint8_t id[LG_ID_LEN], value[LG_KEY_LEN];
        uint64_t epoch;
    } p[PLACES];
    unsigned writes, fail_at; /* fail_at: that write fails, counted from 1; 0: none */
    bool dead, tear;          /* tear: the write that fails leaves half of it */
};
static struct nvram now;

static int nv_make(void *arg, const uint8_t id[LG_ID_LEN], uint32_t *ret_nv)
{
    struct nvram *n = arg;
    (void)id;
    if (n->dead)
        return -ENODEV;
    for (unsigned i = 0; i < PLACES; i += 2)
        if (!n->p[i].defined) {
            n->p[i].defined = n->p[i + 1].defined = true;
            *ret_nv = NV + i;
            return 0;
        }
    return -ENOSPC;
}

static int nv_read(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret)
{
    struct nvram *n = arg;
    unsigned i = nv - NV;
    if (n->dead)
        return -ENODEV;
    if (i >= PLACES || !n->p[i].defined || !n->p[i].written)
        return -ENODATA;
    if (n->p[i].torn)
        return -EBADMSG;
    if (memcmp(n->p[i].id, id, LG_ID_LEN) != 0)
        return -EXDEV;
    *ret_epoch = n->p[i].epoch;
    memcpy(ret->b, n->p[i].value, LG_KEY_LEN);
    return 0;
}

static int nv_write(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t epoch, const struct lg_secret *value)
{
    struct nvram *n = arg;
    unsigned i = nv - NV;
    if (n->dead)
        return -ENODEV;
    if (i >= PLACES || !n->p[i].defined)
        return -ENODATA;
    bool fail = ++n->writes == n->fail_at;
    if (fail && !n->tear)
        return -EIO;
    n->p[i].written = true;
    n->p[i].torn = fail;
    memcpy(n->p[i].id, id, LG_ID_LEN);
    n->p[i].epoch = epoch;
    memcpy(n->p[i].value, value->b, fail ? LG_KEY_LEN / 2 : LG_KEY_LEN);
    return fail ? -EIO : 0;
}

static int nv_free(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN])
{
    struct nvram *n = arg;
    LG_SECRET_AUTO v = lg_secret_random();
    int rc = nv_write(arg, nv, id, 0, v);
    if (!rc)
        memset(&n->p[nv - NV], 0, sizeof n->p[0]);
    return rc;
}

static int unseal(void *arg, const uint8_t *sealed, size_t len, struct lg_secret *ret)
{
    (void)arg, (void)sealed, (void)len, (void)ret;
    return -EXDEV;
}

static struct lg_chip chip_of(struct nvram *n)
{
    return (struct lg_chip){ .arg = n, .unseal = unseal, .nv_make = nv_make, .nv_read = nv_read, .nv_write = nv_write, .nv_free = nv_free };
}
static struct lg_chip chip;

static unsigned alive(void) /* values that could still open something */
{
    unsigned n = 0;
    for (unsigned i = 0; i < PLACES; i++)
        n += now.p[i].written && (now.p[i].torn || now.p[i].epoch);
    return n;
}

/* ---- the keyring ---------------------------------------------------------------------------------------------------------------------------------- */

static char top[64], dir[96], slot[96], mirror[96], dir2[96], slot2[96];
static struct lg_key kept, victim;

static void wipe_files(void)
{
    static const char *const names[] = { "k/data.mdb", "k/lock.mdb", "k/lock", "k.root", "k.root.degraded", "k.root.tombstones", "m/data.mdb", "m/lock.mdb", "m/lock", "m.root", "m.root.degraded", "m.root.tombstones",
                                         "old/data.mdb", "old/lock.mdb", "old/lock", "old.root", "old.root.tombstones" };
    char path[128];
    for (unsigned i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        unlink(path);
    }
    rmdir(dir);
    rmdir(dir2);
    rmdir(mirror);
}

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "%s/lganchor-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    snprintf(mirror, sizeof mirror, "%s/m", top);
    snprintf(dir2, sizeof dir2, "%s/old", top);
    snprintf(slot2, sizeof slot2, "%s/old.root", top);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    wipe_files();
    return rmdir(top);
}

static int try_slot(const char *path, const struct lg_chip *c, struct lg_roots *ret)
{
    struct lg_roots r = { 0 };
    int rc = lg_slotfile_unlock_with(path, c, LG_SLOT_PASSPHRASE, NULL, "first", 5, &r);
    if (!rc && ret)
        *ret = r;
    else if (!rc)
        lg_roots_done(&r);
    return rc;
}

static struct lg_keyring *opened(bool with_mirror)
{
    struct lg_keyring *k;
    struct lg_roots r;
    assert_int_equal(lg_keyring_open(dir, slot, with_mirror ? mirror : NULL, &k), 0);
    lg_keyring_set_chip(k, &chip);
    assert_int_equal(try_slot(lg_slotfile_pick(slot, with_mirror ? "" : NULL), &chip, &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    lg_roots_done(&r);
    return k;
}

static void study(struct lg_keyring *k, const char *uid, struct lg_key *ret)
{
    struct lg_study_info info = { 0 };
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, ret, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static int same(struct lg_keyring *k, const struct lg_key *want)
{
    struct lg_key x;
    int rc = lg_keyring_key_by_id(k, want->kid, want->version, &x);
    if (rc)
        return rc;
    assert_memory_equal(x.key->b, want->key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
    return 0;
}

static struct lg_slotfile file(void)
{
    uint8_t b[LG_SLOTFILE_MAX];
    size_t len;
    struct lg_slotfile s;
    assert_int_equal(lg_slotfile_read(slot, b, &len), 0);
    assert_int_equal(lg_slotfile_decode(b, len, &s), 0);
    return s;
}

static void copy(const char *from, const char *to)
{
    static uint8_t b[1 << 20];
    FILE *a = fopen(from, "rb"), *z = fopen(to, "wb");
    assert_true(a && z);
    for (size_t n; (n = fread(b, 1, sizeof b, a)) > 0;)
        assert_int_equal(fwrite(b, 1, n, z), n);
    fclose(a);
    assert_int_equal(fclose(z), 0);
}

/* What the thief copied: keyring and slot file, and, for the control, the chip. */
static struct nvram copied;
static void copy_all(void)
{
    char from[128], to[128];
    mkdir(dir2, 0700);
    snprintf(from, sizeof from, "%s/data.mdb", dir);
    snprintf(to, sizeof to, "%s/data.mdb", dir2);
    copy(from, to);
    copy(slot, slot2);
    copied = now;
}

/* Opens the copies with every secret and this chip; what the victim's key gives. */
static int steal(struct nvram *n)
{
    struct lg_chip c = chip_of(n);
    struct lg_keyring *k;
    struct lg_roots r;
    int rc = try_slot(slot2, &c, &r);
    if (rc)
        return rc;
    assert_int_equal(lg_keyring_open(dir2, slot2, NULL, &k), 0);
    lg_keyring_set_chip(k, &c);
    rc = lg_keyring_unlock(k, &r);
    if (!rc)
        rc = same(k, &victim);
    lg_roots_done(&r);
    lg_keyring_close(k);
    return rc;
}

/* ---- every step ---------------------------------------------------------------------------------------------------------------------------------------- */

static const char *stop_at;
static unsigned stop_nth, seen;
static bool destroying;
static int hook(void *arg, const char *step)
{
    (void)arg;
    if (destroying && strcmp(step, "mark") == 0) { /* what comes next is called destroyed */
        assert_int_equal(alive(), 1);
        assert_int_equal(now.p[file().epoch[0] & 1].epoch, file().epoch[0]);
    }
    if (stop_at && seen < stop_nth && strcmp(step, stop_at) == 0)
        seen++;
    return stop_at && seen == stop_nth ? -EINTR : 0; /* nothing comes after a crash */
}

enum op { ROTATE, CHANGE, REMOVE, DESTROY, OFF, ON, OPS };
static int run(struct lg_keyring *k, enum op op)
{
    struct lg_slot_draft *d;
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    int rc;
    switch (op) {
    case ROTATE: return lg_keyring_rotate_root(k);
    case CHANGE:
        assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, "work", "new", 3, &d), 0);
        rc = lg_keyring_slot_change(k, d);
        lg_slot_draft_free(d);
        return rc;
    case REMOVE: return lg_keyring_slot_remove(k, "work");
    case DESTROY:
        assert_int_equal(lg_keyring_begin(k), 0);
        rc = lg_keyring_revoke(k, "1.2.9", "test", 0, kids, 4, &n);
        if (rc)
            lg_keyring_abort(k);
        else
            rc = lg_keyring_commit(k);
        return rc ? rc : lg_keyring_destroy(k, &n);
    default: return lg_keyring_anchor(k, op == ON);
    }
}

static struct lg_keyring *fresh(enum op op, bool with_mirror)
{
    struct lg_slot_draft *d;
    wipe_files();
    now = (struct nvram){ 0 };
    chip = chip_of(&now);
    stop_at = NULL;
    destroying = false;
    assert_int_equal(lg_keyring_create(dir, slot, "first", 5, 0), 0);
    struct lg_keyring *k = opened(with_mirror);
    assert_int_equal(lg_slot_draft_new(slot, LG_SLOT_PASSPHRASE, "work", "old", 3, &d), 0);
    assert_int_equal(lg_keyring_slot_add(k, d), 0);
    lg_slot_draft_free(d);
    study(k, "1.2.3", &kept);
    if (op != ON)
        assert_int_equal(lg_keyring_anchor(k, true), 0);
    study(k, "1.2.9", &victim);
    lg_keyring_close(k);
    copy_all();
    assert_int_equal(steal(&copied), 0); /* as long as its time lasts it opens */
    return opened(with_mirror);
}

static void done(struct lg_keyring *k)
{
    lg_keyring_close(k);
    lg_secret_free(kept.key);
    lg_secret_free(victim.key);
}

/* Everything is as it has to be, whatever happened. */
static void check(struct lg_keyring *k, enum op op, uint64_t epoch, bool destroyed)
{
    struct lg_slotfile s = file();
    assert_int_equal(lg_keyring_unfinished(k), 0);
    assert_int_equal(s.n_roots, 1);
    assert_int_equal(same(k, &kept), 0);
    assert_int_equal(same(k, &victim), destroyed ? -EKEYREVOKED : 0);
    assert_int_equal(alive(), s.anchored[0]);
    if (s.anchored[0]) {
        assert_int_equal(now.p[s.epoch[0] & 1].epoch, s.epoch[0]);
        assert_int_equal(try_slot(slot, NULL, NULL), -ENODEV);
    }
    if (!s.anchored[0])
        assert_int_equal(s.anchor_nv, 0);
    if (s.epoch[0] == epoch || op == ON) {
        assert_int_equal(steal(&now), 0); /* with an unanchored slot file from before: the condition */
        return;
    }
    int rc = steal(&now);
    assert_true(rc == -EKEYEXPIRED || (op == OFF && rc == -ENOMEDIUM));
    assert_int_equal(steal(&copied), 0); /* the anchor alone made the difference */
    struct nvram liar = copied; /* nor does a program help that asks no chip: the value itself is needed */
    for (unsigned i = 0; i < PLACES; i++)
        liar.p[i].value[0] ^= 1;
    assert_int_equal(steal(&liar), -EPROTO);
}

static void test_steps(void **state)
{
    (void)state;
    static const struct {
        const char *step;
        unsigned nth;
        bool mirrored;
    } stops[] = { { "anchor-new", 1, false }, { "slot-both", 1, false }, { "commit", 1, false },     { "verify", 1, false },      { "slot-new", 1, false },    { "anchor-old", 1, false },
                  { "mark", 1, false },       { "anchor-free", 1, false }, { "anchor-forget", 1, false }, { "slot-mirror", 1, true }, { "slot-mirror", 2, true }, { "anchor-old", 1, true } };
    unsigned hits[OPS] = { 0 };
    for (unsigned i = 0; i < OPS * sizeof stops / sizeof *stops * 2; i++) {
        enum op op = i % OPS;
        unsigned at = i / OPS / 2;
        bool crash = i / OPS % 2, of_off = strncmp(stops[at].step, "anchor-fo", 9) == 0 || strcmp(stops[at].step, "anchor-free") == 0;
        if ((of_off && op != OFF) || (strcmp(stops[at].step, "mark") == 0 && op != DESTROY) || (op == OFF && strcmp(stops[at].step, "anchor-new") == 0))
            continue; /* it has no such step */
        struct lg_keyring *k = fresh(op, stops[at].mirrored);
        uint64_t epoch = file().epoch[0];
        destroying = op == DESTROY;
        stop_at = stops[at].step;
        stop_nth = stops[at].nth;
        seen = 0;
        lg_keyring_set_hook(k, hook, NULL);
        int rc = run(k, op);
        lg_keyring_set_hook(k, NULL, NULL);
        bool hit = seen >= stop_nth;
        assert_int_equal(rc, hit ? -EINTR : 0);
        hits[op] += hit;
        assert_int_equal(same(k, &kept), 0);
        if (crash) { /* only what is on the disk and in the chip is left */
            lg_keyring_close(k);
            k = opened(stops[at].mirrored);
        } else if (hit) {
            assert_int_equal(lg_keyring_rotate_root(k), 0);
        }
        check(k, op, epoch, op == DESTROY);
        assert_int_equal(lg_keyring_rotate_root(k), 0); /* and it goes on */
        check(k, op, epoch, op == DESTROY);
        done(k);
    }
    for (unsigned op = 0; op < OPS; op++) /* the tests above did stop where they say */
        assert_true(hits[op] >= 2 * 7);
}

/* A write of the chip that fails, or is torn, in each operation. */
static void test_failing(void **state)
{
    (void)state;
    for (unsigned i = 0; i < OPS * 4 * 2; i++) {
        enum op op = i % OPS;
        struct lg_keyring *k = fresh(op, false);
        uint64_t epoch = file().epoch[0];
        destroying = op == DESTROY;
        now.writes = 0;
        now.fail_at = 1 + i / OPS / 2;
        now.tear = i / OPS % 2;
        lg_keyring_set_hook(k, hook, NULL);
        int rc = run(k, op);
        lg_keyring_set_hook(k, NULL, NULL);
        if (op == OFF && now.writes > now.fail_at) /* destroying its values is tried twice */
            assert_int_equal(rc, 0);
        else
            assert_int_equal(rc, now.writes >= now.fail_at ? -EIO : 0);
        assert_int_equal(same(k, &kept), 0);
        now.fail_at = 0;
        lg_keyring_close(k);
        k = opened(false);
        check(k, op, epoch, op == DESTROY);
        done(k);
    }
}

static void test_dead(void **state)
{
    (void)state;
    struct nvram other = { 0 };
    struct lg_chip its = chip_of(&other);
    struct lg_root root;
    bool over;
    struct lg_keyring *k = fresh(ROTATE, false);
    assert_int_equal(lg_keyring_anchor(k, true), -EALREADY);
    assert_int_equal(lg_anchor_overwritten(k, 0, &over), 0);
    assert_false(over);
    assert_int_equal(lg_anchor_overwritten(k, UINT64_MAX, &over), 0);
    assert_true(over);
    assert_int_equal(try_slot(slot, &its, NULL), -ENOMEDIUM);
    assert_int_equal(try_slot(slot, NULL, NULL), -ENODEV);
    /* A worker that is started anew with the root needs no chip to serve; that it cannot look is said. */
    assert_int_equal(lg_keyring_root(k, &root), 0);
    lg_keyring_close(k);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    struct lg_roots roots = { .n = 1, .r = { root } };
    assert_int_equal(lg_keyring_unlock(k, &roots), 0);
    lg_roots_done(&roots);
    assert_int_equal(lg_keyring_unfinished(k), -ENODEV);
    assert_int_equal(same(k, &kept), 0);
    lg_keyring_set_chip(k, &chip);
    /* It dies: nothing that rests on it can be done, and nothing is called done. */
    now.dead = true;
    uint64_t epoch = file().epoch[0];
    assert_int_equal(lg_keyring_rotate_root(k), -ENODEV);
    assert_int_equal(run(k, DESTROY), -ENODEV);
    assert_int_equal(same(k, &victim), -EKEYREVOKED);
    assert_int_equal(file().epoch[0], epoch);
    /* While the keyring is still unlocked the anchor can be given up; then the passphrase opens it without. */
    assert_int_equal(lg_keyring_anchor(k, false), -ENODEV);
    assert_false(file().anchored[0]);
    assert_int_not_equal(file().anchor_nv, 0);
    assert_int_equal(lg_anchor_overwritten(k, UINT64_MAX, &over), 0);
    assert_false(over);
    lg_keyring_close(k);
    assert_int_equal(try_slot(slot, NULL, NULL), 0);
    k = opened(false);
    assert_int_equal(lg_keyring_unfinished(k), 0);
    assert_int_equal(same(k, &kept), 0);
    assert_int_equal(run(k, DESTROY), -EKEYREVOKED); /* unlocking has ended it */
    assert_int_equal(lg_keyring_rotate_root(k), 0);
    assert_int_equal(lg_keyring_anchor(k, true), -ENODEV);
    /* It comes back: what is left in it goes. */
    now.dead = false;
    lg_keyring_close(k);
    k = opened(false);
    assert_int_equal(alive(), 0);
    assert_int_equal(file().anchor_nv, 0);
    assert_int_equal(steal(&now), -ENOMEDIUM);
    assert_int_equal(lg_keyring_anchor(k, false), -EALREADY);
    assert_int_equal(lg_keyring_anchor(k, true), 0);
    assert_int_equal(alive(), 1);
    done(k);
}

/* Given up with a chip that is dead, and the power fails at each step: it still opens without. */
static void test_dead_steps(void **state)
{
    (void)state;
    static const char *const steps[] = { "verify", "slot-new", "anchor-free" };
    for (unsigned i = 0; i < sizeof steps / sizeof *steps; i++) {
        struct lg_keyring *k = fresh(ROTATE, false);
        now.dead = true;
        stop_at = steps[i];
        stop_nth = 1;
        seen = 0;
        lg_keyring_set_hook(k, hook, NULL);
        assert_int_equal(lg_keyring_anchor(k, false), -EINTR);
        lg_keyring_close(k);
        k = opened(false);
        assert_int_equal(same(k, &kept), 0);
        assert_int_equal(file().n_roots, 1);
        assert_false(file().anchored[0]);
        done(k);
    }
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_steps, setup, teardown), cmocka_unit_test_setup_teardown(test_failing, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_dead, setup, teardown), cmocka_unit_test_setup_teardown(test_dead_steps, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
