#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"
#include "leadglass/audit.h"
#include "leadglass/crypto.h"
#include "leadglass/passphrase.h"

enum { SUPER_FD = 3, LISTEN_FD = 4, RESTARTS_MAX = 10, RESTART_WINDOW_MS = 60000 };

struct keyd_options {
    char keyring[PATH_MAX], slot[PATH_MAX], socket[PATH_MAX], audit[PATH_MAX], mirror[PATH_MAX - 8];
    const char *tpm;
    unsigned audit_keep;
    bool no_audit, audit_continue;
    struct lg_passphrase_source pass;
    unsigned scrypt_ms;
    const char *key_file;
    bool check, json;
    bool init, foreground, allow_unlocked, worker, syslogging;
};

static const char usage_text[] =
    "usage: leadglass-keyd --keyring DIR --init [--root-slot FILE] [--passphrase-file F]   create a keyring and exit\n"
    "       leadglass-keyd --keyring DIR [--root-slot FILE] [--mirror DIR] [--socket PATH] [--foreground]  serve it\n"
    "       leadglass-keyd --keyring DIR --check [--root-slot FILE] [--mirror DIR] [--passphrase-file F] [--json]  what is damaged, what is not\n"
    "\n"
    "The key manager: alone opens the keyring. It starts locked, unless the keyring has a TPM slot; `leadglass unlock` gives it the passphrase.\n"
    "\n"
    "  --keyring DIR             default: /var/lib/leadglass/keyring, or leadglass/keyring in XDG_DATA_HOME for other users than root\n"
    "  --root-slot FILE          the root-slot file (default: DIR.root). Keep it on storage that is neither backed up nor snapshotted\n"
    "  --mirror DIR              keep a second copy on another disk (its root-slot file: DIR.root): nothing is acknowledged before both have it\n"
    "  --socket PATH             default: LEADGLASS_SOCKET, else /run/leadglass/keyd.sock, else leadglass/keyd.sock in XDG_RUNTIME_DIR\n"
    "  --init                    create the keyring and its root-slot file, then exit\n"
    "  --check                   say what of the keyring, its root-slot file and its mirror is damaged and what is not, then exit. Changes nothing; no key\n"
    "                            manager may serve it. With --passphrase-file or --key-file every wrap is opened too, else only what needs no secret\n"
    "  --key-file FILE           for --check: a key file instead of a passphrase\n"
    "  --json                    for --check: JSON\n"
    "  --passphrase-file FILE    for --init: the passphrase instead of a prompt (`-`: standard input)\n"
    "  --passphrase-fd N         the same from a descriptor\n"
    "  --scrypt-ms N             for --init: how long one guess at the passphrase shall take here (default 500)\n"
    "  --audit DIR|off           where the access log is kept (default: KEYRING.audit); mounts keep theirs there too\n"
    "  --audit-keep DAYS         how long (default 184, the least; 0: for ever)\n"
    "  --audit-on-failure W      refuse (the default): while nothing can be recorded, keys are refused (ECANCELED); continue: go on without records\n"
    "  --tpm TCTI|off            how to reach the machine's TPM, as tpm2-tss names it (default device:/dev/tpmrm0). With a TPM slot (leadglass slot add\n"
    "                            NAME --tpm) the key manager unlocks by itself when it starts; when the TPM refuses, it waits for a passphrase\n"
    "  --foreground, -f          do not become a daemon; log to stderr\n"
    "  --allow-unlocked-memory   go on when key memory cannot be locked\n"
    "  --help, --version\n"
    "\n"
    "Exit status: 0 done (serving; --check: all good), 1 failed (--check: damage), 2 usage, 3 passphrase missing, empty, not repeated alike or (--check) wrong,\n"
    "7 another key manager serves this keyring or socket, 8 the keyring cannot be used.\n";

static int fail(int code, const char *what, const char *detail)
{
    lg_log(LOG_ERR, "%s%s%s", what, detail ? ": " : "", detail ? detail : "");
    return code;
}

/* ---- options --------------------------------------------------------------------------------------------------------------------------------- */

static int absolute(const char *path, char out[PATH_MAX])
{
    char cwd[PATH_MAX];
    int n;
    if (path[0] == '/')
        n = snprintf(out, PATH_MAX, "%s", path);
    else if (getcwd(cwd, sizeof cwd))
        n = snprintf(out, PATH_MAX, "%s/%s", cwd, path);
    else
        return -errno;
    size_t len = n > 0 && n < PATH_MAX ? (size_t)n : 0;
    while (len > 1 && out[len - 1] == '/')
        out[--len] = 0;
    return len ? 0 : -ENAMETOOLONG;
}

static int default_keyring(char out[PATH_MAX])
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    if (geteuid() == 0)
        return absolute("/var/lib/leadglass/keyring", out);
    char path[PATH_MAX];
    int n = data && *data ? snprintf(path, sizeof path, "%s/leadglass/keyring", data) : home ? snprintf(path, sizeof path, "%s/.local/share/leadglass/keyring", home) : -1;
    return n < 0 || n >= (int)sizeof path ? -ENOENT : absolute(path, out);
}

static int mirror_option(const char *arg, struct keyd_options *o)
{
    char path[PATH_MAX];
    int rc = absolute(arg, path);
    return rc ? rc : snprintf(o->mirror, sizeof o->mirror, "%s", path) >= (int)sizeof o->mirror ? -ENAMETOOLONG : 0;
}

static int parse(int argc, char **argv, struct keyd_options *o)
{
    static const struct option longs[] = { { "keyring", 1, NULL, 'k' },         { "root-slot", 1, NULL, 'r' },     { "socket", 1, NULL, 's' },    { "init", 0, NULL, 'i' }, { "check", 0, NULL, 'c' }, { "json", 0, NULL, 'j' }, { "key-file", 1, NULL, 'y' },
                                           { "passphrase-file", 1, NULL, 'p' }, { "passphrase-fd", 1, NULL, 'P' }, { "scrypt-ms", 1, NULL, 'm' }, { "foreground", 0, NULL, 'f' },
                                           { "allow-unlocked-memory", 0, NULL, 'u' }, { "mirror", 1, NULL, 'M' }, { "tpm", 1, NULL, 't' }, { "audit", 1, NULL, 'a' }, { "audit-keep", 1, NULL, 'K' }, { "audit-on-failure", 1, NULL, 'F' }, { "worker", 0, NULL, 'w' },    { "worker-syslog", 0, NULL, 'W' },
                                           { "help", 0, NULL, 'h' },            { "version", 0, NULL, 'V' },       { NULL, 0, NULL, 0 } };
    int rc = 0;
    *o = (struct keyd_options){ .pass = { NULL, -1 }, .scrypt_ms = 500, .tpm = "device:/dev/tpmrm0", .audit_keep = LG_AUDIT_KEEP_DAYS_MIN };
    for (int c; (c = getopt_long(argc, argv, "fhV", longs, NULL)) != -1;) {
        char *end;
        unsigned long n;
        switch (c) {
        case 'k': rc = absolute(optarg, o->keyring); break;
        case 'r': rc = absolute(optarg, o->slot); break;
        case 's': rc = absolute(optarg, o->socket); break;
        case 'a':
            o->no_audit = strcmp(optarg, "off") == 0;
            rc = o->no_audit ? 0 : absolute(optarg, o->audit);
            break;
        case 'K':
            n = strtoul(optarg, &end, 10);
            if (*end || end == optarg || n > 36500 || (n && n < LG_AUDIT_KEEP_DAYS_MIN))
                return fail(LG_EXIT_USAGE, "--audit-keep: expected at least 184 days, or 0 for ever", optarg);
            o->audit_keep = (unsigned)n;
            break;
        case 'F':
            o->audit_continue = strcmp(optarg, "continue") == 0;
            if (!o->audit_continue && strcmp(optarg, "refuse") != 0)
                return fail(LG_EXIT_USAGE, "--audit-on-failure: expected refuse or continue", optarg);
            break;
        case 'i': o->init = true; break;
        case 'c': o->check = true; break;
        case 'j': o->json = true; break;
        case 'y': o->key_file = optarg; break;
        case 'p': o->pass.file = optarg; break;
        case 'P':
        case 'm':
            n = strtoul(optarg, &end, 10);
            if (*end || end == optarg || n > 60000 || (c == 'm' && !n))
                return fail(LG_EXIT_USAGE, "expected a number", optarg);
            if (c == 'm')
                o->scrypt_ms = (unsigned)n;
            else
                o->pass.fd = (int)n;
            break;
        case 'f': o->foreground = true; break;
        case 'u': o->allow_unlocked = true; break;
        case 'M': rc = mirror_option(optarg, o); break;
        case 't':
            if (!*optarg)
                return fail(LG_EXIT_USAGE, "--tpm: expected a TCTI, such as device:/dev/tpmrm0, or off", NULL);
            o->tpm = strcmp(optarg, "off") == 0 ? NULL : optarg;
            break;
        case 'w': o->worker = true; break;
        case 'W': o->syslogging = true; break;
        case 'h': fputs(usage_text, stdout); exit(LG_EXIT_OK);
        case 'V': puts("leadglass-keyd " LEADGLASS_VERSION); exit(LG_EXIT_OK);
        default: return fail(LG_EXIT_USAGE, "see leadglass-keyd --help", NULL);
        }
        if (rc)
            return fail(LG_EXIT_USAGE, optarg, strerror(-rc));
    }
    if (optind < argc)
        return fail(LG_EXIT_USAGE, "unexpected argument", argv[optind]);
    if (!o->keyring[0] && default_keyring(o->keyring))
        return fail(LG_EXIT_USAGE, "say --keyring DIR", NULL);
    if (!o->slot[0] && snprintf(o->slot, sizeof o->slot, "%s.root", o->keyring) >= (int)sizeof o->slot)
        return fail(LG_EXIT_USAGE, o->keyring, strerror(ENAMETOOLONG));
    if (!o->no_audit && !o->audit[0] && snprintf(o->audit, sizeof o->audit, "%s.audit", o->keyring) >= (int)sizeof o->audit)
        return fail(LG_EXIT_USAGE, o->keyring, strerror(ENAMETOOLONG));
    if (o->mirror[0] && (o->init || strcmp(o->mirror, o->keyring) == 0))
        return fail(LG_EXIT_USAGE, "--mirror", o->init ? "is for serving: the mirror is made then" : "is the keyring itself");
    if (o->check && (o->init || o->worker))
        return fail(LG_EXIT_USAGE, "--check", "is not for --init");
    if ((o->json || o->key_file) && !o->check)
        return fail(LG_EXIT_USAGE, o->json ? "--json" : "--key-file", "is for --check");
    if (o->key_file && (o->pass.file || o->pass.fd >= 0))
        return fail(LG_EXIT_USAGE, "--key-file", "either a passphrase or a key file");
    if (!o->socket[0] && !o->init && !o->check && lg_client_default_socket(o->socket, sizeof o->socket))
        return fail(LG_EXIT_USAGE, "no default socket: say --socket PATH or set LEADGLASS_SOCKET", NULL);
    return 0;
}

static int make_parent(const char *path, mode_t mode)
{
    char dir[PATH_MAX];
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return 0;
    *slash = 0;
    if (mkdir(dir, mode) == 0 || errno == EEXIST)
        return 0;
    if (errno != ENOENT || make_parent(dir, 0755))
        return -errno;
    return mkdir(dir, mode) && errno != EEXIST ? -errno : 0;
}

/* ---- --init --------------------------------------------------------------------------------------------------------------------------------------- */

static int init(const struct keyd_options *o)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    size_t len;
    if (!pass)
        return fail(LG_EXIT_FAILED, "out of memory", NULL);
    if (access(o->keyring, F_OK) == 0 || access(o->slot, F_OK) == 0)
        return fail(LG_EXIT_FAILED, access(o->keyring, F_OK) == 0 ? o->keyring : o->slot, "exists already; nothing was touched. Serve it without --init, or name another place");
    int rc = lg_passphrase_read(&o->pass, "New passphrase", true, pass, &len);
    if (rc)
        return fail(LG_EXIT_PASSPHRASE, "passphrase",
                    rc == -ENOTTY         ? "there is no terminal to ask on: use --passphrase-file"
                    : rc == -EINVAL       ? "is empty"
                    : rc == -EKEYREJECTED ? "the two differ"
                    : rc == -E2BIG        ? "is longer than 1024 bytes"
                                          : strerror(-rc));
    rc = make_parent(o->keyring, 0700);
    if (!rc)
        rc = make_parent(o->slot, 0700);
    if (!rc)
        rc = lg_keyring_create(o->keyring, o->slot, pass, len, o->scrypt_ms);
    if (rc)
        return fail(LG_EXIT_FAILED, o->keyring, strerror(-rc));
    printf("keyring    %s\nroot slot  %s\nKeep the root slot on storage that is neither backed up nor snapshotted: an old copy of it, with the passphrase, revives what was destroyed.\n",
           o->keyring, o->slot);
    return LG_EXIT_OK;
}

/* ---- the socket ------------------------------------------------------------------------------------------------------------------------------------- */

static int listen_at(const char *path, int *ret_fd)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    char lock[PATH_MAX + 8];
    if (strlen(path) >= sizeof a.sun_path)
        return fail(LG_EXIT_USAGE, path, "too long for a socket (107 bytes)");
    memcpy(a.sun_path, path, strlen(path) + 1);
    int rc = make_parent(path, 0755);
    if (rc)
        return fail(LG_EXIT_FAILED, path, strerror(-rc));
    /* Whoever holds this owns the path: then a socket that nobody answers is a stale one. */
    snprintf(lock, sizeof lock, "%s.lock", path);
    int lockfd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (lockfd < 0)
        return fail(LG_EXIT_FAILED, lock, strerror(errno));
    if (flock(lockfd, LOCK_EX | LOCK_NB))
        return fail(LG_EXIT_BUSY, path, "another key manager serves this socket. End it first, or choose another with --socket");
    struct stat st;
    if (lstat(path, &st) == 0) {
        if (!S_ISSOCK(st.st_mode))
            return fail(LG_EXIT_FAILED, path, "exists and is not a socket; nothing was touched");
        int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        bool live = probe >= 0 && connect(probe, (struct sockaddr *)&a, sizeof a) == 0;
        if (probe >= 0)
            close(probe);
        if (live)
            return fail(LG_EXIT_BUSY, path, "somebody serves this socket already. End it first, or choose another with --socket");
        unlink(path);
    }
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof a) || chmod(path, 0666) || listen(fd, 128))
        return fail(LG_EXIT_FAILED, path, strerror(errno));
    *ret_fd = fd;
    return 0;
}

/* ---- supervising ----------------------------------------------------------------------------------------------------------------------------------------- */

struct supervisor {
    const struct keyd_options *o;
    int listen_fd, ready_fd, signals;
    char **argv;
    struct lg_super *root; /* secret memory; epoch 0: locked */
    pid_t worker;
    int fd; /* to the worker */
    bool again;  /* not the first worker */
};

static int spawn(struct supervisor *s)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair))
        return -errno;
    s->worker = fork();
    if (s->worker < 0) {
        close(pair[0]);
        close(pair[1]);
        return -errno;
    }
    if (s->worker == 0) { /* executes at once: secret memory is not inherited */
        sigset_t none;
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        int a = fcntl(pair[1], F_DUPFD, 10), b = fcntl(s->listen_fd, F_DUPFD, 10);
        if (a < 0 || b < 0 || dup2(a, SUPER_FD) < 0 || dup2(b, LISTEN_FD) < 0)
            _exit(LG_EXIT_FATAL);
        close(a);
        close(b);
        char keep[16];
        snprintf(keep, sizeof keep, "%u", s->o->audit_keep);
        char *argv[] = { s->argv[0], (char[]){ "--worker" }, (char[]){ "--keyring" }, (char *)(uintptr_t)s->o->keyring, (char[]){ "--root-slot" }, (char *)(uintptr_t)s->o->slot,
                         (char[]){ "--socket" }, (char *)(uintptr_t)s->o->socket, s->o->foreground ? (char[]){ "--foreground" } : (char[]){ "--worker-syslog" },
                         (char[]){ "--audit" }, s->o->no_audit ? (char[]){ "off" } : (char *)(uintptr_t)s->o->audit, (char[]){ "--audit-keep" }, keep,
                         (char[]){ "--tpm" }, s->o->tpm ? (char *)(uintptr_t)s->o->tpm : (char[]){ "off" }, (char[]){ "--audit-on-failure" }, s->o->audit_continue ? (char[]){ "continue" } : (char[]){ "refuse" },
                         NULL, NULL, NULL, NULL };
        char **end = argv + 17, unlocked[] = "--allow-unlocked-memory", mirror[] = "--mirror";
        if (s->o->allow_unlocked)
            *end++ = unlocked;
        if (s->o->mirror[0]) {
            *end++ = mirror;
            *end++ = (char *)(uintptr_t)s->o->mirror;
        }
        execv("/proc/self/exe", argv);
        _exit(LG_EXIT_FATAL);
    }
    close(pair[1]);
    s->fd = pair[0];
    s->root->kind = LG_SUPER_START;
    s->root->first = !s->again;
    s->again = true;
    return lg_super_send(s->fd, s->root);
}

static void tell_parent(struct supervisor *s, int code)
{
    uint8_t c = (uint8_t)code;
    if (s->ready_fd < 0)
        return;
    if (!code) {
        int null = open("/dev/null", O_RDWR);
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            dup2(null, 2);
            close(null);
        }
        lg_log_open(true);
    }
    (void)!write(s->ready_fd, &c, 1);
    close(s->ready_fd);
    s->ready_fd = -1;
}

/* Messages of one worker until it is gone. */
static void attend(struct supervisor *s, bool *ret_stop)
{
    LG_SECRET_BUF_AUTO struct lg_super *m = lg_secret_alloc(sizeof *m);
    for (;;) {
        struct pollfd p[2] = { { s->fd, POLLIN, 0 }, { s->signals, POLLIN, 0 } };
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[1].revents) {
            struct signalfd_siginfo si;
            if (read(s->signals, &si, sizeof si) == (ssize_t)sizeof si && si.ssi_signo != SIGCHLD) {
                *ret_stop = si.ssi_signo != SIGHUP; /* hangup: another worker, which looks at the mirror anew */
                kill(s->worker, SIGTERM);
            }
        }
        if (!p[0].revents)
            continue;
        if (!m || lg_super_recv(s->fd, m))
            return;
        switch (m->kind) {
        case LG_SUPER_ROOT:
            memcpy(s->root, m, sizeof *m);
            break;
        case LG_SUPER_FORGET:
            lg_wipe(s->root, sizeof *s->root);
            break;
        case LG_SUPER_READY:
            tell_parent(s, LG_EXIT_OK);
            continue;
        default:
            continue;
        }
        lg_wipe(m, sizeof *m);
        m->kind = LG_SUPER_DONE;
        if (lg_super_send(s->fd, m))
            return;
    }
}

static int supervise(const struct keyd_options *o, char **argv, int ready_fd)
{
    struct supervisor s = { .o = o, .ready_fd = ready_fd, .argv = argv, .listen_fd = -1 };
    int64_t began[RESTARTS_MAX] = { 0 };
    sigset_t set;
    bool stop = false;
    int code = listen_at(o->socket, &s.listen_fd), status = 0;
    if (code)
        return code;
    s.root = lg_secret_alloc(sizeof *s.root);
    if (!s.root)
        return fail(LG_EXIT_FAILED, "out of memory", NULL);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGHUP);
    sigprocmask(SIG_BLOCK, &set, NULL);
    signal(SIGPIPE, SIG_IGN);
    s.signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    for (unsigned n = 0; !stop && !code; n++) {
        int64_t now = lg_ms(), *slot = &began[n % RESTARTS_MAX];
        if (n >= RESTARTS_MAX && now - *slot < RESTART_WINDOW_MS)
            poll(NULL, 0, 5000); /* dies as fast as it is started: slow down, but never give up a hospital's keys */
        *slot = lg_ms();
        int rc = spawn(&s);
        if (!rc)
            attend(&s, &stop);
        else
            lg_log(LOG_ERR, "the worker cannot be started: %s", strerror(-rc));
        if (s.worker > 0)
            while (waitpid(s.worker, &status, 0) < 0 && errno == EINTR)
                ;
        close(s.fd);
        if (WIFEXITED(status) && (WEXITSTATUS(status) == LG_EXIT_FATAL || WEXITSTATUS(status) == LG_EXIT_BUSY) && !s.root->epoch)
            code = WEXITSTATUS(status);
        else if (!stop)
            lg_log(LOG_ERR, "the worker ended unexpectedly (%s %d); starting another", WIFSIGNALED(status) ? "signal" : "status",
                   WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status));
    }
    lg_secret_dealloc(s.root);
    unlink(o->socket);
    if (code)
        tell_parent(&s, code);
    return code;
}

int lg_keyd_run(int argc, char **argv)
{
    struct keyd_options o;
    int code = parse(argc, argv, &o);
    if (code)
        return code;
    if (!o.worker && !o.init && !o.check && !o.foreground) {
        int fds[2];
        uint8_t c = LG_EXIT_FAILED;
        ssize_t n;
        if (pipe2(fds, O_CLOEXEC))
            return fail(LG_EXIT_FAILED, "pipe", strerror(errno));
        fflush(NULL);
        pid_t pid = fork();
        if (pid < 0)
            return fail(LG_EXIT_FAILED, "fork", strerror(errno));
        if (pid > 0) { /* until it serves, or has said why not */
            close(fds[1]);
            while ((n = read(fds[0], &c, 1)) < 0 && errno == EINTR)
                ;
            return n == 1 ? c : LG_EXIT_FAILED;
        }
        close(fds[0]);
        setsid();
        (void)!chdir("/");
        if (lg_secret_init(o.allow_unlocked) || lg_crypto_init())
            code = fail(LG_EXIT_FAILED, "key memory cannot be locked. Raise the limit (ulimit -l, LimitMEMLOCK=), or say --allow-unlocked-memory", NULL);
        else
            code = supervise(&o, argv, fds[1]);
        c = (uint8_t)code;
        (void)!write(fds[1], &c, 1);
        _exit(code);
    }
    if (lg_secret_init(o.allow_unlocked))
        return fail(LG_EXIT_FAILED, "key memory cannot be locked. Raise the limit (ulimit -l, LimitMEMLOCK=), or say --allow-unlocked-memory", NULL);
    if (lg_crypto_init())
        return fail(LG_EXIT_FAILED, "OpenSSL lacks an algorithm that is needed, or AES-256-GCM fails its test", NULL);
    if (o.init)
        return init(&o);
    if (o.check)
        return lg_keyd_check(&(struct lg_check_options){ .keyring = o.keyring, .slot = o.slot, .mirror = o.mirror[0] ? o.mirror : NULL, .key_file = o.key_file, .pass = o.pass, .json = o.json, .tpm = o.tpm });
    if (o.worker) {
        struct lg_worker_options w = { .keyring = o.keyring, .slot = o.slot, .socket = o.socket, .mirror = o.mirror[0] ? o.mirror : NULL, .tpm = o.tpm, .listen_fd = LISTEN_FD, .super_fd = SUPER_FD, .to_syslog = o.syslogging,
                                       .audit = o.no_audit ? NULL : o.audit, .audit_keep = o.audit_keep, .audit_continue = o.audit_continue };
        fcntl(SUPER_FD, F_SETFD, FD_CLOEXEC);
        fcntl(LISTEN_FD, F_SETFD, FD_CLOEXEC);
        return lg_worker_run(&w);
    }
    return supervise(&o, argv, -1);
}
