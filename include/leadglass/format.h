/* format.h: the layout of a ciphertext file, version 1: pure arithmetic and codec. docs/FORMAT.md is the specification.
 *
 *   sector 0      S0: magic, version, suite, chunk size, vault id, file id, crc       never rewritten
 *   sectors 1, 2  commit slots A and B
 *   sectors 3..7  entries 0..79, 16 in a sector
 *   then          chunks 0..79, then regions k = 0, 1, 2 ...: a table of 128 * 2^k entries, directly before the chunks they describe
 */
#ifndef LEADGLASS_FORMAT_H
#define LEADGLASS_FORMAT_H

#include "leadglass/crypto.h"
#include "leadglass/study.h"

#define LG_SECTOR 512u
#define LG_HEADER_LEN 4096u
#define LG_ENTRY_LEN 32u
#define LG_ENTRIES_PER_SECTOR 16u
#define LG_HEAD_ENTRIES 80u
#define LG_REGION_ENTRIES 128u /* of region 0; twice as many in each that follows */
#define LG_FORMAT_VERSION 1u
#define LG_SUITE_1 1u /* AES-256-GCM chunks, AES-256-SIV wraps, HMAC-SHA256, HKDF-SHA256 */
#define LG_CHUNK_SIZE_MIN 4096u
#define LG_CHUNK_SIZE_MAX (256u * 1024u)
#define LG_FILE_SIZE_MAX (1ull << 44) /* 16 TiB: bounds the table held in memory */
#define LG_CHUNK_WRITES_MAX (1ull << 31) /* per file key: NIST SP 800-38D allows 2^32 random nonces */

static inline bool lg_format_chunk_size_ok(uint32_t c) { return c >= LG_CHUNK_SIZE_MIN && c <= LG_CHUNK_SIZE_MAX && !(c & (c - 1)); }

/* Number of chunks of a plaintext of that size. */
static inline uint64_t lg_format_chunks(uint32_t chunk_size, uint64_t plain_size) { return (plain_size + chunk_size - 1) / chunk_size; }
/* Where entry or chunk i stands in the ciphertext file. */
uint64_t lg_format_entry_off(uint32_t chunk_size, uint64_t i);
uint64_t lg_format_chunk_off(uint32_t chunk_size, uint64_t i);
/* Chunks i .. that follow i contiguously in the file, i included (to the end of its region). */
uint64_t lg_format_run(uint64_t i);
uint64_t lg_format_cipher_size(uint32_t chunk_size, uint64_t plain_size);
/* Inverse; for sizes that no file can have, the largest plaintext that is wholly inside. */
uint64_t lg_format_plain_size(uint32_t chunk_size, uint64_t cipher_size);

/* ---- S0 -------------------------------------------------------------------------------------------------------------------- */
struct lg_s0 {
    uint32_t version, suite, chunk_size;
    uint8_t vault_id[LG_ID_LEN], file_id[LG_ID_LEN];
};
void lg_s0_encode(const struct lg_s0 *s, uint8_t out[LG_SECTOR]);
/* -EPROTO: not an S0 or damaged; -EPROTONOSUPPORT: newer version or suite. */
int lg_s0_decode(const uint8_t in[LG_SECTOR], struct lg_s0 *ret) LG_MUST;
/* The bytes where the file id stands, of a sector that does not decode: for reports only. */
void lg_s0_claimed_id(const uint8_t in[LG_SECTOR], uint8_t ret[LG_ID_LEN]);

/* ---- commit slots ---------------------------------------------------------------------------------------------------------- */
struct lg_slot {
    uint64_t seq, session, size, durable_size, chunk_writes;
    uint8_t kid[LG_ID_LEN];
    uint32_t key_version;
    uint8_t wrapped[LG_WRAPPED_LEN];
    uint8_t commitment[32];
    uint8_t salt[16];
    uint8_t sealed_acc[LG_PRF_OUT];
    uint8_t other_hash[LG_MAC_LEN]; /* SHA-256(S0 || other slot) as it was when this one was written */
};
/* Checks magic and crc only: needs no key. -ENOENT: all zero (never written). -EPROTO. */
int lg_slot_decode(const uint8_t in[LG_SECTOR], struct lg_slot *ret) LG_MUST;

/* What a slot that does not decode says all the same: for salvage, which proves it by the commitment. */
void lg_slot_claims(const uint8_t in[LG_SECTOR], struct lg_slot *ret);
/* The bytes where the MAC stands. */
void lg_slot_mac_bytes(const uint8_t in[LG_SECTOR], uint8_t ret[LG_MAC_LEN]);

/* ---- keys of one file ------------------------------------------------------------------------------------------------------- */
/* Everything derived from a file key. */
struct lg_filekey { /* in key memory */
    struct lg_gcm *gcm;        /* chunks */
    struct lg_secret acc, mac; /* accumulator; slots */
    uint8_t kid[LG_ID_LEN];
    uint32_t key_version;
    uint8_t wrapped[LG_WRAPPED_LEN];
    uint8_t commitment[32];
};
/* What wraps file keys under a study key: made once for many, and may be used by several threads at a time. The caller frees it. */
int lg_filekey_wrap(const struct lg_secret *study_key, struct lg_siv **ret) LG_MUST;
/* A fresh random file key, wrapped by it. */
int lg_filekey_make_with(struct lg_siv *wrap, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const struct lg_s0 *s0, struct lg_filekey **ret) LG_MUST;
/* The one that a slot names. -EBADMSG: the wrap or the commitment does not verify. */
int lg_filekey_open(const struct lg_secret *study_key, const struct lg_slot *slot, const struct lg_s0 *s0, struct lg_filekey **ret) LG_MUST;
int lg_filekey_open_with(struct lg_siv *wrap, const struct lg_slot *slot, const struct lg_s0 *s0, struct lg_filekey **ret) LG_MUST;
void lg_filekey_free(struct lg_filekey *k);

/* Fills in wrap, commitment, salt, sealed accumulator, the other slot's hash and MAC. */
int lg_slot_encode(struct lg_slot *slot, const struct lg_filekey *k, const uint8_t acc[LG_PRF_OUT], const uint8_t s0[LG_SECTOR],
                   const uint8_t other[LG_SECTOR], uint8_t out[LG_SECTOR]) LG_MUST;
/* Verifies the MAC and opens the accumulator. -EBADMSG. */
int lg_slot_verify(const uint8_t in[LG_SECTOR], const struct lg_slot *slot, const struct lg_filekey *k, const uint8_t s0[LG_SECTOR],
                   uint8_t ret_acc[LG_PRF_OUT]) LG_MUST;

/* ---- chunks and entries -------------------------------------------------------------------------------------------------------- */
/* entry (32 bytes): nonce 12, tag 16, crc32c of the ciphertext 4. All zero: a hole. */
bool lg_entry_empty(const uint8_t entry[LG_ENTRY_LEN]);
/* Consecutive chunks from i: all of chunk_size but perhaps the last. Nonces come from one call of lg_random. ret_entries: one for each; on
 * error some of them may have been written. */
int lg_chunks_seal(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, uint32_t chunk_size, const void *plain, size_t len, void *cipher,
                   uint8_t *ret_entries) LG_MUST;
int lg_chunk_seal(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, const void *plain, uint32_t len, void *cipher,
                  uint8_t ret_entry[LG_ENTRY_LEN]) LG_MUST;
/* plain may equal cipher. -EBADMSG. */
int lg_chunk_open(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, const void *cipher, uint32_t len,
                  const uint8_t entry[LG_ENTRY_LEN], void *plain) LG_MUST;
/* acc ^= PRF(i + j, entries[j]) for every non-empty one of n consecutive entries. Putting in and taking out are the same. */
int lg_acc_xor(const struct lg_filekey *k, uint64_t i, const uint8_t *entries, size_t n, uint8_t acc[LG_PRF_OUT]) LG_MUST;

#endif
