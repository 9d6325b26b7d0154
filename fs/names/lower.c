#include <fcntl.h>
#include <stdio.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "leadglass/names.h"

int lg_dirid_read(struct lg_names *n, int dirfd, uint8_t ret_id[LG_ID_LEN])
{
    char text[LG_DIRID_TEXT_LEN + 2];
    ssize_t len = readlinkat(dirfd, LG_DIRID_NAME, text, sizeof text);
    if (len < 0)
        return errno == EINVAL ? -EBADMSG : -errno; /* something else stands there */
    return lg_dirid_open(n, text, (size_t)len, ret_id);
}

void lg_sidecar_name(const char *lower, char out[LG_LOWER_NAME_MAX + 1]) { snprintf(out, LG_LOWER_NAME_MAX + 1, "%.200s" LG_LONG_SUFFIX, lower); }

int lg_sidecar_read(int dirfd, const char *lower, char sealed[LG_SEALED_NAME_MAX + 1])
{
    char side[LG_LOWER_NAME_MAX + 1], check[LG_LOWER_NAME_MAX + 1], text[LG_SEALED_NAME_MAX + 2];
    lg_sidecar_name(lower, side);
    ssize_t n = readlinkat(dirfd, side, text, sizeof text - 1);
    if (n < 0 || n > (ssize_t)LG_SEALED_NAME_MAX)
        return -EBADMSG;
    text[n] = 0;
    if (!lg_name_lower(text, check) || strcmp(check, lower) != 0)
        return -EBADMSG;
    memcpy(sealed, text, (size_t)n + 1);
    return 0;
}

int lg_name_read(struct lg_names *n, int dirfd, const uint8_t dirid[LG_ID_LEN], const char *lower, char out[LG_PLAIN_NAME_MAX + 1])
{
    char sealed[LG_SEALED_NAME_MAX + 1];
    if (!lg_name_is_long(lower))
        return lg_name_open(n, dirid, lower, out);
    int rc = lg_sidecar_read(dirfd, lower, sealed);
    return rc ? rc : lg_name_open(n, dirid, sealed, out);
}

ssize_t lg_link_text(int fd, char out[LG_TARGET_SEALED_MAX + 1])
{
    char path[32];
    ssize_t n = readlinkat(fd, "", out, LG_TARGET_LOWER_MAX + 1);
    if (n != (ssize_t)LG_TARGET_LOWER_MAX || memcmp(out + LG_TARGET_HEAD, LG_TARGET_MORE, sizeof LG_TARGET_MORE - 1) != 0)
        return n < 0 ? -errno : n;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    n = getxattr(path, LG_TARGET_XATTR, out + LG_TARGET_HEAD, LG_TARGET_SEALED_MAX - LG_TARGET_HEAD);
    return n >= 0 ? (ssize_t)LG_TARGET_HEAD + n : errno == ENODATA || errno == ERANGE ? -EBADMSG : -errno;
}
