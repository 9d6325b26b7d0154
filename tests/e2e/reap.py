"""What is left of destroyed studies in vaults is removed: files in a tree as Orthanc makes it, hard links, symbolic links, empty directories, a file that is open; interrupted
and run again; never another study's. Number and size stand on the certificate, which prints to one page."""
import errno, glob, json, os, re, shutil, signal, struct, subprocess, threading, time, uuid
from lib import *

w = World()
vault = w.init()
m = w.mount()
data = {os.path.basename(f): read(f) for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm")}
want, mine = {}, []


def orthanc(content):
    """As Orthanc stores it: two levels of directories named by the beginning of a random name."""
    n = str(uuid.uuid4())
    p = os.path.join(m, n[0:2], n[2:4], n)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    write(p, content)
    want[p] = content
    return p


def key(p):
    return os.getxattr(p, "trusted.leadglass.key").split()[0]


for i in range(120):
    p = orthanc(data["CT_small.dcm"] + b"x" * (i * 1000))
    mine.append(p)
    orthanc(data["MR_small.dcm"] + b"y" * i)
together = os.path.join(m, "patient")
os.makedirs(together)
for name, content in (("ct", "CT_small.dcm"), ("mr", "MR_small.dcm"), ("plan", "rtplan.dcm")):
    write(os.path.join(together, name), data[content])
    want[os.path.join(together, name)] = data[content]
mine.append(os.path.join(together, "ct"))
os.makedirs(os.path.join(m, "deep", "er", "still"))
os.link(os.path.join(together, "ct"), os.path.join(m, "deep", "er", "still", "second"))
os.symlink("../patient/ct", os.path.join(m, "deep", "link"))
os.symlink("patient/mr", os.path.join(m, "otherlink"))
os.symlink("nowhere", os.path.join(m, "dangling"))
os.makedirs(os.path.join(m, "empty"))
write(os.path.join(m, "text"), b"no study at all")
want[os.path.join(m, "text")] = b"no study at all"
long = os.path.join(m, "L" * 250)  # a name with a side file below
write(long, data["CT_small.dcm"])
mine.append(long)
studies = {s["key_id"]: s["uid"] for s in json.loads(w.cli("study", "list", "--json"))}
ct, mr = studies[key(mine[0]).decode()], studies[key(os.path.join(together, "mr")).decode()]
for p in mine:
    want.pop(p, None)


def others():
    for p, content in want.items():
        assert read(p) == content, p
    assert os.readlink(os.path.join(m, "dangling")) == "nowhere" and read(os.path.join(m, "otherlink")) == data["MR_small.dcm"] and os.path.isdir(os.path.join(m, "empty"))


w.fails(16, ["not destroyed"], "leadglass", "study", "reap", ct, vault)
w.fails(1, ["not known"], "leadglass", "study", "reap", "9.9.9", vault)
w.fails(1, ["not mounted"], "leadglass", "study", "reap", ct, w.init("unmounted"))
# Bytes whose study is known late are under provisional keys, which go with it.
part = os.path.join(m, "late")
fd = os.open(part, os.O_RDWR | os.O_CREAT)
whole = data["CT_small.dcm"]
os.pwrite(fd, whole[:400], 0)
os.fsync(fd)
os.pwrite(fd, whole[400:], 400)
os.close(fd)
assert read(part) == whole and key(part) != key(mine[0])
held = open(mine[0], "rb")
held.read(10)
w.cli("study", "revoke", ct, "--reason", "test", "--now")
total = sum(1 for _ in mine) + 1
j = json.loads(w.cli("study", "certificate", ct, "--json"))
assert j["files"] is None and j["files_removed"] is None and j["vaults"] == 2 and j["state"] == "destroyed"
r = json.loads(w.cli("study", "reap", ct, vault, "--count", "--json"))
late = 1
assert r["files"] == total - 1 + late and r["found"] == total + late and r["removed"] == 0 and r["failed"] == 0, (r, total)
below = {}
for d, _, fs in os.walk(os.path.join(vault, "root")):
    for f in fs:
        p = os.path.join(d, f)
        if not os.path.islink(p):
            below[os.lstat(p).st_ino] = os.lstat(p).st_size
others()

# A file of another study that took the name meanwhile stays: the directory is asked by key and name.
kid = key(mine[1]).decode()
raises(errno.ESTALE, os.setxattr, together, "trusted.leadglass.reap", (kid + " mr").encode())
raises(errno.ESTALE, os.setxattr, together, "trusted.leadglass.reap", (key(os.path.join(together, "mr")).decode() + " plan").encode())
raises(errno.ENOENT, os.setxattr, together, "trusted.leadglass.reap", (kid + " none").encode())
for bad in (b"", b"x", kid.encode(), kid.encode() + b" a/b", kid.encode()[:-1] + b" mr"):
    raises(errno.EINVAL, os.setxattr, together, "trusted.leadglass.reap", bad)
os.unlink(mine[2])
write(mine[2], data["MR_small.dcm"])  # cached, perhaps not yet below
raises(errno.ESTALE, os.setxattr, os.path.dirname(mine[2]), "trusted.leadglass.reap", (kid + " " + os.path.basename(mine[2])).encode())
want[mine[2]] = data["MR_small.dcm"]

# Interrupted in the midst, and run again while the vault is written to.
stop = threading.Event()


def busy():
    i = 0
    while not stop.is_set():
        p = orthanc(data["MR_small.dcm"] + b"%d" % i)
        i += 1


t = threading.Thread(target=busy)
t.start()
for i in range(3):
    p = w.spawn([os.path.join(BIN, "leadglass"), "study", "reap", ct, vault], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(0.02 * (i + 1))
    p.kill()
    p.wait()
    w.children.remove(p)
r = json.loads(w.cli("study", "reap", ct, vault, "--json"))
stop.set()
t.join()
assert r["failed"] == 0 and r["files"] == total - 1 + late, (r, total)
left = [p for p in mine if os.path.lexists(p) and p != mine[2]] + [p for p in (part,) if os.path.lexists(p)]
assert not left, left
assert not os.path.lexists(os.path.join(m, "deep")) and os.path.isdir(together)
held.close()
others()
assert json.loads(w.cli("study", "reap", ct, vault, "--json"))["found"] == 0
w.remount()
others()
kids = set()
for d, _, fs in os.walk(m):
    for f in fs:
        if not os.path.islink(os.path.join(d, f)):
            kids.add(key(os.path.join(d, f)).decode())
assert kid not in kids

# On the certificate: files once, whatever names they have; as large as they were below. Signed: what is changed does not verify.
cert = w.path("cert.json")
w.cli("study", "certificate", ct, "--out", cert)
j = json.load(open(cert))
assert j["files"] == total - 1 + late and j["vaults_counted"] == 1 and j["files_removed"] and "removed" in j["not_covered"][0], j
gone = [s for i, s in below.items() if i not in {os.lstat(os.path.join(d, f)).st_ino for d, _, fs in os.walk(os.path.join(vault, "root")) for f in fs}]
assert len(gone) == j["files"] and sum(gone) == j["bytes"], (len(gone), sum(gone), j["files"], j["bytes"])
assert "good" in w.cli("study", "certificate", "--verify", cert)
for change in (("files", 1), ("bytes", 1), ("files_removed", None), ("vaults", 1), ("state", "destroyed, 1 backup outstanding"), ("older_slot_files_useless", True)):
    write(cert + "2", json.dumps(dict(j, **dict([change]))).encode())
    assert w.run("leadglass", "study", "certificate", "--verify", cert + "2").returncode == 16, change

# Revoked and reaped in one; backups that are outstanding are counted until each is void.
w.fails(2, ["single-administrator"], "leadglass", "study", "revoke", mr, "--reason", "x", "--reap", vault)
ids = []
for i in range(3):
    w.cli("backup", "create", w.path("keys%d.lgk" % i), "--passphrase-file", w.passphrase)
r = w.run("leadglass", "study", "revoke", mr, "--reason", "x" * 1000, "--now", "--reap", vault)
assert r.returncode == 0 and "removed" in r.stdout, r
assert not os.path.exists(os.path.join(together, "mr")) and read(os.path.join(together, "plan")) == data["rtplan.dcm"]
for b in json.loads(w.cli("backup", "list", "--json")):
    n = 3 - len(ids)
    j = json.loads(w.cli("study", "certificate", mr, "--json"))
    assert j["state"] == "destroyed, %d backup%s outstanding" % (n, "" if n == 1 else "s") and len(j["backups_outstanding"]) == n, j
    assert ("%d backup" % n) in w.cli("study", "show", mr)
    w.cli("backup", "void", b["id"])
    ids.append(b["id"])
assert json.loads(w.cli("study", "certificate", mr, "--json"))["state"] == "destroyed"
assert "outstanding" not in w.cli("study", "show", mr)

# One page of paper, with the longest of reasons and as many backups as a certificate names.
for i in range(60):
    w.cli("backup", "create", w.path("more%d.lgk" % i), "--shares", "2/3")  # made at once: no passphrase that has to be slow
plan = studies[key(os.path.join(together, "plan")).decode()]
w.cli("study", "revoke", plan, "--reason", ("because & <so> " * 80)[:1024], "--now", "--reap", vault)
page = w.path("page.html")
w.cli("study", "certificate", plan, "--out", page)
html = read(page).decode()
j = json.loads(w.cli("study", "certificate", plan, "--json"))
for b in j["backups_outstanding"]:
    assert b["id"] in html
assert len(j["backups_outstanding"]) == 60
log = [json.loads(x) for x in read(w.path("keyring.audit", "keyd", "00000001.jsonl")).split(b"\n")[:-1]]
assert any(r["event"] == "study.reap" and r["outcome"] == "ok" for r in log)
browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if not browser:
    left_out("how many pages a certificate prints to", "chromium is not installed")
else:
    w.umount()
    for name, uid in (("short", ct), ("long", plan)):
        src, pdf = w.path(name + ".html"), w.path(name + ".pdf")
        w.cli("study", "certificate", uid, "--out", src)
        r = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--user-data-dir=" + w.path("browser"), "--no-pdf-header-footer", "--print-to-pdf=" + pdf, "file://" + src],
                           stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300)
        assert os.path.exists(pdf), r
        pages = len(re.findall(rb"/Type\s*/Page[^s]", read(pdf)))
        assert pages == 1, (name, pages)
print("ok")
