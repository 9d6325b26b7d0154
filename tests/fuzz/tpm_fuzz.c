/* What a slot file claims was sealed by a TPM, lists of PCRs as somebody asks for them, and values in a chip's memory: as they are, and with a checksum that is right. */
#include <stdlib.h>
#include <string.h>

#include "../../keymgr/tpm/internal.h"
#include "leadglass/crypto.h"

static void value(const uint8_t *p, size_t len)
{
    static const uint8_t id[LG_TPM_ID_LEN] = "the keyring's.";
    uint8_t again[LG_NV_LEN], *exact = malloc(len + 1);
    uint64_t epoch = 7;
    LG_SECRET_AUTO key = lg_secret_new();
    if (!exact || !key)
        abort();
    memcpy(exact, p, len);
    int rc = lg_nv_decode(exact, len, id, &epoch, key);
    if (!rc && (len != sizeof again || lg_nv_encode(id, epoch, key, again) || memcmp(again, exact, len) != 0))
        abort(); /* one text for one value */
    if (rc && (epoch != 7 || (rc != -EBADMSG && rc != -EXDEV)))
        abort();
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_sealed s;
    struct lg_tpm_pcrs p;
    uint8_t again[LG_TPM_SEALED_MAX], b[LG_NV_LEN] = "LGA1the keyring's.", sum[LG_MAC_LEN];
    static bool ready;
    size_t n;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    value(data, len);
    if (len <= LG_NV_BODY) { /* a whole one, or what follows its head */
        memcpy(b + (len > LG_NV_BODY - 4 - LG_TPM_ID_LEN ? 0 : 4 + LG_TPM_ID_LEN), data, len);
        if (lg_sha256(b, LG_NV_BODY, sum))
            abort();
        memcpy(b + LG_NV_BODY, sum, LG_NV_LEN - LG_NV_BODY);
        value(b, sizeof b);
    }
    if (!lg_sealed_decode(data, len, &s) && (lg_sealed_encode(&s, again, sizeof again, &n) || n != len || memcmp(again, data, n) != 0))
        abort(); /* it takes exactly what it writes */
    if (!lg_tpm_pcrs_parse((const char *)data, len, &p) && (p.mask >= 1u << 24 || (p.mask != 0) != (p.bank != 0)))
        abort();
    return 0;
}
