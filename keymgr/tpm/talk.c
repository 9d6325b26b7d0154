/* A conversation with the chip. The primary is made anew each time from a fixed template under the owner's seed, so that no handle of the chip is
 * taken up and any program of ours finds the same key; it changes when the TPM is cleared, and what was sealed then opens no more. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tss2/tss2_rc.h>
#include <tss2/tss2_tctildr.h>

#include "internal.h"

int lg_tpm_new(const char *tcti, struct lg_tpm **ret)
{
    struct lg_tpm *t = tcti[0] ? calloc(1, sizeof *t) : NULL;
    if (!t || !(t->tcti = strdup(tcti))) {
        free(t);
        return tcti[0] ? -ENOMEM : -EINVAL;
    }
    *ret = t;
    return 0;
}

void lg_tpm_free(struct lg_tpm *t)
{
    if (t)
        free(t->tcti);
    free(t);
}

const char *lg_tpm_why(const struct lg_tpm *t) { return t->why; }

int lg_talk_rc(struct lg_talk *k, TSS2_RC rc)
{
    if (!rc)
        return 0;
    snprintf(k->t->why, sizeof k->t->why, "%s", Tss2_RC_Decode(rc));
    TSS2_RC layer = rc & TSS2_RC_LAYER_MASK, code = rc & 0xfff;
    if (layer == TSS2_TCTI_RC_LAYER)
        return -ENODEV;
    if (layer != TSS2_TPM_RC_LAYER && layer != TSS2_RESMGR_TPM_RC_LAYER)
        return -EIO;
    if (code & TPM2_RC_FMT1)
        code &= TPM2_RC_FMT1 | 0x3f; /* without which handle, session or parameter it was */
    switch (code) {
    case TPM2_RC_INTEGRITY: return -EXDEV; /* another parent's */
    case TPM2_RC_POLICY_FAIL:
    case TPM2_RC_PCR_CHANGED: return -EBADE;
    case TPM2_RC_HIERARCHY: return -EOPNOTSUPP;
    case TPM2_RC_NV_SPACE: return -ENOSPC;
    default: return -EIO;
    }
}

int lg_talk_session(struct lg_talk *k, TPM2_SE kind, ESYS_TR *ret)
{
    const TPMT_SYM_DEF sym = { .algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB };
    int rc = lg_talk_rc(k, Esys_StartAuthSession(k->esys, k->primary, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, NULL, kind, &sym, TPM2_ALG_SHA256, ret));
    return rc ? rc : lg_talk_rc(k, Esys_TRSess_SetAttributes(k->esys, *ret, TPMA_SESSION_CONTINUESESSION | TPMA_SESSION_DECRYPT | TPMA_SESSION_ENCRYPT, 0xff));
}

void lg_talk_flush(struct lg_talk *k, ESYS_TR *handle)
{
    if (*handle != ESYS_TR_NONE)
        (void)!Esys_FlushContext(k->esys, *handle);
    *handle = ESYS_TR_NONE;
}

static int primary(struct lg_talk *k)
{
    static const TPM2B_PUBLIC storage = {
        .publicArea = { .type = TPM2_ALG_ECC,
                        .nameAlg = TPM2_ALG_SHA256,
                        .objectAttributes = TPMA_OBJECT_RESTRICTED | TPMA_OBJECT_DECRYPT | TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_SENSITIVEDATAORIGIN |
                                            TPMA_OBJECT_USERWITHAUTH | TPMA_OBJECT_NODA,
                        .parameters.eccDetail = { .symmetric = { .algorithm = TPM2_ALG_AES, .keyBits.aes = 128, .mode.aes = TPM2_ALG_CFB },
                                                  .scheme.scheme = TPM2_ALG_NULL,
                                                  .curveID = TPM2_ECC_NIST_P256,
                                                  .kdf.scheme = TPM2_ALG_NULL } }
    };
    static const TPM2B_SENSITIVE_CREATE sensitive;
    static const TPM2B_DATA outside;
    static const TPML_PCR_SELECTION no_pcrs;
    TSS2_RC rc = Esys_CreatePrimary(k->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &sensitive, &storage, &outside, &no_pcrs, &k->primary, NULL, NULL, NULL, NULL);
    int e = lg_talk_rc(k, rc);
    TSS2_RC code = rc & (TPM2_RC_FMT1 | 0x3f);
    return e == -EIO && (code == TPM2_RC_BAD_AUTH || code == TPM2_RC_AUTH_FAIL) ? -EOPNOTSUPP : e;
}

int lg_talk_begin(struct lg_talk *k, struct lg_tpm *t)
{
    *k = (struct lg_talk){ .t = t, .primary = ESYS_TR_NONE, .session = ESYS_TR_NONE };
    t->why[0] = 0;
    int rc = lg_talk_rc(k, Tss2_TctiLdr_Initialize(t->tcti, &k->tcti));
    if (rc) /* whatever it says: a library that is not there, a device, a host */
        return -ENODEV;
    rc = lg_talk_rc(k, Esys_Initialize(&k->esys, k->tcti, NULL));
    if (!rc)
        rc = primary(k);
    return rc ? rc : lg_talk_session(k, TPM2_SE_HMAC, &k->session);
}

int lg_tpm_look(struct lg_tpm *t)
{
    struct lg_talk k;
    int rc = lg_talk_begin(&k, t);
    lg_talk_end(&k);
    return rc;
}

void lg_talk_end(struct lg_talk *k)
{
    if (k->esys) {
        lg_talk_flush(k, &k->session);
        lg_talk_flush(k, &k->primary);
        Esys_Finalize(&k->esys);
    }
    if (k->tcti)
        Tss2_TctiLdr_Finalize(&k->tcti);
}
