/* A new directory for the files that a fuzzer needs, in memory where there is such a place. Whoever has it made removes it. */
#ifndef FUZZ_SCRATCH_H
#define FUZZ_SCRATCH_H

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static inline void fuzz_dir(const char *name, char *out, size_t cap)
{
    snprintf(out, cap, "%s/%s.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", name);
    if (!mkdtemp(out)) {
        perror(out);
        abort();
    }
}

#endif
