/* The connection to a syslog receiver: TCP, with TLS as RFC 5425 wants it. The only user of OpenSSL's TLS. Nothing here waits longer than 10 s. */
#ifndef LG_EXPORT_LINK_H
#define LG_EXPORT_LINK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "leadglass/status.h"

struct lg_link_options {
    const char *host, *port;
    bool tls;
    const char *name;     /* that the receiver's certificate must be for; NULL or empty: host */
    const char *ca;       /* PEM: who may have signed it */
    const char *cert, *key; /* PEM: our own, for a receiver that asks; empty: none */
};
struct lg_link;

/* Each failure says in error[cap] what failed, in words for an administrator. */
int lg_link_open(const struct lg_link_options *o, struct lg_link **ret, char *error, size_t cap) LG_MUST;
void lg_link_close(struct lg_link *l); /* tells the receiver that this was all */
int lg_link_send(struct lg_link *l, const void *data, size_t len, char *error, size_t cap) LG_MUST;
/* Looks at what the receiver said since: -EPIPE when it has closed, or refused us (with TLS 1.3 it says so only after the handshake). */
int lg_link_check(struct lg_link *l, char *error, size_t cap) LG_MUST;
/* Octets handed to the network so far, and how many of them the receiver's machine has acknowledged. */
void lg_link_progress(const struct lg_link *l, uint64_t *ret_sent, uint64_t *ret_taken);

#endif
