"""Slots sealed to a TPM, with the software TPM over its socket: a server starts unattended, and nothing opens on another machine."""
import errno, json, os, shutil, socket, subprocess
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
        for _ in range(20):  # two ports in a row: tpm2-tss looks for the control channel at the next one
            self.port = free_port()
            self.p = self.w.spawn(["swtpm", "socket", "--tpm2", "--tpmstate", "dir=" + self.state, "--server", "type=tcp,port=%d" % self.port,
                                   "--ctrl", "type=tcp,port=%d" % (self.port + 1), "--flags", "not-need-init,startup-clear"], stderr=subprocess.DEVNULL)
            for _ in range(100):
                if self.p.poll() is not None:
                    break
                try:
                    socket.create_connection(("127.0.0.1", self.port + 1)).close()
                    self.tcti = "swtpm:host=127.0.0.1,port=%d" % self.port
                    return
                except OSError:
                    time.sleep(0.05)
            self.w.children.remove(self.p)
        raise AssertionError("swtpm does not start")

    def stop(self):
        self.w.stop(self.p)

    def reboot(self):
        self.stop()
        self.start()

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


def slots():
    return {s["name"]: s for s in json.loads(w.cli("slot", "list", "--json"))}


def readable():
    wait_for(lambda: subprocess.run(["cmp", "-s", ct, data_files()[0]]).returncode == 0)  # the mount finds the key manager again by itself


w = Server()
here, there = Tpm(w, "tpm-here"), Tpm(w, "tpm-there")
w.keyd(here.tcti)
assert not w.unlocked() and "TPM" not in w.said()  # no slot: the chip is not even asked
w.fails(1, ["no such TPM slot"], "leadglass", "unlock", "--tpm")
w.unlock()
w.init()
m = w.mount()
ct = os.path.join(m, "ct")
write(ct, data := read(data_files()[0]))

# Unattended: the key manager and the whole machine start anew.
w.fails(2, ["PCR"], "leadglass", "slot", "add", "boot", "--tpm", "--pcrs", "24")
w.fails(2, ["either"], "leadglass", "slot", "add", "boot", "--tpm", "--passphrase-file", w.passphrase)
epoch = w.status()["keyring"]["epoch"]
w.cli("slot", "add", "boot", "--tpm")
assert (slots()["boot"]["type"], slots()["boot"]["proved"]) == ("tpm", True) and w.status()["keyring"]["epoch"] == epoch
w.cli("slot", "test", "boot", "--tpm")
w.fails(1, ["no such TPM slot"], "leadglass", "slot", "test", "passphrase", "--tpm")
old = read(w.path("keyring.root"))
for _ in range(2):
    w.stop_keyd()
    here.reboot()
    w.keyd(here.tcti)
    assert w.unlocked() and "by itself" in w.said(), w.said()
    readable()

# Locked on purpose it stays locked, also when the worker dies or is started anew; only another start of the key manager opens it.
wait_for(lambda: w.status()["mounts"])  # it has come back by itself
w.cli("lock")
raises(errno.ENOKEY, read, ct)
worker = w.status()["pid"]
os.kill(worker, signal.SIGKILL)
wait_for(lambda: w.run("leadglass", "status").returncode == 0 and w.status()["pid"] != worker)
assert not w.unlocked()
w.cli("unlock", "--tpm")
readable()

# A TPM slot is never the last that counts, removed or changed into.
w.fails(1, ["last slot"], "leadglass", "slot", "remove", "passphrase")
w.fails(1, ["last slot"], "leadglass", "slot", "change", "passphrase", "--tpm")
assert slots()["passphrase"]["type"] == "passphrase"

# Another machine, no machine, one whose TPM was cleared.
for tcti, words in ((there.tcti, "another machine's TPM"), ("swtpm:host=127.0.0.1,port=1", "no TPM answers"), ("nonsense:x", "no TPM answers")):
    w.restart(tcti)
    assert not w.unlocked() and words in w.said() and "leadglass unlock" in w.said(), w.said()
    w.fails(1, ["TPM"], "leadglass", "unlock", "--tpm")
    w.unlock()  # a TPM's refusal counts as nobody's wrong guess
    w.cli("slot", "list")
w.restart("off")
assert not w.unlocked() and "TPM" not in w.said()
w.fails(1, ["no TPM"], "leadglass", "unlock", "--tpm")
w.unlock()
w.fails(1, ["no TPM"], "leadglass", "slot", "add", "x", "--tpm")

# PCRs: as they were, else not; sealed anew they count again.
w.restart(here.tcti)
w.cli("slot", "change", "boot", "--tpm", "--pcrs", "sha256:7,12")
w.restart(here.tcti)
assert w.unlocked()
here.tool("tpm2_pcrextend", "12:sha256=" + "11" * 32)
w.restart(here.tcti)
assert not w.unlocked() and "PCRs are not as they were" in w.said(), w.said()
w.fails(1, ["PCRs"], "leadglass", "unlock", "--tpm")
w.unlock()
w.cli("slot", "change", "boot", "--tpm", "--pcrs", "sha256:7,12")
w.restart(here.tcti)
assert w.unlocked()

# One slot for each of two machines: each finds its own.
w.restart(there.tcti)
w.unlock()
w.cli("slot", "add", "standby", "--tpm")
for t in (here, there):
    w.restart(t.tcti)
    assert w.unlocked(), w.said()

# Removed: the machine opens nothing of what comes, neither with a slot file from before.
epoch = w.status()["keyring"]["epoch"]
w.cli("slot", "remove", "standby")
assert w.status()["keyring"]["epoch"] == epoch + 1 and sorted(slots()) == ["boot", "passphrase"]
w.restart(there.tcti)
assert not w.unlocked() and "another machine's TPM" in w.said()
w.stop_keyd()
now = read(w.path("keyring.root"))
write(w.path("keyring.root"), old)
w.keyd(here.tcti)
assert not w.unlocked() and "older" in w.said(), w.said()
w.stop_keyd()

# A slot whose sealed bytes were altered (the damage hash made good) opens nothing, and the passphrase is refused too: the file is not ours.
import hashlib
at = now.index(b"boot") + 4 + 16 + 2 + 60
bad = now[:at] + bytes([now[at] ^ 1]) + now[at + 1:-32]
write(w.path("keyring.root"), bad + hashlib.sha256(bad).digest())
w.keyd(here.tcti)
assert not w.unlocked(), w.said()
assert w.run("leadglass", "unlock", "--passphrase-file", w.passphrase).returncode != 0
w.stop_keyd()
write(w.path("keyring.root"), now)
w.keyd(here.tcti)
assert w.unlocked()
w.umount()
w.stop_keyd()
print("ok")
