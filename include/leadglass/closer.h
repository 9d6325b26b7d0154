/* closer.h: closing what takes long to close.
 *
 * The last descriptor of a file without a name gives back its space, which for a slice takes ten times as long as taking the name away. A thread of its own does that,
 * so that neither whoever removed the file waits for it, nor everybody else whose name is in that directory: the kernel above holds it locked until it has its answer. */
#ifndef LEADGLASS_CLOSER_H
#define LEADGLASS_CLOSER_H

#include <stdbool.h>

/* Closes fd soon; -1: nothing. At once, in the calling thread, when a good many are waiting already, or no thread can be had. */
void lg_close_soon(int fd);

/* Waits until what was given to lg_close_soon before is closed. False: nothing was. For whoever finds no space left, or is to say how much there is. */
bool lg_close_wait(void);

#endif
