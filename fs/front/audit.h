/* Inside the FUSE front: who did what, for the access log. All do nothing when f->audit is NULL. */
#ifndef LG_FRONT_AUDIT_H
#define LG_FRONT_AUDIT_H

#include "front.h"
#include "leadglass/audit.h"

/* What an open file remembers for the record of its close: the asker of a release is nobody. */
struct lg_opened {
    struct lg_handle *h;
    uint32_t uid, gid;
    int32_t pid;
    const char *how;
    bool direct; /* what is written goes past the kernel's pages */
    int64_t began_us; /* when it was asked for: lg_front_now */
    _Atomic uint64_t read, written;
};

struct lg_front_audit_options {
    const char *dir; /* NULL: the key manager's */
    bool off, names, keep_going;
    unsigned window_s, sync_ms, keep_days;
    uint64_t segment_bytes;
};
struct lg_front_audit;
/* socket: of the key manager. *ret stays NULL when the log is switched off. error says why not. */
int lg_front_audit_open(const struct lg_front_audit_options *o, const char *socket, const struct lg_vault_info *vault, uint64_t session, const char *mountpoint,
                        void (*alarm)(void *arg, int level, const char *text), void *arg, struct lg_front_audit **ret, char *error, size_t cap) LG_MUST;
/* clean: the unmount was. */
void lg_front_audit_close(struct lg_front_audit *a, bool clean);
/* The key manager told us to lock, or to drop a study: recorded, durable and signed before anything is dropped. */
void lg_front_audit_event(struct lg_front_audit *a, const char *event);

int lg_front_ready(struct lg_front *f) LG_MUST; /* -ECANCELED: nothing may be done that has to be recorded */
/* Microseconds, to tell how long something took; 0 without a log. */
int64_t lg_front_now(const struct lg_front *f);
/* o->h NULL: it was refused with rc. */
void lg_front_opened(struct lg_front *f, fuse_req_t req, fuse_ino_t ino, struct lg_opened *o, const char *how, int rc);
void lg_front_closed(struct lg_front *f, struct lg_opened *o);
/* What a change of a node is about, found out before it is done. */
struct lg_subject lg_front_subject(struct lg_front *f, fuse_ino_t node);
/* A change of names or attributes; of may be NULL; to_parent 0: one name; name NULL: parent is what is changed. */
void lg_front_changed(struct lg_front *f, fuse_req_t req, const char *event, const struct lg_subject *of, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to, int rc,
                      int64_t began_us);
void lg_front_finding(struct lg_front *f, const struct lg_finding *found, uint64_t same); /* same: lg_found_same */

#endif
