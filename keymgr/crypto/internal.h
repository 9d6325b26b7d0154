/* Shared by the files of this folder: the algorithms fetched once, memory for libraries. */
#ifndef LEADGLASS_CRYPTO_INTERNAL_H
#define LEADGLASS_CRYPTO_INTERNAL_H

#include <errno.h>
#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "leadglass/crypto.h"

struct lg_algorithms {
    EVP_CIPHER *cbc, *ecb;
    EVP_KDF *scrypt;
    bool ready; /* all of them, and AES-256-GCM */
};
extern struct lg_algorithms lg_alg;

/* AES-256-GCM: OpenSSL, or libipsec-mb by the widest registers that it uses. */
enum lg_gcm_kind { LG_GCM_OPENSSL, LG_GCM_SSE, LG_GCM_AVX2, LG_GCM_AVX512 };
enum { LG_GCM_MAX = 1 << 30 }; /* bytes of a message, and of what is authenticated with it; either library takes more */

/* From here on the fastest that this machine has and that is no more than `most` does it; which, or -ENOTSUP: there is none, or it fails its known answer. While
 * there are no keys: from lg_crypto_init, and from tests. */
int lg_gcm_choose(enum lg_gcm_kind most) LG_MUST;

/* What gcm.c asks of either, with arguments that it has looked at; it wipes what did not open. */
struct lg_gcm_lib {
    int (*make)(const struct lg_secret *key, struct lg_gcm **ret);
    void (*done)(struct lg_gcm *g);
    int (*seal)(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, uint8_t *tag);
    int (*open)(struct lg_gcm *g, const uint8_t *nonce, const void *ad, size_t ad_len, const void *in, size_t len, void *out, const uint8_t *tag);
};
extern const struct lg_gcm_lib lg_gcm_ipsec, lg_gcm_openssl;
int lg_gcm_ipsec_init(enum lg_gcm_kind most) LG_MUST; /* the kind, or -ENOTSUP */
int lg_gcm_openssl_init(void) LG_MUST;

/* Secret memory of any length, not zeroed, and what realloc does with it: what libraries allocate goes here. lg_secret_dealloc frees it. */
void *lg_secret_get(size_t len) LG_MUST;
void *lg_secret_resize(void *p, size_t len) LG_MUST;

#endif
