#include <stdlib.h>

#include "internal.h"

int lg_text_push(struct lg_text *t, const char *part)
{
    size_t n = strlen(part), need = t->len + n + 2;
    if (need > t->cap) {
        char *p = realloc(t->p, need * 2);
        if (!p)
            return -ENOMEM;
        t->p = p;
        t->cap = need * 2;
    }
    if (t->len)
        t->p[t->len++] = '/';
    memcpy(t->p + t->len, part, n + 1);
    t->len += n;
    return 0;
}

void lg_text_cut(struct lg_text *t, size_t len)
{
    t->len = len;
    if (t->p)
        t->p[len] = 0;
}

const char *lg_text(const struct lg_text *t) { return t->p && t->len ? t->p : ""; }
