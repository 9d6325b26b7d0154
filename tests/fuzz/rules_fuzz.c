/* The configuration of path rules, and paths against it. What begins with "-o " are options of a mount instead, each line those of one -o. */
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../fs/front/front.h"
#include "../../fs/front/options.h"

static void options(const uint8_t *data, size_t len)
{
    static char name[] = "leadglass-fs", flag[] = "-o", vault[] = "V", mountpoint[] = "M";
    char *argv[36] = { name }, *text = malloc(len + 1), *line = text;
    int argc = 1;
    struct lg_front_options o = { .threads = 4, .entry_timeout = 1, .attr_timeout = 1, .audit = { .window_s = 60, .sync_ms = 1000, .keep_days = LG_AUDIT_KEEP_DAYS_MIN } };
    if (!text)
        abort();
    memcpy(text, data, len);
    text[len] = 0;
    for (char *next = line; next && argc < 30; line = next) {
        if ((next = strchr(line, '\n')))
            *next++ = 0;
        argv[argc++] = flag;
        argv[argc++] = line;
    }
    argv[argc++] = vault;
    argv[argc++] = mountpoint;
    optind = 0; /* begins anew */
    int rc = lg_front_parse(argc, argv, &o);
    if (rc != 0 && rc != EXIT_USAGE)
        abort();
    if (!rc && (!(o.entry_timeout >= 0 && o.entry_timeout <= 1e6) || !(o.attr_timeout >= 0 && o.attr_timeout <= 1e6) || o.threads < 1 || o.threads > 1000 || o.audit.window_s > 3600 ||
                o.audit.sync_ms < 1 || o.audit.sync_ms > 60000 || (o.audit.keep_days && o.audit.keep_days < LG_AUDIT_KEEP_DAYS_MIN) || o.audit.keep_days > 36500 ||
                o.audit.segment_bytes > 1ull << 30 || !memchr(o.extra, 0, sizeof o.extra) || o.vault != vault || o.mountpoint != mountpoint || (o.audit.off && o.audit.dir)))
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const paths[] = { "", "a", "in/a.dcm", "in/b/c.dcm", "[", "\xff\xfe" };
    char path[40], error[64];
    struct lg_rules *r;
    struct lg_study_info info;
    static FILE *null; /* for what is wrong with options; the fuzzer has its own stderr */
    if (!null && !(stderr = null = fopen("/dev/null", "we")))
        abort();
    if (len >= 3 && memcmp(data, "-o ", 3) == 0) {
        options(data + 3, len - 3);
        return 0;
    }
    int fd = memfd_create("rules", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = lg_rules_load(path, &r, error, sizeof error);
    close(fd);
    if (rc) {
        if (!error[0])
            abort(); /* it always says why */
        return 0;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (lg_rules_match(r, paths[i], &info) == 0 && !info.uid[0])
            abort();
    lg_rules_free(r);
    return 0;
}
