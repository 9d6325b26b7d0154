#!/usr/bin/python3
"""How much of each parser of foreign bytes the fuzzers' corpora reach.

  tests/fuzz/coverage.py [--seconds N] [--keep] [--lines] [--build DIR] [FUZZER...]

Builds the fuzzers with clang's source coverage, runs each over its corpus, and prints for every source file that parses foreign bytes how many of the
parser's lines were reached; the parser is what the table below names: the whole file, or those of its functions. Exit status 1: less than 90 % of one.

  --seconds N   let each fuzzer look for more inputs for N seconds first (in a directory of its own)
  --keep        and add to the committed corpus those that reach something new
  --lines       print the lines not reached
  --build DIR   where to build (build/coverage)

Lines that no input can reach (memory that runs out, a library that fails) are named in UNREACHABLE with the reason, and do not count."""
import argparse, json, os, re, shutil, subprocess, sys

ROOT = os.path.realpath(os.path.join(os.path.dirname(__file__), "..", ".."))
CORPUS = os.path.join(ROOT, "tests", "fuzz", "corpus")

# What parses: source file, and the functions that do if not all of it.
PARSERS = [
    ("file header and slots", "fs/format/slot.c", "lg_s0_decode|lg_slot_decode|slot_read|zeros?"),
    ("vault header", "fs/volume/vault.c", "lg_vault_read|decode|header_read"),
    ("journal: header", "fs/journal/journal.c", "header_check"),
    ("journal: records", "fs/journal/record.c", None),
    ("journal: replay", "fs/journal/replay.c", None),
    ("files: opening", "fs/file/load.c", "(?!lg_lock_.*|lg_file_unload|lg_file_settle).*"),
    ("files: tables", "fs/file/table.c", "zeros|take|load_run|lg_table_load|lg_entry_get|full|page_get"),
    ("files: chunks", "fs/file/rw.c", "bad_chunk|open_part|arrived|cached_part|forget|read_run|lg_chunk_load|read_locked|lg_file_read"),
    ("files: salvage", "fs/file/salvage.c", None),
    ("files: looked at", "fs/file/look.c", None),
    ("files: after an error", "fs/file/suspect.c", None),
    ("files: verified", "fs/file/check.c", None),
    ("files without a key", "fs/scrub/keyless.c", None),
    ("names to be linked anew", "fs/volume/intent.c", "lg_intent_part|path_ok|lg_intent_decode|lg_intent_tmp|lg_intent_free|read_at|lg_vault_relink"),
    ("times of moved files", "fs/volume/rekey.c", "lg_mtime_moved"),
    ("names below", "fs/names/names.c", ".*_open|.*_is_.*|.*_lower"),
    ("names below", "fs/names/lower.c", None),
    ("base64", "keymgr/wire/bytes.c", "lg_b64_decode|lg_rd.*"),
    ("studies: any file", "fs/classify/classify.c", None),
    ("studies: DICOM", "fs/classify/dicom.c", None),
    ("studies: zlib", "fs/classify/inflate.c", None),
    ("studies: JSON", "fs/classify/json.c", None),
    ("studies: text", "fs/classify/text.c", None),
    ("path rules", "fs/front/rules.c", None),
    ("options of a mount", "fs/front/options.c", None),
    ("INI", "keymgr/config/config.c", None),
    ("manifests: entries", "fs/scrub/item.c", None),
    ("manifests: files", "fs/scrub/manifest.c", "stream_.*|sig_of|keep_until|verify|lg_manifest_(open|next|rewind|create|look)"),
    ("manifests: signatures", "keymgr/wire/manifestsig.c", None),
    ("access log: directory", "keymgr/audit/dir.c", "number_of|lg_audit_segments|lg_audit_chain_read|lg_audit_chains|keep|split|lg_audit_(lines|read|read_heads|verify)|open_segment|on_.*|feed_.*"),
    ("access log: compressed", "keymgr/audit/pack.c", "lg_unpack.*"),
    ("access log: ends", "keymgr/audit/ends.c", None),
    ("access log: followed", "keymgr/audit/chase.c", None),
    ("position of a follower", "keymgr/audit/position.c", None),
    ("access log: records", "keymgr/audit/record.c", None),
    ("access log: text", "keymgr/audit/text.c", "next|lg_scan_.*|hex_digit|unit|put_utf8|unescape"),
    ("access log: chains", "keymgr/audit/verify.c", None),
    ("access log: in memory", "keymgr/audit/ring.c", None),
    ("access log: heads", "keymgr/audit/chain.c", "lg_audit_envelope|lg_audit_head_parse"),
    ("wire: messages", "keymgr/wire/message.c", "(rd_|answer_body|lg_.*_decode|known|frame_read|head).*"),
    ("wire: acts", "keymgr/wire/act.c", ".*_decode|.*_ok|rd_.*|purposed|lg_act_verify"),
    ("wire: certificates", "keymgr/wire/certificate.c", ".*_decode|.*_verify|zero"),
    ("wire: errands of acts", "keymgr/wire/errand.c", ".*_decode"),
    ("wire: governance", "keymgr/wire/governance.c", ".*_decode|rd_.*"),
    ("officers' key files", "keymgr/client/officerkey.c", "body|lg_officer_pub_parse|lg_officer_key_open"),
    ("keyring: records", "keymgr/keyring/record.c", "lg_record_parse|control_parse|.*parse.*"),
    ("keyring: pages", "keymgr/keyring/pages.c", None),
    ("keyring: any row", "keymgr/keyring/checkrow.c", None),
    ("vaults' anchors", "keymgr/keyring/seen.c", "decode"),
    ("printed shares", "keymgr/crypto/shares.c", "share_ok|digit|group_read|lg_share_group_check|passed_over|lg_share_parse"),
    ("file of tombstones", "keymgr/keyring/tombstone.c", "lg_tombstones_(check|next)"),
    ("tombstones at a restore", "keymgr/keyring/restore.c", "import_tombstones|retired|quarantine"),
    ("root-slot file", "keymgr/keyring/slotfile.c", "lg_slotfile_decode|.*decode.*"),
    ("in a TPM, and sealed", "keymgr/tpm/blob.c", "(?!lg_pcrs_selection).*"),
    ("alerts: configuration", "tools/alert/config.c", "(?!lg_alert_facility).*"),
    ("alerts: state", "tools/alert/rules.c", "lg_alert_decode|load_counts|lg_alerts_load.*"),
    ("alerts: counts in it", "tools/alert/window.c", "lg_pairs_load"),
    ("alerts: queue in it", "tools/alert/deliver.c", "lg_delivery_load"),
    ("export: spool", "tools/export/spoolbytes.c", "lg_spool_note_decode|lg_spool_header_check|lg_spool_unseal"),
    ("export: directory", "tools/export/spool.c", "name_of|add|drop|list|header_read|check_headers|delivered_read|hold_against|lg_spool_open|damaged|lg_spool_next"),
    ("export: settings", "tools/export/settings.c", None),
    ("watch's, export's state", "tools/cli/auditstate.c", None),
    ("export's state shown", "tools/cli/exporter.c", "state_show"),
    ("key of a file", "tools/cli/walk.c", "cli_key_parse"),
    ("state of a scrub", "tools/cli/state.c", "go_on|next|stat_read|state_open"),
    ("certificates as JSON", "tools/cli/certificate.c", "certificate_verify|bytes_of"),
    ("keyring backups' headers", "keymgr/keyring/backup.c", "lg_backup_header_read"),
    ("keyring backups", "keymgr/keyring/restore.c", "lg_backup_check|frames_read|import_meta|import_key|import_row"),
]

# Source file, a regular expression for the line, why it cannot be reached.
UNREACHABLE = [
    (r".*", r"-ENOMEM|out of memory", "memory does not run out"),
    (r"fs/journal/.*|fs/volume/vault.c|keymgr/keyring/pages.c", r"return \(int\)n;|return -errno;|rc = \(int\)got;|return got < 0 \? -errno", "the file below does not fail"),
    (r"fs/journal/record.c", r"uint8_t \*z = calloc|for \(uint64_t done|size_t n = len - done|lg_write_full\(sys, fd, z|done \+= n;|free\(z\);", "holes can be punched on /dev/shm"),
    (r"keymgr/keyring/restore.c", r"im->k.root.epoch|lg_keyring_fill|lg_bucket_siv\(|lg_version_wrap\(|LG_KEY_RESTORED|quarantine\(|r->changed|r->reason|quarantined|lg_store_|lg_record_put|in_batch = 0|im->write", "only a restore writes"),
    (r"fs/file/suspect.c", r"s->all = true", "memory does not run out"),
    (r"fs/file/look.c", r"publish\(f\);|f->seen_waiting|pthread_cond_wait|return false;|^        return;", "only while another thread is in the file (file_test)"),
    (r"keymgr/audit/(dir|chase|pack|ends)\.c", r"return -errno;|-ENAMETOOLONG|errno == EINTR|^                continue;|return dirfd;", "the directory is there, and what is in it can be read"),
    (r"keymgr/config/config.c", r"int rc = -errno|%s: %s|return rc;|cannot be read|return line < -1|^    }$", "only a file that is there and can be read is given"),
    (r"fs/front/options.c", r"case '[sfduhV]':|wrong\(.see leadglass|wrong\(.expected VAULT", "of the command line only what -o says comes from elsewhere (fstab)"),
    (r"tools/cli/state.c", r"line\(r, header\(r\)\);|strerror\(errno\)", "only a state that is there is read"),
]


def run(argv, **kw):
    return subprocess.run(argv, check=True, **kw)


def build(directory, names):
    run(["cmake", "-S", ROOT, "-B", directory, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_C_COMPILER=clang", "-DLG_FUZZ=ON",
         "-DCMAKE_C_FLAGS=-O1 -fprofile-instr-generate -fcoverage-mapping"], stdout=subprocess.DEVNULL)
    run(["ninja", "-C", directory] + names, stdout=subprocess.DEVNULL)


def collect(directory, name, seconds, keep):
    """Runs one fuzzer; returns its raw profile."""
    work, corpus = os.path.join(directory, "corpus-" + name), os.path.join(CORPUS, name)
    program = os.path.join(directory, "bin", name)
    profile = os.path.join(directory, name + ".profraw")
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    os.makedirs(work, exist_ok=True)
    unprofiled = dict(os.environ, LLVM_PROFILE_FILE="/dev/null")
    if seconds:
        r = subprocess.run([program, "-max_total_time=%d" % seconds, "-timeout=10", "-print_final_stats=1", work, corpus], env=unprofiled, **quiet)
        if r.returncode:
            sys.exit("%s: %s" % (name, r.stderr[-3000:]))
        print("%s: %s executions" % (name, re.search(r"number_of_executed_units: (\d+)", r.stderr).group(1)), flush=True)
        if keep:
            run([program, "-merge=1", "-timeout=10", corpus, work], env=unprofiled, **quiet)
    inputs = [corpus] + ([work] if seconds and not keep else [])
    run([program, "-runs=0", "-timeout=10"] + inputs, env=dict(os.environ, LLVM_PROFILE_FILE=profile), **quiet)
    return profile


def export(directory, names, merged, fmt):
    objects = [x for n in names for x in ("-object", os.path.join(directory, "bin", n))][1:]
    return run(["llvm-cov", "export", "-format=" + fmt, "-instr-profile=" + merged] + objects, stdout=subprocess.PIPE, text=True).stdout


def lines_of(lcov):
    """{file: {line: hits}}"""
    found, at = {}, None
    for l in lcov.splitlines():
        if l.startswith("SF:"):
            at = found.setdefault(os.path.relpath(l[3:], ROOT), {})
        elif l.startswith("DA:"):
            n, hits = l[3:].split(",")[:2]
            at[int(n)] = max(at.get(int(n), 0), int(hits))
    return found


def functions_of(text):
    """{file: {function: (first line, last)}}"""
    found = {}
    for f in json.loads(text)["data"][0]["functions"]:
        r = f["regions"][0]
        found.setdefault(os.path.relpath(f["filenames"][0], ROOT), {})[f["name"].rsplit(":", 1)[-1]] = (r[0], r[2])
    return found


def report(lines, functions, show):
    bad, skipped = False, {}
    for what, path, wanted in PARSERS:
        source = open(os.path.join(ROOT, path)).read().splitlines()
        spans = [s for n, s in functions.get(path, {}).items() if wanted is None or re.fullmatch(wanted, n)]
        hits = {n: h for n, h in lines.get(path, {}).items() if wanted is None or any(a <= n <= b for a, b in spans)}
        if not spans:
            print("%-24s %-32s nothing of it is in any fuzzer" % (what, path))
            bad = True
            continue
        missed = []
        for n in sorted(n for n in hits if not hits[n]):
            reason = next((why for file, pattern, why in UNREACHABLE if re.fullmatch(file, path) and re.search(pattern, source[n - 1])), None)
            if reason:
                skipped.setdefault(reason, []).append("%s:%d" % (path, n))
                del hits[n]
            else:
                missed.append(n)
        percent = 100.0 * (len(hits) - len(missed)) / len(hits)
        bad |= percent < 90
        print("%-24s %-32s %4d of %4d lines  %5.1f %%%s" % (what, path, len(hits) - len(missed), len(hits), percent, "" if percent >= 90 else "  below 90 %"))
        if show:
            for n in missed:
                print("    %d: %s" % (n, source[n - 1]))
    for reason, where in sorted(skipped.items()):
        print("not counted, %s: %s" % (reason, ", ".join(where)))
    return bad


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--seconds", type=int, default=0)
    p.add_argument("--keep", action="store_true")
    p.add_argument("--lines", action="store_true")
    p.add_argument("--build", default=os.path.join(ROOT, "build", "coverage"))
    p.add_argument("fuzzer", nargs="*")
    a = p.parse_args()
    for tool in ("clang", "llvm-cov", "llvm-profdata"):
        if not shutil.which(tool):
            print("SKIPPED: %s is missing" % tool)
            return 77
    every = sorted(f[:-2] for f in os.listdir(os.path.join(ROOT, "tests", "fuzz")) if f.endswith("_fuzz.c"))
    names = a.fuzzer or every
    build(a.build, names)
    raw = [collect(a.build, n, a.seconds, a.keep) for n in names]
    merged = os.path.join(a.build, "fuzzers.profdata")
    run(["llvm-profdata", "merge", "-o", merged] + raw)
    return 1 if report(lines_of(export(a.build, names, merged, "lcov")), functions_of(export(a.build, names, merged, "text")), a.lines) else 0


sys.exit(main())
