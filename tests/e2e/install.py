"""What is installed is complete and fits together: programs, man pages, units and configuration below DESTDIR, for two prefixes."""
import os, re, shutil, subprocess, sys, tempfile
from lib import RING, left_out, need_fuse, wait_for

BUILD, CMAKE = sys.argv[1:3]
SOURCE = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
need_fuse()
top = tempfile.mkdtemp(prefix="lg-install-")


def tree(prefix, keep=None):
    dest = os.path.join(top, prefix.strip("/").replace("/", "-"))
    if keep:
        os.makedirs(os.path.join(dest, "etc/leadglass"))
        with open(os.path.join(dest, "etc/leadglass/audit.conf"), "w") as f:
            f.write(keep)
    subprocess.run([CMAKE, "--install", BUILD, "--prefix", prefix], env=dict(os.environ, DESTDIR=dest), check=True, stdout=subprocess.DEVNULL)
    return dest, {os.path.relpath(os.path.join(d, f), dest) for d, _, fs in os.walk(dest) for f in fs}


def run(*argv, **kw):
    return subprocess.run(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **kw)


try:
    dest, files = tree("/usr")
    units = {"leadglass-keyd", "leadglass-mount@", "leadglass-watch", "leadglass-export"}
    want = {"usr/bin/leadglass", "usr/sbin/leadglass-keyd", "usr/sbin/leadglass-fs", "etc/leadglass/audit.conf", "usr/share/man/man1/leadglass.1", "usr/share/man/man8/leadglass-keyd.8",
            "usr/share/man/man8/leadglass-fs.8", "usr/share/man/man5/leadglass-audit.conf.5", "usr/share/doc/leadglass/README.md", "usr/share/doc/leadglass/LICENSE",
            "usr/share/doc/leadglass/AUDIT.md", "usr/share/doc/leadglass/examples/audit.conf", "usr/lib/modprobe.d/leadglass.conf", "usr/lib/tmpfiles.d/leadglass.conf"} | {"usr/lib/systemd/system/%s.service" % u for u in units}
    assert want <= files, want - files
    strange = {f for f in files if not re.match(r"usr/s?bin/leadglass|usr/lib/systemd/system/leadglass|usr/lib/(modprobe|tmpfiles).d/leadglass\.conf$|usr/share/man/man[158]/leadglass|usr/share/doc/leadglass/|etc/leadglass/", f)}
    assert not strange, strange

    # The programs of a release can be loaded anywhere, and what they are linked with cannot be written over while they run.
    with open(os.path.join(BUILD, "CMakeCache.txt")) as f:
        release = "\nCMAKE_BUILD_TYPE:STRING=Release\n" in f.read()
    for program in ("usr/bin/leadglass", "usr/sbin/leadglass-keyd", "usr/sbin/leadglass-fs") if release else ():
        r = run("readelf", "-hldW", os.path.join(dest, program))
        for sign in (r"Type:\s+DYN\b", r"\bGNU_RELRO\b", r"\bBIND_NOW\b", r"\bGNU_STACK\b.* RW +0x"):
            assert re.search(sign, r.stdout), (program, sign, r.stdout)

    # Units name programs that are there, and options that these have.
    for u in units:
        with open(os.path.join(dest, "usr/lib/systemd/system/%s.service" % u)) as f:
            text = f.read()
        for exe, rest in re.findall(r"^Exec(?:Start|Stop)=(\S+)(.*)$", text, re.M):
            assert exe.lstrip("/") in files, (u, exe)
            help = run(dest + exe, *([x for x in rest.split() if re.fullmatch("[a-z]+", x)][:2] if exe.endswith("/leadglass") else []), "--help").stdout
            for option in re.findall(r"--[a-z-]+", rest):
                assert option in help, (u, exe, option, help)
    if shutil.which("systemd-analyze"):
        out = run("systemd-analyze", "verify", "--root=" + dest, *["%s.service" % u for u in units if "@" not in u]).stdout
        assert "leadglass" not in out or "Unknown" not in out, out
    else:
        left_out("systemd's own look at the units", "systemd-analyze is not installed")

    # FUSE over io_uring is switched on at boot, as a module's option and where it is built in: by the name that leadglass-fs looks at.
    module, parameter = re.fullmatch(r"/sys/module/(\w+)/parameters/(\w+)", RING).groups()

    def lines(f):
        with open(os.path.join(dest, "usr/lib", f)) as t:
            return [l.split() for l in t if l.strip() and not l.startswith("#")]

    assert lines("modprobe.d/leadglass.conf") == [["options", module, parameter + "=1"]] and lines("tmpfiles.d/leadglass.conf") == [["w", RING, "-", "-", "-", "-", "Y"]]
    with open(os.path.join(SOURCE, "fs/front/ring.c")) as f:
        assert RING in f.read()
    if shutil.which("systemd-tmpfiles"):
        for knows in (True, False):
            switch = dest + RING
            os.makedirs(os.path.dirname(switch), exist_ok=True)
            if knows:
                with open(switch, "w") as f:
                    f.write("N\n")
            r = run("systemd-tmpfiles", "--root=" + dest, "--create", "leadglass.conf")
            assert r.returncode == 0, r
            if knows:
                with open(switch) as f:
                    assert f.read().strip()[:1] == "Y"
                os.unlink(switch)
            else:  # an older kernel
                assert not os.path.exists(switch)
    else:
        left_out("what systemd makes of tmpfiles.d", "systemd-tmpfiles is not installed")

    # The configuration is the one that holds without it; the command finds the others beside it.
    assert run(dest + "/usr/bin/leadglass", "audit", "watch", "--check", "--config", dest + "/etc/leadglass/audit.conf").returncode == 0
    lg, keyd = dest + "/usr/bin/leadglass", dest + "/usr/sbin/leadglass-keyd"
    env = {"PATH": "/nowhere", "LEADGLASS_SOCKET": top + "/keyd.sock"}
    with open(top + "/secret", "w") as f:
        f.write("correct horse\n")
    secret = ["--passphrase-file", top + "/secret"]
    os.mkdir(top + "/mnt")
    quiet = dict(env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    subprocess.run([keyd, "--keyring", top + "/keyring", "--init", "--scrypt-ms", "20"] + secret, **quiet)
    server = subprocess.Popen([keyd, "--keyring", top + "/keyring", "--foreground"], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: run(lg, "status", env=env).returncode == 0)
        subprocess.run([lg, "unlock"] + secret, **quiet)
        subprocess.run([lg, "init", top + "/vault"], **quiet)
        subprocess.run([lg, "mount", top + "/vault", top + "/mnt"], **quiet)
        with open(top + "/mnt/x", "w") as f:
            f.write("x")
        subprocess.run([lg, "umount", top + "/mnt"], **quiet)
        os.rename(dest + "/usr/sbin", dest + "/usr/away")
        r = run(lg, "mount", top + "/vault", top + "/mnt", env=env)
        assert r.returncode and "not found beside" in r.stdout, r.stdout
    finally:
        server.terminate()
        server.wait()

    # Man pages: complete, and nothing that the formatter complains of.
    pages = sorted(f for f in files if "/man/" in f)
    for p in pages:
        path = os.path.join(dest, p)
        with open(path) as f:
            text = f.read()
        name, section = os.path.basename(p).rsplit(".", 1)
        assert re.search(r"^\.TH %s %s " % (re.escape(name.upper()), section), text, re.M), p
        assert all(re.search(r"^\.SH \"?%s" % s, text, re.M) for s in ("NAME", "SYNOPSIS", "DESCRIPTION|^\\.SH COMMANDS")), p
        if shutil.which("mandoc"):
            out = run("mandoc", "-Tlint", "-Werror", path)
            assert out.returncode == 0, out.stdout
        if shutil.which("groff"):
            out = subprocess.run(["groff", "-man", "-ww", "-Tutf8", "-z", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            assert out.returncode == 0 and not out.stderr, (p, out.stderr)
        for other, s in re.findall(r"^\.BR (leadglass[a-z.-]*) \((\d)\)", text, re.M):
            assert "usr/share/man/man%s/%s.%s" % (s, other, s) in files, (p, "refers to", other, s)

    # What --help names is in the man page, and what the program takes is in its --help.
    def option(name, text):
        return re.search(r"(?<![\w-])%s(?![\w-])" % re.escape(name), text)

    def man(*names):
        return " ".join(re.sub(r"\\f.|\\&|\"", "", open(os.path.join(dest, "usr/share/man/man" + n[-1], n)).read()).replace("\\-", "-") for n in names)

    def own(help):
        """The options at the beginning of their lines, with what stands beside them there."""
        return {o for line in re.findall(r"^  (-.*?)(?:  |$)", help, re.M) for o in re.findall(r"(?<![\w-])--?[a-z][a-z-]*", line)}

    OTHERS = {"study": "leadglass-study.1", "scrub": "leadglass-scrub.1", "officer": "leadglass-officer.1", "request": "leadglass-officer.1", "policy": "leadglass-officer.1",
              "clock": "leadglass-officer.1", "audit": "leadglass-audit.conf.5"}
    helps = {(): (run(lg, "--help").stdout, man("leadglass.1"))}
    for c in re.findall(r"^  ([a-z]+) ", helps[()][0], re.M):
        helps[(c,)] = run(lg, c, "--help").stdout, man("leadglass.1", *([OTHERS[c]] if c in OTHERS else []))
    assert set(OTHERS) <= {c[0] for c in helps if c}, set(OTHERS) - {c[0] for c in helps if c}
    helps["keyd"], helps["fs"] = (run(dest + "/usr/away/leadglass-keyd", "--help").stdout, man("leadglass-keyd.8")), (run(dest + "/usr/away/leadglass-fs", "--help").stdout, man("leadglass-fs.8"))
    missing, seen = [], 0
    for who, (help, page) in helps.items():
        names = own(help)
        if who == "fs":  # -o's words as well
            words = re.search(r"^  -o opt,\.\.\.(.*?)^  --", help, re.M | re.S).group(1)
            names |= set(re.findall(r"(?<![\w(|=])[a-z_]+(?==)|(?<= )_?[a-z_]+(?=[,;.\n])", re.sub(r"\([^)]*\)", "", words)))
        seen += len(names)
        missing += [(who, n) for n in sorted(names) if not option(n, page)]
    assert not missing, ("not in the man page", missing)
    for program, file in (("fs", "fs/front/options.c"), ("keyd", "keymgr/daemon/supervisor.c")):
        with open(os.path.join(SOURCE, file)) as f:
            code = f.read()
        takes = ["--" + o for o in re.findall(r"\{ \"([a-z-]+)\", [01], NULL, ", code) if not o.startswith("worker")] + re.findall(r"(?<=strcmp\(opt, \")\w+(?=\")|(?<=\{ \")audit_\w+(?=\")", code) * (program == "fs")
        assert len(takes) > (40 if program == "fs" else 10), (program, takes)
        unsaid = [o for o in takes if not option(o, helps[program][0])]
        assert not unsaid, (file, "takes", unsaid, "and --help does not say so")
    assert seen > 150, seen

    for tool in ("mandoc", "groff"):
        if not shutil.which(tool):
            left_out("man pages through " + tool, "not installed")

    # Another prefix: the units follow; a configuration that is there stays.
    dest, files = tree("/usr/local", keep="# mine\n")
    assert "usr/local/sbin/leadglass-keyd" in files and "usr/local/lib/systemd/system/leadglass-keyd.service" in files
    with open(os.path.join(dest, "usr/local/lib/systemd/system/leadglass-keyd.service")) as f:
        assert "ExecStart=/usr/local/sbin/leadglass-keyd" in f.read()
    with open(os.path.join(dest, "etc/leadglass/audit.conf")) as f:
        assert f.read() == "# mine\n"
finally:
    shutil.rmtree(top, ignore_errors=True)
print("ok")
