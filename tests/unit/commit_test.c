/* What stands below after every commit: random sequences of changes to one file, at sizes around the boundaries of the format, with checkpoints in the middle
 * of commits and errors from below half-way. After each commit that succeeded,
 *  - once it is in place, a reader of a later session, with nothing to excuse, finds exactly what the model says;
 *  - at any call below, were the process to end there, recovery finds the last commit or the one under way, and its result opens strictly, too.
 * LG_COMMIT_SEED, LG_COMMIT_SECONDS for longer runs. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
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

enum { CS = 4096, CHUNKS = 640, MAX = CHUNKS * CS, COPY = 1024 * 1024, SAID = 64 };
enum { AREA = 16 * 1024 * 1024 };

/* ---- the vault, and a second one that its files are copied to as a crash of the process would leave them -------------------------------- */

static char dir[64], twin[64];
static int dirfd_, twinfd, jfd_twin;
static struct lg_keys keys;
static struct lg_file_env env;
static uint64_t unclean[1];
static struct lg_suspects *suspects;
static struct lg_file *f;
static char findings[SAID][100];
static unsigned n_findings;

static uint64_t seed, rng;
static uint64_t rnd(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}
static uint64_t pick(uint64_t n) { return rnd() % n; }

/* ---- what was done, for a report ----------------------------------------------------------------------------------------------------------- */
static char did[SAID][100];
static unsigned n_did;
static void say(const char *fmt, ...) LG_PRINTF(1, 2);
static void say(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(did[n_did++ % SAID], sizeof *did, fmt, ap);
    va_end(ap);
}
static void broken(const char *what, long long a, long long b)
{
    for (unsigned i = n_did > SAID ? n_did - SAID : 0; i < n_did; i++)
        fprintf(stderr, "  %s\n", did[i % SAID]);
    for (unsigned i = 0; i < n_findings && i < SAID; i++)
        fprintf(stderr, "  finding: %s\n", findings[i]);
    fail_msg("seed %llu: %s (%lld, %lld)", (unsigned long long)seed, what, a, b);
}
#define CHECK(cond, what, a, b)                              \
    do {                                                     \
        if (!(cond))                                         \
            broken(what, (long long)(a), (long long)(b));    \
    } while (0)

static void on_finding(void *arg, const struct lg_finding *x)
{
    (void)arg;
    if (strcmp(x->kind, "bytes that decided the study were rewritten") == 0)
        return;
    snprintf(findings[n_findings++ % SAID], sizeof *findings, "%s", x->kind);
}

/* ---- calls below: at the at-th that changes something an error, a checkpoint, or a look at what the end of the process would leave ---------- */

static struct {
    enum { NOTHING, CHECKPOINT, ERROR, PART, LOOK } what;
    int error;
    unsigned at, times; /* times: errors one after the other */
    unsigned calls, errors;
    bool inside, placing; /* placing: a checkpoint is under way; another would wait for it */
} hook;
static void killed(const char *when);

static int jfd = -1;

/* True: the call fails with hook.error. *ret_part: after half of it. */
static bool meets(int fd, bool needs_space, bool *ret_part)
{
    *ret_part = false;
    if (hook.what == NOTHING || hook.inside || (hook.error == -ENOSPC && !needs_space && (hook.what == ERROR || hook.what == PART)))
        return false;
    if (hook.what == CHECKPOINT && (fd == jfd || hook.placing)) /* the journal's own lock is held */
        return false;
    unsigned n = hook.calls++;
    if (n < hook.at || n >= hook.at + hook.times)
        return false;
    hook.errors += hook.what == ERROR || hook.what == PART;
    hook.inside = true;
    if (hook.what == CHECKPOINT) {
        say("  checkpoint at call %u", n);
        CHECK(lg_journal_checkpoint(env.journal) == 0, "checkpoint", 0, 0);
    } else if (hook.what == LOOK) {
        killed("in the middle");
    }
    hook.inside = false;
    *ret_part = hook.what == PART;
    return hook.what == ERROR || hook.what == PART;
}

/* Of all of it, not of the first buffer: a header and a part of its chunk as well. */
static void first_half(int fd, const struct iovec *iov, int n, off_t off)
{
    size_t left = 0;
    for (int k = 0; k < n; k++)
        left += iov[k].iov_len;
    left = left / 2 / LG_SECTOR * LG_SECTOR;
    for (int k = 0; k < n && left; k++) {
        size_t len = iov[k].iov_len < left ? iov[k].iov_len : left;
        assert_int_equal(pwrite(fd, iov[k].iov_base, len, off), len);
        off += (off_t)len;
        left -= len;
    }
}

static ssize_t h_pwritev(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    bool part;
    if (fd == jfd && (off - LG_HEADER_LEN) % AREA == 0) /* the header of an area */
        hook.placing = true;
    bool bad = meets(fd, true, &part);
    if (bad && part)
        first_half(fd, iov, n, off);
    ssize_t w = bad ? hook.error : lg_sys_posix.pwritev(arg, fd, iov, n, off);
    if (fd == jfd && w > 0)
        assert_int_equal(pwrite(jfd_twin, iov[0].iov_base, (size_t)w, off), w); /* n is 1 */
    return w;
}
static ssize_t h_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    if (fd == jfd) /* a record that is to be put in place */
        hook.placing = true;
    return lg_sys_posix.pread(arg, fd, buf, len, off);
}
static int h_fdatasync(void *arg, int fd)
{
    bool part;
    return meets(fd, false, &part) ? hook.error : lg_sys_posix.fdatasync(arg, fd);
}
static int h_ftruncate(void *arg, int fd, off_t len)
{
    bool part;
    return meets(fd, false, &part) ? hook.error : lg_sys_posix.ftruncate(arg, fd, len);
}
static int h_fallocate(void *arg, int fd, int mode, off_t off, off_t len)
{
    bool part;
    return meets(fd, !(mode & FALLOC_FL_PUNCH_HOLE), &part) ? hook.error : lg_sys_posix.fallocate(arg, fd, mode, off, len);
}
static struct lg_sys sys;

static void arm(int what, unsigned at, unsigned times, int error)
{
    hook.what = what;
    hook.at = at;
    hook.times = times;
    hook.error = error;
    hook.calls = hook.errors = 0;
    hook.placing = false;
}
static void disarm(void) { hook.what = NOTHING; }
static void no_hook(void) { arm(NOTHING, 0, 0, 0); }

static void make_vault(char path[64], int *ret_fd)
{
    snprintf(path, 64, "%s/lgcommit-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    assert_non_null(mkdtemp(path));
    *ret_fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(mkdirat(*ret_fd, "root", 0700), 0);
    assert_int_equal(lg_journal_create(&lg_sys_posix, *ret_fd, env.vault_id), 0);
}

static void end_vault(const char *path, int fd)
{
    unlinkat(fd, "root/f", 0);
    unlinkat(fd, "root/g", 0);
    unlinkat(fd, "root", AT_REMOVEDIR);
    unlinkat(fd, LG_JOURNAL_NAME, 0);
    close(fd);
    rmdir(path);
}

/* The journal's descriptor, which the backend has to know. */
static int descriptor_of(const char *name)
{
    struct stat want, st;
    assert_int_equal(fstatat(dirfd_, name, &want, 0), 0);
    for (int fd = 3; fd < 100; fd++)
        if (!fstat(fd, &st) && st.st_ino == want.st_ino && st.st_dev == want.st_dev)
            return fd;
    return -1;
}

static int setup(void **state)
{
    (void)state;
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    sys = lg_sys_posix;
    sys.pread = h_pread;
    sys.pwritev = h_pwritev;
    sys.fdatasync = h_fdatasync;
    sys.ftruncate = h_ftruncate;
    sys.fallocate = h_fallocate;
    suspects = lg_suspects_new();
    env = (struct lg_file_env){ .sys = &sys, .keys = &keys, .chunk_size = CS, .session = 2, .unclean = unclean, .finding = on_finding, .suspects = suspects };
    memset(env.vault_id, 'v', LG_ID_LEN);
    make_vault(dir, &dirfd_);
    make_vault(twin, &twinfd);
    jfd_twin = openat(twinfd, LG_JOURNAL_NAME, O_RDWR);
    assert_int_equal(lg_journal_open(&sys, dirfd_, env.vault_id, false, &env.journal), 0);
    jfd = descriptor_of(LG_JOURNAL_NAME);
    assert_true(jfd >= 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    int rc = lg_journal_close(env.journal);
    close(jfd_twin);
    end_vault(dir, dirfd_);
    end_vault(twin, twinfd);
    lg_suspects_free(suspects);
    return rc;
}

/* ---- the model ----------------------------------------------------------------------------------------------------------------------------- */

struct plain {
    uint64_t size;
    bool there; /* false: never committed */
    uint8_t b[MAX + 1];
};
static struct plain now, committed, trying; /* trying: what a commit under way, or one that failed, would make of it */
static bool tried;
enum { ATTEMPTS = 24 }; /* commits that failed since the last that did not: each may have come to stand below */
static struct plain attempt[ATTEMPTS];
static unsigned n_attempts;
static uint8_t got[MAX + 8];

static void copy(struct plain *to, const struct plain *from)
{
    if (to->size > from->size)
        memset(to->b + from->size, 0, to->size - from->size);
    memcpy(to->b, from->b, from->size);
    to->size = from->size;
    to->there = true;
}

static bool is(const struct plain *p, ssize_t n) { return p->there && n == (ssize_t)p->size && memcmp(got, p->b, p->size) == 0; }

static void check(const char *when)
{
    uint64_t size = lg_file_size(f);
    CHECK(size == now.size, when, size, now.size);
    ssize_t n = lg_file_read(f, got, sizeof got, 0);
    CHECK(n == (ssize_t)now.size, when, n, now.size);
    for (uint64_t i = 0; i < now.size; i++)
        CHECK(got[i] == now.b[i], when, i, now.size);
}

static const struct plain *found(ssize_t n)
{
    if (is(&committed, n))
        return &committed;
    if (tried && is(&trying, n))
        return &trying;
    for (unsigned i = 0; i < n_attempts; i++)
        if (is(&attempt[i], n))
            return &attempt[i];
    return NULL;
}

/* A reader that knows of no crash. */
static ssize_t strictly(int at, uint64_t session)
{
    struct lg_file_env e = env;
    struct lg_file *g;
    e.session = session;
    e.journal = NULL;
    e.n_unclean = 0;
    e.read_only = true;
    e.suspects = NULL;
    e.sys = &lg_sys_posix;
    int rc = lg_file_open(&e, openat(at, "root/f", O_RDONLY), "f", &g);
    if (rc)
        return rc;
    ssize_t n = lg_file_read(g, got, sizeof got, 0);
    lg_file_free(g);
    return n;
}

static void strict(void)
{
    ssize_t n = strictly(dirfd_, env.session + 1);
    CHECK(is(&now, n), "in place, and strictly", n, now.size);
}

static void copy_file(int from, int to)
{
    static uint8_t buf[COPY];
    off_t at = 0;
    struct stat st;
    assert_int_equal(fstat(from, &st), 0);
    assert_int_equal(ftruncate(to, 0), 0);
    assert_int_equal(ftruncate(to, st.st_size), 0);
    while (at < st.st_size) {
        off_t data = lseek(from, at, SEEK_DATA);
        if (data < 0)
            break;
        ssize_t n = pread(from, buf, sizeof buf, data);
        assert_true(n > 0);
        assert_int_equal(pwrite(to, buf, (size_t)n, data), n);
        at = data + n;
    }
}

/* The process ends here: what does the next one find? */
static void killed(const char *when)
{
    struct lg_file_env e = env;
    struct lg_file *g;
    uint64_t session[1] = { env.session };
    uint8_t head[LG_HEADER_LEN];
    unsigned had = n_findings;
    int from = openat(dirfd_, "root/f", O_RDONLY), to = openat(twinfd, "root/f", O_RDWR | O_CREAT, 0600);
    copy_file(from, to);
    close(from);
    close(to);
    for (unsigned a = 0; a < 2; a++) {
        off_t off = LG_HEADER_LEN + (off_t)a * AREA;
        assert_int_equal(pread(jfd, head, sizeof head, off), sizeof head);
        assert_int_equal(pwrite(jfd_twin, head, sizeof head, off), sizeof head);
    }
    e.sys = &lg_sys_posix;
    e.session++;
    e.unclean = session;
    e.n_unclean = 1;
    e.suspects = NULL;
    int rc = lg_journal_open(&lg_sys_posix, twinfd, env.vault_id, false, &e.journal);
    CHECK(rc == 0, when, rc, 0);
    rc = lg_file_open(&e, openat(twinfd, "root/f", O_RDWR), "f", &g);
    ssize_t n = rc ? rc : lg_file_read(g, got, sizeof got, 0);
    if (!rc)
        lg_file_free(g);
    assert_int_equal(lg_journal_close(e.journal), 0);
    bool none = !committed.there && n == -EBADMSG;
    const struct plain *which = found(n);
    CHECK(none || which, when, n, committed.size);
    if (!none) {
        n = strictly(twinfd, env.session + 2);
        CHECK(is(which, n), "recovered, and strictly", n, committed.size);
    }
    n_findings = had;
}

/* ---- changes ------------------------------------------------------------------------------------------------------------------------------- */

static const uint16_t edge[] = { 0, 1, 2, 3, 15, 16, 17, 79, 80, 81, 95, 96, 97, 206, 207, 208, 209, 335, 336, 337, 463, 464, 465, 520, 591, 592, 593, CHUNKS };
static unsigned edges; /* of them that this run uses */

static uint64_t place(void)
{
    uint64_t chunk = pick(4) ? edge[pick(edges)] : pick(edge[edges - 1] + 1), at = chunk * CS;
    switch (pick(6)) {
    case 0: at += pick(CS); break;
    case 1: at += 1; break;
    case 2: at -= at ? 1 : 0; break;
    default: break;
    }
    return at < MAX ? at : MAX;
}

static bool failed(int rc, const char *what)
{
    CHECK(rc == 0 || hook.errors, what, rc, 0);
    return rc != 0;
}

/* A change failed half-way: outside of from .. to-1 nothing is other than before, and in there it is old or new. */
static void settle(const struct plain *want, uint64_t from, uint64_t to)
{
    ssize_t n = lg_file_read(f, got, sizeof got, 0);
    CHECK(n >= 0, "read after a change that failed", n, 0);
    for (uint64_t i = 0; i < (uint64_t)n; i++) {
        uint8_t old = i < now.size ? now.b[i] : 0;
        CHECK(got[i] == old || (i >= from && i < to && (got[i] == want->b[i] || !got[i])), "a change that failed did more", i, now.size);
    }
    CHECK((uint64_t)n == now.size || (uint64_t)n == want->size || ((uint64_t)n >= now.size && (uint64_t)n <= want->size), "size after a change that failed", n, now.size);
    if ((uint64_t)n < now.size)
        memset(now.b + n, 0, now.size - (uint64_t)n);
    memcpy(now.b, got, (size_t)n);
    now.size = (uint64_t)n;
}

static struct plain want;

static void write_at(uint64_t off, uint64_t len, bool append)
{
    static uint8_t buf[MAX];
    if (append)
        off = now.size;
    if (off + len > MAX)
        len = MAX - off;
    for (uint64_t i = 0; i < len; i += 8) {
        uint64_t r = rnd();
        memcpy(buf + i, &r, len - i < 8 ? len - i : 8);
    }
    say("%s %llu+%llu of %llu", append ? "append" : "write", (unsigned long long)off, (unsigned long long)len, (unsigned long long)now.size);
    int rc = lg_file_write(f, buf, len, off);
    copy(&want, &now);
    memcpy(want.b + off, buf, len);
    if (len && off + len > want.size)
        want.size = off + len;
    disarm();
    if (failed(rc, "write"))
        settle(&want, off, off + len);
    else
        copy(&now, &want);
}

static void cut_at(uint64_t size)
{
    say("truncate %llu of %llu", (unsigned long long)size, (unsigned long long)now.size);
    int rc = lg_file_truncate(f, size);
    copy(&want, &now);
    if (size < want.size)
        memset(want.b + size, 0, want.size - size);
    want.size = size;
    disarm();
    if (failed(rc, "truncate"))
        settle(&want, size < now.size ? size : now.size, MAX);
    else
        copy(&now, &want);
}

static void zero_at(uint64_t off, uint64_t len, int mode)
{
    bool keep = mode & FALLOC_FL_KEEP_SIZE;
    if (off + len > MAX)
        len = MAX - off;
    if (!len)
        return;
    say("fallocate %d %llu+%llu of %llu", mode, (unsigned long long)off, (unsigned long long)len, (unsigned long long)now.size);
    int rc = lg_file_fallocate(f, mode, off, len);
    copy(&want, &now);
    uint64_t end = off + len;
    if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE) && off < want.size)
        memset(want.b + off, 0, (end < want.size ? end : want.size) - off);
    if (end > want.size && !keep)
        want.size = end;
    disarm();
    if (failed(rc, "fallocate"))
        settle(&want, off, end);
    else
        copy(&now, &want);
}

static bool commit(bool sync)
{
    copy(&trying, &now);
    tried = true;
    say(sync ? "sync" : "commit");
    int rc = sync ? lg_file_sync(f) : lg_file_commit(f);
    disarm();
    if (failed(rc, "commit")) {
        say("  failed: %d", rc);
        if (n_attempts < ATTEMPTS)
            copy(&attempt[n_attempts++], &trying);
        return false;
    }
    copy(&committed, &now);
    tried = false;
    n_attempts = 0;
    return true;
}

static bool checkpoint(void)
{
    say("checkpoint");
    int rc = lg_journal_checkpoint(env.journal);
    disarm();
    return !failed(rc, "checkpoint");
}

/* Closed and opened again. What was not committed may be gone if an error is met; then something is there that a commit made. */
static void reopen(bool error)
{
    copy(&trying, &now);
    tried = true;
    say(error ? "close with an error" : "close");
    lg_file_free(f);
    f = NULL;
    bool hit = hook.errors != 0;
    disarm();
    int rc = lg_file_open(&env, openat(dirfd_, "root/f", O_RDWR), "f", &f);
    if (rc == -EBADMSG && !committed.there && hit) { /* nothing of it was ever there */
        f = NULL;
        return;
    }
    CHECK(rc == 0, "open", rc, hit);
    ssize_t n = lg_file_read(f, got, sizeof got, 0);
    const struct plain *which = found(n);
    CHECK(which && (hit || is(&trying, n)), "opened again", n, committed.size);
    copy(&now, which);
    copy(&committed, &now);
    tried = false;
    n_attempts = 0;
}

/* What was not committed is committed or given up. With an error, or after a commit that failed, something is there that a commit made. */
static void drop_keys(bool discard)
{
    copy(&trying, &now);
    tried = true;
    say(discard ? "drop keys, discarding" : "drop keys");
    lg_file_drop_keys(f, discard);
    bool hit = hook.errors != 0;
    disarm();
    ssize_t n = lg_file_read(f, got, sizeof got, 0);
    if (n < 0 && !committed.there && (hit || discard)) { /* nothing of it was ever there */
        lg_file_free(f);
        f = NULL;
        return;
    }
    const struct plain *which = found(n);
    CHECK(which && (hit || n_attempts || is(discard ? &committed : &trying, n)), "after the keys were dropped", n, committed.size);
    copy(&now, which);
    copy(&committed, &now);
    tried = false;
    n_attempts = 0;
}

static int put_in_place(void *arg) { return (void)arg, renameat(dirfd_, "root/g", dirfd_, "root/f") ? -errno : 0; }

static void reencrypt(void)
{
    struct lg_kref *as;
    uint64_t seq;
    say("re-encrypt");
    assert_int_equal(lg_keys_general(&keys, &as), 0);
    int rc = lg_file_recrypt(f, as, openat(dirfd_, "root/g", O_RDWR | O_CREAT | O_TRUNC, 0600), &seq);
    lg_kref_unref(as);
    CHECK(rc == 0, "recrypt", rc, 0);
    rc = lg_file_switch(f, openat(dirfd_, "root/g", O_RDWR), seq, put_in_place, NULL);
    CHECK(rc == 0, "switch", rc, 0);
    copy(&committed, &now);
    tried = false;
    n_attempts = 0;
}

static void maybe_hook(bool errors)
{
    unsigned at = (unsigned)pick(pick(2) ? 4 : 14);
    no_hook();
    switch (pick(errors ? 7 : 4)) {
    case 0: arm(CHECKPOINT, at, 1, 0); break;
    case 1: arm(LOOK, at, 1, 0); break;
    case 2: case 3: break;
    default: arm(pick(2) ? ERROR : PART, at, pick(3) ? 1 : 1000, pick(2) ? -EIO : -ENOSPC);
    }
    if (hook.what != NOTHING)
        say("  hook %d at %u, %u times, %d", hook.what, hook.at, hook.times, hook.error);
}

/* A new file, empty, of which nothing is committed. */
static void begin_with(uint64_t start, uint64_t random)
{
    seed = start;
    rng = random;
    n_did = n_findings = 0;
    now.there = true;
    committed.there = tried = false;
    n_attempts = 0;
    memset(now.b, 0, now.size);
    now.size = 0;
    env.session += 5;
    unlinkat(dirfd_, "root/f", 0);
    assert_int_equal(lg_file_create(&env, openat(dirfd_, "root/f", O_RDWR | O_CREAT | O_EXCL, 0600), "f", &f), 0);
}

static void run(uint64_t start, bool errors)
{
    begin_with(start, start * 0x9E3779B97F4A7C15ull | 1);
    edges = 3 + (unsigned)pick(sizeof edge / sizeof *edge - 2);
    for (unsigned s = 0; f && s < 60; s++) {
        uint64_t a = place(), b = place();
        maybe_hook(errors);
        switch (pick(20)) {
        case 0: case 1: write_at(a, 1 + pick(3 * CS), false); break;
        case 2: case 3: write_at(a, b > a ? b - a : 1, false); break;
        case 4: write_at(0, 1 + pick(2 * CS), true); break;
        case 5: write_at(0, b, true); break;
        case 6: case 7: case 8: cut_at(a); break;
        case 9: no_hook(); write_at(a, b > a ? b - a : 1, false); cut_at(b < now.size ? b : now.size); break;
        case 10: zero_at(a, b > a ? b - a : 1 + pick(3 * CS), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE); break;
        case 11: zero_at(a, b > a ? b - a : 1 + pick(3 * CS), FALLOC_FL_ZERO_RANGE | (pick(2) ? FALLOC_FL_KEEP_SIZE : 0)); break;
        case 12: zero_at(a, b > a ? b - a : 1, pick(2) ? FALLOC_FL_KEEP_SIZE : 0); break;
        case 13: case 14: commit(false); break;
        case 15: commit(true); break;
        case 16: checkpoint(); break;
        case 17:
            reopen(hook.what != NOTHING);
            break;
        case 18:
            if (pick(3)) {
                drop_keys(pick(2));
                break;
            }
            no_hook();
            if (commit(false) && checkpoint()) {
                reencrypt();
            }
            break;
        default:
            no_hook();
            if (commit(pick(2)) && checkpoint())
                strict();
            break;
        }
        no_hook();
        if (!f)
            break;
        if (s % 4 == 0)
            check("after a step");
        if (s % 8 == 0)
            killed("after a step");
    }
    no_hook();
    if (f) {
        CHECK(commit(true), "the last commit", 0, 0);
        check("in the end");
        CHECK(checkpoint(), "the last checkpoint", 0, 0);
        strict();
        killed("in the end");
        if (!errors)
            CHECK(n_findings == 0, "findings", n_findings, 0);
        lg_file_free(f);
        strict();
    }
    f = NULL;
}

/* ---- sequences that were wrong once ---------------------------------------------------------------------------------------------------------- */

static void begin(void)
{
    no_hook();
    begin_with(4711, 4711);
}

static void end(void)
{
    CHECK(commit(true), "commit", 0, 0);
    CHECK(checkpoint(), "checkpoint", 0, 0);
    check("in place");
    strict();
    lg_file_free(f);
    strict();
    f = NULL;
}

/* Entries that no commit has seen go, and others come in their place, before a commit that also changes what was committed: its record must not take the new
 * ones away. */
static void test_refilled(void **state)
{
    (void)state;
    begin();
    write_at(0, 1000, false);
    CHECK(commit(true), "commit", 0, 0);
    write_at(1000, 300 * CS, false);
    cut_at(5000);
    write_at(5000, 300 * CS, false);
    end();
}

/* A commit fails when it has written tables; what they describe is cut off again. In the region of what is kept no entry of it may be left. */
static void test_failed_and_cut(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 8; at++)
        for (unsigned how = 0; how < 6; how++) {
            begin();
            write_at(0, 250 * CS - (how < 3 ? 0 : 100), false);
            CHECK(commit(true), "commit", 0, 0);
            write_at(now.size, (how % 3 == 0 ? 100 : 300) * CS, false);
            arm(ERROR, at, 1000, -EIO);
            commit(false);
            no_hook();
            cut_at(how % 3 == 2 ? 470 * CS : 251 * CS);
            if (how % 3 == 2)
                zero_at(300 * CS, 165 * CS, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE);
            end();
        }
}

/* A commit fails half-way, and then the key is revoked: what is left of the file must be what was committed, and no damage. */
static void test_failed_and_dropped(void **state)
{
    (void)state;
    for (unsigned at = 0; at < 10; at++)
        for (unsigned how = 0; how < 16; how++) {
            begin();
            write_at(0, 250 * CS - (how & 1 ? 100 : 0), false);
            CHECK(commit(true), "commit", 0, 0);
            if (how & 2)
                CHECK(checkpoint(), "checkpoint", 0, 0);
            write_at(now.size, (how & 4 ? 100 : 300) * CS, false);
            arm(how & 8 ? PART : ERROR, at, 1000, -EIO);
            commit(false);
            no_hook();
            drop_keys(true);
            write_at(1000, 100, false);
            end();
        }
}

/* ---- several threads ------------------------------------------------------------------------------------------------------------------------ */
enum { KEPT = 250, WRITERS = 3, ROUNDS = 120 };

static void *writer(void *arg)
{
    static char what[] = "write";
    uint64_t t = *(const unsigned *)arg, r = t + 77;
    static uint8_t buf[WRITERS][CS];
    for (unsigned i = 0; i < ROUNDS; i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t chunk = (r >> 33) % (KEPT / WRITERS) * WRITERS + t, at = r >> 20 & 1 ? (r >> 40) % CS : 0, len = r >> 21 & 1 ? CS - at : 1 + (r >> 50) % (CS - at);
        memset(buf[t], (int)(r >> 25), len);
        if (lg_file_write(f, buf[t], len, chunk * CS + at))
            return what;
        memcpy(now.b + chunk * CS + at, buf[t], len);
    }
    return NULL;
}

/* Behind what is kept: comes and goes. */
static void *far(void *arg)
{
    static char what[] = "far away";
    static uint8_t buf[CHUNKS * CS];
    uint64_t r = 5;
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        r = r * 6364136223846793005ull + 1442695040888963407ull;
        uint64_t off = (KEPT + (r >> 33) % (CHUNKS - KEPT - 130)) * CS + (r >> 20 & 1 ? 100 : 0), len = (1 + (r >> 40) % 128) * CS;
        int rc = lg_file_write(f, buf, len, off);
        if (!rc && r >> 21 & 1)
            rc = lg_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, KEPT * CS, (r >> 50) % 300 * CS + 1);
        if (!rc && r >> 22 & 1)
            rc = lg_file_truncate(f, KEPT * CS + (r >> 44) % (100 * CS));
        if (rc)
            return what;
    }
    return NULL;
}

static void *committer(void *arg)
{
    static char what[] = "commit";
    (void)arg;
    for (unsigned i = 0; i < ROUNDS; i++) {
        int rc = i % 3 == 0 ? lg_file_sync(f) : i % 3 == 1 ? lg_file_commit(f) : lg_journal_checkpoint(env.journal);
        if (i % 16 == 15)
            lg_file_drop_keys(f, false);
        if (rc)
            return what;
    }
    return NULL;
}

static void test_threads(void **state)
{
    (void)state;
    pthread_t t[WRITERS + 2];
    unsigned n[WRITERS];
    begin();
    write_at(0, KEPT * CS, false);
    CHECK(commit(true), "commit", 0, 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        n[i] = i;
        assert_int_equal(pthread_create(&t[i], NULL, writer, &n[i]), 0);
    }
    assert_int_equal(pthread_create(&t[WRITERS], NULL, far, NULL), 0);
    assert_int_equal(pthread_create(&t[WRITERS + 1], NULL, committer, NULL), 0);
    for (unsigned i = 0; i < WRITERS + 2; i++) {
        void *ret;
        assert_int_equal(pthread_join(t[i], &ret), 0);
        if (ret)
            broken(ret, i, 0);
    }
    CHECK(lg_file_truncate(f, KEPT * CS) == 0, "truncate", 0, 0);
    end();
}

/* ---- and any other --------------------------------------------------------------------------------------------------------------------------- */

static double clock_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

#ifdef __SANITIZE_THREAD__
enum { RUNS = 5 }; /* of one thread each, which tell it little, and take it minutes */
#else
enum { RUNS = 50 };
#endif

static void runs(bool errors)
{
    const char *s = getenv("LG_COMMIT_SEED"), *t = getenv("LG_COMMIT_SECONDS");
    uint64_t first = s ? strtoull(s, NULL, 10) : 1, n = s && !t ? 1 : RUNS;
    double end = clock_now() + (t ? strtod(t, NULL) / 2 : 1e9);
    uint64_t i = 0;
    for (; t ? clock_now() < end : i < n; i++)
        run(first + i, errors);
    print_message("%llu runs\n", (unsigned long long)i);
}

static void test_checkpoints(void **state) { (void)state, runs(false); }
static void test_errors(void **state)
{
    (void)state;
    run(114, true); /* a sync fails, with a table in memory whose entries were emptied, and which stands behind the end */
    runs(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_refilled), cmocka_unit_test(test_failed_and_cut), cmocka_unit_test(test_failed_and_dropped), cmocka_unit_test(test_threads),
                                        cmocka_unit_test(test_checkpoints), cmocka_unit_test(test_errors) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
