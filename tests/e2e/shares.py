"""A keyring backup that opens with k of n shares: any k, no fewer, typing errors named, shares of another backup refused."""
import json, os, pty, re, select, subprocess, time
from lib import *

w = World()
w.init()
m = w.mount()
write(os.path.join(m, "s"), dicom_slice(1, 200))
w.umount()


def args(*which, at="shares"):
    return [a for x in which for a in ("--share-file", w.path(at, "share-%d-of-5.txt" % x))]


os.mkdir(w.path("shares")), os.mkdir(w.path("others"))
for bad in ("3", "1/5", "6/5", "3/33", "x/y", "3/5/7"):
    w.fails(2, ["K/N"], "leadglass", "backup", "create", w.path("x.lgk"), "--shares", bad)
w.fails(2, ["either"], "leadglass", "backup", "create", w.path("x.lgk"), "--shares", "3/5", "--passphrase-file", w.passphrase)
assert not os.path.exists(w.path("x.lgk"))
w.cli("backup", "create", w.path("b.lgk"), "--shares", "3/5", "--shares-dir", w.path("shares"))
w.cli("backup", "create", w.path("o.lgk"), "--shares", "3/5", "--shares-dir", w.path("others"))
assert sorted(os.listdir(w.path("shares"))) == ["share-%d-of-5.txt" % i for i in range(1, 6)] and os.stat(w.path("shares", "share-1-of-5.txt")).st_mode & 0o777 == 0o400
# What is in the way stays as it is, and there is no backup that nobody can open.
w.fails(1, ["exists already"], "leadglass", "backup", "create", w.path("c.lgk"), "--shares", "3/5", "--shares-dir", w.path("shares"))
assert not os.path.exists(w.path("c.lgk")) and len(json.loads(w.cli("backup", "list", "--json"))) == 2
for which in ((1, 2, 3), (5, 1, 4), (2, 4, 5), (1, 2, 3, 4, 5)):
    j = json.loads(w.cli("backup", "inspect", w.path("b.lgk"), *args(*which), "--json"))
    assert j["studies"] == 1 and j["bad"] == 0, j
w.fails(3, ["not enough", "any 3 of 5"], "leadglass", "backup", "inspect", w.path("b.lgk"), *args(1, 2))
w.fails(3, ["given already"], "leadglass", "backup", "inspect", w.path("b.lgk"), *args(1, 2, 1))
w.fails(3, ["of another backup", "others/share-3"], "leadglass", "backup", "inspect", w.path("b.lgk"), *args(1, 2), *args(3, at="others"))
w.fails(3, ["no terminal"], "leadglass", "backup", "inspect", w.path("b.lgk"))
w.cli("backup", "create", w.path("pass.lgk"), "--passphrase-file", w.passphrase)
w.fails(3, ["opens with a passphrase, not with shares"], "leadglass", "backup", "inspect", w.path("pass.lgk"), *args(1, 2, 3))
# A typing error: which share, which group.
lines = read(w.path("shares", "share-2-of-5.txt")).decode().split("\n")
assert lines[0].startswith("# share 2 of 5; any 3 open keyring backup ") and len([x for x in lines[1:] if x]) == 10
wrong = lines[7][:-1] + ("0" if lines[7][-1] != "0" else "1")
write(w.path("typed"), "\n".join(lines[:7] + [wrong] + lines[8:]).encode())
w.fails(3, ["typed: group 7 "], "leadglass", "backup", "inspect", w.path("b.lgk"), *args(1, 3), "--share-file", w.path("typed"))
write(w.path("typed"), "\n".join(x.lower().replace("-", " ").replace("0", "o") for x in lines[1:]).encode())
w.cli("backup", "inspect", w.path("b.lgk"), *args(1, 3), "--share-file", w.path("typed"))
# Printed: a page each.
pages = w.cli("backup", "create", w.path("p.lgk"), "--shares", "2/3").split("\f")
assert len(pages) == 3
for i in (0, 2):
    write(w.path("page%d" % i), pages[i].encode())
w.cli("backup", "inspect", w.path("p.lgk"), "--share-file", w.path("page0"), "--share-file", w.path("page2"))
# Drilled with shares, with files of a copy of the vault.
d = json.loads(w.cli("backup", "restore", w.path("b.lgk"), *args(5, 1, 2), "--drill", "--vault", w.path("vault"), "--json"))
assert d["files"] == d["verified"] == 1, d
w.fails(3, ["not enough"], "leadglass", "backup", "restore", w.path("b.lgk"), *args(5, 1), "--drill")


def typed(argv, lines):
    """On a terminal of its own, each line typed when it is asked for."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(argv[0], argv, w.env)
    said, lines, end, answered = b"", list(lines), time.monotonic() + 120, 0
    while time.monotonic() < end:
        if select.select([fd], [], [], 0.2)[0]:
            try:
                b = os.read(fd, 65536)
            except OSError:
                break
            if not b:
                break
            said += b
        if lines and len(said) > answered and re.search(rb"group +\d+ of 10: $", said):
            answered = len(said)
            os.write(fd, (lines.pop(0) + "\n").encode())
    else:
        os.kill(pid, 9)
    rc = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    os.close(fd)
    return rc, said.decode(), lines


def groups(n):
    return [x.split(": ")[1] for x in read(w.path("shares", "share-%d-of-5.txt" % n)).decode().split("\n")[1:] if x]


# Whole lines as they are printed, heading and blank lines with them, and one line begun too early.
page = [read(w.path("shares", "share-%d-of-5.txt" % n)).decode().split("\n") for n in (2, 4, 5)]
sheet = [["", *p[:3], p[4], *p[3:]] for p in page]
assert sheet[0][1].startswith("# share 2 of 5") and sheet[0][2].startswith(" 1: ") and sheet[0][4].startswith(" 4: "), sheet[0]
rc, said, left = typed([os.path.join(BIN, "leadglass"), "backup", "inspect", w.path("b.lgk")], [x for s in sheet for x in s[:-1]])
assert rc == 0 and not left and said.count("that is another group, or mistyped: group 3 is asked for") == 3 and said.count("once more") == 3, (rc, said, left)
# Restored, the shares typed from paper: a group that is mistyped is asked for again, the rest is not.
one = groups(4)
swap = one[:3] + [one[3][:-1] + ("0" if one[3][-1] != "0" else "1")] + one[3:]
rc, said, left = typed([os.path.join(BIN, "leadglass"), "backup", "restore", w.path("b.lgk"), "--keyring", w.path("typed-in"), "--new-passphrase-file", w.passphrase],
                       swap + groups(1) + groups(5))
assert rc == 0 and not left and said.count("mistyped") == 1 and "group 4 is mistyped" in said, (rc, said, left)
assert os.path.exists(w.path("typed-in", "data.mdb"))
# Restored.
w.stop_keyd()
w.cli("backup", "restore", w.path("b.lgk"), *args(2, 3, 5), "--keyring", w.path("again"), "--new-passphrase-file", w.passphrase)
w.ok("leadglass-keyd", "--keyring", w.path("again"))
w.unlock()
m = w.mount()
assert read(os.path.join(m, "s")) == dicom_slice(1, 200)
w.umount()
