"""One client waits in a slow call below; the others go on. The lower filesystem holds one operation until the test lets it go, so nothing here is timed."""
import os, subprocess, threading
from lib import *

w = World()
for d in ("lower", "source", "gates"):
    os.mkdir(w.path(d))
r = subprocess.run([os.path.join(BIN, "gatefs"), w.path("source"), w.path("gates"), w.path("lower")])
assert r.returncode == 0, "gatefs"
SIZE = 900000
data = {}


def start(f, *a):
    def body():
        f(*a)
        t.ok = True

    t = threading.Thread(target=body, daemon=True)
    t.ok = False
    t.start()
    return t


def others_go_on(op, slow, *others):
    """The next op below is held; slow is to come upon it; the others must all come to their end meanwhile."""
    write(w.path("gates", op), b"")
    a = start(slow)
    held = w.path("gates", op + ".held")
    try:
        wait_for(lambda: os.path.exists(held))
        for o in others:
            t = start(o)
            t.join(60)
            assert t.ok, (op, o.__name__, "waits or failed while another client's", slow.__name__, "is held")
        assert not a.ok and a.is_alive(), (op, "was not held")
    finally:
        os.unlink(held)
    a.join(60)
    assert a.ok, (op, "does not come to its end")


try:
    w.init("lower/vault")
    m = w.mount("lower/vault")
    p = lambda *x: os.path.join(m, *x)
    for d in ("a", "b"):
        os.mkdir(p(d))
        for n in range(4):
            data[d, n] = os.urandom(SIZE)
            write(p(d, str(n)), data[d, n])
    m = w.remount("lower/vault")
    fresh = [0]

    def read_cold():
        fresh[0] += 1
        assert read(p("b", str(fresh[0] % 4))) == data["b", fresh[0] % 4]

    def read_cached():
        assert read(p("a", "1")) == data["a", 1]

    def stat_others():
        for d in ("a", "b"):
            for n in range(4):
                if (d, n) in data and (d, n) != ("a", 0):  # that one's own commit waits with it
                    assert os.stat(p(d, str(n))).st_size == SIZE

    def change_elsewhere():
        write(p("b", "new.tmp"), b"x" * 300000)
        os.rename(p("b", "new.tmp"), p("b", "new"))
        os.mkdir(p("b", "sub"))
        os.rmdir(p("b", "sub"))
        os.unlink(p("b", "new"))

    def list_elsewhere():
        assert len(os.listdir(p("b"))) >= 4

    def sync_elsewhere():
        with open(p("b", "synced"), "wb") as f:
            f.write(b"y" * 100000)
            f.flush()
            os.fsync(f.fileno())

    read_cached()
    stat_others()

    def slow_fsync():
        with open(p("a", "0"), "ab") as f:
            f.write(b"z" * 100000)
            f.flush()
            os.fsync(f.fileno())

    others_go_on("fsync", slow_fsync, read_cached, read_cold, stat_others, change_elsewhere, list_elsewhere)

    def slow_read():
        assert read(p("a", "2")) == data["a", 2]

    others_go_on("read", slow_read, read_cached, read_cold, stat_others, change_elsewhere, list_elsewhere, sync_elsewhere)

    def slow_mkdir():
        os.mkdir(p("a", "slow"))

    others_go_on("mkdir", slow_mkdir, read_cached, read_cold, stat_others, list_elsewhere, sync_elsewhere,
                 lambda: write(p("b", "more"), b"m" * 200000))

    def slow_rename():
        os.rename(p("a", "3"), p("a", "3.moved"))

    del data["a", 3]
    others_go_on("rename", slow_rename, read_cached, read_cold, list_elsewhere, sync_elsewhere, lambda: os.rename(p("b", "more"), p("b", "most")))

    def slow_lookup():
        assert not os.path.exists(p("a", "never seen"))

    others_go_on("getattr", slow_lookup, read_cached, read_cold, change_elsewhere, list_elsewhere)
    w.umount()
finally:
    for g in os.listdir(w.path("gates")):
        os.unlink(w.path("gates", g))
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("lower")], stderr=subprocess.DEVNULL)
print("ok")
