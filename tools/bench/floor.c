/* The passthrough, made to pay for what reading costs by docs/FORMAT.md: a name is sealed at each lookup; at open the header is read, the file key unwrapped, its keys derived, slot,
 * other slot and 32 entries verified; whole chunks are read and opened. Nothing else is done, no byte is encrypted, and what is opened is thrown away: what such a
 * filesystem can have at most on a machine, beside what leadglass has there. */
#include "floor.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leadglass/format.h"
#include "leadglass/names.h"

enum { CHUNK = 16 * 1024, PART = 256 * 1024 /* opened while it is in the processor's cache */, ENTRIES = 32, FILES = 1 << 16 };

static struct lg_names *names;
static struct lg_siv *wrap;
static uint8_t s0_raw[LG_SECTOR], slot_raw[LG_SECTOR], other_raw[LG_SECTOR], entries[LG_HEAD_ENTRIES * LG_ENTRY_LEN];
static struct lg_filekey *key_of[FILES]; /* by descriptor */

static void must(bool ok)
{
    if (!ok)
        abort();
}

void floor_begin(void)
{
    struct lg_s0 s0 = { .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = CHUNK };
    struct lg_slot slot = { .seq = 1, .size = ENTRIES * CHUNK };
    uint8_t kid[LG_ID_LEN] = { 1 }, acc[LG_PRF_OUT] = { 0 };
    struct lg_filekey *k = NULL;
    must(!lg_secret_init(true) && !lg_crypto_init());
    struct lg_secret *key = lg_secret_random();
    lg_s0_encode(&s0, s0_raw);
    memset(entries, 1, ENTRIES * LG_ENTRY_LEN);
    must(key && !lg_names_new(key, &names) && !lg_filekey_wrap(key, &wrap) && !lg_filekey_make_with(wrap, kid, 1, &s0, &k) &&
         !lg_slot_encode(&slot, k, acc, s0_raw, other_raw, slot_raw));
    lg_filekey_free(k);
    lg_secret_free(key);
}

void floor_lookup(const char *name)
{
    char sealed[LG_SEALED_NAME_MAX + 1];
    uint8_t id[LG_ID_LEN] = { 0 };
    must(!lg_name_seal(names, id, name, sealed));
}

void floor_open(int fd)
{
    uint8_t head[LG_HEADER_LEN], acc[LG_PRF_OUT], hash[LG_MAC_LEN];
    struct stat st;
    struct lg_s0 s0;
    struct lg_slot slot;
    struct lg_filekey *k = NULL;
    must(fd < FILES);
    if (fd < 0)
        return;
    must(!fstat(fd, &st) && pread(fd, head, sizeof head, 0) >= 0);
    must(!lg_s0_decode(s0_raw, &s0) && !lg_slot_decode(slot_raw, &slot) && !lg_filekey_open_with(wrap, &slot, &s0, &k) && !lg_slot_verify(slot_raw, &slot, k, s0_raw, acc) &&
         !lg_sha256_2(s0_raw, sizeof s0_raw, other_raw, sizeof other_raw, hash) && !lg_acc_xor(k, 0, entries, LG_HEAD_ENTRIES, acc));
    key_of[fd] = k;
}

/* Sealing costs what opening does. */
static void pay(int fd, const char *buf, size_t size)
{
    static _Thread_local char out[CHUNK];
    uint8_t nonce[LG_NONCE_LEN] = { 0 }, ad[28] = { 0 }, tag[LG_TAG_LEN];
    for (size_t at = 0; at < size; at += CHUNK)
        must(!lg_gcm_seal(key_of[fd]->gcm, nonce, ad, sizeof ad, buf + at, size - at < CHUNK ? size - at : CHUNK, out, tag));
}

ssize_t floor_read(int fd, char *buf, size_t size, off_t off)
{
    static _Thread_local char whole[CHUNK];
    size_t in = (size_t)(off % CHUNK), done = 0;
    ssize_t n = 0;
    if (!key_of[fd])
        return pread(fd, buf, size, off);
    if (in + size <= CHUNK && size < CHUNK) {
        n = pread(fd, whole, sizeof whole, off - (off_t)in);
        if (n > 0)
            pay(fd, whole, (size_t)n);
        n = n < (ssize_t)in ? 0 : n - (ssize_t)in;
        n = n < (ssize_t)size ? n : (ssize_t)size;
        memcpy(buf, whole + in, (size_t)n);
        return n;
    }
    while (done < size && (n = pread(fd, buf + done, size - done < PART ? size - done : PART, off + (off_t)done)) > 0) {
        pay(fd, buf + done, (size_t)n);
        done += (size_t)n;
    }
    return n < 0 ? n : (ssize_t)done;
}

void floor_release(int fd)
{
    lg_filekey_free(key_of[fd]);
    key_of[fd] = NULL;
}
