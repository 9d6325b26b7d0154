#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "internal.h"
#include "leadglass/pool.h"

/* What can be known without any key: everything has checksums, which tell of accidents, not of an enemy. */

enum { STEP = 1024 * 1024, RECENT_S = 60, LIST_MAX = 65536 };

struct kfile {
    struct scrub *s;
    int fd;
    const uint8_t *id;
    bool explained; /* what does not fit may be under way */
    uint64_t durable;
    uint8_t *buf;
    uint64_t bad;
};

static bool pending(const struct scrub *s, const uint8_t id[LG_ID_LEN])
{
    for (size_t i = 0; i < s->n_pending; i++)
        if (!memcmp(s->pending[i], id, LG_ID_LEN))
            return true;
    return false;
}

static void tell(struct kfile *k, bool crash, const char *kind, uint64_t from, uint64_t to)
{
    k->bad++;
    lg_scrub_find(k->s, crash || k->explained ? LG_SCRUB_UNFINISHED : LG_SCRUB_DAMAGE, kind, k->id, from, to);
}

static uint32_t crc_of(const uint8_t entry[LG_ENTRY_LEN])
{
    struct lg_rd r = lg_rd(entry + LG_NONCE_LEN + LG_TAG_LEN, 4);
    return lg_rd_u32(&r);
}

static bool zeros(const uint8_t *p, size_t n)
{
    while (n && !*p)
        p++, n--;
    return n == 0;
}

/* Chunks i .. i+n-1, whose entries are e, contiguous below. */
static int chunks(struct kfile *k, uint64_t i, const uint8_t *e, size_t n, uint64_t size)
{
    uint32_t cs = k->s->chunk_size;
    for (size_t at = 0; at < n;) {
        size_t len = 0, m = 0;
        while (at + m < n && m < STEP / cs && !lg_entry_empty(e + (at + m) * LG_ENTRY_LEN)) {
            uint64_t left = size - (i + at + m) * cs;
            len += left < cs ? (size_t)left : cs;
            m++;
        }
        if (!m) {
            at++;
            continue;
        }
        ssize_t got = lg_sys_read_full(k->s->sys, k->fd, k->buf, len, lg_format_chunk_off(cs, i + at));
        if (got < 0)
            return (int)got;
        for (size_t j = 0; j < m; j++) {
            uint64_t from = (i + at + j) * cs, off = j * (uint64_t)cs;
            size_t cl = len - off < cs ? (size_t)(len - off) : cs;
            if (off + cl > (size_t)got || lg_crc32c(0, k->buf + off, cl) != crc_of(e + (at + j) * LG_ENTRY_LEN))
                tell(k, from + cl > k->durable, "chunk does not match its checksum", from, from + cl);
        }
        int rc = lg_scrub_read(k->s, len);
        if (rc)
            return rc;
        at += m;
    }
    return 0;
}

/* Entries first .. first+count-1 and their chunks; those from used on must be zero. */
static int table(struct kfile *k, uint64_t first, uint64_t count, uint64_t used, uint64_t size, bool *exact)
{
    uint8_t e[LG_REGION_ENTRIES * LG_ENTRY_LEN];
    uint64_t base = lg_format_entry_off(k->s->chunk_size, first), len = count * LG_ENTRY_LEN;
    int rc = 0;
    for (uint64_t at = 0; !rc && at < len;) {
        off_t data = len > sizeof e ? k->s->sys->lseek(k->s->sys->arg, k->fd, (off_t)(base + at), SEEK_DATA) : 0;
        if (data == -ENXIO)
            break;
        if (data > 0 && (uint64_t)data > base + at) { /* a large table: skip its holes */
            at = ((uint64_t)data - base) / sizeof e * sizeof e;
            if (at >= len)
                break;
        }
        size_t n = len - at < sizeof e ? (size_t)(len - at) : sizeof e;
        uint64_t i = first + at / LG_ENTRY_LEN;
        ssize_t got = lg_sys_read_full(k->s->sys, k->fd, e, n, base + at);
        if (got < 0)
            return (int)got;
        memset(e + got, 0, n - (size_t)got);
        size_t m = i < used ? (used - i < n / LG_ENTRY_LEN ? (size_t)(used - i) : n / LG_ENTRY_LEN) : 0;
        if (!zeros(e + m * LG_ENTRY_LEN, n - m * LG_ENTRY_LEN))
            *exact = false;
        rc = chunks(k, i, e, m, size);
        at += n;
    }
    return rc;
}

static int body(struct kfile *k, const struct lg_slot *slot, uint64_t phys, bool hash_ok)
{
    uint32_t cs = k->s->chunk_size;
    uint64_t n = lg_format_chunks(cs, slot->size), want = lg_format_cipher_size(cs, slot->size);
    bool exact = true;
    k->durable = slot->durable_size;
    k->buf = lg_scratch(STEP);
    if (!k->buf)
        return -ENOMEM;
    int rc = table(k, 0, LG_HEAD_ENTRIES, n, slot->size, &exact);
    for (uint64_t i = LG_HEAD_ENTRIES; !rc && i < n; i += lg_format_run(i))
        rc = table(k, i, lg_format_run(i), n, slot->size, &exact);
    if (rc)
        return rc;
    if (phys < want)
        tell(k, false, "shorter than its header says", 0, 0);
    else if (phys > want || !exact || !hash_ok)
        tell(k, true, "more stands there than its newest commit says", 0, 0);
    k->s->st.verified += !k->bad;
    return 0;
}

int lg_scrub_keyless_file(struct scrub *s, int fd)
{
    uint8_t head[3 * LG_SECTOR], h[LG_MAC_LEN];
    struct lg_s0 s0;
    struct lg_slot slot[2];
    int have[2];
    struct stat st;
    struct kfile k = { .s = s, .fd = fd };
    int rc = s->sys->fstat(s->sys->arg, fd, &st);
    ssize_t n = rc ? rc : lg_sys_read_full(s->sys, fd, head, sizeof head, 0);
    if (n < 0) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror((int)-n), NULL, 0, 0);
        return 0;
    }
    k.explained = s->st.live && st.st_ctim.tv_sec > s->started - RECENT_S;
    rc = n < (ssize_t)sizeof head ? -EPROTO : lg_s0_decode(head, &s0);
    if (rc == -EPROTONOSUPPORT) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, "of a newer format than this program knows", NULL, 0, 0);
        return 0;
    }
    if (!rc && !s->chunk_size) { /* the vault's own header is gone: the first file tells */
        s->chunk_size = s0.chunk_size;
        memcpy(s->vault_id, s0.vault_id, LG_ID_LEN);
    }
    if (rc || memcmp(s0.vault_id, s->vault_id, LG_ID_LEN) != 0 || s0.chunk_size != s->chunk_size) {
        tell(&k, false, "not a file of this vault", 0, 0);
        return 0;
    }
    k.id = s0.file_id;
    k.explained = k.explained || pending(s, s0.file_id);
    for (unsigned i = 0; i < 2; i++)
        have[i] = lg_slot_decode(head + (1 + i) * LG_SECTOR, &slot[i]);
    if (have[0] && have[1]) {
        tell(&k, false, "no valid commit slot", 0, 0);
        return 0;
    }
    if (have[0] == -EPROTO || have[1] == -EPROTO)
        tell(&k, false, "a commit slot does not match its checksum", 0, 0);
    unsigned first = !have[1] && (have[0] || slot[1].seq > slot[0].seq);
    rc = lg_sha256_2(head, LG_SECTOR, head + (2 - first) * LG_SECTOR, LG_SECTOR, h);
    if (!rc)
        rc = body(&k, &slot[first], (uint64_t)st.st_size, !memcmp(h, slot[first].other_hash, sizeof h));
    if (rc && !s->stopped) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), s0.file_id, 0, 0);
        rc = 0;
    }
    return rc;
}

static bool is_b64(const char *text, size_t len, size_t least)
{
    uint8_t b[LG_TARGET_SEALED_MAX];
    size_t got;
    return lg_b64_decode(text, len, b, sizeof b, &got) == 0 && got >= least;
}

int lg_scrub_keyless_link(struct scrub *s, int dirfd, const char *lower)
{
    char text[LG_TARGET_SEALED_MAX + 1];
    int fd = openat(dirfd, lower, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    ssize_t n = fd < 0 ? -errno : lg_link_text(fd, text);
    if (fd >= 0)
        close(fd);
    if (n == -ENOENT && s->st.live)
        return 0;
    /* Who is not root does not see the part of a long target that stands in an attribute. */
    if (n == -EBADMSG && geteuid() != 0)
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, "its long target cannot be read by this user", NULL, 0, 0);
    else if (n == -EBADMSG || (n >= 0 && !is_b64(text, (size_t)n, 2 * LG_SIV_TAG_LEN)))
        lg_scrub_find(s, LG_SCRUB_DAMAGE, "symbolic link has no sealed target", NULL, 0, 0);
    else if (n < 0)
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror((int)-n), NULL, 0, 0);
    return 0;
}

int lg_scrub_keyless_xattrs(struct scrub *s, int fd)
{
    static const char ours[] = "user.lg.", plain[] = "user.lg.mtime"; /* of re-encrypted files: not sealed */
    char path[32], *list;
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    ssize_t len = listxattr(path, NULL, 0);
    if (len <= 0)
        return 0;
    list = malloc(LIST_MAX);
    if (!list)
        return -ENOMEM;
    len = listxattr(path, list, LIST_MAX);
    for (ssize_t at = 0; at < len; at += (ssize_t)strlen(list + at) + 1) {
        const char *name = list + at;
        if (strncmp(name, ours, sizeof ours - 1) != 0 || strcmp(name, plain) == 0)
            continue;
        ssize_t n = getxattr(path, name, NULL, 0);
        if (!is_b64(name + sizeof ours - 1, strlen(name + sizeof ours - 1), LG_SIV_TAG_LEN) || (n >= 0 && n < (ssize_t)LG_XATTR_OVERHEAD))
            lg_scrub_find(s, LG_SCRUB_DAMAGE, "extended attribute is not sealed", NULL, 0, 0);
    }
    free(list);
    return 0;
}

bool lg_scrub_keyless_dirid_ok(int dirfd)
{
    char text[LG_DIRID_TEXT_LEN + 2];
    ssize_t n = readlinkat(dirfd, LG_DIRID_NAME, text, sizeof text);
    return n == (ssize_t)LG_DIRID_TEXT_LEN && is_b64(text, (size_t)n, LG_ID_LEN + LG_SIV_TAG_LEN);
}

bool lg_scrub_keyless_name_ok(int dirfd, const char *lower)
{
    char sealed[LG_SEALED_NAME_MAX + 1];
    if (lg_name_is_long(lower))
        return lg_sidecar_read(dirfd, lower, sealed) == 0;
    return is_b64(lower, strlen(lower), LG_SIV_TAG_LEN + 1);
}
