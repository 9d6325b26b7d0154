/* huge.h: memory in huge pages, for what would otherwise be brought in by the kernel 4 KiB at a time: 18 us each on some virtual machines (docs/PERFORMANCE.md). */
#ifndef LEADGLASS_HUGE_H
#define LEADGLASS_HUGE_H

#include <stddef.h>

#include "leadglass/status.h"

#define LG_HUGE ((size_t)2 * 1024 * 1024)

/* len bytes of zeros, a multiple of LG_HUGE and aligned to it. NULL: no memory. Where the system has no huge pages it is memory as any other. */
void *lg_huge_map(size_t len) LG_MUST;
void lg_huge_unmap(void *p, size_t len); /* p may be NULL */

/* Whether the compiler watches what comes from malloc: then pieces of something else had better come from there too. */
#if defined(__SANITIZE_ADDRESS__)
#define LG_MALLOC_WATCHED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define LG_MALLOC_WATCHED 1
#endif
#endif
#ifndef LG_MALLOC_WATCHED
#define LG_MALLOC_WATCHED 0
#endif

#endif
