"""The programs of tools/bench, each in its smallest form (--quick): they end well, their tables are whole, every cell filled, and the chart is one. Figures are not looked at.
And that the peers which compare mounts for all users are what they are called: another user reads there what is open to all, and nothing else."""
import importlib.machinery, importlib.util, shutil, xml.etree.ElementTree
from lib import *

TOOLS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../tools/bench")
need_fuse()
if SANITIZED:
    skip("tools/bench measures builds without sanitizers")
top = tempfile.mkdtemp(prefix="lg-e2e-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
atexit.register(shutil.rmtree, top, ignore_errors=True)
fio = shutil.which("fio")


def run(tool, *args):
    """What it prints, and to standard error."""
    t = time.monotonic()
    r = subprocess.run([sys.executable, os.path.join(TOOLS, tool), "--bin", BIN, "--quick", *args], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL, timeout=1500)
    print("%s %s: %.1f s" % (tool, " ".join(a.replace(top, "DIR") for a in args), time.monotonic() - t), flush=True)
    return r


def well(tool, *args):
    r = run(tool, *args)
    assert r.returncode == 0, (tool, args, r.returncode, r.stdout, r.stderr)
    return r


def tables(text):
    """Every table of it, as rows of cells, the head first. All rows are as long as the head, and only its own first cell may be empty."""
    found = [block.splitlines() for block in re.findall(r"(?:^\|.*\|\n)+", text, re.M)]
    for lines in found:
        assert re.fullmatch(r"\|(---\|)+", lines[1]), lines[:3]
    got = [[[c.strip() for c in line.strip("|").split("|")] for line in lines[:1] + lines[2:]] for lines in found]
    for head, *rows in got:
        assert rows and all(len(r) == len(head) for r in rows) and all(head[1:]), (head, rows)
    return got


def filled(head, rows):
    """Each cell but a row's name is figures."""
    number = r"[+-]?\d+(\.\d+)?"
    for r in rows:
        assert r[0] and all(re.fullmatch(r"%s(, %s)*( %%)?" % (number, number), c) for c in r[1:]), (head, r)


def the_only(text):
    got = tables(text)
    assert len(got) == 1, text
    filled(got[0][0], got[0][1:])
    return got[0][0], {r[0]: r[1:] for r in got[0][1:]}


def compared(compare):
    systems = ["leadglass:dev", "passthrough:dev", "floor:dev"]
    svg, figures = os.path.join(top, "chart.svg"), os.path.join(top, "figures.json")
    r = well("compare", "--svg", svg, "--json", figures, *([] if fio else ["--rows", "create,create4k"]), *systems, "encfs" if not shutil.which("encfs") else "native")
    wrong = run("compare", "--rows", "head,heads", "leadglass")
    assert wrong.returncode == 2 and "no such row: heads" in wrong.stderr and not wrong.stdout, wrong
    if not shutil.which("encfs"):  # one that is not there is named, and the others are measured
        assert "encfs is left out: encfs is not installed" in r.stdout and "encfs is left out" in r.stderr, (r.stdout, r.stderr)
    head, rows = the_only(r.stdout)
    large = {"seqwrite", "seqread", "reread", "streams", "rand4k", "cpu_write", "cpu_read"}
    wanted = [title for row, title in compare.ROWS.items() if fio or row not in large]
    assert list(rows) == wanted, (list(rows), wanted)
    for i, s in enumerate(systems):
        assert head[1 + i].startswith(s), (s, head)
    got = json.loads(read(figures))
    assert all(len(got[s]) == 1 for s in systems), got
    drawing = xml.etree.ElementTree.parse(svg).getroot()
    bars = [e for e in drawing.iter("{http://www.w3.org/2000/svg}rect") if e.get("x") == "260"]
    assert drawing.tag.endswith("}svg") and len(bars) == len(got) * len([t for r, t in compare.ROWS.items() if t in wanted and r not in compare.LESS_IS_BETTER]), len(bars)
    assert all(s in "".join(drawing.itertext()) for s in systems), "names in the chart"
    if not fio:
        left_out("compare: large files", "fio is not installed")
    for p in ("gocryptfs", "securefs"):
        if shutil.which(p):
            shared(compare, p)
        else:
            left_out("compare: " + p + ":shared", "not installed")


def shared(compare, peer):
    s = compare.System(peer + ":shared", top, BIN)
    os.chmod(top, 0o711)
    os.chmod(s.base, 0o711)

    def other(*cmd):
        return subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", *cmd], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        s.mount()  # and looks at /proc/mounts
        for name, mode in (("open", 0o644), ("shut", 0o600)):
            write(os.path.join(s.mnt, name), name.encode())
            os.chmod(os.path.join(s.mnt, name), mode)
        r = other("cat", os.path.join(s.mnt, "open"))
        assert (r.returncode, r.stdout) == (0, "open"), (peer, r)
        r = other("cat", os.path.join(s.mnt, "shut"))
        assert r.returncode and not r.stdout and "Permission denied" in r.stderr, (peer, r)
        r = other("touch", os.path.join(s.mnt, "mine"))
        assert r.returncode and "Permission denied" in r.stderr and not os.path.exists(os.path.join(s.mnt, "mine")), (peer, r)
    finally:
        s.close()


def grown(growth):
    what = [x for x in growth.WHAT if fio or x != "size"]
    r = well("growth", "--transport", "dev", *(x for w in what for x in ("--what", w)))
    got = tables(r.stdout)
    assert [t[0][0] for t in got] == [growth.WHAT[w][0] for w in what], [t[0] for t in got]
    for w, (head, *rows) in zip(what, got):
        filled(head, rows)
        assert [x[0] for x in rows] == [str(n) for n in growth.QUICK[w]] + ["last / first", "power"], rows
    if not fio:
        left_out("growth: size", "fio is not installed")


def profiled(profile):
    phases = [p for p in profile.ITEMS if fio or p not in profile.LARGE]
    head, rows = the_only(well("profile", "--shares", "--transport", "dev", *phases).stdout)
    assert list(rows) == [profile.ITEMS[p][0] for p in phases], rows
    if not shutil.which("perf"):
        r = run("profile")
        assert r.returncode == 1 and "perf is not installed" in r.stderr, r
        return left_out("profile", "perf is not installed")
    r = run("profile", "--transport", "dev", "read", "create")
    if r.returncode and "perf cannot sample this machine" in r.stderr:
        return left_out("profile", r.stderr)
    assert r.returncode == 0, (r.stdout, r.stderr)
    (head, *rows), = tables(r.stdout)
    assert head == ["", "slice read", "slice create"], head
    assert rows[-1][0] == "samples" and all(int(c) > 0 for c in rows[-1][1:]), rows[-1]
    for i in (1, 2):
        sum_of = sum(float(x[i].rstrip(" %") or 0) for x in rows[:-1])
        assert abs(sum_of - 100) <= len(rows) / 2, (head[i], "per cent in all", sum_of)


def from_disk(disk):
    """Each figure with the rounds that it is of."""
    def lines(r, names):
        for name in names:
            assert re.search(r"^%s +median +\d+(\.\d+)?   +\d" % re.escape(name), r.stdout, re.M), (name, r.stdout)
    if not fio:
        return left_out("disk", "fio is not installed")
    if not os.access("/proc/sys/vm/drop_caches", os.W_OK):
        left_out("disk", "/proc/sys/vm/drop_caches cannot be written here")
    else:
        r = run("disk", "--transport", "dev", top)
        if r.returncode and "CalledProcessError" in r.stderr and "--direct=1" in r.stderr:
            left_out("disk", "no O_DIRECT, or no io_uring of fio, in " + os.path.dirname(top))
        else:
            assert r.returncode == 0, (r.stdout, r.stderr)
            lines(r, ["one file", "one file, passthrough", "one file below", "eight readers", "eight, passthrough", "eight below", "page cache, MiB", "one file / below",
                      "one file / passthrough", "eight readers / below", "eight readers / passthrough"])
    r = well("disk", "--slow", "1", "--transport", "dev", top)
    lines(r, [what + " " * (14 - len(what)) + " cold_reads=" + how for what in ("one file", "eight readers") for how in ("auto", "pread")])
    for what in ("one file", "eight readers"):
        assert re.search(r"^%s +auto / pread +median +\d+\.\d+$" % what, r.stdout, re.M), r.stdout


def databases(tool):
    r = well("databases", "--transport", "dev")
    head, rows = the_only(r.stdout)
    assert list(rows) == ["16"] and head[1:7:2] == ["SQLite inserts/s", "SQLite updates/s", "SQLite selects/s"], (head, rows)
    assert ("pgbench/s" in head) == ("PostgreSQL is left out" not in r.stderr), (head, r.stderr)
    if "pgbench/s" not in head:
        left_out("databases: PostgreSQL", "not installed")


def load(name):
    loader = importlib.machinery.SourceFileLoader(name, os.path.join(TOOLS, name))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(name, loader))
    loader.exec_module(module)
    return module


for name, check in (("compare", compared), ("growth", grown), ("profile", profiled), ("disk", from_disk), ("databases", databases)):
    check(load(name))
