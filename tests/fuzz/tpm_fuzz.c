/* What a slot file claims was sealed by a TPM, and lists of PCRs as somebody asks for them. */
#include <stdlib.h>
#include <string.h>

#include "../../keymgr/tpm/internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_sealed s;
    struct lg_tpm_pcrs p;
    uint8_t again[LG_TPM_SEALED_MAX];
    size_t n;
    if (!lg_sealed_decode(data, len, &s) && (lg_sealed_encode(&s, again, sizeof again, &n) || n != len || memcmp(again, data, n) != 0))
        abort(); /* it takes exactly what it writes */
    if (!lg_tpm_pcrs_parse((const char *)data, len, &p) && (p.mask >= 1u << 24 || (p.mask != 0) != (p.bank != 0)))
        abort();
    return 0;
}
