/* The configuration of path rules, and paths against it. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../fs/front/front.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static const char *const paths[] = { "", "a", "in/a.dcm", "in/b/c.dcm", "[", "\xff\xfe" };
    char path[40], error[64];
    struct lg_rules *r;
    struct lg_study_info info;
    int fd = memfd_create("rules", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = lg_rules_load(path, &r, error, sizeof error);
    close(fd);
    if (rc) {
        if (!error[0])
            abort(); /* it always says why */
        return 0;
    }
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++)
        if (lg_rules_match(r, paths[i], &info) == 0 && !info.uid[0])
            abort();
    lg_rules_free(r);
    return 0;
}
