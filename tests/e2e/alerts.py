"""Alerts from a real mount: failed unlocks, denials, tampering and a mass deletion reach a program and syslog, each once, over restarts; a program that hangs stops nobody; configuration
that is not understood says where and why, and changes nothing."""
import errno, glob, json, os, shutil, signal, socket, subprocess, time
from lib import *

w = World()
vault = w.init()
os.chmod(w.dir, 0o755)
m = w.mount("vault", "mnt", "-o", "audit_window=1")
logdir = os.path.dirname(os.path.dirname(w.status()["audit"]["log"]))
study = next(f for f in data_files() if f.endswith("CT_small.dcm"))
for i in range(80):
    write(os.path.join(m, "f%d" % i), read(study))
uid = json.loads(w.cli("study", "list", "--json"))[0]["uid"]

# ---- who is told: a program, and a socket as syslog has it ----------------------------------------------------------------------------
os.makedirs(w.path("alerts"))
program = w.path("page")
write(program, b"""#!/bin/sh
d=%s
cat >$d/tmp.$$
if [ -e $d/../hang ] && grep -q '"rule":"tampering"' $d/tmp.$$; then mv $d/tmp.$$ $d/../hanging; sleep 1000 & sleep 1000; fi
mv $d/tmp.$$ $d/$$.$(date +%%s%%N).json
""" % w.path("alerts").encode())
os.chmod(program, 0o755)
log = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
log.bind(w.path("syslog"))
log.setblocking(False)
lines = []


def heard():
    while True:
        try:
            lines.append(log.recv(8192).decode())
        except BlockingIOError:
            return lines


def told(rule=None):
    every = [json.loads(read(f)) for f in glob.glob(w.path("alerts", "*.json"))]
    return [a for a in every if not rule or a["rule"] == rule]


CONFIG = """[watch]
log = %s
state = %s
[syslog]
socket = %s
facility = local0
[program]
path = %s
timeout = 60s
attempts = 1
[unlock-failed]
failures = 2
[denials]
denials = 4
outcomes = EACCES
[mass-change]
changes = 50
cooldown = 1s
[tampering]
cooldown = 1s
""" % (logdir, w.path("state"), w.path("syslog"), program)
conf = w.path("audit.conf")
write(conf, CONFIG.encode())
rules = {r["rule"]: r for r in json.loads(w.cli("audit", "watch", "--check", "--json", "--config", conf))["rules"]}
assert rules["mass-change"]["threshold"] == 50 and rules["tampering"]["grade"] == "critical" and not rules["off-hours"]["enabled"]
assert "50 changes in 10m" in w.cli("audit", "watch", "--check", "--config", conf)
write(w.path("bad.conf"), b"[denials]\ndenials = many\n")
w.fails(2, ["bad.conf:2:", "many", "1 to"], "leadglass", "audit", "watch", "--check", "--config", w.path("bad.conf"))


def holds(pid):
    """Looked at, not tried: a trial would hold the lock itself, and the watch would find it taken."""
    fds = "/proc/%d/fd" % pid
    try:
        return any(os.readlink(os.path.join(fds, f)) == w.path("state.lock") for f in os.listdir(fds))
    except FileNotFoundError:
        return False


def start():
    p = w.spawn([os.path.join(BIN, "leadglass"), "audit", "watch", "--config", conf], stderr=open(w.path("stderr"), "ab"), stdout=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(w.path("state")) and holds(p.pid))
    return p


def read_anew(text):
    seen = len(read(w.path("stderr")))
    write(conf, text.encode())
    p.send_signal(signal.SIGHUP)
    wait_for(lambda: b"read anew" in read(w.path("stderr"))[seen:])


def wrong_passphrases():
    write(w.path("wrong"), b"no such horse\n")
    w.cli("lock")
    for _ in range(3):
        w.run("leadglass", "unlock", "--passphrase-file", w.path("wrong"))
    wait_for(lambda: w.run("leadglass", "unlock", "--passphrase-file", w.passphrase).returncode == 0)


def denied():
    for _ in range(4):
        r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", os.path.join(BIN, "leadglass"), "study", "list"], env=w.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert r.returncode


p = start()
w.fails(7, ["another"], "leadglass", "audit", "watch", "--config", conf, "--once")
time.sleep(0.5)
assert not told() and not heard()  # storing eighty files is no alert

wrong_passphrases()
wait_for(lambda: told("unlock-failed"))
a = told("unlock-failed")[0]
assert a["grade"] == "major" and a["outcome"] in ("EKEYREJECTED", "EAGAIN") and a["log"] == "keyd" and a["seq"] > 1 and a["count"] >= 2, a
wait_for(lambda: any("rule=unlock-failed" in x for x in heard()))
assert lines[0].startswith("<131>"), lines  # local0, error

reachable = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "test", "-x", os.path.join(BIN, "leadglass")]).returncode == 0
if reachable:
    denied()
    wait_for(lambda: told("denials"))
    a = told("denials")[0]
    assert a["uid"] == 65534 and a["user"] == "nobody" and a["outcome"] == "EACCES" and a["grade"] == "warning", a
else:
    left_out("an alert of denials", "the programs cannot be reached by others than root here")

# ---- away while it happens: told when it is back, once ----------------------------------------------------------------------------------
w.stop(p)
for i in range(60):
    os.unlink(os.path.join(m, "f%d" % i))
time.sleep(2)  # the window of the log ends
p = start()
wait_for(lambda: told("mass-change"))
a = told("mass-change")[0]
assert a["event"] == "file.unlink" and a["count"] >= 50 and a["uid"] == 0 and a["grade"] == "critical" and "python" in a["program"], a
w.stop(p)
before = sorted(x["id"] for x in told())
p = start()
time.sleep(1)
assert sorted(x["id"] for x in told()) == before and len(set(before)) == len(before)
p.kill()  # killed while nothing is under way: nothing again either
p.wait()
w.children.remove(p)
p = start()
time.sleep(1)
assert sorted(x["id"] for x in told()) == before, (told(), before)

# ---- tampering, and a program that hangs over it ------------------------------------------------------------------------------------------
def tamper(name):
    plain = os.path.join(m, name)
    ino = os.stat(plain).st_ino
    w.umount()
    f = next(os.path.join(d, x) for d, _, fs in os.walk(vault) for x in fs if os.lstat(os.path.join(d, x)).st_ino == ino)
    with open(f, "r+b") as h:
        h.seek(os.path.getsize(f) - 1)
        b = h.read(1)
        h.seek(-1, 1)
        h.write(bytes([b[0] ^ 1]))
    w.mount("vault", "mnt", "-o", "audit_window=1")
    raises(errno.EIO, read, plain)


read_anew(CONFIG.replace("timeout = 60s", "timeout = 10s"))  # one that hangs ends it; all others have to be faster
write(w.path("hang"), b"")
tamper("f70")
wait_for(lambda: os.path.exists(w.path("hanging")))
n = len(told("mass-change"))
for i in range(60):
    write(os.path.join(m, "g%d" % i), b"x")
for i in range(60):
    os.rename(os.path.join(m, "g%d" % i), os.path.join(m, "g%d.locked" % i))
wait_for(lambda: len(told("mass-change")) == n + 1)
wait_for(lambda: any("rule=tampering" in x for x in heard()))  # syslog has it
assert not told("tampering")
wait_for(lambda: any("rule=delivery" in x and "NOT delivered" in x for x in heard()))  # killed, given up, and that is told
os.unlink(w.path("hang"))
read_anew(CONFIG)
tamper("f71")
wait_for(lambda: told("tampering"))
a = told("tampering")[0]
assert a["grade"] == "critical" and a["event"] == "file.tampered" and a["outcome"] == "EIO", a

# ---- status tells of it
def shown():
    return json.loads(w.cli("status", "--json", "--config", conf))["audit"]


wait_for(lambda: shown()["watch"].get("last_alert"))  # it writes its state from time to time
s = shown()
assert s["watch"]["running"] and s["watch"]["pid"] == p.pid and s["watch"]["alerts"] >= 1 and s["watch"]["last_alert"]["rule"] in rules and s["export"] is None, s
assert "watched, as of" in w.cli("status", "--config", conf)
wait_for(lambda: shown()["watch"]["last_alert"]["rule"] == "tampering")  # and goes on doing so after its configuration was read anew

# ---- a scrub finds it too; the tail of a log that nobody can sign; a destroyed study: opened again, and arriving again, are two things --------------------
w.umount()
assert not told("scrub")
assert w.run("leadglass", "scrub", vault).returncode == 10
wait_for(lambda: told("scrub"))
assert "damage" in told("scrub")[0]["text"] and told("scrub")[0]["event"] == "scrub.found"
w.mount("vault", "mnt", "-o", "audit_window=1")
assert not told("log-unsigned")
read_anew(CONFIG + "[log-unsigned]\nwindow = 3s\n")
w.cli("lock")
wait_for(lambda: told("log-unsigned"))
assert "not signed" in told("log-unsigned")[0]["text"] and told("log-unsigned")[0]["grade"] == "major"
w.unlock()
read_anew(CONFIG)
w.remount()
w.cli("study", "revoke", uid, "--reason", "a reason that nobody is told", "--now")
raises(errno.EKEYREVOKED, read, os.path.join(m, "f72"))
wait_for(lambda: told("revoked-study"))
assert not told("returned-study")
try:
    write(os.path.join(m, "again"), read(study))
except OSError as e:
    assert e.errno == errno.EKEYREVOKED, e
wait_for(lambda: told("returned-study"))
a, b = told("revoked-study")[0], told("returned-study")[0]
assert a["event"] in ("file.open", "file.lookup") and b["event"] == "study.returned" and a["key_id"] == b["key_id"] and a["outcome"] == b["outcome"] == "EKEYREVOKED", (a, b)
assert not any("nobody is told" in json.dumps(x) for x in told())

# ---- the log itself ----------------------------------------------------------------------------------------------------------------------------
w.umount()
log_file = next(f for f in glob.glob(os.path.join(logdir, "mount-*", "*.jsonl")))
w.stop(p)
with open(log_file, "rb") as f:
    whole = f.read().split(b"\n")
with open(log_file, "ab") as f:
    f.write(whole[3] + b"\n")  # an old record once more
p = start()
wait_for(lambda: told("log-broken"))
assert "stands after later ones" in told("log-broken")[0]["text"]
w.stop(p)
with open(log_file, "wb") as f:
    f.write(b"\n".join(whole))

# ---- read anew -----------------------------------------------------------------------------------------------------------------------------------
p = start()
seen = len(read(w.path("stderr")))
write(conf, (CONFIG + "[denials]\nwindow = soon\n").encode())
p.send_signal(signal.SIGHUP)
wait_for(lambda: b"the rules stay as they were" in read(w.path("stderr"))[seen:])
assert b"soon" in read(w.path("stderr"))[seen:] and p.poll() is None
write(conf, CONFIG.replace("failures = 2", "enabled = no").encode())
p.send_signal(signal.SIGHUP)
wait_for(lambda: b"read anew" in read(w.path("stderr"))[seen:])
noted = lambda: [r["text"] for r in json.loads(w.cli("audit", "query", "--json", "--event", "log.read")) if r["how"] == "watch-rules"]
assert noted()[-1] == "unlock-failed off", noted()  # whoever silences a rule is on record
before = len(noted())
p.send_signal(signal.SIGHUP)
wait_for(lambda: read(w.path("stderr"))[seen:].count(b"read anew") == 2)
assert len(noted()) == before  # nothing differs
n = len(told("unlock-failed"))
wrong_passphrases()
w.stop(p)
time.sleep(1)
assert len(told("unlock-failed")) == n

# ---- once, over everything, as JSON --------------------------------------------------------------------------------------------------------------
write(w.path("quiet.conf"), ("[syslog]\nenabled = no\n[unlock-failed]\nfailures = 2\n[mass-change]\nchanges = 50\n").encode())
once = ["audit", "watch", "--config", w.path("quiet.conf"), "--state", w.path("other"), "--once", "--all", "--json"]
out = [json.loads(x) for x in w.cli(*once).splitlines()]
assert {"unlock-failed", "mass-change", "tampering"} <= {x["rule"] for x in out}, out
again = [json.loads(x) for x in w.cli(*once).splitlines()]
assert not again, again

# A real syslog daemon understands it.
if shutil.which("rsyslogd"):
    write(w.path("rsyslog.conf"), ("""module(load="imuxsock" SysSock.Use="off")
input(type="imuxsock" Socket="%s")
template(name="t" type="string" string="%%syslogfacility-text%% %%syslogseverity-text%% %%programname%% %%msg%%\n")
action(type="omfile" file="%s" template="t")
""" % (w.path("real"), w.path("messages"))).encode())
    daemon = w.spawn(["rsyslogd", "-n", "-f", w.path("rsyslog.conf"), "-i", w.path("rsyslog.pid")], stderr=subprocess.DEVNULL)
    wait_for(lambda: os.path.exists(w.path("real")))
    write(w.path("real.conf"), ("[syslog]\nsocket = %s\nfacility = local5\n" % w.path("real")).encode())
    w.cli("audit", "watch", "--config", w.path("real.conf"), "--state", w.path("third"), "--once", "--all")
    wait_for(lambda: os.path.exists(w.path("messages")) and "rule=tampering" in read(w.path("messages")).decode())
    line = next(x for x in read(w.path("messages")).decode().splitlines() if "rule=tampering" in x)
    assert line.startswith("local5 crit leadglass-alert") and 'text="a file was changed' in line, line
    w.stop(daemon)
else:
    left_out("a real syslog daemon", "rsyslogd is not installed")

write(w.path("other"), b"lgfollow and more")
w.fails(1, ["damaged", "Remove it"], "leadglass", *once)

# ---- nobody is named ------------------------------------------------------------------------------------------------------------------------------
everything = json.dumps(told()) + "".join(heard()) + json.dumps(out)
for word in (uid, "f70", "g1.locked", "CompressedSamples"):
    assert word not in everything, word
reads = json.loads(w.cli("audit", "query", "--json", "--event", "log.read"))
assert any(r["how"] == "watch" for r in reads), reads
ids = [x["id"] for x in told()]
assert len(ids) == len(set(ids)), ids
print("ok")
