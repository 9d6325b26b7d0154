/* intent.h: leadglass.relink, which tells the next mount what was being done to the names of a file. Inside the volume. */
#ifndef LG_VOLUME_INTENT_H
#define LG_VOLUME_INTENT_H

#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/names.h"
#include "leadglass/volume.h"

#define LG_INTENT_TEXT_MAX (1024u * 1024u)

struct lg_intent {
    uint8_t vault_id[LG_ID_LEN], file_id[LG_ID_LEN];
    uint64_t seq; /* the newest slot of the file that is to be replaced: its names are those that this is true of */
    uint8_t commitment[LG_MAC_LEN];
    uint8_t tmp[6];    /* of the hidden names */
    uint32_t n;        /* names */
    const char **path; /* each below root/, as it stands there; into text */
    char *text;
};

/* The hidden name of the i-th name's successor, in its directory. That of the first is the new file's own. */
void lg_intent_tmp(const struct lg_intent *in, uint32_t i, char out[32]);
/* The first part of a path; returns what comes behind it, or NULL: no name that a file or directory of the vault can have. */
const char *lg_intent_part(const char *path, char part[LG_LOWER_NAME_MAX + 1]);
void lg_intent_free(struct lg_intent *in);
/* *ret: malloced. -E2BIG. */
int lg_intent_encode(const struct lg_intent *in, uint8_t **ret, size_t *ret_len) LG_MUST;
/* -EPROTO: damaged; -EPROTONOSUPPORT: of a newer version. */
int lg_intent_decode(const uint8_t *untrusted, size_t len, struct lg_intent *ret) LG_MUST;
int lg_intent_read(struct lg_volume *v, struct lg_intent *ret) LG_MUST; /* -ENOENT */
int lg_intent_write(struct lg_volume *v, const struct lg_intent *in) LG_MUST;
int lg_intent_drop(struct lg_volume *v) LG_MUST;

#endif
