#include "memkeys.h"

#include <string.h>

uint32_t memkeys_newest = 1;

static int version_of(uint8_t tag, uint32_t version, enum lg_key_kind kind, struct lg_key *ret)
{
    *ret = (struct lg_key){ .version = version, .kind = kind, .state = LG_KEY_ACTIVE, .key = lg_secret_new() };
    memset(ret->kid, tag, LG_ID_LEN);
    memset(ret->key->b, tag, LG_KEY_LEN);
    memcpy(ret->key->b, &version, sizeof version);
    return 0;
}
static int key_of(uint8_t tag, enum lg_key_kind kind, struct lg_key *ret)
{
    return version_of(tag, kind == LG_KIND_VAULT ? 1 : memkeys_newest, kind, ret);
}
static int src_vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    (void)arg, (void)vault_id;
    return key_of('v', LG_KIND_VAULT, v) || key_of('g', LG_KIND_GENERAL, g);
}
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease)
{
    (void)arg, (void)info;
    *lease = 1000;
    return key_of('s', LG_KIND_STUDY, ret);
}
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 1000;
    return version_of(kid[0], version ? version : memkeys_newest, kid[0] == 'p' ? LG_KIND_PROVISIONAL : LG_KIND_STUDY, ret);
}
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 1000;
    return key_of('p', LG_KIND_PROVISIONAL, ret);
}
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) { return (void)arg, (void)kid, (void)info, 0; }

const struct lg_key_source memkeys = { NULL, src_vault, src_study, src_by_id, src_provisional, src_attach, NULL };

void memkeys_vault(struct lg_key *ret) { (void)key_of('v', LG_KIND_VAULT, ret); }
