"""How many requests of the kernel one file costs, by kind, and how many calls of the filesystem below: one more shows here, and hardly in a rate. libfuse's debugging output names each
request, and what is preloaded into leadglass-fs counts its calls (countcalls.c), so nothing is needed of the kernel but FUSE. The files are those of an archive's traffic: slices written under a temporary name and renamed, then looked at, opened, read and removed,
each phase with nothing in the kernel's caches. docs/PERFORMANCE.md has the sums beside those of other filesystems."""
import ctypes, os, re, struct, sys, time
from collections import Counter
from lib import *

FILES, SLICE, PIECE = 50, 524288, 65536
UNWAITED = {"FORGET", "BATCH_FORGET", "INTERRUPT"}  # as many as the kernel likes; nobody waits for them
GATHERED_S = 0.001  # over io_uring these are read this far apart, as each wakes a thread (linger, fs/front/ops.c)
MADE = {"LOOKUP": 2, "CREATE": 1, "FLUSH": 1, "RELEASE": 1, "RENAME": 1, "GETATTR": 2}
kernel = tuple(int(x) for x in re.findall(r"\d+", os.uname().release)[:3])
if kernel < (6, 12, 64) or (6, 13) <= kernel < (6, 18, 3):  # where writes go through the kernel's pages (fs/front/kernel.c): security.capability, for the first write alone
    MADE["GETXATTR"] = 1
OPENED = {"LOOKUP": 1, "OPEN": 1, "READ": 1, "RELEASE": 1}
LIMITS = {  # what one file may cost; of kinds that are not named: nothing
    "slice created": dict(MADE, WRITE=SLICE // PIECE),  # GETATTR: of the directory that has changed, for its permissions
    "4 KiB created": dict(MADE, WRITE=1),
    "listed, and sizes": {},  # a directory's own requests come to less than SLACK for each file
    "stat": {"LOOKUP": 1},
    "missing, asked 10 times": {"LOOKUP": 1},  # that there is none is kept as well
    "first 16 KiB read": OPENED,
    "slice read": dict(OPENED, READ=2),  # 496 KiB and the rest
    "unlinked after that": {"UNLINK": 1, "GETATTR": 1},
}
KINDS = "open", "close", "stat", "read", "write", "fcntl", "handle", "unlink", "rename", "times", "random"  # as in countcalls.c


def in_user_space():
    """Whether the kernel has its generator there (Linux 6.11), which takes no call."""
    try:
        vdso = ctypes.CDLL("linux-vdso.so.1", mode=os.RTLD_NOLOAD | os.RTLD_LAZY)
    except OSError:
        return False
    return any(hasattr(vdso, name) for name in ("__vdso_getrandom", "__kernel_getrandom"))


DRAWN = 0 if in_user_space() else 1
LOOKED_UP = {"handle": 1, "stat": 1}
HEAD = {"handle": 1, "stat": 2, "open": 1, "read": 2, "fcntl": 1, "close": 1}  # read: the header, chunks; fcntl: these move the access time below
CREATED = {"handle": 4, "stat": 4, "fcntl": 1, "close": 1, "rename": 1}  # handle: two names that nothing has, the new file, and what is renamed; stat: it, what is renamed, and twice the directory that has changed
BELOW = {  # the same of calls below, but openat, one for each file that is created
    # write: the empty file, each request, the header. random: the file's key, now and then ids for several files, and DRAWN times each request's nonces and each commit's salt
    "slice created": dict(CREATED, write=1 + SLICE // PIECE + 1, random=1 + DRAWN * (SLICE // PIECE + 2) + 0.2),
    "4 KiB created": dict(CREATED, write=2, random=1 + DRAWN * 3 + 0.2),
    "listed, and sizes": LOOKED_UP,
    "stat": LOOKED_UP,
    "first 16 KiB read": HEAD,
    "slice read": dict(HEAD, read=1 + 3),  # 256 KiB at a time; 496 KiB, and the rest
    "unlinked after that": {"unlink": 1, "stat": 2, "close": 1},  # stat: which inode it is, and the directory that has changed; held until its name is gone
}
SHIM = os.path.join(BIN, "countcalls.so")
SLACK, OTHERS = 0.15, 4  # OTHERS: calls of a kind that the mount's own clock makes in a second, at most


class Counted:
    """A mount in the foreground whose every request is printed."""

    def __init__(self, transport, own=False):
        self.own, self.transport, self.log, self.at, self.calls = own, transport, w.path("requests.log"), w.path("mnt"), w.path("calls")
        os.makedirs(self.at, exist_ok=True)
        write(self.calls, bytes(8 * len(KINDS)))
        counting = {"LD_PRELOAD": SHIM, "LG_CALLS": self.calls} if os.path.exists(SHIM) else {}
        with open(self.log, "wb") as log:
            self.fs = w.spawn(["env", *("%s=%s" % x for x in counting.items()), os.path.join(BIN, "leadglass-fs"), "--debug", "-o",
                               "entry_timeout=3600,attr_timeout=3600,transport=" + transport + ",noallow_other,nodefault_permissions" * own, w.path("vault-" + transport), self.at],
                              stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        w.mounts.append("mnt")
        wait_for(lambda: self.fs.poll() is not None or os.path.ismount(self.at))
        assert self.fs.poll() is None, read(self.log).decode(errors="replace")[-1000:]
        dev = os.stat(self.at).st_dev
        bdi = "/sys/class/bdi/%d:%d/read_ahead_kb" % (os.major(dev), os.minor(dev))
        if os.access(bdi, os.R_OK) and int(read(bdi)) < 496:  # where /sys cannot be written the mount does without
            LIMITS["slice read"]["READ"] = SLICE // 1024 // int(read(bdi)) + 1
            BELOW["slice read"]["read"] = 1 + 2 * LIMITS["slice read"]["READ"] + SLICE // 131072

    def count(self):
        return Counter(re.findall(r"opcode: (\w+) \(", read(self.log).decode(errors="replace")))

    def below(self):
        return Counter(dict(zip(KINDS, struct.unpack("%dQ" % len(KINDS), read(self.calls)))))

    def cost(self, what, opened, work):
        """Of work, which opens so many files for each of FILES, for one of them."""
        before, below, began = self.count(), self.below(), time.monotonic()
        for i in range(FILES):
            work(i)
        wait_for(lambda: (self.count() - before)["RELEASE"] >= opened * FILES)  # the last that it sends, and it does not wait for it
        got = self.count() - before
        each = {k: n / FILES for k, n in sorted(got.items()) if k not in UNWAITED}
        print("%-5s %-24s %5.2f  %s" % (self.transport, what, sum(each.values()), "  ".join("%s %.2f" % x for x in each.items())), flush=True)
        above = {k: n for k, n in each.items() if n > (0 if self.own and k == "GETATTR" else LIMITS[what].get(k, 0)) + SLACK}
        assert not above, (self.transport, self.own, what, "requests for each file above their limits", above, LIMITS[what])
        each = {k: n / FILES for k, n in sorted((self.below() - below).items())}
        print("%-5s %-24s %5.2f  %s" % ("below", "", sum(each.values()), "  ".join("%s %.2f" % x for x in each.items())), flush=True)
        slack = SLACK + OTHERS * (time.monotonic() - began) / FILES
        above = {k: n for k, n in each.items() if what in BELOW and n > BELOW[what].get(k, 0) + slack}
        assert not above, (self.transport, what, "calls below for each file above their limits", above, BELOW[what])

    def umount(self):
        w.umount()
        self.fs.wait(180)
        w.children.remove(self.fs)


def create(size, top):
    def one(i):
        fd = os.open(top + "/%d.part" % i, os.O_CREAT | os.O_WRONLY | os.O_TRUNC, 0o644)
        for at in range(0, size, PIECE):
            os.write(fd, b"\xa5" * min(PIECE, size - at))
        os.close(fd)
        os.rename(top + "/%d.part" % i, top + "/%d.dcm" % i)
    return one


def look(n, top):
    def one(i):
        fd = os.open(top + "/%d.dcm" % i, os.O_RDONLY)
        for at in range(0, n, 4 * PIECE):
            assert os.read(fd, min(n - at, 4 * PIECE)) == b"\xa5" * min(n - at, 4 * PIECE)
        os.close(fd)
    return one


def phases(transport):
    w.init("vault-" + transport)
    m = Counted(transport)
    top, small = m.at + "/study", m.at + "/small"
    os.mkdir(top)
    os.mkdir(small)
    m.cost("slice created", 1, create(SLICE, top))
    m.cost("4 KiB created", 1, create(4096, small))

    def cold(what, opened, work):
        nonlocal m
        m.umount()
        m = Counted(transport)
        if what != "listed, and sizes":
            os.stat(top)
        m.cost(what, opened, work)

    cold("listed, and sizes", 0, lambda i: i or [e.stat() for e in os.scandir(top)])
    cold("stat", 0, lambda i: os.stat(top + "/%d.dcm" % i))
    cold("missing, asked 10 times", 0, lambda i: [raises(errno.ENOENT, os.stat, top + "/missing-%d.dcm" % i) for _ in range(10)])
    cold("first 16 KiB read", 1, look(16384, top))
    cold("slice read", 1, look(SLICE, top))
    m.cost("unlinked after that", 0, lambda i: os.unlink(top + "/%d.dcm" % i))
    gathered(m, transport)
    m.umount()


def gathered(m, transport):
    """What the kernel forgets comes together over io_uring, and does come over either."""
    names = [m.at + "/forgotten-%d" % i for i in range(300)]
    for name in names:
        write(name, b"")
    before, began = m.count(), time.monotonic()
    for name in names:
        os.unlink(name)
    took = time.monotonic() - began

    def came():
        now = m.count() - before
        return now["FORGET"] + now["BATCH_FORGET"]
    wait_for(came)
    time.sleep(0.05)
    most = took / GATHERED_S + 2  # the last come when all is done
    print("%-5s %-24s %d, of %d files in %d ms" % (transport, "forgotten", came(), len(names), took * 1000), flush=True)
    if transport == "uring" and most >= len(names):
        left_out("whether forgets gather", "removing %d files took %d ms" % (len(names), took * 1000))
    assert transport == "dev" or came() <= most, ("forgets are to be read together", came(), took)


def unchecked():
    """Mounted for one user, no permissions checked: no attributes are asked for to check them."""
    m = Counted("dev", own=True)
    for what, size in (("slice created", SLICE), ("4 KiB created", 4096)):
        os.mkdir(m.at + "/%d-own" % size)
        m.cost(what, 1, create(size, m.at + "/%d-own" % size))
    m.cost("unlinked after that", 0, lambda i: os.unlink(m.at + "/4096-own/%d.dcm" % i))
    if os.geteuid() == 0:
        os.chmod(w.dir, 0o711)
        child = os.fork()
        if not child:  # anybody else
            try:
                os.setgid(65534)
                os.setuid(65534)
                os.stat(m.log)
                raises(errno.EACCES, os.stat, m.at + "/4096-own")
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0, "another user may enter a mount that checks no permissions"
    m.umount()
    r = w.run("leadglass", "mount", "-o", "allow_other,nodefault_permissions", w.path("vault-dev"), w.path("mnt"))
    assert r.returncode == 2 and "noallow_other" in r.stderr, (r.returncode, r.stderr)
    assert not os.path.ismount(w.path("mnt"))


w = World()
missing = ring_missing()
phases("dev")
unchecked()
r = missing or w.run("leadglass", "mount", "-o", "transport=uring", w.path("vault-dev"), w.path("mnt"))
if missing or r.returncode:
    left_out("requests over io_uring", missing or r.stderr)
else:
    w.cli("umount", w.path("mnt"))
    phases("uring")
