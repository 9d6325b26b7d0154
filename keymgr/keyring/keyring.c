#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "govern.h"

/* ---- life ----------------------------------------------------------------------------------------------------------------------------------------- */

int lg_keyring_lock_dir(const char *dir, int *ret_fd)
{
    char path[4096];
    if (snprintf(path, sizeof path, "%s/lock", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    if (flock(fd, LOCK_EX | LOCK_NB)) {
        int rc = -errno;
        close(fd);
        return rc;
    }
    *ret_fd = fd;
    return 0;
}

int lg_keyring_fill(struct lg_keyring *k)
{
    LG_SECRET_AUTO key = lg_secret_new();
    unsigned failed;
    k->lookup = k->lookup ? k->lookup : lg_secret_random();
    k->record = k->record ? k->record : lg_secret_random();
    if (!key || !k->lookup || !k->record)
        return -ENOMEM;
    int rc = lg_siv_new(k->root.key, &k->rooted.siv);
    k->rooted.epoch = k->root.epoch;
    if (!rc)
        rc = lg_store_begin(k->store);
    for (unsigned b = 0; !rc && b < LG_BUCKETS; b++) {
        rc = lg_random(key->b, LG_KEY_LEN);
        if (!rc)
            rc = lg_bucket_wrap(k, b, &k->rooted, key);
    }
    if (!rc)
        rc = lg_meta_wrap(k, &k->root);
    if (!rc)
        rc = lg_meta_write(k);
    if (rc)
        lg_store_abort(k->store);
    else
        rc = lg_store_commit(k->store, &failed);
    return rc;
}

static void remove_dir(const char *dir)
{
    static const char *const names[] = { "data.mdb", "lock.mdb", "lock" };
    char path[4096];
    for (unsigned i = 0; i < 3; i++)
        if (snprintf(path, sizeof path, "%s/%s", dir, names[i]) < (int)sizeof path)
            unlink(path);
    rmdir(dir);
}

static int sync_path(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) ? -errno : 0;
    close(fd);
    return rc;
}

static int sync_parent(const char *path)
{
    char up[4096];
    snprintf(up, sizeof up, "%s/..", path);
    return sync_path(up);
}

int lg_keyring_create(const char *dir, const char *slot_path, const void *pass, size_t pass_len, unsigned scrypt_ms)
{
    return lg_keyring_make(dir, slot_path, pass, pass_len, scrypt_ms, NULL, NULL);
}

int lg_keyring_make(const char *dir, const char *slot_path, const void *pass, size_t pass_len, unsigned scrypt_ms, int (*rows)(struct lg_keyring *k, void *arg), void *arg)
{
    struct lg_keyring k = { .lockfd = -1, .root = { .epoch = 1, .key = lg_secret_random() } };
    struct lg_slotfile s;
    char tmp[4096];
    if (!k.root.key)
        return -ENOMEM;
    int rc = access(slot_path, F_OK) == 0 ? -EEXIST : mkdir(dir, 0700) ? -errno : 0;
    if (rc) {
        lg_secret_free(k.root.key);
        return rc;
    }
    k.meta = (struct lg_meta){ .version = LG_KEYRING_VERSION, .epoch = 1, .generation = 1, .next_session = 1 };
    rc = lg_random(k.meta.keyring_id, LG_ID_LEN);
    if (!rc)
        rc = lg_keyring_lock_dir(dir, &k.lockfd);
    if (!rc)
        rc = lg_store_open(dir, true, &k.store);
    if (!rc)
        rc = rows ? rows(&k, arg) : lg_keyring_fill(&k);
    if (!rc)
        rc = sync_path(dir);
    if (!rc)
        rc = sync_parent(dir);
    if (!rc)
        rc = lg_slotfile_make(&s, k.meta.keyring_id, &k.root, pass, pass_len, scrypt_ms);
    if (!rc) {
        if (snprintf(tmp, sizeof tmp, "%s.tmp", slot_path) < (int)sizeof tmp)
            unlink(tmp); /* what an earlier try may have left */
        rc = lg_slotfile_write(slot_path, &s, k.root.key, true);
        if (rc && rc != -EEXIST)
            unlink(slot_path);
    }
    lg_store_close(k.store);
    if (rc)
        remove_dir(dir);
    if (k.lockfd >= 0)
        close(k.lockfd);
    lg_secret_free(k.root.key);
    lg_siv_free(k.rooted.siv);
    lg_secret_free(k.lookup);
    lg_secret_free(k.record);
    return rc;
}

int lg_keyring_open(const char *dir, const char *slot_path, const char *mirror, struct lg_keyring **ret)
{
    struct lg_keyring *k = calloc(1, sizeof *k);
    struct stat st;
    if (!k)
        return -ENOMEM;
    k->lockfd = k->mirror_lockfd = -1;
    k->dir = strdup(dir);
    k->slot_path = strdup(slot_path);
    int rc = !k->dir || !k->slot_path ? -ENOMEM : 0;
    if (!rc && mirror && (!(k->mirror_dir = strdup(mirror)) || asprintf(&k->mirror_slot, "%s.root", mirror) < 0))
        rc = -ENOMEM;
    if (!rc && mirror) {
        rc = lg_mirror_open(k);
    } else if (!rc) {
        rc = stat(dir, &st) ? -errno : S_ISDIR(st.st_mode) ? lg_keyring_lock_dir(dir, &k->lockfd) : -ENOTDIR;
        if (!rc)
            rc = lg_store_open(dir, false, &k->store);
    }
    if (!rc)
        rc = lg_meta_read(k);
    if (rc)
        lg_keyring_close(k);
    else
        *ret = k;
    return rc;
}

void lg_keyring_close(struct lg_keyring *k)
{
    if (!k)
        return;
    if (k->store)
        lg_keyring_lock(k);
    lg_store_close(k->store);
    if (k->lockfd >= 0)
        close(k->lockfd);
    if (k->mirror_lockfd >= 0)
        close(k->mirror_lockfd);
    free(k->dir);
    free(k->slot_path);
    free(k->mirror_dir);
    free(k->mirror_slot);
    free(k);
}

int lg_keyring_unlock(struct lg_keyring *k, const struct lg_roots *roots)
{
    struct lg_roots all = { 0 };
    struct lg_slotfile s;
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t len;
    if (lg_keyring_unlocked(k))
        return 0;
    int rc = lg_slots_read(k, bytes, &len);
    if (!rc)
        rc = lg_slotfile_decode(bytes, len, &s);
    k->put_back = LG_PUT_BACK_NOT;
    if (!rc && memcmp(s.keyring_id, k->meta.keyring_id, LG_ID_LEN) != 0)
        rc = -EKEYREJECTED;
    else if (!rc && (s.generation < k->meta.generation || s.epoch[s.n_roots - 1] < k->meta.epoch))
        k->put_back = LG_PUT_BACK_SLOTS;
    else if (!rc && s.epoch[0] > k->meta.epoch)
        k->put_back = LG_PUT_BACK_KEYRING;
    unsigned tries = rc || k->put_back ? 0 : roots->n;
    s.chip = k->chip;
    if (!rc)
        rc = -EKEYREJECTED;
    for (unsigned i = 0; rc == -EKEYREJECTED && i < tries; i++)
        rc = lg_slotfile_roots(&s, &roots->r[i], &all);
    if (!rc)
        rc = lg_slotfile_verify(bytes, len, all.r[all.n - 1].key);
    int levelled = rc ? 0 : lg_slots_level(k, &s, bytes, len, all.r[all.n - 1].key);
    k->root = (struct lg_root){ 0 };
    for (unsigned i = 0; !rc && i < all.n; i++)
        if (all.r[i].epoch == k->meta.epoch)
            k->root = (struct lg_root){ all.r[i].epoch, lg_secret_dup(all.r[i].key) };
    if (!rc && !k->root.key)
        rc = -EKEYREJECTED;
    k->lookup = lg_secret_new();
    k->record = lg_secret_new();
    k->bucket = lg_secret_alloc((size_t)LG_BUCKETS * LG_SIV_KEY_LEN);
    memset(k->have_bucket, 0, sizeof k->have_bucket);
    if (!rc && (!k->lookup || !k->record || !k->bucket))
        rc = -ENOMEM;
    if (!rc)
        rc = lg_meta_unwrap(k, &k->root, k->lookup, k->record);
    k->rooted.epoch = k->root.epoch;
    if (!rc)
        rc = lg_siv_new(k->root.key, &k->rooted.siv);
    if (!rc)
        rc = lg_siv_new(k->record, &k->ctrl);
    lg_roots_done(&all);
    if (!rc)
        rc = lg_rollback_load(k);
    if (!rc)
        rc = lg_patients_load(k);
    if (rc) {
        lg_keyring_lock(k);
    } else if (k->rolled) {
        k->unfinished = levelled ? levelled : -EROFS;
    } else { /* a destruction that cannot go on (a full disk) keeps nobody from the other studies */
        unsigned n;
        k->unfinished = levelled ? levelled : lg_keyring_destroy(k, &n);
        k->unkept = lg_tombstones_keep(k, NULL, 0);
    }
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}

enum lg_put_back lg_keyring_put_back(const struct lg_keyring *k) { return k->put_back; }
int lg_keyring_unfinished(const struct lg_keyring *k) { return k->unfinished; }
int lg_keyring_keep(struct lg_keyring *k) { return k->unkept = lg_tombstones_keep(k, NULL, 0); }
int lg_keyring_unkept(const struct lg_keyring *k) { return k->unkept; }

int lg_keyring_root(struct lg_keyring *k, struct lg_root *ret)
{
    if (!lg_keyring_unlocked(k))
        return -ENOKEY;
    struct lg_secret *key = lg_secret_dup(k->root.key);
    if (!key)
        return -ENOMEM;
    *ret = (struct lg_root){ k->root.epoch, key };
    return 0;
}

void lg_keyring_lock(struct lg_keyring *k)
{
    lg_keyring_abort(k);
    lg_secret_free(k->root.key);
    lg_secret_free(k->lookup);
    lg_secret_free(k->record);
    lg_secret_dealloc(k->bucket);
    lg_siv_free(k->ctrl);
    lg_siv_free(k->rooted.siv);
    k->rolled = k->rolled_saved = false;
    k->root = (struct lg_root){ 0 };
    k->rooted = (struct lg_rooted){ 0 };
    k->ticked = false; /* what passes while it is locked is no running time */
    k->lookup = k->record = NULL;
    k->bucket = NULL;
    k->ctrl = NULL;
}

bool lg_keyring_unlocked(const struct lg_keyring *k) { return k->ctrl != NULL; }

int lg_keyring_begin(struct lg_keyring *k) { return lg_store_begin(k->store); }

int lg_keyring_commit(struct lg_keyring *k)
{
    unsigned failed = 0;
    int rc = k->meta_dirty ? lg_meta_write(k) : 0;
    if (!rc)
        rc = lg_patients_note(k);
    if (!rc) {
        rc = lg_store_commit(k->store, &failed);
        if (!rc)
            rc = lg_mirror_failed(k, failed);
        if (!rc) {
            k->saved = k->meta;
            k->gather.made = k->meta.studies + k->meta.destroyed;
            k->rolled_saved = k->rolled;
        } else {
            k->meta = k->saved;
            k->reaps.known = false;
            k->rolled |= k->rolled_saved;
        }
        k->meta_dirty = false;
    } else {
        lg_keyring_abort(k);
    }
    return rc;
}

void lg_keyring_abort(struct lg_keyring *k)
{
    k->reaps.known = false;
    lg_store_abort(k->store);
    k->meta = k->saved;
    k->meta_dirty = false;
    k->rolled |= k->rolled_saved; /* it was not accepted; what was found is found, written down or not */
}

bool lg_keyring_in_txn(const struct lg_keyring *k) { return lg_store_in_txn(k->store); }

int lg_keyring_stat(struct lg_keyring *k, struct lg_keyring_stat *ret)
{
    *ret = (struct lg_keyring_stat){ .epoch = k->meta.epoch, .generation = k->meta.generation, .studies = k->meta.studies, .destroyed = k->meta.destroyed,
                                     .vaults = k->meta.vaults, .file_bytes = lg_store_bytes(k->store), .mirrored = k->mirror_dir != NULL, .stale = k->stale };
    memcpy(ret->keyring_id, k->meta.keyring_id, LG_ID_LEN);
    lg_backup_age(k, &ret->backup, &ret->uncovered, &ret->uncovered_others);
    ret->restored = lg_keyring_restored(k);
    ret->rolled = k->rolled;
    if (lg_store_commits(k->store, &ret->commits))
        ret->commits = 0;
    return 0;
}

uint32_t lg_keyring_anchor_nv(const struct lg_keyring *k)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t len;
    uint32_t nv = s && lg_slots_read(k, bytes, &len) == 0 && lg_slotfile_decode(bytes, len, s) == 0 && s->anchored[s->n_roots - 1] ? s->anchor_nv : 0;
    free(s);
    return nv;
}

void lg_keyring_set_chip(struct lg_keyring *k, const struct lg_chip *chip) { k->chip = chip; }

void lg_keyring_set_hook(struct lg_keyring *k, lg_keyring_hook hook, void *arg)
{
    k->hook = hook;
    k->hook_arg = arg;
    lg_store_set_hook(k->store, hook, arg);
}

enum lg_mirror_news lg_keyring_mirror_news(const struct lg_keyring *k, int *ret_error)
{
    *ret_error = k->mirror_error;
    return k->mirror_news;
}

/* ---- keys ---------------------------------------------------------------------------------------------------------------------------------------- */

int lg_keyring_need(const struct lg_keyring *k, bool txn) { return !lg_keyring_unlocked(k) ? -ENOKEY : txn && !lg_keyring_in_txn(k) ? -EINVAL : 0; }

static int uid_hash(const struct lg_keyring *k, const char *uid, uint8_t out[LG_MAC_LEN]) { return lg_hmac(k->lookup, uid, strlen(uid), out); }

int lg_record_key(struct lg_keyring *k, const struct lg_record *r, uint32_t i, struct lg_key *ret)
{
    if (i >= r->n) /* the number of versions stands outside what is sealed: a record may claim to be active and have none */
        return -EPROTO;
    struct lg_siv *bucket = NULL;
    struct lg_secret *key = lg_secret_new();
    int rc = key ? lg_bucket_siv(k, lg_bucket_of(r->kid), &bucket) : -ENOMEM;
    if (!rc)
        rc = lg_version_unwrap(k, bucket, r, i, key);
    lg_siv_free(bucket);
    if (rc) {
        lg_secret_free(key);
        return rc;
    }
    *ret = (struct lg_key){ .version = r->version[i], .kind = r->kind, .state = r->state, .key = key };
    memcpy(ret->kid, r->kid, LG_ID_LEN);
    return 0;
}

int lg_key_make(struct lg_keyring *k, enum lg_key_kind kind, struct lg_record *r, struct lg_key *ret)
{
    struct lg_siv *bucket = NULL;
    struct lg_secret *key = lg_secret_random();
    memset(r, 0, sizeof *r);
    r->kind = kind;
    r->n = 1;
    r->version[0] = 1;
    r->state = LG_KEY_ACTIVE;
    r->created = r->changed = lg_keyring_wall(k);
    r->changed_by = (uint32_t)getuid();
    int rc = key ? lg_random(r->kid, LG_ID_LEN) : -ENOMEM;
    if (!rc)
        rc = lg_bucket_siv(k, lg_bucket_of(r->kid), &bucket);
    if (!rc)
        rc = lg_version_wrap(k, bucket, r, 0, key);
    lg_siv_free(bucket);
    if (!rc && kind != LG_KIND_STUDY)
        rc = lg_others_add(k);
    if (rc) {
        lg_secret_free(key);
        return rc;
    }
    *ret = (struct lg_key){ .version = 1, .kind = kind, .state = LG_KEY_ACTIVE, .key = key };
    memcpy(ret->kid, r->kid, LG_ID_LEN);
    return 0;
}

int lg_record_find(struct lg_keyring *k, const char *uid, struct lg_record *r)
{
    uint8_t h[LG_MAC_LEN], kid[LG_ID_LEN];
    const uint8_t *p;
    size_t len;
    int rc = uid_hash(k, uid, h);
    if (!rc)
        rc = lg_store_get(k->store, LG_T_LOOKUP, h, sizeof h, &p, &len);
    if (rc)
        return rc;
    if (len != LG_ID_LEN)
        return -EPROTO;
    memcpy(kid, p, LG_ID_LEN);
    rc = lg_record_get(k, kid, r);
    return rc == -ENOENT ? -EPROTO : rc;
}

int lg_keyring_study_find(struct lg_keyring *k, const char *uid, struct lg_key *ret)
{
    struct lg_record r;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_record_find(k, uid, &r);
    if (!rc && r.state != LG_KEY_ACTIVE)
        rc = -EKEYREVOKED;
    return rc ? rc : lg_record_key(k, &r, r.n - 1, ret);
}

static bool learn(char *have, size_t cap, const char *more)
{
    if (have[0] || !more[0])
        return false;
    snprintf(have, cap, "%s", more);
    return true;
}

int lg_keyring_study_key(struct lg_keyring *k, const struct lg_study_info *info, struct lg_key *ret, bool *ret_created)
{
    struct lg_record r;
    struct lg_key key;
    int rc = lg_keyring_need(k, true);
    if (!rc && !info->uid[0])
        rc = -EINVAL;
    if (!rc)
        rc = lg_record_find(k, info->uid, &r);
    if (!rc) {
        struct lg_study_info old;
        if (r.state != LG_KEY_ACTIVE)
            return -EKEYREVOKED;
        rc = lg_record_key(k, &r, r.n - 1, &key);
        if (rc)
            return rc;
        rc = lg_info_open(k, &r, key.key, &old);
        if (!rc) {
            bool named = !old.patient_id[0] && info->patient_id[0], more = learn(old.patient_id, sizeof old.patient_id, info->patient_id);
            more |= learn(old.accession, sizeof old.accession, info->accession);
            more |= learn(old.date, sizeof old.date, info->date);
            more |= learn(old.modality, sizeof old.modality, info->modality);
            if (more)
                rc = lg_info_seal(k, &r, key.key, &old);
            if (more && !rc)
                rc = lg_record_put(k, &r);
            if (named && !rc)
                rc = lg_patient_add(k, r.kid, old.patient_id);
        }
        if (rc) {
            lg_secret_free(key.key);
            return rc;
        }
        *ret = key;
        *ret_created = false;
        return 0;
    }
    if (rc != -ENOENT)
        return rc;
    rc = lg_key_make(k, LG_KIND_STUDY, &r, &key);
    if (rc)
        return rc;
    rc = uid_hash(k, info->uid, r.lookup);
    if (!rc)
        rc = lg_info_seal(k, &r, key.key, info);
    if (!rc)
        rc = lg_record_put(k, &r);
    if (!rc)
        rc = lg_store_put(k->store, LG_T_LOOKUP, r.lookup, sizeof r.lookup, r.kid, LG_ID_LEN);
    if (!rc)
        rc = lg_patient_add(k, r.kid, info->patient_id);
    if (rc) {
        lg_secret_free(key.key);
        return rc;
    }
    k->meta.studies++;
    k->meta_dirty = true;
    *ret = key;
    *ret_created = true;
    return 0;
}

int lg_keyring_key_by_id(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret)
{
    static const uint8_t none[LG_ID_LEN];
    struct lg_record r, study;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_record_get(k, kid, &r);
    if (rc)
        return rc == -ENOENT ? -ENOKEY : rc;
    if (r.state != LG_KEY_ACTIVE)
        return -EKEYREVOKED;
    if (memcmp(r.attached, none, LG_ID_LEN) != 0) {
        rc = lg_record_get(k, r.attached, &study);
        if (rc)
            return rc == -ENOENT ? -EPROTO : rc;
        if (study.state != LG_KEY_ACTIVE)
            return -EKEYREVOKED;
    }
    if (!version && r.n)
        return lg_record_key(k, &r, r.n - 1, ret);
    for (uint32_t i = 0; i < r.n; i++)
        if (r.version[i] == version)
            return lg_record_key(k, &r, i, ret);
    return r.n && version < r.version[0] ? -EKEYREVOKED : -ENOKEY; /* retired, or of a newer keyring */
}

int lg_keyring_provisional(struct lg_keyring *k, struct lg_key *ret)
{
    struct lg_record r;
    struct lg_key key;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_key_make(k, LG_KIND_PROVISIONAL, &r, &key);
    if (rc)
        return rc;
    rc = lg_record_put(k, &r);
    if (rc)
        lg_secret_free(key.key);
    else
        *ret = key;
    return rc;
}

int lg_keyring_attach(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    static const uint8_t none[LG_ID_LEN];
    struct lg_record r;
    struct lg_key study;
    bool created;
    uint8_t pair[2 * LG_ID_LEN];
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_record_get(k, kid, &r);
    if (rc)
        return rc == -ENOENT ? -ENOKEY : rc;
    if (r.kind != LG_KIND_PROVISIONAL)
        return -EINVAL;
    if (r.state != LG_KEY_ACTIVE)
        return -EKEYREVOKED;
    rc = lg_keyring_study_key(k, info, &study, &created);
    if (rc)
        return rc;
    lg_secret_free(study.key);
    if (memcmp(r.attached, none, LG_ID_LEN) != 0)
        return memcmp(r.attached, study.kid, LG_ID_LEN) == 0 ? 0 : -EEXIST;
    memcpy(r.attached, study.kid, LG_ID_LEN);
    memcpy(pair, study.kid, LG_ID_LEN);
    memcpy(pair + LG_ID_LEN, kid, LG_ID_LEN);
    rc = lg_store_put(k->store, LG_T_ATTACHED, pair, sizeof pair, "", 0);
    return rc ? rc : lg_record_put(k, &r);
}

/* ---- studies ------------------------------------------------------------------------------------------------------------------------------------------- */

static int study_of(struct lg_keyring *k, const struct lg_record *r, struct lg_study *ret)
{
    struct lg_key key;
    memset(ret, 0, sizeof *ret);
    memcpy(ret->kid, r->kid, LG_ID_LEN);
    ret->outstanding = LG_OUTSTANDING_UNKNOWN;
    ret->state = r->state;
    ret->version = r->n ? r->version[r->n - 1] : 0;
    ret->created = r->created;
    ret->changed = r->changed;
    ret->changed_by = r->changed_by;
    memcpy(ret->reason, r->reason, sizeof ret->reason);
    static const uint8_t none[LG_ID_LEN];
    ret->held = memcmp(r->c.hold, none, LG_ID_LEN) != 0;
    memcpy(ret->hold, r->c.hold, LG_ID_LEN);
    memcpy(ret->act, r->c.act, LG_ID_LEN);
    ret->retain_until = r->c.retain_until;
    ret->rule = r->c.rule;
    ret->due = r->state == LG_KEY_DESTROY_APPROVED ? r->c.due_wall : 0;
    ret->unconfirmed = r->c.unconfirmed != 0;
    if (!r->n || r->state == LG_KEY_DESTROYING || r->state == LG_KEY_DESTROYED)
        return 0;
    int rc = lg_record_key(k, r, r->n - 1, &key);
    if (!rc) {
        rc = lg_info_open(k, r, key.key, &ret->info);
        lg_secret_free(key.key);
    }
    return rc;
}

int lg_keyring_studies(struct lg_keyring *k, const uint8_t *after, struct lg_study *ret, unsigned max, unsigned *ret_n)
{
    uint8_t key[64];
    size_t len = after ? LG_ID_LEN : 0, vlen;
    const uint8_t *p;
    unsigned n = 0;
    int rc = lg_keyring_need(k, false);
    if (after)
        memcpy(key, after, LG_ID_LEN);
    while (!rc && n < max) {
        struct lg_record r;
        rc = lg_store_next(k->store, LG_T_KEYS, len != 0, key, &len, &p, &vlen);
        if (!rc && len != LG_ID_LEN)
            rc = -EPROTO;
        if (rc || p[0] != LG_KIND_STUDY)
            continue;
        rc = lg_record_parse(k, key, p, vlen, &r);
        if (!rc)
            rc = study_of(k, &r, &ret[n]);
        n += !rc;
    }
    if (rc && rc != -ENOENT)
        return rc;
    *ret_n = n;
    return 0;
}

int lg_keyring_study_show(struct lg_keyring *k, const char *uid, struct lg_study *ret)
{
    struct lg_record r;
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_record_find(k, uid, &r);
    if (!rc)
        rc = study_of(k, &r, ret);
    if (!rc && r.state == LG_KEY_DESTROYED)
        rc = lg_tombstone_outstanding(k, &r, &ret->outstanding);
    if (!rc && !ret->info.uid[0])
        snprintf(ret->info.uid, sizeof ret->info.uid, "%s", uid);
    return rc;
}

int lg_keyring_revoke(struct lg_keyring *k, const char *uid, const char *reason, uint32_t actor_uid, uint8_t (*ret_kids)[LG_ID_LEN], unsigned max, unsigned *ret_n)
{
    struct lg_record r;
    struct lg_time t;
    bool mode;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_record_find(k, uid, &r);
    if (rc)
        return rc;
    if (r.state == LG_KEY_DESTROYED)
        return -EKEYREVOKED;
    if (r.state != LG_KEY_DESTROYING) {
        rc = lg_keyring_officer_mode(k, &mode);
        if (!rc && mode)
            rc = -EPERM;
        if (!rc && r.state == LG_KEY_DESTROY_APPROVED)
            rc = -EALREADY; /* its act says when it will be destroyed; cancel that first */
        if (!rc)
            rc = lg_time_now(k, &t);
        if (!rc)
            rc = lg_may_destroy(k, &r, &t, false, NULL);
        if (!rc)
            rc = lg_act_note(k, LG_ACT_REVOKE, &r, uid, reason, actor_uid, r.c.act);
        if (!rc)
            rc = lg_patient_forget(k, &r);
        if (rc)
            return rc;
        r.state = LG_KEY_DESTROYING;
        r.changed = t.last_wall;
        r.changed_by = actor_uid;
        r.c.unconfirmed = 1;
        snprintf(r.reason, sizeof r.reason, "%s", reason);
        rc = lg_record_put(k, &r);
        if (!rc)
            rc = lg_pending_put(k, &r);
    }
    return rc ? rc : lg_keyring_kids(k, r.kid, ret_kids, max, ret_n);
}
