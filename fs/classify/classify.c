#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { PREAMBLE = 132, FIRST = 4096 };

struct lg_classifier {
    uint8_t *buf;
    size_t len, cap, need;
    enum lg_class what;
    const char *how;
    struct lg_study_info info;
};

int lg_classifier_new(struct lg_classifier **ret)
{
    struct lg_classifier *c = calloc(1, sizeof *c);
    if (!c)
        return -ENOMEM;
    c->need = PREAMBLE;
    c->how = "";
    *ret = c;
    return 0;
}

void lg_classifier_free(struct lg_classifier *c)
{
    if (!c)
        return;
    free(c->buf);
    free(c);
}

const struct lg_study_info *lg_classifier_info(const struct lg_classifier *c) { return &c->info; }
const char *lg_classifier_how(const struct lg_classifier *c) { return c->how; }

static const char *what_else(const uint8_t *p, size_t len)
{
    static const struct {
        const char *magic, *how;
        size_t len;
    } known[] = { { "\x89PNG", "no DICOM: starts like a PNG", 4 },           { "\xff\xd8\xff", "no DICOM: starts like a JPEG", 3 }, { "PK\3\4", "no DICOM: starts like a zip archive", 4 },
                  { "%PDF", "no DICOM: starts like a PDF", 4 },              { "SQLite format 3", "no DICOM: an SQLite database", 15 }, { "GIF8", "no DICOM: starts like a GIF", 4 },
                  { "\x1f\x8b", "no DICOM: starts like gzip", 2 },           { "<", "no DICOM: starts like markup", 1 },            { "\x7f" "ELF", "no DICOM: a program", 4 } };
    if (!len)
        return "empty";
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (len >= known[i].len && memcmp(p, known[i].magic, known[i].len) == 0)
            return known[i].how;
    return "no DICOM";
}

static bool could_be_json(const struct lg_look *l)
{
    size_t i = 0;
    while (i < l->len && i < 64 && strchr(" \t\r\n", l->p[i]) && l->p[i])
        i++;
    return i < l->len && l->p[i] == '{';
}

/* 8 bytes of length, then a zlib header (RFC 1950): method, window, check. */
static bool could_be_attachment(const struct lg_look *l)
{
    if (l->len < 10)
        return false;
    const uint8_t *p = l->p;
    return (p[8] & 0x0f) == 8 && p[8] >> 4 <= 7 && (p[8] << 8 | p[9]) % 31 == 0 && !(p[9] & 0x20) && p[5] == 0 && p[6] == 0 && p[7] == 0;
}

static enum lg_class look(struct lg_look *l, bool outer);

static enum lg_class attachment(struct lg_look *l)
{
    uint8_t *out = malloc(LG_CLASSIFY_MAX);
    struct lg_look in = { .p = out };
    bool end;
    if (!out)
        return lg_look_general(l, "out of memory");
    enum lg_class what;
    if (lg_inflate(l->p + 8, l->len - 8, false, out, LG_CLASSIFY_MAX, &in.len, &end)) {
        what = lg_look_general(l, "no DICOM");
    } else {
        in.final = end || l->final || in.len == LG_CLASSIFY_MAX;
        what = look(&in, false);
        l->how = in.how;
        l->info = in.info;
        if (what == LG_CLASS_STUDY)
            l->how = strncmp(in.how, "Orthanc", 7) == 0 ? "Orthanc JSON in zlib" : "Orthanc attachment in zlib: DICOM";
        else if (what == LG_CLASS_MORE)
            what = lg_look_on(l);
    }
    free(out);
    return what;
}

static enum lg_class look(struct lg_look *l, bool outer)
{
    if (l->len < PREAMBLE && !l->final) {
        l->need = PREAMBLE;
        return LG_CLASS_MORE;
    }
    if (l->len >= PREAMBLE && memcmp(l->p + 128, "DICM", 4) == 0)
        return lg_look_dicom(l);
    if (l->len >= 8 && lg_looks_headerless(l))
        return lg_look_headerless(l);
    if (outer && could_be_attachment(l))
        return attachment(l);
    if (could_be_json(l))
        return lg_look_json(l);
    return lg_look_general(l, what_else(l->p, l->len));
}

/* Without memory nothing can be told: that is the general key, like anything unreadable. */
static bool append(struct lg_classifier *c, const uint8_t *data, size_t len)
{
    if (len > LG_CLASSIFY_MAX - c->len)
        len = LG_CLASSIFY_MAX - c->len;
    if (c->len + len > c->cap) {
        size_t cap = c->cap ? c->cap : FIRST;
        while (cap < c->len + len)
            cap *= 2;
        uint8_t *buf = realloc(c->buf, cap);
        if (!buf)
            return false;
        c->buf = buf;
        c->cap = cap;
    }
    if (len)
        memcpy(c->buf + c->len, data, len);
    c->len += len;
    return true;
}

enum lg_class lg_classifier_feed(struct lg_classifier *c, const void *data, size_t len, bool final)
{
    static const uint8_t none[1];
    struct lg_look l = { .final = final };
    if (c->what != LG_CLASS_MORE)
        return c->what;
    if (!c->len && (len >= PREAMBLE || final)) { /* often the first piece is enough: look at it where it is */
        l.p = len ? data : none;
        l.len = len < LG_CLASSIFY_MAX ? len : LG_CLASSIFY_MAX;
        c->what = look(&l, true);
    }
    if (c->what == LG_CLASS_MORE && !append(c, data, len)) {
        c->what = LG_CLASS_GENERAL;
        l.how = "out of memory";
    } else if (c->what == LG_CLASS_MORE && !l.p && (final || c->len >= c->need || c->len == LG_CLASSIFY_MAX)) {
        l.p = c->len ? c->buf : none;
        l.len = c->len;
        c->what = look(&l, true);
    }
    c->need = l.need ? l.need : c->need;
    if (c->what == LG_CLASS_MORE && c->len >= LG_CLASSIFY_MAX) {
        c->what = LG_CLASS_GENERAL;
        l.how = "no study UID in the first 256 KiB";
    }
    if (c->what != LG_CLASS_MORE) {
        c->how = l.how ? l.how : "";
        c->info = l.info;
        free(c->buf);
        c->buf = NULL;
    }
    return c->what;
}
