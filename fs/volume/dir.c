#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

struct lg_dir {
    struct lg_volume *v;
    struct lg_node *n;
    pthread_mutex_t mu;
    DIR *d;
    uint64_t at; /* cookie of the next entry */
};

int lg_volume_opendir(struct lg_volume *v, uint64_t node, int flags, struct lg_dir **ret)
{
    struct lg_node *n = lg_node_ref(v, node);
    struct lg_dir *d = n ? calloc(1, sizeof *d) : NULL;
    int rc = !n ? -ESTALE : !d ? -ENOMEM : 0, fd = -1;
    if (!rc) {
        fd = (lg_reading_counts(v, flags) ? lg_node_open_read : lg_node_open)(v, n, O_RDONLY | O_DIRECTORY);
        rc = fd < 0 ? fd : 0;
    }
    if (!rc && !(d->d = fdopendir(fd))) {
        rc = -errno;
        close(fd);
    }
    if (rc) {
        free(d);
        lg_node_unref(v, n);
        return rc;
    }
    d->v = v;
    d->n = n;
    pthread_mutex_init(&d->mu, NULL);
    *ret = d;
    return 0;
}

static bool is_dots(const char *s) { return s[0] == '.' && (!s[1] || (s[1] == '.' && !s[2])); }

int lg_volume_readdir(struct lg_dir *d, uint64_t cookie, bool plus,
                      bool (*fill)(void *arg, const char *name, const struct lg_entry *e, uint64_t next_cookie), void *arg)
{
    struct lg_volume *v = d->v;
    uint8_t id[LG_ID_LEN];
    char name[LG_PLAIN_NAME_MAX + 1];
    int rc = lg_ns_shared(v);
    if (rc)
        return lg_errno(rc);
    pthread_rwlock_rdlock(d->n->entries);
    pthread_mutex_lock(&d->mu);
    int fd = dirfd(d->d);
    rc = lg_dirid_get(v, d->n, fd, id);
    if (!rc && cookie != d->at) {
        if (cookie)
            seekdir(d->d, (long)cookie);
        else
            rewinddir(d->d);
        d->at = cookie;
    } else if (!rc && !cookie) {
        rewinddir(d->d);
    }
    while (!rc) {
        errno = 0;
        struct dirent *e = readdir(d->d);
        if (!e) {
            rc = -errno;
            break;
        }
        uint64_t next = (uint64_t)telldir(d->d);
        struct lg_entry x = { .st = { .st_ino = e->d_ino, .st_mode = (mode_t)DTTOIF(e->d_type) } };
        struct lg_node *n = NULL;
        int skip = is_dots(e->d_name) ? (memcpy(name, e->d_name, strlen(e->d_name) + 1), 0)
                   : lg_name_is_hidden(e->d_name) ? -ENOENT : lg_name_read(v->names, fd, id, e->d_name, name);
        if (skip == -EBADMSG)
            lg_volume_report(v, d->n, "name does not verify");
        if (skip) {
            d->at = next;
            continue;
        }
        if (plus && !is_dots(name)) {
            skip = lg_node_at(v, d->n, fd, e->d_name, name, true, &n, &x.st);
            if (skip == -ENOENT) { /* gone meanwhile */
                d->at = next;
                continue;
            }
            if (skip) {
                rc = skip;
                break;
            }
            x.node = n->id;
            lg_node_stat(v, n, &x.st);
        }
        bool taken = fill(arg, name, &x, next);
        if (n) {
            if (!taken)
                lg_volume_forget(v, n->id, 1);
            lg_node_unref(v, n);
        }
        if (!taken) { /* comes again */
            seekdir(d->d, (long)d->at);
            if (!d->at)
                rewinddir(d->d);
            break;
        }
        d->at = next;
    }
    pthread_mutex_unlock(&d->mu);
    pthread_rwlock_unlock(d->n->entries);
    lg_ns_unlock(v);
    return lg_errno(rc);
}

int lg_volume_fsyncdir(struct lg_dir *d) { return d->v->env.sys->fsync(d->v->env.sys->arg, dirfd(d->d)); }

void lg_volume_releasedir(struct lg_dir *d)
{
    closedir(d->d);
    lg_node_unref(d->v, d->n);
    pthread_mutex_destroy(&d->mu);
    free(d);
}
