/* gatefs SOURCE GATES MOUNTPOINT [READ_MS]: the files of SOURCE, seen through a filesystem on which a test can hold one operation for as long as it wants. Where
 * a file GATES/op exists, the next such operation renames it to GATES/op.held and goes on when that is taken away; all others pass. Reads of the file that the
 * symbolic link GATES/eio names (/PATH in SOURCE) answer EIO. READ_MS: what every read takes at least, as if the storage were far away. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

static int source, gates;
static unsigned read_ms;

static void gate(const char *op)
{
    char held[64];
    snprintf(held, sizeof held, "%s.held", op);
    if (renameat(gates, op, gates, held))
        return;
    while (faccessat(gates, held, F_OK, 0) == 0)
        usleep(10000);
}

/* The vault's own files are read when the daemon thinks fit, and its anchor is written then. */
static int own(const char *path) { return strstr(path, "/leadglass.") != NULL; }
static int anchor(const char *path) { return strstr(path, "/leadglass.anchor") != NULL; }

static const char *rel(const char *path) { return path[1] ? path + 1 : "."; }
static int done(int rc) { return rc < 0 ? -errno : 0; }

static int g_getattr(const char *path, struct stat *st, struct fuse_file_info *fi)
{
    (void)fi;
    gate("getattr");
    return done(fstatat(source, rel(path), st, AT_SYMLINK_NOFOLLOW));
}
static int g_readlink(const char *path, char *buf, size_t size)
{
    ssize_t n = readlinkat(source, rel(path), buf, size - 1);
    if (n < 0)
        return -errno;
    buf[n] = 0;
    return 0;
}
static int g_mkdir(const char *path, mode_t mode)
{
    gate("mkdir");
    return done(mkdirat(source, rel(path), mode));
}
static int g_unlink(const char *path) { return done(unlinkat(source, rel(path), 0)); }
static int g_rmdir(const char *path) { return done(unlinkat(source, rel(path), AT_REMOVEDIR)); }
static int g_symlink(const char *to, const char *path) { return done(symlinkat(to, source, rel(path))); }
static int g_rename(const char *from, const char *to, unsigned flags)
{
    if (!anchor(from))
        gate("rename");
    return done(renameat2(source, rel(from), source, rel(to), flags));
}
static int g_chmod(const char *path, mode_t mode, struct fuse_file_info *fi) { return (void)fi, done(fchmodat(source, rel(path), mode, 0)); }
static int g_chown(const char *path, uid_t u, gid_t g, struct fuse_file_info *fi) { return (void)fi, done(fchownat(source, rel(path), u, g, AT_SYMLINK_NOFOLLOW)); }
static int g_utimens(const char *path, const struct timespec ts[2], struct fuse_file_info *fi)
{
    return (void)fi, done(utimensat(source, rel(path), ts, AT_SYMLINK_NOFOLLOW));
}
static int g_truncate(const char *path, off_t size, struct fuse_file_info *fi)
{
    int fd = fi ? (int)fi->fh : openat(source, rel(path), O_WRONLY), rc = fd < 0 ? -errno : done(ftruncate(fd, size));
    if (!fi && fd >= 0)
        close(fd);
    return rc;
}
static int opened(int fd, struct fuse_file_info *fi)
{
    if (fd < 0)
        return -errno;
    fi->fh = (uint64_t)fd;
    fi->direct_io = 1; /* every read comes here */
    return 0;
}
static int g_create(const char *path, mode_t mode, struct fuse_file_info *fi) { return opened(openat(source, rel(path), fi->flags | O_CREAT, mode), fi); }
static int g_open(const char *path, struct fuse_file_info *fi) { return opened(openat(source, rel(path), fi->flags), fi); }
static int g_read(const char *path, char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    if (!own(path))
        gate("read");
    char bad[4096];
    ssize_t named = readlinkat(gates, "eio", bad, sizeof bad);
    if (named > 0 && (size_t)named == strlen(path) && memcmp(bad, path, (size_t)named) == 0)
        return -EIO;
    if (read_ms)
        usleep(read_ms * 1000u);
    ssize_t n = pread((int)fi->fh, buf, size, off);
    return n < 0 ? -errno : (int)n;
}
static int g_write(const char *path, const char *buf, size_t size, off_t off, struct fuse_file_info *fi)
{
    gate("write");
    (void)path;
    ssize_t n = pwrite((int)fi->fh, buf, size, off);
    return n < 0 ? -errno : (int)n;
}
static int g_release(const char *path, struct fuse_file_info *fi) { return (void)path, done(close((int)fi->fh)); }
static int g_fsync(const char *path, int data_only, struct fuse_file_info *fi)
{
    (void)data_only;
    if (!anchor(path))
        gate("fsync");
    return done(fsync((int)fi->fh));
}
static int g_fallocate(const char *path, int mode, off_t off, off_t len, struct fuse_file_info *fi) { return (void)path, done(fallocate((int)fi->fh, mode, off, len)); }
static int g_statfs(const char *path, struct statvfs *st) { return (void)path, done(fstatvfs(source, st)); }
static int g_readdir(const char *path, void *buf, fuse_fill_dir_t fill, off_t off, struct fuse_file_info *fi, enum fuse_readdir_flags flags)
{
    (void)off, (void)fi, (void)flags;
    int fd = openat(source, rel(path), O_RDONLY | O_DIRECTORY);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    if (!d)
        return -errno;
    for (struct dirent *e; (e = readdir(d));)
        if (fill(buf, e->d_name, NULL, 0, 0))
            break;
    closedir(d);
    return 0;
}

static const struct fuse_operations ops = {
    .getattr = g_getattr, .readlink = g_readlink, .mkdir = g_mkdir, .unlink = g_unlink, .rmdir = g_rmdir, .symlink = g_symlink, .rename = g_rename,
    .chmod = g_chmod, .chown = g_chown, .utimens = g_utimens, .truncate = g_truncate, .create = g_create, .open = g_open, .read = g_read, .write = g_write,
    .release = g_release, .fsync = g_fsync, .fallocate = g_fallocate, .statfs = g_statfs, .readdir = g_readdir,
};

int main(int argc, char **argv)
{
    if (argc != 4 && argc != 5)
        return 2;
    if (argc == 5)
        read_ms = (unsigned)strtoul(argv[4], NULL, 10);
    source = open(argv[1], O_PATH | O_DIRECTORY);
    gates = open(argv[2], O_PATH | O_DIRECTORY);
    if (source < 0 || gates < 0)
        return 1;
    umask(0);
    char *args[] = { argv[0], (char[]){ "-oallow_other,suid,dev,default_permissions" }, argv[3], NULL };
    return fuse_main(3, args, &ops, NULL);
}
