#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

#define MTIME_GRAIN_NS 10000000 /* how coarse the kernel's own file times are: a tick, at 100 a second */

int lg_sync_below(struct lg_file *f)
{
    int rc = f->env->sys->fdatasync(f->env->sys->arg, f->fd);
    if (rc)
        f->sync_failed = true;
    else
        f->in_place_from = LG_SIZE_NONE;
    return rc;
}

/* ---- what a commit writes ------------------------------------------------------------------------------------------------------- */

/* Ops of a journal record, with the buffers that they point into. */
struct ops {
    struct lg_jop *op;
    uint8_t **own;
    uint32_t n, cap;
};

static int op_add(struct ops *o, enum lg_jop_kind kind, uint64_t off, uint64_t len, const void *data, uint8_t *own)
{
    if (o->n == o->cap) {
        uint32_t cap = o->cap ? o->cap * 2 : 16;
        struct lg_jop *op = reallocarray(o->op, cap, sizeof *op);
        if (op)
            o->op = op;
        uint8_t **ow = op ? reallocarray(o->own, cap, sizeof *ow) : NULL;
        if (!ow) {
            free(own);
            return -ENOMEM;
        }
        o->own = ow;
        o->cap = cap;
    }
    o->op[o->n] = (struct lg_jop){ kind, off, len, data };
    o->own[o->n++] = own;
    return 0;
}

static void ops_free(struct ops *o)
{
    for (uint32_t i = 0; i < o->n; i++)
        free(o->own[i]);
    free(o->op);
    free(o->own);
}

/* The others are sealed into the record. Their entries change in memory at once; should the commit fail, they are still dirty, and are
 * sealed anew by the next. */
static int seal_into(struct lg_file *f, struct ops *o)
{
    int rc = 0;
    for (size_t k = 0; !rc && k < f->n_o; k++) {
        struct lg_ochunk *c = &f->o[k];
        if (!c->dirty)
            continue;
        uint32_t len = lg_chunk_len(f, c->i);
        uint8_t entry[LG_ENTRY_LEN], *cipher = malloc(len);
        rc = cipher ? lg_count_writes(f, 1) : -ENOMEM;
        if (!rc)
            rc = lg_chunk_seal(f->key, f->s0.file_id, c->i, c->data, len, cipher, entry);
        if (rc)
            free(cipher);
        else
            rc = op_add(o, LG_JOP_WRITE, lg_format_chunk_off(f->env->chunk_size, c->i), len, cipher, cipher);
        if (!rc)
            rc = lg_entries_set(f, c->i, entry, 1);
    }
    return rc;
}

/* Calls each for every run of dirty sectors in page p. */
static int dirty_sectors(struct lg_file *f, size_t p, int (*each)(struct lg_file *f, uint64_t off, const uint8_t *data, size_t len, void *arg), void *arg)
{
    struct lg_tpage *pg = f->page[p];
    uint64_t base = lg_format_entry_off(f->env->chunk_size, lg_page_first(p));
    int rc = 0;
    for (unsigned s = 0; !rc && pg && s < 8; s++) {
        unsigned e = s;
        while (e < 8 && pg->dirty & 1u << e)
            e++;
        if (e > s)
            rc = each(f, base + s * LG_SECTOR, pg->e + s * LG_SECTOR, (e - s) * LG_SECTOR, arg);
        s = e;
    }
    return rc;
}

static int sector_write(struct lg_file *f, uint64_t off, const uint8_t *data, size_t len, void *arg)
{
    (void)arg;
    f->unsynced = true;
    if (off + len > f->phys) /* entries that were emptied may stand behind the end */
        f->phys = off + len;
    int rc = lg_sys_write_full(f->env->sys, f->fd, data, len, off);
    if (rc)
        f->phys = LG_SIZE_NONE;
    return rc;
}

static int sector_op(struct lg_file *f, uint64_t off, const uint8_t *data, size_t len, void *arg)
{
    (void)f;
    return op_add(arg, LG_JOP_WRITE, off, len, data, NULL);
}

/* Chunks of the file as it is, and of what was committed. */
static uint64_t top(const struct lg_file *f)
{
    uint64_t n = lg_n_chunks(f, f->size);
    return f->committed_n > n ? f->committed_n : n;
}

/* Number of pages that stand in front of them: to the end of the last region's table, whose unused entries have to be zero. */
static size_t pages_used(const struct lg_file *f)
{
    uint64_t n = top(f);
    size_t used = n ? lg_page_of(n - 1 + lg_format_run(n - 1) - 1) + 1 : 1;
    return used < f->n_page ? used : f->n_page;
}

/* Tables of pages none of which is committed go straight to their place as well. */
static int pages_in_place(struct lg_file *f, size_t from)
{
    int rc = 0;
    for (size_t p = from; !rc && (p = lg_page_next(f, p)) < pages_used(f); p++)
        if (f->page[p]->dirty && lg_in_place(f, lg_page_first(p))) {
            rc = dirty_sectors(f, p, sector_write, NULL);
            if (!rc)
                f->page[p]->dirty = 0;
        }
    return rc;
}

static unsigned slot_target(const struct lg_file *f)
{
    if (f->newest < 0)
        return 0;
    if (f->newest == f->durable || f->durable < 0)
        return (unsigned)(1 - f->newest);
    return (unsigned)(1 - f->durable); /* the newest slot known durable is never overwritten (R2) */
}

static int slot_make(struct lg_file *f, unsigned target, uint8_t raw[LG_SECTOR])
{
    struct lg_slot s = { .seq = f->seq + 1, .session = f->env->session, .size = f->size, .chunk_writes = f->chunk_writes,
                         .durable_size = f->durable_size < f->size ? f->durable_size : f->size };
    return lg_slot_encode(&s, f->key, f->acc, f->s0_raw, f->slot_raw[1 - target], raw);
}

static void slot_done(struct lg_file *f, unsigned target, const uint8_t raw[LG_SECTOR], uint64_t record)
{
    memcpy(f->slot_raw[target], raw, LG_SECTOR);
    f->slot_seq[target] = ++f->seq;
    f->newest = (int)target;
    f->newest_record = record;
    f->committed_size = f->size;
    if (f->committed_n < lg_n_chunks(f, f->size))
        f->committed_n = lg_n_chunks(f, f->size);
    f->cut = LG_SIZE_NONE;
    f->zero.n = f->hole.n = 0;
    f->dirty = f->committed_changed = false;
}

/* The last write was so shortly before the commit's own, and nobody has seen its time: the lower file's may stand for it. */
static bool mtime_is_below(struct lg_file *f)
{
    struct timespec t;
    if (f->mtime.tv_nsec == UTIME_OMIT || f->mtime_set)
        return false;
    clock_gettime(CLOCK_REALTIME, &t);
    int64_t age = (int64_t)(t.tv_sec - f->mtime.tv_sec) * 1000000000 + t.tv_nsec - f->mtime.tv_nsec;
    return age >= 0 && age <= MTIME_GRAIN_NS && lg_file_mtime_leave(f);
}

/* Calls each for every run of emptied chunks, as they stand below, that nothing has filled since. */
static int holes(struct lg_file *f, int (*each)(struct lg_file *f, uint64_t off, uint64_t len, void *arg), void *arg)
{
    uint32_t cs = f->env->chunk_size;
    uint64_t n = lg_n_chunks(f, f->size);
    int rc = 0;
    for (size_t k = 0; !rc && k < f->hole.n; k++)
        for (uint64_t i = f->hole.at[k].from, to = f->hole.at[k].to < n ? f->hole.at[k].to : n; !rc && i < to;) {
            uint64_t most = lg_format_run(i), run = 0, len = 0;
            while (run < most && i + run < to && lg_entry_empty(lg_entry_get(f, i + run)) && !lg_o_find(f, i + run))
                len += lg_chunk_len(f, i + run++);
            if (run)
                rc = each(f, lg_format_chunk_off(cs, i), len, arg);
            i += run ? run : 1;
        }
    return rc;
}

static int hole_op(struct lg_file *f, uint64_t off, uint64_t len, void *arg)
{
    f->cleared = true; /* nothing may go there straight before this is in place (R5) */
    return op_add(arg, LG_JOP_ZERO, off, len, NULL, NULL);
}

/* Pages that were dropped, and not filled since: a commit that failed may have left something of them below. */
static int pages_zero(struct lg_file *f)
{
    static const uint8_t zero[LG_REGION_ENTRIES * LG_ENTRY_LEN];
    const struct lg_sys *sys = f->env->sys;
    uint64_t end = lg_format_cipher_size(f->env->chunk_size, f->size);
    int rc = 0;
    for (size_t k = 0; !rc && k < f->zero.n; k++)
        for (uint64_t p = f->zero.at[k].from; !rc && p < f->zero.at[k].to; p++) {
            uint64_t off = lg_format_entry_off(f->env->chunk_size, lg_page_first((size_t)p));
            if ((p < f->n_page && f->page[p]) || off >= end)
                continue;
            f->unsynced = true;
            rc = sys->fallocate(sys->arg, f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, sizeof zero);
            if (rc == -EOPNOTSUPP)
                rc = lg_sys_write_full(sys, f->fd, zero, sizeof zero, off);
        }
    return rc;
}

/* No slot names them: at once. Where that cannot be done below, the space comes back when the file goes. */
static int hole_punch(struct lg_file *f, uint64_t off, uint64_t len, void *arg)
{
    const struct lg_sys *sys = f->env->sys;
    (void)arg;
    f->unsynced = true;
    (void)!sys->fallocate(sys->arg, f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    return 0;
}

/* Nothing is dirty but chunk 0, and no slot names any: it stands directly behind the header, and is written with it. */
static bool one_chunk(struct lg_file *f)
{
    return f->n_o == 1 && f->n_o_dirty == 1 && f->o[0].i == 0 && !f->committed_n && !f->committed_changed && !f->j.appended && !lg_cut_pending(f);
}

/* Its entry changes in memory at once; should the commit fail, it is still dirty, and is sealed anew by the next. */
static int seal_one(struct lg_file *f, struct iovec *ret)
{
    uint32_t len = lg_chunk_len(f, 0);
    uint8_t entry[LG_ENTRY_LEN], *cipher = lg_scratch(len);
    int rc = cipher ? lg_count_writes(f, 1) : -ENOMEM;
    if (!rc)
        rc = lg_chunk_seal(f->key, f->s0.file_id, 0, f->o[0].data, len, cipher, entry);
    if (!rc)
        rc = lg_entries_set(f, 0, entry, 1);
    if (rc)
        return rc;
    f->in_place_from = 0;
    if (f->phys < LG_HEADER_LEN + len)
        f->phys = LG_HEADER_LEN + len;
    *ret = (struct iovec){ cipher, len };
    return 0;
}

/* Only what no slot names yet was written: everything straight to its place, in any order (R3). one: one_chunk */
static int commit_in_place(struct lg_file *f, bool one)
{
    const struct lg_sys *sys = f->env->sys;
    uint8_t head[LG_HEADER_LEN] = { 0 }, raw[LG_SECTOR];
    struct iovec out[2] = { { head, sizeof head } };
    uint64_t end = lg_format_cipher_size(f->env->chunk_size, f->size);
    unsigned target = slot_target(f);
    int rc = one ? seal_one(f, &out[1]) : 0;
    for (size_t p = 1; !rc && (p = lg_page_next(f, p)) < pages_used(f); p++)
        if (f->page[p]->dirty) {
            rc = dirty_sectors(f, p, sector_write, NULL);
            if (!rc)
                f->page[p]->dirty = 0;
        }
    if (!rc)
        rc = pages_zero(f);
    if (!rc)
        rc = holes(f, hole_punch, NULL);
    if (!rc)
        rc = slot_make(f, target, raw);
    if (rc)
        return rc;
    memcpy(head, f->s0_raw, LG_SECTOR);
    memcpy(head + LG_SECTOR, f->slot_raw, 2 * LG_SECTOR);
    memcpy(head + LG_SECTOR * (1 + target), raw, LG_SECTOR);
    if (f->n_page && f->page[0])
        memcpy(head + 3 * LG_SECTOR, f->page[0]->e, LG_HEADER_LEN - 3 * LG_SECTOR);
    f->unsynced = true;
    rc = lg_sys_writev_full(sys, f->fd, out, one ? 2 : 1, 0);
    if (rc)
        f->phys = LG_SIZE_NONE;
    else if (f->phys < LG_HEADER_LEN)
        f->phys = LG_HEADER_LEN;
    if (!rc && f->phys != end) { /* ends in a hole, or more was written than was kept */
        rc = sys->ftruncate(sys->arg, f->fd, (off_t)end);
        if (!rc)
            f->phys = end;
    }
    if (rc)
        return rc;
    if (one)
        lg_o_drop(f, 0, 1);
    if (f->n_page && f->page[0])
        f->page[0]->dirty = 0;
    slot_done(f, target, raw, 0);
    if (!mtime_is_below(f) && f->mtime.tv_nsec != UTIME_OMIT) {
        struct timespec ts[2] = { { 0, UTIME_OMIT }, f->mtime };
        (void)!sys->futimens(sys->arg, f->fd, ts);
    }
    return 0;
}

/* Space for everything that the record will put in place: it must not meet a full disk once it is durable. */
static int reserve(struct lg_file *f, const struct ops *o)
{
    const struct lg_sys *sys = f->env->sys;
    int rc = 0;
    for (uint32_t i = 0; !rc && i < o->n; i++)
        if (o->op[i].kind == LG_JOP_WRITE && o->op[i].off >= LG_HEADER_LEN) {
            rc = sys->fallocate(sys->arg, f->fd, FALLOC_FL_KEEP_SIZE, (off_t)o->op[i].off, (off_t)o->op[i].len);
            if (rc == -EOPNOTSUPP)
                return 0;
        }
    return rc;
}

/* Does the record make the file longer than it is to be? Entries that were emptied may stand behind its end. */
static bool reaches_behind(const struct ops *o, uint64_t end)
{
    for (uint32_t i = 0; i < o->n; i++)
        if (o->op[i].kind != LG_JOP_TRUNCATE && (o->op[i].off > end || o->op[i].len > end - o->op[i].off))
            return true;
    return false;
}

/* What a slot names changes: in one record, and in place only once that is durable (R4). */
static int commit_journaled(struct lg_file *f)
{
    uint32_t cs = f->env->chunk_size;
    uint64_t end = lg_format_cipher_size(cs, f->size);
    struct ops o = { 0 };
    uint8_t raw[LG_SECTOR];
    bool shrunk = f->cut != LG_SIZE_NONE, resized = false;
    bool loose = false; /* it changes entries that no slot names */
    uint64_t was_durable = f->durable_size;
    int rc = pages_in_place(f, 0);
    if (!rc && f->unsynced) { /* the record's slot calls everything durable */
        rc = lg_sync_below(f);
        if (!rc && !f->newest_record) {
            f->durable = f->newest;
            f->durable_unknown = false;
        }
        f->unsynced = rc != 0;
    }
    if (!rc)
        f->durable_size = f->size;
    if (!rc && shrunk)
        rc = op_add(&o, LG_JOP_TRUNCATE, lg_format_cipher_size(cs, f->cut), 0, NULL, NULL);
    for (size_t k = 0; !rc && k < f->zero.n; k++)
        for (uint64_t p = f->zero.at[k].from; !rc && p < f->zero.at[k].to;) {
            if (p < f->n_page && f->page[p]) { /* filled since, and written whole: perhaps in place already */
                p++;
                continue;
            }
            uint64_t first = lg_page_first((size_t)p), run = 1, most = lg_format_run(first) / LG_REGION_ENTRIES; /* pages to the end of its region */
            if (most > f->zero.at[k].to - p)
                most = f->zero.at[k].to - p;
            while (run < most && (p + run >= f->n_page || !f->page[p + run]))
                run++;
            loose |= lg_page_first((size_t)(p + run - 1)) >= top(f);
            rc = op_add(&o, LG_JOP_ZERO, lg_format_entry_off(cs, first), run * LG_REGION_ENTRIES * LG_ENTRY_LEN, NULL, NULL);
            p += run;
        }
    if (!rc)
        rc = holes(f, hole_op, &o);
    if (!rc)
        rc = seal_into(f, &o);
    for (size_t p = 0; !rc && (p = lg_page_next(f, p)) < pages_used(f); p++)
        if (f->page[p]->dirty) {
            loose |= lg_page_first(p) >= top(f);
            rc = dirty_sectors(f, p, sector_op, &o);
        }
    /* A last chunk that was written makes the file long enough by itself. */
    if (!rc && (shrunk || f->phys > end || reaches_behind(&o, end) || (f->size && lg_entry_empty(lg_entry_get(f, lg_n_chunks(f, f->size) - 1))))) {
        resized = true;
        rc = op_add(&o, LG_JOP_TRUNCATE, end, 0, NULL, NULL);
    }
    unsigned target = slot_target(f);
    if (!rc)
        rc = reserve(f, &o);
    if (!rc)
        rc = slot_make(f, target, raw);
    if (!rc)
        rc = op_add(&o, LG_JOP_WRITE, LG_SECTOR * (1 + target), LG_SECTOR, raw, NULL);
    if (!rc) {
        atomic_store(&f->j.mtime_s, f->mtime.tv_sec);
        atomic_store(&f->j.mtime_ns, (uint32_t)f->mtime.tv_nsec);
        rc = lg_journal_append(f->env->journal, &f->j, f->seq + 1, o.op, o.n);
    }
    ops_free(&o);
    if (rc) {
        f->durable_size = was_durable;
        return rc;
    }
    for (size_t p = 0; (p = lg_page_next(f, p)) < f->n_page; p++)
        f->page[p]->dirty = 0;
    for (size_t k = 0; k < f->n_o; k++)
        if (f->o[k].dirty) {
            f->o[k].dirty = false;
            f->o[k].record = f->j.appended;
        }
    f->n_o_dirty = 0;
    f->phys = end;
    if (shrunk || resized || loose) /* nothing may be put behind that end, or there, before it is in place (R5) */
        f->cut_record = f->j.appended;
    slot_done(f, target, raw, f->j.appended);
    return 0;
}

/* After lg_file_settle and lg_flush_in_place. A checkpoint may end at any time: what could not go in place until then stays for the record. */
static bool needs_journal(struct lg_file *f) { return f->committed_changed || f->n_o_dirty || f->j.appended || lg_cut_pending(f); }

/* As it looks before anything is put in place. */
static bool will_need_journal(struct lg_file *f)
{
    if (f->committed_changed || f->j.appended || lg_cut_pending(f))
        return true;
    for (size_t k = 0; k < f->n_o; k++)
        if (f->o[k].dirty && !lg_chunk_in_place(f, f->o[k].i))
            return true;
    return false;
}

/* What has to be durable before the commit: what its record's slot will call so, and what was committed earlier in this session and perhaps never synced, so
 * that R2 holds. The lock is let go of for that time: others read and write. What they put in place meanwhile, commit_journaled syncs. */
static int sync_ahead(struct lg_file *f)
{
    bool unknown = f->durable_unknown && f->newest >= 0;
    if (!unknown && !(f->unsynced && will_need_journal(f)))
        return 0;
    uint64_t from = f->in_place_from;
    f->unsynced = false;
    f->in_place_from = LG_SIZE_NONE;
    lg_unlock_exclusive(f);
    int rc = f->env->sys->fdatasync(f->env->sys->arg, f->fd);
    pthread_rwlock_wrlock(&f->lock);
    lg_file_settle(f);
    if (rc) {
        f->unsynced = f->sync_failed = true;
        if (from < f->in_place_from)
            f->in_place_from = from;
    } else if (unknown || !f->newest_record) { /* it is still the newest: commit_mu is held */
        f->durable = f->newest;
        f->durable_unknown = false;
        if (unknown)
            f->durable_size = f->committed_size;
    }
    return rc;
}

int lg_commit(struct lg_file *f)
{
    lg_file_settle(f);
    if (lg_later() && (f->sync_failed || (f->dirty && ((f->durable_unknown && f->newest >= 0) || will_need_journal(f))))) /* syncs */
        return -LG_ELATER;
    int rc = f->dirty && !f->sync_failed && !f->env->read_only ? sync_ahead(f) : 0;
    if (rc)
        return rc;
    if (f->dirty || f->sync_failed)
        lg_file_slow(f);
    rc = lg_write_again(f);
    if (rc || !f->dirty)
        return rc;
    if (f->env->read_only)
        return -EROFS;
    rc = lg_decide_commit(f);
    if (!rc && f->durable_unknown && f->newest >= 0) { /* written again just now */
        rc = lg_sync_below(f);
        if (!rc) {
            f->durable = f->newest;
            f->durable_size = f->committed_size;
            f->durable_unknown = false;
        }
    }
    bool one = !rc && one_chunk(f);
    if (!rc && !one)
        rc = lg_flush_in_place(f);
    if (rc)
        return rc;
    rc = !one && needs_journal(f) ? commit_journaled(f) : commit_in_place(f, one);
    f->half = rc != 0;
    return rc;
}

int lg_sync(struct lg_file *f)
{
    pthread_rwlock_wrlock(&f->lock);
    if (f->sync_failed)
        lg_file_slow(f);
    int rc = f->dead ? f->dead : f->sync_failed ? lg_file_load(f) : 0;
    if (!rc && f->loaded)
        rc = lg_commit(f);
    uint64_t record = lg_jfile_unretired(&f->j) ? f->newest_record : 0, seq = f->seq;
    bool file = !rc && (f->unsynced || f->durable_unknown);
    uint64_t from = f->in_place_from;
    if (file) { /* what is written from here on sets them again */
        f->unsynced = false;
        f->in_place_from = LG_SIZE_NONE;
    }
    lg_unlock_exclusive(f);
    if (!rc && record)
        rc = lg_journal_sync(f->env->journal, record);
    bool lost = !rc && file && (rc = f->env->sys->fdatasync(f->env->sys->arg, f->fd)) != 0;
    pthread_rwlock_wrlock(&f->lock);
    if (rc) {
        f->unsynced |= file;
        f->sync_failed |= lost;
        if (file && from < f->in_place_from)
            f->in_place_from = from;
    } else if (f->seq == seq && f->newest >= 0) { /* no commit came in between: commit_mu is held */
        f->durable = f->newest;
        f->durable_unknown = false;
        f->durable_size = f->committed_size;
        if (f->loaded) /* else it is still to be recovered: its keys were dropped after a commit that failed */
            lg_suspects_drop(f->env->suspects, f->s0.file_id);
    }
    lg_unlock_exclusive(f);
    return rc;
}
