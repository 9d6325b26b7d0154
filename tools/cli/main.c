#include <getopt.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/volume.h"

static const struct cli_command *const commands[] = { &cli_init, &cli_mount, &cli_umount, &cli_unlock, &cli_lock, &cli_status, &cli_identify, &cli_study, &cli_slot,
                                                     &cli_key, &cli_backup, &cli_scrub, &cli_officer, &cli_request, &cli_policy, &cli_clock, &cli_audit };
enum { N_COMMANDS = sizeof commands / sizeof *commands, OPTIONS_MAX = 64 };

const struct cli_option cli_json_options[] = { { "json", NULL, "for scripts", CLI_FLAG, CLI_INTO(json), 0 }, { 0 } };
const struct cli_option cli_pass_options[] = {
    { "passphrase-file", "FILE", "the passphrase instead of a prompt (`-`: standard input)", CLI_TEXT, CLI_INTO(pass.file), 0 },
    { "passphrase-fd", "N", "the same from a descriptor", CLI_NUMBER, CLI_INTO(pass.fd), 0 },
    { 0 },
};
const struct cli_option cli_key_file_options[] = {
    { "key-file", "FILE", "a file instead of a passphrase: whoever has its bytes can unlock", CLI_TEXT, CLI_INTO(key_file), 0 }, { 0 }
};
const struct cli_option cli_tpm_options[] = {
    { "tpm", NULL, "a secret that the machine's TPM keeps instead of a passphrase: unlocks without anybody, on this machine alone", CLI_FLAG, CLI_INTO(tpm), 0 }, { 0 }
};
const struct cli_option cli_keyring_options[] = {
    { "keyring", "DIR", "the keyring of a key manager that has to be started", CLI_TEXT, CLI_INTO(keyring), 0 },
    { "allow-unlocked-memory", NULL, "go on when key memory cannot be locked", CLI_FLAG, CLI_INTO(allow_unlocked), 0 },
    { 0 },
};
static const struct cli_option every[] = {
    { "socket", "PATH", "the key manager's socket (or LEADGLASS_SOCKET)", CLI_TEXT, CLI_INTO(socket), 0 },
    { "help", NULL, "this", CLI_FLAG, CLI_INTO(help), 'h' },
    { 0 },
};

static const char *const absent[] = { "import", "doctor" };

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
        return cli_fail(CLI_FAILED, "%s: this user may not (root, the user whom the key manager runs as; what officers may, from the account that they are registered with)", what);
    case -ENOKEY:
        return cli_fail(CLI_LOCKED, "the keyring is locked. Run `leadglass unlock` first");
    case -EKEYREVOKED:
        return cli_fail(CLI_REVOKED, "%s: its key was revoked or destroyed already", what);
    case -ESTALE:
        return cli_fail(CLI_DEGRADED, "%s: not while a copy of the keyring is behind; see leadglass status", what);
    case -ENODEV:
        return cli_fail(CLI_FAILED, "%s: no new root key can be made, as the root-slot file is anchored in a TPM that does not answer. If it is broken, give the anchor up while the keyring is still unlocked: leadglass slot anchor --none", what);
    case -EROFS:
        return cli_fail(CLI_ALTERED, "%s: not while the keyring is one that was put back; see leadglass status", what);
    case -EREMCHG:
        return cli_fail(CLI_ALTERED, "%s: the keyring or its root-slot file was put back in an older state: nothing can be opened. The key manager's log says which", what);
    case -EPROTO:
        return cli_fail(CLI_FAILED, "%s: the key manager's answer, or what it keeps, cannot be read. If it was started by another version than is installed now, start it anew; else see its log, and leadglass-keyd --check", what);
    case -ECONNRESET:
        return cli_fail(CLI_NO_KEYD, "%s: the key manager ended the connection. If it was started by another version than is installed now, start it anew; else see its log", what);
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

void cli_json_time(cJSON *j, const char *name, uint64_t t)
{
    char text[32];
    cli_time(t, text);
    if (t)
        cJSON_AddStringToObject(j, name, text);
    else
        cJSON_AddNullToObject(j, name);
}

static void usage(FILE *f)
{
    fputs("usage: leadglass COMMAND [options] ...\n\n", f);
    for (unsigned i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-9s %-18s %s\n", commands[i]->name, commands[i]->brief ? commands[i]->brief : commands[i]->args, commands[i]->what);
    fputs("\nleadglass COMMAND --help tells more. The key manager is found by --socket PATH, LEADGLASS_SOCKET, or its default place.\n"
          "Not in this version: import, doctor.\n\n"
          "Exit status: 0 done, 1 failed, 2 usage, 3 wrong passphrase, 4 locked, 5 no key manager answers, 6 done but not confirmed by every mount,\n"
          "7 busy, 9 revoked, 10 to 14 see scrub --help, 15 a copy of the keyring is behind (status),\n"
          "16 refused (officers, holds, retention, clock), 17 and 18 see audit --help, 69 not in this version.\n",
          f);
}

static void option_usage(const struct cli_option *o)
{
    char left[64];
    snprintf(left, sizeof left, "%s%s%s%s%s", o->letter ? (char[]){ '-', o->letter, 0 } : "", o->letter && o->name[1] ? ", " : "", o->name[1] ? "--" : "", o->name[1] ? o->name : "",
             o->arg ? " " : "");
    printf("  %s%-*s ", left, (int)(23 - strlen(left) > 23 ? 0 : 23 - strlen(left)), o->arg ? o->arg : "");
    for (const char *p = o->help; *p; p++) {
        putchar(*p);
        if (*p == '\n')
            printf("%26s", "");
    }
    putchar('\n');
}

static int command_usage(const struct cli_command *k)
{
    printf("usage: leadglass %s %s [options]\n\n%s.\n%s\n", k->name, k->args, k->what, k->more ? k->more : "");
    for (unsigned i = 0; i < CLI_OPTION_LISTS && k->options[i]; i++)
        for (const struct cli_option *o = k->options[i]; o->name; o++)
            option_usage(o);
    for (const struct cli_option *o = every; o->name; o++)
        option_usage(o);
    return CLI_OK;
}

/* Puts an option's value where it belongs. */
static int take(struct cli *c, const struct cli_option *o, const char *value)
{
    void *into = (char *)c + o->into;
    char *end;
    if (o->kind == CLI_FLAG) {
        *(bool *)into = true;
    } else if (o->kind == CLI_LIST) {
        struct cli_list *l = into;
        if (l->n == sizeof l->s / sizeof *l->s)
            return cli_fail(CLI_USAGE, "--%s: too many", o->name);
        l->s[l->n++] = value;
    } else if (o->kind == CLI_TEXT) {
        *(const char **)into = value;
    } else {
        unsigned long n = strtoul(value, &end, 10);
        if (*end || end == value || *value == '-' || n > INT_MAX)
            return cli_fail(CLI_USAGE, "--%s %s: expected a number", o->name, value);
        *(unsigned *)into = (unsigned)n;
    }
    return 0;
}

static int parse(const struct cli_command *k, struct cli *c, int argc, char **argv)
{
    const struct cli_option *of[OPTIONS_MAX];
    struct option longs[OPTIONS_MAX + 1] = { 0 };
    char shorts[2 * OPTIONS_MAX + 1];
    unsigned n = 0, s = 0;
    for (unsigned i = 0; i <= CLI_OPTION_LISTS; i++)
        for (const struct cli_option *o = i == CLI_OPTION_LISTS ? every : k->options[i]; o && o->name && n < OPTIONS_MAX; o++) {
            longs[n] = (struct option){ o->name, o->arg != NULL, NULL, (int)(256 + n) };
            of[n++] = o;
            if (o->letter) {
                shorts[s++] = o->letter;
                if (o->arg)
                    shorts[s++] = ':';
            }
        }
    shorts[s] = 0;
    opterr = 0;
    for (int v; (v = getopt_long(argc, argv, shorts, longs, NULL)) != -1;) {
        const struct cli_option *o = v >= 256 ? of[v - 256] : NULL;
        for (unsigned i = 0; !o && i < n; i++)
            if (of[i]->letter && of[i]->letter == v)
                o = of[i];
        if (!o)
            return cli_fail(CLI_USAGE, "`leadglass %s` has no such option as %s, or it lacks its argument; see leadglass %s --help", k->name, argv[optind - 1], k->name);
        int code = take(c, o, optarg);
        if (code)
            return code;
    }
    c->argc = argc - optind;
    c->argv = argv + optind;
    return 0;
}

static int run(const struct cli_command *k, struct cli *c, int argc, char **argv)
{
    c->command = k->name;
    int code = parse(k, c, argc, argv);
    if (code || c->help)
        return code ? code : command_usage(k);
    if (!c->socket && !k->offline && !c->audit.offline) {
        if (lg_client_default_socket(c->socket_buf, sizeof c->socket_buf))
            return cli_fail(CLI_USAGE, "no default socket: say --socket PATH or set LEADGLASS_SOCKET");
        c->socket = c->socket_buf;
    }
    if (lg_secret_init(true) || lg_crypto_init()) /* a passphrase at most passes through here */
        return cli_fail(CLI_FAILED, "OpenSSL lacks an algorithm that is needed, or AES-256-GCM fails its test");
    return k->run(c);
}

int main(int argc, char **argv)
{
    struct cli c = { .pass = { NULL, -1 }, .chunk_kib = LG_CHUNK_SIZE_DEFAULT / 1024 };
    if (argc > 3 && strcmp(argv[1], "--socket") == 0) { /* before the command too */
        c.socket = argv[2];
        argc -= 2;
        argv += 2;
    }
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
    for (unsigned i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i]->name) == 0)
            return run(commands[i], &c, argc - 1, argv + 1);
    for (unsigned i = 0; i < sizeof absent / sizeof *absent; i++)
        if (strcmp(argv[1], absent[i]) == 0)
            return cli_fail(CLI_UNAVAILABLE, "`leadglass %s` is not available in this version", argv[1]);
    return cli_fail(CLI_USAGE, "unknown command %s; see leadglass --help", argv[1]);
}
