/* Names of users. Asking for one may mean asking a directory server that does not answer: a thread of its own does, and the log waits for it a moment at most. */
#include "leadglass/clock.h"
#include "usernames.h"

#include <pthread.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CACHE = 256, QUEUE = 64, KEEP_MS = 600000, WAIT_MS = 200 };

struct lg_usernames {
    pthread_mutex_t mu;
    pthread_cond_t asked, answered;
    unsigned refs; /* of the owner, and of the thread: which may be stuck when the owner goes */
    bool stop, running, busy;
    int64_t busy_since;
    int (*lookup)(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1]);
    void *arg;
    uint32_t queue[QUEUE];
    unsigned n_queue;
    struct entry {
        uint32_t uid;
        int64_t until_ms; /* 0: free */
        char name[LG_AUDIT_NAME_MAX + 1];
    } cache[CACHE];
};

static int host_lookup(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1])
{
    struct passwd pw, *found = NULL;
    char buf[16384];
    (void)arg;
    if (getpwuid_r(uid, &pw, buf, sizeof buf, &found) || !found)
        return -ENOENT;
    snprintf(out, LG_AUDIT_NAME_MAX + 1, "%s", found->pw_name);
    return 0;
}

int lg_usernames_new(int (*lookup)(void *arg, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1]), void *arg, struct lg_usernames **ret)
{
    struct lg_usernames *n = calloc(1, sizeof *n);
    pthread_condattr_t mono;
    if (!n)
        return -ENOMEM;
    n->refs = 1;
    n->lookup = lookup ? lookup : host_lookup;
    n->arg = arg;
    pthread_mutex_init(&n->mu, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&n->asked, &mono);
    pthread_cond_init(&n->answered, &mono);
    pthread_condattr_destroy(&mono);
    *ret = n;
    return 0;
}

/* mu held; it is given up. */
static void unref(struct lg_usernames *n)
{
    bool last = --n->refs == 0;
    pthread_mutex_unlock(&n->mu);
    if (!last)
        return;
    pthread_mutex_destroy(&n->mu);
    pthread_cond_destroy(&n->asked);
    pthread_cond_destroy(&n->answered);
    free(n);
}

void lg_usernames_free(struct lg_usernames *n)
{
    if (!n)
        return;
    pthread_mutex_lock(&n->mu);
    n->stop = true;
    pthread_cond_signal(&n->asked);
    unref(n);
}

static void *run(void *arg)
{
    struct lg_usernames *n = arg;
    pthread_mutex_lock(&n->mu);
    while (!n->stop) {
        char name[LG_AUDIT_NAME_MAX + 1] = "";
        if (!n->n_queue) {
            pthread_cond_wait(&n->asked, &n->mu);
            continue;
        }
        uint32_t uid = n->queue[0];
        memmove(n->queue, n->queue + 1, --n->n_queue * sizeof *n->queue);
        n->busy = true;
        n->busy_since = lg_clock_ms();
        pthread_mutex_unlock(&n->mu);
        if (n->lookup(n->arg, uid, name))
            name[0] = 0;
        pthread_mutex_lock(&n->mu);
        n->busy = false;
        struct entry *e = &n->cache[uid % CACHE];
        *e = (struct entry){ .uid = uid, .until_ms = lg_clock_ms() + KEEP_MS };
        memcpy(e->name, name, sizeof name);
        pthread_cond_broadcast(&n->answered);
    }
    unref(n);
    return NULL;
}

/* mu held. */
static bool ask(struct lg_usernames *n, uint32_t uid)
{
    pthread_t t;
    for (unsigned i = 0; i < n->n_queue; i++)
        if (n->queue[i] == uid)
            return true;
    if (n->n_queue == QUEUE)
        return false;
    if (!n->running && pthread_create(&t, NULL, run, n) == 0) {
        pthread_detach(t);
        n->running = true;
        n->refs++;
    }
    if (!n->running)
        return false;
    n->queue[n->n_queue++] = uid;
    pthread_cond_signal(&n->asked);
    return true;
}

void lg_usernames_get(struct lg_usernames *n, uint32_t uid, char out[LG_AUDIT_NAME_MAX + 1])
{
    pthread_mutex_lock(&n->mu);
    struct entry *e = &n->cache[uid % CACHE];
    int64_t now = lg_clock_ms(), end = now + WAIT_MS;
    bool known = e->until_ms && e->uid == uid;
    bool asked = (!known || e->until_ms <= now) && ask(n, uid);
    struct timespec t = { .tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000 };
    /* An old name does until there is a new one; and who has kept us waiting once is not waited for again before he answers. */
    while (!known && asked && !(n->busy && lg_clock_ms() - n->busy_since >= WAIT_MS) && pthread_cond_timedwait(&n->answered, &n->mu, &t) == 0)
        known = e->until_ms && e->uid == uid;
    known = e->until_ms && e->uid == uid;
    snprintf(out, LG_AUDIT_NAME_MAX + 1, "%s", known ? e->name : "");
    pthread_mutex_unlock(&n->mu);
}
