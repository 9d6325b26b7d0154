"""A filesystem below that gives no file handles: over an overlayfs, and with name_to_handle_at refused. What a PACS does is as elsewhere, over remounts, a killed daemon and re-encryption;
the mount warns that each file that the kernel remembers keeps a descriptor, status says so, and at the limit of open files an error comes and nothing is lost."""
import os, resource, signal, subprocess, sys
from lib import *

LIMIT = 400  # open files, where that is small
WARNS = "gives no file handles"


def said():
    return read(w.path("daemons")).decode(errors="replace") if os.path.exists(w.path("daemons")) else ""


def mounted(vault, handles, limit=None):
    """Mounts it, and asserts what of file handles is told to who mounts, to the log and in status."""
    before = said().count(WARNS)
    try:
        os.makedirs(w.path("mnt"), exist_ok=True)
    except FileExistsError:
        pass  # a mount whose daemon is gone
    few = limit and (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (limit // 2, limit)))  # it takes the hard one
    r = w.run("leadglass", "mount", vault, w.path("mnt"), preexec_fn=few or None)
    assert r.returncode == 0, r
    if "mnt" not in w.mounts:
        w.mounts.append("mnt")
    assert (WARNS in r.stderr) == (not handles) and (not limit or " %d, the limit" % limit in r.stderr), r.stderr
    if os.path.exists(os.path.join(BIN, "saylog.so")):
        wait_for(lambda: (said().count(WARNS) > before) == (not handles))
    assert w.status()["mounts"][0]["file_handles"] == handles and ("NO FILE HANDLES" in w.cli("status")) == (not handles)
    return w.path("mnt")


def descriptors():
    return len(os.listdir("/proc/%d/fd" % w.pid_of()))


def tree(at):
    """What a remount must bring back: names, kinds, link counts, contents."""
    out = {}
    for d, dirs, files in os.walk(at):
        for n in dirs + files:
            p = os.path.join(d, n)
            st = os.lstat(p)
            out[os.path.relpath(p, at)] = (st.st_mode, 0 if os.path.isdir(p) else st.st_nlink, os.readlink(p) if os.path.islink(p) else "" if os.path.isdir(p) else read(p))
    return out


def works(vault, handles=False):
    at = mounted(vault, handles)
    idle = descriptors()
    os.mkdir(at + "/study")
    bodies = {i: dicom_of(i % 3, 20000 + i) for i in range(60)}
    for i, b in bodies.items():
        write(at + "/study/%d.part" % i, b)
        os.rename(at + "/study/%d.part" % i, at + "/study/%d" % i)
    assert all(read(at + "/study/%d" % i) == b for i, b in bodies.items())
    if not handles:  # as the documents say
        assert descriptors() >= idle + 60, (idle, descriptors())
    write(at + "/study/" + "n" * 255, b"long")
    write(at + "/index", b"0" * 100000)
    fd = os.open(at + "/index", os.O_RDWR)
    os.pwrite(fd, b"1" * 5000, 30000)
    os.ftruncate(fd, 90000)
    os.fsync(fd)
    os.close(fd)
    os.link(at + "/index", at + "/study/linked")
    os.symlink("index", at + "/sym")
    os.setxattr(at + "/index", b"user.k", b"v")
    os.chmod(at + "/index", 0o640)
    os.utime(at + "/index", ns=(123, 456789))
    os.rename(at + "/study/1", at + "/study/2")  # over another
    os.rename(at + "/study", at + "/renamed")
    fd = os.open(at + "/renamed/3", os.O_RDWR)
    os.unlink(at + "/renamed/3")
    os.pwrite(fd, b"tail", 20003)
    assert os.fstat(fd).st_nlink == 0 and os.pread(fd, 30000, 0) == bodies[3][:20003] + b"tail" + bodies[3][20007:]
    os.close(fd)
    raises(errno.ENOTEMPTY, os.rmdir, at + "/renamed")
    os.mkdir(at + "/gone")
    os.rmdir(at + "/gone")
    for i in range(300):  # inode numbers used again below: never the file that had one before
        write(at + "/again", b"%d" % i)
        assert read(at + "/again") == b"%d" % i
        os.unlink(at + "/again")
    want = tree(at)
    assert want["renamed/2"][2] == bodies[1] and "renamed/1" not in want and len(want) == 63, len(want)
    assert tree(at) == want
    w.umount()
    at = mounted(vault, handles)
    assert tree(at) == want and os.getxattr(at + "/index", b"user.k") == b"v" and os.stat(at + "/index").st_mtime_ns == 456789

    # Another inode takes a file's place below while it is known and open.
    w.cli("key", "rotate", "--all-studies")
    fd = os.open(at + "/renamed/4", os.O_RDONLY)
    w.cli("key", "reencrypt", vault, "--all-studies")
    assert os.pread(fd, 30000, 0) == bodies[4] and tree(at) == want
    os.close(fd)

    # What stands in the journal alone is found by name.
    fd = os.open(at + "/index", os.O_RDWR)
    os.pwrite(fd, b"2" * 4000, 50000)
    os.fsync(fd)
    os.kill(w.pid_of(), signal.SIGKILL)
    try:
        os.close(fd)
    except OSError as e:
        assert e.errno in (errno.ENOTCONN, errno.ECONNABORTED, errno.ECANCELED, errno.EIO), e
    want["index"] = want["renamed/linked"] = want["index"][:2] + (want["index"][2][:50000] + b"2" * 4000 + want["index"][2][54000:],)
    wait_for(lambda: not w.status()["mounts"] or w.status()["mounts"][0]["away_since"])
    at = mounted(vault, handles)
    assert tree(at) == want
    w.umount()


def at_the_limit(vault):
    """So many files that not all can be known at a time."""
    at = mounted(vault, False, LIMIT)
    made = {}
    os.mkdir(at + "/many")
    met = set()
    for i in range(2 * LIMIT):
        try:
            write(at + "/many/%d" % i, b"%d" % i)
            made[i] = b"%d" % i
        except OSError as e:
            met.add(e.errno)
    assert met == {errno.EMFILE} and LIMIT // 4 < len(made) < LIMIT, (met, len(made))
    for i in list(made)[:50]:  # what is forgotten makes room
        os.unlink(at + "/many/%d" % i)
        del made[i]
    write(at + "/many/more", b"more")
    assert read(at + "/many/more") == b"more"
    w.umount()
    at = mounted(vault, False)
    assert all(read(at + "/many/%d" % i) == b for i, b in made.items()) and read(at + "/many/more") == b"more"
    left = set(os.listdir(at + "/many")) - {str(i) for i in made} - {"more"}
    assert all(os.stat(at + "/many/" + n).st_size == 0 for n in left), left  # made, and never written to
    w.umount()


w = World()
w.init()
works(w.path("vault"), handles=True)  # the same where there are: no warning
ways = 0
for d in ("lower", "upper", "work", "overlay"):
    os.mkdir(w.path(d))
r = subprocess.run(["mount", "-t", "overlay", "overlay", "-o", "lowerdir=%s,upperdir=%s,workdir=%s" % (w.path("lower"), w.path("upper"), w.path("work")), w.path("overlay")],
                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
if r.returncode:
    left_out("over an overlayfs", r.stdout)
else:
    w.mounts.append("overlay")
    ways += 1
    w.cli("init", w.path("overlay", "vault"))
    works(w.path("overlay", "vault"))
shim = os.path.join(BIN, "nohandles.so")
if os.path.exists(shim):
    w.env["LD_PRELOAD"] = shim
    ways += 1
    w.init("other")
    works(w.path("other"))
    at_the_limit(w.path("other"))
else:
    left_out("with file handles refused", "nothing is preloaded into a sanitizer's build")
    if ways:
        at_the_limit(w.path("overlay", "vault"))
if not ways:
    skip("file handles cannot be done without here")
print("ok")
