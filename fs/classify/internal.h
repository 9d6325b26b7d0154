/* Inside the classifier. Each parser is a pure function of a prefix of the file: it decides, or says how many bytes it wants to see before it is worth asking
 * again. A decision made on a prefix is made on every longer one, so it does not matter in which pieces the bytes come. */
#ifndef LG_CLASSIFY_INTERNAL_H
#define LG_CLASSIFY_INTERNAL_H

#include "leadglass/classify.h"

struct lg_look {
    const uint8_t *p;
    size_t len;
    bool final;  /* nothing follows */
    size_t need; /* out, with LG_CLASS_MORE: this many bytes */
    const char *how;
    struct lg_study_info info;
    char charset[17];
};

/* LG_CLASS_MORE, or the given reason for the general key when the file ends here. */
static inline enum lg_class lg_look_more(struct lg_look *l, size_t need)
{
    if (l->final || need > LG_CLASSIFY_MAX) {
        l->how = l->final ? "damaged: ends before its study UID" : "no study UID in the first 256 KiB";
        return LG_CLASS_GENERAL;
    }
    l->need = need;
    return LG_CLASS_MORE;
}
/* The same when it is not known how much is missing. */
static inline enum lg_class lg_look_on(struct lg_look *l)
{
    size_t need = l->len + l->len / 2 + 512;
    return lg_look_more(l, l->len < LG_CLASSIFY_MAX && need > LG_CLASSIFY_MAX ? LG_CLASSIFY_MAX : need);
}
static inline enum lg_class lg_look_general(struct lg_look *l, const char *how)
{
    l->how = how;
    return LG_CLASS_GENERAL;
}

enum lg_class lg_look_dicom(struct lg_look *l);       /* with preamble and DICM */
bool lg_looks_headerless(const struct lg_look *l);    /* at least 8 bytes: could be DICOM without a preamble */
enum lg_class lg_look_headerless(struct lg_look *l);
enum lg_class lg_look_json(struct lg_look *l);

/* One value of the study record. tag: group << 16 | element; others are ignored. False: a study UID that is none. */
bool lg_look_value(struct lg_look *l, uint32_t tag, const uint8_t *v, size_t len, bool utf8);
#define LG_TAG_CHARSET 0x00080005u
#define LG_TAG_UID 0x0020000du

/* Inflates a prefix of a stream; at most cap bytes out. raw: deflate without a header. ret_end: the stream ends here, or is
 * damaged from here on: what came before counts, as it would have in a shorter prefix. -EPROTO: not such a stream. */
int lg_inflate(const uint8_t *in, size_t len, bool raw, uint8_t *out, size_t cap, size_t *ret_len, bool *ret_end) LG_MUST;

#endif
