/* leadglass backup create: the key manager gives it in parts, which are written as they come. */
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "backup.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/write.h"

static int sync_dir(const char *file)
{
    char copy[PATH_MAX];
    snprintf(copy, sizeof copy, "%s", file);
    int fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    int rc = fsync(fd) ? -errno : 0;
    close(fd);
    return rc;
}

/* One that is being made. */
struct making {
    const struct cli *c;
    struct lg_client *k;
    const char *file, *pass;
    int fd;
    size_t pass_len;
    unsigned shares[2];
    uint8_t id[LG_ID_LEN];
    bool shared; /* its shares are written or printed */
    bool all; /* the key manager has given its last part */
};

static int frames_write(struct making *m)
{
    unsigned long long bytes = 0;
    uint8_t *buf = malloc(LG_BACKUP_FRAME_MAX), head[4];
    int rc = buf ? 0 : -ENOMEM;
    while (!rc && !m->all) {
        size_t len;
        rc = lg_client_backup_next(m->k, buf, LG_BACKUP_FRAME_MAX, &len, &m->all);
        if (rc)
            break;
        struct lg_wr w = lg_wr(head, sizeof head);
        lg_wr_u32(&w, (uint32_t)len);
        rc = lg_write_all(m->fd, head, sizeof head);
        if (!rc)
            rc = lg_write_all(m->fd, buf, len);
        bytes += len;
        if (isatty(STDERR_FILENO))
            fprintf(stderr, "\r%llu KiB ", bytes / 1024);
    }
    if (isatty(STDERR_FILENO))
        fputc('\n', stderr);
    free(buf);
    return rc;
}

static int create_in(struct making *m)
{
    LG_SECRET_AUTO key = lg_secret_random();
    LG_SECRET_BUF_AUTO struct lg_share *share = lg_secret_alloc(LG_SHARES_MAX * sizeof *share);
    uint8_t header[LG_BACKUP_HEADER_LEN];
    char copy[PATH_MAX], name[LG_BACKUP_NAME_MAX + 1];
    snprintf(copy, sizeof copy, "%s", m->file);
    snprintf(name, sizeof name, "%.255s", basename(copy));
    int rc = key && share ? lg_client_backup_begin(m->k, key, name, m->id) : -ENOMEM;
    if (!rc)
        rc = m->shares[0] ? lg_backup_header_make_shares(m->id, key, m->shares[0], m->shares[1], header, share) : lg_backup_header_make(m->id, key, m->pass, m->pass_len, BACKUP_SCRYPT_MS, header);
    if (!rc)
        rc = lg_write_all(m->fd, header, sizeof header);
    if (!rc && m->shares[0]) { /* before all of it is handed out and it counts as one: without them it opens for nobody */
        char title[64] = "keyring backup ";
        cli_hex(m->id, title + strlen(title));
        rc = shares_put(m->c, share, title) ? -ECANCELED : 0;
        m->shared = !rc;
    }
    if (!rc)
        rc = frames_write(m);
    if (!rc && fsync(m->fd))
        rc = -errno;
    if (!rc)
        rc = sync_dir(m->file);
    return rc ? rc : lg_client_backup_done(m->k, m->id);
}

/* The file is gone. What was made as a whole stays in the inventory: only the officers' word takes it out. */
static int not_made(const struct making *m, int rc)
{
    char hex[2 * LG_ID_LEN + 1];
    int code;
    switch (rc) {
    case -ECANCELED: code = m->shares[0] && !m->shared ? CLI_FAILED : cli_explain(m->c, rc, "backup create"); break;
    case -EBUSY: code = cli_fail(CLI_BUSY, "another keyring backup is being made"); break;
    case -ESTALE: code = cli_fail(CLI_BUSY, "the backup was given up, as the keyring was locked or a study's key destroyed while it was being made; nothing is left of it, unless `leadglass backup list` shows it. Make it again"); break;
    default: code = cli_explain(m->c, rc, "backup create");
    }
    if (m->all) {
        cli_hex(m->id, hex);
        cli_fail(code, "all of keyring backup %s had been handed out: it counts as outstanding although %s was removed, until `leadglass backup void %s`. Make another one", hex, m->file, hex);
    }
    if (m->shared)
        cli_fail(code, "the shares open nothing: throw them away");
    return code;
}

int backup_create(const struct cli *c, struct lg_client *k, const char *file)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    struct making m = { .c = c, .k = k, .file = file, .pass = pass };
    enum lg_slot_type type;
    char hex[2 * LG_ID_LEN + 1];
    int code = CLI_OK;
    if (!pass)
        code = cli_fail(CLI_FAILED, "out of memory");
    else if (!c->shares)
        code = cli_secret(c, "Passphrase of the backup (not the keyring's)", true, &type, pass, &m.pass_len);
    else if (!(code = shares_parse(c->shares, &m.shares[0], &m.shares[1])) && (c->pass.file || c->pass.fd >= 0))
        code = cli_fail(CLI_USAGE, "either a passphrase or --shares");
    if (code)
        return code;
    m.fd = open(file, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400);
    if (m.fd < 0)
        return cli_fail(CLI_FAILED, "%s: %s", file, errno == EEXIST ? "exists already; nothing was touched" : strerror(errno));
    int rc = create_in(&m);
    close(m.fd);
    if (rc) {
        unlink(file);
        return not_made(&m, rc);
    }
    cli_hex(m.id, hex);
    if (c->shares)
        cli_fail(CLI_OK, "keyring backup %s: %s. Any %u of its %u shares open it: give each to another person, and leave no copy here", hex, file, m.shares[0], m.shares[1]);
    else
        printf("keyring backup %s: %s. It opens with its own passphrase; keep both away from the ciphertext and from each other.\n", hex, file);
    return CLI_OK;
}
