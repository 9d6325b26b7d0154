/* The table of a long file in memory: pages that come by themselves and in blocks, are given back when a hole takes all of one, and are used again for other parts of the file,
 * against a model, also after a commit and after it was read from below. */
#include <fcntl.h>
#include <linux/falloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "../../fs/file/internal.h"
#include "filekeys.h"
#include "leadglass/huge.h"

enum { CS = LG_CHUNK_SIZE_MIN, PAGES = 1200, ROUNDS = 40, STEPS = 300 };
static uint8_t byte[PAGES]; /* what fills the first chunk of each; 0: a hole */
static struct lg_keys keys;
static struct lg_file_env env;
static struct lg_file *f;
static struct filedir dir;

static uint64_t begin(unsigned page) { return lg_page_first(page) * CS; }

static void opened(bool anew)
{
    int fd = openat(dir.fd, "f", O_RDWR | O_CREAT, 0600);
    assert_true(fd >= 0);
    assert_int_equal(anew ? lg_file_create(&env, fd, "f", &f) : lg_file_open(&env, fd, "f", &f), 0);
}

static void put(unsigned page)
{
    uint8_t buf[CS];
    byte[page] = (uint8_t)(1 + rand() % 255);
    memset(buf, byte[page], sizeof buf);
    assert_int_equal(lg_file_write(f, buf, sizeof buf, begin(page)), 0);
}

static void punch(unsigned from, unsigned to)
{
    assert_int_equal(lg_file_fallocate(f, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, begin(from), begin(to) - begin(from)), 0);
    memset(byte + from, 0, to - from);
}

static void check(void)
{
    unsigned live = 0;
    for (unsigned p = 0; p < PAGES; p++) {
        uint8_t buf[2 * CS], want[2 * CS] = { 0 };
        memset(want, byte[p], CS);
        assert_int_equal(lg_file_read(f, buf, sizeof buf, begin(p)), sizeof buf);
        assert_memory_equal(buf, want, sizeof buf);
        live += byte[p] != 0;
    }
    assert_int_equal(f->n_full, live);
}

static void test_long(void **state)
{
    (void)state;
    bool given_back = false;
    srand(1);
    opened(true);
    assert_int_equal(lg_file_truncate(f, begin(PAGES)), 0);
    for (unsigned i = 0; i < ROUNDS; i++) {
        for (unsigned k = 0; k < STEPS; k++) {
            unsigned p = (unsigned)rand() % PAGES, to = p + 1 + (unsigned)rand() % 10;
            if (rand() % 8)
                put(p);
            else
                punch(p, to < PAGES ? to : PAGES);
        }
        if (i == ROUNDS / 2) {
            punch(0, PAGES);
            assert_int_equal(f->n_full, 0);
            assert_null(f->blocks);
        }
        given_back |= f->unused != NULL;
        assert_int_equal(lg_file_commit(f), 0);
        check();
        if (i % 5 == 2) { /* the same file comes by another table */
            lg_file_drop_keys(f, false);
            assert_null(f->page);
            check();
        }
        if (i % 5 == 4) {
            lg_file_free(f);
            opened(false);
            check();
        }
    }
    assert_true(f->n_live > 600);
    assert_true(LG_MALLOC_WATCHED || (f->blocks && given_back)); /* else it was not this that was tried */
    lg_file_free(f);
}

static int set_up(void **state)
{
    (void)state;
    env = (struct lg_file_env){ .sys = &lg_sys_posix, .keys = &keys, .chunk_size = CS, .session = 2 };
    filedir_make(&dir, &env);
    return 0;
}

static int take_down(void **state)
{
    (void)state;
    return filedir_remove(&dir, &env);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_long, set_up, take_down) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
