/* Preloaded into leadglass-fs: the system refuses io_uring for its own reads, as kernel.io_uring_disabled or a container's filter would. */
#include <errno.h>

struct io_uring;
int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags);
int io_uring_queue_init(unsigned entries, struct io_uring *ring, unsigned flags) { return (void)entries, (void)ring, (void)flags, -EPERM; }
