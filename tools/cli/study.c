#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "act.h"
#include "leadglass/backup.h"
#include "leadglass/volume.h"

static void add_id(cJSON *j, const char *name, const uint8_t id[LG_ID_LEN])
{
    static const uint8_t none[LG_ID_LEN];
    char hex[2 * LG_ID_LEN + 1];
    cli_hex(id, hex);
    if (memcmp(id, none, LG_ID_LEN) == 0)
        cJSON_AddNullToObject(j, name);
    else
        cJSON_AddStringToObject(j, name, hex);
}

static cJSON *study_json(const struct lg_study *s)
{
    char kid[2 * LG_ID_LEN + 1], t[32];
    cJSON *j = cJSON_CreateObject();
    cli_hex(s->kid, kid);
    cJSON_AddStringToObject(j, "uid", s->info.uid);
    cJSON_AddStringToObject(j, "state", lg_key_state_name(s->state));
    cJSON_AddStringToObject(j, "key_id", kid);
    cJSON_AddNumberToObject(j, "key_version", s->version);
    cJSON_AddStringToObject(j, "patient_id", s->info.patient_id);
    cJSON_AddStringToObject(j, "accession", s->info.accession);
    cJSON_AddStringToObject(j, "study_date", s->info.date);
    cJSON_AddStringToObject(j, "modality", s->info.modality);
    cli_time(s->created, t);
    cJSON_AddStringToObject(j, "created", t);
    cli_time(s->changed, t);
    cJSON_AddStringToObject(j, "changed", t);
    cJSON_AddNumberToObject(j, "changed_by", s->changed_by);
    cJSON_AddStringToObject(j, "reason", s->reason);
    cJSON_AddBoolToObject(j, "held", s->held);
    add_id(j, "hold", s->hold);
    add_id(j, "act", s->act);
    cli_json_time(j, "retain_until", s->retain_until);
    cJSON_AddNumberToObject(j, "rule", s->rule);
    cli_json_time(j, "destroyed_not_before", s->due);
    cJSON_AddBoolToObject(j, "unconfirmed", s->unconfirmed);
    return j;
}

struct listing {
    const struct cli *c;
    cJSON *all;
    bool tty;
};

/* Those that --state, --hold, --patient, --from and --to leave. A study without a date is in no span of dates. */
static bool wanted(const struct cli *c, const struct lg_study *s)
{
    if (c->state && strcmp(c->state, lg_key_state_name(s->state)) != 0)
        return false;
    if ((c->held && !s->held) || (c->patient && strcmp(c->patient, s->info.patient_id) != 0))
        return false;
    return !((c->from && strcmp(s->info.date, c->from) < 0) || (c->to && (!s->info.date[0] || strcmp(s->info.date, c->to) > 0)));
}

static int list_one(void *arg, const struct lg_study *s)
{
    struct listing *l = arg;
    if (!wanted(l->c, s))
        return 0;
    if (l->all) {
        cJSON_AddItemToArray(l->all, study_json(s));
        return 0;
    }
    const char *uid = s->info.uid[0] ? s->info.uid : "-";
    if (l->tty)
        printf("%-64s  %-10s %-8s  %-8s  %s\n", uid, lg_key_state_name(s->state), s->info.date, s->info.modality, s->info.patient_id);
    else
        printf("%s\t%s\t%s\t%s\t%s\n", uid, lg_key_state_name(s->state), s->info.date, s->info.modality, s->info.patient_id);
    return 0;
}

static int study_list(const struct cli *c, struct lg_client *k)
{
    struct listing l = { .c = c, .all = c->json ? cJSON_CreateArray() : NULL, .tty = isatty(STDOUT_FILENO) };
    if (l.tty && !c->json)
        printf("%-64s  %-10s %-8s  %-8s  %s\n", "STUDY", "STATE", "DATE", "MODALITY", "PATIENT");
    int rc = lg_client_study_list(k, list_one, &l);
    if (rc) {
        cJSON_Delete(l.all);
        return cli_explain(c, rc, "study list");
    }
    return c->json ? cli_print_json(l.all) : CLI_OK;
}

static int study_show(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_study *s = calloc(1, sizeof *s);
    char kid[2 * LG_ID_LEN + 1], t[32], u[32];
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int rc = s && st ? lg_client_status(k, st) : -ENOMEM, code = CLI_OK;
    free(st);
    if (rc) {
        free(s);
        return cli_explain(c, rc, "study show");
    }
    rc = lg_client_study_show(k, uid, s);
    bool told = !rc && s->outstanding != LG_OUTSTANDING_UNKNOWN;
    if (rc == -ENOENT)
        code = cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid);
    else if (rc)
        code = cli_explain(c, rc, "study show");
    else if (c->json) {
        cJSON *j = study_json(s);
        if (told)
            cJSON_AddNumberToObject(j, "backups_outstanding", (double)s->outstanding);
        code = cli_print_json(j);
    } else {
        char state[64];
        snprintf(state, sizeof state, told && s->outstanding ? "%s, %llu backup%s outstanding" : "%s", lg_key_state_name(s->state), (unsigned long long)s->outstanding, s->outstanding == 1 ? "" : "s");
        cli_hex(s->kid, kid);
        cli_time(s->created, t);
        cli_time(s->changed, u);
        printf("study        %s\nstate        %s since %s%s%s\nkey          %s, version %u\ncreated      %s\n", s->info.uid[0] ? s->info.uid : uid, state, u,
               s->reason[0] ? ", reason: " : "", s->reason, kid, s->version, t);
        cli_time(s->retain_until, t);
        cli_time(s->due, u);
        cli_hex(s->hold, kid);
        if (s->held)
            printf("LEGAL HOLD   leadglass request show %s\n", kid);
        if (s->retain_until)
            printf("retained     until %s\n", t);
        if (s->due)
            printf("destroyed    not before %s\n", u);
        if (s->unconfirmed)
            puts("unconfirmed  a mount has not confirmed that it dropped what it had of this study");
        printf("patient      %s\naccession    %s\nstudy date   %s\nmodality     %s\n", s->info.patient_id, s->info.accession, s->info.date, s->info.modality);
    }
    free(s);
    return code;
}

/* One administrator alone, at once. */
static int study_revoke_now(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    enum lg_key_state state;
    int code = CLI_OK, rc = u ? lg_client_study_revoke(k, uid, c->reason, true, &state, u) : -ENOMEM;
    if (rc == -ENOENT)
        code = cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid);
    else if (rc == -EPERM)
        code = cli_fail(CLI_REFUSED, "officers are registered: nobody destroys alone. Ask for it with --sign KEYFILE instead of --now; another officer approves it");
    else if (rc == -EBUSY)
        code = cli_fail(CLI_REFUSED, "%s: a legal hold is on it", uid);
    else if (rc == -EDOM)
        code = cli_fail(CLI_REFUSED, "%s: its retention has not ended (a rule counts from the patient's last study; leadglass study due --all --patient ID)", uid);
    else if (rc == -EINPROGRESS)
        code = cli_fail(CLI_REFUSED, "%s: the key manager is still noting which studies are of one patient, which rules count by, as the keyring was made by an earlier version. Try again in some minutes", uid);
    else if (rc == -EALREADY)
        code = cli_fail(CLI_REFUSED, "%s: is in its waiting period already", uid);
    else if (rc)
        code = cli_explain(c, rc, uid);
    else {
        cJSON *j = NULL;
        fputs("single-administrator mode: destroyed by one administrator alone, without anybody's approval. To change that: leadglass officer add\n", stderr);
        if (c->json) {
            j = cJSON_CreateObject();
            cJSON_AddStringToObject(j, "uid", uid);
            cJSON_AddStringToObject(j, "state", lg_key_state_name(state));
        } else {
            printf("%s: %s\n", uid, lg_key_state_name(state));
            fflush(stdout);
        }
        code = cli_unconfirmed(c, u, j);
        if (state != LG_KEY_DESTROYED && code == CLI_OK)
            code = cli_fail(CLI_FAILED, "the key is revoked but its destruction is not complete; the key manager's log says why. Run the same command again, or lock and unlock");
    }
    free(u);
    return code;
}

/* The vault from which the study's files are to be removed stands in the request, so that whoever approves sees it, and `study due` reminds of it. */
static int revoke_and_reap(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_study *s = calloc(1, sizeof *s);
    struct lg_trim *from = calloc(1, sizeof *from);
    struct lg_act a = { .action = LG_ACT_REVOKE, .number = c->before_due ? 1 : 0 };
    struct lg_vault_info info;
    int rc = s && from ? lg_client_study_show(k, uid, s) : -ENOMEM, code;
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid) : cli_explain(c, rc, uid);
    else if ((rc = lg_vault_read(c->reap, &info)) != 0)
        code = cli_fail(CLI_FAILED, "%s: %s", c->reap, strerror(-rc));
    else {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        memcpy(a.kid, s->kid, LG_ID_LEN);
        from->n_vaults = 1;
        memcpy(from->vault[0], info.vault_id, LG_ID_LEN);
        rc = lg_trim_encode(from, a.data, &a.data_len);
        code = rc ? cli_explain(c, rc, uid) : act_perform(c, k, &a);
        if (!code && !c->quiet)
            fprintf(stderr, "Its files stay until it is destroyed. Once it is: leadglass study reap %s %s (leadglass study due lists it until then)\n", uid, c->reap);
    }
    free(from);
    free(s);
    return code;
}

static int study_revoke(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int code, rc = st ? lg_client_status(k, st) : -ENOMEM;
    if (rc)
        code = cli_explain(c, rc, "study revoke");
    else if (!c->reason || !c->reason[0])
        code = cli_fail(CLI_USAGE, "say why: --reason TEXT");
    else if (c->now && c->before_due)
        code = cli_fail(CLI_USAGE, "--before-due is an exception that somebody else approves; with --now nobody does. Have the study follow another rule first (leadglass study retain UID --rule NAME)");
    else if (c->now) {
        code = study_revoke_now(c, k, uid);
        if (!code && c->reap)
            code = cli_reap(c, k, uid, c->reap);
    }
    else if (!st->officer_mode && !c->sign && !c->offline)
        code = cli_fail(CLI_USAGE, "single-administrator mode: no one could approve a request. Say --now to destroy the key of %s at once. It cannot be undone", uid);
    else
        code = c->reap ? revoke_and_reap(c, k, uid) : act_on_study(c, k, LG_ACT_REVOKE, uid, c->before_due ? 1 : 0);
    free(st);
    return code;
}

int study_rule(const struct cli *c, struct lg_client *k, unsigned *ret)
{
    struct lg_governance *g = calloc(1, sizeof *g);
    int rc = g ? lg_client_governance(k, g) : -ENOMEM, code = rc ? cli_explain(c, rc, "study retain") : CLI_USAGE;
    for (unsigned i = 0; !rc && i < g->policy.n_rules; i++)
        if (strcmp(g->policy.rules[i].name, c->rule) == 0) {
            *ret = i;
            code = CLI_OK;
        }
    if (code == CLI_USAGE)
        cli_fail(code, "the policy has no rule %s (leadglass policy show)", c->rule);
    free(g);
    return code;
}

static int run_study(struct cli *c)
{
    static const struct {
        const char *name;
        enum lg_action action;
    } acts[] = { { "hold", LG_ACT_HOLD }, { "release", LG_ACT_RELEASE }, { "suspend", LG_ACT_SUSPEND }, { "resume", LG_ACT_RESUME }, { "readmit", LG_ACT_READMIT } };
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "", *arg = c->argc == 2 ? c->argv[1] : NULL;
    if (strcmp(what, "certificate") == 0 && c->argc == 1 && c->verify)
        return certificate_verify(c, c->verify);
    int code = cli_client(c, &k);
    if (code)
        return code;
    if (strcmp(what, "list") == 0 && c->argc == 1)
        code = study_list(c, k);
    else if (strcmp(what, "reap") == 0 && c->argc == 3)
        code = cli_reap(c, k, c->argv[1], c->argv[2]);
    else if (strcmp(what, "assign") == 0 && c->argc == 3)
        code = cli_assign(c, k, c->argv[1], c->argv[2]);
    else if (strcmp(what, "due") == 0 && c->argc == 1)
        code = study_due(c, k);
    else if (strcmp(what, "show") == 0 && arg)
        code = study_show(c, k, arg);
    else if (strcmp(what, "revoke") == 0 && arg)
        code = study_revoke(c, k, arg);
    else if (strcmp(what, "retain") == 0 && (arg ? !c->patient : c->argc == 1 && c->patient))
        code = study_retain(c, k, arg);
    else if (strcmp(what, "approve") == 0 && arg)
        code = act_approve(c, k, arg);
    else if (strcmp(what, "cancel") == 0 && arg)
        code = act_cancel(c, k, arg);
    else if (strcmp(what, "certificate") == 0 && arg)
        code = certificate_get(c, k, arg);
    else {
        size_t i = 0;
        while (i < sizeof acts / sizeof *acts && strcmp(what, acts[i].name) != 0)
            i++;
        code = i < sizeof acts / sizeof *acts && arg ? act_on_study(c, k, acts[i].action, arg, 0) :
               cli_fail(CLI_USAGE, "expected list, due, show UID, assign FILE UID, revoke UID, reap UID VAULT, approve ID, cancel ID, hold|release|retain|suspend|resume|readmit UID or certificate UID; see leadglass study --help");
    }
    lg_client_free(k);
    return code;
}

static const struct cli_option study_options[] = {
    { "reason", "TEXT", "why (kept with the request and the tombstone)", CLI_TEXT, CLI_INTO(reason), 0 },
    { "now", NULL, "revoke: one administrator alone, at once (single-administrator mode)", CLI_FLAG, CLI_INTO(now), 0 },
    { "reap", "VAULT", "revoke: then remove its files and names from this mounted vault; without --now it is noted with the request, and\nstudy due says when to run study reap", CLI_TEXT, CLI_INTO(reap), 0 },
    { "count", NULL, "reap: only count what is there, for the certificate", CLI_FLAG, CLI_INTO(count), 0 },
    { "before-due", NULL, "revoke: although a retention rule says it is not due; the approver is told", CLI_FLAG, CLI_INTO(before_due), 0 },
    { "until", "DATE", "retain: YYYY-MM-DD", CLI_TEXT, CLI_INTO(until), 0 },
    { "rule", "NAME", "retain: follow this rule of the policy", CLI_TEXT, CLI_INTO(rule), 0 },
    { "patient", "ID", "list, due: of this patient; retain: all studies of this patient", CLI_TEXT, CLI_INTO(patient), 0 },
    { "state", "STATE", "list: in this state", CLI_TEXT, CLI_INTO(state), 0 },
    { "hold", NULL, "list: with a legal hold", CLI_FLAG, CLI_INTO(held), 0 },
    { "from", "YYYYMMDD", "list: study date from here on", CLI_TEXT, CLI_INTO(from), 0 },
    { "to", "YYYYMMDD", "list: study date up to here", CLI_TEXT, CLI_INTO(to), 0 },
    { "act", "ID", "assign: the officers' approved act, where officers are registered", CLI_TEXT, CLI_INTO(act), 0 },
    { "all", NULL, "due: those that are due later too", CLI_FLAG, CLI_INTO(all), 0 },
    { "out", "FILE", "certificate: into a file (.json or .html)", CLI_TEXT, CLI_INTO(out), 0 },
    { "verify", "FILE", "certificate: check a JSON certificate, offline", CLI_TEXT, CLI_INTO(verify), 0 },
    { "key", "PUB", "certificate --verify: the keyring's public key that must have signed it", CLI_TEXT, CLI_INTO(key), 0 },
    { 0 },
};
const struct cli_command cli_study = {
    "study", "list | due | show UID | assign FILE UID | revoke UID | reap UID VAULT | approve ID | cancel ID | hold|release|retain|suspend|resume|readmit UID | certificate UID",
    "list, retain, hold, suspend and destroy studies",
    "assign re-encrypts a file of a mounted vault under the key of another study. Copies of its old ciphertext stay under the old key. Where officers are registered it\n"
    "takes two: assign --reason TEXT --sign KEYFILE asks, another officer approves, assign --act ID carries it out.\n"
    "revoke asks for a study's key to be destroyed: the study, its backups included, can then be read by nobody. Another officer approves it; from then on it is\n"
    "unreadable, and after the waiting period of the policy the key is destroyed. Until then either officer cancels it. While no officers are registered, one\n"
    "administrator may destroy at once, and says so with --now. hold, retain and suspend need one officer; release, an earlier date, another rule and readmit two.\n"
    "reap removes what is left of a destroyed study in a mounted vault: its files, which nobody can read, their names, links to them and directories that are empty then; it\n"
    "is run again when it was interrupted. Their number and size go onto the certificate (with --count nothing is removed).\n"
    "Exit status 6 when a mount has not confirmed; it is named. 16 when officers, holds, retention or the clock forbid it.\n",
    "list|due|revoke...", { study_options, act_options, cli_pass_options, cli_json_options }, run_study, false,
};
