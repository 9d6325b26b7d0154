"""soak.py [--fsx PATH] [--fsstress PATH] [--minutes N] [--under DIR] [--seed S] [--ops N] [--stress=OPTIONS]: the public fsx and fsstress on a mount, in turn, four processes each.
After every round names, owners, modes, times, attributes and contents are compared before and after a remount. All that a round does follows from its seed, which
is printed: --seed S begins with that round. What is found ends it, and is left as it is. Not a test of ctest: the suites are not ours (docs/TESTING.md, Public suites)."""
import argparse, atexit, hashlib, stat
from lib import *

MODES = ["-c 200", "-Z -R -W -r 4096 -w 4096", "-l 3000000 -o 300000 -c 100", "-f -y -X -l 600000", "-W", "-R -X", "-e 1", "-e 1 -c 100 -s 1", "-y -c 50",
         "-Z -R -W -r 512 -w 512 -t 512 -l 1000000 -c 100"]
STRESS = "-f mread=4 -f mwrite=4 -f rwhiteout=0 -f rexchange=2 -f copyrange=2 -f dread=2 -f dwrite=2"  # mapped, exchanged, copied and direct beside the usual
PROCESSES = 4

a = argparse.ArgumentParser(usage=__doc__)
a.add_argument("--fsx", type=os.path.abspath)
a.add_argument("--fsstress", type=os.path.abspath)
a.add_argument("--minutes", type=float, default=10)
a.add_argument("--under", default="/dev/shm")
a.add_argument("--seed", type=int, default=random.randrange(1 << 28) * PROCESSES)
a.add_argument("--ops", type=int, help="operations of each process: 3,000 of fsx and 1,500 of fsstress unless told")
a.add_argument("--stress", default="", help="further options of fsstress: with \"-f unlink=12 -f rmdir=6\" and many operations the tree stays small")
a = a.parse_args()
kinds = [k for k in ("fsx", "fsstress") if getattr(a, k)]
if not kinds:
    skip("neither --fsx nor --fsstress is given; where they come from stands in docs/TESTING.md")
for k in kinds:
    if not os.access(getattr(a, k), os.X_OK):
        skip("%s is no program" % getattr(a, k))
if not os.path.isdir(a.under):
    skip("no directory " + a.under)


def say(*words):
    print(time.strftime("%H:%M:%S"), *words, flush=True)


def digest(f):
    h = hashlib.sha256()
    while b := f.read(1 << 20):
        h.update(b)
    return h.hexdigest()


def snapshot(top):
    def unreadable(e):
        raise e
    tree = {}
    for d, dirs, files in os.walk(top, onerror=unreadable):
        for p in [os.path.join(d, n) for n in dirs + files]:
            s = os.lstat(p)
            content = None
            if stat.S_ISLNK(s.st_mode):
                content = os.readlink(p)
            elif stat.S_ISREG(s.st_mode):
                with open(p, "rb") as f:
                    content = digest(f)
            attributes = sorted((x, os.getxattr(p, x, follow_symlinks=False)) for x in os.listxattr(p, follow_symlinks=False))
            tree[os.path.relpath(p, top)] = (s.st_mode, s.st_uid, s.st_gid, s.st_nlink, 0 if stat.S_ISDIR(s.st_mode) else s.st_size, s.st_mtime_ns, s.st_rdev, content, attributes)
    return tree


def commands(seed):
    """What the round of this seed runs: its kind, and for each process started a name for its output and its command."""
    n = seed // PROCESSES
    kind = kinds[n % len(kinds)]
    n //= len(kinds)
    if kind == "fsstress":
        d = os.path.join(m, "s")
        shutil.rmtree(d, ignore_errors=True)
        os.mkdir(d)
        return kind, [[a.fsstress, "-d", d, "-p", str(PROCESSES), "-n", str(a.ops or 1500), "-s", str(seed), *STRESS.split(), *a.stress.split()]]
    modes = [MODES[(n // 2 + k) % len(MODES)] if n % 2 else MODES[n // 2 % len(MODES)] for k in range(PROCESSES)]  # by turns mixed and all the same
    return kind, [[a.fsx, "-q", "-N", str(a.ops or 3000), "-S", str(seed + k), "-P", w.path("fsxlog"), *mode.split(), os.path.join(m, "f%d" % k)] for k, mode in enumerate(modes)]


def finding(*words):
    """All is left as it is: the daemons, the mount, the vault below and fsx's own logs."""
    say("FINDING", *words)
    say("seed", seed, "of this round; all is left in", w.dir)
    for f in sorted(os.listdir(w.dir)):
        if f.startswith(("said", "daemons", "sanitizer")):
            print("---- %s, the last of it" % f, read(w.path(f))[-3000:].decode(errors="replace"), sep="\n", flush=True)
    atexit.unregister(w.close)
    os._exit(1)


def run(cmds, end):
    """Until they end by themselves or the time is over. Returns the seconds by the clock, without those in which this program was stopped itself, and whether they were cut off."""
    spent, last, cut = 0, time.monotonic(), None
    ps = [w.spawn(c, stdout=open(w.path("said.%d" % k), "wb"), stderr=subprocess.STDOUT) for k, c in enumerate(cmds)]
    while any(p.poll() is None for p in ps):
        time.sleep(0.2)
        now = time.monotonic()
        spent += now - last if now - last < 10 else 0
        last = now
        if now > end and cut is None:
            cut = now
            for p in ps:
                p.terminate()
        if cut and now > cut + 1800:
            finding("a process has not ended half an hour after it was told to:", *[c for c, p in zip(cmds, ps) if p.poll() is None])
    for c, p in zip(cmds, ps):
        w.children.remove(p)
        if p.returncode and not (cut and p.returncode in (signal.SIGTERM, -signal.SIGTERM)):
            finding("exit status", p.returncode, "of", *c)
    return spent, cut is not None


signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # told to end, it leaves nothing behind
w = World(under=a.under)
os.mkdir(w.path("fsxlog"))
w.init()
m = w.mount()
seed, rounds, spent = a.seed // PROCESSES * PROCESSES, 0, dict.fromkeys(kinds, 0)
end = time.monotonic() + 60 * a.minutes
say("seed", seed, "transport", w.status()["mounts"][0]["transport"], "under", a.under)
try:
    while time.monotonic() < end:
        kind, cmds = commands(seed)
        took, cut = run(cmds, end)
        spent[kind] += PROCESSES * took
        rounds += 1
        before = snapshot(m)
        m = w.remount()
        after = snapshot(m)
        if before != after:
            differ = [(k, before.get(k), after.get(k)) for k in sorted(before.keys() | after.keys()) if before.get(k) != after.get(k)]
            finding(len(differ), "entries differ after the remount, such as", *differ[:5])
        if any(f.startswith("sanitizer") for f in os.listdir(w.dir)):
            finding("a sanitizer's report")
        modes = dict.fromkeys(" ".join(c[8:-1]) for c in cmds) if kind == "fsx" else []
        say("round", rounds, kind, *["(%s)" % x for x in modes], "seed", seed, "%.0f s%s," % (took, ", cut off by the time" if cut else ""), len(before), "entries")
        seed += PROCESSES
except (OSError, AssertionError, subprocess.TimeoutExpired) as e:
    finding(repr(e))
w.close()
say("no finding in", rounds, "rounds:", ", ".join("%s %d process-seconds by the clock" % (k, spent[k]) for k in kinds) + "; seeds", a.seed // PROCESSES * PROCESSES, "to", seed - 1)
