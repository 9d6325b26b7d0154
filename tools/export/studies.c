#include "studies.h"

#include <search.h>
#include <stdlib.h>
#include <string.h>

struct name {
    uint8_t kid[LG_ID_LEN];
    char text[]; /* UID, NUL, patient, NUL */
};
struct lg_studies {
    struct lg_client *k;
    void *tree;
};

static int by_kid(const void *a, const void *b) { return memcmp(a, b, LG_ID_LEN); } /* kid stands first */

int lg_studies_new(struct lg_client *k, struct lg_studies **ret)
{
    struct lg_studies *n = calloc(1, sizeof *n);
    if (!n)
        return -ENOMEM;
    n->k = k;
    *ret = n;
    return 0;
}

void lg_studies_free(struct lg_studies *n)
{
    if (n)
        tdestroy(n->tree, free);
    free(n);
}

static int add(void *arg, const struct lg_study *s)
{
    struct lg_studies *n = arg;
    size_t u = strlen(s->info.uid) + 1, p = strlen(s->info.patient_id) + 1;
    if (!s->info.uid[0]) /* destroyed: what is remembered of it is all there is */
        return 0;
    struct name *x = malloc(sizeof *x + u + p);
    if (!x)
        return -ENOMEM;
    memcpy(x->kid, s->kid, LG_ID_LEN);
    memcpy(x->text, s->info.uid, u);
    memcpy(x->text + u, s->info.patient_id, p);
    struct name **there = tsearch(x, &n->tree, by_kid);
    if (there && *there != x) {
        free(*there);
        *there = x;
    }
    if (!there)
        free(x);
    return there ? 0 : -ENOMEM;
}

int lg_studies_fill(struct lg_studies *n) { return lg_client_study_list(n->k, add, n); }

int lg_studies_of(struct lg_studies *n, const uint8_t kid[LG_ID_LEN], const char **ret_uid, const char **ret_patient)
{
    struct name **x = tfind(kid, &n->tree, by_kid);
    struct lg_study *s = x ? NULL : malloc(sizeof *s);
    int rc = x ? 0 : s ? lg_client_study_by_kid(n->k, kid, s) : -ENOMEM;
    if (!rc && !x)
        rc = add(n, s);
    free(s);
    if (rc && rc != -ENOENT)
        return rc;
    x = tfind(kid, &n->tree, by_kid);
    *ret_uid = x ? (*x)->text : "";
    *ret_patient = x ? (*x)->text + strlen((*x)->text) + 1 : "";
    return 0;
}

void lg_studies_forget(struct lg_studies *n, const uint8_t kid[LG_ID_LEN])
{
    struct name **x = tfind(kid, &n->tree, by_kid), *gone = x ? *x : NULL;
    if (gone)
        tdelete(kid, &n->tree, by_kid);
    free(gone);
}
