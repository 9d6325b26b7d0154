/* What of a file's ciphertext stays in memory below. The kernel keeps the plaintext: what was not in memory before need not stay there as ciphertext as well. */
#include "internal.h"

/* COLD: of f->streamed, while nothing large was read. FORGET: so far back the readahead below may have brought something in again. BEHIND: farther than large reads of one reader
 * are apart that are under way at once. */
enum { COLD = 1, FORGET = 16 * 1024 * 1024, BEHIND = 4 * 1024 * 1024 };

static uint64_t get(const struct lg_file *f) { return atomic_load_explicit(&f->streamed, memory_order_relaxed); }

void lg_cold_found(struct lg_file *f)
{
    uint64_t none = 0;
    atomic_compare_exchange_strong(&f->streamed, &none, COLD);
}

/* By the next read the readahead below may be ahead of us, and a fast disk is even with the first. */
void lg_cold_ask(struct lg_file *f, uint64_t off, size_t len)
{
    const struct lg_sys *sys = f->env->sys;
    if (!atomic_exchange(&f->cache_asked, true) && sys->cached && sys->cached(sys->arg, f->fd, (off_t)off, len) < len / 2)
        lg_cold_found(f);
}

static void let_go(const struct lg_file *f, uint64_t to)
{
    const struct lg_sys *sys = f->env->sys;
    uint64_t from = to > FORGET ? to - FORGET : 0;
    if (sys->forget && to > COLD)
        sys->forget(sys->arg, f->fd, (off_t)from, (off_t)(to - from));
}

/* Large reads of one reader end in any order, and what is let go of under one of them has to be read again: so what lies well behind is, and the rest once something elsewhere is
 * read, or nothing any more. */
void lg_cold_read(struct lg_file *f, uint64_t off, size_t len, bool cold)
{
    uint64_t to = off + len, at = get(f);
    if (!cold && !at) /* later ones need not be cold: by now the readahead below may be ahead of us */
        return;
    if (at > to + BEHIND || off > at + BEHIND) {
        if (atomic_compare_exchange_strong_explicit(&f->streamed, &at, to, memory_order_relaxed, memory_order_relaxed))
            let_go(f, at);
        at = to;
    }
    while (at < to && !atomic_compare_exchange_weak_explicit(&f->streamed, &at, to, memory_order_relaxed, memory_order_relaxed))
        ;
    let_go(f, to > BEHIND ? to - BEHIND : 0);
}

bool lg_cold_any(const struct lg_file *f) { return get(f) > COLD; }

void lg_cold_end(struct lg_file *f)
{
    let_go(f, get(f));
    atomic_store(&f->streamed, 0);
    atomic_store(&f->cache_asked, false);
}
