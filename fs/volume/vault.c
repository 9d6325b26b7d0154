#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

#define VAULT_MAGIC "LGVAULT\n"
#define VAULT_VERSION 1u

enum { CRC_AT = LG_SECTOR - 4, MAC_AT = CRC_AT - LG_MAC_LEN };

static int vault_mac(const struct lg_secret *vault_key, const uint8_t h[LG_SECTOR], uint8_t mac[LG_MAC_LEN])
{
    LG_SECRET_AUTO k = lg_secret_new();
    if (!k)
        return -ENOMEM;
    int rc = lg_derive(vault_key, "leadglass vault header", NULL, 0, k);
    return rc ? rc : lg_hmac(k, h, MAC_AT, mac);
}

static int encode(const struct lg_vault_info *i, const struct lg_secret *vault_key, uint8_t out[LG_SECTOR])
{
    memset(out, 0, LG_SECTOR);
    struct lg_wr w = lg_wr(out, LG_SECTOR);
    lg_wr_bytes(&w, VAULT_MAGIC, 8);
    lg_wr_u32(&w, VAULT_VERSION);
    lg_wr_u32(&w, LG_SUITE_1);
    lg_wr_u32(&w, i->chunk_size);
    lg_wr_bytes(&w, i->vault_id, LG_ID_LEN);
    lg_wr_bytes(&w, i->keyring_id, LG_ID_LEN);
    int rc = vault_mac(vault_key, out, out + MAC_AT);
    w = lg_wr(out + CRC_AT, 4);
    lg_wr_u32(&w, lg_crc32c(0, out, CRC_AT));
    return rc;
}

static int header_read(int dirfd, uint8_t h[LG_SECTOR])
{
    int fd = openat(dirfd, LG_VAULT_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (fd < 0)
        return -errno;
    ssize_t n = lg_sys_read_full(&lg_sys_posix, fd, h, LG_SECTOR, 0);
    close(fd);
    return n < 0 ? (int)n : n < (ssize_t)LG_SECTOR ? -EPROTO : 0;
}

static int decode(const uint8_t h[LG_SECTOR], struct lg_vault_info *ret)
{
    struct lg_rd r = lg_rd(h, MAC_AT), c = lg_rd(h + CRC_AT, 4);
    struct lg_vault_info i;
    const uint8_t *magic = lg_rd_bytes(&r, 8);
    i.version = lg_rd_u32(&r);
    uint32_t suite = lg_rd_u32(&r);
    i.chunk_size = lg_rd_u32(&r);
    lg_rd_copy(&r, i.vault_id, LG_ID_LEN);
    lg_rd_copy(&r, i.keyring_id, LG_ID_LEN);
    if (memcmp(magic, VAULT_MAGIC, 8) != 0)
        return -EPROTO;
    if (i.version > VAULT_VERSION || suite > LG_SUITE_1)
        return -EPROTONOSUPPORT; /* before the checksum: a newer version may keep it elsewhere */
    if (lg_rd_u32(&c) != lg_crc32c(0, h, CRC_AT) || !i.version || !suite || !lg_format_chunk_size_ok(i.chunk_size))
        return -EPROTO;
    *ret = i;
    return 0;
}

int lg_vault_read(const char *dir, struct lg_vault_info *ret)
{
    uint8_t h[LG_SECTOR];
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    int rc = header_read(dirfd, h);
    close(dirfd);
    return rc ? rc : decode(h, ret);
}

int lg_vault_verify(int dirfd, const struct lg_secret *vault_key, struct lg_vault_info *ret)
{
    uint8_t h[LG_SECTOR], mac[LG_MAC_LEN];
    int rc = header_read(dirfd, h);
    if (!rc)
        rc = decode(h, ret);
    if (!rc)
        rc = vault_mac(vault_key, h, mac);
    return rc ? rc : lg_equal(mac, h + MAC_AT, LG_MAC_LEN) ? 0 : -EBADMSG;
}

static int dir_empty(int dirfd)
{
    int fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    int rc = 0;
    for (struct dirent *e; !rc && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && strcmp(e->d_name, "lost+found") != 0)
            rc = -ENOTEMPTY;
    closedir(d);
    return rc;
}

static int root_make(int dirfd, const struct lg_secret *vault_key)
{
    char text[LG_DIRID_TEXT_LEN + 1];
    uint8_t id[LG_ID_LEN];
    struct lg_names *names;
    int rc = lg_names_new(vault_key, &names);
    if (rc)
        return rc;
    rc = lg_random(id, sizeof id);
    if (!rc)
        rc = lg_dirid_seal(names, id, text);
    lg_names_free(names);
    if (!rc && mkdirat(dirfd, LG_ROOT_NAME, 0755))
        rc = -errno;
    int fd = rc ? -1 : openat(dirfd, LG_ROOT_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (!rc && fd < 0)
        rc = -errno;
    if (!rc && (fchmod(fd, 0755) || symlinkat(text, fd, LG_DIRID_NAME) || fsync(fd)))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

int lg_vault_create(const char *dir, const struct lg_vault_info *info, const struct lg_secret *vault_key)
{
    uint8_t h[LG_SECTOR];
    if (!lg_format_chunk_size_ok(info->chunk_size))
        return -EINVAL;
    bool made = mkdir(dir, 0700) == 0;
    if (!made && errno != EEXIST)
        return -errno;
    int dirfd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dirfd < 0)
        return -errno;
    int rc = dir_empty(dirfd);
    if (rc) {
        close(dirfd);
        return rc;
    }
    rc = lg_journal_create(&lg_sys_posix, dirfd, info->vault_id);
    if (!rc)
        rc = root_make(dirfd, vault_key);
    if (!rc)
        rc = encode(info, vault_key, h);
    int fd = -1;
    if (!rc && (fd = openat(dirfd, LG_VAULT_NAME, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
        rc = -errno;
    if (!rc)
        rc = lg_sys_write_full(&lg_sys_posix, fd, h, sizeof h, 0);
    if (!rc && (fsync(fd) || fsync(dirfd)))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (rc) { /* nothing is left behind */
        unlinkat(dirfd, LG_VAULT_NAME, 0);
        unlinkat(dirfd, LG_JOURNAL_NAME, 0);
        unlinkat(dirfd, LG_ROOT_NAME "/" LG_DIRID_NAME, 0);
        unlinkat(dirfd, LG_ROOT_NAME, AT_REMOVEDIR);
        if (made)
            rmdir(dir);
    } else if (made) { /* so is its own name */
        int up = openat(dirfd, "..", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (up >= 0) {
            if (fsync(up))
                rc = -errno;
            close(up);
        }
    }
    close(dirfd);
    return rc;
}
