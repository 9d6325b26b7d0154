/* How far a chain is written and signed, from the ends of its newest files. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "dir.h"

/* The last line that a newline ends, within the last cap bytes; NULL: none. */
static const char *last_line(int fd, char *buf, size_t cap, size_t *ret_len)
{
    struct stat st;
    if (fstat(fd, &st))
        return NULL;
    off_t from = st.st_size > (off_t)cap ? st.st_size - (off_t)cap : 0;
    ssize_t n = pread(fd, buf, cap, from);
    while (n > 0 && buf[n - 1] != '\n')
        n--;
    if (n <= 0)
        return NULL;
    const char *before = memrchr(buf, '\n', (size_t)n - 1);
    if (!before && from)
        return NULL;
    const char *s = before ? before + 1 : buf;
    *ret_len = (size_t)(buf + n - 1 - s);
    return s;
}

static int open_file(int dirfd, unsigned segment, enum lg_audit_file kind)
{
    char name[LG_AUDIT_FILE_NAME];
    lg_audit_file_name(segment, kind, name);
    return openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
}

int lg_audit_ends(const char *dir, const char *chain, struct lg_audit_ends *ret)
{
    enum { CAP = 2 * LG_AUDIT_LINE_MAX };
    char path[8192];
    unsigned *all = NULL;
    size_t n = 0, len;
    struct lg_audit_envelope e;
    struct lg_audit_head h;
    struct lg_audit_ends out = { .last = 0 };
    if (snprintf(path, sizeof path, "%s/%s", dir, chain) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int dirfd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    char *buf = malloc(CAP);
    int rc = buf ? lg_audit_segments(dirfd, &all, &n) : -ENOMEM;
    int fd = rc || !n ? -1 : open_file(dirfd, all[n - 1], LG_AUDIT_PLAIN);
    const char *s = fd < 0 ? NULL : last_line(fd, buf, CAP, &len);
    if (s && lg_audit_envelope(s, len, &e) == 0) {
        out.last = e.seq;
        out.last_us = e.time_us;
    }
    if (fd >= 0)
        close(fd);
    for (size_t i = rc ? 0 : n; i && !out.signed_seq; i--) { /* the newest segment may have none yet */
        fd = open_file(dirfd, all[i - 1], LG_AUDIT_HEADS);
        s = fd < 0 ? NULL : last_line(fd, buf, CAP, &len);
        if (s && lg_audit_head_parse(s, len, &h) == 0)
            out.signed_seq = h.seq;
        if (fd >= 0)
            close(fd);
    }
    free(buf);
    free(all);
    close(dirfd);
    if (!rc)
        *ret = out;
    return rc;
}
