"""What is read cold does not stay in memory twice: the kernel keeps the plaintext above, and the ciphertext below is let go of, by one reader and by eight at once, and not
before it was read, or it would be read from the disk again. What was in memory below before stays there, as others may have put it there. Counted in pages of the lower file
(mincore), and in bytes that the mount had fetched (/proc/PID/io)."""
import ctypes, mmap, os, sys, threading
from lib import *

SIZE, READERS, PAGE = 32 << 20, 8, mmap.PAGESIZE
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p]


def resident(path, size=None):
    """The share of its pages, or of those of its first bytes, that are in memory."""
    fd = os.open(path, os.O_RDONLY)
    size = size or os.fstat(fd).st_size
    at = libc.mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    assert at not in (None, ctypes.c_void_p(-1).value), os.strerror(ctypes.get_errno())
    pages = ctypes.create_string_buffer((size + PAGE - 1) // PAGE)
    assert libc.mincore(at, size, pages) == 0, os.strerror(ctypes.get_errno())
    libc.munmap(at, size)
    return sum(b & 1 for b in pages.raw[:(size + PAGE - 1) // PAGE]) / ((size + PAGE - 1) // PAGE)


def forget(path, since=0):
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, since, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def stored():
    return sorted(p for p in (os.path.join(d, n) for d, _, names in os.walk(w.path("vault", "root")) for n in names) if os.lstat(p).st_size > SIZE)


def below(when):
    shares = [resident(p) for p in stored()]
    print("%-34s %s" % (when, " ".join("%.2f" % s for s in shares)), flush=True)
    return shares


w = World(under=os.environ.get("LG_DISK", "/var/tmp"))
w.init()
m = w.mount()
body = [random.Random(i).randbytes(SIZE) for i in range(READERS)]
for i in range(READERS):
    write(m + "/%d" % i, body[i])
w.umount()
assert len(stored()) == READERS


def fetched(pid=None):
    """Bytes that it had the disk read; 0 where the kernel does not count them."""
    count = re.search(rb"^read_bytes: (\d+)", read("/proc/%d/io" % (pid or w.pid_of())), re.M) if os.path.exists("/proc/self/io") else None
    return int(count[1]) if count else 0


def read_all(which):
    """Cold above, by a thread each; the mount goes on until what is below was counted. Returns what was fetched for it, of what is stored."""
    w.mount()
    before = fetched()
    got = {}
    threads = [threading.Thread(target=lambda i=i: got.update({i: read(m + "/%d" % i) == body[i]})) for i in which]
    for t in threads:
        t.start()
    for t in threads:
        t.join(600)
    assert got == {i: True for i in which}, got
    return (fetched() - before) / sum(os.lstat(p).st_size for p in stored()) * READERS / len(which)


for p in stored():
    forget(p)
if max(below("let go of by hand")) > 0.05:
    skip("the filesystem of %s keeps everything in memory; LG_DISK=DIR names another" % w.dir)
before = fetched(os.getpid())
counted = len(read(stored()[0])) * 0.9 < fetched(os.getpid()) - before
if not counted:
    left_out("how often ciphertext is fetched", "what this kernel counts of reads from %s is not what was read" % w.dir)
for who in ([0], range(READERS)):
    for _ in range(3):  # another program on the machine may drop all caches meanwhile
        for p in stored():
            forget(p)
        times = read_all(who)
        try:
            wait_for(lambda: max(resident(p) for p in stored()) <= 0.01, 20)  # the rest of each is let go of when it is closed, which nobody waits for
        finally:
            below("read cold by %d, fetched %.3f times" % (len(who), times))
        w.umount()
        if times < 1.003:
            break
    assert not counted or 0.9 < times < 1.003, ("ciphertext was let go of before it was read", times)
for _ in range(20):  # the same here
    for p in stored():
        assert len(read(p)) > SIZE
    kept = min(below("read below, by others")) == 1
    read_all(range(READERS))
    w.umount()  # what is closed lets go of nothing either
    kept = min(below("read again through the mount")) == 1 and kept
    if kept:
        break
assert kept, "what others have below in memory was taken from them"
for _ in range(20):  # a little of what nobody has in memory is read, of a file whose other part somebody has
    assert len(read(stored()[0])) > SIZE
    forget(stored()[0], SIZE * 3 // 4)
    kept = resident(stored()[0], SIZE // 2) == 1
    w.mount()
    for i in range(READERS):  # one of them is that
        with open(m + "/%d" % i, "rb", 0) as f:
            assert os.pread(f.fileno(), 4096, SIZE * 7 // 8) == body[i][SIZE * 7 // 8:][:4096]
    w.umount()
    share = resident(stored()[0], SIZE // 2)
    print("a little read behind it            %.2f" % share, flush=True)
    kept = share == 1 and kept
    if kept:
        break
assert kept, "what others have below in memory was taken from them, for a little that was not"
print("ok")
