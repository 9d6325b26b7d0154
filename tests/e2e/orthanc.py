"""Orthanc with its storage and its SQLite index on the mount: every DICOM file that pydicom ships goes in over REST and C-STORE and comes back byte for
byte, after a remount again; once with StorageCompression."""
import json, os, re, shutil, subprocess, sys, urllib.error, urllib.request
from lib import *
import pydicom

ORTHANC = next((p for p in ("/usr/sbin/Orthanc", "/usr/bin/Orthanc") if os.path.exists(p)), None)
if not ORTHANC:
    skip("Orthanc is not installed")
compress = sys.argv[1] == "compressed"
w = World()
w.init()
m = w.mount()
http, dicom = free_port(), free_port()
config = w.path("orthanc.json")


def configure():
    os.makedirs(os.path.join(m, "storage"), exist_ok=True)
    os.makedirs(os.path.join(m, "index"), exist_ok=True)
    write(config, json.dumps({
        "Name": "test", "StorageDirectory": os.path.join(m, "storage"), "IndexDirectory": os.path.join(m, "index"), "StorageCompression": compress,
        "HttpPort": http, "DicomPort": dicom, "DicomAet": "ORTHANC", "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "DicomAlwaysAllowStore": True, "UnknownSopClassAccepted": True, "OverwriteInstances": True, "Plugins": []}).encode())


def call(path, data=None):
    with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:%d%s" % (http, path), data=data), timeout=300) as r:
        return r.read()


def up():
    try:
        call("/system")
        return True
    except OSError:
        return False


def start():
    p = w.spawn([ORTHANC, config], stdout=subprocess.DEVNULL, stderr=open(w.path("orthanc.log"), "ab"))
    wait_for(lambda: up() or p.poll() is not None)
    assert p.poll() is None, read(w.path("orthanc.log"))[-2000:]
    return p


configure()
p = start()
files = data_files()
# Over C-STORE: dcmsend proposes each file's own transfer syntax. What is no instance, or of a class that it does not know, it passes over.
r = subprocess.run(["dcmsend", "-v", "--scan-directories", "--recurse", "--no-halt", "--no-uid-checks", "-aec", "ORTHANC", "127.0.0.1", str(dicom),
                    *sorted({os.path.dirname(f) for f in files})], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
n_cstore = int(re.search(r"with status SUCCESS *: (\d+)", r.stdout).group(1))
assert n_cstore > 60, r.stdout[-3000:]
verified = 0
for i in json.loads(call("/instances")):  # Orthanc reads each back and compares it with the hash of what it received
    call("/instances/%s/attachments/dicom/verify-md5" % i, b"")
    verified += 1
assert verified > 60, verified
for i in json.loads(call("/patients")):
    urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:%d/patients/%s" % (http, i), method="DELETE"), timeout=300).read()
assert json.loads(call("/instances")) == []

stored = {}
for f in files:
    try:
        a = json.loads(call("/instances", read(f)))
        if isinstance(a, dict) and a.get("ID"):
            stored[a["ID"]] = f  # the last one sent under one identifier is the one kept
    except urllib.error.HTTPError:
        pass  # not something that Orthanc takes
assert len(stored) > 90, len(stored)

def compare():
    same = other = 0
    ids = json.loads(call("/instances"))
    assert set(stored) <= set(ids)
    for i in ids:
        b = call("/instances/%s/file" % i)
        if i in stored and b == read(stored[i]):
            same += 1
        else:
            other += 1
        seen.setdefault(i, b)
        assert seen[i] == b, i
    return same, other


seen = {}
same, other = compare()
assert same == len(stored) and other == 0, (same, other)
json.loads(call("/studies"))
w.stop(p)
m = w.remount()
p = start()
assert compare() == (same, other)
call("/tools/find", json.dumps({"Level": "Study", "Query": {"PatientID": "*"}}).encode())
studies = [l.split("\t")[0] for l in w.cli("study", "list").splitlines()]
uids = set()
for f in stored.values():
    uids.add(str(pydicom.dcmread(f, force=True, stop_before_pixels=True).get("StudyInstanceUID", "")))
uids.discard("")
assert uids <= set(studies), (len(uids - set(studies)), sorted(uids - set(studies))[:3])
w.stop(p)
w.umount()
words = {str(x) for f in files for x in [os.path.basename(f)]} | uids
for f in stored.values():
    d = pydicom.dcmread(f, force=True, stop_before_pixels=True)
    words |= {str(d.get(k, "")) for k in ("PatientName", "SOPInstanceUID", "SeriesInstanceUID")}
n = w.assert_nothing_readable(words)
print("ok", n_cstore, "files over C-STORE,", verified, "instances of them verified;", same, "instances over REST, byte for byte, after a remount again;", len(uids), "studies, each with its key;", n, "lower files scanned for", len(words), "words")
