/* Inside the audit module: following one chain. */
#ifndef LG_AUDIT_CHASE_H
#define LG_AUDIT_CHASE_H

#include "leadglass/follow.h"

struct lg_unpacker;
struct lg_chase {
    struct lg_audit_chain chain;
    struct lg_follow_position p; /* after the last record that was given */
    uint64_t skip_to;            /* records up to this are checked, not given */
    bool unsynced;               /* p has moved since the log was made durable */
    bool dry;                    /* nothing more at the last look */
    bool quiet;                  /* findings are not told: the end is being looked for */

    /* reading; buf is there only while there is something in it */
    int fd;
    struct lg_unpacker *z; /* the segment is compressed */
    char *buf;
    size_t at, len;     /* buf[at..len): read, not given; its first byte is the one at p.offset */
    bool ended;         /* a later segment was seen: what is read now is all there will be */
    bool overlong;      /* within a line that is longer than any */
    int64_t looked_ms;

    /* what is next, once peeked */
    enum { LG_CHASE_NOTHING, LG_CHASE_LINE, LG_CHASE_LOST } next;
    size_t line_len;
    struct lg_audit_envelope e;
    bool sound;         /* the line has an envelope */
    bool told;          /* its finding was given */
    struct lg_audit_problem lost;
};

void lg_chase_init(struct lg_chase *c, const struct lg_audit_chain *chain);
void lg_chase_done(struct lg_chase *c);
/* Goes to the end, or to so many records before it. */
int lg_chase_end(struct lg_chase *c, const char *dir, uint64_t last) LG_MUST;
/* 1: something is next, 0: nothing. */
int lg_chase_peek(struct lg_chase *c, const char *dir) LG_MUST;
/* Gives it. 1; or 0: it was passed over. ret->line is set for a record, which is the caller's to parse. */
int lg_chase_take(struct lg_chase *c, struct lg_followed *ret) LG_MUST;
/* Everything up to p is durable in the log. */
int lg_chase_sync(struct lg_chase *c) LG_MUST;

#endif
