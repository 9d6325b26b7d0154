/* What writing and reading a file costs below: bytes are sealed and written once, many chunks in one call, small appends when they are committed, and nothing is made durable
 * that nobody asked to be. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "filekeys.h"
#include "leadglass/file.h"
#include "leadglass/format.h"

enum { CS = 16384, SLICE = 512 * 1024, PIECE = 64 * 1024, APPENDS = 100 };

static struct {
    unsigned writes, reads, durable, looks, seeks;
    size_t written, read;
} n;

static ssize_t count_pwritev(void *arg, int fd, const struct iovec *iov, int k, off_t off)
{
    ssize_t w = lg_sys_posix.pwritev(arg, fd, iov, k, off);
    n.writes++;
    n.written += w > 0 ? (size_t)w : 0;
    return w;
}
static ssize_t count_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    ssize_t r = lg_sys_posix.pread(arg, fd, buf, len, off);
    n.reads++;
    n.read += r > 0 ? (size_t)r : 0;
    return r;
}
static ssize_t count_pread_cached(void *arg, int fd, void *buf, size_t len, off_t off) { return count_pread(arg, fd, buf, len, off); }
static int count_fdatasync(void *arg, int fd) { return n.durable++, lg_sys_posix.fdatasync(arg, fd); }
static int count_fsync(void *arg, int fd) { return n.durable++, lg_sys_posix.fsync(arg, fd); }
static int count_fstat(void *arg, int fd, struct stat *st) { return n.looks++, lg_sys_posix.fstat(arg, fd, st); }

static off_t count_lseek(void *arg, int fd, off_t off, int whence) { return n.seeks++, lg_sys_posix.lseek(arg, fd, off, whence); }

static struct lg_sys sys;
static struct lg_keys keys;
static struct lg_file_env env;
static struct filedir dir;

static int set_up(void **state)
{
    (void)state;
    sys = lg_sys_posix;
    sys.pwritev = count_pwritev, sys.pread = count_pread, sys.pread_cached = count_pread_cached, sys.fdatasync = count_fdatasync, sys.fsync = count_fsync,
    sys.fstat = count_fstat, sys.lseek = count_lseek;
    env = (struct lg_file_env){ .sys = &sys, .keys = &keys, .chunk_size = CS, .session = 2 };
    filedir_make(&dir, &env);
    return 0;
}

static int take_down(void **state)
{
    (void)state;
    return filedir_remove(&dir, &env);
}

static struct lg_file *begun(bool anew)
{
    struct lg_file *f;
    int fd = openat(dir.fd, "f", O_RDWR | O_CREAT | (anew ? O_TRUNC : 0), 0600);
    assert_int_equal(anew ? lg_file_create(&env, fd, "f", &f) : lg_file_open(&env, fd, "f", &f), 0);
    memset(&n, 0, sizeof n);
    return f;
}

static void said(const char *what) { print_message("%s: %u writes of %zu bytes, %u reads of %zu bytes, %u times made durable\n", what, n.writes, n.written, n.reads, n.read, n.durable); }

static void test_slice(void **state)
{
    (void)state;
    static uint8_t plain[SLICE], got[SLICE];
    for (size_t i = 0; i < SLICE; i++)
        plain[i] = (uint8_t)(i * 31 >> 3);
    struct lg_file *f = begun(true);
    for (size_t at = 0; at < SLICE; at += PIECE)
        assert_int_equal(lg_file_write(f, plain + at, PIECE, at), 0);
    assert_int_equal(lg_file_commit(f), 0);
    said("slice written");
    assert_true(n.writes <= SLICE / PIECE + 4); /* one for each request's four chunks; header, table, commit slot */
    assert_true(n.written <= SLICE + 32 * 1024); /* sealed once: no byte of it goes through the journal as well */
    assert_int_equal(n.reads, 0);
    assert_int_equal(n.durable, 0);
    assert_int_equal(lg_file_sync(f), 0);
    assert_true(n.durable >= 1); /* now somebody asked */
    lg_file_free(f);

    f = begun(false);
    assert_int_equal(lg_file_read(f, got, SLICE, 0), SLICE);
    said("slice read");
    assert_memory_equal(got, plain, SLICE);
    assert_true(n.reads <= SLICE / (128 * 1024) + 2); /* parts of 128 KiB, and the table */
    assert_true(n.read <= SLICE + 32 * 1024);
    assert_int_equal(n.writes, 0);
    lg_file_free(f);
}

static void test_small(void **state)
{
    (void)state;
    static const uint8_t plain[4096] = "small";
    struct lg_file *f = begun(true);
    assert_int_equal(lg_file_commit(f), 0); /* empty, as a new file is */
    assert_int_equal(n.writes, 1);
    assert_int_equal(lg_file_write(f, plain, sizeof plain, 0), 0);
    assert_int_equal(n.writes, 1);
    assert_int_equal(lg_file_commit(f), 0);
    assert_int_equal(n.writes, 2); /* header and chunk together */
    lg_file_free(f);
    said("4 KiB written");
    assert_int_equal(n.writes, 2);
    assert_int_equal(n.looks, 0);
    assert_int_equal(n.reads, 0);
    assert_int_equal(n.durable, 0);
}

static void test_appends(void **state)
{
    (void)state;
    static const uint8_t line[160] = "2026-01-01 received";
    struct lg_file *f = begun(true);
    assert_int_equal(lg_file_write(f, line, sizeof line, 0), 0);
    assert_int_equal(lg_file_commit(f), 0);
    memset(&n, 0, sizeof n);
    for (unsigned i = 1; i <= APPENDS; i++)
        assert_int_equal(lg_file_write(f, line, sizeof line, i * sizeof line), 0);
    said("appended");
    assert_int_equal(n.writes, 0);
    assert_int_equal(lg_file_commit(f), 0);
    said("committed");
    assert_true(n.writes <= 4);
    assert_true(n.durable <= 1); /* the last chunk, of which a part was committed before, changes in place only once the journal holds it: docs/FORMAT.md */
    lg_file_free(f);
}

/* Of size bytes, of which every so many have one chunk written; 0: none. */
static void open_sparse(uint64_t size, uint64_t every)
{
    static const uint8_t plain[CS];
    struct lg_file *f = begun(true);
    assert_int_equal(lg_file_truncate(f, size), 0);
    for (uint64_t at = 0; every && at < size; at += every)
        assert_int_equal(lg_file_write(f, plain, CS, at), 0);
    lg_file_free(f);
    memset(&n, 0, sizeof n);
    int fd = openat(dir.fd, "f", O_RDWR);
    assert_int_equal(lg_file_open(&env, fd, "f", &f), 0);
    said(every ? "a sparse file opened" : "a hole opened");
    print_message("%u times asked where data is\n", n.seeks);
    lg_file_free(f);
}

/* An application may set its file's space aside before it writes. The table is little then, and to look for data in all the rest is dear in tmpfs; the table of a sparse file of
 * terabytes is not read from end to end. */
static void test_holes(void **state)
{
    (void)state;
    int fd = openat(dir.fd, "f", O_RDWR | O_CREAT, 0600);
    bool holes = !ftruncate(fd, 9ll << 40) && lseek(fd, 0, SEEK_DATA) < 0;
    close(fd);
    if (!holes) {
        print_message("SKIPPED: the filesystem of /tmp does not tell the holes of a file of 9 TiB\n");
        skip();
    }
    open_sparse(1ull << 30, 0);
    assert_int_equal(n.seeks, 0);
    assert_true(n.read <= 2 * ((1u << 30) / CS * LG_ENTRY_LEN) + LG_HEADER_LEN); /* to the end of its last region */
    open_sparse(1ull << 43, 0);
    assert_int_equal(n.seeks, 1); /* there is nothing, and once is enough to know */
    assert_true(n.read < 8u << 20);
    open_sparse(1ull << 38, 1ull << 31); /* 128 chunks, each in its own 4 MiB of the table */
    assert_true(n.read < 32u << 20 && n.seeks < 200);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_slice, set_up, take_down), cmocka_unit_test_setup_teardown(test_small, set_up, take_down),
                                        cmocka_unit_test_setup_teardown(test_appends, set_up, take_down), cmocka_unit_test_setup_teardown(test_holes, set_up, take_down) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
