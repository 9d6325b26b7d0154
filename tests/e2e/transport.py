"""Both transports, /dev/fuse and io_uring: which of them auto takes; status names the one in use, and why it is not io_uring; fast requests do not wait for slow ones on a slow disk; unmounting under load,
a killed daemon and locking while requests are under way."""
import os, subprocess, sys, threading
from lib import *


def transports(w):
    missing = ring_missing()
    if not missing:
        os.makedirs(w.path("probe"), exist_ok=True)
        r = w.run("leadglass", "mount", "-o", "transport=uring", w.path("vault"), w.path("probe"))
        if r.returncode:
            assert r.returncode == 1 and "requests cannot come over io_uring: " in r.stderr, r
            missing = r.stderr.partition("io_uring: ")[2].partition(". Mount with")[0]
        else:
            w.cli("umount", w.path("probe"))
    if missing:
        left_out("FUSE over io_uring", missing)
    return ["dev"] + ([] if missing else ["uring"]), missing


def came(w, option, transport, why):
    """A mount with that option serves over that transport, and status says so, and why."""
    w.mount("vault", "mnt", "-o", "transport=" + option)
    m = w.status()["mounts"][0]
    assert (m["transport"], m.get("transport_why")) == (transport, why), (option, m)
    said = w.cli("status")
    assert "transport " + transport + (": " + why if why else "") + ", cold reads" in said, said
    w.umount()


def chosen(w, transports, missing):
    """transport=auto takes io_uring where it can be had, and else /dev/fuse; dev takes that anyway."""
    came(w, "dev", "dev", "as the mount's options say")
    if "uring" in transports:
        came(w, "auto", "uring", None)
        came(w, "uring", "uring", None)
    elif "libfuse" in missing:
        came(w, "auto", "dev", missing)
    shim, switch = os.path.join(BIN, "nouring.so"), w.path("switch")
    if "uring" not in transports or not os.path.exists(shim):
        left_out("what auto takes elsewhere", missing or "nothing is preloaded into a sanitizer's build")
        return
    off = 'the kernel has FUSE over io_uring switched off: write Y to /sys/module/fuse/parameters/enable_uring and mount again; for every boot see OPERATIONS.md, "FUSE over io_uring"'
    refused = "the system refuses io_uring to this process (kernel.io_uring_disabled, or a container's filter)"
    w.env["LD_PRELOAD"] = shim
    came(w, "auto", "dev", refused)
    for said, why in ((None, "FUSE over io_uring needs Linux 6.14"), (b"N\n", off), (b"Y\n", None)):
        w.env["LG_RING_SWITCH"] = switch
        if said:
            write(switch, said)
        came(w, "auto", "dev" if why else "uring", why)
        if why:
            w.fails(1, [why], "leadglass", "mount", "-o", "transport=uring", w.path("vault"), w.path("mnt"))
    del w.env["LD_PRELOAD"], w.env["LG_RING_SWITCH"]


def settled(w, transport):
    """A mount whose kernel has not made its first request yet is not ready, and status does not guess how requests will come."""
    shim, gate = os.path.join(BIN, "nouring.so"), w.path("gate")
    if not os.path.exists(shim):
        left_out("a mount that is not ready yet", "nothing is preloaded into a sanitizer's build")
        return
    write(gate, b"")
    w.env["LD_PRELOAD"], w.env["LG_INIT_GATE"] = shim, gate
    os.makedirs(w.path("mnt"), exist_ok=True)
    p = w.spawn([os.path.join(BIN, "leadglass"), "mount", "-o", "transport=" + transport, w.path("vault"), w.path("mnt")])
    del w.env["LD_PRELOAD"], w.env["LG_INIT_GATE"]
    wait_for(lambda: os.path.exists(gate + ".reached"))
    w.mounts.append("mnt")
    m = w.status()["mounts"][0]
    assert (m["transport"], m["transport_why"], m["audit"]) == ("unknown", "the mount is not ready yet", "unknown"), m
    assert "transport unknown: the mount is not ready yet" in w.cli("status")
    try:
        p.wait(1)
        raise AssertionError("`leadglass mount` did not wait")
    except subprocess.TimeoutExpired:
        pass
    os.unlink(gate)
    assert p.wait(300) == 0
    w.children.remove(p)
    m = w.status()["mounts"][0]
    assert (m["transport"], m["audit"]) == (transport, "on"), m
    w.umount()
    os.unlink(gate + ".reached")


def together(*jobs):
    done, threads = [], []
    def run(job):
        job()
        done.append(job)
    for job in jobs:
        threads.append(threading.Thread(target=run, args=(job,)))
        threads[-1].start()
    return threads, done


def slow_disk(w, transport, disk):
    """Eight cold readers and an fsync wait for the disk; meanwhile other requests are served, on every processor."""
    low, gate, env = w.path("slow-" + disk), w.path("gate"), dict(w.env)
    os.mkdir(low)
    os.mkdir(w.path("disk-" + disk))
    env["LG_GATE"] = gate
    subprocess.run([os.path.join(BIN, "bench_passthrough"), "-oallow_other", w.path("disk-" + disk), low], env=env, check=True)
    vault = os.path.join(low, "vault")
    try:
        w.cli("init", vault)
        at = w.mount(os.path.relpath(vault, w.dir), "mnt", "-o", "transport=" + transport)
        body = os.urandom(300000)
        for i in range(8):
            write(at + "/%d" % i, body)
        w.umount()
        at = w.mount(os.path.relpath(vault, w.dir), "mnt", "-o", "transport=" + transport)
        subprocess.run(["mount", "-t", "fusectl", "none", "/sys/fs/fuse/connections"], stderr=subprocess.DEVNULL) # before: a child would flush what it inherits
        readers = [os.open(at + "/%d" % i, os.O_RDONLY) for i in range(8)]
        synced = os.open(at + "/synced", os.O_CREAT | os.O_WRONLY)
        os.write(synced, b"x" * 70000)
        got = []
        write(gate, b"")
        threads, done = together(*[lambda fd=fd: got.append(os.pread(fd, 4096, 100000) == body[100000:104096]) for fd in readers], lambda: os.fsync(synced))
        askers, asked = together(*[lambda: os.statvfs(at) for i in range(16)])  # at the same moment: none waits behind one that waits
        wait_for(lambda: len(asked) == 16)
        for t in askers:
            t.join()
        dev = os.minor(os.stat(at).st_dev)
        wait_for(lambda: int(read("/sys/fs/fuse/connections/%d/waiting" % dev)) >= 9)
        for cpu in os.sched_getaffinity(0):
            os.sched_setaffinity(0, {cpu})
            for i in range(20):
                os.statvfs(at)
                raises(errno.ENOENT, os.stat, at + "/nothing-%d-%d" % (cpu, i))
        os.sched_setaffinity(0, range(os.cpu_count()))
        assert not done, "nothing was slow"
        os.unlink(gate)
        for t in threads:
            t.join()
        assert got == [True] * 8
        for fd in readers + [synced]:
            os.close(fd)
        w.umount()
    finally:
        if os.path.exists(gate):
            os.unlink(gate)
        subprocess.run(["umount", "-l", os.path.join(w.dir, "mnt")], stderr=subprocess.DEVNULL)
        subprocess.run(["umount", "-l", low])


def interrupted(w, transport):
    """A client whose requests are interrupted by its own timer finishes its work, and leaves no descriptor and no thread behind in the mount."""
    at = w.mount("vault", "mnt", "-o", "transport=" + transport)
    kept = lambda: [len(os.listdir("/proc/%d/%s" % (w.pid_of(), x))) for x in ("fd", "task")]
    work = """if True:
        import os, signal
        seen = done = 0
        def tick(*a):
            global seen
            seen += 1
        signal.signal(signal.SIGALRM, tick)
        signal.setitimer(signal.ITIMER_REAL, 0.0003, 0.0003)
        while seen < 4000 or done < 200:
            fd = os.open(%r %% (done %% 50), os.O_CREAT | os.O_WRONLY)
            assert os.write(fd, b"x" * 100000) == 100000
            os.fsync(fd)
            os.close(fd)
            done += 1
        signal.setitimer(signal.ITIMER_REAL, 0)
        """ % (at + "/interrupted-%d")
    before = kept()
    assert w.spawn([sys.executable, "-c", work]).wait(600) == 0
    after = kept()
    assert after[0] < before[0] + 16 and after[1] < before[1] + 40, (transport, "descriptors, threads", before, after)
    w.umount()


def under_load(w, transport):
    """The daemon is killed, ended by a signal, and unmounted, each while four threads read and write; then everything written before is there."""
    for how in ("kill", "term", "umount", "lock"):
        at = w.mount("vault", "mnt", "-o", "transport=" + transport)
        assert [m["transport"] for m in w.status()["mounts"]] == [transport], w.status()
        assert "transport " + transport in w.cli("status")
        assert "cold_reads" in w.status()["mounts"][0]
        kept = os.urandom(200000)
        write(at + "/kept", kept)
        fd = os.open(at + "/kept", os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
        stop, errors = threading.Event(), []

        def load(n):
            try:
                for i in range(100000):
                    if stop.is_set():
                        break
                    p = at + "/load-%d-%d" % (n, i % 8)
                    write(p, kept)
                    assert read(p) == kept
                    os.stat(p)
            except OSError as e:
                errors.append(e.errno)

        threads = [threading.Thread(target=load, args=(n,)) for n in range(4)]
        for t in threads:
            t.start()
        wait_for(lambda: os.path.exists(at + "/load-3-7"))
        if how == "lock":
            w.cli("lock")
        elif how == "umount":
            subprocess.run(["umount", "-l", at], check=True)
        else:
            os.kill(w.pid_of(), signal.SIGKILL if how == "kill" else signal.SIGTERM)
        if how == "umount":
            stop.set() # a detached mount goes on serving who is in it
        for t in threads:
            t.join(300)
            assert not t.is_alive(), how + ": a request never came back"
        if how == "lock":
            assert set(errors) <= {errno.ENOKEY}, errors
            w.unlock()
            w.umount()
        else:
            subprocess.run(["umount", "-l", at], stderr=subprocess.DEVNULL)  # what a killed daemon leaves counts as mounted
            wait_for(lambda: not w.status()["mounts"])
            w.mounts.remove("mnt")
            for stray in os.listdir(at):  # written beneath by a thread that was about to stop
                os.unlink(os.path.join(at, stray))
        at = w.mount("vault", "mnt", "-o", "transport=" + transport)
        assert read(at + "/kept") == kept, how
        w.umount()
        print(transport, how, "ok", flush=True)


w = World()
w.init()
w.fails(2, ["auto, dev or uring"], "leadglass-fs", "-o", "transport=pigeon", w.path("vault"), w.path("keyring"))
w.mount("vault", "mnt", "-o", "cold_reads=pread")
assert w.status()["mounts"][0]["cold_reads"] == "pread" and "options" in w.status()["mounts"][0]["cold_reads_why"], w.status()
assert "cold reads pread: as the mount's options say" in w.cli("status")
w.umount()
shim = os.path.join(BIN, "nouring.so")  # not in a sanitizer's build
if os.path.exists(shim):  # refused by the system: the same bytes, and status says why
    w.env["LD_PRELOAD"] = shim
    w.mount("vault", "mnt", "-o", "transport=dev")
    m = w.status()["mounts"][0]
    assert m["cold_reads"] == "pread" and m["cold_reads_why"] == "the system refuses io_uring: Operation not permitted", m
    assert "cold reads pread: the system refuses io_uring" in w.cli("status")
    w.umount()
    slow_disk(w, "dev", "refused")
    del w.env["LD_PRELOAD"]
both, missing = transports(w)
chosen(w, both, missing)
for t in both:
    slow_disk(w, t, t)
    print(t, "slow disk ok", flush=True)
    settled(w, t)
    interrupted(w, t)
    print(t, "interrupted ok", flush=True)
    under_load(w, t)
