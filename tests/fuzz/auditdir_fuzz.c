/* The directory of an access log as somebody may hand it over: what names its chain, segments plain and compressed, heads. Read, judged, its ends looked for, followed.
 *
 * Input: a byte of flags, one of how many of the files come only while it is followed, then files: a byte (which; how), 2 bytes of length, the bytes. Some octets stand
 * for whole lines of a good chain. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../keymgr/audit/dir.h"
#include "../../keymgr/audit/pack.h"
#include "leadglass/follow.h"
#include "scratch.h"

enum { CHAIN = 12, BIG = 1 << 20, PIECE = 256 * 1024 };
static char dir[64], chain[80], position[80];
static int chainfd;
static const uint8_t chain_id[LG_ID_LEN] = { 7, 7 };
static char lines[CHAIN][LG_AUDIT_LINE_MAX], heads[CHAIN][LG_AUDIT_HEAD_MAX];
static size_t line_len[CHAIN], head_len[CHAIN];
static uint8_t pub[LG_SIGN_PUB_LEN];
static char file[BIG];

static void empty(void)
{
    DIR *d = opendir(chain);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.')
            unlinkat(chainfd, e->d_name, unlinkat(chainfd, e->d_name, 0) ? AT_REMOVEDIR : 0);
    if (d)
        closedir(d);
    unlink(position);
}

static void gone(void)
{
    char lock[90];
    empty();
    snprintf(lock, sizeof lock, "%s.lock", position);
    unlink(lock);
    rmdir(chain);
    rmdir(dir);
}

static void begin(void)
{
    static struct lg_audit_record r;
    uint8_t prev[LG_MAC_LEN], digest[LG_MAC_LEN] = { 0 };
    LG_SECRET_AUTO seed = NULL;
    if (lg_secret_init(true) || lg_crypto_init() || !(seed = lg_secret_new()) || lg_sign_public(seed, pub))
        abort();
    lg_audit_genesis(chain_id, prev);
    for (unsigned i = 0; i < CHAIN; i++) {
        struct lg_audit_head h = { .n = i + 1, .seq = i + 1, .time_us = 1764019805123456 + (int64_t)i };
        lg_audit_record_init(&r);
        r.seq = i + 1;
        r.time_us = h.time_us;
        memcpy(r.chain, chain_id, sizeof r.chain);
        strcpy(r.event, "file.open");
        r.has = LG_AUDIT_WHO;
        memcpy(r.prev, prev, sizeof prev);
        if (lg_audit_record_encode(&r, prev, lines[i], sizeof lines[i], &line_len[i]))
            abort();
        memcpy(prev, r.hash, sizeof prev);
        memcpy(h.chain, chain_id, LG_ID_LEN);
        memcpy(h.hash, r.hash, LG_MAC_LEN);
        memcpy(h.prev, digest, LG_MAC_LEN);
        if (lg_audit_head_sign(&h, seed) || lg_audit_head_digest(&h, digest) || lg_audit_head_encode(&h, heads[i], sizeof heads[i], &head_len[i]))
            abort();
    }
    fuzz_dir("lgauditdir", dir, sizeof dir);
    snprintf(chain, sizeof chain, "%s/mount-1", dir);
    snprintf(position, sizeof position, "%s/position", dir);
    if (mkdir(chain, 0700) || (chainfd = open(chain, O_RDONLY | O_DIRECTORY)) < 0)
        abort();
    atexit(gone);
}

/* Octets below CHAIN are that record (or head) and a newline; 14: the number in the next, that many bytes of filling; everything else is itself. */
static size_t spelt(const uint8_t *p, size_t n, bool head)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + LG_AUDIT_LINE_MAX + 4096 < sizeof file; i++) {
        if (p[i] < CHAIN) {
            size_t k = head ? head_len[p[i]] : line_len[p[i]];
            memcpy(file + len, head ? heads[p[i]] : lines[p[i]], k);
            len += k;
            file[len++] = '\n';
        } else if (p[i] == 14 && i + 1 < n) {
            size_t k = p[++i] * 300u;
            if (len + k + LG_AUDIT_LINE_MAX + 4096 > sizeof file)
                break;
            memset(file + len, 'x', k);
            len += k;
        } else {
            file[len++] = (char)(p[i] == 15 ? '\n' : p[i]);
        }
    }
    return len;
}

static void put(unsigned what, const uint8_t *p, size_t n)
{
    char name[LG_AUDIT_FILE_NAME];
    unsigned segment = 1 + (what >> 3) % 4;
    const char *at = name;
    switch (what & 7) {
    case 0:
        at = LG_AUDIT_CHAIN_FILE;
        break;
    case 1:
    case 2:
    case 3:
        lg_audit_file_name(segment, LG_AUDIT_PLAIN, name);
        break;
    case 4: /* compressed as it should be */
    case 5: /* made up */
        lg_audit_file_name(segment, LG_AUDIT_PACKED, name);
        break;
    case 6:
        lg_audit_file_name(segment, LG_AUDIT_HEADS, name);
        break;
    default: /* names that are none; or away with it */
        if (what & 64) {
            lg_audit_file_name(segment, what & 128 ? LG_AUDIT_PACKED : LG_AUDIT_PLAIN, name);
            unlinkat(chainfd, name, 0);
            return;
        }
        snprintf(name, sizeof name, "%08u%s", segment, what & 32 ? ".jsonl.tmp" : ".json");
    }
    unlinkat(chainfd, at, 0);
    int fd = openat(chainfd, at, O_RDWR | O_CREAT, 0600), packed = -1;
    size_t len = (what & 7) == 0 || (what & 7) == 5 ? n : spelt(p, n, (what & 7) == 6);
    if (fd < 0)
        abort();
    if ((what & 7) == 0 && n == 0) {
        struct lg_audit_chain c = { .kind = "mount" };
        memcpy(c.id, chain_id, sizeof c.id);
        close(fd);
        if (lg_audit_chain_write(chainfd, &c))
            abort();
        return;
    }
    if ((what & 7) == 4)
        packed = fd, fd = memfd_create("plain", MFD_CLOEXEC);
    if (write(fd, len == n && ((what & 7) == 0 || (what & 7) == 5) ? (const char *)p : file, len) != (ssize_t)len)
        abort();
    if (packed >= 0) {
        if (lseek(fd, 0, SEEK_SET) || lg_pack(fd, packed))
            abort();
        if (what & 64 && n && len) /* a byte of it is wrong */
            (void)!pwrite(packed, p, 1, p[n - 1] % 64);
        if (what & 128)
            (void)!ftruncate(packed, len % 97 + 5);
        close(packed);
    }
    close(fd);
}

static uint64_t seen_lines, seen_bytes;
static int each(void *arg, unsigned segment, const char *s, size_t len, bool cut)
{
    (void)arg, (void)cut;
    if (!segment || len > PIECE || memchr(s, '\n', len)) /* whole within what is read at a time, else cut */
        abort();
    seen_lines++;
    seen_bytes += len;
    return seen_lines > 100000 ? -E2BIG : 0;
}
static int each_head(void *arg, const char *s, size_t len)
{
    (void)arg;
    return memchr(s, '\n', len) ? abort(), 0 : 0;
}

static const uint8_t *in;
static size_t in_left;

static void files(unsigned n)
{
    for (; in_left > 2 && n; n--) {
        unsigned what = in[0];
        size_t k = in[1] | (size_t)in[2] << 8;
        in += 3, in_left -= 3;
        k = k < in_left ? k : in_left;
        put(what, in, k);
        in += k, in_left -= k;
    }
}

/* Read to its end; then it changes, and is read on in the same run, or in one that begins where that ended. */
static void follow(unsigned flags)
{
    struct lg_follow_options o = { .dir = dir, .position = flags & 8 ? NULL : position, .all = flags & 4, .last = flags & 16 ? 3 : 0 };
    struct lg_follow *f;
    struct lg_followed x;
    for (unsigned again = 0; again < 2; again++) {
        if (lg_follow_open(&o, &f))
            return;
        for (unsigned pass = 0; pass < 3; pass++) {
            for (unsigned i = 0; i < 200 && lg_follow_next(f, &x) == 1; i++)
                if (!x.chain || (x.record && !x.line))
                    abort();
            (void)!lg_follow_save(f, "note", 4);
            if (flags & 32 || pass == 2)
                files(2);
        }
        lg_follow_close(f);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct lg_audit_chain c;
    struct lg_audit_report r;
    struct lg_audit_ends ends;
    char current[256];
    unsigned n;
    if (!dir[0])
        begin();
    if (!len)
        return 0;
    unsigned flags = *data;
    in = data + 1, in_left = len - 1;
    unsigned later = in_left ? *in++ % 8 : 0;
    in_left -= in_left != 0;
    empty();
    put(0, NULL, 0);
    files(8 - later);
    struct lg_audit_chain list[4];
    if (lg_audit_chains(dir, list, 4, &n) || n > 1)
        abort();
    if (n && !lg_audit_find(dir, "mount-1", &c)) {
        seen_lines = seen_bytes = 0;
        int rc = lg_audit_read(dir, c.name, flags & 1 ? 2 : 0, each, NULL);
        if (rc && rc != -EBADMSG && rc != -E2BIG)
            abort();
        (void)!lg_audit_read_heads(dir, c.name, each_head, NULL);
        (void)!lg_audit_ends(dir, c.name, &ends);
        (void)!lg_audit_current(dir, c.name, current, sizeof current);
        static struct lg_audit_head against;
        if (!against.n && lg_audit_head_parse(heads[4], head_len[4], &against))
            abort();
        if (lg_audit_verify(dir, &c, flags & 2 ? pub : NULL, flags & 64 ? &against : NULL, flags & 64 ? 1 : 0, &r) == 0 && !lg_audit_verdict_name(r.verdict)[0])
            abort();
    }
    follow(flags);
    return 0;
}
