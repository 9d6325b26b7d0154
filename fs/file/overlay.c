#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Index of the first chunk >= i. */
static size_t at_or_after(const struct lg_file *f, uint64_t i)
{
    size_t lo = 0, hi = f->n_o;
    while (lo < hi) {
        size_t mid = lo + (hi - lo) / 2;
        if (f->o[mid].i < i)
            lo = mid + 1;
        else
            hi = mid;
    }
    return lo;
}

struct lg_ochunk *lg_o_find(const struct lg_file *f, uint64_t i)
{
    size_t k = at_or_after(f, i);
    return k < f->n_o && f->o[k].i == i ? &f->o[k] : NULL;
}

uint64_t lg_data_next(const struct lg_file *f, uint64_t i, uint64_t n)
{
    size_t k = at_or_after(f, i);
    return lg_entry_next(f, i, k < f->n_o && f->o[k].i < n ? f->o[k].i : n);
}

struct lg_ochunk *lg_o_add(struct lg_file *f, uint64_t i)
{
    if (f->n_o == f->cap_o) {
        size_t cap = f->cap_o ? f->cap_o * 2 : 4;
        struct lg_ochunk *o = reallocarray(f->o, cap, sizeof *o);
        if (!o)
            return NULL;
        f->o = o;
        f->cap_o = cap;
    }
    uint8_t *data = calloc(1, f->env->chunk_size);
    if (!data)
        return NULL;
    size_t k = at_or_after(f, i);
    memmove(f->o + k + 1, f->o + k, (f->n_o - k) * sizeof *f->o);
    f->n_o++;
    f->o[k] = (struct lg_ochunk){ .i = i, .data = data };
    return &f->o[k];
}

void lg_o_dirty(struct lg_file *f, struct lg_ochunk *c)
{
    f->n_o_dirty += !c->dirty;
    c->dirty = true;
}

/* Keeps those for which keep says so. */
static void filter(struct lg_file *f, size_t from, size_t to, bool (*keep)(const struct lg_ochunk *c, uint64_t arg), uint64_t arg)
{
    size_t w = from;
    for (size_t k = from; k < to; k++) {
        if (keep && keep(&f->o[k], arg)) {
            f->o[w++] = f->o[k];
            continue;
        }
        f->n_o_dirty -= f->o[k].dirty;
        free(f->o[k].data);
    }
    memmove(f->o + w, f->o + to, (f->n_o - to) * sizeof *f->o);
    f->n_o -= to - w;
}

void lg_o_drop(struct lg_file *f, uint64_t from, uint64_t to)
{
    size_t a = at_or_after(f, from), b = at_or_after(f, to);
    if (a < b)
        filter(f, a, b, NULL, 0);
}

static bool unsettled(const struct lg_ochunk *c, uint64_t retired) { return c->dirty || c->record > retired; }

void lg_o_settle(struct lg_file *f, uint64_t retired)
{
    if (f->n_o)
        filter(f, 0, f->n_o, unsettled, retired);
}

void lg_o_free(struct lg_file *f)
{
    for (size_t k = 0; k < f->n_o; k++) {
        lg_wipe(f->o[k].data, f->env->chunk_size);
        free(f->o[k].data);
    }
    free(f->o);
    f->o = NULL;
    f->n_o = f->cap_o = f->n_o_dirty = 0;
}
