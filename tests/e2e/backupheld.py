"""A keyring backup that is held up while it is made, whole already but not on the disk: a lock or the destruction of a key meanwhile gives it up, and nothing is left
of it; nothing else does."""
import json, os, subprocess
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
UID = "1.2.826.0.1.%d"


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
    write(m + "/s%d" % i, dicom_slice(i, 3000))
rc, err = held("destroyed.lgk", lambda: w.cli("study", "revoke", UID % 1, "--reason", "while it was made", "--now"))
assert rc == 7 and "given up" in err, (rc, err)
assert os.listdir(w.path("source")) == [] and listed() == []
rc, err = held("locked.lgk", lambda: w.cli("lock"))
assert rc == 4 and "locked" in err, (rc, err)
assert os.listdir(w.path("source")) == []
w.unlock()
assert listed() == []
rc, err = held("rotated.lgk", lambda: w.cli("key", "rotate", "--study", UID % 2))  # takes no key away
assert rc == 0, err
assert os.listdir(w.path("source")) == listed() == ["rotated.lgk"]
print("ok")
