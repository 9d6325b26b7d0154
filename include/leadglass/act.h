/* act.h: acts of officers: what is asked for, by whom, why, and who approved it.
 *
 * An act is a document of fixed bytes (docs/PROTOCOL.md, "Acts"). The officer who asks signs LG_ACT_ASK || document, the officer who approves signs
 * LG_ACT_APPROVE || document: the same bytes, two purposes. The nonce is the act's id; the key manager keeps every nonce for ever, so a document counts
 * once. In single-administrator mode (no quorum of officers yet) an administrator submits documents without a signature, and they are carried out at once.
 *
 * This header is the pure part: the document, its signatures, the officers' key files and the table of actions. The keyring's side (who may, once, in one
 * transaction with what it does) is leadglass/keyring.h, "acts". */
#ifndef LEADGLASS_ACT_H
#define LEADGLASS_ACT_H

#include <stdbool.h>

#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/study.h"

/* Stored, signed and sent as these numbers: never reuse one. */
enum lg_action {
    LG_ACT_REVOKE = 1,       /* destroy a study's key: unreadable at approval, destroyed after the waiting period. number 1: although a rule says it is not due */
    LG_ACT_CANCEL = 2,       /* subject: an act that is pending, approved or waiting */
    LG_ACT_SUSPEND = 3,      /* unreadable until resumed */
    LG_ACT_RESUME = 4,
    LG_ACT_READMIT = 5,      /* a destroyed UID may arrive again, with a new key */
    LG_ACT_HOLD = 6,
    LG_ACT_RELEASE = 7,      /* of a hold */
    LG_ACT_RETAIN = 8,       /* number: keep at least until (seconds since 1970); later than before */
    LG_ACT_SHORTEN = 9,      /* the same, earlier than before */
    LG_ACT_RULE = 10,        /* number: which rule of the policy a study follows */
    LG_ACT_POLICY = 11,      /* data: the new policy */
    LG_ACT_OFFICER_ADD = 12, /* data: the officer record */
    LG_ACT_OFFICER_REMOVE = 13, /* data: the public key */
    LG_ACT_CLOCK = 14,       /* the clock is right, although it jumped */
    LG_ACT_ASSIGN = 15,      /* carried out elsewhere: lg_act_claim */
    LG_ACT_TRIM = 16,        /* of one study, or of all (no subject): old versions of keys go. number: no ciphertext from before that time is kept anywhere. data: lg_trim */
    LG_ACT_BACKUP_VOID = 17, /* carried out elsewhere; subject: the backup's id */
    LG_ACT_DESTROY_ENABLE = 18, /* carried out elsewhere: destruction is allowed again after a restore */
    LG_ACT_ACCEPT = 19,      /* the keyring, which was put back, is used as it is */
    LG_ACT_UNANCHOR = 20,    /* carried out elsewhere: the root-slot file is anchored no more */
    LG_ACT_LAST = LG_ACT_UNANCHOR,
};

/* Who may do what. Bits, so that a table can name several. */
enum lg_role {
    LG_ROLE_STORAGE_ADMIN = 1,
    LG_ROLE_SECURITY = 2,
    LG_ROLE_RETENTION = 4,
    LG_ROLE_AUDITOR = 8,
};
#define LG_ROLE_BOTH (LG_ROLE_SECURITY | LG_ROLE_RETENTION)
const char *lg_role_name(enum lg_role r); /* storage-admin, security-officer, retention-officer, auditor */
int lg_role_parse(const char *name, enum lg_role *ret) LG_MUST; /* -EINVAL */

/* The table of actions. */
struct lg_action_info {
    const char *name;
    unsigned ask, approve; /* roles; approve 0: one officer alone may */
    bool study;            /* the subject is a study: uid and kid are set */
    bool claimed;          /* approval only allows it: lg_act_claim carries it out, once */
};
/* NULL for a number that is no action. */
const struct lg_action_info *lg_action_info(unsigned action);

#define LG_ACT_DATA_MAX 1024u
#define LG_ACT_REASON_MAX 1024u
#define LG_ACT_DOC_MAX 2304u
#define LG_ACT_LIFE_MAX_S (30u * 86400u) /* expires - created at most */

struct lg_act {
    enum lg_action action;
    uint8_t keyring_id[LG_ID_LEN];
    uint8_t nonce[LG_ID_LEN]; /* the act's id */
    uint64_t created, expires; /* seconds since 1970 */
    uint8_t by[LG_SIGN_PUB_LEN]; /* public key of the officer who asks; zero: single administrator */
    uint8_t kid[LG_ID_LEN];   /* subject: a study's key id, or another id; zero: none */
    char uid[LG_UID_MAX + 1]; /* subject: the study's UID; empty: none */
    uint64_t number;
    char reason[LG_ACT_REASON_MAX + 1];
    size_t data_len;
    uint8_t data[LG_ACT_DATA_MAX];
};

/* Pure, one text for one value. decode: -EPROTO for anything that encode does not write. */
int lg_act_encode(const struct lg_act *a, uint8_t out[LG_ACT_DOC_MAX], size_t *ret_len) LG_MUST;
int lg_act_decode(const uint8_t *untrusted, size_t len, struct lg_act *ret) LG_MUST;

#define LG_ACT_ASK "LGASK1\0"      /* 8 bytes with the NUL that the compiler adds */
#define LG_ACT_APPROVE "LGAPPR1"
int lg_act_sign(const struct lg_secret *seed, const char purpose[8], const uint8_t *doc, size_t len, uint8_t ret_sig[LG_SIGN_LEN]) LG_MUST;
/* -EBADMSG */
int lg_act_verify(const uint8_t pub[LG_SIGN_PUB_LEN], const char purpose[8], const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN]) LG_MUST;

/* ---- officers ---------------------------------------------------------------------------------------------------------------- */

#define LG_OFFICER_NAME_MAX 63u
#define LG_OFFICERS_MAX 64u
#define LG_OFFICER_REC_MAX 128u

struct lg_officer {
    uint8_t pub[LG_SIGN_PUB_LEN];
    char name[LG_OFFICER_NAME_MAX + 1];
    enum lg_role role;
    uint32_t account; /* uid of the local account */
    uint64_t added;
    uint8_t added_by[LG_ID_LEN]; /* id of the act */
};
int lg_officer_encode(const struct lg_officer *o, uint8_t out[LG_OFFICER_REC_MAX], size_t *ret_len) LG_MUST;
int lg_officer_decode(const uint8_t *untrusted, size_t len, struct lg_officer *ret) LG_MUST;

/* An officer's private key in a file, protected by a passphrase (scrypt, AES-256-SIV). docs/FORMAT-keyring.md, "Officers' key files".
 * Both texts end in a newline and a NUL. */
#define LG_OFFICER_KEY_TEXT 320u
#define LG_OFFICER_PUB_TEXT 96u
int lg_officer_key_seal(const struct lg_secret *seed, const void *pass, size_t pass_len, unsigned scrypt_ms, char ret_text[LG_OFFICER_KEY_TEXT]) LG_MUST;
/* -EPROTO: no such file. -EKEYREJECTED: wrong passphrase. */
int lg_officer_key_open(const char *untrusted, size_t len, const void *pass, size_t pass_len, struct lg_secret *ret_seed) LG_MUST;
int lg_officer_pub_text(const uint8_t pub[LG_SIGN_PUB_LEN], char ret_text[LG_OFFICER_PUB_TEXT]) LG_MUST;
/* Takes the text of a public key file, or the key itself in base64url. */
int lg_officer_pub_parse(const char *untrusted, size_t len, uint8_t ret_pub[LG_SIGN_PUB_LEN]) LG_MUST;

/* ---- an act as the keyring keeps it, and as it is sent -------------------------------------------------------------------------- */

enum lg_act_state {
    LG_ACT_PENDING = 1,   /* waits for a second officer */
    LG_ACT_APPROVED = 2,  /* of those carried out elsewhere: may be, once */
    LG_ACT_WAITING = 3,   /* a destruction in its waiting period */
    LG_ACT_DONE = 4,
    LG_ACT_CANCELLED = 5,
    LG_ACT_EXPIRED = 6,   /* nobody approved in time */
};
const char *lg_act_state_name(enum lg_act_state s);

struct lg_signed {
    uint8_t pub[LG_SIGN_PUB_LEN]; /* zero: single administrator */
    uint8_t sig[LG_SIGN_LEN];
    char name[LG_OFFICER_NAME_MAX + 1]; /* as registered at that moment */
    uint32_t account; /* uid of the process that handed it in */
    uint64_t at;      /* 0: not yet */
};

struct lg_act_record {
    enum lg_act_state state;
    size_t doc_len;
    uint8_t doc[LG_ACT_DOC_MAX];
    struct lg_signed asked, approved;
    uint64_t changed;
    uint8_t ended_by[LG_ID_LEN]; /* the act that cancelled or resumed; zero: none */
    uint64_t due;                /* destruction: not before this time (running time may make it later); 0: none */
};
#define LG_ACT_RECORD_MAX 3072u
int lg_act_record_encode(const struct lg_act_record *r, uint8_t out[LG_ACT_RECORD_MAX], size_t *ret_len) LG_MUST;
int lg_act_record_decode(const uint8_t *untrusted, size_t len, struct lg_act_record *ret) LG_MUST;

/* ---- what acts that are carried out elsewhere say of it, in their data -------------------------------------------------------------- */

/* LG_ACT_ASSIGN: one file, as it stands; the study it goes to is the act's subject. */
#define LG_ASSIGN_NAME_MAX 900u
struct lg_assign {
    uint8_t file_id[LG_ID_LEN], from[LG_ID_LEN]; /* from: the key that protects it until now */
    char name[LG_ASSIGN_NAME_MAX + 1];           /* as the asker named it; proves nothing */
};
int lg_assign_encode(const struct lg_assign *x, uint8_t out[LG_ACT_DATA_MAX], size_t *ret_len) LG_MUST;
int lg_assign_decode(const uint8_t *untrusted, size_t len, struct lg_assign *ret) LG_MUST;

/* LG_ACT_TRIM: the vaults that were looked through, and are again when it is carried out. */
#define LG_TRIM_VAULTS_MAX 60u
struct lg_trim {
    bool others_gone; /* declared: the keyring's other vaults do not exist any more */
    unsigned n_vaults;
    uint8_t vault[LG_TRIM_VAULTS_MAX][LG_ID_LEN];
};
int lg_trim_encode(const struct lg_trim *x, uint8_t out[LG_ACT_DATA_MAX], size_t *ret_len) LG_MUST;
int lg_trim_decode(const uint8_t *untrusted, size_t len, struct lg_trim *ret) LG_MUST;

/* ---- policy ------------------------------------------------------------------------------------------------------------------------ */

#define LG_RULES_MAX 8u
#define LG_RULE_NAME_MAX 31u
struct lg_policy {
    uint64_t waiting_s;    /* between approval and destruction; by the wall clock and by the key manager's running time */
    uint32_t suspend_max;  /* suspensions one officer may make ... */
    uint32_t suspend_s;    /* ... in so many seconds */
    unsigned n_rules;      /* rule 0 is the one that studies follow unless told otherwise */
    struct lg_rule {
        char name[LG_RULE_NAME_MAX + 1];
        uint32_t years;    /* after the patient's last study that follows the rule; 0: none */
    } rules[LG_RULES_MAX];
};
#define LG_POLICY_MAX 512u
void lg_policy_default(struct lg_policy *ret); /* 7 days; 20 an hour; one rule, "default", 0 years */
int lg_policy_encode(const struct lg_policy *p, uint8_t out[LG_POLICY_MAX], size_t *ret_len) LG_MUST;
int lg_policy_decode(const uint8_t *untrusted, size_t len, struct lg_policy *ret) LG_MUST;
/* When a study of this date (YYYYMMDD; anything else: of the day of created) has been kept as long as the rule says: the start of that day in UTC. */
uint64_t lg_policy_due(const struct lg_policy *p, unsigned rule, const char *date, uint64_t created);
/* A rule counts from the patient's last study that follows it: the later of due, which the others gave, and what one that follows `of` gives. */
uint64_t lg_policy_last(const struct lg_policy *p, unsigned rule, uint64_t due, unsigned of, const char *date, uint64_t created);
unsigned lg_policy_rule(const struct lg_policy *p, unsigned rule); /* the one that is meant: one that there is no more is the first */

#endif
