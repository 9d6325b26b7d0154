/* The PRF of the accumulator. */
#include "leadglass/crypto.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum {
    PRF_BATCH = 64, /* blocks encrypted by one call */
};

static const uint8_t no_key[LG_KEY_LEN];

/* One context for each thread, as a new one costs more than what is encrypted with it; between calls its key is zero. */
static pthread_key_t context_key;
static pthread_once_t context_once = PTHREAD_ONCE_INIT;
static void context_free(void *c) { EVP_CIPHER_CTX_free(c); }
static void context_init(void)
{
    if (pthread_key_create(&context_key, context_free))
        abort();
}

static EVP_CIPHER_CTX *context(void)
{
    pthread_once(&context_once, context_init);
    EVP_CIPHER_CTX *c = pthread_getspecific(context_key);
    if (c)
        return c;
    c = EVP_CIPHER_CTX_new();
    if (!c || EVP_CipherInit_ex2(c, lg_alg.ecb, no_key, NULL, 1, NULL) <= 0 || pthread_setspecific(context_key, c)) {
        EVP_CIPHER_CTX_free(c);
        return NULL;
    }
    EVP_CIPHER_CTX_set_padding(c, 0);
    return c;
}

static bool rekey(EVP_CIPHER_CTX *c, const uint8_t key[LG_KEY_LEN]) { return EVP_CipherInit_ex2(c, NULL, key, NULL, 1, NULL) > 0; }

/* CBC-MAC of many independent inputs at a time: one ECB call per block position keeps the AES pipeline full. */
int lg_prf_xor(const struct lg_secret *key, const uint8_t *in, size_t n, uint8_t acc[LG_PRF_OUT])
{
    LG_UNCLEARED uint8_t state[PRF_BATCH * 16];
    size_t used = n < PRF_BATCH ? n * 16 : sizeof state;
    EVP_CIPHER_CTX *ecb = context();
    int rc = !ecb ? -ENOMEM : rekey(ecb, key->b) ? 0 : -EIO;
    while (n && !rc) {
        size_t m = n < PRF_BATCH ? n : PRF_BATCH;
        memset(state, 0, m * 16);
        for (unsigned round = 0; round < 3 && !rc; round++) {
            for (size_t i = 0; i < m; i++)
                for (unsigned b = 0; b < 16; b++)
                    state[i * 16 + b] ^= in[i * LG_PRF_IN + round * 16 + b];
            int got = 0;
            if (EVP_CipherUpdate(ecb, state, &got, state, (int)(m * 16)) <= 0 || got != (int)(m * 16))
                rc = -EIO;
        }
        for (size_t i = 0; i < m && !rc; i++)
            for (unsigned b = 0; b < 16; b++)
                acc[b] ^= state[i * 16 + b];
        in += m * LG_PRF_IN;
        n -= m;
    }
    if (ecb && !rekey(ecb, no_key)) {
        (void)!pthread_setspecific(context_key, NULL);
        EVP_CIPHER_CTX_free(ecb);
    }
    lg_wipe(state, used);
    return rc;
}
