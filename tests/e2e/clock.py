"""Somebody sets the clock, forward and back, on the real programs: what waits freezes until two officers confirm, over a restart too; the waiting period needs the wall clock and the key
manager's own running time; what is refused meanwhile is in the access log. The machine's clock is left alone: setclock.so is preloaded into the key manager and the commands."""
import errno, json, os, shutil
from lib import *
from office import Desk

if not os.path.exists(os.path.join(BIN, "setclock.so")):
    skip("a build with sanitizers: nothing can be preloaded before them")
HOUR, DAY = 3600, 86400
WAITING, TICK = HOUR, 61  # the key manager looks at its clocks every minute
w = World(start=False)
os.chmod(w.dir, 0o711)
shutil.copy(os.path.join(BIN, "setclock.so"), w.path("setclock.so"))  # where an officer's account can read it
os.chmod(w.path("setclock.so"), 0o755)
w.env.update(LD_PRELOAD=w.path("setclock.so"), LG_CLOCKS=w.path("clocks"))
ahead = [0, 0, 0]


def clocks(wall=0, boot=0, run=0):
    """Moves them on."""
    for i, s in enumerate((wall, boot, run)):
        ahead[i] += s
    write(w.path("clocks.new"), b"%d %d %d\n" % tuple(ahead))
    os.chmod(w.path("clocks.new"), 0o644)
    os.rename(w.path("clocks.new"), w.path("clocks"))


def passes(s):
    """As time does."""
    clocks(s, s, s)


def clock():
    return w.asked("clock", "show")


def looked():
    """A minute and a little: the key manager has looked at its clocks since. What it counted before tells."""
    before = clock()["running_s"]
    passes(TICK)
    wait_for(lambda: clock()["running_s"] >= before + TICK)


clocks()
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
w.keyd(), w.unlock()

# ---- one administrator alone: frozen all the same, and whoever looks is told at once, not within the next minute
assert not clock()["frozen"]
clocks(wall=30 * DAY)
assert clock()["why"] == "jumped forward" and w.status()["clock_frozen"]
assert "leadglass clock confirm --reason TEXT\n" in w.cli("clock", "show")
wait_for(lambda: os.path.exists(w.path("daemons")) and "cannot be believed" in read(w.path("daemons")).decode())  # it is stored, and said, that it was seen
clocks(wall=-30 * DAY)
assert clock()["frozen"]  # that it is right again is for a person to say
w.cli("clock", "confirm", "--reason", "the time server was wrong")
assert not clock()["frozen"]
sec, ret = Desk(w).two()
w.init()
m = w.mount()
import pydicom
src, want = pydicom.dcmread([f for f in data_files() if os.path.basename(f) == "CT_small.dcm"][0]), {}
for i in range(1, 7):
    src.StudyInstanceUID = uid = "1.2.%d" % i
    src.save_as(os.path.join(m, uid))
    want[uid] = read(os.path.join(m, uid))
x = sec.act("policy", "set", "--waiting", "%ds" % WAITING, "--reason", "test")
ret.act("request", "approve", x["id"])


def state(uid):
    return json.loads(w.cli("study", "show", uid, "--json"))["state"]


def destroying(uid):
    a = ret.act("study", "revoke", uid, "--reason", "x")
    assert sec.act("study", "approve", a["id"])["state"] == "waiting"
    raises(errno.EKEYREVOKED, read, os.path.join(m, uid))


def confirmed():
    a = sec.act("clock", "confirm", "--reason", "looked at it")
    assert clock()["frozen"], "one alone confirms nothing"
    sec.refused("their own", "request", "approve", a["id"])
    ret.act("request", "approve", a["id"])
    assert not clock()["frozen"] and not w.status()["clock_frozen"]


# ---- forward: nothing becomes due, whatever passes
looked()
assert not clock()["frozen"]
ret.act("study", "retain", "1.2.5", "--until", time.strftime("%Y-%m-%d", time.gmtime(time.time() + 3 * DAY)), "--reason", "trial")
ret.refused("retention", "study", "revoke", "1.2.5", "--reason", "x")
destroying("1.2.1")
clocks(wall=10 * DAY)
looked()
wait_for(lambda: w.status()["clock_frozen"])
assert clock()["why"] == "jumped forward" and "WARNING       the clock cannot be believed" in w.cli("status")
ret.refused("retention", "study", "revoke", "1.2.5", "--reason", "its date is past by this clock")
r = ret.act("study", "hold", "1.2.2", "--reason", "what protects goes on")
a = ret.act("study", "revoke", "1.2.3", "--reason", "asked for while it is frozen")
sec.refused("clock cannot be believed", "study", "approve", a["id"])
rel = ret.act("study", "release", "1.2.2", "--reason", "x")
sec.refused("clock cannot be believed", "request", "approve", rel["id"])
passes(2 * WAITING)  # both clocks are beyond the waiting period by now
looked()
assert state("1.2.1") == "destroy-approved" and clock()["frozen"]
w.stop_keyd()  # nor does a restart end it
w.keyd(), w.unlock()
looked()
assert state("1.2.1") == "destroy-approved" and clock()["frozen"]
clocks(wall=-10 * DAY)  # nor that it is set right, until two have said so
looked()
assert state("1.2.1") == "destroy-approved" and clock()["frozen"] and read(os.path.join(m, "1.2.5")) == want["1.2.5"]
confirmed()
passes(TICK)
wait_for(lambda: state("1.2.1") == "destroyed")
assert sec.act("study", "approve", a["id"])["state"] == "waiting"  # what was refused can be approved now
ret.act("study", "cancel", a["id"], "--reason", "of the test")
sec.act("request", "approve", rel["id"])

# ---- the wall clock is there, the running time is not: the host slept
destroying("1.2.2")
clocks(2 * WAITING, 2 * WAITING, 0)
looked()
looked()
assert not clock()["frozen"] and state("1.2.2") == "destroy-approved"
passes(WAITING)
wait_for(lambda: state("1.2.2") == "destroyed")

# ---- the running time is there, the wall clock is not: it was set back, by less than is noticed
destroying("1.2.4")
clocks(WAITING - 280, WAITING, WAITING)
looked()
assert state("1.2.4") == "destroy-approved" and not clock()["frozen"]
clocks(wall=280)
passes(TICK)
wait_for(lambda: state("1.2.4") == "destroyed")

# ---- back: what waits would wait longer, what was signed long ago would be good once more
old = w.path("desk", "old")
ret.ok("study", "hold", "1.2.6", "--reason", "signed and handed in", "--offline", old, "--as", "Ruth")
ret.ok("request", "sign", old, "--sign", ret.key, "--passphrase-file", sec.desk.passphrase, "--yes")
w.cli("request", "submit", old + ".signed")
late = w.path("desk", "late")
ret.ok("study", "suspend", "1.2.6", "--reason", "signed and kept back", "--offline", late, "--as", "Ruth")
ret.ok("request", "sign", late, "--sign", ret.key, "--passphrase-file", sec.desk.passphrase, "--yes")
passes(30 * DAY)
looked()
assert not clock()["frozen"]
w.fails(16, ["expired"], "leadglass", "request", "submit", late + ".signed")
w.cli("backup", "create", w.path("b.lgk"), "--passphrase-file", sec.desk.passphrase)
destroying("1.2.5")
clocks(wall=-30 * DAY)
looked()
wait_for(lambda: w.status()["clock_frozen"])
assert clock()["why"] == "went back"
w.fails(16, ["already"], "leadglass", "request", "submit", old + ".signed")  # spent is spent
rel = ret.act("study", "release", "1.2.6", "--reason", "x")
sec.refused("clock cannot be believed", "request", "approve", rel["id"])
passes(2 * WAITING)
looked()
assert state("1.2.5") == "destroy-approved"
clocks(wall=30 * DAY)
confirmed()
passes(TICK)
wait_for(lambda: state("1.2.5") == "destroyed")
for uid in ("1.2.3", "1.2.6"):
    assert read(os.path.join(m, uid)) == want[uid], uid
w.umount()
w.stop_keyd()


# ---- each of it is on record
def log(of):
    return [json.loads(x) for x in read(w.path(of + ".audit", "keyd", "00000001.jsonl")).split(b"\n")[:-1]]


def refused(rows, event, how, outcome):
    return sum(r["event"] == event and r.get("how") == how and r["outcome"] == outcome for r in rows)


rows = log("keyring")
frozen = [r["text"] for r in rows if r["event"] == "keyring.clock-frozen" and r["outcome"] == "ENOLCK"]
assert frozen == ["it jumped forward"] * 3 + ["it went back"], frozen  # the third after the restart
assert refused(rows, "officer.revoke", "approve", "ENOLCK") == 1 and refused(rows, "officer.release", "approve", "ENOLCK") == 2
assert refused(rows, "officer.revoke", "submit", "EDOM") == 2 and refused(rows, "officer.suspend", "submit", "ETIME") == 1 and refused(rows, "officer.hold", "submit", "EALREADY") == 1
assert refused(rows, "officer.clock", "approve", "ok") == 2 and refused(rows, "officer.clock", "approve", "ELOOP") == 2
assert any(r["event"] == "log.clock" for r in rows)  # it went back
assert sum(r["event"] == "key.destroy" and r["outcome"] == "ok" for r in rows) == 4

# ---- restored from a backup: neither what was spent before it nor what was kept back is taken, whatever the clock says, and that is on record too
w.cli("backup", "restore", w.path("b.lgk"), "--keyring", w.path("again"), "--passphrase-file", sec.desk.passphrase, "--new-passphrase-file", w.passphrase)
passes(TICK)
clocks(wall=-29 * DAY)
w.ok("leadglass-keyd", "--keyring", w.path("again"))
w.unlock()
for f in (old, late):
    w.fails(16, [], "leadglass", "request", "submit", f + ".signed")
w.stop_keyd()
rows = log("again")
assert any(r["event"] == "keyring.clock-frozen" for r in rows)
assert refused(rows, "officer.hold", "submit", "ETIME") == 1 and refused(rows, "officer.suspend", "submit", "ETIME") == 1, [r for r in rows if r["event"].startswith("officer")]
print("ok")
