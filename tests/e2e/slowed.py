"""Wrong passphrases are slowed user by user: an ordinary account that the key manager runs as, and root; what a third account tries is refused untried and slows nobody."""
import re, shutil, subprocess
from lib import *

OWNER, STRANGER = 40011, 40012
w = World(start=False)
os.chmod(w.dir, 0o711)
for p in ("leadglass", "leadglass-keyd"):
    shutil.copy(os.path.join(BIN, p), w.path(p))
    os.chmod(w.path(p), 0o755)
os.mkdir(w.path("own"))
os.chown(w.path("own"), OWNER, OWNER)
os.chmod(w.path("own"), 0o755)
w.socket = w.env["LEADGLASS_SOCKET"] = w.path("own", "keyd.sock")
wrong, right = w.path("wrong"), w.passphrase
write(wrong, b"wrong\n")
os.chmod(wrong, 0o644)
os.chmod(right, 0o644)


def run(uid, *argv):
    return subprocess.run([w.path(argv[0]), *argv[1:]], env=dict(w.env, HOME="/"), user=uid, group=uid, extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True, timeout=600, cwd="/")


def unlock(uid, f):
    return run(uid, "leadglass", "unlock", "--passphrase-file", f)


def unlocked(uid):
    r = unlock(uid, right)
    assert r.returncode == 0, (uid, r)
    assert run(0, "leadglass", "lock").returncode == 0


r = run(OWNER, "leadglass-keyd", "--init", "--keyring", w.path("own", "keyring"), "--passphrase-file", right, "--scrypt-ms", "20")
assert r.returncode == 0, r
r = run(OWNER, "leadglass-keyd", "--keyring", w.path("own", "keyring"), "--socket", w.socket)
assert r.returncode == 0, r
unlocked(OWNER)
for first, second in ((OWNER, 0), (0, OWNER)):
    for n in range(3, 8):  # a slow machine needs a longer pause to see it
        for _ in range(n):
            wait_for(lambda: "not tried" not in unlock(first, wrong).stderr)
        unlocked(second)  # always: it has tried nothing
        r = unlock(first, right)
        if r.returncode:
            assert r.returncode == 3 and "not tried" in r.stderr, r
            break
        run(0, "leadglass", "lock")
    else:
        raise AssertionError("%d was never slowed" % first)
    wait_for(lambda: unlock(first, right).returncode == 0)
    run(0, "leadglass", "lock")
for _ in range(6):
    for f in (wrong, right):
        r = unlock(STRANGER, f)
        assert r.returncode == 1 and "this user may not" in r.stderr, r
unlocked(OWNER)
unlocked(0)
r = run(0, "leadglass", "status")
assert r.returncode == 0 and "locked" in r.stdout, r
print("ok")
