/* From the ring into the file. */
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "log.h"

enum { NAP_MS = 5, IDLE_AFTER = 40, SWEEP_MS = 200, RETRY_MS = 1000 };

int64_t lg_audit_now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t lg_audit_boot_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t lg_audit_now_ms(void) { return lg_audit_boot_us() / 1000; }

void lg_audit_alarm(struct lg_audit_log *l, int level, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    if (!l->o.alarm)
        return;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    l->o.alarm(l->o.arg, level, text);
}

void lg_audit_exe(int32_t pid, char out[LG_AUDIT_EXE_MAX + 1])
{
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/%d/exe", (int)pid);
    ssize_t n = pid > 0 ? readlink(link, path, sizeof path - 1) : -1;
    size_t len = n > 0 ? (size_t)n : 0;
    path[len] = 0;
    if (len <= LG_AUDIT_EXE_MAX) {
        memcpy(out, path, len + 1);
    } else {
        memcpy(out, "...", 3);
        memcpy(out + 3, path + len - (LG_AUDIT_EXE_MAX - 3), LG_AUDIT_EXE_MAX - 3 + 1);
    }
}

struct lg_audit_record lg_audit_event(const char *event)
{
    struct lg_audit_record r;
    lg_audit_record_init(&r);
    r.time_us = lg_audit_now_us();
    snprintf(r.event, sizeof r.event, "%s", event);
    return r;
}

/* ---- under w -------------------------------------------------------------------------------------------------------------------- */

/* What a failed write left is cut off, and with it what the ring intended: only then may another record stand in that place. */
static int untear(struct lg_audit_log *l)
{
    if (l->torn && ftruncate(l->fd, (off_t)l->size))
        return -errno;
    l->torn = false;
    if (l->ring)
        lg_ring_done(l->ring, lg_ring_tail(l->ring));
    return 0;
}

static int append(struct lg_audit_log *l, const char *p, size_t n)
{
    size_t at = 0;
    while (at < n) {
        ssize_t k = pwrite(l->fd, p + at, n - at, (off_t)(l->size + at));
        if (k < 0 && errno == EINTR)
            continue;
        if (k <= 0) {
            l->torn = at != 0;
            return k ? -errno : -ENOSPC;
        }
        at += (size_t)k;
    }
    l->size += n;
    return 0;
}

int lg_audit_still_there(struct lg_audit_log *l)
{
    char path[3300], name[LG_AUDIT_FILE_NAME];
    struct stat here, there;
    lg_audit_file_name(l->segment, LG_AUDIT_PLAIN, name);
    snprintf(path, sizeof path, "%s/%s/%s", l->dir, l->name, name);
    return fstat(l->fd, &here) || stat(path, &there) ? -errno : here.st_ino != there.st_ino || here.st_dev != there.st_dev ? -ESTALE : 0;
}

/* Chains a record onto seq and hash, and its line onto the batch. */
static int chain_on(struct lg_audit_log *l, struct lg_audit_record *r, uint64_t *seq, uint8_t hash[LG_MAC_LEN], size_t *len)
{
    size_t n;
    r->seq = *seq + 1;
    memcpy(r->chain, l->chain.id, sizeof r->chain);
    if (r->has & LG_AUDIT_WHO && !r->user[0])
        lg_usernames_get(l->users, r->uid, r->user);
    int rc = lg_audit_record_encode(r, hash, l->batch + *len, LG_BATCH_BYTES - *len - 1, &n);
    if (rc)
        return rc;
    *len += n;
    l->batch[(*len)++] = '\n';
    memcpy(hash, r->hash, LG_MAC_LEN);
    *seq = r->seq;
    return 0;
}

int lg_audit_own(struct lg_audit_log *l, struct lg_audit_record *r)
{
    uint64_t seq = l->seq;
    uint8_t hash[LG_MAC_LEN];
    size_t len = 0;
    memcpy(hash, l->hash, sizeof hash);
    int rc = untear(l);
    if (!rc)
        rc = chain_on(l, r, &seq, hash, &len);
    if (!rc)
        rc = append(l, l->batch, len);
    if (!rc) {
        l->seq = seq;
        memcpy(l->hash, hash, sizeof hash);
    }
    return rc;
}

int lg_audit_segment_begin(struct lg_audit_log *l, unsigned segment)
{
    char name[LG_AUDIT_FILE_NAME];
    int old = l->fd;
    uint64_t old_size = l->size;
    unsigned old_segment = l->segment;
    lg_audit_file_name(segment, LG_AUDIT_PLAIN, name);
    if (renameat(l->dirfd, LG_AUDIT_RESERVE_FILE, l->dirfd, name) && errno != ENOENT)
        return -errno;
    int fd = openat(l->dirfd, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    (void)!fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)l->o.segment_bytes); /* the reserve has its space already */
    if (old >= 0 && fdatasync(old)) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    struct lg_audit_record r = lg_audit_event("log.segment");
    r.has = LG_AUDIT_PREV;
    memcpy(r.prev, l->hash, LG_MAC_LEN);
    snprintf(r.host, sizeof r.host, "%s", l->host);
    l->fd = fd;
    l->size = 0;
    l->segment = segment;
    int rc = lg_audit_own(l, &r);
    if (!rc && (fdatasync(fd) || fsync(l->dirfd)))
        rc = -errno;
    if (rc) { /* stay with the old one; the name is tried again */
        (void)!ftruncate(fd, 0);
        close(fd);
        l->fd = old;
        l->size = old_size;
        l->segment = old_segment;
        return rc;
    }
    if (old >= 0)
        close(old);
    return 0;
}

/* One batch out of the ring. *ret_more: something is left. */
static int drain(struct lg_audit_log *l, bool *ret_more)
{
    static _Thread_local struct lg_audit_record r;
    uint64_t seq = l->seq, n = 0, at = lg_ring_tail(l->ring), to = at;
    uint8_t hash[LG_MAC_LEN];
    size_t len = 0;
    int rc = 0;
    *ret_more = false;
    if (l->size >= l->o.segment_bytes) {
        rc = lg_audit_segment_begin(l, l->segment + 1);
        if (rc && l->size >= l->o.segment_bytes + l->o.segment_bytes / 2)
            return rc;
        seq = l->seq;
    }
    memcpy(hash, l->hash, sizeof hash);
    while (len < LG_BATCH_BYTES - LG_AUDIT_LINE_MAX - 1) {
        if (!lg_ring_at(l->ring, &at, &r))
            break;
        rc = chain_on(l, &r, &seq, hash, &len);
        if (rc == -EINVAL)
            rc = 0; /* not a record that can be written: a defect, not a reason to stop */
        else
            n++;
        if (rc)
            return rc;
        to = at;
        *ret_more = true;
    }
    if (to == lg_ring_tail(l->ring)) {
        *ret_more = false;
        return 0;
    }
    rc = lg_audit_still_there(l);
    if (!rc)
        rc = untear(l);
    if (rc)
        return rc;
    lg_ring_intend(l->ring, to, l->seq + 1, n);
    rc = append(l, l->batch, len);
    if (rc)
        return rc;
    l->seq = seq;
    memcpy(l->hash, hash, sizeof hash);
    pthread_mutex_lock(&l->mu);
    lg_ring_done(l->ring, to);
    pthread_cond_broadcast(&l->room);
    pthread_mutex_unlock(&l->mu);
    return 0;
}

/* ---- failing and recovering -------------------------------------------------------------------------------------------------------- */

void lg_audit_failed(struct lg_audit_log *l, int rc)
{
    if (atomic_exchange(&l->failing, true))
        return;
    l->failed_us = lg_audit_now_us();
    l->why = rc;
    lg_audit_alarm(l, LOG_CRIT, "the access log %s/%s cannot be written: %s. %s", l->dir, l->name, strerror(-rc),
                   l->o.keep_going ? "Access goes on WITHOUT A RECORD (audit_on_failure=continue)" : "Opens are refused (ECANCELED) until it can");
    pthread_mutex_lock(&l->mu);
    pthread_cond_broadcast(&l->room);
    pthread_mutex_unlock(&l->mu);
}

/* The directory may have been replaced, or have come back. */
static int reopen(struct lg_audit_log *l)
{
    char path[3200], name[LG_AUDIT_FILE_NAME];
    struct lg_audit_chain c;
    snprintf(path, sizeof path, "%s/%s", l->dir, l->name);
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = lg_audit_chain_read(fd, &c);
    if (!rc && memcmp(c.id, l->chain.id, LG_ID_LEN) != 0)
        rc = -ESTALE;
    lg_audit_file_name(l->segment, LG_AUDIT_PLAIN, name);
    int seg = rc ? -1 : openat(fd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (!rc && seg < 0)
        rc = -errno;
    struct stat st;
    if (!rc && (fstat(seg, &st) || (uint64_t)st.st_size < l->size)) { /* an older copy was put back: the next start judges it */
        close(seg);
        rc = -ESTALE;
    }
    if (rc) {
        close(fd);
        return rc;
    }
    close(l->dirfd);
    close(l->fd);
    l->dirfd = fd;
    l->fd = seg;
    return 0;
}

static int tell_failure(struct lg_audit_log *l)
{
    struct lg_audit_record r = lg_audit_event("log.failed");
    uint64_t refused = atomic_load(&l->refused), lost = atomic_load(&l->lost);
    r.until_us = r.time_us;
    r.time_us = l->failed_us;
    r.outcome = l->why;
    r.has = LG_AUDIT_COUNT;
    r.count = refused + lost;
    snprintf(r.how, sizeof r.how, "%s", l->o.keep_going ? "continue" : "refuse");
    snprintf(r.text, sizeof r.text, "refused %llu, went on without a record %llu", (unsigned long long)refused, (unsigned long long)lost);
    int rc = lg_audit_own(l, &r);
    if (rc)
        return rc;
    atomic_fetch_sub(&l->refused, refused);
    atomic_fetch_sub(&l->lost, lost);
    atomic_store(&l->failing, false);
    lg_audit_alarm(l, LOG_NOTICE, "the access log %s/%s can be written again; %llu operations were refused, %llu went unrecorded", l->dir, l->name, (unsigned long long)refused,
                   (unsigned long long)lost);
    return 0;
}

/* ---- counts -------------------------------------------------------------------------------------------------------------------------- */

/* mu held. Ended windows become records. */
static void sweep(struct lg_audit_log *l, bool all)
{
    static _Thread_local struct lg_audit_record r;
    int64_t now = lg_audit_now_ms();
    for (unsigned i = 0; i < LG_GROUPS && lg_groups_used(l->ring); i++) {
        struct lg_group *g = lg_group_nth(l->ring, i);
        /* a window may not end later than the longest; boot time starts anew with the machine, and so does the ring */
        if (!g || (!all && g->end_ms > now))
            continue;
        if (g->count) {
            lg_group_record(g, &r);
            if (!lg_ring_push(l->ring, &r))
                return; /* later */
        }
        lg_group_free(l->ring, g);
    }
}

static void wait_until(pthread_cond_t *c, pthread_mutex_t *m, int64_t ms)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += ms / 1000;
    t.tv_nsec += ms % 1000 * 1000000;
    if (t.tv_nsec >= 1000000000) {
        t.tv_sec++;
        t.tv_nsec -= 1000000000;
    }
    pthread_cond_timedwait(c, m, &t);
}

void *lg_audit_writer(void *log);
void *lg_audit_writer(void *log)
{
    struct lg_audit_log *l = log;
    unsigned empty = 0;
    int64_t swept = 0;
    for (bool stop = false; !stop;) {
        bool more = false;
        pthread_mutex_lock(&l->mu);
        bool failing = atomic_load(&l->failing);
        if (failing) {
            wait_until(&l->work, &l->mu, RETRY_MS);
        } else if (lg_ring_empty(l->ring) && !l->stop && !l->counts_now) {
            l->idle = ++empty > IDLE_AFTER;
            wait_until(&l->work, &l->mu, l->idle ? SWEEP_MS : NAP_MS);
            l->idle = false;
        }
        if (!lg_ring_empty(l->ring))
            empty = 0;
        int64_t now = lg_audit_now_ms();
        if (l->stop || l->counts_now || now - swept >= SWEEP_MS) {
            sweep(l, l->stop || l->counts_now);
            l->counts_now = false;
            swept = now;
        }
        stop = l->stop;
        pthread_mutex_unlock(&l->mu);

        pthread_mutex_lock(&l->w);
        int rc = 0;
        if (failing) {
            rc = reopen(l);
            if (!rc)
                rc = tell_failure(l);
        }
        do {
            if (!rc)
                rc = drain(l, &more);
        } while (!rc && more);
        pthread_mutex_unlock(&l->w);
        if (rc)
            lg_audit_failed(l, rc);
        pthread_mutex_lock(&l->mu);
        if (stop && !rc && !lg_ring_empty(l->ring))
            stop = false;
        pthread_cond_broadcast(&l->written);
        pthread_mutex_unlock(&l->mu);
    }
    return NULL;
}
