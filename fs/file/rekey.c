#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { RUN = 1024 * 1024 };

static bool hole(struct lg_file *f, uint64_t i) { return !lg_o_find(f, i) && lg_entry_empty(lg_entry_get(f, i)); }

/* f is what the copy was begun from. */
static bool same(const struct lg_file *f, uint64_t seq) { return f->loaded && !f->dead && !f->dirty && f->seq == seq; }

/* Chunks from i on that stand together go over to g, which has f's size; *ret_n: so many, or holes, were dealt with. f's lock is held. */
static int copy_run(struct lg_file *f, struct lg_file *g, uint64_t i, uint8_t *buf, uint64_t *ret_n)
{
    uint32_t cs = f->env->chunk_size;
    uint64_t n = 0, most = lg_n_chunks(g, g->size) - i;
    size_t len = 0;
    if (most > lg_format_run(i))
        most = lg_format_run(i);
    if (most > RUN / cs)
        most = RUN / cs;
    *ret_n = lg_data_next(f, i, lg_n_chunks(g, g->size)) - i;
    if (*ret_n)
        return 0;
    for (; n < most && !hole(f, i + n); n++) {
        int rc = lg_chunk_load(f, i + n, buf + len);
        if (rc)
            return rc;
        len += lg_chunk_len(f, i + n);
    }
    *ret_n = n;
    return lg_seal_in_place(g, i, buf, len);
}

static int copy_all(struct lg_file *f, struct lg_file *g, uint64_t seq)
{
    uint8_t *buf = malloc(RUN);
    int rc = buf ? 0 : -ENOMEM;
    for (uint64_t i = 0, n = 0; !rc && i < lg_n_chunks(g, g->size); i += n) {
        rc = lg_lock_shared(f); /* writers come in between: then it was for nothing */
        if (rc)
            break;
        rc = same(f, seq) ? copy_run(f, g, i, buf, &n) : -EAGAIN;
        pthread_rwlock_unlock(&f->lock);
    }
    if (buf)
        lg_wipe(buf, RUN);
    free(buf);
    return rc;
}

int lg_file_recrypt(struct lg_file *f, struct lg_kref *as, int fd, uint64_t *ret_seq)
{
    struct lg_file *g;
    int rc = lg_file_create(f->env, fd, f->path, &g);
    if (rc)
        return rc;
    rc = lg_file_commit(f);
    if (!rc)
        rc = lg_journal_checkpoint(f->env->journal);
    if (!rc)
        rc = lg_lock_shared(f);
    if (!rc) {
        g->s0 = f->s0;
        memcpy(g->s0_raw, f->s0_raw, LG_SECTOR);
        g->size = f->size;
        g->seq = f->seq;
        pthread_rwlock_unlock(&f->lock);
        rc = lg_key_use(g, as);
    }
    uint64_t seq = g->seq;
    if (!rc)
        rc = copy_all(f, g, seq);
    if (!rc)
        rc = lg_file_sync(g);
    if (rc)
        g->dirty = false; /* nothing of it is to be committed */
    lg_file_free(g);
    if (!rc)
        *ret_seq = seq;
    return rc;
}

int lg_file_switch(struct lg_file *f, int fd, uint64_t seq, int (*publish)(void *arg), void *arg)
{
    pthread_mutex_lock(&f->commit_mu);
    pthread_rwlock_wrlock(&f->lock);
    lg_file_settle(f);
    lg_file_slow(f);
    int rc = same(f, seq) && !lg_jfile_unretired(&f->j) ? publish(arg) : -EAGAIN;
    if (!rc) { /* loaded from there by the next call */
        lg_file_unload(f);
        lg_cold_end(f);
        close(f->fd);
        f->fd = fd;
        f->newest = f->durable = -1;
        f->newest_record = f->cut_record = 0;
        f->durable_unknown = f->unsynced = f->sync_failed = false;
        f->in_place_from = LG_SIZE_NONE;
        f->committed_n = 0;
        lg_jfile_init(&f->j, fd, f->s0.file_id);
        rc = lg_file_load(f);
        if (rc)
            lg_file_report(f, "re-encrypted, but does not open", 0, 0);
        rc = 0;
    } else {
        close(fd);
    }
    lg_unlock_exclusive(f);
    pthread_mutex_unlock(&f->commit_mu);
    return rc;
}

int lg_file_claim(const struct lg_sys *sys, int fd, struct lg_claim *ret)
{
    uint8_t head[3 * LG_SECTOR];
    struct lg_s0 s0;
    struct lg_slot s[2];
    ssize_t n = lg_sys_read_full(sys, fd, head, sizeof head, 0);
    if (n < 0)
        return (int)n;
    if (n < (ssize_t)sizeof head || lg_s0_decode(head, &s0))
        return -EBADMSG;
    bool a = !lg_slot_decode(head + LG_SECTOR, &s[0]), b = !lg_slot_decode(head + 2 * LG_SECTOR, &s[1]);
    if (!a && !b)
        return -EBADMSG;
    const struct lg_slot *newest = b && (!a || s[1].seq > s[0].seq) ? &s[1] : &s[0];
    memcpy(ret->file_id, s0.file_id, LG_ID_LEN);
    memcpy(ret->kid, newest->kid, LG_ID_LEN);
    ret->version = ret->oldest = newest->key_version;
    ret->seq = newest->seq;
    memcpy(ret->commitment, newest->commitment, LG_MAC_LEN);
    for (unsigned i = 0; i < 2; i++)
        if ((i ? b : a) && memcmp(s[i].kid, newest->kid, LG_ID_LEN) == 0 && s[i].key_version < ret->oldest)
            ret->oldest = s[i].key_version;
    return 0;
}
