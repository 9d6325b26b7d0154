/* leadglass backup: copies of the keyring's keys that open nothing but themselves. */
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "act.h"
#include "backup.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"

enum { LIST_MAX = 16 << 20, TOMBSTONES_MAX = 1 << 30 };

/* ---- list, void, confirm ------------------------------------------------------------------------------------------------------------------------- */

/* What the key manager knows of it. */
static void entry_text(char *out, size_t cap, const struct lg_backup_entry *e)
{
    char t[32], v[32], size[32] = "";
    cli_time(e->created, t);
    cli_time(e->voided, v);
    if (e->bytes)
        snprintf(size, sizeof size, "%llu bytes, ", (unsigned long long)e->bytes);
    snprintf(out, cap, "%s of %s, %s%llu studies, %s%s%s", e->name, t, size, (unsigned long long)e->keys, e->voided ? "void since " : "outstanding", e->voided ? v : "",
             e->whole ? "" : ", not known to have become whole");
    for (; *out; out++) /* a file's name makes no line of its own */
        if ((unsigned char)*out < ' ' || *out == 127)
            *out = '?';
}

int backup_describe(struct lg_client *k, const uint8_t id[LG_ID_LEN], char *out, size_t cap)
{
    struct lg_backups b = { 0 };
    int rc = lg_client_backup_list(k, &b);
    unsigned i = 0;
    while (i < b.n && memcmp(b.e[i].id, id, LG_ID_LEN) != 0)
        i++;
    if (!rc && i == b.n)
        rc = -ENOENT;
    if (!rc)
        entry_text(out, cap, &b.e[i]);
    free(b.e);
    return rc;
}

static void list_json(cJSON *j, const struct lg_backup_entry *e)
{
    char id[2 * LG_ID_LEN + 1];
    cJSON *o = cJSON_CreateObject();
    cli_hex(e->id, id);
    cJSON_AddStringToObject(o, "id", id);
    cli_json_time(o, "created", e->created);
    cJSON_AddNumberToObject(o, "studies", (double)e->keys);
    cJSON_AddBoolToObject(o, "void", e->voided != 0);
    cJSON_AddStringToObject(o, "name", e->name);
    if (e->bytes)
        cJSON_AddNumberToObject(o, "bytes", (double)e->bytes);
    else
        cJSON_AddNullToObject(o, "bytes");
    cJSON_AddBoolToObject(o, "whole", e->whole);
    cJSON_AddItemToArray(j, o);
}

static void list_line(const struct lg_backup_entry *e)
{
    char id[2 * LG_ID_LEN + 1], t[32], v[32] = "", size[32] = "-";
    cli_hex(e->id, id);
    cli_time(e->created, t);
    if (e->voided)
        cli_time(e->voided, v);
    if (e->bytes)
        snprintf(size, sizeof size, "%llu bytes", (unsigned long long)e->bytes);
    printf("%s\t%s\t%llu studies\t%s%s%s\t%s\t%s\n", id, t, (unsigned long long)e->keys, e->voided ? "void since " : "outstanding", v, e->whole ? "" : ", not known to have become whole", e->name, size);
}

static int list(const struct cli *c, struct lg_client *k)
{
    struct lg_backups b = { 0 };
    int rc = lg_client_backup_list(k, &b), code = CLI_OK;
    cJSON *j = c->json && !rc ? cJSON_CreateArray() : NULL;
    for (unsigned i = 0; !rc && i < b.n; i++)
        if (j)
            list_json(j, &b.e[i]);
        else
            list_line(&b.e[i]);
    if (rc)
        code = cli_explain(c, rc, "backup list");
    else if (j)
        code = cli_print_json(j);
    if (!rc && b.restored) {
        char t[32], from[32];
        cli_time(b.restored, t);
        cli_time(b.restored_from, from);
        if (b.restored_from)
            cli_fail(CLI_OK, "this keyring was restored on %s from a backup of %s: backups that were made between the two, and what was declared void then, are unknown to it", t, from);
        else
            cli_fail(CLI_OK, "this keyring was restored on %s from a backup made by an earlier version, which tells of no others: which backups were made before, and which of them are void, is unknown", t);
    }
    free(b.e);
    return code;
}

static int need_act(int rc)
{
    switch (rc) {
    case -EPERM:
    case -ENOENT:
    case -EINVAL: return cli_fail(CLI_REFUSED, "officers are registered: one of them asks with --reason TEXT --sign KEYFILE, another approves (leadglass request approve ID); then name that act with --act ID");
    case -ETIME: return cli_fail(CLI_REFUSED, "the approval has expired, or is from before the keyring was restored: ask for it anew");
    default: return 0;
    }
}

static int void_one(const struct cli *c, struct lg_client *k, const char *text)
{
    uint8_t id[LG_ID_LEN], act[LG_ID_LEN];
    if (strlen(text) != 2 * LG_ID_LEN || lg_hex_decode(text, id, LG_ID_LEN))
        return cli_fail(CLI_USAGE, "%s is no backup's id; see leadglass backup list", text);
    if (c->act && (strlen(c->act) != 2 * LG_ID_LEN || lg_hex_decode(c->act, act, LG_ID_LEN)))
        return cli_fail(CLI_USAGE, "%s is no act's id", c->act);
    if (!c->act && (c->sign || c->offline)) {
        struct lg_act a = { .action = LG_ACT_BACKUP_VOID };
        char what[512];
        int rc = backup_describe(k, id, what, sizeof what);
        if (rc == -ENOENT)
            return cli_fail(CLI_FAILED, "there is no backup %s in the inventory", text);
        if (!rc && !c->quiet)
            fprintf(stderr, "backup    %s\n", what);
        memcpy(a.kid, id, LG_ID_LEN);
        return act_perform(c, k, &a);
    }
    int rc = lg_client_backup_void(k, id, c->act ? act : NULL);
    if (rc == -ENOENT)
        return cli_fail(CLI_FAILED, c->act ? "there is no backup %s in the inventory, or no such act" : "there is no backup %s in the inventory", text);
    if (rc == -EALREADY)
        return cli_fail(CLI_FAILED, c->act ? "backup %s is void already, or that act was used" : "backup %s is void already", text);
    int code = need_act(rc);
    if (code)
        return code;
    if (rc)
        return cli_explain(c, rc, "backup void");
    char what[512];
    rc = backup_describe(k, id, what, sizeof what);
    printf("backup %s is recorded as destroyed%s%s\n", text, rc ? "" : ": ", rc ? "" : what);
    return CLI_OK;
}

static int confirm(const struct cli *c, struct lg_client *k)
{
    uint8_t act[LG_ID_LEN];
    if (c->act && (strlen(c->act) != 2 * LG_ID_LEN || lg_hex_decode(c->act, act, LG_ID_LEN)))
        return cli_fail(CLI_USAGE, "%s is no act's id", c->act);
    if (!c->act && (c->sign || c->offline))
        return act_perform(c, k, &(struct lg_act){ .action = LG_ACT_DESTROY_ENABLE });
    int rc = lg_client_restore_confirm(k, c->act ? act : NULL);
    if (rc == -EALREADY)
        return cli_fail(CLI_FAILED, "this keyring is not one that waits for confirmation");
    int code = need_act(rc);
    if (code)
        return code;
    if (rc)
        return cli_explain(c, rc, "backup confirm");
    puts("destruction is allowed again");
    return CLI_OK;
}

/* ---- inspect, restore: no key manager --------------------------------------------------------------------------------------------------------------- */

static int read_exact(void *arg, void *buf, size_t len)
{
    return fread(buf, 1, len, arg) == len ? 0 : ferror((FILE *)arg) ? -EIO : -EPROTO;
}

static int open_backup(const char *file, FILE **ret, struct lg_backup_header *h)
{
    uint8_t b[LG_BACKUP_HEADER_LEN];
    FILE *f = fopen(file, "re");
    if (!f)
        return cli_fail(CLI_FAILED, "%s: %s", file, strerror(errno));
    int rc = read_exact(f, b, sizeof b);
    if (!rc)
        rc = lg_backup_header_read(b, h);
    if (!rc) {
        *ret = f;
        return CLI_OK;
    }
    fclose(f);
    return cli_fail(CLI_FAILED, "%s: %s", file, rc == -EPROTO ? "is no keyring backup, or its header is damaged" : rc == -EPROTONOSUPPORT ? "was made by a newer version of Leadglass" : strerror(-rc));
}

static void drill_json(cJSON *j, const struct drill_result *d)
{
    const struct {
        const char *name;
        uint64_t n;
    } all[] = { { "files", d->files }, { "sampled", d->sampled }, { "verified", d->verified }, { "revoked", d->revoked }, { "no_key", d->no_key }, { "damaged", d->damaged }, { "unchecked", d->unchecked } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        cJSON_AddNumberToObject(j, all[i].name, (double)all[i].n);
}

static void drill_print(const char *vault, const struct drill_result *d)
{
    printf("vault        %s: of %llu files %llu were taken by chance; %llu open whole\n", vault, (unsigned long long)d->files, (unsigned long long)d->sampled, (unsigned long long)d->verified);
    const struct {
        const char *what;
        uint64_t n;
    } all[] = { { "of studies that are destroyed or revoked", d->revoked }, { "whose key the backup does not have: it is older", d->no_key }, { "damaged", d->damaged }, { "not readable, or half committed", d->unchecked } };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        if (all[i].n)
            printf("             %llu %s\n", (unsigned long long)all[i].n, all[i].what);
}

/* d: of a drill with a vault, or NULL. */
static int print_counts(const struct cli *c, const struct lg_backup_header *h, const struct lg_backup_counts *n, unsigned quarantined, const struct drill_result *d, const char *done)
{
    char id[2 * LG_ID_LEN + 1], keyring[2 * LG_ID_LEN + 1], t[32];
    cli_hex(h->id, id);
    cli_hex(n->keyring_id, keyring);
    cli_time(n->created, t);
    if (!c->json) {
        printf("backup       %s of %s\nkeyring      %s, epoch %llu\nstudies      %llu, and %llu destroyed\nkeys         %llu, in %llu versions; %llu that do not open their record\n", id, t, keyring,
               (unsigned long long)n->epoch, (unsigned long long)n->studies, (unsigned long long)n->destroyed, (unsigned long long)n->keys, (unsigned long long)n->versions,
               (unsigned long long)n->bad);
        if (quarantined)
            printf("quarantined  %u\n", quarantined);
        if (n->tombstones || n->tombstones_bad || n->tombstones_cut)
            printf("tombstones   %llu good, %llu damaged or altered, %llu cut off at the end of a file\n", (unsigned long long)n->tombstones, (unsigned long long)n->tombstones_bad,
                   (unsigned long long)n->tombstones_cut);
        if (d)
            drill_print(c->vault, d);
        if (done)
            puts(done);
    } else {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "id", id);
        cJSON_AddStringToObject(j, "created", t);
        cJSON_AddStringToObject(j, "keyring_id", keyring);
        cJSON_AddNumberToObject(j, "studies", (double)n->studies);
        cJSON_AddNumberToObject(j, "destroyed", (double)n->destroyed);
        cJSON_AddNumberToObject(j, "keys", (double)n->keys);
        cJSON_AddNumberToObject(j, "versions", (double)n->versions);
        cJSON_AddNumberToObject(j, "bad", (double)n->bad);
        cJSON_AddNumberToObject(j, "quarantined", quarantined);
        cJSON_AddNumberToObject(j, "tombstones", (double)n->tombstones);
        cJSON_AddNumberToObject(j, "tombstones_damaged", (double)n->tombstones_bad);
        cJSON_AddNumberToObject(j, "tombstones_cut", (double)n->tombstones_cut);
        if (d)
            drill_json(j, d);
        int code = cli_print_json(j);
        if (code)
            return code;
    }
    if (n->tombstones_bad || n->tombstones_cut)
        cli_fail(0, "what damaged or cut-off tombstones named cannot be told for sure: compare with the certificates, and name with --destroyed what is missing, before `leadglass backup confirm`");
    return n->bad ? cli_fail(CLI_FAILED, "%llu keys do not open the records of their studies", (unsigned long long)n->bad) : CLI_OK;
}

static int explain_backup(int rc, const char *file, const char *dir)
{
    switch (rc) {
    case -EBADMSG: return cli_fail(CLI_FAILED, "%s was altered, cut or put together from several; nothing was restored", file);
    case -ENOMSG: return cli_fail(CLI_FAILED, "what --tombstones names is no file of tombstones (SLOTFILE.tombstones); nothing was restored");
    case -EXDEV: return cli_fail(CLI_FAILED, "the tombstones are another keyring's; nothing was restored");
    case -EKEYREJECTED: return cli_fail(CLI_ALTERED, "a tombstone is damaged, or not signed by this keyring: the file was altered. Nothing was restored. Take another copy of it; or, if there is none, say "
                                                      "--damaged-tombstones: studies that damaged ones seem to name are quarantined too, and name with --destroyed what else the certificates say was destroyed");
    case -ENODATA: return cli_fail(CLI_FAILED, "%s is from before there were signed tombstones, and cannot check them: name what was destroyed with --destroyed", file);
    case -EEXIST: return cli_fail(CLI_FAILED, "%s, or its slot file, exists already; restore into a new directory", dir);
    default: return cli_fail(CLI_FAILED, "%s: %s", file, strerror(-rc));
    }
}

/* The whole file, and a NUL behind it. */
static void *read_file(const char *path, size_t max, size_t *ret_len)
{
    FILE *f = fopen(path, "re");
    size_t cap = 1 << 16, n = 0;
    char *b = f ? malloc(cap + 1) : NULL;
    while (b && n < max) {
        size_t got = fread(b + n, 1, cap - n, f);
        n += got;
        if (!got)
            break;
        if (n == cap) {
            char *more = realloc(b, cap * 2 + 1);
            if (!more)
                free(b);
            b = more;
            cap *= 2;
        }
    }
    bool ok = b && !ferror(f) && feof(f);
    if (f)
        fclose(f);
    if (!ok) {
        free(b);
        return NULL;
    }
    b[n] = 0;
    *ret_len = n;
    return b;
}

static void later_done(struct lg_backup_later *l)
{
    free((void *)(uintptr_t)l->destroyed);
    free((void *)(uintptr_t)l->tombstones);
}

/* An exit status. */
static int later_read(const struct cli *c, struct lg_backup_later *ret)
{
    struct lg_backup_later l = { 0 };
    size_t len = 0;
    int code = 0;
    if (c->destroyed && (!(l.destroyed = read_file(c->destroyed, LIST_MAX, &len)) || strlen(l.destroyed) != len))
        code = cli_fail(CLI_FAILED, "%s: cannot be read as a list of study UIDs or key ids, one a line", c->destroyed);
    if (!code && c->tombstones && !(l.tombstones = read_file(c->tombstones, TOMBSTONES_MAX, &l.tombstones_len)))
        code = cli_fail(CLI_FAILED, "%s: %s", c->tombstones, access(c->tombstones, F_OK) ? "is not there. There is one beside the slot file, and the mirror's, once a study was destroyed" : "cannot be read");
    if (code)
        later_done(&l);
    else
        *ret = l;
    ret->damaged_too = !code && c->damaged;
    return code;
}

static int restore_into(const struct cli *c, const char *file, FILE *f, const struct lg_backup_header *h, const struct lg_secret *key)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    struct lg_backup_counts n;
    unsigned quarantined = 0;
    size_t len;
    char slot[PATH_MAX];
    struct lg_passphrase_source src = { c->new_pass_file, -1 };
    int rc = pass ? lg_passphrase_read(&src, "New passphrase of the restored keyring", true, pass, &len) : -ENOMEM;
    if (rc)
        return cli_fail(CLI_PASSPHRASE, "new passphrase: %s", rc == -ENOTTY ? "there is no terminal to ask on; use --new-passphrase-file" : rc == -EINVAL ? "is empty" : strerror(-rc));
    struct lg_backup_later later = { 0 };
    int code = later_read(c, &later);
    if (code)
        return code;
    snprintf(slot, sizeof slot, "%.4000s.root", c->keyring);
    later.name = strrchr(file, '/') ? strrchr(file, '/') + 1 : file;
    rc = lg_backup_restore(h, key, read_exact, f, c->keyring, slot, pass, len, BACKUP_SCRYPT_MS, &later, &n, &quarantined);
    later_done(&later);
    if (rc)
        return explain_backup(rc, file, c->keyring);
    char done[PATH_MAX + 160];
    snprintf(done, sizeof done, "Serve it with `leadglass-keyd --keyring %.4000s`. Nothing is destroyed until `leadglass backup confirm`.", c->keyring);
    code = print_counts(c, h, &n, quarantined, NULL, done);
    if (!c->tombstones && !c->destroyed)
        cli_fail(0, "neither --tombstones nor --destroyed was said: every study that was destroyed after this backup CAN BE READ AGAIN in the restored keyring. If any was, take %s and %s away and restore once more", c->keyring, slot);
    if (n.aside)
        code = cli_fail(CLI_FAILED, "the keyring was restored; but %s.tombstones, of the keyring that stood there before, could not be set aside (%s). Move it to a safe place before the key manager is started, which may write it anew",
                        slot, strerror(-n.aside));
    return code;
}

static int drill(const struct cli *c, const char *file, FILE *f, const struct lg_backup_header *h, const struct lg_secret *key)
{
    struct lg_backup_later later;
    struct lg_backup_counts n;
    struct drill_result r;
    unsigned quarantined = 0;
    int rc, code = later_read(c, &later);
    if (code)
        return code;
    code = backup_drill(c, h, key, read_exact, f, &later, &n, &quarantined, &r, &rc);
    later_done(&later);
    if (rc)
        return explain_backup(rc, file, "");
    int said = print_counts(c, h, &n, quarantined, &r, code ? NULL : "every frame is whole, every key was tried on its study's record; nothing was changed");
    return code ? code : said;
}

/* Before anybody types a secret or three shares. */
static bool in_the_way(const char *dir)
{
    char slot[PATH_MAX];
    struct stat st;
    snprintf(slot, sizeof slot, "%.4000s.root", dir);
    return lstat(dir, &st) == 0 || lstat(slot, &st) == 0;
}

static int read_backup(const struct cli *c, const char *file, bool restore)
{
    LG_SECRET_BUF_AUTO char *pass = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    LG_SECRET_AUTO key = lg_secret_new();
    struct lg_backup_header h;
    struct lg_backup_counts n;
    enum lg_slot_type type;
    size_t len = 0;
    FILE *f = NULL;
    int code = restore && in_the_way(c->keyring) ? explain_backup(-EEXIST, file, c->keyring) : pass && key ? open_backup(file, &f, &h) : cli_fail(CLI_FAILED, "out of memory");
    if (code)
        return code;
    if (!h.k && c->share_files.n) {
        fclose(f);
        return cli_fail(CLI_PASSPHRASE, "%s opens with a passphrase, not with shares", file);
    }
    code = h.k ? shares_get(c, &h, key) : cli_secret(c, "Passphrase of the backup", false, &type, pass, &len);
    int rc = code || h.k ? 0 : lg_backup_header_open(&h, pass, len, key);
    if (!code && rc == -EKEYREJECTED)
        code = cli_fail(CLI_PASSPHRASE, "wrong passphrase for %s", file);
    else if (!code && rc)
        code = explain_backup(rc, file, "");
    else if (!code && restore)
        code = restore_into(c, file, f, &h, key);
    else if (!code && c->vault)
        code = drill(c, file, f, &h, key);
    else if (!code) {
        rc = lg_backup_check(&h, key, read_exact, f, &n);
        code = rc ? explain_backup(rc, file, "") : print_counts(c, &h, &n, 0, NULL, "every frame is whole, every key was tried on its study's record; nothing was changed");
    }
    fclose(f);
    return code;
}

static int run_backup(struct cli *c)
{
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "", *arg = c->argc > 1 ? c->argv[1] : NULL;
    bool is_list = strcmp(what, "list") == 0, is_confirm = strcmp(what, "confirm") == 0, is_create = strcmp(what, "create") == 0;
    bool inspect = strcmp(what, "inspect") == 0, restore = strcmp(what, "restore") == 0, is_void = strcmp(what, "void") == 0;
    if (!(is_list || is_confirm || is_create || inspect || restore || is_void) || c->argc != (is_list || is_confirm ? 1 : 2))
        return cli_fail(CLI_USAGE, "expected create FILE, list, inspect FILE, restore FILE, confirm or void ID; see leadglass backup --help");
    if (restore && !c->drill && !c->keyring)
        return cli_fail(CLI_USAGE, "say where: --keyring DIR, a new directory; or --drill to try without");
    if ((c->vault || c->sample) && !(restore && c->drill && c->vault))
        return cli_fail(CLI_USAGE, "--vault V and --sample N belong to restore --drill");
    if (restore && c->drill && !c->vault && (c->tombstones || c->destroyed))
        return cli_fail(CLI_USAGE, "a drill that tells what --tombstones and --destroyed would do needs --vault V");
    if (inspect || restore)
        return read_backup(c, arg, restore && !c->drill);
    int code = cli_client(c, &k);
    if (code)
        return code;
    code = is_list ? list(c, k) : is_confirm ? confirm(c, k) : is_create ? backup_create(c, k, arg) : void_one(c, k, arg);
    lg_client_free(k);
    return code;
}

static const struct cli_option backup_options[] = {
    { "keyring", "DIR", "restore: the new keyring's directory, which must not exist; its slot file is DIR.root", CLI_TEXT, CLI_INTO(keyring), 0 },
    { "shares", "K/N", "create: print N shares, of which any K open it, instead of asking for a passphrase", CLI_TEXT, CLI_INTO(shares), 0 },
    { "shares-dir", "DIR", "create: write them there, a file each, instead of printing", CLI_TEXT, CLI_INTO(shares_dir), 0 },
    { "share-file", "FILE", "inspect, restore: one of the shares (say it again for each); they are asked for otherwise", CLI_LIST, CLI_INTO(share_files), 0 },
    { "new-passphrase-file", "FILE", "restore: the new keyring's passphrase instead of a prompt", CLI_TEXT, CLI_INTO(new_pass_file), 0 },
    { "destroyed", "FILE", "restore: study UIDs or key ids, one a line, that were destroyed after the backup: they come back as\n`restored`, and are not served", CLI_TEXT,
      CLI_INTO(destroyed), 0 },
    { "tombstones", "FILE", "restore: SLOTFILE.tombstones as it is now (beside the slot file, or the mirror's): the keyring's own signed record of\nwhat was destroyed, to the same end; both may be given", CLI_TEXT,
      CLI_INTO(tombstones), 0 },
    { "damaged-tombstones", NULL, "restore: go on although some of them are damaged or altered: studies that they seem to name are quarantined as well", CLI_FLAG, CLI_INTO(damaged), 0 },
    { "drill", NULL, "restore: open everything, change nothing", CLI_FLAG, CLI_INTO(drill), 0 },
    { "vault", "VAULT", "drill: restore into a temporary directory, taken away again, and with those keys read files of this vault,\nor of a copy of it, whole; it must not be mounted", CLI_TEXT, CLI_INTO(vault), 0 },
    { "sample", "N", "drill: so many files, by chance (100)", CLI_NUMBER, CLI_INTO(sample), 0 },
    { "act", "ID", "void, confirm: the officers' approved act, where officers are registered", CLI_TEXT, CLI_INTO(act), 0 },
    { "reason", "TEXT", "void, confirm: why, where officers are registered and one of them asks for it with --sign", CLI_TEXT, CLI_INTO(reason), 0 },
    { 0 }
};
const struct cli_command cli_backup = {
    "backup", "create FILE | list | inspect FILE | restore FILE | confirm | void ID", "copy the keyring's keys; restore them",
    "A backup has a passphrase of its own and opens nothing but itself; yesterday's keyring gains nothing from it. It is made while the key manager serves.\n"
    "Copy the ciphertext first and make the keyring backup afterwards: then every file copied has its key in it.\n"
    "restore makes a new keyring, in which nothing is destroyed until `backup confirm`. void records that a backup was destroyed.\n"
    "Where officers are registered both take two: one asks, with --reason and --sign; another approves (leadglass request approve); --act carries it out.\n",
    "create|list|...", { cli_pass_options, backup_options, act_options, cli_json_options }, run_backup, false,
};
