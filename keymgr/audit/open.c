/* Opening: which chain is continued, what a crash left of it, and beginning another. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "log.h"
#include "leadglass/bytes.h"

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

/* A head that a crash cut short, or that a power cut left in part, is cut off, so that the next one has a line of its own: the key manager remembers it, and it is
 * stored again. Only the last one, as each was durable before the next was asked for. */
static int mend_heads_of(struct lg_audit_log *l, unsigned segment, bool *ret_cut)
{
    char name[LG_AUDIT_FILE_NAME], buf[2 * LG_AUDIT_HEAD_MAX];
    struct lg_audit_head h;
    lg_audit_file_name(segment, LG_AUDIT_HEADS, name);
    int fd = openat(l->dirfd, name, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    off_t size = lseek(fd, 0, SEEK_END), from = size > (off_t)sizeof buf ? size - (off_t)sizeof buf : 0;
    ssize_t n = pread(fd, buf, sizeof buf, from), to = n;
    while (to > 0 && buf[to - 1] != '\n')
        to--;
    const char *nl = to > 0 ? memrchr(buf, '\n', (size_t)to - 1) : NULL;
    ssize_t line = nl ? nl + 1 - buf : 0;
    if (to > 0 && lg_audit_head_parse(buf + line, (size_t)(to - 1 - line), &h))
        to = line;
    bool cut = n >= 0 && from + to < size;
    int rc = n < 0 || (cut && ftruncate(fd, from + to)) ? -errno : 0;
    close(fd);
    *ret_cut = *ret_cut || cut;
    return rc;
}

/* It may stand in the segment before, when another began before it was durable. */
static int mend_heads(struct lg_audit_log *l, bool *ret_cut)
{
    int rc = l->segment > 1 ? mend_heads_of(l, l->segment - 1, ret_cut) : 0;
    return rc ? rc : mend_heads_of(l, l->segment, ret_cut);
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

static void ring_path(const struct lg_audit_log *l, const uint8_t chain[LG_ID_LEN], char out[4200])
{
    char id[17];
    lg_hex_encode(chain, 8, id);
    snprintf(out, 4200, "%s/leadglass-audit-%u-%s", l->o.shm ? l->o.shm : "/dev/shm", (unsigned)geteuid(), id);
}

/* The ring of this chain; last: the last record of it in the log, so that nothing of the ring is written twice. Before anything else is written to the log. */
static int open_ring(struct lg_audit_log *l, uint64_t last)
{
    char path[4200];
    ring_path(l, l->chain.id, path);
    int rc = lg_ring_open(path, l->chain.id, &l->ring);
    if (!rc)
        l->left = lg_ring_recover(l->ring, last, &l->unread);
    return rc;
}

/* What a killed daemon left in memory for a chain that is continued no more goes into the ring of the one that begins after it: every record once, or twice if we
 * die in between (or if it died while it wrote them: whether they stand in the old chain, nobody can say any more). Counts become records. What has no
 * room waits for the next start. */
static int take_over(struct lg_audit_log *l, const uint8_t old_chain[LG_ID_LEN])
{
    static struct lg_audit_record r;
    char path[4200];
    struct lg_ring *old;
    bool room = true;
    ring_path(l, old_chain, path);
    if (access(path, F_OK))
        return 0;
    int rc = lg_ring_open(path, old_chain, &old);
    if (rc)
        return rc;
    uint64_t unread;
    (void)lg_ring_recover(old, 0, &unread);
    l->unread += unread;
    for (uint64_t at = lg_ring_tail(old); lg_ring_at(old, &at, &r) && (room = lg_ring_push(l->ring, &r)); l->left++)
        lg_ring_done(old, at);
    for (unsigned i = 0; room && i < LG_GROUPS; i++) {
        struct lg_group *g = lg_group_nth(old, i);
        if (g && g->count) {
            lg_group_record(g, &r);
            room = lg_ring_push(l->ring, &r);
            l->left += room;
        }
        if (g && room)
            lg_group_free(old, g);
    }
    lg_ring_close(old, room);
    return 0;
}

static int tell_set_aside(struct lg_audit_log *l, uint64_t bytes)
{
    struct lg_audit_record r = lg_audit_event("log.recovered");
    snprintf(r.text, sizeof r.text, "%llu bytes at the end were no complete record and were set aside", (unsigned long long)bytes);
    return lg_audit_own(l, &r);
}

static int tell_mended(struct lg_audit_log *l)
{
    struct lg_audit_record r = lg_audit_event("log.recovered");
    snprintf(r.text, sizeof r.text, "the last head was not whole and was taken away; the key manager remembers it");
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
    bool mended = false;
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
        rc = mend_heads(l, &mended);
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
    if (!rc && mended)
        rc = tell_mended(l);
    return rc || !cut ? rc : tell_set_aside(l, cut);
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------------- */

static int sync_dir(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = fd < 0 || fsync(fd) ? -errno : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int lock_chain(struct lg_audit_log *l, bool make)
{
    char path[3200];
    snprintf(path, sizeof path, "%s/%s", l->dir, l->name);
    if (make && mkdir(path, 0700) && errno != EEXIST)
        return -errno;
    int rc = make ? sync_dir(l->dir) : 0; /* or a power cut takes away a chain that is signed already */
    if (rc)
        return rc;
    l->dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (l->dirfd < 0)
        return -errno;
    l->lockfd = openat(l->dirfd, LG_AUDIT_LOCK_FILE, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return l->lockfd < 0 || flock(l->lockfd, LOCK_EX | LOCK_NB) ? -errno : 0;
}

void lg_audit_unlock_chain(struct lg_audit_log *l)
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

/* id NULL: not known. */
static int tell_broken(struct lg_audit_log *l, const char *old, const uint8_t *old_id, const char *why)
{
    char id[2 * LG_ID_LEN + 1] = "?";
    if (old_id)
        lg_hex_encode(old_id, LG_ID_LEN, id);
    struct lg_audit_record r = lg_audit_event("log.broken");
    snprintf(r.text, sizeof r.text, "chain %s (%s) cannot be continued: %s%s", id, old, why, old_id ? "" : "; records that a killed daemon may have left in memory cannot be found");
    lg_audit_alarm(l, LOG_ALERT, "access log %s: %s; it is left as it is, and %s begins", l->dir, r.text, l->name);
    return lg_audit_own(l, &r);
}

int lg_audit_open_chain(struct lg_audit_log *l, const struct lg_audit_head *remembered)
{
    unsigned n;
    const char *why = NULL;
    if (mkdir(l->dir, 0700) == 0) {
        char parent[sizeof l->dir + 4];
        snprintf(parent, sizeof parent, "%s/..", l->dir);
        int synced = sync_dir(parent);
        if (synced)
            return synced;
    } else if (errno != EEXIST) {
        return -errno;
    }
    int rc = newest(l->dir, l->o.name, &l->chain, &n);
    if (rc && rc != -EPROTO)
        return rc;
    if (!rc && !n)
        return begin_chain(l, 1);
    struct lg_audit_chain before;
    char name[64];
    bool known = !rc;
    uint8_t old_id[LG_ID_LEN];
    memcpy(old_id, l->chain.id, LG_ID_LEN);
    nth_name(l->o.name, n ? n : 1, l->name);
    if (rc) {
        why = "its identity cannot be read";
        n++;
    } else {
        rc = lock_chain(l, false);
        if (!rc)
            rc = resume(l, remembered, &why);
        if (!rc && !why && n > 1) { /* we died before everything was told and taken over, or not everything had room */
            nth_name(l->o.name, n - 1, name);
            bool readable = try_chain(l->dir, name, &before) == 0;
            if (l->seq == 1)
                rc = tell_broken(l, name, readable ? before.id : NULL, "a start before this one found that, and was killed");
            if (!rc && readable)
                rc = take_over(l, before.id);
        }
        if (rc < 0 || !why)
            return rc;
        lg_audit_unlock_chain(l);
    }
    char old[64];
    snprintf(old, sizeof old, "%s", l->name);
    rc = begin_chain(l, n + 1);
    if (rc)
        return rc;
    rc = tell_broken(l, old, known ? old_id : NULL, why);
    return rc || !known ? rc : take_over(l, old_id);
}
