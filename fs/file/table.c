#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/huge.h"

static const uint8_t no_entry[LG_ENTRY_LEN];

const uint8_t *lg_entry_get(const struct lg_file *f, uint64_t i)
{
    size_t p = lg_page_of(i);
    if (p >= f->n_page || !f->page[p])
        return no_entry;
    return f->page[p]->e + (i - lg_page_first(p)) * LG_ENTRY_LEN;
}

size_t lg_page_next(const struct lg_file *f, size_t p)
{
    while (p < f->n_page && !f->page[p])
        p += p % LG_PAGE_GROUP || f->live[p / LG_PAGE_GROUP] ? 1 : LG_PAGE_GROUP;
    return p < f->n_page ? p : f->n_page;
}

uint64_t lg_entry_next(const struct lg_file *f, uint64_t i, uint64_t n)
{
    while (i < n) {
        size_t p = lg_page_of(i), there = lg_page_next(f, p);
        if (there == f->n_page)
            return n;
        if (there > p)
            i = lg_page_first(there);
        for (uint64_t end = lg_page_first(there) + lg_page_count(there); i < end; i++)
            if (i >= n || !lg_entry_empty(lg_entry_get(f, i)))
                return i < n ? i : n;
    }
    return n;
}

static uint64_t full(const uint8_t *entries, size_t n)
{
    uint64_t count = 0;
    for (size_t k = 0; k < n; k++)
        count += !lg_entry_empty(entries + k * LG_ENTRY_LEN);
    return count;
}

enum { BLOCK_PAGES = (LG_HUGE - 16) / sizeof(struct lg_tpage), ALONE = 256 };
struct lg_tblock {
    struct lg_tblock *next;
    uint32_t used;
    struct lg_tpage page[BLOCK_PAGES];
};
_Static_assert(sizeof(struct lg_tblock) <= LG_HUGE, "a block is one huge page");

static void blocks_free(struct lg_file *f)
{
    for (struct lg_tblock *b = f->blocks, *next; b; b = next) {
        next = b->next;
        lg_huge_unmap(b, LG_HUGE);
    }
    f->blocks = NULL;
    f->unused = NULL;
}

/* Zeroed. The first ALONE pages of a file come by themselves, the others in blocks, which go with the last of them. */
static struct lg_tpage *page_new(struct lg_file *f)
{
    struct lg_tpage *pg = f->unused;
    if (pg) {
        memcpy(&f->unused, pg->e, sizeof f->unused);
        memset(pg, 0, sizeof *pg);
    } else if (f->n_live >= ALONE && !LG_MALLOC_WATCHED) {
        if (!f->blocks || f->blocks->used == BLOCK_PAGES) {
            struct lg_tblock *b = lg_huge_map(LG_HUGE);
            if (!b)
                return NULL;
            b->next = f->blocks;
            f->blocks = b;
        }
        pg = &f->blocks->page[f->blocks->used++];
    } else {
        return calloc(1, sizeof *pg);
    }
    pg->huge = true;
    f->n_huge++;
    return pg;
}

static void page_free(struct lg_file *f, struct lg_tpage *pg)
{
    if (!pg->huge) {
        free(pg);
        return;
    }
    memcpy(pg->e, &f->unused, sizeof f->unused);
    f->unused = pg;
    if (--f->n_huge == 0)
        blocks_free(f);
}

static int page_get(struct lg_file *f, size_t p, struct lg_tpage **ret)
{
    if (p >= f->n_page) {
        size_t n = f->n_page * 2 > p + 1 ? f->n_page * 2 : p + 1;
        struct lg_tpage **page = calloc(n, sizeof(struct lg_tpage *)); /* zeros that nobody touches take no memory */
        uint16_t *live = calloc(n / LG_PAGE_GROUP + 1, sizeof *live);
        if (!page || !live) {
            free(page);
            free(live);
            return -ENOMEM;
        }
        for (size_t q = 0; (q = lg_page_next(f, q)) < f->n_page; q++) {
            page[q] = f->page[q];
            live[q / LG_PAGE_GROUP]++;
        }
        free(f->page);
        free(f->live);
        f->page = page;
        f->live = live;
        f->n_page = n;
    }
    if (!f->page[p]) {
        if (!(f->page[p] = page_new(f)))
            return -ENOMEM;
        f->n_live++;
        f->live[p / LG_PAGE_GROUP]++;
        f->page[p]->dirty = (uint8_t)((1u << lg_page_count(p) / LG_ENTRIES_PER_SECTOR) - 1); /* whatever stands below */
    }
    *ret = f->page[p];
    return 0;
}

static void mark(struct lg_tpage *pg, size_t first, size_t n)
{
    for (size_t s = first / LG_ENTRIES_PER_SECTOR; s <= (first + n - 1) / LG_ENTRIES_PER_SECTOR; s++)
        pg->dirty |= (uint8_t)(1u << s);
}

int lg_entries_set(struct lg_file *f, uint64_t i, const uint8_t *entries, size_t n)
{
    int rc = 0;
    while (!rc && n) {
        size_t p = lg_page_of(i), at = (size_t)(i - lg_page_first(p)), m = lg_page_count(p) - at;
        struct lg_tpage *pg;
        if (m > n)
            m = n;
        rc = page_get(f, p, &pg);
        if (!rc)
            rc = lg_acc_xor(f->key, i, pg->e + at * LG_ENTRY_LEN, m, f->acc);
        if (!rc)
            rc = lg_acc_xor(f->key, i, entries, m, f->acc);
        if (rc)
            break;
        f->n_full += full(entries, m) - full(pg->e + at * LG_ENTRY_LEN, m);
        memcpy(pg->e + at * LG_ENTRY_LEN, entries, m * LG_ENTRY_LEN);
        mark(pg, at, m);
        if (i < f->committed_n)
            f->committed_changed = true;
        i += m;
        n -= m;
        entries += m * LG_ENTRY_LEN;
    }
    return rc;
}

static int range_add(struct lg_ranges *r, uint64_t from, uint64_t to)
{
    if (r->n && r->at[r->n - 1].to == from) {
        r->at[r->n - 1].to = to;
        return 0;
    }
    if (r->n == r->cap) {
        size_t cap = r->cap ? r->cap * 2 : 8;
        void *at = reallocarray(r->at, cap, sizeof *r->at);
        if (!at)
            return -ENOMEM;
        r->at = at;
        r->cap = cap;
    }
    r->at[r->n].from = from;
    r->at[r->n++].to = to;
    return 0;
}

static void range_free(struct lg_ranges *r)
{
    free(r->at);
    *r = (struct lg_ranges){ .at = NULL };
}

int lg_entries_clear(struct lg_file *f, uint64_t from, uint64_t to)
{
    int rc = 0;
    while (!rc && from < to) {
        size_t p = lg_page_of(from), at = (size_t)(from - lg_page_first(p)), m = lg_page_count(p) - at;
        size_t there = lg_page_next(f, p);
        if (there == f->n_page)
            break;
        if (there > p) {
            from = lg_page_first(there);
            continue;
        }
        if (m > to - from)
            m = (size_t)(to - from);
        struct lg_tpage *pg = f->page[p];
        rc = f->key ? lg_acc_xor(f->key, from, pg->e + at * LG_ENTRY_LEN, m, f->acc) : 0;
        if (!rc)
            rc = range_add(&f->hole, from, from + m);
        uint64_t gone = full(pg->e + at * LG_ENTRY_LEN, m);
        if (!rc && p && m == lg_page_count(p)) {
            rc = range_add(&f->zero, p, p + 1);
            if (!rc) {
                page_free(f, pg);
                f->page[p] = NULL;
                f->n_live--;
                f->live[p / LG_PAGE_GROUP]--;
            }
        } else if (!rc) {
            memset(pg->e + at * LG_ENTRY_LEN, 0, m * LG_ENTRY_LEN);
            mark(pg, at, m);
        }
        if (!rc)
            f->n_full -= gone;
        if (from < f->committed_n)
            f->committed_changed = f->cleared = true;
        from += m;
    }
    return rc;
}

void lg_table_free(struct lg_file *f)
{
    for (size_t p = 0; (p = lg_page_next(f, p)) < f->n_page; p++)
        page_free(f, f->page[p]);
    free(f->page);
    free(f->live);
    f->page = NULL;
    f->live = NULL;
    f->n_page = f->n_live = 0;
    f->n_full = 0;
    range_free(&f->zero);
    range_free(&f->hole);
}

static bool zeros(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* ZEROS_MAX bytes of zeros are read before the filesystem below is asked, after each step of them, where data comes next: of space that was set aside and not yet written, tmpfs
 * looks at every page of the file to tell. */
enum { LOAD_STEP = 64 * 1024, ZEROS_MAX = 4 * 1024 * 1024 };

struct loading {
    struct lg_file *f;
    uint8_t *buf; /* LOAD_STEP */
    uint64_t used; /* entries from there on must be zero */
    uint8_t *acc;
    bool exact;
    bool zero;     /* what was read last was zeros */
    size_t zeros;  /* bytes of them so far, ZEROS_MAX: or more */
    uint64_t data; /* a hole below reaches as far as this, if that is not behind */
};

/* len bytes of entries from i on, as read. */
static int take(struct loading *l, uint64_t i, const uint8_t *buf, size_t len)
{
    struct lg_file *f = l->f;
    l->zero = zeros(buf, len);
    if (l->zero)
        l->zeros = len < ZEROS_MAX - l->zeros ? l->zeros + len : ZEROS_MAX;
    while (len) {
        size_t p = lg_page_of(i), m = lg_page_count(p) * LG_ENTRY_LEN, keep = 0;
        struct lg_tpage *pg;
        if (m > len)
            m = len;
        if (!zeros(buf, m)) {
            if (i < l->used)
                keep = l->used - i < m / LG_ENTRY_LEN ? (size_t)(l->used - i) * LG_ENTRY_LEN : m;
            if (!zeros(buf + keep, m - keep))
                l->exact = false;
            int rc = keep ? page_get(f, p, &pg) : 0;
            if (!rc && keep) {
                memcpy(pg->e, buf, keep);
                pg->dirty = 0;
                f->n_full += full(buf, keep / LG_ENTRY_LEN);
                rc = lg_acc_xor(f->key, i, buf, keep / LG_ENTRY_LEN, l->acc);
            }
            if (rc)
                return rc;
        }
        buf += m;
        len -= m;
        i += m / LG_ENTRY_LEN;
    }
    return 0;
}

/* Is a hole below at off? Then l->data is where it ends, as far as is known; LG_SIZE_NONE: not before the file does. */
static bool hole_at(struct loading *l, uint64_t off)
{
    const struct lg_sys *sys = l->f->env->sys;
    if (l->data <= off && l->zero && l->zeros == ZEROS_MAX) {
        off_t data = sys->lseek(sys->arg, l->f->fd, (off_t)off, SEEK_DATA);
        l->data = data == -ENXIO ? LG_SIZE_NONE : data > 0 ? (uint64_t)data : 0;
    }
    return l->data > off;
}

/* Entries first .. first+count-1, contiguous below. */
static int load_run(struct loading *l, uint64_t first, uint64_t count)
{
    const struct lg_file *f = l->f;
    uint64_t base = lg_format_entry_off(f->env->chunk_size, first), len = count * LG_ENTRY_LEN;
    for (uint64_t at = 0; at < len;) {
        if (hole_at(l, base + at)) {
            if (l->data - base >= len)
                break;
            at = (l->data - base) / LG_HEADER_LEN * LG_HEADER_LEN;
        }
        size_t n = len - at < LOAD_STEP ? (size_t)(len - at) : LOAD_STEP;
        ssize_t got = lg_sys_read_full(f->env->sys, f->fd, l->buf, n, base + at);
        if (got < 0)
            return (int)got;
        memset(l->buf + got, 0, n - (size_t)got);
        int rc = take(l, first + at / LG_ENTRY_LEN, l->buf, n);
        if (rc)
            return rc;
        at += n;
    }
    return 0;
}

int lg_table_load(struct lg_file *f, uint64_t n, const uint8_t *head, uint8_t acc[LG_PRF_OUT], bool *ret_exact)
{
    struct loading l = { .f = f, .used = n, .acc = acc, .exact = true };
    memset(acc, 0, LG_PRF_OUT);
    int rc = take(&l, 0, head, LG_HEAD_ENTRIES * LG_ENTRY_LEN);
    l.buf = !rc && n > LG_HEAD_ENTRIES ? malloc(LOAD_STEP) : NULL;
    if (!rc && n > LG_HEAD_ENTRIES && !l.buf)
        rc = -ENOMEM;
    for (uint64_t i = LG_HEAD_ENTRIES; !rc && i < n; i += lg_format_run(i))
        rc = load_run(&l, i, lg_format_run(i));
    free(l.buf);
    if (!rc)
        *ret_exact = l.exact;
    return rc;
}
