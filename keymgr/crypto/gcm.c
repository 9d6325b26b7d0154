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

/* Test case 14 of the paper that GCM comes from (McGrew, Viega). The first key of a process has libgcrypt test its AES, and that is not made for two threads at once. */
static bool known_answer(void)
{
    static const uint8_t nonce[LG_NONCE_LEN], want[16 + LG_TAG_LEN] = { 0xce, 0xa7, 0x40, 0x3d, 0x4d, 0x60, 0x6b, 0x6e, 0x07, 0x4e, 0xc5, 0xd3, 0xba, 0xf3, 0x9d, 0x18,
                                                                        0xd0, 0xd1, 0xc8, 0xa7, 0x99, 0x99, 0x6b, 0xf0, 0x26, 0x5b, 0x98, 0xb5, 0xd4, 0x8a, 0xb9, 0x19 };
    uint8_t got[sizeof want] = { 0 };
    LG_SECRET_AUTO zero = lg_secret_new();
    struct lg_gcm *g = NULL;
    bool ok = zero && !lg_gcm_new(zero, &g) && !lg_gcm_seal(g, nonce, NULL, 0, got, 16, got, got + 16) && lg_equal(got, want, sizeof want) &&
              !lg_gcm_open(g, nonce, NULL, 0, got, 16, got, want + 16) && lg_equal(got, (const uint8_t[16]){ 0 }, 16);
    lg_gcm_free(g);
    return ok;
}

int lg_gcm_init(void)
{
    /* In its FIPS mode it takes neither our nonces, which are FORMAT.md's, nor our allocator. What the system says of that mode is read when the version is asked for: only then can it be put off. */
    if (!gcry_check_version(GCRYPT_VERSION) || gcry_control(GCRYCTL_NO_FIPS_MODE))
        return -ENOTSUP;
    gcry_set_allocation_handler(get, get, is_secret, lg_secret_resize, lg_secret_dealloc);
    gcry_control(GCRYCTL_DISABLE_SECMEM);
    gcry_control(GCRYCTL_INITIALIZATION_FINISHED);
    return !gcry_fips_mode_active() && known_answer() ? 0 : -ENOTSUP;
}
