/* Whole files below, as a stranger may have left them, made here under fixed keys so that what lies behind checksums, MACs and the accumulator is reached: header, two
 * slots, a sparse table, chunks; each right or wrong in some way, and bytes of the input put anywhere. Opened with keys (one that ends cleanly, a crash, read-only, with
 * errors from below), read, written, committed and opened again; checked without keys; salvaged.
 *
 * What must hold: without a session that ended uncleanly a file opens if and only if everything about it is right, and then silently; what is refused is reported; a chunk
 * reads exactly if the very bytes that were sealed for that place, length and key stand there under their own entry, and gives these and no others; otherwise it is
 * reported; the check without keys is silent about what is whole and finds each chunk that its checksum is not of; salvage gives no byte that was not sealed, and all of a
 * file that is whole; no descriptor is left. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"
#include "../../fs/file/internal.h"
#include "leadglass/file.h"
#include "leadglass/keys.h"
#include "scratch.h"

#define MUST(x) do { if (!(x)) { fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #x); abort(); } } while (0)

enum { CS = 4096, PIECES = 12, RUN = 70, RAWS = 8, MOST = 9000, COUNTED = 600, WRITTEN = 0x5a };
static const uint8_t kid_of[] = "gpsrn"; /* general, provisional, study; revoked; a keyring that cannot be asked */
enum { KEYS = 3, KIDS = 5 };

/* ---- keys and errors -------------------------------------------------------------------------------------------------------------------------------- */
static int src_key(uint8_t tag, uint32_t version, enum lg_key_kind kind, struct lg_key *ret)
{
    if (tag == 'r' || tag == 'n')
        return tag == 'r' ? -EKEYREVOKED : -ENOKEY;
    *ret = (struct lg_key){ .version = version ? version : 1, .kind = kind, .state = LG_KEY_ACTIVE, .key = lg_secret_new() };
    MUST(ret->key);
    memset(ret->kid, tag, LG_ID_LEN);
    memset(ret->key->b, tag, LG_KEY_LEN);
    return 0;
}
static int src_vault(void *arg, const uint8_t id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    (void)arg, (void)id;
    return src_key('v', 1, LG_KIND_VAULT, v) || src_key('g', 1, LG_KIND_GENERAL, g);
}
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease)
{
    (void)arg, (void)info;
    *lease = 100000;
    return src_key('s', 1, LG_KIND_STUDY, ret);
}
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 100000;
    return version != 1 || !memchr(kid_of, kid[0], KIDS) ? -ENOKEY : src_key(kid[0], 1, kid[0] == 'p' ? LG_KIND_PROVISIONAL : LG_KIND_STUDY, ret);
}
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease)
{
    (void)arg;
    *lease = 100000;
    return src_key('p', 1, LG_KIND_PROVISIONAL, ret);
}
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    (void)arg, (void)kid, (void)info;
    return 0;
}
static const struct lg_key_source source = { .vault = src_vault, .study = src_study, .by_id = src_by_id, .provisional = src_provisional, .attach = src_attach };

static unsigned fail_in; /* the n-th changing call from now on and all after it; 0: none */
static bool failed;
static int trip(void)
{
    if (fail_in && --fail_in == 0) {
        failed = true;
        fail_in = 1;
        return -EIO;
    }
    return 0;
}
static ssize_t f_pwritev(void *arg, int fd, const struct iovec *v, int n, off_t off) { return trip() ? -EIO : lg_sys_posix.pwritev(arg, fd, v, n, off); }
static int f_fdatasync(void *arg, int fd) { return trip() ? -EIO : lg_sys_posix.fdatasync(arg, fd); }
static int f_ftruncate(void *arg, int fd, off_t len) { return trip() ? -EIO : lg_sys_posix.ftruncate(arg, fd, len); }
static bool cold; /* nothing of it is in memory below */
static ssize_t f_pread_cached(void *arg, int below, void *b, size_t len, off_t off) { return cold ? -EAGAIN : lg_sys_posix.pread_cached(arg, below, b, len, off); }

/* ---- the world, made once ----------------------------------------------------------------------------------------------------------------------------- */
static struct lg_sys sys;
static struct lg_keys *keys;
static struct lg_journal *journal;
static struct lg_filekey *filekey[KIDS];
static uint8_t vault_id[LG_ID_LEN], file_id[LG_ID_LEN], s0[LG_SECTOR];
static char dir[64];
static int dirfd, fd; /* fd: the file below, one for all inputs */
static struct lg_pool *pool;

static void gone(void)
{
    (void)!lg_journal_close(journal);
    unlinkat(dirfd, LG_JOURNAL_NAME, 0);
    unlinkat(dirfd, "root/f", 0);
    unlinkat(dirfd, "root", AT_REMOVEDIR);
    rmdir(dir);
}

static void begin(void)
{
    MUST(!lg_secret_init(true) && !lg_crypto_init());
    sys = lg_sys_posix;
    sys.pwritev = f_pwritev;
    sys.fdatasync = f_fdatasync;
    sys.ftruncate = f_ftruncate;
    sys.pread_cached = f_pread_cached;
    memset(vault_id, 'v', sizeof vault_id);
    memset(file_id, 'f', sizeof file_id);
    struct lg_s0 s = { .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = CS };
    memcpy(s.vault_id, vault_id, LG_ID_LEN);
    memcpy(s.file_id, file_id, LG_ID_LEN);
    lg_s0_encode(&s, s0);
    for (unsigned k = 0; k < KIDS; k++) {
        LG_SECRET_AUTO key = lg_secret_new();
        uint8_t kid[LG_ID_LEN];
        MUST(key);
        memset(key->b, kid_of[k], LG_KEY_LEN);
        memset(kid, kid_of[k], LG_ID_LEN);
        struct lg_siv *wrap;
        MUST(!lg_filekey_wrap(key, &wrap) && !lg_filekey_make_with(wrap, kid, 1, &s, &filekey[k]));
        lg_siv_free(wrap);
    }
    MUST(!lg_keys_new(&source, vault_id, &keys));
    fuzz_dir("lgfile", dir, sizeof dir);
    MUST((dirfd = open(dir, O_RDONLY | O_DIRECTORY)) >= 0 && !mkdirat(dirfd, "root", 0700));
    MUST(!lg_journal_create(&lg_sys_posix, dirfd, vault_id) && !lg_journal_open(&sys, dirfd, vault_id, false, &journal));
    MUST(!lg_pool_new(2, &pool));
    MUST((fd = openat(dirfd, "root/f", O_RDWR | O_CREAT, 0600)) >= 0);
    atexit(gone);
}

/* ---- the input -------------------------------------------------------------------------------------------------------------------------------------------- */
static const uint8_t *in;
static size_t in_left;
static unsigned u8(void) { return in_left ? in_left--, *in++ : 0; }
static unsigned u16(void) { unsigned a = u8(); return a | u8() << 8; }

/* ---- the file ----------------------------------------------------------------------------------------------------------------------------------------------- */
struct piece { /* the last one of a chunk counts */
    uint64_t i;
    uint32_t len; /* as sealed; 0: made up */
    unsigned key;
    uint8_t fill, entry[LG_ENTRY_LEN], cipher[CS];
};
static struct piece piece[PIECES + RUN];
static unsigned n_piece;
struct made { /* a slot */
    bool there, ok; /* decodes; is right in itself: wrap, MAC, accumulator */
    struct lg_slot s;
    unsigned key;
    uint8_t raw[LG_SECTOR];
};
static struct made slot[2];
static bool raws, s0_ok;

static void put(const void *p, size_t n, uint64_t off) { MUST(pwrite(fd, p, n, (off_t)off) == (ssize_t)n); }
static uint8_t byte_of(const struct piece *p, uint64_t at) { return (uint8_t)(p->fill ^ p->i * 7 ^ at); }

static uint64_t index_of(void)
{
    unsigned a = u8();
    return a < 200 ? a : a < 240 ? u16() % COUNTED : u16() % MOST;
}

static void make_piece(void)
{
    struct piece *p = &piece[n_piece++];
    uint8_t plain[CS];
    unsigned how = u8();
    p->i = index_of();
    p->key = (how >> 4) % KEYS;
    p->len = how & 8 ? u16() % CS + 1 : CS;
    p->fill = (uint8_t)u8();
    for (uint32_t k = 0; k < p->len; k++)
        plain[k] = byte_of(p, k);
    MUST(!lg_chunk_seal(filekey[p->key], file_id, p->i, plain, p->len, p->cipher, p->entry));
    uint32_t len = p->len;
    switch (how & 7) {
    case 0: /* made up */
        for (unsigned k = 0; k < LG_ENTRY_LEN; k++)
            p->entry[k] = (uint8_t)u8();
        p->len = 0;
        break;
    case 1: /* of another place */
        MUST(!lg_chunk_seal(filekey[p->key], file_id, p->i + 1, plain, p->len, p->cipher, p->entry));
        p->len = 0;
        break;
    case 2: /* of another file */
        MUST(!lg_chunk_seal(filekey[p->key], vault_id, p->i, plain, p->len, p->cipher, p->entry));
        p->len = 0;
        break;
    case 3: /* a byte is wrong */
        p->cipher[u16() % len] ^= 1;
        p->len = 0;
        break;
    default:
        break;
    }
    put(p->cipher, len, lg_format_chunk_off(CS, p->i));
    put(p->entry, LG_ENTRY_LEN, lg_format_entry_off(CS, p->i));
}

/* Whole ones in a row, long enough to be read in parts. */
static void make_run(void)
{
    uint8_t plain[CS];
    uint64_t from = u8();
    unsigned key = u8() % KEYS, fill = u8();
    for (unsigned k = 0; k < RUN; k++) {
        struct piece *p = &piece[n_piece++];
        *p = (struct piece){ .i = from + k, .len = CS, .key = key, .fill = (uint8_t)fill };
        for (uint32_t j = 0; j < CS; j++)
            plain[j] = byte_of(p, j);
        MUST(!lg_chunk_seal(filekey[key], file_id, p->i, plain, CS, p->cipher, p->entry));
        put(p->cipher, CS, lg_format_chunk_off(CS, p->i));
        put(p->entry, LG_ENTRY_LEN, lg_format_entry_off(CS, p->i));
    }
}

/* Does a later one stand at the same place? */
static bool over(unsigned k)
{
    for (unsigned j = k + 1; j < n_piece; j++)
        if (piece[j].i == piece[k].i)
            return true;
    return false;
}

static uint64_t size_of(void)
{
    unsigned how = u8(), a = u8();
    uint64_t most = 0;
    switch (how & 3) {
    case 0: /* up to the end of some piece */
        for (unsigned k = 0; k < n_piece; k++)
            if (piece[k].i * CS >= most)
                most = piece[k].i * CS + (piece[k].len ? piece[k].len : CS);
        return most;
    case 1:
        return (uint64_t)a * CS;
    case 2:
        return (uint64_t)a * CS / 2 + how;
    default:
        return ((uint64_t)a << 8 | how) % MOST * CS;
    }
}

static void make_slot(struct made *m, const struct made *other)
{
    unsigned how = u8(), wrong = u8();
    uint8_t acc[LG_PRF_OUT] = { 0 };
    memset(m, 0, sizeof *m);
    if ((how & 7) == 0)
        return;
    m->key = (how >> 3) % KIDS;
    struct lg_filekey *k = filekey[m->key];
    m->s.seq = u8();
    m->s.session = u8() % 5;
    m->s.size = size_of();
    m->s.chunk_writes = how & 128 ? LG_CHUNK_WRITES_MAX - 1 : 20;
    m->s.durable_size = wrong & 64 ? m->s.size / 2 : wrong & 128 ? 0 : m->s.size;
    for (unsigned j = 0; j < n_piece; j++)
        if (!over(j) && piece[j].i < lg_format_chunks(CS, m->s.size))
            MUST(!lg_acc_xor(k, piece[j].i, piece[j].entry, 1, acc));
    wrong &= 7;
    if (wrong == 1)
        acc[0] ^= 1;
    if (wrong == 2)
        k->wrapped[0] ^= 1;
    if (wrong == 3)
        k->commitment[0] ^= 1;
    MUST(!lg_slot_encode(&m->s, k, acc, s0, other->raw, m->raw));
    if (wrong == 2)
        k->wrapped[0] ^= 1;
    if (wrong == 3)
        k->commitment[0] ^= 1;
    if (wrong == 4) { /* the MAC */
        m->raw[480] ^= 1;
        uint32_t crc = lg_crc32c(0, m->raw, 508);
        memcpy(m->raw + 508, &crc, 4);
    }
    if (wrong == 5)
        m->raw[510] ^= 1; /* the checksum */
    m->there = wrong != 5;
    m->ok = !wrong || wrong > 5;
}

static void make_s0(void)
{
    unsigned how = u8();
    uint8_t head[LG_SECTOR];
    struct lg_s0 s;
    MUST(!lg_s0_decode(s0, &s));
    s0_ok = how < 240;
    if (!s0_ok) {
        if (how & 1)
            s.version = 2;
        if (how & 2)
            s.chunk_size = how & 8 ? 2 * CS : 7;
        if (how & 4)
            s.vault_id[0] ^= 1;
        if (!(how & 7))
            s.suite = 0;
    }
    lg_s0_encode(&s, head);
    put(head, sizeof head, 0);
}

/* Returns the number of the newest slot that decodes, or -1; *whole: everything about the file is as that slot says. */
static int make(bool *whole, bool run)
{
    bool exact;
    MUST(!ftruncate(fd, 0));
    n_piece = 0;
    raws = false;
    make_s0();
    for (unsigned n = u8() % (PIECES + 1); n; n--)
        make_piece();
    if (run)
        make_run();
    unsigned shape = u8(), older = shape & 1;
    memset(slot, 0, sizeof slot);
    make_slot(&slot[older], &slot[1 - older]);
    make_slot(&slot[1 - older], &slot[older]);
    put(slot[0].raw, LG_SECTOR, LG_SECTOR);
    put(slot[1].raw, LG_SECTOR, 2 * LG_SECTOR);
    int newest = slot[0].there || slot[1].there ? slot[1].there && (!slot[0].there || slot[1].s.seq > slot[0].s.seq) : -1;
    uint64_t size = newest < 0 ? 0 : slot[newest].s.size, n = lg_format_chunks(CS, size), phys = lg_format_cipher_size(CS, size);
    exact = newest >= 0;
    if (shape >= 200) {
        uint64_t other = shape & 2 ? phys + u16() : shape & 4 ? phys - u8() : (uint64_t)u16();
        exact = exact && other == phys;
        phys = other;
    }
    MUST(!ftruncate(fd, (off_t)phys));
    for (unsigned k = 0; k < n_piece; k++)
        if (!over(k) && !lg_entry_empty(piece[k].entry) && piece[k].i >= n && (piece[k].i < LG_HEAD_ENTRIES || (n > LG_HEAD_ENTRIES && piece[k].i < n - 1 + lg_format_run(n - 1))))
            exact = false; /* an unused entry that is none */
    *whole = false;
    if (newest >= 0 && s0_ok && slot[newest].ok && exact) {
        uint8_t h[LG_MAC_LEN];
        MUST(!lg_sha256_2(s0, LG_SECTOR, slot[1 - newest].raw, LG_SECTOR, h));
        *whole = slot[newest].key < KEYS && !memcmp(h, slot[newest].s.other_hash, sizeof h);
    }
    for (unsigned k = shape & 8 ? u8() % RAWS : 0; k && in_left; k--) {
        uint8_t b[64];
        unsigned a = u8(), len = u8() % sizeof b + 1;
        uint64_t off = a < 128 ? u16() % LG_HEADER_LEN : u16() * 64ull % (phys + 1);
        for (unsigned j = 0; j < len; j++)
            b[j] = (uint8_t)u8();
        if (off + len <= phys) {
            put(b, len, off);
            raws = true;
        }
    }
    return newest;
}

/* ---- what may be read of it ------------------------------------------------------------------------------------------------------------------------------------ */
static bool entry_at(uint64_t i, uint8_t e[LG_ENTRY_LEN])
{
    memset(e, 0, LG_ENTRY_LEN);
    return pread(fd, e, LG_ENTRY_LEN, (off_t)lg_format_entry_off(CS, i)) == LG_ENTRY_LEN;
}

/* What stands at chunk i, as long as len, to whom has that key (any: KIDS). NULL: nothing that was sealed for it. */
static const struct piece *stands(uint64_t i, uint32_t len, unsigned key)
{
    uint8_t e[LG_ENTRY_LEN], b[CS];
    if (!entry_at(i, e) || pread(fd, b, len, (off_t)lg_format_chunk_off(CS, i)) != (ssize_t)len)
        return NULL;
    for (unsigned k = 0; k < n_piece; k++) {
        const struct piece *p = &piece[k];
        /* The crc in an entry is for those without a key. */
        if (p->i == i && p->len == len && (key == KIDS || p->key == key) && !memcmp(p->entry, e, LG_ENTRY_LEN - 4) && !memcmp(p->cipher, b, len))
            return p;
    }
    return NULL;
}

static void same(const struct piece *p, const uint8_t *b, uint32_t from, size_t n)
{
    for (size_t k = 0; k < n; k++)
        MUST(b[k] == byte_of(p, from + k));
}

static unsigned findings;
static void on_finding(void *arg, const struct lg_finding *f)
{
    (void)arg;
    MUST(f->kind && (!f->to || f->from < f->to));
    findings++;
}

static void read_chunk(struct lg_file *f, uint64_t i, uint64_t size, unsigned key, uint64_t written)
{
    uint8_t b[CS], e[LG_ENTRY_LEN];
    uint32_t len = size - i * CS < CS ? (uint32_t)(size - i * CS) : CS, from = len / 3;
    if (i * CS >= size) {
        MUST(lg_file_read(f, b, sizeof b, i * CS) == 0);
        return;
    }
    unsigned before = findings;
    bool hole = i != written && (!entry_at(i, e) || lg_entry_empty(e));
    const struct piece *p = hole || i == written ? NULL : stands(i, len, key);
    for (unsigned part = 0; part < 2; part++) { /* all of it, and some */
        uint32_t at = part ? from : 0;
        memset(b, 0xaa, sizeof b);
        ssize_t n = lg_file_read(f, b, part ? len - from : sizeof b, i * CS + at);
        if (hole || p || i == written) {
            MUST(n == (ssize_t)(len - at));
            for (ssize_t k = 0; hole && k < n; k++)
                MUST(b[k] == 0);
            for (ssize_t k = 0; i == written && k < n; k++)
                MUST(b[k] == WRITTEN);
            if (p)
                same(p, b, at, (size_t)n);
        } else {
            MUST(n == -EBADMSG && findings > before);
        }
    }
}

static void read_some(struct lg_file *f, uint64_t size, unsigned key, uint64_t written)
{
    static uint8_t b[300 * 1024];
    for (unsigned k = 0; k < n_piece; k++) {
        read_chunk(f, piece[k].i, size, key, written);
        read_chunk(f, piece[k].i + 1, size, key, written);
    }
    read_chunk(f, 0, size, key, written);
    if (size)
        read_chunk(f, (size - 1) / CS, size, key, written);
    unsigned before = findings;
    ssize_t n = lg_file_read(f, b, sizeof b, 0);
    MUST(n == (ssize_t)(size < sizeof b ? size : sizeof b) || (n == -EBADMSG && findings > before));
}

static unsigned key_of(struct lg_file *f)
{
    uint8_t kid[LG_ID_LEN], soon[LG_ID_LEN];
    uint32_t version, soon_version;
    MUST(lg_file_kid(f, kid, &version) && version == 1 && lg_file_kid_soon(f, soon, &soon_version) && soon_version == 1 && !memcmp(kid, soon, LG_ID_LEN));
    const uint8_t *at = memchr(kid_of, kid[0], KEYS);
    MUST(at);
    return (unsigned)(at - kid_of);
}

static int rest(void *arg, size_t n)
{
    (void)arg, (void)n;
    return 0;
}

/* ---- with keys ------------------------------------------------------------------------------------------------------------------------------------------------------- */
/* One chunk of a file that is open is written anew, in whole. */
static void write_one(struct lg_file *f, uint64_t size, unsigned key, unsigned how)
{
    static uint8_t b[CS];
    struct lg_file_look l;
    uint64_t n = lg_format_chunks(CS, size), i = n && how & 4 ? (how >> 3) % n : n;
    unsigned before = findings;
    memset(b, WRITTEN, sizeof b);
    int rc = lg_file_write(f, b, i < n && i == n - 1 && size % CS ? size % CS : CS, i * CS);
    if (rc) { /* the last chunk, which grows, does not verify; the key may seal no more; an error below */
        MUST((rc == -EBADMSG || rc == -EIO) && (findings > before || failed));
        return;
    }
    if (!(how & 128)) { /* a time that nobody has seen may become that of the file below */
        lg_file_look(f, &l);
        MUST(l.size >= size && l.dirty);
    }
    rc = lg_file_commit(f);
    MUST(!rc || failed || ((rc == -EIO || rc == -EBADMSG) && findings > before));
    if (rc)
        return;
    if (how & 1)
        lg_file_drop_keys(f, false);
    if (how & 2) {
        rc = lg_file_sync(f);
        MUST(!rc || failed);
    }
    if (failed)
        return;
    fail_in = 0;
    uint64_t grown = i < n ? size : i * CS + CS;
    if (grown > size && size % CS) /* what was its last chunk has been sealed again */
        for (unsigned k = 0; k < n_piece; k++)
            if (piece[k].i == n - 1)
                piece[k].len = 0;
    if (grown == size || !(size % CS))
        read_some(f, grown, key, i);
    lg_file_look(f, &l);
    MUST(l.size == grown && !l.mtime_below);
}

static void keyed(unsigned how, unsigned more, bool whole)
{
    static const uint64_t unclean[] = { 1, 2 };
    struct lg_suspects *suspects = more & 8 ? NULL : lg_suspects_new();
    MUST(suspects || more & 8);
    if (more & 16)
        lg_suspects_add(suspects, vault_id); /* others before it */
    if (more & 32)
        lg_suspects_add(suspects, file_id); /* an error below before it was closed last */
    struct lg_file_env env = { .sys = &sys, .keys = keys, .journal = journal, .chunk_size = CS, .session = 4, .unclean = unclean, .n_unclean = how & 2 ? 2 : 0,
                               .read_only = how & 1, .accept_crash = (how & 12) == 12, .suspects = suspects, .finding = on_finding, .pool = more & 64 ? pool : NULL };
    memcpy(env.vault_id, vault_id, LG_ID_LEN);
    struct lg_file *f;
    bool clean = !env.n_unclean && !env.accept_crash && !lg_suspects_has(suspects, file_id);
    findings = 0;
    failed = false;
    fail_in = how & 16 ? u8() % 32 : 0;
    cold = more & 4;
    int rc = lg_file_open(&env, fcntl(fd, F_DUPFD_CLOEXEC, 0), "f", &f);
    if (failed) { /* what it left is recovered by the next */
        MUST(rc == -EIO);
        fail_in = 0;
        failed = false;
        findings = 0;
        clean = false;
        rc = lg_file_open(&env, fcntl(fd, F_DUPFD_CLOEXEC, 0), "f", &f);
    }
    if (clean && !raws)
        MUST(whole ? !rc && !findings : rc != 0);
    if (rc) {
        MUST(rc == -EBADMSG || rc == -ENOKEY || rc == -EKEYREVOKED || rc == -EPROTONOSUPPORT);
        MUST(rc == -EKEYREVOKED || findings);
        lg_suspects_free(suspects);
        return;
    }
    struct lg_file_identity id;
    uint64_t size = lg_file_size(f), bad = 0, wrong = 0;
    unsigned key = key_of(f);
    MUST(!lg_file_identity(f, &id) && id.size == size && !memcmp(id.file_id, file_id, LG_ID_LEN));
    if (!raws)
        MUST(size == slot[0].s.size || size == slot[1].s.size);
    read_some(f, size, key, UINT64_MAX);
    uint64_t n = lg_format_chunks(CS, size);
    if (n <= COUNTED) {
        uint8_t e[LG_ENTRY_LEN];
        for (uint64_t i = 0; i < n; i++)
            if (entry_at(i, e) && !lg_entry_empty(e))
                wrong += !stands(i, size - i * CS < CS ? (uint32_t)(size - i * CS) : CS, key);
        MUST(!lg_file_verify(f, rest, NULL, &bad) && bad == wrong);
    }
    if (!env.read_only)
        write_one(f, size, key, u8());
    MUST(!lg_suspects_has(suspects, file_id) || lg_suspects_any(suspects));
    bool broken = failed;
    fail_in = 0;
    lg_file_free(f);
    /* What was opened and closed without an error below stands there complete: a session later it opens as it is, whatever it was before. Without a list
     * to be put on nobody knows whether it was. */
    if (!env.read_only && !broken && suspects && !lg_suspects_has(suspects, file_id)) {
        env.n_unclean = 0;
        env.accept_crash = false;
        env.session = 5;
        findings = 0;
        rc = lg_file_open(&env, fcntl(fd, F_DUPFD_CLOEXEC, 0), "f", &f);
        MUST(!rc && !findings);
        lg_file_free(f);
    }
    if (suspects) { /* its last name goes while nobody has it open */
        uint8_t head[LG_SECTOR];
        struct lg_s0 now;
        lg_suspects_gone(&env, fd);
        if (pread(fd, head, sizeof head, 0) == (ssize_t)sizeof head && !lg_s0_decode(head, &now))
            MUST(!lg_suspects_has(suspects, now.file_id));
    }
    lg_suspects_free(suspects);
}

/* ---- without keys --------------------------------------------------------------------------------------------------------------------------------------------------------- */
static unsigned told[LG_SCRUB_CLASSES];
static void on_scrub(void *arg, const struct lg_scrub_finding *f)
{
    (void)arg;
    told[f->cls]++;
}
static int pace(void *arg, const struct lg_scrub_stat *s, bool at_rest, const char *position)
{
    (void)s, (void)at_rest, (void)position;
    return *(const int *)arg;
}

static void keyless(unsigned how, int newest, bool whole)
{
    int stop = how & 32 ? -ECANCELED : 0;
    const struct lg_scrub_options o = { .finding = on_scrub, .pace = pace, .arg = &stop };
    struct scrub s = { .o = &o, .sys = &lg_sys_posix, .chunk_size = how & 64 ? 0 : CS, .started = time(NULL) };
    uint8_t pending[2][LG_ID_LEN] = { "someone else's" };
    memcpy(pending[1], file_id, LG_ID_LEN);
    memcpy(s.vault_id, vault_id, LG_ID_LEN);
    s.pending = pending;
    s.n_pending = how & 128 ? 2 : 0;
    memset(told, 0, sizeof told);
    int rc = lg_scrub_keyless_file(&s, fd);
    MUST(rc == 0 || (stop && rc == stop));
    uint64_t size = newest < 0 ? 0 : slot[newest].s.size;
    bool right = true;
    for (unsigned k = 0; k < n_piece; k++)
        if (!over(k) && piece[k].i * CS < size && !lg_entry_empty(piece[k].entry)) {
            uint32_t len = size - piece[k].i * CS < CS ? (uint32_t)(size - piece[k].i * CS) : CS, want;
            memcpy(&want, piece[k].entry + LG_NONCE_LEN + LG_TAG_LEN, 4);
            uint8_t b[CS];
            ssize_t got = pread(fd, b, len, (off_t)lg_format_chunk_off(CS, piece[k].i));
            right = right && got == (ssize_t)len && lg_crc32c(0, b, len) == want;
        }
    if (!raws && !stop && newest >= 0 && s0_ok) {
        MUST(right || told[LG_SCRUB_DAMAGE] || told[LG_SCRUB_UNFINISHED]);
        static const uint8_t never[LG_SECTOR];
        const struct made *other = &slot[1 - newest];
        bool fine = whole && right && (other->there || !memcmp(other->raw, never, sizeof never));
        MUST(fine ? !s.n_reported && s.st.verified == 1 : !whole || !s.st.verified);
    }
    free(s.lower.p);
}

/* Names, links and attributes: what looks like a sealed one. */
static void names_below(unsigned how)
{
    char text[300];
    size_t n = 0;
    int stop = 0;
    const struct lg_scrub_options o = { .finding = on_scrub, .pace = pace, .arg = &stop };
    struct scrub s = { .o = &o, .sys = &lg_sys_posix };
    for (; n < sizeof text - 1 && in_left; n++)
        if (!(text[n] = (char)u8()))
            break;
    text[n] = 0;
    (void)lg_scrub_keyless_name_ok(dirfd, text);
    (void)lg_scrub_keyless_dirid_ok(dirfd);
    if (n && symlinkat(text, dirfd, LG_DIRID_NAME) == 0) {
        MUST(lg_scrub_keyless_dirid_ok(dirfd) <= (n == LG_DIRID_TEXT_LEN));
        memset(told, 0, sizeof told);
        MUST(!lg_scrub_keyless_link(&s, dirfd, LG_DIRID_NAME) && s.n_reported <= 1);
        unlinkat(dirfd, LG_DIRID_NAME, 0);
    }
    MUST(!lg_scrub_keyless_link(&s, dirfd, "is not there"));
    if (n > 1 && n < 200 && !strchr(text, '/')) {
        char name[256], lower[256];
        snprintf(name, sizeof name, "user.lg.%s", text);
        snprintf(lower, sizeof lower, "%s%s", LG_LONG_PREFIX, text);
        (void)lg_scrub_keyless_name_ok(dirfd, lower);
        if (fsetxattr(fd, name, text, how & 1 ? n : 0, 0) == 0) {
            fsetxattr(fd, "user.lg.mtime", "1", 1, 0);
            unsigned before = s.n_reported;
            MUST(!lg_scrub_keyless_xattrs(&s, fd));
            MUST(!(how & 1) ? s.n_reported == before + (strcmp(name, "user.lg.mtime") != 0) : s.n_reported <= before + 1); /* none so short is sealed */
            fremovexattr(fd, name);
            fremovexattr(fd, "user.lg.mtime");
        }
    }
    free(s.lower.p);
}

/* ---- salvage ------------------------------------------------------------------------------------------------------------------------------------------------------------------ */
static uint64_t saved, saved_n;
static int on_put(void *arg, uint64_t off, const void *data, size_t len)
{
    const struct piece *p = off % CS ? NULL : stands(off / CS, (uint32_t)len, KIDS);
    (void)arg;
    MUST(p);
    same(p, data, 0, len);
    saved += len;
    saved_n++;
    return 0;
}
static int on_lost(void *arg, uint64_t from, uint64_t to)
{
    (void)arg;
    MUST(from < to && from % CS == 0);
    return 0;
}

static void salvage(int newest, bool whole)
{
    struct lg_file_env env = { .sys = &sys, .keys = keys, .journal = journal, .chunk_size = CS, .session = 4, .read_only = true, .finding = on_finding };
    const struct lg_salvage_sink sink = { .put = on_put, .lost = on_lost };
    struct lg_salvaged r = { 0 };
    memcpy(env.vault_id, vault_id, LG_ID_LEN);
    saved = saved_n = 0;
    int rc = lg_file_salvage(&env, fd, &sink, &r);
    MUST(rc == 0 || rc == -EBADMSG || rc == -ENOKEY || rc == -EKEYREVOKED);
    if (rc)
        MUST(!saved);
    else
        MUST(r.good == saved && r.good <= r.size);
    if (whole && !raws) {
        const struct lg_slot *s = &slot[newest].s;
        bool tie = slot[0].s.seq == slot[1].s.seq; /* no file has two such slots: either may be gone by */
        uint64_t there = 0;
        for (unsigned k = 0; k < n_piece; k++)
            if (!over(k) && piece[k].i * CS < s->size && stands(piece[k].i, s->size - piece[k].i * CS < CS ? (uint32_t)(s->size - piece[k].i * CS) : CS, slot[newest].key))
                there++;
        MUST(saved_n >= there && (rc == 0 || (rc == -EBADMSG && !there && (s->size || tie))));
        if (!rc && !tie)
            MUST(r.size == s->size);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!dirfd)
        begin();
    in = data;
    in_left = len;
    unsigned how = u8(), more = u8();
    bool whole;
    int newest = make(&whole, more & 128), lowest = dup(0);
    close(lowest);
    keyless(how, newest, whole);
    salvage(newest, whole);
    keyed(how & 31, more, whole); /* last: it may change the file */
    if (more & 1)
        names_below(more >> 1);
    int again = dup(0);
    close(again);
    MUST(again == lowest);
    return 0;
}
