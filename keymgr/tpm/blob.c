/* What is sealed, as bytes (docs/FORMAT-keyring.md): version, PCRs, and the object's two areas as the TPM's own marshalling has them; and what stands in the chip's memory. */
#include <string.h>

#include <tss2/tss2_mu.h>

#include "internal.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

enum { BLOB_VERSION = 1, PCRS = 24, HEAD = 1 + 2 + 4 };

static bool pcrs_ok(const struct lg_tpm_pcrs *p)
{
    if (p->mask >= 1u << PCRS)
        return false;
    return p->mask ? p->bank == TPM2_ALG_SHA1 || p->bank == TPM2_ALG_SHA256 || p->bank == TPM2_ALG_SHA384 || p->bank == TPM2_ALG_SHA512 : p->bank == 0;
}

int lg_tpm_pcrs_parse(const char *untrusted, size_t len, struct lg_tpm_pcrs *ret)
{
    static const struct {
        const char *name;
        uint16_t bank;
    } banks[] = { { "sha1:", TPM2_ALG_SHA1 }, { "sha256:", TPM2_ALG_SHA256 }, { "sha384:", TPM2_ALG_SHA384 }, { "sha512:", TPM2_ALG_SHA512 } };
    struct lg_tpm_pcrs p = { 0 };
    size_t at = 0;
    if (len == 0) {
        *ret = p;
        return 0;
    }
    if (len > LG_TPM_PCRS_TEXT_MAX)
        return -EINVAL;
    p.bank = TPM2_ALG_SHA256;
    for (unsigned i = 0; i < sizeof banks / sizeof *banks; i++)
        if (len >= strlen(banks[i].name) && memcmp(untrusted, banks[i].name, strlen(banks[i].name)) == 0) {
            p.bank = banks[i].bank;
            at = strlen(banks[i].name);
        }
    for (;;) {
        unsigned n = 0, digits = 0;
        while (at < len && untrusted[at] >= '0' && untrusted[at] <= '9' && digits < 3) {
            n = n * 10 + (unsigned)(untrusted[at++] - '0');
            digits++;
        }
        if (!digits || n >= PCRS)
            return -EINVAL;
        p.mask |= 1u << n;
        if (at == len)
            break;
        if (untrusted[at++] != ',')
            return -EINVAL;
    }
    *ret = p;
    return 0;
}

void lg_pcrs_selection(const struct lg_tpm_pcrs *p, TPML_PCR_SELECTION *ret)
{
    *ret = (TPML_PCR_SELECTION){ .count = p->mask ? 1 : 0 };
    ret->pcrSelections[0] = (TPMS_PCR_SELECTION){ .hash = p->bank, .sizeofSelect = 3, .pcrSelect = { (uint8_t)p->mask, (uint8_t)(p->mask >> 8), (uint8_t)(p->mask >> 16) } };
}

int lg_sealed_encode(const struct lg_sealed *s, uint8_t *ret, size_t cap, size_t *ret_len)
{
    struct lg_wr w = lg_wr(ret, cap);
    lg_wr_u8(&w, BLOB_VERSION);
    lg_wr_u16(&w, s->pcrs.bank);
    lg_wr_u32(&w, s->pcrs.mask);
    if (w.bad)
        return -E2BIG;
    size_t at = w.len;
    if (Tss2_MU_TPM2B_PUBLIC_Marshal(&s->pub, ret, cap, &at) || Tss2_MU_TPM2B_PRIVATE_Marshal(&s->priv, ret, cap, &at))
        return -E2BIG;
    *ret_len = at;
    return 0;
}

int lg_sealed_decode(const uint8_t *untrusted, size_t len, struct lg_sealed *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_sealed s = { 0 };
    size_t at = HEAD;
    unsigned version = lg_rd_u8(&r);
    s.pcrs.bank = lg_rd_u16(&r);
    s.pcrs.mask = lg_rd_u32(&r);
    if (!lg_rd_ok(&r) || version != BLOB_VERSION || !pcrs_ok(&s.pcrs) || len > LG_TPM_SEALED_MAX)
        return -EPROTO;
    if (Tss2_MU_TPM2B_PUBLIC_Unmarshal(untrusted, len, &at, &s.pub) || Tss2_MU_TPM2B_PRIVATE_Unmarshal(untrusted, len, &at, &s.priv) || at != len)
        return -EPROTO;
    /* Anything else would be a command to the chip to load who knows what. */
    if (s.pub.publicArea.type != TPM2_ALG_KEYEDHASH || s.priv.size == 0)
        return -EPROTO;
    uint8_t again[LG_TPM_SEALED_MAX]; /* the library takes sizes that disagree with what follows */
    size_t n;
    if (lg_sealed_encode(&s, again, sizeof again, &n) || n != len || memcmp(again, untrusted, len) != 0)
        return -EPROTO;
    *ret = s;
    return 0;
}

static const char nv_magic[4] = "LGA1";

int lg_nv_encode(const uint8_t id[LG_TPM_ID_LEN], uint64_t epoch, const struct lg_secret *v, uint8_t out[LG_NV_LEN])
{
    uint8_t sum[LG_MAC_LEN];
    struct lg_wr w = lg_wr(out, LG_NV_LEN);
    lg_wr_bytes(&w, nv_magic, sizeof nv_magic);
    lg_wr_bytes(&w, id, LG_TPM_ID_LEN);
    lg_wr_u64(&w, epoch);
    lg_wr_bytes(&w, v->b, LG_KEY_LEN);
    int rc = lg_sha256(out, LG_NV_BODY, sum);
    lg_wr_bytes(&w, sum, LG_NV_LEN - LG_NV_BODY);
    return rc;
}

int lg_nv_decode(const uint8_t *untrusted, size_t len, const uint8_t id[LG_TPM_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret)
{
    uint8_t sum[LG_MAC_LEN];
    struct lg_rd r = lg_rd(untrusted, len);
    const uint8_t *m = lg_rd_bytes(&r, sizeof nv_magic), *whose = lg_rd_bytes(&r, LG_TPM_ID_LEN);
    uint64_t epoch = lg_rd_u64(&r);
    const uint8_t *key = lg_rd_bytes(&r, LG_KEY_LEN), *check = lg_rd_bytes(&r, LG_NV_LEN - LG_NV_BODY);
    if (!lg_rd_done(&r))
        return -EBADMSG;
    int rc = lg_sha256(untrusted, LG_NV_BODY, sum);
    if (rc)
        return rc;
    if (memcmp(check, sum, LG_NV_LEN - LG_NV_BODY) != 0 || memcmp(m, nv_magic, sizeof nv_magic) != 0)
        return -EBADMSG;
    if (memcmp(whose, id, LG_TPM_ID_LEN) != 0)
        return -EXDEV;
    *ret_epoch = epoch;
    memcpy(ret->b, key, LG_KEY_LEN);
    return 0;
}
