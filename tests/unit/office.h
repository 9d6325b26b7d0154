/* For tests of a whole keyring: a directory of its own, a clock of the test's, officers, and backups in memory. */
#ifndef LG_TEST_OFFICE_H
#define LG_TEST_OFFICE_H

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "govern.h"
#include "leadglass/backup.h"

enum { DAY = 86400, WEEK = 7 * DAY };

static char top[64];
static struct lg_clock now;
static const struct lg_asker admin = { .account = 0, .admin = true };

static inline void clock_read(void *arg, struct lg_clock *ret)
{
    (void)arg;
    *ret = now;
}

/* Time that passes as it should. */
static inline void pass_time(uint64_t s)
{
    now.wall_s += s;
    now.boot_s += s;
    now.run_s += s;
}

static inline const char *at(const char *name)
{
    static char path[8][160];
    static unsigned n;
    char *p = path[n++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", top, name);
    return p;
}

static inline void remove_tree(const char *dir, bool itself)
{
    DIR *d = opendir(dir);
    for (struct dirent *e; d && (e = readdir(d));) {
        char path[512];
        snprintf(path, sizeof path, "%.200s/%s", dir, e->d_name);
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && unlink(path))
            remove_tree(path, true);
    }
    if (d)
        closedir(d);
    if (itself)
        rmdir(dir);
}

static inline void make_top(const char *name)
{
    snprintf(top, sizeof top, "%s/%s-XXXXXX", access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm", name);
    assert_non_null(mkdtemp(top));
    now = (struct lg_clock){ .wall_s = 1800000000, .boot_s = 1000, .run_s = 1000, .boot_id = "boot one" };
}

/* ---- people ------------------------------------------------------------------------------------------------------------------------------------- */

struct person {
    struct lg_secret *seed;
    struct lg_officer o;
};

static inline struct person person(const char *name, enum lg_role role, uint32_t account)
{
    struct person p = { .seed = lg_secret_random(), .o = { .role = role, .account = account } };
    assert_non_null(p.seed);
    assert_int_equal(lg_sign_public(p.seed, p.o.pub), 0);
    snprintf(p.o.name, sizeof p.o.name, "%s", name);
    return p;
}

static inline struct lg_act act_of(struct lg_keyring *k, enum lg_action action, const char *uid)
{
    struct lg_act a = { .action = action, .created = now.wall_s, .expires = now.wall_s + LG_ACT_LIFE_MAX_S, .reason = "because" };
    struct lg_study s;
    struct lg_keyring_stat st;
    assert_int_equal(lg_keyring_stat(k, &st), 0);
    memcpy(a.keyring_id, st.keyring_id, LG_ID_LEN);
    assert_int_equal(lg_random(a.nonce, LG_ID_LEN), 0);
    if (uid) {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        if (lg_keyring_study_show(k, uid, &s) == 0)
            memcpy(a.kid, s.kid, LG_ID_LEN);
    }
    return a;
}

/* p NULL: unsigned, from an administrator. What follows a commit that changed officers is done as well. */
static inline int submit(struct lg_keyring *k, struct lg_act *a, const struct person *p)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_act_record r;
    enum lg_act_effect e;
    struct lg_asker who = p ? (struct lg_asker){ .account = p->o.account } : admin;
    if (p)
        memcpy(a->by, p->o.pub, sizeof a->by);
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    if (p)
        assert_int_equal(lg_act_sign(p->seed, LG_ACT_ASK, doc, len, sig), 0);
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_act_submit(k, doc, len, p ? sig : NULL, &who, &r, &e);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc ? rc : lg_keyring_officers_note(k);
}

static inline int approve(struct lg_keyring *k, const struct lg_act *a, const struct person *p)
{
    uint8_t doc[LG_ACT_DOC_MAX], sig[LG_SIGN_LEN];
    size_t len;
    struct lg_act_record r;
    enum lg_act_effect e;
    struct lg_asker who = { .account = p->o.account };
    assert_int_equal(lg_act_encode(a, doc, &len), 0);
    assert_int_equal(lg_act_sign(p->seed, LG_ACT_APPROVE, doc, len, sig), 0);
    int rc = lg_keyring_begin(k);
    if (!rc)
        rc = lg_keyring_act_approve(k, a->nonce, p->o.pub, sig, &who, &r, &e);
    if (rc)
        lg_keyring_abort(k);
    else
        rc = lg_keyring_commit(k);
    return rc ? rc : lg_keyring_officers_note(k);
}

/* ---- backups -------------------------------------------------------------------------------------------------------------------------------------- */

struct copy_of { /* a backup as a file would hold it */
    struct lg_secret *key;
    uint8_t id[LG_ID_LEN], *b;
    size_t len, at;
};

static inline void copy_free(struct copy_of *c)
{
    lg_secret_free(c->key);
    free(c->b);
    *c = (struct copy_of){ 0 };
}

/* All of it, and into the inventory: as the key manager and the command do together. */
static inline int copy_make(struct lg_keyring *k, const char *name, struct copy_of *ret)
{
    struct copy_of c = { .key = lg_secret_random() };
    struct lg_backup *b = NULL;
    uint8_t *frame = malloc(LG_BACKUP_FRAME_MAX);
    bool end = false;
    int rc = lg_backup_begin(k, c.key, &b);
    while (!rc && !end) {
        size_t len;
        rc = lg_backup_next(b, frame, &len, &end);
        if (rc)
            break;
        c.b = realloc(c.b, c.len + 4 + len);
        struct lg_wr w = lg_wr(c.b + c.len, 4);
        lg_wr_u32(&w, (uint32_t)len);
        memcpy(c.b + c.len + 4, frame, len);
        c.len += 4 + len;
    }
    if (!rc) /* in ret whatever becomes of it */
        memcpy(c.id, lg_backup_id(b), LG_ID_LEN), memcpy(ret->id, c.id, LG_ID_LEN);
    if (!rc)
        rc = lg_keyring_begin(k);
    if (!rc) {
        rc = lg_backup_note(k, b, name);
        if (!rc)
            rc = lg_backup_whole(k, lg_backup_id(b));
        if (rc)
            lg_keyring_abort(k);
        else
            rc = lg_keyring_commit(k);
    }
    lg_backup_free(b);
    free(frame);
    if (rc)
        copy_free(&c);
    else
        *ret = c;
    return rc;
}

static inline int copy_take(void *arg, void *buf, size_t len)
{
    struct copy_of *c = arg;
    if (c->len - c->at < len)
        return -EPROTO;
    memcpy(buf, c->b + c->at, len);
    c->at += len;
    return 0;
}

static struct lg_backup_counts copy_counts; /* of the last restore that succeeded */
static inline int copy_restore(struct copy_of *c, const char *dir, const char *slot, const char *pass, const struct lg_backup_later *later, unsigned *ret_quarantined)
{
    struct lg_backup_header h = { .created = now.wall_s };
    struct lg_backup_later l = later ? *later : (struct lg_backup_later){ 0 };
    memcpy(h.id, c->id, LG_ID_LEN);
    l.now = now.wall_s;
    c->at = 0;
    return lg_backup_restore(&h, c->key, copy_take, c, dir, slot, pass, strlen(pass), 0, &l, &copy_counts, ret_quarantined);
}

#endif
