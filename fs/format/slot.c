#include "leadglass/format.h"

#include <string.h>

#include "leadglass/bytes.h"

#define S0_MAGIC "LGLASS\r\n"
#define SLOT_MAGIC 0x31534c47u /* "GLS1" */

enum {
    CRC_AT = LG_SECTOR - 4,
    MAC_AT = CRC_AT - LG_MAC_LEN,
    WRAP_AD_LEN = 3 * LG_ID_LEN + 8,
    CHUNK_AD_LEN = LG_ID_LEN + 12,
    ACC_BATCH = 256,
    NONCE_BATCH = 32,
};

static void crc_put(uint8_t sector[LG_SECTOR])
{
    struct lg_wr w = lg_wr(sector + CRC_AT, 4);
    lg_wr_u32(&w, lg_crc32c(0, sector, CRC_AT));
}

static bool crc_ok(const uint8_t sector[LG_SECTOR])
{
    struct lg_rd r = lg_rd(sector + CRC_AT, 4);
    return lg_rd_u32(&r) == lg_crc32c(0, sector, CRC_AT);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    uint8_t any = 0;
    for (size_t i = 0; i < n; i++)
        any |= p[i];
    return !any;
}

void lg_s0_encode(const struct lg_s0 *s, uint8_t out[LG_SECTOR])
{
    memset(out, 0, LG_SECTOR);
    struct lg_wr w = lg_wr(out, LG_SECTOR);
    lg_wr_bytes(&w, S0_MAGIC, 8);
    lg_wr_u32(&w, s->version);
    lg_wr_u32(&w, s->suite);
    lg_wr_u32(&w, s->chunk_size);
    lg_wr_bytes(&w, s->vault_id, LG_ID_LEN);
    lg_wr_bytes(&w, s->file_id, LG_ID_LEN);
    crc_put(out);
}

int lg_s0_decode(const uint8_t in[LG_SECTOR], struct lg_s0 *ret)
{
    struct lg_rd r = lg_rd(in, CRC_AT);
    const uint8_t *magic = lg_rd_bytes(&r, 8);
    struct lg_s0 s;
    if (memcmp(magic, S0_MAGIC, 8) != 0 || !crc_ok(in))
        return -EPROTO;
    s.version = lg_rd_u32(&r);
    s.suite = lg_rd_u32(&r);
    s.chunk_size = lg_rd_u32(&r);
    lg_rd_copy(&r, s.vault_id, LG_ID_LEN);
    lg_rd_copy(&r, s.file_id, LG_ID_LEN);
    if (s.version > LG_FORMAT_VERSION || s.suite > LG_SUITE_1)
        return -EPROTONOSUPPORT;
    if (s.version == 0 || s.suite == 0 || !lg_format_chunk_size_ok(s.chunk_size) || !all_zero(r.p, r.left))
        return -EPROTO;
    *ret = s;
    return 0;
}

void lg_s0_claimed_id(const uint8_t in[LG_SECTOR], uint8_t ret[LG_ID_LEN])
{
    memcpy(ret, in + 20 + LG_ID_LEN, LG_ID_LEN);
}

/* All fields, unchecked; true: what must be zero is. */
static bool fields(const uint8_t in[LG_SECTOR], struct lg_slot *s)
{
    struct lg_rd r = lg_rd(in + 8, MAC_AT - 8);
    s->seq = lg_rd_u64(&r);
    s->session = lg_rd_u64(&r);
    s->size = lg_rd_u64(&r);
    s->durable_size = lg_rd_u64(&r);
    lg_rd_copy(&r, s->kid, LG_ID_LEN);
    s->key_version = lg_rd_u32(&r);
    uint32_t reserved = lg_rd_u32(&r);
    lg_rd_copy(&r, s->wrapped, LG_WRAPPED_LEN);
    lg_rd_copy(&r, s->commitment, sizeof s->commitment);
    s->chunk_writes = lg_rd_u64(&r);
    lg_rd_copy(&r, s->salt, sizeof s->salt);
    lg_rd_copy(&r, s->sealed_acc, sizeof s->sealed_acc);
    lg_rd_copy(&r, s->other_hash, sizeof s->other_hash);
    return lg_rd_ok(&r) && !reserved && all_zero(r.p, r.left);
}

int lg_slot_decode(const uint8_t in[LG_SECTOR], struct lg_slot *ret)
{
    if (all_zero(in, LG_SECTOR))
        return -ENOENT;
    struct lg_rd r = lg_rd(in, 8);
    struct lg_slot s;
    if (lg_rd_u32(&r) != SLOT_MAGIC || lg_rd_u32(&r) != 0 || !crc_ok(in) || !fields(in, &s) || s.size > LG_FILE_SIZE_MAX)
        return -EPROTO;
    *ret = s;
    return 0;
}

void lg_slot_claims(const uint8_t in[LG_SECTOR], struct lg_slot *ret)
{
    (void)fields(in, ret);
    ret->size = 0; /* for nobody to rely on */
}

void lg_slot_mac_bytes(const uint8_t in[LG_SECTOR], uint8_t ret[LG_MAC_LEN]) { memcpy(ret, in + MAC_AT, LG_MAC_LEN); }

static int acc_pad(const struct lg_filekey *k, const uint8_t salt[16], uint8_t pad[LG_MAC_LEN])
{
    uint8_t in[4 + 16] = "acc";
    memcpy(in + 4, salt, 16);
    return lg_hmac(&k->mac, in, sizeof in, pad);
}

static int slot_mac(const struct lg_filekey *k, const uint8_t s0[LG_SECTOR], const uint8_t slot[LG_SECTOR], uint8_t mac[LG_MAC_LEN])
{
    LG_UNCLEARED uint8_t in[LG_SECTOR + MAC_AT];
    memcpy(in, s0, LG_SECTOR);
    memcpy(in + LG_SECTOR, slot, MAC_AT);
    return lg_hmac(&k->mac, in, sizeof in, mac);
}

int lg_slot_encode(struct lg_slot *s, const struct lg_filekey *k, const uint8_t acc[LG_PRF_OUT], const uint8_t s0[LG_SECTOR],
                   const uint8_t other[LG_SECTOR], uint8_t out[LG_SECTOR])
{
    uint8_t pad[LG_MAC_LEN], mac[LG_MAC_LEN];
    memcpy(s->kid, k->kid, LG_ID_LEN);
    s->key_version = k->key_version;
    memcpy(s->wrapped, k->wrapped, LG_WRAPPED_LEN);
    memcpy(s->commitment, k->commitment, sizeof s->commitment);
    int rc = lg_random_nonce(s->salt, sizeof s->salt); /* what hides the accumulator is used once, as nonces are */
    if (!rc)
        rc = acc_pad(k, s->salt, pad);
    if (!rc)
        rc = lg_sha256_2(s0, LG_SECTOR, other, LG_SECTOR, s->other_hash);
    if (rc)
        return rc;
    for (unsigned i = 0; i < LG_PRF_OUT; i++)
        s->sealed_acc[i] = acc[i] ^ pad[i];
    memset(out, 0, LG_SECTOR);
    struct lg_wr w = lg_wr(out, MAC_AT);
    lg_wr_u32(&w, SLOT_MAGIC);
    lg_wr_u32(&w, 0);
    lg_wr_u64(&w, s->seq);
    lg_wr_u64(&w, s->session);
    lg_wr_u64(&w, s->size);
    lg_wr_u64(&w, s->durable_size);
    lg_wr_bytes(&w, s->kid, LG_ID_LEN);
    lg_wr_u32(&w, s->key_version);
    lg_wr_u32(&w, 0);
    lg_wr_bytes(&w, s->wrapped, LG_WRAPPED_LEN);
    lg_wr_bytes(&w, s->commitment, sizeof s->commitment);
    lg_wr_u64(&w, s->chunk_writes);
    lg_wr_bytes(&w, s->salt, sizeof s->salt);
    lg_wr_bytes(&w, s->sealed_acc, sizeof s->sealed_acc);
    lg_wr_bytes(&w, s->other_hash, sizeof s->other_hash);
    rc = slot_mac(k, s0, out, mac);
    if (rc)
        return rc;
    memcpy(out + MAC_AT, mac, LG_MAC_LEN);
    crc_put(out);
    return 0;
}

int lg_slot_verify(const uint8_t in[LG_SECTOR], const struct lg_slot *s, const struct lg_filekey *k, const uint8_t s0[LG_SECTOR],
                   uint8_t ret_acc[LG_PRF_OUT])
{
    uint8_t mac[LG_MAC_LEN], pad[LG_MAC_LEN];
    int rc = slot_mac(k, s0, in, mac);
    if (!rc && !lg_equal(mac, in + MAC_AT, LG_MAC_LEN))
        rc = -EBADMSG;
    if (!rc)
        rc = acc_pad(k, s->salt, pad);
    for (unsigned i = 0; !rc && i < LG_PRF_OUT; i++)
        ret_acc[i] = s->sealed_acc[i] ^ pad[i];
    return rc;
}

/* ---- file keys ---------------------------------------------------------------------------------------------------------- */

static void wrap_ad(const struct lg_s0 *s0, const uint8_t kid[LG_ID_LEN], uint32_t version, uint8_t ad[WRAP_AD_LEN])
{
    struct lg_wr w = lg_wr(ad, WRAP_AD_LEN);
    lg_wr_bytes(&w, s0->vault_id, LG_ID_LEN);
    lg_wr_bytes(&w, s0->file_id, LG_ID_LEN);
    lg_wr_bytes(&w, kid, LG_ID_LEN);
    lg_wr_u32(&w, version);
    lg_wr_u32(&w, s0->suite);
}

void lg_filekey_free(struct lg_filekey *k)
{
    if (!k)
        return;
    lg_gcm_free(k->gcm);
    lg_secret_dealloc(k);
}

/* A file key, and room for the one of its chunks. */
struct secrets {
    struct lg_secret fk, chunks;
};

static int filekey_derive(struct secrets *t, const struct lg_s0 *s0, struct lg_filekey **ret)
{
    struct lg_filekey *k = lg_secret_alloc(sizeof *k);
    int rc = k ? 0 : -ENOMEM;
    if (!rc) {
        const struct lg_derived all[] = { { "leadglass file commitment", s0->file_id, LG_ID_LEN, k->commitment, sizeof k->commitment },
                                             { "leadglass file chunks", NULL, 0, t->chunks.b, sizeof t->chunks.b },
                                             { "leadglass file accumulator", NULL, 0, k->acc.b, sizeof k->acc.b },
                                             { "leadglass file slots", NULL, 0, k->mac.b, sizeof k->mac.b } };
        rc = lg_derive_all(&t->fk, all, sizeof all / sizeof *all);
    }
    if (!rc)
        rc = lg_gcm_new(&t->chunks, &k->gcm);
    if (rc) {
        lg_filekey_free(k);
        return rc;
    }
    *ret = k;
    return 0;
}

int lg_filekey_wrap(const struct lg_secret *study_key, struct lg_siv **ret)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    int rc = kek ? lg_derive(study_key, "leadglass file wrap", NULL, 0, kek) : -ENOMEM;
    return rc ? rc : lg_siv_new(kek, ret);
}

int lg_filekey_make_with(struct lg_siv *wrap, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const struct lg_s0 *s0, struct lg_filekey **ret)
{
    LG_SECRET_BUF_AUTO struct secrets *t = lg_secret_alloc(sizeof *t);
    struct lg_filekey *k = NULL;
    uint8_t ad[WRAP_AD_LEN];
    if (!t)
        return -ENOMEM;
    wrap_ad(s0, kid, key_version, ad);
    int rc = lg_random(t->fk.b, sizeof t->fk.b);
    if (!rc)
        rc = filekey_derive(t, s0, &k);
    if (!rc)
        rc = lg_key_wrap_with(wrap, ad, sizeof ad, &t->fk, k->wrapped);
    if (rc) {
        lg_filekey_free(k);
        return rc;
    }
    memcpy(k->kid, kid, LG_ID_LEN);
    k->key_version = key_version;
    *ret = k;
    return 0;
}

int lg_filekey_open(const struct lg_secret *study_key, const struct lg_slot *slot, const struct lg_s0 *s0, struct lg_filekey **ret)
{
    struct lg_siv *wrap;
    int rc = lg_filekey_wrap(study_key, &wrap);
    if (rc)
        return rc;
    rc = lg_filekey_open_with(wrap, slot, s0, ret);
    lg_siv_free(wrap);
    return rc;
}

int lg_filekey_open_with(struct lg_siv *wrap, const struct lg_slot *slot, const struct lg_s0 *s0, struct lg_filekey **ret)
{
    LG_SECRET_BUF_AUTO struct secrets *t = lg_secret_alloc(sizeof *t);
    struct lg_filekey *k = NULL;
    uint8_t ad[WRAP_AD_LEN];
    if (!t)
        return -ENOMEM;
    wrap_ad(s0, slot->kid, slot->key_version, ad);
    int rc = lg_key_unwrap_with(wrap, ad, sizeof ad, slot->wrapped, &t->fk);
    if (!rc)
        rc = filekey_derive(t, s0, &k);
    if (!rc && !lg_equal(k->commitment, slot->commitment, sizeof k->commitment))
        rc = -EBADMSG;
    if (rc) {
        lg_filekey_free(k);
        return rc;
    }
    memcpy(k->kid, slot->kid, LG_ID_LEN);
    k->key_version = slot->key_version;
    memcpy(k->wrapped, slot->wrapped, LG_WRAPPED_LEN);
    *ret = k;
    return 0;
}

/* ---- chunks ------------------------------------------------------------------------------------------------------------- */

bool lg_entry_empty(const uint8_t entry[LG_ENTRY_LEN]) { return all_zero(entry, LG_ENTRY_LEN); }

static void chunk_ad(const uint8_t file_id[LG_ID_LEN], uint64_t i, uint32_t len, uint8_t ad[CHUNK_AD_LEN])
{
    struct lg_wr w = lg_wr(ad, CHUNK_AD_LEN);
    lg_wr_bytes(&w, file_id, LG_ID_LEN);
    lg_wr_u64(&w, i);
    lg_wr_u32(&w, len);
}

static int seal_with(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, const uint8_t nonce[LG_NONCE_LEN], const void *plain,
                     uint32_t len, void *cipher, uint8_t ret_entry[LG_ENTRY_LEN])
{
    uint8_t ad[CHUNK_AD_LEN], e[LG_ENTRY_LEN];
    chunk_ad(file_id, i, len, ad);
    memcpy(e, nonce, LG_NONCE_LEN);
    int rc = lg_gcm_seal(k->gcm, e, ad, sizeof ad, plain, len, cipher, e + LG_NONCE_LEN);
    if (rc)
        return rc;
    struct lg_wr w = lg_wr(e + LG_NONCE_LEN + LG_TAG_LEN, 4);
    lg_wr_u32(&w, lg_crc32c(0, cipher, len));
    memcpy(ret_entry, e, LG_ENTRY_LEN);
    return 0;
}

int lg_chunks_seal(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, uint32_t chunk_size, const void *plain, size_t len, void *cipher,
                   uint8_t *ret_entries)
{
    uint8_t nonce[NONCE_BATCH * LG_NONCE_LEN];
    int rc = 0;
    for (size_t at = 0, n = 0; !rc && at < len; at += chunk_size, n++) {
        size_t left = (len - at + chunk_size - 1) / chunk_size;
        uint32_t m = len - at < chunk_size ? (uint32_t)(len - at) : chunk_size;
        if (n % NONCE_BATCH == 0)
            rc = lg_random_nonce(nonce, (left < NONCE_BATCH ? left : NONCE_BATCH) * LG_NONCE_LEN);
        if (!rc)
            rc = seal_with(k, file_id, i + n, nonce + n % NONCE_BATCH * LG_NONCE_LEN, (const uint8_t *)plain + at, m, (uint8_t *)cipher + at,
                           ret_entries + n * LG_ENTRY_LEN);
    }
    return rc;
}

int lg_chunk_seal(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, const void *plain, uint32_t len, void *cipher,
                  uint8_t ret_entry[LG_ENTRY_LEN])
{
    return lg_chunks_seal(k, file_id, i, len, plain, len, cipher, ret_entry);
}

int lg_chunk_open(const struct lg_filekey *k, const uint8_t file_id[LG_ID_LEN], uint64_t i, const void *cipher, uint32_t len,
                  const uint8_t entry[LG_ENTRY_LEN], void *plain)
{
    uint8_t ad[CHUNK_AD_LEN];
    chunk_ad(file_id, i, len, ad);
    return lg_gcm_open(k->gcm, entry, ad, sizeof ad, cipher, len, plain, entry + LG_NONCE_LEN);
}

int lg_acc_xor(const struct lg_filekey *k, uint64_t i, const uint8_t *entries, size_t n, uint8_t acc[LG_PRF_OUT])
{
    LG_UNCLEARED uint8_t in[ACC_BATCH * LG_PRF_IN];
    size_t m = 0;
    for (size_t j = 0; j < n; j++) {
        const uint8_t *e = entries + j * LG_ENTRY_LEN;
        if (!lg_entry_empty(e)) {
            uint8_t *p = in + m * LG_PRF_IN;
            memset(p, 0, LG_PRF_IN);
            struct lg_wr w = lg_wr(p, LG_PRF_IN);
            lg_wr_u64(&w, i + j);
            lg_wr_bytes(&w, e, LG_ENTRY_LEN);
            m++;
        }
        if (m == ACC_BATCH || (m && j + 1 == n)) {
            int rc = lg_prf_xor(&k->acc, in, m, acc);
            if (rc)
                return rc;
            m = 0;
        }
    }
    return 0;
}
