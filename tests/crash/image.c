#include "image.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

enum { TAKEN = 64 };

uint64_t rnd(uint64_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    return *state ^= *state << 17;
}

void *disk_need(void *p)
{
    if (!p) {
        fprintf(stderr, "crash test: no memory\n");
        abort();
    }
    return p;
}

void disk_fail(const char *what)
{
    perror(what);
    abort();
}

void *image_own(struct image *im, void *p)
{
    GROW(im->own, im->n_own, im->cap_own);
    return im->own[im->n_own++] = p;
}

size_t image_inode_add(struct image *im, mode_t type, ino_t ino)
{
    GROW(im->inode, im->n, im->cap);
    im->inode[im->n] = (struct inode){ .type = type & S_IFMT, .ino = ino };
    return im->n++;
}

void image_dent_add(struct inode *dir, char *name, size_t inode)
{
    GROW(dir->dent, dir->n_dent, dir->cap_dent);
    dir->dent[dir->n_dent++] = (struct dent){ name, inode };
}

struct dent *image_dent_find(struct inode *dir, const char *name)
{
    for (size_t i = 0; i < dir->n_dent; i++)
        if (strcmp(dir->dent[i].name, name) == 0)
            return &dir->dent[i];
    return NULL;
}

void image_dent_drop(struct inode *dir, const char *name)
{
    struct dent *d = image_dent_find(dir, name);
    if (d)
        *d = dir->dent[--dir->n_dent];
}

size_t image_find_ino(const struct image *im, ino_t ino)
{
    for (size_t i = im->n; i-- > 0;)
        if (im->inode[i].ino == ino)
            return i;
    return SIZE_MAX;
}

/* ---- contents of an inode ------------------------------------------------------------------------------------------------------- */

void image_resize(struct image *im, struct inode *f, uint64_t size)
{
    size_t n = (size_t)((size + SECTOR - 1) / SECTOR);
    if (n > f->n_sector) {
        f->sector = disk_need(realloc(f->sector, n * sizeof *f->sector));
        memset(f->sector + f->n_sector, 0, (n - f->n_sector) * sizeof *f->sector);
    }
    f->n_sector = n;
    if (size < f->size && size % SECTOR && f->sector[n - 1]) { /* what was behind the end is gone for good */
        uint8_t *s = image_own(im, disk_need(calloc(1, SECTOR)));
        memcpy(s, f->sector[n - 1], size % SECTOR);
        f->sector[n - 1] = s;
    }
    f->size = size;
}

/* ---- attributes ---------------------------------------------------------------------------------------------------------------------- */

const struct attrs *image_attrs_of(struct image *im, const char *path, bool follow)
{
    struct stat st;
    char list[4096], value[4096];
    if (fstatat(AT_FDCWD, path, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW))
        disk_fail(path);
    struct attrs *a = image_own(im, disk_need(calloc(1, sizeof *a)));
    *a = (struct attrs){ .mode = st.st_mode & 07777, .uid = st.st_uid, .gid = st.st_gid, .mtime = st.st_mtim };
    ssize_t n = S_ISLNK(st.st_mode) ? 0 : listxattr(path, list, sizeof list);
    for (ssize_t at = 0; at < n; at += (ssize_t)strlen(list + at) + 1) {
        size_t name = strlen(list + at) + 1;
        ssize_t len = getxattr(path, list + at, value, sizeof value);
        if (len < 0)
            disk_fail(list + at);
        struct xattr *x = image_own(im, disk_need(malloc(sizeof *x + name)));
        *x = (struct xattr){ .next = a->x, .len = (size_t)len, .value = image_own(im, disk_need(memcpy(disk_need(malloc((size_t)len + 1)), value, (size_t)len))) };
        memcpy(x->name, list + at, name);
        a->x = x;
    }
    return a;
}

const char *disk_fd_path(int fd, char out[32])
{
    snprintf(out, 32, "/proc/self/fd/%d", fd);
    return out;
}

int __real_fsetxattr(int fd, const char *name, const void *value, size_t size, int flags);
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
            disk_fail(name);
        return;
    }
    if ((geteuid() == 0 && __real_fchown(fd, a->uid, a->gid)) || __real_fchmod(fd, a->mode))
        disk_fail(name);
    for (const struct xattr *x = a->x; x; x = x->next)
        if (__real_fsetxattr(fd, x->name, x->value, x->len, 0))
            disk_fail(x->name);
    if (__real_futimens(fd, ts))
        disk_fail(name);
}

/* ---- images ------------------------------------------------------------------------------------------------------------------------ */

static void scan_file(struct image *im, size_t n, int fd)
{
    struct inode *f = &im->inode[n];
    off_t end = lseek(fd, 0, SEEK_END);
    image_resize(im, f, (uint64_t)end);
    uint8_t buf[64 * SECTOR];
    static const uint8_t zero[SECTOR];
    for (off_t at = 0; (at = lseek(fd, at, SEEK_DATA)) >= 0 && at < end;) {
        at -= at % SECTOR;
        ssize_t got = pread(fd, buf, sizeof buf, at);
        if (got < 0)
            disk_fail("pread");
        memset(buf + got, 0, sizeof buf - (size_t)got);
        for (size_t s = 0; s * SECTOR < (size_t)got; s++)
            if (memcmp(buf + s * SECTOR, zero, SECTOR) != 0)
                f->sector[(size_t)at / SECTOR + s] = image_own(im, disk_need(memcpy(disk_need(malloc(SECTOR)), buf + s * SECTOR, SECTOR)));
        at += got;
    }
}

static void scan_dir(struct image *im, size_t n, int dirfd)
{
    DIR *d = fdopendir(dirfd);
    if (!d)
        disk_fail("fdopendir");
    for (struct dirent *e; (e = readdir(d));) {
        struct stat st;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW))
            disk_fail("fstatat");
        size_t i = image_find_ino(im, st.st_ino);
        if (i != SIZE_MAX) {
            image_dent_add(&im->inode[n], image_own(im, disk_need(strdup(e->d_name))), i);
            continue;
        }
        i = image_inode_add(im, st.st_mode, st.st_ino);
        image_dent_add(&im->inode[n], image_own(im, disk_need(strdup(e->d_name))), i);
        char path[320];
        snprintf(path, sizeof path, "/proc/self/fd/%d/%s", dirfd, e->d_name);
        const struct attrs *attrs = image_attrs_of(im, path, false);
        im->inode[i].attrs = attrs;
        if (S_ISLNK(st.st_mode)) {
            char *t = image_own(im, disk_need(calloc(1, 4096)));
            if (readlinkat(dirfd, e->d_name, t, 4095) < 0)
                disk_fail("readlinkat");
            im->inode[i].target = t;
        } else {
            int fd = openat(dirfd, e->d_name, O_RDONLY | O_CLOEXEC);
            if (fd < 0)
                disk_fail(e->d_name);
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
    struct image *im = disk_need(calloc(1, sizeof *im));
    struct stat st;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        disk_fail(dir);
    image_inode_add(im, S_IFDIR, st.st_ino);
    scan_dir(im, 0, fd);
    return im;
}

static void write_file(struct inode *f, int fd)
{
    uint8_t buf[TAKEN * SECTOR];
    if (ftruncate(fd, (off_t)f->size))
        disk_fail("ftruncate");
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
            disk_fail("pwrite");
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
            disk_fail(d->name);
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
                disk_fail("readlink");
            to[len] = 0;
            path[d->inode] = disk_need(strdup(to));
        }
        if (fd >= 0)
            close(fd);
    }
}

void image_write(struct image *im, const char *dir)
{
    struct stat st;
    char **path = disk_need(calloc(im->n, sizeof *path));
    for (size_t i = 0; i < im->n; i++)
        im->inode[i].ino = 0;
    int fd = mkdir(dir, 0700) ? -1 : open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st))
        disk_fail(dir);
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
    struct image *im = disk_need(calloc(1, sizeof *im));
    im->n = im->cap = from->n;
    im->inode = disk_need(calloc(im->n, sizeof *im->inode));
    for (size_t i = 0; i < im->n; i++) {
        const struct inode *f = &from->inode[i];
        struct inode *t = &im->inode[i];
        *t = *f;
        t->sector = f->n_sector ? disk_need(malloc(f->n_sector * sizeof *t->sector)) : NULL;
        if (f->n_sector)
            memcpy(t->sector, f->sector, f->n_sector * sizeof *t->sector);
        t->cap_dent = f->n_dent;
        t->dent = f->n_dent ? disk_need(malloc(f->n_dent * sizeof *t->dent)) : NULL;
        if (f->n_dent)
            memcpy(t->dent, f->dent, f->n_dent * sizeof *t->dent);
    }
    return im;
}
