/* AES-256-GCM for chunks: the only user of libgcrypt, which is twice as fast at it as OpenSSL on processors with VAES but no AVX-512 (docs/PERFORMANCE.md). */
#include <errno.h>
#include <gcrypt.h>
#include <pthread.h>

#include "internal.h"

enum {
    POOL_MAX = 16, /* idle contexts kept per key */
};

struct lg_gcm {
    pthread_mutex_t lock; /* of the pool; held for no more than a push or pop */
    const struct lg_secret *key;
    unsigned n;
    gcry_cipher_hd_t idle[POOL_MAX]; /* each has the key schedule */
};

/* libgcrypt's allocations, its contexts' key schedules among them, stand in locked memory like OpenSSL's (secret.c). */
static void *get(size_t len) { return lg_secret_get(len); }
static int is_secret(const void *p) { return (void)p, 1; }

int lg_gcm_init(void)
{
    gcry_control(GCRYCTL_NO_FIPS_MODE); /* there it refuses nonces that are not its own; ours are FORMAT.md's */
    gcry_set_allocation_handler(get, get, is_secret, lg_secret_resize, lg_secret_dealloc);
    if (!gcry_check_version(GCRYPT_VERSION))
        return -ENOTSUP;
    gcry_control(GCRYCTL_DISABLE_SECMEM);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED);
    return gcry_cipher_algo_info(GCRY_CIPHER_AES256, GCRYCTL_TEST_ALGO, NULL, NULL) ? -ENOTSUP : 0;
}

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
    for (unsigned i = 0; i < g->n; i++)
        gcry_cipher_close(g->idle[i]);
    lg_secret_free((struct lg_secret *)(uintptr_t)g->key);
    pthread_mutex_destroy(&g->lock);
    lg_secret_dealloc(g);
}

static gcry_cipher_hd_t ctx_take(struct lg_gcm *g)
{
    gcry_cipher_hd_t c = NULL;
    pthread_mutex_lock(&g->lock);
    if (g->n)
        c = g->idle[--g->n];
    pthread_mutex_unlock(&g->lock);
    if (c)
        return c;
    if (gcry_cipher_open(&c, GCRY_CIPHER_AES256, GCRY_CIPHER_MODE_GCM, 0))
        return NULL;
    if (!gcry_cipher_setkey(c, g->key->b, sizeof g->key->b))
        return c;
    gcry_cipher_close(c);
    return NULL;
}

static void ctx_give(struct lg_gcm *g, gcry_cipher_hd_t c)
{
    pthread_mutex_lock(&g->lock);
    if (g->n < POOL_MAX) {
        g->idle[g->n++] = c;
        c = NULL;
    }
    pthread_mutex_unlock(&g->lock);
    gcry_cipher_close(c);
}

static bool begin(gcry_cipher_hd_t c, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len)
{
    return !gcry_cipher_reset(c) && !gcry_cipher_setiv(c, nonce, LG_NONCE_LEN) && (!ad_len || !gcry_cipher_authenticate(c, ad, ad_len));
}

int lg_gcm_seal(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, uint8_t tag[LG_TAG_LEN])
{
    gcry_cipher_hd_t c = ctx_take(g);
    if (!c)
        return -ENOMEM;
    bool here = in == out;
    bool ok = begin(c, nonce, ad, ad_len) && !gcry_cipher_encrypt(c, out, len, here ? NULL : in, here ? 0 : len) && !gcry_cipher_gettag(c, tag, LG_TAG_LEN);
    ctx_give(g, c);
    return ok ? 0 : -EIO;
}

int lg_gcm_open(struct lg_gcm *g, const uint8_t nonce[LG_NONCE_LEN], const void *ad, size_t ad_len, const void *in, size_t len,
                void *out, const uint8_t tag[LG_TAG_LEN])
{
    gcry_cipher_hd_t c = ctx_take(g);
    if (!c)
        return -ENOMEM;
    bool here = in == out;
    bool ok = begin(c, nonce, ad, ad_len) && !gcry_cipher_decrypt(c, out, len, here ? NULL : in, here ? 0 : len) && !gcry_cipher_checktag(c, tag, LG_TAG_LEN);
    ctx_give(g, c);
    if (!ok) {
        lg_wipe(out, len);
        return -EBADMSG;
    }
    return 0;
}
