/* Preloaded into leadglass-fs: closing a file that has no name any more waits while the file that LG_HELD names exists. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

int close(int fd)
{
    const char *held = getenv("LG_HELD");
    struct stat st;
    if (held && strcmp(program_invocation_short_name, "leadglass-fs") == 0 && fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_nlink == 0)
        while (access(held, F_OK) == 0)
            usleep(10000);
    return (int)syscall(SYS_close, fd);
}
