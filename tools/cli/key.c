/* leadglass key: new root keys, new versions of study keys, the end of old ones. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "act.h"

static int rotate_root(const struct cli *c, struct lg_client *k)
{
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    int rc = s ? lg_client_rotate_root(k) : -ENOMEM, code = CLI_OK;
    if (!rc)
        rc = lg_client_status(k, s);
    if (rc)
        code = cli_explain(c, rc, "key rotate --root");
    else if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "epoch", (double)s->keyring.epoch);
        code = cli_print_json(j);
    } else {
        printf("the keyring has a new root key: epoch %llu\n", (unsigned long long)s->keyring.epoch);
    }
    free(s);
    return code;
}

static int rotate_study(const struct cli *c, struct lg_client *k)
{
    struct lg_study *s = calloc(1, sizeof *s);
    int rc = s ? lg_client_rotate_study(k, c->study) : -ENOMEM, code = CLI_OK;
    if (!rc)
        rc = lg_client_study_show(k, c->study, s);
    if (rc == -ENOENT)
        code = cli_fail(CLI_FAILED, "study %s is not known to this keyring", c->study);
    else if (rc == -ENOSPC)
        code = cli_fail(CLI_FAILED, "study %s has %u versions of its key, or no space is left on the disk", c->study, LG_KEY_VERSIONS_MAX);
    else if (rc)
        code = cli_explain(c, rc, c->study);
    else if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "uid", c->study);
        cJSON_AddNumberToObject(j, "key_version", s->version);
        code = cli_print_json(j);
    } else {
        printf("%s: new files use version %u of its key\n", c->study, s->version);
    }
    free(s);
    return code;
}

static int rotate_studies(const struct cli *c, struct lg_client *k)
{
    struct lg_rotated r = { 0 };
    uint8_t after[LG_ID_LEN];
    unsigned long long n = 0, full = 0;
    bool tty = isatty(STDERR_FILENO) && !c->json;
    int rc = lg_client_rotate_studies(k, NULL, &r);
    while (!rc) {
        n += r.n;
        full += r.full;
        if (tty)
            fprintf(stderr, "\r%llu studies ", n);
        if (r.end)
            break;
        memcpy(after, r.last, LG_ID_LEN);
        rc = lg_client_rotate_studies(k, after, &r);
    }
    if (tty)
        fputc('\n', stderr);
    if (rc) {
        if (n)
            cli_fail(0, "%llu studies have a new version already; run the command again for the others (those get another)", n);
        return cli_explain(c, rc, "key rotate --all-studies");
    }
    int code = CLI_OK;
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "rotated", (double)n);
        cJSON_AddNumberToObject(j, "full", (double)full);
        code = cli_print_json(j);
    } else {
        printf("%llu studies: new files use a new version of their keys\n", n);
    }
    if (full)
        code = cli_fail(CLI_FAILED, "%llu studies were left alone: they have %u versions of their keys", full, LG_KEY_VERSIONS_MAX);
    return code;
}

static int run_key(struct cli *c)
{
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "";
    bool rotate = strcmp(what, "rotate") == 0 && c->argc == 1 && c->root + (c->study != NULL) + c->all_studies == 1 && !c->older_than && !c->rate;
    bool reencrypt = strcmp(what, "reencrypt") == 0 && c->argc == 2 && !c->root && (c->study != NULL) + c->all_studies + (c->older_than != 0) == 1;
    bool accept = strcmp(what, "accept") == 0 && c->argc == 1 && !c->root && !c->study && !c->all_studies;
    bool trim = strcmp(what, "trim") == 0 && !c->root && !c->older_than && !c->rate && (c->study != NULL) + c->all_studies + (c->act != NULL) == 1;
    if (strcmp(what, "reencrypt") == 0 && c->argc == 2 && !c->study && !c->all_studies && !c->older_than)
        return cli_fail(CLI_USAGE, "reencrypt: say whose files: --study UID, --version-older-than N, or --all-studies");
    if (!rotate && !reencrypt && !trim && !accept)
        return cli_fail(CLI_USAGE, "expected rotate and one of --root, --study UID, --all-studies; or reencrypt VAULT and one of --study UID, --version-older-than N, --all-studies;\n"
                                   "or trim VAULT... and one of --study UID, --all-studies (with --no-copies-before DATE), --act ID; or accept.\n"
                                   "See leadglass key --help");
    int code = cli_client(c, &k);
    if (code)
        return code;
    code = trim ? cli_trim(c, k, c->argv + 1, c->argc - 1) : accept ? act_perform(c, k, &(struct lg_act){ .action = LG_ACT_ACCEPT }) : reencrypt ? cli_reencrypt(c, k, c->argv[1]) : c->root ? rotate_root(c, k) : c->study ? rotate_study(c, k) : rotate_studies(c, k);
    lg_client_free(k);
    return code;
}

static const struct cli_option key_options[] = {
    { "root", NULL, "a new root key", CLI_FLAG, CLI_INTO(root), 0 },
    { "study", "UID", "of one study", CLI_TEXT, CLI_INTO(study), 0 },
    { "all-studies", NULL, "of every study", CLI_FLAG, CLI_INTO(all_studies), 0 },
    { "version-older-than", "N", "reencrypt: files under a version below N", CLI_NUMBER, CLI_INTO(older_than), 0 },
    { "no-copies-before", "DATE", "trim: declared: no ciphertext copy from before that day is kept", CLI_TEXT, CLI_INTO(no_copies), 0 },
    { "other-vaults-gone", NULL, "trim: declared: vaults that the keyring knows and that are not named exist no more", CLI_FLAG, CLI_INTO(others_gone), 0 },
    { "act", "ID", "trim: carry out what two officers signed", CLI_TEXT, CLI_INTO(act), 0 },
    { "now", NULL, "trim: one administrator alone, at once (single-administrator mode)", CLI_FLAG, CLI_INTO(now), 0 },
    { "reason", "TEXT", "trim, accept: why", CLI_TEXT, CLI_INTO(reason), 0 },
    { "rate", "MIB", "reencrypt: at most so many MiB a second", CLI_NUMBER, CLI_INTO(rate), 0 },
    { 0 },
};
const struct cli_command cli_key = {
    "key", "rotate --root|--study UID|--all-studies | reencrypt VAULT --study UID|--version-older-than N|--all-studies | trim VAULT... --study UID|--all-studies|--act ID | accept --reason TEXT", "give the keyring a new root key, studies new keys, files new ciphertext",
    "rotate --root wraps every bucket of keys anew under a new root key and forgets the old one. No data is touched, no study key changes.\n"
    "rotate --study and --all-studies make a new version of the study's key, which new files use from now on; what is there stays readable.\n"
    "reencrypt gives files that are not under the newest version of their key a new file key and new ciphertext, each file as a whole, while the vault is\n"
    "mounted and in use. A file with several names (hard links, up to 512) stays one file under all of them. Interrupted, it is run again: files that are done are passed over. Backup tools see the files as changed; the PACS does not.\n"
    "Exit status 1 when files were left as they are; they are named.\n"
    "trim destroys every version of a study's key but the newest, as destroying a study does: what is still under an older one, on any tape, can then be read by nobody.\n"
    "It looks through every vault and refuses while a file needs an older version; where officers are registered two of them sign the declaration of\n"
    "--no-copies-before, and after the waiting period trim --act ID VAULT... looks once more and carries it out. Exit status 16 when it is refused.\n"
    "accept: the keyring was put back in an older state (leadglass status says so), and is used as it is from now on; two officers, where there are any.\n",
    "rotate|reencrypt|trim|accept", { key_options, act_options, cli_pass_options, cli_json_options }, run_key, false,
};
