/* What of a keyring is damaged and what is not, without LMDB and without writing: the pages by our own walker (pages.c), every record by checkrow.c, the
 * slot file by its own codec. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"

void lg_check_say(struct lg_checking *x, const char *part, const char *what, const char *subject)
{
    struct lg_check_damage d = { .part = part, .what = what, .bucket = -1 };
    if (subject)
        snprintf(d.subject, sizeof d.subject, "%s", subject);
    x->out->damages++;
    x->c->damage(x->c->arg, &d);
}

void lg_check_say_key(struct lg_checking *x, const char *part, const uint8_t kid[LG_ID_LEN], const char *what)
{
    struct lg_check_damage d = { .part = part, .what = what, .has_kid = true, .bucket = (int)lg_bucket_of(kid) };
    memcpy(d.kid, kid, LG_ID_LEN);
    x->out->damages++;
    x->c->damage(x->c->arg, &d);
}

static void page_damage(void *arg, const char *part, uint64_t page, const char *what)
{
    struct lg_checking *x = arg;
    struct lg_check_damage d = { .part = part, .what = what, .bucket = -1, .has_page = true, .page = page };
    x->out->damages++;
    x->c->damage(x->c->arg, &d);
}

static int page_row(void *arg, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len) { return lg_check_row(arg, t, key, key_len, value, len); }

static void page_progress(void *arg, uint64_t done, uint64_t pages)
{
    struct lg_checking *x = arg;
    if (x->c->progress)
        x->c->progress(x->c->arg, done, pages);
}

/* ---- the slot file ------------------------------------------------------------------------------------------------------------------------- */

static int slots_open(struct lg_checking *x, const struct lg_slotfile *s, const uint8_t *bytes, size_t len)
{
    char subject[128];
    struct lg_roots all = { 0 };
    int rc = -EKEYREJECTED;
    for (unsigned i = 0; rc == -EKEYREJECTED && i < x->c->roots->n; i++)
        rc = lg_slotfile_roots(s, &x->c->roots->r[i], &all);
    if (rc == -EKEYREJECTED || rc == -EBADMSG) {
        lg_check_say(x, "slot file", "is not one of the root that the secret gives", NULL);
        return 0;
    }
    if (rc == -ENODEV) /* what an anchor is needed for cannot be looked at here */
        return 0;
    if (!rc && lg_slotfile_verify(bytes, len, all.r[all.n - 1].key) == -EBADMSG)
        lg_check_say(x, "slot file", "was altered by somebody who does not have the root", NULL);
    for (unsigned i = 0; !rc && i < s->n_slots; i++) {
        int one = lg_slotfile_slot_check(s, i, &all);
        snprintf(subject, sizeof subject, "slot %s", s->slots[i].name);
        if (one == -EBADMSG)
            lg_check_say(x, "slot file", "does not open: give it a new secret", subject);
        else
            rc = one == -ENODEV ? 0 : one;
        x->out->opened += !one;
    }
    lg_roots_done(&all);
    return rc;
}

static int slots_check(struct lg_checking *x, const char *path)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    struct lg_slotfile *s = malloc(sizeof *s);
    size_t len;
    int rc = s ? lg_slotfile_read(path, bytes, &len) : -ENOMEM;
    if (!rc)
        rc = lg_slotfile_decode(bytes, len, s);
    if (rc && rc != -ENOMEM) {
        lg_check_say(x, "slot file", rc == -ENOENT ? "is not there" : rc == -EPROTONOSUPPORT ? "is of a later version than this program knows, or damaged" : rc == -EPROTO ? "is damaged: no slot in it can be trusted" : strerror(-rc), NULL);
        rc = 0;
    } else if (!rc) {
        const struct lg_meta *m = &x->k.meta;
        x->out->slot_there = true;
        x->out->slot_generation = s->generation;
        x->out->slot_epoch = s->epoch[s->n_roots - 1];
        x->out->slots = s->n_slots;
        if (x->have_meta && memcmp(s->keyring_id, m->keyring_id, LG_ID_LEN) != 0)
            lg_check_say(x, "slot file", "is another keyring's", NULL);
        else if (x->have_meta && s->generation < m->generation)
            lg_check_say(x, "slot file", "is older than the keyring allows: it was rolled back", NULL);
        else if (x->have_meta && m->epoch != s->epoch[0] && m->epoch != s->epoch[s->n_roots - 1])
            lg_check_say(x, "slot file", m->epoch < s->epoch[0] ? "is of a later epoch: the keyring was rolled back" : "is of an earlier epoch than the keyring", NULL);
        if (x->c->roots)
            rc = slots_open(x, s, bytes, len);
    }
    free(s);
    return rc;
}

/* ---- one copy -------------------------------------------------------------------------------------------------------------------------------- */

/* While a key manager serves it nothing can be said. No lock file is made. */
static int alone(const char *dir, int *ret_fd)
{
    char path[4096];
    struct stat st;
    if (stat(dir, &st))
        return -errno;
    if (snprintf(path, sizeof path, "%s/lock", dir) >= (int)sizeof path)
        return -ENAMETOOLONG;
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return *ret_fd >= 0 && flock(*ret_fd, LOCK_EX | LOCK_NB) && errno == EWOULDBLOCK ? -EWOULDBLOCK : 0;
}

static void done(struct lg_checking *x)
{
    lg_secret_free(x->k.lookup);
    lg_secret_free(x->k.record);
    lg_secret_dealloc(x->k.bucket);
    lg_siv_free(x->k.ctrl);
    lg_siv_free(x->k.rooted.siv);
    for (size_t i = 0; i < x->n_late; i++)
        free(x->late[i].value);
    free(x->late);
    free(x->known);
    free(x->vault);
    free(x);
}

int lg_check_keyring(const struct lg_check *c, const char *dir, const char *slot_path, struct lg_check_copy *ret)
{
    struct lg_checking *x = calloc(1, sizeof *x);
    const struct lg_pages_visitor v = { x, page_damage, page_row, page_progress };
    char path[4096];
    int fd = -1;
    if (!x)
        return -ENOMEM;
    *ret = (struct lg_check_copy){ 0 };
    x->c = c;
    x->out = ret;
    x->sorted = true;
    int rc = snprintf(path, sizeof path, "%s/data.mdb", dir) >= (int)sizeof path ? -ENAMETOOLONG : alone(dir, &fd);
    if (!rc) {
        uint64_t before = ret->damages;
        rc = lg_pages_walk(path, &v);
        if (rc == -ENOENT || (rc == -EPROTO && ret->damages == before))
            lg_check_say(x, "tables", rc == -ENOENT ? "data.mdb is not there" : "data.mdb is no LMDB file", NULL);
        bool read = !rc;
        rc = rc == -ENOENT || rc == -EPROTO ? 0 : rc;
        if (!rc && read && !x->have_meta)
            lg_check_say(x, "meta", "the record of the keyring itself is lost: no key can be opened", NULL);
        if (!rc && read)
            rc = lg_check_rest(x);
    }
    if (!rc) {
        ret->there = x->have_meta;
        ret->epoch = x->k.meta.epoch;
        ret->generation = x->k.meta.generation;
        memcpy(ret->keyring_id, x->k.meta.keyring_id, LG_ID_LEN);
        rc = slots_check(x, slot_path);
    }
    if (!rc && c->roots && x->have_meta && !x->open && !x->k.root.key)
        lg_check_say(x, "meta", "is of an epoch whose root the secret does not give: nothing could be opened", NULL);
    if (fd >= 0)
        close(fd);
    done(x);
    return rc;
}
