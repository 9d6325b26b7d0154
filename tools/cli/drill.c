/* leadglass backup restore --drill --vault: the restore that would be made, into a directory that is taken away again, under a passphrase that nobody
 * has; with its keys files of the vault are read whole, as a check of the vault reads them. No key manager, and nothing is changed. */
#include <dirent.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backup.h"
#include "leadglass/crypto.h"
#include "leadglass/scrub.h"

enum { LEASE_S = 3600 };

struct drill {
    struct lg_keyring *k;
    pthread_mutex_t mu;
    uint64_t files, left, wanted; /* of the second walk: still to come, still to be taken */
    bool counting, json;
};

/* ---- keys: the restored keyring's, one caller at a time ------------------------------------------------------------------------------------------- */

static int src_vault(void *arg, const uint8_t vault_id[LG_ID_LEN], struct lg_key *v, struct lg_key *g)
{
    struct drill *d = arg;
    pthread_mutex_lock(&d->mu);
    int rc = lg_keyring_vault_get(d->k, vault_id, v, g);
    pthread_mutex_unlock(&d->mu);
    return rc;
}
static int src_by_id(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_key *ret, unsigned *lease)
{
    struct drill *d = arg;
    *lease = LEASE_S;
    pthread_mutex_lock(&d->mu);
    int rc = lg_keyring_key_by_id(d->k, kid, version, ret);
    pthread_mutex_unlock(&d->mu);
    return rc;
}
static int src_study(void *arg, const struct lg_study_info *info, struct lg_key *ret, unsigned *lease) { return (void)arg, (void)info, (void)ret, (void)lease, -EROFS; }
static int src_provisional(void *arg, struct lg_key *ret, unsigned *lease) { return (void)arg, (void)ret, (void)lease, -EROFS; }
static int src_attach(void *arg, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info) { return (void)arg, (void)kid, (void)info, -EROFS; }

/* ---- which files ------------------------------------------------------------------------------------------------------------------------------------ */

/* Each of the files is as likely as the other (Knuth, TAOCP 2, 3.4.2, S). */
static bool skip(void *arg)
{
    struct drill *d = arg;
    uint64_t r;
    if (d->counting)
        return d->files++, true;
    if (!d->left || lg_random(&r, sizeof r))
        return true;
    bool take = r % d->left < d->wanted;
    d->left--;
    d->wanted -= take;
    return !take;
}

static void on_finding(void *arg, const struct lg_scrub_finding *f)
{
    struct drill *d = arg;
    if (d->counting || f->cls == LG_SCRUB_REVOKED || f->cls == LG_SCRUB_LEFTOVER)
        return;
    fprintf(d->json ? stderr : stdout, "%s\t%s\t%s\n", lg_scrub_class_name(f->cls), f->lower, f->kind);
}

static int on_pace(void *arg, const struct lg_scrub_stat *s, bool at_rest, const char *position) { return (void)arg, (void)s, (void)at_rest, (void)position, 0; }

/* ---- the drill ------------------------------------------------------------------------------------------------------------------------------------------ */

static int read_vault(struct drill *d, const char *vault, unsigned sample, struct lg_scrub_stat *ret)
{
    struct lg_key_source src = { .arg = d, .vault = src_vault, .study = src_study, .by_id = src_by_id, .provisional = src_provisional, .attach = src_attach };
    struct lg_vault_info info;
    struct lg_keyring_stat st;
    struct lg_keys *keys = NULL;
    struct lg_volume *v = NULL;
    uint64_t unclean[64];
    unsigned n = 0;
    int rc = lg_vault_read(vault, &info);
    if (rc)
        return cli_fail(rc == -EPROTO ? CLI_DAMAGE : CLI_FAILED, "%s: %s", vault, rc == -ENOENT ? "is not a vault" : rc == -EPROTO ? "has a damaged header (leadglass.vault)" : strerror(-rc));
    rc = lg_keyring_stat(d->k, &st);
    if (!rc && memcmp(st.keyring_id, info.keyring_id, LG_ID_LEN) != 0)
        return cli_fail(CLI_FAILED, "vault %s belongs to another keyring", vault);
    if (!rc)
        rc = lg_keyring_sessions_unclean(d->k, info.vault_id, unclean, 64, &n);
    if (!rc)
        rc = lg_keys_new(&src, info.vault_id, &keys);
    struct lg_volume_options vo = { .keys = keys, .session = UINT64_MAX, .unclean = unclean, .n_unclean = n < 64 ? n : 64, .read_only = true };
    if (!rc)
        rc = lg_volume_open(vault, &vo, &v);
    struct lg_scrub_options o = { .dir = vault, .volume = v, .keys = keys, .skip = skip, .finding = on_finding, .pace = on_pace, .arg = d };
    d->counting = true;
    if (!rc)
        rc = lg_scrub_run(&o, ret);
    d->counting = false;
    d->left = d->files;
    d->wanted = sample < d->files ? sample : d->files;
    if (!rc)
        rc = lg_scrub_run(&o, ret);
    if (v)
        (void)!lg_volume_close(v);
    lg_keys_free(keys);
    switch (rc) {
    case 0: return CLI_OK;
    case -EWOULDBLOCK: return cli_fail(CLI_BUSY, "vault %s is mounted. Drill with a copy of it, as a restore would", vault);
    case -ENOENT: return cli_fail(CLI_UNKNOWN_KEYS, "the backup does not know vault %s: it is from before that vault was made", vault);
    case -EROFS: return cli_fail(CLI_INCOMPLETE, "vault %s: its journal holds changes that are not in place yet, and a drill changes nothing", vault);
    case -EBADMSG: return cli_fail(CLI_DAMAGE, "%s: the vault's header does not verify under the key that the backup has for it", vault);
    default: return cli_fail(CLI_FAILED, "vault %s: %s", vault, strerror(-rc));
    }
}

static void remove_dir(const char *dir)
{
    char path[PATH_MAX];
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0 && snprintf(path, sizeof path, "%s/%s", dir, e->d_name) < (int)sizeof path && unlink(path))
            remove_dir(path);
    if (d)
        closedir(d);
    rmdir(dir);
}

static int drill_in(struct drill *d, const char *dir, const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const struct lg_backup_later *later,
                    struct lg_backup_counts *n, unsigned *quarantined)
{
    char ring[PATH_MAX], slot[PATH_MAX];
    struct lg_roots roots;
    LG_SECRET_AUTO pass = lg_secret_random();
    if (!pass)
        return -ENOMEM;
    if (snprintf(ring, sizeof ring, "%s/keyring", dir) >= (int)sizeof ring || snprintf(slot, sizeof slot, "%s/slot", dir) >= (int)sizeof slot)
        return -ENAMETOOLONG;
    int rc = lg_backup_restore(h, key, rd, arg, ring, slot, pass->b, LG_KEY_LEN, 1, later, n, quarantined);
    if (!rc)
        rc = lg_keyring_open(ring, slot, NULL, &d->k);
    if (!rc)
        rc = lg_slotfile_unlock(slot, LG_SLOT_PASSPHRASE, NULL, pass->b, LG_KEY_LEN, &roots);
    if (!rc) {
        rc = lg_keyring_unlock(d->k, &roots);
        lg_roots_done(&roots);
    }
    return rc;
}

int backup_drill(const struct cli *c, const struct lg_backup_header *h, const struct lg_secret *key, lg_backup_read rd, void *arg, const struct lg_backup_later *later,
                 struct lg_backup_counts *n, unsigned *quarantined, struct drill_result *ret, int *ret_rc)
{
    const char *tmp = getenv("TMPDIR");
    struct drill d = { .json = c->json };
    struct lg_scrub_stat st = { 0 };
    char dir[PATH_MAX];
    int code = CLI_OK;
    snprintf(dir, sizeof dir, "%.1000s/leadglass-drill-XXXXXX", tmp && *tmp ? tmp : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(dir))
        return cli_fail(CLI_FAILED, "%s: %s", dir, strerror(errno));
    pthread_mutex_init(&d.mu, NULL);
    *ret_rc = drill_in(&d, dir, h, key, rd, arg, later, n, quarantined);
    if (!*ret_rc)
        code = read_vault(&d, c->vault, c->sample ? c->sample : DRILL_SAMPLE, &st);
    lg_keyring_close(d.k);
    remove_dir(dir);
    pthread_mutex_destroy(&d.mu);
    *ret = (struct drill_result){ .files = d.files, .sampled = c->sample ? c->sample : DRILL_SAMPLE, .verified = st.verified, .revoked = st.found[LG_SCRUB_REVOKED], .no_key = st.found[LG_SCRUB_NO_KEY],
                                  .damaged = st.found[LG_SCRUB_DAMAGE], .unchecked = st.found[LG_SCRUB_UNREADABLE] + st.found[LG_SCRUB_UNFINISHED] };
    ret->sampled = ret->sampled < d.files ? ret->sampled : d.files;
    return code ? code : ret->damaged ? CLI_DAMAGE : ret->unchecked ? CLI_INCOMPLETE : ret->no_key ? CLI_UNKNOWN_KEYS : CLI_OK;
}
