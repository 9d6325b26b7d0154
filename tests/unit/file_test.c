/* The file engine over a real directory, against a plain model of what a file is; every byte of it tampered with; and its journal replayed. */
#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "filekeys.h"
#include "leadglass/bytes.h"
#include "leadglass/file.h"
#include "leadglass/format.h"
#include "leadglass/journal.h"
#include "leadglass/later.h"

/* ---- a vault of one file ------------------------------------------------------------------------------------------------------- */
enum { CS = 4096 };
struct world {
    char dir[64];
    int dirfd;
    struct lg_keys keys;
    struct lg_file_env env;
    uint64_t unclean[4];
    unsigned findings;
    struct lg_file *f;
};

static void on_finding(void *arg, const struct lg_finding *x)
{
    struct world *w = arg;
    if (strcmp(x->kind, "bytes that decided the study were rewritten") != 0)
        w->findings++;
}

static void world_open(struct world *w)
{
    w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
    assert_true(w->dirfd >= 0);
    assert_int_equal(lg_journal_open(&lg_sys_posix, w->dirfd, w->env.vault_id, false, &w->env.journal), 0);
}

static void world_new(struct world *w)
{
    memset(w, 0, sizeof *w);
    strcpy(w->dir, "/tmp/lgfile-XXXXXX");
    assert_non_null(mkdtemp(w->dir));
    w->env = (struct lg_file_env){ .sys = &lg_sys_posix, .keys = &w->keys, .chunk_size = CS, .session = 2, .unclean = w->unclean, .finding = on_finding, .arg = w };
    memset(w->env.vault_id, 'v', LG_ID_LEN);
    w->dirfd = open(w->dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdirat(w->dirfd, "root", 0700), 0);
    assert_int_equal(lg_journal_create(&lg_sys_posix, w->dirfd, w->env.vault_id), 0);
    close(w->dirfd);
    world_open(w);
}

static void world_close(struct world *w)
{
    lg_file_free(w->f);
    w->f = NULL;
    assert_int_equal(lg_journal_close(w->env.journal), 0);
    close(w->dirfd);
}

static void world_end(struct world *w)
{
    char cmd_path[128];
    world_close(w);
    snprintf(cmd_path, sizeof cmd_path, "%s/root/f", w->dir);
    unlink(cmd_path);
    snprintf(cmd_path, sizeof cmd_path, "%s/root", w->dir);
    rmdir(cmd_path);
    snprintf(cmd_path, sizeof cmd_path, "%s/%s", w->dir, LG_JOURNAL_NAME);
    unlink(cmd_path);
    rmdir(w->dir);
}

static void make(struct world *w)
{
    int fd = openat(w->dirfd, "root/f", O_RDWR | O_CREAT | O_EXCL, 0600);
    assert_int_equal(lg_file_create(&w->env, fd, "f", &w->f), 0);
}

static int reopen(struct world *w)
{
    lg_file_free(w->f);
    w->f = NULL;
    return lg_file_open(&w->env, openat(w->dirfd, "root/f", O_RDWR), "f", &w->f);
}

/* ---- the model ------------------------------------------------------------------------------------------------------------------- */
enum { MODEL_MAX = 3 * 1024 * 1024 };
static uint8_t model[MODEL_MAX], got[MODEL_MAX + 8];
static uint64_t model_size;
static uint64_t seed;
static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void check(struct world *w)
{
    assert_int_equal(lg_file_size(w->f), model_size);
    assert_int_equal(lg_file_read(w->f, got, sizeof got, 0), (ssize_t)model_size);
    assert_memory_equal(got, model, model_size);
}

static void random_run(uint64_t start, unsigned steps, uint64_t limit, const char *first)
{
    struct world w;
    world_new(&w);
    make(&w);
    seed = start;
    memset(model, 0, sizeof model);
    model_size = 0;
    if (first) {
        assert_int_equal(lg_file_write(w.f, first, strlen(first), 0), 0);
        memcpy(model, first, strlen(first));
        model_size = strlen(first);
    }
    static uint8_t buf[200 * 1024];
    for (unsigned s = 0; s < steps; s++) {
        uint64_t off = rnd() % (rnd() % 3 ? model_size + 1 : limit), len = rnd() % 4 ? rnd() % 9000 : rnd() % sizeof buf;
        if (rnd() % 3 == 0)
            off = off / CS * CS;
        if (off + len > limit)
            len = limit - off;
        switch (rnd() % 14) {
        case 0: case 1: case 2: case 3:
            for (uint64_t i = 0; i < len; i++)
                buf[i] = (uint8_t)rnd();
            assert_int_equal(lg_file_write(w.f, buf, len, off), 0);
            memcpy(model + off, buf, len);
            if (len && off + len > model_size)
                model_size = off + len;
            break;
        case 4:
            off = model_size;
            len = len > limit - off ? limit - off : len;
            memset(buf, (int)s, len);
            assert_int_equal(lg_file_write(w.f, buf, len, off), 0);
            memset(model + off, (int)s, len);
            model_size += len;
            break;
        case 5:
            if (rnd() % 8 == 0)
                off = 0;
            assert_int_equal(lg_file_truncate(w.f, off), 0);
            if (off < model_size)
                memset(model + off, 0, model_size - off);
            model_size = off;
            break;
        case 6:
            if (len) {
                bool keep = rnd() & 1;
                int mode = keep ? FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE : FALLOC_FL_ZERO_RANGE;
                assert_int_equal(lg_file_fallocate(w.f, mode, off, len), 0);
                uint64_t end = off + len;
                if (keep && end > model_size)
                    end = model_size;
                if (end > off)
                    memset(model + off, 0, end - off);
                if (end > model_size && !keep)
                    model_size = end;
            }
            break;
        case 7:
            assert_int_equal(lg_file_commit(w.f), 0);
            break;
        case 8:
            assert_int_equal(lg_file_sync(w.f), 0);
            break;
        case 9:
            assert_int_equal(lg_journal_checkpoint(w.env.journal), 0);
            break;
        case 10:
            assert_int_equal(reopen(&w), 0);
            break;
        case 11:
            lg_file_drop_keys(w.f, false);
            break;
        case 12: {
            ssize_t n = lg_file_read(w.f, got, len, off);
            uint64_t want = off >= model_size ? 0 : len < model_size - off ? len : model_size - off;
            assert_int_equal(n, (ssize_t)want);
            assert_memory_equal(got, model + off, want);
            break;
        }
        default:
            if (s % 10 == 0) { /* a new session */
                world_close(&w);
                w.env.session++;
                world_open(&w);
                assert_int_equal(lg_file_open(&w.env, openat(w.dirfd, "root/f", O_RDWR), "f", &w.f), 0);
            }
            break;
        }
        if (s % 7 == 0)
            check(&w);
    }
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(lg_journal_checkpoint(w.env.journal), 0);
    struct stat st;
    assert_int_equal(fstatat(w.dirfd, "root/f", &st, 0), 0);
    assert_int_equal(lg_file_plain_size(CS, (uint64_t)st.st_size), model_size);
    assert_int_equal(st.st_size, (off_t)lg_format_cipher_size(CS, model_size));
    check(&w);
    assert_int_equal(w.findings, 0);
    world_end(&w);
}

static void test_model(void **state)
{
    (void)state;
    for (uint64_t s = 1; s <= 12; s++)
        random_run(s * 7919, 400, s % 3 ? 200 * 1024 : MODEL_MAX, s % 2 ? "DICOM of a STUDY" : NULL);
    random_run(4711, 300, 150 * 1024, "D");
}

/* ---- which key --------------------------------------------------------------------------------------------------------------------- */
static char kid_of(struct world *w)
{
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
    return lg_file_kid(w->f, kid, &version) ? (char)kid[0] : '-';
}

static void test_keys(void **state)
{
    (void)state;
    struct world w;
    unsigned seen = 0;
    char long_d[300];
    memset(long_d, 'D', sizeof long_d);
    world_new(&w);
    make(&w);
    assert_int_equal(kid_of(&w), '-');
    assert_int_equal(lg_file_commit(w.f), 0); /* empty: general */
    assert_int_equal(kid_of(&w), 'g');
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(lg_file_write(w.f, "D STUDY", 7, 0), 0); /* its first bytes make it a study's */
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0); /* rewritten from nothing: classified anew */
    assert_int_equal(kid_of(&w), 'g');
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, "D", 1, 0), 0); /* a byte that tells nothing, committed, then the study */
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(kid_of(&w), 'g');
    assert_int_equal(lg_file_write(w.f, " STUDY", 6, 1), 0);
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(lg_file_read(w.f, got, 100, 0), 7);
    assert_memory_equal(got, "D STUDY", 7);
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, "D", 1, 0), 0); /* the same while the key manager gives nothing: the study is not forgotten */
    assert_int_equal(lg_file_commit(w.f), 0);
    w.keys.locked = -ENOKEY;
    assert_int_equal(lg_file_write(w.f, " STUDY", 6, 1), -ENOKEY);
    w.keys.locked = 0;
    assert_int_equal(lg_file_write(w.f, " STUDY", 6, 1), 0);
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(lg_file_read(w.f, got, 100, 0), 7);
    assert_memory_equal(got, "D STUDY", 7);
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, long_d, sizeof long_d, 0), 0); /* and when there was no key at all yet, and the general one is to be had */
    w.keys.refuse_study = -ENOKEY;
    assert_int_equal(lg_file_write(w.f, "STUDY", 5, sizeof long_d), -ENOKEY);
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(kid_of(&w), 'p');
    w.keys.refuse_study = 0;
    w.keys.attached = 0;
    assert_int_equal(lg_file_write(w.f, "STUDY", 5, sizeof long_d), 0);
    assert_int_equal(w.keys.attached, 1);
    for (unsigned k = 0; k < 2; k++) { /* grown before anything is written; closed in between */
        assert_int_equal(lg_file_truncate(w.f, 0), 0);
        assert_int_equal(lg_file_write(w.f, "x", 1, 0), 0);
        assert_int_equal(lg_file_truncate(w.f, 0), 0);
        assert_int_equal(lg_file_truncate(w.f, 3 * CS), 0);
        assert_int_equal(lg_file_commit(w.f), 0);
        assert_int_equal(kid_of(&w), 'g');
        if (k)
            assert_int_equal(reopen(&w), 0);
        assert_int_equal(lg_file_write(w.f, "D STUDY", 7, 0), 0);
        assert_int_equal(kid_of(&w), 's');
        assert_int_equal(reopen(&w), 0);
        assert_int_equal(kid_of(&w), 's');
        assert_int_equal(lg_file_read(w.f, got, sizeof got, 0), 3 * CS);
        assert_memory_equal(got, "D STUDY\0\0", 9);
    }
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, "D", 1, 0), 0); /* and the same when it was closed in between */
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(kid_of(&w), 'g');
    assert_int_equal(lg_file_write(w.f, " STUDY", 6, 1), 0);
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(kid_of(&w), 's');
    assert_int_equal(lg_file_read(w.f, got, 100, 0), 7);
    assert_memory_equal(got, "D STUDY", 7);
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, long_d, sizeof long_d, 0), 0); /* under a provisional key likewise */
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(kid_of(&w), 'p');
    w.keys.attached = 0;
    assert_int_equal(lg_file_write(w.f, "STUDY", 5, sizeof long_d), 0);
    assert_int_equal(w.keys.attached, 1);
    w.keys.attached = 0;
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    assert_int_equal(lg_file_write(w.f, long_d, sizeof long_d, 0), 0); /* undecided, must reach the disk: provisional, later attached */
    assert_int_equal(lg_file_sync(w.f), 0);
    assert_int_equal(kid_of(&w), 'p');
    w.keys.locked = -ENOKEY;
    assert_int_equal(lg_file_write(w.f, "STUDY", 5, sizeof long_d), -ENOKEY);
    assert_int_equal(w.keys.attached, 0);
    w.keys.locked = 0;
    assert_int_equal(lg_file_write(w.f, "STUDY", 5, sizeof long_d), 0);
    assert_int_equal(w.keys.attached, 1);
    assert_int_equal(kid_of(&w), 'p');
    assert_int_equal(lg_file_commit(w.f), 0);
    w.keys.locked = -ENOKEY;
    lg_file_drop_keys(w.f, false);
    assert_int_equal(lg_file_read(w.f, got, 100, 0), -ENOKEY);
    assert_int_equal(lg_file_size(w.f), sizeof long_d + 5);
    w.keys.locked = 0;
    assert_int_equal(lg_file_read(w.f, got, 305, 0), 305);
    assert_int_equal(lg_file_lost(w.f, &seen), 0); /* it was all committed */
    /* Revocation gives up what is not committed, tells whoever asks, and keeps the rest. */
    assert_int_equal(lg_file_write(w.f, "zzz", 3, 0), 0);
    lg_file_drop_keys(w.f, true);
    assert_int_equal(lg_file_lost(w.f, &seen), -EKEYREVOKED);
    assert_int_equal(lg_file_lost(w.f, &seen), 0);
    seen = 0;
    assert_int_equal(lg_file_lost(w.f, &seen), -EKEYREVOKED); /* another that had it open */
    assert_int_equal(lg_file_read(w.f, got, 3, 0), 3);
    assert_memory_equal(got, "DDD", 3);
    world_end(&w);
}

/* The file key that stands below, as its commitment. */
static struct lg_claim placed(struct world *w)
{
    struct lg_claim c;
    int fd = openat(w->dirfd, "root/f", O_RDONLY);
    assert_int_equal(lg_file_place(w->f), 0);
    assert_int_equal(lg_file_claim(w->env.sys, fd, &c), 0);
    close(fd);
    return c;
}

/* A new file, committed empty, which is under the general key. */
static void make_empty(struct world *w, struct lg_claim *ret)
{
    lg_file_free(w->f);
    w->f = NULL;
    unlinkat(w->dirfd, "root/f", 0);
    make(w);
    *ret = placed(w);
}

/* It holds text under the key of tag; the file key is that of `was` or, if not same, another. */
static struct lg_claim expect(struct world *w, char tag, uint32_t version, const char *text, const struct lg_claim *was, bool same)
{
    struct lg_claim c = placed(w);
    assert_int_equal(c.kid[0], tag);
    assert_int_equal(c.version, version);
    assert_int_equal(memcmp(c.commitment, was->commitment, LG_MAC_LEN) == 0, same);
    assert_int_equal(reopen(w), 0);
    assert_int_equal(lg_file_read(w->f, got, 1000, 0), strlen(text));
    assert_memory_equal(got, text, strlen(text));
    return c;
}

/* The file key of an empty file has sealed nothing: it is kept for its first bytes, if they come under the same key, and for nothing else. */
static void test_spare(void **state)
{
    (void)state;
    struct world w;
    struct lg_claim was, c;
    char long_d[301];
    memset(long_d, 'D', 300);
    long_d[300] = 0;
    world_new(&w);
    make_empty(&w, &was);
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0); /* the same key above it: the same file key, whoever opened the file */
    c = expect(&w, 'g', 1, "text", &was, true);
    assert_int_equal(lg_file_truncate(w.f, 0), 0); /* this one has sealed something */
    assert_int_equal(lg_file_write(w.f, "other", 5, 0), 0);
    c = expect(&w, 'g', 1, "other", &c, false);
    assert_int_equal(lg_file_truncate(w.f, 0), 0); /* also when the file was committed empty in between */
    c = placed(&w);
    assert_int_equal(lg_file_write(w.f, "third", 5, 0), 0);
    expect(&w, 'g', 1, "third", &c, false);

    make_empty(&w, &was);
    assert_int_equal(reopen(&w), 0);
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0);
    expect(&w, 'g', 1, "text", &was, true);

    make_empty(&w, &was);
    assert_int_equal(lg_file_write(w.f, "D STUDY", 7, 0), 0); /* another key */
    expect(&w, 's', 1, "D STUDY", &was, false);

    make_empty(&w, &was);
    assert_int_equal(lg_file_write(w.f, long_d, 300, 0), 0); /* and a third kind */
    expect(&w, 'p', 1, long_d, &was, false);

    make_empty(&w, &was);
    w.keys.rotated++;
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0); /* another version of the same key */
    expect(&w, 'g', 2, "text", &was, false);
    w.keys.rotated = 0;

    make_empty(&w, &was);
    assert_int_equal(lg_file_write(w.f, "D", 1, 0), 0); /* while it is undecided, the bytes go again */
    assert_int_equal(lg_file_truncate(w.f, 0), 0);
    expect(&w, 'g', 1, "", &was, true);

    make_empty(&w, &was);
    w.keys.locked = -ENOKEY;
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), -ENOKEY); /* it waits for a key that is not to be had */
    w.keys.locked = 0;
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0);
    expect(&w, 'g', 1, "text", &was, true);

    make_empty(&w, &was);
    assert_int_equal(lg_file_write(w.f, "D", 1, 0), 0); /* keys dropped meanwhile: read again, it is what stands below */
    lg_file_drop_keys(w.f, true);
    assert_int_equal(lg_file_write(w.f, "text", 4, 0), 0);
    expect(&w, 'g', 1, "text", &was, true);
    assert_int_equal(w.findings, 0);
    world_end(&w);
}

/* ---- who must not wait (later.h) -------------------------------------------------------------------------------------------------- */
static ssize_t nothing_cached(void *arg, int fd, void *buf, size_t len, off_t off) { return (void)arg, (void)fd, (void)buf, (void)len, (void)off, -EAGAIN; }

static int open_later(struct world *w)
{
    lg_later_begin();
    int rc = lg_file_open(&w->env, openat(w->dirfd, "root/f", O_RDWR), "f", &w->f);
    lg_later_end();
    return rc;
}

static void test_later(void **state)
{
    (void)state;
    struct world w;
    struct lg_sys cold = lg_sys_posix;
    cold.pread_cached = nothing_cached;
    world_new(&w);
    make(&w);
    memset(model, 'm', 3 * CS);
    model_size = 3 * CS;
    assert_int_equal(lg_file_write(w.f, model, model_size, 0), 0);
    assert_int_equal(lg_file_sync(w.f), 0);
    lg_file_free(w.f);
    w.f = NULL;
    w.env.sys = &cold;
    assert_int_equal(open_later(&w), -LG_ELATER); /* the header is on the disk */
    w.env.sys = &lg_sys_posix;
    assert_int_equal(open_later(&w), 0); /* in memory */
    w.env.sys = &cold;
    lg_later_begin();
    assert_int_equal(lg_file_read(w.f, got, 100, CS), -LG_ELATER);
    assert_int_equal(lg_file_read(w.f, got, 3 * CS, 0), -LG_ELATER);
    assert_int_equal(lg_file_write(w.f, "new", 3, 7), -LG_ELATER); /* the rest of the chunk is on the disk */
    lg_later_end();
    check(&w);
    memcpy(model + 7, "new", 3);
    assert_int_equal(lg_file_write(w.f, "new", 3, 7), 0);
    lg_later_begin();
    assert_int_equal(lg_file_commit(w.f), -LG_ELATER); /* over committed bytes: the journal is written and synced */
    assert_int_equal(lg_file_read(w.f, got, 10, 0), 10); /* in memory */
    lg_later_end();
    assert_true(lg_file_close_waits(w.f));
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_true(lg_file_close_waits(w.f));
    check(&w);
    assert_int_equal(lg_journal_checkpoint(w.env.journal), 0);
    assert_int_equal(lg_file_sync(w.f), 0);
    assert_false(lg_file_close_waits(w.f));
    check(&w);
    assert_int_equal(reopen(&w), 0);
    check(&w);
    assert_int_equal(w.findings, 0);
    world_end(&w);
}

/* ---- tampering ------------------------------------------------------------------------------------------------------------------- */
static void test_tamper(void **state)
{
    (void)state;
    struct world w;
    static uint8_t plain[3 * CS + 100];
    world_new(&w);
    make(&w);
    for (size_t i = 0; i < sizeof plain; i++)
        plain[i] = (uint8_t)(i * 31);
    assert_int_equal(lg_file_write(w.f, plain, sizeof plain, 0), 0);
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_int_equal(lg_file_truncate(w.f, sizeof plain + 2 * CS), 0); /* ends in an authenticated hole; two slots in use */
    assert_int_equal(lg_file_commit(w.f), 0);
    lg_file_free(w.f);
    w.f = NULL;
    int fd = openat(w.dirfd, "root/f", O_RDWR);
    static uint8_t raw[16 * CS];
    ssize_t size = pread(fd, raw, sizeof raw, 0);
    assert_true(size > 4 * CS);
    unsigned missed = 0;
    for (ssize_t at = 0; at < size; at += at < LG_HEADER_LEN ? 1 : 97) {
        uint8_t x = raw[at] ^ 0x40;
        assert_int_equal(pwrite(fd, &x, 1, at), 1);
        int rc = lg_file_open(&w.env, openat(w.dirfd, "root/f", O_RDWR), "f", &w.f);
        ssize_t n = rc ? rc : lg_file_read(w.f, got, sizeof plain + 2 * CS, 0);
        bool hole = at >= LG_HEADER_LEN + (ssize_t)sizeof plain / CS * CS + CS; /* bytes under a hole are not read by anyone */
        if (n >= 0 && hole)
            assert_true(got[sizeof plain + CS] == 0);
        else if (n >= 0)
            missed++;
        if (!rc)
            lg_file_free(w.f);
        w.f = NULL;
        assert_int_equal(pwrite(fd, raw + at, 1, at), 1);
    }
    assert_int_equal(missed, 0);
    /* Cut or lengthened at any place. */
    for (off_t len = 0; len < size + 600; len += 511) {
        if (len == size)
            continue;
        assert_int_equal(ftruncate(fd, len), 0);
        int rc = lg_file_open(&w.env, openat(w.dirfd, "root/f", O_RDWR), "f", &w.f);
        assert_int_equal(rc, -EBADMSG);
        assert_int_equal(ftruncate(fd, size), 0);
        assert_int_equal(pwrite(fd, raw, (size_t)size, 0), size);
    }
    /* Good chunks around a damaged one still read. */
    uint8_t x = raw[LG_HEADER_LEN + CS] ^ 1;
    assert_int_equal(pwrite(fd, &x, 1, LG_HEADER_LEN + CS), 1);
    assert_int_equal(lg_file_open(&w.env, openat(w.dirfd, "root/f", O_RDWR), "f", &w.f), 0);
    assert_int_equal(lg_file_read(w.f, got, CS, 0), CS);
    w.findings = 0;
    assert_int_equal(lg_file_read(w.f, got, CS, CS), -EBADMSG);
    assert_int_equal(w.findings, 1);
    assert_int_equal(lg_file_read(w.f, got, CS, 2 * CS), CS);
    close(fd);
    world_end(&w);
}

/* ---- crashes: the process dies, what was written below stays ----------------------------------------------------------------------- */
static void test_replay(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 30; round++) {
        struct world w, after;
        world_new(&w);
        make(&w);
        seed = 99 + round;
        memset(model, 0, sizeof model);
        model_size = 60000;
        for (size_t i = 0; i < model_size; i++)
            model[i] = (uint8_t)rnd();
        assert_int_equal(lg_file_write(w.f, model, model_size, 0), 0);
        assert_int_equal(lg_file_sync(w.f), 0);
        for (unsigned s = 0; s < 1 + rnd() % 6; s++) {
            uint64_t off = rnd() % model_size, len = rnd() % 20000;
            if (rnd() % 3) {
                memset(got, (int)s + 65, len);
                assert_int_equal(lg_file_write(w.f, got, len, off), 0);
                memset(model + off, (int)s + 65, len);
                if (len && off + len > model_size)
                    model_size = off + len;
            } else {
                assert_int_equal(lg_file_truncate(w.f, off), 0);
                memset(model + off, 0, sizeof model - off);
                model_size = off;
                if (!off)
                    break;
            }
            if (rnd() % 2)
                assert_int_equal(lg_file_commit(w.f), 0);
            if (rnd() % 4 == 0)
                assert_int_equal(lg_journal_checkpoint(w.env.journal), 0);
        }
        assert_int_equal(lg_file_sync(w.f), 0); /* acknowledged: must be there, though it may be in the journal alone */
        after = w;
        after.f = NULL;
        after.unclean[0] = 2;
        after.env.unclean = after.unclean;
        after.env.n_unclean = 1;
        after.env.session = 3;
        after.env.arg = &after;
        after.env.keys = &after.keys;
        world_open(&after);
        assert_int_equal(lg_file_open(&after.env, openat(after.dirfd, "root/f", O_RDWR), "f", &after.f), 0);
        check(&after);
        /* And once more, strictly. */
        lg_file_free(after.f);
        after.env.n_unclean = 0;
        assert_int_equal(lg_file_open(&after.env, openat(after.dirfd, "root/f", O_RDWR), "f", &after.f), 0);
        check(&after);
        world_close(&after);
        w.env.sys = &lg_sys_posix;
        world_end(&w);
    }
}

/* ---- every way of reading gives the same ------------------------------------------------------------------------------------------ */

static ssize_t none_cached(void *arg, int fd, void *buf, size_t len, off_t off) { return (void)arg, (void)fd, (void)buf, (void)len, (void)off, -EAGAIN; }

/* Every other part, and of those the half. */
static ssize_t some_cached(void *arg, int fd, void *buf, size_t len, off_t off)
{
    (void)arg;
    off_t k = off / (128 * 1024) % 4;
    return k == 1 ? -EAGAIN : pread(fd, buf, k == 3 ? len / 2 : len, off);
}

static ssize_t backwards(void *arg, int fd, void *buf, size_t len, off_t off, size_t piece, int (*each)(void *each_arg, size_t at, size_t n), void *each_arg)
{
    ssize_t all = 0;
    (void)arg;
    for (size_t k = (len + piece - 1) / piece; k--;) {
        size_t at = k * piece, n = len - at < piece ? len - at : piece;
        ssize_t r = pread(fd, (uint8_t *)buf + at, n, off + (off_t)at);
        assert_true(r >= 0);
        int rc = each(each_arg, at, (size_t)r);
        if (rc)
            return rc;
        all += r;
    }
    return all;
}

static void test_ways(void **state)
{
    (void)state;
    struct lg_sys all[] = { lg_sys_posix, lg_sys_posix, lg_sys_posix, lg_sys_posix, lg_sys_posix, lg_sys_posix };
    all[1].pread_cached = NULL;
    all[2].pread_cached = none_cached;
    all[3].pread_cached = none_cached;
    all[3].pread_pieces = NULL;
    all[4].pread_cached = some_cached;
    all[5].pread_cached = some_cached;
    all[5].pread_pieces = backwards;
    print_message("io_uring: %s\n", lg_uring_state() ? strerror(-lg_uring_state()) : "used");
    struct lg_pool *pool;
    assert_int_equal(lg_pool_new(3, &pool), 0);
    struct world w;
    world_new(&w);
    make(&w);
    seed = 4711;
    for (size_t i = 0; i < sizeof model; i++)
        model[i] = (uint8_t)rnd();
    model_size = sizeof model - 1234;
    w.env.pool = pool;
    for (uint64_t at = 0; at < model_size; at += 1000000) {
        size_t n = model_size - at < 1000000 ? (size_t)(model_size - at) : 1000000;
        assert_int_equal(lg_file_write(w.f, model + at, n, at), 0);
    }
    uint64_t bad = 300, bad_at = lg_format_chunk_off(CS, bad);
    for (unsigned damaged = 0; damaged < 2; damaged++)
        for (unsigned k = 0; k < 12; k++) {
            w.env.sys = &all[k / 2];
            w.env.pool = k % 2 ? pool : NULL;
            assert_int_equal(reopen(&w), 0);
            w.findings = 0;
            if (!damaged) {
                check(&w);
                assert_int_equal(lg_file_read(w.f, got, 700001, 12345), 700001);
                assert_memory_equal(got, model + 12345, 700001);
            } else {
                assert_int_equal(lg_file_read(w.f, got, sizeof got, 0), -EBADMSG);
                assert_int_equal(w.findings, 1);
                assert_int_equal(lg_file_read(w.f, got, bad * CS, 0), bad * CS);
                assert_memory_equal(got, model, bad * CS);
                assert_int_equal(lg_file_read(w.f, got, sizeof got, (bad + 1) * CS), model_size - (bad + 1) * CS);
                assert_memory_equal(got, model + (bad + 1) * CS, model_size - (bad + 1) * CS);
            }
            if (!damaged && k == 11) {
                int fd = openat(w.dirfd, "root/f", O_RDWR);
                uint8_t byte;
                assert_int_equal(pread(fd, &byte, 1, (off_t)bad_at + 17), 1);
                byte ^= 4;
                assert_int_equal(pwrite(fd, &byte, 1, (off_t)bad_at + 17), 1);
                close(fd);
            }
        }
    w.env.sys = &lg_sys_posix;
    w.env.pool = NULL;
    world_end(&w);
    lg_pool_free(pool);
}

static bool syncs_fail;
static unsigned syncs;
static int fdatasync_counted(void *arg, int fd)
{
    syncs++;
    return syncs_fail ? -EIO : lg_sys_posix.fdatasync(arg, fd);
}

/* A close has work left although nothing is dirty: what a sync that failed leaves is written and synced again; what went with its keys before it was ever committed is told. */
static void test_close_of_what_failed(void **state)
{
    struct world w;
    struct lg_sys sys = lg_sys_posix;
    (void)state;
    sys.fdatasync = fdatasync_counted;
    memset(model, 'a', 2 * CS);
    model_size = 2 * CS;
    world_new(&w);
    w.env.sys = &sys;
    make(&w);
    assert_int_equal(lg_file_write(w.f, model, 2 * CS, 0), 0);
    syncs_fail = true;
    assert_int_equal(lg_file_sync(w.f), -EIO);
    syncs_fail = false;
    syncs = 0;
    assert_int_equal(reopen(&w), 0);
    assert_true(syncs > 0);
    check(&w);
    assert_int_equal(w.findings, 0);
    world_end(&w);

    world_new(&w);
    make(&w);
    assert_int_equal(lg_file_write(w.f, model, 2 * CS, 0), 0);
    lg_file_drop_keys(w.f, true);
    assert_int_equal(w.findings, 0);
    lg_file_free(w.f);
    w.f = NULL;
    assert_int_equal(w.findings, 1);
    world_end(&w);
}

static int setup(void **state)
{
    (void)state;
    return lg_secret_init(true) || lg_crypto_init();
}

/* ---- a checkpoint that ends in the middle of a commit ------------------------------------------------------------------------------ */

static struct lg_journal *checkpoint_then; /* once, when a commit has just put in place what may go there */
int __real_lg_flush_in_place(struct lg_file *f);
int __wrap_lg_flush_in_place(struct lg_file *f);
int __wrap_lg_flush_in_place(struct lg_file *f)
{
    struct lg_journal *j = checkpoint_then;
    int rc = __real_lg_flush_in_place(f);
    checkpoint_then = NULL;
    if (j)
        assert_int_equal(lg_journal_checkpoint(j), 0);
    return rc;
}

/* What had to stay in memory until then belongs to that commit all the same. */
static void test_checkpoint_in_commit(void **state)
{
    (void)state;
    struct world w;
    world_new(&w);
    make(&w);
    memset(model, 'a', 100 * CS);
    assert_int_equal(lg_file_write(w.f, model, 100 * CS, 0), 0);
    assert_int_equal(lg_file_sync(w.f), 0);
    assert_int_equal(lg_file_truncate(w.f, 10 * CS), 0);
    assert_int_equal(lg_file_commit(w.f), 0); /* a record of the journal: until it is in place, nothing may go straight behind that end (R5) */
    memset(model + 10 * CS, 0, 140 * CS);
    memset(model + 150 * CS, 'b', CS); /* a chunk that no slot names */
    model_size = 151 * CS;
    assert_int_equal(lg_file_write(w.f, model + 150 * CS, CS, 150 * CS), 0);
    checkpoint_then = w.env.journal;
    assert_int_equal(lg_file_commit(w.f), 0);
    assert_null(checkpoint_then);
    check(&w);
    assert_int_equal(reopen(&w), 0);
    check(&w);
    assert_int_equal(w.findings, 0);
    world_end(&w);
}

/* ---- a write that fails, and a file that is made as long as it would have been ------------------------------------------------------- */
static int full;
static ssize_t full_pwritev(void *arg, int fd, const struct iovec *iov, int n, off_t off) { return full ? -ENOSPC : lg_sys_posix.pwritev(arg, fd, iov, n, off); }

/* What the model says is what is durable, and nothing is found wrong with it. Ends the world. */
static void lasts(struct world *w)
{
    assert_int_equal(lg_file_sync(w->f), 0);
    check(w);
    assert_int_equal(reopen(w), 0);
    check(w);
    assert_int_equal(w->findings, 0);
    world_end(w);
}

static void test_failed_then_grown(void **state)
{
    (void)state;
    enum { KEPT = 16 * CS, MORE = 32 * CS };
    struct lg_sys sys = lg_sys_posix;
    sys.pwritev = full_pwritev;
    for (unsigned way = 0; way < 4; way++) {
        struct world w;
        world_new(&w);
        w.env.sys = &sys;
        make(&w);
        model_size = way < 2 ? 1000 : KEPT + MORE;
        memset(model, 0, model_size);
        if (way < 2) { /* its one chunk is to go with the header */
            assert_int_equal(lg_file_commit(w.f), 0);
            assert_int_equal(lg_file_write(w.f, "x", 1, 999), 0);
        } else { /* chunks that go straight to their place */
            memset(model, 'k', KEPT);
            assert_int_equal(lg_file_write(w.f, model, KEPT, 0), 0);
            assert_int_equal(lg_file_sync(w.f), 0);
        }
        full = 1;
        assert_int_equal(way < 2 ? lg_file_commit(w.f) : lg_file_write(w.f, got, MORE, KEPT), -ENOSPC);
        full = 0;
        if (way == 0)
            assert_int_equal(lg_file_fallocate(w.f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, CS), 0);
        if (way == 1)
            assert_int_equal(lg_file_truncate(w.f, 0), 0);
        assert_int_equal(way == 3 ? lg_file_fallocate(w.f, 0, 0, model_size) : lg_file_truncate(w.f, model_size), 0);
        lasts(&w);
    }
}

/* The one chunk of a small file is written with its header: what a commit could not write is still there for the next. */
static void test_failed_then_again(void **state)
{
    (void)state;
    struct lg_sys sys = lg_sys_posix;
    struct world w;
    sys.pwritev = full_pwritev;
    world_new(&w);
    w.env.sys = &sys;
    make(&w);
    assert_int_equal(lg_file_commit(w.f), 0);
    model_size = 1000;
    memset(model, 's', model_size);
    assert_int_equal(lg_file_write(w.f, model, model_size, 0), 0);
    full = 1;
    for (unsigned n = 0; n < 2; n++)
        assert_int_equal(lg_file_commit(w.f), -ENOSPC);
    full = 0;
    check(&w);
    lasts(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_model), cmocka_unit_test(test_keys), cmocka_unit_test(test_spare), cmocka_unit_test(test_later), cmocka_unit_test(test_tamper),
                                        cmocka_unit_test(test_replay), cmocka_unit_test(test_ways), cmocka_unit_test(test_close_of_what_failed), cmocka_unit_test(test_checkpoint_in_commit),
                                        cmocka_unit_test(test_failed_then_grown), cmocka_unit_test(test_failed_then_again) };
    return cmocka_run_group_tests(tests, setup, NULL);
}
