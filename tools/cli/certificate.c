/* Certificates of destruction: the signed document, as JSON and as a page to print. Everything shown is read out of the signed bytes, also when verifying:
 * what stands beside them in the JSON must be what they say. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "act.h"

static const char format[] = "leadglass-certificate-1";
static const char *const not_covered[] = {
    "path names, symbolic links, sizes and times of the study's files in the vault, and the encrypted files themselves, which nobody can open (--reap removes them)",
    "what the PACS keeps outside the vault: its database, caches, logs, exports",
    "files that never named the study, and copies made before they came into the vault",
    "the UID and the reason in this certificate and in the request, which stay in the keyring, sealed",
};
enum { N_NOT = sizeof not_covered / sizeof *not_covered };
static const char reaped[] = "path names, symbolic links, sizes and times of the study's files, and the encrypted files themselves, in backups and other copies of the vaults (in the vaults they were removed)";

static const char *not_covered_text(const struct lg_certificate *x, unsigned i) { return !i && x->removed ? reaped : not_covered[i]; }

/* A keyring that was made from an earlier version's backup, which tells of no others, cannot say that there are none. */
static bool backups_unknown(const struct lg_certificate *x) { return x->restored && !x->restored_from; }

/* As the version says it that issues this form: what stands in a file is compared with it. */
static void state_text(const struct lg_certificate *x, char out[64])
{
    if (x->backups_all && x->version == 1)
        snprintf(out, 64, "destroyed, backups outstanding");
    else if (!x->backups_all && backups_unknown(x))
        snprintf(out, 64, "destroyed, not known which backups are outstanding");
    else if (x->backups_all)
        snprintf(out, 64, "destroyed, %llu backup%s outstanding", (unsigned long long)x->backups_all, x->backups_all == 1 ? "" : "s");
    else
        snprintf(out, 64, "destroyed");
}

static cJSON *json_of(const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN], const struct lg_certificate *x)
{
    char hex[2 * LG_ID_LEN + 1], t[32], state[64], b64[9000];
    cJSON *j = cJSON_CreateObject();
    state_text(x, state);
    cJSON_AddStringToObject(j, "format", format);
    cJSON_AddStringToObject(j, "study_uid", x->uid);
    cJSON_AddStringToObject(j, "state", state);
    cli_time(x->tombstone.destroyed, t);
    cJSON_AddStringToObject(j, "destroyed", t);
    cli_time(x->issued, t);
    cJSON_AddStringToObject(j, "issued", t);
    cli_hex(x->keyring_id, hex);
    cJSON_AddStringToObject(j, "keyring_id", hex);
    cli_hex(x->tombstone.kid, hex);
    cJSON_AddStringToObject(j, "key_id", hex);
    cJSON_AddNumberToObject(j, "key_versions", x->tombstone.versions);
    cJSON_AddNumberToObject(j, "attached_keys", x->tombstone.attached);
    cJSON_AddNumberToObject(j, "epoch_before", (double)x->tombstone.epoch_before);
    cJSON_AddNumberToObject(j, "epoch", (double)x->tombstone.epoch);
    cJSON_AddNumberToObject(j, "slot_file_generation", (double)x->tombstone.generation);
    cJSON_AddItemToObject(j, "request", act_json(&x->act));
    cJSON_AddBoolToObject(j, "older_slot_files_useless", x->anchored);
    if (x->files == LG_CERT_UNKNOWN)
        cJSON_AddNullToObject(j, "files");
    else
        cJSON_AddNumberToObject(j, "files", (double)x->files);
    if (x->bytes == LG_CERT_UNKNOWN)
        cJSON_AddNullToObject(j, "bytes");
    else
        cJSON_AddNumberToObject(j, "bytes", (double)x->bytes);
    if (x->version >= 2) { /* what was issued before a form had this does not have it */
        cJSON_AddNumberToObject(j, "vaults_counted", x->vaults_counted);
        cJSON_AddNumberToObject(j, "vaults", x->vaults);
        cli_json_time(j, "files_removed", x->removed);
    }
    cJSON *all = cJSON_AddArrayToObject(j, "backups_outstanding");
    for (unsigned i = 0; i < x->n_backups; i++) {
        cJSON *b = cJSON_CreateObject();
        cli_hex(x->backups[i].id, hex);
        cli_time(x->backups[i].created, t);
        cJSON_AddStringToObject(b, "id", hex);
        cJSON_AddStringToObject(b, "created", t);
        cJSON_AddItemToArray(all, b);
    }
    if (x->version >= 3) {
        cJSON_AddNumberToObject(j, "backups_outstanding_total", (double)x->backups_all);
        cli_json_time(j, "keyring_restored", x->restored);
        cli_json_time(j, "keyring_restored_from", x->restored_from);
    }
    all = cJSON_AddArrayToObject(j, "not_covered");
    for (unsigned i = 0; i < N_NOT; i++)
        cJSON_AddItemToArray(all, cJSON_CreateString(not_covered_text(x, i)));
    lg_b64_encode(x->pub, sizeof x->pub, b64);
    cJSON_AddStringToObject(j, "keyring_public_key", b64);
    lg_b64_encode(doc, len, b64);
    cJSON_AddStringToObject(j, "document", b64);
    lg_b64_encode(sig, LG_SIGN_LEN, b64);
    cJSON_AddStringToObject(j, "signature", b64);
    return j;
}

static void put(FILE *f, const char *s)
{
    for (; *s; s++)
        if (*s == '&')
            fputs("&amp;", f);
        else if (*s == '<')
            fputs("&lt;", f);
        else if (*s == '"')
            fputs("&quot;", f);
        else
            fputc(*s, f);
}

static void row(FILE *f, const char *name, const char *fmt, ...) LG_PRINTF(3, 4);
static void row(FILE *f, const char *name, const char *fmt, ...)
{
    char text[4096];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    fprintf(f, "<tr><th>%s<td>", name);
    put(f, text);
    fputc('\n', f);
}

static void who(FILE *f, const char *what, const struct lg_signed *s)
{
    char t[32], b[64];
    static const uint8_t none[LG_SIGN_PUB_LEN];
    cli_time(s->at, t);
    lg_b64_encode(s->pub, sizeof s->pub, b);
    if (memcmp(s->pub, none, sizeof none) == 0)
        row(f, what, "account %u, %s; single-administrator mode: nobody signed", (unsigned)s->account, t);
    else
        row(f, what, "%s, account %u, %s, key %s", s->name, (unsigned)s->account, t, b);
}

static void html_of(FILE *f, const struct lg_certificate *x, const uint8_t sig[LG_SIGN_LEN])
{
    char hex[2 * LG_ID_LEN + 1], t[32], from[32], state[64], b[128];
    struct lg_act a = { .reason = "" };
    (void)!lg_act_decode(x->act.doc, x->act.doc_len, &a);
    fputs("<!doctype html><html lang=en><meta charset=utf-8><title>Certificate of destruction</title>\n"
          "<style>@page{size:A4;margin:15mm}body{font:10pt/1.35 serif;max-width:180mm;margin:auto}h1{font-size:16pt;margin:0 0 4mm}"
          "table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;border-bottom:.2mm solid #999;padding:1mm 2mm;overflow-wrap:anywhere}"
          "th{width:42mm;font-weight:normal;color:#444}ul{margin:1mm 0;padding-left:5mm}.s{font:7.5pt monospace;overflow-wrap:anywhere}.m span{display:block}.b{font:5pt/1.1 monospace;columns:2}.b span{display:block}.d{font-size:8pt;line-height:1.2}.d h1{font-size:13pt;margin:0 0 2mm}.d th,.d td{padding:.5mm 2mm}.d p{margin:1mm 0}</style>\n"
          "<body class=", f);
    fputs(x->n_backups > 4 || strlen(a.reason) > 300 ? "d" : "n", f); /* one page, whatever there is to say */
    fputs("><h1>Certificate of destruction</h1><p>The key of the study named here was destroyed. What was encrypted with it can be read by nobody, in any copy, under the conditions below.\n<table>\n", f);
    row(f, "Study", "%s", x->uid);
    cli_time(x->tombstone.destroyed, t);
    state_text(x, state);
    row(f, "State", "%s; destroyed on %s", state, t);
    row(f, "Reason", "%s", a.reason);
    who(f, "Requested by", &x->act.asked);
    if (x->act.approved.at)
        who(f, "Approved by", &x->act.approved);
    cli_hex(x->tombstone.kid, hex);
    row(f, "Key", "%s, %u version%s, %u provisional key%s with it", hex, x->tombstone.versions, x->tombstone.versions == 1 ? "" : "s", x->tombstone.attached, x->tombstone.attached == 1 ? "" : "s");
    cli_hex(x->keyring_id, hex);
    row(f, "Keyring", "%s; root epoch %llu forgotten, epoch %llu in force; slot file generation %llu", hex, (unsigned long long)x->tombstone.epoch_before,
        (unsigned long long)x->tombstone.epoch, (unsigned long long)x->tombstone.generation);
    if (x->files == LG_CERT_UNKNOWN)
        row(f, "Files", "not counted (leadglass study reap)");
    else {
        cli_time(x->removed, t);
        row(f, "Files", "%llu, %llu bytes of ciphertext, in %u of %u vaults%s%s", (unsigned long long)x->files, (unsigned long long)x->bytes, x->vaults_counted, x->vaults,
            x->removed ? "; removed with their names on " : "; still there, unreadable", x->removed ? t : "");
    }
    row(f, "Older slot files", "%s", x->anchored ? "useless: a value that they need was overwritten (anchor)" :
        "the study stays destroyed as long as no copy of a root-slot file from before the destruction meets a secret valid for it; no anchor in a TPM was in force for all of its life");
    if (!x->n_backups)
        row(f, "Keyring backups", backups_unknown(x) ? "not known which are outstanding: see below" : x->restored ? "none outstanding that this keyring knows of" : "none outstanding");
    if (x->n_backups) { /* in one cell, small enough that all of them leave it at one page */
        fprintf(f, "<tr><th>Keyring backups outstanding<td class=%s>", x->n_backups > 4 ? "b" : "m");
        for (unsigned i = 0; i < x->n_backups; i++) {
            cli_hex(x->backups[i].id, hex);
            cli_time(x->backups[i].created, t);
            fprintf(f, "<span>%s of %s</span> ", hex, t);
        }
        if (x->backups_all > x->n_backups)
            fprintf(f, "<span><b>and %llu more</b> (leadglass backup list)</span>", (unsigned long long)(x->backups_all - x->n_backups));
        fputc('\n', f);
    }
    if (x->restored) {
        cli_time(x->restored, t);
        cli_time(x->restored_from, from);
        row(f, "Restored keyring", "restored on %s from a keyring backup%s%s: backups that were made %s are unknown to it and not listed here", t,
            x->restored_from ? " of " : " made by an earlier version, which tells of no others", x->restored_from ? from : "", x->restored_from ? "between the two" : "before, other than those listed,");
    }
    fputs("<tr><th>Not covered<td><ul>", f);
    for (unsigned i = 0; i < N_NOT; i++) {
        fputs("<li>", f);
        put(f, not_covered_text(x, i));
    }
    cli_time(x->issued, t);
    fprintf(f, "</ul>\n</table><p>Every mount had confirmed that it dropped keys and cached plaintext. Issued %s.\n", t);
    lg_b64_encode(x->pub, sizeof x->pub, b);
    fprintf(f, "<p class=s>Keyring public key (Ed25519) %s<br>", b);
    lg_b64_encode(sig, LG_SIGN_LEN, b);
    fprintf(f, "Signature %s<br>Check the JSON form of this certificate: leadglass study certificate --verify FILE</p></html>\n", b);
}

static int output(const struct cli *c, const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN], const struct lg_certificate *x)
{
    FILE *f = c->out ? fopen(c->out, "wxe") : stdout;
    char *text = NULL;
    if (!f)
        return cli_fail(CLI_FAILED, "%s: %s", c->out, strerror(errno));
    size_t n = c->out ? strlen(c->out) : 0;
    if (c->json || (n > 5 && strcmp(c->out + n - 5, ".json") == 0)) {
        cJSON *j = json_of(doc, len, sig, x);
        text = cJSON_Print(j);
        cJSON_Delete(j);
        if (text)
            fprintf(f, "%s\n", text);
    } else {
        html_of(f, x, sig);
        text = strdup("");
    }
    bool bad = !text || fflush(f) || ferror(f);
    free(text);
    if (c->out)
        bad |= fclose(f) != 0;
    return bad ? cli_fail(CLI_FAILED, "the certificate could not be written") : CLI_OK;
}

int certificate_get(const struct cli *c, struct lg_client *k, const char *uid)
{
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_certificate *x = calloc(1, sizeof *x);
    int code, rc = x ? lg_client_certificate(k, uid, doc, &len, sig) : -ENOMEM;
    if (!rc)
        rc = lg_certificate_verify(doc, len, sig, x);
    if (rc == -ENOTCONN)
        code = cli_fail(CLI_UNCONFIRMED, "no certificate: a mount has not confirmed that it dropped what it had of the study (leadglass status names the mounts); end it, then ask again");
    else if (rc == -EALREADY)
        code = cli_fail(CLI_FAILED, "no certificate: study %s is not destroyed (leadglass study show)", uid);
    else if (rc == -ENOENT)
        code = cli_fail(CLI_FAILED, "study %s is not known to this keyring, or was destroyed before tombstones were kept", uid);
    else
        code = rc ? cli_explain(c, rc, "certificate") : output(c, doc, len, sig, x);
    free(x);
    return code;
}

static int bytes_of(const cJSON *j, const char *name, uint8_t *out, size_t cap, size_t *ret_len)
{
    const cJSON *v = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsString(v) ? lg_b64_decode(v->valuestring, strlen(v->valuestring), out, cap, ret_len) : -EPROTO;
}

int certificate_verify(const struct cli *c, const char *path)
{
    char *text = malloc(65536);
    uint8_t doc[LG_CERT_MAX], sig[LG_SIGN_LEN], trusted[LG_SIGN_PUB_LEN];
    size_t len, n;
    struct lg_certificate *x = calloc(1, sizeof *x);
    int code = text && x ? act_file_read(path, text, 65535, &n) : cli_fail(CLI_FAILED, "out of memory");
    cJSON *j = code ? NULL : cJSON_Parse(text), *want = NULL;
    int rc = code ? 0 : j ? bytes_of(j, "document", doc, sizeof doc, &len) : -EPROTO;
    if (!code && !rc)
        rc = bytes_of(j, "signature", sig, sizeof sig, &n);
    if (!code && !rc)
        rc = n == sizeof sig ? lg_certificate_verify(doc, len, sig, x) : -EPROTO;
    if (!code && !rc) {
        want = json_of(doc, len, sig, x);
        rc = cJSON_Compare(j, want, true) ? 0 : -EBADMSG;
    }
    if (!code && !rc && c->key) {
        rc = lg_officer_pub_parse(c->key, strlen(c->key), trusted);
        code = rc ? cli_fail(CLI_USAGE, "--key: expected the keyring's public key") : memcmp(trusted, x->pub, sizeof trusted) ? cli_fail(CLI_REFUSED, "%s: is signed by another keyring", path) : CLI_OK;
        rc = 0;
    }
    if (!code && rc)
        code = rc == -EBADMSG ? cli_fail(CLI_REFUSED, "%s: DOES NOT VERIFY: it was altered, or not signed by the key it names", path) : cli_fail(CLI_FAILED, "%s: no certificate", path);
    if (!code) {
        char t[32], b[64];
        cli_time(x->tombstone.destroyed, t);
        lg_b64_encode(x->pub, sizeof x->pub, b);
        printf("%s: good. Study %s was destroyed on %s; signed by the keyring key %s%s%s\n", path, x->uid, t, b,
               c->key ? "" : " (compare it with what `leadglass officer list --json` says, or give it with --key)", x->act.approved.at ? "; both officers' signatures are good" : "; single-administrator mode: no officer signed");
    }
    cJSON_Delete(j);
    cJSON_Delete(want);
    free(text);
    free(x);
    return code;
}
