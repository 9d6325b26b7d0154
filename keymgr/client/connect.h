/* One connection to the key manager: whole frames, deadlines in CLOCK_MONOTONIC milliseconds. */
#ifndef LG_CLIENT_CONNECT_H
#define LG_CLIENT_CONNECT_H

#include "leadglass/wire.h"

int64_t lg_now_ms(void);
int lg_connect(const char *path, int64_t deadline) LG_MUST; /* the descriptor */
/* stop: a descriptor whose readability ends the wait with -ECANCELED, or -1. deadline < 0: none. */
int lg_send_frame(int fd, const uint8_t *frame, size_t len, int64_t deadline) LG_MUST;
/* -ECONNRESET: closed by the other side. */
int lg_recv_frame(int fd, uint8_t *frame, size_t cap, size_t *ret_len, int64_t deadline, int stop) LG_MUST;

#endif
