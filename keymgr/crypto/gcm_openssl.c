/* AES-256-GCM by OpenSSL, where libipsec-mb is not, or is not made for the processor. */
#include <pthread.h>
#include <string.h>

#include "internal.h"

enum {
    POOL_MAX = 16, /* idle contexts kept per key */
};

struct lg_gcm {
    pthread_mutex_t lock; /* of the pool; held for no more than a push or pop */
    const struct lg_secret *key;
    unsigned n[2];
    EVP_CIPHER_CTX *idle[2][POOL_MAX]; /* [0] opening, [1] sealing: another direction would cost the key schedule */
};

static EVP_CIPHER *gcm;

int lg_gcm_openssl_init(void)
{
    if (!gcm)
        gcm = EVP_CIPHER_fetch(NULL, "AES-256-GCM", NULL);
    return gcm ? 0 : -ENOTSUP;
}

static int key_make(const struct lg_secret *key, struct lg_gcm **ret)
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

static void key_done(struct lg_gcm *g)
{
    for (unsigned seal = 0; seal < 2; seal++)
        for (unsigned i = 0; i < g->n[seal]; i++)
            EVP_CIPHER_CTX_free(g->idle[seal][i]);
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
    if (c && EVP_CipherInit_ex2(c, gcm, g->key->b, NULL, seal, NULL) > 0)
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

static int key_seal(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, uint8_t *tag)
{
    EVP_CIPHER_CTX *c = ctx_take(g, 1);
    if (!c)
        return -ENOMEM;
    int n = 0;
    bool ok = EVP_CipherInit_ex2(c, NULL, NULL, nonce, 1, NULL) > 0 && EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len) > 0 &&
              EVP_CipherUpdate(c, out, &n, in, (int)len) > 0 && EVP_CipherFinal_ex(c, (uint8_t *)out + len, &n) > 0 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_GET_TAG, LG_TAG_LEN, tag) > 0;
    ctx_give(g, 1, c);
    return ok ? 0 : -EIO;
}

static int key_open(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, const uint8_t *tag)
{
    EVP_CIPHER_CTX *c = ctx_take(g, 0);
    if (!c)
        return -ENOMEM;
    int n = 0;
    uint8_t t[LG_TAG_LEN];
    memcpy(t, tag, sizeof t);
    bool ok = EVP_CipherInit_ex2(c, NULL, NULL, nonce, 0, NULL) > 0 && EVP_CipherUpdate(c, NULL, &n, ad, (int)ad_len) > 0 &&
              EVP_CIPHER_CTX_ctrl(c, EVP_CTRL_AEAD_SET_TAG, LG_TAG_LEN, t) > 0 && EVP_CipherUpdate(c, out, &n, in, (int)len) > 0 &&
              EVP_CipherFinal_ex(c, (uint8_t *)out + len, &n) > 0;
    ctx_give(g, 0, c);
    return ok ? 0 : -EBADMSG;
}

const struct lg_gcm_lib lg_gcm_openssl = { key_make, key_done, key_seal, key_open };
