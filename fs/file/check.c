#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { CHECK_STEP = 1024 * 1024 };

int lg_file_identity(struct lg_file *f, struct lg_file_identity *ret)
{
    int rc = lg_lock_shared(f);
    if (rc)
        return rc;
    memcpy(ret->file_id, f->s0.file_id, LG_ID_LEN);
    ret->seq = f->seq;
    ret->size = f->size;
    lg_slot_mac_bytes(f->slot_raw[f->newest < 0 ? 0 : f->newest], ret->mac);
    pthread_rwlock_unlock(&f->lock);
    return 0;
}

/* Chunks i .. i+n-1, contiguous below, none empty, len bytes together. */
static int check_run(struct lg_file *f, uint64_t i, uint8_t *buf, size_t len, uint64_t *bad)
{
    uint32_t cs = f->env->chunk_size;
    ssize_t got = lg_sys_read_full(f->env->sys, f->fd, buf, len, lg_format_chunk_off(cs, i));
    if (got < 0)
        return (int)got;
    for (size_t at = 0; at < len; at += cs, i++) {
        uint32_t n = len - at < cs ? (uint32_t)(len - at) : cs;
        int rc = at + n > (size_t)got ? -EBADMSG : lg_chunk_open(f->key, f->s0.file_id, i, buf + at, n, lg_entry_get(f, i), buf + at);
        if (rc && rc != -EBADMSG)
            return rc;
        if (rc) {
            lg_file_report(f, "chunk does not verify", i * cs, i * cs + n);
            ++*bad;
        }
    }
    return 0;
}

int lg_file_verify(struct lg_file *f, int (*pace)(void *arg, size_t n), void *arg, uint64_t *ret_bad)
{
    uint32_t cs = f->env->chunk_size;
    uint64_t bad = 0;
    uint8_t *buf = lg_scratch(CHECK_STEP);
    size_t used = 0;
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t i = 0; !rc;) {
        rc = lg_lock_shared(f);
        if (rc)
            break;
        uint64_t n = lg_n_chunks(f, f->size), m = 0;
        i = lg_entry_next(f, i, n);
        size_t len = 0;
        for (uint64_t most = i < n ? lg_format_run(i) : 0; m < most && i + m < n && len + cs <= CHECK_STEP && !lg_entry_empty(lg_entry_get(f, i + m)); m++)
            len += lg_chunk_len(f, i + m);
        used = len > used ? len : used;
        rc = m ? check_run(f, i, buf, len, &bad) : 0;
        pthread_rwlock_unlock(&f->lock);
        if (!m)
            break;
        i += m;
        if (!rc)
            rc = pace(arg, len);
    }
    if (buf)
        lg_wipe(buf, used);
    if (!rc)
        *ret_bad = bad;
    return rc;
}
