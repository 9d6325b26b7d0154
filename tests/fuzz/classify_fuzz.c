/* The classifier never reads out of bounds, and decides the same in whatever pieces the bytes come. */
#include <stdlib.h>
#include <string.h>

#include "leadglass/classify.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_classifier *whole, *c;
    uint32_t x = len > 4 ? data[len - 1] * 2654435761u + data[len / 2] : 7;
    if (lg_classifier_new(&whole) || lg_classifier_new(&c))
        abort();
    enum lg_class a = lg_classifier_feed(whole, data, len, true), b = LG_CLASS_MORE;
    if (a == LG_CLASS_MORE)
        abort();
    for (size_t at = 0; b == LG_CLASS_MORE;) {
        x = x * 1664525u + 1013904223u;
        size_t n = (x >> 20) % 97;
        if (n > len - at)
            n = len - at;
        uint8_t *piece = malloc(n + 1); /* exactly as long as it says */
        memcpy(piece, data + at, n);
        b = lg_classifier_feed(c, piece, n, at + n == len);
        free(piece);
        at += n;
    }
    if (a != b || (a == LG_CLASS_STUDY && strcmp(lg_classifier_info(whole)->uid, lg_classifier_info(c)->uid) != 0))
        abort();
    lg_classifier_free(whole);
    lg_classifier_free(c);
    return 0;
}
