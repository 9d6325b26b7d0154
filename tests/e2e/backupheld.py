"""A keyring backup that is held up while it is made, whole already but not on the disk: a lock or the destruction of a key meanwhile gives it up, and nothing is left
of it; nothing else does."""
import json, os, struct, subprocess
from lib import *

w = World()
for d in ("lower", "source", "gates"):
    os.mkdir(w.path(d))
r = subprocess.run([os.path.join(BIN, "gatefs"), w.path("source"), w.path("gates"), w.path("lower")])
assert r.returncode == 0, "gatefs"
w.mounts.append("lower")
w.init()
m = w.mount()
own = w.path("backup-pass")
write(own, b"of the backup\n")


def study(n):
    def el(g, e, vr, v):
        v += b"\0" * (len(v) % 2)
        return struct.pack("<HH", g, e) + vr + (b"\0\0" + struct.pack("<I", len(v)) if vr == b"OB" else struct.pack("<H", len(v))) + v
    meta = el(2, 1, b"OB", b"\0\1") + el(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    return b"\0" * 128 + b"DICM" + el(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + el(8, 0x18, b"UI", b"1.9.%d" % n) + el(0x20, 0xd, b"UI", b"1.2.%d" % n) + b"x" * 3000


def held(name, meanwhile):
    write(w.path("gates", "fsync"), b"")
    p = subprocess.Popen([os.path.join(BIN, "leadglass"), "backup", "create", w.path("lower", name), "--passphrase-file", own], env=w.env, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    w.children.append(p)
    wait_for(lambda: os.path.exists(w.path("gates", "fsync.held")))
    assert os.path.getsize(w.path("source", name)) > 500
    meanwhile()
    os.unlink(w.path("gates", "fsync.held"))
    out, err = p.communicate(timeout=600)
    w.children.remove(p)
    return p.returncode, err


def listed():
    return [b["name"] for b in json.loads(w.cli("backup", "list", "--json"))]


for i in range(3):
    write(m + "/s%d" % i, study(i))
rc, err = held("destroyed.lgk", lambda: w.cli("study", "revoke", "1.2.1", "--reason", "while it was made", "--now"))
assert rc == 7 and "given up" in err, (rc, err)
assert os.listdir(w.path("source")) == [] and listed() == []
rc, err = held("locked.lgk", lambda: w.cli("lock"))
assert rc == 4 and "locked" in err, (rc, err)
assert os.listdir(w.path("source")) == []
w.unlock()
assert listed() == []
rc, err = held("rotated.lgk", lambda: w.cli("key", "rotate", "--study", "1.2.2"))  # takes no key away
assert rc == 0, err
assert os.listdir(w.path("source")) == listed() == ["rotated.lgk"]
print("ok")
