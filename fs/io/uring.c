/* Cold reads through io_uring: many in flight, handed on as they arrive. The only place that includes liburing. */
#include "internal.h"

#include <errno.h>
#include <liburing.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

enum { DEPTH = 32 };

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Atomic int refused; /* -errno of the first refusal; 1: switched off */

static void ring_free(void *p)
{
    io_uring_queue_exit(p);
    free(p);
}

static void key_init(void)
{
    if (pthread_key_create(&key, ring_free))
        abort();
}

/* Each thread has its own; NULL: the system refuses. */
static struct io_uring *ring(void)
{
    pthread_once(&once, key_init);
    struct io_uring *r = pthread_getspecific(key);
    if (r || atomic_load(&refused))
        return r;
    r = malloc(sizeof *r);
    int rc = r ? io_uring_queue_init(DEPTH, r, 0) : -ENOMEM;
    if (!rc && pthread_setspecific(key, r)) {
        io_uring_queue_exit(r);
        rc = -ENOMEM;
    }
    if (!rc)
        return r;
    free(r);
    atomic_store(&refused, rc);
    return NULL;
}

int lg_uring_state(void)
{
    if (!atomic_load(&refused))
        (void)!ring();
    int rc = atomic_load(&refused);
    return rc > 0 ? -ECANCELED : rc;
}

void lg_uring_off(void) { atomic_store(&refused, 1); }

/* One read of many. */
struct slot {
    size_t at, n, done;
    bool busy;
};

struct reading {
    struct io_uring *r;
    int fd;
    uint8_t *buf;
    off_t off;
    struct slot slot[DEPTH];
    unsigned unsent, flying;
};

static int start(struct reading *x, unsigned s)
{
    struct slot *p = &x->slot[s];
    struct io_uring_sqe *e = io_uring_get_sqe(x->r);
    if (!e)
        return -EBUSY;
    io_uring_prep_read(e, x->fd, x->buf + p->at + p->done, (unsigned)(p->n - p->done), (uint64_t)x->off + p->at + p->done);
    io_uring_sqe_set_data64(e, s);
    p->busy = true;
    x->unsent++;
    return 0;
}

/* As many as fit are begun from *next on. Returns an error when none is under way and none can be. */
static int begin(struct reading *x, size_t len, size_t piece, size_t *next)
{
    for (unsigned s = 0; s < DEPTH && *next < len; s++)
        if (!x->slot[s].busy) {
            x->slot[s] = (struct slot){ .at = *next, .n = len - *next < piece ? len - *next : piece };
            if (start(x, s))
                break;
            *next += x->slot[s].n;
        }
    int n = x->unsent ? io_uring_submit(x->r) : 0;
    if (n > 0) {
        x->unsent -= (unsigned)n;
        x->flying += (unsigned)n;
    }
    return n < 0 && !x->flying && n != -EINTR ? n : 0;
}

/* Waits for one. ret_whole: its piece has arrived, or the file ends in it; NULL: not yet. */
static int finish(struct reading *x, struct slot **ret_whole)
{
    struct io_uring_cqe *c;
    *ret_whole = NULL;
    int rc = x->flying ? io_uring_wait_cqe(x->r, &c) : -EINTR;
    if (rc)
        return rc == -EINTR ? 0 : rc;
    unsigned s = (unsigned)io_uring_cqe_get_data64(c);
    int res = c->res;
    io_uring_cqe_seen(x->r, c);
    struct slot *p = &x->slot[s];
    x->flying--;
    if (res > 0)
        p->done += (size_t)res;
    if ((res > 0 && p->done < p->n) || res == -EINTR || res == -EAGAIN)
        return start(x, s);
    p->busy = false;
    if (res >= 0)
        *ret_whole = p;
    return res < 0 ? res : 0;
}

ssize_t lg_uring_read(int fd, void *buf, size_t len, off_t off, size_t piece, int (*each)(void *arg, size_t at, size_t n), void *arg)
{
    struct reading x = { .r = ring(), .fd = fd, .buf = buf, .off = off };
    size_t next = 0, done = 0;
    int rc = 0, broken = 0;
    if (!x.r)
        return -ENOSYS;
    while (!broken && (x.flying || x.unsent || (!rc && next < len))) {
        struct slot *p;
        broken = begin(&x, rc ? 0 : len, piece, &next);
        int r = broken ? broken : finish(&x, &p); /* what is in flight writes to buf: it is waited for whatever has gone wrong */
        if (!r && p) {
            done += p->done;
            r = rc ? 0 : each(arg, p->at, p->done);
        }
        rc = rc ? rc : r;
    }
    if (broken) { /* what was not sent must not go out later */
        io_uring_queue_exit(x.r);
        free(x.r);
        pthread_setspecific(key, NULL);
    }
    return rc ? rc : (ssize_t)done;
}
