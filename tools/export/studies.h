/* Which study a key id stands for, asked of the key manager once and remembered, in memory alone: when a study is destroyed its last messages still can name it. */
#ifndef LG_EXPORT_STUDIES_H
#define LG_EXPORT_STUDIES_H

#include "leadglass/client.h"

struct lg_studies;
int lg_studies_new(struct lg_client *k, struct lg_studies **ret) LG_MUST;
void lg_studies_free(struct lg_studies *n);
/* All that there are now. Not having them costs only the names of those that are destroyed before they are asked for. */
int lg_studies_fill(struct lg_studies *n) LG_MUST;
/* 0: *ret_uid, *ret_patient are n's until the next call; both empty: no living study has it. -ENOKEY and what a connection fails with: cannot be told now. */
int lg_studies_of(struct lg_studies *n, const uint8_t kid[LG_ID_LEN], const char **ret_uid, const char **ret_patient) LG_MUST;
void lg_studies_forget(struct lg_studies *n, const uint8_t kid[LG_ID_LEN]);

#endif
