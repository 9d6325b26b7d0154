#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/huge.h"

#define FILE_MAGIC "LGJRNL\r\n"
#define REC_MAGIC 0x31524a4cu

/* A record of an area, as long as it is not retired. */
struct pending {
    struct lg_jfile *file;
    uint64_t number, off; /* off: within the area */
    uint32_t len;
    bool applied;
};

struct area {
    uint64_t generation, used; /* used: from the area's start */
    struct pending *p;
    size_t n, cap;
    bool in_place; /* all of it, and durable: only to be retired. The disk may say so already: nothing may be applied once more */
};

/* A file that was closed before its records were in place. */
struct adopted {
    struct lg_jfile file;
    struct adopted *next;
};

struct lg_journal {
    const struct lg_sys *sys;
    int fd;
    struct lg_jfile self;
    bool read_only;
    pthread_mutex_t checkpointing; /* one checkpoint at a time; taken before mu */
    pthread_mutex_t mu;            /* all below */
    pthread_cond_t synced_cond;
    bool syncing;
    int sync_rc;
    uint64_t number, synced; /* last record appended, last one durable */
    uint64_t generation;
    unsigned active;
    struct area area[2];
    uint8_t *room; /* for a large record, in huge pages; kept for the next */
    size_t room_len;
    bool sync_failed; /* what was written since the last sync that succeeded may be lost, though the next one succeeds too (see fs/file/again.c) */
    struct adopted *adopted;
    atomic_bool has_adopted; /* each open asks */
};

static void file_header(const uint8_t vault_id[LG_ID_LEN], uint8_t out[LG_SECTOR])
{
    memset(out, 0, LG_SECTOR);
    struct lg_wr w = lg_wr(out, LG_SECTOR);
    lg_wr_bytes(&w, FILE_MAGIC, 8);
    lg_wr_u32(&w, LG_JOURNAL_VERSION);
    lg_wr_u32(&w, LG_AREA_LEN);
    lg_wr_bytes(&w, vault_id, LG_ID_LEN);
    w = lg_wr(out + LG_SECTOR - 4, 4);
    lg_wr_u32(&w, lg_crc32c(0, out, LG_SECTOR - 4));
}

int lg_journal_create(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN])
{
    uint8_t h[LG_SECTOR];
    int fd = openat(vault_dirfd, LG_JOURNAL_NAME, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    const size_t block = 1024 * 1024;
    uint8_t *z = calloc(1, block);
    int rc = z ? 0 : -ENOMEM;
    /* Written rather than only allocated: a later fdatasync then has no allocation to make durable, and a full disk cannot hurt. */
    uint64_t end = lg_area_off(2);
    for (uint64_t off = 0; !rc && off < end; off += block)
        rc = lg_sys_write_full(sys, fd, z, end - off < block ? (size_t)(end - off) : block, off);
    free(z);
    struct lg_jfile self;
    lg_jfile_init(&self, fd, vault_id);
    lg_jfile_locate(&self);
    for (unsigned a = 0; !rc && a < 2; a++)
        rc = lg_area_header_write(sys, &self, a, 0, false);
    file_header(vault_id, h);
    if (!rc)
        rc = lg_sys_write_full(sys, fd, h, sizeof h, 0);
    if (!rc)
        rc = sys->fsync(sys->arg, fd);
    close(fd);
    if (rc)
        unlinkat(vault_dirfd, LG_JOURNAL_NAME, 0);
    return rc;
}

static int header_check(const struct lg_sys *sys, int fd, const uint8_t vault_id[LG_ID_LEN])
{
    uint8_t h[LG_SECTOR], want[LG_SECTOR];
    ssize_t n = lg_sys_read_full(sys, fd, h, sizeof h, 0);
    if (n < 0)
        return (int)n;
    struct lg_rd r = lg_rd(h + 8, sizeof h - 8);
    uint32_t version = lg_rd_u32(&r);
    if ((size_t)n < sizeof h || memcmp(h, FILE_MAGIC, 8) != 0)
        return -EPROTO;
    if (version > LG_JOURNAL_VERSION)
        return -EPROTONOSUPPORT;
    file_header(vault_id, want);
    struct stat st;
    int rc = sys->fstat(sys->arg, fd, &st);
    if (rc)
        return rc;
    return memcmp(h, want, sizeof h) == 0 && (uint64_t)st.st_size == lg_area_off(2) ? 0 : -EPROTO;
}

int lg_journal_open(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN], bool read_only, struct lg_journal **ret)
{
    struct lg_journal *j = calloc(1, sizeof *j);
    if (!j)
        return -ENOMEM;
    j->sys = sys;
    j->read_only = read_only;
    j->fd = openat(vault_dirfd, LG_JOURNAL_NAME, (read_only ? O_RDONLY : O_RDWR) | O_CLOEXEC | O_NOFOLLOW);
    int rc = j->fd < 0 ? -errno : 0;
    if (!rc)
        rc = header_check(sys, j->fd, vault_id);
    if (!rc) {
        lg_jfile_init(&j->self, j->fd, vault_id);
        lg_jfile_locate(&j->self);
        rc = lg_journal_replay(sys, vault_dirfd, &j->self, vault_id, read_only);
    }
    /* Everything is in place and durable: retire both areas, then begin anew in the first. */
    for (unsigned a = 0; !rc && !read_only && a < 2; a++) {
        struct lg_area_header h;
        rc = lg_area_header_read(sys, &j->self, a, &h);
        if (!rc)
            rc = lg_area_header_write(sys, &j->self, a, h.generation, false);
        if (!rc && j->generation < h.generation)
            j->generation = h.generation;
    }
    if (!rc && !read_only)
        rc = sys->fdatasync(sys->arg, j->fd);
    if (!rc && !read_only) {
        /* A crash may have lost the header of the area that was begun last, and kept records behind it: theirs was the next generation, which
         * must never come to life again. Ours is durable before its first record, so that this holds for the next crash too. */
        j->generation += 2;
        j->area[0].generation = j->generation;
        rc = lg_area_header_write(sys, &j->self, 0, j->generation, true);
        if (!rc)
            rc = sys->fdatasync(sys->arg, j->fd);
    }
    if (rc) {
        if (j->fd >= 0)
            close(j->fd);
        free(j);
        return rc;
    }
    j->area[0].used = j->area[1].used = LG_AREA_DATA;
    pthread_mutex_init(&j->checkpointing, NULL);
    pthread_mutex_init(&j->mu, NULL);
    pthread_cond_init(&j->synced_cond, NULL);
    *ret = j;
    return 0;
}

int lg_journal_pending(const struct lg_sys *sys, int vault_dirfd, const uint8_t vault_id[LG_ID_LEN], int (*each)(void *arg, const uint8_t file_id[LG_ID_LEN]), void *arg)
{
    struct lg_jfile self;
    int fd = openat(vault_dirfd, LG_JOURNAL_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    int rc = header_check(sys, fd, vault_id);
    if (!rc) {
        lg_jfile_init(&self, fd, vault_id);
        rc = lg_journal_unretired(sys, &self, each, arg);
    }
    close(fd);
    return rc;
}

void lg_jfile_init(struct lg_jfile *f, int fd, const uint8_t file_id[LG_ID_LEN])
{
    f->fd = fd;
    memcpy(f->file_id, file_id, LG_ID_LEN);
    f->located = false;
    f->handle_len = 0;
    f->appended = 0;
    atomic_store(&f->retired, 0);
    atomic_store(&f->mtime_s, 0);
    atomic_store(&f->mtime_ns, UTIME_OMIT);
}

void lg_jfile_locate(struct lg_jfile *f)
{
    union {
        struct file_handle h;
        uint8_t room[sizeof(struct file_handle) + LG_JOURNAL_HANDLE_MAX];
    } u = { .h.handle_bytes = LG_JOURNAL_HANDLE_MAX };
    int mount_id;
    if (f->located)
        return;
    f->located = true;
    if (name_to_handle_at(f->fd, "", &u.h, &mount_id, AT_EMPTY_PATH) == 0 && u.h.handle_bytes <= LG_JOURNAL_HANDLE_MAX) {
        f->handle_len = u.h.handle_bytes;
        f->handle_type = u.h.handle_type;
        memcpy(f->handle, u.room + offsetof(struct file_handle, f_handle), f->handle_len);
    }
}

/* ---- appending -------------------------------------------------------------------------------------------------------------- */

enum { LARGE = 1024 * 1024, ROOM_KEPT = 8 * 1024 * 1024 };

static uint8_t *room_get(struct lg_journal *j, size_t len)
{
    if (len < LARGE || LG_MALLOC_WATCHED)
        return malloc(len);
    if (len > j->room_len) {
        size_t whole = (len + LG_HUGE - 1) / LG_HUGE * LG_HUGE;
        lg_huge_unmap(j->room, j->room_len);
        j->room = lg_huge_map(whole);
        j->room_len = j->room ? whole : 0;
    }
    return j->room;
}

static void room_put(struct lg_journal *j, uint8_t *buf)
{
    if (buf != j->room) {
        free(buf);
    } else if (j->room_len > ROOM_KEPT) {
        lg_huge_unmap(j->room, j->room_len);
        j->room = NULL;
        j->room_len = 0;
    }
}

static uint8_t *encode(struct lg_journal *j, const struct lg_jfile *f, uint64_t seq, const struct lg_jop *ops, uint32_t n, uint32_t len,
                       uint32_t ops_len)
{
    uint8_t *buf = room_get(j, len);
    if (!buf)
        return NULL;
    struct lg_wr w = lg_wr(buf, len);
    lg_wr_u32(&w, REC_MAGIC);
    lg_wr_u32(&w, len);
    lg_wr_u32(&w, 0);
    lg_wr_u64(&w, j->area[j->active].generation);
    lg_wr_u64(&w, j->number + 1);
    lg_wr_bytes(&w, f->file_id, LG_ID_LEN);
    lg_wr_u32(&w, (uint32_t)f->handle_type);
    lg_wr_u32(&w, f->handle_len);
    lg_wr_bytes(&w, f->handle, sizeof f->handle);
    lg_wr_u64(&w, seq);
    lg_wr_u64(&w, (uint64_t)atomic_load(&f->mtime_s));
    lg_wr_u32(&w, atomic_load(&f->mtime_ns));
    lg_wr_u32(&w, n);
    lg_wr_u32(&w, ops_len);
    for (uint32_t i = 0; i < n; i++) {
        lg_wr_u32(&w, ops[i].kind);
        lg_wr_u32(&w, 0);
        lg_wr_u64(&w, ops[i].off);
        lg_wr_u64(&w, ops[i].len);
        if (ops[i].kind == LG_JOP_WRITE)
            lg_wr_bytes(&w, ops[i].data, ops[i].len);
    }
    memset(buf + w.len, 0, len - w.len);
    w = lg_wr(buf + 8, 4);
    lg_wr_u32(&w, lg_crc32c(0, buf, len));
    return buf;
}

int lg_journal_append(struct lg_journal *j, struct lg_jfile *f, uint64_t seq, const struct lg_jop *ops, uint32_t n)
{
    if (j->read_only)
        return -EROFS;
    uint64_t ops_len = 0;
    for (uint32_t i = 0; i < n; i++)
        ops_len += LG_JOP_FIXED + (ops[i].kind == LG_JOP_WRITE ? ops[i].len : 0);
    uint64_t len = (LG_JREC_FIXED + ops_len + LG_SECTOR - 1) / LG_SECTOR * LG_SECTOR;
    if (len > LG_AREA_LEN - LG_AREA_DATA)
        return -EFBIG;
    lg_jfile_locate(f);
    pthread_mutex_lock(&j->mu);
    while (j->area[j->active].used + len > LG_AREA_LEN) {
        pthread_mutex_unlock(&j->mu);
        int rc = lg_journal_checkpoint(j);
        if (rc)
            return rc;
        pthread_mutex_lock(&j->mu);
    }
    struct area *a = &j->area[j->active];
    int rc = 0;
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 64;
        struct pending *p = reallocarray(a->p, cap, sizeof *p);
        if (p) {
            a->p = p;
            a->cap = cap;
        } else {
            rc = -ENOMEM;
        }
    }
    uint8_t *buf = rc ? NULL : encode(j, f, seq, ops, n, (uint32_t)len, (uint32_t)ops_len);
    if (!rc && !buf)
        rc = -ENOMEM;
    if (!rc)
        rc = lg_sys_write_full(j->sys, j->fd, buf, len, lg_area_off(j->active) + a->used);
    room_put(j, buf);
    if (!rc) {
        j->number++;
        f->appended = j->number;
        a->p[a->n++] = (struct pending){ f, j->number, a->used, (uint32_t)len, false };
        a->used += len;
    }
    pthread_mutex_unlock(&j->mu);
    return rc;
}

/* mu held. Everything that is not known durable is written once more, from what reads back. */
static int write_again_locked(struct lg_journal *j)
{
    uint8_t *buf = malloc(LG_AREA_LEN);
    int rc = buf ? 0 : -ENOMEM;
    for (unsigned n = 0; !rc && n < 2; n++) {
        const struct area *a = &j->area[n];
        if (a->generation)
            rc = lg_area_header_write(j->sys, &j->self, n, a->generation, n == j->active || (a->n && !a->in_place));
        for (size_t i = 0; !rc && i < a->n; i++) {
            const struct pending *p = &a->p[i];
            struct lg_jrec r;
            if (p->number <= j->synced || a->in_place)
                continue;
            ssize_t got = lg_sys_read_full(j->sys, j->fd, buf, p->len, lg_area_off(n) + p->off);
            if (got < 0)
                rc = (int)got;
            else if ((size_t)got < p->len || lg_jrec_decode(buf, p->len, a->generation, &r))
                rc = -EIO; /* gone */
            else
                rc = lg_sys_write_full(j->sys, j->fd, buf, p->len, lg_area_off(n) + p->off);
        }
    }
    free(buf);
    return rc;
}

int lg_journal_sync(struct lg_journal *j, uint64_t record)
{
    int rc = 0;
    pthread_mutex_lock(&j->mu);
    while (!rc && j->synced < record) {
        if (j->syncing) {
            pthread_cond_wait(&j->synced_cond, &j->mu);
            continue;
        }
        if (j->sync_failed && (rc = write_again_locked(j)) != 0)
            break;
        j->sync_failed = false;
        uint64_t upto = j->number;
        j->syncing = true;
        pthread_mutex_unlock(&j->mu);
        rc = j->sys->fdatasync(j->sys->arg, j->fd);
        pthread_mutex_lock(&j->mu);
        j->syncing = false;
        j->sync_failed |= rc != 0;
        if (!rc && j->synced < upto)
            j->synced = upto;
        pthread_cond_broadcast(&j->synced_cond);
    }
    pthread_mutex_unlock(&j->mu);
    return rc;
}

/* ---- checkpoints ------------------------------------------------------------------------------------------------------------- */

static int sync_file(const struct lg_journal *j, struct lg_jfile *f)
{
    int rc = j->sys->fdatasync(j->sys->arg, f->fd);
    uint32_t ns = atomic_load(&f->mtime_ns);
    if (!rc && ns != UTIME_OMIT) {
        struct timespec ts[2] = { { 0, UTIME_OMIT }, { (time_t)atomic_load(&f->mtime_s), ns } };
        rc = j->sys->futimens(j->sys->arg, f->fd, ts);
    }
    return rc;
}

static int cmp_file(const void *a, const void *b)
{
    const struct pending *x = a, *y = b;
    if (x->file != y->file)
        return x->file < y->file ? -1 : 1;
    return x->number < y->number ? -1 : x->number > y->number;
}

/* Those that nothing is left of, or all. mu held. */
static void adopted_free_locked(struct lg_journal *j, bool all)
{
    for (struct adopted **p = &j->adopted, *x; (x = *p);) {
        if (!all && lg_jfile_unretired(&x->file)) {
            p = &x->next;
            continue;
        }
        *p = x->next;
        close(x->file.fd);
        free(x);
    }
    atomic_store(&j->has_adopted, j->adopted != NULL);
}

int lg_journal_adopt(struct lg_journal *j, const struct lg_jfile *f)
{
    struct adopted *x = calloc(1, sizeof *x);
    if (!x)
        return -ENOMEM;
    x->file = *f;
    pthread_mutex_lock(&j->checkpointing);
    pthread_mutex_lock(&j->mu);
    atomic_store(&x->file.retired, atomic_load(&f->retired));
    for (unsigned n = 0; n < 2; n++)
        for (size_t i = 0; i < j->area[n].n; i++)
            if (j->area[n].p[i].file == f)
                j->area[n].p[i].file = &x->file;
    x->next = j->adopted;
    j->adopted = x;
    adopted_free_locked(j, false); /* put in place just now */
    pthread_mutex_unlock(&j->mu);
    pthread_mutex_unlock(&j->checkpointing);
    return 0;
}

bool lg_journal_has_adopted(struct lg_journal *j) { return atomic_load(&j->has_adopted); }

/* Puts the records of an area that no longer grows in place, durable. On error everything stays to be done again: applying a record twice is
 * harmless, as all later ones follow. */
static int area_apply(struct lg_journal *j, unsigned n)
{
    struct area *a = &j->area[n];
    int rc = lg_journal_sync(j, a->p[a->n - 1].number);
    uint8_t *buf = NULL;
    size_t cap = 0;
    for (size_t i = 0; !rc && i < a->n; i++) {
        struct lg_jrec r;
        if (a->p[i].len > cap) {
            free(buf);
            cap = a->p[i].len;
            if (!(buf = malloc(cap)))
                rc = -ENOMEM;
        }
        ssize_t got = rc ? rc : lg_sys_read_full(j->sys, j->fd, buf, a->p[i].len, lg_area_off(n) + a->p[i].off);
        if (got < 0)
            rc = (int)got;
        else if (got < (ssize_t)a->p[i].len || lg_jrec_decode(buf, a->p[i].len, a->generation, &r))
            rc = -EIO; /* the journal no longer reads as it was written */
        if (!rc)
            rc = lg_jrec_apply(j->sys, &r, a->p[i].file->fd);
    }
    free(buf);
    if (rc)
        return rc;
    pthread_mutex_lock(&j->mu);
    qsort(a->p, a->n, sizeof *a->p, cmp_file);
    pthread_mutex_unlock(&j->mu);
    for (size_t i = 0; !rc && i < a->n; i++)
        if (i + 1 == a->n || a->p[i + 1].file != a->p[i].file)
            rc = sync_file(j, a->p[i].file);
    return rc;
}

static int area_retire(struct lg_journal *j, unsigned n)
{
    struct area *a = &j->area[n];
    if (!a->n)
        return 0;
    int rc = a->in_place ? 0 : area_apply(j, n);
    if (!rc) {
        a->in_place = true;
        rc = lg_area_header_write(j->sys, &j->self, n, a->generation, false);
    }
    int sync_rc = rc ? 0 : j->sys->fdatasync(j->sys->arg, j->fd);
    pthread_mutex_lock(&j->mu);
    j->sync_failed |= sync_rc != 0;
    for (size_t i = 0; !rc && !sync_rc && i < a->n; i++)
        if (i + 1 == a->n || a->p[i + 1].file != a->p[i].file)
            atomic_store(&a->p[i].file->retired, a->p[i].number);
    if (!rc && !sync_rc) {
        a->n = 0;
        a->used = LG_AREA_DATA;
        a->in_place = false;
        adopted_free_locked(j, false);
    }
    pthread_mutex_unlock(&j->mu);
    return rc ? rc : sync_rc;
}

int lg_journal_checkpoint(struct lg_journal *j)
{
    if (j->read_only)
        return 0;
    pthread_mutex_lock(&j->checkpointing);
    /* The other area is empty unless an earlier checkpoint failed half way. */
    unsigned other = 1 - j->active;
    int rc = area_retire(j, other);
    pthread_mutex_lock(&j->mu);
    unsigned old = j->active;
    bool work = !rc && j->area[old].n > 0;
    if (work) {
        j->area[other].generation = ++j->generation;
        j->area[other].used = LG_AREA_DATA;
        rc = lg_area_header_write(j->sys, &j->self, other, j->generation, true);
        if (!rc)
            j->active = other;
    }
    pthread_mutex_unlock(&j->mu);
    if (work && !rc)
        rc = area_retire(j, old);
    pthread_mutex_unlock(&j->checkpointing);
    return rc;
}

int lg_journal_close(struct lg_journal *j)
{
    if (!j)
        return 0;
    int rc = lg_journal_checkpoint(j);
    adopted_free_locked(j, true); /* no other thread is left */
    close(j->fd);
    for (unsigned a = 0; a < 2; a++)
        free(j->area[a].p);
    pthread_mutex_destroy(&j->checkpointing);
    pthread_mutex_destroy(&j->mu);
    pthread_cond_destroy(&j->synced_cond);
    lg_huge_unmap(j->room, j->room_len);
    free(j);
    return rc;
}
