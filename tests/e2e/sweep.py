"""After an unclean end every file is recovered in the background, whether anybody opens it or not; then its half-committed states are tampering for ever."""
import errno, os, re, signal, subprocess, threading
from lib import *

C = 16384
w = World()
vault = w.init()
m = w.mount()
names = ["f%d" % i for i in range(40)]
for n in names:
    write(os.path.join(m, n), n.encode() * (8 * C // len(n)) + b"x" * (8 * C % len(n)))
os.makedirs(os.path.join(m, "d", "e"))
write(os.path.join(m, "d", "e", "deep"), b"d" * 8 * C)
paths = names + ["d/e/deep"]
want = {n: read(os.path.join(m, n)) for n in paths}
lower = {os.lstat(os.path.join(d, x)).st_ino: os.path.join(d, x) for d, _, fs in os.walk(os.path.join(vault, "root")) for x in fs}
below = {n: lower[os.lstat(os.path.join(m, n)).st_ino] for n in paths}
touched = names[::2] + ["d/e/deep"]
for n in touched:
    assert len(want[n]) % C == 0
w.remount()
half = {}
fds = [os.open(os.path.join(m, n), os.O_WRONLY | os.O_APPEND) for n in touched]
for n, fd in zip(touched, fds):  # whole chunks behind the end stand below before any commit names them
    half[n], more = append_uncommitted(fd, below[n], lambda: os.urandom(2 * C))
    want[n] += more
os.kill(w.pid_of(), signal.SIGKILL)
for fd in fds:
    try:
        os.close(fd)
    except OSError:
        pass
for n in touched:  # should the timer have been faster
    write(below[n], half[n])
subprocess.run(["umount", "-l", m], check=True)


def mount(log):
    f = open(w.path(log), "wb")
    fs = w.spawn([os.path.join(BIN, "leadglass-fs"), "--foreground", vault, m], stderr=f, stdin=subprocess.DEVNULL)
    wait_for(lambda: os.path.ismount(m))
    return fs


def umount(fs):
    reaper = threading.Thread(target=fs.wait)
    reaper.start()
    w.umount()
    reaper.join()
    w.children.remove(fs)
    w.mounts.append("mnt")


fs = mount("log1")
dev = os.stat(m).st_dev  # what a service mounts reads ahead as far as what the command mounts
assert read("/sys/class/bdi/%d:%d/read_ahead_kb" % (os.major(dev), os.minor(dev))).strip() == b"496"  # whole chunks, and less than 512
wait_for(lambda: b"swept after an unclean end" in read(w.path("log1")))
log = read(w.path("log1")).decode()
ids = {n: half[n][36:52].hex() for n in touched}
for n in touched:  # nobody has opened them
    assert "file %s: recovered after an unclean end" % ids[n] in log, (n, log)
assert len(re.findall("recovered", log)) == len(touched), log
assert "%d files, %d looked into, 0 refused" % (len(paths), len(paths)) in log, log
for n in paths:
    assert read(os.path.join(m, n)) == want[n], n
# The same mount takes no more of it: closed and forgotten, the lower file replaced.
umount(fs)
for n in touched[:5]:
    write(below[n], half[n])
fs = mount("log2")
for n in paths:
    if n in touched[:5]:
        raises(errno.EIO, read, os.path.join(m, n))
    else:
        assert read(os.path.join(m, n)) == want[n], n
log = read(w.path("log2")).decode()
assert "swept" not in log and "ended uncleanly" not in log, log
for n in touched[:5]:
    assert "file %s: header, table or size do not verify" % ids[n] in log
umount(fs)
w.mounts.remove("mnt")
print("ok", len(touched), "half-committed files")
