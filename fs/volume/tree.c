#include <fcntl.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "internal.h"

/* What is made in a directory depends on that much of it; asked for once. */
static uint32_t dir_traits(const struct lg_place *p)
{
    uint32_t was = atomic_load(&p->dir->traits), t = was | LG_DIR_KNOWN;
    struct stat st;
    char path[32];
    if (was & LG_DIR_KNOWN)
        return was;
    bool known = fstat(p->fd, &st) == 0;
    lg_fd_path(p->fd, path); /* kept directories are O_PATH */
    if (known && st.st_mode & S_ISGID)
        t |= LG_DIR_SETGID;
    if (getxattr(path, "system.posix_acl_default", NULL, 0) > 0)
        t |= LG_DIR_ACL;
    if (known)
        atomic_compare_exchange_strong(&p->dir->traits, &was, t); /* not if it changed meanwhile */
    return t;
}

/* Owner of something created below: a set-gid directory gives its group. */
static int own(const struct lg_volume *v, int fd, const struct lg_place *p, const struct lg_cred *c)
{
    struct stat st;
    gid_t gid = dir_traits(p) & LG_DIR_SETGID ? (gid_t)-1 : c->gid;
    if (c->uid == v->uid && gid == v->gid)
        return 0;
    if (fstat(fd, &st) || fchownat(fd, "", c->uid, gid, AT_EMPTY_PATH))
        return -errno;
    if (st.st_mode & (S_ISUID | S_ISGID) && !S_ISDIR(st.st_mode)) { /* chown took these away */
        char path[32];
        lg_fd_path(fd, path);
        if (chmod(path, st.st_mode & 07777))
            return -errno;
    }
    return 0;
}

static int entry_of(struct lg_volume *v, struct lg_place *p, const char *name, struct lg_entry *ret)
{
    int rc = lg_node_at(v, p->dir, p->fd, p->lower, name, true, &p->entry, &ret->st);
    if (rc)
        return rc;
    ret->node = p->entry->id;
    lg_node_stat(v, p->entry, &ret->st);
    return 0;
}

int lg_volume_lookup(struct lg_volume *v, uint64_t parent, const char *name, struct lg_entry *ret)
{
    struct lg_place p;
    int rc = lg_ns_shared(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_SHARED, &p);
    if (!rc)
        rc = entry_of(v, &p, name, ret);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

/* ---- making ------------------------------------------------------------------------------------------------------------------------ */

void lg_tmp_name(char out[32])
{
    uint8_t r[8];
    if (lg_random(r, sizeof r))
        memset(r, 0, sizeof r);
    memcpy(out, LG_TMP_PREFIX, sizeof LG_TMP_PREFIX - 1);
    lg_hex_encode(r, sizeof r, out + sizeof LG_TMP_PREFIX - 1);
}

/* The umask counts only where no default ACL does. */
static mode_t masked(const struct lg_place *p, mode_t mode, const struct lg_cred *c) { return dir_traits(p) & LG_DIR_ACL ? mode : mode & ~c->umask; }

int lg_name_exists(int dirfd, const char *lower)
{
    struct stat st;
    return fstatat(dirfd, lower, &st, AT_SYMLINK_NOFOLLOW) == 0 ? -EEXIST : errno == ENOENT ? 0 : -errno;
}

/* Under a hidden name until it has its id: no crash leaves a directory without. */
static int mkdir_at(struct lg_volume *v, struct lg_place *p, mode_t mode, const struct lg_cred *c)
{
    char tmp[32];
    uint8_t id[LG_ID_LEN];
    lg_tmp_name(tmp);
    int rc = lg_name_exists(p->fd, p->lower);
    if (rc)
        return rc;
    if (mkdirat(p->fd, tmp, mode & 07777))
        return -errno;
    int fd = openat(p->fd, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    rc = fd < 0 ? -errno : lg_dirid_make(v, fd, id);
    if (!rc)
        rc = own(v, fd, p, c);
    if (!rc)
        rc = lg_sidecar_make(p->fd, p->sealed, p->lower);
    if (!rc && renameat2(p->fd, tmp, p->fd, p->lower, RENAME_NOREPLACE)) {
        rc = -errno;
        lg_sidecar_drop(p->fd, p->lower);
    }
    if (rc) {
        if (fd >= 0)
            unlinkat(fd, LG_DIRID_NAME, 0);
        unlinkat(p->fd, tmp, AT_REMOVEDIR);
    }
    if (fd >= 0)
        close(fd);
    return rc;
}

int lg_volume_mkdir(struct lg_volume *v, uint64_t parent, const char *name, mode_t mode, const struct lg_cred *c, struct lg_entry *ret)
{
    struct lg_place p;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = mkdir_at(v, &p, masked(&p, mode, c), c);
    if (!rc)
        rc = entry_of(v, &p, name, ret);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

/* Whatever make has created under p->lower is given its owner and looked up, or taken away again. */
static int made(struct lg_volume *v, struct lg_place *p, const char *name, const struct lg_cred *c, struct lg_entry *ret)
{
    int fd = openat(p->fd, p->lower, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    int rc = fd < 0 ? -errno : own(v, fd, p, c);
    if (fd >= 0)
        close(fd);
    if (!rc)
        rc = entry_of(v, p, name, ret);
    if (rc)
        unlinkat(p->fd, p->lower, 0);
    return rc;
}

int lg_volume_mknod(struct lg_volume *v, uint64_t parent, const char *name, mode_t mode, dev_t rdev, const struct lg_cred *c, struct lg_entry *ret)
{
    if (S_ISREG(mode) || !(mode & S_IFMT)) {
        struct lg_handle *h;
        int rc = lg_volume_create_file(v, parent, name, O_RDWR | O_EXCL, mode & 07777, c, ret, &h);
        if (rc)
            return rc;
        rc = lg_volume_flush(h);
        lg_volume_release(h);
        return rc;
    }
    struct lg_place p;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = lg_name_exists(p.fd, p.lower);
    if (!rc)
        rc = lg_sidecar_make(p.fd, p.sealed, p.lower);
    if (!rc && mknodat(p.fd, p.lower, masked(&p, mode, c), rdev))
        rc = -errno;
    else if (!rc)
        rc = made(v, &p, name, c, ret);
    if (rc && rc != -EEXIST && p.fd >= 0)
        lg_sidecar_drop(p.fd, p.lower);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

/* One whose text does not fit a link of the lower filesystem: whole before it gets its name. */
static int symlink_long(const struct lg_place *p, const char *text, size_t len)
{
    char head[LG_TARGET_LOWER_MAX + 1], tmp[32], path[32];
    memcpy(head, text, LG_TARGET_HEAD);
    memcpy(head + LG_TARGET_HEAD, LG_TARGET_MORE, sizeof LG_TARGET_MORE);
    lg_tmp_name(tmp);
    if (symlinkat(head, p->fd, tmp))
        return -errno;
    int fd = openat(p->fd, tmp, O_PATH | O_NOFOLLOW | O_CLOEXEC), rc = fd < 0 ? -errno : 0;
    if (!rc) {
        lg_fd_path(fd, path);
        if (setxattr(path, LG_TARGET_XATTR, text + LG_TARGET_HEAD, len - LG_TARGET_HEAD, XATTR_CREATE))
            rc = errno == EPERM || errno == EOPNOTSUPP ? -ENAMETOOLONG : -errno; /* only root may; not everywhere */
    }
    if (!rc && renameat2(p->fd, tmp, p->fd, p->lower, RENAME_NOREPLACE))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc)
        unlinkat(p->fd, tmp, 0);
    return rc;
}

int lg_volume_symlink(struct lg_volume *v, uint64_t parent, const char *name, const char *target, const struct lg_cred *c, struct lg_entry *ret)
{
    struct lg_place p;
    char text[LG_TARGET_SEALED_MAX + 1];
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = lg_target_seal(v->names, target, text, sizeof text);
    if (!rc)
        rc = lg_name_exists(p.fd, p.lower);
    if (!rc)
        rc = lg_sidecar_make(p.fd, p.sealed, p.lower);
    size_t len = rc ? 0 : strlen(text);
    if (!rc && len > LG_TARGET_LOWER_MAX)
        rc = symlink_long(&p, text, len);
    else if (!rc && symlinkat(text, p.fd, p.lower))
        rc = -errno;
    if (!rc)
        rc = made(v, &p, name, c, ret);
    if (rc && rc != -EEXIST && p.fd >= 0)
        lg_sidecar_drop(p.fd, p.lower);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

int lg_volume_readlink(struct lg_volume *v, uint64_t node, char *buf, size_t cap)
{
    char text[LG_TARGET_SEALED_MAX + 1];
    int rc = lg_ns_shared(v);
    if (rc)
        return lg_errno(rc);
    struct lg_node *n = lg_node_ref(v, node);
    int fd = n ? lg_node_open(v, n, O_PATH | O_NOFOLLOW) : -ESTALE;
    rc = fd < 0 ? fd : 0;
    if (!rc) {
        ssize_t len = lg_link_text(fd, text);
        rc = len < 0 ? (int)len : lg_target_open(v->names, text, (size_t)len, buf, cap);
        close(fd);
    }
    if (rc == -EBADMSG)
        rc = lg_volume_report(v, n, "symbolic link does not verify");
    lg_node_unref(v, n);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

int lg_volume_link(struct lg_volume *v, uint64_t node, uint64_t new_parent, const char *new_name, struct lg_entry *ret)
{
    struct lg_place p = { 0 };
    char path[32];
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    struct lg_node *n = lg_node_ref(v, node);
    int fd = n ? lg_node_open(v, n, O_PATH | O_NOFOLLOW) : -ESTALE;
    rc = fd < 0 ? fd : lg_place_get(v, new_parent, new_name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = lg_name_exists(p.fd, p.lower);
    if (!rc)
        rc = lg_sidecar_make(p.fd, p.sealed, p.lower);
    if (!rc) {
        lg_fd_path(fd, path);
        /* A nameless file of ours is reached through the descriptor that made it. */
        lg_node_lock(v, n);
        if (linkat(AT_FDCWD, path, p.fd, p.lower, AT_SYMLINK_FOLLOW)) {
            rc = -errno;
            lg_sidecar_drop(p.fd, p.lower);
        }
        atomic_store(&n->read_at, 0);
        lg_node_unlock(v, n);
    }
    if (!rc) {
        lg_sweep_moved(v, n);
        rc = entry_of(v, &p, new_name, ret);
    }
    lg_place_done(v, &p);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

/* ---- files come into being ------------------------------------------------------------------------------------------------------------ */

static int file_begin(struct lg_volume *v, const struct lg_place *p, int fd, int flags, const char *name, const struct lg_cred *c, struct lg_entry *ret,
                      struct lg_handle **ret_h)
{
    struct lg_node *n = NULL;
    struct lg_handle *h = calloc(1, sizeof *h);
    lg_noatime(fd);
    int rc = h ? own(v, fd, p, c) : -ENOMEM;
    if (!rc)
        rc = lg_node_of_fd(v, p->dir, fd, name, true, &n, &ret->st);
    if (rc) {
        free(h);
        close(fd);
        return rc;
    }
    char *path = v->env.path_rule ? lg_node_path(v, n->id) : NULL;
    struct lg_file *f;
    lg_node_lock(v, n);
    rc = lg_file_create(&v->env, fd, path, &f);
    if (!rc) { /* empty, but committed: a file nobody has closed yet opens after this process was killed (as SQLite's and PostgreSQL's do) */
        rc = lg_file_commit(f);
        if (rc)
            lg_file_free(f);
    }
    if (!rc) {
        lg_node_file_set(v, n, f);
        n->opens = 1;
        n->lacks = LG_LACKS_CAPABILITY | (ret->st.st_mode & (S_ISUID | S_ISGID) ? 0 : LG_LACKS_SETID);
        n->attrs_pending = false; /* a new inode becomes durable with all that it has */
        n->dirty_since = (uint32_t)time(NULL);
    }
    lg_node_unlock(v, n);
    free(path);
    ret->node = n->id;
    if (rc) {
        lg_volume_forget(v, n->id, 1);
        lg_node_unref(v, n);
        free(h);
        return rc;
    }
    lg_node_stat(v, n, &ret->st);
    *h = (struct lg_handle){ .v = v, .n = n, .flags = O_RDWR | (flags & O_NOATIME) };
    *ret_h = h;
    return 0;
}

int lg_volume_create_file(struct lg_volume *v, uint64_t parent, const char *name, int flags, mode_t mode, const struct lg_cred *c, struct lg_entry *ret,
                          struct lg_handle **ret_h)
{
    struct lg_place p;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = lg_sidecar_make(p.fd, p.sealed, p.lower);
    if (!rc) {
        mode = masked(&p, mode, c);
        int fd = openat(p.fd, p.lower, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode & 07777);
        if (fd < 0) {
            rc = -errno;
            if (rc != -EEXIST)
                lg_sidecar_drop(p.fd, p.lower);
        } else {
            rc = file_begin(v, &p, fd, flags, name, c, ret, ret_h);
            if (rc) {
                unlinkat(p.fd, p.lower, 0);
                lg_sidecar_drop(p.fd, p.lower);
            }
        }
    }
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    if (rc == -EEXIST && !(flags & O_EXCL)) { /* somebody was faster */
        rc = lg_volume_lookup(v, parent, name, ret);
        if (!rc && !S_ISREG(ret->st.st_mode)) {
            lg_volume_forget(v, ret->node, 1);
            return S_ISDIR(ret->st.st_mode) ? -EISDIR : -EEXIST;
        }
        if (!rc) {
            rc = lg_volume_open_file(v, ret->node, flags, ret_h);
            if (rc)
                lg_volume_forget(v, ret->node, 1);
        }
    }
    return lg_errno(rc);
}

int lg_volume_tmpfile(struct lg_volume *v, uint64_t parent, int flags, mode_t mode, const struct lg_cred *c, struct lg_entry *ret, struct lg_handle **ret_h)
{
    struct lg_place p;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_dir(v, parent, LG_HOLD_NONE, &p);
    if (!rc) {
        mode = masked(&p, mode, c);
        int fd = openat(p.fd, ".", O_RDWR | O_TMPFILE | O_CLOEXEC, mode & 07777);
        rc = fd < 0 ? -errno : file_begin(v, &p, fd, flags, "", c, ret, ret_h);
    }
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}
