/* What a stat shows of an open file, without waiting for whoever is in a slow call below, or waits for a key, with the file's lock held. */
#include <string.h>

#include "internal.h"

/* lock held */
static uint64_t blocks(struct lg_file *f)
{
    enum { BLOCK = 512, PAGE = 4096 };
    uint32_t cs = f->env->chunk_size;
    if (!f->dirty && !lg_jfile_unretired(&f->j))
        return LG_BLOCKS_BELOW;
    uint64_t n = lg_n_chunks(f, f->size), full = f->n_full, pages = f->n_live - (f->n_page && f->page[0]);
    for (size_t k = 0; k < f->n_o; k++)
        full += f->o[k].i < n && lg_entry_empty(lg_entry_get(f, f->o[k].i));
    bool tail = n && (lg_o_find(f, n - 1) || !lg_entry_empty(lg_entry_get(f, n - 1)));
    uint64_t bytes = LG_HEADER_LEN + pages * LG_HEADER_LEN + full * cs - (tail ? (cs - lg_chunk_len(f, n - 1)) / PAGE * PAGE : 0);
    return bytes / BLOCK;
}

static struct lg_file_look look(struct lg_file *f)
{
    return (struct lg_file_look){ .size = f->size, .blocks = blocks(f), .mtime = f->mtime, .dirty = f->dirty, .reserved = f->reserved,
                                  .mtime_below = f->mtime_below && f->mtime.tv_nsec == UTIME_OMIT };
}

static uint32_t key_settled(const struct lg_file *f) { return lg_undecided(f) ? 0 : f->key_version; }

/* seen_mu held, and the lock exclusively */
static void publish(struct lg_file *f)
{
    f->seen = look(f);
    f->seen_key_version = key_settled(f);
    memcpy(f->seen_kid, f->kid, LG_ID_LEN);
    f->seen_gen++;
    pthread_cond_broadcast(&f->seen_cond);
}

void lg_file_slow(struct lg_file *f)
{
    pthread_mutex_lock(&f->seen_mu);
    publish(f);
    f->seen_valid = true;
    pthread_mutex_unlock(&f->seen_mu);
}

bool lg_file_mtime_leave(struct lg_file *f)
{
    pthread_mutex_lock(&f->seen_mu);
    bool leave = !atomic_load(&f->mtime_seen);
    if (leave) {
        f->mtime.tv_nsec = UTIME_OMIT;
        f->mtime_below = true;
        f->seen.mtime = f->mtime;
        f->seen.mtime_below = true;
    }
    pthread_mutex_unlock(&f->seen_mu);
    return leave;
}

void lg_unlock_exclusive(struct lg_file *f)
{
    pthread_mutex_lock(&f->seen_mu);
    if (f->seen_waiting)
        publish(f);
    f->seen_valid = false;
    pthread_rwlock_unlock(&f->lock);
    pthread_mutex_unlock(&f->seen_mu);
}

/* seen_mu held. True: the lock is held shared. False: f->seen is as good. */
static bool shared_or_seen(struct lg_file *f)
{
    uint64_t gen = f->seen_gen;
    while (!f->seen_valid && f->seen_gen == gen) {
        if (!pthread_rwlock_tryrdlock(&f->lock))
            return true;
        f->seen_waiting++;
        pthread_cond_wait(&f->seen_cond, &f->seen_mu);
        f->seen_waiting--;
    }
    return false;
}

void lg_file_look(struct lg_file *f, struct lg_file_look *ret)
{
    struct stat st;
    pthread_mutex_lock(&f->seen_mu);
    bool shared = shared_or_seen(f);
    atomic_store(&f->mtime_seen, true);
    *ret = shared ? look(f) : f->seen;
    pthread_mutex_unlock(&f->seen_mu);
    if (!shared)
        return;
    if (ret->mtime_below && f->fd >= 0 && f->env->sys->fstat(f->env->sys->arg, f->fd, &st) == 0) {
        ret->mtime = st.st_mtim;
        ret->mtime_below = false;
    }
    pthread_rwlock_unlock(&f->lock);
}

bool lg_file_kid_soon(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    uint8_t kid[LG_ID_LEN];
    pthread_mutex_lock(&f->seen_mu);
    bool shared = shared_or_seen(f);
    uint32_t version = shared ? key_settled(f) : f->seen_key_version;
    memcpy(kid, shared ? f->kid : f->seen_kid, LG_ID_LEN);
    if (shared)
        pthread_rwlock_unlock(&f->lock);
    pthread_mutex_unlock(&f->seen_mu);
    if (!version) /* what is under way may decide it */
        return lg_file_kid(f, ret_kid, ret_version);
    memcpy(ret_kid, kid, LG_ID_LEN);
    *ret_version = version;
    return true;
}
