/* The keyring alone at a given number of studies, as docs/PERFORMANCE.md reports it: keyring_bench DIR STUDIES (default a million). One that a run before this left
 * there, ended or interrupted, is measured as it is. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>

#include "leadglass/crypto.h"
#include "leadglass/keyring.h"

enum { BATCH = 2000, LOOKUPS = 20000, VICTIMS = 16 };

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void must(int rc, const char *what)
{
    if (!rc)
        return;
    fprintf(stderr, "%s: %s\n", what, strerror(-rc));
    exit(1);
}

static void name(char uid[LG_UID_MAX + 1], unsigned long i) { snprintf(uid, LG_UID_MAX + 1, "1.2.840.113619.2.55.3.%lu", i); }

static void fill(struct lg_keyring *k, unsigned long n)
{
    for (unsigned long i = 0; i < n; i++) {
        struct lg_study_info info = { .accession = "A1", .date = "20240131", .modality = "CT" };
        struct lg_key key;
        bool created;
        name(info.uid, i);
        snprintf(info.patient_id, sizeof info.patient_id, "PATIENT-%09lu", i / 4);
        if (i % BATCH == 0)
            must(lg_keyring_begin(k), "begin");
        must(lg_keyring_study_key(k, &info, &key, &created), "study");
        lg_secret_free(key.key);
        if (i % BATCH == BATCH - 1 || i == n - 1)
            must(lg_keyring_commit(k), "commit");
    }
}

static void lookups(struct lg_keyring *k, unsigned long n)
{
    static double took[LOOKUPS];
    for (unsigned i = 0; i < LOOKUPS; i++) {
        char uid[LG_UID_MAX + 1];
        struct lg_key key;
        name(uid, (unsigned long)i * 2654435761u % n);
        double t = now_ms();
        int rc = lg_keyring_study_find(k, uid, &key);
        took[i] = now_ms() - t;
        if (rc != -EKEYREVOKED) { /* an earlier run destroyed some */
            must(rc, "find");
            lg_secret_free(key.key);
        }
    }
    qsort(took, LOOKUPS, sizeof *took, by_value);
    printf("lookup            p50 %.1f us, p99 %.1f us\n", took[LOOKUPS / 2] * 1e3, took[LOOKUPS * 99 / 100] * 1e3);
}

static void list(struct lg_keyring *k)
{
    struct lg_study *s = calloc(64, sizeof *s);
    uint8_t after[LG_ID_LEN];
    unsigned long all = 0;
    unsigned n = 1;
    double t = now_ms();
    for (bool first = true; s && n; first = false) {
        must(lg_keyring_studies(k, first ? NULL : after, s, 64, &n), "list");
        all += n;
        if (n)
            memcpy(after, s[n - 1].kid, LG_ID_LEN);
    }
    printf("list all          %.0f ms for %lu\n", now_ms() - t, all);
    free(s);
}

static void revoke(struct lg_keyring *k, unsigned long from, unsigned count)
{
    uint8_t kids[4][LG_ID_LEN];
    unsigned n;
    double t = now_ms();
    must(lg_keyring_begin(k), "begin");
    for (unsigned i = 0; i < count; i++) {
        char uid[LG_UID_MAX + 1];
        name(uid, from + i);
        must(lg_keyring_revoke(k, uid, "measured", 0, kids, 4, &n), "revoke");
    }
    must(lg_keyring_commit(k), "commit");
    must(lg_keyring_destroy(k, &n), "destroy");
    printf("destroy %-3u       %.1f ms\n", count, now_ms() - t);
}

int main(int argc, char **argv)
{
    unsigned long n = argc > 2 ? strtoul(argv[2], NULL, 10) : 1000000;
    char dir[4000], slot[4096];
    struct lg_keyring *k;
    struct lg_roots roots;
    struct lg_keyring_stat st;
    struct rusage ru;
    if (argc < 2 || lg_secret_init(true) || lg_crypto_init()) {
        fputs("usage: keyring_bench DIR [STUDIES]   (DIR must exist; DIR/bench and DIR/bench.root are made)\n", stderr);
        return 2;
    }
    snprintf(dir, sizeof dir, "%.3900s/bench", argv[1]);
    snprintf(slot, sizeof slot, "%s.root", dir);
    int rc = lg_keyring_create(dir, slot, "bench", 5, 0);
    if (rc != -EEXIST)
        must(rc, dir);
    must(lg_keyring_open(dir, slot, NULL, &k), "open");
    must(lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, "bench", 5, &roots), "unlock");
    must(lg_keyring_unlock(k, &roots), "unlock");
    double t = now_ms();
    if (rc) {
        must(lg_keyring_stat(k, &st), "stat");
        n = st.studies + st.destroyed;
        printf("there already     %lu studies\n", n);
    } else {
        fill(k, n);
        printf("new studies       %.0f a second\n", (double)n / (now_ms() - t) * 1e3);
    }
    lg_keyring_close(k);
    t = now_ms();
    must(lg_keyring_open(dir, slot, NULL, &k), "open");
    printf("open, every page  %.0f ms\n", now_ms() - t);
    t = now_ms();
    must(lg_keyring_unlock(k, &roots), "unlock");
    printf("unlock            %.1f ms after the passphrase's derivation\n", now_ms() - t);
    lg_roots_done(&roots);
    lookups(k, n);
    list(k);
    for (unsigned i = 0; i < 3; i++) {
        t = now_ms();
        must(lg_keyring_rotate_root(k), "rotate");
        printf("new root          %.1f ms\n", now_ms() - t);
    }
    must(lg_keyring_stat(k, &st), "stat");
    unsigned long from = n / 2 + st.destroyed;
    revoke(k, from, 1), revoke(k, from + 1, 1), revoke(k, from + 2, VICTIMS);
    must(lg_keyring_stat(k, &st), "stat");
    getrusage(RUSAGE_SELF, &ru);
    printf("file              %.0f MiB, %.0f bytes a study\nresident at most  %ld MiB (pages of the file included)\n", (double)st.file_bytes / 1048576, (double)st.file_bytes / (double)n,
           ru.ru_maxrss / 1024);
    lg_keyring_close(k);
    return 0;
}
