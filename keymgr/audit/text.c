#include "text.h"

#include "leadglass/bytes.h"

static const char digits[] = "0123456789abcdef";

void lg_text_raw(struct lg_text *t, const char *s, size_t n)
{
    if (t->bad || n > t->cap - t->len) {
        t->bad = true;
        return;
    }
    memcpy(t->s + t->len, s, n);
    t->len += n;
}

void lg_text_lit(struct lg_text *t, const char *s) { lg_text_raw(t, s, strlen(s)); }

void lg_text_u64(struct lg_text *t, uint64_t v)
{
    char b[20];
    size_t i = sizeof b;
    do
        b[--i] = (char)('0' + v % 10);
    while (v /= 10);
    lg_text_raw(t, b + i, sizeof b - i);
}

void lg_text_hex(struct lg_text *t, const void *p, size_t n)
{
    const uint8_t *b = p;
    if (t->bad || 2 * n > t->cap - t->len) {
        t->bad = true;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        t->s[t->len++] = digits[b[i] >> 4];
        t->s[t->len++] = digits[b[i] & 15];
    }
}

static size_t utf8(const uint8_t *s, uint32_t *ret)
{
    static const uint32_t least[] = { 0, 0, 0x80, 0x800, 0x10000 };
    size_t n = s[0] < 0x80 ? 1 : s[0] >= 0xc2 && s[0] < 0xe0 ? 2 : s[0] >= 0xe0 && s[0] < 0xf0 ? 3 : s[0] >= 0xf0 && s[0] < 0xf5 ? 4 : 0;
    uint32_t c = n == 1 ? s[0] : n ? s[0] & (0x7fu >> n) : 0;
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) /* the NUL at the end is none */
            return 0;
        c = c << 6 | (s[i] & 0x3f);
    }
    if (!n || (n > 1 && c < least[n]) || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
        return 0;
    *ret = c;
    return n;
}

static void escape(struct lg_text *t, uint32_t c)
{
    char u[6] = { '\\', 'u', digits[c >> 12 & 15], digits[c >> 8 & 15], digits[c >> 4 & 15], digits[c & 15] };
    lg_text_raw(t, u, sizeof u);
}

/* Would move the cursor, end a line somewhere, or write from right to left on an auditor's terminal. */
static bool hidden(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0xad || c == 0x61c || (c >= 0x200b && c <= 0x200f) || (c >= 0x2028 && c <= 0x202e) || (c >= 0x2060 && c <= 0x206f) ||
           c == 0xfeff || (c >= 0xfff9 && c <= 0xfffb);
}

size_t lg_audit_char(const char *s, bool *ret_hidden)
{
    uint32_t c;
    size_t n = utf8((const uint8_t *)s, &c);
    if (n)
        *ret_hidden = hidden(c) || (c >= 0xef00 && c <= 0xefff) || c == 0xfffe || c == 0xffff;
    return n;
}

void lg_text_string(struct lg_text *t, const char *s)
{
    const uint8_t *p = (const uint8_t *)s, *plain = p;
    uint32_t c = 0;
    lg_text_lit(t, "\"");
    while (*p) {
        if (*p >= 0x20 && *p < 0x7f && *p != '"' && *p != '\\') {
            p++;
            continue;
        }
        lg_text_raw(t, (const char *)plain, (size_t)(p - plain));
        size_t n = utf8(p, &c);
        if (!n || (c >= 0xef80 && c <= 0xefff)) {
            n = 1;
            escape(t, 0xef00u + *p);
        } else if (c == '"' || c == '\\') {
            char e[2] = { '\\', (char)c };
            lg_text_raw(t, e, 2);
        } else if (hidden(c)) {
            escape(t, c);
        } else {
            lg_text_raw(t, (const char *)p, n);
        }
        p += n;
        plain = p;
    }
    lg_text_raw(t, (const char *)plain, (size_t)(p - plain));
    lg_text_lit(t, "\"");
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

static char next(struct lg_scan *s)
{
    if (s->bad || s->p == s->end) {
        s->bad = true;
        return 0;
    }
    return *s->p++;
}

bool lg_scan_take(struct lg_scan *s, char c)
{
    if (s->bad || s->p == s->end || *s->p != c)
        return false;
    s->p++;
    return true;
}

void lg_scan_need(struct lg_scan *s, const char *literal)
{
    for (; *literal; literal++)
        if (next(s) != *literal)
            s->bad = true;
}

uint64_t lg_scan_u64(struct lg_scan *s)
{
    uint64_t v = 0;
    const char *start = s->p;
    while (!s->bad && s->p < s->end && *s->p >= '0' && *s->p <= '9') {
        unsigned d = (unsigned)(*s->p++ - '0');
        if (v > (UINT64_MAX - d) / 10 || (s->p - start > 1 && *start == '0')) {
            s->bad = true;
            return 0;
        }
        v = v * 10 + d;
    }
    if (s->p == start)
        s->bad = true;
    return v;
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

static uint32_t unit(struct lg_scan *s)
{
    uint32_t v = 0;
    for (unsigned i = 0; i < 4; i++) {
        int d = hex_digit(next(s));
        if (d < 0)
            s->bad = true;
        v = v << 4 | (uint32_t)(d & 15);
    }
    return v;
}

static size_t put_utf8(uint32_t c, char out[4])
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = n - 1; i; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((n == 2 ? 0xc0 : n == 3 ? 0xe0 : 0xf0) | c);
    return n;
}

/* What a backslash begins. */
static size_t unescape(struct lg_scan *s, char out[4])
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    char c = next(s);
    if (c != 'u') {
        const char *at = c ? strchr(from, c) : NULL;
        if (!at)
            s->bad = true;
        out[0] = at ? to[at - from] : 0;
        return 1;
    }
    uint32_t u = unit(s);
    if (u >= 0xef80 && u <= 0xefff) {
        out[0] = (char)(u & 0xff);
        return 1;
    }
    if (u >= 0xd800 && u < 0xdc00) {
        lg_scan_need(s, "\\u");
        uint32_t low = unit(s);
        if (low < 0xdc00 || low > 0xdfff)
            s->bad = true;
        u = 0x10000 + ((u - 0xd800) << 10) + ((low - 0xdc00) & 0x3ff);
    } else if (u >= 0xdc00 && u < 0xe000) {
        s->bad = true;
    }
    return put_utf8(s->bad ? 0 : u, out);
}

void lg_scan_string(struct lg_scan *s, char *out, size_t cap)
{
    size_t n = 0;
    lg_scan_need(s, "\"");
    while (!s->bad && !lg_scan_take(s, '"')) {
        char c[4] = { next(s) };
        size_t k = 1;
        if (c[0] == '\\')
            k = unescape(s, c);
        else if ((unsigned char)c[0] < 0x20)
            s->bad = true;
        if (s->bad || !c[0] || k > cap - 1 - n) {
            s->bad = true;
            break;
        }
        memcpy(out + n, c, k);
        n += k;
    }
    out[s->bad ? 0 : n] = 0;
}

void lg_scan_hex(struct lg_scan *s, void *out, size_t n)
{
    uint8_t *o = out;
    lg_scan_need(s, "\"");
    for (size_t i = 0; i < n && !s->bad; i++) {
        char a = next(s), b = next(s);
        int hi = hex_digit(a), lo = hex_digit(b);
        if (hi < 0 || lo < 0 || (a >= 'A' && a <= 'F') || (b >= 'A' && b <= 'F'))
            s->bad = true;
        else
            o[i] = (uint8_t)(hi << 4 | lo);
    }
    lg_scan_need(s, "\"");
}

void lg_scan_skip(struct lg_scan *s)
{
    if (lg_scan_take(s, '"')) {
        for (char c; !s->bad && (c = next(s)) != '"';)
            if (c == '\\')
                next(s);
        return;
    }
    const char *start = s->p;
    while (!s->bad && s->p < s->end && *s->p != ',' && *s->p != '}')
        s->p++;
    if (s->p == start)
        s->bad = true;
}
