/* Records of a keyring as --check meets them in a damaged file: any table, any key, any value, in any order. 1 byte table, 1 byte length of the key, 2 bytes length of
 * the value, both, and so on. With the first bit of the first table set, what can be sealed is sealed properly, so that what lies behind is reached. */
#include <stdlib.h>
#include <string.h>

#include "../../keymgr/keyring/check.h"

static struct lg_secret *key;
static struct lg_siv *ctrl, *root;

static void on_damage(void *arg, const struct lg_check_damage *d)
{
    (void)arg;
    if (!d->part || !d->what || !memchr(d->subject, 0, sizeof d->subject) || d->bucket < -1 || d->bucket >= (int)LG_BUCKETS)
        abort();
}

static int on_head(const char *text, size_t len, const uint8_t *pub) { return pub && len && text[0] == 'x' ? 0 : -EBADMSG; }

static const char *purpose_of(enum lg_table t) { return t == LG_T_OFFICERS ? "officer." : t == LG_T_ACTS ? "act....." : t == LG_T_TOMBSTONES ? "tombston" : t == LG_T_STATE ? "policy.." : NULL; }

static void row(struct lg_checking *x, enum lg_table t, const uint8_t *k, size_t key_len, const uint8_t *v, size_t len, bool seal)
{
    uint8_t *exact = malloc(key_len + 1), *value = malloc(len + LG_SIV_TAG_LEN + 1), ad[8 + LG_ID_LEN + 64];
    if (!exact || !value)
        abort();
    memcpy(exact, k, key_len);
    memcpy(value, v, len);
    if (seal && purpose_of(t) && key_len <= 64) {
        memcpy(ad, purpose_of(t), 8);
        memcpy(ad + 8, x->k.meta.keyring_id, LG_ID_LEN);
        memcpy(ad + 8 + LG_ID_LEN, exact, key_len);
        if (lg_siv_seal_with(ctrl, ad, 8 + LG_ID_LEN + key_len, v, len, value))
            abort();
        len += LG_SIV_TAG_LEN;
    }
    if (lg_check_row(x, t, exact, key_len, value, len) && !x->open) /* out of memory alone */
        abort();
    free(exact);
    free(value);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct lg_check c = { .damage = on_damage, .head = on_head };
    static struct lg_checking x;
    struct lg_check_copy out = { 0 };
    if (!key && (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_siv_new(key, &ctrl) || lg_siv_new(key, &root)))
        abort();
    memset(&x, 0, sizeof x);
    x.c = &c;
    x.out = &out;
    x.sorted = true;
    bool seal = len && data[0] & 0x80;
    if (seal) {
        x.open = true;
        x.k.ctrl = ctrl;
        x.k.rooted.siv = root;
        x.k.record = x.k.lookup = key;
        x.k.bucket = lg_secret_alloc((size_t)LG_BUCKETS * LG_KEY_LEN);
        if (!x.k.bucket)
            abort();
    }
    for (struct lg_rd r = lg_rd(data, len); r.left > 4;) {
        enum lg_table t = (enum lg_table)((lg_rd_u8(&r) & 0x7f) % LG_TABLES);
        size_t key_len = lg_rd_u8(&r) % 80, value_len = lg_rd_u16(&r);
        key_len = key_len < r.left ? key_len : r.left;
        const uint8_t *k = lg_rd_bytes(&r, key_len);
        value_len = value_len < r.left ? value_len : r.left;
        row(&x, t, k, key_len, lg_rd_bytes(&r, value_len), value_len, seal);
    }
    (void)!lg_check_rest(&x);
    lg_secret_dealloc(x.k.bucket);
    for (size_t i = 0; i < x.n_late; i++)
        free(x.late[i].value);
    free(x.late);
    free(x.known);
    free(x.vault);
    return 0;
}
