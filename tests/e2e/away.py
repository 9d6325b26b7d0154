"""A mount that is away while the key manager is started anew: a revocation is not called confirmed, names it, and it is unreadable there once it is back."""
import json
from lib import *

w = World()
files = {os.path.basename(f): read(f) for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")}
assert len(files) == 2
import io, pydicom
uid = {n: pydicom.dcmread(io.BytesIO(b)).StudyInstanceUID for n, b in files.items()}
for v in ("vault", "vault2"):
    w.init(v)
m, m2 = w.mount("vault", "mnt"), w.mount("vault2", "mnt2")
for d in (m, m2):
    for n, b in files.items():
        write(os.path.join(d, n), b)


def vault_id(at):
    return next(x["vault_id"] for x in w.status()["mounts"] if x["mountpoint"] == w.path(at))


def away():
    return {x["mountpoint"]: x["away_since"] for x in w.status()["mounts"]}


def state(path):
    name, rest = open(path + "/stat").read().split("(", 1)[1].rsplit(")", 1)
    return "T" if name.startswith("iou-") else rest.split()[0]  # workers of the kernel's are not stopped with it


def stopped(pid):
    os.kill(pid, signal.SIGSTOP)
    wait_for(lambda: all(state("/proc/%d/task/%s" % (pid, t)) == "T" for t in os.listdir("/proc/%d/task" % pid)), 60)


def killed(pid):
    def ended():
        try:
            return state("/proc/%d" % pid) == "Z"  # nobody may ask how it ended
        except OSError:
            return True
    os.kill(pid, signal.SIGKILL)
    wait_for(ended, 60)


def restart():
    w.stop_keyd()
    w.keyd(), w.unlock()


ids = {at: vault_id(at) for at in ("mnt", "mnt2")}
ct, ct2, mr2 = os.path.join(m, "CT_small.dcm"), os.path.join(m2, "CT_small.dcm"), os.path.join(m2, "MR_small.dcm")
held = open(ct2, "rb", buffering=0)
other = open(mr2, "rb", buffering=0)
assert held.read(100) == files["CT_small.dcm"][:100] and other.read(100) == files["MR_small.dcm"][:100]
pid = w.pid_of("mnt2")
assert away() == {m: "", m2: ""}
stopped(pid)
try:
    restart()
    assert away()[m2], "a mount that is away is shown as such"
    r = w.run("leadglass", "study", "revoke", uid["CT_small.dcm"], "--reason", "test", "--now", "--json")
    assert r.returncode == 6, (r.returncode, r.stdout, r.stderr)
    j = json.loads(r.stdout)
    assert j["unconfirmed"] == [m2], j  # the one that is there has confirmed
    x = j["unconfirmed_mounts"][0]
    assert x["vault_id"] == ids["mnt2"] and x["away_since"] and x["unreadable_at_latest"] > x["away_since"], x
    raises(errno.EKEYREVOKED, read, ct)
    assert json.loads(w.cli("study", "show", uid["CT_small.dcm"], "--json"))["unconfirmed"]
    w.fails(6, ["no certificate", "confirmed"], "leadglass", "study", "certificate", uid["CT_small.dcm"])
    # The same once more: what was unconfirmed is, after a further start, and the mount is still expected.
    restart()
    r = w.run("leadglass", "lock")
    assert r.returncode == 6 and m2 in r.stderr and ids["mnt2"] in r.stderr and "away" in r.stderr and m + " " not in r.stderr, (r.returncode, r.stderr)
    w.unlock()
finally:
    os.kill(pid, signal.SIGCONT)
wait_for(lambda: not away()[m2], 120)


def refused():
    try:
        os.pread(held.fileno(), 100, 0)
    except OSError as e:
        assert e.errno == errno.EKEYREVOKED, e
        return True
    return False


wait_for(refused, 120)  # an open file too, though nobody has told this mount: it asked
raises(errno.EKEYREVOKED, read, ct2)
assert os.pread(other.fileno(), 100, 0) == files["MR_small.dcm"][:100] and read(mr2) == files["MR_small.dcm"]
w.cli("study", "certificate", uid["CT_small.dcm"])  # asks every mount again, and they are all there
assert not json.loads(w.cli("study", "show", uid["CT_small.dcm"], "--json"))["unconfirmed"]
held.close()

# A daemon that died while the key manager was away, with its mountpoint still there: named, without a time at which that ends. Taken away, it is not waited for.
pid = w.pid_of("mnt2")
w.stop_keyd()
killed(pid)
w.keyd(), w.unlock()
r = w.run("leadglass", "lock", "--json")
j = json.loads(r.stdout)
assert r.returncode == 6 and j["unconfirmed"] == [m2] and j["unconfirmed_mounts"][0]["unreadable_at_latest"] == "", (r.returncode, j)
w.unlock()
other.close()
subprocess.run(["umount", m2], check=True)
w.cli("lock")
w.unlock()
assert list(away()) == [m]
# Everything ended with its host: nothing is expected of what the keyring has as open.
w.stop_keyd()
pid = int(subprocess.run(["pgrep", "-f", "leadglass-fs.*" + m + "$"], stdout=subprocess.PIPE, text=True).stdout.split()[0])
killed(pid)
subprocess.run(["umount", m], check=True)
w.keyd(), w.unlock()
assert away() == {}
w.cli("study", "revoke", uid["MR_small.dcm"], "--reason", "test", "--now")
m = w.mount("vault", "mnt")
raises(errno.EKEYREVOKED, read, os.path.join(m, "MR_small.dcm"))
w.umount()
print("ok")
