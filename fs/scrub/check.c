#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "internal.h"
#include "manifest.h"

enum { LIST_MAX = 65536, VALUE_MAX = 65536 };
#define XATTR_OURS "user.lg."
#define XATTR_PLAIN "user.lg.mtime" /* of re-encrypted files: not sealed */

static int file_pace(void *arg, size_t n) { return lg_scrub_read(arg, n); }

/* Without its key: what the header says of itself, by its checksums only. */
static void claimed(struct scrub *s, int fd, struct lg_item *it)
{
    uint8_t head[3 * LG_SECTOR];
    struct lg_s0 s0;
    struct lg_slot slot;
    if (lg_sys_read_full(s->sys, fd, head, sizeof head, 0) < (ssize_t)sizeof head || lg_s0_decode(head, &s0))
        return;
    memcpy(it->id, s0.file_id, LG_ID_LEN);
    for (unsigned i = 1; i <= 2; i++)
        if (!lg_slot_decode(head + i * LG_SECTOR, &slot) && slot.seq >= it->seq) {
            it->seq = slot.seq;
            it->size = slot.size;
            lg_slot_mac_bytes(head + i * LG_SECTOR, it->mac);
        }
}

int lg_scrub_file(struct scrub *s, int fd, struct lg_item *it)
{
    struct lg_file *f;
    struct lg_file_identity id;
    uint64_t bad = 0;
    s->n_reported = 0;
    s->cls = LG_SCRUB_RECOVERED; /* should it open in spite of a report */
    it->state = LG_ITEM_DAMAGED;
    int keep = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (keep < 0) {
        close(fd);
        return -errno;
    }
    int rc = lg_scrub_read(s, LG_HEADER_LEN);
    if (rc == -EKEYREVOKED)
        rc = 0; /* none of it is held yet */
    if (rc) {
        close(fd);
    } else {
        s->held_reports = true; /* what they mean is known only when it has opened, or not */
        rc = lg_file_open(&s->env, fd, lg_text(&s->path), &f);
        s->held_reports = false;
        s->cls = rc == -ENOKEY ? LG_SCRUB_NO_KEY : rc == -EKEYREVOKED ? LG_SCRUB_REVOKED : rc == -EPROTONOSUPPORT ? LG_SCRUB_UNREADABLE : rc ? LG_SCRUB_DAMAGE : LG_SCRUB_RECOVERED;
        lg_scrub_tell_held(s);
    }
    if (!rc) {
        s->cls = LG_SCRUB_DAMAGE;
        rc = lg_file_identity(f, &id);
        if (!rc)
            rc = lg_file_verify(f, file_pace, s, &bad);
        lg_file_free(f);
        if (!rc) {
            memcpy(it->id, id.file_id, LG_ID_LEN);
            memcpy(it->mac, id.mac, LG_MAC_LEN);
            it->seq = id.seq;
            it->size = id.size;
            it->state = bad ? LG_ITEM_DAMAGED : LG_ITEM_VERIFIED;
            s->st.verified += !bad;
        }
    }
    if (s->stopped) {
        close(keep);
        return rc;
    }
    if (rc == -ENOKEY || rc == -EKEYREVOKED) {
        claimed(s, keep, it);
        it->state = LG_ITEM_CLAIMED;
        if (!s->n_reported)
            lg_scrub_find(s, rc == -ENOKEY ? LG_SCRUB_NO_KEY : LG_SCRUB_REVOKED, rc == -ENOKEY ? "its key is not to be had" : "its key was revoked", it->id, 0, 0);
        if (rc == -ENOKEY && lg_scrub_locked(s)) {
            close(keep);
            return -ENOKEY;
        }
    } else if (rc == -EBADMSG || rc == -EPROTONOSUPPORT) {
        claimed(s, keep, it);
    } else if (rc) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), NULL, 0, 0);
    }
    if (it->state == LG_ITEM_DAMAGED && s->o->salvage)
        rc = lg_scrub_salvage(s, keep, it->id);
    else
        rc = 0;
    close(keep);
    return rc;
}

int lg_scrub_link(struct scrub *s, int dirfd, const char *lower, struct lg_item *it)
{
    char text[LG_TARGET_SEALED_MAX + 1], target[4096];
    int fd = openat(dirfd, lower, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(errno), NULL, 0, 0);
        return 0;
    }
    ssize_t n = lg_link_text(fd, text);
    int rc = n < 0 ? (int)n : lg_target_open(s->names, text, (size_t)n, target, sizeof target);
    close(fd);
    it->state = rc ? LG_ITEM_DAMAGED : LG_ITEM_VERIFIED;
    if (rc == -EBADMSG) {
        lg_scrub_find(s, LG_SCRUB_DAMAGE, "symbolic link does not verify", NULL, 0, 0);
        return s->o->remove ? lg_scrub_removed(s, dirfd, lower) : 0;
    }
    if (rc) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), NULL, 0, 0);
        return 0;
    }
    return lg_sha256(text, (size_t)n, it->mac);
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

/* One attribute of ours. Adds it to the hash. */
static int xattr_one(struct scrub *s, const char *path, const char *lower, uint8_t *value, uint8_t *plain, struct lg_item *it)
{
    char name[256 + 5] = "user.";
    ssize_t n = getxattr(path, lower, value, VALUE_MAX);
    if (n < 0 && errno == ENODATA)
        return 0;
    int rc = n < 0 ? -errno : lg_xattr_name_open(s->names, lower, name + 5);
    if (!rc)
        rc = lg_xattr_open(s->names, name, value, (size_t)n, plain);
    if (rc == -EBADMSG) {
        lg_scrub_find(s, LG_SCRUB_DAMAGE, "extended attribute does not verify", NULL, 0, 0);
        if (s->o->remove && removexattr(path, lower) == 0)
            lg_scrub_find(s, LG_SCRUB_REPAIRED, "removed the extended attribute", NULL, 0, 0);
        return 0;
    }
    if (rc) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), NULL, 0, 0);
        return 0;
    }
    uint8_t h[LG_MAC_LEN], both[2 * LG_MAC_LEN];
    memcpy(both, it->xattrs, LG_MAC_LEN);
    rc = lg_sha256_2(lower, strlen(lower) + 1, value, (size_t)n, h);
    if (!rc)
        rc = lg_sha256_2(both, LG_MAC_LEN, h, sizeof h, it->xattrs);
    return rc;
}

int lg_scrub_xattrs(struct scrub *s, int fd, struct lg_item *it)
{
    enum { N_MAX = 4096 };
    char path[32], *list = NULL;
    const char **name = NULL;
    uint8_t *value = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t len = listxattr(path, NULL, 0);
    if (len <= 0) /* none, or none can be */
        return 0;
    list = malloc(LIST_MAX);
    name = malloc(N_MAX * sizeof(const char *));
    value = malloc(2 * VALUE_MAX);
    int rc = list && name && value ? 0 : -ENOMEM;
    if (!rc)
        len = listxattr(path, list, LIST_MAX);
    for (ssize_t at = 0; !rc && at < len; at += (ssize_t)strlen(list + at) + 1)
        if (strncmp(list + at, XATTR_OURS, sizeof XATTR_OURS - 1) == 0 && strcmp(list + at, XATTR_PLAIN) != 0 && n < N_MAX)
            name[n++] = list + at;
    if (!rc)
        qsort(name, n, sizeof(const char *), by_text);
    for (size_t i = 0; !rc && i < n; i++)
        rc = xattr_one(s, path, name[i], value, value + VALUE_MAX, it);
    free(list);
    free(name);
    free(value);
    return rc;
}
