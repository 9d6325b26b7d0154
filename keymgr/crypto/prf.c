/* The PRF of the accumulator. */
#include "leadglass/crypto.h"

#include <string.h>

#include "internal.h"

enum {
    PRF_BATCH = 64, /* blocks encrypted by one call */
};

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
