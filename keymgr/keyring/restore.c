/* A keyring made from a backup: of the same id, in a new incarnation. What happened after the backup is not known to it: studies destroyed since are
 * named to it, and come back in quarantine; what officers signed before is not taken any more; nothing is destroyed until they have looked. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "backup.h"

#define RESTORED_NAME "restored"
#define INCARNATION_NAME "incarnation"
enum { BATCH = 5000 };
enum { INCARNATION = 32 }; /* epochs and sessions of a restored keyring begin this many bits up */

/* ---- a keyring that was restored --------------------------------------------------------------------------------------------------------------- */

bool lg_keyring_restored(struct lg_keyring *k)
{
    const uint8_t *p;
    size_t len;
    return lg_store_get(k->store, LG_T_META, RESTORED_NAME, strlen(RESTORED_NAME), &p, &len) == 0;
}

int lg_keyring_restored_confirm(struct lg_keyring *k)
{
    int rc = lg_keyring_need(k, true);
    if (!rc && !lg_keyring_restored(k))
        rc = -EALREADY;
    if (!rc) /* what was cancelled after the backup can be cancelled once more */
        rc = lg_waiting_restart(k);
    return rc ? rc : lg_store_del(k->store, LG_T_META, RESTORED_NAME, strlen(RESTORED_NAME));
}

uint64_t lg_incarnation(struct lg_keyring *k)
{
    uint64_t at;
    int n = lg_meta_numbers(k, INCARNATION_NAME, &at, 1);
    return n < 0 ? UINT64_MAX : n ? at : 0;
}

static int incarnation_put(struct lg_keyring *k, uint64_t now)
{
    int rc = lg_meta_numbers_put(k, RESTORED_NAME, &now, 1);
    return rc ? rc : lg_meta_numbers_put(k, INCARNATION_NAME, &now, 1);
}

/* ---- reading ------------------------------------------------------------------------------------------------------------------------------------------ */

/* What is done with a backup's parts. */
struct sink {
    int (*meta)(void *arg, const struct lg_meta *m, uint64_t created, const uint8_t lookup[LG_KEY_LEN], const uint8_t record[LG_KEY_LEN]);
    int (*row)(void *arg, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len);
    void *arg;
};

static int meta_read(struct lg_rd *r, const struct sink *s)
{
    struct lg_meta m = { .version = LG_KEYRING_VERSION };
    lg_rd_copy(r, m.keyring_id, LG_ID_LEN);
    uint64_t created = lg_rd_u64(r);
    m.epoch = lg_rd_u64(r);
    m.studies = lg_rd_u64(r);
    m.destroyed = lg_rd_u64(r);
    m.vaults = lg_rd_u64(r);
    m.next_session = lg_rd_u64(r);
    const uint8_t *lookup = lg_rd_bytes(r, LG_KEY_LEN), *record = lg_rd_bytes(r, LG_KEY_LEN);
    return lg_rd_done(r) ? s->meta(s->arg, &m, created, lookup, record) : -EBADMSG;
}

static int rows_read(struct lg_rd *r, const struct sink *s, uint64_t *rows)
{
    int rc = 0;
    while (!rc && lg_rd_ok(r) && r->left) {
        char name[32];
        enum lg_table t;
        lg_rd_str(r, name, sizeof name - 1);
        size_t key_len = lg_rd_u16(r);
        const uint8_t *key = lg_rd_bytes(r, key_len);
        size_t len = lg_rd_u16(r);
        const uint8_t *value = lg_rd_bytes(r, len);
        if (!lg_rd_ok(r) || !key_len || key_len > 64)
            return -EBADMSG;
        rc = lg_table_of(name, &t);
        if (!rc)
            rc = s->row(s->arg, t, key, key_len, value, len);
        (*rows)++;
    }
    return rc;
}

static int frames_read(const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const struct sink *s)
{
    LG_SECRET_BUF_AUTO uint8_t *plain = lg_secret_alloc(LG_BACKUP_FRAME_MAX);
    uint8_t *sealed = malloc(LG_BACKUP_FRAME_MAX);
    struct frames f = { 0 };
    uint64_t rows = 0;
    bool end = false;
    int rc = plain && sealed ? lg_frames_init(&f, key, h->id) : -ENOMEM;
    for (unsigned n = 0; !rc && !end; n++) {
        uint8_t head[4];
        rc = rd(arg, head, sizeof head);
        struct lg_rd r = lg_rd(head, sizeof head);
        size_t len = rc ? 0 : lg_rd_u32(&r);
        if (!rc && (len <= LG_SIV_TAG_LEN || len > LG_BACKUP_FRAME_MAX))
            rc = -EBADMSG;
        if (!rc)
            rc = rd(arg, sealed, len);
        struct frame_ad ad = lg_frame_ad(&f);
        if (!rc)
            rc = lg_siv_open_with(f.siv, ad.b, sizeof ad.b, sealed, len, plain);
        if (rc)
            break;
        r = lg_rd(plain, len - LG_SIV_TAG_LEN);
        unsigned kind = lg_rd_u8(&r);
        if ((n == 0) != (kind == FRAME_META) || kind > FRAME_END)
            rc = -EBADMSG;
        else if (kind == FRAME_META)
            rc = meta_read(&r, s);
        else if (kind == FRAME_ROWS)
            rc = rows_read(&r, s, &rows);
        else if (!(end = lg_rd_u64(&r) == rows && lg_rd_done(&r)))
            rc = -EBADMSG;
    }
    lg_siv_free(f.siv);
    free(sealed);
    return rc == -EPROTO ? -EBADMSG : rc;
}

/* ---- checking and restoring -------------------------------------------------------------------------------------------------------------------------- */

struct import {
    struct lg_keyring k; /* its meta, lookup, record and ctrl; when restoring also a store and buckets */
    struct lg_backup_counts counts;
    bool write, carried; /* carried: it tells what other backups there were */
    unsigned in_batch, quarantined;
    struct lg_backup_later later;
};

static int import_meta(void *arg, const struct lg_meta *m, uint64_t created, const uint8_t lookup[LG_KEY_LEN], const uint8_t record[LG_KEY_LEN])
{
    struct import *im = arg;
    memcpy(im->counts.keyring_id, m->keyring_id, LG_ID_LEN);
    im->counts.created = created;
    im->counts.epoch = m->epoch;
    im->counts.vaults = m->vaults;
    im->k.meta = *m;
    uint16_t further; /* the same backup may be restored twice: sessions of the two shall not be the same */
    if (lg_random(&further, sizeof further))
        return -EIO;
    im->k.meta.epoch = ((m->epoch >> INCARNATION) + 1 + further) << INCARNATION;
    im->k.meta.next_session = ((m->next_session >> INCARNATION) + 1 + further) << INCARNATION;
    im->k.meta.generation = 1;
    im->k.lookup = lg_secret_new();
    im->k.record = lg_secret_new();
    if (!im->k.lookup || !im->k.record)
        return -ENOMEM;
    memcpy(im->k.lookup->b, lookup, LG_KEY_LEN);
    memcpy(im->k.record->b, record, LG_KEY_LEN);
    int rc = lg_siv_new(im->k.record, &im->k.ctrl);
    if (!rc && im->write) {
        im->k.root.epoch = im->k.meta.epoch;
        rc = lg_keyring_fill(&im->k);
    }
    return rc;
}

/* Does a line of the list name this study? */
static bool named(const char *list, const char *word)
{
    size_t n = strlen(word);
    for (const char *at = list; n && at && *at;) {
        size_t line = strcspn(at, "\r\n");
        if (line == n && strncasecmp(at, word, n) == 0)
            return true;
        at += line + strspn(at + line, "\r\n");
    }
    return false;
}

/* Was destroyed after the backup. What is unreadable anyway stays so; whoever cancels a destruction that waits does not get it back either. */
static bool quarantine(struct lg_record *r, uint64_t now)
{
    if (!r->n || r->state == LG_KEY_DESTROYED || r->state == LG_KEY_DESTROYING || r->state == LG_KEY_RESTORED)
        return false;
    if (r->state == LG_KEY_DESTROY_APPROVED) {
        bool fresh = r->c.before != LG_KEY_RESTORED;
        r->c.before = LG_KEY_RESTORED;
        return fresh;
    }
    r->state = LG_KEY_RESTORED;
    r->changed = now;
    snprintf(r->reason, sizeof r->reason, "destroyed after the backup that it was restored from");
    return true;
}

/* A version that was retired after the backup, and with it all before it, are left out; a backup that knows none of those that are left brings the study back in
 * quarantine. False: there is nothing to change. */
static bool retired(struct lg_record *r, uint32_t version, uint64_t now, bool *ret_quarantined)
{
    *ret_quarantined = r->n && r->version[r->n - 1] <= version;
    if (*ret_quarantined)
        return quarantine(r, now);
    if (!r->n || r->version[0] > version)
        return false;
    lg_record_trim(r, version + 1);
    return true;
}

static int import_key(struct import *im, const uint8_t kid[LG_ID_LEN], const uint8_t *value, size_t len)
{
    struct lg_siv *bucket = NULL;
    LG_SECRET_AUTO key = lg_secret_new();
    struct lg_record *r = malloc(sizeof *r);
    LG_SECRET_BUF_AUTO uint8_t *b = lg_secret_alloc(VALUE_MAX);
    struct lg_study_info info = { 0 };
    struct lg_rd rd = lg_rd(value, len);
    struct lg_wr w = lg_wr(b, VALUE_MAX);
    int rc = key && r && b ? 0 : -ENOMEM;
    unsigned kind = lg_rd_u8(&rd);
    uint32_t n = lg_rd_u32(&rd);
    if (!rc && n > LG_KEY_VERSIONS_MAX)
        rc = -EBADMSG;
    if (!rc && im->write)
        rc = lg_bucket_siv(&im->k, lg_bucket_of(kid), &bucket);
    if (rc) {
        free(r);
        return rc;
    }
    *r = (struct lg_record){ .kind = (enum lg_key_kind)kind };
    memcpy(r->kid, kid, LG_ID_LEN);
    lg_wr_u8(&w, (uint8_t)kind);
    lg_wr_u32(&w, n);
    for (uint32_t i = 0; !rc && i < n; i++) { /* wrapped anew; the last one is left in key */
        r->version[i] = lg_rd_u32(&rd);
        lg_rd_copy(&rd, key->b, LG_KEY_LEN);
        if (bucket)
            rc = lg_version_wrap(&im->k, bucket, r, i, key);
        lg_wr_u32(&w, r->version[i]);
        lg_wr_bytes(&w, r->wrapped[i], LG_WRAPPED_LEN);
    }
    lg_siv_free(bucket);
    lg_wr_bytes(&w, rd.p, rd.left);
    if (!rc)
        rc = w.bad || !lg_rd_ok(&rd) ? -EBADMSG : lg_record_parse(&im->k, kid, b, w.len, r);
    if (!rc && n && r->has_info && lg_info_open(&im->k, r, key, &info))
        im->counts.bad++;
    im->counts.keys += !rc;
    im->counts.versions += rc ? 0 : n;
    im->counts.studies += !rc && kind == LG_KIND_STUDY && r->state != LG_KEY_DESTROYED;
    im->counts.destroyed += !rc && kind == LG_KIND_STUDY && r->state == LG_KEY_DESTROYED;
    char hex[2 * LG_ID_LEN + 1];
    lg_hex_encode(kid, LG_ID_LEN, hex);
    if (!rc && kind == LG_KIND_STUDY && (named(im->later.destroyed, info.uid) || named(im->later.destroyed, hex)) && quarantine(r, im->later.now)) {
        im->quarantined++;
        if (im->write)
            rc = lg_record_put(&im->k, r);
    } else if (!rc && im->write) {
        rc = lg_store_put(im->k.store, LG_T_KEYS, kid, LG_ID_LEN, b, w.len);
    }
    free(r);
    return rc;
}

static int import_row(void *arg, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    struct import *im = arg;
    unsigned failed;
    int rc = 0;
    if (im->write && !lg_store_in_txn(im->k.store))
        rc = lg_store_begin(im->k.store);
    if (!rc && t == LG_T_KEYS)
        rc = key_len == LG_ID_LEN ? import_key(im, key, value, len) : -EBADMSG;
    else if (!rc && im->write && lg_backup_exported(t, key, key_len))
        rc = lg_store_put(im->k.store, t, key, key_len, value, len);
    im->carried = im->carried || lg_inventory_row(t, key, key_len);
    if (!rc && im->write && ++im->in_batch == BATCH) {
        im->in_batch = 0;
        rc = lg_store_commit(im->k.store, &failed);
    }
    return rc;
}

/* A tombstone whose signature is good. What one names that has none is damage, or somebody's work: the study is looked for by key id and by UID's hash, as one of them may be right. */
static int bury(struct import *im, const struct lg_tombstone *t, bool good, struct lg_record *r)
{
    const uint8_t *p;
    uint8_t kid[LG_ID_LEN];
    size_t len;
    bool gone = false;
    memcpy(kid, t->kid, LG_ID_LEN);
    int rc = lg_record_get(&im->k, kid, r);
    if (rc == -ENOENT && !good && lg_store_get(im->k.store, LG_T_LOOKUP, t->lookup, LG_MAC_LEN, &p, &len) == 0 && len == LG_ID_LEN) {
        memcpy(kid, p, LG_ID_LEN);
        rc = lg_record_get(&im->k, kid, r);
    }
    if (rc == -ENOENT) /* of a study newer than the backup */
        return 0;
    if (rc || r->kind != LG_KIND_STUDY || !(t->version && good ? retired(r, t->version, im->later.now, &gone) : quarantine(r, im->later.now)))
        return rc;
    rc = lg_record_put(&im->k, r);
    im->quarantined += !rc && (!t->version || !good || gone);
    return rc;
}

static int import_tombstones(struct import *im)
{
    const struct lg_backup_later *l = &im->later;
    struct lg_backup_counts *n = &im->counts;
    uint8_t pub[LG_SIGN_PUB_LEN];
    struct lg_record *r = malloc(sizeof *r);
    struct lg_tombstone t;
    struct lg_tombstone_gaps gaps = { 0 };
    const uint8_t *signed_bytes;
    size_t at = 0, end = 0;
    int rc = r ? lg_tombstones_check(l->tombstones, l->tombstones_len, im->k.meta.keyring_id) : -ENOMEM;
    if (!rc)
        rc = lg_keyring_sign_pub(&im->k, pub);
    rc = rc == -EPROTO ? -ENOMSG : rc == -ENOENT ? -ENODATA : rc;
    if (!rc)
        rc = lg_store_begin(im->k.store);
    while (!rc && lg_tombstones_next(l->tombstones, l->tombstones_len, &at, &t, &signed_bytes)) {
        lg_tombstones_gap(l->tombstones, l->tombstones_len, end, at - LG_TOMBSTONE_LEN, &gaps);
        end = at;
        bool good = memcmp(t.keyring_id, im->k.meta.keyring_id, LG_ID_LEN) == 0;
        rc = good ? lg_sign_verify(pub, signed_bytes, LG_TOMBSTONE_SIGNED, signed_bytes + LG_TOMBSTONE_SIGNED) : -EBADMSG;
        good = !rc;
        if (good)
            n->tombstones++;
        else if (rc == -EBADMSG)
            n->tombstones_bad++;
        rc = rc == -EBADMSG && !l->damaged_too ? -EKEYREJECTED : rc == -EBADMSG ? 0 : rc;
        if (!rc)
            rc = bury(im, &t, good, r);
    }
    if (!rc)
        lg_tombstones_gap(l->tombstones, l->tombstones_len, end, l->tombstones_len, &gaps);
    n->tombstones_bad += gaps.bad;
    n->tombstones_cut += gaps.cut;
    if (!rc && gaps.bad && !l->damaged_too)
        rc = -EKEYREJECTED;
    free(r);
    return rc;
}

static void import_done(struct import *im)
{
    lg_secret_free(im->k.lookup);
    lg_secret_free(im->k.record);
    lg_siv_free(im->k.ctrl);
    lg_siv_free(im->k.rooted.siv);
    lg_secret_free(im->k.root.key);
    lg_secret_dealloc(im->k.bucket);
}

int lg_backup_check(const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, struct lg_backup_counts *ret)
{
    struct import *im = calloc(1, sizeof *im);
    int rc = im ? frames_read(h, key, rd, arg, &(struct sink){ import_meta, import_row, im }) : -ENOMEM;
    if (!rc)
        *ret = im->counts;
    if (im)
        import_done(im);
    free(im);
    return rc;
}

struct source {
    const struct lg_backup_header *h;
    const struct lg_secret *key;
    lg_backup_read rd;
    void *arg;
    struct import *im;
};

static int import_all(struct lg_keyring *k, void *arg)
{
    struct source *s = arg;
    struct import *im = s->im;
    struct lg_officer *officers = calloc(LG_OFFICERS_MAX, sizeof *officers);
    struct lg_backup_entry from = { .created = 0 };
    unsigned failed, n = 0;
    im->k.store = k->store;
    int rc = officers && (im->k.root.key = lg_secret_dup(k->root.key)) && (im->k.bucket = lg_secret_alloc((size_t)LG_BUCKETS * LG_SIV_KEY_LEN)) ? 0 : -ENOMEM;
    if (!rc)
        rc = frames_read(s->h, s->key, s->rd, s->arg, &(struct sink){ import_meta, import_row, im });
    if (!rc && lg_store_in_txn(k->store))
        rc = lg_store_commit(k->store, &failed);
    if (!rc && im->later.tombstones)
        rc = import_tombstones(im);
    if (!rc && !lg_store_in_txn(k->store))
        rc = lg_store_begin(k->store);
    memcpy(from.id, s->h->id, LG_ID_LEN);
    snprintf(from.name, sizeof from.name, "%s", im->later.name ? im->later.name : "");
    from.created = im->counts.created;
    from.epoch = im->counts.epoch;
    if (!rc) /* it opens what is destroyed from now on */
        rc = lg_inventory_restored(&im->k, &from, im->carried);
    if (!rc)
        rc = incarnation_put(&im->k, im->later.now);
    if (!rc)
        rc = lg_keyring_officers(&im->k, officers, &n);
    if (!rc && n) /* the slot file that is about to be made does not know them yet */
        rc = lg_officers_dirty(&im->k);
    if (!rc)
        rc = lg_store_commit(k->store, &failed);
    free(officers);
    k->root.epoch = im->k.meta.epoch; /* of the slot file that is about to be made */
    memcpy(k->meta.keyring_id, im->k.meta.keyring_id, LG_ID_LEN);
    im->k.store = NULL;
    return rc;
}

int lg_backup_restore(const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const char *dir, const char *slot_path, const void *pass,
                      size_t pass_len, unsigned scrypt_ms, const struct lg_backup_later *later, struct lg_backup_counts *ret, unsigned *ret_quarantined)
{
    struct import *im = calloc(1, sizeof *im);
    struct source s = { h, key, rd, arg, im };
    if (!im)
        return -ENOMEM;
    im->write = true;
    im->later = later ? *later : (struct lg_backup_later){ 0 };
    im->later.now = im->later.now ? im->later.now : (uint64_t)time(NULL);
    int rc = lg_keyring_make(dir, slot_path, pass, pass_len, scrypt_ms, import_all, &s);
    if (!rc)
        im->counts.aside = lg_tombstones_aside(slot_path, im->later.now);
    if (!rc) {
        *ret = im->counts;
        *ret_quarantined = im->quarantined;
    }
    import_done(im);
    free(im);
    return rc;
}
