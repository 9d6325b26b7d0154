#include <pthread.h>
#include <stdlib.h>

#include "leadglass/pool.h"

struct scratch {
    size_t len;
    uint8_t *b;
};

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void scratch_free(void *p)
{
    struct scratch *s = p;
    free(s->b);
    free(s);
}

static void key_init(void)
{
    if (pthread_key_create(&key, scratch_free))
        abort();
}

uint8_t *lg_scratch(size_t len)
{
    enum { ALIGN = 4096 };
    pthread_once(&once, key_init);
    struct scratch *s = pthread_getspecific(key);
    void *b;
    if (s && s->len >= len)
        return s->b;
    if (!s) {
        s = calloc(1, sizeof *s);
        if (!s || pthread_setspecific(key, s)) {
            free(s);
            return NULL;
        }
    }
    if (posix_memalign(&b, ALIGN, len))
        return NULL;
    free(s->b);
    s->b = b;
    s->len = len;
    return b;
}
