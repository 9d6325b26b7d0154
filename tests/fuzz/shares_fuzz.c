/* A printed share as somebody typed it: whatever is taken is written again as the same share, and what is refused names a group that there is. */
#include <stdlib.h>
#include <string.h>

#include "leadglass/crypto.h"
#include "leadglass/shares.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static bool ready;
    struct lg_share s, again;
    char text[LG_SHARE_TEXT_MAX], *exact = malloc(len + 1);
    unsigned bad;
    if (!exact || (!ready && (lg_secret_init(true) || lg_crypto_init())))
        abort();
    ready = true;
    memcpy(exact, data, len);
    int rc = lg_share_parse(exact, len, &s, &bad);
    if (bad > LG_SHARE_GROUPS || (!rc && bad))
        abort();
    if (!rc && (lg_share_text(&s, "this", text) || lg_share_parse(text, strlen(text), &again, &bad) || memcmp(&s, &again, sizeof s) != 0))
        abort();
    /* The share's own checksums made good: what its fields say. */
    if (len >= sizeof s) {
        memcpy(&s, data, sizeof s);
        if (!lg_share_text(&s, "this", text) && (lg_share_parse(text, strlen(text), &again, &bad) || memcmp(&s, &again, sizeof s) != 0))
            abort();
    }
    for (unsigned i = 0; i <= LG_SHARE_GROUPS + 1; i++) /* one group alone: no other number's, none that there is not */
        if (lg_share_group_check(exact, len, i) == 0 && (!i || i > LG_SHARE_GROUPS || lg_share_group_check(exact, len, i % LG_SHARE_GROUPS + 1) == 0))
            abort();
    free(exact);
    return 0;
}
