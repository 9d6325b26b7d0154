/* All names of a lower file come to mean another one. The intent says which, and is durable before the first of them changes: from then on whatever a crash leaves is
 * carried through by the next mount, before anybody looks. docs/FORMAT-names.md, "Re-encrypted files with several names".
 *
 * The order: the new file is whole and durable, under a hidden name; the intent is durable; then, while no call looks at names or changes them (ns), every name is
 * looked at once more, the new file is linked to a hidden name beside each, and these are renamed over the old ones, the new file's own last; the directories are synced;
 * the intent goes. Up to the first rename everything can be given up; from there on a crash, as it may leave any number of the renames, is followed by all of them. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "relink.h"

static const char *lower_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* The directory of a path below root/. */
static int dir_of(const struct lg_volume *v, const char *path)
{
    char part[LG_LOWER_NAME_MAX + 1];
    int fd = openat(v->rootfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    while (fd >= 0) {
        path = lg_intent_part(path, part);
        if (!path || !*path)
            break;
        int sub = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        int e = errno;
        close(fd);
        fd = sub;
        errno = e;
    }
    if (fd >= 0 && !path) {
        close(fd);
        return -EPROTO;
    }
    return fd < 0 ? -errno : fd;
}

static bool same_inode(const struct stat *a, const struct stat *b) { return a->st_dev == b->st_dev && a->st_ino == b->st_ino; }

/* ---- names, as the application gives them, to paths below ------------------------------------------------------------------------------- */

struct growing {
    char *p;
    size_t len, cap;
};

static int add(struct growing *t, const char *s, char behind)
{
    size_t n = strlen(s);
    if (t->len + n + 1 > LG_INTENT_TEXT_MAX)
        return -E2BIG;
    if (t->len + n + 1 > t->cap) {
        size_t cap = 2 * (t->cap + n + 1);
        char *p = realloc(t->p, cap);
        if (!p)
            return -ENOMEM;
        t->p = p;
        t->cap = cap;
    }
    memcpy(t->p + t->len, s, n);
    t->len += n;
    t->p[t->len++] = behind;
    return 0;
}

/* ns held shared. */
static int seal_path(struct lg_volume *v, const char *plain, struct growing *t)
{
    struct lg_node *dir = lg_node_ref(v, LG_ROOT_NODE);
    int rc = 0;
    for (bool last = false; !rc && !last;) {
        char name[LG_NAME_MAX + 1];
        struct lg_place p;
        struct lg_node *next = NULL;
        struct stat st;
        size_t len = strcspn(plain, "/");
        last = !plain[len];
        if (!len || len > LG_NAME_MAX)
            rc = -EINVAL;
        else
            memcpy(name, plain, len);
        name[rc ? 0 : len] = 0;
        plain += len + !last;
        if (rc)
            break;
        rc = lg_place_get(v, dir->id, name, LG_HOLD_SHARED, &p);
        if (!rc)
            rc = add(t, p.lower, last ? 0 : '/');
        if (!rc && !last)
            rc = lg_node_at(v, p.dir, p.fd, p.lower, name, false, &next, &st);
        lg_place_done(v, &p);
        if (next) {
            lg_node_unref(v, dir);
            dir = next;
        }
    }
    lg_node_unref(v, dir);
    return rc;
}

static int by_text(const void *a, const void *b) { return strcmp(*(const char *const *)a, *(const char *const *)b); }

void lg_links_done(struct lg_links *l)
{
    for (uint32_t i = 0; l->fd && i < l->in.n; i++)
        if (l->fd[i] >= 0)
            close(l->fd[i]);
    free(l->fd);
    l->fd = NULL;
    lg_intent_free(&l->in);
}

static int fds_new(struct lg_links *l)
{
    l->fd = calloc(l->in.n, sizeof *l->fd);
    for (uint32_t i = 0; l->fd && i < l->in.n; i++)
        l->fd[i] = -1;
    return l->fd ? 0 : -ENOMEM;
}

int lg_links_begin(struct lg_volume *v, const char *names, size_t len, struct lg_links *l)
{
    struct growing t = { 0 };
    *l = (struct lg_links){ .v = v };
    if (!len || names[len - 1])
        return -EINVAL;
    for (const char *p = names; p < names + len; p += strlen(p) + 1)
        l->in.n++;
    if (l->in.n > LG_LINKS_MAX)
        return -E2BIG;
    int rc = lg_ns_shared(v);
    if (rc)
        return rc;
    for (const char *p = names; !rc && p < names + len; p += strlen(p) + 1)
        rc = seal_path(v, p, &t);
    lg_ns_unlock(v);
    l->in.text = t.p;
    l->in.path = rc ? NULL : calloc(l->in.n, sizeof *l->in.path);
    if (!rc && !l->in.path)
        rc = -ENOMEM;
    if (!rc) {
        const char *p = t.p;
        for (uint32_t i = 0; i < l->in.n; i++, p += strlen(p) + 1)
            l->in.path[i] = p;
        qsort(l->in.path, l->in.n, sizeof *l->in.path, by_text); /* a path leads to one entry only: equal ones are one name */
        for (uint32_t i = 1; !rc && i < l->in.n; i++)
            rc = strcmp(l->in.path[i - 1], l->in.path[i]) == 0 ? -EINVAL : 0;
    }
    if (!rc)
        rc = lg_random(l->in.tmp, sizeof l->in.tmp);
    if (!rc)
        rc = fds_new(l);
    if (!rc) {
        memcpy(l->in.vault_id, v->info.vault_id, LG_ID_LEN);
        l->fd[0] = dir_of(v, l->in.path[0]);
        rc = l->fd[0] < 0 ? l->fd[0] : 0;
    }
    if (rc)
        lg_links_done(l);
    return rc;
}

int lg_links_intend(struct lg_links *l, const struct lg_claim *old)
{
    memcpy(l->in.file_id, old->file_id, LG_ID_LEN);
    memcpy(l->in.commitment, old->commitment, LG_MAC_LEN);
    l->in.seq = old->seq;
    return lg_intent_write(l->v, &l->in);
}

/* ---- the change itself -------------------------------------------------------------------------------------------------------------------- */

static int link_to(int fd, int dirfd, const char *name)
{
    char path[32];
    lg_fd_path(fd, path);
    return linkat(AT_FDCWD, path, dirfd, name, AT_SYMLINK_FOLLOW) ? -errno : 0;
}

/* Every name is there, where its path leads to, and means old; and old has no other. */
static int look_again(struct lg_links *l, const struct stat *old, const struct stat *new)
{
    char tmp[32];
    struct stat st, here;
    lg_intent_tmp(&l->in, 0, tmp);
    if (old->st_nlink != l->in.n)
        return -EMLINK;
    for (uint32_t i = 0; i < l->in.n; i++) {
        int fd = dir_of(l->v, l->in.path[i]);
        if (fd < 0)
            return fd == -ENOENT || fd == -ENOTDIR || fd == -ELOOP ? -EMLINK : fd;
        bool moved = i == 0 && (fstat(fd, &st) || fstat(l->fd[0], &here) || !same_inode(&st, &here)); /* the new file is there */
        if (l->fd[i] >= 0)
            close(l->fd[i]);
        l->fd[i] = fd;
        if (moved || fstatat(fd, lower_of(l->in.path[i]), &st, AT_SYMLINK_NOFOLLOW) || !same_inode(&st, old))
            return -EMLINK;
    }
    return fstatat(l->fd[0], tmp, &st, AT_SYMLINK_NOFOLLOW) || !same_inode(&st, new) ? -EAGAIN : 0;
}

static void unlink_tmps(struct lg_links *l, uint32_t from, uint32_t to)
{
    char tmp[32];
    for (uint32_t i = from; i < to; i++) {
        lg_intent_tmp(&l->in, i, tmp);
        if (l->fd[i] >= 0)
            (void)unlinkat(l->fd[i], tmp, 0);
    }
}

/* The names from .. n-1 mean fd. */
static int put_back(struct lg_links *l, uint32_t from, int fd)
{
    char tmp[32];
    int rc = 0;
    for (uint32_t i = from; i < l->in.n; i++) {
        lg_intent_tmp(&l->in, i, tmp);
        int r = link_to(fd, l->fd[i], tmp);
        if (!r && renameat2(l->fd[i], tmp, l->fd[i], lower_of(l->in.path[i]), 0))
            r = -errno;
        rc = r ? r : rc;
    }
    return rc;
}

int lg_links_switch(struct lg_links *l, int old, int new)
{
    char tmp[32];
    struct stat was, is;
    int rc = fstat(old, &was) || fstat(new, &is) ? -errno : look_again(l, &was, &is);
    uint32_t n = l->in.n, linked = 1;
    if (rc)
        return rc;
    for (; !rc && linked < n; linked += !rc) { /* first whatever may need space */
        lg_intent_tmp(&l->in, linked, tmp);
        rc = link_to(new, l->fd[linked], tmp);
    }
    uint32_t left = n;
    while (!rc && left) {
        lg_intent_tmp(&l->in, left - 1, tmp);
        if (renameat2(l->fd[left - 1], tmp, l->fd[left - 1], lower_of(l->in.path[left - 1]), 0))
            rc = -errno;
        else
            left--;
    }
    if (rc) {
        l->torn = left < n && put_back(l, left, old);
        unlink_tmps(l, 1, l->torn ? 1 : linked);
    }
    return rc;
}

static int sync_dirs(struct lg_links *l)
{
    const struct lg_sys *sys = l->v->env.sys;
    struct stat st, last = { .st_ino = 0 };
    int rc = 0;
    for (uint32_t i = 0; i < l->in.n; i++) {
        if (l->fd[i] < 0 || (!fstat(l->fd[i], &st) && same_inode(&st, &last)))
            continue;
        int r = sys->fsync(sys->arg, l->fd[i]);
        rc = r ? r : rc;
        last = st;
    }
    return rc;
}

int lg_links_end(struct lg_links *l)
{
    int rc = sync_dirs(l);
    return rc ? rc : lg_intent_drop(l->v); /* should the intent stay, it finds everything done */
}

/* ---- after a crash -------------------------------------------------------------------------------------------------------------------------- */

struct replay {
    struct lg_links l;
    int new;        /* -1: not found */
    struct stat st; /* of that */
    bool begun;
};

/* What stands at a name: -ENOENT when it is no file with the id. */
static int look_at(const struct replay *r, int dirfd, const char *name, struct lg_claim *ret, struct stat *st, int *ret_fd)
{
    int fd = dirfd < 0 ? -1 : openat(dirfd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return dirfd < 0 || errno == ENOENT || errno == ELOOP || errno == ENXIO ? -ENOENT : -errno;
    lg_noatime(fd);
    int rc = fstat(fd, st) ? -errno : !S_ISREG(st->st_mode) ? -ENOENT : lg_file_claim(r->l.v->env.sys, fd, ret);
    if (rc == -EBADMSG || (!rc && memcmp(ret->file_id, r->l.in.file_id, LG_ID_LEN) != 0))
        rc = -ENOENT;
    if (rc || !ret_fd)
        close(fd);
    else
        *ret_fd = fd;
    return rc;
}

static bool is_old(const struct replay *r, const struct lg_claim *c) { return c->seq == r->l.in.seq && memcmp(c->commitment, r->l.in.commitment, LG_MAC_LEN) == 0; }

/* The new file: under its own hidden name or, when that is the last that was renamed or did not come along with a copy, one that is newer than the old. */
static int find_new(struct replay *r)
{
    struct lg_claim c;
    struct stat st;
    char tmp[32];
    lg_intent_tmp(&r->l.in, 0, tmp);
    int rc = look_at(r, r->l.fd[0], tmp, &c, &r->st, &r->new);
    for (uint32_t i = 0; i < r->l.in.n && (!rc || rc == -ENOENT); i++) {
        int fd = -1, e = look_at(r, r->l.fd[i], lower_of(r->l.in.path[i]), &c, &st, &fd);
        if (e && e != -ENOENT)
            rc = e;
        if (!e && rc == -ENOENT && c.seq > r->l.in.seq) {
            r->new = fd;
            r->st = st;
            rc = 0;
            fd = -1;
        }
        if (!e && !rc && same_inode(&st, &r->st))
            r->begun = true;
        if (fd >= 0)
            close(fd);
    }
    return rc == -ENOENT ? 0 : rc;
}

static int carry_on(struct replay *r, uint32_t i)
{
    struct lg_links *l = &r->l;
    const char *lower = lower_of(l->in.path[i]);
    struct lg_claim c;
    struct stat st;
    char tmp[32];
    int rc = look_at(r, l->fd[i], lower, &c, &st, NULL);
    if (rc == -ENOENT || (!rc && (same_inode(&st, &r->st) || !is_old(r, &c)))) /* done, or changed by a version that does not know of this: it stays what it is */
        return 0;
    lg_intent_tmp(&l->in, i, tmp);
    if (!rc && (fstatat(l->fd[i], tmp, &st, AT_SYMLINK_NOFOLLOW) || !same_inode(&st, &r->st))) { /* in a copy */
        (void)unlinkat(l->fd[i], tmp, 0);
        rc = link_to(r->new, l->fd[i], tmp);
    }
    return !rc && renameat2(l->fd[i], tmp, l->fd[i], lower, 0) ? -errno : rc;
}

static int carry_through(struct replay *r, bool mounting)
{
    struct lg_links *l = &r->l;
    struct lg_claim c;
    struct stat st;
    char tmp[32];
    int rc = find_new(r);
    for (uint32_t i = l->in.n; !rc && r->begun && i-- > 0;) {
        if (mounting)
            rc = carry_on(r, i);
        else if (look_at(r, l->fd[i], lower_of(l->in.path[i]), &c, &st, NULL) == 0 && !same_inode(&st, &r->st) && is_old(r, &c))
            rc = -EBUSY; /* both are perhaps in use: the next mount does it */
    }
    if (!rc && r->begun)
        rc = sync_dirs(l);
    for (uint32_t i = 0; !rc && i < l->in.n; i++) { /* hidden names of a switch that was given up, or never begun */
        lg_intent_tmp(&l->in, i, tmp);
        rc = look_at(r, l->fd[i], tmp, &c, &st, NULL);
        rc = rc == -ENOENT ? 0 : !rc && unlinkat(l->fd[i], tmp, 0) ? -errno : rc;
    }
    return rc ? rc : lg_intent_drop(l->v);
}

static int replay(struct lg_volume *v, bool mounting)
{
    struct replay r = { .l.v = v, .new = -1 };
    int rc = lg_intent_read(v, &r.l.in);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    rc = fds_new(&r.l);
    for (uint32_t i = 0; !rc && i < r.l.in.n; i++) {
        r.l.fd[i] = dir_of(v, r.l.in.path[i]);
        if (r.l.fd[i] < 0 && r.l.fd[i] != -ENOENT && r.l.fd[i] != -ENOTDIR && r.l.fd[i] != -ELOOP)
            rc = r.l.fd[i];
    }
    if (!rc)
        rc = carry_through(&r, mounting);
    if (r.new >= 0)
        close(r.new);
    lg_links_done(&r.l);
    return rc;
}

static void tell(struct lg_volume *v, const char *kind)
{
    struct lg_finding f = { .kind = kind };
    if (v->opt.finding)
        v->opt.finding(v->opt.arg, &f);
}

/* Each name is whole whatever becomes of this: nothing here keeps a vault from being mounted. */
void lg_relink_replay(struct lg_volume *v)
{
    if (v->opt.read_only)
        return;
    int rc = replay(v, true);
    if (rc == -EPROTO) {
        tell(v, "leadglass.relink is damaged: names of one re-encrypted file may mean two");
        rc = lg_intent_drop(v);
    } else if (rc) {
        tell(v, rc == -EPROTONOSUPPORT ? "leadglass.relink is of a newer version: mount with that to complete a re-encryption"
                                       : "a re-encryption under several names is not complete: the next mount tries again");
    }
}

int lg_relink_settle(struct lg_volume *v)
{
    int rc = lg_ns_exclusive(v);
    if (rc)
        return rc;
    rc = replay(v, false);
    lg_ns_unlock(v);
    return rc == -EPROTO || rc == -EPROTONOSUPPORT ? -EBUSY : rc;
}
