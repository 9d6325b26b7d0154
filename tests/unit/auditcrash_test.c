/* A log after the power went, whatever of the sectors written since the last barrier is there; and what a killed daemon leaves in memory for a chain that cannot be
 * continued. */
#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "leadglass/audit.h"

/* As in auditlog_test.c: the thread sanitizer sees a fifth of the images. */
#ifdef __SANITIZE_THREAD__
enum { STEP = 5 };
#else
enum { STEP = 1 };
#endif
enum { SECTOR = 512, MAX = 4096, DURABLE = 20, ALL = 60, AFTER = 100 };

static struct lg_secret *seed;
static uint8_t pub[LG_SIGN_PUB_LEN];
static char top[64];
static struct shared { /* outlives the process that is killed */
    struct lg_audit_head last; /* what the key manager remembers */
    _Atomic bool die;
} *sh;

/* ---- what stands between the log and the system ------------------------------------------------------------------------------------------- */

ssize_t __real_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at);
ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)
{
    if (atomic_load(&sh->die))
        _exit(99);
    return __real_pwrite(fd, p, n, at);
}

static ino_t synced[4096];
static _Atomic unsigned n_synced;
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __wrap_fsync(int fd)
{
    struct stat st;
    unsigned i = atomic_fetch_add(&n_synced, 1);
    if (i < 4096 && fstat(fd, &st) == 0)
        synced[i] = st.st_ino;
    return __real_fsync(fd);
}

static bool was_synced(const char *path, unsigned since)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    for (unsigned i = since; i < atomic_load(&n_synced) && i < 4096; i++)
        if (synced[i] == st.st_ino)
            return true;
    return false;
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

struct bytes {
    char *p;
    size_t n;
};
static struct bytes slurp(const char *path)
{
    struct stat st;
    int fd = open(path, O_RDONLY);
    struct bytes b = { NULL, 0 };
    if (fd < 0)
        return b;
    assert_int_equal(fstat(fd, &st), 0);
    b.p = malloc((size_t)st.st_size + 1);
    b.n = (size_t)read(fd, b.p, (size_t)st.st_size);
    close(fd);
    return b;
}

static void spit(const char *path, const char *p, size_t n)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(write(fd, p, n), (ssize_t)n);
    close(fd);
}

static void put(struct lg_audit_log *l, uint64_t n)
{
    static struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "test");
    r.has = LG_AUDIT_RANGE;
    r.from = r.to = n;
    memset(r.text, 'x', 10 + n * 7 % 400);
    lg_audit_put(l, &r);
}

/* What the key manager does. */
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
    unsigned times[MAX];
    unsigned recovered, broken;
    uint64_t opens; /* counts included */
};
static int see(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    static struct lg_audit_record r;
    struct seen *x = arg;
    (void)segment;
    if (cut || lg_audit_record_parse(s, len, &r))
        return -EPROTO;
    if (strcmp(r.event, "test") == 0 && r.from < MAX)
        x->times[r.from]++;
    x->recovered += strcmp(r.event, "log.recovered") == 0;
    x->broken += strcmp(r.event, "log.broken") == 0;
    x->opens += strcmp(r.event, "file.open") == 0 ? (r.has & LG_AUDIT_COUNT ? r.count : 1) : 0;
    return 0;
}

static struct lg_audit_options options(const char *dir, const char *shm) { return (struct lg_audit_options){ .dir = dir, .name = "x", .kind = "mount", .shm = shm, .sync_ms = 60000 }; }

static struct lg_audit_report verdict(const char *dir, const struct lg_audit_head *against)
{
    struct lg_audit_chain c;
    struct lg_audit_report r;
    assert_int_equal(lg_audit_find(dir, "x", &c), 0);
    assert_int_equal(lg_audit_verify(dir, &c, pub, against, against ? 1 : 0, &r), 0);
    return r;
}

/* ---- the power goes --------------------------------------------------------------------------------------------------------------------------- */

static struct bytes chain_file, heads1, heads2, seg1, seg2; /* before and after what was not durable yet */
static struct lg_audit_head remembered1, remembered2;

static void make_log(void **state)
{
    (void)state;
    char dir[128], path[256];
    struct lg_audit_log *l;
    snprintf(dir, sizeof dir, "%s/made", top);
    struct lg_audit_options o = options(dir, top);
    unsigned before = atomic_load(&n_synced);
    assert_int_equal(lg_audit_open(&o, &sh->last, &l), 0);
    assert_true(was_synced(top, before) && was_synced(dir, before)); /* names of the log and of the chain are there, whatever comes */
    for (unsigned i = 1; i <= DURABLE; i++)
        put(l, i);
    assert_int_equal(lg_audit_flush(l, true), 0);
    before = atomic_load(&n_synced);
    assert_int_equal(sign(l), 0);
    snprintf(path, sizeof path, "%s/x", dir);
    assert_true(was_synced(path, before)); /* so is the name of the file that its first head stands in */
    remembered1 = sh->last;
    snprintf(path, sizeof path, "%s/x/chain", dir);
    chain_file = slurp(path);
    snprintf(path, sizeof path, "%s/x/00000001.jsonl", dir);
    seg1 = slurp(path);
    for (unsigned i = DURABLE + 1; i <= ALL; i++)
        put(l, i);
    assert_int_equal(lg_audit_flush(l, true), 0);
    seg2 = slurp(path);
    snprintf(path, sizeof path, "%s/x/00000001.heads", dir);
    heads1 = slurp(path);
    assert_int_equal(sign(l), 0);
    heads2 = slurp(path);
    remembered2 = sh->last;
    lg_audit_close(l);
    assert_true(seg2.n > seg1.n + 20 * SECTOR && heads2.n > heads1.n);
}

/* Of a file that was a and became b, some sectors of b, within a size in between. keep: of sector i of what changed. */
static struct bytes image(const struct bytes *a, const struct bytes *b, size_t size, bool (*keep)(size_t i, void *arg), void *arg)
{
    struct bytes x = { calloc(1, size + 1), size };
    for (size_t at = 0; at < size; at++) {
        size_t i = at / SECTOR;
        bool fresh = i >= a->n / SECTOR && keep(i - a->n / SECTOR, arg);
        x.p[at] = fresh ? b->p[at] : at < a->n ? a->p[at] : 0;
    }
    return x;
}

static unsigned images;

/* What stands on the disk is started from, and goes on. */
static void goes_on(const struct bytes *seg, const struct bytes *heads, const struct lg_audit_head *remembered, unsigned durable, const char *what, size_t k)
{
    static struct seen x;
    char dir[128], shm[128], path[256];
    struct lg_audit_log *l;
    struct lg_audit_chain c;
    snprintf(dir, sizeof dir, "%s/image", top);
    snprintf(shm, sizeof shm, "%s/shm", top);
    remove_tree(dir);
    remove_tree(shm); /* memory is gone too */
    assert_true(mkdir(dir, 0700) == 0 && mkdir(shm, 0700) == 0);
    snprintf(path, sizeof path, "%s/x", dir);
    assert_int_equal(mkdir(path, 0700), 0);
    snprintf(path, sizeof path, "%s/x/chain", dir);
    spit(path, chain_file.p, chain_file.n);
    snprintf(path, sizeof path, "%s/x/00000001.jsonl", dir);
    spit(path, seg->p, seg->n);
    snprintf(path, sizeof path, "%s/x/00000001.heads", dir);
    spit(path, heads->p, heads->n);
    images++;

    struct lg_audit_report r = verdict(dir, remembered); /* before anybody went on with it: nothing that was signed is called in question */
    if (heads == &heads1 && r.verdict != LG_AUDIT_INTACT && (r.verdict != LG_AUDIT_ALTERED || r.problem[0].from <= remembered->seq))
        fail_msg("%s %zu: %s from %llu, signed %llu", what, k, lg_audit_verdict_name(r.verdict), (unsigned long long)r.problem[0].from, (unsigned long long)remembered->seq);

    struct lg_audit_options o = options(dir, shm);
    sh->last = *remembered;
    if (lg_audit_open(&o, remembered, &l))
        fail_msg("%s %zu: cannot be opened", what, k);
    put(l, AFTER);
    assert_int_equal(lg_audit_flush(l, true), 0);
    assert_int_equal(sign(l), 0);
    lg_audit_close(l);
    memset(&x, 0, sizeof x);
    assert_int_equal(lg_audit_find(dir, "x", &c), 0);
    assert_int_equal(lg_audit_read(dir, c.name, 0, see, &x), 0);
    unsigned n = 0;
    for (unsigned i = 1; i <= ALL; i++) { /* what was durable; of the rest a beginning */
        if (x.times[i] > 1 || (i <= durable && !x.times[i]) || (x.times[i] && n != i - 1))
            fail_msg("%s %zu: record %u stands %u times, %u before it", what, k, i, x.times[i], n);
        n += x.times[i];
    }
    r = verdict(dir, &sh->last);
    if (r.verdict != LG_AUDIT_INTACT || r.tail || x.broken || x.times[AFTER] != 1 || strcmp(c.name, "x") != 0)
        fail_msg("%s %zu: %s, tail %llu, broken %u, chain %s", what, k, lg_audit_verdict_name(r.verdict), (unsigned long long)r.tail, x.broken, c.name);
    if (n < ALL && seg->n > seg1.n)
        assert_true(x.recovered || seg->p[seg->n - 1] == '\n'); /* what was set aside is told, unless whole lines are simply not there */
}

static bool all_of(size_t i, void *arg) { return (void)i, (void)arg, true; }
static bool before(size_t i, void *arg) { return i < *(size_t *)arg; }
static bool but(size_t i, void *arg) { return i != *(size_t *)arg; }
static bool only(size_t i, void *arg) { return i == *(size_t *)arg; }
static bool some(size_t i, void *arg)
{
    uint64_t h = (*(uint64_t *)arg + i + 1) * 0x9e3779b97f4a7c15u;
    return (h >> 40) % 4 != 0;
}

static void try_segment(size_t size, bool (*keep)(size_t i, void *arg), void *arg, const char *what, size_t k)
{
    struct bytes b = image(&seg1, &seg2, size, keep, arg);
    goes_on(&b, &heads1, &remembered1, DURABLE, what, k);
    free(b.p);
}

static void power_cut(void **state)
{
    (void)state;
    size_t first = seg1.n / SECTOR, last = (seg2.n + SECTOR - 1) / SECTOR;
    for (size_t s = first; s <= last; s += STEP) {
        size_t end = s * SECTOR < seg1.n ? seg1.n : s * SECTOR > seg2.n ? seg2.n : s * SECTOR, k = s - first;
        try_segment(end, all_of, NULL, "cut at sector", s);
        try_segment(seg2.n, before, &k, "zeros from sector", s);
        try_segment(seg2.n, but, &k, "all but sector", s);
        try_segment(seg2.n, only, &k, "only sector", s);
    }
    for (uint64_t i = 0; i < 300 / STEP; i++) {
        uint64_t r = i * 7919;
        size_t size = seg1.n + (size_t)(r * 31 % (seg2.n - seg1.n + 1));
        try_segment(i % 3 ? size : seg2.n, some, &r, "some sectors, case", i);
    }
    print_message("%u images\n", images);
}

/* The head was signed, and remembered by the key manager; the file that it was being written to has some of it. */
static void power_cut_heads(void **state)
{
    (void)state;
    size_t first = heads1.n / SECTOR, last = (heads2.n + SECTOR - 1) / SECTOR;
    for (size_t s = first; s <= last; s++) {
        size_t end = s * SECTOR < heads1.n ? heads1.n : s * SECTOR > heads2.n ? heads2.n : s * SECTOR, k = s - first;
        struct bytes all[] = { image(&heads1, &heads2, end, all_of, NULL), image(&heads1, &heads2, heads2.n, before, &k), image(&heads1, &heads2, heads2.n, but, &k),
                               image(&heads1, &heads2, heads2.n, only, &k) };
        for (unsigned i = 0; i < 4; i++) {
            goes_on(&seg2, &all[i], &remembered2, ALL, "heads, sector", s * 4 + i);
            free(all[i].p);
        }
    }
}

/* ---- a chain that cannot be continued, and records in memory ------------------------------------------------------------------------------------- */

static void count_open(struct lg_audit_log *l)
{
    static struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "file.open");
    r.has = LG_AUDIT_WHO;
    r.uid = 1000;
    lg_audit_count(l, &r, NULL, NULL);
}

static int in_child(void (*f)(const struct lg_audit_options *o), const struct lg_audit_options *o)
{
    int status;
    pid_t pid = fork();
    if (!pid) {
        f(o);
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void killed_at_work(const struct lg_audit_options *o)
{
    struct lg_audit_log *l;
    if (lg_audit_open(o, &sh->last, &l))
        _exit(1);
    for (unsigned i = 1; i <= 10; i++)
        put(l, i);
    count_open(l); /* a window begins */
    if (lg_audit_flush(l, false) || sign(l))
        _exit(2);
    atomic_store(&sh->die, true); /* whatever is written from here on is not */
    for (unsigned i = 0; i < 5; i++)
        count_open(l);
    for (unsigned i = 11; i <= 30; i++)
        put(l, i);
    nanosleep(&(struct timespec){ 300, 0 }, NULL);
}

static void killed_at_start(const struct lg_audit_options *o)
{
    struct lg_audit_log *l;
    atomic_store(&sh->die, true);
    (void)!lg_audit_open(o, &sh->last, &l);
    nanosleep(&(struct timespec){ 300, 0 }, NULL);
}

static void taken_over(void **state)
{
    (void)state;
    for (unsigned again = 0; again < 2; again++) {
        static struct seen x;
        char dir[128], shm[128], path[256];
        struct lg_audit_log *l;
        struct lg_audit_chain c;
        struct stat st;
        snprintf(dir, sizeof dir, "%s/broken%u", top, again);
        snprintf(shm, sizeof shm, "%s/ring%u", top, again);
        assert_int_equal(mkdir(shm, 0700), 0);
        struct lg_audit_options o = options(dir, shm);
        o.window_s = 1000;
        sh->last = (struct lg_audit_head){ .n = 0 };
        int code = in_child(killed_at_work, &o);
        if (code != 99)
            fail_msg("the child ended with %d", code);
        atomic_store(&sh->die, false);
        snprintf(path, sizeof path, "%s/x/00000001.jsonl", dir);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size / 2), 0); /* shorter than what was signed */
        if (again) {
            assert_int_equal(in_child(killed_at_start, &o), 99);
            atomic_store(&sh->die, false);
        }
        struct lg_audit_head none = { .n = 0 };
        assert_int_equal(lg_audit_open(&o, again ? &none : &sh->last, &l), 0); /* of the second chain nothing was signed */
        put(l, AFTER);
        assert_int_equal(lg_audit_flush(l, true), 0);
        lg_audit_close(l);
        assert_int_equal(lg_audit_find(dir, "x", &c), 0);
        assert_string_equal(c.name, "x.2");
        memset(&x, 0, sizeof x);
        assert_int_equal(lg_audit_read(dir, c.name, 0, see, &x), 0);
        for (unsigned i = 1; i <= 30; i++)
            if (x.times[i] != (i > 10))
                fail_msg("record %u stands %u times in the new chain", i, x.times[i]);
        assert_int_equal(x.opens, 5);
        assert_true(x.recovered == 1 && x.times[AFTER] == 1 && x.broken == 1); /* told even by the second that was started after it */
        DIR *d = opendir(shm);
        for (struct dirent *e; (e = readdir(d));)
            assert_int_equal(e->d_name[0], '.'); /* nothing waits any more */
        closedir(d);
    }
}

static int clean(void **state)
{
    (void)state;
    remove_tree(top);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(make_log), cmocka_unit_test(power_cut), cmocka_unit_test(power_cut_heads), cmocka_unit_test(taken_over) };
    snprintf(top, sizeof top, "/dev/shm/lg-auditcrash-XXXXXX");
    sh = mmap(NULL, sizeof *sh, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (sh == MAP_FAILED || !mkdtemp(top) || lg_secret_init(true) || lg_crypto_init() || !(seed = lg_secret_random()) || lg_sign_public(seed, pub))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, clean);
    for (struct bytes *b[] = { &chain_file, &heads1, &heads2, &seg1, &seg2 }, **p = b; p < b + 5; p++)
        free((*p)->p);
    lg_secret_free(seed);
    return rc;
}
