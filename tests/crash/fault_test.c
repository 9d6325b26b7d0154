/* Errors from below: each of a list of operations runs on a volume over disk.h, while its first, second, third ... changing call below fails, until one
 * run meets no error any more. Whatever failed:
 *  - the error reaches the caller, or the operation has succeeded in full;
 *  - what was durable is there, in this process, after a close and after a crash: bytes that an operation did not touch are as they were, those that it
 *    did are the old or the new ones, and every file opens;
 *  - when the error is gone, the operation can be done, and is then durable;
 *  - nothing waits for a disk that does not come back;
 *  - what only takes away works on a full disk.
 *
 *   fault_test [--op NAME] [--kind N]   only one of them */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../../fs/volume/internal.h"
#include "disk.h"
#include "memkeys.h"
#include "scratch.h"

enum { CS = 4096, A = 5 * CS + 1000, B = 700, C = 4 * CS, BIG = 90 * CS, ROOM = 128 * CS };

/* ---- what stands there before, and what each operation makes of it ---------------------------------------------------------------------- */

static char long_name[256];

enum what { NONE, FILE_, DIR_, LINK_ };

struct thing {
    const char *dir, *name; /* dir "": the root */
    enum what what;
    uint64_t size;
    uint8_t *data;
};

enum { THINGS = 12 };
static struct thing before[THINGS], after[THINGS];
static unsigned n_things;

static struct thing *thing(struct thing *in, const char *dir, const char *name)
{
    for (unsigned i = 0; i < n_things; i++)
        if (strcmp(in[i].dir, dir) == 0 && strcmp(in[i].name, name) == 0)
            return &in[i];
    return NULL;
}

static const char *where;
#define CHECK(cond, ...)                                                                  \
    do {                                                                                  \
        if (!(cond)) {                                                                    \
            fprintf(stderr, "fault_test: %s: ", where);                                   \
            fprintf(stderr, __VA_ARGS__);                                                 \
            fprintf(stderr, " (%s:%d: %s)\n", __FILE__, __LINE__, #cond);                 \
            exit(1);                                                                      \
        }                                                                                 \
    } while (0)

static uint8_t fresh[ROOM]; /* new bytes: none is like an old one */

static void begin_things(void)
{
    static const struct thing all[] = { { "", "keep", FILE_, A, NULL }, { "", "a", FILE_, A, NULL },        { "", "c", FILE_, C, NULL },      { "", "big", FILE_, BIG, NULL },
                                        { "", "dir", DIR_, 0, NULL },   { "dir", "b", FILE_, B, NULL },     { "", "empty", DIR_, 0, NULL },   { "", long_name, FILE_, B, NULL },
                                        { "", "new", NONE, 0, NULL },   { "dir", long_name, NONE, 0, NULL }, { "", "target", DIR_, 0, NULL }, { "", "unsynced", FILE_, A, NULL } };
    n_things = sizeof all / sizeof *all;
    for (unsigned i = 0; i < n_things; i++) {
        before[i] = after[i] = all[i];
        before[i].data = malloc(ROOM);
        after[i].data = malloc(ROOM);
        for (size_t k = 0; k < ROOM; k++)
            before[i].data[k] = k < all[i].size ? (uint8_t)(1 + (k * 7 + i + k / CS) % 100) : 0;
    }
    for (size_t k = 0; k < ROOM; k++)
        fresh[k] = (uint8_t)(128 + (k * 11 + k / CS) % 100);
}

static void after_is_before(void)
{
    for (unsigned i = 0; i < n_things; i++) {
        uint8_t *data = after[i].data;
        after[i] = before[i];
        after[i].data = data;
        memcpy(data, before[i].data, ROOM);
    }
}

/* ---- the volume ---------------------------------------------------------------------------------------------------------------------------- */

static struct lg_keys *keys;
static struct lg_volume *v;
static const struct lg_cred me = { 0, 0, 0, 1 };
static char top[64], dir[96], crashed[96];
static unsigned findings;
static char finding[100];

static void on_finding(void *arg, const struct lg_finding *f)
{
    (void)arg;
    findings++;
    snprintf(finding, sizeof finding, "%s", f->kind);
}

static int open_volume(const char *at, uint64_t session, const uint64_t *unclean, unsigned n)
{
    struct lg_volume_options o = { .sys = &disk_sys, .keys = keys, .session = session, .unclean = unclean, .n_unclean = n, .finding = on_finding };
    return lg_volume_open(at, &o, &v);
}

static int look(const char *d, const char *name, struct lg_entry *ret)
{
    struct lg_entry e = { .node = LG_ROOT_NODE };
    if (*d) {
        int rc = lg_volume_lookup(v, LG_ROOT_NODE, d, &e);
        if (rc)
            return rc;
    }
    int rc = *name ? lg_volume_lookup(v, e.node, name, ret) : 0;
    if (!*name)
        *ret = e;
    else if (*d)
        lg_volume_forget(v, e.node, 1);
    return rc;
}

static void forget(const struct lg_entry *e)
{
    if (e->node != LG_ROOT_NODE)
        lg_volume_forget(v, e->node, 1);
}

/* The handle that an operation works through, kept from one try to the next. */
static struct lg_handle *h;
static struct lg_entry he;

static int handle(const char *d, const char *name)
{
    if (h)
        return 0;
    int rc = look(d, name, &he);
    if (rc)
        return rc;
    rc = lg_volume_open_file(v, he.node, O_RDWR, &h);
    if (rc)
        forget(&he);
    return rc;
}

static void let_go(void)
{
    if (!h)
        return;
    lg_volume_release(h);
    forget(&he);
    h = NULL;
}

/* ---- the operations ------------------------------------------------------------------------------------------------------------------------- */

static void model_write(const char *d, const char *name, uint64_t off, uint64_t len)
{
    struct thing *t = thing(after, d, name);
    t->what = FILE_;
    if (off > t->size)
        memset(t->data + t->size, 0, off - t->size);
    memcpy(t->data + off, fresh + off, len);
    if (off + len > t->size)
        t->size = off + len;
}

static void model_resize(const char *name, uint64_t size)
{
    struct thing *t = thing(after, "", name);
    if (size < t->size)
        memset(t->data + size, 0, t->size - size);
    t->size = size;
}

static void model_move(const char *d1, const char *n1, const char *d2, const char *n2)
{
    struct thing *from = thing(after, d1, n1), *to = thing(after, d2, n2);
    to->what = from->what;
    to->size = from->size;
    memcpy(to->data, from->data, ROOM);
    from->what = NONE;
    from->size = 0;
}

static int put(const char *name, uint64_t off, uint64_t len)
{
    int rc = handle("", name);
    ssize_t n = rc ? rc : lg_volume_write(h, fresh + off, len, off);
    return n < 0 ? (int)n : n == (ssize_t)len ? 0 : -EPROTO;
}
static int sync_it(int rc) { return rc ? rc : lg_volume_fsync(h, false); }
static int resize(const char *name, uint64_t size)
{
    struct lg_entry e;
    struct stat st = { .st_size = (off_t)size }, ret;
    int rc = look("", name, &e);
    if (rc)
        return rc;
    rc = lg_volume_setattr(v, e.node, &st, LG_SET_SIZE, &ret);
    forget(&e);
    return rc;
}
static int make(const char *d, const char *name)
{
    struct lg_entry p;
    if (h)
        return 0;
    int rc = look(d, "", &p);
    if (rc)
        return rc;
    rc = lg_volume_create_file(v, p.node, name, O_RDWR, 0644, &me, &he, &h);
    forget(&p);
    return rc;
}

static int op_create(void)
{
    model_write("", "new", 0, 900);
    int rc = make("", "new");
    return rc ? rc : sync_it(put("new", 0, 900));
}
static int op_create_large(void)
{
    model_write("", "new", 0, 100 * CS + 5);
    int rc = make("", "new");
    return rc ? rc : sync_it(put("new", 0, 100 * CS + 5));
}
static int op_create_long(void)
{
    model_write("dir", long_name, 0, 10);
    int rc = make("dir", long_name);
    return rc ? rc : sync_it(put("", 0, 10));
}
static int op_create_close(void)
{
    model_write("", "new", 0, 30000);
    int rc = make("", "new");
    if (!rc)
        rc = put("new", 0, 30000);
    return rc ? rc : lg_volume_flush(h);
}
static int op_tmpfile(void)
{
    struct lg_entry e;
    model_write("", "new", 0, 5000);
    int rc = h ? 0 : lg_volume_tmpfile(v, LG_ROOT_NODE, O_RDWR, 0600, &me, &he, &h);
    if (!rc)
        rc = sync_it(put("new", 0, 5000));
    if (!rc)
        rc = lg_volume_link(v, he.node, LG_ROOT_NODE, "new", &e);
    if (!rc)
        forget(&e);
    return rc;
}
static int op_append_aligned(void)
{
    model_write("", "c", C, 3 * CS);
    return sync_it(put("c", C, 3 * CS));
}
static int op_append_tail(void)
{
    model_write("", "a", A, 9000);
    return sync_it(put("a", A, 9000));
}
static int op_append_far(void)
{
    model_write("", "a", 85 * CS + 10, 9000); /* a hole, and a table of its own */
    return sync_it(put("a", 85 * CS + 10, 9000));
}
static int op_overwrite(void)
{
    model_write("", "a", 3000, 9000);
    return sync_it(put("a", 3000, 9000));
}
static int op_overwrite_big(void)
{
    model_write("", "big", 70 * CS + 5, 15 * CS);
    return sync_it(put("big", 70 * CS + 5, 15 * CS));
}
static int op_overwrite_close(void)
{
    model_write("", "a", 3000, 9000);
    int rc = put("a", 3000, 9000);
    if (!rc)
        rc = lg_volume_flush(h);
    if (!rc)
        let_go();
    return rc;
}
static int op_twice(void) /* the second commit meets a record that is not in place yet */
{
    model_write("", "a", 3000, 9000);
    model_write("", "a", 100, 200);
    model_write("", "a", A, 10 * CS);
    int rc = sync_it(put("a", 3000, 9000));
    if (!rc)
        rc = sync_it(put("a", 100, 200));
    if (!rc)
        rc = lg_journal_checkpoint(v->env.journal);
    return rc ? rc : sync_it(put("a", A, 10 * CS));
}
static int op_unsynced(void) /* written and closed before, never synced; now that is asked for */
{
    model_write("", "unsynced", A, 1000);
    return sync_it(put("unsynced", A, 1000));
}
static int op_truncate(void)
{
    model_resize("a", 2 * CS + 100);
    int rc = resize("a", 2 * CS + 100);
    return rc ? rc : (rc = handle("", "a")) ? rc : sync_it(0);
}
static int op_truncate_aligned(void)
{
    model_resize("big", 3 * CS);
    int rc = resize("big", 3 * CS);
    return rc ? rc : (rc = handle("", "big")) ? rc : sync_it(0);
}
static int op_truncate_zero(void)
{
    model_resize("a", 0);
    int rc = resize("a", 0);
    return rc ? rc : (rc = handle("", "a")) ? rc : sync_it(0);
}
static int op_rewrite(void)
{
    model_resize("a", 0);
    model_write("", "a", 0, 4 * CS + 10);
    int rc = handle("", "a");
    if (!rc)
        rc = resize("a", 0);
    return rc ? rc : sync_it(put("a", 0, 4 * CS + 10));
}
static int op_cut_and_grow(void)
{
    model_resize("a", CS + 7);
    model_write("", "a", 2 * CS, 3 * CS);
    int rc = handle("", "a");
    if (!rc)
        rc = resize("a", CS + 7);
    return rc ? rc : sync_it(put("a", 2 * CS, 3 * CS));
}
static int op_grow(void)
{
    model_resize("a", 100 * CS);
    int rc = handle("", "a");
    if (!rc)
        rc = resize("a", 100 * CS);
    return rc ? rc : sync_it(0);
}
static int op_punch(void)
{
    memset(thing(after, "", "big")->data + 100, 0, 82 * CS);
    int rc = handle("", "big");
    if (!rc)
        rc = lg_volume_fallocate(h, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 100, 82 * CS);
    return sync_it(rc);
}
static int op_allocate(void)
{
    model_resize("c", 20 * CS);
    int rc = handle("", "c");
    if (!rc)
        rc = lg_volume_fallocate(h, 0, 0, 20 * CS);
    return sync_it(rc);
}
static int op_mkdir(void)
{
    struct lg_entry e;
    thing(after, "", "new")->what = DIR_;
    int rc = lg_volume_mkdir(v, LG_ROOT_NODE, "new", 0755, &me, &e);
    if (!rc)
        forget(&e);
    return rc;
}
static int op_symlink(void)
{
    struct lg_entry e;
    thing(after, "", "new")->what = LINK_;
    int rc = lg_volume_symlink(v, LG_ROOT_NODE, "new", "somewhere", &me, &e);
    if (!rc)
        forget(&e);
    return rc;
}
static int op_link(void)
{
    struct lg_entry e, f;
    model_move("", "a", "", "new");
    thing(after, "", "a")->what = FILE_;
    thing(after, "", "a")->size = A;
    int rc = look("", "a", &e);
    if (rc)
        return rc;
    rc = lg_volume_link(v, e.node, LG_ROOT_NODE, "new", &f);
    if (!rc)
        forget(&f);
    forget(&e);
    return rc;
}
static int op_unlink(void)
{
    thing(after, "", "a")->what = NONE;
    return lg_volume_unlink(v, LG_ROOT_NODE, "a", NULL);
}
static int op_unlink_long(void)
{
    thing(after, "", long_name)->what = NONE;
    return lg_volume_unlink(v, LG_ROOT_NODE, long_name, NULL);
}
static int op_rmdir(void)
{
    thing(after, "", "empty")->what = NONE;
    return lg_volume_rmdir(v, LG_ROOT_NODE, "empty");
}
static int rename_to(const char *d1, const char *n1, const char *d2, const char *n2, unsigned flags)
{
    struct lg_entry p, q;
    int rc = look(d1, "", &p);
    if (rc)
        return rc;
    rc = look(d2, "", &q);
    if (!rc) {
        rc = lg_volume_rename(v, p.node, n1, q.node, n2, flags, NULL);
        forget(&q);
    }
    forget(&p);
    return rc;
}
static int op_rename(void)
{
    model_move("", "a", "", "new");
    return rename_to("", "a", "", "new", 0);
}
static int op_rename_over(void)
{
    model_move("", "a", "", "c");
    return rename_to("", "a", "", "c", 0);
}
static int op_rename_long(void)
{
    model_move("", long_name, "dir", long_name);
    return rename_to("", long_name, "dir", long_name, 0);
}
static int op_rename_dir(void)
{
    model_move("", "empty", "", "new");
    return rename_to("", "empty", "", "new", 0);
}
static int op_rename_dir_over(void)
{
    model_move("", "target", "", "empty");
    return rename_to("", "target", "", "empty", 0);
}
static int op_attributes(void)
{
    struct lg_entry e;
    struct stat st = { .st_mode = 0600, .st_uid = 5, .st_gid = 6, .st_mtim = { 1000, 5 }, .st_atim = { 2000, 6 } }, ret;
    int rc = look("", "a", &e);
    if (rc)
        return rc;
    rc = lg_volume_setattr(v, e.node, &st, LG_SET_MODE | LG_SET_UID | LG_SET_GID | LG_SET_MTIME | LG_SET_ATIME, &ret);
    if (!rc)
        CHECK((ret.st_mode & 07777) == 0600 && ret.st_uid == 5 && ret.st_gid == 6 && ret.st_mtim.tv_sec == 1000 && ret.st_mtim.tv_nsec == 5, "attributes");
    forget(&e);
    return rc;
}
static int op_times_dirty(void) /* tar: times before the close, which must not be lost with it */
{
    struct stat st = { .st_mtim = { 1000, 5 } }, ret;
    model_write("", "a", 3000, 9000);
    int rc = put("a", 3000, 9000);
    if (!rc)
        rc = lg_volume_setattr(v, he.node, &st, LG_SET_MTIME, &ret);
    return sync_it(rc);
}
static int op_xattr(void)
{
    struct lg_entry e;
    char got[16] = "";
    int rc = look("", "a", &e);
    if (rc)
        return rc;
    rc = lg_volume_setxattr(v, e.node, "user.k", "value", 5, 0);
    if (!rc)
        CHECK(lg_volume_getxattr(v, e.node, "user.k", got, sizeof got) == 5 && memcmp(got, "value", 5) == 0, "attribute");
    if (!rc)
        rc = lg_volume_removexattr(v, e.node, "user.k");
    forget(&e);
    return rc;
}
static int op_sync_dir(void)
{
    struct lg_dir *d;
    struct lg_entry e;
    int rc = look("dir", "", &e);
    if (rc)
        return rc;
    rc = lg_volume_opendir(v, e.node, 0, &d);
    if (!rc) {
        rc = lg_volume_fsyncdir(d);
        lg_volume_releasedir(d);
    }
    forget(&e);
    return rc;
}
static int op_commit_all(void)
{
    model_write("", "a", 3000, 9000);
    int rc = put("a", 3000, 9000);
    if (!rc)
        rc = lg_volume_commit_all(v);
    return rc ? rc : lg_journal_checkpoint(v->env.journal);
}

/* The keys go while errors are met: what is open loses its bytes that are not committed, and is read anew by whoever comes next. */
static void drop(bool discard)
{
    struct lg_volume_kid *kid;
    size_t n;
    if (lg_volume_kids(v, &kid, &n))
        return;
    for (size_t i = 0; i < n; i++)
        lg_volume_drop_keys(v, (const uint8_t(*)[LG_ID_LEN])&kid[i].kid, 1, discard, NULL, NULL);
    free(kid);
    int told = h ? lg_volume_flush(h) : 0; /* whoever wrote is told of what was given up, once */
    CHECK(told == 0 || told == -EKEYREVOKED || told == fault.error, "%d", told);
}

static int op_revoke(void) /* perhaps half-way through a commit; what comes after it is given up */
{
    model_write("", "c", C, 3 * CS);
    int rc = put("c", C, 3 * CS);
    if (!rc)
        rc = lg_volume_flush(h);
    (void)!put("c", C + 3 * CS, 80 * CS);
    drop(true);
    return rc;
}
static int op_revoke_cut(void) /* a commit that shortened the file is in the journal alone, and not durable */
{
    model_resize("a", 2 * CS + 100);
    int rc = handle("", "a");
    if (!rc)
        rc = resize("a", 2 * CS + 100);
    if (!rc)
        rc = lg_volume_flush(h);
    (void)!put("a", 2 * CS + 100, 500);
    drop(true);
    return rc;
}
static int op_lock_cut(void)
{
    model_resize("a", 2 * CS + 100);
    model_write("", "a", 300, 200);
    int rc = handle("", "a");
    if (!rc)
        rc = resize("a", 2 * CS + 100);
    if (!rc)
        rc = lg_volume_flush(h);
    if (!rc)
        rc = put("a", 300, 200);
    if (!rc)
        rc = lg_volume_flush(h);
    drop(false);
    return rc;
}

static int op_rekey(void)
{
    struct lg_entry e;
    int rc = look("", "a", &e);
    if (rc)
        return rc;
    memkeys_newest++;
    rc = lg_volume_rekey(v, e.node, NULL);
    forget(&e);
    return rc;
}

static int op_rekey_links(void) /* the names are made first: they are no news to what is compared */
{
    static const char list[] = "a\0dir/again\0again\0";
    struct lg_entry e, p, f;
    int rc = look("", "a", &e);
    if (rc)
        return rc;
    rc = look("dir", "", &p);
    for (unsigned i = 0; !rc && i < 2; i++) {
        rc = lg_volume_link(v, e.node, i ? LG_ROOT_NODE : p.node, "again", &f);
        if (!rc)
            forget(&f);
        rc = rc == -EEXIST ? 0 : rc;
    }
    memkeys_newest++;
    if (!rc)
        rc = lg_volume_rekey_links(v, e.node, list, sizeof list - 1);
    struct stat st;
    if (!rc)
        CHECK(lg_volume_getattr(v, e.node, &st) == 0 && st.st_nlink == 3, "links");
    if (!rc) {
        CHECK(look("dir", "again", &f) == 0 && f.node == e.node, "another file under another name");
        forget(&f);
    }
    forget(&p);
    forget(&e);
    return rc;
}

enum { NAMES = 1 /* may be tried again with its work done already */, TAKES = 2 /* works on a full disk */, DURABLE = 4 /* so it is once done */, ZERO_FIRST = 8,
       SPACE_THERE = 16 /* the journal has its space: works on a full disk too */, CHANCE = 32 /* few of the states that a crash may leave tell */ };
static const struct op {
    const char *name;
    int (*run)(void);
    unsigned flags;
} ops[] = {
    { "create", op_create, DURABLE },
    { "create large", op_create_large, DURABLE },
    { "create long", op_create_long, DURABLE },
    { "create close", op_create_close, 0 },
    { "tmpfile", op_tmpfile, NAMES },
    { "append aligned", op_append_aligned, DURABLE },
    { "append tail", op_append_tail, DURABLE },
    { "append far", op_append_far, DURABLE },
    { "overwrite", op_overwrite, DURABLE | SPACE_THERE },
    { "overwrite big", op_overwrite_big, DURABLE | SPACE_THERE },
    { "overwrite close", op_overwrite_close, SPACE_THERE },
    { "twice", op_twice, DURABLE },
    { "unsynced", op_unsynced, DURABLE },
    { "truncate", op_truncate, DURABLE | TAKES },
    { "truncate aligned", op_truncate_aligned, DURABLE | TAKES },
    { "truncate zero", op_truncate_zero, DURABLE | TAKES },
    { "rewrite", op_rewrite, DURABLE | ZERO_FIRST },
    { "cut and grow", op_cut_and_grow, DURABLE },
    { "grow", op_grow, DURABLE },
    { "punch", op_punch, DURABLE | TAKES },
    { "allocate", op_allocate, DURABLE },
    { "mkdir", op_mkdir, NAMES },
    { "symlink", op_symlink, NAMES },
    { "link", op_link, NAMES },
    { "unlink", op_unlink, NAMES | TAKES },
    { "unlink long", op_unlink_long, NAMES | TAKES },
    { "rmdir", op_rmdir, NAMES | TAKES },
    { "rename", op_rename, NAMES },
    { "rename over", op_rename_over, NAMES },
    { "rename long", op_rename_long, NAMES },
    { "rename directory", op_rename_dir, NAMES },
    { "rename directory over", op_rename_dir_over, NAMES },
    { "attributes", op_attributes, 0 },
    { "times", op_times_dirty, DURABLE },
    { "xattr", op_xattr, 0 },
    { "sync directory", op_sync_dir, 0 },
    { "revoke", op_revoke, 0 },
    { "revoke, cut", op_revoke_cut, CHANCE },
    { "lock, cut", op_lock_cut, CHANCE },
    { "re-encrypt", op_rekey, DURABLE },
    { "re-encrypt links", op_rekey_links, DURABLE },
    { "commit all", op_commit_all, 0 },
};

/* ---- comparing -------------------------------------------------------------------------------------------------------------------------------- */

static uint8_t got[ROOM + CS];
static bool after_crash; /* then a file that was never durable may be lost */

/* One name, against what it was and what it was to become. exact: only the latter. */
static void check_thing(unsigned i, bool exact, bool zero_first)
{
    const struct thing *old = &before[i], *fin = &after[i];
    struct lg_entry e;
    int rc = look(fin->dir, fin->name, &e);
    if (rc == -ENOENT) {
        CHECK(fin->what == NONE || (!exact && old->what == NONE), "%s is gone", fin->name);
        return;
    }
    CHECK(rc == 0, "%s: lookup: %d", fin->name, rc);
    enum what what = S_ISDIR(e.st.st_mode) ? DIR_ : S_ISLNK(e.st.st_mode) ? LINK_ : FILE_;
    CHECK(what == fin->what || (!exact && what == old->what), "%s: type %d, was to be %d", fin->name, (int)what, (int)fin->what);
    if (what == FILE_) {
        struct lg_handle *r;
        rc = lg_volume_open_file(v, e.node, O_RDONLY, &r);
        if (rc == -EIO && after_crash && !exact && old->what == NONE) {
            forget(&e);
            return;
        }
        CHECK(rc == 0, "%s: open: %d (%s)", fin->name, rc, finding);
        ssize_t n = lg_volume_read(r, got, sizeof got, 0, O_RDONLY);
        CHECK(n >= 0, "%s: read: %zd (%s)", fin->name, n, finding);
        lg_volume_release(r);
        uint64_t least = old->size < fin->size ? old->size : fin->size, most = old->size > fin->size ? old->size : fin->size;
        if (exact)
            CHECK((uint64_t)n == fin->size, "%s: %zd bytes, not %llu", fin->name, n, (unsigned long long)fin->size);
        else
            CHECK(zero_first || ((uint64_t)n >= least && (uint64_t)n <= most), "%s: %zd bytes", fin->name, n);
        for (size_t k = 0; k < (size_t)n; k++) {
            bool ok = k < fin->size && got[k] == fin->data[k];
            if (!exact && !ok)
                ok = (k < old->size && got[k] == old->data[k]) || (got[k] == 0 && (k >= least || zero_first));
            CHECK(ok, "%s: byte %zu of %zd is %u: neither old (%u) nor new (%u)", fin->name, k, n, got[k], old->data[k], fin->data[k]);
        }
    }
    forget(&e);
}

static void check_all(bool exact, const struct op *o)
{
    for (unsigned i = 0; i < n_things; i++)
        check_thing(i, exact, o->flags & ZERO_FIRST);
    if (!exact && strncmp(o->name, "rename", 6) == 0) { /* moved or not: never gone */
        unsigned was = 0, is = 0;
        for (unsigned i = 0; i < n_things; i++) {
            struct lg_entry e;
            was += before[i].what != NONE;
            if (look(before[i].dir, before[i].name, &e) == 0) {
                is++;
                forget(&e);
            }
        }
        CHECK(is == was || is + 1 == was, "%u names of %u", is, was);
    }
}

/* ---- one try ------------------------------------------------------------------------------------------------------------------------------------ */

static uint64_t rng = 88172645463325252u;
static unsigned long tries, crashes;
static struct image *base;

enum way { RETRY, GIVE_UP, CRASH, DEAD, WAYS }; /* what is done after the error; DEAD: it stays */

static const struct kind {
    const char *name;
    enum fault_kind kind;
    int error;
    unsigned ways; /* one bit each */
} kinds[] = {
    { "EIO", FAULT_ERROR, -EIO, ~0u },
    { "ENOSPC", FAULT_SPACE, -ENOSPC, ~0u },
    { "EDQUOT", FAULT_SPACE, -EDQUOT, 1u << RETRY },
    { "part, then EIO", FAULT_PART, -EIO, ~0u },
    { "part, then ENOSPC", FAULT_PART, -ENOSPC, 1u << GIVE_UP },
    { "short write", FAULT_SHORT, -EIO, 1u << RETRY | 1u << DEAD },
    { "sync loses", FAULT_LOST_SYNC, -EIO, ~0u },
    { "full", FAULT_FULL, -ENOSPC, ~0u },
};

static void crash_and_check(const struct record *r, bool exact, const struct op *o, unsigned states)
{
    static const uint64_t unclean[] = { 1, 2 };
    struct lg_volume *was = v;
    enum fault_kind kind = fault.kind;
    fault.kind = FAULT_NONE;
    for (unsigned s = 0; s < states; s++) {
        size_t names;
        struct image *im = record_crash(r, record_len(r), &rng, &names);
        image_write(im, crashed);
        int rc = open_volume(crashed, 3, unclean, 2);
        CHECK(rc == 0, "after a crash: %d", rc);
        after_crash = true;
        check_all(exact, o);
        after_crash = false;
        CHECK(lg_volume_close(v) == 0, "close after a crash");
        scratch_remove(AT_FDCWD, crashed);
        image_free(im);
        crashes++;
    }
    fault.kind = kind;
    v = was;
}

/* Returns whether the fault was met. */
static bool try_one(const struct op *o, const struct kind *k, unsigned at, unsigned way)
{
    static const uint64_t first[] = { 1 }, both[] = { 1, 2 };
    static char text[160];
    bool exact = false;
    snprintf(text, sizeof text, "%s, %s, call %u, way %u", o->name, k->name, at, way);
    where = text;
    finding[0] = 0;
    findings = 0;
    after_is_before();
    struct image *im = image_copy(base);
    image_write(im, dir);
    struct record *r = record_begin(im);
    CHECK(open_volume(dir, 2, first, 1) == 0, "open");
    fault = (struct fault){ .kind = k->kind, .error = k->error, .at = at, .times = way == DEAD ? UINT32_MAX : 1 };
    int rc = o->run();
    bool met = fault.hits > 0;
    if (way != DEAD || !met)
        fault.kind = FAULT_NONE;
    CHECK(rc == 0 || rc == k->error, "%d", rc);
    CHECK(rc == 0 || met, "failed of itself: %d", rc);
    if (k->kind == FAULT_SHORT)
        CHECK(rc == 0, "a short write: %d", rc);
    if (k->kind == FAULT_FULL && o->flags & (TAKES | SPACE_THERE))
        CHECK(rc == 0, "on a full disk: %d", rc);
    exact = rc == 0;
    if (met && way == RETRY && rc) {
        check_all(false, o);
        after_is_before();
        rc = o->run();
        if (o->flags & NAMES && (rc == -EEXIST || rc == -ENOENT))
            rc = 0;
        CHECK(rc == 0, "again, without the error: %d", rc);
        exact = true;
    }
    if (way != DEAD)
        check_all(exact, o);
    if (way == RETRY || way == CRASH)
        crash_and_check(r, exact && o->flags & DURABLE, o, met ? 2 : 1);
    let_go();
    if (way == GIVE_UP) /* somebody else opens them */
        check_all(exact, o);
    rc = lg_volume_close(v);
    CHECK(rc == 0 || met, "close: %d", rc);
    if (way == RETRY)
        CHECK(rc == 0, "close after all went well: %d", rc);
    fault.kind = FAULT_NONE;
    bool clean = rc == 0;
    if (way == DEAD)
        crash_and_check(r, exact && o->flags & DURABLE, o, o->flags & CHANCE ? 10 : 1);
    findings = 0;
    CHECK(open_volume(dir, 3, both, clean ? 1 : 2) == 0, "open again");
    after_crash = !clean;
    check_all(exact, o);
    after_crash = false;
    CHECK(!clean || !findings || k->kind == FAULT_NONE, "%s", finding);
    CHECK(lg_volume_close(v) == 0, "close again");
    record_stop();
    record_free(r);
    scratch_remove(AT_FDCWD, dir);
    image_free(im);
    tries++;
    return met;
}

/* The vault that all begin from: closed cleanly, but for one file that a session wrote which did not end. */
static void make_base(void)
{
    where = "base";
    keys = scratch_vault(dir, CS);
    CHECK(open_volume(dir, 1, NULL, 0) == 0, "open");
    for (unsigned i = 0; i < n_things; i++) {
        struct thing *t = &before[i];
        struct lg_entry p, e;
        struct lg_handle *w;
        if (t->what == NONE)
            continue;
        CHECK(look(t->dir, "", &p) == 0, "%s", t->dir);
        if (t->what == DIR_) {
            CHECK(lg_volume_mkdir(v, p.node, t->name, 0755, &me, &e) == 0, "mkdir");
        } else {
            CHECK(lg_volume_create_file(v, p.node, t->name, O_RDWR, 0644, &me, &e, &w) == 0, "create");
            CHECK(lg_volume_write(w, t->data, t->size, 0) == (ssize_t)t->size, "write");
            CHECK(strcmp(t->name, "unsynced") == 0 ? lg_volume_flush(w) == 0 : lg_volume_fsync(w, false) == 0, "sync");
            lg_volume_release(w);
        }
        forget(&e);
        forget(&p);
    }
    CHECK(lg_volume_close(v) == 0, "close");
    base = image_scan(dir);
    scratch_remove(AT_FDCWD, dir);
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "op", required_argument, NULL, 'o' }, { "kind", required_argument, NULL, 'k' }, { 0 } };
    const char *only = NULL;
    int only_kind = -1;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (c == 'o')
            only = optarg;
        else if (c == 'k')
            only_kind = (int)strtol(optarg, NULL, 0);
        else
            return 2;
    if (geteuid() != 0) {
        puts("SKIPPED: needs root (file handles, owners)");
        return 77;
    }
    umask(0);
    if (lg_secret_init(true) || lg_crypto_init() || scratch_dir("lgfault", top))
        return 1;
    snprintf(dir, sizeof dir, "%s/vault", top);
    snprintf(crashed, sizeof crashed, "%s/crash", top);
    memset(long_name, 'L', 250);
    begin_things();
    make_base();
    int status, failed = 0;
    pid_t child = fork(); /* every other operation there */
    if (child < 0)
        return 1;
    if (!child) {
        snprintf(dir, sizeof dir, "%s/vault2", top);
        snprintf(crashed, sizeof crashed, "%s/crash2", top);
    }
    for (size_t i = child != 0; i < sizeof ops / sizeof *ops; i += 2)
        for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
            if ((only && strcmp(only, ops[i].name) != 0) || (only_kind >= 0 && (size_t)only_kind != k))
                continue;
            for (unsigned way = 0; way < WAYS; way++)
                for (unsigned at = 1; kinds[k].ways & 1u << way && try_one(&ops[i], &kinds[k], at, way) && kinds[k].kind != FAULT_FULL; at++)
                    CHECK(at < 300, "no end");
        }
    image_free(base);
    for (unsigned i = 0; i < n_things; i++) {
        free(before[i].data);
        free(after[i].data);
    }
    lg_keys_free(keys);
    printf("%lu runs with an error below, %lu crashes after one: all as promised\n", tries, crashes);
    fflush(stdout);
    if (!child)
        _exit(0);
    failed = waitpid(child, &status, 0) != child || status;
    rmdir(top);
    return failed;
}
