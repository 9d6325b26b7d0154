"""5,000 studies whose waiting period ends at one moment are destroyed in one batch, and a study with 3,000 provisional keys at once: every mount is told of every key, in as
many messages as that takes, and confirms."""
import errno, glob, json, os, socket, struct, time
from lib import *

IN_ONE, SAMPLE = 1024, 100
N, ATTACHED = (2100, 1100) if SANITIZED else (5000, 3000)  # more than two messages hold, and more than one
w = World()
vault = w.init()
m = w.mount()


class Keyd:
    """The protocol, as docs/PROTOCOL.md has it."""
    def __init__(self):
        self.s, self.n = socket.socket(socket.AF_UNIX), 0
        self.s.connect(w.socket)
        self.s.settimeout(60)

    def exactly(self, n):
        b = b""
        while len(b) < n:
            got = self.s.recv(n - len(b))
            assert got, "closed"
            b += got
        return b

    def ask(self, kind, body):
        self.n += 1
        self.s.sendall(struct.pack("<I4sHHQ", 20 + len(body), b"LGK1", 1, kind, self.n) + body)
        size, magic, version, kind2, number = struct.unpack("<I4sHHQ", self.exactly(20))
        body = self.exactly(size - 20)
        assert kind2 == kind | 0x8000 and number == self.n
        status, = struct.unpack("<i", body[:4])
        assert status == 0, (kind, os.strerror(-status))
        return body[8:]


def text(s):
    return struct.pack("<H", len(s)) + s


def told():
    """How many messages of revoked keys the mount has had."""
    return sum(read(f).count(b'"event":"key.revoke"') for d in glob.glob(w.path("keyring.audit", "mount-*")) for f in glob.glob(d + "/*.jsonl"))


def seconds(f):
    t = time.time()
    r = f()
    return time.time() - t, r


for n in range(N):
    d = os.path.join(m, "%02d" % (n % 100))
    if n < 100:
        os.mkdir(d)
    write(os.path.join(d, str(n)), dicom_of(n, 500))
write(os.path.join(m, "kept"), dicom_of(N, 500))
for n in range(N + 2, N + 2 + SAMPLE):
    write(os.path.join(m, "00", str(n)), dicom_of(n, 500))
k = Keyd()
one = text(b"1.2.%d" % (N + 1)) + text(b"P") + text(b"") + text(b"") + text(b"")
for i in range(ATTACHED):
    key = k.ask(11, b"")
    k.ask(12, key[:16] + one)
status = w.status()
keyring = bytes.fromhex(status["keyring"]["id"])
before = told()
t, _ = seconds(lambda: w.cli("study", "revoke", "1.2.%d" % (N + 1), "--reason", "many keys", "--now"))
wait_for(lambda: told() - before >= -(-(ATTACHED + 1) // IN_ONE))  # records are written a moment later
assert told() - before == -(-(ATTACHED + 1) // IN_ONE), (told(), before)
w.cli("study", "certificate", "1.2.%d" % (N + 1))  # confirmed
print("a study with %d provisional keys: %.2f s" % (ATTACHED, t))

# Asked for by one administrator, without --now: they wait as the policy says. A few are asked for first, to know how long all will take.
kid = {s["uid"]: bytes.fromhex(s["key_id"]) for s in w.asked("study", "list")}
now = int(time.time())


def ask(which):
    for n in which:
        uid = b"1.2.%d" % n
        doc = (b"LGACT01\0" + struct.pack("<H", 1) + keyring + os.urandom(16) + struct.pack("<QQ", now, now + 86400) + b"\0" * 32 + kid[uid.decode()] + text(uid) + struct.pack("<Q", 0) + text(b"batch") +
               struct.pack("<H", 0))
        body = b"\0" + text(doc)
        k.ask(40, text(body))


w.cli("policy", "set", "--waiting", "10d", "--reason", "test")
t, _ = seconds(lambda: ask(range(N + 2, N + 2 + SAMPLE)))
waiting = 5 + int(2 * t * N / SAMPLE)
w.cli("policy", "set", "--waiting", "%ds" % waiting, "--reason", "test")
wait_for(lambda: told() >= -(-(ATTACHED + 1) // IN_ONE) + SAMPLE)
before = told()
t, _ = seconds(lambda: ask(range(N)))
assert t < waiting - 2, (t, waiting)
print("%d revocations asked for, each told to the mount: %.1f s of %d" % (N, t, waiting))
for n in range(0, N, 7):
    raises(errno.EKEYREVOKED, read, os.path.join(m, "%02d" % (n % 100), str(n)))
assert read(os.path.join(m, "kept")) == dicom_of(N, 500)
before += N  # those told so far, one by one
wait_for(lambda: sum(1 for s in w.asked("study", "list") if s["state"] == "destroyed") == N + 1, waiting + 600)
w.recorded()
log = [json.loads(x) for f in sorted(glob.glob(w.path("keyring.audit", "keyd", "*.jsonl"))) for x in read(f).split(b"\n")[:-1]]
ended = [r for r in log if r["event"] == "key.destroy" and "waiting period" in r.get("text", "")]
assert len(ended) == N and all(r["outcome"] == "ok" for r in ended), len(ended)
wait_for(lambda: told() - before >= -(-N // IN_ONE))
batches = told() - before
assert -(-N // IN_ONE) <= batches <= -(-N // IN_ONE) + max(40, int(t) + 2), batches  # it is looked every second, for as long as asking took
print("%d studies destroyed; the mount was told in %d messages" % (N, batches))
for n in range(0, N, 501):
    w.cli("study", "certificate", "1.2.%d" % n)  # the mount has confirmed
for n in range(0, N, 11):
    raises(errno.EKEYREVOKED, read, os.path.join(m, "%02d" % (n % 100), str(n)))
assert read(os.path.join(m, "kept")) == dicom_of(N, 500)
w.remount()
assert read(os.path.join(m, "kept")) == dicom_of(N, 500)
print("ok")
