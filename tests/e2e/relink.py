"""Re-encryption of files with several names: in directories of their own, open, read and written meanwhile; the daemon killed in the midst, and after the names were begun;
backups from before, during and after; what a version that does not know of it, or a copy, leaves for the next mount."""
import json, os, random, shutil, signal, subprocess, threading
from lib import *

need_fuse()
N, LINKS = 24, 4
w = World()
vault = w.init()
m = w.mount()
ct = next(f for f in data_files() if os.path.basename(f) == "CT_small.dcm")
rnd = random.Random(11)
names, want = {}, {}
for i in range(N):
    all_ = [os.path.join(m, "d%d" % ((i + k) % 5), "sub" if k % 2 else "", "f%d-%d" % (i, k) if k < LINKS - 1 else "L%d" % i + "x" * 230) for k in range(LINKS)]
    for p in all_:
        os.makedirs(os.path.dirname(p), exist_ok=True)
    want[i] = read(ct) + rnd.randbytes(rnd.randrange(1, 600000))
    write(all_[0], want[i])
    os.setxattr(all_[0], "user.note", b"%d" % i)
    for p in all_[1:]:
        os.link(all_[0], p)
    os.chmod(all_[0], 0o600 | i)
    os.utime(all_[0], ns=(10**18 + i, 10**18 + 123456789 + i))
    names[i] = all_
single = os.path.join(m, "single")
write(single, read(ct))
every = [p for i in names for p in names[i]]
before = {p: (os.stat(p).st_mtime_ns, os.stat(p).st_mode, os.stat(p).st_uid) for p in every}


def version(p):
    return os.getxattr(p, "trusted.leadglass.key").decode().split()[1]


def reencrypt(*args):
    r = w.run("leadglass", "key", "reencrypt", vault, "--all-studies", "--json", *args)
    return r, json.loads(r.stdout) if r.stdout else None


def same(top=m, apart=False):
    for i, all_ in names.items():
        inodes = set()
        for p in all_:
            q = os.path.join(top, os.path.relpath(p, m))
            assert read(q) == want[i], q
            assert os.getxattr(q, "user.note") == b"%d" % i
            st = os.stat(q)
            assert (st.st_mtime_ns, st.st_mode, st.st_uid) == before[p], q
            assert apart or st.st_nlink == LINKS, (q, st.st_nlink)
            inodes.add(st.st_ino)
        assert apart or len(inodes) == 1, (i, inodes)


def backup(name):
    shutil.rmtree(w.path(name), ignore_errors=True)
    r = subprocess.run(["rsync", "-aHAX", "--delete", vault + "/", w.path(name)], stderr=subprocess.PIPE, text=True)
    gone = [x for x in r.stderr.splitlines() if "No such file or directory" not in x and not x.startswith(("rsync error: ", "IO error", "file has vanished: ", "rsync warning: "))]
    assert r.returncode in (0, 24) or (r.returncode == 23 and not gone), (r.returncode, r.stderr)  # 23: one that vanished between being opened and its ACL being asked for


def temporaries(top):
    return [os.path.join(d, f) for d, _, fs in os.walk(top) for f in fs if f.startswith(("lg.tmp.", "leadglass.relink"))]


same()
w.umount()
backup("before")
m = w.mount()

# All names of each; one is open, and is read and written through one that it has.
w.cli("key", "rotate", "--all-studies")
held = open(names[0][1], "r+b")
assert held.read(1000) == want[0][:1000]
r, j = reencrypt()
assert r.returncode == 0 and j["reencrypted"] == N + 1 and j["failed"] == 0 and j["files"] == N * LINKS + 1, r
assert {version(p) for p in every + [single]} == {"2"}
same()
held.seek(500)
held.write(b"written through the handle")
held.flush()
os.fsync(held.fileno())
held.close()
want[0] = want[0][:500] + b"written through the handle" + want[0][526:]
assert all(read(p) == want[0] for p in names[0])
os.utime(names[0][0], ns=(10**18, 10**18 + 123456789))
same()
assert not temporaries(vault)
r, j = reencrypt()
assert r.returncode == 0 and j["reencrypted"] == 0 and j["current"] == N + 1, r

# rsync takes them up by its quick check, each once.
out = subprocess.run(["rsync", "-aHn", "--out-format=%n", vault + "/root/", w.path("before/root/")], stdout=subprocess.PIPE, text=True, check=True).stdout
assert len([x for x in out.split("\n") if x and not x.endswith("/") and "=>" not in x]) >= N + 1, out

# Too many names for once: left, and named.
many = os.path.join(m, "many")
os.mkdir(many)
write(os.path.join(many, "0"), read(ct))
for k in range(1, 513):
    os.link(os.path.join(many, "0"), os.path.join(many, str(k)))
w.cli("key", "rotate", "--all-studies")
os.unlink(os.path.join(many, "512"))  # 512 are allowed
r, j = reencrypt()
assert r.returncode == 0 and j["failed"] == 0, r
kept = version(os.path.join(many, "0"))
assert kept == "3" and {version(os.path.join(many, str(k))) for k in range(512)} == {kept}
os.link(os.path.join(many, "0"), os.path.join(many, "512"))
w.cli("key", "rotate", "--all-studies")
r, j = reencrypt()
assert r.returncode == 1 and "too many names" in r.stderr and "many/" in r.stderr and j["failed"] == 1, r
assert version(os.path.join(many, "7")) == kept
shutil.rmtree(many)
same()

# Names that are not all of them, or not its own, change nothing.
for value in (names[1][:2], [names[2][0]] + names[1][1:], names[1][:3] + [names[1][0]], names[1] + [os.path.join(m, "none")]):
    text = b"".join(os.path.relpath(p, m).encode() + b"\0" for p in value)
    w.cli("key", "rotate", "--all-studies")
    try:
        os.setxattr(names[1][0], "trusted.leadglass.rekey-links", text)
        raise AssertionError(value)
    except OSError as e:
        assert e.errno in (errno.EMLINK, errno.EINVAL, errno.ENOENT), e
    assert not temporaries(vault)
same()

# In use, and killed in the midst of it, again and again.
stop, errors, cut = threading.Event(), [], w.cut()


def reader():
    q = random.Random(9)
    while not stop.is_set():
        i = q.randrange(1, N)
        try:
            p = q.choice(names[i])
            assert read(p) == want[i], p
            n = os.stat(p).st_nlink
            assert n == LINKS, (p, n)
        except OSError as e:
            if e.errno not in cut + (errno.ENOENT,):
                errors.append(e)
            stop.wait(0.05)
        except AssertionError as e:
            errors.append(e)


def mover():  # a linked file that comes and goes, and whose directory is renamed
    i = 0
    while not stop.is_set():
        a, b = os.path.join(m, "moved", "e%d" % (i % 2)), os.path.join(m, "moved", "e%d" % ((i + 1) % 2))
        try:
            if not os.path.exists(a):
                os.mkdir(a)  # under a directory of the vault: nothing is made where it is not mounted
            write(os.path.join(a, "x"), b"%d" % i * 3000)
            if not os.path.exists(os.path.join(a, "y")):
                os.link(os.path.join(a, "x"), os.path.join(a, "y"))
            os.rename(a, b)
            os.unlink(os.path.join(b, "y"))
            os.unlink(os.path.join(b, "x"))
            os.rmdir(b)
        except OSError:
            stop.wait(0.05)
        i += 1


os.mkdir(os.path.join(m, "moved"))
threads = [threading.Thread(target=f, daemon=True) for f in (reader, reader, mover)]
for t in threads:
    t.start()
for i in range(4):
    w.cli("key", "rotate", "--all-studies")
    p = w.spawn([os.path.join(BIN, "leadglass"), "key", "reencrypt", vault, "--all-studies"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    newest = str(max(int(version(p)) for p in every) + 1)
    while p.poll() is None and sum(version(q[0]) == newest for q in names.values()) < 2 + 3 * i:
        pass
    if i == 1:
        backup("during")
    os.kill(w.pid_of(), signal.SIGKILL)
    p.wait(120)
    w.children.remove(p)
    w.mount()
    assert not os.path.exists(os.path.join(vault, "leadglass.relink"))
stop.set()
for t in threads:
    t.join()
assert not errors, errors[:3]
r, j = reencrypt()
assert r.returncode == 0, r
assert len({version(p) for p in every}) == 1
same()
w.remount()
same()

# Backups from then restore: each name is whole, and they are one file again after the next mount where the copy has the note of it.
w.umount()
backup("after")
for name in ("before", "during", "after"):
    for keyless in (("--keyless",), ()):
        r = w.run("leadglass", "scrub", "--json", *keyless, w.path(name))
        assert name == "during" or r.returncode == 0, (name, r)
    at = w.mount(name, "mnt-" + name)
    for i in names:
        for p in names[i]:
            assert read(os.path.join(at, os.path.relpath(p, m))) == want[i] or (i == 0 and name == "before"), (name, p)
    w.umount("mnt-" + name)

# Nothing is left to find, without keys and with them.
for args in (("--keyless",), ()):
    r = w.run("leadglass", "scrub", "--json", *args, vault)
    assert r.returncode == 0, r
w.mount()
same()
print("ok")
