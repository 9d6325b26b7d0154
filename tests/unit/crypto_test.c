/* Known answers come from independent implementations (Python's hashlib and cryptography). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>
#include <openssl/params.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../keymgr/crypto/internal.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

static struct lg_secret *counting_key(void)
{
    struct lg_secret *k = lg_secret_new();
    assert_non_null(k);
    for (unsigned i = 0; i < LG_KEY_LEN; i++)
        k->b[i] = (uint8_t)i;
    return k;
}

static void known_answers(void **state)
{
    (void)state;
    static const uint8_t hkdf[] = { 0x8c, 0x54, 0xa9, 0xbe, 0x3f, 0x6d, 0x11, 0xe5, 0xe9, 0x44, 0x8e, 0x74, 0xfa, 0xc5, 0x75, 0x72,
                                    0xa6, 0x5d, 0xd9, 0x07, 0xad, 0x59, 0x6a, 0xcb, 0xba, 0x4e, 0x18, 0x9e, 0xf1, 0x45, 0x35, 0xf9 };
    static const uint8_t hmac[] = { 0xf0, 0x13, 0x37, 0x29, 0xc4, 0x16, 0x3d, 0xed, 0xe8, 0x1e, 0x21, 0xcd, 0x47, 0x83, 0x92, 0x56,
                                    0xda, 0x58, 0x17, 0x12, 0x38, 0xc8, 0xa0, 0xd8, 0x74, 0x39, 0x7c, 0x73, 0xb1, 0x4e, 0x1e, 0x47 };
    static const uint8_t scrypt[] = { 0x62, 0x45, 0xef, 0xbb, 0x6c, 0x5c, 0x9d, 0x26, 0x8d, 0xfb, 0xb2, 0x14, 0x2d, 0x22, 0x61, 0x42,
                                      0x74, 0xed, 0x72, 0x2e, 0xe2, 0x13, 0xa6, 0xab, 0x6b, 0x35, 0xa0, 0x48, 0x18, 0xf3, 0x59, 0xcf };
    static const uint8_t siv[] = { 0x4e, 0xa3, 0x18, 0x8b, 0x6d, 0xf0, 0xe5, 0xb2, 0xec, 0xad, 0x11, 0x06, 0xce, 0xaf, 0x47, 0xf3, 0x9b, 0x15, 0xbb, 0xc0, 0x11 };
    static const uint8_t gcm[] = { 0x66, 0xd9, 0xd9, 0xb2, 0xda, 0x11, 0xba, 0xe4, 0x24, 0xce, 0x67, 0x1b, 0x6e, 0x7e, 0xf0, 0x4a, 0x4d, 0x98, 0x65, 0x6a, 0x32 };
    static const uint8_t prf[] = { 0xd2, 0xa8, 0xdf, 0x91, 0x7f, 0xb9, 0xcb, 0x5d, 0xe2, 0xa5, 0x2f, 0xfd, 0xe3, 0x1d, 0xa6, 0xcb };
    LG_SECRET_AUTO key = counting_key();
    LG_SECRET_AUTO out = lg_secret_new();
    uint8_t buf[64], tag[LG_TAG_LEN];

    assert_int_equal(lg_derive(key, "label", "ctx", 3, out), 0);
    assert_memory_equal(out->b, hkdf, 32);
    assert_int_equal(lg_hmac(key, "abc", 3, buf), 0);
    assert_memory_equal(buf, hmac, 32);
    struct lg_scrypt s = { .log2_n = 10, .r = 8, .p = 1 };
    memcpy(s.salt, key->b, 32);
    assert_int_equal(lg_scrypt_derive(&s, "password", 8, out), 0);
    assert_memory_equal(out->b, scrypt, 32);
    assert_int_equal(lg_siv_seal(key, "ad", 2, "hello", 5, buf), 0);
    assert_memory_equal(buf, siv, sizeof siv);
    struct lg_gcm *g = NULL;
    uint8_t nonce[LG_NONCE_LEN] = { 0 };
    assert_int_equal(lg_gcm_new(key, &g), 0);
    assert_int_equal(lg_gcm_seal(g, nonce, "ad", 2, "hello", 5, buf, tag), 0);
    assert_memory_equal(buf, gcm, 5);
    assert_memory_equal(tag, gcm + 5, 16);
    lg_gcm_free(g);
    uint8_t in[96], acc[16] = { 0 };
    for (unsigned i = 0; i < 48; i++) {
        in[i] = (uint8_t)i;
        in[48 + i] = (uint8_t)(100 + i);
    }
    assert_int_equal(lg_prf_xor(key, in, 2, acc), 0);
    assert_memory_equal(acc, prf, 16);
    assert_int_equal(lg_prf_xor(key, in, 2, acc), 0);
    for (unsigned i = 0; i < 16; i++)
        assert_int_equal(acc[i], 0);
}

/* What is spelled out here against OpenSSL's own: every length about the edges of blocks, and some. */
static void openssl_siv(const uint8_t siv_key[64], const void *ad, size_t ad_len, const char *ad2, const void *pt, size_t len, uint8_t *out)
{
    EVP_CIPHER *alg = EVP_CIPHER_fetch(NULL, "AES-256-SIV", NULL);
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    int n;
    uint8_t end;
    assert_true(EVP_CipherInit_ex2(c, alg, siv_key, NULL, 1, NULL) > 0 && EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len) > 0);
    if (ad2)
        assert_true(EVP_CipherUpdate(c, NULL, &n, (const uint8_t *)ad2, (int)strlen(ad2)) > 0);
    assert_true(EVP_CipherUpdate(c, out + 16, &n, pt, (int)len) > 0 && EVP_CipherFinal_ex(c, &end, &n) > 0 && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, 16, out) > 0);
    EVP_CIPHER_CTX_free(c);
    EVP_CIPHER_free(alg);
}

static void as_openssl_does(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = lg_secret_random();
    uint8_t siv_key[64], ad[300], pt[5000], ours[5016], theirs[5016], back[5016], longer[100], theirs_longer[100];
    struct lg_siv *s = NULL;
    assert_int_equal(lg_derive_bytes(key, "leadglass siv", NULL, 0, siv_key, sizeof siv_key), 0);
    assert_int_equal(lg_siv_new(key, &s), 0);
    assert_int_equal(lg_random(ad, sizeof ad), 0);
    assert_int_equal(lg_random(pt, sizeof pt), 0);
    for (size_t len = 1; len <= sizeof pt; len = len < 600 ? len + 1 : len * 2 + 7)
        for (size_t ad_len = 1; ad_len <= sizeof ad; ad_len = ad_len < 50 ? ad_len + 1 + len / 70 : ad_len * 3) {
            openssl_siv(siv_key, ad, ad_len, NULL, pt, len, theirs);
            assert_int_equal(lg_siv_seal_with(s, ad, ad_len, pt, len, ours), 0);
            assert_memory_equal(ours, theirs, len + 16);
            assert_int_equal(lg_siv_open_with(s, ad, ad_len, theirs, len + 16, back), 0);
            assert_memory_equal(back, pt, len);
        }
    openssl_siv(siv_key, ad, 16, "empty", "\0", 1, theirs);
    assert_int_equal(lg_siv_seal_with(s, ad, 16, NULL, 0, ours), 0);
    assert_memory_equal(ours, theirs, 16);
    openssl_siv(siv_key, "\0", 1, NULL, pt, 20, theirs);
    assert_int_equal(lg_siv_seal_with(s, NULL, 0, pt, 20, ours), 0);
    assert_memory_equal(ours, theirs, 36);
    lg_siv_free(s);

    EVP_KDF *alg = EVP_KDF_fetch(NULL, "HKDF", NULL);
    EVP_KDF_CTX *k = EVP_KDF_CTX_new(alg);
    char digest[] = "SHA256", info[] = "label\0ctx";
    for (size_t len = 1; len <= sizeof longer; len += 3) {
        OSSL_PARAM p[] = { OSSL_PARAM_construct_utf8_string(OSSL_KDF_PARAM_DIGEST, digest, 0), OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_KEY, key->b, 32),
                           OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_INFO, info, 9), OSSL_PARAM_construct_end() };
        assert_true(EVP_KDF_derive(k, theirs_longer, len, p) > 0);
        assert_int_equal(lg_derive_bytes(key, "label", "ctx", 3, longer, len), 0);
        assert_memory_equal(longer, theirs_longer, len);
    }
    EVP_KDF_CTX_free(k);
    EVP_KDF_free(alg);
}

/* AES-256-GCM as another library has it: lengths around blocks and the strides of vector code, in place and not, one context used for all. */
static void gcm_as_openssl_does(void **state)
{
    (void)state;
    enum { MOST = 300000 }; /* the largest chunk has 256 KiB */
    LG_SECRET_AUTO key = lg_secret_random();
    static uint8_t pt[MOST], ours[MOST], theirs[MOST], ad[300];
    uint8_t nonce[LG_NONCE_LEN], tag[LG_TAG_LEN], their_tag[LG_TAG_LEN];
    struct lg_gcm *g = NULL;
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    assert_int_equal(lg_gcm_new(key, &g), 0);
    assert_int_equal(lg_random(pt, sizeof pt), 0);
    assert_int_equal(lg_random(ad, sizeof ad), 0);
    assert_true(EVP_EncryptInit_ex(c, EVP_aes_256_gcm(), NULL, key->b, NULL) > 0);
    unsigned tried = 0;
    for (size_t len = 0; len <= MOST; len = len < 1200 ? len + 1 : len + len / 9 - len % 7)
        for (size_t ad_len = len % 5; ad_len <= sizeof ad; ad_len = 2 * ad_len + 1 + len % 40) {
            int n = 0;
            assert_int_equal(lg_random(nonce, sizeof nonce), 0);
            assert_true(EVP_EncryptInit_ex(c, NULL, NULL, NULL, nonce) > 0 && EVP_EncryptUpdate(c, NULL, &n, ad, (int)ad_len) > 0 &&
                        EVP_EncryptUpdate(c, theirs, &n, pt, (int)len) > 0 && EVP_EncryptFinal_ex(c, theirs + len, &n) > 0 &&
                        EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, LG_TAG_LEN, their_tag) > 0);
            assert_int_equal(lg_gcm_seal(g, nonce, ad, ad_len, pt, len, ours, tag), 0);
            assert_memory_equal(ours, theirs, len);
            assert_memory_equal(tag, their_tag, sizeof tag);
            assert_int_equal(lg_gcm_open(g, nonce, ad, ad_len, theirs, len, theirs, tag), 0);
            assert_memory_equal(theirs, pt, len);
            memcpy(theirs, pt, len);
            assert_int_equal(lg_gcm_seal(g, nonce, ad, ad_len, theirs, len, theirs, tag), 0);
            assert_memory_equal(theirs, ours, len);
            assert_memory_equal(tag, their_tag, sizeof tag);
            tag[len % sizeof tag] ^= 1;
            assert_int_equal(lg_gcm_open(g, nonce, ad, ad_len, ours, len, theirs, tag), -EBADMSG);
            for (size_t i = 0; i < len; i++)
                assert_int_equal(theirs[i], 0);
            tried++;
        }
    assert_true(tried > 5000);
    EVP_CIPHER_CTX_free(c);
    lg_gcm_free(g);
}

/* Many keys at a time are what each is alone; one altered bit among them gives none. */
static void many_keys(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = lg_secret_random();
    LG_SECRET_BUF_AUTO struct lg_secret *keys = lg_secret_alloc(LG_KEYS_AT_ONCE * sizeof *keys);
    LG_SECRET_BUF_AUTO struct lg_secret *back = lg_secret_alloc(LG_KEYS_AT_ONCE * sizeof *back);
    static const struct lg_secret none[LG_KEYS_AT_ONCE];
    static uint8_t ad[LG_KEYS_AT_ONCE * 70], alone[LG_WRAPPED_LEN], many[LG_KEYS_AT_ONCE * LG_WRAPPED_LEN];
    const size_t counts[] = { 1, 2, 63, LG_KEYS_AT_ONCE };
    struct lg_siv *s = NULL;
    assert_int_equal(lg_siv_new(key, &s), 0);
    assert_int_equal(lg_random(ad, sizeof ad), 0);
    assert_int_equal(lg_random(keys, LG_KEYS_AT_ONCE * sizeof *keys), 0);
    for (unsigned c = 0; c < sizeof counts / sizeof *counts; c++)
        for (size_t n = counts[c], ad_len = 1; ad_len <= 70; ad_len++) {
            assert_int_equal(lg_keys_wrap(s, ad, ad_len, keys, n, many), 0);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(lg_key_wrap_with(s, ad + i * ad_len, ad_len, &keys[i], alone), 0);
                assert_memory_equal(many + i * LG_WRAPPED_LEN, alone, LG_WRAPPED_LEN);
            }
            assert_int_equal(lg_keys_unwrap(s, ad, ad_len, many, n, back), 0);
            assert_memory_equal(back, keys, n * sizeof *back);
        }
    for (unsigned i = 0; i < 200000; i++) { /* where the counter carries: a wrap in 256 does, one in 65,536 twice */
        assert_int_equal(lg_random(keys, sizeof *keys), 0);
        assert_int_equal(lg_keys_wrap(s, ad, 44, keys, 1, many), 0);
        if (many[15] != 0xff)
            continue;
        assert_int_equal(lg_key_unwrap_with(s, ad, 44, many, back), 0);
        assert_memory_equal(back, keys, sizeof *back);
    }
    assert_int_equal(lg_keys_wrap(s, ad, 44, keys, LG_KEYS_AT_ONCE, many), 0);
    for (unsigned i = 0; i < LG_WRAPPED_LEN * 8; i++) {
        uint8_t *at = many + (i % LG_KEYS_AT_ONCE) * LG_WRAPPED_LEN + i / 8;
        *at ^= (uint8_t)(1u << i % 8);
        assert_int_equal(lg_keys_unwrap(s, ad, 44, many, LG_KEYS_AT_ONCE, back), -EBADMSG);
        assert_memory_equal(back, none, sizeof none);
        *at ^= (uint8_t)(1u << i % 8);
    }
    ad[44 * LG_KEYS_AT_ONCE - 1] ^= 1;
    assert_int_equal(lg_keys_unwrap(s, ad, 44, many, LG_KEYS_AT_ONCE, back), -EBADMSG);
    assert_int_equal(lg_keys_unwrap(s, ad, 44, many, LG_KEYS_AT_ONCE - 1, back), 0);
    assert_int_equal(lg_keys_unwrap(s, ad, 44, many, LG_KEYS_AT_ONCE + 1, back), -EINVAL);
    assert_int_equal(lg_keys_wrap(s, ad, 0, keys, 1, many), -EINVAL);
    lg_siv_free(s);
}

static void tampering_is_found(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = counting_key();
    LG_SECRET_AUTO other = lg_secret_random();
    LG_SECRET_AUTO got = lg_secret_new();
    uint8_t w[LG_WRAPPED_LEN];
    assert_int_equal(lg_key_wrap(key, "a", 1, other, w), 0);
    assert_int_equal(lg_key_unwrap(key, "a", 1, w, got), 0);
    assert_memory_equal(got->b, other->b, 32);
    assert_int_equal(lg_key_unwrap(key, "b", 1, w, got), -EBADMSG);
    assert_int_equal(lg_key_unwrap(other, "a", 1, w, got), -EBADMSG);
    for (unsigned i = 0; i < sizeof w * 8; i++) {
        w[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(lg_key_unwrap(key, "a", 1, w, got), -EBADMSG);
        w[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    uint8_t empty[LG_SIV_TAG_LEN];
    assert_int_equal(lg_siv_seal(key, "", 0, "", 0, empty), 0);
    assert_int_equal(lg_siv_open(key, "", 0, empty, sizeof empty, w), 0);
    empty[3] ^= 1;
    assert_int_equal(lg_siv_open(key, "", 0, empty, sizeof empty, w), -EBADMSG);
    assert_int_equal(lg_siv_open(key, "", 0, empty, 15, w), -EBADMSG);

    struct lg_gcm *g = NULL;
    uint8_t nonce[LG_NONCE_LEN] = { 1 }, ct[64], pt[64], tag[LG_TAG_LEN];
    memset(pt, 'x', sizeof pt);
    assert_int_equal(lg_gcm_new(key, &g), 0);
    assert_int_equal(lg_gcm_seal(g, nonce, "ad", 2, pt, sizeof pt, ct, tag), 0);
    for (unsigned i = 0; i < sizeof ct; i++) {
        ct[i] ^= 0x80;
        memset(pt, 'y', sizeof pt);
        assert_int_equal(lg_gcm_open(g, nonce, "ad", 2, ct, sizeof ct, pt, tag), -EBADMSG);
        assert_int_equal(pt[0], 0); /* no unauthenticated plaintext is given out */
        ct[i] ^= 0x80;
    }
    assert_int_equal(lg_gcm_open(g, nonce, "ae", 2, ct, sizeof ct, pt, tag), -EBADMSG);
    assert_int_equal(lg_gcm_open(g, nonce, "ad", 2, ct, sizeof ct, ct, tag), 0); /* in place */
    assert_int_equal(ct[63], 'x');
    lg_gcm_free(g);
}

static uint32_t crc_bitwise(uint32_t crc, const uint8_t *p, size_t len)
{
    crc = ~crc;
    for (size_t bit = 0; bit < 8 * len; bit++)
        crc = crc >> 1 ^ (0x82f63b78u & (0u - ((crc ^ p[bit / 8] >> bit % 8) & 1)));
    return ~crc;
}

static void text_and_checksums(void **state)
{
    (void)state;
    char text[64];
    uint8_t raw[32];
    size_t n;
    for (size_t len = 0; len <= 20; len++) {
        uint8_t in[20];
        for (size_t i = 0; i < len; i++)
            in[i] = (uint8_t)(251 * i + len);
        lg_b64_encode(in, len, text);
        assert_int_equal(strlen(text), lg_b64_len(len));
        assert_int_equal(lg_b64_decode(text, strlen(text), raw, sizeof raw, &n), 0);
        assert_int_equal(n, len);
        assert_memory_equal(raw, in, len);
    }
    assert_int_equal(lg_b64_decode("Zh", 2, raw, sizeof raw, &n), -EPROTO); /* spare bits set */
    assert_int_equal(lg_b64_decode("Z", 1, raw, sizeof raw, &n), -EPROTO);
    assert_int_equal(lg_b64_decode("Zg==", 4, raw, sizeof raw, &n), -EPROTO);
    assert_int_equal(lg_b64_decode("Zm9v", 4, raw, 2, &n), -ENOSPC);
    uint8_t *big = test_malloc(100000);
    assert_int_equal(lg_random(big, 100000), 0);
    for (size_t at = 0, len = 0; len < 9000; at += 13, len += 61) { /* from wherever it begins, in every way that this processor has */
        size_t lens[] = { len, len / 256 * 256, len / 3072 * 3072 }; /* some ways leave no rest of these */
        for (unsigned k = 0; k < 3; k++) {
            uint32_t crc = crc_bitwise((uint32_t)at, big + at, lens[k]);
            for (enum lg_crc32c_way most = LG_CRC32C_BITWISE; most <= LG_CRC32C_FOLDED; most++)
                assert_true(lg_crc32c_by(most, (uint32_t)at, big + at, lens[k]) == crc);
        }
    }
    assert_true(lg_crc32c(lg_crc32c(0, big, 7), big + 7, 99993) == lg_crc32c(0, big, 100000));
    test_free(big);
    assert_true(lg_crc32c(0, "123456789", 9) == 0xe3069283u); /* RFC 3720 appendix B.4's polynomial, the usual check value */
    assert_int_equal(lg_hex_decode("0aFf", raw, 2), 0);
    assert_int_equal(raw[1], 0xff);
    assert_int_equal(lg_hex_decode("0aFg", raw, 2), -EPROTO);
    assert_int_equal(lg_hex_decode("0aF", raw, 2), -EPROTO);
    struct lg_rd r = lg_rd("\x05\x00" "ab", 4);
    char s[9];
    lg_rd_str(&r, s, 8);
    assert_false(lg_rd_ok(&r));
    assert_string_equal(s, "");
}

static void memory_is_guarded(void **state)
{
    (void)state;
    assert_int_equal(prctl(PR_GET_DUMPABLE), 0);
    uint8_t *p = lg_secret_alloc(100);
    memset(p, 0xaa, 100);
    lg_secret_dealloc(p);
    uint8_t *q = lg_secret_alloc(100); /* the same block comes back, wiped */
    assert_ptr_equal(p, q);
    for (unsigned i = 0; i < 100; i++)
        assert_int_equal(q[i], 0);
    lg_secret_dealloc(q);
    assert_null(lg_secret_alloc(0));
    assert_null(lg_secret_alloc(2 * 1024 * 1024));
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define LOCKED " dd" /* their runtime makes nothing of mlock */
#else
#define LOCKED " lo"
#endif

/* How often what stands at what is found in this process's own writable memory that is locked [1], or is not [0]. */
static void look_for(const uint8_t *what, size_t len, unsigned found[2])
{
    enum { PIECE = 256 * 1024 };
    FILE *f = fopen("/proc/self/smaps", "r");
    uint8_t *buf = lg_secret_alloc(PIECE);
    char line[512], perm[8] = "";
    unsigned long from = 0, to = 0, a, b;
    found[0] = found[1] = 0;
    assert_non_null(f);
    assert_non_null(buf);
    while (fgets(line, sizeof line, f))
        if (sscanf(line, "%lx-%lx %7s", &a, &b, perm) == 3)
            from = a, to = b;
        else if (strncmp(line, "VmFlags:", 8) == 0 && strncmp(perm, "rw", 2) == 0 && to - from < 1ul << 28)
            for (unsigned long at = from; at < to; at += PIECE - len + 1) {
                lg_wipe(buf, PIECE); /* it comes by, too */
                struct iovec here = { buf, PIECE }, there = { (void *)at, to - at < PIECE ? to - at : PIECE };
                ssize_t n = process_vm_readv(getpid(), &here, 1, &there, 1, 0);
                for (uint8_t *p = buf; n > 0 && (p = memmem(p, (size_t)(buf + n - p), what, len)); p++)
                    found[strstr(line, LOCKED) && strstr(line, " dd")]++;
            }
    fclose(f);
    lg_wipe(buf, PIECE);
    lg_secret_dealloc(buf);
}

/* While a key is in use, and what was made of it waits for the next call, it stands in locked memory and nowhere else; when it is freed, nowhere. */
static void keys_stay_in_locked_memory(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = lg_secret_random();
    struct lg_gcm *g = NULL;
    uint8_t nonce[LG_NONCE_LEN] = { 1 }, tag[LG_TAG_LEN], text[100] = "text";
    unsigned found[2];
    assert_int_equal(lg_gcm_new(key, &g), 0);
    assert_int_equal(lg_gcm_seal(g, nonce, "ad", 2, text, sizeof text, text, tag), 0);
    look_for(key->b, LG_KEY_LEN, found);
    assert_int_equal(found[0], 0);
    assert_true(found[1] >= 2); /* ours, the copy of it; expanded it begins with itself, mostly */
    lg_gcm_free(g);
    look_for(key->b, LG_KEY_LEN, found);
    assert_int_equal(found[0], 0);
    assert_int_equal(found[1], 1);
}

enum { PRF_N = 130 /* more than two calls' worth of blocks */ };
struct prf_case {
    const struct lg_secret *key;
    uint8_t in[PRF_N * LG_PRF_IN], want[LG_PRF_OUT];
};

/* NULL if each call gave what the first did, whatever keys others use meanwhile. */
static void *xors(void *arg)
{
    const struct prf_case *c = arg;
    for (unsigned i = 0; i < 2000; i++) {
        uint8_t acc[LG_PRF_OUT] = { 0 };
        if (lg_prf_xor(c->key, c->in, PRF_N, acc) || memcmp(acc, c->want, sizeof acc))
            return arg;
    }
    return NULL;
}

/* All at once is what one after the other is; keys take turns, in threads too; and a key is nowhere but where its owner has it when the call is over. */
static void prf_takes_keys_in_turn(void **state)
{
    (void)state;
    static struct prf_case c[3];
    pthread_t t[3];
    unsigned found[2];
    LG_SECRET_BUF_AUTO struct lg_secret *keys = lg_secret_alloc(3 * sizeof *keys);
    assert_non_null(keys);
    for (unsigned k = 0; k < 3; k++) {
        uint8_t acc[LG_PRF_OUT] = { 0 };
        c[k].key = &keys[k];
        assert_int_equal(lg_random(keys[k].b, LG_KEY_LEN), 0);
        assert_int_equal(lg_random(c[k].in, sizeof c[k].in), 0);
        assert_int_equal(lg_prf_xor(c[k].key, c[k].in, PRF_N, c[k].want), 0);
        for (unsigned i = 0; i < PRF_N; i++)
            assert_int_equal(lg_prf_xor(c[k].key, c[k].in + i * LG_PRF_IN, 1, acc), 0);
        assert_memory_equal(acc, c[k].want, sizeof acc);
    }
    assert_memory_not_equal(c[0].want, c[1].want, LG_PRF_OUT);
    for (unsigned k = 0; k < 3; k++)
        assert_int_equal(pthread_create(&t[k], NULL, xors, &c[k]), 0);
    for (unsigned k = 0; k < 3; k++)
        assert_null(xors(&c[k]));
    for (unsigned k = 0; k < 3; k++) {
        void *said;
        assert_int_equal(pthread_join(t[k], &said), 0);
        assert_null(said);
    }
    for (unsigned k = 0; k < 3; k++) {
        look_for(keys[k].b, LG_KEY_LEN, found);
        assert_int_equal(found[0], 0);
        assert_int_equal(found[1], 1);
    }
}

/* As many of the vector registers as there are. */
static size_t vector_registers(uint8_t to[32 * 64])
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        __asm__ volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31\n\tvmovdqu64 %%zmm\\n,64*\\n(%0)\n\t.endr" ::"r"(to) : "memory");
        return (size_t)32 * 64;
    }
    if (__builtin_cpu_supports("avx2")) {
        __asm__ volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tvmovdqu %%ymm\\n,32*\\n(%0)\n\t.endr" ::"r"(to) : "memory");
        return (size_t)16 * 32;
    }
    __asm__ volatile(".irp n,0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15\n\tmovdqu %%xmm\\n,16*\\n(%0)\n\t.endr" ::"r"(to) : "memory");
    return (size_t)16 * 16;
#else
    (void)to;
    return 0;
#endif
}

/* Is a block of what stands in a register one of these? Zero is nobody's secret. */
static bool among(const uint8_t *reg, size_t regs, const uint8_t *what, size_t len)
{
    static const uint8_t zero[16];
    for (size_t i = 0; i < regs; i += 16)
        for (size_t k = 0; memcmp(reg + i, zero, 16) && k + 16 <= len; k++)
            if (!memcmp(reg + i, what + k, 16))
                return true;
    return false;
}

/* What a call leaves in vector registers, a signal or another's code may put where nothing is locked: no round key, no power of the hash key, no plaintext. */
static void nothing_stays_in_registers(void **state)
{
    (void)state;
    enum { MOST = 65536, OBJECT = 1500 /* a key with its schedule is no longer, and its block holds more */ };
    static const size_t lens[] = { 16, 48, 100, 256, 768, 1024, 4096, 16384, 65536 };
    static uint8_t reg[3][32 * 64], pt[MOST], ct[MOST];
    LG_SECRET_AUTO key = lg_secret_random();
    struct lg_gcm *g = NULL;
    uint8_t nonce[LG_NONCE_LEN] = { 7 }, tag[LG_TAG_LEN];
    assert_int_equal(lg_random(pt, sizeof pt), 0);
    int rc = lg_gcm_new(key, &g);
    size_t n = vector_registers(reg[0]);
    assert_int_equal(rc, 0);
    LG_SECRET_BUF_AUTO uint8_t *object = lg_secret_alloc(OBJECT);
    for (size_t i = 0; i < sizeof lens / sizeof lens[0]; i++) {
        rc = lg_gcm_seal(g, nonce, "ad", 2, pt, lens[i], ct, tag);
        vector_registers(reg[1]);
        int rc2 = lg_gcm_open(g, nonce, "ad", 2, ct, lens[i], ct, tag);
        vector_registers(reg[2]);
        assert_int_equal(rc, 0);
        assert_int_equal(rc2, 0);
        memcpy(object, g, OBJECT);
        for (unsigned k = 0; k < 3; k++) {
            assert_false(among(reg[k], n, object, OBJECT));
            assert_false(among(reg[k], n, key->b, LG_KEY_LEN));
            assert_false(among(reg[k], n, pt, lens[i]));
        }
    }
    lg_gcm_free(g);
}

/* One object, several threads at a time: NULL if what each sealed is what it opened. */
static void *seals_and_opens(void *arg)
{
    enum { LEN = 5000 };
    uint8_t nonce[LG_NONCE_LEN], pt[LEN], b[LEN], tag[LG_TAG_LEN];
    for (unsigned i = 0; i < 2000; i++) {
        if (lg_random(nonce, sizeof nonce) || lg_random(pt, 64))
            return arg;
        memset(pt + 64, (int)i, sizeof pt - 64);
        if (lg_gcm_seal(arg, nonce, nonce, sizeof nonce, pt, sizeof pt, b, tag) || lg_gcm_open(arg, nonce, nonce, sizeof nonce, b, sizeof b, b, tag) || memcmp(b, pt, sizeof pt))
            return arg;
    }
    return NULL;
}

static void threads_share_a_key(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = lg_secret_random();
    struct lg_gcm *g = NULL;
    pthread_t t[3];
    void *said;
    assert_int_equal(lg_gcm_new(key, &g), 0);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(pthread_create(&t[i], NULL, seals_and_opens, g), 0);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pthread_join(t[i], &said), 0);
        assert_null(said);
    }
    lg_gcm_free(g);
}

/* What neither library would do, and libipsec-mb would not say that it did not. */
static void what_is_not_done_is_said(void **state)
{
    (void)state;
    LG_SECRET_AUTO key = lg_secret_random();
    struct lg_gcm *g = NULL;
    uint8_t nonce[LG_NONCE_LEN] = { 1 }, tag[LG_TAG_LEN] = { 0 }, b[16] = "plain";
    assert_int_equal(lg_gcm_new(key, &g), 0);
    assert_int_equal(lg_gcm_seal(g, nonce, NULL, 0, b, (1ull << 36) - 32, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_seal(g, nonce, NULL, 0, NULL, 1, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_seal(g, nonce, NULL, 0, b, 1, NULL, tag), -EINVAL);
    assert_int_equal(lg_gcm_seal(g, nonce, NULL, 1, b, 1, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_open(g, nonce, NULL, 0, b, (1ull << 36) - 32, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_open(g, nonce, NULL, 0, NULL, 1, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_open(g, nonce, NULL, 1, b, 1, b, tag), -EINVAL);
    assert_int_equal(lg_gcm_open(g, nonce, NULL, 0, NULL, 0, NULL, tag), -EBADMSG);
    assert_int_equal(lg_gcm_seal(g, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
    assert_int_equal(lg_gcm_open(g, nonce, NULL, 0, NULL, 0, NULL, tag), 0);
    lg_gcm_free(g);
}

/* AES-256-GCM by every library and every width of registers that this machine has, and not only by that which it would take. */
static void every_way(void **state)
{
    static const char *const name[] = { "OpenSSL", "libipsec-mb by SSE", "libipsec-mb by AVX2", "libipsec-mb by AVX-512" };
    for (int k = LG_GCM_AVX512; k >= LG_GCM_OPENSSL; k--) {
        int got = lg_gcm_choose((enum lg_gcm_kind)k);
        assert_true(got >= 0 && got <= k);
        if (got < k) {
            printf("left out: AES-256-GCM of %s, which this build or this machine does not have\n", name[k]);
            continue;
        }
        gcm_as_openssl_does(state);
        known_answers(state);
        tampering_is_found(state);
        keys_stay_in_locked_memory(state);
        threads_share_a_key(state);
        what_is_not_done_is_said(state);
        if (k != LG_GCM_OPENSSL) /* it has its own ways */
            nothing_stays_in_registers(state);
    }
    assert_true(lg_gcm_choose(LG_GCM_AVX512) >= 0);
}

/* RFC 8032 section 7.1, test 2. */
static void test_sign(void **state)
{
    (void)state;
    static const char seed_hex[] = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb", pub_hex[] = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
                      sig_hex[] = "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00";
    LG_SECRET_AUTO seed = lg_secret_new();
    uint8_t pub[LG_SIGN_PUB_LEN], want_pub[LG_SIGN_PUB_LEN], sig[LG_SIGN_LEN], want[LG_SIGN_LEN], msg[] = { 0x72 };
    assert_int_equal(lg_hex_decode(seed_hex, seed->b, LG_KEY_LEN), 0);
    assert_int_equal(lg_hex_decode(pub_hex, want_pub, sizeof want_pub), 0);
    assert_int_equal(lg_hex_decode(sig_hex, want, sizeof want), 0);
    assert_int_equal(lg_sign_public(seed, pub), 0);
    assert_memory_equal(pub, want_pub, sizeof pub);
    assert_int_equal(lg_sign(seed, msg, 1, sig), 0);
    assert_memory_equal(sig, want, sizeof sig);
    assert_int_equal(lg_sign_verify(pub, msg, 1, sig), 0);
    for (unsigned i = 0; i < 8 * sizeof sig; i++) {
        sig[i / 8] ^= (uint8_t)(1u << i % 8);
        assert_int_equal(lg_sign_verify(pub, msg, 1, sig), -EBADMSG);
        sig[i / 8] ^= (uint8_t)(1u << i % 8);
    }
    msg[0] ^= 1;
    assert_int_equal(lg_sign_verify(pub, msg, 1, sig), -EBADMSG);
}

enum { DRAWERS = 4, DRAWN = 5000 };
typedef uint8_t nonce_t[LG_NONCE_LEN];

static void *draw_many(void *into)
{
    nonce_t *n = into;
    for (unsigned i = 0; i < DRAWN; i++)
        if (lg_random_nonce(n[i], LG_NONCE_LEN))
            memset(n[i], 0, LG_NONCE_LEN); /* found to be twice there */
    return NULL;
}

static int by_bytes(const void *a, const void *b) { return memcmp(a, b, LG_NONCE_LEN); }

/* Threads draw at once, and so do a process and its child; no nonce is there twice. */
static void nonces_are_drawn_once(void **state)
{
    static nonce_t all[DRAWERS + 1][DRAWN];
    pthread_t t[DRAWERS];
    int fd[2], status;
    uint8_t large[2][4096];
    (void)state;
    for (unsigned i = 0; i < DRAWERS; i++)
        assert_int_equal(pthread_create(&t[i], NULL, draw_many, all[i]), 0);
    for (unsigned i = 0; i < DRAWERS; i++)
        assert_int_equal(pthread_join(t[i], NULL), 0);
    assert_int_equal(lg_random_nonce(all[0][0], LG_NONCE_LEN), 0); /* this thread has a state that a child would share */
    assert_int_equal(pipe(fd), 0);
    pid_t child = fork();
    assert_true(child >= 0);
    draw_many(all[DRAWERS]);
    if (!child)
        _exit(write(fd[1], all[DRAWERS], 1000 * LG_NONCE_LEN) != 1000 * LG_NONCE_LEN);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
    assert_int_equal(read(fd[0], all[0], 1000 * LG_NONCE_LEN), 1000 * LG_NONCE_LEN);
    close(fd[0]);
    close(fd[1]);
    qsort(all, sizeof all / LG_NONCE_LEN, LG_NONCE_LEN, by_bytes);
    for (size_t i = 1; i < sizeof all / LG_NONCE_LEN; i++)
        assert_memory_not_equal((uint8_t *)all + i * LG_NONCE_LEN, (uint8_t *)all + (i - 1) * LG_NONCE_LEN, LG_NONCE_LEN);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(lg_random_nonce(large[i], sizeof large[i]), 0);
    for (unsigned at = 0; at < sizeof large[0]; at += 16)
        assert_memory_not_equal(large[0] + at, large[1] + at, 16);
}

/* Every byte that was asked for is drawn, and no other. */
static void nonces_are_drawn_whole(void **state)
{
    static const size_t lens[] = { 1, 12, 95, 96, 97, 192, 384, 4096 };
    (void)state;
    for (size_t k = 0; k < sizeof lens / sizeof lens[0]; k++) {
        uint8_t b[4096 + 1], seen[4096] = { 0 }; /* bits that were set once */
        for (unsigned i = 0; i < 64; i++) {
            memset(b, 0, sizeof b);
            b[lens[k]] = 0xa5;
            assert_int_equal(lg_random_nonce(b, lens[k]), 0);
            assert_int_equal(b[lens[k]], 0xa5);
            for (size_t at = 0; at < lens[k]; at++)
                seen[at] |= b[at];
        }
        for (size_t at = 0; at < lens[k]; at++)
            assert_int_equal(seen[at], 0xff);
    }
}

int main(void)
{
    if (lg_secret_init(false) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nonces_are_drawn_once),
        cmocka_unit_test(nonces_are_drawn_whole),
        cmocka_unit_test(as_openssl_does),
        cmocka_unit_test(many_keys),
        cmocka_unit_test(text_and_checksums),
        cmocka_unit_test(memory_is_guarded),
        cmocka_unit_test(prf_takes_keys_in_turn),
        cmocka_unit_test(every_way),
        cmocka_unit_test(test_sign),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
