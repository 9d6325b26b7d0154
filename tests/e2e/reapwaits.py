"""Removing the files of a study as its destruction is asked for: two officers, so it waits; cancelled; over a restart; due once the study is destroyed; a file and a directory that
cannot be read are named and passed over, and it stays due until all of it is gone. What `leadglass status` and `study due` say meanwhile."""
import errno, json, os, subprocess, time
from lib import *
from office import Desk

w = World()
w.gated()
vault = w.init("lower/vault")
m = w.mount("lower/vault")


def below():
    return {os.path.join(d, f)[len(w.path("source")):] for d, _, fs in os.walk(w.path("source", "vault", "root")) for f in fs if not os.path.islink(os.path.join(d, f))}


def store(name, n, size=3000):
    """Returns the file's path in the filesystem below."""
    p, before = os.path.join(m, name), below()
    os.makedirs(os.path.dirname(p), exist_ok=True)
    with open(p, "wb") as f:
        f.write(dicom_of(n, size))
        f.flush()
        os.fsync(f.fileno())
    new = below() - before
    assert len(new) == 1, new
    return new.pop()


lower = {name: store(name, n) for name, n in (("a/one", 1), ("a/two", 1), ("a/deep/three", 1), ("b/one", 2), ("a/other", 3))}
sec, ret = Desk(w).two()


def counts():
    s = w.status()
    return s["reaps_due"], s["reaps_waiting"]


def with_removal(uid):
    """An administrator hands in what Ruth signed: her account cannot look into the vault."""
    return json.loads(w.cli(*ret.signed("study", "revoke", uid, "--reason", "x", "--reap", vault), "--json"))


def shown(uid):
    return json.loads(w.cli("study", "show", uid, "--json"))["state"]


# ---- asked for: nothing waits before it is approved, and the approver is told
began = time.monotonic()
assert counts() == (0, 0)
b = with_removal("1.2.2")
assert counts() == (0, 0) and "reap" not in ret.ok("study", "due")
r = sec.run(*sec.signed("study", "approve", b["id"]))
assert r.returncode == 0 and "vault" in r.stderr, r
assert counts() == (0, 1) and "1 studies, once these are destroyed" in w.cli("status")
w.fails(16, ["not destroyed"], "leadglass", "study", "reap", "1.2.2", vault)

# ---- cancelled: it does not wait any more
ret.act("study", "cancel", b["id"], "--reason", "withdrawn")
assert counts() == (0, 0) and "1.2.2" not in ret.ok("study", "due") and read(os.path.join(m, "b/one")) == dicom_of(2, 3000)

# ---- it waits, over a restart, and beyond another's destruction that asks for no removal
WAITING = 3 + int(12 * (time.monotonic() - began))
x = sec.act("policy", "set", "--waiting", "%ds" % WAITING, "--reason", "test")
ret.act("request", "approve", x["id"])
a = with_removal("1.2.1")
sec.act("study", "approve", a["id"])
assert counts() == (0, 1) and "reap  1.2.1 is destroyed from" in ret.ok("study", "due")
w.stop_keyd()
w.keyd()
assert counts() == (0, 0)  # locked: nothing is known
w.unlock()
assert sum(counts()) == 1
b = ret.act("study", "revoke", "1.2.2", "--reason", "no removal")
sec.act("study", "approve", b["id"])
wait_for(lambda: shown("1.2.1") == shown("1.2.2") == "destroyed")
assert counts() == (1, 0)
said = w.cli("status")
assert "TO REMOVE" in said and "1 destroyed studies" in said and "once these" not in said, said
assert "reap  1.2.1 is destroyed; its files" in ret.ok("study", "due")
for name in lower:
    assert os.path.exists(os.path.join(m, name)), name

# ---- a file that cannot be read, and a directory that cannot be listed
w.remount("lower/vault")  # nothing is cached
os.symlink(lower["a/two"], w.path("gates", "eio"))
r = w.run("leadglass", "study", "reap", "1.2.1", vault)
assert r.returncode == 1 and os.path.join(m, "a/two") + ": " in r.stderr and "could not be looked at or removed" in r.stderr, r
left = {n for n in lower if os.path.lexists(os.path.join(m, n))}
assert left == {"a/two", "b/one", "a/other"} and not os.path.exists(os.path.join(m, "a/deep")), left
assert counts() == (1, 0) and "reap  1.2.1" in ret.ok("study", "due")
c = json.loads(w.cli("study", "certificate", "1.2.1", "--json"))
assert c["files"] == 2 and not c["files_removed"], c
os.unlink(w.path("gates", "eio"))

hidden = os.path.dirname(lower["b/one"])  # a directory whose id is gone cannot be listed: its files' names cannot be read
ids = [f for f in os.listdir(w.path("source") + hidden) if os.path.islink(os.path.join(w.path("source") + hidden, f))]
assert ids
w.umount()
kept = {f: os.readlink(os.path.join(w.path("source") + hidden, f)) for f in ids}
for f, to in kept.items():
    os.unlink(os.path.join(w.path("source") + hidden, f))
    os.symlink("x" + to[1:] if to[0] != "x" else "y" + to[1:], os.path.join(w.path("source") + hidden, f))
m = w.mount("lower/vault")
r = w.run("leadglass", "study", "reap", "1.2.1", vault)
assert r.returncode == 1 and os.path.join(m, "b") + ": " in r.stderr, r
assert not os.path.lexists(os.path.join(m, "a/two")) and counts() == (1, 0)
assert not json.loads(w.cli("study", "certificate", "1.2.1", "--json"))["files_removed"]
w.umount()
for f, to in kept.items():
    os.unlink(os.path.join(w.path("source") + hidden, f))
    os.symlink(to, os.path.join(w.path("source") + hidden, f))
m = w.mount("lower/vault")

# ---- all of it could be looked at: it is done, and said to be
w.cli("study", "reap", "1.2.1", vault)
assert counts() == (0, 0) and "TO REMOVE" not in w.cli("status") and "reap" not in ret.ok("study", "due")
assert json.loads(w.cli("study", "certificate", "1.2.1", "--json"))["files_removed"]
assert read(os.path.join(m, "a/other")) == dicom_of(3, 3000)
raises(errno.EKEYREVOKED, read, os.path.join(m, "b/one"))  # destroyed; that its files go was not asked for
w.umount()
print("ok")
