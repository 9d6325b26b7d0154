"""leadglass scrub on real vaults: nothing found on a healthy one, every kind of finding produced and expected, with keys, without, against a manifest,
after crashes; resumed, repaired, salvaged; and its memory does not grow with the vault."""
import errno, json, os, pty, random, re, resource, shutil, signal, struct, subprocess, threading, time
from lib import *

C = 4096
rnd = random.Random(11)
w = World()
vault = w.path("vault")
w.cli("init", "--chunk-size", "4", vault)
ENOUGH = {"damage", "differs", "unreadable", "unfinished", "no-key", "revoked", "recovered", "leftover", "changed", "repaired"}


def scrub(code, *args, at=None):
    r = w.run("leadglass", "scrub", "--json", *args, at or vault)
    assert r.returncode == code, (args, "expected", code, "got", r.returncode, r.stdout[-3000:], r.stderr)
    j = json.loads(r.stdout)
    assert j["complete"] and set(j["found"]) == ENOUGH and sum(j["found"].values()) == len(j["findings"]), j
    return j


def said(j):
    """As (class, plaintext path or None, kind, range)."""
    return sorted((f["class"], f.get("path", "?"), f["kind"], (f["from"], f["to"]) if "to" in f else None) for f in j["findings"])


def expect(j, *want):
    have = said(j)
    for x in want:
        assert x in have, ("not found", x, have)
        have.remove(x)
    assert not have, ("too many", have)


def entry_off(i):
    return 1536 + 32 * i if i < 80 else 4096 + 80 * C + 32 * (i - 80)


def chunk_off(i):
    return 4096 + i * C if i < 80 else 4096 + 80 * C + 128 * 32 + (i - 80) * C


def poke(path, at, n=1):
    with open(path, "r+b") as f:
        f.seek(at)
        b = bytes(x ^ 0x11 for x in f.read(n))
        f.seek(at)
        f.write(b)


def below(m, vault=vault):
    lower = {}
    for d, ds, fs in os.walk(os.path.join(vault, "root")):
        for x in ds + fs:
            lower[os.lstat(os.path.join(d, x)).st_ino] = os.path.join(d, x)
    return {os.path.relpath(os.path.join(d, x), m): lower[os.lstat(os.path.join(d, x)).st_ino] for d, ds, fs in os.walk(m) for x in ds + fs}


def tree(m):
    """Of every kind that a PACS leaves behind."""
    for i in range(24):
        write(os.path.join(m, "f%02d" % i), rnd.randbytes(100 * C + 77))
    for d in ("a", "b", "c", "gone", "deep/er/still"):
        os.makedirs(os.path.join(m, d))
        for f in ("one", "two", "three"):
            write(os.path.join(m, d, f), (d + f).encode() * 50)
    write(os.path.join(m, "L" * 250), b"long")
    write(os.path.join(m, "M" * 250), b"long")
    write(os.path.join(m, "empty"), b"")
    with open(os.path.join(m, "holes"), "wb") as f:
        f.seek(300 * C)
        f.write(b"end")
        f.truncate(700 * C)
    for i in range(3):
        os.symlink("target %d" % i, os.path.join(m, "link%d" % i))
    os.mkfifo(os.path.join(m, "fifo"))
    for f in ("link0", "link1", "link2", "fifo"):  # times not of this second: rsync 3.5 then leaves those of links and the like as they are
        os.utime(os.path.join(m, f), ns=(1, 1111111111111111111), follow_symlinks=False)
    for f in ("f00", "f01"):
        os.setxattr(os.path.join(m, f), "user.k", f.encode())


m = w.mount()
tree(m)
import pydicom.data
ct = pydicom.data.get_testdata_file("CT_small.dcm")
uid = str(pydicom.dcmread(ct, stop_before_pixels=True).StudyInstanceUID)
write(os.path.join(m, "ct"), read(ct))

# ---- in use ------------------------------------------------------------------------------------------------------------------------------------------------
e = w.fails(7, ["is in use (%s)" % m, "--keyless"], "leadglass", "scrub", vault)
w.fails(1, ["is not a vault", "not where it is mounted"], "leadglass", "scrub", "--keyless", m)
e = w.fails(1, ["No such file"], "leadglass", "scrub", "--keyless", w.path("none"))
assert "Nothing is wrong" not in e, e
j = scrub(0, "--keyless")
assert j["live"] and j["findings"] == [], j
with open(os.path.join(m, "f23"), "ab") as f:  # under way, beside real damage
    def under_way():
        f.write(b"x" * 5 * C)
        f.flush()
        r = w.run("leadglass", "scrub", "--json", "--keyless", vault)
        j = json.loads(r.stdout)
        assert all(x["class"] == "unfinished" for x in j["findings"]) and r.returncode == (12 if j["findings"] else 0), r
        return j["findings"]  # none: it was committed before scrub came by
    wait_for(under_way)
where = below(m)
w.umount()

# ---- healthy ----------------------------------------------------------------------------------------------------------------------------------------------
files = sum(1 for p in where.values() if os.path.isfile(p) and not os.path.islink(p) and not os.path.isdir(p))
for args in ([], ["--keyless"], ["--read-only"], ["--accept-crash"], ["--manifest", w.path("manifest")], ["--against", w.path("manifest")]):
    j = scrub(0, *args)
    assert j["findings"] == [] and j["files"] == j["verified"] == files and j["symbolic_links"] == 3 and j["others"] == 1 and j["directories"] == 8 and not j["live"], (args, j)
text = w.cli("scrub", vault)
assert "Nothing is wrong" in text and "%d files (%d verified whole)" % (files, files) in text, text
subprocess.run(["rsync", "-aHAX", vault + "/", w.path("vault-good")], check=True)

# At a rate no sooner than that allows; on a terminal it tells how far it came, elsewhere nothing of it.
for args in ([], ["--keyless"]):
    begun = time.monotonic()
    j = scrub(0, "--rate", "8", *args)
    assert j["bytes"] > 9 << 20 and time.monotonic() - begun >= j["bytes"] / (8 << 20), (args, j["bytes"], time.monotonic() - begun)
tty, slave = pty.openpty()
p = w.spawn([os.path.join(BIN, "leadglass"), "scrub", "--rate", "4", vault], stdout=subprocess.PIPE, stderr=slave, text=True)
os.close(slave)
seen = b""
try:
    while got := os.read(tty, 4096):
        seen += got
except OSError as e:  # how a terminal ends
    assert e.errno == errno.EIO, e
text = p.communicate(timeout=180)[0]
w.children.remove(p)
os.close(tty)
steps = [int(x) for x in re.findall(rb"\r\033\[K(\d+) files, \d+\.\d GiB read, \d+ MiB/s, 0 findings", seen)]
assert p.returncode == 0 and "Nothing is wrong" in text and len(steps) >= 2 and steps == sorted(steps) and 0 < steps[0] < steps[-1] <= files, (seen, text)
assert "MiB/s" not in text and seen.endswith(b"\r\033[K"), seen
r = w.run("leadglass", "scrub", "--rate", "8", vault)
assert r.returncode == 0 and r.stderr == "" and "\033" not in r.stdout, r


def fresh():
    shutil.rmtree(vault)
    subprocess.run(["rsync", "-aHAX", w.path("vault-good") + "/", vault], check=True)


# ---- damage: with keys it is told to the byte range, without keys as far as checksums reach ---------------------------------------------------------------------
b = lambda n: where[n]
T = 100 * C
SHUT, ALIEN, CHUNK, CRC = "header, table or size do not verify", "not a file of this vault", "chunk does not verify", "chunk does not match its checksum"
SLOT, NAME, DIRID = "a commit slot does not match its checksum", "name does not verify", "directory id is missing or does not verify"
ways = [  # file: change, with keys, keyless
    ("f00", lambda p: poke(p, chunk_off(7) + 5), [(CHUNK, (7 * C, 8 * C))], [("damage?", CRC, (7 * C, 8 * C))]),
    ("f01", lambda p: poke(p, chunk_off(100) + 76), [(CHUNK, (T, T + 77))], [("damage?", CRC, (T, T + 77))]),
    ("f02", lambda p: (poke(p, chunk_off(0)), poke(p, chunk_off(95))), [(CHUNK, (0, C)), (CHUNK, (95 * C, 96 * C))], [("damage?", CRC, (0, C)), ("damage?", CRC, (95 * C, 96 * C))]),
    ("f03", lambda p: poke(p, 3), [(ALIEN, None)], [("damage", ALIEN, None)]),
    ("f04", lambda p: poke(p, 1024 + 170), [(SHUT, None)], None),
    ("f05", lambda p: poke(p, entry_off(3)), [(SHUT, None)], []),  # a nonce: no checksum covers it
    ("f06", lambda p: poke(p, entry_off(90) + 30), [(SHUT, None)], [("damage?", CRC, (90 * C, 91 * C))]),
    ("f07", lambda p: os.truncate(p, os.stat(p).st_size - 1), [(SHUT, None)], None),
    ("f08", lambda p: os.truncate(p, os.stat(p).st_size + 513), [(SHUT, None)], [("unfinished", "more stands there than its newest commit says", None)]),
    ("f09", lambda p: os.truncate(p, 100), [(ALIEN, None)], [("damage", ALIEN, None)]),
    ("f10", lambda p: os.truncate(p, 0), [(ALIEN, None)], [("damage", ALIEN, None)]),
    ("f11", lambda p: write(p, read(p)[:512] + bytes(1024) + read(p)[1536:]), [("no valid commit slot", None)], [("damage", "no valid commit slot", None)]),
]
for n, change, _, _ in ways:
    change(b(n))
j = scrub(10)
expect(j, *[("damage", n, kind, r) for n, _, keyed, _ in ways for kind, r in keyed])
ids = {f["path"]: f["file_id"] for f in j["findings"] if f["path"] not in ("f09", "f10")}
assert all(read(b(n))[36:52].hex() == ids[n] for n in ids)
assert j["verified"] == files - len(ways)
text = w.run("leadglass", "scrub", vault).stdout
assert re.search(r"damage +f00 \(id [0-9a-f]{32}, bytes 28672 to 32767\): chunk does not verify", text), text
j = scrub(10, "--keyless")
byid = {v: k for k, v in where.items()}
got = {}
for f in j["findings"]:
    got.setdefault(os.path.relpath(byid[os.path.join(vault, "root", f["lower"])], "."), []).append((f["class"], f["kind"], (f["from"], f["to"]) if "to" in f else None))
for n, _, _, keyless in ways:
    have = got.pop(n, [])
    if keyless is None:
        assert have, n
    else:
        assert len(have) == len(keyless), (n, have)
        for (c, k, r), (c2, k2, r2) in zip(have, keyless):
            assert k == k2 and r == r2 and (c == c2 or (c2 == "damage?" and c in ("damage", "unfinished"))), (n, have, keyless)
assert not got, got
# By somebody without rights or keys, on a copy of his own.
subprocess.run(["cp", "-a", vault, w.path("copy")], check=True)
subprocess.run(["chown", "-R", "65534:65534", w.path("copy")], check=True)
os.chmod(w.dir, 0o755)
r = subprocess.run([os.path.join(BIN, "leadglass"), "scrub", "--keyless", "--json", w.path("copy")], user=65534, group=65534, extra_groups=[], stdout=subprocess.PIPE,
                   stderr=subprocess.PIPE, env={"PATH": "/usr/bin:/bin"}, text=True)
assert r.returncode == 10, (r.returncode, r.stdout[-2000:], r.stderr)
assert sorted(json.loads(r.stdout)["found"].items()) == sorted(j["found"].items())
os.chmod(os.path.join(w.path("copy"), os.path.relpath(b("f20"), vault)), 0)
r = subprocess.run([os.path.join(BIN, "leadglass"), "scrub", "--keyless", "--json", w.path("copy")], user=65534, group=65534, extra_groups=[], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
assert json.loads(r.stdout)["found"]["unreadable"] == 1, r.stdout
shutil.rmtree(w.path("copy"))

# ---- resumed: the same report as in one go ------------------------------------------------------------------------------------------------------------------------
state = w.path("state")
p = w.spawn([os.path.join(BIN, "leadglass"), "scrub", "--state", state, "--rate", "0.5", vault], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
wait_for(lambda: os.path.exists(state) and b'"position"' in read(state))
p.send_signal(signal.SIGTERM)
p.wait(180)
w.children.remove(p)
assert p.returncode == 14, (p.returncode, p.stderr.read())
part = read(state)
assert b'"done"' not in part
w.fails(2, ["is not the state of such a check"], "leadglass", "scrub", "--state", state, "--resume", "--against", w.path("manifest"), vault)
with open(state, "ab") as f:
    f.write(b'{"class":"damage","kind":"torn')  # as a power cut would leave it
a, again = scrub(10), scrub(10, "--state", state, "--resume")
assert said(a) == said(again) and {k: a[k] for k in a if k != "findings"} == {k: again[k] for k in again if k != "findings"}, (said(a), said(again))
assert read(state).startswith(part[:part.rindex(b"{")]) and said(scrub(10, "--state", state, "--resume")) == said(a)
assert said(scrub(10, "--state", w.path("none"), "--resume")) == said(a)  # nothing to go on from: from the beginning

# ---- removed and salvaged -----------------------------------------------------------------------------------------------------------------------------------------
good = {}
m = w.mount("vault-good")
good = {n: read(os.path.join(m, n)) for n, _, _, _ in ways}
w.umount()
os.mkdir(w.path("out"))
j = scrub(10, "--salvage", w.path("out"))
for n, _, _, _ in ways:
    p = os.path.join(w.path("out"), n)
    if n in ("f09", "f10", "f11"):
        continue
    have = read(p)
    lost = [x for x in j["findings"] if x.get("path") == n and x["class"] == "repaired"]
    assert len(lost) == 1 and "written" in lost[0]["kind"], (n, lost)
    same = sum(have[i * C:i * C + C] == good[n][i * C:i * C + C] for i in range(101))
    assert same >= 98 and len(have) in (len(good[n]), len(good[n]) - 1), (n, same, len(have))
    for i in range(101):  # what is not right is zeros, never garbage
        assert have[i * C:i * C + C] in (good[n][i * C:i * C + C], bytes(len(have[i * C:i * C + C]))), (n, i)
j = scrub(10, "--remove")
assert j["found"]["repaired"] == len(ways), j["found"]
assert scrub(0)["files"] == files - len(ways)

# ---- directories and names ------------------------------------------------------------------------------------------------------------------------------------------
fresh()
dirid = lambda d: os.path.join(b(d), "lg.dirid")


def link(path, text):
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(text, path)


other = lambda s, i: s[:i] + ("A" if s[i] != "A" else "B") + s[i + 1:]
link(dirid("a"), other(os.readlink(dirid("a")), 3))
os.unlink(dirid("deep/er"))
os.rename(b("b/one"), os.path.join(b("c"), os.path.basename(b("b/one"))))
os.unlink(b("L" * 250) + ".name")
os.rename(b("b/two"), os.path.join(b("b"), other(os.path.basename(b("b/two")), 2)))
link(b("link1"), other(os.readlink(b("link1")), 30))
k = [x for x in os.listxattr(b("f00")) if x.startswith("user.lg.")][0]
os.setxattr(b("f00"), k, other(os.getxattr(b("f00"), k).hex(), 40).encode()[:70])
os.symlink("x", b("f02") + ".x"), os.rename(b("f02") + ".x", os.path.join(os.path.dirname(b("f02")), "lg.long." + "z" * 43 + ".name"))
os.mkdir(os.path.join(vault, "root", "lg.tmp.0123456789abcdef"))
os.unlink(b("gone/one"))
j = scrub(10)
names = [("damage", "a", DIRID, None), ("damage", "deep/er", DIRID, None), ("damage", "?", NAME, None), ("damage", "?", NAME, None), ("damage", "?", NAME, None),
         ("damage", "link1", "symbolic link does not verify", None), ("damage", "f00", "extended attribute does not verify", None),
         ("leftover", "?", "the long name of nothing", None), ("leftover", "?", "something half made or half removed", None)]
expect(j, *names)
assert j["verified"] == files - 1  # what stands under a bad name is whole all the same
k = scrub(10, "--keyless")
assert sorted(f["kind"] for f in k["findings"] if f["class"] == "damage") == [DIRID, "name is not a sealed one"], k  # without keys only what has no form at all
j = scrub(10, "--repair")
moved = [f for f in j["findings"] if f["kind"] == "moved to lost+found"]
assert len(moved) == 3 + 3 + 1, moved  # three names, three files of a, and deep/er/still
assert all(f["other"].startswith("lost+found/") for f in moved)
j = scrub(10)  # what cannot be repaired is left: the link and the attribute
expect(j, ("damage", "link1", "symbolic link does not verify", None), ("damage", "f00", "extended attribute does not verify", None))
scrub(10, "--remove")
j = scrub(0)
assert j["findings"] == [] and j["verified"] == files - 1
m = w.mount()
lost = os.path.join(m, "lost+found")
bodies = sorted(read(os.path.join(lost, f)) for f in os.listdir(lost) if f.startswith("file-"))
assert bodies == sorted([b"long"] + [("a" + f).encode() * 50 for f in ("one", "two", "three")] + [("b" + f).encode() * 50 for f in ("one", "two")]), bodies
sub = [f for f in os.listdir(lost) if f.startswith("dir-")]
assert len(sub) == 1 and sorted(os.listdir(os.path.join(lost, sub[0]))) == ["one", "three", "two"]
assert os.listdir(os.path.join(m, "a")) == [] and os.listdir(os.path.join(m, "deep/er")) == []
write(os.path.join(m, "a", "works again"), b"")
w.umount()

# ---- against the manifest --------------------------------------------------------------------------------------------------------------------------------------------
fresh()
old = {n: read(b(n)) for n in ("f02", "f03", "f04")}
m = w.mount()
for n in ("f02", "f05"):
    with open(os.path.join(m, n), "r+b") as f:
        f.write(b"written")
write(os.path.join(m, "later"), b"later")
os.setxattr(os.path.join(m, "f06"), "user.k2", b"v")
os.rename(os.path.join(m, "f07"), os.path.join(m, "c", "f07"))
os.unlink(os.path.join(m, "f08"))
w.umount()
scrub(0, "--manifest", w.path("manifest2"))
j = scrub(11, "--against", w.path("manifest"))
expect(j, ("changed", "f02", "written since", None), ("changed", "f05", "written since", None), ("changed", "later", "new", None),
       ("changed", "f06", "mode, owner, time or attributes are others", None), ("differs", "f07", "is not there any more", None),
       ("differs", "c/f07", "stood elsewhere, the manifest has it at", None), ("differs", "f08", "is not there any more", None))
# Now the enemy: rolled back, swapped, put in another's place, deleted with its directory, links exchanged.
write(b("f02"), old["f02"])
x, y = read(b("f03")), read(b("f04"))
write(b("f03"), y), write(b("f04"), x)
shutil.copyfile(b("f09"), b("f10"))
shutil.rmtree(b("gone"))
l0, l1 = os.readlink(b("link0")), os.readlink(b("link1"))
link(b("link0"), l1), link(b("link1"), l0)
os.chmod(b("f11"), 0o777)
v = [os.path.join(b("b"), os.path.basename(b("b/" + n))) for n in ("one", "two")]
os.rename(v[0], v[0] + "x"), os.rename(v[1], v[0]), os.rename(v[0] + "x", v[1])
scrub(0)  # no file tells of it
j = scrub(11, "--against", w.path("manifest2"))
times = [("changed", n, "mode, owner, time or attributes are others", None) for n in ("f11",)]
here = "another one stands here, the manifest has it at"
expect(j, ("differs", "f02", "rolled back to an older state", None), ("differs", "f03", here, None), ("differs", "f04", here, None), ("differs", "f10", here, None),
       ("differs", "gone", "directory is not there any more", None), *[("differs", "?", "is not there any more", None)] * 3, ("differs", "link0", "another symbolic link stands here", None),
       ("differs", "link1", "another symbolic link stands here", None), ("differs", "b/one", here, None), ("differs", "b/two", here, None), *times)
assert {f["path"]: f["other"] for f in j["findings"] if "other" in f} == {"f03": "f04", "f04": "f03", "f10": "f09", "b/one": "b/two", "b/two": "b/one"}
man = read(w.path("manifest2"))
for at in (0, 30, 64, len(man) // 2, len(man) - 40, len(man) - 1):
    bad = bytearray(man)
    bad[at] ^= 1
    write(w.path("bad"), bad)
    r = w.run("leadglass", "scrub", "--against", w.path("bad"), vault)
    assert r.returncode in (1, 10) and "manifest" in r.stderr, (at, r)
for cut in (man[:-1], man[:len(man) // 2], man + b"\0", b""):
    write(w.path("bad"), cut)
    r = w.run("leadglass", "scrub", "--against", w.path("bad"), vault)
    assert r.returncode in (1, 10) and "manifest" in r.stderr, r
w.cli("init", w.path("vault-other"))
w.fails(1, ["is another vault's"], "leadglass", "scrub", "--against", w.path("manifest2"), w.path("vault-other"))

# ---- keys --------------------------------------------------------------------------------------------------------------------------------------------------------------
fresh()
w.cli("study", "revoke", uid, "--reason", "test", "--now")
j = scrub(0)
expect(j, ("revoked", "ct", "its key was revoked", None))
j = scrub(0, "--manifest", w.path("manifest3"))
expect(scrub(0, "--against", w.path("manifest3")), ("revoked", "ct", "its key was revoked", None))
raw = bytearray(read(b("f00")))


def crc32c(b):
    crc = 0xffffffff
    for x in b:
        crc ^= x
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


for s in (1, 2):
    if any(raw[s * 512:s * 512 + 512]):
        raw[s * 512 + 40:s * 512 + 56] = b"unknown key id.."
        raw[s * 512 + 508:s * 512 + 512] = struct.pack("<I", crc32c(raw[s * 512:s * 512 + 508]))
write(b("f00"), raw)
j = scrub(13)
expect(j, ("revoked", "ct", "its key was revoked", None), ("no-key", "f00", "its key is not to be had", None))
w.cli("lock")
w.fails(4, ["locked"], "leadglass", "scrub", vault)
w.unlock()
# A lock takes the keys away under way, and is confirmed.
p = w.spawn([os.path.join(BIN, "leadglass"), "scrub", "--rate", "0.1", vault], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
wait_for(lambda: any(x["mountpoint"].startswith("scrub of") for x in w.status()["mounts"]))
w.fails(1, ["mounted already"], "leadglass", "mount", vault, w.path("mnt"))
w.cli("lock")
assert p.wait(180) == 4, p.stderr.read()
w.children.remove(p)
w.unlock()

# ---- crashes ---------------------------------------------------------------------------------------------------------------------------------------------------------
fresh()
gone = ("revoked", "ct", "its key was revoked", None)
m = w.mount()
for i in range(3):
    write(os.path.join(m, "new%d" % i), b"d" * 20 * C)
m = w.remount()
where = below(m)
fds = [os.open(os.path.join(m, "new%d" % i), os.O_WRONLY | os.O_APPEND) for i in range(3)]
half = {}
for i, fd in enumerate(fds):  # whole chunks behind the end stand below before any commit names them
    half[i] = append_uncommitted(fd, b("new%d" % i), lambda: rnd.randbytes(40 * C))[0]
os.kill(w.pid_of(), signal.SIGKILL)
for fd in fds:
    try:
        os.close(fd)
    except OSError:
        pass
subprocess.run(["umount", "-l", m], check=True)
w.mounts.remove("mnt")
for i in half:  # should the timer have been faster
    write(b("new%d" % i), half[i])
j = scrub(12, "--keyless")
assert j["found"]["unfinished"] >= 3 and not j["found"]["damage"], j["found"]
j = scrub(0)
assert j["found"]["recovered"] == 3 and sum(j["found"].values()) == 4, j
expect(scrub(0), gone)  # and the session is closed: a half-committed state from before is tampering
for i in half:
    write(b("new%d" % i), half[i])
j = scrub(10)
expect(j, gone, *[("damage", "new%d" % i, SHUT, None) for i in range(3)])
expect(scrub(10), gone, *[("damage", "new%d" % i, SHUT, None) for i in range(3)])  # looking changes nothing
j = scrub(0, "--accept-crash")
assert j["found"]["recovered"] == 3, j
expect(scrub(0), gone)
m = w.mount()
for i in range(3):
    assert read(os.path.join(m, "new%d" % i))[:20 * C] == b"d" * 20 * C
w.umount()

# ---- many files: memory stays where it is -----------------------------------------------------------------------------------------------------------------------------
w.cli("init", w.path("vault-many"))
m = w.mount("vault-many")


def peak(*args):
    r = subprocess.run(["/usr/bin/env", "python3", "-c", "import resource,subprocess,sys\nr=subprocess.run(sys.argv[1:],stdout=subprocess.DEVNULL)\n"
                        "print(r.returncode,resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)", os.path.join(BIN, "leadglass"), "scrub", *args], env=w.env, stdout=subprocess.PIPE, text=True)
    code, kib = map(int, r.stdout.split())
    assert code == 0, r
    return kib


for i in range(200):
    write(os.path.join(m, "%05d" % i), b"x" * 600)
w.umount()
many = w.path("vault-many")
few = peak(many), peak("--keyless", many), peak("--manifest", w.path("m"), many), peak("--against", w.path("m"), many)
m = w.mount("vault-many")
for i in range(200, 3000):
    write(os.path.join(m, "%05d" % i), b"x" * 600)
w.umount()
lots = peak(many), peak("--keyless", many), peak("--manifest", w.path("m"), many), peak("--against", w.path("m"), many)
if not SANITIZED:  # a sanitizer keeps what was freed
    assert all(b < a + 4096 for a, b in zip(few, lots)), (few, lots)
print("ok", files, "files; peak memory of 200 and 3,000 files in KiB:", few, lots)
