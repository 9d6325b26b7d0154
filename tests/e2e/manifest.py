"""The signature under the manifests of scrub: verified with keys and by an auditor who has the public key alone; forged, cut off, of another key; those of the version before it; what the key
manager signs, for whom, and that all of it is on record."""
import hashlib, socket
from lib import *

SAMPLES = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "samples")
SIG, MAC = 120, 32  # docs/FORMAT-manifest.md
SIGN, KEY, BEGIN, END = 104, 105, 13, 14
w = World()
vault = w.init()
m = w.mount()
for n in ("one", "two", "three"):
    write(os.path.join(m, n), n.encode() * 3000)
w.umount()


class Asking:
    """Requests as no program of ours sends them."""
    def __init__(self):
        self.s = socket.socket(socket.AF_UNIX)
        self.s.connect(w.socket)

    def __call__(self, kind, body=b""):
        self.s.sendall(struct.pack("<IIHHQ", 20 + len(body), 0x314b474c, 1, kind, 7) + body)
        head = self.exactly(20)
        size, answered = struct.unpack("<I", head[:4])[0], struct.unpack("<H", head[10:12])[0]
        assert answered == kind | 0x8000
        got = self.exactly(size - 20)
        return -struct.unpack("<i", got[:4])[0], got[8:]

    def exactly(self, n):
        b = b""
        while len(b) < n:
            got = self.s.recv(n - len(b))
            assert got, "the connection ended"
            b += got
        return b


def query(*args):
    return json.loads(w.cli("audit", "query", "--json", "--event", "scrub.manifest", *args))


def judged(code, verdict, path, *args):
    r = w.run("leadglass", "audit", "manifest", path, "--json", *args)
    assert r.returncode == code, (path, args, r)
    j = json.loads(r.stdout)
    assert j["verdict"] == verdict, j
    text = w.run("leadglass", "audit", "manifest", path, *args)
    assert text.returncode == code and {"intact": "intact", "not intact": "NOT INTACT", "cannot be told": "cannot be told"}[verdict] in text.stdout, text
    return j


def against(code, path, words=(), at=None):
    r = w.run("leadglass", "scrub", "--json", "--read-only", "--against", path, at or vault)
    assert r.returncode == code and all(x in r.stderr for x in words), r
    j = json.loads(r.stdout)
    assert j["complete"] == (code in (0, 11))
    return j.get("against_signed")


def changed(path, at, to):
    b = bytearray(read(path))
    at = at if at >= 0 else len(b) + at
    b[at:at + len(to)] = to
    write(w.path("bad"), b)
    return w.path("bad")


# ---- as it should be
man, key, audit_key = w.path("manifest"), w.path("key"), w.path("audit-key")
w.cli("scrub", "--manifest", man, vault)
write(key, w.cli("audit", "export-key", "--manifests").encode())
write(audit_key, w.cli("audit", "export-key").encode())
assert read(key) != read(audit_key)
assert against(0, man) is True and "no signature" not in w.cli("scrub", "--read-only", "--against", man, vault)
j = judged(0, "intact", man, "--key", key, "--offline")
assert j["key"] == "file" and j["signed"] and j["entries"] == 4 and j["public_key"] == read(key).decode().strip() and j["keyring_id"] == w.status()["keyring"]["id"], j
assert judged(0, "intact", man)["key"] == "key manager"
assert judged(18, "cannot be told", man, "--offline")["key"] == "none"
r = w.run("leadglass", "audit", "manifest", man, "--socket", w.path("nobody"))
assert r.returncode == 18 and "--key FILE" in r.stdout, r
digest = hashlib.sha256(read(man)[:64]).digest()
b = read(man)
at = 64
while (n := struct.unpack("<I", b[at:at + 4])[0]):
    digest = hashlib.sha256(digest + b[at:at + n]).digest()
    at += n
assert j["digest"] == digest.hex() and at + 80 + SIG == len(b)
was = query()
assert len(was) == 1 and was[0]["outcome"] == "ok" and was[0]["user"] == "root" and was[0]["log"] == "keyd" and was[0]["program"].endswith("/leadglass"), was
assert was[0]["text"] == "digest %s, 4 entries, key %s" % (digest.hex(), read(key).decode().strip()), was
w.fails(1, ["not a public key"], "leadglass", "audit", "manifest", man, "--key", man)
w.fails(1, ["not a whole manifest"], "leadglass", "audit", "manifest", w.passphrase)
w.fails(2, ["expected manifest FILE"], "leadglass", "audit", "manifest")

# ---- forged: a byte of the signature, of what it says and of what it speaks of; another time; another key; the signature of something else; none
for n, at in (("signature", -1), ("signature", -64), ("key", -65), ("when it was signed", -SIG + 16), ("keyring", -SIG)):
    bad = changed(man, at, bytes([b[at] ^ 1]))
    against(10, bad, ["is not signed by this key manager"])
    judged(17, "not intact", bad, "--key", key, "--offline")
for at in (40, 64 + 30, len(b) - SIG - MAC - 1):
    bad = changed(man, at, bytes([b[at] ^ 1]))
    against(10, bad, ["does not verify"])
    judged(17, "not intact", bad, "--key", key)
bad = changed(man, -SIG - 1, bytes([b[-SIG - 1] ^ 1]))  # the MAC: only who has the vault's key can tell
against(10, bad, ["does not verify"])
judged(0, "intact", bad, "--key", key)
write(w.path("bad"), b[:-SIG])
against(10, w.path("bad"), ["has lost its signature"])
assert "missing" in judged(17, "not intact", w.path("bad"), "--key", key)["why"]
for cut in (1, SIG - 1, SIG + 1, len(b) - 64):
    write(w.path("bad"), b[:-cut])
    assert w.run("leadglass", "audit", "manifest", w.path("bad")).returncode == 1
    against(1, w.path("bad"), ["not a whole manifest"])
bad = changed(man, 8, b"\1")  # as if it were from before there were signatures
write(bad, read(bad)[:-SIG])
against(10, bad, ["does not verify"])
assert "newer version" in w.run("leadglass", "audit", "manifest", changed(man, 8, b"\3")).stderr
against(1, changed(man, 8, b"\3"), ["newer version"])
judged(17, "not intact", man, "--key", audit_key)
other = World()
other.init()
other.cli("scrub", "--manifest", other.path("manifest"), other.path("vault"))
foreign = read(other.path("manifest"))
assert "another key" in judged(17, "not intact", other.path("manifest"), "--key", key)["why"]
assert "another key than the key manager's" in judged(17, "not intact", other.path("manifest"))["why"]
bad = changed(man, -SIG, foreign[-SIG:])  # whoever had our vault's key, and a key manager of his own
against(10, bad, ["is not signed by this key manager"])
judged(17, "not intact", bad, "--key", key)
other.close()

# ---- what the key manager signs: for the process that has begun the session of a scrub, of that session's vault, and on record
vid = b[16:32]
want = struct.pack("<QQ", 5, 0)
begun = lambda what: vid + struct.pack("<H", len(what)) + what


def sign(hash, session):
    return ask(SIGN, struct.pack("<H", 16 + len(hash)) + want + hash + struct.pack("<Q", session))


ask, h = Asking(), b"h" * 32
EINVAL, EACCES, ENOKEY = errno.EINVAL, errno.EACCES, errno.ENOKEY
assert sign(h, 99)[0] == EINVAL  # no such session
m = w.mount()
session = w.status()["mounts"][0]["session"]
assert sign(h, session)[0] == EINVAL  # a mount's
w.umount()
p = w.spawn([os.path.join(BIN, "leadglass"), "scrub", "--rate", "0.001", vault], stdout=subprocess.DEVNULL)
wait_for(lambda: any(x["mountpoint"].startswith("scrub") for x in w.status()["mounts"]))
assert sign(h, w.status()["mounts"][0]["session"])[0] == EACCES  # another process's
w.stop(p)
wait_for(lambda: not w.status()["mounts"])
rc, got = ask(BEGIN, begun(b"scrub, it says"))
assert rc == 0, rc
session = struct.unpack("<Q", got[:8])[0]
for short in (b"", h[:-1], h + b"x", h * 3):
    assert sign(short, session)[0] == EINVAL
before = len(query())
# Somebody makes one up: of nothing but a header. He gets his signature, and what he had signed stands in the log.
header = b"LGMANIF\n" + struct.pack("<II", 2, 0) + vid + struct.pack("<QQ", 5, session) + bytes(16)
h = hashlib.sha256(header).digest()
rc, got = sign(h, session)
assert rc == 0 and struct.unpack("<I", got[:4])[0] == SIG == len(got) - 4, (rc, got)
write(w.path("made-up"), header + struct.pack("<IIQ", 0, 0x454d474c, 0) + h + bytes(MAC) + got[4:])
assert judged(0, "intact", w.path("made-up"), "--key", key, "--offline")["digest"] == h.hex()
last = query()[-1]
assert len(query()) == before + 1 and last["outcome"] == "ok" and last["text"].startswith("digest %s, 0 entries" % h.hex()) and "python" in last["program"], last
assert w.run("leadglass", "audit", "verify").returncode == 0
assert ask(END, struct.pack("<Q", session))[0] == 0
against(10, w.path("made-up"), ["does not verify"])  # his MAC is not right
assert sign(h, session)[0] == EINVAL  # it is over
outcomes = [r["outcome"] for r in query()]
assert outcomes.count("ok") == 2 and outcomes.count("EACCES") == 1 and outcomes.count("EINVAL") == 7, outcomes
rc, got = ask(KEY)
assert rc == 0 and got[4:].hex() == read(key).decode().strip(), (rc, got)


def as_nobody():
    pid = os.fork()
    if not pid:
        try:
            os.setresuid(65534, 65534, 65534)
            a = Asking()
            ok = a(SIGN, struct.pack("<H", 48) + want + h + bytes(8))[0] == EACCES and a(KEY)[0] in (EACCES, ENOKEY)
            os._exit(0 if ok else 1)
        finally:
            os._exit(2)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


for d in (w.dir, w.socket):
    os.chmod(d, 0o755 if d == w.dir else 0o666)
assert as_nobody() == 0

# ---- the key stays with the keyring: a new root does not change it
w.cli("key", "rotate", "--root")
assert w.cli("audit", "export-key", "--manifests").encode() == read(key)
assert against(0, man) is True

# ---- locked
ask = Asking()
rc, got = ask(BEGIN, begun(b"scrub, it says"))
assert rc == 0
session = struct.unpack("<Q", got[:8])[0]
w.run("leadglass", "lock")
assert sign(h, session)[0] == ENOKEY and ask(KEY)[0] == ENOKEY
w.fails(4, ["locked"], "leadglass", "audit", "export-key", "--manifests")
assert "locked" in judged(18, "cannot be told", man)["why"]
judged(0, "intact", man, "--key", key)
w.unlock()
assert query()[-1]["outcome"] == "ENOKEY"
ask(END, struct.pack("<Q", session))

# ---- the log cannot be written: nothing is signed, whatever else goes on without a record; nor where none is kept
log = w.path("keyring.audit")
w.stop_keyd()
w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--audit-on-failure", "continue")
w.unlock()
os.rename(log, log + ".away")
wait_for(lambda: w.run("leadglass", "audit", "anchor") and w.status()["audit"]["failing"])
state = w.path("state")
w.fails(1, ["was not signed", "cannot be written", "--resume"], "leadglass", "scrub", "--manifest", w.path("unrecorded"), "--state", state, vault)
assert not os.path.exists(w.path("unrecorded"))
os.rename(log + ".away", log)
wait_for(lambda: not w.status()["audit"]["failing"])
w.cli("scrub", "--manifest", w.path("unrecorded"), "--state", state, "--resume", vault)
assert against(0, w.path("unrecorded")) is True and judged(0, "intact", w.path("unrecorded"))["entries"] == 4
w.stop_keyd()
w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--audit", "off")
w.unlock()
w.fails(1, ["was not signed", "keeps no access log"], "leadglass", "scrub", "--manifest", w.path("off"), vault)
assert not os.path.exists(w.path("off")) and against(0, man) is True
w.stop_keyd()

# ---- one that was written before there were signatures: still compared with, and never taken for signed
old = World(start=False)
subprocess.run(["tar", "-C", old.dir, "--xattrs", "--xattrs-include=*", "-xJf", os.path.join(SAMPLES, "v1", "sample.tar.xz")], check=True)
old.keyd(), old.unlock()
v1, w = os.path.join(SAMPLES, "manifests", "v1"), old
assert against(0, v1, at=w.path("vault")) is False
text = w.cli("scrub", "--read-only", "--against", v1, w.path("vault"))
assert "is of version 1: it has a MAC alone and no signature" in text, text
j = judged(18, "cannot be told", v1)
assert "version 1" in j["why"] and not j["signed"] and "public_key" not in j, j
bad = changed(v1, -1, bytes([read(v1)[-1] ^ 1]))
against(10, bad, ["does not verify"], w.path("vault"))
w.cli("scrub", "--read-only", "--manifest", w.path("new"), w.path("vault"))
assert against(0, w.path("new"), at=w.path("vault")) is True  # the old keyring has such a key, too
print("ok")
