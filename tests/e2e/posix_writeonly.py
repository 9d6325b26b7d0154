"""Handles that only write go past the kernel's pages (FOPEN_DIRECT_IO), where the kernel is new enough. Nobody is to notice: readers and mappings see
every byte that a write has returned for, and O_DSYNC and RWF_DSYNC still mean that it is there after a kill."""
import mmap, os, signal, threading
from lib import *

w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
SIZE = 1 << 20
p = os.path.join(m, "f")
write(p, b"\0" * SIZE)

# ---- readers of the page cache beside a writer: no read is older than the last write that had returned before it began
fd = os.open(p, os.O_WRONLY)
ro = os.open(p, os.O_RDONLY)
shared = mmap.mmap(ro, SIZE, mmap.MAP_SHARED, mmap.PROT_READ)
AT = [0, 4095, 16384 - 4, 300000, SIZE - 8]  # within pages, over their ends, over a chunk's end
done, stop, stale = [0], threading.Event(), []


def reader(look):
    other = os.open(p, os.O_RDONLY)
    while not stop.is_set():
        for at in AT:
            least = done[0]
            got = int.from_bytes(look(other, at), "little")
            if got < least:
                stale.append((at, got, least))
    os.close(other)


threads = [threading.Thread(target=reader, args=(lambda f, at: os.pread(f, 8, at),)) for _ in range(2)]
threads.append(threading.Thread(target=reader, args=(lambda f, at: os.pread(f, 65536 + 8, max(0, at - 65536))[min(at, 65536):][:8],)))
for t in threads:
    t.start()
for i in range(1, 1501):
    for at in AT:
        assert os.pwrite(fd, i.to_bytes(8, "little"), at) == 8
    done[0] = i
    for at in AT:  # alone, at rest: exactly the last
        assert int.from_bytes(os.pread(ro, 8, at), "little") == i, (at, i)
        assert int.from_bytes(shared[at:at + 8], "little") == i, ("mapped", at, i)
stop.set()
for t in threads:
    t.join()
assert not stale, stale[:5]

# ---- written from a mapping of the same file, by descriptors and pipes, with a gap, and gathered
with memoryview(shared) as mapped:
    assert os.pwrite(fd, mapped[8192:8192 + 65536], 100000) == 65536
assert read(p)[100000:165536] == read(p)[8192:8192 + 65536]
body = os.urandom(300001)
write(w.path("plain"), body)
src = os.open(w.path("plain"), os.O_RDONLY)
out = os.open(os.path.join(m, "sent"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
n = 0
while n < 100000:
    n += os.sendfile(out, src, n, 100000 - n)
os.lseek(src, n, os.SEEK_SET)
a, b = os.pipe()
while n < 200000:
    k = os.splice(src, b, min(60000, 200000 - n))
    while k:
        moved = os.splice(a, out, k)
        k, n = k - moved, n + moved
assert os.pwritev(out, [body[n:n + 1], body[n + 1:n + 50000], body[n + 50000:]], n) == len(body) - n
assert os.pwrite(out, b"end", 400000) == 3
os.close(out)
assert read(os.path.join(m, "sent")) == body + b"\0" * (400000 - len(body)) + b"end"
assert os.stat(os.path.join(m, "sent")).st_size == 400003

# ---- a write that is to be durable is: the daemon is killed behind it
for name, flag in ("dsync", os.O_DSYNC), ("sync", os.O_SYNC), ("rwf", 0):
    f = os.open(os.path.join(m, name), os.O_WRONLY | os.O_CREAT | flag, 0o644)
    pid = w.pid_of()
    if flag:
        assert os.write(f, body[:70000]) == 70000
    else:
        assert os.pwritev(f, [body[:70000]], 0, os.RWF_DSYNC) == 70000
    os.kill(pid, signal.SIGKILL)
    try:
        os.close(f)
    except OSError:
        pass
    m = w.mount()
    assert read(os.path.join(m, name)) == body[:70000], name
shared.close()
w.umount()
w.close()

# ---- and it is made durable below before it returns: there, whoever is about to be is held
g = World()
g.gated()
try:
    g.init("lower/vault")
    m = g.mount("lower/vault")
    held = g.path("gates", "fsync.held")

    def waits_for_durable(put):
        """Whether it does; else it is over while nothing of the kind, or another's, is held."""
        write(g.path("gates", "fsync"), b"")
        t = threading.Thread(target=put)
        t.start()
        wait_for(lambda: os.path.exists(held) or not t.is_alive())
        waits = os.path.exists(held) and t.is_alive()
        for name in "fsync", "fsync.held":
            if os.path.exists(g.path("gates", name)):
                os.unlink(g.path("gates", name))
        t.join()
        return waits

    for name, flag, each in ("dsync", os.O_DSYNC, 0), ("sync", os.O_SYNC, 0), ("rwf dsync", 0, os.RWF_DSYNC), ("rwf sync", 0, os.RWF_SYNC):
        f = os.open(os.path.join(m, name), os.O_WRONLY | os.O_CREAT | flag, 0o644)
        os.fsync(f)
        assert any(waits_for_durable(lambda: os.pwritev(f, [body[:70000]], 70000 * i, each)) for i in range(5)), name
        os.close(f)
    g.umount()
finally:
    for name in "fsync", "fsync.held":
        if os.path.exists(g.path("gates", name)):
            os.unlink(g.path("gates", name))
    g.close()
print("write-only handles: ok")
