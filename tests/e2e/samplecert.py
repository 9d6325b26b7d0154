"""Certificates that earlier versions issued, in each form that there was, and keyring backups that they made. The certificates verify, as they stand in the archive; altered they do not.
A backup from before backups carried the inventory restores, and the new keyring does not claim to know which others there are."""
import json, os
from lib import *

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "samples")
w = World(start=False)
forms = set()
for n in sorted(os.listdir(os.path.join(HERE, "certificates"))):
    path = os.path.join(HERE, "certificates", n)
    c = json.load(open(path))
    r = w.run("leadglass", "study", "certificate", "--verify", path, "--key", "leadglass-officer-pub-1 " + c["keyring_public_key"])
    assert r.returncode == 0 and "good" in r.stdout, (n, r.stdout, r.stderr)
    forms.add(n.split("-")[0])
    for name in c:  # nothing stands beside the signed bytes that they do not say
        bad = dict(c)
        if name == "format":
            continue
        bad[name] = {"file": 1} if isinstance(c[name], dict) else [] if c[name] else ["x"] if isinstance(c[name], list) else not c[name] if isinstance(c[name], bool) else \
            (c[name] or 0) + 1 if not isinstance(c[name], str) else c[name][:-2] + ("AA" if c[name][-2:] != "AA" else "BB")
        write(w.path("bad.json"), json.dumps(bad).encode())
        r = w.run("leadglass", "study", "certificate", "--verify", w.path("bad.json"))
        assert r.returncode != 0, (n, name)
        del bad[name]
        write(w.path("bad.json"), json.dumps(bad).encode())
        assert w.run("leadglass", "study", "certificate", "--verify", w.path("bad.json")).returncode != 0, (n, name)
assert forms == {"lgcert1", "lgcert2", "lgcert3"}, forms

# ---- a backup that tells of no others
own, new = w.path("own"), w.path("new")
write(own, b"of the backup\n"), write(new, b"of the new keyring\n")
w.cli("backup", "restore", os.path.join(HERE, "backups", "no-inventory.lgk"), "--keyring", w.path("keyring"), "--passphrase-file", own, "--new-passphrase-file", new)
w.keyd()
w.cli("unlock", "--passphrase-file", new)
w.cli("backup", "confirm")
listed = w.run("leadglass", "backup", "list")
assert listed.returncode == 0 and "earlier version" in listed.stderr and "unknown" in listed.stderr, listed.stderr
assert [b["name"] for b in json.loads(w.cli("backup", "list", "--json"))] == ["no-inventory.lgk"]
w.cli("study", "revoke", "1.2.826.0.1.1", "--reason", "after the restore", "--now")


def certificate(uid):
    return json.loads(w.cli("study", "certificate", uid, "--json")), w.cli("study", "certificate", uid)


before, after = "1.2.826.0.1.0", "1.2.826.0.1.1"  # that backup
c, page = certificate(after)
assert c["state"] == "destroyed, 1 backup outstanding" and c["keyring_restored"] and c["keyring_restored_from"] is None and "earlier version" in page, c
c, page = certificate(before)
assert "not known" in c["state"] and c["backups_outstanding_total"] == 0 and "not known which are outstanding" in page and "none outstanding" not in page, (c["state"], page)
for uid in (before, after):  # and they verify
    w.cli("study", "certificate", uid, "--out", w.path("c" + uid + ".json"))
    w.cli("study", "certificate", "--verify", w.path("c" + uid + ".json"))

# ---- one made of that keyring, restored: it carries the inventory, and still does not know what was before; one of a keyring that was never restored knows from the first backup on
w.cli("backup", "create", w.path("second.lgk"), "--passphrase-file", own)
w.stop_keyd()
w.cli("backup", "restore", w.path("second.lgk"), "--keyring", w.path("again"), "--passphrase-file", own, "--new-passphrase-file", new)
w.ok("leadglass-keyd", "--keyring", w.path("again"))
w.cli("unlock", "--passphrase-file", new)
assert "earlier version" in w.run("leadglass", "backup", "list").stderr
w.stop_keyd()
w.ok("leadglass-keyd", "--keyring", w.path("fresh"), "--init", "--passphrase-file", new)
w.ok("leadglass-keyd", "--keyring", w.path("fresh"))
w.cli("unlock", "--passphrase-file", new)
w.cli("backup", "create", w.path("first.lgk"), "--passphrase-file", own)
w.stop_keyd()
w.cli("backup", "restore", w.path("first.lgk"), "--keyring", w.path("fresh2"), "--passphrase-file", own, "--new-passphrase-file", new)
w.ok("leadglass-keyd", "--keyring", w.path("fresh2"))
w.cli("unlock", "--passphrase-file", new)
r = w.run("leadglass", "backup", "list")
assert "between the two" in r.stderr and "earlier version" not in r.stderr, r.stderr
print("ok", len(forms), "forms")
