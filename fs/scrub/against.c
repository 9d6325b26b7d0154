#include "against.h"

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

enum { STRANGE_MAX = 32768 }; /* then the manifest is gone through for them */

/* Something whose id does not belong here: does the manifest know it elsewhere? */
struct strange {
    uint8_t id[LG_ID_LEN];
    bool replaced; /* the manifest has another one under this path */
    bool found;
    char *lower, *path; /* path: NULL when not known */
};

struct lg_against {
    struct scrub *s;
    struct lg_manifest_reader *r, *again; /* again: for looking up */
    struct lg_item cur;
    const char *cur_path; /* NULL: at its end */
    struct strange *x;
    size_t n;
};

static int next(struct lg_against *a)
{
    int rc = lg_manifest_next(a->r, &a->cur, &a->cur_path);
    if (rc == -ENOENT) {
        a->cur_path = NULL;
        rc = 0;
    }
    return rc;
}

static void strangers_free(struct lg_against *a)
{
    for (size_t i = 0; i < a->n; i++) {
        free(a->x[i].lower);
        free(a->x[i].path);
    }
    a->n = 0;
}

void lg_against_free(struct lg_against *a)
{
    if (!a)
        return;
    strangers_free(a);
    free(a->x);
    lg_manifest_reader_free(a->r);
    lg_manifest_reader_free(a->again);
    free(a);
}

int lg_against_begin(struct scrub *s, const char *manifest, const struct lg_secret *vault_key, const char *resume, struct lg_against **ret)
{
    struct lg_against *a = calloc(1, sizeof *a);
    int rc = a && (a->x = calloc(STRANGE_MAX, sizeof *a->x)) ? 0 : -ENOMEM;
    if (!rc) {
        a->s = s;
        rc = lg_manifest_open(manifest, s->vault_id, vault_key, s->o->signer, &a->r);
    }
    if (!rc)
        rc = lg_manifest_open(manifest, s->vault_id, vault_key, s->o->signer, &a->again);
    if (!rc) {
        s->st.against_version = lg_manifest_info(a->r)->version;
        if (lg_manifest_info(a->again)->version != s->st.against_version) /* exchanged meanwhile */
            rc = -EBADMSG;
    }
    if (!rc)
        rc = next(a);
    while (!rc && resume && a->cur_path && lg_path_done(a->cur_path, resume))
        rc = next(a);
    if (rc)
        lg_against_free(a);
    else
        *ret = a;
    return rc;
}

/* A finding about another place than where the walk is. */
static int tell_at(struct scrub *s, enum lg_scrub_class cls, const char *kind, const char *lower, const char *path, const uint8_t *id, const char *other)
{
    struct lg_text was_lower = s->lower, was_path = s->path;
    bool known = s->path_known;
    s->lower = s->path = (struct lg_text){ 0 };
    int rc = *lower ? lg_text_push(&s->lower, lower) : 0;
    if (!rc && path && *path)
        rc = lg_text_push(&s->path, path);
    s->path_known = path != NULL;
    s->other = other;
    if (!rc)
        lg_scrub_find(s, cls, kind, id, 0, 0);
    s->other = NULL;
    free(s->lower.p);
    free(s->path.p);
    s->lower = was_lower;
    s->path = was_path;
    s->path_known = known;
    return rc;
}

/* The plaintext of a lower path whose last part may be gone; false: some directory on the way is. */
static bool plain_of(struct scrub *s, const char *lower, struct lg_text *out)
{
    uint8_t id[LG_ID_LEN];
    char part[LG_LOWER_NAME_MAX + 1], name[LG_PLAIN_NAME_MAX + 1];
    int fd = openat(lg_volume_rootfd(s->o->volume), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    bool ok = fd >= 0;
    while (ok && *lower) {
        size_t n = strcspn(lower, "/");
        ok = n < sizeof part && !lg_dirid_read(s->names, fd, id);
        if (!ok)
            break;
        memcpy(part, lower, n);
        part[n] = 0;
        ok = !lg_name_read(s->names, fd, id, part, name) && !lg_text_push(out, name);
        lower += n + (lower[n] == '/');
        if (!ok || !*lower)
            break;
        int sub = openat(fd, part, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        close(fd);
        fd = sub;
        ok = fd >= 0;
    }
    if (fd >= 0)
        close(fd);
    return ok;
}

static int gone(struct lg_against *a)
{
    struct lg_text path = { 0 };
    bool known = plain_of(a->s, a->cur_path, &path), has_id = a->cur.type == LG_ITEM_FILE || a->cur.type == LG_ITEM_DIR;
    int rc = tell_at(a->s, LG_SCRUB_DIFFERS, a->cur.type == LG_ITEM_DIR ? "directory is not there any more" : "is not there any more", a->cur_path, known ? lg_text(&path) : NULL,
                     has_id ? a->cur.id : NULL, NULL);
    free(path.p);
    return rc;
}

static int by_id(const void *a, const void *b) { return memcmp(((const struct strange *)a)->id, ((const struct strange *)b)->id, LG_ID_LEN); }

/* Goes through the manifest once for everything that is strange so far. */
static int look_up(struct lg_against *a)
{
    struct lg_item it;
    const char *path;
    if (!a->n)
        return 0;
    qsort(a->x, a->n, sizeof *a->x, by_id);
    int rc = lg_manifest_rewind(a->again);
    while (!rc && !(rc = lg_manifest_next(a->again, &it, &path))) {
        if (it.type != LG_ITEM_FILE && it.type != LG_ITEM_DIR)
            continue;
        struct strange key;
        memcpy(key.id, it.id, LG_ID_LEN);
        struct strange *x = bsearch(&key, a->x, a->n, sizeof *a->x, by_id);
        while (x && x > a->x && !memcmp(x[-1].id, it.id, LG_ID_LEN))
            x--;
        for (; !rc && x && x < a->x + a->n && !memcmp(x->id, it.id, LG_ID_LEN); x++) {
            if (x->found || strcmp(x->lower, path) == 0)
                continue;
            struct lg_text plain = { 0 };
            bool known = plain_of(a->s, path, &plain);
            x->found = true;
            rc = tell_at(a->s, LG_SCRUB_DIFFERS, x->replaced ? "another one stands here, the manifest has it at" : "stood elsewhere, the manifest has it at", x->lower, x->path, x->id,
                         known ? lg_text(&plain) : path);
            free(plain.p);
        }
    }
    if (rc == -ENOENT)
        rc = 0;
    for (size_t i = 0; !rc && i < a->n; i++)
        if (!a->x[i].found)
            rc = tell_at(a->s, LG_SCRUB_CHANGED, a->x[i].replaced ? "replaced by a new one" : "new", a->x[i].lower, a->x[i].path, a->x[i].id, NULL);
    strangers_free(a);
    return rc;
}

static int stranger(struct lg_against *a, const char *lower, const struct lg_item *it, bool replaced)
{
    struct strange *x = &a->x[a->n];
    if (it->type != LG_ITEM_FILE && it->type != LG_ITEM_DIR) {
        lg_scrub_find(a->s, replaced ? LG_SCRUB_DIFFERS : LG_SCRUB_CHANGED, replaced ? "something else stands here" : "new", NULL, 0, 0);
        return 0;
    }
    *x = (struct strange){ .replaced = replaced, .lower = strdup(lower), .path = a->s->path_known ? strdup(lg_text(&a->s->path)) : NULL };
    memcpy(x->id, it->id, LG_ID_LEN);
    if (!x->lower)
        return -ENOMEM;
    return ++a->n == STRANGE_MAX ? look_up(a) : 0;
}

static bool same_attributes(const struct lg_item *x, const struct lg_item *y)
{
    return x->mode == y->mode && x->uid == y->uid && x->gid == y->gid && !memcmp(x->xattrs, y->xattrs, LG_MAC_LEN) &&
           (x->type == LG_ITEM_DIR || (x->mtime_s == y->mtime_s && x->mtime_ns == y->mtime_ns));
}

static int compare(struct lg_against *a, const char *lower, const struct lg_item *now)
{
    const struct lg_item *was = &a->cur;
    struct scrub *s = a->s;
    if (now->state == LG_ITEM_DAMAGED || was->state == LG_ITEM_DAMAGED)
        return 0; /* told already; or nothing to compare with */
    if (now->type != was->type || memcmp(now->id, was->id, LG_ID_LEN) != 0)
        return stranger(a, lower, now, true);
    const uint8_t *id = now->type == LG_ITEM_LINK || now->type == LG_ITEM_OTHER ? NULL : now->id;
    if (now->seq < was->seq)
        lg_scrub_find(s, LG_SCRUB_DIFFERS, "rolled back to an older state", id, 0, 0);
    else if (now->seq > was->seq)
        lg_scrub_find(s, LG_SCRUB_CHANGED, "written since", id, 0, 0);
    else if (memcmp(now->mac, was->mac, LG_MAC_LEN) != 0)
        lg_scrub_find(s, LG_SCRUB_DIFFERS, now->type == LG_ITEM_LINK ? "another symbolic link stands here" : "another state under the same number", id, 0, 0);
    else if (!same_attributes(now, was))
        lg_scrub_find(s, LG_SCRUB_CHANGED, "mode, owner, time or attributes are others", id, 0, 0);
    return 0;
}

int lg_against_item(struct lg_against *a, const char *lower, const struct lg_item *it)
{
    int rc = 0;
    while (!rc && a->cur_path && lg_path_cmp(a->cur_path, lower) < 0) {
        rc = gone(a);
        if (!rc)
            rc = next(a);
    }
    if (rc)
        return rc;
    if (!a->cur_path || lg_path_cmp(a->cur_path, lower) != 0)
        return stranger(a, lower, it, false);
    rc = compare(a, lower, it);
    return rc ? rc : next(a);
}

int lg_against_end(struct lg_against *a)
{
    int rc = 0;
    while (!rc && a->cur_path) {
        rc = gone(a);
        if (!rc)
            rc = next(a);
    }
    return rc ? rc : look_up(a);
}
