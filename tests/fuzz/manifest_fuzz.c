/* Bytes of a manifest: decoding is bounded, and what decodes encodes to the same bytes. The same as a whole file: one whose end, MAC and signature are not right is not read, one
 * whose are gives every entry, and one that was interrupted is gone on with up to where it can be read. What is looked at without a key is as strict, but for the MAC. One of version 1
 * is read without a signature, and never one of version 2 that has lost it. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "leadglass/scrub.h"
#include "manifest.h"
#include "scratch.h"

static char path[LG_MANIFEST_PATH_MAX + 1];
static struct lg_secret *key, *seed, *mac_key;
static uint8_t pub[LG_SIGN_PUB_LEN];
static const uint8_t vault[LG_ID_LEN] = { 'v' };
static char dir[64], file[80], part[90];

static void gone(void)
{
    unlink(file);
    unlink(part);
    rmdir(dir);
}

static void begin(void)
{
    fuzz_dir("lgmanifest", dir, sizeof dir);
    if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || !(seed = lg_secret_new()) || !(mac_key = lg_secret_new()) || lg_sign_public(seed, pub) ||
        lg_derive(key, "leadglass manifest", NULL, 0, mac_key))
        abort();
    snprintf(file, sizeof file, "%s/m", dir);
    snprintf(part, sizeof part, "%s.part", file);
    atexit(gone);
}

static void as_file(const char *at, const uint8_t *p, size_t len)
{
    FILE *f = fopen(at, "we");
    if (!f || fwrite(p, 1, len, f) != len || fclose(f))
        abort();
}

static int sign(void *arg, struct lg_manifest_sig *s)
{
    (void)arg;
    s->signed_at = 8;
    return lg_manifest_sig_make(s, seed);
}

static unsigned entries(uint32_t version)
{
    struct lg_manifest_reader *r;
    struct lg_item it;
    const char *at;
    unsigned n = 0;
    int rc = lg_manifest_open(file, vault, key, pub, &r);
    if (rc)
        abort();
    while (!(rc = lg_manifest_next(r, &it, &at)))
        n++;
    if (rc != -ENOENT || lg_manifest_info(r)->created != 7 || lg_manifest_info(r)->version != version || lg_manifest_rewind(r))
        abort();
    lg_manifest_reader_free(r);
    return n;
}

/* What stands in the file, as a version before signatures would have written it; and cut off there without being made so. */
static void from_before(unsigned n)
{
    uint8_t in[LG_MANIFEST_HEADER + 8 + LG_MAC_LEN], *h = in + LG_MANIFEST_HEADER + 8, before[LG_MAC_LEN];
    struct lg_manifest_reader *r;
    struct lg_manifest_look l;
    FILE *f = fopen(file, "re");
    if (!f || fseek(f, 0, SEEK_END))
        abort();
    size_t size = (size_t)ftell(f), end = size - LG_MANIFEST_SIG_LEN, at = LG_MANIFEST_HEADER, k;
    uint8_t *b = malloc(size);
    rewind(f);
    if (!b || fread(b, 1, size, f) != size || fclose(f))
        abort();
    as_file(file, b, end);
    if (lg_manifest_open(file, vault, key, pub, &r) != -ENODATA || lg_manifest_look(file, &l) != -ENODATA)
        abort();
    b[8] = LG_MANIFEST_MAC_ONLY;
    as_file(file, b, end);
    if (lg_manifest_open(file, vault, key, pub, &r) != -EBADMSG)
        abort();
    memcpy(in, b, LG_MANIFEST_HEADER);
    if (lg_sha256(b, LG_MANIFEST_HEADER, h))
        abort();
    for (; (k = lg_item_len(b + at)) != 0; at += k) {
        memcpy(before, h, sizeof before);
        if (lg_sha256_2(before, sizeof before, b + at, k, h))
            abort();
    }
    memcpy(in + LG_MANIFEST_HEADER, b + at + 8, 8);
    memcpy(b + at + 16, h, LG_MAC_LEN);
    if (at + LG_MANIFEST_END != end || lg_hmac(mac_key, in, sizeof in, b + at + 48))
        abort();
    as_file(file, b, end);
    if (entries(LG_MANIFEST_MAC_ONLY) != n || lg_manifest_look(file, &l) || l.is_signed || l.sig.entries != n)
        abort();
    as_file(part, b, at); /* begun without, it is not gone on with */
    struct lg_manifest_info info = { .version = LG_MANIFEST_SIGNED };
    struct lg_manifest_writer *w;
    memcpy(info.vault_id, vault, LG_ID_LEN);
    if (lg_manifest_create(file, &info, "~", &w) != -EALREADY)
        abort();
    free(b);
}

/* Whole, of the entries that the input has: added one by one; interrupted behind some, and gone on with; then a byte of it changed. */
static void whole(const uint8_t *data, size_t len)
{
    struct lg_manifest_info info = { .version = LG_MANIFEST_SIGNED, .created = 7, .session = 1 };
    struct lg_manifest_look l;
    struct lg_manifest_writer *w;
    struct lg_manifest_reader *r;
    struct lg_item it;
    unsigned n = 0, again = 0;
    static char last[LG_MANIFEST_PATH_MAX + 1];
    memcpy(info.vault_id, vault, LG_ID_LEN);
    last[0] = 0;
    if (lg_manifest_create(file, &info, NULL, &w))
        abort();
    for (size_t at = 0; len - at >= 4;) {
        size_t k = lg_item_len(data + at);
        if (!k || k > len - at)
            break;
        if (!lg_item_decode(data + at, k, &it, path) && lg_path_cmp(path, last) > 0) {
            if (lg_manifest_add(w, path, &it))
                abort();
            strcpy(last, path);
            n++;
        }
        at += k;
    }
    if (lg_manifest_flush(w))
        abort();
    lg_manifest_writer_free(w); /* interrupted */
    if (len && data[0] & 1 && truncate(part, (off_t)(LG_MANIFEST_HEADER + (n ? LG_MANIFEST_FIXED / 2 : 0))))
        abort();
    if (len && data[0] & 1)
        n = 0; /* torn in its first entry */
    if (lg_manifest_create(file, &info, len && data[0] & 2 ? "" : last, &w))
        abort();
    if (len && data[0] & 2) /* all behind the beginning is written anew */
        n = last[0] ? 0 : n;
    it = (struct lg_item){ .type = LG_ITEM_DIR, .state = LG_ITEM_VERIFIED };
    for (; again < 2; again++) {
        snprintf(path, sizeof path, "~%u", again);
        if (lg_manifest_add(w, path, &it))
            abort();
    }
    if (lg_manifest_finish(w, key, sign, NULL))
        abort();
    lg_manifest_writer_free(w);
    if (entries(LG_MANIFEST_SIGNED) != n + again || lg_manifest_look(file, &l) || !l.is_signed || l.sig.entries != n + again || l.sig.begun != 7 || memcmp(l.sig.pub, pub, sizeof pub) != 0)
        abort();
    if (len > 4 && data[4] & 1) {
        from_before(n + again);
        return;
    }
    FILE *f = fopen(file, "r+e");
    if (!f || fseek(f, 0, SEEK_END))
        abort();
    long size = ftell(f), at = len > 3 ? (data[1] | data[2] << 8) % size : 0;
    fseek(f, at, SEEK_SET);
    int c = fgetc(f);
    fseek(f, at, SEEK_SET);
    fputc(c ^ (len > 3 && data[3] ? data[3] : 1), f);
    fclose(f);
    bool mac = at >= size - (long)LG_MANIFEST_SIG_LEN - LG_MAC_LEN && at < size - (long)LG_MANIFEST_SIG_LEN;
    if ((lg_manifest_look(file, &l) == 0) != mac)
        abort();
    if (lg_manifest_open(file, vault, key, pub, &r) == 0)
        abort();
    static const uint8_t other[LG_ID_LEN] = { 'o' };
    if (lg_manifest_open(file, other, key, pub, &r) == 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_manifest_info info = { .version = LG_MANIFEST_SIGNED };
    struct lg_manifest_look l;
    struct lg_manifest_reader *r;
    struct lg_manifest_writer *w;
    struct lg_item it;
    if (!key)
        begin();
    as_file(file, data, len);
    as_file(part, data, len);
    if (lg_manifest_open(file, vault, key, pub, &r) == 0) /* nobody sealed it */
        abort();
    (void)!lg_manifest_look(file, &l);
    memcpy(info.vault_id, vault, LG_ID_LEN);
    if (lg_manifest_create(file, &info, len & 1 ? "" : "a/b", &w) == 0)
        lg_manifest_writer_free(w);
    if (len < LG_MANIFEST_HEADER)
        return 0;
    if (!lg_manifest_header_decode(data, &info)) {
        uint8_t again[LG_MANIFEST_HEADER];
        lg_manifest_header_encode(&info, again);
        if (memcmp(again, data, sizeof again) != 0)
            abort();
    }
    for (size_t at = LG_MANIFEST_HEADER; len - at >= 4;) {
        size_t n = lg_item_len(data + at);
        if (!n || n > len - at)
            break;
        if (!lg_item_decode(data + at, n, &it, path)) {
            uint8_t *again = malloc(n);
            if (!again || lg_item_encode(&it, path, again) != n || memcmp(again, data + at, n) != 0)
                abort();
            free(again);
            (void)lg_path_cmp(path, "a/b");
        }
        at += n;
    }
    whole(data + LG_MANIFEST_HEADER, len - LG_MANIFEST_HEADER);
    return 0;
}
