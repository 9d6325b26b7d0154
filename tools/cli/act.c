#include "act.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { LIFE_S = 7 * 86400, FILE_MAX = 8192 };
static const char head_act[] = "leadglass-act-1", head_asked[] = "leadglass-asked-1", head_approval[] = "leadglass-approval-1";

const struct cli_option act_options[] = {
    { "sign", "KEYFILE", "your private key (leadglass officer keygen)", CLI_TEXT, CLI_INTO(sign), 0 },
    { "yes", NULL, "do not ask (before an approval is signed, before the slot file is anchored)", CLI_FLAG, CLI_INTO(yes), 0 },
    { "offline", "FILE", "write what is to be signed into FILE instead (leadglass request sign)", CLI_TEXT, CLI_INTO(offline), 0 },
    { "as", "NAME", "--offline: the officer who will sign it", CLI_TEXT, CLI_INTO(as), 0 },
    { 0 },
};

/* ---- files, dates -------------------------------------------------------------------------------------------------------------------------------- */

int act_file_read(const char *path, char *out, size_t cap, size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    if (!f)
        return cli_fail(CLI_FAILED, "%s: %s", path, strerror(errno));
    size_t n = fread(out, 1, cap, f);
    bool bad = ferror(f) || n == cap;
    fclose(f);
    if (bad)
        return cli_fail(CLI_FAILED, "%s: cannot be read, or is too long", path);
    out[n] = 0;
    *ret_len = n;
    return CLI_OK;
}

int act_file_write(const char *path, const char *text, unsigned mode)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    size_t len = strlen(text);
    if (fd < 0)
        return cli_fail(CLI_FAILED, "%s: %s", path, strerror(errno));
    bool ok = write(fd, text, len) == (ssize_t)len && fsync(fd) == 0;
    int e = errno;
    close(fd);
    return ok ? CLI_OK : cli_fail(CLI_FAILED, "%s: %s", path, strerror(e));
}

int act_day(const char *text, uint64_t *ret)
{
    struct tm tm = { 0 };
    const char *end = strptime(text, strchr(text, '-') ? "%Y-%m-%d" : "%Y%m%d", &tm);
    time_t t = end && !*end ? timegm(&tm) : -1;
    if (t < 0)
        return -EINVAL;
    *ret = (uint64_t)t;
    return 0;
}

int act_key_read(const struct cli *c, const char *path, struct lg_secret *ret)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    char text[FILE_MAX];
    size_t len, pass_len;
    int code = pass ? act_file_read(path, text, sizeof text - 1, &len) : cli_fail(CLI_FAILED, "out of memory");
    if (code)
        return code;
    int rc = lg_passphrase_read(&c->pass, "Passphrase of your key", false, pass, &pass_len);
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "passphrase: %s", rc == -ENOTTY ? "there is no terminal to ask on; use --passphrase-file" : rc == -EINVAL ? "is empty" : strerror(-rc));
    rc = lg_officer_key_open(text, len, pass, pass_len, ret);
    return rc == -EKEYREJECTED ? cli_fail(CLI_PASSPHRASE, "%s: wrong passphrase", path) : rc ? cli_fail(CLI_FAILED, "%s: is not an officer's private key", path) : CLI_OK;
}

/* ---- what came of it --------------------------------------------------------------------------------------------------------------------------------- */

static int explain(const struct cli *c, int rc, const char *what)
{
    switch (rc) {
    case -EPERM: return cli_fail(CLI_REFUSED, "%s: officers are registered: an officer has to sign it. Say --sign KEYFILE", what);
    case -EACCES: return cli_fail(CLI_REFUSED, "%s: not from this account, or not in this role", what);
    case -EKEYREJECTED: return cli_fail(CLI_REFUSED, "%s: the signature is not that of a registered officer, or what it signs was changed", what);
    case -ELOOP: return cli_fail(CLI_REFUSED, "%s: nobody approves their own request", what);
    case -EALREADY: return cli_fail(CLI_REFUSED, "%s: used already, or things are as you ask already", what);
    case -ETIME: return cli_fail(CLI_REFUSED, "%s: it has expired, or was made in the future, or before the keyring was restored: ask for it anew", what);
    case -EBUSY: return cli_fail(CLI_REFUSED, "%s: a legal hold is on the study (leadglass study show tells which)", what);
    case -EINPROGRESS: return cli_fail(CLI_REFUSED, "%s: the key manager is still noting which studies are of one patient, which rules count by, as the keyring was made by an earlier version. Try again in some minutes", what);
    case -EDOM: return cli_fail(CLI_REFUSED, "%s: its retention has not ended (a rule counts from the patient's last study; leadglass study due --all --patient ID), or the date is earlier where a later one was asked for (two officers shorten it)", what);
    case -EDQUOT: return cli_fail(CLI_REFUSED, "%s: you have suspended as many studies as the policy allows one officer in that time", what);
    case -ENOLCK: return cli_fail(CLI_REFUSED, "%s: the clock cannot be believed; look at it, then have it confirmed (leadglass clock confirm)", what);
    case -EUSERS: return cli_fail(CLI_REFUSED, "%s: a security officer and a retention officer must remain", what);
    case -EEXIST: return cli_fail(CLI_REFUSED, "%s: an officer with this key, name or account is registered", what);
    case -EREMOTE: return cli_fail(CLI_REFUSED, "%s: the keyring knows more vaults than those named; their files would be lost. Name every vault, or declare --other-vaults-gone", what);
    case -ESTALE: return cli_fail(CLI_REFUSED, "%s: the study has another key by now", what);
    case -EXDEV: return cli_fail(CLI_REFUSED, "%s: was made for another keyring", what);
    case -EBADMSG: return cli_fail(CLI_REFUSED, "%s: the officers in the keyring are not those of the root-slot file: one of the two was put back", what);
    case -EINVAL: return cli_fail(CLI_USAGE, "%s: the key manager does not accept these values (a reason is always needed: --reason TEXT)", what);
    case -EKEYREVOKED: return cli_fail(CLI_REVOKED, "%s: is destroyed, or about to be", what);
    case -ENOENT: return cli_fail(CLI_FAILED, "%s: not known to this keyring", what);
    default: return cli_explain(c, rc, what);
    }
}

static cJSON *signed_json(const struct lg_signed *s)
{
    char b[128], t[32];
    static const uint8_t none[LG_SIGN_PUB_LEN];
    if (!s->at)
        return cJSON_CreateNull();
    cJSON *j = cJSON_CreateObject();
    bool alone = memcmp(s->pub, none, sizeof none) == 0;
    cJSON_AddStringToObject(j, "name", alone ? "(single administrator)" : s->name);
    cJSON_AddNumberToObject(j, "account", s->account);
    cli_time(s->at, t);
    cJSON_AddStringToObject(j, "at", t);
    if (!alone) {
        lg_b64_encode(s->pub, sizeof s->pub, b);
        cJSON_AddStringToObject(j, "public_key", b);
        lg_b64_encode(s->sig, sizeof s->sig, b);
        cJSON_AddStringToObject(j, "signature", b);
    }
    return j;
}

cJSON *act_json(const struct lg_act_record *r)
{
    struct lg_act a;
    char id[2 * LG_ID_LEN + 1], t[32], more[1280];
    cJSON *j = cJSON_CreateObject();
    if (lg_act_decode(r->doc, r->doc_len, &a))
        return j;
    cli_hex(a.nonce, id);
    cJSON_AddStringToObject(j, "id", id);
    cJSON_AddStringToObject(j, "action", lg_action_info(a.action)->name);
    cJSON_AddStringToObject(j, "state", lg_act_state_name(r->state));
    cJSON_AddStringToObject(j, "uid", a.uid);
    cli_hex(a.kid, id);
    cJSON_AddStringToObject(j, "subject_id", id);
    cJSON_AddStringToObject(j, "reason", a.reason);
    act_details(more, sizeof more, &a);
    cJSON_AddStringToObject(j, "details", more);
    cli_time(a.created, t);
    cJSON_AddStringToObject(j, "created", t);
    cli_time(a.expires, t);
    cJSON_AddStringToObject(j, "expires", t);
    cJSON_AddItemToObject(j, "asked", signed_json(&r->asked));
    cJSON_AddItemToObject(j, "approved", signed_json(&r->approved));
    cli_time(r->due, t);
    if (r->due)
        cJSON_AddStringToObject(j, "destroyed_not_before", t);
    else
        cJSON_AddNullToObject(j, "destroyed_not_before");
    return j;
}

static int report(const struct cli *c, const struct lg_act_record *r, const struct lg_unconfirmed *u)
{
    struct lg_act a;
    char id[2 * LG_ID_LEN + 1], t[32];
    if (lg_act_decode(r->doc, r->doc_len, &a))
        return cli_explain(c, -EPROTO, "act");
    cli_hex(a.nonce, id);
    if (c->quiet)
        return CLI_OK;
    if (c->json) {
        return cli_unconfirmed(c, u, act_json(r));
    }
    cli_time(r->due, t);
    printf("%s  %s %s: %s", id, lg_action_info(a.action)->name, a.uid, lg_act_state_name(r->state));
    if (r->state == LG_ACT_PENDING)
        printf("; another officer approves it: leadglass request approve %s --sign KEYFILE", id);
    else if (r->state == LG_ACT_WAITING && a.action == LG_ACT_TRIM)
        printf("; from %s on: leadglass key trim --act %s VAULT... Until then: leadglass study cancel %s", t, id, id);
    else if (r->state == LG_ACT_WAITING)
        printf("; unreadable now, destroyed not before %s. Until then: leadglass study cancel %s", t, id);
    else if (r->state == LG_ACT_APPROVED && a.action == LG_ACT_BACKUP_VOID) {
        char backup[2 * LG_ID_LEN + 1];
        cli_hex(a.kid, backup);
        printf("; now: leadglass backup void %s --act %s", backup, id);
    } else if (r->state == LG_ACT_APPROVED && a.action == LG_ACT_DESTROY_ENABLE)
        printf("; now: leadglass backup confirm --act %s", id);
    else if (r->state == LG_ACT_APPROVED && a.action == LG_ACT_UNANCHOR)
        printf("; now: leadglass slot anchor --none --act %s", id);
    else if (r->state == LG_ACT_APPROVED && a.action == LG_ACT_ASSIGN)
        printf("; now, as root: leadglass study assign FILE %s --act %s", a.uid, id);
    putchar('\n');
    fflush(stdout);
    return cli_unconfirmed(c, u, NULL);
}

static int submit(const struct cli *c, struct lg_client *k, const uint8_t *doc, size_t len, const uint8_t *sig, const char *what)
{
    struct lg_act_record r;
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    int rc = u ? lg_client_act_submit(k, doc, len, sig, &r, u) : -ENOMEM;
    struct lg_act a;
    int code = !rc ? report(c, &r, u)
               : rc == -EDOM && lg_act_decode(doc, len, &a) == 0 && a.action == LG_ACT_TRIM
                   ? cli_fail(CLI_REFUSED, "%s: that date is in the future, or the newest version was made after it (or by a version of Leadglass that did not note when: rotate and re-encrypt once more)", what)
                   : explain(c, rc, what);
    free(u);
    return code;
}

static int approve(const struct cli *c, struct lg_client *k, const uint8_t id[LG_ID_LEN], const uint8_t *pub, const uint8_t *sig, const char *what)
{
    struct lg_act_record r;
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    int rc = u ? lg_client_act_approve(k, id, pub, sig, &r, u) : -ENOMEM;
    int code = rc ? explain(c, rc, what) : report(c, &r, u);
    free(u);
    return code;
}

/* ---- making one ------------------------------------------------------------------------------------------------------------------------------------------ */

static int text_file(const char *path, const char *head, const uint8_t *doc, size_t len, const uint8_t *pub, const uint8_t *sig)
{
    char text[FILE_MAX], *p = text;
    p += snprintf(p, 64, "%s ", head);
    lg_b64_encode(doc, len, p);
    p += strlen(p);
    if (sig) {
        *p++ = ' ';
        lg_b64_encode(pub, LG_SIGN_PUB_LEN, p);
        p += strlen(p);
        *p++ = ' ';
        lg_b64_encode(sig, LG_SIGN_LEN, p);
        p += strlen(p);
    }
    memcpy(p, "\n", 2);
    return act_file_write(path, text, 0644);
}

static int officer_named(const struct cli *c, const struct lg_governance *g, uint8_t out[LG_SIGN_PUB_LEN])
{
    for (unsigned i = 0; c->as && i < g->n_officers; i++)
        if (strcmp(g->officers[i].name, c->as) == 0) {
            memcpy(out, g->officers[i].pub, LG_SIGN_PUB_LEN);
            return CLI_OK;
        }
    return cli_fail(CLI_USAGE, c->as ? "no officer is registered as %s" : "say with --as NAME which officer will sign the file%s", c->as ? c->as : "");
}

int act_perform(const struct cli *c, struct lg_client *k, struct lg_act *a)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    struct lg_governance *g = calloc(1, sizeof *g);
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    const char *name = lg_action_info(a->action)->name;
    int code = CLI_OK, rc = seed && g ? lg_client_governance(k, g) : -ENOMEM;
    if (rc)
        code = rc == -EACCES ? explain(c, rc, name) : cli_explain(c, rc, name);
    else if (!c->reason || !c->reason[0])
        code = cli_fail(CLI_USAGE, "say why: --reason TEXT");
    else if (strlen(c->reason) > LG_ACT_REASON_MAX)
        code = cli_fail(CLI_USAGE, "the reason is longer than %u bytes", LG_ACT_REASON_MAX);
    else if (g->officer_mode && !c->sign && !c->offline)
        code = explain(c, -EPERM, name);
    if (code)
        goto out;
    a->created = (uint64_t)time(NULL);
    a->expires = a->created + LIFE_S;
    memcpy(a->keyring_id, g->keyring_id, LG_ID_LEN);
    snprintf(a->reason, sizeof a->reason, "%s", c->reason);
    if (c->offline)
        code = officer_named(c, g, a->by);
    else if (c->sign)
        code = act_key_read(c, c->sign, seed);
    rc = code ? 0 : lg_random(a->nonce, LG_ID_LEN);
    if (!code && !rc && c->sign && !c->offline)
        rc = lg_sign_public(seed, a->by);
    if (!code && !rc)
        rc = lg_act_encode(a, doc, &len);
    if (!code && !rc && c->sign && !c->offline)
        rc = lg_act_sign(seed, LG_ACT_ASK, doc, len, sig);
    if (!code && rc)
        code = explain(c, rc, name);
    else if (!code && c->offline)
        code = text_file(c->offline, head_act, doc, len, NULL, NULL);
    else if (!code)
        code = submit(c, k, doc, len, c->sign ? sig : NULL, a->uid[0] ? a->uid : name);
out:
    free(g);
    return code;
}

int act_on_study(const struct cli *c, struct lg_client *k, enum lg_action action, const char *uid, uint64_t number)
{
    struct lg_study *s = calloc(1, sizeof *s);
    struct lg_act a = { .action = action, .number = number };
    int rc = s ? lg_client_study_show(k, uid, s) : -ENOMEM, code;
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid) : cli_explain(c, rc, uid);
    else if (s->state == LG_KEY_RESTORED && (action == LG_ACT_RESUME || action == LG_ACT_SUSPEND || action == LG_ACT_READMIT))
        code = cli_fail(CLI_REFUSED, "study %s is in quarantine: it was named as destroyed after the backup that this keyring was restored from, and nothing resumes it. If its destruction stands, revoke it anew "
                                     "(leadglass study revoke). If it was named wrongly, restore once more from the same backup into another directory, with the list corrected, before this keyring is in use", uid);
    else {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        memcpy(a.kid, s->kid, LG_ID_LEN);
        code = act_perform(c, k, &a);
    }
    free(s);
    return code;
}

/* ---- looking at one ---------------------------------------------------------------------------------------------------------------------------------------- */

static int fetch(const struct cli *c, struct lg_client *k, const char *id, struct lg_act_record *r, struct lg_act *a)
{
    uint8_t raw[LG_ID_LEN];
    if (strlen(id) != sizeof raw * 2 || lg_hex_decode(id, raw, sizeof raw))
        return cli_fail(CLI_USAGE, "%s is no request's id (32 hexadecimal digits; leadglass request list)", id);
    int rc = lg_client_act_get(k, raw, r);
    if (!rc)
        rc = lg_act_decode(r->doc, r->doc_len, a);
    return rc ? explain(c, rc, id) : CLI_OK;
}

static void print_signed(const char *what, const struct lg_signed *s)
{
    char t[32];
    cli_time(s->at, t);
    if (s->at)
        printf("%s %s, account %u, %s\n", what, s->name[0] ? s->name : "(single administrator, no signature)", (unsigned)s->account, t);
}

static void print_act(struct lg_client *k, const struct lg_act_record *r, const struct lg_act *a, FILE *f)
{
    char t[32], u[32], more[1280];
    struct lg_assign file;
    struct lg_study *s = calloc(1, sizeof *s);
    cli_time(a->created, t);
    cli_time(a->expires, u);
    act_details(more, sizeof more, a);
    fprintf(f, "action    %s%s%s\nstate     %s\n", lg_action_info(a->action)->name, more[0] ? ": " : "", more, lg_act_state_name(r->state));
    /* UID and patient as the key manager knows them, not as the request says. */
    if (a->uid[0] && s && lg_client_study_show(k, a->uid, s) == 0)
        fprintf(f, "study     %s\npatient   %s\ndate      %s %s, accession %s\nkey       %s%s\n", a->uid, s->info.patient_id[0] ? s->info.patient_id : "(not known)", s->info.date,
                s->info.modality, s->info.accession, lg_key_state_name(s->state), memcmp(s->kid, a->kid, LG_ID_LEN) ? ", NOT THE KEY THAT THE REQUEST NAMES" : "");
    else if (a->uid[0])
        fprintf(f, "study     %s (not known to this keyring)\n", a->uid);
    /* The study that loses the file, likewise. */
    if (a->action == LG_ACT_ASSIGN && s && lg_assign_decode(a->data, a->data_len, &file) == 0 && lg_client_study_by_kid(k, file.from, s) == 0)
        fprintf(f, "from      study %s, patient %s\n", s->info.uid[0] ? s->info.uid : "(unreadable)", s->info.patient_id[0] ? s->info.patient_id : "(not known)");
    act_context(k, a, s, f);
    fprintf(f, "reason    %s\ncreated   %s, expires %s\n", a->reason, t, u);
    free(s);
}

int act_show(const struct cli *c, struct lg_client *k, const char *id)
{
    struct lg_act_record r;
    struct lg_act a;
    int code = fetch(c, k, id, &r, &a);
    if (code)
        return code;
    if (c->raw)
        return text_file(c->raw, head_act, r.doc, r.doc_len, NULL, NULL);
    if (c->json)
        return cli_print_json(act_json(&r));
    print_act(k, &r, &a, stdout);
    print_signed("asked    ", &r.asked);
    print_signed("approved ", &r.approved);
    return CLI_OK;
}

struct listing {
    cJSON *all;
};

static int list_one(void *arg, const struct lg_act_record *r)
{
    struct listing *l = arg;
    struct lg_act a;
    char id[2 * LG_ID_LEN + 1], t[32];
    if (l->all) {
        cJSON_AddItemToArray(l->all, act_json(r));
        return 0;
    }
    int rc = lg_act_decode(r->doc, r->doc_len, &a);
    if (rc)
        return rc;
    cli_hex(a.nonce, id);
    cli_time(a.created, t);
    printf("%s\t%s\t%s\t%s\t%s\t%s\t%s\n", id, t, lg_action_info(a.action)->name, lg_act_state_name(r->state), a.uid, r->asked.name[0] ? r->asked.name : "-", a.reason);
    return 0;
}

int act_list(const struct cli *c, struct lg_client *k)
{
    struct listing l = { .all = c->json ? cJSON_CreateArray() : NULL };
    int rc = lg_client_act_list(k, !c->all, list_one, &l);
    if (rc) {
        cJSON_Delete(l.all);
        return cli_explain(c, rc, "request list");
    }
    return c->json ? cli_print_json(l.all) : CLI_OK;
}

/* ---- approving, cancelling ------------------------------------------------------------------------------------------------------------------------------------ */

static int sure(const struct cli *c, const char *question)
{
    char line[16];
    if (c->yes)
        return CLI_OK;
    if (!isatty(STDIN_FILENO))
        return cli_fail(CLI_USAGE, "there is no terminal to ask on; say --yes after looking at it (leadglass request show)");
    fprintf(stderr, "%s Type yes: ", question);
    return fgets(line, sizeof line, stdin) && strcmp(line, "yes\n") == 0 ? CLI_OK : cli_fail(CLI_FAILED, "not approved");
}

int act_approve(const struct cli *c, struct lg_client *k, const char *id)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    struct lg_act_record r;
    struct lg_act a;
    uint8_t pub[LG_SIGN_PUB_LEN], sig[LG_SIGN_LEN];
    if (!c->sign)
        return cli_fail(CLI_USAGE, "say --sign KEYFILE: your own private key");
    int code = seed ? fetch(c, k, id, &r, &a) : cli_fail(CLI_FAILED, "out of memory");
    if (!code) {
        print_act(k, &r, &a, stderr);
        code = sure(c, "Approve this?");
    }
    if (!code)
        code = act_key_read(c, c->sign, seed);
    if (code)
        return code;
    int rc = lg_sign_public(seed, pub);
    if (!rc)
        rc = lg_act_sign(seed, LG_ACT_APPROVE, r.doc, r.doc_len, sig);
    return rc ? explain(c, rc, id) : approve(c, k, a.nonce, pub, sig, id);
}

int act_cancel(const struct cli *c, struct lg_client *k, const char *id)
{
    struct lg_act_record r;
    struct lg_act target, a = { .action = LG_ACT_CANCEL };
    int code = fetch(c, k, id, &r, &target);
    if (code)
        return code;
    memcpy(a.kid, target.nonce, LG_ID_LEN);
    return act_perform(c, k, &a);
}

/* ---- files ---------------------------------------------------------------------------------------------------------------------------------------------------- */

struct carried {
    char head[32];
    uint8_t doc[LG_ACT_DOC_MAX], pub[LG_SIGN_PUB_LEN], sig[LG_SIGN_LEN];
    size_t len;
    bool is_signed;
};

static int carried_read(const char *path, struct carried *x)
{
    char text[FILE_MAX], *save = NULL, *part[5];
    size_t n = 0, len;
    int code = act_file_read(path, text, sizeof text - 1, &len);
    if (code)
        return code;
    for (char *p = strtok_r(text, " \n", &save); p && n < 5; p = strtok_r(NULL, " \n", &save))
        part[n++] = p;
    bool ok = (n == 2 || n == 4) && strlen(part[0]) < sizeof x->head && !lg_b64_decode(part[1], strlen(part[1]), x->doc, sizeof x->doc, &x->len);
    if (ok)
        snprintf(x->head, sizeof x->head, "%s", part[0]);
    x->is_signed = n == 4;
    if (ok && n == 4)
        ok = !lg_b64_decode(part[2], strlen(part[2]), x->pub, sizeof x->pub, &len) && len == sizeof x->pub &&
             !lg_b64_decode(part[3], strlen(part[3]), x->sig, sizeof x->sig, &len) && len == sizeof x->sig;
    ok = ok && (strcmp(x->head, x->is_signed ? head_asked : head_act) == 0 || (x->is_signed && strcmp(x->head, head_approval) == 0));
    return ok ? CLI_OK : cli_fail(CLI_FAILED, "%s: no file of an act", path);
}

int act_sign_file(const struct cli *c, const char *path)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    struct carried x;
    struct lg_act a;
    char out[4096], more[1280];
    if (!c->sign)
        return cli_fail(CLI_USAGE, "say --sign KEYFILE: your own private key");
    if (snprintf(out, sizeof out, "%s.signed", path) >= (int)sizeof out)
        return cli_fail(CLI_USAGE, "%s: too long", path);
    int code = seed ? carried_read(path, &x) : cli_fail(CLI_FAILED, "out of memory");
    if (!code && lg_act_decode(x.doc, x.len, &a))
        code = cli_fail(CLI_FAILED, "%s: no file of an act", path);
    if (code)
        return code;
    act_details(more, sizeof more, &a);
    fprintf(stderr, "action    %s%s%s\nstudy     %s\nreason    %s\n", lg_action_info(a.action)->name, more[0] ? ": " : "", more, a.uid, a.reason);
    code = sure(c, c->approve ? "Approve this?" : "Sign this?");
    if (!code)
        code = act_key_read(c, c->sign, seed);
    if (code)
        return code;
    int rc = lg_sign_public(seed, x.pub);
    if (!rc && !c->approve && memcmp(x.pub, a.by, sizeof x.pub) != 0)
        return cli_fail(CLI_REFUSED, "%s is to be signed by another officer. To approve it, say --approve", path);
    if (!rc)
        rc = lg_act_sign(seed, c->approve ? LG_ACT_APPROVE : LG_ACT_ASK, x.doc, x.len, x.sig);
    code = rc ? explain(c, rc, path) : text_file(out, c->approve ? head_approval : head_asked, x.doc, x.len, x.pub, x.sig);
    if (!code)
        printf("%s: hand it in with leadglass request submit %s\n", out, out);
    return code;
}

int act_submit_file(const struct cli *c, struct lg_client *k, const char *path)
{
    struct carried x;
    struct lg_act a;
    int code = carried_read(path, &x);
    if (!code && (!x.is_signed || lg_act_decode(x.doc, x.len, &a)))
        code = cli_fail(CLI_FAILED, "%s: is not signed (leadglass request sign)", path);
    if (code)
        return code;
    return strcmp(x.head, head_approval) == 0 ? approve(c, k, a.nonce, x.pub, x.sig, path) : submit(c, k, x.doc, x.len, x.sig, path);
}
