"""Everything that can be given wrongly gets a clear error that says what to do."""
import errno, json, os, random, shutil, signal, socket, struct, subprocess, threading, time
from lib import *

w = World()
v = w.init()
wrong = w.path("wrong")
write(wrong, b"incorrect\n")
w.cli("lock")
assert "1 s" in w.wrong("unlock", "--passphrase-file", wrong)
assert "2 s" in w.wrong("unlock", "--passphrase-file", wrong)
time.sleep(2.1)
w.unlock()
w.cli("lock")
pause = 2 ** w.early(wrong, w.passphrase)  # seconds, after the next one
assert "%d s" % pause in w.wrong("unlock", "--passphrase-file", wrong)
time.sleep(pause + 0.1)
write(w.path("nothing"), b"")
w.fails(3, ["empty"], "leadglass", "unlock", "--passphrase-file", w.path("nothing"))
w.unlock()
w.fails(2, ["--help"], "leadglass", "frobnicate")
w.fails(2, ["--help"], "leadglass", "status", "--frobnicate")
w.fails(2, ["no such option"], "leadglass", "status", "--reason", "x")
w.fails(2, ["--help"], "leadglass-keyd", "--frobnicate")
w.fails(2, ["frobnicate"], "leadglass-fs", "-o", "frobnicate", v, w.dir)
w.fails(69, ["not available"], "leadglass", "import", v, w.dir)
os.makedirs(w.path("mnt"))
w.fails(1, ["leadglass init"], "leadglass", "mount", w.path("none"), w.path("mnt"))
w.fails(1, ["leadglass init"], "leadglass", "mount", w.path("mnt"), w.path("mnt"))
w.fails(1, ["Create the directory"], "leadglass", "mount", v, w.path("none"))
w.fails(1, ["not a directory"], "leadglass", "mount", v, w.passphrase)
os.makedirs(w.path("full/x"))
w.fails(1, ["not empty"], "leadglass", "mount", v, w.path("full"))
w.fails(1, ["beneath its own mountpoint", "another mountpoint"], "leadglass", "mount", "-o", "nonempty", v, w.dir)
w.fails(1, ["not empty"], "leadglass", "init", w.path("full"))
w.fails(1, ["already"], "leadglass", "init", v)
w.fails(2, ["power of two"], "leadglass", "init", w.path("odd"), "--chunk-size", "7")
w.fails(1, ["exists already"], "leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase)
w.fails(7, ["another key manager"], "leadglass-keyd", "--keyring", w.path("keyring"))
w.fails(7, ["another key manager"], "leadglass-keyd", "--keyring", w.path("keyring"), "--socket", w.path("other.sock"))
w.fails(8, ["--init"], "leadglass-keyd", "--keyring", w.path("nokeyring"), "--socket", w.path("other.sock"))
w.env["LEADGLASS_SOCKET"] = w.path("nobody.sock")
w.fails(5, ["leadglass-keyd"], "leadglass", "status")
w.fails(5, ["never does"], "leadglass", "mount", v, w.path("mnt"))if not os.path.exists("/var/lib/leadglass/keyring") else None
s = socket.socket(socket.AF_UNIX)
s.bind(w.path("nobody.sock"))
s.close()  # stale: bound, but nobody listens
w.fails(5, ["no key manager answers"], "leadglass", "status")
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring2"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
w.ok("leadglass-keyd", "--keyring", w.path("keyring2"))  # takes the stale socket over
w.unlock()
e = w.fails(1, ["belongs to keyring"], "leadglass", "mount", v, w.path("mnt"))
w.env["LEADGLASS_SOCKET"] = w.socket
assert w.status()["keyring"]["id"] in e
w.cli("lock")
w.fails(4, ["leadglass unlock"], "leadglass", "mount", v, w.path("mnt"))
w.unlock()

# Another user: refused, and told so.
r = subprocess.run([BIN + "/leadglass", "study", "list"], env=w.env, stderr=subprocess.PIPE, text=True, user=65534, group=65534)
if "Permission denied" not in r.stderr:
    assert r.returncode == 1 and "may not" in r.stderr, r.stderr

# A newer version of the vault: refused, nothing touched.
newer = w.path("vaultnewer")
shutil.copytree(v, newer, symlinks=True)
b = bytearray(read(newer + "/leadglass.vault"))
b[8] = 2
write(newer + "/leadglass.vault", b)
before = {p: (os.lstat(p).st_mtime_ns, os.lstat(p).st_size) for d, ds, fs in os.walk(newer) for p in [os.path.join(d, x) for x in ds + fs]}
w.fails(1, ["newer version"], "leadglass", "mount", newer, w.path("mnt"))
assert before == {p: (os.lstat(p).st_mtime_ns, os.lstat(p).st_size) for p in before}
b[8], b[100] = 1, b[100] ^ 1
write(newer + "/leadglass.vault", b)
w.fails(1, ["damaged"], "leadglass", "mount", newer, w.path("mnt"))

m = w.mount()
os.makedirs(w.path("mnt2"))
w.fails(1, ["mounted already"], "leadglass", "mount", v, w.path("mnt2"))
w.fails(1, ["already"], "leadglass", "mount", v, m)
w.fails(1, ["no vault is mounted"], "leadglass", "umount", w.path("mnt2"))
with open(os.path.join(m, "busy"), "w") as f:
    w.fails(7, ["in use"], "leadglass", "umount", m)

# Truncated and random files below: EIO for each of them, and for nothing else.
os.remove(os.path.join(m, "busy"))
for i in range(6):
    write(os.path.join(m, "f%d" % i), bytes([i]) * 50000)
w.umount()
below = sorted(os.path.join(w.path("vault/root"), x) for x in os.listdir(w.path("vault/root")) if x != "lg.dirid")
rnd = random.Random(3)
os.truncate(below[0], 20000)
os.truncate(below[1], 0)
write(below[2], rnd.randbytes(54096))
with open(below[3], "r+b") as f:
    f.seek(4096 + 20000)
    f.write(b"\0")
write(w.path("vault/root/junk"), b"junk")
write(w.path("vault/root/lg.tmp.0123"), b"junk")
m = w.mount()
names = sorted(os.listdir(m))
assert names == ["f%d" % i for i in range(6)], names
bad = 0
for n in names:
    try:
        assert read(os.path.join(m, n)) == bytes([int(n[1])]) * 50000
    except OSError as x:
        assert x.errno == errno.EIO
        bad += 1
assert bad == 4, bad
subprocess.run(["rm", "-r", *[os.path.join(m, n) for n in names]], check=True)

# Clients of the key manager that misbehave cost nobody else anything.
socks = []
# A key manager that was not started anew when another version was installed: its answers have other fields.
other = socket.socket(socket.AF_UNIX)
other.bind(w.path("odd.sock"))
other.listen()


def answer():
    c = other.accept()[0]
    asked = c.recv(4096)
    c.sendall(struct.pack("<I4sHH", 29, b"LGK1", 1, 0x8001) + asked[12:20] + bytes(8) + b"\1")
    c.close()


t = threading.Thread(target=answer, daemon=True)
t.start()
w.fails(1, ["cannot be read", "start it anew"], "leadglass", "status", "--socket", w.path("odd.sock"))
t.join()
for junk in (b"", b"\x10", b"GET / HTTP/1.0\r\n\r\n", rnd.randbytes(5000), b"\x14\0\0\0LGK1" + b"\0" * 12):
    s = socket.socket(socket.AF_UNIX)
    s.connect(w.socket)
    s.send(junk) if junk else None
    socks.append(s)
t = time.time()
for _ in range(20):
    w.cli("status")
assert time.time() - t < 100
write(os.path.join(m, "still"), b"works")
w.umount()
print("ok")
