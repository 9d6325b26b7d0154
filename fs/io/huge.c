#include "leadglass/huge.h"

#include <stdint.h>
#include <sys/mman.h>

/* Aligned, as only whole ones become huge pages; at the upper end, so that the next, which the system puts below, is the same mapping to it. */
void *lg_huge_map(size_t len)
{
    uint8_t *p = mmap(NULL, len + LG_HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t after = (uintptr_t)p % LG_HUGE, before = LG_HUGE - after;
    munmap(p, before);
    if (after)
        munmap(p + before + len, after);
    (void)madvise(p + before, len, MADV_HUGEPAGE);
    return p + before;
}

void lg_huge_unmap(void *p, size_t len)
{
    if (p)
        munmap(p, len);
}
