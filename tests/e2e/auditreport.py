"""An auditor's questions: query by every filter, CSV and JSON, studies named while their keys live and not after, and the report of a period, rendered by a real browser."""
import csv, errno, io, json, os, re, shutil, subprocess, tempfile, time
from lib import *

w = World()
vault = w.init()
m = w.mount()
os.chmod(w.dir, 0o755)
os.chmod(m, 0o777)
data = {os.path.basename(f): read(f) for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")}
for i in range(3):
    write(os.path.join(m, "ct%d" % i), data["CT_small.dcm"])
write(os.path.join(m, "mr<script>"), data["MR_small.dcm"])
w.remount()
for i in range(3):
    read(os.path.join(m, "ct%d" % i))
r = subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "cat", os.path.join(m, "mr<script>")], stdout=subprocess.DEVNULL)
assert r.returncode == 0
studies = {s["modality"]: s for s in json.loads(w.cli("study", "list", "--json"))}
w.remount()


def query(*args):
    return json.loads(w.cli("audit", "query", "--json", *args))


everything = query()
assert [r["time"] for r in everything] == sorted(r["time"] for r in everything)
ct = query("--study", studies["CT"]["uid"], "--event", "file.open")
assert ct and all(r["study"] == studies["CT"]["uid"] and r["patient"] == studies["CT"]["patient_id"] for r in ct)
assert sum(r["count"] for r in ct if r["how"] == "read") >= 3
assert query("--study", studies["CT"]["key_id"], "--event", "file.open") == ct
assert query("--patient", studies["CT"]["patient_id"], "--event", "file.open") == ct
nobody = query("--user", "nobody")
assert nobody and {r["study"] for r in nobody if "study" in r} == {studies["MR"]["uid"]} and all(r["uid"] == 65534 for r in nobody)
assert query("--user", "65534") == nobody
assert query("--program", "/cat", "--event", "file.open") == [r for r in nobody if r["event"] == "file.open"]
assert query("--outcome", "failed", "--event", "file.") == []
assert query("--from", "1h") != [] and query("--to", "2001-01-01") == [] and query("--from", "2999-01-01") == []
assert len(query("--limit", "2")) == 2
assert all(r["event"].startswith("key.") for r in query("--event", "key."))
rows = list(csv.DictReader(io.StringIO(w.cli("audit", "query", "--csv", "--event", "file.open"))))
assert all(r["uid"].isdigit() and r["pid"].isdigit() for r in rows) and any(r["us"].isdigit() for r in rows)
assert "no record matches" in w.run("leadglass", "audit", "query", "--study", "1.2.3.4").stderr
assert {r["study"] for r in rows} >= {studies["CT"]["uid"], studies["MR"]["uid"]} and all(int(r["count"]) >= 1 for r in rows)
assert studies["CT"]["uid"] in w.cli("audit", "query", "--event", "file.open")
assert query("--event", "log.read")[-1]["how"] == "query"  # every one of these is on record
w.fails(2, ["--from"], "leadglass", "audit", "query", "--from", "yesterday")
w.fails(2, ["--html"], "leadglass", "audit", "report")

# The log itself names nobody; offline it cannot be made to.
log = w.status()["audit"]["log"]
logdir = os.path.dirname(os.path.dirname(log))
off = json.loads(w.cli("audit", "query", "--offline", "--json", logdir))
assert not any("study" in r or "patient" in r for r in off) and any("key_id" in r for r in off)
w.fails(4, ["key manager"], "leadglass", "audit", "query", "--offline", "--study", studies["CT"]["uid"], logdir)

# Refused, destroyed: past records name the study no more.
w.cli("study", "revoke", studies["CT"]["uid"], "--reason", "over <b>", "--now")
raises(errno.EKEYREVOKED, read, os.path.join(m, "ct1"))
w.remount()
gone = query("--event", "file.", "--study", studies["CT"]["key_id"])
assert gone and not any(r.get("study") or r.get("patient") for r in gone)
assert any(r["outcome"] == "EKEYREVOKED" for r in query("--outcome", "failed"))

assert subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", os.path.join(BIN, "leadglass"), "study", "list"], env=w.env, stderr=subprocess.DEVNULL).returncode
page = w.cli("audit", "report", "--html")
numbers = json.loads(w.cli("audit", "report", "--json"))
assert numbers["opens"] >= 8 and numbers["refused"] >= 1 and numbers["key_actions"] >= 1
assert len(numbers["denied"]) >= 1 and all(e["outcome"] != "ok" for e in numbers["denied"])
if os.access("/dev/shm", os.X_OK) and subprocess.run(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "test", "-x", os.path.join(BIN, "leadglass")]).returncode == 0:
    assert [e for e in numbers["denied"] if e["event"] == "study.list" and e["outcome"] == "EACCES" and e["user"] == "nobody"], numbers["denied"]
assert any(e["event"] == "unlock" for e in numbers["key_events"]) and numbers["findings"] == [] and isinstance(numbers["holds_and_destructions"], list)
counts = list(csv.DictReader(io.StringIO(w.cli("audit", "report", "--csv"))))
of = lambda section: [r for r in counts if r["section"] == section]
assert int(of("total")[0]["opens"]) >= numbers["opens"] and sum(int(r["opens"]) for r in of("hour")) == int(of("total")[0]["opens"]) == sum(int(r["opens"]) for r in of("day"))
assert {r["name"] for r in of("user")} >= {"root", "nobody"} and len(of("hour")) == 24 and sum(int(r["refused"]) for r in of("user")) == int(of("total")[0]["refused"]) >= 1
assert {u["name"] for u in numbers["users"]} >= {"root", "nobody"} and sum(numbers["opens_per_hour"]) == numbers["opens"]
assert all(c["verdict"] == "intact" for c in numbers["log"]), numbers["log"]
assert "<script" not in page and "over <b>" not in page and "over &lt;b&gt;" in page and "://" not in page  # nothing loaded, nothing run
assert page.count("<svg") == 2 and studies["CT"]["uid"] not in page
w.fails(2, ["--hours"], "leadglass", "audit", "report", "--html", "--hours", "19-7")

browser = shutil.which("chromium")
if not browser:
    left_out("the report in a browser", "chromium is not installed")
else:
    write(w.path("report.html"), page.encode())
    out = subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync",
                          "--user-data-dir=" + w.path("browser"), "--dump-dom", "file://" + w.path("report.html")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, timeout=300).stdout
    assert out.count("<rect") > 2 and "Users" in out and "nobody" in out, out[:500]
    subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run", "--disable-component-update", "--disable-sync",
                    "--user-data-dir=" + w.path("browser"), "--print-to-pdf=" + w.path("report.pdf"), "--no-pdf-header-footer", "file://" + w.path("report.html")],
                   stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=300)
    assert read(w.path("report.pdf")).startswith(b"%PDF")
    if os.environ.get("LG_KEEP_REPORT"):
        shutil.copy(w.path("report.html"), os.environ["LG_KEEP_REPORT"])
print("ok")
