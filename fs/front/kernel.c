/* What the kernel does, where nothing but its version tells. */
#include <stdio.h>
#include <sys/utsname.h>

#include "front.h"

/* "fuse: Invalidate the page cache after FOPEN_DIRECT_IO write": Linux 6.19, and 6.18.3 and 6.12.64 of those that are kept up. Without it, a page read
 * while its bytes were being written stays as it was. Asynchronous writes with O_DIRECT: pages.c. */
bool lg_kernel_forgets(void)
{
    struct utsname u;
    unsigned major, minor, patch = 0;
    if (uname(&u) || sscanf(u.release, "%u.%u.%u", &major, &minor, &patch) < 2)
        return false;
    if (major != 6)
        return major > 6;
    return minor >= 19 || (minor == 18 && patch >= 3) || (minor == 12 && patch >= 64);
}
