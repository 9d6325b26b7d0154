#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/closer.h"

int lg_volume_getattr(struct lg_volume *v, uint64_t node, struct stat *ret)
{
    struct lg_node *n = lg_node_ref(v, node);
    if (!n)
        return -ESTALE;
    bool dir = S_ISDIR(n->type); /* its descriptor is mostly kept */
    int rc;
    for (uint64_t seen = atomic_load(&v->relinks), now;; seen = now) {
        int fd = dir ? lg_node_dirfd(v, n) : lg_node_open(v, n, O_PATH | O_NOFOLLOW);
        rc = fd < 0 ? fd : 0;
        if (!rc && fstat(fd, ret))
            rc = -errno;
        if (dir)
            lg_node_done(n, fd);
        else if (fd >= 0)
            close(fd);
        if (!rc)
            lg_node_stat(v, n, ret);
        now = atomic_load(&v->relinks);
        if (dir || (now == seen && !(now & 1)))
            break;
        pthread_rwlock_rdlock(&v->ns); /* until it is over */
        pthread_rwlock_unlock(&v->ns);
        now = atomic_load(&v->relinks);
    }
    lg_node_unref(v, n);
    return rc;
}

int lg_volume_birth(struct lg_volume *v, uint64_t node, struct timespec *ret)
{
    struct statx x;
    struct lg_node *n = lg_node_ref(v, node);
    int fd = n ? lg_node_open(v, n, O_PATH | O_NOFOLLOW) : -ESTALE, rc = fd < 0 ? fd : 0;
    if (!rc && statx(fd, "", AT_EMPTY_PATH, STATX_BTIME, &x))
        rc = -errno;
    else if (!rc && !(x.stx_mask & STATX_BTIME))
        rc = -EOPNOTSUPP;
    else if (!rc)
        *ret = (struct timespec){ x.stx_btime.tv_sec, x.stx_btime.tv_nsec };
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    return rc;
}

#define CAPABILITY "security.capability"

int lg_node_kill_privileges(struct lg_volume *v, struct lg_node *n, bool setid)
{
    uint8_t take = (setid ? LG_LACKS_CAPABILITY | LG_LACKS_SETID : LG_LACKS_CAPABILITY) & (uint8_t)~n->lacks;
    struct stat st;
    char path[32];
    int rc = 0;
    if (!take)
        return 0;
    int fd = lg_node_open(v, n, O_PATH | O_NOFOLLOW);
    if (fd < 0)
        return fd;
    lg_fd_path(fd, path);
    if (take & LG_LACKS_CAPABILITY)
        rc = removexattr(path, CAPABILITY) == 0 ? 1 : errno == ENODATA || errno == EOPNOTSUPP ? 0 : -errno;
    if (rc >= 0 && take & LG_LACKS_SETID) {
        if (fstat(fd, &st))
            rc = -errno;
        mode_t mode = rc < 0 ? 0 : st.st_mode & 07777 & ~(mode_t)S_ISUID;
        if (mode & S_IXGRP)
            mode &= ~(mode_t)S_ISGID;
        if (rc >= 0 && mode != (st.st_mode & 07777))
            rc = chmod(path, mode) ? -errno : 1;
    }
    close(fd);
    if (rc > 0)
        atomic_store(&n->attrs_pending, true);
    if (rc >= 0)
        n->lacks |= take;
    return rc;
}

static int set_size_locked(struct lg_volume *v, struct lg_node *n, uint64_t size)
{
    int rc = lg_node_file(v, n);
    if (!rc) {
        rc = lg_file_truncate(n->f, size);
        if (!rc && n->opens == 1)
            rc = lg_file_commit(n->f);
        else if (!rc && !n->dirty_since)
            n->dirty_since = (uint32_t)time(NULL);
        lg_node_file_done(v, n);
    }
    return rc;
}

static int set_times_locked(struct lg_node *n, int fd, const struct stat *st, unsigned set)
{
    struct timespec ts[2] = { { 0, UTIME_OMIT }, { 0, UTIME_OMIT } };
    if (set & LG_SET_ATIME)
        ts[0] = st->st_atim;
    if (set & LG_SET_MTIME)
        ts[1] = st->st_mtim;
    for (unsigned i = 0; i < 2; i++)
        if (ts[i].tv_nsec == UTIME_NOW)
            clock_gettime(CLOCK_REALTIME, &ts[i]);
    return n->f ? lg_file_utimens(n->f, ts) : utimensat(fd, "", ts, AT_EMPTY_PATH) ? -errno : 0;
}

int lg_volume_setattr(struct lg_volume *v, uint64_t node, const struct stat *st, unsigned set, struct stat *ret)
{
    char path[32];
    if (v->opt.read_only)
        return -EROFS;
    struct lg_node *n = lg_node_ref(v, node);
    if (!n)
        return -ESTALE;
    lg_node_lock(v, n); /* no re-encryption puts another inode in its place meanwhile */
    int fd = lg_node_open(v, n, O_PATH | O_NOFOLLOW), rc = fd < 0 ? fd : 0;
    if (!rc)
        lg_fd_path(fd, path);
    if (!rc && set & (LG_SET_UID | LG_SET_GID) &&
        fchownat(fd, "", set & LG_SET_UID ? st->st_uid : (uid_t)-1, set & LG_SET_GID ? st->st_gid : (gid_t)-1, AT_EMPTY_PATH))
        rc = -errno;
    if (set & LG_SET_MODE)
        n->lacks &= (uint8_t)~LG_LACKS_SETID;
    if (!rc && set & LG_SET_MODE && chmod(path, st->st_mode & 07777))
        rc = -errno;
    if (set & (LG_SET_MODE | LG_SET_UID | LG_SET_GID))
        lg_dir_changed(n);
    if (!rc && set & LG_SET_SIZE) {
        rc = lg_node_kill_privileges(v, n, set & LG_SET_KILL_SUIDGID);
        if (rc >= 0)
            rc = set_size_locked(v, n, (uint64_t)st->st_size);
    }
    if (!rc && set & (LG_SET_ATIME | LG_SET_MTIME))
        rc = set_times_locked(n, fd, st, set);
    if (set & ~LG_SET_SIZE)
        atomic_store(&n->attrs_pending, true);
    atomic_store(&n->read_at, 0);
    if (!rc && fstat(fd, ret))
        rc = -errno;
    lg_node_unlock(v, n);
    if (!rc)
        lg_node_stat(v, n, ret);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    return lg_errno(rc);
}

int lg_volume_statfs(struct lg_volume *v, struct statvfs *ret)
{
    (void)lg_close_wait(); /* what was removed counts as free */
    if (fstatvfs(v->rootfd, ret))
        return -errno;
    ret->f_namemax = LG_NAME_MAX;
    return 0;
}

/* ---- extended attributes ------------------------------------------------------------------------------------------------------------ */

static bool is_user(const char *name) { return strncmp(name, "user.", 5) == 0; }

/* ns is held shared afterwards for user.* names, whose lower name goes to lower; and n->mu for a change. */
static int xattr_begin(struct lg_volume *v, uint64_t node, const char *name, bool change, struct lg_node **ret_n, char path[32], int *ret_fd, char lower[256])
{
    int rc = 0;
    size_t len = strlen(name);
    *ret_n = NULL;
    *ret_fd = -1;
    if (len > 255)
        return -ERANGE;
    if (strcmp(name, LG_TARGET_XATTR) == 0 || strcmp(name, LG_XATTR_KEY) == 0 || strcmp(name, LG_XATTR_REKEY) == 0 || strcmp(name, LG_XATTR_REKEY_LINKS) == 0 ||
        strcmp(name, LG_XATTR_REAP) == 0)
        return -EOPNOTSUPP;
    if (is_user(name) && !name[5])
        return -EINVAL;
    if (is_user(name)) {
        rc = lg_ns_shared(v);
        if (rc)
            return rc;
        rc = lg_xattr_name_seal(v->names, name + 5, lower, 256);
        if (rc) {
            lg_ns_unlock(v);
            return rc == -ERANGE ? -ENAMETOOLONG : rc;
        }
    } else {
        memcpy(lower, name, len + 1);
    }
    *ret_n = lg_node_ref(v, node);
    if (*ret_n && change)
        lg_node_lock(v, *ret_n);
    *ret_fd = *ret_n ? lg_node_open(v, *ret_n, O_PATH | O_NOFOLLOW) : -ESTALE;
    if (*ret_fd < 0) {
        rc = *ret_fd;
        if (*ret_n && change)
            lg_node_unlock(v, *ret_n);
        lg_node_unref(v, *ret_n);
        if (is_user(name))
            lg_ns_unlock(v);
        return rc;
    }
    lg_fd_path(*ret_fd, path);
    return 0;
}

static void xattr_end(struct lg_volume *v, const char *name, bool change, struct lg_node *n, int fd)
{
    close(fd);
    if (change) {
        atomic_store(&n->attrs_pending, true);
        atomic_store(&n->read_at, 0);
        lg_node_unlock(v, n);
    }
    lg_node_unref(v, n);
    if (is_user(name))
        lg_ns_unlock(v);
}

static ssize_t key_text(struct lg_volume *v, uint64_t node, char *buf, size_t size)
{
    struct lg_claim c;
    char text[4 * LG_ID_LEN + 2 + 11], hex[2 * LG_ID_LEN + 1];
    int rc = lg_volume_claim(v, node, &c);
    if (rc)
        return rc;
    lg_hex_encode(c.kid, LG_ID_LEN, text);
    lg_hex_encode(c.file_id, LG_ID_LEN, hex);
    int n = 2 * (int)LG_ID_LEN;
    n += snprintf(text + n, sizeof text - (size_t)n, " %u %s", c.oldest, hex);
    if (size && size < (size_t)n)
        return -ERANGE;
    if (size)
        memcpy(buf, text, (size_t)n);
    return n;
}

/* Nothing, UID, or "UID act". */
static int rekey(struct lg_volume *v, uint64_t node, const char *value, size_t len)
{
    struct lg_study_info info = { 0 };
    uint8_t act[LG_ID_LEN];
    char hex[2 * LG_ID_LEN + 1] = "";
    struct lg_rekey how = { .to = &info };
    const char *space = memchr(value, ' ', len);
    size_t uid_len = space ? (size_t)(space - value) : len;
    if (!len)
        return lg_volume_rekey(v, node, NULL);
    if (!uid_len || uid_len > LG_UID_MAX || memchr(value, 0, len) || (space && len - uid_len - 1 != sizeof hex - 1))
        return -EINVAL;
    memcpy(info.uid, value, uid_len);
    if (space) {
        memcpy(hex, space + 1, sizeof hex - 1);
        if (lg_hex_decode(hex, act, LG_ID_LEN))
            return -EINVAL;
        how.act = act;
    }
    return lg_volume_rekey(v, node, &how);
}

/* "key name", of an entry of this directory. */
static int reap(struct lg_volume *v, uint64_t node, const char *value, size_t len)
{
    enum { HEX = 2 * LG_ID_LEN };
    char hex[HEX + 1] = "", name[LG_PLAIN_NAME_MAX + 1] = "";
    uint8_t kid[LG_ID_LEN];
    if (len < HEX + 2 || len - HEX - 1 >= sizeof name || value[HEX] != ' ' || memchr(value, 0, len))
        return -EINVAL;
    memcpy(hex, value, HEX);
    memcpy(name, value + HEX + 1, len - HEX - 1);
    if (lg_hex_decode(hex, kid, LG_ID_LEN) || strchr(name, '/'))
        return -EINVAL;
    return lg_volume_reap(v, node, name, kid);
}

ssize_t lg_volume_getxattr(struct lg_volume *v, uint64_t node, const char *name, void *buf, size_t size)
{
    struct lg_node *n;
    char path[32], lower[256];
    int fd;
    if (strcmp(name, LG_XATTR_KEY) == 0)
        return key_text(v, node, buf, size);
    bool capability = strcmp(name, CAPABILITY) == 0;
    if (capability && (n = lg_node_ref(v, node)) != NULL) { /* asked often */
        bool none = n->lacks & LG_LACKS_CAPABILITY;
        lg_node_unref(v, n);
        if (none)
            return -ENODATA;
    }
    int rc = xattr_begin(v, node, name, capability, &n, path, &fd, lower); /* what is said to be lacking stands still meanwhile */
    if (rc)
        return rc == -ENAMETOOLONG ? -ENODATA : lg_errno(rc);
    ssize_t got;
    if (!is_user(name)) {
        got = getxattr(path, lower, buf, size);
        if (got < 0)
            got = -errno;
        if (capability && got == -ENODATA)
            n->lacks |= LG_LACKS_CAPABILITY;
    } else {
        got = getxattr(path, lower, NULL, 0);
        if (got < 0) {
            got = -errno;
        } else if (got < (ssize_t)LG_XATTR_OVERHEAD) {
            got = lg_volume_report(v, n, "extended attribute does not verify");
        } else if (!size) {
            got -= LG_XATTR_OVERHEAD;
        } else if ((size_t)got - LG_XATTR_OVERHEAD > size) {
            got = -ERANGE;
        } else {
            uint8_t *raw = malloc((size_t)got);
            ssize_t len = raw ? getxattr(path, lower, raw, (size_t)got) : -1;
            rc = !raw ? -ENOMEM : len < 0 ? -errno : lg_xattr_open(v->names, name, raw, (size_t)len, buf);
            if (rc == -EBADMSG)
                rc = lg_volume_report(v, n, "extended attribute does not verify");
            got = rc ? rc : len - (ssize_t)LG_XATTR_OVERHEAD;
            free(raw);
        }
    }
    xattr_end(v, name, capability, n, fd);
    return got;
}

int lg_volume_setxattr(struct lg_volume *v, uint64_t node, const char *name, const void *value, size_t size, int flags)
{
    struct lg_node *n;
    char path[32], lower[256];
    int fd;
    if (v->opt.read_only)
        return -EROFS;
    if (size > 65536)
        return -E2BIG;
    if (strcmp(name, LG_XATTR_REKEY) == 0)
        return rekey(v, node, value, size);
    if (strcmp(name, LG_XATTR_REKEY_LINKS) == 0)
        return lg_volume_rekey_links(v, node, value, size);
    if (strcmp(name, LG_XATTR_REAP) == 0)
        return reap(v, node, value, size);
    int rc = xattr_begin(v, node, name, true, &n, path, &fd, lower);
    if (rc)
        return lg_errno(rc);
    if (strcmp(name, CAPABILITY) == 0) {
        n->lacks &= (uint8_t)~LG_LACKS_CAPABILITY;
        /* A write below takes it away: none may follow but those of later changes, before which the kernel does the same. */
        rc = n->f ? lg_file_place(n->f) : 0;
    }
    if (rc) {
        rc = lg_errno(rc);
    } else if (!is_user(name)) {
        rc = setxattr(path, lower, value, size, flags) ? -errno : 0;
        lg_dir_changed(n);
    } else {
        uint8_t *raw = malloc(size + LG_XATTR_OVERHEAD);
        rc = raw ? lg_xattr_seal(v->names, name, value, size, raw) : -ENOMEM;
        if (!rc && setxattr(path, lower, raw, size + LG_XATTR_OVERHEAD, flags))
            rc = -errno;
        free(raw);
    }
    xattr_end(v, name, true, n, fd);
    return rc;
}

int lg_volume_removexattr(struct lg_volume *v, uint64_t node, const char *name)
{
    struct lg_node *n;
    char path[32], lower[256];
    int fd;
    if (v->opt.read_only)
        return -EROFS;
    int rc = xattr_begin(v, node, name, true, &n, path, &fd, lower);
    if (rc)
        return rc == -ENAMETOOLONG ? -ENODATA : lg_errno(rc);
    rc = removexattr(path, lower) ? -errno : 0;
    lg_dir_changed(n);
    xattr_end(v, name, true, n, fd);
    return rc;
}

ssize_t lg_volume_listxattr(struct lg_volume *v, uint64_t node, bool trusted, char *buf, size_t size)
{
    enum { LIST_MAX = 65536 };
    char path[32];
    int rc = lg_ns_shared(v);
    if (rc)
        return lg_errno(rc);
    struct lg_node *n = lg_node_ref(v, node);
    char *raw = malloc(LIST_MAX);
    int fd = n ? lg_node_open(v, n, O_PATH | O_NOFOLLOW) : -ESTALE;
    ssize_t got = fd < 0 ? fd : raw ? 0 : -ENOMEM, out = 0;
    if (!got) {
        lg_fd_path(fd, path);
        got = listxattr(path, raw, LIST_MAX);
        if (got < 0)
            got = -errno;
    }
    for (ssize_t at = 0; at < got && out >= 0;) {
        char plain[256 + 5] = "user.";
        const char *name = raw + at;
        at += (ssize_t)strlen(name) + 1;
        if (strcmp(name, LG_TARGET_XATTR) == 0)
            continue;
        if (!trusted && strncmp(name, "trusted.", 8) == 0)
            continue;
        if (is_user(name)) {
            if (lg_xattr_name_open(v->names, name, plain + 5))
                continue; /* not ours: it was put there below */
            name = plain;
        }
        size_t len = strlen(name) + 1;
        if (size && (size_t)out + len > size)
            out = -ERANGE;
        else {
            if (size)
                memcpy(buf + out, name, len);
            out += (ssize_t)len;
        }
    }
    free(raw);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    lg_ns_unlock(v);
    return got < 0 ? got : out;
}
