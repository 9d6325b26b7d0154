"""What could be done past the access log, or fill it: a mount without one, a damaged file read again and again, what is salvaged, a key manager that cannot write its own; and the log read live."""
import errno, json, os, re, signal, socket, struct, subprocess, time
from lib import *

w = World()
vault = w.init()
LOG = w.path("keyring.audit")


def query(*args):
    return json.loads(w.cli("audit", "query", "--json", *args))


HEARD = os.path.exists(os.path.join(BIN, "saylog.so"))  # not in sanitizer builds
if not HEARD:
    left_out("what daemons say to syslog", "it is caught by a library that sanitizer builds do not have")


def daemons():
    return read(w.path("daemons")).decode(errors="replace").splitlines() if HEARD else []


mnt = w.mount()
whole = os.urandom(300000)
write(os.path.join(mnt, "f"), whole)
s = w.status()
assert [m["audit"] for m in s["mounts"]] == ["on"] and s["audit"]["on"] and "/mount-" in s["audit"]["log"], s
w.umount()
# What serves a mount and does not tell, as an earlier version: whether it keeps one is not known. (This test asks for the session itself.)
k = socket.socket(socket.AF_UNIX)
k.connect(w.socket)
k.settimeout(300)


def ask(kind, body):
    k.sendall(struct.pack("<I4sHHQ", 20 + len(body), b"LGK1", 1, kind, 1) + body)
    head = k.recv(20, socket.MSG_WAITALL)
    got = k.recv(struct.unpack("<I", head[:4])[0] - 20, socket.MSG_WAITALL)
    assert got[:4] == bytes(4), (kind, got)
    return got[8:]


session = ask(13, bytes.fromhex(s["mounts"][0]["vault_id"]) + struct.pack("<H", 4) + b"/old")[:8]
ask(16, session)
assert [(x["mountpoint"], x["audit"]) for x in w.status()["mounts"]] == [("/old", "unknown")], w.status()["mounts"]
ask(14, session)
k.close()
wait_for(lambda: not w.status()["mounts"])

# ---- a mount without a log: that there is none is on record, and nothing calls the log of an earlier mount its own
opens = sum(r["count"] for r in query("--event", "file.open"))
mnt = w.mount("vault", "mnt", "-o", "audit=off")
assert read(os.path.join(mnt, "f")) == whole
off = [r for r in query("--event", "config") if r["text"].startswith("audit=off:")]
assert len(off) == 1 and mnt in off[0]["text"] and off[0]["outcome"] == "ok" and off[0]["user"] == "root", off
s = w.status()
assert [m["audit"] for m in s["mounts"]] == ["off"] and "/keyd/" in s["audit"]["log"] and not [x for x in s["audit"]["logs"] if "/mount-" in x], s
assert "NONE is kept of " + mnt in w.cli("status")
assert [x for x in daemons() if "NO ACCESS LOG" in x] or os.environ.get("LG_VALGRIND") or not HEARD
w.umount()
assert sum(r["count"] for r in query("--event", "file.open")) == opens

# ---- a damaged chunk read three thousand times: few records and few lines, none of them left out; and the rest stays readable
below = max((p for d, _, fs in os.walk(os.path.join(vault, "root")) for p in (os.path.join(d, f) for f in fs) if not os.path.islink(p)), key=os.path.getsize)
with open(below, "r+b") as f:
    f.seek(150000)
    old = f.read(1)
    f.seek(150000)
    f.write(bytes([old[0] ^ 1]))
mnt = w.mount("vault", "mnt", "-o", "audit_window=600")  # all in one window, however long it takes
fd, began = os.open(os.path.join(mnt, "f"), os.O_RDONLY), time.monotonic()
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_RANDOM)
for _ in range(3000):
    raises(errno.EIO, os.pread, fd, 4096, 140000)
assert os.pread(fd, 4096, 0) == whole[:4096] and os.pread(fd, 4096, 290000) == whole[290000:294096]
took = time.monotonic() - began
os.close(fd)
w.umount()
found = query("--event", "file.tampered")
assert len(found) <= 4 and sum(r["count"] for r in found) >= 3000 and max(r["count"] for r in found) >= 2900, found
assert all(r["outcome"] == "EIO" and "key_id" in r for r in found) and "file" in found[0], found
lines = [x for x in daemons() if re.search(r"bytes \d+ to \d+: ", x)]
assert not HEARD or 1 <= len(lines) <= 4 * (took / 10 + 2), (len(lines), took)
assert not HEARD or sum(int(m.group(1)) if (m := re.search(r"found (\d+) times more", x)) else 1 for x in lines) == sum(r["count"] for r in found), (lines, found)

# ---- plaintext salvaged from it: as much on record as if it had been opened through a mount; the rest of what the run may do stands in its beginning
os.mkdir(w.path("out"))
r = w.run("leadglass", "scrub", "--salvage", w.path("out"), "--accept-crash", "--repair", vault)
assert r.returncode == 10 and read(w.path("out", "f"))[:4096] == whole[:4096], r
begun = query("--event", "scrub.begin")
assert len(begun) == 1 and all(x in begun[0]["text"] for x in (vault, ", accept-crash", ", repair", ", salvage to " + w.path("out"))) and "remove" not in begun[0]["text"], begun
took_out = [r for r in query("--event", "file.open") if r["how"] == "salvage"]
assert len(took_out) == 1 and took_out[0]["outcome"] == "ok" and took_out[0]["user"] == "root" and took_out[0]["log"] == "keyd", took_out
assert (took_out[0]["key_id"], took_out[0]["file"]) == (found[0]["key_id"], found[0]["file"]), (took_out, found)

# ---- a file that was written anew for another study: its two slots lead to two keys, either may have something in it, and both studies are named
def lower():
    return {p for d, _, fs in os.walk(os.path.join(vault, "root")) for p in (os.path.join(d, f) for f in fs) if not os.path.islink(p)}


mnt, before = w.mount(), lower()
for study in (1, 2):
    write(os.path.join(mnt, "two"), dicom_slice(study, 20000))
below, = lower() - before
w.umount()
os.mkdir(w.path("out2"))
flip = os.path.getsize(below) - 100
with open(below, "r+b") as f:
    f.seek(flip)
    old = f.read(1)
    f.seek(flip)
    f.write(bytes([old[0] ^ 1]))
r = w.run("leadglass", "scrub", "--salvage", w.path("out2"), vault)
assert r.returncode == 10, r
named = [r["key_id"] for r in query("--event", "file.open") if r["how"] == "salvage" and r["key_id"] != found[0]["key_id"]]  # the first file is damaged still
assert sorted(named) == sorted(w.asked("study", "show", "1.2.826.0.1.%d" % i)["key_id"] for i in (1, 2)), named

# ---- tail: the last of every chain; with --follow what comes, as it comes
mnt = w.mount()
r = w.cli("audit", "tail", "--json", "--lines", "3").splitlines()
chains = {}
for x in map(json.loads, r):
    chains.setdefault(x["chain"], []).append(x["seq"])
assert len(chains) == 2 and all(1 <= len(q) <= 3 and q == list(range(q[0], q[0] + len(q))) for q in chains.values()), chains
assert [x for x in w.cli("audit", "tail").splitlines() if re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ mount ", x)]
out = open(w.path("tail"), "wb")
p = w.spawn([os.path.join(BIN, "leadglass"), "audit", "tail", "--follow", "--json", "--lines", "1"], stdout=out)
tailed = lambda: [json.loads(x) for x in read(w.path("tail")).decode().split("\n")[:-1]]
wait_for(lambda: len({r["chain"] for r in tailed()}) == 2)
write(os.path.join(mnt, "new"), b"as it comes")
wait_for(lambda: [r for r in tailed() if r["event"] == "file.open" and r["how"] == "create"])
assert p.poll() is None
p.send_signal(signal.SIGTERM)
p.wait(60)
w.umount()

# ---- the key manager's own log cannot be written: nothing is done with keys that is not recorded, but for unlocking and locking; with continue it goes on, and that is on record
small = w.path("small")
os.mkdir(small)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)


def failing():
    return w.status()["audit"]["failing"]


def keyd_says(log, event):
    top = os.path.join(log, "keyd")
    text = b"".join(read(os.path.join(top, f)) for f in sorted(os.listdir(top)) if f.endswith(".jsonl"))
    return [r for r in map(json.loads, text.decode().split("\n")[:-1]) if r["event"] == event]


def fails_with_everything_else():
    for args in (("study", "list"), ("init", w.path("never")), ("key", "rotate", "--all")):
        r = w.run("leadglass", *args)
        assert r.returncode and os.strerror(errno.ECANCELED) in r.stderr, (args, r)


try:
    for policy in ("refuse", "continue"):
        w.stop_keyd()
        log = os.path.join(small, policy)
        w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--audit", log, "--audit-on-failure", policy)
        w.unlock()
        w.recorded()
        assert ["audit.on-failure=" + policy in r["text"] for r in keyd_says(log, "config")] == [True]
        filler = os.path.join(small, "filler")
        fill = os.open(filler, os.O_WRONLY | os.O_CREAT)
        raises(errno.ENOSPC, lambda: [os.write(fill, bytes(4096)) for _ in range(4096)])
        os.close(fill)
        wait_for(lambda: w.run("leadglass", "audit", "anchor") and failing())  # each is recorded
        if policy == "refuse":
            fails_with_everything_else()
            w.cli("lock")
            w.unlock()
            fails_with_everything_else()
            assert "access is refused" in w.cli("status")
        else:
            w.cli("study", "list")
            assert "access goes on without" in w.cli("status")
        os.unlink(filler)
        wait_for(lambda: not failing())
        w.cli("study", "list")
        w.recorded()
        failed = keyd_says(log, "log.failed")
        assert failed and failed[0]["outcome"] == "ENOSPC" and failed[0]["how"] == policy and (failed[0]["count"] >= 6 or policy == "continue"), failed
        if policy == "refuse":
            assert [r["outcome"] for r in keyd_says(log, "unlock")] == ["ok", "ok"] and len(keyd_says(log, "lock")) == 1  # kept in memory meanwhile
            assert not os.path.exists(w.path("never", "leadglass.vault"))
            os.rename(log, log + ".away")
            wait_for(lambda: w.run("leadglass", "audit", "anchor") and failing())
            fails_with_everything_else()
            os.rename(log + ".away", log)
            wait_for(lambda: not failing())
            w.cli("study", "list")
        assert w.run("leadglass", "audit", "verify", log, "--offline").returncode == 0
    # none at all: said where it can be
    w.stop_keyd()
    w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--audit", "off")
    w.unlock()
    assert w.status()["audit"].get("on") is False and "NONE is kept" in w.cli("status")
    assert [x for x in daemons() if "--audit off" in x] or os.environ.get("LG_VALGRIND") or not HEARD
    w.stop_keyd()
finally:
    subprocess.run(["umount", "-l", small])
print("ok")
