/* leadglass key trim: old versions of study keys are retired. Whatever still needs one would be lost with it, so every vault is looked through twice: before it is asked
 * for, and again just before it is carried out, when every mount has written down what it had and uses newest versions only. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "act.h"
#include "leadglass/format.h"
#include "leadglass/volume.h"

enum { NAMES_MAX = 10 };

struct newest {
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
};

struct scan {
    struct newest *key; /* ascending by id */
    size_t n, cap;
    bool tty;
    unsigned long long files, in_use, damaged, unread;
    char *name[NAMES_MAX];
    double shown;
};

/* ---- which version of which key is the newest --------------------------------------------------------------------------------------------- */

static int add_key(void *arg, const struct lg_study *s)
{
    struct scan *x = arg;
    if (s->version < 2)
        return 0;
    if (x->n == x->cap) {
        size_t cap = x->cap ? 2 * x->cap : 1024;
        void *p = reallocarray(x->key, cap, sizeof *x->key);
        if (!p)
            return -ENOMEM;
        x->key = p;
        x->cap = cap;
    }
    x->key[x->n].version = s->version;
    memcpy(x->key[x->n++].kid, s->kid, LG_ID_LEN);
    return 0;
}

static int by_kid(const void *a, const void *b) { return memcmp(a, b, LG_ID_LEN); }

static int load_keys(struct scan *x, struct lg_client *k, const char *uid)
{
    struct lg_study *s = calloc(1, sizeof *s);
    int rc = !s ? -ENOMEM : uid ? lg_client_study_show(k, uid, s) : lg_client_study_list(k, add_key, x);
    if (!rc && uid)
        rc = add_key(x, s);
    free(s);
    if (!rc && x->n)
        qsort(x->key, x->n, sizeof *x->key, by_kid);
    return rc;
}

/* ---- looking through a vault, below its mount: no key is needed, and nothing is hidden there ------------------------------------------------ */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec / 1e9;
}

static void progress(struct scan *x, bool last)
{
    double t = now_s();
    if (!x->tty || (!last && t - x->shown < 0.2))
        return;
    x->shown = t;
    fprintf(stderr, "\r%llu files looked at, %llu under an older version%s", x->files, x->in_use, last ? "\n" : "  ");
}

/* Either slot may be the one that is left after a power failure. */
static bool needs_older(const struct scan *x, const struct lg_slot *slot)
{
    const struct newest *k = x->n ? bsearch(slot->kid, x->key, x->n, sizeof *x->key, by_kid) : NULL;
    return k && slot->key_version < k->version;
}

static void look(struct scan *x, const char *path, const struct stat *st)
{
    uint8_t head[3 * LG_SECTOR];
    struct lg_s0 s0;
    struct lg_slot a, b;
    if (st->st_size < (off_t)sizeof head)
        return; /* no file of a vault that anything could be read from */
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOATIME);
    ssize_t n = fd < 0 ? -1 : pread(fd, head, sizeof head, 0);
    int e = errno;
    if (fd >= 0)
        close(fd);
    if (n != (ssize_t)sizeof head) {
        if (n < 0 && e == ENOENT)
            return; /* deleted meanwhile */
        x->unread++;
        cli_fail(0, "%s%s: %s", x->tty ? "\n" : "", path, n < 0 ? strerror(e) : "cannot be read whole");
        return;
    }
    if (lg_s0_decode(head, &s0))
        return; /* journal and the vault's own files; of a damaged file nothing leads to a key */
    x->files++;
    progress(x, false);
    bool got_a = !lg_slot_decode(head + LG_SECTOR, &a), got_b = !lg_slot_decode(head + 2 * LG_SECTOR, &b);
    x->damaged += !got_a && !got_b;
    if (!(got_a && needs_older(x, &a)) && !(got_b && needs_older(x, &b)))
        return;
    if (x->in_use < NAMES_MAX)
        x->name[x->in_use] = strdup(path);
    x->in_use++;
}

static int scan_one(void *arg, const char *path, const struct stat *st, int error)
{
    struct scan *x = arg;
    if (error) { /* another file system beneath it, too: whatever lies there was not looked at */
        x->unread++;
        cli_fail(0, "%s%s: %s", x->tty ? "\n" : "", path, strerror(-error));
    } else if (S_ISREG(st->st_mode)) {
        look(x, path, st);
    }
    return CLI_OK;
}

/* As the mount names them: the file with the same id there. */
struct naming {
    struct scan *x;
    const struct newest *key;
    unsigned n;
};
static int name_one(void *arg, const struct cli_file *f)
{
    struct naming *g = arg;
    struct lg_slot s = { .key_version = f->version };
    memcpy(s.kid, f->kid, LG_ID_LEN);
    if (!f->error && needs_older(g->x, &s)) {
        fprintf(stderr, "  %s\n", f->path);
        g->n++;
    }
    return g->n < NAMES_MAX ? CLI_OK : CLI_FAILED;
}

static int refuse(const struct cli *c, struct lg_client *k, struct scan *x, char **vault, int n)
{
    struct naming g = { .x = x };
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    if (x->in_use) {
        cli_fail(0, "%llu files still need a version that is not the newest of its key%s:", x->in_use, x->in_use > NAMES_MAX ? "; the first" : "");
        if (st && lg_client_status(k, st) == 0)
            for (int i = 0; i < n && g.n < NAMES_MAX; i++) {
                struct lg_vault_info info;
                for (unsigned m = 0; !lg_vault_read(vault[i], &info) && m < st->n_mounts; m++)
                    if (memcmp(st->mounts[m].vault_id, info.vault_id, LG_ID_LEN) == 0 && st->mounts[m].mountpoint[0] == '/')
                        (void)cli_walk(st->mounts[m].mountpoint, name_one, &g);
            }
        for (unsigned i = 0; !g.n && i < NAMES_MAX && x->name[i]; i++) /* not mounted */
            fprintf(stderr, "  %s\n", x->name[i]);
    }
    free(st);
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "files", (double)x->files);
        cJSON_AddNumberToObject(j, "in_use", (double)x->in_use);
        cJSON_AddNumberToObject(j, "unreadable", (double)x->unread);
        (void)cli_print_json(j);
    }
    if (x->unread)
        cli_fail(0, "%llu files or directories could not be looked at", x->unread);
    return cli_fail(CLI_REFUSED, "nothing is retired. %s", x->in_use ? "Give these files new ciphertext first: leadglass key reencrypt VAULT --all-studies, then look once more" :
                                                                       "Whatever cannot be looked at may need an old version");
}

/* Nothing in these vaults needs an older version than the newest: CLI_OK. */
static int scan(const struct cli *c, struct lg_client *k, const char *uid, char **vault, int n, unsigned long long *ret_files)
{
    struct scan x = { .tty = isatty(STDERR_FILENO) && !c->json };
    int code = CLI_OK, rc = load_keys(&x, k, uid);
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid) : cli_explain(c, rc, "key trim");
    for (int i = 0; !code && i < n; i++)
        code = cli_tree(vault[i], scan_one, &x);
    progress(&x, true);
    if (!code && x.damaged)
        cli_fail(0, "%llu files have a damaged header that names no key; what version they were under cannot be told (leadglass scrub)", x.damaged);
    if (!code && (x.in_use || x.unread))
        code = refuse(c, k, &x, vault, n);
    *ret_files = x.files;
    for (unsigned i = 0; i < NAMES_MAX; i++)
        free(x.name[i]);
    free(x.key);
    return code;
}

/* ---- carrying it out ------------------------------------------------------------------------------------------------------------------------ */

static int explain(const struct cli *c, int rc)
{
    switch (rc) {
    case -EPERM: return cli_fail(CLI_REFUSED, "nobody has approved that act yet (leadglass request approve)");
    case -EAGAIN: return cli_fail(CLI_REFUSED, "its waiting period has not ended: by the wall clock and by the key manager's running time (leadglass request show)");
    case -ETIME: return cli_fail(CLI_REFUSED, "that act has expired");
    case -EALREADY: return cli_fail(CLI_REFUSED, "that act was carried out or cancelled, or there are no older versions");
    case -EINVAL: return cli_fail(CLI_REFUSED, "that is no act to retire old versions");
    case -ENOENT: return cli_fail(CLI_FAILED, "that act is not known to this keyring");
    case -ENOLCK: return cli_fail(CLI_REFUSED, "the clock cannot be believed; look at it, then have it confirmed (leadglass clock confirm)");
    case -EROFS: return cli_fail(CLI_REFUSED, "this keyring was restored and has not been confirmed: nothing is destroyed (leadglass backup confirm)");
    case -EREMOTE: return cli_fail(CLI_REFUSED, "the keyring knows a vault that the act does not name: its files would be lost. Ask anew, naming every vault (or --other-vaults-gone)");
    case -EBUSY: return cli_fail(CLI_REFUSED, "a legal hold is on the study");
    case -ESTALE: return cli_fail(CLI_REFUSED, "the study was given another version since this was asked for: ask anew");
    case -EKEYREVOKED: return cli_fail(CLI_REVOKED, "the study is suspended or revoked");
    case -EDOM: return cli_fail(CLI_REFUSED, "the newest version was made after the declared date, or by a version of Leadglass that did not note when: then rotate the key and re-encrypt once more");
    case -ENOTCONN: return cli_fail(CLI_UNCONFIRMED, "a mount has not confirmed that it uses newest versions only");
    default: return cli_explain(c, rc, "key trim");
    }
}

/* The vaults at hand are the ones that the act names. */
static int same_vaults(const struct lg_trim *what, char **vault, int n)
{
    for (unsigned i = 0; i < what->n_vaults; i++) {
        bool found = false;
        char hex[2 * LG_ID_LEN + 1];
        for (int v = 0; v < n && !found; v++) {
            struct lg_vault_info info;
            int rc = lg_vault_read(vault[v], &info);
            if (rc)
                return cli_fail(CLI_FAILED, "%s: %s", vault[v], rc == -ENOENT ? "there is no vault" : strerror(-rc));
            found = memcmp(info.vault_id, what->vault[i], LG_ID_LEN) == 0;
        }
        cli_hex(what->vault[i], hex);
        if (!found)
            return cli_fail(CLI_USAGE, "the act names the vault %s: name it here too, it has to be looked through again", hex);
    }
    return CLI_OK;
}

static int carry_out(const struct cli *c, struct lg_client *k, const uint8_t id[LG_ID_LEN], char **vault, int n)
{
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    struct lg_rotated done = { .n = 0 };
    struct lg_act_record r;
    struct lg_act a;
    struct lg_trim what;
    uint8_t after[LG_ID_LEN];
    unsigned long long files = 0, studies = 0, passed = 0;
    bool tty = isatty(STDERR_FILENO) && !c->json;
    int code = CLI_OK, rc = u ? lg_client_act_get(k, id, &r) : -ENOMEM;
    if (!rc && (lg_act_decode(r.doc, r.doc_len, &a) || a.action != LG_ACT_TRIM || lg_trim_decode(a.data, a.data_len, &what)))
        rc = -EINVAL;
    if (!rc)
        code = same_vaults(&what, vault, n);
    if (!rc && !code)
        rc = lg_client_trim(k, id, false, NULL, &done, u);
    if (rc)
        code = explain(c, rc);
    if (!code && u->n)
        code = cli_unconfirmed(c, u, NULL);
    if (!code)
        code = scan(c, k, a.uid[0] ? a.uid : NULL, vault, n, &files);
    for (bool first = true; !code && (first || !done.end); first = false) {
        memcpy(after, done.last, LG_ID_LEN);
        rc = lg_client_trim(k, id, true, first ? NULL : after, &done, u);
        if (rc) {
            if (studies)
                cli_fail(0, "%llu studies are done; run the command again for the others", studies);
            code = explain(c, rc);
            break;
        }
        studies += done.n;
        passed += done.full;
        if (tty)
            fprintf(stderr, "\r%llu studies ", studies);
    }
    if (tty && studies)
        fputc('\n', stderr);
    free(u);
    if (code)
        return code;
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "files", (double)files);
        cJSON_AddNumberToObject(j, "trimmed", (double)studies);
        cJSON_AddNumberToObject(j, "passed_over", (double)passed);
        code = cli_print_json(j);
    } else {
        printf("%llu studies: every version of their keys but the newest is destroyed; %llu files were looked at before\n", studies, files);
    }
    if (passed)
        cli_fail(0, "%llu studies were passed over: held, suspended, or given a version after the declared date or since this was asked for", passed);
    return code;
}

/* ---- asking for it ------------------------------------------------------------------------------------------------------------------------------ */

/* YYYY-MM-DD, the start of that day in UTC, or to the second as times are printed. */
static int moment(const char *text, uint64_t *ret)
{
    struct tm tm = { 0 };
    const char *end = strptime(text, "%Y-%m-%dT%H:%M:%SZ", &tm);
    time_t t = end && !*end ? timegm(&tm) : -1;
    if (t < 0)
        return act_day(text, ret);
    *ret = (uint64_t)t;
    return 0;
}

static int request(const struct cli *c, struct lg_client *k, char **vault, int n, struct lg_act *a)
{
    struct lg_trim what = { .others_gone = c->others_gone };
    struct lg_study *s = c->study ? calloc(1, sizeof *s) : NULL;
    unsigned long long files = 0;
    int rc = c->study && !s ? -ENOMEM : s ? lg_client_study_show(k, c->study, s) : 0;
    if (rc) {
        free(s);
        return rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", c->study) : cli_explain(c, rc, c->study);
    }
    if (s) {
        snprintf(a->uid, sizeof a->uid, "%s", c->study);
        memcpy(a->kid, s->kid, LG_ID_LEN);
    }
    free(s);
    if (!c->no_copies || moment(c->no_copies, &a->number))
        return cli_fail(CLI_USAGE, "declare it: --no-copies-before DATE (YYYY-MM-DD, or YYYY-MM-DDTHH:MM:SSZ): no ciphertext backup, snapshot or other copy of a vault from before that day is kept anywhere, or will be "
                                   "needed");
    if (n > (int)LG_TRIM_VAULTS_MAX)
        return cli_fail(CLI_USAGE, "more than %u vaults", LG_TRIM_VAULTS_MAX);
    for (int i = 0; i < n; i++) {
        struct lg_vault_info info;
        rc = lg_vault_read(vault[i], &info);
        if (rc)
            return cli_fail(CLI_FAILED, "%s: %s", vault[i], rc == -ENOENT ? "there is no vault" : strerror(-rc));
        memcpy(what.vault[what.n_vaults++], info.vault_id, LG_ID_LEN);
    }
    rc = lg_trim_encode(&what, a->data, &a->data_len);
    if (rc)
        return cli_explain(c, rc, "key trim");
    int code = scan(c, k, c->study, vault, n, &files);
    if (code)
        return code;
    fprintf(stderr, "%llu files were looked at: none needs an older version\n", files);
    return act_perform(c, k, a);
}

int cli_trim(const struct cli *c, struct lg_client *k, char **vault, int n)
{
    struct lg_act a = { .action = LG_ACT_TRIM };
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    uint8_t id[LG_ID_LEN];
    struct cli quiet = *c;
    int code = CLI_OK, rc = st ? lg_client_status(k, st) : -ENOMEM;
    if (geteuid() != 0)
        code = cli_fail(CLI_FAILED, "this needs root, who can look through vaults");
    else if (rc)
        code = cli_explain(c, rc, "key trim");
    else if (c->act && (strlen(c->act) != 2 * LG_ID_LEN || lg_hex_decode(c->act, id, LG_ID_LEN)))
        code = cli_fail(CLI_USAGE, "%s is no act's id (32 hexadecimal digits; leadglass request list)", c->act);
    else if (c->act)
        code = carry_out(c, k, id, vault, n);
    else if (st->officer_mode && c->now)
        code = cli_fail(CLI_REFUSED, "officers are registered: nobody destroys alone. Ask for it with --sign KEYFILE instead of --now; another officer approves it");
    else if (!st->officer_mode && !c->now && !c->sign && !c->offline)
        code = cli_fail(CLI_USAGE, "single-administrator mode: no one could approve a request. Say --now to retire old versions at once. It cannot be undone");
    else {
        quiet.quiet = c->now;
        code = request(&quiet, k, vault, n, &a);
        if (!code && c->now) {
            fputs("single-administrator mode: retired by one administrator alone, without anybody's approval. To change that: leadglass officer add\n", stderr);
            code = carry_out(c, k, a.nonce, vault, n);
        }
    }
    free(st);
    return code;
}
