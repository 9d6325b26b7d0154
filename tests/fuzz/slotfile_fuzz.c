#include <stdlib.h>
#include <string.h>

#include "../../keymgr/keyring/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static bool ready;
    struct lg_slotfile s;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    (void)!lg_slotfile_decode(data, len, &s);
    if (len > 2 * LG_MAC_LEN && len < LG_SLOTFILE_MAX) { /* with the damage hash made good */
        uint8_t *p = malloc(len);
        memcpy(p, data, len);
        memcpy(p, data[8] & 1 ? "LGSLOTS\0\1\0" : "LGSLOTS\0\2\0", 10);
        if (!lg_sha256(p, len - LG_MAC_LEN, p + len - LG_MAC_LEN))
            (void)!lg_slotfile_decode(p, len, &s);
        free(p);
    }
    return 0;
}
