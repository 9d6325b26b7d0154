"""Ordinary files on a mount, and again after a remount."""
import ctypes, errno, hashlib, mmap, os, random, stat, subprocess
from lib import *

w = World()
w.init()
m = w.mount()
r = random.Random(5)
want = {}
for i in range(60):
    d = os.path.join(m, *["dir%d" % r.randrange(3) for _ in range(r.randrange(3))])
    os.makedirs(d, exist_ok=True)
    p = os.path.join(d, "f%d" % i)
    want[p] = r.randbytes(r.choice([0, 1, 100, 4095, 4096, 16384, 16385, 50000, 700000, 3000000]))
    write(p, want[p])
for p in r.sample(sorted(want), 20):  # overwrite, append, truncate
    b = bytearray(want[p])
    with open(p, "r+b") as f:
        for _ in range(4):
            at, n = r.randrange(len(b) + 5000), r.randrange(30000)
            x = r.randbytes(n)
            if at + n > len(b):
                b.extend(b"\0" * (at + n - len(b)))
            b[at:at + n] = x
            f.seek(at)
            f.write(x)
        if r.random() < 0.5:
            n = r.randrange(len(b) + 1)
            f.truncate(n)
            b = b[:n]
        f.flush()
        os.fsync(f.fileno())
    want[p] = bytes(b)
long = os.path.join(m, "n" * 255)
want[long] = b"long name"
write(long, want[long])
os.symlink("t" * 2000, os.path.join(m, "link"))
os.link(long, os.path.join(m, "hard"))
os.setxattr(long, "user.note", b"value")
os.utime(long, ns=(1111111111123456789, 1222222222987654321))
os.mkfifo(os.path.join(m, "fifo"))
os.mkdir(os.path.join(m, "empty"))
os.mkdir(os.path.join(m, "other"))
os.rename(os.path.join(m, "other"), os.path.join(m, "empty"))  # over an empty directory
raises(errno.ENOTEMPTY, os.rmdir, os.path.join(m, "dir0")) if os.listdir(os.path.join(m, "dir0")) else None
raises(errno.ENAMETOOLONG, write, os.path.join(m, "n" * 256), b"")
raises(errno.ENOENT, os.stat, os.path.join(m, "none"))
raises(errno.EEXIST, os.mkdir, os.path.join(m, "empty"))
with open(os.path.join(m, "map"), "w+b") as f:
    f.truncate(100000)
    with mmap.mmap(f.fileno(), 100000) as mm:
        mm[5000:5005] = b"hello"
        mm.flush()
want[os.path.join(m, "map")] = b"\0" * 5000 + b"hello" + b"\0" * 94995
# A default ACL decides the modes of what is made under it, the umask elsewhere: as below.
plain = os.path.join(w.dir, "plain-acl")
modes = {}
was = os.umask(0o077)
for base in (plain, os.path.join(m, "acl")):
    os.mkdir(base, 0o755)
    write(os.path.join(base, "before"), b"")
    acl = subprocess.run(["setfacl", "-d", "-m", "u::rwx,g::rwx,o::r,u:1:rw", base], capture_output=True)
    if base == plain and acl.returncode:
        left_out("modes under a default ACL", "none below: " + acl.stderr.decode())
        break
    assert acl.returncode == 0, acl.stderr
    write(os.path.join(base, "after"), b"")
    os.mkdir(os.path.join(base, "sub"), 0o777)
    write(os.path.join(base, "sub", "deep"), b"")
    os.mkfifo(os.path.join(base, "fifo"))
    modes[base] = [stat.S_IMODE(os.stat(os.path.join(base, n)).st_mode) for n in ("before", "after", "sub", "sub/deep", "fifo")]
os.umask(was)
assert len({tuple(x) for x in modes.values()}) <= 1, modes
sizes = {p: os.stat(p).st_size for p in want}
for again in range(2):
    for p, b in want.items():
        assert read(p) == b, p
        assert os.stat(p).st_size == len(b), p
    assert os.readlink(os.path.join(m, "link")) == "t" * 2000
    assert os.stat(os.path.join(m, "hard")).st_nlink == 2
    assert os.getxattr(long, "user.note") == b"value" and os.listxattr(long) == ["user.note"]
    assert os.stat(long).st_mtime_ns == 1222222222987654321
    assert stat.S_ISFIFO(os.stat(os.path.join(m, "fifo")).st_mode)
    assert sorted(os.listdir(os.path.join(m, "empty"))) == []
    if not again:
        m = w.remount()
big = [os.path.join(m, "many")]
os.mkdir(big[0])
for i in range(3000):
    open(os.path.join(big[0], "entry-%05d" % i), "w").close()
assert len(set(os.listdir(big[0]))) == 3000
for i in range(0, 3000, 2):
    os.unlink(os.path.join(big[0], "entry-%05d" % i))
assert len(os.listdir(big[0])) == 1500
a, b = os.statvfs(m), os.statvfs(w.dir)
assert abs(a.f_blocks - b.f_blocks) < 10 and a.f_namemax == 255
subprocess.run(["rm", "-rf", *[os.path.join(m, x) for x in os.listdir(m)]], check=True)
assert os.listdir(m) == []
left = [x for x in os.listdir(w.path("vault/root")) if x != "lg.dirid"]
assert left == [], left
w.umount()
# Unmounting waits until the daemon has ended, not until somebody has asked how: what starts a container may never do.
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: and nor does this test
m = w.mount()
pid = w.pid_of()
w.umount()
assert read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[0] == b"Z"
print("ok", len(want), "files")
