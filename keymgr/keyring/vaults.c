/* Vaults of this keyring, and the sessions in which they were mounted. */
#include <string.h>

#include "govern.h"

int lg_keyring_vault_add(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general)
{
    struct lg_record r;
    struct lg_key vault = { .key = NULL }, general = { .key = NULL };
    const uint8_t *p;
    size_t len;
    uint8_t pair[2 * LG_ID_LEN];
    int rc = lg_keyring_need(k, true);
    if (!rc && lg_store_get(k->store, LG_T_VAULTS, vault_id, LG_ID_LEN, &p, &len) == 0)
        rc = -EEXIST;
    if (!rc)
        rc = lg_key_make(k, LG_KIND_VAULT, &r, &vault);
    if (!rc)
        rc = lg_record_put(k, &r);
    if (!rc)
        rc = lg_key_make(k, LG_KIND_GENERAL, &r, &general);
    if (!rc)
        rc = lg_record_put(k, &r);
    memcpy(pair, vault.kid, LG_ID_LEN);
    memcpy(pair + LG_ID_LEN, general.kid, LG_ID_LEN);
    if (!rc)
        rc = lg_store_put(k->store, LG_T_VAULTS, vault_id, LG_ID_LEN, pair, sizeof pair);
    if (rc) {
        lg_secret_free(vault.key);
        lg_secret_free(general.key);
        return rc;
    }
    k->meta.vaults++;
    k->meta_dirty = true;
    *ret_vault = vault;
    *ret_general = general;
    return 0;
}

int lg_keyring_vault_get(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general)
{
    struct lg_record r;
    struct lg_key vault = { .key = NULL }, general = { .key = NULL };
    const uint8_t *p;
    size_t len;
    uint8_t pair[2 * LG_ID_LEN];
    int rc = lg_keyring_need(k, false);
    if (!rc)
        rc = lg_store_get(k->store, LG_T_VAULTS, vault_id, LG_ID_LEN, &p, &len);
    if (rc)
        return rc;
    if (len != sizeof pair)
        return -EPROTO;
    memcpy(pair, p, sizeof pair);
    rc = lg_record_get(k, pair, &r);
    if (!rc)
        rc = r.n ? lg_record_key(k, &r, r.n - 1, &vault) : -EPROTO;
    if (!rc)
        rc = lg_record_get(k, pair + LG_ID_LEN, &r);
    if (!rc)
        rc = r.n ? lg_record_key(k, &r, r.n - 1, &general) : -EPROTO;
    if (rc) {
        lg_secret_free(vault.key);
        return rc == -ENOENT ? -EPROTO : rc;
    }
    *ret_vault = vault;
    *ret_general = general;
    return 0;
}

static void session_key(uint64_t n, uint8_t out[8])
{
    for (unsigned i = 0; i < 8; i++)
        out[i] = (uint8_t)(n >> (56 - 8 * i));
}

int lg_session_decode(const uint8_t *untrusted, size_t len, struct lg_open_session *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_open_session s = { 0 };
    lg_rd_copy(&r, s.vault_id, LG_ID_LEN);
    s.state = (enum lg_session_state)lg_rd_u8(&r);
    if (s.state < LG_SESSION_OPEN || s.state > LG_SESSION_CLOSED)
        return -EPROTO;
    if (s.state == LG_SESSION_OPEN && len > LG_ID_LEN + 1) {
        s.placed = true;
        s.place.begun = lg_rd_u64(&r);
        s.place.pid = lg_rd_u32(&r);
        s.place.pid_started = lg_rd_u64(&r);
        lg_rd_copy(&r, s.place.boot, LG_ID_LEN);
        lg_rd_str(&r, s.place.mountpoint, sizeof s.place.mountpoint - 1);
    }
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = s;
    return 0;
}

int lg_keyring_session_place(struct lg_keyring *k, uint64_t session, const struct lg_session_place *place)
{
    uint8_t key[8], b[LG_ID_LEN + 1 + 8 + 4 + 8 + LG_ID_LEN + 2 + sizeof place->mountpoint], vault[LG_ID_LEN];
    enum lg_session_state state;
    struct lg_wr w = lg_wr(b, sizeof b);
    int rc = lg_keyring_in_txn(k) ? lg_keyring_session_get(k, session, vault, &state) : -EINVAL;
    if (!rc && state != LG_SESSION_OPEN)
        rc = -EINVAL;
    if (rc)
        return rc;
    lg_wr_bytes(&w, vault, LG_ID_LEN);
    lg_wr_u8(&w, LG_SESSION_OPEN);
    lg_wr_u64(&w, place->begun);
    lg_wr_u32(&w, place->pid);
    lg_wr_u64(&w, place->pid_started);
    lg_wr_bytes(&w, place->boot, LG_ID_LEN);
    lg_wr_str(&w, place->mountpoint);
    session_key(session, key);
    return w.bad ? -EINVAL : lg_store_put(k->store, LG_T_SESSIONS, key, sizeof key, b, w.len);
}

int lg_keyring_session_get(struct lg_keyring *k, uint64_t session, uint8_t ret_vault_id[LG_ID_LEN], enum lg_session_state *ret)
{
    uint8_t key[8];
    const uint8_t *p;
    size_t len;
    session_key(session, key);
    int rc = lg_store_get(k->store, LG_T_SESSIONS, key, sizeof key, &p, &len);
    if (rc)
        return rc;
    struct lg_open_session s;
    rc = lg_session_decode(p, len, &s);
    if (rc)
        return rc;
    memcpy(ret_vault_id, s.vault_id, LG_ID_LEN);
    *ret = s.state;
    return 0;
}

static int session_put(struct lg_keyring *k, uint64_t session, const uint8_t vault_id[LG_ID_LEN], enum lg_session_state state)
{
    uint8_t key[8], v[LG_ID_LEN + 1];
    session_key(session, key);
    memcpy(v, vault_id, LG_ID_LEN);
    v[LG_ID_LEN] = (uint8_t)state;
    return lg_store_put(k->store, LG_T_SESSIONS, key, sizeof key, v, sizeof v);
}

int lg_keyring_session_set(struct lg_keyring *k, uint64_t session, enum lg_session_state state)
{
    uint8_t vault[LG_ID_LEN];
    enum lg_session_state old;
    int rc = lg_keyring_in_txn(k) ? lg_keyring_session_get(k, session, vault, &old) : -EINVAL;
    return rc ? rc : session_put(k, session, vault, state);
}

/* Calls each for every session of the vault, ascending. */
static int sessions(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], int (*each)(struct lg_keyring *k, uint64_t n, enum lg_session_state s, void *arg), void *arg)
{
    uint8_t key[64];
    size_t len = 0, vlen;
    const uint8_t *p;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_SESSIONS, len != 0, key, &len, &p, &vlen))) {
        struct lg_open_session s;
        uint64_t n = 0;
        if (len != 8 || lg_session_decode(p, vlen, &s))
            return -EPROTO;
        for (unsigned i = 0; i < 8; i++)
            n = n << 8 | key[i];
        if (memcmp(s.vault_id, vault_id, LG_ID_LEN) == 0 && (rc = each(k, n, s.state, arg)) != 0)
            return rc;
    }
    return rc == -ENOENT ? 0 : rc;
}

static int end_open(struct lg_keyring *k, uint64_t n, enum lg_session_state s, void *arg)
{
    return s == LG_SESSION_OPEN ? session_put(k, n, arg, LG_SESSION_UNCLEAN) : 0;
}

int lg_keyring_session_begin(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], uint64_t *ret_session)
{
    uint8_t id[LG_ID_LEN];
    const uint8_t *p;
    size_t len;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_store_get(k->store, LG_T_VAULTS, vault_id, LG_ID_LEN, &p, &len);
    memcpy(id, vault_id, LG_ID_LEN);
    if (!rc)
        rc = sessions(k, vault_id, end_open, id);
    if (!rc)
        rc = session_put(k, k->meta.next_session, vault_id, LG_SESSION_OPEN);
    if (rc)
        return rc;
    *ret_session = k->meta.next_session++;
    k->meta_dirty = true;
    return 0;
}

struct unclean {
    uint64_t *out;
    unsigned max, n;
};

static int collect_unclean(struct lg_keyring *k, uint64_t n, enum lg_session_state s, void *arg)
{
    struct unclean *u = arg;
    (void)k;
    if (s == LG_SESSION_UNCLEAN) {
        if (u->n < u->max) {
            u->out[u->n++] = n;
        } else if (u->max) { /* the newest ones matter most */
            memmove(u->out, u->out + 1, (u->max - 1) * sizeof *u->out);
            u->out[u->max - 1] = n;
        }
    }
    return 0;
}

int lg_keyring_sessions_unclean(struct lg_keyring *k, const uint8_t vault_id[LG_ID_LEN], uint64_t *ret, unsigned max, unsigned *ret_n)
{
    struct unclean u = { ret, max, 0 };
    int rc = sessions(k, vault_id, collect_unclean, &u);
    *ret_n = u.n;
    return rc;
}

int lg_keyring_sessions_open(struct lg_keyring *k, struct lg_open_session *ret, unsigned max, unsigned *ret_n)
{
    uint8_t key[64];
    size_t len = 0, vlen;
    const uint8_t *p;
    struct lg_open_session s;
    unsigned n = 0;
    int rc;
    while (!(rc = lg_store_next(k->store, LG_T_SESSIONS, len != 0, key, &len, &p, &vlen))) {
        if (len != 8 || lg_session_decode(p, vlen, &s))
            return -EPROTO;
        if (s.state != LG_SESSION_OPEN)
            continue;
        for (unsigned i = 0; i < 8; i++)
            s.number = s.number << 8 | key[i];
        if (n < max)
            ret[n] = s;
        n++;
    }
    *ret_n = n < max ? n : max;
    return rc != -ENOENT ? rc : n > max ? -ENOSPC : 0;
}
