/* Opening and closing a log, and what its users call. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "leadglass/bytes.h"

void *lg_audit_writer(void *log);

/* ---- opening -------------------------------------------------------------------------------------------------------------------------- */

/* What a killed daemon left is told, and follows. */
static int tell_left(struct lg_audit_log *l)
{
    unsigned counts = lg_groups_used(l->ring);
    if (!l->left && !counts && !l->unread)
        return 0;
    struct lg_audit_record r = lg_audit_event("log.recovered");
    r.has = LG_AUDIT_COUNT;
    r.until_us = r.time_us;
    r.count = l->left;
    int n = snprintf(r.text, sizeof r.text, "records that a killed daemon left in memory follow, and %u counts", counts);
    if (l->unread)
        snprintf(r.text + n, sizeof r.text - (size_t)n, "; %llu bytes there could not be read and are lost", (unsigned long long)l->unread);
    l->counts_now = true;
    return lg_audit_own(l, &r);
}

static int64_t clock_us(struct lg_audit_log *l) { return l->o.clock ? l->o.clock(l->o.arg) : lg_audit_now_us(); }

static struct lg_audit_record went_back(int64_t from, int64_t to)
{
    struct lg_audit_record r = lg_audit_event("log.clock");
    r.time_us = to;
    r.has = LG_AUDIT_RANGE;
    r.from = (uint64_t)from;
    r.to = (uint64_t)to;
    return r;
}

/* While nobody wrote, all that is known is that the last record was not written in the future. */
static int check_clock(struct lg_audit_log *l)
{
    int64_t now = clock_us(l);
    if (now + LG_CLOCK_SLACK_US >= l->last_us)
        return 0;
    struct lg_audit_record r = went_back(l->last_us, now);
    return lg_audit_own(l, &r);
}

static void log_free(struct lg_audit_log *l, bool remove_ring)
{
    lg_audit_unlock_chain(l);
    lg_usernames_free(l->users);
    lg_ring_close(l->ring, remove_ring);
    free(l->batch);
    free(l);
}

int lg_audit_open(const struct lg_audit_options *o, const struct lg_audit_head *remembered, struct lg_audit_log **ret)
{
    struct lg_audit_log *l = calloc(1, sizeof *l);
    pthread_condattr_t mono;
    if (!l || strlen(o->dir) >= sizeof l->dir || strlen(o->name) > 40) {
        free(l);
        return l ? -ENAMETOOLONG : -ENOMEM;
    }
    l->o = *o;
    l->o.segment_bytes = o->segment_bytes ? o->segment_bytes : LG_SEGMENT_BYTES;
    l->o.sync_ms = o->sync_ms ? o->sync_ms : 1000;
    snprintf(l->dir, sizeof l->dir, "%s", o->dir);
    if (gethostname(l->host, sizeof l->host - 1))
        l->host[0] = 0;
    l->fd = l->dirfd = l->lockfd = -1;
    l->batch = malloc(LG_BATCH_BYTES);
    pthread_mutex_init(&l->mu, NULL);
    pthread_mutex_init(&l->w, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&l->work, &mono);
    pthread_cond_init(&l->room, &mono);
    pthread_cond_init(&l->written, &mono);
    pthread_cond_init(&l->keep, &mono);
    pthread_condattr_destroy(&mono);
    int rc = l->batch ? lg_usernames_new(o->user, o->arg, &l->users) : -ENOMEM;
    if (!rc)
        rc = lg_audit_open_chain(l, remembered);
    if (!rc)
        rc = check_clock(l);
    if (!rc)
        rc = tell_left(l);
    if (!rc) { /* the reserve is there before anything is promised */
        int fd = openat(l->dirfd, LG_AUDIT_RESERVE_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (fd >= 0) {
            (void)!fallocate(fd, FALLOC_FL_KEEP_SIZE, 0, (off_t)l->o.segment_bytes);
            close(fd);
        }
    }
    sigset_t all, old; /* signals are the program's own */
    sigfillset(&all);
    pthread_sigmask(SIG_BLOCK, &all, &old);
    if (!rc)
        rc = -pthread_create(&l->writer, NULL, lg_audit_writer, l);
    bool kept = !rc && pthread_create(&l->keeper, NULL, lg_audit_keeper, l) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        log_free(l, false);
        return rc;
    }
    if (!kept) {
        pthread_mutex_lock(&l->mu);
        l->stop = true;
        pthread_cond_signal(&l->work);
        pthread_mutex_unlock(&l->mu);
        pthread_join(l->writer, NULL);
        log_free(l, false);
        return -EAGAIN;
    }
    *ret = l;
    return 0;
}

void lg_audit_close(struct lg_audit_log *l)
{
    if (!l)
        return;
    (void)!lg_audit_flush(l, true);
    pthread_mutex_lock(&l->mu);
    l->stop = true;
    pthread_cond_broadcast(&l->work);
    pthread_cond_broadcast(&l->keep);
    pthread_mutex_unlock(&l->mu);
    pthread_join(l->writer, NULL);
    pthread_join(l->keeper, NULL);
    log_free(l, lg_ring_empty(l->ring) && !lg_groups_used(l->ring));
}

/* ---- recording ---------------------------------------------------------------------------------------------------------------------------- */

int lg_audit_ready(struct lg_audit_log *l)
{
    if (!atomic_load_explicit(&l->failing, memory_order_relaxed) && lg_ring_free(l->ring) > LG_HEADROOM)
        return 0;
    pthread_mutex_lock(&l->mu);
    while (!atomic_load(&l->failing) && lg_ring_free(l->ring) <= LG_HEADROOM) {
        pthread_cond_signal(&l->work);
        pthread_cond_wait(&l->room, &l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    if (!atomic_load(&l->failing))
        return 0;
    if (l->o.keep_going)
        return 0;
    atomic_fetch_add(&l->refused, 1);
    return -ECANCELED;
}

/* mu held. Boot time never goes back, and both are slewed alike: when the clock stands nearer to it than before, the clock was set back. Records are no measure
 * of it: between an operation and its record a thread may have been kept waiting for long. */
static bool set_back(struct lg_audit_log *l, struct lg_audit_record *ret)
{
    for (unsigned i = 0; i < 4; i++) {
        int64_t before = lg_audit_boot_us(), now = clock_us(l), after = lg_audit_boot_us();
        if (after - before > LG_CLOCK_SLACK_US / 4) /* interrupted in between */
            continue;
        int64_t ahead = now - before;
        bool back = l->ahead_known && ahead + LG_CLOCK_SLACK_US < l->ahead_us;
        if (back)
            *ret = went_back(l->ahead_us + before, now);
        l->ahead_us = ahead;
        l->ahead_known = true;
        return back;
    }
    return false;
}

/* mu held. */
static void push_one(struct lg_audit_log *l, const struct lg_audit_record *r)
{
    while (!lg_ring_push(l->ring, r)) {
        if (atomic_load(&l->failing)) {
            atomic_fetch_add(&l->lost, 1);
            return;
        }
        pthread_cond_signal(&l->work);
        pthread_cond_wait(&l->room, &l->mu);
    }
    if (l->idle || lg_ring_free(l->ring) < LG_RING_BYTES / 2)
        pthread_cond_signal(&l->work);
}

/* mu held. */
static void push(struct lg_audit_log *l, const struct lg_audit_record *r)
{
    struct lg_audit_record clock;
    if (set_back(l, &clock))
        push_one(l, &clock);
    push_one(l, r);
}

void lg_audit_put(struct lg_audit_log *l, struct lg_audit_record *r)
{
    if (!r->time_us)
        r->time_us = clock_us(l);
    pthread_mutex_lock(&l->mu);
    push(l, r);
    pthread_mutex_unlock(&l->mu);
}

static void add(struct lg_group *g, const struct lg_audit_record *r)
{
    if (!g->count++)
        g->first_us = r->time_us;
    g->last_us = r->time_us;
    g->read += r->read;
    g->written += r->written;
}

/* What is found has a record of its own, with its study and file, for so many places a minute; then, and with hardly any space, findings are one record a minute. */
static bool named(struct lg_audit_log *l, const struct lg_audit_record *r)
{
    int64_t now = lg_audit_now_ms();
    pthread_mutex_lock(&l->mu);
    bool known = lg_group_find(l->ring, r) != NULL;
    if (!known && l->named_end_ms <= now) {
        l->named_end_ms = now + LG_CROWDED_S * 1000;
        l->named = 0;
    }
    bool fresh = !known && !atomic_load(&l->low) && l->named < LG_CROWDED_PLACES;
    l->named += fresh;
    pthread_mutex_unlock(&l->mu);
    return known || fresh;
}

/* With little space left, what one user does is one record a minute, whatever he touches, and so is most of what is found, whoever has it found. Root is the hospital itself. */
static bool crowd(struct lg_audit_log *l, const struct lg_audit_record *r, unsigned *window)
{
    if (!atomic_load_explicit(&l->crowded, memory_order_relaxed) || (r->has & LG_AUDIT_WHO && r->uid == 0))
        return false;
    *window = LG_CROWDED_S;
    return r->has & LG_AUDIT_WHO || !named(l, r);
}

static void count(struct lg_audit_log *l, struct lg_audit_record *r, unsigned window, void (*detail)(void *arg, struct lg_audit_record *r), void *arg)
{
    if (!r->time_us)
        r->time_us = clock_us(l);
    if (crowd(l, r, &window)) {
        r->has &= ~(unsigned)(LG_AUDIT_STUDY | LG_AUDIT_FILE);
        r->pid = 0;
        if (!(r->has & LG_AUDIT_WHO))
            r->uid = r->gid = 0;
    }
    if (window) {
        pthread_mutex_lock(&l->mu);
        struct lg_group *g = lg_group_find(l->ring, r);
        if (g && g->end_ms > lg_audit_now_ms()) {
            add(g, r);
            pthread_mutex_unlock(&l->mu);
            return;
        }
        pthread_mutex_unlock(&l->mu);
    }
    if (detail)
        detail(arg, r);
    pthread_mutex_lock(&l->mu);
    struct lg_group *g = window ? lg_group_find(l->ring, r) : NULL;
    if (window && !g) {
        g = lg_group_make(l->ring, r);
        if (g)
            g->end_ms = lg_audit_now_ms() + (int64_t)window * 1000;
        push(l, r);
    } else if (g) { /* another thread was first, or the window is about to be swept */
        add(g, r);
    } else {
        push(l, r);
    }
    pthread_mutex_unlock(&l->mu);
}

void lg_audit_count(struct lg_audit_log *l, struct lg_audit_record *r, void (*detail)(void *arg, struct lg_audit_record *r), void *arg)
{
    count(l, r, l->o.window_s, detail, arg);
}

/* A group is known by the fields of who did it: where that is nobody, they hold what tells one finding from another. Without LG_AUDIT_WHO they are not written. */
void lg_audit_count_found(struct lg_audit_log *l, struct lg_audit_record *r, uint64_t same)
{
    r->has &= ~(unsigned)LG_AUDIT_WHO;
    r->uid = (uint32_t)same;
    r->gid = (uint32_t)(same >> 32);
    r->pid = 0;
    count(l, r, l->o.window_s ? l->o.window_s : LG_FOUND_S, NULL, NULL);
}

int lg_audit_flush(struct lg_audit_log *l, bool counts)
{
    pthread_mutex_lock(&l->mu);
    if (counts) {
        l->counts_now = true;
        pthread_cond_signal(&l->work);
        while (l->counts_now && !atomic_load(&l->failing))
            pthread_cond_wait(&l->written, &l->mu);
    }
    uint64_t to = lg_ring_head(l->ring);
    while (lg_ring_tail(l->ring) < to && !atomic_load(&l->failing)) {
        pthread_cond_signal(&l->work);
        pthread_cond_wait(&l->written, &l->mu);
    }
    pthread_mutex_unlock(&l->mu);
    return atomic_load(&l->failing) ? -ECANCELED : lg_audit_sync(l);
}

/* ---- heads ---------------------------------------------------------------------------------------------------------------------------------- */

bool lg_audit_tip(struct lg_audit_log *l, struct lg_audit_head *ret)
{
    pthread_mutex_lock(&l->w);
    *ret = l->head;
    memcpy(ret->chain, l->chain.id, LG_ID_LEN);
    bool fresh = l->durable_seq > l->head.seq;
    memcpy(ret->prev, l->head.hash, LG_MAC_LEN);
    ret->seq = l->durable_seq;
    memcpy(ret->hash, l->durable_hash, LG_MAC_LEN);
    pthread_mutex_unlock(&l->w);
    return fresh;
}

int lg_audit_head_store(struct lg_audit_log *l, const struct lg_audit_head *h)
{
    char line[LG_AUDIT_HEAD_MAX + 1], name[LG_AUDIT_FILE_NAME];
    size_t len;
    int rc = lg_audit_head_encode(h, line, LG_AUDIT_HEAD_MAX, &len);
    if (rc)
        return rc;
    line[len++] = '\n';
    pthread_mutex_lock(&l->w);
    lg_audit_file_name(l->segment, LG_AUDIT_HEADS, name);
    bool fresh = faccessat(l->dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    int fd = openat(l->dirfd, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    off_t end = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    rc = end < 0 ? -errno : write(fd, line, len) != (ssize_t)len ? -EIO : 0;
    if (rc && end >= 0 && ftruncate(fd, end)) /* a part of a line would spoil the next */
        rc = -EIO;
    if (!rc)
        l->head = *h;
    int dir = !rc && fresh ? dup(l->dirfd) : -1;
    pthread_mutex_unlock(&l->w);
    if (!rc && (fdatasync(fd) || (fresh && (dir < 0 || fsync(dir)))))
        rc = -errno;
    if (dir >= 0)
        close(dir);
    if (fd >= 0)
        close(fd);
    return rc;
}

void lg_audit_state(struct lg_audit_log *l, struct lg_audit_state *ret)
{
    char name[LG_AUDIT_FILE_NAME];
    pthread_mutex_lock(&l->w);
    lg_audit_file_name(l->segment, LG_AUDIT_PLAIN, name);
    *ret = (struct lg_audit_state){ .seq = l->seq, .signed_seq = l->head.seq, .failing = atomic_load(&l->failing), .reserve_used = atomic_load(&l->reserve_used), .used_percent = l->used_percent };
    snprintf(ret->path, sizeof ret->path, "%s/%s/%s", l->dir, l->name, name);
    memcpy(ret->chain, l->chain.id, LG_ID_LEN);
    pthread_mutex_unlock(&l->w);
}
