#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "relink.h"

enum { TRIES = 3, LIST_MAX = 65536 };

/* ---- the time that the application set, of a file whose lower time says when it was re-encrypted ------------------------------------- */

bool lg_mtime_moved(const char *path, struct stat *st)
{
    uint8_t raw[32];
    if (getxattr(path, LG_MTIME_XATTR, raw, sizeof raw) != (ssize_t)sizeof raw)
        return false;
    struct lg_rd r = lg_rd(raw, sizeof raw);
    int64_t below_s = (int64_t)lg_rd_u64(&r), below_ns = (int64_t)lg_rd_u64(&r), s = (int64_t)lg_rd_u64(&r), ns = (int64_t)lg_rd_u64(&r);
    if (below_s != st->st_mtim.tv_sec || below_ns != st->st_mtim.tv_nsec || ns < 0 || ns > 999999999)
        return false;
    st->st_mtim.tv_sec = s;
    st->st_mtim.tv_nsec = ns;
    return true;
}

static int mtime_move(int fd, const struct stat *was)
{
    struct timespec ts[2] = { was->st_atim, { 0, 0 } };
    uint8_t raw[32];
    struct lg_wr w = lg_wr(raw, sizeof raw);
    clock_gettime(CLOCK_REALTIME, &ts[1]);
    ts[1].tv_nsec = LG_MTIME_MOVED_NS;
    lg_wr_u64(&w, (uint64_t)ts[1].tv_sec);
    lg_wr_u64(&w, (uint64_t)ts[1].tv_nsec);
    lg_wr_u64(&w, (uint64_t)was->st_mtim.tv_sec);
    lg_wr_u64(&w, (uint64_t)was->st_mtim.tv_nsec);
    if (fsetxattr(fd, LG_MTIME_XATTR, raw, sizeof raw, 0)) /* no attributes here: better seen late than with a wrong time */
        ts[1] = was->st_mtim;
    return futimens(fd, ts) ? -errno : 0;
}

/* ---- the new lower file ---------------------------------------------------------------------------------------------------------------- */

static int xattrs_copy(const char *from, int to)
{
    char *list = malloc(LIST_MAX), *value = malloc(LIST_MAX);
    ssize_t n = list && value ? listxattr(from, list, LIST_MAX) : -1;
    int rc = !list || !value ? -ENOMEM : n < 0 && errno != EOPNOTSUPP ? -errno : 0;
    for (ssize_t at = 0; !rc && at < n; at += (ssize_t)strlen(list + at) + 1) {
        ssize_t len = getxattr(from, list + at, value, LIST_MAX);
        if (len < 0 || fsetxattr(to, list + at, value, (size_t)len, 0))
            rc = -errno;
    }
    free(list);
    free(value);
    return rc;
}

/* Everything about the old file (O_PATH) but its contents; st is the application's view. */
static int dress(int old, int new, struct stat *st)
{
    char path[32];
    lg_fd_path(old, path);
    if (fchown(new, st->st_uid, st->st_gid) || fchmod(new, st->st_mode & 07777))
        return -errno;
    int rc = xattrs_copy(path, new); /* an ACL may change the mode's group bits, to what they are there */
    return rc ? rc : mtime_move(new, st);
}

struct switching {
    struct lg_volume *v;
    struct lg_node *n;
    struct lg_place p;
    int fd, old;
    const char *tmp;
    struct timespec ctime; /* of the old file when its attributes were copied */
    struct lg_links *links; /* of a file with several names, which are not looked for here */
};

/* Unlike one name, several cannot be exchanged at once: until all are, the count of links is nobody's. */
static int publish_links(struct switching *s)
{
    struct stat now;
    if (fstat(s->old, &now))
        return -errno;
    if (now.st_ctim.tv_sec != s->ctime.tv_sec || now.st_ctim.tv_nsec != s->ctime.tv_nsec)
        return -EAGAIN;
    atomic_fetch_add(&s->v->relinks, 1);
    int rc = lg_node_rebind(s->v, s->n, s->fd);
    if (!rc && (rc = lg_links_switch(s->links, s->old, s->fd)) != 0) {
        int back = lg_node_rebind(s->v, s->n, s->old);
        (void)back;
    }
    atomic_fetch_add(&s->v->relinks, 1);
    return rc;
}

/* The old file's attributes are still those copied: then the new one takes its name. Under ns and the file's locks. */
static int publish(void *arg)
{
    struct switching *s = arg;
    struct stat now, named;
    if (s->links)
        return publish_links(s);
    if (fstat(s->old, &now) || fstatat(s->p.fd, s->p.lower, &named, AT_SYMLINK_NOFOLLOW))
        return -errno;
    if (now.st_ctim.tv_sec != s->ctime.tv_sec || now.st_ctim.tv_nsec != s->ctime.tv_nsec || named.st_ino != now.st_ino || now.st_nlink != 1)
        return -EAGAIN;
    int rc = lg_node_rebind(s->v, s->n, s->fd);
    if (!rc && renameat2(s->p.fd, s->tmp, s->p.fd, s->p.lower, 0)) {
        rc = -errno;
        int back = lg_node_rebind(s->v, s->n, s->old);
        (void)back; /* without memory for it the node is stale: no wrong file */
    }
    if (!rc)
        atomic_store(&s->n->name_pending, true);
    return rc;
}

struct search {
    struct lg_node *n;
    bool found;
};

/* Is n one of this directory's entries? ns held exclusively. */
static int search_dir(struct lg_volume *v, struct lg_node *dir, void *arg)
{
    struct search *s = arg;
    uint8_t id[LG_ID_LEN];
    char name[LG_PLAIN_NAME_MAX + 1];
    int fd = s->found || !S_ISDIR(dir->type) ? -1 : lg_node_open(v, dir, O_RDONLY | O_DIRECTORY);
    DIR *d = fd >= 0 ? fdopendir(fd) : NULL;
    if (!d) {
        if (fd >= 0)
            close(fd);
        return 0; /* removed meanwhile, or not to be had: not there */
    }
    if (lg_dirid_get(v, dir, fd, id) == 0)
        for (struct dirent *e; !s->found && (e = readdir(d));)
            if (e->d_ino == s->n->ino && !lg_name_is_hidden(e->d_name) && lg_name_read(v->names, fd, id, e->d_name, name) == 0) {
                lg_node_moved(v, s->n, dir->id, name);
                s->found = true;
            }
    closedir(d);
    return 0;
}

/* The name that was seen last is gone, or another file's: a file with several names had one of them taken away. Whoever asks for it came by a directory that
 * is in memory. */
static int search_name(struct lg_volume *v, struct lg_node *n)
{
    struct search s = { .n = n };
    int rc = lg_nodes_each(v, false, search_dir, &s);
    return rc ? rc : s.found ? 0 : -ENOENT;
}

static int place_as_seen(struct lg_volume *v, struct lg_node *n, struct lg_place *p)
{
    p->dir = NULL;
    pthread_mutex_lock(&v->table);
    uint64_t parent = n->parent;
    char *name = n->name && n->name[0] ? strdup(n->name) : NULL;
    pthread_mutex_unlock(&v->table);
    int rc = name ? lg_place_get(v, parent, name, LG_HOLD_NONE, p) : -ENOENT;
    free(name);
    struct stat st;
    if (!rc && fstatat(p->fd, p->lower, &st, AT_SYMLINK_NOFOLLOW))
        rc = -errno;
    return !rc && st.st_ino != n->ino ? -ENOENT : rc;
}

/* A place for n as it is named now; -ENOENT: it has no name that is known. ns held exclusively. Filled in even on error. */
static int place_of(struct lg_volume *v, struct lg_node *n, struct lg_place *p)
{
    int rc = place_as_seen(v, n, p);
    if (rc == -ENOENT || rc == -ESTALE) {
        rc = search_name(v, n);
        if (!rc) {
            lg_place_done(v, p);
            rc = place_as_seen(v, n, p);
        }
    }
    return rc;
}

/* The new file, complete and durable. */
static int fill(struct switching *s, struct lg_kref *as, uint64_t *ret_seq)
{
    struct stat st;
    int fd = fcntl(s->fd, F_DUPFD_CLOEXEC, 3), rc = fd < 0 ? -errno : lg_file_recrypt(s->n->f, as, fd, ret_seq);
    if (!rc && fstat(s->old, &st))
        rc = -errno;
    if (!rc && st.st_nlink != (s->links ? s->links->in.n : 1))
        rc = st.st_nlink ? -EMLINK : -ENOENT;
    if (!rc) {
        s->ctime = st.st_ctim;
        lg_node_stat(s->v, s->n, &st);
        rc = dress(s->old, s->fd, &st);
    }
    return rc ? rc : s->v->env.sys->fsync(s->v->env.sys->arg, s->fd);
}

/* The same at its hidden name. */
static int prepare(struct switching *s, struct lg_kref *as, char tmp[32], uint64_t *ret_seq)
{
    int rc = lg_ns_exclusive(s->v);
    if (rc)
        return rc;
    lg_tmp_name(tmp);
    rc = place_of(s->v, s->n, &s->p);
    if (!rc) {
        s->fd = openat(s->p.fd, tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        rc = s->fd < 0 ? -errno : 0;
        if (!rc)
            lg_noatime(s->fd);
    }
    lg_ns_unlock(s->v);
    return rc ? rc : fill(s, as, ret_seq);
}

/* Under ns exclusively: the new file takes the old one's place, if that is as it was. */
static int switch_file(struct switching *s, uint64_t seq)
{
    int fd = s->fd, rc;
    lg_node_lock(s->v, s->n);
    s->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    rc = s->fd < 0 ? -errno : lg_file_switch(s->n->f, fd, seq, publish, s);
    if (s->fd < 0)
        close(fd);
    s->n->id_known = lg_file_kid(s->n->f, s->n->kid, &s->n->key_version);
    lg_node_unlock(s->v, s->n);
    return rc;
}

int lg_name_sync(struct lg_volume *v, struct lg_node *n)
{
    const struct lg_sys *sys = v->env.sys;
    if (!atomic_load(&n->name_pending))
        return 0;
    pthread_mutex_lock(&v->table);
    uint64_t parent = n->parent;
    pthread_mutex_unlock(&v->table);
    struct lg_node *dir = lg_node_ref(v, parent);
    int fd = dir ? lg_node_open(v, dir, O_RDONLY | O_DIRECTORY) : -ESTALE, rc = fd < 0 ? fd : sys->fsync(sys->arg, fd);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, dir);
    if (!rc)
        atomic_store(&n->name_pending, false);
    return rc;
}

/* Asks the key manager, which knows of officers and their acts; now: the approval is taken, once, when the new file is about to take its place. */
static int allowed(struct lg_volume *v, struct lg_node *n, const struct lg_rekey *how, const uint8_t from[LG_ID_LEN], bool now)
{
    uint8_t id[LG_ID_LEN];
    lg_file_id(n->f, id);
    return lg_keys_assign(v->opt.keys, how->act, how->to->uid, from, id, now);
}

/* from: the key that it leaves for another study's, or NULL. */
static int rekey_once(struct lg_volume *v, struct lg_node *n, struct lg_kref *as, const struct lg_rekey *how, const uint8_t *from, bool *claimed)
{
    struct switching s = { .v = v, .n = n, .fd = -1 };
    char tmp[32];
    uint64_t seq;
    s.old = lg_node_open(v, n, O_PATH | O_NOFOLLOW);
    if (s.old < 0)
        return s.old;
    int rc = prepare(&s, as, tmp, &seq);
    if (!rc && from && !*claimed) {
        rc = allowed(v, n, how, from, true);
        *claimed = !rc;
    }
    if (!rc) {
        struct lg_place made_in = s.p;
        s.tmp = tmp;
        rc = lg_ns_exclusive(v);
        if (!rc) {
            rc = place_of(v, n, &s.p);
            if (!rc && s.p.dir != made_in.dir)
                rc = -EAGAIN; /* moved to another directory meanwhile */
            if (!rc)
                rc = switch_file(&s, seq);
            lg_place_done(v, &s.p);
            lg_ns_unlock(v);
        }
        s.p = made_in;
        if (!rc)
            rc = lg_name_sync(v, n);
    }
    if (rc && s.p.dir && s.fd >= 0)
        unlinkat(s.p.fd, tmp, 0);
    lg_place_done(v, &s.p);
    if (s.fd >= 0)
        close(s.fd);
    close(s.old);
    return rc;
}

/* The old file as it stands below, durable, when nothing has changed since seq: what a crash will know its names by. */
static int claim_old(struct switching *s, uint64_t seq, struct lg_claim *ret)
{
    int rc = lg_file_sync(s->n->f), fd = rc ? -1 : lg_node_open(s->v, s->n, O_RDONLY | O_NOFOLLOW);
    if (!rc)
        rc = fd < 0 ? fd : lg_file_claim(s->v->env.sys, fd, ret);
    if (fd >= 0)
        close(fd);
    return !rc && ret->seq != seq ? -EAGAIN : rc;
}

static int relink(struct switching *s, uint64_t seq)
{
    struct lg_claim c;
    int rc = lg_relink_settle(s->v);
    if (!rc)
        rc = claim_old(s, seq, &c);
    if (!rc)
        rc = lg_links_intend(s->links, &c);
    if (rc)
        return rc;
    rc = lg_ns_exclusive(s->v);
    if (!rc) {
        rc = switch_file(s, seq);
        lg_ns_unlock(s->v);
    }
    if (!rc)
        return lg_links_end(s->links);
    if (s->links->torn) {
        lg_volume_report(s->v, s->n, "re-encrypted under some of its names only; the next mount completes it");
        return rc;
    }
    (void)unlinkat(s->links->fd[0], s->tmp, 0);
    (void)!lg_intent_drop(s->v); /* one that stays finds no name changed */
    return rc;
}

static int rekey_links_once(struct lg_volume *v, struct lg_node *n, struct lg_kref *as, const char *names, size_t len)
{
    struct lg_links l;
    char tmp[32];
    uint64_t seq;
    int rc = lg_links_begin(v, names, len, &l);
    if (rc)
        return rc;
    struct switching s = { .v = v, .n = n, .fd = -1, .links = &l, .tmp = tmp };
    lg_intent_tmp(&l.in, 0, tmp);
    s.old = lg_node_open(v, n, O_PATH | O_NOFOLLOW);
    rc = s.old < 0 ? s.old : 0;
    if (!rc) {
        s.fd = openat(l.fd[0], tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
        rc = s.fd < 0 ? -errno : 0;
        if (!rc) {
            lg_noatime(s.fd);
            rc = fill(&s, as, &seq);
        }
        if (!rc) {
            pthread_mutex_lock(&v->relinking);
            rc = relink(&s, seq);
            pthread_mutex_unlock(&v->relinking);
        }
        if (rc && s.fd >= 0 && !l.torn)
            (void)unlinkat(l.fd[0], tmp, 0);
    }
    if (s.fd >= 0)
        close(s.fd);
    if (s.old >= 0)
        close(s.old);
    lg_links_done(&l);
    return rc;
}

/* Rewritten from zero, a file may have a slot of before that names an older version: neither may be left (design, R9). */
static bool older_slot(struct lg_volume *v, struct lg_node *n)
{
    struct lg_claim c;
    int fd = lg_node_open(v, n, O_RDONLY | O_NOFOLLOW);
    bool older = fd >= 0 && lg_file_claim(v->env.sys, fd, &c) == 0 && c.oldest < c.version;
    if (fd >= 0)
        close(fd);
    return older;
}

/* from: the key that it has. */
static int key_for(struct lg_volume *v, struct lg_node *n, const struct lg_rekey *how, uint8_t from[LG_ID_LEN], struct lg_kref **ret)
{
    uint32_t version;
    if (!lg_file_kid(n->f, from, &version))
        return -EAGAIN; /* not decided yet */
    int rc = how ? allowed(v, n, how, from, false) : 0;
    if (!rc)
        rc = how ? lg_keys_study(v->opt.keys, how->to, ret) : lg_keys_by_id(v->opt.keys, from, 0, ret);
    if (!rc && memcmp((*ret)->kid, from, LG_ID_LEN) == 0 && (how || ((*ret)->version == version && !older_slot(v, n)))) {
        lg_kref_unref(*ret);
        rc = -EALREADY;
    }
    return rc;
}

/* names: of a file with several, or NULL. */
static int rekey(struct lg_volume *v, uint64_t node, const struct lg_rekey *how, const char *names, size_t len)
{
    struct lg_kref *as = NULL;
    uint8_t from[LG_ID_LEN];
    bool claimed = false;
    if (v->opt.read_only)
        return -EROFS;
    struct lg_node *n = lg_node_ref(v, node);
    if (!n)
        return -ESTALE;
    if (!S_ISREG(n->type)) {
        lg_node_unref(v, n);
        return -EINVAL;
    }
    lg_node_lock(v, n);
    int rc = lg_node_file(v, n);
    bool open = !rc;
    lg_node_unlock(v, n);
    if (!rc)
        rc = lg_file_commit(n->f);
    if (!rc)
        rc = key_for(v, n, how, from, &as);
    if (!rc) {
        rc = -EAGAIN;
        for (unsigned i = 0; rc == -EAGAIN && i < TRIES; i++)
            rc = names ? rekey_links_once(v, n, as, names, len) : rekey_once(v, n, as, how, how ? from : NULL, &claimed);
        lg_kref_unref(as);
    }
    if (open) {
        lg_node_lock(v, n);
        lg_node_file_done(v, n);
        lg_node_unlock(v, n);
    }
    lg_node_unref(v, n);
    return rc == -EAGAIN ? -EBUSY : lg_errno(rc);
}

int lg_volume_rekey(struct lg_volume *v, uint64_t node, const struct lg_rekey *how) { return rekey(v, node, how, NULL, 0); }
int lg_volume_rekey_links(struct lg_volume *v, uint64_t node, const char *names, size_t len) { return names ? rekey(v, node, NULL, names, len) : -EINVAL; }

int lg_volume_claim(struct lg_volume *v, uint64_t node, struct lg_claim *ret)
{
    struct lg_node *n = lg_node_ref(v, node);
    if (!n)
        return -ESTALE;
    int fd = S_ISREG(n->type) ? lg_node_open(v, n, O_RDONLY | O_NOFOLLOW) : -EINVAL;
    int rc = fd < 0 ? fd : lg_file_claim(v->env.sys, fd, ret);
    if (fd >= 0)
        close(fd);
    lg_node_unref(v, n);
    return lg_errno(rc);
}

int lg_volume_key_of(struct lg_volume *v, uint64_t node, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    struct lg_claim c;
    int rc = lg_volume_claim(v, node, &c);
    if (rc)
        return rc;
    memcpy(ret_kid, c.kid, LG_ID_LEN);
    *ret_version = c.version;
    return 0;
}
