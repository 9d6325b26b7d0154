"""Databases in the store simply work, and come back consistent with every acknowledged commit after kill -9 of leadglass-fs at random moments:
SQLite in rollback and WAL mode, and a PostgreSQL cluster under pgbench.

LG_DB_ROUNDS (default 3; long mode 30) and LG_DB_SEED. PostgreSQL is left out, with a printed word, where it is not installed."""
import glob, os, pwd, random, re, signal, sqlite3, subprocess, sys, threading, time
from lib import *

ROUNDS = int(os.environ.get("LG_DB_ROUNDS", "3"))
SEED = int(os.environ.get("LG_DB_SEED", "0")) or random.SystemRandom().randrange(1, 1 << 31)
print("rounds %d, LG_DB_SEED=%d" % (ROUNDS, SEED), flush=True)
rnd = random.Random(SEED)
MODES = ("wal", "delete", "truncate", "persist")

w = World()
os.chmod(w.dir, 0o755)
w.init()
os.chmod(w.path("vault"), 0o755)
m = w.mount()


def kill_fs():
    pid = w.pid_of()
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not os.path.exists("/proc/%d/fd/0" % pid))


# ---- ordinary use

for mode in MODES:
    p = os.path.join(m, mode + ".db")
    db = sqlite3.connect(p)
    assert db.execute("pragma journal_mode=" + mode).fetchone()[0] == mode
    db.execute("create table t (k integer primary key, v text)")
    for i in range(300):
        db.execute("insert into t values (?, ?)", (i, "v%d" % i * 20))
        if i % 10 == 0:
            db.commit()
    db.execute("delete from t where k % 3 = 0")
    db.commit()
    db.execute("vacuum")
    db.close()
m = w.remount()
for mode in MODES:
    db = sqlite3.connect(os.path.join(m, mode + ".db"))
    assert db.execute("pragma integrity_check").fetchone()[0] == "ok"
    assert db.execute("select count(*) from t").fetchone()[0] == 200
    db.close()

# ---- SQLite under kill -9

CLIENT = """
import os, random, sqlite3, sys, traceback
path, mode, seed = sys.argv[1], sys.argv[2], int(sys.argv[3])
r = random.Random(seed)
def hook(kind, e, tb):
    traceback.print_exception(kind, e, tb)
    print(getattr(e, "sqlite_errorname", ""), file=sys.stderr)
sys.excepthook = hook
db = sqlite3.connect(path, isolation_level=None, timeout=30)
db.execute("pragma journal_mode=" + mode)
db.execute("pragma synchronous=full")
db.execute("pragma wal_autocheckpoint=50")
db.execute("pragma cache_size=20")  # spills before the commit, too
db.execute("create table if not exists log (k integer primary key, v blob)")
db.execute("create table if not exists total (id integer primary key, n integer)")
db.execute("insert or ignore into total values (1, 0)")
at = db.execute("select coalesce(max(k), 0) from log").fetchone()[0]
while True:
    n = r.randrange(1, 20)
    db.execute("begin immediate")
    for i in range(n):
        db.execute("insert into log values (?, ?)", (at + i + 1, bytes([(at + i + 1) % 251]) * r.randrange(1, 6000)))
    if at > 400:
        db.execute("update log set v = zeroblob(10) where k = ?", (r.randrange(1, at),))
    db.execute("update total set n = n + ?", (n,))
    db.execute("commit")
    at += n
    os.write(1, b"%d\\n" % at)  # acknowledged
"""


def sqlite_round(round):
    procs = {}
    for mode in MODES:
        out = open(w.path("acks-" + mode), "wb")
        procs[mode] = w.spawn(["/usr/bin/python3", "-c", CLIENT, os.path.join(m, "k" + mode + ".db"), mode, str(rnd.randrange(1 << 30))], stdout=out,
                              stderr=open(w.path("said-" + mode), "wb"))
    time.sleep(rnd.uniform(0.3, 2.5))
    kill_fs()
    for p in procs.values():
        p.wait(180)
        w.children.remove(p)


def sqlite_check(round):
    for mode in MODES:
        where = "round %d, seed %d, SQLite %s" % (round, SEED, mode)
        acks = read(w.path("acks-" + mode)).split()
        said = read(w.path("said-" + mode)).decode()
        # Without its daemon the mount answers ENOTCONN, and then SQLite takes a file that it cannot look at for one that was moved: SQLITE_READONLY_DBMOVED.
        assert any(x in said for x in ("disk I/O error", "unable to open", "Transport endpoint", "locking protocol", "SQLITE_READONLY_DBMOVED")), \
            "%s: stopped for another reason: %s" % (where, said)
        try:
            db = sqlite3.connect(os.path.join(m, "k" + mode + ".db"))
            check = db.execute("pragma integrity_check").fetchone()[0]
            assert check == "ok", "%s: integrity_check: %s" % (where, check)
            if db.execute("select count(*) from sqlite_master where name = 'total'").fetchone()[0]:
                n, top = db.execute("select count(*), coalesce(max(k), 0) from log").fetchone()
                total = db.execute("select coalesce(max(n), 0) from total").fetchone()[0]
                assert n == top == total, "%s: torn transaction: %d rows, highest %d, counted %d" % (where, n, top, total)
            else:
                n = 0
            assert not acks or n >= int(acks[-1]), "%s: %s rows were acknowledged, %d are there" % (where, acks[-1], n)
            db.close()
        except sqlite3.Error as e:
            raise AssertionError("%s: %s; acknowledged %s" % (where, e, acks[-1:]))


# ---- PostgreSQL

def postgres_bin():
    found = sorted(glob.glob("/usr/lib/postgresql/*/bin/pg_ctl"))
    return os.path.dirname(found[-1]) if found else None


class Cluster:
    def __init__(self, bin):
        self.bin, self.port, self.user = bin, str(free_port()), "postgres"
        os.mkdir(w.path("pgsock"))
        os.chmod(w.path("pgsock"), 0o777)
        self.data = os.path.join(w.path("mnt"), "pg")
        self.env = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "PGHOST": w.path("pgsock"), "PGPORT": self.port, "PGUSER": self.user, "PGDATABASE": "postgres"}
        os.mkdir(self.data, 0o700)
        u = pwd.getpwnam(self.user)
        os.chown(self.data, u.pw_uid, u.pw_gid)
        self.as_user = ["setpriv", "--reuid", self.user, "--regid", self.user, "--clear-groups"]
        self.run("initdb", "-D", self.data, "-A", "trust", "--wal-segsize=1")
        with open(os.path.join(self.data, "postgresql.conf"), "a") as f:
            f.write("listen_addresses = ''\nunix_socket_directories = '%s'\nport = %s\nshared_buffers = 4MB\ncheckpoint_timeout = 30s\nmax_wal_size = 4MB\nmin_wal_size = 2MB\n"
                    % (w.path("pgsock"), self.port))

    def run(self, program, *args, check=True):
        r = subprocess.run([*self.as_user, os.path.join(self.bin, program), *args], env=self.env, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                           stderr=subprocess.STDOUT, text=True, timeout=600)
        assert not check or r.returncode == 0, (program, args, r.stdout)
        return r.stdout

    def start(self):
        """In a process group of its own, its log beside the mount."""
        self.log = open(w.path("pglog"), "ab")
        self.server = w.spawn([*self.as_user, os.path.join(self.bin, "postgres"), "-D", self.data], stdout=self.log, stderr=self.log, start_new_session=True, cwd="/")

        def ready():
            assert self.server.poll() is None, "PostgreSQL does not start: " + read(w.path("pglog"))[-3000:].decode(errors="replace")
            return self.run("psql", "-Atc", "select 1", check=False).strip() == "1"
        wait_for(ready)

    def sql(self, q):
        return self.run("psql", "-Atc", q).strip()

    def kill(self):
        try:
            os.killpg(self.server.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self.server.wait(180)
        w.children.remove(self.server)
        # The server's processes have groups of their own.
        for p in [p for p in os.listdir("/proc") if p.isdigit()]:
            try:
                if os.readlink("/proc/%s/exe" % p).startswith(self.bin + "/postgres") and self.owns(int(p)):
                    os.kill(int(p), signal.SIGKILL)
                    wait_for(lambda: not os.path.exists("/proc/%s/fd/0" % p))  # the next server would find it at the shared memory
            except OSError:
                pass

    def owns(self, pid):
        return os.getsid(pid) == self.server.pid or self.data.encode() in read("/proc/%d/cmdline" % pid)

    def stop(self):
        self.server.send_signal(signal.SIGINT)
        self.server.wait(180)
        w.children.remove(self.server)


SCRIPT = r"""
\set aid random(1, 100000)
\set delta random(-5000, 5000)
begin;
update pgbench_accounts set abalance = abalance + :delta where aid = :aid;
update pgbench_tellers set tbalance = tbalance + :delta where tid = 1 + :aid % 10;
update pgbench_branches set bbalance = bbalance + :delta where bid = 1;
insert into pgbench_history (tid, bid, aid, delta, mtime) values (1 + :aid % 10, 1, :aid, :delta, current_timestamp);
commit;
"""


def postgres_round(pg):
    """pgbench with one log line per acknowledged transaction; the number of lines of all clients is the number that must be there."""
    for f in glob.glob(w.path("pgwork", "*")):
        os.unlink(f)
    write(w.path("pgwork", "script"), SCRIPT.encode())
    before = int(pg.sql("select count(*) from pgbench_history"))
    bench = w.spawn([*pg.as_user, os.path.join(pg.bin, "pgbench"), "-n", "-c", "4", "-j", "2", "-T", "60", "-l", "--log-prefix=ack", "-f", "script"],
                    stdout=subprocess.DEVNULL, stderr=open(w.path("said-pg"), "wb"), cwd=w.path("pgwork"))
    time.sleep(rnd.uniform(0.5, 4))
    kill_fs()
    time.sleep(0.3)
    bench.send_signal(signal.SIGTERM)
    bench.wait(180)
    w.children.remove(bench)
    pg.kill()
    acks = sum(read(f).count(b"\n") for f in glob.glob(w.path("pgwork", "ack*")))
    return before + acks


def postgres_check(pg, least, where):
    n = int(pg.sql("select count(*) from pgbench_history"))
    assert n >= least, "%s: %d transactions were acknowledged, %d are there" % (where, least, n)
    sums = pg.sql("select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers), (select sum(bbalance) from pgbench_branches), "
                  "(select coalesce(sum(delta), 0) from pgbench_history)").split("|")
    assert len(set(sums)) == 1, "%s: the balances differ: accounts, tellers, branches, history: %s" % (where, sums)
    bad = pg.run("pg_amcheck", "--install-missing", "--heapallindexed", "-d", "postgres", check=False).strip()
    assert not bad or "ERROR" not in bad.upper(), "%s: pg_amcheck: %s" % (where, bad)
    return n


pg, n = None, 0
bin = postgres_bin()
if bin:
    pg = Cluster(bin)
    pg.start()
    os.mkdir(w.path("pgwork"))
    os.chmod(w.path("pgwork"), 0o777)
    w.env.update(pg.env)
    pg.run("pgbench", "-i", "-q", "-s", "1")
else:
    left_out("PostgreSQL", "not installed")
for round in range(ROUNDS):
    sqlite_round(round)
    if pg:
        pg.kill()
    m = w.mount()
    sqlite_check(round)
    if pg:
        where = "round %d, seed %d, PostgreSQL" % (round, SEED)
        pg.start()
        postgres_check(pg, n, where)
        least = postgres_round(pg)
        m = w.mount()
        pg.start()
        n = postgres_check(pg, least, where)
if pg:
    pg.stop()
    assert "PANIC" not in "".join(l for l in read(w.path("pglog")).decode(errors="replace").splitlines() if "could not" not in l)
w.umount()
print("ok, %d transactions in PostgreSQL" % n)
