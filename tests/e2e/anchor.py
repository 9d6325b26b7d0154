"""The root-slot file anchored in a TPM: yesterday's keyring and yesterday's slot file with all of today's secrets, power cuts in the middle of new roots,
and what is left when the TPM dies."""
import errno, hashlib, json, os, shutil, subprocess
from swtpm import *
import pydicom

w = Server()
here, there = Tpm(w, "tpm-here"), Tpm(w, "tpm-there")
files = {n: next(f for f in data_files() if os.path.basename(f) == n) for n in ("CT_small.dcm", "MR_small.dcm")}
ct, mr = files["CT_small.dcm"], files["MR_small.dcm"]
uid = {f: pydicom.dcmread(f).StudyInstanceUID for f in (ct, mr)}
keyring, root = w.path("keyring"), w.path("keyring.root")


def places():
    """The chip's two values: epoch by place; what is overwritten has epoch 0."""
    nv = [int(h, 16) for h in here.tool("tpm2_getcap", "handles-nv-index").replace("-", " ").split() if h.startswith("0x")]
    out = {}
    for n in nv:
        if n >> 22 != 0x1800000 >> 22:
            continue
        r = subprocess.run(["tpm2_nvread", hex(n), "-C", hex(n), "-T", here.tcti], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        if r.returncode and b"14A" in r.stderr.upper():  # not written yet
            out[n] = 0
            continue
        assert r.returncode == 0 and len(r.stdout) == 68 and r.stdout[:4] == b"LGA1" and r.stdout[60:] == hashlib.sha256(r.stdout[:60]).digest()[:8], r
        out[n] = int.from_bytes(r.stdout[20:28], "little")
    return out


def copy(name):
    shutil.copytree(keyring, w.path(name))
    shutil.copy(root, w.path(name + ".root"))


def put(name):
    shutil.rmtree(keyring)
    shutil.copytree(w.path(name), keyring)
    shutil.copy(w.path(name + ".root"), root)


def destroy(f):
    w.run("leadglass", "study", "revoke", uid[f], "--reason", "test", "--now")
    assert json.loads(w.cli("study", "show", uid[f], "--json"))["state"] == "destroyed"
    return json.loads(w.cli("study", "certificate", uid[f], "--json"))


w.keyd(here.tcti)
w.unlock()
w.init()
m = w.mount()
write(os.path.join(m, "ct"), read(ct)), write(os.path.join(m, "keep"), read(next(f for f in data_files() if f.endswith("ExplVR_BigEnd.dcm"))))
kept = read(os.path.join(m, "keep"))
w.cli("slot", "add", "boot", "--tpm")

# Without an anchor, which is the documented condition: yesterday's files and a secret of then read what was destroyed.
copy("yesterday")
w.umount()
assert not destroy(ct)["older_slot_files_useless"]
w.stop_keyd()
copy("today")
put("yesterday")
w.keyd(here.tcti)  # unattended, even
assert w.unlocked()
m = w.mount()
assert read(os.path.join(m, "ct")) == read(ct)
w.umount()
w.stop_keyd()
put("today")

# Anchored.
w.keyd(here.tcti)
assert w.unlocked() and places() == {} and not w.status()["keyring"]["anchored"]
w.fails(2, ["expected --tpm"], "leadglass", "slot", "anchor")
w.fails(2, ["NO keyring backup", "EVERY IMAGE IS LOST", "--yes"], "leadglass", "slot", "anchor", "--tpm")
w.fails(1, ["not anchored"], "leadglass", "slot", "anchor", "--none")
epoch = w.status()["keyring"]["epoch"]
w.cli("slot", "anchor", "--tpm", "--yes")
st = w.status()["keyring"]
assert st["anchored"] and st["epoch"] == epoch + 1 and sorted(places().values()) == [0, epoch + 1], places()
w.fails(1, ["already"], "leadglass", "slot", "anchor", "--tpm", "--yes")
assert "anchored in the TPM" in w.cli("status")
time.sleep(1.1)  # certificates count in seconds
m = w.mount()
write(os.path.join(m, "mr"), read(mr))
w.umount()
copy("anchored")
assert destroy(mr)["older_slot_files_useless"]
assert sorted(places().values()) == [0, epoch + 2]
# The first study's slot files of then were not anchored, and that its certificate goes on saying.
assert not json.loads(w.cli("study", "certificate", uid[ct], "--json"))["older_slot_files_useless"]
w.stop_keyd()
copy("today2")
put("anchored")
w.keyd(here.tcti)
assert not w.unlocked() and "old copy" in w.said(), w.said()
w.fails(1, ["old copy"], "leadglass", "unlock", "--passphrase-file", w.passphrase)
w.fails(1, ["old copy"], "leadglass", "unlock", "--tpm")
w.stop_keyd()

# Today's files open here, and nowhere else.
put("today2")
w.ok("leadglass-keyd", "--keyring", keyring, "--check", "--passphrase-file", w.passphrase, "--tpm", here.tcti)
w.fails(3, ["anchored in a TPM", "another machine"], "leadglass-keyd", "--keyring", keyring, "--check", "--passphrase-file", w.passphrase, "--tpm", there.tcti)
for tcti, words in ((there.tcti, "does not have its value"), ("swtpm:host=127.0.0.1,port=1", "finds no TPM")):
    w.keyd(tcti)
    w.fails(1, [words], "leadglass", "unlock", "--passphrase-file", w.passphrase)
    assert not w.unlocked()
    w.stop_keyd()
w.keyd(here.tcti)
assert w.unlocked()
m = w.mount()
assert read(os.path.join(m, "keep")) == kept
raises(errno.EKEYREVOKED, read, os.path.join(m, "mr"))

# The power fails in the middle of new roots, wherever that is; each time it comes up alone, and one value is alive.
r = random.Random(5)
for i in range(12):
    p = w.spawn([os.path.join(BIN, "leadglass"), "key", "rotate", "--root"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(r.uniform(0, 0.4))
    worker = w.keyd_pids()
    os.kill(w.p.pid, signal.SIGSTOP)
    for x in worker:
        if x != w.p.pid:
            os.kill(x, signal.SIGKILL)
    w.p.kill()
    w.p.wait()
    w.children.remove(w.p)
    p.kill()
    p.wait()
    w.children.remove(p)
    if i % 3 == 2:
        here.reboot()
    else:
        here.let_go()
    w.keyd(here.tcti)
    assert w.unlocked(), (i, w.said())
    assert sorted(places().values()) == [0, w.status()["keyring"]["epoch"]], (i, places(), w.status())
    w.readable(os.path.join(m, "keep"), next(f for f in data_files() if f.endswith("ExplVR_BigEnd.dcm")))
    p = w.spawn([os.path.join(BIN, "leadglass"), "key", "rotate", "--root"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(r.uniform(0, 0.4))
    before = w.status()["pid"]
    os.kill(w.p.pid, signal.SIGSTOP)
    os.kill(before, signal.SIGKILL)  # the worker alone: another goes on with the root that the supervisor has
    here.let_go()
    os.kill(w.p.pid, signal.SIGCONT)
    p.wait()
    w.children.remove(p)
    wait_for(lambda: w.run("leadglass", "status").returncode == 0 and w.status()["pid"] != before)
    assert w.unlocked(), (i, w.said())
    assert sorted(places().values()) == [0, w.status()["keyring"]["epoch"]], (i, places(), w.status())

# It dies: no new root, nothing destroyed; and while the keyring is still unlocked, the way out.
here.stop()
epoch = w.status()["keyring"]["epoch"]
w.fails(1, ["TPM"], "leadglass", "slot", "remove", "boot")
assert w.status()["keyring"]["epoch"] == epoch
w.fails(1, ["needs the TPM no more", "could not be destroyed"], "leadglass", "slot", "anchor", "--none")
assert not w.status()["keyring"]["anchored"]
w.cli("slot", "remove", "boot")
w.restart("off")
w.unlock()
w.readable(os.path.join(m, "keep"), next(f for f in data_files() if f.endswith("ExplVR_BigEnd.dcm")))
# It comes back: its values go with the next unlock.
here.start()
assert places()
w.restart(here.tcti)
w.unlock()
assert places() == {}
# Where officers are, one alone does not give up what certificates rest on.
w.cli("slot", "anchor", "--tpm", "--yes")
PASS = w.path("officer-pass")
write(PASS, b"officer\n")
for name, role, uid in (("sam", "security-officer", "40001"), ("ruth", "retention-officer", "40002")):
    w.cli("officer", "keygen", w.path(name), "--passphrase-file", PASS)
    w.cli("officer", "add", name, "--role", role, "--key", w.path(name + ".pub"), "--account", uid, "--reason", "x")
sign = lambda who: ["--sign", w.path(who), "--passphrase-file", PASS, "--yes"]
w.fails(16, ["two have to approve"], "leadglass", "slot", "anchor", "--none")
x = json.loads(w.cli("slot", "anchor", "--none", "--reason", "new mainboard", *sign("sam"), "--json"))
assert x["action"] == "unanchor" and x["state"] == "pending", x
w.fails(16, ["two have to approve"], "leadglass", "slot", "anchor", "--none", "--act", x["id"])
w.fails(16, ["their own"], "leadglass", "request", "approve", x["id"], *sign("sam"))
w.cli("request", "approve", x["id"], *sign("ruth"))
assert w.status()["keyring"]["anchored"]
w.cli("slot", "anchor", "--none", "--act", x["id"])
assert not w.status()["keyring"]["anchored"] and places() == {}
w.cli("slot", "anchor", "--tpm", "--yes")
w.fails(16, ["two have to approve"], "leadglass", "slot", "anchor", "--none", "--act", x["id"])  # once
# Likewise a backup that is declared destroyed.
w.cli("backup", "create", w.path("keys.lgk"), "--passphrase-file", w.passphrase)
b = json.loads(w.cli("backup", "list", "--json"))[-1]["id"]
w.fails(16, ["officers are registered"], "leadglass", "backup", "void", b)
x = json.loads(w.cli("backup", "void", b, "--reason", "shredded", *sign("ruth"), "--json"))
w.cli("request", "approve", x["id"], *sign("sam"))
w.cli("backup", "void", b, "--act", x["id"])
assert json.loads(w.cli("backup", "list", "--json"))[-1]["void"]
w.umount()
w.stop_keyd()
print("ok")
