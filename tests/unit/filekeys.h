/* Keys and a classifier for tests of the file engine alone. */
#ifndef LG_TEST_FILEKEYS_H
#define LG_TEST_FILEKEYS_H

#include "leadglass/keys.h"

/* Three keys: general 'g', provisional 'p', study 's'. */
struct lg_keys {
    int locked; /* not 0: every request is answered with it */
    int refuse_study; /* the same for that one alone */
    unsigned asked_study, attached;
    uint32_t rotated; /* how often: the newest version is one more */
};

#endif
