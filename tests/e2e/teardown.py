"""What ends a mount while requests are under way: umount -l, with those inside going on and then stopped or killed; the kernel's connection aborted; umount -f. Under a
load of writers, readers and locks, and with requests held in a call below. No application hangs and none gets another error than that the mount is gone, the daemon
ends by itself, what was durable is there, what was not is old or new, and the next mount works.

LG_TRANSPORT=dev or uring: see docs/TESTING.md."""
import fcntl, mmap, os, signal, struct, subprocess, time
from lib import *

WRITERS, READERS, FILES, SIZE, SHARE, BIG = 4, 2, 8, 200000, 512, 3 << 20
OPS, ATTEMPTED, DURABLE = 0, 16, 32  # where a child tells of itself: operations done; per file, what it began to write and what is durable
FINE, WRONG = 0, 250
TALLY = mmap.mmap(-1, 16 * SHARE)  # shared with the children
tally = memoryview(TALLY).cast("Q")
STOP = 15 * SHARE // 8
CONNECTIONS = "/sys/fs/fuse/connections"


def put(name, generation, flags=os.O_RDWR):
    """Every word of the file is its generation."""
    fd, body = os.open(name, flags | os.O_CREAT, 0o644), struct.pack("<I", generation) * (SIZE // 4)
    done = 0
    while done < SIZE:
        done += os.pwrite(fd, body[done:done + 40000], done)
    os.fsync(fd)
    os.close(fd)


def name_of(n, i):
    return "w%d-%d" % (n, i)


def generations(name):
    b = read(name)
    assert len(b) == SIZE, (name, len(b))
    return {x[0] for x in struct.iter_unpack("<I", b)}


def writer(n, mine):
    while not tally[STOP]:
        i = tally[mine + OPS] % FILES
        g = tally[mine + ATTEMPTED + i] + 1
        tally[mine + ATTEMPTED + i] = g
        if i % 2:  # in place
            put(name_of(n, i), g)
        else:
            put("tmp%d" % n, g, os.O_RDWR | os.O_TRUNC)
            os.rename("tmp%d" % n, name_of(n, i))
        tally[mine + DURABLE + i] = g
        assert generations(name_of(n, i)) == {g}
        tally[mine + OPS] += 1


def reader(n, mine):
    fd = os.open("big", os.O_RDONLY)
    while not tally[STOP]:
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
        at = 0
        while at < BIG:
            got = os.pread(fd, 1 << 17, at)  # short, where the mount ends in the middle of it
            assert got and got == big[at:at + len(got)], (at, len(got))
            at += len(got)
        assert {name_of(n, i) for n in range(WRITERS) for i in range(FILES)} <= set(os.listdir("."))
        os.statvfs(".")
        tally[mine + OPS] += 1
    os.close(fd)


def holder(n, mine):
    """Has a lock, and asks the daemon for things as long as it has it."""
    with open("locked", "r+b") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        while not tally[STOP]:
            os.statvfs(".")
            tally[mine + OPS] += 1


def waiter(n, mine):
    """Waits for that lock."""
    with open("locked", "r+b", buffering=0) as f:
        tally[mine + OPS] += 3
        fcntl.lockf(f, fcntl.LOCK_EX)
        f.write(b"mine")
        os.fsync(f.fileno())


def child(at, job, n, slot):
    """The job in another process, whose working directory is in the mount. It exits with FINE, an error's number, or WRONG and a word on why."""
    pid = os.fork()
    if pid:
        return pid
    try:
        os.chdir(at)
        job(n, slot * SHARE // 8)
        os._exit(FINE)
    except OSError as e:
        os._exit(e.errno)
    except BaseException as e:
        print("%s %d: %r" % (job.__name__, n, e), flush=True)
    finally:
        os._exit(WRONG)


def ends(pids, what):
    """How each child ended: an error's number, 0, or -9. None may hang."""
    left, code = set(pids), {}

    def gone():
        for pid in list(left):
            got, status = os.waitpid(pid, os.WNOHANG)
            if got:
                left.discard(pid)
                code[pid] = os.waitstatus_to_exitcode(status)
        return not left
    try:
        wait_for(gone, 300)
    except AssertionError:
        stuck = {pid: read("/proc/%d/wchan" % pid) for pid in left}
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        raise AssertionError("%s: hanging: %s" % (what, stuck))
    return [code[pid] for pid in pids]


def alive(pid):
    try:
        return read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def connection(at):
    return "%s/%d" % (CONNECTIONS, os.minor(os.stat(at).st_dev))


def tear(how, at, c):
    if how == "abort":
        write(c + "/abort", b"1")
    else:
        r = subprocess.run(["umount", {"lazy": "-l", "force": "-f"}[how], at], stderr=subprocess.PIPE, text=True)
        assert r.returncode == 0 or (how == "force" and "busy" in r.stderr), r  # with somebody inside it is aborted, and stays in the mount table


def under_load(how):
    at = w.mount()
    tally[STOP] = 0
    for n in range(WRITERS):
        for i in range(FILES):
            mine = n * SHARE // 8
            tally[mine + ATTEMPTED + i] = tally[mine + DURABLE + i] = 1
            put(os.path.join(at, name_of(n, i)), 1)
    cut, pid, c = w.cut(), w.pid_of(), connection(at)
    jobs = [(writer, n) for n in range(WRITERS)] + [(reader, n) for n in range(READERS)] + [(holder, 0), (waiter, 0)]
    ops = lambda: [tally[slot * SHARE // 8 + OPS] for slot in range(len(jobs))]
    for slot in range(len(jobs)):
        tally[slot * SHARE // 8 + OPS] = 0
    pids = []
    for slot, (job, n) in enumerate(jobs):
        pids.append(child(at, job, n, slot))
        if job is holder:
            wait_for(lambda: tally[slot * SHARE // 8 + OPS])
    wait_for(lambda: min(ops()) >= 3)
    tear(how, at, c)
    if how == "lazy":
        w.mounts.remove("mnt")
        assert not os.path.ismount(at) and alive(pid)
        before = ops()
        wait_for(lambda: all(now >= was + 3 for now, was, (job, _) in zip(ops(), before, jobs) if job is not waiter))  # it is served as before
        w.fails(1, ["is mounted already"], "leadglass", "mount", w.path("vault"), at)
        for p in pids[:2] + pids[WRITERS:WRITERS + 1]:
            os.kill(p, signal.SIGKILL)
        tally[STOP] = 1
        expected = [-signal.SIGKILL, -signal.SIGKILL, FINE, FINE, -signal.SIGKILL] + [FINE] * 3
        codes = ends(pids, how)
        assert codes == expected, codes
    else:
        codes = ends(pids, how)
        assert set(codes) <= set(cut), (how, codes)
    wait_for(lambda: not alive(pid))
    wait_for(lambda: not w.status()["mounts"])
    at = w.mount()
    for n in range(WRITERS):
        for i in range(FILES):
            mine = n * SHARE // 8
            durable, attempted, found = tally[mine + DURABLE + i], tally[mine + ATTEMPTED + i], generations(os.path.join(at, name_of(n, i)))
            assert found <= {durable, attempted} and (i % 2 or len(found) == 1), (how, n, i, durable, attempted, found)
            assert how != "lazy" or n < 2 or found == {attempted}, (how, n, i, attempted, found)
    assert read(os.path.join(at, "big")) == big and read(os.path.join(at, "locked")) in (b"lock", b"mine")
    assert how != "lazy" or read(os.path.join(at, "locked")) == b"mine"
    total = sum(tally[n * SHARE // 8 + OPS] for n in range(WRITERS))
    w.umount()
    print(how, "under load: ok,", total, "files written,", "errors", sorted({errno.errorcode[x] for x in codes if x > 0}), flush=True)


def with_requests_held(how, op):
    """A request is in the daemon and in a call below that does not come back, more wait for the same file; so the mount ends."""
    at = w.mount("lower/vault")
    p = lambda *x: os.path.join(at, *x)
    for i in range(4):
        put(p("f%d" % i), 1)
    write(p("big"), big)
    at = w.remount("lower/vault")
    cut, pid, c = w.cut(), w.pid_of(), connection(at)

    for n in range(4):
        tally[n * SHARE // 8 + OPS] = 0

    def slow(n, mine):
        tally[mine + OPS] = 1
        if op == "fsync":
            put("f0", 2)
        elif op == "rename":
            os.rename("f1", "f4")
        else:
            assert read("big") == big

    held = w.path("gates", op + ".held")
    write(w.path("gates", op), b"")
    pids = [child(at, slow, 0, 0)]
    try:
        wait_for(lambda: os.path.exists(held))
        if op != "rename":  # what comes second may find that done
            pids += [child(at, slow, n, n) for n in range(1, 4)]
            wait_for(lambda: all(tally[n * SHARE // 8 + OPS] for n in range(1, 4)))
        tear(how, at, c)
        if how == "lazy":
            w.mounts.remove("mnt")
            for x in pids:
                os.kill(x, signal.SIGKILL)
        else:
            codes = ends(pids, (how, op))  # at once: the daemon is still in its call
            assert set(codes) <= set(cut) and FINE not in codes, (how, op, codes)
        assert os.path.exists(held) and alive(pid)
        r = w.run("leadglass", "mount", w.path("lower/vault"), at)
        assert r.returncode == 1 and "mounted already" in r.stderr, r  # two would be at the same files
    finally:
        os.unlink(held)
    if how == "lazy":
        codes = ends(pids, (how, op))
        assert set(codes) == {-signal.SIGKILL}, codes
    wait_for(lambda: not alive(pid))
    wait_for(lambda: not w.status()["mounts"])
    at = w.mount("lower/vault")
    assert read(p("big")) == big
    assert generations(p("f0")) <= {1, 2} and generations(p("f2")) == {1}
    there = [f for f in ("f1", "f4") if os.path.exists(p(f))]
    assert len(there) == 1 or op != "rename", there
    assert all(generations(p(f)) == {1} for f in there)
    put(p("f0"), 3)
    for f in ("f1", "f4"):
        if os.path.exists(p(f)):
            os.unlink(p(f))
    assert generations(p("f0")) == {3}
    w.umount()
    print(how, "with", op, "held below: ok", flush=True)


if not os.path.isdir(CONNECTIONS):
    skip("the kernel tells nothing of FUSE connections")
w = World()
if not os.listdir(CONNECTIONS):
    subprocess.run(["mount", "-t", "fusectl", "none", CONNECTIONS], stderr=subprocess.DEVNULL)
big = os.urandom(BIG)
w.init()
at = w.mount()
write(os.path.join(at, "big"), big)
write(os.path.join(at, "locked"), b"lock")
w.umount()
for how in ("lazy", "abort", "force"):
    under_load(how)
w.gated()
try:
    w.init("lower/vault")
    for how in ("lazy", "abort", "force"):
        for op in ("fsync", "read", "rename"):
            with_requests_held(how, op)
finally:
    for g in os.listdir(w.path("gates")):
        os.unlink(w.path("gates", g))
    subprocess.run(["umount", "-l", w.path("mnt")], stderr=subprocess.DEVNULL)
    subprocess.run(["umount", "-l", w.path("lower")], stderr=subprocess.DEVNULL)
print("ok")
