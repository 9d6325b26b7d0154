"""Two thousand files re-encrypted: at no more than the rate that was asked for, with progress on the terminal to the end and JSON beside it; interrupted and killed, and gone on with."""
import json, os, pty, re, signal, subprocess, threading, time
from lib import *

N, SIZE = 2000, 8192
w = World()
vault = w.init()
m = w.mount()
want = {}
for i in range(N):
    p = os.path.join(m, "d%d" % (i % 31), "f%d" % i)
    os.makedirs(os.path.dirname(p), exist_ok=True)
    want[p] = dicom_slice(i, SIZE)
    write(p, want[p])
BYTES = sum(len(b) for b in want.values())
SAID = re.compile(r"(\d+) files looked at, (\d+) re-encrypted \(([\d.]+) MiB, [\d.]+ MiB/s\), (\d+) failed")


class Run:
    """The command with its standard error on a terminal and its standard output in a pipe."""
    def __init__(self, *args):
        self.fd, slave = pty.openpty()
        self.text, self.begun = "", time.monotonic()
        self.p = w.spawn([os.path.join(BIN, "leadglass"), "key", "reencrypt", vault, "--all-studies", "--json", *args], stderr=slave, stdout=subprocess.PIPE, text=True)
        os.close(slave)
        self.reader = threading.Thread(target=self.listen, daemon=True)
        self.reader.start()

    def listen(self):
        try:
            while b := os.read(self.fd, 65536):
                self.text += b.decode()
        except OSError:
            pass  # nobody has the other end any more

    def done(self):
        """Files done, by the last whole line."""
        said = SAID.findall(self.text)
        return int(said[-1][1]) if said else 0

    def end(self):
        out = self.p.communicate(timeout=1200)[0]
        self.seconds = time.monotonic() - self.begun
        w.children.remove(self.p)
        self.reader.join(60)
        os.close(self.fd)
        return self.p.returncode, json.loads(out) if out else None


def version(p):
    return int(os.getxattr(p, "trusted.leadglass.key").decode().split()[1])


def versions():
    return {version(p) for p in want}


def same():
    for p in want:
        assert read(p) == want[p], p


ALL = {"files": N, "reencrypted": N, "bytes": BYTES, "current": 0, "failed": 0, "interrupted": False}


# As fast as it goes, to compare with; without a terminal nothing is said but the result.
w.cli("key", "rotate", "--all-studies")
begun = time.monotonic()
r = w.run("leadglass", "key", "reencrypt", vault, "--all-studies", "--json")
free = time.monotonic() - begun
assert r.returncode == 0 and r.stderr == "" and json.loads(r.stdout) == ALL, r
assert versions() == {2}
assert "0 of %d files re-encrypted, 0.0 MiB; %d had the newest version already" % (N, N) in w.cli("key", "reencrypt", vault, "--all-studies")

# At a rate: no faster, but for a second's worth, and not much slower than rate and work together.
RATE = 4
w.cli("key", "rotate", "--all-studies")
x = Run("--rate", str(RATE))
code, j = x.end()
due = BYTES / (RATE << 20)
assert code == 0 and j == ALL, (code, j, x.text[-500:])
assert due > 3 and x.seconds >= due - 1.1, (x.seconds, due)
assert x.seconds <= 3 * due + 20 * free + 120, (x.seconds, due, free)
said = [tuple(map(float, s)) for s in SAID.findall(x.text)]
assert len(said) >= 5 and said == sorted(said), said  # it moves, and never back
assert said[-1] == (N, N, round(BYTES / 1048576, 1), 0) and x.text.endswith("failed\x1b[K\r\n"), x.text[-300:]
assert any(0 < s[1] < N for s in said), said
assert versions() == {3}
at_rate = x.seconds

# Interrupted: the file under way is ended, what was done is said, and the next run does the rest.
w.cli("key", "rotate", "--all-studies")
x = Run("--rate", "1")
wait_for(lambda: x.done() >= 50)
x.p.send_signal(signal.SIGINT)
code, j = x.end()
n = j["reencrypted"]
assert code == 14 and j["interrupted"] and j["failed"] == j["current"] == 0 and 50 <= n < N and "run it again" in x.text, (code, j, x.text[-500:])
assert sum(version(p) == 4 for p in want) == n and versions() == {3, 4}
code, j = Run().end()
assert code == 0 and (j["reencrypted"], j["current"], j["failed"], j["interrupted"]) == (N - n, n, 0, False), (code, j, n)
assert versions() == {4}

# Killed.
w.cli("key", "rotate", "--all-studies")
x = Run("--rate", "1")
wait_for(lambda: x.done() >= 50)
x.p.kill()
assert x.end() == (-signal.SIGKILL, None)
code, j = Run().end()
assert code == 0 and j["reencrypted"] + j["current"] == N and 0 < j["reencrypted"] <= N - 50 and j["failed"] == 0, (code, j)
assert versions() == {5}
same()
w.remount()
same()
print("%d files, %.1f MiB: %.1f s, at %d MiB/s %.1f s; ok" % (N, BYTES / 1048576, free, RATE, at_rate))
