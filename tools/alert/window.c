#include "window.h"

#include <stdlib.h>
#include <string.h>

static uint64_t hash(const void *p, size_t n, uint64_t h) /* FNV-1a */
{
    const uint8_t *b = p;
    for (size_t i = 0; i < n; i++)
        h = (h ^ b[i]) * 0x100000001b3u;
    return h ^ (h >> 29);
}
#define HASH_START 0xcbf29ce484222325u

/* ---- counts ---------------------------------------------------------------------------------------------------------------------------- */

static struct lg_count *find(struct lg_counts *t, unsigned rule, const char *subject, bool make)
{
    size_t set = hash(subject, strlen(subject), HASH_START + rule) % (LG_COUNTS / LG_COUNT_WAYS);
    struct lg_count *c = &t->c[set * LG_COUNT_WAYS], *old = c;
    for (unsigned i = 0; i < LG_COUNT_WAYS; i++, c++) {
        if (c->used && c->rule == rule && strcmp(c->subject, subject) == 0)
            return c;
        if (old->used && (!c->used || c->touched < old->touched))
            old = c;
    }
    if (!make)
        return NULL;
    memset(old, 0, sizeof *old);
    old->used = true;
    old->rule = (uint8_t)rule;
    memcpy(old->subject, subject, strlen(subject) + 1);
    return old;
}

uint64_t lg_count_add(struct lg_counts *t, unsigned rule, const char *subject, unsigned window_s, int64_t time_us, uint64_t weight)
{
    struct lg_count *c = find(t, rule, subject, true);
    int64_t slot = time_us * 15 / (int64_t)window_s / 1000000;
    uint64_t sum = 0;
    /* Another window since the rules were read anew, or a clock that went back further than a window: begin again. */
    if (c->window_s != window_s || slot < c->newest - 2 * LG_COUNT_SLOTS || slot >= c->newest + LG_COUNT_SLOTS) {
        memset(c->n, 0, sizeof c->n);
        c->window_s = window_s;
        c->newest = slot;
    }
    while (c->newest < slot)
        c->n[++c->newest % LG_COUNT_SLOTS] = 0;
    c->touched = ++t->clock;
    if (slot > c->newest - LG_COUNT_SLOTS) { /* else it is too long ago to count */
        uint32_t *n = &c->n[slot % LG_COUNT_SLOTS];
        *n = weight > UINT32_MAX - *n ? UINT32_MAX : *n + (uint32_t)weight;
    }
    for (unsigned i = 0; i < LG_COUNT_SLOTS; i++)
        sum += c->n[i];
    return sum;
}

void lg_count_restore(struct lg_counts *t, unsigned rule, const char *subject, unsigned window_s, int64_t newest, unsigned k, uint32_t n)
{
    struct lg_count *c = find(t, rule, subject, true);
    c->window_s = window_s;
    c->newest = newest;
    c->n[k % LG_COUNT_SLOTS] = n;
    c->touched = ++t->clock;
}

void lg_count_clear(struct lg_counts *t, unsigned rule, const char *subject)
{
    struct lg_count *c = find(t, rule, subject, false);
    if (c)
        memset(c->n, 0, sizeof c->n);
}

/* ---- different studies of a user ------------------------------------------------------------------------------------------------------------ */

enum { BUCKETS = 16384, NONE = UINT32_MAX };
struct lg_pairs {
    struct pair {
        uint64_t study; /* the first bytes of a random id */
        int64_t time_us;
        uint32_t uid, epoch;
        uint32_t next, newer, older; /* in its bucket, or of those that are free; by time */
    } p[LG_PAIRS];
    struct pair_user {
        uint32_t uid, distinct, epoch; /* pairs of another epoch are no longer counted */
        bool used;
        uint64_t touched;
    } u[LG_PAIR_USERS];
    uint32_t bucket[BUCKETS];
    uint32_t n, epoch, newest, oldest, vacant;
    uint64_t clock;
};

int lg_pairs_new(struct lg_pairs **ret)
{
    struct lg_pairs *p = malloc(sizeof *p);
    if (!p)
        return -ENOMEM;
    lg_pairs_reset(p);
    *ret = p;
    return 0;
}

void lg_pairs_reset(struct lg_pairs *p)
{
    memset(p, 0, sizeof *p);
    memset(p->bucket, 0xff, sizeof p->bucket);
    p->newest = p->oldest = p->vacant = NONE;
}

void lg_pairs_free(struct lg_pairs *p) { free(p); }

static struct pair_user *user_of(struct lg_pairs *p, uint32_t uid, bool make)
{
    size_t set = hash(&uid, sizeof uid, HASH_START) % (LG_PAIR_USERS / LG_COUNT_WAYS);
    struct pair_user *u = &p->u[set * LG_COUNT_WAYS], *old = u;
    for (unsigned i = 0; i < LG_COUNT_WAYS; i++, u++) {
        if (u->used && u->uid == uid)
            return u;
        if (old->used && (!u->used || u->touched < old->touched))
            old = u;
    }
    if (!make)
        return NULL;
    *old = (struct pair_user){ .uid = uid, .used = true, .epoch = ++p->epoch };
    return old;
}

static uint32_t *bucket_of(struct lg_pairs *p, uint32_t uid, uint64_t study) { return &p->bucket[hash(&uid, sizeof uid, HASH_START ^ study) % BUCKETS]; }

static void unlink_time(struct lg_pairs *p, uint32_t i)
{
    struct pair *x = &p->p[i];
    *(x->newer == NONE ? &p->newest : &p->p[x->newer].older) = x->older;
    *(x->older == NONE ? &p->oldest : &p->p[x->older].newer) = x->newer;
}

static void link_newest(struct lg_pairs *p, uint32_t i)
{
    p->p[i].newer = NONE;
    p->p[i].older = p->newest;
    *(p->newest == NONE ? &p->oldest : &p->p[p->newest].newer) = i;
    p->newest = i;
}

static void forget_oldest(struct lg_pairs *p)
{
    uint32_t i = p->oldest;
    struct pair *x = &p->p[i];
    struct pair_user *u = user_of(p, x->uid, false);
    uint32_t *at = bucket_of(p, x->uid, x->study);
    while (*at != i)
        at = &p->p[*at].next;
    *at = x->next;
    unlink_time(p, i);
    if (u && u->epoch == x->epoch && u->distinct)
        u->distinct--;
    x->next = p->vacant;
    p->vacant = i;
}

static uint32_t room(struct lg_pairs *p)
{
    if (p->vacant == NONE && p->n < LG_PAIRS)
        return p->n++;
    if (p->vacant == NONE)
        forget_oldest(p);
    uint32_t i = p->vacant;
    p->vacant = p->p[i].next;
    return i;
}

unsigned lg_pairs_add(struct lg_pairs *p, uint32_t uid, const uint8_t study[LG_ID_LEN], unsigned window_s, int64_t time_us)
{
    int64_t window_us = (int64_t)window_s * 1000000;
    uint64_t s;
    memcpy(&s, study, sizeof s);
    /* a clock that goes back makes what is yet to come as old as what is long past */
    while (p->oldest != NONE && (p->p[p->oldest].time_us <= time_us - window_us || p->p[p->oldest].time_us > time_us + window_us))
        forget_oldest(p);
    struct pair_user *u = user_of(p, uid, true);
    u->touched = ++p->clock;
    uint32_t i = *bucket_of(p, uid, s);
    while (i != NONE && (p->p[i].uid != uid || p->p[i].study != s))
        i = p->p[i].next;
    if (i == NONE) {
        i = room(p);
        uint32_t *b = bucket_of(p, uid, s);
        p->p[i] = (struct pair){ .study = s, .uid = uid, .epoch = u->epoch - 1, .next = *b };
        *b = i;
    } else {
        unlink_time(p, i);
    }
    struct pair *x = &p->p[i];
    link_newest(p, i);
    if (x->epoch != u->epoch)
        u->distinct++;
    x->epoch = u->epoch;
    x->time_us = time_us;
    return u->distinct;
}

void lg_pairs_clear(struct lg_pairs *p, uint32_t uid)
{
    struct pair_user *u = user_of(p, uid, false);
    if (!u)
        return;
    u->epoch = ++p->epoch;
    u->distinct = 0;
}

/* Oldest first, those alone that still count: adding them again in that order gives the same state. */
void lg_pairs_save(const struct lg_pairs *p, struct lg_wr *w)
{
    uint32_t n = 0;
    for (unsigned pass = 0; pass < 2; pass++) {
        if (pass)
            lg_wr_u32(w, n);
        for (uint32_t i = p->oldest; i != NONE; i = p->p[i].newer) {
            const struct pair *x = &p->p[i];
            const struct pair_user *u = p->u + hash(&x->uid, sizeof x->uid, HASH_START) % (LG_PAIR_USERS / LG_COUNT_WAYS) * LG_COUNT_WAYS;
            unsigned k = 0;
            while (k < LG_COUNT_WAYS && !(u[k].used && u[k].uid == x->uid && u[k].epoch == x->epoch))
                k++;
            if (k == LG_COUNT_WAYS)
                continue;
            n += pass == 0;
            if (pass) {
                lg_wr_u32(w, x->uid);
                lg_wr_bytes(w, &x->study, sizeof x->study);
                lg_wr_u64(w, (uint64_t)x->time_us);
            }
        }
    }
}

void lg_pairs_load(struct lg_pairs *p, struct lg_rd *r)
{
    uint32_t n = lg_rd_u32(r);
    uint8_t study[LG_ID_LEN] = { 0 };
    if (n > LG_PAIRS)
        r->bad = true;
    for (uint32_t i = 0; i < n && lg_rd_ok(r); i++) {
        uint32_t uid = lg_rd_u32(r);
        lg_rd_copy(r, study, sizeof(uint64_t));
        uint64_t t = lg_rd_u64(r);
        if (t > INT64_MAX / 4)
            r->bad = true;
        if (lg_rd_ok(r)) /* what is too old is forgotten with the next one that comes */
            (void)lg_pairs_add(p, uid, study, LG_ALERT_WINDOW_MAX_S, (int64_t)t);
    }
}
