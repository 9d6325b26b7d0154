/* Inside alerts: how many within a while. Bounded tables; whoever was heard of least recently makes room. */
#ifndef LG_ALERT_WINDOW_H
#define LG_ALERT_WINDOW_H

#include "alert.h"

/* ---- counts ---------------------------------------------------------------------------------------------------------------------------- */

enum { LG_COUNT_SLOTS = 16, LG_COUNTS = 4096, LG_COUNT_WAYS = 8 };
/* A sliding window in 16 slots: what lies within the window is always counted, what lies up to a fifteenth of it longer ago may be. */
struct lg_count {
    uint8_t rule;
    bool used;
    char subject[LG_ALERT_SUBJECT + 1];
    unsigned window_s;         /* a slot is a fifteenth of it */
    int64_t newest;            /* slot number of n[newest % 16] */
    uint32_t n[LG_COUNT_SLOTS];
    uint64_t touched;
};
struct lg_counts {
    struct lg_count *c; /* LG_COUNTS */
    uint64_t clock;
};
/* Adds weight at that time; how many there are within the window now. */
uint64_t lg_count_add(struct lg_counts *t, unsigned rule, const char *subject, unsigned window_s, int64_t time_us, uint64_t weight);
/* As it was saved: slot k of sixteen. */
void lg_count_restore(struct lg_counts *t, unsigned rule, const char *subject, unsigned window_s, int64_t newest, unsigned k, uint32_t n);
void lg_count_clear(struct lg_counts *t, unsigned rule, const char *subject);

/* ---- different studies of a user ------------------------------------------------------------------------------------------------------------ */

enum { LG_PAIRS = 65536, LG_PAIR_USERS = 4096 };
struct lg_pairs;
int lg_pairs_new(struct lg_pairs **ret) LG_MUST;
void lg_pairs_reset(struct lg_pairs *p); /* as new */
void lg_pairs_free(struct lg_pairs *p);
/* The user has opened that study: how many different ones within the window. */
unsigned lg_pairs_add(struct lg_pairs *p, uint32_t uid, const uint8_t study[LG_ID_LEN], unsigned window_s, int64_t time_us);
void lg_pairs_clear(struct lg_pairs *p, uint32_t uid);
void lg_pairs_save(const struct lg_pairs *p, struct lg_wr *w);
void lg_pairs_load(struct lg_pairs *p, struct lg_rd *r);

#endif
