/* Everything that the owner of the storage can do to a file of a session that ended cleanly.
 *
 * What must come of a change is not written beside each change but worked out from what stands below afterwards (judge): the header and
 * tables decide whether the file opens, each chunk's bytes whether that chunk reads. So no change can pass unnoticed except for the reasons
 * in not_detectable, and those are the ones that docs/THREAT_MODEL.md gives. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "leadglass/bytes.h"
#include "leadglass/file.h"
#include "leadglass/format.h"
#include "leadglass/journal.h"

enum { CS = 4096, RAW_MAX = 1400 * 1024, PASTS = 3, SUBJECTS = 10, ENTRIES_OFF = 3 * LG_SECTOR };

/* Each text stands in docs/THREAT_MODEL.md. */
enum reason { UNDER_HOLE, SLOTS, OLDER_SELF, HOLE_THEN, OTHER_FILE, REASONS };
static const char *const not_detectable[REASONS] = {
    [UNDER_HOLE] = "bytes below a hole",
    [SLOTS] = "the two commit slots exchanged",
    [OLDER_SELF] = "replaced by its complete older self",
    [HOLE_THEN] = "chunks that were holes then read as zeros",
    [OTHER_FILE] = "two complete files swapped",
};
static unsigned undetected[REASONS], cases, refused, partly;

/* ---- keys: two versions of a study's, another study's, and the general one --------------------------------------------------------------- */
static int key_of(uint8_t tag, uint32_t version, enum lg_key_kind kind, struct lg_key *ret)
{
    *ret = (struct lg_key){ .version = version, .kind = kind, .state = LG_KEY_ACTIVE, .key = lg_secret_new() };
    memset(ret->kid, tag, LG_ID_LEN);
    memset(ret->key->b, tag, LG_KEY_LEN);
    ret->key->b[0] = (uint8_t)version;
    return 0;
}
static int src_vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    (void)arg, (void)vault_id;
    return key_of('v', 1, LG_KIND_VAULT, v) || key_of('g', 1, LG_KIND_GENERAL, g);
}
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease)
{
    (void)arg, (void)info;
    *lease = 1000;
    return key_of('s', 1, LG_KIND_STUDY, ret);
}
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    uint8_t want[LG_ID_LEN];
    (void)arg;
    memset(want, kid[0], sizeof want);
    if (memcmp(want, kid, sizeof want) != 0 || !((kid[0] == 's' && (version == 1 || version == 2)) || (kid[0] == 't' && version == 1)))
        return -ENOKEY;
    *lease = 1000;
    return key_of(kid[0], version, LG_KIND_STUDY, ret);
}
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease)
{
    (void)arg, (void)ret, (void)lease;
    return -ENOSYS;
}
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    (void)arg, (void)kid, (void)info;
    return -ENOSYS;
}
static const struct lg_key_source source = { NULL, src_vault, src_study, src_by_id, src_provisional, src_attach, NULL };

static int path_rule(void *arg, const char *path, struct lg_study_info *ret)
{
    (void)arg, (void)path;
    *ret = (struct lg_study_info){ .uid = "1.2.3" };
    return 0;
}

/* ---- a vault ------------------------------------------------------------------------------------------------------------------------------- */
static char dir[64];
static int dirfd_;
static struct lg_file_env env;
static uint64_t unclean[1] = { 1 }; /* of long ago: must excuse nothing that a later session wrote */

static struct lg_finding found[8];
static char found_kind[8][64];
static unsigned n_found;
static void on_finding(void *arg, const struct lg_finding *x)
{
    (void)arg;
    if (n_found < 8) {
        found[n_found] = *x;
        snprintf(found_kind[n_found], sizeof found_kind[0], "%s", x->kind);
    }
    n_found++;
}

static void vault_open(uint64_t session)
{
    env.session = session;
    assert_int_equal(lg_journal_open(&lg_sys_posix, dirfd_, env.vault_id, false, &env.journal), 0);
}

static int vault_new(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/lgtamper-XXXXXX");
    assert_non_null(mkdtemp(dir));
    env = (struct lg_file_env){ .sys = &lg_sys_posix, .chunk_size = CS, .unclean = unclean, .n_unclean = 1, .path_rule = path_rule, .finding = on_finding };
    memset(env.vault_id, 'V', LG_ID_LEN);
    dirfd_ = open(dir, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdirat(dirfd_, "root", 0700), 0);
    assert_int_equal(lg_journal_create(&lg_sys_posix, dirfd_, env.vault_id), 0);
    assert_int_equal(lg_keys_new(&source, env.vault_id, &env.keys), 0);
    return 0;
}

static int vault_end(void **state)
{
    char path[400];
    (void)state;
    lg_keys_free(env.keys);
    snprintf(path, sizeof path, "%s/root", dir);
    for (unsigned i = 0; i < SUBJECTS; i++) {
        snprintf(path, sizeof path, "root/%u", i);
        unlinkat(dirfd_, path, 0);
    }
    unlinkat(dirfd_, "root/big", 0);
    unlinkat(dirfd_, "root/x", 0);
    unlinkat(dirfd_, "root", AT_REMOVEDIR);
    unlinkat(dirfd_, LG_JOURNAL_NAME, 0);
    close(dirfd_);
    return rmdir(dir);
}

/* ---- files of several shapes, and what they were before -------------------------------------------------------------------------------------- */
struct image {
    uint8_t *raw, *plain;
    size_t len, size;
};
struct subject {
    const char *shape;
    struct image now, past[PASTS], half; /* half: between two commits; plain unknown */
    unsigned n_past;
    struct lg_file *f; /* while being made */
    char path[16];
};
static struct subject subject[SUBJECTS];
static unsigned n_subject;

static uint64_t seed = 88172645463325252ull;
static uint64_t rnd(void)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    return seed ^= seed << 17;
}

static void put(struct subject *s, uint64_t off, size_t len)
{
    uint8_t *b = malloc(len);
    assert_non_null(b);
    for (size_t i = 0; i < len; i++)
        b[i] = (uint8_t)rnd();
    assert_int_equal(lg_file_write(s->f, b, len, off), 0);
    free(b);
}

static uint8_t *lower(const char *path, size_t *ret_len)
{
    int fd = openat(dirfd_, path, O_RDONLY);
    struct stat st;
    assert_int_equal(fstat(fd, &st), 0);
    uint8_t *b = malloc((size_t)st.st_size + 1);
    assert_non_null(b);
    assert_int_equal(pread(fd, b, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    *ret_len = (size_t)st.st_size;
    return b;
}

/* A commit, all of it in place below. */
static void step(struct subject *s)
{
    assert_int_equal(lg_file_commit(s->f), 0);
    assert_int_equal(lg_journal_checkpoint(env.journal), 0);
    if (s->now.raw) {
        assert_true(s->n_past < PASTS);
        s->past[s->n_past++] = s->now;
    }
    s->now.raw = lower(s->path, &s->now.len);
    s->now.size = lg_file_size(s->f);
    s->now.plain = malloc(s->now.size + 1);
    assert_int_equal(lg_file_read(s->f, s->now.plain, s->now.size + 1, 0), s->now.size);
    assert_int_equal(s->now.len, lg_format_cipher_size(CS, s->now.size));
    assert_true(s->now.len < RAW_MAX);
}

static struct subject *begin(const char *shape)
{
    struct subject *s = &subject[n_subject];
    snprintf(s->path, sizeof s->path, "root/%u", n_subject++);
    s->shape = shape;
    assert_int_equal(lg_file_create(&env, openat(dirfd_, s->path, O_RDWR | O_CREAT | O_EXCL, 0600), s->path, &s->f), 0);
    return s;
}

static void end(struct subject *s)
{
    lg_file_free(s->f);
    s->f = NULL;
}

static void make_subjects(void)
{
    struct subject *s = begin("empty");
    step(s);
    end(s);

    s = begin("one byte, empty before");
    step(s);
    put(s, 0, 1);
    step(s);
    end(s);

    s = begin("one chunk, overwritten");
    put(s, 0, CS);
    step(s);
    put(s, 0, CS);
    step(s);
    end(s);

    s = begin("partial tail, made longer");
    put(s, 0, 3 * CS + 100);
    step(s);
    put(s, 3 * CS + 100, 50);
    step(s);
    end(s);

    s = begin("the same size as the one before");
    put(s, 0, 3 * CS + 150);
    step(s);
    end(s);

    s = begin("holes, one filled later");
    put(s, 0, 2 * CS);
    put(s, 6 * CS, CS);
    assert_int_equal(lg_file_truncate(s->f, 12 * CS + 10), 0);
    step(s);
    put(s, 3 * CS, CS);
    step(s);
    put(s, CS, CS);
    put(s, 4 * CS, CS);
    step(s);
    end(s);

    s = begin("overwritten, appended, cut");
    put(s, 0, 6 * CS);
    step(s);
    put(s, CS + 5, 20);
    put(s, 4 * CS, CS);
    step(s);
    put(s, 6 * CS, 2 * CS); /* stands below before any slot names it */
    s->half.raw = lower(s->path, &s->half.len);
    assert_true(s->half.len > s->now.len);
    step(s);
    assert_int_equal(lg_file_truncate(s->f, 6 * CS), 0);
    put(s, 2 * CS, CS);
    step(s);
    end(s);

    s = begin("regions 0 and 1");
    put(s, 0, 225 * CS);
    step(s);
    put(s, 3 * CS, 10);
    put(s, 81 * CS, 10);
    put(s, 206 * CS, 4 * CS);
    step(s);
    put(s, 225 * CS, 4 * CS);
    s->half.raw = lower(s->path, &s->half.len);
    put(s, 229 * CS, 100);
    step(s);
    end(s);

    s = begin("a table of holes");
    put(s, 0, CS);
    assert_int_equal(lg_file_truncate(s->f, 300 * CS), 0);
    put(s, 250 * CS, CS);
    step(s);
    put(s, 100 * CS, CS);
    step(s);
    end(s);
    n_found = 0;
}

/* ---- what stands below now --------------------------------------------------------------------------------------------------------------------- */
static uint8_t cur[RAW_MAX], disk[RAW_MAX];
static size_t cur_len, disk_len;
static int diskfd;

static void store(void)
{
    if (disk_len != cur_len) {
        assert_int_equal(ftruncate(diskfd, (off_t)cur_len), 0);
        if (cur_len > disk_len)
            memset(disk + disk_len, 0, cur_len - disk_len);
        disk_len = cur_len;
    }
    for (size_t at = 0; at < cur_len; at += 4096) {
        size_t n = cur_len - at < 4096 ? cur_len - at : 4096;
        if (memcmp(cur + at, disk + at, n) != 0) {
            assert_int_equal(pwrite(diskfd, cur + at, n, (off_t)at), n);
            memcpy(disk + at, cur + at, n);
        }
    }
}

static void reset(const struct subject *s)
{
    memcpy(cur, s->now.raw, s->now.len);
    cur_len = s->now.len;
}

static size_t chunks(const struct image *m) { return (size_t)lg_format_chunks(CS, m->size); }
static size_t chunk_off(size_t i) { return (size_t)lg_format_chunk_off(CS, i); }
static size_t entry_off(size_t i) { return (size_t)lg_format_entry_off(CS, i); }
static size_t chunk_len(const struct image *m, size_t i) { return m->size - i * CS < CS ? m->size - i * CS : CS; }
static bool is_hole(const struct image *m, size_t i) { return lg_entry_empty(m->raw + entry_off(i)); }
static bool body_is(const struct image *m, size_t i) { return !memcmp(cur + chunk_off(i), m->raw + chunk_off(i), chunk_len(m, i)); }

/* Header, tables and length are those of m: then the file is taken for m, and each chunk tells for itself. Which slot stands first means nothing. */
static bool slots_as(const struct image *m, unsigned first) { return !memcmp(cur + LG_SECTOR, m->raw + first * LG_SECTOR, LG_SECTOR) && !memcmp(cur + 2 * LG_SECTOR, m->raw + (3 - first) * LG_SECTOR, LG_SECTOR); }
static bool headed_as(const struct image *m)
{
    if (cur_len != m->len || memcmp(cur, m->raw, LG_SECTOR) != 0 || !(slots_as(m, 1) || slots_as(m, 2)) ||
        memcmp(cur + ENTRIES_OFF, m->raw + ENTRIES_OFF, LG_HEADER_LEN - ENTRIES_OFF) != 0)
        return false;
    for (size_t i = LG_HEAD_ENTRIES; i < chunks(m); i += (size_t)lg_format_run(i))
        if (memcmp(cur + entry_off(i), m->raw + entry_off(i), (size_t)lg_format_run(i) * LG_ENTRY_LEN) != 0)
            return false;
    return true;
}

static const struct image *head_image(const struct subject *s, const struct subject **ret_of)
{
    const struct subject *first = s;
    for (unsigned k = 0; k <= n_subject; k++, s = k ? &subject[k - 1] : s) {
        *ret_of = s;
        if (headed_as(&s->now))
            return &s->now;
        for (unsigned p = 0; p < s->n_past; p++)
            if (headed_as(&s->past[p]))
                return &s->past[p];
    }
    *ret_of = first;
    return NULL;
}

static const char *doing;
static unsigned wrong;
#define CLAIM(what)               \
    do {                          \
        if (!(what)) {            \
            complain(#what, s);   \
            lg_file_free(f);      \
            return;               \
        }                         \
    } while (0)
static void complain(const char *what, const struct subject *s)
{
    if (wrong++ > 20)
        return;
    print_error("%s; file \"%s\"; not so: %s\n", doing, s->shape, what);
    for (size_t at = 0, told = 0; at < cur_len && told < 3; at++)
        if (at >= s->now.len || cur[at] != s->now.raw[at]) {
            print_error("  differs at %zu\n", at);
            at |= LG_SECTOR - 1;
            told++;
        }
    for (unsigned i = 0; i < n_found && i < 8; i++)
        print_error("  found: %s, %llu to %llu\n", found_kind[i], (unsigned long long)found[i].from, (unsigned long long)found[i].to);
}

static int lower_open(struct lg_file **ret) { return lg_file_open(&env, openat(dirfd_, "root/x", O_RDWR), "x", ret); }

/* Opens and reads what stands in cur in place of file s. also: an error that may come instead of -EBADMSG. */
static void judge(const struct subject *s, int also)
{
    static uint8_t got[CS], zero[CS];
    const struct image *now = &s->now;
    const struct subject *of;
    if (cur_len == now->len && !memcmp(cur, now->raw, cur_len))
        return; /* nothing was changed */
    cases++;
    store();
    const struct image *m = head_image(s, &of);
    uint8_t id[LG_ID_LEN] = { 0 };
    if (cur_len >= LG_SECTOR)
        memcpy(id, cur + 36, LG_ID_LEN); /* the best there is, when S0 itself was changed */
    struct lg_file *f = NULL;
    n_found = 0;
    int rc = lower_open(&f);
    if (!m) {
        CLAIM(rc == -EBADMSG || (rc && rc == also));
        CLAIM(n_found > 0 && found_kind[0][0] && found[0].to == 0 && !memcmp(found[0].file_id, id, LG_ID_LEN));
        struct stat st; /* and whoever comes to look at it finds it as it was */
        static uint8_t head[LG_HEADER_LEN];
        CLAIM(fstat(diskfd, &st) == 0 && (size_t)st.st_size == cur_len);
        size_t n = cur_len < sizeof head ? cur_len : sizeof head;
        CLAIM(pread(diskfd, head, n, 0) == (ssize_t)n && !memcmp(head, cur, n));
        refused++;
        return;
    }
    CLAIM(rc == 0 && n_found == 0);
    CLAIM(lg_file_size(f) == m->size);
    bool bad = false, stale[REASONS] = { false };
    for (size_t i = 0; i < chunks(m); i++) {
        size_t len = chunk_len(m, i);
        bool good = is_hole(m, i) || body_is(m, i);
        n_found = 0;
        ssize_t n = lg_file_read(f, got, CS, i * CS);
        if (!good) {
            bad = true;
            CLAIM(n == -EBADMSG);
            CLAIM(n_found == 1 && !strcmp(found_kind[0], "chunk does not verify") && found[0].from == i * CS && found[0].to == i * CS + len &&
                  !memcmp(found[0].file_id, id, LG_ID_LEN));
            n = lg_file_read(f, got, 1, i * CS + len - 1); /* a byte of it neither */
            CLAIM(n == -EBADMSG);
            continue;
        }
        CLAIM(n == (ssize_t)len && n_found == 0);
        CLAIM(!memcmp(got, is_hole(m, i) ? zero : m->plain + i * CS, len));
        CLAIM(!memcmp(got, m->plain + i * CS, len));
        if (of != s)
            stale[OTHER_FILE] = true;
        else if (i * CS + len > now->size || memcmp(got, now->plain + i * CS, len) != 0)
            stale[is_hole(m, i) ? HOLE_THEN : OLDER_SELF] = true;
    }
    lg_file_free(f);
    if (bad) { /* noticed: but not by who read only these chunks */
        partly++;
        undetected[HOLE_THEN] += stale[HOLE_THEN];
        CLAIM(m != now || !(stale[HOLE_THEN] || stale[OLDER_SELF] || stale[OTHER_FILE]));
        CLAIM(!stale[OLDER_SELF] || memcmp(cur, now->raw, LG_HEADER_LEN) != 0);
        return;
    }
    /* Not noticed at all. */
    undetected[m == now && !slots_as(m, 1) ? SLOTS : m == now ? UNDER_HOLE : of == s ? OLDER_SELF : OTHER_FILE]++;
}

/* ---- the ways of changing it ---------------------------------------------------------------------------------------------------------------- */
static void fix_crc(size_t sector)
{
    uint32_t crc = lg_crc32c(0, cur + sector * LG_SECTOR, LG_SECTOR - 4);
    for (unsigned i = 0; i < 4; i++)
        cur[sector * LG_SECTOR + LG_SECTOR - 4 + i] = (uint8_t)(crc >> 8 * i);
}

static void each_header_byte(const struct subject *s)
{
    static const uint8_t pattern[] = { 0x01, 0x80, 0xff };
    for (size_t at = 0; at < LG_HEADER_LEN; at++) {
        for (unsigned p = 0; p < 3; p++) {
            reset(s);
            cur[at] ^= pattern[p];
            judge(s, 0);
        }
        reset(s);
        cur[at] = 0;
        judge(s, 0);
        size_t sector = at / LG_SECTOR, in = at % LG_SECTOR;
        if (sector > 2 || in >= LG_SECTOR - 4)
            continue;
        /* The same by someone who knows how to compute a checksum. */
        bool never = lg_entry_empty(s->now.raw + sector * LG_SECTOR); /* an unused slot: still no slot */
        int also = sector == 0 && in >= 8 && in < 16 ? -EPROTONOSUPPORT : sector && !never && in >= 40 && in < 60 ? -ENOKEY : 0;
        for (unsigned p = 0; p < 2; p++) {
            reset(s);
            cur[at] ^= (uint8_t)(p ? 1u << at % 8 : 0xff);
            fix_crc(sector);
            judge(s, also);
        }
    }
}

static bool interesting(const struct image *m, size_t i)
{
    size_t n = chunks(m);
    return n < 20 || i < 3 || (i >= 78 && i < 83) || i == 100 || (i >= 205 && i < 211) || i == 250 || i + 3 > n;
}

static void each_entry(const struct subject *s)
{
    const struct image *m = &s->now;
    size_t n = chunks(m), end = n <= LG_HEAD_ENTRIES ? LG_HEAD_ENTRIES : n + (size_t)lg_format_run(n - 1) - 1; /* unused ones too */
    for (size_t i = 0; i < end; i++) {
        if (!interesting(m, i) && i != end - 1)
            continue;
        for (size_t b = 0; b < LG_ENTRY_LEN; b++) { /* nonce, tag, checksum */
            reset(s);
            cur[entry_off(i) + b] ^= (uint8_t)(1u << (i + b) % 8);
            judge(s, 0);
        }
        reset(s);
        memset(cur + entry_off(i), 0, LG_ENTRY_LEN); /* a hole of the attacker's */
        judge(s, 0);
        reset(s);
        memset(cur + entry_off(i), 0xff, LG_ENTRY_LEN);
        judge(s, 0);
    }
    for (size_t i = n > LG_HEAD_ENTRIES ? n - 1 : end; i < end; i++) { /* every unused one of a region */
        reset(s);
        cur[entry_off(i) + i % LG_ENTRY_LEN] ^= 1;
        judge(s, 0);
    }
}

static void chunk_copy(const struct image *from, size_t i, size_t to, bool body, bool entry)
{
    uint8_t e[LG_ENTRY_LEN];
    memcpy(e, from->raw + entry_off(i), sizeof e);
    if (body) {
        size_t n = chunk_len(from, i), room = cur_len > chunk_off(to) ? cur_len - chunk_off(to) : 0;
        memcpy(cur + chunk_off(to), from->raw + chunk_off(i), n < room ? n : room);
    }
    if (entry)
        memcpy(cur + entry_off(to), e, sizeof e);
}

static void each_chunk(const struct subject *s)
{
    const struct image *m = &s->now;
    size_t n = chunks(m);
    for (size_t i = 0; i < n; i++) {
        size_t at[3] = { 0, chunk_len(m, i) / 2, chunk_len(m, i) - 1 };
        for (unsigned k = 0; k < 3; k++) {
            reset(s);
            cur[chunk_off(i) + at[k]] ^= (uint8_t)(1u << (i + k) % 8);
            judge(s, 0);
        }
        reset(s);
        memset(cur + chunk_off(i), 0, chunk_len(m, i));
        judge(s, 0);
        if (!interesting(m, i))
            continue;
        for (size_t j = 0; j < n; j++) {
            if (i == j || !interesting(m, j))
                continue;
            for (unsigned what = 1; what < 4; what++) { /* body, entry, both */
                reset(s);
                chunk_copy(m, i, j, what & 1, what & 2); /* repeated */
                judge(s, 0);
                chunk_copy(m, j, i, what & 1, what & 2); /* exchanged */
                judge(s, 0);
            }
        }
        for (unsigned what = 1; what < 4; what++) { /* dropped: the rest moves up */
            reset(s);
            for (size_t j = i; j + 1 < n; j++)
                chunk_copy(m, j + 1, j, what & 1, what & 2);
            judge(s, 0);
            if (what & 2)
                memset(cur + entry_off(n - 1), 0, LG_ENTRY_LEN);
            if (n > 1)
                cur_len = (size_t)lg_format_cipher_size(CS, m->size - CS < m->size ? m->size - CS : 0);
            judge(s, 0);
        }
    }
}

/* Parts of other: the file's own past, or another file. */
static void splice_from(const struct subject *s, const struct image *other)
{
    const struct image *m = &s->now;
    size_t n = chunks(m), other_n = other->plain ? chunks(other) : 0;
    for (size_t i = 0; i < n && i < other_n; i++)
        for (unsigned what = 1; what < 4; what++)
            if (interesting(m, i)) {
                reset(s);
                chunk_copy(other, i, i, what & 1, what & 2);
                judge(s, 0);
            }
    for (unsigned from = 0; from < 8; from++) /* runs of sectors of the header */
        for (unsigned to = from + 1; to <= 8; to++)
            for (unsigned cut = 0; cut < 3; cut++) {
                reset(s);
                memcpy(cur + from * LG_SECTOR, other->raw + from * LG_SECTOR, (to - from) * LG_SECTOR);
                if (cut && other->len > cur_len) /* and the length that goes with it: what is new reads as zeros, or is the other's */
                    memcpy(cur + cur_len, other->raw + cur_len, other->len - cur_len);
                if (cut == 1 && other->len > cur_len)
                    memset(cur + cur_len, 0, other->len - cur_len);
                if (cut)
                    cur_len = other->len;
                judge(s, 0);
            }
    for (size_t i = LG_HEAD_ENTRIES; i < n && i < other_n; i += (size_t)lg_format_run(i)) { /* whole tables, alone and with the header */
        size_t len = (size_t)lg_format_run(i) * LG_ENTRY_LEN;
        reset(s);
        memcpy(cur + entry_off(i), other->raw + entry_off(i), len);
        judge(s, 0);
        memcpy(cur, other->raw, LG_HEADER_LEN);
        judge(s, 0);
    }
    for (size_t i = 0; i <= LG_HEADER_LEN; i += LG_SECTOR) { /* a copy that stopped half-way */
        memcpy(cur, other->raw, other->len);
        cur_len = other->len;
        memcpy(cur, m->raw, i);
        judge(s, 0);
    }
    for (unsigned slot = 1; slot <= 2; slot++) {
        static const struct { size_t at, len; } field[] = { { 8, 8 }, { 16, 8 }, { 24, 8 }, { 32, 8 }, { 64, 48 }, { 64, 80 }, { 112, 32 }, { 152, 32 }, { 184, 32 }, { 476, 32 } };
        for (size_t k = 0; k < sizeof field / sizeof *field; k++) {
            size_t at = slot * LG_SECTOR + field[k].at;
            reset(s);
            if (lg_entry_empty(cur + slot * LG_SECTOR))
                continue;
            memcpy(cur + at, other->raw + at, field[k].len);
            if (!memcmp(cur, m->raw, LG_HEADER_LEN))
                continue;
            fix_crc(slot);
            judge(s, 0);
        }
    }
    memcpy(cur, other->raw, other->len); /* all of it */
    cur_len = other->len;
    judge(s, 0);
}

static void from_elsewhere(const struct subject *s)
{
    for (unsigned p = 0; p < s->n_past; p++)
        splice_from(s, &s->past[p]);
    if (s->half.raw)
        splice_from(s, &s->half);
    for (unsigned o = 0; o < n_subject; o++)
        if (&subject[o] != s)
            splice_from(s, &subject[o].now);
}

static void other_keys(const struct subject *s)
{
    static const struct { uint8_t tag, version; } key[] = { { 's', 2 }, { 't', 1 }, { 'g', 1 }, { 'u', 1 }, { 's', 3 } };
    for (unsigned slots = 1; slots < 4; slots++)
        for (unsigned k = 0; k < 5; k++) {
            reset(s);
            for (unsigned n = 0; n < 2; n++) {
                uint8_t *slot = cur + (1 + n) * LG_SECTOR;
                if (!(slots & 1u << n) || lg_entry_empty(slot))
                    continue;
                memset(slot + 40, key[k].tag, LG_ID_LEN);
                slot[56] = key[k].version;
                fix_crc(1 + n);
            }
            judge(s, k > 2 ? -ENOKEY : 0);
        }
    /* The slots in each other's place, and one twice. */
    reset(s);
    memcpy(cur + LG_SECTOR, s->now.raw + 2 * LG_SECTOR, LG_SECTOR);
    judge(s, 0);
    memcpy(cur + 2 * LG_SECTOR, s->now.raw + LG_SECTOR, LG_SECTOR);
    judge(s, 0);
    memcpy(cur + LG_SECTOR, s->now.raw + LG_SECTOR, LG_SECTOR);
    judge(s, 0);
}

static void lengths(const struct subject *s)
{
    size_t len = s->now.len;
    for (size_t at = 0; at <= len; at += LG_SECTOR)
        for (int d = -1; d <= 1; d++) {
            if (at + (size_t)d > len) /* of 0 - 1, too */
                continue;
            reset(s);
            cur_len = at + (size_t)d;
            judge(s, 0);
        }
    reset(s);
    cur_len = len - 1;
    judge(s, 0);
    for (unsigned what = 0; what < 2; what++)
        for (size_t more = 1; more <= 2 * CS + 1; more = more == 1 ? LG_SECTOR - 1 : more == LG_SECTOR - 1 ? LG_SECTOR : more + LG_SECTOR) {
            reset(s);
            memset(cur + len, 0, more);
            if (what)
                memcpy(cur + len, s->now.raw + (len > more ? len - more : 0), more < len ? more : len);
            cur_len = len + more;
            judge(s, 0);
        }
}

static void zeroed(const struct subject *s)
{
    const struct image *m = &s->now;
    size_t tables[3][2] = { { ENTRIES_OFF, LG_HEADER_LEN - ENTRIES_OFF } }, n_tables = 1;
    for (size_t at = 0; at < m->len; at += LG_SECTOR) {
        reset(s);
        memset(cur + at, 0, m->len - at < LG_SECTOR ? m->len - at : LG_SECTOR);
        judge(s, 0);
    }
    for (size_t i = LG_HEAD_ENTRIES; i < chunks(m); i += (size_t)lg_format_run(i), n_tables++) {
        tables[n_tables][0] = entry_off(i);
        tables[n_tables][1] = (size_t)lg_format_run(i) * LG_ENTRY_LEN;
    }
    for (size_t t = 0; t < n_tables; t++) {
        reset(s);
        memset(cur + tables[t][0], 0, tables[t][1]);
        judge(s, 0);
    }
    reset(s);
    memset(cur, 0, LG_HEADER_LEN);
    judge(s, 0);
    memset(cur, 0, m->len);
    judge(s, 0);
    /* Not written as zeros but taken away. */
    for (size_t at = LG_HEADER_LEN / 2; at < m->len; at += CS / 2) {
        if (!interesting(m, at / CS))
            continue;
        reset(s);
        store();
        assert_int_equal(fallocate(diskfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)at, CS), 0);
        memset(cur + at, 0, m->len - at < CS ? m->len - at : CS);
        memcpy(disk + at, cur + at, m->len - at < CS ? m->len - at : CS);
        judge(s, 0);
    }
}

static void test_matrix(void **state)
{
    static const struct { const char *name; void (*run)(const struct subject *); } way[] = {
        { "each byte of the header", each_header_byte }, { "each entry", each_entry }, { "each chunk", each_chunk }, { "parts from elsewhere", from_elsewhere },
        { "another key", other_keys }, { "another length", lengths }, { "zeros and holes", zeroed },
    };
    (void)state;
    vault_open(2);
    make_subjects();
    assert_int_equal(lg_journal_close(env.journal), 0);
    vault_open(3);
    diskfd = openat(dirfd_, "root/x", O_RDWR | O_CREAT | O_EXCL, 0600);
    for (unsigned i = 0; i < n_subject; i++) {
        const struct subject *s = &subject[i];
        doing = "nothing changed";
        reset(s);
        store();
        struct lg_file *f;
        static uint8_t all[RAW_MAX];
        n_found = 0;
        assert_int_equal(lower_open(&f), 0);
        assert_int_equal(lg_file_read(f, all, sizeof all, 0), s->now.size);
        assert_memory_equal(all, s->now.plain, s->now.size);
        assert_int_equal(n_found, 0);
        lg_file_free(f);
        for (size_t k = 0; k < sizeof way / sizeof *way; k++) {
            doing = way[k].name;
            way[k].run(s);
        }
    }
    print_message("%u changes: %u refused at open, %u noticed by reading the chunks concerned\n", cases, refused, partly);
    assert_int_equal(wrong, 0);
    for (unsigned r = 0; r < REASONS; r++) {
        print_message("not noticed, %s: %u\n", not_detectable[r], undetected[r]);
        assert_true(undetected[r] > 0); /* else it is no reason */
    }
    assert_int_equal(lg_journal_close(env.journal), 0);
    close(diskfd);
    for (struct subject *s = subject; s < subject + n_subject; s++) {
        free(s->now.raw), free(s->now.plain), free(s->half.raw);
        for (unsigned p = 0; p < s->n_past; p++)
            free(s->past[p].raw), free(s->past[p].plain);
    }
}

static void test_documented(void **state)
{
    static char text[65536];
    (void)state;
    int fd = open(THREAT_MODEL, O_RDONLY);
    assert_true(fd >= 0);
    assert_true(read(fd, text, sizeof text - 1) > 0);
    close(fd);
    for (unsigned r = 0; r < REASONS; r++)
        if (!strstr(text, not_detectable[r]))
            fail_msg("the threat model does not say: %s", not_detectable[r]);
}

/* A table so large that its holes are skipped, not read. */
static void test_large_table(void **state)
{
    enum { LAST = 4500 };
    static const size_t data[] = { 0, 4048, 4049, 4300, LAST - 1 };
    uint8_t plain[CS], got[CS], zero[LG_HEADER_LEN] = { 0 };
    struct lg_file *f;
    (void)state;
    vault_open(2);
    memset(plain, 'p', sizeof plain);
    assert_int_equal(lg_file_create(&env, openat(dirfd_, "root/big", O_RDWR | O_CREAT | O_EXCL, 0600), "big", &f), 0);
    for (size_t k = 0; k < 5; k++)
        assert_int_equal(lg_file_write(f, plain, sizeof plain, data[k] * CS), 0);
    lg_file_free(f);
    assert_int_equal(lg_journal_close(env.journal), 0);
    vault_open(3);
    int fd = openat(dirfd_, "root/big", O_RDWR);
    for (unsigned what = 0; what < 5; what++)
        for (size_t k = 0; k < 6; k++) {
            uint8_t page[LG_HEADER_LEN];
            size_t i = k < 5 ? data[k] : 8000; /* not used: behind the last */
            off_t at = (off_t)(entry_off(i) / LG_HEADER_LEN * LG_HEADER_LEN);
            assert_int_equal(pread(fd, page, sizeof page, at), sizeof page);
            if (what == 0)
                assert_int_equal(pwrite(fd, k < 5 ? zero : plain, LG_ENTRY_LEN, (off_t)entry_off(i)), LG_ENTRY_LEN);
            else if (what == 1)
                assert_int_equal(pwrite(fd, "?", 1, (off_t)entry_off(i)), 1);
            else if (what == 2)
                assert_int_equal(pwrite(fd, "?", 1, (off_t)entry_off(i) + LG_ENTRY_LEN - 1), 1);
            else if (what == 3 && k < 5)
                assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, at, LG_HEADER_LEN), 0);
            else
                assert_int_equal(pwrite(fd, plain, LG_ENTRY_LEN, (off_t)(entry_off(i) ^ 8 * LG_ENTRY_LEN)), LG_ENTRY_LEN);
            n_found = 0;
            int rc = lg_file_open(&env, openat(dirfd_, "root/big", O_RDWR), "big", &f);
            assert_int_equal(rc, -EBADMSG);
            assert_int_equal(n_found, 1);
            assert_int_equal(pwrite(fd, page, sizeof page, at), sizeof page);
        }
    n_found = 0;
    assert_int_equal(lg_file_open(&env, openat(dirfd_, "root/big", O_RDWR), "big", &f), 0);
    for (size_t k = 0; k < 5; k++) {
        assert_int_equal(lg_file_read(f, got, CS, data[k] * CS), CS);
        assert_memory_equal(got, plain, CS);
    }
    assert_int_equal(n_found, 0);
    lg_file_free(f);
    close(fd);
    assert_int_equal(lg_journal_close(env.journal), 0);
}

/* Writing into a damaged chunk does not bless what is left of it; a chunk written whole is good again. */
static void test_write_over(void **state)
{
    uint8_t plain[3 * CS], got[3 * CS], x;
    struct lg_file *f;
    (void)state;
    vault_open(2);
    memset(plain, 'p', sizeof plain);
    assert_int_equal(lg_file_create(&env, openat(dirfd_, "root/x", O_RDWR | O_CREAT | O_EXCL, 0600), "x", &f), 0);
    assert_int_equal(lg_file_write(f, plain, sizeof plain - 7, 0), 0);
    lg_file_free(f);
    assert_int_equal(lg_journal_close(env.journal), 0);
    vault_open(3);
    int fd = openat(dirfd_, "root/x", O_RDWR);
    for (size_t i = 1; i < 3; i++) {
        assert_int_equal(pread(fd, &x, 1, (off_t)chunk_off(i) + 9), 1);
        x ^= 4;
        assert_int_equal(pwrite(fd, &x, 1, (off_t)chunk_off(i) + 9), 1);
    }
    assert_int_equal(lower_open(&f), 0);
    assert_int_equal(lg_file_write(f, "new", 3, CS + 100), -EBADMSG);
    assert_int_equal(lg_file_write(f, "new", 3, sizeof plain), -EBADMSG);    /* would seal the last chunk anew, longer */
    assert_int_equal(lg_file_truncate(f, sizeof plain - 100), -EBADMSG);     /* and shorter */
    assert_int_equal(lg_file_truncate(f, sizeof plain + 100), -EBADMSG);
    assert_int_equal(lg_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, CS + 5, 10), -EBADMSG);
    assert_int_equal(lg_file_size(f), sizeof plain - 7);
    lg_file_free(f);
    assert_int_equal(lower_open(&f), 0);
    assert_int_equal(lg_file_read(f, got, CS, 0), CS);
    assert_int_equal(lg_file_read(f, got, CS, CS), -EBADMSG);
    assert_int_equal(lg_file_write(f, plain, 2 * CS, CS), 0);
    lg_file_free(f);
    assert_int_equal(lower_open(&f), 0);
    assert_int_equal(lg_file_read(f, got, sizeof got, 0), sizeof plain);
    assert_memory_equal(got, plain, sizeof plain);
    lg_file_free(f);
    close(fd);
    assert_int_equal(lg_journal_close(env.journal), 0);
}

/* A later session that ended uncleanly explains neither a damaged table nor a damaged slot of a commit that was durable before: going back to the commit
 * before it, often that of the empty file, would make a loss of the damage. */
static void test_no_excuse(void **state)
{
    static uint8_t plain[90 * CS], got[90 * CS];
    static const size_t at[] = { ENTRIES_OFF + 3 * LG_ENTRY_LEN, 2 * LG_SECTOR + 100, 2 * LG_SECTOR + 508, 0 };
    uint64_t later[1] = { 9 };
    struct lg_file *f;
    size_t len;
    (void)state;
    vault_open(2);
    assert_int_equal(lg_file_create(&env, openat(dirfd_, "root/x", O_RDWR | O_CREAT | O_EXCL, 0600), "x", &f), 0);
    assert_int_equal(lg_file_commit(f), 0); /* the empty commit */
    memset(plain, 'p', sizeof plain);
    assert_int_equal(lg_file_write(f, plain, sizeof plain, 0), 0);
    lg_file_free(f);
    assert_int_equal(lg_journal_close(env.journal), 0);
    uint8_t *now = lower("root/x", &len);
    vault_open(10);
    env.unclean = later;
    int fd = openat(dirfd_, "root/x", O_RDWR);
    for (size_t k = 0; k < 5; k++) {
        size_t a = k < 4 ? (at[k] ? at[k] : entry_off(85)) : chunk_off(7);
        uint8_t x = now[a] ^ 1;
        assert_int_equal(pwrite(fd, &x, 1, (off_t)a), 1);
        if (k < 4) {
            assert_int_equal(lower_open(&f), -EBADMSG);
            size_t after;
            uint8_t *b = lower("root/x", &after);
            assert_int_equal(after, len);
            assert_int_equal(b[a], x);
            free(b);
        } else { /* a chunk: the others read */
            assert_int_equal(lower_open(&f), 0);
            assert_int_equal(lg_file_read(f, got, CS, 7 * CS), -EBADMSG);
            assert_int_equal(lg_file_read(f, got, CS, 8 * CS), CS);
            lg_file_free(f);
        }
        assert_int_equal(pwrite(fd, now + a, 1, (off_t)a), 1);
    }
    /* Bytes behind the end are what such a session leaves. */
    assert_int_equal(pwrite(fd, plain, 100, (off_t)len), 100);
    assert_int_equal(lower_open(&f), 0);
    assert_int_equal(lg_file_read(f, got, sizeof got, 0), sizeof plain);
    assert_memory_equal(got, plain, sizeof plain);
    lg_file_free(f);
    close(fd);
    free(now);
    env.unclean = unclean;
    assert_int_equal(lg_journal_close(env.journal), 0);
}

/* The journal has no key: whatever is put in it, files are right or refused. An old one, replayed after a clean end, changes nothing. */
static void test_journal(void **state)
{
    static uint8_t plain[8 * CS], got[8 * CS];
    struct lg_file *f;
    size_t len;
    (void)state;
    vault_open(2);
    memset(plain, 'a', sizeof plain);
    assert_int_equal(lg_file_create(&env, openat(dirfd_, "root/x", O_RDWR | O_CREAT | O_EXCL, 0600), "x", &f), 0);
    assert_int_equal(lg_file_write(f, plain, sizeof plain, 0), 0);
    assert_int_equal(lg_file_sync(f), 0);
    uint8_t *old[2];
    for (unsigned k = 0; k < 2; k++) {
        memset(plain + (k + 1) * CS, 'b' + (int)k, 2 * CS);
        assert_int_equal(lg_file_write(f, plain + (k + 1) * CS, 2 * CS, (k + 1) * CS), 0);
        assert_int_equal(lg_file_sync(f), 0);
        old[k] = lower(LG_JOURNAL_NAME, &len); /* holds a record that is not in place yet */
    }
    memset(plain + 2 * CS, 'd', CS);
    assert_int_equal(lg_file_write(f, plain + 2 * CS, CS, 2 * CS), 0);
    lg_file_free(f);
    assert_int_equal(lg_journal_close(env.journal), 0);
    uint8_t *last = lower(LG_JOURNAL_NAME, &len);
    int fd = openat(dirfd_, LG_JOURNAL_NAME, O_RDWR);
    unsigned replayed = 0, bad = 0;
    for (unsigned k = 0; k < 3; k++) {
        const uint8_t *from = k < 2 ? old[k] : last;
        size_t used = 4096 + 16 * CS;
        /* As it was, and with any of its bytes changed. */
        for (size_t at = 0; at <= used; at = at == used ? used + 1 : at + 173 > used ? used : at + 173) {
            assert_int_equal(pwrite(fd, from, used + 4096, 0), used + 4096); /* where its areas were written to */
            assert_int_equal(pwrite(fd, from + 4096 + (16u << 20), used, 4096 + (16u << 20)), used);
            if (at < used) {
                uint8_t x = from[at] ^ 0x20;
                assert_int_equal(pwrite(fd, &x, 1, (off_t)at), 1);
            }
            env.session = 3;
            int rc = lg_journal_open(&lg_sys_posix, dirfd_, env.vault_id, false, &env.journal);
            if (rc) {
                assert_true(at < used);
                bad++;
                continue;
            }
            replayed++;
            assert_int_equal(lower_open(&f), 0);
            assert_int_equal(lg_file_read(f, got, sizeof got, 0), sizeof got);
            assert_memory_equal(got, plain, sizeof got);
            lg_file_free(f);
            assert_int_equal(lg_journal_close(env.journal), 0);
        }
    }
    print_message("journals of the past and damaged ones: %u harmless, %u refused\n", replayed, bad);
    assert_true(bad > 0);
    close(fd);
    free(old[0]), free(old[1]), free(last);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_matrix, vault_new, vault_end),      cmocka_unit_test_setup_teardown(test_large_table, vault_new, vault_end),
        cmocka_unit_test_setup_teardown(test_write_over, vault_new, vault_end), cmocka_unit_test_setup_teardown(test_journal, vault_new, vault_end),
        cmocka_unit_test_setup_teardown(test_no_excuse, vault_new, vault_end),   cmocka_unit_test(test_documented),
    };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
