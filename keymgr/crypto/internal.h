/* Shared by the files of this folder: the algorithms fetched once, memory for libraries. */
#ifndef LEADGLASS_CRYPTO_INTERNAL_H
#define LEADGLASS_CRYPTO_INTERNAL_H

#include <openssl/evp.h>
#include <openssl/kdf.h>

#include "leadglass/crypto.h"

struct lg_algorithms {
    EVP_CIPHER *cbc, *ecb;
    EVP_KDF *scrypt;
    bool ready; /* all of them, and AES-256-GCM */
};
extern struct lg_algorithms lg_alg;

/* AES-256-GCM made ready: from lg_crypto_init alone, which tests it against a known answer. -ENOTSUP */
int lg_gcm_init(void) LG_MUST;

/* Secret memory of any length, not zeroed, and what realloc does with it: what libraries allocate goes here. lg_secret_dealloc frees it. */
void *lg_secret_get(size_t len) LG_MUST;
void *lg_secret_resize(void *p, size_t len) LG_MUST;

#endif
