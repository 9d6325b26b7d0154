"""A keyring backup that is held up while it is made. Before its last part is out, a lock or the destruction of a key meanwhile gives it up, and nothing is left of it; nothing
else does. From then on, when all of it may be on the disk, it is in the inventory whatever becomes of whoever writes it, and a certificate counts it."""
import json, os, signal, subprocess
from lib import *

w = World()
w.gated()
w.init()
m = w.mount()
own = w.path("backup-pass")
write(own, b"of the backup\n")
UID = "1.2.826.0.1.%d"


def held(name, gate, meanwhile):
    """Its exit status and what it said, when `meanwhile` ran while it was held at its first `gate`."""
    write(w.path("gates", gate), b"")
    p = subprocess.Popen([os.path.join(BIN, "leadglass"), "backup", "create", w.path("lower", name), "--passphrase-file", own], env=w.env, stdin=subprocess.DEVNULL,
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    w.children.append(p)
    wait_for(lambda: os.path.exists(w.path("gates", gate + ".held")))
    meanwhile(p)
    os.unlink(w.path("gates", gate + ".held"))
    out, err = p.communicate(timeout=600)
    w.children.remove(p)
    return p.returncode, err


def listed():
    return [(b["name"], b["whole"]) for b in json.loads(w.cli("backup", "list", "--json"))]


def destroy(i):
    w.cli("study", "revoke", UID % i, "--reason", "while it was made", "--now")


def outstanding(i):
    by = {b["id"]: b["name"] for b in json.loads(w.cli("backup", "list", "--json"))}
    return sorted(by[b["id"]] for b in json.loads(w.cli("study", "certificate", UID % i, "--json"))["backups_outstanding"])


for i in range(6):
    write(m + "/s%d" % i, dicom_slice(i, 3000))

# ---- before its last part is out
rc, err = held("early.lgk", "write", lambda p: destroy(1))
assert rc == 7 and "given up" in err and "handed out" not in err, (rc, err)
assert os.listdir(w.path("source")) == [] and listed() == [] and outstanding(1) == []
rc, err = held("locked.lgk", "write", lambda p: w.cli("lock"))
assert rc == 4 and "locked" in err and "handed out" not in err, (rc, err)
assert os.listdir(w.path("source")) == []
w.unlock()
assert listed() == []
rc, err = held("rotated.lgk", "write", lambda p: w.cli("key", "rotate", "--study", UID % 2))  # takes no key away
assert rc == 0, err
assert os.listdir(w.path("source")) == ["rotated.lgk"] and listed() == [("rotated.lgk", True)]

# ---- all of it is written, nothing of it is known to be safe
assert w.status()["keyring"]["studies_without_backup"] == 1  # the new version
rc, err = held("killed.lgk", "fsync", lambda p: p.kill())
assert rc == -9 and ("killed.lgk", False) in listed(), (rc, err, listed())
w.cli("backup", "inspect", w.path("source", "killed.lgk"), "--passphrase-file", own)  # ... and it opens
assert w.status()["keyring"]["studies_without_backup"] == 1  # but is none to rely on
destroy(2)
assert outstanding(2) == ["killed.lgk", "rotated.lgk"], outstanding(2)

rc, err = held("late.lgk", "fsync", lambda p: destroy(3))  # holds it, and says so
assert rc == 0 and ("late.lgk", True) in listed(), (rc, err)
assert outstanding(3) == ["killed.lgk", "late.lgk", "rotated.lgk"] and outstanding(2) == ["killed.lgk", "rotated.lgk"], (outstanding(3), outstanding(2))
assert w.status()["keyring"]["studies_without_backup"] == 0

rc, err = held("latelocked.lgk", "fsync", lambda p: w.cli("lock"))
assert rc == 4 and "handed out" in err and "backup void" in err, (rc, err)
assert not os.path.exists(w.path("source", "latelocked.lgk"))
w.unlock()
assert ("latelocked.lgk", False) in listed()

# ---- the key manager dies right after the last part: the inventory was on the disk before it
def crash(p):
    for pid in w.keyd_pids():
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not w.keyd_pids())


rc, err = held("crashed.lgk", "fsync", crash)
assert rc != 0 and "handed out" in err, (rc, err)
w.keyd(), w.unlock()
assert ("crashed.lgk", False) in listed(), listed()
ids = [b["id"] for b in json.loads(w.cli("backup", "list", "--json")) if not b["whole"]]
assert len(ids) == 3
for b in ids:
    assert b in w.cli("backup", "void", b)
assert outstanding(2) == ["rotated.lgk"]
print("ok")
