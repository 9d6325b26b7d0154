"""Frozen vaults and keyrings of released versions: every later program opens them. `sample.py --make DIR` makes one of the present version."""
import hashlib, json, os, shutil, subprocess, sys
from lib import *

HERE = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "samples")


def state_but(m, name):
    p = os.path.join(m, name)
    out = {}
    for d, ds, fs in os.walk(m):
        for n in ds + fs:
            q = os.path.join(d, n)
            if q == p:
                continue
            rel = os.path.relpath(q, m)
            out[rel] = "dir" if os.path.isdir(q) and not os.path.islink(q) else "link " + os.readlink(q) if os.path.islink(q) else hashlib.sha256(read(q)).hexdigest()
    return out


def make(to):
    w = World()
    w.init()
    m = w.mount()
    files = {os.path.basename(f): f for f in data_files()}
    os.mkdir(os.path.join(m, "study"))
    for n in ("CT_small.dcm", "MR_small.dcm"):
        write(os.path.join(m, "study", n), read(files[n]))
    write(os.path.join(m, "revoked.dcm"), read(files["rtplan.dcm"]))
    write(os.path.join(m, "empty"), b"")
    write(os.path.join(m, "text"), b"general key\n")
    write(os.path.join(m, "N" * 255), b"long name")
    os.symlink("study", os.path.join(m, "link"))
    os.setxattr(os.path.join(m, "text"), "user.note", b"kept")
    with open(os.path.join(m, "sparse"), "wb") as f:
        f.truncate(3000000)
        f.seek(2900000)
        f.write(b"end of a sparse file")
    with open(os.path.join(m, "text"), "r+b") as f:
        f.write(b"GENERAL")
    import pydicom
    w.cli("study", "revoke", str(pydicom.dcmread(files["rtplan.dcm"]).StudyInstanceUID), "--reason", "sample", "--now")
    os.rename(os.path.join(m, "revoked.dcm"), os.path.join(m, "revoked"))
    want = state_but(m, "revoked")
    w.umount()
    os.makedirs(to)
    with open(os.path.join(to, "manifest.json"), "w") as f:
        json.dump({"passphrase": "correct horse", "files": want, "revoked": ["revoked"]}, f, indent=1, sort_keys=True)
        f.write("\n")
    w.stop_keyd()
    subprocess.run(["tar", "-C", w.dir, "-S", "--sort=name", "--xattrs", "--xattrs-include=*", "-cJf", os.path.join(to, "sample.tar.xz"), "vault", "keyring", "keyring.root"], check=True)
    print("made", to, os.path.getsize(os.path.join(to, "sample.tar.xz")), "bytes")


if len(sys.argv) == 3 and sys.argv[1] == "--make":
    make(sys.argv[2])
    sys.exit(0)
versions = sorted(v for v in os.listdir(HERE) if os.path.exists(os.path.join(HERE, v, "manifest.json")))
assert versions
for v in versions:
    manifest = json.load(open(os.path.join(HERE, v, "manifest.json")))
    w = World(start=False)
    subprocess.run(["tar", "-C", w.dir, "--xattrs", "--xattrs-include=*", "-xJf", os.path.join(HERE, v, "sample.tar.xz")], check=True)
    write(w.passphrase, manifest["passphrase"].encode())
    w.keyd(), w.unlock()
    m = w.mount()
    assert state_but(m, manifest["revoked"][0]) == manifest["files"]
    for n in manifest["revoked"]:
        raises(errno.EKEYREVOKED, read, os.path.join(m, n))
    assert os.getxattr(os.path.join(m, "text"), "user.note") == b"kept"
    write(os.path.join(m, "new"), b"and it can be written")
    m = w.remount()
    assert read(os.path.join(m, "new")) == b"and it can be written"
    w.umount()
    w.close()
    print("ok", v, len(manifest["files"]), "files")
