#include "image.h"

#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

struct record *recording;

/* ---- what is recorded ---------------------------------------------------------------------------------------------------------------- */

struct record *record_begin(struct image *im)
{
    struct record *r = disk_need(calloc(1, sizeof *r));
    r->im = im;
    disk_n_reserved = 0;
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

struct entry *record_note(enum kind kind)
{
    GROW(recording->e, recording->n, recording->cap);
    struct entry *e = &recording->e[recording->n++];
    *e = (struct entry){ .kind = kind };
    return e;
}

size_t record_inode_of(int fd)
{
    struct stat st;
    return recording && fstat(fd, &st) == 0 ? image_find_ino(recording->im, st.st_ino) : SIZE_MAX;
}

void record_attrs(const char *path)
{
    struct stat st;
    size_t n = recording && stat(path, &st) == 0 ? image_find_ino(recording->im, st.st_ino) : SIZE_MAX;
    if (n == SIZE_MAX)
        return;
    const struct attrs *a = image_attrs_of(recording->im, path, true);
    struct entry *e = record_note(ATTRS);
    e->inode = n;
    e->attrs = a;
}

void record_attrs_fd(int fd)
{
    char path[32];
    if (recording)
        record_attrs(disk_fd_path(fd, path));
}

/* ---- what of it a crash leaves ---------------------------------------------------------------------------------------------------------- */

/* Bytes from .. to-1 of one sector. data NULL: zeros. */
static void sector_put(struct image *im, struct inode *f, size_t n, size_t from, size_t to, const uint8_t *data)
{
    if (from == 0 && to == SECTOR) {
        f->sector[n] = data;
        return;
    }
    uint8_t *s = image_own(im, disk_need(calloc(1, SECTOR)));
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
            image_resize(im, f, at + (to - from));
        if (here)
            sector_put(im, f, (size_t)(at / SECTOR), from, to, e->kind == ZERO ? NULL : e->data + (at - e->off));
        at += to - from;
    }
    /* Its length may have got there before its bytes. */
    if (e->kind == WRITE && keep < 256 && end > f->size && rnd(rng) % 4 == 0)
        image_resize(im, f, end);
}

static void name_apply(struct image *im, const struct entry *e)
{
    struct inode *dir = &im->inode[e->dir];
    struct dent *d;
    switch (e->kind) {
    case CREATE:
    case LINK:
        image_dent_add(dir, e->name, e->inode);
        break;
    case UNLINK:
        image_dent_drop(dir, e->name);
        break;
    case EXCHANGE: {
        struct dent *a = image_dent_find(dir, e->name), *b = image_dent_find(&im->inode[e->dir2], e->name2);
        size_t t = a->inode;
        a->inode = b->inode;
        b->inode = t;
        break;
    }
    default: /* RENAME */
        d = image_dent_find(dir, e->name);
        if (d) {
            size_t n = d->inode;
            image_dent_drop(&im->inode[e->dir2], e->name2);
            image_dent_drop(&im->inode[e->dir], e->name);
            image_dent_add(&im->inode[e->dir2], e->name2, n);
        }
    }
}

/* The attributes of each inode, in the order in which they were set: up to the last barrier that covers them, then up to anywhere. */
static void attrs_apply(struct image *im, const struct record *r, size_t cut, uint64_t *rng)
{
    size_t *all = disk_need(calloc(im->n, sizeof *all)), *least = disk_need(calloc(im->n, sizeof *least));
    bool *old = disk_need(calloc(im->n, sizeof *old)); /* was there, or was made durable, before: no longer comes whole with the first barrier */
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
    size_t *barrier = disk_need(calloc(im->n, sizeof *barrier)); /* of each inode: what stands before is durable */
    size_t *made = disk_need(calloc(im->n, sizeof *made));       /* name changes up to its creation */
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
    unsigned *mood = disk_need(calloc(im->n, sizeof *mood));
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
            image_resize(im, f, e->len);
    }
    free(mood);
    free(made);
    free(barrier);
    *ret_names = names;
    return im;
}
