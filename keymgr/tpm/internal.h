/* Inside the TPM module: one conversation with the chip, and what is sealed as bytes. */
#ifndef LG_TPM_INTERNAL_H
#define LG_TPM_INTERNAL_H

#include <tss2/tss2_esys.h>

#include "leadglass/tpm.h"

struct lg_tpm {
    char *tcti, why[256];
};

struct lg_talk {
    struct lg_tpm *t;
    TSS2_TCTI_CONTEXT *tcti;
    ESYS_CONTEXT *esys;
    ESYS_TR primary, session; /* the storage key that everything is sealed under; an HMAC session salted with it, parameters encrypted */
};
/* Opens the chip, makes the primary and the session. end is needed after an error too. */
int lg_talk_begin(struct lg_talk *k, struct lg_tpm *t) LG_MUST;
void lg_talk_end(struct lg_talk *k);
/* A session of that kind (TPM2_SE_...), salted and encrypting like the one above. */
int lg_talk_session(struct lg_talk *k, TPM2_SE kind, ESYS_TR *ret) LG_MUST;
void lg_talk_flush(struct lg_talk *k, ESYS_TR *handle); /* ESYS_TR_NONE is fine */
/* What a call of tpm2-tss returned, as one of ours; notes what it said. */
int lg_talk_rc(struct lg_talk *k, TSS2_RC rc) LG_MUST;

/* ---- blob.c: pure ---- */
struct lg_sealed {
    struct lg_tpm_pcrs pcrs;
    TPM2B_PUBLIC pub;
    TPM2B_PRIVATE priv;
};
int lg_sealed_encode(const struct lg_sealed *s, uint8_t *ret, size_t cap, size_t *ret_len) LG_MUST; /* -E2BIG */
int lg_sealed_decode(const uint8_t *untrusted, size_t len, struct lg_sealed *ret) LG_MUST;
void lg_pcrs_selection(const struct lg_tpm_pcrs *p, TPML_PCR_SELECTION *ret);
/* A value in the chip's memory. -EBADMSG: a write that was torn. -EXDEV: it is not that keyring's. */
enum { LG_NV_BODY = 4 + LG_TPM_ID_LEN + 8 + LG_KEY_LEN, LG_NV_LEN = LG_NV_BODY + 8 };
int lg_nv_encode(const uint8_t id[LG_TPM_ID_LEN], uint64_t epoch, const struct lg_secret *v, uint8_t out[LG_NV_LEN]) LG_MUST;
int lg_nv_decode(const uint8_t *untrusted, size_t len, const uint8_t id[LG_TPM_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret) LG_MUST;

#endif
