/* certificate.h: tombstones and certificates of destruction: documents of fixed bytes (docs/FORMAT-keyring.md) that the keyring's own key signs. Pure.
 *
 * A tombstone is made in the transaction that marks a study destroyed. A certificate holds it, the act with both officers' signatures, and what was true
 * when the certificate was issued; it can be checked with nothing but itself and the keyring's public key. */
#ifndef LEADGLASS_CERTIFICATE_H
#define LEADGLASS_CERTIFICATE_H

#include "leadglass/act.h"

#define LG_TOMBSTONE_LEN 212u
struct lg_tombstone {
    uint8_t keyring_id[LG_ID_LEN], kid[LG_ID_LEN], act[LG_ID_LEN];
    uint8_t lookup[LG_MAC_LEN];  /* keyed hash of the study UID */
    uint64_t created, destroyed; /* seconds since 1970 */
    uint64_t epoch_before, epoch; /* of the root: the key was last wrapped, through its bucket, under the first; the second forgot it */
    uint64_t generation;         /* of the slot file that held the new root alone */
    uint32_t versions, attached; /* how many versions of the key; how many provisional keys went with it */
    uint32_t version;            /* only this version of the key was retired; 0: the whole key was destroyed */
    uint8_t sig[LG_SIGN_LEN];    /* the keyring's, over all before */
};
int lg_tombstone_encode(const struct lg_tombstone *t, uint8_t out[LG_TOMBSTONE_LEN]) LG_MUST;
int lg_tombstone_decode(const uint8_t *untrusted, size_t len, struct lg_tombstone *ret) LG_MUST;
#define LG_TOMBSTONE_SIGNED (LG_TOMBSTONE_LEN - LG_SIGN_LEN) /* bytes of an encoded one that are signed */

#define LG_CERT_BACKUPS_MAX 64u
#define LG_CERT_MAX 6144u
#define LG_CERT_UNKNOWN UINT64_MAX
struct lg_certificate {
    unsigned version; /* of its form, 1 to 3 */
    uint8_t keyring_id[LG_ID_LEN], pub[LG_SIGN_PUB_LEN]; /* the key that signs this */
    uint64_t issued;
    char uid[LG_UID_MAX + 1];
    struct lg_tombstone tombstone;
    struct lg_act_record act;
    bool anchored;         /* a TPM value that was overwritten makes older slot files useless */
    uint64_t files, bytes; /* of ciphertext; LG_CERT_UNKNOWN: not counted */
    unsigned vaults_counted, vaults; /* in how many of how many vaults; of version 1, which did not say, 0 */
    uint64_t removed;      /* when these files and their names were removed from the vaults; 0: they were not */
    uint64_t restored, restored_from; /* backups made between these two, the second first, may be missing below: the keyring was restored from one of then; 0: never, or it does not matter here */
    uint64_t backups_all;  /* keyring backups from before the destruction that are not void */
    unsigned n_backups;    /* of these the first */
    struct lg_cert_backup {
        uint8_t id[LG_ID_LEN];
        uint64_t created;
    } backups[LG_CERT_BACKUPS_MAX];
};
int lg_certificate_encode(const struct lg_certificate *c, uint8_t out[LG_CERT_MAX], size_t *ret_len) LG_MUST;
int lg_certificate_decode(const uint8_t *untrusted, size_t len, struct lg_certificate *ret) LG_MUST;
/* Everything that can be checked offline: the keyring's signatures of document and tombstone, the officers' of the act, and that all of them speak of
 * one key. -EBADMSG. */
int lg_certificate_verify(const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN], struct lg_certificate *ret) LG_MUST;

#endif
