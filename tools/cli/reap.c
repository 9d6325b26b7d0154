/* leadglass study reap: what is left of a destroyed study in a vault: its files, which nobody can read, their names, the symbolic links to them and directories that are
 * empty then. By the key ids in the files' headers, through the mount, while it is in use; no key of the study is needed. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/format.h"
#include "leadglass/names.h"
#include "leadglass/volume.h"

struct found { /* a name of one of its files, or a link that leads to one */
    char *path;
    uint8_t kid[LG_ID_LEN], study[LG_ID_LEN];
    ino_t ino;
    unsigned long long bytes; /* of ciphertext */
};
struct list {
    struct found *v;
    size_t n, cap;
};

struct work {
    const struct cli *c;
    const char *top;
    uint32_t chunk_size;
    struct lg_kid_pair *pair; /* ascending by kid */
    size_t n_pairs, cap_pairs;
    struct list files, links;
    bool tty;
    double shown;
    unsigned long long seen, removed, links_removed, dirs_removed, failed;
    int rc; /* what ended looking */
};

static int grow(void **v, size_t n, size_t *cap, size_t one)
{
    if (n < *cap)
        return 0;
    size_t more = *cap ? 2 * *cap : 256;
    void *p = reallocarray(*v, more, one);
    if (!p)
        return -ENOMEM;
    *v = p;
    *cap = more;
    return 0;
}

static int add_pair(void *arg, const struct lg_kid_pair *p)
{
    struct work *w = arg;
    int rc = grow((void **)&w->pair, w->n_pairs, &w->cap_pairs, sizeof *w->pair);
    if (!rc)
        w->pair[w->n_pairs++] = *p;
    return rc;
}

static int by_kid(const void *a, const void *b) { return memcmp(((const struct lg_kid_pair *)a)->kid, ((const struct lg_kid_pair *)b)->kid, LG_ID_LEN); }

static const struct lg_kid_pair *pair_of(const struct work *w, const uint8_t kid[LG_ID_LEN])
{
    struct lg_kid_pair want;
    memcpy(want.kid, kid, LG_ID_LEN);
    return w->n_pairs ? bsearch(&want, w->pair, w->n_pairs, sizeof *w->pair, by_kid) : NULL;
}

static void progress(struct work *w, bool last)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    double now = (double)t.tv_sec + (double)t.tv_nsec / 1e9;
    if (!w->tty || (!last && now - w->shown < 0.2))
        return;
    w->shown = now;
    fprintf(stderr, "\r%llu files looked at, %zu found, %llu removed%s", w->seen, w->files.n, w->removed, last ? "\n" : "  ");
}

static int failed(struct work *w, const char *path, int e)
{
    w->failed++;
    return cli_fail(0, "%s%s: %s", w->tty ? "\n" : "", path, strerror(e));
}

/* ---- looking ------------------------------------------------------------------------------------------------------------------------------ */

static int add(struct list *l, const char *path, ino_t ino)
{
    int rc = grow((void **)&l->v, l->n, &l->cap, sizeof *l->v);
    char *copy = rc ? NULL : strdup(path);
    if (!copy)
        return -ENOMEM;
    l->v[l->n++] = (struct found){ .path = copy, .ino = ino };
    return 0;
}

static int look(struct work *w, const char *path, const struct stat *at)
{
    struct cli_file f;
    struct stat st;
    if (S_ISLNK(at->st_mode)) /* to what it leads is seen when all is known */
        return stat(path, &st) || st.st_dev != at->st_dev ? 0 : add(&w->links, path, st.st_ino);
    if (!S_ISREG(at->st_mode))
        return 0;
    w->seen++;
    progress(w, false);
    int rc = cli_key_of(path, &f);
    if (rc) {
        if (rc != -ENOENT && rc != -EBADMSG) /* a damaged header names no key */
            failed(w, path, -rc);
        return 0;
    }
    const struct lg_kid_pair *p = pair_of(w, f.kid);
    if (!p)
        return 0;
    rc = add(&w->files, path, at->st_ino);
    if (rc)
        return rc;
    struct found *x = &w->files.v[w->files.n - 1];
    memcpy(x->kid, p->kid, LG_ID_LEN);
    memcpy(x->study, p->study, LG_ID_LEN);
    x->bytes = lg_format_cipher_size(w->chunk_size, (uint64_t)at->st_size);
    return 0;
}

static int look_one(void *arg, const char *path, const struct stat *st, int error)
{
    struct work *w = arg;
    if (error && error != -EXDEV)
        failed(w, path, -error);
    w->rc = error ? 0 : look(w, path, st);
    return w->rc ? CLI_FAILED : CLI_OK;
}

static int by_ino(const void *a, const void *b)
{
    ino_t x = ((const struct found *)a)->ino, y = ((const struct found *)b)->ino;
    return x < y ? -1 : x > y;
}

/* ---- what the certificate will say: each file once, whatever names it has ------------------------------------------------------------------- */

static int report(struct work *w, struct lg_client *k, const uint8_t vault[LG_ID_LEN], bool removed, struct lg_reaped *sum)
{
    int rc = 0;
    *sum = (struct lg_reaped){ 0 };
    for (size_t i = 0; !rc && i < w->n_pairs; i++) {
        const struct lg_kid_pair *p = &w->pair[i];
        struct lg_reaped x;
        unsigned long long files = 0, bytes = 0;
        if (memcmp(p->kid, p->study, LG_ID_LEN) != 0)
            continue;
        for (size_t j = 0; j < w->files.n; j++) /* ascending by inode */
            if (memcmp(w->files.v[j].study, p->study, LG_ID_LEN) == 0 && (!j || w->files.v[j].ino != w->files.v[j - 1].ino)) {
                files++;
                bytes += w->files.v[j].bytes;
            }
        rc = lg_client_reaped(k, p->study, vault, files, bytes, removed, &x);
        sum->files += rc ? 0 : x.files;
        sum->bytes += rc ? 0 : x.bytes;
    }
    return rc;
}

/* ---- removing --------------------------------------------------------------------------------------------------------------------------------- */

static void remove_file(struct work *w, const struct found *x)
{
    char value[2 * LG_ID_LEN + 2 + LG_PLAIN_NAME_MAX], dir[8192];
    const char *slash = strrchr(x->path, '/');
    if (!slash || (size_t)(slash - x->path) >= sizeof dir)
        return (void)failed(w, x->path, ENAMETOOLONG);
    memcpy(dir, x->path, (size_t)(slash - x->path));
    dir[slash - x->path] = 0;
    cli_hex(x->kid, value);
    int n = 2 * (int)LG_ID_LEN + snprintf(value + 2 * LG_ID_LEN, sizeof value - 2 * LG_ID_LEN, " %s", slash + 1);
    if (lsetxattr(dir, LG_XATTR_REAP, value, (size_t)n, 0) == 0)
        w->removed++;
    else if (errno != ESTALE && errno != ENOENT) /* another file stands there by now, or none */
        failed(w, x->path, errno);
}

/* The kernel is told of names that go this way a moment later. */
static void settle(const struct work *w)
{
    struct stat st;
    for (unsigned i = 0; w->files.n && i < 500; i++) {
        const struct found *x = &w->files.v[w->files.n - 1];
        if (lstat(x->path, &st) || st.st_ino != x->ino)
            break;
        poll(NULL, 0, 10);
    }
}

static void remove_link(struct work *w, const struct found *x)
{
    struct stat st;
    if (stat(x->path, &st) || st.st_ino != x->ino)
        return; /* leads elsewhere by now */
    if (unlink(x->path) == 0)
        w->links_removed++;
    else if (errno != ENOENT)
        failed(w, x->path, errno);
}

/* Upwards, while there is nothing left in it. */
static void remove_dirs(struct work *w, const char *path)
{
    char dir[8192];
    size_t top = strlen(w->top), len = strlen(path);
    if (len >= sizeof dir)
        return;
    memcpy(dir, path, len + 1);
    for (char *slash; (slash = strrchr(dir, '/')) && (size_t)(slash - dir) > top;) {
        *slash = 0;
        if (rmdir(dir))
            break;
        w->dirs_removed++;
    }
}

/* Does it lead to a file of the study that was found? */
static bool leads_to_one(const struct work *w, size_t link) { return w->files.n && bsearch(&w->links.v[link], w->files.v, w->files.n, sizeof *w->files.v, by_ino); }

static void remove_all(struct work *w)
{
    for (size_t i = 0; i < w->links.n; i++) /* first, while it can be seen where they lead: interrupted, the next run finds them again */
        if (leads_to_one(w, i))
            remove_link(w, &w->links.v[i]);
    for (size_t i = 0; i < w->files.n; i++) {
        remove_file(w, &w->files.v[i]);
        progress(w, false);
    }
    settle(w);
    for (size_t i = 0; i < w->files.n; i++)
        remove_dirs(w, w->files.v[i].path);
    for (size_t i = 0; i < w->links.n; i++)
        if (leads_to_one(w, i))
            remove_dirs(w, w->links.v[i].path);
}

static int done(struct work *w, const char *uid, const struct lg_reaped *sum)
{
    const struct cli *c = w->c;
    int code = CLI_OK;
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "uid", uid);
        cJSON_AddNumberToObject(j, "files", (double)sum->files);
        cJSON_AddNumberToObject(j, "bytes", (double)sum->bytes);
        cJSON_AddNumberToObject(j, "found", (double)w->files.n);
        cJSON_AddNumberToObject(j, "removed", (double)w->removed);
        cJSON_AddNumberToObject(j, "links_removed", (double)w->links_removed);
        cJSON_AddNumberToObject(j, "directories_removed", (double)w->dirs_removed);
        cJSON_AddNumberToObject(j, "failed", (double)w->failed);
        code = cli_print_json(j);
    } else if (c->count) {
        printf("%s: %zu names of its files are in this vault; on its certificate: %llu files, %llu bytes of ciphertext\n", uid, w->files.n, (unsigned long long)sum->files,
               (unsigned long long)sum->bytes);
    } else {
        printf("%s: %llu names of files, %llu links and %llu directories removed; on its certificate: %llu files, %llu bytes of ciphertext\n", uid, w->removed, w->links_removed,
               w->dirs_removed, (unsigned long long)sum->files, (unsigned long long)sum->bytes);
    }
    if (w->failed)
        code = cli_fail(CLI_FAILED, "%llu could not be looked at or removed (see above); everything else was. The certificate has what was found, and does not say that all of it is removed: put them right, or away, and run it again", w->failed);
    return code;
}

int cli_reap(const struct cli *c, struct lg_client *k, const char *uid, const char *vault)
{
    struct work w = { .c = c, .tty = isatty(STDERR_FILENO) && !c->json };
    struct lg_vault_info info;
    struct lg_reaped sum = { 0 };
    char mountpoint[1024];
    int code = cli_mount_of(c, k, vault, mountpoint), rc = 0;
    if (!code && (rc = lg_vault_read(vault, &info)) != 0)
        code = cli_fail(CLI_FAILED, "%s: %s", vault, strerror(-rc));
    if (code)
        return code;
    w.top = mountpoint;
    w.chunk_size = info.chunk_size;
    rc = lg_client_destroyed_kids(k, uid, add_pair, &w);
    if (rc == -ENOENT || rc == -EALREADY)
        code = cli_fail(rc == -ENOENT ? CLI_FAILED : CLI_REFUSED, rc == -ENOENT ? "study %s is not known to this keyring" : "study %s is not destroyed: nothing of it is removed", uid);
    else if (rc)
        code = cli_explain(c, rc, "study reap");
    if (!code && w.n_pairs)
        qsort(w.pair, w.n_pairs, sizeof *w.pair, by_kid);
    if (!code && (code = cli_tree(w.top, look_one, &w)) != 0 && (rc = w.rc) != 0)
        code = cli_explain(c, rc, "study reap");
    if (!code && w.files.n)
        qsort(w.files.v, w.files.n, sizeof *w.files.v, by_ino);
    if (!code) /* before anything goes: what is counted now is what there was, as far as it could be looked at */
        rc = report(&w, k, info.vault_id, false, &sum);
    if (!code && !rc && !c->count) {
        remove_all(&w);
        if (!w.failed) /* only then is none left */
            rc = report(&w, k, info.vault_id, true, &sum);
    }
    progress(&w, true);
    if (!code)
        code = rc ? cli_explain(c, rc, "study reap") : done(&w, uid, &sum);
    for (size_t i = 0; i < w.files.n; i++)
        free(w.files.v[i].path);
    for (size_t i = 0; i < w.links.n; i++)
        free(w.links.v[i].path);
    free(w.files.v);
    free(w.links.v);
    free(w.pair);
    return code;
}
