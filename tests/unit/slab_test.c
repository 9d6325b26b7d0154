/* Memory of nodes (fs/volume/slab.c): pieces of every length in turn, given back and asked for again, each with its own bytes until it is given back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/volume/internal.h"

enum { PIECES = 20000, ROUNDS = 200000 }; /* some 5 MiB: several chunks */

static struct {
    uint8_t *p;
    size_t len;
    uint8_t byte;
} piece[PIECES];

static void take(struct lg_slab *s, unsigned i, unsigned r)
{
    piece[i].len = 1 + r % LG_SLAB_MAX;
    piece[i].byte = (uint8_t)(r >> 10);
    piece[i].p = lg_slab_get(s, piece[i].len);
    assert_non_null(piece[i].p);
    assert_int_equal((uintptr_t)piece[i].p % _Alignof(max_align_t), 0);
    memset(piece[i].p, piece[i].byte, piece[i].len);
}

static void give(struct lg_slab *s, unsigned i)
{
    for (size_t k = 0; k < piece[i].len; k++)
        if (piece[i].p[k] != piece[i].byte)
            fail_msg("piece %u of %zu bytes was written to by another", i, piece[i].len);
    lg_slab_put(s, piece[i].p, piece[i].len);
}

static void keeps_pieces_apart(void **state)
{
    struct lg_slab s = { .chunks = NULL };
    unsigned seed = 7;
    (void)state;
    for (unsigned i = 0; i < PIECES; i++)
        take(&s, i, (unsigned)rand_r(&seed));
    for (unsigned n = 0; n < ROUNDS; n++) {
        unsigned i = (unsigned)rand_r(&seed) % PIECES;
        give(&s, i);
        take(&s, i, (unsigned)rand_r(&seed));
    }
    for (unsigned i = 0; i < PIECES; i++)
        give(&s, i);
    lg_slab_free(&s);
}

static void uses_again_what_was_given_back(void **state)
{
    struct lg_slab s = { .chunks = NULL };
    (void)state;
    for (unsigned i = 0; i < 100 * PIECES; i++) {
        void *p = lg_slab_get(&s, sizeof(struct lg_node));
        assert_non_null(p);
        lg_slab_put(&s, p, sizeof(struct lg_node));
    }
    assert_true(!s.chunks || s.left > 2 * 1024 * 1024 - 1024); /* of its first chunk; there is none with the address sanitizer */
    lg_slab_put(&s, NULL, 0);
    lg_slab_free(&s);
}

static void refuses_other_lengths(void **state)
{
    struct lg_slab s = { .chunks = NULL };
    (void)state;
    assert_null(lg_slab_get(&s, 0));
    assert_null(lg_slab_get(&s, LG_SLAB_MAX + 1));
    void *p = lg_slab_get(&s, LG_SLAB_MAX);
    assert_non_null(p);
    lg_slab_put(&s, p, LG_SLAB_MAX);
    lg_slab_free(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(keeps_pieces_apart), cmocka_unit_test(uses_again_what_was_given_back), cmocka_unit_test(refuses_other_lengths) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
