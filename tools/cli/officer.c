/* officer, request, policy, clock. */
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "act.h"

/* ---- officer --------------------------------------------------------------------------------------------------------------------------------- */

static int keygen(const struct cli *c, const char *path)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    LG_SECRET_AUTO seed = lg_secret_random();
    char text[LG_OFFICER_KEY_TEXT], pub_text[LG_OFFICER_PUB_TEXT], pub_path[4096];
    uint8_t pub[LG_SIGN_PUB_LEN];
    size_t len;
    if (!pass || !seed)
        return cli_fail(CLI_FAILED, "out of memory");
    if (snprintf(pub_path, sizeof pub_path, "%s.pub", path) >= (int)sizeof pub_path)
        return cli_fail(CLI_USAGE, "%s: too long", path);
    int rc = lg_passphrase_read(&c->pass, "Passphrase for the new key", true, pass, &len);
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "passphrase: %s", rc == -ENOTTY ? "there is no terminal to ask on; use --passphrase-file" : rc == -EINVAL ? "is empty" :
                        rc == -EKEYREJECTED ? "the two differ" : strerror(-rc));
    rc = lg_sign_public(seed, pub);
    if (!rc)
        rc = lg_officer_key_seal(seed, pass, len, 500, text);
    if (!rc)
        rc = lg_officer_pub_text(pub, pub_text);
    if (rc)
        return cli_fail(CLI_FAILED, "%s", strerror(-rc));
    int code = act_file_write(path, text, 0600);
    lg_wipe(text, sizeof text);
    if (!code)
        code = act_file_write(pub_path, pub_text, 0644);
    if (!code)
        printf("%s: private key, keep it. %s: have this registered (leadglass officer add NAME --role ROLE --key %s)\n", path, pub_path, pub_path);
    return code;
}

static int pub_of(const char *key, uint8_t out[LG_SIGN_PUB_LEN])
{
    char text[1024];
    size_t len = strlen(key);
    if (lg_officer_pub_parse(key, len, out) == 0)
        return CLI_OK;
    int code = act_file_read(key, text, sizeof text - 1, &len);
    if (!code && lg_officer_pub_parse(text, len, out))
        code = cli_fail(CLI_FAILED, "%s: is not an officer's public key", key);
    return code;
}

static int officer_list(const struct cli *c, struct lg_client *k)
{
    struct lg_governance *g = calloc(1, sizeof *g);
    char b[64], t[32];
    int code = CLI_OK, rc = g ? lg_client_governance(k, g) : -ENOMEM;
    if (rc) {
        code = cli_explain(c, rc, "officer list");
    } else if (c->json) {
        cJSON *j = cJSON_CreateObject(), *all = cJSON_AddArrayToObject(j, "officers");
        cJSON_AddStringToObject(j, "mode", g->officer_mode ? "officers" : "single-administrator");
        lg_b64_encode(g->sign_pub, sizeof g->sign_pub, b);
        cJSON_AddStringToObject(j, "keyring_public_key", b);
        for (unsigned i = 0; i < g->n_officers; i++) {
            const struct lg_officer *o = &g->officers[i];
            cJSON *x = cJSON_CreateObject();
            cJSON_AddStringToObject(x, "name", o->name);
            cJSON_AddStringToObject(x, "role", lg_role_name(o->role));
            cJSON_AddNumberToObject(x, "account", o->account);
            lg_b64_encode(o->pub, sizeof o->pub, b);
            cJSON_AddStringToObject(x, "public_key", b);
            cli_time(o->added, t);
            cJSON_AddStringToObject(x, "added", t);
            cJSON_AddItemToArray(all, x);
        }
        code = cli_print_json(j);
    } else {
        for (unsigned i = 0; i < g->n_officers; i++) {
            lg_b64_encode(g->officers[i].pub, LG_SIGN_PUB_LEN, b);
            printf("%s\t%s\t%u\t%s\n", g->officers[i].name, lg_role_name(g->officers[i].role), (unsigned)g->officers[i].account, b);
        }
        if (!g->officer_mode)
            fputs("single-administrator mode: until a security officer and a retention officer are registered, one administrator alone may destroy\n", stderr);
    }
    free(g);
    return code;
}

static int officer_add(const struct cli *c, struct lg_client *k, const char *name)
{
    struct lg_officer o = { .account = (uint32_t)getuid() };
    struct lg_act a = { .action = LG_ACT_OFFICER_ADD };
    if (!c->role || lg_role_parse(c->role, &o.role))
        return cli_fail(CLI_USAGE, "--role: expected storage-admin, security-officer, retention-officer or auditor");
    if (!c->key)
        return cli_fail(CLI_USAGE, "--key: expected the officer's public key (the .pub file that `leadglass officer keygen` made)");
    if (strlen(name) > LG_OFFICER_NAME_MAX || !name[0])
        return cli_fail(CLI_USAGE, "a name has 1 to %u bytes", LG_OFFICER_NAME_MAX);
    snprintf(o.name, sizeof o.name, "%s", name);
    if (c->account) {
        char *end;
        unsigned long n = strtoul(c->account, &end, 10);
        const struct passwd *p = *end || end == c->account ? getpwnam(c->account) : NULL;
        if (!p && (*end || end == c->account || n >= UINT32_MAX))
            return cli_fail(CLI_USAGE, "--account %s: there is no such user", c->account);
        o.account = p ? (uint32_t)p->pw_uid : (uint32_t)n;
    }
    int code = pub_of(c->key, o.pub);
    if (code)
        return code;
    int rc = lg_officer_encode(&o, a.data, &a.data_len);
    return rc ? cli_fail(CLI_USAGE, "%s: no such name for an officer", name) : act_perform(c, k, &a);
}

static int officer_remove(const struct cli *c, struct lg_client *k, const char *name)
{
    struct lg_governance *g = calloc(1, sizeof *g);
    struct lg_act a = { .action = LG_ACT_OFFICER_REMOVE, .data_len = LG_SIGN_PUB_LEN };
    int rc = g ? lg_client_governance(k, g) : -ENOMEM, code = rc ? cli_explain(c, rc, "officer remove") : CLI_OK;
    unsigned i = 0;
    while (!code && i < g->n_officers && strcmp(g->officers[i].name, name) != 0)
        i++;
    if (!code && i == g->n_officers)
        code = cli_fail(CLI_FAILED, "no officer is registered as %s", name);
    if (!code) {
        memcpy(a.data, g->officers[i].pub, LG_SIGN_PUB_LEN);
        code = act_perform(c, k, &a);
    }
    free(g);
    return code;
}

static int run_officer(struct cli *c)
{
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "";
    bool list = strcmp(what, "list") == 0;
    if (strcmp(what, "keygen") == 0 && c->argc == 2)
        return keygen(c, c->argv[1]);
    if (!(list && c->argc == 1) && !((strcmp(what, "add") == 0 || strcmp(what, "remove") == 0) && c->argc == 2))
        return cli_fail(CLI_USAGE, "expected list, keygen FILE, add NAME or remove NAME; see leadglass officer --help");
    int code = cli_client(c, &k);
    if (code)
        return code;
    code = list ? officer_list(c, k) : what[0] == 'a' ? officer_add(c, k, c->argv[1]) : officer_remove(c, k, c->argv[1]);
    lg_client_free(k);
    return code;
}

/* ---- request ------------------------------------------------------------------------------------------------------------------------------------ */

static int run_request(struct cli *c)
{
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "", *arg = c->argc == 2 ? c->argv[1] : NULL;
    if (strcmp(what, "sign") == 0 && arg)
        return act_sign_file(c, arg);
    int code = cli_client(c, &k);
    if (code)
        return code;
    if (strcmp(what, "list") == 0 && c->argc == 1)
        code = act_list(c, k);
    else if (strcmp(what, "show") == 0 && arg)
        code = act_show(c, k, arg);
    else if (strcmp(what, "approve") == 0 && arg)
        code = act_approve(c, k, arg);
    else if (strcmp(what, "cancel") == 0 && arg)
        code = act_cancel(c, k, arg);
    else if (strcmp(what, "submit") == 0 && arg)
        code = act_submit_file(c, k, arg);
    else
        code = cli_fail(CLI_USAGE, "expected list, show ID, approve ID, cancel ID, sign FILE or submit FILE; see leadglass request --help");
    lg_client_free(k);
    return code;
}

/* ---- policy ---------------------------------------------------------------------------------------------------------------------------------------- */

static int policy_show(const struct cli *c, const struct lg_policy *p)
{
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddNumberToObject(j, "waiting_s", (double)p->waiting_s);
        cJSON_AddNumberToObject(j, "suspend_max", p->suspend_max);
        cJSON_AddNumberToObject(j, "suspend_s", p->suspend_s);
        cJSON *all = cJSON_AddArrayToObject(j, "rules");
        for (unsigned i = 0; i < p->n_rules; i++) {
            cJSON *r = cJSON_CreateObject();
            cJSON_AddStringToObject(r, "name", p->rules[i].name);
            cJSON_AddNumberToObject(r, "years", p->rules[i].years);
            cJSON_AddItemToArray(all, r);
        }
        return cli_print_json(j);
    }
    char wait[24], in[24];
    printf("waiting period   %s between approval and destruction\nsuspensions      %u by one officer in %s\n", act_period_text(p->waiting_s, wait), p->suspend_max, act_period_text(p->suspend_s, in));
    for (unsigned i = 0; i < p->n_rules; i++) {
        const char *first = i ? "" : " (what studies follow unless told otherwise)";
        if (p->rules[i].years)
            printf("rule             %s: %u years%s\n", p->rules[i].name, p->rules[i].years, first);
        else
            printf("rule             %s: no period, nothing becomes due by it%s\n", p->rules[i].name, first);
    }
    puts("Due that long after the patient's last study that follows the rule. Destruction before that needs --before-due.");
    return CLI_OK;
}

/* NAME=YEARS sets or adds; NAME=0 keeps the rule without a period, as studies refer to it by number. */
static int rule_set(struct lg_policy *p, const char *text)
{
    const char *eq = strchr(text, '=');
    char *end;
    unsigned i = 0;
    unsigned long years = eq ? strtoul(eq + 1, &end, 10) : 0;
    if (!eq || eq == text || *end || end == eq + 1 || years > 1000 || (size_t)(eq - text) > LG_RULE_NAME_MAX)
        return cli_fail(CLI_USAGE, "%s: expected NAME=YEARS", text);
    while (i < p->n_rules && (strlen(p->rules[i].name) != (size_t)(eq - text) || memcmp(p->rules[i].name, text, (size_t)(eq - text)) != 0))
        i++;
    if (i == LG_RULES_MAX)
        return cli_fail(CLI_USAGE, "there are %u rules already", LG_RULES_MAX);
    if (i == p->n_rules)
        p->n_rules++;
    memcpy(p->rules[i].name, text, (size_t)(eq - text));
    p->rules[i].name[eq - text] = 0;
    p->rules[i].years = (uint32_t)years;
    return CLI_OK;
}

static int run_policy(struct cli *c)
{
    struct lg_client *k;
    struct lg_act a = { .action = LG_ACT_POLICY };
    const char *what = c->argc ? c->argv[0] : "";
    bool set = strcmp(what, "set") == 0;
    if ((strcmp(what, "show") != 0 || c->argc != 1) && !set)
        return cli_fail(CLI_USAGE, "expected show or set; see leadglass policy --help");
    struct lg_governance *g = calloc(1, sizeof *g);
    int code = g ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    if (code) {
        free(g);
        return code;
    }
    int rc = lg_client_governance(k, g);
    if (rc)
        code = cli_explain(c, rc, "policy");
    else if (!set)
        code = policy_show(c, &g->policy);
    else {
        if (c->waiting && act_period(c->waiting, &g->policy.waiting_s))
            code = cli_fail(CLI_USAGE, "--waiting %s: expected a period, such as 7d, 12h, 30m, 10s", c->waiting);
        for (int i = 1; !code && i < c->argc; i++)
            code = rule_set(&g->policy, c->argv[i]);
        if (!code && lg_policy_encode(&g->policy, a.data, &a.data_len))
            code = cli_fail(CLI_USAGE, "no such policy: at most 366 days of waiting");
        if (!code)
            code = act_perform(c, k, &a);
    }
    free(g);
    lg_client_free(k);
    return code;
}

/* ---- clock -------------------------------------------------------------------------------------------------------------------------------------------- */

static int run_clock(struct cli *c)
{
    struct lg_client *k;
    struct lg_act a = { .action = LG_ACT_CLOCK };
    const char *what = c->argc ? c->argv[0] : "show";
    bool confirm = strcmp(what, "confirm") == 0;
    if (c->argc > 1 || (!confirm && strcmp(what, "show") != 0))
        return cli_fail(CLI_USAGE, "expected show or confirm; see leadglass clock --help");
    struct lg_governance *g = calloc(1, sizeof *g);
    int code = g ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    if (code) {
        free(g);
        return code;
    }
    int rc = confirm ? 0 : lg_client_governance(k, g);
    char now[32], at[32];
    static const char *const why[] = { "believed", "jumped forward", "went back", "the host was off for too long" };
    cli_time(g->time.wall_s, now);
    cli_time(g->time.frozen_at, at);
    if (confirm)
        code = act_perform(c, k, &a);
    else if (rc)
        code = cli_explain(c, rc, "clock");
    else if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "now", now);
        cJSON_AddBoolToObject(j, "frozen", g->time.frozen != LG_FROZEN_NOT);
        cJSON_AddStringToObject(j, "why", why[g->time.frozen]);
        cJSON_AddNumberToObject(j, "running_s", (double)g->time.run_s);
        code = cli_print_json(j);
    } else {
        printf("clock     %s, %s%s%s\nrunning   %llu s in all\n", now, why[g->time.frozen], g->time.frozen ? ", seen at " : "", g->time.frozen ? at : "", (unsigned long long)g->time.run_s);
        if (g->time.frozen)
            puts(g->officer_mode ? "Nothing becomes due and nothing is destroyed until two officers confirm that the clock is right: leadglass clock confirm --reason TEXT --sign KEYFILE"
                                 : "Nothing becomes due and nothing is destroyed until you confirm that the clock is right: leadglass clock confirm --reason TEXT");
    }
    free(g);
    lg_client_free(k);
    return code;
}

static const struct cli_option why[] = { { "reason", "TEXT", "why", CLI_TEXT, CLI_INTO(reason), 0 }, { 0 } };
static const struct cli_option officer_options[] = {
    { "reason", "TEXT", "why", CLI_TEXT, CLI_INTO(reason), 0 },
    { "role", "ROLE", "storage-admin, security-officer, retention-officer or auditor", CLI_TEXT, CLI_INTO(role), 0 },
    { "key", "PUB", "the officer's public key: the .pub file, or its text", CLI_TEXT, CLI_INTO(key), 0 },
    { "account", "USER", "the officer's local account; default: yours", CLI_TEXT, CLI_INTO(account), 0 },
    { 0 },
};
const struct cli_command cli_officer = {
    "officer", "list | keygen FILE | add NAME --role ROLE --key PUB [--account USER] --reason TEXT | remove NAME --reason TEXT", "the officers, and their keys",
    "keygen makes a private key, protected by a passphrase, in FILE and its public half in FILE.pub.\n"
    "From the moment when a security officer and a retention officer are registered, destruction and what equals it need the signatures of two\n"
    "officers, changes of officers too. There is no way back to single-administrator mode.\n",
    "list|keygen|add...", { officer_options, act_options, cli_pass_options, cli_json_options }, run_officer, false,
};
static const struct cli_option request_options[] = {
    { "reason", "TEXT", "cancel: why", CLI_TEXT, CLI_INTO(reason), 0 },
    { "all", NULL, "list: those that are over too", CLI_FLAG, CLI_INTO(all), 0 },
    { "raw", "FILE", "show: write what is to be signed into FILE", CLI_TEXT, CLI_INTO(raw), 0 },
    { "approve", NULL, "sign: as the second officer", CLI_FLAG, CLI_INTO(approve), 0 },
    { 0 },
};
const struct cli_command cli_request = {
    "request", "list | show ID | approve ID | cancel ID | sign FILE | submit FILE", "what officers have asked for",
    "approve signs with your key what another officer asked for, and carries it out; it shows UID and patient as the key manager knows them and asks first.\n"
    "For a key on a machine without a network: --offline FILE or show --raw FILE, there sign FILE [--approve], then submit FILE.signed.\n",
    "list|show|approve...", { request_options, act_options, cli_pass_options, cli_json_options }, run_request, false,
};
static const struct cli_option policy_options[] = {
    { "reason", "TEXT", "set: why", CLI_TEXT, CLI_INTO(reason), 0 },
    { "waiting", "PERIOD", "set: between approval and destruction, such as 7d or 12h", CLI_TEXT, CLI_INTO(waiting), 0 },
    { 0 },
};
const struct cli_command cli_policy = {
    "policy", "show | set [RULE=YEARS...] [--waiting PERIOD] --reason TEXT", "waiting period and retention rules",
    "A rule says for how many years studies are kept: `leadglass policy set default=15 inpatient=30`. leadglass study due lists a study that long after the patient's last\n"
    "study that follows the rule. Destruction before that is refused without --before-due; of what waits for it already, too, when the patient has a newer study.\n"
    "Studies follow the first rule unless told otherwise (leadglass study retain UID --rule NAME).\n",
    "show|set", { policy_options, act_options, cli_pass_options, cli_json_options }, run_policy, false,
};
const struct cli_command cli_clock = {
    "clock", "show | confirm --reason TEXT", "whether the clock is believed",
    "When the clock jumps, nothing becomes due and nothing is destroyed until officers confirm that it is right.\n",
    "show|confirm", { why, act_options, cli_pass_options, cli_json_options }, run_clock, false,
};
