/* Comparing what stands in the vault with a manifest, in the order of the walk. */
#ifndef LG_SCRUB_AGAINST_H
#define LG_SCRUB_AGAINST_H

#include "internal.h"
#include "manifest.h"

struct lg_against;
/* Errors of lg_manifest_open. resume: what stands up to this lower path was compared before. */
int lg_against_begin(struct scrub *s, const char *manifest, const struct lg_secret *vault_key, const char *resume, struct lg_against **ret) LG_MUST;
int lg_against_item(struct lg_against *a, const char *lower, const struct lg_item *it) LG_MUST;
int lg_against_end(struct lg_against *a) LG_MUST; /* what is left of the manifest was deleted */
void lg_against_free(struct lg_against *a);

#endif
