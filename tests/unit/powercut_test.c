/* Every operation that touches keyring and slot files, with the power cut before every call that writes, syncs or renames; what was not synced is kept,
 * lost, or lost in part; then both copies come back, or one disk alone. Recovery is cut as well. Afterwards: no key lost, none revived, what was
 * acknowledged is there, what was not is there wholly or not at all. */
#include <fcntl.h>

#include "office.h"
#include "power.h"

static struct lg_key kept, kept2, victim, prov, done_for, waits;
static struct person sam, ruth;
static struct copy_of backup;
static uint8_t waits_act[LG_ID_LEN], vault_id[LG_ID_LEN] = "vault";
static uint64_t session;
static uint64_t seed_state = 20261126;

static uint64_t chance(void)
{
    seed_state = seed_state * 6364136223846793005ull + 1442695040888963407ull;
    return seed_state >> 16;
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
    rc = lg_slotfile_unlock(lg_slotfile_pick(at("w/k.root"), at("w/m.root")), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
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
    assert_int_equal(lg_keyring_unfinished(k), 0);
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

static void prepare(void)
{
    struct lg_key v, g;
    struct lg_study s;
    uint8_t kid[LG_ID_LEN];
    unsigned n;
    assert_int_equal(mkdir(at("w"), 0700), 0);
    assert_int_equal(lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0), 0);
    struct lg_keyring *k = opened();
    assert_int_equal(study(k, "kept", "P", &kept), 0);
    assert_int_equal(study(k, "kept2", "P", NULL), 0);
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
    assert_int_equal(slot(k, "second", "second", lg_keyring_slot_add), 0);
    assert_int_equal(copy_make(k, "a backup", &backup), 0);
    lg_keyring_close(k);
    copy_tree(at("w"), at("t"));
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
    int rc = lg_slotfile_unlock(at("w/k.root"), LG_SLOT_PASSPHRASE, NULL, pass, strlen(pass), &r);
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
    int rc = COMMIT(k, lg_keyring_due(k, 8, kids, &n));
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
    struct lg_backup_entry e[8];
    unsigned n, v = 0;
    assert_int_equal(lg_backup_list(k, e, 8, &n), 0);
    for (unsigned i = 0; i < n; i++)
        v += e[i].voided != 0;
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

static const struct {
    const char *name;
    void (*before)(struct lg_keyring *k);
    int (*op)(struct lg_keyring *k);
    bool (*done)(struct lg_keyring *k); /* NULL: nothing to see */
    bool opening; /* the power goes while it is opened: with the mirror gone, or the first copy */
} ops[] = {
    { "study create", NULL, op_study, is_study, false },
    { "study learn", pre_study, op_learn, is_learn, false },
    { "attach", NULL, op_attach, is_study, false },
    { "vault", NULL, op_vault, is_vault, false },
    { "session", NULL, op_session, is_session, false },
    { "rotate study", NULL, op_version, is_version, false },
    { "rotate all studies", NULL, op_versions, is_version, false },
    { "rotate root", NULL, op_root, is_root, false },
    { "slot add", NULL, op_slot_add, is_slot_add, false },
    { "slot change", NULL, op_slot_change, is_slot_change, false },
    { "slot remove", NULL, op_slot_remove, is_slot_remove, false },
    { "slot proved", NULL, op_slot_proved, is_slot_proved, false },
    { "revoke and destroy", NULL, op_destroy, is_destroyed, false },
    { "due and destroy", pre_due, op_due, is_due, false },
    { "hold", NULL, op_hold, is_hold, false },
    { "release", NULL, op_release, is_release, false },
    { "suspend", NULL, op_suspend, is_suspend, false },
    { "resume", NULL, op_resume, is_resume, false },
    { "retain", NULL, op_retain, is_retain, false },
    { "revoke", NULL, op_revoke_act, is_revoke_act, false },
    { "cancel", NULL, op_cancel, is_cancel, false },
    { "readmit", NULL, op_readmit, is_readmit, false },
    { "officer", NULL, op_officer, is_officer, false },
    { "officer mode", pre_officer, op_mode, is_mode, false },
    { "policy", NULL, op_policy, is_policy, false },
    { "backup create", NULL, op_backup, is_backup, false },
    { "backup void", NULL, op_void, is_void, false },
    { "audit key", NULL, op_audit, NULL, false },
    { "the first copy fails", NULL, op_degraded, is_study, false },
    { "opening without the mirror, and a study", NULL, op_study, is_study, true },
    { "opening without the first copy, and a study", NULL, op_study, is_study, true },
};
enum { OPS = sizeof ops / sizeof *ops };

/* ---- what holds whatever happened -------------------------------------------------------------------------------------------------------------------- */

static void assert_key(struct lg_keyring *k, const struct lg_key *want, uint32_t version)
{
    struct lg_key x;
    assert_int_equal(lg_keyring_key_by_id(k, want->kid, version, &x), 0);
    if (version == want->version)
        assert_memory_equal(x.key->b, want->key->b, LG_KEY_LEN);
    lg_secret_free(x.key);
}

static void assert_gone(struct lg_keyring *k, const struct lg_key *which)
{
    struct lg_key x;
    struct lg_record r;
    assert_int_equal(lg_keyring_key_by_id(k, which->kid, 1, &x), -EKEYREVOKED);
    assert_int_equal(lg_record_get(k, which->kid, &r), 0);
    assert_int_equal(r.n, 0);
}

static void assert_whole(struct lg_keyring *k)
{
    struct lg_study s;
    assert_key(k, &kept, 1);
    assert_key(k, &kept2, 2);
    assert_key(k, &kept2, 1);
    assert_gone(k, &done_for);
    s = shown(k, "victim");
    if (s.state == LG_KEY_ACTIVE)
        assert_key(k, &victim, 1), assert_key(k, &prov, 1);
    else if (s.state == LG_KEY_DESTROYED)
        assert_gone(k, &victim), assert_gone(k, &prov);
    else
        assert_int_equal(s.state, LG_KEY_DESTROY_APPROVED);
    s = shown(k, "waits");
    if (s.state == LG_KEY_DESTROYED)
        assert_gone(k, &waits);
    else if (s.state == LG_KEY_ACTIVE)
        assert_key(k, &waits, 1);
    else
        assert_int_equal(s.state, LG_KEY_DESTROY_APPROVED);
    s = shown(k, "suspended");
    assert_true(s.state == LG_KEY_SUSPENDED || s.state == LG_KEY_ACTIVE);
}

/* Each copy by itself says the same, under one root. */
static void assert_copies(bool effect, bool (*done)(struct lg_keyring *k))
{
    uint8_t a[LG_SLOTFILE_MAX], b[LG_SLOTFILE_MAX];
    size_t a_len, b_len;
    assert_int_equal(lg_slotfile_read(at("w/k.root"), a, &a_len), 0);
    assert_int_equal(lg_slotfile_read(at("w/m.root"), b, &b_len), 0);
    assert_true(a_len == b_len && memcmp(a, b, a_len) == 0);
    for (unsigned i = 0; i < 2; i++) {
        struct lg_keyring *k;
        struct lg_roots r;
        const char *slot_path = at(i ? "w/m.root" : "w/k.root");
        assert_int_equal(lg_keyring_open(at(i ? "w/m" : "w/k"), slot_path, NULL, &k), 0);
        lg_keyring_set_clock(k, clock_read, NULL);
        assert_int_equal(lg_slotfile_unlock(slot_path, LG_SLOT_PASSPHRASE, NULL, "first", 5, &r), 0);
        assert_int_equal(r.n, 1);
        assert_int_equal(lg_keyring_unlock(k, &r), 0);
        lg_roots_done(&r);
        assert_whole(k);
        if (done)
            assert_true(done(k) == effect);
        lg_keyring_close(k);
    }
}

static struct {
    unsigned op, stop, again;
    enum power_loss loss;
    unsigned after;
} now_at;

static const char *const losses[] = { "kept", "lost", "lost in part" };
static void say_where(void)
{
    print_error("%s, before call %u, what was not synced %s, %s, recovery before call %u\n", ops[now_at.op].name, now_at.stop, losses[now_at.loss],
                now_at.after == 0 ? "both copies" : now_at.after == 1 ? "the mirror alone" : "the first copy alone", now_at.again);
}

static void lose_disk(unsigned after)
{
    if (!after)
        return;
    remove_tree(at(after == 1 ? "w/k" : "w/m"), true);
    unlink(at(after == 1 ? "w/k.root" : "w/m.root"));
    unlink(at(after == 1 ? "w/k.root.tombstones" : "w/m.root.tombstones"));
}

/* One operation, cut before one call. False: it came to its end before that. */
static bool run(unsigned what, unsigned stop, enum power_loss loss, unsigned after)
{
    struct lg_keyring *k = NULL;
    struct lg_clock then = now;
    struct lg_keyring_stat st;
    remove_tree(at("w"), true);
    copy_tree(at("t"), at("w"));
    now_at.op = what, now_at.stop = stop, now_at.loss = loss, now_at.after = after, now_at.again = 0;
    bool opening = ops[what].opening, first_gone = ops[what].op == op_degraded || opening;
    if (opening)
        lose_disk(what == OPS - 1 ? 1 : 2);
    else
        k = opened();
    if (ops[what].before)
        ops[what].before(k);
    if (k) {
        assert_int_equal(lg_keyring_stat(k, &st), 0);
        epoch_before = st.epoch;
    }
    power_on(at("w"), stop);
    int rc = opening ? open_as("first", &k) : 0;
    if (!rc)
        rc = ops[what].op(k);
    else
        k = NULL;
    bool cut = power_gone(), acked = rc == 0;
    if (!cut)
        assert_int_equal(rc, 0);
    power_fail(); /* after the last call, too: what was acknowledged is durable */
    if (k)
        lg_keyring_close(k);
    power_off(loss, chance());
    if (!first_gone || (opening && acked))
        lose_disk(after);
    /* Recovery, cut before some call of its own, until it is not. */
    for (unsigned cuts = 0; cut && cuts < 2; cuts++) {
        now_at.again = (unsigned)(chance() % 24) + 1;
        power_on(at("w"), now_at.again);
        k = NULL;
        rc = open_as("first", &k);
        bool again = power_gone();
        if (!rc)
            lg_keyring_close(k);
        else
            assert_true(again);
        power_off((enum power_loss)(chance() % POWER_LOSSES), chance());
    }
    now_at.again = 0;
    k = opened();
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    assert_int_equal(st.stale, 0);
    assert_whole(k);
    bool effect = ops[what].done && ops[what].done(k);
    if (acked && ops[what].done)
        assert_true(effect);
    lg_keyring_close(k);
    assert_copies(effect, ops[what].done);
    now = then;
    return cut;
}

static bool failed = true;
static void test_every_call(void **state)
{
    (void)state;
    const char *only = getenv("LG_POWERCUT");
    unsigned runs = 0, calls = 0;
    failed = true;
    for (unsigned what = 0; what < OPS; what++) {
        unsigned stop = 1;
        if (only && strcmp(only, ops[what].name) != 0)
            continue;
        for (bool cut = true; cut; stop++) {
            cut = false;
            for (enum power_loss loss = 0; loss < POWER_LOSSES; loss++, runs++) {
                bool before = run(what, stop, loss, (stop + loss) % 3);
                for (unsigned i = 1; !before && i < 3; i++, runs++) /* it was acknowledged: each disk has it */
                    (void)run(what, stop, loss, (stop + loss + i) % 3);
                cut |= before;
            }
            assert_true(stop < 300);
        }
        calls += stop - 2;
    }
    failed = false;
    print_message("%u power cuts at %u calls of %u operations\n", runs, calls, (unsigned)OPS);
}

/* A keyring that is being made, and one that is being restored: there, or to be made anew; never half. */
static void test_making(void **state)
{
    (void)state;
    unsigned runs = 0;
    for (unsigned restore = 0; restore < 2; restore++)
        for (bool cut = true, again = false; cut; again = false)
            for (unsigned stop = 1; cut || !again; stop++) {
                again = true;
                cut = false;
                for (enum power_loss loss = 0; loss < POWER_LOSSES; loss++, runs++) {
                    unsigned n;
                    struct lg_keyring *k;
                    struct lg_roots r;
                    remove_tree(at("w"), true);
                    assert_int_equal(mkdir(at("w"), 0700), 0);
                    power_on(at("w"), stop);
                    int rc = restore ? copy_restore(&backup, at("w/k"), at("w/k.root"), "first", NULL, &n) : lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0);
                    bool gone = power_gone();
                    cut |= gone;
                    power_off(loss, chance());
                    assert_true(gone || rc == 0);
                    bool there = access(at("w/k.root"), F_OK) == 0;
                    assert_true(there || rc);
                    if (!there) { /* nobody was told of it: away with what is left, and once more */
                        remove_tree(at("w/k"), true);
                        rc = restore ? copy_restore(&backup, at("w/k"), at("w/k.root"), "first", NULL, &n) : lg_keyring_create(at("w/k"), at("w/k.root"), "first", 5, 0);
                        assert_int_equal(rc, 0);
                    }
                    assert_int_equal(lg_keyring_open(at("w/k"), at("w/k.root"), NULL, &k), 0);
                    lg_keyring_set_clock(k, clock_read, NULL);
                    assert_int_equal(lg_slotfile_unlock(at("w/k.root"), LG_SLOT_PASSPHRASE, NULL, "first", 5, &r), 0);
                    assert_int_equal(lg_keyring_unlock(k, &r), 0);
                    lg_roots_done(&r);
                    if (restore) {
                        assert_whole(k);
                        assert_true(lg_keyring_restored(k));
                    }
                    lg_keyring_close(k);
                }
                if (!cut)
                    break;
                assert_true(stop < 400);
            }
    print_message("%u power cuts\n", runs);
}

static int setup(void **state)
{
    (void)state;
    make_top("lgpower");
    prepare();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    power_off(POWER_KEEP_ALL, 0);
    if (failed)
        say_where();
    struct lg_secret *all[] = { kept.key, kept2.key, victim.key, prov.key, done_for.key, waits.key, sam.seed, ruth.seed };
    for (unsigned i = 0; i < sizeof all / sizeof *all; i++)
        lg_secret_free(all[i]);
    copy_free(&backup);
    remove_tree(top, true);
    return 0;
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test_setup_teardown(test_every_call, setup, teardown), cmocka_unit_test_setup_teardown(test_making, setup, teardown) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
