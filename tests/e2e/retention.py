"""The retention officer's rules: years count from the patient's last study, in the worklist and wherever a key is destroyed; what arrives while a destruction waits keeps it."""
import errno, json, time
from lib import *
from office import Desk

w = World()
vault = w.init()
m = w.mount()
year = time.gmtime().tm_year
old, new = b"%d0101" % (year - 20), b"%d0101" % (year - 5)
write(os.path.join(m, "1"), dicom_of(1, 100, b"P1", old))
write(os.path.join(m, "2"), dicom_of(2, 100, b"P1", new))
write(os.path.join(m, "3"), dicom_of(3, 100, b"P2", old))
write(os.path.join(m, "4"), dicom_of(4, 100, b"P3", old))
write(os.path.join(m, "5"), dicom_of(5, 100, b"", old))
write(os.path.join(m, "6"), dicom_of(6, 100, b"", new))
UIDS = ["1.2.%d" % n for n in range(1, 7)]
w.cli("policy", "set", "default=15", "inpatient=30", "--waiting", "3s", "--reason", "law")
assert "last study" in w.cli("policy", "show")


def due():
    return {s["uid"] for s in json.loads(w.cli("study", "due", "--json"))}


def state(uid):
    return json.loads(w.cli("study", "show", uid, "--json"))["state"]


assert due() == {"1.2.3", "1.2.4", "1.2.5"}
# One administrator alone.
w.fails(16, ["retention has not ended", "patient's last study"], "leadglass", "study", "revoke", "1.2.1", "--reason", "test", "--now")
w.fails(2, ["somebody else approves"], "leadglass", "study", "revoke", "1.2.1", "--reason", "test", "--now", "--before-due")
assert read(os.path.join(m, "1")) == dicom_of(1, 100, b"P1", old)
sec, ret = Desk(w).two()
for uid in UIDS:  # what the worklist says and what is taken are one
    if uid in due():
        r = ret.act("study", "revoke", uid, "--reason", "due")
        w.cli("study", "show", uid)
        if uid == "1.2.5":
            sec.ok(*sec.signed("study", "approve", r["id"]))
    else:
        ret.refused("retention has not ended", "study", "revoke", uid, "--reason", "not due")
raises(errno.EKEYREVOKED, read, os.path.join(m, "5"))
wait_for(lambda: state("1.2.5") == "destroyed")
# It follows another rule, and keeps nothing; it is an exception, and the approver is told.
ret.act("study", "revoke", "1.2.1", "--reason", "an exception", "--before-due")
ask = ret.act("study", "retain", "1.2.2", "--rule", "inpatient", "--reason", "was one")
sec.ok(*sec.signed("request", "approve", ask["id"]))
assert "1.2.1" in due()
# While one waits, the patient comes again.
ask = ret.act("study", "revoke", "1.2.3", "--reason", "due")
sec.ok(*sec.signed("study", "approve", ask["id"]))
write(os.path.join(m, "7"), dicom_of(7, 100, b"P2", new))
wait_for(lambda: [x for x in json.loads(w.cli("audit", "query", "--json", "--event", "key.destroy")) if x["outcome"] == "EDOM"] or state("1.2.3") == "destroyed")
if state("1.2.3") != "destroyed":  # unless this machine took more than three seconds to write a file
    assert state("1.2.3") == "destroy-approved" and "1.2.3" not in due()
    raises(errno.EKEYREVOKED, read, os.path.join(m, "3"))
    ret.ok(*ret.signed("study", "cancel", ask["id"], "--reason", "came again"))
    wait_for(lambda: state("1.2.3") == "active")
    assert read(os.path.join(m, "3")) == dicom_of(3, 100, b"P2", old)
print("ok")
