/* Memory of nodes. What a million small pieces cost is to be brought in by the kernel page by page, and found again by the processor: chunks of huge pages spare
 * both (docs/PERFORMANCE.md). */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "internal.h"

enum { CHUNK = 2 * 1024 * 1024, STEP = 16 };
struct lg_slab_chunk {
    struct lg_slab_chunk *next;
};
_Static_assert(sizeof(struct lg_slab_chunk) <= STEP && LG_SLAB_MAX % STEP == 0, "pieces are aligned to STEP");

#if defined(__SANITIZE_ADDRESS__)
#define BY_MALLOC
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define BY_MALLOC
#endif
#endif

#ifdef BY_MALLOC /* so that use after free is seen */

void *lg_slab_get(struct lg_slab *s, size_t len) { return s && len && len <= LG_SLAB_MAX ? malloc(len) : NULL; }
void lg_slab_put(struct lg_slab *s, void *p, size_t len) { (void)s, (void)len, free(p); }

#else

/* Aligned, as only whole chunks become huge pages, and without a gap before the next, which would become one too. */
static struct lg_slab_chunk *chunk_map(void)
{
    uint8_t *p = mmap(NULL, 2 * (size_t)CHUNK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p % CHUNK;
    if (before)
        munmap(p, before);
    munmap(p + before + CHUNK, CHUNK - before);
    (void)madvise(p + before, CHUNK, MADV_HUGEPAGE); /* where there are none it is as any other memory */
    return (void *)(p + before);
}

static size_t class_of(size_t len) { return (len + STEP - 1) / STEP - 1; }

void *lg_slab_get(struct lg_slab *s, size_t len)
{
    if (!len || len > LG_SLAB_MAX)
        return NULL;
    size_t c = class_of(len), size = (c + 1) * STEP;
    void *p = s->free[c];
    if (p) {
        memcpy(&s->free[c], p, sizeof s->free[c]);
        return p;
    }
    if (s->left < size) { /* what is left of the old chunk is given up */
        struct lg_slab_chunk *chunk = chunk_map();
        if (!chunk)
            return NULL;
        chunk->next = s->chunks;
        s->chunks = chunk;
        s->at = (uint8_t *)chunk + STEP;
        s->left = CHUNK - STEP;
    }
    p = s->at;
    s->at += size;
    s->left -= size;
    return p;
}

void lg_slab_put(struct lg_slab *s, void *p, size_t len)
{
    if (!p)
        return;
    size_t c = class_of(len);
    memcpy(p, &s->free[c], sizeof s->free[c]);
    s->free[c] = p;
}

#endif

void lg_slab_free(struct lg_slab *s)
{
    for (struct lg_slab_chunk *c = s->chunks, *next; c; c = next) {
        next = c->next;
        munmap(c, CHUNK);
    }
}
