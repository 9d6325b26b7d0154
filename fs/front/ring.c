/* FUSE over io_uring: which thread runs a request.
 *
 * Each processor has a ring and one thread, and a handler that blocks there holds up every request of that processor. So a request starts on the
 * ring's thread only if it is not expected to block; one that finds out in time that it would (lg_ring_put_off, lg_ring_try), kinds of request that were
 * seen to take long (a distant lower filesystem), and all while somebody waits for the key manager, run in a pool of threads. Replies go back through the ring's thread: libfuse's part of this
 * is tools/deps/libfuse-uring-dispatch.patch.
 *
 * That thread is bound to its processor, where whoever asks sleeps meanwhile: nothing is faster for small requests. But a sequential reader does not sleep, it copies
 * what came before, and so would the thread copy what comes next on the same processor while another is idle: while all it has are reads for the pool, it roams.
 * Large reads go to the pool while no more than half of the processors have them, so that one opens what another copies. With more of them there is nobody to share with, and
 * handing a reply from processor to processor costs more than to open it. */
#include <errno.h>
#include <fcntl.h>
#include <linux/fuse.h>
#include <linux/io_uring.h>
#include <stdatomic.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "front.h"
#include "leadglass/keys.h"
#include "leadglass/later.h"
#include "leadglass/pool.h"
#include "order.h"

enum lg_ring_lack lg_ring_lack(void)
{
#ifdef FUSE_URING_DISPATCH
    char c = 0;
    struct io_uring_params p = { .flags = IORING_SETUP_SQE128 };
    int fd = open("/sys/module/fuse/parameters/enable_uring", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return LG_RING_OLD_KERNEL;
    (void)!read(fd, &c, 1);
    close(fd);
    if (c != 'Y')
        return LG_RING_SWITCHED_OFF;
    fd = (int)syscall(SYS_io_uring_setup, 1, &p);
    if (fd < 0)
        return LG_RING_REFUSED;
    close(fd);
    return LG_RING_TRIED;
#else
    return LG_RING_NOT_BUILT;
#endif
}

#ifdef FUSE_URING_DISPATCH

enum {
    KINDS = 64,                /* FUSE operation codes, by their low bits */
    SLOW_NS = 1000 * 1000,     /* a request that waited, and took longer than this on a ring's thread, sends its kind to the pool */
    QUICK_NS = 100 * 1000,     /* ... until */
    QUICK_ROW = 16,            /* as many in a row took less than this there, or waited for nothing */
    FIRST_ROW = 4,             /* the same for a kind that has not been seen to take long: a request costs several times as much there */
    SPREAD_NS = 2 * 1000 * 1000, /* a processor that had a large read within this has more of them */
    COLD_ROW = 16,             /* so many large reads after one that was not in memory go to the pool straight away */
    WATCH_ROW = 256,           /* so many requests after one that took long are asked whether they waited, which is a system call each time */
};

/* What changes nothing, and is mostly answered from memory below or finds out in time that it is not: these begin on the ring's thread, and stay there if the first QUICK_ROW
 * of each would have brought it there from the pool. All others begin in the pool. */
static const uint8_t first_here[] = { FUSE_LOOKUP, FUSE_GETATTR, FUSE_OPEN, FUSE_READ, FUSE_RELEASE };

struct lg_ring {
    pthread_mutex_t mu;
    pthread_cond_t work_cond;
    struct fuse_uring_work *first, **last;
    pthread_t *threads;
    unsigned n_threads, max_threads, idle, queued; /* idle: also those that are woken and have not looked yet */
    cpu_set_t everywhere; /* where this process may run */
    bool stop;
    const struct lg_keys *keys;
    atomic_uint slow[KINDS]; /* 0: run on the ring's thread; else how many quick ones it takes to come back there */
    atomic_uint watched[KINDS]; /* how many more are asked whether they waited */
    atomic_uint trial[KINDS]; /* how many more must be quick to stay on the ring's thread */
    unsigned processors; /* of everywhere */
    atomic_uint cold; /* how many more large reads go to the pool */
    unsigned n_large; /* processors that there can be, each with a ring and its thread */
    atomic_int_least64_t large_at[]; /* when each of these had its last large read */
};

static _Thread_local bool on_ring, put_off, large_here;

bool lg_ring_put_off(void)
{
    put_off = on_ring;
    return put_off;
}

void lg_ring_try(void)
{
    if (on_ring)
        lg_later_begin();
}

bool lg_ring_tried(ssize_t rc)
{
    lg_later_end();
    return rc == -LG_ELATER && lg_ring_put_off();
}

static int64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

bool lg_ring_spread(struct lg_front *f)
{
    static atomic_uint threads;
    static _Thread_local unsigned nth; /* from 1 */
    struct lg_ring *r = f->ring;
    if (!on_ring)
        return false;
    if (!nth)
        nth = atomic_fetch_add(&threads, 1) + 1;
    int64_t now = now_ns();
    atomic_store_explicit(&r->large_at[nth % r->n_large], now, memory_order_relaxed);
    unsigned busy = 0, cold = atomic_load_explicit(&r->cold, memory_order_relaxed);
    for (unsigned i = 0; i < r->n_large; i++)
        busy += now - atomic_load_explicit(&r->large_at[i], memory_order_relaxed) < SPREAD_NS;
    if (cold)
        atomic_compare_exchange_strong(&r->cold, &cold, cold - 1); /* another thread's count is as good */
    large_here = !cold && busy * 2 > r->processors;
    return !large_here && lg_ring_put_off();
}

/* How often this thread has waited. Time alone does not tell: who is not given a processor takes long as well. */
static long waits(void)
{
    struct rusage u;
    return getrusage(RUSAGE_THREAD, &u) ? 0 : u.ru_nvcsw - lg_pool_waited();
}

/* The work item may carry the next request as soon as its handler has replied: nothing of it is looked at afterwards. */
static void run_in_pool(struct lg_ring *r, struct fuse_uring_work *w)
{
    atomic_uint *slow = &r->slow[w->opcode % KINDS];
    int64_t start = now_ns();
    long waited = waits();
    fuse_uring_work_run(w);
    unsigned left = atomic_load_explicit(slow, memory_order_relaxed);
    if (!left)
        return;
    unsigned next = now_ns() - start < QUICK_NS || waits() == waited ? left - 1 : QUICK_ROW;
    atomic_compare_exchange_strong(slow, &left, next); /* another thread's count is as good */
}

static void *pool_thread(void *arg)
{
    struct lg_ring *r = arg;
    (void)sched_setaffinity(0, sizeof r->everywhere, &r->everywhere); /* a thread made by a ring's thread would stay on its processor */
    (void)pthread_setname_np(pthread_self(), "lg-pool");
    pthread_mutex_lock(&r->mu);
    for (;;) {
        while (!r->first && !r->stop) {
            r->idle++;
            pthread_cond_wait(&r->work_cond, &r->mu);
            r->idle--;
        }
        struct fuse_uring_work *w = r->first;
        if (!w)
            break;
        r->first = w->next;
        r->queued--;
        if (!r->first)
            r->last = &r->first;
        pthread_mutex_unlock(&r->mu);
        run_in_pool(r, w);
        pthread_mutex_lock(&r->mu);
    }
    pthread_mutex_unlock(&r->mu);
    return NULL;
}

/* The first thread exists from the start, so that what is queued is always served. */
static void enqueue(struct lg_ring *r, struct fuse_uring_work *w)
{
    pthread_mutex_lock(&r->mu);
    w->next = NULL;
    *r->last = w;
    r->last = &w->next;
    if (++r->queued > r->idle && r->n_threads < r->max_threads && pthread_create(&r->threads[r->n_threads], NULL, pool_thread, r) == 0)
        r->n_threads++;
    pthread_cond_signal(&r->work_cond);
    pthread_mutex_unlock(&r->mu);
}

/* Of the ring's thread that calls. */
static void roam(const struct lg_ring *r, bool far)
{
    static _Thread_local cpu_set_t home;
    static _Thread_local bool is_far;
    if (far == is_far || (far && sched_getaffinity(0, sizeof home, &home)))
        return;
    if (sched_setaffinity(0, sizeof home, far ? &r->everywhere : &home) == 0)
        is_far = far;
}

static void dispatch(void *user, struct fuse_uring_work *w)
{
    struct lg_ring *r = ((struct lg_front *)user)->ring;
    atomic_uint *slow = &r->slow[w->opcode % KINDS];
    LG_RING_REQUESTED();
    if (atomic_load_explicit(slow, memory_order_relaxed) || lg_keys_asking(r->keys)) { /* who waits for a key may hold a lock that this one wants */
        roam(r, w->opcode == FUSE_READ);
        enqueue(r, w);
        return;
    }
    atomic_uint *watched = &r->watched[w->opcode % KINDS];
    atomic_uint *trial = &r->trial[w->opcode % KINDS];
    unsigned left = atomic_load_explicit(watched, memory_order_relaxed), tried = atomic_load_explicit(trial, memory_order_relaxed);
    int64_t start = now_ns();
    long waited = left || tried ? waits() : 0;
    on_ring = true;
    put_off = large_here = false;
    fuse_uring_work_run(w);
    on_ring = false;
    roam(r, put_off && w->opcode == FUSE_READ);
    if (put_off) {
        if (large_here)
            atomic_store_explicit(&r->cold, COLD_ROW, memory_order_relaxed);
        enqueue(r, w);
        return;
    }
    int64_t took = now_ns() - start;
    if ((left || tried) && took > (tried ? QUICK_NS : SLOW_NS) && waits() != waited)
        atomic_store_explicit(slow, QUICK_ROW, memory_order_relaxed);
    if (took > SLOW_NS)
        atomic_store_explicit(watched, WATCH_ROW, memory_order_relaxed);
    else if (left)
        atomic_store_explicit(watched, left - 1, memory_order_relaxed);
    if (tried)
        atomic_store_explicit(trial, tried - 1, memory_order_relaxed);
}

int lg_ring_start(struct lg_front *f, unsigned max_threads)
{
    long processors = sysconf(_SC_NPROCESSORS_CONF);
    struct lg_ring *r = processors > 0 ? calloc(1, sizeof *r + (size_t)processors * sizeof r->large_at[0]) : NULL;
    if (!r)
        return -ENOMEM;
    r->n_large = (unsigned)processors;
    r->threads = calloc(max_threads, sizeof *r->threads);
    r->max_threads = max_threads;
    if (sched_getaffinity(0, sizeof r->everywhere, &r->everywhere)) /* more than a thousand processors: as if it were all of the set */
        memset(&r->everywhere, 0xff, sizeof r->everywhere);
    r->processors = (unsigned)CPU_COUNT(&r->everywhere);
    r->keys = f->keys;
    for (unsigned i = 0; i < KINDS; i++) /* the disk is slow until it was seen not to be */
        r->slow[i] = FIRST_ROW;
    for (unsigned i = 0; i < sizeof first_here / sizeof first_here[0]; i++) {
        r->slow[first_here[i] % KINDS] = 0;
        r->trial[first_here[i] % KINDS] = QUICK_ROW;
    }
    r->last = &r->first;
    pthread_mutex_init(&r->mu, NULL);
    pthread_cond_init(&r->work_cond, NULL);
    if (!r->threads || pthread_create(&r->threads[0], NULL, pool_thread, r)) {
        free(r->threads);
        free(r);
        return -ENOMEM;
    }
    r->n_threads = 1;
    f->ring = r;
    fuse_session_set_uring_dispatch(f->session, dispatch);
    return 0;
}

void lg_ring_stop(struct lg_front *f)
{
    struct lg_ring *r = f->ring;
    if (!r)
        return;
    pthread_mutex_lock(&r->mu);
    r->stop = true;
    pthread_cond_broadcast(&r->work_cond);
    pthread_mutex_unlock(&r->mu);
    for (unsigned i = 0; i < r->n_threads; i++)
        pthread_join(r->threads[i], NULL);
    pthread_cond_destroy(&r->work_cond);
    pthread_mutex_destroy(&r->mu);
    free(r->threads);
    free(r);
    f->ring = NULL;
}

bool lg_ring_running(const struct lg_front *f) { return fuse_session_uring_running(f->session); }

char *lg_ring_buffer(fuse_req_t req, size_t len)
{
    char *p;
    size_t have;
    return fuse_req_is_uring(req) && fuse_req_get_payload(req, &p, &have, NULL) == 0 && have >= len ? p : NULL;
}

#else

bool lg_ring_put_off(void) { return false; }
bool lg_ring_spread(struct lg_front *f) { return (void)f, false; }
void lg_ring_try(void) { }
bool lg_ring_tried(ssize_t rc) { return (void)rc, false; }
int lg_ring_start(struct lg_front *f, unsigned max_threads)
{
    (void)f, (void)max_threads;
    return -ENOTSUP;
}
void lg_ring_stop(struct lg_front *f) { (void)f; }
bool lg_ring_running(const struct lg_front *f)
{
    (void)f;
    return false;
}
char *lg_ring_buffer(fuse_req_t req, size_t len)
{
    (void)req, (void)len;
    return NULL;
}

#endif
