/* Following one chain: its segments, one after the other, while they are written, compressed and removed. */
#include "leadglass/clock.h"
#include "chase.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"
#include "pack.h"

enum { BUF = 4 * (int)LG_AUDIT_LINE_MAX, LOOK_MS = 1000 };

void lg_chase_init(struct lg_chase *c, const struct lg_audit_chain *chain)
{
    *c = (struct lg_chase){ .chain = *chain, .fd = -1 };
    memcpy(c->p.chain, chain->id, LG_ID_LEN);
    lg_audit_genesis(chain->id, c->p.hash);
    c->p.hashed = true; /* of record 1 */
}

static void drop(struct lg_chase *c)
{
    free(c->buf);
    c->buf = NULL;
    c->at = c->len = 0;
}

static void segment_close(struct lg_chase *c)
{
    lg_unpacker_free(c->z);
    c->z = NULL;
    if (c->fd >= 0)
        close(c->fd);
    c->fd = -1;
    drop(c);
    c->ended = c->overlong = false;
}

void lg_chase_done(struct lg_chase *c) { segment_close(c); }

static int chain_dir(const struct lg_chase *c, const char *dir)
{
    char path[8192];
    if (snprintf(path, sizeof path, "%s/%s", dir, c->chain.name) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

static bool has(int dirfd, unsigned segment, enum lg_audit_file kind, struct stat *st)
{
    char name[LG_AUDIT_FILE_NAME];
    lg_audit_file_name(segment, kind, name);
    return fstatat(dirfd, name, st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st->st_mode);
}

/* One that holds something: it is begun before it is known that it can be written. */
static bool begun(int dirfd, unsigned segment)
{
    struct stat st;
    return has(dirfd, segment, LG_AUDIT_PACKED, &st) || (has(dirfd, segment, LG_AUDIT_PLAIN, &st) && st.st_size > 0);
}

/* The segment after this one; 0: none. The whole directory is looked through only when asked to: a segment in between may have been pruned. */
static unsigned later(int dirfd, unsigned segment, bool all)
{
    unsigned *list = NULL, found = 0;
    size_t n = 0;
    if (begun(dirfd, segment + 1))
        return segment + 1;
    if (!all || lg_audit_segments(dirfd, &list, &n))
        return 0;
    for (size_t i = 0; i < n && !found; i++)
        if (list[i] > segment && begun(dirfd, list[i]))
            found = list[i];
    free(list);
    return found;
}

static unsigned last_segment(int dirfd)
{
    unsigned *list = NULL, last = 0;
    size_t n = 0;
    if (lg_audit_segments(dirfd, &list, &n) == 0 && n)
        last = list[n - 1];
    free(list);
    return last;
}

/* Passes over what of a compressed segment was given before. */
static int skip(struct lg_chase *c)
{
    uint64_t left = c->p.offset;
    char *buf = malloc(BUF);
    int rc = buf ? 0 : -ENOMEM;
    size_t n = 1;
    while (!rc && left && n) {
        rc = lg_unpacker_read(c->z, buf, left < BUF ? (size_t)left : BUF, &n);
        left -= rc ? 0 : n;
    }
    free(buf);
    return rc ? rc : left ? -ESTALE : 0;
}

/* -ENOENT: there is none of that number. -ESTALE: it is shorter than it was. */
static int segment_open(struct lg_chase *c, int dirfd)
{
    char name[LG_AUDIT_FILE_NAME];
    struct stat st;
    bool packed = false;
    int rc = 0;
    segment_close(c);
    for (unsigned i = 0; i < 3 && c->fd < 0; i++) { /* compressed meanwhile: the other name */
        packed = i == 1;
        lg_audit_file_name(c->p.segment, packed ? LG_AUDIT_PACKED : LG_AUDIT_PLAIN, name);
        c->fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (c->fd < 0 && errno != ENOENT)
            return -errno;
    }
    if (c->fd < 0)
        return -ENOENT;
    if (packed)
        rc = lg_unpacker_new(c->fd, LG_AUDIT_SEGMENT_MAX, &c->z);
    if (!rc && packed)
        rc = skip(c);
    else if (!rc && fstat(c->fd, &st) == 0 && (uint64_t)st.st_size < c->p.offset)
        rc = -ESTALE;
    if (rc)
        segment_close(c);
    return rc;
}

/* ---- what is lost ---------------------------------------------------------------------------------------------------------------- */

static int finding(struct lg_chase *c, enum lg_audit_verdict what, uint64_t from, uint64_t to)
{
    c->lost = (struct lg_audit_problem){ what, from, to, c->p.segment };
    c->next = LG_CHASE_LOST;
    c->p.hashed = false;
    c->unsynced = true;
    return c->quiet ? 0 : 1;
}

/* To the next segment, where anything may stand first. */
static void segment_next(struct lg_chase *c, unsigned segment)
{
    segment_close(c);
    c->p.segment = segment;
    c->p.offset = 0;
    c->unsynced = true;
}

/* The log ends before where we were: on from its end, whatever stands there next. */
static int shortened(struct lg_chase *c, const char *dir, int dirfd)
{
    uint64_t was = c->p.seq;
    unsigned last = last_segment(dirfd);
    int rc = 0;
    segment_close(c);
    if (c->quiet) { /* while its end is looked for: this is the end, for now */
        c->dry = true;
        return 0;
    }
    c->p.seq = 0;
    c->p.hashed = false;
    c->p.gone = last == 0;
    if (last)
        rc = lg_chase_end(c, dir, 0);
    uint64_t is = c->p.seq;
    if (rc)
        return rc;
    if (c->p.gone)
        c->p.seq = was; /* it may come back */
    return finding(c, LG_AUDIT_TRUNCATED, is + 1, was);
}

/* The segment that is to be read is not there, in neither form. */
static int relocate(struct lg_chase *c, const char *dir, int dirfd)
{
    unsigned next = later(dirfd, c->p.segment, true);
    if (next) { /* pruned: the number of its first record tells what is missed */
        segment_next(c, next);
        return 0;
    }
    if (!c->p.seq || c->p.gone) /* nothing was ever there, or that it is gone was told */
        return 0;
    if (!c->p.offset && last_segment(dirfd) == c->p.segment - 1) /* the one before could not be read to its end, which was told, and this one is yet to come */
        return 0;
    return shortened(c, dir, dirfd);
}

/* ---- reading --------------------------------------------------------------------------------------------------------------------- */

static int fill(struct lg_chase *c, size_t *ret_n)
{
    size_t kept = c->len - c->at;
    if (!c->buf && !(c->buf = malloc(BUF)))
        return -ENOMEM;
    if (kept)
        memmove(c->buf, c->buf + c->at, kept);
    c->at = 0;
    c->len = kept;
    if (c->z) {
        int rc = lg_unpacker_read(c->z, c->buf + kept, BUF - kept, ret_n);
        if (!rc)
            c->len += *ret_n;
        return rc;
    }
    ssize_t n;
    do
        n = pread(c->fd, c->buf + kept, BUF - kept, (off_t)(c->p.offset + kept));
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    *ret_n = (size_t)n;
    c->len += *ret_n;
    return 0;
}

/* At the end of a plain segment, now and then: is it still the file of that name, and as long? A copy may have been put in its place. */
static int look(struct lg_chase *c, const char *dir, int dirfd)
{
    struct stat here, there;
    if (fstat(c->fd, &here))
        return -errno;
    if ((uint64_t)here.st_size < c->p.offset)
        return shortened(c, dir, dirfd);
    bool plain = has(dirfd, c->p.segment, LG_AUDIT_PLAIN, &there);
    if (plain && here.st_ino == there.st_ino && here.st_dev == there.st_dev)
        return 0;
    if (!plain && has(dirfd, c->p.segment, LG_AUDIT_PACKED, &there))
        return 0; /* it was read to its end before that */
    segment_close(c); /* opened anew, or found to be gone, next time */
    return 0;
}

/* The end of what there is of a segment. 1: a finding; 0: look again if !c->dry. */
static int at_end(struct lg_chase *c, const char *dir)
{
    int dirfd = chain_dir(c, dir), rc = 0;
    int64_t now = lg_clock_ms();
    bool due = c->z || now - c->looked_ms >= LOOK_MS;
    if (dirfd < 0) {
        segment_close(c);
        return 0;
    }
    if (due)
        c->looked_ms = now;
    unsigned next = later(dirfd, c->p.segment, due);
    if (next && !c->ended && !c->z) {
        c->ended = true; /* its last lines were written before the next one began: once more */
    } else if (next) {
        bool torn = c->len > c->at || c->overlong;
        segment_next(c, next);
        if (torn)
            rc = finding(c, LG_AUDIT_ALTERED, c->p.seq + 1, c->p.seq + 1);
    } else {
        drop(c); /* a line being written is read anew: it may be taken back */
        c->overlong = false;
        c->dry = true;
        if (due && !c->z)
            rc = look(c, dir, dirfd);
    }
    close(dirfd);
    return rc;
}

static int damaged(struct lg_chase *c, const char *dir)
{
    int dirfd = chain_dir(c, dir);
    unsigned next = dirfd < 0 ? 0 : later(dirfd, c->p.segment, true);
    if (dirfd >= 0)
        close(dirfd);
    segment_next(c, next ? next : c->p.segment + 1);
    return finding(c, LG_AUDIT_UNREADABLE, c->p.seq + 1, c->p.seq + 1);
}

static int open_again(struct lg_chase *c, const char *dir)
{
    int dirfd = chain_dir(c, dir);
    if (dirfd < 0) { /* the whole log, or this chain alone? */
        int top = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (top < 0)
            return -errno;
        close(top);
        c->dry = true;
        if (dirfd != -ENOENT)
            return dirfd;
        if (c->p.gone || !c->p.seq)
            return 0;
        c->p.gone = true;
        return finding(c, LG_AUDIT_TRUNCATED, 1, c->p.seq);
    }
    unsigned was = c->p.segment;
    int rc = segment_open(c, dirfd);
    if (rc == -ENOENT) {
        rc = relocate(c, dir, dirfd);
        c->dry = !rc && c->p.segment == was;
    } else if (rc == -ESTALE) {
        rc = shortened(c, dir, dirfd);
    } else if (!rc) {
        c->p.gone = false;
    }
    close(dirfd);
    return rc == -EBADMSG ? damaged(c, dir) : rc;
}

/* A whole line is in the buffer. */
static int line(struct lg_chase *c, size_t len)
{
    c->line_len = len;
    c->sound = !c->overlong && lg_audit_envelope(c->buf + c->at, len, &c->e) == 0;
    c->told = false;
    c->next = LG_CHASE_LINE;
    return 1;
}

int lg_chase_peek(struct lg_chase *c, const char *dir)
{
    int rc = 0;
    size_t n;
    if (c->next != LG_CHASE_NOTHING)
        return 1;
    c->dry = false;
    while (!rc && !c->dry) {
        if (c->fd < 0) {
            rc = open_again(c, dir);
            continue;
        }
        const char *s = c->buf ? c->buf + c->at : NULL, *nl = s ? memchr(s, '\n', c->len - c->at) : NULL;
        if (nl)
            return line(c, (size_t)(nl - s));
        if (c->len - c->at > LG_AUDIT_LINE_MAX) {
            c->p.offset += c->len - c->at;
            c->at = c->len = 0;
            c->overlong = true;
        }
        rc = fill(c, &n);
        if (rc == -EBADMSG)
            rc = damaged(c, dir);
        else if (!rc && !n)
            rc = at_end(c, dir);
    }
    if (c->next == LG_CHASE_LOST && c->quiet)
        c->next = LG_CHASE_NOTHING;
    return rc;
}

/* ---- giving ---------------------------------------------------------------------------------------------------------------------- */

/* What is wrong with the line that is next; LG_AUDIT_INTACT: nothing. */
static struct lg_audit_problem judge(const struct lg_chase *c)
{
    const struct lg_follow_position *p = &c->p;
    struct lg_audit_problem x = { LG_AUDIT_INTACT, p->seq + 1, p->seq + 1, p->segment };
    uint8_t hash[LG_MAC_LEN];
    if (!c->sound) {
        x.what = LG_AUDIT_ALTERED;
    } else if (memcmp(c->e.chain, c->chain.id, sizeof c->e.chain) != 0) {
        x.what = LG_AUDIT_FOREIGN;
    } else if (p->seq && c->e.seq <= p->seq) {
        x.what = LG_AUDIT_REORDERED;
        x.from = x.to = c->e.seq;
    } else if (p->seq && c->e.seq > p->seq + 1) {
        x.what = LG_AUDIT_MISSING;
        x.to = c->e.seq - 1;
    } else if (p->hashed && (p->seq || c->e.seq == 1) &&
               (lg_audit_link(p->hash, c->buf + c->at, c->e.body_len, hash) || memcmp(hash, c->e.hash, LG_MAC_LEN) != 0)) {
        x.what = LG_AUDIT_ALTERED;
        x.from = x.to = c->e.seq;
    }
    return x;
}

int lg_chase_take(struct lg_chase *c, struct lg_followed *ret)
{
    *ret = (struct lg_followed){ .chain = &c->chain };
    if (c->next == LG_CHASE_LOST) {
        ret->finding = c->lost;
        c->next = LG_CHASE_NOTHING;
        return 1;
    }
    ret->finding = judge(c);
    bool wrong = ret->finding.what != LG_AUDIT_INTACT;
    bool given = c->sound && ret->finding.what != LG_AUDIT_FOREIGN && ret->finding.what != LG_AUDIT_REORDERED;
    if (wrong && given && !c->told && !c->quiet) { /* the finding first, its record next time */
        c->told = true;
        return 1;
    }
    ret->line = c->buf + c->at;
    ret->len = c->line_len;
    c->at += c->line_len + 1;
    c->p.offset += c->line_len + 1;
    c->overlong = false;
    c->unsynced = true;
    c->next = LG_CHASE_NOTHING;
    if (!given) {
        ret->line = NULL;
        return !c->quiet;
    }
    ret->finding.what = LG_AUDIT_INTACT; /* was told */
    c->p.seq = c->e.seq;
    memcpy(c->p.hash, c->e.hash, LG_MAC_LEN);
    c->p.hashed = true;
    return c->e.seq > c->skip_to && !c->quiet;
}

int lg_chase_end(struct lg_chase *c, const char *dir, uint64_t last)
{
    struct lg_followed x;
    struct lg_follow_position back;
    bool quiet = c->quiet;
    int dirfd = chain_dir(c, dir), rc;
    if (dirfd < 0)
        return dirfd;
    unsigned segment = last_segment(dirfd);
    segment_close(c);
    c->quiet = true;
    c->p.segment = segment > 1 ? segment - 1 : segment; /* the last one may be empty yet; and some of those asked for may stand before it */
    c->p.offset = c->p.seq = 0;
    if (c->p.segment > 1)
        c->p.hashed = false;
    back = c->p;
    close(dirfd);
    while ((rc = lg_chase_peek(c, dir)) == 1)
        rc = lg_chase_take(c, &x);
    if (rc == 0 && last && c->p.seq) { /* once more, and give the last of them */
        c->skip_to = c->p.seq > last ? c->p.seq - last : 0;
        segment_close(c);
        c->p = back;
    }
    c->quiet = quiet;
    c->dry = false;
    return rc;
}

int lg_chase_sync(struct lg_chase *c)
{
    /* A segment that was left for the next one is durable: the log sees to that before it begins another. */
    if (c->unsynced && c->fd >= 0 && !c->z && fdatasync(c->fd))
        return -errno;
    c->unsynced = false;
    return 0;
}
