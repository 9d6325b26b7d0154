/* transport.h: why a mount's requests do not come over io_uring. leadglass-fs tells `leadglass status` by the name of one of its threads, which the key manager
 * need not know of, once that is settled: with the answer to the kernel's first request. A name has 15 bytes, so each reason has a word of three. */
#ifndef LEADGLASS_TRANSPORT_H
#define LEADGLASS_TRANSPORT_H

#include <stddef.h>

enum lg_ring_lack { LG_RING_TRIED, LG_RING_UNASKED, LG_RING_OLD_KERNEL, LG_RING_SWITCHED_OFF, LG_RING_REFUSED, LG_RING_NOT_BUILT, LG_RING_RUNS, LG_RING_LACKS };

struct lg_ring_reason {
    const char *word, *why;
};

static inline const struct lg_ring_reason *lg_ring_reason(enum lg_ring_lack lack)
{
    static const struct lg_ring_reason reasons[LG_RING_LACKS] = {
        [LG_RING_TRIED] = { "try", "the kernel offered FUSE over io_uring, and did not take it up" },
        [LG_RING_UNASKED] = { "ask", "as the mount's options say" },
        [LG_RING_OLD_KERNEL] = { "old", "FUSE over io_uring needs Linux 6.14" },
        [LG_RING_SWITCHED_OFF] = { "off", "the kernel has FUSE over io_uring switched off: write Y to /sys/module/fuse/parameters/enable_uring and mount again; for every boot see OPERATIONS.md, \"FUSE over io_uring\"" },
        [LG_RING_REFUSED] = { "sys", "the system refuses io_uring to this process (kernel.io_uring_disabled, or a container's filter)" },
        [LG_RING_NOT_BUILT] = { "lib", "this program was built with the system's libfuse" },
        [LG_RING_RUNS] = { "run", "" }, /* they do */
    };
    return &reasons[lack];
}

#endif
