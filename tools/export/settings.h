/* Section [export] of /etc/leadglass/audit.conf (docs/man/leadglass-audit.conf.5). Other sections are others' and passed over. */
#ifndef LG_EXPORT_SETTINGS_H
#define LG_EXPORT_SETTINGS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "leadglass/status.h"

struct lg_export_settings {
    bool release; /* release-study-uids = yes */
    bool tls, all;
    char host[256], port[8], name[256], ca[256], cert[256], key[256];
    char log[256], spool[256], source[64], site[64];
    uint64_t spool_max; /* bytes */
    unsigned retry_s;   /* the longest pause before connecting is tried again */
};
/* -EINVAL and others with one line in error[cap]. Whether it may be switched on (release, and host given) is left to the caller. */
int lg_export_settings_load(const char *file, struct lg_export_settings *ret, char *error, size_t cap) LG_MUST;

#endif
