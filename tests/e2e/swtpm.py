"""A key manager with the software TPM, for the tests of slots and anchors."""
import shutil, socket, subprocess
from lib import *

for tool in ("swtpm", "tpm2_pcrextend"):
    if not shutil.which(tool):
        skip("%s is not installed (tools/bootstrap)" % tool)


class Tpm:
    """A software TPM; its directory is what makes it that chip. Restarted, it has booted again."""
    def __init__(self, w, name):
        self.w, self.state, self.p = w, w.path(name), None
        os.makedirs(self.state)
        self.start()

    def start(self):
        while True:  # two ports in a row: tpm2-tss looks for the control channel at the next one
            self.port = free_port()
            try:
                hold_port(self.port + 1)
                break
            except (OSError, OverflowError):
                pass
        self.p = self.w.spawn(["swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + self.state, "--server", "type=tcp,port=%d" % self.port,
                               "--ctrl", "type=tcp,port=%d" % (self.port + 1), "--flags", "not-need-init,startup-clear"], stderr=open(self.state + ".err", "ab"))

        def listens():
            assert self.p.poll() is None, "swtpm does not start"
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port + 1)) == 0
        wait_for(listens)
        self.tcti = "swtpm:host=127.0.0.1,port=%d" % self.port

    def stop(self):
        self.w.stop(self.p)

    def reboot(self):
        self.stop()
        self.start()

    def let_go(self):
        """What the kernel's resource manager (/dev/tpmrm0) does when its client was killed; here nobody else does."""
        for kind in ("-t", "-l", "-s"):
            self.tool("tpm2_flushcontext", kind)

    def tool(self, *args):
        return subprocess.run([*args, "-T", self.tcti], check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout


class Server(World):
    """Its key manager stays in the foreground, so that what it logs can be read."""
    def __init__(self):
        super().__init__(start=False)
        self.ok("leadglass-keyd", "--init", "--keyring", self.path("keyring"), "--passphrase-file", self.passphrase, "--scrypt-ms", "20")
        self.log = self.path("log")

    def keyd(self, tcti, wait=True):
        with open(self.log, "wb") as log:
            self.p = self.spawn([os.path.join(BIN, "leadglass-keyd"), "--keyring", self.path("keyring"), "--tpm", tcti, "--foreground"], stderr=log)
        wait_for(lambda: self.run("leadglass", "status").returncode in (0, 15))

    def unlocked(self):
        return self.status()["unlocked"]

    def said(self):
        return read(self.log).decode()

    def stop_keyd(self):
        self.stop(self.p)

    def restart(self, tcti):
        self.stop_keyd()
        self.keyd(tcti)

    def readable(self, path, like):
        wait_for(lambda: subprocess.run(["cmp", "-s", path, like]).returncode == 0)  # a mount finds the key manager again by itself
