/* Keys, a classifier and a directory for tests of the file engine alone. */
#ifndef LG_TEST_FILEKEYS_H
#define LG_TEST_FILEKEYS_H

#include "leadglass/file.h"
#include "leadglass/keys.h"

/* Three keys: general 'g', provisional 'p', study 's'. */
struct lg_keys {
    int locked; /* not 0: every request is answered with it */
    int refuse_study; /* the same for that one alone */
    unsigned asked_study, attached;
    uint32_t rotated; /* how often: the newest version is one more */
};

/* A new directory in /tmp with a journal, open in env, whose sys and vault_id are given; for one file, named f. */
struct filedir {
    char path[64];
    int fd;
};
void filedir_make(struct filedir *d, struct lg_file_env *env);
int filedir_remove(struct filedir *d, struct lg_file_env *env);

#endif
