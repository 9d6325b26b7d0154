/* Acts of officers, for the commands that make them. */
#ifndef LG_CLI_ACT_H
#define LG_CLI_ACT_H

#include <stdio.h>

#include "cli.h"

/* Fills in who asks and when, signs (with --sign) or leaves it to single-administrator mode, hands it in and reports what came of it. With --offline FILE it
 * is written there instead, unsigned. An exit status. */
int act_perform(const struct cli *c, struct lg_client *k, struct lg_act *a);
/* The same with the study's UID and key id as subject. */
int act_on_study(const struct cli *c, struct lg_client *k, enum lg_action action, const char *uid, uint64_t number);
int act_approve(const struct cli *c, struct lg_client *k, const char *id);
int act_cancel(const struct cli *c, struct lg_client *k, const char *id);
int act_show(const struct cli *c, struct lg_client *k, const char *id);
int act_list(const struct cli *c, struct lg_client *k);
/* Files that carry an act to a machine without a network and back. */
int act_sign_file(const struct cli *c, const char *path);
int act_submit_file(const struct cli *c, struct lg_client *k, const char *path);

int act_key_read(const struct cli *c, const char *path, struct lg_secret *ret);
/* The text of a small file into out (cap bytes). */
int act_file_read(const char *path, char *out, size_t cap, size_t *ret_len);
int act_file_write(const char *path, const char *text, unsigned mode);
/* Seconds since 1970 of a day (YYYY-MM-DD or YYYYMMDD); a period (7d, 12h, 30m, 10s). -EINVAL. */
int act_day(const char *text, uint64_t *ret);
int act_period(const char *text, uint64_t *ret);
const char *act_period_text(uint64_t s, char out[24]); /* 7d; out */
/* actsay.c: what an act would do, from itself alone; what stands behind its numbers and keys in this keyring, a line each. s: room for a study, or NULL. */
void act_details(char *out, size_t cap, const struct lg_act *a);
void act_context(struct lg_client *k, const struct lg_act *a, struct lg_study *s, FILE *f);
cJSON *act_json(const struct lg_act_record *r);

extern const struct cli_option act_options[];

/* study.c, retention.c */
int study_due(const struct cli *c, struct lg_client *k);
int study_retain(const struct cli *c, struct lg_client *k, const char *uid);
int study_rule(const struct cli *c, struct lg_client *k, unsigned *ret);
/* certificate.c */
int certificate_get(const struct cli *c, struct lg_client *k, const char *uid);
int certificate_verify(const struct cli *c, const char *path);

#endif
