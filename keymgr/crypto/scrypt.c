/* scrypt (RFC 7914): from a passphrase to a key. */
#include "leadglass/crypto.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <time.h>

#include "internal.h"

enum {
    LOG2_N_MIN = 1,
    LOG2_N_LOW = 14, /* calibration: 16 MiB .. 1 GiB with r = 8 */
    LOG2_N_HIGH = 20,
    R_MAX = 64,
    P_MAX = 16,
};
#define SCRYPT_MEM_MAX (1024ull * 1024 * 1024)

int lg_scrypt_derive(const struct lg_scrypt *s, const void *pass, size_t pass_len, struct lg_secret *out)
{
    if (s->log2_n < LOG2_N_MIN || s->log2_n > 30 || s->r < 1 || s->r > R_MAX || s->p < 1 || s->p > P_MAX ||
        (128ull * s->r << s->log2_n) > SCRYPT_MEM_MAX)
        return -EINVAL;
    uint64_t n = 1ull << s->log2_n, max_mem = SCRYPT_MEM_MAX + 64 * 1024 * 1024;
    uint32_t r = s->r, p = s->p;
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_PASSWORD, (void *)(uintptr_t)pass, pass_len),
        OSSL_PARAM_construct_octet_string(OSSL_KDF_PARAM_SALT, (void *)(uintptr_t)s->salt, sizeof s->salt),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_N, &n),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_R, &r),
        OSSL_PARAM_construct_uint32(OSSL_KDF_PARAM_SCRYPT_P, &p),
        OSSL_PARAM_construct_uint64(OSSL_KDF_PARAM_SCRYPT_MAXMEM, &max_mem),
        OSSL_PARAM_construct_end(),
    };
    EVP_KDF_CTX *k = EVP_KDF_CTX_new(lg_alg.scrypt);
    int ok = k && EVP_KDF_derive(k, out->b, sizeof out->b, params) > 0;
    EVP_KDF_CTX_free(k);
    return ok ? 0 : -ENOMEM;
}

int lg_scrypt_calibrate(unsigned target_ms, struct lg_scrypt *ret)
{
    struct lg_scrypt s = { .log2_n = LOG2_N_LOW, .r = 8, .p = 1 };
    LG_SECRET_AUTO out = lg_secret_new();
    if (!out)
        return -ENOMEM;
    int rc = lg_random(s.salt, sizeof s.salt);
    if (rc)
        return rc;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    rc = lg_scrypt_derive(&s, "calibrate", 9, out);
    clock_gettime(CLOCK_MONOTONIC, &b);
    if (rc)
        return rc;
    /* cost is proportional to N; go up while the next step is still nearer to the target than this one */
    double ms = (double)(b.tv_sec - a.tv_sec) * 1e3 + (double)(b.tv_nsec - a.tv_nsec) / 1e6;
    while (s.log2_n < LOG2_N_HIGH && ms * 1.41 < target_ms) {
        ms *= 2;
        s.log2_n++;
    }
    *ret = s;
    return 0;
}
