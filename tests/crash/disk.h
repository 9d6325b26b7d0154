/* A lower filesystem that crashes. While a workload runs on a real directory, every change to it is recorded: contents through the injectable
 * backend (struct lg_sys), names through the linker's --wrap of the system calls. From the record any state that a power cut may leave is built:
 *  - of each file, any subset of the 512-byte sectors written since its last barrier (each whole or not at all), truncations and holes likewise;
 *  - names in the order in which they were made, up to any point behind the last barrier that covers them: fsync of a directory, or of a file
 *    for its own creation (as ext4, XFS and btrfs do);
 *  - owner, mode, time and extended attributes of each inode in the order in which they were set, up to any point behind the last fsync of it, or
 *    the first fdatasync of a new one; other fdatasyncs promise nothing about them. */
#ifndef LG_CRASH_DISK_H
#define LG_CRASH_DISK_H

#include "leadglass/sys.h"

struct image;
struct record; /* what happened since an image */

/* xorshift64; the state must not be zero. */
uint64_t rnd(uint64_t *state);

/* An image of the tree under dir as it stands, all of it durable. */
struct image *image_scan(const char *dir);
/* Makes dir (which must not exist) stand as the image says. */
void image_write(struct image *im, const char *dir);
void image_free(struct image *im);

/* From now on what happens under the tree that image_scan read or image_write wrote is recorded. One at a time. */
struct record *record_begin(struct image *im);
void record_stop(void);
size_t record_len(const struct record *r);
/* How many of the first n entries concern names: those are made in order. */
size_t record_names(const struct record *r, size_t n);
/* What a crash after the first cut entries may leave; *ret_names: so many name changes of the record are in it. Shares memory with the
 * record and its image: free it first. */
struct image *record_crash(const struct record *r, size_t cut, uint64_t *rng, size_t *ret_names);
void record_free(struct record *r);

/* Calls of the backend, and of what changes names and attributes, so far. */
extern unsigned long disk_calls;

/* A second image of the same; shares memory with the first: free it first. */
struct image *image_copy(const struct image *from);

/* The backend to run the volume on. */
extern const struct lg_sys disk_sys;

/* Errors from below. Every call that changes something (contents through disk_sys, names and attributes through the linker) is counted, and the
 * at-th and those behind it, as many as times says, fail. */
struct fault {
    enum fault_kind {
        FAULT_NONE,
        FAULT_ERROR,     /* error, nothing done */
        FAULT_SPACE,     /* the same, of calls only that may need space */
        FAULT_PART,      /* of writes only: half of it is done, then the error */
        FAULT_SHORT,     /* of writes only: half of it is done, and said to be: no error */
        FAULT_LOST_SYNC, /* of barriers only: the error, and what was to become durable may be lost though a later barrier succeeds (Linux keeps
                            pages that could not be written as if they had been) */
        FAULT_FULL,      /* a full disk: whatever needs space that is not there yet; all of them */
    } kind;
    int error; /* negative */
    unsigned at, times;
    unsigned calls, hits; /* counted here */
    bool parted;
};
extern struct fault fault;

#endif
