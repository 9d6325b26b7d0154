"""The access log on real mounts: what it says, what it does not say, what `audit verify` says once somebody has changed it, and what happens when it cannot be written."""
import concurrent.futures, datetime, errno, hashlib, json, os, shutil, signal, socket, struct, subprocess, time
from lib import *

w = World()
w.init()
AUDIT = w.path("keyring.audit")


def lines(top=AUDIT, event=None, kind="mount"):
    out = []
    for chain in sorted(os.listdir(top)):
        if not chain.startswith(kind):
            continue
        for f in sorted(os.listdir(os.path.join(top, chain))):
            p = os.path.join(top, chain, f)
            if f.endswith(".zst"):
                text = subprocess.run(["zstdcat", p], stdout=subprocess.PIPE, check=True).stdout
            elif f.endswith(".jsonl"):
                text = read(p)
            else:
                continue
            for line in text.decode().split("\n")[:-1]:
                r = json.loads(line)
                if event is None or r["event"] == event:
                    out.append(r)
    return out


def total(event, kind="mount", **want):
    return sum(r.get("count", 1) for r in lines(event=event, kind=kind) if all(r.get(k) == v for k, v in want.items()))


def verify(top=AUDIT, *args, code=0, words=()):
    r = w.run("leadglass", "audit", "verify", top, *args)
    assert r.returncode == code, (code, r.returncode, r.stdout, r.stderr)
    for x in words:
        assert x in r.stdout, (x, r.stdout)
    return r.stdout


# ---- what is recorded: every access, whatever it is called; nothing that names a study or a file

mnt = w.mount("vault", "mnt", "-o", "audit_window=600")  # all of this in one window, however long it takes
files = [f for f in data_files() if f.endswith(".dcm")][:30]
hostile = ["nl\nname", "quote\"}name", "esc\x1b[31mname", "rtl\u202ename", "back\\slash", "a" * 200]
for i, f in enumerate(files):
    shutil.copyfile(f, os.path.join(mnt, "plainname%03d.dcm" % i))
for i, h in enumerate(hostile):
    write(os.path.join(mnt, h), b"text %d" % i)
bad = os.path.join(os.fsencode(mnt), b"octets\xff\xfe")
with open(bad, "wb") as f:
    f.write(b"x")
made = len(files) + len(hostile) + 1
for _ in range(3):
    for f in os.listdir(mnt):
        read(os.path.join(mnt, f))
os.rename(os.path.join(mnt, "plainname000.dcm"), os.path.join(mnt, "othername.dcm"))
os.chmod(os.path.join(mnt, "othername.dcm"), 0o600)
os.truncate(os.path.join(mnt, "othername.dcm"), 100)
os.unlink(os.path.join(mnt, "othername.dcm"))
w.umount()
assert total("file.open", how="create") == made, (total("file.open", how="create"), made)
assert total("file.open", how="read") == 3 * made
assert total("file.close") == 4 * made
for event in ("file.rename", "file.unlink", "file.attr", "file.truncate"):
    assert total(event) == 1 and "study" in lines(event=event)[0], event
assert len({lines(event=e)[0]["study"] for e in ("file.rename", "file.unlink", "file.attr")}) == 1
assert total("key.create", kind="keyd") == len(json.loads(w.cli("study", "list", "--json")))
assert sum(r.get("written", 0) for r in lines(event="file.close")) >= sum(os.path.getsize(f) for f in files)
assert len(lines(event="file.open")) < 2 * made, "the same are counted together"
studies = {r["study"] for r in lines(event="file.close") if "study" in r}
assert len(studies) > 3, studies
one = lines(event="file.close")[0]
assert one["user"] == "root" and one["uid"] == 0 and one["pid"] == os.getpid() and "python" in one["exe"], one
assert 0 <= one["us"] < 600e6 and all("us" in r for e in ("file.open", "file.rename", "file.unlink", "file.attr") for r in lines(event=e) if "count" not in r)
assert all(r["us"] > 0 for r in lines(event="vault.add", kind="keyd") + lines(event="unlock", kind="keyd")) and not [r for r in lines() if "count" in r and "us" in r]
import pydicom
uid_of = lambda f: str(pydicom.dcmread(f, stop_before_pixels=True, force=True).get("StudyInstanceUID", ""))
words = {"plainname", "othername", "quote", "octets", "rtl", "esc\\"}
for f in files:
    try:
        d = pydicom.dcmread(f, stop_before_pixels=True)
        words |= {str(d.get(k)) for k in ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "PatientID", "PatientName", "AccessionNumber") if d.get(k) and len(str(d.get(k))) > 5}
    except Exception:
        pass
assert len(words) > 20
for d, _, fs in os.walk(AUDIT):
    for f in fs:
        body = read(os.path.join(d, f)).decode(errors="replace")
        for x in words:
            assert x not in body, (x, f)
verify(words=["intact"])

# by hand, with nothing of ours: docs/AUDIT.md says how
seg = [os.path.join(AUDIT, c, "00000001.jsonl") for c in os.listdir(AUDIT) if c.startswith("mount")][0]
prev = json.loads(read(os.path.join(os.path.dirname(seg), "chain")))["chain"] + "0" * 32
for line in read(seg).decode().split("\n")[:-1]:
    body, h = line[:-75], json.loads(line)["hash"]
    assert line[-75:] == ',"hash":"%s"}' % h
    assert hashlib.sha256((prev + body).encode()).hexdigest() == h
    prev = h

# ---- what verify says once somebody has changed it (on copies; another machine: no key manager)

key, anchor = w.path("pub"), w.path("anchor")
write(key, w.cli("audit", "export-key").encode())
write(anchor, w.cli("audit", "anchor").encode())
chain = os.path.basename(os.path.dirname(seg))
text = read(seg).split(b"\n")[:-1]
n = len(text)


def tampered(verdict, change, code=17, extra=(), heads=None):
    top = w.path("copy")
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(AUDIT, top)
    p = os.path.join(top, chain, "00000001.jsonl")
    new = change(list(text))
    write(p, new if isinstance(new, bytes) else b"".join(x + b"\n" for x in new))
    if heads is not None:
        h = os.path.join(top, chain, "00000001.heads")
        keep = read(h).split(b"\n")[:-1][:heads]
        write(h, b"".join(x + b"\n" for x in keep))
    r = w.run("leadglass", "audit", "verify", top, "--offline", "--key", key, "--json", *extra)
    assert r.stdout, r
    got = [c for c in json.loads(r.stdout)["chains"] if c["name"] == chain][0]
    assert r.returncode == code and got["verdict"] == verdict, (verdict, code, r.returncode, got)
    return got


def rechain(t, at):
    """What somebody does who knows the format and can write the log."""
    out, prev = t[:at], json.loads(t[at - 1])["hash"]
    for x in t[at:]:
        body = x[:-75].replace(b'"outcome":"ok"', b'"outcome":"EACCES"')
        prev = hashlib.sha256(prev.encode() + body).hexdigest()
        out.append(body + b',"hash":"' + prev.encode() + b'"}')
    return out


other = [x for x in read(os.path.join(AUDIT, "keyd", "00000001.jsonl")).split(b"\n") if x]
k = n // 2
assert tampered("altered", lambda t: t[:k] + [t[k].replace(b"ok", b"OK", 1)] + t[k + 1:])["problems"][0]["from"] == k + 1
assert tampered("missing", lambda t: t[:k] + t[k + 3:])["problems"][0] == {"what": "missing", "from": k + 1, "to": k + 3}
assert tampered("reordered", lambda t: t[:k] + [t[k + 1], t[k]] + t[k + 2:])["problems"][0]["from"] == k + 1
assert tampered("duplicate", lambda t: t[:k] + [t[k]] + t[k:])["problems"][0]["from"] == k + 1
assert tampered("foreign", lambda t: t[:k] + [other[2]] + t[k:])["problems"][0]["from"] == k + 1
assert tampered("forked", lambda t: rechain(t, k))["problems"][0]["to"] >= k + 1
whole = b"".join(x + b"\n" for x in text)
for cut in [len(whole) - 1, len(whole) - 40, len(whole) - len(text[-1]) - 1, len(whole) // 2, 10, 0]:
    got = tampered("truncated", lambda t: whole[:cut])
    assert got["problems"][0]["from"] == whole[:cut].count(b"\n") + 1 and got["problems"][0]["to"] == n, (cut, got)
# rolled back: the log alone is seen; log and heads together only by who remembers
heads = [json.loads(x) for x in read(seg.replace(".jsonl", ".heads")).split(b"\n") if x]
early = heads[0]["seq"]
tampered("truncated", lambda t: t[:early])
tampered("intact", lambda t: t[:early], code=0, heads=1)
tampered("truncated", lambda t: t[:early], heads=1, extra=("--against", anchor))
# signed with another key
assert tampered("intact", lambda t: t, code=0)["signed"] == n
write(w.path("wrong"), b"11" * 32)
r = w.run("leadglass", "audit", "verify", AUDIT, "--offline", "--key", w.path("wrong"))
assert r.returncode == 17 and "not the key manager's" in r.stdout, r
# written anew and signed anew, by who has everything a mount has (and so no key that signs): with a key of his own, left beside the log
if shutil.which("openssl"):
    def forged(top):
        p = os.path.join(top, chain, "00000001.")
        new = rechain(list(text), k)
        write(p + "jsonl", b"".join(x + b"\n" for x in new))
        evil, msg, sig = w.path("evil.pem"), w.path("evil.msg"), w.path("evil.sig")
        run = lambda *a: subprocess.run(["openssl", *a], check=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
        run("genpkey", "-algorithm", "ed25519", "-out", evil)
        write(os.path.join(top, "key.pub"), run("pkey", "-in", evil, "-pubout", "-outform", "DER")[-32:].hex().encode() + b"\n")
        out, prev = b"", bytes(32)
        for h in [json.loads(x) for x in read(p + "heads").split(b"\n") if x]:
            rec = json.loads(new[h["seq"] - 1])
            us = int(datetime.datetime.strptime(h["time"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=datetime.timezone.utc).timestamp()) * 1000000 + int(h["time"][20:26])
            body = b"leadglass audit head 1\0\0" + bytes.fromhex(h["keyring"] + h["chain"]) + struct.pack("<QQ", h["n"], h["seq"]) + bytes.fromhex(rec["hash"]) + struct.pack("<Q", us) + prev
            write(msg, body)
            run("pkeyutl", "-sign", "-inkey", evil, "-rawin", "-in", msg, "-out", sig)
            out += json.dumps(dict(h, hash=rec["hash"], prev=prev.hex(), sig=read(sig).hex()), separators=(",", ":")).encode() + b"\n"
            prev = hashlib.sha256(body).digest()
        write(p + "heads", out)

    top = w.path("copy")
    shutil.rmtree(top, ignore_errors=True)
    shutil.copytree(AUDIT, top)
    forged(top)
    of_chain = lambda *a: [c for c in json.loads(w.run("leadglass", "audit", "verify", top, "--offline", "--json", *a).stdout)["chains"] if c["name"] == chain][0]
    assert of_chain("--key", key)["verdict"] == "bad-head"
    assert of_chain()["verdict"] == "intact"  # with the key that he put there himself, and that is said:
    assert "taken from the log itself" in w.run("leadglass", "audit", "verify", top, "--offline").stdout
else:
    left_out("heads signed anew with a key of one's own", "openssl is not installed")

# a chain that is gone
shutil.rmtree(os.path.join(w.path("copy"), chain))
r = w.run("leadglass", "audit", "verify", w.path("copy"), "--offline", "--key", key, "--against", anchor)
assert r.returncode == 17 and "is not here" in r.stdout, r

# ---- the key manager signs nothing that does not follow from what it signed

def ask_head(n_, seq, prev_hash):
    h = dict(v=1, keyring="0" * 32, chain=heads[0]["chain"], n=n_, seq=seq, hash="ab" * 32, time="2026-01-01T00:00:00.000000Z", prev=prev_hash, sig="0" * 128)
    body = json.dumps(h, separators=(",", ":")).encode()
    frame = struct.pack("<IIHHQ", 22 + len(body), 0x314b474c, 1, 98, 7) + struct.pack("<H", len(body)) + body
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(w.socket)
        s.sendall(frame)
        return struct.unpack_from("<i", s.recv(4096), 20)[0]


last = heads[-1]
assert ask_head(last["n"], last["seq"] + 5, heads[-2]["hash"]) == -errno.EBADMSG      # a fork from the head before
assert ask_head(last["n"] + 1, last["seq"] - 1, last["hash"]) == -errno.EBADMSG      # shorter
assert ask_head(last["n"] + 1, last["seq"] + 5, "cd" * 32) == -errno.EBADMSG         # another past
wait_for(lambda: lines(event="log.fork", kind="keyd"))  # and it is recorded

# ---- log and heads rolled back: the daemon does not go on with it, the key manager tells
keep = w.path("keep")
shutil.copytree(os.path.join(AUDIT, chain), keep)
write(seg, b"".join(x + b"\n" for x in text[:early]))
h = seg.replace(".jsonl", ".heads")
write(h, read(h).split(b"\n")[0] + b"\n")
verify(code=17, words=["truncated after record %d" % early])
mnt = w.mount()
read(os.path.join(mnt, "plainname001.dcm"))
w.umount()
assert "shorter than what was signed" in lines(event="log.broken")[0]["text"], "the daemon does not fork its chain either"
assert read(seg).count(b"\n") == early, "left as it is"
shutil.rmtree(os.path.join(AUDIT, chain))
shutil.copytree(keep, os.path.join(AUDIT, chain))
verify(words=["intact"])

# ---- killed right after an open was answered: nothing is lost
mnt = w.mount()
before = total("file.open", how="read")
fds = [os.open(os.path.join(mnt, "plainname%03d.dcm" % i), os.O_RDONLY) for i in range(1, 20)]
os.kill(w.pid_of(), signal.SIGKILL)
for fd in fds:
    os.close(fd)
mnt = w.mount()
w.umount()
assert total("file.open", how="read") == before + 19, (total("file.open", how="read"), before)
assert lines(event="log.recovered")
verify(words=["intact"])

# ---- locked: unsigned until unlock, and never called tampered
mnt = w.mount()
w.cli("lock")
raises(errno.ENOKEY, read, os.path.join(mnt, "plainname001.dcm"))
wait_for(lambda: any(r["outcome"] == "ENOKEY" for r in lines() if r["event"] in ("file.open", "file.lookup")))
verify(words=["unverifiable tail since", "unsigned until unlock"])
assert [c for c in json.loads(verify(AUDIT, "--json"))["chains"] if c["tail_until_unlock"] and c["tail"] > 0]
assert w.run("leadglass", "unlock", "--passphrase-file", key).returncode == 3
wait_for(lambda: w.run("leadglass", "unlock", "--passphrase-file", w.passphrase).returncode == 0)
w.recorded()
assert [r["outcome"] for r in lines(event="unlock", kind="keyd")][-1] == "ok"
assert "EKEYREJECTED" in [r["outcome"] for r in lines(event="unlock", kind="keyd")]
read(os.path.join(mnt, "plainname001.dcm"))
assert not [c for c in json.loads(verify(AUDIT, "--json"))["chains"] if c["tail_until_unlock"]]

# ---- destroyed: its past records name nothing that can be looked up
heads_of = lambda c: [json.loads(x) for f in sorted(os.listdir(os.path.join(AUDIT, c))) if f.endswith(".heads") for x in read(os.path.join(AUDIT, c, f)).split(b"\n") if x]
used_later = {uid_of(files[i]) for i in (1, 2, 3)} | {uid_of(files[0])}  # no file is left of the last one
uid, kid = next((s["uid"], s["key_id"]) for s in json.loads(w.cli("study", "list", "--json")) if s["uid"] not in used_later)
w.cli("study", "revoke", uid, "--reason", "end of life", "--now")
w.recorded()
revoke, destroy = (lines(event=e, kind="keyd")[-1] for e in ("key.revoke", "key.destroy"))
assert revoke["study"] == destroy["study"] == kid
assert any(revoke["seq"] <= h["seq"] < destroy["seq"] for h in heads_of("keyd")), "signed before it was destroyed"
refused = [f for f in os.listdir(mnt) if f.startswith("plainname")]
for f in refused:
    try:
        read(os.path.join(mnt, f))
    except OSError as e:
        assert e.errno == errno.EKEYREVOKED, e
w.umount()
assert {r.get("study") for r in lines(event="file.open") if r["outcome"] == "EKEYREVOKED"} == {kid}
w.cli("key", "rotate", "--root")
w.recorded()
rotate = lines(event="key.rotate-root", kind="keyd")[-1]
signed = max(h["seq"] for h in heads_of("keyd") if h["seq"] < rotate["seq"])
assert all("count" in r for r in lines(kind="keyd") if signed < r["seq"] < rotate["seq"]), "signed before the root changed, but for counts whose window ended meanwhile"
w.cli("backup", "create", w.path("backup"), "--passphrase-file", w.passphrase)
w.recorded()
assert [total(e, kind="keyd") for e in ("backup.begin", "backup.create")] == [1, 1] and not lines(event="key.request", kind="keyd")
verify(words=["intact"])

# ---- the log's disk is full: refused, then recorded; with continue it goes on
small, others = w.path("small"), []
os.mkdir(small)
subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", small], check=True)
try:
    for policy in ("refuse", "continue"):
        log = os.path.join(small, policy)
        mnt = w.mount("vault", "mnt", "-o", "audit=%s,audit_segment=1,audit_window=0,audit_on_failure=%s" % (log, policy))
        filler = os.path.join(small, "filler")
        with open(filler, "wb") as f:
            try:
                while True:
                    f.write(b"x" * 65536)
                    f.flush()
            except OSError:
                pass
        refused, end = 0, time.monotonic() + 180
        while time.monotonic() < end and not refused and not (policy == "continue" and lines(log, "log.space")):
            for i in range(300):
                try:
                    read(os.path.join(mnt, "plainname002.dcm"))
                except OSError as e:
                    assert e.errno == errno.ECANCELED, e
                    refused += 1
                    break
        assert (refused > 0) == (policy == "refuse"), (policy, refused)
        os.unlink(filler)
        if policy == "refuse":
            wait_for(lambda: lines(log, "log.failed"))
            assert lines(log, "log.failed")[0]["count"] >= 1
            read(os.path.join(mnt, "plainname002.dcm"))
        else:
            assert lines(log, "config")
        w.umount()  # all that it had to write is written
        verify(log, words=["intact"])
        others.append(w.path("small-" + policy))
        shutil.copytree(log, others[-1])
        shutil.rmtree(log)

    # and when it is gone
    log = os.path.join(small, "gone")
    mnt = w.mount("vault", "mnt", "-o", "audit=%s,audit_segment=1,audit_window=0" % log)
    os.rename(log, log + ".away")

    def is_refused():
        try:
            read(os.path.join(mnt, "plainname002.dcm"))
        except OSError as e:
            return e.errno == errno.ECANCELED
    wait_for(is_refused)
    os.rename(log + ".away", log)
    wait_for(lambda: not is_refused())
    w.umount()
    assert lines(log, "log.failed")
    verify(log, words=["intact"])
    others.append(w.path("small-gone"))
    shutil.copytree(log, others[-1])
finally:
    subprocess.run(["umount", "-l", small])

# ---- segments: compressed, and the chain goes on through them
mnt = w.mount("vault", "mnt", "-o", "audit=%s,audit_segment=1,audit_window=0" % w.path("segments"))
for _ in range(900):
    for i in (2, 3):
        read(os.path.join(mnt, "plainname%03d.dcm" % i))
w.umount()
mnt = w.mount("vault", "mnt", "-o", "audit=%s,audit_segment=1,audit_window=0" % w.path("segments"))
wait_for(lambda: any(f.endswith(".zst") for _, _, fs in os.walk(w.path("segments")) for f in fs))
w.umount()
out = json.loads(verify(w.path("segments"), "--json"))["chains"][0]
assert out["records"] > 3600 and out["problems"] == [] and out["signed"] == out["last"], out
seg1 = next(os.path.join(d, f) for d, _, fs in os.walk(w.path("segments")) for f in fs if f == "00000001.jsonl.zst")
shutil.move(seg1, w.path("away"))
verify(w.path("segments"), code=17, words=["missing"])

# ---- a log of a mount's own: it has the key with it, and the key manager knows the chain
own = w.path("own")
mnt = w.mount("vault", "mnt", "-o", "audit=%s" % own)
read(os.path.join(mnt, "quote\"}name"))
w.umount()
assert read(os.path.join(own, "key.pub")).split() == read(key).split()
assert "taken from the log itself" in verify(own, "--offline", words=["intact"])
assert "taken from the log itself" not in verify(own, words=["intact"])
os.rename(os.path.join(own, "key.pub"), w.path("away.pub"))
verify(own, words=["intact"])
r = w.run("leadglass", "audit", "verify", own, "--offline")
assert r.returncode == 18 and "cannot be told" in r.stdout, r
write(os.path.join(own, "key.pub"), b"11" * 32 + b"\n")  # theirs does not count
assert "is not the key of the key manager" in w.run("leadglass", "audit", "verify", own).stderr
verify(own, words=["intact"])
others += [w.path("segments"), own]
verify(AUDIT, code=17, words=["is not here"])
verify(AUDIT, *others, code=17, words=["missing"])  # the one whose first segment was taken away above
shutil.move(w.path("away"), seg1)
verify(AUDIT, *others, words=["intact"])

# ---- damage below: told by pseudonym; the file's id stands nowhere in the log
mnt = w.mount()
write(os.path.join(mnt, "damaged"), os.urandom(200000))
w.umount()
below = [p for d, _, fs in os.walk(w.path("vault", "root")) for p in (os.path.join(d, f) for f in fs) if not os.path.islink(p)]
lower = max(below, key=os.path.getmtime)
with open(lower, "r+b") as f:
    f.seek(150000)
    old = f.read(1)
    f.seek(150000)
    f.write(bytes([old[0] ^ 1]))
mnt = w.mount()
raises(errno.EIO, read, os.path.join(mnt, "damaged"))
w.umount()
t = [r for r in lines(event="file.tampered") if "count" not in r][-1]  # found again by the kernel's second try: that is counted
assert t["to"] > t["from"] and "study" in t and "file" in t, t
assert t["file"] in {r.get("file") for r in lines(event="file.open")}, "the same pseudonym as in the record of its open"
ids = {read(p)[36:52].hex() for p in below}
body = "".join(json.dumps(r) for r in lines() + lines(kind="keyd"))
assert len(ids) > 20 and not [x for x in ids if x in body]

# ---- names, for those who must: hostile ones end no line and no string
mnt = w.mount("vault", "mnt", "-o", "audit=%s,audit_names" % w.path("named"))
for h in hostile:
    read(os.path.join(mnt, h))
os.rename(os.path.join(mnt, hostile[0]), os.path.join(mnt, "nl2\nname"))
w.umount()
named = lines(w.path("named"))
assert {r["path"] for r in named if r["event"] == "file.open"} == set(hostile)
assert [(r["path"], r["target"]) for r in named if r["event"] == "file.rename"] == [(hostile[0], "nl2\nname")]
assert [r for r in named if r["event"] == "config"]
verify(w.path("named"), words=["intact"])

# ---- ten mounts at once
with concurrent.futures.ThreadPoolExecutor(10) as pool:
    list(pool.map(lambda i: (w.init("vault-%d" % i), w.mount("vault-%d" % i, "mnt-%d" % i)), range(10)))
jobs = [subprocess.Popen(["sh", "-c", "for i in 1 2 3 4 5 6 7 8; do echo $i >%s/f$i; cat %s/f$i >/dev/null; done" % (w.path("mnt-%d" % i), w.path("mnt-%d" % i))]) for i in range(10)]
assert all(j.wait() == 0 for j in jobs)
with concurrent.futures.ThreadPoolExecutor(10) as pool:
    list(pool.map(lambda i: w.umount("mnt-%d" % i), range(10)))
out = json.loads(verify(AUDIT, *others, w.path("named"), "--json"))
assert out["verdict"] == "intact" and len(out["chains"]) >= 12 and all(c["verdict"] == "intact" for c in out["chains"]), out

# ---- everything rolled back, the keyring too: only the anchor knows
write(anchor, w.cli("audit", "anchor").encode())
w.stop_keyd()
snapshot = w.path("snapshot")
os.mkdir(snapshot)
for d in ("keyring", "keyring.root", "keyring.audit"):
    (shutil.copytree if os.path.isdir(w.path(d)) else shutil.copyfile)(w.path(d), os.path.join(snapshot, d))
w.keyd()
w.unlock()
mnt = w.mount()
read(os.path.join(mnt, "plainname002.dcm"))
w.umount()
write(anchor, w.cli("audit", "anchor").encode())
w.stop_keyd()
for d in ("keyring", "keyring.root", "keyring.audit"):
    shutil.rmtree(w.path(d)) if os.path.isdir(w.path(d)) else os.unlink(w.path(d))
    shutil.move(os.path.join(snapshot, d), w.path(d))
w.keyd()
w.unlock()
verify(AUDIT, *others, w.path("named"), words=["intact"])
verify(AUDIT, *others, w.path("named"), "--against", anchor, code=17, words=["truncated"])
print("ok")
