/* Scrub without the command: order and memory of the walk, manifests, every byte of a file, errors from below, the sweep after an unclean end. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "internal.h"
#include "manifest.h"
#include "../../fs/volume/intent.h"

/* ---- keys from memory ------------------------------------------------------------------------------------------------------------------ */
static int key_of(uint8_t tag, enum lg_key_kind kind, struct lg_key *ret)
{
    *ret = (struct lg_key){ .version = 1, .kind = kind, .state = LG_KEY_ACTIVE, .key = lg_secret_new() };
    memset(ret->kid, tag, LG_ID_LEN);
    memset(ret->key->b, tag, LG_KEY_LEN);
    return 0;
}
static int src_vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    (void)arg, (void)vault_id;
    return key_of('v', LG_KIND_VAULT, v) || key_of('g', LG_KIND_GENERAL, g);
}
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 0; /* asked for anew every time */
    return key_of((uint8_t)info->uid[0], LG_KIND_STUDY, ret);
}
static int revoked;
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    (void)arg, (void)version;
    *lease = 0;
    if (kid[0] != 'g' && kid[0] != '1')
        return -ENOKEY;
    return revoked && kid[0] == '1' ? -EKEYREVOKED : key_of(kid[0], LG_KIND_STUDY, ret);
}
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 1000;
    return key_of('g', LG_KIND_GENERAL, ret);
}
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) { return (void)arg, (void)kid, (void)info, 0; }
static const struct lg_key_source source = { NULL, src_vault, src_study, src_by_id, src_provisional, src_attach, NULL };

static int path_rule(void *arg, const char *path, struct lg_study_info *ret)
{
    (void)arg;
    if (strncmp(path, "study", 5) != 0)
        return -ENOENT;
    *ret = (struct lg_study_info){ .uid = "1.2.3" };
    return 0;
}

/* ---- a vault ----------------------------------------------------------------------------------------------------------------------------- */
static char top[64], vault[80];
static struct lg_keys *keys;
static struct lg_volume *v;
static const struct lg_cred me = { 0, 0, 022, 1 };
static uint64_t unclean[1];
static unsigned n_unclean;
static uint64_t session = 1;
static const struct lg_sys *sys = &lg_sys_posix;

static void volume_open(void)
{
    struct lg_volume_options o = { .sys = sys, .keys = keys, .session = ++session, .unclean = unclean, .n_unclean = n_unclean, .path_rule = path_rule };
    assert_int_equal(lg_volume_open(vault, &o, &v), 0);
}
static void volume_close(void) { assert_int_equal(lg_volume_close(v), 0); }

static void file(uint64_t dir, const char *name, size_t size)
{
    struct lg_entry e;
    struct lg_handle *h;
    uint8_t *b = malloc(size + 1);
    memset(b, name[0], size);
    assert_int_equal(lg_volume_create_file(v, dir, name, O_RDWR, 0600, &me, &e, &h), 0);
    if (size)
        assert_int_equal(lg_volume_write(h, b, size, 0), size);
    assert_int_equal(lg_volume_flush(h), 0);
    lg_volume_release(h);
    lg_volume_forget(v, e.node, 1);
    free(b);
}

static int setup(void **state)
{
    (void)state;
    struct lg_vault_info info = { .version = 1, .chunk_size = 4096 };
    struct lg_key k, g;
    strcpy(top, access("/dev/shm", W_OK) ? "/tmp/lgscrub-XXXXXX" : "/dev/shm/lgscrub-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(vault, sizeof vault, "%s/vault", top);
    memset(info.vault_id, 'V', LG_ID_LEN);
    assert_int_equal(src_vault(NULL, info.vault_id, &k, &g), 0);
    assert_int_equal(lg_vault_create(vault, &info, k.key), 0);
    lg_secret_free(k.key);
    lg_secret_free(g.key);
    assert_int_equal(lg_keys_new(&source, info.vault_id, &keys), 0);
    n_unclean = 0;
    revoked = 0;
    sys = &lg_sys_posix;
    volume_open();
    return 0;
}

static int teardown(void **state)
{
    char cmd[128];
    (void)state;
    lg_keys_free(keys);
    snprintf(cmd, sizeof cmd, "rm -rf %s", top);
    return system(cmd);
}

/* ---- running one ------------------------------------------------------------------------------------------------------------------------------ */
enum { KEEP = 64 };
static struct { enum lg_scrub_class cls; char kind[96], path[300], other[300]; uint64_t from, to; bool has_id; } found[KEEP];
static unsigned n_found;
static unsigned stop_after, paces;
static char position[4096];

static void on_finding(void *arg, const struct lg_scrub_finding *f)
{
    (void)arg;
    if (n_found < KEEP) {
        found[n_found].cls = f->cls;
        snprintf(found[n_found].kind, sizeof found[0].kind, "%s", f->kind);
        snprintf(found[n_found].path, sizeof found[0].path, "%s", f->path ? f->path : "?");
        snprintf(found[n_found].other, sizeof found[0].other, "%s", f->other ? f->other : "");
        found[n_found].from = f->from;
        found[n_found].to = f->to;
        found[n_found].has_id = f->has_id;
    }
    n_found++;
}
static int on_pace(void *arg, const struct lg_scrub_stat *s, bool at_rest, const char *at)
{
    (void)arg, (void)s;
    if (at_rest) {
        snprintf(position, sizeof position, "%s", at);
        if (stop_after && ++paces >= stop_after)
            return -EINTR;
    }
    return 0;
}
/* As the key manager signs, at a time that does not pass. */
static struct lg_secret *signer;
static uint8_t signer_pub[LG_SIGN_PUB_LEN];
static int sign_fails;
static struct lg_manifest_sig asked;
static int on_sign(void *arg, struct lg_manifest_sig *s)
{
    (void)arg;
    asked = *s;
    s->signed_at = 9;
    memset(s->keyring_id, 'K', LG_ID_LEN);
    return sign_fails ? sign_fails : lg_manifest_sig_make(s, signer);
}

static struct lg_scrub_stat st;
static int scrub(bool keyed, struct lg_scrub_options o)
{
    o.sys = sys;
    o.dir = vault;
    o.volume = keyed ? v : NULL;
    o.keys = keys;
    o.finding = on_finding;
    o.pace = on_pace;
    o.sign = o.sign ? o.sign : on_sign;
    o.signer = o.signer ? o.signer : signer_pub;
    n_found = paces = 0;
    return lg_scrub_run(&o, &st);
}
static void dump(void)
{
    for (unsigned i = 0; i < n_found && i < KEEP; i++)
        print_error("  %s %s: %s\n", lg_scrub_class_name(found[i].cls), found[i].path, found[i].kind);
}
static void clean(bool keyed, struct lg_scrub_options o)
{
    int rc = scrub(keyed, o);
    if (rc || n_found)
        dump();
    assert_int_equal(rc, 0);
    assert_int_equal(n_found, 0);
}

/* ---- order ---------------------------------------------------------------------------------------------------------------------------------------- */
static void test_batches(void **state)
{
    enum { N = 30000 }; /* some 5 MiB of names: several batches */
    char name[256], last[256] = "", after[256];
    const char *from = NULL;
    struct lg_batch b = { 0 };
    unsigned n = 0, batches = 0;
    (void)state;
    int fd = open(top, O_RDONLY | O_DIRECTORY), sub;
    assert_int_equal(mkdirat(fd, "many", 0700), 0);
    sub = openat(fd, "many", O_RDONLY | O_DIRECTORY);
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%08x%0150u", i * 2654435761u, i);
        int f = openat(sub, name, O_WRONLY | O_CREAT | O_EXCL, 0600);
        assert_true(f >= 0);
        close(f);
    }
    for (;;) {
        assert_int_equal(lg_batch_next(sub, from, &b), 0);
        if (!b.n)
            break;
        batches++;
        assert_true(b.cap <= 2u << 20);
        for (size_t i = 0; i < b.n; i++) {
            assert_true(strcmp(last, b.text + b.at[i]) < 0);
            strcpy(last, b.text + b.at[i]);
            n++;
        }
        strcpy(after, last);
        from = after;
    }
    assert_int_equal(n, N);
    assert_true(batches > 2);
    lg_batch_free(&b);
    close(sub);
    close(fd);
    volume_close();
}

static void test_paths(void **state)
{
    static const char *const order[] = { "", "a", "a/b", "a/b/c", "a/bb", "a-b", "a-b/c", "a.", "aa", "b" };
    (void)state;
    for (size_t i = 0; i < sizeof order / sizeof *order; i++)
        for (size_t j = 0; j < sizeof order / sizeof *order; j++)
            assert_int_equal(lg_path_cmp(order[i], order[j]) < 0, i < j);
    volume_close();
}

/* ---- every byte -------------------------------------------------------------------------------------------------------------------------------------- */
static void each_byte(const char *lower, size_t len, size_t step)
{
    char path[600];
    snprintf(path, sizeof path, "%s/root/%s", vault, lower);
    int fd = open(path, O_RDWR);
    assert_true(fd >= 0);
    for (size_t at = 0; at < len; at += step) {
        uint8_t was, x;
        assert_int_equal(pread(fd, &was, 1, (off_t)at), 1);
        x = was ^ 0x40;
        assert_int_equal(pwrite(fd, &x, 1, (off_t)at), 1);
        assert_int_equal(scrub(true, (struct lg_scrub_options){ 0 }), 0);
        if (!st.found[LG_SCRUB_DAMAGE] && !st.found[LG_SCRUB_UNREADABLE] && !st.found[LG_SCRUB_NO_KEY]) {
            print_error("byte %zu: nothing was found with keys\n", at);
            fail();
        }
        assert_int_equal(scrub(false, (struct lg_scrub_options){ 0 }), 0);
        bool nonce = at >= 1536 && at < 4096 && (at - 1536) % 32 < 28 && (at - 1536) / 32 < 2; /* of the two chunks: no checksum covers nonce and tag */
        if (!n_found != nonce) {
            print_error("byte %zu: %u findings without keys\n", at, n_found);
            fail();
        }
        assert_int_equal(pwrite(fd, &was, 1, (off_t)at), 1);
    }
    close(fd);
}

static void lower_of(const char *name, char out[300])
{
    struct lg_names *names;
    struct lg_key k, g;
    uint8_t id[LG_ID_LEN];
    char sealed[LG_SEALED_NAME_MAX + 1];
    assert_int_equal(src_vault(NULL, NULL, &k, &g), 0);
    assert_int_equal(lg_names_new(k.key, &names), 0);
    assert_int_equal(lg_dirid_read(names, lg_volume_rootfd(v), id), 0);
    assert_int_equal(lg_name_seal(names, id, name, sealed), 0);
    lg_name_lower(sealed, out);
    lg_names_free(names);
    lg_secret_free(k.key);
    lg_secret_free(g.key);
}

static void test_each_byte(void **state)
{
    char lower[300];
    (void)state;
    file(1, "one", 4096 + 300);
    lower_of("one", lower);
    volume_close();
    volume_open();
    clean(true, (struct lg_scrub_options){ 0 });
    clean(false, (struct lg_scrub_options){ 0 });
    each_byte(lower, 4096, 1);
    each_byte(lower, 4096 + 4096 + 300, 97);
    clean(true, (struct lg_scrub_options){ 0 });
    volume_close();
}

/* ---- errors from below: what cannot be read is not damage ---------------------------------------------------------------------------------------------- */
static unsigned reads, fail_read;
static ssize_t bad_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    return fail_read && ++reads == fail_read ? -EIO : lg_sys_posix.pread(arg, fd, buf, len, off);
}
static void test_errors(void **state)
{
    struct lg_sys bad = lg_sys_posix;
    bad.pread = bad_pread;
    (void)state;
    file(1, "one", 300000);
    file(1, "two", 300000);
    volume_close();
    sys = &bad;
    volume_open();
    for (unsigned keyed = 0; keyed < 2; keyed++) {
        unsigned bad_runs = 0;
        for (fail_read = 1;; fail_read++) {
            reads = 0;
            assert_int_equal(scrub(keyed, (struct lg_scrub_options){ 0 }), 0);
            if (reads < fail_read)
                break;
            bad_runs++;
            if (st.found[LG_SCRUB_DAMAGE] || st.found[LG_SCRUB_UNREADABLE] != 1) {
                dump();
                fail_msg("read %u of %s", fail_read, keyed ? "keys" : "keyless");
            }
        }
        assert_true(bad_runs >= 4);
        fail_read = 0;
        clean(keyed, (struct lg_scrub_options){ 0 });
    }
    volume_close();
    sys = &lg_sys_posix;
}

/* ---- manifests ------------------------------------------------------------------------------------------------------------------------------------------ */
static uint8_t *slurp(const char *path, size_t *ret)
{
    struct stat s;
    int fd = open(path, O_RDONLY);
    assert_int_equal(fstat(fd, &s), 0);
    uint8_t *b = malloc((size_t)s.st_size + 1);
    assert_int_equal(read(fd, b, (size_t)s.st_size), s.st_size);
    close(fd);
    *ret = (size_t)s.st_size;
    return b;
}

static void test_manifest(void **state)
{
    char path[100], second[100], from[4096];
    struct lg_entry e, e2;
    size_t len, len2;
    (void)state;
    assert_int_equal(lg_volume_mkdir(v, 1, "dir", 0755, &me, &e), 0);
    assert_int_equal(lg_volume_mkdir(v, e.node, "sub", 0755, &me, &e2), 0);
    for (unsigned i = 0; i < 700; i++) {
        char name[16];
        snprintf(name, sizeof name, "f%u", i);
        file(i % 3 == 0 ? 1 : i % 3 == 1 ? e.node : e2.node, name, i);
    }
    file(1, "study-1", 5000);
    lg_volume_forget(v, e.node, 1);
    lg_volume_forget(v, e2.node, 1);
    volume_close();
    volume_open();
    snprintf(path, sizeof path, "%s/m", top);
    snprintf(second, sizeof second, "%s/m2", top);
    clean(true, (struct lg_scrub_options){ .manifest = path, .now = 5 });
    assert_int_equal(st.files, 701);
    clean(true, (struct lg_scrub_options){ .against = path });
    uint8_t *want = slurp(path, &len);
    /* Interrupted at any place and gone on with, it is the same. */
    for (stop_after = 1; stop_after < 703; stop_after += 61) {
        assert_int_equal(scrub(true, (struct lg_scrub_options){ .manifest = second, .now = 5 }), -EINTR);
        assert_int_equal(access(second, F_OK), -1);
        strcpy(from, position);
        unsigned stopped = stop_after;
        stop_after = 0;
        clean(true, (struct lg_scrub_options){ .manifest = second, .against = path, .now = 5, .resume = from });
        uint8_t *got = slurp(second, &len2);
        assert_int_equal(len2, len);
        assert_memory_equal(got, want, len);
        free(got);
        unlink(second);
        stop_after = stopped;
    }
    stop_after = 0;
    /* Any byte of it. */
    int fd = open(path, O_RDWR);
    for (size_t at = 0; at < len; at += at < 400 || at + 200 > len ? 1 : 37) {
        uint8_t x = want[at] ^ 4;
        assert_int_equal(pwrite(fd, &x, 1, (off_t)at), 1);
        int rc = scrub(true, (struct lg_scrub_options){ .against = path });
        assert_true(rc == -EBADMSG || rc == -EPROTO || rc == -EXDEV || rc == -EPROTONOSUPPORT || rc == -EKEYREJECTED);
        assert_true(at < len - LG_MANIFEST_SIG_LEN || rc == -EKEYREJECTED);
        assert_int_equal(n_found, 0);
        assert_int_equal(pwrite(fd, want + at, 1, (off_t)at), 1);
    }
    for (size_t cut = 0; cut < len; cut += 101) {
        assert_int_equal(ftruncate(fd, (off_t)cut), 0);
        int rc = scrub(true, (struct lg_scrub_options){ .against = path });
        assert_true(rc == -EBADMSG || rc == -EPROTO);
        assert_int_equal(pwrite(fd, want, len, 0), len);
    }
    close(fd);
    free(want);
    /* A key that is not to be had is no difference. */
    revoked = 1;
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path }), 0);
    assert_int_equal(n_found, 1);
    assert_int_equal(found[0].cls, LG_SCRUB_REVOKED);
    revoked = 0;
    volume_close();
}

/* Interrupted just behind a directory, its contents are done: neither missing nor left out, in what is compared and in what is written. */
static void test_behind_directory(void **state)
{
    enum { FILES = 255 }; /* and the directory: so many entries are written out together, and the position is told */
    char path[100], second[100], from[4096], name[16];
    struct lg_entry e;
    size_t len, len2;
    (void)state;
    assert_int_equal(lg_volume_mkdir(v, 1, "dir", 0755, &me, &e), 0);
    for (unsigned i = 0; i < FILES; i++) {
        snprintf(name, sizeof name, "f%u", i);
        file(e.node, name, 1);
    }
    lg_volume_forget(v, e.node, 1);
    volume_close();
    volume_open();
    snprintf(path, sizeof path, "%s/m", top);
    snprintf(second, sizeof second, "%s/m2", top);
    clean(true, (struct lg_scrub_options){ .manifest = path, .now = 5 });
    for (unsigned both = 0; both < 2; both++) {
        stop_after = FILES + 1;
        assert_int_equal(scrub(true, (struct lg_scrub_options){ .manifest = both ? second : NULL, .against = path, .now = 5 }), -EINTR);
        stop_after = 0;
        strcpy(from, position);
        assert_true(*from && !strchr(from, '/'));
        clean(true, (struct lg_scrub_options){ .manifest = both ? second : NULL, .against = path, .now = 5, .resume = from });
    }
    uint8_t *want = slurp(path, &len), *got = slurp(second, &len2);
    assert_int_equal(len2, len);
    assert_memory_equal(got, want, len);
    free(want);
    free(got);
    volume_close();
}

static void spill(const char *path, const uint8_t *b, size_t len)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, b, len), len);
    assert_int_equal(close(fd), 0);
}

/* The same as a version before signatures wrote it: another header, and with it other hashes and another MAC, and nothing behind that. Into b; how long. */
static size_t as_version_1(uint8_t *b, size_t len)
{
    uint8_t in[LG_MANIFEST_HEADER + 8 + LG_MAC_LEN], *h = in + LG_MANIFEST_HEADER + 8, before[LG_MAC_LEN];
    LG_SECRET_AUTO k = lg_secret_new();
    struct lg_key vk, g;
    size_t at = LG_MANIFEST_HEADER, n;
    b[8] = 1;
    memcpy(in, b, LG_MANIFEST_HEADER);
    assert_int_equal(lg_sha256(b, LG_MANIFEST_HEADER, h), 0);
    for (; (n = lg_item_len(b + at)) != 0; at += n) {
        memcpy(before, h, sizeof before);
        assert_int_equal(lg_sha256_2(before, sizeof before, b + at, n, h), 0);
    }
    assert_true(at + LG_MANIFEST_END + LG_MANIFEST_SIG_LEN == len);
    memcpy(in + LG_MANIFEST_HEADER, b + at + 8, 8);
    memcpy(b + at + 16, h, LG_MAC_LEN);
    assert_int_equal(src_vault(NULL, in + 16, &vk, &g), 0);
    assert_int_equal(lg_derive(vk.key, "leadglass manifest", NULL, 0, k), 0);
    assert_int_equal(lg_hmac(k, in, sizeof in, b + at + 48), 0);
    lg_secret_free(vk.key);
    lg_secret_free(g.key);
    return at + LG_MANIFEST_END;
}

static int on_sign_another(void *arg, struct lg_manifest_sig *s)
{
    s->hash[0] ^= 1;
    return on_sign(arg, s);
}

static void test_signature(void **state)
{
    char path[100], part[110];
    LG_SECRET_AUTO other = lg_secret_random();
    uint8_t pub[LG_SIGN_PUB_LEN];
    struct lg_manifest_look l;
    size_t len, cut;
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        file(1, (const char *[]){ "one", "two", "three" }[i], 5000);
    volume_close();
    volume_open();
    snprintf(path, sizeof path, "%s/m", top);
    snprintf(part, sizeof part, "%s.part", path);
    /* What is signed is what was written. */
    clean(true, (struct lg_scrub_options){ .manifest = path, .now = 5 });
    assert_int_equal(lg_manifest_look(path, &l), 0);
    assert_true(l.is_signed && l.sig.begun == 5 && l.sig.entries == 4 && l.sig.signed_at == 9);
    assert_memory_equal(l.sig.hash, asked.hash, LG_MAC_LEN);
    assert_memory_equal(l.sig.pub, signer_pub, sizeof signer_pub);
    assert_true(asked.entries == 4 && asked.begun == 5 && asked.vault_id[0] == 'V');
    clean(true, (struct lg_scrub_options){ .against = path });
    assert_int_equal(st.against_version, 2);
    /* Another key's: what it says is right, and whoever looks at it alone has to look at the key. */
    assert_int_equal(lg_sign_public(other, pub), 0);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path, .signer = pub }), -EKEYREJECTED);
    uint8_t *good = slurp(path, &len), *b = malloc(len);
    /* Any byte, without any key: found but for those of the MAC, which no one without the vault's key can tell. */
    for (size_t at = 0; at < len; at++) {
        memcpy(b, good, len);
        b[at] ^= 4;
        spill(path, b, len);
        bool mac = at >= len - LG_MANIFEST_SIG_LEN - LG_MAC_LEN && at < len - LG_MANIFEST_SIG_LEN;
        int rc = lg_manifest_look(path, &l);
        assert_true(mac ? rc == 0 : at >= len - LG_MANIFEST_SIG_LEN ? rc == -EKEYREJECTED : rc == -EBADMSG || rc == -EPROTO || rc == -EPROTONOSUPPORT || rc == -EKEYREJECTED);
    }
    for (cut = 0; cut < len; cut++) {
        spill(path, good, cut);
        int want = cut == len - LG_MANIFEST_SIG_LEN ? -ENODATA : -EPROTO;
        assert_int_equal(lg_manifest_look(path, &l), want);
        assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path }), want); /* its MAC is right */
    }
    memcpy(b, good, len);
    b[8] = 1; /* nor does it pass for one from before there were signatures */
    spill(path, b, len - LG_MANIFEST_SIG_LEN);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path }), -EBADMSG);
    assert_int_equal(lg_manifest_look(path, &l), -EBADMSG);
    /* One that is from then opens, and does not pass for signed. */
    cut = as_version_1(b, len);
    spill(path, b, cut);
    clean(true, (struct lg_scrub_options){ .against = path });
    assert_int_equal(st.against_version, 1);
    assert_int_equal(lg_manifest_look(path, &l), 0);
    assert_true(!l.is_signed && l.sig.entries == 4);
    b[cut - 1] ^= 1;
    spill(path, b, cut);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path }), -EBADMSG);
    b[cut - 1] ^= 1;
    spill(path, b, cut + 1);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .against = path }), -EPROTO);
    /* What such a one has begun is not gone on with. */
    spill(part, b, cut - LG_MANIFEST_END);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .manifest = path, .resume = "zzz" }), -EALREADY);
    spill(part, b, LG_MANIFEST_HEADER - 1);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .manifest = path, .resume = "zzz" }), -EPROTO);
    /* Not signed, it is not there; nor when something else was signed. */
    unlink(path);
    for (int i = 0; i < 2; i++) {
        sign_fails = i ? 0 : -ENOKEY;
        assert_int_equal(scrub(true, (struct lg_scrub_options){ .manifest = path, .sign = i ? on_sign_another : NULL }), i ? -EKEYREJECTED : -ENOKEY);
        assert_int_equal(access(path, F_OK), -1);
    }
    clean(true, (struct lg_scrub_options){ .manifest = path, .now = 5 });
    clean(true, (struct lg_scrub_options){ .against = path });
    free(good);
    free(b);
    volume_close();
}

/* ---- the root's own id lost: every name with it, no file ------------------------------------------------------------------------------------------------ */
static bool count_entry(void *arg, const char *name, const struct lg_entry *e, uint64_t next)
{
    (void)e, (void)next;
    *(unsigned *)arg += strncmp(name, "file-", 5) == 0;
    return true;
}

static void test_root_id(void **state)
{
    struct lg_entry e;
    struct lg_dir *d;
    unsigned n = 0;
    (void)state;
    for (unsigned i = 0; i < 3; i++)
        file(1, (const char *[]){ "one", "two", "three" }[i], 5000);
    volume_close();
    volume_open();
    assert_int_equal(unlinkat(lg_volume_rootfd(v), LG_DIRID_NAME, 0), 0);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ 0 }), 0);
    assert_int_equal(st.found[LG_SCRUB_DAMAGE], 1);
    assert_int_equal(st.verified, 3);
    assert_int_equal(scrub(true, (struct lg_scrub_options){ .repair = true }), 0);
    assert_int_equal(st.found[LG_SCRUB_REPAIRED], 4);
    assert_int_equal(st.found[LG_SCRUB_UNREADABLE], 0);
    clean(true, (struct lg_scrub_options){ 0 });
    volume_close();
    volume_open();
    assert_int_equal(lg_volume_lookup(v, 1, "lost+found", &e), 0);
    assert_int_equal(lg_volume_opendir(v, e.node, 0, &d), 0);
    assert_int_equal(lg_volume_readdir(d, 0, false, count_entry, &n), 0);
    assert_int_equal(n, 3);
    lg_volume_releasedir(d);
    lg_volume_forget(v, e.node, 1);
    volume_close();
}

/* ---- memory ---------------------------------------------------------------------------------------------------------------------------------------------- */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { MANY = 1000, GROWTH_KIB = 1 << 30 }; /* a sanitizer keeps what was freed */
#else
enum { MANY = 10000, GROWTH_KIB = 4096 };
#endif

static long peak_kib(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

static void test_memory(void **state)
{
    char path[100];
    (void)state;
    for (unsigned i = 0; i < 300; i++) {
        char name[32];
        snprintf(name, sizeof name, "first-%u", i);
        file(1, name, 100);
    }
    volume_close();
    volume_open();
    snprintf(path, sizeof path, "%s/m", top);
    clean(true, (struct lg_scrub_options){ .manifest = path });
    clean(true, (struct lg_scrub_options){ .against = path });
    clean(false, (struct lg_scrub_options){ 0 });
    for (unsigned i = 0; i < MANY; i++) {
        char name[32];
        snprintf(name, sizeof name, "then-%u", i);
        file(1, name, 100);
    }
    volume_close();
    volume_open();
    long before = peak_kib();
    clean(true, (struct lg_scrub_options){ .manifest = path });
    assert_int_equal(st.verified, MANY + 300);
    clean(true, (struct lg_scrub_options){ .against = path });
    clean(false, (struct lg_scrub_options){ 0 });
    long after = peak_kib();
    print_message("peak of %d files: %ld KiB more\n", MANY, after - before);
    assert_true(after - before < GROWTH_KIB);
    volume_close();
}

/* ---- the sweep ---------------------------------------------------------------------------------------------------------------------------------------------- */
static bool never(void *arg) { return (void)arg, false; }
static bool at_once(void *arg) { return (void)arg, true; }

static void test_sweep(void **state)
{
    enum { N = 20 };
    struct lg_sweep_stat sw;
    struct lg_entry e, dir, to;
    struct lg_handle *h;
    uint8_t b[8192];
    char path[600], lower[300], name[16];
    (void)state;
    assert_int_equal(lg_volume_mkdir(v, 1, "d", 0755, &me, &dir), 0);
    assert_int_equal(lg_volume_mkdir(v, 1, "to", 0755, &me, &to), 0);
    for (unsigned i = 0; i < N; i++) {
        snprintf(name, sizeof name, "f%u", i);
        file(i % 2 ? dir.node : 1, name, 8192);
    }
    lg_volume_forget(v, dir.node, 1);
    lg_volume_forget(v, to.node, 1);
    volume_close();
    volume_open();
    lower_of("f0", lower);
    snprintf(path, sizeof path, "%s/root/%s", vault, lower);
    memset(b, 'x', sizeof b);
    assert_int_equal(lg_volume_lookup(v, 1, "f0", &e), 0);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDWR, &h), 0);
    assert_int_equal(lg_volume_write(h, b, sizeof b, 8192), sizeof b); /* stands below before a commit names it */
    size_t len;
    uint8_t *half = slurp(path, &len);
    assert_int_equal(len, 4096 + 2 * 8192);
    lg_volume_release(h);
    lg_volume_forget(v, e.node, 1);
    volume_close();
    int fd = open(path, O_RDWR);
    assert_int_equal(pwrite(fd, half, len, 0), len); /* as that session left it, had it been killed */
    char orphan[2][300]; /* what re-encryptions leave: one of that session, and one that is under way */
    for (unsigned i = 0; i < 2; i++)
        snprintf(orphan[i], sizeof orphan[i], "%s/root/lg.tmp.0123456789abcde%u", vault, i);
    int left = creat(orphan[0], 0600);
    assert_true(left >= 0 && write(left, half, len) == (ssize_t)len);
    close(left);
    usleep(100000); /* inodes are stamped with ticks */
    unclean[0] = session;
    n_unclean = 1;
    volume_open();
    close(creat(orphan[1], 0600));
    assert_int_equal(lg_volume_sweep(v, at_once, NULL, &sw), -ECANCELED);
    assert_int_equal(lg_volume_sweep(v, never, NULL, &sw), 0);
    assert_int_equal(access(orphan[0], F_OK), -1);
    assert_int_equal(unlink(orphan[1]), 0);
    assert_int_equal(sw.files, N);
    assert_int_equal(sw.opened, N);
    assert_int_equal(sw.refused + sw.failed, 0);
    assert_int_equal(lg_volume_sweep(v, never, NULL, &sw), 0); /* nothing is left to do */
    assert_int_equal(sw.files, 0);
    struct stat s;
    assert_int_equal(fstat(fd, &s), 0);
    assert_int_equal(s.st_size, 4096 + 8192);
    assert_int_equal(pwrite(fd, half, len, 0), len); /* once more: now that is no crash's work */
    assert_int_equal(lg_volume_lookup(v, 1, "f0", &e), 0);
    assert_int_equal(lg_volume_open_file(v, e.node, O_RDONLY, &h), -EIO);
    lg_volume_forget(v, e.node, 1);
    close(fd);
    free(half);
    volume_close();
}

/* ---- a re-encryption that waits for the next mount ----------------------------------------------------------------------------------------- */
static void put_note(const uint8_t *b, size_t len)
{
    char path[100];
    snprintf(path, sizeof path, "%s/leadglass.relink", vault);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0 && write(fd, b, len) == (ssize_t)len);
    close(fd);
}

static void noted(bool keyed, enum lg_scrub_class cls, const char *words)
{
    assert_int_equal(scrub(keyed, (struct lg_scrub_options){ 0 }), 0);
    if (n_found != 1 || found[0].cls != cls || !strstr(found[0].kind, words))
        dump();
    assert_int_equal(n_found, 1);
    assert_int_equal(st.found[cls], 1);
    assert_non_null(strstr(found[0].kind, words));
    assert_int_equal(st.verified, st.files);
}

static void test_note(void **state)
{
    struct lg_intent in = { .n = 2, .path = (const char *[]){ "aaaa", "bbbb" } };
    struct lg_volume_options o = { .sys = sys, .keys = keys, .session = session, .read_only = true, .path_rule = path_rule };
    char path[100];
    uint8_t *b, *other;
    size_t len;
    (void)state;
    file(1, "f", 5000);
    memset(in.vault_id, 'V', LG_ID_LEN);
    memset(in.file_id, 'F', LG_ID_LEN); /* no file has it: nothing was begun */
    assert_int_equal(lg_intent_encode(&in, &b, &len), 0);
    in.vault_id[0]++;
    size_t other_len;
    assert_int_equal(lg_intent_encode(&in, &other, &other_len), 0);
    clean(false, (struct lg_scrub_options){ 0 });
    put_note(b, len);
    noted(false, LG_SCRUB_LEFTOVER, "under way"); /* mounted */
    volume_close();
    noted(false, LG_SCRUB_LEFTOVER, "was interrupted");
    assert_int_equal(lg_volume_open(vault, &o, &v), 0); /* with keys, and nothing written */
    noted(true, LG_SCRUB_LEFTOVER, "was interrupted");
    volume_close();
    put_note(other, other_len);
    noted(false, LG_SCRUB_DAMAGE, "leadglass.relink");
    for (size_t i = 0; i < len; i++) {
        b[i] ^= 1;
        put_note(b, len);
        noted(false, LG_SCRUB_DAMAGE, "leadglass.relink");
        b[i] ^= 1;
    }
    put_note(b, len - 1);
    noted(false, LG_SCRUB_DAMAGE, "leadglass.relink");
    b[8]++; /* the version */
    uint32_t crc = lg_crc32c(0, b, len - 4);
    memcpy(b + len - 4, &crc, 4);
    put_note(b, len);
    noted(false, LG_SCRUB_UNREADABLE, "newer version");
    b[8]--;
    crc = lg_crc32c(0, b, len - 4);
    memcpy(b + len - 4, &crc, 4);
    put_note(b, len);
    snprintf(path, sizeof path, "%s/leadglass.relink", vault);
    volume_open(); /* which settles it */
    assert_int_equal(access(path, F_OK), -1);
    clean(true, (struct lg_scrub_options){ 0 });
    clean(false, (struct lg_scrub_options){ 0 });
    volume_close();
    free(b);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_batches, setup, teardown),  cmocka_unit_test_setup_teardown(test_paths, setup, teardown),
        cmocka_unit_test_setup_teardown(test_each_byte, setup, teardown), cmocka_unit_test_setup_teardown(test_errors, setup, teardown),
        cmocka_unit_test_setup_teardown(test_manifest, setup, teardown), cmocka_unit_test_setup_teardown(test_sweep, setup, teardown),
        cmocka_unit_test_setup_teardown(test_root_id, setup, teardown),  cmocka_unit_test_setup_teardown(test_memory, setup, teardown),
        cmocka_unit_test_setup_teardown(test_note, setup, teardown),     cmocka_unit_test_setup_teardown(test_signature, setup, teardown),
        cmocka_unit_test_setup_teardown(test_behind_directory, setup, teardown),
    };
    if (lg_secret_init(true) || lg_crypto_init() || !(signer = lg_secret_random()) || lg_sign_public(signer, signer_pub))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    lg_secret_free(signer);
    return rc;
}
