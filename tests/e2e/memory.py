"""After a lock or a revocation no key and no passphrase is left in the memory of the key manager or of a mount: their whole memory is searched for
keys that were in use before, and for whatever else stood in locked memory.

LG_VALGRIND=1: the key manager under memcheck, which keeps what was freed as it was; its errors and leaks fail the test, too."""
import errno, os, re, shutil, socket, struct, sys
from lib import *

if os.environ.get("LG_VALGRIND") and not shutil.which("valgrind"):
    skip("no valgrind")

PASSPHRASE = b"ninety-one lead bricks in a wall of glass"
MAGIC, VAULT_GET, STUDY_KEY = 0x314b474c, 8, 9


def ask(kind, body):
    """One request of the key manager's protocol; the answer's fields."""
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(w.socket)
        s.sendall(struct.pack("<IIHHQ", 20 + len(body), MAGIC, 1, kind, 1) + body)
        a = b""
        while len(a) < 4 or len(a) < struct.unpack("<I", a[:4])[0]:
            x = s.recv(65536)
            assert x, "the key manager hung up"
            a += x
    status, = struct.unpack("<i", a[20:24])
    assert status == 0, (kind, status)
    return a[28:]


def key_of(b):
    return b[22:54]


def maps(pid):
    """(from, to, locked) of each writable mapping."""
    at = None
    for line in read("/proc/%d/smaps" % pid).decode().splitlines():
        m = re.match(r"([0-9a-f]+)-([0-9a-f]+) (\S+) \S+ \S+ \S+\s*(.*)", line)
        if m:
            at = (int(m[1], 16), int(m[2], 16)) if m[3].startswith("rw") and m[4] not in ("[vvar]", "[vsyscall]") else None
        elif at and line.startswith("VmFlags:"):
            yield at + (" lo" in line,)


def written(b):
    """Where in b pages stand that are not all zeros, with a little of what is around: most of a thread's stack was never touched."""
    page, zeros, begun = 4096, bytes(4096), None
    for i in range(0, len(b) + page, page):
        if i < len(b) and b[i:i + page] != zeros[:len(b) - i]:
            begun = i if begun is None else begun
        elif begun is not None:
            yield max(0, begun - 64), min(len(b), i + 64)
            begun = None


def memory(pid):
    """[(place, bytes, locked)] of all that it can write to, and has."""
    got = []
    with open("/proc/%d/mem" % pid, "rb", buffering=0) as f:
        for a, b, locked in maps(pid):
            f.seek(a)
            try:
                all_of_it = f.read(b - a)
            except OSError:
                continue  # no page there
            got += [(a + i, all_of_it[i:j], locked) for i, j in written(all_of_it)]
    return got


def holds(pid, what):
    return any(what in b for _, b, _ in memory(pid))


# The round keys of AES-256 under a key of zeros (FIPS 197), which the accumulator's contexts have between calls, and everybody may know.
PUBLIC = bytes(32) + bytes.fromhex(
    "62636363626363636263636362636363aafbfbfbaafbfbfbaafbfbfbaafbfbfb6f6c6ccf0d0f0fac6f6c6ccf0d0f0fac7d8d8d6ad77676917d8d8d6ad7767691"
    "5354edc15e5be26d31378ea23c38810e968a81c141fcf7503c717a3aeb070cab9eaa8f28c0f16d45f1c6e3e7cdfe62e92b312bdf6acddc8f56bca6b5bdbbaa1e"
    "6406fd52a4f79017553173f098cf11196dbba90b0776758451cad331ec71792fe7b0e89c4347788b16760b7b8eb91a6274ed0ba1739b7e252251ad14ce20d43b"
    "10f80a1753bf729c45c979e7cb706385")


def secrets(pid):
    """Whatever in locked memory looks like a key: 32 bytes on a boundary of 16, nearly all different."""
    found = set()
    for _, b, locked in memory(pid):
        if locked:
            for i in range(0, len(b) - 31, 16):
                x = b[i:i + 32]
                if len(set(x)) > 24 and x not in PUBLIC:
                    found.add(x)
    return found


w = World(start=False)
write(w.passphrase, PASSPHRASE + b"\n")
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
w.keyd()
w.unlock()
vault = w.init()
m = w.mount()
f = [x for x in data_files() if os.path.basename(x) in ("CT_small.dcm", "MR_small.dcm")]
import pydicom
uids = [pydicom.dcmread(x).StudyInstanceUID for x in f]
for i, x in enumerate(f):
    write(os.path.join(m, "f%d" % i), read(x))
write(os.path.join(m, "plain"), os.urandom(100000))
assert all(read(os.path.join(m, "f%d" % i)) == read(x) for i, x in enumerate(f))
held = open(os.path.join(m, "f0"), "rb")
held.read(10)
os.listxattr(os.path.join(m, "f0"))

both = ask(VAULT_GET, read(os.path.join(vault, "leadglass.vault"))[20:36])
known = {"vault key": key_of(both[16:]), "general key": key_of(both[70:])}
text = lambda s: struct.pack("<H", len(s)) + s.encode()
for i, uid in enumerate(uids):
    known["study key %d" % i] = key_of(ask(STUDY_KEY, text(uid) + text("") * 4))
processes = {"keyd %d" % p: p for p in w.keyd_pids()}
processes["fs"] = w.pid_of()
if re.search(rb"lib[at]san", read("/proc/%d/maps" % processes["fs"])):
    held.close()
    w.umount()
    skip("a sanitizer's shadow of all memory cannot be searched")
assert len(processes) == 3, processes
assert all(len(k) == 32 and len(set(k)) > 16 for k in known.values())
for name in ("vault key", "general key", "study key 0"):  # the search itself works: in use they are found
    assert holds(processes["fs"], known[name]), name
for n, p in processes.items():
    assert not holds(p, PASSPHRASE), "the passphrase is still in %s after unlocking" % n

# Revocation: that study's key, and its alone.
w.cli("study", "revoke", uids[0], "--reason", "a test", "--now")
for n, p in processes.items():
    assert not holds(p, known["study key 0"]), "a revoked study's key is in " + n
raises(errno.EKEYREVOKED, os.pread, held.fileno(), 10, 0)
assert read(os.path.join(m, "f1")) == read(f[1])

before = {n: secrets(p) for n, p in processes.items()}
assert all(before.values())


def left():
    """What of all this is in memory now."""
    said = []
    for n, p in processes.items():
        all_of_it = memory(p)
        for k, v in list(known.items()) + [("passphrase", PASSPHRASE)]:
            said += ["%s in %s, %s" % (k, n, "locked memory" if locked else "at %x" % a) for a, b, locked in all_of_it if v in b]
        seen = {x for x in before[n] for _, b, _ in all_of_it if x in b}
        if seen:
            said.append("%d of %d other blocks of locked memory in %s: %s" % (len(seen), len(before[n]), n, sorted(x.hex() for x in seen)[:4]))
    return said


now = left()
assert all(any("locked memory in " + n in x for x in now) for n in processes), "the search finds nothing in use"
w.cli("lock")
still = left()
assert not still, "\n".join(still)
raises(errno.ENOKEY, read, os.path.join(m, "f1"))
w.unlock()
assert read(os.path.join(m, "f1")) == read(f[1])
held.close()
w.umount()
print("ok", {n: len(s) for n, s in before.items()}, "blocks of locked memory forgotten")
