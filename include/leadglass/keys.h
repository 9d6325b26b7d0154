/* keys.h: the study keys that a mount holds, on lease from the key manager.
 *
 * Thread-safe. Keys are shared by reference; a dropped key stays in memory until its last user lets go, so droppers then visit the files
 * (lg_file_drop_keys). Behind it stands either the key manager (lg_keys_new) or, for tests, a source of the caller's. */
#ifndef LEADGLASS_KEYS_H
#define LEADGLASS_KEYS_H

#include "leadglass/client.h"

struct lg_keys;

/* One key in force. Reference counted. */
struct lg_kref {
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
    enum lg_key_kind kind;
    struct lg_secret *key;
    struct lg_siv *_Atomic wrap; /* what wraps file keys under it, once somebody has kept it here */
    int refs; /* private */
};
void lg_kref_unref(struct lg_kref *k); /* wipes with the last; NULL is fine; thread-safe */
/* Keeps wrap for as long as the key lives. false: it stays the caller's, as somebody was faster, or as many keys have theirs as locked memory is given for. */
bool lg_kref_keep_wrap(struct lg_kref *k, struct lg_siv *wrap);

/* Where keys come from: the calls of lg_client that leadglass-fs needs, same contracts. */
struct lg_key_source {
    void *arg;
    int (*vault)(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *ret_vault, struct lg_key *ret_general);
    int (*study)(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *ret_lease_s);
    int (*by_id)(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *ret_lease_s);
    int (*provisional)(void *arg, struct lg_key *ret, unsigned *ret_lease_s);
    int (*attach)(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info);
    int (*assign)(void *arg, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now); /* NULL: never */
};
/* A source over a client (kept by pointer; must outlive the keys). */
struct lg_key_source lg_key_source_client(struct lg_client *c);

int lg_keys_new(const struct lg_key_source *src, const uint8_t vault_id[LG_ID_LEN], struct lg_keys **ret) LG_MUST;
void lg_keys_free(struct lg_keys *k);

/* All: -ENOKEY while locked; -EKEYREVOKED; or the source's error when it cannot be asked and no lease helps; -LG_ELATER as later.h says. The caller unrefs. */
int lg_keys_vault(struct lg_keys *k, struct lg_kref **ret) LG_MUST;   /* names, headers' neighbours, xattrs */
int lg_keys_general(struct lg_keys *k, struct lg_kref **ret) LG_MUST;
int lg_keys_study(struct lg_keys *k, const struct lg_study_info *info, struct lg_kref **ret) LG_MUST;
/* version 0: the newest, always asked of the source. */
int lg_keys_by_id(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_kref **ret) LG_MUST;
/* May what is open under this key go on? 0: yes, its lease is renewed if that was due. -EKEYREVOKED. -EAGAIN: the key manager should be asked, which cannot be now,
 * and the lease has not ended: ask again. Anything else: the lease has ended. may_ask false: as far as is known here. */
int lg_keys_still(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version, bool may_ask) LG_MUST;
int lg_keys_provisional(struct lg_keys *k, struct lg_kref **ret) LG_MUST;
int lg_keys_attach(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) LG_MUST;

/* Does anybody wait for the source just now? */
bool lg_keys_asking(const struct lg_keys *k);

/* lg_client_assign. -EPERM: not without the officers' act. */
int lg_keys_assign(struct lg_keys *k, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now) LG_MUST;

/* Events. lock: forget everything, answer -ENOKEY until unlock. revoke: forget these, answer -EKEYREVOKED for them from the cache.
 * resync: forget all leases so that each is asked for again (answers come from the key manager if it can be reached); ends a lock too, as the key
 * manager may have been unlocked since without our hearing of it. */
void lg_keys_lock(struct lg_keys *k);
void lg_keys_unlock(struct lg_keys *k);
void lg_keys_revoke(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n);
void lg_keys_resync(struct lg_keys *k);
/* These keys (n 0: all) have a newer version: studies ask for it, what is held goes on decrypting. */
void lg_keys_rotated(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n);
/* Every version that is held of these keys (n 0: of all) is asked for again: older ones are about to be retired. */
void lg_keys_trimmed(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n);
/* Drops leases that have ended; call every minute or so. Returns true when something was dropped. */
bool lg_keys_expire(struct lg_keys *k);

#endif
