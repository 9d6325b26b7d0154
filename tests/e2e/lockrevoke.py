"""Lock and revocation are immediate and confirmed: open, held and mapped files included, on every mount."""
import errno, mmap, os, signal, subprocess, sys
from lib import *

w = World()
files = [f for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")]
assert len(files) == 2
w.init("vault"), w.init("vault2")
m, m2 = w.mount("vault", "mnt"), w.mount("vault2", "mnt2")
ct, mr, other = os.path.join(m, "ct"), os.path.join(m, "mr"), os.path.join(m2, "text")
write(ct, read(files[0])), write(mr, read(files[1])), write(other, b"x" * 100000)
held = open(ct, "rb", buffering=0)
assert held.read(100) == read(files[0])[:100]

MAPPED = """
import mmap, sys
f = open(sys.argv[1], "rb")
m = mmap.mmap(f.fileno(), 0, prot=mmap.PROT_READ)
m[0:10000]
print("mapped", flush=True)
sys.stdin.readline()
print(m[0:4], flush=True)
"""


def mapped(path):
    p = w.spawn(["/usr/bin/python3", "-c", MAPPED, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == "mapped\n"
    return p


def touch_fails(p):
    p.communicate("\n")
    assert p.returncode == -signal.SIGBUS, p.returncode
    w.children.remove(p)


p = mapped(ct)
w.cli("lock")
for f in (ct, mr, other):
    raises(errno.ENOKEY, read, f)
raises(errno.ENOKEY, os.pread, held.fileno(), 100, 0)
raises(errno.ENOKEY, write, os.path.join(m, "new"), b"x")
touch_fails(p)
assert not w.status()["unlocked"] and len(w.status()["mounts"]) == 2
w.fails(4, ["locked"], "leadglass", "study", "list")
w.unlock()
assert read(ct) == read(files[0]) and read(other) == b"x" * 100000 and os.pread(held.fileno(), 4, 128) == b"DICM"

studies = dict(l.split("\t")[:2] for l in w.cli("study", "list").splitlines())
assert len(studies) == 2 and set(studies.values()) == {"active"}
import pydicom
uid = pydicom.dcmread(files[0]).StudyInstanceUID
p = mapped(ct)
w.fails(2, ["--reason"], "leadglass", "study", "revoke", uid, "--now")
w.fails(2, ["--now"], "leadglass", "study", "revoke", uid, "--reason", "x")
w.fails(1, ["not known"], "leadglass", "study", "revoke", "1.2.3", "--reason", "x", "--now")
assert "destroyed" in w.cli("study", "revoke", uid, "--reason", "patient asked", "--now")
raises(errno.EKEYREVOKED, read, ct)
raises(errno.EKEYREVOKED, os.pread, held.fileno(), 100, 0)
touch_fails(p)
assert read(mr) == read(files[1]) and read(other) == b"x" * 100000
raises(errno.EKEYREVOKED, write, os.path.join(m, "again"), read(files[0]))  # the study arriving again is refused
w.fails(9, ["destroyed"], "leadglass", "study", "revoke", uid, "--reason", "x", "--now")
show = w.cli("study", "show", uid)
assert "destroyed" in show and "patient asked" in show
held.close()
m = w.remount()
raises(errno.EKEYREVOKED, read, ct)
assert read(mr) == read(files[1])
os.unlink(ct)

# A mount that does not answer is named, and the exit status says so.
pid = w.pid_of("mnt2")
os.kill(pid, signal.SIGSTOP)
try:
    r = w.run("leadglass", "lock")
finally:
    os.kill(pid, signal.SIGCONT)
assert r.returncode == 6 and w.path("mnt2") in r.stderr and w.path("mnt") + " " not in r.stderr, (r.returncode, r.stderr)
w.unlock()
wait_for(lambda: subprocess.run(["cat", other], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0)
w.umount("mnt2"), w.umount("mnt")
# The key manager restarted from nothing: destroyed stays destroyed.
w.stop_keyd()
w.keyd(), w.unlock()
m = w.mount()
assert read(mr) == read(files[1])
raises(errno.EKEYREVOKED, write, ct, read(files[0]))
w.umount()
print("ok")
