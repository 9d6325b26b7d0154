/* Inside the audit module: records in shared memory, where they outlive the process that made them, and counts of the same. Not thread-safe: the log's
 * mutex guards it. */
#ifndef LG_AUDIT_RING_H
#define LG_AUDIT_RING_H

#include "leadglass/audit.h"

#define LG_RING_HEAD_MAX (UINT64_C(1) << 62) /* bytes ever put into it; none ever comes near, and what is found beyond is damage */
enum { LG_RING_BYTES = 4 << 20, LG_GROUPS = 2048, LG_ENTRY_MAX = 16384 };

/* What is counted together: compared as bytes. */
struct lg_group_key {
    uint32_t uid, gid;
    int32_t pid, outcome;
    uint32_t key, has;
    uint8_t study[LG_ID_LEN];
    char event[LG_AUDIT_EVENT_MAX + 1], how[LG_AUDIT_EVENT_MAX + 1];
};
struct lg_group {
    uint64_t hash; /* 0: free */
    struct lg_group_key k;
    uint64_t count, read, written; /* since the record that opened the window */
    int64_t first_us, last_us, end_ms;
    char exe[LG_AUDIT_EXE_MAX + 1];
};

struct lg_ring;
int lg_ring_open(const char *path, const uint8_t chain[LG_ID_LEN], struct lg_ring **ret) LG_MUST;
void lg_ring_close(struct lg_ring *r, bool remove);
size_t lg_ring_free(const struct lg_ring *r); /* bytes */
bool lg_ring_empty(const struct lg_ring *r);
bool lg_ring_push(struct lg_ring *r, const struct lg_audit_record *rec); /* false: full */
/* The entry at *at (from lg_ring_tail on); false: no more. */
uint64_t lg_ring_tail(const struct lg_ring *r);
uint64_t lg_ring_head(const struct lg_ring *r);
bool lg_ring_at(const struct lg_ring *r, uint64_t *at, struct lg_audit_record *ret);
/* Entries up to `to` are about to become records from seq on; then: they have. What a crash leaves in between is told apart by the log's last record. */
void lg_ring_intend(struct lg_ring *r, uint64_t to, uint64_t seq, uint64_t n);
void lg_ring_done(struct lg_ring *r, uint64_t to);
/* After opening: last is the last record in the log. Skips what was written before a crash; returns how many entries are left. Behind one that cannot be read none
 * can be found: all of that is cut off (ret_lost: bytes), or the writer would wait for it for ever. */
uint64_t lg_ring_recover(struct lg_ring *r, uint64_t last, uint64_t *ret_lost);

struct lg_group *lg_group_find(struct lg_ring *r, const struct lg_audit_record *rec); /* NULL: none */
struct lg_group *lg_group_make(struct lg_ring *r, const struct lg_audit_record *rec); /* NULL: no room */
void lg_group_free(struct lg_ring *r, struct lg_group *g);
struct lg_group *lg_group_nth(struct lg_ring *r, unsigned i); /* NULL: free */
unsigned lg_groups_used(const struct lg_ring *r);
void lg_group_record(const struct lg_group *g, struct lg_audit_record *ret);

#endif
