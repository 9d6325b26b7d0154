"""Space and identity: st_blocks and punched holes against the file below, statfs against what is written, nameless files, birth times,
inode numbers used again below."""
import ctypes, errno, os, subprocess, time
from lib import *

libc = ctypes.CDLL(None, use_errno=True)
KEEP, PUNCH, ZERO = 1, 2, 16
MIB = 1 << 20
w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
root = w.path("vault", "root")


def fallocate(fd, mode, off, n):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def link_fd(fd, path):
    if libc.linkat(-100, b"/proc/self/fd/%d" % fd, -100, os.fsencode(path), 0x400):  # AT_SYMLINK_FOLLOW
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def below(path):
    """Bytes that the lower file takes: the mount shows its inode number."""
    ino = os.stat(path).st_ino
    return next(e.stat(follow_symlinks=False).st_blocks * 512 for e in os.scandir(root) if e.inode() == ino)


def near(got, want, what):
    assert abs(got - want) <= 80 * 1024 + want // 200, "%s: %d bytes, expected about %d" % (what, got, want)


# ---- st_blocks says what is stored, also before it is: while open, after close, after a remount
REFILLED = 5 * 16384  # chunks
sizes = {"empty": 0, "one": 1, "small": 5000, "chunk": 16384, "odd": 1000001, "large": 8 * MIB}
for name, n in sizes.items():
    p = os.path.join(m, name)
    with open(p, "wb", buffering=0) as f:
        f.write(os.urandom(n))
        near(os.fstat(f.fileno()).st_blocks * 512, n, name + ", open")
        assert n == 0 or os.fstat(f.fileno()).st_blocks * 512 >= n, name
    near(os.stat(p).st_blocks * 512, n, name + ", closed")
    near(below(p), n, name + ", below")
m = w.remount()
for name, n in sizes.items():
    near(os.stat(os.path.join(m, name)).st_blocks * 512, n, name + ", after a remount")

# ---- what is punched, zeroed or cut off is given back below, and what is around it is still there
for how, mode in (("punch", PUNCH | KEEP), ("zero", ZERO | KEEP), ("ftruncate", None)):
    for state in ("new", "committed"):
        p = os.path.join(m, how + state)
        body = bytearray(os.urandom(12 * MIB))
        write(p, b"") if state == "new" else write(p, body)
        with open(p, "r+b", buffering=0) as f:
            if state == "new":
                f.write(body)
            near(os.fstat(f.fileno()).st_blocks * 512, 12 * MIB, how)
            if how == "ftruncate":
                f.truncate(3 * MIB + 5)
                f.truncate(12 * MIB)
                body[3 * MIB + 5:] = bytes(9 * MIB - 5)
            else:
                fallocate(f.fileno(), mode, 2 * MIB + 100, 9 * MIB)
                body[2 * MIB + 100:11 * MIB + 100] = bytes(9 * MIB)
            near(os.fstat(f.fileno()).st_blocks * 512, 3 * MIB, how + " " + state + ", at once")
            os.pwrite(f.fileno(), b"again" * 1000, 5 * MIB)  # part of it is filled anew before it was given back
            body[5 * MIB:5 * MIB + 5000] = b"again" * 1000
            os.fsync(f.fileno())
            os.pwrite(f.fileno(), b"after" * 10000, 7 * MIB)  # and part after
            body[7 * MIB:7 * MIB + 50000] = b"after" * 10000
        wait_for(lambda: below(p) < 4 * MIB)
        near(os.stat(p).st_blocks * 512, 3 * MIB + REFILLED, how + " " + state + ", closed")
        assert read(p) == body, (how, state)
m = w.remount()
for how in ("punch", "zero", "ftruncate"):
    for state in ("new", "committed"):
        p = os.path.join(m, how + state)
        near(below(p), 3 * MIB + REFILLED, how + " " + state + ", after a remount")
        assert read(p)[5 * MIB:5 * MIB + 5000] == b"again" * 1000 and read(p)[7 * MIB:7 * MIB + 50000] == b"after" * 10000

# ---- space set aside with the size kept is there below, and shows
with open(os.path.join(m, "reserved"), "w+b", buffering=0) as f:
    fallocate(f.fileno(), KEEP, 0, 4 * MIB)
    st = os.fstat(f.fileno())
    assert st.st_size == 0 and st.st_blocks * 512 >= 4 * MIB, (st.st_size, st.st_blocks)

# ---- statfs follows what is written and removed
os.sync()
before = os.statvfs(m)
write(os.path.join(m, "much"), os.urandom(64 * MIB))
with open(os.path.join(m, "much"), "rb") as f:
    os.fsync(f.fileno())


def as_below():
    """Others fill the filesystem below, too, and perhaps in between."""
    mine, theirs = os.statvfs(m), os.statvfs(w.path("vault"))
    assert mine.f_blocks == theirs.f_blocks and mine.f_bavail <= mine.f_bfree
    return abs(mine.f_bfree - theirs.f_bfree) * mine.f_frsize < 16 * MIB


wait_for(as_below)
os.unlink(os.path.join(m, "much"))

# ---- nameless files
try:
    fd = os.open(m, os.O_TMPFILE | os.O_RDWR, 0o640)
except OSError as e:
    assert e.errno == errno.EOPNOTSUPP, e
    fd = -1
    left_out("O_TMPFILE", "this libfuse has no call for it")
if fd >= 0:
    body = os.urandom(300000)
    names = sorted(os.listdir(m))
    os.write(fd, body)
    assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 300000, 0) == body and sorted(os.listdir(m)) == names
    link_fd(fd, os.path.join(m, "named"))
    assert os.fstat(fd).st_nlink == 1 and read(os.path.join(m, "named")) == body
    os.write(fd, b"more")
    os.close(fd)
    gone = os.open(m, os.O_TMPFILE | os.O_RDWR, 0o600)
    os.write(gone, b"never named")
    os.close(gone)
    only = os.open(m, os.O_TMPFILE | os.O_RDWR | os.O_EXCL, 0o600)
    raises(errno.ENOENT, link_fd, only, os.path.join(m, "refused"))
    os.close(only)
    m = w.remount()
    assert read(os.path.join(m, "named")) == body + b"more" and sorted(os.listdir(m)) == sorted(names + ["named"])

# ---- birth time: that of the lower file, and it stays
def birth(path):
    said = subprocess.run(["stat", "-c", "%W %w", path], stdout=subprocess.PIPE, text=True, check=True).stdout
    return said.split(" ", 1)


p = os.path.join(m, "born")
if birth(root)[0] == "0":
    left_out("birth time", "the filesystem below has none")
else:
    before = int(time.time())
    write(p, b"1")
    first = birth(p)
    if first[0] == "0":
        left_out("birth time", "this libfuse has no call for it")
    else:
        assert before - 1 <= int(first[0]) <= time.time() + 1, first
        os.utime(p, (1, 1))
        with open(p, "ab") as f:
            f.write(b"2" * 100000)
        os.rename(p, p + "2")
        p += "2"
        assert birth(p) == first
        m = w.remount()
        assert birth(p) == first

# ---- an inode number used again below is another file: nothing of the old one shows through a descriptor or a cached page
d = os.path.join(m, "again")
os.mkdir(d)
seen = {}
for i in range(300):
    p = os.path.join(d, "f%d" % (i % 3))
    body = b"%d" % i * 1000
    write(p, body)
    ino = os.stat(p).st_ino
    seen[ino] = seen.get(ino, 0) + 1
    assert read(p) == body, i
    with open(p, "rb") as f:
        os.unlink(p)
        write(p, b"new")
        assert os.stat(p).st_ino != os.fstat(f.fileno()).st_ino and f.read() == body, i
    assert read(p) == b"new"
    os.unlink(p)
print("%d files in %d inode numbers" % (300, len(seen)))
w.umount()
print("ok")
