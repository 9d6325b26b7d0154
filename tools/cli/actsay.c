/* What an act would do, in words, for those who sign it; and periods. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "act.h"
#include "backup.h"
#include "leadglass/bytes.h"

int act_period(const char *text, uint64_t *ret)
{
    char *end;
    unsigned long n = strtoul(text, &end, 10);
    unsigned long unit = *end == 'd' ? 86400 : *end == 'h' ? 3600 : *end == 'm' ? 60 : *end == 's' ? 1 : 0;
    if (end == text || !unit || end[1] || n > 1000000)
        return -EINVAL;
    *ret = (uint64_t)n * unit;
    return 0;
}

const char *act_period_text(uint64_t s, char out[24])
{
    static const struct {
        unsigned s;
        char name;
    } unit[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
    unsigned i = 0;
    while (unit[i].s > 1 && (!s || s % unit[i].s))
        i++;
    snprintf(out, 24, "%llu%c", (unsigned long long)(s / unit[i].s), unit[i].name);
    return out;
}

/* Every rule: whoever approves one approves all of them. */
static void policy_text(char *out, size_t cap, const struct lg_policy *p)
{
    char w[24], s[24];
    int at = snprintf(out, cap, "waiting period %s, %u suspensions by one officer in %s, years kept:", act_period_text(p->waiting_s, w), p->suspend_max, act_period_text(p->suspend_s, s));
    for (unsigned i = 0; i < p->n_rules && at > 0 && (size_t)at < cap; i++)
        at += snprintf(out + at, cap - (size_t)at, "%s %s=%u", i ? "," : "", p->rules[i].name, (unsigned)p->rules[i].years);
}

void act_details(char *out, size_t cap, const struct lg_act *a)
{
    char id[2 * LG_ID_LEN + 1], t[32];
    struct lg_officer o;
    struct lg_policy p;
    struct lg_assign file;
    struct lg_trim trim;
    cli_hex(a->kid, id);
    cli_time(a->number, t);
    out[0] = 0;
    if (a->action == LG_ACT_REVOKE && a->data_len && !lg_trim_decode(a->data, a->data_len, &trim)) {
        int at = snprintf(out, cap, "%sits files are removed afterwards from", a->number & 1 ? "ALTHOUGH A RETENTION RULE SAYS IT IS NOT DUE; " : "");
        for (unsigned i = 0; i < trim.n_vaults && at > 0 && (size_t)at < cap; i++) {
            cli_hex(trim.vault[i], id);
            at += snprintf(out + at, cap - (size_t)at, "%s vault %s", i ? "," : "", id);
        }
    } else if (a->action == LG_ACT_RETAIN || a->action == LG_ACT_SHORTEN)
        snprintf(out, cap, "until %s", t);
    else if (a->action == LG_ACT_RULE)
        snprintf(out, cap, "rule number %llu", (unsigned long long)a->number);
    else if (a->action == LG_ACT_REVOKE && a->number & 1)
        snprintf(out, cap, "ALTHOUGH A RETENTION RULE SAYS IT IS NOT DUE");
    else if (a->action == LG_ACT_OFFICER_ADD && !lg_officer_decode(a->data, a->data_len, &o))
        snprintf(out, cap, "%s as %s, account %u", o.name, lg_role_name(o.role), (unsigned)o.account);
    else if (a->action == LG_ACT_ASSIGN && !lg_assign_decode(a->data, a->data_len, &file)) {
        char f[2 * LG_ID_LEN + 1], from[2 * LG_ID_LEN + 1];
        cli_hex(file.file_id, f);
        cli_hex(file.from, from);
        snprintf(out, cap, "file %s, id %s, which is under key %s", file.name, f, from);
    } else if (a->action == LG_ACT_TRIM && !lg_trim_decode(a->data, a->data_len, &trim)) {
        int at = snprintf(out, cap, "older key versions of %s are destroyed; DECLARED: no ciphertext copy from before %s is kept anywhere; looked through: ", a->uid[0] ? "this study" : "ALL STUDIES", t);
        for (unsigned i = 0; i < trim.n_vaults && at > 0 && (size_t)at < cap; i++) {
            cli_hex(trim.vault[i], id);
            at += snprintf(out + at, cap - (size_t)at, "%svault %s", i ? ", " : "", id);
        }
        if (trim.others_gone && at > 0 && (size_t)at < cap)
            snprintf(out + at, cap - (size_t)at, "; DECLARED: the keyring's other vaults are gone");
    } else if (a->action == LG_ACT_POLICY && !lg_policy_decode(a->data, a->data_len, &p))
        policy_text(out, cap, &p);
    else if (a->action == LG_ACT_OFFICER_REMOVE && a->data_len == LG_SIGN_PUB_LEN)
        lg_b64_encode(a->data, a->data_len, out);
    else if (!lg_action_info(a->action)->study && strspn(id, "0") != sizeof id - 1)
        snprintf(out, cap, "%s", id);
}

/* What its numbers and keys mean in this keyring. s: room for a study, a->uid's if that is known. */
void act_context(struct lg_client *k, const struct lg_act *a, struct lg_study *s, FILE *f)
{
    struct lg_governance *g = calloc(1, sizeof *g);
    struct lg_act_record *r = calloc(1, sizeof *r);
    struct lg_act hold;
    char now[1024];
    bool policy = a->action == LG_ACT_POLICY, rule = a->action == LG_ACT_RULE, officer = a->action == LG_ACT_OFFICER_REMOVE;
    bool known = g && (policy || rule || officer) && lg_client_governance(k, g) == 0;
    if (known && policy) {
        policy_text(now, sizeof now, &g->policy);
        fprintf(f, "until now %s\n", now);
    }
    if (known && rule && a->number < g->policy.n_rules)
        fprintf(f, "rule      %s, %u years\n", g->policy.rules[a->number].name, (unsigned)g->policy.rules[a->number].years);
    for (unsigned i = 0; known && officer && i < g->n_officers; i++)
        if (a->data_len == LG_SIGN_PUB_LEN && memcmp(g->officers[i].pub, a->data, LG_SIGN_PUB_LEN) == 0)
            fprintf(f, "officer   %s, %s, account %u\n", g->officers[i].name, lg_role_name(g->officers[i].role), (unsigned)g->officers[i].account);
    if (a->action == LG_ACT_BACKUP_VOID)
        fprintf(f, "backup    %s\n", backup_describe(k, a->kid, now, sizeof now) ? "NOT IN THE INVENTORY OF THIS KEYRING" : now);
    bool study = a->uid[0] && s && lg_client_study_show(k, a->uid, s) == 0;
    if (study && s->retain_until) {
        cli_time(s->retain_until, now);
        fprintf(f, "kept      until %s\n", now);
    }
    if (study && s->held && r && lg_client_act_get(k, s->hold, r) == 0 && lg_act_decode(r->doc, r->doc_len, &hold) == 0) {
        cli_time(r->asked.at, now);
        fprintf(f, "held      since %s, by %s: %s\n", now, r->asked.name[0] ? r->asked.name : "a single administrator", hold.reason);
    }
    free(g);
    free(r);
}
