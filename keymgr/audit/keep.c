/* Making durable, compressing, pruning, watching the space. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "log.h"
#include "pack.h"

enum { HOUSEKEEP_MS = 2000, PRUNE_MS = 600000, FULL_PERCENT = 80 };

int lg_audit_sync(struct lg_audit_log *l)
{
    uint8_t hash[LG_MAC_LEN];
    pthread_mutex_lock(&l->w);
    uint64_t seq = l->seq;
    memcpy(hash, l->hash, sizeof hash);
    int rc = atomic_load(&l->failing) ? 0 : lg_audit_still_there(l);
    int fd = rc || seq == l->durable_seq ? -1 : dup(l->fd); /* segments before it were made durable when they ended */
    if (!rc && fd < 0 && seq != l->durable_seq)
        rc = -errno;
    pthread_mutex_unlock(&l->w);
    if (fd >= 0) {
        rc = fdatasync(fd) ? -errno : 0;
        close(fd);
    }
    pthread_mutex_lock(&l->w);
    if (!rc && seq > l->durable_seq) {
        l->durable_seq = seq;
        memcpy(l->durable_hash, hash, sizeof hash);
    }
    pthread_mutex_unlock(&l->w);
    if (rc)
        lg_audit_failed(l, rc);
    return rc;
}

static void note(struct lg_audit_log *l, int level, const char *text)
{
    struct lg_audit_record r = lg_audit_event("log.space");
    snprintf(r.text, sizeof r.text, "%s", text);
    lg_audit_put(l, &r);
    lg_audit_alarm(l, level, "access log %s: %s", l->dir, text);
}

static void reserve(struct lg_audit_log *l)
{
    struct stat st;
    int fd = openat(l->dirfd, LG_AUDIT_RESERVE_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    bool have = fd >= 0 && !fstat(fd, &st) && ((uint64_t)st.st_blocks * 512 >= l->o.segment_bytes || !fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)l->o.segment_bytes));
    if (fd >= 0)
        close(fd);
    if (!have && fd >= 0)
        unlinkat(l->dirfd, LG_AUDIT_RESERVE_FILE, 0); /* half of one is none */
    if (!have && !atomic_exchange(&l->reserve_used, true))
        note(l, LOG_CRIT, "there is no space for the next segment: what is written now was set aside before");
    else if (have)
        atomic_store(&l->reserve_used, false);
    pthread_mutex_lock(&l->w);
    bool low = atomic_load(&l->reserve_used) && l->size * 100 >= l->o.segment_bytes * FULL_PERCENT;
    pthread_mutex_unlock(&l->w);
    if (low && !l->warned_reserve)
        note(l, LOG_CRIT, "80 % of the reserve are used; opens will be refused when it is full");
    l->warned_reserve = low;
    atomic_store(&l->low, low);
}

static void space(struct lg_audit_log *l)
{
    struct statvfs st;
    if (!fstatvfs(l->dirfd, &st) && st.f_blocks) {
        l->used_percent = (unsigned)(100 - st.f_bavail * 100 / st.f_blocks);
        bool full = l->used_percent >= FULL_PERCENT;
        if (full && !l->warned_full)
            note(l, LOG_WARNING, "its filesystem is 80 % full");
        l->warned_full = full;
    }
    reserve(l);
    atomic_store(&l->crowded, atomic_load(&l->reserve_used)); /* a full disk alone takes nothing from what is told */
}

static int compress_one(struct lg_audit_log *l, unsigned segment)
{
    char plain[LG_AUDIT_FILE_NAME], packed[LG_AUDIT_FILE_NAME], tmp[LG_AUDIT_FILE_NAME + 4];
    lg_audit_file_name(segment, LG_AUDIT_PLAIN, plain);
    lg_audit_file_name(segment, LG_AUDIT_PACKED, packed);
    snprintf(tmp, sizeof tmp, "%s.tmp", packed);
    int in = openat(l->dirfd, plain, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (in < 0)
        return -errno;
    int out = openat(l->dirfd, tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    int rc = out < 0 ? -errno : lg_pack(in, out);
    struct stat st;
    if (!rc && fstat(in, &st) == 0) { /* retention counts from its last record */
        struct timespec t[2] = { st.st_mtim, st.st_mtim };
        (void)!futimens(out, t);
    }
    if (!rc && fsync(out))
        rc = -errno;
    if (!rc && renameat(l->dirfd, tmp, l->dirfd, packed))
        rc = -errno;
    if (!rc && fsync(l->dirfd))
        rc = -errno;
    if (rc && out >= 0)
        unlinkat(l->dirfd, tmp, 0);
    else if (!rc && unlinkat(l->dirfd, plain, 0))
        rc = -errno;
    if (out >= 0)
        close(out);
    close(in);
    return rc;
}

struct last {
    uint64_t seq;
    int64_t time_us;
};
static int on_last(void *arg, const char *s, size_t len, bool cut)
{
    struct lg_audit_envelope e;
    if (!cut && lg_audit_envelope(s, len, &e) == 0)
        *(struct last *)arg = (struct last){ e.seq, e.time_us };
    return 0;
}

/* Removes the oldest segment if it is past its time: told first, durably. */
static bool prune_one(struct lg_audit_log *l, unsigned segment)
{
    char name[LG_AUDIT_FILE_NAME];
    struct stat st;
    struct last last = { 0 };
    time_t keep = (time_t)l->o.keep_days * 86400;
    lg_audit_file_name(segment, LG_AUDIT_PACKED, name);
    int fd = openat(l->dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return false;
    bool due = !fstat(fd, &st) && st.st_mtim.tv_sec + keep < time(NULL) && lg_audit_lines(fd, true, on_last, &last) == 0 && last.seq && last.time_us / 1000000 + keep < time(NULL);
    close(fd);
    if (!due)
        return false;
    struct lg_audit_record r = lg_audit_event("log.pruned");
    r.has = LG_AUDIT_RANGE;
    r.from = 1;
    r.to = last.seq;
    lg_audit_put(l, &r);
    if (lg_audit_flush(l, false))
        return false;
    unlinkat(l->dirfd, name, 0);
    lg_audit_file_name(segment, LG_AUDIT_HEADS, name);
    unlinkat(l->dirfd, name, 0);
    return true;
}

static void tidy(struct lg_audit_log *l, bool prune)
{
    unsigned *all = NULL;
    size_t n = 0;
    char name[LG_AUDIT_FILE_NAME];
    pthread_mutex_lock(&l->w);
    unsigned current = l->segment;
    pthread_mutex_unlock(&l->w);
    if (lg_audit_segments(l->dirfd, &all, &n))
        return;
    for (size_t i = 0; i < n && all[i] < current; i++) {
        lg_audit_file_name(all[i], LG_AUDIT_PLAIN, name);
        if (faccessat(l->dirfd, name, F_OK, 0) == 0 && compress_one(l, all[i]))
            break; /* no space: plain is as good */
    }
    for (size_t i = 0; prune && l->o.keep_days && i < n && all[i] < current; i++)
        if (!prune_one(l, all[i]))
            break;
    free(all);
}

void *lg_audit_keeper(void *log)
{
    struct lg_audit_log *l = log;
    int64_t kept = 0, pruned = 0;
    pthread_mutex_lock(&l->mu);
    while (!l->stop) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += l->o.sync_ms / 1000;
        t.tv_nsec += l->o.sync_ms % 1000 * 1000000;
        if (t.tv_nsec >= 1000000000) {
            t.tv_sec++;
            t.tv_nsec -= 1000000000;
        }
        pthread_cond_timedwait(&l->keep, &l->mu, &t);
        pthread_mutex_unlock(&l->mu);
        int rc = lg_audit_sync(l);
        int64_t now = lg_audit_now_ms();
        if (now - kept >= HOUSEKEEP_MS && !rc && !atomic_load(&l->failing)) {
            kept = now;
            bool prune = now - pruned >= PRUNE_MS || !pruned;
            space(l);
            tidy(l, prune);
            if (prune)
                pruned = now;
        }
        pthread_mutex_lock(&l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    return NULL;
}
