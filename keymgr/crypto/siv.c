/* AES-256-SIV (RFC 5297): wraps, names, records. S2V and the counter are spelled out on AES-256 CBC and ECB: in OpenSSL 3.0 a used SIV context keeps its S2V
 * state, so each message wants a copy of a keyed one, and that costs ten times what sealing a name does. Nor is a context given another IV: that costs more than
 * the blocks of a name do. */
#include "leadglass/crypto.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "internal.h"

enum { BLOCK = 16, IDLE_MAX = 4 };

/* One thread's at a time. */
struct ciphers {
    EVP_CIPHER_CTX *mac, *ecb; /* CBC under the first half of the key; what makes the counter's blocks under the second */
    uint8_t at[BLOCK];         /* the block that mac ended with, and goes on from */
    bool fresh, broken;        /* fresh: what comes next is the first of a message. broken: where mac stands is not known */
};

struct lg_siv {
    uint8_t key[LG_SIV_KEY_LEN];
    uint8_t sub[2][BLOCK]; /* CMAC's: for a whole last block, for one that was padded */
    uint8_t zero[BLOCK];   /* S2V begins with the MAC of the zero block */
    pthread_mutex_t lock;  /* of what follows; held for no more than a push or pop */
    unsigned n;
    struct ciphers idle[IDLE_MAX];
};

static void ciphers_free(struct ciphers *c)
{
    EVP_CIPHER_CTX_free(c->mac);
    EVP_CIPHER_CTX_free(c->ecb);
}

static int ciphers_take(struct lg_siv *s, struct ciphers *ret)
{
    bool got = false;
    pthread_mutex_lock(&s->lock);
    if (s->n) {
        *ret = s->idle[--s->n];
        got = true;
    }
    pthread_mutex_unlock(&s->lock);
    if (got)
        return 0;
    struct ciphers c = { .mac = EVP_CIPHER_CTX_new(), .ecb = EVP_CIPHER_CTX_new() };
    if (!c.mac || !c.ecb || EVP_CipherInit_ex2(c.mac, lg_alg.cbc, s->key, c.at, 1, NULL) <= 0 || EVP_CipherInit_ex2(c.ecb, lg_alg.ecb, s->key + LG_KEY_LEN, NULL, 1, NULL) <= 0) {
        ciphers_free(&c);
        return -ENOMEM;
    }
    EVP_CIPHER_CTX_set_padding(c.mac, 0);
    EVP_CIPHER_CTX_set_padding(c.ecb, 0);
    *ret = c;
    return 0;
}

static void ciphers_give(struct lg_siv *s, struct ciphers *c)
{
    pthread_mutex_lock(&s->lock);
    bool kept = s->n < IDLE_MAX && !c->broken;
    if (kept)
        s->idle[s->n++] = *c;
    pthread_mutex_unlock(&s->lock);
    if (!kept)
        ciphers_free(c);
}

/* Multiplication by x in GF(2^128). */
static void dbl(uint8_t b[BLOCK])
{
    unsigned carry = b[0] >> 7;
    for (unsigned i = 0; i < BLOCK - 1; i++)
        b[i] = (uint8_t)(b[i] << 1 | b[i + 1] >> 7);
    b[BLOCK - 1] = (uint8_t)(b[BLOCK - 1] << 1 ^ (0x87 & (0u - carry)));
}

static void xor_block(uint8_t to[BLOCK], const uint8_t *from)
{
    for (unsigned i = 0; i < BLOCK; i++)
        to[i] ^= from[i];
}

/* Goes on from what went before. out is the last block. The IV of a message, which is zero, takes the place of the block before it. */
static bool chain(struct ciphers *c, const uint8_t *in, size_t len, uint8_t out[BLOCK])
{
    uint8_t part[16 * BLOCK];
    size_t used = len < sizeof part ? len : sizeof part;
    for (int got; len && !c->broken; in += got, len -= (size_t)got) {
        int n = len < sizeof part ? (int)len : (int)sizeof part;
        memcpy(part, in, (size_t)n);
        if (c->fresh)
            xor_block(part, c->at);
        c->fresh = false;
        c->broken = EVP_CipherUpdate(c->mac, part, &got, part, n) <= 0 || got != n;
        got = n;
        memcpy(c->at, part + n - BLOCK, BLOCK);
        memcpy(out, c->at, BLOCK);
    }
    lg_wipe(part, used);
    return !c->broken;
}

static void begin(struct ciphers *c) { c->fresh = true; }

/* AES-CMAC (NIST SP 800-38B) of in, whose last block (16 bytes, or less: padded) is given apart. */
static bool cmac(const struct lg_siv *s, struct ciphers *c, const uint8_t *in, size_t whole, const uint8_t *last, size_t last_len, uint8_t out[BLOCK])
{
    uint8_t b[BLOCK] = { 0 };
    memcpy(b, last, last_len);
    if (last_len < BLOCK)
        b[last_len] = 0x80;
    xor_block(b, s->sub[last_len < BLOCK]);
    begin(c);
    bool ok = chain(c, in, whole, out) && chain(c, b, BLOCK, out);
    lg_wipe(b, sizeof b);
    return ok;
}

static size_t before_last(size_t len) { return len ? (len - 1) / BLOCK * BLOCK : 0; }

static bool cmac_all(const struct lg_siv *s, struct ciphers *c, const uint8_t *in, size_t len, uint8_t out[BLOCK])
{
    size_t whole = before_last(len);
    return cmac(s, c, in, whole, in + whole, len - whole, out);
}

/* The synthetic IV of pt under one or two strings of associated data. */
static bool s2v(const struct lg_siv *s, struct ciphers *c, const void *ad, size_t ad_len, const char *ad2, const uint8_t *pt, size_t len, uint8_t v[BLOCK])
{
    uint8_t d[BLOCK], m[BLOCK], end[2 * BLOCK] = { 0 };
    memcpy(d, s->zero, BLOCK);
    bool ok = cmac_all(s, c, ad_len ? ad : (const uint8_t *)"\0", ad_len ? ad_len : 1, m);
    dbl(d);
    xor_block(d, m);
    if (ok && ad2) {
        ok = cmac_all(s, c, (const uint8_t *)ad2, strlen(ad2), m);
        dbl(d);
        xor_block(d, m);
    }
    if (ok && len < BLOCK) {
        dbl(d);
        memcpy(end, pt, len);
        end[len] = 0x80;
        xor_block(end, d);
        ok = cmac(s, c, NULL, 0, end, BLOCK, v);
    } else if (ok) { /* d goes to the last 16 bytes, which lie in the last two blocks */
        size_t last = len > BLOCK ? BLOCK : 0, from = len > BLOCK ? before_last(len) - BLOCK : 0, n = len - from - last;
        memcpy(end, pt + from, last + n);
        if (n < BLOCK)
            end[last + n] = 0x80;
        xor_block(end + last, s->sub[n < BLOCK]);
        xor_block(end + (last ? n : 0), d);
        begin(c);
        ok = chain(c, pt, from, v) && chain(c, end, last + BLOCK, v);
    }
    lg_wipe(d, sizeof d);
    lg_wipe(end, sizeof end);
    return ok;
}

static bool ecb(EVP_CIPHER_CTX *c, uint8_t (*b)[BLOCK], size_t n)
{
    int got;
    return EVP_CipherUpdate(c, b[0], &got, b[0], (int)(n * BLOCK)) > 0 && got == (int)(n * BLOCK);
}

static bool counter(struct ciphers *c, const uint8_t v[BLOCK], const uint8_t *in, size_t len, uint8_t *out)
{
    uint8_t q[BLOCK], key[16][BLOCK];
    size_t used = len < sizeof key ? (len + BLOCK - 1) / BLOCK * BLOCK : sizeof key;
    bool ok = true;
    memcpy(q, v, BLOCK);
    q[8] &= 0x7f;
    q[12] &= 0x7f;
    while (ok && len) {
        size_t n = len < sizeof key ? len : sizeof key, blocks = (n + BLOCK - 1) / BLOCK;
        for (size_t i = 0; i < blocks; i++) {
            memcpy(key[i], q, BLOCK);
            for (unsigned b = BLOCK; b-- && ++q[b] == 0;)
                ;
        }
        ok = ecb(c->ecb, key, blocks);
        for (size_t i = 0; ok && i < n; i++)
            out[i] = in[i] ^ key[i / BLOCK][i % BLOCK];
        in += n;
        out += n;
        len -= n;
    }
    lg_wipe(key, used); /* with what was sealed public, they are what was sealed */
    return ok;
}

int lg_siv_key(const struct lg_secret *key, uint8_t ret[LG_SIV_KEY_LEN]) { return lg_derive_bytes(key, "leadglass siv", NULL, 0, ret, LG_SIV_KEY_LEN); }

int lg_siv_new(const struct lg_secret *key, struct lg_siv **ret)
{
    LG_SECRET_BUF_AUTO uint8_t *b = lg_secret_alloc(LG_SIV_KEY_LEN);
    int rc = b ? lg_siv_key(key, b) : -ENOMEM;
    return rc ? rc : lg_siv_from(b, ret);
}

int lg_siv_from(const uint8_t siv_key[LG_SIV_KEY_LEN], struct lg_siv **ret)
{
    static const uint8_t zero[BLOCK];
    struct lg_siv *s = lg_secret_alloc(sizeof *s);
    struct ciphers c;
    if (!s)
        return -ENOMEM;
    pthread_mutex_init(&s->lock, NULL);
    memcpy(s->key, siv_key, sizeof s->key);
    int rc = ciphers_take(s, &c);
    if (!rc) {
        begin(&c);
        rc = chain(&c, zero, BLOCK, s->sub[0]) ? 0 : -ENOMEM;
        dbl(s->sub[0]);
        memcpy(s->sub[1], s->sub[0], BLOCK);
        dbl(s->sub[1]);
        if (!rc && !cmac_all(s, &c, zero, BLOCK, s->zero))
            rc = -ENOMEM;
        ciphers_give(s, &c);
    }
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
    for (unsigned i = 0; i < s->n; i++)
        ciphers_free(&s->idle[i]);
    pthread_mutex_destroy(&s->lock);
    lg_secret_dealloc(s);
}

/* An empty message has no S2V of its own here (OpenSSL's SIV, which sealed the first ones, never finishes it): its tag is that of one zero byte under a second
 * associated-data string, "empty", which no other message has. */
static bool tag_of(const struct lg_siv *s, struct ciphers *c, const void *ad, size_t ad_len, const uint8_t *pt, size_t len, uint8_t tag[BLOCK])
{
    static const uint8_t zero;
    return len ? s2v(s, c, ad, ad_len, NULL, pt, len, tag) : s2v(s, c, ad, ad_len, "empty", &zero, 1, tag);
}

int lg_siv_seal_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *pt, size_t pt_len, uint8_t *out)
{
    struct ciphers c;
    uint8_t tag[LG_SIV_TAG_LEN];
    if (ad_len > INT_MAX || pt_len > INT_MAX - LG_SIV_TAG_LEN)
        return -EINVAL;
    int rc = ciphers_take(s, &c);
    if (rc)
        return rc;
    bool ok = tag_of(s, &c, ad, ad_len, pt, pt_len, tag) && (!pt_len || counter(&c, tag, pt, pt_len, out + sizeof tag));
    ciphers_give(s, &c);
    memcpy(out, tag, sizeof tag);
    return ok ? 0 : -ENOMEM;
}

int lg_siv_open_with(struct lg_siv *s, const void *ad, size_t ad_len, const void *ct, size_t ct_len, uint8_t *out)
{
    if (ct_len < LG_SIV_TAG_LEN)
        return -EBADMSG;
    if (ad_len > INT_MAX || ct_len > INT_MAX)
        return -EINVAL;
    size_t len = ct_len - LG_SIV_TAG_LEN;
    uint8_t given[LG_SIV_TAG_LEN], tag[LG_SIV_TAG_LEN];
    struct ciphers c;
    memcpy(given, ct, sizeof given);
    int rc = ciphers_take(s, &c);
    if (rc)
        return rc;
    if (len && !counter(&c, given, (const uint8_t *)ct + sizeof given, len, out))
        rc = -ENOMEM;
    if (!rc && !tag_of(s, &c, ad, ad_len, out, len, tag))
        rc = -ENOMEM;
    if (!rc && !lg_equal(tag, given, sizeof tag))
        rc = -EBADMSG;
    ciphers_give(s, &c);
    if (rc)
        lg_wipe(out, len);
    return rc;
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

/* ---- many keys at a time: the same block of each in one call to AES, which then keeps its pipeline full and costs a tenth ------------------------- */

static EVP_CIPHER_CTX *ecb_new(const uint8_t key[LG_KEY_LEN])
{
    EVP_CIPHER_CTX *c = EVP_CIPHER_CTX_new();
    if (c && EVP_CipherInit_ex2(c, lg_alg.ecb, key, NULL, 1, NULL) > 0 && EVP_CIPHER_CTX_set_padding(c, 0) > 0)
        return c;
    EVP_CIPHER_CTX_free(c);
    return NULL;
}

/* As s2v, of keys. */
static bool s2v_keys(const struct lg_siv *s, const uint8_t *ad, size_t ad_len, const struct lg_secret *keys, size_t n, uint8_t (*v)[BLOCK])
{
    EVP_CIPHER_CTX *c = ecb_new(s->key);
    uint8_t d[LG_KEYS_AT_ONCE][BLOCK] = { 0 }, zero[BLOCK];
    size_t whole = before_last(ad_len);
    bool ok = c != NULL;
    memcpy(zero, s->zero, BLOCK);
    dbl(zero);
    for (size_t at = 0; ok && at < ad_len; at += BLOCK) {
        size_t len = at < whole ? BLOCK : ad_len - at;
        for (size_t i = 0; i < n; i++) {
            for (size_t b = 0; b < len; b++)
                d[i][b] ^= ad[i * ad_len + at + b];
            if (len < BLOCK)
                d[i][len] ^= 0x80;
            if (at == whole)
                xor_block(d[i], s->sub[len < BLOCK]);
        }
        ok = ecb(c, d, n);
    }
    for (size_t i = 0; i < n; i++)
        memcpy(v[i], keys[i].b, BLOCK);
    ok = ok && ecb(c, v, n);
    for (size_t i = 0; i < n; i++) { /* the last block of a key is a whole one, and d goes to it alone */
        xor_block(v[i], keys[i].b + BLOCK);
        xor_block(v[i], d[i]);
        xor_block(v[i], zero);
        xor_block(v[i], s->sub[0]);
    }
    ok = ok && ecb(c, v, n);
    EVP_CIPHER_CTX_free(c);
    lg_wipe(d, sizeof d);
    lg_wipe(zero, sizeof zero);
    if (!ok) /* the keys may still stand there */
        lg_wipe(v, n * BLOCK);
    return ok;
}

/* As counter, of keys: to = from xor what v gives. from and to are `in` and `out` bytes apart. */
static bool counter_keys(const struct lg_siv *s, const uint8_t *v, size_t v_step, const uint8_t *from, size_t in, uint8_t *to, size_t out, size_t n)
{
    EVP_CIPHER_CTX *c = ecb_new(s->key + LG_KEY_LEN);
    uint8_t q[2 * LG_KEYS_AT_ONCE][BLOCK];
    for (size_t i = 0; i < n; i++) {
        uint8_t *first = q[2 * i], *second = q[2 * i + 1];
        memcpy(first, v + i * v_step, BLOCK);
        first[8] &= 0x7f;
        first[12] &= 0x7f;
        memcpy(second, first, BLOCK);
        for (unsigned b = BLOCK - 1; ++second[b] == 0; b--) /* at the latest at [12], whose highest bit was cleared */
            ;
    }
    bool ok = c && ecb(c, q, 2 * n);
    for (size_t i = 0; ok && i < n; i++)
        for (unsigned b = 0; b < LG_KEY_LEN; b++)
            to[i * out + b] = from[i * in + b] ^ q[2 * i + b / BLOCK][b % BLOCK];
    EVP_CIPHER_CTX_free(c);
    lg_wipe(q, sizeof q);
    return ok;
}

int lg_keys_wrap(const struct lg_siv *kek, const uint8_t *ad, size_t ad_len, const struct lg_secret *keys, size_t n, uint8_t *out)
{
    uint8_t v[LG_KEYS_AT_ONCE][BLOCK];
    if (!ad_len || n > LG_KEYS_AT_ONCE)
        return -EINVAL;
    if (!n)
        return 0;
    bool ok = s2v_keys(kek, ad, ad_len, keys, n, v) && counter_keys(kek, v[0], BLOCK, keys->b, LG_KEY_LEN, out + BLOCK, LG_WRAPPED_LEN, n);
    for (size_t i = 0; ok && i < n; i++)
        memcpy(out + i * LG_WRAPPED_LEN, v[i], BLOCK);
    return ok ? 0 : -ENOMEM;
}

int lg_keys_unwrap(const struct lg_siv *kek, const uint8_t *ad, size_t ad_len, const uint8_t *in, size_t n, struct lg_secret *out)
{
    uint8_t v[LG_KEYS_AT_ONCE][BLOCK];
    if (!ad_len || n > LG_KEYS_AT_ONCE)
        return -EINVAL;
    if (!n)
        return 0;
    int rc = counter_keys(kek, in, LG_WRAPPED_LEN, in + BLOCK, LG_WRAPPED_LEN, out->b, LG_KEY_LEN, n) && s2v_keys(kek, ad, ad_len, out, n, v) ? 0 : -ENOMEM;
    for (size_t i = 0; !rc && i < n; i++)
        if (!lg_equal(v[i], in + i * LG_WRAPPED_LEN, BLOCK))
            rc = -EBADMSG;
    if (rc)
        lg_wipe(out, n * sizeof *out);
    lg_wipe(v, sizeof v); /* the tags of what was altered */
    return rc;
}
