"""What POSIX and Linux promise beyond reading and writing; where it can be, compared with the filesystem below."""
import ctypes, errno, fcntl, mmap, os, random, stat, struct, subprocess, sys, time
from lib import *

libc = ctypes.CDLL(None, use_errno=True)
NOREPLACE, EXCHANGE = 1, 2
KEEP, PUNCH, ZERO = 1, 2, 16


def renameat2(a, b, flags):
    if libc.renameat2(-100, os.fsencode(a), -100, os.fsencode(b), flags):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e), a)


def fallocate(fd, mode, off, n):
    if libc.fallocate(fd, mode, ctypes.c_long(off), ctypes.c_long(n)):
        e = ctypes.get_errno()
        raise OSError(e, os.strerror(e))


def as_nobody(f):
    """Exit status 0 of a child without privileges in which f returned true."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            code = 0 if f() else 1
        except BaseException as e:
            print("as nobody:", repr(e), flush=True)
        os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
os.chmod(w.dir, 0o755)
w.init()
m = w.mount()
lower = w.path("plain")
os.mkdir(lower)
r = random.Random(11)

# ---- symbolic links of every length
lengths = [1, 100, 1000, 3037, 3038, 3039, 3040, 3041, 4000, 4094, 4095]
target = {n: "".join(r.choice("abcdefgh/._") for _ in range(n)) for n in lengths}
for n in lengths:
    os.symlink(target[n], os.path.join(m, "s%d" % n))
os.mkdir(os.path.join(m, "elsewhere"))
os.rename(os.path.join(m, "s4095"), os.path.join(m, "elsewhere", "s"))
os.link(os.path.join(m, "s4094"), os.path.join(m, "elsewhere", "hard"), follow_symlinks=False)
raises(errno.EEXIST, os.symlink, "x" * 4095, os.path.join(m, "s1"))
m = w.remount()
for n in lengths:
    p = os.path.join(m, "s%d" % n) if n != 4095 else os.path.join(m, "elsewhere", "s")
    assert os.readlink(p) == target[n], n
    assert os.lstat(p).st_size == n, (n, os.lstat(p).st_size)
    assert os.listxattr(p, follow_symlinks=False) == [], n
assert os.readlink(os.path.join(m, "elsewhere", "hard")) == target[4094]
assert os.lstat(os.path.join(m, "elsewhere", "hard")).st_nlink == 2
subprocess.run(["rm", "-rf", *[os.path.join(m, x) for x in os.listdir(m)]], check=True)
assert [x for x in os.listdir(w.path("vault/root")) if x != "lg.dirid"] == []

# ---- names
for n in ["a" * 255, "ä" * 127, "\x01\x7f\\*?\"'", " ", "lg.dirid", "lg.tmp.x", "...", "日" * 85]:
    write(os.path.join(m, n), n.encode())
assert len(os.listdir(m)) == 8
for n in os.listdir(m):
    assert read(os.path.join(m, n)) == n.encode()
    os.unlink(os.path.join(m, n))
raises(errno.ENAMETOOLONG, os.mkdir, os.path.join(m, "日" * 86))

# ---- rename
for base in (lower, m):
    a, b, d, e = (os.path.join(base, x) for x in ("a", "b", "d", "e"))
    write(a, b"a")
    write(b, b"b")
    raises(errno.EEXIST, renameat2, a, b, NOREPLACE)
    renameat2(a, b, EXCHANGE)
    assert (read(a), read(b)) == (b"b", b"a")
    os.makedirs(os.path.join(d, "sub"))
    os.mkdir(e)
    write(os.path.join(e, "x"), b"x")
    renameat2(d, e, EXCHANGE)
    assert os.listdir(d) == ["x"] and os.listdir(e) == ["sub"]
    renameat2(d, a, EXCHANGE)
    assert os.listdir(a) == ["x"] and read(d) == b"b"
    raises(errno.ENOENT, renameat2, a, os.path.join(base, "none"), EXCHANGE)
    raises(errno.EINVAL, os.rename, e, os.path.join(e, "sub", "in"))
    raises(errno.ENOTEMPTY, os.rename, e, a)
    raises(errno.EISDIR, os.rename, d, a)
    raises(errno.ENOTDIR, os.rename, a, d)
    renameat2(d, os.path.join(base, "fresh"), NOREPLACE)
    assert sorted(os.listdir(base)) == ["a", "b", "e", "fresh"]

# ---- a name taken away or replaced while it is open
with open(os.path.join(m, "gone"), "w+b", buffering=0) as f:
    f.write(b"still" * 5000)
    os.unlink(f.name)
    assert os.fstat(f.fileno()).st_nlink == 0
    f.seek(25000)
    f.write(b"here")
    os.fsync(f.fileno())
    f.seek(0)
    assert f.read(30000) == b"still" * 5000 + b"here"
with open(os.path.join(m, "old"), "w+b", buffering=0) as f:
    f.write(b"old")
    write(os.path.join(m, "new"), b"new")
    os.rename(os.path.join(m, "new"), os.path.join(m, "old"))
    f.seek(0)
    assert f.read() == b"old" and read(os.path.join(m, "old")) == b"new"

# ---- holes, through every way of making them
size = 3 << 20
for step in range(3):
    model = bytearray(random.Random(step).randbytes(size))
    path = os.path.join(m, "holes%d" % step)
    x = open(path, "w+b", buffering=0)
    x.write(model)
    f = x.fileno()
    for i in range(60):
        mode = r.choice([PUNCH | KEEP, ZERO, ZERO | KEEP, 0, KEEP])
        off, n = r.randrange(size), r.choice([1, 4096, 16384, 100000, 700000])
        fallocate(f, mode, off, n)
        if not mode & KEEP:
            model.extend(b"\0" * (off + n - len(model)))
        if mode & (PUNCH | ZERO):
            end = min(off + n, len(model))
            model[off:end] = b"\0" * (end - off)
        if r.random() < 0.1:
            x.truncate(off)
            model.extend(b"\0" * (off - len(model)))
            del model[off:]
        if r.random() < 0.3:
            at, bit = r.randrange(size), r.randbytes(r.choice([3, 16384, 50000]))
            os.pwrite(f, bit, at)
            model.extend(b"\0" * (at + len(bit) - len(model)))
            model[at:at + len(bit)] = bit
        if r.random() < 0.2:
            os.fsync(f)
        assert os.fstat(f).st_size == len(model), (step, i)
        if i % 10 == 0:
            assert read(path) == model, (step, i)
    assert read(path) == model, step
    body, at, holes = bytes(model), 0, 0
    while at < len(body):  # between a hole and the next data stand only zeros, and the two follow each other
        hole = os.lseek(f, at, os.SEEK_HOLE)
        assert at <= hole <= len(body)
        try:
            at = os.lseek(f, hole, os.SEEK_DATA) if hole < len(body) else len(body)
        except OSError as e:
            assert e.errno == errno.ENXIO
            at = len(body)
        assert not any(body[hole:at]), (hole, at)
        holes += at > hole
    assert holes
    raises(errno.ENXIO, os.lseek, f, len(body), os.SEEK_DATA)
    raises(errno.ENXIO, os.lseek, f, len(body) + 1, os.SEEK_HOLE)
    raises(errno.EOPNOTSUPP, fallocate, f, 8, 0, 4096)  # collapse: refused, not half done
    x.close()
with open(os.path.join(m, "sparse"), "w+b", buffering=0) as f:
    f.truncate(1 << 40)
    f.seek(1 << 39)
    f.write(b"in the middle")
    os.fsync(f.fileno())
    assert os.fstat(f.fileno()).st_blocks * 512 < 256 << 20, os.fstat(f.fileno()).st_blocks
    assert os.lseek(f.fileno(), 0, os.SEEK_DATA) <= 1 << 39
    raises(errno.EFBIG, f.truncate, (1 << 44) + 1)
os.unlink(os.path.join(m, "sparse"))
write(os.path.join(m, "full"), r.randbytes(1 << 20))
assert (1 << 20) <= os.stat(os.path.join(m, "full")).st_blocks * 512 <= (1 << 20) + 65536

# ---- copy_file_range, O_DIRECT, O_APPEND, shared mappings
body = r.randbytes(700001)
write(os.path.join(m, "from"), body)
with open(os.path.join(m, "from"), "rb") as a, open(os.path.join(m, "to"), "w+b") as b:
    done = 0
    while done < len(body):
        n = os.copy_file_range(a.fileno(), b.fileno(), len(body) - done)
        assert n > 0
        done += n
assert read(os.path.join(m, "to")) == body
fd = os.open(os.path.join(m, "direct"), os.O_RDWR | os.O_CREAT | os.O_DIRECT, 0o644)
assert fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_DIRECT
page = mmap.mmap(-1, 65536)
page[:] = body[:65536]
assert os.pwrite(fd, page, 0) == 65536 and os.pwrite(fd, page, 65536) == 65536
page[:] = b"\0" * 65536
assert os.preadv(fd, [page], 65536) == 65536 and page[:] == body[:65536]
with open(os.path.join(m, "direct"), "r+b", buffering=0) as f:  # and cached readers see it
    assert f.read(131072) == body[:65536] * 2
    f.seek(100)
    f.write(b"cached")
    assert os.preadv(fd, [page], 0) == 65536 and page[100:106] == b"cached"
os.close(fd)
children = []
for who in range(4):
    pid = os.fork()
    if pid == 0:
        fd = os.open(os.path.join(m, "log"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        for i in range(300):
            os.write(fd, b"%d:%04d:%s\n" % (who, i, b"x" * (i % 90)))
        os._exit(0)
    children.append(pid)
assert all(os.waitpid(p, 0)[1] == 0 for p in children)
lines = read(os.path.join(m, "log")).split(b"\n")[:-1]
assert sorted(lines) == sorted(b"%d:%04d:%s" % (k, i, b"x" * (i % 90)) for k in range(4) for i in range(300))
with open(os.path.join(m, "shared"), "w+b") as f:
    f.truncate(1 << 20)
    mine = mmap.mmap(f.fileno(), 1 << 20)
    pid = os.fork()
    if pid == 0:
        with open(os.path.join(m, "shared"), "r+b") as g:
            theirs = mmap.mmap(g.fileno(), 1 << 20)
            theirs[500000:500005] = b"child"
            theirs.flush()
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    assert mine[500000:500005] == b"child"
    mine[0:6] = b"parent"
    mine.close()  # no msync: what closes the file and what unmounts must see to it
shared = b"parent" + bytes(500000 - 6) + b"child" + bytes((1 << 20) - 500005)
assert read(os.path.join(m, "shared")) == shared
m = w.remount()
assert read(os.path.join(m, "shared")) == shared

# ---- locks between processes
with open(os.path.join(m, "locked"), "w+b") as f:
    f.write(b"0" * 100)
    f.flush()
    fcntl.lockf(f, fcntl.LOCK_EX, 10, 5)
    fcntl.flock(f, fcntl.LOCK_EX)

    def other():
        with open(os.path.join(m, "locked"), "r+b") as g:
            raises(errno.EAGAIN, fcntl.lockf, g, fcntl.LOCK_EX | fcntl.LOCK_NB, 3, 7)
            fcntl.lockf(g, fcntl.LOCK_EX | fcntl.LOCK_NB, 3, 50)
            raises(errno.EAGAIN, fcntl.flock, g, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    os.chmod(os.path.join(m, "locked"), 0o666)
    assert as_nobody(other)

# ---- privileges go when somebody without them writes; compared with the filesystem below
seen = {}
for base in (lower, m):
    p = os.path.join(base, "suid")
    got = []
    for how in ("write", "truncate", "append", "read", "chown"):
        write(p, b"x" * 100)
        os.chmod(p, 0o6777)
        cap = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)  # cap_net_raw
        os.setxattr(p, "security.capability", cap)

        def act():
            with open(p, "r+b" if how != "append" else "ab", buffering=0) as f:
                if how == "truncate":
                    f.truncate(10)
                elif how in ("write", "append"):
                    f.write(b"y")
                else:
                    f.read(1)
            return True
        if how == "chown":
            os.chown(p, 1, 1)
        else:
            assert as_nobody(act), how
        got.append((how, oct(os.stat(p).st_mode), "security.capability" in os.listxattr(p)))
        os.chown(p, 0, 0)
    seen[base] = got
assert seen[lower] == seen[m], seen

# ---- permissions: default_permissions decides as below
os.chmod(m, 0o755)
os.mkdir(os.path.join(m, "private"), 0o700)
write(os.path.join(m, "private", "x"), b"")
write(os.path.join(m, "ro"), b"ro")
os.chmod(os.path.join(m, "ro"), 0o444)


def refused():
    raises(errno.EACCES, os.listdir, os.path.join(m, "private"))
    raises(errno.EACCES, os.stat, os.path.join(m, "private", "x"))
    raises(errno.EACCES, open, os.path.join(m, "ro"), "r+b")
    raises(errno.EACCES, write, os.path.join(m, "mine"), b"")
    raises(errno.EPERM, os.chmod, os.path.join(m, "ro"), 0o777)
    return read(os.path.join(m, "ro")) == b"ro"


assert as_nobody(refused)

# ---- times to the nanosecond, as tar and rsync set them, through close and remount
tree = os.path.join(lower, "times")
os.mkdir(tree)
for i in range(20):
    p = os.path.join(tree, "f%d" % i)
    write(p, r.randbytes(r.choice([0, 10, 20000, 300000])))
    os.utime(p, ns=(r.randrange(1 << 60), r.randrange(1 << 60)))
os.symlink("f1", os.path.join(tree, "link"))
os.utime(os.path.join(tree, "link"), ns=(5, 123456789), follow_symlinks=False)
os.utime(tree, ns=(7, 987654321987654321))
# set before, between and after writes
p = os.path.join(m, "order")
with open(p, "wb", buffering=0) as f:
    f.write(b"1" * 50000)
    os.utime(f.fileno(), ns=(1, 1111111111111111111))
assert os.stat(p).st_mtime_ns == 1111111111111111111
with open(p, "r+b", buffering=0) as f:
    os.utime(f.fileno(), ns=(1, 1000))
    before = time.time_ns()
    f.write(b"2")
assert os.stat(p).st_mtime_ns >= before - 1000000000  # files are stamped with the clock's last tick
os.utime(p, ns=(2, 2222222222222222222))
subprocess.run("tar --xattrs -C '%s' -cf - times | tar --xattrs -C '%s' -xpf -" % (lower, m), shell=True, check=True)
have_rsync = subprocess.run(["which", "rsync"], stdout=subprocess.DEVNULL).returncode == 0
if have_rsync:
    subprocess.run(["rsync", "-a", tree + "/", os.path.join(m, "times2")], check=True)
else:
    left_out("times as rsync sets them", "rsync is not installed")
for again in range(2):
    assert os.stat(p).st_mtime_ns == 2222222222222222222
    for copy in ["times"] + ["times2"] * have_rsync:
        for d, _, names in os.walk(tree):
            for n in names + ["."]:
                x, y = os.lstat(os.path.join(tree, n)), os.lstat(os.path.join(m, copy, n))
                assert x.st_mtime_ns == y.st_mtime_ns, (copy, n, x.st_mtime_ns, y.st_mtime_ns)
    if have_rsync:
        said = subprocess.run(["rsync", "-ai", tree + "/", os.path.join(m, "times2")], check=True, stdout=subprocess.PIPE).stdout
        assert said == b"", said
    if not again:
        m = w.remount()

# ---- a change shows in ctime at once
p = os.path.join(m, "ctime")
write(p, b"x")
was = os.stat(p).st_ctime_ns
time.sleep(0.1)
with open(p, "r+b", buffering=0) as f:
    f.truncate(500)
    assert os.fstat(f.fileno()).st_ctime_ns > was
assert os.stat(p).st_ctime_ns > was

# ---- the size after a close is the last one, although the last bytes are still on their way
def resize(path, seed):
    q = random.Random(seed)
    for i in range(400):
        n = q.choice([q.randrange(2000000), 168454, 5000])
        with open(path, "r+b" if i else "w+b", buffering=0) as f:
            os.pwrite(f.fileno(), q.randbytes(100000), q.randrange(2000000))
            if i % 3 == 0:
                os.fsync(f.fileno())
            os.pwrite(f.fileno(), b"x" * 20000, q.randrange(200000))
            f.truncate(n)
        with open(path, "rb", buffering=0) as f:
            assert os.fstat(f.fileno()).st_size == n == os.stat(path).st_size == f.seek(0, 2), (i, n, os.fstat(f.fileno()).st_size)


children = []
for i in range(4):
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            resize(os.path.join(m, "resized%d" % i), i)
            code = 0
        except BaseException as e:
            print(repr(e), flush=True)
        os._exit(code)
    children.append(pid)
assert all([os.waitpid(p, 0)[1] == 0 for p in children])

# ---- a directory read while entries come and go: what stays is listed once
d = os.path.join(m, "busy")
os.mkdir(d)
stay = {"stay-%04d" % i for i in range(2000)}
for n in stay:
    os.close(os.open(os.path.join(d, n), os.O_WRONLY | os.O_CREAT))
for i in range(1000):
    os.close(os.open(os.path.join(d, "go-%04d" % i), os.O_WRONLY | os.O_CREAT))
for round in range(3):
    seen, i = [], 0
    with os.scandir(d) as it:
        for e in it:
            seen.append(e.name)
            i += 1
            if i % 5 == 0:
                go = os.path.join(d, "go-%04d" % r.randrange(1000))
                try:
                    os.unlink(go)
                except FileNotFoundError:
                    os.close(os.open(go, os.O_WRONLY | os.O_CREAT))
            if i % 50 == 0:
                os.rename(os.path.join(d, "go-x") if os.path.exists(os.path.join(d, "go-x")) else os.path.join(m, "full"), os.path.join(d, "go-x"))
    kept = [n for n in seen if n.startswith("stay")]
    assert len(kept) == 2000 and set(kept) == stay, (round, len(kept), len(set(kept)))

# ---- statfs is that of the filesystem below
a, b = os.statvfs(m), os.statvfs(w.path("vault"))
assert (a.f_bsize, a.f_frsize, a.f_files, a.f_namemax) == (b.f_bsize, b.f_frsize, b.f_files, 255)
wait_for(lambda: abs(os.statvfs(m).f_bavail - os.statvfs(w.path("vault")).f_bavail) * a.f_frsize < 64 << 20)  # others fill it, too, and perhaps in between
w.umount()
print("ok")
