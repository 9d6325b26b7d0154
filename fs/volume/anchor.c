/* The vault's anchor: bytes of the key manager's that are kept here and shown to it again. docs/FORMAT.md, "The anchor". */
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

#define ANCHOR_NAME "leadglass.anchor"
#define ANCHOR_NEW "leadglass.anchor.new"

int lg_vault_anchor_read(const char *dir, uint8_t ret[LG_VAULT_ANCHOR_MAX], size_t *ret_len)
{
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = dirfd < 0 ? -errno : 0;
    int fd = rc ? -1 : openat(dirfd, ANCHOR_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (!rc && fd < 0 && errno != ENOENT)
        rc = -errno;
    struct stat st;
    ssize_t n = 0;
    if (rc == -ELOOP || (!rc && fd >= 0 && !fstat(fd, &st) && !S_ISREG(st.st_mode))) { /* something else in its place: no anchor of anybody's */
        rc = 0;
        n = 1;
        ret[0] = 0;
    } else if (fd >= 0 && (n = lg_sys_read_full(&lg_sys_posix, fd, ret, LG_VAULT_ANCHOR_MAX, 0)) < 0) {
        rc = (int)n;
    }
    if (fd >= 0)
        close(fd);
    if (dirfd >= 0)
        close(dirfd);
    if (!rc)
        *ret_len = (size_t)n;
    return rc;
}

/* The old one or the new one is there at any moment. */
int lg_volume_anchor(struct lg_volume *v, const uint8_t *anchor, size_t len)
{
    if (v->opt.read_only)
        return -EROFS;
    if (unlinkat(v->dirfd, ANCHOR_NEW, 0) && errno != ENOENT) /* what a crash left */
        return -errno;
    int fd = openat(v->dirfd, ANCHOR_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    int rc = lg_sys_write_full(&lg_sys_posix, fd, anchor, len, 0);
    if (!rc && fsync(fd))
        rc = -errno;
    if (close(fd) && !rc)
        rc = -errno;
    if (!rc && renameat(v->dirfd, ANCHOR_NEW, v->dirfd, ANCHOR_NAME))
        rc = -errno;
    if (rc)
        (void)unlinkat(v->dirfd, ANCHOR_NEW, 0);
    else if (fsync(v->dirfd))
        rc = -errno;
    return rc;
}
