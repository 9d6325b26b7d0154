/* Documents of officers: what a decoder takes, the encoder gives back byte for byte. */
#include <stdlib.h>

#include "leadglass/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static uint8_t out[LG_WIRE_BLOB_MAX];

static void same(int rc, size_t n, const uint8_t *data, size_t len)
{
    if (rc || n != len || memcmp(out, data, len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct lg_act act;
    static struct lg_act_record record;
    static struct lg_certificate cert;
    static struct lg_governance gov;
    static bool ready;
    struct lg_officer officer;
    struct lg_policy policy;
    struct lg_tombstone tomb;
    uint8_t pub[LG_SIGN_PUB_LEN];
    size_t n = 0;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    if (lg_act_decode(data, len, &act) == 0) {
        int rc = lg_act_encode(&act, out, &n);
        same(rc, n, data, len);
    }
    if (lg_act_record_decode(data, len, &record) == 0) {
        int rc = lg_act_record_encode(&record, out, &n);
        same(rc, n, data, len);
    }
    struct lg_assign assign;
    if (lg_assign_decode(data, len, &assign) == 0) {
        int rc = lg_assign_encode(&assign, out, &n);
        same(rc, n, data, len);
    }
    static struct lg_trim trim;
    if (lg_trim_decode(data, len, &trim) == 0) {
        int rc = lg_trim_encode(&trim, out, &n);
        same(rc, n, data, len);
    }
    if (lg_officer_decode(data, len, &officer) == 0) {
        int rc = lg_officer_encode(&officer, out, &n);
        same(rc, n, data, len);
    }
    if (lg_policy_decode(data, len, &policy) == 0) {
        int rc = lg_policy_encode(&policy, out, &n);
        same(rc, n, data, len);
        (void)lg_policy_due(&policy, policy.n_rules - 1, "99991231", UINT64_MAX);
        (void)lg_policy_due(&policy, 0, "", UINT64_MAX);
    }
    if (lg_tombstone_decode(data, len, &tomb) == 0) {
        int rc = lg_tombstone_encode(&tomb, out);
        same(rc, LG_TOMBSTONE_LEN, data, len);
    }
    if (lg_certificate_decode(data, len, &cert) == 0) {
        int rc = lg_certificate_encode(&cert, out, &n);
        same(rc, n, data, len);
    }
    if (len > LG_SIGN_LEN + LG_SIGN_PUB_LEN)
        (void)!lg_act_verify(data, LG_ACT_ASK, data + LG_SIGN_LEN + LG_SIGN_PUB_LEN, len - LG_SIGN_LEN - LG_SIGN_PUB_LEN, data + LG_SIGN_PUB_LEN);
    if (len > LG_SIGN_LEN)
        (void)!lg_certificate_verify(data + LG_SIGN_LEN, len - LG_SIGN_LEN, data, &cert);
    if (lg_governance_decode(data, len, &gov) == 0) {
        int rc = lg_governance_encode(&gov, out, sizeof out, &n);
        same(rc, n, data, len);
    }
    (void)!lg_officer_pub_parse((const char *)data, len, pub);
    if (len > 30 && data[24] < 'A') { /* a valid key file would cost half a second of scrypt: only those that name a small one */
        LG_SECRET_AUTO seed = lg_secret_new();
        if (seed)
            (void)!lg_officer_key_open((const char *)data, len, "x", 1, seed);
    }
    return 0;
}
