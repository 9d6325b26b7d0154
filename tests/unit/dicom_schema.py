"""Every kind of DICOM audit message against the standard's schema as we render it (dicom-audit.rnc), by jing; and messages that are wrong in one place each fail."""
import glob, os, re, shutil, subprocess, sys, tempfile

if not shutil.which("jing"):
    print("SKIPPED: jing is not installed")
    sys.exit(77)
schema = os.path.join(os.path.dirname(os.path.abspath(__file__)), "dicom-audit.rnc")
with tempfile.TemporaryDirectory() as d:
    good, bad = os.path.join(d, "good"), os.path.join(d, "bad")
    os.mkdir(good)
    os.mkdir(bad)
    subprocess.run([sys.argv[1], "--write", good], check=True)
    files = sorted(glob.glob(good + "/*.xml"))
    assert len(files) > 30, files
    r = subprocess.run(["jing", "-c", schema] + files, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert r.returncode == 0 and not r.stdout, r.stdout

    text = {f: open(f, encoding="utf-8").read() for f in files}
    accessed, alert, used, activity = (next(t for t in text.values() if c in t) for c in ("110103", "110113", "110101", "110100"))
    study = next(t for t in text.values() if "110103" in t and "1.2.840.99.7" in t)
    wrong = [re.sub(*how, t, count=1) for t, how in (
        (accessed, ("<ActiveParticipant.*(?=<AuditSourceIdentification)", "")), (accessed, (' UserIsRequestor="true"', "")), (accessed, (' UserIsRequestor="true"', ' UserIsRequestor="maybe"')),
        (accessed, ('EventActionCode="."', 'EventActionCode="E"')), (accessed, ('EventDateTime="[^"]*"', 'EventDateTime="yesterday"')),
        (accessed, ('OutcomeIndicator="."', 'OutcomeIndicator="5"')), (accessed, ('csd-code="110103"', 'csd-code="110199"')), (accessed, (' AuditSourceID="[^"]*"', "")),
        (accessed, ("<AuditSourceIdentification.*</AuditSourceIdentification>", "")), (study, ("1\\.2\\.840\\.99\\.7", "1.2.x")), (study, ('TypeCodeRole="3"', 'TypeCodeRole="4"')),
        (study, ("<ParticipantObjectName>[^<]*</ParticipantObjectName>", "")), (study, ('value="[^"]+"', 'value="no base64!"')), (study, (' originalText="Study Instance UID"', "")),
        (study, ("<ParticipantObjectIdentification .*</ParticipantObjectIdentification>", "")), (alert, ("<EventTypeCode[^>]*/>", "")), (alert, ("Alert Description", "Alert")),
        (alert, ("<EventTypeCode csd-code=\"[^\"]*\"", '<EventTypeCode csd-code="110120"')), (used, ("Security Audit Log", "Log")), (used, ("file://", "")),
        (activity, ('csd-code="110150"', 'csd-code="110153"')), (accessed, ("</AuditMessage>", "<More/></AuditMessage>")), (accessed, ("</AuditMessage>", "")))]
    for i, t in enumerate(wrong):
        assert t not in text.values(), i
        open(os.path.join(bad, "%02d.xml" % i), "w", encoding="utf-8").write(t)
    r = subprocess.run(["jing", "-c", schema] + sorted(glob.glob(bad + "/*.xml")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    passed = [i for i in range(len(wrong)) if "bad/%02d.xml" % i not in r.stdout]
    assert r.returncode and not passed, (passed, r.stdout)
print(len(files), "messages valid,", len(wrong), "wrong ones found")
