/* manifestsig.h: the key manager's signature under a manifest of scrub (docs/FORMAT-manifest.md). Pure. It can be checked with the public key alone. */
#ifndef LEADGLASS_MANIFESTSIG_H
#define LEADGLASS_MANIFESTSIG_H

#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/study.h"

struct lg_manifest_sig {
    /* what it speaks of: the header of the manifest and the last hash of its chain, which covers every byte before its end */
    uint8_t vault_id[LG_ID_LEN];
    uint64_t begun, entries;
    uint8_t hash[LG_MAC_LEN];
    /* what the key manager says itself */
    uint8_t keyring_id[LG_ID_LEN];
    uint64_t signed_at; /* seconds since 1970 */
    uint8_t pub[LG_SIGN_PUB_LEN], sig[LG_SIGN_LEN];
};

/* Fills in pub and sig. */
int lg_manifest_sig_make(struct lg_manifest_sig *s, const struct lg_secret *seed) LG_MUST;
/* -EKEYREJECTED: it is not under pub that this was signed. */
int lg_manifest_sig_check(const struct lg_manifest_sig *s, const uint8_t pub[LG_SIGN_PUB_LEN]) LG_MUST;

/* What the key manager says, as it stands in a manifest and in its answer. */
#define LG_MANIFEST_SIG_LEN 120u
void lg_manifest_sig_encode(const struct lg_manifest_sig *s, uint8_t out[LG_MANIFEST_SIG_LEN]);
void lg_manifest_sig_decode(const uint8_t in[LG_MANIFEST_SIG_LEN], struct lg_manifest_sig *s); /* only that part of it */

#endif
