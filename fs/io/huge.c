#include "leadglass/huge.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

/* Aligned, as only whole ones become huge pages, and without a gap before the next, which would become one too. */
void *lg_huge_map(size_t len)
{
    uint8_t *p = mmap(NULL, len + LG_HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = -(uintptr_t)p % LG_HUGE;
    if (before)
        munmap(p, before);
    munmap(p + before + len, LG_HUGE - before);
    (void)madvise(p + before, len, MADV_HUGEPAGE);
    return p + before;
}

void lg_huge_unmap(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}

static bool large(size_t len) { return len >= LG_HUGE / 2; }
static size_t whole(size_t len) { return (len + LG_HUGE - 1) / LG_HUGE * LG_HUGE; }

void *lg_large_get(size_t len) { return large(len) ? lg_huge_map(whole(len)) : malloc(len); }

void lg_large_put(void *p, size_t len)
{
    if (large(len))
        lg_huge_unmap(p, whole(len));
    else
        free(p);
}
