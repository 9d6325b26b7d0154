/* AES-256-SIV (RFC 5297): wraps, names, records. */
#include "leadglass/crypto.h"

#include <limits.h>
#include <string.h>

#include "internal.h"

enum { SIV_KEY_LEN = 64 };

struct lg_siv {
    uint8_t key[SIV_KEY_LEN];
    /* Contexts with the key schedule in them, opening and sealing, made at the first use of each and only ever copied: in OpenSSL 3.0 a used SIV
     * context keeps its S2V state, and setting one up anew costs three times as much as a copy. */
    EVP_CIPHER_CTX *keyed[2];
};

int lg_siv_new(const struct lg_secret *key, struct lg_siv **ret)
{
    struct lg_siv *s = lg_secret_alloc(sizeof *s);
    if (!s)
        return -ENOMEM;
    int rc = lg_derive_bytes(key, "leadglass siv", NULL, 0, s->key, sizeof s->key);
    if (rc) {
        lg_siv_free(s);
        return rc;
    }
    *ret = s;
    return 0;
}

void lg_siv_free(struct lg_siv *s)
{
    if (!s)
        return;
    EVP_CIPHER_CTX_free(s->keyed[0]);
    EVP_CIPHER_CTX_free(s->keyed[1]);
    lg_secret_dealloc(s);
}

static EVP_CIPHER_CTX *keyed_new(const struct lg_siv *s, int seal)
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    if (c && EVP_CipherInit_ex2(c, lg_alg.siv, s->key, NULL, seal, NULL) > 0)
        return c;
    EVP_CIPHER_CTX_free(c);
    return NULL;
}

/* Threads may meet here: the first to be ready stays. */
static const EVP_CIPHER_CTX *keyed(struct lg_siv *s, int seal)
{
    EVP_CIPHER_CTX *have = __atomic_load_n(&s->keyed[seal], __ATOMIC_ACQUIRE), *none = NULL;
    if (have)
        return have;
    have = keyed_new(s, seal);
    if (have && !__atomic_compare_exchange_n(&s->keyed[seal], &none, have, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE)) {
        EVP_CIPHER_CTX_free(have);
        have = none;
    }
    return have;
}

static EVP_CIPHER_CTX *siv_start(struct lg_siv *s, const void *ad, size_t ad_len, int seal)
{
    int n = 0;
    const EVP_CIPHER_CTX *from = keyed(s, seal);
    EVP_CIPHER_CTX *c = from ? EVP_CIPHER_CTX_new() : NULL;
    if (c && EVP_CIPHER_CTX_copy(c, from) > 0 && EVP_CipherUpdate(c, NULL, &n, ad_len ? ad : (const void *)"\0", ad_len ? (int)ad_len : 1) > 0)
        return c;
    EVP_CIPHER_CTX_free(c);
    return NULL;
}

/* OpenSSL's SIV never finishes an empty message. Ours is the tag of one zero byte under a second associated-data string, "empty", which
 * no other message has. */
static int siv_empty_tag(struct lg_siv *s, const void *ad, size_t ad_len, uint8_t tag[LG_SIV_TAG_LEN])
{
    EVP_CIPHER_CTX *c = siv_start(s, ad, ad_len, 1);
    if (!c)
        return -ENOMEM;
    int n = 0;
    uint8_t zero = 0, byte;
    int ok = EVP_CipherUpdate(c, NULL, &n, (const uint8_t *)"empty", 5) > 0 && EVP_CipherUpdate(c, &byte, &n, &zero, 1) > 0 &&
             EVP_CipherFinal_ex(c, &zero, &n) > 0 && EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, LG_SIV_TAG_LEN, tag) > 0;
    EVP_CIPHER_CTX_free(c);
    return ok ? 0 : -ENOMEM;
}

int lg_siv_seal_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *pt, size_t pt_len, uint8_t *out)
{
    if (ad_len > INT_MAX || pt_len > INT_MAX - LG_SIV_TAG_LEN)
        return -EINVAL;
    if (pt_len == 0)
        return siv_empty_tag(s, ad, ad_len, out);
    EVP_CIPHER_CTX *c = siv_start(s, ad, ad_len, 1);
    if (!c)
        return -ENOMEM;
    int n = 0, m = 0;
    uint8_t end = 0;
    int ok = EVP_CipherUpdate(c, out + LG_SIV_TAG_LEN, &n, pt, (int)pt_len) > 0 && EVP_CipherFinal_ex(c, &end, &m) > 0 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, LG_SIV_TAG_LEN, out) > 0;
    EVP_CIPHER_CTX_free(c);
    return ok ? 0 : -ENOMEM;
}

int lg_siv_open_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *ct, size_t ct_len, uint8_t *out)
{
    if (ct_len < LG_SIV_TAG_LEN)
        return -EBADMSG;
    if (ad_len > INT_MAX || ct_len > INT_MAX)
        return -EINVAL;
    const uint8_t *in = ct;
    size_t len = ct_len - LG_SIV_TAG_LEN;
    uint8_t tag[LG_SIV_TAG_LEN], end = 0;
    if (len == 0) {
        int rc = siv_empty_tag(s, ad, ad_len, tag);
        return rc ? rc : lg_equal(tag, in, sizeof tag) ? 0 : -EBADMSG;
    }
    memcpy(tag, in, sizeof tag);
    EVP_CIPHER_CTX *c = siv_start(s, ad, ad_len, 0);
    if (!c)
        return -ENOMEM;
    int n = 0, m = 0;
    int ok = EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, sizeof tag, tag) > 0 &&
             EVP_CipherUpdate(c, out, &n, in + LG_SIV_TAG_LEN, (int)len) > 0 && EVP_CipherFinal_ex(c, &end, &m) > 0;
    EVP_CIPHER_CTX_free(c);
    if (!ok) {
        lg_wipe(out, len);
        return -EBADMSG;
    }
    return 0;
}

static void siv_freep(struct lg_siv **s) { lg_siv_free(*s); }

int lg_siv_seal(const struct lg_secret *key, const void *ad, size_t ad_len, const void *pt, size_t pt_len, uint8_t *out)
{
    __attribute__((cleanup(siv_freep))) struct lg_siv *s = NULL;
    int rc = lg_siv_new(key, &s);
    return rc ? rc : lg_siv_seal_with(s, ad, ad_len, pt, pt_len, out);
}

int lg_siv_open(const struct lg_secret *key, const void *ad, size_t ad_len, const void *ct, size_t ct_len, uint8_t *out)
{
    __attribute__((cleanup(siv_freep))) struct lg_siv *s = NULL;
    int rc = lg_siv_new(key, &s);
    return rc ? rc : lg_siv_open_with(s, ad, ad_len, ct, ct_len, out);
}

int lg_key_wrap(const struct lg_secret *kek, const void *ad, size_t ad_len, const struct lg_secret *key, uint8_t out[LG_WRAPPED_LEN])
{
    return lg_siv_seal(kek, ad, ad_len, key->b, sizeof key->b, out);
}

int lg_key_wrap_with(struct lg_siv *kek, const void *ad, size_t ad_len, const struct lg_secret *key, uint8_t out[LG_WRAPPED_LEN])
{
    return lg_siv_seal_with(kek, ad, ad_len, key->b, sizeof key->b, out);
}

int lg_key_unwrap_with(struct lg_siv *kek, const void *ad, size_t ad_len, const uint8_t in[LG_WRAPPED_LEN], struct lg_secret *out)
{
    return lg_siv_open_with(kek, ad, ad_len, in, LG_WRAPPED_LEN, out->b);
}

int lg_key_unwrap(const struct lg_secret *kek, const void *ad, size_t ad_len, const uint8_t in[LG_WRAPPED_LEN], struct lg_secret *out)
{
    return lg_siv_open(kek, ad, ad_len, in, LG_WRAPPED_LEN, out->b);
}
