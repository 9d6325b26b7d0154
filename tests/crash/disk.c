#include "disk.h"

#include <dirent.h>
#include <fcntl.h>
#include <linux/falloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { SECTOR = 512, TAKEN = 64 };

struct dent {
    char *name;
    size_t inode;
};

struct xattr {
    const struct xattr *next;
    size_t len;
    const uint8_t *value;
    char name[];
};

/* All of an inode's attributes at one moment. Never changed. */
struct attrs {
    mode_t mode;
    uid_t uid;
    gid_t gid;
    struct timespec mtime;
    const struct xattr *x;
};

/* A sector that is NULL reads as zeros. Sectors and names belong to whoever made them and are never changed. */
struct inode {
    mode_t type;
    ino_t ino; /* in the real tree, 0: none now */
    char *target;
    const struct attrs *attrs; /* NULL: not known */
    uint64_t size;
    const uint8_t **sector;
    size_t n_sector;
    struct dent *dent;
    size_t n_dent, cap_dent;
};

struct image {
    struct inode *inode; /* [0]: the top directory */
    size_t n, cap;
    void **own; /* freed with it */
    size_t n_own, cap_own;
};

enum kind { WRITE, TRUNCATE, ZERO, ATTRS, BARRIER, BARRIER_ALL, /* names: */ CREATE, LINK, UNLINK, RENAME, EXCHANGE };

struct entry {
    enum kind kind;
    size_t inode;
    uint64_t off, len;
    uint8_t *data;
    bool lost; /* a barrier behind it failed: no later one covers it */
    bool data_only; /* a barrier that need not cover attributes: fdatasync */
    const struct attrs *attrs;
    /* names */
    size_t dir, dir2;
    char *name, *name2;
};

struct record {
    struct image *im;
    struct entry *e;
    size_t n, cap;
};

static struct record *recording;
static unsigned n_reserved; /* of the ranges below */
unsigned long disk_calls;

uint64_t rnd(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

static void *need(void *p)
{
    if (!p) {
        fprintf(stderr, "crash test: no memory\n");
        abort();
    }
    return p;
}

static void fail(const char *what)
{
    perror(what);
    abort();
}

#define GROW(array, n, cap)                                                              \
    do {                                                                                 \
        if ((n) == (cap)) {                                                              \
            (cap) = (cap) ? (cap) * 2 : 16;                                              \
            (array) = need(reallocarray((array), (cap), sizeof *(array)));               \
        }                                                                                \
    } while (0)

static void *own(struct image *im, void *p)
{
    GROW(im->own, im->n_own, im->cap_own);
    return im->own[im->n_own++] = p;
}

static size_t inode_add(struct image *im, mode_t type, ino_t ino)
{
    GROW(im->inode, im->n, im->cap);
    im->inode[im->n] = (struct inode){ .type = type & S_IFMT, .ino = ino };
    return im->n++;
}

static void dent_add(struct inode *dir, char *name, size_t inode)
{
    GROW(dir->dent, dir->n_dent, dir->cap_dent);
    dir->dent[dir->n_dent++] = (struct dent){ name, inode };
}

static struct dent *dent_find(struct inode *dir, const char *name)
{
    for (size_t i = 0; i < dir->n_dent; i++)
        if (strcmp(dir->dent[i].name, name) == 0)
            return &dir->dent[i];
    return NULL;
}

static void dent_drop(struct inode *dir, const char *name)
{
    struct dent *d = dent_find(dir, name);
    if (d)
        *d = dir->dent[--dir->n_dent];
}

static size_t find_ino(const struct image *im, ino_t ino)
{
    for (size_t i = im->n; i-- > 0;)
        if (im->inode[i].ino == ino)
            return i;
    return SIZE_MAX;
}

/* ---- contents of an inode ------------------------------------------------------------------------------------------------------- */

static void resize(struct image *im, struct inode *f, uint64_t size)
{
    size_t n = (size_t)((size + SECTOR - 1) / SECTOR);
    if (n > f->n_sector) {
        f->sector = need(realloc(f->sector, n * sizeof *f->sector));
        memset(f->sector + f->n_sector, 0, (n - f->n_sector) * sizeof *f->sector);
    }
    f->n_sector = n;
    if (size < f->size && size % SECTOR && f->sector[n - 1]) { /* what was behind the end is gone for good */
        uint8_t *s = own(im, need(calloc(1, SECTOR)));
        memcpy(s, f->sector[n - 1], size % SECTOR);
        f->sector[n - 1] = s;
    }
    f->size = size;
}

/* Bytes from .. to-1 of one sector. data NULL: zeros. */
static void sector_put(struct image *im, struct inode *f, size_t n, size_t from, size_t to, const uint8_t *data)
{
    if (from == 0 && to == SECTOR) {
        f->sector[n] = data;
        return;
    }
    uint8_t *s = own(im, need(calloc(1, SECTOR)));
    if (f->sector[n])
        memcpy(s, f->sector[n], SECTOR);
    if (data)
        memcpy(s + from, data, to - from);
    else
        memset(s + from, 0, to - from);
    f->sector[n] = s;
}

/* Those sectors of a write, or of a hole, for which the dice say so: keep of 256. */
static void put(struct image *im, struct inode *f, const struct entry *e, unsigned keep, uint64_t *rng)
{
    uint64_t end = e->off + e->len;
    if (e->kind == ZERO && end > f->size)
        end = f->size;
    for (uint64_t at = e->off; at < end;) {
        size_t from = at % SECTOR, to = end - at < SECTOR - from ? from + (size_t)(end - at) : SECTOR;
        bool here = keep >= 256 || rnd(rng) % 256 < keep;
        if (here && at + (to - from) > f->size)
            resize(im, f, at + (to - from));
        if (here)
            sector_put(im, f, (size_t)(at / SECTOR), from, to, e->kind == ZERO ? NULL : e->data + (at - e->off));
        at += to - from;
    }
    /* Its length may have got there before its bytes. */
    if (e->kind == WRITE && keep < 256 && end > f->size && rnd(rng) % 4 == 0)
        resize(im, f, end);
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------------------- */

/* Of what path leads to, or of the symbolic link that it is itself. */
static const struct attrs *attrs_of(struct image *im, const char *path, bool follow)
{
    struct stat st;
    char list[4096], value[4096];
    if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
        fail(path);
    struct attrs *a = own(im, need(calloc(1, sizeof *a)));
    *a = (struct attrs){ .mode = st.st_mode & 07777, .uid = st.st_uid, .gid = st.st_gid, .mtime = st.st_mtim };
    ssize_t n = S_ISLNK(st.st_mode) ? 0 : listxattr(path, list, sizeof list);
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
        size_t name = strlen(list + at) + 1;
        ssize_t len = getxattr(path, list + at, value, sizeof value);
        if (len < 0)
            fail(list + at);
        struct xattr *x = own(im, need(malloc(sizeof *x + name)));
        *x = (struct xattr){ .next = a->x, .len = (size_t)len, .value = own(im, need(memcpy(need(malloc((size_t)len + 1)), value, (size_t)len))) };
        memcpy(x->name, list + at, name);
        a->x = x;
    }
    return a;
}

static const char *fd_path(int fd, char out[32])
{
    snprintf(out, 32, "/proc/self/fd/%d", fd);
    return out;
}

int __real_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __real_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int __real_removexattr(const char *path, const char *name);
int __real_chmod(const char *path, mode_t mode);
int __real_fchmod(int fd, mode_t mode);
int __real_fchown(int fd, uid_t uid, gid_t gid);
int __real_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
int __real_futimens(int fd, const struct timespec ts[2]);
int __real_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags);

static void attrs_write(const struct attrs *a, mode_t type, int dirfd, const char *name, int fd)
{
    struct timespec ts[2];
    if (!a)
        return;
    ts[0] = (struct timespec){ 0, UTIME_OMIT };
    ts[1] = a->mtime;
    if (type == S_IFLNK) {
        if ((geteuid() == 0 && __real_fchownat(dirfd, name, a->uid, a->gid, AT_SYMLINK_NOFOLLOW)) || __real_utimensat(dirfd, name, ts, AT_SYMLINK_NOFOLLOW))
            fail(name);
        return;
    }
    if ((geteuid() == 0 && __real_fchown(fd, a->uid, a->gid)) || __real_fchmod(fd, a->mode))
        fail(name);
    for (const struct xattr *x = a->x; x; x = x->next)
        if (__real_fsetxattr(fd, x->name, x->value, x->len, 0))
            fail(x->name);
    if (__real_futimens(fd, ts))
        fail(name);
}

/* ---- images ------------------------------------------------------------------------------------------------------------------------ */

static void scan_file(struct image *im, size_t n, int fd)
{
    struct inode *f = &im->inode[n];
    off_t end = lseek(fd, 0, SEEK_END);
    resize(im, f, (uint64_t)end);
    uint8_t buf[64 * SECTOR];
    static const uint8_t zero[SECTOR];
    for (off_t at = 0; (at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end;) {
        at -= at % SECTOR;
        ssize_t got = pread(fd, buf, sizeof buf, at);
        if (got < 0)
            fail("pread");
        memset(buf + got, 0, sizeof buf - (size_t)got);
        for (size_t s = 0; s * SECTOR < (size_t)got; s++)
            if (memcmp(buf + s * SECTOR, zero, SECTOR) != 0)
                f->sector[(size_t)at / SECTOR + s] = own(im, need(memcpy(need(malloc(SECTOR)), buf + s * SECTOR, SECTOR)));
        at += got;
    }
}

static void scan_dir(struct image *im, size_t n, int dirfd)
{
    DIR *d = fdopendir(dirfd);
    if (!d)
        fail("fdopendir");
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            fail("fstatat");
        size_t i = find_ino(im, st.st_ino);
        if (i != SIZE_MAX) {
            dent_add(&im->inode[n], own(im, need(strdup(e->d_name))), i);
            continue;
        }
        i = inode_add(im, st.st_mode, st.st_ino);
        dent_add(&im->inode[n], own(im, need(strdup(e->d_name))), i);
        char path[320];
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dirfd, e->d_name);
        const struct attrs *attrs = attrs_of(im, path, false);
        im->inode[i].attrs = attrs;
        if (S_ISLNK(st.st_mode)) {
            char *t = own(im, need(calloc(1, 4096)));
            if (readlinkat(dirfd, e->d_name, t, 4095) < 0)
                fail("readlinkat");
            im->inode[i].target = t;
        } else {
            int fd = openat(dirfd, e->d_name, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                fail(e->d_name);
            if (S_ISDIR(st.st_mode)) {
                scan_dir(im, i, fd);
            } else {
                scan_file(im, i, fd);
                close(fd);
            }
        }
    }
    closedir(d);
}

struct image *image_scan(const char *dir)
{
    struct image *im = need(calloc(1, sizeof *im));
    struct stat st;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        fail(dir);
    inode_add(im, S_IFDIR, st.st_ino);
    scan_dir(im, 0, fd);
    return im;
}

static void write_file(struct inode *f, int fd)
{
    uint8_t buf[TAKEN * SECTOR];
    if (ftruncate(fd, (off_t)f->size))
        fail("ftruncate");
    for (size_t s = 0; s < f->n_sector; s++) {
        size_t n = 0;
        for (; n < TAKEN && s + n < f->n_sector && f->sector[s + n]; n++)
            memcpy(buf + n * SECTOR, f->sector[s + n], SECTOR);
        if (!n)
            continue;
        size_t len = n * SECTOR, at = s * SECTOR;
        if (at + len > f->size)
            len = (size_t)f->size - at;
        if (pwrite(fd, buf, len, (off_t)at) != (ssize_t)len)
            fail("pwrite");
        s += n - 1;
    }
}

static void write_dir(struct image *im, size_t n, int dirfd, int topfd, char **path)
{
    for (size_t k = 0; k < im->inode[n].n_dent; k++) {
        const struct dent *d = &im->inode[n].dent[k];
        struct inode *f = &im->inode[d->inode];
        struct stat st;
        int fd = -1, rc;
        if (path[d->inode]) {
            rc = linkat(topfd, path[d->inode], dirfd, d->name, 0);
        } else if (f->type == S_IFLNK) {
            rc = symlinkat(f->target, dirfd, d->name);
        } else if (f->type == S_IFDIR) {
            rc = mkdirat(dirfd, d->name, 0755);
            fd = openat(dirfd, d->name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        } else {
            rc = fd = openat(dirfd, d->name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        }
        if (rc < 0 || fstatat(dirfd, d->name, &st, AT_SYMLINK_NOFOLLOW))
            fail(d->name);
        f->ino = st.st_ino;
        if (f->type == S_IFDIR) {
            write_dir(im, d->inode, fd, topfd, path);
        } else if (fd >= 0) {
            write_file(f, fd);
        }
        if (!path[d->inode])
            attrs_write(f->attrs, f->type, dirfd, d->name, fd);
        if (f->type == S_IFREG && !path[d->inode]) { /* for further links to it */
            char link[64], to[4096];
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t len = readlink(link, to, sizeof to - 1);
            if (len < 0)
                fail("readlink");
            to[len] = 0;
            path[d->inode] = need(strdup(to));
        }
        if (fd >= 0)
            close(fd);
    }
}

void image_write(struct image *im, const char *dir)
{
    struct stat st;
    char **path = need(calloc(im->n, sizeof *path));
    for (size_t i = 0; i < im->n; i++)
        im->inode[i].ino = 0;
    int fd = mkdir(dir, 0700) ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        fail(dir);
    im->inode[0].ino = st.st_ino;
    write_dir(im, 0, fd, fd, path);
    close(fd);
    for (size_t i = 0; i < im->n; i++)
        free(path[i]);
    free(path);
}

void image_free(struct image *im)
{
    for (size_t i = 0; i < im->n; i++) {
        free(im->inode[i].sector);
        free(im->inode[i].dent);
    }
    for (size_t i = 0; i < im->n_own; i++)
        free(im->own[i]);
    free(im->own);
    free(im->inode);
    free(im);
}

struct image *image_copy(const struct image *from)
{
    struct image *im = need(calloc(1, sizeof *im));
    im->n = im->cap = from->n;
    im->inode = need(calloc(im->n, sizeof *im->inode));
    for (size_t i = 0; i < im->n; i++) {
        const struct inode *f = &from->inode[i];
        struct inode *t = &im->inode[i];
        *t = *f;
        t->sector = f->n_sector ? need(malloc(f->n_sector * sizeof *t->sector)) : NULL;
        if (f->n_sector)
            memcpy(t->sector, f->sector, f->n_sector * sizeof *t->sector);
        t->cap_dent = f->n_dent;
        t->dent = f->n_dent ? need(malloc(f->n_dent * sizeof *t->dent)) : NULL;
        if (f->n_dent)
            memcpy(t->dent, f->dent, f->n_dent * sizeof *t->dent);
    }
    return im;
}

/* ---- recording ----------------------------------------------------------------------------------------------------------------------- */

struct record *record_begin(struct image *im)
{
    struct record *r = need(calloc(1, sizeof *r));
    r->im = im;
    n_reserved = 0;
    recording = r;
    return r;
}

void record_stop(void) { recording = NULL; }
size_t record_len(const struct record *r) { return r->n; }

static bool is_name(const struct entry *e) { return e->kind >= CREATE; }

size_t record_names(const struct record *r, size_t n)
{
    size_t names = 0;
    for (size_t i = 0; i < n; i++)
        names += is_name(&r->e[i]);
    return names;
}

void record_free(struct record *r)
{
    for (size_t i = 0; i < r->n; i++) {
        free(r->e[i].data);
        free(r->e[i].name);
        free(r->e[i].name2);
    }
    free(r->e);
    free(r);
}

static struct entry *note(enum kind kind)
{
    GROW(recording->e, recording->n, recording->cap);
    struct entry *e = &recording->e[recording->n++];
    *e = (struct entry){ .kind = kind };
    return e;
}

static size_t inode_of(int fd)
{
    struct stat st;
    return recording && fstat(fd, &st) == 0 ? find_ino(recording->im, st.st_ino) : SIZE_MAX;
}

/* What the attributes of the inode behind path have become, if that is recorded. */
static void note_attrs(const char *path)
{
    struct stat st;
    size_t n = recording && stat(path, &st) == 0 ? find_ino(recording->im, st.st_ino) : SIZE_MAX;
    if (n == SIZE_MAX)
        return;
    const struct attrs *a = attrs_of(recording->im, path, true);
    struct entry *e = note(ATTRS);
    e->inode = n;
    e->attrs = a;
}

static void note_attrs_fd(int fd)
{
    char path[32];
    if (recording)
        note_attrs(fd_path(fd, path));
}

static void name_apply(struct image *im, const struct entry *e)
{
    struct inode *dir = &im->inode[e->dir];
    struct dent *d;
    switch (e->kind) {
    case CREATE:
    case LINK:
        dent_add(dir, e->name, e->inode);
        break;
    case UNLINK:
        dent_drop(dir, e->name);
        break;
    case EXCHANGE: {
        struct dent *a = dent_find(dir, e->name), *b = dent_find(&im->inode[e->dir2], e->name2);
        size_t t = a->inode;
        a->inode = b->inode;
        b->inode = t;
        break;
    }
    default: /* RENAME */
        d = dent_find(dir, e->name);
        if (d) {
            size_t n = d->inode;
            dent_drop(&im->inode[e->dir2], e->name2);
            dent_drop(&im->inode[e->dir], e->name);
            dent_add(&im->inode[e->dir2], e->name2, n);
        }
    }
}

/* The attributes of each inode, in the order in which they were set: up to the last barrier that covers them, then up to anywhere. */
static void attrs_apply(struct image *im, const struct record *r, size_t cut, uint64_t *rng)
{
    size_t *all = need(calloc(im->n, sizeof *all)), *least = need(calloc(im->n, sizeof *least));
    bool *old = need(calloc(im->n, sizeof *old)); /* was there, or was made durable, before: no longer comes whole with the first barrier */
    for (size_t k = 0; k < im->n; k++)
        old[k] = true;
    for (size_t i = 0; i < r->n; i++)
        if (r->e[i].kind == CREATE)
            old[r->e[i].inode] = false;
    for (size_t i = 0; i < cut; i++) {
        const struct entry *e = &r->e[i];
        if (e->kind == ATTRS)
            all[e->inode]++;
        for (size_t k = 0; k < im->n && e->kind == BARRIER_ALL; k++)
            least[k] = all[k];
        if (e->kind == BARRIER && (!e->data_only || !old[e->inode])) {
            least[e->inode] = all[e->inode];
            old[e->inode] = true;
        }
    }
    for (size_t k = 0; k < im->n; k++)
        all[k] = least[k] + (all[k] > least[k] ? rnd(rng) % (all[k] - least[k] + 1) : 0);
    for (size_t i = 0; i < cut; i++)
        if (r->e[i].kind == ATTRS && all[r->e[i].inode]) {
            all[r->e[i].inode]--;
            im->inode[r->e[i].inode].attrs = r->e[i].attrs;
        }
    free(all);
    free(least);
    free(old);
}

struct image *record_crash(const struct record *r, size_t cut, uint64_t *rng, size_t *ret_names)
{
    struct image *im = image_copy(r->im);
    attrs_apply(im, r, cut, rng);
    /* Names: all up to the last barrier that covers them, then up to anywhere. */
    size_t least = 0, all = 0, n = 0;
    size_t *barrier = need(calloc(im->n, sizeof *barrier)); /* of each inode: what stands before is durable */
    size_t *made = need(calloc(im->n, sizeof *made));       /* name changes up to its creation */
    for (size_t i = 0; i < cut; i++) {
        const struct entry *e = &r->e[i];
        if (is_name(e)) {
            all++;
            if (e->kind == CREATE || (e->kind == LINK && !made[e->inode]))
                made[e->inode] = all;
        } else if (e->kind == BARRIER_ALL) {
            least = all;
            for (size_t k = 0; k < im->n; k++)
                barrier[k] = i;
        } else if (e->kind == BARRIER) {
            barrier[e->inode] = i;
            if (im->inode[e->inode].type == S_IFDIR)
                least = all;
            else if (made[e->inode] > least)
                least = made[e->inode];
        }
    }
    size_t names = rnd(rng) % 3 == 0 ? all : least + rnd(rng) % (all - least + 1);
    for (size_t i = 0; i < cut && n < names; i++)
        if (is_name(&r->e[i])) {
            name_apply(im, &r->e[i]);
            n++;
        }
    /* Contents: one mood for each inode. */
    unsigned *mood = need(calloc(im->n, sizeof *mood));
    static const unsigned moods[] = { 0, 256, 20, 128, 236, 250 };
    for (size_t k = 0; k < im->n; k++)
        mood[k] = moods[rnd(rng) % (sizeof moods / sizeof *moods)];
    for (size_t i = 0; i < cut; i++) {
        const struct entry *e = &r->e[i];
        if (e->kind > ZERO)
            continue;
        struct inode *f = &im->inode[e->inode];
        unsigned keep = i < barrier[e->inode] && !e->lost ? 256 : mood[e->inode];
        if (e->kind != TRUNCATE)
            put(im, f, e, keep, rng);
        else if (keep >= 256 || rnd(rng) % 256 < keep)
            resize(im, f, e->len);
    }
    free(mood);
    free(made);
    free(barrier);
    *ret_names = names;
    return im;
}

/* ---- errors from below --------------------------------------------------------------------------------------------------------------- */

struct fault fault;

enum call { CALL_WRITE = 1, CALL_SYNC = 2, CALL_SPACE = 4 /* may need space */, CALL_OTHER = 8 };

/* Ranges set aside by fallocate: to a full disk they are no news. */
static struct range {
    ino_t ino;
    off_t from, to;
} reserved[256];

static bool needs_space(int fd, off_t off, off_t len)
{
    struct stat st;
    if (fstat(fd, &st))
        return true;
    for (unsigned i = 0; i < n_reserved; i++)
        if (reserved[i].ino == st.st_ino && reserved[i].from <= off && off + len <= reserved[i].to)
            return false;
    /* The journal has its space, though an image holds its zeros as a hole. */
    struct dent *j = recording ? dent_find(&recording->im->inode[0], "leadglass.journal") : NULL;
    if (j && recording->im->inode[j->inode].ino == st.st_ino)
        return false;
    for (off_t block = off - off % 4096; block < off + len; block += 4096)
        if (lseek(fd, block, SEEK_DATA) != block)
            return true;
    return false;
}

/* The error of this call, or 0. */
static int trip(unsigned call)
{
    disk_calls++;
    bool counts = fault.kind == FAULT_ERROR || (fault.kind == FAULT_SPACE && call & CALL_SPACE) || (fault.kind == FAULT_LOST_SYNC && call & CALL_SYNC) ||
                  ((fault.kind == FAULT_PART || fault.kind == FAULT_SHORT) && call & CALL_WRITE);
    if (!counts)
        return 0;
    fault.calls++;
    if (fault.calls < fault.at || fault.calls - fault.at >= fault.times)
        return 0;
    fault.hits++;
    return fault.error;
}

static int trip_errno(unsigned call)
{
    int rc = trip(call);
    errno = rc ? -rc : errno;
    return rc ? -1 : 0;
}

static int full_errno(void)
{
    if (fault.kind != FAULT_FULL)
        return 0;
    fault.hits++;
    errno = -fault.error;
    return -1;
}

/* ---- the backend --------------------------------------------------------------------------------------------------------------------- */

static ssize_t d_pread(void *arg, int fd, void *buf, size_t len, off_t off)
{
    disk_calls++;
    return lg_sys_posix.pread(arg, fd, buf, len, off);
}
static ssize_t pwritev_locked(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    off_t len = 0;
    for (int i = 0; i < n; i++)
        len += (off_t)iov[i].iov_len;
    bool one = n == 1 && iov[0].iov_len < 2; /* cannot be done by half */
    int rc = fault.kind == FAULT_FULL && needs_space(fd, off, len) ? (fault.hits++, fault.error)
             : one && fault.kind == FAULT_SHORT                    ? 0
                                                                   : trip(CALL_WRITE | CALL_SPACE);
    struct iovec half = n ? (struct iovec){ iov[0].iov_base, iov[0].iov_len / 2 } : (struct iovec){ 0 };
    if (fault.kind == FAULT_PART) { /* sectors are written whole or not at all */
        size_t cut = (size_t)(off + (off_t)half.iov_len) % SECTOR;
        half.iov_len -= cut < half.iov_len ? cut : half.iov_len;
    }
    bool part = rc && ((fault.kind == FAULT_PART && !fault.parted) || fault.kind == FAULT_SHORT) && half.iov_len;
    if (rc && !part)
        return rc;
    if (part) {
        iov = &half;
        n = 1;
        if (fault.kind == FAULT_PART) { /* the rest of it meets the error */
            fault.at = fault.calls + 1;
            fault.parted = true;
        }
    }
    ssize_t w = lg_sys_posix.pwritev(arg, fd, iov, n, off);
    size_t inode = inode_of(fd);
    if (w > 0 && inode != SIZE_MAX) {
        struct entry *e = note(WRITE);
        e->inode = inode;
        e->off = (uint64_t)off;
        e->len = (uint64_t)w;
        e->data = need(malloc((size_t)w));
        size_t at = 0;
        for (int i = 0; i < n && at < (size_t)w; i++) {
            size_t m = iov[i].iov_len < (size_t)w - at ? iov[i].iov_len : (size_t)w - at;
            memcpy(e->data + at, iov[i].iov_base, m);
            at += m;
        }
        note_attrs_fd(fd); /* its time */
    }
    return w;
}
/* Large writes come from several threads, in any order. */
static ssize_t d_pwritev(void *arg, int fd, const struct iovec *iov, int n, off_t off)
{
    static pthread_mutex_t mu = PTHREAD_MUTEX_INITIALIZER;
    pthread_mutex_lock(&mu);
    ssize_t w = pwritev_locked(arg, fd, iov, n, off);
    pthread_mutex_unlock(&mu);
    return w;
}

/* What a barrier that failed was to make durable. */
static void lose(size_t inode)
{
    for (size_t i = recording ? recording->n : 0; i-- > 0;) {
        struct entry *e = &recording->e[i];
        if (e->kind == BARRIER_ALL || (e->kind == BARRIER && e->inode == inode))
            break;
        if (e->kind == WRITE && e->inode == inode)
            e->lost = true;
    }
}

static int sync_or_fail(int fd, bool data_only)
{
    int rc = trip(CALL_SYNC | CALL_SPACE);
    if (rc && fault.kind == FAULT_LOST_SYNC && inode_of(fd) != SIZE_MAX)
        lose(inode_of(fd));
    size_t inode = rc ? SIZE_MAX : inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = note(BARRIER);
        e->inode = inode;
        e->data_only = data_only;
    }
    return rc;
}
static int d_fdatasync(void *arg, int fd) { return (void)arg, sync_or_fail(fd, true); }
static int d_fsync(void *arg, int fd) { return (void)arg, sync_or_fail(fd, false); }
static int d_ftruncate(void *arg, int fd, off_t len)
{
    int rc = trip(CALL_OTHER);
    if (!rc)
        rc = lg_sys_posix.ftruncate(arg, fd, len);
    size_t inode = rc ? SIZE_MAX : inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = note(TRUNCATE);
        e->inode = inode;
        e->len = (uint64_t)len;
        note_attrs_fd(fd);
    }
    return rc;
}
static int d_fallocate(void *arg, int fd, int mode, off_t off, off_t len)
{
    bool space = !(mode & FALLOC_FL_PUNCH_HOLE);
    int rc = fault.kind == FAULT_FULL && space && needs_space(fd, off, len) ? (fault.hits++, fault.error) : trip(space ? CALL_SPACE : CALL_OTHER);
    struct stat st;
    if (!rc)
        rc = lg_sys_posix.fallocate(arg, fd, mode, off, len);
    if (!rc && space && n_reserved < sizeof reserved / sizeof *reserved && fstat(fd, &st) == 0)
        reserved[n_reserved++] = (struct range){ st.st_ino, off, off + len };
    size_t inode = rc || !(mode & FALLOC_FL_PUNCH_HOLE) ? SIZE_MAX : inode_of(fd);
    if (inode != SIZE_MAX) {
        struct entry *e = note(ZERO);
        e->inode = inode;
        e->off = (uint64_t)off;
        e->len = (uint64_t)len;
        note_attrs_fd(fd);
    }
    return rc;
}
static int d_fstat(void *arg, int fd, struct stat *st) { return lg_sys_posix.fstat(arg, fd, st); }
static off_t d_lseek(void *arg, int fd, off_t off, int whence) { return lg_sys_posix.lseek(arg, fd, off, whence); }
static int d_futimens(void *arg, int fd, const struct timespec ts[2])
{
    int rc = trip(CALL_OTHER);
    return rc ? rc : lg_sys_posix.futimens(arg, fd, ts);
}

const struct lg_sys disk_sys = { .pread = d_pread, .pwritev = d_pwritev, .fdatasync = d_fdatasync, .fsync = d_fsync, .ftruncate = d_ftruncate,
                                 .fallocate = d_fallocate, .fstat = d_fstat, .lseek = d_lseek, .futimens = d_futimens };

/* ---- names, by the linker's --wrap ------------------------------------------------------------------------------------------------------ */

int __real_openat(int dirfd, const char *name, int flags, ...);
int __real_mkdirat(int dirfd, const char *name, mode_t mode);
int __real_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev);
int __real_symlinkat(const char *target, int dirfd, const char *name);
int __real_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags);
int __real_unlinkat(int dirfd, const char *name, int flags);
int __real_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags);
int __real_syncfs(int fd);
int __real_fsync(int fd);
int __wrap_openat(int dirfd, const char *name, int flags, ...);
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode);
int __wrap_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev);
int __wrap_symlinkat(const char *target, int dirfd, const char *name);
int __wrap_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags);
int __wrap_unlinkat(int dirfd, const char *name, int flags);
int __wrap_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags);
int __wrap_syncfs(int fd);
int __wrap_fsync(int fd);

static void created(int dirfd, const char *name, const char *target)
{
    size_t dir = inode_of(dirfd);
    struct stat st;
    if (dir == SIZE_MAX || fstatat(dirfd, name, &st, AT_SYMLINK_NOFOLLOW))
        return;
    size_t n = inode_add(recording->im, st.st_mode, st.st_ino);
    char path[320];
    snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dirfd, name);
    const struct attrs *a = attrs_of(recording->im, path, false);
    recording->im->inode[n].attrs = a;
    if (target)
        recording->im->inode[n].target = own(recording->im, need(strdup(target)));
    struct entry *e = note(CREATE);
    e->inode = n;
    e->dir = dir;
    e->name = need(strdup(name));
}

int __wrap_openat(int dirfd, const char *name, int flags, ...)
{
    va_list ap;
    va_start(ap, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    bool create = flags & O_CREAT && recording && faccessat(dirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    bool makes = create || (recording && (flags & O_TMPFILE) == O_TMPFILE);
    if (makes && (full_errno() || trip_errno(CALL_SPACE)))
        return -1;
    int fd = __real_openat(dirfd, name, flags, mode);
    if (fd >= 0 && (flags & O_TMPFILE) == O_TMPFILE) {
        struct stat st;
        if (recording && fstat(fd, &st) == 0) {
            char path[32];
            size_t n = inode_add(recording->im, st.st_mode, st.st_ino);
            const struct attrs *a = attrs_of(recording->im, fd_path(fd, path), true);
            recording->im->inode[n].attrs = a;
        }
    }
    if (fd >= 0 && create)
        created(dirfd, name, NULL);
    return fd;
}
int __wrap_mkdirat(int dirfd, const char *name, mode_t mode)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_mkdirat(dirfd, name, mode);
    if (!rc)
        created(dirfd, name, NULL);
    return rc;
}
int __wrap_mknodat(int dirfd, const char *name, mode_t mode, dev_t dev)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_mknodat(dirfd, name, mode, dev);
    if (!rc)
        created(dirfd, name, NULL);
    return rc;
}
int __wrap_symlinkat(const char *target, int dirfd, const char *name)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_symlinkat(target, dirfd, name);
    if (!rc)
        created(dirfd, name, target);
    return rc;
}
int __wrap_linkat(int olddirfd, const char *old, int newdirfd, const char *name, int flags)
{
    if (full_errno() || trip_errno(CALL_SPACE))
        return -1;
    int rc = __real_linkat(olddirfd, old, newdirfd, name, flags);
    size_t dir = rc ? SIZE_MAX : inode_of(newdirfd);
    struct stat st;
    if (dir != SIZE_MAX && fstatat(newdirfd, name, &st, AT_SYMLINK_NOFOLLOW) == 0) {
        size_t n = find_ino(recording->im, st.st_ino);
        if (n == SIZE_MAX)
            fail("link to an unknown inode");
        struct entry *e = note(LINK);
        e->inode = n;
        e->dir = dir;
        e->name = need(strdup(name));
    }
    return rc;
}
int __wrap_unlinkat(int dirfd, const char *name, int flags)
{
    if (trip_errno(CALL_OTHER))
        return -1;
    int rc = __real_unlinkat(dirfd, name, flags);
    size_t dir = rc ? SIZE_MAX : inode_of(dirfd);
    if (dir != SIZE_MAX) {
        struct entry *e = note(UNLINK);
        e->dir = dir;
        e->name = need(strdup(name));
    }
    return rc;
}
int __wrap_renameat2(int olddirfd, const char *old, int newdirfd, const char *name, unsigned flags)
{
    struct stat a = { 0 }, b = { 0 };
    bool same = recording && !fstatat(olddirfd, old, &a, AT_SYMLINK_NOFOLLOW) && !fstatat(newdirfd, name, &b, AT_SYMLINK_NOFOLLOW) && a.st_ino == b.st_ino;
    bool grows = !(flags & 2) && faccessat(newdirfd, name, F_OK, AT_SYMLINK_NOFOLLOW) != 0;
    if ((grows && full_errno()) || trip_errno(grows ? CALL_SPACE : CALL_OTHER))
        return -1;
    int rc = __real_renameat2(olddirfd, old, newdirfd, name, flags);
    size_t dir = rc || same ? SIZE_MAX : inode_of(olddirfd);
    if (dir != SIZE_MAX) {
        struct entry *e = note(flags & 2 ? EXCHANGE : RENAME); /* RENAME_EXCHANGE */
        e->dir = dir;
        e->dir2 = inode_of(newdirfd);
        e->name = need(strdup(old));
        e->name2 = need(strdup(name));
    }
    return rc;
}
int __wrap_syncfs(int fd)
{
    if (trip_errno(CALL_SYNC)) {
        for (size_t k = 0; fault.kind == FAULT_LOST_SYNC && recording && k < recording->im->n; k++)
            lose(k);
        return -1;
    }
    if (inode_of(fd) != SIZE_MAX)
        note(BARRIER_ALL);
    return 0;
}
int __wrap_fsync(int fd)
{
    int rc = sync_or_fail(fd, false);
    errno = rc ? -rc : errno;
    return rc ? -1 : 0;
}

/* ---- attributes, likewise ---------------------------------------------------------------------------------------------------------------- */

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags);
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
int __wrap_removexattr(const char *path, const char *name);
int __wrap_chmod(const char *path, mode_t mode);
int __wrap_fchmod(int fd, mode_t mode);
int __wrap_fchown(int fd, uid_t uid, gid_t gid);
int __wrap_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags);
int __wrap_futimens(int fd, const struct timespec ts[2]);
int __wrap_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags);

static int noted(int rc, const char *path)
{
    if (!rc)
        note_attrs(path);
    return rc;
}
static int noted_fd(int rc, int fd)
{
    if (!rc)
        note_attrs_fd(fd);
    return rc;
}

int __wrap_setxattr(const char *path, const char *name, const void *value, size_t size, int flags)
{
    return full_errno() || trip_errno(CALL_SPACE) ? -1 : noted(__real_setxattr(path, name, value, size, flags), path);
}
int __wrap_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags)
{
    return full_errno() || trip_errno(CALL_SPACE) ? -1 : noted_fd(__real_fsetxattr(fd, name, value, size, flags), fd);
}
int __wrap_removexattr(const char *path, const char *name) { return trip_errno(CALL_OTHER) ? -1 : noted(__real_removexattr(path, name), path); }
int __wrap_chmod(const char *path, mode_t mode) { return trip_errno(CALL_OTHER) ? -1 : noted(__real_chmod(path, mode), path); }
int __wrap_fchmod(int fd, mode_t mode) { return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchmod(fd, mode), fd); }
int __wrap_fchown(int fd, uid_t uid, gid_t gid) { return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchown(fd, uid, gid), fd); }
int __wrap_fchownat(int dirfd, const char *path, uid_t uid, gid_t gid, int flags)
{
    return trip_errno(CALL_OTHER) ? -1 : noted_fd(__real_fchownat(dirfd, path, uid, gid, flags), dirfd); /* the core's are all of the descriptor itself */
}
/* Errors of times come through the backend. */
int __wrap_futimens(int fd, const struct timespec ts[2]) { return noted_fd(__real_futimens(fd, ts), fd); }
int __wrap_utimensat(int dirfd, const char *path, const struct timespec ts[2], int flags)
{
    return noted_fd(__real_utimensat(dirfd, path, ts, flags), dirfd);
}
