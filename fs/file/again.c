/* A sync that failed. Linux marks pages that it could not write as if it had: the next fdatasync succeeds, and their contents are gone with the next
 * power cut (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020). So whatever is not known durable is read back, verified, and
 * written again before the next sync is believed. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Sectors as they stand below, but from memory where nothing uncommitted is. */
static int sectors_again(struct lg_file *f, uint64_t off, const uint8_t *now, size_t len, unsigned dirty)
{
    uint8_t buf[LG_REGION_ENTRIES * LG_ENTRY_LEN];
    ssize_t got = lg_sys_read_full(f->env->sys, f->fd, buf, len, off);
    if (got <= 0) /* emptied, and behind the end */
        return (int)got;
    for (unsigned s = 0; (s + 1) * LG_SECTOR <= (size_t)got; s++)
        if (!(dirty & 1u << s))
            memcpy(buf + s * LG_SECTOR, now + s * LG_SECTOR, LG_SECTOR);
    return lg_sys_write_full(f->env->sys, f->fd, buf, (size_t)got, off);
}

static int chunk_again(struct lg_file *f, uint64_t i, uint8_t *cipher, uint8_t *plain)
{
    uint32_t len = lg_chunk_len(f, i);
    uint64_t off = lg_format_chunk_off(f->env->chunk_size, i);
    ssize_t got = lg_sys_read_full(f->env->sys, f->fd, cipher, len, off);
    if (got < 0)
        return (int)got;
    int rc = (size_t)got < len ? -EBADMSG : lg_chunk_open(f->key, f->s0.file_id, i, cipher, len, lg_entry_get(f, i), plain);
    if (rc == -EBADMSG)
        lg_file_report(f, "lost below when it was to be made durable", i * f->env->chunk_size, i * f->env->chunk_size + len);
    return rc ? rc : lg_sys_write_full(f->env->sys, f->fd, cipher, len, off);
}

/* The first chunk that is not known durable. */
static uint64_t first(const struct lg_file *f)
{
    uint64_t i = f->durable_size / f->env->chunk_size;
    return i < f->in_place_from ? i : f->in_place_from;
}

static int chunks_again(struct lg_file *f)
{
    uint32_t cs = f->env->chunk_size;
    uint64_t n = lg_n_chunks(f, f->size);
    uint8_t *buf = malloc(2 * (size_t)cs);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t i = first(f); !rc && (i = lg_entry_next(f, i, n)) < n; i++)
        if (!lg_o_find(f, i))
            rc = chunk_again(f, i, buf, buf + cs);
    if (buf)
        lg_wipe(buf + cs, cs);
    free(buf);
    return rc;
}

int lg_write_again(struct lg_file *f)
{
    int rc = 0;
    if (!f->sync_failed || f->env->read_only)
        return 0;
    if (lg_jfile_unretired(&f->j)) { /* then nothing below waits for a record */
        rc = lg_journal_checkpoint(f->env->journal);
        lg_file_settle(f);
    }
    if (!rc && f->key)
        rc = chunks_again(f);
    for (size_t p = lg_page_of(first(f)); !rc && (p = lg_page_next(f, p)) < f->n_page; p++)
        rc = sectors_again(f, lg_format_entry_off(f->env->chunk_size, lg_page_first(p)), f->page[p]->e, lg_page_count(p) * LG_ENTRY_LEN, f->page[p]->dirty);
    if (!rc && f->newest >= 0) {
        uint8_t head[3 * LG_SECTOR];
        memcpy(head, f->s0_raw, LG_SECTOR);
        memcpy(head + LG_SECTOR, f->slot_raw, 2 * LG_SECTOR);
        rc = lg_sys_write_full(f->env->sys, f->fd, head, sizeof head, 0);
    }
    if (rc)
        return rc;
    f->sync_failed = false; /* until the sync that follows */
    f->unsynced = true;
    return 0;
}
