"""What a removed file took is given back by a thread of its own: nobody waits for that, neither who removes nor who works in the same directory, but for those that need the
room or ask how much there is, and these find it. Closing what has no name any more is held here until the test lets it go, so nothing is timed."""
import errno, os, stat, subprocess, threading
from lib import *

LARGE, SMALL = 4 << 20, 5000
w = World()
w.env.update(LD_PRELOAD=os.path.join(BIN, "heldclose.so"), LG_HELD=w.path("held"))
os.mkdir(w.path("small"))
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256m,nr_inodes=2000", "none", w.path("small")], check=True)


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


def fds():
    at = "/proc/%d/fd/" % w.pid_of()
    return [at + fd for fd in os.listdir(at)]


def still_open():
    def link(fd):
        try:
            return os.readlink(fd)
        except FileNotFoundError:  # closed meanwhile
            return ""
    return [x for x in map(link, fds()) if x.startswith(w.path("small/vault/root")) and x.endswith(" (deleted)")]


def settled():
    """What was closed above is closed below: it would be held as well if its name went first."""
    def regular(fd):
        try:
            st = os.stat(fd)
            return os.readlink(fd).startswith(w.path("small/vault/root")) and stat.S_ISREG(st.st_mode) and st.st_nlink > 0
        except FileNotFoundError:  # closed meanwhile
            return False
    wait_for(lambda: not any(map(regular, fds())))


def make(path, size):
    write(path, os.urandom(size))
    settled()


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
    settled()
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
        make(p("x%d" % i), LARGE)
    os.link(p("x0"), p("y0"))
    with open(p("x1"), "rb") as f:
        os.unlink(p("x0"))
        os.unlink(p("x1"))
        assert len(f.read()) == LARGE and len(read(p("y0"))) == LARGE
    for i in range(80):
        write(p("z%02d" % i), os.urandom(70000))
    settled()
    hold()  # more than may wait
    t = start(lambda: [os.unlink(p("z%02d" % i)) for i in range(80)])
    wait_for(lambda: len(still_open()) >= 65)  # one more than may wait is closed by who removed it
    release()
    t.join(300)
    assert not t.is_alive() and not [x for x in os.listdir(m) if x.startswith("z")]
    free()
    assert not still_open(), still_open()
    os.unlink(p("y0"))

    # Somebody needs the room: what was free when files were removed is taken by something that is no business of the mount, but for what the need falls short of by what is held.
    for need in ("write", "reserve", "mkdir"):
        for i in range(2):
            make(p("gone%d" % i), LARGE)
        hold()
        for i in range(2):
            ends(os.unlink, p("gone%d" % i))
        assert len(still_open()) == 2, still_open()
        leave = 0 if need == "mkdir" else LARGE
        with open(w.path("small/taken"), "wb") as f:
            st = os.statvfs(w.path("small"))
            os.posix_fallocate(f.fileno(), 0, st.f_bfree * st.f_frsize - leave)
            if need == "mkdir":  # not a name more, either
                raises(errno.ENOSPC, lambda: [os.mkdir(w.path("small/taken%d" % i)) for i in range(1 << 20)])
        got = waits(no_error, *{"write": (write, p("needs"), b"n" * (2 * LARGE)), "reserve": (reserve, p("needs"), 2 * LARGE), "mkdir": (os.mkdir, p("needs"))}[need])
        assert got == "ok", (need, got)
        if need == "write":
            m = w.remount("small/vault")
            assert read(p("needs")) == b"n" * (2 * LARGE)
        subprocess.run("rm -rf %s/taken*" % w.path("small"), shell=True, check=True)
        os.rmdir(p("needs")) if need == "mkdir" else os.unlink(p("needs"))

    make(p("gone"), LARGE)  # with little room nothing is left for later
    with open(w.path("small/taken"), "wb") as f:
        os.posix_fallocate(f.fileno(), 0, free() - (64 << 20))
    hold()
    t = start(os.unlink, p("gone"))
    t.join(1)
    assert t.is_alive(), "left for later"
    release()
    t.join(300)
    assert not t.is_alive()
    os.unlink(w.path("small/taken"))

    make(p("last"), LARGE)  # an end, and what it left
    hold()
    ends(os.unlink, p("last"))
    w.umount()
    release()
    m = w.mount("small/vault")
    assert os.listdir(m) == []
    w.umount()
finally:
    release()
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("small")])
print("ok")
