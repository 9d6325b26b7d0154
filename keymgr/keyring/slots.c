/* Slots: what each of them opens, and changing them without anybody else's secret. A slot protects a random slot key; the file holds
 * wrap(slot key, root) and wrap(root, slot key), so that whoever has the root can give a new one to every slot. */
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "record.h"
#include "leadglass/bytes.h"

enum { SCRYPT_TEST = 10 };

struct slot_ad {
    uint8_t b[8 + LG_ID_LEN + 2 + 8];
};
/* What a wrap is bound to: its purpose, keyring, slot and (for roots) epoch. */
static struct slot_ad slot_ad(const char purpose[8], const struct lg_slotfile *s, unsigned i, uint64_t epoch)
{
    struct slot_ad ad;
    struct lg_wr w = lg_wr(ad.b, sizeof ad.b);
    lg_wr_bytes(&w, purpose, 8);
    lg_wr_bytes(&w, s->keyring_id, LG_ID_LEN);
    lg_wr_u8(&w, s->slots[i].number);
    lg_wr_u8(&w, s->slots[i].type);
    lg_wr_u64(&w, epoch);
    return ad;
}

/* What wraps a root: the slot key, or slot key and the anchor of its epoch (NULL: it has none) together. */
static int root_kek(const struct lg_secret *anchor, const struct lg_secret *slot_key, struct lg_secret *ret)
{
    if (anchor)
        return lg_derive(slot_key, "leadglass anchored root", anchor->b, LG_KEY_LEN, ret);
    memcpy(ret->b, slot_key->b, LG_KEY_LEN);
    return 0;
}

static int slot_wrap(struct lg_slotfile *s, unsigned i, unsigned e, const struct lg_secret *anchor, const struct lg_secret *slot_key, const struct lg_secret *root)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    struct slot_ad down = slot_ad("rootkey", s, i, s->epoch[e]), up = slot_ad("slotkey", s, i, s->epoch[e]);
    int rc = kek ? root_kek(anchor, slot_key, kek) : -ENOMEM;
    if (!rc)
        rc = lg_key_wrap(kek, down.b, sizeof down.b, root, s->slots[i].root[e]);
    return rc ? rc : lg_key_wrap(root, up.b, sizeof up.b, slot_key, s->slots[i].root_slot[e]);
}

static int root_unwrap(const struct lg_slotfile *s, unsigned i, unsigned e, const struct lg_secret *slot_key, struct lg_secret *ret)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    LG_SECRET_AUTO anchor = NULL;
    struct slot_ad down = slot_ad("rootkey", s, i, s->epoch[e]);
    int rc = kek ? lg_anchor_read(s, e, &anchor) : -ENOMEM;
    if (!rc)
        rc = root_kek(anchor, slot_key, kek);
    return rc ? rc : lg_key_unwrap(kek, down.b, sizeof down.b, s->slots[i].root[e], ret);
}

/* Roots, given the slot key: all, or those from a known one on. The older of two is left out when its anchor is not to be had, so that an anchor can be
 * given up whose chip is dead. */
static int roots_of(const struct lg_slotfile *s, unsigned i, const struct lg_secret *slot_key, const struct lg_root *have, struct lg_roots *ret)
{
    struct lg_roots out = { .slot = s->slots[i].number };
    int rc = 0;
    for (unsigned e = 0; !rc && e < s->n_roots; e++) {
        if (have && s->epoch[e] < have->epoch)
            continue;
        struct lg_root *r = &out.r[out.n];
        bool known = have && s->epoch[e] == have->epoch;
        *r = (struct lg_root){ s->epoch[e], known ? lg_secret_dup(have->key) : lg_secret_new() };
        rc = !r->key ? -ENOMEM : known ? 0 : root_unwrap(s, i, e, slot_key, r->key);
        bool lost = rc == -ENODEV || rc == -ENOMEDIUM || rc == -EKEYEXPIRED;
        if (lost && e + 1 < s->n_roots) {
            lg_secret_free(r->key);
            rc = 0;
        } else {
            out.n++;
        }
    }
    if (rc)
        lg_roots_done(&out);
    else
        *ret = out;
    return rc;
}

/* ---- making, changing, removing --------------------------------------------------------------------------------------------------------------- */

struct lg_slot_draft {
    struct lg_slot slot; /* nothing wrapped yet */
    struct lg_secret *kek;
};

static bool name_ok(const char *name)
{
    size_t n = strlen(name);
    for (const char *c = name; *c; c++)
        if ((unsigned char)*c < 0x20 || *c == 0x7f)
            return false;
    return n > 0 && n <= LG_SLOT_NAME_MAX;
}

/* Fills slot i, whose name, type and key from the secret are the draft's, under the one root. */
static int slot_fill(struct lg_slotfile *s, unsigned i, unsigned number, const struct lg_root *root, const struct lg_slot_draft *d)
{
    LG_SECRET_AUTO slot_key = lg_secret_random();
    struct lg_slot *t = &s->slots[i];
    if (!slot_key)
        return -ENOMEM;
    *t = d->slot;
    t->number = (uint8_t)number;
    t->created = (uint64_t)time(NULL);
    struct slot_ad ad = slot_ad("slotpass", s, i, 0);
    int rc = lg_key_wrap(d->kek, ad.b, sizeof ad.b, slot_key, t->slot_key);
    LG_SECRET_AUTO anchor = NULL;
    if (!rc)
        rc = lg_anchor_read(s, 0, &anchor);
    return rc ? rc : slot_wrap(s, i, 0, anchor, slot_key, root->key);
}

int lg_slotfile_make(struct lg_slotfile *s, const uint8_t keyring_id[LG_ID_LEN], const struct lg_root *root, const void *pass,
                     size_t pass_len, unsigned scrypt_ms)
{
    struct lg_slot_draft d = { .slot = { .type = LG_SLOT_PASSPHRASE, .name = "passphrase" }, .kek = lg_secret_new() };
    d.slot.scrypt = (struct lg_scrypt){ .log2_n = SCRYPT_TEST, .r = 8, .p = 1 };
    int rc = !d.kek ? -ENOMEM : scrypt_ms ? lg_scrypt_calibrate(scrypt_ms, &d.slot.scrypt) : lg_random(d.slot.scrypt.salt, sizeof d.slot.scrypt.salt);
    if (!rc)
        rc = lg_scrypt_derive(&d.slot.scrypt, pass, pass_len, d.kek);
    *s = (struct lg_slotfile){ .generation = 1, .n_roots = 1, .n_slots = 1, .epoch = { root->epoch } };
    memcpy(s->keyring_id, keyring_id, LG_ID_LEN);
    if (!rc)
        rc = slot_fill(s, 0, 0, root, &d);
    s->slots[0].proved = s->slots[0].created; /* whoever made the keyring has it */
    lg_secret_free(d.kek);
    return rc;
}

int lg_slot_draft_new(const char *slot_path, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_slot_draft **ret)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    struct lg_slot_draft *d = calloc(1, sizeof *d);
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t n;
    int rc = s && d && (d->kek = lg_secret_new()) ? 0 : -ENOMEM;
    if (!rc && (!name_ok(name) || !len || !lg_slot_has_secret(type)))
        rc = -EINVAL;
    if (!rc)
        rc = lg_slotfile_read(slot_path, bytes, &n);
    if (!rc)
        rc = lg_slotfile_decode(bytes, n, s);
    if (!rc) { /* one that was proved to work cannot be removed, so there is always one with a cost */
        unsigned i = 0;
        while (i < s->n_slots && !lg_slot_has_secret(s->slots[i].type))
            i++;
        rc = i == s->n_slots ? -EPROTO : 0;
        if (!rc)
            d->slot.scrypt = s->slots[i].scrypt;
    }
    if (!rc)
        rc = lg_random(d->slot.scrypt.salt, sizeof d->slot.scrypt.salt);
    if (!rc)
        rc = lg_scrypt_derive(&d->slot.scrypt, secret, len, d->kek);
    free(s);
    if (rc) {
        lg_slot_draft_free(d);
        return rc;
    }
    d->slot.type = (uint8_t)type;
    memcpy(d->slot.name, name, strlen(name) + 1);
    *ret = d;
    return 0;
}

int lg_slot_draft_tpm(const char *name, const struct lg_secret *secret, const uint8_t *sealed, size_t len, struct lg_slot_draft **ret)
{
    if (!name_ok(name) || !len || len > LG_SEALED_MAX)
        return -EINVAL;
    struct lg_slot_draft *d = calloc(1, sizeof *d);
    if (!d || !(d->kek = lg_secret_dup(secret))) {
        free(d);
        return -ENOMEM;
    }
    d->slot.type = LG_SLOT_TPM;
    memcpy(d->slot.name, name, strlen(name) + 1);
    memcpy(d->slot.sealed, sealed, len);
    d->slot.sealed_len = len;
    *ret = d;
    return 0;
}

void lg_slot_draft_free(struct lg_slot_draft *d)
{
    if (!d)
        return;
    lg_secret_free(d->kek);
    free(d);
}

int lg_slotfile_find(const struct lg_slotfile *s, const char *name, unsigned *ret_i)
{
    for (unsigned i = 0; i < s->n_slots; i++)
        if (strcmp(s->slots[i].name, name) == 0) {
            *ret_i = i;
            return 0;
        }
    return -ENOENT;
}

int lg_slotfile_add(struct lg_slotfile *s, const struct lg_root *root, const struct lg_slot_draft *d)
{
    unsigned at = 0, i;
    if (lg_slotfile_find(s, d->slot.name, &i) == 0)
        return -EEXIST;
    if (s->n_slots == LG_SLOTS_MAX)
        return -ENOSPC;
    while (at < s->n_slots && s->slots[at].number == at)
        at++; /* the first number that is free is its own place */
    memmove(s->slots + at + 1, s->slots + at, (s->n_slots - at) * sizeof *s->slots);
    s->n_slots++;
    return slot_fill(s, at, at, root, d);
}

/* Is there a slot besides i that a person can be sure of? */
static bool another_proved(const struct lg_slotfile *s, unsigned i)
{
    for (unsigned j = 0; j < s->n_slots; j++)
        if (j != i && lg_slot_has_secret(s->slots[j].type) && s->slots[j].proved)
            return true;
    return false;
}

int lg_slotfile_change(struct lg_slotfile *s, const struct lg_root *root, const struct lg_slot_draft *d)
{
    unsigned i;
    int rc = lg_slotfile_find(s, d->slot.name, &i);
    if (!rc && d->slot.type == LG_SLOT_TPM && !another_proved(s, i)) /* like removing it: a TPM does not count */
        rc = -EPERM;
    return rc ? rc : slot_fill(s, i, s->slots[i].number, root, d);
}

int lg_slotfile_remove(struct lg_slotfile *s, const char *name)
{
    unsigned i;
    int rc = lg_slotfile_find(s, name, &i);
    if (rc)
        return rc;
    if (!another_proved(s, i))
        return -EPERM;
    s->n_slots--;
    memmove(s->slots + i, s->slots + i + 1, (s->n_slots - i) * sizeof *s->slots);
    return 0;
}

/* ---- a new root ---------------------------------------------------------------------------------------------------------------------------------- */

int lg_slotfile_root_add(struct lg_slotfile *s, const struct lg_root *old, const struct lg_root *fresh)
{
    if (s->n_roots != 1 || s->epoch[0] != old->epoch || fresh->epoch != old->epoch + 1)
        return -EINVAL;
    LG_SECRET_AUTO slot_key = lg_secret_new();
    LG_SECRET_AUTO anchor = NULL;
    if (!slot_key)
        return -ENOMEM;
    s->epoch[1] = fresh->epoch;
    int e = lg_anchor_read(s, 1, &anchor);
    if (e)
        return e;
    for (unsigned i = 0; i < s->n_slots; i++) {
        struct slot_ad up = slot_ad("slotkey", s, i, old->epoch);
        int rc = lg_key_unwrap(old->key, up.b, sizeof up.b, s->slots[i].root_slot[0], slot_key);
        if (!rc)
            rc = slot_wrap(s, i, 1, anchor, slot_key, fresh->key);
        if (rc)
            return rc;
    }
    s->n_roots = 2;
    s->generation++;
    return 0;
}

void lg_slotfile_root_drop(struct lg_slotfile *s)
{
    for (unsigned i = 0; i < s->n_slots; i++) {
        memcpy(s->slots[i].root[0], s->slots[i].root[1], LG_WRAPPED_LEN);
        memcpy(s->slots[i].root_slot[0], s->slots[i].root_slot[1], LG_WRAPPED_LEN);
    }
    s->epoch[0] = s->epoch[1];
    s->anchored[0] = s->anchored[1];
    s->anchored[1] = false;
    s->n_roots = 1;
    s->generation++;
    s->generation_floor = s->generation;
}

int lg_slotfile_roots(const struct lg_slotfile *s, const struct lg_root *have, struct lg_roots *ret)
{
    LG_SECRET_AUTO slot_key = lg_secret_new();
    unsigned h = 0;
    if (!slot_key)
        return -ENOMEM;
    while (h < s->n_roots && s->epoch[h] != have->epoch)
        h++;
    if (h == s->n_roots)
        return -EKEYREJECTED;
    struct slot_ad up = slot_ad("slotkey", s, 0, have->epoch);
    int rc = lg_key_unwrap(have->key, up.b, sizeof up.b, s->slots[0].root_slot[h], slot_key);
    if (!rc)
        rc = roots_of(s, 0, slot_key, have, ret);
    return rc == -EBADMSG ? -EKEYREJECTED : rc;
}

int lg_slotfile_slot_check(const struct lg_slotfile *s, unsigned i, const struct lg_roots *roots)
{
    LG_SECRET_AUTO slot_key = lg_secret_new();
    LG_SECRET_AUTO root = lg_secret_new();
    int rc = !slot_key || !root ? -ENOMEM : roots->n == s->n_roots ? 0 : -ENODEV; /* the anchor of the older is not to be had */
    for (unsigned e = 0; !rc && e < s->n_roots; e++) {
        struct slot_ad up = slot_ad("slotkey", s, i, s->epoch[e]);
        rc = lg_key_unwrap(roots->r[e].key, up.b, sizeof up.b, s->slots[i].root_slot[e], slot_key);
        if (!rc)
            rc = root_unwrap(s, i, e, slot_key, root);
        if (!rc && !lg_equal(root->b, roots->r[e].key->b, LG_KEY_LEN))
            rc = -EBADMSG;
    }
    return rc;
}

void lg_roots_done(struct lg_roots *r)
{
    for (unsigned i = 0; i < r->n; i++)
        lg_secret_free(r->r[i].key);
    *r = (struct lg_roots){ 0 };
}

/* ---- unlocking --------------------------------------------------------------------------------------------------------------------------------------- */

static int slot_open(const struct lg_slotfile *s, unsigned i, const void *secret, size_t len, struct lg_roots *out)
{
    LG_SECRET_AUTO kek = lg_secret_new();
    LG_SECRET_AUTO slot_key = lg_secret_new();
    if (!kek || !slot_key)
        return -ENOMEM;
    const struct lg_slot *t = &s->slots[i];
    bool tpm = t->type == LG_SLOT_TPM;
    int rc = !tpm ? lg_scrypt_derive(&t->scrypt, secret, len, kek) : s->chip ? s->chip->unseal(s->chip->arg, t->sealed, t->sealed_len, kek) : -ENODEV;
    struct slot_ad ad = slot_ad("slotpass", s, i, 0);
    if (!rc)
        rc = lg_key_unwrap(kek, ad.b, sizeof ad.b, t->slot_key, slot_key);
    if (rc)
        return rc != -EBADMSG ? rc : tpm ? -EPROTO : -EKEYREJECTED;
    rc = roots_of(s, i, slot_key, NULL, out);
    return rc == -EBADMSG ? -EPROTO : rc; /* the secret was right: the file is not */
}

int lg_slotfile_unlock(const char *slot_path, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_roots *ret)
{
    return lg_slotfile_unlock_with(slot_path, NULL, type, name, secret, len, ret);
}

int lg_slotfile_unlock_with(const char *slot_path, const struct lg_chip *chip, enum lg_slot_type type, const char *name, const void *secret, size_t len, struct lg_roots *ret)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t n;
    struct lg_slotfile s;
    struct lg_roots roots = { 0 };
    int rc = lg_slotfile_read(slot_path, bytes, &n);
    if (!rc)
        rc = lg_slotfile_decode(bytes, n, &s);
    if (rc)
        return rc;
    s.chip = chip;
    const int none = type == LG_SLOT_TPM ? -ENODATA : -EKEYREJECTED;
    bool found = false;
    rc = none;
    for (unsigned i = 0; !found && i < s.n_slots; i++) {
        if (s.slots[i].type != type || (name && strcmp(name, s.slots[i].name) != 0))
            continue;
        int one = slot_open(&s, i, secret, len, &roots);
        found = !one || (type != LG_SLOT_TPM && one != -EKEYREJECTED);
        if (found || rc == none || one == -EBADE) /* of several chips' slots one is ours at most: PCRs tell more than "another's" */
            rc = one;
    }
    if (!rc) {
        rc = lg_slotfile_verify(bytes, n, roots.r[roots.n - 1].key);
        if (rc == -EBADMSG)
            rc = -EPROTO;
    }
    if (rc) {
        lg_roots_done(&roots);
        return rc;
    }
    *ret = roots;
    return 0;
}

int lg_slotfile_list(const char *slot_path, struct lg_slot_info ret[LG_SLOTS_MAX], unsigned *ret_n)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t n;
    struct lg_slotfile s;
    int rc = lg_slotfile_read(slot_path, bytes, &n);
    if (!rc)
        rc = lg_slotfile_decode(bytes, n, &s);
    if (rc)
        return rc;
    for (unsigned i = 0; i < s.n_slots; i++) {
        const struct lg_slot *t = &s.slots[i];
        ret[i] = (struct lg_slot_info){ .number = t->number, .type = (enum lg_slot_type)t->type, .created = t->created, .proved = t->proved };
        memcpy(ret[i].name, t->name, sizeof ret[i].name);
    }
    *ret_n = s.n_slots;
    return 0;
}

const char *lg_slot_type_name(enum lg_slot_type t)
{
    switch (t) {
    case LG_SLOT_PASSPHRASE: return "passphrase";
    case LG_SLOT_KEY_FILE: return "key-file";
    case LG_SLOT_TPM: return "tpm";
    }
    return "?";
}

/* ---- for a keyring in use -------------------------------------------------------------------------------------------------------------------------------- */

static int edit_add(struct lg_slotfile *s, const struct lg_root *root, void *arg) { return lg_slotfile_add(s, root, arg); }
static int edit_change(struct lg_slotfile *s, const struct lg_root *root, void *arg) { return lg_slotfile_change(s, root, arg); }
static int edit_remove(struct lg_slotfile *s, const struct lg_root *root, void *arg)
{
    (void)root;
    return lg_slotfile_remove(s, arg);
}

/* A change that takes nothing away needs no new root: one write of the file. */
static int slots_edit(struct lg_keyring *k, const char *step, int (*edit)(struct lg_slotfile *s, const struct lg_root *root, void *arg), void *arg)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_root_change_ready(k) : -ENOMEM;
    if (!rc)
        rc = lg_slotfile_load(k, s);
    if (!rc)
        rc = edit(s, &k->root, arg);
    if (!rc) {
        s->generation++;
        rc = lg_keyring_step(k, step);
    }
    if (!rc)
        rc = lg_slots_write(k, s, k->root.key);
    free(s);
    return rc;
}

int lg_keyring_slot_add(struct lg_keyring *k, const struct lg_slot_draft *d) { return slots_edit(k, "slot-add", edit_add, (void *)(uintptr_t)d); }

static int slots_rotate(struct lg_keyring *k, int (*edit)(struct lg_slotfile *s, const struct lg_root *root, void *arg), void *arg)
{
    int rc = lg_root_change_ready(k);
    return rc ? rc : lg_root_change(k, &(struct lg_root_change){ .edit = edit, .edit_arg = arg });
}

int lg_keyring_slot_change(struct lg_keyring *k, const struct lg_slot_draft *d) { return slots_rotate(k, edit_change, (void *)(uintptr_t)d); }
int lg_keyring_slot_remove(struct lg_keyring *k, const char *name) { return slots_rotate(k, edit_remove, (void *)(uintptr_t)name); }

static int edit_proved(struct lg_slotfile *s, const struct lg_root *root, void *arg)
{
    (void)root;
    for (unsigned i = 0; i < s->n_slots; i++)
        if (s->slots[i].number == *(const unsigned *)arg && !s->slots[i].proved) {
            s->slots[i].proved = (uint64_t)time(NULL);
            return 0;
        }
    return -EALREADY;
}

int lg_keyring_slot_proved(struct lg_keyring *k, unsigned number)
{
    int rc = slots_edit(k, "slot-proved", edit_proved, &number);
    return rc == -EALREADY ? 0 : rc;
}
