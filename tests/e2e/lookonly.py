"""Looking opens nothing: names, sizes and times of files are had without one file below being opened or read. Two witnesses: inotify(7) on every lower file, which tells of an
open and a read however they are asked for (system call or io_uring), and strace(1), where it is there, which tells of what is opened to be looked at only (O_PATH) as well."""
import ctypes, re, shutil
from lib import *

FILES, SIZE = 50, 40000
IN_ACCESS, IN_OPEN, IN_NONBLOCK, IN_CLOEXEC = 0x1, 0x20, 0o4000, 0o2000000
libc = ctypes.CDLL(None, use_errno=True)


class Watch:
    """Counts opens and reads of each of the paths."""

    def __init__(self, paths):
        self.fd = libc.inotify_init1(IN_NONBLOCK | IN_CLOEXEC)
        assert self.fd >= 0, os.strerror(ctypes.get_errno())
        self.at = {}
        for p in paths:
            wd = libc.inotify_add_watch(self.fd, os.fsencode(p), IN_ACCESS | IN_OPEN)
            assert wd >= 0, (p, os.strerror(ctypes.get_errno()))
            self.at[wd] = p

    def seen(self):
        """Until now, as (path, open or access); the kernel has queued them before the call that caused them returned."""
        got = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return got
            while data:
                wd, mask, _, n = struct.unpack_from("iIII", data)
                assert wd in self.at, "inotify's queue ran over"
                got.append((self.at[wd], "open" if mask & IN_OPEN else "access"))
                data = data[16 + n:]


class Calls:
    """strace of the daemon: each call that opens or reads, with the path of what was opened or read."""

    def __init__(self, pid):
        self.out = w.path("calls.log")
        with open(w.path("strace.log"), "wb") as said:
            self.p = w.spawn(["strace", "-f", "-y", "-s", "256", "-e", "signal=none", "-e", "trace=open,openat,openat2,open_by_handle_at,pread64,preadv,preadv2,mmap",
                              "-o", self.out, "-p", str(pid)], stderr=said, stdin=subprocess.DEVNULL)
        wait_for(lambda: self.p.poll() is not None or traced(pid))
        self.missing = self.p.poll() is not None and (read(w.path("strace.log")).decode(errors="replace").strip() or "it ended")

    def end(self):
        self.p.terminate()  # it lets go of the daemon
        self.p.wait(180)
        w.children.remove(self.p)
        return read(self.out).decode(errors="replace").splitlines()


def traced(pid):
    """Every thread of it."""
    try:
        return all(re.search(rb"^TracerPid:\s+[1-9]", read("/proc/%d/task/%s/status" % (pid, t)), re.M) for t in os.listdir("/proc/%d/task" % pid))
    except OSError:  # a thread that has just ended
        return False


def lower_files():
    return sorted(os.path.join(d, n) for d, _, names in os.walk(w.path("vault", "root")) for n in names if os.lstat(os.path.join(d, n)).st_size > SIZE)


def cold():
    w.remount()
    return w.path("mnt", "study")


def quietly(what, work):
    """work over a mount that knows nothing yet, and nothing is opened or read below but directories."""
    top = cold()
    files, tracer = lower_files(), Calls(w.pid_of()) if shutil.which("strace") else None
    assert len(files) == FILES, files
    watch = Watch(files)
    work(top)
    seen = watch.seen()
    assert not seen, (what, "of %d files below, these were opened or read" % FILES, len(seen), seen[:4])
    if not tracer or tracer.missing:
        left_out("calls of %s, counted by strace" % what, tracer.missing if tracer else "strace is not installed")
    else:
        lines = tracer.end()
        opened = re.findall(r"open\w*(?:\(| resumed>).* = \d+<(/[^>]*)>", "\n".join(lines))
        touched = [l for l in lines if any(os.path.basename(f) in l for f in files)]
        assert not touched, (what, len(touched), touched[:4])
        below = [p for p in opened if p.startswith(w.path("vault"))]
        assert below and all(os.path.isdir(p) for p in below), (what, below)
        assert len(below) <= 4, (what, "%d directories opened for %d files" % (len(below), FILES), below)
        print("%s: directories opened below %d, files 0" % (what, len(below)), flush=True)
    # The witnesses see: one file read is one that is seen.
    assert read(top + "/7.dcm") == b"\xa5" * SIZE
    wait_for(lambda: seen.extend(watch.seen()) or {"open", "access"} <= {how for _, how in seen})
    assert len({p for p, _ in seen}) == 1, seen
    os.close(watch.fd)


def stats(top):
    for i in range(FILES):
        st = os.stat(top + "/%d.dcm" % i)
        assert st.st_size == SIZE, st


def listing(top):
    r = subprocess.run(["ls", "-l", top], stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()
    assert len(r) == FILES + 1 and all(str(SIZE) in l.split() for l in r[1:]), r


def looks(top):
    """What else asks and opens nothing."""
    for i in range(FILES):
        path = top + "/%d.dcm" % i
        assert os.access(path, os.R_OK) and os.path.getmtime(path) and not os.path.islink(path)
        os.listxattr(path)


w = World()
w.init()
w.mount()
if not w.status()["mounts"][0]["file_handles"]:
    skip("the filesystem below gives no file handles: each file that is looked up is held by a descriptor there")
os.mkdir(w.path("mnt", "study"))
for i in range(FILES):
    write(w.path("mnt", "study", "%d.dcm" % i), b"\xa5" * SIZE)
quietly("stat", stats)
quietly("ls -l", listing)
quietly("access, times and attributes", looks)
w.umount()
