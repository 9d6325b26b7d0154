"""Set-id bits, capabilities and ACLs: each thing is done on the mount and on the filesystem below, by root and by somebody without privileges,
and must come out the same."""
import ctypes, errno, fcntl, mmap, os, shutil, stat, struct, subprocess, time
from lib import *

if subprocess.run(["which", "setfacl", "getfacl"], stdout=subprocess.DEVNULL).returncode:
    skip("setfacl and getfacl (package acl) are not installed")
libc = ctypes.CDLL(None, use_errno=True)
CAP = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw
NOBODY = 65534

w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
os.chmod(w.dir, 0o755)
w.init()
m = w.mount()
plain = w.path("plain")
os.mkdir(plain)


def as_user(f, *groups):
    """What f returned, or the error's name, in a child without privileges."""
    r, wr = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            os.umask(0)
            said = repr(f())
        except OSError as e:
            said = errno.errorcode[e.errno]
        except BaseException as e:
            said = repr(e)
        os.write(wr, said.encode())
        os._exit(0)
    os.close(wr)
    os.waitpid(pid, 0)
    said = os.read(r, 4096).decode()
    os.close(r)
    return said


def sh(command):
    return subprocess.run(command, shell=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True).stdout


def fallocate(fd, mode, off, n):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def change(how):
    flags = {"otrunc": os.O_WRONLY | os.O_TRUNC, "append": os.O_WRONLY | os.O_APPEND, "direct": os.O_RDWR | os.O_DIRECT}.get(how, os.O_RDWR)
    if how == "truncate":
        os.truncate("f", 10)
        return
    if how == "chown":
        os.chown("f", -1, NOBODY)
        return
    fd = os.open("f", flags)
    if how in ("write", "append"):
        os.write(fd, b"y")
    elif how == "direct":
        os.write(fd, mmap.mmap(-1, 4096))
    elif how == "ftruncate":
        os.ftruncate(fd, 7)
    elif how == "fallocate":
        os.posix_fallocate(fd, 0, 300)
    elif how == "punch":
        fallocate(fd, 3, 0, 50)
    elif how == "copy":
        g = os.open("from", os.O_RDONLY)
        os.copy_file_range(g, fd, 50, 0, 0)
        os.close(g)
    os.close(fd)


def privileges(out):
    write("from", b"z" * 50)
    for who in ("user", "root"):
        for mode in (0o6777, 0o4777, 0o2777, 0o0777):
            for how in ("read", "write", "append", "direct", "otrunc", "truncate", "ftruncate", "fallocate", "punch", "copy", "chown"):
                write("f", b"x" * 100)
                os.chmod("f", mode)
                os.setxattr("f", "security.capability", CAP)
                if how == "chown" and who == "user":
                    os.chown("f", NOBODY, 0)
                    os.chmod("f", mode)
                    os.setxattr("f", "security.capability", CAP)
                said = as_user(lambda: change(how), NOBODY) if who == "user" else repr(change(how))
                out.append((who, oct(mode), how, said, oct(os.stat("f").st_mode), "security.capability" in os.listxattr("f")))
                os.unlink("f")
    # Nor does the kernel run it with a set-id bit that it remembers: nobody looks at the file between the write and the start.
    shutil.copy("/usr/bin/id", "runs")
    os.chmod("runs", 0o4777)
    def change_and_run():
        with open("runs", "ab") as f:
            f.write(b"x")
        return subprocess.run(["./runs", "-u"], stdout=subprocess.PIPE, text=True).stdout.strip()
    ran = as_user(change_and_run, NOBODY)
    assert ran == repr(str(NOBODY)), ran
    # A write takes the capability away at once, also while its bytes are on their way.
    write("early", b"e" * 70000)
    os.setxattr("early", "security.capability", CAP)
    fd = os.open("early", os.O_RDWR)
    os.write(fd, b"x")
    out.append("security.capability" in os.listxattr(fd))
    os.close(fd)
    # A capability set while the file is open and has bytes on their way stays, also once those are in place below.
    for old in (False, True):
        if old:
            write("late", b"o" * 70000)
        fd = os.open("late", os.O_RDWR | os.O_CREAT, 0o755)
        os.write(fd, b"n" * 60000)
        os.setxattr(fd, "security.capability", CAP)
        os.fchmod(fd, 0o4755)
        os.close(fd)
        os.close(os.open("late", os.O_RDONLY))
        out.append((os.getxattr("late", "security.capability") == CAP, oct(os.stat("late").st_mode)))


def made(out):
    """Owner and mode of what is made, under ordinary, set-gid and default-ACL directories."""
    for name, mode, acl in (("open", 0o777, ""), ("sgid", 0o2777, ""), ("acl", 0o777, "u:1:rwx,g:2:rx,o::---"), ("both", 0o3777, "u:1:r,g::rwx")):
        os.mkdir(name)
        os.chown(name, 0, 5)
        os.chmod(name, mode)
        if acl:
            sh("setfacl -d -m %s %s" % (acl, name))

        def make():
            for mask in (0, 0o027):
                os.umask(mask)
                for bits in (0o755, 0o6777, 0o2640):
                    at = "%s/%o-%o-" % (name, mask, bits)
                    os.close(os.open(at + "f", os.O_CREAT | os.O_WRONLY, bits))
                    os.mknod(at + "n", bits | stat.S_IFREG)
                    os.mkfifo(at + "p", bits)
                    os.mkdir(at + "d", bits)
                    os.symlink("x", at + "l")
        out.append(as_user(make, 5))
        for n in sorted(os.listdir(name)):
            s = os.lstat(os.path.join(name, n))
            out.append((name, n, oct(s.st_mode), s.st_uid, s.st_gid, "" if n.endswith("l") else sh("getfacl -cnp '%s/%s'" % (name, n))))


def acls(out):
    write("a", b"secret")
    os.chmod("a", 0o640)
    for command in ("-m u:65534:r,g:1:rwx", "-m m::x", "-m m::rwx", "-x u:65534", "-b", "-m u:65534:---,o::r", "-m u:65534:r,o::-"):
        out.append((command, sh("setfacl %s a; getfacl -cnp a; stat -c %%A a" % command), as_user(lambda: os.close(os.open("a", os.O_RDONLY)))))
    for mode in (0o600, 0o660, 0o755):
        os.chmod("a", mode)
        out.append(sh("getfacl -cnp a"))
    # setfacl and chmod by an owner who is, and who is not, of the group of a set-gid file or directory
    for group in (0, 7):
        for kind in ("f", "d"):
            for command in ("setfacl -m u:1:r", "chmod 2711", "setfacl -b"):
                p = "g%d%s%s" % (group, kind, command.split()[1])
                if kind == "f":
                    write(p, b"")
                else:
                    os.mkdir(p)
                os.chown(p, NOBODY, group)
                os.chmod(p, 0o2755)
                said = as_user(lambda: subprocess.run(command.split() + [p]).returncode, 7)
                out.append((p, said, oct(os.stat(p).st_mode)))
    out.append(as_user(lambda: subprocess.run(["setfacl", "-m", "u:1:r", "a"], stderr=subprocess.DEVNULL).returncode))


def attributes(out):
    def name(n):
        try:
            return n()
        except OSError as e:
            return errno.errorcode[e.errno]
    write("x", b"")
    os.symlink("x", "l")
    for n in ("user.a", "trusted.a", "security.a", "system.a", "other.a", "user."):
        for p in ("x", "l"):
            out.append((n, p, name(lambda: os.setxattr(p, n, b"1", follow_symlinks=False)), name(lambda: os.getxattr(p, n, follow_symlinks=False)),
                        name(lambda: os.removexattr(p, n + "none", follow_symlinks=False))))
    out.append(name(lambda: os.setxattr("x", "user.a", b"2", os.XATTR_CREATE)))
    out.append(name(lambda: os.setxattr("x", "user.b", b"2", os.XATTR_REPLACE)))
    os.setxattr("x", "user.empty", b"")
    os.setxattr("x", "user.long", bytes(range(256)) * 12)
    out.append((os.getxattr("x", "user.empty"), os.getxattr("x", "user.long"), sorted(os.listxattr("x"))))
    out.append(as_user(lambda: os.setxattr("x", "user.c", b"1")))
    os.chmod("x", 0o666)
    out.append(as_user(lambda: [os.setxattr("x", "user.c", b"1"), os.listxattr("x").count("trusted.a")]))


for part in (privileges, made, acls, attributes):
    seen = []
    for base in (plain, m):
        os.mkdir(os.path.join(base, part.__name__))
        os.chmod(os.path.join(base, part.__name__), 0o777)
        os.chdir(os.path.join(base, part.__name__))
        seen.append([])
        part(seen[-1])
        os.chdir("/")
    assert len(seen[0]) == len(seen[1]) > 5
    for a, b in zip(*seen):
        assert a == b, "%s: below %r, on the mount %r" % (part.__name__, a, b)

# What was set survives a remount.
p = os.path.join(m, "acls", "a")
acl = sh("setfacl -m u:3:rw %s; getfacl -cnp %s" % (p, p))
late = os.path.join(m, "privileges", "late")
m = w.remount()
assert sh("getfacl -cnp %s" % p) == acl and os.getxattr(late, "security.capability") == CAP and os.stat(late).st_mode & 0o7777 == 0o4755
w.umount()

# Of set-id bits and devices a mount by root takes what its options say, each by itself.
for opt, without in (("rw", 0), ("nosuid", os.ST_NOSUID), ("nodev", os.ST_NODEV), ("noexec,nodev", os.ST_NOEXEC | os.ST_NODEV), ("nosuid,suid", 0)):
    m = w.mount("vault", "mnt", "-o", opt)
    assert os.statvfs(m).f_flag & (os.ST_NOSUID | os.ST_NODEV | os.ST_NOEXEC) == without, (opt, os.statvfs(m))
    w.umount()
print("ok")
