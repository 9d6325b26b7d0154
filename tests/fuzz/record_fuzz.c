/* Key records as they stand in the keyring, as they are and with the control part sealed properly: what lies behind its MAC is reached. */
#include <stdlib.h>
#include <string.h>

#include "../../keymgr/keyring/record.h"

static struct lg_keyring k;

static void parse(const uint8_t *p, size_t len)
{
    static const uint8_t kid[LG_ID_LEN];
    struct lg_record r;
    uint8_t *exact = malloc(len + 1);
    if (!exact)
        abort();
    memcpy(exact, p, len);
    if (!lg_record_parse(&k, kid, exact, len, &r)) {
        if (r.n > LG_KEY_VERSIONS_MAX || strlen(r.reason) > LG_REASON_MAX || r.state < LG_KEY_ACTIVE || r.state > LG_KEY_RESTORED)
            abort();
    }
    free(exact);
}

/* data: kind, number of versions, the rest is the control part in the clear, sealed here. */
static void sealed(const uint8_t *data, size_t len)
{
    static uint8_t buf[RECORD_MAX];
    uint8_t ad[8 + 2 * LG_ID_LEN + 8 + 4] = "control.";
    uint32_t n = data[1] % (LG_KEY_VERSIONS_MAX + 2);
    size_t ctrl = len - 2 < CTRL_MAX + 8 ? len - 2 : CTRL_MAX + 8;
    ad[8 + 2 * LG_ID_LEN] = data[0];
    struct lg_wr w = lg_wr(buf, sizeof buf);
    lg_wr_u8(&w, data[0]);
    lg_wr_u32(&w, n);
    for (uint32_t i = 0; i < n && w.len + 4 + LG_WRAPPED_LEN + ctrl + 64 + INFO_LEN < sizeof buf; i++) {
        static const uint8_t wrapped[LG_WRAPPED_LEN];
        lg_wr_u32(&w, i + 1);
        lg_wr_bytes(&w, wrapped, sizeof wrapped);
    }
    lg_wr_u16(&w, (uint16_t)(ctrl + LG_SIV_TAG_LEN));
    if (lg_siv_seal_with(k.ctrl, ad, sizeof ad, data + 2, ctrl, buf + w.len))
        abort();
    w.len += ctrl + LG_SIV_TAG_LEN;
    static const uint8_t info[INFO_LEN + LG_SIV_TAG_LEN];
    uint16_t info_len = data[0] & 0x80 ? 0 : (uint16_t)(INFO_LEN + LG_SIV_TAG_LEN);
    lg_wr_u16(&w, info_len);
    lg_wr_bytes(&w, info, info_len);
    parse(buf, w.len);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!k.ctrl) {
        LG_SECRET_AUTO key = NULL;
        if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_siv_new(key, &k.ctrl))
            abort();
    }
    parse(data, len);
    if (len >= 2)
        sealed(data, len);
    return 0;
}
