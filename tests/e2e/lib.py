"""What the end-to-end tests share: a key manager, vaults and mounts of their own in a temporary directory, taken away whatever happens."""
import atexit, errno, fcntl, json, os, random, re, shutil, signal, socket, struct, subprocess, sys, tempfile, time, warnings

warnings.filterwarnings("ignore")
BIN = os.path.abspath(os.environ["LG_BIN"])
SANITIZED = any(x in open(os.path.join(BIN, "leadglass-fs"), "rb").read() for x in (b"__asan_init", b"__tsan_init"))
SKIP = 77


def skip(reason):
    print("SKIPPED:", reason)
    sys.exit(SKIP)


def left_out(what, why):
    """A part of a test that cannot run here; tools/check gathers these lines."""
    print("left out: %s: %s" % (what, " ".join(str(why).split())), flush=True)


def need_fuse():
    if os.geteuid() != 0:
        skip("needs root")
    if not os.path.exists("/dev/fuse"):
        skip("/dev/fuse is missing")


RING = "/sys/module/fuse/parameters/enable_uring"


def ring_missing(note="/run/leadglass-test-ring"):
    """FUSE over io_uring until this test ends: why it cannot be had, or nothing. Tests run side by side: who finds the kernel's switch off notes that and turns it on,
    all who need it on hold the note, and the last of them puts it back."""
    if not os.path.exists(RING):
        return "the kernel does not know FUSE over io_uring"
    held = os.open(note, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    fcntl.flock(held, fcntl.LOCK_SH)
    if read(RING)[:1] != b"Y":
        try:
            os.pwrite(held, b"off", 0)
            write(RING, b"Y")
        except OSError as e:
            return "it is switched off, and cannot be switched on: %s" % e

    def put_back():
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return  # others still need it: they let go of what they hold in the same way, and one of them is the last
        if os.pread(held, 3, 0) == b"off":
            write(RING, b"N")
            os.ftruncate(held, 0)

    atexit.register(put_back)
    return None


def data_files():
    import pydicom
    top = os.path.join(os.path.dirname(pydicom.__file__), "data")
    return sorted(os.path.join(d, f) for d, _, fs in os.walk(top) for f in fs if not f.endswith((".py", ".pyc")))


def hold_port(port=0):
    """Bound and not listening, for as long as this test runs: nobody else is given it, no connection begins there, and a server that sets SO_REUSEADDR (all do) can have it."""
    s = socket.socket()
    s.bind(("127.0.0.1", port))
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    held_ports.append(s)
    return s.getsockname()[1]


held_ports = []


def free_port():
    return hold_port()


def wait_for(what, seconds=180):
    """Until what() is true; so long that it ends sooner only where something is wrong, on a machine that others load as well."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            raise AssertionError("not within %d s" % seconds)
        time.sleep(0.05)


def raises(code, f, *a):
    try:
        f(*a)
    except OSError as e:
        assert e.errno == code, (errno.errorcode.get(e.errno), "expected", errno.errorcode[code])
        return
    raise AssertionError("no error; expected " + errno.errorcode[code])


def read(path):
    with open(path, "rb") as f:
        return f.read()


def write(path, data):
    with open(path, "wb") as f:
        f.write(data)


def append_uncommitted(fd, below, chunks):
    """Appends whole chunks; they stand in the file below before any commit names them. The file as it is then, and what was committed of earlier tries: by a timer, on a slow machine."""
    committed = b""
    while True:
        before, more = read(below), chunks()
        os.write(fd, more)
        half = read(below)
        if half[:1536] == before[:1536]:  # header and commit slots: docs/FORMAT.md
            assert len(half) == len(before) + len(more), (len(before), len(more), len(half))
            return half, committed
        os.fsync(fd)
        committed += more


def el(g, e, vr, v):
    """A DICOM element: explicit VR little endian."""
    v += b"\0" * (len(v) % 2)
    return struct.pack("<HH", g, e) + vr + (b"\0\0" + struct.pack("<I", len(v)) if vr in (b"OB", b"OW") else struct.pack("<H", len(v))) + v


def dicom_of(n, size, patient=b"", date=b""):
    """A file of study 1.2.n with no image in it."""
    meta = el(2, 1, b"OB", b"\0\1") + el(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    who = (el(8, 0x20, b"DA", date) if date else b"", el(0x10, 0x20, b"LO", patient) if patient else b"")
    return b"\0" * 128 + b"DICM" + el(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + el(8, 0x18, b"UI", b"1.9.%d" % n) + who[0] + who[1] + el(0x20, 0xd, b"UI", b"1.2.%d" % n) + b"x" * size


def dicom_slice(seed, size):
    """A slice of one of a few studies per seed."""
    r = random.Random(seed)
    study = b"1.2.826.0.1.%d" % (seed % 97)
    meta = el(2, 1, b"OB", b"\0\1") + el(2, 0x10, b"UI", b"1.2.840.10008.1.2.1")
    body = el(8, 0x16, b"UI", b"1.2.840.10008.5.1.4.1.1.2") + el(8, 0x18, b"UI", b"1.2.3.%d" % seed) + el(0x20, 0xd, b"UI", study) + el(0x20, 0xe, b"UI", study + b".1")
    return b"\0" * 128 + b"DICM" + el(2, 0, b"UL", struct.pack("<I", len(meta))) + meta + body + el(0x7fe0, 0x10, b"OW", r.randbytes(size))


worlds = []


def tell_logs(*failure):
    """A test that fails shows the last of what its daemons said, and of what stands in its other logs."""
    sys.__excepthook__(*failure)
    for w in worlds:
        for f in sorted(os.listdir(w.dir)) if os.path.isdir(w.dir) else []:
            if re.search(r"^(daemons|stderr|said.*|log\d*|pglog)$|\.(err|log)$", f) and os.path.isfile(w.path(f)):
                said = read(w.path(f)).decode(errors="replace").splitlines()
                print("\n---- %s, %d lines%s" % (f, len(said), ", the last 40" if len(said) > 40 else ""), *said[-40:], sep="\n", file=sys.stderr)
    sys.stderr.flush()


sys.excepthook = tell_logs


class World:
    def __init__(self, start=True, under="/dev/shm"):
        need_fuse()
        missing = os.environ.get("LG_TRANSPORT") == "uring" and ring_missing()
        if missing:
            skip("over io_uring: " + missing)
        worlds.append(self)
        self.dir = tempfile.mkdtemp(prefix="lg-e2e-", dir=under if os.path.isdir(under) else None)
        self.socket = self.path("keyd.sock")
        # What a sanitizer says of a daemon must not be lost with its standard error.
        self.env = dict(os.environ, LEADGLASS_SOCKET=self.socket, TSAN_OPTIONS="log_path=" + self.path("sanitizer"),
                        ASAN_OPTIONS="detect_leaks=0:log_path=" + self.path("sanitizer"), UBSAN_OPTIONS="print_stacktrace=1:log_path=" + self.path("sanitizer"))
        self.mounts, self.children = [], []
        self.passphrase = self.path("passphrase")
        write(self.passphrase, b"correct horse\n")
        atexit.register(self.close)
        if start:
            self.ok("leadglass-keyd", "--init", "--keyring", self.path("keyring"), "--passphrase-file", self.passphrase, "--scrypt-ms", "20")
            self.keyd()
            self.unlock()

    def path(self, *p):
        return os.path.join(self.dir, *p)

    def run(self, program, *args, **kw):
        argv = [os.path.join(BIN, program), *args]
        env, preload = self.env, self.env.get("LD_PRELOAD", "").split(":") if self.env.get("LD_PRELOAD") else []
        if program == "leadglass-keyd" and os.environ.get("LG_VALGRIND"):  # see docs/TESTING.md
            argv = ["valgrind", "-q", "--trace-children=yes", "--leak-check=full", "--show-leak-kinds=definite", "--log-file=" + self.path("sanitizer.%p"), *argv]
            preload.append("execself.so")
        if program == "leadglass-keyd" or "mount" in args[:1]:  # daemons: what they say to syslog is kept
            preload.append("saylog.so")
        preload = [p for p in (os.path.join(BIN, x) for x in preload) if os.path.exists(p)]  # what the environment names has its own path
        if preload:
            env = dict(env, LD_PRELOAD=":".join(preload), LG_SAYS=self.path("daemons"))
        return subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                              stdin=subprocess.DEVNULL, timeout=600, **kw)

    def ok(self, program, *args):
        r = self.run(program, *args)
        assert r.returncode == 0, (program, args, r.returncode, r.stdout, r.stderr)
        return r.stdout

    def cli(self, *args):
        return self.ok("leadglass", *args)

    def fails(self, code, words, program, *args):
        r = self.run(program, *args)
        assert r.returncode == code, (program, args, "expected", code, "got", r.returncode, r.stdout, r.stderr)
        for w in words:
            assert w in r.stderr, (w, "not in", r.stderr)
        return r.stderr

    def keyd(self):
        self.ok("leadglass-keyd", "--keyring", self.path("keyring"))

    def unlock(self):
        self.cli("unlock", "--passphrase-file", self.passphrase)

    def wrong(self, *args):
        """A wrong passphrase, tried once the pause after the last one is over."""
        said = []

        def tried():
            said[:] = [self.run("leadglass", *args)]
            return "not tried" not in said[0].stderr
        wait_for(tried)
        assert said[0].returncode == 3 and "wrong passphrase" in said[0].stderr, said[0]
        return said[0].stderr

    def early(self, wrong, right):
        """Just after a wrong passphrase the right one is not tried. Where that comes too late, more wrong ones have made the pause longer. Returns how many it took."""
        for n in range(1, 8):
            for _ in range(n):
                self.wrong("unlock", "--passphrase-file", wrong)
            r = self.run("leadglass", "unlock", "--passphrase-file", right)
            if r.returncode:
                assert r.returncode == 3 and "not tried" in r.stderr, r
                return n
            self.cli("lock")
        raise AssertionError("the right one was tried always")

    def asked(self, *args):
        """What a command that only looks says, as JSON. It gives up after 10 s; on a machine where the key manager is busy for as long it asks again."""
        said = []

        def answered():
            said[:] = [self.run("leadglass", *args, "--json")]
            return "did not answer in time" not in said[0].stderr
        wait_for(answered)
        assert said[0].returncode == 0, (args, said[0])
        return json.loads(said[0].stdout)

    def status(self):
        return self.asked("status")

    def recorded(self):
        """What the key manager has put into its log until now stands in the file: that the log is read is recorded before it may be, and records keep their order."""
        self.cli("audit", "query", "--limit", "1")

    def cut(self):
        """What the kernel may answer for a request that its daemon's death cut off: while the daemon lives, to learn the transport."""
        for m in self.status()["mounts"]:
            os.stat(m["mountpoint"])  # the kernel and the daemon have agreed by now
        ring = [m for m in self.status()["mounts"] if m["transport"] == "uring"]
        # On its way to a ring whose thread dies (ECANCELED), or just being copied there: a page of a dying process is not faulted in any more, and the kernel passes on
        # what it has for that as the answer (EINTR: fs/fuse/dev_uring.c, fuse_uring_prepare_send; "Copy to ring failed: -4" in its log).
        return (errno.ENOTCONN, errno.ECONNABORTED, errno.EIO) + ((errno.ECANCELED, errno.EINTR) if ring else ())

    def init(self, name="vault"):
        self.cli("init", self.path(name))
        return self.path(name)

    def mount(self, vault="vault", at="mnt", *opts):
        try:
            os.makedirs(self.path(at), exist_ok=True)
        except FileExistsError:
            pass  # a mount whose daemon is gone
        if os.environ.get("LG_TRANSPORT") and not any("transport=" in o for o in opts):  # any test over the other transport: see docs/TESTING.md
            opts += ("-o", "transport=" + os.environ["LG_TRANSPORT"])
        r = self.run("leadglass", "mount", *opts, self.path(vault), self.path(at))
        if os.environ.get("LG_TRANSPORT") == "uring" and ("the system's libfuse" in r.stderr or "the system refuses io_uring" in r.stderr):
            skip("over io_uring: " + r.stderr.strip())
        assert r.returncode == 0, (r.args, r.returncode, r.stdout, r.stderr)
        if at not in self.mounts:
            self.mounts.append(at)
        return self.path(at)

    def gated(self):
        """The directories source and lower: what is done in lower can be held up, by files in gates (gatefs.c), and is then in source."""
        for d in ("lower", "source", "gates"):
            os.mkdir(self.path(d))
        r = subprocess.run([os.path.join(BIN, "gatefs"), self.path("source"), self.path("gates"), self.path("lower")])
        assert r.returncode == 0, "gatefs"
        self.mounts.append("lower")

    def umount(self, at="mnt"):
        self.cli("umount", self.path(at))
        self.mounts.remove(at)

    def remount(self, vault="vault", at="mnt"):
        self.umount(at)
        return self.mount(vault, at)

    def pid_of(self, at="mnt"):
        return next(m["pid"] for m in self.status()["mounts"] if m["mountpoint"] == self.path(at))

    def spawn(self, argv, **kw):
        p = subprocess.Popen(argv, env=self.env, **kw)
        self.children.append(p)
        return p

    def stop(self, p):
        p.terminate()
        p.wait(180)
        self.children.remove(p)

    def keyd_pids(self):
        out = subprocess.run(["pgrep", "-f", "leadglass-keyd.*" + self.dir], stdout=subprocess.PIPE, text=True).stdout
        return [int(x) for x in out.split()]

    def stop_keyd(self):
        for x in self.keyd_pids():
            try:
                os.kill(x, signal.SIGTERM)
            except ProcessLookupError:
                pass  # a worker goes with its supervisor
        wait_for(lambda: not self.keyd_pids())

    def close(self):
        if not os.path.isdir(self.dir):
            return
        for p in self.children:
            p.kill()
            p.wait()
        for at in self.mounts:
            subprocess.run(["umount", "-l", self.path(at)], stderr=subprocess.DEVNULL)
        time.sleep(0.2)
        subprocess.run(["pkill", "-TERM", "-f", "leadglass-(keyd|fs).*" + self.dir], stderr=subprocess.DEVNULL)
        for _ in range(300 if os.environ.get("LG_VALGRIND") else 3):  # valgrind looks for leaks first
            time.sleep(0.1)
            if not self.keyd_pids():
                break
        subprocess.run(["pkill", "-KILL", "-f", "leadglass-(keyd|fs).*" + self.dir], stderr=subprocess.DEVNULL)
        said = [read(self.path(f)).decode(errors="replace") for f in os.listdir(self.dir) if f.startswith("sanitizer")]
        said = [x for x in said if not all(l.startswith("--") for l in x.splitlines())]  # so valgrind tells of system calls that it does not know
        shutil.rmtree(self.dir, ignore_errors=True)
        if said:
            print("\n".join(said))
            sys.stdout.flush()
            os._exit(1)

    def assert_nothing_readable(self, words):
        """No name, identifier, file name or DICOM mark in any byte or name below, in the keyring or in the slot file."""
        # The mark and the group that follows it (DICOM PS3.10): four bytes alone stand in 30 MiB of ciphertext once in 140 times by chance.
        words = {w if isinstance(w, bytes) else w.encode() for w in words if len(w) > 5} | {b"DICM\2\0"}
        seen = 0
        for top in [p for p in os.listdir(self.dir) if p.startswith(("vault", "keyring"))]:
            for d, dirs, files in os.walk(self.path(top)) if os.path.isdir(self.path(top)) else [(self.dir, [], [top])]:
                for name in dirs + files:
                    p = os.path.join(d, name)
                    body = name.encode() + b"\n" + (os.readlink(p).encode() if os.path.islink(p) else b"" if os.path.isdir(p) else read(p))
                    seen += 1
                    for w in words:
                        assert w not in body, (w, "stands in", p)
        assert seen > 5
        return seen
