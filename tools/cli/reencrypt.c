/* leadglass key reencrypt: new ciphertext for files, through a mount. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/volume.h"

struct work {
    const struct cli *c;
    bool one; /* only files under kid */
    uint8_t kid[LG_ID_LEN];
    uint32_t older_than; /* 0: whatever is not the newest */
    bool tty;
    unsigned long long seen, done, bytes, current, failed;
    double begun, shown;
};

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
    fprintf(stderr, "\r%llu files looked at, %llu re-encrypted (%llu MiB, %.0f MiB/s), %llu failed%s", w->seen, w->done, w->bytes >> 20,
            t > w->begun ? (double)(w->bytes >> 20) / (t - w->begun) : 0.0, w->failed, last ? "\n" : "  ");
}

static int failed(struct work *w, const char *path, int rc)
{
    w->failed++;
    cli_fail(0, "%s%s: %s", w->tty ? "\n" : "", path,
             rc == -EMLINK   ? "has several names (hard links); copy it to one of its own, then run this again"
             : rc == -EBUSY  ? "was being written to all the time; run this again later"
             : rc == -ENOKEY ? "its key is not to be had (locked, or the keyring is older than the file)"
                             : strerror(-rc));
    return CLI_OK;
}

static int each(void *arg, const struct cli_file *f)
{
    struct work *w = arg;
    w->seen++;
    progress(w, false);
    if (f->error)
        return failed(w, f->path, f->error);
    if ((w->one && memcmp(f->kid, w->kid, LG_ID_LEN) != 0) || (w->older_than && f->version >= w->older_than))
        return CLI_OK;
    if (lsetxattr(f->path, LG_XATTR_REKEY, "", 0, 0)) {
        if (errno == EALREADY)
            w->current++;
        else if (errno == EKEYREVOKED) /* nothing to keep safe */
            w->current++;
        else if (errno != ENOENT)
            return failed(w, f->path, -errno);
        return CLI_OK;
    }
    w->done++;
    w->bytes += (unsigned long long)f->st->st_size;
    if (w->c->rate) { /* no faster on average */
        double due = w->begun + (double)w->bytes / ((double)w->c->rate * 1048576.0), left = due - now();
        if (left > 0)
            poll(NULL, 0, (int)(left * 1000));
    }
    return CLI_OK;
}

int cli_reencrypt(const struct cli *c, struct lg_client *k, const char *vault)
{
    struct work w = { .c = c, .older_than = c->older_than, .tty = isatty(STDERR_FILENO) && !c->json, .begun = now() };
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
    code = cli_walk(mountpoint, each, &w);
    progress(&w, true);
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "files", (double)w.seen);
        cJSON_AddNumberToObject(j, "reencrypted", (double)w.done);
        cJSON_AddNumberToObject(j, "bytes", (double)w.bytes);
        cJSON_AddNumberToObject(j, "current", (double)w.current);
        cJSON_AddNumberToObject(j, "failed", (double)w.failed);
        int rc = cli_print_json(j);
        code = code ? code : rc;
    } else {
        printf("%llu of %llu files re-encrypted, %llu MiB; %llu had the newest version already\n", w.done, w.seen, w.bytes >> 20, w.current);
    }
    if (w.failed && !code)
        code = cli_fail(CLI_FAILED, "%llu files were left as they are (see above)", w.failed);
    return code;
}
