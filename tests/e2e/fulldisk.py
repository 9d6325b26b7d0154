"""A full disk, a used up quota: the error reaches the application, nothing durable is harmed, deleting works, and freeing space lets work go on.
What statfs says on the mount is what it says of the filesystem below, to the block and the inode: nobody else writes there."""
import ctypes, errno, os, struct, subprocess, sys
from lib import *

SPACE = ("f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax")  # not f_flag and f_fsid: those are the mount's own


def exact(m, below, moved=None):
    """Returns what statfs says on both. What it said earlier, in moved: blocks and inodes are others now."""
    got = []

    def quiet():
        got[:] = [tuple(getattr(st, f) for f in SPACE) for st in map(os.statvfs, (below, m, below, m, below))]
        return len(set(got[::2])) == len(set(got[1::2])) == 1  # else something was still on its way down
    wait_for(quiet)
    assert got[0] == got[1], list(zip(SPACE, got[0], got[1]))
    assert not moved or (got[1][3] != moved[3] and got[1][6] != moved[6]), (moved, got[1])
    return got[1]


w = World()
os.mkdir(w.path("small"))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", w.path("small")], check=True)
try:
    w.cli("init", w.path("small/vault"))
    m = w.mount("small/vault")
    space = exact(m, w.path("small"))
    keep = os.path.join(m, "keep")
    write(keep, b"k" * 1000000)
    with open(keep, "r+b") as f:
        os.fsync(f.fileno())
    space = exact(m, w.path("small"), space)
    n = 0

    def fill():
        global n
        while True:
            n += 1
            write(os.path.join(m, "fill%d" % n), b"f" * 300000)

    raises(errno.ENOSPC, fill)

    def fill_small():
        global n
        while True:
            n += 1
            write(os.path.join(m, "fill%d" % n), b"f" * 5000)

    raises(errno.ENOSPC, fill_small)

    def overwrite(size):
        with open(keep, "r+b", buffering=0) as f:
            f.seek(500000)
            f.write(b"n" * size)
            os.fsync(f.fileno())

    overwrite(100000)  # within what it has: the journal has its space already

    def append():
        with open(keep, "ab", buffering=0) as f:
            f.write(b"a" * 900000)
            os.fsync(f.fileno())

    raises(errno.ENOSPC, append)
    assert read(keep)[:1000000] == b"k" * 500000 + b"n" * 100000 + b"k" * 400000
    space = exact(m, w.path("small"), space)
    for i in range(n, 0, -1):
        p = os.path.join(m, "fill%d" % i)
        if os.path.exists(p):
            os.unlink(p)
    exact(m, w.path("small"), space)
    write(os.path.join(m, "again"), b"z" * 2000000)
    m = w.remount("small/vault")
    assert read(keep)[:1000000] == b"k" * 500000 + b"n" * 100000 + b"k" * 400000
    assert read(os.path.join(m, "again")) == b"z" * 2000000
    w.umount()
finally:
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("small")])
print(n, "files until tmpfs was full")

# A small ext4 with quotas: the application is another user. Blocks are given out late there, so that an error may come with write, fsync or close.
USER, IMAGE, LIMIT_KIB = 12345, 64, 8192


def set_quota(device, kib):
    """setquota -u USER 0 KIB: quotactl(2), struct if_dqblk"""
    libc = ctypes.CDLL(None, use_errno=True)
    q = struct.pack("=8QI4x", kib, 0, 0, 0, 0, 0, 0, 0, 1)
    if libc.quotactl(0x800008 << 8, device.encode(), USER, q):
        raise OSError(ctypes.get_errno(), "quotactl")


def as_user(f):
    """f in another process, by USER; the errno that it failed with, or 0"""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    try:
        os.setgroups([]), os.setgid(USER), os.setuid(USER)
        f()
        os._exit(0)
    except OSError as e:
        os._exit(e.errno)
    except BaseException as e:
        print(repr(e), flush=True)
        os._exit(255)


def sync_write(path, data, mode="wb", at=None):
    with open(path, mode, buffering=0) as f:
        if at is not None:
            f.seek(at)
        for i in range(0, len(data), 100000):
            f.write(data[i:i + 100000])
        os.fsync(f.fileno())


os.chmod(w.dir, 0o711)
image, small = w.path("image"), w.path("ext4")
os.mkdir(small)
with open(image, "wb") as f:
    f.truncate(IMAGE << 20)


def ext4(features, options):
    """Why it cannot be had here, or None"""
    for c in (["/sbin/mkfs.ext4", "-q", "-F", *features, image], ["mount", "-o", "loop" + options, image, small]):
        try:
            r = subprocess.run(c, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        except FileNotFoundError as e:
            return str(e)
        if r.returncode:
            return r.stderr.strip()


# A quota as the application sees it where the kernel keeps none for ext4: btrfs limits a subvolume, here the one that holds the vault. There even
# overwriting takes new space, so that it may be refused as well; it must then have changed nothing.
def on_btrfs():
    top, room = w.path("btrfs"), 12 << 20
    os.mkdir(top)
    with open(w.path("btrfs.image"), "wb") as f:
        f.truncate(320 << 20)
    try:
        for c in (["mkfs.btrfs", "-q", w.path("btrfs.image")], ["mount", "-o", "loop", w.path("btrfs.image"), top], ["btrfs", "quota", "enable", top],
                  ["btrfs", "subvolume", "create", top + "/sub"]):
            try:
                r = subprocess.run(c, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            except FileNotFoundError as e:
                return left_out("quota on btrfs", e)
            if r.returncode:
                return left_out("quota on btrfs", r.stdout.strip())
        w.cli("init", top + "/sub/vault")
        m = w.mount("btrfs/sub/vault")
        at = lambda *n: os.path.join(m, *n)
        keep = os.urandom(1000000)
        sync_write(at("keep"), keep)
        os.sync()
        used = sum(os.lstat(os.path.join(d, f)).st_blocks * 512 for d, ds, fs in os.walk(top + "/sub") for f in ds + fs)
        subprocess.run(["btrfs", "qgroup", "limit", str(used + room), top + "/sub"], check=True)
        done = 0
        for size in (600000, 4000):
            try:
                while True:
                    sync_write(at("f%d" % done), b"f" * size)
                    done += 1
            except OSError as e:
                assert e.errno == errno.EDQUOT, e
        assert done > room // 600000 - 8, done
        raises(errno.EDQUOT, sync_write, at("more"), b"m" * 3000000)
        raises(errno.EDQUOT, sync_write, at("keep"), b"a" * 3000000, "ab")
        try:
            sync_write(at("keep"), b"n" * 100000, "r+b", 500000)
            new = True
        except OSError as e:
            assert e.errno == errno.EDQUOT, e
            new = False
        kept = keep[:500000] + (b"n" * 100000 if new else keep[500000:600000]) + keep[600000:]
        assert read(at("f0")) == b"f" * 600000
        for f in sorted(os.listdir(m)):
            if f not in ("keep", "f0"):
                os.unlink(at(f))
        os.sync()

        def again():
            try:
                sync_write(at("again"), b"z" * 3000000)
                return True
            except OSError as e:
                assert e.errno == errno.EDQUOT, e

        wait_for(again, 60)  # btrfs gives back in its own time
        m = w.remount("btrfs/sub/vault")
        assert read(at("again")) == b"z" * 3000000 and read(at("f0")) == b"f" * 600000
        got = read(at("keep"))
        assert got[:len(kept)] == kept and not got[len(kept):].strip(b"a"), (new, len(got))
        w.umount()
        print("quota on btrfs: ok,", done, "files until it was used up")
    finally:
        subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", top], stderr=subprocess.DEVNULL)


on_btrfs()
no_quota = ext4(["-O", "quota", "-E", "quotatype=usrquota"], ",usrquota")
if no_quota:
    left_out("a user's quota on ext4", "no ext4 on a loop device with usrquota here: %s" % no_quota)
    no_ext4 = ext4([], "")
    if no_ext4:
        left_out("a full ext4", "none on a loop device here: %s" % no_ext4)
        sys.exit(0)
try:
    w.cli("init", w.path("ext4/vault"))
    m = w.mount("ext4/vault")
    space = exact(m, small)
    home = os.path.join(m, "home")
    os.mkdir(home)
    os.chown(home, USER, USER)
    at = lambda *n: os.path.join(home, *n)
    keep = os.urandom(1000000)
    assert as_user(lambda: sync_write(at("keep"), keep)) == 0

    def fill(size, error, root=False):
        """Files until one cannot be written; how many could"""
        done = 0
        while True:
            name = "%d.%d%s" % (size, done, "r" if root else "")
            write_it = lambda: sync_write(os.path.join(m, name) if root else at(name), b"f" * size)
            if root:
                try:
                    write_it()
                    rc = 0
                except OSError as e:
                    rc = e.errno
            else:
                rc = as_user(write_it)
            if rc:
                assert rc == error, (errno.errorcode.get(rc, rc), name)
                return done
            done += 1

    # What lets root's processes, and so this one, past a quota has been given up.
    status = dict(l.split(":", 1) for l in read("/proc/%d/status" % w.pid_of()).decode().splitlines())
    assert not int(status["CapEff"], 16) >> 24 & 1, "CAP_SYS_RESOURCE"

    def quota():
        set_quota(next(l.split()[0] for l in open("/proc/mounts") if l.split()[1] == small), LIMIT_KIB)
        over = fill(600000, errno.EDQUOT) + fill(4000, errno.EDQUOT)
        assert 5 <= over, over
        used = sum(os.stat(os.path.join(d, f)).st_blocks for d, _, fs in os.walk(home) for f in fs) // 2
        assert LIMIT_KIB - 700 <= used <= LIMIT_KIB, used
        assert as_user(lambda: sync_write(at("keep"), b"a" * 900000, "ab")) == errno.EDQUOT
        assert as_user(lambda: os.truncate(at("keep"), len(keep))) == 0, "cutting what could not be written"
        assert as_user(lambda: sync_write(at("keep"), b"n" * 100000, "r+b", 500000)) == 0, "within what it has"
        kept = keep[:500000] + b"n" * 100000 + keep[600000:]
        sync_write(os.path.join(m, "root's"), b"r" * 3000000)  # somebody else's files are not in the way
        os.unlink(os.path.join(m, "root's"))
        assert read(at("keep")) == kept
        for f in os.listdir(home):
            if f != "keep":
                assert as_user(lambda: os.unlink(at(f))) == 0
        assert as_user(lambda: sync_write(at("again"), b"z" * 3000000)) == 0
        w.remount("ext4/vault")
        assert read(at("keep")) == kept and read(at("again")) == b"z" * 3000000
        print("quota: ok,", over, "files until it was used up")
        return kept

    space = exact(m, small, space)
    if not no_quota:
        keep = quota()
    sync_write(at("again"), b"z" * 3000000)
    sync_write(os.path.join(m, "root's"), b"r" * 3000000)
    n = fill(3000000, errno.ENOSPC, True) + fill(50000, errno.ENOSPC, True) + fill(4000, errno.ENOSPC, True)
    space = exact(m, small, space)
    st = os.statvfs(m)
    assert st.f_bavail * st.f_frsize < 1 << 20, st
    with open(os.path.join(home, "keep"), "r+b", buffering=0) as f:
        f.seek(200000)
        f.write(b"m" * 50000)
        os.fsync(f.fileno())
    keep = keep[:200000] + b"m" * 50000 + keep[250000:]
    raises(errno.ENOSPC, sync_write, os.path.join(m, "more"), b"x" * 2000000)
    assert read(at("keep")) == keep and read(at("again")) == b"z" * 3000000
    m = w.remount("ext4/vault")
    assert read(at("keep")) == keep and read(at("again")) == b"z" * 3000000 and read(os.path.join(m, "root's")) == b"r" * 3000000
    for f in os.listdir(m):
        if f not in ("home", "root's"):
            os.unlink(os.path.join(m, f))
    exact(m, small, space)
    sync_write(os.path.join(m, "after"), b"w" * 8000000)
    m = w.remount("ext4/vault")
    assert read(os.path.join(m, "after")) == b"w" * 8000000 and read(at("keep")) == keep
    w.umount()
finally:
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", small])
print("ok", n, "files until ext4 was full")
