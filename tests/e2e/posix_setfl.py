"""Flags of an open file that fcntl(F_SETFL) changes: what was set is obeyed from then on, here as on the filesystem below. O_NOATIME: reads move no access time, and do again once it
is taken away. O_DIRECT: what is written is there for others, for mappings and for the handle itself, also where that only writes, which goes past the kernel's pages; and behind
asynchronous writes, where the kernel drops no page that a reader asked for meanwhile: neither of a handle that was given O_DIRECT later, nor of one that was opened so."""
import ctypes, errno, fcntl, mmap, os, platform, random, struct, threading
from lib import *

w = World(under=os.environ.get("LG_POSIX_UNDER", "/dev/shm"))
w.init()
m = w.mount()
lower = w.path("plain")
os.mkdir(lower)
OLD = 10**18 + 123456789
SIZE, PAGE = 1 << 20, 4096


def flags(fd, on, off=0):
    fcntl.fcntl(fd, fcntl.F_SETFL, fcntl.fcntl(fd, fcntl.F_GETFL) & ~off | on)


# ---- O_NOATIME, of handles for both (opening one for reading alone counts as a read on the mount) and of what is not in the kernel's memory
def reads_moved(base):
    did = []
    for i, first in enumerate((0, os.O_NOATIME)):
        p = os.path.join(base, "a%d" % i)
        write(p, b"\xa5" * SIZE)
        fd = os.open(p, os.O_RDWR | first)
        for now in (first, first ^ os.O_NOATIME, first):
            flags(fd, now, os.O_NOATIME)
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
            os.utime(p, ns=(OLD, os.stat(p).st_mtime_ns))
            assert os.pread(fd, 1000, 5000) == b"\xa5" * 1000
            did.append((bool(now & os.O_NOATIME), os.stat(p).st_atime_ns != OLD))
        os.close(fd)
    return did


a, b = reads_moved(m), reads_moved(lower)
assert a == b, (a, b)
assert not any(moved for without, moved in b if without), b


# ---- O_DIRECT: every write is seen by everybody once it has returned
def direct(base, how):
    p = os.path.join(base, "d%d" % how)
    write(p, b"\0" * SIZE)
    model, r = bytearray(SIZE), random.Random(7)
    fd, ro, rw = os.open(p, how), os.open(p, os.O_RDONLY), os.open(p, os.O_RDWR)
    shared = mmap.mmap(rw, SIZE)
    page = mmap.mmap(-1, 16 * PAGE)
    for i in range(200):
        if i % 20 == 0:
            on = i // 20 % 2
            flags(fd, os.O_DIRECT * on, os.O_DIRECT)
        n = r.randrange(1, 17) * PAGE
        at = r.randrange((SIZE - n) // PAGE + 1) * PAGE
        if i % 5 == 4:  # by the mapping, and written back: with O_DIRECT the kernel does that before a read or write, without they share the page
            shared[at:at + n] = model[at:at + n] = r.randbytes(n)
        else:
            page[:n] = model[at:at + n] = r.randbytes(n)
            with memoryview(page) as v:
                assert os.pwritev(fd, [v[:n]], at) == n
        at = r.randrange(max(0, at - 4 * PAGE), min(SIZE - PAGE, at + n)) // PAGE * PAGE
        assert os.pread(ro, PAGE, at) == model[at:at + PAGE], (i, at)
        assert shared[at:at + PAGE] == model[at:at + PAGE], ("mapped", i, at)
        if how == os.O_RDWR:
            with memoryview(page) as v:
                assert os.preadv(fd, [v[:PAGE]], at) == PAGE and v[:PAGE] == model[at:at + PAGE], ("by itself", i, at)
    shared.close()
    for f in fd, ro, rw:
        os.close(f)
    assert read(p) == model
    return bytes(model)


for how in os.O_WRONLY, os.O_RDWR:
    got = direct(m, how)
    try:
        assert direct(lower, how) == got
    except OSError as e:
        if e.errno != errno.EINVAL:
            raise
        left_out("O_DIRECT on the filesystem below", e)
m = w.remount()


# ---- asynchronous writes beside readers: none sees anything older than what had been written when it began
class Aio:
    SETUP, GETEVENTS, SUBMIT = (206, 208, 209) if platform.machine() == "x86_64" else (0, 4, 2)

    def __init__(self):
        self.call = ctypes.CDLL(None, use_errno=True).syscall
        self.ctx = ctypes.c_ulong(0)
        assert self.call(self.SETUP, 8, ctypes.byref(self.ctx)) == 0, os.strerror(ctypes.get_errno())

    def write(self, fd, buf, n, at):
        cb = ctypes.create_string_buffer(struct.pack("<QIIHhIQQqQII", 0, 0, 0, 1, 0, fd, ctypes.addressof(buf), n, at, 0, 0, 0), 64)
        assert self.call(self.SUBMIT, self.ctx, ctypes.c_long(1), (ctypes.c_void_p * 1)(ctypes.addressof(cb))) == 1, os.strerror(ctypes.get_errno())
        done = ctypes.create_string_buffer(32)
        assert self.call(self.GETEVENTS, self.ctx, ctypes.c_long(1), ctypes.c_long(1), done, None) == 1
        return struct.unpack("<QQqq", done.raw)[2]


def beside(p, how, later):
    write(p, b"\0" * SIZE)
    fd, ro = os.open(p, how), os.open(p, os.O_RDONLY)
    flags(fd, later)
    page, shared = mmap.mmap(-1, PAGE), mmap.mmap(ro, SIZE, prot=mmap.PROT_READ)
    buf, aio = (ctypes.c_char * PAGE).from_buffer(page), Aio()
    AT = 8 * PAGE
    stop, done, stale = threading.Event(), [0], []

    def reader():
        while not stop.is_set():
            least = done[0]
            got = int.from_bytes(os.pread(ro, 8, AT), "little")
            if got < least:
                stale.append(("beside", got, least))
    threads = [threading.Thread(target=reader) for _ in range(3)]
    for t in threads:
        t.start()
    for i in range(1, 2001):
        buf[:8] = i.to_bytes(8, "little")
        assert aio.write(fd, buf, PAGE, AT) == PAGE
        done[0] = i
        for what, got in ("read", os.pread(ro, 8, AT)), ("mapped", shared[AT:AT + 8]):
            if int.from_bytes(got, "little") != i:
                stale.append((what, int.from_bytes(got, "little"), i))
    stop.set()
    for t in threads:
        t.join()
    assert not stale, (how, later, len(stale), stale[:5])
    os.close(fd)
    os.close(ro)


if platform.machine() in ("x86_64", "aarch64"):
    for i, (how, later) in enumerate(((os.O_WRONLY, os.O_DIRECT), (os.O_RDWR, os.O_DIRECT), (os.O_WRONLY | os.O_DIRECT, 0), (os.O_RDWR | os.O_DIRECT, 0))):
        beside(os.path.join(m, "aio%d" % i), how, later)
else:
    left_out("asynchronous writes", "the numbers of its calls are not known for " + platform.machine())
w.umount()
w.close()
print("flags set later: ok")
