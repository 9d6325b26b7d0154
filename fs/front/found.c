/* Anybody who may read a damaged file can have it found thousands of times a second. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "found.h"
#include "leadglass/bytes.h"

enum { PLACES = 256 }; /* told apart at a time; of further ones only the number is told */

struct place {
    uint64_t same; /* 0: free */
    int64_t until_ms;
    unsigned long long more;
    char line[256];
};

struct lg_found {
    pthread_mutex_t mu;
    unsigned window_ms;
    int64_t (*now_ms)(void);
    void (*say)(void *arg, const char *line);
    void *arg;
    unsigned used;
    int64_t others_until_ms;
    unsigned long long others;
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
    struct lg_found *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->window_ms = window_ms;
    f->now_ms = now_ms ? now_ms : clock_ms;
    f->say = say;
    f->arg = arg;
    pthread_mutex_init(&f->mu, NULL);
    *ret = f;
    return 0;
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    for (const uint8_t *b = p; n--; b++)
        h = (h ^ *b) * 0x100000001b3u;
    return h;
}

uint64_t lg_finding_same(const struct lg_finding *x)
{
    uint64_t h = mix(0xcbf29ce484222325u, x->file_id, LG_ID_LEN);
    h = mix(h, &x->from, sizeof x->from);
    h = mix(h, &x->to, sizeof x->to);
    h = mix(h, &x->ino, sizeof x->ino);
    h = mix(h, x->kind, strlen(x->kind));
    return h ? h : 1;
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

/* mu held. */
static void end_windows(struct lg_found *f, int64_t now, bool all)
{
    char text[320];
    for (unsigned i = 0; i < f->used;) {
        struct place *p = &f->place[i];
        if (!all && p->until_ms > now) {
            i++;
            continue;
        }
        if (p->more) {
            snprintf(text, sizeof text, "%s (found %llu times more)", p->line, p->more);
            f->say(f->arg, text);
        }
        *p = f->place[--f->used];
    }
    if (f->others && (all || f->others_until_ms <= now)) {
        snprintf(text, sizeof text, "and in so many places that they are not told apart: found %llu times more (the access log has them)", f->others);
        f->say(f->arg, text);
        f->others = 0;
    }
}

void lg_found_tell(struct lg_found *f, const struct lg_finding *x)
{
    uint64_t same = lg_finding_same(x);
    pthread_mutex_lock(&f->mu);
    int64_t now = f->now_ms();
    end_windows(f, now, false);
    struct place *p = NULL;
    for (unsigned i = 0; i < f->used && !p; i++)
        if (f->place[i].same == same)
            p = &f->place[i];
    if (p) {
        p->more++;
    } else if (f->used < PLACES) {
        p = &f->place[f->used++];
        *p = (struct place){ .same = same, .until_ms = now + f->window_ms };
        line_of(x, p->line, sizeof p->line);
        f->say(f->arg, p->line);
    } else if (!f->others++) {
        f->others_until_ms = now + f->window_ms;
    }
    pthread_mutex_unlock(&f->mu);
}

void lg_found_tick(struct lg_found *f)
{
    pthread_mutex_lock(&f->mu);
    end_windows(f, f->now_ms(), false);
    pthread_mutex_unlock(&f->mu);
}

void lg_found_free(struct lg_found *f)
{
    if (!f)
        return;
    end_windows(f, 0, true);
    pthread_mutex_destroy(&f->mu);
    free(f);
}
