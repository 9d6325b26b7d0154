/* The anchor: a value outside the slot file, in the TPM, without which a root cannot be unwrapped. Each epoch has its own; it is made before the slot
 * file names that root and overwritten once no slot file of ours needs it, so that older slot files open nothing. Two places, taken in turns, keep
 * the value in force out of reach of a write that is torn: epoch e stands at place e & 1. The sequence and what a crash leaves: docs/FORMAT-keyring.md. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

static const char row[] = "anchor", purpose[8] = "anchor..";
enum { ROW_LEN = 8 + 4 };

static uint32_t place_of(const struct lg_slotfile *s, uint64_t epoch) { return s->anchor_nv + (uint32_t)(epoch & 1); }

static bool has_nv(const struct lg_chip *c) { return c && c->nv_make && c->nv_read && c->nv_write && c->nv_free; }

int lg_anchor_read(const struct lg_slotfile *s, unsigned e, struct lg_secret **ret)
{
    uint64_t epoch;
    *ret = NULL;
    if (!s->anchored[e])
        return 0;
    if (!has_nv(s->chip))
        return -ENODEV;
    struct lg_secret *v = lg_secret_new();
    if (!v)
        return -ENOMEM;
    int rc = s->chip->nv_read(s->chip->arg, place_of(s, s->epoch[e]), s->keyring_id, &epoch, v);
    if (rc == -ENODATA || rc == -EXDEV || rc == -EBADMSG)
        rc = -ENOMEDIUM;
    else if (!rc && epoch != s->epoch[e])
        rc = -EKEYEXPIRED;
    if (rc)
        lg_secret_free(v);
    else
        *ret = v;
    return rc;
}

int lg_anchor_next(struct lg_keyring *k, const struct lg_slotfile *s, uint64_t epoch)
{
    LG_SECRET_AUTO v = lg_secret_random();
    int rc = !v ? -ENOMEM : has_nv(s->chip) ? lg_keyring_step(k, "anchor-new") : -ENODEV;
    return rc ? rc : s->chip->nv_write(s->chip->arg, place_of(s, epoch), s->keyring_id, epoch, v);
}

/* ---- since when: for certificates ---------------------------------------------------------------------------------------------------------- */

static int row_read(struct lg_keyring *k, uint64_t *ret_since, uint32_t *ret_nv)
{
    uint8_t b[ROW_LEN];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, purpose, row, sizeof row - 1, b, sizeof b, &len);
    struct lg_rd r = lg_rd(b, rc ? 0 : len);
    *ret_since = lg_rd_u64(&r);
    *ret_nv = lg_rd_u32(&r);
    return rc ? rc : lg_rd_done(&r) ? 0 : -EPROTO;
}

/* Nothing of before the anchor can be used any more: from now on. */
static int row_write(struct lg_keyring *k, uint32_t nv)
{
    uint8_t b[ROW_LEN];
    uint64_t since;
    uint32_t of;
    struct lg_wr w = lg_wr(b, sizeof b);
    if (row_read(k, &since, &of) == 0 && of == nv)
        return 0;
    lg_wr_u64(&w, lg_keyring_wall(k));
    lg_wr_u32(&w, nv);
    int rc = lg_keyring_begin(k);
    if (rc)
        return rc;
    rc = lg_sealed_put(k, LG_T_STATE, purpose, row, sizeof row - 1, b, w.len);
    if (rc)
        lg_keyring_abort(k);
    return rc ? rc : lg_keyring_commit(k);
}

int lg_anchor_overwritten(struct lg_keyring *k, uint64_t created, bool *ret)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    uint64_t since;
    uint32_t nv;
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc && s->anchored[0])
        rc = row_read(k, &since, &nv);
    if (!rc || rc == -ENOENT) /* a slot file from before the anchor opens no key that was made after it */
        *ret = !rc && s->anchored[0] && nv == s->anchor_nv && created > since;
    free(s);
    return rc == -ENOENT ? 0 : rc;
}

/* ---- ending what is over --------------------------------------------------------------------------------------------------------------------- */

/* The other place's value is of an epoch that is over, or of one that never came to be. */
static int overwrite(struct lg_keyring *k, const struct lg_slotfile *s)
{
    LG_SECRET_AUTO v = lg_secret_new();
    uint32_t other = place_of(s, s->epoch[0] + 1);
    uint64_t epoch = 0;
    int rc = v ? s->chip->nv_read(s->chip->arg, other, s->keyring_id, &epoch, v) : -ENOMEM;
    if (rc == -ENODATA || (!rc && epoch == 0))
        return 0;
    if (!rc || rc == -EBADMSG)
        rc = lg_random(v->b, LG_KEY_LEN);
    if (!rc)
        rc = lg_keyring_step(k, "anchor-old");
    return rc ? rc : s->chip->nv_write(s->chip->arg, other, s->keyring_id, 0, v);
}

/* Given up: both values go, then the file's mention of them. */
static int give_up(struct lg_keyring *k, struct lg_slotfile *s)
{
    int rc = lg_keyring_step(k, "anchor-free");
    for (unsigned i = 0; !rc && i < 2; i++) {
        rc = s->chip->nv_free(s->chip->arg, s->anchor_nv + i, s->keyring_id);
        rc = rc == -ENODATA ? 0 : rc;
    }
    s->anchor_nv = 0;
    s->generation++;
    if (!rc)
        rc = lg_keyring_step(k, "anchor-forget");
    return rc ? rc : lg_slots_write(k, s, k->root.key);
}

int lg_anchor_settle(struct lg_keyring *k, bool must)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc && s->anchor_nv && s->n_roots == 1) {
        bool on = s->anchored[0];
        rc = !has_nv(s->chip) ? -ENODEV : on ? overwrite(k, s) : give_up(k, s);
        if (!rc && on)
            rc = row_write(k, s->anchor_nv);
        if (rc && !on && !must) /* nothing rests on an anchor that was given up, and its chip may never answer again */
            rc = 0;
    }
    free(s);
    return rc;
}

/* ---- beginning and giving up ------------------------------------------------------------------------------------------------------------------- */

static int edit_nv(struct lg_slotfile *s, const struct lg_root *root, void *arg)
{
    (void)root;
    if (*(const uint32_t *)arg)
        s->anchor_nv = *(const uint32_t *)arg;
    return 0;
}

static int now(struct lg_keyring *k, bool *ret_anchored, uint32_t *ret_nv)
{
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_slotfile_load(k, s) : -ENOMEM;
    if (!rc) {
        *ret_anchored = s->n_roots == 1 && s->anchored[0];
        *ret_nv = s->anchor_nv;
    }
    free(s);
    return rc;
}

int lg_keyring_anchor(struct lg_keyring *k, bool on)
{
    struct lg_root_change c = { .edit = edit_nv, .anchor = on ? LG_ANCHOR_BEGIN : LG_ANCHOR_END };
    bool anchored;
    uint32_t nv, fresh = 0, after = 0;
    int rc = lg_root_change_ready(k);
    if (!rc)
        rc = now(k, &anchored, &nv);
    if (!rc && !anchored && nv) /* given up, and its values still to be destroyed */
        rc = lg_anchor_settle(k, true);
    else if (!rc && anchored == on)
        rc = -EALREADY;
    if (rc || (!on && !anchored))
        return rc;
    if (on)
        rc = has_nv(k->chip) ? k->chip->nv_make(k->chip->arg, k->meta.keyring_id, &fresh) : -ENODEV;
    if (rc)
        return rc;
    c.edit_arg = &fresh;
    rc = lg_root_change(k, &c);
    if (!rc)
        return lg_anchor_settle(k, true);
    if (on && now(k, &anchored, &after) == 0 && after != fresh) /* no file names them */
        for (unsigned i = 0; i < 2; i++)
            (void)!k->chip->nv_free(k->chip->arg, fresh + i, k->meta.keyring_id);
    return rc;
}
