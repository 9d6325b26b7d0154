#include "leadglass/config.h"

#include <errno.h>
#include <ini.h>
#include <stdio.h>
#include <string.h>

struct reading {
    bool (*setting)(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap);
    void *arg;
    bool refused;
    char why[512];
};

static int on_value(void *arg, const char *section, const char *name, const char *value)
{
    struct reading *r = arg;
    if (r->refused) /* libinih goes on after the first error */
        return 0;
    r->refused = !r->setting(r->arg, section, name, value ? value : "", r->why, sizeof r->why);
    return !r->refused;
}

int lg_config_read(const char *file, bool (*setting)(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap), void *arg, char *error, size_t cap)
{
    struct reading r = { .setting = setting, .arg = arg };
    FILE *f = fopen(file, "re");
    if (!f) {
        int rc = -errno;
        snprintf(error, cap, "%s: %s", file, strerror(-rc));
        return rc;
    }
    int line = ini_parse_file(f, on_value, &r);
    bool failed = ferror(f);
    fclose(f);
    if (failed || line < 0) {
        snprintf(error, cap, "%s: cannot be read", file);
        return line < -1 ? -ENOMEM : -EIO;
    }
    if (!line)
        return 0;
    snprintf(error, cap, "%s:%d: %s", file, line, r.refused && r.why[0] ? r.why : "not understood: expected [section], or name = value in at most 200 characters");
    return -EINVAL;
}
