/* leadglass audit manifest: is a manifest of scrub as the key manager signed it? Needs the manifest and the public key alone. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "auditselect.h"
#include "leadglass/bytes.h"
#include "leadglass/scrub.h"

enum verdict { GOOD, NOT_GOOD, CANNOT_TELL };

struct judged {
    enum verdict verdict;
    const char *why, *key; /* key: where the public key came from */
    bool whole;            /* l is filled in */
    struct lg_manifest_look l;
};

static int print_json(const char *path, const struct judged *x)
{
    static const char *const verdicts[] = { "intact", "not intact", "cannot be told" };
    const struct lg_manifest_sig *s = &x->l.sig;
    char hex[2 * LG_SIGN_PUB_LEN + 1];
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "manifest", path);
    cJSON_AddStringToObject(j, "verdict", verdicts[x->verdict]);
    cJSON_AddStringToObject(j, "why", x->why);
    cJSON_AddStringToObject(j, "key", x->key);
    if (x->whole) {
        cJSON_AddBoolToObject(j, "signed", x->l.is_signed);
        lg_hex_encode(s->vault_id, LG_ID_LEN, hex);
        cJSON_AddStringToObject(j, "vault_id", hex);
        cJSON_AddNumberToObject(j, "entries", (double)s->entries);
        cli_json_time(j, "begun", s->begun);
        lg_hex_encode(s->hash, LG_MAC_LEN, hex);
        cJSON_AddStringToObject(j, "digest", hex);
    }
    if (x->whole && x->l.is_signed) {
        lg_hex_encode(s->keyring_id, LG_ID_LEN, hex);
        cJSON_AddStringToObject(j, "keyring_id", hex);
        cli_json_time(j, "signed_at", s->signed_at);
        lg_hex_encode(s->pub, LG_SIGN_PUB_LEN, hex);
        cJSON_AddStringToObject(j, "public_key", hex);
    }
    return cli_print_json(j);
}

static void print_text(const char *path, const struct judged *x)
{
    static const char *const verdicts[] = { "intact", "NOT INTACT", "cannot be told" };
    const struct lg_manifest_sig *s = &x->l.sig;
    char begun[32], at[32], vault[2 * LG_ID_LEN + 1], keyring[2 * LG_ID_LEN + 1], digest[2 * LG_MAC_LEN + 1], pub[2 * LG_SIGN_PUB_LEN + 1];
    printf("%s: %s%s%s\n", path, verdicts[x->verdict], *x->why ? ": " : "", x->why);
    if (!x->whole)
        return;
    cli_time(s->begun, begun);
    cli_time(s->signed_at, at);
    lg_hex_encode(s->vault_id, LG_ID_LEN, vault);
    lg_hex_encode(s->hash, LG_MAC_LEN, digest);
    printf("    %llu entries of vault %s, by a walk begun at %s\n    digest %s\n", (unsigned long long)s->entries, vault, begun, digest);
    if (!x->l.is_signed)
        return;
    lg_hex_encode(s->keyring_id, LG_ID_LEN, keyring);
    lg_hex_encode(s->pub, LG_SIGN_PUB_LEN, pub);
    printf("    signed at %s for keyring %s with key %s\n", at, keyring, pub);
    if (x->verdict == GOOD)
        printf("    The record scrub.manifest in the key manager's access log tells who asked for it (leadglass audit query --event scrub.manifest)\n");
}

/* The key to trust: of --key, else the key manager's. An exit status; x->key "none": there is none to be had, and x->why says why. */
static int trusted(const struct cli *c, struct judged *x, uint8_t pub[LG_SIGN_PUB_LEN])
{
    struct lg_client *k = NULL;
    x->key = "none";
    x->why = "it hangs together and is signed with the key that it names, but whose that is nobody was asked: say --key FILE (of `leadglass audit export-key --manifests`)";
    if (c->audit.key) {
        if (cli_audit_read_key(c->audit.key, pub))
            return cli_fail(CLI_FAILED, "%s: not a public key (64 hexadecimal digits, as `leadglass audit export-key --manifests` prints them)", c->audit.key);
        x->key = "file";
    } else if (!c->audit.offline && c->socket && lg_client_new(c->socket, &k) == 0) {
        int rc = lg_client_manifest_key(k, pub);
        if (!rc)
            x->key = "key manager";
        else if (rc == -ENOKEY)
            x->why = "it hangs together and is signed with the key that it names, but whose that is the key manager cannot say while the keyring is locked";
        else if (rc == -EPROTONOSUPPORT)
            x->why = "it hangs together and is signed with the key that it names, but the key manager is of an earlier version, which has no such key";
    }
    lg_client_free(k);
    return CLI_OK;
}

int cli_audit_manifest(const struct cli *c)
{
    struct judged x = { .why = "", .key = "none" };
    uint8_t pub[LG_SIGN_PUB_LEN];
    if (c->argc != 1)
        return cli_fail(CLI_USAGE, "expected manifest FILE; see leadglass audit --help");
    const char *path = c->argv[0];
    int rc = lg_manifest_look(path, &x.l), code = CLI_OK;
    x.whole = !rc;
    if (rc == -EBADMSG || rc == -EKEYREJECTED || rc == -ENODATA) {
        x.verdict = NOT_GOOD;
        x.why = rc == -ENODATA ? "its signature is missing" : rc == -EBADMSG ? "it was altered: its hashes are not those of what it says" : "it was altered, or never signed with the key that it names";
    } else if (rc) {
        return cli_fail(CLI_FAILED, "%s: %s", path, rc == -EPROTO ? "not a whole manifest" : rc == -EPROTONOSUPPORT ? "of a newer version of Leadglass" : strerror(-rc));
    } else if (!x.l.is_signed) {
        x.verdict = CANNOT_TELL;
        x.why = "it is of version 1, which has a MAC alone: leadglass scrub --against verifies that, and whoever could ask the key manager for the vault's key could have made it";
    } else {
        code = trusted(c, &x, pub);
        if (code)
            return code;
        bool known = strcmp(x.key, "none") != 0;
        x.verdict = !known ? CANNOT_TELL : memcmp(pub, x.l.sig.pub, sizeof pub) == 0 ? GOOD : NOT_GOOD;
        x.why = !known ? x.why : x.verdict == GOOD ? "" : c->audit.key ? "it is signed with another key than the one given" : "it is signed with another key than the key manager's";
    }
    if (c->json)
        code = print_json(path, &x);
    else
        print_text(path, &x);
    if (!code && !c->json && fflush(stdout))
        code = cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
    return code ? code : x.verdict == GOOD ? CLI_OK : x.verdict == NOT_GOOD ? CLI_ALTERED : CLI_CANNOT_TELL;
}

int cli_audit_manifest_key(const struct cli *c)
{
    struct lg_client *k = NULL;
    uint8_t pub[LG_SIGN_PUB_LEN];
    char hex[2 * LG_SIGN_PUB_LEN + 1];
    int code = cli_client(c, &k), rc = code ? 0 : lg_client_manifest_key(k, pub);
    if (rc == -EPROTONOSUPPORT)
        code = cli_fail(CLI_FAILED, "the key manager at %s is of an earlier version, which does not sign manifests", c->socket);
    else if (rc)
        code = cli_explain(c, rc, "audit export-key");
    if (!code) {
        lg_hex_encode(pub, sizeof pub, hex);
        if (puts(hex) < 0 || fflush(stdout))
            code = cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
    }
    lg_client_free(k);
    return code;
}
