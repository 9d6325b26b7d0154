/* For tests that cut the power: the machine's chip with its NV places as files of w/, every write of which is durable at once, so that the power goes before
 * one as before any other call. */
#ifndef LG_TEST_NVFILE_H
#define LG_TEST_NVFILE_H

#include <fcntl.h>

#include "office.h"

enum { NV = 0x1800000, PLACES = 4, PLACE_LEN = LG_ID_LEN + 8 + LG_KEY_LEN };

static const char *place(uint32_t nv)
{
    char name[24];
    snprintf(name, sizeof name, "w/nv-%u", nv - NV);
    return at(name);
}

static int chip_sync(void)
{
    int fd = open(at("w"), O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = fsync(fd) ? -EIO : 0;
    close(fd);
    return rc;
}

static int nv_make(void *arg, const uint8_t id[LG_ID_LEN], uint32_t *ret_nv)
{
    (void)arg, (void)id;
    for (uint32_t i = 0; i < PLACES; i += 2) {
        if (access(place(NV + i), F_OK) == 0 || access(place(NV + i + 1), F_OK) == 0)
            continue;
        for (uint32_t j = 0; j < 2; j++) {
            int fd = open(place(NV + i + j), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
            if (fd < 0)
                return -EIO;
            close(fd);
        }
        *ret_nv = NV + i;
        return chip_sync();
    }
    return -ENOSPC;
}

static int nv_read(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret)
{
    uint8_t b[PLACE_LEN];
    (void)arg;
    int fd = open(place(nv), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, b, sizeof b);
    if (fd >= 0)
        close(fd);
    if (n != PLACE_LEN)
        return -ENODATA;
    if (memcmp(b, id, LG_ID_LEN) != 0)
        return -EXDEV;
    memcpy(ret_epoch, b + LG_ID_LEN, 8);
    memcpy(ret->b, b + LG_ID_LEN + 8, LG_KEY_LEN);
    return 0;
}

static int nv_write(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t epoch, const struct lg_secret *value)
{
    uint8_t b[PLACE_LEN];
    (void)arg;
    int fd = open(place(nv), O_WRONLY | O_DSYNC | O_CLOEXEC);
    if (fd < 0)
        return -ENODATA;
    memcpy(b, id, LG_ID_LEN);
    memcpy(b + LG_ID_LEN, &epoch, 8);
    memcpy(b + LG_ID_LEN + 8, value->b, LG_KEY_LEN);
    int rc = pwrite(fd, b, sizeof b, 0) == (ssize_t)sizeof b ? 0 : -EIO;
    close(fd);
    return rc;
}

static int nv_free(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN])
{
    (void)arg, (void)id;
    if (access(place(nv), F_OK))
        return -ENODATA;
    return unlink(place(nv)) ? -EIO : chip_sync();
}

static int unseal(void *arg, const uint8_t *sealed, size_t len, struct lg_secret *ret)
{
    (void)arg, (void)sealed, (void)len, (void)ret;
    return -EXDEV;
}

static const struct lg_chip chip = { .unseal = unseal, .nv_make = nv_make, .nv_read = nv_read, .nv_write = nv_write, .nv_free = nv_free };

#endif
