#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "options.h"

static const char usage_text[] =
    "usage: leadglass-fs [options] VAULT MOUNTPOINT\n"
    "\n"
    "Mounts a vault. Ordinarily started by `leadglass mount`.\n"
    "\n"
    "  --socket PATH             the key manager's socket (or LEADGLASS_SOCKET)\n"
    "  --foreground, -f          stay in the foreground, log to stderr\n"
    "  --allow-unlocked-memory   go on when key memory cannot be locked\n"
    "  --debug, -d               stay in the foreground and print every request, names of files among them\n"
    "  -o opt,...                ro, allow_other, noallow_other, default_permissions, nodefault_permissions, nonempty, noatime,\n"
    "                            entry_timeout=S, attr_timeout=S, threads=N, path_rules=FILE, cold_reads=auto|pread\n"
    "                            (how ciphertext that is not in memory is read: many pieces at a time through io_uring,\n"
    "                            or with pread(2)), transport=auto|dev|uring (how requests arrive:\n"
    "                            over io_uring where the kernel offers it, or /dev/fuse),\n"
    "                            audit=DIR|off (default: where the key manager keeps its own), audit_window=S, audit_names, audit_sync=MS,\n"
    "                            audit_keep=DAYS, audit_segment=MIB, audit_on_failure=refuse|continue;\n"
    "                            of mount(8) and FUSE: suid, nosuid, dev, nodev, exec, noexec, sync, dirsync, fsname=NAME;\n"
    "                            accepted, to no effect here: rw, defaults, auto, noauto, nofail, _netdev, guard, x-...\n"
    "  --help, -h, --version, -V\n"
    "\n"
    "Exit status: 0 mounted (in the foreground: unmounted cleanly), 1 failed, 2 usage, 4 the keyring is locked, 5 no key manager answers.\n";

static int wrong(const char *fmt, ...) LG_PRINTF(1, 2);
static int wrong(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fputs("leadglass-fs: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    va_end(ap);
    return EXIT_USAGE;
}

/* Digits alone: strtoul(3) takes a sign, and makes of -1 the largest number there is. */
static bool number(const char *v, unsigned long *ret)
{
    char *end;
    *ret = strtoul(v, &end, 10);
    return *v >= '0' && *v <= '9' && !*end;
}

static int parse_audit_option(struct lg_front_options *o, const char *opt, const char *value)
{
    static const struct {
        const char *name;
        unsigned long min, max;
    } numbers[] = { { "audit_window", 0, 3600 }, { "audit_sync", 1, 60000 }, { "audit_keep", LG_AUDIT_KEEP_DAYS_MIN, 36500 }, { "audit_segment", 1, 1024 } };
    struct lg_front_audit_options *a = &o->audit;
    if (strcmp(opt, "audit_names") == 0 && !value) {
        a->names = true;
        return 0;
    }
    if (strcmp(opt, "audit") == 0 && value) {
        a->off = strcmp(value, "off") == 0;
        a->dir = a->off ? NULL : value;
        return 0;
    }
    if (strcmp(opt, "audit_on_failure") == 0 && value && (strcmp(value, "continue") == 0 || strcmp(value, "refuse") == 0)) {
        a->keep_going = value[0] == 'c';
        return 0;
    }
    for (unsigned i = 0; value && i < sizeof numbers / sizeof *numbers; i++) {
        if (strcmp(opt, numbers[i].name) != 0)
            continue;
        unsigned long n;
        if (!number(value, &n) || n > numbers[i].max || (n < numbers[i].min && !(i == 2 && n == 0)))
            return wrong("-o %s=%s: expected a number from %lu to %lu%s", opt, value, numbers[i].min, numbers[i].max, i == 2 ? ", or 0 for ever" : "");
        if (i == 3)
            a->segment_bytes = (uint64_t)n << 20;
        else
            *(i == 0 ? &a->window_s : i == 1 ? &a->sync_ms : &a->keep_days) = (unsigned)n;
        return 0;
    }
    return wrong("-o %s%s%s: not an option of the access log; see leadglass-fs --help", opt, value ? "=" : "", value ? value : "");
}

static int parse_mount_option(struct lg_front_options *o, char *opt)
{
    char *value = strchr(opt, '='), *end = NULL;
    if (value)
        *value++ = 0;
    if (strcmp(opt, "ro") == 0)
        o->read_only = true;
    else if (strcmp(opt, "allow_other") == 0)
        o->allow_other = true;
    else if (strcmp(opt, "noallow_other") == 0)
        o->allow_other = false;
    else if (strcmp(opt, "default_permissions") == 0)
        o->default_permissions = true;
    else if (strcmp(opt, "nodefault_permissions") == 0)
        o->default_permissions = false;
    else if (strcmp(opt, "nonempty") == 0)
        o->nonempty = true;
    else if (value && strcmp(opt, "cold_reads") == 0 && strcmp(value, "pread") == 0)
        lg_uring_off();
    else if (value && strcmp(opt, "cold_reads") == 0 && strcmp(value, "auto") == 0)
        ;
    else if (strncmp(opt, "audit", 5) == 0)
        return parse_audit_option(o, opt, value);
    else if (value && strcmp(opt, "path_rules") == 0)
        o->rules = value;
    else if (value && (strcmp(opt, "entry_timeout") == 0 || strcmp(opt, "attr_timeout") == 0)) {
        double t = strtod(value, &end);
        if (*end || end == value || !(t >= 0 && t <= 1e6)) /* nor what is no number */
            return wrong("-o %s=%s: expected seconds", opt, value);
        *(opt[0] == 'e' ? &o->entry_timeout : &o->attr_timeout) = t;
    } else if (value && strcmp(opt, "threads") == 0) {
        unsigned long n;
        if (!number(value, &n) || n < 1 || n > 1000)
            return wrong("-o threads=%s: expected a number from 1 to 1000", value);
        o->threads = (unsigned)n;
    } else if (value && strcmp(opt, "transport") == 0) {
        if (strcmp(value, "auto") != 0 && strcmp(value, "dev") != 0 && strcmp(value, "uring") != 0)
            return wrong("-o transport=%s: expected auto, dev or uring", value);
        o->transport = value[0] == 'a' ? TRANSPORT_AUTO : value[0] == 'd' ? TRANSPORT_DEV : TRANSPORT_URING;
    } else if (strcmp(opt, "rw") == 0 || strcmp(opt, "defaults") == 0 || strcmp(opt, "guard") == 0 || strcmp(opt, "_netdev") == 0 || strcmp(opt, "auto") == 0 ||
               strcmp(opt, "noauto") == 0 || strcmp(opt, "nofail") == 0 || strncmp(opt, "x-", 2) == 0) {
        /* for mount(8) and systemd */
    } else if (strcmp(opt, "nosuid") == 0 || strcmp(opt, "suid") == 0 || strcmp(opt, "nodev") == 0 || strcmp(opt, "dev") == 0 || strcmp(opt, "noexec") == 0 ||
               strcmp(opt, "exec") == 0 || strcmp(opt, "noatime") == 0 || strcmp(opt, "sync") == 0 || strcmp(opt, "dirsync") == 0 || strcmp(opt, "fsname") == 0) {
        o->noatime |= strcmp(opt, "noatime") == 0; /* the kernel leaves access times to us */
        size_t at = strlen(o->extra);
        int n = snprintf(o->extra + at, sizeof o->extra - at, ",%s%s%s", opt, value ? "=" : "", value ? value : "");
        if (n < 0 || (size_t)n >= sizeof o->extra - at)
            return wrong("-o: too many options");
    } else {
        return wrong("unknown option -o %s; see leadglass-fs --help", opt);
    }
    return 0;
}

int lg_front_parse(int argc, char **argv, struct lg_front_options *o)
{
    static const struct option longs[] = { { "socket", 1, NULL, 's' }, { "foreground", 0, NULL, 'f' }, { "allow-unlocked-memory", 0, NULL, 'u' }, { "debug", 0, NULL, 'd' },
                                           { "help", 0, NULL, 'h' },   { "version", 0, NULL, 'V' },    { NULL, 0, NULL, 0 } };
    for (int c; (c = getopt_long(argc, argv, "fo:dhV", longs, NULL)) != -1;) {
        switch (c) {
        case 's': o->socket = optarg; break;
        case 'f': o->foreground = true; break;
        case 'd': o->debug = o->foreground = true; break;
        case 'u': o->allow_unlocked = true; break;
        case 'o':
            for (char *save = NULL, *opt = strtok_r(optarg, ",", &save); opt; opt = strtok_r(NULL, ",", &save)) {
                int rc = parse_mount_option(o, opt);
                if (rc)
                    return rc;
            }
            break;
        case 'h': fputs(usage_text, stdout); exit(EXIT_OK);
        case 'V': puts("leadglass-fs " LEADGLASS_VERSION); exit(EXIT_OK);
        default: return wrong("see leadglass-fs --help");
        }
    }
    if (argc - optind != 2)
        return wrong("expected VAULT and MOUNTPOINT; see leadglass-fs --help");
    if (o->allow_other && !o->default_permissions)
        return wrong("-o nodefault_permissions: whoever may enter could do whatever this process may; add noallow_other, with which only the user who mounts may");
    o->vault = argv[optind];
    o->mountpoint = argv[optind + 1];
    return 0;
}
