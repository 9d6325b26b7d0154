/* Memory of nodes. What a million small pieces cost is to be brought in by the kernel page by page, and found again by the processor: chunks of huge pages spare
 * both (docs/PERFORMANCE.md). */
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "leadglass/huge.h"

enum { CHUNK = LG_HUGE, STEP = 16 };
struct lg_slab_chunk {
    struct lg_slab_chunk *next;
};
_Static_assert(sizeof(struct lg_slab_chunk) <= STEP && LG_SLAB_MAX % STEP == 0, "pieces are aligned to STEP");

#if LG_MALLOC_WATCHED /* so that use after free is seen */

void *lg_slab_get(struct lg_slab *s, size_t len) { return s && len && len <= LG_SLAB_MAX ? malloc(len) : NULL; }
void lg_slab_put(struct lg_slab *s, void *p, size_t len) { (void)s, (void)len, free(p); }

#else

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
        struct lg_slab_chunk *chunk = lg_huge_map(CHUNK);
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
        lg_huge_unmap(c, CHUNK);
    }
}
