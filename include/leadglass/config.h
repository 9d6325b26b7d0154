/* config.h: configuration files (INI), read through the one place that knows libinih. What they say is foreign until the caller has judged every value. */
#ifndef LEADGLASS_CONFIG_H
#define LEADGLASS_CONFIG_H

#include <stdbool.h>
#include <stddef.h>

#include "leadglass/status.h"

/* Calls back with every setting in its order; a value that goes on in indented lines comes in as many calls. `setting` returns true, or says in error[cap]
 * what is wrong and what is allowed: then nothing more is read. On failure error holds one line: "FILE:LINE: why", or "FILE: why" when it cannot be read.
 * 0; -EINVAL: not understood; else the errno of reading. */
int lg_config_read(const char *file, bool (*setting)(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap), void *arg, char *error,
                   size_t cap) LG_MUST;

#endif
