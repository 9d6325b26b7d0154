#include <dirent.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include "internal.h"

enum { TEXT_MAX = 2 * 1024 * 1024, TEXT_MIN = 4096 };

static int by_name(const void *a, const void *b, void *text)
{
    return strcmp((const char *)text + *(const uint32_t *)a, (const char *)text + *(const uint32_t *)b);
}

static void sort(struct lg_batch *b)
{
    if (b->n) /* of an empty directory there is no array */
        qsort_r(b->at, b->n, sizeof *b->at, by_name, b->text);
}

/* Full: the larger half of the names goes; they come with a later batch. */
static int halve(struct lg_batch *b)
{
    sort(b);
    b->n = (b->n + 1) / 2;
    char *text = malloc(b->cap);
    if (!text)
        return -ENOMEM;
    size_t used = 0;
    for (size_t i = 0; i < b->n; i++) {
        size_t n = strlen(b->text + b->at[i]) + 1;
        memcpy(text + used, b->text + b->at[i], n);
        b->at[i] = (uint32_t)used;
        used += n;
    }
    free(b->text);
    b->text = text;
    b->used = used;
    return 0;
}

static int room(struct lg_batch *b, size_t n)
{
    if (b->used + n > b->cap && b->cap < TEXT_MAX) {
        size_t cap = b->cap ? b->cap * 2 : TEXT_MIN;
        char *t = realloc(b->text, cap);
        if (!t)
            return -ENOMEM;
        b->text = t;
        b->cap = cap;
    }
    if (b->n == b->cap_at) {
        size_t cap = b->cap_at ? b->cap_at * 2 : 64;
        uint32_t *at = reallocarray(b->at, cap, sizeof *at);
        if (!at)
            return -ENOMEM;
        b->at = at;
        b->cap_at = cap;
    }
    return 0;
}

int lg_batch_next(int dirfd, const char *after, struct lg_batch *b)
{
    char bound[NAME_MAX + 1];
    bool bounded = false;
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    b->n = b->used = 0;
    if (!d) {
        rc = -errno;
        if (fd >= 0)
            close(fd);
        return rc;
    }
    lg_noatime(fd);
    while (!rc) {
        errno = 0;
        const struct dirent *e = readdir(d);
        if (!e) {
            rc = -errno;
            break;
        }
        const char *name = e->d_name;
        size_t n = strlen(name) + 1;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || (after && strcmp(name, after) <= 0) || (bounded && strcmp(name, bound) > 0))
            continue;
        rc = room(b, n);
        if (!rc && b->used + n > b->cap) {
            rc = halve(b);
            memcpy(bound, b->text + b->at[b->n - 1], strlen(b->text + b->at[b->n - 1]) + 1);
            bounded = true;
            if (strcmp(name, bound) > 0)
                continue;
        }
        if (!rc) {
            memcpy(b->text + b->used, name, n);
            b->at[b->n++] = (uint32_t)b->used;
            b->used += n;
        }
    }
    closedir(d);
    if (!rc)
        sort(b);
    return rc;
}

void lg_batch_free(struct lg_batch *b)
{
    free(b->text);
    free(b->at);
}
