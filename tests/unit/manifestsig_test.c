/* The signature under a manifest: whatever is said otherwise does not verify, and neither does what the same key signed as something else. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "leadglass/act.h"
#include "leadglass/audit.h"
#include "leadglass/certificate.h"
#include "leadglass/manifestsig.h"

static struct lg_secret *seed, *other;
static uint8_t pub[LG_SIGN_PUB_LEN], other_pub[LG_SIGN_PUB_LEN];

static struct lg_manifest_sig example(void)
{
    struct lg_manifest_sig s = { .begun = 1700000000, .entries = 7, .signed_at = 1700000009 };
    memset(s.vault_id, 'v', LG_ID_LEN);
    memset(s.keyring_id, 'k', LG_ID_LEN);
    memset(s.hash, 'h', LG_MAC_LEN);
    assert_int_equal(lg_manifest_sig_make(&s, seed), 0);
    return s;
}

static void every_part(void **state)
{
    struct lg_manifest_sig s = example(), back = s, x;
    uint8_t b[LG_MANIFEST_SIG_LEN];
    (void)state;
    assert_memory_equal(s.pub, pub, sizeof pub);
    assert_int_equal(lg_manifest_sig_check(&s, pub), 0);
    assert_int_equal(lg_manifest_sig_check(&s, other_pub), -EKEYREJECTED);
    lg_manifest_sig_encode(&s, b);
    memset(back.keyring_id, 0, sizeof back.keyring_id);
    memset(back.pub, 0, sizeof back.pub);
    memset(back.sig, 0, sizeof back.sig);
    back.signed_at = 0;
    lg_manifest_sig_decode(b, &back);
    assert_int_equal(lg_manifest_sig_check(&back, pub), 0);
    for (unsigned at = 0; at < sizeof b; at++) { /* what the key manager says */
        b[at] ^= 1;
        x = s;
        lg_manifest_sig_decode(b, &x);
        assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
        b[at] ^= 1;
    }
    for (unsigned i = 0; i < LG_ID_LEN; i++) { /* and what it speaks of */
        x = s, x.vault_id[i] ^= 1;
        assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
    }
    for (unsigned i = 0; i < LG_MAC_LEN; i++) {
        x = s, x.hash[i] ^= 1;
        assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
    }
    for (unsigned bit = 0; bit < 64; bit++) {
        x = s, x.begun ^= 1ull << bit;
        assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
        x = s, x.entries ^= 1ull << bit;
        assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
    }
}

static void another_key(void **state)
{
    struct lg_manifest_sig s = example();
    (void)state;
    assert_int_equal(lg_manifest_sig_make(&s, other), 0);
    assert_int_equal(lg_manifest_sig_check(&s, pub), -EKEYREJECTED); /* it names the other */
    memcpy(s.pub, pub, sizeof pub);
    assert_int_equal(lg_manifest_sig_check(&s, pub), -EKEYREJECTED); /* it claims to be of this one */
}

/* Each has a key of its own. Were it one: none passes for another. */
static void another_kind(void **state)
{
    struct lg_manifest_sig s = example(), x;
    struct lg_audit_head h = { .n = 1, .seq = 7, .time_us = 1700000009 };
    struct lg_tombstone t = { .created = 1 };
    uint8_t tomb[LG_TOMBSTONE_LEN], doc[300] = "LGACT1", sig[LG_SIGN_LEN];
    (void)state;
    memset(h.keyring, 'k', LG_ID_LEN);
    memset(h.chain, 'v', LG_ID_LEN);
    memset(h.hash, 'h', LG_MAC_LEN);
    assert_int_equal(lg_audit_head_sign(&h, seed), 0);
    assert_int_equal(lg_audit_head_check(&h, pub), 0);
    x = s;
    memcpy(x.sig, h.sig, sizeof x.sig);
    assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
    memcpy(h.sig, s.sig, sizeof h.sig);
    assert_int_not_equal(lg_audit_head_check(&h, pub), 0);
    assert_int_equal(lg_tombstone_encode(&t, tomb), 0);
    assert_int_equal(lg_sign_verify(pub, tomb, LG_TOMBSTONE_SIGNED, s.sig), -EBADMSG);
    assert_int_equal(lg_act_verify(pub, LG_ACT_ASK, doc, sizeof doc, s.sig), -EBADMSG);
    assert_int_equal(lg_act_sign(seed, LG_ACT_ASK, doc, sizeof doc, sig), 0);
    memcpy(x.sig, sig, sizeof sig);
    assert_int_equal(lg_manifest_sig_check(&x, pub), -EKEYREJECTED);
}

/* The bytes that are signed, as docs/FORMAT-manifest.md has them: whoever checks one with another program goes by that. */
static void the_bytes(void **state)
{
    struct lg_manifest_sig s = example();
    uint8_t b[112] = "leadglass manifest 2";
    (void)state;
    memset(b + 24, 'k', 16);
    memset(b + 40, 'v', 16);
    for (unsigned i = 0; i < 8; i++) {
        b[56 + i] = (uint8_t)(s.begun >> 8 * i);
        b[64 + i] = (uint8_t)(s.entries >> 8 * i);
        b[104 + i] = (uint8_t)(s.signed_at >> 8 * i);
    }
    memset(b + 72, 'h', 32);
    assert_int_equal(lg_sign_verify(pub, b, sizeof b, s.sig), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(every_part), cmocka_unit_test(another_key), cmocka_unit_test(another_kind), cmocka_unit_test(the_bytes) };
    if (lg_secret_init(true) || lg_crypto_init() || !(seed = lg_secret_random()) || !(other = lg_secret_random()) || lg_sign_public(seed, pub) || lg_sign_public(other, other_pub))
        return 1;
    int rc = cmocka_run_group_tests(tests, NULL, NULL);
    lg_secret_free(seed);
    lg_secret_free(other);
    return rc;
}
