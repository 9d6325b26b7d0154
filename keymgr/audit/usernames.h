/* Inside the audit module: names of users, as this host knows them. Thread-safe. */
#ifndef LG_AUDIT_USERNAMES_H
#define LG_AUDIT_USERNAMES_H

#include "leadglass/audit.h"

struct lg_usernames;
/* lookup NULL: getpwuid. It is called from a thread that starts with the first question and has the caller's signal mask; arg must outlive it, and it may be
 * stuck within after lg_usernames_free has returned. */
int lg_usernames_new(int (*lookup)(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1]), void *arg, struct lg_usernames **ret) LG_MUST;
void lg_usernames_free(struct lg_usernames *n);
/* From the cache; of one never asked for before waits 200 ms at most. Empty: unknown, or not to be learnt in that time (then the next who asks may have it). */
void lg_usernames_get(struct lg_usernames *n, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1]);

#endif
