#include <string.h>

#include "internal.h"

/* Length of the valid UTF-8 sequence at s, or 0. */
static size_t utf8_at(const uint8_t *s, size_t n)
{
    uint8_t c = s[0];
    size_t len = c < 0x80 ? 1 : c >= 0xc2 && c < 0xe0 ? 2 : c >= 0xe0 && c < 0xf0 ? 3 : c >= 0xf0 && c < 0xf5 ? 4 : 0;
    if (!len || len > n)
        return 0;
    for (size_t i = 1; i < len; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((c == 0xe0 && s[1] < 0xa0) || (c == 0xed && s[1] > 0x9f) || (c == 0xf0 && s[1] < 0x90) || (c == 0xf4 && s[1] > 0x8f))
        return 0;
    return len;
}

/* Valid UTF-8 of at most max bytes: what cannot be told is a question mark. */
static void text(char *out, size_t max, const uint8_t *v, size_t len, bool utf8, bool latin1)
{
    size_t n = 0;
    for (size_t i = 0; i < len;) {
        char buf[4] = "?";
        size_t step = 1, put = 1;
        if (v[i] >= 0x20 && v[i] < 0x7f) {
            buf[0] = (char)v[i];
        } else if (v[i] >= 0x80 && utf8 && utf8_at(v + i, len - i)) {
            step = put = utf8_at(v + i, len - i);
            memcpy(buf, v + i, put);
        } else if (v[i] >= 0xa0 && latin1) {
            buf[0] = (char)(0xc0 | v[i] >> 6);
            buf[1] = (char)(0x80 | (v[i] & 0x3f));
            put = 2;
        }
        if (n + put > max)
            break;
        memcpy(out + n, buf, put);
        n += put;
        i += step;
    }
    out[n] = 0;
}

bool lg_look_value(struct lg_look *l, uint32_t tag, const uint8_t *v, size_t len, bool utf8)
{
    while (len && (v[len - 1] == ' ' || v[len - 1] == 0))
        len--;
    while (len && v[0] == ' ') {
        v++;
        len--;
    }
    utf8 = utf8 || strcmp(l->charset, "ISO_IR 192") == 0;
    bool latin1 = strcmp(l->charset, "ISO_IR 100") == 0;
    switch (tag) {
    case LG_TAG_CHARSET:
        text(l->charset, sizeof l->charset - 1, v, len, false, false);
        break;
    case 0x00080020:
        text(l->info.date, LG_DATE_MAX, v, len, false, false);
        break;
    case 0x00080050:
        text(l->info.accession, LG_ACCESSION_MAX, v, len, utf8, latin1);
        break;
    case 0x00080060:
        text(l->info.modality, LG_MODALITY_MAX, v, len, false, false);
        break;
    case 0x00100020:
        text(l->info.patient_id, LG_PATIENT_ID_MAX, v, len, utf8, latin1);
        break;
    case LG_TAG_UID:
        if (!len || len > LG_UID_MAX)
            return false;
        for (size_t i = 0; i < len; i++)
            if ((v[i] < '0' || v[i] > '9') && v[i] != '.')
                return false;
        memcpy(l->info.uid, v, len);
        l->info.uid[len] = 0;
        break;
    default:
        break;
    }
    return true;
}
