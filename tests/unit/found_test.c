/* Lines of a log for people about what is damaged: each place once in a window, and how often it was found besides. */
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "../../fs/front/found.h"
#include "leadglass/crypto.h"

static int64_t now;
static int64_t clock_now(void) { return now; }

static char last[512];
static unsigned lines;
static unsigned long long told; /* findings that the lines speak of */
static void say(void *arg, const char *line)
{
    unsigned long long more;
    const char *p = strstr(line, "found ");
    (void)arg;
    lines++;
    told += p && sscanf(p, "found %llu times more", &more) == 1 ? more : 1;
    snprintf(last, sizeof last, "%s", line);
}

/* As the thread that says lines would, which is never far behind. */
static void find(struct lg_found *f, const struct lg_finding *x)
{
    lg_found_tell(f, x);
    lg_found_tick(f);
}

static struct lg_found *begin(void)
{
    struct lg_found *f;
    lines = 0;
    told = 0;
    now = 1000000;
    assert_int_equal(lg_found_new(10000, clock_now, say, NULL, &f), 0);
    return f;
}

static void once_in_a_window(void **state)
{
    (void)state;
    struct lg_found *f = begin();
    struct lg_finding a = { .kind = "chunk does not verify", .from = 4096, .to = 8192 }, b = a, c = a, d = a, e = { .kind = a.kind, .ino = 7 };
    b.from = 8192, b.to = 12288;
    c.kind = "entry does not verify";
    d.file_id[15] = 1;
    for (unsigned i = 0; i < 3000; i++, now += 3)
        find(f, &a);
    assert_int_equal(lines, 1);
    assert_string_equal(last, "file 00000000000000000000000000000000, bytes 4096 to 8191: chunk does not verify");
    find(f, &b);
    find(f, &c);
    find(f, &d);
    find(f, &e);
    assert_int_equal(lines, 5); /* another range, kind, file */
    assert_string_equal(last, "inode 7 below: chunk does not verify");
    lg_found_tick(f);
    assert_int_equal(lines, 5);
    now = 1000000 + 10000;
    lg_found_tick(f); /* the first window alone is over */
    assert_int_equal(lines, 6);
    assert_string_equal(last, "file 00000000000000000000000000000000, bytes 4096 to 8191: chunk does not verify (found 2999 times more)");
    find(f, &a); /* the next begins */
    assert_int_equal(lines, 7);
    find(f, &a);
    lg_found_free(f); /* and nothing is kept back at the end */
    assert_int_equal(lines, 8);
    assert_int_equal(told, 3006);
}

/* More places than can be told apart: few lines, and still no finding is left out. */
static void everywhere(void **state)
{
    (void)state;
    struct lg_found *f = begin();
    for (unsigned i = 0; i < 100000; i++, now += i % 4 == 0)
        find(f, &(struct lg_finding){ .kind = "chunk does not verify", .from = i, .to = i + 1 });
    lg_found_free(f);
    assert_true(lines <= 3 * (256 + 1));
    assert_int_equal(told, 100000);
}

/* The log that people read has stopped. Who finds something does not wait for it, and nothing is left out when it goes on. */
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool stuck;
static void say_slowly(void *arg, const char *line)
{
    atomic_store(&stuck, true);
    pthread_mutex_lock(&gate);
    say(arg, line);
    pthread_mutex_unlock(&gate);
}

static void log_stopped(void **state)
{
    (void)state;
    struct lg_found *f = begin();
    lg_found_free(f);
    assert_int_equal(lg_found_new(10000, clock_now, say_slowly, NULL, &f), 0);
    pthread_mutex_lock(&gate);
    assert_int_equal(lg_found_start(f), 0);
    lg_found_tell(f, &(struct lg_finding){ .kind = "chunk does not verify", .to = 1 });
    while (!atomic_load(&stuck)) /* without the thread: for ever, and the test's time limit ends it */
        sched_yield();
    for (unsigned i = 1; i < 1000; i++) /* with a lock held while a line is said: for ever */
        lg_found_tell(f, &(struct lg_finding){ .kind = "chunk does not verify", .from = i, .to = i + 1 });
    assert_int_equal(lines, 0);
    pthread_mutex_unlock(&gate);
    lg_found_free(f);
    assert_int_equal(told, 1000);
    assert_int_equal(lines, 256 + 1);
}

/* Places are told apart under a key that nobody knows before: two processes do not agree, one always does. */
static void keyed(void **state)
{
    (void)state;
    struct lg_found *f = begin(), *g;
    struct lg_finding a = { .kind = "chunk does not verify", .from = 4096, .to = 8192 }, b = a;
    assert_int_equal(lg_found_new(10000, clock_now, say, NULL, &g), 0);
    assert_true(lg_found_same(f, &a) == lg_found_same(f, &b) && lg_found_same(f, &a) != lg_found_same(g, &a));
    b.ino = 1;
    assert_true(lg_found_same(f, &a) != lg_found_same(f, &b));
    lg_found_free(f);
    lg_found_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(once_in_a_window), cmocka_unit_test(everywhere), cmocka_unit_test(log_stopped), cmocka_unit_test(keyed) };
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
