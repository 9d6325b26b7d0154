"""Officers for a test: each in an account of their own, with a key of their own, through the command line."""
import json, os, shutil, subprocess
from lib import BIN, write


class Desk:
    """Where their files lie, and a program that their accounts can reach."""

    def __init__(self, w):
        self.w, self.passphrase = w, w.path("desk", "pass")
        os.chmod(w.dir, 0o711)
        shutil.copy(os.path.join(BIN, "leadglass"), w.path("leadglass"))
        os.chmod(w.path("leadglass"), 0o755)
        os.makedirs(w.path("desk"))
        os.chmod(w.path("desk"), 0o1777)
        write(self.passphrase, b"officer\n")
        os.chmod(self.passphrase, 0o644)

    def officer(self, name, uid):
        return Officer(self, name, uid)

    def two(self):
        """A security officer Sam and a retention officer Ruth, registered: officer mode."""
        both = self.officer("sec", 40001), self.officer("ret", 40002)
        for o, name, role in ((both[0], "Sam", "security-officer"), (both[1], "Ruth", "retention-officer")):
            o.ok("officer", "keygen", o.key, "--passphrase-file", self.passphrase)
            self.w.cli("officer", "add", name, "--role", role, "--key", o.key + ".pub", "--account", str(o.uid), "--reason", "appointed")
        return both


class Officer:
    def __init__(self, desk, name, uid):
        self.desk, self.w, self.name, self.uid, self.key = desk, desk.w, name, uid, desk.w.path("desk", name)

    def run(self, *args):
        return subprocess.run([self.w.path("leadglass"), *args], env=dict(self.w.env, HOME="/"), user=self.uid, group=self.uid, extra_groups=[], stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, timeout=600, cwd="/")

    def ok(self, *args):
        r = self.run(*args)
        assert r.returncode == 0, (self.name, args, r.returncode, r.stdout, r.stderr)
        return r.stdout

    def signed(self, *args):
        return (*args, "--sign", self.key, "--passphrase-file", self.desk.passphrase, "--yes")

    def act(self, *args):
        return json.loads(self.ok(*self.signed(*args), "--json"))

    def refused(self, words, *args, code=16):
        r = self.run(*self.signed(*args))
        assert r.returncode == code and words in r.stderr, (self.name, args, r.returncode, r.stdout, r.stderr)
