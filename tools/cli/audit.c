/* leadglass audit: verify, tail, anchor, export-key; query, report and export have files of their own. */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "auditselect.h"
#include "leadglass/bytes.h"
#include "leadglass/follow.h"

enum { CHAINS_MAX = 256, HEADS_MAX = 4096, TAIL_LINES = 20 };

/* ---- what is needed from elsewhere ------------------------------------------------------------------------------------------------ */

struct sources {
    char dir[4096]; /* of the first log asked about; of_keyd: the key manager's own */
    char of_keyd[4096];
    uint8_t pub[LG_SIGN_PUB_LEN], keyd_pub[LG_SIGN_PUB_LEN]; /* pub: of --key */
    bool have_pub, have_keyd_pub;
    struct lg_audit_head *heads; /* of the key manager first, then of anchors */
    size_t n_heads, n_keyd;
    bool asked; /* a key manager told what it remembers */
    bool locked; /* it can sign nothing */
};

static int add_head(struct sources *s, const char *line, size_t len)
{
    if (s->n_heads == HEADS_MAX)
        return -E2BIG;
    int rc = lg_audit_head_parse(line, len, &s->heads[s->n_heads]);
    s->n_heads += rc == 0;
    return rc;
}

int cli_audit_read_key(const char *path, uint8_t pub[LG_SIGN_PUB_LEN])
{
    char text[2 * LG_SIGN_PUB_LEN + 1] = "";
    FILE *f = fopen(path, "re");
    if (!f)
        return -errno;
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    return n == sizeof text - 1 ? lg_hex_decode(text, pub, LG_SIGN_PUB_LEN) : -EPROTO;
}

static bool own_key(const char *dir, uint8_t pub[LG_SIGN_PUB_LEN])
{
    char path[4200];
    return snprintf(path, sizeof path, "%s/key.pub", dir) < (int)sizeof path && cli_audit_read_key(path, pub) == 0;
}

static int read_anchor(struct sources *s, const char *path)
{
    char line[LG_AUDIT_HEAD_MAX + 2];
    FILE *f = fopen(path, "re");
    if (!f)
        return cli_fail(CLI_FAILED, "%s: %s", path, strerror(errno));
    int code = CLI_OK;
    while (!code && fgets(line, sizeof line, f))
        if (add_head(s, line, strcspn(line, "\n")))
            code = cli_fail(CLI_FAILED, "%s: not an anchor (lines of `leadglass audit anchor`), or too many", path);
    fclose(f);
    return code;
}

static bool same_dir(const char *a, const char *b)
{
    struct stat x, y;
    return stat(a, &x) == 0 && stat(b, &y) == 0 && x.st_dev == y.st_dev && x.st_ino == y.st_ino;
}

/* Is this a log that the key manager answering here signs, so that its key and memory are what counts? */
static bool is_keyd_log(const struct sources *s, const char *dir, const struct lg_audit_chain *all, unsigned n)
{
    uint8_t pub[LG_SIGN_PUB_LEN];
    if (!s->have_keyd_pub)
        return false;
    if (same_dir(dir, s->of_keyd) || !own_key(dir, pub) || memcmp(pub, s->keyd_pub, sizeof pub) == 0)
        return true;
    for (unsigned i = 0; i < n; i++)
        for (size_t j = 0; j < s->n_keyd; j++)
            if (memcmp(all[i].id, s->heads[j].chain, LG_ID_LEN) == 0)
                return true;
    return false;
}

/* What is read of it is on record there. how: what is done with the log. */
static int note(const struct cli *c, struct lg_client *k, const struct sources *s, const char *how)
{
    struct lg_audit_chain *all = calloc(CHAINS_MAX, sizeof *all);
    bool theirs = !c->argc;
    int rc = all ? 0 : -ENOMEM;
    for (int i = 0; all && !theirs && i < c->argc; i++) {
        unsigned n = 0;
        theirs = lg_audit_chains(c->argv[i], all, CHAINS_MAX, &n) == 0 && is_keyd_log(s, c->argv[i], all, n < CHAINS_MAX ? n : CHAINS_MAX);
    }
    free(all);
    if (!rc && theirs)
        rc = lg_client_audit_note(k, how);
    return rc && rc != -EACCES ? cli_explain(c, rc, "recording that the log is read") : CLI_OK;
}

/* Asks the key manager for what is not given; only a log directory need be known. */
static int find_sources(const struct cli *c, const char *how, struct sources *s)
{
    struct lg_client *k = NULL;
    struct lg_audit_info *i = calloc(1, sizeof *i);
    struct lg_audit_heads *h = calloc(1, sizeof *h);
    static const uint8_t none[LG_SIGN_PUB_LEN];
    int code = i && h && (s->heads = calloc(HEADS_MAX, sizeof *s->heads)) ? CLI_OK : cli_fail(CLI_FAILED, "out of memory");
    if (!code && !c->audit.offline && c->socket && lg_client_new(c->socket, &k) == 0 && lg_client_audit_info(k, i) == 0) {
        snprintf(s->of_keyd, sizeof s->of_keyd, "%s", i->dir);
        s->have_keyd_pub = memcmp(i->pub, none, sizeof none) != 0;
        memcpy(s->keyd_pub, i->pub, sizeof s->keyd_pub);
        s->asked = lg_client_audit_heads(k, h) == 0;
        for (unsigned n = 0; s->asked && n < h->n; n++)
            (void)!add_head(s, h->head[n], strlen(h->head[n]));
        s->n_keyd = s->n_heads;
        struct lg_keyd_status *st = calloc(1, sizeof *st);
        s->locked = st && lg_client_status(k, st) == 0 && !st->unlocked;
        free(st);
        code = note(c, k, s, how);
    }
    lg_client_free(k);
    free(i);
    free(h);
    snprintf(s->dir, sizeof s->dir, "%s", c->argc ? c->argv[0] : s->of_keyd);
    if (!code && !s->dir[0])
        code = cli_fail(CLI_NO_KEYD, "no key manager answers at %s: say where the log is (leadglass audit %s DIR)", c->socket ? c->socket : "its socket", how);
    if (!code && c->audit.key && cli_audit_read_key(c->audit.key, s->pub))
        code = cli_fail(CLI_FAILED, "%s: not a public key (64 hexadecimal digits, as `leadglass audit export-key` prints them)", c->audit.key);
    s->have_pub = !code && c->audit.key;
    if (!code && c->audit.against)
        code = read_anchor(s, c->audit.against);
    return code;
}

/* ---- verify ------------------------------------------------------------------------------------------------------------------------- */

static void describe(const struct lg_audit_problem *p, char out[160])
{
    unsigned long long a = p->from, b = p->to;
    switch (p->what) {
    case LG_AUDIT_ALTERED: snprintf(out, 160, "altered at record %llu: it does not follow from the one before it", a); break;
    case LG_AUDIT_MISSING: snprintf(out, 160, "records %llu to %llu are missing", a, b); break;
    case LG_AUDIT_DUPLICATE: snprintf(out, 160, "record %llu stands twice", a); break;
    case LG_AUDIT_REORDERED: snprintf(out, 160, "record %llu is out of order", a); break;
    case LG_AUDIT_FOREIGN: snprintf(out, 160, "in the place of record %llu stands one of another log", a); break;
    case LG_AUDIT_TRUNCATED: snprintf(out, 160, "truncated after record %llu: %llu was signed", a - 1, b); break;
    case LG_AUDIT_FORKED: snprintf(out, 160, "forked: records %llu to %llu are not those that were signed", a, b); break;
    case LG_AUDIT_BAD_HEAD: snprintf(out, 160, "head %llu is not the key manager's", a); break;
    case LG_AUDIT_HEADS_MISSING: snprintf(out, 160, "heads %llu to %llu are missing", a, b); break;
    case LG_AUDIT_UNREADABLE: snprintf(out, 160, "a segment cannot be read or decompressed, after record %llu", a ? a - 1 : 0); break;
    default: snprintf(out, 160, "%s", lg_audit_verdict_name(p->what)); break;
    }
}

/* locked: whoever signs this log cannot, as far as is known. */
static void print_report(const struct lg_audit_chain *c, const struct lg_audit_report *r, bool locked)
{
    char when[LG_AUDIT_TIME_LEN + 1], text[160];
    lg_audit_time_text(r->signed_us, when);
    printf("%s: %s", c->name, r->verdict == LG_AUDIT_INTACT ? "intact" : r->verdict == LG_AUDIT_NO_HEADS ? "cannot be told" : "NOT INTACT");
    printf(", records %llu to %llu", (unsigned long long)r->first, (unsigned long long)r->last);
    if (r->signed_seq)
        printf(", signed up to %llu at %.19sZ", (unsigned long long)r->signed_seq, when);
    puts("");
    for (unsigned i = 0; i < r->n_problems && i < LG_AUDIT_PROBLEMS_MAX; i++) {
        describe(&r->problem[i], text);
        printf("    %s\n", text);
    }
    if (r->n_problems > LG_AUDIT_PROBLEMS_MAX)
        printf("    and %u more\n", r->n_problems - LG_AUDIT_PROBLEMS_MAX);
    if (r->verdict == LG_AUDIT_NO_HEADS)
        puts("    nothing of it is signed by the key given: that it hangs together is all that can be said");
    if (r->tail && r->signed_seq) {
        lg_audit_time_text(r->tail_us, when);
        printf("    unverifiable tail since %.19sZ: %llu records are %s\n", when, (unsigned long long)r->tail,
               locked ? "unsigned until unlock: the keyring is locked, and they are signed when it is unlocked" : "not signed yet");
    }
    if (r->incomplete)
        puts("    the last line is not complete: it is being written, or a crash cut it off");
    if (r->pruned)
        printf("    records up to %llu were removed by retention, as the log says\n", (unsigned long long)r->pruned);
    if (r->clock_back)
        printf("    the clock went back %llu times\n", (unsigned long long)r->clock_back);
}

static cJSON *json_report(const struct lg_audit_chain *c, const struct lg_audit_report *r, bool locked)
{
    char id[2 * LG_ID_LEN + 1], when[LG_AUDIT_TIME_LEN + 1];
    cJSON *j = cJSON_CreateObject(), *problems;
    lg_hex_encode(c->id, LG_ID_LEN, id);
    cJSON_AddStringToObject(j, "name", c->name);
    cJSON_AddStringToObject(j, "chain", id);
    cJSON_AddStringToObject(j, "verdict", lg_audit_verdict_name(r->verdict));
    cJSON_AddNumberToObject(j, "first", (double)r->first);
    cJSON_AddNumberToObject(j, "last", (double)r->last);
    cJSON_AddNumberToObject(j, "records", (double)r->records);
    cJSON_AddNumberToObject(j, "heads", (double)r->heads);
    cJSON_AddNumberToObject(j, "signed", (double)r->signed_seq);
    if (r->signed_seq) {
        lg_audit_time_text(r->signed_us, when);
        cJSON_AddStringToObject(j, "signed_at", when);
    }
    cJSON_AddNumberToObject(j, "tail", (double)r->tail);
    cJSON_AddBoolToObject(j, "tail_until_unlock", r->tail && locked);
    cJSON_AddBoolToObject(j, "incomplete", r->incomplete);
    cJSON_AddNumberToObject(j, "pruned", (double)r->pruned);
    cJSON_AddNumberToObject(j, "clock_back", (double)r->clock_back);
    problems = cJSON_AddArrayToObject(j, "problems");
    for (unsigned i = 0; i < r->n_problems && i < LG_AUDIT_PROBLEMS_MAX; i++) {
        cJSON *p = cJSON_CreateObject();
        cJSON_AddStringToObject(p, "what", lg_audit_verdict_name(r->problem[i].what));
        cJSON_AddNumberToObject(p, "from", (double)r->problem[i].from);
        cJSON_AddNumberToObject(p, "to", (double)r->problem[i].to);
        cJSON_AddItemToArray(problems, p);
    }
    return j;
}

struct verifying {
    const struct cli *c;
    struct sources s;
    struct lg_audit_chain *all; /* of every directory */
    unsigned n, bad, unknown;
    bool whole;   /* the key manager's own directory is among them: then what it remembers must be there */
    bool own_key; /* a key came from the log itself */
    bool outside; /* a log was held against something kept elsewhere */
    const char *key; /* where the key came from */
    cJSON *chains, *absent;
};

/* Chains that were signed for and are not there. */
static void absent(struct verifying *v)
{
    const struct sources *s = &v->s;
    for (size_t i = v->whole ? 0 : s->n_keyd; i < s->n_heads; i++) {
        bool there = false;
        for (unsigned j = 0; j < v->n && !there; j++)
            there = memcmp(v->all[j].id, s->heads[i].chain, LG_ID_LEN) == 0;
        for (size_t j = v->whole ? 0 : s->n_keyd; j < i && !there; j++) /* told already */
            there = memcmp(s->heads[j].chain, s->heads[i].chain, LG_ID_LEN) == 0;
        const uint8_t *pub = s->have_pub ? s->pub : s->have_keyd_pub ? s->keyd_pub : NULL;
        if (there || (pub && lg_audit_head_check(&s->heads[i], pub)))
            continue;
        char id[2 * LG_ID_LEN + 1];
        lg_hex_encode(s->heads[i].chain, LG_ID_LEN, id);
        v->bad++;
        if (!v->c->json)
            printf("chain %s: NOT INTACT\n    it is not here: %llu records of it were signed. If a mount keeps it elsewhere (-o audit=DIR), name that directory too\n", id,
                   (unsigned long long)s->heads[i].seq);
        else
            cJSON_AddItemToArray(v->absent, cJSON_CreateString(id));
    }
}

static int verify_dir(struct verifying *v, const char *dir)
{
    struct lg_audit_chain *mine = v->all + v->n;
    struct lg_audit_report r;
    uint8_t own[LG_SIGN_PUB_LEN];
    unsigned n = 0;
    const struct sources *s = &v->s;
    int rc = lg_audit_chains(dir, mine, CHAINS_MAX - v->n, &n);
    if (rc || !n || n > CHAINS_MAX - v->n)
        return cli_fail(CLI_FAILED, "%s: %s", dir, rc ? strerror(-rc) : n ? "more chains than can be" : "there is no access log in it");
    bool theirs = is_keyd_log(s, dir, mine, n), have_own = own_key(dir, own);
    const uint8_t *pub = s->have_pub ? s->pub : theirs ? s->keyd_pub : have_own ? own : NULL;
    v->whole = v->whole || (s->asked && same_dir(dir, s->of_keyd));
    v->own_key = v->own_key || pub == own;
    v->outside = v->outside || (s->asked && theirs) || v->c->audit.against;
    v->key = !pub ? "none" : pub == own ? "log" : pub == s->pub ? "file" : "key manager";
    if (theirs && have_own && memcmp(own, s->keyd_pub, sizeof own) != 0)
        cli_fail(0, "%s/key.pub is not the key of the key manager that signs this log; it was passed over", dir);
    for (unsigned i = 0; i < n; i++) {
        rc = lg_audit_verify(dir, &mine[i], pub, s->heads, s->n_heads, &r);
        if (rc)
            return cli_fail(CLI_FAILED, "%s/%s: %s", dir, mine[i].name, strerror(-rc));
        v->bad += r.verdict != LG_AUDIT_INTACT && r.verdict != LG_AUDIT_NO_HEADS;
        v->unknown += r.verdict == LG_AUDIT_NO_HEADS;
        if (v->c->json)
            cJSON_AddItemToArray(v->chains, json_report(&mine[i], &r, s->locked && theirs));
        else
            print_report(&mine[i], &r, s->locked && theirs);
    }
    v->n += n;
    return CLI_OK;
}

static int verify(const struct cli *c)
{
    struct verifying v = { .c = c, .all = calloc(CHAINS_MAX, sizeof *v.all) };
    int code = v.all ? find_sources(c, "verify", &v.s) : cli_fail(CLI_FAILED, "out of memory");
    cJSON *j = code ? NULL : cJSON_CreateObject();
    v.chains = j ? cJSON_AddArrayToObject(j, "chains") : NULL;
    v.absent = j ? cJSON_AddArrayToObject(j, "absent") : NULL;
    for (int i = 0; !code && i < (c->argc ? c->argc : 1); i++)
        code = verify_dir(&v, c->argc ? c->argv[i] : v.s.dir);
    if (!code) {
        absent(&v);
        const char *verdict = v.bad ? "not intact" : v.unknown ? "cannot be told" : "intact";
        if (c->json) {
            cJSON_AddStringToObject(j, "verdict", verdict);
            cJSON_AddStringToObject(j, "directory", v.s.dir);
            cJSON_AddStringToObject(j, "key", v.key);
            cJSON_AddBoolToObject(j, "compared_with_key_manager", v.s.asked && v.outside);
            code = cli_print_json(j);
            j = NULL;
        } else {
            if (v.own_key)
                puts("The public key was taken from the log itself: who can write the log could have changed both. Use a copy of `leadglass audit export-key` with --key.");
            if (!v.outside)
                puts("No key manager was asked and no anchor given: log and heads rolled back together would not be seen (--against FILE).");
        }
    }
    cJSON_Delete(j);
    free(v.all);
    free(v.s.heads);
    return code ? code : v.bad ? CLI_ALTERED : v.unknown ? CLI_CANNOT_TELL : CLI_OK;
}

/* ---- tail ----------------------------------------------------------------------------------------------------------------------------- */

static void print_record(const struct lg_audit_record *r, const char *s, size_t len)
{
    char when[LG_AUDIT_TIME_LEN + 1], id[2 * LG_ID_LEN + 1];
    lg_audit_time_text(r->time_us, when);
    printf("%.19sZ %-14s %-6s %-12s", when, r->event, r->how, lg_audit_outcome_name(r->outcome));
    if (r->has & LG_AUDIT_WHO)
        printf(" %s(%u) pid %d", r->user[0] ? r->user : "uid", r->uid, r->pid);
    if (r->has & LG_AUDIT_STUDY) {
        lg_hex_encode(r->study, LG_ID_LEN, id);
        printf(" study %s", id);
    }
    if (r->has & LG_AUDIT_COUNT)
        printf(" x%llu", (unsigned long long)r->count);
    if (r->has & LG_AUDIT_MOVED)
        printf(" read %llu written %llu", (unsigned long long)r->read, (unsigned long long)r->written);
    const char *p = strstr(s, ",\"text\":"); /* as it stands in the line: escaped, harmless to a terminal */
    if (p && p < s + len) {
        p += 8;
        const char *e = p + 1;
        while (e < s + len && *e != '"')
            e += *e == '\\' ? 2 : 1;
        printf(" %.*s", (int)(e - p + 1), p);
    }
    putchar('\n');
}

static void print_followed(const struct cli *c, const struct lg_followed *x)
{
    char text[160];
    if (!x->record) {
        describe(&x->finding, text);
        fprintf(stderr, "leadglass: %s: %s; see leadglass audit verify\n", x->chain->name, text);
    } else if (c->json) {
        printf("%.*s\n", (int)x->len, x->line);
    } else {
        print_record(x->record, x->line, x->len);
    }
}

static int tail(const struct cli *c)
{
    struct sources s = { .dir = "" };
    struct lg_follow *f = NULL;
    struct lg_followed x;
    int code = find_sources(c, "tail", &s), rc = 0;
    struct lg_follow_options o = { .dir = s.dir, .last = c->audit.lines ? c->audit.lines : TAIL_LINES };
    if (!code && (rc = lg_follow_open(&o, &f)))
        code = cli_fail(CLI_FAILED, "%s: %s", s.dir, rc == -E2BIG ? "more chains than can be" : strerror(-rc));
    while (!code) {
        rc = lg_follow_next(f, &x);
        if (rc == 1) {
            print_followed(c, &x);
            continue;
        }
        if (rc < 0)
            code = cli_fail(CLI_FAILED, "%s: %s", s.dir, strerror(-rc));
        if (fflush(stdout) || !c->audit.follow)
            break;
        poll(NULL, 0, LG_FOLLOW_POLL_MS);
    }
    lg_follow_close(f);
    free(s.heads);
    return code;
}

/* ---- anchor, export-key ----------------------------------------------------------------------------------------------------------------- */

static int anchor(const struct cli *c)
{
    struct lg_client *k = NULL;
    struct lg_audit_heads *h = calloc(1, sizeof *h);
    int code = cli_client(c, &k), rc = code ? 0 : h ? lg_client_audit_heads(k, h) : -ENOMEM;
    if (!code && !rc)
        rc = lg_client_audit_note(k, "anchor");
    if (rc)
        code = cli_explain(c, rc, "audit anchor");
    for (unsigned i = 0; !code && i < h->n; i++)
        puts(h->head[i]);
    if (!code && fflush(stdout))
        code = cli_fail(CLI_FAILED, "standard output: %s", strerror(errno));
    lg_client_free(k);
    free(h);
    return code;
}

static int export_key(const struct cli *c)
{
    if (c->audit.manifests)
        return cli_audit_manifest_key(c);
    struct lg_client *k = NULL;
    struct lg_audit_info *i = calloc(1, sizeof *i);
    static const uint8_t none[LG_SIGN_PUB_LEN];
    char hex[2 * LG_SIGN_PUB_LEN + 1];
    int code = cli_client(c, &k), rc = code ? 0 : i ? lg_client_audit_info(k, i) : -ENOMEM;
    if (rc)
        code = cli_explain(c, rc, "audit export-key");
    if (!code && memcmp(i->pub, none, sizeof none) == 0)
        code = cli_fail(CLI_LOCKED, "there is no key yet: it is made when the keyring is unlocked for the first time");
    if (!code) {
        lg_hex_encode(i->pub, sizeof i->pub, hex);
        puts(hex);
    }
    lg_client_free(k);
    free(i);
    return code;
}

/* The log of the first mount, where accesses are; without one the key manager's own. */
void cli_audit_status(struct lg_client *k, const struct lg_keyd_status *s, cJSON *j)
{
    struct lg_audit_info *i = calloc(1, sizeof *i);
    cJSON *a = j ? cJSON_AddObjectToObject(j, "audit") : NULL, *logs = a ? cJSON_AddArrayToObject(a, "logs") : NULL;
    char path[8192], log[8192] = "", id[17], name[32];
    struct lg_audit_chain c;
    if (!i || lg_client_audit_info(k, i) || !i->on) {
        if (!j)
            puts(i && !i->on ? "access log    NONE is kept: the key manager was started with --audit off" : "access log    none is known of");
        else if (i)
            cJSON_AddBoolToObject(a, "on", false);
        free(i);
        return;
    }
    for (unsigned m = 0; m < s->n_mounts; m++) {
        if (cli_unlogged(s->mounts[m].pid)) { /* one of an earlier mount may be there: it is not written */
            if (!j)
                printf("access log    NONE is kept of %s (audit=off)\n", s->mounts[m].mountpoint);
            continue;
        }
        lg_hex_encode(s->mounts[m].vault_id, 8, id);
        snprintf(name, sizeof name, "mount-%s", id);
        if (lg_audit_find(i->dir, name, &c) || lg_audit_current(i->dir, c.name, path, sizeof path))
            continue;
        if (!log[0])
            snprintf(log, sizeof log, "%s", path);
        if (logs)
            cJSON_AddItemToArray(logs, cJSON_CreateString(path));
        else
            printf("access log    %s\n", path);
    }
    if (a) {
        cJSON_AddItemToArray(logs, cJSON_CreateString(i->log));
        cJSON_AddStringToObject(a, "log", log[0] ? log : i->log);
        cJSON_AddBoolToObject(a, "on", true);
        cJSON_AddStringToObject(a, "directory", i->dir);
        cJSON_AddNumberToObject(a, "records", (double)i->seq);
        cJSON_AddNumberToObject(a, "signed", (double)i->signed_seq);
        cJSON_AddBoolToObject(a, "failing", i->failing);
        cJSON_AddStringToObject(a, "on_failure", i->keep_going ? "continue" : "refuse");
        cJSON_AddNumberToObject(a, "filesystem_used_percent", i->used_percent);
    } else {
        printf("access log    %s, %llu records, signed up to %llu%s\n", i->log, (unsigned long long)i->seq, (unsigned long long)i->signed_seq,
               i->failing ? (i->keep_going ? "; CANNOT BE WRITTEN, access goes on without" : "; CANNOT BE WRITTEN, access is refused") : "");
        if (i->used_percent >= 80)
            printf("WARNING       the filesystem of the access log is %u %% full\n", i->used_percent);
    }
    free(i);
}

static int run(struct cli *c)
{
    static const struct {
        const char *name;
        int (*run)(const struct cli *c);
        int args;
    } subs[] = { { "verify", verify, CHAINS_MAX }, { "tail", tail, 1 }, { "anchor", anchor, 0 }, { "export-key", export_key, 0 }, { "manifest", cli_audit_manifest, 1 },
             { "query", cli_audit_query, 1 }, { "report", cli_audit_report, 1 }, { "export", cli_audit_export, 1 }, { "watch", cli_audit_watch, 1 } };
    for (unsigned i = 0; c->argc && i < sizeof subs / sizeof *subs; i++) {
        if (strcmp(c->argv[0], subs[i].name) != 0)
            continue;
        c->argc--;
        c->argv++;
        return c->argc > subs[i].args ? cli_fail(CLI_USAGE, "too many arguments; see leadglass audit --help") : subs[i].run(c);
    }
    return cli_fail(CLI_USAGE, "expected query, report, export, watch, verify, tail, anchor, manifest or export-key; see leadglass audit --help");
}

static const struct cli_option options[] = {
    { "key", "FILE", "verify, manifest: the public key (default: asked of the key manager; verify: else key.pub in the log)", CLI_TEXT, CLI_INTO(audit.key), 0 },
    { "against", "FILE", "verify: heads kept elsewhere, as `audit anchor` printed them", CLI_TEXT, CLI_INTO(audit.against), 0 },
    { "offline", NULL, "verify, tail, export --dicom, manifest: ask no key manager", CLI_FLAG, CLI_INTO(audit.offline), 0 },
    { "manifests", NULL, "export-key: the key that signs manifests (leadglass scrub --manifest) instead", CLI_FLAG, CLI_INTO(audit.manifests), 0 },
    { "follow", NULL, "tail: go on as records come. export: send to a syslog receiver, as the configuration says", CLI_FLAG, CLI_INTO(audit.follow), 'f' },
    { "lines", "N", "tail: so many of every chain first (default 20)", CLI_NUMBER, CLI_INTO(audit.lines), 'n' },
    { NULL, NULL, NULL, CLI_FLAG, 0, 0 },
};

static const struct cli_option query_options[] = {
    { "from", "TIME", "query, report, export: 2026-01-31, 2026-01-31T08:00, 36h or 7d (ago); UTC. report: default 30d", CLI_TEXT, CLI_INTO(query.from), 0 },
    { "to", "TIME", "query, report, export: the same; a day is meant to its end", CLI_TEXT, CLI_INTO(query.to), 0 },
    { "user", "NAME", "query, report, export: by name or uid", CLI_TEXT, CLI_INTO(query.user), 0 },
    { "study", "UID", "query, report, export: by study UID, or by key id", CLI_TEXT, CLI_INTO(study), 0 },
    { "patient", "ID", "query, report, export: every study of a patient", CLI_TEXT, CLI_INTO(query.patient), 0 },
    { "program", "TEXT", "query, report, export: programs whose path holds it", CLI_TEXT, CLI_INTO(query.program), 0 },
    { "outcome", "NAME", "query, report, export: ok, failed, or an error's name such as EACCES", CLI_TEXT, CLI_INTO(query.outcome), 0 },
    { "event", "NAME", "query, report, export: events that begin with it, such as file.open or key.", CLI_TEXT, CLI_INTO(query.event), 0 },
    { "limit", "N", "query: only the newest", CLI_NUMBER, CLI_INTO(query.limit), 0 },
    { "csv", NULL, "query, report: for a spreadsheet", CLI_FLAG, CLI_INTO(query.csv), 0 },
    { "html", NULL, "report: one page, pictures included, to standard output", CLI_FLAG, CLI_INTO(query.html), 0 },
    { "hours", "A-B", "report: working hours, UTC (default 7-19)", CLI_TEXT, CLI_INTO(query.hours), 0 },
    { NULL, NULL, NULL, CLI_FLAG, 0, 0 },
};

static const struct cli_option export_options[] = {
    { "dicom", NULL, "export: as DICOM audit messages (PS3.15 A.5), one a line; --from, --to and the other filters choose", CLI_FLAG, CLI_INTO(export.dicom), 0 },
    { "out", "FILE", "export: a new file, mode 0600 (default: standard output)", CLI_TEXT, CLI_INTO(out), 0 },
    { NULL, NULL, NULL, CLI_FLAG, 0, 0 },
};

const struct cli_command cli_audit = {
    .name = "audit",
    .args = "query [DIR] | report [DIR] | export [DIR] | watch [DIR] | verify [DIR...] | tail [DIR] | anchor | manifest FILE | export-key",
    .what = "ask the access log, report on a period, export it, raise alerts, verify it, follow it, anchor it",
    .more = "query, report and export name studies and patients through the key manager, which records that they were asked.\n"
            "DIR is the log directory (default: the key manager's; name those of mounts with a log of their own, -o audit=DIR, too). verify works on a copy on another\n"
            "machine, without a key manager; of a copy made earlier on this one say --offline, as the key manager remembers later records.\n"
            "export --dicom writes a period as DICOM audit messages; export --follow sends them to a syslog receiver, over TLS, until it is stopped, once release-study-uids = yes\n"
            "stands in its configuration; export --config FILE tells how that is getting on.\n"
            "watch goes on until it is stopped; SIGHUP reads its configuration anew. leadglass-audit.conf(5) has the rules.\n"
            "anchor prints the newest signed head of every chain: keep it elsewhere, and verify --against it finds a rollback of log and keyring together.\n"
            "manifest tells whether a manifest of `leadglass scrub` is as the key manager signed it, without any other key; which signatures it gave, the records scrub.manifest say.\n"
            "Exit status of verify and manifest: 0 intact, 17 not intact, 18 cannot be told (nothing signed, or no key).\n",
    .brief = "query|report|export|...",
    .options = { query_options, export_options, cli_audit_watch_options, options, cli_json_options },
    .run = run,
};
