"""Slots and rotation as an administrator does them, beside a mount that goes on serving."""
import errno, json, os, subprocess
from lib import *

w = World()
files = [f for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")]
w.init()
m = w.mount()
ct, mr = os.path.join(m, "ct"), os.path.join(m, "mr")
write(ct, read(files[0])), write(mr, read(files[1]))


def slots():
    return {s["name"]: s for s in json.loads(w.cli("slot", "list", "--json"))}


def relock():
    w.cli("lock")
    raises(errno.ENOKEY, read, ct)


second, key = w.path("second"), w.path("key.bin")
write(second, b"battery staple\n")
epoch = w.status()["keyring"]["epoch"]
assert list(slots()) == ["passphrase"] and slots()["passphrase"]["proved"]
w.fails(1, ["last slot"], "leadglass", "slot", "remove", "passphrase")
w.cli("slot", "add", "desk", "--passphrase-file", second)
w.cli("slot", "add", "boot server", "--key-file", key, "--generate")
assert os.stat(key).st_mode & 0o777 == 0o400 and w.status()["keyring"]["epoch"] == epoch
assert {n: (s["type"], s["proved"]) for n, s in slots().items()} == {"passphrase": ("passphrase", True), "desk": ("passphrase", True), "boot server": ("key-file", True)}
w.fails(1, ["already"], "leadglass", "slot", "add", "desk", "--passphrase-file", second)
w.fails(1, ["no slot"], "leadglass", "slot", "remove", "nobody")
w.fails(3, ["exist"], "leadglass", "slot", "add", "other", "--key-file", key, "--generate")
w.fails(2, ["guessed"], "leadglass", "slot", "add", "other", "--key-file", second)
w.cli("slot", "test", "boot server", "--key-file", key)
w.fails(3, ["wrong passphrase"], "leadglass", "slot", "test", "desk", "--passphrase-file", w.passphrase)
time.sleep(1.1)  # wrong ones are slowed
w.cli("slot", "test", "desk", "--passphrase-file", second)
relock()
w.cli("unlock", "--key-file", key)
assert read(ct) == read(files[0])
relock()
w.cli("unlock", "--passphrase-file", second)

# Removed and changed: without anybody else's secret, and the old one opens nothing.
w.cli("slot", "remove", "passphrase")
assert w.status()["keyring"]["epoch"] == epoch + 1
assert read(mr) == read(files[1])
third = w.path("third")
write(third, b"third\n")
w.cli("slot", "change", "desk", "--passphrase-file", third)
assert w.status()["keyring"]["epoch"] == epoch + 2
relock()
pause = 2 ** w.early(w.passphrase, third)  # seconds, after the next one
w.wrong("unlock", "--passphrase-file", second)
time.sleep(pause + 0.1)
w.cli("unlock", "--passphrase-file", third)
relock()
w.cli("unlock", "--key-file", key)
assert read(ct) == read(files[0])

# A new root.
epoch = w.status()["keyring"]["epoch"]
w.cli("key", "rotate", "--root")
assert w.status()["keyring"]["epoch"] == epoch + 1 and read(ct) == read(files[0])

# New versions of study keys: new files use them at once, older files go on opening, remounted too.
import pydicom
uid = pydicom.dcmread(files[0]).StudyInstanceUID


def version(u=uid):
    return json.loads(w.cli("study", "show", u, "--json"))["key_version"]


def versions_below():
    """Key versions that commit slots below name (FORMAT.md)."""
    out = set()
    for d, _, fs in os.walk(w.path("vault")):
        for f in fs:
            if os.path.islink(os.path.join(d, f)):
                continue
            b = open(os.path.join(d, f), "rb").read(1536)
            if b[:8] == b"LGLASS\r\n" and len(b) == 1536:
                out |= {int.from_bytes(b[at + 56:at + 60], "little") for at in (512, 1024) if b[at:at + 4] == b"GLS1"}
    return out


assert version() == 1
w.cli("key", "rotate", "--study", uid)
assert version() == 2
assert versions_below() == {1}
write(os.path.join(m, "ct2"), read(files[0]))
assert versions_below() == {1, 2}
w.cli("key", "rotate", "--all-studies")
assert version() == 3 and version(pydicom.dcmread(files[1]).StudyInstanceUID) == 2
write(os.path.join(m, "ct3"), read(files[0]))
assert versions_below() == {1, 2, 3}
w.fails(1, ["not known"], "leadglass", "key", "rotate", "--study", "1.2.3")
w.fails(2, ["one of"], "leadglass", "key", "rotate", "--root", "--all-studies")
m = w.remount()
for n in ("ct", "ct2", "ct3"):
    assert read(os.path.join(m, n)) == read(files[0])
w.stop_keyd()
w.keyd()
w.cli("unlock", "--key-file", key)
for n in ("ct", "ct2", "ct3"):
    wait_for(lambda: subprocess.run(["cmp", "-s", os.path.join(m, n), files[0]]).returncode == 0)
# Revoked, all versions go: also when the key manager has only just come back, and the mount not yet to it.
w.stop_keyd()
w.keyd()
w.cli("unlock", "--key-file", key)
r = w.run("leadglass", "study", "revoke", uid, "--reason", "test", "--now")
if r.returncode == 6:  # it took so long to come back that it is named
    assert m in r.stderr, r
    wait_for(lambda: subprocess.run(["cmp", "-s", os.path.join(m, "ct"), files[0]]).returncode == 2)
else:
    assert r.returncode == 0, r
for n in ("ct", "ct2", "ct3"):
    raises(errno.EKEYREVOKED, read, os.path.join(m, n))
assert read(os.path.join(m, "mr")) == read(files[1])
w.fails(9, ["revoked"], "leadglass", "key", "rotate", "--study", uid)
w.umount()
print("ok")
