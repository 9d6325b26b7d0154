"""Many entries in one directory and many cached inodes, with the default limit of open files.

posix_scale.py [N]: how many entries (default 3000; 1000000 is the promise, and takes most of an hour). LG_SCALE_OUT=file gets the figures."""
import os, resource, subprocess, sys, time
from lib import *

N = int(sys.argv[1]) if len(sys.argv) > 1 else 3000
RSS_MAX_MIB = 300
resource.setrlimit(resource.RLIMIT_NOFILE, (1024, min(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))  # what an ordinary service has
w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
d = os.path.join(m, "many")
os.mkdir(d)


def daemon():
    pid = w.pid_of()
    status = dict(l.split(":", 1) for l in read("/proc/%d/status" % pid).decode().splitlines())
    return {"rss_mib": int(status["VmRSS"].split()[0]) // 1024, "fds": len(os.listdir("/proc/%d/fd" % pid))}


def timed(what, f):
    t = time.time()
    r = f()
    print("%-40s %.1f s, %s" % (what, time.time() - t, daemon()), flush=True)
    return r


NAME = "1.2.840.113619.2.55.3.%08d.dcm"


def make():
    at = os.open(d, os.O_RDONLY)
    os.mkdir("sub", dir_fd=at)
    for i in range(N):
        if i % 50 == 0:
            os.close(os.open(NAME % i, os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=at))
        else:
            os.link(NAME % (i - i % 50), NAME % i, src_dir_fd=at, dst_dir_fd=at)
    os.close(at)


def inodes():
    """A million inodes of their own: empty symbolic links are the cheapest that any filesystem below has."""
    at = os.open(d, os.O_RDONLY)
    for i in range(N):
        os.symlink("x", "l" + NAME % i, dir_fd=at)
    os.close(at)


def listed():
    names = [e.name for e in os.scandir(d)]
    assert len(names) == len(set(names)) == 2 * N + 1, (len(names), len(set(names)))
    return names


def stat_all(names):
    at = os.open(d, os.O_RDONLY)
    numbers = set()
    for n in names:
        numbers.add(os.stat(n, dir_fd=at, follow_symlinks=False).st_ino)
    os.close(at)
    assert len(numbers) == N + 1 + (N + 49) // 50, len(numbers)


timed("%d names made" % N, make)
timed("%d symbolic links made" % N, inodes)
names = timed("listed", listed)
timed("each looked at", lambda: stat_all(names))
full = daemon()
assert full["rss_mib"] < RSS_MAX_MIB, full
assert full["fds"] < 200, full
m = w.remount()
d = os.path.join(m, "many")
names = timed("listed after a remount", listed)
timed("each looked at, nothing cached before", lambda: stat_all(names))
again = daemon()
assert again["rss_mib"] < RSS_MAX_MIB and again["fds"] < 200, again
for i in (0, 1, N // 2, N - 1):
    assert os.readlink(os.path.join(d, "l" + NAME % i)) == "x" and os.stat(os.path.join(d, NAME % i)).st_nlink >= 1
if os.environ.get("LG_SCALE_OUT"):
    write(os.environ["LG_SCALE_OUT"], repr((N, full, again)).encode())
timed("all removed", lambda: subprocess.run(["rm", "-rf", d], check=True))
assert os.listdir(m) == []
w.umount()
print("ok")
