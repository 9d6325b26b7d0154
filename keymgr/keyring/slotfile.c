#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/bytes.h"
#include "leadglass/write.h"

static const char magic[8] = "LGSLOTS";
enum { V1 = 1 }; /* what version 0.1 wrote: passphrase slots only, numbered by their place */

/* A hostile file must not make us spend more than 1 GiB (128 * r * N bytes) nor four passes. */
bool lg_scrypt_ok(const struct lg_scrypt *s)
{
    return s->log2_n >= 10 && s->log2_n <= 20 && s->r >= 1 && s->r <= 8 && s->p >= 1 && s->p <= 4;
}

static void roots_decode(struct lg_rd *r, const struct lg_slotfile *s, struct lg_slot *t)
{
    for (unsigned e = 0; e < s->n_roots; e++) {
        lg_rd_copy(r, t->root[e], LG_WRAPPED_LEN);
        lg_rd_copy(r, t->root_slot[e], LG_WRAPPED_LEN);
    }
}

static void scrypt_decode(struct lg_rd *r, struct lg_scrypt *s)
{
    s->log2_n = lg_rd_u8(r);
    s->r = lg_rd_u8(r);
    s->p = lg_rd_u8(r);
    lg_rd_copy(r, s->salt, sizeof s->salt);
}

static bool slot_decode_v1(struct lg_rd *r, struct lg_slotfile *s, unsigned i)
{
    struct lg_slot *t = &s->slots[i];
    t->number = (uint8_t)i;
    t->type = lg_rd_u8(r);
    lg_rd_str(r, t->name, LG_SLOT_NAME_MAX);
    scrypt_decode(r, &t->scrypt);
    lg_rd_copy(r, t->slot_key, LG_WRAPPED_LEN);
    roots_decode(r, s, t);
    t->created = t->proved = 1; /* it made the keyring */
    return lg_rd_ok(r) && t->type == LG_SLOT_PASSPHRASE && lg_scrypt_ok(&t->scrypt);
}

static bool slot_decode(struct lg_rd *r, struct lg_slotfile *s, unsigned i)
{
    struct lg_slot *t = &s->slots[i];
    t->number = lg_rd_u8(r);
    t->type = lg_rd_u8(r);
    lg_rd_str(r, t->name, LG_SLOT_NAME_MAX);
    t->created = lg_rd_u64(r);
    t->proved = lg_rd_u64(r);
    if (t->type == LG_SLOT_TPM) {
        t->sealed_len = lg_rd_u16(r);
        if (t->sealed_len > sizeof t->sealed)
            return false;
        lg_rd_copy(r, t->sealed, t->sealed_len);
    } else {
        scrypt_decode(r, &t->scrypt);
        if (!lg_slot_has_secret(t->type) || !lg_scrypt_ok(&t->scrypt))
            return false;
    }
    lg_rd_copy(r, t->slot_key, LG_WRAPPED_LEN);
    roots_decode(r, s, t);
    return lg_rd_ok(r) && t->name[0] && (i == 0 || t->number > s->slots[i - 1].number);
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
    for (unsigned i = 0; i < s.n_roots; i++) {
        s.epoch[i] = lg_rd_u64(&r);
        unsigned anchored = version == V1 ? 0 : lg_rd_u8(&r);
        s.anchored[i] = anchored == 1;
        if (anchored > 1)
            return -EPROTO;
    }
    if (version != V1)
        s.anchor_nv = lg_rd_u32(&r);
    if (s.n_roots == 2 && (s.epoch[0] == UINT64_MAX || s.epoch[1] != s.epoch[0] + 1))
        return -EPROTO;
    for (unsigned i = 0; i < s.n_slots; i++)
        if (!(version == V1 ? slot_decode_v1(&r, &s, i) : slot_decode(&r, &s, i)))
            return -EPROTO;
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

static void slot_encode(struct lg_wr *w, const struct lg_slotfile *s, const struct lg_slot *t)
{
    lg_wr_u8(w, t->number);
    lg_wr_u8(w, t->type);
    lg_wr_str(w, t->name);
    lg_wr_u64(w, t->created);
    lg_wr_u64(w, t->proved);
    if (t->type == LG_SLOT_TPM) {
        lg_wr_u16(w, (uint16_t)t->sealed_len);
        lg_wr_bytes(w, t->sealed, t->sealed_len);
    } else {
        lg_wr_u8(w, t->scrypt.log2_n);
        lg_wr_u8(w, t->scrypt.r);
        lg_wr_u8(w, t->scrypt.p);
        lg_wr_bytes(w, t->scrypt.salt, sizeof t->scrypt.salt);
    }
    lg_wr_bytes(w, t->slot_key, LG_WRAPPED_LEN);
    for (unsigned e = 0; e < s->n_roots; e++) {
        lg_wr_bytes(w, t->root[e], LG_WRAPPED_LEN);
        lg_wr_bytes(w, t->root_slot[e], LG_WRAPPED_LEN);
    }
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
    for (unsigned i = 0; i < s->n_roots; i++) {
        lg_wr_u64(&w, s->epoch[i]);
        lg_wr_u8(&w, s->anchored[i]);
    }
    lg_wr_u32(&w, s->anchor_nv);
    for (unsigned i = 0; i < s->n_slots; i++)
        slot_encode(&w, s, &s->slots[i]);
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

int lg_slotfile_dir_sync(const char *path)
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
    rc = lg_write_all(fd, bytes, len);
    if (!rc && fsync(fd))
        rc = -errno;
    if (close(fd) && !rc)
        rc = -errno;
    if (!rc && renameat2(AT_FDCWD, tmp, AT_FDCWD, path, fresh ? RENAME_NOREPLACE : 0))
        rc = -errno;
    if (rc) {
        (void)unlink(tmp);
        return rc;
    }
    return lg_slotfile_dir_sync(path);
}
