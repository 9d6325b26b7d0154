/* What is taken out of a damaged file, and in how many reads: whoever makes a file longer or shorter below makes it no work. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "filekeys.h"
#include "leadglass/file.h"
#include "leadglass/format.h"
#include "leadglass/journal.h"

enum { CS = 4096, LEN = 100 * CS + 100, READS_MAX = 10000 };
#define FAR (1ull << 42)
#define LONG (1ull << 43)

static char dir[64];
static int dirfd, fd;
static struct lg_keys keys;
static struct lg_file_env env;
static struct lg_sys sys;
static unsigned reads, lost_n;
static uint64_t lost_from, lost_to, put_sum;
static uint8_t plain[101 * CS]; /* zeros behind LEN */

static ssize_t counted(void *arg, int from, void *buf, size_t len, off_t off)
{
    return ++reads > READS_MAX ? -EIO : lg_sys_posix.pread(arg, from, buf, len, off); /* it would go on for hours */
}

static int put(void *arg, uint64_t off, const void *data, size_t len)
{
    (void)arg;
    assert_memory_equal(data, plain + off % FAR, len);
    put_sum += len;
    return 0;
}

static int lost(void *arg, uint64_t from, uint64_t to)
{
    (void)arg;
    lost_from = lost_n++ ? lost_from : from;
    lost_to = to;
    return 0;
}

/* In the middle of it, and at its beginning, unless small. Closed. */
static void make(bool small)
{
    struct lg_file *f;
    fd = openat(dirfd, "root/f", O_RDWR | O_CREAT | O_TRUNC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(lg_file_create(&env, fcntl(fd, F_DUPFD_CLOEXEC, 3), "f", &f), 0);
    assert_int_equal(lg_file_write(f, plain, LEN, 0), 0);
    if (!small) {
        assert_int_equal(lg_file_write(f, plain, LEN, FAR), 0);
        assert_int_equal(lg_file_truncate(f, LONG), 0);
    }
    assert_int_equal(lg_file_sync(f), 0);
    lg_file_free(f);
    reads = lost_n = 0;
    put_sum = 0;
}

static struct lg_salvaged salvage(void)
{
    const struct lg_salvage_sink sink = { .put = put, .lost = lost };
    struct lg_salvaged r;
    assert_int_equal(lg_file_salvage(&env, fd, &sink, &r), 0);
    assert_int_equal(r.good, put_sum);
    close(fd);
    return r;
}

static void test_longer(void **state)
{
    uint8_t garbage[LG_ENTRY_LEN];
    (void)state;
    memset(garbage, 'x', sizeof garbage);
    make(true);
    assert_int_equal(ftruncate(fd, LONG), 0);
    struct lg_salvaged r = salvage();
    assert_int_equal(r.good, LEN);
    assert_int_equal(r.size, LEN);
    assert_int_equal(lost_n, 0);
    make(true);
    assert_int_equal(ftruncate(fd, LONG), 0);
    uint64_t far = FAR / CS;
    assert_int_equal(pwrite(fd, garbage, sizeof garbage, (off_t)lg_format_entry_off(CS, far)), sizeof garbage);
    r = salvage();
    assert_int_equal(r.good, LEN);
    assert_int_equal(lost_n, 1);
    assert_int_equal(lost_from, far * CS);
    assert_int_equal(lost_to, far * CS + CS);
}

static void test_sparse(void **state)
{
    (void)state;
    make(false);
    struct lg_salvaged r = salvage();
    assert_int_equal(r.good, 2 * 101 * CS); /* what ends in a chunk ends in a whole one, in the midst of a file */
    assert_int_equal(r.size, LONG);
    assert_int_equal(lost_n, 0);
}

static void test_shorter(void **state)
{
    (void)state;
    make(false);
    assert_int_equal(ftruncate(fd, (off_t)lg_format_chunk_off(CS, 90)), 0);
    struct lg_salvaged r = salvage();
    assert_int_equal(r.good, 90 * CS);
    assert_int_equal(r.size, LONG);
    assert_int_equal(lost_from, 90 * CS);
    assert_int_equal(lost_to, LONG);
    assert_true(lost_n < 50); /* entries that are there, and all the rest at once */
}

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < LEN; i++)
        plain[i] = (uint8_t)(i * 31 + i / 7000);
    strcpy(dir, "/tmp/lgsalvage-XXXXXX");
    if (lg_secret_init(true) || lg_crypto_init() || !mkdtemp(dir) || (dirfd = open(dir, O_RDONLY | O_DIRECTORY)) < 0 || mkdirat(dirfd, "root", 0700))
        return 1;
    sys = lg_sys_posix;
    sys.pread = counted;
    env = (struct lg_file_env){ .sys = &sys, .keys = &keys, .chunk_size = CS, .session = 2 };
    memset(env.vault_id, 'v', LG_ID_LEN);
    return lg_journal_create(&lg_sys_posix, dirfd, env.vault_id) || lg_journal_open(&lg_sys_posix, dirfd, env.vault_id, false, &env.journal);
}

static int teardown(void **state)
{
    (void)state;
    int rc = lg_journal_close(env.journal);
    unlinkat(dirfd, "root/f", 0);
    unlinkat(dirfd, "root", AT_REMOVEDIR);
    unlinkat(dirfd, LG_JOURNAL_NAME, 0);
    close(dirfd);
    return rc || rmdir(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_longer), cmocka_unit_test(test_sparse), cmocka_unit_test(test_shorter) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
