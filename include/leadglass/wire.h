/* wire.h: the messages between the key manager and its clients, as pure code. The bytes are docs/PROTOCOL.md.
 *
 * A frame is a 20-byte header and a body. Requests and answers are described by one table of fields per type, from which both
 * encoding and decoding follow, so that the two cannot disagree. Frames may hold keys: keep them in secret memory. */
#ifndef LEADGLASS_WIRE_H
#define LEADGLASS_WIRE_H

#include "leadglass/bytes.h"
#include "leadglass/client.h"

#define LG_WIRE_MAGIC 0x314b474cu /* "LGK1" */
#define LG_WIRE_VERSION 1u
#define LG_WIRE_HEADER 20u
#define LG_WIRE_REQUEST_MAX 8192u       /* a whole request frame */
#define LG_WIRE_FRAME_MAX (128u * 1024u) /* a whole frame of any kind */
#define LG_WIRE_PASS_MAX 1024u
#define LG_WIRE_MOUNTPOINT_MAX 1023u
#define LG_WIRE_PATH_MAX 4095u
#define LG_WIRE_MOUNTS_MAX 64u
#define LG_WIRE_STUDIES_MAX 64u /* in one answer to LG_MSG_STUDY_LIST */
#define LG_WIRE_KIDS_MAX 1024u  /* in one event */
#define LG_WIRE_BLOB_MAX 61440u /* bytes whose form is described elsewhere, in an answer */
#define LG_ACTS_PER_ANSWER 16u
#define LG_WIRE_ACT_MAX 4096u   /* the same in a request */
#define LG_WIRE_ANSWER 0x8000u  /* type bit of an answer */

enum lg_msg {
    LG_MSG_STATUS = 1,
    LG_MSG_UNLOCK = 2,
    LG_MSG_LOCK = 3,
    LG_MSG_REVOKE = 4,
    LG_MSG_STUDY_SHOW = 5,
    LG_MSG_STUDY_LIST = 6,
    LG_MSG_VAULT_ADD = 7,
    LG_MSG_VAULT_GET = 8,
    LG_MSG_STUDY_KEY = 9,
    LG_MSG_KEY_BY_ID = 10,
    LG_MSG_PROVISIONAL = 11,
    LG_MSG_ATTACH = 12,
    LG_MSG_SESSION_BEGIN = 13,
    LG_MSG_SESSION_END = 14,
    LG_MSG_SESSION_CLOSE = 15,
    LG_MSG_WATCH = 16, /* turns the connection into one for events */
    LG_MSG_ACK = 17,   /* of an event; has no answer */
    LG_MSG_ANCHOR = 18, /* a vault shows what it has seen of the keyring */
    LG_MSG_SLOT_LIST = 24,
    LG_MSG_SLOT_ADD = 25,
    LG_MSG_SLOT_CHANGE = 26,
    LG_MSG_SLOT_REMOVE = 27,
    LG_MSG_UNLOCK_KEY = 28,  /* like unlock, with the SHA-256 of a key file */
    LG_MSG_SLOT_TEST = 29,   /* like unlock, of a keyring that is unlocked: proves that a secret opens its slot */
    LG_MSG_ROTATE_ROOT = 30,
    LG_MSG_ROTATE_STUDY = 31,
    LG_MSG_ROTATE_STUDIES = 32, /* some of all, from a key id on */
    LG_MSG_BACKUP_BEGIN = 33,
    LG_MSG_BACKUP_NEXT = 34,
    LG_MSG_BACKUP_DONE = 35,    /* it is safe where it shall be: into the inventory */
    LG_MSG_BACKUP_LIST = 36,
    LG_MSG_BACKUP_VOID = 37,
    LG_MSG_RESTORE_CONFIRM = 38, /* destruction is allowed again */
    LG_MSG_ACT_SUBMIT = 40,
    LG_MSG_ACT_APPROVE = 41,
    LG_MSG_ACT_GET = 42,
    LG_MSG_ACT_LIST = 43,
    LG_MSG_GOVERNANCE = 44, /* officers, policy, time */
    LG_MSG_CERTIFICATE = 45,
    LG_MSG_ASSIGN = 50,      /* may this file be re-encrypted under another study's key? */
    LG_MSG_TRIM = 51,        /* retire old versions, as an act says: have the mounts stop using them, then some of all studies */
    LG_MSG_KIDS = 52,        /* the keys that files of a destroyed study name */
    LG_MSG_REAPED = 53,      /* how many there were, and that they are gone */
    LG_MSG_DUE = 59, /* never on the wire: the key manager's own */
    LG_MSG_UNLOCK_TPM = 60, /* like unlock, with a slot sealed to the machine; also the key manager's own, at its start */
    LG_MSG_SLOT_ANCHOR = 61,
    LG_MSG_TPM = 62, /* does the TPM answer? Asked before a person is */
    LG_MSG_AUDIT_INFO = 96,
    LG_MSG_AUDIT_STATE = 97, /* the last head signed for a chain */
    LG_MSG_AUDIT_HEAD = 98,  /* sign the next */
    LG_MSG_AUDIT_HEADS = 99, /* the last of every chain */
    LG_MSG_AUDIT_NOTE = 100, /* record that a log is read */
    LG_MSG_AUDIT_EXPORT = 101, /* record that the log is exported, and get the spool's key */
    LG_MSG_SCRUB_FOUND = 102,  /* record what a scrub found */
    LG_MSG_SCRUB_SALVAGE = 103, /* record that a scrub is about to write out what a damaged file holds */
    LG_MSG_MANIFEST_SIGN = 104, /* sign what the scrub of a session has written down */
    LG_MSG_MANIFEST_KEY = 105,  /* the public key of such signatures */
    LG_MSG_LAST = 127,
    LG_MSG_EVENT = 64, /* key manager to mount */
};

struct lg_header {
    uint32_t len; /* of the whole frame, header included */
    uint16_t version, type;
    uint64_t id; /* an answer repeats its request's */
};

struct lg_request {
    uint16_t type;
    uint64_t id;
    const uint8_t *pass; /* or the bytes of an act; borrowed: points into the frame after decoding */
    size_t pass_len;
    uint8_t vault_id[LG_ID_LEN], kid[LG_ID_LEN];
    uint32_t version;
    uint64_t session;
    char head[LG_HEAD_TEXT_MAX + 1]; /* of an access log, as text */
    char uid[LG_UID_MAX + 1], reason[LG_REASON_MAX + 1], mountpoint[LG_WIRE_MOUNTPOINT_MAX + 1];
    struct lg_study_info info;
    bool now;
    bool unlogged;  /* session begin: this mount keeps no access log */
    bool has_after; /* study list: start after kid */
    uint64_t event;
    int32_t event_result;
    uint8_t slot_type;
    char slot_name[LG_SLOT_NAME_MAX + 1];
};

/* Big parts are lent by the caller; decoding fills those that the type has (all must be there then). */
struct lg_answer {
    uint16_t type; /* without LG_WIRE_ANSWER */
    uint64_t id;
    int32_t status;  /* 0 or -errno; nothing but wait_s follows a failure */
    uint32_t wait_s; /* unlock */
    struct lg_keyd_status *keyd;
    struct lg_unconfirmed *unconfirmed;
    struct lg_study *studies; /* one for show, room for LG_WIRE_STUDIES_MAX for list */
    unsigned n_studies;
    uint8_t keyring_id[LG_ID_LEN];
    struct lg_key key[2]; /* decoding allocates key[].key; lg_answer_done frees. Encoding borrows. */
    uint32_t lease_s;
    char head[LG_HEAD_TEXT_MAX + 1]; /* empty: none */
    struct lg_audit_heads *heads;
    struct lg_audit_info *audit;
    enum lg_key_state state;
    uint64_t session;
    struct lg_slot_info *slots; /* room for LG_SLOTS_MAX */
    unsigned n_slots;
    struct lg_rotated rotated;
    uint8_t *blob; /* room for LG_WIRE_BLOB_MAX */
    size_t blob_len;
    uint64_t *unclean; /* room for LG_UNCLEAN_MAX */
    unsigned n_unclean;
};

/* The answer to LG_MSG_GOVERNANCE, as a blob. */
int lg_governance_encode(const struct lg_governance *g, uint8_t *out, size_t cap, size_t *ret_len) LG_MUST;
int lg_governance_decode(const uint8_t *untrusted, size_t len, struct lg_governance *ret) LG_MUST;

/* Reads the header of a frame of which at least LG_WIRE_HEADER bytes are there. -EPROTO: not ours, or a length out of bounds.
 * The version is not judged here, so that a newer one can be answered. */
int lg_wire_header(const uint8_t *buf, size_t len, struct lg_header *ret) LG_MUST;

/* Encoding writes a whole frame; -ENOSPC when it does not fit, -EINVAL for an unknown type. Decoding takes a whole frame:
 * -EPROTO, -EPROTONOSUPPORT (version, or a type that is not known). */
int lg_request_encode(const struct lg_request *r, uint8_t *buf, size_t cap, size_t *ret_len) LG_MUST;
int lg_request_decode(const uint8_t *frame, size_t len, struct lg_request *ret) LG_MUST;
int lg_answer_encode(const struct lg_answer *a, uint8_t *buf, size_t cap, size_t *ret_len) LG_MUST;
int lg_answer_decode(const uint8_t *frame, size_t len, struct lg_answer *a) LG_MUST; /* a: lent parts set, the rest zero */
void lg_answer_done(struct lg_answer *a); /* only after decoding */
int lg_event_encode(uint64_t number, const struct lg_event *e, uint8_t *buf, size_t cap, size_t *ret_len) LG_MUST;
/* ret->kids points into the frame. */
int lg_event_decode(const uint8_t *frame, size_t len, uint64_t *ret_number, struct lg_event *ret) LG_MUST;

#endif
