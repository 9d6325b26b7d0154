#include "frame.h"

#include <stdio.h>
#include <string.h>

int lg_frame_encode(const struct lg_frame_header *h, const char *msg, size_t len, char *out, size_t cap, size_t *ret_len)
{
    char head[256], when[LG_AUDIT_TIME_LEN + 1], host[256], count[16];
    size_t n = 0;
    for (const char *p = h->host; *p && n < sizeof host - 1; p++) /* PRINTUSASCII alone */
        host[n++] = *p > ' ' && *p < 127 ? *p : '?';
    host[n] = 0;
    lg_audit_time_text(h->time_us, when);
    int hl = snprintf(head, sizeof head, "<%d>1 %s %.200s leadglass %d DICOM+RFC3881 - \xef\xbb\xbf", 10 * 8 + (h->warning ? 4 : 5), when, n ? host : "-", h->pid);
    int cl = snprintf(count, sizeof count, "%zu ", (size_t)hl + len);
    if ((size_t)cl + (size_t)hl + len > cap)
        return -ENOSPC;
    memcpy(out, count, (size_t)cl);
    memcpy(out + cl, head, (size_t)hl);
    memcpy(out + cl + hl, msg, len);
    *ret_len = (size_t)cl + (size_t)hl + len;
    return 0;
}
