"""An older keyring, root-slot file or both put in place of the present ones: noticed, said loudly, nothing changed until officers accept it; reading goes on."""
import json, os, shutil, subprocess
from lib import *
from office import Desk

w = World()
w.init()
ANCHOR = w.path("vault", "leadglass.anchor")
want = {}


def study(i):
    return dicom_slice(i, 200)


def store(m, *which):
    for i in which:
        write(os.path.join(m, "s%d" % i), study(i))
        want[i] = study(i)


def save(name):
    """With the key manager down: keyring and root-slot file as they are."""
    shutil.copytree(w.path("keyring"), w.path(name))
    shutil.copy(w.path("keyring.root"), w.path(name + ".root"))


def put(name, keyring=True, slot=True):
    w.stop_keyd()
    if keyring:
        shutil.rmtree(w.path("keyring"))
        shutil.copytree(w.path(name), w.path("keyring"))
    if slot:
        shutil.copy(w.path(name + ".root"), w.path("keyring.root"))
    w.keyd()


def said(event):
    """In every chain of the key manager's: it begins another one when its keyring does not remember the heads of the last."""
    out, top = [], w.path("keyring.audit")
    w.recorded()
    for chain in sorted(c for c in os.listdir(top) if c.startswith("keyd")):
        for f in sorted(os.listdir(os.path.join(top, chain))):
            if f.endswith((".jsonl", ".zst")):
                text = subprocess.run(["zstdcat" if f.endswith(".zst") else "cat", os.path.join(top, chain, f)], stdout=subprocess.PIPE, check=True).stdout
                out += [r for r in map(json.loads, text.decode().splitlines()) if r["event"] == event]
    return out


def rolled_back():
    r = w.run("leadglass", "status", "--json")
    j = json.loads(r.stdout)["keyring"]
    assert (r.returncode == 17) == j["rolled_back"] and ("ROLLED BACK" in r.stderr) == j["rolled_back"], r
    t = w.run("leadglass", "status")
    assert (t.returncode == 17) == j["rolled_back"] and ("ROLLED BACK   " in t.stdout) == j["rolled_back"], t
    return j["rolled_back"]


def cycle(*which):
    m = w.mount()
    store(m, *which)
    w.umount()


m = w.mount()
store(m, 1)
write(os.path.join(m, "plain"), b"of no study")
assert os.stat(ANCHOR).st_size == 144 and os.stat(ANCHOR).st_mode & 0o777 == 0o600
w.umount()
first = read(ANCHOR)
cycle(2)
assert read(ANCHOR) != first and sorted(os.listdir(w.path("vault"))) == ["leadglass.anchor", "leadglass.journal", "leadglass.vault", "root"]
w.stop_keyd()
save("old")
w.keyd(), w.unlock()
cycle(3)
w.stop_keyd()
save("now")
w.keyd(), w.unlock()
assert not rolled_back() and not said("keyring.rolled-back") and not said("vault.anchor")

# An older ciphertext backup brings its older anchor along; none at all, or a damaged one, is noted and made anew.
last = read(ANCHOR)
write(ANCHOR, first)
cycle()
assert not rolled_back() and not said("vault.anchor") and read(ANCHOR) not in (first, last)
os.unlink(ANCHOR)
cycle()
assert os.path.exists(ANCHOR) and [r["outcome"] for r in said("vault.anchor")] == ["ENOENT"] and not rolled_back()
for bad in (b"", b"x" * 144, b"x" * 1000, first[:-1], first[:60] + bytes([first[60] ^ 1]) + first[61:]):
    n = len(said("vault.anchor"))
    write(ANCHOR, bad)
    m = w.mount("vault", "mnt", "-o", "ro")
    w.umount()
    assert read(ANCHOR) == bad  # a mount that reads only changes nothing
    cycle()
    assert read(ANCHOR) not in (bad, first) and not rolled_back()
    assert len(said("vault.anchor")) > n
os.unlink(ANCHOR)
os.mkfifo(ANCHOR)
cycle()
assert os.path.isfile(ANCHOR) and not rolled_back()
w.stop_keyd()
shutil.rmtree(w.path("now")), os.unlink(w.path("now.root"))
save("now")

# The keyring alone, in one epoch: the root-slot file cannot tell, the vault does.
put("old", slot=False)
w.unlock()
assert not rolled_back()
m = w.mount()
assert rolled_back() and [r["outcome"] for r in said("keyring.rolled-back")] == ["EBADMSG"] and "commit" in said("keyring.rolled-back")[0]["text"]
evidence = read(ANCHOR)
assert read(os.path.join(m, "s1")) == want[1] and read(os.path.join(m, "plain")) == b"of no study"
raises(errno.ENOKEY, read, os.path.join(m, "s3"))  # its key is in the keyring that was taken away
raises(errno.EROFS, write, os.path.join(m, "new"), study(50))
store(m, 2)  # a study that is known goes on
for args in (("key", "rotate", "--root"), ("key", "rotate", "--all-studies"), ("study", "revoke", "1.2.826.0.1.1", "--reason", "x", "--now"), ("slot", "remove", "x")):
    assert w.run("leadglass", *args).returncode == 17, args
assert w.run("leadglass", "slot", "add", "x", "--key-file", w.path("x.key"), "--generate").returncode == 17
assert w.run("leadglass", "policy", "set", "default=3", "--reason", "x").returncode != 0
w.umount()
assert read(ANCHOR) == evidence
w.stop_keyd(), w.keyd(), w.unlock()
assert rolled_back()  # it is remembered
# The right one back: all is well again.
put("now")
w.unlock()
cycle()
assert not rolled_back() and len(said("keyring.rolled-back")) == 1

# Both, from before a new root: only the vault can tell.
w.cli("key", "rotate", "--root")
cycle(4)
w.stop_keyd()
save("new-root")
w.keyd(), w.unlock()
put("old")
w.unlock()
m = w.mount()
assert rolled_back()
assert read(os.path.join(m, "s1")) == want[1]
w.umount()
assert len(said("keyring.rolled-back")) == 2
w.fails(2, ["--reason"], "leadglass", "key", "accept")
w.cli("key", "accept", "--reason", "the other one burnt")
assert not rolled_back() and "officer.accept" in {r["event"] for r in said("officer.accept")}
assert w.run("leadglass", "key", "accept", "--reason", "again").returncode != 0
before = {m["session"] for m in w.status()["mounts"]}
cycle(5)
assert not rolled_back()
w.cli("key", "rotate", "--root"), w.cli("key", "rotate", "--root")  # and it changes again
# What was accepted is what counts from now on: the one that had been taken away is not taken back without a word.
w.stop_keyd()
save("accepted")
put("new-root")
w.unlock()
m = w.mount()
assert rolled_back() and read(os.path.join(m, "s4")) == want[4]
w.umount()
put("accepted")
w.unlock()
cycle()
assert not rolled_back()
w.stop_keyd()
shutil.rmtree(w.path("accepted")), os.unlink(w.path("accepted.root"))
save("accepted")

# One of the two files from before a new root: nothing opens, and it is said which is meant.
put("new-root", keyring=False)
w.fails(17, ["put back"], "leadglass", "unlock", "--passphrase-file", w.passphrase)
put("accepted", keyring=False)
w.unlock()
put("old", slot=False)
w.fails(17, ["put back"], "leadglass", "unlock", "--passphrase-file", w.passphrase)
w.fails(3, ["wrong"], "leadglass", "unlock", "--passphrase-file", ANCHOR)
put("accepted")
w.unlock()
texts = [r["text"] for r in said("keyring.rolled-back")]
assert sum("root-slot file is older" in t for t in texts) == 1 and sum("keyring is older" in t for t in texts) == 1, texts
assert not rolled_back()

# All three: the documented limit. The numbers that status prints, kept elsewhere, tell.
w.stop_keyd()
shutil.copytree(w.path("vault"), w.path("vault.then"), symlinks=True)
w.keyd(), w.unlock()
seen = w.status()["keyring"]
cycle(6)
later = w.status()["keyring"]
shutil.rmtree(w.path("vault"))
shutil.copytree(w.path("vault.then"), w.path("vault"), symlinks=True)
put("accepted")
w.unlock()
cycle()
assert not rolled_back() and (w.status()["keyring"]["epoch"], seen["commits"]) <= (later["epoch"], later["commits"])

# A backup restored is another incarnation: no false alarm. Restored once more, after the first had been in use: said, and accepted.
w.cli("backup", "create", w.path("b.lgk"), "--passphrase-file", w.passphrase)
w.stop_keyd()
for n in ("one", "two"):
    w.cli("backup", "restore", w.path("b.lgk"), "--keyring", w.path(n), "--passphrase-file", w.passphrase, "--new-passphrase-file", w.passphrase)
w.ok("leadglass-keyd", "--keyring", w.path("one"))
w.unlock()
cycle()
assert not rolled_back()
w.stop_keyd()
w.ok("leadglass-keyd", "--keyring", w.path("two"))
w.unlock()
m = w.mount()
assert rolled_back() and read(os.path.join(m, "s1")) == want[1]
w.umount()
w.cli("key", "accept", "--reason", "restored again")
cycle()
assert not rolled_back()

# Where officers are registered, one of them asks for that and another approves it.
sec, ret = Desk(w).two()
w.stop_keyd()
shutil.copytree(w.path("two"), w.path("then"))
w.ok("leadglass-keyd", "--keyring", w.path("two"))
w.unlock()
cycle(7)
w.stop_keyd()
shutil.rmtree(w.path("two"))
shutil.copytree(w.path("then"), w.path("two"))
w.ok("leadglass-keyd", "--keyring", w.path("two"))
w.unlock()
w.mount()
w.umount()
assert rolled_back()
w.fails(16, ["an officer has to sign"], "leadglass", "key", "accept", "--reason", "alone")
x = ret.act("key", "accept", "--reason", "the disk died")
assert x["state"] == "pending" and rolled_back()
ret.refused("their own", "request", "approve", x["id"])
assert rolled_back()
assert sec.act("request", "approve", x["id"])["state"] == "done"
assert not rolled_back()
cycle()
assert not rolled_back()
