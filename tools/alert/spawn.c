#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "deliver.h"

enum { ENV_MAX = 8, STARTED_NOT = 127 };

/* Everything it needs stands in memory, so that nothing here can wait for its reading. */
static int input_of(const char *s, size_t len)
{
    int fd = memfd_create("alert", MFD_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, s, len) != (ssize_t)len || lseek(fd, 0, SEEK_SET)) {
        close(fd);
        return -EIO;
    }
    return fd;
}

static bool nowhere(int fd)
{
    int n = open("/dev/null", O_WRONLY);
    return n == fd || (n >= 0 && dup2(n, fd) == fd);
}

static _Noreturn void child(const char *path, int in, char *const env[])
{
    char *argv[] = { (char *)(uintptr_t)path, NULL };
    sigset_t none;
    setpgid(0, 0);
    for (int s = 1; s < NSIG; s++)
        signal(s, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    if (in < 3) /* a standard descriptor was closed, and this took its number: it would be its own copy, and go at exec */
        in = fcntl(in, F_DUPFD_CLOEXEC, 3);
    if (dup2(in, 0) != 0 || (fcntl(2, F_GETFD) < 0 && !nowhere(2)) || dup2(2, 1) != 1 || close_range(3, ~0u, 0) || chdir("/"))
        _exit(STARTED_NOT);
    execve(path, argv, env);
    _exit(STARTED_NOT);
}

int lg_spawn(const char *path, const char *input, size_t len, char *const env[], pid_t *ret_pid, int *ret_pidfd)
{
    static char search[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", lang[] = "LANG=C.UTF-8";
    char *all[ENV_MAX + 3] = { search, lang };
    for (unsigned i = 0; i < ENV_MAX && env[i]; i++)
        all[i + 2] = env[i];
    int in = input_of(input, len);
    if (in < 0)
        return in;
    pid_t pid = fork();
    if (!pid)
        child(path, in, all);
    int rc = pid < 0 ? -errno : 0;
    close(in);
    if (rc)
        return rc;
    setpgid(pid, pid); /* whichever of the two comes first */
    int fd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (fd < 0) {
        rc = -errno;
        kill(-pid, SIGKILL);
        (void)waitpid(pid, NULL, 0);
        return rc;
    }
    *ret_pid = pid;
    *ret_pidfd = fd;
    return 0;
}
