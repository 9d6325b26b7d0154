/* The keyring over a real directory: what persists, what is refused, and destruction interrupted at every step. */
#include <fcntl.h>
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

static char top[64], dir[80], slot[96];
static const char pass[] = "correct horse";

static void copy(const char *from, const char *to)
{
    static uint8_t buf[1 << 20];
    int a = open(from, O_RDONLY), b = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(a >= 0 && b >= 0);
    for (ssize_t n; (n = read(a, buf, sizeof buf)) > 0;)
        assert_int_equal(write(b, buf, (size_t)n), n);
    close(a);
    close(b);
}

static const char *in(const char *name)
{
    static char path[4][160];
    static unsigned n;
    char *p = path[n++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static int setup(void **state)
{
    (void)state;
    /* In memory: the page test alone opens and syncs tens of thousands of changed files. */
    strcpy(top, access("/dev/shm", W_OK) == 0 ? "/dev/shm/lgkeyring-XXXXXX" : "/tmp/lgkeyring-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    assert_int_equal(lg_keyring_create(dir, slot, pass, strlen(pass), 10), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(in("data.mdb"));
    unlink(in("lock.mdb"));
    unlink(in("lock"));
    rmdir(dir);
    unlink(slot);
    char extra[120];
    snprintf(extra, sizeof extra, "%s/old.mdb", top);
    unlink(extra);
    snprintf(extra, sizeof extra, "%s/old.root", top);
    unlink(extra);
    snprintf(extra, sizeof extra, "%s/k.root.tombstones", top);
    unlink(extra);
    return rmdir(top);
}

static int unlock(struct lg_keyring *k, const char *with)
{
    struct lg_roots roots;
    int rc = lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, with, strlen(with), &roots);
    if (rc)
        return rc;
    rc = lg_keyring_unlock(k, &roots);
    lg_roots_done(&roots);
    return rc;
}

static struct lg_keyring *opened(void)
{
    struct lg_keyring *k;
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(unlock(k, pass), 0);
    return k;
}

static struct lg_key study(struct lg_keyring *k, const char *uid)
{
    struct lg_study_info info = { .patient_id = "P1", .modality = "CT" };
    struct lg_key key;
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &key, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    return key;
}

static void test_life(void **state)
{
    (void)state;
    struct lg_keyring *k, *second;
    struct lg_key a, b, vault, general;
    struct lg_study_info info = { .uid = "1.2.3", .accession = "A" };
    struct lg_study s;
    bool created;
    unsigned n;
    assert_int_equal(lg_keyring_create(dir, slot, pass, 3, 10), -EEXIST);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &second), -EWOULDBLOCK);
    assert_int_equal(lg_keyring_study_find(k, "1.2.3", &a), -ENOKEY);
    assert_int_equal(unlock(k, "wrong"), -EKEYREJECTED);
    assert_false(lg_keyring_unlocked(k));
    assert_int_equal(unlock(k, pass), 0);
    assert_int_equal(lg_keyring_study_find(k, "1.2.3", &a), -ENOENT);
    a = study(k, "1.2.3");
    /* An abort undoes; a commit keeps. */
    struct lg_study_info other = { .uid = "9.9" };
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &other, &b, &created), 0);
    assert_true(created);
    lg_secret_free(b.key);
    lg_keyring_abort(k);
    assert_int_equal(lg_keyring_study_find(k, "9.9", &b), -ENOENT);
    uint8_t vid[LG_ID_LEN] = "vault";
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_vault_add(k, vid, &vault, &general), 0);
    uint64_t s1, s2, unclean[4];
    assert_int_equal(lg_keyring_session_begin(k, vid, &s1), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_keyring_lock(k);
    assert_int_equal(lg_keyring_key_by_id(k, a.kid, 1, &b), -ENOKEY);
    lg_keyring_close(k);

    k = opened();
    assert_int_equal(lg_keyring_study_find(k, "1.2.3", &b), 0);
    assert_memory_equal(a.key->b, b.key->b, LG_KEY_LEN);
    assert_memory_equal(a.kid, b.kid, LG_ID_LEN);
    lg_secret_free(b.key);
    assert_int_equal(lg_keyring_key_by_id(k, a.kid, 1, &b), 0);
    assert_memory_equal(a.key->b, b.key->b, LG_KEY_LEN);
    lg_secret_free(b.key);
    assert_int_equal(lg_keyring_key_by_id(k, a.kid, 2, &b), -ENOKEY);
    struct lg_key v2, g2;
    assert_int_equal(lg_keyring_vault_get(k, vid, &v2, &g2), 0);
    assert_memory_equal(v2.key->b, vault.key->b, LG_KEY_LEN);
    assert_memory_equal(g2.key->b, general.key->b, LG_KEY_LEN);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_session_begin(k, vid, &s2), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_true(s2 > s1);
    assert_int_equal(lg_keyring_sessions_unclean(k, vid, unclean, 4, &n), 0);
    assert_int_equal(n, 1);
    assert_int_equal(unclean[0], s1);
    /* The record learns what it did not know. */
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_study_key(k, &info, &b, &created), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_false(created);
    lg_secret_free(b.key);
    assert_int_equal(lg_keyring_study_show(k, "1.2.3", &s), 0);
    assert_string_equal(s.info.patient_id, "P1");
    assert_string_equal(s.info.accession, "A");
    assert_int_equal(lg_keyring_study_show(k, "1.2.4", &s), -ENOENT);
    lg_keyring_close(k);
    struct lg_key *all[] = { &a, &vault, &general, &v2, &g2 };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        lg_secret_free(all[i]->key);
}

static const char *stop_at;
static int hook(void *arg, const char *step)
{
    unsigned *seen = arg;
    (*seen)++;
    return stop_at && strcmp(step, stop_at) == 0 ? -EINTR : 0;
}

enum { STUDIES = 40 };

/* Interrupted before each step that writes, as by a crash; then the keyring is opened again with nothing but the passphrase. */
static void test_destroy(void **state)
{
    (void)state;
    static const char *const steps[] = { "slot-both", "commit", "verify", "slot-new", "mark", NULL };
    struct lg_key kept[STUDIES], victim, prov, x;
    struct lg_study st;
    struct lg_roots old;
    char uid[32], path[120];
    struct lg_keyring *k = opened();
    for (unsigned i = 0; i < STUDIES; i++) {
        snprintf(uid, sizeof uid, "1.2.%u", i);
        kept[i] = study(k, uid);
    }
    for (unsigned s = 0; s < sizeof steps / sizeof *steps; s++) {
        unsigned seen = 0, n, destroyed = 0;
        uint8_t kids[8][LG_ID_LEN];
        struct lg_study_info info = { 0 };
        snprintf(info.uid, sizeof info.uid, "7.7.%u", s);
        victim = study(k, info.uid);
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_provisional(k, &prov), 0);
        assert_int_equal(lg_keyring_attach(k, prov.kid, &info), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(lg_keyring_key_by_id(k, prov.kid, 1, &x), 0);
        lg_secret_free(x.key);
        assert_int_equal(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &old), 0);
        snprintf(path, sizeof path, "%s/old.mdb", top);
        lg_keyring_close(k);
        copy(in("data.mdb"), path);
        snprintf(path, sizeof path, "%s/old.root", top);
        copy(slot, path);
        k = opened();

        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_revoke(k, info.uid, "because", 5, kids, 8, &n), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(n, 2);
        assert_int_equal(lg_keyring_key_by_id(k, victim.kid, 1, &x), -EKEYREVOKED);
        assert_int_equal(lg_keyring_key_by_id(k, prov.kid, 1, &x), -EKEYREVOKED);
        stop_at = steps[s];
        lg_keyring_set_hook(k, hook, &seen);
        int rc = lg_keyring_destroy(k, &destroyed);
        assert_int_equal(rc, steps[s] ? -EINTR : 0);
        assert_true(seen > 0);
        lg_keyring_close(k);
        k = opened(); /* resumes */
        assert_int_equal(lg_keyring_study_show(k, info.uid, &st), 0);
        assert_int_equal(st.state, LG_KEY_DESTROYED);
        assert_int_equal(st.version, 0);
        assert_string_equal(st.reason, "because");
        assert_string_equal(st.info.patient_id, "");
        assert_int_equal(lg_keyring_study_find(k, info.uid, &x), -EKEYREVOKED);
        assert_int_equal(lg_keyring_key_by_id(k, victim.kid, 1, &x), -EKEYREVOKED);
        assert_int_equal(lg_keyring_key_by_id(k, prov.kid, 1, &x), -EKEYREVOKED);
        for (unsigned i = 0; i < STUDIES; i++) {
            assert_int_equal(lg_keyring_key_by_id(k, kept[i].kid, 1, &x), 0);
            assert_memory_equal(x.key->b, kept[i].key->b, LG_KEY_LEN);
            lg_secret_free(x.key);
        }
        /* The root of before opens nothing any more. */
        lg_keyring_lock(k);
        assert_int_equal(lg_keyring_unlock(k, &old), -EKEYREJECTED);
        lg_roots_done(&old);
        lg_keyring_close(k);
        /* Yesterday's keyring file with today's slot file does not open; nor today's with yesterday's slot file. */
        char now[120];
        snprintf(now, sizeof now, "%s/now", top);
        copy(in("data.mdb"), now);
        snprintf(path, sizeof path, "%s/old.mdb", top);
        copy(path, in("data.mdb"));
        assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
        assert_int_equal(unlock(k, pass), -EKEYREJECTED);
        lg_keyring_close(k);
        copy(now, in("data.mdb"));
        copy(slot, now);
        snprintf(path, sizeof path, "%s/old.root", top);
        copy(path, slot);
        assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), 0);
        assert_int_equal(unlock(k, pass), -EKEYREJECTED);
        lg_keyring_close(k);
        copy(now, slot);
        unlink(now);
        k = opened();
        lg_secret_free(victim.key);
        lg_secret_free(prov.key);
    }
    struct lg_keyring_stat stat;
    assert_int_equal(lg_keyring_stat(k, &stat), 0);
    assert_int_equal(stat.studies, STUDIES);
    assert_int_equal(stat.destroyed, sizeof steps / sizeof *steps);
    struct lg_study *list = calloc(64, sizeof *list);
    unsigned n;
    assert_int_equal(lg_keyring_studies(k, NULL, list, 64, &n), 0);
    assert_int_equal(n, STUDIES + sizeof steps / sizeof *steps);
    free(list);
    lg_keyring_close(k);
    for (unsigned i = 0; i < STUDIES; i++)
        lg_secret_free(kept[i].key);
}

static void revoke_study(struct lg_keyring *k, const char *uid)
{
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, uid, "because", 5, kids, 4, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static void assert_destroyed(struct lg_keyring *k, const char *uid)
{
    struct lg_study st;
    assert_int_equal(lg_keyring_study_show(k, uid, &st), 0);
    assert_int_equal(st.state, LG_KEY_DESTROYED);
    assert_int_equal(st.version, 0);
}

/* A step fails but the process goes on: it may try again, or revoke another study and end before that one's destruction. */
static void test_destroy_errors(void **state)
{
    (void)state;
    static const char *const steps[] = { "slot-both", "commit", "verify", "slot-new", "mark" };
    struct lg_keyring *k = opened();
    for (unsigned s = 0; s < sizeof steps / sizeof *steps; s++) {
        char uid[3][32];
        struct lg_key key[3];
        unsigned n, seen = 0;
        for (unsigned i = 0; i < 3; i++) {
            snprintf(uid[i], sizeof uid[i], "5.%u.%u", s, i);
            key[i] = study(k, uid[i]);
            lg_secret_free(key[i].key);
        }
        bool swap = memcmp(key[1].kid, key[2].kid, LG_ID_LEN) > 0; /* the batch that failed comes first in key-id order */
        const char *first = uid[swap ? 2 : 1], *second = uid[swap ? 1 : 2];
        revoke_study(k, uid[0]);
        stop_at = steps[s];
        lg_keyring_set_hook(k, hook, &seen);
        assert_int_equal(lg_keyring_destroy(k, &n), -EINTR);
        lg_keyring_set_hook(k, NULL, NULL);
        assert_int_equal(lg_keyring_destroy(k, &n), 0);
        assert_int_equal(n, 1);
        assert_destroyed(k, uid[0]);
        revoke_study(k, first);
        lg_keyring_set_hook(k, hook, &seen);
        assert_int_equal(lg_keyring_destroy(k, &n), -EINTR);
        revoke_study(k, second);
        revoke_study(k, second); /* asking again is fine */
        lg_keyring_close(k);
        k = opened();
        assert_int_equal(lg_keyring_unfinished(k), 0);
        assert_destroyed(k, first);
        assert_destroyed(k, second);
    }
    lg_keyring_close(k);
}

static void test_edges(void **state)
{
    (void)state;
    char other[120];
    snprintf(other, sizeof other, "%s/other.root", top);
    assert_int_equal(lg_keyring_create(dir, other, pass, 3, 10), -EEXIST); /* the directory alone is there */
    struct lg_keyring *k = opened();
    struct lg_key vault, general;
    uint8_t vid[LG_ID_LEN] = "vault";
    uint64_t id, none[1] = { 0 };
    unsigned n;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_vault_add(k, vid, &vault, &general), 0);
    assert_int_equal(lg_keyring_session_begin(k, vid, &id), 0);
    assert_int_equal(lg_keyring_session_begin(k, vid, &id), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_secret_free(vault.key);
    lg_secret_free(general.key);
    assert_int_equal(lg_keyring_sessions_unclean(k, vid, none, 0, &n), 0);
    /* A forged record: active, yet without any version. */
    struct lg_key key = study(k, "1.2.3"), x;
    lg_secret_free(key.key);
    lg_keyring_close(k);
    struct lg_store *st;
    const uint8_t *p;
    size_t len, versions = 4 + LG_WRAPPED_LEN;
    uint8_t forged[1024] = { 0 };
    assert_int_equal(lg_store_open(dir, false, &st), 0);
    assert_int_equal(lg_store_begin(st), 0);
    assert_int_equal(lg_store_get(st, LG_T_KEYS, key.kid, LG_ID_LEN, &p, &len), 0);
    assert_true(len < sizeof forged);
    forged[0] = p[0];
    memcpy(forged + 5, p + 5 + versions, len - 5 - versions);
    assert_int_equal(lg_store_put(st, LG_T_KEYS, key.kid, LG_ID_LEN, forged, len - versions), 0);
    assert_int_equal(lg_store_commit(st, &(unsigned){ 0 }), 0);
    lg_store_close(st);
    k = opened();
    assert_int_equal(lg_keyring_study_find(k, "1.2.3", &x), -EPROTO);
    lg_keyring_close(k);
}

/* LMDB trusts its file; we look first. */
/* Reads everything, then changes something in every table, as far as the store lets it. */
static bool use_store(void)
{
    struct lg_store *st;
    const uint8_t *p;
    uint8_t key[64];
    size_t len, vlen;
    volatile unsigned sum = 0; /* every byte is really read */
    if (lg_store_open(dir, false, &st))
        return false;
    for (int t = 0; t < LG_TABLES; t++) {
        len = 0;
        for (unsigned n = 0; n < 100000 && lg_store_next(st, t, len != 0, key, &len, &p, &vlen) == 0; n++)
            for (size_t i = 0; i < vlen; i++)
                sum = sum + p[i];
    }
    int rc = lg_store_begin(st);
    for (int t = 0; !rc && t < LG_TABLES; t++) {
        uint8_t value[700] = { 1 };
        for (unsigned i = 0; !rc && i < 8; i++) {
            snprintf((char *)key, sizeof key, "a key number %u", i * 37);
            rc = lg_store_put(st, t, key, 16, value, sizeof value);
        }
    }
    rc = rc ? rc : lg_store_commit(st, &(unsigned){ 0 });
    lg_store_close(st);
    return true;
}

/* Made within one second, as most of these are, keyring backups count in the order in which the keyring grew; their ids are random. */
static void test_backups(void **state)
{
    (void)state;
    enum { BACKUPS = 24 };
    struct lg_keyring *k = opened();
    LG_SECRET_AUTO key = lg_secret_new();
    struct lg_backup_entry *e;
    struct lg_keyring_stat st;
    struct lg_backup *b;
    char text[32];
    unsigned n;
    assert_non_null(key);
    for (unsigned i = 0; i < BACKUPS; i++) {
        snprintf(text, sizeof text, "1.2.%u", i);
        struct lg_key made = study(k, text);
        lg_secret_free(made.key);
        snprintf(text, sizeof text, "backup %u", i);
        assert_int_equal(lg_backup_begin(k, key, &b), 0);
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_backup_note(k, b, text), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(lg_keyring_stat(k, &st), 0);
        assert_int_equal(st.uncovered, 1); /* nobody has said that it is safe */
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_backup_whole(k, lg_backup_id(b)), 0);
        assert_int_equal(lg_keyring_commit(k), 0);
        lg_backup_free(b);
        assert_int_equal(lg_keyring_stat(k, &st), 0);
        assert_int_equal(st.uncovered, 0);
    }
    assert_int_equal(lg_backup_list(k, &e, &n), 0);
    assert_int_equal(n, BACKUPS);
    for (unsigned i = 0; i < BACKUPS; i++) {
        snprintf(text, sizeof text, "backup %u", i);
        assert_string_equal(e[i].name, text);
    }
    free(e);
    lg_keyring_close(k);
}

/* Any byte of LMDB's file changed: refused, or harmless. A crash here is a failure. */
static void test_pages(void **state)
{
    (void)state;
    struct lg_keyring *k = opened();
    char uid[32];
    for (unsigned i = 0; i < 60; i++) { /* freed pages, overflow pages, more than one leaf */
        snprintf(uid, sizeof uid, "1.2.%u", i);
        struct lg_key key = study(k, uid);
        lg_secret_free(key.key);
    }
    lg_keyring_close(k);
    static uint8_t good[4 << 20];
    int fd = open(in("data.mdb"), O_RDWR);
    ssize_t len = pread(fd, good, sizeof good, 0);
    assert_true(len > 8 * 4096 && len < (ssize_t)sizeof good);
    assert_true(use_store());
    unsigned tried = 0, refused = 0;
    for (ssize_t at = 0; at < len; at++) {
        if (at % 4096 >= 96 && at % 131) /* headers and pointers whole, of the rest a sample */
            continue;
        for (unsigned bit = (unsigned)at & 1, once = 1; once; once = 0) {
            uint8_t x = (uint8_t)(good[at] ^ (bit ? 0xff : 1u << at % 8));
            assert_int_equal(pwrite(fd, good, (size_t)len, 0), len);
            assert_int_equal(ftruncate(fd, len), 0);
            assert_int_equal(pwrite(fd, &x, 1, at), 1);
            tried++;
            refused += !use_store();
        }
    }
    print_message("%u changed files, %u refused\n", tried, refused);
    assert_true(refused > tried / 50);
    for (ssize_t cut = 0; cut < len; cut += 1000) {
        assert_int_equal(pwrite(fd, good, (size_t)len, 0), len);
        assert_int_equal(ftruncate(fd, cut), 0);
        use_store();
    }
    close(fd);
}

static void test_hostile(void **state)
{
    (void)state;
    struct lg_keyring *k;
    char good[120];
    snprintf(good, sizeof good, "%s/old.mdb", top);
    copy(in("data.mdb"), good);
    for (off_t at = 0; at < 2 * 4096; at += 4096)
        for (off_t b = 16; b < 32; b++) { /* magic, version, address, map size */
            int fd = open(in("data.mdb"), O_RDWR);
            uint8_t x = 0xff;
            assert_int_equal(pwrite(fd, &x, 1, at + b), 1);
            close(fd);
            int rc = lg_keyring_open(dir, slot, NULL, &k);
            if (!rc)
                lg_keyring_close(k);
            else
                assert_int_equal(rc, -EPROTO);
            copy(good, in("data.mdb"));
        }
    assert_int_equal(truncate(in("data.mdb"), 5000), 0);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), -EPROTO);
    assert_int_equal(truncate(in("data.mdb"), 0), 0);
    assert_int_equal(lg_keyring_open(dir, slot, NULL, &k), -EPROTO);
    copy(good, in("data.mdb"));
    lg_keyring_close(opened());
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_life, setup, teardown), cmocka_unit_test_setup_teardown(test_destroy, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_destroy_errors, setup, teardown), cmocka_unit_test_setup_teardown(test_edges, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_backups, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_pages, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_hostile, setup, teardown) };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
