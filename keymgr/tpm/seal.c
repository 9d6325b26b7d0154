/* A secret sealed to the machine: a data object under the storage primary, which the chip gives out to whoever asks, or while the PCRs agree. */
#include <string.h>

#include "internal.h"

/* A policy session that has seen the PCRs. */
static int policy(struct lg_talk *k, const struct lg_tpm_pcrs *pcrs, ESYS_TR *ret)
{
    static const TPM2B_DIGEST as_they_are;
    TPML_PCR_SELECTION sel;
    lg_pcrs_selection(pcrs, &sel);
    int rc = lg_talk_session(k, TPM2_SE_POLICY, ret);
    return rc ? rc : lg_talk_rc(k, Esys_PolicyPCR(k->esys, *ret, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &as_they_are, &sel));
}

static int policy_digest(struct lg_talk *k, const struct lg_tpm_pcrs *pcrs, TPM2B_DIGEST *ret)
{
    ESYS_TR s = ESYS_TR_NONE;
    TPM2B_DIGEST *d = NULL;
    int rc = policy(k, pcrs, &s);
    if (!rc)
        rc = lg_talk_rc(k, Esys_PolicyGetDigest(k->esys, s, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, &d));
    if (!rc)
        *ret = *d;
    Esys_Free(d);
    lg_talk_flush(k, &s);
    return rc;
}

int lg_tpm_seal(struct lg_tpm *t, const struct lg_tpm_pcrs *pcrs, const struct lg_secret *secret, uint8_t *ret, size_t cap, size_t *ret_len)
{
    struct lg_talk k;
    struct lg_sealed s = { .pcrs = *pcrs };
    static const TPM2B_DATA outside;
    static const TPML_PCR_SELECTION no_pcrs;
    TPM2B_PRIVATE *priv = NULL;
    TPM2B_PUBLIC *pub = NULL;
    /* No dictionary attack to be feared, and a lockout of the chip must not keep a server from starting: NODA. */
    TPM2B_PUBLIC want = { .publicArea = { .type = TPM2_ALG_KEYEDHASH,
                                          .nameAlg = TPM2_ALG_SHA256,
                                          .objectAttributes = TPMA_OBJECT_FIXEDTPM | TPMA_OBJECT_FIXEDPARENT | TPMA_OBJECT_NODA | (pcrs->mask ? 0 : TPMA_OBJECT_USERWITHAUTH),
                                          .parameters.keyedHashDetail.scheme.scheme = TPM2_ALG_NULL } };
    LG_SECRET_BUF_AUTO TPM2B_SENSITIVE_CREATE *sensitive = lg_secret_alloc(sizeof *sensitive);
    if (!sensitive)
        return -ENOMEM;
    sensitive->sensitive.data.size = LG_KEY_LEN;
    memcpy(sensitive->sensitive.data.buffer, secret->b, LG_KEY_LEN);
    int rc = lg_talk_begin(&k, t);
    if (!rc && pcrs->mask)
        rc = policy_digest(&k, pcrs, &want.publicArea.authPolicy);
    if (!rc)
        rc = lg_talk_rc(&k, Esys_Create(k.esys, k.primary, k.session, ESYS_TR_NONE, ESYS_TR_NONE, sensitive, &want, &outside, &no_pcrs, &priv, &pub, NULL, NULL, NULL));
    if (!rc) {
        s.pub = *pub;
        s.priv = *priv;
        rc = lg_sealed_encode(&s, ret, cap, ret_len);
    }
    Esys_Free(priv);
    Esys_Free(pub);
    lg_talk_end(&k);
    return rc;
}

int lg_tpm_unseal(struct lg_tpm *t, const uint8_t *untrusted_sealed, size_t len, struct lg_secret *ret)
{
    struct lg_talk k;
    struct lg_sealed s;
    ESYS_TR object = ESYS_TR_NONE, session = ESYS_TR_NONE;
    TPM2B_SENSITIVE_DATA *data = NULL;
    int rc = lg_sealed_decode(untrusted_sealed, len, &s);
    if (rc)
        return rc;
    rc = lg_talk_begin(&k, t);
    if (!rc)
        rc = lg_talk_rc(&k, Esys_Load(k.esys, k.primary, k.session, ESYS_TR_NONE, ESYS_TR_NONE, &s.priv, &s.pub, &object));
    if (!rc && s.pcrs.mask)
        rc = policy(&k, &s.pcrs, &session);
    if (!rc)
        rc = lg_talk_rc(&k, Esys_Unseal(k.esys, object, s.pcrs.mask ? session : k.session, ESYS_TR_NONE, ESYS_TR_NONE, &data));
    if (!rc && data->size != LG_KEY_LEN)
        rc = -EPROTO;
    if (!rc)
        memcpy(ret->b, data->buffer, LG_KEY_LEN);
    if (data)
        lg_wipe(data, sizeof *data);
    Esys_Free(data);
    if (k.esys) {
        lg_talk_flush(&k, &session);
        lg_talk_flush(&k, &object);
    }
    lg_talk_end(&k);
    return rc;
}
