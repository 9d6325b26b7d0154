"""DCMTK's storescp, flat and sorted by study, and dcmqrscp, with their files on the mount."""
import os, shutil, subprocess
from lib import *
import pydicom

for t in ("storescp", "storescu", "dcmqrscp"):
    if not shutil.which(t):
        skip("DCMTK is not installed")
w = World()
w.init()
m = w.mount()
names = ("CT_small.dcm", "MR_small.dcm", "rtplan.dcm", "rtdose.dcm", "ExplVR_BigEnd.dcm", "MR_small_implicit.dcm")
files = [f for f in data_files() if os.path.basename(f) in names]
assert len(files) >= 4


def send(port, aec, f):
    r = subprocess.run(["storescu", "-aec", aec, "127.0.0.1", str(port), f], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    return r.returncode == 0


def listening(port):
    import socket
    with socket.socket() as s:
        return s.connect_ex(("127.0.0.1", port)) == 0


def tree(top):
    return sorted(os.path.join(d, f) for d, _, fs in os.walk(top) for f in fs)


def check(top, want):
    got = {}
    for p in tree(top):
        try:
            d = pydicom.dcmread(p)
        except Exception:
            continue  # dcmqrscp's own index
        got[str(d.SOPInstanceUID)] = d
    for f in want:
        d = pydicom.dcmread(f)
        g = got[str(d.SOPInstanceUID)]
        assert g.get("PatientID") == d.get("PatientID") and g.StudyInstanceUID == d.StudyInstanceUID
        if "PixelData" in d and d.file_meta.TransferSyntaxUID == g.file_meta.TransferSyntaxUID:
            assert g.PixelData == d.PixelData, f


for kind, extra in (("flat", []), ("sorted", ["--sort-on-study-uid", "study"])):
    top = os.path.join(m, kind)
    os.mkdir(top)
    port = free_port()
    p = w.spawn(["storescp", *extra, "--output-directory", top, str(port)])
    wait_for(lambda: listening(port))
    assert all([send(port, "ANY", f) for f in files])
    w.stop(p)
    check(top, files)
top = os.path.join(m, "qr")
os.mkdir(top)
port = free_port()
write(w.path("qr.cfg"), ("""NetworkTCPPort = %d
MaxPDUSize = 16384
MaxAssociations = 4
HostTable BEGIN
HostTable END
VendorTable BEGIN
VendorTable END
AETable BEGIN
STORE %s RW (200, 1024mb) ANY
AETable END
""" % (port, top)).encode())
p = w.spawn(["dcmqrscp", "-c", w.path("qr.cfg")])
wait_for(lambda: listening(port))
assert all([send(port, "STORE", f) for f in files])
r = subprocess.run(["findscu", "-S", "-aec", "STORE", "127.0.0.1", str(port), "-k", "0008,0052=STUDY", "-k", "0020,000D"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
assert r.returncode == 0
w.stop(p)
check(top, files)
before = {p: read(p) for p in tree(m)}
m = w.remount()
assert {p: read(p) for p in tree(m)} == before
studies = {l.split("\t")[0] for l in w.cli("study", "list").splitlines()}
assert {str(pydicom.dcmread(f).StudyInstanceUID) for f in files} <= studies
w.umount()
words = set(names) | studies | {str(pydicom.dcmread(f).get(k, "")) for f in files for k in ("PatientName", "SOPInstanceUID")} | {"sorted", "study_1", "index.dat"}
w.assert_nothing_readable(words)
print("ok", len(before), "files")
