"""What the access log costs: the slices workload (bench_workload) with the log and without, in turn, and the medians of the pairs' ratios: rates, and the processor time of everything
that takes part during the phase (the workload, leadglass-fs, the key manager), which other work on the machine disturbs far less.

    audit_cost.py BIN WORKLOAD [PAIRS [STUDIES SLICES BYTES THREADS]]

BIN: where the leadglass programs are; WORKLOAD: build/release/bin/bench_workload. Store and log on /dev/shm. Needs root."""
import os, re, resource, shutil, statistics, subprocess, sys, tempfile, time

BIN, WORK = sys.argv[1:3]
PAIRS = int((sys.argv[3:4] or ["5"])[0])
STUDIES, SLICES, BYTES, THREADS = (sys.argv[4:8] + ["10", "50", "524288", "2"][len(sys.argv[4:8]):])
PHASES = ("create", "stat", "head", "read", "unlink")


def run(env, *argv):
    return subprocess.run(argv, env=env, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True).stdout


def used(pids):
    """Processor time of these and of all children that have ended, in seconds."""
    r = resource.getrusage(resource.RUSAGE_CHILDREN)
    return r.ru_utime + r.ru_stime + sum(time.clock_gettime((~p << 3) | 2) for p in pids)


def once(log):
    top = tempfile.mkdtemp(prefix="lg-cost-", dir="/dev/shm")
    env = dict(os.environ, LEADGLASS_SOCKET=top + "/keyd.sock")
    lg, mnt, secret = os.path.join(BIN, "leadglass"), top + "/mnt", top + "/secret"
    out = {}
    with open(secret, "w") as f:
        f.write("secret\n")
    os.mkdir(mnt)
    try:
        keyd = [os.path.join(BIN, "leadglass-keyd"), "--keyring", top + "/keyring"]
        run(env, *keyd, "--init", "--passphrase-file", secret, "--scrypt-ms", "20")
        with open(top + "/out", "w") as f:
            subprocess.run(keyd + ([] if log else ["--audit", "off"]), env=env, check=True, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
        run(env, lg, "unlock", "--passphrase-file", secret)
        run(env, lg, "init", top + "/vault")
        for phase in PHASES:
            with open(top + "/out", "w") as f:
                subprocess.run([lg, "mount"] + ([] if log else ["-o", "audit=off"]) + [top + "/vault", mnt], env=env, check=True, stdin=subprocess.DEVNULL, stdout=f, stderr=f)
            pids = [int(p) for p in subprocess.run(["pgrep", "-f", "leadglass-(fs|keyd).*" + top], stdout=subprocess.PIPE, text=True).stdout.split()]
            before = used(pids)
            said = run(env, WORK, mnt, phase, STUDIES, SLICES, BYTES, THREADS)
            out[phase + " cpu"] = used(pids) - before
            out[phase] = float(re.search(r"files/s=([\d.]+)", said).group(1))
            run(env, lg, "umount", mnt)
    finally:
        subprocess.run(["umount", "-l", mnt], stderr=subprocess.DEVNULL)
        pids = subprocess.run(["pgrep", "-f", "leadglass-keyd.*" + top], stdout=subprocess.PIPE, text=True).stdout.split()
        for pid in pids:
            subprocess.run(["kill", pid], stderr=subprocess.DEVNULL)
        subprocess.run(["sleep", "0.3"])
        shutil.rmtree(top, ignore_errors=True)
    return out


pairs = []
for i in range(PAIRS):
    first = once(i % 2 == 0)
    second = once(i % 2 == 1)
    pairs.append((first, second) if i % 2 == 0 else (second, first))
    print("pair %d: %s" % (i + 1, ", ".join("%s %.0f/%.0f" % (p, pairs[-1][0][p], pairs[-1][1][p]) for p in PHASES)), flush=True)
print("%-8s %12s %12s %8s" % ("phase", "with log/s", "without/s", "ratio"))
for phase in PHASES:
    on, off = [p[0][phase] for p in pairs], [p[1][phase] for p in pairs]
    print("%-8s %12.0f %12.0f %8.3f" % (phase, statistics.median(on), statistics.median(off), statistics.median(a / b for a, b in zip(on, off))))

print("%-8s %12s %12s %8s" % ("phase", "cpu s with", "without", "with/wo"))
for phase in PHASES:
    on, off = [p[0][phase + " cpu"] for p in pairs], [p[1][phase + " cpu"] for p in pairs]
    print("%-8s %12.3f %12.3f %8.3f" % (phase, statistics.median(on), statistics.median(off), statistics.median(a / b for a, b in zip(on, off))))
