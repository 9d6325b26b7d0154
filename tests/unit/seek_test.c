/* SEEK_DATA and SEEK_HOLE in a file of eight tebibytes of which little is written, against a model: right with bytes that nobody committed and with what the journal holds, and
 * in a number of steps that follows what is written: a table of this length has 512 million entries, each of which is asked about by lg_entry_empty. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "filekeys.h"
#include "leadglass/file.h"
#include "leadglass/format.h"

enum { CS = 16384, ENTRIES_MAX = 100000, ROUNDS = 60 };
#define LONG (1ull << 43)
#define CHUNKS (LONG / CS)

/* Chunks that may hold something: about the ends of pages of the table, and of its regions. */
static const uint64_t place[] = { 0, 1, 79, 80, 81, 207, 208, 463, 464, 465, 4000, 131151, 131152, 131153, 1u << 20, (1u << 20) + 1, 100000000, 100000001, 268435535, 268435536, CHUNKS - 2, CHUNKS - 1 };
enum { PLACES = sizeof place / sizeof *place };
static bool data[PLACES];
static uint64_t size; /* of the file */

static struct lg_keys keys;
static struct lg_file_env env;
static struct lg_file *f;
static struct filedir dir;
static unsigned entries;

bool __real_lg_entry_empty(const uint8_t entry[LG_ENTRY_LEN]);
bool __wrap_lg_entry_empty(const uint8_t entry[LG_ENTRY_LEN]);
bool __wrap_lg_entry_empty(const uint8_t entry[LG_ENTRY_LEN])
{
    if (++entries > ENTRIES_MAX) { /* it would go on for hours */
        print_message("more than %d entries were looked at\n", ENTRIES_MAX);
        abort();
    }
    return __real_lg_entry_empty(entry);
}

static void opened(bool anew)
{
    int fd = openat(dir.fd, "f", O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(anew ? lg_file_create(&env, fd, "f", &f) : lg_file_open(&env, fd, "f", &f), 0);
}

static uint64_t expected(uint64_t off, int whence)
{
    if (whence == SEEK_DATA) {
        for (unsigned k = 0; k < PLACES; k++)
            if (data[k] && (place[k] + 1) * CS > off)
                return place[k] * CS > off ? place[k] * CS : off;
        return UINT64_MAX;
    }
    for (unsigned k = 0; k < PLACES; k++)
        if (data[k] && place[k] == off / CS)
            off = (place[k] + 1) * CS; /* what follows may stand in the next place */
    return off < size ? off : size;
}

static void check_from(uint64_t off)
{
    for (int k = 0; k < 2 && off < size; k++) {
        int whence = k ? SEEK_DATA : SEEK_HOLE;
        uint64_t want = expected(off, whence), got = 0;
        entries = 0;
        int rc = lg_file_seek(f, off, whence, &got);
        assert_int_equal(rc, want == UINT64_MAX ? -ENXIO : 0);
        assert_int_equal(rc ? want : got, want);
    }
}

static void check(void)
{
    uint64_t got;
    check_from(0);
    check_from(12345);
    for (unsigned k = 0; k < PLACES; k++) {
        check_from(place[k] * CS);
        check_from((place[k] + 1) * CS - 1);
        check_from((place[k] + 1) * CS);
    }
    assert_int_equal(lg_file_seek(f, size, SEEK_DATA, &got), -ENXIO);
    assert_int_equal(lg_file_seek(f, size, SEEK_HOLE, &got), -ENXIO);
}

/* Something happens to some of the places. */
static void step(void)
{
    static uint8_t buf[CS];
    unsigned k = (unsigned)rand() % PLACES;
    entries = 0;
    switch (rand() % 8) {
    case 0:
        assert_int_equal(lg_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place[k] * CS, CS), 0);
        data[k] = false;
        break;
    case 1: /* from one to another */
        assert_int_equal(lg_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, place[k] * CS, (place[k + (PLACES - k) / 2] - place[k] + 1) * CS), 0);
        memset(data + k, 0, (PLACES - k) / 2 + 1);
        break;
    case 2:
        assert_int_equal(lg_file_truncate(f, place[k] * CS + CS / 2), 0);
        assert_int_equal(lg_file_truncate(f, size), 0);
        memset(data + k + 1, 0, PLACES - k - 1);
        break;
    default: /* a part of a chunk, or all of it */
        memset(buf, rand() | 1, sizeof buf);
        assert_int_equal(lg_file_write(f, buf, rand() % 2 ? CS : 100, place[k] * CS), 0);
        data[k] = true;
    }
}

static void test_sparse(void **state)
{
    (void)state;
    srand(1);
    opened(true);
    size = LONG;
    assert_int_equal(lg_file_truncate(f, size), 0);
    check();
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (int n = rand() % 6; n >= 0; n--)
            step();
        check(); /* nobody committed it */
        entries = 0;
        if (rand() % 2)
            assert_int_equal(lg_file_commit(f), 0);
        if (rand() % 4 == 0)
            assert_int_equal(lg_file_sync(f), 0);
        check(); /* the journal holds some of it */
        entries = 0;
        if (rand() % 6 == 0) {
            assert_int_equal(lg_file_sync(f), 0);
            lg_file_free(f);
            opened(false);
            check();
        }
    }
    entries = 0;
    lg_file_free(f);
}

static int setup(void **state)
{
    (void)state;
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    env = (struct lg_file_env){ .sys = &lg_sys_posix, .keys = &keys, .chunk_size = CS, .session = 2 };
    memset(env.vault_id, 'v', LG_ID_LEN);
    filedir_make(&dir, &env);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return filedir_remove(&dir, &env);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_sparse) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
