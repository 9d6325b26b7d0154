/* What is to be sent and has not been taken yet: bounded, encrypted, on disk. docs/AUDIT.md, "The spool", has its bytes.
 *
 * Records are read in the order in which they were put, each as often as one likes, until they are done with. One process may have a spool open. */
#ifndef LG_EXPORT_SPOOL_H
#define LG_EXPORT_SPOOL_H

#include <stdint.h>

#include "leadglass/crypto.h"

#define LG_SPOOL_RECORD_MAX 36864u
#define LG_SPOOL_HEADER 32u
#define LG_SPOOL_MIN (1u << 20) /* bytes, the least that a spool may hold */
#define LG_SPOOL_SEGMENTS (UINT64_C(1) << 48) /* numbers of segments are below, or they could not grow: none ever comes near */

/* A place: before a record, or the end. Places only grow. */
struct lg_spool_place {
    uint64_t segment, offset;
};
int lg_spool_place_cmp(const struct lg_spool_place *a, const struct lg_spool_place *b);

/* What a position in the log remembers of the spool, as bytes. */
#define LG_SPOOL_NOTE 32u
struct lg_spool_note {
    struct lg_spool_place first, end; /* the first record not done with, and the end */
};
void lg_spool_note_encode(const struct lg_spool_note *n, uint8_t out[LG_SPOOL_NOTE]);
int lg_spool_note_decode(const void *untrusted, size_t len, struct lg_spool_note *ret) LG_MUST; /* -EPROTO */

struct lg_spool_options {
    const char *dir; /* made (0700) if missing */
    const struct lg_secret *key;
    uint64_t max;                     /* bytes on disk, at least LG_SPOOL_MIN */
    const struct lg_spool_note *note; /* as it was when the position was saved: what was put later is taken back, as it will be put again. NULL: everything counts */
    void (*say)(void *arg, int level, const char *text); /* what the administrator must know; level as syslog(3) */
    void *arg;
};
struct lg_spool;

/* -EKEYREJECTED: it was written under another key. Segments that are damaged are set aside (NAME.damaged) and said. */
int lg_spool_open(const struct lg_spool_options *o, struct lg_spool **ret) LG_MUST;
void lg_spool_close(struct lg_spool *s);

/* -ENOSPC: full (or the disk is); nothing was put. -E2BIG. -EOVERFLOW: what was found in the directory left no number for another segment. */
int lg_spool_put(struct lg_spool *s, const void *data, size_t len) LG_MUST;
/* Makes durable what was put, and tells what to remember with the position. */
int lg_spool_sync(struct lg_spool *s, struct lg_spool_note *ret) LG_MUST;

/* The first record that is not done with. */
struct lg_spool_place lg_spool_first(const struct lg_spool *s);
/* 1: the record at *at, which then is the next one's place; 0: there is none yet. out: LG_SPOOL_RECORD_MAX bytes. What is damaged is set aside, said, and passed over. */
int lg_spool_next(struct lg_spool *s, struct lg_spool_place *at, uint8_t *out, size_t *ret_len) LG_MUST;
/* Everything before `upto` has arrived: it is removed as far as whole segments are through, all of it when nothing is left. */
int lg_spool_done(struct lg_spool *s, const struct lg_spool_place *upto) LG_MUST;

struct lg_spool_state {
    uint64_t bytes, max; /* on disk */
    bool empty;          /* everything is done with */
};
void lg_spool_state(const struct lg_spool *s, struct lg_spool_state *ret);

/* ---- pure: a segment's bytes -------------------------------------------------------------------------------------------------------------- */

int lg_spool_header_make(const struct lg_secret *key, uint64_t segment, uint8_t ret[LG_SPOOL_HEADER]) LG_MUST;
int lg_spool_header_check(const struct lg_secret *key, uint64_t segment, const uint8_t untrusted[LG_SPOOL_HEADER]) LG_MUST; /* -EBADMSG */
/* A record at that offset. out: len + 20 bytes. */
int lg_spool_seal(struct lg_siv *k, const uint8_t header[LG_SPOOL_HEADER], uint64_t offset, const void *data, size_t len, uint8_t *out, size_t *ret_len) LG_MUST;
/* -EAGAIN: not all of it is there. -EBADMSG. ret_taken: its length in the segment. */
int lg_spool_unseal(struct lg_siv *k, const uint8_t header[LG_SPOOL_HEADER], uint64_t offset, const uint8_t *untrusted, size_t left, uint8_t *out, size_t *ret_len,
                    size_t *ret_taken) LG_MUST;

#endif
