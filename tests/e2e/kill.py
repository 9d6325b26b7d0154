"""kill -9 of either daemon at random moments under mixed load. After each remount every file is compared with a model of what was acknowledged:
what was fsynced or closed is there, what was not is old, new or absent but never anything else, and no name is lost or invented.

An operation that fails was not acknowledged, and must not fail before a daemon was killed: writers note when. EIO is as good an answer of the kernel as
ENOTCONN then: it gives it to a request that a dying process was just taking in (fs/fuse/dev.c, fuse_dev_do_read and its ring likewise: copying to memory
that is going away fails). What a ring gives besides stands at World.cut.

LG_KILL_ROUNDS (default 15; long mode 200) and LG_KILL_SEED repeat a run as far as chance in the kernel allows."""
import copy, errno, os, pickle, random, shutil, signal, sys, time
from lib import *

ROUNDS = int(os.environ.get("LG_KILL_ROUNDS", "15"))
SEED = int(os.environ.get("LG_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
WRITERS, FILES_MAX, SIZE_MAX = 4, 24, 300000
print("rounds %d, LG_KILL_SEED=%d" % (ROUNDS, SEED), flush=True)


def payload(spec):
    kind, seed, size = spec
    return dicom_slice(seed, size) if kind == "dicom" else random.Random(seed).randbytes(size)


class File:
    """states: what it may hold after a crash, the last being what it holds now. committed: was ever fsynced or closed."""
    def __init__(self):
        self.states, self.committed = [b""], False

    def now(self):
        return self.states[-1]


class Model:
    """What one writer has under its directory. apply() follows an acknowledged operation."""
    def __init__(self):
        self.files, self.dirs = {}, set()

    def apply(self, op):
        kind, a = op[0], op[1]
        if kind == "create":
            self.files[a] = File()
        elif kind == "write":
            b, x = bytearray(self.files[a].now()), payload(op[3])
            b.extend(b"\0" * (op[2] - len(b)))
            b[op[2]:op[2] + len(x)] = x
            self.files[a].states.append(bytes(b))
        elif kind == "truncate":
            b = self.files[a].now()[:op[2]]
            self.files[a].states.append(b + b"\0" * (op[2] - len(b)))
        elif kind in ("fsync", "close"):
            self.files[a].states, self.files[a].committed = self.files[a].states[-1:], True
        elif kind == "rename":
            self.files[op[2]] = self.files.pop(a)
        elif kind == "unlink":
            del self.files[a]
        elif kind == "mkdir":
            self.dirs.add(a)
        elif kind == "rmdir":
            self.dirs.discard(a)
        elif kind == "renamedir":
            moved = lambda p: op[2] + p[len(a):] if p == a or p.startswith(a + "/") else p
            self.dirs = {moved(d) for d in self.dirs}
            self.files = {moved(p): f for p, f in self.files.items()}

    def uncertain(self, op):
        """The two worlds after an operation of which nobody knows whether it took place."""
        after = copy.deepcopy(self)
        if op is None or op[0] in ("fsync", "close"):
            return [self]
        after.apply(op)
        return [after] if op[0] in ("write", "truncate") else [self, after]

    def names(self):
        return self.dirs | set(self.files)


def choose(r, m, fds):
    files, inside = sorted(m.files), lambda d: d + "/" if d else ""
    place = lambda: inside(r.choice([""] + sorted(m.dirs)))
    roll = r.random()
    if roll < 0.18 and len(files) < FILES_MAX or not files:
        return ("create", place() + "f%06d" % r.randrange(1000000))
    p = r.choice(files)
    size = len(m.files[p].now())
    if roll < 0.24:
        return ("rename", p, r.choice(files) if r.random() < 0.7 else place() + "r%06d" % r.randrange(1000000))
    if roll < 0.29 and len(files) > FILES_MAX // 2:
        return ("unlink", p)
    if roll < 0.32 and len(m.dirs) < 6:
        return ("mkdir", place() + "d%04d" % r.randrange(10000))
    if roll < 0.34 and m.dirs:
        d = r.choice(sorted(m.dirs))
        if any(x.startswith(d + "/") for x in m.names()):
            to = "e%08d" % r.randrange(100000000)
            return ("renamedir", d, to)
        return ("rmdir", d)
    p = r.choice(sorted(fds)) if fds and r.random() < 0.6 else p
    size = len(m.files[p].now())
    if p in fds and roll < 0.50:
        return ("fsync", p)
    if p in fds and (roll < 0.58 or len(fds) > 5):
        return ("close", p)
    if roll < 0.66:
        return ("truncate", p, r.randrange(size + 40000) if r.random() < 0.8 else 0)
    if size == 0 and r.random() < 0.6:
        return ("write", p, 0, ("dicom", r.randrange(1 << 30), r.choice([500, 20000, 131072, 250000])))
    if size > SIZE_MAX:
        return ("truncate", p, r.randrange(size))
    at = size if r.random() < 0.4 else r.randrange(size + 1) if r.random() < 0.9 else size + r.randrange(50000)
    return ("write", p, at, ("plain", r.randrange(1 << 30), r.choice([1, 100, 4096, 16384, 16385, 50000, 131072])))


def perform(top, op, fds):
    kind, p = op[0], os.path.join(top, op[1])
    if kind == "create":
        fds[op[1]] = os.open(p, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    elif kind in ("write", "truncate"):
        if op[1] not in fds:
            fds[op[1]] = os.open(p, os.O_RDWR)
        if kind == "truncate":
            os.ftruncate(fds[op[1]], op[2])
        else:
            x, n = payload(op[3]), 0
            while n < len(x):  # short when the daemon is killed in between
                n += os.pwrite(fds[op[1]], x[n:], op[2] + n)
    elif kind == "fsync":
        os.fsync(fds[op[1]])
    elif kind == "close":
        os.close(fds.pop(op[1]))
    elif kind in ("rename", "renamedir"):
        os.rename(p, os.path.join(top, op[2]))
        if kind == "rename" and op[1] != op[2]:
            if op[2] in fds:
                os.close(fds.pop(op[2]))  # of the one that is gone
            if op[1] in fds:
                fds[op[2]] = fds.pop(op[1])
        elif kind == "renamedir":
            for q in [q for q in fds if q.startswith(op[1] + "/")]:
                fds[op[2] + q[len(op[1]):]] = fds.pop(q)
    elif kind == "unlink":
        os.unlink(p)
        if op[1] in fds:
            os.close(fds.pop(op[1]))
    elif kind == "mkdir":
        os.mkdir(p)
    elif kind == "rmdir":
        os.rmdir(p)


def writer(top, m, seed, log):
    """A child: performs random operations until the daemon is gone. The log holds each operation before it begins and an `ok` after it."""
    r, fds = random.Random(seed), {}
    out = open(log, "wb", buffering=0)
    while True:
        op = choose(r, m, fds)
        out.write(pickle.dumps(op))
        try:
            perform(top, op, fds)
        except OSError as e:
            out.write(pickle.dumps(("failed", e.errno, time.monotonic())))
            os._exit(0)
        except BaseException as e:
            out.write(pickle.dumps(("failed", repr(e), time.monotonic())))
            os._exit(0)
        out.write(pickle.dumps(("ok", None)))
        m.apply(op)


def replay(m, log):
    """Follows the acknowledged part of a log. Returns the operation under way at the end, how it failed, and when."""
    f, op, failed, when = open(log, "rb"), None, None, 0  # closed with the object
    try:
        while True:
            x = pickle.load(f)
            if x[0] == "ok":
                m.apply(op)
                op = None
                count["operations"] += 1
            elif x[0] == "failed":
                failed, when = x[1:]
            else:
                op = x
    except (EOFError, pickle.UnpicklingError):
        return op, failed, when


def listing(top):
    dirs, files = set(), set()
    for d, ds, fs in os.walk(top, onerror=lambda e: (_ for _ in ()).throw(e)):
        at = os.path.relpath(d, top)
        name = lambda n: n if at == "." else at + "/" + n
        dirs |= {name(x) for x in ds}
        files |= {name(x) for x in fs}
    return dirs, files


def is_one_of(got, states):
    """Every byte of got is the one some state has there, or a zero where the file was longer than some state; None, or what is wrong."""
    if not min(map(len, states)) <= len(got) <= max(map(len, states)):
        return "%d bytes long, expected %s" % (len(got), sorted({len(s) for s in states}))
    if got in states:
        return None
    if len(states) == 1:
        at = next(i for i in range(len(got)) if got[i] != states[0][i])
        return "differs from what was acknowledged at byte %d" % at
    shortest = min(map(len, states))
    for at in range(0, len(got), 512):
        block = got[at:at + 512]
        if any(s[at:at + 512] == block for s in states):
            continue
        for i in range(at, at + len(block)):
            if not any(i < len(s) and s[i] == got[i] for s in states) and not (got[i] == 0 and i >= shortest):
                return "byte %d was never written there" % i
    return None


def verify(top, worlds, where):
    """One of the worlds is what stands there. Returns it with every file holding what was found; files that never became durable and do not open go."""
    dirs, files = listing(top)
    fits = [m for m in worlds if m.dirs == dirs and set(m.files) == files]
    assert fits, "%s: names: missing %s, unexpected %s" % (where, sorted(worlds[0].names() - dirs - files), sorted((dirs | files) - worlds[0].names()))
    wrong = []
    for m in fits:
        found, wrong = Model(), []
        found.dirs = set(m.dirs)
        for p, f in m.files.items():
            try:
                got = read(os.path.join(top, p))
            except OSError as e:
                if f.committed or e.errno != errno.EIO:
                    wrong.append("%s: %s" % (p, e))
                continue
            said = is_one_of(got, f.states)
            if said:
                wrong.append("%s: %s (%d states, %s)" % (p, said, len(f.states), "committed" if f.committed else "never committed"))
            elif os.stat(os.path.join(top, p)).st_size != len(got):
                wrong.append("%s: stat says %d, %d bytes were read" % (p, os.stat(os.path.join(top, p)).st_size, len(got)))
            found.files[p] = File()
            found.files[p].states, found.files[p].committed = [got], True
        if not wrong:
            for p in set(m.files) - set(found.files):
                os.unlink(os.path.join(top, p))
                count["never durable"] += 1
            return found
    raise AssertionError("%s: %s" % (where, "; ".join(wrong)))


def workers():
    def is_worker(pid):
        try:
            return b"--worker" in read("/proc/%d/cmdline" % pid)
        except (FileNotFoundError, ProcessLookupError):
            return False  # gone meanwhile
    return [p for p in w.keyd_pids() if is_worker(p)]


def kill_all(pids):
    for p in pids:
        try:
            os.kill(p, signal.SIGKILL)
        except ProcessLookupError:
            pass  # a worker goes with its supervisor
    wait_for(lambda: not any(os.path.exists("/proc/%d/exe" % p) and os.access("/proc/%d/exe" % p, os.F_OK) and alive(p) for p in pids))


def alive(pid):
    try:
        return read("/proc/%d/stat" % pid).rsplit(b")", 1)[1].split()[0] not in (b"Z", b"X")
    except (FileNotFoundError, ProcessLookupError):
        return False


def answers():
    return w.run("leadglass", "status", "--json").returncode == 0


w = World()
w.init()
rnd = random.Random(SEED)
models = [Model() for _ in range(WRITERS)]
count = dict.fromkeys(["fs", "worker", "supervisor", "both", "operations", "never durable", "in flight", "EIO"], 0)
for round in range(ROUNDS):
    m = w.path("mnt") if "mnt" in w.mounts and round else w.mount()
    CUT = w.cut()  # of this mount: another test may switch io_uring on meanwhile
    if round == 0:
        for i in range(WRITERS):
            os.mkdir(os.path.join(m, "w%d" % i))
    fs_pid = w.pid_of()
    kind = rnd.choices(["fs", "worker", "supervisor", "both"], [10, 3, 2, 2])[0]
    count[kind] += 1
    seeds, children = [rnd.randrange(1 << 60) for _ in range(WRITERS)], []
    for i in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            try:
                writer(os.path.join(m, "w%d" % i), models[i], seeds[i], w.path("log%d" % i))
            finally:
                os._exit(1)
        children.append(pid)
    time.sleep(rnd.uniform(0.02, 0.9))
    keyd_killed = time.monotonic()
    if kind == "worker":
        kill_all(workers())
        time.sleep(rnd.uniform(0, 0.5))
    elif kind == "supervisor":
        kill_all(w.keyd_pids())
        time.sleep(rnd.uniform(0, 0.3))
    fs_killed = time.monotonic()
    if kind == "both":
        kill_all(w.keyd_pids() + [fs_pid])
    else:
        kill_all([fs_pid])
    for pid in children:
        assert os.waitpid(pid, 0)[1] == 0, "round %d: a writer died" % round
    if kind == "worker":  # the supervisor starts another and hands it the root key: no passphrase
        wait_for(answers)
        assert w.status()["unlocked"], "round %d: locked after the worker was killed" % round
    elif kind in ("supervisor", "both"):
        w.keyd()
        w.unlock()
    m = w.mount()  # takes away what the killed daemon left by itself
    for i in range(WRITERS):
        op, failed, when = replay(models[i], w.path("log%d" % i))
        keyd_gone = kind != "fs" and isinstance(failed, int) and when >= keyd_killed  # a new study finds nobody to ask
        where = "round %d, seed %d, killed %s, writer %d, under way %s" % (round, SEED, kind, i, op)
        assert (failed in CUT and when >= fs_killed) or keyd_gone, "%s failed %.6f s after the kill: %s; dirs %s" % (
            where, when - fs_killed, errno.errorcode.get(failed, failed), models[i].dirs)
        if failed == errno.EIO and not keyd_gone:
            count["EIO"] += 1
            print("%s: EIO %.6f s after the kill" % (where, when - fs_killed), flush=True)
        count["in flight"] += op is not None
        try:
            models[i] = verify(os.path.join(m, "w%d" % i), models[i].uncertain(op), where)
        except AssertionError:
            if os.environ.get("LG_KILL_KEEP"):
                shutil.copytree(w.path("vault"), os.environ["LG_KILL_KEEP"], symlinks=True)
            raise
    if rnd.random() < 0.2:
        w.umount()
    if (round + 1) % 20 == 0:
        print("round %d: %s" % (round + 1, count), flush=True)

# Nothing depends on the files having been opened since: a clean remount, a lock and an unlock show the same.
m = w.remount() if "mnt" in w.mounts else w.mount()
for i in range(WRITERS):
    verify(os.path.join(m, "w%d" % i), [models[i]], "at the end")
write(os.path.join(m, "after"), read(data_files()[0]))
assert read(os.path.join(m, "after")) == read(data_files()[0])
w.cli("lock")
raises(errno.ENOKEY, read, os.path.join(m, "after"))
w.unlock()
w.umount()
print("ok", count, sum(len(m.files) for m in models), "files")
