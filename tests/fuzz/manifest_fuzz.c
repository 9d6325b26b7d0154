/* Bytes of a manifest: decoding is bounded, and what decodes encodes to the same bytes. */
#include <stdint.h>
#include <stdlib.h>

#include "manifest.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char path[LG_MANIFEST_PATH_MAX + 1];
    struct lg_manifest_info info;
    struct lg_item it;
    if (len < LG_MANIFEST_HEADER)
        return 0;
    if (!lg_manifest_header_decode(data, &info)) {
        uint8_t again[LG_MANIFEST_HEADER];
        lg_manifest_header_encode(&info, again);
        if (memcmp(again, data, sizeof again) != 0)
            abort();
    }
    for (size_t at = LG_MANIFEST_HEADER; len - at >= 4;) {
        size_t n = lg_item_len(data + at);
        if (!n || n > len - at)
            break;
        if (!lg_item_decode(data + at, n, &it, path)) {
            uint8_t *again = malloc(n);
            if (!again || lg_item_encode(&it, path, again) != n || memcmp(again, data + at, n) != 0)
                abort();
            free(again);
            (void)lg_path_cmp(path, "a/b");
        }
        at += n;
    }
    return 0;
}
