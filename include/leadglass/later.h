/* later.h: what a thread that must not wait leaves to another.
 *
 * A thread that serves many (a ring of FUSE over io_uring) says lg_later_begin() before a call and lg_later_end() after it. In between, whatever would wait for the
 * key manager, for a disk or for somebody's lock returns -LG_ELATER instead, as the functions that may do so say: nothing was done then but what may be done once
 * more, and the call is made again by a thread that may wait. No other thread is concerned, and none of its locks is held for it. */
#ifndef LEADGLASS_LATER_H
#define LEADGLASS_LATER_H

#include <errno.h>
#include <stdbool.h>

#define LG_ELATER ERESTART /* no system call gives it to a program */

void lg_later_begin(void);
void lg_later_end(void);
/* About to wait: true has the caller return -LG_ELATER. */
bool lg_later(void);

#endif
