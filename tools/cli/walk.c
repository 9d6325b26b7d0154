/* The files of mounted vaults and the keys that protect them, for commands that work through every file. */
#include <fts.h>
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
        code = cli_fail(CLI_FAILED, "%s: %s", vault, rc == -ENOENT ? "there is no vault" : strerror(-rc));
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

int cli_key_of(const char *path, struct cli_file *f)
{
    enum { HEX = 2 * LG_ID_LEN };
    char text[96] = { 0 }, *end;
    ssize_t n = lgetxattr(path, LG_XATTR_KEY, text, sizeof text - 1);
    if (n < 0)
        return -errno;
    if (n < HEX + 2 || text[HEX] != ' ')
        return -EPROTO;
    text[HEX] = 0;
    if (lg_hex_decode(text, f->kid, LG_ID_LEN))
        return -EPROTO;
    unsigned long v = strtoul(text + HEX + 1, &end, 10);
    if (*end != ' ' || v > UINT32_MAX || strlen(end + 1) != HEX || lg_hex_decode(end + 1, f->file_id, LG_ID_LEN))
        return -EPROTO;
    f->version = (uint32_t)v;
    return 0;
}

int cli_walk(const char *mountpoint, int (*each)(void *arg, const struct cli_file *f), void *arg)
{
    char *paths[] = { (char *)(uintptr_t)mountpoint, NULL };
    FTS *t = fts_open(paths, FTS_PHYSICAL | FTS_XDEV | FTS_NOCHDIR, NULL);
    int code = t ? CLI_OK : cli_fail(CLI_FAILED, "%s: %s", mountpoint, strerror(errno));
    for (FTSENT *e; t && code != CLI_FAILED && (e = fts_read(t));) {
        struct cli_file f = { .path = e->fts_path, .st = e->fts_statp };
        if (e->fts_info == FTS_F && S_ISREG(e->fts_statp->st_mode))
            f.error = cli_key_of(e->fts_path, &f);
        else if (e->fts_info == FTS_DNR || e->fts_info == FTS_ERR || e->fts_info == FTS_NS)
            f.error = -e->fts_errno;
        else
            continue;
        if (f.error == -ENOENT) /* deleted meanwhile */
            continue;
        code = each(arg, &f);
    }
    if (t)
        fts_close(t);
    return code;
}
