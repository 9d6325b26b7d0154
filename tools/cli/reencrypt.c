/* leadglass key reencrypt: new ciphertext for files, through a mount. */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/volume.h"

/* A name of a file with several. Files are told apart by id and inode: the id stays the same whatever happens to the file. */
struct linked {
    uint8_t file_id[LG_ID_LEN];
    ino_t ino;
    nlink_t links;
    unsigned long long size;
    size_t path; /* below the mount, in text */
};

struct work {
    const struct cli *c;
    const char *mountpoint;
    bool one; /* only files under kid */
    uint8_t kid[LG_ID_LEN];
    uint32_t older_than; /* 0: whatever is not the newest */
    bool tty;
    unsigned long long seen, done, bytes, current, failed;
    double begun, shown, paid; /* paid: until when what was done so far lasts at the rate that was asked for */

    struct linked *l; /* of the files whose id ends in part, modulo parts */
    size_t n, cap;
    char *text;
    size_t len, text_cap;
    unsigned part, parts;
    bool overflow;              /* there was no room for all: looked for again, a part at a time */
    unsigned long long room;    /* that all would take */
    unsigned pass;
    bool first;                 /* the walk that sees every file */
    uint8_t (*again)[LG_ID_LEN], (*retry)[LG_ID_LEN]; /* files that had other names by the time; those that this pass is for, in order */
    size_t n_again, cap_again, n_retry;
};

/* What the names of files with several may take in memory. */
#ifndef LG_REENCRYPT_ROOM
#define LG_REENCRYPT_ROOM (64 * 1024 * 1024)
#endif
enum { ROOM = LG_REENCRYPT_ROOM, PASSES = 3 };
static const double CREDIT_S = 1; /* of the time in which nothing was to be done; all of it would be a burst, hours of work at full speed after hours of passing over */

static volatile sig_atomic_t interrupted;
static void on_signal(int n) { interrupted = n; }
static int go_on(void) { return interrupted ? CLI_INTERRUPTED : CLI_OK; }

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void progress(struct work *w, bool last)
{
    double t = now();
    if (!w->tty || (!last && t - w->shown < 0.2))
        return;
    w->shown = t;
    fprintf(stderr, "\r%llu files looked at, %llu re-encrypted (%.1f MiB, %.1f MiB/s), %llu failed\033[K%s", w->seen, w->done, (double)w->bytes / 1048576,
            t > w->begun ? (double)w->bytes / 1048576 / (t - w->begun) : 0.0, w->failed, last ? "\n" : "");
}

static void pay(struct work *w, unsigned long long size)
{
    double t = now();
    w->paid = (w->paid > t - CREDIT_S ? w->paid : t - CREDIT_S) + (double)size / ((double)w->c->rate * 1048576.0);
    for (; t < w->paid && !interrupted; t = now()) {
        progress(w, false);
        poll(NULL, 0, w->paid - t < 1 ? (int)((w->paid - t) * 1000) + 1 : 1000);
    }
}

static int failed(struct work *w, const char *path, int rc)
{
    w->failed++;
    cli_fail(0, "%s%s: %s", w->tty ? "\n" : "", path,
             rc == -EMLINK   ? "is being given names, or loses them, all the time; run this again later"
             : rc == -E2BIG  ? "has too many names (hard links: more than 512, or more than 64 KiB of them); copy it to one of its own, then run this again"
             : rc == -EBUSY  ? "was being written to all the time; run this again later"
             : rc == -ENOKEY ? "its key is not to be had (locked, or the keyring is older than the file)"
                             : strerror(-rc));
    return go_on();
}

/* rc: of the attribute that asks for it. */
static int outcome(struct work *w, const char *path, unsigned long long size, int rc)
{
    if (rc == -EALREADY || rc == -EKEYREVOKED) { /* revoked: nothing to keep safe */
        w->current++;
        return go_on();
    }
    if (rc)
        return rc == -ENOENT ? go_on() : failed(w, path, rc);
    w->done++;
    w->bytes += size;
    if (w->c->rate)
        pay(w, size);
    progress(w, false);
    return go_on();
}

/* ---- files with several names: all of them are said at once ------------------------------------------------------------------------------- */

static int remember(struct work *w, const struct cli_file *f)
{
    const char *path = f->path + strlen(w->mountpoint);
    while (*path == '/')
        path++;
    size_t len = strlen(path) + 1;
    w->room += len + sizeof *w->l;
    w->overflow = w->overflow || (w->first && w->len + len + (w->n + 1) * sizeof *w->l > ROOM);
    uint32_t part;
    memcpy(&part, f->file_id, sizeof part);
    if (w->overflow || part % w->parts != w->part)
        return go_on();
    if (w->n == w->cap) {
        size_t cap = w->cap ? w->cap * 2 : 256;
        struct linked *l = reallocarray(w->l, cap, sizeof *l);
        if (!l)
            return cli_fail(CLI_FAILED, "no memory");
        w->l = l;
        w->cap = cap;
    }
    if (w->text_cap - w->len < len) {
        size_t cap = 2 * (w->text_cap + len);
        char *text = realloc(w->text, cap);
        if (!text)
            return cli_fail(CLI_FAILED, "no memory");
        w->text = text;
        w->text_cap = cap;
    }
    struct linked *l = &w->l[w->n++];
    *l = (struct linked){ .ino = f->st->st_ino, .links = f->st->st_nlink, .size = (unsigned long long)f->st->st_size, .path = w->len };
    memcpy(l->file_id, f->file_id, LG_ID_LEN);
    memcpy(w->text + w->len, path, len);
    w->len += len;
    return go_on();
}

static int by_file(const void *a, const void *b)
{
    const struct linked *x = a, *y = b;
    int c = memcmp(x->file_id, y->file_id, LG_ID_LEN);
    return c ? c : x->ino < y->ino ? -1 : x->ino > y->ino ? 1 : x->path < y->path ? -1 : x->path > y->path;
}

static int once_more(struct work *w, const uint8_t id[LG_ID_LEN])
{
    if (w->n_again == w->cap_again) {
        size_t cap = w->cap_again ? w->cap_again * 2 : 64;
        uint8_t (*p)[LG_ID_LEN] = reallocarray(w->again, cap, LG_ID_LEN);
        if (!p)
            return cli_fail(CLI_FAILED, "no memory");
        w->again = p;
        w->cap_again = cap;
    }
    memcpy(w->again[w->n_again++], id, LG_ID_LEN);
    return CLI_OK;
}

static int by_id(const void *a, const void *b) { return memcmp(a, b, LG_ID_LEN); }

/* n names of one file. */
static int one_linked(struct work *w, const struct linked *l, size_t n)
{
    char first[4352], *names;
    size_t len = 0, at = 0;
    int rc = 0;
    snprintf(first, sizeof first, "%s/%s", w->mountpoint, w->text + l->path);
    for (size_t i = 0; i < n; i++)
        len += strlen(w->text + l[i].path) + 1;
    if (n > LG_LINKS_MAX || l->links > LG_LINKS_MAX || len > 65536)
        rc = -E2BIG;
    else if (n != l->links)
        rc = -EMLINK;
    names = rc ? NULL : malloc(len);
    for (size_t i = 0; names && i < n; at += strlen(w->text + l[i].path) + 1, i++)
        memcpy(names + at, w->text + l[i].path, strlen(w->text + l[i].path) + 1);
    if (!rc)
        rc = !names ? -ENOMEM : lsetxattr(first, LG_XATTR_REKEY_LINKS, names, len, 0) ? -errno : 0;
    free(names);
    if (rc == -ENOENT || rc == -ENOTDIR)
        rc = -EMLINK;
    return rc == -EMLINK && w->pass + 1 < PASSES ? once_more(w, l->file_id) : outcome(w, first, l->size, rc);
}

/* What the last walk has found. */
static int all_linked(struct work *w)
{
    int code = CLI_OK;
    if (w->n)
        qsort(w->l, w->n, sizeof *w->l, by_file);
    for (size_t i = 0, n; !code && i < w->n; i += n) {
        for (n = 1; i + n < w->n && w->l[i + n].ino == w->l[i].ino && memcmp(w->l[i + n].file_id, w->l[i].file_id, LG_ID_LEN) == 0; n++)
            ;
        code = one_linked(w, &w->l[i], n);
    }
    w->n = w->len = 0;
    return code;
}

static bool asked_for(const struct work *w, const struct cli_file *f)
{
    return (!w->one || memcmp(f->kid, w->kid, LG_ID_LEN) == 0) && (!w->older_than || f->version < w->older_than);
}

static int each_linked(void *arg, const struct cli_file *f)
{
    struct work *w = arg;
    progress(w, false);
    if (f->error || !asked_for(w, f) || (w->pass && !(w->n_retry && bsearch(f->file_id, w->retry, w->n_retry, LG_ID_LEN, by_id))))
        return go_on();
    if (w->pass || f->st->st_nlink > 1)
        return remember(w, f);
    /* It may have had several when it was passed first. */
    int rc = lsetxattr(f->path, LG_XATTR_REKEY, "", 0, 0) ? -errno : 0;
    return rc == -EALREADY || rc == -EKEYREVOKED ? go_on() : outcome(w, f->path, (unsigned long long)f->st->st_size, rc);
}

static int each(void *arg, const struct cli_file *f)
{
    struct work *w = arg;
    w->seen++;
    progress(w, false);
    if (f->error)
        return failed(w, f->path, f->error);
    if (!asked_for(w, f))
        return go_on();
    if (f->st->st_nlink > 1)
        return remember(w, f);
    return outcome(w, f->path, (unsigned long long)f->st->st_size, lsetxattr(f->path, LG_XATTR_REKEY, "", 0, 0) ? -errno : 0);
}

/* Those that the walk has passed, in one more walk for every ROOM that they take if that is not one; then those again whose names have changed meanwhile. */
static int linked(struct work *w)
{
    int code = CLI_OK;
    w->parts = w->overflow ? (unsigned)(w->room / ROOM) + 1 : 1;
    if (!w->overflow)
        code = all_linked(w);
    while ((w->overflow || w->n_again) && !code) {
        w->pass += !w->overflow;
        w->overflow = false;
        free(w->retry);
        w->retry = w->again;
        w->n_retry = w->n_again;
        w->again = NULL;
        w->n_again = w->cap_again = 0;
        if (w->n_retry)
            qsort(w->retry, w->n_retry, LG_ID_LEN, by_id);
        for (w->part = 0; !code && w->part < w->parts; w->part++) {
            w->n = w->len = 0;
            code = cli_walk(w->mountpoint, each_linked, w);
            if (!code)
                code = all_linked(w);
        }
    }
    return code;
}

int cli_reencrypt(const struct cli *c, struct lg_client *k, const char *vault)
{
    struct work w = { .c = c, .older_than = c->older_than, .parts = 1, .tty = isatty(STDERR_FILENO), .begun = now(), .paid = now() };
    struct sigaction sa = { .sa_handler = on_signal };
    char mountpoint[1024];
    int code = cli_mount_of(c, k, vault, mountpoint);
    struct lg_study *s = calloc(1, sizeof *s);
    if (!code && c->study) {
        int rc = s ? lg_client_study_show(k, c->study, s) : -ENOMEM;
        if (rc)
            code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", c->study) : cli_explain(c, rc, c->study);
        else
            memcpy(w.kid, s->kid, LG_ID_LEN);
        w.one = true;
    }
    free(s);
    if (code)
        return code;
    w.mountpoint = mountpoint;
    w.first = true;
    sigaction(SIGINT, &sa, NULL); /* the file under way is ended, what was done is said */
    sigaction(SIGTERM, &sa, NULL);
    code = cli_walk(mountpoint, each, &w);
    w.first = false;
    if (!code)
        code = linked(&w);
    free(w.l);
    free(w.text);
    free(w.again);
    free(w.retry);
    progress(&w, true);
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "files", (double)w.seen);
        cJSON_AddNumberToObject(j, "reencrypted", (double)w.done);
        cJSON_AddNumberToObject(j, "bytes", (double)w.bytes);
        cJSON_AddNumberToObject(j, "current", (double)w.current);
        cJSON_AddNumberToObject(j, "failed", (double)w.failed);
        cJSON_AddBoolToObject(j, "interrupted", code == CLI_INTERRUPTED);
        int rc = cli_print_json(j);
        code = code ? code : rc;
    } else {
        printf("%llu of %llu files re-encrypted, %.1f MiB; %llu had the newest version already, or a revoked key\n", w.done, w.seen, (double)w.bytes / 1048576, w.current);
    }
    if (code == CLI_INTERRUPTED)
        cli_fail(0, "interrupted: run it again, what is done is passed over");
    if (w.failed && !code)
        code = cli_fail(CLI_FAILED, "%llu files were left as they are (see above)", w.failed);
    return code;
}
