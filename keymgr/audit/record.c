/* A record as one line of JSON. */
#include <string.h>
#include <time.h>

#include "text.h"

void lg_audit_record_init(struct lg_audit_record *r)
{
    memset(r, 0, offsetof(struct lg_audit_record, user));
    r->user[0] = r->host[0] = r->exe[0] = r->text[0] = r->path[0] = r->target[0] = 0;
}

/* ---- time -------------------------------------------------------------------------------------------------------------------- */

static void two(char *p, unsigned v)
{
    p[0] = (char)('0' + v / 10);
    p[1] = (char)('0' + v % 10);
}

/* Days since 1970 to a date and back: H. Hinnant, chrono-compatible low-level date algorithms (era of 400 years from 1 March). */
static void civil(int64_t days, int64_t *y, unsigned *m, unsigned *d)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned doe = (unsigned)(days - era * 146097), yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365;
    unsigned doy = doe - (365 * yoe + yoe / 4 - yoe / 100), mp = (5 * doy + 2) / 153;
    *d = doy - (153 * mp + 2) / 5 + 1;
    *m = mp < 10 ? mp + 3 : mp - 9;
    *y = (int64_t)yoe + era * 400 + (*m <= 2);
}

static int64_t days_of(int64_t y, unsigned m, unsigned d)
{
    y -= m <= 2;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    unsigned yoe = (unsigned)(y - era * 400), doy = (153 * (m > 2 ? m - 3 : m + 9) + 2) / 5 + d - 1, doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;
    return era * 146097 + (int64_t)doe - 719468;
}

#define YEAR_MAX 9999
#define TIME_MAX_US 253402300799999999 /* the end of it */

void lg_audit_time_text(int64_t us, char out[LG_AUDIT_TIME_LEN + 1])
{
    int64_t y;
    unsigned m, d;
    us = us < 0 ? 0 : us > TIME_MAX_US ? TIME_MAX_US : us;
    int64_t s = us / 1000000;
    unsigned of_day = (unsigned)(s % 86400), frac = (unsigned)(us % 1000000);
    civil(s / 86400, &y, &m, &d);
    memcpy(out, "0000-00-00T00:00:00.000000Z", LG_AUDIT_TIME_LEN + 1);
    two(out, (unsigned)(y / 100));
    two(out + 2, (unsigned)(y % 100));
    two(out + 5, m);
    two(out + 8, d);
    two(out + 11, of_day / 3600);
    two(out + 14, of_day / 60 % 60);
    two(out + 17, of_day % 60);
    two(out + 20, frac / 10000);
    two(out + 22, frac / 100 % 100);
    two(out + 24, frac % 100);
}

int lg_audit_time_parse(const char *s, size_t len, int64_t *ret_us)
{
    static const char shape[] = "dddd-dd-ddTdd:dd:dd.ddddddZ";
    unsigned v[LG_AUDIT_TIME_LEN];
    char again[LG_AUDIT_TIME_LEN + 1];
    if (len != LG_AUDIT_TIME_LEN)
        return -EPROTO;
    for (size_t i = 0; i < len; i++) {
        if (shape[i] == 'd' ? s[i] < '0' || s[i] > '9' : s[i] != shape[i])
            return -EPROTO;
        v[i] = (unsigned)(s[i] - '0');
    }
    unsigned y = v[0] * 1000 + v[1] * 100 + v[2] * 10 + v[3], mo = v[5] * 10 + v[6], d = v[8] * 10 + v[9], frac = 0;
    for (size_t i = 20; i < 26; i++)
        frac = frac * 10 + v[i];
    if (mo < 1 || mo > 12 || y < 1970)
        return -EPROTO;
    int64_t us = (days_of(y, mo, d) * 86400 + (int64_t)((v[11] * 10 + v[12]) * 3600 + (v[14] * 10 + v[15]) * 60 + v[17] * 10 + v[18])) * 1000000 + (int64_t)frac;
    lg_audit_time_text(us, again); /* the 31st of February is none */
    if (memcmp(again, s, len) != 0)
        return -EPROTO;
    *ret_us = us;
    return 0;
}

/* ---- outcome -------------------------------------------------------------------------------------------------------------------- */

const char *lg_audit_outcome_name(int outcome)
{
    const char *name = outcome == 0 ? "ok" : outcome < 0 && outcome > -4096 ? strerrorname_np(-outcome) : NULL;
    return name ? name : "EUNKNOWN";
}

int lg_audit_outcome_parse(const char *name, size_t len, int *ret)
{
    for (int e = 0; e < 134; e++) {
        const char *n = lg_audit_outcome_name(-e);
        if (strlen(n) == len && memcmp(n, name, len) == 0) {
            *ret = -e;
            return 0;
        }
    }
    return -EPROTO;
}

/* ---- writing -------------------------------------------------------------------------------------------------------------------- */

static bool is_name(const char *s, bool may_be_empty)
{
    size_t n = strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789.-");
    return !s[n] && n <= LG_AUDIT_EVENT_MAX && (n || may_be_empty);
}

static void member_u64(struct lg_text *t, const char *key, uint64_t v)
{
    lg_text_lit(t, key);
    lg_text_u64(t, v);
}
static void member_hex(struct lg_text *t, const char *key, const void *p, size_t n)
{
    lg_text_lit(t, key);
    lg_text_hex(t, p, n);
    lg_text_lit(t, "\"");
}
static void member_string(struct lg_text *t, const char *key, const char *s)
{
    if (!s[0])
        return;
    lg_text_lit(t, key);
    lg_text_string(t, s);
}

static void body(struct lg_text *t, const struct lg_audit_record *r)
{
    char time[LG_AUDIT_TIME_LEN + 1];
    lg_audit_time_text(r->time_us, time);
    member_u64(t, "{\"v\":1,\"seq\":", r->seq);
    lg_text_lit(t, ",\"time\":\"");
    lg_text_raw(t, time, LG_AUDIT_TIME_LEN);
    member_hex(t, "\",\"chain\":\"", r->chain, sizeof r->chain);
    lg_text_lit(t, ",\"event\":\"");
    lg_text_lit(t, r->event);
    lg_text_lit(t, "\"");
    member_string(t, ",\"how\":", r->how);
    member_string(t, ",\"outcome\":", lg_audit_outcome_name(r->outcome));
    if (r->has & LG_AUDIT_WHO) {
        member_u64(t, ",\"uid\":", r->uid);
        member_u64(t, ",\"gid\":", r->gid);
        member_string(t, ",\"user\":", r->user);
        member_u64(t, ",\"pid\":", r->pid < 0 ? 0 : (uint64_t)r->pid);
        member_string(t, ",\"exe\":", r->exe);
    }
    member_string(t, ",\"host\":", r->host);
    if (r->has & LG_AUDIT_VAULT)
        member_hex(t, ",\"vault\":\"", r->vault, LG_ID_LEN);
    if (r->has & LG_AUDIT_SESSION)
        member_u64(t, ",\"session\":", r->session);
    if (r->has & LG_AUDIT_STUDY) {
        member_hex(t, ",\"study\":\"", r->study, LG_ID_LEN);
        member_u64(t, ",\"key\":", r->key);
    }
    if (r->has & LG_AUDIT_FILE)
        member_hex(t, ",\"file\":\"", r->file, LG_ID_LEN);
    if (r->has & LG_AUDIT_COUNT) {
        lg_audit_time_text(r->until_us, time);
        member_u64(t, ",\"count\":", r->count);
        member_string(t, ",\"until\":", time);
    }
    if (r->has & LG_AUDIT_MOVED) {
        member_u64(t, ",\"read\":", r->read);
        member_u64(t, ",\"written\":", r->written);
    }
    if (r->has & LG_AUDIT_US)
        member_u64(t, ",\"us\":", r->us);
    if (r->has & LG_AUDIT_RANGE) {
        member_u64(t, ",\"from\":", r->from);
        member_u64(t, ",\"to\":", r->to);
    }
    member_string(t, ",\"text\":", r->text);
    member_string(t, ",\"path\":", r->path);
    member_string(t, ",\"target\":", r->target);
    if (r->has & LG_AUDIT_PREV)
        member_hex(t, ",\"prev\":\"", r->prev, LG_MAC_LEN);
}

int lg_audit_record_encode(struct lg_audit_record *r, const uint8_t prev_hash[LG_MAC_LEN], char *out, size_t cap, size_t *ret_len)
{
    struct lg_text t = { out, 0, cap, false };
    if (!is_name(r->event, false) || !is_name(r->how, true))
        return -EINVAL;
    body(&t, r);
    if (t.bad)
        return -ENOSPC;
    int rc = lg_audit_link(prev_hash, out, t.len, r->hash);
    if (rc)
        return rc;
    member_hex(&t, ",\"hash\":\"", r->hash, LG_MAC_LEN);
    lg_text_lit(&t, "}");
    if (t.bad)
        return -ENOSPC;
    *ret_len = t.len;
    return 0;
}

/* ---- reading -------------------------------------------------------------------------------------------------------------------- */

static void get_time(struct lg_scan *s, int64_t *ret)
{
    char text[LG_AUDIT_TIME_LEN + 1];
    lg_scan_string(s, text, sizeof text);
    if (s->bad || lg_audit_time_parse(text, strlen(text), ret))
        s->bad = true;
}

static void get_name(struct lg_scan *s, char *out)
{
    lg_scan_string(s, out, LG_AUDIT_EVENT_MAX + 1);
    if (!is_name(out, true))
        s->bad = true;
}

static uint32_t get_u32(struct lg_scan *s)
{
    uint64_t v = lg_scan_u64(s);
    if (v > UINT32_MAX)
        s->bad = true;
    return (uint32_t)v;
}

enum { SEEN_SEQ = 1 << 20, SEEN_TIME = 1 << 21, SEEN_EVENT = 1 << 22, SEEN_HASH = 1 << 23, SEEN_CHAIN = 1 << 24, SEEN_OUTCOME = 1 << 25 };
enum { NEEDED = SEEN_SEQ | SEEN_TIME | SEEN_EVENT | SEEN_HASH | SEEN_CHAIN | SEEN_OUTCOME };

static unsigned get_moment(struct lg_scan *s, const char *key, struct lg_audit_record *r)
{
    if (strcmp(key, "seq") == 0) {
        r->seq = lg_scan_u64(s);
        return SEEN_SEQ;
    }
    if (strcmp(key, "time") == 0) {
        get_time(s, &r->time_us);
        return SEEN_TIME;
    }
    if (strcmp(key, "chain") == 0) {
        lg_scan_hex(s, r->chain, sizeof r->chain);
        return SEEN_CHAIN;
    }
    if (strcmp(key, "event") == 0) {
        get_name(s, r->event);
        return SEEN_EVENT;
    }
    if (strcmp(key, "outcome") == 0) {
        char name[32];
        lg_scan_string(s, name, sizeof name);
        if (lg_audit_outcome_parse(name, strlen(name), &r->outcome))
            r->outcome = -EIO; /* an errno of another system */
        return SEEN_OUTCOME;
    }
    if (strcmp(key, "hash") == 0) {
        lg_scan_hex(s, r->hash, LG_MAC_LEN);
        return SEEN_HASH;
    }
    if (strcmp(key, "prev") == 0) {
        lg_scan_hex(s, r->prev, LG_MAC_LEN);
        return LG_AUDIT_PREV;
    }
    return 0;
}

static unsigned get_number(struct lg_scan *s, const char *key, struct lg_audit_record *r)
{
    const struct {
        const char *key;
        uint64_t *to;
        unsigned flag;
    } numbers[] = { { "session", &r->session, LG_AUDIT_SESSION }, { "count", &r->count, LG_AUDIT_COUNT }, { "read", &r->read, LG_AUDIT_MOVED }, { "written", &r->written, LG_AUDIT_MOVED },
                    { "us", &r->us, LG_AUDIT_US },                { "from", &r->from, LG_AUDIT_RANGE },   { "to", &r->to, LG_AUDIT_RANGE } };
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(key, numbers[i].key) == 0) {
            *numbers[i].to = lg_scan_u64(s);
            return numbers[i].flag;
        }
    if (strcmp(key, "uid") == 0)
        r->uid = get_u32(s);
    else if (strcmp(key, "gid") == 0)
        r->gid = get_u32(s);
    else if (strcmp(key, "pid") == 0)
        r->pid = (int32_t)(get_u32(s) & INT32_MAX);
    else if (strcmp(key, "key") == 0) {
        r->key = get_u32(s);
        return LG_AUDIT_STUDY;
    } else
        return 0;
    return LG_AUDIT_WHO;
}

/* true: it was one of these */
static bool get_text(struct lg_scan *s, const char *key, struct lg_audit_record *r)
{
    const struct {
        const char *key;
        char *to;
        size_t cap;
    } texts[] = { { "user", r->user, sizeof r->user }, { "host", r->host, sizeof r->host }, { "exe", r->exe, sizeof r->exe },
                  { "text", r->text, sizeof r->text }, { "path", r->path, sizeof r->path }, { "target", r->target, sizeof r->target } };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(key, texts[i].key) == 0) {
            lg_scan_string(s, texts[i].to, texts[i].cap);
            return true;
        }
    if (strcmp(key, "how") != 0)
        return false;
    get_name(s, r->how);
    return true;
}

static unsigned get_id(struct lg_scan *s, const char *key, struct lg_audit_record *r)
{
    if (strcmp(key, "vault") == 0) {
        lg_scan_hex(s, r->vault, LG_ID_LEN);
        return LG_AUDIT_VAULT;
    }
    if (strcmp(key, "study") == 0) {
        lg_scan_hex(s, r->study, LG_ID_LEN);
        return LG_AUDIT_STUDY;
    }
    if (strcmp(key, "file") == 0) {
        lg_scan_hex(s, r->file, LG_ID_LEN);
        return LG_AUDIT_FILE;
    }
    if (strcmp(key, "until") == 0) {
        get_time(s, &r->until_us);
        return LG_AUDIT_COUNT;
    }
    return 0;
}

int lg_audit_record_parse(const char *untrusted, size_t len, struct lg_audit_record *ret)
{
    struct lg_scan s = { untrusted, untrusted + len, len > LG_AUDIT_LINE_MAX };
    unsigned seen = 0;
    lg_audit_record_init(ret);
    lg_scan_need(&s, "{\"v\":");
    uint64_t v = lg_scan_u64(&s);
    if (!s.bad && v != LG_AUDIT_VERSION)
        return -EPROTONOSUPPORT;
    while (!s.bad && lg_scan_take(&s, ',')) {
        char key[LG_AUDIT_EVENT_MAX + 1];
        lg_scan_string(&s, key, sizeof key);
        lg_scan_need(&s, ":");
        if (s.bad)
            break;
        unsigned f = get_moment(&s, key, ret);
        f = f ? f : get_number(&s, key, ret);
        f = f ? f : get_id(&s, key, ret);
        if (!f && !get_text(&s, key, ret))
            lg_scan_skip(&s);
        seen |= f;
    }
    lg_scan_need(&s, "}");
    if (s.bad || s.p != s.end || (seen & NEEDED) != NEEDED || !ret->event[0])
        return -EPROTO;
    ret->has = seen & (SEEN_SEQ - 1);
    return 0;
}
