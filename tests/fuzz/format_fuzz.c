/* What stands below: file headers, journal records, and names. */
#include <stdlib.h>
#include <string.h>

#include "../../fs/journal/internal.h"
#include "leadglass/format.h"
#include "leadglass/names.h"

static struct lg_names *names;

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_s0 s0;
    struct lg_slot slot;
    struct lg_jrec rec;
    if (!names) {
        LG_SECRET_AUTO key = NULL;
        if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_names_new(key, &names))
            abort();
    }
    if (len >= LG_SECTOR) {
        uint8_t again[LG_SECTOR];
        if (!lg_s0_decode(data, &s0)) {
            lg_s0_encode(&s0, again);
            if (memcmp(again, data, LG_SECTOR) != 0)
                abort(); /* one encoding only */
        }
        (void)!lg_slot_decode(data, &slot);
        /* The same with the checksum made good, so that what lies behind it is reached. */
        memcpy(again, data, LG_SECTOR);
        uint32_t crc = lg_crc32c(0, again, LG_SECTOR - 4);
        memcpy(again + LG_SECTOR - 4, &crc, 4);
        (void)!lg_s0_decode(again, &s0);
        (void)!lg_slot_decode(again, &slot);
    }
    (void)!lg_jrec_decode(data, len, 1, &rec);
    if (len >= 512 && len <= 8192) {
        uint8_t *r = malloc(len);
        uint32_t n = (uint32_t)(len / 512 * 512), zero = 0, crc;
        uint64_t generation = 1;
        memcpy(r, data, len);
        memcpy(r, "LJR1", 4);
        memcpy(r + 4, &n, 4);
        memcpy(r + 8, &zero, 4);
        memcpy(r + 12, &generation, 8);
        crc = lg_crc32c(0, r, n);
        memcpy(r + 8, &crc, 4);
        if (!lg_jrec_decode(r, len, 1, &rec) && (rec.ops < r || rec.ops + rec.ops_len > r + len))
            abort();
        free(r);
    }
    if (len > 16 && len < 500) {
        char text[512], out[LG_PLAIN_NAME_MAX + 1], *big = malloc(600);
        memcpy(text, data + 16, len - 16);
        text[len - 16] = 0;
        (void)!lg_name_open(names, data, text, out);
        (void)!lg_target_open(names, text, len - 16, big, 600);
        (void)!lg_xattr_name_open(names, text, out);
        uint8_t id[LG_ID_LEN];
        (void)!lg_dirid_open(names, text, strlen(text), id);
        free(big);
    }
    return 0;
}
