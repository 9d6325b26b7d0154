#include "spool.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <unistd.h>

#include "leadglass/bytes.h"

enum { SEGMENT_MAX = 1 << 20, SEGMENTS_MAX = 65536, DELIVERED = 20 };

struct segment {
    uint64_t number, bytes;
};
struct lg_spool {
    int dir;
    const struct lg_secret *key;
    struct lg_siv *siv;
    uint64_t max, segment_max;
    struct segment *seg; /* that are there, in order */
    size_t n;
    struct lg_spool_place first, end; /* end: of the segment being written; without a file while its offset is 0 */
    bool noted; /* a position knew the end: nothing in it is incomplete */
    int out, in;                      /* of the segment being written, and of the one being read */
    uint64_t in_number;
    uint8_t out_header[LG_SPOOL_HEADER], in_header[LG_SPOOL_HEADER];
    uint8_t buf[LG_SPOOL_RECORD_MAX + 4 + LG_SIV_TAG_LEN];
    void (*say)(void *arg, int level, const char *text);
    void *arg;
};

static void say(const struct lg_spool *s, int level, const char *fmt, ...) LG_PRINTF(3, 4);
static void say(const struct lg_spool *s, int level, const char *fmt, ...)
{
    char text[256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (s->say)
        s->say(s->arg, level, text);
}

static void name_of(uint64_t number, char out[40]) { snprintf(out, 40, "%08llu.spool", (unsigned long long)number); }

/* ---- segments ------------------------------------------------------------------------------------------------------------------------------ */

static int add(struct lg_spool *s, uint64_t number, uint64_t bytes)
{
    struct segment *more = s->n == SEGMENTS_MAX ? NULL : reallocarray(s->seg, s->n + 1, sizeof *more);
    if (!more)
        return s->n == SEGMENTS_MAX ? -E2BIG : -ENOMEM;
    s->seg = more;
    s->seg[s->n++] = (struct segment){ number, bytes };
    return 0;
}

/* aside: keep it for whoever wants to look, else remove it. */
static int drop(struct lg_spool *s, size_t i, bool aside)
{
    char name[40], to[60];
    name_of(s->seg[i].number, name);
    snprintf(to, sizeof to, "%s.damaged", name);
    int rc = aside ? renameat(s->dir, name, s->dir, to) : unlinkat(s->dir, name, 0);
    if (rc && errno != ENOENT)
        return -errno;
    if (s->in >= 0 && s->in_number == s->seg[i].number) {
        close(s->in);
        s->in = -1;
    }
    if (s->out >= 0 && s->end.segment == s->seg[i].number) { /* the next put begins a new one */
        close(s->out);
        s->out = -1;
        s->end = (struct lg_spool_place){ s->end.segment + 1, 0 };
    }
    memmove(&s->seg[i], &s->seg[i + 1], (s->n - i - 1) * sizeof *s->seg);
    s->n--;
    return 0;
}

static int by_number(const void *a, const void *b)
{
    uint64_t x = ((const struct segment *)a)->number, y = ((const struct segment *)b)->number;
    return x < y ? -1 : x > y;
}

static int list(struct lg_spool *s)
{
    int fd = dup(s->dir), rc = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *e;
    struct stat st;
    char *end, name[40];
    if (!d) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    while (!rc && (e = readdir(d))) {
        uint64_t number = strtoull(e->d_name, &end, 10);
        name_of(number, name);
        if (number < LG_SPOOL_SEGMENTS && strcmp(name, e->d_name) == 0 && fstatat(s->dir, name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISREG(st.st_mode))
            rc = add(s, number, (uint64_t)st.st_size);
    }
    closedir(d);
    if (s->n)
        qsort(s->seg, s->n, sizeof *s->seg, by_number);
    return rc;
}

static int header_read(const struct lg_spool *s, uint64_t number, int *ret_fd, uint8_t ret[LG_SPOOL_HEADER])
{
    char name[40];
    name_of(number, name);
    int fd = openat(s->dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc;
    if (fd < 0)
        return -errno;
    rc = pread(fd, ret, LG_SPOOL_HEADER, 0) == (ssize_t)LG_SPOOL_HEADER ? lg_spool_header_check(s->key, number, ret) : -EBADMSG;
    if (rc)
        close(fd);
    else
        *ret_fd = fd;
    return rc;
}

/* Which are ours and whole at their beginning. When none of several is, the key is the likelier reason. */
static int check_headers(struct lg_spool *s)
{
    uint8_t header[LG_SPOOL_HEADER];
    size_t good = 0;
    bool *bad = calloc(s->n + 1, sizeof *bad);
    int fd, rc = bad ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < s->n; i++) {
        int r = header_read(s, s->seg[i].number, &fd, header);
        bad[i] = r == -EBADMSG;
        good += r == 0;
        if (r == 0)
            close(fd);
        else if (r != -EBADMSG)
            rc = r;
    }
    if (!rc && s->n && !good) {
        bool all_short = true; /* a crash left nothing but the file */
        for (size_t i = 0; i < s->n; i++)
            all_short = all_short && s->seg[i].bytes < LG_SPOOL_HEADER;
        rc = all_short ? 0 : -EKEYREJECTED;
    }
    for (size_t i = s->n; !rc && i--;)
        if (bad[i]) {
            if (s->seg[i].bytes > LG_SPOOL_HEADER)
                say(s, LOG_ALERT, "the spool is damaged: segment %llu is set aside, what was in it is not sent", (unsigned long long)s->seg[i].number);
            rc = drop(s, i, s->seg[i].bytes > LG_SPOOL_HEADER);
        }
    free(bad);
    return rc;
}

/* ---- what was delivered ------------------------------------------------------------------------------------------------------------------------ */

static void delivered_read(const struct lg_spool *s, struct lg_spool_place *ret)
{
    uint8_t b[DELIVERED];
    int fd = openat(s->dir, "delivered", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = fd < 0 ? -1 : read(fd, b, sizeof b);
    if (fd >= 0)
        close(fd);
    struct lg_rd r = lg_rd(b, n == DELIVERED ? sizeof b : 0);
    struct lg_spool_place p = { 0, 0 };
    p.segment = lg_rd_u64(&r);
    p.offset = lg_rd_u64(&r);
    if (lg_rd_u32(&r) == lg_crc32c(0, b, 16) && lg_rd_done(&r) && p.segment < LG_SPOOL_SEGMENTS) /* else: sent again, which does no harm */
        *ret = p;
}

static int delivered_write(const struct lg_spool *s)
{
    uint8_t b[DELIVERED];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, s->first.segment);
    lg_wr_u64(&w, s->first.offset);
    lg_wr_u32(&w, lg_crc32c(0, b, 16));
    int fd = openat(s->dir, "delivered.new", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int rc = write(fd, b, sizeof b) == (ssize_t)sizeof b ? 0 : -EIO;
    close(fd);
    return rc ? rc : renameat(s->dir, "delivered.new", s->dir, "delivered") ? -errno : 0;
}

/* ---- life -------------------------------------------------------------------------------------------------------------------------------------- */

/* Takes back what was put after the position was saved, and finds what should be there and is not. */
static int hold_against(struct lg_spool *s, const struct lg_spool_note *n)
{
    char name[40];
    struct lg_spool_place expect = n->first;
    int rc = 0;
    while (!rc && s->n && s->seg[s->n - 1].number > n->end.segment)
        rc = drop(s, s->n - 1, false);
    struct segment *last = s->n && s->seg[s->n - 1].number == n->end.segment ? &s->seg[s->n - 1] : NULL;
    if (!rc && last && last->bytes > n->end.offset) {
        name_of(last->number, name);
        int fd = openat(s->dir, name, O_WRONLY | O_CLOEXEC | O_NOFOLLOW);
        rc = fd < 0 ? -errno : ftruncate(fd, (off_t)n->end.offset) ? -errno : 0;
        if (fd >= 0)
            close(fd);
        last->bytes = n->end.offset;
    }
    if (rc)
        return rc;
    if (lg_spool_place_cmp(&s->first, &expect) > 0)
        expect = s->first;
    uint64_t want = n->end.offset ? n->end.segment + 1 : n->end.segment, there = 0; /* segments from expect to the end that hold something */
    want = lg_spool_place_cmp(&expect, &n->end) < 0 && want > expect.segment ? want - expect.segment : 0;
    for (size_t i = 0; i < s->n; i++)
        there += s->seg[i].number >= expect.segment;
    if (there < want || (last && n->end.offset > last->bytes && lg_spool_place_cmp(&s->first, &n->end) < 0))
        say(s, LOG_ALERT, "the spool is not as it was left: messages that were not delivered are gone from it (the access log has them: audit export --dicom --from)");
    return 0;
}

int lg_spool_open(const struct lg_spool_options *o, struct lg_spool **ret)
{
    struct lg_spool *s = calloc(1, sizeof *s);
    if (!s)
        return -ENOMEM;
    s->out = s->in = -1;
    s->key = o->key;
    s->max = o->max;
    s->segment_max = o->max / 8 < SEGMENT_MAX ? o->max / 8 : SEGMENT_MAX;
    s->say = o->say;
    s->noted = o->note != NULL;
    s->arg = o->arg;
    int rc = o->max < LG_SPOOL_MIN ? -EINVAL : mkdir(o->dir, 0700) && errno != EEXIST ? -errno : 0;
    s->dir = rc ? -1 : open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && s->dir < 0)
        rc = -errno;
    if (!rc)
        rc = lg_siv_new(o->key, &s->siv);
    if (!rc)
        rc = list(s);
    if (!rc)
        rc = check_headers(s);
    if (!rc)
        delivered_read(s, &s->first);
    if (!rc && o->note)
        rc = hold_against(s, o->note);
    while (!rc && s->n && (s->seg[0].number < s->first.segment || (s->seg[0].number == s->first.segment && s->seg[0].bytes <= s->first.offset)))
        rc = drop(s, 0, false); /* a crash came between noting that they were delivered and removing them */
    if (rc) {
        lg_spool_close(s);
        return rc;
    }
    if (s->n && s->first.segment < s->seg[0].number)
        s->first = (struct lg_spool_place){ s->seg[0].number, LG_SPOOL_HEADER };
    uint64_t last = s->n ? s->seg[s->n - 1].number : 0, noted = o->note ? o->note->end.segment + (o->note->end.offset != 0) : 0;
    s->end = (struct lg_spool_place){ last + 1 > noted ? last + 1 : noted, 0 };
    if (s->end.segment <= s->first.segment)
        s->end.segment = s->first.segment + 1;
    if (!s->n)
        s->first = s->end;
    *ret = s;
    return 0;
}

void lg_spool_close(struct lg_spool *s)
{
    if (!s)
        return;
    if (s->out >= 0)
        close(s->out);
    if (s->in >= 0)
        close(s->in);
    if (s->dir >= 0)
        close(s->dir);
    lg_siv_free(s->siv);
    free(s->seg);
    free(s);
}

static uint64_t bytes(const struct lg_spool *s)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < s->n; i++)
        sum += s->seg[i].bytes;
    return sum;
}

void lg_spool_state(const struct lg_spool *s, struct lg_spool_state *ret) { *ret = (struct lg_spool_state){ bytes(s), s->max, lg_spool_place_cmp(&s->first, &s->end) >= 0 }; }

/* ---- writing ------------------------------------------------------------------------------------------------------------------------------------ */

static int segment_begin(struct lg_spool *s)
{
    char name[40];
    if (s->out >= 0) {
        int rc = fdatasync(s->out) ? -errno : 0;
        if (rc)
            return rc;
        close(s->out);
        s->out = -1;
        s->end = (struct lg_spool_place){ s->end.segment + 1, 0 };
    }
    if (s->end.segment >= LG_SPOOL_SEGMENTS) /* what is put there would not be found again */
        return -EOVERFLOW;
    name_of(s->end.segment, name);
    int rc = lg_spool_header_make(s->key, s->end.segment, s->out_header);
    if (rc)
        return rc;
    s->out = openat(s->dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (s->out < 0)
        return -errno;
    rc = pwrite(s->out, s->out_header, LG_SPOOL_HEADER, 0) == (ssize_t)LG_SPOOL_HEADER ? fsync(s->dir) ? -errno : add(s, s->end.segment, LG_SPOOL_HEADER) : errno ? -errno : -EIO;
    if (rc) {
        close(s->out);
        s->out = -1;
        unlinkat(s->dir, name, 0);
        return rc;
    }
    if (lg_spool_place_cmp(&s->first, &s->end) >= 0) /* nothing was left: what is to come is first */
        s->first = (struct lg_spool_place){ s->end.segment, LG_SPOOL_HEADER };
    s->end.offset = LG_SPOOL_HEADER;
    return 0;
}

int lg_spool_put(struct lg_spool *s, const void *data, size_t len)
{
    size_t n;
    if (len > LG_SPOOL_RECORD_MAX)
        return -E2BIG;
    if (bytes(s) + len + 4 + LG_SIV_TAG_LEN + LG_SPOOL_HEADER > s->max)
        return -ENOSPC;
    int rc = s->out < 0 || s->end.offset > s->segment_max ? segment_begin(s) : 0;
    if (!rc)
        rc = lg_spool_seal(s->siv, s->out_header, s->end.offset, data, len, s->buf, &n);
    if (rc)
        return rc == -EDQUOT ? -ENOSPC : rc;
    ssize_t done = pwrite(s->out, s->buf, n, (off_t)s->end.offset);
    if (done != (ssize_t)n) {
        rc = done < 0 ? -errno : -ENOSPC;
        (void)!ftruncate(s->out, (off_t)s->end.offset);
        return rc == -EDQUOT ? -ENOSPC : rc;
    }
    s->end.offset += n;
    s->seg[s->n - 1].bytes = s->end.offset;
    return 0;
}

int lg_spool_sync(struct lg_spool *s, struct lg_spool_note *ret)
{
    if (s->out >= 0 && fdatasync(s->out))
        return -errno;
    *ret = (struct lg_spool_note){ s->first, s->end };
    return 0;
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------------------- */

struct lg_spool_place lg_spool_first(const struct lg_spool *s) { return s->first; }

static int damaged(struct lg_spool *s, size_t i, struct lg_spool_place *at)
{
    say(s, LOG_ALERT, "the spool is damaged at byte %llu of segment %llu: what follows in that segment is not sent; it is set aside", (unsigned long long)at->offset,
        (unsigned long long)at->segment);
    uint64_t number = s->seg[i].number;
    int rc = drop(s, i, true);
    *at = (struct lg_spool_place){ number + 1, 0 };
    if (!rc && lg_spool_place_cmp(&s->first, at) < 0 && s->first.segment == number)
        s->first = *at;
    return rc;
}

int lg_spool_next(struct lg_spool *s, struct lg_spool_place *at, uint8_t *out, size_t *ret_len)
{
    for (;;) {
        size_t i = 0, taken;
        while (i < s->n && s->seg[i].number < at->segment)
            i++;
        if (i == s->n)
            return 0;
        if (s->seg[i].number > at->segment || at->offset < LG_SPOOL_HEADER)
            *at = (struct lg_spool_place){ s->seg[i].number, LG_SPOOL_HEADER };
        int rc = 0;
        if (s->in < 0 || s->in_number != at->segment) {
            if (s->in >= 0)
                close(s->in);
            s->in = -1;
            rc = header_read(s, at->segment, &s->in, s->in_header);
            s->in_number = at->segment;
        }
        bool last = s->out >= 0 && at->segment == s->end.segment;
        if (!rc && at->offset >= s->seg[i].bytes) {
            if (last || i + 1 == s->n)
                return 0;
            *at = (struct lg_spool_place){ s->seg[i + 1].number, LG_SPOOL_HEADER };
            continue;
        }
        ssize_t n = rc ? 0 : pread(s->in, s->buf, sizeof s->buf, (off_t)at->offset);
        if (n < 0)
            return -errno;
        if (!rc)
            rc = lg_spool_unseal(s->siv, s->in_header, at->offset, s->buf, (size_t)n, out, ret_len, &taken);
        if (!rc) {
            at->offset += taken;
            return 1;
        }
        if (rc == -EAGAIN && !s->noted) { /* torn by a crash: no position counts on it, so it is put again */
            say(s, LOG_WARNING, "an incomplete message at the end of segment %llu of the spool is cut off", (unsigned long long)at->segment);
            s->seg[i].bytes = at->offset;
            continue;
        }
        if (rc != -EBADMSG && rc != -EAGAIN)
            return rc;
        if ((rc = damaged(s, i, at)))
            return rc;
    }
}

int lg_spool_done(struct lg_spool *s, const struct lg_spool_place *upto)
{
    struct lg_spool_place at = *upto;
    if (lg_spool_place_cmp(&at, &s->first) <= 0)
        return 0;
    s->first = at;
    int rc = delivered_write(s); /* before anything is removed: what is gone counts as delivered */
    bool all = s->n && (at.segment > s->seg[s->n - 1].number || (at.segment == s->seg[s->n - 1].number && at.offset >= s->seg[s->n - 1].bytes));
    while (!rc && s->n && (all || s->seg[0].number < at.segment))
        rc = drop(s, 0, false);
    if (!rc && all)
        s->first = s->end;
    return rc;
}
