/* LMDB trusts its file: one changed byte can make it read or write anywhere. So before it opens one, every page that it can reach is checked
 * here for what it relies on. The layout is LMDB 0.9's (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), little-endian with 8-byte page numbers.
 * The same walk tells what is left of a damaged file: then what is bad is reported and passed over, and every record that can be reached is shown. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leadglass/bytes.h"
#include "internal.h"

enum {
    PAGE_HEADER = 16,
    NODE_HEADER = 8,
    DB_LEN = 48,
    KEY_MAX = 511,
    DEPTH_MAX = 32, /* LMDB's cursor stack */
    P_BRANCH = 1,
    P_LEAF = 2,
    P_OVERFLOW = 4,
    P_META = 8,
    P_KINDS = 0x6f, /* flags that say what a page is */
    F_BIGDATA = 1,
    F_SUBDATA = 2,
    DB_INTEGERKEY = 8, /* the free list's; ours have none */
};
#define META_MAGIC 0xbeefc0deu
#define META_VERSION 1u
#define NO_PAGE UINT64_MAX
#define MAP_MAX (1ull << 46)

struct db {
    uint32_t pad;
    uint16_t flags, depth;
    uint64_t entries, root;
};

struct meta {
    uint64_t map, last, txn;
    struct db db[2]; /* free list, main */
};

enum what { FREE_LIST, MAIN, TABLE };

struct found {
    struct db db;
    enum lg_table t;
    bool known; /* one of ours */
};

struct walk {
    int fd;
    uint32_t page_size;
    uint64_t pages, last; /* in the file; the highest number in use */
    uint8_t *seen;        /* a bit for each page of the file */
    uint8_t *listed;      /* on the free list */
    enum what what;
    unsigned depth;
    uint8_t key[KEY_MAX]; /* the last one seen: they ascend */
    size_t key_len;
    bool have_key;
    uint8_t low[KEY_MAX]; /* the next one is not below this: what a page number was noted with */
    size_t low_len;
    bool have_low;
    struct found *table; /* found in the main tree */
    size_t n_table;
    const struct lg_pages_visitor *v; /* NULL: the first damage ends the walk */
    enum lg_table of;                 /* what == TABLE: which */
    uint64_t here, done, rows;        /* the page being looked at; pages, records of this tree that were looked at */
    bool damaged;                     /* in this tree */
};

static uint64_t u64(const uint8_t *p)
{
    struct lg_rd r = lg_rd(p, 8);
    return lg_rd_u64(&r);
}
static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

/* What is wrong with the page being looked at, or another one that it names. */
static int bad_at(struct walk *w, uint64_t page, const char *what)
{
    w->damaged = true;
    if (w->v)
        w->v->damage(w->v->arg, w->what == FREE_LIST ? "free list" : w->what == MAIN ? "tables" : lg_table_name(w->of), page, what);
    return -EPROTO;
}
static int bad(struct walk *w, const char *what) { return bad_at(w, w->here, what); }
/* What was bad has been reported: go on beside it. */
static int passed(const struct walk *w, int rc) { return rc == -EPROTO && w->v ? 0 : rc; }

static int page_read(struct walk *w, uint64_t n, size_t pages, uint8_t *buf)
{
    size_t len = pages * w->page_size;
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(w->fd, buf + done, len - done, (off_t)(n * w->page_size + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 && !w->v ? -errno : bad_at(w, n, got < 0 ? strerror(errno) : "the file ends before it does");
        done += (size_t)got;
    }
    return 0;
}

/* n pages from first belong to one use only. */
static int take(struct walk *w, uint64_t first, uint64_t n)
{
    if (first < 2 || n == 0 || first > w->last || n > w->last - first + 1 || first >= w->pages || n > w->pages - first)
        return bad_at(w, first, "is named, and lies outside the file");
    w->done += n;
    if (w->v && w->v->progress)
        w->v->progress(w->v->arg, w->done, w->last + 1 < w->pages ? w->last + 1 : w->pages);
    for (uint64_t i = first; i < first + n; i++) {
        if (w->seen[i / 8] & 1u << i % 8)
            return bad_at(w, i, "is named twice");
        w->seen[i / 8] |= (uint8_t)(1u << i % 8);
    }
    return 0;
}

static void db_read(const uint8_t *p, struct db *ret)
{
    struct lg_rd r = lg_rd(p, DB_LEN);
    ret->pad = lg_rd_u32(&r);
    ret->flags = lg_rd_u16(&r);
    ret->depth = lg_rd_u16(&r);
    (void)lg_rd_u64(&r); /* numbers of pages: only for statistics */
    (void)lg_rd_u64(&r);
    (void)lg_rd_u64(&r);
    ret->entries = lg_rd_u64(&r);
    ret->root = lg_rd_u64(&r);
}

static int compare(const struct walk *w, const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    if (w->what == FREE_LIST)
        return u64(a) < u64(b) ? -1 : u64(a) > u64(b);
    int c = memcmp(a, b, a_len < b_len ? a_len : b_len);
    return c ? c : a_len < b_len ? -1 : a_len > b_len;
}

static int disorder(struct walk *w) { return passed(w, bad(w, "records are not in order: some cannot be found")); }

/* A record out of order cannot be found, but it can be shown. */
static int key_check(struct walk *w, const uint8_t *key, size_t len)
{
    if (w->what == FREE_LIST ? len != 8 : len == 0)
        return bad(w, "a record without a key");
    if ((w->have_key && compare(w, w->key, w->key_len, key, len) >= 0) || (w->have_low && compare(w, key, len, w->low, w->low_len) < 0)) {
        int rc = disorder(w);
        if (rc)
            return rc;
    }
    w->have_low = false;
    memcpy(w->key, key, len);
    w->key_len = len;
    w->have_key = true;
    return 0;
}

/* The key that a branch notes with a page: above everything before, and not above what is in the page. The first has none. */
static int bound_check(struct walk *w, const uint8_t *key, size_t len)
{
    if (w->what == FREE_LIST ? len != 8 : len == 0)
        return bad(w, "names a page without a key");
    int rc = w->have_key && compare(w, w->key, w->key_len, key, len) >= 0 ? disorder(w) : 0;
    memcpy(w->low, key, len);
    w->low_len = len;
    w->have_low = true;
    return rc;
}

/* A list of free pages: how many, then their numbers, descending. No tree may hold them, and no other list. */
static int free_check(struct walk *w, const uint8_t *p, size_t len)
{
    uint64_t n = len >= 8 ? u64(p) : 0, before = NO_PAGE;
    if (len < 8 || len % 8 || n > len / 8 - 1)
        return bad(w, "a list of free pages is malformed");
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t page = u64(p + i * 8);
        if (page < 2 || page > w->last || page >= before)
            return bad(w, "a list of free pages is malformed");
        before = page;
        if (page >= w->pages) /* never written */
            continue;
        if (w->listed[page / 8] & 1u << page % 8)
            return bad_at(w, page, "is listed twice as free");
        w->listed[page / 8] |= (uint8_t)(1u << page % 8);
    }
    return 0;
}

static int row(struct walk *w, const uint8_t *value, size_t len)
{
    w->rows++;
    return w->v && w->v->row ? w->v->row(w->v->arg, w->of, w->key, w->key_len, value, len) : 0;
}

static int data_check(struct walk *w, unsigned flags, const uint8_t *data, size_t len)
{
    if (w->what == FREE_LIST)
        return free_check(w, data, len);
    if (w->what == TABLE)
        return flags & F_SUBDATA ? bad(w, "a table within a table") : row(w, data, len);
    if (!(flags & F_SUBDATA) || len != DB_LEN || w->n_table == LG_TABLES)
        return bad(w, "what stands there is no table");
    struct found *f = &w->table[w->n_table++];
    char name[16] = "";
    memcpy(name, w->key, w->key_len < sizeof name ? w->key_len : 0);
    db_read(data, &f->db);
    f->known = lg_table_of(name, &f->t) == 0;
    return 0;
}

/* A value on pages of its own. */
static int big_check(struct walk *w, unsigned flags, const uint8_t *at, size_t len)
{
    uint64_t first = u64(at), n = (PAGE_HEADER + (uint64_t)len + w->page_size - 1) / w->page_size;
    uint8_t head[PAGE_HEADER];
    int rc = flags & F_SUBDATA ? bad(w, "a table within a table") : take(w, first, n);
    if (rc)
        return rc;
    ssize_t got = pread(w->fd, head, sizeof head, (off_t)(first * w->page_size));
    if (got != (ssize_t)sizeof head)
        return got < 0 && !w->v ? -errno : bad_at(w, first, "cannot be read");
    struct lg_rd r = lg_rd(head + 12, 4);
    if (u64(head) != first || (u16(head + 10) & P_KINDS) != P_OVERFLOW || lg_rd_u32(&r) != n)
        return bad_at(w, first, "is not the page of a long value that it should be");
    if (w->what != FREE_LIST && !w->v)
        return 0;
    uint8_t *buf = malloc((size_t)n * w->page_size);
    rc = buf ? page_read(w, first, (size_t)n, buf) : -ENOMEM;
    if (!rc)
        rc = w->what == FREE_LIST ? free_check(w, buf + PAGE_HEADER, len) : w->what == TABLE ? row(w, buf + PAGE_HEADER, len) : bad(w, "what stands there is no table");
    free(buf);
    return rc;
}

static int node_check(struct walk *w, const uint8_t *page, unsigned at)
{
    size_t key_len = u16(page + at + 6), len = u16(page + at) | (size_t)u16(page + at + 2) << 16;
    unsigned flags = u16(page + at + 4);
    size_t here = flags & F_BIGDATA ? 8 : len, left = w->page_size - at - NODE_HEADER;
    if (flags & ~(unsigned)(F_BIGDATA | F_SUBDATA) || key_len > KEY_MAX || key_len > left || here > left - key_len)
        return bad(w, "a record does not fit in its page");
    const uint8_t *key = page + at + NODE_HEADER;
    int rc = key_check(w, key, key_len);
    if (!rc)
        rc = flags & F_BIGDATA ? big_check(w, flags, key + key_len, len) : data_check(w, flags, key + key_len, len);
    return rc;
}

static int leaf_check(struct walk *w, const uint8_t *page, unsigned n)
{
    int rc = 0;
    for (unsigned i = 0; !rc && i < n; i++) {
        unsigned at = u16(page + PAGE_HEADER + 2 * i);
        rc = at < u16(page + 14) || at > w->page_size - NODE_HEADER || at % 2 ? bad(w, "a record lies outside its page") : node_check(w, page, at);
        rc = passed(w, rc);
    }
    return rc;
}

static int tree_check(struct walk *w, uint64_t number, unsigned depth);

static int branch_check(struct walk *w, const uint8_t *page, unsigned n, unsigned depth)
{
    uint64_t here = w->here;
    int rc = 0;
    for (unsigned i = 0; !rc && i < n; i++) {
        unsigned at = u16(page + PAGE_HEADER + 2 * i);
        w->here = here;
        if (at < u16(page + 14) || at > w->page_size - NODE_HEADER || at % 2 || u16(page + at + 6) > KEY_MAX || at + NODE_HEADER + u16(page + at + 6) > w->page_size)
            rc = bad(w, "names a page in a way that cannot be followed");
        else if (i)
            rc = bound_check(w, page + at + NODE_HEADER, u16(page + at + 6));
        if (!rc)
            rc = tree_check(w, u16(page + at) | (uint64_t)u16(page + at + 2) << 16 | (uint64_t)u16(page + at + 4) << 32, depth + 1);
        rc = passed(w, rc);
    }
    return rc;
}

static int tree_check(struct walk *w, uint64_t number, unsigned depth)
{
    uint8_t *page = malloc(w->page_size);
    int rc = page ? take(w, number, 1) : -ENOMEM;
    if (!rc) {
        w->here = number;
        rc = page_read(w, number, 1, page);
    }
    if (!rc) {
        unsigned kind = u16(page + 10) & P_KINDS, lower = u16(page + 12), upper = u16(page + 14), n = (lower - PAGE_HEADER) / 2;
        bool leaf = depth == w->depth;
        if (u64(page) != number || kind != (leaf ? P_LEAF : P_BRANCH) || lower < PAGE_HEADER || lower % 2 || lower > upper || upper > w->page_size || n < (leaf ? 1 : 2))
            rc = bad(w, leaf ? "is not the page of records that it should be: they are lost" : "is not the page of page numbers that it should be: everything below is lost");
        else
            rc = leaf ? leaf_check(w, page, n) : branch_check(w, page, n, depth);
    }
    free(page);
    return rc;
}

static int db_check(struct walk *w, const struct db *db, enum what what)
{
    w->what = what;
    w->depth = db->depth;
    w->have_key = w->have_low = false;
    w->key_len = 0;
    w->rows = 0;
    w->damaged = false;
    w->here = db->root;
    if (db->flags != (what == FREE_LIST ? DB_INTEGERKEY : 0) || db->depth > DEPTH_MAX || (db->root == NO_PAGE) != (db->depth == 0))
        return bad(w, "its description is malformed: everything in it is lost");
    int rc = db->root == NO_PAGE ? 0 : tree_check(w, db->root, 1);
    if (w->v && !rc && !w->damaged && what == TABLE && w->rows != db->entries) /* nobody relies on it */
        rc = bad(w, "the number of records is not the one that was noted");
    return rc;
}

static int meta_check(const uint8_t *page, unsigned number, uint32_t page_size, struct meta *ret)
{
    struct lg_rd r = lg_rd(page + PAGE_HEADER, 24);
    uint32_t magic = lg_rd_u32(&r), version = lg_rd_u32(&r);
    (void)lg_rd_u64(&r); /* address */
    ret->map = lg_rd_u64(&r);
    db_read(page + PAGE_HEADER + 24, &ret->db[0]);
    db_read(page + PAGE_HEADER + 24 + DB_LEN, &ret->db[1]);
    ret->last = u64(page + PAGE_HEADER + 24 + 2 * DB_LEN);
    ret->txn = u64(page + PAGE_HEADER + 24 + 2 * DB_LEN + 8);
    bool ok = u64(page) == number && u16(page + 10) & P_META && magic == META_MAGIC && version == META_VERSION && ret->db[0].pad == page_size &&
              ret->map <= MAP_MAX && ret->last < MAP_MAX / page_size;
    return ok ? 0 : -EPROTO;
}

/* Both meta pages are there; LMDB takes the newer. In a damaged file one will do. */
static int metas_check(struct walk *w, const struct meta **ret, struct meta m[2])
{
    uint8_t *buf = malloc(2 * w->page_size);
    int one[2] = { 0, 0 }, rc = buf ? page_read(w, 0, 2, buf) : -ENOMEM;
    for (unsigned i = 0; !rc && i < 2; i++) {
        one[i] = meta_check(buf + i * w->page_size, i, w->page_size, &m[i]);
        if (one[i])
            rc = passed(w, bad_at(w, i, "is not the first page of an LMDB file that it should be"));
    }
    free(buf);
    if (!rc && one[0] && one[1])
        rc = -EPROTO;
    if (!rc)
        *ret = one[0] ? &m[1] : one[1] ? &m[0] : &m[m[0].txn < m[1].txn];
    return rc;
}

static int trees_check(struct walk *w, const struct meta *newest)
{
    w->last = newest->last;
    w->seen = calloc(1, (size_t)(w->pages / 8 + 1));
    w->listed = calloc(1, (size_t)(w->pages / 8 + 1));
    int rc = w->seen && w->listed ? 0 : -ENOMEM;
    if (!rc)
        rc = passed(w, db_check(w, &newest->db[0], FREE_LIST));
    if (!rc)
        rc = passed(w, db_check(w, &newest->db[1], MAIN));
    for (unsigned t = 0; !rc && t <= LG_TABLES; t++) /* in their own order, then those that are none of ours */
        for (size_t i = 0; !rc && i < w->n_table; i++) {
            const struct found *f = &w->table[i];
            if (t < LG_TABLES ? !f->known || f->t != (enum lg_table)t : f->known)
                continue;
            w->of = f->t;
            w->what = TABLE;
            if (f->known)
                rc = passed(w, db_check(w, &f->db, TABLE));
            else if (w->v)
                w->v->damage(w->v->arg, "tables", f->db.root, "there is a table that no keyring of this version has");
            else
                rc = db_check(w, &f->db, TABLE);
        }
    uint64_t both = 0;
    for (uint64_t i = 0; !rc && i < w->pages; i++)
        if (w->seen[i / 8] & w->listed[i / 8] & 1u << i % 8)
            both = i;
    w->what = FREE_LIST;
    if (both)
        rc = passed(w, bad_at(w, both, "is in use and free"));
    free(w->seen);
    free(w->listed);
    return rc;
}

int lg_pages_walk(const char *path, const struct lg_pages_visitor *v)
{
    long size = sysconf(_SC_PAGESIZE);
    struct walk w = { .fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK), .page_size = size > 0x8000 ? 0x8000u : (uint32_t)size, .v = v, .what = MAIN }; /* as LMDB takes it */
    struct found table[LG_TABLES];
    const struct meta *newest;
    struct meta m[2];
    struct stat st;
    if (w.fd < 0)
        return -errno;
    int rc = fstat(w.fd, &st) ? -errno : 0;
    w.pages = (uint64_t)st.st_size / w.page_size;
    w.table = table;
    if (!rc)
        rc = metas_check(&w, &newest, m);
    if (!rc)
        rc = trees_check(&w, newest);
    close(w.fd);
    return rc;
}

int lg_pages_check(const char *path) { return lg_pages_walk(path, NULL); }
