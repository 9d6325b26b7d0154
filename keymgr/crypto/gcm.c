/* AES-256-GCM for chunks, and the PRF of the accumulator. */
#include "leadglass/crypto.h"

#include <limits.h>
#include <pthread.h>
#include <string.h>

#include "internal.h"

enum {
    POOL_MAX = 16,  /* idle contexts kept per key */
    PRF_BATCH = 64, /* blocks encrypted by one call */
};

struct lg_gcm {
    pthread_mutex_t lock; /* of the pool; held for no more than a push or pop */
    const struct lg_secret *key;
    unsigned n[2];
    EVP_CIPHER_CTX *idle[2][POOL_MAX]; /* [0] opening, [1] sealing: re-keying by direction would cost the key schedule */
};

int lg_gcm_new(const struct lg_secret *key, struct lg_gcm **ret)
{
    struct lg_gcm *g = lg_secret_alloc(sizeof *g);
    if (!g)
        return -ENOMEM;
    g->key = lg_secret_dup(key);
    if (!g->key) {
        lg_secret_dealloc(g);
        return -ENOMEM;
    }
    pthread_mutex_init(&g->lock, NULL);
    *ret = g;
    return 0;
}

void lg_gcm_free(struct lg_gcm *g)
{
    if (!g)
        return;
    for (int d = 0; d < 2; d++)
        for (unsigned i = 0; i < g->n[d]; i++)
            EVP_CIPHER_CTX_free(g->idle[d][i]);
    lg_secret_free((struct lg_secret *)(uintptr_t)g->key);
    pthread_mutex_destroy(&g->lock);
    lg_secret_dealloc(g);
}

static EVP_CIPHER_CTX *ctx_take(struct lg_gcm *g, int seal)
{
    EVP_CIPHER_CTX *c = NULL;
    pthread_mutex_lock(&g->lock);
    if (g->n[seal])
        c = g->idle[seal][--g->n[seal]];
    pthread_mutex_unlock(&g->lock);
    if (c)
        return c;
    c = EVP_CIPHER_CTX_new();
    if (c && EVP_CipherInit_ex2(c, lg_alg.gcm, g->key->b, NULL, seal, NULL) > 0)
        return c;
    EVP_CIPHER_CTX_free(c);
    return NULL;
}

static void ctx_give(struct lg_gcm *g, int seal, EVP_CIPHER_CTX *c)
{
    pthread_mutex_lock(&g->lock);
    if (g->n[seal] < POOL_MAX) {
        g->idle[seal][g->n[seal]++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&g->lock);
    EVP_CIPHER_CTX_free(c);
}

int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, uint8_t tag[LG_TAG_LEN])
{
    if (len > INT_MAX || ad_len > INT_MAX)
        return -EINVAL;
    EVP_CIPHER_CTX *c = ctx_take(g, 1);
    if (!c)
        return -ENOMEM;
    int n = 0;
    int ok = EVP_CipherInit_ex2(c, NULL, NULL, nonce, 1, NULL) > 0 && EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len) > 0 &&
             EVP_CipherUpdate(c, out, &n, in, (int)len) > 0 && EVP_CipherFinal_ex(c, (uint8_t *)out + len, &n) > 0 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, LG_TAG_LEN, tag) > 0;
    ctx_give(g, 1, c);
    return ok ? 0 : -EIO;
}

int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, const uint8_t tag[LG_TAG_LEN])
{
    if (len > INT_MAX || ad_len > INT_MAX)
        return -EINVAL;
    EVP_CIPHER_CTX *c = ctx_take(g, 0);
    if (!c)
        return -ENOMEM;
    int n = 0;
    uint8_t t[LG_TAG_LEN];
    memcpy(t, tag, sizeof t);
    int ok = EVP_CipherInit_ex2(c, NULL, NULL, nonce, 0, NULL) > 0 && EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len) > 0 &&
             EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, LG_TAG_LEN, t) > 0 && EVP_CipherUpdate(c, out, &n, in, (int)len) > 0 &&
             EVP_CipherFinal_ex(c, (uint8_t *)out + len, &n) > 0;
    ctx_give(g, 0, c);
    if (!ok) {
        lg_wipe(out, len);
        return -EBADMSG;
    }
    return 0;
}

struct lg_prf {
    EVP_CIPHER_CTX *ecb;
};

int lg_prf_new(const struct lg_secret *key, struct lg_prf **ret)
{
    struct lg_prf *p = lg_secret_alloc(sizeof *p);
    if (!p)
        return -ENOMEM;
    p->ecb = EVP_CIPHER_CTX_new();
    if (!p->ecb || EVP_CipherInit_ex2(p->ecb, lg_alg.ecb, key->b, NULL, 1, NULL) <= 0) {
        lg_prf_free(p);
        return -ENOMEM;
    }
    EVP_CIPHER_CTX_set_padding(p->ecb, 0);
    *ret = p;
    return 0;
}

void lg_prf_free(struct lg_prf *p)
{
    if (!p)
        return;
    EVP_CIPHER_CTX_free(p->ecb);
    lg_secret_dealloc(p);
}

/* CBC-MAC of many independent inputs at a time: one ECB call per block position keeps the AES pipeline full. */
int lg_prf_xor(struct lg_prf *p, const uint8_t *in, size_t n, uint8_t acc[LG_PRF_OUT])
{
    uint8_t state[PRF_BATCH * 16];
    int rc = 0;
    while (n && !rc) {
        size_t m = n < PRF_BATCH ? n : PRF_BATCH;
        memset(state, 0, m * 16);
        for (unsigned round = 0; round < 3 && !rc; round++) {
            for (size_t i = 0; i < m; i++)
                for (unsigned b = 0; b < 16; b++)
                    state[i * 16 + b] ^= in[i * LG_PRF_IN + round * 16 + b];
            int got = 0;
            if (EVP_CipherUpdate(p->ecb, state, &got, state, (int)(m * 16)) <= 0 || got != (int)(m * 16))
                rc = -EIO;
        }
        for (size_t i = 0; i < m && !rc; i++)
            for (unsigned b = 0; b < 16; b++)
                acc[b] ^= state[i * 16 + b];
        in += m * LG_PRF_IN;
        n -= m;
    }
    lg_wipe(state, sizeof state);
    return rc;
}
