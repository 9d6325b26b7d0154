/* Inside the audit module: text of one JSON line, writing and reading. */
#ifndef LG_AUDIT_TEXT_H
#define LG_AUDIT_TEXT_H

#include "leadglass/audit.h"

/* Writing: overflow makes it bad. */
struct lg_text {
    char *s;
    size_t len, cap;
    bool bad;
};
void lg_text_raw(struct lg_text *t, const char *s, size_t n);
void lg_text_lit(struct lg_text *t, const char *s);
void lg_text_u64(struct lg_text *t, uint64_t v);
void lg_text_hex(struct lg_text *t, const void *p, size_t n);
/* A JSON string, quotes included, of any bytes: what is not printable text is escaped, and an octet x that is no valid UTF-8 (or that part of U+EF80..U+EFFF,
 * which stands for such octets) becomes U+EF00 + x. Every sequence of bytes has one text, and no text can end the string or the line. */
void lg_text_string(struct lg_text *t, const char *s);

/* Reading: the first surprise makes it bad. */
struct lg_scan {
    const char *p, *end;
    bool bad;
};
bool lg_scan_take(struct lg_scan *s, char c); /* if it is next */
void lg_scan_need(struct lg_scan *s, const char *literal);
uint64_t lg_scan_u64(struct lg_scan *s); /* no sign, no leading zeros */
/* The inverse of lg_text_string; longer than cap - 1 bytes, or with a NUL, is bad. Other JSON escapes are understood too. */
void lg_scan_string(struct lg_scan *s, char *out, size_t cap);
void lg_scan_hex(struct lg_scan *s, void *out, size_t n); /* a string of exactly 2n lower-case digits */
void lg_scan_skip(struct lg_scan *s); /* a string, number, true, false or null */

#endif
