#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"

struct lg_suspects {
    pthread_mutex_t mu;
    uint8_t (*id)[LG_ID_LEN];
    size_t n, cap;
    bool all; /* there was no memory to say which */
    atomic_bool any; /* each open and close asks for one, and hardly ever there is one */
};

struct lg_suspects *lg_suspects_new(void)
{
    struct lg_suspects *s = calloc(1, sizeof *s);
    if (s)
        pthread_mutex_init(&s->mu, NULL);
    return s;
}

void lg_suspects_free(struct lg_suspects *s)
{
    if (!s)
        return;
    pthread_mutex_destroy(&s->mu);
    free(s->id);
    free(s);
}

static size_t find_locked(const struct lg_suspects *s, const uint8_t id[LG_ID_LEN])
{
    size_t i = 0;
    while (i < s->n && memcmp(s->id[i], id, LG_ID_LEN) != 0)
        i++;
    return i;
}

void lg_suspects_add(struct lg_suspects *s, const uint8_t id[LG_ID_LEN])
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mu);
    if (find_locked(s, id) == s->n) {
        if (s->n == s->cap) {
            size_t cap = s->cap ? s->cap * 2 : 16;
            void *p = reallocarray(s->id, cap, LG_ID_LEN);
            if (p) {
                s->id = p;
                s->cap = cap;
            } else {
                s->all = true;
            }
        }
        if (s->n < s->cap)
            memcpy(s->id[s->n++], id, LG_ID_LEN);
        atomic_store(&s->any, true);
    }
    pthread_mutex_unlock(&s->mu);
}

void lg_suspects_drop(struct lg_suspects *s, const uint8_t id[LG_ID_LEN])
{
    if (!s)
        return;
    pthread_mutex_lock(&s->mu);
    size_t i = find_locked(s, id);
    if (i < s->n)
        memcpy(s->id[i], s->id[--s->n], LG_ID_LEN);
    atomic_store(&s->any, s->all || s->n);
    pthread_mutex_unlock(&s->mu);
}

void lg_suspects_gone(const struct lg_file_env *env, int fd)
{
    uint8_t head[LG_SECTOR];
    struct lg_s0 s0;
    if (lg_sys_read_full(env->sys, fd, head, sizeof head, 0) == (ssize_t)sizeof head && !lg_s0_decode(head, &s0))
        lg_suspects_drop(env->suspects, s0.file_id);
}

bool lg_suspects_has(struct lg_suspects *s, const uint8_t id[LG_ID_LEN])
{
    if (!lg_suspects_any(s))
        return false;
    pthread_mutex_lock(&s->mu);
    bool has = s->all || find_locked(s, id) < s->n;
    pthread_mutex_unlock(&s->mu);
    return has;
}

bool lg_suspects_any(struct lg_suspects *s) { return s && atomic_load(&s->any); }
