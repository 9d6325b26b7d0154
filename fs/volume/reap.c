/* Names of files whose key is destroyed. */
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"

/* Takes the name away if the file that stands there is under that key. In memory it may be another study's already: truncated, and being written anew; so its lock is held
 * until the name is gone. The directory is held. */
static int take_away(struct lg_volume *v, struct lg_place *p, const char *name, const uint8_t kid[LG_ID_LEN])
{
    struct lg_node *n;
    struct stat st;
    struct lg_claim c;
    uint8_t now[LG_ID_LEN];
    uint32_t version;
    int rc = lg_node_at(v, p->dir, p->fd, p->lower, name, false, &n, &st), fd;
    if (rc)
        return rc;
    lg_node_lock(v, n);
    fd = S_ISREG(n->type) ? lg_node_open(v, n, O_RDONLY | O_NOFOLLOW) : -ESTALE;
    rc = fd < 0 ? fd : lg_file_claim(v->env.sys, fd, &c);
    if (rc == -EBADMSG || (!rc && memcmp(c.kid, kid, LG_ID_LEN) != 0))
        rc = -ESTALE;
    if (!rc && n->f && (!lg_file_kid(n->f, now, &version) || memcmp(now, kid, LG_ID_LEN) != 0))
        rc = -ESTALE;
    if (!rc && unlinkat(p->fd, p->lower, 0))
        rc = -errno;
    atomic_store(&n->read_at, 0);
    lg_node_unlock(v, n);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    return rc;
}

int lg_volume_reap(struct lg_volume *v, uint64_t parent, const char *name, const uint8_t kid[LG_ID_LEN])
{
    struct lg_place p;
    int rc = lg_ns_change(v);
    if (rc)
        return lg_errno(rc);
    rc = lg_place_get(v, parent, name, LG_HOLD_CHANGE, &p);
    if (!rc)
        rc = take_away(v, &p, name, kid);
    if (!rc)
        lg_sidecar_drop(p.fd, p.lower);
    lg_place_done(v, &p);
    lg_ns_unlock(v);
    return lg_errno(rc);
}
