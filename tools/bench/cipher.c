/* cipher [BYTES]: chunks of so many bytes (16384) opened as a mount opens them, on one processor for a second, in memory that they stay in. Prints bytes/s=N. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "leadglass/crypto.h"

enum { CHUNK_MAX = 1 << 20 };

static double used(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

int main(int argc, char **argv)
{
    static uint8_t sealed[CHUNK_MAX], plain[CHUNK_MAX];
    const uint8_t nonce[LG_NONCE_LEN] = { 0 }, ad[24] = { 0 };
    uint8_t tag[LG_TAG_LEN];
    size_t len = argc > 1 ? strtoul(argv[1], NULL, 10) : 16384;
    struct lg_gcm *g;
    if (len < 1 || len > CHUNK_MAX || lg_secret_init(true) || lg_crypto_init())
        return 2;
    struct lg_secret *key = lg_secret_random();
    if (!key || lg_gcm_new(key, &g) || lg_gcm_seal(g, nonce, ad, sizeof ad, plain, len, sealed, tag))
        return 1;
    double began = used(), t;
    size_t n = 0;
    do {
        for (int i = 0; i < 64; i++, n++)
            if (lg_gcm_open(g, nonce, ad, sizeof ad, sealed, len, plain, tag))
                return 1;
        t = used() - began;
    } while (t < 1);
    printf("bytes/s=%.0f\n", (double)n * (double)len / t);
    lg_gcm_free(g);
    lg_secret_free(key);
    return 0;
}
