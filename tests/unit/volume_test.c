/* A mounted vault without FUSE, with keys from memory and a backend that can fail any call: names, directories, files, reopening, and errors from below. */
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <linux/fs.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "leadglass/names.h"
#include "leadglass/volume.h"

/* ---- keys from memory: the same bytes give the same key for ever -------------------------------------------------------------------- */
static uint32_t newest = 1; /* version of every key */
static int version_of(uint8_t tag, uint32_t version, enum lg_key_kind kind, struct lg_key *ret)
{
    *ret = (struct lg_key){ .version = version, .kind = kind, .state = LG_KEY_ACTIVE, .key = lg_secret_new() };
    memset(ret->kid, tag, LG_ID_LEN);
    memset(ret->key->b, tag, LG_KEY_LEN);
    ret->key->b[0] ^= (uint8_t)(version - 1);
    return 0;
}
static int key_of(uint8_t tag, enum lg_key_kind kind, struct lg_key *ret) { return version_of(tag, kind == LG_KIND_VAULT ? 1 : newest, kind, ret); }
static int src_vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    (void)arg, (void)vault_id;
    return key_of('v', LG_KIND_VAULT, v) || key_of('g', LG_KIND_GENERAL, g);
}
static unsigned asked;
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    asked++;
    *lease = 1000;
    return key_of((uint8_t)info->uid[0], LG_KIND_STUDY, ret);
}
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 1000;
    return version_of(kid[0], version ? version : newest, LG_KIND_STUDY, ret);
}
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 1000;
    return key_of('p', LG_KIND_PROVISIONAL, ret);
}
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    (void)arg, (void)kid, (void)info;
    return 0;
}
static int may_assign;
static unsigned assign_asked, assign_taken;
static int src_assign(void *arg, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now)
{
    (void)arg, (void)act, (void)uid, (void)from, (void)file_id;
    assign_asked++;
    assign_taken += now && !may_assign;
    return may_assign;
}
static const struct lg_key_source source = { NULL, src_vault, src_study, src_by_id, src_provisional, src_attach, src_assign };

/* ---- a backend that fails its n-th changing call ---------------------------------------------------------------------------------------- */
static unsigned calls, fail_at;
static bool fail_all;
static int fail_with;
static struct lg_sys failing;
static int trip(void) { return ++calls == fail_at || fail_all ? fail_with : 0; }
static ssize_t f_pwritev(void *arg, int fd, const struct iovec *v, int n, off_t off)
{
    int rc = trip();
    if (rc == -EIO && n > 0 && v[0].iov_len > 1) { /* half of it, then the error */
        struct iovec half = { v[0].iov_base, v[0].iov_len / 2 };
        fail_at = calls + 1;
        return lg_sys_posix.pwritev(arg, fd, &half, 1, off);
    }
    return rc ? rc : lg_sys_posix.pwritev(arg, fd, v, n, off);
}
static _Atomic int hold; /* 1: the next fdatasync waits for go, having posted held */
static sem_t held, go;
static int f_fdatasync(void *arg, int fd)
{
    int rc = trip(), one = 1;
    if (atomic_compare_exchange_strong(&hold, &one, 0)) {
        sem_post(&held);
        sem_wait(&go);
    }
    return rc ? rc : lg_sys_posix.fdatasync(arg, fd);
}
static int f_ftruncate(void *arg, int fd, off_t len)
{
    int rc = trip();
    return rc ? rc : lg_sys_posix.ftruncate(arg, fd, len);
}

static char dir[64];
static struct lg_keys *keys;
static struct lg_volume *v;
static unsigned findings;
static const struct lg_cred me = { 0, 0, 0, 1 };
static uint64_t session = 1;

static void on_finding(void *arg, const struct lg_finding *f)
{
    (void)arg, (void)f;
    findings++;
}

static int open_volume(const uint64_t *unclean, unsigned n)
{
    struct lg_volume_options o = { .sys = &failing, .keys = keys, .session = ++session, .unclean = unclean, .n_unclean = n, .finding = on_finding };
    return lg_volume_open(dir, &o, &v);
}

static int setup(void **state)
{
    (void)state;
    struct lg_vault_info info = { .chunk_size = 4096, .version = 1 };
    struct lg_key vk;
    memset(info.vault_id, 'V', LG_ID_LEN);
    memset(info.keyring_id, 'K', LG_ID_LEN);
    failing = lg_sys_posix;
    failing.pwritev = f_pwritev;
    failing.fdatasync = f_fdatasync;
    failing.ftruncate = f_ftruncate;
    fail_at = findings = 0;
    fail_all = false;
    newest = 1;
    strcpy(dir, "/tmp/lgvolume-XXXXXX");
    assert_non_null(mkdtemp(dir));
    assert_int_equal(key_of('v', LG_KIND_VAULT, &vk), 0);
    assert_int_equal(lg_vault_create(dir, &info, vk.key), 0);
    assert_int_equal(lg_vault_create(dir, &info, vk.key), -ENOTEMPTY);
    lg_secret_free(vk.key);
    assert_int_equal(lg_keys_new(&source, info.vault_id, &keys), 0);
    return open_volume(NULL, 0);
}

static int remove_tree(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0)
        return 0;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            remove_tree(fd, e->d_name);
    if (d)
        closedir(d);
    return unlinkat(at, name, AT_REMOVEDIR);
}

static int teardown(void **state)
{
    (void)state;
    lg_keys_free(keys);
    return remove_tree(AT_FDCWD, dir);
}

static struct lg_entry look(uint64_t parent, const char *name)
{
    struct lg_entry e;
    assert_int_equal(lg_volume_lookup(v, parent, name, &e), 0);
    return e;
}

static int put(uint64_t parent, const char *name, const void *data, size_t len)
{
    struct lg_entry e;
    struct lg_handle *h;
    int rc = lg_volume_create_file(v, parent, name, O_RDWR, 0644, &me, &e, &h);
    if (rc)
        return rc;
    ssize_t n = lg_volume_write(h, data, len, 0);
    rc = n < 0 ? (int)n : lg_volume_fsync(h, false);
    lg_volume_release(h);
    lg_volume_forget(v, e.node, 1);
    return rc;
}

static int get(uint64_t parent, const char *name, void *data, size_t cap)
{
    struct lg_entry e;
    struct lg_handle *h;
    int rc = lg_volume_lookup(v, parent, name, &e);
    if (rc)
        return rc;
    rc = lg_volume_open_file(v, e.node, O_RDONLY, &h);
    if (!rc) {
        ssize_t n = lg_volume_read(h, data, cap, 0, O_RDONLY);
        assert_true(n < 0 || n == e.st.st_size);
        rc = (int)n;
        lg_volume_release(h);
    }
    lg_volume_forget(v, e.node, 1);
    return rc;
}

static char seen[64][300];
static unsigned n_seen;
static bool fill(void *arg, const char *name, const struct lg_entry *e, uint64_t next)
{
    (void)e, (void)next;
    if (n_seen == *(unsigned *)arg)
        return false;
    snprintf(seen[n_seen++], sizeof seen[0], "%s", name);
    return true;
}

static bool listed(uint64_t node, const char *name)
{
    struct lg_dir *d;
    unsigned all = 64;
    n_seen = 0;
    assert_int_equal(lg_volume_opendir(v, node, 0, &d), 0);
    assert_int_equal(lg_volume_readdir(d, 0, false, fill, &all), 0);
    lg_volume_releasedir(d);
    for (unsigned i = 0; i < n_seen; i++)
        if (strcmp(seen[i], name) == 0)
            return true;
    return false;
}

static void test_names(void **state)
{
    (void)state;
    char longest[257], got[5000];
    struct lg_entry a, b, e;
    memset(longest, 'n', 256);
    longest[256] = 0;
    assert_int_equal(lg_volume_lookup(v, LG_ROOT_NODE, "none", &e), -ENOENT);
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "a", 0755, &me, &a), 0);
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "a", 0755, &me, &e), -EEXIST);
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "b", 0755, &me, &b), 0);
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, longest, 0755, &me, &e), -ENAMETOOLONG);
    longest[255] = 0;
    assert_int_equal(put(a.node, longest, "long", 4), 0);
    assert_true(listed(a.node, longest));
    assert_int_equal(get(a.node, longest, got, sizeof got), 4);
    assert_int_equal(lg_volume_rename(v, a.node, longest, b.node, "short", 0, NULL), 0);
    assert_false(listed(a.node, longest));
    assert_int_equal(get(b.node, "short", got, sizeof got), 4);
    assert_int_equal(lg_volume_rename(v, b.node, "short", a.node, longest, 0, NULL), 0); /* free, and again over what is there: either way listed by its whole name */
    assert_true(listed(a.node, longest));
    assert_int_equal(put(b.node, "short", "other", 5), 0);
    assert_int_equal(lg_volume_rename(v, b.node, "short", a.node, longest, RENAME_NOREPLACE, NULL), -EEXIST);
    assert_int_equal(lg_volume_rename(v, b.node, "short", a.node, longest, 0, NULL), 0);
    assert_true(listed(a.node, longest));
    assert_int_equal(get(a.node, longest, got, sizeof got), 5);
    assert_int_equal(lg_volume_rename(v, a.node, longest, b.node, "none", RENAME_EXCHANGE, NULL), -ENOENT);
    assert_int_equal(lg_volume_rename(v, a.node, longest, b.node, "short", 0, NULL), 0);
    assert_int_equal(lg_volume_rmdir(v, LG_ROOT_NODE, "b"), -ENOTEMPTY);
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "a", LG_ROOT_NODE, "b", 0, NULL), -ENOTEMPTY);
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "b", LG_ROOT_NODE, "a", RENAME_NOREPLACE, NULL), -EEXIST);
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "b", LG_ROOT_NODE, "a", 0, NULL), 0); /* over an empty directory */
    assert_int_equal(get(look(LG_ROOT_NODE, "a").node, "short", got, sizeof got), 5);
    assert_int_equal(lg_volume_lookup(v, LG_ROOT_NODE, "b", &e), -ENOENT);
    assert_int_equal(put(LG_ROOT_NODE, "x", "X", 1), 0);
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "x", LG_ROOT_NODE, "a", RENAME_EXCHANGE, NULL), 0);
    assert_int_equal(get(LG_ROOT_NODE, "a", got, sizeof got), 1);
    assert_true(S_ISDIR(look(LG_ROOT_NODE, "x").st.st_mode));
    e = look(LG_ROOT_NODE, "a");
    struct lg_entry l;
    assert_int_equal(lg_volume_link(v, e.node, LG_ROOT_NODE, "hard", &l), 0);
    assert_int_equal(l.node, e.node);
    assert_int_equal(l.st.st_nlink, 2);
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "hard", LG_ROOT_NODE, "a", 0, NULL), 0); /* one file: both stay */
    assert_true(listed(LG_ROOT_NODE, "hard") && listed(LG_ROOT_NODE, "a"));
    assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "a", NULL), 0);
    assert_int_equal(get(LG_ROOT_NODE, "hard", got, sizeof got), 1);
    assert_int_equal(lg_volume_symlink(v, LG_ROOT_NODE, "link", "somewhere/else", &me, &l), 0);
    assert_int_equal(l.st.st_size, 14);
    assert_int_equal(lg_volume_readlink(v, l.node, got, sizeof got), 0);
    assert_string_equal(got, "somewhere/else");
    assert_int_equal(lg_volume_setxattr(v, e.node, "user.k", "value", 5, 0), 0);
    assert_int_equal(lg_volume_getxattr(v, e.node, "user.k", got, 3), -ERANGE);
    assert_int_equal(lg_volume_getxattr(v, e.node, "user.k", got, 100), 5);
    assert_int_equal(lg_volume_listxattr(v, e.node, true, got, 100), 7);
    assert_string_equal(got, "user.k");
    assert_int_equal(lg_volume_removexattr(v, e.node, "user.k"), 0);
    assert_int_equal(lg_volume_getxattr(v, e.node, "user.k", got, 100), -ENODATA);
    assert_int_equal(lg_volume_close(v), 0);
    assert_int_equal(open_volume(NULL, 0), 0);
    assert_int_equal(get(look(LG_ROOT_NODE, "x").node, "short", got, sizeof got), 5);
    struct lg_volume *first = v;
    assert_int_equal(open_volume(NULL, 0), -EWOULDBLOCK);
    v = first;
    assert_int_equal(findings, 0);
    assert_int_equal(lg_volume_close(v), 0);
}

/* Every changing call of an overwrite fails once: the error is told, what was synced before is there, and the next try works. */
static void test_errors(void **state)
{
    (void)state;
    static uint8_t old[20000], fresh[20000], got[40000];
    memset(old, 'o', sizeof old);
    memset(fresh, 'f', sizeof fresh);
    for (int round = 0; round < 2; round++) {
        fail_with = round ? -EIO : -ENOSPC;
        for (unsigned n = 1; n < 40; n++) {
            struct lg_handle *h;
            char name[16];
            snprintf(name, sizeof name, "e%d-%u", round, n);
            fail_at = 0;
            assert_int_equal(put(LG_ROOT_NODE, name, old, sizeof old), 0);
            struct lg_entry e = look(LG_ROOT_NODE, name);
            assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
            calls = 0;
            fail_at = n;
            ssize_t w = lg_volume_write(h, fresh, sizeof fresh, 5000);
            int rc = w < 0 ? (int)w : lg_volume_fsync(h, false);
            bool hit = calls >= n;
            fail_at = 0;
            if (hit)
                assert_int_equal(rc, fail_with);
            else
                assert_int_equal(rc, 0);
            /* A second process would see what is below now: old bytes or new ones, whole. */
            if (rc) {
                assert_int_equal(lg_volume_write(h, fresh, sizeof fresh, 5000), sizeof fresh);
                assert_int_equal(lg_volume_fsync(h, false), 0);
            }
            lg_volume_release(h);
            lg_volume_forget(v, e.node, 1);
            assert_int_equal(get(LG_ROOT_NODE, name, got, sizeof got), 25000);
            assert_memory_equal(got, old, 5000);
            assert_memory_equal(got + 5000, fresh, sizeof fresh);
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, name, NULL), 0);
            if (!hit) {
                assert_true(n > 3);
                break;
            }
        }
    }
    assert_int_equal(findings, 0);
    assert_int_equal(lg_volume_close(v), 0);
}

/* Names are bound to their directory, and a damaged directory id is noticed. */
static void test_tamper(void **state)
{
    (void)state;
    char from[256], to[256], got[100];
    struct lg_entry a, b, e;
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "a", 0755, &me, &a), 0);
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "b", 0755, &me, &b), 0);
    assert_int_equal(put(a.node, "file", "A", 1), 0);
    assert_int_equal(put(b.node, "file", "B", 1), 0);
    assert_int_equal(lg_volume_close(v), 0);
    /* Below: swap the two directories' ids. */
    char sub[2][200];
    unsigned n = 0;
    snprintf(from, sizeof from, "%s/root", dir);
    DIR *d = opendir(from);
    for (struct dirent *x; (x = readdir(d));)
        if (x->d_name[0] != '.' && strncmp(x->d_name, "lg.", 3) != 0 && n < 2)
            snprintf(sub[n++], sizeof sub[0], "%s/root/%.64s", dir, x->d_name);
    closedir(d);
    assert_int_equal(n, 2);
    snprintf(from, sizeof from, "%s/lg.dirid", sub[0]);
    snprintf(to, sizeof to, "%s/lg.dirid", sub[1]);
    assert_int_equal(renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_EXCHANGE), 0);
    assert_int_equal(open_volume(NULL, 0), 0);
    e = look(LG_ROOT_NODE, "a");
    assert_int_equal(get(e.node, "file", got, sizeof got), -ENOENT);
    assert_false(listed(e.node, "file"));
    assert_true(findings > 0);
    assert_int_equal(lg_volume_close(v), 0);
    assert_int_equal(unlink(from), 0);
    assert_int_equal(symlink("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", from), 0);
    assert_int_equal(open_volume(NULL, 0), 0);
    int bad = lg_volume_lookup(v, look(LG_ROOT_NODE, "a").node, "file", &e), good = lg_volume_lookup(v, look(LG_ROOT_NODE, "b").node, "file", &e);
    assert_true((bad == -EIO && good == -ENOENT) || (bad == -ENOENT && good == -EIO));
    assert_int_equal(lg_volume_close(v), 0);
}

/* ---- re-encryption ------------------------------------------------------------------------------------------------------------------- */

static unsigned temporaries(const char *at)
{
    unsigned n = 0;
    DIR *d = opendir(at);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strncmp(e->d_name, LG_TMP_PREFIX, sizeof LG_TMP_PREFIX - 1) == 0;
    closedir(d);
    return n;
}

static char whole[3][300000];

static void test_rekey(void **state)
{
    (void)state;
    struct lg_entry e;
    struct lg_handle *h;
    struct stat st, was, set = { .st_mtim = { 1234567890, 123456789 } };
    uint8_t kid[2][LG_ID_LEN];
    uint32_t version;
    char root[80], value[80];
    snprintf(root, sizeof root, "%s/root", dir);
    for (size_t i = 0; i < sizeof whole[0]; i++)
        whole[0][i] = (char)(i * 2654435761u >> 13);
    memset(whole[0] + 100000, 0, 90000); /* a hole */
    assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, "f", O_RDWR, 06751, &me, &e, &h), 0);
    assert_int_equal(lg_volume_write(h, whole[0], 100000, 0), 100000);
    assert_int_equal(lg_volume_write(h, whole[0] + 190000, 110000, 190000), 110000);
    lg_volume_release(h);
    assert_int_equal(lg_volume_setxattr(v, e.node, "user.note", "kept", 4, 0), 0);
    assert_int_equal(lg_volume_setattr(v, e.node, &set, LG_SET_MTIME, &was), 0);
    assert_int_equal(lg_volume_key_of(v, e.node, kid[0], &version), 0);
    assert_int_equal(version, 1);
    assert_int_equal(lg_volume_rekey(v, e.node, NULL), -EALREADY);

    /* a newer version; open, read and written on meanwhile, and read back after all that by another mount */
    newest = 2;
    lg_keys_resync(keys);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
    assert_int_equal(lg_volume_setxattr(v, e.node, LG_XATTR_REKEY, "", 0, 0), 0);
    assert_int_equal(temporaries(root), 0);
    assert_int_equal(lg_volume_getattr(v, e.node, &st), 0);
    assert_int_not_equal(st.st_ino, was.st_ino);
    assert_true(st.st_mode == was.st_mode && st.st_uid == was.st_uid && st.st_size == was.st_size && st.st_nlink == 1);
    assert_memory_equal(&st.st_mtim, &was.st_mtim, sizeof st.st_mtim);
    assert_true(st.st_blocks <= was.st_blocks + 8); /* the hole is one still; a block for attributes */
    assert_int_equal(lg_volume_getxattr(v, e.node, "user.note", value, sizeof value), 4);
    assert_int_equal(lg_volume_getxattr(v, e.node, LG_XATTR_KEY, value, sizeof value), 67);
    assert_memory_equal(value + 32, " 2 ", 3);
    assert_int_equal(lg_volume_read(h, whole[1], sizeof whole[1], 0, O_RDONLY), sizeof whole[1]);
    assert_memory_equal(whole[0], whole[1], sizeof whole[0]);
    assert_int_equal(lg_volume_write(h, "mark", 4, 150000), 4);
    memcpy(whole[0] + 150000, "mark", 4);
    assert_int_equal(lg_volume_fsync(h, false), 0);
    lg_volume_release(h);
    assert_int_equal(look(LG_ROOT_NODE, "f").node, e.node);

    /* another study's key; seen from below, its time tells backup tools */
    struct lg_study_info to = { .uid = "2.9" };
    assert_int_equal(lg_volume_setattr(v, e.node, &set, LG_SET_MTIME, &was), 0);
    const struct lg_rekey how = { .to = &to };
    may_assign = -EPERM; /* the key manager says no: not even a key is asked for */
    assert_int_equal(lg_volume_rekey(v, e.node, &how), -EPERM);
    assert_int_equal(lg_volume_setxattr(v, e.node, LG_XATTR_REKEY, "2.9", 3, 0), -EPERM);
    assert_int_equal(lg_volume_setxattr(v, e.node, LG_XATTR_REKEY, "2.9 0011", 8, 0), -EINVAL);
    assert_int_equal(assign_asked, 2);
    may_assign = 0;
    assert_int_equal(lg_volume_rekey(v, e.node, &how), 0);
    assert_true(assign_asked == 4 && assign_taken == 1);
    assert_int_equal(lg_volume_key_of(v, e.node, kid[1], &version), 0);
    assert_memory_not_equal(kid[0], kid[1], LG_ID_LEN);
    assert_int_equal(lg_volume_close(v), 0);
    assert_int_equal(open_volume(NULL, 0), 0);
    assert_int_equal(get(LG_ROOT_NODE, "f", whole[1], sizeof whole[1]), sizeof whole[1]);
    assert_memory_equal(whole[0], whole[1], sizeof whole[0]);
    e = look(LG_ROOT_NODE, "f");
    assert_memory_equal(&e.st.st_mtim, &was.st_mtim, sizeof st.st_mtim);
    DIR *d = opendir(root);
    for (struct dirent *x; (x = readdir(d));)
        if (strncmp(x->d_name, "lg.", 3) != 0 && x->d_name[0] != '.') {
            assert_int_equal(fstatat(dirfd(d), x->d_name, &st, AT_SYMLINK_NOFOLLOW), 0);
            assert_true(st.st_mtim.tv_sec > set.st_mtim.tv_sec);
        }
    closedir(d);
    /* a time set afterwards counts */
    set.st_mtim.tv_sec++;
    assert_int_equal(lg_volume_setattr(v, e.node, &set, LG_SET_MTIME, &was), 0);
    assert_int_equal(look(LG_ROOT_NODE, "f").st.st_mtim.tv_sec, set.st_mtim.tv_sec);

    /* two names: refused, and nothing happened */
    struct lg_entry l;
    assert_int_equal(lg_volume_link(v, e.node, LG_ROOT_NODE, "g", &l), 0);
    newest = 3;
    lg_keys_resync(keys);
    assert_int_equal(lg_volume_rekey(v, e.node, NULL), -EMLINK);
    assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "g", NULL), 0);
    assert_int_equal(temporaries(root), 0);

    /* the name seen last is taken away, in this directory and in another: the other one is found */
    assert_int_equal(lg_volume_link(v, e.node, LG_ROOT_NODE, "h", &l), 0);
    assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "h", NULL), 0);
    assert_int_equal(lg_volume_rekey(v, e.node, NULL), 0);
    struct lg_entry sub;
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "sub", 0755, &me, &sub), 0);
    assert_int_equal(lg_volume_link(v, e.node, sub.node, "f", &l), 0);
    assert_int_equal(lg_volume_unlink(v, sub.node, "f", NULL), 0);
    newest = 4;
    lg_keys_resync(keys);
    assert_int_equal(lg_volume_rekey(v, e.node, NULL), 0);
    assert_int_equal(get(LG_ROOT_NODE, "f", whole[1], sizeof whole[1]), sizeof whole[1]);
    assert_memory_equal(whole[0], whole[1], sizeof whole[0]);
    assert_int_equal(temporaries(root), 0);
    newest = 5;
    lg_keys_resync(keys);

    /* every call below fails once: the file is what it was, or is re-encrypted */
    unsigned n = 0;
    for (int rc = -1; rc; n++) {
        fail_at = calls + 1 + n;
        fail_with = n % 2 ? -ENOSPC : -EIO;
        rc = lg_volume_rekey(v, e.node, NULL);
        bool reached = calls >= fail_at;
        fail_at = 0;
        assert_true(rc == 0 || reached);
        assert_int_equal(get(LG_ROOT_NODE, "f", whole[1], sizeof whole[1]), sizeof whole[1]);
        assert_memory_equal(whole[0], whole[1], sizeof whole[0]);
        assert_int_equal(temporaries(root), 0);
    }
    assert_true(n > 3);
    assert_int_equal(lg_volume_key_of(v, e.node, kid[1], &version), 0);
    assert_int_equal(version, 5);
    assert_int_equal(findings, 0);
    assert_int_equal(lg_volume_close(v), 0);
}

/* What was written and not flushed is committed by the close, also when a call below fails once: nobody can be told of it. */
static void test_close_tries_again(void **state)
{
    (void)state;
    enum { CHUNK = 4096, WAS = 5 * CHUNK, IS = 6 * CHUNK };
    static char old[WAS], new[IS], got[IS + CHUNK];
    bool reached = true;
    memset(old, 'a', sizeof old);
    memset(new, 'b', sizeof new);
    memset(new + CHUNK, 'a', WAS - CHUNK);
    unsigned n = 0;
    for (; reached; n++) {
        struct lg_handle *h;
        assert_int_equal(put(LG_ROOT_NODE, "f", old, sizeof old), 0);
        struct lg_entry e = look(LG_ROOT_NODE, "f");
        assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
        assert_int_equal(lg_volume_write(h, new + WAS, CHUNK, WAS), CHUNK); /* in place */
        assert_int_equal(lg_volume_write(h, new, CHUNK, 0), CHUNK);         /* through the journal */
        fail_with = n % 2 ? -ENOSPC : -EIO;
        fail_at = calls + 1 + n / 2;
        lg_volume_release(h);
        reached = calls >= fail_at;
        fail_at = 0;
        lg_volume_forget(v, e.node, 1);
        assert_int_equal(get(LG_ROOT_NODE, "f", got, sizeof got), IS);
        assert_memory_equal(got, new, IS);
        assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "f", NULL), 0);
    }
    assert_true(n > 4);
    assert_int_equal(lg_volume_close(v), 0);
}

/* What a write takes away is gone, and is said to be, whoever else would have seen to it. */
static void test_privileges(void **state)
{
    (void)state;
    static const uint8_t cap[20] = { 1, 0, 0, 2, 0, 0x20 }; /* revision 2, CAP_NET_RAW */
    struct lg_entry e;
    struct lg_handle *h;
    struct stat st, set = { .st_mode = 06755 };
    char value[64];
    assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, "f", O_RDWR, 0755, &me, &e, &h), 0);
    assert_int_equal(lg_volume_kill_privileges(h, true), 0);
    for (unsigned i = 0; i < 2; i++) {
        assert_int_equal(lg_volume_setattr(v, e.node, &set, LG_SET_MODE, &st), 0);
        assert_int_equal(lg_volume_setxattr(v, e.node, "security.capability", cap, sizeof cap, 0), 0);
        assert_int_equal(lg_volume_getxattr(v, e.node, "security.capability", value, sizeof value), sizeof cap);
        assert_int_equal(lg_volume_kill_privileges(h, false), 1);
        assert_int_equal(lg_volume_listxattr(v, e.node, true, value, sizeof value), 0);
        assert_int_equal(lg_volume_getxattr(v, e.node, "security.capability", value, sizeof value), -ENODATA);
        assert_int_equal(lg_volume_getattr(v, e.node, &st), 0);
        assert_int_equal(st.st_mode & 07777, 06755);
        assert_int_equal(lg_volume_kill_privileges(h, true), 1);
        assert_int_equal(lg_volume_getattr(v, e.node, &st), 0);
        assert_int_equal(st.st_mode & 07777, 0755);
        assert_int_equal(lg_volume_kill_privileges(h, true), 0);
    }
    lg_volume_release(h);
    assert_int_equal(lg_volume_close(v), 0);
}

/* ---- node ids -------------------------------------------------------------------------------------------------------------------------- */

static uint64_t newest_id;
static uint64_t new_id(uint64_t id)
{
    assert_true(id > newest_id);
    newest_id = id;
    return id;
}

/* An id that was given out once means that file or nothing, for as long as the mount lives: the kernel may ask for one long after it forgot it. */
static void test_ids(void **state)
{
    enum { ROUNDS = 3000, KEEP = 16 };
    (void)state;
    uint64_t kept[KEEP] = { 0 };
    ino_t inode[KEEP] = { 0 };
    unsigned again = 0;
    struct lg_entry e, d;
    struct lg_handle *h;
    struct stat st;
    newest_id = LG_ROOT_NODE;
    for (unsigned i = 0; i < ROUNDS; i++) {
        char name[32];
        snprintf(name, sizeof name, "f%u", i % KEEP);
        if (kept[i % KEEP]) { /* unlinked while the kernel still knows the node: the next file may get its inode's number, but is another one */
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, name, NULL), 0);
            if (i % 3) {
                lg_volume_forget(v, kept[i % KEEP], 1);
                assert_int_equal(lg_volume_getattr(v, kept[i % KEEP], &st), -ESTALE);
            }
        }
        assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, name, O_RDWR, 0644, &me, &e, &h), 0);
        lg_volume_release(h);
        for (unsigned k = 0; k < KEEP; k++)
            again += inode[k] == e.st.st_ino;
        inode[i % KEEP] = e.st.st_ino;
        new_id(e.node);
        assert_int_equal(look(LG_ROOT_NODE, name).node, e.node); /* one node for one inode, while it is known */
        lg_volume_forget(v, e.node, 2);
        assert_int_equal(lg_volume_getattr(v, e.node, &st), -ESTALE);
        kept[i % KEEP] = new_id(look(LG_ROOT_NODE, name).node);
        for (unsigned k = 0; k < KEEP; k++) {
            int rc = lg_volume_getattr(v, kept[k], &st);
            assert_true(!kept[k] || (rc == 0 && st.st_ino == inode[k]));
        }
    }
    for (unsigned i = 0; i < 500; i++) { /* directories likewise */
        assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "d", 0755, &me, &d), 0);
        new_id(d.node);
        assert_int_equal(lg_volume_rmdir(v, LG_ROOT_NODE, "d"), 0);
        if (i % 2)
            lg_volume_forget(v, d.node, 1);
        int rc = lg_volume_getattr(v, d.node, &st); /* one that is still known may be looked at through the descriptor that is kept */
        assert_true(rc == -ESTALE || (i % 2 == 0 && rc == 0 && st.st_ino == d.st.st_ino && st.st_nlink == 0));
    }
    if (!again)
        puts("the filesystem below gave out no inode number a second time");
    assert_int_equal(lg_volume_close(v), 0);
}

/* ---- looking at a file whose own fsync is held below ------------------------------------------------------------------------------------- */

static void *syncs(void *h)
{
    return lg_volume_fsync(h, true) ? NULL : h;
}
static void *flushes(void *h)
{
    return lg_volume_flush(h) ? NULL : h;
}
static void *releases(void *h)
{
    lg_volume_release(h);
    return h;
}

struct looking {
    uint64_t node;
    struct lg_handle *h; /* NULL: looks only */
    struct stat st;
    ssize_t n;
    int rc;
};
static void *looks(void *arg)
{
    struct looking *l = arg;
    uint8_t got[32000];
    l->rc = lg_volume_getattr(v, l->node, &l->st);
    l->n = l->h ? lg_volume_read(l->h, got, sizeof got, 0, O_RDONLY) : l->st.st_size;
    return NULL;
}

/* The next sync below of what `slow` does to h is held; looking at the file meanwhile, and reading it, comes to its end, and shows what was written. */
static void look_while(void *(*slow)(void *h), struct lg_handle *h, struct lg_handle *reader, uint64_t node, size_t size)
{
    struct looking before = { .node = node, .h = reader }, meanwhile = before, after = before;
    pthread_t a, b;
    struct timespec until;
    void *ok;
    looks(&before);
    assert_int_equal(before.rc, 0);
    assert_int_equal(before.st.st_size, size);
    atomic_store(&hold, 1);
    assert_int_equal(pthread_create(&a, NULL, slow, h), 0);
    sem_wait(&held);
    assert_int_equal(pthread_create(&b, NULL, looks, &meanwhile), 0);
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += 300;
    int waits = pthread_timedjoin_np(b, NULL, &until);
    sem_post(&go);
    if (waits)
        pthread_join(b, NULL);
    assert_int_equal(waits, 0);
    assert_int_equal(pthread_join(a, &ok), 0);
    assert_ptr_equal(ok, h);
    looks(&after);
    for (const struct looking *l = &meanwhile; l; l = l == &meanwhile ? &after : NULL) {
        assert_int_equal(l->rc, 0);
        assert_int_equal(l->st.st_size, size);
        assert_int_equal(l->n, size);
        assert_memory_equal(&l->st.st_mtim, &before.st.st_mtim, sizeof before.st.st_mtim);
    }
}

static void test_look(void **state)
{
    (void)state;
    static const char text[24000] = "text";
    struct lg_entry e;
    struct lg_handle *h, *r;
    assert_int_equal(put(LG_ROOT_NODE, "slow", text, 5000), 0);
    e = look(LG_ROOT_NODE, "slow");
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDONLY, &r), 0);
    /* Committed earlier in this session: the commit first makes sure that it is durable. */
    assert_int_equal(lg_volume_write(h, text, 500, 5000), 500);
    look_while(flushes, h, r, e.node, 5500);
    /* Behind a chunk that is not full: the commit syncs the file before its record goes to the journal. */
    assert_int_equal(lg_volume_write(h, text, 18500, 5500), 18500);
    look_while(syncs, h, r, e.node, 24000);
    /* Within a chunk: the journal alone is synced. */
    assert_int_equal(lg_volume_write(h, text, 1000, 100), 1000);
    look_while(syncs, h, r, e.node, 24000);
    lg_volume_release(r);
    lg_volume_release(h);
    /* The last close commits, and first makes sure of an earlier commit of this session. */
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
    assert_int_equal(lg_volume_write(h, text, 19000, 5000), 19000);
    look_while(releases, h, NULL, e.node, 24000);
    assert_int_equal(lg_volume_close(v), 0);
}

/* Entries that were emptied stand behind the end of a file that is shorter than it was: below it may not come out longer for it. */
static void test_emptied_behind_end(void **state)
{
    (void)state;
    static uint8_t b[100 * 4096];
    struct lg_entry e;
    struct lg_handle *h;
    struct stat st = { .st_size = 5000 };
    memset(b, 'x', sizeof b);
    assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, "shrunk", O_RDWR, 0600, &me, &e, &h), 0);
    assert_int_equal(lg_volume_write(h, b, sizeof b, 0), sizeof b); /* 100 entries: the last 20 in a table of their own */
    assert_int_equal(lg_volume_flush(h), 0);
    assert_int_equal(lg_volume_setattr(v, e.node, &st, LG_SET_SIZE, &st), 0);
    assert_int_equal(lg_volume_flush(h), 0);                    /* in the journal, not in place yet */
    assert_int_equal(lg_volume_write(h, b, 5000, 390000), 5000); /* far behind, and gone again before it was committed */
    st.st_size = 168454;
    assert_int_equal(lg_volume_setattr(v, e.node, &st, LG_SET_SIZE, &st), 0);
    assert_int_equal(lg_volume_write(h, b, 1000, 168454 - 1000), 1000);
    assert_int_equal(lg_volume_flush(h), 0);
    lg_volume_release(h);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDONLY, &h), 0);
    assert_int_equal(lg_volume_read(h, b, sizeof b, 0, O_RDONLY), 168454);
    lg_volume_release(h);
    assert_int_equal(lg_volume_close(v), 0);
}

/* ---- files without a header, met by a sweep ------------------------------------------------------------------------------------------ */

static bool never(void *arg)
{
    (void)arg;
    return false;
}

static struct stat empty_below(const char *name)
{
    struct stat st;
    char path[128];
    snprintf(path, sizeof path, "%s/root/%s", dir, name);
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_true(fd >= 0);
    assert_int_equal(fstat(fd, &st), 0);
    close(fd);
    return st;
}

/* One from before the mount is told of. One that came since is being made just now, and nobody's loss. */
static void test_sweep_newborn(void **state)
{
    (void)state;
    const uint64_t unclean[] = { session };
    struct lg_sweep_stat sw;
    struct timespec now;
    assert_int_equal(lg_volume_close(v), 0);
    struct stat st = empty_below("left-by-a-crash");
    do /* the clock that stamps inodes goes in steps */
        clock_gettime(CLOCK_REALTIME_COARSE, &now);
    while (now.tv_sec == st.st_ctim.tv_sec && now.tv_nsec <= st.st_ctim.tv_nsec);
    assert_int_equal(open_volume(unclean, 1), 0);
    empty_below("being-made");
    assert_int_equal(lg_volume_sweep(v, never, NULL, &sw), 0);
    assert_int_equal(sw.refused, 1);
    assert_int_equal(findings, 1);
    assert_int_equal(sw.failed, 0);
    assert_int_equal(lg_volume_close(v), 0);
}

/* A revocation gives up what is not committed: who wrote it is told at the next fsync or flush, once, and nobody else. */
static void test_given_up(void **state)
{
    struct lg_entry e;
    struct lg_handle *one, *two, *reader, *later;
    char value[128], b[8];
    uint8_t kid[1][LG_ID_LEN];
    (void)state;
    assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, "written", O_RDWR, 0600, &me, &e, &one), 0);
    assert_int_equal(lg_volume_write(one, "durable", 7, 0), 7);
    assert_int_equal(lg_volume_fsync(one, false), 0);
    assert_int_equal(lg_volume_open_file(v, e.node, O_WRONLY, &two), 0);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDONLY, &reader), 0);
    assert_true(lg_volume_getxattr(v, e.node, LG_XATTR_KEY, value, sizeof value) > 32);
    value[32] = 0;
    assert_int_equal(lg_hex_decode(value, kid[0], LG_ID_LEN), 0);
    lg_volume_drop_keys(v, (const uint8_t(*)[LG_ID_LEN])kid, 1, true, NULL, NULL); /* all of it was committed */
    assert_int_equal(lg_volume_fsync(one, false), 0);
    assert_int_equal(lg_volume_read(one, b, 7, 0, O_RDONLY), 7);
    assert_int_equal(lg_volume_write(one, "LOST", 4, 0), 4);
    lg_volume_drop_keys(v, (const uint8_t(*)[LG_ID_LEN])kid, 1, true, NULL, NULL);
    lg_volume_tick(v); /* a commit in the background tells nobody */
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &later), 0);
    assert_int_not_equal(lg_volume_fsync(one, false), 0);
    assert_int_equal(lg_volume_fsync(one, false), 0);
    assert_int_not_equal(lg_volume_flush(two), 0);
    assert_int_equal(lg_volume_flush(two), 0);
    assert_int_equal(lg_volume_flush(reader), 0);
    assert_int_equal(lg_volume_fsync(later, true), 0);
    assert_int_equal(lg_volume_read(reader, b, 7, 0, O_RDONLY), 7);
    assert_memory_equal(b, "durable", 7);
    lg_volume_release(one);
    lg_volume_release(two);
    lg_volume_release(reader);
    lg_volume_release(later);
    assert_int_equal(lg_volume_close(v), 0);
}

/* Locked while the disk was full, a file is left half committed, and an end is not clean: unless it is gone, whether it was open still when its last name went,
 * closed by then, or replaced. */
static void test_given_up_and_gone(void **state)
{
    enum { OPEN, CLOSED, REPLACED, LINKED, STAYS, WAYS };
    static uint8_t b[3 * 4096];
    (void)state;
    for (int way = 0; way < WAYS; way++) {
        struct lg_entry e, l;
        struct lg_handle *h;
        assert_int_equal(put(LG_ROOT_NODE, "other", "o", 1), 0);
        assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, "half", O_RDWR, 0600, &me, &e, &h), 0);
        assert_int_equal(lg_volume_write(h, b, sizeof b, 0), sizeof b);
        assert_int_equal(lg_volume_fsync(h, false), 0);
        assert_int_equal(lg_volume_write(h, "lost", 4, 5000), 4);
        fail_with = -ENOSPC;
        fail_all = true;
        lg_volume_drop_keys(v, NULL, 0, false, NULL, NULL);
        assert_int_not_equal(lg_volume_fsync(h, false), 0);
        if (way == LINKED)
            assert_int_equal(lg_volume_link(v, e.node, LG_ROOT_NODE, "again", &l), 0);
        if (way != OPEN)
            lg_volume_release(h);
        if (way == REPLACED)
            assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "other", LG_ROOT_NODE, "half", 0, NULL), 0);
        else if (way != STAYS)
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "half", NULL), 0);
        if (way == OPEN)
            lg_volume_release(h);
        fail_all = false;
        assert_int_equal(lg_volume_close(v), way == LINKED || way == STAYS ? -EIO : 0);
        if (way == LINKED) { /* and with its other name */
            const uint64_t unclean[] = { session };
            assert_int_equal(open_volume(unclean, 1), 0);
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "again", NULL), 0);
            assert_int_equal(lg_volume_close(v), 0);
        }
        if (way != STAYS)
            assert_int_equal(open_volume(NULL, 0), 0);
        if (way < REPLACED)
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "other", NULL), 0);
        else if (way == REPLACED)
            assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "half", NULL), 0);
    }
}

/* Whoever looks at a file while another takes its place sees the time that was set, of either. */
static _Atomic bool looked_enough;
static void *looks_at_time(void *arg)
{
    struct lg_entry *e = arg;
    uintptr_t wrong = 0;
    struct stat st;
    while (!looked_enough)
        wrong += lg_volume_getattr(v, e->node, &st) != 0 || st.st_mtim.tv_sec != e->st.st_mtim.tv_sec || st.st_mtim.tv_nsec != e->st.st_mtim.tv_nsec;
    return (void *)wrong;
}

static void test_rekey_times(void **state)
{
    enum { ROUNDS = 300 };
    (void)state;
    struct stat set = { .st_mtim = { 1234567890, 123456789 } };
    pthread_t t;
    void *wrong;
    assert_int_equal(put(LG_ROOT_NODE, "f", "contents", 8), 0);
    struct lg_entry e = look(LG_ROOT_NODE, "f");
    assert_int_equal(lg_volume_setattr(v, e.node, &set, LG_SET_MTIME, &e.st), 0);
    looked_enough = false;
    assert_int_equal(pthread_create(&t, NULL, looks_at_time, &e), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        newest++;
        lg_keys_resync(keys);
        assert_int_equal(lg_volume_rekey(v, e.node, NULL), 0);
    }
    looked_enough = true;
    pthread_join(t, &wrong);
    newest = 1;
    assert_int_equal((uintptr_t)wrong, 0);
    assert_int_equal(lg_volume_close(v), 0);
}

/* ---- a name and an inode's number used again while somebody holds the file that had them --------------------------------------------- */
static uint64_t made(const char *name)
{
    struct lg_entry e;
    struct lg_handle *h;
    assert_int_equal(lg_volume_create_file(v, LG_ROOT_NODE, name, O_RDWR, 0644, &me, &e, &h), 0);
    lg_volume_release(h);
    return e.node;
}

/* What was looked up in a directory, or was not there, keeps neither once the kernel has forgotten both. */
static void test_forgotten(void **state)
{
    struct lg_entry d, file;
    (void)state;
    assert_int_equal(lg_volume_mkdir(v, LG_ROOT_NODE, "d", 0755, &me, &d), 0);
    assert_int_equal(put(d.node, "f", "x", 1), 0);
    file = look(d.node, "f");
    struct lg_entry none;
    assert_int_equal(lg_volume_lookup(v, d.node, "none", &none), -ENOENT);
    lg_volume_forget(v, file.node, 1);
    assert_int_equal(lg_volume_lookup(v, d.node, "none", &none), -ENOENT);
    lg_volume_forget(v, d.node, 1);
    assert_int_equal(lg_volume_lookup(v, d.node, "f", &none), -ESTALE);
    assert_int_equal(lg_volume_close(v), 0);
}

static void test_name_again(void **state)
{
    (void)state;
    enum { BUCKETS = 1024 };
    char name[32];
    uint64_t node = made("x"), again; /* not forgotten: O_PATH, above */
    for (unsigned i = 0; node < BUCKETS; i++) { /* what is made then comes before the first where the table grows */
        snprintf(name, sizeof name, "e%u", i);
        node = made(name);
        lg_volume_forget(v, node, 1);
    }
    assert_int_equal(lg_volume_unlink(v, LG_ROOT_NODE, "x", NULL), 0);
    again = made("x");
    for (unsigned i = 0; i < BUCKETS + 10; i++) {
        snprintf(name, sizeof name, "f%u", i);
        made(name);
    }
    assert_int_equal(lg_volume_rename(v, LG_ROOT_NODE, "x", LG_ROOT_NODE, "y", 0, NULL), 0);
    char *path = lg_volume_path(v, again);
    assert_string_equal(path, "y");
    free(path);
    assert_int_equal(lg_volume_close(v), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_names, setup, teardown), cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_tamper, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_rekey, setup, teardown), cmocka_unit_test_setup_teardown(test_close_tries_again, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_privileges, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_ids, setup, teardown), cmocka_unit_test_setup_teardown(test_look, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_emptied_behind_end, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_given_up, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_given_up_and_gone, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_rekey_times, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_sweep_newborn, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_name_again, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_forgotten, setup, teardown) };
    if (geteuid() != 0) {
        puts("SKIPPED: needs root (file handles, owners)");
        return 77;
    }
    umask(0);
    sem_init(&held, 0, 0);
    sem_init(&go, 0, 0);
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
