/* A keyring backup: every row of every table, with the wraps of study keys taken off, sealed under a key of its own. Bucket keys and roots are not in
 * it; record key and lookup key are, so that states, reasons and tombstones come back. restore.c makes a keyring of one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "backup.h"

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
    uint64_t created, rows, versions, others, bytes;
    bool begun, walked;
    enum lg_table table;
    uint8_t after[64];
    size_t after_len;
};

/* What a restore needs to find in it: the key that checks what says that it is a later tombstone, and that the inventory is carried along. */
static int prepared(struct lg_keyring *k)
{
    uint8_t pub[LG_SIGN_PUB_LEN];
    int rc = lg_keyring_sign_pub(k, pub);
    if (rc != -ENOENT && (rc || lg_inventory_marked(k)))
        return rc;
    rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_keyring_sign_pub(k, pub);
    if (!rc)
        rc = lg_inventory_mark(k);
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
    if (!rc)
        rc = prepared(k);
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
    b->bytes = LG_BACKUP_HEADER_LEN;
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

bool lg_backup_exported(enum lg_table t, const uint8_t *key, size_t len) { return t != LG_T_BUCKETS && !(t == LG_T_META && lg_meta_own(key, len)); }

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
    b->bytes += 4 + *ret_len;
    *ret_end = end;
    return 0;
}

int lg_backup_note(struct lg_keyring *k, const struct lg_backup *b, const char *name)
{
    struct lg_backup_entry e = { .created = b->created, .keys = b->meta.studies + b->meta.destroyed, .versions = b->versions, .others = b->others, .epoch = b->meta.epoch, .bytes = b->bytes };
    memcpy(e.id, b->f.id, LG_ID_LEN);
    snprintf(e.name, sizeof e.name, "%s", name);
    int rc = lg_keyring_need(k, true);
    return rc ? rc : lg_backup_entry_put(k, &e);
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
