/* Inside the audit module: zstd, and nobody else. */
#ifndef LG_AUDIT_PACK_H
#define LG_AUDIT_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "leadglass/status.h"

/* The whole of one descriptor compressed to the end of another. */
int lg_pack(int in, int out) LG_MUST;
/* Calls back with what a compressed descriptor holds, piece by piece; stops when that returns non-zero and returns it.
 * -EBADMSG: damaged, or more than max bytes. */
int lg_unpack(int in, size_t max, int (*piece)(void *arg, const char *s, size_t len), void *arg) LG_MUST;

#endif
