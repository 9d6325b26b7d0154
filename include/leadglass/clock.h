/* The two clocks, read. */
#ifndef LEADGLASS_CLOCK_H
#define LEADGLASS_CLOCK_H

#include <stdint.h>
#include <time.h>

/* Milliseconds since some moment; never goes back, stands still while the host sleeps (CLOCK_MONOTONIC). For waiting. */
static inline int64_t lg_clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Microseconds since 1970-01-01 UTC, as the host believes; may go back (CLOCK_REALTIME). For telling when. */
static inline int64_t lg_clock_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

#endif
