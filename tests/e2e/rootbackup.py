"""The root is changed (`key rotate --root`), and nothing else: copies of the ciphertext and backups of the keyring from before, from while it goes on, and from after it. Whichever of each
is put together, every file opens that both know; no ciphertext was touched."""
import errno, json, os, shutil, subprocess, threading
from lib import *

w = World()
own, new = w.path("own"), w.path("new")
write(own, b"of the backup\n"), write(new, b"of the keyring that is made from it\n")
w.init()
m = w.mount()
want, since = {}, {}  # name: content; name: since which copy it is there


def store(name, seed, when):
    write(os.path.join(m, name), dicom_slice(seed, 20000))
    want[name], since[name] = dicom_slice(seed, 20000), when


WHEN = ("before", "during", "after")
for i in range(150):
    store("s%d" % i, i % 60, 0)


def ciphertext(to):
    subprocess.run(["cp", "-a", w.path("vault"), w.path(to)], check=True)


def files(top):
    return {os.path.relpath(os.path.join(d, f), top): read(os.path.join(d, f)) for d, _, fs in os.walk(os.path.join(top, "root")) for f in fs if not os.path.islink(os.path.join(d, f))}


def keyring(to):
    w.cli("backup", "create", w.path(to + ".lgk"), "--passphrase-file", own)


ciphertext("vault-before"), keyring("before")
store("d1", 60, 1), store("d2", 0, 1)

# ---- while it goes on: the root changes all the time, and at least once from beginning to end while each copy is made
epoch = w.status()["keyring"]["epoch"]
stop, rotated, failed = threading.Event(), [], []


def rotate():
    while not stop.is_set():
        r = w.run("leadglass", "key", "rotate", "--root")
        (failed if r.returncode else rotated).append(r)


t = threading.Thread(target=rotate)
t.start()
try:
    for what, gone in ((lambda: ciphertext("vault-during"), "vault-during"), (lambda: keyring("during"), "during.lgk")):
        for k in range(100):
            n = len(rotated)
            what()
            if len(rotated) >= n + 2 or failed:  # one of them began and ended meanwhile
                break
            if k >= 50 and len(rotated) > n:  # under sanitizers a change of root takes longer than a copy
                left_out("a change of root from beginning to end within the copy " + gone, "it takes longer than the copy here; one ended meanwhile")
                break
            shutil.rmtree(w.path(gone), ignore_errors=True) if os.path.isdir(w.path(gone)) else os.unlink(w.path(gone))
finally:
    stop.set()
    t.join()
assert not failed, failed
assert os.path.exists(w.path("during.lgk")) and os.path.exists(w.path("vault-during"))
assert w.status()["keyring"]["epoch"] == epoch + len(rotated)
store("e1", 61, 2), store("e2", 1, 2)
ciphertext("vault-after"), keyring("after")
w.umount()
a, b, c = (files(w.path("vault-" + x)) for x in WHEN)
assert all(b[f] == x and c[f] == x for f, x in a.items()) and all(c[f] == x for f, x in b.items()) and len(c) == len(want), "no ciphertext is touched"


def opens(vault, knows, at):
    """Every file of this copy opens, but those of studies that the keyring does not know; nothing else is there."""
    subprocess.run(["cp", "-a", w.path(vault), w.path("vault-seen")], check=True)  # a vault remembers the newest keyring that it has seen
    m = w.mount("vault-seen", at)
    there = {n for n in want if since[n] <= WHEN.index(vault[6:])}
    assert set(os.listdir(m)) == there, (vault, knows)
    for n in there:
        if (n == "d1" and knows < 1) or (n == "e1" and knows < 2):  # the first of its study
            raises(errno.ENOKEY, read, os.path.join(m, n))
        else:
            assert read(os.path.join(m, n)) == want[n], (vault, knows, n)
    w.umount(at)
    shutil.rmtree(w.path("vault-seen"))


# ---- under the keyring that is served, and under each that is restored
for v in WHEN:
    opens("vault-" + v, 2, "mnt")
w.stop_keyd()
for i, made in enumerate(WHEN):
    for v in WHEN:
        r = w.run("leadglass", "backup", "restore", w.path(made + ".lgk"), "--drill", "--sample", "1000", "--json", "--passphrase-file", own, "--vault", w.path("vault-" + v))
        d, unknown = json.loads(r.stdout), sum(since[n] <= WHEN.index(v) for n, at in (("d1", 1), ("e1", 2)) if at > i)
        assert d["no_key"] == unknown and d["verified"] == d["files"] - unknown and d["files"] == sum(s <= WHEN.index(v) for s in since.values()), (made, v, d)
    w.cli("backup", "restore", w.path(made + ".lgk"), "--keyring", w.path("keyring-" + made), "--passphrase-file", own, "--new-passphrase-file", new)
    w.ok("leadglass-keyd", "--keyring", w.path("keyring-" + made))
    w.cli("unlock", "--passphrase-file", new)
    for v in WHEN:
        opens("vault-" + v, i, "mnt-" + made)
    # And the root of what was restored can be changed like any other.
    w.cli("key", "rotate", "--root")
    opens("vault-" + made, i, "mnt-" + made)
    w.stop_keyd()
print("ok", len(rotated), "changes of root meanwhile")
