/* What the tests over disk.h share: vaults that they make and throw away. */
#ifndef LG_CRASH_SCRATCH_H
#define LG_CRASH_SCRATCH_H

#include "leadglass/keys.h"

/* A new directory in memory if there is such a filesystem. name: what it is for. Returns 0, or prints why not. */
int scratch_dir(const char *name, char out[64]);
/* A new vault at dir, with chunks of chunk_size bytes, and the keys for it. Aborts when that fails. */
struct lg_keys *scratch_vault(const char *dir, uint32_t chunk_size);
/* Takes away a file, or a directory with all in it. */
void scratch_remove(int at, const char *name);

#endif
