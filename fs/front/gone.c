/* Names that were taken away without the kernel having asked for it: it is told, so that it does not go on finding them. On a thread of its own: telling waits for the
 * directory, whose lock somebody may hold who waits for a request that is queued behind ours. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"

struct gone {
    struct gone *next;
    fuse_ino_t parent;
    char name[256];
};

struct lg_gone {
    struct fuse_session *session;
    pthread_mutex_t mu;
    pthread_cond_t some;
    struct gone *first, **last;
    bool stop;
    pthread_t thread;
};

static void *telling(void *arg)
{
    struct lg_gone *g = arg;
    pthread_mutex_lock(&g->mu);
    for (;;) {
        struct gone *x = g->first;
        if (!x && g->stop)
            break;
        if (!x) {
            pthread_cond_wait(&g->some, &g->mu);
            continue;
        }
        g->first = x->next;
        if (!g->first)
            g->last = &g->first;
        bool stop = g->stop;
        pthread_mutex_unlock(&g->mu);
        if (!stop) /* -ENOENT: the kernel had forgotten it */
            (void)fuse_lowlevel_notify_inval_entry(g->session, x->parent, x->name, strlen(x->name));
        free(x);
        pthread_mutex_lock(&g->mu);
    }
    pthread_mutex_unlock(&g->mu);
    return NULL;
}

int lg_gone_start(struct lg_front *f)
{
    struct lg_gone *g = calloc(1, sizeof *g);
    if (!g)
        return -ENOMEM;
    g->session = f->session;
    g->last = &g->first;
    pthread_mutex_init(&g->mu, NULL);
    pthread_cond_init(&g->some, NULL);
    int rc = -pthread_create(&g->thread, NULL, telling, g);
    if (rc) {
        free(g);
        return rc;
    }
    f->gone = g;
    return 0;
}

void lg_gone_settled(const struct lg_front *f) { lg_front_tell_mount(f, f->gone->thread); }

void lg_gone_stop(struct lg_front *f)
{
    struct lg_gone *g = f->gone;
    if (!g)
        return;
    pthread_mutex_lock(&g->mu);
    g->stop = true;
    pthread_cond_signal(&g->some);
    pthread_mutex_unlock(&g->mu);
    pthread_join(g->thread, NULL);
    pthread_cond_destroy(&g->some);
    pthread_mutex_destroy(&g->mu);
    free(g);
    f->gone = NULL;
}

void lg_gone_tell(struct lg_front *f, fuse_ino_t parent, const char *name)
{
    struct lg_gone *g = f->gone;
    struct gone *x = g ? calloc(1, sizeof *x) : NULL;
    if (!x) /* it is forgotten when its time is over */
        return;
    x->parent = parent;
    snprintf(x->name, sizeof x->name, "%s", name);
    pthread_mutex_lock(&g->mu);
    *g->last = x;
    g->last = &x->next;
    pthread_cond_signal(&g->some);
    pthread_mutex_unlock(&g->mu);
}
