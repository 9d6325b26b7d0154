/* Keys from memory for tests of the file core: the same bytes give the same key for ever. */
#ifndef LG_CRASH_MEMKEYS_H
#define LG_CRASH_MEMKEYS_H

#include "leadglass/keys.h"

extern const struct lg_key_source memkeys;
extern uint32_t memkeys_newest; /* version of every key but the vault's */

/* The vault's own key; the caller frees its secret. */
void memkeys_vault(struct lg_key *ret);

#endif
