/* What of a file's ciphertext stays in memory below (fs/file/cold.c): what cold reads in any order let go of, by megabytes, and what they leave to others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/file/internal.h"

enum { MIB = 1 << 20, SIZE = 64, BEHIND = 4 }; /* in megabytes, but for the first */

static bool in_memory[SIZE];
static size_t cached;
static unsigned asked;

static void forgotten(void *arg, int fd, off_t off, off_t len)
{
    (void)arg, (void)fd;
    assert_true(off >= 0 && len > 0);
    for (off_t i = (off + MIB - 1) / MIB; i < SIZE && (i + 1) * MIB <= off + len; i++)
        in_memory[i] = false;
}

static size_t answer(void *arg, int fd, off_t off, size_t len)
{
    (void)arg, (void)fd, (void)off, (void)len;
    asked++;
    return cached;
}

static const struct lg_sys sys = { .forget = forgotten, .cached = answer };
static const struct lg_file_env env = { .sys = &sys };

static struct lg_file new_file(void)
{
    memset(in_memory, false, sizeof in_memory);
    return (struct lg_file){ .env = &env, .fd = -1 };
}

/* Megabyte i arrives, and the read ends. */
static void arrive(unsigned i) { in_memory[i] = true; }
static void ends(struct lg_file *f, unsigned i, bool cold) { lg_cold_read(f, (uint64_t)i * MIB, MIB, cold); }

static unsigned left(void)
{
    unsigned n = 0;
    for (unsigned i = 0; i < SIZE; i++)
        n += in_memory[i];
    return n;
}

/* Three reads are under way at once and end last first: none loses what it has still to copy. */
static void test_together(void **state)
{
    (void)state;
    struct lg_file f = new_file();
    for (unsigned i = 0; i + 3 <= SIZE; i += 3) {
        for (unsigned k = 0; k < 3; k++)
            arrive(i + k);
        for (unsigned k = 3; k--;) {
            assert_true(in_memory[i + k]);
            ends(&f, i + k, i == 0); /* later ones are not cold, as the readahead was ahead of them */
        }
        assert_true(left() <= BEHIND + 3);
    }
    assert_true(lg_cold_any(&f));
    lg_cold_end(&f);
    assert_int_equal(left(), 0);
    assert_false(lg_cold_any(&f));
}

/* Here and there: what was read before goes with the next read that is elsewhere. */
static void test_elsewhere(void **state)
{
    (void)state;
    static const unsigned at[] = { 40, 3, 60, 20, 50, 10 };
    struct lg_file f = new_file();
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        arrive(at[i]);
        ends(&f, at[i], true);
        assert_int_equal(left(), 1);
        assert_true(in_memory[at[i]]);
    }
    lg_cold_end(&f);
    assert_int_equal(left(), 0);
}

/* What was in memory before the first read stays: whether it was is asked once, and again of another descriptor's file. */
static void test_warm(void **state)
{
    (void)state;
    struct lg_file f = new_file();
    memset(in_memory, true, sizeof in_memory);
    cached = MIB, asked = 0;
    for (unsigned i = 0; i < SIZE; i++) {
        lg_cold_ask(&f, (uint64_t)i * MIB, MIB);
        ends(&f, i, false);
    }
    assert_int_equal(asked, 1);
    assert_false(lg_cold_any(&f));
    lg_cold_end(&f);
    assert_int_equal(left(), SIZE);
    cached = 0;
    lg_cold_ask(&f, 0, MIB);
    assert_int_equal(asked, 2);
    ends(&f, 30, false);
    lg_cold_end(&f);
    assert_false(in_memory[30]);
}

/* A little that was not in memory is no reason to let go of what is before it. */
static void test_little(void **state)
{
    (void)state;
    struct lg_file f = new_file();
    memset(in_memory, true, sizeof in_memory);
    cached = 0;
    lg_cold_ask(&f, (uint64_t)30 * MIB, 4096);
    lg_cold_found(&f);
    assert_false(lg_cold_any(&f));
    lg_cold_end(&f);
    assert_int_equal(left(), SIZE);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_together), cmocka_unit_test(test_elsewhere), cmocka_unit_test(test_warm), cmocka_unit_test(test_little) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
