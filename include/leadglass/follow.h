/* follow.h: reading the access log of a directory as it is written, all its chains, from where one stopped.
 *
 * Segments may be compressed, begun and pruned meanwhile, and chains may appear. Every record is held against the hash of the one before it; what does
 * not follow is told as a finding, in its place. One process may use a position at a time. Not thread-safe. */
#ifndef LEADGLASS_FOLLOW_H
#define LEADGLASS_FOLLOW_H

#include "leadglass/audit.h"

#define LG_FOLLOW_CHAINS_MAX 256u
#define LG_FOLLOW_NOTE_MAX (4u << 20) /* bytes that a caller may keep with the position */
#define LG_FOLLOW_POLL_MS 200         /* ask again after so long: nobody is told when a record is written */

struct lg_follow_options {
    const char *dir;      /* the log */
    const char *position; /* file that keeps how far one is; NULL: none. Made (0600) by the first save; PATH.lock is made beside it */
    bool all;             /* without a position yet: every record that there is, not only those that come from now on */
    uint64_t last;        /* without a position yet: so many of every chain first */
};
struct lg_follow;

/* -EWOULDBLOCK: another process uses that position. -EPROTO: its file is damaged, or of another version (the log's own state does not matter: remove the
 * file to begin anew). -ENOENT and others: the log's directory cannot be read. */
int lg_follow_open(const struct lg_follow_options *o, struct lg_follow **ret) LG_MUST;
void lg_follow_close(struct lg_follow *f);
bool lg_follow_resumed(const struct lg_follow *f); /* there was a position */

/* What comes next: a record, or a finding. Everything is f's own and good until the next call. */
struct lg_followed {
    const struct lg_audit_chain *chain;
    const struct lg_audit_record *record; /* NULL: a finding */
    const char *line;                     /* of a record, as it stands in the log, without newline */
    size_t len;
    /* ALTERED: record `from` does not follow from the one before, or is none. MISSING: records from .. to are not there. REORDERED: `from` stands after later
     * ones (and is passed over). FOREIGN: of another chain (and passed over). TRUNCATED: the log ends before `from`, but went to `to` when it was read.
     * UNREADABLE: a compressed segment is damaged, what is left of it is passed over. */
    struct lg_audit_problem finding;
};
/* 1: *ret is filled in; 0: there is nothing more at present; else -errno: the log cannot be read now, and may be asked for again. Each chain comes in its own
 * order; of several, what is oldest comes first, as far as it is there. */
int lg_follow_next(struct lg_follow *f, struct lg_followed *ret) LG_MUST;

/* Remembers durably that everything that next has given so far is done with, and `note` together with it (in one: after a crash either both are new or both
 * are old). The log itself is made durable up to there before, so that no position is ever ahead of it. Without a position file: 0. -E2BIG: note_len. */
int lg_follow_save(struct lg_follow *f, const void *note, size_t note_len) LG_MUST;
/* The note that was saved last, when the position was opened; foreign bytes. */
const void *lg_follow_note(const struct lg_follow *f, size_t *ret_len);

/* ---- the position file: pure; docs/AUDIT.md has its bytes ------------------------------------------------------------------------------------------ */

struct lg_follow_position {
    uint8_t chain[LG_ID_LEN];
    unsigned segment;       /* of the last record that was given */
    uint64_t offset;        /* of the byte after it, uncompressed */
    uint64_t seq;           /* its number; 0: not known */
    bool hashed, gone;      /* hash is known; the chain was absent, and that was told */
    uint8_t hash[LG_MAC_LEN];
};
#define LG_FOLLOW_FILE_MAX (LG_FOLLOW_NOTE_MAX + 128u * LG_FOLLOW_CHAINS_MAX)
int lg_follow_encode(const struct lg_follow_position *p, unsigned n, const void *note, size_t note_len, uint8_t *out, size_t cap, size_t *ret_len) LG_MUST;
/* At most LG_FOLLOW_CHAINS_MAX positions; *ret_note points into untrusted. -EPROTO. */
int lg_follow_decode(const void *untrusted, size_t len, struct lg_follow_position *ret, unsigned *ret_n, const uint8_t **ret_note, size_t *ret_note_len) LG_MUST;

#endif
