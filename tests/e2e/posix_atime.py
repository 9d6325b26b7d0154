"""Access times: whatever is done on the mount and on the filesystem below moves them on both or on neither; what Leadglass reads for itself moves none."""
import ctypes, errno, fcntl, json, mmap, os, shutil, signal, subprocess, threading, time
from lib import *

w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
lower = w.path("plain")
os.mkdir(lower)
OLD = 10**18 + 123456789  # long before any modification: a read moves it, unless nothing ever does (noatime)
SIZE = 300001
COARSE = 5  # CLOCK_REALTIME_COARSE: inodes are stamped with it


def age(p):
    os.utime(p, ns=(OLD, os.lstat(p).st_mtime_ns), follow_symlinks=False)


def moved(p):
    return os.lstat(p).st_atime_ns != OLD


def through(p, flags, *what):
    fd = os.open(p, flags)
    for f in what:
        f(fd)
    os.close(fd)


def get(fd):
    os.pread(fd, 1000, 5000)


def put(fd):
    os.pwrite(fd, b"in the middle of a chunk", 5000)


def nothing(fd):
    pass


def again(p):
    wait_for(lambda: time.clock_gettime_ns(COARSE) > os.stat(p).st_ctime_ns)  # a read of the same tick would count once more
    through(p, os.O_RDONLY, get)
    was = os.stat(p).st_atime_ns
    through(p, os.O_RDONLY, get)
    if os.stat(p).st_atime_ns == was:  # as it should, by relatime
        age(p)


def whole(fd):
    os.pread(fd, SIZE, 0)


def afar(fd):
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.pread(fd, 1000, 200000)


def beside(p, first, flags, other, then=nothing):
    """What another handle does while one for reading is open."""
    def both(fd):
        first(fd)
        through(p, flags, other)
        then(fd)
    through(p, os.O_RDONLY, both)


FILES = {
    "read beside one without": lambda p: beside(p, nothing, os.O_RDONLY | os.O_NOATIME, whole, get),
    "read beside one that wrote": lambda p: beside(p, nothing, os.O_RDWR, put, get),
    "read, then written beside": lambda p: beside(p, lambda fd: (get(fd), age(p)), os.O_RDWR, put),
    "read, then read beside without": lambda p: beside(p, lambda fd: (get(fd), age(p)), os.O_RDONLY | os.O_NOATIME, afar),
    "read, then cut beside": lambda p: through(p, os.O_RDONLY, lambda fd: (get(fd), age(p), os.truncate(p, 100001))),
    "flag set before it is read": lambda p: through(p, os.O_RDONLY, lambda fd: (fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NOATIME), get(fd))),
    "read": lambda p: through(p, os.O_RDONLY, get),
    "read and written": lambda p: through(p, os.O_RDWR, get, put),
    "read without": lambda p: through(p, os.O_RDONLY | os.O_NOATIME, get),
    "all of it without": lambda p: through(p, os.O_RDONLY | os.O_NOATIME, lambda fd: os.pread(fd, SIZE, 0)),
    "read and written without": lambda p: through(p, os.O_RDWR | os.O_NOATIME, get, put),
    "written in a chunk": lambda p: through(p, os.O_WRONLY, put),
    "opened for both, written": lambda p: through(p, os.O_RDWR, put),
    "opened for both": lambda p: through(p, os.O_RDWR, nothing),
    "appended": lambda p: through(p, os.O_WRONLY | os.O_APPEND, lambda fd: os.write(fd, b"more")),
    "cut": lambda p: os.truncate(p, 100001),
    "emptied": lambda p: through(p, os.O_WRONLY | os.O_TRUNC, nothing),
    "mode and owner": lambda p: (os.chmod(p, 0o600), os.chown(p, 7, 7)),
    "looked at": lambda p: (os.stat(p), os.listxattr(p), os.access(p, os.R_OK)),
    "attribute": lambda p: (os.setxattr(p, "user.x", b"y"), os.getxattr(p, "user.x")),
    "renamed": lambda p: (os.rename(p, p + "_"), os.rename(p + "_", p)),
    "linked": lambda p: (os.link(p, p + "_"), os.unlink(p + "_")),
    "made longer": lambda p: through(p, os.O_RDWR, lambda fd: os.posix_fallocate(fd, SIZE, 100000)),
    "mapped": lambda p: through(p, os.O_RDONLY, lambda fd: bytes(mmap.mmap(fd, SIZE, prot=mmap.PROT_READ))),
    "read twice": again,
}
DIRS = {
    "listed": lambda p: os.listdir(p),
    "listed without": lambda p: through(p, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME, lambda fd: os.listdir(fd)),
    "entry made": lambda p: write(os.path.join(p, "new"), b"x"),
    "entry looked at": lambda p: os.stat(os.path.join(p, "in")),
    "entry read": lambda p: read(os.path.join(p, "in")),
    "entry removed": lambda p: os.unlink(os.path.join(p, "in")),
    "not removed": lambda p: raises(errno.ENOTEMPTY, os.rmdir, p),
}


# What changes a file after it was read, if only its ctime, has the next read count once more; nothing else does. Each says where the file is then.
def to(p, f, *a):
    f(*a)
    return p


AGAIN = {
    "nothing": lambda p, other: p,
    "seen": lambda p, other: to(p, lambda: (os.stat(p), os.listxattr(p), os.listdir(os.path.dirname(p)), through(p, os.O_RDWR, nothing))),
    "other's name": lambda p, other: to(p, os.link, other, p + "_"),
    "name": lambda p, other: to(p + "_", os.rename, p, p + "_"),
    "name of another": lambda p, other: to(other, os.rename, p, other),
    "names": lambda p, other: to(other, exchange, p, other),
    "names, the other": lambda p, other: to(other, exchange, other, p),
    "directory": lambda p, other: to(os.path.join(os.path.dirname(p), "sub", "it"), os.rename, p, os.path.join(os.path.dirname(p), "sub", "it")),
    "link": lambda p, other: to(p, os.link, p, p + "_"),
    "link, read by it": lambda p, other: to(p + "_", os.link, p, p + "_"),
    "link removed": lambda p, other: to(p, os.unlink, p + "-"),
    "link replaced": lambda p, other: to(p, os.rename, other, p + "-"),
    "mode": lambda p, other: to(p, os.chmod, p, 0o600),
    "owner": lambda p, other: to(p, os.chown, p, 7, 7),
    "times": lambda p, other: to(p, lambda: os.utime(p, ns=(os.stat(p).st_atime_ns, OLD))),
    "attribute": lambda p, other: to(p, os.setxattr, p, "user.x", b"y"),
    "attribute removed": lambda p, other: to(p, os.removexattr, p, "user.was"),
    "length": lambda p, other: to(p, os.truncate, p, 5000 + 16384),
    "bytes": lambda p, other: to(p, through, p, os.O_WRONLY, put),
    "space": lambda p, other: to(p, through, p, os.O_RDWR, lambda fd: os.posix_fallocate(fd, SIZE, 1000)),
}


def exchange(a, b):
    assert ctypes.CDLL(None, use_errno=True).renameat2(-100, a.encode(), -100, b.encode(), 2) == 0, os.strerror(ctypes.get_errno())


def tick(paths):
    """Whatever is stamped from here on is later than what these have."""
    stamps = [max(st.st_atime_ns, st.st_ctime_ns, st.st_mtime_ns) for st in map(os.stat, paths)]
    wait_for(lambda: time.clock_gettime_ns(COARSE) > max(stamps))


def read_again(base):
    os.mkdir(os.path.join(base, "a"))
    os.mkdir(os.path.join(base, "a", "sub"))
    file, other = ({n: os.path.join(base, "a", n + x) for n in AGAIN} for x in ("", ", other"))
    for p in [*file.values(), *other.values()]:
        write(p, b"\0" * SIZE)
        os.setxattr(p, "user.was", b"here")
    os.link(file["link removed"], file["link removed"] + "-")
    os.link(file["link replaced"], file["link replaced"] + "-")
    tick([*file.values(), *other.values()])
    for p in file.values():
        through(p, os.O_RDONLY, get)
    tick(file.values())
    was = {n: os.stat(p).st_atime_ns for n, p in file.items()}
    now = {n: f(file[n], other[n]) for n, f in AGAIN.items()}
    tick(now.values())
    for p in now.values():
        through(p, os.O_RDONLY, get)
    return {n: os.stat(p).st_atime_ns != was[n] for n, p in now.items()}


def make(base):
    os.mkdir(os.path.join(base, "t"))
    for n in FILES:
        write(os.path.join(base, "t", n), os.urandom(SIZE))
    for n in DIRS:
        os.mkdir(os.path.join(base, "t", n))
        write(os.path.join(base, "t", n, "in"), b"in")
    for n in ("link", "link looked at"):
        os.symlink("target", os.path.join(base, "t", n))


def all_of(top):
    """Everything beneath it but what belongs to Leadglass, by a walk that moves nothing."""
    out = []
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
    for e in os.scandir(fd):
        if not e.name.startswith("lg."):
            p = os.path.join(top, e.name)
            out += [p] + (all_of(p) if e.is_dir(follow_symlinks=False) else [])
    os.close(fd)
    return sorted(out)


def act(base, warm):
    """What has moved. warm: the kernel has the contents in memory already."""
    did = {}
    for n, f in [*FILES.items(), *DIRS.items(), ("link", os.readlink), ("link looked at", os.lstat)]:
        p = os.path.join(base, "t", n)
        if warm and n in FILES:
            read(p)
        if warm:
            age(p)
        f(p)
        did[n] = moved(p)
    return did


def compare(warm, but=()):
    a, b = act(m, warm), act(lower, warm)
    wrong = {n: {"mount": a[n], "below": b[n]} for n in a if a[n] != b[n] and n not in but}
    assert not wrong, wrong
    assert b["read"] and not b["read without"]


make(m)
make(lower)
for p in all_of(m) + all_of(lower):
    age(p)
m = w.remount()
compare(False)
shutil.rmtree(os.path.join(m, "t"))
shutil.rmtree(os.path.join(lower, "t"))
make(m)
make(lower)
# What the kernel answers from memory comes to nobody: an open for reading alone counts as a read, one for both does not.
compare(True, but=("read and written", "flag set before it is read"))


a, b = read_again(m), read_again(lower)
assert a == b, {n: {"mount": a[n], "below": b[n]} for n in a if a[n] != b[n]}
assert b["name"] and b["link"], b
shutil.rmtree(os.path.join(m, "a"))

# ---- what Leadglass reads for itself moves nothing, above or below
def stand(what, *tops):
    """A link's is not asked for: looking at what it says always counts, below as well."""
    for top in tops or (m, w.path("vault/root")):
        wrong = [p for p in all_of(top) if not os.path.islink(p) and moved(p)]
        assert not wrong, (what, wrong)


for i in range(4):
    write(os.path.join(m, "t", "slice%d" % i), dicom_slice(i, 200000))
os.link(os.path.join(m, "t", "slice0"), os.path.join(m, "t", "listed", "slice"))
for p in all_of(m):
    age(p)
stand("looking")
m = w.remount()
stand("unmounting and mounting")
for p in all_of(m):
    if os.path.isfile(p) and not os.path.islink(p):
        os.getxattr(p, "trusted.leadglass.key")
stand("asking for keys")
w.cli("key", "rotate", "--all-studies")
done = json.loads(w.cli("key", "reencrypt", w.path("vault"), "--all-studies", "--json"))
assert done["reencrypted"] == 4, done
stand("re-encryption")
os.kill(w.pid_of(), signal.SIGKILL)
subprocess.run(["umount", "-l", m], check=True)
with open(w.path("log"), "wb") as log:  # in the foreground: it says there when recovery is through
    fs = w.spawn([os.path.join(BIN, "leadglass-fs"), "--foreground", w.path("vault"), m], stderr=log, stdin=subprocess.DEVNULL)
wait_for(lambda: os.path.ismount(m))
wait_for(lambda: b"swept after an unclean end" in read(w.path("log")))
stand("recovery after a crash")
reaper = threading.Thread(target=fs.wait)  # else unmounting waits for it
reaper.start()
w.umount()
reaper.join()
w.children.remove(fs)
w.cli("scrub", w.path("vault"))
w.cli("scrub", "--keyless", w.path("vault"))
stand("scrub", w.path("vault/root"))
for opt in ("noatime", "ro"):
    m = w.mount("vault", "mnt", "-o", opt)
    for p in all_of(m):
        os.path.islink(p) or (os.listdir(p) if os.path.isdir(p) else read(p))
    stand("reading with -o " + opt)
    w.umount()
m = w.mount()
p = os.path.join(m, "t", "slice0")
through(p, os.O_RDONLY, get)
assert moved(p)
w.umount()
for p in all_of(w.path("vault/root")):
    if os.path.isfile(p) and not os.path.islink(p):
        with open(p, "r+b") as f:
            for slot in (1, 2):  # neither commit slot is one any more
                f.seek(slot * 512 + 100)
                f.write(b"damage")
    age(p)
m = w.mount()
for p in all_of(m):
    if os.path.isfile(p) and not os.path.islink(p):
        raises(errno.EIO, os.open, p, os.O_RDONLY)
stand("an open that was refused")
w.umount()
print("ok")
