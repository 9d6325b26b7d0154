/* Two JSON forms of a data set, members sorted by tag: Orthanc's attachment ("0020,000d": {"Value": "1.2"}) and the DICOM JSON model of PS3.18 annex F
 * ("0020000D": {"Value": ["1.2"]}). Only as much JSON as that takes. */
#include <string.h>

#include "internal.h"

enum { DEPTH_MAX = 64, STRING_MAX = 1024 };

static int hex(uint8_t c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* The string that begins at *at, behind its quote. 1: more bytes; 0: read, *at is behind it; -1: none. Longer ones are cut. */
static int string(const struct lg_look *l, size_t *at, uint8_t out[STRING_MAX], size_t *len)
{
    size_t n = 0, i = *at;
    for (;; i++) {
        if (i >= l->len)
            return 1;
        uint32_t c = l->p[i];
        if (c == '"')
            break;
        if (c < 0x20)
            return -1;
        if (c == '\\') {
            if (++i >= l->len)
                return 1;
            switch (l->p[i]) {
            case 'b': c = ' '; break;
            case 'f': c = ' '; break;
            case 'n': c = ' '; break;
            case 'r': c = ' '; break;
            case 't': c = ' '; break;
            case 'u':
                if (i + 4 >= l->len)
                    return 1;
                c = 0;
                for (unsigned k = 1; k <= 4; k++) {
                    int h = hex(l->p[i + k]);
                    if (h < 0)
                        return -1;
                    c = c << 4 | (uint32_t)h;
                }
                i += 4;
                break;
            default: c = l->p[i];
            }
            if (c >= 0x80) {
                uint8_t u[3] = { (uint8_t)(c < 0x800 ? 0xc0 | c >> 6 : 0xe0 | c >> 12), (uint8_t)(c < 0x800 ? 0x80 | (c & 0x3f) : 0x80 | (c >> 6 & 0x3f)), (uint8_t)(0x80 | (c & 0x3f)) };
                for (unsigned k = 0; k < (c < 0x800 ? 2u : 3u); k++)
                    if (n < STRING_MAX)
                        out[n++] = u[k];
                continue;
            }
        }
        if (n < STRING_MAX)
            out[n++] = (uint8_t)c;
    }
    *at = i + 1;
    *len = n;
    return 0;
}

/* gggg,eeee or ggggeeee; 0: neither. */
static uint32_t tag_of(const uint8_t *s, size_t len)
{
    uint32_t tag = 0;
    if (len != 8 && (len != 9 || s[4] != ','))
        return 0;
    for (size_t i = 0; i < len; i++) {
        if (len == 9 && i == 4)
            continue;
        int h = hex(s[i]);
        if (h < 0)
            return 0;
        tag = tag << 4 | (uint32_t)h;
    }
    return tag;
}

enum lg_class lg_look_json(struct lg_look *l)
{
    uint8_t s[STRING_MAX];
    size_t at = 0, len;
    unsigned depth = 0;
    uint32_t tag = 0;
    bool is_value = false, key = false, orthanc = false, taken = false;
    for (;;) {
        if (at >= l->len)
            return lg_look_on(l);
        uint8_t c = l->p[at++];
        if (c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == ':')
            continue;
        if (c == '{' || c == '[') {
            if (++depth > DEPTH_MAX)
                return lg_look_general(l, "JSON, nested too deeply");
            key = c == '{';
        } else if (c == '}' || c == ']') {
            if (--depth == 0)
                return lg_look_general(l, "JSON without a study UID");
            key = false;
        } else if (c == ',') {
            key = depth <= 2; /* within the members of ours an array's comma is followed by values, at depth 3 */
        } else if (c == '"') {
            int rc = string(l, &at, s, &len);
            if (rc > 0)
                return lg_look_on(l);
            if (rc < 0)
                return lg_look_general(l, "no DICOM: damaged JSON");
            if (key && depth == 1) {
                tag = tag_of(s, len);
                if (!tag)
                    return lg_look_general(l, "no DICOM: JSON of another kind");
                orthanc = len == 9;
                if (tag > LG_TAG_UID)
                    return lg_look_general(l, "JSON without a study UID");
                taken = false;
            } else if (key && depth == 2) {
                is_value = len == 5 && memcmp(s, "Value", 5) == 0;
            } else if (is_value && !taken && (depth == 2 || depth == 3)) {
                taken = true; /* the first of several */
                if (!lg_look_value(l, tag, s, len, true))
                    return lg_look_general(l, "damaged: the study UID is none");
                if (tag == LG_TAG_UID) {
                    l->how = orthanc ? "Orthanc JSON" : "DICOM JSON";
                    return LG_CLASS_STUDY;
                }
            }
            key = false;
        }
        /* numbers, true, false, null: passed over byte by byte */
        if (depth == 0)
            return lg_look_general(l, "no DICOM: damaged JSON");
    }
}
