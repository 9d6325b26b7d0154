"""Two officers, each in an account of their own, through the command line: what needs two, what one may, holds, retention, the waiting period, certificates."""
import base64, errno, json, os, re, shutil, subprocess, sys, time
from lib import *
from office import Desk

w = World(start=False)
w.ok("leadglass-keyd", "--init", "--keyring", w.path("keyring"), "--passphrase-file", w.passphrase, "--scrypt-ms", "20")
w.keyd(), w.unlock()
desk = Desk(w)
PASS = desk.passphrase
sec, ret, other, nobody = (desk.officer(*x) for x in (("sec", 40001), ("ret", 40002), ("other", 40003), ("nobody", 40004)))
for o in (sec, ret, other):
    o.ok("officer", "keygen", o.key, "--passphrase-file", PASS)
assert os.stat(sec.key).st_mode & 0o777 == 0o600

import pydicom
files = {os.path.basename(f): f for f in data_files()}
names = ["CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "JPEG2000.dcm", "ExplVR_BigEnd.dcm"]
uids = {n: str(pydicom.dcmread(files[n]).StudyInstanceUID) for n in names}
assert len(set(uids.values())) == len(names)
w.init()
m = w.mount()
p = {n: os.path.join(m, n) for n in names}
for n in names:
    write(p[n], read(files[n]))
ct, mr, plan, jp, big = (p[n] for n in names)
UCT, UMR, UPLAN, UJP, UBIG = (uids[n] for n in names)

# ---- single-administrator mode says so, and ends when both roles are filled
assert "single-administrator" in w.cli("status") and w.status()["mode"] == "single-administrator"
r = w.run("leadglass", "study", "revoke", UBIG, "--reason", "alone", "--now")
assert r.returncode == 0 and "single-administrator" in r.stderr
raises(errno.EKEYREVOKED, read, big)
single = json.loads(w.cli("study", "certificate", UBIG, "--json"))
assert single["request"]["approved"] is None and "single administrator" in single["request"]["asked"]["name"]
w.cli("policy", "set", "default=0", "inpatient=500", "--waiting", "1h", "--reason", "test")
r = nobody.run("study", "list")
assert r.returncode == 1 and "may not" in r.stderr, r.stderr
w.cli("officer", "add", "Ruth", "--role", "retention-officer", "--key", ret.key + ".pub", "--account", str(ret.uid), "--reason", "appointed")
for args in (("Ruth", sec.key, sec.uid), ("Sam", ret.key, sec.uid), ("Sam", sec.key, ret.uid)):  # same name, key, account
    w.fails(16, ["is registered"], "leadglass", "officer", "add", args[0], "--role", "security-officer", "--key", args[1] + ".pub", "--account", str(args[2]), "--reason", "x")
assert w.status()["mode"] == "single-administrator"
w.cli("officer", "add", "Sam", "--role", "security-officer", "--key", sec.key + ".pub", "--account", str(sec.uid), "--reason", "appointed")
assert w.status()["mode"] == "officers" and w.status()["officers"] == 2

# ---- nobody destroys alone any more
w.fails(16, ["nobody destroys alone"], "leadglass", "study", "revoke", UCT, "--reason", "x", "--now")
w.fails(16, ["an officer has to sign"], "leadglass", "study", "revoke", UCT, "--reason", "x")
for o in (sec, ret):
    assert len(o.ok("study", "list").splitlines()) == 5
assert nobody.run("study", "list").returncode == 1
other.refused("may not", "study", "hold", UCT, "--reason", "x", code=1)
a = ret.act("study", "revoke", UCT, "--reason", "patient asked")
assert a["state"] == "pending" and read(ct) == read(files["CT_small.dcm"])
shown = sec.ok("request", "show", a["id"])
assert UCT in shown and str(pydicom.dcmread(files["CT_small.dcm"]).PatientID) in shown and "patient asked" in shown
ret.refused("their own", "study", "approve", a["id"])
r = sec.run("study", "approve", a["id"], "--sign", ret.key, "--passphrase-file", PASS, "--yes")
assert r.returncode != 0  # another's key file is not readable
shutil.copy(sec.key, other.key + ".stolen"), os.chmod(other.key + ".stolen", 0o644)
r = ret.run("study", "approve", a["id"], "--sign", other.key + ".stolen", "--passphrase-file", PASS, "--yes")
assert r.returncode == 16 and "account" in r.stderr, r.stderr  # another's key from the wrong account
b = sec.act("study", "approve", a["id"])
assert b["state"] == "waiting" and b["unconfirmed"] == []
raises(errno.EKEYREVOKED, read, ct)
sec.refused("already", "study", "approve", a["id"])
assert "destroy-approved" in w.cli("study", "show", UCT)
r = sec.run("study", "certificate", UCT)
assert r.returncode == 1 and "not destroyed" in r.stderr
ret.act("study", "cancel", a["id"], "--reason", "withdrawn")
assert read(ct) == read(files["CT_small.dcm"]), "cancelled: readable again on the mount"

# ---- holds and retention
ret.act("study", "hold", UCT, "--reason", "case 7")
assert ret.ok("study", "list", "--hold").startswith(UCT)
ret.refused("legal hold", "study", "revoke", UCT, "--reason", "x")
rel = ret.act("study", "release", UCT, "--reason", "closed")
assert rel["state"] == "pending"
assert re.search("^held      since .*Z, by Ruth: case 7$", sec.ok("request", "show", rel["id"]), re.M)
ret.refused("their own", "request", "approve", rel["id"])
sec.act("request", "approve", rel["id"])
assert not ret.ok("study", "list", "--hold")
sec.act("study", "retain", UMR, "--until", "2999-01-01", "--reason", "trial")
ret.refused("retention", "study", "revoke", UMR, "--reason", "x")
s = ret.act("study", "retain", UMR, "--until", "2001-01-01", "--reason", "trial over")
assert s["action"] == "shorten" and s["state"] == "pending"
assert "kept      until 2999-01-01T00:00:00Z" in sec.ok("request", "show", s["id"])
sec.act("request", "approve", s["id"])
due = json.loads(ret.ok("study", "due", "--json"))
assert [d["uid"] for d in due] == [UMR], due
rule = ret.act("study", "retain", UMR, "--rule", "inpatient", "--reason", "was an inpatient")
assert "rule      inpatient, 500 years" in sec.ok("request", "show", rule["id"])
sec.act("request", "approve", rule["id"])
assert not json.loads(ret.ok("study", "due", "--json"))
ret.refused("retention", "study", "revoke", UMR, "--reason", "x")

# ---- suspend: one alone; any officer resumes
sec.act("study", "suspend", UPLAN, "--reason", "looked wrong")
raises(errno.EKEYREVOKED, read, plan)
assert UPLAN in sec.ok("study", "list", "--state", "suspended")
ret.act("study", "resume", UPLAN, "--reason", "is right")
assert read(plan) == read(files["rtplan.dcm"])

# ---- a file goes over to another study: two officers, once, that file only
two = [os.path.join(m, n) for n in ("over1", "over2")]
for x in two:
    write(x, read(files["MR_small.dcm"]))
key_of = lambda x: os.getxattr(x, "trusted.leadglass.key").split()[0]
w.fails(16, ["two of them sign"], "leadglass", "study", "assign", two[0], UJP)
w.fails(16, ["that act is of another"], "leadglass", "study", "assign", two[0], UJP, "--act", "11" * 16)
raises(errno.EPERM, os.setxattr, two[0], "trusted.leadglass.rekey", UJP.encode())
x = json.loads(w.cli("study", "assign", two[0], UJP, "--reason", "filed wrongly", "--sign", ret.key, "--passphrase-file", PASS, "--json"))
assert x["state"] == "pending" and two[0] in x["details"]
w.fails(16, ["nobody has approved"], "leadglass", "study", "assign", two[0], UJP, "--act", x["id"])
ret.refused("their own", "request", "approve", x["id"])
shown = sec.run(*sec.signed("request", "approve", x["id"]))
assert shown.returncode == 0 and UMR in shown.stderr and UJP in shown.stderr and two[0] in shown.stderr, shown
w.fails(16, ["another file"], "leadglass", "study", "assign", two[1], UJP, "--act", x["id"])
w.fails(16, ["another file"], "leadglass", "study", "assign", two[0], UPLAN, "--act", x["id"])
w.cli("study", "assign", two[0], UJP, "--act", x["id"])
assert key_of(two[0]) == key_of(jp) and key_of(two[1]) == key_of(mr) and read(two[0]) == read(files["MR_small.dcm"])
w.fails(16, ["was used"], "leadglass", "study", "assign", two[0], UJP, "--act", x["id"])
for x in two:
    os.unlink(x)

# ---- the waiting period is policy: two officers; long enough for what comes while it lasts, on this machine
began = time.monotonic()
sec.act("study", "hold", UJP, "--reason", "how long does one take?")
WAITING = 2 + int(8 * (time.monotonic() - began))
x = sec.act("policy", "set", "--waiting", "%ds" % WAITING, "--reason", "test")
assert "1h between" in w.cli("policy", "show")
said = ret.ok("request", "show", x["id"])  # whoever approves a policy sees all of it, and what it was
assert "action    policy: waiting period" in said and said.count("years kept: default=0, inpatient=500\n") == 2, said
assert "until now waiting period 1h, 20 suspensions by one officer in 1h, years kept: default=0, inpatient=500\n" in said, said
ret.act("request", "approve", x["id"])
assert json.loads(w.cli("policy", "show", "--json"))["waiting_s"] == WAITING

# ---- a file signed on a machine of its own
f = w.path("desk", "carried")
ret.ok("study", "revoke", UCT, "--reason", "patient asked again", "--offline", f, "--as", "Ruth")
r = sec.run("request", "sign", f, "--sign", sec.key, "--passphrase-file", PASS, "--yes")
assert r.returncode == 16
ret.ok("request", "sign", f, "--sign", ret.key, "--passphrase-file", PASS, "--yes")
altered = read(f + ".signed").replace(b"leadglass-asked-1 ", b"").split()
doc = bytearray(base64.urlsafe_b64decode(altered[0] + b"=="))
at = doc.index(b"again")
doc[at:at + 5] = b"AGAIN"
text = base64.urlsafe_b64encode(bytes(doc)).rstrip(b"=")
write(f + ".altered", b" ".join([b"leadglass-asked-1", text] + altered[1:]) + b"\n")
w.fails(16, ["signature"], "leadglass", "request", "submit", f + ".altered")
doc = bytearray(base64.urlsafe_b64decode(altered[0] + b"=="))
doc[42:58] = bytes([1]) * 16  # made and good until long ago
write(f + ".expired", b" ".join([b"leadglass-asked-1", base64.urlsafe_b64encode(bytes(doc)).rstrip(b"=")] + altered[1:]) + b"\n")
w.fails(16, ["expired"], "leadglass", "request", "submit", f + ".expired")
c = json.loads(w.cli("request", "submit", f + ".signed", "--json"))  # an administrator may carry it
w.fails(16, ["already"], "leadglass", "request", "submit", f + ".signed")
sec.ok("request", "show", c["id"], "--raw", f + "2")
sec.ok("request", "sign", f + "2", "--approve", "--sign", sec.key, "--passphrase-file", PASS, "--yes")
text = read(f + "2.signed").split()
sig = bytearray(base64.urlsafe_b64decode(text[3] + b"=="))
sig[5] ^= 1
write(f + "2.altered", b" ".join(text[:3] + [base64.urlsafe_b64encode(bytes(sig)).rstrip(b"=")]) + b"\n")
w.fails(16, ["signature"], "leadglass", "request", "submit", f + "2.altered")
assert json.loads(w.cli("request", "submit", f + "2.signed", "--json"))["state"] == "waiting"
w.fails(16, ["already"], "leadglass", "request", "submit", f + "2.signed")
raises(errno.EKEYREVOKED, read, ct)

# ---- a hold placed while it waits keeps it; released, it is carried out by itself
ret.act("study", "hold", UCT, "--reason", "late case")


def kept():
    w.recorded()
    return [r for r in map(json.loads, read(w.path("keyring.audit", "keyd", "00000001.jsonl")).split(b"\n")[:-1]) if r["event"] == "key.destroy" and r["outcome"] == "EBUSY"]


wait_for(kept)
assert "destroy-approved" in w.cli("study", "show", UCT)
rel = ret.act("study", "release", UCT, "--reason", "closed")
sec.act("request", "approve", rel["id"])
wait_for(lambda: "state        destroyed" in w.cli("study", "show", UCT))
assert read(mr) == read(files["MR_small.dcm"]) and read(plan) == read(files["rtplan.dcm"]) and read(jp) == read(files["JPEG2000.dcm"])
raises(errno.EKEYREVOKED, write, os.path.join(m, "again"), read(files["CT_small.dcm"]))

# ---- certificate
cert, page = w.path("desk", "cert.json"), w.path("desk", "cert.html")
ret.ok("study", "certificate", UCT, "--out", cert)
ret.ok("study", "certificate", UCT, "--out", page)
html = read(page).decode()
for word in (UCT, "Ruth", "Sam", "patient asked again", "Not covered", "none outstanding"):
    assert word in html, word
pub = json.loads(ret.ok("officer", "list", "--json"))["keyring_public_key"]
out = nobody.ok("study", "certificate", "--verify", cert, "--key", pub)
assert "good" in out and "both officers" in out
j = json.load(open(cert))
assert j["request"]["asked"]["name"] == "Ruth" and j["request"]["approved"]["name"] == "Sam" and j["backups_outstanding"] == []
bad = w.path("desk", "bad.json")
for change in (("study_uid", "1.2.3"), ("destroyed", "2001-01-01T00:00:00Z"), ("not_covered", []), ("signature", j["signature"][:-4] + "AAAA"), ("epoch", j["epoch"] + 1)):
    write(bad, json.dumps(dict(j, **dict([change]))).encode())
    r = nobody.run("study", "certificate", "--verify", bad)
    assert r.returncode in (1, 16) and "good" not in r.stdout, (change, r.stdout)
r = nobody.run("study", "certificate", "--verify", cert, "--key", "A" * 43)
assert r.returncode == 16

# ---- readmit: two officers; the UID gets a key of its own
x = ret.act("study", "readmit", UCT, "--reason", "comes back to us")
sec.act("request", "approve", x["id"])
write(os.path.join(m, "back"), read(files["CT_small.dcm"]))
assert read(os.path.join(m, "back")) == read(files["CT_small.dcm"])
raises(errno.EKEYREVOKED, read, ct)
assert "active" in w.cli("study", "show", UCT)

# ---- a keyring backup is declared destroyed: two officers
w.cli("backup", "create", w.path("b.lgk"), "--passphrase-file", PASS)
b = json.loads(w.cli("backup", "list", "--json"))[0]["id"]
w.fails(16, ["one of them asks"], "leadglass", "backup", "void", b)
x = json.loads(w.cli("backup", "void", b, "--reason", "shredded", "--sign", ret.key, "--passphrase-file", PASS, "--json"))
assert x["state"] == "pending" and x["details"] == b
w.fails(16, ["another approves"], "leadglass", "backup", "void", b, "--act", x["id"])
ret.refused("their own", "request", "approve", x["id"])
sec.act("request", "approve", x["id"])
w.cli("backup", "void", b, "--act", x["id"])
assert json.loads(w.cli("backup", "list", "--json"))[0]["void"]
w.fails(1, ["void already"], "leadglass", "backup", "void", b, "--act", x["id"])

# ---- changes of officers; never below the quorum
x = ret.act("officer", "add", "Olga", "--role", "security-officer", "--key", other.key + ".pub", "--account", str(other.uid), "--reason", "deputy")
sec.act("request", "approve", x["id"])
x = ret.act("officer", "remove", "Sam", "--reason", "leaves")
assert "officer   Sam, security-officer, account %d" % sec.uid in other.ok("request", "show", x["id"])
other.act("request", "approve", x["id"])
sec.refused("may not", "study", "hold", UMR, "--reason", "x", code=1)
ret.refused("must remain", "officer", "remove", "Olga", "--reason", "x")

# ---- lists by patient and by date; retention of all studies of a patient
ds = pydicom.dcmread(files["CT_small.dcm"])
for uid, date in (("1.2.77.1", "20010101"), ("1.2.77.2", "20240101")):
    ds.StudyInstanceUID, ds.PatientID, ds.StudyDate = uid, "PAT-77", date
    ds.save_as(w.path("one"))
    write(os.path.join(m, uid), read(w.path("one")))
listed = lambda *args: {x["uid"] for x in json.loads(ret.ok("study", "list", "--json", *args))}
both = {"1.2.77.1", "1.2.77.2"}
assert listed("--patient", "PAT-77") == both and listed() > both and listed("--patient", "PAT-7") == set()
assert listed("--patient", "PAT-77", "--from", "20010102") == listed("--from", "20240101", "--to", "20240101") == {"1.2.77.2"}
assert listed("--patient", "PAT-77", "--to", "20231231") == {"1.2.77.1"} and listed("--patient", "PAT-77", "--from", "20010101", "--to", "20240101") == both
ret.ok(*ret.signed("study", "retain", "--patient", "PAT-77", "--until", "2999-01-01", "--reason", "trial"))
for uid in both:
    ret.refused("retention", "study", "revoke", uid, "--reason", "x")
assert "2999-01-01" not in ret.ok("study", "show", UMR)
ret.refused("or none has to change", "study", "retain", "--patient", "PAT-77", "--until", "2999-01-01", "--reason", "x", code=1)

# ---- a storage administrator asks for what concerns the storage, and approves nothing; the passphrase of a key is asked for
stor = desk.officer("stor", 40005)
stor.ok("officer", "keygen", stor.key, "--passphrase-file", PASS)
x = ret.act("officer", "add", "Stan", "--role", "storage-admin", "--key", stor.key + ".pub", "--account", str(stor.uid), "--reason", "runs the storage")
other.act("request", "approve", x["id"])
for what in ("revoke", "hold", "suspend"):
    stor.refused("not in this role", "study", what, UPLAN, "--reason", "x")
a2 = ret.act("study", "revoke", UPLAN, "--reason", "whose?")
stor.refused("not in this role", "study", "approve", a2["id"])
stor.refused("not in this role", "request", "cancel", a2["id"], "--reason", "x")
ret.act("request", "cancel", a2["id"], "--reason", "of the test")
w.cli("backup", "create", w.path("b2.lgk"), "--passphrase-file", PASS)
b2 = json.loads(w.cli("backup", "list", "--json"))[-1]["id"]
for args in (("backup", "void", b2), ("study", "assign", mr, UJP)):
    x = json.loads(w.cli(*args, "--reason", "x", "--sign", stor.key, "--passphrase-file", PASS, "--json"))
    assert x["state"] == "pending" and x["asked"]["name"] == "Stan", x
    assert stor.run(*stor.signed("request", "approve", x["id"])).returncode == 16
    assert ret.act("request", "approve", x["id"])["state"] == "approved"
    if args[0] == "backup":
        w.cli("backup", "void", b2, "--act", x["id"])
wrong = w.path("desk", "wrong")
write(wrong, b"another\n"), os.chmod(wrong, 0o644)
r = ret.run("study", "hold", UPLAN, "--reason", "x", "--sign", ret.key, "--passphrase-file", wrong)
assert r.returncode == 3 and "wrong passphrase" in r.stderr, r
r = ret.run("request", "approve", x["id"], "--sign", ret.key, "--passphrase-file", wrong, "--yes")
assert r.returncode == 3 and "wrong passphrase" in r.stderr, r
assert UPLAN not in ret.ok("study", "list", "--hold")

# ---- all of it after a restart of the key manager
w.stop_keyd()
w.keyd(), w.unlock()
assert w.status()["mode"] == "officers" and w.status()["officers"] == 3
assert "inpatient" in ret.ok("policy", "show") and "believed" in ret.ok("clock", "show")
other.refused("already", "request", "approve", a["id"])
assert json.loads(ret.ok("request", "list", "--all", "--json"))
w.umount()
w.stop_keyd()  # now all of it is in the log's file

# ---- all of it is on record, each under its own name; a head was signed before the study whose time had come was destroyed
log = w.path("keyring.audit", "keyd")
rows = [json.loads(x) for x in read(os.path.join(log, "00000001.jsonl")).split(b"\n")[:-1]]
heads = [json.loads(x)["seq"] for x in read(os.path.join(log, "00000001.heads")).split(b"\n") if x]
for name in ("add", "remove", "revoke", "cancel", "hold", "release", "retain", "shorten", "rule", "suspend", "resume", "policy", "readmit", "assign"):
    assert any(r["event"] == "officer." + name and r["how"] == "submit" and r["outcome"] == "ok" for r in rows), name
approved = [r for r in rows if r["event"] == "officer.release" and r["how"] == "approve"]
assert len(approved) == 3 and sorted(r["outcome"] for r in approved)[1:] == ["ok", "ok"] and all("study" in r for r in approved if r["outcome"] == "ok"), approved
ended = [r for r in rows if r["event"] == "key.destroy" and "waiting period" in r["text"]]
assert len(ended) == 1 and ended[0]["outcome"] == "ok" and ended[0]["study"] == approved[-1]["study"], ended
before = max(h for h in heads if h < ended[0]["seq"])
assert all("count" in r for r in rows if before < r["seq"] < ended[0]["seq"]), (before, ended)
held = [r for r in rows if r["event"] == "key.destroy" and r["outcome"] == "EBUSY"]
assert len(held) == 1 and held[0]["seq"] < ended[0]["seq"] and held[0]["study"] == ended[0]["study"] and "legal hold" in held[0]["text"], held
assert [r["outcome"] for r in rows if r["event"] == "study.assign"].count("ok") == 1
assert not any(r["event"] in ("key.request", "officer.act") for r in rows if r["outcome"] == "ok")
assert UCT.encode() not in read(os.path.join(log, "00000001.jsonl"))

# ---- and what was refused: event, how it was handed in, outcome, what that was
for event, how, outcome, what in (
    ("key.destroy", None, "EPERM", "destruction by one alone"),
    ("officer.revoke", "approve", "ELOOP", "the approval of one's own request"),
    ("officer.assign", "approve", "ELOOP", "the same of another act"),
    ("officer.backup-void", "approve", "ELOOP", "and of another"),
    ("officer.add", "submit", "EEXIST", "one key, name or account for two officers"),
    ("officer.remove", "submit", "EUSERS", "fewer officers than it takes"),
    ("officer.revoke", "approve", "EACCES", "another's key, from the wrong account or in the wrong role"),
    ("officer.revoke", "submit", "EACCES", "a request from the wrong role"),
    ("officer.revoke", "submit", "EKEYREJECTED", "an altered request"),
    ("officer.revoke", "approve", "EKEYREJECTED", "an altered approval"),
    ("officer.revoke", "submit", "EALREADY", "a request once more"),
    ("officer.revoke", "approve", "EALREADY", "an approval once more"),
    ("officer.revoke", "submit", "EBUSY", "what is held"),
    ("officer.revoke", "submit", "EDOM", "what is retained"),
    ("key.destroy", None, "EBUSY", "what is held when it falls due"),
    ("officer.revoke", "submit", "ETIME", "an expired request"),
    ("backup.void", None, "EPERM", "a backup declared void by one alone"),
    ("study.assign", None, "EPERM", "a file assigned by one alone"),
):
    assert any(r["event"] == event and r.get("how") == how and r["outcome"] == outcome for r in rows), (what, event, how, outcome, [(r["event"], r.get("how"), r["outcome"]) for r in rows if r["outcome"] != "ok"])

# ---- restored from the backup: what was signed before is not taken again, spent or not; destruction waits for two officers
w.stop_keyd()
w.cli("backup", "restore", w.path("b.lgk"), "--keyring", w.path("again"), "--passphrase-file", PASS, "--new-passphrase-file", w.passphrase)
time.sleep(1.1)  # documents of the second of the restore itself are from before it
w.ok("leadglass-keyd", "--keyring", w.path("again"))
w.unlock()
assert w.status()["mode"] == "officers"
for x in (f + ".signed", f + "2.signed"):
    w.fails(16, [], "leadglass", "request", "submit", x)
r = ret.act("study", "revoke", UMR, "--reason", "after the restore", "--before-due")
w.fails(16, ["one of them asks"], "leadglass", "backup", "confirm")
x = ret.act("backup", "confirm", "--reason", "the list is complete")
w.fails(16, ["another approves"], "leadglass", "backup", "confirm", "--act", x["id"])
sec.act("request", "approve", x["id"])
w.fails(16, ["another approves"], "leadglass", "backup", "confirm", "--act", r["id"])
w.cli("backup", "confirm", "--act", x["id"])
w.fails(1, ["not one"], "leadglass", "backup", "confirm", "--act", x["id"])
sec.act("study", "approve", r["id"])
wait_for(lambda: "state        destroyed" in w.cli("study", "show", UMR), 60)
n = json.loads(w.cli("study", "show", UMR, "--json"))["backups_outstanding"]  # the one that it was restored from at least; an officer sees the same
assert n >= 1 and json.loads(ret.ok("study", "show", UMR, "--json"))["backups_outstanding"] == n
assert len(json.loads(ret.ok("backup", "list", "--json"))) == len(json.loads(w.cli("backup", "list", "--json")))
w.stop_keyd()
rows = [json.loads(x) for x in read(w.path("again.audit", "keyd", "00000001.jsonl")).split(b"\n")[:-1]]
for event, how, outcome in (("officer.revoke", "submit", "ETIME"), ("officer.revoke", "approve", "EALREADY"), ("backup.confirm", None, "EPERM")):
    assert any(r["event"] == event and r.get("how") == how and r["outcome"] == outcome for r in rows), (event, how, outcome, [(r["event"], r.get("how"), r["outcome"]) for r in rows])
print("ok")
