/* Records of a keyring as --check meets them in a damaged file: any table, any key, any value, in any order. 1 byte table, 1 byte length of the key, 2 bytes length of
 * the value, both, and so on. With the first bit of the first table set, what can be sealed is sealed properly, so that what lies behind is reached. An input that begins
 * with 0xff changes the records of a real keyring, whose roots are known: 4 bytes which record, what is done, where, with what. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../keymgr/keyring/check.h"
#include "scratch.h"

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

static void tidy(struct lg_checking *x)
{
    lg_secret_dealloc(x->k.bucket);
    for (size_t i = 0; i < x->n_late; i++)
        free(x->late[i].value);
    free(x->late);
    free(x->known);
    free(x->vault);
}

/* ---- a real one: its records, without the buckets in which nothing is ---------------------------------------------------------------------------------- */

enum { REAL_MAX = 128, STUDIES = 6 };
static struct real {
    enum lg_table t;
    size_t key_len, len;
    uint8_t key[64], *value;
} real[REAL_MAX];
static unsigned n_real, real_damages;
static bool used[LG_BUCKETS];
static struct lg_roots roots;

static void need(int rc)
{
    if (rc)
        abort();
}

static int on_page_row(void *arg, enum lg_table t, const uint8_t *k, size_t key_len, const uint8_t *v, size_t len)
{
    bool *second = arg;
    if (!*second) {
        if (t == LG_T_KEYS && key_len == LG_ID_LEN)
            used[lg_bucket_of(k)] = true;
        return 0;
    }
    if (t == LG_T_BUCKETS && (key_len != 2 || !used[k[0] << 8 | k[1]]))
        return 0;
    struct real *r = &real[n_real++];
    if (n_real > REAL_MAX || key_len > sizeof r->key || !(r->value = malloc(len + 1)))
        abort();
    r->t = t;
    memcpy(r->key, k, r->key_len = key_len);
    memcpy(r->value, v, r->len = len);
    return 0;
}

static void on_page_damage(void *arg, const char *part, uint64_t page, const char *what) { (void)arg, (void)part, (void)page, (void)what, abort(); }

static void take(struct lg_key *k)
{
    lg_secret_free(k->key);
    k->key = NULL;
}

static void make(void)
{
    static const char *const name[] = { "k/data.mdb", "k/lock.mdb", "k/lock", "k.root", "k.root.tombstones" };
    static const uint8_t vid[LG_ID_LEN] = "vault", chain[LG_ID_LEN] = "an access log";
    char top[64], dir[80], slot[96], path[96];
    struct lg_keyring *k;
    struct lg_key a, b;
    struct lg_study_info info = { .patient_id = "P1" };
    uint8_t kids[8][LG_ID_LEN];
    uint64_t session;
    unsigned n;
    bool created, second = false;
    fuzz_dir("lgcheck", top, sizeof top);
    snprintf(dir, sizeof dir, "%s/k", top);
    snprintf(slot, sizeof slot, "%s/k.root", top);
    need(lg_keyring_create(dir, slot, "pass", 4, 1));
    need(lg_keyring_open(dir, slot, NULL, &k));
    need(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "pass", 4, &roots));
    need(lg_keyring_unlock(k, &roots));
    lg_roots_done(&roots);
    need(lg_keyring_begin(k));
    for (unsigned i = 0; i < STUDIES; i++) {
        snprintf(info.uid, sizeof info.uid, "1.2.%u", i);
        need(lg_keyring_study_key(k, &info, &a, &created));
        take(&a);
    }
    need(lg_keyring_vault_add(k, vid, &a, &b));
    take(&a), take(&b);
    need(lg_keyring_session_begin(k, vid, &session));
    need(lg_keyring_provisional(k, &a));
    need(lg_keyring_attach(k, a.kid, &info));
    take(&a);
    LG_SECRET_AUTO seed = lg_secret_new();
    if (!seed)
        abort();
    need(lg_keyring_audit_key(k, seed));
    need(lg_keyring_head_put(k, chain, "x", 1));
    need(lg_keyring_rotate_study(k, "1.2.2", kids[0]));
    need(lg_keyring_revoke(k, "1.2.3", "test", 0, kids, 8, &n));
    need(lg_keyring_commit(k));
    need(lg_keyring_destroy(k, &n));
    lg_keyring_close(k);
    need(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "pass", 4, &roots));
    snprintf(path, sizeof path, "%s/data.mdb", dir);
    const struct lg_pages_visitor v = { &second, on_page_damage, on_page_row, NULL };
    need(lg_pages_walk(path, &v));
    second = true;
    need(lg_pages_walk(path, &v));
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        snprintf(path, sizeof path, "%s/%s", top, name[i]), unlink(path);
    rmdir(dir);
    rmdir(top);
}

static void feed(struct lg_checking *x, const struct real *r)
{
    uint8_t *k = malloc(r->key_len + 1), *v = malloc(r->len + 1); /* of their own lengths */
    if (!k || !v)
        abort();
    memcpy(k, r->key, r->key_len);
    memcpy(v, r->value, r->len);
    need(lg_check_row(x, r->t, k, r->key_len, v, r->len));
    free(k);
    free(v);
}

static void change(struct real *r, unsigned how, unsigned where, uint8_t with)
{
    switch (how % 5) {
    case 0:
        if (r->len)
            r->value[where % r->len] ^= with;
        break;
    case 1: /* counted from the end, where MACs are not */
        if (r->len)
            r->value[r->len - 1 - where % r->len] ^= with;
        break;
    case 2:
        r->len = where < r->len ? where : r->len;
        break;
    case 3:
        if (r->key_len)
            r->key[where % r->key_len] ^= with;
        break;
    default:
        if (how / 5 % 2)
            r->key_len = where < r->key_len ? where : r->key_len;
        else
            r->t = (enum lg_table)(where % LG_TABLES);
    }
}

static unsigned damages_with(const uint8_t *data, size_t len)
{
    static const struct lg_check c = { .damage = on_damage, .head = on_head, .roots = &roots };
    static struct lg_checking x;
    struct lg_check_copy out = { 0 };
    struct real now[REAL_MAX];
    bool lost[REAL_MAX] = { false }, twice[REAL_MAX] = { false };
    memset(&x, 0, sizeof x);
    x.c = &c;
    x.out = &out;
    x.sorted = true;
    memcpy(now, real, n_real * sizeof *now);
    for (unsigned i = 0; i < n_real; i++)
        if (!(now[i].value = malloc(real[i].len + 1)))
            abort();
        else
            memcpy(now[i].value, real[i].value, real[i].len);
    for (; len >= 4; data += 4, len -= 4)
        if (data[1] == 0xff)
            lost[data[0] % n_real] = true;
        else if (data[1] == 0xfe) /* the walk goes on where records are out of order */
            twice[data[0] % n_real] = true;
        else
            change(&now[data[0] % n_real], data[1], data[2], data[3]);
    for (unsigned i = 0; i < n_real; i++)
        for (int n = !lost[i] + twice[i]; n > 0; n--)
            feed(&x, &now[i]);
    need(lg_check_rest(&x));
    for (unsigned i = 0; i < n_real; i++)
        free(now[i].value);
    lg_secret_free(x.k.lookup);
    lg_secret_free(x.k.record);
    lg_siv_free(x.k.ctrl);
    lg_siv_free(x.k.rooted.siv);
    tidy(&x);
    return (unsigned)out.damages;
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) /* no input's time: a busy machine takes long for a keyring */
{
    (void)argc, (void)argv;
    if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_siv_new(key, &ctrl) || lg_siv_new(key, &root))
        abort();
    make();
    real_damages = damages_with(NULL, 0); /* of the buckets that are left out */
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const struct lg_check c = { .damage = on_damage, .head = on_head };
    static struct lg_checking x;
    struct lg_check_copy out = { 0 };
    if (len && data[0] == 0xff) {
        if (len < 5 && damages_with(data + 1, len - 1) != real_damages)
            abort();
        (void)damages_with(data + 1, len - 1);
        return 0;
    }
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
        x.k.bucket = lg_secret_alloc((size_t)LG_BUCKETS * LG_SIV_KEY_LEN);
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
    tidy(&x);
    return 0;
}
