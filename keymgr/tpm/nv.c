/* Values in the chip's own memory that can be overwritten: two ordinary NV indexes next to each other. Whoever can talk to the chip can read and write
 * them; what they are good for is that the old value is gone once another is written. */
#include <string.h>

#include "internal.h"
#include "leadglass/crypto.h"

enum { FIRST = 0x01800000, SPAN = 0x3ffffe, TRIES = 16 };

/* -ENODATA: there is no such place. */
static int place(struct lg_talk *k, uint32_t nv, ESYS_TR *ret)
{
    TSS2_RC tss = Esys_TR_FromTPMPublic(k->esys, nv, ESYS_TR_NONE, ESYS_TR_NONE, ESYS_TR_NONE, ret);
    int rc = lg_talk_rc(k, tss);
    return rc == -EIO && (tss & (TPM2_RC_FMT1 | 0x3f)) == TPM2_RC_HANDLE ? -ENODATA : rc;
}

/* What stands there, bounded and whole. -ENODATA: nothing was written yet. -EBADMSG: a write that was torn. -EXDEV: it is not that keyring's. */
static int value(struct lg_talk *k, ESYS_TR at, const uint8_t id[LG_TPM_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret)
{
    TPM2B_MAX_NV_BUFFER *b = NULL;
    TSS2_RC tss = Esys_NV_Read(k->esys, at, at, k->session, ESYS_TR_NONE, ESYS_TR_NONE, LG_NV_LEN, 0, &b);
    int rc = lg_talk_rc(k, tss);
    if (rc == -EIO && (tss & 0xfff) == TPM2_RC_NV_UNINITIALIZED)
        rc = -ENODATA;
    if (!rc)
        rc = lg_nv_decode(b->buffer, b->size, id, ret_epoch, ret);
    if (b)
        lg_wipe(b, sizeof *b);
    Esys_Free(b);
    return rc;
}

static int define(struct lg_talk *k, uint32_t nv)
{
    static const TPM2B_AUTH no_auth;
    const TPM2B_NV_PUBLIC pub = { .nvPublic = { .nvIndex = nv,
                                                .nameAlg = TPM2_ALG_SHA256,
                                                .attributes = TPMA_NV_AUTHREAD | TPMA_NV_AUTHWRITE | TPMA_NV_OWNERREAD | TPMA_NV_OWNERWRITE | TPMA_NV_NO_DA,
                                                .dataSize = LG_NV_LEN } };
    ESYS_TR at = ESYS_TR_NONE;
    int rc = lg_talk_rc(k, Esys_NV_DefineSpace(k->esys, ESYS_TR_RH_OWNER, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE, &no_auth, &pub, &at));
    if (!rc)
        (void)!Esys_TR_Close(k->esys, &at);
    return rc;
}

static int undefine(struct lg_talk *k, ESYS_TR at)
{
    return lg_talk_rc(k, Esys_NV_UndefineSpace(k->esys, ESYS_TR_RH_OWNER, at, ESYS_TR_PASSWORD, ESYS_TR_NONE, ESYS_TR_NONE));
}

int lg_tpm_nv_make(struct lg_tpm *t, uint32_t *ret_nv)
{
    struct lg_talk k;
    ESYS_TR at;
    int rc = lg_talk_begin(&k, t);
    for (unsigned i = 0, done = 0; !rc && !done; i++) {
        uint32_t nv = 0;
        rc = i < TRIES ? lg_random(&nv, sizeof nv) : -ENOSPC;
        nv = FIRST + (nv & SPAN);
        if (rc || place(&k, nv, &at) != -ENODATA || place(&k, nv + 1, &at) != -ENODATA)
            continue;
        rc = define(&k, nv);
        if (!rc && (rc = define(&k, nv + 1)) != 0 && place(&k, nv, &at) == 0)
            (void)!undefine(&k, at);
        done = !rc;
        *ret_nv = nv;
    }
    lg_talk_end(&k);
    return rc;
}

int lg_tpm_nv_read(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret)
{
    struct lg_talk k;
    ESYS_TR at;
    int rc = lg_talk_begin(&k, t);
    if (!rc)
        rc = place(&k, nv, &at);
    if (!rc)
        rc = value(&k, at, id, ret_epoch, ret);
    lg_talk_end(&k);
    return rc;
}

/* Never over what is somebody else's; and read back: what comes next relies on it. */
int lg_tpm_nv_write(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN], uint64_t epoch, const struct lg_secret *v)
{
    struct lg_talk k;
    ESYS_TR at;
    uint64_t was;
    LG_SECRET_AUTO back = lg_secret_new();
    LG_SECRET_BUF_AUTO TPM2B_MAX_NV_BUFFER *b = lg_secret_alloc(sizeof *b);
    if (!back || !b)
        return -ENOMEM;
    int rc = lg_nv_encode(id, epoch, v, b->buffer);
    b->size = LG_NV_LEN;
    if (rc)
        return rc;
    rc = lg_talk_begin(&k, t);
    if (!rc)
        rc = place(&k, nv, &at);
    if (!rc) {
        rc = value(&k, at, id, &was, back);
        rc = rc == -ENODATA || rc == -EBADMSG ? 0 : rc;
    }
    if (!rc)
        rc = lg_talk_rc(&k, Esys_NV_Write(k.esys, at, at, k.session, ESYS_TR_NONE, ESYS_TR_NONE, b, 0));
    if (!rc)
        rc = value(&k, at, id, &was, back);
    if (!rc && (was != epoch || !lg_equal(back->b, v->b, LG_KEY_LEN)))
        rc = -EIO;
    lg_talk_end(&k);
    return rc;
}

int lg_tpm_nv_free(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN])
{
    LG_SECRET_AUTO over = lg_secret_random();
    struct lg_talk k;
    ESYS_TR at;
    int rc = over ? lg_tpm_nv_write(t, nv, id, 0, over) : -ENOMEM; /* an index that is taken away may keep its bytes */
    if (rc)
        return rc;
    rc = lg_talk_begin(&k, t);
    if (!rc)
        rc = place(&k, nv, &at);
    if (!rc)
        rc = undefine(&k, at);
    lg_talk_end(&k);
    return rc;
}
