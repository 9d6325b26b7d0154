/* Inside the audit module: a log being written. Lock order: w (the file), then mu (ring and counts); never mu before w. */
#ifndef LG_AUDIT_LOG_H
#define LG_AUDIT_LOG_H

#include <pthread.h>
#include <stdatomic.h>

#include "dir.h"
#include "ring.h"
#include "usernames.h"

enum { LG_BATCH_BYTES = 256 * 1024, LG_HEADROOM = LG_RING_BYTES / 4, LG_SEGMENT_BYTES = 16 << 20, LG_CROWDED_S = 60, LG_CROWDED_PLACES = 16, LG_FOUND_S = 10, LG_CLOCK_SLACK_US = 1000000 };

struct lg_audit_log {
    struct lg_audit_options o;
    char dir[3072], name[64], host[LG_AUDIT_NAME_MAX + 1];
    struct lg_audit_chain chain;
    int dirfd, lockfd;
    pthread_t writer, keeper;

    pthread_mutex_t mu;
    pthread_cond_t work, room, written; /* for the writer; for who waits for room; for who waits for the writer */
    struct lg_ring *ring;
    uint64_t left; /* records that were in it when the log was opened */
    uint64_t unread; /* bytes there that were none */
    bool idle, stop, counts_now;
    _Atomic bool failing, crowded, low; /* crowded: little space, users are counted as a whole; low: there is hardly any, not even findings are told apart */
    unsigned named; /* findings that had a record of their own in the minute that ends then */
    int64_t named_end_ms;
    _Atomic bool reserve_used;
    _Atomic uint64_t refused, lost;
    int64_t failed_us;
    int why;
    int64_t ahead_us; /* of the clock, before boot time, when it was last looked at */
    bool ahead_known;

    pthread_mutex_t w; /* the rest */
    int fd;
    unsigned segment;
    uint64_t size, seq; /* of the current segment; last record written */
    uint8_t hash[LG_MAC_LEN];
    int64_t last_us; /* of the last record when the log was opened */
    bool torn; /* bytes beyond size may stand in the file */
    uint64_t durable_seq;
    uint8_t durable_hash[LG_MAC_LEN];
    struct lg_audit_head head; /* the last one; n 0: none */
    struct lg_usernames *users;
    char *batch;
    _Atomic unsigned used_percent;
    bool warned_full, warned_reserve;
    pthread_cond_t keep;
};

int64_t lg_audit_now_us(void);
int64_t lg_audit_boot_us(void);
int64_t lg_audit_now_ms(void); /* boot time */
void lg_audit_alarm(struct lg_audit_log *l, int level, const char *fmt, ...) LG_PRINTF(3, 4);
/* Under w: what is written to a file that nobody can find any more is not recorded. */
int lg_audit_still_there(struct lg_audit_log *l) LG_MUST;
/* Under w: writes one record of the log's own right away. */
int lg_audit_own(struct lg_audit_log *l, struct lg_audit_record *r) LG_MUST;
struct lg_audit_record lg_audit_event(const char *event);
/* Continues the newest chain of the name, or begins one: locked, its ring open, its current segment at the end. remembered: see lg_audit_open. */
int lg_audit_open_chain(struct lg_audit_log *l, const struct lg_audit_head *remembered) LG_MUST;
void lg_audit_unlock_chain(struct lg_audit_log *l);
int lg_audit_segment_begin(struct lg_audit_log *l, unsigned segment) LG_MUST; /* under w */
void lg_audit_failed(struct lg_audit_log *l, int rc); /* w not held: nothing can be recorded until the writer finds that it can */
void *lg_audit_keeper(void *log);
int lg_audit_sync(struct lg_audit_log *l) LG_MUST;

#endif
