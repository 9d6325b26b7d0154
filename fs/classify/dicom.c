/* DICOM data sets (PS3.5 section 7, PS3.10 section 7), read as far as the Study Instance UID. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { DEPTH_MAX = 64, VALUE_MAX = 4096 };
#define UNDEFINED 0xffffffffu
#define ITEM 0xfffee000u
#define ITEM_END 0xfffee00du
#define SEQUENCE_END 0xfffee0ddu

struct mode {
    bool explicit, big;
};

struct element {
    uint32_t tag, len;
    char vr[2]; /* zero: implicit */
    size_t header;
};

static uint16_t u16(const uint8_t *p, bool big) { return (uint16_t)(big ? p[0] << 8 | p[1] : p[1] << 8 | p[0]); }
static uint32_t u32(const uint8_t *p, bool big) { return big ? (uint32_t)u16(p, true) << 16 | u16(p + 2, true) : (uint32_t)u16(p + 2, false) << 16 | u16(p, false); }

static bool letters(const uint8_t *v) { return v[0] >= 'A' && v[0] <= 'Z' && v[1] >= 'A' && v[1] <= 'Z'; }

static bool is_vr(const uint8_t *v)
{
    static const char all[] = "AEASATCSDADSDTFLFDISLOLTOBODOFOLOVOWPNSHSLSQSSSTSVTMUCUIULUNURUSUTUV";
    for (size_t i = 0; i + 1 < sizeof all - 1; i += 2)
        if (v[0] == all[i] && v[1] == all[i + 1])
            return true;
    return false;
}

static bool long_vr(const char v[2])
{
    static const char all[] = "OBODOFOLOVOWSQSVUCUNURUTUV";
    for (size_t i = 0; i + 1 < sizeof all - 1; i += 2)
        if (v[0] == all[i] && v[1] == all[i + 1])
            return true;
    return false;
}

/* The element header at `at`. False: more bytes are needed, *need says up to where. */
static bool element_at(const struct lg_look *l, size_t at, struct mode m, struct element *e, size_t *need)
{
    *need = at + 8;
    if (l->len < *need)
        return false;
    const uint8_t *p = l->p + at;
    *e = (struct element){ .tag = (uint32_t)u16(p, m.big) << 16 | u16(p + 2, m.big), .header = 8 };
    if (e->tag >> 16 == 0xfffe || !m.explicit) { /* items have no VR in any transfer syntax */
        e->len = u32(p + 4, m.big);
        return true;
    }
    e->vr[0] = (char)p[4];
    e->vr[1] = (char)p[5];
    if (!long_vr(e->vr)) {
        e->len = u16(p + 6, m.big);
        return true;
    }
    *need = at + 12;
    if (l->len < *need)
        return false;
    e->len = u32(p + 8, m.big);
    e->header = 12;
    return true;
}

static bool wanted(uint32_t tag)
{
    return tag == LG_TAG_CHARSET || tag == 0x00080020 || tag == 0x00080050 || tag == 0x00080060 || tag == 0x00100020 || tag == LG_TAG_UID;
}

static enum lg_class data_set(struct lg_look *l, size_t at, struct mode mode, const char *how)
{
    struct mode stack[DEPTH_MAX + 1] = { mode };
    unsigned depth = 0; /* of sequences and items of undefined length */
    for (;;) {
        struct element e;
        size_t need;
        if (l->final && at == l->len)
            return lg_look_general(l, "DICOM without a study UID");
        if (!element_at(l, at, stack[depth], &e, &need))
            return lg_look_more(l, need);
        at += e.header;
        if (depth && (e.tag == ITEM_END || e.tag == SEQUENCE_END)) {
            depth--;
            continue;
        }
        if (!depth && e.tag > LG_TAG_UID)
            return lg_look_general(l, "DICOM without a study UID");
        if (stack[depth].explicit && e.tag >> 16 != 0xfffe && !letters((const uint8_t *)e.vr))
            return lg_look_general(l, "damaged: no value representation where one must be");
        if (e.len == UNDEFINED) {
            if (depth == DEPTH_MAX)
                return lg_look_general(l, "damaged: nested too deeply");
            struct mode inner = stack[depth];
            if (e.vr[0] == 'U' && e.vr[1] == 'N') /* PS3.5 section 6.2.2 note 7: implicit VR little endian inside */
                inner = (struct mode){ false, false };
            stack[++depth] = inner;
            continue;
        }
        if (e.tag == ITEM && depth) { /* its elements, or their end at its end: nothing in it concerns us */
            at += e.len;
        } else if (!depth && wanted(e.tag)) {
            if (e.len > VALUE_MAX)
                return lg_look_general(l, "damaged: a value is longer than it may be");
            if (l->len - at < e.len)
                return lg_look_more(l, at + e.len);
            if (!lg_look_value(l, e.tag, l->p + at, e.len, false))
                return lg_look_general(l, "damaged: the study UID is none");
            if (e.tag == LG_TAG_UID) {
                l->how = how;
                return LG_CLASS_STUDY;
            }
            at += e.len;
        } else {
            at += e.len;
        }
        if (at > l->len)
            return lg_look_more(l, at + 8);
    }
}

/* The data set says itself how it is encoded, whatever the meta group says (as common toolkits read it). False: more bytes. */
static bool sniff(const struct lg_look *l, size_t at, struct mode *m)
{
    if (l->len < at + 6)
        return false;
    m->explicit = letters(l->p + at + 4) && is_vr(l->p + at + 4);
    return true;
}

static enum lg_class deflated(struct lg_look *l, size_t at)
{
    uint8_t *out = malloc(LG_CLASSIFY_MAX);
    struct lg_look in = { .p = out, .final = false };
    bool end = false;
    if (!out)
        return lg_look_general(l, "out of memory");
    enum lg_class what;
    if (lg_inflate(l->p + at, l->len - at, true, out, LG_CLASSIFY_MAX, &in.len, &end)) {
        what = lg_look_general(l, "damaged: does not inflate");
    } else {
        in.final = end || l->final || in.len == LG_CLASSIFY_MAX;
        what = data_set(&in, 0, (struct mode){ true, false }, "DICOM deflated explicit VR little endian");
        l->how = in.how;
        l->info = in.info;
        if (what == LG_CLASS_MORE)
            what = lg_look_on(l);
    }
    free(out);
    return what;
}

/* From the meta group on, if there is one. */
static enum lg_class part10(struct lg_look *l, size_t at, bool preamble)
{
    char ts[65] = "";
    struct mode m = { true, false };
    for (;;) {
        struct element e;
        size_t need;
        if (l->final && at == l->len)
            return lg_look_general(l, "DICOM without a data set");
        if (l->len < at + 4)
            return lg_look_more(l, at + 8);
        if (u16(l->p + at, false) != 0x0002)
            break;
        if (!element_at(l, at, m, &e, &need))
            return lg_look_more(l, need);
        if (!letters((const uint8_t *)e.vr)) { /* some writers leave the VR out here too */
            m.explicit = false;
            if (!element_at(l, at, m, &e, &need))
                return lg_look_more(l, need);
        }
        at += e.header;
        if (e.len > LG_CLASSIFY_MAX)
            return lg_look_general(l, "damaged: the meta group's length is wrong");
        if (l->len - at < e.len)
            return lg_look_more(l, at + e.len);
        if (e.tag == 0x00020010 && e.len < sizeof ts) {
            memcpy(ts, l->p + at, e.len);
            ts[e.len] = 0;
            for (size_t n = strlen(ts); n && ts[n - 1] == ' ';)
                ts[--n] = 0;
        }
        at += e.len;
        m.explicit = true;
    }
    if (strcmp(ts, "1.2.840.10008.1.2.1.99") == 0 || strcmp(ts, "1.2.840.10008.1.2.4.95") == 0 || strcmp(ts, "1.2.840.10008.1.2.4.205") == 0)
        return deflated(l, at);
    m = (struct mode){ true, strcmp(ts, "1.2.840.10008.1.2.2") == 0 };
    if (!ts[0] && l->len >= at + 2)
        m.big = u16(l->p + at, false) >= 0x0400; /* no group so high begins a data set */
    if (!sniff(l, at, &m))
        return lg_look_more(l, at + 8);
    if (!m.explicit && !ts[0])
        m.big = false;
    static const char *const how[2][3] = {
        { "DICOM implicit VR little endian", "DICOM explicit VR little endian", "DICOM explicit VR big endian" },
        { "DICOM without preamble, implicit VR little endian", "DICOM without preamble, explicit VR little endian", "DICOM without preamble, explicit VR big endian" },
    };
    return data_set(l, at, m, how[!preamble][!m.explicit ? 0 : m.big ? 2 : 1]);
}

enum lg_class lg_look_dicom(struct lg_look *l) { return part10(l, 132, true); }
enum lg_class lg_look_headerless(struct lg_look *l) { return part10(l, 0, false); }

bool lg_looks_headerless(const struct lg_look *l)
{
    const uint8_t *p = l->p;
    uint16_t group = u16(p, false), element = u16(p + 2, false);
    if (group == 0x0002)
        return element <= 0x0102 && is_vr(p + 4);
    if (group == 0x0008)
        return is_vr(p + 4) || (element <= 0x1200 && u32(p + 4, false) <= 0x10000);
    return p[0] == 0 && p[1] == 8 && is_vr(p + 4); /* big endian */
}
