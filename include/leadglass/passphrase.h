/* passphrase.h: where a passphrase comes from: a file, a descriptor or the terminal. Never arguments, never the environment. */
#ifndef LEADGLASS_PASSPHRASE_H
#define LEADGLASS_PASSPHRASE_H

#include <stdbool.h>
#include <stddef.h>

#include "leadglass/status.h"

#define LG_PASSPHRASE_MAX 1024u

struct lg_passphrase_source {
    const char *file; /* "-": standard input; NULL: not from a file */
    int fd;           /* -1: not from a descriptor */
};

/* Reads at most LG_PASSPHRASE_MAX bytes into out (LG_PASSPHRASE_MAX + 1 bytes of secret memory); one newline at the end is taken off. With neither
 * file nor descriptor it asks on the terminal without echo, twice if so asked. -ENOTTY: no terminal to ask on. -EINVAL: empty. -EKEYREJECTED: the two
 * differ. -E2BIG. Or the error of open or read. */
int lg_passphrase_read(const struct lg_passphrase_source *src, const char *prompt, bool twice, char *out, size_t *ret_len) LG_MUST;

#endif
