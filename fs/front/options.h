/* What leadglass-fs was told on its command line. */
#ifndef LG_FRONT_OPTIONS_H
#define LG_FRONT_OPTIONS_H

#include "audit.h"

enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_LOCKED = 4, EXIT_NO_KEYD = 5 };

enum transport { TRANSPORT_AUTO, TRANSPORT_DEV, TRANSPORT_URING };

struct lg_front_options {
    const char *socket, *vault, *mountpoint, *rules;
    bool foreground, allow_unlocked, nonempty, debug;
    bool read_only, default_permissions, allow_other, noatime;
    double entry_timeout, attr_timeout;
    unsigned threads;
    struct lg_front_audit_options audit;
    enum transport transport;
    char extra[1024]; /* for libfuse and the kernel */
};

/* Fills o, which holds the defaults; its strings are argv's. 0, or EXIT_USAGE once it was said on stderr why not. --help and --version end the program. */
int lg_front_parse(int argc, char **argv, struct lg_front_options *o);

#endif
