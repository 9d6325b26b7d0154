/* What `leadglass status` reads off the names of this process's threads, as it does the transport off those of libfuse's: the key manager need not know. */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>

#include "front.h"
#include "leadglass/sys.h"

void lg_front_tell_reads(const struct lg_front *f, pthread_t thread)
{
    char name[24];
    const char *what = lg_volume_handles(f->volume) ? "reads" : "files"; /* files: each has a descriptor */
    int rc = lg_uring_state();
    if (rc && rc != -ECANCELED)
        snprintf(name, sizeof name, "lg-%s-%d", what, -rc);
    else
        snprintf(name, sizeof name, "lg-%s-%s", what, rc ? "off" : "ring");
    (void)pthread_setname_np(thread, name);
}

void lg_front_tell_mount(const struct lg_front *f, pthread_t thread)
{
    char name[16];
    snprintf(name, sizeof name, "lg-%s-%.3s", f->audit ? "logged" : "unlogged", lg_ring_reason(f->lack)->word);
    (void)pthread_setname_np(thread, name);
}
