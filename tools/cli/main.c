#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

enum { O_SOCKET = 256, O_JSON, O_PASS_FILE, O_PASS_FD, O_KEYRING, O_REASON, O_NOW, O_FOREGROUND, O_CHUNK, O_UNLOCKED, O_KEY_FILE, O_GENERATE, O_ROOT, O_STUDY, O_ALL_STUDIES };
enum { WITH_PASS = 1, WITH_KEYRING = 2, WITH_JSON = 4, WITH_MOUNT = 8, WITH_REVOKE = 16, WITH_CHUNK = 32, WITH_KEY_FILE = 64, WITH_GENERATE = 128, WITH_ROTATE = 256 };

static const struct command {
    const char *name, *args, *what, *more;
    unsigned with;
    int (*run)(struct cli *c);
} commands[] = {
    { "init", "VAULT", "make a new, empty vault and register it with the key manager",
      "When no key manager answers, a keyring is created (asking for a passphrase) and a key manager started.\n", WITH_PASS | WITH_KEYRING | WITH_CHUNK, cmd_init },
    { "mount", "VAULT MOUNTPOINT", "mount a vault",
      "When no key manager answers, one is started for an existing keyring; if it is locked, the passphrase is asked for.\n"
      "Options of -o: see leadglass-fs --help.\n",
      WITH_PASS | WITH_KEYRING | WITH_MOUNT, cmd_mount },
    { "umount", "MOUNTPOINT", "unmount, and wait until everything is on disk", "", 0, cmd_umount },
    { "unlock", "", "give the key manager the passphrase, or a key file",
      "After a wrong one the next attempt of the same user is taken 1, 2, 4 ... 60 s later.\n", WITH_PASS | WITH_KEY_FILE, cmd_unlock },
    { "lock", "", "forget every key, here and in every mount", "Exit status 6 when a mount has not confirmed; it is named.\n", WITH_JSON, cmd_lock },
    { "status", "", "show the key manager, its keyring and its mounts", "", WITH_JSON, cmd_status },
    { "identify", "FILE...", "show which study each file belongs to, and how that was decided",
      "Prints FILE <tab> study UID (or -) <tab> how. Needs no key manager.\n", WITH_JSON, cmd_identify },
    { "study", "list | show UID | revoke UID --reason TEXT --now", "list and show studies; revoke one",
      "revoke destroys the study's key: the study, its backups included, can then be read by nobody. It cannot be undone.\n"
      "While no officers are registered, one administrator may do it, and says so with --now.\n"
      "Exit status 6 when a mount has not confirmed; it is named.\n",
      WITH_JSON | WITH_REVOKE, cmd_study },
    { "slot", "list | add NAME | change NAME | remove NAME | test NAME", "show and change what unlocks the keyring",
      "The keyring must be unlocked; no other slot's secret is needed. The secret of add, change and test is a passphrase (asked for), or a key file.\n"
      "change and remove give the keyring a new root key, so that the old secret opens nothing of what comes. A copy of the slot file from before,\n"
      "with the old secret, still opens copies of the keyring from before; see docs/KEYS.md for what to do when both have leaked.\n"
      "test tells whether a secret opens its slot. The last slot that was proved to work cannot be removed.\n",
      WITH_PASS | WITH_KEY_FILE | WITH_GENERATE | WITH_JSON, cmd_slot },
    { "key", "rotate --root | --study UID | --all-studies", "give the keyring a new root key, or studies new keys",
      "--root wraps every bucket of keys anew under a new root key and forgets the old one. No data is touched, no study key changes.\n"
      "--study and --all-studies make a new version of the study's key, which new files use from now on; what is there stays readable.\n",
      WITH_ROTATE | WITH_JSON, cmd_key },
};
enum { N_COMMANDS = sizeof commands / sizeof *commands };

static const char *const absent[] = { "officer", "audit", "backup", "scrub", "import", "doctor" };

int cli_fail(int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("leadglass: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return code;
}

int cli_explain(const struct cli *c, int rc, const char *what)
{
    switch (rc) {
    case -ENOENT:
    case -ECONNREFUSED:
        return cli_fail(CLI_NO_KEYD, "no key manager answers at %s. Start one: leadglass-keyd --keyring DIR", c->socket);
    case -ETIMEDOUT:
        return cli_fail(CLI_NO_KEYD, "the key manager at %s did not answer in time", c->socket);
    case -EACCES:
        return cli_fail(CLI_FAILED, "%s: this user may not (root, or the user whom the key manager runs as)", what);
    case -ENOKEY:
        return cli_fail(CLI_LOCKED, "the keyring is locked. Run `leadglass unlock` first");
    case -EKEYREVOKED:
        return cli_fail(CLI_REVOKED, "%s: its key was revoked or destroyed already", what);
    case -EPROTONOSUPPORT:
        return cli_fail(CLI_FAILED, "%s: the key manager speaks another version of the protocol; use programs of one version", what);
    default:
        return cli_fail(CLI_FAILED, "%s: %s", what, strerror(-rc));
    }
}

int cli_client(const struct cli *c, struct lg_client **ret)
{
    int rc = lg_client_new(c->socket, ret);
    return rc ? cli_fail(CLI_USAGE, "socket %s: %s", c->socket, strerror(-rc)) : 0;
}

int cli_print_json(cJSON *j)
{
    char *text = j ? cJSON_Print(j) : NULL;
    cJSON_Delete(j);
    if (!text)
        return cli_fail(CLI_FAILED, "out of memory");
    int rc = puts(text) < 0 || fflush(stdout) ? cli_fail(CLI_FAILED, "standard output: %s", strerror(errno)) : CLI_OK;
    free(text);
    return rc;
}

void cli_hex(const uint8_t id[LG_ID_LEN], char out[2 * LG_ID_LEN + 1]) { lg_hex_encode(id, LG_ID_LEN, out); }

void cli_time(uint64_t t, char out[32])
{
    struct tm tm;
    time_t s = (time_t)t;
    if (!gmtime_r(&s, &tm) || !strftime(out, 32, "%Y-%m-%dT%H:%M:%SZ", &tm))
        snprintf(out, 32, "-");
}

/* For the overview: without what does not fit. */
static const char *short_args(const struct command *k)
{
    return strcmp(k->name, "study") == 0 ? "list|show|revoke" : strcmp(k->name, "slot") == 0 ? "list|add|change|..." : strcmp(k->name, "key") == 0 ? "rotate" : k->args;
}

static void usage(FILE *f)
{
    fputs("usage: leadglass COMMAND [options] ...\n\n", f);
    for (unsigned i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-9s %-18s %s\n", commands[i].name, short_args(&commands[i]), commands[i].what);
    fputs("\nleadglass COMMAND --help tells more. The key manager is found by --socket PATH, LEADGLASS_SOCKET, or its default place.\n"
          "Not in this version: study assign, hold, release, retain, suspend, resume, readmit, approve, cancel, certificate, due; key reencrypt, key trim, officer, audit,\n"
          "backup, scrub, import, doctor.\n\n"
          "Exit status: 0 done, 1 failed, 2 usage, 3 wrong passphrase, 4 locked, 5 no key manager answers, 6 done but not confirmed by every mount,\n"
          "7 busy, 9 revoked, 69 not in this version.\n",
          f);
}

static void command_usage(const struct command *k)
{
    printf("usage: leadglass %s %s [options]\n\n%s.\n%s\n", k->name, k->args, k->what, k->more);
    if (k->with & WITH_REVOKE)
        puts("  --reason TEXT           why (kept with the study's tombstone)\n  --now                   one administrator alone, at once");
    if (k->with & WITH_PASS)
        puts("  --passphrase-file FILE  the passphrase instead of a prompt (`-`: standard input)\n  --passphrase-fd N       the same from a descriptor");
    if (k->with & WITH_KEY_FILE)
        puts("  --key-file FILE         a file instead of a passphrase: whoever has its bytes can unlock");
    if (k->with & WITH_GENERATE)
        puts("  --generate              for add and change: make the key file, which must not exist, of random bytes");
    if (k->with & WITH_ROTATE)
        puts("  --root                  a new root key\n  --study UID             a new version of one study's key\n  --all-studies           of every study's key");
    if (k->with & WITH_KEYRING)
        puts("  --keyring DIR           the keyring of a key manager that has to be started\n  --allow-unlocked-memory go on when key memory cannot be locked");
    if (k->with & WITH_MOUNT)
        puts("  -o opt,...              mount options\n  --foreground            stay in the foreground");
    if (k->with & WITH_CHUNK)
        puts("  --chunk-size KIB        4 to 256, a power of two; for the whole vault, for ever (default 16)");
    if (k->with & WITH_JSON)
        puts("  --json                  for scripts");
    puts("  --socket PATH           the key manager's socket (or LEADGLASS_SOCKET)\n  --help");
}

static int parse(const struct command *k, struct cli *c, int argc, char **argv)
{
    static const struct option all[] = { { "socket", 1, NULL, O_SOCKET },   { "json", 0, NULL, O_JSON },
                                         { "passphrase-file", 1, NULL, O_PASS_FILE }, { "passphrase-fd", 1, NULL, O_PASS_FD },
                                         { "keyring", 1, NULL, O_KEYRING }, { "reason", 1, NULL, O_REASON },
                                         { "now", 0, NULL, O_NOW },         { "foreground", 0, NULL, O_FOREGROUND },
                                         { "chunk-size", 1, NULL, O_CHUNK }, { "allow-unlocked-memory", 0, NULL, O_UNLOCKED },
                                         { "key-file", 1, NULL, O_KEY_FILE }, { "generate", 0, NULL, O_GENERATE },
                                         { "root", 0, NULL, O_ROOT },       { "study", 1, NULL, O_STUDY },
                                         { "all-studies", 0, NULL, O_ALL_STUDIES },
                                         { "help", 0, NULL, 'h' },          { NULL, 0, NULL, 0 } };
    char *end;
    unsigned long n;
    for (int o; (o = getopt_long(argc, argv, "ho:f", all, NULL)) != -1;) {
        unsigned need = o == O_JSON ? WITH_JSON : o == O_PASS_FILE || o == O_PASS_FD ? WITH_PASS : o == O_KEYRING || o == O_UNLOCKED ? WITH_KEYRING :
                        o == O_REASON || o == O_NOW ? WITH_REVOKE : o == O_FOREGROUND || o == 'o' || o == 'f' ? WITH_MOUNT : o == O_CHUNK ? WITH_CHUNK :
                        o == O_KEY_FILE ? WITH_KEY_FILE : o == O_GENERATE ? WITH_GENERATE : o == O_ROOT || o == O_STUDY || o == O_ALL_STUDIES ? WITH_ROTATE : 0;
        if (need & ~k->with)
            return cli_fail(CLI_USAGE, "`leadglass %s` has no such option as %s; see leadglass %s --help", k->name, argv[optind - 1], k->name);
        switch (o) {
        case O_SOCKET: snprintf(c->socket, sizeof c->socket, "%s", optarg); break;
        case O_JSON: c->json = true; break;
        case O_PASS_FILE: c->pass.file = optarg; break;
        case O_PASS_FD:
        case O_CHUNK:
            n = strtoul(optarg, &end, 10);
            if (*end || end == optarg || n > 1000000)
                return cli_fail(CLI_USAGE, "%s: expected a number", optarg);
            if (o == O_CHUNK)
                c->chunk_kib = (unsigned)n;
            else
                c->pass.fd = (int)n;
            break;
        case O_KEYRING: c->keyring = optarg; break;
        case O_REASON: c->reason = optarg; break;
        case O_NOW: c->now = true; break;
        case O_FOREGROUND:
        case 'f': c->foreground = true; break;
        case O_UNLOCKED: c->allow_unlocked = true; break;
        case O_KEY_FILE: c->key_file = optarg; break;
        case O_GENERATE: c->generate = true; break;
        case O_ROOT: c->root = true; break;
        case O_STUDY: c->study = optarg; break;
        case O_ALL_STUDIES: c->all_studies = true; break;
        case 'o': c->mount_options = optarg; break;
        case 'h': command_usage(k); exit(CLI_OK);
        default: return cli_fail(CLI_USAGE, "see leadglass %s --help", k->name);
        }
    }
    c->argc = argc - optind;
    c->argv = argv + optind;
    if (!c->socket[0] && lg_client_default_socket(c->socket, sizeof c->socket) && k->run != cmd_identify)
        return cli_fail(CLI_USAGE, "no default socket: say --socket PATH or set LEADGLASS_SOCKET");
    return 0;
}

int main(int argc, char **argv)
{
    struct cli c = { .pass = { NULL, -1 }, .chunk_kib = 16 };
    if (argc < 2) {
        usage(stderr);
        return CLI_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 || strcmp(argv[1], "help") == 0) {
        usage(stdout);
        return CLI_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts("leadglass " LEADGLASS_VERSION);
        return CLI_OK;
    }
    for (unsigned i = 0; i < N_COMMANDS; i++) {
        if (strcmp(argv[1], commands[i].name) != 0)
            continue;
        c.command = commands[i].name;
        int code = parse(&commands[i], &c, argc - 1, argv + 1);
        if (code)
            return code;
        if (commands[i].run != cmd_identify && (lg_secret_init(true) || lg_crypto_init())) /* a passphrase at most passes through here */
            return cli_fail(CLI_FAILED, "OpenSSL lacks an algorithm that is needed");
        return commands[i].run(&c);
    }
    for (unsigned i = 0; i < sizeof absent / sizeof *absent; i++)
        if (strcmp(argv[1], absent[i]) == 0)
            return cli_fail(CLI_UNAVAILABLE, "`leadglass %s` is not available in this version", argv[1]);
    return cli_fail(CLI_USAGE, "unknown command %s; see leadglass --help", argv[1]);
}
