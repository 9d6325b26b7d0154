#include "leadglass/bytes.h"

#include "manifest.h"

#define MAGIC "LGMANIF\n"

void lg_manifest_header_encode(const struct lg_manifest_info *i, uint8_t out[LG_MANIFEST_HEADER])
{
    memset(out, 0, LG_MANIFEST_HEADER);
    struct lg_wr w = lg_wr(out, LG_MANIFEST_HEADER);
    lg_wr_bytes(&w, MAGIC, 8);
    lg_wr_u32(&w, i->version);
    lg_wr_u32(&w, 0);
    lg_wr_bytes(&w, i->vault_id, LG_ID_LEN);
    lg_wr_u64(&w, i->created);
    lg_wr_u64(&w, i->session);
}

int lg_manifest_header_decode(const uint8_t in[LG_MANIFEST_HEADER], struct lg_manifest_info *ret)
{
    struct lg_rd r = lg_rd(in, LG_MANIFEST_HEADER);
    const uint8_t *magic = lg_rd_bytes(&r, 8);
    struct lg_manifest_info i;
    uint32_t version = lg_rd_u32(&r);
    if (memcmp(magic, MAGIC, 8) != 0)
        return -EPROTO;
    if (version < LG_MANIFEST_MAC_ONLY || version > LG_MANIFEST_SIGNED)
        return version > LG_MANIFEST_SIGNED ? -EPROTONOSUPPORT : -EPROTO;
    i.version = version;
    uint32_t zero = lg_rd_u32(&r);
    lg_rd_copy(&r, i.vault_id, LG_ID_LEN);
    i.created = lg_rd_u64(&r);
    i.session = lg_rd_u64(&r);
    uint64_t rest = lg_rd_u64(&r) | lg_rd_u64(&r);
    if (!lg_rd_done(&r) || zero || rest)
        return -EPROTO;
    *ret = i;
    return 0;
}

size_t lg_item_encode(const struct lg_item *it, const char *path, uint8_t *out)
{
    size_t n = strlen(path), len = LG_MANIFEST_FIXED + n;
    struct lg_wr w = lg_wr(out, len);
    lg_wr_u32(&w, (uint32_t)len);
    lg_wr_u8(&w, (uint8_t)it->type);
    lg_wr_u8(&w, (uint8_t)it->state);
    lg_wr_bytes(&w, it->id, LG_ID_LEN);
    lg_wr_u64(&w, it->seq);
    lg_wr_u64(&w, it->size);
    lg_wr_bytes(&w, it->mac, LG_MAC_LEN);
    lg_wr_u32(&w, it->mode);
    lg_wr_u32(&w, it->uid);
    lg_wr_u32(&w, it->gid);
    lg_wr_u64(&w, (uint64_t)it->mtime_s);
    lg_wr_u32(&w, it->mtime_ns);
    lg_wr_bytes(&w, it->xattrs, LG_MAC_LEN);
    lg_wr_bytes(&w, "\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 16);
    lg_wr_u32(&w, (uint32_t)n);
    lg_wr_bytes(&w, path, n);
    return w.bad ? 0 : w.len;
}

size_t lg_item_len(const uint8_t in[4])
{
    struct lg_rd r = lg_rd(in, 4);
    uint32_t n = lg_rd_u32(&r);
    return n < LG_MANIFEST_FIXED || n > LG_MANIFEST_FIXED + LG_MANIFEST_PATH_MAX ? 0 : n;
}

int lg_item_decode(const uint8_t *in, size_t len, struct lg_item *ret, char *path)
{
    struct lg_rd r = lg_rd(in, len);
    struct lg_item it;
    uint32_t whole = lg_rd_u32(&r);
    uint8_t type = lg_rd_u8(&r), state = lg_rd_u8(&r);
    lg_rd_copy(&r, it.id, LG_ID_LEN);
    it.seq = lg_rd_u64(&r);
    it.size = lg_rd_u64(&r);
    lg_rd_copy(&r, it.mac, LG_MAC_LEN);
    it.mode = lg_rd_u32(&r);
    it.uid = lg_rd_u32(&r);
    it.gid = lg_rd_u32(&r);
    it.mtime_s = (int64_t)lg_rd_u64(&r);
    it.mtime_ns = lg_rd_u32(&r);
    lg_rd_copy(&r, it.xattrs, LG_MAC_LEN);
    uint64_t zero = lg_rd_u64(&r) | lg_rd_u64(&r);
    uint32_t n = lg_rd_u32(&r);
    const uint8_t *p = n > LG_MANIFEST_PATH_MAX ? NULL : lg_rd_bytes(&r, n);
    if (!p || !lg_rd_done(&r) || whole != len || zero || type < LG_ITEM_FILE || type > LG_ITEM_OTHER || state < LG_ITEM_VERIFIED || state > LG_ITEM_DAMAGED ||
        (n && memchr(p, 0, n)))
        return -EPROTO;
    it.type = (enum lg_item_type)type;
    it.state = (enum lg_item_state)state;
    if (n)
        memcpy(path, p, n);
    path[n] = 0;
    *ret = it;
    return 0;
}

int lg_path_cmp(const char *a, const char *b)
{
    for (; *a && *a == *b; a++, b++)
        ;
    int x = *a == '/' ? 1 : *a ? (unsigned char)*a + 1 : 0, y = *b == '/' ? 1 : *b ? (unsigned char)*b + 1 : 0;
    return x - y;
}

bool lg_path_done(const char *path, const char *at)
{
    size_t n = strlen(at);
    return lg_path_cmp(path, at) <= 0 || (n && strncmp(path, at, n) == 0 && path[n] == '/');
}
