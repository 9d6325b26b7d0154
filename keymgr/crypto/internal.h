/* Shared by the files of this folder: the algorithms fetched once. */
#ifndef LEADGLASS_CRYPTO_INTERNAL_H
#define LEADGLASS_CRYPTO_INTERNAL_H

#include <openssl/evp.h>
#include <openssl/kdf.h>

struct lg_algorithms {
    EVP_CIPHER *gcm, *cbc, *ctr, *ecb;
    EVP_MD *sha256;
    EVP_KDF *scrypt;
};
extern struct lg_algorithms lg_alg;

#endif
