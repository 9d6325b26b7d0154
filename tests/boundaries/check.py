"""Who may include what, which calls nobody may make, and what stands at the top of the tree."""
import os, re, subprocess, sys

top = sys.argv[1]
bad = []
LIBRARY = {  # header: the only places for it
    r"fuse.*\.h": ("fs/front/", "tools/bench/passthrough.c"), r"intel-ipsec-mb\.h": ("keymgr/crypto/gcm_ipsec.c",), r"lmdb\.h": ("keymgr/keyring/store.c",), r"liburing.*": ("fs/io/",), r"openssl/.*": ("keymgr/crypto/", "tools/export/link.c"),
    r"zstd\.h": ("keymgr/audit/pack.c",), r"zlib\.h": ("fs/classify/inflate.c",), r"cjson/.*": ("tools/cli/", "tools/alert/"), r"ini\.h": ("keymgr/config/",),
    r"tss2/.*": ("keymgr/tpm/",)}
PURE = {"keymgr/config/": {"config", "status"}, "keymgr/tpm/": {"tpm", "secret", "bytes", "crypto", "status"}, "tools/alert/": {"audit", "config", "bytes", "crypto", "secret", "status", "study"}, "keymgr/audit/": {"audit", "clock", "write", "follow", "crypto", "bytes", "secret", "status", "study"}, "fs/format/": {"format", "crypto", "bytes", "secret", "status", "study"}, "fs/names/": {"names", "crypto", "bytes", "status", "study", "secret"},
        "fs/classify/": {"classify", "study", "status", "bytes"}, "fs/journal/": {"journal", "format", "sys", "huge", "bytes", "crypto", "status"}}
UPWARD = {"keymgr/keyring/": {"tpm"}, "keymgr/client/": {"tpm"}, "tools/": {"tpm"}, "fs/volume/": {"scrub"}, "fs/file/": {"volume", "names", "scrub"}, "fs/front/": {"scrub"}, "keymgr/": {"scrub", "format", "names", "classify", "journal", "file", "volume", "sys", "keys"}, "fs/": {"tpm"}}
BANNED = re.compile(r"(?<![\w.>])(strcpy|strcat|sprintf|vsprintf|gets|strtok|rand|srand|system|popen|alloca|atoi|atol|tmpnam|mktemp|strncpy|strncat)\s*\(")
TOP = {"CMakeLists.txt", "CMakePresets.json", "fs", "keymgr", "include", "tests", "tools", "packaging", "docs", "README.md", "LICENSE"}

for name in os.listdir(top):
    if not name.startswith(".") and name not in TOP and name != "build":
        bad.append("%s: does not belong at the top of the tree" % name)
files = 0
for d in ("fs", "keymgr", "include", "tools", "tests", "docs", "packaging", ".ci", ""):
    for at, dirs, names in os.walk(os.path.join(top, d)):
        if d == "":
            dirs[:] = []
        dirs[:] = [x for x in dirs if x not in ("corpus", "samples")]
        for n in names:
            path = os.path.join(at, n)
            rel = os.path.relpath(path, top)
            if not n.endswith((".c", ".h", ".py", ".md", ".txt", ".cmake", ".sh", ".json", ".service")) and "." in n:
                continue
            try:
                text = open(path, encoding="utf-8").read()
            except UnicodeDecodeError:
                continue
            files += 1
            for i, line in enumerate(text.split("\n"), 1):
                where = "%s:%d: " % (rel, i)
                if line != line.rstrip():
                    bad.append(where + "white space at the end of the line")
                if not n.endswith((".c", ".h")) or rel.startswith("tests/"):
                    continue
                m = BANNED.search(re.sub(r'"(\\.|[^"\\])*"', '""', line.split("/*")[0]))
                if m:
                    bad.append(where + m.group(1) + " is not used here")
                m = re.match(r'\s*#\s*include\s+[<"]([^>"]+)', line)
                if not m:
                    continue
                for pattern, places in LIBRARY.items():
                    if re.fullmatch(pattern, m.group(1)) and not rel.startswith(places):
                        bad.append(where + m.group(1) + " belongs to " + " ".join(places))
                ours = re.fullmatch(r"leadglass/(\w+)\.h", m.group(1))
                for place, allowed in PURE.items():
                    if ours and rel.startswith(place) and ours.group(1) not in allowed:
                        bad.append(where + "%s may not depend on %s" % (place, ours.group(1)))
                for place, forbidden in UPWARD.items():
                    if ours and rel.startswith(place) and ours.group(1) in forbidden:
                        bad.append(where + "%s may not depend on %s" % (place, ours.group(1)))
# Every request is recorded under a name of its own that docs/AUDIT.md tells of.
messages = set(re.findall(r"^\s+(LG_MSG_\w+) =", open(os.path.join(top, "include/leadglass/wire.h")).read(), re.M)) - {"LG_MSG_LAST"}
told = open(os.path.join(top, "docs/AUDIT.md")).read()
sources = {f: open(os.path.join(top, f)).read() for f in ("keymgr/daemon/audit.c", "keymgr/daemon/requests.c", "keymgr/daemon/officers.c", "keymgr/daemon/worker.c", "keymgr/daemon/rollback.c", "keymgr/audit/keep.c",
                                                          "keymgr/audit/write.c", "keymgr/audit/open.c", "keymgr/audit/log.c", "fs/front/audit.c", "fs/front/ops.c", "fs/front/run.c")}
table = dict(re.findall(r"\[(LG_MSG_\w+)\] = \{ (NULL|\"[\w.-]+\")", sources["keymgr/daemon/audit.c"]))
for m in sorted(messages - set(table)):
    bad.append("keymgr/daemon/audit.c: %s has no place in the table of what is recorded" % m)
events = {e.strip('"') for e in table.values()} - {"NULL"}
for text in sources.values():
    events |= set(re.findall(r'[^e] "((?:file|key|log|mirror|scrub|slot|study|backup|vault|keyring|session)\.[a-z-]+)"', text))
for action in re.findall(r'\[LG_ACT_\w+\] = \{ "([\w-]+)"', open(os.path.join(top, "keymgr/wire/act.c")).read()):
    events.add("officer." + re.sub("^officer-", "", action))
assert len(messages) > 40 and len(events) > 60, (len(messages), len(events))
for e in sorted(events):
    if "`%s`" % e not in told:
        bad.append("docs/AUDIT.md: tells nothing of the event %s" % e)
for b in bad:
    print(b)
assert files > 50, files
print(files, "files")
sys.exit(1 if bad else 0)
