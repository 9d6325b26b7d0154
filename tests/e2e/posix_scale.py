"""Many entries in one directory and many cached inodes, with the default limit of open files.

posix_scale.py [N]: how many files (default 10000; 1000000 is the promise, and takes 15 to 30 minutes and 1.5 GiB of /dev/shm). LG_SCALE_OUT=file gets the figures. The names are made through the mount, as
symbolic links because those take no block; their inodes are then exchanged below for regular files, sparse ones, so that a million fit anywhere."""
import multiprocessing, os, resource, subprocess, sys, time
from lib import *

N = int(sys.argv[1]) if len(sys.argv) > 1 else 10000
RSS_MAX_MIB, BYTES_PER_INODE_MAX = 300, 310
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))  # what an ordinary service has
w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
d = os.path.join(m, "many")
os.mkdir(d)
took = {}


def daemon():
    pid = w.pid_of()
    status = dict(l.split(":", 1) for l in read("/proc/%d/status" % pid).decode().splitlines())
    return {"rss_kib": int(status["VmRSS"].split()[0]), "fds": len(os.listdir("/proc/%d/fd" % pid))}


def timed(what, f):
    t = time.time()
    r = f()
    took[what] = round(time.time() - t, 1)
    print("%-40s %.1f s, %s" % (what, took[what], daemon() if "mnt" in w.mounts else ""), flush=True)
    return r


NAME = "1.2.840.113619.2.55.3.604688119.971.1258718823.%08d.dcm"
MAKERS = 4


def make_part(part, where=d, n=N):
    at = os.open(where, os.O_RDONLY)
    for i in range(part, n, MAKERS):
        os.symlink("x", NAME % i, dir_fd=at)
    os.close(at)


def make():
    with multiprocessing.Pool(MAKERS) as pool:
        pool.map(make_part, range(MAKERS))


def exchange():
    root = w.path("vault", "root")
    lower = os.path.join(root, next(x for x in os.listdir(root) if not x.startswith("lg.")))
    at = os.open(lower, os.O_RDONLY)
    for x in [e.name for e in os.scandir(lower) if not e.name.startswith("lg.")]:
        os.unlink(x, dir_fd=at)
        fd = os.open(x, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
        os.ftruncate(fd, 4096)
        os.close(fd)
    os.close(at)


def listed():
    names = [e.name for e in os.scandir(d)]
    assert len(names) == N and set(names) == {NAME % i for i in range(N)}, (len(names), len(set(names)))
    return names


def stat_all(names):
    at = os.open(d, os.O_RDONLY)
    numbers = set()
    for n in names:
        st = os.stat(n, dir_fd=at, follow_symlinks=False)
        assert st.st_size == 0 and st.st_mode == 0o100644, st
        numbers.add(st.st_ino)
    os.close(at)
    assert len(numbers) == N, len(numbers)


def check(before):
    now = daemon()
    each = (now["rss_kib"] - before["rss_kib"]) * 1024 / N
    print("%d bytes of memory for each inode" % each)
    assert now["fds"] < 200, now
    if not SANITIZED:
        assert now["rss_kib"] < RSS_MAX_MIB * 1024, now
        assert each < BYTES_PER_INODE_MAX, each
    return each


timed("%d names made" % N, make)
timed("listed", lambda: [e.name for e in os.scandir(d)])
w.umount()
timed("made regular files below", exchange)
m = w.mount()
warm = os.path.join(m, "warm")
os.mkdir(warm)
with multiprocessing.Pool(MAKERS) as pool:  # its threads and their stacks are there from here on
    pool.starmap(make_part, [(i, warm, 400) for i in range(MAKERS)])
assert sum(os.stat(e.path, follow_symlinks=False).st_size for e in os.scandir(warm)) == 400
empty = daemon()
names = timed("listed, nothing cached before", listed)
timed("each looked at", lambda: stat_all(names))
each = check(empty)
assert timed("listed again", listed) == names, "another order"
check(empty)
if os.environ.get("LG_SCALE_OUT"):
    write(os.environ["LG_SCALE_OUT"], repr((N, empty, daemon(), each, took)).encode())
if N <= 100000:
    timed("all removed", lambda: subprocess.run(["rm", "-rf", d, warm], check=True))
    assert os.listdir(m) == []
w.umount()
print("ok")
