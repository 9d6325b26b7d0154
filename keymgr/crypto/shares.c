#include "leadglass/shares.h"

#include <stdio.h>
#include <string.h>

#include "leadglass/crypto.h"

enum { VERSION = 1, GROUP_BYTES = 5, GROUP_CHARS = 8, CHECK_CHARS = 2, SUM_LEN = 4, BODY_LEN = 1 + LG_SHARE_SET_LEN + 3 + LG_KEY_LEN, WHOLE_LEN = LG_SHARE_GROUPS * GROUP_BYTES };
_Static_assert(BODY_LEN + SUM_LEN <= WHOLE_LEN, "a share fits in its groups");

/* ---- GF(2^8), x^8 + x^4 + x^3 + x + 1: without tables and branches, so that time tells nothing of the secret ---------------------------------------- */

static uint8_t mul(uint8_t a, uint8_t b)
{
    unsigned r = 0, x = a;
    for (unsigned i = 0; i < 8; i++) {
        r ^= x & (0u - (b >> i & 1u));
        x = x << 1 ^ (0x11bu & (0u - (x >> 7 & 1u)));
    }
    return (uint8_t)r;
}

static uint8_t inverse(uint8_t a) /* a^254 */
{
    uint8_t r = 1;
    for (unsigned i = 7; i > 0; i--) {
        a = mul(a, a);
        r = mul(r, a);
    }
    return r;
}

int lg_shares_split(const struct lg_secret *secret, unsigned k, unsigned n, struct lg_share *out)
{
    uint8_t set[LG_SHARE_SET_LEN];
    if (k < 2 || k > n || n > LG_SHARES_MAX)
        return -EINVAL;
    /* Of each byte a polynomial of degree k - 1, whose value at 0 it is. */
    LG_SECRET_BUF_AUTO uint8_t(*coeff)[LG_KEY_LEN] = lg_secret_alloc((size_t)k * LG_KEY_LEN);
    int rc = coeff ? lg_random(coeff, (size_t)k * LG_KEY_LEN) : -ENOMEM;
    if (!rc)
        rc = lg_random(set, sizeof set);
    if (rc)
        return rc;
    memcpy(coeff[0], secret->b, LG_KEY_LEN);
    for (unsigned i = 0; i < n; i++) {
        struct lg_share *s = &out[i];
        *s = (struct lg_share){ .k = (uint8_t)k, .n = (uint8_t)n, .x = (uint8_t)(i + 1) };
        memcpy(s->set, set, sizeof set);
        for (unsigned j = k; j-- > 0;)
            for (unsigned b = 0; b < LG_KEY_LEN; b++)
                s->y[b] = mul(s->y[b], s->x) ^ coeff[j][b];
    }
    return 0;
}

static bool share_ok(const struct lg_share *s) { return s->k >= 2 && s->k <= s->n && s->n <= LG_SHARES_MAX && s->x >= 1 && s->x <= s->n; }

int lg_shares_join(const struct lg_share *s, unsigned n, struct lg_secret *ret)
{
    if (!n)
        return -ENODATA;
    for (unsigned i = 0; i < n; i++) {
        if (!share_ok(&s[i]))
            return -EINVAL;
        if (memcmp(s[i].set, s[0].set, LG_SHARE_SET_LEN) != 0 || s[i].k != s[0].k || s[i].n != s[0].n)
            return -EXDEV;
        for (unsigned j = 0; j < i; j++)
            if (s[j].x == s[i].x)
                return -EEXIST;
    }
    if (n < s[0].k)
        return -ENODATA;
    LG_SECRET_AUTO sum = lg_secret_new();
    if (!sum)
        return -ENOMEM;
    for (unsigned i = 0; i < s[0].k; i++) { /* Lagrange, at 0 */
        uint8_t f = 1;
        for (unsigned j = 0; j < s[0].k; j++)
            if (j != i)
                f = mul(f, mul(s[j].x, inverse(s[j].x ^ s[i].x)));
        for (unsigned b = 0; b < LG_KEY_LEN; b++)
            sum->b[b] ^= mul(f, s[i].y[b]);
    }
    memcpy(ret->b, sum->b, LG_KEY_LEN);
    return 0;
}

/* ---- text ---------------------------------------------------------------------------------------------------------------------------------- */

static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"; /* Crockford's: no I, L, O, U */

/* CRC-10 (x^10 + x^9 + x^5 + x^4 + x + 1) of the group's number and bytes: finds one wrong character, and two that changed places, in every case. */
static unsigned group_crc(unsigned number, const uint8_t b[GROUP_BYTES])
{
    unsigned crc = 0x3ff;
    for (unsigned i = 0; i <= GROUP_BYTES; i++) {
        unsigned byte = i ? b[i - 1] : number;
        for (unsigned bit = 8; bit-- > 0;)
            crc = (crc << 1 ^ (0x233u & (0u - ((crc >> 9 ^ byte >> bit) & 1u)))) & 0x3ffu;
    }
    return crc;
}

static void group_text(unsigned number, const uint8_t b[GROUP_BYTES], char out[GROUP_CHARS + CHECK_CHARS + 3])
{
    uint64_t v = 0;
    unsigned crc = group_crc(number, b);
    for (unsigned i = 0; i < GROUP_BYTES; i++)
        v = v << 8 | b[i];
    for (unsigned i = 0, at = 0; i < GROUP_CHARS; i++) {
        out[at++] = digits[v >> (5 * (GROUP_CHARS - 1 - i)) & 31];
        if (i == 3 || i == 7)
            out[at++] = '-';
        if (i == 7) {
            out[at++] = digits[crc >> 5];
            out[at++] = digits[crc & 31];
            out[at] = 0;
        }
    }
}

static int digit(char c)
{
    if (c >= 'a' && c <= 'z')
        c = (char)(c - 'a' + 'A');
    c = c == 'O' ? '0' : c == 'I' || c == 'L' ? '1' : c;
    const char *p = c ? strchr(digits, c) : NULL;
    return p ? (int)(p - digits) : -1;
}

static bool blank(char c) { return c == ' ' || c == '\t' || c == '\r' || c == '\f'; }

static unsigned characters(const char *p, const char *end)
{
    unsigned n = 0;
    for (; p < end; p++)
        n += !blank(*p) && *p != '-';
    return n;
}

/* Behind the number that a group is printed with, if one stands there: "3:", as people copy it "3." or "3)", and "3" before a whole group. *ret: 0, none. */
static const char *behind_number(const char *p, const char *end, unsigned *ret)
{
    const char *at = p, *colon = memchr(p, ':', (size_t)(end - p));
    unsigned v = 0, n = 0;
    while (at < end && blank(*at))
        at++;
    for (; at < end && n < 2 && *at >= '0' && *at <= '9'; at++, n++)
        v = 10 * v + (unsigned)(*at - '0');
    const char *rest = at;
    while (rest < end && blank(*rest))
        rest++;
    *ret = n ? v : 0;
    if (n && rest < end && (*rest == ':' || *rest == '.' || *rest == ')'))
        return rest + 1;
    if (n && rest > at && characters(rest, end) == GROUP_CHARS + CHECK_CHARS)
        return rest;
    *ret = 0;
    return colon ? colon + 1 : p;
}

/* -ERANGE: it is printed with another number. */
static int group_read(const char *p, size_t len, unsigned number, uint8_t out[GROUP_BYTES])
{
    uint64_t v = 0;
    unsigned n = 0, printed;
    const char *end = p + len;
    p = behind_number(p, end, &printed);
    int wrong = printed && printed != number ? -ERANGE : -EPROTO;
    for (; p < end; p++) {
        if (blank(*p) || *p == '-')
            continue;
        int d = digit(*p);
        if (d < 0 || n == GROUP_CHARS + CHECK_CHARS)
            return wrong;
        v = v << 5 | (unsigned)d;
        n++;
    }
    if (n != GROUP_CHARS + CHECK_CHARS)
        return wrong;
    for (unsigned i = 0; i < GROUP_BYTES; i++)
        out[i] = (uint8_t)(v >> (10 + 8 * (GROUP_BYTES - 1 - i)));
    return group_crc(number, out) == (v & 0x3ff) ? 0 : wrong;
}

static bool passed_over(const char *p, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (!blank(p[i]))
            return p[i] == '#';
    return true;
}

int lg_share_group_check(const char *untrusted, size_t len, unsigned number)
{
    uint8_t b[GROUP_BYTES];
    int rc = number < 1 || number > LG_SHARE_GROUPS ? -EPROTO : passed_over(untrusted, len) ? -ENODATA : group_read(untrusted, len, number, b);
    lg_wipe(b, sizeof b);
    return rc;
}

static int whole_of(const struct lg_share *s, uint8_t b[WHOLE_LEN])
{
    uint8_t sum[LG_MAC_LEN];
    memset(b, 0, WHOLE_LEN);
    b[0] = VERSION;
    memcpy(b + 1, s->set, LG_SHARE_SET_LEN);
    b[1 + LG_SHARE_SET_LEN] = s->k;
    b[2 + LG_SHARE_SET_LEN] = s->n;
    b[3 + LG_SHARE_SET_LEN] = s->x;
    memcpy(b + 4 + LG_SHARE_SET_LEN, s->y, LG_KEY_LEN);
    int rc = lg_sha256(b, BODY_LEN, sum);
    memcpy(b + BODY_LEN, sum, SUM_LEN);
    return rc;
}

int lg_share_text(const struct lg_share *s, const char *title, char out[LG_SHARE_TEXT_MAX])
{
    char group[GROUP_CHARS + CHECK_CHARS + 3];
    LG_SECRET_BUF_AUTO uint8_t *b = lg_secret_alloc(WHOLE_LEN);
    int rc = !b ? -ENOMEM : share_ok(s) ? whole_of(s, b) : -EINVAL;
    if (rc)
        return rc;
    int n = snprintf(out, LG_SHARE_TEXT_MAX, "# share %u of %u; any %u open %s\n", s->x, s->n, s->k, title);
    for (unsigned i = 0; i < LG_SHARE_GROUPS && n > 0 && n < (int)LG_SHARE_TEXT_MAX; i++) {
        group_text(i + 1, b + (size_t)i * GROUP_BYTES, group);
        n += snprintf(out + n, LG_SHARE_TEXT_MAX - (size_t)n, "%2u: %s\n", i + 1, group);
    }
    lg_wipe(group, sizeof group);
    return n > 0 && n < (int)LG_SHARE_TEXT_MAX ? 0 : -ENOSPC;
}

int lg_share_parse(const char *untrusted, size_t len, struct lg_share *ret, unsigned *bad_group)
{
    LG_SECRET_BUF_AUTO uint8_t *b = lg_secret_alloc(2 * WHOLE_LEN);
    LG_SECRET_BUF_AUTO struct lg_share *s = lg_secret_alloc(sizeof *s);
    unsigned n = 0;
    *bad_group = 0;
    if (!b || !s)
        return -ENOMEM;
    for (const char *p = untrusted, *end = p + len; p < end;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        size_t line = (size_t)((nl ? nl : end) - p);
        if (!passed_over(p, line)) {
            if (n == LG_SHARE_GROUPS)
                return -E2BIG;
            n++;
            if (group_read(p, line, n, b + (size_t)(n - 1) * GROUP_BYTES)) {
                *bad_group = n;
                return -EPROTO;
            }
        }
        p += line + (nl != NULL);
    }
    if (n < LG_SHARE_GROUPS) {
        *bad_group = n + 1;
        return -EPROTO;
    }
    memcpy(s->set, b + 1, LG_SHARE_SET_LEN);
    s->k = b[1 + LG_SHARE_SET_LEN];
    s->n = b[2 + LG_SHARE_SET_LEN];
    s->x = b[3 + LG_SHARE_SET_LEN];
    memcpy(s->y, b + 4 + LG_SHARE_SET_LEN, LG_KEY_LEN);
    int rc = b[0] == VERSION && share_ok(s) ? whole_of(s, b + WHOLE_LEN) : -EPROTO;
    if (!rc && !lg_equal(b, b + WHOLE_LEN, WHOLE_LEN))
        rc = -EPROTO;
    if (!rc)
        *ret = *s;
    return rc;
}
