#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

#define LOST "lost+found"

static void done(struct scrub *s, const char *what, const char *other)
{
    s->other = other;
    lg_scrub_find(s, LG_SCRUB_REPAIRED, what, NULL, 0, 0);
    s->other = NULL;
}

static void not_done(struct scrub *s, int rc)
{
    char text[128];
    snprintf(text, sizeof text, "could not be repaired: %s", strerror(-rc));
    lg_scrub_find(s, LG_SCRUB_UNREADABLE, text, NULL, 0, 0);
}

/* A directory of ours with nothing in it but its id. */
static int discard_dir(int dirfd, const char *lower)
{
    int fd = openat(dirfd, lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    struct lg_batch b = { 0 };
    if (fd < 0)
        return -errno;
    int rc = lg_batch_next(fd, NULL, &b);
    if (!rc && (b.n > 1 || (b.n == 1 && strcmp(b.text + b.at[0], LG_DIRID_NAME) != 0)))
        rc = -ENOTEMPTY;
    if (!rc && b.n && unlinkat(fd, LG_DIRID_NAME, 0))
        rc = -errno;
    lg_batch_free(&b);
    close(fd);
    return !rc && unlinkat(dirfd, lower, AT_REMOVEDIR) ? -errno : rc;
}

int lg_scrub_removed(struct scrub *s, int dirfd, const char *lower)
{
    char side[LG_LOWER_NAME_MAX + 1];
    int rc = unlinkat(dirfd, lower, 0) ? -errno : 0;
    if (rc == -EISDIR)
        rc = discard_dir(dirfd, lower);
    if (!rc && lg_name_is_long(lower)) {
        lg_sidecar_name(lower, side);
        unlinkat(dirfd, side, 0);
    }
    if (rc == -ENOENT)
        return 0;
    if (rc)
        not_done(s, rc);
    else
        done(s, "removed", NULL);
    return 0;
}

/* The directory in the root, with its id; made if it is not there. Its descriptor. */
static int lost_open(struct scrub *s, int rootfd, uint8_t ret_id[LG_ID_LEN])
{
    uint8_t root_id[LG_ID_LEN];
    char sealed[LG_SEALED_NAME_MAX + 1], text[LG_DIRID_TEXT_LEN + 1];
    static const char tmp[] = LG_TMP_PREFIX "lost+found";
    int rc = lg_dirid_read(s->names, rootfd, root_id);
    if (rc == -EBADMSG || rc == -ENOENT) { /* the root's own: what stands in it has lost its name already */
        lg_scrub_new_dirid(s, rootfd);
        rc = lg_dirid_read(s->names, rootfd, root_id);
    }
    if (!rc)
        rc = lg_name_seal(s->names, root_id, LOST, sealed);
    if (rc)
        return rc;
    int fd = openat(rootfd, sealed, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0 && errno == ENOENT) { /* as a mount makes one: it has its id before it has its name */
        rc = lg_random(ret_id, LG_ID_LEN);
        if (!rc)
            rc = lg_dirid_seal(s->names, ret_id, text);
        if (!rc && mkdirat(rootfd, tmp, 0700) && errno != EEXIST)
            rc = -errno;
        fd = rc ? -1 : openat(rootfd, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (!rc && (fd < 0 || (symlinkat(text, fd, LG_DIRID_NAME) && errno != EEXIST) || renameat2(rootfd, tmp, rootfd, sealed, RENAME_NOREPLACE)))
            rc = -errno;
    } else if (fd < 0) {
        rc = -errno;
    }
    if (!rc)
        rc = lg_dirid_read(s->names, fd, ret_id);
    if (rc && fd >= 0)
        close(fd);
    return rc ? rc : fd;
}

/* A name that tells what it is: the file's or directory's own id, else random. */
static int lost_name(struct scrub *s, int dirfd, const char *lower, unsigned attempt, char out[LG_PLAIN_NAME_MAX + 1])
{
    struct stat st;
    uint8_t id[LG_ID_LEN], head[LG_SECTOR];
    struct lg_s0 s0;
    char hex[2 * LG_ID_LEN + 1];
    int rc = fstatat(dirfd, lower, &st, AT_SYMLINK_NOFOLLOW) ? -errno : lg_random(id, sizeof id), fd;
    if (rc)
        return rc;
    const char *what = S_ISREG(st.st_mode) ? "file" : S_ISDIR(st.st_mode) ? "dir" : S_ISLNK(st.st_mode) ? "link" : "other";
    fd = S_ISREG(st.st_mode) || S_ISDIR(st.st_mode) ? openat(dirfd, lower, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd >= 0 && S_ISREG(st.st_mode) && lg_sys_read_full(s->sys, fd, head, sizeof head, 0) == (ssize_t)sizeof head && !lg_s0_decode(head, &s0))
        memcpy(id, s0.file_id, LG_ID_LEN);
    else if (fd >= 0 && S_ISDIR(st.st_mode))
        rc = lg_dirid_read(s->names, fd, id); /* whatever it is: a number */
    if (fd >= 0)
        close(fd);
    lg_hex_encode(id, LG_ID_LEN, hex);
    if (attempt)
        snprintf(out, LG_PLAIN_NAME_MAX + 1, "%s-%s-%u", what, hex, attempt);
    else
        snprintf(out, LG_PLAIN_NAME_MAX + 1, "%s-%s", what, hex);
    return 0;
}

int lg_scrub_to_lost(struct scrub *s, int dirfd, const char *lower)
{
    uint8_t id[LG_ID_LEN];
    char name[LG_PLAIN_NAME_MAX + 1], sealed[LG_SEALED_NAME_MAX + 1], side[LG_LOWER_NAME_MAX + 1], where[LG_PLAIN_NAME_MAX + 16];
    int lost = lost_open(s, lg_volume_rootfd(s->o->volume), id), rc = lost < 0 ? lost : 0;
    struct stat here, there;
    if (!rc && !fstat(lost, &there) && !fstatat(dirfd, lower, &here, AT_SYMLINK_NOFOLLOW) && here.st_ino == there.st_ino && here.st_dev == there.st_dev) {
        close(lost); /* itself, in a root that has a new id */
        return 0;
    }
    for (unsigned attempt = 0; !rc && attempt < 1000; attempt++) { /* the same id may stand there already */
        rc = lost_name(s, dirfd, lower, attempt, name);
        if (!rc)
            rc = lg_name_seal(s->names, id, name, sealed);
        if (!rc && renameat2(dirfd, lower, lost, sealed, RENAME_NOREPLACE) == 0)
            break;
        if (!rc && errno != EEXIST)
            rc = -errno;
    }
    if (lost >= 0)
        close(lost);
    if (!rc && lg_name_is_long(lower)) {
        lg_sidecar_name(lower, side);
        unlinkat(dirfd, side, 0);
    }
    snprintf(where, sizeof where, LOST "/%s", name);
    if (rc)
        not_done(s, rc);
    else
        done(s, "moved to lost+found", where);
    return 0;
}

void lg_scrub_new_dirid(struct scrub *s, int fd)
{
    uint8_t id[LG_ID_LEN];
    char text[LG_DIRID_TEXT_LEN + 1], tmp[] = LG_TMP_PREFIX "dirid";
    int rc = lg_random(id, LG_ID_LEN);
    if (!rc)
        rc = lg_dirid_seal(s->names, id, text);
    unlinkat(fd, tmp, 0);
    if (!rc && (symlinkat(text, fd, tmp) || renameat(fd, tmp, fd, LG_DIRID_NAME)))
        rc = -errno;
    if (rc)
        not_done(s, rc);
    else
        done(s, "given a new id", NULL);
}
