"""What was synced survives kill -9 of either daemon; the key manager needs no passphrase after its worker died."""
import errno, os, random, signal, subprocess, time
from lib import *

w = World()
w.init()
r = random.Random(7)
want = {}
for round in range(6):
    m = w.mount()
    for p, b in want.items():
        assert read(os.path.join(m, p)) == b, (round, p)
    for i in range(8):
        p = "f%d" % r.randrange(12)
        f = open(os.path.join(m, p), "r+b" if p in want else "w+b", buffering=0)
        b = bytearray(want.get(p, b""))
        for _ in range(r.randrange(1, 4)):
            at, x = r.randrange(len(b) + 1), r.randbytes(r.choice([10, 5000, 100000]))
            b[at:at + len(x)] = x
            f.seek(at)
            f.write(x)
        os.fsync(f.fileno())
        want[p] = bytes(b)
        if r.random() < 0.5:
            f.write(b"never synced")
            want.pop(p)  # may be either
            os.fsync(f.fileno())
            want[p] = bytes(b[:f.tell() - 12]) + b"never synced" + bytes(b[f.tell():])
        f.close()
    pid = w.pid_of()
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    raises(errno.ENOTCONN, os.listdir, m)
    w.cli("umount", m)
    w.mounts.remove("mnt")
m = w.mount()
for p, b in want.items():
    assert read(os.path.join(m, p)) == b, p

# The worker is killed; the supervisor starts another and hands it the root key.
workers = [p for p in w.keyd_pids() if b"--worker" in read("/proc/%d/cmdline" % p)]
assert len(workers) == 1
os.kill(workers[0], signal.SIGKILL)
wait_for(lambda: w.run("leadglass", "status", "--json").returncode == 0)
assert w.status()["unlocked"]
write(os.path.join(m, "after"), read(data_files()[0]))
assert read(os.path.join(m, "after")) == read(data_files()[0])
wait_for(lambda: len(w.status()["mounts"]) == 1)
w.cli("lock")
raises(errno.ENOKEY, read, os.path.join(m, "after"))
w.unlock()
w.umount()
print("ok", len(want), "files")
