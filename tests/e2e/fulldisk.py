"""A full disk: the error reaches the application, nothing durable is harmed, deleting works, and freeing space lets work go on."""
import errno, os, subprocess
from lib import *

w = World()
os.mkdir(w.path("small"))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "none", w.path("small")], check=True)
try:
    w.cli("init", w.path("small/vault"))
    m = w.mount("small/vault")
    keep = os.path.join(m, "keep")
    write(keep, b"k" * 1000000)
    with open(keep, "r+b") as f:
        os.fsync(f.fileno())
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
    for i in range(n, 0, -1):
        p = os.path.join(m, "fill%d" % i)
        if os.path.exists(p):
            os.unlink(p)
    write(os.path.join(m, "again"), b"z" * 2000000)
    m = w.remount("small/vault")
    assert read(keep)[:1000000] == b"k" * 500000 + b"n" * 100000 + b"k" * 400000
    assert read(os.path.join(m, "again")) == b"z" * 2000000
    w.umount()
finally:
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("small")])
print("ok", n, "files until it was full")
