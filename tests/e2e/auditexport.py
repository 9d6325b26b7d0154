"""The access log, sent as DICOM audit messages over TLS to a real rsyslog: mutual certificates, outages, restarts, a full spool; nothing lost, nothing in clear on disk."""
import base64, errno, glob, json, os, re, shutil, signal, ssl, subprocess, sys, threading, time
from lib import *

rsyslogd = shutil.which("rsyslogd") or "/usr/sbin/rsyslogd"
if not os.path.exists(rsyslogd) or not glob.glob("/usr/lib/*/rsyslog/lmnsd_gtls.so"):
    skip("rsyslogd with GnuTLS is not installed")
if not shutil.which("openssl"):
    skip("openssl is not installed")

w = World()
begun = time.time()


def step(what):
    print("%5.1f s  %s" % (time.time() - begun, what), flush=True)


vault = w.init()
m = w.mount()
data = {os.path.basename(f): read(f) for f in data_files() if os.path.basename(f) in ("CT_small.dcm", "MR_small.dcm")}
write(os.path.join(m, "ct"), data["CT_small.dcm"])
w.umount()
m = w.mount()
logdir = w.status()["audit"]["directory"]


# ---- certificates: a CA, a server and a client, and a client of nobody ------------------------------------------------------------
def openssl(*args):
    subprocess.run(["openssl", *args], check=True, cwd=w.dir, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def certificate(name, ca="ca", extra="subjectAltName=DNS:localhost"):
    write(w.path(name + ".ext"), extra.encode())
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", name + ".key", "-out", name + ".csr", "-subj", "/CN=" + name)
    openssl("x509", "-req", "-in", name + ".csr", "-CA", ca + ".pem", "-CAkey", ca + ".key", "-CAcreateserial", "-days", "2", "-out", name + ".pem", "-extfile", name + ".ext")
    os.chmod(w.path(name + ".key"), 0o600)


for ca in ("ca", "otherca"):
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", ca + ".key", "-out", ca + ".pem", "-subj", "/CN=" + ca, "-days", "2")
certificate("server")
certificate("elsewhere", extra="subjectAltName=DNS:elsewhere.example")
certificate("client")
certificate("stranger", "otherca")


# ---- a receiver ---------------------------------------------------------------------------------------------------------------------
class Receiver:
    def __init__(self, cert="server", tls=True):
        self.port, self.cert, self.tls, self.child = free_port(), cert, tls, None

    def start(self):
        out = w.path("received-%d" % self.port)
        tls = ('global(defaultNetstreamDriver="gtls" defaultNetstreamDriverCAFile="%s" defaultNetstreamDriverCertFile="%s" defaultNetstreamDriverKeyFile="%s")\n' %
               (w.path("ca.pem"), w.path(self.cert + ".pem"), w.path(self.cert + ".key"))) if self.tls else ""
        driver = ' streamDriver.name="gtls" streamDriver.mode="1" streamDriver.authMode="x509/certvalid"' if self.tls else ""
        write(w.path("rsyslog.conf"), (
            'global(workDirectory="%s" maxMessageSize="64k" parser.escapeControlCharactersOnReceive="off")\n%smodule(load="imtcp"%s)\n' % (w.dir, tls, driver) +
            'template(name="t" type="string" string="%%pri%% %%protocol-version%% %%timereported:::date-rfc3339%% %%hostname%% %%app-name%% %%procid%% %%msgid%%%%msg%%\\n")\n' +
            'input(type="imtcp" port="%d" address="127.0.0.1")\naction(type="omfile" file="%s" template="t")\n' % (self.port, out)).replace("%%", "%").encode())
        self.out = out
        self.child = subprocess.Popen([rsyslogd, "-n", "-f", w.path("rsyslog.conf"), "-i", w.path("rsyslog.pid")], stdout=subprocess.DEVNULL, stderr=open(w.path("rsyslog.err"), "a"))
        def listens():
            with socket.socket() as s:
                return s.connect_ex(("127.0.0.1", self.port)) == 0
        wait_for(listens)

    def stop(self, how=signal.SIGTERM):
        self.child.send_signal(how)
        self.child.wait()

    def lines(self):  # those that are whole: it may be writing
        return [x.decode() for x in read(self.out).split(b"\n")[:-1]] if os.path.exists(self.out) else []

    def messages(self):
        return [Message(x) for x in self.lines() if "<AuditMessage>" in x]


class Message:
    def __init__(self, line):
        head, xml = re.fullmatch(r"(.*?) ?\ufeff(<\?xml.*)", line).groups()
        self.pri, self.version, self.time, self.host, self.app, self.procid, self.msgid = head.split(" ")[:7]
        self.xml = xml
        self.id = re.search(r'EventID csd-code="(\d+)"', xml).group(1)
        self.detail = {k: base64.b64decode(v).decode() for k, v in re.findall(r'ParticipantObjectDetail type="([^"]*)" value="([^"]*)"', xml)}
        self.record = self.detail.get("Leadglass record")
        self.event = (self.detail.get("Leadglass event") or self.detail.get("Alert Description") or "").split(":")[0]


receiver = Receiver()
conf, spool = w.path("audit.conf"), w.path("export")


def configure(**over):
    s = {"release-study-uids": "yes", "host": "localhost", "port": receiver.port, "ca": w.path("ca.pem"), "certificate": w.path("client.pem"), "key": w.path("client.key"),
         "spool": spool, "begin": "all", "source-id": "pacs-test", "spool-mib": 4, "retry-max": 1}
    s.update({k.replace("_", "-"): v for k, v in over.items()})
    write(conf, ("[watch]\n[export]\n" + "".join("%s = %s\n" % x for x in s.items() if x[1] is not None)).encode())


class Exporter:
    def __enter__(self):
        self.p = subprocess.Popen([os.path.join(BIN, "leadglass"), "audit", "export", "--follow", "--config", conf], env=w.env, stdout=subprocess.DEVNULL, stderr=open(w.path("exporter.err"), "w"))
        return self

    def said(self):
        return read(w.path("exporter.err")).decode()

    def says(self, words):
        """It says so; or it has ended."""
        wait_for(lambda: words in self.said() or self.p.poll() is not None)
        assert words in self.said(), self.said()

    def kill(self):
        self.p.kill()
        self.p.wait()

    def __exit__(self, *x):
        self.p.terminate()
        code = self.p.wait(180)
        assert x[0] or code in (0, -signal.SIGKILL), (code, self.said())


def state():
    return json.loads(w.cli("audit", "export", "--config", conf, "--json"))


def status():
    return json.loads(w.cli("status", "--json", "--config", conf))["audit"]["export"]


def newest():  # the record of the last thing done through the mount
    return json.loads(w.cli("audit", "query", "--json", "--event", "file.open"))[-1]["seq"]


def exported():  # every access in the mount's log, in its order
    out = []
    for f in sorted(glob.glob(logdir + "/mount-*/*.jsonl")):
        out += [r for r in map(json.loads, read(f).split(b"\n")[:-1]) if r["event"].startswith("file.") and r["event"] != "file.close"]
    return [str(r["seq"]) for r in out]


def mount_messages(ms):
    return [x.record.split()[1] for x in ms if x.record and x.event.startswith("file.")]


def arrived():
    """All of the mount's log that there is has been received, and written by the receiver: what it holds in memory when it is stopped is its own affair."""
    return set(exported()) <= set(mount_messages(receiver.messages()))


def settled():
    s = state()
    return s["connected"] and s["spool_empty"] and s["spool_bytes"] == 0 and not [f for f in os.listdir(spool) if f.endswith(".spool")]


step("switching it on is a choice")
configure(release_study_uids="no")
w.fails(2, ["release-study-uids"], "leadglass", "audit", "export", "--follow", "--config", conf)
configure(ca=None)
w.fails(2, ["ca ="], "leadglass", "audit", "export", "--follow", "--config", conf)
configure(colour="blue")
w.fails(2, ["colour", "audit.conf:"], "leadglass", "audit", "export", "--follow", "--config", conf)
assert not [r for r in json.loads(w.cli("audit", "query", "--json", "--event", "config")) if "audit.export" in r.get("text", "")]

step("it arrives, and is what the standard wants")
receiver.start()
configure()
uid = json.loads(w.cli("study", "list", "--json"))[0]["uid"]
with Exporter() as e:
    read(os.path.join(m, "ct"))
    wait_for(lambda: any(x.id == "110103" and uid in x.xml and 'EventActionCode="R"' in x.xml for x in receiver.messages()))
    wait_for(settled)  # what was delivered is gone
    s = status()
    assert s["running"] and s["pid"] == e.p.pid and s["delivered"] >= begun - 1 and s["outage_since"] == 0, s
    w.fails(7, ["another export"], "leadglass", "audit", "export", "--follow", "--config", conf)
    w.fails(3, [], "leadglass", "slot", "test", "passphrase", "--passphrase-file", "/etc/hostname")
    wait_for(lambda: any(x.event == "slot.test" and "110132" in x.xml and x.pri == "84" for x in receiver.messages()))
    w.cli("audit", "query", "--json")
    wait_for(lambda: any(x.id == "110101" for x in receiver.messages()))
got = receiver.messages()
assert {"110100", "110101", "110103", "110113"} <= {x.id for x in got}
for x in got:
    assert (x.version, x.app, x.msgid, x.pri) == ("1", "leadglass", "DICOM+RFC3881", "85" if 'OutcomeIndicator="0"' in x.xml else "84"), vars(x)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|\+00:00)", x.time) and 'AuditSourceID="pacs-test"' in x.xml and x.time[:26] in x.xml
configs = [r for r in json.loads(w.cli("audit", "query", "--json", "--event", "config")) if "audit.export" in r.get("text", "")]
assert len(configs) == 1 and "syslog-tls://localhost:%d" % receiver.port in configs[0]["text"], configs
if shutil.which("jing"):
    for i, x in enumerate(got):
        write(w.path("m%03d.xml" % i), x.xml.encode())
    r = subprocess.run(["jing", "-c", os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "unit", "dicom-audit.rnc")] + sorted(glob.glob(w.path("m*.xml"))), stdout=subprocess.PIPE, text=True)
    assert r.returncode == 0, r.stdout
else:
    left_out("the messages against the standard's schema", "jing is not installed")

step("who may not: no certificate, another's; and a receiver that is not who it should be")
before = len(receiver.lines())
for wrong in ({"certificate": None, "key": None}, {"certificate": w.path("stranger.pem"), "key": w.path("stranger.key")}, {"ca": w.path("otherca.pem")}, {"server_name": "elsewhere.example"}):
    configure(**wrong)
    with Exporter() as e:
        read(os.path.join(m, "ct"))
        e.says("certificate" if "ca" in wrong or "server_name" in wrong else "receiver")
        wait_for(lambda: not state()["spool_empty"])
        if "certificate" in wrong:  # TLS 1.3: refused only after the handshake; longer than what is sent has to settle
            time.sleep(2.5)
        assert not state()["spool_empty"], wrong  # refused is not delivered
assert len(receiver.lines()) == before, receiver.lines()[before:]
step("a receiver that refuses late: TLS 1.3 lets us send before it has looked at our certificate")


class Late(threading.Thread):
    """Answers the hello, takes what comes for a second, and only then looks at the certificate, which is none of its CA."""
    def __init__(self):
        super().__init__(daemon=True)
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port, self.refused = self.listener.getsockname()[1], 0
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.context.minimum_version = ssl.TLSVersion.TLSv1_3
        self.context.load_cert_chain(w.path("server.pem"), w.path("server.key"))
        self.context.load_verify_locations(w.path("otherca.pem"))
        self.context.verify_mode = ssl.CERT_REQUIRED

    def run(self):
        while True:
            c = self.listener.accept()[0]
            i, o = ssl.MemoryBIO(), ssl.MemoryBIO()
            t = self.context.wrap_bio(i, o, server_side=True)
            c.settimeout(60)
            try:
                for _ in range(2):
                    i.write(c.recv(65536))
                    try:
                        t.do_handshake()
                    except ssl.SSLWantReadError:
                        pass
                    c.sendall(o.read())
                    time.sleep(1)
            except (ssl.SSLError, OSError):
                self.refused += 1
                try:
                    c.sendall(o.read())
                except OSError:
                    pass
            c.close()


late = Late()
late.start()
configure(port=late.port)
read(os.path.join(m, "ct"))
with Exporter() as e:
    wait_for(lambda: late.refused)
    e.says("receiver ended the connection")
    wait_for(lambda: not state()["connected"] and not state()["spool_empty"] and glob.glob(spool + "/*.spool"))
assert late.refused

certificate_mode = os.stat(w.path("client.key")).st_mode
os.chmod(w.path("client.key"), 0o644)
configure()
with Exporter() as e:
    e.says("chmod o=")
os.chmod(w.path("client.key"), certificate_mode)

step("the receiver is away: spooled, encrypted; killed and started again; all of it, in order")
configure()
with Exporter() as e:
    wait_for(arrived)
    wait_for(lambda: state()["spool_empty"])
receiver.stop()
with Exporter() as e:
    write(os.path.join(m, "mr"), data["MR_small.dcm"])
    for i in range(30):
        write(os.path.join(m, "mr%d" % i), data["MR_small.dcm"])
    e.says("Connection refused")
    wait_for(lambda: status()["outage_since"] >= begun)
    assert "cannot be reached since" in w.cli("status", "--config", conf)
    wait_for(lambda: glob.glob(spool + "/*.spool"))
    mr = [s for s in json.loads(w.cli("study", "list", "--json")) if s["modality"] == "MR"][0]
    for i in range(3):
        e.kill()
        assert not status()["running"]  # though it could not say so
        for f in os.listdir(spool):
            body = read(os.path.join(spool, f))
            for word in (mr["uid"], mr["patient_id"], uid, "AuditMessage", "DICOM+RFC3881"):
                assert word.encode() not in body, (word, "stands in", f)
        e.__enter__()
        os.unlink(os.path.join(m, "mr%d" % i))
        time.sleep(0.3)
    receiver.start()
    wait_for(lambda: arrived() and settled())  # it asks again with pauses
    receiver.stop(signal.SIGKILL)  # while connected
    read(os.path.join(m, "mr9"))
    last = newest()
    e.says("receiver")
    receiver.start()
    wait_for(lambda: str(last) in mount_messages(receiver.messages()))
    wait_for(lambda: arrived() and settled())
sent = mount_messages(receiver.messages())
once = list(dict.fromkeys(sent))
assert once == exported()[:len(once)] and int(once[-1]) >= last, (once, exported())
print(len(sent), "messages of the mount's log,", len(sent) - len(once), "of them twice")

step("locked: names cannot be asked for, so it waits; a destroyed study is named in the message that says so")
with Exporter() as e:
    w.cli("lock")
    w.cli("unlock", "--passphrase-file", w.passphrase)
    m = w.remount()
    named = lambda: sum(mr["uid"] in x.xml for x in receiver.messages())
    before = named()
    read(os.path.join(m, "mr9"))
    wait_for(lambda: named() > before)  # so it has asked for the study's name; once destroyed, nobody can
    w.cli("study", "revoke", mr["uid"], "--reason", "over", "--now")
    wait_for(lambda: any(x.id == "110105" for x in receiver.messages()))
    gone = [x for x in receiver.messages() if x.id == "110105"][-1]
    assert mr["uid"] in gone.xml and 'DataLifeCycle="15"' in gone.xml
    raises(errno.EKEYREVOKED, read, os.path.join(m, "mr9"))
    wait_for(lambda: any("EKEYREVOKED" in x.xml for x in receiver.messages()))
    assert not any("EKEYREVOKED" in x.xml and mr["uid"] in x.xml for x in receiver.messages())
w.cli("lock")
with Exporter() as e:
    e.says("locked")
    w.unlock()
    wait_for(arrived)

step("a full spool: the log waits, nothing is lost")
receiver.stop()
m = w.remount()
configure(spool_mib=1)
with Exporter() as e:
    for i in range(200):  # each another process: four records of its own
        pid = os.fork()
        if not pid:
            try:
                read(os.path.join(m, "ct"))
                os.chmod(os.path.join(m, "ct"), 0o640)
                write(os.path.join(m, "new%d" % i), b"x")
                os.unlink(os.path.join(m, "new%d" % i))
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
    read(os.path.join(m, "ct"))
    e.says("spool is full")
    wait_for(lambda: state()["spool_full"])  # written a moment after it is said
    assert sum(os.path.getsize(f) for f in glob.glob(spool + "/*.spool")) <= 1 << 20
    last = newest()
    assert str(last) not in once
    receiver.start()
    wait_for(lambda: str(last) in mount_messages(receiver.messages()))
    e.says("room again")
    wait_for(lambda: arrived() and settled() and not state()["spool_full"])
once = list(dict.fromkeys(mount_messages(receiver.messages())))
assert once == exported()[:len(once)] and int(once[-1]) >= last

step("damage: said, set aside, and the rest goes on; another keyring's spool is not touched")
receiver.stop()
with Exporter() as e:
    read(os.path.join(m, "ct"))
    e.says("Connection refused")  # so it has noted what it wants to send: the first message at least is there for good
    e.kill()
    f = sorted(glob.glob(spool + "/*.spool"))[0]
    b = bytearray(read(f))
    b[40] ^= 1  # in that message, behind the header
    write(f, b)
    receiver.start()
    e.__enter__()
    e.says("damaged")
    wait_for(lambda: glob.glob(spool + "/*.damaged"))
receiver.stop()
with Exporter() as e:
    read(os.path.join(m, "ct"))
    e.says("Connection refused")
    e.kill()
    assert len(glob.glob(spool + "/*.spool")) == 1
    f = glob.glob(spool + "/*.spool")[0]
    b = bytearray(read(f))
    b[24] ^= 1
    write(f, b)
    e.__enter__()
    wait_for(lambda: e.p.poll() is not None)
    assert e.p.returncode == 1 and "another keyring" in e.said(), e.said()
    e.p.returncode = 0

step("TCP without TLS, only when it is asked for; and a period at once")
shutil.rmtree(spool)
receiver = Receiver(tls=False)
receiver.start()
configure(tls="no", ca=None, certificate=None, key=None)
with Exporter() as e:
    read(os.path.join(m, "ct"))
    wait_for(lambda: str(newest()) in mount_messages(receiver.messages()))
assert "syslog-tcp://" in json.loads(w.cli("audit", "query", "--json", "--event", "config"))[-1]["text"]
receiver.stop()
xml = w.cli("audit", "export", "--dicom", "--event", "file.open", "--from", "1h").splitlines()
assert xml and all("110103" in x for x in xml) and any(uid in x for x in xml)
w.cli("audit", "export", "--dicom", "--out", w.path("all.xml"))
assert os.stat(w.path("all.xml")).st_mode & 0o777 == 0o600 and len(read(w.path("all.xml")).splitlines()) > len(xml)
assert not any(uid in x for x in w.cli("audit", "export", "--dicom", "--offline", logdir).splitlines())
w.fails(2, ["--follow"], "leadglass", "audit", "export")
print("ok")
