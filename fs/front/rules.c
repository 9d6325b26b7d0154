#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "front.h"
#include "leadglass/config.h"

struct lg_rules {
    struct rule {
        char section[64], pattern[1024], study[LG_UID_MAX + 1];
    } *r;
    size_t n;
};

static bool is_uid(const char *s)
{
    size_t n = strspn(s, "0123456789.");
    return n && n <= LG_UID_MAX && !s[n];
}

static bool on_value(void *arg, const char *section, const char *name, const char *value, char *error, size_t cap)
{
    struct lg_rules *rs = arg;
    if (!rs->n || strcmp(rs->r[rs->n - 1].section, section) != 0) {
        struct rule *r = reallocarray(rs->r, rs->n + 1, sizeof *r);
        if (!r) {
            snprintf(error, cap, "out of memory");
            return false;
        }
        rs->r = r;
        memset(&r[rs->n], 0, sizeof *r);
        snprintf(r[rs->n++].section, sizeof r->section, "%s", section);
    }
    struct rule *r = &rs->r[rs->n - 1];
    if (strcmp(name, "pattern") == 0 && strlen(value) < sizeof r->pattern) {
        snprintf(r->pattern, sizeof r->pattern, "%s", value);
        return true;
    }
    if (strcmp(name, "study") == 0 && (strcmp(value, "general") == 0 || is_uid(value))) {
        snprintf(r->study, sizeof r->study, "%s", value);
        return true;
    }
    snprintf(error, cap, "[%s] %s = %s: expected `pattern = GLOB` and `study = UID` or `study = general`", section, name, value);
    return false;
}

int lg_rules_load(const char *file, struct lg_rules **ret, char *error, size_t cap)
{
    struct lg_rules *rs = calloc(1, sizeof *rs);
    if (!rs)
        return -ENOMEM;
    int rc = lg_config_read(file, on_value, rs, error, cap);
    for (size_t i = 0; !rc && i < rs->n; i++)
        if (!rs->r[i].pattern[0] || !rs->r[i].study[0]) {
            snprintf(error, cap, "%s: [%s] needs both `pattern` and `study`", file, rs->r[i].section);
            rc = -EINVAL;
        }
    if (rc) {
        lg_rules_free(rs);
        return rc;
    }
    *ret = rs;
    return 0;
}

void lg_rules_free(struct lg_rules *r)
{
    if (r)
        free(r->r);
    free(r);
}

int lg_rules_match(const struct lg_rules *rs, const char *path, struct lg_study_info *ret)
{
    for (size_t i = 0; i < rs->n; i++)
        if (fnmatch(rs->r[i].pattern, path, 0) == 0) {
            if (strcmp(rs->r[i].study, "general") == 0)
                return -ENOENT;
            *ret = (struct lg_study_info){ 0 };
            snprintf(ret->uid, sizeof ret->uid, "%s", rs->r[i].study);
            return 0;
        }
    return -ENOENT;
}
