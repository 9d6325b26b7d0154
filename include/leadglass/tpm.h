/* tpm.h: the only door to the machine's TPM 2.0 (tpm2-tss).
 *
 * Each call opens the chip, does one thing and closes it: nothing stays loaded, and other programs can use it in between. Calls may take seconds on
 * real hardware. One object may be used by several threads, one at a time.
 *
 * Errors of all that talk to it:
 *   -ENODEV      no TPM answers there
 *   -EXDEV       sealed by another TPM, or this one was cleared since
 *   -EBADE       the PCRs are not as they were when it was sealed
 *   -EOPNOTSUPP  the TPM's owner hierarchy has a password or is disabled
 *   -EPROTO      these bytes are nothing that was sealed
 *   -EIO         anything else; lg_tpm_why tells */
#ifndef LEADGLASS_TPM_H
#define LEADGLASS_TPM_H

#include "leadglass/secret.h"

#define LG_TPM_SEALED_MAX 768u
#define LG_TPM_PCRS_TEXT_MAX 128u
#define LG_TPM_ID_LEN 16u

struct lg_tpm;
/* tcti: how to reach it, as tpm2-tss names that (device:/dev/tpmrm0, swtpm:host=localhost,port=2321). Nothing is opened yet. -EINVAL: an empty name. */
int lg_tpm_new(const char *tcti, struct lg_tpm **ret) LG_MUST;
void lg_tpm_free(struct lg_tpm *t); /* NULL is fine */
const char *lg_tpm_why(const struct lg_tpm *t); /* what the chip or the library said at the last failure; empty: nothing */

/* Is one there that all of this can be done with? */
int lg_tpm_look(struct lg_tpm *t) LG_MUST;

/* Which platform configuration registers have to be as they are now. */
struct lg_tpm_pcrs {
    uint16_t bank; /* the hash algorithm's TPM_ALG_ID */
    uint32_t mask; /* bit n: PCR n, 0 to 23; 0: none */
};
/* "7", "0,2,7", "sha384:0,7"; sha256 without a bank; empty: none. Pure. -EINVAL. */
int lg_tpm_pcrs_parse(const char *untrusted, size_t len, struct lg_tpm_pcrs *ret) LG_MUST;

/* Seals a secret so that this TPM alone gives it out, and only while the PCRs are as they are now. */
int lg_tpm_seal(struct lg_tpm *t, const struct lg_tpm_pcrs *pcrs, const struct lg_secret *secret, uint8_t *ret, size_t cap, size_t *ret_len) LG_MUST;
int lg_tpm_unseal(struct lg_tpm *t, const uint8_t *untrusted_sealed, size_t len, struct lg_secret *ret) LG_MUST;

/* Values in the chip's own memory. make defines two places, nv and nv + 1, that nobody used, and leaves them empty; each then holds a value, an epoch
 * and whose (id) it is. write never overwrites what is another's, and has read back what it wrote. free overwrites a place and takes it away.
 * Also: -ENODATA: there is no such place, or nothing was written there; -EBADMSG: a write there was torn (write goes over it); -EXDEV: what stands there is another's; -ENOSPC: no place can be found. */
int lg_tpm_nv_make(struct lg_tpm *t, uint32_t *ret_nv) LG_MUST;
int lg_tpm_nv_read(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret) LG_MUST;
int lg_tpm_nv_write(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN], uint64_t epoch, const struct lg_secret *value) LG_MUST;
int lg_tpm_nv_free(struct lg_tpm *t, uint32_t nv, const uint8_t id[LG_TPM_ID_LEN]) LG_MUST;

#endif
