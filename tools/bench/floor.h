/* What reading an encrypted file costs whatever else a filesystem does: see floor.c. In the passthrough nothing. */
#ifndef LEADGLASS_BENCH_FLOOR_H
#define LEADGLASS_BENCH_FLOOR_H

#include <stdbool.h>
#include <sys/types.h>

#ifdef FLOOR
void floor_begin(void);
void floor_lookup(const char *name);
void floor_open(int fd);
/* Reads for a reply of size bytes and pays for opening it. As pread. */
ssize_t floor_read(int fd, char *buf, size_t size, off_t off);
void floor_release(int fd);
#else
#include <unistd.h>
static inline void floor_begin(void) {}
static inline void floor_lookup(const char *name) { (void)name; }
static inline void floor_open(int fd) { (void)fd; }
static inline ssize_t floor_read(int fd, char *buf, size_t size, off_t off) { return pread(fd, buf, size, off); }
static inline void floor_release(int fd) { (void)fd; }
#endif

#endif
