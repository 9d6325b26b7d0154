#include "dir.h"

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leadglass/bytes.h"
#include "pack.h"
#include "text.h"

void lg_audit_file_name(unsigned segment, enum lg_audit_file kind, char out[LG_AUDIT_FILE_NAME])
{
    static const char *const ends[] = { ".jsonl", ".jsonl.zst", ".heads" };
    snprintf(out, LG_AUDIT_FILE_NAME, "%08u%s", segment % 100000000u, ends[kind]);
}

static int ascending(const void *a, const void *b)
{
    unsigned x = *(const unsigned *)a, y = *(const unsigned *)b;
    return (x > y) - (x < y);
}

/* 0: not the name of a segment. */
static unsigned number_of(const char *name)
{
    unsigned n = 0;
    if (strspn(name, "0123456789") != 8 || (strcmp(name + 8, ".jsonl") != 0 && strcmp(name + 8, ".jsonl.zst") != 0))
        return 0;
    for (unsigned i = 0; i < 8; i++)
        n = n * 10 + (unsigned)(name[i] - '0');
    return n;
}

static DIR *open_dir(int dirfd)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d && fd >= 0)
        close(fd);
    return d;
}

int lg_audit_segments(int dirfd, unsigned **ret, size_t *ret_n)
{
    DIR *d = open_dir(dirfd);
    unsigned *all = NULL;
    size_t n = 0, cap = 0, kept = 0;
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));) {
        unsigned number = number_of(e->d_name);
        if (!number)
            continue;
        if (n == cap) {
            unsigned *more = reallocarray(all, cap = cap ? 2 * cap : 64, sizeof *all);
            if (!more) {
                free(all);
                closedir(d);
                return -ENOMEM;
            }
            all = more;
        }
        all[n++] = number;
    }
    closedir(d);
    if (n)
        qsort(all, n, sizeof *all, ascending);
    for (size_t i = 0; i < n; i++) /* one may be there both ways, while it is being compressed */
        if (!kept || all[kept - 1] != all[i])
            all[kept++] = all[i];
    *ret = all;
    *ret_n = kept;
    return 0;
}

int lg_audit_chain_read(int dirfd, struct lg_audit_chain *ret)
{
    char buf[512];
    struct lg_audit_chain c = { .name = "" };
    int fd = openat(dirfd, LG_AUDIT_CHAIN_FILE, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t n = read(fd, buf, sizeof buf);
    close(fd);
    if (n < 0)
        return -errno;
    struct lg_scan s = { buf, buf + n, false };
    lg_scan_need(&s, "{\"v\":1,\"chain\":");
    lg_scan_hex(&s, c.id, LG_ID_LEN);
    lg_scan_need(&s, ",\"kind\":");
    lg_scan_string(&s, c.kind, sizeof c.kind);
    lg_scan_need(&s, "}\n");
    if (s.bad || s.p != s.end)
        return -EPROTO;
    memcpy(ret->id, c.id, LG_ID_LEN);
    memcpy(ret->kind, c.kind, sizeof ret->kind);
    return 0;
}

int lg_audit_chain_write(int dirfd, const struct lg_audit_chain *c)
{
    char buf[512], id[2 * LG_ID_LEN + 1];
    lg_hex_encode(c->id, LG_ID_LEN, id);
    int n = snprintf(buf, sizeof buf, "{\"v\":1,\"chain\":\"%s\",\"kind\":\"%s\"}\n", id, c->kind);
    int fd = openat(dirfd, LG_AUDIT_CHAIN_FILE ".tmp", O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int rc = write(fd, buf, (size_t)n) != n || fsync(fd) ? -EIO : 0;
    close(fd);
    if (!rc && renameat(dirfd, LG_AUDIT_CHAIN_FILE ".tmp", dirfd, LG_AUDIT_CHAIN_FILE))
        rc = -errno;
    if (!rc && fsync(dirfd))
        rc = -errno;
    return rc;
}

int lg_audit_chains(const char *dir, struct lg_audit_chain *ret, unsigned max, unsigned *ret_n)
{
    DIR *d = opendir(dir);
    unsigned n = 0;
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));) {
        struct lg_audit_chain c = { .name = "" };
        if (e->d_name[0] == '.' || strlen(e->d_name) >= sizeof c.name)
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue;
        snprintf(c.name, sizeof c.name, "%.63s", e->d_name);
        if (lg_audit_chain_read(fd, &c) == 0 && n++ < max)
            ret[n - 1] = c;
        close(fd);
    }
    closedir(d);
    *ret_n = n;
    return 0;
}

/* ---- lines ------------------------------------------------------------------------------------------------------------------ */

struct lines {
    char *rest; /* begun, not ended */
    size_t len, cap;
    int (*line)(void *arg, const char *s, size_t len, bool cut);
    void *arg;
};

static int keep(struct lines *l, const char *s, size_t n)
{
    if (l->len + n > l->cap) {
        size_t cap = 2 * (l->len + n);
        char *p = realloc(l->rest, cap);
        if (!p)
            return -ENOMEM;
        l->rest = p;
        l->cap = cap;
    }
    if (n)
        memcpy(l->rest + l->len, s, n);
    l->len += n;
    return 0;
}

static int split(void *arg, const char *s, size_t n)
{
    struct lines *l = arg;
    int rc = 0;
    while (!rc && n) {
        const char *nl = memchr(s, '\n', n);
        size_t k = nl ? (size_t)(nl - s) : n;
        if (l->len || !nl) { /* longer than any line: cut, so that memory stays bounded */
            rc = keep(l, s, l->len + k > 2 * LG_AUDIT_LINE_MAX ? (l->len < 2 * LG_AUDIT_LINE_MAX ? 2 * LG_AUDIT_LINE_MAX - l->len : 0) : k);
            if (!rc && nl) {
                rc = l->line(l->arg, l->rest, l->len, false);
                l->len = 0;
            }
        } else {
            rc = l->line(l->arg, s, k, false);
        }
        s += k + (nl != NULL);
        n -= k + (nl != NULL);
    }
    return rc;
}

int lg_audit_lines(int fd, bool packed, int (*line)(void *arg, const char *s, size_t len, bool cut), void *arg)
{
    struct lines l = { .line = line, .arg = arg };
    int rc = 0;
    if (packed) {
        rc = lg_unpack(fd, LG_AUDIT_SEGMENT_MAX, split, &l);
    } else {
        enum { PIECE = 256 * 1024 };
        char *buf = malloc(PIECE);
        ssize_t n = buf ? 1 : 0;
        rc = buf ? 0 : -ENOMEM;
        while (!rc && n > 0) {
            n = read(fd, buf, PIECE);
            if (n < 0)
                rc = errno == EINTR ? (int)(n = 1) - 1 : -errno;
            else if (n)
                rc = split(&l, buf, (size_t)n);
        }
        free(buf);
    }
    if (!rc && l.len)
        rc = line(arg, l.rest, l.len, true);
    free(l.rest);
    return rc;
}

/* ---- a chain ------------------------------------------------------------------------------------------------------------------ */

static int open_chain(const char *dir, const char *chain)
{
    char path[8192];
    if (snprintf(path, sizeof path, "%s/%s", dir, chain) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return fd < 0 ? -errno : fd;
}

/* Compressed meanwhile: the other name. *ret_packed tells which it is. */
static int open_segment(int dirfd, unsigned segment, bool *ret_packed)
{
    char name[LG_AUDIT_FILE_NAME];
    for (unsigned i = 0; i < 3; i++) {
        *ret_packed = i == 1;
        lg_audit_file_name(segment, *ret_packed ? LG_AUDIT_PACKED : LG_AUDIT_PLAIN, name);
        int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd >= 0 || errno != ENOENT)
            return fd < 0 ? -errno : fd;
    }
    return -ENOENT;
}

int lg_audit_current(const char *dir, const char *chain, char *out, size_t cap)
{
    unsigned *all = NULL;
    size_t n = 0;
    char name[LG_AUDIT_FILE_NAME];
    int dirfd = open_chain(dir, chain);
    if (dirfd < 0)
        return dirfd;
    int rc = lg_audit_segments(dirfd, &all, &n);
    if (!rc && !n)
        rc = -ENOENT;
    if (!rc) {
        lg_audit_file_name(all[n - 1], LG_AUDIT_PLAIN, name);
        if (faccessat(dirfd, name, F_OK, 0))
            lg_audit_file_name(all[n - 1], LG_AUDIT_PACKED, name);
        rc = snprintf(out, cap, "%s/%s/%s", dir, chain, name) >= (int)cap ? -ENAMETOOLONG : 0;
    }
    free(all);
    close(dirfd);
    return rc;
}

struct reading {
    unsigned segment;
    int (*line)(void *arg, unsigned segment, const char *s, size_t len, bool cut);
    int (*head)(void *arg, const char *s, size_t len);
    void *arg;
};

static int on_line(void *arg, const char *s, size_t len, bool cut)
{
    const struct reading *r = arg;
    return r->line(r->arg, r->segment, s, len, cut);
}

int lg_audit_read(const char *dir, const char *chain, unsigned from_segment, int (*line)(void *arg, unsigned segment, const char *s, size_t len, bool cut), void *arg)
{
    struct reading r = { .line = line, .arg = arg };
    unsigned *all = NULL;
    size_t n = 0;
    int dirfd = open_chain(dir, chain);
    if (dirfd < 0)
        return dirfd;
    int rc = lg_audit_segments(dirfd, &all, &n);
    for (size_t i = 0; !rc && i < n; i++) {
        bool packed;
        if (all[i] < from_segment)
            continue;
        r.segment = all[i];
        int fd = open_segment(dirfd, all[i], &packed);
        if (fd < 0) {
            rc = fd == -ENOENT ? 0 : fd; /* retention took it away just now */
            continue;
        }
        rc = lg_audit_lines(fd, packed, on_line, &r);
        close(fd);
    }
    free(all);
    close(dirfd);
    return rc;
}

static int on_head(void *arg, const char *s, size_t len, bool cut)
{
    const struct reading *r = arg;
    return cut ? 0 : r->head(r->arg, s, len); /* being written */
}

int lg_audit_read_heads(const char *dir, const char *chain, int (*line)(void *arg, const char *s, size_t len), void *arg)
{
    struct reading r = { .head = line, .arg = arg };
    unsigned *all = NULL;
    size_t n = 0;
    char name[LG_AUDIT_FILE_NAME];
    int dirfd = open_chain(dir, chain);
    if (dirfd < 0)
        return dirfd;
    int rc = lg_audit_segments(dirfd, &all, &n);
    for (size_t i = 0; !rc && i < n; i++) {
        lg_audit_file_name(all[i], LG_AUDIT_HEADS, name);
        int fd = openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            continue; /* none was signed in that segment */
        rc = lg_audit_lines(fd, false, on_head, &r);
        close(fd);
    }
    free(all);
    close(dirfd);
    return rc;
}

/* ---- verifying ------------------------------------------------------------------------------------------------------------------ */

struct verifying {
    struct lg_audit_verifier *v;
    size_t rest;
};

static int feed_head(void *arg, const char *s, size_t len) { return lg_audit_verifier_head(((struct verifying *)arg)->v, s, len); }

static int feed_line(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    struct verifying *y = arg;
    int rc = y->rest ? lg_audit_verifier_line(y->v, segment, "", 0) : 0; /* an earlier segment ended within a line */
    y->rest = cut ? len : 0;
    return rc || cut ? rc : lg_audit_verifier_line(y->v, segment, s, len);
}

int lg_audit_verify(const char *dir, const struct lg_audit_chain *c, const uint8_t *pub, const struct lg_audit_head *against, size_t n, struct lg_audit_report *ret)
{
    struct verifying y = { .rest = 0 };
    int rc = lg_audit_verifier_new(c->id, pub, &y.v);
    for (size_t i = 0; !rc && i < n; i++)
        rc = lg_audit_verifier_against(y.v, &against[i]);
    if (!rc) /* heads first: what they name is in the log already, however live it is */
        rc = lg_audit_read_heads(dir, c->name, feed_head, &y);
    if (!rc)
        rc = lg_audit_read(dir, c->name, 0, feed_line, &y);
    if (rc == -EBADMSG || rc == -EIO) {
        lg_audit_verifier_unreadable(y.v, 0);
        rc = 0;
    }
    if (!rc)
        lg_audit_verifier_end(y.v, y.rest, ret);
    lg_audit_verifier_free(y.v);
    return rc;
}

void lg_audit_write_pub(const char *dir, const uint8_t pub[LG_SIGN_PUB_LEN])
{
    static const uint8_t none[LG_SIGN_PUB_LEN];
    char path[PATH_MAX + 16], tmp[PATH_MAX + 32], hex[2 * LG_SIGN_PUB_LEN + 2];
    snprintf(path, sizeof path, "%s/key.pub", dir);
    snprintf(tmp, sizeof tmp, "%s.%d", path, (int)getpid());
    lg_hex_encode(pub, LG_SIGN_PUB_LEN, hex);
    hex[2 * LG_SIGN_PUB_LEN] = '\n';
    if (memcmp(pub, none, sizeof none) == 0 || access(path, F_OK) == 0)
        return;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0644);
    if (fd < 0)
        return;
    bool whole = write(fd, hex, 2 * LG_SIGN_PUB_LEN + 1) == 2 * LG_SIGN_PUB_LEN + 1 && fsync(fd) == 0; /* half a key would never be put right */
    close(fd);
    if (!whole || renameat2(AT_FDCWD, tmp, AT_FDCWD, path, RENAME_NOREPLACE))
        (void)unlink(tmp);
}
