/* Pages of the kernel that a write with O_DIRECT went past. The kernel drops them before it sends the write, and once more behind one that somebody waits for, but not
 * behind an asynchronous one (libaio, io_uring): what a reader asked for meanwhile, and was given as it was before, would stay. So we have them dropped before the write
 * is answered. On threads of their own: dropping a page waits for a read of it that is under way, which the threads that serve requests have to answer. */
#include <pthread.h>
#include <stdlib.h>

#include "front.h"
#include "order.h"

enum { THREADS_MAX = 8 }; /* one for each file that a slow read holds up */

struct job {
    struct job *next;
    fuse_req_t req;
    fuse_ino_t ino;
    off_t off;
    size_t len;
};

struct lg_pages {
    struct fuse_session *session;
    pthread_mutex_t mu;
    pthread_cond_t some;
    struct job *first, **last;
    unsigned n_threads, idle, queued; /* idle: also those that are woken and have not looked yet */
    bool stop;
    pthread_t thread[THREADS_MAX];
};

static void *dropping(void *arg)
{
    struct lg_pages *p = arg;
    (void)pthread_setname_np(pthread_self(), "lg-pages");
    pthread_mutex_lock(&p->mu);
    for (;;) {
        while (!p->first && !p->stop) {
            p->idle++;
            pthread_cond_wait(&p->some, &p->mu);
            p->idle--;
        }
        struct job *x = p->first;
        if (!x)
            break;
        p->first = x->next;
        p->queued--;
        if (!p->first)
            p->last = &p->first;
        bool stop = p->stop;
        pthread_mutex_unlock(&p->mu);
        if (!stop) /* -ENOENT: the kernel has no such inode any more */
            (void)fuse_lowlevel_notify_inval_inode(p->session, x->ino, x->off, (off_t)x->len);
        fuse_reply_write(x->req, x->len);
        free(x);
        pthread_mutex_lock(&p->mu);
    }
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

int lg_pages_start(struct lg_front *f)
{
    struct lg_pages *p = calloc(1, sizeof *p);
    if (!p)
        return -ENOMEM;
    p->session = f->session;
    p->last = &p->first;
    pthread_mutex_init(&p->mu, NULL);
    pthread_cond_init(&p->some, NULL);
    int rc = -pthread_create(&p->thread[0], NULL, dropping, p);
    if (rc) {
        free(p);
        return rc;
    }
    p->n_threads = 1;
    f->pages = p;
    return 0;
}

void lg_pages_stop(struct lg_front *f)
{
    struct lg_pages *p = f->pages;
    if (!p)
        return;
    pthread_mutex_lock(&p->mu);
    p->stop = true;
    pthread_cond_broadcast(&p->some);
    pthread_mutex_unlock(&p->mu);
    for (unsigned i = 0; i < p->n_threads; i++)
        pthread_join(p->thread[i], NULL);
    pthread_cond_destroy(&p->some);
    pthread_mutex_destroy(&p->mu);
    free(p);
    f->pages = NULL;
}

void lg_pages_written(struct lg_front *f, fuse_req_t req, fuse_ino_t ino, off_t off, size_t len)
{
    struct lg_pages *p = f->pages;
    struct job *x = malloc(sizeof *x);
    if (!x) { /* it stands there, but has to be written again to be seen */
        fuse_reply_err(req, ENOMEM);
        return;
    }
    *x = (struct job){ .req = req, .ino = ino, .off = off, .len = len };
    pthread_mutex_lock(&p->mu);
    *p->last = x;
    p->last = &x->next;
    if (++p->queued > p->idle && p->n_threads < THREADS_MAX && pthread_create(&p->thread[p->n_threads], NULL, dropping, p) == 0)
        p->n_threads++;
    pthread_cond_signal(&p->some);
    pthread_mutex_unlock(&p->mu);
}
