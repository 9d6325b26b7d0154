/* What opening a vault reads before there is a key: leadglass.vault, and the journal with its areas and records, which is replayed.
 *
 * Input: flags, then for each area a byte (how many records), and the records: 2 bytes of length in sectors and of what is made good, 64 bytes of the fixed
 * part that follow the file id, then operations. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../fs/journal/internal.h"
#include "leadglass/format.h"
#include "leadglass/volume.h"
#include "scratch.h"

static const uint8_t vault_id[LG_ID_LEN] = { 'v' }, file_id[LG_ID_LEN] = { 'f' };
static char dir[64], vault[80];
static int dirfd_, rootfd, journal, file;
static struct lg_jfile self;
static uint8_t slot[2][LG_SECTOR]; /* of two file keys */

static void gone(void)
{
    unlinkat(rootfd, "a", 0);
    unlinkat(rootfd, "link", 0);
    unlinkat(rootfd, "sub", AT_REMOVEDIR);
    unlinkat(dirfd_, "root", AT_REMOVEDIR);
    unlinkat(dirfd_, LG_JOURNAL_NAME, 0);
    unlinkat(dirfd_, "leadglass.vault", 0);
    rmdir(dir);
}

static void slots_make(void)
{
    static const uint8_t kid[LG_ID_LEN], acc[LG_PRF_OUT];
    struct lg_s0 s0 = { .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = 4096 };
    uint8_t raw[LG_SECTOR], none[LG_SECTOR] = { 0 };
    LG_SECRET_AUTO key = lg_secret_new();
    lg_s0_encode(&s0, raw);
    for (unsigned i = 0; i < 2; i++) {
        struct lg_slot s = { .seq = 3 + i, .session = 1 };
        struct lg_siv *wrap;
        struct lg_filekey *k;
        if (!key || lg_filekey_wrap(key, &wrap) || lg_filekey_make_with(wrap, kid, 1, &s0, &k) || lg_slot_encode(&s, k, acc, raw, none, slot[i]))
            abort();
        lg_filekey_free(k);
        lg_siv_free(wrap);
    }
}

static void begin(void)
{
    fuzz_dir("lgvault", dir, sizeof dir);
    if (lg_secret_init(true) || lg_crypto_init() || (dirfd_ = open(dir, O_RDONLY | O_DIRECTORY)) < 0 || mkdirat(dirfd_, "root", 0700) ||
        (rootfd = openat(dirfd_, "root", O_RDONLY | O_DIRECTORY)) < 0 || lg_journal_create(&lg_sys_posix, dirfd_, vault_id) ||
        mkdirat(rootfd, "sub", 0700) || symlinkat("x", rootfd, "link") || (journal = openat(dirfd_, LG_JOURNAL_NAME, O_RDWR)) < 0 || (file = openat(rootfd, "a", O_RDWR | O_CREAT, 0600)) < 0)
        abort();
    snprintf(vault, sizeof vault, "%s/leadglass.vault", dir);
    lg_jfile_init(&self, journal, vault_id);
    lg_jfile_locate(&self);
    slots_make();
    atexit(gone);
}

static void put(int fd, const void *p, size_t len, off_t off)
{
    if (pwrite(fd, p, len, off) != (ssize_t)len)
        abort();
}

static void file_reset(unsigned flags)
{
    uint8_t head[LG_HEADER_LEN] = { 0 };
    struct lg_s0 s0 = { .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = 4096 };
    memcpy(s0.vault_id, vault_id, LG_ID_LEN);
    memcpy(s0.file_id, file_id, LG_ID_LEN);
    lg_s0_encode(&s0, head);
    if (flags & 16)
        memcpy(head + LG_SECTOR, slot[0], LG_SECTOR);
    if (flags & 64)
        memcpy(head + 2 * LG_SECTOR, slot[1], LG_SECTOR);
    if (ftruncate(file, 0))
        abort();
    put(file, head, flags & 4 ? 700 : sizeof head, 0);
}

static const uint8_t *take(const uint8_t **p, size_t *left, size_t n)
{
    const uint8_t *at = *p;
    if (n > *left)
        return NULL;
    *p += n;
    *left -= n;
    return at;
}

/* Records one behind the other in area a; generation is that of the area. */
static void area(unsigned a, uint64_t generation, const uint8_t **p, size_t *left, unsigned n)
{
    static uint8_t r[64 * LG_SECTOR];
    uint64_t off = lg_area_off(a) + LG_AREA_DATA, number = 1;
    memset(r, 0, LG_SECTOR);
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *head = take(p, left, 2 + 64);
        if (!head)
            break;
        uint32_t len = (1 + head[0] % 64u) * LG_SECTOR, room = len - LG_JREC_FIXED, zero = 0;
        size_t body = *left < room ? *left : room;
        memset(r, 0, len);
        memcpy(r + 44, head + 2, 64);
        memcpy(r + LG_JREC_FIXED, take(p, left, body), body);
        memcpy(r, "LJR1", 4);
        memcpy(r + 4, &len, 4);
        memcpy(r + 12, &generation, 8);
        memcpy(r + 20, &number, 8);
        memcpy(r + 28, file_id, LG_ID_LEN);
        memcpy(r + 180, head + 2, 28); /* seq, time, number and length of the operations */
        if (!(head[1] & 1))
            r[28] = head[1]; /* of another file */
        if (head[1] & 2)
            number++;
        if (head[1] & 16) { /* the handle of the file, as the journal would have noted it */
            struct lg_jfile f;
            struct lg_wr w = lg_wr(r + 44, 136);
            lg_jfile_init(&f, file, file_id);
            lg_jfile_locate(&f);
            lg_wr_u32(&w, (uint32_t)f.handle_type);
            lg_wr_u32(&w, f.handle_len);
            lg_wr_bytes(&w, f.handle, f.handle_len);
        }
        if (!(head[1] & 4)) { /* one operation, its length made good */
            uint32_t one = 1, ops = 24;
            uint64_t data = (uint64_t)r[LG_JREC_FIXED + 16] | (uint64_t)r[LG_JREC_FIXED + 17] << 8;
            if (r[LG_JREC_FIXED] % 4 == 1) {
                data %= room - 24 + 1;
                ops += (uint32_t)data;
            }
            memset(r + LG_JREC_FIXED + 1, 0, 7);
            r[LG_JREC_FIXED] %= 4;
            memset(r + LG_JREC_FIXED + 12, 0, 4); /* not behind 4 GiB */
            memcpy(r + LG_JREC_FIXED + 16, &data, 8);
            memcpy(r + 200, &one, 4);
            memcpy(r + 204, &ops, 4);
        }
        if (head[1] & 8 && len >= 2 * LG_SECTOR) { /* one that writes a slot */
            static const uint32_t one = 1, write[2] = { LG_JOP_WRITE, 0 }, ops = 24 + LG_SECTOR;
            static const uint64_t at[2] = { LG_SECTOR, LG_SECTOR };
            memcpy(r + 200, &one, 4);
            memcpy(r + 204, &ops, 4);
            memcpy(r + LG_JREC_FIXED, write, 8);
            memcpy(r + LG_JREC_FIXED + 8, at, 16);
            memcpy(r + LG_JREC_FIXED + 24, slot[head[1] >> 7], LG_SECTOR);
        }
        memcpy(r + 8, &zero, 4);
        uint32_t crc = lg_crc32c(0, r, len);
        memcpy(r + 8, &crc, 4);
        put(journal, r, len, (off_t)off);
        off += len;
    }
    memset(r, 0, LG_SECTOR);
    put(journal, r, LG_SECTOR, (off_t)off);
}

static int seen(void *arg, const uint8_t id[LG_ID_LEN])
{
    (void)id;
    return ++*(unsigned *)arg > 1000 ? -E2BIG : 0;
}

static void header(const uint8_t *data, size_t len)
{
    struct lg_vault_info info;
    uint8_t h[LG_SECTOR] = { 0 };
    memcpy(h, data, len < sizeof h ? len : sizeof h);
    int fd = open(vault, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (fd < 0)
        abort();
    put(fd, h, len & 1 ? 100 : sizeof h, 0);
    (void)!lg_vault_read(dir, &info);
    memcpy(h, "LGVAULT\n", 8);
    uint32_t crc = lg_crc32c(0, h, LG_SECTOR - 4);
    memcpy(h + LG_SECTOR - 4, &crc, 4);
    put(fd, h, sizeof h, 0);
    if (lg_vault_read(dir, &info) == 0 && (info.version != 1 || info.chunk_size < LG_CHUNK_SIZE_MIN))
        abort();
    close(fd);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_journal *j;
    uint8_t good[LG_SECTOR];
    unsigned n = 0;
    if (!dir[0])
        begin();
    const uint8_t *head = take(&data, &len, 4);
    if (!head)
        return 0;
    if (head[0] & 1) {
        header(data, len);
        return 0;
    }
    file_reset(head[0]);
    for (unsigned a = 0; a < 2; a++) {
        if (lg_area_header_write(&lg_sys_posix, &self, a, 1 + (head[1 + a] >> 6), head[1 + a] & 32))
            abort();
        area(a, 1 + (head[1 + a] >> 6), &data, &len, head[1 + a] & 31);
    }
    if (head[0] & 2) /* one byte of a header, whatever it does to it */
        put(journal, head + 3, 1, head[3] & 1 ? head[3] / 2 : (off_t)lg_area_off(head[3] >> 7) + head[3] % 64);
    (void)!lg_journal_unretired(&lg_sys_posix, &self, seen, &n);
    if (lg_journal_open(&lg_sys_posix, dirfd_, vault_id, head[0] & 8, &j) == 0)
        (void)!lg_journal_close(j);
    memset(good, 0, sizeof good);
    struct lg_wr w = lg_wr(good, sizeof good);
    lg_wr_bytes(&w, "LGJRNL\r\n", 8);
    lg_wr_u32(&w, LG_JOURNAL_VERSION);
    lg_wr_u32(&w, LG_AREA_LEN);
    lg_wr_bytes(&w, vault_id, LG_ID_LEN);
    uint32_t crc = lg_crc32c(0, good, LG_SECTOR - 4);
    memcpy(good + LG_SECTOR - 4, &crc, 4);
    put(journal, good, sizeof good, 0);
    return 0;
}
