/* The file of tombstones as a restore reads it, after a small real keyring's backup came in: what stands there in any order, whole and cut off, joined, of other
 * keyrings, signed well and badly. Without bytes of unknown meaning the outcome is known exactly; with them nothing may change that no good signature names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../keymgr/keyring/restore.c"
#include "../../keymgr/keyring/tombstone.c"
#include "scratch.h"

enum { STUDIES = 2, FILE_MAX = 1 << 14, GUESSED = 4 /* bytes that whatever follows a cut may happen to be: the last of a signature is zero in one of 16 */ };
static struct lg_keyring *ring;
static struct lg_secret *seed;
static struct { uint8_t kid[LG_ID_LEN]; uint32_t first, last; } study[STUDIES];
static uint8_t general[LG_ID_LEN];
static char dir[64];

static void gone(void)
{
    static const char *const name[] = { "/keyring/data.mdb", "/keyring/lock.mdb", "/keyring/lock", "/root" };
    char path[128];
    lg_keyring_close(ring);
    for (size_t i = 0; i < sizeof name / sizeof *name; i++)
        snprintf(path, sizeof path, "%s%s", dir, name[i]), unlink(path);
    snprintf(path, sizeof path, "%s/keyring", dir), rmdir(path);
    rmdir(dir);
}

static void need(int rc)
{
    if (rc)
        abort();
}

static void make(void)
{
    static const uint8_t vault[LG_ID_LEN] = "a vault";
    char path[128], slot[128];
    struct lg_roots roots;
    struct lg_key key, other;
    uint8_t pub[LG_SIGN_PUB_LEN], kid[LG_ID_LEN];
    bool created;
    fuzz_dir("lgtombs", dir, sizeof dir);
    snprintf(path, sizeof path, "%s/keyring", dir);
    snprintf(slot, sizeof slot, "%s/root", dir);
    need(lg_keyring_create(path, slot, "pass", 4, 1));
    need(lg_keyring_open(path, slot, NULL, &ring));
    atexit(gone);
    need(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "pass", 4, &roots));
    need(lg_keyring_unlock(ring, &roots));
    lg_roots_done(&roots);
    need(lg_keyring_begin(ring));
    for (unsigned i = 0; i < STUDIES; i++) {
        struct lg_study_info info = { 0 };
        snprintf(info.uid, sizeof info.uid, "1.2.%u", i);
        need(lg_keyring_study_key(ring, &info, &key, &created));
        memcpy(study[i].kid, key.kid, LG_ID_LEN);
        for (unsigned n = 0; n < 2 * i; n++)
            need(lg_keyring_rotate_study(ring, info.uid, kid));
        study[i].first = 1;
        study[i].last = 1 + 2 * i;
    }
    need(lg_keyring_vault_add(ring, vault, &other, &key));
    memcpy(general, key.kid, LG_ID_LEN);
    need(lg_keyring_sign_pub(ring, pub)); /* makes it */
    need(lg_keyring_commit(ring));
    if (!(seed = lg_secret_new()))
        abort();
    need(sign_key(ring, seed));
}

/* ---- the file, and what has to come of it ---------------------------------------------------------------------------------------------------------- */

static uint8_t file[FILE_MAX];
static size_t len;
static int want;
static struct { uint32_t first; bool restored, named; uint32_t retired; } model[STUDIES]; /* named, retired: by any good signature; bit n: version n */
static unsigned quarantined;

static void put(const void *bytes, size_t n)
{
    n = n < sizeof file - len ? n : sizeof file - len;
    if (n)
        memcpy(file + len, bytes, n);
    len += n;
}

static void head(void)
{
    put(set_magic, sizeof set_magic);
    put(ring->meta.keyring_id, LG_ID_LEN);
}

/* flags: 0, 1 whose: a study's, the other's, nobody's, what is no study's; 2 another keyring's; 3 badly signed; 4, 5 version */
static void encode(unsigned flags, uint64_t any, uint8_t b[LG_TOMBSTONE_LEN])
{
    unsigned whose = flags & 3;
    struct lg_tombstone t = { .created = any, .destroyed = any >> 8, .version = flags >> 4 & 3 };
    memcpy(t.keyring_id, ring->meta.keyring_id, LG_ID_LEN);
    t.keyring_id[3] ^= flags >> 2 & 1;
    if (whose != 2)
        memcpy(t.kid, whose == 3 ? general : study[whose].kid, LG_ID_LEN);
    need(lg_tombstone_encode(&t, b));
    need(lg_sign(seed, b, LG_TOMBSTONE_SIGNED, b + LG_TOMBSTONE_SIGNED));
    b[LG_TOMBSTONE_SIGNED + any % LG_SIGN_LEN] ^= (uint8_t)(flags >> 3 & 1);
}

/* What this tombstone's signature lets happen to the study. */
static bool allow(unsigned flags)
{
    unsigned whose = flags & 3, version = flags >> 4 & 3;
    if (whose >= STUDIES || flags & (4 | 8))
        return false;
    model[whose].named |= !version || version >= study[whose].last;
    model[whose].retired |= 1u << version;
    return true;
}

static void expect(unsigned flags)
{
    unsigned whose = flags & 3, version = flags >> 4 & 3;
    if (!want && flags & (4 | 8)) /* whatever it names */
        want = -EKEYREJECTED;
    if (!allow(flags))
        return;
    bool whole = !version || version >= study[whose].last, change = whole ? !model[whose].restored : model[whose].first <= version;
    if (want || !change)
        return;
    if (whole) {
        model[whose].restored = true;
        quarantined++;
    } else {
        model[whose].first = version + 1;
    }
}

/* Are the bytes of a kind that only a look at them could foretell? */
static bool lay(struct lg_rd *r)
{
    uint8_t b[LG_TOMBSTONE_LEN];
    bool loose = false, cut = false;
    unsigned first = lg_rd_u8(r);
    if (first & 1)
        loose = true;
    else
        head();
    while (r->left && len + LG_TOMBSTONE_LEN < sizeof file) {
        unsigned op = lg_rd_u8(r), arg = lg_rd_u8(r);
        loose |= cut && op % 4; /* what was cut off ends where another file begins, or nowhere */
        cut = false;
        switch (op % 4) {
        case 0:
            head();
            break;
        case 1: { /* bytes */
            size_t n = arg < r->left ? arg : r->left;
            put(lg_rd_bytes(r, n), n);
            loose |= n;
            break;
        }
        case 2: { /* cut off */
            size_t n = arg < LG_TOMBSTONE_LEN ? arg : LG_TOMBSTONE_LEN - 1;
            bool unspoilt = LG_TOMBSTONE_SIGNED + arg % LG_SIGN_LEN >= n; /* what is bad of the signature is cut off too */
            encode(op >> 2, arg, b);
            put(b, n);
            cut = arg;
            if (n + GUESSED >= LG_TOMBSTONE_LEN)
                allow(unspoilt ? op >> 2 & ~8u : op >> 2);
            break;
        }
        default:
            encode(op >> 2, arg, b);
            put(b, sizeof b);
            expect(op >> 2);
        }
    }
    return loose;
}

static void check(bool loose, int rc, const struct import *im)
{
    struct lg_record r;
    if (!loose && (rc != want || im->quarantined != quarantined))
        abort();
    for (unsigned i = 0; i < STUDIES; i++) {
        need(lg_record_get(ring, study[i].kid, &r));
        bool restored = r.state == LG_KEY_RESTORED;
        if (r.kind != LG_KIND_STUDY || !r.n || r.version[r.n - 1] != study[i].last || r.version[0] < study[i].first)
            abort();
        if (!loose && (restored != model[i].restored || r.version[0] != model[i].first))
            abort();
        if ((restored && !model[i].named) || (r.version[0] != study[i].first && !(model[i].retired >> (r.version[0] - 1) & 1)))
            abort();
    }
}

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerInitialize(int *argc, char ***argv) /* no input's time: a busy machine takes long for a keyring */
{
    (void)argc, (void)argv;
    need(lg_secret_init(true));
    need(lg_crypto_init());
    make();
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t data_len)
{
    struct lg_rd r = lg_rd(data, data_len);
    len = quarantined = 0;
    want = 0;
    for (unsigned i = 0; i < STUDIES; i++) {
        memset(&model[i], 0, sizeof model[i]);
        model[i].first = study[i].first;
    }
    bool loose = lay(&r);
    uint8_t *exact = malloc(len + 1); /* of its own length: a read beyond it is seen */
    if (!exact)
        abort();
    memcpy(exact, file, len);
    struct import im = { .k = *ring, .write = true, .later = { .now = 7, .tombstones = exact, .tombstones_len = len } };
    int rc = import_tombstones(&im);
    if (!lg_store_in_txn(ring->store))
        need(lg_store_begin(ring->store));
    check(loose, rc, &im);
    lg_store_abort(ring->store);
    free(exact);
    return 0;
}
