/* relink.h: every name of a lower file comes to mean another one. Inside the volume. */
#ifndef LG_VOLUME_RELINK_H
#define LG_VOLUME_RELINK_H

#include "intent.h"
#include "internal.h"

struct lg_links {
    struct lg_volume *v;
    struct lg_intent in;
    int *fd;   /* the directory of each name; -1: not open */
    bool torn; /* some names mean the new file and could not be put back: the intent has to stay */
};

/* names: paths as the application sees them, below the mount, each with a NUL behind it. Fills in l, which lg_links_done gives back; on error there is nothing to
 * give back. The new file is to be made in l->fd[0], under lg_intent_tmp's first name. -EINVAL, -E2BIG: too many; -ENOENT: one is not there. */
int lg_links_begin(struct lg_volume *v, const char *names, size_t len, struct lg_links *l) LG_MUST;
void lg_links_done(struct lg_links *l);
/* Makes the intent durable. The new file is durable already, and the old one is as this says. v->relinking is held from here to the end. */
int lg_links_intend(struct lg_links *l, const struct lg_claim *old) LG_MUST;
/* Under ns exclusively and the file's locks. Both by descriptors. On error the names are what they were, or l->torn. -EMLINK: those given are not those that it has. */
int lg_links_switch(struct lg_links *l, int old, int new) LG_MUST;
/* Makes the switch durable, and drops the intent. On error the intent vouches for it. */
int lg_links_end(struct lg_links *l) LG_MUST;

/* At mount, the journal replayed. */
void lg_relink_replay(struct lg_volume *v);
/* No intent stands any more. Otherwise -EBUSY: one waits for the next mount. */
int lg_relink_settle(struct lg_volume *v) LG_MUST;

#endif
