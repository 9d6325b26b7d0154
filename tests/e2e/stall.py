"""One client waits in a slow call below; the others go on. The lower filesystem holds one operation until the test lets it go, so nothing here is timed."""
import fcntl, os, signal, subprocess, sys, threading
from lib import *

w = World()
w.gated()
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


def others_go_on(op, slow, *others, again=0):
    """The next op below is held; slow is to come upon it; the others must all come to their end meanwhile. again: so often it may be another's op that was held."""
    write(w.path("gates", op), b"")
    a = start(slow)
    held = w.path("gates", op + ".held")
    try:
        wait_for(lambda: os.path.exists(held))
        for o in others:
            t = start(o)
            t.join(300)
            assert t.ok, (op, o.__name__, "waits or failed while another client's", slow.__name__, "is held")
        passed = not a.is_alive()
    finally:
        os.unlink(held)
    if passed and a.ok and again:
        return others_go_on(op, slow, *others, again=again - 1)
    assert not passed, (op, "was not held")
    a.join(300)
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
                if (d, n) in data and (d, n) != ("a", 0):  # that one grows
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

    def stat_itself():
        assert os.stat(p("a", "0")).st_size == SIZE + 100000

    def read_itself_cached():
        with open(p("a", "0"), "rb") as f:  # the page that now ends the file is not whole, so the kernel does not keep it
            assert os.pread(f.fileno(), SIZE, 0) == data["a", 0]

    assert read(p("a", "0")) == data["a", 0]
    others_go_on("fsync", slow_fsync, stat_itself, read_itself_cached, read_cached, read_cold, stat_others, change_elsewhere, list_elsewhere)

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
        fresh[0] += 1  # a name that the kernel does not know of
        assert not os.path.exists(p("a", "never seen %d" % fresh[0]))

    others_go_on("getattr", slow_lookup, read_cached, read_cold, change_elsewhere, list_elsewhere, again=20)  # commits in the background look at their files, too

    # A blocking lock. Both kinds, each held by another process.
    def holder(call):
        p = w.spawn([sys.executable, "-c", "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.%s(f, fcntl.LOCK_EX); print(flush=True); sys.stdin.read()" % call,
                     p_locked], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert p.stdout.readline() == b"\n"
        return p

    p_locked = p("a", "1")
    for call in ("flock", "lockf"):
        lock = holder(call)

        def slow_lock():
            with open(p_locked, "r+b") as f:
                getattr(fcntl, call)(f, fcntl.LOCK_EX)

        waits = start(slow_lock)
        wait_for(lambda: any("->" in l and l.split()[2] in ("FLOCK", "POSIX") for l in read("/proc/locks").decode().splitlines() if str(os.getpid()) in l))
        for o in (read_cached, read_cold, stat_others, change_elsewhere, list_elsewhere, sync_elsewhere):
            t = start(o)
            t.join(300)
            assert t.ok, (call, o.__name__, "waits or failed")
        assert waits.is_alive() and not waits.ok
        lock.communicate(b"")
        w.children.remove(lock)
        waits.join(300)
        assert waits.ok, call

    # The key manager does not answer. A study whose key this mount does not hold waits for it (until the client gives up, 10 s), all else goes on.
    studies = {n: dicom_slice(n, 100000) for n in (1, 2)}
    for n in studies:
        write(p("b", "study%d" % n), studies[n])
    m = w.remount("lower/vault")
    assert read(p("b", "study1")) == studies[1]
    read_cached()

    def read_leased():
        assert read(p("b", "study1")) == studies[1]

    def slow_key():
        raises(errno.ENOKEY, read, p("b", "study2"))

    def first_of(other):
        """Does other come to its end while the one that wants a key is in its call? On a slow machine that one's 10 s may be over: then once more."""
        waits = start(slow_key)

        def in_call():
            try:
                return waits.native_id and b"request_wait_answer" in read("/proc/self/task/%d/wchan" % waits.native_id)
            except (FileNotFoundError, ProcessLookupError):
                return True  # its 10 s are over
        wait_for(in_call)
        t = start(other)
        t.join(300)
        assert t.ok, ("key manager", other.__name__, "failed")
        first = waits.is_alive()
        waits.join(300)
        assert waits.ok, "a key although the key manager was stopped?"
        return first

    keyds = w.keyd_pids()
    for k in keyds:
        os.kill(k, signal.SIGSTOP)
    try:
        def looks():
            for f in (read_cached, stat_others, read_leased, list_elsewhere):
                f()
            assert os.stat(p("b", "study2")).st_size == len(studies[2])
            for f in (read_cold, change_elsewhere, sync_elsewhere):
                f()

        assert any(first_of(looks) for _ in range(12)), "waits for another client's key"
    finally:
        for k in keyds:
            os.kill(k, signal.SIGCONT)
    wait_for(lambda: w.run("leadglass", "status").returncode == 0)

    def comes_back():
        try:
            return read(p("b", "study2")) == studies[2]
        except OSError as e:
            assert e.errno == errno.ENOKEY
            return False

    wait_for(comes_back)
    w.umount()
finally:
    for g in os.listdir(w.path("gates")):
        os.unlink(w.path("gates", g))
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("lower")], stderr=subprocess.DEVNULL)
print("ok")
