/* A keyring backup from somebody else: its header, and its frames as if their seal were good (the seal is not what is tested). */
#include <stdlib.h>
#include <string.h>

#include "leadglass/backup.h"
#include "leadglass/crypto.h"

struct at {
    const uint8_t *p;
    size_t left;
};
static int take(void *arg, void *buf, size_t len)
{
    struct at *a = arg;
    if (len > a->left)
        return -EPROTO;
    memcpy(buf, a->p, len);
    a->p += len;
    a->left -= len;
    return 0;
}

/* The input as one frame's plaintext after another, 2-byte lengths between them; sealed here. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct lg_secret *key, *sub;
    static struct lg_siv *siv;
    static uint8_t sealed[1 << 17], header[LG_BACKUP_HEADER_LEN];
    struct lg_backup_header h = { .id = { 1 } };
    struct lg_backup_counts n;
    if (!key) {
        if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_random()) || !(sub = lg_secret_new()) ||
            lg_derive(key, "leadglass backup frames", NULL, 0, sub) || lg_siv_new(sub, &siv))
            abort();
    }
    if (len >= sizeof header) {
        memcpy(header, data, sizeof header);
        (void)!lg_backup_header_read(header, &h);
        if (!lg_sha256(header, sizeof header - 32, header + sizeof header - 32))
            (void)!lg_backup_header_read(header, &h);
    }
    size_t out = 0;
    uint8_t ad[8 + LG_ID_LEN + 8] = "bkupfrm.";
    memcpy(ad + 8, h.id, LG_ID_LEN);
    for (unsigned f = 0; len >= 2 && f < 16; f++) {
        size_t frame = data[0] | (size_t)data[1] << 8;
        data += 2, len -= 2;
        frame = frame < len ? frame : len;
        if (!frame || out + 4 + frame + LG_SIV_TAG_LEN > sizeof sealed)
            break;
        ad[8 + LG_ID_LEN] = (uint8_t)f;
        if (lg_siv_seal_with(siv, ad, sizeof ad, data, frame, sealed + out + 4))
            abort();
        uint32_t all = (uint32_t)(frame + LG_SIV_TAG_LEN);
        for (unsigned i = 0; i < 4; i++)
            sealed[out + i] = (uint8_t)(all >> (8 * i));
        out += 4 + all;
        data += frame, len -= frame;
    }
    struct at a = { sealed, out };
    (void)!lg_backup_check(&h, key, take, &a, &n);
    return 0;
}
