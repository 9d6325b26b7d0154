"""What the owner of the storage can do while nothing is mounted: on a real mount every change is an error and a line in the log, or one of those that the
threat model says cannot be noticed. One file or directory for each way, all of them changed between two mounts."""
import errno, os, random, re, shutil, struct, subprocess, threading
from lib import *

C, N, TAIL = 4096, 100, 100  # chunks of 4 KiB: 80 in the header's table, the others in the first region's
OLD = (5, 90)                # overwritten once
SECTOR = 512
rnd = random.Random(7)


def entry_off(i):
    return 1536 + 32 * i if i < 80 else 4096 + 80 * C + 32 * (i - 80)


def chunk_off(i):
    return 4096 + i * C if i < 80 else 4096 + 80 * C + 128 * 32 + (i - 80) * C


def crc32c(b):
    crc = 0xffffffff
    for x in b:
        crc ^= x
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def fix(b, sector):
    b[sector * SECTOR + 508:(sector + 1) * SECTOR] = struct.pack("<I", crc32c(b[sector * SECTOR:sector * SECTOR + 508]))


def newest(b):
    return max((1, 2), key=lambda s: struct.unpack_from("<Q", b, s * SECTOR + 8)[0])


# ---- ways of changing a file: b is changed; `other` is another file of the same key, `past` its own older self -----------------------------------------------
def flip(at, bit=1):
    def f(b, other, past):
        b[at] ^= bit
    return f


def flip_fixed(at):
    def f(b, other, past):
        at2 = newest(b) * SECTOR + at
        b[at2] ^= 1
        fix(b, newest(b))
    return f


def take(source, *ranges):
    def f(b, other, past):
        x = {"other": other, "past": past, "self": bytes(b)}[source]
        for at, n, to in ranges:
            b[to:to + n] = x[at:at + n]
    return f


def same(*ranges):
    return [(at, n, at) for at, n in ranges]


def swap(i, j, body, entry):
    def f(b, other, past):
        for on, off, n in ((body, chunk_off, C), (entry, entry_off, 32)):
            if on:
                b[off(i):off(i) + n], b[off(j):off(j) + n] = b[off(j):off(j) + n], b[off(i):off(i) + n]
    return f


def length(change):
    def f(b, other, past):
        n = change(len(b))
        if n < len(b):
            del b[n:]
        else:
            b.extend(b"\0" * (n - len(b)))
    return f


def zero(at, n):
    def f(b, other, past):
        b[at:at + n] = bytes(n)
    return f


def other_key(b, other, past):
    s = newest(b)
    b[s * SECTOR + 40:s * SECTOR + 56] = bytes(16)
    fix(b, s)


def other_wrap(b, other, past):
    for s in (1, 2):
        b[s * SECTOR + 64:s * SECTOR + 144] = other[newest(other) * SECTOR + 64:newest(other) * SECTOR + 144]
        fix(b, s)


def newer_format(b, other, past):
    b[8] = 2
    fix(b, 0)


def whole(source):
    def f(b, other, past):
        b[:] = other if source == "other" else past
    return f


def swap_slots(b, other, past):
    b[512:1024], b[1024:1536] = b[1024:1536], b[512:1024]


def drop_chunk(b, other, past):
    for j in range(10, 79):
        b[chunk_off(j):chunk_off(j) + C] = b[chunk_off(j + 1):chunk_off(j + 1) + C]


def half_committed(b, other, past):
    s = newest(b) * SECTOR
    b[s:s + SECTOR] = past[s:s + SECTOR]


SHUT = "header, table or size do not verify"
ALIEN = "not a file of this vault"
CHUNK = "chunk does not verify"
# name: change, what must come: a kind (the whole file is shut), a set of chunks, or None (not noticed: then the words of the threat model)
WAYS = {
    "none": (lambda b, o, p: None, set()),
    "magic": (flip(0), ALIEN), "vault id": (flip(20), ALIEN), "file id": (flip(36), ALIEN), "S0 checksum": (flip(509), ALIEN), "S0 zeroed": (zero(0, 512), ALIEN),
    "newer format": (newer_format, "of a newer format than this program knows"),
    "slot A": (flip(512 + 100), SHUT), "slot B": (flip(1024 + 100), SHUT), "slot A zeroed": (zero(512, 512), SHUT), "slot B zeroed": (zero(1024, 512), SHUT),
    "both slots zeroed": (zero(512, 1024), "no valid commit slot"),
    "seq": (flip_fixed(8), SHUT), "session": (flip_fixed(16), SHUT), "size": (flip_fixed(24), SHUT), "wrap": (flip_fixed(70), SHUT), "commitment": (flip_fixed(120), SHUT),
    "chunk writes": (flip_fixed(144), SHUT), "sealed accumulator": (flip_fixed(170), SHUT), "MAC": (flip_fixed(480), SHUT),
    "key id": (other_key, "its key is not to be had"),
    "wrap of another file": (other_wrap, SHUT),
    "slots of another file": (take("other", *same((512, 1024))), SHUT), "header of another file": (take("other", *same((0, 4096))), SHUT),
    "entry nonce": (flip(entry_off(3)), SHUT), "entry tag": (flip(entry_off(3) + 12), SHUT), "entry checksum": (flip(entry_off(3) + 31), SHUT),
    "entry in region": (flip(entry_off(95) + 5), SHUT), "unused entry": (flip(entry_off(150)), SHUT), "a hole": (zero(entry_off(40), 32), SHUT),
    "table zeroed": (zero(entry_off(80), 4096), SHUT),
    "chunk first byte": (flip(chunk_off(7)), {7}), "chunk middle": (flip(chunk_off(50) + C // 2), {50}), "chunk last byte": (flip(chunk_off(99) + C - 1), {99}),
    "tail": (flip(chunk_off(N) + TAIL - 1), {N}), "first chunk": (flip(chunk_off(0)), {0}), "chunk zeroed": (zero(chunk_off(85), C), {85}),
    "hole punched": (zero(chunk_off(20), 2 * C), {20, 21}),
    "chunks swapped": (swap(3, 60, True, False), {3, 60}), "chunks and entries swapped": (swap(3, 60, True, True), SHUT), "entries swapped": (swap(3, 60, False, True), SHUT),
    "chunk repeated": (take("self", (chunk_off(8), C, chunk_off(9))), {9}), "chunk dropped": (drop_chunk, set(range(10, 79))),
    "old chunk": (take("past", *same((chunk_off(5), C))), {5}), "old entry": (take("past", *same((entry_off(5), 32))), SHUT),
    "old chunk and entry": (take("past", *same((chunk_off(5), C), (entry_off(5), 32))), SHUT),
    "old chunk and entry in region": (take("past", *same((chunk_off(90), C), (entry_off(90), 32))), SHUT),
    "half-committed header": (half_committed, SHUT), "old header": (take("past", *same((0, 4096))), SHUT), "old header and table": (take("past", *same((0, 4096), (entry_off(80), 4096))), set(OLD)),
    "chunk of another": (take("other", *same((chunk_off(5), C))), {5}), "chunk and entry of another": (take("other", *same((chunk_off(5), C), (entry_off(5), 32))), SHUT),
    "cut by a byte": (length(lambda n: n - 1), SHUT), "cut by a sector": (length(lambda n: n - 512), SHUT), "cut to the header": (length(lambda n: 4096), SHUT),
    "cut in the header": (length(lambda n: 1000), ALIEN), "cut to a chunk": (length(lambda n: chunk_off(81)), SHUT), "longer by a byte": (length(lambda n: n + 1), SHUT),
    "longer by chunks": (length(lambda n: chunk_off(N + 3)), SHUT),
    "slots exchanged": (swap_slots, "two commit slots exchanged"),
    "older self": (whole("past"), "replaced by its complete older self"), "another file": (whole("other"), "two complete files swapped"),
}
UNNOTICED = {"slots exchanged", "older self", "another file"}
words = set()  # of the threat model, as used
doc = " ".join(read(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "docs", "THREAT_MODEL.md")).decode().split())


def unnoticed(w):
    assert w in doc, "not in the threat model: " + w
    words.add(w)


# ---- making ------------------------------------------------------------------------------------------------------------------------------------------
w = World()
vault = w.path("vault")
w.cli("init", "--chunk-size", str(C // 1024), vault)
m = w.mount()
at = lambda *p: os.path.join(m, *p)
first, now = {}, {}
for n in list(WAYS) + ["the other"]:
    first[n] = rnd.randbytes(N * C + TAIL)
    write(at(n), first[n])
D = {n: at("n", n) for n in ("moved", "ids", "bad id", "no id", "no id, empty", "copied id", "changed", "long", "exchanged", "dirs", "dir moved", "links", "xattrs", "types", "copied", "times",
                             "deleted", "name gone", "rolled", "old xattr", "other xattr", "owner")}
LONG = ["L%d" % i + "o" * 250 for i in range(3)]
for n, d in D.items():
    for sub in ("a", "b"):
        os.makedirs(os.path.join(d, sub))
        if n != "no id, empty":
            for f in ("one", "two"):
                write(os.path.join(d, sub, f), (n + sub + f).encode())
for x in LONG:
    write(os.path.join(D["long"], "a", x), x.encode())
for f in ("l1", "l2", "l3"):
    os.symlink("target of " + f, os.path.join(D["links"], "a", f))
for f in ("one", "two"):
    for sub in ("a", "b"):
        os.setxattr(os.path.join(D["xattrs"], sub, f), "user.k", ("value of " + sub + f).encode())
        os.setxattr(os.path.join(D["xattrs"], sub, f), "user.other", b"something else")
os.link(os.path.join(D["name gone"], "a", "one"), os.path.join(D["name gone"], "a", "second"))
os.setxattr(os.path.join(D["old xattr"], "a", "one"), "user.k", b"the older value")
os.setxattr(os.path.join(D["other xattr"], "a", "one"), "trusted.k", b"as it was")
m = w.remount()
lower = {}  # by inode number: what a mount shows is that of the file below
for d, ds, fs in os.walk(os.path.join(vault, "root")):
    for x in ds + fs:
        lower[os.lstat(os.path.join(d, x)).st_ino] = os.path.join(d, x)
below = {os.path.relpath(os.path.join(d, x), m): lower[os.lstat(os.path.join(d, x)).st_ino] for d, ds, fs in os.walk(m) for x in ds + fs}
ino = {k: os.lstat(v).st_ino for k, v in below.items()}
w.umount()
past = {n: read(below[n]) for n in WAYS}
lo = lambda n, *p: below["/".join(("n", n) + p)]
subprocess.run(["cp", "-a", lo("rolled", "a"), w.path("older")], check=True)
sealed = lambda p: [x for x in os.listxattr(p) if x.startswith("user.lg.") and x != "user.lg.mtime"]
k0, = sealed(lo("old xattr", "a", "one"))
older_value = os.getxattr(lo("old xattr", "a", "one"), k0)
m = w.mount()
for n in WAYS:
    b = bytearray(first[n])
    with open(at(n), "r+b") as f:
        for i in OLD:
            b[i * C:(i + 1) * C] = rnd.randbytes(C)
            f.seek(i * C)
            f.write(b[i * C:(i + 1) * C])
    now[n] = bytes(b)
write(os.path.join(D["rolled"], "a", "one"), b"newer"), write(os.path.join(D["rolled"], "a", "three"), b"newer")
os.setxattr(os.path.join(D["old xattr"], "a", "one"), "user.k", b"the newer value")
w.umount()
w.cli("scrub", "--manifest", w.path("manifest"), vault)

# ---- damage --------------------------------------------------------------------------------------------------------------------------------------------
other = read(below["the other"])
ids = {}
for n, (change, _) in WAYS.items():
    b = bytearray(read(below[n]))
    assert len(b) == chunk_off(N) + TAIL and len(past[n]) == len(b)
    before = bytes(b)
    change(b, other, past[n])
    assert n == "none" or bytes(b) != before, n
    ids[n] = b[36:52].hex()  # what it claims to be
    with open(below[n], "r+b") as f:  # the same inode
        f.write(b)
        f.truncate(len(b))
        if n == "hole punched":  # not written as zeros but taken away
            subprocess.run(["fallocate", "-p", "-o", str(chunk_off(20)), "-l", str(2 * C), below[n]], check=True)
lines = []  # the log must say these
tell = lambda n, sub, kind: lines.append("inode %d below: %s" % (ino["/".join(["n", n] + ([sub] if sub else []))], kind))
NAME, DIRID, LINK, XATTR = "name does not verify", "directory id is missing or does not verify", "symbolic link does not verify", "extended attribute does not verify"
os.rename(lo("moved", "a", "one"), os.path.join(lo("moved", "b"), os.path.basename(lo("moved", "a", "one"))))
tell("moved", "b", NAME)


def exchange(a, b):
    os.rename(a, a + ".x"), os.rename(b, a), os.rename(a + ".x", b)


def link(path, text):
    if os.path.lexists(path):
        os.unlink(path)
    os.symlink(text, path)


def other_char(s, i):
    return s[:i] + ("A" if s[i] != "A" else "B") + s[i + 1:]


dirid = lambda n, sub: os.path.join(lo(n, sub), "lg.dirid")
exchange(dirid("ids", "a"), dirid("ids", "b"))
tell("ids", "a", NAME), tell("ids", "b", NAME)
link(dirid("bad id", "a"), other_char(os.readlink(dirid("bad id", "a")), 3))
tell("bad id", "a", DIRID)
os.unlink(dirid("no id", "a"))
tell("no id", "a", DIRID)
os.unlink(dirid("no id, empty", "a"))
link(dirid("copied id", "a"), os.readlink(dirid("copied id", "b")))
tell("copied id", "a", NAME)
p = lo("changed", "a", "one")
os.rename(p, os.path.join(os.path.dirname(p), other_char(os.path.basename(p), 4)))
tell("changed", "a", NAME)
side = [lo("long", "a", x) + ".name" for x in LONG]
assert all(os.path.islink(x) for x in side)
link(side[0], other_char(os.readlink(side[0]), 5))
link(side[1], os.readlink(side[2]))
os.unlink(side[2])
tell("long", "a", NAME)
exchange(lo("exchanged", "a", "one"), lo("exchanged", "a", "two"))
exchange(lo("dirs", "a"), lo("dirs", "b"))
os.rename(lo("dir moved", "a"), os.path.join(lo("dir moved", "b"), os.path.basename(lo("dir moved", "a"))))
tell("dir moved", "b", NAME)
l1, l2, l3 = (lo("links", "a", x) for x in ("l1", "l2", "l3"))

a, b = os.readlink(l1), os.readlink(l2)
link(l1, b), link(l2, a), link(l3, other_char(os.readlink(l3), 30))
lines.append("inode %d below: %s" % (os.lstat(l3).st_ino, LINK))
x = {s + f: lo("xattrs", s, f) for s in "ab" for f in ("one", "two")}
key = {}
for p in os.listxattr(x["aone"]):
    key[len(os.getxattr(x["aone"], p)) - 32] = p
k, k2 = key[len("value of aone")], key[len("something else")]
va, vb = os.getxattr(x["aone"], k), os.getxattr(x["bone"], k)
os.setxattr(x["aone"], k, vb), os.setxattr(x["bone"], k, va)
os.setxattr(x["aone"], k2, va)  # under another name
v = bytearray(os.getxattr(x["atwo"], k))
v[-1] ^= 1
os.setxattr(x["atwo"], k, bytes(v))
os.setxattr(x["atwo"], k2, b"short")
os.removexattr(x["btwo"], k)
tell("xattrs", "a/one", XATTR), tell("xattrs", "a/two", XATTR)
p = lo("types", "a", "one")
os.unlink(p), os.mkdir(p)
p = lo("types", "a", "two")
os.unlink(p), os.mkfifo(p)
shutil.copyfile(lo("copied", "a", "one"), lo("copied", "b", "one"))
os.chmod(lo("times", "a", "one"), 0o777)
os.utime(lo("times", "a", "one"), (1, 1))
os.unlink(lo("deleted", "a", "one")), shutil.rmtree(lo("deleted", "b"))
os.unlink(lo("name gone", "a", "one"))  # one of its two names
shutil.rmtree(lo("rolled", "a"))
subprocess.run(["cp", "-a", w.path("older"), lo("rolled", "a")], check=True)
assert sealed(lo("old xattr", "a", "one")) == [k0] and os.getxattr(lo("old xattr", "a", "one"), k0) != older_value
os.setxattr(lo("old xattr", "a", "one"), k0, older_value)
assert os.getxattr(lo("other xattr", "a", "one"), "trusted.k") == b"as it was"
os.setxattr(lo("other xattr", "a", "one"), "trusted.k", b"another")
os.chown(lo("owner", "a", "one"), 12345, 54321)

# What no file can tell, the manifest from before tells: of all of these but attributes that are not ours.
j = json.loads(w.run("leadglass", "scrub", "--json", "--read-only", "--against", w.path("manifest"), vault).stdout)
differs = set((f["class"], f.get("path"), f["kind"]) for f in j["findings"])
of = lambda n: set(x for x in differs if (x[1] or "").startswith("n/%s/" % n))
GONE, OTHERS = "is not there any more", "mode, owner, time or attributes are others"
for n, must in (("deleted", {("differs", "n/deleted/a/one", GONE), ("differs", "n/deleted/b", "directory " + GONE)}),
                ("rolled", {("differs", "n/rolled/a/one", "rolled back to an older state"), ("differs", "n/rolled/a/three", GONE)}),
                ("old xattr", {("changed", "n/old xattr/a/one", OTHERS)}), ("owner", {("changed", "n/owner/a/one", OTHERS)}), ("other xattr", set())):
    assert of(n) == must, (n, of(n))
gone_name, = of("name gone")
assert gone_name[::2] == ("differs", GONE) and gone_name[1] in ("n/name gone/a/one", "n/name gone/a/second"), gone_name
assert ("differs", "older self", "rolled back to an older state") in differs and ("differs", "another file", "another one stands here, the manifest has it at") in differs, differs

# ---- and what comes of it --------------------------------------------------------------------------------------------------------------------------------
log = open(w.path("log"), "wb")
fs = w.spawn([os.path.join(BIN, "leadglass-fs"), "--foreground", vault, m], stderr=log, stdin=subprocess.DEVNULL)
w.mounts.append("mnt")
wait_for(lambda: os.path.ismount(m))
wrong = []


def want(ok, *what):
    if not ok:
        wrong.append(what)


def error_of(f, *a):
    try:
        f(*a)
    except OSError as e:
        return e.errno
    return 0


assert set(os.listdir(m)) == set(WAYS) | {"the other", "n"}
assert read(at("the other")) == first["the other"]
shut = 0
for n, (_, must) in WAYS.items():
    if isinstance(must, set):
        want(error_of(read, at(n)) == (errno.EIO if must else 0), n)
        fd = os.open(at(n), os.O_RDONLY)
        for i in range(N + 1):
            size = C if i < N else TAIL
            if i in must:
                want(error_of(os.pread, fd, size, i * C) == errno.EIO, n, i)
                lines.append("file %s, bytes %d to %d: %s" % (ids[n], i * C, i * C + size - 1, CHUNK))
            else:
                want(os.pread(fd, size, i * C) == now[n][i * C:i * C + size], n, i)
        os.close(fd)
    elif n in UNNOTICED:
        unnoticed(must)
        want(read(at(n)) == {"slots exchanged": now[n], "older self": first[n], "another file": first["the other"]}[n], n)
    else:
        want(error_of(read, at(n)) == (errno.ENOKEY if n == "key id" else errno.EIO), n)
        lines.append("file %s: %s" % (ids[n], must))
        shut += 1

ls = lambda n, *p: sorted(os.listdir(at("n", n, *p)))
body = lambda n, s, f: read(at("n", n, s, f)) == (n + s + f).encode()
both = ["one", "two"]
want(sorted(os.listdir(at("n"))) == sorted(D), "ls n")
for n in D:
    if n not in ("dir moved", "deleted"):
        want(ls(n) == ["a", "b"], n, ls(n))
want(ls("moved", "a") == ["two"] and ls("moved", "b") == both and body("moved", "b", "one") and body("moved", "b", "two"), "moved")
want(error_of(os.stat, at("n", "moved", "a", "one")) == errno.ENOENT, "moved")
want(ls("ids", "a") == [] and ls("ids", "b") == [] and error_of(os.stat, at("n", "ids", "a", "one")) == errno.ENOENT, "ids")
for n in ("bad id", "no id"):
    want(error_of(os.listdir, at("n", n, "a")) == errno.EIO and error_of(read, at("n", n, "a", "one")) == errno.EIO, n)
    want(error_of(write, at("n", n, "a", "new"), b"") == errno.EIO, n)
    want(ls(n, "b") == both and body(n, "b", "one"), n)
unnoticed("the id taken from an empty directory")
want(ls("no id, empty", "a") == [], "no id, empty")
want(ls("copied id", "a") == [] and ls("copied id", "b") == both, "copied id")
want(ls("changed", "a") == ["two"] and body("changed", "a", "two"), "changed")
unnoticed("A long name without its `.name` link is reported and not listed, but still opens")
want(ls("long", "a") == both, "long", ls("long", "a"))
for i, x in enumerate(LONG):
    want(read(at("n", "long", "a", x)) == x.encode(), "long", i)
unnoticed("names exchanged within one directory")
want(read(at("n", "exchanged", "a", "one")) == b"exchangedatwo", "exchanged")
unnoticed("two directories exchanged within one parent")
want(read(at("n", "dirs", "a", "one")) == b"dirsbone", "dirs")
want(ls("dir moved") == ["b"] and ls("dir moved", "b") == both, "dir moved")
unnoticed("targets of symbolic links exchanged")
want(os.readlink(at("n", "links", "a", "l1")) == "target of l2", "links")
want(error_of(os.readlink, at("n", "links", "a", "l3")) == errno.EIO and ls("links", "a") == ["l1", "l2", "l3"] + both, "links")
unnoticed("extended attribute values of one name swapped between files, replaced by an older value of it, or removed")
X = lambda s, f, k: error_of(os.getxattr, at("n", "xattrs", s, f), k)
want(os.getxattr(at("n", "xattrs", "a", "one"), "user.k") == b"value of bone", "xattrs")
want(X("a", "one", "user.other") == errno.EIO and X("a", "two", "user.k") == errno.EIO and X("a", "two", "user.other") == errno.EIO, "xattrs")
want(X("b", "two", "user.k") == errno.ENODATA and os.getxattr(at("n", "xattrs", "b", "two"), "user.other") == b"something else", "xattrs")
unnoticed("a file replaced by an empty directory or a special file")
want(ls("types", "a", "one") == [] and ls("types", "a") == both, "types")
unnoticed("one complete file put in another's place")
want(read(at("n", "copied", "b", "one")) == b"copiedaone", "copied")
unnoticed("a whole file deleted")
want(ls("deleted") == ["a"] and ls("deleted", "a") == ["two"], "deleted")
unnoticed("a name deleted")
left = "second" if gone_name[1].endswith("one") else "one"
want(ls("name gone", "a") == sorted([left, "two"]) and read(at("n", "name gone", "a", left)) == b"name goneaone", "name gone")
unnoticed("a whole directory replaced by its older self")
want(ls("rolled", "a") == both and body("rolled", "a", "one") and body("rolled", "a", "two"), "rolled")
want(os.getxattr(at("n", "old xattr", "a", "one"), "user.k") == b"the older value", "old xattr")  # said above
unnoticed("attributes that are not `user.*`")
want(os.getxattr(at("n", "other xattr", "a", "one"), "trusted.k") == b"another", "other xattr")
unnoticed("mode, owner and times")
st = os.stat(at("n", "owner", "a", "one"))
want((st.st_uid, st.st_gid) == (12345, 54321) and body("owner", "a", "one"), "owner")
want(body("times", "a", "one"), "times")

# A file that is shut can be taken away, and is not taken for an empty one to be written over.
want(error_of(lambda: os.close(os.open(at("slot A"), os.O_WRONLY | os.O_TRUNC))) == errno.EIO, "O_TRUNC")
os.unlink(at("slot A"))
reaper = threading.Thread(target=fs.wait)  # the command waits until the process is gone, and a child that nobody waited for is not
reaper.start()
w.umount()
reaper.join()
w.children.remove(fs)
said = set(re.sub(r" \(found \d+ times more\)$", "", x.split("leadglass-fs: ", 1)[1]) for x in read(w.path("log")).decode().splitlines() if re.search(r"leadglass-fs: (file|inode) ", x))
for x in sorted(set(lines) - said):
    want(False, "the log does not say", x)
for x in sorted(said - set(lines)):
    want(False, "the log says", x)
for x in wrong:
    print(x)
assert not wrong
# Scrub, which nobody asks by name, says the same of every file, and calls every kind of damage to names, links and attributes.
r = w.run("leadglass", "scrub", "--json", vault)
assert r.returncode == 10, r
found = json.loads(r.stdout)["findings"]
gone = ids["slot A"]
tell_file = lambda f: "file %s%s: %s" % (f["file_id"], ", bytes %d to %d" % (f["from"], f["to"] - 1) if "to" in f else "", f["kind"])
told = set(tell_file(f) for f in found if "file_id" in f)
files = set(x for x in lines if x.startswith("file ") and not x.startswith("file %s:" % gone))
for x in sorted(files ^ told):
    print("only", "scrub" if x in told else "the mount", "says", x)
assert files == told
kinds = [f["kind"] for f in found if "file_id" not in f]
for k in (NAME, DIRID, LINK, XATTR):
    assert kinds.count(k) >= sum(k in x for x in lines), (k, kinds)
print("ok", len(WAYS), "files,", shut, "of them shut,", len(D), "directories,", len(said), "findings,", len(words), "documented limits")
