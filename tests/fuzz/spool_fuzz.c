/* A segment of a spool, under a fixed key: what does not verify never comes out, and nothing is read past the end. The header's and the records' checks cannot be guessed, so
 * the input says which of them to put right. An input that begins with 0xd1 makes a whole spool's directory, `delivered` and the position's note included. */
#include <dirent.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leadglass/bytes.h"
#include "scratch.h"
#include "spool.h"

static struct lg_secret *key;
static struct lg_siv *siv;

/* ---- a directory ------------------------------------------------------------------------------------------------------------------------------------------- */

static char dir[64];

static void empty(void)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
}

static void gone(void)
{
    empty();
    rmdir(dir);
}

static void put(const char *name, const void *p, size_t len)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0 || write(fd, p, len) != (ssize_t)len)
        abort();
    close(fd);
}

/* Most are small. */
static uint64_t any(struct lg_rd *r)
{
    uint8_t n = lg_rd_u8(r);
    return n < 0xf0 ? n : n < 0xff ? UINT64_MAX - 0xff + n + 1 : lg_rd_u64(r);
}

/* 1 byte what is wrong, its number, how many records, how much is cut off. */
static void segment(struct lg_rd *r)
{
    static uint8_t b[2048];
    uint8_t flags = lg_rd_u8(r), body[100];
    uint64_t number = any(r);
    unsigned records = lg_rd_u8(r) % 4, cut = lg_rd_u8(r);
    char name[64];
    size_t at = LG_SPOOL_HEADER, n;
    if (lg_spool_header_make(key, flags & 1 ? number + 1 : number, b))
        abort();
    for (unsigned i = 0; i < records; i++) {
        memset(body, (int)i, sizeof body);
        if (lg_spool_seal(siv, b, flags & 2 ? 1 : at, body, i * 7 + 1, b + at, &n))
            abort();
        at += n;
    }
    if (flags & 4)
        b[at - 1] ^= 1;
    snprintf(name, sizeof name, flags & 8 ? "%llu.spool" : "%08llu.spool", (unsigned long long)number);
    put(name, b, cut < at ? at - cut : 0);
}

/* Whatever was there: once it is open, what is put comes out last, and does so again after another start, until it is done with. */
static void use(const struct lg_spool_options *o, uint8_t what)
{
    static uint8_t out[LG_SPOOL_RECORD_MAX];
    struct lg_spool *s;
    struct lg_spool_note note;
    struct lg_spool_state st;
    char text[] = "0 is what is put";
    size_t n = 0;
    int rc = lg_spool_open(o, &s);
    if (rc == -EKEYREJECTED)
        return;
    if (rc)
        abort();
    text[0] = (char)what;
    rc = lg_spool_put(s, text, sizeof text);
    if (rc == -EOVERFLOW) { /* no number is left, and it is said */
        lg_spool_close(s);
        return;
    }
    if (rc || lg_spool_sync(s, &note))
        abort();
    lg_spool_state(s, &st);
    if (st.empty || lg_spool_place_cmp(&note.first, &note.end) >= 0)
        abort();
    struct lg_spool_place at = lg_spool_first(s), before;
    for (unsigned i = 0; (rc = lg_spool_next(s, &at, out, &n)) == 1; i++)
        if (i > 100)
            abort();
    if (rc || n != sizeof text || memcmp(out, text, n) != 0)
        abort();
    lg_spool_close(s);
    struct lg_spool_options again = *o;
    again.note = &note;
    if (lg_spool_open(&again, &s))
        abort();
    at = before = lg_spool_first(s);
    for (n = 0; (rc = lg_spool_next(s, &at, out, &n)) == 1; before = at)
        ;
    if (rc || n != sizeof text || memcmp(out, text, n) != 0 || lg_spool_done(s, &before))
        abort();
    lg_spool_state(s, &st);
    if (!st.empty)
        abort();
    lg_spool_close(s);
}

/* 1 byte: 1 there is a note, 2 `delivered`, 4 its check is right, 8 something is cut off; the note's and its numbers; then segments. */
static void directory(const uint8_t *d, size_t len)
{
    struct lg_rd r = lg_rd(d, len);
    uint8_t flags = lg_rd_u8(&r), b[LG_SPOOL_NOTE + 20];
    struct lg_spool_note note, *known = NULL;
    struct lg_wr w = lg_wr(b, sizeof b);
    if (flags & 1) {
        for (unsigned i = 0; i < 4; i++)
            lg_wr_u64(&w, any(&r));
        known = lg_spool_note_decode(b, w.len, &note) ? NULL : &note;
    }
    if (flags & 2) {
        w = lg_wr(b, sizeof b);
        lg_wr_u64(&w, any(&r));
        lg_wr_u64(&w, any(&r));
        lg_wr_u32(&w, lg_crc32c(0, b, 16) ^ !(flags & 4));
        put("delivered", b, w.len - (flags & 8 ? 1 : 0));
    }
    for (unsigned i = 0; i < 5 && lg_rd_ok(&r) && r.left; i++)
        segment(&r);
    struct lg_spool_options o = { .dir = dir, .key = key, .max = LG_SPOOL_MIN, .note = known };
    use(&o, 'a');
    o.note = NULL;
    use(&o, 'b');
    empty();
}

/* ---- bytes ---------------------------------------------------------------------------------------------------------------------------------------------------- */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static uint8_t out[LG_SPOOL_RECORD_MAX], sealed[LG_SPOOL_RECORD_MAX + 64];
    struct lg_spool_note note;
    uint8_t header[LG_SPOOL_HEADER];
    if (!key) {
        if (lg_secret_init(true) || lg_crypto_init() || !(key = lg_secret_new()) || lg_siv_new(key, &siv))
            abort();
        fuzz_dir("lgspool", dir, sizeof dir);
        atexit(gone);
    }
    if (len && *data == 0xd1) {
        directory(data + 1, len - 1);
        return 0;
    }
    if (lg_spool_note_decode(data, len, &note) == 0) {
        uint8_t again[LG_SPOOL_NOTE];
        lg_spool_note_encode(&note, again);
        if (memcmp(again, data, len) != 0)
            abort();
    }
    if (len < LG_SPOOL_HEADER)
        return 0;
    if (lg_spool_header_check(key, 1, data) == 0 && memcmp(data, "LGSPOOL1", 8) != 0)
        abort();
    memcpy(header, data, sizeof header);
    size_t n, taken, at = LG_SPOOL_HEADER;
    for (int rc = 0; !rc && at <= len; at += rc ? 0 : taken) { /* as they stand */
        uint8_t *exact = malloc(len - at + 1); /* reading past the end is seen */
        if (!exact)
            return 0;
        memcpy(exact, data + at, len - at);
        rc = lg_spool_unseal(siv, header, at, exact, len - at, out, &n, &taken);
        if (!rc && (taken != n + 20 || taken > len - at))
            abort();
        free(exact);
    }
    size_t body = len - LG_SPOOL_HEADER;
    if (body && body <= LG_SPOOL_RECORD_MAX) { /* as they should be: comes back, and nowhere else */
        if (lg_spool_seal(siv, header, 77, data + LG_SPOOL_HEADER, body, sealed, &n) || lg_spool_unseal(siv, header, 77, sealed, n, out, &body, &taken) || taken != n ||
            memcmp(out, data + LG_SPOOL_HEADER, body) != 0)
            abort();
        if (lg_spool_unseal(siv, header, 78, sealed, n, out, &body, &taken) != -EBADMSG || lg_spool_unseal(siv, header, 77, sealed, n - 1, out, &body, &taken) != -EAGAIN)
            abort();
        sealed[data[0] % n] ^= 1;
        int rc = lg_spool_unseal(siv, header, 77, sealed, n, out, &body, &taken);
        if (rc != -EBADMSG && rc != -EAGAIN)
            abort();
    }
    return 0;
}
