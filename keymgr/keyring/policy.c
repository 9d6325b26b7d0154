#include "govern.h"

static const char purpose[8] = "policy..", name[] = "policy";

int lg_policy_put(struct lg_keyring *k, const struct lg_policy *p)
{
    uint8_t b[LG_POLICY_MAX];
    size_t len;
    int rc = lg_policy_encode(p, b, &len);
    return rc ? rc : lg_sealed_put(k, LG_T_STATE, purpose, name, sizeof name - 1, b, len);
}

int lg_keyring_policy(struct lg_keyring *k, struct lg_policy *ret)
{
    uint8_t b[LG_POLICY_MAX];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, purpose, name, sizeof name - 1, b, sizeof b, &len);
    if (rc == -ENOENT) {
        lg_policy_default(ret);
        return 0;
    }
    return rc ? rc : lg_policy_decode(b, len, ret);
}
