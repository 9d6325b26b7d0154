/* crypto.h: the only door to OpenSSL and, for AES-256-GCM, to libipsec-mb.
 *
 * Algorithms: AES-256-GCM (NIST SP 800-38D) for chunks, AES-256-SIV (RFC 5297) for wraps, names and records,
 * HKDF-SHA256 (RFC 5869) for derivation, HMAC-SHA256 (RFC 2104) for MACs, SHA-256, scrypt (RFC 7914), Ed25519 (RFC 8032) for signatures.
 * Functions are thread-safe; objects are not shared between threads unless said so. */
#ifndef LEADGLASS_CRYPTO_H
#define LEADGLASS_CRYPTO_H

#include "leadglass/secret.h"

#define LG_SIV_TAG_LEN 16u
#define LG_WRAPPED_LEN (LG_KEY_LEN + LG_SIV_TAG_LEN) /* a wrapped 256-bit key: 48 bytes */
#define LG_MAC_LEN 32u
#define LG_NONCE_LEN 12u
#define LG_TAG_LEN 16u

/* Fetches every algorithm once. Call after lg_secret_init. -ENOTSUP when a library lacks one, or AES-256-GCM gives another answer than the known one. */
int lg_crypto_init(void) LG_MUST;

/* len bytes from getrandom(2). Never fails on a kernel that has booted; -EIO otherwise. */
int lg_random(void *buf, size_t len) LG_MUST;
/* The same for what is no secret and is drawn for every write (nonces, salts): without a system call where the kernel has its generator in user space. Nothing is
 * drawn ahead but what the kernel's own code there does, which begins anew when the kernel's generator is seeded anew. */
int lg_random_nonce(void *buf, size_t len) LG_MUST;
/* The same for what is written down for everybody to see, as ids are: drawn for several at a time, and kept in ordinary memory until then. Not for nonces, nor salts of
 * which one key makes a pad: a machine that is copied while it runs would use those twice. */
int lg_random_public(void *buf, size_t len) LG_MUST;

/* out = HKDF-SHA256(ikm = key, salt = none, info = label || 0x00 || ctx). Label is the purpose, one each. */
int lg_derive(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, struct lg_secret *out) LG_MUST;

/* out (out_len bytes, at most 255*32) by the same rule, for public values such as commitments. */
int lg_derive_bytes(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, void *out,
                    size_t out_len) LG_MUST;

/* Several from one key, by the same rule: the key is worked in once. */
struct lg_derived {
    const char *label;
    const void *ctx;
    size_t ctx_len;
    void *out;
    size_t out_len;
};
int lg_derive_all(const struct lg_secret *key, const struct lg_derived *d, unsigned n) LG_MUST;

int lg_sha256(const void *data, size_t len, uint8_t out[LG_MAC_LEN]) LG_MUST;
/* SHA-256 over two byte strings, concatenated. */
int lg_sha256_2(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[LG_MAC_LEN]) LG_MUST;
int lg_hmac(const struct lg_secret *key, const void *data, size_t len, uint8_t out[LG_MAC_LEN]) LG_MUST;

/* AES-256-SIV, one associated-data string. The 64-byte SIV key is HKDF(key, "leadglass siv"). Output is the 16-byte
 * synthetic IV followed by the ciphertext: ret_len = pt_len + 16. Deterministic. pt_len may be 0. */
int lg_siv_seal(const struct lg_secret *key, const void *ad, size_t ad_len, const void *pt, size_t pt_len, uint8_t *out) LG_MUST;
/* Inverse: ct_len >= 16, writes ct_len - 16 bytes. -EBADMSG when it does not verify (out is wiped then). */
int lg_siv_open(const struct lg_secret *key, const void *ad, size_t ad_len, const void *ct, size_t ct_len, uint8_t *out) LG_MUST;

/* The same with the SIV key schedule derived once; may be used by several threads at a time. */
struct lg_siv;
int lg_siv_new(const struct lg_secret *key, struct lg_siv **ret) LG_MUST;
/* In two steps, where many keys take turns: what is derived (keep it in secret memory) costs most of it. */
#define LG_SIV_KEY_LEN 64u
int lg_siv_key(const struct lg_secret *key, uint8_t ret[LG_SIV_KEY_LEN]) LG_MUST;
int lg_siv_from(const uint8_t siv_key[LG_SIV_KEY_LEN], struct lg_siv **ret) LG_MUST;
void lg_siv_free(struct lg_siv *s);
int lg_siv_seal_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *pt, size_t pt_len, uint8_t *out) LG_MUST;
int lg_siv_open_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *ct, size_t ct_len, uint8_t *out) LG_MUST;

/* Key wrapping: SIV of a 256-bit key under another, everything that matters as associated data. */
int lg_key_wrap(const struct lg_secret *kek, const void *ad, size_t ad_len, const struct lg_secret *key,
                uint8_t out[LG_WRAPPED_LEN]) LG_MUST;
int lg_key_unwrap(const struct lg_secret *kek, const void *ad, size_t ad_len, const uint8_t in[LG_WRAPPED_LEN],
                  struct lg_secret *out) LG_MUST;

int lg_key_wrap_with(struct lg_siv *kek, const void *ad, size_t ad_len, const struct lg_secret *key, uint8_t out[LG_WRAPPED_LEN]) LG_MUST;
int lg_key_unwrap_with(struct lg_siv *kek, const void *ad, size_t ad_len, const uint8_t in[LG_WRAPPED_LEN], struct lg_secret *out) LG_MUST;
/* Many at a time, for a fraction of what each costs alone: n (up to LG_KEYS_AT_ONCE) keys, wraps and strings of associated data (all ad_len bytes, not 0) stand one
 * after the other. Unwrapping gives all of them or, with -EBADMSG, none. */
#define LG_KEYS_AT_ONCE 64u
int lg_keys_wrap(const struct lg_siv *kek, const uint8_t *ad, size_t ad_len, const struct lg_secret *keys, size_t n, uint8_t *out) LG_MUST;
int lg_keys_unwrap(const struct lg_siv *kek, const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t n, struct lg_secret *out) LG_MUST;

/* Ed25519 (RFC 8032). The private key is its 32-byte seed: any random secret is one. */
#define LG_SIGN_PUB_LEN 32u
#define LG_SIGN_LEN 64u
int lg_sign_public(const struct lg_secret *seed, uint8_t ret_pub[LG_SIGN_PUB_LEN]) LG_MUST;
int lg_sign(const struct lg_secret *seed, const void *msg, size_t len, uint8_t ret_sig[LG_SIGN_LEN]) LG_MUST;
/* -EBADMSG unless the holder of pub's seed signed these bytes. Every signed message of ours begins with a magic of its own kind, so that none
 * can be taken for another. */
int lg_sign_verify(const uint8_t pub[LG_SIGN_PUB_LEN], const void *msg, size_t len, const uint8_t sig[LG_SIGN_LEN]) LG_MUST;

/* AES-256-GCM under one key; several threads may use one object at a time. */
struct lg_gcm;
int lg_gcm_new(const struct lg_secret *key, struct lg_gcm **ret) LG_MUST;
void lg_gcm_free(struct lg_gcm *g);
/* out may equal in. */
int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, uint8_t tag[LG_TAG_LEN]) LG_MUST;
/* -EBADMSG when the tag does not verify; out then holds no plaintext (it is wiped). out may equal in. */
int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, const uint8_t tag[LG_TAG_LEN]) LG_MUST;

/* A PRF on 48-byte blocks (AES-256 CBC-MAC of fixed length, three blocks), evaluated on n blocks at once and XORed into
 * acc: acc ^= PRF(in[0]) ^ ... ^ PRF(in[n-1]). The core of the accumulator (XOR-MAC: Bellare, Guerin, Rogaway 1995). */
#define LG_PRF_IN 48u
#define LG_PRF_OUT 16u
/* -ENOMEM: nothing was done (a thread's first call makes its context, which has no key between calls). -EIO: what stands in acc is of no use. */
int lg_prf_xor(const struct lg_secret *key, const uint8_t *in, size_t n, uint8_t acc[LG_PRF_OUT]) LG_MUST;

/* scrypt with N = 2^log2_n. Memory 128*r*2^log2_n bytes, at most 1 GiB (-EINVAL above). */
struct lg_scrypt {
    uint8_t log2_n, r, p;
    uint8_t salt[32];
};
int lg_scrypt_derive(const struct lg_scrypt *params, const void *pass, size_t pass_len, struct lg_secret *out) LG_MUST;
/* Fresh salt, and the largest N whose derivation stays near target_ms on this machine (log2_n within 14..20, r=8, p=1). */
int lg_scrypt_calibrate(unsigned target_ms, struct lg_scrypt *ret) LG_MUST;

#endif
