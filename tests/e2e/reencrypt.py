"""Re-encryption as an administrator does it: under a mount that is read and written, killed in the midst of it, and with backups from before, during and
after; a file assigned to another study."""
import errno, json, os, random, shutil, signal, subprocess, threading, time
from lib import *

N = 60
w = World()
vault = w.init()
m = w.mount()
dicom = {os.path.basename(f): read(f) for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")}
rnd = random.Random(5)
want = {}
for i in range(N):
    p = os.path.join(m, "d%d" % (i % 7), "f%d" % i)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    want[p] = (dicom["CT_small.dcm"] if i % 3 else dicom["MR_small.dcm"]) + rnd.randbytes(rnd.randrange(1, 3000000))
    write(p, want[p])
    os.utime(p, ns=(10**18 + i, 10**18 + 123456789 + i))
    os.setxattr(p, "user.note", b"%d" % i)


def key(p):
    return os.getxattr(p, "trusted.leadglass.key").decode().split()


def same(top=m, besides=()):
    for p in want:
        q = os.path.join(top, os.path.relpath(p, m))
        if q not in besides:
            assert read(q) == want[p], q
            assert os.getxattr(q, "user.note") == os.path.basename(q)[1:].encode()


def times():
    return {p: os.stat(p).st_mtime_ns for p in want}


def backup(name):
    shutil.rmtree(w.path(name), ignore_errors=True)
    rc = subprocess.run(["rsync", "-aHAX", "--delete", vault + "/", w.path(name)], stderr=subprocess.DEVNULL).returncode
    assert rc in (0, 24), rc  # 24: files that came and went meanwhile


uid = {}
for s in json.loads(w.cli("study", "list", "--json")):
    uid[s["key_id"]] = s["uid"]
ct = uid[key(os.path.join(m, "d1", "f1"))[0]]
before = times()
w.umount()
backup("vault-before")
w.fails(2, ["--version-older-than N, or --all-studies"], "leadglass", "key", "reencrypt", vault)
w.fails(1, ["not where it is mounted"], "leadglass", "key", "reencrypt", m, "--all-studies")
w.fails(1, ["not mounted"], "leadglass", "key", "reencrypt", vault, "--study", ct)
w.mount()

# Locked: nothing can be looked at, which is no success.
w.cli("lock")
w.fails(1, ["not to be had"], "leadglass", "key", "reencrypt", vault, "--all-studies")
w.unlock()

# Nothing to do; then one study's.
assert json.loads(w.cli("key", "reencrypt", vault, "--study", ct, "--json"))["reencrypted"] == 0
w.cli("key", "rotate", "--study", ct)
held = open(os.path.join(m, "d1", "f1"), "rb")
r = json.loads(w.cli("key", "reencrypt", vault, "--study", ct, "--json"))
mine = [p for p in want if uid[key(p)[0]] == ct]
assert r["reencrypted"] == len(mine) == 40 and r["failed"] == 0 and r["current"] == 0, r
assert {key(p)[1] for p in mine} == {"2"} and {key(p)[1] for p in want if p not in mine} == {"1"}
assert held.read() == want[held.name]
held.close()
same()
assert times() == before
assert json.loads(w.cli("key", "reencrypt", vault, "--study", ct, "--json"))["current"] == 40
assert r["bytes"] == sum(len(want[p]) for p in mine)

# rsync takes up exactly those files, by its quick check.
out = subprocess.run(["rsync", "-an", "--out-format=%n", vault + "/root/", w.path("vault-before/root/")], stdout=subprocess.PIPE, text=True, check=True).stdout
assert len([x for x in out.split("\n") if x and not x.endswith("/")]) == 40, out

# While it is read, written and copied, and its daemon is killed in the midst.
w.cli("key", "rotate", "--all-studies")
stop, errors = threading.Event(), []
cut = set(w.cut())


def reader():
    q = random.Random(9)
    while not stop.is_set():
        p = q.choice(list(want))
        try:
            assert read(p) == want[p], p
        except OSError as e:
            if e.errno not in cut | {errno.ENOENT}:
                errors.append(e)
            stop.wait(0.05)
        except AssertionError as e:
            errors.append(e)


def writer():
    i = 0
    while not stop.is_set():
        p = os.path.join(m, "d0", "busy")
        try:
            with open(p, "r+b" if os.path.exists(p) else "w+b") as f:
                f.seek(i * 1000 % 100000)
                f.write(b"%08d" % i * 100)
            os.chmod(p, 0o600 | i % 8)
        except OSError:
            stop.wait(0.05)
        i += 1


threads = [threading.Thread(target=f) for f in (reader, reader, writer)]
for t in threads:
    t.start()
killed = [time.time_ns()]
for i in range(3):
    p = w.spawn([os.path.join(BIN, "leadglass"), "key", "reencrypt", vault, "--all-studies", "--rate", "60"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.3 + 0.2 * i)
    if i == 1:
        backup("vault-during")
    os.kill(w.pid_of(), signal.SIGKILL)
    killed.append(time.time_ns())
    p.wait(300)
    w.children.remove(p)
    w.mount()
    cut |= set(w.cut())  # another test may switch io_uring on meanwhile
r = w.run("leadglass", "key", "reencrypt", vault, "--all-studies", "--json")
stop.set()
for t in threads:
    t.join()
assert not errors, errors
assert r.returncode == 0 or "f" not in r.stderr.replace("busy", ""), r
assert {key(p)[1] for p in mine} == {"3"} and {key(p)[1] for p in want if p not in mine} == {"2"}
same()
# Killed between the two calls by which a recovery writes a header and sets its time back, it leaves its own time (docs/FORMAT.md): the sweep, two readers and the
# re-encryption can each be just there, from the second time on.
now = times()
late = {p: now[p] for p in want if now[p] != before[p]}
assert len(late) <= 2 * 4 and all(killed[1] - 10**9 < t <= killed[3] for t in late.values()), (late, killed)
w.remount()
same()
assert times() == now

# Of all studies only what is older than a version: the others' files keep their bytes; then nothing is left to do.
theirs = [p for p in want if p not in mine]
w.cli("key", "rotate", "--all-studies")
left = {p: key(p) for p in want}
for n, chosen in ((2, []), (3, theirs), (3, [])):
    r = json.loads(w.cli("key", "reencrypt", vault, "--version-older-than", str(n), "--json"))
    assert r["reencrypted"] == len(chosen) and r["failed"] == 0, (n, r)
    assert {p for p in want if key(p) != left[p]} == set(chosen), n
    if chosen:
        assert {key(p)[1] for p in chosen} == {"3"} and {key(p)[1] for p in mine} == {"3"}
        left.update({p: key(p) for p in chosen})
same()
assert times() == before
w.fails(2, [], "leadglass", "key", "reencrypt", vault, "--version-older-than", "two")

# A backup from before opens, and so do the whole files of one taken in the midst, and one from afterwards; with the keyring, and with a keyring backup.
w.umount()
backup("vault-after")
own = w.path("backup-pass")
write(own, b"of the backup\n")
assert w.status()["keyring"]["studies_without_backup"] == len(json.loads(w.cli("study", "list", "--json"))) == 2
w.cli("backup", "create", w.path("keys.lgk"), "--passphrase-file", own)
assert w.status()["keyring"]["studies_without_backup"] == 0
for name in ("vault-before", "vault-during", "vault-after"):
    if name != "vault-during":  # the journal of a live mount may hold changes; a drill puts nothing in place
        r = w.run("leadglass", "backup", "restore", w.path("keys.lgk"), "--drill", "--json", "--passphrase-file", own, "--vault", w.path(name), "--sample", "1000")
        assert r.stdout, (name, r)
        d = json.loads(r.stdout)
        assert r.returncode == 0 and d["verified"] == d["files"] >= N, (name, r)
    w.mount(name, "mnt-" + name)
    for p in want:
        q = os.path.join(w.path("mnt-" + name), os.path.relpath(p, m))
        assert read(q) == want[p], q
    w.umount("mnt-" + name)
w.mount()

# Assigned to another study: destroyed with that one, not with its first.
p = os.path.join(m, "d0", "f0")
mr = uid[key(p)[0]]
assert mr != ct
r = w.run("leadglass", "study", "assign", p, ct)
assert r.returncode == 0 and "single-administrator" in r.stderr, r
assert uid[key(p)[0]] == ct and read(p) == want[p]
w.cli("study", "revoke", mr, "--reason", "test", "--now")
assert read(p) == want[p]
w.cli("study", "revoke", ct, "--reason", "test", "--now")
raises(errno.EKEYREVOKED, read, p)
w.fails(9, ["revoked"], "leadglass", "study", "assign", p, "1.2.3")
w.fails(1, ["not on a mounted vault"], "leadglass", "study", "assign", w.passphrase, "1.2.3")
print("ok")
