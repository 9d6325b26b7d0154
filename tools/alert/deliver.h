/* Delivering alerts: to syslog (or the journal, through its socket) and to a program. Never waits for either. */
#ifndef LG_ALERT_DELIVER_H
#define LG_ALERT_DELIVER_H

#include <poll.h>
#include <sys/types.h>

#include "alert.h"

enum { LG_DELIVERY_QUEUE = 1024, LG_DELIVERY_RUNNING = 4 }; /* alerts waiting; programs at a time */

struct lg_delivery;
/* failed: something could not be delivered, to be told by other ways. subject is short and of a few kinds. Called within run; may not add. */
int lg_delivery_new(const struct lg_alert_config *c, void (*failed)(void *arg, const char *subject, const char *text), void *arg, struct lg_delivery **ret) LG_MUST;
void lg_delivery_free(struct lg_delivery *d); /* programs still running are killed */
void lg_delivery_config(struct lg_delivery *d, const struct lg_alert_config *c);
/* Takes a copy. When the queue is full the oldest of the lowest grade goes, and that is told. */
void lg_delivery_add(struct lg_delivery *d, const struct lg_alert *a);
/* Does what is due: sends, starts, reaps, kills. now_ms: CLOCK_MONOTONIC. */
void lg_delivery_run(struct lg_delivery *d, int64_t now_ms);
/* Begins no program any more: the end is near. */
void lg_delivery_close(struct lg_delivery *d);
/* What to poll for; at most LG_DELIVERY_RUNNING. */
unsigned lg_delivery_fds(const struct lg_delivery *d, struct pollfd *out);
unsigned lg_delivery_waiting(const struct lg_delivery *d); /* alerts not yet delivered, running ones included */
unsigned lg_delivery_running(const struct lg_delivery *d);
bool lg_delivery_changed(struct lg_delivery *d); /* since it was last asked */
/* What waits; running ones as not yet begun. */
void lg_delivery_save(const struct lg_delivery *d, struct lg_wr *w);
int lg_delivery_load(struct lg_delivery *d, struct lg_rd *r) LG_MUST; /* -EPROTO: and nothing waits */

/* ---- spawn.c ---- */
/* Starts a program without a shell, in a process group of its own: input on standard input, its output on our standard error, no descriptors besides,
 * no environment but PATH, LANG and env (NAME=VALUE, NULL at the end). */
int lg_spawn(const char *path, const char *input, size_t len, char *const env[], pid_t *ret_pid, int *ret_pidfd) LG_MUST;

#endif
