/* Anybody who may read a damaged file can have it found thousands of times a second. */
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "found.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

enum { PLACES = 256, LINE = 320, TICK_S = 1 }; /* places told apart at a time; of further ones only the number is told */

struct place {
    uint64_t same;
    int64_t until_ms;
    unsigned long long more;
    bool said;
    char line[256];
};

struct lg_found {
    pthread_mutex_t mu; /* never held while a line is said */
    pthread_cond_t work;
    uint8_t key[LG_KEY_LEN]; /* opens nothing: ordinary memory, which a lock leaves alone */
    unsigned window_ms;
    int64_t (*now_ms)(void);
    void (*say)(void *arg, const char *line);
    void *arg;
    pthread_t teller;
    bool telling, stop;
    unsigned used, unsaid;
    int64_t others_until_ms;
    unsigned long long others;
    _Atomic uint64_t nameless;
    struct place place[PLACES];
};

static int64_t clock_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

int lg_found_new(unsigned window_ms, int64_t (*now_ms)(void), void (*say)(void *arg, const char *line), void *arg, struct lg_found **ret)
{
    pthread_condattr_t mono;
    struct lg_found *f = calloc(1, sizeof *f);
    int rc = f ? lg_random(f->key, sizeof f->key) : -ENOMEM;
    if (rc) {
        free(f);
        return rc;
    }
    f->window_ms = window_ms;
    f->now_ms = now_ms ? now_ms : clock_ms;
    f->say = say;
    f->arg = arg;
    pthread_mutex_init(&f->mu, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&f->work, &mono);
    pthread_condattr_destroy(&mono);
    *ret = f;
    return 0;
}

uint64_t lg_found_same(struct lg_found *f, const struct lg_finding *x)
{
    uint8_t b[LG_ID_LEN + 3 * 8 + 200], mac[LG_MAC_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    uint64_t same;
    lg_wr_bytes(&w, x->file_id, LG_ID_LEN);
    lg_wr_u64(&w, x->from);
    lg_wr_u64(&w, x->to);
    lg_wr_u64(&w, x->ino);
    lg_wr_bytes(&w, x->kind, strnlen(x->kind, 200));
    if (lg_sha256_2(f->key, sizeof f->key, b, w.len, mac))
        return ++f->nameless; /* rather told once more */
    memcpy(&same, mac, sizeof same);
    return same;
}

static void line_of(const struct lg_finding *x, char *out, size_t cap)
{
    char id[2 * LG_ID_LEN + 1];
    lg_hex_encode(x->file_id, LG_ID_LEN, id);
    if (x->ino)
        snprintf(out, cap, "inode %llu below: %s", (unsigned long long)x->ino, x->kind);
    else if (x->to)
        snprintf(out, cap, "file %s, bytes %llu to %llu: %s", id, (unsigned long long)x->from, (unsigned long long)x->to - 1, x->kind);
    else
        snprintf(out, cap, "file %s: %s", id, x->kind);
}

/* mu held. Windows that have ended without anything left to say of them make room. */
static void forget_ended(struct lg_found *f, int64_t now)
{
    for (unsigned i = 0; i < f->used;) {
        const struct place *p = &f->place[i];
        if (p->until_ms <= now && p->said && !p->more)
            f->place[i] = f->place[--f->used];
        else
            i++;
    }
}

/* The next line that is due. False: there is none. */
static bool line_next(struct lg_found *f, int64_t now, bool all, char text[LINE])
{
    bool due = false;
    pthread_mutex_lock(&f->mu);
    for (unsigned i = 0; i < f->used && f->unsaid && !due; i++)
        if (!f->place[i].said) {
            f->place[i].said = due = true;
            f->unsaid--;
            snprintf(text, LINE, "%s", f->place[i].line);
        }
    for (unsigned i = 0; i < f->used && !due; i++) {
        struct place *p = &f->place[i];
        if (p->more && (all || p->until_ms <= now)) {
            due = true;
            snprintf(text, LINE, "%s (found %llu times more)", p->line, p->more);
            *p = f->place[--f->used];
        }
    }
    if (!due && f->others && (all || f->others_until_ms <= now)) {
        due = true;
        snprintf(text, LINE, "and in so many places that they are not told apart: found %llu times more (a scrub names each)", f->others);
        f->others = 0;
    }
    if (!due)
        forget_ended(f, now);
    pthread_mutex_unlock(&f->mu);
    return due;
}

static void say_due(struct lg_found *f, bool all)
{
    char text[LINE];
    for (int64_t now = f->now_ms(); line_next(f, now, all, text);)
        f->say(f->arg, text);
}

void lg_found_tell(struct lg_found *f, const struct lg_finding *x)
{
    uint64_t same = lg_found_same(f, x);
    pthread_mutex_lock(&f->mu);
    int64_t now = f->now_ms();
    struct place *p = NULL;
    for (unsigned i = 0; i < f->used && !p; i++)
        if (f->place[i].same == same)
            p = &f->place[i];
    if (p && p->until_ms <= now && p->said && !p->more) { /* the next window begins */
        *p = f->place[--f->used];
        p = NULL;
    }
    if (!p && f->used == PLACES)
        forget_ended(f, now);
    if (p) {
        p->more++;
    } else if (f->used < PLACES) {
        p = &f->place[f->used++];
        *p = (struct place){ .same = same, .until_ms = now + f->window_ms };
        line_of(x, p->line, sizeof p->line);
        f->unsaid++;
        pthread_cond_signal(&f->work);
    } else if (!f->others++) {
        f->others_until_ms = now + f->window_ms;
    }
    pthread_mutex_unlock(&f->mu);
}

void lg_found_tick(struct lg_found *f) { say_due(f, false); }

static void *telling(void *arg)
{
    struct lg_found *f = arg;
    pthread_mutex_lock(&f->mu);
    while (!f->stop) {
        if (!f->unsaid) {
            struct timespec t;
            clock_gettime(CLOCK_MONOTONIC, &t);
            t.tv_sec += TICK_S;
            pthread_cond_timedwait(&f->work, &f->mu, &t);
        }
        pthread_mutex_unlock(&f->mu);
        say_due(f, false);
        pthread_mutex_lock(&f->mu);
    }
    pthread_mutex_unlock(&f->mu);
    return NULL;
}

int lg_found_start(struct lg_found *f)
{
    int rc = pthread_create(&f->teller, NULL, telling, f);
    f->telling = !rc;
    return -rc;
}

void lg_found_free(struct lg_found *f)
{
    if (!f)
        return;
    if (f->telling) {
        pthread_mutex_lock(&f->mu);
        f->stop = true;
        pthread_cond_signal(&f->work);
        pthread_mutex_unlock(&f->mu);
        pthread_join(f->teller, NULL);
    }
    say_due(f, true);
    pthread_cond_destroy(&f->work);
    pthread_mutex_destroy(&f->mu);
    free(f);
}
