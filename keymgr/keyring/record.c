#include "record.h"

#define META_NAME "keyring"
#define META_MAGIC "LGKEYRNG"
enum { CONTROL_LEN = 2 * LG_ID_LEN + 3 * 8 + 3 + 8 }; /* of struct lg_control as stored */
enum { META_LEN = 8 + 4 + LG_ID_LEN + 6 * 8 + 2 * LG_WRAPPED_LEN };

/* ---- what a wrap is bound to ------------------------------------------------------------------------------------------------------------ */

struct ad {
    uint8_t b[LG_AD_LEN];
};
static struct ad ad_of(const struct lg_keyring *k, const char purpose[8], const uint8_t *id, uint64_t n, uint32_t m)
{
    static const uint8_t none[LG_ID_LEN];
    struct ad ad;
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, purpose, 8);
    lg_wr_bytes(&w, k->meta.keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, id ? id : none, LG_ID_LEN);
    lg_wr_u64(&w, n);
    lg_wr_u32(&w, m);
    return ad;
}

/* ---- meta ---------------------------------------------------------------------------------------------------------------------------------- */

bool lg_meta_own(const void *key, size_t len)
{
    return (len == sizeof META_NAME - 1 && memcmp(key, META_NAME, len) == 0) || (len == 7 && memcmp(key, "commits", 7) == 0);
}

int lg_meta_numbers(struct lg_keyring *k, const char *name, uint64_t *ret, int max)
{
    const uint8_t *p;
    size_t len;
    int n = 0;
    if (lg_store_get(k->store, LG_T_META, name, strlen(name), &p, &len))
        return 0;
    struct lg_rd r = lg_rd(p, len);
    if (!len || len % 8 || len / 8 > (size_t)max)
        return -EPROTO;
    while (r.left)
        ret[n++] = lg_rd_u64(&r);
    return n;
}

int lg_meta_numbers_put(struct lg_keyring *k, const char *name, const uint64_t *n, int count)
{
    uint8_t b[64];
    struct lg_wr w = lg_wr(b, sizeof b);
    while (count--)
        lg_wr_u64(&w, *n++);
    return w.bad ? -EINVAL : lg_store_put(k->store, LG_T_META, name, strlen(name), b, w.len);
}

bool lg_meta_is(const void *key, size_t len) { return len == sizeof META_NAME - 1 && memcmp(key, META_NAME, len) == 0; }

int lg_meta_parse(const uint8_t *p, size_t len, struct lg_meta *ret)
{
    struct lg_rd r = lg_rd(p, len);
    struct lg_meta m;
    const uint8_t *magic = lg_rd_bytes(&r, 8);
    m.version = lg_rd_u32(&r);
    if (!magic || memcmp(magic, META_MAGIC, 8) != 0 || !m.version)
        return -EPROTO;
    if (m.version > LG_KEYRING_VERSION)
        return -EPROTONOSUPPORT;
    lg_rd_copy(&r, m.keyring_id, LG_ID_LEN);
    m.epoch = lg_rd_u64(&r);
    m.generation = lg_rd_u64(&r);
    m.studies = lg_rd_u64(&r);
    m.destroyed = lg_rd_u64(&r);
    m.vaults = lg_rd_u64(&r);
    m.next_session = lg_rd_u64(&r);
    lg_rd_copy(&r, m.lookup, LG_WRAPPED_LEN);
    lg_rd_copy(&r, m.record, LG_WRAPPED_LEN);
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = m;
    return 0;
}

int lg_meta_read(struct lg_keyring *k)
{
    const uint8_t *p;
    size_t len;
    struct lg_meta m;
    int rc = lg_store_get(k->store, LG_T_META, META_NAME, sizeof META_NAME - 1, &p, &len);
    if (!rc)
        rc = lg_meta_parse(p, len, &m);
    if (rc)
        return rc == -ENOENT ? -EPROTO : rc;
    k->meta = k->saved = m;
    k->meta_dirty = false;
    return 0;
}

int lg_meta_write(struct lg_keyring *k)
{
    uint8_t b[META_LEN];
    const struct lg_meta *m = &k->meta;
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_bytes(&w, META_MAGIC, 8);
    lg_wr_u32(&w, m->version);
    lg_wr_bytes(&w, m->keyring_id, LG_ID_LEN);
    lg_wr_u64(&w, m->epoch);
    lg_wr_u64(&w, m->generation);
    lg_wr_u64(&w, m->studies);
    lg_wr_u64(&w, m->destroyed);
    lg_wr_u64(&w, m->vaults);
    lg_wr_u64(&w, m->next_session);
    lg_wr_bytes(&w, m->lookup, LG_WRAPPED_LEN);
    lg_wr_bytes(&w, m->record, LG_WRAPPED_LEN);
    return lg_store_put(k->store, LG_T_META, META_NAME, sizeof META_NAME - 1, b, w.len);
}

int lg_meta_wrap(struct lg_keyring *k, const struct lg_root *root)
{
    struct ad a = ad_of(k, "lookup..", NULL, root->epoch, 0), b = ad_of(k, "record..", NULL, root->epoch, 0);
    int rc = lg_key_wrap(root->key, a.b, sizeof a.b, k->lookup, k->meta.lookup);
    return rc ? rc : lg_key_wrap(root->key, b.b, sizeof b.b, k->record, k->meta.record);
}

int lg_meta_unwrap(struct lg_keyring *k, const struct lg_root *root, struct lg_secret *lookup, struct lg_secret *record)
{
    struct ad a = ad_of(k, "lookup..", NULL, root->epoch, 0), b = ad_of(k, "record..", NULL, root->epoch, 0);
    int rc = lg_key_unwrap(root->key, a.b, sizeof a.b, k->meta.lookup, lookup);
    return rc ? rc : lg_key_unwrap(root->key, b.b, sizeof b.b, k->meta.record, record);
}

/* ---- buckets ---------------------------------------------------------------------------------------------------------------------------------- */

static void bucket_key_of(unsigned bucket, uint8_t out[2])
{
    out[0] = (uint8_t)(bucket >> 8);
    out[1] = (uint8_t)bucket;
}

int lg_bucket_wrap(struct lg_keyring *k, unsigned bucket, const struct lg_rooted *root, const struct lg_secret *key)
{
    uint8_t n[2], wrapped[LG_WRAPPED_LEN];
    struct ad a = ad_of(k, "bucket..", NULL, root->epoch, bucket);
    bucket_key_of(bucket, n);
    int rc = lg_key_wrap_with(root->siv, a.b, sizeof a.b, key, wrapped);
    return rc ? rc : lg_store_put(k->store, LG_T_BUCKETS, n, 2, wrapped, sizeof wrapped);
}

int lg_bucket_key(struct lg_keyring *k, unsigned bucket, struct lg_secret *ret)
{
    uint8_t n[2];
    const uint8_t *p;
    size_t len;
    bucket_key_of(bucket, n);
    int rc = lg_store_get(k->store, LG_T_BUCKETS, n, 2, &p, &len);
    if (rc || len != LG_WRAPPED_LEN)
        return rc && rc != -ENOENT ? rc : -EPROTO;
    return lg_bucket_open(k, bucket, &k->rooted, p, ret);
}

int lg_bucket_open(const struct lg_keyring *k, unsigned bucket, const struct lg_rooted *root, const uint8_t wrapped[LG_WRAPPED_LEN], struct lg_secret *ret)
{
    struct ad a = ad_of(k, "bucket..", NULL, root->epoch, bucket);
    return lg_key_unwrap_with(root->siv, a.b, sizeof a.b, wrapped, ret);
}

static void buckets_ad(const struct lg_keyring *k, unsigned first, unsigned n, const struct lg_rooted *root, uint8_t *out)
{
    for (unsigned i = 0; i < n; i++) {
        struct ad a = ad_of(k, "bucket..", NULL, root->epoch, first + i);
        memcpy(out + i * LG_AD_LEN, a.b, LG_AD_LEN);
    }
}

int lg_buckets_wrap(const struct lg_keyring *k, unsigned first, unsigned n, const struct lg_rooted *root, const struct lg_secret *keys, uint8_t *wrapped)
{
    uint8_t ad[LG_KEYS_AT_ONCE * LG_AD_LEN];
    if (n > LG_KEYS_AT_ONCE)
        return -EINVAL;
    buckets_ad(k, first, n, root, ad);
    return lg_keys_wrap(root->siv, ad, LG_AD_LEN, keys, n, wrapped);
}

int lg_buckets_open(const struct lg_keyring *k, unsigned first, unsigned n, const struct lg_rooted *root, const uint8_t *wrapped, struct lg_secret *ret)
{
    uint8_t ad[LG_KEYS_AT_ONCE * LG_AD_LEN];
    if (n > LG_KEYS_AT_ONCE)
        return -EINVAL;
    buckets_ad(k, first, n, root, ad);
    return lg_keys_unwrap(root->siv, ad, LG_AD_LEN, wrapped, n, ret);
}

int lg_bucket_siv_key(struct lg_keyring *k, unsigned bucket, const uint8_t **ret)
{
    uint8_t *cached = k->bucket + (size_t)bucket * LG_SIV_KEY_LEN;
    if (!k->have_bucket[bucket]) {
        LG_SECRET_AUTO key = lg_secret_new();
        int rc = key ? lg_bucket_key(k, bucket, key) : -ENOMEM;
        if (!rc)
            rc = lg_siv_key(key, cached);
        if (rc)
            return rc;
        k->have_bucket[bucket] = true;
    }
    *ret = cached;
    return 0;
}

int lg_bucket_siv(struct lg_keyring *k, unsigned bucket, struct lg_siv **ret)
{
    const uint8_t *key;
    int rc = lg_bucket_siv_key(k, bucket, &key);
    return rc ? rc : lg_siv_from(key, ret);
}

/* ---- records ------------------------------------------------------------------------------------------------------------------------------------ */

static struct ad version_ad(const struct lg_keyring *k, const struct lg_record *r, uint32_t i) { return ad_of(k, "key.....", r->kid, r->version[i], (uint32_t)r->kind); }

int lg_version_wrap(const struct lg_keyring *k, struct lg_siv *bucket, struct lg_record *r, uint32_t i, const struct lg_secret *key)
{
    struct ad a = version_ad(k, r, i);
    return lg_key_wrap_with(bucket, a.b, sizeof a.b, key, r->wrapped[i]);
}

int lg_version_unwrap(const struct lg_keyring *k, struct lg_siv *bucket, const struct lg_record *r, uint32_t i, struct lg_secret *ret)
{
    struct ad a = version_ad(k, r, i);
    return lg_key_unwrap_with(bucket, a.b, sizeof a.b, r->wrapped[i], ret);
}

void lg_version_ad(const struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], enum lg_key_kind kind, uint32_t version, uint8_t out[LG_AD_LEN])
{
    struct ad a = ad_of(k, "key.....", kid, version, (uint32_t)kind);
    memcpy(out, a.b, sizeof a.b);
}

int lg_wraps_find(const uint8_t *p, size_t len, struct lg_wraps *ret)
{
    struct lg_rd rd = lg_rd(p, len);
    enum lg_key_kind kind = (enum lg_key_kind)lg_rd_u8(&rd);
    uint32_t n = lg_rd_u32(&rd);
    if (kind < LG_KIND_STUDY || kind > LG_KIND_VAULT || n > LG_KEY_VERSIONS_MAX)
        return -EPROTO;
    const uint8_t *first = lg_rd_bytes(&rd, (size_t)n * LG_VERSION_LEN);
    if (!lg_rd_ok(&rd))
        return -EPROTO;
    *ret = (struct lg_wraps){ .kind = kind, .n = n, .off = (size_t)(first - p) };
    return 0;
}

static int ctrl_open(struct lg_keyring *k, struct lg_record *r, const uint8_t *sealed, size_t len)
{
    uint8_t b[CTRL_MAX];
    struct ad a = ad_of(k, "control.", r->kid, (uint64_t)r->kind, 0);
    if (len < LG_SIV_TAG_LEN || len - LG_SIV_TAG_LEN > sizeof b)
        return -EPROTO;
    int rc = lg_siv_open_with(k->ctrl, a.b, sizeof a.b, sealed, len, b);
    if (rc)
        return rc;
    struct lg_rd c = lg_rd(b, len - LG_SIV_TAG_LEN);
    r->state = (enum lg_key_state)lg_rd_u8(&c);
    r->created = lg_rd_u64(&c);
    r->changed = lg_rd_u64(&c);
    r->changed_by = lg_rd_u32(&c);
    lg_rd_copy(&c, r->attached, LG_ID_LEN);
    lg_rd_copy(&c, r->lookup, LG_MAC_LEN);
    lg_rd_str(&c, r->reason, LG_REASON_MAX);
    if (!lg_rd_ok(&c))
        return -EPROTO;
    uint8_t more[CONTROL_LEN] = { 0 }; /* what an older record does not have is zeros, whether it was padded with some or not */
    size_t n = c.left < sizeof more ? c.left : sizeof more;
    lg_rd_copy(&c, more, n);
    struct lg_rd m = lg_rd(more, sizeof more);
    lg_rd_copy(&m, r->c.act, LG_ID_LEN);
    lg_rd_copy(&m, r->c.hold, LG_ID_LEN);
    r->c.retain_until = lg_rd_u64(&m);
    r->c.due_wall = lg_rd_u64(&m);
    r->c.due_run = lg_rd_u64(&m);
    r->c.before = lg_rd_u8(&m);
    r->c.rule = lg_rd_u8(&m);
    r->c.unconfirmed = lg_rd_u8(&m);
    r->c.rotated = lg_rd_u64(&m);
    return r->state >= LG_KEY_ACTIVE && r->state <= LG_KEY_RESTORED ? 0 : -EPROTO;
}

int lg_record_split(const uint8_t kid[LG_ID_LEN], const uint8_t *p, size_t len, struct lg_record *ret, const uint8_t **ret_ctrl, size_t *ret_ctrl_len)
{
    struct lg_rd rd = lg_rd(p, len);
    struct lg_record *r = ret;
    memset(r, 0, sizeof *r);
    memcpy(r->kid, kid, LG_ID_LEN);
    r->kind = (enum lg_key_kind)lg_rd_u8(&rd);
    r->n = lg_rd_u32(&rd);
    if (r->kind < LG_KIND_STUDY || r->kind > LG_KIND_VAULT || r->n > LG_KEY_VERSIONS_MAX)
        return -EPROTO;
    for (uint32_t i = 0; i < r->n; i++) {
        r->version[i] = lg_rd_u32(&rd);
        lg_rd_copy(&rd, r->wrapped[i], LG_WRAPPED_LEN);
    }
    size_t ctrl_len = lg_rd_u16(&rd);
    const uint8_t *ctrl = lg_rd_bytes(&rd, ctrl_len);
    size_t info_len = lg_rd_u16(&rd);
    const uint8_t *info = lg_rd_bytes(&rd, info_len);
    if (!lg_rd_done(&rd) || (info_len && info_len != sizeof r->info))
        return -EPROTO;
    r->has_info = info_len != 0;
    if (info_len)
        memcpy(r->info, info, info_len);
    *ret_ctrl = ctrl;
    *ret_ctrl_len = ctrl_len;
    return 0;
}

int lg_record_parse(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const uint8_t *p, size_t len, struct lg_record *ret)
{
    const uint8_t *ctrl;
    size_t ctrl_len;
    int rc = lg_record_split(kid, p, len, ret, &ctrl, &ctrl_len);
    return rc ? rc : ctrl_open(k, ret, ctrl, ctrl_len);
}

int lg_record_get(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], struct lg_record *ret)
{
    const uint8_t *p;
    size_t len;
    int rc = lg_store_get(k->store, LG_T_KEYS, kid, LG_ID_LEN, &p, &len);
    return rc ? rc : lg_record_parse(k, kid, p, len, ret);
}

/* Left out while all of it is zeros: it would make the record of nearly every study longer. */
static void control_put(struct lg_wr *w, const struct lg_control *c)
{
    uint8_t b[CONTROL_LEN], any = 0;
    struct lg_wr m = lg_wr(b, sizeof b);
    lg_wr_bytes(&m, c->act, LG_ID_LEN);
    lg_wr_bytes(&m, c->hold, LG_ID_LEN);
    lg_wr_u64(&m, c->retain_until);
    lg_wr_u64(&m, c->due_wall);
    lg_wr_u64(&m, c->due_run);
    lg_wr_u8(&m, c->before);
    lg_wr_u8(&m, c->rule);
    lg_wr_u8(&m, c->unconfirmed);
    lg_wr_u64(&m, c->rotated);
    for (unsigned i = 0; i < sizeof b; i++)
        any |= b[i];
    if (any || m.bad)
        lg_wr_bytes(w, b, sizeof b);
}

int lg_record_encode(struct lg_keyring *k, const struct lg_record *r, uint8_t out[RECORD_MAX], size_t *ret_len)
{
    uint8_t c[CTRL_MAX] = { 0 }, sealed[CTRL_MAX + LG_SIV_TAG_LEN];
    struct ad a = ad_of(k, "control.", r->kid, (uint64_t)r->kind, 0);
    struct lg_wr w = lg_wr(c, sizeof c);
    lg_wr_u8(&w, (uint8_t)r->state);
    lg_wr_u64(&w, r->created);
    lg_wr_u64(&w, r->changed);
    lg_wr_u32(&w, r->changed_by);
    lg_wr_bytes(&w, r->attached, LG_ID_LEN);
    lg_wr_bytes(&w, r->lookup, LG_MAC_LEN);
    lg_wr_str(&w, r->reason);
    control_put(&w, &r->c);
    if (w.bad)
        return -EINVAL;
    size_t len = (w.len + CTRL_UNIT - 1) / CTRL_UNIT * CTRL_UNIT;
    int rc = lg_siv_seal_with(k->ctrl, a.b, sizeof a.b, c, len, sealed);
    if (rc)
        return rc;
    w = lg_wr(out, RECORD_MAX);
    lg_wr_u8(&w, (uint8_t)r->kind);
    lg_wr_u32(&w, r->n);
    for (uint32_t i = 0; i < r->n; i++) {
        lg_wr_u32(&w, r->version[i]);
        lg_wr_bytes(&w, r->wrapped[i], LG_WRAPPED_LEN);
    }
    lg_wr_u16(&w, (uint16_t)(len + LG_SIV_TAG_LEN));
    lg_wr_bytes(&w, sealed, len + LG_SIV_TAG_LEN);
    lg_wr_u16(&w, r->has_info ? (uint16_t)sizeof r->info : 0);
    if (r->has_info)
        lg_wr_bytes(&w, r->info, sizeof r->info);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_record_put(struct lg_keyring *k, const struct lg_record *r)
{
    uint8_t b[RECORD_MAX];
    size_t len;
    int rc = lg_record_encode(k, r, b, &len);
    return rc ? rc : lg_store_put(k->store, LG_T_KEYS, r->kid, LG_ID_LEN, b, len);
}

int lg_info_seal(const struct lg_keyring *k, struct lg_record *r, const struct lg_secret *key, const struct lg_study_info *info)
{
    LG_SECRET_AUTO sub = lg_secret_new();
    uint8_t b[INFO_LEN] = { 0 };
    struct ad a = ad_of(k, "studyrec", r->kid, 0, 0);
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_str(&w, info->uid);
    lg_wr_str(&w, info->patient_id);
    lg_wr_str(&w, info->accession);
    lg_wr_str(&w, info->date);
    lg_wr_str(&w, info->modality);
    if (w.bad || !sub)
        return w.bad ? -EINVAL : -ENOMEM;
    int rc = lg_derive(key, "leadglass study record", NULL, 0, sub);
    if (!rc)
        rc = lg_siv_seal(sub, a.b, sizeof a.b, b, sizeof b, r->info);
    r->has_info = !rc;
    return rc;
}

int lg_info_open(const struct lg_keyring *k, const struct lg_record *r, const struct lg_secret *key, struct lg_study_info *ret)
{
    LG_SECRET_AUTO sub = lg_secret_new();
    uint8_t b[INFO_LEN];
    struct ad a = ad_of(k, "studyrec", r->kid, 0, 0);
    memset(ret, 0, sizeof *ret);
    if (!r->has_info)
        return 0;
    int rc = sub ? lg_derive(key, "leadglass study record", NULL, 0, sub) : -ENOMEM;
    if (!rc)
        rc = lg_siv_open(sub, a.b, sizeof a.b, r->info, sizeof r->info, b);
    if (rc)
        return rc;
    struct lg_rd rd = lg_rd(b, sizeof b);
    lg_rd_str(&rd, ret->uid, LG_UID_MAX);
    lg_rd_str(&rd, ret->patient_id, LG_PATIENT_ID_MAX);
    lg_rd_str(&rd, ret->accession, LG_ACCESSION_MAX);
    lg_rd_str(&rd, ret->date, LG_DATE_MAX);
    lg_rd_str(&rd, ret->modality, LG_MODALITY_MAX);
    return lg_rd_ok(&rd) ? 0 : -EPROTO;
}
