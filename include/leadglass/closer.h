/* closer.h: closing what takes long to close.
 *
 * The last descriptor of a file without a name gives back its space, which for a slice takes ten times as long as taking the name away. A thread of its own does that,
 * so that neither whoever removed the file waits for it, nor everybody else whose name is in that directory: the kernel above holds it locked until it has its answer. */
#ifndef LEADGLASS_CLOSER_H
#define LEADGLASS_CLOSER_H

#include <stdbool.h>

/* Makes the thread, once for the process; it runs where the caller may. False: none can be had, and lg_close_soon is not to be called. */
bool lg_closer_start(void);

/* Closes fd soon; -1: nothing. At once, in the calling thread, when a good many are waiting already. */
void lg_close_soon(int fd);

/* Whether anything given to lg_close_soon is not closed yet. */
bool lg_close_pending(void);

/* Waits until all that is, is closed. False: nothing was. For whoever finds no space left, or is to say how much there is. */
bool lg_close_wait(void);

#endif
