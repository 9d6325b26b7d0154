/* Names as they stand below: what a thread remembers of those that it sealed last must not be told from sealing anew. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/names.h"

enum { NAMES = 7, DIRS = 2, VAULTS = 2, LONGEST = 255 };

static struct lg_names *names_of(uint8_t vault)
{
    struct lg_names *n;
    struct lg_secret *k = lg_secret_new();
    assert_non_null(k);
    memset(k->b, vault, LG_KEY_LEN);
    assert_int_equal(lg_names_new(k, &n), 0);
    lg_secret_free(k);
    return n;
}

/* By the construction that docs/FORMAT.md gives, without lg_name_seal. */
static void expected(uint8_t vault, const uint8_t *dirid, const char *name, char *out)
{
    uint8_t b[LG_PLAIN_NAME_MAX + LG_SIV_TAG_LEN];
    struct lg_secret *k = lg_secret_new(), *derived = lg_secret_new();
    assert_true(k && derived);
    memset(k->b, vault, LG_KEY_LEN);
    assert_int_equal(lg_derive(k, "leadglass names", NULL, 0, derived), 0);
    assert_int_equal(lg_siv_seal(derived, dirid, LG_ID_LEN, name, strlen(name), b), 0);
    lg_b64_encode(b, strlen(name) + LG_SIV_TAG_LEN, out);
    lg_secret_free(k);
    lg_secret_free(derived);
}

/* Every order of a few names of two directories and two vaults, some remembered, some not any more, some too long to be. */
static void same_as_sealing_anew(void **state)
{
    static char name[NAMES][LONGEST + 1], want[VAULTS][DIRS][NAMES][LG_SEALED_NAME_MAX + 1];
    static const size_t len[NAMES] = { 1, 10, 10, 78, 79, 80, LONGEST };
    uint8_t dirid[DIRS][LG_ID_LEN] = { { 1 }, { 2 } };
    char got[LG_SEALED_NAME_MAX + 1], back[LG_PLAIN_NAME_MAX + 1];
    unsigned seed = 7;
    (void)state;
    for (unsigned i = 0; i < NAMES; i++) {
        memset(name[i], 'a', len[i]);
        name[i][len[i] - 1] = (char)('a' + i);
    }
    struct lg_names *n[VAULTS] = { names_of(1), names_of(2) };
    for (unsigned v = 0; v < VAULTS; v++)
        for (unsigned d = 0; d < DIRS; d++)
            for (unsigned i = 0; i < NAMES; i++)
                expected((uint8_t)(v + 1), dirid[d], name[i], want[v][d][i]);
    for (unsigned round = 0; round < 20000; round++) {
        unsigned r = (unsigned)rand_r(&seed), i = r % NAMES, d = r / NAMES % DIRS, v = r / NAMES / DIRS % VAULTS;
        if (round % 1000 == 999) { /* another at the same address, as likely as not */
            lg_names_free(n[v]);
            n[v] = names_of((uint8_t)(v + 1));
        }
        if (round % 5000 == 4999) {
            struct lg_names *other = n[0];
            lg_names_free(other);
            lg_names_free(n[1]);
            n[1] = names_of(2);
            n[0] = names_of(1);
        }
        memset(got, 'x', sizeof got);
        assert_int_equal(lg_name_seal(n[v], dirid[d], name[i], got), 0);
        assert_string_equal(got, want[v][d][i]);
        assert_int_equal(lg_name_open(n[v], dirid[d], got, back), 0);
        assert_string_equal(back, name[i]);
    }
    for (unsigned v = 0; v < VAULTS; v++)
        lg_names_free(n[v]);
}

static void too_long(void **state)
{
    char name[LG_PLAIN_NAME_MAX + 2], out[LG_SEALED_NAME_MAX + 1];
    uint8_t dirid[LG_ID_LEN] = { 1 };
    struct lg_names *n = names_of(1);
    (void)state;
    memset(name, 'a', sizeof name - 1);
    name[sizeof name - 1] = 0;
    assert_int_equal(lg_name_seal(n, dirid, name, out), -ENAMETOOLONG);
    name[sizeof name - 2] = 0;
    assert_int_equal(lg_name_seal(n, dirid, name, out), 0);
    lg_names_free(n);
}

int main(void)
{
    if (lg_secret_init(false) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(same_as_sealing_anew), cmocka_unit_test(too_long) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
