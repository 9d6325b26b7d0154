/* Inside the crashing disk: what an image and a record are made of. */
#ifndef LG_CRASH_IMAGE_H
#define LG_CRASH_IMAGE_H

#include <sys/types.h>
#include <time.h>

#include "disk.h"

enum { SECTOR = 512 };

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

extern struct record *recording; /* NULL: none */
extern unsigned disk_n_reserved;  /* ranges set aside by fallocate since it began */

/* Both end the program: of no memory, and of what should not have failed. */
void *disk_need(void *p);
_Noreturn void disk_fail(const char *what);
const char *disk_fd_path(int fd, char out[32]);

#define GROW(array, n, cap)                                                              \
    do {                                                                                 \
        if ((n) == (cap)) {                                                              \
            (cap) = (cap) ? (cap) * 2 : 16;                                              \
            (array) = disk_need(reallocarray((array), (cap), sizeof *(array)));               \
        }                                                                                \
    } while (0)

/* ---- image.c ---- */
void *image_own(struct image *im, void *p); /* p is freed with it */
size_t image_inode_add(struct image *im, mode_t type, ino_t ino);
void image_dent_add(struct inode *dir, char *name, size_t inode);
struct dent *image_dent_find(struct inode *dir, const char *name);
void image_dent_drop(struct inode *dir, const char *name);
size_t image_find_ino(const struct image *im, ino_t ino); /* SIZE_MAX: not there */
void image_resize(struct image *im, struct inode *f, uint64_t size);
/* Of what path leads to, or of the symbolic link that it is itself. */
const struct attrs *image_attrs_of(struct image *im, const char *path, bool follow);

/* ---- record.c ---- */
struct entry *record_note(enum kind kind);
size_t record_inode_of(int fd); /* SIZE_MAX: it does not concern the record */
/* What the attributes of the inode behind path have become, if that is recorded. */
void record_attrs(const char *path);
void record_attrs_fd(int fd);

#endif
