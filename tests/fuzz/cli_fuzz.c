/* What the command reads and others may have written: certificates of destruction, officers' key files, the state of an interrupted scrub, what the programs that follow
 * the access log say of themselves, the names of keys as a mount gives them; and the settings of an export. First byte: which, and how much of the rest is laid over a
 * good one. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/cli/certificate.c"
#include "../../tools/cli/auditselect.h"
#include "../../tools/cli/scrub.h"
#include "leadglass/certificate.h"
#include "scratch.h"
#include "settings.h"

static char path[40];
static int fd;
static char good[65536]; /* a certificate in JSON */
static size_t good_len;
static char pub[64];

/* One of single-administrator mode, signed by a key of ours. */
static void make_good(void)
{
    static struct lg_certificate x;
    static struct lg_act a;
    static uint8_t doc[LG_CERT_MAX], tomb[LG_TOMBSTONE_LEN];
    uint8_t sig[LG_SIGN_LEN];
    size_t n;
    LG_SECRET_AUTO seed = lg_secret_new();
    a = (struct lg_act){ .action = LG_ACT_REVOKE, .keyring_id = { 1 }, .nonce = { 2 }, .created = 5, .expires = 50, .kid = { 3 }, .uid = "1.2.3", .reason = "why" };
    memcpy(x.keyring_id, a.keyring_id, LG_ID_LEN);
    memcpy(x.tombstone.keyring_id, a.keyring_id, LG_ID_LEN);
    memcpy(x.tombstone.kid, a.kid, LG_ID_LEN);
    memcpy(x.tombstone.act, a.nonce, LG_ID_LEN);
    strcpy(x.uid, a.uid);
    x.issued = 100;
    x.files = LG_CERT_UNKNOWN;
    x.version = 3;
    x.vaults = 1;
    x.n_backups = 1;
    x.backups_all = 2;
    x.act.state = LG_ACT_DONE;
    x.act.asked.at = 6;
    if (!seed || lg_sign_public(seed, x.pub) || lg_act_encode(&a, x.act.doc, &x.act.doc_len) || lg_tombstone_encode(&x.tombstone, tomb) ||
        lg_sign(seed, tomb, LG_TOMBSTONE_SIGNED, x.tombstone.sig) || lg_certificate_encode(&x, doc, &n) || lg_sign(seed, doc, n, sig) ||
        lg_certificate_verify(doc, n, sig, &x))
        abort();
    cJSON *j = json_of(doc, n, sig, &x);
    if (!j || !cJSON_PrintPreallocated(j, good, sizeof good - 1, true))
        abort();
    cJSON_Delete(j);
    good_len = strlen(good);
    lg_b64_encode(x.pub, sizeof x.pub, pub);
}

static void file(const void *head, size_t head_len, const void *data, size_t len)
{
    if (ftruncate(fd, 0) || lseek(fd, 0, SEEK_SET) || (head_len && write(fd, head, head_len) != (ssize_t)head_len) || (len && write(fd, data, len) != (ssize_t)len))
        abort();
}

static void certificate(unsigned how, const uint8_t *data, size_t len)
{
    static char text[sizeof good];
    struct cli c = { .key = !(how & 8) ? NULL : how & 16 ? pub : how & 32 ? "?" : "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA" };
    bool changed = true;
    if (how & 4) { /* laid over a good one */
        size_t at = len > 2 ? (data[0] | (size_t)data[1] << 8) % good_len : 0, n = len > 2 ? len - 2 : 0;
        if (n > good_len - at)
            n = good_len - at;
        memcpy(text, good, good_len);
        if (n)
            memcpy(text + at, data + 2, n);
        changed = memcmp(text, good, good_len) != 0;
        file(NULL, 0, text, good_len);
    } else {
        file(NULL, 0, data, len);
    }
    int code = certificate_verify(&c, path);
    if (!changed && code != (!(how & 8) || how & 16 ? CLI_OK : how & 32 ? CLI_USAGE : CLI_REFUSED))
        abort();
}

static char officer[LG_OFFICER_KEY_TEXT];

/* With the cheapest key that is accepted: what makes one for use takes its time. */
static void officer_make(void)
{
    enum { FIXED = 3 + 32 + LG_SIGN_PUB_LEN };
    uint8_t ad[8 + FIXED] = "offickey", all[FIXED + LG_WRAPPED_LEN];
    struct lg_scrypt cheap = { .log2_n = 10, .r = 1, .p = 1 };
    LG_SECRET_AUTO seed = lg_secret_random();
    LG_SECRET_AUTO kek = lg_secret_new();
    ad[8] = 10;
    ad[9] = ad[10] = 1;
    if (!seed || !kek || lg_sign_public(seed, ad + 8 + 3 + 32) || lg_scrypt_derive(&cheap, "x", 1, kek) || lg_key_wrap(kek, ad, sizeof ad, seed, all + FIXED))
        abort();
    memcpy(all, ad + 8, FIXED);
    strcpy(officer, "leadglass-officer-key-1 ");
    lg_b64_encode(all, sizeof all, officer + strlen(officer));
    strcat(officer, "\n");
}

static void officer_key(unsigned how, const uint8_t *data, size_t len)
{
    char text[sizeof officer];
    size_t n = strlen(officer);
    LG_SECRET_AUTO seed = lg_secret_new();
    memcpy(text, officer, sizeof text);
    for (size_t i = 0; how & 4 && i + 1 < len && i < 8; i += 2) /* not the cost of the key, which would be honoured up to a second */
        text[30 + data[i] % (n - 30)] ^= (char)data[i + 1];
    int rc = seed ? lg_officer_key_open(text, n, how & 8 ? "x" : "wrong", how & 8 ? 1 : 5, seed) : 0;
    if (seed && memcmp(text, officer, n) == 0 && rc != (how & 8 ? 0 : -EKEYREJECTED))
        abort();
}

static void state(unsigned how, const uint8_t *data, size_t len)
{
    static const char head[] = "{\"leadglass_scrub\":1,\"vault_id\":\"00000000000000000000000000000000\",\"mode\":\"keys\",\"manifest\":\"\",\"against\":\"\"}\n";
    struct cli c = { .json = false };
    struct run r = { .c = &c, .state = path, .resume = true };
    char *position = NULL;
    file(head, how & 4 ? sizeof head - 1 : 0, data, len);
    if (state_open(&r, &position) == 0) {
        struct lg_scrub_stat total = r.base;
        (void)!state_print(&r, &total);
    }
    free(position);
    if (r.log)
        fclose(r.log);
}

/* [export], or a file that is that section alone. */
static void settings(bool section, const uint8_t *data, size_t len)
{
    static const char head[] = "[export]\nhost = receiver\n";
    struct lg_export_settings s;
    char error[512] = "";
    file(head, section ? sizeof head - 1 : 0, data, len);
    int rc = lg_export_settings_load(path, &s, error, sizeof error);
    if (rc ? !error[0] : s.port[0] < '1' || !s.spool[0] || !s.retry_s || s.retry_s > 3600 || s.spool_max < 1u << 20 || s.spool_max > 1048576ull << 20)
        abort(); /* it always says why */
    if (!rc && s.host[0] && ((s.tls && !s.ca[0]) || !s.cert[0] != !s.key[0])) /* without a host nothing is exported */
        abort();
}

static char dir[64], config[80], state_file[2][80];

static void gone(void)
{
    unlink(config);
    unlink(state_file[0]);
    unlink(state_file[1]);
    rmdir(dir);
}

static void services_make(void)
{
    fuzz_dir("lgcli", dir, sizeof dir);
    snprintf(config, sizeof config, "%s/audit.conf", dir);
    snprintf(state_file[0], sizeof state_file[0], "%s/state.json", dir);
    snprintf(state_file[1], sizeof state_file[1], "%s/watch.json", dir);
    FILE *f = fopen(config, "we");
    if (!f || fprintf(f, "[export]\nhost = h\nca = c\nspool = %s\nrelease-study-uids = yes\n[watch]\nstate = %s/watch\n", dir, dir) < 0 || fclose(f) || symlink("state.json", state_file[1]))
        abort();
    atexit(gone);
}

/* Shown as text and as JSON, by `status` and by `audit export`; whatever it says of itself, a process that is not there does not run. */
static void services(const uint8_t *data, size_t len)
{
    struct cli c = { .watch.config = config };
    FILE *f = fopen(state_file[0], "we");
    cJSON *j = cJSON_CreateObject();
    if (!f || fwrite(data, 1, len, f) != len || fclose(f) || !j)
        abort();
    cli_audit_services(&c, NULL);
    cli_audit_services(&c, j);
    const cJSON *export = cJSON_GetObjectItem(j, "export"), *running = cJSON_GetObjectItem(export, "running");
    if (!cJSON_IsNull(export) && (!cJSON_IsObject(export) || !cJSON_IsBool(running) || (cJSON_IsTrue(running) && !cli_json_number(export, "pid"))))
        abort();
    bool said = cJSON_IsObject(export);
    cJSON_Delete(j);
    int code = cli_audit_follow(&c);
    c.json = true;
    if (code != (said ? CLI_OK : CLI_FAILED) || cli_audit_follow(&c) != code)
        abort();
}

static void key_text(const char *text, size_t len)
{
    struct cli_file f, again;
    char *exact = malloc(len + 1), hex[2][2 * LG_ID_LEN + 1], b[100];
    if (!exact)
        abort();
    memcpy(exact, text, len); /* no zero ends it */
    int rc = cli_key_parse(exact, len, &f);
    free(exact);
    if (rc)
        return;
    cli_hex(f.kid, hex[0]);
    cli_hex(f.file_id, hex[1]);
    int n = snprintf(b, sizeof b, "%s %u %s", hex[0], f.version, hex[1]);
    if ((size_t)n > len || cli_key_parse(b, (size_t)n, &again) || again.version != f.version || memcmp(again.kid, f.kid, LG_ID_LEN) != 0 || memcmp(again.file_id, f.file_id, LG_ID_LEN) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!path[0]) {
        FILE *null = fopen("/dev/null", "we");
        if (!null || lg_secret_init(true) || lg_crypto_init() || (fd = memfd_create("cli", MFD_CLOEXEC)) < 0)
            abort();
        stdout = null; /* what the command tells; the fuzzer has its own */
        stderr = null;
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        make_good();
        officer_make();
        services_make();
    }
    if (!len || len > 60000)
        return 0;
    if (*data >= 0xf0) /* seldom: each costs as much as a passphrase */
        officer_key(*data, data + 1, len - 1);
    else if (*data & 1)
        certificate(*data, data + 1, len - 1);
    else if (!(*data & 2))
        state(*data, data + 1, len - 1);
    else if (!(*data & 4))
        settings(*data & 8, data + 1, len - 1);
    else if (!(*data & 8))
        services(data + 1, len - 1);
    else
        key_text((const char *)data + 1, len - 1);
    return 0;
}
