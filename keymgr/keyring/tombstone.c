/* What is left of a destroyed study, signed by the keyring's own key. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "govern.h"
#include "leadglass/certificate.h"
#include "leadglass/write.h"

static const char key_purpose[8] = "signkey.", key_name[] = "signkey", purpose[8] = "tombston";
enum { TOMB_KEY = LG_MAC_LEN + LG_ID_LEN, VERSION_KEY = TOMB_KEY + 4, PENDING_LEN = 4 + 4 + 8 };

/* ---- the keyring's signing key -------------------------------------------------------------------------------------------------------------- */

static int sign_key(struct lg_keyring *k, struct lg_secret *ret)
{
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, key_purpose, key_name, sizeof key_name - 1, ret->b, LG_KEY_LEN, &len);
    if (!rc && len != LG_KEY_LEN)
        rc = -EPROTO;
    if (rc != -ENOENT || !lg_keyring_in_txn(k))
        return rc;
    rc = lg_random(ret->b, LG_KEY_LEN);
    return rc ? rc : lg_sealed_put(k, LG_T_STATE, key_purpose, key_name, sizeof key_name - 1, ret->b, LG_KEY_LEN);
}

int lg_keyring_sign_pub(struct lg_keyring *k, uint8_t ret_pub[LG_SIGN_PUB_LEN])
{
    LG_SECRET_AUTO seed = lg_secret_new();
    int rc = seed ? sign_key(k, seed) : -ENOMEM;
    return rc ? rc : lg_sign_public(seed, ret_pub);
}

/* ---- tombstones ------------------------------------------------------------------------------------------------------------------------------- */

int lg_pending_put(struct lg_keyring *k, const struct lg_record *r)
{
    uint8_t key[64], b[PENDING_LEN];
    size_t len = LG_ID_LEN, vlen;
    const uint8_t *p;
    uint32_t attached = 0;
    int rc;
    memcpy(key, r->kid, LG_ID_LEN);
    while (!(rc = lg_store_next(k->store, LG_T_ATTACHED, len != LG_ID_LEN, key, &len, &p, &vlen)) && len == 2 * LG_ID_LEN && memcmp(key, r->kid, LG_ID_LEN) == 0)
        attached++;
    if (rc && rc != -ENOENT)
        return rc;
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u32(&w, r->n);
    lg_wr_u32(&w, attached);
    lg_wr_u64(&w, k->meta.epoch);
    return lg_store_put(k->store, LG_T_PENDING, r->kid, LG_ID_LEN, b, w.len);
}

static void tomb_key(const uint8_t lookup[LG_MAC_LEN], const uint8_t kid[LG_ID_LEN], uint8_t out[TOMB_KEY])
{
    memcpy(out, lookup, LG_MAC_LEN);
    memcpy(out + LG_MAC_LEN, kid, LG_ID_LEN);
}

/* Signs and stores it; that of one version has the version behind its key. */
static int tomb_put(struct lg_keyring *k, const struct lg_tombstone *t, struct lg_secret *seed)
{
    uint8_t b[LG_TOMBSTONE_LEN], key[VERSION_KEY];
    int rc = sign_key(k, seed);
    if (!rc)
        rc = lg_tombstone_encode(t, b);
    if (!rc)
        rc = lg_sign(seed, b, LG_TOMBSTONE_SIGNED, b + LG_TOMBSTONE_SIGNED);
    tomb_key(t->lookup, t->kid, key);
    for (unsigned i = 0; i < 4; i++)
        key[TOMB_KEY + i] = (uint8_t)(t->version >> (24 - 8 * i));
    return rc ? rc : lg_sealed_put(k, LG_T_TOMBSTONES, purpose, key, t->version ? VERSION_KEY : TOMB_KEY, b, sizeof b);
}

int lg_tombstone_put(struct lg_keyring *k, const struct lg_record *r, uint64_t generation)
{
    struct lg_tombstone t = { .created = r->created, .destroyed = r->changed, .epoch = k->meta.epoch, .epoch_before = k->meta.epoch - 1, .generation = generation };
    LG_SECRET_AUTO seed = lg_secret_new();
    const uint8_t *p;
    size_t len;
    int rc = seed ? lg_store_get(k->store, LG_T_PENDING, r->kid, LG_ID_LEN, &p, &len) : -ENOMEM;
    if (rc)
        return rc;
    if (len == PENDING_LEN) { /* one that began before this was kept has nothing */
        struct lg_rd rd = lg_rd(p, len);
        t.versions = lg_rd_u32(&rd);
        t.attached = lg_rd_u32(&rd);
        t.epoch_before = lg_rd_u64(&rd);
    }
    memcpy(t.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(t.kid, r->kid, LG_ID_LEN);
    memcpy(t.act, r->c.act, LG_ID_LEN);
    memcpy(t.lookup, r->lookup, LG_MAC_LEN);
    return tomb_put(k, &t, seed);
}

int lg_tombstone_version(struct lg_keyring *k, const struct lg_record *r, uint32_t version, const uint8_t act[LG_ID_LEN], uint64_t epoch_before, uint64_t generation)
{
    struct lg_tombstone t = { .created = r->created, .destroyed = lg_keyring_wall(k), .epoch = k->meta.epoch, .epoch_before = epoch_before, .generation = generation, .versions = 1, .version = version };
    LG_SECRET_AUTO seed = lg_secret_new();
    if (!seed || !version)
        return seed ? -EINVAL : -ENOMEM;
    memcpy(t.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(t.kid, r->kid, LG_ID_LEN);
    memcpy(t.act, act, LG_ID_LEN);
    memcpy(t.lookup, r->lookup, LG_MAC_LEN);
    return tomb_put(k, &t, seed);
}

/* The newest of this UID: after a readmission there may be several. */
static int tombstone_find(struct lg_keyring *k, const char *uid, struct lg_tombstone *ret)
{
    uint8_t lookup[LG_MAC_LEN], key[64], b[LG_TOMBSTONE_LEN];
    size_t key_len = LG_MAC_LEN, len;
    struct lg_tombstone t;
    bool any = false;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_hmac(k->lookup, uid, strlen(uid), lookup);
    memcpy(key, lookup, LG_MAC_LEN);
    while (!rc) {
        const uint8_t *p;
        rc = lg_store_next(k->store, LG_T_TOMBSTONES, key_len != LG_MAC_LEN, key, &key_len, &p, &len);
        if (rc || memcmp(key, lookup, LG_MAC_LEN) != 0)
            break;
        if (key_len == VERSION_KEY)
            continue;
        if (key_len != TOMB_KEY)
            return -EPROTO;
        rc = lg_sealed_get(k, LG_T_TOMBSTONES, purpose, key, key_len, b, sizeof b, &len);
        if (!rc)
            rc = lg_tombstone_decode(b, len, &t);
        if (!rc && (!any || t.destroyed >= ret->destroyed)) {
            *ret = t;
            any = true;
        }
    }
    return rc && rc != -ENOENT ? rc : any ? 0 : -ENOENT;
}

int lg_tombstone_outstanding(struct lg_keyring *k, const struct lg_record *r, uint64_t *ret)
{
    uint8_t key[TOMB_KEY], b[LG_TOMBSTONE_LEN];
    struct lg_tombstone t;
    struct lg_cert_backup none;
    size_t len;
    unsigned n;
    tomb_key(r->lookup, r->kid, key);
    int rc = lg_sealed_get(k, LG_T_TOMBSTONES, purpose, key, sizeof key, b, sizeof b, &len);
    if (!rc)
        rc = lg_tombstone_decode(b, len, &t);
    return rc == -ENOENT ? 0 : rc ? rc : lg_backups_outstanding(k, &t, &none, 0, &n, ret);
}

/* ---- the file beside the slot file ----------------------------------------------------------------------------------------------------------------
 * A keyring backup does not know what was destroyed after it. This file does, and survives the keyring: one tombstone after the other, so that a
 * destruction costs an append. Whoever reads it checks signatures; a file whose length is not that of all tombstones is written anew. */

static const char set_magic[8] = "LGTOMBS1";
enum { SET_HEAD = sizeof set_magic + LG_ID_LEN };

static int set_path(const char *slot, const char *suffix, char out[PATH_MAX]) { return snprintf(out, PATH_MAX, "%s.tombstones%s", slot, suffix) >= PATH_MAX ? -ENAMETOOLONG : 0; }

static int set_walk(struct lg_keyring *k, int fd)
{
    uint8_t key[64], b[LG_TOMBSTONE_LEN];
    size_t key_len = 0, len;
    int rc = 0;
    while (!rc) {
        rc = lg_sealed_next(k, LG_T_TOMBSTONES, purpose, key_len != 0, key, &key_len, b, sizeof b, &len);
        if (!rc)
            rc = len == sizeof b ? lg_write_all(fd, b, sizeof b) : -EPROTO;
    }
    return rc == -ENOENT ? 0 : rc;
}

static int set_rewrite(struct lg_keyring *k, const char *slot)
{
    char tmp[PATH_MAX], path[PATH_MAX];
    int rc = set_path(slot, ".tmp", tmp), fd = -1;
    if (!rc)
        rc = set_path(slot, "", path);
    if (!rc && unlink(tmp) && errno != ENOENT)
        rc = -errno;
    if (!rc && (fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
        rc = -errno;
    if (!rc)
        rc = lg_write_all(fd, set_magic, sizeof set_magic);
    if (!rc)
        rc = lg_write_all(fd, k->meta.keyring_id, LG_ID_LEN);
    if (!rc)
        rc = set_walk(k, fd);
    if (!rc && fsync(fd))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (!rc && rename(tmp, path))
        rc = -errno;
    return rc ? rc : lg_slotfile_dir_sync(path);
}

/* Those of these studies behind what is there; -ESTALE when that is not all of the others. */
static int set_append(struct lg_keyring *k, const char *slot, uint64_t all, const uint8_t (*kids)[LG_ID_LEN], size_t n)
{
    char path[PATH_MAX];
    uint8_t key[TOMB_KEY], b[LG_TOMBSTONE_LEN];
    struct lg_record *r = malloc(sizeof *r);
    struct stat st;
    size_t len;
    int rc = r ? set_path(slot, "", path) : -ENOMEM, fd = -1;
    if (!rc && (fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC | O_NOFOLLOW)) < 0)
        rc = errno == ENOENT ? -ESTALE : -errno;
    if (!rc && (fstat(fd, &st) || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != SET_HEAD + (all - n) * LG_TOMBSTONE_LEN))
        rc = -ESTALE;
    for (size_t i = 0; !rc && i < n; i++) {
        rc = lg_record_get(k, kids[i], r);
        if (rc)
            break;
        tomb_key(r->lookup, r->kid, key);
        rc = lg_sealed_get(k, LG_T_TOMBSTONES, purpose, key, sizeof key, b, sizeof b, &len);
        if (!rc)
            rc = len == sizeof b ? lg_write_all(fd, b, sizeof b) : -EPROTO;
    }
    if (!rc && fsync(fd))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    free(r);
    return rc;
}

int lg_tombstones_keep(struct lg_keyring *k, const uint8_t (*kids)[LG_ID_LEN], size_t n)
{
    const char *const slot[2] = { k->slot_path, k->mirror_slot };
    char path[PATH_MAX];
    struct stat st;
    uint64_t all; /* studies' and single versions' */
    int rc = lg_store_count(k->store, LG_T_TOMBSTONES, &all);
    for (unsigned i = 0; !rc && i < 2 && slot[i]; i++) {
        rc = set_path(slot[i], "", path);
        bool there = !rc && lstat(path, &st) == 0;
        if (rc || (!all && !there) || (there && S_ISREG(st.st_mode) && (uint64_t)st.st_size == SET_HEAD + all * LG_TOMBSTONE_LEN))
            continue;
        rc = lg_keyring_step(k, "tombstones");
        if (!rc)
            rc = n && n <= all ? set_append(k, slot[i], all, kids, n) : -ESTALE;
        if (rc == -ESTALE) {
            bool more = there && S_ISREG(st.st_mode) && (uint64_t)st.st_size > SET_HEAD + all * LG_TOMBSTONE_LEN;
            rc = 0;
            for (uint64_t t = lg_keyring_wall(k), end = t + 60; more && t < end; t++) /* of the keyring that this one stands in for: a mirror's, which the restore did not see */
                if ((rc = lg_tombstones_aside(slot[i], t)) != -EEXIST)
                    break;
            if (!rc)
                rc = set_rewrite(k, slot[i]);
        }
    }
    return rc;
}

int lg_tombstones_check(const void *untrusted, size_t len, const uint8_t keyring_id[LG_ID_LEN])
{
    const uint8_t *b = untrusted;
    if (len < SET_HEAD || memcmp(b, set_magic, sizeof set_magic) != 0)
        return -EPROTO;
    return memcmp(b + sizeof set_magic, keyring_id, LG_ID_LEN) != 0 ? -EXDEV : 0;
}

bool lg_tombstones_next(const void *untrusted, size_t len, size_t *at, struct lg_tombstone *ret, const uint8_t **ret_bytes)
{
    const uint8_t *b = untrusted;
    while (len >= *at && len - *at >= LG_TOMBSTONE_LEN) { /* heads of further files, and what a crash cut off, are passed over */
        size_t rest = len - *at - 1, within = LG_TOMBSTONE_LEN - 1 + sizeof set_magic - 1; /* one that begins at the last byte of this stands mostly behind it */
        *ret_bytes = b + *at;
        bool cut = memmem(*ret_bytes + 1, rest < within ? rest : within, set_magic, sizeof set_magic) != NULL; /* the next file begins within */
        if (!cut && lg_tombstone_decode(*ret_bytes, LG_TOMBSTONE_LEN, ret) == 0) {
            *at += LG_TOMBSTONE_LEN;
            return true;
        }
        ++*at;
    }
    return false;
}

void lg_tombstones_gap(const void *untrusted, size_t len, size_t from, size_t to, struct lg_tombstone_gaps *sum)
{
    const uint8_t *b = untrusted;
    while (from < to) {
        if (to - from >= SET_HEAD && memcmp(b + from, set_magic, sizeof set_magic) == 0) {
            from += SET_HEAD;
            continue;
        }
        const uint8_t *head = memmem(b + from, to - from, set_magic, sizeof set_magic);
        size_t until = head ? (size_t)(head - b) : to, n = until - from;
        if ((head || until == len) && n < LG_TOMBSTONE_LEN) /* that one file ends here; a copy made while the last one was written */
            sum->cut++;
        else
            sum->bad += (n + LG_TOMBSTONE_LEN - 1) / LG_TOMBSTONE_LEN;
        from = until;
        if (head && to - from < SET_HEAD) /* and its head is cut off */
            from = to;
    }
}

int lg_tombstones_aside(const char *slot, uint64_t now)
{
    char path[PATH_MAX], to[PATH_MAX], suffix[32];
    snprintf(suffix, sizeof suffix, ".before-%llu", (unsigned long long)now);
    int rc = set_path(slot, "", path);
    if (!rc)
        rc = set_path(slot, suffix, to);
    if (!rc && renameat2(AT_FDCWD, path, AT_FDCWD, to, RENAME_NOREPLACE))
        return errno == ENOENT ? 0 : -errno;
    return rc ? rc : lg_slotfile_dir_sync(path);
}

/* ---- certificates --------------------------------------------------------------------------------------------------------------------------------- */

int lg_keyring_certificate(struct lg_keyring *k, const char *uid, uint8_t *ret_doc, size_t cap, size_t *ret_len, uint8_t ret_sig[LG_SIGN_LEN], uint8_t ret_kid[LG_ID_LEN])
{
    struct lg_certificate c = { .version = 3, .issued = lg_keyring_wall(k), .files = LG_CERT_UNKNOWN, .bytes = LG_CERT_UNKNOWN };
    struct lg_record r;
    uint8_t doc[LG_CERT_MAX];
    size_t len;
    LG_SECRET_AUTO seed = lg_secret_new();
    int rc = seed && strlen(uid) <= LG_UID_MAX ? tombstone_find(k, uid, &c.tombstone) : -EINVAL;
    if (rc == -ENOENT)
        return lg_record_find(k, uid, &r) == 0 ? -EALREADY : -ENOENT;
    if (!rc)
        rc = lg_record_get(k, c.tombstone.kid, &r);
    if (!rc && r.c.unconfirmed) {
        memcpy(ret_kid, r.kid, LG_ID_LEN);
        return -ENOTCONN;
    }
    if (!rc)
        rc = lg_keyring_act_get(k, c.tombstone.act, &c.act);
    if (rc)
        return rc;
    memcpy(c.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(c.uid, uid, strlen(uid) + 1);
    struct lg_reaped found;
    rc = lg_reaped_sum(k, c.tombstone.kid, &found, &c.vaults_counted);
    if (rc)
        return rc;
    c.vaults = k->meta.vaults < 1 ? 1 : k->meta.vaults > 65535 ? 65535 : (unsigned)k->meta.vaults;
    if (c.vaults_counted) {
        c.files = found.files;
        c.bytes = found.bytes;
        c.removed = found.removed;
    }
    rc = lg_backups_outstanding(k, &c.tombstone, c.backups, LG_CERT_BACKUPS_MAX, &c.n_backups, &c.backups_all);
    if (!rc && !lg_inventory_complete(k, &c.tombstone)) {
        c.restored = lg_incarnation(k);
        c.restored_from = lg_restored_from(k);
    }
    if (!rc)
        rc = lg_anchor_overwritten(k, c.tombstone.created, &c.anchored);
    if (!rc)
        rc = sign_key(k, seed);
    if (!rc)
        rc = lg_sign_public(seed, c.pub);
    if (!rc)
        rc = lg_certificate_encode(&c, doc, &len);
    if (!rc && len > cap)
        rc = -ENOSPC;
    if (!rc)
        rc = lg_sign(seed, doc, len, ret_sig);
    if (rc)
        return rc;
    memcpy(ret_doc, doc, len);
    *ret_len = len;
    return 0;
}
