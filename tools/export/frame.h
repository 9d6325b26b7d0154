/* A message for syslog: RFC 5424 inside the octet count of RFC 5425 section 4.3. Pure. */
#ifndef LG_EXPORT_FRAME_H
#define LG_EXPORT_FRAME_H

#include <stdbool.h>
#include <stdint.h>

#include "dicom.h"

#define LG_FRAME_MAX (LG_DICOM_MAX + 512u)

struct lg_frame_header {
    bool warning;     /* severity 4 rather than 5; the facility is 10 (PS3.15 A.6) */
    int64_t time_us;
    const char *host;
    int pid;
};
/* "LEN <PRI>1 TIME HOST leadglass PID DICOM+RFC3881 - BOM MSG". -ENOSPC. */
int lg_frame_encode(const struct lg_frame_header *h, const char *msg, size_t len, char *out, size_t cap, size_t *ret_len) LG_MUST;

#endif
