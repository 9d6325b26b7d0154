#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* Plaintext leaves the vault here, because somebody asked for it: under the directory that they named, readable by them alone. */

struct out {
    struct scrub *s;
    int dirfd, fd, lostfd;
    char name[LG_PLAIN_NAME_MAX + 8];
    uint64_t lost;
};

static const char warning[] = "Taken out of a damaged file by leadglass scrub --salvage. Each part that is there verified under the file's key, but nobody can tell whether\n"
                              "it is the latest: parts may be of an earlier state of the file. Bytes that are lost, and read as zeros (from, to):\n";

/* The directory for it: as in the vault, when its path is known. */
static int place(struct out *o, const uint8_t id[LG_ID_LEN])
{
    const char *path = o->s->path_known ? lg_text(&o->s->path) : "";
    char part[LG_PLAIN_NAME_MAX + 1];
    o->dirfd = open(o->s->o->salvage, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (const char *slash; o->dirfd >= 0 && (slash = strchr(path, '/')) != NULL; path = slash + 1) {
        size_t n = (size_t)(slash - path);
        if (n > LG_PLAIN_NAME_MAX || (n <= 2 && path[0] == '.'))
            return -EINVAL;
        memcpy(part, path, n);
        part[n] = 0;
        if (mkdirat(o->dirfd, part, 0700) && errno != EEXIST)
            return -errno;
        int sub = openat(o->dirfd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        close(o->dirfd);
        o->dirfd = sub;
    }
    if (o->dirfd < 0)
        return -errno;
    if (*path) {
        snprintf(o->name, sizeof o->name, "%s", path);
    } else {
        memcpy(o->name, "file-", 5);
        lg_hex_encode(id, LG_ID_LEN, o->name + 5);
    }
    o->fd = openat(o->dirfd, o->name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    return o->fd < 0 ? -errno : 0;
}

/* Recorded before anybody can read it. */
static int begin(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN])
{
    const struct lg_scrub_options *so = ((struct out *)arg)->s->o;
    return so->salvaging ? so->salvaging(so->arg, kid, key_version, file_id) : 0;
}

static int put(void *arg, uint64_t off, const void *data, size_t len)
{
    struct out *o = arg;
    int rc = lg_sys_write_full(&lg_sys_posix, o->fd, data, len, off);
    return rc ? rc : lg_scrub_read(o->s, len);
}

static int lost(void *arg, uint64_t from, uint64_t to)
{
    struct out *o = arg;
    char line[64];
    if (o->lostfd < 0) {
        char name[sizeof o->name + 8];
        snprintf(name, sizeof name, "%.248s.lost", o->name);
        o->lostfd = openat(o->dirfd, name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (o->lostfd < 0)
            return -errno;
        if (write(o->lostfd, warning, sizeof warning - 1) < 0)
            return -errno;
    }
    o->lost += to - from;
    int n = snprintf(line, sizeof line, "%llu %llu\n", (unsigned long long)from, (unsigned long long)to);
    return write(o->lostfd, line, (size_t)n) < 0 ? -errno : 0;
}

int lg_scrub_salvage(struct scrub *s, int fd, const uint8_t id[LG_ID_LEN])
{
    struct out o = { .s = s, .dirfd = -1, .fd = -1, .lostfd = -1 };
    struct lg_salvage_sink sink = { &o, begin, put, lost };
    struct lg_salvaged got;
    char text[160];
    int rc = place(&o, id);
    if (!rc)
        rc = lg_file_salvage(&s->env, fd, &sink, &got);
    if (!rc && ftruncate(o.fd, (off_t)got.size))
        rc = -errno;
    if (rc && o.fd >= 0)
        unlinkat(o.dirfd, o.name, 0);
    if (o.fd >= 0)
        close(o.fd);
    if (o.lostfd >= 0)
        close(o.lostfd);
    if (o.dirfd >= 0)
        close(o.dirfd);
    if (s->stopped)
        return rc;
    if (rc == -EBADMSG) {
        lg_scrub_find(s, LG_SCRUB_DAMAGE, "nothing of it can be salvaged: nothing in it verifies under a key that it leads to", id, 0, 0);
    } else if (rc) {
        snprintf(text, sizeof text, "could not be salvaged: %s", strerror(-rc));
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, text, id, 0, 0);
    } else {
        snprintf(text, sizeof text, "what verifies was written out, %llu bytes of %llu; it may be stale", (unsigned long long)got.good, (unsigned long long)got.size);
        lg_scrub_find(s, LG_SCRUB_REPAIRED, text, got.file_id, 0, 0);
    }
    return 0;
}
