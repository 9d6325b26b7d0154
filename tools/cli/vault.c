#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/crypto.h"
#include "leadglass/volume.h"

/* ---- other programs ------------------------------------------------------------------------------------------------------------------------ */

/* Beside this one (installed: in bin's neighbour sbin), else somewhere in PATH. */
int cli_find(const char *name, char out[4096])
{
    static const char *const beside[] = { "", "/../sbin" };
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    char *slash = NULL;
    if (n > 0) {
        self[n] = 0;
        slash = strrchr(self, '/');
    }
    if (slash)
        *slash = 0;
    for (unsigned i = 0; slash && i < sizeof beside / sizeof *beside; i++)
        if (snprintf(out, 4096, "%.3000s%s/%s", self, beside[i], name) < 4096 && access(out, X_OK) == 0)
            return 0;
    const char *path = getenv("PATH");
    while (path && *path) {
        size_t len = strcspn(path, ":");
        if (len && len < 3000 && snprintf(out, 4096, "%.*s/%s", (int)len, path, name) < 4096 && access(out, X_OK) == 0)
            return 0;
        path += len + (path[len] == ':');
    }
    return cli_fail(CLI_FAILED, "%s is not found beside this program nor in PATH", name);
}

int cli_run(char *const argv[], int pass_fd)
{
    int status;
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return cli_fail(CLI_FAILED, "%s", strerror(errno));
    if (pid == 0) {
        if (pass_fd >= 0)
            fcntl(pass_fd, F_SETFD, 0);
        execv(argv[0], argv);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return WIFEXITED(status) ? WEXITSTATUS(status) : CLI_FAILED;
}

/* ---- a key manager that serves ---------------------------------------------------------------------------------------------------------------- */

static int default_keyring(char out[4096])
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int n = geteuid() == 0 ? snprintf(out, 4096, "/var/lib/leadglass/keyring")
            : data && *data ? snprintf(out, 4096, "%s/leadglass/keyring", data)
            : home          ? snprintf(out, 4096, "%s/.local/share/leadglass/keyring", home)
                            : -1;
    return n < 0 || n >= 4096 ? cli_fail(CLI_USAGE, "say --keyring DIR") : 0;
}

/* The passphrase for a child, through a pipe: never in arguments or the environment. */
static int pass_pipe(const char *pass, size_t len, int *ret_fd)
{
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return -errno;
    if (write(fds[1], pass, len) != (ssize_t)len) { /* at most 1 KiB: fits a pipe */
        close(fds[0]);
        close(fds[1]);
        return -EIO;
    }
    close(fds[1]);
    *ret_fd = fds[0];
    return 0;
}

static int create_keyring(const struct cli *c, const char *keyring, const char *pass, size_t len)
{
    char prog[4096], number[16];
    int fd = -1, rc = pass_pipe(pass, len, &fd);
    if (rc)
        return cli_fail(CLI_FAILED, "%s", strerror(-rc));
    int code = cli_find("leadglass-keyd", prog);
    snprintf(number, sizeof number, "%d", fd);
    char *argv[] = { prog, (char[]){ "--init" }, (char[]){ "--keyring" }, (char *)(uintptr_t)keyring, (char[]){ "--passphrase-fd" }, number,
                     c->allow_unlocked ? (char[]){ "--allow-unlocked-memory" } : NULL, NULL };
    if (!code)
        code = cli_run(argv, fd);
    close(fd);
    return code;
}

static int start_keyd(const struct cli *c, const char *keyring)
{
    char prog[4096];
    int code = cli_find("leadglass-keyd", prog);
    char *argv[] = { prog, (char[]){ "--keyring" }, (char *)(uintptr_t)keyring, (char[]){ "--socket" }, (char *)(uintptr_t)c->socket,
                     c->allow_unlocked ? (char[]){ "--allow-unlocked-memory" } : NULL, NULL };
    if (!code)
        code = cli_run(argv, -1);
    if (!code)
        fprintf(stderr, "key manager started for %s at %s\n", keyring, c->socket);
    return code;
}

int cli_need_keyd(struct cli *c, bool create, struct lg_client **ret)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    struct lg_client *k = NULL;
    char keyring[4096];
    size_t len = 0;
    unsigned wait;
    bool have_pass = false;
    int code = pass && s ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    int rc = code ? 0 : lg_client_status(k, s);
    if (!code && (rc == -ENOENT || rc == -ECONNREFUSED)) {
        code = c->keyring ? (snprintf(keyring, sizeof keyring, "%s", c->keyring), 0) : default_keyring(keyring);
        bool exists = !code && access(keyring, F_OK) == 0;
        if (!code && !exists && !create)
            code = cli_fail(CLI_NO_KEYD, "no key manager answers at %s, and there is no keyring at %s. `leadglass init VAULT` makes one; a mount never does", c->socket, keyring);
        if (!code && !exists) {
            fprintf(stderr, "making a keyring at %s\n", keyring);
            rc = lg_passphrase_read(&c->pass, "New passphrase", true, pass, &len);
            if (rc)
                code = cli_fail(CLI_PASSPHRASE, "passphrase: %s", rc == -ENOTTY ? "there is no terminal to ask on; use --passphrase-file" :
                                rc == -EINVAL ? "is empty" : rc == -EKEYREJECTED ? "the two differ" : strerror(-rc));
            else
                code = create_keyring(c, keyring, pass, len);
            have_pass = !code;
        }
        if (!code)
            code = start_keyd(c, keyring);
        rc = code ? 0 : lg_client_status(k, s);
    }
    if (!code && rc)
        code = cli_explain(c, rc, c->command);
    if (!code && !s->unlocked) {
        if (!have_pass) {
            rc = lg_passphrase_read(&c->pass, "Passphrase", false, pass, &len);
            if (rc)
                code = cli_fail(rc == -ENOTTY ? CLI_LOCKED : CLI_PASSPHRASE, "the keyring is locked: %s", rc == -ENOTTY ? "run `leadglass unlock`, or give --passphrase-file" :
                                rc == -EINVAL ? "the passphrase is empty" : strerror(-rc));
        }
        if (!code) {
            rc = lg_client_unlock(k, pass, len, &wait);
            if (rc == -EKEYREJECTED || rc == -EAGAIN)
                code = cli_fail(CLI_PASSPHRASE, "%s. The next attempt is taken in %u s", rc == -EAGAIN ? "not tried after wrong passphrases" : "wrong passphrase", wait);
            else if (rc)
                code = cli_tpm_error(rc) ? cli_fail(CLI_FAILED, "%s", cli_tpm_error(rc)) : cli_explain(c, rc, "unlock");
        }
    }
    free(s);
    if (code)
        lg_client_free(k);
    else
        *ret = k;
    return code;
}

/* ---- init -------------------------------------------------------------------------------------------------------------------------------------- */

static int run_init(struct cli *c)
{
    struct lg_client *k;
    struct lg_vault_info info = { .version = 1, .chunk_size = c->chunk_kib * 1024 }, old;
    struct lg_key vault = { .key = NULL }, general = { .key = NULL };
    char id[2 * LG_ID_LEN + 1];
    struct stat st;
    if (c->argc != 1)
        return cli_fail(CLI_USAGE, "expected VAULT; see leadglass init --help");
    const char *dir = c->argv[0];
    if (c->chunk_kib < 4 || c->chunk_kib > 256 || c->chunk_kib & (c->chunk_kib - 1))
        return cli_fail(CLI_USAGE, "--chunk-size %u: expected a power of two from 4 to 256", c->chunk_kib);
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return cli_fail(CLI_FAILED, "%s is not a directory", dir);
    int rc = lg_vault_read(dir, &old);
    if (rc == 0 || rc == -EPROTONOSUPPORT)
        return cli_fail(CLI_FAILED, "%s is a vault already; nothing was touched", dir);
    int code = cli_need_keyd(c, true, &k);
    if (code)
        return code;
    rc = lg_random(info.vault_id, LG_ID_LEN);
    if (!rc)
        rc = lg_client_vault_add(k, info.vault_id, info.keyring_id, &vault, &general);
    if (rc)
        code = cli_explain(c, rc, "registering the vault");
    else {
        rc = lg_vault_create(dir, &info, vault.key);
        if (rc)
            code = cli_fail(CLI_FAILED, "%s: %s", dir, rc == -ENOTEMPTY ? "is not empty; a vault needs a directory of its own" : rc == -ENOSPC ? "no space for the journal (32 MiB)" : strerror(-rc));
    }
    lg_secret_free(vault.key);
    lg_secret_free(general.key);
    struct lg_keyd_status *now = calloc(1, sizeof *now);
    if (!code && now && lg_client_status(k, now) == 0 && now->unlocked && !now->officer_mode)
        fputs("single-administrator mode: one administrator alone can destroy studies. Register officers: leadglass officer --help\n", stderr);
    free(now);
    lg_client_free(k);
    if (!code) {
        cli_hex(info.vault_id, id);
        printf("vault %s is ready (%s). Mount it: leadglass mount %s MOUNTPOINT\n", dir, id, dir);
    }
    return code;
}

static const struct cli_option init_options[] = {
    { "chunk-size", "KIB", "4 to 256, a power of two; for the whole vault, for ever (default 16)", CLI_NUMBER, CLI_INTO(chunk_kib), 0 }, { 0 }
};
const struct cli_command cli_init = {
    "init", "VAULT", "make a new, empty vault and register it with the key manager",
    "When no key manager answers, a keyring is created (asking for a passphrase) and a key manager started.\n", NULL,
    { init_options, cli_pass_options, cli_keyring_options }, run_init, false,
};

/* ---- mount, umount --------------------------------------------------------------------------------------------------------------------------------- */

static int run_mount(struct cli *c)
{
    struct lg_client *k;
    char prog[4096];
    struct lg_vault_info info;
    if (c->argc != 2)
        return cli_fail(CLI_USAGE, "expected VAULT and MOUNTPOINT; see leadglass mount --help");
    int rc = lg_vault_read(c->argv[0], &info);
    if (rc && rc != -EPROTO && rc != -EPROTONOSUPPORT) /* leadglass-fs explains those */
        return cli_fail(CLI_FAILED, "%s: %s", c->argv[0], rc == -ENOENT ? "there is no vault. Create one with `leadglass init`" : strerror(-rc));
    int code = rc ? 0 : cli_need_keyd(c, false, &k);
    if (code)
        return code;
    if (!rc)
        lg_client_free(k);
    code = cli_find("leadglass-fs", prog);
    if (code)
        return code;
    char *argv[16], absolute[PATH_MAX], socket[] = "--socket", options[] = "-o", foreground[] = "--foreground", unlocked[] = "--allow-unlocked-memory";
    int n = 0;
    argv[n++] = prog;
    argv[n++] = socket;
    argv[n++] = (char *)(uintptr_t)c->socket;
    if (c->mount_options) {
        argv[n++] = options;
        argv[n++] = (char *)(uintptr_t)c->mount_options;
    }
    if (c->foreground)
        argv[n++] = foreground;
    if (c->allow_unlocked)
        argv[n++] = unlocked;
    argv[n++] = c->argv[0];
    argv[n++] = realpath(c->argv[1], absolute) ? absolute : c->argv[1];
    argv[n] = NULL;
    execv(prog, argv);
    return cli_fail(CLI_FAILED, "%s: %s", prog, strerror(errno));
}

static const struct cli_option mount_options[] = {
    { "o", "opt,...", "mount options", CLI_TEXT, CLI_INTO(mount_options), 'o' },
    { "foreground", NULL, "stay in the foreground", CLI_FLAG, CLI_INTO(foreground), 'f' },
    { 0 },
};
const struct cli_command cli_mount = {
    "mount", "VAULT MOUNTPOINT", "mount a vault",
    "When no key manager answers, one is started for an existing keyring; if it is locked, the passphrase is asked for.\n"
    "Options of -o: see leadglass-fs --help.\n",
    NULL, { mount_options, cli_pass_options, cli_keyring_options }, run_mount, false,
};

static bool mounted(const char *mountpoint)
{
    char line[8192], want[PATH_MAX + 3];
    snprintf(want, sizeof want, " %s ", mountpoint);
    FILE *f = fopen("/proc/self/mountinfo", "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, want) && strstr(line, " fuse.leadglass ");
    if (f)
        fclose(f);
    return found;
}

/* The path without touching what is mounted there, as its daemon may be gone: the parent resolved, the last part as it is. */
static int resolve(const char *path, char out[PATH_MAX])
{
    char copy[PATH_MAX], parent[PATH_MAX];
    if (realpath(path, out))
        return 0;
    if (snprintf(copy, sizeof copy, "%s", path) >= (int)sizeof copy)
        return -ENAMETOOLONG;
    size_t len = strlen(copy);
    while (len > 1 && copy[len - 1] == '/')
        copy[--len] = 0;
    char *slash = strrchr(copy, '/');
    const char *last = slash ? slash + 1 : copy;
    if (slash)
        *slash = 0;
    if (!realpath(slash ? (copy[0] ? copy : "/") : ".", parent))
        return -errno;
    return snprintf(out, PATH_MAX, "%.2000s/%.2000s", parent, last) < PATH_MAX ? 0 : -ENAMETOOLONG;
}

static pid_t daemon_of(const struct cli *c, const char *mountpoint)
{
    struct lg_client *k;
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    pid_t pid = 0;
    if (s && lg_client_new(c->socket, &k) == 0) {
        if (lg_client_status(k, s) == 0)
            for (unsigned i = 0; i < s->n_mounts; i++)
                if (strcmp(s->mounts[i].mountpoint, mountpoint) == 0)
                    pid = (pid_t)s->mounts[i].pid;
        lg_client_free(k);
    }
    free(s);
    return pid;
}

static int run_umount(struct cli *c)
{
    char path[PATH_MAX];
    if (c->argc != 1)
        return cli_fail(CLI_USAGE, "expected MOUNTPOINT; see leadglass umount --help");
    int rc = resolve(c->argv[0], path);
    if (rc)
        return cli_fail(CLI_FAILED, "%s: %s", c->argv[0], strerror(-rc));
    if (!mounted(path))
        return cli_fail(CLI_FAILED, "no vault is mounted at %s", path);
    pid_t pid = daemon_of(c, path);
    /* Readable once it has ended, whether or not somebody has asked how: what starts a container may never do. */
    struct pollfd ended = { .fd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1, .events = POLLIN };
    if (pid > 0 && ended.fd < 0 && errno != ESRCH)
        return cli_fail(CLI_FAILED, "process %d, which serves %s, cannot be waited for: %s", (int)pid, path, strerror(errno));
    if (geteuid() == 0) {
        if (umount2(path, 0))
            rc = -errno;
    } else {
        char *argv[] = { (char[]){ "/usr/bin/fusermount3" }, (char[]){ "-u" }, path, NULL };
        int code = cli_run(argv, -1);
        if (code)
            return cli_fail(CLI_FAILED, "fusermount3 could not unmount %s", path);
    }
    if (rc == -EBUSY)
        return cli_fail(CLI_BUSY, "%s is in use; end the programs that use it first (fuser -vm %s shows them)", path, path);
    if (rc)
        return cli_fail(CLI_FAILED, "%s: %s", path, strerror(-rc));
    /* Unmounted; what was written reaches the disk before the daemon ends. */
    for (int n, wait_ms = 1000; ended.fd >= 0 && ((n = poll(&ended, 1, wait_ms)) == 0 || (n < 0 && errno == EINTR)); wait_ms = -1)
        if (n == 0 && isatty(STDERR_FILENO))
            fputs("waiting until everything is on disk ...\n", stderr);
    return CLI_OK;
}

const struct cli_command cli_umount = { "umount", "MOUNTPOINT", "unmount, and wait until everything is on disk", NULL, NULL, { NULL }, run_umount, false };
