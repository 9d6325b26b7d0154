/* For powercut_test.c alone: a keyring with something of everything, and every operation that touches keyring, slot file or the chip's anchor of it: what it
 * does, and how it is seen to be done. */
#ifndef LG_TEST_POWERCUT_OPS_H
#define LG_TEST_POWERCUT_OPS_H

#include <fcntl.h>

#include "nvfile.h"
#include "power.h"

static struct lg_key kept, kept2, kept2_old, victim, prov, done_for, waits;
static struct person sam, ruth;
static struct copy_of backup;
static uint8_t waits_act[LG_ID_LEN], trim_act[LG_ID_LEN], vault_id[LG_ID_LEN] = "vault";
static uint8_t anchor_old[LG_VAULT_ANCHOR_LEN], anchor_new[LG_VAULT_ANCHOR_LEN], anchor_later[LG_VAULT_ANCHOR_LEN];
static uint64_t session;

static int secret_opens(const char *slot_path, const char *pass, struct lg_roots *ret)
{
    return lg_slotfile_unlock_with(slot_path, &chip, LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), ret);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------------------------- */

static void copy_file(const char *from, const char *to)
{
    static uint8_t b[4 << 20];
    int a = open(from, O_RDONLY | O_CLOEXEC), z = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t n = read(a, b, sizeof b);
    assert_true(a >= 0 && z >= 0 && n >= 0 && n < (ssize_t)sizeof b && write(z, b, (size_t)n) == n);
    close(a);
    close(z);
}

static void copy_tree(const char *from, const char *to)
{
    DIR *d = opendir(from);
    struct stat st;
    assert_non_null(d);
    mkdir(to, 0700);
    for (struct dirent *e; (e = readdir(d));) {
        char a[400], z[400];
        snprintf(a, sizeof a, "%.100s/%s", from, e->d_name), snprintf(z, sizeof z, "%.100s/%s", to, e->d_name);
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strncmp(e->d_name, "lock", 4) == 0)
            continue;
        assert_int_equal(lstat(a, &st), 0);
        if (S_ISDIR(st.st_mode))
            copy_tree(a, z);
        else
            copy_file(a, z);
    }
    closedir(d);
}

/* ---- a keyring with something of everything ------------------------------------------------------------------------------------------------------------ */

static int open_as(const char *pass, struct lg_keyring **ret)
{
    struct lg_keyring *k;
    struct lg_roots r;
    int rc = lg_keyring_open(at("w/k"), at("w/k.root"), at("w/m"), &k);
    if (rc)
        return rc;
    lg_keyring_set_clock(k, clock_read, NULL);
    lg_keyring_set_chip(k, &chip);
    rc = secret_opens(lg_slotfile_pick(at("w/k.root"), at("w/m.root")), pass, &r);
    if (!rc) {
        rc = lg_keyring_unlock(k, &r);
        lg_roots_done(&r);
    }
    if (!rc)
        rc = lg_keyring_officers_check(k);
    if (rc)
        lg_keyring_close(k);
    else
        *ret = k;
    return rc;
}

static struct lg_keyring *opened(void)
{
    struct lg_keyring *k;
    assert_int_equal(open_as("first", &k), 0);
    assert_int_equal(lg_keyring_unfinished(k), lg_keyring_rolled_back(k) ? -EROFS : 0);
    assert_int_equal(lg_keyring_unkept(k), 0);
    return k;
}

/* Within a transaction of its own. */
#define COMMIT(k, call)                                                                                                                                \
    ({                                                                                                                                                 \
        int rc_ = lg_keyring_begin(k);                                                                                                                 \
        rc_ = rc_ ? rc_ : (call);                                                                                                                      \
        if (rc_)                                                                                                                                       \
            lg_keyring_abort(k);                                                                                                                       \
        else                                                                                                                                           \
            rc_ = lg_keyring_commit(k);                                                                                                                \
        rc_;                                                                                                                                           \
    })

static int study(struct lg_keyring *k, const char *uid, const char *patient, struct lg_key *ret)
{
    struct lg_study_info info = { 0 };
    struct lg_key key = { .key = NULL };
    bool created;
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    snprintf(info.patient_id, sizeof info.patient_id, "%s", patient);
    int rc = COMMIT(k, lg_keyring_study_key(k, &info, &key, &created));
    if (!rc && ret)
        *ret = key;
    else
        lg_secret_free(key.key);
    return rc;
}

static int mark(struct lg_keyring *k, const char *uid)
{
    uint8_t kids[8][LG_ID_LEN];
    unsigned n;
    return COMMIT(k, lg_keyring_revoke(k, uid, "because", 0, kids, 8, &n));
}

static int alone(struct lg_keyring *k, enum lg_action action, const char *uid, uint64_t number)
{
    struct lg_act a = act_of(k, action, uid);
    a.number = number;
    if (action == LG_ACT_CANCEL)
        memcpy(a.kid, waits_act, LG_ID_LEN);
    return submit(k, &a, NULL);
}

static int slot(struct lg_keyring *k, const char *name, const char *pass, int (*what)(struct lg_keyring *k, const struct lg_slot_draft *d))
{
    struct lg_slot_draft *d;
    int rc = lg_slot_draft_new(at("w/k.root"), LG_SLOT_PASSPHRASE, name, pass, strlen(pass), &d);
    if (!rc) {
        rc = what(k, d);
        lg_slot_draft_free(d);
    }
    return rc;
}

static int attach_new(struct lg_keyring *k, const char *uid, struct lg_key *ret)
{
    struct lg_study_info info = { 0 };
    struct lg_key p = { .key = NULL };
    snprintf(info.uid, sizeof info.uid, "%s", uid);
    int rc = COMMIT(k, ({ int one = lg_keyring_provisional(k, &p); one ? one : lg_keyring_attach(k, p.kid, &info); }));
    if (!rc && ret)
        *ret = p;
    else
        lg_secret_free(p.key);
    return rc;
}

/* A vault shows an anchor; with out, it is given the next one. */
static int anchor_show(struct lg_keyring *k, const uint8_t *anchor, enum lg_anchor_verdict *ret, uint8_t out[LG_VAULT_ANCHOR_LEN])
{
    uint8_t unused[LG_VAULT_ANCHOR_LEN];
    size_t len;
    return COMMIT(k, lg_keyring_vault_anchor(k, vault_id, anchor, anchor ? LG_VAULT_ANCHOR_LEN : 0, out != NULL, ret, out ? out : unused, &len));
}

static void prepare(void)
{
    struct lg_key v, g;
    struct lg_study s;
    enum lg_anchor_verdict v_none, v_old;
    uint8_t kid[LG_ID_LEN];
    unsigned n;
    assert_int_equal(mkdir(at("w"), 0700), 0);
    assert_int_equal(lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0), 0);
    struct lg_keyring *k = opened();
    assert_int_equal(study(k, "kept", "P", &kept), 0);
    assert_int_equal(study(k, "kept2", "P", &kept2_old), 0);
    assert_int_equal(COMMIT(k, lg_keyring_rotate_study(k, "kept2", kid)), 0);
    assert_int_equal(lg_keyring_study_find(k, "kept2", &kept2), 0);
    assert_int_equal(study(k, "victim", "P", &victim), 0);
    assert_int_equal(attach_new(k, "victim", &prov), 0);
    assert_int_equal(study(k, "gone", "P", &done_for), 0);
    assert_int_equal(study(k, "held", "P", NULL), 0);
    assert_int_equal(study(k, "suspended", "P", NULL), 0);
    assert_int_equal(study(k, "waits", "P", &waits), 0);
    assert_int_equal(mark(k, "gone"), 0);
    assert_int_equal(lg_keyring_destroy(k, &n), 0);
    assert_int_equal(alone(k, LG_ACT_HOLD, "held", 0), 0);
    assert_int_equal(alone(k, LG_ACT_SUSPEND, "suspended", 0), 0);
    assert_int_equal(alone(k, LG_ACT_REVOKE, "waits", 0), 0);
    assert_int_equal(lg_keyring_study_show(k, "waits", &s), 0);
    memcpy(waits_act, s.act, LG_ID_LEN);
    assert_int_equal(COMMIT(k, lg_keyring_vault_add(k, vault_id, &v, &g)), 0);
    lg_secret_free(v.key), lg_secret_free(g.key);
    assert_int_equal(COMMIT(k, lg_keyring_session_begin(k, vault_id, &session)), 0);
    assert_int_equal(anchor_show(k, NULL, &v_none, anchor_old), 0);
    assert_int_equal(slot(k, "second", "second", lg_keyring_slot_add), 0);
    assert_int_equal(copy_make(k, "a backup", &backup), 0);
    lg_keyring_close(k);
    copy_tree(at("w"), at("t"));
    k = opened(); /* what the vault sees later, and the keyring that is put back then does not know of */
    assert_int_equal(anchor_show(k, anchor_old, &v_old, anchor_later), 0);
    assert_true(v_none == LG_ANCHOR_NONE && v_old == LG_ANCHOR_AS_GIVEN);
    lg_keyring_close(k);
    remove_tree(at("w"), true);
    sam = person("Sam", LG_ROLE_SECURITY, 101), ruth = person("Ruth", LG_ROLE_RETENTION, 102);
}

/* ---- operations: what, and whether it is done ------------------------------------------------------------------------------------------------------------ */

static struct lg_study shown(struct lg_keyring *k, const char *uid)
{
    struct lg_study s = { 0 };
    int rc = lg_keyring_study_show(k, uid, &s);
    assert_true(rc == 0 || rc == -ENOENT);
    if (rc)
        s.state = 0;
    return s;
}
static bool opens(const char *pass)
{
    struct lg_roots r;
    int rc = secret_opens(at("w/k.root"), pass, &r);
    assert_true(rc == 0 || rc == -EKEYREJECTED);
    if (!rc)
        lg_roots_done(&r);
    return !rc;
}
static uint64_t epoch_before;

static int op_study(struct lg_keyring *k) { return study(k, "new", "", NULL); }
static bool is_study(struct lg_keyring *k) { return shown(k, "new").state == LG_KEY_ACTIVE; }
static int op_learn(struct lg_keyring *k) { return study(k, "new", "Q", NULL); }
static bool is_learn(struct lg_keyring *k) { return strcmp(shown(k, "new").info.patient_id, "Q") == 0; }
static void pre_study(struct lg_keyring *k) { assert_int_equal(study(k, "new", "", NULL), 0); }
static int op_attach(struct lg_keyring *k) { return attach_new(k, "new", NULL); }
static int op_vault(struct lg_keyring *k)
{
    struct lg_key v = { .key = NULL }, g = { .key = NULL };
    int rc = COMMIT(k, lg_keyring_vault_add(k, (const uint8_t *)"another vault...", &v, &g));
    lg_secret_free(v.key), lg_secret_free(g.key);
    return rc;
}
static bool is_vault(struct lg_keyring *k)
{
    struct lg_key v, g;
    int rc = lg_keyring_vault_get(k, (const uint8_t *)"another vault...", &v, &g);
    assert_true(rc == 0 || rc == -ENOENT);
    if (!rc)
        lg_secret_free(v.key), lg_secret_free(g.key);
    return !rc;
}
static int op_session(struct lg_keyring *k) { return COMMIT(k, lg_keyring_session_set(k, session, LG_SESSION_CLEAN)); }
static bool is_session(struct lg_keyring *k)
{
    uint8_t id[LG_ID_LEN];
    enum lg_session_state s;
    assert_int_equal(lg_keyring_session_get(k, session, id, &s), 0);
    return s == LG_SESSION_CLEAN;
}
static int op_version(struct lg_keyring *k)
{
    uint8_t kid[LG_ID_LEN];
    return COMMIT(k, lg_keyring_rotate_study(k, "kept2", kid));
}
static bool is_version(struct lg_keyring *k) { return shown(k, "kept2").version == 3; }
static int op_versions(struct lg_keyring *k)
{
    struct lg_rotated r;
    return COMMIT(k, lg_keyring_rotate_studies(k, NULL, 100, &r));
}
static int op_root(struct lg_keyring *k) { return lg_keyring_rotate_root(k); }
static bool is_root(struct lg_keyring *k)
{
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    return st.epoch > epoch_before;
}
static int op_slot_add(struct lg_keyring *k) { return slot(k, "third", "third", lg_keyring_slot_add); }
static bool is_slot_add(struct lg_keyring *k) { return (void)k, opens("third"); }
static int op_slot_change(struct lg_keyring *k) { return slot(k, "second", "changed", lg_keyring_slot_change); }
static bool is_slot_change(struct lg_keyring *k)
{
    (void)k;
    assert_true(opens("changed") != opens("second"));
    return opens("changed");
}
static int op_slot_remove(struct lg_keyring *k) { return lg_keyring_slot_remove(k, "second"); }
static bool is_slot_remove(struct lg_keyring *k) { return (void)k, !opens("second"); }
static int op_slot_proved(struct lg_keyring *k) { return lg_keyring_slot_proved(k, 1); }
static bool is_slot_proved(struct lg_keyring *k)
{
    struct lg_slot_info i[LG_SLOTS_MAX];
    unsigned n;
    (void)k;
    assert_int_equal(lg_slotfile_list(at("w/k.root"), i, &n), 0);
    return i[1].proved != 0;
}
static int op_destroy(struct lg_keyring *k)
{
    unsigned n;
    int rc = mark(k, "victim");
    return rc ? rc : lg_keyring_destroy(k, &n);
}
static bool is_destroyed(struct lg_keyring *k) { return shown(k, "victim").state == LG_KEY_DESTROYED; }
static void pre_due(struct lg_keyring *k)
{
    struct lg_keyring_time t;
    for (unsigned d = 0; d < 8; d++) {
        pass_time(DAY);
        assert_int_equal(COMMIT(k, lg_keyring_tick(k, &t)), 0);
    }
}
static int op_due(struct lg_keyring *k)
{
    uint8_t kids[8][LG_ID_LEN];
    unsigned n = 0;
    int rc = COMMIT(k, lg_keyring_due(k, 8, kids, &n, NULL));
    assert_true(rc || n == 1);
    return rc ? rc : lg_keyring_destroy(k, &n);
}
static bool is_due(struct lg_keyring *k)
{
    enum lg_key_state s = shown(k, "waits").state;
    assert_true(s == LG_KEY_DESTROYED || s == LG_KEY_DESTROY_APPROVED);
    return s == LG_KEY_DESTROYED;
}
static int op_hold(struct lg_keyring *k) { return alone(k, LG_ACT_HOLD, "kept", 0); }
static bool is_hold(struct lg_keyring *k) { return shown(k, "kept").held; }
static int op_release(struct lg_keyring *k) { return alone(k, LG_ACT_RELEASE, "held", 0); }
static bool is_release(struct lg_keyring *k) { return !shown(k, "held").held; }
static int op_suspend(struct lg_keyring *k) { return alone(k, LG_ACT_SUSPEND, "held", 0); }
static bool is_suspend(struct lg_keyring *k) { return shown(k, "held").state == LG_KEY_SUSPENDED; }
static int op_resume(struct lg_keyring *k) { return alone(k, LG_ACT_RESUME, "suspended", 0); }
static bool is_resume(struct lg_keyring *k) { return shown(k, "suspended").state == LG_KEY_ACTIVE; }
static int op_retain(struct lg_keyring *k) { return alone(k, LG_ACT_RETAIN, "kept", 1900000000); }
static bool is_retain(struct lg_keyring *k) { return shown(k, "kept").retain_until == 1900000000; }
static int op_revoke_act(struct lg_keyring *k) { return alone(k, LG_ACT_REVOKE, "victim", 0); }
static bool is_revoke_act(struct lg_keyring *k) { return shown(k, "victim").state == LG_KEY_DESTROY_APPROVED; }
static int op_cancel(struct lg_keyring *k) { return alone(k, LG_ACT_CANCEL, NULL, 0); }
static bool is_cancel(struct lg_keyring *k) { return shown(k, "waits").state == LG_KEY_ACTIVE; }
static int op_readmit(struct lg_keyring *k) { return alone(k, LG_ACT_READMIT, "gone", 0); }
static bool is_readmit(struct lg_keyring *k) { return shown(k, "gone").state == 0; }
static int officer(struct lg_keyring *k, const struct person *p)
{
    struct lg_act a = act_of(k, LG_ACT_OFFICER_ADD, NULL);
    assert_int_equal(lg_officer_encode(&p->o, a.data, &a.data_len), 0);
    return submit(k, &a, NULL);
}
static int op_officer(struct lg_keyring *k) { return officer(k, &sam); }
static bool is_officer(struct lg_keyring *k)
{
    struct lg_officer o[LG_OFFICERS_MAX];
    unsigned n;
    assert_int_equal(lg_keyring_officers(k, o, &n), 0);
    return n > 0;
}
static void pre_officer(struct lg_keyring *k) { assert_int_equal(officer(k, &sam), 0); }
static int op_mode(struct lg_keyring *k) { return officer(k, &ruth); }
static bool is_mode(struct lg_keyring *k)
{
    bool mode;
    assert_int_equal(lg_keyring_officer_mode(k, &mode), 0);
    return mode;
}
static struct lg_policy policy_new(void)
{
    struct lg_policy p;
    lg_policy_default(&p);
    p.waiting_s = 3 * DAY;
    return p;
}
static int op_policy(struct lg_keyring *k)
{
    struct lg_act a = act_of(k, LG_ACT_POLICY, NULL);
    struct lg_policy p = policy_new();
    assert_int_equal(lg_policy_encode(&p, a.data, &a.data_len), 0);
    return submit(k, &a, NULL);
}
static bool is_policy(struct lg_keyring *k)
{
    struct lg_policy p;
    assert_int_equal(lg_keyring_policy(k, &p), 0);
    return p.waiting_s == 3 * DAY;
}
static int op_backup(struct lg_keyring *k)
{
    struct copy_of c = { 0 };
    int rc = copy_make(k, "another", &c);
    if (!rc)
        copy_free(&c);
    return rc;
}
static unsigned inventory(struct lg_keyring *k, bool voided)
{
    struct lg_backup_entry *e;
    unsigned n, v = 0;
    assert_int_equal(lg_backup_list(k, &e, &n), 0);
    for (unsigned i = 0; i < n; i++)
        v += e[i].voided != 0;
    free(e);
    return voided ? v : n;
}
static bool is_backup(struct lg_keyring *k) { return inventory(k, false) == 2; }
static int op_void(struct lg_keyring *k) { return COMMIT(k, lg_backup_void(k, backup.id)); }
static bool is_void(struct lg_keyring *k) { return inventory(k, true) == 1; }
static int op_degraded(struct lg_keyring *k)
{
    unlink(at("w/k/data.mdb")); /* the first disk loses it under way: the commit notices, and marks */
    return study(k, "new", "", NULL);
}
static int op_audit(struct lg_keyring *k)
{
    LG_SECRET_AUTO s = lg_secret_new();
    return COMMIT(k, lg_keyring_audit_key(k, s));
}
static void pre_trim(struct lg_keyring *k)
{
    struct lg_act a = act_of(k, LG_ACT_TRIM, "kept2");
    struct lg_trim what = { .n_vaults = 1 };
    memcpy(what.vault[0], vault_id, LG_ID_LEN);
    a.number = now.wall_s;
    memcpy(trim_act, a.nonce, LG_ID_LEN);
    assert_int_equal(lg_trim_encode(&what, a.data, &a.data_len), 0);
    assert_int_equal(submit(k, &a, NULL), 0);
}
static int op_trim(struct lg_keyring *k)
{
    struct lg_rotated r;
    unsigned n;
    int rc = COMMIT(k, lg_keyring_trim(k, trim_act, NULL, 8, &r));
    rc = rc ? rc : lg_keyring_destroy(k, &n);
    return rc ? rc : lg_keyring_keep(k);
}
static bool is_trim(struct lg_keyring *k)
{
    struct lg_key x;
    struct lg_act_record r;
    int rc = lg_keyring_key_by_id(k, kept2_old.kid, 1, &x);
    if (!rc)
        lg_secret_free(x.key);
    assert_true(rc == 0 || rc == -EKEYREVOKED);
    assert_int_equal(lg_keyring_act_get(k, trim_act, &r), 0);
    assert_int_equal(r.state, rc ? LG_ACT_DONE : LG_ACT_WAITING);
    return rc != 0;
}
static int op_reaped(struct lg_keyring *k)
{
    struct lg_reaped r;
    return COMMIT(k, lg_keyring_reaped(k, done_for.kid, vault_id, 3, 4096, true, &r));
}
static bool is_reaped(struct lg_keyring *k)
{
    struct lg_reaped r;
    unsigned vaults;
    assert_int_equal(lg_reaped_sum(k, done_for.kid, &r, &vaults), 0);
    assert_true(vaults == 0 || (r.files == 3 && r.bytes == 4096 && r.removed));
    return vaults != 0;
}
static enum lg_anchor_verdict verdict(struct lg_keyring *k, const uint8_t anchor[LG_VAULT_ANCHOR_LEN])
{
    enum lg_anchor_verdict v;
    uint8_t out[LG_VAULT_ANCHOR_LEN];
    size_t len;
    assert_int_equal(lg_keyring_begin(k), 0);
    assert_int_equal(lg_keyring_vault_anchor(k, vault_id, anchor, LG_VAULT_ANCHOR_LEN, false, &v, out, &len), 0);
    lg_keyring_abort(k);
    return v;
}
static void pre_given(struct lg_keyring *k) { (void)k, memset(anchor_new, 0, sizeof anchor_new); }
static int op_given(struct lg_keyring *k)
{
    enum lg_anchor_verdict v;
    return anchor_show(k, anchor_old, &v, anchor_new);
}
static bool is_given(struct lg_keyring *k)
{
    assert_int_equal(verdict(k, anchor_old), LG_ANCHOR_AS_GIVEN);
    return verdict(k, anchor_new) == LG_ANCHOR_AS_GIVEN;
}
static int op_rolled(struct lg_keyring *k)
{
    enum lg_anchor_verdict v;
    return anchor_show(k, anchor_later, &v, anchor_new);
}
static bool is_rolled(struct lg_keyring *k)
{
    bool rolled = lg_keyring_rolled_back(k);
    assert_int_equal(verdict(k, anchor_later), LG_ANCHOR_AHEAD);
    return rolled;
}
static void pre_accept(struct lg_keyring *k)
{
    assert_int_equal(op_rolled(k), 0);
    assert_int_equal(op_policy(k), -EROFS);
}
static int op_accept(struct lg_keyring *k)
{
    int rc = alone(k, LG_ACT_ACCEPT, NULL, 0);
    assert_int_equal(lg_keyring_rolled_back(k), rc != 0);
    return rc;
}
static bool is_accept(struct lg_keyring *k)
{
    bool rolled = lg_keyring_rolled_back(k);
    assert_int_equal(verdict(k, anchor_later), rolled ? LG_ANCHOR_AHEAD : LG_ANCHOR_AS_GIVEN);
    return !rolled;
}
/* The slot file anchored in the chip: one value lives, that of the root in force; a copy of the slot file from before opens nothing. */
static bool anchored(struct lg_keyring *k)
{
    uint32_t nv = lg_keyring_anchor_nv(k);
    struct lg_keyring_stat st;
    uint8_t id[LG_ID_LEN];
    unsigned alive = 0;
    if (!nv)
        return false;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    memcpy(id, st.keyring_id, LG_ID_LEN);
    for (uint32_t i = 0; i < 2; i++) {
        LG_SECRET_AUTO v = lg_secret_new();
        uint64_t epoch = 0;
        if (nv_read(NULL, nv + i, id, &epoch, v) == 0 && epoch) {
            assert_true(epoch == st.epoch && i == (epoch & 1));
            alive++;
        }
    }
    assert_int_equal(alive, 1);
    return true;
}
static bool stolen_opens(void)
{
    struct lg_roots r;
    int rc = secret_opens(at("stolen.root"), "first", &r);
    if (!rc)
        lg_roots_done(&r);
    return !rc;
}
static void pre_anchored(struct lg_keyring *k)
{
    assert_int_equal(lg_keyring_anchor(k, true), 0);
    copy_file(at("w/k.root"), at("stolen.root"));
    assert_true(stolen_opens());
}
static int op_anchor(struct lg_keyring *k) { return lg_keyring_anchor(k, true); }
static int op_unanchor(struct lg_keyring *k) { return lg_keyring_anchor(k, false); }
static bool is_unanchored(struct lg_keyring *k) { return !anchored(k); }
static bool is_root_anchored(struct lg_keyring *k)
{
    assert_true(anchored(k));
    assert_int_equal(stolen_opens(), !is_root(k));
    return is_root(k);
}
static bool is_destroyed_anchored(struct lg_keyring *k)
{
    assert_true(anchored(k));
    assert_true(!is_destroyed(k) || !stolen_opens());
    return is_destroyed(k);
}
static bool is_slot_change_anchored(struct lg_keyring *k)
{
    assert_true(anchored(k));
    assert_true(!is_slot_change(k) || !stolen_opens());
    return is_slot_change(k);
}

static const struct {
    const char *name;
    void (*before)(struct lg_keyring *k);
    int (*op)(struct lg_keyring *k);
    bool (*done)(struct lg_keyring *k); /* NULL: nothing to see */
    enum { EACH, ONCE, OPENING } how; /* ONCE: at each call one kind of loss, by turns, as others make many of these calls too. OPENING: the power goes while
                                         it is opened, with the mirror gone or the first copy */
} ops[] = {
    { "study create", NULL, op_study, is_study, EACH },
    { "study learn", pre_study, op_learn, is_learn, EACH },
    { "attach", NULL, op_attach, is_study, EACH },
    { "vault", NULL, op_vault, is_vault, EACH },
    { "session", NULL, op_session, is_session, EACH },
    { "rotate study", NULL, op_version, is_version, EACH },
    { "rotate all studies", NULL, op_versions, is_version, EACH },
    { "rotate root", NULL, op_root, is_root, EACH },
    { "slot add", NULL, op_slot_add, is_slot_add, EACH },
    { "slot change", NULL, op_slot_change, is_slot_change, EACH },
    { "slot remove", NULL, op_slot_remove, is_slot_remove, EACH },
    { "slot proved", NULL, op_slot_proved, is_slot_proved, EACH },
    { "revoke and destroy", NULL, op_destroy, is_destroyed, EACH },
    { "due and destroy", pre_due, op_due, is_due, EACH },
    { "hold", NULL, op_hold, is_hold, EACH },
    { "release", NULL, op_release, is_release, EACH },
    { "suspend", NULL, op_suspend, is_suspend, EACH },
    { "resume", NULL, op_resume, is_resume, EACH },
    { "retain", NULL, op_retain, is_retain, EACH },
    { "revoke", NULL, op_revoke_act, is_revoke_act, EACH },
    { "cancel", NULL, op_cancel, is_cancel, EACH },
    { "readmit", NULL, op_readmit, is_readmit, EACH },
    { "officer", NULL, op_officer, is_officer, EACH },
    { "officer mode", pre_officer, op_mode, is_mode, EACH },
    { "policy", NULL, op_policy, is_policy, EACH },
    { "backup create", NULL, op_backup, is_backup, EACH },
    { "backup void", NULL, op_void, is_void, EACH },
    { "audit key", NULL, op_audit, NULL, EACH },
    { "trim", pre_trim, op_trim, is_trim, ONCE },
    { "reaped", NULL, op_reaped, is_reaped, EACH },
    { "vault anchor", pre_given, op_given, is_given, EACH },
    { "rolled back", NULL, op_rolled, is_rolled, EACH },
    { "accept", pre_accept, op_accept, is_accept, EACH },
    { "slot anchor", NULL, op_anchor, anchored, ONCE },
    { "slot anchor given up", pre_anchored, op_unanchor, is_unanchored, ONCE },
    { "rotate root, anchored", pre_anchored, op_root, is_root_anchored, ONCE },
    { "revoke and destroy, anchored", pre_anchored, op_destroy, is_destroyed_anchored, ONCE },
    { "slot change, anchored", pre_anchored, op_slot_change, is_slot_change_anchored, ONCE },
    { "the first copy fails", NULL, op_degraded, is_study, EACH },
    { "opening without the mirror, and a study", NULL, op_study, is_study, OPENING },
    { "opening without the first copy, and a study", NULL, op_study, is_study, OPENING },
};
enum { OPS = sizeof ops / sizeof *ops };

#endif
