#include <stdlib.h>
#include <string.h>

#include "internal.h"

/* Shorter than this nothing is a DICOM file (PS3.10: preamble and prefix), and what it says is no secret of a study. */
#define TOO_SHORT 132u

int lg_wrap_of(struct lg_kref *kref, struct lg_siv **ret, struct lg_siv **ret_own)
{
    struct lg_siv *w = atomic_load(&kref->wrap);
    bool kept = w != NULL;
    int rc = w ? 0 : lg_filekey_wrap(kref->key, &w);
    if (rc)
        return rc;
    if (!kept)
        kept = lg_kref_keep_wrap(kref, w);
    *ret = w;
    *ret_own = kept ? NULL : w;
    return 0;
}

static int key_make(struct lg_kref *kref, const struct lg_s0 *s0, struct lg_filekey **ret)
{
    struct lg_siv *wrap, *own;
    int rc = lg_wrap_of(kref, &wrap, &own);
    if (rc)
        return rc;
    rc = lg_filekey_make_with(wrap, kref->kid, kref->version, s0, ret);
    lg_siv_free(own);
    return rc;
}

int lg_key_use(struct lg_file *f, struct lg_kref *kref)
{
    struct lg_filekey *k = f->spare;
    if (!k || k->key_version != kref->version || memcmp(k->kid, kref->kid, LG_ID_LEN) != 0) {
        int rc = key_make(kref, &f->s0, &k);
        if (rc)
            return rc;
        lg_filekey_free(f->spare);
    }
    f->spare = NULL;
    lg_filekey_free(f->key);
    f->key = k;
    f->chunk_writes = 0;
    memset(f->acc, 0, sizeof f->acc); /* no entry is left that another key sealed */
    memcpy(f->kid, k->kid, LG_ID_LEN);
    f->key_version = k->key_version;
    f->provisional = kref->kind == LG_KIND_PROVISIONAL;
    f->general = kref->kind == LG_KIND_GENERAL;
    return 0;
}

static int use(struct lg_file *f, struct lg_kref *kref)
{
    int rc = lg_key_use(f, kref);
    lg_kref_unref(kref);
    return rc;
}

static int use_study(struct lg_file *f, const struct lg_study_info *info)
{
    struct lg_kref *kref;
    int rc = lg_keys_study(f->env->keys, info, &kref);
    return rc ? rc : use(f, kref);
}

static int use_general(struct lg_file *f)
{
    struct lg_study_info info;
    struct lg_kref *kref;
    if (f->env->path_rule && f->env->path_rule(f->env->arg, f->path, &info) == 0)
        return use_study(f, &info);
    int rc = lg_keys_general(f->env->keys, &kref);
    return rc ? rc : use(f, kref);
}

static int use_provisional(struct lg_file *f)
{
    struct lg_kref *kref;
    int rc = lg_keys_provisional(f->env->keys, &kref);
    return rc ? rc : use(f, kref);
}

static void end(struct lg_file *f)
{
    f->decided = f->fed;
    lg_classifier_free(f->cls);
    f->cls = NULL;
    f->fed = 0;
}

/* The first bytes went under the general key while they told nothing: all of them are in chunk 0, which is sealed anew. */
static int rekey_short(struct lg_file *f)
{
    struct lg_ochunk *c;
    int rc = lg_o_get(f, 0, true, &c);
    if (rc)
        return rc;
    return lg_entries_clear(f, 0, 1);
}

static int decided(struct lg_file *f, enum lg_class what)
{
    int rc = 0;
    lg_file_slow(f); /* the key manager may have to be asked */
    if (what == LG_CLASS_STUDY && f->provisional) {
        rc = lg_keys_attach(f->env->keys, f->kid, lg_classifier_info(f->cls));
        if (rc == -EEXIST) { /* it was, before it was opened again, to what stood there then */
            lg_file_report(f, "bytes that decided the study were rewritten", 0, f->fed);
            rc = 0;
        }
    } else if (what == LG_CLASS_STUDY) {
        if (f->key)
            rc = rekey_short(f);
        if (!rc)
            rc = use_study(f, lg_classifier_info(f->cls));
    } else if (!f->key) {
        rc = use_general(f);
    }
    if (!rc)
        end(f);
    return rc;
}

/* Feeds what the file holds up to `to`, holes as zeros. */
static int feed(struct lg_file *f, struct lg_classifier *c, uint64_t *fed, uint64_t to, bool final, enum lg_class *ret)
{
    enum lg_class what = LG_CLASS_MORE;
    uint32_t cs = f->env->chunk_size;
    uint8_t *chunk = *fed < to ? malloc(cs) : NULL;
    int rc = *fed < to && !chunk ? -ENOMEM : 0;
    while (!rc && *fed < to && what == LG_CLASS_MORE && *fed < LG_CLASSIFY_MAX) {
        uint64_t at = *fed % cs;
        size_t n = to - *fed < cs - at ? (size_t)(to - *fed) : (size_t)(cs - at);
        rc = lg_chunk_load(f, *fed / cs, chunk);
        if (rc)
            break;
        what = lg_classifier_feed(c, chunk + at, n, final && *fed + n == to);
        *fed += n;
    }
    if (chunk)
        lg_wipe(chunk, cs);
    free(chunk);
    if (!rc && what == LG_CLASS_MORE && final)
        what = lg_classifier_feed(c, NULL, 0, true);
    *ret = what;
    return rc;
}

bool lg_unsettled(enum lg_key_kind kind, uint64_t size) { return kind == LG_KIND_PROVISIONAL || (kind == LG_KIND_GENERAL && size && size < TOO_SHORT); }

int lg_decide_write(struct lg_file *f, const void *buf, size_t len, uint64_t off)
{
    int rc = 0;
    if (f->size == 0 && f->key && !f->cls) { /* an empty file is whatever its first bytes make it */
        if (f->chunk_writes)
            lg_filekey_free(f->key);
        else
            f->spare = f->key; /* it will do, if it comes to the same key above it */
        f->key = NULL;
        f->provisional = false;
    }
    if (!f->cls) {
        rc = lg_classifier_new(&f->cls);
        f->fed = 0;
        f->decided = 0;
        f->decided_reported = false;
        f->unsettled = false;
    }
    if (rc)
        return rc;
    enum lg_class what = LG_CLASS_MORE;
    if (off <= f->fed || f->fed < f->size) {
        if (f->fed < off)
            rc = feed(f, f->cls, &f->fed, off < f->size ? off : f->size, false, &what);
        if (!rc && what == LG_CLASS_MORE && f->fed >= off && f->fed < off + len) {
            what = lg_classifier_feed(f->cls, (const uint8_t *)buf + (f->fed - off), (size_t)(off + len - f->fed), false);
            f->fed = off + len;
        }
    }
    if (what == LG_CLASS_MORE && f->fed >= LG_CLASSIFY_MAX)
        what = LG_CLASS_GENERAL;
    if (rc == -EBADMSG && f->key) { /* damaged, which is told: what is added stays under the key that it has */
        end(f);
        return 0;
    }
    if (rc) {
        ;
    } else if (what != LG_CLASS_MORE) {
        rc = decided(f, what);
    } else if (!f->key && f->n_o_dirty * (uint64_t)f->env->chunk_size > LG_UNDECIDED_MAX) {
        lg_file_slow(f);
        rc = use_provisional(f); /* goes on deciding */
    }
    if (rc) { /* asked again by the next write, from the beginning */
        lg_classifier_free(f->cls);
        f->cls = NULL;
        f->fed = 0;
        f->unsettled = f->key != NULL;
    }
    return rc;
}

int lg_decide_commit(struct lg_file *f)
{
    struct lg_classifier *probe = NULL;
    uint64_t fed = 0;
    int rc = 0;
    if (f->size == 0) {
        lg_classifier_free(f->cls);
        f->cls = NULL;
        f->fed = 0;
        return f->key ? 0 : use_general(f);
    }
    if (!lg_undecided(f) || (f->key && f->size < TOO_SHORT))
        return 0;
    if (f->key) {
        rc = rekey_short(f);
        if (rc)
            return rc;
        lg_filekey_free(f->key);
        f->key = NULL;
    }
    enum lg_class what;
    if (!f->cls) { /* grown only, or its key was refused when it was written: what it holds decides */
        rc = lg_classifier_new(&f->cls);
        f->fed = 0;
    }
    if (!rc)
        rc = feed(f, f->cls, &f->fed, f->size, false, &what);
    if (rc)
        return rc;
    if (what != LG_CLASS_MORE)
        return decided(f, what);
    rc = lg_classifier_new(&probe); /* as if the file ended here */
    if (rc)
        return rc;
    rc = feed(f, probe, &fed, f->size, true, &what);
    if (rc) {
        ;
    } else if (what == LG_CLASS_STUDY) {
        rc = use_study(f, lg_classifier_info(probe));
        if (!rc)
            end(f);
    } else if (f->size < TOO_SHORT) {
        rc = use_general(f);
    } else {
        rc = use_provisional(f); /* looks like DICOM so far: more bytes will tell */
    }
    lg_classifier_free(probe);
    return rc;
}
