#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static int file_new(const struct lg_file_env *env, int fd, const char *path, struct lg_file **ret)
{
    struct lg_file *f = calloc(1, sizeof *f);
    if (f && path)
        f->path = strdup(path);
    if (!f || (!f->path && (path || env->path_rule))) {
        free(f);
        close(fd);
        return -ENOMEM;
    }
    f->env = env;
    f->fd = fd;
    f->newest = f->durable = -1;
    f->cut = f->in_place_from = LG_SIZE_NONE;
    f->mtime.tv_nsec = UTIME_OMIT;
    pthread_mutex_init(&f->commit_mu, NULL);
    pthread_rwlock_init(&f->lock, NULL);
    pthread_mutex_init(&f->seen_mu, NULL);
    pthread_cond_init(&f->seen_cond, NULL);
    f->held = 1;
    *ret = f;
    return 0;
}

static void file_end(struct lg_file *f)
{
    pthread_rwlock_wrlock(&f->lock);
    lg_file_unload(f);
    if (f->fd >= 0) {
        lg_cold_end(f);
        close(f->fd);
    }
    f->fd = -1;
    lg_unlock_exclusive(f);
}

void lg_file_hold(struct lg_file *f) { atomic_fetch_add(&f->held, 1); }

void lg_file_drop(struct lg_file *f)
{
    if (atomic_fetch_sub(&f->held, 1) != 1)
        return;
    free(f->path);
    pthread_mutex_destroy(&f->commit_mu);
    pthread_rwlock_destroy(&f->lock);
    pthread_mutex_destroy(&f->seen_mu);
    pthread_cond_destroy(&f->seen_cond);
    free(f);
}

int lg_file_open(const struct lg_file_env *env, int fd, const char *path, struct lg_file **ret)
{
    struct lg_file *f;
    int rc = file_new(env, fd, path, &f);
    if (rc)
        return rc;
    if (env->journal && lg_journal_has_adopted(env->journal)) /* perhaps of this file */
        rc = lg_later() ? -LG_ELATER : lg_journal_checkpoint(env->journal);
    if (!rc)
        rc = lg_file_load(f);
    if (rc) {
        file_end(f);
        lg_file_drop(f);
        return rc;
    }
    lg_jfile_init(&f->j, fd, f->s0.file_id);
    *ret = f;
    return 0;
}

int lg_file_create(const struct lg_file_env *env, int fd, const char *path, struct lg_file **ret)
{
    struct lg_file *f;
    int rc = file_new(env, fd, path, &f);
    if (rc)
        return rc;
    f->s0 = (struct lg_s0){ .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = env->chunk_size };
    memcpy(f->s0.vault_id, env->vault_id, LG_ID_LEN);
    rc = lg_random_public(f->s0.file_id, LG_ID_LEN);
    if (rc) {
        file_end(f);
        lg_file_drop(f);
        return rc;
    }
    lg_s0_encode(&f->s0, f->s0_raw);
    lg_jfile_init(&f->j, fd, f->s0.file_id);
    f->loaded = true;
    f->dirty = true; /* even an empty file is committed */
    *ret = f;
    return 0;
}

static bool linked(const struct lg_file *f)
{
    struct stat st;
    return f->env->sys->fstat(f->env->sys->arg, f->fd, &st) || st.st_nlink > 0;
}

void lg_file_free(struct lg_file *f)
{
    if (f) {
        lg_file_close(f);
        lg_file_drop(f);
    }
}

/* lock held */
static bool unfinished(const struct lg_file *f) { return f->dirty || f->dead || f->sync_failed || lg_jfile_unretired(&f->j); }

void lg_file_close(struct lg_file *f)
{
    pthread_rwlock_rdlock(&f->lock);
    bool only_read = !unfinished(f);
    pthread_rwlock_unlock(&f->lock);
    if (only_read && !lg_suspects_has(f->env->suspects, f->s0.file_id)) {
        file_end(f);
        return;
    }
    int rc = f->sync_failed || lg_suspects_has(f->env->suspects, f->s0.file_id) ? lg_file_sync(f) : lg_file_commit(f);
    if (rc) /* there is no later time, and an error below may have passed */
        rc = f->sync_failed ? lg_file_sync(f) : lg_file_commit(f);
    if (rc)
        lg_file_report(f, "closed without its last bytes", 0, 0);
    pthread_rwlock_wrlock(&f->lock);
    lg_file_settle(f);
    bool wait = lg_jfile_unretired(&f->j);
    bool suspect = (f->dirty || f->sync_failed) && f->newest >= 0 && linked(f);
    lg_unlock_exclusive(f);
    if (suspect)
        lg_suspects_add(f->env->suspects, f->s0.file_id);
    /* The journal borrows the descriptor until its records are in place. When they cannot be now, it keeps it. */
    while (wait && lg_journal_checkpoint(f->env->journal) != 0) {
        lg_file_report(f, "journal cannot be put in place", 0, 0);
        if (lg_journal_adopt(f->env->journal, &f->j) == 0) {
            f->fd = -1;
            file_end(f);
            return;
        }
        sleep(1);
    }
    if (suspect && f->env->suspects) { /* back to what was committed, now if that can be */
        pthread_rwlock_wrlock(&f->lock);
        lg_file_slow(f);
        lg_file_settle(f);
        lg_file_unload(f);
        rc = lg_file_load(f);
        lg_unlock_exclusive(f);
    }
    (void)rc; /* it stays a suspect */
    if (f->fd >= 0 && lg_suspects_has(f->env->suspects, f->s0.file_id) && !linked(f)) /* nobody will miss it */
        lg_suspects_drop(f->env->suspects, f->s0.file_id);
    file_end(f);
}

int lg_file_commit(struct lg_file *f)
{
    if (!lg_later())
        pthread_mutex_lock(&f->commit_mu);
    else if (pthread_mutex_trylock(&f->commit_mu))
        return -LG_ELATER;
    int rc = lg_lock_write(f);
    if (!rc) {
        rc = f->dead ? f->dead : f->loaded ? lg_commit(f) : 0;
        lg_unlock_exclusive(f);
    }
    pthread_mutex_unlock(&f->commit_mu);
    return rc;
}

int lg_file_place(struct lg_file *f)
{
    int rc = lg_file_commit(f);
    return rc || !lg_jfile_unretired(&f->j) ? rc : lg_journal_checkpoint(f->env->journal);
}

int lg_file_sync(struct lg_file *f)
{
    pthread_mutex_lock(&f->commit_mu);
    int rc = lg_sync(f);
    pthread_mutex_unlock(&f->commit_mu);
    return rc;
}

int lg_file_sync_attrs(struct lg_file *f)
{
    const struct lg_sys *sys = f->env->sys;
    pthread_mutex_lock(&f->commit_mu);
    pthread_rwlock_rdlock(&f->lock);
    bool place = f->mtime_set && lg_jfile_unretired(&f->j); /* a record holds an older time, which its replay would set */
    pthread_rwlock_unlock(&f->lock);
    int rc = place ? lg_journal_checkpoint(f->env->journal) : 0;
    if (!rc) {
        rc = sys->fsync(sys->arg, f->fd);
        if (rc) { /* writes since lg_file_sync may be lost with it */
            pthread_rwlock_wrlock(&f->lock);
            f->sync_failed = f->unsynced = true;
            lg_unlock_exclusive(f);
        }
    }
    pthread_mutex_unlock(&f->commit_mu);
    return rc;
}

uint64_t lg_file_size(struct lg_file *f)
{
    struct lg_file_look l;
    lg_file_look(f, &l);
    return l.size;
}

int lg_file_utimens(struct lg_file *f, const struct timespec ts[2])
{
    pthread_mutex_lock(&f->commit_mu);
    pthread_rwlock_wrlock(&f->lock);
    lg_file_slow(f);
    int rc = f->loaded && !f->dead ? lg_commit(f) : 0;
    if (!rc)
        rc = f->env->sys->futimens(f->env->sys->arg, f->fd, ts);
    if (!rc && ts[1].tv_nsec != UTIME_OMIT) {
        f->mtime = ts[1];
        f->mtime_set = true;
        atomic_store(&f->j.mtime_s, ts[1].tv_sec);
        atomic_store(&f->j.mtime_ns, (uint32_t)ts[1].tv_nsec);
    }
    lg_unlock_exclusive(f);
    pthread_mutex_unlock(&f->commit_mu);
    return rc;
}

bool lg_file_kid(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    pthread_rwlock_rdlock(&f->lock);
    bool known = f->key_version != 0;
    if (known) {
        memcpy(ret_kid, f->kid, LG_ID_LEN);
        *ret_version = f->key_version;
    }
    pthread_rwlock_unlock(&f->lock);
    return known;
}

bool lg_file_holds_key(struct lg_file *f, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    pthread_rwlock_rdlock(&f->lock);
    bool holds = f->key && f->key_version;
    if (holds) {
        memcpy(ret_kid, f->kid, LG_ID_LEN);
        *ret_version = f->key_version;
    }
    pthread_rwlock_unlock(&f->lock);
    return holds;
}

void lg_file_drop_keys(struct lg_file *f, bool discard)
{
    const struct lg_sys *sys = f->env->sys;
    pthread_mutex_lock(&f->commit_mu);
    pthread_rwlock_wrlock(&f->lock);
    lg_file_hide_reads(f); /* to be loaded again is not to be read */
    if (f->loaded && !f->dead) {
        lg_file_slow(f);
        int rc = discard ? 0 : lg_commit(f), placed = lg_jfile_unretired(&f->j) ? lg_journal_checkpoint(f->env->journal) : 0;
        if (!rc)
            rc = placed;
        lg_file_settle(f);
        if (f->newest < 0 && (discard || rc)) {
            f->dead = discard ? -EKEYREVOKED : rc; /* nothing of it was ever committed */
        } else if (f->dirty && !f->env->read_only) {
            /* Uncommitted bytes are given up: below must stand exactly what was committed. But while a record of it is not in place, what stands there may be all
             * that is durable: whoever reads the file next puts the record in place, and cuts off then. */
            bool pending = lg_jfile_unretired(&f->j);
            f->n_lost++;
            f->lost = discard ? -EKEYREVOKED : rc ? rc : -ENOKEY;
            if (!pending)
                rc = sys->ftruncate(sys->arg, f->fd, (off_t)lg_format_cipher_size(f->env->chunk_size, f->committed_size));
            f->size = f->committed_size;
            if (!discard)
                lg_file_report(f, "keys dropped before the last bytes were committed", 0, 0);
            if (!discard || f->half || pending || rc)
                lg_suspects_add(f->env->suspects, f->s0.file_id);
        }
        if (!rc && f->unsynced && !discard && lg_sync_below(f) == 0)
            f->unsynced = false;
        lg_file_unload(f);
    }
    lg_unlock_exclusive(f);
    pthread_mutex_unlock(&f->commit_mu);
}

bool lg_file_show_reads(struct lg_file *f)
{
    if (lg_lock_read(f))
        return false;
    bool whole = f->loaded && f->size && f->n_full == lg_n_chunks(f, f->size) && !f->n_o;
    pthread_rwlock_unlock(&f->lock);
    if (!whole || fcntl(f->fd, F_SETFL, 0))
        return false;
    atomic_store(&f->shows, true);
    return true;
}

void lg_file_hide_reads(struct lg_file *f)
{
    if (!atomic_load(&f->shows))
        return;
    lg_noatime(f->fd); /* before others are told that it is so */
    atomic_store(&f->shows, false);
}

bool lg_file_shows_reads(const struct lg_file *f) { return atomic_load_explicit(&f->shows, memory_order_relaxed); }

int lg_file_lost(struct lg_file *f, unsigned *seen)
{
    int rc = lg_lock_read(f);
    if (rc)
        return rc;
    rc = f->n_lost > *seen ? f->lost : 0;
    *seen = f->n_lost;
    pthread_rwlock_unlock(&f->lock);
    return rc;
}

bool lg_file_close_waits(struct lg_file *f)
{
    if (pthread_rwlock_tryrdlock(&f->lock))
        return true;
    bool waits = unfinished(f) || lg_cold_any(f);
    pthread_rwlock_unlock(&f->lock);
    return waits;
}

uint64_t lg_file_plain_size(uint32_t chunk_size, uint64_t physical_size) { return lg_format_plain_size(chunk_size, physical_size); }

void lg_file_id(const struct lg_file *f, uint8_t ret[LG_ID_LEN]) { memcpy(ret, f->s0.file_id, LG_ID_LEN); }
