/* A second copy of keyring and slot file. Both are written, one after the other, before a commit is acknowledged. When one fails the other goes on
 * alone, and a mark that says so is durable before anything is acknowledged that only one copy has: a copy that fell behind never serves alone.
 * Copies carry the number of commits they have seen, so that after a crash the one that is ahead (by the one commit under way) is known. */
#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "record.h"

#define MARK_KEYRING "the keyring fell behind its mirror\n"
#define MARK_MIRROR "the mirror fell behind its keyring\n"

/* ---- the mark: beside both slot files ----------------------------------------------------------------------------------------------------- */

static int mark_path(const char *slot, char out[PATH_MAX]) { return snprintf(out, PATH_MAX, "%s.degraded", slot) >= PATH_MAX ? -ENAMETOOLONG : 0; }

static unsigned mark_read_one(const char *slot)
{
    char path[PATH_MAX], text[64];
    if (mark_path(slot, path))
        return 0;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd < 0)
        return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    text[n > 0 ? n : 0] = 0;
    return strcmp(text, MARK_KEYRING) == 0 ? LG_STALE_KEYRING : strcmp(text, MARK_MIRROR) == 0 ? LG_STALE_MIRROR : 0;
}

static unsigned mark_read(const struct lg_keyring *k) { return mark_read_one(k->slot_path) | mark_read_one(k->mirror_slot); }

static int mark_write_one(const char *slot, unsigned stale)
{
    char path[PATH_MAX];
    const char *text = stale == LG_STALE_KEYRING ? MARK_KEYRING : MARK_MIRROR;
    int rc = mark_path(slot, path), fd = -1;
    if (!rc && (fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
        rc = -errno;
    if (fd < 0)
        return rc;
    if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || fsync(fd))
        rc = errno ? -errno : -EIO;
    close(fd);
    return rc ? rc : lg_slotfile_dir_sync(path);
}

/* Durable on one side at least. */
static int mark_write(struct lg_keyring *k, unsigned stale)
{
    int a = mark_write_one(k->slot_path, stale), b = mark_write_one(k->mirror_slot, stale);
    return a && b ? a : 0;
}

static void mark_remove(const struct lg_keyring *k)
{
    char path[PATH_MAX];
    const char *const slots[] = { k->slot_path, k->mirror_slot };
    for (unsigned i = 0; i < 2; i++)
        if (mark_path(slots[i], path) == 0 && unlink(path) == 0)
            (void)!lg_slotfile_dir_sync(path);
}

int lg_mirror_failed(struct lg_keyring *k, unsigned failed)
{
    if (!failed)
        return 0;
    unsigned stale = failed & 1 ? LG_STALE_KEYRING : LG_STALE_MIRROR;
    int rc = lg_keyring_step(k, "mark-degraded");
    if (!rc)
        rc = mark_write(k, stale);
    k->stale = stale;
    if (rc)
        lg_store_break(k->store); /* one copy has it and nothing says so */
    return rc;
}

/* ---- opening -------------------------------------------------------------------------------------------------------------------------------- */

static int empty_dir_made(const char *dir)
{
    if (mkdir(dir, 0700) == 0)
        return lg_slotfile_dir_sync(dir); /* of its parent: the name is in there */
    return errno == EEXIST ? 0 : -errno;
}

/* Writes the other copy's file anew from this store. dir may be missing; what is in it besides our files is not touched. */
static int clone_to(struct lg_store *from, const char *dir)
{
    char tmp[PATH_MAX], path[PATH_MAX];
    int rc = empty_dir_made(dir), fd = -1;
    if (!rc && (snprintf(tmp, sizeof tmp, "%s/data.mdb.tmp", dir) >= (int)sizeof tmp || snprintf(path, sizeof path, "%s/data.mdb", dir) >= (int)sizeof path))
        rc = -ENAMETOOLONG;
    if (!rc && unlink(tmp) && errno != ENOENT)
        rc = -errno;
    if (!rc && (fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600)) < 0)
        rc = -errno;
    if (!rc)
        rc = lg_store_clone(from, fd);
    if (fd >= 0 && close(fd) && !rc)
        rc = -errno;
    if (!rc && rename(tmp, path))
        rc = -errno;
    if (rc)
        return rc;
    snprintf(tmp, sizeof tmp, "%s/lock.mdb", dir); /* of the file that was there */
    unlink(tmp);
    return lg_slotfile_dir_sync(path);
}

/* Its id and how many commits it has seen. */
static int look(struct lg_keyring *k, struct lg_store *s, uint8_t ret_id[LG_ID_LEN], uint64_t *ret_commits)
{
    struct lg_store *was = k->store;
    k->store = s;
    int rc = lg_meta_read(k);
    memcpy(ret_id, k->meta.keyring_id, LG_ID_LEN);
    k->store = was;
    return rc ? rc : lg_store_commits(s, ret_commits);
}

static int open_one(const char *dir, int *lockfd, struct lg_store **ret)
{
    struct stat st;
    int rc = stat(dir, &st) ? -errno : S_ISDIR(st.st_mode) ? lg_keyring_lock_dir(dir, lockfd) : -ENOTDIR;
    return rc ? rc : lg_store_open(dir, false, ret);
}

/* Is there anything but what we make? Nothing of anybody else's is written over. */
static bool foreign(const char *dir)
{
    static const char *const ours[] = { ".", "..", "lock", "lock.mdb", "data.mdb", "data.mdb.tmp", "lost+found" };
    DIR *d = opendir(dir);
    bool other = false;
    for (struct dirent *e; d && (e = readdir(d));) {
        bool mine = false;
        for (size_t i = 0; i < sizeof ours / sizeof *ours; i++)
            mine = mine || strcmp(e->d_name, ours[i]) == 0;
        other = other || !mine;
    }
    if (d)
        closedir(d);
    return other;
}

/* The copy at dir (store *bad, if it opened) is written anew from good and opened. */
static int level(struct lg_store *good, struct lg_store **bad, const char *dir, int *lockfd)
{
    lg_store_close(*bad);
    *bad = NULL;
    int rc = clone_to(good, dir);
    if (!rc && *lockfd < 0)
        rc = lg_keyring_lock_dir(dir, lockfd);
    return rc ? rc : lg_store_open(dir, false, bad);
}

int lg_mirror_open(struct lg_keyring *k)
{
    struct lg_store *s[2] = { NULL, NULL };
    const char *const dir[2] = { k->dir, k->mirror_dir };
    int *const lockfd[2] = { &k->lockfd, &k->mirror_lockfd };
    uint8_t id[2][LG_ID_LEN];
    uint64_t n[2] = { 0, 0 };
    int rc[2];
    for (unsigned i = 0; i < 2; i++) {
        rc[i] = open_one(dir[i], lockfd[i], &s[i]);
        if (!rc[i])
            rc[i] = look(k, s[i], id[i], &n[i]);
        if (rc[i] && s[i]) {
            lg_store_close(s[i]);
            s[i] = NULL;
        }
    }
    unsigned stale = mark_read(k);
    int err = rc[0] == -EWOULDBLOCK || rc[0] == -EPROTONOSUPPORT ? rc[0] : rc[1] == -EWOULDBLOCK || rc[1] == -EPROTONOSUPPORT ? rc[1] : 0;
    if (!err && !s[0] && !s[1])
        err = rc[0];
    if (!err && s[0] && s[1] && memcmp(id[0], id[1], LG_ID_LEN) != 0)
        err = -EXDEV;
    unsigned from = !s[0] || (s[1] && (stale ? stale == LG_STALE_KEYRING : n[1] > n[0]));
    /* What fell behind does not serve alone, nor is it copied over what may be newer. */
    if (!err && (stale == (LG_STALE_KEYRING | LG_STALE_MIRROR) || (stale && from == (stale == LG_STALE_MIRROR))))
        err = -ESTALE;
    if (!err && !s[1] && rc[1] != -EPROTO && foreign(k->mirror_dir))
        err = -ENOTEMPTY;
    unsigned to = !from;
    if (!err && (!s[to] || stale || n[0] != n[1])) {
        k->mirror_news = !s[to] && to == 1 && rc[1] == -ENOENT ? LG_MIRROR_MADE : LG_MIRROR_LEVELLED;
        k->mirror_error = level(s[from], &s[to], dir[to], lockfd[to]);
    }
    if (!err && !s[to]) { /* alone, and loudly */
        k->stale = to ? LG_STALE_MIRROR : LG_STALE_KEYRING;
        err = mark_write(k, k->stale);
    } else if (!err) {
        mark_remove(k);
    }
    if (err) {
        lg_store_close(s[0]);
        lg_store_close(s[1]);
        return err;
    }
    if (s[0] && s[1]) {
        lg_store_join(s[0], s[1]);
        s[1] = NULL;
    }
    k->store = s[0] ? s[0] : s[1];
    return 0;
}

/* ---- the two slot files ------------------------------------------------------------------------------------------------------------------------ */

/* The one that is whole and newest. */
static int pick(const char *const path[2], uint8_t bytes[LG_SLOTFILE_MAX], size_t *ret_len, unsigned *ret_which)
{
    uint64_t best = 0;
    int rc = -ENOENT, found = -1;
    struct lg_slotfile *s = malloc(sizeof *s);
    uint8_t *other = malloc(LG_SLOTFILE_MAX);
    for (unsigned i = 0; s && other && i < 2; i++) {
        size_t len;
        int one = path[i] ? lg_slotfile_read(path[i], other, &len) : -ENOENT;
        if (path[i] && !one)
            one = lg_slotfile_decode(other, len, s);
        if (!one && (found < 0 || s->generation > best)) {
            memcpy(bytes, other, len);
            *ret_len = len;
            *ret_which = i;
            best = s->generation;
            found = (int)i;
        }
        if (one && (rc == -ENOENT || one == -EPROTONOSUPPORT))
            rc = one;
    }
    if (!s || !other)
        rc = -ENOMEM;
    free(s);
    free(other);
    return found >= 0 ? 0 : rc;
}

int lg_slots_read(const struct lg_keyring *k, uint8_t bytes[LG_SLOTFILE_MAX], size_t *ret_len)
{
    unsigned which;
    const char *const path[2] = { k->slot_path, k->mirror_slot };
    return pick(path, bytes, ret_len, &which);
}

const char *lg_slotfile_pick(const char *slot_path, const char *mirror_slot)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    size_t len;
    unsigned which;
    const char *const path[2] = { slot_path, mirror_slot };
    return mirror_slot && pick(path, bytes, &len, &which) == 0 && which ? mirror_slot : slot_path;
}

int lg_slots_write(struct lg_keyring *k, const struct lg_slotfile *s, const struct lg_secret *newest)
{
    int rc = k->stale ? -ESTALE : 0; /* a copy that hears nothing of it would keep the old root */
    if (!rc)
        rc = lg_slotfile_write(k->slot_path, s, newest, false);
    if (!rc && k->mirror_slot) {
        rc = lg_keyring_step(k, "slot-mirror");
        if (!rc)
            rc = lg_slotfile_write(k->mirror_slot, s, newest, false);
    }
    return rc;
}

/* After a crash between two writes, or with a new mirror: the newest, which has been verified, to both. */
int lg_slots_level(struct lg_keyring *k, const struct lg_slotfile *s, const uint8_t *bytes, size_t len, const struct lg_secret *newest)
{
    const char *const path[2] = { k->slot_path, k->mirror_slot };
    uint8_t have[LG_SLOTFILE_MAX];
    size_t n;
    int rc = k->stale ? -ESTALE : 0;
    for (unsigned i = 0; !rc && k->mirror_slot && i < 2; i++)
        if (lg_slotfile_read(path[i], have, &n) || n != len || memcmp(have, bytes, len) != 0) {
            rc = lg_keyring_step(k, "slot-level");
            if (!rc)
                rc = lg_slotfile_write(path[i], s, newest, false);
        }
    return rc;
}

int lg_mirror_ready(struct lg_keyring *k)
{
    uint8_t bytes[LG_SLOTFILE_MAX];
    struct lg_roots all = { 0 };
    size_t len;
    if (k->stale)
        return -ESTALE;
    if (!k->mirror_dir)
        return 0;
    struct lg_slotfile *s = malloc(sizeof *s);
    int rc = s ? lg_slots_read(k, bytes, &len) : -ENOMEM;
    if (!rc)
        rc = lg_slotfile_decode(bytes, len, s);
    if (!rc) {
        s->chip = k->chip;
        rc = lg_slotfile_roots(s, &k->root, &all);
    }
    if (!rc)
        rc = lg_slotfile_verify(bytes, len, all.r[all.n - 1].key);
    if (!rc)
        rc = lg_slots_level(k, s, bytes, len, all.r[all.n - 1].key);
    lg_roots_done(&all);
    free(s);
    return rc;
}
