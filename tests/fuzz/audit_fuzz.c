/* The record parser, the head parser and the verifier. First byte: which. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/audit.h"

static void record(const char *s, size_t len)
{
    static struct lg_audit_record r, again;
    static char line[LG_AUDIT_LINE_MAX];
    struct lg_audit_envelope e;
    uint8_t prev[LG_MAC_LEN] = { 0 };
    size_t n;
    if (lg_audit_envelope(s, len, &e) == 0 && (e.body_len >= len || e.event < s || e.event + e.event_len > s + len))
        abort();
    if (lg_audit_record_parse(s, len, &r))
        return;
    /* What can be read can be written, and reads the same. */
    if (lg_audit_record_encode(&r, prev, line, sizeof line, &n) || lg_audit_record_parse(line, n, &again) || again.seq != r.seq || again.time_us != r.time_us ||
        strcmp(again.event, r.event) != 0 || strcmp(again.path, r.path) != 0 || strcmp(again.text, r.text) != 0 || again.outcome != r.outcome || memchr(line, '\n', n))
        abort();
}

static void verify(const char *s, size_t len)
{
    static const uint8_t id[LG_ID_LEN] = { 1, 2, 3, 4, 5, 6, 7, 8, 9 }, pub[LG_SIGN_PUB_LEN] = { 5 };
    struct lg_audit_verifier *v;
    struct lg_audit_report r;
    if (lg_audit_verifier_new(id, pub, &v))
        return;
    bool heads = true;
    while (len) {
        const char *nl = memchr(s, '\n', len);
        size_t n = nl ? (size_t)(nl - s) : len;
        heads = heads && n;
        int rc = heads ? lg_audit_verifier_head(v, s, n) : lg_audit_verifier_line(v, 1, s, n);
        if (rc)
            break;
        s += n + (nl != NULL);
        len -= n + (nl != NULL);
    }
    lg_audit_verifier_end(v, 0, &r);
    if (r.heads) /* nobody signed anything here */
        abort();
    lg_audit_verifier_free(v);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static bool ready;
    struct lg_audit_head h, again;
    char line[LG_AUDIT_HEAD_MAX];
    size_t n;
    if (!ready && (lg_secret_init(true) || lg_crypto_init()))
        abort();
    ready = true;
    if (!len)
        return 0;
    const char *s = (const char *)data + 1;
    len--;
    if (*data % 3 == 0) {
        record(s, len);
    } else if (*data % 3 == 1) {
        if (lg_audit_head_parse(s, len, &h) == 0 && (lg_audit_head_encode(&h, line, sizeof line, &n) || n != len || memcmp(line, s, n) != 0 || lg_audit_head_parse(line, n, &again)))
            abort();
    } else {
        verify(s, len);
    }
    return 0;
}
