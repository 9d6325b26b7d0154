/* The pool of requests that may block (fs/front/ring.c), with requests of this test's own in place of libfuse's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <time.h>

enum { SECOND = 1000 * 1000 * 1000 };
static _Atomic int64_t stands; /* the clock, in nanoseconds, while it is not zero */
__attribute__((unused)) static int clock_of_test(clockid_t id, struct timespec *ret) /* without FUSE over io_uring nobody asks */
{
    int rc = clock_gettime(id, ret);
    int64_t at = stands;
    if (at)
        *ret = (struct timespec){ .tv_sec = at / SECOND, .tv_nsec = at % SECOND };
    return rc;
}
#define clock_gettime clock_of_test

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

static struct lg_front *large_read; /* it is tried on the ring's thread first */
static struct {
    long ns; /* by the clock that stands */
    bool waits;
} takes; /* what does not go to the pool */

void fuse_uring_work_run(struct fuse_uring_work *w)
{
    struct timespec until;
    if (on_ring) { /* a large read goes to the pool, anything else is done with */
        if (w->opcode == FUSE_READ && !(large_read && lg_ring_spread(large_read)))
            (void)lg_ring_put_off();
        if (takes.waits)
            usleep(1);
        stands += takes.ns;
        return;
    }
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

static bool bound_to(const cpu_set_t *set)
{
    cpu_set_t is;
    assert_int_equal(sched_getaffinity(0, sizeof is, &is), 0);
    return CPU_EQUAL(&is, set);
}

/* Requests one after the other on a ring's thread, which is bound to one processor. */
static void roams_only_while_all_is_large(void **state)
{
    struct lg_front f = { .session = NULL };
    struct fuse_uring_work read = { .opcode = FUSE_READ }, small = { .opcode = FUSE_LOOKUP };
    cpu_set_t was, home;
    (void)state;
    assert_int_equal(sched_getaffinity(0, sizeof was, &was), 0);
    assert_int_equal(lg_ring_start(&f, 4), 0);
    for (unsigned kind = 0; kind < KINDS; kind++)
        f.ring->slow[kind] = 0;
    CPU_ZERO(&home);
    CPU_SET(sched_getcpu(), &home);
    assert_int_equal(sched_setaffinity(0, sizeof home, &home), 0);
    meeting.wanted = 1;
    for (unsigned round = 0; round < 3; round++) {
        unsigned elsewhere = meeting.done;
        dispatch(&f, &small);
        assert_true(bound_to(&home));
        assert_int_equal(f.ring->queued, 0); /* it was answered here, and nowhere else */
        assert_int_equal(meeting.done, elsewhere);
        for (unsigned n = 1; n <= 2; n++) {
            pthread_mutex_lock(&meeting.mu);
            meeting.running = meeting.done = 0;
            pthread_mutex_unlock(&meeting.mu);
            dispatch(&f, &read);
            assert_true(bound_to(&was));
            pthread_mutex_lock(&meeting.mu);
            while (!meeting.done)
                pthread_cond_wait(&meeting.all, &meeting.mu);
            pthread_mutex_unlock(&meeting.mu);
        }
    }
    dispatch(&f, &small);
    assert_true(bound_to(&home));
    f.ring->slow[FUSE_READ % KINDS] = QUICK_ROW; /* as over a slow disk: no read is tried here at all */
    pthread_mutex_lock(&meeting.mu);
    meeting.running = meeting.done = 0;
    pthread_mutex_unlock(&meeting.mu);
    dispatch(&f, &read);
    assert_true(bound_to(&was));
    assert_int_equal(sched_setaffinity(0, sizeof was, &was), 0);
    lg_ring_stop(&f);
}

/* A large read on one of the threads of rings: whether it goes to the pool. */
static void *spreads(void *front)
{
    on_ring = true;
    bool yes = lg_ring_spread(front);
    on_ring = false;
    return yes ? front : NULL;
}

static bool another_spreads(struct lg_front *f)
{
    pthread_t t;
    void *yes;
    assert_int_equal(pthread_create(&t, NULL, spreads, f), 0);
    assert_int_equal(pthread_join(t, &yes), 0);
    return yes;
}

static void pause_of_large_reads(void) { stands += SECOND; }

static void shares_large_reads_while_processors_are_left(void **state)
{
    struct lg_front f = { .ring = calloc(1, sizeof *f.ring + 16 * sizeof f.ring->large_at[0]) };
    (void)state;
    assert_non_null(f.ring);
    f.ring->n_large = 16;
    f.ring->processors = 2;
    pause_of_large_reads(); /* else the clock of a machine just started would count */
    on_ring = true;
    for (unsigned i = 0; i < 3; i++)
        assert_true(lg_ring_spread(&f)); /* one reader, and a processor beside */
    assert_false(another_spreads(&f)); /* two, and none */
    assert_false(lg_ring_spread(&f));
    pause_of_large_reads();
    assert_true(lg_ring_spread(&f));
    f.ring->processors = 4;
    assert_true(another_spreads(&f));
    assert_false(another_spreads(&f)); /* three of four */
    on_ring = false;
    pause_of_large_reads();
    assert_false(lg_ring_spread(&f)); /* not on a ring's thread: it is where it was put, and no processor's */
    f.ring->processors = 2;
    on_ring = true;
    assert_true(another_spreads(&f));
    on_ring = false;
    stands = 0;
    free(f.ring);
}

static void what_is_not_in_memory_is_not_tried_again(void **state)
{
    struct lg_front f = { .session = NULL };
    struct fuse_uring_work read = { .opcode = FUSE_READ };
    (void)state;
    assert_int_equal(lg_ring_start(&f, 4), 0);
    for (unsigned kind = 0; kind < KINDS; kind++)
        f.ring->slow[kind] = 0;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    assert_int_equal(f.ring->processors, CPU_COUNT(&all));
    f.ring->processors = 1;
    meeting.wanted = 1;
    meeting.running = meeting.done = 0;
    on_ring = true;
    assert_false(lg_ring_spread(&f));
    on_ring = false;
    large_read = &f;
    dispatch(&f, &read);
    pthread_mutex_lock(&meeting.mu);
    while (!meeting.done)
        pthread_cond_wait(&meeting.all, &meeting.mu);
    pthread_mutex_unlock(&meeting.mu);
    large_read = NULL;
    assert_int_equal(f.ring->cold, COLD_ROW);
    on_ring = true;
    for (unsigned i = 0; i < COLD_ROW; i++)
        assert_true(lg_ring_spread(&f));
    assert_false(lg_ring_spread(&f));
    on_ring = false;
    pthread_mutex_lock(&meeting.mu);
    meeting.running = meeting.done = 0;
    pthread_mutex_unlock(&meeting.mu);
    dispatch(&f, &read); /* put off, but it was not tried */
    pthread_mutex_lock(&meeting.mu);
    while (!meeting.done)
        pthread_cond_wait(&meeting.all, &meeting.mu);
    pthread_mutex_unlock(&meeting.mu);
    assert_int_equal(f.ring->cold, 0);
    lg_ring_stop(&f);
}

/* Does a request of that kind run where it came, taking so long? */
static bool runs_here(struct lg_front *f, uint32_t opcode, long us, bool waits)
{
    static struct fuse_uring_work w;
    pthread_mutex_lock(&meeting.mu);
    meeting.running = meeting.done = 0;
    meeting.wanted = 1;
    pthread_mutex_unlock(&meeting.mu);
    w.opcode = opcode;
    takes.ns = us * 1000;
    takes.waits = waits;
    bool here = !atomic_load(&f->ring->slow[opcode % KINDS]);
    dispatch(f, &w);
    pthread_mutex_lock(&meeting.mu);
    while (!here && !meeting.done)
        pthread_cond_wait(&meeting.all, &meeting.mu);
    assert_int_equal(meeting.done, !here);
    pthread_mutex_unlock(&meeting.mu);
    return here;
}

/* What only looks begins on the ring's thread, where it must be quick for a while; what changes something begins in the pool. */
static void what_only_looks_begins_here(void **state)
{
    struct lg_front f = { .session = NULL };
    (void)state;
    stands = SECOND;
    assert_int_equal(lg_ring_start(&f, 4), 0);
    assert_false(runs_here(&f, FUSE_MKDIR, 0, false));
    assert_true(runs_here(&f, FUSE_LOOKUP, 50, true));
    assert_true(runs_here(&f, FUSE_LOOKUP, 200, false)); /* long, but it had work to do */
    assert_true(runs_here(&f, FUSE_LOOKUP, 200, true));
    assert_false(runs_here(&f, FUSE_LOOKUP, 0, false)); /* the disk is slow */
    for (unsigned i = 0; i < QUICK_ROW; i++)
        assert_true(runs_here(&f, FUSE_GETATTR, 50, true));
    for (unsigned i = 0; i < 3; i++)
        assert_true(runs_here(&f, FUSE_GETATTR, 200, true)); /* now and then one is */
    assert_true(runs_here(&f, FUSE_GETATTR, 2000, true));
    assert_true(runs_here(&f, FUSE_GETATTR, 2000, true));
    assert_false(runs_here(&f, FUSE_GETATTR, 0, false));
    takes.ns = 0;
    takes.waits = false;
    stands = 0;
    lg_ring_stop(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(none_waits_behind_another), cmocka_unit_test(what_only_looks_begins_here), cmocka_unit_test(roams_only_while_all_is_large),
                                        cmocka_unit_test(shares_large_reads_while_processors_are_left), cmocka_unit_test(what_is_not_in_memory_is_not_tried_again) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void)
{
    puts("SKIPPED: the distribution's libfuse has no FUSE over io_uring");
    return 77;
}
#endif
