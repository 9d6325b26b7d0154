/* For keyring_model_test.c alone: the model, what of the keyring is held against it, and opening the keyring. */
#ifndef LG_TEST_KEYRING_MODEL_H
#define LG_TEST_KEYRING_MODEL_H

#include <fcntl.h>
#include <time.h>

#include "office.h"
#include "power.h"

enum { UIDS = 10, COPIES = 6, DEAD = 8192, SLOTS = 4, VAULTS = 3, TRIMS = 3 };

struct study_model {
    enum lg_key_state state; /* 0: there is none */
    enum lg_key_state before; /* of the approved destruction: where cancelling leads */
    bool held, has_prov, asked;
    uint64_t retain, due_wall, due_run;
    uint32_t first, n; /* versions: those before the first were retired; n is the newest; key[0] that of the first */
    uint32_t buried_from, buried_to; /* versions that this keyring retired last, each with a tombstone; those that a restore left out have none in it */
    uint64_t rotated;  /* when the newest was made; 0: with the study */
    uint8_t kid[LG_ID_LEN], key[LG_KEY_VERSIONS_MAX][LG_KEY_LEN];
    uint8_t prov[LG_ID_LEN], prov_key[LG_KEY_LEN];
    struct lg_act revoke; /* asked for, or waiting */
};

struct slot_model {
    bool there, proved;
    char name[12], pass[12];
};

struct trim_model { /* a request to retire old versions */
    enum lg_act_state state; /* 0: there is none */
    bool all;
    unsigned study;
    struct lg_act a;
    uint64_t asked, due_wall, due_run;
    uint8_t last[LG_ID_LEN]; /* of all studies: the last of those that had their turn */
    bool begun;
};

struct world {
    struct study_model s[UIDS];
    struct slot_model slot[SLOTS];
    struct trim_model trim[TRIMS];
    unsigned vaults;
    uint8_t (*dead)[LG_ID_LEN]; /* of keys that were destroyed; it only grows */
    unsigned n_dead, officers;
    uint64_t run, base_wall, base_boot, incarnation, living, destroyed, epoch, tombstones;
    bool frozen, restored;
    struct {
        bool there, voided;
        uint8_t id[LG_ID_LEN];
    } inventory[COPIES];
    unsigned n_inventory, n_void; /* in all */
};

static struct world w;
static struct person sam, ruth, third;
static struct lg_keyring *k;
static struct { /* keyring backups, and the world as it was */
    struct copy_of c;
    struct world *w;
} copies[COPIES];
static uint8_t (*all_dead)[LG_ID_LEN];
static uint8_t *tombs; /* of every keyring there was: the operator keeps them */
static size_t tombs_len;

static uint64_t seed_state, first_seed;
static unsigned long step_no;
static uint32_t dice(uint32_t n)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return (uint32_t)(seed_state >> 33) % n;
}

#define SAME(what)                                                                                                                                     \
    do {                                                                                                                                               \
        if (!(what)) {                                                                                                                                 \
            differs = #what;                                                                                                                           \
            return false;                                                                                                                              \
        }                                                                                                                                              \
    } while (0)
static const char *differs;

/* ---- what can be read ------------------------------------------------------------------------------------------------------------------------------- */

static const char *uid_of(unsigned i)
{
    static char uid[16];
    snprintf(uid, sizeof uid, "1.2.%u", i);
    return uid;
}

static bool key_is(const uint8_t kid[LG_ID_LEN], uint32_t version, int want, const uint8_t *bytes)
{
    struct lg_key x;
    int rc = lg_keyring_key_by_id(k, kid, version, &x);
    bool same = rc == want && (rc || !bytes || memcmp(x.key->b, bytes, LG_KEY_LEN) == 0);
    if (!rc)
        lg_secret_free(x.key);
    return same;
}

static uint32_t live(const struct study_model *m) { return m->n ? m->n - m->first + 1 : 0; }

static bool study_matches(const struct study_model *m, unsigned i)
{
    struct lg_study s;
    int rc = lg_keyring_study_show(k, uid_of(i), &s);
    SAME(rc == (m->state ? 0 : -ENOENT));
    if (!m->state)
        return true;
    int want = m->state == LG_KEY_ACTIVE ? 0 : -EKEYREVOKED;
    bool gone = m->state == LG_KEY_DESTROYED;
    SAME(s.state == m->state);
    SAME(memcmp(s.kid, m->kid, LG_ID_LEN) == 0);
    SAME(gone || s.held == m->held);
    SAME(gone || s.retain_until == m->retain);
    SAME(s.version == (gone ? 0 : m->n));
    SAME(m->state != LG_KEY_DESTROY_APPROVED || s.due == m->due_wall);
    for (uint32_t v = m->first; v <= m->n; v += 1 + m->n / 3)
        SAME(key_is(m->kid, v, want, m->key[v - m->first]));
    SAME(gone || key_is(m->kid, m->n, want, m->key[m->n - m->first]));
    for (uint32_t v = 1; v < m->first; v += 1 + m->first / 3)
        SAME(gone || key_is(m->kid, v, -EKEYREVOKED, NULL));
    SAME(gone || m->first == 1 || key_is(m->kid, m->first - 1, -EKEYREVOKED, NULL));
    SAME(gone || key_is(m->kid, m->n + 1, want ? want : -ENOKEY, NULL));
    SAME(!m->has_prov || gone || key_is(m->prov, 1, want, m->prov_key));
    struct lg_act_record r;
    if (m->asked || m->state == LG_KEY_DESTROY_APPROVED) {
        SAME(lg_keyring_act_get(k, m->revoke.nonce, &r) == 0);
        SAME(r.state == (m->state == LG_KEY_DESTROY_APPROVED && !m->asked ? LG_ACT_WAITING : now.wall_s > m->revoke.expires ? LG_ACT_EXPIRED : LG_ACT_PENDING));
    }
    return true;
}

static bool trim_matches(const struct trim_model *m)
{
    struct lg_act_record r;
    SAME(lg_keyring_act_get(k, m->a.nonce, &r) == 0);
    SAME(r.state == (m->state == LG_ACT_PENDING && now.wall_s > m->a.expires ? LG_ACT_EXPIRED : m->state));
    SAME(m->state != LG_ACT_WAITING || r.due == m->due_wall);
    return true;
}

/* One of each study that was destroyed and of each version that was retired, and of nothing else. */
static bool tombstones_match(const struct world *m)
{
    uint64_t n;
    SAME(lg_store_count(k->store, LG_T_TOMBSTONES, &n) == 0);
    SAME(n == m->tombstones);
    for (unsigned i = 0; i < UIDS; i++) {
        const struct study_model *s = &m->s[i];
        uint8_t key[LG_MAC_LEN + LG_ID_LEN + 4];
        const uint8_t *p;
        size_t len;
        if (!s->state || !s->buried_to)
            continue;
        SAME(lg_hmac(k->lookup, uid_of(i), strlen(uid_of(i)), key) == 0);
        memcpy(key + LG_MAC_LEN, s->kid, LG_ID_LEN);
        for (uint32_t v = s->buried_from; v < s->buried_to; v++) {
            for (unsigned b = 0; b < 4; b++)
                key[LG_MAC_LEN + LG_ID_LEN + b] = (uint8_t)(v >> (24 - 8 * b));
            SAME(lg_store_get(k->store, LG_T_TOMBSTONES, key, sizeof key, &p, &len) == 0);
        }
    }
    return true;
}

static bool matches(const struct world *m, bool whole)
{
    struct lg_keyring_stat st;
    struct lg_keyring_time t;
    SAME(lg_keyring_stat(k, &st) == 0);
    SAME(st.studies == m->living);
    SAME(st.destroyed == m->destroyed);
    SAME(st.restored == m->restored);
    SAME(st.epoch == m->epoch);
    SAME(st.vaults == m->vaults);
    if (!tombstones_match(m))
        return false;
    SAME(lg_keyring_time(k, &t) == 0);
    SAME((t.frozen != 0) == m->frozen);
    SAME(t.run_s == m->run);
    unsigned from = dice(UIDS);
    for (unsigned i = 0; i < (whole ? UIDS : 2); i++)
        if (!study_matches(&m->s[(from + i) % UIDS], (from + i) % UIDS))
            return false;
    for (unsigned i = 0; i < 4 && m->n_dead; i++)
        SAME(key_is(m->dead[dice(m->n_dead)], 0, -EKEYREVOKED, NULL));
    for (unsigned i = 0; i < TRIMS; i++)
        if (m->trim[i].state && !trim_matches(&m->trim[i]))
            return false;
    if (!whole)
        return true;
    struct lg_officer o[LG_OFFICERS_MAX];
    unsigned n, there = 0;
    SAME(lg_keyring_officers(k, o, &n) == 0 && n == m->officers);
    struct lg_slot_info info[LG_SLOTS_MAX];
    SAME(lg_slotfile_list(at("k.root"), info, &n) == 0);
    for (unsigned i = 0; i < SLOTS; i++) {
        bool found = false;
        there += m->slot[i].there;
        for (unsigned j = 0; j < n; j++)
            if (strcmp(info[j].name, m->slot[i].name) == 0 && (info[j].proved != 0) == m->slot[i].proved)
                found = true;
        SAME(found == m->slot[i].there);
    }
    SAME(n == there);
    struct lg_backup_entry *e;
    unsigned v = 0;
    SAME(lg_backup_list(k, &e, &n) == 0);
    for (unsigned i = 0; i < n; i++)
        v += e[i].voided != 0;
    free(e);
    SAME(n == m->n_inventory);
    SAME(v == m->n_void);
    return true;
}

static void assert_world(const struct world *m, bool whole)
{
    if (!matches(m, whole)) {
        print_error("seed %llu, step %lu: %s\n", (unsigned long long)first_seed, step_no, differs);
        fail();
    }
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------------------------------- */

static void tick(void)
{
    struct lg_keyring_time t;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_tick(k, &t), 0);
    assert_int_equal(lg_keyring_commit(k), 0);
}

static int open_with(const char *pass, struct lg_keyring **ret)
{
    struct lg_roots r;
    struct lg_keyring *x;
    int rc = lg_keyring_open(at("k"), at("k.root"), at("m"), &x);
    if (rc)
        return rc;
    lg_keyring_set_clock(x, clock_read, NULL);
    rc = lg_slotfile_unlock(lg_slotfile_pick(at("k.root"), at("m.root")), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
    if (!rc)
        rc = lg_keyring_unlock(x, &r);
    if (!rc)
        lg_roots_done(&r);
    if (!rc)
        rc = lg_keyring_unfinished(x);
    if (!rc)
        rc = lg_keyring_unkept(x);
    if (!rc)
        rc = lg_keyring_officers_check(x);
    if (rc)
        lg_keyring_close(x);
    else
        *ret = x;
    return rc;
}

/* The tombstones of this keyring, added to those that are kept. */
static void keep_tombstones(void)
{
    static uint8_t b[8 << 20];
    int fd = open(at("k.root.tombstones"), O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, b, sizeof b);
    if (fd >= 0)
        close(fd);
    if (n <= 0)
        return;
    if (!tombs) {
        tombs = malloc(32 << 20);
        memcpy(tombs, b, 24);
        tombs_len = 24;
    }
    for (ssize_t at_b = 24; at_b < n; at_b += LG_TOMBSTONE_LEN)
        if (!memmem(tombs, tombs_len, b + at_b, LG_TOMBSTONE_LEN)) {
            memcpy(tombs + tombs_len, b + at_b, LG_TOMBSTONE_LEN);
            tombs_len += LG_TOMBSTONE_LEN;
        }
}

#endif
