/* The follower of access logs: over restarts, segments that end, are compressed and pruned, chains that appear and vanish, and tampering of every kind. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "../../keymgr/audit/dir.h"
#include "../../keymgr/audit/pack.h"
#include "leadglass/follow.h"

static char top[64], where[128];
static uint8_t file[LG_FOLLOW_FILE_MAX];

/* A log written by hand. */
struct writer {
    char name[32];
    uint8_t id[LG_ID_LEN], hash[LG_MAC_LEN];
    uint64_t seq;
    unsigned segment;
    int64_t time_us;
};

static void path_of(const struct writer *w, const char *what, char out[256]) { snprintf(out, 256, "%s/log/%s/%s", top, w->name, what); }

static void segment_path(const struct writer *w, unsigned segment, enum lg_audit_file kind, char out[256])
{
    char name[LG_AUDIT_FILE_NAME];
    lg_audit_file_name(segment, kind, name);
    path_of(w, name, out);
}

static void append(const struct writer *w, const char *s, size_t n)
{
    char path[256];
    segment_path(w, w->segment, LG_AUDIT_PLAIN, path);
    int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    assert_true(fd >= 0 && write(fd, s, n) == (ssize_t)n);
    close(fd);
}

static size_t make_line(struct writer *w, char line[LG_AUDIT_LINE_MAX + 1])
{
    static struct lg_audit_record r;
    size_t len;
    lg_audit_record_init(&r);
    r.seq = ++w->seq;
    r.time_us = w->time_us += 1000;
    memcpy(r.chain, w->id, sizeof r.chain);
    snprintf(r.event, sizeof r.event, "file.open");
    assert_int_equal(lg_audit_record_encode(&r, w->hash, line, LG_AUDIT_LINE_MAX, &len), 0);
    memcpy(w->hash, r.hash, sizeof w->hash);
    line[len++] = '\n';
    return len;
}

static void put(struct writer *w, unsigned n)
{
    static char line[LG_AUDIT_LINE_MAX + 1];
    while (n--) {
        size_t len = make_line(w, line);
        append(w, line, len);
    }
}

static struct writer begin(const char *name, uint8_t id)
{
    struct writer w = { .segment = 1, .time_us = 1764019805000000 };
    struct lg_audit_chain c = { .kind = "mount" };
    char path[256];
    snprintf(w.name, sizeof w.name, "%s", name);
    memset(w.id, id, LG_ID_LEN);
    memset(c.id, id, LG_ID_LEN);
    lg_audit_genesis(w.id, w.hash);
    path_of(&w, "", path);
    assert_int_equal(mkdir(path, 0700), 0);
    int fd = open(path, O_RDONLY | O_DIRECTORY);
    assert_int_equal(lg_audit_chain_write(fd, &c), 0);
    close(fd);
    return w;
}

static void compress(const struct writer *w, unsigned segment)
{
    char from[256], to[256];
    segment_path(w, segment, LG_AUDIT_PLAIN, from);
    segment_path(w, segment, LG_AUDIT_PACKED, to);
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    assert_int_equal(lg_pack(in, out), 0);
    close(in);
    close(out);
    assert_int_equal(unlink(from), 0);
}

static void prune(const struct writer *w, unsigned segment)
{
    char path[256];
    segment_path(w, segment, LG_AUDIT_PLAIN, path);
    if (unlink(path)) {
        segment_path(w, segment, LG_AUDIT_PACKED, path);
        assert_int_equal(unlink(path), 0);
    }
}

static int fresh(void **state)
{
    char cmd[128];
    (void)state;
    snprintf(top, sizeof top, "/tmp/follow-XXXXXX");
    assert_non_null(mkdtemp(top));
    snprintf(cmd, sizeof cmd, "%s/log", top);
    snprintf(where, sizeof where, "%s/position", top);
    return mkdir(cmd, 0700);
}

static int clean(void **state)
{
    char cmd[128];
    (void)state;
    snprintf(cmd, sizeof cmd, "rm -rf %s", top);
    return system(cmd);
}

static struct lg_follow *follow(bool all, uint64_t last)
{
    char dir[128];
    struct lg_follow *f = NULL;
    snprintf(dir, sizeof dir, "%s/log", top);
    struct lg_follow_options o = { .dir = dir, .position = where, .all = all, .last = last };
    assert_int_equal(lg_follow_open(&o, &f), 0);
    return f;
}

static void stop(struct lg_follow *f)
{
    assert_int_equal(lg_follow_save(f, "note", 4), 0);
    lg_follow_close(f);
}

static void gives(struct lg_follow *f, uint64_t from, uint64_t to)
{
    struct lg_followed x;
    for (uint64_t i = from; i <= to; i++) {
        assert_int_equal(lg_follow_next(f, &x), 1);
        if (!x.record)
            fail_msg("%s %llu-%llu instead of record %llu", lg_audit_verdict_name(x.finding.what), (unsigned long long)x.finding.from, (unsigned long long)x.finding.to, (unsigned long long)i);
        assert_int_equal(x.record->seq, i);
    }
}

static void finds(struct lg_follow *f, enum lg_audit_verdict what, uint64_t from, uint64_t to)
{
    struct lg_followed x;
    int rc = 0;
    for (unsigned i = 0; i < 2400 && (rc = lg_follow_next(f, &x)) == 0; i++)
        usleep(50000); /* it looks for what has vanished once a second */
    assert_int_equal(rc, 1);
    if (x.record || x.finding.what != what || x.finding.from != from || x.finding.to != to)
        fail_msg("%s %llu-%llu instead of %s %llu-%llu", x.record ? "a record" : lg_audit_verdict_name(x.finding.what), (unsigned long long)x.finding.from,
                 (unsigned long long)x.finding.to, lg_audit_verdict_name(what), (unsigned long long)from, (unsigned long long)to);
}

static void nothing(struct lg_follow *f)
{
    struct lg_followed x;
    assert_int_equal(lg_follow_next(f, &x), 0);
}

/* ---- what is right ---------------------------------------------------------------------------------------------------------------- */

static void resumes(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7);
    size_t len;
    put(&w, 10);
    struct lg_follow *f = follow(true, 0);
    assert_false(lg_follow_resumed(f));
    gives(f, 1, 4);
    stop(f);
    f = follow(true, 0);
    assert_true(lg_follow_resumed(f));
    assert_memory_equal(lg_follow_note(f, &len), "note", 4);
    assert_int_equal(len, 4);
    gives(f, 5, 10);
    nothing(f);
    put(&w, 3);
    gives(f, 11, 13);
    nothing(f);
    lg_follow_close(f); /* as if killed: what was given since the last save comes again */
    f = follow(false, 0);
    gives(f, 5, 13);
    stop(f);
    put(&w, 2);
    f = follow(false, 0);
    gives(f, 14, 15);
    nothing(f);
    stop(f);
}

static void begins_at_the_end(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7), v = begin("keyd", 8);
    put(&w, 10);
    w.segment = 2;
    put(&w, 2);
    struct lg_follow *f = follow(false, 0);
    nothing(f);
    put(&w, 1);
    put(&v, 1);
    struct lg_followed x;
    assert_int_equal(lg_follow_next(f, &x), 1); /* the oldest first, whichever chain it is of */
    assert_string_equal(x.chain->name, "keyd");
    gives(f, 13, 13);
    lg_follow_close(f);
    f = follow(false, 5); /* across the segments */
    gives(f, 1, 1);
    gives(f, 9, 13);
    nothing(f);
    lg_follow_close(f);
}

static void lines_being_written(void **state)
{
    (void)state;
    static char line[LG_AUDIT_LINE_MAX + 1];
    struct writer w = begin("mount-1", 7), before;
    put(&w, 2);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 2);
    before = w;
    size_t len = make_line(&w, line);
    append(&w, line, len / 2);
    nothing(f);
    append(&w, line + len / 2, len - len / 2);
    gives(f, 3, 3);
    /* a line that a crash cut off is taken back, and another stands there */
    before = w;
    char path[256];
    segment_path(&w, 1, LG_AUDIT_PLAIN, path);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    len = make_line(&w, line);
    append(&w, line, len / 2);
    nothing(f);
    assert_int_equal(truncate(path, st.st_size), 0);
    w = before;
    w.time_us += 5;
    put(&w, 1);
    gives(f, 4, 4);
    nothing(f);
    lg_follow_close(f);
}

static void segments(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7);
    put(&w, 1000);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 300);
    stop(f);
    w.segment = 2; /* away: it ends, is compressed, another begins */
    put(&w, 10);
    compress(&w, 1);
    f = follow(true, 0);
    gives(f, 301, 1005);
    w.segment = 3; /* in the middle of it */
    put(&w, 10);
    compress(&w, 2);
    gives(f, 1006, 1020);
    nothing(f);
    w.segment = 4;
    append(&w, "", 0); /* begun, not yet written */
    nothing(f);
    w.segment = 3;
    put(&w, 1);
    gives(f, 1021, 1021);
    w.segment = 4;
    put(&w, 1);
    gives(f, 1022, 1022);
    stop(f);
    for (unsigned i = 1; i <= 3; i++)
        prune(&w, i);
    f = follow(true, 0);
    put(&w, 1);
    gives(f, 1023, 1023);
    stop(f);
}

static void pruned_beneath(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7);
    put(&w, 10);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 10);
    stop(f);
    for (w.segment = 2; w.segment <= 4; w.segment++)
        put(&w, 10);
    w.segment = 4;
    for (unsigned i = 1; i <= 3; i++)
        prune(&w, i);
    f = follow(false, 0);
    finds(f, LG_AUDIT_MISSING, 11, 30);
    gives(f, 31, 40);
    nothing(f);
    lg_follow_close(f);
    assert_int_equal(unlink(where), 0); /* without a position the beginning is where the log begins */
    f = follow(true, 0);
    gives(f, 31, 40);
    lg_follow_close(f);
}

static void chains_appear(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7);
    struct lg_followed x;
    put(&w, 3);
    struct lg_follow *f = follow(false, 0);
    nothing(f);
    struct writer v = begin("mount-1.2", 9);
    put(&v, 3);
    for (int rc = 0; !rc;) {
        rc = lg_follow_next(f, &x);
        usleep(50000);
    }
    assert_string_equal(x.chain->name, "mount-1.2");
    gives(f, 2, 3);
    stop(f);
    struct writer u = begin("mount-1.3", 10); /* while nobody followed */
    put(&u, 3);
    f = follow(false, 0);
    gives(f, 1, 3);
    nothing(f);
    stop(f);
}

/* ---- what is wrong ------------------------------------------------------------------------------------------------------------------ */

static char *whole(const struct writer *w, size_t *ret_len, char path[256])
{
    segment_path(w, w->segment, LG_AUDIT_PLAIN, path);
    int fd = open(path, O_RDONLY);
    char *s = calloc(1, 1 << 20);
    *ret_len = (size_t)read(fd, s, (1 << 20) - 1);
    close(fd);
    return s;
}

static void rewrite(const char *path, const char *a, size_t an, const char *b, size_t bn)
{
    int fd = open(path, O_WRONLY | O_TRUNC);
    assert_true(fd >= 0 && write(fd, a, an) == (ssize_t)an && write(fd, b, bn) == (ssize_t)bn);
    close(fd);
}

static char *nth(char *s, unsigned n)
{
    while (--n)
        s = strchr(s, '\n') + 1;
    return s;
}

static void tampered(void **state)
{
    (void)state;
    char path[256], vpath[256];
    size_t len, vlen;
    struct writer w = begin("mount-1", 7), v = begin("mount-2", 8);
    put(&w, 10);
    put(&v, 10);
    char *s = whole(&w, &len, path);
    struct lg_follow *f = follow(false, 0);
    lg_follow_close(f);
    char *third = nth(s, 3), *fourth = nth(s, 4);

    strstr(third, "open")[0] = 'O'; /* a changed byte */
    rewrite(path, s, len, "", 0);
    strstr(third, "Open")[0] = 'o';
    path_of(&v, "chain", vpath);
    unlink(vpath); /* only the first chain from here on */
    unlink(where);
    f = follow(true, 0);
    gives(f, 1, 2);
    finds(f, LG_AUDIT_ALTERED, 3, 3);
    finds(f, LG_AUDIT_ALTERED, 3, 3); /* "Open" is no event: not even a record */
    gives(f, 4, 10);
    nothing(f);
    lg_follow_close(f);

    rewrite(path, s, (size_t)(third - s), fourth, len - (size_t)(fourth - s)); /* removed */
    f = follow(true, 0);
    gives(f, 1, 2);
    finds(f, LG_AUDIT_MISSING, 3, 3);
    gives(f, 4, 10);
    nothing(f);
    lg_follow_close(f);

    rewrite(path, s, (size_t)(fourth - s), third, len - (size_t)(third - s)); /* twice */
    f = follow(true, 0);
    gives(f, 1, 3);
    finds(f, LG_AUDIT_REORDERED, 3, 3);
    gives(f, 4, 10);
    nothing(f);
    lg_follow_close(f);

    char *t = whole(&v, &vlen, vpath);
    *nth(t, 2) = 0; /* record 1 of another chain */
    rewrite(path, s, len, t, strlen(t));
    f = follow(true, 0);
    gives(f, 1, 10);
    finds(f, LG_AUDIT_FOREIGN, 11, 11);
    nothing(f);
    lg_follow_close(f);

    rewrite(path, s, (size_t)(third - s), "what?\n", 6);
    f = follow(true, 0);
    gives(f, 1, 2);
    finds(f, LG_AUDIT_ALTERED, 3, 3);
    nothing(f);
    lg_follow_close(f);

    static char longer[3 * LG_AUDIT_LINE_MAX];
    memset(longer, 'x', sizeof longer);
    longer[sizeof longer - 1] = '\n';
    rewrite(path, s, len, longer, sizeof longer); /* longer than any line */
    put(&w, 1);
    f = follow(true, 0);
    gives(f, 1, 10);
    finds(f, LG_AUDIT_ALTERED, 11, 11);
    gives(f, 11, 11);
    nothing(f);
    lg_follow_close(f);

    rewrite(path, s, len, "", 0); /* rewritten from the third on, and chained anew, between two sittings */
    f = follow(true, 0);
    gives(f, 1, 5);
    stop(f);
    struct writer x = begin("elsewhere", 7);
    x.time_us++;
    put(&x, 10);
    char xpath[256], *y = whole(&x, &vlen, xpath);
    rewrite(path, y, vlen, "", 0);
    unlink(xpath);
    path_of(&x, "chain", xpath);
    unlink(xpath);
    f = follow(true, 0);
    finds(f, LG_AUDIT_ALTERED, 6, 6);
    gives(f, 6, 10);
    nothing(f);
    lg_follow_close(f);
    free(s);
    free(t);
    free(y);
}

static void shortened(void **state)
{
    (void)state;
    char path[256];
    size_t len;
    struct writer w = begin("mount-1", 7), at5;
    put(&w, 5);
    at5 = w;
    char *s = whole(&w, &len, path);
    put(&w, 5);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 10);
    assert_int_equal(truncate(path, (off_t)len), 0); /* beneath it */
    finds(f, LG_AUDIT_TRUNCATED, 6, 10);
    nothing(f);
    w = at5;
    w.time_us++;
    put(&w, 2);
    gives(f, 6, 7); /* what is written from there on is told */
    stop(f);
    rewrite(path, s, len, "", 0); /* while nobody followed */
    f = follow(true, 0);
    finds(f, LG_AUDIT_TRUNCATED, 6, 7);
    nothing(f);
    stop(f);
    f = follow(true, 0); /* told once */
    nothing(f);
    w = at5;
    put(&w, 1);
    gives(f, 6, 6);
    char other[300];
    snprintf(other, sizeof other, "%s.tmp", path); /* another file of that name, with one record more */
    assert_int_equal(rename(path, other), 0);
    int fd = open(path, O_WRONLY | O_CREAT, 0600);
    close(fd);
    char *t = calloc(1, 1 << 20);
    fd = open(other, O_RDONLY);
    ssize_t n = read(fd, t, 1 << 20);
    close(fd);
    rewrite(path, t, (size_t)n, "", 0);
    put(&w, 1);
    struct lg_followed x;
    for (int rc = 0; !rc; usleep(50000))
        rc = lg_follow_next(f, &x);
    assert_non_null(x.record);
    assert_int_equal(x.record->seq, 7);
    stop(f);
    free(s);
    free(t);
}

static void vanished(void **state)
{
    (void)state;
    char cmd[256];
    struct writer w = begin("mount-1", 7);
    put(&w, 5);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 5);
    stop(f);
    snprintf(cmd, sizeof cmd, "mv %s/log/mount-1 %s/gone", top, top);
    assert_int_equal(system(cmd), 0);
    f = follow(true, 0);
    finds(f, LG_AUDIT_TRUNCATED, 1, 5);
    nothing(f);
    stop(f);
    f = follow(true, 0); /* once */
    nothing(f);
    stop(f);
    snprintf(cmd, sizeof cmd, "mv %s/gone %s/log/back", top, top);
    assert_int_equal(system(cmd), 0);
    snprintf(w.name, sizeof w.name, "back");
    put(&w, 1);
    f = follow(true, 0); /* by another name: on from where we were */
    gives(f, 6, 6);
    snprintf(cmd, sizeof cmd, "mv %s/log/back %s/gone", top, top);
    assert_int_equal(system(cmd), 0);
    finds(f, LG_AUDIT_TRUNCATED, 1, 6); /* while following */
    nothing(f);
    stop(f);
    snprintf(cmd, sizeof cmd, "mv %s/log %s/elsewhere", top, top);
    assert_int_equal(system(cmd), 0);
    struct lg_follow_options o = { .dir = cmd, .position = where };
    snprintf(cmd, sizeof cmd, "%s/log", top);
    assert_int_equal(lg_follow_open(&o, &f), -ENOENT); /* the log as a whole: not an empty one */
}

/* Segments of ten records, as many as newest says: the first two compressed, the second of them cut in the middle. */
static struct writer second_cut(unsigned newest)
{
    char path[256];
    struct writer w = begin("mount-1", 7);
    put(&w, 10);
    while (w.segment < newest) {
        w.segment++;
        put(&w, 10);
    }
    compress(&w, 1);
    compress(&w, 2);
    segment_path(&w, 2, LG_AUDIT_PACKED, path);
    assert_int_equal(truncate(path, 100), 0);
    return w;
}

static void damaged(void **state)
{
    (void)state;
    second_cut(3);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 10);
    finds(f, LG_AUDIT_UNREADABLE, 11, 11);
    finds(f, LG_AUDIT_MISSING, 11, 20);
    gives(f, 21, 30);
    nothing(f);
    stop(f);
}

/* The newest segment there is, compressed, cannot be read to its end: it is told once, and what comes behind it is read when it comes. From its end, too. */
static void damaged_last(void **state)
{
    (void)state;
    struct writer w = second_cut(2);
    struct lg_follow *f = follow(true, 0);
    gives(f, 1, 10);
    finds(f, LG_AUDIT_UNREADABLE, 11, 11);
    nothing(f);
    w.segment = 3;
    put(&w, 10);
    finds(f, LG_AUDIT_MISSING, 11, 20);
    gives(f, 21, 30);
    nothing(f);
    stop(f);
}

/* ---- the position ------------------------------------------------------------------------------------------------------------------ */

static void position_file(void **state)
{
    (void)state;
    struct writer w = begin("mount-1", 7);
    struct lg_follow_position p[LG_FOLLOW_CHAINS_MAX];
    const uint8_t *note;
    unsigned n;
    size_t note_len;
    char dir[128];
    put(&w, 5);
    struct lg_follow *f = follow(true, 0), *g;
    gives(f, 1, 3);
    assert_int_equal(lg_follow_save(f, "note", 4), 0);
    snprintf(dir, sizeof dir, "%s/log", top);
    struct lg_follow_options o = { .dir = dir, .position = where };
    assert_int_equal(lg_follow_open(&o, &g), -EWOULDBLOCK);
    lg_follow_close(f);
    int fd = open(where, O_RDONLY);
    ssize_t len = read(fd, file, sizeof file);
    close(fd);
    assert_int_equal(lg_follow_decode(file, (size_t)len, p, &n, &note, &note_len), 0);
    assert_int_equal(n, 1);
    assert_int_equal(p[0].seq, 3);
    for (ssize_t i = 0; i < len; i++) {
        assert_int_equal(lg_follow_decode(file, (size_t)i, p, &n, &note, &note_len), -EPROTO);
        file[i] ^= 1;
        assert_int_equal(lg_follow_decode(file, (size_t)len, p, &n, &note, &note_len), -EPROTO);
        file[i] ^= 1;
    }
    assert_int_equal(truncate(where, 20), 0);
    assert_int_equal(lg_follow_open(&o, &g), -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(resumes, fresh, clean),        cmocka_unit_test_setup_teardown(begins_at_the_end, fresh, clean),
        cmocka_unit_test_setup_teardown(lines_being_written, fresh, clean), cmocka_unit_test_setup_teardown(segments, fresh, clean),
        cmocka_unit_test_setup_teardown(pruned_beneath, fresh, clean), cmocka_unit_test_setup_teardown(chains_appear, fresh, clean),
        cmocka_unit_test_setup_teardown(tampered, fresh, clean),       cmocka_unit_test_setup_teardown(shortened, fresh, clean),
        cmocka_unit_test_setup_teardown(vanished, fresh, clean),       cmocka_unit_test_setup_teardown(damaged, fresh, clean), cmocka_unit_test_setup_teardown(damaged_last, fresh, clean),
        cmocka_unit_test_setup_teardown(position_file, fresh, clean),
    };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
