/* workload DIR OPERATION STUDIES SLICES BYTES THREADS [AT]: an imaging archive's traffic. Studies are folders of slices; create writes each slice under a
 * temporary name in 64 KiB pieces and renames it, read and head (its first 16 KiB) check what they get, stat checks the size. Prints files/s=N.
 * AT: where in its page the memory begins that is read into and written from, 16 if it is not said: where malloc puts what is large. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { THREADS_MAX = 64, PAGE = 4096, WRITE_PIECE = 64 * 1024, READ_PIECE = 256 * 1024, HEAD = 16 * 1024 };

static const char *dir;
static long studies, slices, threads, buffer_at = 16;
static size_t bytes;
static atomic_long next_slice;
static void (*operation)(const char *path, long number, unsigned char *buf);

static void die(const char *what, const char *path)
{
    fprintf(stderr, "workload: %s %s: %s\n", what, path, strerror(errno));
    exit(1);
}

static void create(const char *path, long number, unsigned char *buf)
{
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.part", path);
    int fd = open(temporary, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0)
        die("create", temporary);
    memcpy(buf, &number, sizeof number);
    for (size_t at = 0; at < bytes;) {
        ssize_t n = write(fd, buf + at, bytes - at < WRITE_PIECE ? bytes - at : WRITE_PIECE);
        if (n <= 0)
            die("write", temporary);
        at += (size_t)n;
    }
    if (close(fd) || rename(temporary, path))
        die("finish", temporary);
}

static void read_some(const char *path, long number, unsigned char *buf, size_t want)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        die("open", path);
    for (size_t at = 0; at < want;) {
        ssize_t n = read(fd, buf + at, want - at < READ_PIECE ? want - at : READ_PIECE);
        if (n <= 0)
            die("read", path);
        at += (size_t)n;
    }
    close(fd);
    if (memcmp(buf, &number, sizeof number) != 0)
        die("wrong content in", path);
}

static void read_all(const char *path, long number, unsigned char *buf) { read_some(path, number, buf, bytes); }
static void head(const char *path, long number, unsigned char *buf) { read_some(path, number, buf, bytes < HEAD ? bytes : HEAD); }

static void check_size(const char *path, long number, unsigned char *buf)
{
    struct stat st;
    (void)number, (void)buf;
    if (stat(path, &st) || (size_t)st.st_size != bytes)
        die("stat", path);
}

static void delete(const char *path, long number, unsigned char *buf)
{
    (void)number, (void)buf;
    if (unlink(path))
        die("unlink", path);
}

static void study_path(char *out, size_t cap, long study) { snprintf(out, cap, "%s/1.2.840.%ld", dir, study); }

static void *run(void *arg)
{
    char study[3072], path[4000];
    unsigned char *pages = aligned_alloc(PAGE, (bytes + 2 * PAGE) / PAGE * PAGE), *buf = pages + buffer_at;
    (void)arg;
    if (!pages)
        die("memory", "");
    memset(buf, 0xa5, bytes);
    for (long i; (i = atomic_fetch_add(&next_slice, 1)) < studies * slices;) {
        study_path(study, sizeof study, i / slices);
        snprintf(path, sizeof path, "%s/IMG%06ld.dcm", study, i % slices);
        operation(path, i, buf);
    }
    free(pages);
    return NULL;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(const char *, long, unsigned char *);
    } operations[] = { { "create", create }, { "read", read_all }, { "head", head }, { "stat", check_size }, { "unlink", delete } };
    struct timespec a, b;
    pthread_t t[THREADS_MAX];
    for (size_t i = 0; (argc == 7 || argc == 8) && i < sizeof operations / sizeof *operations; i++)
        if (strcmp(operations[i].name, argv[2]) == 0)
            operation = operations[i].run;
    if (!operation) {
        fputs("usage: workload DIR create|read|head|stat|unlink STUDIES SLICES BYTES THREADS [AT]\n", stderr);
        return 2;
    }
    dir = argv[1];
    studies = strtol(argv[3], NULL, 10);
    slices = strtol(argv[4], NULL, 10);
    bytes = strtoul(argv[5], NULL, 10);
    threads = strtol(argv[6], NULL, 10);
    if (argc == 8)
        buffer_at = strtol(argv[7], NULL, 10);
    if (buffer_at < 0 || buffer_at > PAGE || threads < 1 || threads > THREADS_MAX || bytes < sizeof(long))
        return 2;
    for (long s = 0; operation == create && s < studies; s++) {
        char path[3072];
        study_path(path, sizeof path, s);
        if (mkdir(path, 0755) && errno != EEXIST)
            die("mkdir", path);
    }
    clock_gettime(CLOCK_MONOTONIC, &a);
    for (long i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, run, NULL))
            die("thread", "");
    for (long i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    clock_gettime(CLOCK_MONOTONIC, &b);
    double seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / 1e9;
    printf("files/s=%.1f\n", (double)(studies * slices) / seconds);
    return 0;
}
