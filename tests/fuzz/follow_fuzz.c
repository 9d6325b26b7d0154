/* The position file of a follower. The checksum is put right first: it is no protection, and what stands behind it has to be bounded. */
#include <stdlib.h>
#include <string.h>

#include "leadglass/follow.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct lg_follow_position p[LG_FOLLOW_CHAINS_MAX];
    static bool ready;
    const uint8_t *note;
    size_t note_len, n2;
    unsigned n;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    uint8_t *s = malloc(len + LG_MAC_LEN), *again = malloc(len + LG_MAC_LEN);
    if (!s || !again)
        abort();
    if (len)
        memcpy(s, data, len);
    (void)!lg_follow_decode(s, len, p, &n, &note, &note_len);
    if (lg_sha256(s, len, s + len))
        abort();
    if (lg_follow_decode(s, len + LG_MAC_LEN, p, &n, &note, &note_len) == 0 &&
        (lg_follow_encode(p, n, note, note_len, again, len + LG_MAC_LEN, &n2) || n2 != len + LG_MAC_LEN || memcmp(s, again, n2) != 0))
        abort(); /* what can be read is what would have been written */
    free(s);
    free(again);
    return 0;
}
