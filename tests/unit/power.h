/* Power cuts for tests of code that writes real files: the calls by which this process changes files beneath one directory are counted, and from a chosen
 * one on none of them does anything (-1, EIO). What was not synced by then can be taken away again: all of it, or by chance, page by page. Calls of
 * libraries are seen as well, LMDB's among them. Model: what fsync and fdatasync of a file returned for is durable, as is what was written through a
 * descriptor opened with O_DSYNC; names are durable, in the order of their changes, once their directory was synced. */
#ifndef LG_TEST_POWER_H
#define LG_TEST_POWER_H

#include <stdbool.h>
#include <stdint.h>

enum power_loss { POWER_KEEP_ALL, POWER_LOSE_ALL, POWER_LOSE_SOME, POWER_LOSSES };

/* From here on calls beneath root are counted from 1, and the power goes before the call cut_before (0: never). */
void power_on(const char *root, unsigned cut_before);
unsigned power_calls(void);
bool power_gone(void);
void power_fail(void); /* now, after everything that was done */
/* Ends counting. When the power went, what was not synced is lost: close every file before. seed: of the chance. */
void power_off(enum power_loss loss, uint64_t seed);

#endif
