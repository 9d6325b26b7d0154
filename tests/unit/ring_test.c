/* The pool of requests that may block (fs/front/ring.c), with requests of this test's own in place of libfuse's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>

#include "../../fs/front/ring.c"

#ifdef FUSE_URING_DISPATCH
enum { OPCODE = 3, AT_ONCE = 8, ROUNDS = 300, LIMIT_S = 120 };

const struct fuse_lowlevel_ops lg_front_ops; /* of the thread sanitizer's order.h alone */

/* Each waits until all that were put off with it run: one that is left to a thread that another holds is waited for in vain. */
static struct {
    pthread_mutex_t mu;
    pthread_cond_t all;
    unsigned running, wanted, done;
    bool late;
} meeting = { .mu = PTHREAD_MUTEX_INITIALIZER, .all = PTHREAD_COND_INITIALIZER };

void fuse_uring_work_run(struct fuse_uring_work *w)
{
    struct timespec until;
    (void)w;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += LIMIT_S;
    pthread_mutex_lock(&meeting.mu);
    if (++meeting.running == meeting.wanted)
        pthread_cond_broadcast(&meeting.all);
    while (meeting.running < meeting.wanted && !meeting.late)
        if (pthread_cond_timedwait(&meeting.all, &meeting.mu, &until)) {
            meeting.late = true;
            pthread_cond_broadcast(&meeting.all);
        }
    meeting.done++;
    pthread_cond_broadcast(&meeting.all);
    pthread_mutex_unlock(&meeting.mu);
}

void fuse_session_set_uring_dispatch(struct fuse_session *se, fuse_uring_dispatch_t d) { (void)se, (void)d; }
bool fuse_session_uring_running(struct fuse_session *se) { return (void)se, false; }
bool fuse_req_is_uring(fuse_req_t req) { return (void)req, false; }
int fuse_req_get_payload(fuse_req_t req, char **p, size_t *n, void **mr) { return (void)req, (void)p, (void)n, (void)mr, -EINVAL; }
long lg_pool_waited(void) { return 0; }
bool lg_keys_asking(const struct lg_keys *k) { return (void)k, false; }

static void put_off_at_once(unsigned n, struct lg_front *f)
{
    static struct fuse_uring_work work[AT_ONCE];
    pthread_mutex_lock(&meeting.mu);
    meeting.running = meeting.done = 0;
    meeting.wanted = n;
    pthread_mutex_unlock(&meeting.mu);
    for (unsigned i = 0; i < n; i++) {
        work[i].opcode = OPCODE;
        enqueue(f->ring, &work[i]);
    }
    pthread_mutex_lock(&meeting.mu);
    while (meeting.done < n)
        pthread_cond_wait(&meeting.all, &meeting.mu);
    assert_false(meeting.late);
    pthread_mutex_unlock(&meeting.mu);
}

/* One idle thread, or a few, and more requests than that in a row, before the first of them has woken: all on one processor. */
static void none_waits_behind_another(void **state)
{
    struct lg_front f = { .session = NULL };
    cpu_set_t was, one;
    (void)state;
    assert_int_equal(lg_ring_start(&f, 64), 0);
    assert_int_equal(sched_getaffinity(0, sizeof was, &was), 0);
    for (unsigned round = 0; round < ROUNDS; round++) {
        CPU_ZERO(&one);
        CPU_SET(sched_getcpu(), &one);
        (void)sched_setaffinity(0, sizeof one, &one);
        put_off_at_once(2 + round % (AT_ONCE - 1), &f);
        (void)sched_setaffinity(0, sizeof was, &was);
        if (round % 50 == 49) { /* begin with one thread again */
            lg_ring_stop(&f);
            assert_int_equal(lg_ring_start(&f, 64), 0);
        }
    }
    lg_ring_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(none_waits_behind_another) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    puts("SKIPPED: the distribution's libfuse has no FUSE over io_uring");
    return 77;
}
#endif
