/* A keyring backup: every row of every table, with the wraps of study keys taken off, sealed under a key of its own. Bucket keys and roots are not in
 * it; record key and lookup key are, so that states, reasons and tombstones come back. restore.c makes a keyring of one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup.h"

#define ROW_PREFIX "backup/"

/* ---- frames ----------------------------------------------------------------------------------------------------------------------------------- */

int lg_frames_init(struct frames *f, const struct lg_secret *key, const uint8_t id[LG_ID_LEN])
{
    LG_SECRET_AUTO sub = lg_secret_new();
    int rc = sub ? lg_derive(key, "leadglass backup frames", NULL, 0, sub) : -ENOMEM;
    memcpy(f->id, id, LG_ID_LEN);
    f->n = 0;
    return rc ? rc : lg_siv_new(sub, &f->siv);
}

struct frame_ad lg_frame_ad(struct frames *f)
{
    struct frame_ad ad;
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, "bkupfrm.", 8);
    lg_wr_bytes(&w, f->id, LG_ID_LEN);
    lg_wr_u64(&w, f->n++);
    return ad;
}

/* ---- making ----------------------------------------------------------------------------------------------------------------------------------- */

struct lg_backup {
    struct lg_keyring *k;
    struct lg_snapshot *snap;
    struct frames f;
    uint8_t *buckets; /* LG_BUCKETS of what lg_bucket_siv_key gives, in secret memory: a root change meanwhile does not matter */
    uint8_t *plain;   /* FRAME_BODY bytes of secret memory */
    struct lg_meta meta;
    uint64_t created, rows, versions, others;
    bool begun, walked;
    enum lg_table table;
    uint8_t after[64];
    size_t after_len;
};

static int sign_key_made(struct lg_keyring *k)
{
    uint8_t pub[LG_SIGN_PUB_LEN];
    int rc = lg_keyring_sign_pub(k, pub);
    if (rc != -ENOENT)
        return rc;
    rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_keyring_sign_pub(k, pub);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc;
}

int lg_backup_begin(struct lg_keyring *k, const struct lg_secret *key, struct lg_backup **ret)
{
    struct lg_backup *b = calloc(1, sizeof *b);
    const uint8_t *bucket;
    uint8_t id[LG_ID_LEN];
    int rc = !b ? -ENOMEM : lg_keyring_need(k, false);
    if (!rc && lg_keyring_in_txn(k))
        rc = -EBUSY;
    if (!rc) /* a restore checks with it what says that it is a later tombstone */
        rc = sign_key_made(k);
    if (!rc && (!(b->buckets = lg_secret_alloc((size_t)LG_BUCKETS * LG_SIV_KEY_LEN)) || !(b->plain = lg_secret_alloc(FRAME_BODY))))
        rc = -ENOMEM;
    if (!rc)
        rc = lg_random(id, sizeof id);
    if (!rc)
        rc = lg_frames_init(&b->f, key, id);
    for (unsigned i = 0; !rc && i < LG_BUCKETS; i++) {
        rc = lg_bucket_siv_key(k, i, &bucket);
        if (!rc)
            memcpy(b->buckets + (size_t)i * LG_SIV_KEY_LEN, bucket, LG_SIV_KEY_LEN);
    }
    if (!rc)
        rc = lg_store_snapshot(k->store, &b->snap);
    if (rc) {
        lg_backup_free(b);
        return rc;
    }
    b->k = k;
    b->meta = k->meta;
    b->versions = lg_versions_added(k);
    b->others = lg_others_made(k);
    b->created = (uint64_t)time(NULL);
    *ret = b;
    return 0;
}

const uint8_t *lg_backup_id(const struct lg_backup *b) { return b->f.id; }

void lg_backup_free(struct lg_backup *b)
{
    if (!b)
        return;
    lg_snapshot_free(b->snap);
    lg_siv_free(b->f.siv);
    lg_secret_dealloc(b->buckets);
    lg_secret_dealloc(b->plain);
    free(b);
}

bool lg_backup_exported(enum lg_table t, const uint8_t *key, size_t len)
{
    return t != LG_T_BUCKETS && !(t == LG_T_META && (lg_meta_own(key, len) || (len > strlen(ROW_PREFIX) && memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) == 0)));
}

/* A key record with the keys themselves in place of their wraps. */
static int row_unwrap(struct lg_backup *b, const uint8_t *kid, const uint8_t *p, size_t len, struct lg_wr *w)
{
    struct lg_siv *bucket = NULL;
    LG_SECRET_AUTO key = lg_secret_new();
    struct lg_record *r = malloc(sizeof *r);
    struct lg_rd rd = lg_rd(p, len);
    int rc = key && r ? lg_siv_from(b->buckets + (size_t)lg_bucket_of(kid) * LG_SIV_KEY_LEN, &bucket) : -ENOMEM;
    if (!rc) {
        memcpy(r->kid, kid, LG_ID_LEN);
        r->kind = (enum lg_key_kind)lg_rd_u8(&rd);
        r->n = lg_rd_u32(&rd);
        rc = r->n <= LG_KEY_VERSIONS_MAX ? 0 : -EPROTO;
    }
    if (!rc) {
        lg_wr_u8(w, (uint8_t)r->kind);
        lg_wr_u32(w, r->n);
    }
    for (uint32_t i = 0; !rc && i < r->n; i++) {
        r->version[i] = lg_rd_u32(&rd);
        lg_rd_copy(&rd, r->wrapped[i], LG_WRAPPED_LEN);
        rc = lg_rd_ok(&rd) ? lg_version_unwrap(b->k, bucket, r, i, key) : -EPROTO;
        lg_wr_u32(w, r->version[i]);
        lg_wr_bytes(w, key->b, LG_KEY_LEN);
    }
    if (!rc)
        lg_wr_bytes(w, rd.p, rd.left);
    lg_siv_free(bucket);
    free(r);
    return rc;
}

static int row_write(struct lg_backup *b, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *p, size_t len, struct lg_wr *w)
{
    LG_SECRET_BUF_AUTO uint8_t *value = lg_secret_alloc(VALUE_MAX);
    struct lg_wr v = lg_wr(value, VALUE_MAX);
    int rc = value ? 0 : -ENOMEM;
    if (!rc && t == LG_T_KEYS)
        rc = key_len == LG_ID_LEN ? row_unwrap(b, key, p, len, &v) : -EPROTO;
    else if (!rc)
        lg_wr_bytes(&v, p, len);
    if (rc || v.bad)
        return rc ? rc : -EPROTO;
    lg_wr_str(w, lg_table_name(t));
    lg_wr_u16(w, (uint16_t)key_len);
    lg_wr_bytes(w, key, key_len);
    lg_wr_u16(w, (uint16_t)v.len);
    lg_wr_bytes(w, value, v.len);
    return w->bad ? -ENOSPC : 0;
}

/* As many rows as fit. */
static int rows_write(struct lg_backup *b, struct lg_wr *w)
{
    lg_wr_u8(w, FRAME_ROWS);
    while (!b->walked) {
        uint8_t key[64];
        size_t key_len = b->after_len, len;
        const uint8_t *p;
        struct lg_wr before = *w;
        memcpy(key, b->after, sizeof key);
        int rc = lg_snapshot_next(b->snap, b->table, key_len != 0, key, &key_len, &p, &len);
        if (rc == -ENOENT) {
            b->after_len = 0;
            b->walked = ++b->table == LG_TABLES;
            continue;
        }
        if (!rc && lg_backup_exported(b->table, key, key_len)) {
            rc = row_write(b, b->table, key, key_len, p, len, w);
            if (rc == -ENOSPC && before.len > 1) { /* in the next frame */
                *w = before;
                return 0;
            }
            b->rows++;
        }
        if (rc)
            return rc;
        memcpy(b->after, key, sizeof key);
        b->after_len = key_len;
    }
    return 0;
}

static void meta_write(struct lg_backup *b, struct lg_wr *w)
{
    lg_wr_u8(w, FRAME_META);
    lg_wr_bytes(w, b->meta.keyring_id, LG_ID_LEN);
    lg_wr_u64(w, b->created);
    lg_wr_u64(w, b->meta.epoch);
    lg_wr_u64(w, b->meta.studies);
    lg_wr_u64(w, b->meta.destroyed);
    lg_wr_u64(w, b->meta.vaults);
    lg_wr_u64(w, b->meta.next_session);
    lg_wr_bytes(w, b->k->lookup->b, LG_KEY_LEN);
    lg_wr_bytes(w, b->k->record->b, LG_KEY_LEN);
}

int lg_backup_next(struct lg_backup *b, uint8_t *buf, size_t *ret_len, bool *ret_end)
{
    struct lg_wr w = lg_wr(b->plain, FRAME_BODY);
    bool end = b->begun && b->walked;
    int rc = lg_keyring_need(b->k, false); /* locked meanwhile: record and lookup key are gone */
    if (!rc && !b->begun) {
        meta_write(b, &w);
    } else if (!rc && !end) {
        rc = rows_write(b, &w);
    } else if (!rc) {
        lg_wr_u8(&w, FRAME_END);
        lg_wr_u64(&w, b->rows);
    }
    if (rc || w.bad)
        return rc ? rc : -EPROTO;
    struct frame_ad ad = lg_frame_ad(&b->f);
    rc = lg_siv_seal_with(b->f.siv, ad.b, sizeof ad.b, b->plain, w.len, buf);
    if (rc)
        return rc;
    b->begun = true;
    *ret_len = w.len + LG_SIV_TAG_LEN;
    *ret_end = end;
    return 0;
}

/* ---- the inventory ------------------------------------------------------------------------------------------------------------------------------ */

static size_t entry_key(const uint8_t id[LG_ID_LEN], uint64_t created, uint8_t out[64])
{
    struct lg_wr w = lg_wr(out, 64);
    lg_wr_bytes(&w, ROW_PREFIX, strlen(ROW_PREFIX));
    for (unsigned i = 0; i < 8; i++) /* big-endian: in order of time */
        lg_wr_u8(&w, (uint8_t)(created >> (56 - 8 * i)));
    lg_wr_bytes(&w, id, LG_ID_LEN);
    return w.len;
}

static int entry_put(struct lg_keyring *k, const struct lg_backup_entry *e)
{
    uint8_t key[64], value[8 + 8 + 8 + 2 + LG_BACKUP_NAME_MAX + 8 + 8];
    size_t key_len = entry_key(e->id, e->created, key);
    struct lg_wr w = lg_wr(value, sizeof value);
    lg_wr_u64(&w, e->created);
    lg_wr_u64(&w, e->voided);
    lg_wr_u64(&w, e->keys);
    lg_wr_str(&w, e->name);
    lg_wr_u64(&w, e->versions);
    lg_wr_u64(&w, e->others);
    return w.bad ? -EINVAL : lg_store_put(k->store, LG_T_META, key, key_len, value, w.len);
}

int lg_backup_note(struct lg_keyring *k, const struct lg_backup *b, const char *name)
{
    struct lg_backup_entry e = { .created = b->created, .keys = b->meta.studies + b->meta.destroyed, .versions = b->versions, .others = b->others };
    memcpy(e.id, b->f.id, LG_ID_LEN);
    snprintf(e.name, sizeof e.name, "%s", name);
    int rc = lg_keyring_need(k, true);
    return rc ? rc : entry_put(k, &e);
}

/* Calls each for every entry, oldest first; those of one second in the order of their ids. */
static int entries(struct lg_keyring *k, int (*each)(void *arg, const struct lg_backup_entry *e), void *arg)
{
    uint8_t key[64] = ROW_PREFIX;
    size_t len = strlen(ROW_PREFIX), vlen;
    const uint8_t *p;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_META, true, key, &len, &p, &vlen))) {
        struct lg_backup_entry e = { 0 };
        struct lg_rd r = lg_rd(p, vlen);
        if (len != strlen(ROW_PREFIX) + 8 + LG_ID_LEN || memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) != 0)
            return len > strlen(ROW_PREFIX) && memcmp(key, ROW_PREFIX, strlen(ROW_PREFIX)) == 0 ? -EPROTO : 0;
        memcpy(e.id, key + strlen(ROW_PREFIX) + 8, LG_ID_LEN);
        e.created = lg_rd_u64(&r);
        e.voided = lg_rd_u64(&r);
        e.keys = lg_rd_u64(&r);
        lg_rd_str(&r, e.name, LG_BACKUP_NAME_MAX);
        if (lg_rd_ok(&r) && r.left) /* entries from before have none */
            e.versions = lg_rd_u64(&r);
        if (lg_rd_ok(&r) && r.left)
            e.others = lg_rd_u64(&r);
        if (!lg_rd_done(&r))
            return -EPROTO;
        rc = each(arg, &e);
        if (rc)
            return rc;
    }
    return rc == -ENOENT ? 0 : rc;
}

struct listing {
    struct lg_backup_entry *out;
    unsigned max, n;
};
static int list_one(void *arg, const struct lg_backup_entry *e)
{
    struct listing *l = arg;
    if (l->n == l->max) { /* the newest matter */
        memmove(l->out, l->out + 1, (l->max - 1) * sizeof *l->out);
        l->n--;
    }
    unsigned at = l->n++;
    for (; at && l->out[at - 1].created == e->created && l->out[at - 1].keys > e->keys; at--) /* made in one second: the keyring only grew */
        l->out[at] = l->out[at - 1];
    l->out[at] = *e;
    return 0;
}

int lg_backup_list(struct lg_keyring *k, struct lg_backup_entry *ret, unsigned max, unsigned *ret_n)
{
    struct listing l = { ret, max, 0 };
    int rc = max ? entries(k, list_one, &l) : -EINVAL;
    if (!rc)
        *ret_n = l.n;
    return rc;
}

struct finding {
    const uint8_t *id;
    struct lg_backup_entry e;
};
static int find_one(void *arg, const struct lg_backup_entry *e)
{
    struct finding *f = arg;
    if (memcmp(e->id, f->id, LG_ID_LEN) != 0)
        return 0;
    f->e = *e;
    return -EEXIST;
}

int lg_backup_void(struct lg_keyring *k, const uint8_t id[LG_ID_LEN])
{
    struct finding f = { .id = id };
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = entries(k, find_one, &f);
    if (rc != -EEXIST)
        return rc ? rc : -ENOENT;
    if (f.e.voided)
        return -EALREADY;
    f.e.voided = (uint64_t)time(NULL);
    return entry_put(k, &f.e);
}

static int newest_one(void *arg, const struct lg_backup_entry *e)
{
    struct lg_backup_entry *newest = arg;
    if (!e->voided && (e->created > newest->created || e->keys > newest->keys || (e->keys == newest->keys && e->versions >= newest->versions)))
        *newest = *e;
    return 0;
}

void lg_backup_age(struct lg_keyring *k, uint64_t *ret_last, uint64_t *ret_uncovered, uint64_t *ret_others)
{
    struct lg_backup_entry e = { 0 };
    uint64_t all = k->meta.studies + k->meta.destroyed, versions = lg_versions_added(k);
    if (entries(k, newest_one, &e))
        e = (struct lg_backup_entry){ 0 };
    *ret_last = e.created;
    *ret_uncovered = all > e.keys ? all - e.keys : 0;
    if (e.created && versions > e.versions) /* what is written under a newer version of a study's key does not open with the backup either */
        *ret_uncovered += versions - e.versions;
    uint64_t others = lg_others_made(k);
    if (!e.created && others < 2 * k->meta.vaults) /* of before they were counted */
        others = 2 * k->meta.vaults;
    *ret_others = others > e.others ? others - e.others : 0;
}

/* ---- the header ----------------------------------------------------------------------------------------------------------------------------------- */

static const char magic[8] = "LGKBACK";

static int header_kek(const struct lg_backup_header *h, const void *pass, size_t len, struct lg_secret *ret)
{
    struct lg_scrypt s = { .log2_n = h->scrypt.log2_n, .r = h->scrypt.r, .p = h->scrypt.p };
    memcpy(s.salt, h->scrypt.salt, sizeof s.salt);
    return lg_scrypt_derive(&s, pass, len, ret);
}

static struct frame_ad header_ad(const uint8_t id[LG_ID_LEN])
{
    struct frame_ad ad = { { 0 } };
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, "bkupkey.", 8);
    lg_wr_bytes(&w, id, LG_ID_LEN);
    return ad;
}

static int header_write(const struct lg_backup_header *h, uint8_t out[LG_BACKUP_HEADER_LEN])
{
    struct lg_wr w = lg_wr(out, LG_BACKUP_HEADER_LEN);
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_u32(&w, h->k ? 2 : 1);
    lg_wr_bytes(&w, h->id, LG_ID_LEN);
    lg_wr_u64(&w, h->created);
    if (h->k) {
        static const uint8_t none[1 + sizeof h->scrypt.salt - LG_SHARE_SET_LEN];
        lg_wr_u8(&w, h->k);
        lg_wr_u8(&w, h->n);
        lg_wr_bytes(&w, none, 1);
        lg_wr_bytes(&w, h->set, LG_SHARE_SET_LEN);
        lg_wr_bytes(&w, none, sizeof none - 1);
    } else {
        lg_wr_u8(&w, h->scrypt.log2_n);
        lg_wr_u8(&w, h->scrypt.r);
        lg_wr_u8(&w, h->scrypt.p);
        lg_wr_bytes(&w, h->scrypt.salt, sizeof h->scrypt.salt);
    }
    lg_wr_bytes(&w, h->wrapped, sizeof h->wrapped);
    return lg_sha256(out, w.len, out + w.len);
}

int lg_backup_header_make_shares(const uint8_t id[LG_ID_LEN], const struct lg_secret *key, unsigned k, unsigned n, uint8_t out[LG_BACKUP_HEADER_LEN], struct lg_share *ret)
{
    LG_SECRET_AUTO kek = lg_secret_random();
    struct lg_backup_header h = { .created = (uint64_t)time(NULL), .k = (uint8_t)k, .n = (uint8_t)n };
    struct frame_ad ad = header_ad(id);
    int rc = kek ? lg_shares_split(kek, k, n, ret) : -ENOMEM;
    if (!rc)
        rc = lg_key_wrap(kek, ad.b, sizeof ad.b, key, h.wrapped);
    if (rc)
        return rc;
    memcpy(h.id, id, LG_ID_LEN);
    memcpy(h.set, ret[0].set, LG_SHARE_SET_LEN);
    return header_write(&h, out);
}

int lg_backup_header_make(const uint8_t id[LG_ID_LEN], const struct lg_secret *key, const void *pass, size_t len, unsigned scrypt_ms, uint8_t out[LG_BACKUP_HEADER_LEN])
{
    LG_SECRET_AUTO kek = lg_secret_new();
    struct lg_scrypt s;
    struct lg_backup_header h = { .created = (uint64_t)time(NULL) };
    struct frame_ad ad = header_ad(id);
    int rc = kek ? lg_scrypt_calibrate(scrypt_ms, &s) : -ENOMEM;
    if (rc)
        return rc;
    h.scrypt = (struct lg_scrypt_params){ .log2_n = s.log2_n, .r = s.r, .p = s.p };
    memcpy(h.scrypt.salt, s.salt, sizeof s.salt);
    rc = header_kek(&h, pass, len, kek);
    if (!rc)
        rc = lg_key_wrap(kek, ad.b, sizeof ad.b, key, h.wrapped);
    if (rc)
        return rc;
    memcpy(h.id, id, LG_ID_LEN);
    return header_write(&h, out);
}

int lg_backup_header_read(const uint8_t in[LG_BACKUP_HEADER_LEN], struct lg_backup_header *ret)
{
    struct lg_rd r = lg_rd(in, LG_BACKUP_HEADER_LEN);
    struct lg_backup_header h = { 0 };
    uint8_t sum[LG_MAC_LEN], any = 0;
    const uint8_t *m = lg_rd_bytes(&r, sizeof magic);
    uint32_t version = lg_rd_u32(&r);
    if (!m || memcmp(m, magic, sizeof magic) != 0 || !version)
        return -EPROTO;
    if (version > 2)
        return -EPROTONOSUPPORT;
    lg_rd_copy(&r, h.id, LG_ID_LEN);
    h.created = lg_rd_u64(&r);
    h.scrypt.log2_n = lg_rd_u8(&r);
    h.scrypt.r = lg_rd_u8(&r);
    h.scrypt.p = lg_rd_u8(&r);
    lg_rd_copy(&r, h.scrypt.salt, sizeof h.scrypt.salt);
    lg_rd_copy(&r, h.wrapped, sizeof h.wrapped);
    const uint8_t *have = lg_rd_bytes(&r, LG_MAC_LEN);
    struct lg_scrypt s = { .log2_n = h.scrypt.log2_n, .r = h.scrypt.r, .p = h.scrypt.p };
    if (!have || !lg_rd_done(&r) || lg_sha256(in, LG_BACKUP_HEADER_LEN - LG_MAC_LEN, sum) || memcmp(sum, have, sizeof sum) != 0 || (version == 1 && !lg_scrypt_ok(&s)))
        return -EPROTO;
    if (version == 2) { /* shares: no passphrase, no costs */
        h.k = s.log2_n;
        h.n = s.r;
        memcpy(h.set, h.scrypt.salt, LG_SHARE_SET_LEN);
        for (unsigned i = LG_SHARE_SET_LEN; i < sizeof h.scrypt.salt; i++)
            any |= h.scrypt.salt[i];
        if (any || s.p || h.k < 2 || h.k > h.n || h.n > LG_SHARES_MAX)
            return -EPROTO;
    }
    *ret = h;
    return 0;
}

int lg_backup_header_open(const struct lg_backup_header *h, const void *pass, size_t len, struct lg_secret *ret_key)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    struct frame_ad ad = header_ad(h->id);
    int rc = h->k ? -EINVAL : kek ? header_kek(h, pass, len, kek) : -ENOMEM;
    if (!rc)
        rc = lg_key_unwrap(kek, ad.b, sizeof ad.b, h->wrapped, ret_key);
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}

int lg_backup_header_join(const struct lg_backup_header *h, const struct lg_share *s, unsigned n, struct lg_secret *ret_key)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    struct frame_ad ad = header_ad(h->id);
    if (!h->k || !kek)
        return kek ? -EINVAL : -ENOMEM;
    for (unsigned i = 0; i < n; i++)
        if (memcmp(s[i].set, h->set, LG_SHARE_SET_LEN) != 0)
            return -EXDEV;
    int rc = lg_shares_join(s, n, kek);
    if (!rc)
        rc = lg_key_unwrap(kek, ad.b, sizeof ad.b, h->wrapped, ret_key);
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}
