/* Inside the FUSE front: the only folder that knows libfuse. */
#ifndef LG_FRONT_H
#define LG_FRONT_H

#include <fuse_lowlevel.h>
#include <pthread.h>

#include "leadglass/transport.h"
#include "leadglass/volume.h"

enum { LG_RING_DEPTH = 32 }; /* requests in flight for each processor */

struct lg_front {
    struct lg_volume *volume;
    struct lg_keys *keys;
    struct fuse_session *session;
    double entry_timeout, attr_timeout;
    bool read_only;
    bool unchecked; /* the kernel checks no permissions: only the user who mounts may enter */
    bool ruled; /* by path rules: a new file's study may be asked for at once */
    struct lg_front_audit *audit; /* NULL: no access log */
    struct lg_gone *gone; /* names that the kernel is still to be told of */
    struct lg_pages *pages; /* writes that wait for pages to be dropped */
    bool direct_writes; /* handles that only write go past the kernel's pages */
    struct lg_ring *ring; /* NULL: every request comes from /dev/fuse */
    enum lg_ring_lack lack; /* why; LG_RING_TRIED: they are to come over io_uring; LG_RING_RUNS: they do */
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
#define LG_DEVICE_MAX 24
bool lg_mount_device(const char *mountpoint, char device[LG_DEVICE_MAX]); /* "major:minor" of our mount there; asks nothing of it */

/* Has the kernel forget a name that is no more (gone.c), soon; nobody waits for it. Between start, once the session is there, and stop. */
int lg_gone_start(struct lg_front *f) LG_MUST;
void lg_gone_stop(struct lg_front *f);
void lg_gone_tell(struct lg_front *f, fuse_ino_t parent, const char *name);
void lg_gone_settled(const struct lg_front *f); /* its thread is the one whose name tells of the mount, below: once lack is settled */

/* Has the kernel drop its pages of len bytes that were written with O_DIRECT, and then answers the request (pages.c). Between start, once the session is there, and stop,
 * once nothing is served any more. */
int lg_pages_start(struct lg_front *f) LG_MUST;
void lg_pages_stop(struct lg_front *f);
void lg_pages_written(struct lg_front *f, fuse_req_t req, fuse_ino_t ino, off_t off, size_t len);

/* For `leadglass status`, by names of threads (tell.c): how this process reads what is not in memory, and whether there are file handles below; whether there is an access log, and what
 * keeps requests from coming over io_uring. */
void lg_front_tell_reads(const struct lg_front *f, pthread_t thread);
void lg_front_tell_mount(const struct lg_front *f, pthread_t thread);

/* Whether this kernel, after a write that went past its pages, drops what a reader put there meanwhile (kernel.c). */
bool lg_kernel_forgets(void);

/* FUSE over io_uring (ring.c). Why it is not to be had here; LG_RING_TRIED: it is, as far as can be known before mounting. */
enum lg_ring_lack lg_ring_lack(void);
/* Before the session serves. max_threads: of the pool, above 0. */
int lg_ring_start(struct lg_front *f, unsigned max_threads) LG_MUST;
/* After the session has served, and thus all requests were replied to. */
void lg_ring_stop(struct lg_front *f);
/* Whether requests come over io_uring; known once the kernel's first request was answered. */
bool lg_ring_running(const struct lg_front *f);
/* In a handler that is about to block and has done nothing yet: true has it return at once, without a reply; it is run again where it may block. */
bool lg_ring_put_off(void);
/* As lg_ring_put_off, in a handler of much work that does not block: true while processors are left to share it with. */
bool lg_ring_spread(struct lg_front *f);
/* Before and after a call that may find out only on its way that it would wait, and then gives -LG_ELATER (later.h): tried is true if it did, and the handler returns at
 * once, without a reply; it is run again where it may wait. Elsewhere than on a ring's thread the call just waits. */
void lg_ring_try(void);
bool lg_ring_tried(ssize_t rc);
/* Where a reply of up to len bytes can be made in place, or NULL. Not in handlers that still need what came with the request. */
char *lg_ring_buffer(fuse_req_t req, size_t len);

/* The whole program; returns the exit code. */
int lg_front_run(int argc, char **argv);

#endif
