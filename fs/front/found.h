/* Inside the FUSE front: what is found to be damaged, for the log that people read. */
#ifndef LG_FRONT_FOUND_H
#define LG_FRONT_FOUND_H

#include "leadglass/file.h"

/* The same place and kind once in a window, the others are counted and told at its end. Thread-safe. Who finds something never waits for who is told: lines are said
 * by a thread of its own (lg_found_start) or by whoever calls lg_found_tick, and a log that has stopped holds up nobody else. */
struct lg_found;
int lg_found_new(unsigned window_ms, int64_t (*now_ms)(void), void (*say)(void *arg, const char *line), void *arg, struct lg_found **ret) LG_MUST; /* now_ms NULL: the clock */
int lg_found_start(struct lg_found *f) LG_MUST; /* -errno: there is no thread, and lines are said at the end */
void lg_found_free(struct lg_found *f); /* what was counted is told */
void lg_found_tell(struct lg_found *f, const struct lg_finding *found);
void lg_found_tick(struct lg_found *f); /* says what is new, and of windows that have ended how often it was found */
/* Equal for the same place and kind, and under a key of this process: what stands in a file's header cannot be chosen so that one finding passes for another. */
uint64_t lg_found_same(struct lg_found *f, const struct lg_finding *found);

#endif
