/* leadglass-keyd --check's core: everything that can be damaged is damaged, and has to be named; what it calls good has to open; it changes nothing. */
#include <dirent.h>
#include <fcntl.h>
#include <lmdb.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "internal.h"
#include "leadglass/backup.h"
#include "leadglass/bytes.h"
#include "leadglass/check.h"

static char top[64], dir[80], slot[96], data[96];
static const char pass[] = "correct horse";
static struct lg_roots roots;
static uint8_t chain[LG_ID_LEN] = "an access log";
enum { STUDIES = 60 };
static uint8_t kid[STUDIES][LG_ID_LEN];

static uint8_t *slurp(const char *path, size_t *ret_len)
{
    int fd = open(path, O_RDONLY);
    struct stat st;
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *p = malloc((size_t)st.st_size + 1);
    assert_non_null(p);
    assert_int_equal(read(fd, p, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return p;
}

static void spill(const char *path, const void *p, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, p, len), (ssize_t)len);
    close(fd);
}

static int setup(void **state)
{
    (void)state;
    struct lg_keyring *k;
    struct lg_study_info info = { .patient_id = "P1" };
    struct lg_key key, vault, general;
    uint8_t vid[LG_ID_LEN] = "vault", kids[8][LG_ID_LEN];
    bool created;
    uint64_t session;
    unsigned n;
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/lgcheck-XXXXXX" : "/tmp/lgcheck-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    snprintf(data, sizeof data, "%s/data.mdb", dir);
    assert_int_equal(lg_keyring_create(dir, slot, pass, strlen(pass), 0), 0);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &roots), 0);
    assert_int_equal(lg_keyring_unlock(k, &roots), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    for (unsigned i = 0; i < STUDIES; i++) {
        snprintf(info.uid, sizeof info.uid, "1.2.%u", i);
        assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
        memcpy(kid[i], key.kid, LG_ID_LEN);
        lg_secret_free(key.key);
    }
    assert_int_equal(lg_keyring_vault_add(k, vid, &vault, &general), 0);
    lg_secret_free(vault.key);
    lg_secret_free(general.key);
    assert_int_equal(lg_keyring_session_begin(k, vid, &session), 0);
    assert_int_equal(lg_keyring_provisional(k, &key), 0);
    snprintf(info.uid, sizeof info.uid, "1.2.3");
    assert_int_equal(lg_keyring_attach(k, key.kid, &info), 0);
    lg_secret_free(key.key);
    LG_SECRET_AUTO seed = lg_secret_new();
    assert_int_equal(lg_keyring_audit_key(k, seed), 0);
    assert_int_equal(lg_keyring_head_put(k, chain, "signed", 6), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, "1.2.5", kids[0]), 0);
    assert_int_equal(lg_keyring_revoke(k, "1.2.9", "test", 0, kids, 8, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(n, 1);
    lg_keyring_close(k);
    lg_roots_done(&roots);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &roots), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char path[200];
    static const char *const names[] = { "k/data.mdb", "k/lock.mdb", "k/lock", "k.root", "k.root.tombstones" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        snprintf(path, sizeof path, "%s/%s", top, names[i]);
        unlink(path);
    }
    rmdir(dir);
    lg_roots_done(&roots);
    return rmdir(top);
}

/* ---- running it ------------------------------------------------------------------------------------------------------------------------------ */

static struct {
    unsigned n;
    char line[8192][160];
} said;

static void on_damage(void *arg, const struct lg_check_damage *d)
{
    char hex[2 * LG_ID_LEN + 1] = "";
    (void)arg;
    if (d->has_kid)
        lg_hex_encode(d->kid, LG_ID_LEN, hex);
    if (said.n < 8192)
        snprintf(said.line[said.n++], sizeof said.line[0], "%s: %s%s bucket %d page %d %s", d->part, d->subject, hex, d->bucket, d->has_page ? (int)d->page : -1, d->what);
}

static int on_head(const char *text, size_t len, const uint8_t *pub) { return pub && len == 6 && memcmp(text, "signed", 6) == 0 ? 0 : -EBADMSG; }

static struct lg_check_copy check(bool with)
{
    struct lg_check_copy c;
    const struct lg_check how = { .roots = with ? &roots : NULL, .damage = on_damage, .head = on_head };
    said.n = 0;
    assert_int_equal(lg_check_keyring(&how, dir, slot, &c), 0);
    assert_int_equal(c.damages, said.n);
    return c;
}

static void expect(const char *part, const char *also)
{
    for (unsigned i = 0; i < said.n; i++)
        if (strncmp(said.line[i], part, strlen(part)) == 0 && strstr(said.line[i], also))
            return;
    for (unsigned i = 0; i < said.n && i < 20; i++)
        print_message("said: %s\n", said.line[i]);
    fail_msg("nothing said of %s .. %s", part, also);
}

static const char *hexed(const uint8_t id[LG_ID_LEN])
{
    static char hex[2 * LG_ID_LEN + 1];
    lg_hex_encode(id, LG_ID_LEN, hex);
    return hex;
}

/* ---- damaging it ------------------------------------------------------------------------------------------------------------------------------ */

/* One record changed by LMDB itself: at < 0 counts from the end; len: what it becomes, 0: gone, else as it was. */
enum { AS_IT_WAS = -1 };
static void change(const char *table, const void *key, size_t key_len, int at, int len)
{
    MDB_env *e;
    MDB_txn *t;
    MDB_dbi dbi;
    MDB_val k = { key_len, (void *)(uintptr_t)key }, v;
    static uint8_t b[9000];
    assert_int_equal(mdb_env_create(&e), 0);
    mdb_env_set_maxdbs(e, 16);
    mdb_env_set_mapsize(e, 1 << 26);
    assert_int_equal(mdb_env_open(e, dir, MDB_NOSYNC | MDB_NOLOCK, 0600), 0);
    assert_int_equal(mdb_txn_begin(e, NULL, 0, &t), 0);
    assert_int_equal(mdb_dbi_open(t, table, 0, &dbi), 0);
    if (!key) { /* the first of the table */
        MDB_cursor *c;
        assert_int_equal(mdb_cursor_open(t, dbi, &c), 0);
        assert_int_equal(mdb_cursor_get(c, &k, &v, MDB_FIRST), 0);
        mdb_cursor_close(c);
    }
    assert_int_equal(mdb_get(t, dbi, &k, &v), 0);
    assert_true(v.mv_size < sizeof b);
    memcpy(b, v.mv_data, v.mv_size);
    if (len)
        b[at < 0 ? (int)v.mv_size + at : at] ^= 0x40;
    MDB_val changed = { len == AS_IT_WAS ? v.mv_size : (size_t)len, b };
    uint8_t copy[511];
    memcpy(copy, k.mv_data, k.mv_size);
    k.mv_data = copy;
    assert_int_equal(len ? mdb_put(t, dbi, &k, &changed, 0) : mdb_del(t, dbi, &k, NULL), 0);
    assert_int_equal(mdb_txn_commit(t), 0);
    mdb_env_close(e);
}

static void test_good(void **state)
{
    (void)state;
    size_t len[2], after;
    uint8_t *before[2] = { slurp(data, &len[0]), slurp(slot, &len[1]) };
    struct stat st[2], now;
    unsigned n = 0;
    assert_int_equal(stat(data, &st[0]), 0);
    assert_int_equal(stat(dir, &st[1]), 0);
    for (int with = 0; with < 2; with++) {
        struct lg_check_copy c = check(with);
        if (said.n)
            print_message("said: %s\n", said.line[0]);
        assert_int_equal(c.damages, 0);
        assert_true(c.there && c.slot_there);
        assert_int_equal(c.buckets, LG_BUCKETS);
        assert_int_equal(c.studies, STUDIES - 1);
        assert_int_equal(c.destroyed, 1);
        assert_int_equal(c.provisional, 1);
        assert_int_equal(c.vaults, 1);
        assert_int_equal(c.sessions, 1);
        assert_int_equal(c.heads, 1);
        assert_int_equal(c.tombstones, 1);
        assert_int_equal(c.versions, STUDIES - 1 + 1 + 1 + 2); /* one study has two */
        assert_int_equal(c.unknown, 0);
        assert_int_equal(c.epoch, c.slot_epoch);
        assert_true(with ? c.opened > LG_BUCKETS + 2 * STUDIES : c.opened == 0);
    }
    /* Not a byte, not a time, not a file more. */
    const char *const path[2] = { data, slot };
    for (int i = 0; i < 2; i++) {
        uint8_t *again = slurp(path[i], &after);
        assert_int_equal(after, len[i]);
        assert_memory_equal(again, before[i], after);
        free(again);
        free(before[i]);
    }
    assert_true(stat(data, &now) == 0 && now.st_mtim.tv_sec == st[0].st_mtim.tv_sec && now.st_mtim.tv_nsec == st[0].st_mtim.tv_nsec);
    assert_true(stat(dir, &now) == 0 && now.st_mtim.tv_sec == st[1].st_mtim.tv_sec && now.st_mtim.tv_nsec == st[1].st_mtim.tv_nsec);
    DIR *d = opendir(dir);
    while (readdir(d))
        n++;
    closedir(d);
    assert_int_equal(n, 2 + 3);
    /* While it is served it is not looked at. */
    struct lg_keyring *k;
    struct lg_check_copy c;
    const struct lg_check how = { .damage = on_damage };
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(lg_check_keyring(&how, dir, slot, &c), -EWOULDBLOCK);
    lg_keyring_close(k);
    assert_int_equal(lg_check_keyring(&how, "/nonexistent/k", slot, &c), -ENOENT);
}

static void test_records(void **state)
{
    (void)state;
    static const struct {
        const char *table;
        int key; /* of kid; -1: the first record; -2: named */
        const char *name;
        size_t name_len;
        int at, len;
        bool with; /* needs the secret */
        const char *part, *also;
    } damage[] = {
        { "buckets", -2, "\0\x11", 2, 0, 0, false, "buckets: ", "bucket 17 page -1 its key is lost" },
        { "buckets", -2, "\0\x11", 2, 0, 40, false, "buckets: ", "bucket 17 page -1 its key is damaged" },
        { "buckets", -2, "\0\x11", 2, 30, AS_IT_WAS, true, "buckets: ", "bucket 17 page -1 its key is damaged" },
        { "keys", 4, NULL, 0, 20, AS_IT_WAS, true, "keys: ", "version 1 of it does not open" },
        { "keys", 5, NULL, 0, 5 + 52 + 20, AS_IT_WAS, true, "keys: ", "version 2 of it does not open" },
        { "keys", 4, NULL, 0, 5 + 52 + 2 + 3, AS_IT_WAS, true, "keys: ", "its state cannot be opened" },
        { "keys", 4, NULL, 0, -3, AS_IT_WAS, true, "keys: ", "opens, but not what is noted of its study" },
        { "keys", 4, NULL, 0, 0, AS_IT_WAS, false, "keys: ", "its record is malformed" },
        { "keys", 4, NULL, 0, 3, 90, false, "keys: ", "its record is malformed" },
        { "keys", 4, NULL, 0, 0, 0, false, "lookup: ", "its record is lost" },
        { "keys", 3, NULL, 0, 0, 0, false, "attached: ", "its record is lost" },
        { "lookup", -1, NULL, 0, 0, 0, false, "lookup: ", "no study leads to it" },
        { "lookup", -1, NULL, 0, 3, AS_IT_WAS, false, "lookup: ", "its record is lost" },
        { "lookup", -1, NULL, 0, 0, 5, false, "lookup: ", "malformed" },
        { "vaults", -1, NULL, 0, 0, AS_IT_WAS, false, "vaults: ", "its record is lost" },
        { "vaults", -1, NULL, 0, 20, AS_IT_WAS, false, "vaults: ", "its record is lost" },
        { "sessions", -1, NULL, 0, 16, AS_IT_WAS, false, "sessions: ", "malformed" },
        { "sessions", -1, NULL, 0, 2, AS_IT_WAS, false, "sessions: ", "a vault that is not known" },
        { "tombstones", -1, NULL, 0, 7, AS_IT_WAS, true, "tombstones: ", "cannot be opened" },
        { "acts", -1, NULL, 0, 7, AS_IT_WAS, true, "acts: ", "cannot be opened" },
        { "state", -2, "signkey", 7, 7, AS_IT_WAS, true, "state: signkey", "cannot be opened" },
        { "meta", -2, "keyring", 7, 0, AS_IT_WAS, false, "meta: ", "malformed" },
        { "meta", -2, "keyring", 7, 10, AS_IT_WAS, false, "meta: ", "of a later version" },
        { "meta", -2, "keyring", 7, 0, 0, false, "meta: ", "is lost" },
        { "meta", -2, "keyring", 7, -5, AS_IT_WAS, true, "meta: ", "cannot be opened" },
        { "meta", -2, "keyring", 7, 45, AS_IT_WAS, true, "meta: ", "numbers of studies" },
        { "meta", -2, "auditkey", 8, 3, AS_IT_WAS, true, "meta: ", "key that signs access logs" },
        { "meta", -2, "auditkey", 8, 3, 9, false, "meta: ", "key that signs access logs" },
        { "meta", -2, "headan access log\0\0", 20, 1, AS_IT_WAS, false, "meta: head of access log", "not one that the keyring signed" },
        { "meta", -2, "commits", 7, 1, 3, false, "meta: ", "commits" },
    };
    size_t len;
    uint8_t *good = slurp(data, &len);
    for (size_t i = 0; i < sizeof damage / sizeof *damage; i++) {
        const uint8_t *key = damage[i].key >= 0 ? kid[damage[i].key] : (const uint8_t *)damage[i].name;
        change(damage[i].table, key, damage[i].key >= 0 ? LG_ID_LEN : damage[i].name_len, damage[i].at, damage[i].len);
        struct lg_check_copy c = check(damage[i].with);
        assert_true(c.damages > 0);
        expect(damage[i].part, damage[i].also);
        if (damage[i].key >= 0)
            expect(damage[i].part, hexed(kid[damage[i].key]));
        if (damage[i].with && strcmp(damage[i].table, "meta") != 0) /* the structure alone is as it was */
            assert_int_equal(check(false).damages, 0);
        spill(data, good, len);
    }
    assert_int_equal(check(true).damages, 0);
    free(good);
}

static void test_slotfile(void **state)
{
    (void)state;
    struct lg_keyring *k;
    size_t len, old_len, data_len;
    uint8_t *good = slurp(slot, &len), *old_data = slurp(data, &data_len), *old;
    good[100] ^= 1;
    spill(slot, good, len);
    struct lg_check_copy c = check(true);
    expect("slot file: ", "is damaged");
    assert_int_equal(c.damages, 1);
    assert_false(c.slot_there);
    good[100] ^= 1;
    spill(slot, good, len - 1);
    check(false);
    expect("slot file: ", "is damaged");
    unlink(slot);
    check(false);
    expect("slot file: ", "is not there");
    /* One wrap of a slot changed by somebody who can make the hash good. */
    struct lg_slotfile *s = malloc(sizeof *s);
    uint8_t out[LG_SLOTFILE_MAX];
    assert_int_equal(lg_slotfile_decode(good, len, s), 0);
    s->slots[0].root_slot[0][9] ^= 1;
    assert_int_equal(lg_slotfile_encode(s, roots.r[0].key, out, &old_len), 0);
    spill(slot, out, old_len);
    check(true);
    expect("slot file: ", "not one of the root");
    s->slots[0].root_slot[0][9] ^= 1;
    s->slots[0].root[0][9] ^= 1;
    assert_int_equal(lg_slotfile_encode(s, roots.r[0].key, out, &old_len), 0);
    spill(slot, out, old_len);
    check(true);
    expect("slot file: slot passphrase", "does not open"); /* the root is known, so it is seen which slot it is */
    free(s);
    /* Rolled back: either of the two. */
    spill(slot, good, len);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(lg_keyring_unlock(k, &roots), 0);
    assert_int_equal(lg_keyring_rotate_root(k), 0);
    lg_keyring_close(k);
    lg_roots_done(&roots);
    assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &roots), 0);
    assert_int_equal(check(true).damages, 0);
    old = slurp(slot, &old_len);
    spill(slot, good, len);
    check(false);
    expect("slot file: ", "rolled back");
    spill(slot, old, old_len);
    spill(data, old_data, data_len);
    check(false);
    expect("slot file: ", "the keyring was rolled back");
    check(true);
    expect("meta: ", "whose root the secret does not give");
    free(good);
    free(old);
    free(old_data);
}

/* Pages: each one of the file overwritten. Whatever hung on it is named, or it was free. */
static void test_pages(void **state)
{
    (void)state;
    size_t len;
    uint8_t *good = slurp(data, &len), *bad = malloc(len);
    unsigned found = 0, lost = 0;
    for (size_t page = 0; page < len / 4096; page++) {
        memcpy(bad, good, len);
        memset(bad + page * 4096, 0x55, 4096);
        spill(data, bad, len);
        struct lg_check_copy c = check(true);
        if (c.damages) {
            char also[32];
            snprintf(also, sizeof also, " page %d ", (int)page);
            expect("", also);
            found++;
        }
        /* Keys that are lost are named one by one. */
        unsigned named = 0;
        for (unsigned i = 0; i < STUDIES; i++)
            for (unsigned j = 0; j < said.n; j++)
                if (strstr(said.line[j], hexed(kid[i])) && strstr(said.line[j], "lost")) {
                    named++;
                    break;
                }
        uint64_t there = c.studies + c.destroyed;
        if (there && there < STUDIES)
            assert_int_equal(named, STUDIES - there), lost++;
        check(false);
    }
    print_message("%zu pages, %u in use, %u of them held keys\n", len / 4096, found, lost);
    assert_true(found > 20 && lost > 5);
    for (size_t cut = 4096; cut < len; cut += 5000) {
        spill(data, good, len - cut > 100 ? len - cut : 100);
        assert_true(check(true).damages > 0 || lg_pages_check(data) == 0);
    }
    spill(data, "", 0);
    check(true);
    expect("tables: ", "page 0 the file ends");
    unlink(data);
    check(true);
    expect("tables: ", "data.mdb is not there");
    spill(data, good, len);
    free(good);
    free(bad);
}

/* Opens everything as the key manager would. */
static bool all_opens(void)
{
    struct lg_keyring *k;
    struct lg_key key, general;
    char uid[32];
    const uint8_t vid[LG_ID_LEN] = "vault";
    bool ok = lg_keyring_open(dir, slot, NULL, &k) == 0;
    if (!ok)
        return false;
    ok = lg_keyring_unlock(k, &roots) == 0;
    for (unsigned i = 0; ok && i < STUDIES; i++) {
        snprintf(uid, sizeof uid, "1.2.%u", i);
        int rc = lg_keyring_study_find(k, uid, &key);
        ok = i == 9 ? rc == -EKEYREVOKED : rc == 0 && memcmp(key.kid, kid[i], LG_ID_LEN) == 0;
        if (!rc)
            lg_secret_free(key.key);
    }
    if (ok && (ok = lg_keyring_vault_get(k, vid, &key, &general) == 0)) {
        lg_secret_free(key.key);
        lg_secret_free(general.key);
    }
    lg_keyring_close(k);
    return ok;
}

/* Any byte changed: what is called good opens. */
static void test_bytes(void **state)
{
    (void)state;
    size_t len;
    uint8_t *good = slurp(data, &len);
    unsigned tried = 0, refused = 0;
    assert_true(all_opens());
    for (size_t at = 8; at < len; at += 1 + (at * 2654435761u >> 7) % 700) {
        good[at] ^= 0x21;
        spill(data, good, len);
        tried++;
        if (check(true).damages)
            refused++;
        else if (!all_opens())
            fail_msg("byte %zu is not what it was: called good, and does not open", at);
        good[at] ^= 0x21;
    }
    spill(data, good, len);
    print_message("%u changed files, %u with damage\n", tried, refused);
    assert_true(refused > tried / 10);
    free(good);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_good, setup, teardown), cmocka_unit_test_setup_teardown(test_records, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_slotfile, setup, teardown), cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_bytes, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
