/* Inside the audit module: zstd, and nobody else. */
#ifndef LG_AUDIT_PACK_H
#define LG_AUDIT_PACK_H

#include <stdbool.h>
#include <stddef.h>

#include "leadglass/status.h"

/* The whole of one descriptor compressed to the end of another. */
int lg_pack(int in, int out) LG_MUST;
/* What a compressed descriptor holds, piece by piece; the descriptor stays the caller's. -EBADMSG: damaged, or more than max bytes. */
struct lg_unpacker;
int lg_unpacker_new(int in, size_t max, struct lg_unpacker **ret) LG_MUST;
int lg_unpacker_read(struct lg_unpacker *u, char *out, size_t cap, size_t *ret_n) LG_MUST; /* 0 bytes: the end */
void lg_unpacker_free(struct lg_unpacker *u);
/* Calls back with what a compressed descriptor holds, piece by piece; stops when that returns non-zero and returns it. */
int lg_unpack(int in, size_t max, int (*piece)(void *arg, const char *s, size_t len), void *arg) LG_MUST;

#endif
