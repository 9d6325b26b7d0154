/* A log on disk: cut at every byte, killed at every write, the clock set back, its directory gone, users that nobody can name, segments, retention, two that go
 * on from one state. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "leadglass/audit.h"

enum { MIB = 1 << 20 };

/* The thread sanitizer makes each start of a log some twenty times slower: it sees every seventh place to be killed at, which is not what it looks for. */
#ifdef __SANITIZE_THREAD__
enum { KILL_STEP = 7, KILLED_LEAST = 5 };
#else
enum { KILL_STEP = 1, KILLED_LEAST = 30 };
#endif

static struct lg_secret *seed;
static uint8_t pub[LG_SIGN_PUB_LEN];
static char top[64];

/* ---- what stands between the log and the system ------------------------------------------------------------------------------------------- */

static struct shared { /* outlives the process that is killed */
    _Atomic uint64_t calls, die_at;
    _Atomic uint64_t put; /* records whose put has returned */
    struct lg_audit_head last; /* what the key manager remembers */
} *sh;
static _Atomic bool disk_full, no_reserve;

static bool dying(void)
{
    uint64_t at = atomic_load(&sh->die_at);
    return at && atomic_fetch_add(&sh->calls, 1) + 1 == at;
}

ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (dying()) {
        ssize_t half = __real_pwrite(fd, p, n / 2, at); /* torn */
        _exit(half < 0 ? 98 : 99);
    }
    return __real_pwrite(fd, p, n, at);
}
ssize_t __real_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n);
ssize_t __wrap_write(int fd, const void *p, size_t n)
{
    if (dying()) {
        ssize_t half = __real_write(fd, p, n / 2);
        _exit(half < 0 ? 98 : 99);
    }
    return __real_write(fd, p, n);
}
#define BEFORE(ret, name, params, args)  \
    ret __real_##name params;            \
    ret __wrap_##name params;            \
    ret __wrap_##name params             \
    {                                    \
        if (dying())                     \
            _exit(99);                   \
        return __real_##name args;       \
    }
BEFORE(int, fdatasync, (int fd), (fd))
BEFORE(int, fsync, (int fd), (fd))
BEFORE(int, renameat, (int a, const char *x, int b, const char *y), (a, x, b, y))
BEFORE(int, unlinkat, (int a, const char *x, int flags), (a, x, flags))
BEFORE(int, ftruncate, (int fd, off_t n), (fd, n))
int __real_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n);
int __wrap_fallocate(int fd, int mode, off_t at, off_t n)
{
    if (dying())
        _exit(99);
    if (atomic_load(&no_reserve)) {
        errno = ENOSPC;
        return -1;
    }
    return __real_fallocate(fd, mode, at, n);
}
int __real_fstatvfs(int fd, struct statvfs *st);
int __wrap_fstatvfs(int fd, struct statvfs *st);
int __wrap_fstatvfs(int fd, struct statvfs *st)
{
    int rc = __real_fstatvfs(fd, st);
    if (!rc && atomic_load(&disk_full))
        st->f_bavail = st->f_blocks / 10;
    return rc;
}

/* ---- helpers -------------------------------------------------------------------------------------------------------------------------------- */

static void remove_tree(const char *dir)
{
    char path[512];
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%.200s/%.250s", dir, e->d_name);
        if (unlink(path))
            remove_tree(path);
    }
    closedir(d);
    rmdir(dir);
}

static void copy_tree(const char *from, const char *to)
{
    char a[512], b[512], buf[65536];
    DIR *d = opendir(from);
    assert_non_null(d);
    assert_int_equal(mkdir(to, 0700), 0);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(a, sizeof a, "%.200s/%.250s", from, e->d_name);
        snprintf(b, sizeof b, "%.200s/%.250s", to, e->d_name);
        assert_int_equal(stat(a, &st), 0);
        if (S_ISDIR(st.st_mode)) {
            copy_tree(a, b);
            continue;
        }
        int in = open(a, O_RDONLY), out = open(b, O_WRONLY | O_CREAT, 0600);
        for (ssize_t n; (n = read(in, buf, sizeof buf)) > 0;)
            assert_int_equal(__real_write(out, buf, (size_t)n), n);
        close(in);
        close(out);
    }
    closedir(d);
}

static struct lg_audit_options options(const char *sub, char dir[128])
{
    snprintf(dir, 128, "%s/%s", top, sub);
    return (struct lg_audit_options){ .dir = dir, .name = "x", .kind = "mount", .shm = top, .sync_ms = 20 };
}

static void put(struct lg_audit_log *l, uint64_t n, size_t pad)
{
    static struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "test");
    r.has = LG_AUDIT_RANGE;
    r.from = r.to = n;
    memset(r.text, 'x', pad);
    r.text[pad] = 0;
    lg_audit_put(l, &r);
}

/* What the key manager does: signs what follows from what it remembers, and remembers it before it answers. */
static int sign(struct lg_audit_log *l)
{
    struct lg_audit_head h;
    uint8_t digest[LG_MAC_LEN] = { 0 };
    if (!lg_audit_tip(l, &h))
        return 0;
    if (h.n != sh->last.n || h.seq <= sh->last.seq || (sh->last.n && memcmp(h.prev, sh->last.hash, LG_MAC_LEN) != 0))
        return -EBADMSG;
    if (sh->last.n && lg_audit_head_digest(&sh->last, digest))
        return -EIO;
    memcpy(h.prev, digest, LG_MAC_LEN);
    h.n++;
    h.time_us = 1764019805123456;
    if (lg_audit_head_sign(&h, seed))
        return -EIO;
    sh->last = h;
    return lg_audit_head_store(l, &h);
}

struct seen {
    uint64_t times[4096]; /* how often a test record stands */
    unsigned events, failed, clock, pruned, recovered, broken, space, users, unnamed;
    const char *event; /* to count */
    bool with_study;
    unsigned findings; /* records of them; those with a study; how many findings they stand for */
    unsigned of_study;
    uint64_t found;
};
static int see(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    static struct lg_audit_record r;
    struct seen *x = arg;
    (void)segment;
    if (cut || lg_audit_record_parse(s, len, &r))
        return -EPROTO;
    if (strcmp(r.event, "test") == 0 && r.from < 4096)
        x->times[r.from]++;
    x->failed += strcmp(r.event, "log.failed") == 0;
    x->clock += strcmp(r.event, "log.clock") == 0;
    x->pruned += strcmp(r.event, "log.pruned") == 0;
    x->recovered += strcmp(r.event, "log.recovered") == 0;
    x->broken += strcmp(r.event, "log.broken") == 0;
    x->space += strcmp(r.event, "log.space") == 0;
    if (strcmp(r.event, "file.tampered") == 0) {
        assert_false(r.has & LG_AUDIT_WHO);
        x->findings++;
        x->of_study += (r.has & LG_AUDIT_STUDY) != 0;
        x->found += r.has & LG_AUDIT_COUNT ? r.count : 1;
    }
    if (r.has & LG_AUDIT_WHO) {
        x->users++;
        x->unnamed += !r.user[0];
        x->with_study = r.has & LG_AUDIT_STUDY;
    }
    return 0;
}
static void look(const char *dir, struct seen *x)
{
    struct lg_audit_chain c;
    memset(x, 0, sizeof *x);
    assert_int_equal(lg_audit_find(dir, "x", &c), 0);
    assert_int_equal(lg_audit_read(dir, c.name, 0, see, x), 0);
}

static struct lg_audit_report verdict(const char *dir, const struct lg_audit_head *against)
{
    struct lg_audit_chain c;
    struct lg_audit_report r;
    assert_int_equal(lg_audit_find(dir, "x", &c), 0);
    assert_int_equal(lg_audit_verify(dir, &c, pub, against, against && against->n ? 1 : 0, &r), 0);
    return r;
}

static void nap(long ms) { nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL); }

/* ---- cut at every byte ------------------------------------------------------------------------------------------------------------------------ */

static void cut_at(struct lg_audit_verifier *v, size_t lines, size_t rest, size_t all)
{
    struct lg_audit_report r;
    lg_audit_verifier_end(v, rest, &r);
    bool whole = lines == all;
    if (r.verdict != (whole ? LG_AUDIT_INTACT : LG_AUDIT_TRUNCATED) || r.n_problems != !whole || r.incomplete != (rest != 0) ||
        (!whole && (r.problem[0].from != lines + 1 || r.problem[0].to != all)))
        fail_msg("%zu lines and %zu bytes of %zu lines: %s %u %llu-%llu", lines, rest, all, lg_audit_verdict_name(r.verdict), r.n_problems, (unsigned long long)r.problem[0].from,
                 (unsigned long long)r.problem[0].to);
}

/* Of a log of more than a megabyte everything in the last one, byte for byte; what a file of that length says follows from its complete lines and from whether
 * something is left (which is tried with real files for some). */
static void cut_everywhere(void **state)
{
    (void)state;
    enum { LINES = 1700, EVERY = 100 };
    static char *line[LINES];
    static size_t len[LINES];
    static char buf[LG_AUDIT_LINE_MAX], text[LG_AUDIT_HEAD_MAX];
    static const uint8_t chain[LG_ID_LEN] = { 7, 7 };
    struct lg_audit_verifier *v;
    struct lg_audit_head last = { .n = 0 };
    uint8_t prev[LG_MAC_LEN];
    size_t total = 0, at = 0, tried = 0, n;
    assert_int_equal(lg_audit_verifier_new(chain, pub, &v), 0);
    lg_audit_genesis(chain, prev);
    for (size_t i = 0; i < LINES; i++) {
        static struct lg_audit_record r;
        lg_audit_record_init(&r);
        r.seq = i + 1;
        r.time_us = 1764019805123456 + (int64_t)i;
        memcpy(r.chain, chain, sizeof r.chain);
        snprintf(r.event, sizeof r.event, "file.open");
        memset(r.text, 'a', 400 + i % 97);
        assert_int_equal(lg_audit_record_encode(&r, prev, buf, sizeof buf, &len[i]), 0);
        line[i] = strndup(buf, len[i]);
        total += len[i] + 1;
        memcpy(prev, r.hash, LG_MAC_LEN);
        if ((i + 1) % EVERY)
            continue;
        struct lg_audit_head h = { .n = last.n + 1, .seq = i + 1, .time_us = r.time_us };
        memcpy(h.chain, chain, LG_ID_LEN);
        memcpy(h.hash, r.hash, LG_MAC_LEN);
        if (last.n)
            assert_int_equal(lg_audit_head_digest(&last, h.prev), 0);
        assert_int_equal(lg_audit_head_sign(&h, seed), 0);
        assert_int_equal(lg_audit_head_encode(&h, text, sizeof text, &n), 0);
        assert_int_equal(lg_audit_verifier_head(v, text, n), 0);
        last = h;
    }
    assert_true(total > MIB + MIB / 16);
    for (size_t i = 0; i <= LINES; i++) {
        size_t here = i < LINES ? len[i] + 1 : 1;
        for (size_t rest = 0; rest < here; rest++)
            if (at + rest + MIB >= total) {
                cut_at(v, i, rest, LINES);
                tried++;
            }
        if (i < LINES) {
            assert_int_equal(lg_audit_verifier_line(v, 1, line[i], len[i]), 0);
            at += here;
        }
    }
    assert_int_equal(tried, MIB + 1);
    lg_audit_verifier_free(v);
    for (size_t i = 0; i < LINES; i++)
        free(line[i]);
}

static void cut_files(void **state)
{
    (void)state;
    char dir[128], path[256];
    struct lg_audit_options o = options("cut", dir);
    struct lg_audit_log *l;
    struct stat st;
    sh->last = (struct lg_audit_head){ .n = 0 };
    assert_int_equal(lg_audit_open(&o, &sh->last, &l), 0);
    for (unsigned i = 1; i <= 40; i++)
        put(l, i, 10);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(sign(l), 0);
    lg_audit_close(l);
    assert_int_equal(verdict(dir, NULL).verdict, LG_AUDIT_INTACT);
    snprintf(path, sizeof path, "%s/x/00000001.jsonl", dir);
    assert_int_equal(stat(path, &st), 0);
    for (off_t n = st.st_size - 1; n >= 0; n--) {
        assert_int_equal(truncate(path, n), 0);
        struct lg_audit_report r = verdict(dir, NULL);
        assert_int_equal(r.verdict, LG_AUDIT_TRUNCATED);
        assert_int_equal(r.problem[0].to, sh->last.seq);
    }
}

/* ---- no room for a head ---------------------------------------------------------------------------------------------------------------------- */

static void head_without_room(void **state)
{
    (void)state;
    char dir[128];
    struct lg_audit_options o = options("noroom", dir);
    struct lg_audit_log *l;
    struct rlimit was, some;
    sh->last = (struct lg_audit_head){ .n = 0 };
    assert_int_equal(lg_audit_open(&o, &sh->last, &l), 0);
    put(l, 1, 10);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    some = was;
    some.rlim_cur = 20; /* bytes of a head's line */
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &some), 0);
    int rc = sign(l);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_true(rc < 0);
    assert_int_equal(lg_audit_head_store(l, &sh->last), 0); /* whoever signed it is asked again */
    put(l, 2, 10);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(sign(l), 0);
    lg_audit_close(l);
    assert_int_equal(verdict(dir, NULL).verdict, LG_AUDIT_INTACT);
}

/* ---- killed at every write ---------------------------------------------------------------------------------------------------------------------- */

enum { KILL_RECORDS = 60, SECOND = 100 };

static void child(struct lg_audit_options *o, unsigned base)
{
    struct lg_audit_log *l;
    struct lg_audit_head remembered = sh->last;
    if (lg_audit_open(o, &remembered, &l))
        _exit(97);
    for (unsigned i = 1; i <= KILL_RECORDS; i++) {
        put(l, base + i, 900);
        atomic_store(&sh->put, i);
        if (i % 8 == 0 && (lg_audit_flush(l, false) || sign(l)))
            _exit(96);
    }
    lg_audit_close(l);
    _exit(0);
}

/* True: it was killed at that call. *ret_put: records whose put had returned. */
static bool run_child(struct lg_audit_options *o, unsigned base, uint64_t at, uint64_t *ret_put)
{
    int status;
    atomic_store(&sh->put, 0);
    atomic_store(&sh->calls, 0);
    atomic_store(&sh->die_at, at);
    pid_t pid = fork();
    if (!pid)
        child(o, base);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    atomic_store(&sh->die_at, 0);
    if (!WIFEXITED(status) || (WEXITSTATUS(status) != 0 && WEXITSTATUS(status) != 99))
        fail_msg("at call %llu the child ended with %x", (unsigned long long)at, status);
    *ret_put = atomic_load(&sh->put);
    return WEXITSTATUS(status) == 99;
}

static void once_each(const struct seen *x, unsigned base, uint64_t put_back, uint64_t at)
{
    for (uint64_t i = 1; i <= KILL_RECORDS; i++) { /* the one being put may stand or not */
        uint64_t n = x->times[base + i];
        if ((i <= put_back && n != 1) || n > 1 || (i > put_back + 1 && n))
            fail_msg("killed at call %llu: record %llu stands %llu times, %llu were put", (unsigned long long)at, (unsigned long long)(base + i), (unsigned long long)n, (unsigned long long)put_back);
    }
}

/* first 0: killed once, at every call in turn. Else killed there, and its successor at every call in turn. */
static void kill_at_every_call(const char *sub, uint64_t first)
{
    static struct seen x;
    unsigned died = 0;
    bool killed = true;
    for (uint64_t at = 1; killed && at < 400; at += (first && at > 40 ? 4 : 1) * KILL_STEP) {
        char dir[128];
        struct lg_audit_options o = options(sub, dir);
        struct lg_audit_log *l;
        uint64_t n1 = 0, n2;
        remove_tree(dir);
        o.segment_bytes = 16384;
        o.sync_ms = 5;
        sh->last = (struct lg_audit_head){ .n = 0 };
        if (first)
            assert_true(run_child(&o, 0, first, &n1));
        killed = run_child(&o, SECOND, at, &n2);
        died += killed;
        struct lg_audit_head remembered = sh->last;
        assert_int_equal(lg_audit_open(&o, &remembered, &l), 0);
        assert_int_equal(lg_audit_flush(l, true), 0);
        assert_int_equal(sign(l), 0);
        lg_audit_close(l);
        look(dir, &x);
        once_each(&x, 0, n1, at);
        once_each(&x, SECOND, n2, at);
        struct lg_audit_report r = verdict(dir, &sh->last);
        if (r.verdict != LG_AUDIT_INTACT || r.tail || x.broken)
            fail_msg("killed at call %llu: %s, tail %llu, broken %u", (unsigned long long)at, lg_audit_verdict_name(r.verdict), (unsigned long long)r.tail, x.broken);
    }
    assert_true(!killed && died > KILLED_LEAST);
}

static void kill_everywhere(void **state)
{
    (void)state;
    kill_at_every_call("kill", 0);
}

static void kill_twice(void **state)
{
    (void)state;
    kill_at_every_call("twice", 17); /* in the middle of a write */
}

/* ---- the clock, users, a directory that goes, space --------------------------------------------------------------------------------------------------- */

static _Atomic int64_t wall;
static int64_t fake_clock(void *arg)
{
    (void)arg;
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return atomic_load(&wall) + (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void clock_back(void **state)
{
    (void)state;
    static struct seen x;
    static struct lg_audit_record late;
    char dir[128];
    struct lg_audit_options o = options("clock", dir);
    struct lg_audit_log *l;
    atomic_store(&wall, 1764019805123456);
    o.clock = fake_clock;
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    put(l, 1, 1);
    lg_audit_record_init(&late); /* a thread that was kept waiting for an hour is no clock */
    snprintf(late.event, sizeof late.event, "test");
    late.time_us = fake_clock(NULL) - 3600000000;
    lg_audit_put(l, &late);
    atomic_fetch_add(&wall, 7200000000); /* forward is none either */
    put(l, 2, 1);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_int_equal(x.clock, 0);
    atomic_fetch_sub(&wall, 3600000000);
    put(l, 3, 1);
    put(l, 4, 1);
    lg_audit_close(l);
    look(dir, &x);
    assert_int_equal(x.clock, 1);
    atomic_fetch_sub(&wall, 3600000000); /* while nobody wrote */
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    put(l, 5, 1);
    lg_audit_close(l);
    look(dir, &x);
    assert_int_equal(x.clock, 2);
    assert_int_equal(verdict(dir, NULL).clock_back, 2);
}

static _Atomic unsigned asked;
static _Atomic bool answer;
static int stuck(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1])
{
    (void)arg;
    atomic_fetch_add(&asked, 1);
    while (uid != 5 && !atomic_load(&answer))
        nap(1);
    snprintf(out, LG_AUDIT_NAME_MAX + 1, "user%u", uid);
    return 0;
}

static void put_user(struct lg_audit_log *l, uint32_t uid, bool study, bool count)
{
    static struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "file.open");
    r.has = LG_AUDIT_WHO | (study ? LG_AUDIT_STUDY : 0);
    r.uid = uid;
    if (count)
        lg_audit_count(l, &r, NULL, NULL);
    else
        lg_audit_put(l, &r);
}

static void find(struct lg_audit_log *l, uint64_t same)
{
    static struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "file.tampered");
    r.outcome = -EIO;
    r.has = LG_AUDIT_STUDY | LG_AUDIT_RANGE;
    r.from = same;
    r.to = same + 1;
    lg_audit_count_found(l, &r, same);
}

/* What is found again and again is one record and one count, whatever the window of the log's other records; what is found elsewhere has its own. */
static void found_again(void **state)
{
    (void)state;
    static struct seen x;
    char dir[128];
    struct lg_audit_options o = options("found", dir);
    struct lg_audit_log *l;
    for (unsigned window = 0; window <= 3600; window += 3600) {
        snprintf(dir, 128, "%s/found%u", top, window);
        o.window_s = window;
        assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
        for (unsigned i = 0; i < 3000; i++)
            find(l, 5 + ((uint64_t)(i % 3) << 40));
        assert_int_equal(lg_audit_flush(l, true), 0);
        look(dir, &x);
        assert_int_equal(x.found, 3000);
        assert_int_equal(x.of_study, x.findings);
        assert_in_range(x.findings, 6, window ? 6 : 600); /* without a window of its own 10 s hold, and this may be slow */
        lg_audit_close(l);
    }
}

/* In a file of the directory of rings. */
static bool stands(const char *what, size_t len)
{
    char path[512];
    bool is = false;
    DIR *d = opendir(top);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        snprintf(path, sizeof path, "%.200s/%.250s", top, e->d_name);
        int fd = e->d_type == DT_REG ? open(path, O_RDONLY) : -1;
        assert_true(fd < 0 || fstat(fd, &st) == 0);
        void *p = fd >= 0 && st.st_size ? mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0) : MAP_FAILED;
        if (p != MAP_FAILED) {
            is |= memmem(p, (size_t)st.st_size, what, len) != NULL;
            munmap(p, (size_t)st.st_size);
        }
        if (fd >= 0)
            close(fd);
    }
    closedir(d);
    return is;
}

/* A record is not cleared whole: what stood in its memory before, behind the ends of its texts, goes nowhere. */
static void nothing_behind(void **state)
{
    (void)state;
    static struct lg_audit_record r;
    static const char program[] = "/usr/bin/counted", left[] = "left of others";
    char dir[128];
    struct lg_audit_options o = options("behind", dir);
    struct lg_audit_log *l;
    o.window_s = 3600;
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    for (size_t at = 0; at + sizeof left <= sizeof r; at += sizeof left)
        memcpy((char *)&r + at, left, sizeof left);
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "file.open");
    snprintf(r.exe, sizeof r.exe, "%s", program);
    r.has = LG_AUDIT_WHO;
    lg_audit_count(l, &r, NULL, NULL);
    assert_true(stands(program, sizeof program));
    assert_false(stands(left, sizeof left - 1));
    assert_int_equal(lg_audit_flush(l, true), 0);
    lg_audit_close(l);
}

static void nameless(void **state)
{
    (void)state;
    static struct seen x;
    char dir[128];
    struct lg_audit_options o = options("users", dir);
    struct lg_audit_log *l;
    o.user = stuck;
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    put_user(l, 5, false, false);
    assert_int_equal(lg_audit_flush(l, false), 0);
    look(dir, &x);
    assert_int_equal(x.users, 1);
    assert_int_equal(x.unnamed, 0);
    for (uint32_t uid = 100; uid < 300; uid++) /* nobody answers: waited for once, not two hundred times */
        put_user(l, uid, false, false);
    assert_int_equal(lg_audit_flush(l, false), 0);
    look(dir, &x);
    assert_int_equal(x.users, 201);
    assert_int_equal(x.unnamed, 200);
    atomic_store(&answer, true);
    for (unsigned i = 0; i < 12000 && atomic_load(&asked) < 3; i++)
        nap(10);
    nap(300);
    put_user(l, 100, false, false);
    assert_int_equal(lg_audit_flush(l, false), 0);
    look(dir, &x);
    assert_int_equal(x.unnamed, 200);
    lg_audit_close(l);
}

static void vanished(void **state)
{
    (void)state;
    static struct seen x;
    char dir[128], away[160];
    struct lg_audit_options o = options("gone", dir);
    struct lg_audit_log *l;
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    put(l, 1, 1);
    assert_int_equal(lg_audit_flush(l, false), 0);
    snprintf(away, sizeof away, "%s.away", dir);
    assert_int_equal(rename(dir, away), 0);
    put(l, 2, 1); /* answered: it stands in shared memory */
    assert_int_equal(lg_audit_flush(l, false), -ECANCELED); /* noticed at the next write */
    assert_int_equal(lg_audit_ready(l), -ECANCELED);
    assert_int_equal(rename(away, dir), 0);
    for (unsigned i = 0; i < 12000 && lg_audit_ready(l); i++)
        nap(10);
    put(l, 3, 1);
    lg_audit_close(l);
    look(dir, &x);
    assert_true(x.times[1] == 1 && x.times[2] == 1 && x.times[3] == 1 && x.failed == 1);
}

enum { NAMED = 16 }; /* findings a minute that have a record of their own: docs/AUDIT.md */
static void wait_space(const char *dir, struct seen *x, unsigned n)
{
    for (unsigned i = 0; i < 2000; i++) {
        nap(50);
        look(dir, x);
        if (x->space >= n)
            break;
    }
    assert_int_equal(x->space, n);
    nap(300);
}

/* A disk that is nearly full takes nothing from the records; a reserve in use does, for users other than root, and of findings names some. */
static void crowded(void **state)
{
    (void)state;
    static struct seen x;
    char dir[128];
    struct lg_audit_options o = options("full", dir);
    struct lg_audit_log *l;
    o.window_s = 10;
    o.segment_bytes = 65536;
    atomic_store(&disk_full, true);
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    for (unsigned i = 0; i < 2000; i++) {
        nap(50);
        look(dir, &x);
        if (x.space)
            break;
    }
    assert_int_equal(x.space, 1);
    put_user(l, 1000, true, true);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_true(x.with_study);
    lg_audit_close(l);
    atomic_store(&no_reserve, true);
    char reserve[200];
    snprintf(reserve, sizeof reserve, "%s/x/reserve", dir);
    unlink(reserve);
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0);
    for (unsigned i = 0; i < 2000; i++) {
        nap(50);
        look(dir, &x);
        if (x.space >= 3)
            break;
    }
    nap(300);
    put_user(l, 1001, true, true);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_false(x.with_study);
    unsigned before = x.findings;
    for (unsigned i = 0; i < 1000; i++) /* a file with many damaged places fills nothing either */
        find(l, i % 500);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_int_equal(x.findings - before, 2 * NAMED + 2);
    assert_int_equal(x.found, 1000);
    assert_int_equal(x.of_study, 2 * NAMED);
    put_user(l, 0, true, true);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_true(x.with_study);
    struct lg_audit_state at;
    struct stat st;
    for (unsigned i = 0; i < 1000; i++) { /* until hardly anything is left of it */
        lg_audit_state(l, &at);
        assert_int_equal(stat(at.path, &st), 0);
        if (st.st_size * 100 > (off_t)o.segment_bytes * 82)
            break;
        put(l, 1, 100);
        assert_int_equal(lg_audit_flush(l, false), 0);
    }
    wait_space(dir, &x, 4);
    lg_audit_close(l);
    assert_int_equal(lg_audit_open(&o, NULL, &l), 0); /* a new minute */
    wait_space(dir, &x, 7);
    before = x.findings;
    for (unsigned i = 0; i < 1000; i++)
        find(l, 1000 + i % 500);
    assert_int_equal(lg_audit_flush(l, true), 0);
    look(dir, &x);
    assert_int_equal(x.findings - before, 2);
    assert_int_equal(x.found, 2000);
    assert_int_equal(x.of_study, 2 * NAMED);
    atomic_store(&no_reserve, false);
    atomic_store(&disk_full, false);
    lg_audit_close(l);
}

/* ---- segments, retention, forks ---------------------------------------------------------------------------------------------------------------------- */

static void segments(void **state)
{
    (void)state;
    enum { DAY = 86400 };
    static struct seen x;
    char dir[128], path[256];
    struct lg_audit_options o = options("segments", dir);
    struct lg_audit_log *l;
    struct stat st;
    struct timespec now, old[2];
    clock_gettime(CLOCK_REALTIME, &now);
    atomic_store(&wall, ((int64_t)now.tv_sec - 200 * DAY) * 1000000);
    o.segment_bytes = 4096;
    o.clock = fake_clock;
    o.keep_days = 184;
    sh->last = (struct lg_audit_head){ .n = 0 };
    assert_int_equal(lg_audit_open(&o, &sh->last, &l), 0);
    for (unsigned i = 1; i <= 100; i++) {
        put(l, i, 100);
        if (i % 5 == 0) {
            assert_int_equal(lg_audit_flush(l, false), 0);
            assert_int_equal(sign(l), 0);
        }
    }
    snprintf(path, sizeof path, "%s/x/00000003.jsonl.zst", dir);
    for (unsigned i = 0; i < 12000 && stat(path, &st); i++)
        nap(10);
    assert_int_equal(stat(path, &st), 0);
    lg_audit_close(l);
    struct lg_audit_report r = verdict(dir, &sh->last);
    assert_int_equal(r.verdict, LG_AUDIT_INTACT);
    assert_int_equal(r.first, 1);
    assert_int_equal(r.signed_seq, sh->last.seq);
    struct lg_audit_head first_time = sh->last;
    old[0] = old[1] = (struct timespec){ now.tv_sec - 200 * DAY, 0 };
    for (unsigned i = 1; i <= 3; i++) { /* 200 days later */
        snprintf(path, sizeof path, "%s/x/%08u.jsonl.zst", dir, i);
        assert_int_equal(utimensat(AT_FDCWD, path, old, 0), 0);
    }
    o.clock = NULL;
    assert_int_equal(lg_audit_open(&o, &first_time, &l), 0);
    for (unsigned i = 0; i < 12000 && stat(path, &st) == 0; i++)
        nap(10);
    assert_int_not_equal(stat(path, &st), 0);
    put(l, 101, 100);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(sign(l), 0);
    lg_audit_close(l);
    r = verdict(dir, &sh->last);
    assert_int_equal(r.verdict, LG_AUDIT_INTACT);
    assert_true(r.first > 1 && r.pruned == r.first - 1);
    look(dir, &x);
    assert_int_equal(x.pruned, 3);
    assert_true(x.times[1] == 0 && x.times[100] == 1 && x.times[101] == 1);
    /* what nobody announced is missing */
    unsigned next = 4;
    snprintf(path, sizeof path, "%s/x/%08u.jsonl.zst", dir, next);
    if (unlink(path)) {
        snprintf(path, sizeof path, "%s/x/%08u.jsonl", dir, next);
        assert_int_equal(unlink(path), 0);
    }
    assert_int_equal(verdict(dir, &sh->last).verdict, LG_AUDIT_MISSING);
}

static void two_daemons(void **state)
{
    (void)state;
    static struct seen x;
    char a[128], b[160], shm[160];
    struct lg_audit_options o = options("fork", a);
    struct lg_audit_log *l, *m, *again;
    sh->last = (struct lg_audit_head){ .n = 0 };
    assert_int_equal(lg_audit_open(&o, &sh->last, &l), 0);
    assert_int_equal(lg_audit_open(&o, &sh->last, &again), -EWOULDBLOCK); /* of one directory there is one writer */
    for (unsigned i = 1; i <= 10; i++)
        put(l, i, 1);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(sign(l), 0);
    lg_audit_close(l);
    snprintf(b, sizeof b, "%s.copy", a);
    snprintf(shm, sizeof shm, "%s.shm", a);
    assert_int_equal(mkdir(shm, 0700), 0);
    copy_tree(a, b);
    struct lg_audit_head before = sh->last;
    assert_int_equal(lg_audit_open(&o, &before, &l), 0);
    struct lg_audit_options p = o;
    p.dir = b;
    p.shm = shm;
    assert_int_equal(lg_audit_open(&p, &before, &m), 0); /* at the same time, of a copy: nobody can know yet */
    for (unsigned i = 11; i <= 20; i++) {
        put(l, i, 1);
        put(m, 100 + i, 1);
    }
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(lg_audit_flush(m, true), 0);
    assert_int_equal(sign(l), 0);
    assert_int_equal(sign(m), -EBADMSG); /* the second is refused: its chain has no head from here on */
    put(l, 21, 1);
    put(m, 121, 1);
    lg_audit_close(l);
    lg_audit_close(m);
    assert_int_equal(verdict(a, &sh->last).verdict, LG_AUDIT_INTACT);
    assert_int_equal(verdict(b, NULL).tail, 11);
    assert_int_equal(verdict(b, &sh->last).verdict, LG_AUDIT_FORKED);
    before = sh->last;
    assert_int_equal(lg_audit_open(&p, &before, &m), 0); /* and is not continued */
    lg_audit_close(m);
    look(b, &x);
    assert_int_equal(x.broken, 1);
}

static int clean(void **state)
{
    (void)state;
    remove_tree(top);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(cut_everywhere), cmocka_unit_test(cut_files), cmocka_unit_test(head_without_room), cmocka_unit_test(kill_everywhere), cmocka_unit_test(kill_twice), cmocka_unit_test(clock_back), cmocka_unit_test(nameless), cmocka_unit_test(found_again), cmocka_unit_test(nothing_behind),
                                        cmocka_unit_test(vanished),       cmocka_unit_test(crowded),   cmocka_unit_test(segments),        cmocka_unit_test(two_daemons) };
    snprintf(top, sizeof top, "/dev/shm/lg-auditlog-XXXXXX");
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED || !mkdtemp(top) || lg_secret_init(true) || lg_crypto_init() || !(seed = lg_secret_random()) || lg_sign_public(seed, pub))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, clean);
    lg_secret_free(seed);
    return rc;
}
