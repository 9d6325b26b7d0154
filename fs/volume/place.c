/* Names, directory ids, and one directory with a name in it for a call. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

/* ---- names at hand --------------------------------------------------------------------------------------------------------------- */

static int names_get(struct lg_volume *v)
{
    struct lg_kref *k;
    struct lg_names *names;
    int rc = lg_keys_vault(v->opt.keys, &k);
    if (rc)
        return rc;
    rc = lg_names_new(k->key, &names);
    lg_kref_unref(k);
    if (rc)
        return rc;
    pthread_rwlock_wrlock(&v->ns);
    if (v->names)
        lg_names_free(names);
    else
        v->names = names;
    pthread_rwlock_unlock(&v->ns);
    return 0;
}

static int ns_lock(struct lg_volume *v, int (*lock)(pthread_rwlock_t *))
{
    for (;;) {
        lock(&v->ns);
        if (v->names)
            return 0;
        pthread_rwlock_unlock(&v->ns);
        int rc = names_get(v);
        if (rc)
            return rc;
    }
}

int lg_ns_shared(struct lg_volume *v) { return ns_lock(v, pthread_rwlock_rdlock); }
int lg_ns_change(struct lg_volume *v) { return v->opt.read_only ? -EROFS : lg_ns_shared(v); }
int lg_ns_exclusive(struct lg_volume *v) { return v->opt.read_only ? -EROFS : ns_lock(v, pthread_rwlock_wrlock); }
void lg_ns_unlock(struct lg_volume *v) { pthread_rwlock_unlock(&v->ns); }

int lg_volume_report(struct lg_volume *v, const struct lg_node *n, const char *kind)
{
    struct lg_finding f = { .kind = kind, .ino = n->ino };
    if (v->opt.finding)
        v->opt.finding(v->opt.arg, &f);
    return -EIO;
}

/* ---- directory ids ---------------------------------------------------------------------------------------------------------------- */

int lg_dir_empty(int dirfd)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    int rc = 0;
    if (!d) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    lg_noatime(fd);
    for (struct dirent *e; !rc && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && !lg_name_is_hidden(e->d_name))
            rc = -ENOTEMPTY;
    closedir(d);
    return rc;
}

int lg_dirid_make(struct lg_volume *v, int dirfd, uint8_t id[LG_ID_LEN])
{
    char text[LG_DIRID_TEXT_LEN + 1];
    int rc = lg_random(id, LG_ID_LEN);
    if (!rc)
        rc = lg_dirid_seal(v->names, id, text);
    if (!rc && symlinkat(text, dirfd, LG_DIRID_NAME))
        rc = -errno;
    return rc;
}

int lg_dirid_get(struct lg_volume *v, struct lg_node *dir, int dirfd, uint8_t ret[LG_ID_LEN])
{
    int rc = 0;
    if (atomic_load_explicit(&dir->id_known, memory_order_acquire)) {
        memcpy(ret, dir->dirid, LG_ID_LEN);
        return 0;
    }
    lg_node_lock(v, dir);
    if (!dir->id_known) {
        rc = lg_dirid_read(v->names, dirfd, dir->dirid);
        if (rc == -ENOENT) /* no id and no entries: a new, empty directory */
            rc = lg_dir_empty(dirfd) == 0 && !v->opt.read_only ? lg_dirid_make(v, dirfd, dir->dirid) : -EBADMSG;
        if (rc == -EBADMSG)
            rc = lg_volume_report(v, dir, "directory id is missing or does not verify");
        dir->id_known = !rc;
    }
    if (!rc)
        memcpy(ret, dir->dirid, LG_ID_LEN);
    lg_node_unlock(v, dir);
    return rc;
}

int lg_lower_name(struct lg_volume *v, struct lg_node *dir, int dirfd, const char *name, char sealed[LG_SEALED_NAME_MAX + 1],
                  char lower[LG_LOWER_NAME_MAX + 1])
{
    uint8_t id[LG_ID_LEN];
    int rc = strlen(name) > LG_NAME_MAX ? -ENAMETOOLONG : lg_dirid_get(v, dir, dirfd, id);
    if (!rc)
        rc = lg_name_seal(v->names, id, name, sealed);
    if (!rc)
        lg_name_lower(sealed, lower);
    return rc;
}

/* Before the name itself: left over, it harms nobody. */
int lg_sidecar_make(int dirfd, const char *sealed, const char *lower)
{
    char side[LG_LOWER_NAME_MAX + 1];
    if (!lg_name_is_long(lower))
        return 0;
    lg_sidecar_name(lower, side);
    return symlinkat(sealed, dirfd, side) && errno != EEXIST ? -errno : 0;
}

void lg_sidecar_drop(int dirfd, const char *lower)
{
    char side[LG_LOWER_NAME_MAX + 1];
    if (lg_name_is_long(lower)) {
        lg_sidecar_name(lower, side);
        unlinkat(dirfd, side, 0);
    }
}

int lg_fd_path(int fd, char out[32]) { return snprintf(out, 32, "/proc/self/fd/%d", fd); }

/* ---- one directory for a call ------------------------------------------------------------------------------------------------------ */

int lg_place_dir(struct lg_volume *v, uint64_t dir, enum lg_hold hold, struct lg_place *p)
{
    p->entry = NULL;
    p->hold = LG_HOLD_NONE;
    p->dir = lg_node_ref_dir(v, dir, &p->fd);
    if (p->fd < 0)
        return p->fd;
    if (hold == LG_HOLD_SHARED)
        pthread_rwlock_rdlock(p->dir->entries);
    else if (hold == LG_HOLD_CHANGE)
        pthread_rwlock_wrlock(p->dir->entries);
    p->hold = hold;
    return 0;
}

int lg_place_get(struct lg_volume *v, uint64_t dir, const char *name, enum lg_hold hold, struct lg_place *p)
{
    int rc = lg_place_dir(v, dir, hold, p);
    return rc ? rc : lg_lower_name(v, p->dir, p->fd, name, p->sealed, p->lower);
}

void lg_place_done(struct lg_volume *v, struct lg_place *p)
{
    if (!p->dir)
        return;
    if (p->hold != LG_HOLD_NONE)
        pthread_rwlock_unlock(p->dir->entries);
    lg_node_done(p->dir, p->fd);
    lg_node_unref2(v, p->entry, p->dir);
}
