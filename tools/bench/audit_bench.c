/* How many opens a second can be recorded. audit_bench log DIR THREADS OPENS WINDOW: straight into a log (a mount's, in shared memory and on disk), then verifies it.
 * audit_bench open FILE THREADS SECONDS: opens and closes a file of a mount. */
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "leadglass/audit.h"

enum { THREADS_MAX = 64 };

static struct lg_audit_log *l;
static const char *file;
static unsigned long per;
static unsigned window;
static _Atomic bool stop;
static _Atomic unsigned long done, refused;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void *record(void *arg)
{
    static _Thread_local struct lg_audit_record r;
    for (unsigned long i = 0; i < per; i++) {
        if (lg_audit_ready(l)) {
            atomic_fetch_add(&refused, 1);
            continue;
        }
        lg_audit_record_init(&r);
        snprintf(r.event, sizeof r.event, "file.open");
        snprintf(r.how, sizeof r.how, "read");
        snprintf(r.exe, sizeof r.exe, "/usr/sbin/Orthanc");
        r.has = LG_AUDIT_WHO | LG_AUDIT_STUDY | LG_AUDIT_FILE;
        r.pid = 100 + (int)(intptr_t)arg;
        unsigned long study = i / 100;
        memcpy(r.study, &study, sizeof study);
        lg_audit_count(l, &r, NULL, NULL);
    }
    return NULL;
}

static void *open_close(void *arg)
{
    (void)arg;
    while (!atomic_load(&stop)) {
        int fd = open(file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            atomic_fetch_add(&refused, 1);
        else
            close(fd);
        atomic_fetch_add(&done, 1);
    }
    return NULL;
}

static void run(void *(*f)(void *), long threads, unsigned seconds)
{
    pthread_t t[THREADS_MAX];
    for (long i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, f, (void *)i))
            abort();
    if (seconds)
        sleep(seconds);
    atomic_store(&stop, true);
    for (long i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
}

static int bench_log(const char *dir, long threads)
{
    struct lg_audit_options o = { .dir = dir, .name = "mount-bench", .kind = "mount", .window_s = window };
    struct lg_audit_chain c;
    struct lg_audit_report r;
    if (lg_secret_init(true) || lg_crypto_init() || lg_audit_open(&o, NULL, &l)) {
        fputs("the log cannot be opened\n", stderr);
        return 1;
    }
    double begun = now();
    run(record, threads, 0);
    double put = now() - begun;
    int rc = lg_audit_flush(l, true);
    double durable = now() - begun, n = (double)per * (double)threads;
    lg_audit_close(l);
    printf("%.0f opens/s recorded, %.0f/s with everything durable at the end; %lu refused\n", n / put, n / durable, atomic_load(&refused));
    begun = now();
    if (rc || lg_audit_find(dir, "mount-bench", &c) || lg_audit_verify(dir, &c, NULL, NULL, 0, &r))
        return 1;
    printf("verified: %s, %llu records in %.2f s\n", lg_audit_verdict_name(r.verdict), (unsigned long long)r.records, now() - begun);
    return 0;
}

int main(int argc, char **argv)
{
    long threads = argc > 3 ? strtol(argv[3], NULL, 10) : 0;
    if (argc < 5 || threads < 1 || threads > THREADS_MAX) {
        fputs("usage: audit_bench log DIR THREADS OPENS [WINDOW] | open FILE THREADS SECONDS\n", stderr);
        return 2;
    }
    per = strtoul(argv[4], NULL, 10);
    window = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) : 0;
    if (strcmp(argv[1], "log") == 0)
        return bench_log(argv[2], threads);
    file = argv[2];
    run(open_close, threads, (unsigned)per);
    printf("%.0f opens/s, %lu refused\n", (double)atomic_load(&done) / (double)per, atomic_load(&refused));
    return 0;
}
