/* Inside the keyring: officers, acts, policy, time, tombstones. All of it is sealed under the record key, which every root wraps. */
#ifndef LG_KEYRING_GOVERN_H
#define LG_KEYRING_GOVERN_H

#include "leadglass/act.h"
#include "leadglass/certificate.h"
#include "record.h"

/* ---- sealed.c: values of a table, bound to what they are for, the keyring and their key ---- */
#define LG_SEALED_VALUE_MAX 8192u
int lg_sealed_put(struct lg_keyring *k, enum lg_table t, const char purpose[8], const void *key, size_t key_len, const void *value, size_t len) LG_MUST;
/* -ENOENT; -EBADMSG; -EPROTO when it is longer than cap. */
int lg_sealed_get(struct lg_keyring *k, enum lg_table t, const char purpose[8], const void *key, size_t key_len, void *out, size_t cap, size_t *ret_len) LG_MUST;
/* The same of a value that is at hand. */
int lg_sealed_open(struct lg_keyring *k, const char purpose[8], const void *key, size_t key_len, const uint8_t *p, size_t len, void *out, size_t cap, size_t *ret_len) LG_MUST;
/* The next one, as lg_store_next. */
int lg_sealed_next(struct lg_keyring *k, enum lg_table t, const char purpose[8], bool after, void *key, size_t *key_len, void *out, size_t cap, size_t *ret_len) LG_MUST;

/* ---- clock.c ---- */
uint64_t lg_keyring_wall(struct lg_keyring *k);
struct lg_time {
    uint8_t boot_id[LG_ID_LEN];
    uint64_t base_wall, base_boot; /* where this boot's comparison begins */
    uint64_t last_wall;
    uint64_t run;                  /* seconds that the key manager has served unlocked */
    uint64_t down;                 /* seconds between two boots that nobody can vouch for, since the last confirmation */
    uint8_t frozen;                /* enum lg_frozen */
    uint64_t frozen_at;
};
/* Takes the clocks in and stores them: needs a transaction. */
int lg_time_now(struct lg_keyring *k, struct lg_time *ret) LG_MUST;
int lg_time_confirm(struct lg_keyring *k) LG_MUST;

/* ---- officers.c ---- */
int lg_officer_get(struct lg_keyring *k, const uint8_t pub[LG_SIGN_PUB_LEN], struct lg_officer *ret) LG_MUST; /* -ENOENT */
int lg_officer_put(struct lg_keyring *k, struct lg_officer *o, bool dry) LG_MUST;
int lg_officers_dirty(struct lg_keyring *k) LG_MUST; /* the slot file's hash of the set is behind from this transaction on */
int lg_officer_del(struct lg_keyring *k, const uint8_t pub[LG_SIGN_PUB_LEN], bool dry) LG_MUST;

/* ---- policy.c ---- */
int lg_policy_put(struct lg_keyring *k, const struct lg_policy *p) LG_MUST;

/* ---- retention.c: what an act does to a study. With dry they only say whether it could be done. ---- */
struct lg_acting {
    const struct lg_act *act;
    struct lg_act_record *record;
    struct lg_time time;
    uint32_t account;
    bool dry;
    enum lg_act_effect effect;
};
int lg_do_revoke(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_cancel(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_suspend(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_resume(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_readmit(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_hold(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_release(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_retain(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_do_rule(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
/* Every waiting period begins anew. */
int lg_waiting_restart(struct lg_keyring *k) LG_MUST;
/* May this study be destroyed now? -EBUSY: held. -EDOM: retained, or not due by its rule, which counts from the patient's last study (unless exception).
 * -EINPROGRESS: the patients' studies are still being gathered. looked: as lg_patient_keeps. */
struct lg_patient_looked;
int lg_may_destroy(struct lg_keyring *k, const struct lg_record *r, const struct lg_time *t, bool exception, struct lg_patient_looked *looked) LG_MUST;

/* ---- patient.c ---- */
#define LG_PATIENT_STUDIES_MAX 1024u /* what has more is nobody, and nothing of it is due by a rule; all of one patient destroyed at once cost its square */
/* Both in the transaction that makes a study, learns its patient, or begins to destroy it. patient may be "". */
int lg_patient_add(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const char *patient) LG_MUST;
int lg_patient_forget(struct lg_keyring *k, const struct lg_record *r) LG_MUST;
/* -EDOM, -EINPROGRESS: as lg_may_destroy. looked (NULL, or begun with zeros): what was last found, good until the transaction ends. */
struct lg_patient_looked {
    bool any, kept;
    unsigned rule;
    char patient[LG_PATIENT_ID_MAX + 1];
};
int lg_patient_keeps(struct lg_keyring *k, const struct lg_record *r, uint64_t wall, struct lg_patient_looked *looked) LG_MUST;
int lg_patients_load(struct lg_keyring *k) LG_MUST; /* after unlocking */
int lg_patients_note(struct lg_keyring *k) LG_MUST; /* before a commit that may have made studies */

/* ---- acts.c ---- */
int lg_act_put(struct lg_keyring *k, const uint8_t id[LG_ID_LEN], const struct lg_act_record *r) LG_MUST;
/* Records what one administrator did without a document of their own making (revoke --now). */
int lg_act_note(struct lg_keyring *k, enum lg_action action, const struct lg_record *r, const char *uid, const char *reason, uint32_t account, uint8_t ret_id[LG_ID_LEN]) LG_MUST;

/* ---- seen.c: was the keyring put back? ---- */
int lg_rollback_load(struct lg_keyring *k) LG_MUST;             /* after unlocking */
int lg_rollback_accept(struct lg_keyring *k, bool dry) LG_MUST; /* -EALREADY: it was not, or was accepted */

/* ---- tombstone.c ---- */
/* Before the wraps are gone: what the tombstone will say of them, as the value of table pending. */
int lg_pending_put(struct lg_keyring *k, const struct lg_record *r) LG_MUST;
/* With the state destroyed, in the same transaction. */
int lg_tombstone_put(struct lg_keyring *k, const struct lg_record *r, uint64_t generation) LG_MUST;

/* Brings the file of all tombstones beside the slot file (and the mirror's) up to date: SLOTFILE.tombstones. kids: those that it may lack; n 0: not known. */
int lg_tombstones_keep(struct lg_keyring *k, const uint8_t (*kids)[LG_ID_LEN], size_t n) LG_MUST;
/* Pure. -EPROTO: no such file. -EXDEV: another keyring's. */
int lg_tombstones_check(const void *untrusted, size_t len, const uint8_t keyring_id[LG_ID_LEN]) LG_MUST;
/* One after the other, *at beginning with 0; false at the end. ret_bytes: as signed. Nothing is verified. */
bool lg_tombstones_next(const void *untrusted, size_t len, size_t *at, struct lg_tombstone *ret, const uint8_t **ret_bytes);

/* What lies between two that lg_tombstones_next gave (or before the first, or behind the last), heads of files apart. */
struct lg_tombstone_gaps {
    uint64_t bad, cut; /* so many seem to have been there: damaged; cut off where a file ends */
};
void lg_tombstones_gap(const void *untrusted, size_t len, size_t from, size_t to, struct lg_tombstone_gaps *sum);

/* A restored keyring's file begins anew: what stands there of the lost one is renamed, to be kept. */
int lg_tombstones_aside(const char *slot, uint64_t now) LG_MUST;

/* A version of a study's key that was retired. */
int lg_tombstone_version(struct lg_keyring *k, const struct lg_record *r, uint32_t version, const uint8_t act[LG_ID_LEN], uint64_t epoch_before, uint64_t generation) LG_MUST;

/* ---- trim.c: a row of table pending whose key is a key id and a version, big-endian: the versions below that one go ---- */
enum { LG_TRIM_KEY = LG_ID_LEN + 4 };
int lg_do_trim(struct lg_keyring *k, struct lg_acting *x) LG_MUST;
int lg_trim_forget(struct lg_keyring *k, const uint8_t act[LG_ID_LEN]) LG_MUST; /* it is not carried out */
uint32_t lg_trim_below(const uint8_t key[LG_TRIM_KEY]);
void lg_record_trim(struct lg_record *r, uint32_t below);
/* Its tombstones, and the row goes; in the transaction that ends the batch. moot: the whole key went too. */
int lg_trim_mark(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], uint32_t below, bool moot, uint64_t generation) LG_MUST;

/* ---- reap.c: which vaults the files of a study are to be removed from, as the act that destroys it says; and that it is not destroyed after all ---- */
int lg_reap_want(struct lg_keyring *k, const struct lg_act *a) LG_MUST;
int lg_reap_forget(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN]) LG_MUST;

/* ---- reap.c: over all vaults where somebody looked; removed: 0 unless in all of them ---- */
int lg_reaped_sum(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], struct lg_reaped *ret, unsigned *ret_vaults) LG_MUST;

/* ---- inventory.c: for certificates ---- */
/* Keyring backups that were begun before this destruction, hold its key and are not void: how many there are (*ret_all), and the first max of them. */
int lg_backups_outstanding(struct lg_keyring *k, const struct lg_tombstone *t, struct lg_cert_backup *ret, unsigned max, unsigned *ret_n, uint64_t *ret_all) LG_MUST;
/* Does the inventory know every backup that may hold what this destroyed? Not always, once the keyring was restored. */
bool lg_inventory_complete(struct lg_keyring *k, const struct lg_tombstone *t);
/* Does a value outside the slot file, overwritten at every root change, make older slot files useless? */
int lg_anchor_overwritten(struct lg_keyring *k, uint64_t created, bool *ret) LG_MUST;

#endif
