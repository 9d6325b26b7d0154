/* A vault's anchor as it comes from a vault's directory: as it is, and with a MAC that is right, so that what lies behind it is reached. */
#include "../../keymgr/keyring/seen.c"

static void take(const struct lg_keyring *k, const uint8_t *p, size_t len)
{
    static const uint8_t vault[LG_ID_LEN] = "the vault's id.";
    uint8_t *exact = malloc(len + 1), again[LG_VAULT_ANCHOR_LEN];
    struct anchor a;
    if (!exact)
        abort();
    memcpy(exact, p, len);
    if (!decode(k, vault, exact, len, &a) && (len != sizeof again || encode(k, &a, again) || memcmp(again, exact, len) != 0))
        abort(); /* one text for one value */
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static struct lg_keyring k;
    uint8_t b[LG_VAULT_ANCHOR_LEN] = "LGANCHR\n\1\0\0\0";
    if (!k.record && (lg_secret_init(true) || lg_crypto_init() || !(k.record = lg_secret_new())))
        abort();
    take(&k, data, len);
    if (len > MAC_AT)
        len = MAC_AT;
    memcpy(b + (len > MAC_AT - 12 ? 0 : 12), data, len); /* a whole one, or its fields */
    if (anchor_mac(&k, b, b + MAC_AT))
        abort();
    take(&k, b, sizeof b);
    return 0;
}
