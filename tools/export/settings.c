#include "settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/config.h"
#include "spool.h"

static const struct text {
    const char *name;
    size_t at, cap;
} texts[] = {
#define TEXT(name, field) { name, offsetof(struct lg_export_settings, field), sizeof(((struct lg_export_settings *)0)->field) }
    TEXT("host", host), TEXT("server-name", name), TEXT("ca", ca), TEXT("certificate", cert), TEXT("key", key), TEXT("log", log), TEXT("spool", spool), TEXT("source-id", source), TEXT("site-id", site),
#undef TEXT
};

static bool yes_no(const char *v, bool *ret)
{
    *ret = strcmp(v, "yes") == 0;
    return *ret || strcmp(v, "no") == 0;
}

static bool number(const char *v, unsigned long least, unsigned long most, unsigned long *ret)
{
    char *end;
    *ret = strtoul(v, &end, 10);
    return *v >= '0' && *v <= '9' && !*end && *ret >= least && *ret <= most;
}

static bool setting(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap)
{
    struct lg_export_settings *s = arg;
    unsigned long n;
    const char *expected = NULL;
    if (strcmp(section, "export") != 0)
        return true;
    for (unsigned i = 0; i < sizeof texts / sizeof *texts; i++)
        if (strcmp(name, texts[i].name) == 0) {
            if (strlen(value) < texts[i].cap && value[0]) {
                snprintf((char *)s + texts[i].at, texts[i].cap, "%s", value);
                return true;
            }
            snprintf(error, cap, "[export] %.32s: expected 1 to %zu characters", name, texts[i].cap - 1);
            return false;
        }
    if (strcmp(name, "release-study-uids") == 0)
        expected = yes_no(value, &s->release) ? NULL : "yes or no";
    else if (strcmp(name, "tls") == 0)
        expected = yes_no(value, &s->tls) ? NULL : "yes or no";
    else if (strcmp(name, "begin") == 0)
        expected = (s->all = strcmp(value, "all") == 0) || strcmp(value, "now") == 0 ? NULL : "now or all";
    else if (strcmp(name, "port") == 0)
        expected = number(value, 1, 65535, &n) ? (snprintf(s->port, sizeof s->port, "%lu", n), NULL) : "1 to 65535";
    else if (strcmp(name, "retry-max") == 0)
        expected = number(value, 1, 3600, &n) ? (s->retry_s = (unsigned)n, NULL) : "1 to 3600 (seconds)";
    else if (strcmp(name, "spool-mib") == 0)
        expected = number(value, 1, 1048576, &n) ? (s->spool_max = (uint64_t)n * LG_SPOOL_MIN, NULL) : "1 to 1048576";
    else {
        snprintf(error, cap, "[export] %.32s: there is no such setting; leadglass-audit.conf(5) has them", name);
        return false;
    }
    if (expected)
        snprintf(error, cap, "[export] %.32s = %.64s: expected %s", name, value, expected);
    return !expected;
}

int lg_export_settings_load(const char *file, struct lg_export_settings *ret, char *error, size_t cap)
{
    struct lg_export_settings s = { .tls = true, .port = "6514", .spool = "/var/lib/leadglass/export", .spool_max = 64u * LG_SPOOL_MIN, .retry_s = 60 };
    int rc = lg_config_read(file, setting, &s, error, cap);
    const char *lacks = rc || !s.host[0] ? NULL : s.tls && !s.ca[0] ? "ca = FILE (or tls = no, which sends study UIDs in clear)" : !s.cert[0] != !s.key[0] ? "certificate and key, both" : NULL;
    if (!rc && lacks) {
        snprintf(error, cap, "%s: [export] needs %s", file, lacks);
        rc = -EINVAL;
    }
    if (!rc)
        *ret = s;
    return rc;
}
