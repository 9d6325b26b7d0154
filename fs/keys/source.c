#include "leadglass/keys.h"

static int vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general)
{
    uint8_t keyring_id[LG_ID_LEN];
    return lg_client_vault_get(arg, vault_id, keyring_id, ret_vault, ret_general);
}
static int study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease) { return lg_client_study_key(arg, info, ret, lease); }
static int by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    return lg_client_key_by_id(arg, kid, version, ret, lease);
}
static int provisional(void *arg, struct lg_key *ret, unsigned *lease) { return lg_client_provisional(arg, ret, lease); }
static int attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) { return lg_client_attach(arg, kid, info); }
static int assign(void *arg, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now)
{
    return lg_client_assign(arg, act, uid, from, file_id, now);
}

struct lg_key_source lg_key_source_client(struct lg_client *c)
{
    return (struct lg_key_source){ .arg = c, .vault = vault, .study = study, .by_id = by_id, .provisional = provisional, .attach = attach, .assign = assign };
}
