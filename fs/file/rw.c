#include <errno.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* ---- reading ------------------------------------------------------------------------------------------------------------------ */

static int bad_chunk(const struct lg_file *f, uint64_t i)
{
    uint64_t from = i * f->env->chunk_size;
    if (!f->trying)
        lg_file_report(f, "chunk does not verify", from, from + lg_chunk_len(f, i));
    return -EBADMSG;
}

/* A run of chunks that stand contiguously below, none empty, read and opened in place, in parts of step bytes. */
struct run {
    const struct lg_file *f;
    uint64_t i, off; /* first chunk, and where it stands */
    uint8_t *buf;
    size_t len, step, from; /* from: of the parts that are read just now */
    uint64_t cold;          /* one bit per part that is not at hand without waiting */
};
/* A part is little enough to be still in the processor's cache when it is opened; a piece, much enough for what lies far away, of which many are under way at once; a
 * file is long if it is likely to be read further than its first small reads. */
enum { PART = 256 * 1024, PIECE = 128 * 1024, PARTS_MAX = 64, LONG = 4 * 1024 * 1024 };

/* The part at place at of the run has arrived, n bytes of it. */
static int open_part(struct run *r, size_t at, size_t n)
{
    const struct lg_file *f = r->f;
    uint32_t cs = f->env->chunk_size;
    size_t end = at + (r->len - at < r->step ? r->len - at : r->step), have = at + n;
    for (; at < end; at += cs) {
        uint64_t i = r->i + at / cs;
        uint32_t len = end - at < cs ? (uint32_t)(end - at) : cs;
        int rc = at + len > have ? -EBADMSG : lg_chunk_open(f->key, f->s0.file_id, i, r->buf + at, len, lg_entry_get(f, i), r->buf + at);
        if (rc)
            return rc == -EBADMSG ? bad_chunk(f, i) : rc;
    }
    return 0;
}

static int arrived(void *arg, size_t at, size_t n)
{
    struct run *r = arg;
    return open_part(r, r->from + at, n);
}

static int cached_part(void *arg, unsigned k)
{
    struct run *r = arg;
    const struct lg_sys *sys = r->f->env->sys;
    size_t at = k * r->step, len = r->len - at < r->step ? r->len - at : r->step;
    ssize_t got = sys->pread_cached ? sys->pread_cached(sys->arg, r->f->fd, r->buf + at, len, (off_t)(r->off + at))
                                    : lg_sys_read_full(sys, r->f->fd, r->buf + at, len, r->off + at);
    if (sys->pread_cached && got < (ssize_t)len) { /* and whatever went wrong is told by a read that waits */
        __atomic_fetch_or(&r->cold, 1ull << k, __ATOMIC_RELAXED);
        return 0;
    }
    return got < 0 ? (int)got : open_part(r, at, (size_t)got);
}

static int read_run(struct lg_file *f, uint64_t i, uint8_t *buf, size_t len)
{
    uint32_t cs = f->env->chunk_size;
    int rc = 0;
    while (!rc && len) {
        struct run r = { .f = f, .i = i, .off = lg_format_chunk_off(cs, i), .buf = buf, .len = len, .step = cs < PART ? PART : cs };
        if (r.len > PARTS_MAX * r.step)
            r.len = PARTS_MAX * r.step;
        unsigned parts = (unsigned)((r.len + r.step - 1) / r.step);
        bool large = r.len > PIECE;
        if (f->env->cache_told && (large || f->size >= LONG) && !atomic_load_explicit(&f->cache_asked, memory_order_relaxed))
            lg_cold_ask(f, r.off, r.len);
        if (!large) { /* nothing to do meanwhile */
            ssize_t got = lg_sys_read_full(f->env->sys, f->fd, buf, r.len, r.off);
            rc = got < 0 ? (int)got : open_part(&r, 0, (size_t)got);
        } else {
            rc = lg_pool_run(f->env->pool, parts, cached_part, &r, 1);
        }
        for (unsigned k = 0, n; !rc && k < parts; k += n) {
            bool cold = r.cold >> k & 1;
            for (n = 1; k + n < parts && (r.cold >> (k + n) & 1) == cold; n++)
                ;
            if (!cold)
                continue;
            if (lg_later()) { /* by then it may be in memory */
                lg_cold_found(f);
                rc = -LG_ELATER;
                break;
            }
            r.from = k * r.step;
            size_t part = r.step, end = (k + n) * part < r.len ? (k + n) * part : r.len;
            r.step = cs < PIECE ? PIECE : cs;
            ssize_t got = lg_sys_read_pieces(f->env->sys, f->fd, buf + r.from, end - r.from, r.off + r.from, r.step, arrived, &r);
            r.step = part;
            rc = got < 0 ? (int)got : 0;
        }
        if (!rc && large)
            lg_cold_read(f, r.off, r.len, r.cold);
        i += r.len / cs;
        buf += r.len;
        len -= r.len;
    }
    return rc;
}

int lg_chunk_load(struct lg_file *f, uint64_t i, uint8_t *out)
{
    uint32_t len = lg_chunk_len(f, i);
    const struct lg_ochunk *c = lg_o_find(f, i);
    if (c) {
        memcpy(out, c->data, f->env->chunk_size);
        return 0;
    }
    memset(out + len, 0, f->env->chunk_size - len);
    if (lg_entry_empty(lg_entry_get(f, i))) {
        memset(out, 0, len);
        return 0;
    }
    return read_run(f, i, out, len);
}

static int read_locked(struct lg_file *f, uint8_t *buf, size_t len, uint64_t off)
{
    uint32_t cs = f->env->chunk_size;
    int rc = 0;
    while (!rc && len) {
        uint64_t i = off / cs;
        uint32_t at = (uint32_t)(off % cs), clen = lg_chunk_len(f, i);
        size_t n = len < clen - at ? len : clen - at;
        const struct lg_ochunk *c = lg_o_find(f, i);
        if (c) {
            memcpy(buf, c->data + at, n);
        } else if (lg_entry_empty(lg_entry_get(f, i))) {
            memset(buf, 0, n);
        } else if (n == clen) {
            uint64_t most = lg_format_run(i);
            for (uint64_t k = 1; k < most && n < len; k++) {
                uint32_t next = lg_chunk_len(f, i + k);
                if (next > len - n || lg_o_find(f, i + k) || lg_entry_empty(lg_entry_get(f, i + k)))
                    break;
                n += next;
            }
            rc = read_run(f, i, buf, n);
        } else {
            uint8_t *whole = malloc(cs);
            rc = whole ? read_run(f, i, whole, clen) : -ENOMEM;
            if (!rc)
                memcpy(buf, whole + at, n);
            free(whole);
        }
        buf += n;
        off += n;
        len -= n;
    }
    return rc;
}

ssize_t lg_file_read(struct lg_file *f, void *buf, size_t len, uint64_t off)
{
    int rc = lg_lock_shared(f);
    if (rc)
        return rc;
    if (off >= f->size)
        len = 0;
    else if (len > f->size - off)
        len = (size_t)(f->size - off);
    rc = read_locked(f, buf, len, off);
    pthread_rwlock_unlock(&f->lock);
    return rc ? rc : (ssize_t)len;
}

/* ---- writing ------------------------------------------------------------------------------------------------------------------ */

static void touched(struct lg_file *f)
{
    clock_gettime(CLOCK_REALTIME, &f->mtime);
    f->mtime_set = false;
    atomic_store_explicit(&f->mtime_seen, false, memory_order_relaxed);
    f->dirty = true;
}

int lg_o_get(struct lg_file *f, uint64_t i, bool want_old, struct lg_ochunk **ret)
{
    struct lg_ochunk *c = lg_o_find(f, i);
    if (!c) {
        c = lg_o_add(f, i);
        if (!c)
            return -ENOMEM;
        uint64_t from = i * f->env->chunk_size;
        const uint8_t *e = lg_entry_get(f, i);
        int rc = want_old && from < f->size && !lg_entry_empty(e) ? read_run(f, i, c->data, lg_chunk_len(f, i)) : 0;
        if (rc) {
            lg_o_drop(f, i, i + 1);
            return rc;
        }
    }
    lg_o_dirty(f, c);
    *ret = c;
    return 0;
}

/* A partial last chunk that stands below is sealed anew when the file grows, as its length is part of what is authenticated. */
static int grow(struct lg_file *f, uint64_t size)
{
    uint64_t last = f->size / f->env->chunk_size;
    struct lg_ochunk *c;
    if (size <= f->size)
        return 0;
    if (f->size % f->env->chunk_size && !lg_o_find(f, last) && !lg_entry_empty(lg_entry_get(f, last))) {
        int rc = lg_o_get(f, last, true, &c);
        if (rc)
            return rc;
    } else if (f->size % f->env->chunk_size && (c = lg_o_find(f, last)) != NULL) {
        lg_o_dirty(f, c);
    }
    f->size = size;
    touched(f);
    return 0;
}

/* The chunks were to be written over in place, and what stands there now is neither. The new bytes stay in memory for those that had old ones. */
static void spoiled(struct lg_file *f, uint64_t i, uint64_t n, const uint8_t *plain)
{
    struct lg_ochunk *c;
    for (uint64_t k = 0; k < n; k++)
        if (!lg_o_find(f, i + k) && !lg_entry_empty(lg_entry_get(f, i + k)) && !lg_o_get(f, i + k, false, &c)) {
            memcpy(c->data, plain + k * f->env->chunk_size, lg_chunk_len(f, i + k)); /* zero beyond its end */
            touched(f);
        }
}

static int write_locked(struct lg_file *f, const uint8_t *buf, size_t len, uint64_t off)
{
    uint32_t cs = f->env->chunk_size;
    int rc = 0;
    if (f->env->read_only)
        return -EROFS;
    if (off > LG_FILE_SIZE_MAX || len > LG_FILE_SIZE_MAX - off)
        return -EFBIG;
    if (!len)
        return 0;
    if (!f->key || f->cls || lg_blank(f) || f->unsettled)
        rc = lg_decide_write(f, buf, len, off);
    else if (off < f->decided && !f->decided_reported && !f->redo) {
        f->decided_reported = true;
        lg_file_report(f, "bytes that decided the study were rewritten", off, off + len);
    }
    if (!rc && off > f->size)
        rc = grow(f, off);
    while (!rc && len) {
        uint64_t i = off / cs;
        uint32_t at = (uint32_t)(off % cs);
        size_t n = len < cs - at ? len : cs - at;
        bool direct = !lg_undecided(f) && lg_chunk_in_place(f, i);
        if (n == cs && direct) {
            uint64_t most = lg_format_run(i), k = 1;
            while (k < most && k * cs + cs <= len && k * cs + cs <= LG_SEAL_MAX && lg_chunk_in_place(f, i + k))
                k++;
            n = (size_t)k * cs;
            rc = grow(f, off);
            if (!rc) {
                rc = lg_seal_in_place(f, i, buf, n);
                if (rc)
                    spoiled(f, i, k, buf);
            }
            if (!rc) {
                lg_o_drop(f, i, i + k);
                if (off + n > f->size)
                    f->size = off + n;
                touched(f);
            }
        } else {
            struct lg_ochunk *c;
            if (off + n > f->size && i != f->size / cs)
                rc = grow(f, i * cs);
            if (!rc)
                rc = lg_o_get(f, i, n < cs, &c);
            if (rc)
                break;
            memcpy(c->data + at, buf, n);
            if (off + n > f->size)
                f->size = off + n;
            touched(f);
            if (direct && at + n == cs && off + n == f->size) { /* written to its end: nothing more is expected here */
                rc = lg_seal_in_place(f, i, c->data, cs);
                if (!rc)
                    lg_o_drop(f, i, i + 1);
            }
        }
        buf += n;
        off += n;
        len -= n;
    }
    return rc;
}

static bool much(const struct lg_file *f) { return f->n_o_dirty * (uint64_t)f->env->chunk_size > LG_OVERLAY_MAX || f->zero.n + f->hole.n > 1024; }

/* What is held in memory is bounded: commit, and after a truncation put it in place, so that what follows can go there straight. */
static int relieve(struct lg_file *f)
{
    if (lg_later()) /* the next write begins with it */
        return 0;
    pthread_rwlock_rdlock(&f->lock);
    bool is = much(f), cut = f->cut != LG_SIZE_NONE;
    pthread_rwlock_unlock(&f->lock);
    if (!is)
        return 0;
    int rc = lg_file_commit(f);
    return rc || !cut ? rc : lg_journal_checkpoint(f->env->journal);
}

int lg_file_write(struct lg_file *f, const void *buf, size_t len, uint64_t off)
{
    int rc = lg_lock_exclusive(f);
    if (rc)
        return rc;
    uint64_t decided = f->decided;
    rc = lg_later() && much(f) ? -LG_ELATER : write_locked(f, buf, len, off);
    f->redo = rc == -LG_ELATER && (f->redo || f->decided != decided);
    lg_unlock_exclusive(f);
    return rc ? rc : relieve(f);
}

/* ---- sizes and holes ------------------------------------------------------------------------------------------------------------ */

/* Zeros from .. to-1, within the size, in memory; whole chunks become holes. */
static int zero_locked(struct lg_file *f, uint64_t from, uint64_t to)
{
    uint32_t cs = f->env->chunk_size;
    int rc = 0;
    if (to > f->size)
        to = f->size;
    while (!rc && from < to) {
        uint64_t i = from / cs;
        uint32_t at = (uint32_t)(from % cs);
        if (at == 0 && to - from >= lg_chunk_len(f, i)) {
            uint64_t end = to == f->size ? lg_n_chunks(f, f->size) : to / cs;
            rc = lg_entries_clear(f, i, end);
            if (!rc)
                lg_o_drop(f, i, end);
            from = end * cs;
        } else {
            size_t n = to - from < cs - at ? (size_t)(to - from) : cs - at;
            struct lg_ochunk *c;
            if (lg_o_find(f, i) || !lg_entry_empty(lg_entry_get(f, i))) {
                rc = lg_o_get(f, i, true, &c);
                if (!rc)
                    memset(c->data + at, 0, n);
            }
            from += n;
        }
    }
    if (!rc)
        touched(f);
    return rc;
}

static int truncate_locked(struct lg_file *f, uint64_t size)
{
    uint32_t cs = f->env->chunk_size;
    int rc;
    if (f->env->read_only)
        return -EROFS;
    if (size > LG_FILE_SIZE_MAX)
        return -EFBIG;
    if (size >= f->size) {
        rc = grow(f, size);
        if (!rc)
            touched(f);
        return rc;
    }
    if (size % cs) {
        uint64_t i = size / cs;
        struct lg_ochunk *c;
        if (lg_o_find(f, i) || !lg_entry_empty(lg_entry_get(f, i))) {
            rc = lg_o_get(f, i, true, &c);
            if (rc)
                return rc;
            memset(c->data + size % cs, 0, cs - size % cs);
        }
    }
    uint64_t n = lg_n_chunks(f, size);
    rc = lg_entries_clear(f, n, lg_n_chunks(f, f->size));
    if (rc)
        return rc;
    lg_o_drop(f, n, UINT64_MAX);
    f->size = size;
    if (size < f->committed_size && size < f->cut)
        f->cut = size;
    if (size == 0) { /* what comes next is a file of its own */
        lg_classifier_free(f->cls);
        f->cls = NULL;
        f->fed = 0;
        f->decided = 0;
    }
    touched(f);
    return 0;
}

int lg_file_truncate(struct lg_file *f, uint64_t size)
{
    int rc = lg_lock_exclusive(f);
    if (rc)
        return rc;
    rc = truncate_locked(f, size);
    lg_unlock_exclusive(f);
    return rc ? rc : relieve(f);
}

int lg_file_fallocate(struct lg_file *f, int mode, uint64_t off, uint64_t len)
{
    bool keep = mode & FALLOC_FL_KEEP_SIZE;
    int what = mode & ~FALLOC_FL_KEEP_SIZE;
    if (!len)
        return -EINVAL;
    if (off > LG_FILE_SIZE_MAX || len > LG_FILE_SIZE_MAX - off)
        return -EFBIG;
    if ((what && what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE) || (what == FALLOC_FL_PUNCH_HOLE && !keep))
        return -EOPNOTSUPP;
    if (f->env->read_only)
        return -EROFS;
    int rc = lg_lock_exclusive(f);
    if (rc)
        return rc;
    if (what) {
        rc = zero_locked(f, off, off + len);
    } else { /* asks for space: have the lower filesystem set it aside */
        lg_file_slow(f);
        rc = f->env->sys->fallocate(f->env->sys->arg, f->fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)lg_format_cipher_size(f->env->chunk_size, off + len));
    }
    f->reserved |= !what && !rc;
    if (!rc && !keep && off + len > f->size)
        rc = grow(f, off + len);
    lg_unlock_exclusive(f);
    return rc ? rc : relieve(f);
}

int lg_file_seek(struct lg_file *f, uint64_t off, int whence, uint64_t *ret)
{
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
        return -EINVAL;
    int rc = lg_lock_shared(f);
    if (rc)
        return rc;
    uint32_t cs = f->env->chunk_size;
    uint64_t n = lg_n_chunks(f, f->size), i = off / cs;
    if (off >= f->size) {
        pthread_rwlock_unlock(&f->lock);
        return -ENXIO;
    }
    if (whence == SEEK_DATA)
        i = lg_data_next(f, i, n);
    else
        while (i < n && (lg_o_find(f, i) || !lg_entry_empty(lg_entry_get(f, i))))
            i++;
    uint64_t at = i * cs < off ? off : i * cs;
    if (i == n && whence == SEEK_DATA)
        rc = -ENXIO;
    else
        *ret = at < f->size ? at : f->size;
    pthread_rwlock_unlock(&f->lock);
    return rc;
}
