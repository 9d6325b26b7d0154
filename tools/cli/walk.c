/* The files of mounted vaults and the keys that protect them, for commands that work through every file. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/bytes.h"
#include "leadglass/volume.h"

int cli_mount_of(const struct cli *c, struct lg_client *k, const char *vault, char ret[1024])
{
    struct lg_vault_info info;
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    int rc = lg_vault_read(vault, &info), code = CLI_OK;
    if (geteuid() != 0) /* the kernel lets only root see trusted attributes */
        code = cli_fail(CLI_FAILED, "this needs root");
    else if (rc)
        code = cli_fail(CLI_FAILED, "%s: %s", vault, rc == -ENOENT ? "there is no vault. Name the directory with the ciphertext, not where it is mounted" : strerror(-rc));
    else if (!s || (rc = lg_client_status(k, s)) != 0)
        code = cli_explain(c, s ? rc : -ENOMEM, c->command);
    else {
        unsigned i = 0;
        while (i < s->n_mounts && memcmp(s->mounts[i].vault_id, info.vault_id, LG_ID_LEN) != 0)
            i++;
        if (i == s->n_mounts)
            code = cli_fail(CLI_FAILED, "vault %s is not mounted, and this works through a mount: leadglass mount %s MOUNTPOINT", vault, vault);
        else
            snprintf(ret, 1024, "%s", s->mounts[i].mountpoint);
    }
    free(s);
    return code;
}

enum { HEX = 2 * LG_ID_LEN, KEY_TEXT_MAX = HEX + 1 + 10 + 1 + HEX };

int cli_key_parse(const char *untrusted, size_t len, struct cli_file *f)
{
    char text[KEY_TEXT_MAX + 1] = { 0 }, *end;
    if (len < HEX + 3 + HEX || len > KEY_TEXT_MAX)
        return -EPROTO;
    memcpy(text, untrusted, len);
    if (text[HEX] != ' ' || text[HEX + 1] < '0' || text[HEX + 1] > '9')
        return -EPROTO;
    text[HEX] = 0;
    unsigned long v = strtoul(text + HEX + 1, &end, 10);
    if (*end != ' ' || v > UINT32_MAX || end + 1 + HEX != text + len || lg_hex_decode(text, f->kid, LG_ID_LEN) || lg_hex_decode(end + 1, f->file_id, LG_ID_LEN))
        return -EPROTO;
    f->version = (uint32_t)v;
    return 0;
}

int cli_key_of(const char *path, struct cli_file *f)
{
    char text[KEY_TEXT_MAX + 1];
    ssize_t n = lgetxattr(path, LG_XATTR_KEY, text, sizeof text); /* a longer one is none of ours: -ERANGE */
    return n < 0 ? -errno : cli_key_parse(text, (size_t)n, f);
}

/* ---- every file beneath a directory. fts(3) takes a directory that cannot be listed to its end for one that has ended: not here ------------------------------- */

struct tree {
    int (*each)(void *arg, const char *path, const struct stat *st, int error);
    void *arg;
    dev_t dev;
};

/* The names in a directory, one after the other with their zeros; some of them on error, too. */
static int names_of(const char *dir, char **ret, size_t *ret_len)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOATIME); /* this is no use of it */
    if (fd < 0 && errno == EPERM)
        fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    char *b = NULL;
    size_t len = 0, cap = 0;
    int rc = d ? 0 : -errno;
    while (!rc) {
        errno = 0;
        struct dirent *e = readdir(d);
        if (!e) {
            rc = -errno;
            break;
        }
        size_t n = strlen(e->d_name) + 1;
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        if (len + n > cap) {
            char *p = realloc(b, cap = 2 * cap + 4096);
            if (!p) {
                rc = -ENOMEM;
                break;
            }
            b = p;
        }
        memcpy(b + len, e->d_name, n);
        len += n;
    }
    if (d)
        closedir(d);
    *ret = b;
    *ret_len = len;
    return rc;
}

static int beneath(struct tree *t, const char *dir)
{
    char *names, *path;
    size_t len;
    int rc = names_of(dir, &names, &len), code = rc && rc != -ENOENT ? t->each(t->arg, dir, NULL, rc) : CLI_OK;
    for (size_t i = 0; !code && i < len; i += strlen(names + i) + 1) {
        struct stat st;
        if (asprintf(&path, "%s/%s", dir, names + i) < 0) {
            code = cli_fail(CLI_FAILED, "out of memory");
            break;
        }
        if (lstat(path, &st))
            code = errno == ENOENT ? CLI_OK : t->each(t->arg, path, NULL, -errno); /* ENOENT: deleted meanwhile */
        else if (S_ISDIR(st.st_mode) && st.st_dev == t->dev)
            code = beneath(t, path);
        else
            code = t->each(t->arg, path, &st, S_ISDIR(st.st_mode) ? -EXDEV : 0);
        free(path);
    }
    free(names);
    return code;
}

int cli_tree(const char *top, int (*each)(void *arg, const char *path, const struct stat *st, int error), void *arg)
{
    struct tree t = { .each = each, .arg = arg };
    struct stat st;
    if (stat(top, &st))
        return cli_fail(CLI_FAILED, "%s: %s", top, strerror(errno));
    t.dev = st.st_dev;
    return beneath(&t, top);
}

struct walk {
    int (*each)(void *arg, const struct cli_file *f);
    void *arg;
};

static int walk_one(void *arg, const char *path, const struct stat *st, int error)
{
    struct walk *w = arg;
    struct cli_file f = { .path = path, .st = st, .error = error };
    if (error == -EXDEV || (st && !error && !S_ISREG(st->st_mode)))
        return CLI_OK;
    if (!error)
        f.error = cli_key_of(path, &f);
    return f.error == -ENOENT ? CLI_OK : w->each(w->arg, &f); /* -ENOENT: deleted meanwhile */
}

int cli_walk(const char *mountpoint, int (*each)(void *arg, const struct cli_file *f), void *arg)
{
    struct walk w = { .each = each, .arg = arg };
    return cli_tree(mountpoint, walk_one, &w);
}
