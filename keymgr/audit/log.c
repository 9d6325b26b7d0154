/* Opening and closing a log, and what its users call. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "leadglass/bytes.h"

void *lg_audit_writer(void *log);

/* ---- which chain ------------------------------------------------------------------------------------------------------------------ */

static int try_chain(const char *dir, const char *name, struct lg_audit_chain *ret)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/%s", dir, name) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    struct lg_audit_chain c = { .name = "" };
    int rc = lg_audit_chain_read(fd, &c);
    close(fd);
    if (rc)
        return rc;
    snprintf(c.name, sizeof c.name, "%s", name);
    *ret = c;
    return 0;
}

static void nth_name(const char *base, unsigned n, char out[64])
{
    if (n == 1)
        snprintf(out, 64, "%s", base);
    else
        snprintf(out, 64, "%.50s.%u", base, n);
}

/* The newest of that name, and its number; *ret_n 0: none. */
static int newest(const char *dir, const char *base, struct lg_audit_chain *ret, unsigned *ret_n)
{
    char name[64];
    *ret_n = 0;
    for (unsigned n = 1; n < 10000; n++) {
        nth_name(base, n, name);
        int rc = try_chain(dir, name, ret);
        if (rc == -ENOENT)
            return 0;
        if (rc)
            return rc;
        *ret_n = n;
    }
    return -EMFILE;
}

int lg_audit_find(const char *dir, const char *name, struct lg_audit_chain *ret)
{
    unsigned n;
    int rc = newest(dir, name, ret, &n);
    return rc ? rc : n ? 0 : -ENOENT;
}

/* ---- continuing a chain -------------------------------------------------------------------------------------------------------------- */

struct scan {
    struct lg_audit_log *l;
    const struct lg_audit_head *want;
    unsigned segment;
    uint64_t seq, good; /* good: bytes of the last segment that hang together */
    uint8_t hash[LG_MAC_LEN];
    int64_t time_us;
    bool begun, bad, found, differs;
    size_t rest;
};

static int scan_line(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    struct scan *c = arg;
    struct lg_audit_envelope e;
    uint8_t hash[LG_MAC_LEN];
    if (segment != c->segment) {
        if (c->bad) { /* damage with more behind it is no torn tail */
            c->differs = true;
            return 0;
        }
        c->segment = segment;
        c->good = 0;
    }
    if (c->bad || cut || lg_audit_envelope(s, len, &e) || memcmp(e.chain, c->l->chain.id, sizeof e.chain) != 0) {
        c->bad = true;
        c->rest += len + 1;
        return 0;
    }
    if (!c->begun && e.seq == 1)
        lg_audit_genesis(c->l->chain.id, c->hash);
    bool linked = c->begun || e.seq == 1;
    if (linked && (e.seq != c->seq + 1 || lg_audit_link(c->hash, s, e.body_len, hash) || memcmp(hash, e.hash, LG_MAC_LEN) != 0)) {
        c->bad = true;
        c->rest += len + 1;
        return 0;
    }
    c->begun = true;
    c->seq = e.seq;
    c->time_us = e.time_us;
    memcpy(c->hash, e.hash, LG_MAC_LEN);
    c->good += len + 1;
    if (c->want && c->want->n && e.seq == c->want->seq) {
        c->found = memcmp(c->want->hash, e.hash, LG_MAC_LEN) == 0;
        c->differs = c->differs || !c->found;
    }
    return 0;
}

static int first_seq(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    struct lg_audit_envelope e;
    (void)segment;
    *(uint64_t *)arg = !cut && lg_audit_envelope(s, len, &e) == 0 ? e.seq : 0;
    return 1;
}

struct newest_head {
    struct lg_audit_head h;
};
static int on_head(void *arg, const char *s, size_t len)
{
    struct newest_head *n = arg;
    struct lg_audit_head h;
    if (lg_audit_head_parse(s, len, &h) == 0)
        n->h = h;
    return 0;
}

/* A head that a crash cut short is cut off, so that the next one has a line of its own. */
static int mend_heads(struct lg_audit_log *l)
{
    char name[LG_AUDIT_FILE_NAME], c;
    lg_audit_file_name(l->segment, LG_AUDIT_HEADS, name);
    int fd = openat(l->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    off_t size = lseek(fd, 0, SEEK_END), to = size;
    while (to > 0 && pread(fd, &c, 1, to - 1) == 1 && c != '\n')
        to--;
    int rc = to < size && ftruncate(fd, to) ? -errno : 0;
    close(fd);
    return rc;
}

/* What of the last segment does not hang together, set aside where it can be looked at. */
static int set_aside(struct lg_audit_log *l, uint64_t from)
{
    char name[64], buf[65536];
    snprintf(name, sizeof name, "torn-%08u-%llu", l->segment, (unsigned long long)from);
    int out = openat(l->dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (out < 0)
        return -errno;
    ssize_t n;
    for (off_t at = (off_t)from; (n = pread(l->fd, buf, sizeof buf, at)) > 0; at += n)
        if (write(out, buf, (size_t)n) != n)
            n = -1;
    int rc = n < 0 || fsync(out) ? -EIO : 0;
    close(out);
    return rc ? rc : ftruncate(l->fd, (off_t)from) ? -errno : 0;
}

/* The ring of this chain; last: the last record of it in the log, so that nothing of the ring is written twice. Before anything else is written to the log. */
static int open_ring(struct lg_audit_log *l, uint64_t last)
{
    char path[4200], id[17];
    lg_hex_encode(l->chain.id, 8, id);
    snprintf(path, sizeof path, "%s/leadglass-audit-%u-%s", l->o.shm ? l->o.shm : "/dev/shm", (unsigned)geteuid(), id);
    int rc = lg_ring_open(path, l->chain.id, &l->ring);
    if (!rc)
        l->left = lg_ring_recover(l->ring, last);
    return rc;
}

static int tell_set_aside(struct lg_audit_log *l, uint64_t bytes)
{
    struct lg_audit_record r = lg_audit_event("log.recovered");
    snprintf(r.text, sizeof r.text, "%llu bytes at the end were no complete record and were set aside", (unsigned long long)bytes);
    return lg_audit_own(l, &r);
}

/* Killed before the first record was whole, and nothing of the chain was ever signed: it begins now. */
static int resume_empty(struct lg_audit_log *l)
{
    char name[LG_AUDIT_FILE_NAME];
    struct stat st = { .st_size = 0 };
    l->segment = 1;
    lg_audit_file_name(1, LG_AUDIT_PLAIN, name);
    l->fd = openat(l->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    int rc = l->fd < 0 ? (errno == ENOENT ? 0 : -errno) : fstat(l->fd, &st) ? -errno : st.st_size ? set_aside(l, 0) : 0;
    if (!rc)
        rc = open_ring(l, 0);
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    l->seq = l->size = 0;
    lg_audit_genesis(l->chain.id, l->hash);
    if (!rc)
        rc = lg_audit_segment_begin(l, 1);
    return rc || !st.st_size ? rc : tell_set_aside(l, (uint64_t)st.st_size);
}

/* The end of the chain. 1: it cannot be continued; why says it in words. */
static int resume(struct lg_audit_log *l, const struct lg_audit_head *want, const char **why)
{
    unsigned *all = NULL;
    size_t n = 0, from;
    char name[LG_AUDIT_FILE_NAME];
    struct newest_head disk = { .h = { .n = 0 } };
    struct stat st;
    struct scan c = { .l = l, .want = want };
    int rc = lg_audit_segments(l->dirfd, &all, &n);
    if (rc)
        return rc;
    if (!n) {
        free(all);
        if (!want || !want->n)
            return resume_empty(l);
        *why = "it has no segment";
        return 1;
    }
    bool only = n == 1 && all[0] == 1;
    for (from = n - 1; from; from--) { /* back to the segment that holds the signed record, and to one that holds any */
        uint64_t first = 0;
        rc = lg_audit_read(l->dir, l->name, all[from], first_seq, &first);
        if (first && (!want || !want->n || first <= want->seq))
            break;
    }
    rc = lg_audit_read(l->dir, l->name, all[from], scan_line, &c);
    if (!rc)
        rc = lg_audit_read_heads(l->dir, l->name, on_head, &disk);
    l->segment = all[n - 1];
    free(all);
    if (rc)
        return rc;
    if (!c.begun && only && (!want || !want->n) && !disk.h.n)
        return resume_empty(l);
    *why = !c.begun                                      ? "nothing of it can be read"
           : c.differs || (c.bad && c.segment != l->segment) ? "it is not what was signed"
           : want && want->n && c.seq < want->seq        ? "it is shorter than what was signed"
           : want && disk.h.n > want->n                  ? "the key manager does not remember its heads"
                                                         : NULL;
    if (*why)
        return 1;
    lg_audit_file_name(l->segment, LG_AUDIT_PLAIN, name);
    l->fd = openat(l->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (l->fd < 0 && errno != ENOENT)
        return -errno;
    l->seq = c.seq;
    l->last_us = c.time_us;
    memcpy(l->hash, c.hash, LG_MAC_LEN);
    rc = open_ring(l, c.seq);
    if (!rc)
        rc = mend_heads(l);
    if (!rc && want && want->n == disk.h.n + 1) /* signed, but we died before it was stored */
        rc = lg_audit_head_store(l, want);
    if (rc)
        return rc;
    l->head = want && want->n ? *want : disk.h;
    if (l->fd < 0) /* compressed already: the next one begins */
        return lg_audit_segment_begin(l, l->segment + 1);
    l->size = c.segment == l->segment ? c.good : 0; /* killed between making a segment and its first record */
    if (fstat(l->fd, &st))
        return -errno;
    uint64_t cut = (uint64_t)st.st_size > l->size ? (uint64_t)st.st_size - l->size : 0;
    rc = cut ? set_aside(l, l->size) : 0;
    if (!rc && !l->size) { /* with the record that a segment begins with */
        close(l->fd);
        l->fd = -1;
        rc = lg_audit_segment_begin(l, l->segment);
    }
    return rc || !cut ? rc : tell_set_aside(l, cut);
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------------- */

static int lock_chain(struct lg_audit_log *l, bool make)
{
    char path[3200];
    snprintf(path, sizeof path, "%s/%s", l->dir, l->name);
    if (make && mkdir(path, 0700) && errno != EEXIST)
        return -errno;
    l->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (l->dirfd < 0)
        return -errno;
    l->lockfd = openat(l->dirfd, LG_AUDIT_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return l->lockfd < 0 || flock(l->lockfd, LOCK_EX | LOCK_NB) ? -errno : 0;
}

static void unlock_chain(struct lg_audit_log *l)
{
    if (l->fd >= 0)
        close(l->fd);
    if (l->lockfd >= 0)
        close(l->lockfd);
    if (l->dirfd >= 0)
        close(l->dirfd);
    l->fd = l->lockfd = l->dirfd = -1;
}

static int begin_chain(struct lg_audit_log *l, unsigned n)
{
    nth_name(l->o.name, n, l->name);
    l->chain = (struct lg_audit_chain){ .name = "" };
    snprintf(l->chain.kind, sizeof l->chain.kind, "%s", l->o.kind);
    int rc = lock_chain(l, true);
    if (!rc)
        rc = lg_random(l->chain.id, LG_ID_LEN);
    if (!rc)
        rc = lg_audit_chain_write(l->dirfd, &l->chain);
    l->seq = l->size = l->durable_seq = 0;
    l->head = (struct lg_audit_head){ .n = 0 };
    lg_audit_genesis(l->chain.id, l->hash);
    if (!rc)
        rc = open_ring(l, 0);
    return rc ? rc : lg_audit_segment_begin(l, 1);
}

static int open_chain(struct lg_audit_log *l, const struct lg_audit_head *remembered)
{
    unsigned n;
    const char *why = NULL;
    if (mkdir(l->dir, 0700) && errno != EEXIST)
        return -errno;
    int rc = newest(l->dir, l->o.name, &l->chain, &n);
    if (rc && rc != -EPROTO)
        return rc;
    if (!rc && !n)
        return begin_chain(l, 1);
    nth_name(l->o.name, n ? n : 1, l->name);
    if (rc) {
        why = "its identity cannot be read";
        n++;
    } else {
        rc = lock_chain(l, false);
        if (!rc)
            rc = resume(l, remembered, &why);
        if (rc < 0 || !why)
            return rc;
        unlock_chain(l);
    }
    char old[64], id[2 * LG_ID_LEN + 1];
    snprintf(old, sizeof old, "%s", l->name);
    lg_hex_encode(l->chain.id, LG_ID_LEN, id);
    rc = begin_chain(l, n + 1);
    if (rc)
        return rc;
    struct lg_audit_record r = lg_audit_event("log.broken");
    snprintf(r.text, sizeof r.text, "chain %s (%s) cannot be continued: %s", id, old, why);
    lg_audit_alarm(l, LOG_ALERT, "access log %s: %s; it is left as it is, and %s begins", l->dir, r.text, l->name);
    return lg_audit_own(l, &r);
}

/* What a killed daemon left is told, and follows. */
static int tell_left(struct lg_audit_log *l)
{
    unsigned counts = lg_groups_used(l->ring);
    if (!l->left && !counts)
        return 0;
    struct lg_audit_record r = lg_audit_event("log.recovered");
    r.has = LG_AUDIT_COUNT;
    r.until_us = r.time_us;
    r.count = l->left;
    snprintf(r.text, sizeof r.text, "records that a killed daemon left in memory follow, and %u counts", counts);
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
    unlock_chain(l);
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
        rc = open_chain(l, remembered);
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

/* With little space left, what one user does is one record a minute, whatever he touches. Root is the hospital itself. */
static bool crowd(struct lg_audit_log *l, const struct lg_audit_record *r)
{
    return atomic_load_explicit(&l->crowded, memory_order_relaxed) && r->has & LG_AUDIT_WHO && r->uid != 0;
}

void lg_audit_count(struct lg_audit_log *l, struct lg_audit_record *r, void (*detail)(void *arg, struct lg_audit_record *r), void *arg)
{
    unsigned window = l->o.window_s;
    if (!r->time_us)
        r->time_us = clock_us(l);
    if (crowd(l, r)) {
        r->has &= ~(unsigned)(LG_AUDIT_STUDY | LG_AUDIT_FILE);
        r->pid = 0;
        window = LG_CROWDED_S;
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
    int fd = openat(l->dirfd, name, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    rc = fd < 0 ? -errno : write(fd, line, len) != (ssize_t)len ? -EIO : 0;
    if (!rc)
        l->head = *h;
    pthread_mutex_unlock(&l->w);
    if (!rc && fdatasync(fd))
        rc = -errno;
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
