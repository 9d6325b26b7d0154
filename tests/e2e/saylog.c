/* Preloaded into the daemons of a test: what they say to syslog goes to the file that LG_SAYS names, so that a test that fails can show it.
 * Opened each time: a daemon that begins closes what it does not know. */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

void __vsyslog_chk(int level, int flag, const char *fmt, va_list ap) __attribute__((format(printf, 3, 0)));
void __syslog_chk(int level, int flag, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void say(int level, const char *fmt, va_list ap) __attribute__((format(printf, 2, 0)));
static void say(int level, const char *fmt, va_list ap)
{
    const char *file = getenv("LG_SAYS");
    char line[2048], when[32];
    struct timespec t;
    struct tm tm;
    int fd = file ? open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOCTTY, 0600) : -1;
    if (fd < 0)
        return;
    clock_gettime(CLOCK_REALTIME, &t);
    strftime(when, sizeof when, "%H:%M:%S", gmtime_r(&t.tv_sec, &tm));
    int n = snprintf(line, sizeof line, "%s.%03ld %s[%d] <%d> ", when, t.tv_nsec / 1000000, program_invocation_short_name, (int)getpid(), level & 7);
    if (n > 0 && n < 1000) {
        int m = vsnprintf(line + n, sizeof line - 1 - (size_t)n, fmt, ap);
        n += m < 0 ? 0 : m < (int)sizeof line - 1 - n ? m : (int)sizeof line - 2 - n;
        line[n] = '\n';
        (void)!write(fd, line, (size_t)n + 1);
    }
    close(fd);
}

void vsyslog(int level, const char *fmt, va_list ap) { say(level, fmt, ap); }
void __vsyslog_chk(int level, int flag, const char *fmt, va_list ap)
{
    (void)flag;
    say(level, fmt, ap);
}

void syslog(int level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    say(level, fmt, ap);
    va_end(ap);
}

void __syslog_chk(int level, int flag, const char *fmt, ...)
{
    va_list ap;
    (void)flag;
    va_start(ap, fmt);
    say(level, fmt, ap);
    va_end(ap);
}
