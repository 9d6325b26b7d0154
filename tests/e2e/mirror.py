"""The first copy of the keyring is deleted while new studies arrive: nothing acknowledged is lost, status says degraded, and a restart makes it whole."""
import io, json, os, shutil, signal, subprocess, threading
from lib import *

w = World(start=False)
import pydicom
src = pydicom.dcmread([f for f in data_files() if os.path.basename(f) == "CT_small.dcm"][0])


def instance(i):
    src.StudyInstanceUID = "1.2.826.0.1.3680043.9.%d" % i
    b = io.BytesIO()
    src.save_as(b)
    return b.getvalue()


def keyd():
    w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--mirror", w.path("mirror", "keyring"))


def boss():
    p = [x for x in w.keyd_pids() if "--worker" not in open("/proc/%d/cmdline" % x).read()]
    assert len(p) == 1
    return p[0]


def whole():
    r = w.run("leadglass", "status", "--json")
    return r.returncode == 0 and json.loads(r.stdout)["keyring"]["copies"] == "in step" and json.loads(r.stdout)["unlocked"]


w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
# The mirror's disk is not there: it says which directory is missing, serves with one copy, and makes the mirror once it can.
r = w.run("leadglass-keyd", "--keyring", w.path("keyring"), "--mirror", w.path("mirror", "keyring"))
assert r.returncode == 0 and "%s: it cannot be made, as there is no directory %s. Is its disk mounted" % (w.path("mirror", "keyring"), w.path("mirror")) in r.stderr and "DEGRADED" in r.stderr, r
w.unlock()
r = w.run("leadglass", "status")
assert r.returncode == 15 and w.path("mirror", "keyring") + ", degraded: the mirror fell behind" in r.stdout, r
assert not os.path.exists(w.path("mirror"))
os.mkdir(w.path("mirror"))
os.kill(boss(), signal.SIGHUP)
wait_for(whole)  # and is unlocked
assert w.status()["keyring"]["copies"] == "in step"
assert os.path.exists(w.path("mirror", "keyring.root"))  # the slot file too
w.init()
m = w.mount()
done, stop = [], threading.Event()


def load():
    i = 0
    while not stop.is_set():
        b = instance(i)
        p = os.path.join(m, "s%d" % i)
        with open(p, "wb") as f:
            f.write(b)
            f.flush()
            os.fsync(f.fileno())
        done.append((p, b))
        i += 1


t = threading.Thread(target=load)
t.start()
wait_for(lambda: len(done) > 10)
shutil.rmtree(w.path("keyring"))
os.unlink(w.path("keyring.root"))
n = len(done)
wait_for(lambda: len(done) > n + 20)
stop.set()
t.join()
r = w.run("leadglass", "status", "--json")
assert r.returncode == 15 and "DEGRADED" in r.stderr and "degraded" in json.loads(r.stdout)["keyring"]["copies"], r
r = w.run("leadglass", "status")
assert r.returncode == 15 and "degraded" in r.stdout, r
# Nothing is destroyed while one copy hears nothing of it, but the study is revoked.
r = w.run("leadglass", "study", "revoke", "1.2.826.0.1.3680043.9.0", "--reason", "test", "--now")
assert r.returncode == 1 and "destroying" in r.stdout, r
raises(errno.EKEYREVOKED, read, done[0][0])
for p, b in done[1:]:
    assert read(p) == b
# SIGHUP to the supervisor: another worker, which brings the copies in step. Nobody types a passphrase.
os.kill(boss(), signal.SIGHUP)
wait_for(whole)
wait_for(lambda: "destroyed" in w.cli("study", "show", "1.2.826.0.1.3680043.9.0"))
assert os.path.exists(w.path("keyring", "data.mdb")) and os.path.exists(w.path("keyring.root"))
for p, b in done[1:]:
    wait_for(lambda: subprocess.run(["cat", p], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0)
    assert read(p) == b
# Either copy alone has every study.
shutil.copytree(w.path("mirror"), w.path("then"))  # both copies are the same
for gone in ("keyring", os.path.join("mirror", "keyring")):
    w.umount()
    w.stop_keyd()
    w.fails(5, ["no key manager answers"], "leadglass", "mount", w.path("vault"), w.path("mnt"))  # it says so, and works once there is one
    shutil.rmtree(w.path(gone))
    os.unlink(w.path(gone + ".root"))
    keyd()
    w.unlock()
    w.mount()
    for p, b in done[1:]:
        assert read(p) == b
    raises(errno.EKEYREVOKED, read, done[0][0])
    assert not w.status()["keyring"]["rolled_back"]  # the vault's anchor knows either copy
w.umount()
# Yesterday's mirror alone: the slot file that lies beside it cannot tell, the vault does.
w.stop_keyd()
for top in ("keyring", os.path.join("mirror", "keyring")):
    shutil.rmtree(w.path(top))
    os.unlink(w.path(top + ".root"))
shutil.copytree(w.path("then", "keyring"), w.path("mirror", "keyring"))
shutil.copy(w.path("then", "keyring.root"), w.path("mirror", "keyring.root"))
keyd()
w.unlock()
w.mount()
r = w.run("leadglass", "status", "--json")
assert r.returncode == 17 and json.loads(r.stdout)["keyring"]["rolled_back"], r
assert read(done[1][0]) == done[1][1]
w.umount()
w.fails(2, ["itself"], "leadglass-keyd", "--keyring", w.path("keyring"), "--mirror", w.path("keyring"), "--socket", w.path("s2"))
print(len(done), "studies; ok")
