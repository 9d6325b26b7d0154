#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/transport.h"

static int unlock_with(const struct cli *c, struct lg_client *k)
{
    LG_SECRET_BUF_AUTO char *secret = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    enum lg_slot_type type;
    size_t len;
    unsigned wait = 0;
    int code = secret ? cli_secret(c, "Passphrase", false, &type, secret, &len) : cli_fail(CLI_FAILED, "out of memory");
    if (code)
        return code;
    int rc = type == LG_SLOT_TPM ? lg_client_unlock_tpm(k) : type == LG_SLOT_KEY_FILE ? lg_client_unlock_key(k, (uint8_t *)secret, &wait) : lg_client_unlock(k, secret, len, &wait);
    if (rc == -EKEYREJECTED || rc == -EAGAIN)
        return cli_rejected(rc, type, wait);
    if ((type == LG_SLOT_TPM || rc == -ENODEV || rc == -ENOMEDIUM || rc == -EKEYEXPIRED) && cli_tpm_error(rc)) /* the others: an anchored slot file */
        return cli_fail(CLI_FAILED, "%s", cli_tpm_error(rc));
    if (rc == -ENOENT)
        return cli_fail(CLI_FAILED, "the key manager does not find its root-slot file; see `leadglass status` for where it looks");
    return rc ? cli_explain(c, rc, "unlock") : CLI_OK;
}

static int run_unlock(struct cli *c)
{
    struct lg_client *k;
    if (c->argc)
        return cli_fail(CLI_USAGE, "unexpected argument %s", c->argv[0]);
    int code = cli_client(c, &k);
    if (code)
        return code;
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    int rc = s ? lg_client_status(k, s) : -ENOMEM;
    if (rc)
        code = cli_explain(c, rc, "unlock");
    else if (s->unlocked)
        fputs("unlocked already\n", stderr);
    else
        code = unlock_with(c, k);
    free(s);
    lg_client_free(k);
    return code;
}

const struct cli_command cli_unlock = {
    "unlock", "", "give the key manager the passphrase, or a key file", "--tpm opens a slot sealed to its machine, as it does by itself when it starts. After a wrong one the next attempt of the same user is taken 1, 2, 4 ... 60 s later.\n", NULL,
    { cli_key_file_options, cli_tpm_options, cli_pass_options }, run_unlock, false,
};

/* What is known of mounts that have not confirmed: said, or put into j. */
void cli_unconfirmed_tell(const struct cli *c, const struct lg_unconfirmed *u, cJSON *j)
{
    cJSON *names = c->json ? cJSON_AddArrayToObject(j, "unconfirmed") : NULL, *all = c->json ? cJSON_AddArrayToObject(j, "unconfirmed_mounts") : NULL;
    for (unsigned i = 0; i < u->n; i++) {
        const struct lg_unconfirmed_mount *m = &u->mount[i];
        char id[2 * LG_ID_LEN + 1], away[32] = "", latest[32] = "";
        cli_hex(m->vault_id, id);
        if (m->away)
            cli_time(m->away, away);
        if (m->latest)
            cli_time(m->latest, latest);
        if (c->json) {
            cJSON *o = cJSON_CreateObject();
            cJSON_AddItemToArray(names, cJSON_CreateString(m->mountpoint));
            cJSON_AddStringToObject(o, "mountpoint", m->mountpoint);
            cJSON_AddStringToObject(o, "vault_id", id);
            cJSON_AddStringToObject(o, "away_since", away);
            cJSON_AddStringToObject(o, "unreadable_at_latest", latest);
            cJSON_AddItemToArray(all, o);
            continue;
        }
        if (away[0])
            snprintf(away + strlen(away), sizeof away - strlen(away), " on");
        if (latest[0])
            cli_fail(0, "unconfirmed: the mount at %s (vault %s) %s%s; what it has read may still be readable there: if it runs, until %s at the latest, when its leases have ended; while it is stopped, without an end. "
                        "End it: leadglass umount %s", m->mountpoint, id, away[0] ? "is away, without a connection to the key manager from " : "did not answer", away, latest, m->mountpoint);
        else
            cli_fail(0, "unconfirmed: the daemon of the mount at %s (vault %s) is gone, and it is still mounted; pages it has read may still be readable there. End it: leadglass umount %s", m->mountpoint, id,
                     m->mountpoint);
    }
}

int cli_unconfirmed(const struct cli *c, const struct lg_unconfirmed *u, cJSON *j)
{
    cli_unconfirmed_tell(c, u, j);
    int code = c->json ? cli_print_json(j) : CLI_OK;
    return code ? code : u->n ? CLI_UNCONFIRMED : CLI_OK;
}

static int run_lock(struct cli *c)
{
    struct lg_client *k;
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    int code = u ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    if (!code) {
        int rc = lg_client_lock(k, u);
        code = rc ? cli_explain(c, rc, "lock") : cli_unconfirmed(c, u, c->json ? cJSON_CreateObject() : NULL);
        lg_client_free(k);
    }
    free(u);
    return code;
}

const struct cli_command cli_lock = {
    "lock", "", "forget every key, here and in every mount", "Exit status 6 when a mount has not confirmed; it is named.\n", NULL, { cli_json_options }, run_lock, false,
};

static const char *copies(const struct lg_keyd_status *s)
{
    return s->keyring.stale == LG_STALE_MIRROR ? "degraded: the mirror fell behind" : s->keyring.stale ? "degraded: the keyring's first copy fell behind" : "in step";
}

static void backups(const struct lg_keyd_status *s)
{
    char t[32];
    unsigned long long n = s->keyring.uncovered, others = s->keyring.uncovered_others;
    if (s->keyring.backup) {
        cli_time(s->keyring.backup, t);
        printf("key backup    of %s; %llu studies, or new versions of their keys, have no key copy off this host since\n", t, n);
    } else {
        printf("key backup    none: %llu studies have no key copy off this host. Make one: leadglass backup create FILE\n", n);
    }
    if (others)
        printf("              nor have %llu keys of vaults and of files without a study (vault, general and provisional keys)\n", others);
    if (s->keyring.restored)
        puts("RESTORED      from a backup: nothing is destroyed until `leadglass backup confirm`");
}

/* What a mount's process tells by the names of its threads: how requests arrive, how it reads what is not in memory, and, where either is not over io_uring, why.
 * Empty: cannot be told (gone, or in another container). A version from before it was told reads as `unknown`, or by libfuse's ring threads. */
struct ways {
    char transport[8], reads[8], why[96];
    const char *no_ring;
    bool logged, unlogged; /* unlogged: mounted with audit=off; neither: not yet told */
    bool descriptors;      /* one for each file that the kernel remembers, as there are no file handles below */
};
static struct ways ways_of(uint32_t pid)
{
    struct ways w = { .transport = "", .no_ring = "" };
    char path[300], name[32];
    int lack = LG_RING_LACKS;
    bool any = false, ring = false;
    snprintf(path, sizeof path, "/proc/%u/task", pid);
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        snprintf(path, sizeof path, "/proc/%u/task/%s/comm", pid, e->d_name);
        FILE *f = e->d_name[0] == '.' ? NULL : fopen(path, "re");
        if (f && fgets(name, sizeof name, f)) {
            name[strcspn(name, "\n")] = 0;
            any = true;
            ring = ring || strncmp(name, "fuse-ring-", 10) == 0;
            w.unlogged = w.unlogged || strncmp(name, "lg-unlogged", 11) == 0;
            w.logged = w.logged || strncmp(name, "lg-logged", 9) == 0;
            const char *word = strncmp(name, "lg-unlogged-", 12) == 0 ? name + 12 : strncmp(name, "lg-logged-", 10) == 0 ? name + 10 : NULL;
            for (int i = 0; word && i < LG_RING_LACKS; i++)
                if (strcmp(word, lg_ring_reason((enum lg_ring_lack)i)->word) == 0)
                    lack = i;
            if (strncmp(name, "lg-reads-", 9) == 0 || strncmp(name, "lg-files-", 9) == 0) {
                w.descriptors = name[3] == 'f';
                long error = strtol(name + 9, NULL, 10);
                snprintf(w.reads, sizeof w.reads, "%s", strcmp(name + 9, "ring") == 0 ? "uring" : "pread");
                if (error > 0)
                    snprintf(w.why, sizeof w.why, "the system refuses io_uring: %s", strerror((int)error));
                else if (strcmp(name + 9, "off") == 0)
                    snprintf(w.why, sizeof w.why, "as the mount's options say");
            }
        }
        if (f)
            fclose(f);
    }
    if (d)
        closedir(d);
    if (!any)
        return w;
    bool over = ring || lack == LG_RING_RUNS, told = w.logged || w.unlogged;
    snprintf(w.transport, sizeof w.transport, "%s", over ? "uring" : told ? "dev" : "unknown");
    if (!over)
        w.no_ring = !told ? "the mount is not ready yet" : lack < LG_RING_LACKS ? lg_ring_reason((enum lg_ring_lack)lack)->why : "";
    return w;
}

bool cli_unlogged(uint32_t pid) { return ways_of(pid).unlogged; }

static int run_status(struct cli *c)
{
    struct lg_client *k;
    struct lg_keyd_status *s = calloc(1, sizeof *s);
    char id[2 * LG_ID_LEN + 1];
    int code = s ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    if (code) {
        free(s);
        return code;
    }
    int rc = lg_client_status(k, s);
    if (rc) {
        lg_client_free(k);
        free(s);
        return cli_explain(c, rc, "status");
    }
    cli_hex(s->keyring.keyring_id, id);
    if (c->json) {
        cJSON *j = cJSON_CreateObject(), *kr = cJSON_AddObjectToObject(j, "keyring"), *ms = cJSON_AddArrayToObject(j, "mounts");
        cJSON_AddBoolToObject(j, "unlocked", s->unlocked);
        cJSON_AddStringToObject(j, "version", s->version);
        cJSON_AddNumberToObject(j, "pid", s->pid);
        cJSON_AddNumberToObject(j, "uptime_s", (double)s->uptime_s);
        cJSON_AddStringToObject(j, "socket", c->socket);
        cJSON_AddBoolToObject(j, "memory_locked", !s->memory_unlocked);
        cJSON_AddNumberToObject(j, "officers", s->officers);
        cJSON_AddStringToObject(j, "mode", !s->unlocked ? "locked" : s->officer_mode ? "officers" : "single-administrator");
        cJSON_AddBoolToObject(j, "clock_frozen", s->frozen != 0);
        cJSON_AddNumberToObject(j, "reaps_due", (double)s->reaps_due);
        cJSON_AddNumberToObject(j, "reaps_waiting", (double)s->reaps_waiting);
        cJSON_AddStringToObject(kr, "id", id);
        cJSON_AddStringToObject(kr, "directory", s->keyring_dir);
        cJSON_AddStringToObject(kr, "root_slot", s->slot_path);
        cJSON_AddBoolToObject(kr, "anchored", s->anchor_nv != 0);
        if (s->mirror_dir[0]) {
            cJSON_AddStringToObject(kr, "mirror", s->mirror_dir);
            cJSON_AddStringToObject(kr, "copies", copies(s));
        }
        char last[32] = "";
        if (s->keyring.backup)
            cli_time(s->keyring.backup, last);
        cJSON_AddStringToObject(kr, "backup", last);
        cJSON_AddNumberToObject(kr, "studies_without_backup", (double)s->keyring.uncovered);
        cJSON_AddNumberToObject(kr, "other_keys_without_backup", (double)s->keyring.uncovered_others);
        cJSON_AddBoolToObject(kr, "restored", s->keyring.restored);
        cJSON_AddBoolToObject(kr, "rolled_back", s->keyring.rolled);
        cJSON_AddNumberToObject(kr, "commits", (double)s->keyring.commits);
        cJSON_AddNumberToObject(kr, "epoch", (double)s->keyring.epoch);
        cJSON_AddNumberToObject(kr, "studies", (double)s->keyring.studies);
        cJSON_AddNumberToObject(kr, "destroyed", (double)s->keyring.destroyed);
        cJSON_AddNumberToObject(kr, "vaults", (double)s->keyring.vaults);
        cJSON_AddNumberToObject(kr, "bytes", (double)s->keyring.file_bytes);
        for (unsigned i = 0; i < s->n_mounts; i++) {
            cJSON *m = cJSON_CreateObject();
            cli_hex(s->mounts[i].vault_id, id);
            cJSON_AddStringToObject(m, "mountpoint", s->mounts[i].mountpoint);
            cJSON_AddStringToObject(m, "vault_id", id);
            cJSON_AddNumberToObject(m, "session", (double)s->mounts[i].session);
            cJSON_AddNumberToObject(m, "pid", s->mounts[i].pid);
            char away[32] = "";
            if (s->mounts[i].away)
                cli_time(s->mounts[i].away, away);
            cJSON_AddStringToObject(m, "away_since", away);
            struct ways w = ways_of(s->mounts[i].pid);
            if (w.transport[0])
                cJSON_AddStringToObject(m, "transport", w.transport);
            if (w.no_ring[0])
                cJSON_AddStringToObject(m, "transport_why", w.no_ring);
            if (w.reads[0])
                cJSON_AddStringToObject(m, "cold_reads", w.reads);
            if (w.why[0])
                cJSON_AddStringToObject(m, "cold_reads_why", w.why);
            if (w.reads[0])
                cJSON_AddBoolToObject(m, "file_handles", !w.descriptors);
            if (w.transport[0])
                cJSON_AddStringToObject(m, "audit", w.unlogged ? "off" : w.logged ? "on" : "unknown");
            cJSON_AddItemToArray(ms, m);
        }
        cli_audit_status(k, s, j);
        cli_audit_services(c, cJSON_GetObjectItem(j, "audit"));
        code = cli_print_json(j);
    } else {
        printf("key manager   %s, version %s, process %u, up %llu s, at %s\n", s->unlocked ? "unlocked" : "locked", s->version, s->pid, (unsigned long long)s->uptime_s, c->socket);
        printf("keyring       %s (%s), epoch %llu, commit %llu\n", s->keyring_dir, id, (unsigned long long)s->keyring.epoch, (unsigned long long)s->keyring.commits);
        if (s->keyring.rolled)
            puts("ROLLED BACK   an older keyring was put in place: studies are readable, nothing is changed until officers accept it (leadglass key accept)");
        printf("root slot     %s", s->slot_path);
        if (s->anchor_nv)
            printf(", anchored in the TPM (NV 0x%08x)", s->anchor_nv);
        putchar('\n');
        if (s->mirror_dir[0])
            printf("mirror        %s, %s\n", s->mirror_dir, copies(s));
        printf("studies       %llu, and %llu destroyed\n", (unsigned long long)s->keyring.studies, (unsigned long long)s->keyring.destroyed);
        backups(s);
        printf("vaults        %llu\n", (unsigned long long)s->keyring.vaults);
        if (s->unlocked && s->officer_mode)
            printf("officers      %u\n", s->officers);
        else if (s->unlocked)
            puts("WARNING       single-administrator mode: one administrator alone can destroy studies. `leadglass officer add` ends that");
        if (s->frozen)
            puts("WARNING       the clock cannot be believed: nothing becomes due until it is confirmed (leadglass clock)");
        if (s->reaps_due)
            printf("TO REMOVE     files of %llu destroyed studies are still to be removed from vaults; leadglass study due names them\n", (unsigned long long)s->reaps_due);
        if (s->reaps_waiting)
            printf("to remove     files of %llu studies, once these are destroyed (leadglass study due)\n", (unsigned long long)s->reaps_waiting);
        if (s->memory_unlocked)
            puts("WARNING       key memory is not locked: keys may reach the swap");
        for (unsigned i = 0; i < s->n_mounts; i++) {
            struct ways w = ways_of(s->mounts[i].pid);
            char away[32] = "";
            if (s->mounts[i].away)
                cli_time(s->mounts[i].away, away);
            printf("mounted       %s (process %u, session %llu%s%s%s%s%s%s%s%s%s)%s%s%s\n", s->mounts[i].mountpoint, s->mounts[i].pid, (unsigned long long)s->mounts[i].session,
                   w.transport[0] ? ", transport " : "", w.transport, w.no_ring[0] ? ": " : "", w.no_ring, w.reads[0] ? ", cold reads " : "", w.reads, w.why[0] ? ": " : "", w.why, w.descriptors ? ", NO FILE HANDLES below: a descriptor for each file that is remembered (OPERATIONS.md)" : "", away[0] ? " AWAY from " : "", away, away[0] ? " on: it is not told of revocations until it comes back" : "");
        }
        cli_audit_status(k, s, NULL);
        cli_audit_services(c, NULL);
        if (!s->unlocked)
            puts("Unlock it with `leadglass unlock`.");
    }
    if (!code && s->keyring.rolled)
        code = cli_fail(CLI_ALTERED, "ROLLED BACK: a vault has seen a newer state of this keyring. Put the right keyring and root-slot file back, or have officers accept this one: leadglass key accept");
    if (!code && s->keyring.stale)
        code = cli_fail(CLI_DEGRADED, "DEGRADED: keys are in one copy only, and nothing can be destroyed. Put the disk right, then: kill -HUP (the key manager's supervisor, parent of process %u)",
                        s->pid);
    lg_client_free(k);
    free(s);
    return code;
}

static const struct cli_option status_options[] = {
    { "config", "FILE", "of audit watch and audit export, to tell how they are getting on (default " CLI_AUDIT_CONFIG ")", CLI_TEXT, CLI_INTO(watch.config), 0 },
    { 0 },
};
const struct cli_command cli_status = { "status", "", "show the key manager, its keyring, its mounts and what becomes of the access log", NULL, NULL, { status_options, cli_json_options }, run_status, false };
