/* Is a destroyed key really gone? The test knows the key, and every key above it that was given up; it takes all that today's secrets give, and tries
 * each of these at every byte of every file there is: keyring, mirror, both slot files, yesterday's keyring file and yesterday's backup. Freed pages
 * and slack are bytes like any other. Destruction done badly on purpose must be found. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <openssl/evp.h>

#include "leadglass/backup.h"
#include "record.h"

static char top[64];
static const char pass[] = "correct horse", own[] = "of the backup";

static const char *at(const char *name)
{
    static char path[8][160];
    static unsigned n;
    char *p = path[n++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

static uint8_t *load(const char *path, size_t *ret_len)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    assert_true(fd >= 0 && fstat(fd, &st) == 0);
    uint8_t *b = malloc((size_t)st.st_size + 1);
    assert_non_null(b);
    assert_int_equal(read(fd, b, (size_t)st.st_size), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return b;
}

static void copy(const char *from, const char *to)
{
    size_t len;
    uint8_t *b = load(from, &len);
    int fd = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, b, len), len);
    close(fd);
    free(b);
}

static void remove_all(const char *dir, bool itself)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (e->d_name[0] != '.' && unlink(path))
            remove_all(path, true);
    }
    if (d)
        closedir(d);
    if (itself)
        rmdir(dir);
}

static int setup(void **state)
{
    (void)state;
    snprintf(top, sizeof top, "%s/lgerased-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm");
    assert_non_null(mkdtemp(top));
    return lg_keyring_create(at("k"), at("k.root"), pass, strlen(pass), 0);
}

static int teardown(void **state)
{
    (void)state;
    remove_all(top, true);
    return 0;
}

/* ---- what is looked for, what it is looked for with, and where ------------------------------------------------------------------------------------- */

enum { NEEDLES = 16, KEYS = LG_BUCKETS + 200, HAYS = 16, DEEP = 256, AT_ONCE = 4096 };

static struct needle {
    uint8_t b[LG_KEY_LEN];
    const char *what;
} needle[NEEDLES];
static unsigned needles;

static void must_be_gone(const struct lg_secret *key, const char *what)
{
    assert_true(needles < NEEDLES);
    memcpy(needle[needles].b, key->b, LG_KEY_LEN);
    needle[needles++].what = what;
}

static struct have {
    struct lg_secret *key;
    const char *what;
    bool deep; /* what it seals may be longer than a key, and have a key in its midst */
} have[KEYS];
static unsigned haves;

static void today(const struct lg_secret *key, const char *what, bool deep)
{
    assert_true(haves < KEYS);
    have[haves] = (struct have){ lg_secret_dup(key), what, deep };
    assert_non_null(have[haves++].key);
}

static void forget(void)
{
    for (unsigned i = 0; i < haves; i++)
        lg_secret_free(have[i].key);
    haves = 0;
}

static struct hay {
    char name[160];
    uint8_t *b;
    size_t len;
} hay[HAYS];
static unsigned hays;
static size_t hay_bytes;

/* Every file below. */
static void gather(const char *dir)
{
    DIR *d = opendir(dir);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        char path[400];
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        assert_int_equal(lstat(path, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            gather(path);
            continue;
        }
        assert_true(hays < HAYS);
        struct hay *h = &hay[hays++];
        snprintf(h->name, sizeof h->name, "%.150s", path + strlen(top) + 1);
        h->b = load(path, &h->len);
        hay_bytes += h->len;
    }
    closedir(d);
}

static void drop_hay(void)
{
    while (hays)
        free(hay[--hays].b);
    hay_bytes = 0;
}

/* AES-256-SIV decrypts by AES-CTR from the synthetic IV, with the second half of its key (RFC 5297, 2.7): what it would give is known without the
 * associated data, so none has to be guessed. */
struct block {
    uint8_t b[16];
};
static struct block iv[AT_ONCE], stream[AT_ONCE];

static EVP_CIPHER_CTX *ctr_new(const struct lg_secret *key)
{
    uint8_t siv[64];
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    assert_int_equal(lg_derive_bytes(key, "leadglass siv", NULL, 0, siv, sizeof siv), 0);
    assert_true(c && EVP_EncryptInit_ex(c, EVP_aes_256_ecb(), NULL, siv + 32, NULL) > 0 && EVP_CIPHER_CTX_set_padding(c, 0) > 0);
    return c;
}

static struct block iv_of(const uint8_t *tag)
{
    struct block v;
    memcpy(v.b, tag, 16);
    v.b[8] &= 0x7f;
    v.b[12] &= 0x7f;
    return v;
}

static void next_block(struct block *v)
{
    for (unsigned i = 16; i-- && !++v->b[i];)
        ;
}

static void encrypt(EVP_CIPHER_CTX *c, size_t blocks)
{
    int n;
    assert_true(EVP_EncryptUpdate(c, (uint8_t *)stream, &n, (const uint8_t *)iv, (int)(blocks * 16)) > 0 && n == (int)(blocks * 16));
}

static unsigned found;
static const char *first_what, *first_with;
static void say(const struct needle *x, const char *with, const char *file, size_t off, bool quiet)
{
    if (!found++) {
        first_what = x->what;
        first_with = with;
    }
    if (!quiet && found < 4)
        print_error("%s, with %s, at byte %zu of %s\n", x->what, with, off, file);
}

/* The copies have most pages in common: the same bytes at the same place of a file before need not be tried twice. */
static bool again(unsigned h, size_t off, size_t n)
{
    for (unsigned i = 0; i < h; i++)
        if (hay[i].len >= off + n && memcmp(hay[i].b + off, hay[h].b + off, n) == 0)
            return true;
    return false;
}

static uint8_t begins[1 << 16]; /* a needle does, with these two bytes */

/* Whatever begins with a key: at every byte, with every key there is, the first block. */
static void look_wrapped(bool quiet, bool quick)
{
    EVP_CIPHER_CTX **c = calloc(haves, sizeof *c);
    assert_non_null(c);
    for (unsigned i = 0; i < haves; i++)
        c[i] = ctr_new(have[i].key);
    for (unsigned h = 0; h < hays; h++) {
        size_t last = hay[h].len < LG_WRAPPED_LEN ? 0 : hay[h].len - LG_WRAPPED_LEN + 1;
        for (size_t off = 0; off < last && !(quick && found); off += AT_ONCE) {
            size_t n = last - off < AT_ONCE ? last - off : AT_ONCE;
            const uint8_t *b = hay[h].b + off;
            if (again(h, off, n + LG_WRAPPED_LEN - 1))
                continue;
            for (size_t i = 0; i < n; i++)
                iv[i] = iv_of(b + i);
            for (unsigned k = 0; k < haves; k++) {
                encrypt(c[k], n);
                for (size_t i = 0; i < n; i++)
                    for (unsigned j = 0; begins[(stream[i].b[0] ^ b[i + 16]) << 8 | (stream[i].b[1] ^ b[i + 17])] && j < needles; j++) {
                        bool same = true;
                        for (unsigned x = 0; x < 16; x++)
                            same = same && (stream[i].b[x] ^ b[i + 16 + x]) == needle[j].b[x];
                        if (same)
                            say(&needle[j], have[k].what, hay[h].name, off + i, quiet);
                    }
            }
        }
    }
    for (unsigned i = 0; i < haves; i++)
        EVP_CIPHER_CTX_free(c[i]);
    free(c);
}

/* Whatever has a key somewhere within its first DEEP bytes. */
static void look_sealed(const struct have *k, bool quiet)
{
    EVP_CIPHER_CTX *c = ctr_new(k->key);
    for (unsigned h = 0; h < hays; h++)
        for (size_t off = 0; off + LG_WRAPPED_LEN <= hay[h].len; off++) {
            uint8_t plain[DEEP];
            size_t n = hay[h].len - off - 16 < DEEP ? hay[h].len - off - 16 : DEEP;
            if (off % AT_ONCE == 0 && hay[h].len >= off + AT_ONCE + 16 + DEEP && again(h, off, AT_ONCE + 16 + DEEP)) {
                off += AT_ONCE - 1;
                continue;
            }
            iv[0] = iv_of(hay[h].b + off);
            for (size_t i = 1; i * 16 < n; i++) {
                iv[i] = iv[i - 1];
                next_block(&iv[i]);
            }
            encrypt(c, (n + 15) / 16);
            for (size_t i = 0; i < n; i++)
                plain[i] = hay[h].b[off + 16 + i] ^ stream[i / 16].b[i % 16];
            for (size_t i = 0; i + LG_KEY_LEN <= n; i++)
                for (unsigned j = 0; begins[plain[i] << 8 | plain[i + 1]] && j < needles; j++)
                    if (memcmp(plain + i, needle[j].b, LG_KEY_LEN) == 0)
                        say(&needle[j], k->what, hay[h].name, off, quiet);
        }
    EVP_CIPHER_CTX_free(c);
}

/* With everything of today, and as plain bytes. quick: only what is wrapped, and only until something was found. */
static unsigned look(bool quiet, bool quick)
{
    found = 0;
    memset(begins, 0, sizeof begins);
    for (unsigned j = 0; j < needles; j++)
        begins[needle[j].b[0] << 8 | needle[j].b[1]] = 1;
    for (unsigned h = 0; h < hays; h++)
        for (unsigned j = 0; j < needles; j++)
            if (memmem(hay[h].b, hay[h].len, needle[j].b, LG_KEY_LEN))
                say(&needle[j], "nothing", hay[h].name, 0, quiet);
    look_wrapped(quiet, quick);
    for (unsigned i = 0; i < haves && !quick; i++)
        if (have[i].deep)
            look_sealed(&have[i], quiet);
    return found;
}

/* ---- a keyring, a mirror, and a study that is destroyed --------------------------------------------------------------------------------------------- */

static struct lg_keyring *opened(void)
{
    struct lg_keyring *k;
    struct lg_roots r;
    assert_int_equal(lg_keyring_open(at("k"), at("k.root"), at("m"), &k), 0);
    assert_int_equal(lg_slotfile_unlock(at("k.root"), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r), 0);
    assert_int_equal(lg_keyring_unlock(k, &r), 0);
    assert_int_equal(lg_keyring_unfinished(k), 0);
    lg_roots_done(&r);
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

static const char victim_uid[] = "7.7.7";
static uint8_t victim[2][LG_ID_LEN]; /* the study's key, and a provisional one attached to it */

static void bucket_must_be_gone(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    LG_SECRET_AUTO b = lg_secret_new();
    assert_int_equal(lg_bucket_key(k, lg_bucket_of(kid), b), 0);
    must_be_gone(b, "the bucket's key of before");
}

/* Neighbours, two versions, a provisional key, a root or two behind it: old pages of every kind. */
static struct lg_keyring *prepare(void)
{
    char uid[32];
    struct lg_study_info info = { 0 };
    struct lg_key x, prov;
    struct lg_keyring *k = opened();
    needles = 0;
    for (unsigned i = 0; i < 24; i++) {
        snprintf(uid, sizeof uid, "1.2.%u", i);
        x = study(k, uid);
        lg_secret_free(x.key);
    }
    must_be_gone(k->root.key, "the root of the day before yesterday");
    assert_int_equal(lg_keyring_rotate_root(k), 0);
    x = study(k, victim_uid);
    must_be_gone(x.key, "the study's key");
    memcpy(victim[0], x.kid, LG_ID_LEN);
    lg_secret_free(x.key);
    memcpy(info.uid, victim_uid, sizeof victim_uid);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_rotate_study(k, victim_uid, victim[0]), 0);
    assert_int_equal(lg_keyring_provisional(k, &prov), 0);
    assert_int_equal(lg_keyring_attach(k, prov.kid, &info), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    must_be_gone(prov.key, "the provisional key");
    memcpy(victim[1], prov.kid, LG_ID_LEN);
    lg_secret_free(prov.key);
    assert_int_equal(lg_keyring_study_find(k, victim_uid, &x), 0);
    must_be_gone(x.key, "the study's key, version 2");
    lg_secret_free(x.key);
    must_be_gone(k->root.key, "yesterday's root");
    bucket_must_be_gone(k, victim[0]);
    bucket_must_be_gone(k, victim[1]);
    return k;
}

static void take(struct lg_keyring *k, const char *what, int rc, struct lg_key *x)
{
    (void)k;
    if (rc)
        return;
    today(x->key, what, false);
    lg_secret_free(x->key);
}

/* All that passphrase, slot file and keyring give today. */
static void all_of_today(struct lg_keyring *k, const char *slot)
{
    uint8_t b[LG_SLOTFILE_MAX], ad[8 + LG_ID_LEN + 2 + 8];
    char uid[32];
    size_t len;
    struct lg_slotfile s;
    struct lg_key x;
    LG_SECRET_AUTO t = lg_secret_new();
    LG_SECRET_AUTO kek = lg_secret_new();
    forget();
    assert_int_equal(lg_slotfile_read(slot, b, &len), 0);
    assert_int_equal(lg_slotfile_decode(b, len, &s), 0);
    assert_int_equal(lg_scrypt_derive(&s.slots[0].scrypt, pass, strlen(pass), kek), 0);
    today(kek, "the passphrase", false);
    struct lg_wr w = lg_wr(ad, sizeof ad);
    lg_wr_bytes(&w, "slotpass", 8);
    lg_wr_bytes(&w, s.keyring_id, LG_ID_LEN);
    lg_wr_u8(&w, s.slots[0].number);
    lg_wr_u8(&w, s.slots[0].type);
    lg_wr_u64(&w, 0);
    assert_int_equal(lg_key_unwrap(kek, ad, sizeof ad, s.slots[0].slot_key, t), 0);
    today(t, "the slot's key", true);
    today(k->root.key, "the root", true);
    assert_int_equal(lg_bucket_key(k, lg_bucket_of(victim[0]), t), 0);
    today(t, "the key of the study's bucket", true);
    assert_int_equal(lg_bucket_key(k, lg_bucket_of(victim[1]), t), 0);
    today(t, "the key of the provisional key's bucket", true);
    today(k->lookup, "the lookup key", false);
    today(k->record, "the record key", true);
    assert_int_equal(lg_derive(k->record, "leadglass export spool", k->meta.keyring_id, LG_ID_LEN, t), 0);
    today(t, "the spool key", false);
    assert_int_equal(lg_keyring_manifest_key(k, t), 0);
    today(t, "the key that signs manifests", false);
    for (unsigned i = 0; i < 4; i++) {
        snprintf(uid, sizeof uid, "1.2.%u", i);
        take(k, "another study's key", lg_keyring_study_find(k, uid, &x), &x);
    }
    for (unsigned i = 0; i < LG_BUCKETS; i++) {
        assert_int_equal(lg_bucket_key(k, i, t), 0);
        today(t, "another bucket's key", false);
    }
}

/* ---- destroying badly --------------------------------------------------------------------------------------------------------------------------------- */

static void drop_one(struct lg_keyring *k, struct lg_record *r, struct lg_siv *old, struct lg_siv *fresh)
{
    LG_SECRET_AUTO x = lg_secret_new();
    if (memcmp(r->kid, victim[0], LG_ID_LEN) == 0 || memcmp(r->kid, victim[1], LG_ID_LEN) == 0) {
        r->n = 0;
        r->has_info = false;
        lg_wipe(r->info, sizeof r->info);
    }
    for (uint32_t i = 0; i < r->n; i++) {
        assert_int_equal(lg_version_unwrap(k, old, r, i, x), 0);
        assert_int_equal(lg_version_wrap(k, fresh, r, i, x), 0);
    }
    assert_int_equal(lg_record_put(k, r), 0);
}

static void drop_in(struct lg_keyring *k, unsigned b, const struct lg_secret *old, const struct lg_secret *fresh)
{
    uint8_t kid[64] = { (uint8_t)(b >> 4), (uint8_t)(b << 4) };
    struct lg_siv *from, *to;
    const uint8_t *p;
    size_t len = LG_ID_LEN, vlen;
    assert_int_equal(lg_siv_new(old, &from), 0);
    assert_int_equal(lg_siv_new(fresh, &to), 0);
    for (bool after = false; lg_store_next(k->store, LG_T_KEYS, after, kid, &len, &p, &vlen) == 0 && lg_bucket_of(kid) == b; after = true) {
        struct lg_record r;
        assert_int_equal(lg_record_parse(k, kid, p, vlen, &r), 0);
        drop_one(k, &r, from, to);
    }
    lg_siv_free(from);
    lg_siv_free(to);
}

/* The victims' wraps are left out; their buckets get new keys, or not. */
static void drop_wraps(struct lg_keyring *k, bool new_buckets)
{
    assert_int_equal(lg_keyring_begin(k), 0);
    for (unsigned i = 0; i < 2; i++) {
        unsigned b = lg_bucket_of(victim[i]);
        LG_SECRET_AUTO old = lg_secret_new();
        LG_SECRET_AUTO fresh = lg_secret_random();
        if (i && b == lg_bucket_of(victim[0]))
            continue;
        assert_int_equal(lg_bucket_key(k, b, old), 0);
        if (!new_buckets)
            memcpy(fresh->b, old->b, LG_KEY_LEN);
        drop_in(k, b, old, fresh);
        assert_int_equal(lg_bucket_wrap(k, b, &k->rooted, fresh), 0);
        k->have_bucket[b] = false;
    }
    assert_int_equal(lg_keyring_commit(k), 0);
}

enum how { WELL, NO_NEW_ROOT, NO_NEW_BUCKETS, NOT_AT_ALL };
static void destroy(struct lg_keyring *k, enum how how)
{
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    switch (how) {
    case WELL:
        assert_int_equal(lg_keyring_begin(k), 0);
        assert_int_equal(lg_keyring_revoke(k, victim_uid, "because", 5, kids, 4, &n), 0);
        assert_int_equal(n, 2);
        assert_int_equal(lg_keyring_commit(k), 0);
        assert_int_equal(lg_keyring_destroy(k, &n), 0);
        assert_int_equal(n, 1);
        break;
    case NO_NEW_ROOT: drop_wraps(k, true); break;
    case NO_NEW_BUCKETS:
        drop_wraps(k, false);
        assert_int_equal(lg_keyring_rotate_root(k), 0);
        break;
    case NOT_AT_ALL: break;
    }
}

/* What is given up later than this: the needles that a bad destruction leaves in force are no finding. */
static void only_the_study(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < needles; i++)
        if (strncmp(needle[i].what, "the study's", 11) == 0 || strncmp(needle[i].what, "the provisional", 15) == 0 || strncmp(needle[i].what, "the bucket", 10) == 0)
            needle[n++] = needle[i];
    needles = n;
}

static void test_found(void **state)
{
    (void)state;
    static const struct {
        enum how how;
        const char *what, *with;
    } bad[] = {
        { NOT_AT_ALL, "the study's key", "the key of the study's bucket" },
        { NO_NEW_BUCKETS, "the study's key", "the key of the study's bucket" }, /* in a freed page */
        { NO_NEW_ROOT, "the bucket's key of before", "the root" },              /* likewise; and with that the study's */
    };
    for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
        remove_all(top, false);
        assert_int_equal(lg_keyring_create(at("k"), at("k.root"), pass, strlen(pass), 0), 0);
        struct lg_keyring *k = prepare();
        destroy(k, bad[i].how);
        if (bad[i].how != NO_NEW_ROOT) { /* then the bucket's key is today's still, and no finding */
            only_the_study();
            needles -= 2;
        } else {
            only_the_study();
        }
        all_of_today(k, at("k.root"));
        gather(top);
        assert_true(look(true, true) > 0);
        assert_string_equal(first_what, bad[i].what);
        assert_string_equal(first_with, bad[i].with);
        if (bad[i].how == NO_NEW_ROOT) { /* goes on with what was found */
            LG_SECRET_AUTO b = lg_secret_new();
            unsigned at_bucket = needles - 2;
            memcpy(b->b, needle[at_bucket].b, LG_KEY_LEN);
            forget();
            today(b, "the bucket's key that was found", false);
            needles -= 2;
            assert_true(look(true, true) > 0);
            assert_string_equal(first_what, "the study's key");
        }
        drop_hay();
        forget();
        lg_keyring_close(k);
    }
    /* In the midst of something longer. */
    uint8_t text[100] = "something", sealed[100 + LG_SIV_TAG_LEN];
    LG_SECRET_AUTO over = lg_secret_random();
    memcpy(text + 37, needle[0].b, LG_KEY_LEN);
    assert_int_equal(lg_siv_seal(over, "whatever", 8, text, sizeof text, sealed), 0);
    FILE *g = fopen(at("sealed"), "we");
    assert_non_null(g);
    assert_true(fwrite("...", 1, 3, g) == 3 && fwrite(sealed, 1, sizeof sealed, g) == sizeof sealed);
    fclose(g);
    today(over, "a key over it", true);
    gather(top);
    assert_int_equal(look(true, true), 0);
    assert_true(look(true, false) > 0);
    assert_string_equal(first_with, "a key over it");
    drop_hay();
    forget();
    /* As plain bytes, too. */
    FILE *f = fopen(at("leak"), "we");
    assert_non_null(f);
    assert_int_equal(fwrite(needle[0].b, 1, LG_KEY_LEN, f), LG_KEY_LEN);
    fclose(f);
    gather(top);
    assert_true(look(true, true) > 0);
    assert_string_equal(first_with, "nothing");
    drop_hay();
}

/* ---- destroying well ---------------------------------------------------------------------------------------------------------------------------------- */

static void backup_to(struct lg_keyring *k, const char *path)
{
    uint8_t header[LG_BACKUP_HEADER_LEN], *frame = malloc(LG_BACKUP_FRAME_MAX), head[4];
    struct lg_backup *b;
    bool end = false;
    LG_SECRET_AUTO key = lg_secret_random();
    FILE *f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(lg_backup_begin(k, key, &b), 0);
    assert_int_equal(lg_backup_header_make(lg_backup_id(b), key, own, strlen(own), 1, header), 0);
    assert_int_equal(fwrite(header, 1, sizeof header, f), sizeof header);
    while (!end) {
        size_t len;
        assert_int_equal(lg_backup_next(b, frame, &len, &end), 0);
        struct lg_wr w = lg_wr(head, sizeof head);
        lg_wr_u32(&w, (uint32_t)len);
        assert_int_equal(fwrite(head, 1, 4, f), 4);
        assert_int_equal(fwrite(frame, 1, len, f), len);
    }
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_backup_note(k, b, "yesterday's"), 0);
    assert_int_equal(lg_backup_whole(k, lg_backup_id(b)), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    lg_backup_free(b);
    fclose(f);
    free(frame);
}

/* Opens what stands at yesterday/k and yesterday/k.root with today's passphrase. */
static int open_copy(struct lg_keyring **ret, const char *slot)
{
    struct lg_roots r;
    struct lg_keyring *k;
    int rc = lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
    if (rc)
        return rc;
    assert_int_equal(lg_keyring_open(at("yesterday/k"), slot, NULL, &k), 0);
    rc = lg_keyring_unlock(k, &r);
    lg_roots_done(&r);
    if (rc)
        lg_keyring_close(k);
    else
        *ret = k;
    return rc;
}

static void test_gone(void **state)
{
    (void)state;
    struct lg_keyring *k = prepare(), *old;
    struct lg_backup_header h;
    struct lg_key x;
    size_t len;
    LG_SECRET_AUTO key = lg_secret_new();
    backup_to(k, at("yesterday.lgk"));
    lg_keyring_close(k); /* everything of it is in the file */
    assert_int_equal(mkdir(at("yesterday"), 0700), 0);
    assert_int_equal(mkdir(at("yesterday/k"), 0700), 0);
    copy(at("k/data.mdb"), at("yesterday/k/data.mdb"));
    copy(at("k.root"), at("yesterday.root"));
    k = opened();
    destroy(k, WELL);
    assert_int_equal(lg_keyring_key_by_id(k, victim[0], 1, &x), -EKEYREVOKED);

    /* Yesterday's keyring file beside today's slot file, and yesterday's backup: neither opens with what is known today. */
    assert_int_equal(open_copy(&old, at("k.root")), -EKEYREJECTED);
    uint8_t *b = load(at("yesterday.lgk"), &len);
    assert_int_equal(lg_backup_header_read(b, &h), 0);
    assert_int_equal(lg_backup_header_open(&h, pass, strlen(pass), key), -EKEYREJECTED);
    free(b);

    /* Nor does any byte of them, or of today's files, hold something that does. The slot file of yesterday is not among them: that is the condition. */
    char kept[80];
    snprintf(kept, sizeof kept, "%s.slot", top);
    assert_int_equal(rename(at("yesterday.root"), kept), 0);
    all_of_today(k, at("k.root"));
    gather(top);
    assert_true(hays >= 7);
    print_message("%u keys at each of %zu bytes of %u files\n", haves, hay_bytes, hays);
    assert_int_equal(look(false, false), 0);
    drop_hay();

    /* With it, everything is there again: in yesterday's file, as documented ... */
    assert_int_equal(rename(kept, at("yesterday.root")), 0);
    assert_int_equal(open_copy(&old, at("yesterday.root")), 0);
    assert_int_equal(lg_keyring_key_by_id(old, victim[0], 1, &x), 0);
    assert_memory_equal(x.key->b, needle[1].b, LG_KEY_LEN);
    lg_secret_free(x.key);
    lg_keyring_close(old);
    /* ... and the backup opens with its own secret. */
    assert_int_equal(lg_backup_header_open(&h, own, strlen(own), key), 0);
    /* The search would have seen that: with the slot file there, the slot's key gives yesterday's root. */
    gather(top);
    assert_true(look(true, true) > 0);
    assert_string_equal(first_what, "yesterday's root");
    assert_string_equal(first_with, "the slot's key");
    drop_hay();
    forget();
    lg_keyring_close(k);
}

/* ---- a bucket with more in it than is wrapped at a time ---------------------------------------------------------------------------------------------------- */

enum { CROWD = 150, CROWD_VERSIONS = 3 };
static struct neighbour {
    struct lg_record r;
    struct lg_secret *key[CROWD_VERSIONS];
} crowd[CROWD];

static void crowd_in(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    struct lg_study_info info = { .uid = "2.3.4", .patient_id = "P2" };
    uint8_t id[LG_ID_LEN];
    struct lg_siv *bucket;
    struct lg_key x;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_bucket_siv(k, lg_bucket_of(kid), &bucket), 0);
    for (unsigned i = 0; i < CROWD; i++) {
        struct lg_record *r = &crowd[i].r;
        assert_int_equal(lg_key_make(k, LG_KIND_STUDY, r, &x), 0);
        lg_secret_free(x.key);
        r->kid[0] = kid[0];
        r->kid[1] = (uint8_t)((kid[1] & 0xf0) | (r->kid[1] & 0x0f));
        r->n = 1 + i % CROWD_VERSIONS;
        for (unsigned v = 0; v < r->n; v++) {
            r->version[v] = v + 1;
            crowd[i].key[v] = lg_secret_random();
            assert_non_null(crowd[i].key[v]);
            assert_int_equal(lg_version_wrap(k, bucket, r, v, crowd[i].key[v]), 0);
        }
        snprintf(r->reason, sizeof r->reason, "neighbour %u", i);
        r->c.retain_until = i;
        if (i % 2)
            assert_int_equal(lg_info_seal(k, r, crowd[i].key[r->n - 1], &info), 0);
        assert_int_equal(lg_record_put(k, r), 0);
        memcpy(id, r->kid, LG_ID_LEN);
        assert_int_equal(lg_record_get(k, id, r), 0);
    }
    lg_siv_free(bucket);
    assert_int_equal(lg_keyring_commit(k), 0);
}

/* The keys are what they were, under another wrap each; nothing else of the records is different. */
static void crowd_is_well(struct lg_keyring *k)
{
    for (unsigned i = 0; i < CROWD; i++) {
        struct lg_record was = crowd[i].r, is;
        struct lg_key x;
        assert_int_equal(lg_record_get(k, was.kid, &is), 0);
        for (unsigned v = 0; v < was.n; v++) {
            assert_int_equal(lg_record_key(k, &is, v, &x), 0);
            assert_memory_equal(x.key, crowd[i].key[v], LG_KEY_LEN);
            lg_secret_free(x.key);
            assert_memory_not_equal(is.wrapped[v], was.wrapped[v], LG_WRAPPED_LEN);
        }
        memset(is.wrapped, 0, sizeof is.wrapped);
        memset(was.wrapped, 0, sizeof was.wrapped);
        assert_memory_equal(&is, &was, sizeof is);
    }
}

static void test_crowd(void **state)
{
    (void)state;
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    struct lg_roots roots;
    struct lg_record r;
    struct lg_keyring *k = opened();
    struct lg_key x = study(k, victim_uid);
    lg_secret_free(x.key);
    crowd_in(k, x.kid);
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_revoke(k, victim_uid, "because", 5, kids, 4, &n), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(n, 1);
    crowd_is_well(k);
    lg_keyring_close(k);
    for (unsigned i = 0; i < 2; i++) { /* either copy alone */
        assert_int_equal(lg_keyring_open(at(i ? "m" : "k"), at(i ? "m.root" : "k.root"), NULL, &k), 0);
        assert_int_equal(lg_slotfile_unlock(at("k.root"), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &roots), 0);
        assert_int_equal(lg_keyring_unlock(k, &roots), 0);
        lg_roots_done(&roots);
        crowd_is_well(k);
        assert_int_equal(lg_record_get(k, x.kid, &r), 0);
        assert_true(r.n == 0 && r.state == LG_KEY_DESTROYED);
        lg_keyring_close(k);
    }
    for (unsigned i = 0; i < CROWD; i++)
        for (unsigned v = 0; v < CROWD_VERSIONS; v++)
            lg_secret_free(crowd[i].key[v]);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_found, setup, teardown), cmocka_unit_test_setup_teardown(test_gone, setup, teardown),
                                        cmocka_unit_test_setup_teardown(test_crowd, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
