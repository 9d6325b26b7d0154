#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "leadglass/audit.h"
#include "leadglass/crypto.h"
#include "scrub.h"

enum { LEASE_S = 60 }; /* keys are not kept longer than they are used */

struct lg_session {
    struct lg_client *client;
    struct lg_watch *watch;
    struct lg_key_source source;
    int (*by_id)(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease);
    struct lg_keys *keys;
    struct lg_volume *volume;
    uint64_t number, unclean[LG_UNCLEAN_MAX];
    unsigned n_unclean, rests;
    pthread_mutex_t mu; /* the rest */
    pthread_cond_t rested;
    bool locked, give_up, over; /* over: nothing is being read any more */
    uint64_t at_rest; /* how often no file was open */
};

/* The lease of a file's key is short here: a vault has many. */
static struct lg_session *of_source;
static int short_lease(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    int rc = of_source->by_id(arg, kid, version, ret, lease);
    if (!rc && *lease > LEASE_S)
        *lease = LEASE_S;
    return rc;
}

/* On the watch's thread. Returns, which acknowledges, when no file is open whose key it concerns. */
static int on_event(void *arg, const struct lg_event *e)
{
    struct lg_session *s = arg;
    if (e->kind == LG_EVENT_UNLOCK) {
        lg_keys_unlock(s->keys);
        return 0;
    }
    if (e->kind == LG_EVENT_RESYNC) {
        lg_keys_resync(s->keys);
        return 0;
    }
    if (e->kind == LG_EVENT_ROTATED || e->kind == LG_EVENT_TRIMMED) { /* nothing is revoked; what is asked for again is given, or is retired */
        if (e->kind == LG_EVENT_ROTATED)
            lg_keys_rotated(s->keys, e->kids, e->n_kids);
        else
            lg_keys_trimmed(s->keys, e->kids, e->n_kids);
        return 0;
    }
    if (e->kind == LG_EVENT_LOCK)
        lg_keys_lock(s->keys);
    else
        lg_keys_revoke(s->keys, e->kids, e->n_kids);
    pthread_mutex_lock(&s->mu);
    s->locked = s->locked || e->kind == LG_EVENT_LOCK;
    s->give_up = true;
    for (uint64_t was = s->at_rest; !s->over && s->at_rest == was;)
        pthread_cond_wait(&s->rested, &s->mu);
    pthread_mutex_unlock(&s->mu);
    return 0;
}

int session_pace(struct lg_session *s, bool at_rest)
{
    int rc = 0;
    pthread_mutex_lock(&s->mu);
    if (at_rest) {
        s->at_rest++;
        s->give_up = false;
        pthread_cond_broadcast(&s->rested);
        rc = s->locked ? -ENOKEY : 0;
    } else if (s->give_up) {
        rc = s->locked ? -ENOKEY : -EKEYREVOKED;
    }
    pthread_mutex_unlock(&s->mu);
    if (at_rest && ++s->rests % 1024 == 0)
        lg_keys_expire(s->keys);
    return rc;
}

static int busy(const struct run *r, struct lg_session *s, const char *vault)
{
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    const char *at = "somewhere";
    if (st && !lg_client_status(s->client, st))
        for (unsigned i = 0; i < st->n_mounts; i++)
            if (!memcmp(st->mounts[i].vault_id, r->vault_id, LG_ID_LEN))
                at = st->mounts[i].mountpoint;
    int code = cli_fail(CLI_BUSY, "vault %s, or the one that it is a copy of, is in use (%s). A check with keys needs it for itself: unmount it first (leadglass umount). As things are its checksums can be checked (leadglass scrub --keyless %s), "
                        "and of a copy files by chance, with a keyring backup (leadglass backup restore FILE --drill --vault %s)", vault, at, vault, vault);
    free(st);
    return code;
}

static int explain_open(const char *vault, int rc)
{
    switch (rc) {
    case -EWOULDBLOCK:
        return cli_fail(CLI_BUSY, "vault %s is mounted by a process that this key manager does not know; unmount it first, or check its checksums as it is with --keyless", vault);
    case -EBADMSG:
        return cli_fail(CLI_DAMAGE, "%s: the vault's header (leadglass.vault) does not verify under its key: it was tampered with or damaged. Restore that file from a backup; --keyless checks the rest meanwhile", vault);
    case -EPROTO:
        return cli_fail(CLI_DAMAGE, "%s: the journal (leadglass.journal) is damaged. Restore it from the same backup as the rest; --keyless checks the rest meanwhile", vault);
    case -EPROTONOSUPPORT:
        return cli_fail(CLI_FAILED, "vault %s was written by a newer version of Leadglass; nothing was touched", vault);
    case -EROFS:
        return cli_fail(CLI_INCOMPLETE, "vault %s: its journal holds changes that are not in place yet. Check it without --read-only (which puts them in place), or mount it once", vault);
    default:
        return cli_fail(CLI_FAILED, "vault %s: %s", vault, strerror(-rc));
    }
}

static int connect_keys(struct run *r, struct lg_session *s, const char *vault)
{
    struct lg_vault_info info;
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    char have[2 * LG_ID_LEN + 1], want[2 * LG_ID_LEN + 1];
    struct lg_key a = { .key = NULL }, b = { .key = NULL };
    uint8_t keyring_id[LG_ID_LEN];
    int rc = lg_vault_read(vault, &info), code = 0;
    if (!st)
        return cli_fail(CLI_FAILED, "out of memory");
    if (rc)
        code = cli_fail(rc == -EPROTO ? CLI_DAMAGE : CLI_FAILED, "%s %s", vault,
                        rc == -ENOENT ? "is not a vault" : rc == -EPROTO ? "has a damaged header (leadglass.vault); restore that file from a backup. --keyless checks the rest meanwhile" : strerror(-rc));
    if (!code) {
        memcpy(r->vault_id, info.vault_id, LG_ID_LEN);
        code = cli_client(r->c, &s->client);
    }
    rc = code ? 0 : lg_client_status(s->client, st);
    if (rc)
        code = cli_explain(r->c, rc, "scrub");
    else if (!code && !st->unlocked)
        code = cli_explain(r->c, -ENOKEY, "scrub");
    else if (!code && memcmp(st->keyring.keyring_id, info.keyring_id, LG_ID_LEN) != 0) {
        cli_hex(st->keyring.keyring_id, have);
        cli_hex(info.keyring_id, want);
        code = cli_fail(CLI_FAILED, "vault %s belongs to keyring %s, but the key manager at %s holds keyring %s (%s). Start the key manager of that keyring", vault, want, r->c->socket, have, st->keyring_dir);
    }
    free(st);
    if (!code && (r->o.manifest || r->o.against)) { /* before hours of work */
        rc = lg_client_manifest_key(s->client, r->signer);
        if (rc == -EPROTONOSUPPORT)
            code = cli_fail(CLI_FAILED, "the key manager at %s is of an earlier version, which does not sign manifests; nothing was touched. Start that of this version", r->c->socket);
        else if (rc)
            code = cli_explain(r->c, rc, "the key that signs manifests");
        r->o.signer = r->signer;
    }
    rc = code ? 0 : lg_client_vault_get(s->client, info.vault_id, keyring_id, &a, &b);
    lg_secret_free(a.key);
    lg_secret_free(b.key);
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "the keyring does not know vault %s: it was restored from before that vault was made, or the vault is another's", vault) : cli_explain(r->c, rc, "scrub");
    return code;
}

int session_open(struct run *r, const char *vault)
{
    char what[1024], real[PATH_MAX];
    if (lg_secret_unlocked() && !r->c->allow_unlocked)
        return cli_fail(CLI_FAILED, "key memory cannot be locked. Raise the limit (ulimit -l), or say --allow-unlocked-memory");
    struct lg_session *s = calloc(1, sizeof *s);
    if (!s)
        return cli_fail(CLI_FAILED, "out of memory");
    pthread_mutex_init(&s->mu, NULL);
    pthread_cond_init(&s->rested, NULL);
    r->keys = s;
    int code = connect_keys(r, s, vault);
    if (code)
        return code;
    snprintf(what, sizeof what, "scrub of %.490s%s%s%s%s%s%.380s", realpath(vault, real) ? real : vault, r->read_only ? ", read-only" : "", r->o.accept_crash ? ", accept-crash" : "",
             r->o.repair ? ", repair" : "", r->o.remove ? ", remove" : "", r->o.salvage ? ", salvage to " : "", r->o.salvage ? r->o.salvage : "");
    int rc = lg_client_session_begin(s->client, r->vault_id, what, false, &s->number, s->unclean, &s->n_unclean);
    if (rc)
        return rc == -EBUSY ? busy(r, s, vault) : cli_explain(r->c, rc, "beginning a session");
    s->n_unclean = s->n_unclean > LG_UNCLEAN_MAX ? LG_UNCLEAN_MAX : s->n_unclean;
    s->source = lg_key_source_client(s->client);
    s->by_id = s->source.by_id;
    s->source.by_id = short_lease;
    of_source = s;
    rc = lg_keys_new(&s->source, r->vault_id, &s->keys);
    struct lg_volume_options vo = { .keys = s->keys, .session = s->number, .unclean = s->unclean, .n_unclean = s->n_unclean, .read_only = r->read_only };
    if (!rc)
        rc = lg_volume_open(vault, &vo, &s->volume);
    if (rc)
        return explain_open(vault, rc);
    rc = lg_watch_start(r->c->socket, s->number, on_event, s, &s->watch);
    if (rc)
        return cli_fail(CLI_FAILED, "cannot start threads: %s", strerror(-rc));
    r->o.volume = s->volume;
    r->o.keys = s->keys;
    return 0;
}

int session_salvaging(struct lg_session *s, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN])
{
    uint8_t file[LG_ID_LEN] = { 0 };
    struct lg_kref *k;
    if (lg_keys_by_id(s->keys, kid, key_version, &k) == 0) {
        if (lg_audit_file_id(k->key, file_id, file))
            memset(file, 0, sizeof file);
        lg_kref_unref(k);
    }
    return lg_client_scrub_salvage(s->client, s->number, kid, key_version, file);
}

int session_sign(struct run *r, struct lg_manifest_sig *s)
{
    r->unsigned_why = lg_client_manifest_sign(r->keys->client, r->keys->number, r->signer, s);
    return r->unsigned_why;
}

int session_close(struct run *r, bool complete)
{
    struct lg_session *s = r->keys;
    int code = 0, rc;
    if (!s)
        return 0;
    pthread_mutex_lock(&s->mu);
    s->over = true;
    pthread_cond_broadcast(&s->rested);
    pthread_mutex_unlock(&s->mu);
    lg_watch_stop(s->watch);
    bool clean = true;
    if (s->volume && (rc = lg_volume_close(s->volume)) != 0) {
        clean = false;
        code = cli_fail(CLI_FAILED, "not everything could be written: %s. The next mount checks what this run wrote", strerror(-rc));
    }
    for (unsigned i = 0; clean && complete && i < s->n_unclean; i++)
        (void)!lg_client_session_close(s->client, s->unclean[i]); /* else the next mount sweeps */
    if (s->number && r->found[0] && (rc = lg_client_scrub_found(s->client, s->number, r->found)) != 0)
        fprintf(stderr, "leadglass: what was found is not in the access log: %s\n", strerror(-rc));
    if (s->number && clean)
        (void)!lg_client_session_end(s->client, s->number);
    lg_keys_free(s->keys);
    lg_client_free(s->client);
    pthread_mutex_destroy(&s->mu);
    pthread_cond_destroy(&s->rested);
    free(s);
    r->keys = NULL;
    return code;
}
