/* Rolled back? Slot file and keyring vouch for each other only as far as both were not put back together. So every vault keeps an anchor: what the keyring had
 * come to when it last spoke to that vault. A vault that has seen more of this keyring than the keyring itself remembers having told it shows that an older one
 * was put in its place. The file's bytes are docs/FORMAT.md, "The anchor". */
#include <stdlib.h>

#include "govern.h"

static const char magic[8] = "LGANCHR\n";
static const char purpose[8] = "rollback", name[] = "line", given_prefix[] = "anchor/";
enum { VERSION = 1, MAC_AT = LG_VAULT_ANCHOR_LEN - LG_MAC_LEN, INCARNATION = 32, GIVEN_KEY = sizeof given_prefix - 1 + LG_ID_LEN, NONCE_LEN = 16 };

/* ---- the file --------------------------------------------------------------------------------------------------------------------------------- */

struct anchor {
    uint8_t keyring_id[LG_ID_LEN], vault_id[LG_ID_LEN], nonce[NONCE_LEN];
    uint64_t epoch, generation, commits, destroyed, session, made;
    uint32_t line;
};

static int anchor_mac(const struct lg_keyring *k, const uint8_t b[MAC_AT], uint8_t mac[LG_MAC_LEN])
{
    LG_SECRET_AUTO key = lg_secret_new();
    int rc = key ? lg_derive(k->record, "leadglass vault anchor", NULL, 0, key) : -ENOMEM;
    return rc ? rc : lg_hmac(key, b, MAC_AT, mac);
}

static int encode(const struct lg_keyring *k, const struct anchor *a, uint8_t out[LG_VAULT_ANCHOR_LEN])
{
    struct lg_wr w = lg_wr(out, MAC_AT);
    lg_wr_bytes(&w, magic, sizeof magic);
    lg_wr_u32(&w, VERSION);
    lg_wr_bytes(&w, a->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, a->vault_id, LG_ID_LEN);
    lg_wr_u64(&w, a->epoch);
    lg_wr_u64(&w, a->generation);
    lg_wr_u64(&w, a->commits);
    lg_wr_u64(&w, a->destroyed);
    lg_wr_u64(&w, a->session);
    lg_wr_u64(&w, a->made);
    lg_wr_u32(&w, a->line);
    lg_wr_bytes(&w, a->nonce, sizeof a->nonce);
    return w.bad || w.len != MAC_AT ? -EINVAL : anchor_mac(k, out, out + MAC_AT);
}

/* -EBADMSG: not this keyring's, not this vault's, or not as it was written. */
static int decode(const struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], const uint8_t *untrusted, size_t len, struct anchor *ret)
{
    uint8_t mac[LG_MAC_LEN];
    struct lg_rd r = lg_rd(untrusted, len);
    const uint8_t *m = lg_rd_bytes(&r, sizeof magic);
    struct anchor a;
    if (len != LG_VAULT_ANCHOR_LEN || !m || memcmp(m, magic, sizeof magic) != 0 || lg_rd_u32(&r) != VERSION)
        return -EBADMSG;
    int rc = anchor_mac(k, untrusted, mac);
    if (rc)
        return rc;
    if (!lg_equal(mac, untrusted + MAC_AT, sizeof mac))
        return -EBADMSG;
    lg_rd_copy(&r, a.keyring_id, LG_ID_LEN);
    lg_rd_copy(&r, a.vault_id, LG_ID_LEN);
    a.epoch = lg_rd_u64(&r);
    a.generation = lg_rd_u64(&r);
    a.commits = lg_rd_u64(&r);
    a.destroyed = lg_rd_u64(&r);
    a.session = lg_rd_u64(&r);
    a.made = lg_rd_u64(&r);
    a.line = lg_rd_u32(&r);
    lg_rd_copy(&r, a.nonce, sizeof a.nonce);
    if (!lg_rd_ok(&r) || memcmp(a.keyring_id, k->meta.keyring_id, LG_ID_LEN) != 0 || memcmp(a.vault_id, vault_id, LG_ID_LEN) != 0)
        return -EBADMSG;
    *ret = a;
    return 0;
}

/* ---- what the keyring itself remembers --------------------------------------------------------------------------------------------------------- */

/* The keyring's line: one more each time that officers accepted a state that had been put back. What was said on an earlier line is past. */
static int line_get(struct lg_keyring *k, uint32_t *ret_line, struct lg_rollback *ret)
{
    uint8_t b[128];
    size_t len;
    *ret_line = 0;
    *ret = (struct lg_rollback){ 0 };
    int rc = lg_sealed_get(k, LG_T_STATE, purpose, name, sizeof name - 1, b, sizeof b, &len);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    struct lg_rd r = lg_rd(b, len);
    *ret_line = lg_rd_u32(&r);
    uint8_t is = lg_rd_u8(&r);
    ret->is = is == 1;
    ret->at = lg_rd_u64(&r);
    lg_rd_copy(&r, ret->vault_id, LG_ID_LEN);
    ret->seen_epoch = lg_rd_u64(&r);
    ret->seen_commits = lg_rd_u64(&r);
    ret->seen_at = lg_rd_u64(&r);
    return lg_rd_done(&r) && is <= 1 ? 0 : -EPROTO;
}

static int line_put(struct lg_keyring *k, uint32_t line, const struct lg_rollback *x)
{
    uint8_t b[128];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u32(&w, line);
    lg_wr_u8(&w, x->is);
    lg_wr_u64(&w, x->at);
    lg_wr_bytes(&w, x->vault_id, LG_ID_LEN);
    lg_wr_u64(&w, x->seen_epoch);
    lg_wr_u64(&w, x->seen_commits);
    lg_wr_u64(&w, x->seen_at);
    int rc = lg_sealed_put(k, LG_T_STATE, purpose, name, sizeof name - 1, b, w.len);
    if (!rc)
        k->rolled = x->is;
    return rc;
}

int lg_rollback_load(struct lg_keyring *k)
{
    uint32_t line;
    struct lg_rollback x;
    int rc = line_get(k, &line, &x);
    k->rolled = k->rolled_saved = !rc && x.is;
    return rc;
}

bool lg_keyring_rolled_back(const struct lg_keyring *k) { return k->rolled; }

int lg_keyring_rollback(struct lg_keyring *k, struct lg_rollback *ret)
{
    uint32_t line;
    return line_get(k, &line, ret);
}

int lg_rollback_accept(struct lg_keyring *k, bool dry)
{
    uint32_t line;
    struct lg_rollback x;
    int rc = line_get(k, &line, &x);
    if (!rc && !x.is)
        rc = -EALREADY;
    if (!rc && line == UINT32_MAX)
        rc = -EOVERFLOW;
    x.is = false;
    return rc || dry ? rc : line_put(k, line + 1, &x);
}

static void given_key(const uint8_t vault_id[LG_ID_LEN], uint8_t key[GIVEN_KEY])
{
    memcpy(key, given_prefix, sizeof given_prefix - 1);
    memcpy(key + sizeof given_prefix - 1, vault_id, LG_ID_LEN);
}

/* The newest anchor that this vault was given. All zeros: none. */
static int given_get(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], struct anchor *ret)
{
    uint8_t key[GIVEN_KEY];
    const uint8_t *p;
    size_t len;
    *ret = (struct anchor){ 0 };
    given_key(vault_id, key);
    int rc = lg_store_get(k->store, LG_T_META, key, sizeof key, &p, &len);
    if (rc)
        return rc == -ENOENT ? 0 : rc;
    struct lg_rd r = lg_rd(p, len);
    ret->epoch = lg_rd_u64(&r);
    ret->line = lg_rd_u32(&r);
    ret->commits = lg_rd_u64(&r);
    lg_rd_copy(&r, ret->nonce, sizeof ret->nonce);
    return lg_rd_done(&r) ? 0 : -EPROTO;
}

static int given_put(struct lg_keyring *k, const struct anchor *a)
{
    uint8_t key[GIVEN_KEY], b[64];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u64(&w, a->epoch);
    lg_wr_u32(&w, a->line);
    lg_wr_u64(&w, a->commits);
    lg_wr_bytes(&w, a->nonce, sizeof a->nonce);
    given_key(a->vault_id, key);
    return lg_store_put(k->store, LG_T_META, key, sizeof key, b, w.len);
}

/* ---- judging ------------------------------------------------------------------------------------------------------------------------------------ */

/* A restored keyring is another incarnation, and an accepted one another line: whatever was said before lies in the past of both. An incarnation that is later than the last one
 * known to this keyring's past is not its past: another restore of the same backup. accepted: the latest incarnation that officers gave up for this keyring. */
static bool seen_more(const struct lg_keyring *k, uint32_t line, uint64_t accepted, const struct anchor *a, const struct anchor *given)
{
    uint64_t mine = k->meta.epoch >> INCARNATION, its = a->epoch >> INCARNATION;
    if (its != mine)
        return !(line && its <= accepted) && (its > mine || (given->commits && its > given->epoch >> INCARNATION));
    if (a->line != line)
        return a->line > line;
    if (given->epoch >> INCARNATION != mine || given->line != line) /* this one has given it none */
        return true;
    return a->commits > given->commits || (a->commits == given->commits && memcmp(a->nonce, given->nonce, sizeof a->nonce) != 0);
}

static int give(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], uint32_t line, uint8_t out[LG_VAULT_ANCHOR_LEN])
{
    struct anchor a = { .epoch = k->meta.epoch, .generation = k->meta.generation, .destroyed = k->meta.destroyed, .session = k->meta.next_session, .made = lg_keyring_wall(k), .line = line };
    memcpy(a.keyring_id, k->meta.keyring_id, LG_ID_LEN);
    memcpy(a.vault_id, vault_id, LG_ID_LEN);
    int rc = lg_random(a.nonce, sizeof a.nonce);
    if (!rc)
        rc = lg_store_commits(k->store, &a.commits);
    a.commits++; /* the one that remembers it */
    if (!rc)
        rc = given_put(k, &a);
    return rc ? rc : encode(k, &a, out);
}

int lg_keyring_vault_anchor(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], const uint8_t *untrusted, size_t len, bool want, enum lg_anchor_verdict *ret,
                            uint8_t ret_anchor[LG_VAULT_ANCHOR_LEN], size_t *ret_len)
{
    struct anchor a, given;
    struct lg_rollback x;
    const uint8_t *p;
    size_t n;
    uint32_t line;
    enum lg_anchor_verdict v = LG_ANCHOR_AS_GIVEN;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_store_get(k->store, LG_T_VAULTS, vault_id, LG_ID_LEN, &p, &n);
    if (!rc)
        rc = line_get(k, &line, &x);
    if (!rc)
        rc = given_get(k, vault_id, &given);
    if (rc)
        return rc;
    if (!len) {
        v = given.commits ? LG_ANCHOR_MISSING : LG_ANCHOR_NONE;
    } else {
        rc = decode(k, vault_id, untrusted, len, &a);
        if (rc && rc != -EBADMSG)
            return rc;
        v = rc ? LG_ANCHOR_ALTERED : seen_more(k, line, x.is ? 0 : x.seen_epoch >> INCARNATION, &a, &given) ? LG_ANCHOR_AHEAD : LG_ANCHOR_AS_GIVEN;
        if (!rc && a.session >= k->meta.next_session && a.session < UINT64_MAX >> 1) { /* no number is given to two sessions, whatever was put back */
            k->meta.next_session = a.session + 1;
            k->meta_dirty = true;
        }
        rc = 0;
    }
    if (v == LG_ANCHOR_AHEAD && !x.is) {
        x = (struct lg_rollback){ .is = true, .at = lg_keyring_wall(k), .seen_epoch = a.epoch, .seen_commits = a.commits, .seen_at = a.made };
        memcpy(x.vault_id, vault_id, LG_ID_LEN);
        rc = line_put(k, line, &x);
    }
    size_t out = !rc && want && !x.is ? LG_VAULT_ANCHOR_LEN : 0; /* what has seen more stays as the witness that it is */
    if (out)
        rc = give(k, vault_id, line, ret_anchor);
    if (rc)
        return rc;
    *ret = v;
    *ret_len = out;
    return 0;
}
