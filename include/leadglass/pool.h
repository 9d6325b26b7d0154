/* pool.h: helper threads for the parts of one large request. */
#ifndef LEADGLASS_POOL_H
#define LEADGLASS_POOL_H

#include <stddef.h>
#include <stdint.h>

#include "leadglass/status.h"

struct lg_pool;

/* helpers: threads besides those that call lg_pool_run; 0 is fine. */
int lg_pool_new(unsigned helpers, struct lg_pool **ret) LG_MUST;
void lg_pool_free(struct lg_pool *p); /* no run is under way; NULL is fine */

/* Calls part(arg, i) for every i below n, in no order, in this thread and in whichever helpers are idle; returns when all have returned: 0, or one
 * of the errors (parts not yet begun are then left out). Parts must not wait for one another. p NULL: all in this thread, in order.
 * busy: processors that others are at work on meanwhile, beside this thread: 1 for a read, as whoever reads copies what came before, 0 for a write, whose
 * writer waits. With no processor left that is idle no helper is woken. */
int lg_pool_run(struct lg_pool *p, unsigned n, int (*part)(void *arg, unsigned i), void *arg, unsigned busy) LG_MUST;

/* How often the calling thread has waited for a helper within lg_pool_run: not for anything outside. */
long lg_pool_waited(void);

/* len bytes that belong to the calling thread until it asks again or ends; NULL: no memory. Freshly allocated, blocks of that size would be mapped, cleared and
 * unmapped each time. Page-aligned: some processors copy to 16 bytes behind a page's begin, where malloc puts what is large, at a third of the speed (docs/PERFORMANCE.md).
 * They are not wiped: whoever puts plaintext there does. */
uint8_t *lg_scratch(size_t len);

#endif
