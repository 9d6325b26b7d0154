#include "scrub.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

enum { SAVE_NS = 2000000000, SAY_NS = 250000000 };

static volatile sig_atomic_t interrupted;
static void on_signal(int n) { interrupted = n; }

uint64_t scrub_now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static struct lg_scrub_stat sum(const struct lg_scrub_stat *a, const struct lg_scrub_stat *b)
{
    struct lg_scrub_stat s = *b;
    s.files += a->files;
    s.dirs += a->dirs;
    s.links += a->links;
    s.others += a->others;
    s.bytes += a->bytes;
    s.verified += a->verified;
    for (unsigned i = 0; i < LG_SCRUB_CLASSES; i++)
        s.found[i] += a->found[i];
    return s;
}

static void log_finding(const struct lg_scrub_finding *f)
{
    char id[2 * LG_ID_LEN + 1] = "-";
    if (f->cls != LG_SCRUB_DAMAGE && f->cls != LG_SCRUB_DIFFERS && f->cls != LG_SCRUB_RECOVERED && f->cls != LG_SCRUB_REPAIRED)
        return;
    if (f->has_id)
        cli_hex(f->file_id, id); /* never the name */
    if (f->to)
        syslog(LOG_WARNING, "scrub: %s: file %s, bytes %llu to %llu: %s", lg_scrub_class_name(f->cls), id, (unsigned long long)f->from, (unsigned long long)f->to - 1, f->kind);
    else
        syslog(LOG_WARNING, "scrub: %s: file %s: %s", lg_scrub_class_name(f->cls), id, f->kind);
}

static void on_finding(void *arg, const struct lg_scrub_finding *f)
{
    struct run *r = arg;
    state_finding(r, f);
    if (!r->keyless)
        log_finding(f);
    if (r->json)
        return;
    if (r->tty)
        fputs("\r\033[K", stderr);
    scrub_print_finding(f);
}

static void progress(struct run *r, const struct lg_scrub_stat *t, uint64_t now)
{
    uint64_t found = t->found[LG_SCRUB_DAMAGE] + t->found[LG_SCRUB_DIFFERS] + t->found[LG_SCRUB_UNREADABLE];
    double s = (double)(now - r->begun_ns) / 1e9, mib = (double)(t->bytes - r->base.bytes) / 1048576;
    fprintf(stderr, "\r\033[K%llu files, %.1f GiB read, %.0f MiB/s, %llu findings", (unsigned long long)t->files, (double)t->bytes / 1073741824, s > 0 ? mib / s : 0, (unsigned long long)found);
    fflush(stderr);
}

static int on_pace(void *arg, const struct lg_scrub_stat *s, bool at_rest, const char *position)
{
    struct run *r = arg;
    struct lg_scrub_stat t = sum(&r->base, s);
    uint64_t now = scrub_now_ns();
    if (r->rate > 0) {
        double due = (double)s->bytes / r->rate, gone = (double)(now - r->begun_ns) / 1e9;
        while (due > gone && !interrupted) { /* in short steps: a lock waits for us */
            double part = due - gone < 0.2 ? due - gone : 0.2;
            struct timespec ts = { 0, (long)(part * 1e9) };
            nanosleep(&ts, NULL);
            gone = (double)(scrub_now_ns() - r->begun_ns) / 1e9;
            if (r->keys && session_pace(r->keys, at_rest))
                break;
        }
        now = scrub_now_ns();
    }
    if (r->tty && now - r->said_ns > SAY_NS) {
        r->said_ns = now;
        progress(r, &t, now);
    }
    bool stop = interrupted && at_rest;
    if (at_rest && r->state && (stop || now - r->saved_ns > SAVE_NS)) {
        r->saved_ns = now;
        state_position(r, &t, position);
    }
    int rc = r->keys ? session_pace(r->keys, at_rest) : 0;
    return rc ? rc : stop ? -EINTR : 0;
}

static int on_salvaging(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN])
{
    const struct run *r = arg;
    return session_salvaging(r->keys, kid, key_version, file_id);
}

static int on_sign(void *arg, struct lg_manifest_sig *s) { return session_sign(arg, s); }

static int exit_of(const struct lg_scrub_stat *t)
{
    return t->found[LG_SCRUB_DAMAGE] ? CLI_DAMAGE : t->found[LG_SCRUB_DIFFERS] ? CLI_DIFFERS : t->found[LG_SCRUB_UNREADABLE] || t->found[LG_SCRUB_UNFINISHED] ? CLI_INCOMPLETE :
           t->found[LG_SCRUB_NO_KEY] ? CLI_UNKNOWN_KEYS : CLI_OK;
}

static int explain_unsigned(const struct run *r)
{
    const char *left = r->state ? "; go on with --resume when that is mended" : "";
    switch (r->unsigned_why) {
    case -ENOTSUP:
        return cli_fail(CLI_FAILED, "manifest %s was not signed, and is not complete: the key manager keeps no access log, and signs nothing that is not on record", r->o.manifest);
    case -ECANCELED:
        return cli_fail(CLI_FAILED, "manifest %s was not signed, and is not complete: the key manager's access log cannot be written, and it signs nothing that is not on record%s", r->o.manifest, left);
    case -ENOKEY:
        return cli_fail(CLI_LOCKED, "manifest %s was not signed, and is not complete: the keyring was locked meanwhile%s", r->o.manifest, left);
    case -EKEYREJECTED:
        return cli_fail(CLI_FAILED, "manifest %s is not complete: what the key manager answered is not its signature%s", r->o.manifest, left);
    default:
        return cli_explain(r->c, r->unsigned_why, "signing the manifest, which is not complete");
    }
}

static int explain(const struct run *r, int rc)
{
    if (r->unsigned_why && rc == r->unsigned_why)
        return explain_unsigned(r);
    switch (rc) {
    case -EINTR:
        return r->state ? cli_fail(CLI_INTERRUPTED, "interrupted. Go on with: leadglass scrub %s --state %s --resume (and the same other options)", r->o.dir, r->state)
                        : cli_fail(CLI_INTERRUPTED, "interrupted. With --state FILE it could go on from here");
    case -ENOKEY:
        return cli_fail(CLI_LOCKED, "the keyring was locked meanwhile%s", r->state ? "; unlock it and go on with --resume" : "");
    case -EBADMSG:
        return cli_fail(CLI_DAMAGE, "manifest %s does not verify under this vault's key: it was changed, or is another's", r->o.against);
    case -EKEYREJECTED:
        return cli_fail(CLI_DAMAGE, "manifest %s is not signed by this key manager: it was forged or changed, or is of another keyring", r->o.against ? r->o.against : r->o.manifest);
    case -ENODATA:
        return cli_fail(CLI_DAMAGE, "manifest %s has lost its signature: it was cut off", r->o.against);
    case -EALREADY:
        return cli_fail(CLI_FAILED, "%s.part was begun by an earlier version of Leadglass, without signatures; begin anew, without --resume", r->o.manifest);
    case -EPROTO:
        return cli_fail(CLI_FAILED, "manifest %s is not a whole manifest", r->o.against ? r->o.against : r->o.manifest);
    case -EXDEV:
        return cli_fail(CLI_FAILED, "manifest %s is another vault's", r->o.against ? r->o.against : r->o.manifest);
    case -EPROTONOSUPPORT:
        return cli_fail(CLI_FAILED, "vault %s or the manifest is of a newer version of Leadglass; nothing was touched", r->o.dir);
    default:
        return cli_fail(CLI_FAILED, "%s: %s", r->o.dir, strerror(-rc));
    }
}

static void summary(const struct run *r, const struct lg_scrub_stat *t)
{
    FILE *f = r->json ? stderr : stdout;
    const char *nothing = r->complete ? " Nothing is wrong.\n" : " Nothing wrong was found so far.\n";
    bool much = t->bytes >= 1u << 30;
    fprintf(f, "%s%llu files (%llu %s), %llu directories, %llu links, %.1f %s%s.", r->complete ? "" : "not complete: ", (unsigned long long)t->files, (unsigned long long)t->verified,
            r->keyless ? "match their checksums" : "verified whole", (unsigned long long)t->dirs, (unsigned long long)t->links, (double)t->bytes / (much ? 1 << 30 : 1 << 20), much ? "GiB" : "MiB",
            t->live ? ", of a vault that is mounted" : "");
    const char *sep = " ";
    for (unsigned i = 0; i < LG_SCRUB_CLASSES; i++)
        if (t->found[i]) {
            fprintf(f, "%s%s %llu", sep, lg_scrub_class_name((enum lg_scrub_class)i), (unsigned long long)t->found[i]);
            sep = ", ";
        }
    fputs(*sep == ' ' ? nothing : ".\n", f);
    if (t->against_version == 1)
        fprintf(f, "Manifest %s is of version 1: it has a MAC alone and no signature, so whoever could ask the key manager for the vault's key could have made it.\n", r->o.against);
    if (t->found[LG_SCRUB_NO_KEY])
        fputs("Unknown keys: the keyring may be older than the vault; a newer copy of it may know them.\n", f);
}

/* For the access log: how much, never which. */
static void found(struct run *r, const struct lg_scrub_stat *t)
{
    static const enum lg_scrub_class wrong[] = { LG_SCRUB_DAMAGE, LG_SCRUB_DIFFERS, LG_SCRUB_UNREADABLE, LG_SCRUB_NO_KEY };
    size_t n = 0;
    for (unsigned i = 0; i < sizeof wrong / sizeof *wrong && n < sizeof r->found; i++)
        if (t->found[wrong[i]])
            n += (size_t)snprintf(r->found + n, sizeof r->found - n, "%s%s %llu", n ? ", " : "", lg_scrub_class_name(wrong[i]), (unsigned long long)t->found[wrong[i]]);
}

/* One that has lost its header alone is a damaged vault. */
static bool no_vault(const char *dir)
{
    char root[PATH_MAX];
    struct stat st;
    return stat(dir, &st) == 0 && snprintf(root, sizeof root, "%s/root", dir) < (int)sizeof root && stat(root, &st) && errno == ENOENT;
}

static int run(struct run *r)
{
    char *position = NULL;
    struct lg_scrub_stat st = { 0 };
    struct lg_vault_info info;
    int code = 0, rc = 0;
    if (r->keyless && (rc = lg_vault_read(r->o.dir, &info)) == 0)
        memcpy(r->vault_id, info.vault_id, LG_ID_LEN);
    else if (r->keyless && rc == -ENOENT && no_vault(r->o.dir))
        code = cli_fail(CLI_FAILED, "%s is not a vault: neither leadglass.vault nor root is in it. Name the directory with the ciphertext, not where it is mounted", r->o.dir);
    rc = 0;
    if (!r->keyless)
        code = session_open(r, r->o.dir);
    if (!code)
        code = state_open(r, &position);
    if (!code && r->o.accept_crash)
        syslog(LOG_WARNING, "scrub --accept-crash of %s by uid %u: half-committed files are accepted whatever session wrote them", r->o.dir, getuid());
    bool begun = !code && !r->complete;
    if (begun) {
        r->o.resume = position;
        r->begun_ns = r->said_ns = r->saved_ns = scrub_now_ns();
        rc = lg_scrub_run(&r->o, &st);
        r->complete = !rc;
    }
    struct lg_scrub_stat t = sum(&r->base, &st);
    if (r->tty)
        fputs("\r\033[K", stderr);
    found(r, &st);
    int closed = session_close(r, begun && r->complete && !r->resume && !r->read_only && !st.found[LG_SCRUB_UNREADABLE]);
    if (begun && r->complete)
        state_done(r, &t);
    if (!code && r->log_bad)
        code = cli_fail(CLI_FAILED, "%s: could not be written", r->state ? r->state : "a temporary file");
    if (!code && rc)
        code = explain(r, rc);
    if (!code && closed)
        code = closed;
    if (!code)
        code = exit_of(&t);
    if (r->log && r->json) {
        int p = state_print(r, &t);
        code = code ? code : p;
    }
    if (r->log && (r->tty || !r->json))
        summary(r, &t);
    if (r->log)
        fclose(r->log);
    free(position);
    return code;
}

static int check(const struct run *r)
{
    struct stat st;
    if (r->keyless && (r->read_only || r->o.accept_crash || r->o.manifest || r->o.against || r->o.repair || r->o.remove || r->o.salvage))
        return cli_fail(CLI_USAGE, "--keyless only looks: --read-only, --accept-crash, --manifest, --against, --repair, --remove and --salvage need keys");
    if (r->read_only && (r->o.accept_crash || r->o.repair || r->o.remove))
        return cli_fail(CLI_USAGE, "--read-only does not go with --accept-crash, --repair and --remove: they write");
    if (r->resume && !r->state)
        return cli_fail(CLI_USAGE, "--resume goes on from a state: say --state FILE too");
    if (r->o.salvage && (stat(r->o.salvage, &st) || !S_ISDIR(st.st_mode)))
        return cli_fail(CLI_FAILED, "--salvage %s: no such directory. Make it first, where plaintext may stand", r->o.salvage);
    return 0;
}

static int run_scrub(struct cli *c)
{
    struct run r = { .c = c, .tty = isatty(STDERR_FILENO), .keyless = c->scrub.keyless, .read_only = c->scrub.read_only, .json = c->json, .resume = c->scrub.resume, .state = c->scrub.state,
                     .o = { .now = time(NULL), .finding = on_finding, .pace = on_pace, .salvaging = on_salvaging, .sign = on_sign, .accept_crash = c->scrub.accept_crash, .manifest = c->scrub.manifest, .against = c->scrub.against,
                            .repair = c->scrub.repair, .remove = c->scrub.remove, .salvage = c->scrub.salvage } };
    char *end;
    if (c->argc != 1)
        return cli_fail(CLI_USAGE, "expected VAULT; see leadglass scrub --help");
    if (c->scrub.rate) {
        r.rate = strtod(c->scrub.rate, &end) * 1048576;
        if (*end || end == c->scrub.rate || !(r.rate > 0))
            return cli_fail(CLI_USAGE, "--rate %s: expected MiB a second", c->scrub.rate);
    }
    r.o.dir = c->argv[0];
    r.o.arg = &r;
    int code = check(&r);
    if (code)
        return code;
    if (!r.keyless && !c->socket) {
        if (lg_client_default_socket(c->socket_buf, sizeof c->socket_buf))
            return cli_fail(CLI_USAGE, "no default socket: say --socket PATH or set LEADGLASS_SOCKET");
        c->socket = c->socket_buf;
    }
    umask(077); /* the state names files, what is salvaged is plaintext */
    struct sigaction sa = { .sa_handler = on_signal };
    sigaction(SIGINT, &sa, NULL);
    sigaction(SIGTERM, &sa, NULL);
    openlog("leadglass", LOG_PID, LOG_DAEMON);
    return run(&r);
}

static const struct cli_option scrub_options[] = {
    { "keyless", NULL, "by checksums alone, without keys or key manager; any user who may read the copy.\nA mounted vault too: what is under way is called unfinished", CLI_FLAG, CLI_INTO(scrub.keyless), 0 },
    { "read-only", NULL, "with keys, but nothing is written: what a crash left is told, not put right", CLI_FLAG, CLI_INTO(scrub.read_only), 0 },
    { "accept-crash", NULL, "take in a copy made of a live mount, or a crash image: half-committed files are recovered\nwhatever session wrote them. Logged. Whoever could change the copy could have rolled files back",
      CLI_FLAG, CLI_INTO(scrub.accept_crash), 0 },
    { "manifest", "FILE", "write down what stands where, and which state of it, signed by the key manager.\nKeep it away from the vault; leadglass audit manifest FILE verifies it, too", CLI_TEXT, CLI_INTO(scrub.manifest), 0 },
    { "against", "FILE", "compare with such a manifest: finds what was deleted, rolled back, moved, swapped", CLI_TEXT, CLI_INTO(scrub.against), 0 },
    { "repair", NULL, "entries whose name is lost go to lost+found; what crashes left of names is removed", CLI_FLAG, CLI_INTO(scrub.repair), 0 },
    { "remove", NULL, "damaged files, names, links and attributes are removed for good", CLI_FLAG, CLI_INTO(scrub.remove), 0 },
    { "salvage", "DIR", "write what can still be read of damaged files beneath DIR, in plaintext.\nIt may be stale: see leadglass-scrub(1)", CLI_TEXT, CLI_INTO(scrub.salvage), 0 },
    { "state", "FILE", "write down how far it came", CLI_TEXT, CLI_INTO(scrub.state), 0 },
    { "resume", NULL, "go on from there, or begin if there is none", CLI_FLAG, CLI_INTO(scrub.resume), 0 },
    { "rate", "MIB", "read at most so many MiB a second", CLI_TEXT, CLI_INTO(scrub.rate), 0 },
    { "json", NULL, "one report at the end, for scripts", CLI_FLAG, CLI_INTO(json), 0 },
    { "allow-unlocked-memory", NULL, "go on when key memory cannot be locked", CLI_FLAG, CLI_INTO(allow_unlocked), 0 },
    { 0 },
};
const struct cli_command cli_scrub = {
    "scrub", "VAULT", "check a vault that is not mounted, or a copy, with keys or by checksums alone",
    "Every name and every byte. Findings go to standard output, one a line.\n"
    "Exit status: 0 nothing is wrong; 10 damage or tampering; 11 not what the manifest says; 12 some of it could not be checked (unreadable, or\n"
    "half committed and no keys to tell); 13 keys are unknown to the keyring; 14 interrupted (go on with --resume); of several the lowest of these.\n"
    "4 locked, 5 no key manager, 7 mounted, 1 and 2 as for every command. Files of revoked studies, recovered files and leftovers are listed and\n"
    "are no error.\n",
    NULL, { scrub_options }, run_scrub, true,
};
