"""kill -9 of either daemon at random moments under mixed load. After each remount every file is compared with a model of what was acknowledged:
what was fsynced or closed is there, what was not is old, new or absent but never anything else, and no name is lost or invented. Readers follow what the
writers say of themselves, and meanwhile read what was acknowledged and list directories.

An operation that fails was not acknowledged, and must not fail before a daemon was killed: writers note when. EIO is as good an answer of the kernel as
ENOTCONN then: it gives it to a request that a dying process was just taking in (fs/fuse/dev.c, fuse_dev_do_read and its ring likewise: copying to memory
that is going away fails). What a ring gives besides stands at World.cut.

LG_KILL_ROUNDS (default 15; long mode 200) and LG_KILL_SEED repeat a run as far as chance in the kernel allows."""
import copy, ctypes, errno, os, pickle, random, shutil, signal, sys, time, traceback
from lib import *

ROUNDS = int(os.environ.get("LG_KILL_ROUNDS", "15"))
SEED = int(os.environ.get("LG_KILL_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
WRITERS, READERS, FILES_MAX, SIZE_MAX = 4, 2, 24, 300000
PUNCH_KEEP = 3
libc = ctypes.CDLL(None, use_errno=True)
print("rounds %d, LG_KILL_SEED=%d" % (ROUNDS, SEED), flush=True)


def payload(spec):
    kind, seed, size = spec
    return dicom_slice(seed, size) if kind == "dicom" else random.Random(seed).randbytes(size)


class File:
    """states: what it may hold after a crash, the last being what it holds now. committed: was ever fsynced or closed. Hard links share it."""
    def __init__(self):
        self.states, self.committed, self.attrs = [b""], False, {}

    def now(self):
        return self.states[-1]


class Model:
    """What one writer has under its directory. apply() follows an acknowledged operation."""
    def __init__(self):
        self.files, self.links, self.dirs = {}, {}, set()

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
        elif kind == "punch":
            b = bytearray(self.files[a].now())
            n = max(0, min(op[3], len(b) - op[2]))
            b[op[2]:op[2] + n] = bytes(n)
            self.files[a].states.append(bytes(b))
        elif kind in ("fsync", "close"):
            self.files[a].states, self.files[a].committed = self.files[a].states[-1:], True
        elif kind == "rename" and a in self.links:
            self.files.pop(op[2], None)
            self.links[op[2]] = self.links.pop(a)
        elif kind == "rename":
            if self.files.get(op[2]) is not self.files[a]:  # else two names of one file, and both stay
                self.links.pop(op[2], None)
                self.files[op[2]] = self.files.pop(a)
        elif kind == "link":
            self.files[op[2]] = self.files[a]
        elif kind == "symlink":
            self.links[a] = op[2]
        elif kind == "setxattr":
            self.files[a].attrs[op[2]] = op[3]
        elif kind == "removexattr":
            del self.files[a].attrs[op[2]]
        elif kind == "unlink":
            self.files.pop(a, None), self.links.pop(a, None)
        elif kind == "mkdir":
            self.dirs.add(a)
        elif kind == "rmdir":
            self.dirs.discard(a)
        elif kind == "renamedir":
            moved = lambda p: op[2] + p[len(a):] if p == a or p.startswith(a + "/") else p
            self.dirs = {moved(d) for d in self.dirs}
            self.files = {moved(p): f for p, f in self.files.items()}
            self.links = {moved(p): t for p, t in self.links.items()}

    def uncertain(self, op):
        """The two worlds after an operation of which nobody knows whether it took place."""
        after = copy.deepcopy(self)
        if op is None or op[0] in ("fsync", "close"):
            return [self]
        after.apply(op)
        return [after] if op[0] in ("write", "truncate", "punch") else [self, after]

    def names(self):
        return self.dirs | set(self.files) | set(self.links)


def choose(r, m, fds):
    files, inside = sorted(m.files), lambda d: d + "/" if d else ""
    place = lambda: inside(r.choice([""] + sorted(m.dirs)))
    other = r.random()
    if other < 0.12 and files:
        p, kind = r.choice(files), r.choice(["link", "symlink", "links", "punch", "setxattr", "setxattr", "removexattr"])
        f = m.files[p]
        if kind == "link" and len(files) < FILES_MAX:
            return ("link", p, place() + "h%06d" % r.randrange(10**12))
        if kind == "symlink" and len(m.links) < 8:
            return ("symlink", place() + "s%06d" % r.randrange(10**12), "t/" * r.randrange(100) + "%d" % r.randrange(1000000))
        if kind == "links" and m.links:
            s = r.choice(sorted(m.links))
            return ("unlink", s) if r.random() < 0.3 else ("rename", s, r.choice(files + sorted(m.links)) if r.random() < 0.4 else place() + "q%06d" % r.randrange(10**12))
        if kind == "punch":
            return ("punch", p, r.randrange(len(f.now()) + 1), r.choice([100, 4096, 16384, 70000]))
        if kind == "setxattr":
            return ("setxattr", p, "user.k%d" % r.randrange(3), r.randbytes(r.randrange(200)))
        if kind == "removexattr" and f.attrs:
            return ("removexattr", p, r.choice(sorted(f.attrs)))
    roll = r.random()
    if roll < 0.18 and len(files) < FILES_MAX or not files:
        return ("create", place() + "f%06d" % r.randrange(10**12))
    p = r.choice(files)
    size = len(m.files[p].now())
    if roll < 0.24:
        return ("rename", p, r.choice(files + sorted(m.links)) if r.random() < 0.7 else place() + "r%06d" % r.randrange(10**12))
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


def perform(top, op, fds, m):
    kind, p = op[0], os.path.join(top, op[1])
    if kind == "create":
        fds[op[1]] = os.open(p, os.O_RDWR | os.O_CREAT | os.O_EXCL)
    elif kind in ("write", "truncate", "punch"):
        if op[1] not in fds:
            fds[op[1]] = os.open(p, os.O_RDWR)
        if kind == "truncate":
            os.ftruncate(fds[op[1]], op[2])
        elif kind == "punch":
            if libc.fallocate(fds[op[1]], PUNCH_KEEP, ctypes.c_long(op[2]), ctypes.c_long(op[3])):
                raise OSError(ctypes.get_errno(), "fallocate")
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
        if kind == "rename" and not (op[1] in m.files and m.files.get(op[2]) is m.files[op[1]]):
            if op[2] in fds:
                os.close(fds.pop(op[2]))  # of the one that is gone
            if op[1] in fds:
                fds[op[2]] = fds.pop(op[1])
        elif kind == "renamedir":
            for q in [q for q in fds if q.startswith(op[1] + "/")]:
                fds[op[2] + q[len(op[1]):]] = fds.pop(q)
    elif kind == "link":
        os.link(p, os.path.join(top, op[2]))
    elif kind == "symlink":
        os.symlink(op[2], p)
    elif kind == "setxattr":
        os.setxattr(p, op[2], op[3])
    elif kind == "removexattr":
        os.removexattr(p, op[2])
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
            perform(top, op, fds, m)
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
                count["operations"] += 1
                kinds[op[0]] += 1
                op = None
            elif x[0] == "failed":
                failed, when = x[1:]
            else:
                op = x
    except (EOFError, pickle.UnpicklingError):
        return op, failed, when


class Follower:
    """What a reader knows of a writer: its model as far as its log goes, and what the operations since the last mark may have changed."""
    def __init__(self, m, log):
        self.m, self.log, self.op = m, open(log, "rb"), None
        self.mark()

    def mark(self):
        self.names, self.files, self.under = set(), [], []
        self.touch(self.op)

    def touch(self, op):
        """Before it is applied: an operation is in the log before it begins."""
        if not op:
            return
        self.names.update(x for x in (op[1:3] if op[0] in ("rename", "link", "renamedir") else op[1:2]))
        self.files += [self.m.files[x] for x in self.names if x in self.m.files]
        if op[0] == "renamedir":
            self.under += [op[1] + "/", op[2] + "/"]

    def catch_up(self):
        while True:
            at = self.log.tell()
            try:
                x = pickle.load(self.log)
            except (EOFError, pickle.UnpicklingError):
                self.log.seek(at)
                return
            if x[0] == "ok":
                self.m.apply(self.op)
                self.op = None
            elif x[0] != "failed":
                self.op = x
                self.touch(x)

    def untouched(self, p, f=None):
        return p not in self.names and not any(f is x for x in self.files) and not p.startswith(tuple(self.under))


def reader(tops, ms, logs, seed, out):
    """A child: reads files and lists directories until the daemon is gone. What nobody changed meanwhile must be as the model has it."""
    r, checked = random.Random(seed), {"read": 0, "listed": 0}
    whom = [(top, Follower(m, log)) for top, m, log in zip(tops, ms, logs)]

    def end(*how):
        with open(out, "wb") as f:
            pickle.dump((*how, time.monotonic(), checked), f)
        os._exit(0)

    def look(f, *a):
        try:
            return f(*a)
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODATA):
                return None  # moved or removed meanwhile
            end(e.errno)

    def body(p):
        with open(p, "rb") as f:
            if r.random() < 0.5:
                os.posix_fadvise(f.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)  # from the daemon once more
            return f.read(), {k: os.getxattr(p, k) for k in os.listxattr(p)}

    while True:
        top, on = r.choice(whom)
        on.catch_up()
        on.mark()
        if r.random() < 0.3 or not on.m.files:
            d = r.choice(["", *sorted(on.m.dirs)])
            before = {p for p in on.m.names() if os.path.dirname(p) == d}
            got = look(os.listdir, os.path.join(top, d))
            on.catch_up()
            if not on.untouched(d):
                continue
            if got is None:
                end("%s/%s cannot be listed" % (top, d))
            got = {os.path.join(d, x) for x in got}
            bad = sorted(p for p in got ^ before if on.untouched(p))
            if bad:
                end("%s/%s: wrong in its listing: %s" % (top, d, bad))
            checked["listed"] += 1
        else:
            p = r.choice(sorted(on.m.files))
            f = on.m.files[p]
            want = f.now(), dict(f.attrs)
            got = look(body, os.path.join(top, p))
            on.catch_up()
            if not on.untouched(p, f):
                continue
            if got != want:
                end("%s/%s: read %s, acknowledged %s" % (top, p, "nothing" if not got else "%d bytes, attributes %s" % (len(got[0]), sorted(got[1])),
                                                         "%d bytes, attributes %s" % (len(want[0]), sorted(want[1]))))
            checked["read"] += 1


def listing(top):
    dirs, files, links = set(), set(), set()
    for d, ds, fs in os.walk(top, onerror=lambda e: (_ for _ in ()).throw(e)):
        at = os.path.relpath(d, top)
        name = lambda n: n if at == "." else at + "/" + n
        for x in ds + fs:
            (links if os.path.islink(os.path.join(d, x)) else dirs if x in ds else files).add(name(x))
    return dirs, files, links


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
    dirs, files, links = listing(top)
    fits = [m for m in worlds if m.dirs == dirs and set(m.files) == files and set(m.links) == links]
    assert fits, "%s: names: missing %s, unexpected %s" % (where, sorted(worlds[0].names() - dirs - files - links), sorted((dirs | files | links) - worlds[0].names()))
    wrong = []
    for m in fits:
        found, wrong, same = Model(), [], {}
        found.dirs, found.links = set(m.dirs), dict(m.links)
        for p, t in m.links.items():
            if os.readlink(os.path.join(top, p)) != t:
                wrong.append("%s: points to %s, not to %s" % (p, os.readlink(os.path.join(top, p)), t))
        for p, f in m.files.items():
            at = os.path.join(top, p)
            try:
                got = read(at)
                attrs = {k: os.getxattr(at, k) for k in os.listxattr(at)}
            except OSError as e:
                if f.committed or e.errno != errno.EIO:
                    wrong.append("%s: %s" % (p, e))
                continue
            said = is_one_of(got, f.states)
            if said:
                wrong.append("%s: %s (%d states, %s)" % (p, said, len(f.states), "committed" if f.committed else "never committed"))
            elif os.stat(at).st_size != len(got):
                wrong.append("%s: stat says %d, %d bytes were read" % (p, os.stat(at).st_size, len(got)))
            if attrs != f.attrs:
                wrong.append("%s: attributes %s, acknowledged were %s" % (p, attrs, f.attrs))
            names = sum(x is f for x in m.files.values())
            if os.stat(at).st_nlink != names:
                wrong.append("%s: %d links, %d names" % (p, os.stat(at).st_nlink, names))
            one = (os.stat(at).st_ino, got)
            if same.setdefault(id(f), one) != one:
                wrong.append("%s: another file than its other names" % p)
            found.files[p] = next((x for q, x in found.files.items() if m.files[q] is f), File())
            found.files[p].states, found.files[p].committed, found.files[p].attrs = [got], True, attrs
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
count = dict.fromkeys(["fs", "worker", "supervisor", "both", "operations", "never durable", "in flight", "EIO", "read", "listed"], 0)
kinds = dict.fromkeys(["create", "write", "truncate", "punch", "fsync", "close", "rename", "link", "symlink", "setxattr", "removexattr", "unlink", "mkdir", "rmdir", "renamedir"], 0)
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
        write(w.path("log%d" % i), b"")
    for i in range(WRITERS):
        pid = os.fork()
        if pid == 0:
            try:
                writer(os.path.join(m, "w%d" % i), models[i], seeds[i], w.path("log%d" % i))
            finally:
                os._exit(1)
        children.append(pid)
    for i in range(READERS):
        mine = range(i, WRITERS, READERS)
        pid = os.fork()
        if pid == 0:
            try:
                reader([os.path.join(m, "w%d" % j) for j in mine], [models[j] for j in mine], [w.path("log%d" % j) for j in mine], SEED + round * READERS + i, w.path("read%d" % i))
            except BaseException:
                traceback.print_exc()
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
        assert os.waitpid(pid, 0)[1] == 0, "round %d: a writer or reader died" % round
    if kind == "worker":  # the supervisor starts another and hands it the root key: no passphrase
        wait_for(answers)
        assert w.status()["unlocked"], "round %d: locked after the worker was killed" % round
    elif kind in ("supervisor", "both"):
        w.keyd()
        w.unlock()
    m = w.mount()  # takes away what the killed daemon left by itself
    for i in range(READERS):
        failed, when, checked = pickle.loads(read(w.path("read%d" % i)))
        assert (failed in CUT and when >= fs_killed) or (kind != "fs" and isinstance(failed, int) and when >= keyd_killed), "round %d, seed %d, killed %s, reader %d, %.6f s after the kill: %s" % (
            round, SEED, kind, i, when - fs_killed, errno.errorcode.get(failed, failed))
        for x in checked:
            count[x] += checked[x]
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
assert count["read"] and count["listed"], count
print("ok", count, kinds, sum(len(m.files) for m in models), "files")
