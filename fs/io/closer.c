#include "leadglass/closer.h"

#include <pthread.h>
#include <signal.h>
#include <unistd.h>

enum { WAITING_MAX = 64 };

/* A ring: of all that was ever given, those from closed on are not closed yet. Under mu. */
static struct {
    pthread_mutex_t mu;
    pthread_cond_t work, done;
    int fd[WAITING_MAX];
    unsigned long given, closed;
    bool idle;
} c = { .mu = PTHREAD_MUTEX_INITIALIZER, .work = PTHREAD_COND_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool running;

static void *closer(void *arg)
{
    (void)arg;
    (void)pthread_setname_np(pthread_self(), "lg-closer");
    pthread_mutex_lock(&c.mu);
    for (;;) {
        while (c.closed == c.given) {
            c.idle = true;
            pthread_cond_wait(&c.work, &c.mu);
            c.idle = false;
        }
        int fd = c.fd[c.closed % WAITING_MAX];
        pthread_mutex_unlock(&c.mu);
        close(fd);
        pthread_mutex_lock(&c.mu);
        c.closed++;
        pthread_cond_broadcast(&c.done);
    }
    return NULL;
}

/* Not joined: what it has not closed when the process ends the kernel does. */
static void start(void)
{
    pthread_t t;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    running = pthread_create(&t, NULL, closer, NULL) == 0 && pthread_detach(t) == 0;
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

bool lg_closer_start(void)
{
    pthread_once(&once, start);
    return running;
}

void lg_close_soon(int fd)
{
    if (fd < 0)
        return;
    pthread_mutex_lock(&c.mu);
    bool full = c.given - c.closed == WAITING_MAX;
    if (!full) {
        c.fd[c.given++ % WAITING_MAX] = fd;
        if (c.idle)
            pthread_cond_signal(&c.work);
    }
    pthread_mutex_unlock(&c.mu);
    if (full)
        close(fd);
}

bool lg_close_pending(void)
{
    pthread_mutex_lock(&c.mu);
    bool any = c.closed != c.given;
    pthread_mutex_unlock(&c.mu);
    return any;
}

bool lg_close_wait(void)
{
    pthread_mutex_lock(&c.mu);
    unsigned long upto = c.given;
    bool any = c.closed != upto;
    while (c.closed < upto)
        pthread_cond_wait(&c.done, &c.mu);
    pthread_mutex_unlock(&c.mu);
    return any;
}
