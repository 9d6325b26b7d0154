/* Officers' key files: text, so that they survive mail and paper. The passphrase's key wraps the seed. */
#include <stdio.h>
#include <string.h>

#include "leadglass/act.h"

static const char key_head[] = "leadglass-officer-key-1 ", pub_head[] = "leadglass-officer-pub-1 ";
enum { KEY_LEN = 3 + 32 + LG_SIGN_PUB_LEN + LG_WRAPPED_LEN, AD_LEN = 8 + 3 + 32 + LG_SIGN_PUB_LEN };

/* What the wrap is bound to: everything that stands before it. */
static void ad_of(const uint8_t *b, uint8_t out[AD_LEN])
{
    memcpy(out, "offickey", 8);
    memcpy(out + 8, b, AD_LEN - 8);
}

int lg_officer_key_seal(const struct lg_secret *seed, const void *pass, size_t pass_len, unsigned scrypt_ms, char ret_text[LG_OFFICER_KEY_TEXT])
{
    LG_SECRET_AUTO kek = lg_secret_new();
    struct lg_scrypt s;
    uint8_t b[KEY_LEN], pub[LG_SIGN_PUB_LEN], wrapped[LG_WRAPPED_LEN], ad[AD_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    int rc = kek ? lg_sign_public(seed, pub) : -ENOMEM;
    if (!rc)
        rc = lg_scrypt_calibrate(scrypt_ms, &s);
    if (!rc)
        rc = lg_scrypt_derive(&s, pass, pass_len, kek);
    if (rc)
        return rc;
    lg_wr_u8(&w, s.log2_n);
    lg_wr_u8(&w, s.r);
    lg_wr_u8(&w, s.p);
    lg_wr_bytes(&w, s.salt, sizeof s.salt);
    lg_wr_bytes(&w, pub, sizeof pub);
    ad_of(b, ad);
    rc = lg_key_wrap(kek, ad, sizeof ad, seed, wrapped);
    if (rc)
        return rc;
    lg_wr_bytes(&w, wrapped, sizeof wrapped);
    memcpy(ret_text, key_head, sizeof key_head - 1);
    lg_b64_encode(b, sizeof b, ret_text + sizeof key_head - 1);
    memcpy(ret_text + strlen(ret_text), "\n", 2);
    return 0;
}

/* The bytes behind the head, one newline at the end allowed. */
static int body(const char *text, size_t len, const char *head, uint8_t *out, size_t want)
{
    size_t n = strlen(head), got;
    if (len && text[len - 1] == '\n')
        len--;
    if (len < n || memcmp(text, head, n) != 0)
        return -EPROTO;
    int rc = lg_b64_decode(text + n, len - n, out, want, &got);
    return rc || got != want ? -EPROTO : 0;
}

int lg_officer_key_open(const char *untrusted, size_t len, const void *pass, size_t pass_len, struct lg_secret *ret_seed)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    LG_SECRET_AUTO seed = lg_secret_new();
    struct lg_scrypt s;
    uint8_t b[KEY_LEN], ad[AD_LEN], pub[LG_SIGN_PUB_LEN];
    int rc = kek && seed ? body(untrusted, len, key_head, b, sizeof b) : -ENOMEM;
    if (rc)
        return rc;
    s.log2_n = b[0];
    s.r = b[1];
    s.p = b[2];
    memcpy(s.salt, b + 3, sizeof s.salt);
    if (s.log2_n < 10 || s.log2_n > 20 || s.r < 1 || s.r > 8 || s.p < 1 || s.p > 4) /* a hostile file must not cost more than 1 GiB */
        return -EPROTO;
    ad_of(b, ad);
    rc = lg_scrypt_derive(&s, pass, pass_len, kek);
    if (!rc)
        rc = lg_key_unwrap(kek, ad, sizeof ad, b + KEY_LEN - LG_WRAPPED_LEN, seed);
    if (!rc)
        rc = lg_sign_public(seed, pub);
    if (!rc && memcmp(pub, b + 3 + 32, sizeof pub) != 0)
        rc = -EPROTO;
    if (!rc)
        *ret_seed = *seed;
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}

int lg_officer_pub_text(const uint8_t pub[LG_SIGN_PUB_LEN], char ret_text[LG_OFFICER_PUB_TEXT])
{
    char b64[64];
    lg_b64_encode(pub, LG_SIGN_PUB_LEN, b64);
    return snprintf(ret_text, LG_OFFICER_PUB_TEXT, "%s%s\n", pub_head, b64) < (int)LG_OFFICER_PUB_TEXT ? 0 : -ENOSPC;
}

int lg_officer_pub_parse(const char *untrusted, size_t len, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    uint8_t b[LG_SIGN_PUB_LEN];
    int rc = body(untrusted, len, len > 10 && memcmp(untrusted, pub_head, 10) == 0 ? pub_head : "", b, sizeof b);
    if (!rc)
        memcpy(ret_pub, b, sizeof b);
    return rc;
}
