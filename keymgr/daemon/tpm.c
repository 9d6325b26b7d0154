/* The TPM in the key manager: slots sealed to the machine, and unlocking with nobody there. The worker talks to it, in the thread that also derives
 * secrets; the supervisor never does. */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "daemon.h"

enum { ALONE_MS = 30000 }; /* how long a start waits for the chip before it serves, locked */

static int unseal(void *arg, const uint8_t *untrusted_sealed, size_t len, struct lg_secret *ret) { return lg_tpm_unseal(arg, untrusted_sealed, len, ret); }

static int nv_make(void *arg, const uint8_t id[LG_ID_LEN], uint32_t *ret_nv)
{
    (void)id;
    return lg_tpm_nv_make(arg, ret_nv);
}
static int nv_read(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t *ret_epoch, struct lg_secret *ret) { return lg_tpm_nv_read(arg, nv, id, ret_epoch, ret); }
static int nv_write(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN], uint64_t epoch, const struct lg_secret *v) { return lg_tpm_nv_write(arg, nv, id, epoch, v); }
static int nv_free(void *arg, uint32_t nv, const uint8_t id[LG_ID_LEN]) { return lg_tpm_nv_free(arg, nv, id); }

int lg_keyd_tpm_new(const char *tcti, struct lg_tpm **ret, struct lg_chip *ret_chip)
{
    setenv("TSS2_LOG", "all+none", 0); /* the library's own lines on standard error: what they say is in lg_tpm_why */
    int rc = lg_tpm_new(tcti, ret);
    if (!rc)
        *ret_chip = (struct lg_chip){ .arg = *ret, .unseal = unseal, .nv_make = nv_make, .nv_read = nv_read, .nv_write = nv_write, .nv_free = nv_free };
    return rc;
}

int lg_keyd_tpm_start(struct lg_worker *w)
{
    int rc = w->o.tpm ? lg_keyd_tpm_new(w->o.tpm, &w->tpm, &w->chip) : 0;
    if (!rc && w->tpm)
        lg_keyring_set_chip(w->keyring, &w->chip);
    return rc;
}

void lg_keyd_tpm_stop(struct lg_worker *w) { lg_tpm_free(w->tpm); }

/* A new slot: a random secret, and what the chip makes of it. The request's secret is the list of PCRs. */
void lg_derive_tpm(struct lg_derivation *d)
{
    LG_SECRET_AUTO secret = lg_secret_random();
    struct lg_tpm_pcrs pcrs;
    uint8_t sealed[LG_TPM_SEALED_MAX];
    size_t len;
    d->rc = lg_tpm_pcrs_parse((const char *)d->pass, d->pass_len, &pcrs) ? -EDOM : !secret ? -ENOMEM : d->tpm ? 0 : -ENODEV;
    if (!d->rc)
        d->rc = lg_tpm_seal(d->tpm, &pcrs, secret, sealed, sizeof sealed, &len);
    if (!d->rc)
        d->rc = lg_slot_draft_tpm(d->name, secret, sealed, len, &d->draft);
}

static void look(struct lg_derivation *d) { d->rc = d->tpm ? lg_tpm_look(d->tpm) : -ENODEV; }

void lg_tpm_look_begin(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { .status = lg_op_derive(w, op, look) };
    if (a.status)
        lg_op_done(w, &a);
}

void lg_tpm_look_end(struct lg_worker *w, struct lg_op *op)
{
    struct lg_answer a = { .status = w->derivation.rc };
    const char *why = w->tpm ? lg_tpm_why(w->tpm) : "";
    if (a.status)
        lg_log(LOG_WARNING, "the TPM (%s) cannot be used, user %u was told: %s%s%s%s", w->o.tpm ? w->o.tpm : "--tpm off", (unsigned)op->uid, lg_tpm_explain(a.status), *why ? " (" : "", why, *why ? ")" : "");
    lg_op_done(w, &a);
}

const char *lg_tpm_explain(int rc)
{
    switch (rc) {
    case -ENODEV: return "no TPM answers";
    case -EXDEV: return "the slot was sealed by another machine's TPM, or this one was cleared since";
    case -EBADE: return "its PCRs are not as they were when the slot was made (firmware, boot loader or Secure Boot changed)";
    case -EOPNOTSUPP: return "its owner hierarchy has a password or is disabled";
    case -ENOMEDIUM: return "it does not have the value that the root-slot file is anchored in (another machine, or cleared)";
    case -EKEYEXPIRED: return "the root-slot file is an old copy: the value that it is anchored in was overwritten";
    case -EPROTO: return "the slot's sealed secret is damaged";
    case -EKEYREJECTED: return "the root-slot file does not belong to this keyring, or is older than it";
    default: return strerror(-rc);
    }
}

void lg_tpm_report(const struct lg_worker *w, int rc)
{
    const char *why = w->tpm ? lg_tpm_why(w->tpm) : "";
    lg_log(LOG_ERR, "the TPM (%s) does not unlock the keyring: %s%s%s%s. Waiting for a passphrase or key file: leadglass unlock", w->o.tpm ? w->o.tpm : "--tpm off", lg_tpm_explain(rc),
           *why ? " (" : "", why, *why ? ")" : "");
}

static bool has_tpm_slot(struct lg_worker *w)
{
    struct lg_slot_info s[LG_SLOTS_MAX];
    unsigned n = 0;
    if (lg_slotfile_list(lg_slot_now(w), s, &n))
        return false;
    for (unsigned i = 0; i < n; i++)
        if (s[i].type == LG_SLOT_TPM)
            return true;
    return false;
}

/* Like `leadglass unlock --tpm` asked by ourselves. A chip that does not answer in time holds up the start no longer; should it answer later, then
 * the keyring is unlocked later. */
void lg_unlock_alone(struct lg_worker *w)
{
    struct pollfd p = { .fd = w->wake, .events = POLLIN };
    eventfd_t x;
    if (!w->tpm || lg_keyring_unlocked(w->keyring) || w->n_ops || !has_tpm_slot(w))
        return;
    w->ops[w->n_ops++] = (struct lg_op){ .type = LG_MSG_UNLOCK_TPM, .uid = geteuid(), .gid = getegid(), .pid = getpid(), .slot_type = LG_SLOT_TPM };
    lg_ops_step(w);
    for (int64_t end = lg_ms() + ALONE_MS; w->derivation.busy && lg_ms() < end;)
        if (poll(&p, 1, (int)(end - lg_ms())) > 0 && eventfd_read(w->wake, &x) == 0)
            w->derivation.busy = false;
    if (w->derivation.busy)
        lg_log(LOG_ERR, "the TPM (%s) does not answer; serving, locked", w->o.tpm);
    else
        lg_ops_step(w);
}
