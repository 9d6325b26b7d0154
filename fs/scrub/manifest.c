#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "leadglass/bytes.h"
#include "leadglass/scrub.h"

#include "manifest.h"

enum { BUF = 512 * 1024, END_ALL = LG_MANIFEST_END + LG_MANIFEST_SIG_LEN, ENTRY_MAX = LG_MANIFEST_FIXED + LG_MANIFEST_PATH_MAX };
#define END_MAGIC 0x454d474cu /* "LGME" */

/* Hashes entry by entry; the MAC is over the header, the number of entries and the last hash. */
struct chain {
    uint8_t header[LG_MANIFEST_HEADER], h[LG_MAC_LEN];
    uint64_t count;
};

static int chain_begin(struct chain *c, const uint8_t header[LG_MANIFEST_HEADER])
{
    memcpy(c->header, header, LG_MANIFEST_HEADER);
    c->count = 0;
    return lg_sha256(header, LG_MANIFEST_HEADER, c->h);
}

static int chain_add(struct chain *c, const uint8_t *entry, size_t len)
{
    uint8_t h[LG_MAC_LEN];
    memcpy(h, c->h, sizeof h);
    c->count++;
    return lg_sha256_2(h, sizeof h, entry, len, c->h);
}

static int chain_mac(const struct chain *c, const struct lg_secret *vault_key, uint8_t mac[LG_MAC_LEN])
{
    uint8_t in[LG_MANIFEST_HEADER + 8 + LG_MAC_LEN];
    struct lg_wr w = lg_wr(in, sizeof in);
    LG_SECRET_AUTO k = lg_secret_new();
    lg_wr_bytes(&w, c->header, LG_MANIFEST_HEADER);
    lg_wr_u64(&w, c->count);
    lg_wr_bytes(&w, c->h, LG_MAC_LEN);
    int rc = k ? lg_derive(vault_key, "leadglass manifest", NULL, 0, k) : -ENOMEM;
    return rc ? rc : lg_hmac(k, in, sizeof in, mac);
}

/* ---- a file read from its beginning ------------------------------------------------------------------------------------------------------ */

struct stream {
    int fd;
    uint64_t off; /* of the next byte to be read into buf */
    uint8_t *buf;
    size_t at, have;
};

/* n bytes (at most BUF) in place; fewer only at the end of the file. */
static int stream_need(struct stream *s, size_t n, const uint8_t **ret, size_t *ret_n)
{
    if (s->have - s->at < n) {
        memmove(s->buf, s->buf + s->at, s->have - s->at);
        s->have -= s->at;
        s->at = 0;
        ssize_t got = lg_sys_read_full(&lg_sys_posix, s->fd, s->buf + s->have, 2 * BUF - s->have, s->off);
        if (got < 0)
            return (int)got;
        s->have += (size_t)got;
        s->off += (size_t)got;
    }
    *ret = s->buf + s->at;
    *ret_n = s->have - s->at < n ? s->have - s->at : n;
    return 0;
}

static int stream_begin(struct stream *s, struct lg_manifest_info *ret, struct chain *c)
{
    const uint8_t *p = NULL;
    size_t n = 0;
    s->off = s->at = s->have = 0;
    int rc = stream_need(s, LG_MANIFEST_HEADER, &p, &n);
    if (!rc)
        rc = n < LG_MANIFEST_HEADER ? -EPROTO : lg_manifest_header_decode(p, ret);
    if (!rc)
        rc = chain_begin(c, p);
    s->at += LG_MANIFEST_HEADER;
    return rc;
}

/* -ENOENT: what follows is not an entry. */
static int stream_entry(struct stream *s, struct chain *c, struct lg_item *it, char *path)
{
    const uint8_t *p = NULL;
    size_t n = 0, len;
    int rc = stream_need(s, 4, &p, &n);
    if (rc)
        return rc;
    len = n < 4 ? 0 : lg_item_len(p);
    if (!len)
        return -ENOENT;
    rc = stream_need(s, len, &p, &n);
    if (!rc)
        rc = n < len ? -EPROTO : lg_item_decode(p, len, it, path);
    if (!rc)
        rc = chain_add(c, p, len);
    if (!rc)
        s->at += len;
    return rc;
}

/* All of it from its beginning, and its end, in place: what needs no key. path: room for one. */
static int stream_all(struct stream *s, struct chain *c, struct lg_manifest_info *ret, char *path, const uint8_t **ret_end)
{
    struct lg_item it;
    const uint8_t *p = NULL;
    size_t n = 0;
    int rc = stream_begin(s, ret, c);
    while (!rc)
        rc = stream_entry(s, c, &it, path);
    if (rc == -ENOENT)
        rc = stream_need(s, END_ALL + 1, &p, &n);
    if (rc)
        return rc;
    bool is_signed = ret->version >= LG_MANIFEST_SIGNED;
    if (n != (is_signed ? END_ALL : LG_MANIFEST_END))
        return is_signed && n == LG_MANIFEST_END ? -ENODATA : -EPROTO;
    struct lg_rd e = lg_rd(p, LG_MANIFEST_END);
    bool right = lg_rd_u32(&e) == 0 && lg_rd_u32(&e) == END_MAGIC && lg_rd_u64(&e) == c->count && lg_equal(lg_rd_bytes(&e, LG_MAC_LEN), c->h, LG_MAC_LEN);
    *ret_end = p;
    return right ? 0 : -EBADMSG;
}

/* What a signature has to speak of; of one in end, if that is given, the rest too. */
static struct lg_manifest_sig sig_of(const struct lg_manifest_info *i, const struct chain *c, const uint8_t *end)
{
    struct lg_manifest_sig s = { .begun = i->created, .entries = c->count };
    memcpy(s.vault_id, i->vault_id, LG_ID_LEN);
    memcpy(s.hash, c->h, LG_MAC_LEN);
    if (end)
        lg_manifest_sig_decode(end + LG_MANIFEST_END, &s);
    return s;
}

/* ---- writing ---------------------------------------------------------------------------------------------------------------------------------- */

struct lg_manifest_writer {
    char *path, *part;
    struct stream f; /* buf, filled up to have; off: where it goes */
    struct chain c;
};

void lg_manifest_writer_free(struct lg_manifest_writer *w)
{
    if (!w)
        return;
    if (w->f.fd >= 0)
        close(w->f.fd);
    free(w->f.buf);
    free(w->path);
    free(w->part);
    free(w);
}

/* Goes over what was written before, up to that path; what stands behind is written anew. */
static int keep_until(struct lg_manifest_writer *w, const struct lg_manifest_info *want, const char *resume)
{
    struct lg_manifest_info i;
    struct lg_item it;
    char *path = malloc(LG_MANIFEST_PATH_MAX + 1);
    int rc = path ? stream_begin(&w->f, &i, &w->c) : -ENOMEM;
    bool begun = !rc; /* without its header it is nothing to go on with */
    uint64_t off = LG_MANIFEST_HEADER;
    struct chain before = w->c;
    if (!rc && memcmp(i.vault_id, want->vault_id, LG_ID_LEN) != 0)
        rc = -EXDEV;
    if (!rc && i.version != want->version)
        rc = -EALREADY;
    while (!rc) {
        before = w->c;
        rc = stream_entry(&w->f, &w->c, &it, path);
        if (rc || !lg_path_done(path, resume))
            break;
        off += LG_MANIFEST_FIXED + strlen(path);
    }
    if (begun && (rc == -ENOENT || rc == -EPROTO)) /* torn where it was interrupted: position was told after what it needs was flushed */
        rc = 0;
    w->c = before;
    w->f.off = off;
    w->f.at = w->f.have = 0;
    free(path);
    if (!rc && ftruncate(w->f.fd, (off_t)off))
        rc = -errno;
    return rc;
}

int lg_manifest_create(const char *path, const struct lg_manifest_info *i, const char *resume, struct lg_manifest_writer **ret)
{
    struct lg_manifest_writer *w;
    uint8_t header[LG_MANIFEST_HEADER];
    if (i->version != LG_MANIFEST_SIGNED)
        return -EINVAL;
    w = calloc(1, sizeof *w);
    if (!w)
        return -ENOMEM;
    w->f.fd = -1;
    w->path = strdup(path);
    int rc = w->path && asprintf(&w->part, "%s.part", path) > 0 && (w->f.buf = malloc(2 * BUF)) ? 0 : -ENOMEM;
    if (!rc) {
        w->f.fd = open(w->part, O_RDWR | O_CREAT | O_CLOEXEC | (resume ? 0 : O_TRUNC), 0600);
        rc = w->f.fd < 0 ? -errno : 0;
    }
    if (!rc && resume) {
        rc = keep_until(w, i, resume);
    } else if (!rc) {
        lg_manifest_header_encode(i, header);
        rc = chain_begin(&w->c, header);
        memcpy(w->f.buf, header, sizeof header);
        w->f.have = sizeof header;
    }
    if (rc)
        lg_manifest_writer_free(w);
    else
        *ret = w;
    return rc;
}

int lg_manifest_flush(struct lg_manifest_writer *w)
{
    int rc = lg_sys_write_full(&lg_sys_posix, w->f.fd, w->f.buf, w->f.have, w->f.off);
    if (!rc) {
        w->f.off += w->f.have;
        w->f.have = 0;
    }
    return rc;
}

int lg_manifest_sync(struct lg_manifest_writer *w)
{
    int rc = lg_manifest_flush(w);
    return rc ? rc : fdatasync(w->f.fd) ? -errno : 0;
}

static int room(struct lg_manifest_writer *w, size_t n) { return w->f.have + n > 2 * BUF ? lg_manifest_flush(w) : 0; }

int lg_manifest_add(struct lg_manifest_writer *w, const char *path, const struct lg_item *it)
{
    if (strlen(path) > LG_MANIFEST_PATH_MAX)
        return -ENAMETOOLONG;
    int rc = room(w, ENTRY_MAX);
    if (rc)
        return rc;
    uint8_t *at = w->f.buf + w->f.have;
    size_t n = lg_item_encode(it, path, at);
    rc = chain_add(&w->c, at, n);
    if (!rc)
        w->f.have += n;
    return rc;
}

int lg_manifest_finish(struct lg_manifest_writer *w, const struct lg_secret *vault_key, int (*sign)(void *arg, struct lg_manifest_sig *s), void *arg)
{
    uint8_t end[END_ALL];
    struct lg_manifest_info i;
    struct lg_wr out = lg_wr(end, sizeof end);
    lg_wr_u32(&out, 0);
    lg_wr_u32(&out, END_MAGIC);
    lg_wr_u64(&out, w->c.count);
    lg_wr_bytes(&out, w->c.h, LG_MAC_LEN);
    int rc = lg_manifest_header_decode(w->c.header, &i); /* as it was begun, perhaps in an earlier run */
    if (!rc)
        rc = chain_mac(&w->c, vault_key, end + LG_MANIFEST_END - LG_MAC_LEN);
    if (rc)
        return rc;
    struct lg_manifest_sig want = sig_of(&i, &w->c, NULL), s = want;
    rc = sign(arg, &s);
    if (!rc) {
        lg_manifest_sig_encode(&s, end + LG_MANIFEST_END);
        want = sig_of(&i, &w->c, end);
        rc = lg_manifest_sig_check(&want, want.pub);
    }
    if (!rc)
        rc = room(w, sizeof end);
    if (rc)
        return rc;
    memcpy(w->f.buf + w->f.have, end, sizeof end);
    w->f.have += sizeof end;
    rc = lg_manifest_flush(w);
    if (!rc && (fsync(w->f.fd) || rename(w->part, w->path)))
        rc = -errno;
    return rc;
}

/* ---- reading ---------------------------------------------------------------------------------------------------------------------------------- */

struct lg_manifest_reader {
    struct stream f;
    struct chain c;
    struct lg_manifest_info info;
    uint8_t verified[LG_MAC_LEN]; /* the last hash, as the MAC has it */
    char *path;
};

void lg_manifest_reader_free(struct lg_manifest_reader *r)
{
    if (!r)
        return;
    if (r->f.fd >= 0)
        close(r->f.fd);
    free(r->f.buf);
    free(r->path);
    free(r);
}

const struct lg_manifest_info *lg_manifest_info(const struct lg_manifest_reader *r) { return &r->info; }
int lg_manifest_rewind(struct lg_manifest_reader *r) { return stream_begin(&r->f, &r->info, &r->c); }

static int verify(struct lg_manifest_reader *r, const uint8_t vault_id[LG_ID_LEN], const struct lg_secret *vault_key, const uint8_t pub[LG_SIGN_PUB_LEN])
{
    const uint8_t *end = NULL;
    uint8_t mac[LG_MAC_LEN];
    int rc = lg_manifest_rewind(r);
    if (!rc && memcmp(r->info.vault_id, vault_id, LG_ID_LEN) != 0)
        return -EXDEV;
    if (!rc)
        rc = stream_all(&r->f, &r->c, &r->info, r->path, &end);
    if (!rc)
        rc = chain_mac(&r->c, vault_key, mac);
    if (!rc && !lg_equal(mac, end + LG_MANIFEST_END - LG_MAC_LEN, LG_MAC_LEN))
        rc = -EBADMSG;
    if (!rc && r->info.version >= LG_MANIFEST_SIGNED) {
        struct lg_manifest_sig s = sig_of(&r->info, &r->c, end);
        rc = lg_manifest_sig_check(&s, pub);
    }
    memcpy(r->verified, r->c.h, LG_MAC_LEN);
    return rc;
}

int lg_manifest_open(const char *path, const uint8_t vault_id[LG_ID_LEN], const struct lg_secret *vault_key, const uint8_t pub[LG_SIGN_PUB_LEN], struct lg_manifest_reader **ret)
{
    struct lg_manifest_reader *r = calloc(1, sizeof *r);
    if (!r)
        return -ENOMEM;
    r->f.fd = open(path, O_RDONLY | O_CLOEXEC);
    r->f.buf = malloc(2 * BUF);
    r->path = malloc(LG_MANIFEST_PATH_MAX + 1);
    int rc = r->f.fd < 0 ? -errno : r->f.buf && r->path ? verify(r, vault_id, vault_key, pub) : -ENOMEM;
    if (!rc)
        rc = lg_manifest_rewind(r);
    if (rc)
        lg_manifest_reader_free(r);
    else
        *ret = r;
    return rc;
}

int lg_manifest_next(struct lg_manifest_reader *r, struct lg_item *ret, const char **ret_path)
{
    int rc = stream_entry(&r->f, &r->c, ret, r->path);
    if (rc == -ENOENT && !lg_equal(r->c.h, r->verified, LG_MAC_LEN)) /* somebody changed it meanwhile */
        rc = -EBADMSG;
    if (!rc)
        *ret_path = r->path;
    return rc;
}

int lg_manifest_look(const char *path, struct lg_manifest_look *ret)
{
    struct stream f = { .fd = open(path, O_RDONLY | O_CLOEXEC), .buf = malloc(2 * BUF) };
    struct chain c = { .count = 0 };
    struct lg_manifest_info i = { .version = 0 };
    const uint8_t *end = NULL;
    char *p = malloc(LG_MANIFEST_PATH_MAX + 1);
    int rc = f.fd < 0 ? -errno : f.buf && p ? stream_all(&f, &c, &i, p, &end) : -ENOMEM;
    bool is_signed = !rc && i.version >= LG_MANIFEST_SIGNED;
    struct lg_manifest_look l = { .is_signed = is_signed, .sig = sig_of(&i, &c, is_signed ? end : NULL) };
    if (is_signed)
        rc = lg_manifest_sig_check(&l.sig, l.sig.pub);
    if (!rc)
        *ret = l;
    if (f.fd >= 0)
        close(f.fd);
    free(f.buf);
    free(p);
    return rc;
}
