/* leadglass slot: what unlocks the keyring. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "act.h"
#include "cli.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

enum { KEY_FILE_MAX = 65536, KEY_FILE_MIN = 16, GENERATED_LEN = 64 };

/* ---- secrets -------------------------------------------------------------------------------------------------------------------------------- */

static int key_file_read(const char *path, uint8_t *buf, size_t *ret_len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    size_t len = 0;
    if (fd < 0)
        return -errno;
    while (len <= KEY_FILE_MAX) {
        ssize_t n = read(fd, buf + len, KEY_FILE_MAX + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            rc = -errno;
        if (n <= 0)
            break;
        len += (size_t)n;
    }
    close(fd);
    if (!rc && len > KEY_FILE_MAX)
        rc = -EFBIG;
    *ret_len = len;
    return rc;
}

static int key_file_generate(const char *path)
{
    LG_SECRET_BUF_AUTO uint8_t *buf = lg_secret_alloc(GENERATED_LEN);
    int rc = buf ? lg_random(buf, GENERATED_LEN) : -ENOMEM, fd = -1;
    if (!rc && (fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0400)) < 0)
        rc = -errno;
    if (fd < 0)
        return rc;
    if (write(fd, buf, GENERATED_LEN) != GENERATED_LEN || fsync(fd))
        rc = errno ? -errno : -EIO;
    if (close(fd) && !rc)
        rc = -errno;
    if (rc)
        unlink(path);
    return rc;
}

static int key_file_secret(const struct cli *c, bool fresh, char *ret)
{
    LG_SECRET_BUF_AUTO uint8_t *buf = lg_secret_alloc(KEY_FILE_MAX + 1);
    size_t len = 0;
    int rc = buf ? 0 : -ENOMEM;
    if (!rc && fresh && c->generate)
        rc = key_file_generate(c->key_file);
    if (!rc)
        rc = key_file_read(c->key_file, buf, &len);
    if (!rc && fresh && len < KEY_FILE_MIN)
        return cli_fail(CLI_USAGE, "%s: %zu bytes can be guessed; let one be made with --generate", c->key_file, len);
    if (!rc)
        rc = lg_sha256(buf, len, (uint8_t *)ret);
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "key file %s: %s", c->key_file, rc == -EFBIG ? "is larger than 64 KiB" : strerror(-rc));
    return CLI_OK;
}

int cli_secret(const struct cli *c, const char *prompt, bool fresh, enum lg_slot_type *ret_type, char *ret, size_t *ret_len)
{
    if ((c->key_file != NULL) + c->tpm + (c->pass.file || c->pass.fd >= 0) > 1)
        return cli_fail(CLI_USAGE, "either a passphrase, or a key file, or the TPM");
    if (c->pcrs && !c->tpm)
        return cli_fail(CLI_USAGE, "--pcrs is of a TPM slot: add --tpm");
    if (c->generate && !c->key_file)
        return cli_fail(CLI_USAGE, "--generate needs --key-file FILE, where the new key shall stand");
    if (c->tpm) {
        const char *pcrs = fresh && c->pcrs ? c->pcrs : "";
        *ret_type = LG_SLOT_TPM;
        *ret_len = strlen(pcrs);
        if (*ret_len > LG_PASSPHRASE_MAX)
            return cli_fail(CLI_USAGE, "--pcrs: too long");
        memcpy(ret, pcrs, *ret_len);
        return CLI_OK;
    }
    if (c->key_file) {
        *ret_type = LG_SLOT_KEY_FILE;
        *ret_len = LG_MAC_LEN;
        return key_file_secret(c, fresh, ret);
    }
    *ret_type = LG_SLOT_PASSPHRASE;
    int rc = lg_passphrase_read(&c->pass, prompt, fresh, ret, ret_len);
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "passphrase%s%s: %s", c->pass.file ? " from " : "", c->pass.file ? c->pass.file : "",
                        rc == -ENOTTY         ? "there is no terminal to ask on; use --passphrase-file"
                        : rc == -EINVAL       ? "is empty"
                        : rc == -EKEYREJECTED ? "the two differ"
                                              : strerror(-rc));
    return CLI_OK;
}

int cli_rejected(int rc, enum lg_slot_type type, unsigned wait_s)
{
    const char *what = type == LG_SLOT_KEY_FILE ? "key file" : "passphrase";
    return rc == -EAGAIN ? cli_fail(CLI_PASSPHRASE, "not tried: after wrong passphrases or key files the next attempt is taken in %u s", wait_s)
                         : cli_fail(CLI_PASSPHRASE, "wrong %s. The next attempt is taken in %u s", what, wait_s);
}

const char *cli_tpm_error(int rc)
{
    switch (rc) {
    case -ENODEV: return "the key manager finds no TPM. Is there one (/dev/tpmrm0), and is it switched on in the firmware? Elsewhere: start the key manager with --tpm TCTI. Its log says what it tried";
    case -EXDEV: return "the slot was sealed by another machine's TPM, or this one was cleared since. Unlock with a passphrase; leadglass slot change NAME --tpm seals it anew";
    case -EBADE: return "the TPM's PCRs are not as they were when the slot was made: firmware, boot loader or Secure Boot changed. Unlock with a passphrase; leadglass slot change NAME --tpm seals it anew";
    case -EOPNOTSUPP: return "the TPM's owner hierarchy has a password or is disabled; Leadglass needs it without";
    case -ENODATA: return "there is no such TPM slot; see leadglass slot list";
    case -ENOMEDIUM: return "the root-slot file is anchored in a TPM, and this one does not have its value: another machine's, or it was cleared. Restore a keyring backup";
    case -EKEYEXPIRED: return "this root-slot file is an old copy: the value in the TPM that it needs was overwritten. Put the present one back";
    default: return NULL;
    }
}

/* ---- the commands --------------------------------------------------------------------------------------------------------------------------------- */

static int explain(const struct cli *c, int rc, const char *name)
{
    if (c->tpm && cli_tpm_error(rc))
        return cli_fail(CLI_FAILED, "slot \"%s\": %s", name, cli_tpm_error(rc));
    switch (rc) {
    case -EDOM: return cli_fail(CLI_USAGE, "--pcrs: expected PCR numbers such as 7 or 0,2,7, with a bank such as sha384:7 if it is not sha256");
    case -ENOENT: return cli_fail(CLI_FAILED, "there is no slot named \"%s\"; see leadglass slot list", name);
    case -EEXIST: return cli_fail(CLI_FAILED, "there is a slot named \"%s\" already; change it, or choose another name", name);
    case -ENOSPC: return cli_fail(CLI_FAILED, "there are %u slots already, or no space is left on the disk; remove a slot that nobody uses", LG_SLOTS_MAX);
    case -EPERM:
        return cli_fail(CLI_FAILED, "\"%s\" is the last slot that was proved to work (a TPM one does not count). Add another, or prove one: leadglass slot test NAME", name);
    case -EINVAL: return cli_fail(CLI_USAGE, "a slot's name is 1 to %u bytes without control characters", LG_SLOT_NAME_MAX);
    default: return cli_explain(c, rc, "slot");
    }
}

static int slot_list(const struct cli *c, struct lg_client *k)
{
    struct lg_slot_info s[LG_SLOTS_MAX];
    unsigned n;
    char created[32], proved[32];
    int rc = lg_client_slot_list(k, s, &n);
    if (rc)
        return cli_explain(c, rc, "slot list");
    cJSON *j = c->json ? cJSON_CreateArray() : NULL;
    if (!c->json && isatty(STDOUT_FILENO))
        printf("%-24s  %-10s  %-20s  %s\n", "SLOT", "TYPE", "CREATED", "PROVED TO WORK");
    for (unsigned i = 0; i < n; i++) {
        snprintf(created, sizeof created, "at first");
        snprintf(proved, sizeof proved, s[i].proved ? "yes" : "never");
        if (s[i].created > 1)
            cli_time(s[i].created, created);
        if (s[i].proved > 1)
            cli_time(s[i].proved, proved);
        if (!c->json) {
            printf(isatty(STDOUT_FILENO) ? "%-24s  %-10s  %-20s  %s\n" : "%s\t%s\t%s\t%s\n", s[i].name, lg_slot_type_name(s[i].type), created, proved);
            continue;
        }
        cJSON *o = cJSON_CreateObject();
        cJSON_AddStringToObject(o, "name", s[i].name);
        cJSON_AddStringToObject(o, "type", lg_slot_type_name(s[i].type));
        cJSON_AddNumberToObject(o, "number", s[i].number);
        cJSON_AddStringToObject(o, "created", created);
        cJSON_AddBoolToObject(o, "proved", s[i].proved != 0);
        cJSON_AddItemToArray(j, o);
    }
    return c->json ? cli_print_json(j) : CLI_OK;
}

static int slot_secret(const struct cli *c, struct lg_client *k, const char *what, const char *name)
{
    LG_SECRET_BUF_AUTO char *secret = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    bool test = strcmp(what, "test") == 0, add = strcmp(what, "add") == 0;
    enum lg_slot_type type;
    size_t len = 0;
    unsigned wait = 0;
    int code = secret ? cli_secret(c, test ? "Passphrase" : "New passphrase", !test, &type, secret, &len) : cli_fail(CLI_FAILED, "out of memory");
    if (code)
        return code;
    int rc = test  ? lg_client_slot_test(k, type, name, secret, len, &wait)
             : add ? lg_client_slot_add(k, type, name, secret, len)
                   : lg_client_slot_change(k, type, name, secret, len);
    if (rc && c->generate)
        unlink(c->key_file); /* opens nothing */
    if (test && (rc == -EKEYREJECTED || rc == -EAGAIN))
        return cli_rejected(rc, type, wait);
    if (rc)
        return explain(c, rc, name);
    if (c->tpm && !test)
        printf("The key manager unlocks by itself when it starts on this machine%s%s. Keep a passphrase: a TPM can break.\n", c->pcrs ? ", while these PCRs are as they are now: " : "", c->pcrs ? c->pcrs : "");
    printf(test ? "slot \"%s\" opens with it\n" : add ? "slot \"%s\" was added and opens\n" : "slot \"%s\" was changed and opens; the keyring has a new root key\n", name);
    return CLI_OK;
}

static int anchor_sure(const struct cli *c, const struct lg_keyd_status *s)
{
    char line[16];
    if (c->yes)
        return CLI_OK;
    fputs("From now on the root-slot file opens only together with a value in this machine's TPM. When the TPM breaks or is cleared, or the machine is lost,\n"
          "no passphrase opens this keyring any more: a keyring backup (leadglass backup) is then the only way back, and without one EVERY IMAGE IS LOST.\n", stderr);
    fprintf(stderr, s->keyring.backup ? "There is a keyring backup; %llu studies are newer than it.\n" : "There is NO keyring backup, and there are %llu studies. Make one first: leadglass backup create FILE\n",
            (unsigned long long)s->keyring.uncovered);
    if (!isatty(STDIN_FILENO))
        return cli_fail(CLI_USAGE, "there is no terminal to ask on; say --yes to accept that");
    fputs("Type yes: ", stderr);
    return fgets(line, sizeof line, stdin) && strcmp(line, "yes\n") == 0 ? CLI_OK : cli_fail(CLI_FAILED, "not anchored");
}

/* What would make it fail in the end is looked at before a person is asked for a yes, or for their key's passphrase. */
static int anchor_look(const struct cli *c, struct lg_client *k, struct lg_keyd_status *s)
{
    int rc = lg_client_status(k, s);
    if (rc || !s->unlocked)
        return cli_explain(c, rc ? rc : -ENOKEY, "slot anchor");
    if (c->none && !s->anchor_nv)
        return cli_fail(CLI_FAILED, "it is not anchored");
    rc = c->tpm && !s->anchor_nv ? lg_client_tpm(k) : 0;
    if (!rc || rc == -EPROTONOSUPPORT) /* a key manager of before this request: it tells when it tries */
        return CLI_OK;
    return cli_tpm_error(rc) ? cli_fail(CLI_FAILED, "slot anchor: %s", cli_tpm_error(rc)) : cli_explain(c, rc, "slot anchor");
}

static int slot_anchor(const struct cli *c, struct lg_client *k)
{
    uint8_t act[LG_ID_LEN];
    if (c->tpm == c->none)
        return cli_fail(CLI_USAGE, "slot anchor: expected --tpm, or --none to give it up");
    if (c->act && (strlen(c->act) != 2 * LG_ID_LEN || lg_hex_decode(c->act, act, LG_ID_LEN)))
        return cli_fail(CLI_USAGE, "%s is no act's id", c->act);
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    if (!s)
        return cli_fail(CLI_FAILED, "out of memory");
    int code = anchor_look(c, k, s);
    bool was = s->anchor_nv;
    if (!code && c->none && (c->sign || c->offline)) {
        free(s);
        return act_perform(c, k, &(struct lg_act){ .action = LG_ACT_UNANCHOR });
    }
    if (!code && c->tpm && !was)
        code = anchor_sure(c, s);
    int rc = 0;
    if (!code)
        rc = lg_client_slot_anchor(k, c->tpm, c->act ? act : NULL);
    if (!code && rc == 0)
        puts(c->tpm ? "the root-slot file is anchored in the TPM; the keyring has a new root key, and each one to come makes copies of older slot files useless"
                    : "the root-slot file is anchored no more; the keyring has a new root key");
    else if (!code && rc == -EALREADY && !(c->none && was))
        code = cli_fail(CLI_FAILED, c->tpm ? "it is anchored already" : "it is not anchored");
    else if (!code && c->none && (rc == -EPERM || rc == -ENOENT || rc == -ETIME || rc == -EALREADY)) /* the last: that act was used */
        code = cli_fail(CLI_REFUSED, rc == -ETIME ? "the approval has expired" : "officers are registered, and certificates rest on the anchor: two have to approve this. Ask: leadglass slot anchor --none --reason TEXT --sign KEYFILE; then, approved: --act ID");
    else if (!code && c->none && was && !lg_client_status(k, s) && !s->anchor_nv)
        code = cli_fail(CLI_FAILED, "the root-slot file needs the TPM no more, but the values in it could not be destroyed (%s): copies of the slot file from before still open with them. The next unlock tries again", rc == -ENODEV ? "it does not answer" : strerror(-rc));
    else if (!code)
        code = cli_tpm_error(rc) ? cli_fail(CLI_FAILED, "slot anchor: %s", cli_tpm_error(rc)) : rc == -ENOSPC ? cli_fail(CLI_FAILED, "slot anchor: the TPM has no room for two more values of 68 bytes, or the disk is full") : cli_explain(c, rc, "slot anchor");
    free(s);
    return code;
}

static int slot_remove(const struct cli *c, struct lg_client *k, const char *name)
{
    int rc = lg_client_slot_remove(k, name);
    if (rc)
        return explain(c, rc, name);
    printf("slot \"%s\" was removed; the keyring has a new root key\n", name);
    return CLI_OK;
}

static int run_slot(struct cli *c)
{
    static const char *const verbs[] = { "list", "add", "change", "remove", "test", "anchor" };
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "";
    bool known = false, list = strcmp(what, "list") == 0, anchor = strcmp(what, "anchor") == 0;
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        known = known || strcmp(what, verbs[i]) == 0;
    if (!known || c->argc != (list || anchor ? 1 : 2))
        return cli_fail(CLI_USAGE, "expected list, anchor, or add, change, remove or test with NAME; see leadglass slot --help");
    int code = cli_client(c, &k);
    if (code)
        return code;
    code = list ? slot_list(c, k) : anchor ? slot_anchor(c, k) : strcmp(what, "remove") == 0 ? slot_remove(c, k, c->argv[1]) : slot_secret(c, k, what, c->argv[1]);
    lg_client_free(k);
    return code;
}

static const struct cli_option slot_options[] = {
    { "generate", NULL, "for add and change: make the key file, which must not exist, of random bytes", CLI_FLAG, CLI_INTO(generate), 0 },
    { "pcrs", "LIST", "for add and change with --tpm: only while these PCRs are as they are now, such as 7 or sha384:0,7 (default: none)", CLI_TEXT, CLI_INTO(pcrs), 0 },
    { "none", NULL, "for anchor: give it up", CLI_FLAG, CLI_INTO(none), 0 },
    { "act", "ID", "for anchor --none: the officers' approved act, where officers are registered", CLI_TEXT, CLI_INTO(act), 0 },
    { "reason", "TEXT", "for anchor --none with --sign: why", CLI_TEXT, CLI_INTO(reason), 0 }, { 0 }
};
const struct cli_command cli_slot = {
    "slot", "list | add NAME | change NAME | remove NAME | test NAME | anchor --tpm | anchor --none", "show and change what unlocks the keyring",
    "The keyring must be unlocked; no other slot's secret is needed. The secret of add, change and test is a passphrase (asked for), a key file,\n"
    "or (--tpm) one that the TPM of the key manager's machine keeps: then the key manager unlocks by itself when it starts.\n"
    "change and remove give the keyring a new root key, so that the old secret opens nothing of what comes. A copy of the slot file from before,\n"
    "with the old secret, still opens copies of the keyring from before; see docs/KEYS.md for what to do when both have leaked.\n"
    "test tells whether a secret opens its slot. The last slot that was proved to work cannot be removed; a TPM slot does not count.\n"
    "anchor makes the slot file useless without a value in the TPM that every new root key overwrites: older copies of it open nothing then. When the TPM\n"
    "breaks or is cleared, a keyring backup is the only way back. Where officers are registered, giving it up takes two: --none --reason TEXT --sign KEYFILE asks\n"
    "for it, another officer approves (leadglass request approve), --none --act ID does it.\n",
    "list|add|change|...", { cli_key_file_options, cli_tpm_options, cli_pass_options, slot_options, act_options, cli_json_options }, run_slot, false,
};
