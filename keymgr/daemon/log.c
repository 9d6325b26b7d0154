#include <stdarg.h>
#include <stdio.h>
#include <syslog.h>

#include "daemon.h"

static bool syslogging;

void lg_log_open(bool to_syslog)
{
    syslogging = to_syslog;
    if (to_syslog)
        openlog("leadglass-keyd", LOG_PID, LOG_AUTHPRIV);
}

void lg_log(int level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    if (syslogging) {
        vsyslog(level, fmt, ap);
    } else {
        fputs("leadglass-keyd: ", stderr);
        vfprintf(stderr, fmt, ap);
        fputc('\n', stderr);
    }
    va_end(ap);
}
