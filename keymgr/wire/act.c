#include "leadglass/act.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char doc_magic[8] = "LGACT01";
static const char record_magic[8] = "LGACTR1";

/* ---- what there is ------------------------------------------------------------------------------------------------------------------- */

const struct lg_action_info *lg_action_info(unsigned action)
{
    enum { SEC = LG_ROLE_SECURITY, RET = LG_ROLE_RETENTION, BOTH = LG_ROLE_BOTH, ADM = LG_ROLE_STORAGE_ADMIN };
    static const struct lg_action_info table[LG_ACT_LAST + 1] = {
        [LG_ACT_REVOKE] = { "revoke", BOTH, BOTH, true, false },
        [LG_ACT_CANCEL] = { "cancel", BOTH, 0, false, false },
        [LG_ACT_SUSPEND] = { "suspend", BOTH, 0, true, false },
        [LG_ACT_RESUME] = { "resume", BOTH, 0, true, false },
        [LG_ACT_READMIT] = { "readmit", BOTH, BOTH, true, false },
        [LG_ACT_HOLD] = { "hold", BOTH, 0, true, false },
        [LG_ACT_RELEASE] = { "release", BOTH, BOTH, true, false },
        [LG_ACT_RETAIN] = { "retain", BOTH, 0, true, false },
        [LG_ACT_SHORTEN] = { "shorten", BOTH, BOTH, true, false },
        [LG_ACT_RULE] = { "rule", BOTH, BOTH, true, false },
        [LG_ACT_POLICY] = { "policy", BOTH, BOTH, false, false },
        [LG_ACT_OFFICER_ADD] = { "officer-add", BOTH, BOTH, false, false },
        [LG_ACT_OFFICER_REMOVE] = { "officer-remove", BOTH, BOTH, false, false },
        [LG_ACT_CLOCK] = { "clock", BOTH, BOTH, false, false },
        [LG_ACT_ASSIGN] = { "assign", ADM | BOTH, BOTH, true, true },
        [LG_ACT_TRIM] = { "trim", ADM | BOTH, BOTH, false, false },
        [LG_ACT_BACKUP_VOID] = { "backup-void", ADM | BOTH, BOTH, false, true },
        [LG_ACT_DESTROY_ENABLE] = { "destroy-enable", BOTH, BOTH, false, true },
        [LG_ACT_ACCEPT] = { "accept", BOTH, BOTH, false, false },
        [LG_ACT_UNANCHOR] = { "unanchor", ADM | BOTH, BOTH, false, true },
    };
    return action <= LG_ACT_LAST && table[action].name ? &table[action] : NULL;
}

static const struct {
    enum lg_role role;
    const char *name;
} roles[] = { { LG_ROLE_STORAGE_ADMIN, "storage-admin" }, { LG_ROLE_SECURITY, "security-officer" }, { LG_ROLE_RETENTION, "retention-officer" }, { LG_ROLE_AUDITOR, "auditor" } };

const char *lg_role_name(enum lg_role r)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (roles[i].role == r)
            return roles[i].name;
    return "unknown";
}

int lg_role_parse(const char *name, enum lg_role *ret)
{
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(roles[i].name, name) == 0) {
            *ret = roles[i].role;
            return 0;
        }
    return -EINVAL;
}

const char *lg_act_state_name(enum lg_act_state s)
{
    static const char *const names[] = { "unknown", "pending", "approved", "waiting", "done", "cancelled", "expired" };
    return s <= LG_ACT_EXPIRED ? names[s] : names[0];
}

/* ---- the document --------------------------------------------------------------------------------------------------------------------- */

int lg_act_encode(const struct lg_act *a, uint8_t out[LG_ACT_DOC_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_ACT_DOC_MAX);
    if (!lg_action_info(a->action) || a->data_len > LG_ACT_DATA_MAX || a->expires < a->created)
        return -EINVAL;
    lg_wr_bytes(&w, doc_magic, sizeof doc_magic);
    lg_wr_u16(&w, (uint16_t)a->action);
    lg_wr_bytes(&w, a->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, a->nonce, LG_ID_LEN);
    lg_wr_u64(&w, a->created);
    lg_wr_u64(&w, a->expires);
    lg_wr_bytes(&w, a->by, sizeof a->by);
    lg_wr_bytes(&w, a->kid, LG_ID_LEN);
    lg_wr_str(&w, a->uid);
    lg_wr_u64(&w, a->number);
    lg_wr_str(&w, a->reason);
    lg_wr_u16(&w, (uint16_t)a->data_len);
    lg_wr_bytes(&w, a->data, a->data_len);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_act_decode(const uint8_t *untrusted, size_t len, struct lg_act *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    const uint8_t *m = lg_rd_bytes(&r, sizeof doc_magic);
    struct lg_act a = { .action = (enum lg_action)lg_rd_u16(&r) };
    if (!m || memcmp(m, doc_magic, sizeof doc_magic) != 0 || !lg_action_info(a.action))
        return -EPROTO;
    lg_rd_copy(&r, a.keyring_id, LG_ID_LEN);
    lg_rd_copy(&r, a.nonce, LG_ID_LEN);
    a.created = lg_rd_u64(&r);
    a.expires = lg_rd_u64(&r);
    lg_rd_copy(&r, a.by, sizeof a.by);
    lg_rd_copy(&r, a.kid, LG_ID_LEN);
    lg_rd_str(&r, a.uid, LG_UID_MAX);
    a.number = lg_rd_u64(&r);
    lg_rd_str(&r, a.reason, LG_ACT_REASON_MAX);
    a.data_len = lg_rd_u16(&r);
    if (a.data_len > LG_ACT_DATA_MAX)
        return -EPROTO;
    lg_rd_copy(&r, a.data, a.data_len);
    if (!lg_rd_done(&r) || a.expires < a.created)
        return -EPROTO;
    *ret = a;
    return 0;
}

static size_t purposed(const char purpose[8], const uint8_t *doc, size_t len, uint8_t out[8 + LG_ACT_DOC_MAX])
{
    if (len > LG_ACT_DOC_MAX)
        return 0;
    memcpy(out, purpose, 8);
    memcpy(out + 8, doc, len);
    return 8 + len;
}

int lg_act_sign(const struct lg_secret *seed, const char purpose[8], const uint8_t *doc, size_t len, uint8_t ret_sig[LG_SIGN_LEN])
{
    uint8_t msg[8 + LG_ACT_DOC_MAX];
    size_t n = purposed(purpose, doc, len, msg);
    return n ? lg_sign(seed, msg, n, ret_sig) : -EINVAL;
}

int lg_act_verify(const uint8_t pub[LG_SIGN_PUB_LEN], const char purpose[8], const uint8_t *doc, size_t len, const uint8_t sig[LG_SIGN_LEN])
{
    uint8_t msg[8 + LG_ACT_DOC_MAX];
    size_t n = purposed(purpose, doc, len, msg);
    return n ? lg_sign_verify(pub, msg, n, sig) : -EBADMSG;
}

/* ---- officers -------------------------------------------------------------------------------------------------------------------------- */

static bool role_ok(unsigned r) { return r == LG_ROLE_STORAGE_ADMIN || r == LG_ROLE_SECURITY || r == LG_ROLE_RETENTION || r == LG_ROLE_AUDITOR; }

static bool name_ok(const char *s)
{
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return false;
    return s[0] != 0;
}

int lg_officer_encode(const struct lg_officer *o, uint8_t out[LG_OFFICER_REC_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_OFFICER_REC_MAX);
    if (!role_ok(o->role) || !name_ok(o->name))
        return -EINVAL;
    lg_wr_bytes(&w, o->pub, sizeof o->pub);
    lg_wr_str(&w, o->name);
    lg_wr_u8(&w, (uint8_t)o->role);
    lg_wr_u32(&w, o->account);
    lg_wr_u64(&w, o->added);
    lg_wr_bytes(&w, o->added_by, LG_ID_LEN);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_officer_decode(const uint8_t *untrusted, size_t len, struct lg_officer *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_officer o = { 0 };
    lg_rd_copy(&r, o.pub, sizeof o.pub);
    lg_rd_str(&r, o.name, LG_OFFICER_NAME_MAX);
    o.role = (enum lg_role)lg_rd_u8(&r);
    o.account = lg_rd_u32(&r);
    o.added = lg_rd_u64(&r);
    lg_rd_copy(&r, o.added_by, LG_ID_LEN);
    if (!lg_rd_done(&r) || !role_ok(o.role) || !name_ok(o.name))
        return -EPROTO;
    *ret = o;
    return 0;
}

/* ---- records ------------------------------------------------------------------------------------------------------------------------------ */

static void wr_signed(struct lg_wr *w, const struct lg_signed *s)
{
    lg_wr_bytes(w, s->pub, sizeof s->pub);
    lg_wr_bytes(w, s->sig, sizeof s->sig);
    lg_wr_str(w, s->name);
    lg_wr_u32(w, s->account);
    lg_wr_u64(w, s->at);
}

static void rd_signed(struct lg_rd *r, struct lg_signed *s)
{
    lg_rd_copy(r, s->pub, sizeof s->pub);
    lg_rd_copy(r, s->sig, sizeof s->sig);
    lg_rd_str(r, s->name, LG_OFFICER_NAME_MAX);
    s->account = lg_rd_u32(r);
    s->at = lg_rd_u64(r);
}

int lg_act_record_encode(const struct lg_act_record *a, uint8_t out[LG_ACT_RECORD_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_ACT_RECORD_MAX);
    if (a->state < LG_ACT_PENDING || a->state > LG_ACT_EXPIRED || a->doc_len > LG_ACT_DOC_MAX)
        return -EINVAL;
    lg_wr_bytes(&w, record_magic, sizeof record_magic);
    lg_wr_u8(&w, (uint8_t)a->state);
    lg_wr_u16(&w, (uint16_t)a->doc_len);
    lg_wr_bytes(&w, a->doc, a->doc_len);
    wr_signed(&w, &a->asked);
    wr_signed(&w, &a->approved);
    lg_wr_u64(&w, a->changed);
    lg_wr_bytes(&w, a->ended_by, LG_ID_LEN);
    lg_wr_u64(&w, a->due);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_act_record_decode(const uint8_t *untrusted, size_t len, struct lg_act_record *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_act_record a = { 0 };
    struct lg_act doc;
    const uint8_t *m = lg_rd_bytes(&r, sizeof record_magic);
    if (!m || memcmp(m, record_magic, sizeof record_magic) != 0)
        return -EPROTO;
    a.state = (enum lg_act_state)lg_rd_u8(&r);
    a.doc_len = lg_rd_u16(&r);
    if (a.state < LG_ACT_PENDING || a.state > LG_ACT_EXPIRED || a.doc_len > LG_ACT_DOC_MAX)
        return -EPROTO;
    lg_rd_copy(&r, a.doc, a.doc_len);
    rd_signed(&r, &a.asked);
    rd_signed(&r, &a.approved);
    a.changed = lg_rd_u64(&r);
    lg_rd_copy(&r, a.ended_by, LG_ID_LEN);
    a.due = lg_rd_u64(&r);
    if (!lg_rd_done(&r) || lg_act_decode(a.doc, a.doc_len, &doc))
        return -EPROTO;
    *ret = a;
    return 0;
}

/* ---- policy -------------------------------------------------------------------------------------------------------------------------------- */

void lg_policy_default(struct lg_policy *ret)
{
    *ret = (struct lg_policy){ .waiting_s = 7 * 86400, .suspend_max = 20, .suspend_s = 3600, .n_rules = 1, .rules = { { "default", 0 } } };
}

enum { WAITING_MAX_S = 366 * 86400, YEARS_MAX = 1000 };

static bool policy_ok(const struct lg_policy *p)
{
    if (p->waiting_s > WAITING_MAX_S || !p->suspend_max || !p->suspend_s || !p->n_rules || p->n_rules > LG_RULES_MAX)
        return false;
    for (unsigned i = 0; i < p->n_rules; i++) {
        if (!name_ok(p->rules[i].name) || p->rules[i].years > YEARS_MAX)
            return false;
        for (unsigned j = 0; j < i; j++)
            if (strcmp(p->rules[i].name, p->rules[j].name) == 0)
                return false;
    }
    return true;
}

int lg_policy_encode(const struct lg_policy *p, uint8_t out[LG_POLICY_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_POLICY_MAX);
    if (!policy_ok(p))
        return -EINVAL;
    lg_wr_u64(&w, p->waiting_s);
    lg_wr_u32(&w, p->suspend_max);
    lg_wr_u32(&w, p->suspend_s);
    lg_wr_u8(&w, (uint8_t)p->n_rules);
    for (unsigned i = 0; i < p->n_rules; i++) {
        lg_wr_str(&w, p->rules[i].name);
        lg_wr_u32(&w, p->rules[i].years);
    }
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_policy_decode(const uint8_t *untrusted, size_t len, struct lg_policy *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_policy p = { 0 };
    p.waiting_s = lg_rd_u64(&r);
    p.suspend_max = lg_rd_u32(&r);
    p.suspend_s = lg_rd_u32(&r);
    p.n_rules = lg_rd_u8(&r);
    if (p.n_rules > LG_RULES_MAX)
        return -EPROTO;
    for (unsigned i = 0; i < p.n_rules; i++) {
        lg_rd_str(&r, p.rules[i].name, LG_RULE_NAME_MAX);
        p.rules[i].years = lg_rd_u32(&r);
    }
    if (!lg_rd_done(&r) || !policy_ok(&p))
        return -EPROTO;
    *ret = p;
    return 0;
}

unsigned lg_policy_rule(const struct lg_policy *p, unsigned rule) { return rule < p->n_rules ? rule : 0; }

uint64_t lg_policy_last(const struct lg_policy *p, unsigned rule, uint64_t due, unsigned of, const char *date, uint64_t created)
{
    uint64_t own = lg_policy_rule(p, rule) == lg_policy_rule(p, of) ? lg_policy_due(p, rule, date, created) : 0;
    return own > due ? own : due;
}

uint64_t lg_policy_due(const struct lg_policy *p, unsigned rule, const char *date, uint64_t created)
{
    const struct lg_rule *r = &p->rules[lg_policy_rule(p, rule)];
    struct tm tm = { 0 };
    time_t t = (time_t)created;
    bool digits = strlen(date) == 8 && strspn(date, "0123456789") == 8;
    if (!r->years)
        return 0;
    if (digits) {
        tm.tm_year = (date[0] - '0') * 1000 + (date[1] - '0') * 100 + (date[2] - '0') * 10 + (date[3] - '0') - 1900;
        tm.tm_mon = (date[4] - '0') * 10 + (date[5] - '0') - 1;
        tm.tm_mday = (date[6] - '0') * 10 + (date[7] - '0');
    } else if (!gmtime_r(&t, &tm)) {
        return UINT64_MAX;
    }
    tm.tm_hour = tm.tm_min = tm.tm_sec = 0;
    tm.tm_year += (int)r->years;
    t = timegm(&tm);
    return t < 0 ? 0 : (uint64_t)t;
}
