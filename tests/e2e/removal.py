"""What a removed file took is given back by a thread of its own: nobody waits for that, neither who removes nor who works in the same directory, but for those that need the
room or ask how much there is, and these find it. Closing what has no name any more is held here until the test lets it go, so nothing is timed."""
import errno, os, subprocess, threading
from lib import *

LARGE, SMALL = 4 << 20, 5000
w = World()
w.env.update(LD_PRELOAD=os.path.join(BIN, "heldclose.so"), LG_HELD=w.path("held"))
os.mkdir(w.path("small"))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", w.path("small")], check=True)


def start(f, *a):
    def body():
        t.got = f(*a)

    t = threading.Thread(target=body, daemon=True)
    t.got = None
    t.start()
    return t


def ends(f, *a):
    t = start(f, *a)
    t.join(300)
    assert not t.is_alive(), (f, a, "waits")
    return t.got


def waits(f, *a):
    """Calls it; what it returns once closing goes on. One that does not wait is done by then, and has the wrong answer."""
    t = start(f, *a)
    t.join(1)
    release()
    t.join(300)
    assert not t.is_alive(), (f, a, "does not come to its end")
    return t.got


def hold(): write(w.path("held"), b"")


def release():
    if os.path.exists(w.path("held")):
        os.unlink(w.path("held"))


def free():
    st = os.statvfs(m)
    return st.f_bfree * st.f_frsize


def no_error(f, *a):
    try:
        f(*a)
        return "ok"
    except OSError as e:
        return errno.errorcode[e.errno]


def reserve(path, size):
    with open(path, "wb") as f:
        os.posix_fallocate(f.fileno(), 0, size)


def still_open():
    fds = "/proc/%d/fd/" % w.pid_of()
    return [x for x in map(os.readlink, (fds + fd for fd in os.listdir(fds))) if x.startswith(w.path("small/vault/root")) and x.endswith(" (deleted)")]


try:
    w.cli("init", w.path("small/vault"))
    m = w.mount("small/vault")
    p = lambda *x: os.path.join(m, *x)
    os.mkdir(p("study"))
    for n in ("a", "b", "c", "d"):
        write(p("study", n), os.urandom(LARGE))
    write(p("small"), b"s" * SMALL)
    m = w.remount("small/vault")

    before = free()
    hold()
    ends(os.unlink, p("study", "a"))
    ends(os.replace, p("small"), p("study", "b"))
    ends(write, p("study", "new"), b"n" * SMALL)  # the directory is nobody's
    assert ends(read, p("study", "b")) == b"s" * SMALL and not os.path.exists(p("study", "a"))
    assert len(still_open()) == 2, still_open()
    ends(os.unlink, p("study", "b"))
    ends(os.unlink, p("study", "new"))
    ends(os.unlink, p("study", "c"))
    ends(os.unlink, p("study", "d"))
    ends(os.rmdir, p("study"))
    assert len(still_open()) == 4, still_open()  # small ones are not worth it
    after = waits(free)
    assert after >= before + 4 * LARGE, (before, after)
    assert not still_open(), still_open()

    for i in range(2):  # what has another name, or is open
        write(p("x%d" % i), os.urandom(LARGE))
    os.link(p("x0"), p("y0"))
    with open(p("x1"), "rb") as f:
        os.unlink(p("x0"))
        os.unlink(p("x1"))
        assert len(f.read()) == LARGE and len(read(p("y0"))) == LARGE
    for i in range(80):
        write(p("z%02d" % i), os.urandom(70000))
    hold()  # more than may wait
    t = start(lambda: [os.unlink(p("z%02d" % i)) for i in range(80)])
    wait_for(lambda: len(still_open()) >= 65)  # one more than may wait is closed by who removed it
    release()
    t.join(300)
    assert not t.is_alive() and not [x for x in os.listdir(m) if x.startswith("z")]
    free()
    assert not still_open(), still_open()

    for need in (write, reserve):  # somebody needs the room
        n = 0
        try:
            while True:
                write(p("fill%d" % n), b"f" * LARGE)
                n += 1
        except OSError as e:
            assert e.errno == errno.ENOSPC, e
        os.unlink(p("fill%d" % n))
        hold()
        ends(os.unlink, p("fill0"))
        ends(os.unlink, p("fill1"))
        got = waits(no_error, need, p("needs"), b"n" * (3 * LARGE // 2) if need == write else 3 * LARGE // 2)
        assert got == "ok", (need, got)
        if need == write:
            m = w.remount("small/vault")
            assert read(p("needs")) == b"n" * (3 * LARGE // 2)
        for name in os.listdir(m):
            os.unlink(p(name))
    hold()  # an unmount, and what it left
    write(p("last"), os.urandom(LARGE))
    ends(os.unlink, p("last"))
    release()
    m = w.remount("small/vault")
    assert os.listdir(m) == []
    w.umount()
finally:
    release()
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("small")])
print("ok")
