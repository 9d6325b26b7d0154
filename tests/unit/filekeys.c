#include "filekeys.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "leadglass/classify.h"
#include "leadglass/journal.h"

static int key_of(struct lg_keys *k, uint8_t tag, enum lg_key_kind kind, uint32_t version, struct lg_kref **ret)
{
    if (k->locked)
        return k->locked;
    struct lg_kref *r = calloc(1, sizeof *r);
    assert_non_null(r);
    memset(r->kid, tag, LG_ID_LEN);
    r->version = version;
    r->kind = kind;
    r->key = lg_secret_new();
    memset(r->key->b, tag, LG_KEY_LEN);
    r->key->b[0] ^= (uint8_t)(version - 1);
    *ret = r;
    return 0;
}
static int key_for(struct lg_keys *k, uint8_t tag, enum lg_key_kind kind, struct lg_kref **ret) { return key_of(k, tag, kind, k->rotated + 1, ret); }
void lg_kref_unref(struct lg_kref *r)
{
    lg_siv_free(r->wrap);
    lg_secret_free(r->key);
    free(r);
}
bool lg_kref_keep_wrap(struct lg_kref *r, struct lg_siv *wrap)
{
    if (r->kind == LG_KIND_PROVISIONAL) /* as when many are kept */
        return false;
    r->wrap = wrap;
    return true;
}
int lg_keys_general(struct lg_keys *k, struct lg_kref **ret) { return key_for(k, 'g', LG_KIND_GENERAL, ret); }
int lg_keys_provisional(struct lg_keys *k, struct lg_kref **ret) { return key_for(k, 'p', LG_KIND_PROVISIONAL, ret); }
int lg_keys_attach(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    (void)kid, (void)info;
    k->attached += !k->locked;
    return k->locked;
}
int lg_keys_study(struct lg_keys *k, const struct lg_study_info *info, struct lg_kref **ret)
{
    (void)info;
    k->asked_study++;
    if (k->refuse_study)
        return k->refuse_study;
    return key_for(k, 's', LG_KIND_STUDY, ret);
}
int lg_keys_by_id(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_kref **ret)
{
    return key_of(k, kid[0], kid[0] == 'p' ? LG_KIND_PROVISIONAL : kid[0] == 'g' ? LG_KIND_GENERAL : LG_KIND_STUDY, version, ret);
}

/* ---- a classifier that knows "STUDY" and wants 200 bytes before it gives up --------------------------------------------------- */
struct lg_classifier {
    char seen[512];
    size_t n;
    struct lg_study_info info;
};
int lg_classifier_new(struct lg_classifier **ret)
{
    *ret = calloc(1, sizeof **ret);
    return *ret ? 0 : -ENOMEM;
}
void lg_classifier_free(struct lg_classifier *c) { free(c); }
enum lg_class lg_classifier_feed(struct lg_classifier *c, const void *data, size_t len, bool final)
{
    size_t n = len < sizeof c->seen - c->n ? len : sizeof c->seen - c->n;
    if (n)
        memcpy(c->seen + c->n, data, n);
    c->n += n;
    if (c->n && c->seen[0] != 'D')
        return LG_CLASS_GENERAL;
    if (memmem(c->seen, c->n, "STUDY", 5)) {
        strcpy(c->info.uid, "1.2");
        return LG_CLASS_STUDY;
    }
    return final || c->n >= 400 ? LG_CLASS_GENERAL : LG_CLASS_MORE;
}
const struct lg_study_info *lg_classifier_info(const struct lg_classifier *c) { return &c->info; }

void filedir_make(struct filedir *d, struct lg_file_env *env)
{
    strcpy(d->path, "/tmp/lgfile-XXXXXX");
    if (!mkdtemp(d->path) || (d->fd = open(d->path, O_RDONLY | O_DIRECTORY)) < 0 || lg_journal_create(env->sys, d->fd, env->vault_id) ||
        lg_journal_open(env->sys, d->fd, env->vault_id, false, &env->journal))
        abort();
}

int filedir_remove(struct filedir *d, struct lg_file_env *env)
{
    int rc = lg_journal_close(env->journal);
    unlinkat(d->fd, "f", 0);
    unlinkat(d->fd, LG_JOURNAL_NAME, 0);
    close(d->fd);
    return rc ? rc : rmdir(d->path);
}
