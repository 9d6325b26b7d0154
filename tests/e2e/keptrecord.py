"""A destruction falls due and a hold keeps it: that this is on record is noted in the keyring only when the record is on the disk. The power fails between the two (the key manager and the
storage of its log die while the record is being written): the next start records it."""
import glob, json, os, shutil, signal, subprocess, time
from lib import *
from office import Desk

if not os.path.exists(os.path.join(BIN, "setclock.so")):
    skip("a build with sanitizers: nothing can be preloaded before them")
DAY, TICK = 86400, 61  # the key manager looks at its clocks every minute
UID = "1.2.826.0.1.0"
w = World(start=False)
os.chmod(w.dir, 0o711)
shutil.copy(os.path.join(BIN, "setclock.so"), w.path("setclock.so"))  # where an officer's account can read it
os.chmod(w.path("setclock.so"), 0o755)
w.env.update(LD_PRELOAD=w.path("setclock.so"), LG_CLOCKS=w.path("clocks"))
ahead = 0
for d in ("log", "source", "gates"):
    os.mkdir(w.path(d))


def passes(s):
    global ahead
    ahead += s
    write(w.path("clocks.new"), b"%d %d %d\n" % (ahead, ahead, ahead))
    os.chmod(w.path("clocks.new"), 0o644)
    os.rename(w.path("clocks.new"), w.path("clocks"))


def storage():
    r = subprocess.run([os.path.join(BIN, "gatefs"), w.path("source"), w.path("gates"), w.path("log")])
    assert r.returncode == 0, "gatefs"


def rows():
    rows = []
    for d, _, fs in os.walk(w.path("source")):
        for f in fs:
            if f.endswith(".jsonl"):
                rows += [json.loads(x) for x in read(os.path.join(d, f)).split(b"\n")[:-1]]
    return rows


def kept():
    return [r for r in rows() if r["event"] == "key.destroy" and r["outcome"] == "EBUSY"]


def waits_for_its_log():
    """The key manager's first thread sleeps for another one, and not for requests: it waits until the record is written."""
    def asleep():
        for pid in w.keyd_pids():
            try:
                if read("/proc/%d/syscall" % pid).split()[:1] == [b"202"]:
                    return True
            except OSError:
                pass
        return False
    return all(asleep() or time.sleep(0.02) for _ in range(10))


def keyd():
    w.ok("leadglass-keyd", "--keyring", w.path("keyring"), "--audit", w.path("log", "audit"))
    w.unlock()


passes(0)
storage()
w.mounts.append("log")
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
keyd()
sec, ret = Desk(w).two()
w.init()
m = w.mount("vault", "mnt", "-o", "audit=off")
write(m + "/s", dicom_slice(0, 3000))
w.umount()
a = ret.act("study", "revoke", UID, "--reason", "asked for")
assert sec.act("study", "approve", a["id"])["state"] == "waiting"
sec.act("study", "hold", UID, "--reason", "a lawyer called")
assert kept() == []

# ---- it falls due; the record is held on its way to the disk, and never gets there
write(w.path("gates", "write"), b"")
passes(8 * DAY)
wait_for(lambda: os.path.exists(w.path("gates", "write.held")))
wait_for(waits_for_its_log)
for pid in w.keyd_pids():
    os.kill(pid, signal.SIGKILL)
for pid in subprocess.run(["pgrep", "-f", "gatefs.*" + w.dir], stdout=subprocess.PIPE, text=True).stdout.split():
    os.kill(int(pid), signal.SIGKILL)
wait_for(lambda: not w.keyd_pids())
subprocess.run(["umount", "-l", w.path("log")], check=True)
os.unlink(w.path("gates", "write.held"))
rings = glob.glob("/dev/shm/leadglass-audit-%d-%s*" % (os.geteuid(), rows()[0]["chain"]))  # what outlives a process, and no power cut
assert len(rings) == 1, rings
os.unlink(rings[0])
assert kept() == [], kept()

# ---- power is back
storage()
keyd()
passes(TICK)
wait_for(lambda: kept())
assert "destroy-approved" in w.cli("study", "show", UID)
for _ in range(2):  # once
    n = w.asked("clock", "show")["running_s"]
    passes(TICK)
    wait_for(lambda: w.asked("clock", "show")["running_s"] >= n + TICK)
assert len(kept()) == 1, kept()
print("ok")
