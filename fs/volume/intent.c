/* What is about to happen to the names of a file that is re-encrypted and has several: docs/FORMAT-names.md, "Re-encrypted files with several names". */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"
#include "intent.h"

#define MAGIC "LGRELINK"
#define NAME "leadglass.relink"
#define NAME_NEW "leadglass.relink.new"
enum { VERSION = 1, FIXED = 98, CRC = 4 };

void lg_intent_tmp(const struct lg_intent *in, uint32_t i, char out[32])
{
    uint8_t r[8];
    memcpy(r, in->tmp, sizeof in->tmp);
    r[6] = (uint8_t)(i >> 8);
    r[7] = (uint8_t)i;
    memcpy(out, LG_TMP_PREFIX, sizeof LG_TMP_PREFIX - 1);
    lg_hex_encode(r, sizeof r, out + sizeof LG_TMP_PREFIX - 1);
}

void lg_intent_free(struct lg_intent *in)
{
    free(in->text);
    free(in->path);
    in->text = NULL;
    in->path = NULL;
}

const char *lg_intent_part(const char *path, char part[LG_LOWER_NAME_MAX + 1])
{
    size_t len = strcspn(path, "/");
    if (!len || len > LG_LOWER_NAME_MAX)
        return NULL;
    memcpy(part, path, len);
    part[len] = 0;
    if (part[0] == '.' || lg_name_is_hidden(part)) /* no name of ours, and no way up */
        return NULL;
    return path[len] ? path + len + 1 : path + len;
}

static bool path_ok(const char *path)
{
    char part[LG_LOWER_NAME_MAX + 1];
    const char *end = path + strlen(path);
    for (const char *p = path; p != end;) {
        p = lg_intent_part(p, part);
        if (!p || (p == end && p[-1] == '/'))
            return false;
    }
    return *path != 0;
}

int lg_intent_encode(const struct lg_intent *in, uint8_t **ret, size_t *ret_len)
{
    size_t text = 0;
    for (uint32_t i = 0; i < in->n; i++)
        text += strlen(in->path[i]) + 1;
    if (!in->n || in->n > LG_LINKS_MAX || text > LG_INTENT_TEXT_MAX)
        return -E2BIG;
    size_t len = FIXED + text + CRC;
    uint8_t *raw = malloc(len);
    if (!raw)
        return -ENOMEM;
    struct lg_wr w = lg_wr(raw, len);
    lg_wr_bytes(&w, MAGIC, 8);
    lg_wr_u32(&w, VERSION);
    lg_wr_u32(&w, in->n);
    lg_wr_u32(&w, (uint32_t)text);
    lg_wr_bytes(&w, in->vault_id, LG_ID_LEN);
    lg_wr_bytes(&w, in->file_id, LG_ID_LEN);
    lg_wr_u64(&w, in->seq);
    lg_wr_bytes(&w, in->commitment, LG_MAC_LEN);
    lg_wr_bytes(&w, in->tmp, sizeof in->tmp);
    for (uint32_t i = 0; i < in->n; i++)
        lg_wr_bytes(&w, in->path[i], strlen(in->path[i]) + 1);
    lg_wr_u32(&w, lg_crc32c(0, raw, len - CRC));
    *ret = raw;
    *ret_len = len;
    return 0;
}

int lg_intent_decode(const uint8_t *untrusted, size_t len, struct lg_intent *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_intent in = { .n = 0 };
    const uint8_t *magic = lg_rd_bytes(&r, 8);
    if (!magic || memcmp(magic, MAGIC, 8) != 0 || len < FIXED + CRC)
        return -EPROTO;
    uint32_t version = lg_rd_u32(&r);
    in.n = lg_rd_u32(&r);
    uint32_t text = lg_rd_u32(&r);
    lg_rd_copy(&r, in.vault_id, LG_ID_LEN);
    lg_rd_copy(&r, in.file_id, LG_ID_LEN);
    in.seq = lg_rd_u64(&r);
    lg_rd_copy(&r, in.commitment, LG_MAC_LEN);
    lg_rd_copy(&r, in.tmp, sizeof in.tmp);
    const uint8_t *names = lg_rd_bytes(&r, text);
    uint32_t crc = lg_rd_u32(&r);
    struct lg_rd end = lg_rd(untrusted + len - CRC, CRC);
    if (version > VERSION && lg_rd_u32(&end) == lg_crc32c(0, untrusted, len - CRC))
        return -EPROTONOSUPPORT;
    if (version != VERSION || !lg_rd_done(&r) || crc != lg_crc32c(0, untrusted, len - CRC) || !in.n || in.n > LG_LINKS_MAX || !text || text > LG_INTENT_TEXT_MAX || names[text - 1])
        return -EPROTO;
    in.text = malloc(text);
    in.path = calloc(in.n, sizeof *in.path);
    if (!in.text || !in.path) {
        lg_intent_free(&in);
        return -ENOMEM;
    }
    memcpy(in.text, names, text);
    uint32_t n = 0;
    bool ok = true;
    for (const char *p = in.text; ok && p < in.text + text; p += strlen(p) + 1) {
        ok = n < in.n && path_ok(p);
        if (ok)
            in.path[n++] = p;
    }
    if (!ok || n != in.n) {
        lg_intent_free(&in);
        return -EPROTO;
    }
    *ret = in;
    return 0;
}

static int read_at(const struct lg_sys *sys, int dirfd, const uint8_t vault_id[LG_ID_LEN], struct lg_intent *ret)
{
    int fd = openat(dirfd, NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    struct stat st;
    if (fd < 0)
        return errno == ELOOP ? -EPROTO : -errno;
    int rc = fstat(fd, &st) ? -errno : !S_ISREG(st.st_mode) || st.st_size < FIXED + CRC || st.st_size > (off_t)(FIXED + LG_INTENT_TEXT_MAX + CRC) ? -EPROTO : 0;
    uint8_t *raw = rc ? NULL : malloc((size_t)st.st_size);
    if (!rc && !raw)
        rc = -ENOMEM;
    ssize_t n = rc ? rc : lg_sys_read_full(sys, fd, raw, (size_t)st.st_size, 0);
    if (!rc)
        rc = n < 0 ? (int)n : lg_intent_decode(raw, (size_t)n, ret);
    if (!rc && memcmp(ret->vault_id, vault_id, LG_ID_LEN) != 0) {
        lg_intent_free(ret);
        rc = -EPROTO;
    }
    free(raw);
    close(fd);
    return rc;
}

int lg_intent_read(struct lg_volume *v, struct lg_intent *ret) { return read_at(v->env.sys, v->dirfd, v->info.vault_id, ret); }

int lg_vault_relink(int dirfd, const uint8_t vault_id[LG_ID_LEN])
{
    struct lg_intent in;
    int rc = read_at(&lg_sys_posix, dirfd, vault_id, &in);
    if (!rc)
        lg_intent_free(&in);
    return rc;
}

/* Whole and durable under its name, or not there. */
int lg_intent_write(struct lg_volume *v, const struct lg_intent *in)
{
    const struct lg_sys *sys = v->env.sys;
    uint8_t *raw;
    size_t len;
    int rc = lg_intent_encode(in, &raw, &len);
    if (rc)
        return rc;
    int fd = unlinkat(v->dirfd, NAME_NEW, 0) && errno != ENOENT ? -1 : openat(v->dirfd, NAME_NEW, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    rc = fd < 0 ? -errno : lg_sys_write_full(sys, fd, raw, len, 0);
    free(raw);
    if (fd < 0)
        return rc;
    if (!rc)
        rc = sys->fsync(sys->arg, fd);
    close(fd);
    if (!rc && renameat2(v->dirfd, NAME_NEW, v->dirfd, NAME, 0))
        rc = -errno;
    if (rc) {
        (void)unlinkat(v->dirfd, NAME_NEW, 0);
        return rc;
    }
    rc = sys->fsync(sys->arg, v->dirfd);
    return rc ? (void)!lg_intent_drop(v), rc : 0;
}

int lg_intent_drop(struct lg_volume *v) { return unlinkat(v->dirfd, NAME, 0) && errno != ENOENT ? -errno : 0; }
