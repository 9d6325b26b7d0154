#include "leadglass/closer.h"

#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>

enum {
    WAITING_MAX = 64,
    LINGER_NS = 1000 * 1000, /* after the last one: what comes meanwhile waits as long, and nobody has to wake this thread for each */
};

/* A ring: of all that was ever given, those from closed on are not closed yet. Under mu. */
static struct {
    pthread_mutex_t mu;
    pthread_cond_t work, done;
    int fd[WAITING_MAX];
    unsigned long given, closed;
    bool idle;
} c = { .mu = PTHREAD_MUTEX_INITIALIZER, .done = PTHREAD_COND_INITIALIZER };
static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool running;

/* mu held */
static void wait_a_little(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t); /* as c.work has it */
    t.tv_nsec += LINGER_NS;
    t.tv_sec += t.tv_nsec / 1000000000;
    t.tv_nsec %= 1000000000;
    (void)pthread_cond_timedwait(&c.work, &c.mu, &t);
}

static void *closer(void *arg)
{
    (void)arg;
    (void)pthread_setname_np(pthread_self(), "lg-closer");
    pthread_mutex_lock(&c.mu);
    for (bool linger = false;; linger = true) {
        while (c.closed == c.given) {
            c.idle = !linger;
            if (linger)
                wait_a_little();
            else
                pthread_cond_wait(&c.work, &c.mu);
            linger = c.idle = false;
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
    pthread_condattr_t monotonic; /* the other clock may be set back */
    sigset_t all, old;
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c.work, &monotonic);
    pthread_condattr_destroy(&monotonic);
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
        if (c.idle || c.given - c.closed == WAITING_MAX / 2)
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
    if (any)
        pthread_cond_signal(&c.work);
    while (c.closed < upto)
        pthread_cond_wait(&c.done, &c.mu);
    pthread_mutex_unlock(&c.mu);
    return any;
}
