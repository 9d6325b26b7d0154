#include "leadglass/study.h"

const char *lg_key_state_name(enum lg_key_state s)
{
    switch (s) {
    case LG_KEY_ACTIVE:
        return "active";
    case LG_KEY_SUSPENDED:
        return "suspended";
    case LG_KEY_DESTROY_APPROVED:
        return "destroy-approved";
    case LG_KEY_DESTROYING:
        return "destroying";
    case LG_KEY_DESTROYED:
        return "destroyed";
    case LG_KEY_COMPROMISED:
        return "compromised";
    case LG_KEY_RESTORED:
        return "restored";
    }
    return "unknown";
}
