"""leadglass-keyd --check: damage of every kind is named on the command line, in text and in JSON; nothing is ever changed."""
import hashlib, io, json, shutil, subprocess, tarfile
from lib import *

w = World(start=False)
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
os.mkdir(w.path("other"))
w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--mirror", w.path("other", "mirror"))
w.unlock()
w.cli("slot", "add", "boot", "--key-file", w.path("boot.key"), "--generate")
w.init()
m = w.mount()
for i in range(40):
    write(os.path.join(m, "f%d" % i), dicom_slice(i, 100))
write(os.path.join(m, "plain"), b"of no study")
w.cli("study", "revoke", "1.2.826.0.1.7", "--reason", "test", "--now")
w.umount()
w.cli("key", "rotate", "--root")
MIRROR = ("--mirror", w.path("other", "mirror"))
PASS = ("--passphrase-file", w.passphrase)


def tree():
    out = {}
    for top in ("keyring", "other"):
        for d, ds, fs in os.walk(w.path(top)):
            for n in ds + fs:
                p = os.path.join(d, n)
                out[p] = (os.stat(p).st_mtime_ns, "" if os.path.isdir(p) else hashlib.sha256(read(p)).hexdigest())
    out["slot"] = hashlib.sha256(read(w.path("keyring.root"))).hexdigest() if os.path.exists(w.path("keyring.root")) else ""
    return out


def check(code, *args, words=(), keyring="keyring"):
    before = tree()
    r = w.run("leadglass-keyd", "--keyring", w.path(keyring), "--check", *args)
    assert r.returncode == code, (args, code, r)
    assert tree() == before
    for x in words:
        assert x in r.stdout + r.stderr, (x, r)
    return r


def js(code, *args, **kw):
    j = json.loads(check(code, "--json", *args, **kw).stdout)
    assert j["good"] == (code == 0) and j["damages"] == len(j["damage"]) and j["complete"], j
    return j


for pid in w.keyd_pids():  # which writes to it when it likes
    os.kill(pid, signal.SIGSTOP)
try:
    check(7, words=["a key manager serves it"])
finally:
    for pid in w.keyd_pids():
        os.kill(pid, signal.SIGCONT)
w.stop_keyd()
check(0, words=["without a secret", "39 studies and 1 without a key"])
check(0, *PASS, words=["everything opens"])
check(0, "--key-file", w.path("boot.key"), words=["everything opens"])
j = js(0, *MIRROR, *PASS)
assert [c["copy"] for c in j["copies"]] == ["keyring", "mirror"] and j["with_secret"]
a, b = j["copies"]
assert a["commits"] == b["commits"] and a["studies"] == 39 and a["destroyed"] == 1 and a["buckets"] == 4096 and a["vaults"] == 1 and a["tombstones"] == 1 and a["opened"] > 4096 + 39
assert a["slots"] == 2 and a["slot_epoch"] == a["epoch"] and a["not_known"] == 0
write(w.path("wrong"), b"wrong\n")
check(3, "--passphrase-file", w.path("wrong"), words=["no slot opens"])
check(2, "--init")
check(2, "--key-file", w.path("boot.key"), *PASS)
w.fails(2, ["is for --check"], "leadglass-keyd", "--json", "--keyring", w.path("keyring"))
assert "is not there" in check(1, keyring="nowhere").stdout

# A page: whatever hung on it is named, on the mirror nothing is.
mdb, good = w.path("keyring", "data.mdb"), read(w.path("keyring", "data.mdb"))
kids = set()
for page in range(2, len(good) // 4096):
    write(mdb, good[:page * 4096] + b"\x55" * 4096 + good[(page + 1) * 4096:])
    r = w.run("leadglass-keyd", "--keyring", w.path("keyring"), "--check", "--json", *MIRROR)
    j = json.loads(r.stdout)
    assert (r.returncode == 1) == (not j["good"]) and j["copies"][1]["damages"] == 0, r
    if j["good"]:
        continue
    assert any(d.get("page") == page for d in j["damage"] if d["copy"] == "keyring"), (page, j["damage"][:3])
    lost = {d["key_id"] for d in j["damage"] if d["part"] == "lookup" and "key_id" in d and "lost" in d["what"]}
    assert all(int(d["key_id"][:3], 16) == d["bucket"] for d in j["damage"] if "key_id" in d)
    missing = 40 - j["copies"][0]["studies"] - j["copies"][0]["destroyed"]
    if j["copies"][0]["keyring_id"] and j["copies"][0]["studies"] and missing:
        assert len(lost) == missing, (page, missing, lost)
        kids |= lost
assert len(kids) >= 20, kids
check(1, *MIRROR, words=["damage: keyring, ", "the mirror is good"]) if not j["good"] else None
write(mdb, good)
# A byte of a record: its wraps do not open; without a secret that cannot be told.
found = 0
for at in range(3 * 4096 + 2000, len(good), 4096 * 7 + 1):
    write(mdb, good[:at] + bytes([good[at] ^ 4]) + good[at + 1:])
    r = w.run("leadglass-keyd", "--keyring", w.path("keyring"), "--check", *PASS)
    assert r.returncode in (0, 1) and (r.returncode == 1) == ("damage: keyring, " in r.stdout), r
    found += r.returncode
assert found
write(mdb, good)
# The slot file; the mirror's copies; one behind the other.
slots = read(w.path("keyring.root"))
write(w.path("keyring.root"), slots[:99] + b"\0" + slots[100:])
check(1, *MIRROR, *PASS, words=["damage: keyring, slot file: is damaged", "the mirror is good"])
check(1, *PASS, words=["slot file: is damaged"])  # nothing can be opened then
os.unlink(w.path("keyring.root"))
check(1, words=["slot file: is not there"])
write(w.path("keyring.root"), slots)
w.keyd()
w.unlock()
m = w.mount()
write(os.path.join(m, "more"), dicom_slice(77, 100))
w.umount()
w.cli("slot", "add", "second", "--key-file", w.path("second.key"), "--generate")
w.stop_keyd()
j = js(1, *MIRROR, *PASS)
assert len(j["damage"]) == 1 and j["damage"][0]["copy"] == "mirror" and "it is behind" in j["damage"][0]["what"], j
check(1, *MIRROR, words=["damage: mirror, copy: has ", "the keyring is good"])
shutil.rmtree(w.path("other", "mirror"))
check(1, *MIRROR, words=["damage: mirror, directory: is not there"])

# The keyring of the first version is good.
HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "samples", "v1")
os.mkdir(w.path("sample"))
subprocess.run(["tar", "-xJf", os.path.join(HERE, "sample.tar.xz"), "-C", w.path("sample")], check=True)
at = [d for d, _, fs in os.walk(w.path("sample")) if "data.mdb" in fs][0]
check(0, keyring=at, words=["good"])
