/* How many new studies a second the key manager makes durable: keyd_bench CLIENTS SECONDS, against the key manager at LEADGLASS_SOCKET. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "leadglass/client.h"
#include "leadglass/crypto.h"

static atomic_bool stop;
static atomic_ulong made;

static void *client(void *arg)
{
    struct lg_client *c;
    if (lg_client_new(NULL, &c))
        exit(1);
    for (unsigned long i = 0; !atomic_load(&stop); i++) {
        struct lg_study_info info = { .modality = "CT" };
        struct lg_key key;
        unsigned lease;
        snprintf(info.uid, sizeof info.uid, "1.2.%ld.%lu.%lu", (long)time(NULL), (unsigned long)(uintptr_t)arg, i);
        int rc = lg_client_study_key(c, &info, &key, &lease);
        if (rc) {
            fprintf(stderr, "keyd_bench: %s\n", strerror(-rc));
            exit(1);
        }
        lg_secret_free(key.key);
        atomic_fetch_add(&made, 1);
    }
    lg_client_free(c);
    return NULL;
}

int main(int argc, char **argv)
{
    enum { MAX = 128 };
    pthread_t t[MAX];
    unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 16, s = argc > 2 ? strtoul(argv[2], NULL, 10) : 5;
    if (n < 1 || n > MAX || s < 1 || lg_secret_init(true) || lg_crypto_init())
        return 2;
    for (unsigned long i = 0; i < n; i++)
        if (pthread_create(&t[i], NULL, client, (void *)(uintptr_t)i))
            return 1;
    struct timespec d = { (time_t)s, 0 };
    nanosleep(&d, NULL);
    unsigned long total = atomic_load(&made);
    atomic_store(&stop, true);
    for (unsigned long i = 0; i < n; i++)
        pthread_join(t[i], NULL);
    printf("%lu clients: %lu new studies/s\n", n, total / s);
    return 0;
}
