"""rsync and tar of the ciphertext, by somebody without keys, restored elsewhere and mounted with the same keyring."""
import os, shutil, subprocess
from lib import *

w = World()
w.init()
m = w.mount()
files = data_files()
for i, f in enumerate(files[:60]):
    d = os.path.join(m, "s%d" % (i % 7))
    os.makedirs(d, exist_ok=True)
    write(os.path.join(d, os.path.basename(f)), read(f))
long = os.path.join(m, "L" * 250)
write(long, b"long name")
os.symlink("target", os.path.join(m, "link"))
os.utime(os.path.join(m, "link"), ns=(1, 1111111111111111111), follow_symlinks=False)  # not of this second: rsync 3.5 then leaves a link's time as it is
os.setxattr(long, "user.k", b"v")


def state():
    return {os.path.relpath(p, m): (os.readlink(p) if os.path.islink(p) else read(p), os.lstat(p).st_mtime_ns, os.lstat(p).st_mode)
            for d, _, fs in os.walk(m) for p in [os.path.join(d, f) for f in fs]}


want = state()
w.umount()
xattrs = ["--xattrs", "--xattrs-include=*"]
subprocess.run(["rsync", "-aHAX", w.path("vault") + "/", w.path("vault-rsync")], check=True)
subprocess.run(["tar", *xattrs, "-C", w.path("vault"), "-cf", w.path("b.tar"), "."], check=True)
os.mkdir(w.path("vault-tar"))
subprocess.run(["tar", *xattrs, "-C", w.path("vault-tar"), "-xpf", w.path("b.tar")], check=True)
os.rename(w.path("vault"), w.path("gone"))
for copy in ("vault-rsync", "vault-tar"):
    m = w.mount(copy)
    assert state() == want
    assert os.getxattr(os.path.join(m, "L" * 250), "user.k") == b"v"
    write(os.path.join(m, "new"), b"written to the copy")
    os.remove(os.path.join(m, "new"))
    w.umount()
print("ok", len(want), "files")
