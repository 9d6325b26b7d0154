/* Shares of a keyring backup's secret: printed for n people, of whom any k open it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/backup.h"

int shares_parse(const char *text, unsigned *ret_k, unsigned *ret_n)
{
    char *end;
    unsigned long k = strtoul(text, &end, 10), n = *end == '/' && end != text ? strtoul(end + 1, &end, 10) : 0;
    if (*end || k < 2 || k > n || n > LG_SHARES_MAX)
        return cli_fail(CLI_USAGE, "--shares %s: expected K/N, such as 3/5: any K of N shares open the backup, 2 <= K <= N <= %u", text, LG_SHARES_MAX);
    *ret_k = (unsigned)k;
    *ret_n = (unsigned)n;
    return CLI_OK;
}

static int share_file(const char *dir, const struct lg_share *s, const char *text)
{
    char path[4200];
    snprintf(path, sizeof path, "%.4000s/share-%u-of-%u.txt", dir, s->x, s->n);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400), rc = fd < 0 ? -errno : 0;
    for (size_t at = 0, len = strlen(text); !rc && at < len;) {
        ssize_t n = write(fd, text + at, len - at);
        rc = n < 0 && errno != EINTR ? -errno : 0;
        at += n > 0 ? (size_t)n : 0;
    }
    if (!rc && fsync(fd))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc ? cli_fail(CLI_FAILED, "%s: %s", path, rc == -EEXIST ? "exists already; nothing was touched" : strerror(-rc)) : CLI_OK;
}

int shares_put(const struct cli *c, const struct lg_share *s, const char *title)
{
    LG_SECRET_BUF_AUTO char *text = lg_secret_alloc(LG_SHARE_TEXT_MAX);
    int code = text ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
    for (unsigned i = 0; !code && i < s[0].n; i++) {
        if (lg_share_text(&s[i], title, text))
            code = cli_fail(CLI_FAILED, "out of memory");
        else if (c->shares_dir)
            code = share_file(c->shares_dir, &s[i], text);
        else
            printf("%s%s", text, i + 1 < s[0].n ? "\f\n" : "\n"); /* a page each */
    }
    return code ? code : fflush(stdout) || ferror(stdout) ? cli_fail(CLI_FAILED, "the shares could not be printed: %s", strerror(errno)) : CLI_OK;
}

/* ---- reading them ------------------------------------------------------------------------------------------------------------------------------ */

static int from_file(const char *path, struct lg_share *ret)
{
    enum { MAX = 8192 };
    LG_SECRET_BUF_AUTO char *text = lg_secret_alloc(MAX);
    unsigned bad;
    int fd = open(path, O_RDONLY | O_CLOEXEC), rc = !text ? -ENOMEM : fd < 0 ? -errno : 0;
    size_t len = 0;
    for (ssize_t n = 1; !rc && n && len < MAX; len += n > 0 ? (size_t)n : 0) {
        n = read(fd, text + len, MAX - len);
        rc = n < 0 ? -errno : 0;
    }
    if (fd >= 0)
        close(fd);
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "%s: %s", path, strerror(-rc));
    rc = lg_share_parse(text, len, ret, &bad);
    if (rc == -EPROTO && bad)
        return cli_fail(CLI_PASSPHRASE, "%s: group %u is mistyped or missing", path, bad);
    return rc ? cli_fail(CLI_PASSPHRASE, "%s: %s", path, rc == -EPROTO ? "every group is right, but they are not of one share" : rc == -E2BIG ? "holds more than one share" : strerror(-rc)) : CLI_OK;
}

static int typed(unsigned number, unsigned k, struct lg_share *ret)
{
    enum { LINE = 128 };
    LG_SECRET_BUF_AUTO char *text = lg_secret_alloc(LG_SHARE_GROUPS * LINE);
    FILE *tty = fopen("/dev/tty", "r+e");
    size_t len = 0;
    unsigned bad;
    if (!text || !tty) {
        if (tty)
            fclose(tty);
        return cli_fail(CLI_PASSPHRASE, "%s", text ? "this backup opens with shares, and there is no terminal to ask on: use --share-file, once for each" : "out of memory");
    }
    setvbuf(tty, NULL, _IONBF, 0); /* no copy of it stays */
    int code = CLI_OK;
    for (unsigned g = 1; !code && g <= LG_SHARE_GROUPS;) {
        fprintf(tty, "share %u of %u that are needed, group %2u of %u: ", number, k, g, LG_SHARE_GROUPS);
        char *line = text + len;
        if (!fgets(line, LINE, tty)) {
            code = cli_fail(CLI_PASSPHRASE, "the share ends before its last group");
            break;
        }
        int rc = lg_share_group_check(line, strcspn(line, "\n"), g);
        if (!rc) {
            len += strlen(line);
            g++;
        } else if (rc != -ENODATA) { /* the sheet's heading and empty lines are no groups */
            fprintf(tty, rc == -ERANGE ? "that is another group, or mistyped: group %u is asked for; once more\n" : "group %u is mistyped; once more\n", g);
        }
    }
    fclose(tty);
    if (!code && lg_share_parse(text, len, ret, &bad))
        code = cli_fail(CLI_PASSPHRASE, "every group is right, but they are not of one share");
    return code;
}

int shares_get(const struct cli *c, const struct lg_backup_header *h, struct lg_secret *ret_key)
{
    LG_SECRET_BUF_AUTO struct lg_share *s = lg_secret_alloc(LG_SHARES_MAX * sizeof *s);
    unsigned n = c->share_files.n ? c->share_files.n : h->k;
    int code = s ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
    for (unsigned i = 0; !code && i < n; i++) {
        code = c->share_files.n ? from_file(c->share_files.s[i], &s[i]) : typed(i + 1, h->k, &s[i]);
        const char *name = c->share_files.n ? c->share_files.s[i] : "this share";
        if (!code && memcmp(s[i].set, h->set, LG_SHARE_SET_LEN) != 0)
            code = cli_fail(CLI_PASSPHRASE, "%s: is a share of another backup", name);
        for (unsigned j = 0; !code && j < i; j++)
            if (s[j].x == s[i].x)
                code = cli_fail(CLI_PASSPHRASE, "%s: share %u was given already", name, s[i].x);
    }
    if (code)
        return code;
    int rc = lg_backup_header_join(h, s, n, ret_key);
    if (rc == -ENODATA)
        return cli_fail(CLI_PASSPHRASE, "%u shares are not enough: this backup opens with any %u of %u", n, h->k, h->n);
    return rc ? cli_fail(CLI_PASSPHRASE, rc == -EKEYREJECTED ? "these shares do not open the backup" : "the shares: %s", strerror(-rc)) : CLI_OK;
}
