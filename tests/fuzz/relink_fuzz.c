/* leadglass.relink, which is read before a vault is served: decoding is bounded, as it is and with a checksum that is right; what decodes encodes to the same bytes, and
 * its paths lead to nothing but names that files of a vault can have. */
#include <stdint.h>
#include <stdlib.h>

#include "../../fs/volume/intent.h"

static void take(const uint8_t *p, size_t len)
{
    struct lg_intent in;
    uint8_t *exact = malloc(len + 1), *again;
    size_t again_len;
    if (!exact)
        abort();
    memcpy(exact, p, len);
    if (!lg_intent_decode(exact, len, &in)) {
        for (uint32_t i = 0; i < in.n; i++) {
            char part[LG_LOWER_NAME_MAX + 1], tmp[32];
            for (const char *at = in.path[i]; *at;)
                if (!(at = lg_intent_part(at, part)) || strchr(part, '/') || part[0] == '.' || lg_name_is_hidden(part))
                    abort();
            lg_intent_tmp(&in, i, tmp);
        }
        if (lg_intent_encode(&in, &again, &again_len) || again_len != len || memcmp(again, exact, len) != 0)
            abort();
        free(again);
        lg_intent_free(&in);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    enum { FIXED = 98, MOST = 4096 };
    uint8_t b[FIXED + MOST + 4] = "LGRELINK\1";
    take(data, len);
    if (len < 3 || len - 3 > MOST)
        return 0;
    uint32_t text = (uint32_t)len - 3, n = data[0];
    memcpy(b + 12, &n, 4);
    memcpy(b + 16, &text, 4);
    memset(b + 20, data[1], FIXED - 20);
    memcpy(b + FIXED, data + 3, text);
    if (data[2] & 1 && text)
        b[FIXED + text - 1] = 0;
    uint32_t crc = lg_crc32c(0, b, FIXED + text);
    memcpy(b + FIXED + text, &crc, 4);
    take(b, FIXED + text + 4);
    return 0;
}
