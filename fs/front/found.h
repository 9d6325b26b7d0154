/* Inside the FUSE front: what is found to be damaged, for the log that people read. */
#ifndef LG_FRONT_FOUND_H
#define LG_FRONT_FOUND_H

#include "leadglass/file.h"

/* The same place and kind once in a window, the others are counted and told at its end. Thread-safe. */
struct lg_found;
int lg_found_new(unsigned window_ms, int64_t (*now_ms)(void), void (*say)(void *arg, const char *line), void *arg, struct lg_found **ret) LG_MUST; /* now_ms NULL: the clock */
void lg_found_free(struct lg_found *f); /* what was counted is told */
void lg_found_tell(struct lg_found *f, const struct lg_finding *found);
void lg_found_tick(struct lg_found *f); /* now and then: windows that have ended */
uint64_t lg_finding_same(const struct lg_finding *found); /* equal for the same place and kind */

#endif
