#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/bytes.h"

static const char magic[8] = "LGSLOTS";

/* A hostile file must not make us spend more than 1 GiB (128 * r * N bytes) nor four passes. */
static bool scrypt_ok(const struct lg_scrypt *s)
{
    return s->log2_n >= 10 && s->log2_n <= 20 && s->r >= 1 && s->r <= 8 && s->p >= 1 && s->p <= 4;
}

int lg_slotfile_decode(const uint8_t *untrusted, size_t len, struct lg_slotfile *ret)
{
    struct lg_slotfile s = { 0 };
    struct lg_rd r = lg_rd(untrusted, len);
    const uint8_t *m = lg_rd_bytes(&r, sizeof magic);
    if (!m || memcmp(m, magic, sizeof magic) != 0)
        return -EPROTO;
    unsigned version = lg_rd_u16(&r);
    if (!lg_rd_ok(&r) || version == 0)
        return -EPROTO;
    if (version > LG_SLOTFILE_VERSION)
        return -EPROTONOSUPPORT;
    uint8_t hash[LG_MAC_LEN];
    if (len < 2 * LG_MAC_LEN || len > LG_SLOTFILE_MAX)
        return -EPROTO;
    int rc = lg_sha256(untrusted, len - LG_MAC_LEN, hash);
    if (rc)
        return rc;
    if (memcmp(hash, untrusted + len - LG_MAC_LEN, sizeof hash) != 0)
        return -EPROTO;
    s.n_roots = lg_rd_u8(&r);
    s.n_slots = lg_rd_u8(&r);
    if (s.n_roots < 1 || s.n_roots > 2 || s.n_slots < 1 || s.n_slots > LG_SLOTS_MAX)
        return -EPROTO;
    s.generation = lg_rd_u64(&r);
    lg_rd_copy(&r, s.keyring_id, LG_ID_LEN);
    for (unsigned i = 0; i < s.n_roots; i++)
        s.epoch[i] = lg_rd_u64(&r);
    if (s.n_roots == 2 && (s.epoch[0] == UINT64_MAX || s.epoch[1] != s.epoch[0] + 1))
        return -EPROTO;
    for (unsigned i = 0; i < s.n_slots; i++) {
        struct lg_slot *t = &s.slots[i];
        t->type = lg_rd_u8(&r);
        lg_rd_str(&r, t->name, LG_SLOT_NAME_MAX);
        t->scrypt.log2_n = lg_rd_u8(&r);
        t->scrypt.r = lg_rd_u8(&r);
        t->scrypt.p = lg_rd_u8(&r);
        lg_rd_copy(&r, t->scrypt.salt, sizeof t->scrypt.salt);
        lg_rd_copy(&r, t->slot_key, LG_WRAPPED_LEN);
        for (unsigned e = 0; e < s.n_roots; e++) {
            lg_rd_copy(&r, t->root[e], LG_WRAPPED_LEN);
            lg_rd_copy(&r, t->root_slot[e], LG_WRAPPED_LEN);
        }
        if (!lg_rd_ok(&r) || t->type != LG_SLOT_PASSPHRASE || !scrypt_ok(&t->scrypt))
            return -EPROTO;
    }
    s.generation_floor = lg_rd_u64(&r);
    lg_rd_copy(&r, s.tombstones, LG_MAC_LEN);
    lg_rd_copy(&r, s.audit_head, LG_MAC_LEN);
    lg_rd_copy(&r, s.officers, LG_MAC_LEN);
    (void)lg_rd_bytes(&r, 2 * LG_MAC_LEN); /* MAC and damage hash */
    if (!lg_rd_done(&r) || s.generation < s.generation_floor)
        return -EPROTO;
    *ret = s;
    return 0;
}

static int slotfile_mac(const uint8_t *bytes, size_t len, const struct lg_secret *newest, uint8_t out[LG_MAC_LEN])
{
    LG_SECRET_AUTO key = lg_secret_new();
    if (!key)
        return -ENOMEM;
    int rc = lg_derive(newest, "leadglass slot file mac", NULL, 0, key);
    return rc ? rc : lg_hmac(key, bytes, len, out);
}

int lg_slotfile_verify(const uint8_t *bytes, size_t len, const struct lg_secret *newest)
{
    uint8_t mac[LG_MAC_LEN];
    if (len < 2 * LG_MAC_LEN)
        return -EBADMSG;
    int rc = slotfile_mac(bytes, len - 2 * LG_MAC_LEN, newest, mac);
    if (rc)
        return rc;
    return lg_equal(mac, bytes + len - 2 * LG_MAC_LEN, sizeof mac) ? 0 : -EBADMSG;
}

int lg_slotfile_encode(const struct lg_slotfile *s, const struct lg_secret *newest, uint8_t out[LG_SLOTFILE_MAX], size_t *ret_len)
{
    uint8_t sum[LG_MAC_LEN];
    struct lg_wr w = lg_wr(out, LG_SLOTFILE_MAX);
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_u16(&w, LG_SLOTFILE_VERSION);
    lg_wr_u8(&w, (uint8_t)s->n_roots);
    lg_wr_u8(&w, (uint8_t)s->n_slots);
    lg_wr_u64(&w, s->generation);
    lg_wr_bytes(&w, s->keyring_id, LG_ID_LEN);
    for (unsigned i = 0; i < s->n_roots; i++)
        lg_wr_u64(&w, s->epoch[i]);
    for (unsigned i = 0; i < s->n_slots; i++) {
        const struct lg_slot *t = &s->slots[i];
        lg_wr_u8(&w, t->type);
        lg_wr_str(&w, t->name);
        lg_wr_u8(&w, t->scrypt.log2_n);
        lg_wr_u8(&w, t->scrypt.r);
        lg_wr_u8(&w, t->scrypt.p);
        lg_wr_bytes(&w, t->scrypt.salt, sizeof t->scrypt.salt);
        lg_wr_bytes(&w, t->slot_key, LG_WRAPPED_LEN);
        for (unsigned e = 0; e < s->n_roots; e++) {
            lg_wr_bytes(&w, t->root[e], LG_WRAPPED_LEN);
            lg_wr_bytes(&w, t->root_slot[e], LG_WRAPPED_LEN);
        }
    }
    lg_wr_u64(&w, s->generation_floor);
    lg_wr_bytes(&w, s->tombstones, LG_MAC_LEN);
    lg_wr_bytes(&w, s->audit_head, LG_MAC_LEN);
    lg_wr_bytes(&w, s->officers, LG_MAC_LEN);
    if (w.bad)
        return -EINVAL;
    int rc = slotfile_mac(out, w.len, newest, sum);
    if (rc)
        return rc;
    lg_wr_bytes(&w, sum, sizeof sum);
    rc = lg_sha256(out, w.len, sum);
    if (rc)
        return rc;
    lg_wr_bytes(&w, sum, sizeof sum);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_slotfile_read(const char *path, uint8_t out[LG_SLOTFILE_MAX], size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return -errno;
    int rc = 0;
    size_t len = 0;
    while (len < LG_SLOTFILE_MAX) {
        ssize_t n = read(fd, out + len, LG_SLOTFILE_MAX - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = -errno;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    if (!rc)
        *ret_len = len;
    return rc;
}

static int dir_sync(const char *path)
{
    char dir[PATH_MAX];
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) + 1 : 2;
    if (n >= sizeof dir)
        return -ENAMETOOLONG;
    memcpy(dir, slash ? path : "./", n);
    dir[n] = 0;
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) ? -errno : 0;
    close(fd);
    return rc;
}

static int write_all(int fd, const uint8_t *p, size_t len)
{
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        p += n;
        len -= (size_t)n;
    }
    return fsync(fd) ? -errno : 0;
}

int lg_slotfile_write(const char *path, const struct lg_slotfile *s, const struct lg_secret *newest, bool fresh)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    char tmp[PATH_MAX];
    size_t len;
    int rc = lg_slotfile_encode(s, newest, bytes, &len);
    if (rc)
        return rc;
    int n = snprintf(tmp, sizeof tmp, "%s.tmp", path);
    if (n < 0 || (size_t)n >= sizeof tmp)
        return -ENAMETOOLONG;
    /* A temporary file left by a crash is ours alone (the keyring's lock is held) and was never in force. */
    if (!fresh && unlink(tmp) && errno != ENOENT)
        return -errno;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return -errno;
    rc = write_all(fd, bytes, len);
    if (close(fd) && !rc)
        rc = -errno;
    if (!rc && renameat2(AT_FDCWD, tmp, AT_FDCWD, path, fresh ? RENAME_NOREPLACE : 0))
        rc = -errno;
    if (rc) {
        (void)unlink(tmp);
        return rc;
    }
    return dir_sync(path);
}

struct slot_ad {
    uint8_t b[8 + LG_ID_LEN + 2 + 8];
};
/* What a wrap is bound to: its purpose, keyring, slot and (for roots) epoch. */
static struct slot_ad slot_ad(const char purpose[8], const struct lg_slotfile *s, unsigned i, uint64_t epoch)
{
    struct slot_ad ad;
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, purpose, 8);
    lg_wr_bytes(&w, s->keyring_id, LG_ID_LEN);
    lg_wr_u8(&w, (uint8_t)i);
    lg_wr_u8(&w, s->slots[i].type);
    lg_wr_u64(&w, epoch);
    return ad;
}

static int slot_wrap(struct lg_slotfile *s, unsigned i, unsigned e, const struct lg_secret *slot_key, const struct lg_secret *root)
{
    struct slot_ad down = slot_ad("rootkey", s, i, s->epoch[e]), up = slot_ad("slotkey", s, i, s->epoch[e]);
    int rc = lg_key_wrap(slot_key, down.b, sizeof down.b, root, s->slots[i].root[e]);
    return rc ? rc : lg_key_wrap(root, up.b, sizeof up.b, slot_key, s->slots[i].root_slot[e]);
}

int lg_slotfile_make(struct lg_slotfile *s, const uint8_t keyring_id[LG_ID_LEN], const struct lg_root *root, const void *pass,
                     size_t pass_len, unsigned scrypt_ms)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    LG_SECRET_AUTO slot_key = lg_secret_random();
    if (!kek || !slot_key)
        return -ENOMEM;
    *s = (struct lg_slotfile){ .generation = 1, .n_roots = 1, .n_slots = 1, .epoch = { root->epoch } };
    memcpy(s->keyring_id, keyring_id, LG_ID_LEN);
    struct lg_slot *t = &s->slots[0];
    t->type = LG_SLOT_PASSPHRASE;
    memcpy(t->name, "passphrase", sizeof "passphrase");
    int rc = lg_scrypt_calibrate(scrypt_ms, &t->scrypt);
    if (!rc)
        rc = lg_scrypt_derive(&t->scrypt, pass, pass_len, kek);
    struct slot_ad ad = slot_ad("slotpass", s, 0, 0);
    if (!rc)
        rc = lg_key_wrap(kek, ad.b, sizeof ad.b, slot_key, t->slot_key);
    return rc ? rc : slot_wrap(s, 0, 0, slot_key, root->key);
}

int lg_slotfile_root_add(struct lg_slotfile *s, const struct lg_root *old, const struct lg_root *fresh)
{
    if (s->n_roots != 1 || s->epoch[0] != old->epoch || fresh->epoch != old->epoch + 1)
        return -EINVAL;
    LG_SECRET_AUTO slot_key = lg_secret_new();
    if (!slot_key)
        return -ENOMEM;
    s->epoch[1] = fresh->epoch;
    for (unsigned i = 0; i < s->n_slots; i++) {
        struct slot_ad up = slot_ad("slotkey", s, i, old->epoch);
        int rc = lg_key_unwrap(old->key, up.b, sizeof up.b, s->slots[i].root_slot[0], slot_key);
        if (!rc)
            rc = slot_wrap(s, i, 1, slot_key, fresh->key);
        if (rc)
            return rc;
    }
    s->n_roots = 2;
    s->generation++;
    return 0;
}

void lg_slotfile_root_drop(struct lg_slotfile *s)
{
    for (unsigned i = 0; i < s->n_slots; i++) {
        memcpy(s->slots[i].root[0], s->slots[i].root[1], LG_WRAPPED_LEN);
        memcpy(s->slots[i].root_slot[0], s->slots[i].root_slot[1], LG_WRAPPED_LEN);
    }
    s->epoch[0] = s->epoch[1];
    s->n_roots = 1;
    s->generation++;
    s->generation_floor = s->generation;
}

int lg_slotfile_roots(const struct lg_slotfile *s, const struct lg_root *have, struct lg_roots *ret)
{
    LG_SECRET_AUTO slot_key = lg_secret_new();
    struct lg_roots out = { 0 };
    unsigned h = 0;
    if (!slot_key)
        return -ENOMEM;
    while (h < s->n_roots && s->epoch[h] != have->epoch)
        h++;
    if (h == s->n_roots)
        return -EKEYREJECTED;
    struct slot_ad up = slot_ad("slotkey", s, 0, have->epoch);
    int rc = lg_key_unwrap(have->key, up.b, sizeof up.b, s->slots[0].root_slot[h], slot_key);
    for (unsigned e = 0; !rc && e < s->n_roots; e++) {
        struct slot_ad down = slot_ad("rootkey", s, 0, s->epoch[e]);
        out.r[e] = (struct lg_root){ s->epoch[e], lg_secret_new() };
        if (!out.r[e].key)
            rc = -ENOMEM;
        out.n = e + 1;
        if (!rc)
            rc = lg_key_unwrap(slot_key, down.b, sizeof down.b, s->slots[0].root[e], out.r[e].key);
    }
    if (rc) {
        lg_roots_done(&out);
        return rc == -EBADMSG ? -EKEYREJECTED : rc;
    }
    *ret = out;
    return 0;
}

void lg_roots_done(struct lg_roots *r)
{
    for (unsigned i = 0; i < r->n; i++)
        lg_secret_free(r->r[i].key);
    *r = (struct lg_roots){ 0 };
}

static int slot_open(const struct lg_slotfile *s, unsigned i, const void *pass, size_t pass_len, struct lg_roots *out)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    LG_SECRET_AUTO slot_key = lg_secret_new();
    if (!kek || !slot_key)
        return -ENOMEM;
    int rc = lg_scrypt_derive(&s->slots[i].scrypt, pass, pass_len, kek);
    struct slot_ad ad = slot_ad("slotpass", s, i, 0);
    if (!rc)
        rc = lg_key_unwrap(kek, ad.b, sizeof ad.b, s->slots[i].slot_key, slot_key);
    if (rc)
        return rc == -EBADMSG ? -EKEYREJECTED : rc;
    for (unsigned e = 0; !rc && e < s->n_roots; e++) {
        struct slot_ad down = slot_ad("rootkey", s, i, s->epoch[e]);
        out->r[e] = (struct lg_root){ s->epoch[e], lg_secret_new() };
        if (!out->r[e].key)
            return -ENOMEM;
        out->n = e + 1;
        rc = lg_key_unwrap(slot_key, down.b, sizeof down.b, s->slots[i].root[e], out->r[e].key);
    }
    return rc == -EBADMSG ? -EPROTO : rc; /* the passphrase was right: the file is not */
}

int lg_slotfile_unlock(const char *slot_path, const void *pass, size_t pass_len, struct lg_roots *ret)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t len;
    struct lg_slotfile s;
    struct lg_roots roots = { 0 };
    int rc = lg_slotfile_read(slot_path, bytes, &len);
    if (!rc)
        rc = lg_slotfile_decode(bytes, len, &s);
    if (rc)
        return rc;
    rc = -EKEYREJECTED;
    for (unsigned i = 0; rc == -EKEYREJECTED && i < s.n_slots; i++)
        rc = slot_open(&s, i, pass, pass_len, &roots);
    if (!rc) {
        rc = lg_slotfile_verify(bytes, len, roots.r[roots.n - 1].key);
        if (rc == -EBADMSG)
            rc = -EPROTO;
    }
    if (rc) {
        lg_roots_done(&roots);
        return rc;
    }
    *ret = roots;
    return 0;
}
