/* The retention officer's worklist, and retention by study or by patient. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "act.h"

struct kept { /* what retention needs of a study; all of them are held in memory */
    char uid[LG_UID_MAX + 1], patient[LG_PATIENT_ID_MAX + 1], date[LG_DATE_MAX + 1];
    uint64_t created, retain_until, due;
    unsigned rule;
    bool held;
    enum lg_key_state state;
};
struct all {
    struct kept *s;
    size_t n, cap;
};

static int gather(void *arg, const struct lg_study *s)
{
    struct all *a = arg;
    if (s->state == LG_KEY_DESTROYED || s->state == LG_KEY_DESTROYING)
        return 0;
    if (a->n == a->cap) {
        size_t cap = a->cap ? a->cap * 2 : 256;
        void *p = reallocarray(a->s, cap, sizeof *a->s);
        if (!p)
            return -ENOMEM;
        a->s = p;
        a->cap = cap;
    }
    struct kept *k = &a->s[a->n++];
    *k = (struct kept){ .created = s->created, .retain_until = s->retain_until, .rule = s->rule, .held = s->held, .state = s->state };
    memcpy(k->uid, s->info.uid, sizeof k->uid);
    memcpy(k->patient, s->info.patient_id, sizeof k->patient);
    memcpy(k->date, s->info.date, sizeof k->date);
    return 0;
}

static int by_patient_rule(const void *x, const void *y)
{
    const struct kept *a = x, *b = y;
    int d = strcmp(a->patient, b->patient);
    return d ? d : a->rule < b->rule ? -1 : a->rule > b->rule;
}

static int by_due(const void *x, const void *y)
{
    const struct kept *a = x, *b = y;
    return a->due < b->due ? -1 : a->due > b->due;
}

/* As the key manager does it when one is to be destroyed. Studies of nobody known count each for itself. */
static void due_dates(struct all *a, const struct lg_policy *p)
{
    if (!a->n)
        return;
    for (size_t i = 0; i < a->n; i++)
        a->s[i].rule = lg_policy_rule(p, a->s[i].rule);
    qsort(a->s, a->n, sizeof *a->s, by_patient_rule);
    for (size_t i = 0, j; i < a->n; i = j) {
        uint64_t last = 0;
        for (j = i; j < a->n && (j == i || (a->s[i].patient[0] && by_patient_rule(&a->s[i], &a->s[j]) == 0)); j++)
            last = lg_policy_last(p, a->s[i].rule, last, a->s[j].rule, a->s[j].date, a->s[j].created);
        for (size_t x = i; x < j; x++)
            a->s[x].due = a->s[x].retain_until > last ? a->s[x].retain_until : last;
    }
    qsort(a->s, a->n, sizeof *a->s, by_due);
}

static void print_due(const struct kept *s, const char *rule, cJSON *list)
{
    char t[32];
    cli_time(s->due, t);
    if (!list) {
        printf("%s\t%s\t%s\t%s\t%s\t%s%s\n", t, s->uid, s->patient, s->date, rule, lg_key_state_name(s->state), s->held ? ", held" : "");
        return;
    }
    cJSON *j = cJSON_CreateObject();
    cJSON_AddStringToObject(j, "due", t);
    cJSON_AddStringToObject(j, "uid", s->uid);
    cJSON_AddStringToObject(j, "patient_id", s->patient);
    cJSON_AddStringToObject(j, "study_date", s->date);
    cJSON_AddStringToObject(j, "rule", rule);
    cJSON_AddStringToObject(j, "state", lg_key_state_name(s->state));
    cJSON_AddBoolToObject(j, "held", s->held);
    cJSON_AddItemToArray(list, j);
}

struct reaping {
    struct lg_client *k;
    bool json;
};

/* Removal of files that was asked for with a destruction, as long as the certificate does not say that it is done. */
static int reap_due(void *arg, const struct lg_act_record *r)
{
    const struct reaping *x = arg;
    struct lg_act a;
    struct lg_trim *from = calloc(1, sizeof *from);
    struct lg_certificate *cert = calloc(1, sizeof *cert);
    uint8_t *doc = malloc(LG_CERT_MAX), sig[LG_SIGN_LEN];
    size_t len;
    char t[32], id[2 * LG_ID_LEN + 1];
    bool wanted = (r->state == LG_ACT_WAITING || r->state == LG_ACT_DONE) && from && cert && doc && lg_act_decode(r->doc, r->doc_len, &a) == 0 && a.action == LG_ACT_REVOKE && a.data_len &&
                  lg_trim_decode(a.data, a.data_len, from) == 0;
    bool destroyed = wanted && lg_client_certificate(x->k, a.uid, doc, &len, sig) == 0 && lg_certificate_decode(doc, len, cert) == 0;
    for (unsigned i = 0; wanted && i < from->n_vaults && !(destroyed && cert->removed && cert->vaults_counted >= from->n_vaults); i++) {
        cli_hex(from->vault[i], id);
        cli_time(r->due, t);
        if (destroyed)
            fprintf(x->json ? stderr : stdout, "reap  %s is destroyed; its files are to be removed from vault %s: leadglass study reap %s VAULT\n", a.uid, id, a.uid);
        else
            fprintf(x->json ? stderr : stdout, "reap  %s is destroyed from %s on; then its files are to be removed from vault %s: leadglass study reap %s VAULT\n", a.uid, t, id, a.uid);
    }
    free(doc);
    free(cert);
    free(from);
    return 0;
}

int study_due(const struct cli *c, struct lg_client *k)
{
    struct all a = { 0 };
    struct lg_governance *g = calloc(1, sizeof *g);
    cJSON *list = c->json ? cJSON_CreateArray() : NULL;
    int rc = g ? lg_client_governance(k, g) : -ENOMEM, code = CLI_OK;
    if (!rc)
        rc = lg_client_study_list(k, gather, &a);
    if (!rc)
        due_dates(&a, &g->policy);
    for (size_t i = 0; !rc && i < a.n; i++) {
        const struct kept *s = &a.s[i];
        if (s->due && (c->all || s->due <= g->time.wall_s) && (!c->patient || strcmp(c->patient, s->patient) == 0))
            print_due(s, g->policy.rules[s->rule].name, list);
    }
    if (!rc && g->time.frozen)
        cli_fail(0, "the clock cannot be believed: nothing of this is taken as due until it is confirmed (leadglass clock)");
    if (!rc)
        rc = lg_client_act_list(k, false, reap_due, &(struct reaping){ k, c->json });
    if (rc)
        code = cli_explain(c, rc, "study due");
    else if (list) {
        code = cli_print_json(list);
        list = NULL;
    }
    cJSON_Delete(list);
    free(a.s);
    free(g);
    return code;
}

static int retain_one(const struct cli *c, struct lg_client *k, const char *uid, uint64_t until, unsigned rule)
{
    struct lg_study *s = calloc(1, sizeof *s);
    int rc = s ? lg_client_study_show(k, uid, s) : -ENOMEM, code;
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid) : cli_explain(c, rc, uid);
    else if (c->rule)
        code = act_on_study(c, k, LG_ACT_RULE, uid, rule);
    else
        code = act_on_study(c, k, until < s->retain_until ? LG_ACT_SHORTEN : LG_ACT_RETAIN, uid, until);
    free(s);
    return code;
}

int study_retain(const struct cli *c, struct lg_client *k, const char *uid)
{
    uint64_t until = 0;
    unsigned rule = 0, n = 0;
    struct all a = { 0 };
    int code = CLI_OK;
    if (!c->until == !c->rule || (c->until && act_day(c->until, &until)))
        return cli_fail(CLI_USAGE, "say either --until DATE (YYYY-MM-DD) or --rule NAME");
    if (c->rule)
        code = study_rule(c, k, &rule);
    if (code || uid)
        return code ? code : retain_one(c, k, uid, until, rule);
    int rc = lg_client_study_list(k, gather, &a);
    if (rc)
        code = cli_explain(c, rc, "study retain");
    for (size_t i = 0; !code && i < a.n; i++)
        if (strcmp(a.s[i].patient, c->patient) == 0 && (c->rule ? a.s[i].rule != rule : a.s[i].retain_until != until)) {
            code = retain_one(c, k, a.s[i].uid, until, rule);
            n++;
        }
    if (!code && !n)
        code = cli_fail(CLI_FAILED, "no study of patient %s is known, or none has to change", c->patient);
    free(a.s);
    return code;
}
