#include "leadglass/pool.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>

/* On the stack of who runs it; on the list as long as a part is left to begin. All under mu. */
struct job {
    struct job *next;
    int (*part)(void *arg, unsigned i);
    void *arg;
    unsigned at, n, running;
    int rc;
};

struct lg_pool {
    pthread_mutex_t mu;
    pthread_cond_t work, done;
    struct job *jobs;
    unsigned idle, helpers;
    bool end;
    atomic_uint callers; /* of lg_pool_run, just now */
    pthread_t thread[];
};

static _Thread_local long waited;

long lg_pool_waited(void) { return waited; }

static void off_list(struct lg_pool *p, const struct job *j)
{
    for (struct job **q = &p->jobs; *q; q = &(*q)->next)
        if (*q == j) {
            *q = j->next;
            return;
        }
}

/* mu held, and let go of meanwhile. */
static void do_one(struct lg_pool *p, struct job *j)
{
    unsigned i = j->at++;
    if (j->at == j->n)
        off_list(p, j);
    j->running++;
    pthread_mutex_unlock(&p->mu);
    int rc = j->part(j->arg, i);
    pthread_mutex_lock(&p->mu);
    if (rc && !j->rc) {
        j->rc = rc;
        off_list(p, j);
        j->at = j->n;
    }
    if (--j->running == 0 && j->at == j->n)
        pthread_cond_broadcast(&p->done);
}

static void *helper(void *arg)
{
    struct lg_pool *p = arg;
    pthread_mutex_lock(&p->mu);
    while (!p->end) {
        if (p->jobs) {
            do_one(p, p->jobs);
            continue;
        }
        p->idle++;
        pthread_cond_wait(&p->work, &p->mu);
        p->idle--;
    }
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

static int alone(unsigned n, int (*part)(void *arg, unsigned i), void *arg)
{
    int rc = 0;
    for (unsigned i = 0; !rc && i < n; i++)
        rc = part(arg, i);
    return rc;
}

static int together(struct lg_pool *p, unsigned n, int (*part)(void *arg, unsigned i), void *arg, unsigned most)
{
    struct job j = { .part = part, .arg = arg, .n = n };
    pthread_mutex_lock(&p->mu);
    j.next = p->jobs;
    p->jobs = &j;
    for (unsigned k = 0; k < p->idle && k < most && k + 1 < n; k++)
        pthread_cond_signal(&p->work);
    while (j.at < j.n)
        do_one(p, &j);
    for (; j.running; waited++)
        pthread_cond_wait(&p->done, &p->mu);
    pthread_mutex_unlock(&p->mu);
    return j.rc;
}

/* Helpers are one fewer than processors. With as many of these at work otherwise, waking somebody costs more than it gives. */
int lg_pool_run(struct lg_pool *p, unsigned n, int (*part)(void *arg, unsigned i), void *arg, unsigned busy)
{
    if (!p || !p->helpers)
        return alone(n, part, arg);
    unsigned others = atomic_fetch_add_explicit(&p->callers, 1, memory_order_relaxed);
    int rc = n < 2 || others + busy >= p->helpers ? alone(n, part, arg) : together(p, n, part, arg, p->helpers - others - busy);
    atomic_fetch_sub_explicit(&p->callers, 1, memory_order_relaxed);
    return rc;
}

int lg_pool_new(unsigned helpers, struct lg_pool **ret)
{
    struct lg_pool *p = calloc(1, sizeof *p + helpers * sizeof p->thread[0]);
    sigset_t all, old;
    int rc = 0;
    if (!p)
        return -ENOMEM;
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    sigfillset(&all); /* signals belong to the threads of the caller */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    while (!rc && p->helpers < helpers) {
        rc = -pthread_create(&p->thread[p->helpers], NULL, helper, p);
        p->helpers += !rc;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc) {
        lg_pool_free(p);
        return rc;
    }
    *ret = p;
    return 0;
}

void lg_pool_free(struct lg_pool *p)
{
    if (!p)
        return;
    pthread_mutex_lock(&p->mu);
    p->end = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mu);
    for (unsigned i = 0; i < p->helpers; i++)
        pthread_join(p->thread[i], NULL);
    pthread_mutex_destroy(&p->mu);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->done);
    free(p);
}
