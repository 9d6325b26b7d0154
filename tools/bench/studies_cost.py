"""What the number of studies costs a mount: for each number, a keyring that knows so many, and slices of 800 of them, one each, spread over all: made, then their first 16 KiB read after
the key manager and the mount were started anew, so that every file's key is looked up in the keyring. Files a second, and processor time of mount and key manager for one.

    studies_cost.py BIN [STUDIES...]

BIN: where the leadglass programs and keyring_bench are. Default: 1000 10000 100000 1000000, the last of which wants 1.5 GB in /dev/shm. Needs root."""
import os, shutil, struct, subprocess, sys, tempfile, time

SLICES, BYTES = 800, 64 * 1024


def slice_of(study):
    def el(group, element, vr, value):
        value += b"\0" * (len(value) % 2)
        return struct.pack("<HH", group, element) + vr + (b"\0\0" + struct.pack("<I", len(value)) if vr in (b"OB", b"OW") else struct.pack("<H", len(value))) + value
    meta = el(2, 1, b"OB", b"\0\1") + el(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    body = el(8, 0x18, b"UI", b"1.2.3.%d" % study) + el(0x20, 0xd, b"UI", b"1.2.840.113619.2.55.3.%d" % study)  # as keyring_bench names them
    return b"\0" * 128 + b"DICM" + el(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body + el(0x7fe0, 0x10, b"OW", b"\x5a" * BYTES)


class Store:
    def __init__(self, binaries, studies):
        self.bin = binaries
        self.top = tempfile.mkdtemp(prefix="lg-studies-", dir="/dev/shm")
        self.env = dict(os.environ, LEADGLASS_SOCKET=self.top + "/keyd.sock")
        self.mnt, self.secret, self.keyd = self.top + "/mnt", self.top + "/secret", None
        os.mkdir(self.mnt)
        with open(self.secret, "w") as f:
            f.write("bench\n")
        self.run("keyring_bench", self.top, str(studies))

    def run(self, program, *args):
        with open(self.top + "/log", "a") as log:  # not a pipe: a daemon left behind would hold it open
            subprocess.run([os.path.join(self.bin, program), *args], env=self.env, check=True, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self):
        self.keyd = subprocess.Popen([self.bin + "/leadglass-keyd", "--keyring", self.top + "/bench", "--foreground"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not os.path.exists(self.env["LEADGLASS_SOCKET"]):
            time.sleep(0.02)
        self.run("leadglass", "unlock", "--passphrase-file", self.secret)

    def mount(self):
        self.run("leadglass", "mount", self.top + "/vault", self.mnt)

    def stop(self):
        if os.path.ismount(self.mnt):
            self.run("leadglass", "umount", self.mnt)
        if self.keyd:
            self.keyd.terminate()
            self.keyd.wait()

    def used(self):
        seconds = 0
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open("/proc/%s/cmdline" % pid, "rb") as c:
                    if self.top.encode() in c.read():
                        seconds += time.clock_gettime((~int(pid) << 3) | 2)  # the clock of a process: clock_getcpuclockid(3)
            except (FileNotFoundError, ProcessLookupError, OSError):
                pass
        return seconds


def timed(store, each, what):
    before, t = store.used(), time.monotonic()
    for x in what:
        each(x)
    t = time.monotonic() - t
    return len(what) / t, (store.used() - before) * 1e6 / len(what)


def of(binaries, n):
    """For n studies: files made a second and processor time of one in microseconds; the same of reading."""
    s = Store(binaries, n)
    try:
        studies = [100 + i * (n - 100) // SLICES for i in range(SLICES)]
        studies = [x - n // 2 if n // 2 <= x < n // 2 + 100 else x for x in studies]  # those in the middle keyring_bench destroys

        def make(study):
            with open("%s/%d.dcm" % (s.mnt, study), "wb") as f:
                f.write(slice_of(study))

        def head(study):
            with open("%s/%d.dcm" % (s.mnt, study), "rb", buffering=0) as f:
                assert f.read(16384)[128:132] == b"DICM"

        s.start()
        s.run("leadglass", "init", s.top + "/vault")
        s.mount()
        made = timed(s, make, studies)
        s.stop()
        s.start()
        s.mount()
        return made, timed(s, head, studies)
    finally:
        s.stop()
        shutil.rmtree(s.top, ignore_errors=True)


if __name__ == "__main__":
    print("| studies | slices made/s | processor time, us | first 16 KiB/s, cold | processor time, us |\n|---|---|---|---|---|")
    for number in [int(n) for n in sys.argv[2:]] or [1000, 10000, 100000, 1000000]:
        made, head = of(os.path.realpath(sys.argv[1]), number)
        print("| %d | %.0f | %.0f | %.0f | %.0f |" % (number, *made, *head), flush=True)
