#include "leadglass/manifestsig.h"

/* Heads of access logs, tombstones, certificates and acts begin otherwise. */
static const char magic[24] = "leadglass manifest 2";
enum { SIGNED = sizeof magic + 2 * LG_ID_LEN + 8 + 8 + LG_MAC_LEN + 8 };

static int signed_bytes(const struct lg_manifest_sig *s, uint8_t out[SIGNED])
{
    struct lg_wr w = lg_wr(out, SIGNED);
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_bytes(&w, s->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, s->vault_id, LG_ID_LEN);
    lg_wr_u64(&w, s->begun);
    lg_wr_u64(&w, s->entries);
    lg_wr_bytes(&w, s->hash, LG_MAC_LEN);
    lg_wr_u64(&w, s->signed_at);
    return w.bad || w.len != SIGNED ? -EINVAL : 0;
}

int lg_manifest_sig_make(struct lg_manifest_sig *s, const struct lg_secret *seed)
{
    uint8_t b[SIGNED];
    int rc = signed_bytes(s, b);
    if (!rc)
        rc = lg_sign_public(seed, s->pub);
    return rc ? rc : lg_sign(seed, b, sizeof b, s->sig);
}

int lg_manifest_sig_check(const struct lg_manifest_sig *s, const uint8_t pub[LG_SIGN_PUB_LEN])
{
    uint8_t b[SIGNED];
    int rc = signed_bytes(s, b);
    if (!rc && memcmp(s->pub, pub, LG_SIGN_PUB_LEN) != 0)
        rc = -EKEYREJECTED;
    if (!rc)
        rc = lg_sign_verify(pub, b, sizeof b, s->sig);
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}

void lg_manifest_sig_encode(const struct lg_manifest_sig *s, uint8_t out[LG_MANIFEST_SIG_LEN])
{
    struct lg_wr w = lg_wr(out, LG_MANIFEST_SIG_LEN);
    lg_wr_bytes(&w, s->keyring_id, LG_ID_LEN);
    lg_wr_u64(&w, s->signed_at);
    lg_wr_bytes(&w, s->pub, sizeof s->pub);
    lg_wr_bytes(&w, s->sig, sizeof s->sig);
}

void lg_manifest_sig_decode(const uint8_t in[LG_MANIFEST_SIG_LEN], struct lg_manifest_sig *s)
{
    struct lg_rd r = lg_rd(in, LG_MANIFEST_SIG_LEN);
    lg_rd_copy(&r, s->keyring_id, LG_ID_LEN);
    s->signed_at = lg_rd_u64(&r);
    lg_rd_copy(&r, s->pub, sizeof s->pub);
    lg_rd_copy(&r, s->sig, sizeof s->sig);
}
