/* A segment of a spool, under a fixed key: what does not verify never comes out, and nothing is read past the end. The header's and the records' checks cannot be guessed, so
 * the input says which of them to put right. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/bytes.h"
#include "spool.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct lg_secret *key;
    static struct lg_siv *siv;
    static uint8_t out[LG_SPOOL_RECORD_MAX], sealed[LG_SPOOL_RECORD_MAX + 64];
    struct lg_spool_note note;
    uint8_t header[LG_SPOOL_HEADER];
    if (!key) {
        if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_siv_new(key, &siv))
            abort();
    }
    if (lg_spool_note_decode(data, len, &note) == 0) {
        uint8_t again[LG_SPOOL_NOTE];
        lg_spool_note_encode(&note, again);
        if (memcmp(again, data, len) != 0)
            abort();
    }
    if (len < LG_SPOOL_HEADER)
        return 0;
    if (lg_spool_header_check(key, 1, data) == 0 && memcmp(data, "LGSPOOL1", 8) != 0)
        abort();
    memcpy(header, data, sizeof header);
    size_t n, taken, at = LG_SPOOL_HEADER;
    for (int rc = 0; !rc && at <= len; at += rc ? 0 : taken) { /* as they stand */
        uint8_t *exact = malloc(len - at + 1); /* reading past the end is seen */
        if (!exact)
            return 0;
        memcpy(exact, data + at, len - at);
        rc = lg_spool_unseal(siv, header, at, exact, len - at, out, &n, &taken);
        if (!rc && (taken != n + 20 || taken > len - at))
            abort();
        free(exact);
    }
    size_t body = len - LG_SPOOL_HEADER;
    if (body && body <= LG_SPOOL_RECORD_MAX) { /* as they should be: comes back, and nowhere else */
        if (lg_spool_seal(siv, header, 77, data + LG_SPOOL_HEADER, body, sealed, &n) || lg_spool_unseal(siv, header, 77, sealed, n, out, &body, &taken) || taken != n ||
            memcmp(out, data + LG_SPOOL_HEADER, body) != 0)
            abort();
        if (lg_spool_unseal(siv, header, 78, sealed, n, out, &body, &taken) != -EBADMSG || lg_spool_unseal(siv, header, 77, sealed, n - 1, out, &body, &taken) != -EAGAIN)
            abort();
        sealed[data[0] % n] ^= 1;
        int rc = lg_spool_unseal(siv, header, 77, sealed, n, out, &body, &taken);
        if (rc != -EBADMSG && rc != -EAGAIN)
            abort();
    }
    return 0;
}
