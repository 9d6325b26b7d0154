/* Algorithms, randomness, hashes, MACs, derivation. */
/* SHA-256 by the functions that OpenSSL 3 calls deprecated: a digest context of its provider costs an allocation and a dozen calls for each message, which is more
 * than to hash what is hashed here. */
#define OPENSSL_SUPPRESS_DEPRECATED
#include "leadglass/crypto.h"

#include <dlfcn.h>
#include <openssl/sha.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>

#include "internal.h"

struct lg_algorithms lg_alg;
static pthread_mutex_t init_lock = PTHREAD_MUTEX_INITIALIZER;

enum {
    INFO_MAX = 256, /* label, NUL, context */
};

static _Thread_local struct {
    uint8_t b[256];
    size_t left; /* of its end */
} drawn;

static void forked(void) { drawn.left = 0; } /* else parent and child would have the same */

int lg_crypto_init(void)
{
    pthread_mutex_lock(&init_lock);
    if (!lg_alg.ready) {
        (void)!pthread_atfork(NULL, NULL, forked);
        lg_alg.cbc = EVP_CIPHER_fetch(NULL, "AES-256-CBC", NULL);
        lg_alg.ecb = EVP_CIPHER_fetch(NULL, "AES-256-ECB", NULL);
        lg_alg.scrypt = EVP_KDF_fetch(NULL, "SCRYPT", NULL);
        lg_alg.ready = lg_alg.cbc && lg_alg.ecb && lg_alg.scrypt && lg_gcm_choose(LG_GCM_AVX512) >= 0;
    }
    pthread_mutex_unlock(&init_lock);
    return lg_alg.ready ? 0 : -ENOTSUP;
}

int lg_random(void *buf, size_t len)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0) {
            if (errno == EINTR)
                continue;
            return -EIO;
        }
        p += n;
        len -= (size_t)n;
    }
    return 0;
}

/* ---- the kernel's generator in user space (Linux 6.11): its vDSO knows when the kernel's was seeded anew, as after a virtual machine was copied, and begins anew itself ------ */

typedef ssize_t vgetrandom_t(void *buf, size_t len, unsigned flags, void *state, size_t state_len);
struct vgetrandom_params { /* linux/random.h: vgetrandom_opaque_params */
    uint32_t state_len, prot, flags, reserved[13];
};
static struct {
    pthread_once_t once;
    vgetrandom_t *draw; /* NULL: there is none */
    struct vgetrandom_params p;
    pthread_key_t key; /* of each thread's state */
} vdso = { .once = PTHREAD_ONCE_INIT };

static void state_free(void *state) { munmap(state, vdso.p.state_len); }

static void vdso_find(void)
{
    static const char *const name[] = { "__vdso_getrandom", "__kernel_getrandom" };
    void *lib = dlopen("linux-vdso.so.1", RTLD_LAZY | RTLD_NOLOAD), *f = NULL;
    for (size_t i = 0; lib && !f && i < 2; i++)
        f = dlsym(lib, name[i]);
    if (f && !pthread_key_create(&vdso.key, state_free)) {
        vgetrandom_t *draw;
        memcpy(&draw, &f, sizeof draw);
        if (draw(NULL, 0, 0, &vdso.p, ~(size_t)0) == 0)
            vdso.draw = draw;
    }
}

int lg_random_nonce(void *buf, size_t len)
{
    pthread_once(&vdso.once, vdso_find);
    void *state = vdso.draw ? pthread_getspecific(vdso.key) : NULL;
    if (vdso.draw && !state) {
        state = mmap(NULL, vdso.p.state_len, (int)vdso.p.prot, (int)vdso.p.flags, -1, 0);
        if (state != MAP_FAILED && pthread_setspecific(vdso.key, state)) {
            state_free(state);
            state = MAP_FAILED;
        }
        if (state == MAP_FAILED)
            state = NULL;
    }
    return state && vdso.draw(buf, len, 0, state, vdso.p.state_len) == (ssize_t)len ? 0 : lg_random(buf, len);
}

int lg_random_public(void *buf, size_t len)
{
    if (len > sizeof drawn.b)
        return lg_random(buf, len);
    if (len > drawn.left) {
        int rc = lg_random(drawn.b, sizeof drawn.b);
        drawn.left = rc ? 0 : sizeof drawn.b;
        if (rc)
            return rc;
    }
    uint8_t *from = drawn.b + sizeof drawn.b - drawn.left;
    memcpy(buf, from, len);
    memset(from, 0, len);
    drawn.left -= len;
    return 0;
}

/* HMAC (RFC 2104) under one key: the hashes that have seen its padded halves. */
struct hmac {
    SHA256_CTX inner, outer;
};

static void hmac_key(struct hmac *h, const uint8_t key[LG_KEY_LEN])
{
    enum { BLOCK = 64 };
    uint8_t in[BLOCK], out[BLOCK];
    memset(in, 0x36, sizeof in);
    memset(out, 0x5c, sizeof out);
    for (unsigned i = 0; i < LG_KEY_LEN; i++) {
        in[i] ^= key[i];
        out[i] ^= key[i];
    }
    SHA256_Init(&h->inner);
    SHA256_Update(&h->inner, in, sizeof in);
    SHA256_Init(&h->outer);
    SHA256_Update(&h->outer, out, sizeof out);
    lg_wipe(in, sizeof in);
    lg_wipe(out, sizeof out);
}

/* Of two strings, concatenated; may be out itself. */
static void hmac_of(const struct hmac *h, const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[LG_MAC_LEN])
{
    SHA256_CTX c = h->inner;
    uint8_t inner[LG_MAC_LEN];
    SHA256_Update(&c, a, a_len);
    SHA256_Update(&c, b, b_len);
    SHA256_Final(inner, &c);
    c = h->outer;
    SHA256_Update(&c, inner, sizeof inner);
    SHA256_Final(out, &c);
    lg_wipe(&c, sizeof c);
    lg_wipe(inner, sizeof inner);
}

static struct hmac no_salt;
static pthread_once_t no_salt_once = PTHREAD_ONCE_INIT;
static void no_salt_init(void) { hmac_key(&no_salt, (const uint8_t[LG_KEY_LEN]){ 0 }); }

/* HKDF (RFC 5869) without salt. What is extracted is only ever a key of HMAC. */
static void extract(struct hmac *prk, const struct lg_secret *key)
{
    uint8_t b[LG_MAC_LEN];
    pthread_once(&no_salt_once, no_salt_init);
    hmac_of(&no_salt, key->b, sizeof key->b, "", 0, b);
    hmac_key(prk, b);
    lg_wipe(b, sizeof b);
}

static int expand(const struct hmac *prk, const char *label, const void *ctx, size_t ctx_len, void *out, size_t out_len)
{
    uint8_t info[INFO_MAX + 1], t[LG_MAC_LEN], *to = out;
    size_t label_len = strlen(label) + 1, len = label_len + ctx_len;
    if (label_len > INFO_MAX || ctx_len > INFO_MAX - label_len || out_len > 255 * LG_MAC_LEN)
        return -EINVAL;
    memcpy(info, label, label_len);
    if (ctx_len)
        memcpy(info + label_len, ctx, ctx_len);
    for (uint8_t n = 1; out_len; n++) {
        size_t m = out_len < sizeof t ? out_len : sizeof t;
        info[len] = n;
        hmac_of(prk, t, n > 1 ? sizeof t : 0, info, len + 1, t);
        memcpy(to, t, m);
        to += m;
        out_len -= m;
    }
    lg_wipe(t, sizeof t);
    return 0;
}

int lg_derive_bytes(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, void *out, size_t out_len)
{
    struct hmac prk;
    extract(&prk, key);
    int rc = expand(&prk, label, ctx, ctx_len, out, out_len);
    lg_wipe(&prk, sizeof prk);
    return rc;
}

int lg_derive_all(const struct lg_secret *key, const struct lg_derived *d, unsigned n)
{
    struct hmac prk;
    int rc = 0;
    extract(&prk, key);
    for (unsigned i = 0; !rc && i < n; i++)
        rc = expand(&prk, d[i].label, d[i].ctx, d[i].ctx_len, d[i].out, d[i].out_len);
    lg_wipe(&prk, sizeof prk);
    return rc;
}

int lg_derive(const struct lg_secret *key, const char *label, const void *ctx, size_t ctx_len, struct lg_secret *out)
{
    return lg_derive_bytes(key, label, ctx, ctx_len, out->b, sizeof out->b);
}

int lg_sha256_2(const void *a, size_t a_len, const void *b, size_t b_len, uint8_t out[LG_MAC_LEN])
{
    SHA256_CTX c;
    SHA256_Init(&c);
    SHA256_Update(&c, a, a_len);
    SHA256_Update(&c, b, b_len);
    SHA256_Final(out, &c);
    lg_wipe(&c, sizeof c);
    return 0;
}

int lg_sha256(const void *data, size_t len, uint8_t out[LG_MAC_LEN]) { return lg_sha256_2(data, len, "", 0, out); }

int lg_hmac(const struct lg_secret *key, const void *data, size_t len, uint8_t out[LG_MAC_LEN])
{
    struct hmac h;
    hmac_key(&h, key->b);
    hmac_of(&h, data, len, "", 0, out);
    lg_wipe(&h, sizeof h);
    return 0;
}
