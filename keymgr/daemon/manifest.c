/* The signature under a manifest of scrub. What is signed is put together here, and begins with a magic of its own; the vault is that of the asker's session. */
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon.h"
#include "leadglass/audit.h"
#include "leadglass/manifestsig.h"

/* On record for good before there is a signature, whatever the log does when it cannot be written: what was signed for somebody who abused this stands there. */
static int record(struct lg_worker *w, const struct lg_conn *c, const struct lg_manifest_sig *s, uint64_t session)
{
    struct lg_audit_record r;
    char hash[2 * LG_MAC_LEN + 1], pub[2 * LG_SIGN_PUB_LEN + 1];
    if (!w->audit)
        return -ENOTSUP;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "scrub.manifest");
    r.has = LG_AUDIT_WHO | LG_AUDIT_VAULT | LG_AUDIT_SESSION | LG_AUDIT_US;
    r.uid = c->uid;
    r.gid = c->gid;
    r.pid = c->pid;
    lg_audit_exe(c->pid, r.exe);
    memcpy(r.vault, s->vault_id, LG_ID_LEN);
    r.session = session;
    r.us = (uint64_t)(lg_us() - w->asked_us);
    lg_hex_encode(s->hash, LG_MAC_LEN, hash);
    lg_hex_encode(s->pub, LG_SIGN_PUB_LEN, pub);
    snprintf(r.text, sizeof r.text, "digest %s, %llu entries, key %s", hash, (unsigned long long)s->entries, pub);
    lg_audit_put(w->audit, &r);
    w->audit_durable = true; /* and a head over it */
    return lg_audit_flush(w->audit, false);
}

void lg_on_manifest_sign(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    uint8_t out[LG_MANIFEST_SIG_LEN];
    struct lg_answer a = { .type = q->type, .id = q->id, .blob = out };
    struct lg_manifest_sig s = { .signed_at = (uint64_t)time(NULL) };
    struct lg_keyring_stat st;
    const struct lg_mount *m = lg_mount_of(w, q->session);
    struct lg_rd rd = lg_rd(q->pass, q->pass_len);
    s.begun = lg_rd_u64(&rd);
    s.entries = lg_rd_u64(&rd);
    lg_rd_copy(&rd, s.hash, LG_MAC_LEN);
    a.status = !lg_rd_done(&rd) || !m || m->mountpoint[0] == '/' ? -EINVAL : m->pid != c->pid ? -EACCES : !seed ? -ENOMEM : lg_keyring_stat(w->keyring, &st);
    if (!a.status)
        a.status = lg_keyring_manifest_key(w->keyring, seed);
    if (!a.status) {
        memcpy(s.vault_id, m->vault_id, LG_ID_LEN);
        memcpy(s.keyring_id, st.keyring_id, LG_ID_LEN);
        a.status = lg_sign_public(seed, s.pub);
    }
    if (!a.status) {
        a.status = record(w, c, &s, q->session);
        w->asked_event = ""; /* stands there */
    }
    if (!a.status)
        a.status = lg_manifest_sig_make(&s, seed);
    if (!a.status) {
        lg_manifest_sig_encode(&s, out);
        a.blob_len = sizeof out;
    }
    lg_reply(w, c, &a);
}

void lg_on_manifest_key(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    LG_SECRET_AUTO seed = lg_secret_new();
    uint8_t pub[LG_SIGN_PUB_LEN];
    struct lg_answer a = { .type = q->type, .id = q->id, .blob = pub, .blob_len = sizeof pub };
    a.status = seed ? lg_keyring_manifest_key(w->keyring, seed) : -ENOMEM;
    if (!a.status)
        a.status = lg_sign_public(seed, pub);
    lg_reply(w, c, &a);
}
