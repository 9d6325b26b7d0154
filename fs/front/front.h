/* Inside the FUSE front: the only folder that knows libfuse. */
#ifndef LG_FRONT_H
#define LG_FRONT_H

#include <fuse_lowlevel.h>

#include "leadglass/volume.h"

struct lg_front {
    struct lg_volume *volume;
    struct lg_keys *keys;
    struct fuse_session *session;
    double entry_timeout, attr_timeout;
    bool read_only;
    struct lg_front_audit *audit; /* NULL: no access log */
};

extern const struct fuse_lowlevel_ops lg_front_ops; /* userdata: struct lg_front */

/* Path rules: an INI file of sections with `pattern = GLOB` (matched against the path below the mountpoint, as fnmatch(3)) and `study = UID`
 * or `study = general`. The first match decides. */
struct lg_rules;
int lg_rules_load(const char *file, struct lg_rules **ret, char *error, size_t cap) LG_MUST;
void lg_rules_free(struct lg_rules *r);
int lg_rules_match(const struct lg_rules *r, const char *path, struct lg_study_info *ret);

/* Takes away mounts of ours at that place whose daemon was killed; nothing happens to a mount that lives. -ENOTCONN: it is not one of ours. */
int lg_stale_detach(const char *mountpoint);

/* The whole program; returns the exit code. */
int lg_front_run(int argc, char **argv);

#endif
