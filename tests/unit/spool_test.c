/* The spool: order, bounds, restarts at every moment, damage at every byte; and the frames of RFC 5424 and 5425. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "frame.h"
#include "spool.h"

static char dir[64];
static struct lg_secret *key;
static unsigned said;
static char last_said[256];

static void hear(void *arg, int level, const char *text)
{
    (void)arg;
    (void)level;
    said++;
    snprintf(last_said, sizeof last_said, "%s", text);
}

static struct lg_spool *opened(const struct lg_spool_note *note, const struct lg_secret *with)
{
    struct lg_spool_options o = { .dir = dir, .key = with, .max = LG_SPOOL_MIN, .note = note, .say = hear };
    struct lg_spool *s = NULL;
    assert_int_equal(lg_spool_open(&o, &s), 0);
    return s;
}

static void empty_dir(void)
{
    char path[400];
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        unlink(path);
    }
    if (d)
        closedir(d);
}

/* The n-th of the segments in the directory's order of names. */
static void segment_path(unsigned n, char out[400])
{
    struct dirent **all;
    int count = scandir(dir, &all, NULL, alphasort);
    out[0] = 0;
    for (int i = 0; i < count; i++) {
        size_t l = strlen(all[i]->d_name);
        if (l > 6 && strcmp(all[i]->d_name + l - 6, ".spool") == 0 && n-- == 0)
            snprintf(out, 400, "%s/%s", dir, all[i]->d_name);
        free(all[i]);
    }
    free(all);
}

static void put(struct lg_spool *s, unsigned i)
{
    char text[200];
    int n = snprintf(text, sizeof text, "message %u of 1.2.840.113619", i);
    assert_int_equal(lg_spool_put(s, text, (size_t)n), 0);
}

/* Reads on from *at; the number in the message, or -1: none. */
static int got(struct lg_spool *s, struct lg_spool_place *at)
{
    static uint8_t out[LG_SPOOL_RECORD_MAX + 1];
    size_t n;
    int i, rc = lg_spool_next(s, at, out, &n);
    assert_true(rc == 0 || rc == 1);
    if (!rc)
        return -1;
    out[n] = 0;
    assert_int_equal(sscanf((char *)out, "message %d of 1.2.840.113619", &i), 1);
    return i;
}

static void in_order(void **state)
{
    (void)state;
    struct lg_spool_note note;
    struct lg_spool_state st;
    char path[400];
    empty_dir();
    struct lg_spool *s = opened(NULL, key);
    struct lg_spool_place at = lg_spool_first(s);
    assert_int_equal(got(s, &at), -1);
    for (unsigned i = 0; i < 9000; i++)
        put(s, i);
    assert_int_equal(lg_spool_sync(s, &note), 0);
    at = lg_spool_first(s);
    for (int i = 0; i < 4000; i++)
        assert_int_equal(got(s, &at), i);
    assert_int_equal(lg_spool_done(s, &at), 0);
    lg_spool_state(s, &st);
    assert_true(!st.empty && st.bytes < 9000 * 60 * 6 / 9); /* whole segments are gone */
    lg_spool_close(s);
    s = opened(&note, key); /* the receiver gets what it has not got, and what comes after */
    put(s, 9000);
    at = lg_spool_first(s);
    for (int i = 4000; i <= 9000; i++)
        assert_int_equal(got(s, &at), i);
    assert_int_equal(got(s, &at), -1);
    assert_int_equal(lg_spool_done(s, &at), 0);
    lg_spool_state(s, &st);
    segment_path(0, path);
    assert_true(st.empty && st.bytes == 0 && !path[0]); /* nothing of it is left on disk */
    put(s, 1);
    at = lg_spool_first(s);
    assert_int_equal(got(s, &at), 1);
    lg_spool_close(s);
    assert_int_equal(said, 0);
}

static void bounded(void **state)
{
    (void)state;
    static char big[LG_SPOOL_RECORD_MAX + 1];
    struct lg_spool_state st;
    empty_dir();
    struct lg_spool *s = opened(NULL, key);
    unsigned n = 0;
    int rc;
    assert_int_equal(lg_spool_put(s, big, sizeof big), -E2BIG);
    while ((rc = lg_spool_put(s, "message 7 of 1.2.840.113619", 27)) == 0)
        n++;
    assert_int_equal(rc, -ENOSPC);
    lg_spool_state(s, &st);
    assert_true(st.bytes <= LG_SPOOL_MIN && n > 20000);
    struct lg_spool_place at = lg_spool_first(s);
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(got(s, &at), 7); /* nothing old made room */
    assert_int_equal(got(s, &at), -1);
    assert_int_equal(lg_spool_done(s, &at), 0);
    assert_int_equal(lg_spool_put(s, "x", 1), 0);
    lg_spool_close(s);
}

/* Put, remembered, put, and gone: what was not remembered is taken back, wherever the write was torn. */
static void torn(void **state)
{
    (void)state;
    struct lg_spool_note note;
    struct stat st;
    char path[400];
    for (off_t cut = 0; cut < 60; cut++) {
        empty_dir();
        struct lg_spool *s = opened(NULL, key);
        for (unsigned i = 0; i < 3; i++)
            put(s, i);
        assert_int_equal(lg_spool_sync(s, &note), 0);
        put(s, 3);
        lg_spool_close(s);
        segment_path(0, path);
        assert_int_equal(stat(path, &st), 0);
        if (cut <= st.st_size - (off_t)note.end.offset)
            assert_int_equal(truncate(path, st.st_size - cut), 0);
        s = opened(&note, key);
        put(s, 3);
        struct lg_spool_place at = lg_spool_first(s);
        for (int i = 0; i < 4; i++)
            assert_int_equal(got(s, &at), i);
        assert_int_equal(got(s, &at), -1);
        lg_spool_close(s);
    }
    assert_int_equal(said, 0);
    /* Shorter than what was remembered: said. */
    assert_int_equal(truncate(path, (off_t)note.end.offset - 1), 0);
    struct lg_spool *s = opened(&note, key);
    assert_int_equal(said, 1);
    lg_spool_close(s);
    unlink(path);
    segment_path(0, path);
    unlink(path);
    said = 0;
    s = opened(&note, key);
    assert_true(said == 1 && strstr(last_said, "gone"));
    lg_spool_close(s);
    said = 0;
}

/* Whatever byte is changed, nothing but what was put comes out, in order, and what is missing is said. */
static void damage(void **state)
{
    (void)state;
    struct lg_spool_note note;
    struct stat st;
    char path[400];
    empty_dir();
    struct lg_spool *s = opened(NULL, key);
    put(s, 0);
    put(s, 1);
    assert_int_equal(lg_spool_sync(s, &note), 0);
    lg_spool_close(s);
    s = opened(&note, key); /* a second segment, that its key is known to be right */
    put(s, 2);
    assert_int_equal(lg_spool_sync(s, &note), 0);
    lg_spool_close(s);
    segment_path(0, path);
    assert_int_equal(stat(path, &st), 0);
    uint8_t *good = malloc((size_t)st.st_size);
    int fd = open(path, O_RDWR);
    assert_int_equal(pread(fd, good, (size_t)st.st_size, 0), st.st_size);
    close(fd);
    for (off_t i = 0; i < st.st_size; i++) {
        said = 0;
        fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
        assert_int_equal(pwrite(fd, good, (size_t)st.st_size, 0), st.st_size);
        uint8_t b = good[i] ^ 0x10;
        assert_int_equal(pwrite(fd, &b, 1, i), 1);
        close(fd);
        s = opened(&note, key);
        struct lg_spool_place at = lg_spool_first(s);
        int n, before = -1, count = 0;
        while ((n = got(s, &at)) >= 0) {
            assert_true(n > before && n < 3);
            before = n;
            count++;
        }
        assert_true(before == 2 && count < 3 && said);
        lg_spool_close(s);
        char aside[420];
        snprintf(aside, sizeof aside, "%s.damaged", path);
        assert_int_equal(access(aside, F_OK), 0);
        unlink(aside);
    }
    free(good);
    said = 0;
}

/* A record of one place put into another, or put again. */
static void moved(void **state)
{
    (void)state;
    enum { LEN = 27 + 20 };
    char path[400];
    uint8_t b[2 * LEN];
    for (int again = 0; again < 2; again++) {
        empty_dir();
        said = 0;
        struct lg_spool *s = opened(NULL, key);
        put(s, 0);
        put(s, 1);
        lg_spool_close(s);
        segment_path(0, path);
        int fd = open(path, O_RDWR);
        assert_int_equal(pread(fd, b, sizeof b, LG_SPOOL_HEADER), sizeof b);
        assert_int_equal(lseek(fd, 0, SEEK_END), LG_SPOOL_HEADER + sizeof b);
        assert_int_equal(pwrite(fd, b, LEN, LG_SPOOL_HEADER + LEN), LEN);
        if (!again)
            assert_int_equal(pwrite(fd, b + LEN, LEN, LG_SPOOL_HEADER), LEN);
        close(fd);
        s = opened(NULL, key);
        struct lg_spool_place at = lg_spool_first(s);
        if (again)
            assert_int_equal(got(s, &at), 0);
        assert_int_equal(got(s, &at), -1);
        assert_int_equal(said, 1);
        lg_spool_close(s);
    }
    said = 0;
}

static void another_key(void **state)
{
    (void)state;
    LG_SECRET_AUTO other = lg_secret_random();
    empty_dir();
    struct lg_spool *s = opened(NULL, key), *t;
    put(s, 0);
    lg_spool_close(s);
    struct lg_spool_options o = { .dir = dir, .key = other, .max = LG_SPOOL_MIN, .say = hear };
    assert_int_equal(lg_spool_open(&o, &t), -EKEYREJECTED);
    s = opened(NULL, key); /* and nothing happened to it */
    struct lg_spool_place at = lg_spool_first(s);
    assert_int_equal(got(s, &at), 0);
    lg_spool_close(s);
}

static void nothing_in_clear(void **state)
{
    (void)state;
    char path[400];
    static uint8_t b[65536];
    empty_dir();
    struct lg_spool *s = opened(NULL, key);
    for (unsigned i = 0; i < 100; i++)
        put(s, i);
    lg_spool_close(s);
    segment_path(0, path);
    int fd = open(path, O_RDONLY);
    ssize_t n = read(fd, b, sizeof b);
    close(fd);
    assert_true(n > 4000);
    assert_null(memmem(b, (size_t)n, "1.2.840", 7));
    assert_null(memmem(b, (size_t)n, "message", 7));
}

static void notes(void **state)
{
    (void)state;
    struct lg_spool_note n = { { 3, 77 }, { 4, 0 } }, m;
    uint8_t b[LG_SPOOL_NOTE + 1] = { 0 };
    lg_spool_note_encode(&n, b);
    assert_int_equal(lg_spool_note_decode(b, LG_SPOOL_NOTE, &m), 0);
    assert_memory_equal(&n, &m, sizeof n);
    assert_int_equal(lg_spool_note_decode(b, LG_SPOOL_NOTE - 1, &m), -EPROTO);
    assert_int_equal(lg_spool_note_decode(b, LG_SPOOL_NOTE + 1, &m), -EPROTO);
    n.first.segment = 5;
    lg_spool_note_encode(&n, b);
    assert_int_equal(lg_spool_note_decode(b, LG_SPOOL_NOTE, &m), -EPROTO);
}

static void frames(void **state)
{
    (void)state;
    struct lg_frame_header h = { .warning = true, .time_us = 1764019805123456, .host = "pacs 1\n\xc3\xa9", .pid = 77 };
    char out[LG_FRAME_MAX];
    size_t n;
    static const char want[] = "85 <84>1 2025-11-24T21:30:05.123456Z pacs?1??? leadglass 77 DICOM+RFC3881 - \xef\xbb\xbf<x>\xc3\xa9</x>";
    assert_int_equal(lg_frame_encode(&h, "<x>\xc3\xa9</x>", 9, out, sizeof out, &n), 0);
    assert_int_equal(n, sizeof want - 1);
    assert_memory_equal(out, want, n);
    assert_int_equal(strtoul(out, NULL, 10), n - 3); /* octets after the space */
    assert_int_equal(lg_frame_encode(&h, "<x/>", 4, out, 40, &n), -ENOSPC);
}

int main(void)
{
    static const struct CMUnitTest tests[] = { cmocka_unit_test(in_order), cmocka_unit_test(bounded), cmocka_unit_test(torn), cmocka_unit_test(damage), cmocka_unit_test(moved), cmocka_unit_test(another_key),
                                               cmocka_unit_test(nothing_in_clear), cmocka_unit_test(notes), cmocka_unit_test(frames) };
    if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_random()))
        return 1;
    snprintf(dir, sizeof dir, "/dev/shm/lg-spool-XXXXXX");
    if (!mkdtemp(dir))
        return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    empty_dir();
    rmdir(dir);
    lg_secret_free(key);
    return failed;
}
