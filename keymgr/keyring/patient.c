/* Which studies are of one patient: a rule counts from the last of them. Rows of table `state`: the place of each is an HMAC of patient id and number, so that
 * who has the keyring without a secret cannot tell which studies belong together. Keyrings from before have none: they are gathered in the background. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

enum { ROW_KEY = 1 + 16, ROW_LEN = 4 + LG_ID_LEN, MARK_LEN = 1 + 8 + LG_ID_LEN };
#define MANY UINT32_MAX /* more than LG_PATIENT_STUDIES_MAX: nobody, such as an id that a modality gives to all */
static const char purpose[8] = "patient.", mark_purpose[8] = "gathered", mark_name[] = "patients";

struct row { /* number 0 says how many there are, and is the first study's; the others have n 0 */
    uint32_t n;
    uint8_t kid[LG_ID_LEN];
};

static int row_key(const struct lg_keyring *k, const char *patient, uint32_t i, uint8_t out[ROW_KEY])
{
    uint8_t b[1 + 4 + LG_PATIENT_ID_MAX], h[LG_MAC_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u8(&w, 0); /* no UID begins so: those are hashed under the same key */
    lg_wr_u32(&w, i);
    lg_wr_bytes(&w, patient, strlen(patient));
    int rc = w.bad ? -EINVAL : lg_hmac(k->lookup, b, w.len, h);
    out[0] = 'p';
    memcpy(out + 1, h, ROW_KEY - 1);
    return rc;
}

static int row_get(struct lg_keyring *k, const char *patient, uint32_t i, struct row *ret)
{
    uint8_t key[ROW_KEY], b[ROW_LEN];
    size_t len;
    int rc = row_key(k, patient, i, key);
    if (!rc)
        rc = lg_sealed_get(k, LG_T_STATE, purpose, key, sizeof key, b, sizeof b, &len);
    if (rc)
        return rc == -ENOENT && i ? -EPROTO : rc; /* one is missing: what is last cannot be told */
    struct lg_rd r = lg_rd(b, len);
    ret->n = lg_rd_u32(&r);
    lg_rd_copy(&r, ret->kid, LG_ID_LEN);
    return lg_rd_done(&r) && (i || ret->n) ? 0 : -EPROTO;
}

static int row_put(struct lg_keyring *k, const char *patient, uint32_t i, const struct row *x)
{
    uint8_t key[ROW_KEY], b[ROW_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u32(&w, x->n);
    lg_wr_bytes(&w, x->kid, LG_ID_LEN);
    int rc = row_key(k, patient, i, key);
    return rc ? rc : lg_sealed_put(k, LG_T_STATE, purpose, key, sizeof key, b, w.len);
}

static int row_del(struct lg_keyring *k, const char *patient, uint32_t i)
{
    uint8_t key[ROW_KEY];
    int rc = row_key(k, patient, i, key);
    return rc ? rc : lg_store_del(k->store, LG_T_STATE, key, sizeof key);
}

static int add(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const char *patient)
{
    struct row first, x = { .n = 0 };
    memcpy(x.kid, kid, LG_ID_LEN);
    int rc = row_get(k, patient, 0, &first);
    if (rc == -ENOENT) {
        x.n = 1;
        return row_put(k, patient, 0, &x);
    }
    if (rc || first.n == MANY)
        return rc;
    if (first.n < LG_PATIENT_STUDIES_MAX)
        rc = row_put(k, patient, first.n++, &x);
    else
        first.n = MANY;
    return rc ? rc : row_put(k, patient, 0, &first);
}

/* Is a study of this key id among those that were gathered? */
static bool covers(const struct lg_keyring *k, const uint8_t kid[LG_ID_LEN])
{
    return k->gather.phase == LG_GATHERED || (k->gather.phase == LG_GATHERING && memcmp(kid, k->gather.last, LG_ID_LEN) <= 0);
}

int lg_patient_add(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const char *patient) { return patient[0] && covers(k, kid) ? add(k, kid, patient) : 0; }

/* What is known of a study, if anything is. */
static int info_of(struct lg_keyring *k, const struct lg_record *r, struct lg_study_info *ret)
{
    struct lg_key key;
    memset(ret, 0, sizeof *ret);
    if (!r->n)
        return 0;
    int rc = lg_record_key(k, r, r->n - 1, &key);
    if (rc)
        return rc;
    rc = lg_info_open(k, r, key.key, ret);
    lg_secret_free(key.key);
    return rc;
}

static int forget(struct lg_keyring *k, const struct lg_record *r)
{
    struct lg_study_info info;
    struct row first, last, x;
    uint32_t i;
    int rc = info_of(k, r, &info);
    if (rc || !info.patient_id[0] || !covers(k, r->kid))
        return rc;
    rc = row_get(k, info.patient_id, 0, &first);
    if (rc || first.n == MANY)
        return rc == -ENOENT ? 0 : rc;
    rc = row_get(k, info.patient_id, first.n - 1, &last);
    x = last;
    for (i = first.n - 1; !rc && i && memcmp(x.kid, r->kid, LG_ID_LEN) != 0;)
        rc = row_get(k, info.patient_id, --i, &x);
    if (rc || memcmp(x.kid, r->kid, LG_ID_LEN) != 0)
        return rc;
    if (i && i != first.n - 1) /* the last one takes its place */
        rc = row_put(k, info.patient_id, i, &last);
    else if (!i)
        memcpy(first.kid, last.kid, LG_ID_LEN);
    if (!rc)
        rc = row_del(k, info.patient_id, --first.n);
    return rc || !first.n ? rc : row_put(k, info.patient_id, 0, &first);
}

/* A row that stays because others are damaged keeps nothing: its study is destroyed. */
int lg_patient_forget(struct lg_keyring *k, const struct lg_record *r)
{
    int rc = forget(k, r);
    return rc == -EPROTO || rc == -EBADMSG ? 0 : rc;
}

/* -EDOM: this one of the patient's studies keeps those that follow the rule. */
static int keeps(struct lg_keyring *k, const uint8_t kid[LG_ID_LEN], const struct lg_policy *p, unsigned rule, const char *patient, uint64_t wall)
{
    struct lg_record r;
    struct lg_study_info info;
    int rc = lg_record_get(k, kid, &r);
    if (rc || r.state == LG_KEY_DESTROYING || r.state == LG_KEY_DESTROYED)
        return rc == -ENOENT ? -EPROTO : rc;
    rc = info_of(k, &r, &info);
    return rc || strcmp(info.patient_id, patient) != 0 ? rc : lg_policy_last(p, rule, 0, r.c.rule, info.date, r.created) > wall ? -EDOM : 0;
}

int lg_patient_keeps(struct lg_keyring *k, const struct lg_record *r, uint64_t wall, struct lg_patient_looked *looked)
{
    struct lg_policy p;
    struct lg_study_info info;
    struct row first, x;
    int rc = lg_keyring_policy(k, &p);
    unsigned rule = rc ? 0 : lg_policy_rule(&p, r->c.rule);
    if (rc || !p.rules[rule].years)
        return rc;
    rc = info_of(k, r, &info);
    if (rc || lg_policy_last(&p, rule, 0, rule, info.date, r->created) > wall)
        return rc ? rc : -EDOM;
    if (!info.patient_id[0])
        return 0;
    if (looked && looked->any && looked->rule == rule && strcmp(looked->patient, info.patient_id) == 0)
        return looked->kept ? -EDOM : 0;
    if (k->gather.phase != LG_GATHERED)
        return -EINPROGRESS;
    rc = row_get(k, info.patient_id, 0, &first);
    if (rc || first.n == MANY)
        return rc == -ENOENT ? -EPROTO : rc ? rc : -EDOM;
    for (uint32_t i = first.n; !rc && i--;) { /* the newest first: it is the likeliest to keep the others */
        rc = i ? row_get(k, info.patient_id, i, &x) : 0;
        if (!rc)
            rc = keeps(k, i ? x.kid : first.kid, &p, rule, info.patient_id, wall);
    }
    if ((!rc || rc == -EDOM) && looked) {
        looked->any = true;
        looked->kept = rc;
        looked->rule = rule;
        memcpy(looked->patient, info.patient_id, sizeof looked->patient);
    }
    return rc;
}

/* ---- gathering ------------------------------------------------------------------------------------------------------------------------------- */

static uint64_t made(const struct lg_keyring *k) { return k->meta.studies + k->meta.destroyed; }

static int mark_put(struct lg_keyring *k, const struct lg_gather *g)
{
    uint8_t b[MARK_LEN];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_u8(&w, (uint8_t)g->phase);
    lg_wr_u64(&w, g->made);
    lg_wr_bytes(&w, g->last, LG_ID_LEN);
    return lg_sealed_put(k, LG_T_STATE, mark_purpose, mark_name, sizeof mark_name - 1, b, w.len);
}

int lg_patients_load(struct lg_keyring *k)
{
    struct lg_gather g = { .phase = LG_UNGATHERED };
    uint8_t b[MARK_LEN];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, mark_purpose, mark_name, sizeof mark_name - 1, b, sizeof b, &len);
    if (!rc) {
        struct lg_rd r = lg_rd(b, len);
        g.phase = (enum lg_gather_phase)lg_rd_u8(&r);
        g.made = lg_rd_u64(&r);
        lg_rd_copy(&r, g.last, LG_ID_LEN);
        if (!lg_rd_done(&r) || g.phase > LG_GATHERED)
            return -EPROTO;
    } else if (rc != -ENOENT) {
        return rc;
    }
    if (!made(k) && rc)
        g.phase = LG_GATHERED;
    else if (rc || g.made != made(k)) /* an earlier version has made studies meanwhile: anew */
        g = (struct lg_gather){ .phase = LG_UNGATHERED };
    g.made = made(k);
    k->gather = g;
    return 0;
}

int lg_patients_note(struct lg_keyring *k)
{
    struct lg_gather g = k->gather;
    if (!lg_keyring_unlocked(k) || g.made == made(k) || g.phase == LG_UNGATHERED)
        return 0;
    g.made = made(k);
    return mark_put(k, &g);
}

/* What is there of an index that is made anew. */
static int clear(struct lg_keyring *k, unsigned max, struct lg_gather *g)
{
    uint8_t key[64] = { 'p' };
    size_t key_len = 1, len;
    const uint8_t *p;
    int rc = 0;
    for (bool after = false; max && !(rc = lg_store_next(k->store, LG_T_STATE, after, key, &key_len, &p, &len)) && key[0] == 'p'; after = true)
        if (key_len == ROW_KEY) {
            rc = lg_store_del(k->store, LG_T_STATE, key, key_len);
            if (rc)
                return rc;
            max--;
        }
    if (rc && rc != -ENOENT)
        return rc;
    if (max)
        *g = (struct lg_gather){ .phase = LG_GATHERING };
    return 0;
}

static int gather(struct lg_keyring *k, unsigned max, struct lg_gather *g)
{
    uint8_t key[64];
    size_t key_len = LG_ID_LEN, len;
    const uint8_t *p;
    struct lg_record r;
    struct lg_study_info info;
    int rc = 0;
    memcpy(key, g->last, LG_ID_LEN);
    while (max-- && !(rc = lg_store_next(k->store, LG_T_KEYS, true, key, &key_len, &p, &len))) {
        if (key_len != LG_ID_LEN)
            return -EPROTO;
        memcpy(g->last, key, LG_ID_LEN);
        if (p[0] != LG_KIND_STUDY)
            continue;
        rc = lg_record_parse(k, key, p, len, &r);
        if (!rc && (r.state == LG_KEY_DESTROYING || r.state == LG_KEY_DESTROYED))
            continue;
        if (!rc)
            rc = info_of(k, &r, &info);
        if (!rc && info.patient_id[0])
            rc = add(k, r.kid, info.patient_id);
        if (rc && rc != -EPROTO && rc != -EBADMSG) /* a damaged record keeps the others from nothing */
            return rc;
        rc = 0;
    }
    if (rc == -ENOENT)
        g->phase = LG_GATHERED;
    return rc == -ENOENT ? 0 : rc;
}

int lg_keyring_gather(struct lg_keyring *k, unsigned max, bool *ret_left)
{
    struct lg_gather g = k->gather;
    int rc = lg_keyring_need(k, false);
    if (!rc && lg_keyring_in_txn(k))
        rc = -EBUSY;
    if (rc || g.phase == LG_GATHERED) {
        *ret_left = false;
        return rc;
    }
    rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = g.phase == LG_UNGATHERED ? clear(k, max, &g) : gather(k, max, &g);
    g.made = made(k);
    if (!rc)
        rc = mark_put(k, &g);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    if (!rc) {
        k->gather = g;
        *ret_left = g.phase != LG_GATHERED;
    }
    return rc;
}
