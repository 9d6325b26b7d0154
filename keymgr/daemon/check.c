/* leadglass-keyd --check: tells what of a keyring is damaged and what is not. Opens nothing but files, and those for reading. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"
#include "leadglass/audit.h"
#include "leadglass/bytes.h"
#include "leadglass/check.h"

enum { KEY_FILE_MAX = 65536, KEY_FILE_MIN = 16, PROGRESS_MS = 200 };

struct checking {
    const struct lg_check_options *o;
    const char *copy;
    uint64_t damages;
    bool tty;
    int64_t shown;
};

static void quiet(struct checking *x)
{
    if (x->tty && x->shown)
        fprintf(stderr, "\r\033[K");
    x->shown = 0;
}

static void progress(void *arg, uint64_t done, uint64_t pages)
{
    struct checking *x = arg;
    int64_t now = x->tty ? lg_ms() : 0;
    if (!x->tty || now - x->shown < PROGRESS_MS)
        return;
    x->shown = now;
    fprintf(stderr, "\rchecking the %s: %u %%\033[K", x->copy, (unsigned)(pages ? done * 100 / pages : 100));
}

/* What a terminal or a JSON parser would trip over is written as hexadecimal. */
static void text(const char *s, bool json)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f || *s == '\\' || (json && *s == '"'))
            printf(json ? "\\u%04x" : "\\%02x", (unsigned char)*s);
        else
            putchar(*s);
}

static void damage(void *arg, const struct lg_check_damage *d)
{
    struct checking *x = arg;
    char kid[2 * LG_ID_LEN + 1];
    quiet(x);
    lg_hex_encode(d->kid, LG_ID_LEN, kid);
    if (x->o->json) {
        printf("%s\n {\"copy\":\"%s\",\"part\":\"%s\",", x->damages ? "," : "", x->copy, d->part);
        if (d->subject[0])
            printf("\"subject\":\""), text(d->subject, true), printf("\",");
        if (d->has_kid)
            printf("\"key_id\":\"%s\",", kid);
        if (d->bucket >= 0)
            printf("\"bucket\":%d,", d->bucket);
        if (d->has_page)
            printf("\"page\":%llu,", (unsigned long long)d->page);
        printf("\"what\":\""), text(d->what, true), printf("\"}");
    } else {
        printf("damage: %s, %s: ", x->copy, d->part);
        if (d->subject[0])
            text(d->subject, false), putchar(' ');
        if (d->has_kid)
            printf("key %s (bucket %d) ", kid, d->bucket);
        else if (d->bucket >= 0)
            printf("bucket %d: ", d->bucket);
        if (d->has_page)
            printf("page %llu ", (unsigned long long)d->page);
        text(d->what, false), putchar('\n');
    }
    x->damages++;
}

static int head(const char *untrusted, size_t len, const uint8_t *pub)
{
    struct lg_audit_head h;
    int rc = pub ? lg_audit_head_parse(untrusted, len, &h) : -EPROTO;
    return rc ? rc : lg_audit_head_check(&h, pub);
}

/* ---- the secret -------------------------------------------------------------------------------------------------------------------------------- */

static int key_file(const char *path, char *ret, size_t *ret_len)
{
    LG_SECRET_BUF_AUTO uint8_t *buf = lg_secret_alloc(KEY_FILE_MAX + 1);
    size_t len = 0;
    ssize_t n = -1;
    int fd = buf ? open(path, O_RDONLY | O_CLOEXEC) : -1, rc = buf ? fd < 0 ? -errno : 0 : -ENOMEM;
    while (!rc && len <= KEY_FILE_MAX && (n = read(fd, buf + len, KEY_FILE_MAX + 1 - len)) > 0)
        len += (size_t)n;
    if (!rc && n < 0)
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (!rc)
        rc = len > KEY_FILE_MAX ? -EFBIG : len < KEY_FILE_MIN ? -EINVAL : lg_sha256(buf, len, (uint8_t *)ret);
    if (!rc)
        *ret_len = LG_MAC_LEN;
    return rc;
}

/* Of the slot file that is whole; when none is, nothing is opened and the damage is told. */
static int secret(const struct lg_check_options *o, const char *mirror_slot, struct lg_roots *ret)
{
    LG_SECRET_BUF_AUTO char *s = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    size_t len;
    if (!o->key_file && !o->pass.file && o->pass.fd < 0)
        return LG_EXIT_OK;
    int rc = !s ? -ENOMEM : o->key_file ? key_file(o->key_file, s, &len) : lg_passphrase_read(&o->pass, "Passphrase", false, s, &len);
    if (rc) {
        lg_log(LOG_ERR, "%s: %s", o->key_file ? o->key_file : "passphrase", rc == -EINVAL ? "is empty or too short" : rc == -E2BIG || rc == -EFBIG ? "is too long" : strerror(-rc));
        return LG_EXIT_PASSPHRASE;
    }
    struct lg_tpm *tpm = NULL;
    struct lg_chip chip;
    rc = o->tpm ? lg_keyd_tpm_new(o->tpm, &tpm, &chip) : 0;
    if (!rc)
        rc = lg_slotfile_unlock_with(lg_slotfile_pick(o->slot, o->mirror ? mirror_slot : NULL), tpm ? &chip : NULL, o->key_file ? LG_SLOT_KEY_FILE : LG_SLOT_PASSPHRASE, NULL, s, len, ret);
    lg_tpm_free(tpm);
    if (rc == -ENODEV || rc == -ENOMEDIUM || rc == -EKEYEXPIRED) { /* the secret is right, and alone it opens nothing */
        lg_log(LOG_ERR, "the root-slot file is anchored in a TPM (--tpm): %s. Without a secret, everything is checked that can be told without one", lg_tpm_explain(rc));
        return LG_EXIT_PASSPHRASE;
    }
    if (rc == -EKEYREJECTED) {
        lg_log(LOG_ERR, "no slot opens with this %s. Without one, everything is checked that can be told without a secret", o->key_file ? "key file" : "passphrase");
        return LG_EXIT_PASSPHRASE;
    }
    return LG_EXIT_OK;
}

/* ---- one copy beside the other ------------------------------------------------------------------------------------------------------------------ */

static int copy_check(struct checking *x, const struct lg_check *c, const char *name, const char *dir, const char *slot, struct lg_check_copy *ret)
{
    x->copy = name;
    int rc = lg_check_keyring(c, dir, slot, ret);
    quiet(x);
    if (rc == -ENOENT || rc == -ENOTDIR) {
        damage(x, &(struct lg_check_damage){ .part = "directory", .what = rc == -ENOENT ? "is not there" : "is no directory", .bucket = -1 });
        ret->damages++;
    } else if (rc) {
        lg_log(LOG_ERR, "%s: %s", dir, rc == -EWOULDBLOCK ? "a key manager serves it; end that first, or check a copy of the directory" : strerror(-rc));
        return rc == -EWOULDBLOCK ? LG_EXIT_BUSY : LG_EXIT_FATAL;
    }
    return LG_EXIT_OK;
}

static bool marked(const char *slot)
{
    char path[PATH_MAX + 16];
    return snprintf(path, sizeof path, "%s.degraded", slot) < (int)sizeof path && access(path, F_OK) == 0;
}

static void differ(struct checking *x, struct lg_check_copy c[2], const char *mirror_slot)
{
    struct lg_check_damage d = { .part = "copy", .bucket = -1 };
    bool ahead = c[0].commits < c[1].commits, newer = c[0].slot_generation < c[1].slot_generation;
    if (c[0].there && c[1].there && memcmp(c[0].keyring_id, c[1].keyring_id, LG_ID_LEN) != 0) {
        d.what = "is another keyring's";
        x->copy = "mirror";
    } else if (c[0].there && c[1].there && c[0].commits != c[1].commits) {
        snprintf(d.subject, sizeof d.subject, "has %llu commits, the other one %llu:", (unsigned long long)c[ahead ? 0 : 1].commits, (unsigned long long)c[ahead ? 1 : 0].commits);
        d.what = marked(x->o->slot) || marked(mirror_slot) ? "it fell behind, and is marked so" : "it is behind; the next start brings it in step";
        x->copy = ahead ? "keyring" : "mirror";
    } else if (c[0].slot_there && c[1].slot_there && c[0].slot_generation != c[1].slot_generation) {
        d.part = "slot file";
        d.what = "is behind the other copy's; the next unlock brings it in step";
        x->copy = newer ? "keyring" : "mirror";
    }
    if (!d.what)
        return;
    c[strcmp(x->copy, "mirror") == 0].damages++;
    damage(x, &d);
}

/* ---- saying it ------------------------------------------------------------------------------------------------------------------------------------- */

static void say_json(const struct lg_check_copy *c, const char *name, const char *dir, const char *slot)
{
    char id[2 * LG_ID_LEN + 1];
    const struct { const char *name; uint64_t n; } part[] = {
        { "commits", c->commits }, { "epoch", c->epoch }, { "generation", c->generation }, { "slot_generation", c->slot_generation }, { "slot_epoch", c->slot_epoch },
        { "slots", c->slots }, { "buckets", c->buckets }, { "studies", c->studies }, { "destroyed", c->destroyed }, { "provisional_keys", c->provisional }, { "vaults", c->vaults },
        { "sessions", c->sessions }, { "audit_heads", c->heads }, { "backups", c->backups }, { "acts", c->acts }, { "tombstones", c->tombstones }, { "wrapped_keys", c->versions },
        { "opened", c->opened }, { "not_known", c->unknown }, { "damages", c->damages } };
    lg_hex_encode(c->keyring_id, LG_ID_LEN, id);
    printf("{\"copy\":\"%s\",\"directory\":\"", name);
    text(dir, true);
    printf("\",\"slot_file\":\"");
    text(slot, true);
    printf("\",\"keyring_id\":%s%s%s", c->there ? "\"" : "", c->there ? id : "null", c->there ? "\"" : "");
    for (size_t i = 0; i < sizeof part / sizeof *part; i++)
        printf(",\"%s\":%llu", part[i].name, (unsigned long long)part[i].n);
    printf("}");
}

static void say(const struct lg_check_copy *c, const char *name, const char *dir, const char *slot)
{
    printf("%-10s ", name);
    text(dir, false);
    if (!c->there)
        printf(": nothing can be said of its keys\n");
    else
        printf(": %llu buckets, %llu studies and %llu without a key, %llu vaults, %llu wrapped keys; epoch %llu, %llu commits\n", (unsigned long long)c->buckets, (unsigned long long)c->studies,
               (unsigned long long)c->destroyed, (unsigned long long)c->vaults, (unsigned long long)c->versions, (unsigned long long)c->epoch, (unsigned long long)c->commits);
    printf("%-10s ", "slot file");
    text(slot, false);
    if (c->slot_there)
        printf(": %u slots, generation %llu, epoch %llu\n", c->slots, (unsigned long long)c->slot_generation, (unsigned long long)c->slot_epoch);
    else
        printf(": nothing can be said of its slots\n");
    if (c->opened)
        printf("%-10s %llu wraps and sealed records\n", "opened", (unsigned long long)c->opened);
    if (c->unknown)
        printf("%-10s %llu records that this version does not know\n", "left", (unsigned long long)c->unknown);
}

int lg_keyd_check(const struct lg_check_options *o)
{
    struct checking x = { .o = o, .tty = isatty(STDERR_FILENO) };
    struct lg_roots roots = { 0 };
    struct lg_check c = { .arg = &x, .damage = damage, .progress = progress, .head = head };
    struct lg_check_copy copy[2];
    char mirror_slot[PATH_MAX + 8] = "";
    if (o->mirror)
        snprintf(mirror_slot, sizeof mirror_slot, "%s.root", o->mirror);
    memset(copy, 0, sizeof copy);
    int code = secret(o, mirror_slot, &roots);
    if (code)
        return code;
    c.roots = roots.n ? &roots : NULL;
    if (o->json)
        printf("{\"damage\":[");
    code = copy_check(&x, &c, "keyring", o->keyring, o->slot, &copy[0]);
    if (!code && o->mirror)
        code = copy_check(&x, &c, "mirror", o->mirror, mirror_slot, &copy[1]);
    if (!code && o->mirror)
        differ(&x, copy, mirror_slot);
    lg_roots_done(&roots);
    if (o->json) {
        printf("%s],\n\"copies\":[", x.damages ? "\n" : "");
        say_json(&copy[0], "keyring", o->keyring, o->slot);
        if (o->mirror)
            printf(",\n "), say_json(&copy[1], "mirror", o->mirror, mirror_slot);
        printf("],\n\"complete\":%s,\"with_secret\":%s,\"good\":%s,\"damages\":%llu}\n", code ? "false" : "true", c.roots ? "true" : "false", !code && !x.damages ? "true" : "false",
               (unsigned long long)x.damages);
    } else if (!code) {
        say(&copy[0], "keyring", o->keyring, o->slot);
        if (o->mirror)
            say(&copy[1], "mirror", o->mirror, mirror_slot);
        if (!x.damages)
            puts(c.roots ? "good: everything opens" : "good, as far as can be told without a secret: with --passphrase-file every wrap is opened too");
        else
            printf("%llu damages; %s\n", (unsigned long long)x.damages,
                   o->mirror && !copy[0].damages ? "the keyring is good, its mirror is not" : o->mirror && !copy[1].damages ? "the mirror is good, the keyring is not" : "what is not named above is good");
    }
    if (fflush(stdout) || ferror(stdout))
        return LG_EXIT_FAILED;
    return code ? code : x.damages ? LG_EXIT_FAILED : LG_EXIT_OK;
}
