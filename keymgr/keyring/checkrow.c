/* What each table's records have to look like, by themselves and beside each other. docs/FORMAT-keyring.md is the specification. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static int say(struct lg_checking *x, enum lg_table t, const char *what)
{
    lg_check_say(x, lg_table_name(t), what, NULL);
    return 0;
}

static int say_key(struct lg_checking *x, enum lg_table t, const uint8_t *kid, const char *what)
{
    lg_check_say_key(x, lg_table_name(t), kid, what);
    return 0;
}

static int compare(const void *a, const void *b) { return memcmp(((const struct known *)a)->kid, ((const struct known *)b)->kid, LG_ID_LEN); }

static struct known *find(struct lg_checking *x, const uint8_t kid[LG_ID_LEN])
{
    struct known want;
    if (!x->sorted && x->n)
        qsort(x->known, x->n, sizeof *x->known, compare);
    x->sorted = true;
    memcpy(want.kid, kid, LG_ID_LEN);
    return x->n ? bsearch(&want, x->known, x->n, sizeof *x->known, compare) : NULL;
}

/* Something leads to this key, of this kind (0: any). */
static int led_to(struct lg_checking *x, enum lg_table t, const uint8_t *kid, unsigned kind)
{
    struct known *f = find(x, kid);
    if (!f)
        return say_key(x, t, kid, "is named here, and its record is lost");
    f->named = true;
    return kind && f->kind != kind ? say_key(x, t, kid, "is named here, and is a key of another kind") : 0;
}

static bool all_zero(const uint8_t *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (p[i])
            return false;
    return true;
}

/* ---- meta ---------------------------------------------------------------------------------------------------------------------------------- */

static int late(struct lg_checking *x, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    struct late *l = reallocarray(x->late, x->n_late + 1, sizeof *l);
    if (!l)
        return -ENOMEM;
    x->late = l;
    l += x->n_late;
    *l = (struct late){ .t = t, .key_len = key_len, .len = len, .value = malloc(len ? len : 1) };
    if (!l->value)
        return -ENOMEM;
    memcpy(l->key, key, key_len);
    memcpy(l->value, value, len);
    x->n_late++;
    return 0;
}

static int meta_record(struct lg_checking *x, const uint8_t *value, size_t len)
{
    LG_SECRET_AUTO lookup = lg_secret_new();
    LG_SECRET_AUTO record = lg_secret_new();
    struct lg_meta *m = &x->k.meta;
    if (x->have_meta) /* opened once: however often it stands in a damaged file, no memory is locked again */
        return say(x, LG_T_META, "the record of the keyring itself is there more than once");
    int rc = lookup && record ? lg_meta_parse(value, len, m) : -ENOMEM;
    if (rc == -EPROTO || rc == -EPROTONOSUPPORT)
        return say(x, LG_T_META, rc == -EPROTO ? "the record of the keyring itself is malformed" : "the record of the keyring itself is of a later version than this program knows, or damaged");
    if (rc)
        return rc;
    x->have_meta = true;
    for (unsigned i = 0; x->c->roots && i < x->c->roots->n; i++)
        if (x->c->roots->r[i].epoch == m->epoch)
            x->k.root = x->c->roots->r[i]; /* borrowed */
    if (!x->k.root.key)
        return 0;
    rc = lg_meta_unwrap(&x->k, &x->k.root, lookup, record);
    if (rc == -EBADMSG)
        return say(x, LG_T_META, "the record of the keyring itself cannot be opened: no other can");
    if (rc)
        return rc;
    x->out->opened += 2;
    x->k.rooted.epoch = m->epoch;
    x->k.lookup = lg_secret_dup(lookup);
    x->k.record = lg_secret_dup(record);
    x->k.bucket = lg_secret_alloc((size_t)LG_BUCKETS * LG_SIV_KEY_LEN);
    rc = x->k.lookup && x->k.record && x->k.bucket ? lg_siv_new(x->k.root.key, &x->k.rooted.siv) : -ENOMEM;
    if (!rc)
        rc = lg_siv_new(record, &x->k.ctrl);
    x->open = !rc;
    return rc;
}

static bool begins(const uint8_t *key, size_t len, const char *with, size_t whole) { return len == whole && memcmp(key, with, strlen(with)) == 0; }

static int on_meta(struct lg_checking *x, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    struct lg_rd r = lg_rd(value, len);
    if (lg_meta_is(key, key_len))
        return meta_record(x, value, len);
    if (begins(key, key_len, "commits", 7)) {
        x->out->commits = lg_rd_u64(&r);
        return lg_rd_done(&r) ? 0 : say(x, LG_T_META, "the number of commits is malformed");
    }
    bool origin = begins(key, key_len, "origin", 6);
    if (begins(key, key_len, "restored", 8) || begins(key, key_len, "incarnation", 11) || origin)
        return len == 8 || (origin && len == 16) ? 0 : say(x, LG_T_META, "the note of a restore is malformed");
    if (begins(key, key_len, "versions", 8))
        return len == 8 ? 0 : say(x, LG_T_META, "the number of versions is malformed");
    if (begins(key, key_len, "inventory", 9))
        return len == 8 ? 0 : say(x, LG_T_META, "the mark of the inventory is malformed");
    if (begins(key, key_len, "others", 6))
        return len == 8 ? 0 : say(x, LG_T_META, "the number of keys that are no study's is malformed");
    if (begins(key, key_len, "auditkey", 8)) {
        x->have_pub = len == LG_WRAPPED_LEN + LG_SIGN_PUB_LEN;
        if (x->have_pub)
            memcpy(x->pub, value + LG_WRAPPED_LEN, LG_SIGN_PUB_LEN);
        return x->have_pub ? late(x, LG_T_META, key, key_len, value, len) : say(x, LG_T_META, "the key that signs access logs is malformed");
    }
    if (begins(key, key_len, "head", 4 + LG_ID_LEN)) {
        x->out->heads++;
        return late(x, LG_T_META, key, key_len, value, len);
    }
    if (begins(key, key_len, "backup/", 7 + 8 + LG_ID_LEN)) {
        char name[LG_REASON_MAX + 1];
        x->out->backups++;
        (void)lg_rd_bytes(&r, 24);
        lg_rd_str(&r, name, LG_REASON_MAX);
        return lg_rd_ok(&r) ? 0 : say(x, LG_T_META, "an entry of the inventory of backups is malformed");
    }
    if (begins(key, key_len, "anchor/", 7 + LG_ID_LEN))
        return len == 8 + 4 + 8 + 16 ? 0 : say(x, LG_T_META, "what a vault's anchor was is malformed");
    x->out->unknown++;
    return 0;
}

/* ---- buckets and keys ------------------------------------------------------------------------------------------------------------------------- */

static int on_bucket(struct lg_checking *x, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    unsigned b = key_len == 2 ? (unsigned)key[0] << 8 | key[1] : LG_BUCKETS;
    if (b >= LG_BUCKETS)
        return say(x, LG_T_BUCKETS, "there is one that cannot be");
    x->bucket[b] = len == LG_WRAPPED_LEN ? BUCKET_THERE : BUCKET_BAD;
    x->out->buckets++;
    if (x->bucket[b] == BUCKET_THERE && x->open) {
        LG_SECRET_AUTO k = lg_secret_new();
        int rc = k ? lg_bucket_open(&x->k, b, &x->k.rooted, value, k) : -ENOMEM;
        bool bad = rc == -EBADMSG;
        if (!rc)
            rc = lg_siv_key(k, x->k.bucket + (size_t)b * LG_SIV_KEY_LEN);
        if (rc && !bad)
            return rc;
        if (bad) {
            x->bucket[b] = BUCKET_BAD;
        } else {
            x->k.have_bucket[b] = true;
            x->out->opened++;
        }
    }
    return 0;
}

static int versions_open(struct lg_checking *x, const struct lg_record *r)
{
    LG_SECRET_AUTO key = lg_secret_new();
    struct lg_siv *bucket = NULL;
    struct lg_study_info info;
    char what[64];
    int rc = key ? lg_siv_from(x->k.bucket + (size_t)lg_bucket_of(r->kid) * LG_SIV_KEY_LEN, &bucket) : -ENOMEM;
    if (rc)
        return rc;
    for (uint32_t i = 0; i < r->n; i++) {
        rc = lg_version_unwrap(&x->k, bucket, r, i, key);
        if (rc && rc != -EBADMSG)
            break;
        x->out->opened += !rc;
        snprintf(what, sizeof what, "version %u of it does not open", r->version[i]);
        if (rc)
            say_key(x, LG_T_KEYS, r->kid, what);
    }
    lg_siv_free(bucket);
    if (rc && rc != -EBADMSG)
        return rc;
    if (!r->n || rc) /* the newest one opens the rest */
        return 0;
    rc = lg_info_open(&x->k, r, key, &info);
    if (rc == -EBADMSG || rc == -EPROTO)
        return say_key(x, LG_T_KEYS, r->kid, "opens, but not what is noted of its study");
    return rc;
}

/* Against damage; millions of whole ones would be much. */
static uint64_t fold(const uint8_t hash[LG_MAC_LEN])
{
    struct lg_rd r = lg_rd(hash, LG_MAC_LEN);
    uint64_t x = 0;
    for (unsigned i = 0; i < LG_MAC_LEN / 8; i++)
        x = (x << 1 | x >> 63) ^ lg_rd_u64(&r);
    return x;
}

/* Needs the record key. */
static int control_check(struct lg_checking *x, const uint8_t *value, size_t len, struct lg_record *r)
{
    uint8_t kid[LG_ID_LEN];
    memcpy(kid, r->kid, LG_ID_LEN);
    int rc = lg_record_parse(&x->k, kid, value, len, r);
    if (rc == -EBADMSG || rc == -EPROTO)
        return say_key(x, LG_T_KEYS, kid, "its state cannot be opened");
    if (rc)
        return rc;
    x->out->opened++;
    x->known[x->n - 1].lookup = fold(r->lookup);
    if (r->kind == LG_KIND_STUDY)
        x->states[r->state]++;
    if (r->kind == LG_KIND_STUDY && r->state == LG_KEY_DESTROYED && r->n)
        say_key(x, LG_T_KEYS, kid, "is said to be destroyed and still has its wraps");
    if (r->state != LG_KEY_DESTROYED && r->state != LG_KEY_DESTROYING && !r->n)
        say_key(x, LG_T_KEYS, kid, "has no version left and is not destroyed");
    if (r->kind == LG_KIND_PROVISIONAL && !all_zero(r->attached, LG_ID_LEN))
        return late(x, LG_T_KEYS, kid, LG_ID_LEN, r->attached, LG_ID_LEN);
    return 0;
}

static int on_key(struct lg_checking *x, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    const uint8_t *ctrl;
    size_t ctrl_len;
    if (key_len != LG_ID_LEN)
        return say(x, LG_T_KEYS, "there is a record whose key is no key id");
    struct lg_record *r = malloc(sizeof *r);
    if (x->n == x->cap) {
        size_t cap = x->cap ? x->cap * 2 : 1024;
        struct known *k = reallocarray(x->known, cap, sizeof *k);
        if (k) {
            x->known = k;
            x->cap = cap;
        }
    }
    int rc = r && x->n < x->cap ? lg_record_split(key, value, len, r, &ctrl, &ctrl_len) : -ENOMEM;
    if (rc != -ENOMEM) {
        struct known *f = &x->known[x->n++];
        *f = (struct known){ .kind = len ? value[0] : 0, .alive = !rc && r->n };
        memcpy(f->kid, key, LG_ID_LEN);
        x->sorted = false;
    }
    unsigned b = lg_bucket_of(key);
    if (rc == -EPROTO) {
        rc = say_key(x, LG_T_KEYS, key, "its record is malformed");
    } else if (!rc) {
        uint64_t *const count[] = { [LG_KIND_STUDY] = r->n ? &x->out->studies : &x->out->destroyed, [LG_KIND_PROVISIONAL] = &x->out->provisional };
        if (r->kind == LG_KIND_STUDY || r->kind == LG_KIND_PROVISIONAL)
            ++*count[r->kind];
        x->out->versions += r->n;
        if (r->n && x->bucket[b] != BUCKET_THERE)
            say_key(x, LG_T_KEYS, key, x->bucket[b] == BUCKET_BAD ? "cannot be opened: the key of its bucket is damaged" : "cannot be opened: the key of its bucket is lost");
        if (x->open)
            rc = control_check(x, value, len, r);
        if (!rc && x->open && x->bucket[b] == BUCKET_THERE)
            rc = versions_open(x, r);
    }
    free(r);
    return rc;
}

/* ---- what leads to keys --------------------------------------------------------------------------------------------------------------------- */

static int on_lookup(struct lg_checking *x, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    if (key_len != LG_MAC_LEN || len != LG_ID_LEN)
        return say(x, LG_T_LOOKUP, "there is a malformed record");
    const struct known *f = find(x, value);
    if (f && f->lookup && f->lookup != fold(key))
        return say_key(x, LG_T_LOOKUP, value, "is where another study's UID leads to");
    return led_to(x, LG_T_LOOKUP, value, LG_KIND_STUDY);
}

static int on_attached(struct lg_checking *x, const uint8_t *key, size_t key_len)
{
    if (key_len != 2 * LG_ID_LEN)
        return say(x, LG_T_ATTACHED, "there is a malformed record");
    int rc = led_to(x, LG_T_ATTACHED, key + LG_ID_LEN, LG_KIND_PROVISIONAL);
    if (!find(x, key))
        say_key(x, LG_T_ATTACHED, key, "is named here, and its record is lost");
    return rc;
}

static int on_vault(struct lg_checking *x, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    if (key_len != LG_ID_LEN || len != 2 * LG_ID_LEN)
        return say(x, LG_T_VAULTS, "there is a malformed record");
    uint8_t(*v)[LG_ID_LEN] = reallocarray(x->vault, x->n_vault + 1, sizeof *v);
    if (!v)
        return -ENOMEM;
    x->vault = v;
    memcpy(v[x->n_vault++], key, LG_ID_LEN);
    x->out->vaults++;
    int rc = led_to(x, LG_T_VAULTS, value, LG_KIND_VAULT);
    return rc ? rc : led_to(x, LG_T_VAULTS, value + LG_ID_LEN, LG_KIND_GENERAL);
}

static int on_session(struct lg_checking *x, size_t key_len, const uint8_t *value, size_t len)
{
    struct lg_open_session s;
    bool ok = key_len == 8 && lg_session_decode(value, len, &s) == 0, known = false;
    x->out->sessions++;
    for (size_t i = 0; ok && i < x->n_vault; i++)
        known = known || memcmp(x->vault[i], value, LG_ID_LEN) == 0;
    return !ok ? say(x, LG_T_SESSIONS, "there is a malformed record") : !known ? say(x, LG_T_SESSIONS, "there is one of a vault that is not known") : 0;
}

static int on_pending(struct lg_checking *x, const uint8_t *key, size_t key_len, size_t len)
{
    bool trim = key_len == LG_TRIM_KEY && len >= 8 + LG_ID_LEN + 1 && (len - 8 - LG_ID_LEN - 1) % 4 == 0;
    if (!trim && (key_len != LG_ID_LEN || (len != 0 && len != 16)))
        return say(x, LG_T_PENDING, "there is a malformed record");
    return find(x, key) ? 0 : say_key(x, LG_T_PENDING, key, "is named here, and its record is lost");
}

/* ---- what is sealed ------------------------------------------------------------------------------------------------------------------------- */

static const char *state_purpose(const uint8_t *key, size_t len)
{
    static const struct { const char *name, *purpose; } by_name[] = { { "anchor", "anchor.." }, { "officers", "offmode." }, { "officers dirty", "offdirty" }, { "policy", "policy.." }, { "signkey", "signkey." }, { "time", "time...." }, { "patients", "gathered" }, { "line", "rollback" } };
    static const struct { uint8_t letter, len; const char *purpose; } by_letter[] = { /* and what it is about */
        { 'r', 1 + LG_SIGN_PUB_LEN, "suspends" }, { 'w', 1 + 8 + LG_ID_LEN, "waiting." },    { 't', 1 + LG_ID_LEN, "trimwait" },
        { 'f', 1 + 2 * LG_ID_LEN, "reaped.." },   { 'g', 1 + 2 * LG_ID_LEN, "reapwant" },    { 'p', 1 + 16, "patient." } };
    for (size_t i = 0; i < sizeof by_name / sizeof *by_name; i++)
        if (len == strlen(by_name[i].name) && memcmp(key, by_name[i].name, len) == 0)
            return by_name[i].purpose;
    for (size_t i = 0; i < sizeof by_letter / sizeof *by_letter; i++)
        if (len == by_letter[i].len && key[0] == by_letter[i].letter)
            return by_letter[i].purpose;
    return NULL;
}

static int sign_key(struct lg_checking *x, const uint8_t *b, size_t len)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    if (len != LG_KEY_LEN)
        return -EPROTO;
    if (!seed)
        return -ENOMEM;
    memcpy(seed->b, b, LG_KEY_LEN);
    x->have_sign = true;
    return lg_sign_public(seed, x->sign);
}

static int sealed_form(struct lg_checking *x, enum lg_table t, const char *purpose, const uint8_t *key, size_t key_len, const uint8_t *b, size_t len)
{
    struct lg_officer o;
    struct lg_policy p;
    struct lg_tombstone tomb;
    LG_SECRET_BUF_AUTO struct lg_act_record *a = lg_secret_alloc(sizeof *a);
    if (!a)
        return -ENOMEM;
    if (t == LG_T_OFFICERS)
        return lg_officer_decode(b, len, &o);
    if (t == LG_T_ACTS)
        return lg_act_record_decode(b, len, a);
    if (t == LG_T_TOMBSTONES && lg_tombstone_decode(b, len, &tomb))
        return -EPROTO;
    if (t == LG_T_TOMBSTONES)
        return x->have_sign && lg_sign_verify(x->sign, b, LG_TOMBSTONE_SIGNED, tomb.sig) ? -EBADMSG : 0;
    if (memcmp(purpose, "policy..", 8) == 0)
        return lg_policy_decode(b, len, &p);
    (void)key;
    (void)key_len;
    return 0;
}

static int on_sealed(struct lg_checking *x, enum lg_table t, const char *purpose, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    static const char *const what[LG_TABLES] = { [LG_T_OFFICERS] = "an officer's record", [LG_T_ACTS] = "an act's record", [LG_T_TOMBSTONES] = "a tombstone", [LG_T_STATE] = "a record" };
    char subject[96], hex[2 * LG_SIGN_PUB_LEN + 1];
    size_t n = key_len < LG_SIGN_PUB_LEN ? key_len : LG_SIGN_PUB_LEN, out;
    lg_hex_encode(key, n, hex);
    snprintf(subject, sizeof subject, "%s", what[t]);
    if (t == LG_T_STATE) /* a name, in part of letters */
        snprintf(subject, sizeof subject, "%.*s", (purpose[0] == 's' && purpose[1] == 'u') || purpose[0] == 'w' || (purpose[0] == 'p' && purpose[1] == 'a') || (purpose[0] == 't' && purpose[1] == 'r') || purpose[0] == 'r' ? 1 : (int)key_len, (const char *)key);
    if (t == LG_T_TOMBSTONES) {
        lg_hex_encode(key + LG_MAC_LEN, LG_ID_LEN, hex);
        snprintf(subject, sizeof subject, "tombstone of key %s", hex);
    } else if (t == LG_T_ACTS) {
        snprintf(subject, sizeof subject, "act %s", hex);
    }
    if (len < LG_SIV_TAG_LEN || len - LG_SIV_TAG_LEN > LG_SEALED_VALUE_MAX) {
        lg_check_say(x, lg_table_name(t), "is malformed", subject);
        return 0;
    }
    if (!x->open)
        return 0;
    LG_SECRET_BUF_AUTO uint8_t *b = lg_secret_alloc(LG_SEALED_VALUE_MAX);
    int rc = b ? lg_sealed_open(&x->k, purpose, key, key_len, value, len, b, LG_SEALED_VALUE_MAX, &out) : -ENOMEM;
    if (rc == -EBADMSG) {
        lg_check_say(x, lg_table_name(t), "cannot be opened", subject);
        return 0;
    }
    if (!rc)
        rc = memcmp(purpose, "signkey.", 8) == 0 ? sign_key(x, b, out) : sealed_form(x, t, purpose, key, key_len, b, out);
    x->out->opened += !rc;
    if (rc == -EPROTO || rc == -EINVAL || rc == -EBADMSG) {
        lg_check_say(x, lg_table_name(t), rc == -EBADMSG ? "opens, but the keyring's key did not sign it" : "opens, but is malformed", subject);
        rc = 0;
    }
    return rc;
}

int lg_check_row(struct lg_checking *x, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    const char *purpose;
    if (key_len > 64)
        return say(x, t, "there is a record whose key is longer than any of ours");
    switch (t) {
    case LG_T_META: return on_meta(x, key, key_len, value, len);
    case LG_T_BUCKETS: return on_bucket(x, key, key_len, value, len);
    case LG_T_KEYS: return on_key(x, key, key_len, value, len);
    case LG_T_LOOKUP: return on_lookup(x, key, key_len, value, len);
    case LG_T_ATTACHED: return on_attached(x, key, key_len);
    case LG_T_VAULTS: return on_vault(x, key, key_len, value, len);
    case LG_T_SESSIONS: return on_session(x, key_len, value, len);
    case LG_T_PENDING: return on_pending(x, key, key_len, len);
    case LG_T_OFFICERS:
        return key_len == LG_SIGN_PUB_LEN ? on_sealed(x, t, "officer.", key, key_len, value, len) : say(x, t, "there is a malformed record");
    case LG_T_ACTS:
        x->out->acts++;
        return key_len == LG_ID_LEN ? on_sealed(x, t, "act.....", key, key_len, value, len) : say(x, t, "there is a malformed record");
    case LG_T_TOMBSTONES: /* the key that signed them comes later */
        x->out->tombstones++;
        return key_len == LG_MAC_LEN + LG_ID_LEN || key_len == LG_MAC_LEN + LG_ID_LEN + 4 ? late(x, t, key, key_len, value, len) : say(x, t, "there is a malformed record");
    case LG_T_STATE:
        purpose = state_purpose(key, key_len);
        x->out->unknown += !purpose;
        return purpose ? on_sealed(x, t, purpose, key, key_len, value, len) : 0;
    case LG_TABLES: break;
    }
    return 0;
}

/* ---- when everything was seen ------------------------------------------------------------------------------------------------------------------ */

static int audit_key(struct lg_checking *x, const uint8_t *value)
{
    uint8_t ad[8 + LG_ID_LEN], pub[LG_SIGN_PUB_LEN];
    LG_SECRET_AUTO seed = lg_secret_new();
    if (!x->open)
        return 0;
    memcpy(ad, "auditkey", 8);
    memcpy(ad + 8, x->k.meta.keyring_id, LG_ID_LEN);
    int rc = seed ? lg_key_unwrap(x->k.record, ad, sizeof ad, value, seed) : -ENOMEM;
    if (!rc)
        rc = lg_sign_public(seed, pub);
    if (!rc && memcmp(pub, x->pub, sizeof pub) != 0)
        rc = -EBADMSG;
    x->out->opened += !rc;
    return rc == -EBADMSG ? say(x, LG_T_META, "the key that signs access logs cannot be opened, or is another one than it says") : rc;
}

static int on_late(struct lg_checking *x, const struct late *l)
{
    char subject[96], hex[2 * LG_ID_LEN + 1];
    if (l->t == LG_T_TOMBSTONES)
        return on_sealed(x, l->t, "tombston", l->key, l->key_len, l->value, l->len);
    if (l->t == LG_T_KEYS)
        return find(x, l->value) ? 0 : say_key(x, LG_T_KEYS, l->value, "a provisional key is attached to it, and its record is lost");
    if (begins(l->key, l->key_len, "auditkey", 8))
        return audit_key(x, l->value);
    lg_hex_encode(l->key + 4, LG_ID_LEN, hex);
    snprintf(subject, sizeof subject, "head of access log %s", hex);
    if (l->len > LG_HEAD_TEXT_MAX || (x->c->head && x->c->head((const char *)l->value, l->len, x->have_pub ? x->pub : NULL)))
        lg_check_say(x, "meta", x->have_pub ? "is not one that the keyring signed" : "cannot be checked: the key that signed it is lost", subject);
    return 0;
}

int lg_check_rest(struct lg_checking *x)
{
    int rc = 0;
    for (unsigned b = 0; b < LG_BUCKETS; b++)
        if (x->bucket[b] != BUCKET_THERE) {
            struct lg_check_damage d = { .part = "buckets", .what = x->bucket[b] ? "its key is damaged" : "its key is lost", .bucket = (int)b };
            x->out->damages++;
            x->c->damage(x->c->arg, &d);
        }
    for (size_t i = 0; !rc && i < x->n_late; i++)
        rc = on_late(x, &x->late[i]);
    for (size_t i = 0; !rc && i < x->n; i++)
        if (!x->known[i].named && x->known[i].alive && x->known[i].kind == LG_KIND_STUDY)
            say_key(x, LG_T_LOOKUP, x->known[i].kid, "is there, but no study leads to it: its entry is lost");
    const struct lg_meta *m = &x->k.meta;
    uint64_t all = 0;
    for (unsigned s = 0; s <= LG_KEY_RESTORED; s++)
        all += x->states[s];
    if (!rc && x->open && !x->out->damages && (all != m->studies + m->destroyed || x->states[LG_KEY_DESTROYED] != m->destroyed || x->out->vaults != m->vaults))
        say(x, LG_T_META, "the numbers of studies and vaults are not those that were noted");
    return rc;
}
