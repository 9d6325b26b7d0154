#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/later.h"

/* ---- access times ------------------------------------------------------------------------------------------------------------------- */

bool lg_reading_counts(const struct lg_volume *v, int flags) { return !(v->opt.noatime || v->opt.read_only || flags & O_NOATIME); }

/* The filesystem below decides, by its own mount options, whether a read moves the access time: it is shown one, of a byte. By relatime it matters once after each
 * change, and once a day. */
static bool read_due(const struct lg_volume *v, struct lg_node *n, int flags)
{
    enum { AGAIN_S = 3600 };
    uint32_t now = (uint32_t)time(NULL);
    if (!lg_reading_counts(v, flags) || (!v->every_read && now - atomic_load(&n->read_at) < AGAIN_S))
        return false;
    atomic_store(&n->read_at, now);
    return true;
}

/* The time moves by itself; whoever opens it next for reading need not show it. */
static void read_done(struct lg_node *n)
{
    if (!atomic_load_explicit(&n->read_at, memory_order_relaxed))
        atomic_store_explicit(&n->read_at, (uint32_t)time(NULL), memory_order_relaxed);
}

/* fd: without O_NOATIME. */
static bool read_moves(int fd)
{
    struct stat was, is;
    char byte;
    return !fstat(fd, &was) && pread(fd, &byte, 1, 0) >= 0 && !fstat(fd, &is) &&
           (is.st_atim.tv_sec != was.st_atim.tv_sec || is.st_atim.tv_nsec != was.st_atim.tv_nsec);
}

/* Through a descriptor of its own, as others may read through the file's for themselves. */
static bool was_read(struct lg_volume *v, struct lg_node *n, int flags)
{
    int fd = read_due(v, n, flags) ? lg_node_open_read(v, n, O_RDONLY) : -1;
    bool moved = fd >= 0 && read_moves(fd);
    if (fd >= 0)
        close(fd);
    return moved;
}

/* Of a file that nobody else has yet: through its own descriptor, which costs no second open. If it was never open before, the kernel above has none of it in
 * memory: then whatever is read is read below, and moves the time itself. Else it is shown here, and whether it moved is asked, as somebody may have been told it. */
static bool was_read_first(struct lg_volume *v, struct lg_node *n, struct lg_file *f, int fd, int flags)
{
    if (!read_due(v, n, flags))
        return false;
    if (!n->was_open && lg_file_show_reads(f)) {
        atomic_store(&n->read_at, 0); /* once it is */
        return false;
    }
    (void)!fcntl(fd, F_SETFL, 0);
    bool moved = read_moves(fd);
    lg_noatime(fd);
    return moved;
}

/* ---- opening ------------------------------------------------------------------------------------------------------------------------- */

/* As lg_node_file; for reading: was_read_first, into ret_moved, if it is not open yet. */
static int file_get(struct lg_volume *v, struct lg_node *n, bool reading, int flags, bool *ret_moved)
{
    if (!n->f) {
        if (!S_ISREG(n->type))
            return S_ISDIR(n->type) ? -EISDIR : -ENXIO;
        int fd = lg_node_open(v, n, v->opt.read_only ? O_RDONLY : O_RDWR);
        if (fd < 0)
            return fd;
        char *path = v->env.path_rule ? lg_node_path(v, n->id) : NULL;
        struct lg_file *f;
        int rc = lg_file_open(&v->env, fd, path, &f);
        free(path);
        if (rc)
            return rc;
        *ret_moved = reading && was_read_first(v, n, f, fd, flags);
        lg_node_file_set(v, n, f);
        n->id_known = lg_file_kid(n->f, n->kid, &n->key_version);
    } else if (lg_file_shows_reads(n->f) && (!reading || !lg_reading_counts(v, flags))) { /* what is read for these does not count */
        if (!(atomic_load(&n->traits) & LG_FILE_PAGED)) /* nothing was yet, and it may come into the kernel's memory, where whoever opened it before finds it */
            (void)was_read(v, n, 0);
        lg_file_hide_reads(n->f);
    }
    n->opens++;
    return 0;
}

int lg_node_file(struct lg_volume *v, struct lg_node *n)
{
    bool moved;
    return file_get(v, n, false, 0, &moved);
}

void lg_node_file_done(struct lg_volume *v, struct lg_node *n)
{
    struct lg_file *f = n->f;
    if (--n->opens)
        return;
    lg_file_close(f); /* reports what is lost */
    n->id_known = lg_file_kid(f, n->kid, &n->key_version);
    lg_node_file_set(v, n, NULL);
    lg_file_drop(f);
    n->dirty_since = 0;
}

int lg_volume_open_file(struct lg_volume *v, uint64_t node, int flags, struct lg_handle **ret)
{
    if (v->opt.read_only && (flags & O_ACCMODE) != O_RDONLY)
        return -EROFS;
    struct lg_node *n = lg_node_ref(v, node);
    struct lg_handle *h = n ? calloc(1, sizeof *h) : NULL;
    int rc = !n ? -ESTALE : !h ? -ENOMEM : 0;
    bool reading = (flags & O_ACCMODE) == O_RDONLY, open = false, moved = false;
    unsigned lost = 0;
    if (!rc) {
        if (!lg_later())
            lg_node_lock(v, n);
        else if (!lg_node_trylock(v, n))
            rc = -LG_ELATER;
    }
    if (!rc) {
        open = n->f;
        rc = file_get(v, n, reading, flags, &moved);
        if (!rc && flags & O_TRUNC) {
            rc = lg_file_truncate(n->f, 0);
            n->dirty_since = n->dirty_since ? n->dirty_since : (uint32_t)time(NULL);
            n->read_at = 0;
            if (rc)
                lg_node_file_done(v, n);
        }
        if (!rc && open && lg_file_lost(n->f, &lost) == -LG_ELATER) {
            rc = -LG_ELATER;
            lg_later_end(); /* closing is not given back */
            lg_node_file_done(v, n);
        }
        lg_node_unlock(v, n);
    }
    if (rc) {
        free(h);
        lg_node_unref(v, n);
        return lg_errno(rc);
    }
    *h = (struct lg_handle){ .v = v, .n = n, .flags = flags, .lost = lost };
    if (reading)
        h->read_moved = open ? was_read(v, n, flags) : moved;
    *ret = h;
    return 0;
}

static int hide(struct lg_handle *h)
{
    if (!lg_later())
        lg_node_lock(h->v, h->n);
    else if (!lg_node_trylock(h->v, h->n))
        return -LG_ELATER;
    lg_file_hide_reads(h->n->f);
    lg_node_unlock(h->v, h->n);
    return 0;
}

ssize_t lg_volume_read(struct lg_handle *h, void *buf, size_t len, uint64_t off, int flags)
{
    if (!(flags & O_DIRECT) && !(atomic_load_explicit(&h->n->traits, memory_order_relaxed) & LG_FILE_PAGED))
        atomic_fetch_or(&h->n->traits, LG_FILE_PAGED); /* before it is looked at: whoever writes afterwards knows */
    bool counts = lg_reading_counts(h->v, flags), shows = lg_file_shows_reads(h->n->f);
    if (shows && counts) {
        read_done(h->n); /* before it: what is changed afterwards is not read yet */
    } else if (shows) {
        int rc = hide(h);
        if (rc)
            return rc;
    }
    ssize_t n = lg_file_read(h->n->f, buf, len, off);
    if (n >= 0 && !shows)
        (void)was_read(h->v, h->n, flags);
    return n < 0 ? lg_errno((int)n) : n;
}

bool lg_volume_paged(const struct lg_handle *h) { return atomic_load(&h->n->traits) & LG_FILE_PAGED; }

static void dirtied(struct lg_node *n)
{
    atomic_store_explicit(&n->read_at, 0, memory_order_relaxed);
    if (!atomic_load(&n->dirty_since))
        atomic_store(&n->dirty_since, (uint32_t)time(NULL));
}

int lg_volume_kill_privileges(struct lg_handle *h, bool setid)
{
    uint8_t want = setid ? LG_LACKS_CAPABILITY | LG_LACKS_SETID : LG_LACKS_CAPABILITY;
    if ((h->n->lacks & want) == want)
        return 0;
    lg_node_lock(h->v, h->n);
    int rc = lg_node_kill_privileges(h->v, h->n, setid);
    lg_node_unlock(h->v, h->n);
    return lg_errno(rc);
}

ssize_t lg_volume_write(struct lg_handle *h, const void *buf, size_t len, uint64_t off)
{
    int rc = lg_file_write(h->n->f, buf, len, off);
    dirtied(h->n);
    return rc ? lg_errno(rc) : (ssize_t)len;
}

/* Writers are told at their next flush or fsync, as the kernel does with bytes that it could not write back. */
static int lost(struct lg_handle *h)
{
    if ((h->flags & O_ACCMODE) == O_RDONLY)
        return 0;
    return lg_file_lost(h->n->f, &h->lost);
}

int lg_volume_flush(struct lg_handle *h)
{
    uint32_t since = atomic_exchange(&h->n->dirty_since, 0); /* before it: what another writes meanwhile is still to be committed */
    int rc = lg_file_commit(h->n->f);
    if (rc)
        atomic_store(&h->n->dirty_since, since ? since : (uint32_t)time(NULL));
    return lg_errno(rc ? rc : lost(h));
}

/* The lower file's size is part of its data; what else stands there is synced only after it was set. */
static int attrs_sync(struct lg_node *n)
{
    if (!atomic_exchange(&n->attrs_pending, false))
        return 0;
    int rc = lg_file_sync_attrs(n->f);
    if (rc)
        atomic_store(&n->attrs_pending, true);
    return rc;
}

int lg_volume_fsync(struct lg_handle *h, bool data_only)
{
    int rc = lg_file_sync(h->n->f);
    if (!rc && !data_only)
        rc = attrs_sync(h->n);
    if (!rc)
        rc = lg_name_sync(h->v, h->n);
    return lg_errno(rc ? rc : lost(h));
}

int lg_volume_fallocate(struct lg_handle *h, int mode, uint64_t off, uint64_t len)
{
    int rc = lg_file_fallocate(h->n->f, mode, off, len);
    dirtied(h->n);
    return lg_errno(rc);
}

int lg_volume_seek(struct lg_handle *h, uint64_t off, int whence, uint64_t *ret) { return lg_errno(lg_file_seek(h->n->f, off, whence, ret)); }

bool lg_volume_read_moved(const struct lg_handle *h) { return h->read_moved; }

bool lg_volume_release_waits(const struct lg_handle *h) { return lg_file_close_waits(h->n->f); }

void lg_volume_release(struct lg_handle *h)
{
    lg_node_lock(h->v, h->n);
    lg_node_file_done(h->v, h->n);
    lg_node_unlock(h->v, h->n);
    lg_node_unref(h->v, h->n);
    free(h);
}
