/* What a restored keyring believes: not that a study lives which a signed tombstone says is gone; not what officers signed before; and it destroys nothing
 * until they have looked. */
#include <fcntl.h>

#include "office.h"

static const char pass[] = "pass";
static struct person sec, ret;

static int setup(void **state)
{
    (void)state;
    make_top("lgrestore");
    sec = person("Sam", LG_ROLE_SECURITY, 101);
    ret = person("Ruth", LG_ROLE_RETENTION, 102);
    return lg_keyring_create(at("k"), at("k.root"), pass, strlen(pass), 0);
}

static int teardown(void **state)
{
    (void)state;
    lg_secret_free(sec.seed);
    lg_secret_free(ret.seed);
    remove_tree(top, true);
    return 0;
}

static struct lg_keyring *opened(const char *name)
{
    struct lg_keyring *k;
    struct lg_keyring_time t;
    struct lg_roots r;
    char slot[200];
    snprintf(slot, sizeof slot, "%s.root", at(name));
    assert_int_equal(lg_keyring_open(at(name), slot, NULL, &k), 0);
    lg_keyring_set_clock(k, clock_read, NULL);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    lg_roots_done(&r);
    assert_int_equal(lg_keyring_officers_check(k), 0); /* of a restored keyring too */
    assert_int_equal(lg_keyring_unkept(k), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    return k;
}

static void officers(struct lg_keyring *k)
{
    struct person *all[] = { &sec, &ret };
    for (unsigned i = 0; i < 2; i++) {
        struct lg_act a = act_of(k, LG_ACT_OFFICER_ADD, NULL);
        assert_int_equal(lg_officer_encode(&all[i]->o, a.data, &a.data_len), 0);
        assert_int_equal(submit(k, &a, NULL), 0);
    }
}

static void study(struct lg_keyring *k, const char *uid)
{
    struct lg_study_info info = { .patient_id = "P1" };
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

static struct lg_act both(struct lg_keyring *k, enum lg_action action, const char *uid)
{
    struct lg_act a = act_of(k, action, uid);
    assert_int_equal(submit(k, &a, &ret), 0);
    assert_int_equal(approve(k, &a, &sec), 0);
    return a;
}

static unsigned due(struct lg_keyring *k)
{
    uint8_t kids[16][LG_ID_LEN];
    unsigned n, destroyed = 0;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_due(k, 16, kids, &n, NULL), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    if (n)
        assert_int_equal(lg_keyring_destroy(k, &destroyed), 0);
    assert_int_equal(n, destroyed);
    return n;
}

static void weeks(struct lg_keyring *k, unsigned n)
{
    struct lg_keyring_time t;
    for (unsigned d = 0; d < 7 * n; d++) {
        pass_time(DAY);
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_tick(k, &t), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
    }
}

static size_t load(const char *path, uint8_t *b, size_t cap)
{
    int fd = open(path, O_RDONLY);
    ssize_t n = fd < 0 ? -1 : read(fd, b, cap);
    assert_true(n >= 0);
    close(fd);
    return (size_t)n;
}

static void test_tombstones(void **state)
{
    (void)state;
    uint8_t file[8192];
    struct copy_of c = { 0 }, early = { 0 };
    struct stat st;
    unsigned n;
    struct lg_keyring *k = opened("k");
    officers(k);
    assert_int_equal(stat(at("k.root.tombstones"), &st), -1); /* nothing was destroyed yet */
    for (char uid[] = "1.1"; uid[2] <= '6'; uid[2]++)
        study(k, uid);
    both(k, LG_ACT_REVOKE, "1.1");
    weeks(k, 1);
    assert_int_equal(due(k), 1); /* before the backup */
    both(k, LG_ACT_REVOKE, "1.5");
    assert_int_equal(copy_make(k, "early", &early), 0);
    assert_int_equal(copy_make(k, "backup", &c), 0);
    /* After it: two are destroyed, one of them waiting at the time; one that the backup does not know, too. */
    study(k, "2.1");
    both(k, LG_ACT_REVOKE, "1.2");
    both(k, LG_ACT_REVOKE, "2.1");
    weeks(k, 1);
    assert_int_equal(due(k), 3);
    lg_keyring_close(k);
    size_t len = load(at("k.root.tombstones"), file, sizeof file);
    assert_int_equal(len, 8 + LG_ID_LEN + 4 * LG_TOMBSTONE_LEN);
    /* Half an append, as a crash leaves it, and the file gone: the next unlock writes it anew. */
    for (unsigned i = 0; i < 3; i++) {
        uint8_t again[8192];
        if (i == 0)
            assert_int_equal(truncate(at("k.root.tombstones"), (off_t)len - 100), 0);
        else if (i == 1)
            assert_int_equal(truncate(at("k.root.tombstones"), 3), 0);
        else
            assert_int_equal(unlink(at("k.root.tombstones")), 0);
        lg_keyring_close(opened("k"));
        assert_int_equal(load(at("k.root.tombstones"), again, sizeof again), len);
        for (size_t t = 8 + LG_ID_LEN; t < len; t += LG_TOMBSTONE_LEN)
            assert_non_null(memmem(again, len, file + t, LG_TOMBSTONE_LEN));
    }

    struct lg_backup_later later = { .tombstones = file, .tombstones_len = len };
    assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, &later, &n), 0);
    assert_int_equal(n, 2);
    k = opened("r");
    assert_int_equal(state_of(k, "1.1"), LG_KEY_DESTROYED);
    assert_int_equal(state_of(k, "1.2"), LG_KEY_RESTORED);
    assert_int_equal(state_of(k, "1.3"), LG_KEY_ACTIVE);
    assert_int_equal(state_of(k, "1.5"), LG_KEY_DESTROY_APPROVED);
    struct lg_kid_pair pair[4]; /* files are removed of what is destroyed, not of what officers may still take back */
    unsigned pairs = 0;
    bool end;
    assert_int_equal(lg_keyring_destroyed_kids(k, "1.1", NULL, pair, 4, &pairs, &end), 0);
    assert_true(pairs == 1 && end);
    assert_int_equal(lg_keyring_destroyed_kids(k, "1.2", NULL, pair, 4, &pairs, &end), -EALREADY);
    /* Its destruction was not cancelled, whatever is signed here: it does not become readable by that. */
    struct lg_keyring_stat s;
    pass_time(60);
    struct lg_act a = act_of(k, LG_ACT_CANCEL, NULL);
    struct lg_study five;
    assert_int_equal(lg_keyring_study_show(k, "1.5", &five), 0);
    memcpy(a.kid, five.act, LG_ID_LEN);
    assert_int_equal(submit(k, &a, &sec), 0);
    assert_int_equal(state_of(k, "1.5"), LG_KEY_RESTORED);
    assert_int_equal(lg_keyring_stat(k, &s), 0);
    assert_true(s.restored);
    lg_keyring_close(k);
    remove_tree(at("r"), true), unlink(at("r.root")), unlink(at("r.root.tombstones"));

    /* Two files joined, the first cut off; and what stood beside the new slot file is kept under another name. */
    uint8_t *two = malloc(2 * len);
    memcpy(two, file, len - 50), memcpy(two + len - 50, file, len);
    int fd = open(at("r.root.tombstones"), O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, file, len), len);
    close(fd);
    assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, &(struct lg_backup_later){ .tombstones = two, .tombstones_len = 2 * len - 50 }, &n), 0);
    assert_int_equal(n, 2);
    for (size_t t = 8 + LG_ID_LEN; t < len; t += LG_TOMBSTONE_LEN) /* cut so near its end that the next file's first bytes stand where its last ones did */
        for (size_t off = 1; off <= 8; off += off < 7 ? 6 : 1) {
            size_t first = 8 + LG_ID_LEN + LG_TOMBSTONE_LEN - off;
            memcpy(two, file, 8 + LG_ID_LEN), memcpy(two + 8 + LG_ID_LEN, file + t, LG_TOMBSTONE_LEN - off), memcpy(two + first, file, len);
            assert_int_equal(copy_restore(&c, at("q"), at("q.root"), pass, &(struct lg_backup_later){ .tombstones = two, .tombstones_len = first + len }, &n), 0);
            assert_int_equal(n, 2);
            remove_tree(at("q"), true), unlink(at("q.root"));
        }
    free(two);
    char aside[200];
    snprintf(aside, sizeof aside, "%s.before-%llu", at("r.root.tombstones"), (unsigned long long)now.wall_s);
    assert_true(access(at("r.root.tombstones"), F_OK) && access(aside, F_OK) == 0);
    /* Likewise what the restore did not see, as a mirror's: no unlock replaces a file by one that knows less. */
    unlink(aside);
    for (unsigned i = 0; i < 2; i++) {
        fd = open(at("r.root.tombstones"), O_WRONLY | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(write(fd, file, len), len);
        close(fd);
        lg_keyring_close(opened("r"));
        assert_int_equal(stat(at("r.root.tombstones"), &st), 0);
        assert_true(st.st_size < (off_t)len);
        snprintf(aside, sizeof aside, "%s.before-%llu", at("r.root.tombstones"), (unsigned long long)now.wall_s + i);
        uint8_t kept[8192];
        assert_int_equal(load(aside, kept, sizeof kept), len);
        assert_memory_equal(kept, file, len);
    }
    remove_tree(at("r"), true), unlink(at("r.root")), unlink(at("r.root.tombstones"));

    /* Every byte of it: another keyring's, no such file, not signed, or of no study here. Nothing is left behind. */
    for (size_t i = 0; i < len; i += i < 8 + LG_ID_LEN ? 1 : 7) {
        file[i] ^= 1;
        int rc = copy_restore(&c, at("r"), at("r.root"), pass, &later, &n);
        file[i] ^= 1;
        if (i < 8)
            assert_int_equal(rc, -ENOMSG);
        else if (i < 8 + LG_ID_LEN)
            assert_int_equal(rc, -EXDEV);
        else
            assert_int_equal(rc, -EKEYREJECTED); /* whichever byte: also one of the key id, though no such study is known then */
        assert_true(access(at("r"), F_OK) && access(at("r.root"), F_OK));
        if (i < 8 + LG_ID_LEN || i % 4)
            continue;
        later.damaged_too = true; /* officers decided so: counted, and the study found by what is left of it, key id or UID's hash */
        file[i] ^= 1;
        assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, &later, &n), 0);
        file[i] ^= 1;
        later.damaged_too = false;
        size_t in = (i - 8 - LG_ID_LEN) % LG_TOMBSTONE_LEN;
        assert_true(copy_counts.tombstones == 3 && copy_counts.tombstones_bad == 1 && !copy_counts.tombstones_cut && !copy_counts.aside);
        assert_true(n == 2 || (n == 1 && in < 8)); /* not taken for one at all, when its beginning is damaged */
        k = opened("r");
        for (unsigned u = 0; n == 2 && u < 2; u++)
            assert_int_equal(state_of(k, u ? "1.5" : "1.2"), u ? LG_KEY_DESTROY_APPROVED : LG_KEY_RESTORED);
        lg_keyring_close(k);
        remove_tree(at("r"), true), unlink(at("r.root")), unlink(at("r.root.tombstones"));
    }
    /* The list by UID, beside it. */
    later.destroyed = "9.9\n1.3\n";
    assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, &later, &n), 0);
    assert_int_equal(n, 3);
    copy_free(&c), copy_free(&early);
}

static void new_version(struct lg_keyring *k, const char *uid)
{
    uint8_t kid[LG_ID_LEN];
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, uid, kid), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static int version_of(struct lg_keyring *k, const char *uid, uint32_t version)
{
    struct lg_study s;
    struct lg_key key;
    assert_int_equal(lg_keyring_study_show(k, uid, &s), 0);
    int rc = lg_keyring_key_by_id(k, s.kid, version, &key);
    if (!rc)
        lg_secret_free(key.key);
    return rc;
}

/* Versions that were retired after the backup do not come back; of a study whose newer ones it does not know, nothing does. */
static void test_versions(void **state)
{
    (void)state;
    static uint8_t file[8192];
    struct copy_of before = { 0 }, after = { 0 };
    struct lg_rotated done;
    unsigned n;
    struct lg_keyring *k = opened("k");
    study(k, "1.1"), study(k, "1.2");
    assert_int_equal(copy_make(k, "before", &before), 0);
    new_version(k, "1.1"), new_version(k, "1.1");
    assert_int_equal(copy_make(k, "after", &after), 0);
    pass_time(60);
    struct lg_act a = act_of(k, LG_ACT_TRIM, "1.1");
    a.number = now.wall_s;
    a.data_len = 2; /* no vault, and none is gone */
    assert_int_equal(submit(k, &a, NULL), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_trim(k, a.nonce, NULL, 10, &done), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(lg_keyring_keep(k), 0);
    lg_keyring_close(k);
    size_t len = load(at("k.root.tombstones"), file, sizeof file);
    assert_int_equal(len, 8 + LG_ID_LEN + 2 * LG_TOMBSTONE_LEN);
    struct lg_backup_later later = { .tombstones = file, .tombstones_len = len };
    assert_int_equal(copy_restore(&after, at("r"), at("r.root"), pass, &later, &n), 0);
    assert_int_equal(n, 0);
    k = opened("r");
    assert_int_equal(state_of(k, "1.1"), LG_KEY_ACTIVE);
    assert_true(version_of(k, "1.1", 1) == -EKEYREVOKED && version_of(k, "1.1", 2) == -EKEYREVOKED && version_of(k, "1.1", 3) == 0 && version_of(k, "1.2", 1) == 0);
    lg_keyring_close(k);
    remove_tree(at("r"), true), unlink(at("r.root")), unlink(at("r.root.tombstones"));
    assert_int_equal(copy_restore(&before, at("r"), at("r.root"), pass, &later, &n), 0);
    assert_int_equal(n, 1);
    k = opened("r");
    assert_true(state_of(k, "1.1") == LG_KEY_RESTORED && version_of(k, "1.1", 1) == -EKEYREVOKED && version_of(k, "1.2", 1) == 0);
    lg_keyring_close(k);
    copy_free(&before), copy_free(&after);
}

static void test_acts(void **state)
{
    (void)state;
    struct copy_of c = { 0 };
    unsigned n;
    struct lg_act got;
    struct lg_keyring *k = opened("k");
    officers(k);
    for (char uid[] = "1.1"; uid[2] <= '6'; uid[2]++)
        study(k, uid);
    struct lg_act used = act_of(k, LG_ACT_HOLD, "1.1"), later = act_of(k, LG_ACT_REVOKE, "1.2"), pending = act_of(k, LG_ACT_REVOKE, "1.3");
    struct lg_act claim = act_of(k, LG_ACT_BACKUP_VOID, NULL);
    memcpy(claim.kid, "a backup", 8);
    assert_int_equal(submit(k, &used, &ret), 0);
    assert_int_equal(submit(k, &pending, &ret), 0);
    assert_int_equal(submit(k, &claim, &ret), 0);
    assert_int_equal(approve(k, &claim, &sec), 0);
    struct lg_act waits = both(k, LG_ACT_REVOKE, "1.4");
    assert_int_equal(copy_make(k, "backup", &c), 0);
    /* After it: asked, approved and cancelled, all of which the copy does not know. */
    assert_int_equal(submit(k, &later, &ret), 0);
    assert_int_equal(approve(k, &later, &sec), 0);
    assert_int_equal(approve(k, &pending, &sec), 0);
    struct lg_act *back[] = { &later, &pending, &waits };
    for (unsigned i = 0; i < 3; i++) {
        struct lg_act a = act_of(k, LG_ACT_CANCEL, NULL);
        memcpy(a.kid, back[i]->nonce, LG_ID_LEN);
        assert_int_equal(submit(k, &a, &ret), 0);
    }
    weeks(k, 1);
    assert_int_equal(due(k), 0);
    lg_keyring_close(k);

    assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, NULL, &n), 0);
    assert_int_equal(n, 0);
    k = opened("r");
    pass_time(60);
    /* Spent before and after the backup, or signed and never handed in: none counts. */
    assert_int_equal(submit(k, &used, &ret), -ETIME);
    assert_int_equal(submit(k, &later, &ret), -ETIME);
    assert_int_equal(approve(k, &pending, &sec), -ETIME);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_act_claim(k, claim.nonce, LG_ACT_BACKUP_VOID, NULL, &got), -ETIME);
    lg_keyring_abort(k);
    for (char uid[] = "1.1"; uid[2] <= '6'; uid[2]++)
        assert_int_equal(state_of(k, uid), uid[2] == '4' ? LG_KEY_DESTROY_APPROVED : LG_KEY_ACTIVE);
    /* Nothing is destroyed; confirming takes two, and what waits begins to wait anew. */
    weeks(k, 2);
    assert_int_equal(due(k), 0);
    struct lg_act e = act_of(k, LG_ACT_DESTROY_ENABLE, NULL);
    assert_int_equal(submit(k, &e, &ret), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_restored_confirm(k), 0);
    assert_int_equal(lg_keyring_act_claim(k, e.nonce, LG_ACT_DESTROY_ENABLE, NULL, &got), -EPERM);
    lg_keyring_abort(k);
    assert_true(lg_keyring_restored(k));
    assert_int_equal(approve(k, &e, &ret), -ELOOP); /* nobody approves their own */
    assert_int_equal(approve(k, &e, &sec), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_restored_confirm(k), 0);
    assert_int_equal(lg_keyring_act_claim(k, e.nonce, LG_ACT_DESTROY_ENABLE, NULL, &got), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(due(k), 0);
    struct lg_act cancel = act_of(k, LG_ACT_CANCEL, NULL);
    memcpy(cancel.kid, waits.nonce, LG_ID_LEN);
    pass_time(DAY);
    assert_int_equal(submit(k, &cancel, &ret), 0);
    weeks(k, 2);
    assert_int_equal(due(k), 0);
    assert_int_equal(state_of(k, "1.4"), LG_KEY_ACTIVE);
    /* From here on as ever. */
    both(k, LG_ACT_REVOKE, "1.4");
    weeks(k, 1);
    assert_int_equal(due(k), 1);
    lg_keyring_close(k);
    copy_free(&c);
}

/* A vault's anchor after two restores of one backup: the first is no rollback; the second, when the first was in use, is one, is accepted, and stays so. */
static void test_again(void **state)
{
    (void)state;
    static const uint8_t vault[LG_ID_LEN] = "a vault";
    struct copy_of c = { 0 };
    enum lg_anchor_verdict v;
    unsigned n;
    struct lg_keyring *k = opened("k");
    struct lg_key a, b;
    uint8_t first[LG_VAULT_ANCHOR_LEN], one[LG_VAULT_ANCHOR_LEN], two[LG_VAULT_ANCHOR_LEN];
    size_t len;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_vault_add(k, vault, &a, &b), 0);
    assert_int_equal(lg_keyring_vault_anchor(k, vault, NULL, 0, true, &v, first, &len), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_secret_free(a.key), lg_secret_free(b.key);
    assert_int_equal(copy_make(k, "backup", &c), 0);
    lg_keyring_close(k);
    for (unsigned i = 0; i < 8; i++) { /* which of the two has the later number is left to chance */
        assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, NULL, &n), 0);
        k = opened("r");
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_vault_anchor(k, vault, first, sizeof first, true, &v, one, &len), 0);
        assert_true(v == LG_ANCHOR_AS_GIVEN && len == sizeof one && !lg_keyring_rolled_back(k));
        assert_int_equal(lg_keyring_commit(k), 0);
        lg_keyring_close(k);
        remove_tree(at("r"), true), unlink(at("r.root"));
        assert_int_equal(copy_restore(&c, at("r"), at("r.root"), pass, NULL, &n), 0);
        k = opened("r");
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_vault_anchor(k, vault, one, sizeof one, true, &v, two, &len), 0);
        assert_true(v == LG_ANCHOR_AHEAD && len == 0 && lg_keyring_rolled_back(k));
        assert_int_equal(lg_rollback_accept(k, false), 0);
        assert_int_equal(lg_keyring_vault_anchor(k, vault, one, sizeof one, true, &v, two, &len), 0);
        assert_true(v == LG_ANCHOR_AS_GIVEN && len == sizeof two && !lg_keyring_rolled_back(k));
        assert_int_equal(lg_keyring_commit(k), 0);
        lg_keyring_close(k);
        remove_tree(at("r"), true), unlink(at("r.root"));
    }
    copy_free(&c);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_tombstones, setup, teardown), cmocka_unit_test_setup_teardown(test_versions, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_acts, setup, teardown), cmocka_unit_test_setup_teardown(test_again, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
