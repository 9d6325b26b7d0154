#include <fcntl.h>
#include <linux/falloc.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static bool claimed(const uint8_t raw[2][LG_SECTOR], uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    struct lg_slot s, newest = { .seq = 0 };
    for (unsigned i = 0; i < 2; i++)
        if (lg_slot_decode(raw[i], &s) == 0 && s.seq > newest.seq)
            newest = s;
    if (!newest.seq)
        return false;
    memcpy(ret_kid, newest.kid, LG_ID_LEN);
    *ret_version = newest.key_version;
    return true;
}

void lg_file_report(const struct lg_file *f, const char *kind, uint64_t from, uint64_t to)
{
    struct lg_finding x = { .kind = kind, .from = from, .to = to, .key_version = f->key_version };
    memcpy(x.file_id, f->s0.file_id, LG_ID_LEN);
    memcpy(x.kid, f->kid, LG_ID_LEN);
    if (!f->key_version && !claimed((const uint8_t(*)[LG_SECTOR])f->slot_raw, x.kid, &x.key_version))
        x.key_version = 0;
    if (f->env->finding)
        f->env->finding(f->env->arg, &x);
}

/* Did a session that may have written this slot, or begun to write after it, end uncleanly? */
static bool recoverable(const struct lg_file *f, uint64_t session)
{
    return f->suspect || f->env->accept_crash || (f->n_unclean && f->env->unclean[f->n_unclean - 1] >= session);
}

static bool ended_uncleanly(const struct lg_file *f, uint64_t session)
{
    for (unsigned i = 0; i < f->n_unclean; i++)
        if (f->env->unclean[i] == session)
            return true;
    return f->suspect;
}

static void forget(struct lg_file *f)
{
    lg_table_free(f);
    lg_filekey_free(f->key);
    lg_filekey_free(f->spare);
    f->key = f->spare = NULL;
    f->provisional = false;
}

/* Key, accumulator and table as slot s says. ret_acc_ok: the table is the one that the slot speaks of. */
static int try_slot(struct lg_file *f, unsigned n, const struct lg_slot *s, const uint8_t *head_entries, bool *ret_acc_ok, bool *ret_exact)
{
    struct lg_kref *kref;
    uint8_t want[LG_PRF_OUT];
    forget(f);
    int rc = lg_keys_by_id(f->env->keys, s->kid, s->key_version, &kref);
    if (rc)
        return rc;
    struct lg_siv *wrap, *own = NULL;
    rc = lg_wrap_of(kref, &wrap, &own);
    if (!rc)
        rc = lg_filekey_open_with(wrap, s, &f->s0, &f->key);
    lg_siv_free(own);
    f->provisional = kref->kind == LG_KIND_PROVISIONAL;
    f->general = kref->kind == LG_KIND_GENERAL;
    f->unsettled = lg_unsettled(kref->kind, s->size);
    lg_kref_unref(kref);
    if (!rc)
        rc = lg_slot_verify(f->slot_raw[n], s, f->key, f->s0_raw, want);
    if (!rc)
        rc = lg_table_load(f, lg_n_chunks(f, s->size), head_entries, f->acc, ret_exact);
    if (!rc)
        *ret_acc_ok = lg_equal(want, f->acc, LG_PRF_OUT);
    return rc;
}

static void adopt(struct lg_file *f, unsigned n, const struct lg_slot *s)
{
    bool whole = !ended_uncleanly(f, s->session) && s->session != f->env->session;
    f->newest = (int)n;
    f->newest_record = 0;
    f->seq = s->seq;
    f->size = f->committed_size = s->size;
    f->committed_n = lg_n_chunks(f, s->size);
    /* Whatever a session wrote that ended cleanly is durable: it said so after syncing everything. */
    f->durable = whole ? (int)n : -1;
    f->durable_size = whole ? s->size : s->durable_size < s->size ? s->durable_size : s->size;
    f->durable_unknown = !whole;
    f->chunk_writes = s->chunk_writes;
    memcpy(f->kid, s->kid, LG_ID_LEN);
    f->key_version = s->key_version;
}

/* The chunks that were not known durable when the slot was written: each must verify (R8). */
static int verify_tail(struct lg_file *f, uint64_t durable_size)
{
    uint64_t n = lg_n_chunks(f, f->size);
    uint8_t *buf = malloc(f->env->chunk_size);
    int rc = buf ? 0 : -ENOMEM;
    f->trying = true;
    for (uint64_t i = durable_size / f->env->chunk_size; !rc && (i = lg_entry_next(f, i, n)) < n; i++)
        rc = lg_chunk_load(f, i, buf);
    f->trying = false;
    free(buf);
    return rc;
}

/* Makes what stands below exact for the slot that was accepted, and commits it anew for this session. */
static int recommit_once(struct lg_file *f, unsigned n)
{
    const struct lg_sys *sys = f->env->sys;
    uint64_t chunks = lg_n_chunks(f, f->size), used = lg_format_entry_off(f->env->chunk_size, chunks);
    uint8_t head[LG_HEADER_LEN] = { 0 };
    struct stat st;
    int rc = sys->fstat(sys->arg, f->fd, &st);
    if (!rc)
        rc = sys->ftruncate(sys->arg, f->fd, (off_t)lg_format_cipher_size(f->env->chunk_size, f->size));
    if (!rc && chunks > LG_HEAD_ENTRIES && lg_page_first(lg_page_of(chunks - 1)) != chunks) {
        /* Unused entries of the last region's table, which may be gigabytes of a sparse file. */
        uint64_t left = lg_format_run(chunks - 1) - 1;
        rc = left ? sys->fallocate(sys->arg, f->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)used, (off_t)(left * LG_ENTRY_LEN)) : 0;
        bool punched = rc != -EOPNOTSUPP;
        rc = punched ? rc : 0;
        for (uint64_t done = 0; !rc && !punched && done < left;) {
            uint64_t m = left - done < sizeof head / LG_ENTRY_LEN ? left - done : sizeof head / LG_ENTRY_LEN;
            rc = lg_sys_write_full(sys, f->fd, head, (size_t)(m * LG_ENTRY_LEN), used + done * LG_ENTRY_LEN);
            done += m;
        }
    }
    struct lg_slot s = { .seq = f->seq + 1, .session = f->env->session, .size = f->size, .durable_size = f->size, .chunk_writes = f->chunk_writes };
    unsigned target = 1 - n;
    if (!rc)
        rc = lg_write_again(f);
    if (!rc)
        rc = lg_slot_encode(&s, f->key, f->acc, f->s0_raw, f->slot_raw[n], f->slot_raw[target]);
    struct timespec ts[2] = { { 0, UTIME_OMIT }, st.st_mtim };
    if (!rc) /* at once, and again below: whoever is killed in between leaves its own time there */
        rc = sys->futimens(sys->arg, f->fd, ts);
    if (!rc)
        rc = sys->fdatasync(sys->arg, f->fd); /* what the new slot calls durable */
    for (size_t i = 0; i < LG_HEAD_ENTRIES; i++)
        memcpy(head + 3 * LG_SECTOR + i * LG_ENTRY_LEN, lg_entry_get(f, i), LG_ENTRY_LEN);
    memcpy(head, f->s0_raw, LG_SECTOR);
    memcpy(head + LG_SECTOR, f->slot_raw[0], LG_SECTOR);
    memcpy(head + 2 * LG_SECTOR, f->slot_raw[1], LG_SECTOR);
    if (!rc)
        rc = lg_sys_write_full(sys, f->fd, head, sizeof head, 0);
    if (!rc)
        rc = sys->futimens(sys->arg, f->fd, ts);
    if (!rc)
        rc = sys->fdatasync(sys->arg, f->fd);
    if (rc)
        return rc;
    f->seq++;
    f->newest = f->durable = (int)target;
    f->durable_size = f->size;
    f->durable_unknown = false;
    f->slot_seq[target] = f->seq;
    return 0;
}

static int recommit(struct lg_file *f, unsigned n)
{
    int rc = recommit_once(f, n);
    if (rc)
        lg_suspects_add(f->env->suspects, f->s0.file_id); /* the next try must not believe that what this one wrote is there */
    else
        lg_suspects_drop(f->env->suspects, f->s0.file_id);
    f->sync_failed = false;
    return rc;
}

static int other_hash_ok(const struct lg_file *f, unsigned n, const struct lg_slot *s, bool *ret)
{
    uint8_t h[LG_MAC_LEN];
    int rc = lg_sha256_2(f->s0_raw, LG_SECTOR, f->slot_raw[1 - n], LG_SECTOR, h);
    *ret = !rc && lg_equal(h, s->other_hash, sizeof h);
    return rc;
}

static bool locked(const struct lg_file *f)
{
    struct lg_kref *general;
    int rc = lg_keys_general(f->env->keys, &general);
    if (!rc)
        lg_kref_unref(general);
    return rc != 0;
}

static int load_slots(struct lg_file *f, const uint8_t *head_entries)
{
    struct lg_slot s[2];
    bool have[2];
    uint64_t cs = f->env->chunk_size;
    f->suspect = lg_suspects_has(f->env->suspects, f->s0.file_id);
    f->sync_failed |= f->suspect;
    f->n_unclean = __atomic_load_n(&f->env->n_unclean, __ATOMIC_ACQUIRE); /* a sweep may end meanwhile */
    for (unsigned i = 0; i < 2; i++) {
        have[i] = !lg_slot_decode(f->slot_raw[i], &s[i]);
        f->slot_seq[i] = have[i] ? s[i].seq : 0;
    }
    if (!have[0] && !have[1]) {
        lg_file_report(f, "no valid commit slot", 0, 0);
        return -EBADMSG;
    }
    unsigned first = have[1] && (!have[0] || s[1].seq > s[0].seq);
    bool older = false, acc_ok = false, exact = false, hash_ok = false;
    int rc = try_slot(f, first, &s[first], head_entries, &acc_ok, &exact);
    if (!rc)
        rc = other_hash_ok(f, first, &s[first], &hash_ok);
    if (!rc) {
        /* Only now: before its MAC is checked, anybody may have written that number. */
        bool lenient = recoverable(f, s[first].session), unclean = ended_uncleanly(f, s[first].session), accept = f->env->accept_crash;
        adopt(f, first, &s[first]);
        exact = exact && f->phys == lg_format_cipher_size((uint32_t)cs, f->size);
        if (acc_ok && exact && hash_ok && !unclean)
            return 0;
        if (lg_later()) /* the rest is not the rule, and syncs */
            return -LG_ELATER;
        older = unclean || accept;
        /* Under a slot that was made durable only the length and unused entries can be a crash's work: whatever else is wrong is damage, and
         * going back to an older commit would turn it into a loss. */
        if (!acc_ok || !(older || (lenient && hash_ok)))
            rc = -EBADMSG;
        else if (unclean)
            rc = verify_tail(f, s[first].durable_size);
    }
    unsigned n = first;
    if (rc == -EBADMSG && older && have[1 - first] && (ended_uncleanly(f, s[first].session) || s[1 - first].size)) {
        n = 1 - first;
        rc = try_slot(f, n, &s[n], head_entries, &acc_ok, &exact);
        if (!rc && !acc_ok)
            rc = -EBADMSG;
        if (!rc) {
            adopt(f, n, &s[n]);
            rc = ended_uncleanly(f, s[n].session) ? verify_tail(f, s[n].durable_size) : 0;
            f->seq = s[first].seq; /* the new slot must be newer than both */
        }
        if (!rc)
            lg_file_report(f, f->suspect ? "went back to an older commit after an error below" : "recovered an older commit after an unclean end", 0, 0);
    }
    if (rc == -EBADMSG)
        lg_file_report(f, "header, table or size do not verify", 0, 0);
    else if (rc == -ENOKEY && !locked(f))
        lg_file_report(f, "its key is not to be had", 0, 0);
    if (rc)
        return rc;
    if (n == first && (!exact || !hash_ok))
        lg_file_report(f, f->suspect ? "recovered after an error below" : "recovered after an unclean end", 0, 0);
    return f->env->read_only ? 0 : recommit(f, n);
}

int lg_file_load(struct lg_file *f)
{
    LG_UNCLEARED uint8_t head[LG_HEADER_LEN];
    struct lg_s0 s0;
    struct stat st;
    if (f->loaded)
        return 0;
    if (f->dead)
        return f->dead;
    int rc = 0;
    if (lg_jfile_unretired(&f->j) && lg_later())
        return -LG_ELATER;
    if (lg_jfile_unretired(&f->j)) { /* keys were dropped before it could be put in place: below stands an older commit */
        rc = lg_journal_checkpoint(f->env->journal);
        lg_file_settle(f);
    }
    if (!rc)
        rc = f->env->sys->fstat(f->env->sys->arg, f->fd, &st);
    if (rc)
        return rc;
    ssize_t n = lg_sys_read_full(f->env->sys, f->fd, head, sizeof head, 0);
    if (n < 0)
        return (int)n;
    rc = n < 3 * (ssize_t)LG_SECTOR ? -EPROTO : lg_s0_decode(head, &s0);
    if (!rc && (memcmp(s0.vault_id, f->env->vault_id, LG_ID_LEN) != 0 || s0.chunk_size != f->env->chunk_size))
        rc = -EPROTO;
    if (rc) {
        if (!f->s0.version && n >= (ssize_t)LG_SECTOR)
            lg_s0_claimed_id(head, f->s0.file_id); /* what it claims to be is better than nothing in the report */
        lg_file_report(f, rc == -EPROTO ? "not a file of this vault" : "of a newer format than this program knows", 0, 0);
        return rc == -EPROTO ? -EBADMSG : rc;
    }
    f->s0 = s0;
    f->phys = (uint64_t)st.st_size;
    memcpy(f->s0_raw, head, LG_SECTOR);
    memcpy(f->slot_raw, head + LG_SECTOR, 2 * LG_SECTOR);
    memset(head + n, 0, sizeof head - (size_t)n);
    rc = load_slots(f, head + 3 * LG_SECTOR);
    if (rc) {
        forget(f);
        return rc;
    }
    f->phys = lg_format_cipher_size(f->env->chunk_size, f->size);
    f->dirty = f->committed_changed = f->cleared = false;
    f->cut = LG_SIZE_NONE;
    f->loaded = true;
    return 0;
}

void lg_file_unload(struct lg_file *f)
{
    forget(f);
    lg_o_free(f);
    lg_classifier_free(f->cls);
    f->cls = NULL;
    f->fed = 0;
    f->dirty = f->half = f->committed_changed = false;
    f->cut = LG_SIZE_NONE;
    f->loaded = false;
}

void lg_file_settle(struct lg_file *f)
{
    uint64_t retired = atomic_load(&f->j.retired);
    if (!f->j.appended)
        return;
    lg_o_settle(f, retired);
    if (retired < f->j.appended)
        return;
    f->j.appended = 0;
    atomic_store(&f->j.retired, 0);
    f->cut_record = 0;
    /* Everything journaled is in place and durable; what it builds on was synced before it was journaled. */
    f->newest_record = 0;
    f->durable = f->newest;
    f->durable_size = f->committed_size;
    f->durable_unknown = false;
    f->committed_n = lg_n_chunks(f, f->committed_size);
    if (!f->committed_changed)
        f->cleared = false;
}

int lg_lock_read(struct lg_file *f)
{
    if (lg_later())
        return pthread_rwlock_tryrdlock(&f->lock) ? -LG_ELATER : 0;
    pthread_rwlock_rdlock(&f->lock);
    return 0;
}

int lg_lock_write(struct lg_file *f)
{
    if (lg_later())
        return pthread_rwlock_trywrlock(&f->lock) ? -LG_ELATER : 0;
    pthread_rwlock_wrlock(&f->lock);
    return 0;
}

int lg_lock_exclusive(struct lg_file *f)
{
    int rc = lg_lock_write(f);
    if (rc)
        return rc;
    lg_file_settle(f);
    if (!f->loaded)
        lg_file_slow(f);
    rc = f->dead ? f->dead : lg_file_load(f);
    if (rc)
        lg_unlock_exclusive(f);
    return rc;
}

int lg_lock_shared(struct lg_file *f)
{
    for (;;) {
        int rc = lg_lock_read(f);
        if (rc)
            return rc;
        if (f->loaded && !f->dead)
            return 0;
        pthread_rwlock_unlock(&f->lock);
        rc = lg_lock_exclusive(f);
        if (rc)
            return rc;
        lg_unlock_exclusive(f);
    }
}
