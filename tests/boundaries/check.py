"""Who may include what, which calls nobody may make, and what stands at the top of the tree."""
import os, re, subprocess, sys

top = sys.argv[1]
bad = []
LIBRARY = {  # header: the only places for it
    r"fuse.*\.h": ("fs/front/",), r"lmdb\.h": ("keymgr/keyring/store.c",), r"liburing.*": ("fs/io/",), r"openssl/.*": ("keymgr/crypto/",),
    r"zstd\.h": ("keymgr/audit/pack.c",), r"zlib\.h": ("fs/classify/inflate.c",), r"cjson/.*": ("tools/cli/",), r"ini\.h": ("fs/front/rules.c",)}
PURE = {"keymgr/audit/": {"audit", "follow", "crypto", "bytes", "secret", "status", "study"}, "fs/format/": {"format", "crypto", "bytes", "secret", "status", "study"}, "fs/names/": {"names", "crypto", "bytes", "status", "study", "secret"},
        "fs/classify/": {"classify", "study", "status", "bytes"}, "fs/journal/": {"journal", "format", "sys", "bytes", "crypto", "status"}}
UPWARD = {"fs/volume/": {"scrub"}, "fs/file/": {"volume", "names", "scrub"}, "fs/front/": {"scrub"}, "keymgr/": {"scrub", "format", "names", "classify", "journal", "file", "volume", "sys", "keys"}, "fs/": set()}
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
for b in bad:
    print(b)
assert files > 50, files
print(files, "files")
sys.exit(1 if bad else 0)
