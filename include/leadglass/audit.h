/* audit.h: the access log: records, their chain, the heads that the key manager signs, verification, and the writer.
 * docs/AUDIT.md is the specification of every byte.
 *
 * Records, chain, heads and the verifier are pure: they take bytes and give bytes. The writer (struct lg_audit_log) is used by leadglass-fs and by
 * leadglass-keyd, each with a chain of its own. */
#ifndef LEADGLASS_AUDIT_H
#define LEADGLASS_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "leadglass/crypto.h"
#include "leadglass/study.h"

#define LG_AUDIT_VERSION 1u
#define LG_AUDIT_LINE_MAX 65536u /* a record or a head, its newline excluded */
#define LG_AUDIT_EVENT_MAX 31u
#define LG_AUDIT_NAME_MAX 63u  /* user, host */
#define LG_AUDIT_EXE_MAX 255u  /* of a longer path its end is kept, after "..." */
#define LG_AUDIT_TEXT_MAX 1024u
#define LG_AUDIT_PATH_MAX 4095u
#define LG_AUDIT_HASH_HEX 64u
#define LG_AUDIT_KEEP_DAYS_MIN 184u

/* ---- records --------------------------------------------------------------------------------------------------------------- */

/* Which of the optional parts of a record are there; strings are there when they are not empty. */
enum {
    LG_AUDIT_WHO = 1 << 0,     /* uid, gid, pid */
    LG_AUDIT_VAULT = 1 << 1,
    LG_AUDIT_SESSION = 1 << 2,
    LG_AUDIT_STUDY = 1 << 3,   /* study, key */
    LG_AUDIT_FILE = 1 << 4,
    LG_AUDIT_COUNT = 1 << 5,   /* count, until_us: several of the same, counted together */
    LG_AUDIT_MOVED = 1 << 6,   /* read, written */
    LG_AUDIT_US = 1 << 7,
    LG_AUDIT_RANGE = 1 << 8,   /* from, to */
    LG_AUDIT_PREV = 1 << 9,    /* of log.segment alone */
};

struct lg_audit_record {
    uint64_t seq;     /* from 1; set by the writer */
    int64_t time_us;  /* since 1970, UTC; of the first, when several are counted together */
    uint8_t chain[8]; /* the first bytes of the chain's id */
    char event[LG_AUDIT_EVENT_MAX + 1]; /* such as "file.open": lower-case letters, digits, '.' and '-' */
    char how[LG_AUDIT_EVENT_MAX + 1];   /* such as "read", "write", "create"; may be empty */
    int outcome;      /* 0 or -errno */
    unsigned has;     /* LG_AUDIT_* */
    uint32_t uid, gid;
    int32_t pid;      /* 0: of another pid namespace */
    uint8_t vault[LG_ID_LEN];
    uint64_t session;
    uint8_t study[LG_ID_LEN]; /* id of the study's key (or of a vault's general key, or a provisional one): never the study's UID */
    uint32_t key;             /* its version */
    uint8_t file[LG_ID_LEN];  /* pseudonymous: lg_audit_file_id */
    uint64_t count;
    int64_t until_us;
    uint64_t read, written; /* bytes */
    uint64_t us;            /* duration, microseconds */
    uint64_t from, to;      /* byte range, or sequence numbers, as the event says */
    uint8_t prev[LG_MAC_LEN], hash[LG_MAC_LEN];
    /* NUL-terminated bytes, not necessarily UTF-8 */
    char user[LG_AUDIT_NAME_MAX + 1], host[LG_AUDIT_NAME_MAX + 1], exe[LG_AUDIT_EXE_MAX + 1], text[LG_AUDIT_TEXT_MAX + 1];
    char path[LG_AUDIT_PATH_MAX + 1], target[LG_AUDIT_PATH_MAX + 1]; /* only with the option that writes names */
};

/* Empties a record without touching the whole of it. */
void lg_audit_record_init(struct lg_audit_record *r);
/* The line of a record, without newline and NUL; fills in r->hash from prev_hash, the hash of the record before. -EINVAL: an event or how that is no
 * name. -ENOSPC: cap too small (LG_AUDIT_LINE_MAX always suffices). */
int lg_audit_record_encode(struct lg_audit_record *r, const uint8_t prev_hash[LG_MAC_LEN], char *out, size_t cap, size_t *ret_len) LG_MUST;
/* Members may stand in any order and unknown ones are skipped, so that a later version can add some. -EPROTO; -EPROTONOSUPPORT: v is not 1.
 * Does not check the hash. */
int lg_audit_record_parse(const char *untrusted, size_t len, struct lg_audit_record *ret) LG_MUST;
/* "ok", or an errno's name; and back. -EPROTO: unknown. */
const char *lg_audit_outcome_name(int outcome);
int lg_audit_outcome_parse(const char *name, size_t len, int *ret) LG_MUST;
/* RFC 3339 with microseconds, 27 characters and a NUL. */
#define LG_AUDIT_TIME_LEN 27u
void lg_audit_time_text(int64_t us, char out[LG_AUDIT_TIME_LEN + 1]);
int lg_audit_time_parse(const char *s, size_t len, int64_t *ret_us) LG_MUST;

/* Length of the UTF-8 character at s (RFC 3629: shortest form, no surrogates); 0: none is. ret_hidden: shown as it is, it would move a cursor, change the direction
 * of writing or not be seen, stands for octets that are no text (U+EF00 .. U+EFFF), or is no character. */
size_t lg_audit_char(const char *s, bool *ret_hidden);

/* What stands in a record instead of a file: the first 16 bytes of HKDF(key of the study, "leadglass audit file", file id). Once the study is destroyed,
 * nobody can tell any more whose it was. */
int lg_audit_file_id(const struct lg_secret *study_key, const uint8_t file_id[LG_ID_LEN], uint8_t ret[LG_ID_LEN]) LG_MUST;

/* ---- chain ------------------------------------------------------------------------------------------------------------------- */

/* What the first record of a chain follows. */
void lg_audit_genesis(const uint8_t chain_id[LG_ID_LEN], uint8_t ret[LG_MAC_LEN]);
/* What every line of version 1 begins and ends with, found without parsing the rest. body_len: up to, not including, `,"hash":`. */
struct lg_audit_envelope {
    uint64_t seq;
    int64_t time_us;
    uint8_t chain[8];
    const char *event; /* within the line */
    size_t event_len, body_len;
    uint8_t hash[LG_MAC_LEN];
};
int lg_audit_envelope(const char *untrusted, size_t len, struct lg_audit_envelope *ret) LG_MUST; /* -EPROTO */
/* SHA-256 over the hexadecimal of prev and the body. */
int lg_audit_link(const uint8_t prev[LG_MAC_LEN], const char *body, size_t body_len, uint8_t ret[LG_MAC_LEN]) LG_MUST;

/* ---- heads -------------------------------------------------------------------------------------------------------------------- */

/* The key manager's signature under "record seq of this chain has this hash". n counts the heads of a chain from 1, prev is the digest of the head before
 * (zeros for the first). */
struct lg_audit_head {
    uint8_t keyring[LG_ID_LEN], chain[LG_ID_LEN];
    uint64_t n, seq;
    uint8_t hash[LG_MAC_LEN];
    int64_t time_us;
    uint8_t prev[LG_MAC_LEN];
    uint8_t sig[LG_SIGN_LEN];
};
int lg_audit_head_digest(const struct lg_audit_head *h, uint8_t ret[LG_MAC_LEN]) LG_MUST;
int lg_audit_head_sign(struct lg_audit_head *h, const struct lg_secret *seed) LG_MUST;
int lg_audit_head_check(const struct lg_audit_head *h, const uint8_t pub[LG_SIGN_PUB_LEN]) LG_MUST; /* -EBADMSG */
/* One line of JSON without newline; at most LG_AUDIT_HEAD_MAX bytes. Decoding accepts exactly what encoding writes. */
#define LG_AUDIT_HEAD_MAX 640u
int lg_audit_head_encode(const struct lg_audit_head *h, char *out, size_t cap, size_t *ret_len) LG_MUST;
int lg_audit_head_parse(const char *untrusted, size_t len, struct lg_audit_head *ret) LG_MUST;

/* ---- verification: pure ---------------------------------------------------------------------------------------------------------- */

enum lg_audit_verdict {
    LG_AUDIT_INTACT = 0,   /* everything up to `signed_seq` is as it was signed, and what follows hangs together */
    LG_AUDIT_ALTERED,      /* record `from` does not follow from the one before: one of the two was changed */
    LG_AUDIT_MISSING,      /* records from .. to are not there */
    LG_AUDIT_DUPLICATE,    /* record `from` stands again */
    LG_AUDIT_REORDERED,    /* record `from` stands after later ones */
    LG_AUDIT_FOREIGN,      /* where record `from` belongs stands one of another chain */
    LG_AUDIT_TRUNCATED,    /* the log ends after record from - 1, but `to` was signed */
    LG_AUDIT_FORKED,       /* hangs together, but somewhere in from .. to it is another log than the one signed */
    LG_AUDIT_BAD_HEAD,     /* head number `from`: not signed by this key, or does not follow from the head before */
    LG_AUDIT_HEADS_MISSING, /* heads from .. to are not there */
    LG_AUDIT_NO_HEADS,     /* no head at all: nothing can be said of truncation or rewriting */
    LG_AUDIT_UNREADABLE,   /* a file of the log cannot be read or decompressed */
};
const char *lg_audit_verdict_name(enum lg_audit_verdict v);

#define LG_AUDIT_PROBLEMS_MAX 16u
struct lg_audit_problem {
    enum lg_audit_verdict what;
    uint64_t from, to;
    unsigned segment; /* 0: none in particular */
};
struct lg_audit_report {
    enum lg_audit_verdict verdict; /* of the first problem in the order of the log; LG_AUDIT_INTACT: none */
    uint8_t chain[LG_ID_LEN];
    uint64_t first, last;  /* records that are there */
    uint64_t records, heads;
    uint64_t signed_seq;   /* last record under a signature; 0: none */
    int64_t signed_us;     /* when it was signed */
    uint64_t tail;         /* records after it, which nothing but their own chain vouches for */
    int64_t tail_us;       /* time of the first of them */
    uint64_t pruned;       /* records up to here were removed by retention, as the log itself says */
    uint64_t clock_back;   /* how often the clock went back, as the log itself says */
    bool incomplete;       /* the last line is not complete: being written, or a crash cut it off */
    unsigned n_problems;   /* may exceed LG_AUDIT_PROBLEMS_MAX */
    struct lg_audit_problem problem[LG_AUDIT_PROBLEMS_MAX];
};

/* One chain: first all heads in order, then all lines in order, then the end. pub NULL: heads are not checked, and none counts. */
struct lg_audit_verifier;
int lg_audit_verifier_new(const uint8_t chain_id[LG_ID_LEN], const uint8_t *pub, struct lg_audit_verifier **ret) LG_MUST;
void lg_audit_verifier_free(struct lg_audit_verifier *v);
int lg_audit_verifier_head(struct lg_audit_verifier *v, const char *untrusted, size_t len) LG_MUST; /* -ENOMEM alone */
/* A head from elsewhere (an anchor, the key manager itself): must be signed too, need not be among the others. */
int lg_audit_verifier_against(struct lg_audit_verifier *v, const struct lg_audit_head *h) LG_MUST;
int lg_audit_verifier_line(struct lg_audit_verifier *v, unsigned segment, const char *untrusted, size_t len) LG_MUST;
void lg_audit_verifier_unreadable(struct lg_audit_verifier *v, unsigned segment);
/* What is said if the log ends here, with `rest` bytes that no newline ends; more lines may follow. */
void lg_audit_verifier_end(struct lg_audit_verifier *v, size_t rest, struct lg_audit_report *ret);

/* ---- a log on disk: reading -------------------------------------------------------------------------------------------------------- */

/* The chains in a log directory. */
struct lg_audit_chain {
    char name[64];               /* of the directory */
    uint8_t id[LG_ID_LEN];
    char kind[LG_AUDIT_EVENT_MAX + 1]; /* "keyd" or "mount" */
};
/* At most max; *ret_n tells how many there are. Directories that are no chains are passed over. */
int lg_audit_chains(const char *dir, struct lg_audit_chain *ret, unsigned max, unsigned *ret_n) LG_MUST;
/* The segment being written, or the last one. -ENOENT: none. */
int lg_audit_current(const char *dir, const char *chain, char *out, size_t cap) LG_MUST;
/* Calls back with every line of a chain in order, compressed segments included; `cut` for a last one that no newline ends. Stops when
 * it returns non-zero and returns that. from_segment 0: all. -EBADMSG: a segment does not decompress. */
int lg_audit_read(const char *dir, const char *chain, unsigned from_segment, int (*line)(void *arg, unsigned segment, const char *s, size_t len, bool cut), void *arg) LG_MUST;
int lg_audit_read_heads(const char *dir, const char *chain, int (*line)(void *arg, const char *s, size_t len), void *arg) LG_MUST;
/* How far a chain is written and how far it is signed, from its newest files alone; nothing is verified. A last line that is not complete does not count. */
struct lg_audit_ends {
    uint64_t last, signed_seq; /* 0: none, or not to be told from them */
    int64_t last_us;
};
int lg_audit_ends(const char *dir, const char *chain, struct lg_audit_ends *ret) LG_MUST;
/* Verifies one chain; n heads of against that belong to it are held against it too. */
int lg_audit_verify(const char *dir, const struct lg_audit_chain *c, const uint8_t *pub, const struct lg_audit_head *against, size_t n, struct lg_audit_report *ret) LG_MUST;

/* DIR/key.pub, which lets the log be verified on another machine: whole and durable, or not there. One that is there already stays; nothing for a key of zeros
 * (none yet). What goes wrong is made good at the next start. */
void lg_audit_write_pub(const char *dir, const uint8_t pub[LG_SIGN_PUB_LEN]);

/* ---- a log on disk: writing ---------------------------------------------------------------------------------------------------------- */

/* The newest chain of that name in the directory (NAME, NAME.2, NAME.3 ...). -ENOENT: none. */
int lg_audit_find(const char *dir, const char *name, struct lg_audit_chain *ret) LG_MUST;

struct lg_audit_options {
    const char *dir, *name, *kind; /* dir is made if missing */
    const char *shm;               /* directory of the ring; NULL: /dev/shm */
    bool keep_going;               /* on failure: go on without records */
    unsigned window_s, sync_ms, keep_days; /* 0: never; 1000; for ever */
    uint64_t segment_bytes;        /* 0: 16 MiB */
    /* Called from a thread of the log, for the administrator's eyes; level as syslog(3). May be NULL. */
    void (*alarm)(void *arg, int level, const char *text);
    void *arg;
    /* For tests; NULL: the host's clock (microseconds since 1970) and its users. */
    int64_t (*clock)(void *arg);
    int (*user)(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1]);
};

/* One chain being written. Thread-safe. A record is safe from the death of the process once put or count has returned, and from that of the machine once
 * lg_audit_flush has. Two threads of its own: one writes, one makes durable, rotates, compresses and prunes. */
struct lg_audit_log;

/* Continues the newest chain of that name, or begins one. remembered: the last head that the key manager signed for it (n 0: none; NULL: cannot be asked).
 * A chain that does not hold that record is left alone, and a new one is begun after it. -EWOULDBLOCK: another process writes it. */
int lg_audit_open(const struct lg_audit_options *o, const struct lg_audit_head *remembered, struct lg_audit_log **ret) LG_MUST;
/* Writes everything, counts included, and makes it durable. */
void lg_audit_close(struct lg_audit_log *l);

/* May something be done that has to be recorded? 0, or -ECANCELED while records cannot be written. Waits while the ring is nearly full. Cheap. */
int lg_audit_ready(struct lg_audit_log *l) LG_MUST;
/* Records it: time, seq, chain and user are filled in. Room is kept for operations that were ready before. */
void lg_audit_put(struct lg_audit_log *l, struct lg_audit_record *r);
/* The same, but counted together with others of its kind (who, study, event, how, outcome) within the window. detail (may be NULL) is called only when
 * the record is written by itself, to fill in what costs time; no lock is held. */
void lg_audit_count(struct lg_audit_log *l, struct lg_audit_record *r, void (*detail)(void *arg, struct lg_audit_record *r), void *arg);
/* A finding, which nobody did (LG_AUDIT_WHO is taken away): the first with this number `same` within the window (10 s where the log has none) is written, the others are counted. */
void lg_audit_count_found(struct lg_audit_log *l, struct lg_audit_record *r, uint64_t same);
/* The program that a process runs, as /proc tells it; empty when it does not. A few microseconds. */
void lg_audit_exe(int32_t pid, char out[LG_AUDIT_EXE_MAX + 1]);
/* Everything put before is durable on return; counts of open windows are written only with counts. 0, or why it cannot be written. */
int lg_audit_flush(struct lg_audit_log *l, bool counts) LG_MUST;

/* The last durable record. False: it is under a signature already, or there is none. */
bool lg_audit_tip(struct lg_audit_log *l, struct lg_audit_head *ret); /* n: of the last head; prev: hash of the record that it signed; seq, hash: the tip */
/* Stores what the key manager signed, durably. */
int lg_audit_head_store(struct lg_audit_log *l, const struct lg_audit_head *h) LG_MUST;

struct lg_audit_state {
    char path[4096]; /* of the segment being written */
    uint8_t chain[LG_ID_LEN];
    uint64_t seq, signed_seq;
    bool failing, reserve_used;
    unsigned used_percent; /* of the log's filesystem */
};
void lg_audit_state(struct lg_audit_log *l, struct lg_audit_state *ret);

#endif
