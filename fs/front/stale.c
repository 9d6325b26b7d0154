#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "front.h"

/* The path as the kernel names the mount, without touching what is mounted there: the parent resolved, the last part as it is. */
static int mount_name(const char *path, char out[PATH_MAX])
{
    char copy[PATH_MAX], parent[PATH_MAX];
    size_t len = strlen(path);
    while (len > 1 && path[len - 1] == '/')
        len--;
    if (len >= sizeof copy)
        return -ENAMETOOLONG;
    memcpy(copy, path, len);
    copy[len] = 0;
    char *slash = strrchr(copy, '/');
    if (slash)
        *slash = 0;
    if (!realpath(!slash ? "." : copy[0] ? copy : "/", parent))
        return -errno;
    int n = snprintf(out, PATH_MAX, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, slash ? slash + 1 : copy);
    return n < 0 || n >= PATH_MAX ? -ENAMETOOLONG : 0;
}

/* mountinfo writes space, tab, newline and backslash in octal. */
static bool same_name(const char *escaped, const char *plain)
{
    unsigned c;
    for (; *escaped && *plain; plain++) {
        if (*escaped == '\\' && sscanf(escaped + 1, "%3o", &c) == 1) {
            if ((unsigned char)*plain != c)
                return false;
            escaped += 4;
        } else if (*escaped++ != *plain) {
            return false;
        }
    }
    return !*escaped && !*plain;
}

/* The uppermost mount there is the last one listed. */
static bool ours_on_top(const char *name, char device[LG_DEVICE_MAX])
{
    char line[2 * PATH_MAX + 1024], at[PATH_MAX], dev[LG_DEVICE_MAX];
    FILE *f = fopen("/proc/self/mountinfo", "re");
    bool ours = false;
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "%*s %*s %23s %*s %4095s", dev, at) == 2 && same_name(at, name)) {
            ours = strstr(line, " - fuse.leadglass ") != NULL;
            memcpy(device, dev, LG_DEVICE_MAX);
        }
    if (f)
        fclose(f);
    return ours;
}

bool lg_mount_device(const char *mountpoint, char device[LG_DEVICE_MAX])
{
    char name[PATH_MAX];
    return mount_name(mountpoint, name) == 0 && ours_on_top(name, device);
}

static int detach(const char *name)
{
    int status;
    if (geteuid() == 0)
        return umount2(name, MNT_DETACH | UMOUNT_NOFOLLOW) ? -errno : 0;
    char *argv[] = { (char[]){ "fusermount3" }, (char[]){ "-uzq" }, (char[]){ "--" }, (char *)(uintptr_t)name, NULL };
    pid_t pid = fork();
    if (pid < 0)
        return -errno;
    if (pid == 0) {
        execv("/usr/bin/fusermount3", argv);
        _exit(127);
    }
    while (waitpid(pid, &status, 0) < 0)
        if (errno != EINTR)
            return -errno;
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EPERM;
}

int lg_stale_detach(const char *mountpoint)
{
    char name[PATH_MAX], device[LG_DEVICE_MAX];
    struct statvfs st;
    int rc = mount_name(mountpoint, name);
    for (unsigned i = 0; !rc && i < 16; i++) { /* several may lie on each other */
        if (!ours_on_top(name, device))
            return access(name, F_OK) && errno == ENOTCONN ? -ENOTCONN : 0;
        if (statvfs(name, &st) == 0) /* unlike attributes, the kernel has to ask for this */
            return 0;
        rc = errno == ENOTCONN || errno == ECONNABORTED ? detach(name) : -errno;
    }
    return rc;
}
