/* secret.h: memory for key material.
 *
 * All secrets live in regions that are locked (mlock), excluded from core dumps (MADV_DONTDUMP),
 * and wiped when freed; a child that a program forks must exec at once. OpenSSL's own allocations are routed
 * here too, as expanded keys live in them. Thread-safe. */
#ifndef LEADGLASS_SECRET_H
#define LEADGLASS_SECRET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "leadglass/status.h"

#define LG_KEY_LEN 32u

/* Must be called first thing in main(), before any OpenSSL call: disables core dumps and ptrace (PR_SET_DUMPABLE 0,
 * RLIMIT_CORE 0), raises RLIMIT_MEMLOCK as far as allowed, probes that memory can be locked, and routes OpenSSL's
 * allocations here. Returns -EPERM when memory cannot be locked and allow_unlocked is false. */
int lg_secret_init(bool allow_unlocked) LG_MUST;

/* True when some secret memory could not be locked (only possible with allow_unlocked). */
bool lg_secret_unlocked(void);

/* Zeroed secret memory of len bytes (1 .. 1 MiB), or NULL when none can be had. */
void *lg_secret_alloc(size_t len) LG_MUST;

/* Wipes and frees; NULL is fine. */
void lg_secret_dealloc(void *p);

/* Overwrites len bytes in a way that the compiler keeps. */
void lg_wipe(void *p, size_t len);

/* Constant-time equality. */
bool lg_equal(const void *a, const void *b, size_t len);

/* A 256-bit key. Always in secret memory, always by pointer. */
struct lg_secret {
    uint8_t b[LG_KEY_LEN];
};

struct lg_secret *lg_secret_new(void) LG_MUST;          /* zeroed; NULL when out of memory */
struct lg_secret *lg_secret_random(void) LG_MUST;       /* from getrandom */
struct lg_secret *lg_secret_dup(const struct lg_secret *s) LG_MUST;
void lg_secret_free(struct lg_secret *s);               /* wipes; NULL is fine */

static inline void lg_secret_freep(struct lg_secret **s) { lg_secret_free(*s); }
static inline void lg_secret_deallocp(void *p) { lg_secret_dealloc(*(void **)p); }
/* Declares a key that is wiped and freed when the scope is left. */
#define LG_SECRET_AUTO __attribute__((cleanup(lg_secret_freep))) struct lg_secret *
#define LG_SECRET_BUF_AUTO __attribute__((cleanup(lg_secret_deallocp)))

#endif
