"""Slots sealed to a TPM, with the software TPM over its socket: a server starts unattended, and nothing opens on another machine."""
import errno, hashlib, json, os, subprocess
from swtpm import *


def slots():
    return {s["name"]: s for s in json.loads(w.cli("slot", "list", "--json"))}


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
    w.readable(ct, data_files()[0])

# Locked on purpose it stays locked, also when the worker dies or is started anew; only another start of the key manager opens it.
wait_for(lambda: w.status()["mounts"])  # it has come back by itself
w.cli("lock")
raises(errno.ENOKEY, read, ct)
worker = w.status()["pid"]
os.kill(worker, signal.SIGKILL)
wait_for(lambda: w.run("leadglass", "status").returncode == 0 and w.status()["pid"] != worker)
assert not w.unlocked()
w.cli("unlock", "--tpm")
w.readable(ct, data_files()[0])

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
# Anchoring looks for it before anything is asked; so does giving up, before a key's passphrase is (there is no such key).
for tcti in ("off", "swtpm:host=127.0.0.1,port=1"):
    if tcti != "off":
        w.restart(tcti)
        w.unlock()
    said = w.fails(1, ["finds no TPM", "--tpm TCTI"], "leadglass", "slot", "anchor", "--tpm")
    assert "IMAGE" not in said and "yes" not in said, said
    assert "cannot be used" in w.said() and (tcti in w.said()), w.said()
w.fails(1, ["it is not anchored"], "leadglass", "slot", "anchor", "--none", "--reason", "x", "--sign", w.path("no-such-key"))

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
