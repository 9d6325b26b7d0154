#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define ROOT_NAME "root"
#define TMP_PREFIX "lg.tmp." /* docs/FORMAT-names.md */
enum { BEST = 3 };

/* A file that records name, and what is known of it. */
struct target {
    uint8_t file_id[LG_ID_LEN];
    uint64_t top_seq; /* of its records */
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint8_t key[2][LG_MAC_LEN]; /* commitments to the file key in its first and last record */
    bool has_key;
    int fd;         /* -1: not found */
    unsigned match; /* how well that one fits; BEST: no other is looked for */
    bool searched;  /* by handle */
    bool skip;     /* the disk is ahead of every record */
};

struct replay {
    const struct lg_sys *sys;
    int dirfd;
    const uint8_t *vault_id;
    struct target *t;
    size_t n, cap, missing; /* missing: without a best match */
};

/* What a lower file says of itself. */
struct found {
    uint8_t file_id[LG_ID_LEN];
    uint64_t seq; /* of the newest commit slot that a crash left whole */
    uint8_t key[2][LG_MAC_LEN];
    bool has_key[2];
};

static struct target *target_of(struct replay *rp, const uint8_t file_id[LG_ID_LEN])
{
    for (size_t i = 0; i < rp->n; i++)
        if (!memcmp(rp->t[i].file_id, file_id, LG_ID_LEN))
            return &rp->t[i];
    return NULL;
}

/* Is this open file one of the vault? Reads its first sectors. */
static bool is_ours(const struct replay *rp, int fd, struct found *ret)
{
    uint8_t head[3 * LG_SECTOR];
    struct lg_s0 s0;
    struct stat st;
    lg_noatime(fd);
    if (rp->sys->fstat(rp->sys->arg, fd, &st) || !S_ISREG(st.st_mode) || lg_sys_read_full(rp->sys, fd, head, sizeof head, 0) < (ssize_t)sizeof head ||
        lg_s0_decode(head, &s0) || memcmp(s0.vault_id, rp->vault_id, LG_ID_LEN) != 0)
        return false;
    *ret = (struct found){ .seq = 0 };
    memcpy(ret->file_id, s0.file_id, LG_ID_LEN);
    for (unsigned i = 0; i < 2; i++) {
        struct lg_slot slot;
        if (lg_slot_decode(head + (1 + i) * LG_SECTOR, &slot))
            continue;
        ret->seq = slot.seq > ret->seq ? slot.seq : ret->seq;
        memcpy(ret->key[i], slot.commitment, LG_MAC_LEN);
        ret->has_key[i] = true;
    }
    return true;
}

static void adopt(struct replay *rp, struct target *t, int fd, const struct found *f, unsigned match)
{
    if (t->fd >= 0)
        close(t->fd);
    t->fd = fd;
    t->match = match;
    t->skip = f->seq > t->top_seq; /* never an older slot over a newer one */
    rp->missing -= match == BEST;
}

/* A crash during a re-encryption leaves two files of one id, one of them under a hidden name: the records are of that whose key they speak of. When
 * that does not tell (a file written anew from its beginning has a new key), of the one that has a name. */
static unsigned match_of(const struct target *t, const struct found *f, const char *name)
{
    bool same = false;
    for (unsigned i = 0; t->has_key && i < 2; i++)
        for (unsigned k = 0; k < 2; k++)
            same |= f->has_key[k] && memcmp(f->key[k], t->key[i], LG_MAC_LEN) == 0;
    return 1u + same + (same || strncmp(name, TMP_PREFIX, sizeof TMP_PREFIX - 1) != 0);
}

static void find_by_handle(struct replay *rp, struct target *t, const struct lg_jrec *r)
{
    union {
        struct file_handle h;
        uint8_t room[sizeof(struct file_handle) + LG_JOURNAL_HANDLE_MAX];
    } u = { .h.handle_bytes = r->handle_len };
    struct found f;
    t->searched = true;
    if (!r->handle_len)
        return;
    u.h.handle_type = r->handle_type;
    memcpy(u.room + offsetof(struct file_handle, f_handle), r->handle, r->handle_len);
    int fd = open_by_handle_at(rp->dirfd, &u.h, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return;
    if (is_ours(rp, fd, &f) && !memcmp(f.file_id, t->file_id, LG_ID_LEN))
        adopt(rp, t, fd, &f, BEST);
    else
        close(fd);
}

/* Looks at every file below, for those that no handle found: a restored copy has other inodes. Unreadable ones are passed over. */
static void find_by_id(struct replay *rp, int dirfd, unsigned depth)
{
    DIR *d = fdopendir(dirfd);
    if (!d) {
        close(dirfd);
        return;
    }
    lg_noatime(dirfd);
    for (struct dirent *e; rp->missing && (e = readdir(d));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || (e->d_name[1] == '.' && !e->d_name[2])))
            continue;
        if (e->d_type == DT_LNK)
            continue;
        int fd = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0) {
            if (depth)
                find_by_id(rp, fd, depth - 1);
            else
                close(fd);
            continue;
        }
        struct found f;
        fd = openat(dirfd, e->d_name, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0)
            continue;
        struct target *t = is_ours(rp, fd, &f) ? target_of(rp, f.file_id) : NULL;
        unsigned match = t ? match_of(t, &f, e->d_name) : 0;
        if (match && match > t->match)
            adopt(rp, t, fd, &f, match);
        else
            close(fd);
    }
    closedir(d);
}

/* Calls each for every valid record of an area that follows its predecessor without a gap. */
static int area_walk(const struct lg_sys *sys, int fd, unsigned area, uint64_t generation, int (*each)(void *arg, const struct lg_jrec *r), void *arg)
{
    uint8_t first[LG_SECTOR], *buf = NULL;
    uint64_t last = 0;
    int rc = 0;
    for (size_t off = LG_AREA_DATA, cap = 0; !rc && off < LG_AREA_LEN;) {
        struct lg_jrec r;
        ssize_t got = lg_sys_read_full(sys, fd, first, sizeof first, lg_area_off(area) + off);
        size_t len = got == (ssize_t)sizeof first ? lg_jrec_len(first, generation) : 0;
        if (got < 0)
            rc = (int)got;
        if (!len || len > LG_AREA_LEN - off)
            break;
        if (len > cap) {
            free(buf);
            cap = len;
            if (!(buf = malloc(cap)))
                return -ENOMEM;
        }
        got = lg_sys_read_full(sys, fd, buf, len, lg_area_off(area) + off);
        if (got < 0)
            rc = (int)got;
        if (got < (ssize_t)len || lg_jrec_decode(buf, len, generation, &r) || (last && r.number != last + 1))
            break;
        last = r.number;
        off += len;
        rc = each(arg, &r);
    }
    free(buf);
    return rc;
}

/* The commitment in the slot that a record writes. */
static bool record_key(const struct lg_jrec *r, uint8_t ret[LG_MAC_LEN])
{
    struct lg_rd rd = lg_rd(r->ops, r->ops_len);
    struct lg_slot slot;
    bool has = false;
    for (uint32_t i = 0; i < r->n_ops; i++) {
        uint32_t kind = lg_rd_u32(&rd);
        (void)lg_rd_u32(&rd);
        uint64_t off = lg_rd_u64(&rd), len = lg_rd_u64(&rd);
        const uint8_t *data = kind == LG_JOP_WRITE ? lg_rd_bytes(&rd, len) : NULL;
        if (data && len == LG_SECTOR && (off == LG_SECTOR || off == 2 * LG_SECTOR) && !lg_slot_decode(data, &slot)) {
            memcpy(ret, slot.commitment, LG_MAC_LEN);
            has = true;
        }
    }
    return has;
}

static int collect(void *arg, const struct lg_jrec *r)
{
    struct replay *rp = arg;
    struct target *t = target_of(rp, r->file_id);
    if (!t) {
        if (rp->n == rp->cap) {
            size_t cap = rp->cap ? rp->cap * 2 : 16;
            t = reallocarray(rp->t, cap, sizeof *t);
            if (!t)
                return -ENOMEM;
            rp->t = t;
            rp->cap = cap;
        }
        t = &rp->t[rp->n++];
        *t = (struct target){ .fd = -1 };
        memcpy(t->file_id, r->file_id, LG_ID_LEN);
        rp->missing++;
    }
    if (r->seq > t->top_seq)
        t->top_seq = r->seq;
    uint8_t key[LG_MAC_LEN];
    if (record_key(r, key)) {
        memcpy(t->key[1], key, sizeof key);
        if (!t->has_key)
            memcpy(t->key[0], key, sizeof key);
        t->has_key = true;
    }
    t->mtime_s = r->mtime_s;
    t->mtime_ns = r->mtime_ns;
    return 0;
}

static int locate(void *arg, const struct lg_jrec *r)
{
    struct replay *rp = arg;
    struct target *t = target_of(rp, r->file_id);
    if (t && t->fd < 0 && !t->searched)
        find_by_handle(rp, t, r);
    return 0;
}

static int apply(void *arg, const struct lg_jrec *r)
{
    struct replay *rp = arg;
    const struct target *t = target_of(rp, r->file_id);
    return t && t->fd >= 0 && !t->skip ? lg_jrec_apply(rp->sys, r, t->fd) : 0;
}

int lg_journal_replay(const struct lg_sys *sys, int vault_dirfd, const struct lg_jfile *self, const uint8_t vault_id[LG_ID_LEN],
                      bool read_only)
{
    struct replay rp = { .sys = sys, .dirfd = vault_dirfd, .vault_id = vault_id };
    struct lg_area_header h[2];
    unsigned order[2] = { 0, 1 };
    int rc = 0;
    for (unsigned a = 0; !rc && a < 2; a++) {
        /* A header torn by the crash that ended its area's use cannot be: sectors are written whole. Damaged: refuse to guess. */
        rc = lg_area_header_read(sys, self, a, &h[a]);
    }
    if (rc)
        return rc;
    if (h[0].generation > h[1].generation) {
        order[0] = 1;
        order[1] = 0;
    }
    int (*const pass[])(void *, const struct lg_jrec *) = { collect, locate, apply };
    for (unsigned p = 0; !rc && p < 3; p++) {
        if (p == 2 && rp.missing) {
            int root = openat(vault_dirfd, ROOT_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
            if (root >= 0)
                find_by_id(&rp, root, 256);
        }
        if (p == 1 && rp.n && read_only)
            rc = -EROFS;
        for (unsigned i = 0; !rc && i < 2; i++)
            if (h[order[i]].live && (p != 1 || h[order[i]].here))
                rc = area_walk(sys, self->fd, order[i], h[order[i]].generation, pass[p], &rp);
    }
    for (size_t i = 0; i < rp.n; i++) {
        struct target *t = &rp.t[i];
        if (t->fd < 0)
            continue;
        if (!rc && !t->skip)
            rc = sys->fdatasync(sys->arg, t->fd);
        if (!rc && !t->skip && t->mtime_ns != UTIME_OMIT) {
            struct timespec ts[2] = { { 0, UTIME_OMIT }, { (time_t)t->mtime_s, t->mtime_ns } };
            (void)!sys->futimens(sys->arg, t->fd, ts); /* a damaged time is no reason to refuse the vault */
        }
        close(t->fd);
    }
    free(rp.t);
    return rc;
}

struct visit {
    int (*each)(void *arg, const uint8_t file_id[LG_ID_LEN]);
    void *arg;
};

static int visit(void *arg, const struct lg_jrec *r)
{
    const struct visit *v = arg;
    return v->each(v->arg, r->file_id);
}

int lg_journal_unretired(const struct lg_sys *sys, const struct lg_jfile *self, int (*each)(void *arg, const uint8_t file_id[LG_ID_LEN]), void *arg)
{
    struct visit v = { each, arg };
    int rc = 0;
    for (unsigned a = 0; !rc && a < 2; a++) {
        struct lg_area_header h;
        rc = lg_area_header_read(sys, self, a, &h);
        if (!rc && h.live)
            rc = area_walk(sys, self->fd, a, h.generation, visit, &v);
    }
    return rc;
}
