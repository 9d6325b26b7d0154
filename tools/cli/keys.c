#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"

static int unlock_with(const struct cli *c, struct lg_client *k)
{
    LG_SECRET_BUF_AUTO char *secret = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    enum lg_slot_type type;
    size_t len;
    unsigned wait = 0;
    int code = secret ? cli_secret(c, "Passphrase", false, &type, secret, &len) : cli_fail(CLI_FAILED, "out of memory");
    if (code)
        return code;
    int rc = type == LG_SLOT_KEY_FILE ? lg_client_unlock_key(k, (uint8_t *)secret, &wait) : lg_client_unlock(k, secret, len, &wait);
    if (rc == -EKEYREJECTED || rc == -EAGAIN)
        return cli_rejected(rc, type, wait);
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
    "unlock", "", "give the key manager the passphrase, or a key file", "After a wrong one the next attempt of the same user is taken 1, 2, 4 ... 60 s later.\n", NULL,
    { cli_key_file_options, cli_pass_options }, run_unlock, false,
};

static int report(const struct cli *c, const struct lg_unconfirmed *u, cJSON *j)
{
    if (c->json) {
        cJSON *a = cJSON_AddArrayToObject(j, "unconfirmed");
        for (unsigned i = 0; i < u->n; i++)
            cJSON_AddItemToArray(a, cJSON_CreateString(u->mountpoint[i]));
        int code = cli_print_json(j);
        return code ? code : u->n ? CLI_UNCONFIRMED : CLI_OK;
    }
    for (unsigned i = 0; i < u->n; i++)
        cli_fail(0, "unconfirmed: the mount at %s did not answer; pages it has read may still be readable there. End it: leadglass umount %s", u->mountpoint[i], u->mountpoint[i]);
    return u->n ? CLI_UNCONFIRMED : CLI_OK;
}

static int run_lock(struct cli *c)
{
    struct lg_client *k;
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    int code = u ? cli_client(c, &k) : cli_fail(CLI_FAILED, "out of memory");
    if (!code) {
        int rc = lg_client_lock(k, u);
        code = rc ? cli_explain(c, rc, "lock") : report(c, u, c->json ? cJSON_CreateObject() : NULL);
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
    lg_client_free(k);
    if (rc) {
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
        cJSON_AddStringToObject(kr, "id", id);
        cJSON_AddStringToObject(kr, "directory", s->keyring_dir);
        cJSON_AddStringToObject(kr, "root_slot", s->slot_path);
        if (s->mirror_dir[0]) {
            cJSON_AddStringToObject(kr, "mirror", s->mirror_dir);
            cJSON_AddStringToObject(kr, "copies", copies(s));
        }
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
            cJSON_AddItemToArray(ms, m);
        }
        code = cli_print_json(j);
    } else {
        printf("key manager   %s, version %s, process %u, up %llu s, at %s\n", s->unlocked ? "unlocked" : "locked", s->version, s->pid, (unsigned long long)s->uptime_s, c->socket);
        printf("keyring       %s (%s), epoch %llu\n", s->keyring_dir, id, (unsigned long long)s->keyring.epoch);
        printf("root slot     %s\n", s->slot_path);
        if (s->mirror_dir[0])
            printf("mirror        %s, %s\n", s->mirror_dir, copies(s));
        printf("studies       %llu, and %llu destroyed\n", (unsigned long long)s->keyring.studies, (unsigned long long)s->keyring.destroyed);
        printf("vaults        %llu\n", (unsigned long long)s->keyring.vaults);
        if (s->memory_unlocked)
            puts("WARNING       key memory is not locked: keys may reach the swap");
        for (unsigned i = 0; i < s->n_mounts; i++)
            printf("mounted       %s (process %u, session %llu)\n", s->mounts[i].mountpoint, s->mounts[i].pid, (unsigned long long)s->mounts[i].session);
        if (!s->unlocked)
            puts("Unlock it with `leadglass unlock`.");
    }
    if (!code && s->keyring.stale)
        code = cli_fail(CLI_DEGRADED, "DEGRADED: keys are in one copy only, and nothing can be destroyed. Put the disk right, then: kill -HUP (the key manager's supervisor, parent of process %u)",
                        s->pid);
    free(s);
    return code;
}

const struct cli_command cli_status = { "status", "", "show the key manager, its keyring and its mounts", NULL, NULL, { cli_json_options }, run_status, false };

/* ---- studies ---------------------------------------------------------------------------------------------------------------------------------- */

static cJSON *study_json(const struct lg_study *s)
{
    char kid[2 * LG_ID_LEN + 1], t[32];
    cJSON *j = cJSON_CreateObject();
    cli_hex(s->kid, kid);
    cJSON_AddStringToObject(j, "uid", s->info.uid);
    cJSON_AddStringToObject(j, "state", lg_key_state_name(s->state));
    cJSON_AddStringToObject(j, "key_id", kid);
    cJSON_AddNumberToObject(j, "key_version", s->version);
    cJSON_AddStringToObject(j, "patient_id", s->info.patient_id);
    cJSON_AddStringToObject(j, "accession", s->info.accession);
    cJSON_AddStringToObject(j, "study_date", s->info.date);
    cJSON_AddStringToObject(j, "modality", s->info.modality);
    cli_time(s->created, t);
    cJSON_AddStringToObject(j, "created", t);
    cli_time(s->changed, t);
    cJSON_AddStringToObject(j, "changed", t);
    cJSON_AddNumberToObject(j, "changed_by", s->changed_by);
    cJSON_AddStringToObject(j, "reason", s->reason);
    return j;
}

struct listing {
    const struct cli *c;
    cJSON *all;
    bool tty;
};

static int list_one(void *arg, const struct lg_study *s)
{
    struct listing *l = arg;
    if (l->all) {
        cJSON_AddItemToArray(l->all, study_json(s));
        return 0;
    }
    const char *uid = s->info.uid[0] ? s->info.uid : "-";
    if (l->tty)
        printf("%-64s  %-10s %-8s  %-8s  %s\n", uid, lg_key_state_name(s->state), s->info.date, s->info.modality, s->info.patient_id);
    else
        printf("%s\t%s\t%s\t%s\t%s\n", uid, lg_key_state_name(s->state), s->info.date, s->info.modality, s->info.patient_id);
    return 0;
}

static int study_list(const struct cli *c, struct lg_client *k)
{
    struct listing l = { .c = c, .all = c->json ? cJSON_CreateArray() : NULL, .tty = isatty(STDOUT_FILENO) };
    if (l.tty && !c->json)
        printf("%-64s  %-10s %-8s  %-8s  %s\n", "STUDY", "STATE", "DATE", "MODALITY", "PATIENT");
    int rc = lg_client_study_list(k, list_one, &l);
    if (rc) {
        cJSON_Delete(l.all);
        return cli_explain(c, rc, "study list");
    }
    return c->json ? cli_print_json(l.all) : CLI_OK;
}

static int study_show(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_study *s = calloc(1, sizeof *s);
    char kid[2 * LG_ID_LEN + 1], t[32], u[32];
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int rc = s && st ? lg_client_status(k, st) : -ENOMEM, code = CLI_OK;
    free(st);
    if (rc) {
        free(s);
        return cli_explain(c, rc, "study show");
    }
    rc = lg_client_study_show(k, uid, s);
    if (rc == -ENOENT)
        code = cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid);
    else if (rc)
        code = cli_explain(c, rc, "study show");
    else if (c->json)
        code = cli_print_json(study_json(s));
    else {
        cli_hex(s->kid, kid);
        cli_time(s->created, t);
        cli_time(s->changed, u);
        printf("study        %s\nstate        %s since %s%s%s\nkey          %s, version %u\ncreated      %s\n", s->info.uid[0] ? s->info.uid : uid, lg_key_state_name(s->state), u,
               s->reason[0] ? ", reason: " : "", s->reason, kid, s->version, t);
        printf("patient      %s\naccession    %s\nstudy date   %s\nmodality     %s\n", s->info.patient_id, s->info.accession, s->info.date, s->info.modality);
    }
    free(s);
    return code;
}

static int study_revoke(const struct cli *c, struct lg_client *k, const char *uid)
{
    struct lg_unconfirmed *u = calloc(1, sizeof *u);
    enum lg_key_state state;
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int code = CLI_OK, rc;
    if (!u || !st)
        code = cli_fail(CLI_FAILED, "out of memory");
    else if (!c->reason || !c->reason[0])
        code = cli_fail(CLI_USAGE, "say why: --reason TEXT");
    else if (!c->now)
        code = cli_fail(CLI_USAGE, "no officers are registered, so no one could approve a request: say --now to destroy the key of %s at once. It cannot be undone", uid);
    else if ((rc = lg_client_status(k, st)) != 0)
        code = cli_explain(c, rc, "study revoke");
    else {
        rc = lg_client_study_revoke(k, uid, c->reason, c->now, &state, u);
        if (rc == -ENOENT)
            code = cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid);
        else if (rc)
            code = cli_explain(c, rc, uid);
        else {
            cJSON *j = NULL;
            if (c->json) {
                j = cJSON_CreateObject();
                cJSON_AddStringToObject(j, "uid", uid);
                cJSON_AddStringToObject(j, "state", lg_key_state_name(state));
            } else {
                printf("%s: %s\n", uid, lg_key_state_name(state));
                fflush(stdout);
            }
            code = report(c, u, j);
            if (state != LG_KEY_DESTROYED && code == CLI_OK)
                code = cli_fail(CLI_FAILED, "the key is revoked but its destruction is not complete; the key manager's log says why. Run the same command again, or lock and unlock");
        }
    }
    free(st);
    free(u);
    return code;
}

static int run_study(struct cli *c)
{
    static const char *const later[] = { "due", "hold", "release", "retain", "suspend", "resume", "readmit", "approve", "cancel", "certificate" };
    struct lg_client *k;
    const char *what = c->argc ? c->argv[0] : "";
    for (size_t i = 0; i < sizeof later / sizeof *later; i++)
        if (strcmp(what, later[i]) == 0)
            return cli_fail(CLI_UNAVAILABLE, "`leadglass study %s` is not available in this version", what);
    bool list = strcmp(what, "list") == 0, show = strcmp(what, "show") == 0, revoke = strcmp(what, "revoke") == 0;
    bool assign = strcmp(what, "assign") == 0;
    if ((!list && !show && !revoke && !assign) || c->argc != (list ? 1 : assign ? 3 : 2))
        return cli_fail(CLI_USAGE, "expected list, show UID, assign FILE UID or revoke UID; see leadglass study --help");
    if (assign)
        return cli_assign(c->argv[1], c->argv[2]);
    int code = cli_client(c, &k);
    if (code)
        return code;
    code = list ? study_list(c, k) : show ? study_show(c, k, c->argv[1]) : study_revoke(c, k, c->argv[1]);
    lg_client_free(k);
    return code;
}

static const struct cli_option study_options[] = {
    { "reason", "TEXT", "why (kept with the study's tombstone)", CLI_TEXT, CLI_INTO(reason), 0 },
    { "now", NULL, "one administrator alone, at once", CLI_FLAG, CLI_INTO(now), 0 },
    { 0 },
};
const struct cli_command cli_study = {
    "study", "list | show UID | assign FILE UID | revoke UID --reason TEXT --now", "list and show studies; revoke one",
    "assign re-encrypts a file of a mounted vault under the key of another study. Copies of its old ciphertext stay under the old key.\n"
    "revoke destroys the study's key: the study, its backups included, can then be read by nobody. It cannot be undone.\n"
    "While no officers are registered, one administrator may do it, and says so with --now.\n"
    "Exit status 6 when a mount has not confirmed; it is named.\n",
    "list|show|assign|...", { study_options, cli_json_options }, run_study, false,
};
