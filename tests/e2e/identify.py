"""`leadglass identify` against pydicom's own reading of every file that it ships."""
import os, subprocess
from lib import *
from pydicom.filereader import dcmread

files = data_files()
out = subprocess.run([BIN + "/leadglass", "identify", *files], stdout=subprocess.PIPE, text=True, check=True).stdout
got = dict(l.split("\t")[:2] for l in out.splitlines())
differ = []
for f in files:
    try:
        uid = str(dcmread(f, force=True, stop_before_pixels=True).get("StudyInstanceUID", "") or "") or "-"
    except Exception:
        uid = "-"
    if got[f] != uid:
        differ.append((os.path.basename(f), "pydicom", uid, "leadglass", got[f]))
assert not differ, differ
assert sum(u != "-" for u in got.values()) > 100
print("ok", len(files), "files, all as pydicom reads them")
