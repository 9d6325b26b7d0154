"""A keyring backup made while serving; the keyring lost; restored in a new place: every file opens, and nothing comes back that must not."""
import io, json, os, shutil, signal, subprocess
from lib import *

w = World()
import pydicom
src = pydicom.dcmread([f for f in data_files() if os.path.basename(f) == "CT_small.dcm"][0])
UID = "1.2.826.0.1.3680043.9.%d"


def instance(i):
    src.StudyInstanceUID = UID % i
    b = io.BytesIO()
    src.save_as(b)
    return b.getvalue()


def end_keyd():
    w.stop_keyd()


w.init()
m = w.mount()
want = {}


def store(i):
    p = os.path.join(m, "s%d" % i)
    write(p, instance(i))
    want[p] = instance(i)


for i in range(8):
    store(i)
w.cli("key", "rotate", "--study", UID % 0)
store(0)  # under version 2, the rest under 1
w.cli("study", "revoke", UID % 1, "--reason", "before", "--now")
assert w.status()["keyring"]["studies_without_backup"] == 8 and "none" in w.cli("status")
own, new = w.path("backup-pass"), w.path("new-pass")
write(own, b"of the backup\n"), write(new, b"new one\n")
first, second = w.path("first.lgk"), w.path("second.lgk")
w.cli("backup", "create", first, "--passphrase-file", own)
w.fails(1, ["exists"], "leadglass", "backup", "create", first, "--passphrase-file", own)
assert w.status()["keyring"]["studies_without_backup"] == 0 and os.stat(first).st_mode & 0o777 == 0o400
store(8)
s = w.status()["keyring"]
assert s["studies_without_backup"] == 1 and s["backup"]
w.cli("key", "rotate", "--study", UID % 3)  # what comes now does not open with the first backup
assert w.status()["keyring"]["studies_without_backup"] == 2
w.cli("backup", "create", second, "--passphrase-file", own)
assert w.status()["keyring"]["studies_without_backup"] == 0
store(9)  # newer than the newest backup: status says so
assert w.status()["keyring"]["studies_without_backup"] == 1 and "1 studies, or new versions" in w.cli("status")
w.cli("study", "revoke", UID % 2, "--reason", "after the backup", "--now")
listed = json.loads(w.cli("backup", "list", "--json"))
assert [b["name"] for b in listed] == ["first.lgk", "second.lgk"] and not listed[0]["void"]
w.cli("backup", "void", listed[0]["id"])
w.fails(1, ["void already"], "leadglass", "backup", "void", listed[0]["id"])
w.fails(1, ["no backup"], "leadglass", "backup", "void", "00" * 16)
assert json.loads(w.cli("backup", "list", "--json"))[0]["void"]

# It opens with its own secret only; damage, a cut, and a frame of another backup are noticed.
w.fails(3, ["wrong passphrase"], "leadglass", "backup", "inspect", second, "--passphrase-file", w.passphrase)
seen = json.loads(w.cli("backup", "inspect", second, "--passphrase-file", own, "--json"))
assert seen["studies"] == 8 and seen["destroyed"] == 1 and seen["bad"] == 0 and seen["versions"] >= 9, seen
w.cli("backup", "restore", second, "--drill", "--passphrase-file", own)
b, bad = bytearray(read(second)), w.path("bad.lgk")
for at in (50, 200, len(b) // 2, len(b) - 1):
    x = bytearray(b)
    x[at] ^= 1
    write(bad, x)
    assert w.run("leadglass", "backup", "inspect", bad, "--passphrase-file", own).returncode in (1, 3)
for cut in (len(b) - 1, len(b) - 60, 151, 100):
    write(bad, b[:cut])
    w.fails(1, [], "leadglass", "backup", "inspect", bad, "--passphrase-file", own)
for secret in (instance(0), b"CompressedSamples", b"1.2.826.0.1.3680043.9"):
    assert secret[:200] not in b

# The keyring is lost.
w.umount()
end_keyd()
for n in ("keyring", "keyring.root"):
    os.rename(w.path(n), w.path("lost-" + n))
gone, tombstones = w.path("gone.txt"), w.path("tombstones")
write(gone, (UID % 2 + "\n").encode())
os.rename(w.path("keyring.root.tombstones"), tombstones)
common = ["--passphrase-file", own, "--new-passphrase-file", new]
args = common + ["--tombstones", tombstones]
t = bytearray(read(tombstones))
assert len(t) == 24 + 2 * 212
for i, code, words in ((3, 1, "no file of tombstones"), (10, 1, "another keyring"), (24 + 60, 17, "not signed"), (24 + 212 + 60, 17, "not signed")):
    x = bytearray(t)
    x[i] ^= 1
    write(bad, x)
    r = w.run("leadglass", "backup", "restore", second, "--keyring", w.path("keyring"), *common, "--tombstones", bad)
    assert r.returncode in (0, code) and (not r.returncode or words in r.stderr), r  # of the two one matters: the other one's study was gone before
    shutil.rmtree(w.path("keyring"), ignore_errors=True)
    if not r.returncode:
        os.remove(w.path("keyring.root"))
    assert not os.path.exists(w.path("keyring.root"))
# The drill: with a copy of the vault, chosen files and all; whatever is asked, nothing is changed.
shutil.copytree(w.path("vault"), w.path("vault-copy"), symlinks=True)
whole = subprocess.run(["tar", "-C", w.dir, "--sort=name", "-cf", "-", "vault-copy", "second.lgk"], stdout=subprocess.PIPE, check=True).stdout
drill = ["leadglass", "backup", "restore", second, "--drill", "--json", "--passphrase-file", own, "--vault", w.path("vault-copy")]
r = w.run(*drill)
d = json.loads(r.stdout)
assert r.returncode == 13 and d["files"] == d["sampled"] == 10 and d["no_key"] == 1 and d["revoked"] == 1 and d["verified"] == 8 and not d["quarantined"], (r, d)
r = w.run(*drill, "--tombstones", tombstones)
d = json.loads(r.stdout)
assert d["quarantined"] == 1 and d["revoked"] == 2 and d["verified"] == 7, d
seen = [json.loads(w.run(*drill, "--sample", "3").stdout) for _ in range(4)]
assert all(d["sampled"] == 3 and d["verified"] + d["revoked"] + d["no_key"] == 3 for d in seen), seen
assert subprocess.run(["tar", "-C", w.dir, "--sort=name", "-cf", "-", "vault-copy", "second.lgk"], stdout=subprocess.PIPE, check=True).stdout == whole
w.fails(2, [], "leadglass", "backup", "restore", second, "--drill", "--sample", "3", "--passphrase-file", own)
w.fails(1, ["not a vault"], *drill[:-1], w.dir)
lower = [os.path.join(p, f) for p, _, fs in os.walk(w.path("vault-copy", "root")) for f in fs if os.path.isfile(os.path.join(p, f)) and os.path.getsize(os.path.join(p, f)) > 8192]
for f in lower:
    x = bytearray(read(f))
    x[5000] ^= 1
    write(f, x)
assert w.run(*drill).returncode == 10
shutil.rmtree(w.path("vault-copy"))
r = w.run("leadglass", "backup", "restore", second, "--keyring", w.path("listed"), "--json", *common, "--destroyed", gone)
assert r.returncode == 0 and json.loads(r.stdout)["quarantined"] == 1 and "READ AGAIN" not in r.stderr, r
# What stands in the way is said before a secret is asked for; that nothing was said of destructions is, afterwards.
w.fails(1, ["exists already"], "leadglass", "backup", "restore", second, "--keyring", w.path("listed"))
w.fails(1, ["is not there", "once a study was destroyed"], "leadglass", "backup", "restore", second, "--keyring", w.path("blind"), *common, "--tombstones", w.path("no-such"))
r = w.run("leadglass", "backup", "restore", second, "--keyring", w.path("blind"), *common)
assert r.returncode == 0 and "CAN BE READ AGAIN" in r.stderr and "leadglass-keyd --keyring %s`" % w.path("blind") in r.stdout, r
w.fails(1, ["altered"], "leadglass", "backup", "restore", bad if not write(bad, b[:-5]) else "", "--keyring", w.path("keyring"), *args)
assert not os.path.exists(w.path("keyring")) and not os.path.exists(w.path("keyring.root"))
got = json.loads(w.cli("backup", "restore", second, "--keyring", w.path("keyring"), "--json", *args))
assert got["quarantined"] == 1 and got["studies"] == 8
w.fails(1, ["exists already"], "leadglass", "backup", "restore", second, "--keyring", w.path("keyring"), *args)
w.keyd()
w.fails(3, ["wrong"], "leadglass", "unlock", "--passphrase-file", w.passphrase)
time.sleep(1.1)
w.cli("unlock", "--passphrase-file", new)
assert "RESTORED" in w.cli("status")
m = w.mount()
for p, x in want.items():
    n = int(os.path.basename(p)[1:])
    if n in (1, 2):
        raises(errno.EKEYREVOKED, read, p)
    elif n == 9:
        raises(errno.ENOKEY, read, p)
    else:
        assert read(p) == x, p
assert json.loads(w.cli("study", "show", UID % 2, "--json"))["state"] == "restored"
for act in ("resume", "suspend", "readmit"):  # nothing brings it back here; what does is said
    w.fails(16, ["in quarantine", "revoke it anew", "restore once more"], "leadglass", "study", act, UID % 2, "--reason", "it was named wrongly")
raises(errno.EKEYREVOKED, write, os.path.join(m, "again"), instance(1))  # the tombstone came back too
store(10)
# Nothing is destroyed until somebody confirms.
r = w.run("leadglass", "study", "revoke", UID % 3, "--reason", "too early", "--now")
assert r.returncode == 1 and "destroying" in r.stdout, r
w.cli("backup", "confirm")
w.fails(1, ["not one"], "leadglass", "backup", "confirm")
# The backup that it came from is outstanding, and with it what it knew; that others may be unknown is said.
r = w.run("leadglass", "backup", "list", "--json")
again = json.loads(r.stdout)
assert [(b["name"], b["id"], b["void"]) for b in again] == [("first.lgk", listed[0]["id"], False), ("second.lgk", listed[1]["id"], False)] and "was restored" in r.stderr, r
assert again[1]["studies"] == listed[1]["studies"] and again[1]["created"] == listed[1]["created"]
w.cli("study", "revoke", UID % 3, "--reason", "now", "--now")
c = json.loads(w.cli("study", "certificate", UID % 3, "--json"))
assert c["state"] == "destroyed, 2 backups outstanding" and c["backups_outstanding_total"] == 2 and {b["id"] for b in c["backups_outstanding"]} == {b["id"] for b in again}, c  # two of one second stand in any order
assert c["keyring_restored"] and c["keyring_restored_from"] == again[1]["created"] and "restored on" in w.cli("study", "certificate", UID % 3)
write(w.path("cert.json"), json.dumps(c).encode())
assert "good" in w.cli("study", "certificate", "--verify", w.path("cert.json"))
c["backups_outstanding_total"] = 1
write(w.path("cert.json"), json.dumps(c).encode())
w.fails(16, ["DOES NOT VERIFY"], "leadglass", "study", "certificate", "--verify", w.path("cert.json"))
# What is in quarantine has its key still, and is destroyed like any other.
w.cli("study", "revoke", UID % 2, "--reason", "once more", "--now")
assert json.loads(w.cli("study", "show", UID % 2, "--json"))["state"] == "destroyed"
assert json.loads(w.cli("study", "show", UID % 3, "--json"))["state"] == "destroyed"
assert read(os.path.join(m, "s4")) == want[os.path.join(m, "s4")]
w.umount()
# Yesterday's keyring gains nothing: the old slot file does not open the new keyring, nor the other way round.
end_keyd()
os.rename(w.path("keyring.root"), w.path("new.root"))
shutil.copy(w.path("lost-keyring.root"), w.path("keyring.root"))
w.keyd()
w.fails(17, ["older state"], "leadglass", "unlock", "--passphrase-file", w.passphrase)
print("ok")
