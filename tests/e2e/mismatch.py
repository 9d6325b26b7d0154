"""A key manager of another version than the command or the mount: its answers are longer or shorter than expected, or it ends the connection at a request that it
does not take. Each says so, and what to do."""
import socket, struct, threading
from lib import *

w = World()
vault = w.init()
os.mkdir(w.path("mnt"))
STATUS, VAULT_GET, STUDY_LIST, MANIFEST_SIGN, MANIFEST_KEY = 1, 8, 6, 104, 105
between, how = w.path("between.sock"), {}
server = socket.socket(socket.AF_UNIX)
server.bind(between)
server.listen(64)


def exactly(s, n):
    b = b""
    while len(b) < n:
        got = s.recv(n - len(b))
        if not got:
            raise EOFError
        b += got
    return b


def serve(s):
    """As a key manager of another version might: requests go on to ours, its answers are changed."""
    k = socket.socket(socket.AF_UNIX)
    k.connect(w.socket)
    try:
        while True:
            for one, other in ((s, k), (k, s)):
                head = exactly(one, 20)
                size, kind = struct.unpack("<I", head[:4])[0], struct.unpack("<H", head[10:12])[0]
                body = exactly(one, size - 20)
                change = how.get(kind & 0x7fff)
                if one is s and change == "close":
                    return
                if one is k and change == "unknown":  # as what is not known is answered
                    body = struct.pack("<iI", -errno.EPROTONOSUPPORT, 0)
                elif one is k and change is not None:
                    body = body + b"\0" * change if change > 0 else body[:change]
                other.sendall(struct.pack("<I", 20 + len(body)) + head[4:] + body)
    except (EOFError, OSError):
        pass
    finally:
        s.close()
        k.close()


def accepting():
    while True:
        threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()


threading.Thread(target=accepting, daemon=True).start()
w.cli("status", "--socket", between)
for change in (8, -8, "close"):
    how.update({STATUS: change})
    for command in (["status"], ["status", "--json"], ["init", w.path("vault2")], ["mount", vault, w.path("mnt")]):
        w.fails(5 if change == "close" else 1, ["another version", "start it anew"], "leadglass", *command, "--socket", between)
    how.update({STATUS: None, STUDY_LIST: change})
    w.fails(5 if change == "close" else 1, ["another version", "start it anew"], "leadglass", "study", "list", "--socket", between)
    how.update({STUDY_LIST: None, VAULT_GET: change})
    w.fails(5 if change == "close" else 1, ["another version", "start it anew"], "leadglass", "mount", vault, w.path("mnt"), "--socket", between)
    how.update({VAULT_GET: None})
assert not os.path.ismount(w.path("mnt"))
# One from before manifests were signed says so before hours of work; what needs no signature goes on with it.
how.update({MANIFEST_KEY: "unknown", MANIFEST_SIGN: "unknown"})
for option in ("--manifest", "--against"):
    w.fails(1, ["of an earlier version", "does not sign manifests"], "leadglass", "scrub", "--socket", between, option, w.path("manifest"), vault)
assert not os.path.exists(w.path("manifest.part"))
w.fails(1, ["of an earlier version"], "leadglass", "audit", "export-key", "--manifests", "--socket", between)
w.cli("scrub", "--socket", between, vault)
w.cli("scrub", "--manifest", w.path("manifest"), vault)
r = w.run("leadglass", "audit", "manifest", w.path("manifest"), "--socket", between)
assert r.returncode == 18 and "earlier version" in r.stdout, r
for change in (8, -8, "close"):
    how.update({MANIFEST_KEY: change})
    w.fails(5 if change == "close" else 1, ["another version"], "leadglass", "scrub", "--socket", between, "--manifest", w.path("manifest2"), vault)
    how.update({MANIFEST_KEY: None, MANIFEST_SIGN: change})
    w.fails(5 if change == "close" else 1, ["signing the manifest", "another version"], "leadglass", "scrub", "--socket", between, "--manifest", w.path("manifest2"), vault)
    assert not os.path.exists(w.path("manifest2"))
how.update({MANIFEST_SIGN: None})
w.mount()
print("ok")
