/* LMDB trusts its file: one changed byte can make it read or write anywhere. So before it opens one, every page that it can reach is checked
 * here for what it relies on. The layout is LMDB 0.9's (mdb.c: MDB_page, MDB_node, MDB_db, MDB_meta), little-endian with 8-byte page numbers. */
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
    struct db *table; /* found in the main tree */
    size_t n_table;
};

static uint64_t u64(const uint8_t *p)
{
    struct lg_rd r = lg_rd(p, 8);
    return lg_rd_u64(&r);
}
static uint16_t u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static int page_read(const struct walk *w, uint64_t n, size_t pages, uint8_t *buf)
{
    size_t len = pages * w->page_size;
    for (size_t done = 0; done < len;) {
        ssize_t got = pread(w->fd, buf + done, len - done, (off_t)(n * w->page_size + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0)
            return got < 0 ? -errno : -EPROTO;
        done += (size_t)got;
    }
    return 0;
}

/* n pages from first belong to one use only. */
static int take(struct walk *w, uint64_t first, uint64_t n)
{
    if (first < 2 || n == 0 || first > w->last || n > w->last - first + 1 || first >= w->pages || n > w->pages - first)
        return -EPROTO;
    for (uint64_t i = first; i < first + n; i++) {
        if (w->seen[i / 8] & 1u << i % 8)
            return -EPROTO;
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

static int key_check(struct walk *w, const uint8_t *key, size_t len)
{
    if (w->what == FREE_LIST) {
        if (len != 8 || (w->have_key && u64(w->key) >= u64(key)))
            return -EPROTO;
    } else {
        size_t m = len < w->key_len ? len : w->key_len;
        int c = w->have_key ? memcmp(w->key, key, m) : -1;
        if (len == 0 || c > 0 || (c == 0 && w->key_len >= len))
            return -EPROTO;
    }
    memcpy(w->key, key, len);
    w->key_len = len;
    w->have_key = true;
    return 0;
}

/* A list of free pages: how many, then their numbers, descending. No tree may hold them, and no other list. */
static int free_check(struct walk *w, const uint8_t *p, size_t len)
{
    uint64_t n = len >= 8 ? u64(p) : 0, before = NO_PAGE;
    if (len < 8 || len % 8 || n > len / 8 - 1)
        return -EPROTO;
    for (uint64_t i = 1; i <= n; i++) {
        uint64_t page = u64(p + i * 8);
        if (page < 2 || page > w->last || page >= before)
            return -EPROTO;
        before = page;
        if (page >= w->pages) /* never written */
            continue;
        if (w->listed[page / 8] & 1u << page % 8)
            return -EPROTO;
        w->listed[page / 8] |= (uint8_t)(1u << page % 8);
    }
    return 0;
}

static int data_check(struct walk *w, unsigned flags, const uint8_t *data, size_t len)
{
    if (w->what == FREE_LIST)
        return free_check(w, data, len);
    if (w->what == TABLE)
        return flags & F_SUBDATA ? -EPROTO : 0;
    if (!(flags & F_SUBDATA) || len != DB_LEN || w->n_table == LG_TABLES)
        return -EPROTO;
    db_read(data, &w->table[w->n_table++]);
    return 0;
}

static int big_check(struct walk *w, unsigned flags, const uint8_t *at, size_t len)
{
    uint64_t first = u64(at), n = (PAGE_HEADER + (uint64_t)len + w->page_size - 1) / w->page_size;
    uint8_t head[PAGE_HEADER];
    int rc = flags & F_SUBDATA ? -EPROTO : take(w, first, n);
    if (rc)
        return rc;
    ssize_t got = pread(w->fd, head, sizeof head, (off_t)(first * w->page_size));
    if (got != (ssize_t)sizeof head)
        return got < 0 ? -errno : -EPROTO;
    struct lg_rd r = lg_rd(head + 12, 4);
    if (u64(head) != first || (u16(head + 10) & P_KINDS) != P_OVERFLOW || lg_rd_u32(&r) != n)
        return -EPROTO;
    if (w->what != FREE_LIST)
        return 0;
    uint8_t *buf = malloc((size_t)n * w->page_size);
    rc = buf ? page_read(w, first, (size_t)n, buf) : -ENOMEM;
    if (!rc)
        rc = free_check(w, buf + PAGE_HEADER, len);
    free(buf);
    return rc;
}

static int leaf_check(struct walk *w, const uint8_t *page, unsigned n)
{
    int rc = 0;
    for (unsigned i = 0; !rc && i < n; i++) {
        size_t at = u16(page + PAGE_HEADER + 2 * i), key_len = u16(page + at + 6), len = u16(page + at) | (size_t)u16(page + at + 2) << 16;
        unsigned flags = u16(page + at + 4);
        size_t here = flags & F_BIGDATA ? 8 : len, left = w->page_size - at - NODE_HEADER;
        if (flags & ~(unsigned)(F_BIGDATA | F_SUBDATA) || key_len > KEY_MAX || key_len > left || here > left - key_len)
            return -EPROTO;
        const uint8_t *key = page + at + NODE_HEADER;
        rc = key_check(w, key, key_len);
        if (!rc)
            rc = flags & F_BIGDATA ? big_check(w, flags, key + key_len, len) : data_check(w, flags, key + key_len, len);
    }
    return rc;
}

static int tree_check(struct walk *w, uint64_t number, unsigned depth)
{
    uint8_t *page = malloc(w->page_size);
    int rc = page ? take(w, number, 1) : -ENOMEM;
    if (!rc)
        rc = page_read(w, number, 1, page);
    if (!rc) {
        unsigned kind = u16(page + 10) & P_KINDS, lower = u16(page + 12), upper = u16(page + 14), n = (lower - PAGE_HEADER) / 2;
        bool leaf = depth == w->depth;
        if (u64(page) != number || kind != (leaf ? P_LEAF : P_BRANCH) || lower < PAGE_HEADER || lower % 2 || lower > upper || upper > w->page_size || n < (leaf ? 1 : 2))
            rc = -EPROTO;
        for (unsigned i = 0; !rc && i < n; i++) {
            unsigned at = u16(page + PAGE_HEADER + 2 * i);
            if (at < upper || at > w->page_size - NODE_HEADER || at % 2)
                rc = -EPROTO;
        }
        if (!rc && leaf)
            rc = leaf_check(w, page, n);
        for (unsigned i = 0; !rc && !leaf && i < n; i++) {
            const uint8_t *node = page + u16(page + PAGE_HEADER + 2 * i);
            size_t key_len = u16(node + 6);
            if (key_len > KEY_MAX || node + NODE_HEADER + key_len > page + w->page_size)
                rc = -EPROTO;
            else
                rc = tree_check(w, u16(node) | (uint64_t)u16(node + 2) << 16 | (uint64_t)u16(node + 4) << 32, depth + 1);
        }
    }
    free(page);
    return rc;
}

static int db_check(struct walk *w, const struct db *db, enum what what)
{
    w->what = what;
    w->depth = db->depth;
    w->have_key = false;
    w->key_len = 0;
    if (db->flags != (what == FREE_LIST ? DB_INTEGERKEY : 0) || db->depth > DEPTH_MAX || (db->root == NO_PAGE) != (db->depth == 0))
        return -EPROTO;
    return db->root == NO_PAGE ? 0 : tree_check(w, db->root, 1);
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

int lg_pages_check(const char *path)
{
    long size = sysconf(_SC_PAGESIZE);
    struct walk w = { .fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), .page_size = size > 0x8000 ? 0x8000u : (uint32_t)size }; /* as LMDB takes it */
    struct db table[LG_TABLES];
    struct meta m[2];
    struct stat st;
    if (w.fd < 0)
        return -errno;
    uint8_t *buf = malloc(2 * w.page_size);
    int rc = !buf ? -ENOMEM : fstat(w.fd, &st) ? -errno : 0;
    if (!rc)
        rc = page_read(&w, 0, 2, buf);
    for (unsigned i = 0; !rc && i < 2; i++)
        rc = meta_check(buf + i * w.page_size, i, w.page_size, &m[i]);
    free(buf);
    if (!rc) {
        const struct meta *newest = &m[m[0].txn < m[1].txn];
        w.pages = (uint64_t)st.st_size / w.page_size;
        w.last = newest->last;
        w.table = table;
        w.seen = calloc(1, (size_t)(w.pages / 8 + 1));
        w.listed = calloc(1, (size_t)(w.pages / 8 + 1));
        rc = w.seen && w.listed ? 0 : -ENOMEM;
        if (!rc)
            rc = db_check(&w, &newest->db[0], FREE_LIST);
        if (!rc)
            rc = db_check(&w, &newest->db[1], MAIN);
        for (size_t t = 0; !rc && t < w.n_table; t++)
            rc = db_check(&w, &table[t], TABLE);
        for (uint64_t i = 0; !rc && i < w.pages / 8 + 1; i++)
            if (w.seen[i] & w.listed[i])
                rc = -EPROTO; /* in use and free */
    }
    free(w.seen);
    free(w.listed);
    close(w.fd);
    return rc;
}
