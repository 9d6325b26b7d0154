/* For the thread sanitizer only. A request over io_uring that follows from a reply comes after it: the kernel sees to that, but the sanitizer, which knows the
 * system calls of /dev/fuse, does not see it there. So each reply says so, and each request. Included after everything else. */
#ifndef LG_ORDER_H
#define LG_ORDER_H

#ifdef __SANITIZE_THREAD__
#include <sanitizer/tsan_interface.h>

#include "front.h"

#define LG_RING_REQUESTED() __tsan_acquire((void *)(uintptr_t)&lg_front_ops)
#define LG_RING_REPLY(call) (__tsan_release((void *)(uintptr_t)&lg_front_ops), (call))
#define fuse_reply_err(...) LG_RING_REPLY(fuse_reply_err(__VA_ARGS__))
#define fuse_reply_none(...) LG_RING_REPLY(fuse_reply_none(__VA_ARGS__))
#define fuse_reply_entry(...) LG_RING_REPLY(fuse_reply_entry(__VA_ARGS__))
#define fuse_reply_create(...) LG_RING_REPLY(fuse_reply_create(__VA_ARGS__))
#define fuse_reply_open(...) LG_RING_REPLY(fuse_reply_open(__VA_ARGS__))
#define fuse_reply_attr(...) LG_RING_REPLY(fuse_reply_attr(__VA_ARGS__))
#define fuse_reply_statx(...) LG_RING_REPLY(fuse_reply_statx(__VA_ARGS__))
#define fuse_reply_readlink(...) LG_RING_REPLY(fuse_reply_readlink(__VA_ARGS__))
#define fuse_reply_buf(...) LG_RING_REPLY(fuse_reply_buf(__VA_ARGS__))
#define fuse_reply_write(...) LG_RING_REPLY(fuse_reply_write(__VA_ARGS__))
#define fuse_reply_lseek(...) LG_RING_REPLY(fuse_reply_lseek(__VA_ARGS__))
#define fuse_reply_statfs(...) LG_RING_REPLY(fuse_reply_statfs(__VA_ARGS__))
#define fuse_reply_xattr(...) LG_RING_REPLY(fuse_reply_xattr(__VA_ARGS__))
#else
#define LG_RING_REQUESTED() ((void)0)
#endif

#endif
