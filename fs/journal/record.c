#include <fcntl.h>
#include <stdlib.h>

#include "internal.h"

#define REC_MAGIC 0x31524a4cu /* "LJR1" */
#define AREA_MAGIC 0x31414a4cu /* "LJA1" */
#define CRC_OFF 8u

/* Above any byte of any file that the format allows. */
#define OFF_MAX (LG_FILE_SIZE_MAX * 2)

static bool op_ok(struct lg_rd *r)
{
    uint32_t kind = lg_rd_u32(r);
    uint32_t reserved = lg_rd_u32(r);
    uint64_t off = lg_rd_u64(r), len = lg_rd_u64(r);
    if (!lg_rd_ok(r) || reserved || off < LG_SECTOR || off > OFF_MAX || len > OFF_MAX)
        return false; /* sector 0 of a file is never rewritten */
    switch (kind) {
    case LG_JOP_WRITE:
        return len > 0 && lg_rd_bytes(r, len) != NULL;
    case LG_JOP_ZERO:
        return len > 0;
    case LG_JOP_TRUNCATE:
        return off >= LG_HEADER_LEN && len == 0;
    default:
        return false;
    }
}

size_t lg_jrec_len(const uint8_t sector[LG_SECTOR], uint64_t generation)
{
    struct lg_rd h = lg_rd(sector, LG_SECTOR);
    uint32_t magic = lg_rd_u32(&h), len = lg_rd_u32(&h);
    (void)lg_rd_u32(&h);
    return magic == REC_MAGIC && lg_rd_u64(&h) == generation && len && len % LG_SECTOR == 0 ? len : 0;
}

int lg_jrec_decode(const uint8_t *buf, size_t len, uint64_t generation, struct lg_jrec *ret)
{
    struct lg_jrec r = { 0 };
    struct lg_rd h = lg_rd(buf, len);
    uint32_t magic = lg_rd_u32(&h);
    r.len = lg_rd_u32(&h);
    uint32_t crc = lg_rd_u32(&h);
    r.generation = lg_rd_u64(&h);
    r.number = lg_rd_u64(&h);
    lg_rd_copy(&h, r.file_id, LG_ID_LEN);
    r.handle_type = (int32_t)lg_rd_u32(&h);
    r.handle_len = lg_rd_u32(&h);
    lg_rd_copy(&h, r.handle, sizeof r.handle);
    r.seq = lg_rd_u64(&h);
    r.mtime_s = (int64_t)lg_rd_u64(&h);
    r.mtime_ns = lg_rd_u32(&h);
    r.n_ops = lg_rd_u32(&h);
    r.ops_len = lg_rd_u32(&h);
    if (!lg_rd_ok(&h) || magic != REC_MAGIC || r.generation != generation || r.len > len || r.len % LG_SECTOR || r.len < LG_JREC_FIXED ||
        r.ops_len > r.len - LG_JREC_FIXED || r.handle_len > sizeof r.handle)
        return -ENOENT;
    static const uint8_t zero[4];
    uint32_t want = lg_crc32c(0, buf, CRC_OFF);
    want = lg_crc32c(want, zero, 4);
    want = lg_crc32c(want, buf + CRC_OFF + 4, r.len - CRC_OFF - 4);
    if (want != crc)
        return -ENOENT;
    r.ops = buf + LG_JREC_FIXED;
    struct lg_rd o = lg_rd(r.ops, r.ops_len);
    for (uint32_t i = 0; i < r.n_ops; i++)
        if (!op_ok(&o))
            return -ENOENT;
    if (!lg_rd_done(&o))
        return -ENOENT;
    *ret = r;
    return 0;
}

static int zero_range(const struct lg_sys *sys, int fd, uint64_t off, uint64_t len)
{
    struct stat st;
    int rc = sys->fstat(sys->arg, fd, &st);
    if (rc)
        return rc;
    if (off >= (uint64_t)st.st_size)
        return 0;
    if (len > (uint64_t)st.st_size - off)
        len = (uint64_t)st.st_size - off;
    rc = sys->fallocate(sys->arg, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len);
    if (rc != -EOPNOTSUPP)
        return rc;
    uint8_t *z = calloc(1, 64 * 1024);
    if (!z)
        return -ENOMEM;
    rc = 0;
    for (uint64_t done = 0; !rc && done < len;) {
        size_t n = len - done < 64 * 1024 ? (size_t)(len - done) : 64 * 1024;
        rc = lg_sys_write_full(sys, fd, z, n, off + done);
        done += n;
    }
    free(z);
    return rc;
}

int lg_jrec_apply(const struct lg_sys *sys, const struct lg_jrec *rec, int fd)
{
    struct lg_rd r = lg_rd(rec->ops, rec->ops_len);
    int rc = 0;
    for (uint32_t i = 0; !rc && i < rec->n_ops; i++) {
        uint32_t kind = lg_rd_u32(&r);
        (void)lg_rd_u32(&r);
        uint64_t off = lg_rd_u64(&r), len = lg_rd_u64(&r);
        if (kind == LG_JOP_WRITE)
            rc = lg_sys_write_full(sys, fd, lg_rd_bytes(&r, len), len, off);
        else if (kind == LG_JOP_ZERO)
            rc = zero_range(sys, fd, off, len);
        else
            rc = sys->ftruncate(sys->arg, fd, (off_t)off);
    }
    return rc;
}

int lg_area_header_read(const struct lg_sys *sys, const struct lg_jfile *self, unsigned area, struct lg_area_header *ret)
{
    uint8_t s[LG_SECTOR], handle[LG_JOURNAL_HANDLE_MAX];
    ssize_t n = lg_sys_read_full(sys, self->fd, s, sizeof s, lg_area_off(area));
    if (n < 0)
        return (int)n;
    if ((size_t)n < sizeof s)
        return -EPROTO;
    struct lg_rd r = lg_rd(s, sizeof s);
    uint32_t magic = lg_rd_u32(&r), crc = lg_rd_u32(&r);
    uint64_t generation = lg_rd_u64(&r);
    uint32_t live = lg_rd_u32(&r), type = lg_rd_u32(&r), len = lg_rd_u32(&r);
    lg_rd_copy(&r, handle, sizeof handle);
    if (magic != AREA_MAGIC || live > 1 || len > sizeof handle || crc != lg_crc32c(0, s + 8, sizeof s - 8))
        return -EPROTO;
    bool here = len && len == self->handle_len && type == (uint32_t)self->handle_type && !memcmp(handle, self->handle, len);
    *ret = (struct lg_area_header){ generation, live == 1, here };
    return 0;
}

int lg_area_header_write(const struct lg_sys *sys, const struct lg_jfile *self, unsigned area, uint64_t generation, bool live)
{
    uint8_t s[LG_SECTOR] = { 0 };
    struct lg_wr w = lg_wr(s + 8, sizeof s - 8);
    lg_wr_u64(&w, generation);
    lg_wr_u32(&w, live);
    lg_wr_u32(&w, (uint32_t)self->handle_type);
    lg_wr_u32(&w, self->handle_len);
    lg_wr_bytes(&w, self->handle, self->handle_len);
    w = lg_wr(s, 8);
    lg_wr_u32(&w, AREA_MAGIC);
    lg_wr_u32(&w, lg_crc32c(0, s + 8, sizeof s - 8));
    return lg_sys_write_full(sys, self->fd, s, sizeof s, lg_area_off(area));
}
