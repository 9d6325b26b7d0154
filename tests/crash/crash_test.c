/* Power cuts, simulated: a random workload runs on a volume over disk.h; then crash states are built at random moments of it, opened, and compared with
 * what the workload was promised (docs/FORMAT.md, "What a crash leaves"):
 *  - the names are those after some operation, none half done (but see there for a directory renamed over another), and not before the last fsync of a
 *    directory;
 *  - a file holds exactly what it held after some operation since its last fsync, or since its creation, never a mixture;
 *  - a file that was ever fsynced can be opened; one that never was may be EIO;
 *  - owner, mode and an extended attribute are each as they were after some operation since the last fsync that was not of data only, and so is a time
 *    that was set, as long as nothing was written since (of a directory: no entry came or went, which sets its time, POSIX) and recovery was not cut short;
 *  - recovery can itself be cut short, any number of times;
 *  - afterwards everything can be written, closed and opened again.
 *
 *   crash_test [--states N] [--seed S] [--run S]   the seed is printed; --run repeats the one run that failed */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "../../fs/volume/internal.h"
#include "disk.h"
#include "memkeys.h"
#include "scratch.h"

enum { CS = 4096, OPS = 40, OBJS = 64, NAMES = 6, LIVE = 32, SIZE_MAX_ = 420 * 1024, STATES_PER_RUN = 256 };

static uint64_t run_seed, rng;
static unsigned long n_states, n_deep, n_names, n_relinked, most_calls;
static uint64_t slowest_us;
static char top[64];

#define CHECK(cond, ...)                                                                        \
    do {                                                                                        \
        if (!(cond)) {                                                                          \
            fprintf(stderr, "crash_test: --run %llu: ", (unsigned long long)run_seed);          \
            fprintf(stderr, __VA_ARGS__);                                                       \
            fprintf(stderr, " (%s:%d: %s)\n", __FILE__, __LINE__, #cond);                       \
            exit(1);                                                                            \
        }                                                                                       \
    } while (0)

static struct lg_keys *keys;
static const struct lg_cred me = { 0, 0, 0, 1 };
static uint64_t unclean[8];
static unsigned n_unclean;

static char last_finding[160]; /* for the message of a failure */
static void on_finding(void *arg, const struct lg_finding *f)
{
    (void)arg;
    snprintf(last_finding, sizeof last_finding, "%s, %llu to %llu", f->kind, (unsigned long long)f->from, (unsigned long long)f->to);
}

static int open_volume(const char *dir, uint64_t session, struct lg_volume **ret)
{
    struct lg_volume_options o = { .sys = &disk_sys, .keys = keys, .session = session, .unclean = unclean, .n_unclean = n_unclean, .finding = on_finding };
    return lg_volume_open(dir, &o, ret);
}

/* ---- the model ------------------------------------------------------------------------------------------------------------------------- */

struct snap {
    unsigned op; /* so it was after this operation */
    uint64_t size;
    uint32_t crc;
};

struct attr {
    unsigned op;
    mode_t mode;
    uid_t uid;
    gid_t gid;
    unsigned x; /* value of the extended attribute, 0: none */
};

struct obj {
    mode_t type;
    uint64_t node;
    unsigned links;
    bool linked; /* ever had a second name */
    struct lg_handle *h;
    uint8_t *data;
    uint64_t size;
    struct snap *snap;
    size_t n_snap, cap_snap;
    unsigned *sync; /* operations that made it durable */
    size_t n_sync, cap_sync;
    struct attr *attr;
    size_t n_attr, cap_attr;
    unsigned *attr_sync; /* the same for its attributes */
    size_t n_attr_sync, cap_attr_sync;
    struct timespec mtime; /* set by the operation mtime_op, 0: none */
    unsigned mtime_op;
    char target[64];
};

struct name {
    int dir; /* object; 0: the root */
    int obj;
    unsigned name;
};

struct tree {
    struct name at[LIVE];
    unsigned n;
};

static struct obj obj[OBJS];
static int n_obj;
static struct tree now, after[OPS + 1], between[OPS + 1]; /* between: what the names are in the midst of an operation, if that has a state of its own */
static bool has_between[OPS + 1];
static size_t end_of[OPS + 1]; /* length of the record after an operation */
static bool dir_synced[OPS + 1]; /* it was an fsync of a directory */
static unsigned op;
static char names[NAMES][256];

static void *grow(void *p, size_t n, size_t *cap, size_t each)
{
    if (n < *cap)
        return p;
    *cap = *cap ? *cap * 2 : 8;
    p = reallocarray(p, *cap, each);
    CHECK(p, "no memory");
    return p;
}

static uint32_t crc_of(const void *p, uint64_t n) { return lg_crc32c(0, p, (size_t)n); }

static void changed(struct obj *o)
{
    o->snap = grow(o->snap, o->n_snap, &o->cap_snap, sizeof *o->snap);
    o->snap[o->n_snap++] = (struct snap){ op, o->size, crc_of(o->data, o->size) };
    o->mtime_op = 0;
}

static void synced(struct obj *o)
{
    o->sync = grow(o->sync, o->n_sync, &o->cap_sync, sizeof *o->sync);
    o->sync[o->n_sync++] = op;
}

static void attr_synced(struct obj *o)
{
    o->attr_sync = grow(o->attr_sync, o->n_attr_sync, &o->cap_attr_sync, sizeof *o->attr_sync);
    o->attr_sync[o->n_attr_sync++] = op;
}

static void attr_changed(struct obj *o, struct attr a)
{
    o->attr = grow(o->attr, o->n_attr, &o->cap_attr, sizeof *o->attr);
    a.op = op;
    o->attr[o->n_attr++] = a;
}

static int name_find(const struct tree *t, int dir, unsigned name)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->at[i].dir == dir && t->at[i].name == name)
            return (int)i;
    return -1;
}

static bool dir_is_empty(const struct tree *t, int dir)
{
    for (unsigned i = 0; i < t->n; i++)
        if (t->at[i].dir == dir)
            return false;
    return true;
}

static void entries_changed(int dir) { obj[dir].mtime_op = 0; }

static void name_put(struct tree *t, int dir, unsigned name, int o)
{
    entries_changed(dir);
    int i = name_find(t, dir, name);
    if (i < 0)
        i = (int)t->n++;
    t->at[i] = (struct name){ dir, o, name };
}

static void name_drop(struct tree *t, int i)
{
    entries_changed(t->at[i].dir);
    t->at[i] = t->at[--t->n];
}

static bool below(const struct tree *t, int dir, int o) /* is dir o, or under it? */
{
    while (dir != o && dir != 0)
        for (unsigned i = 0; i < t->n; i++)
            if (t->at[i].obj == dir) {
                dir = t->at[i].dir;
                break;
            }
    return dir == o;
}

/* ---- the workload ------------------------------------------------------------------------------------------------------------------------ */

static uint64_t pick(uint64_t n) { return rnd(&rng) % n; }

static int some(mode_t type) /* an object of that type that has a name; -1: none. Directories: perhaps the root, 0 */
{
    int found[LIVE + 1], n = 0;
    if (type == S_IFDIR)
        found[n++] = 0;
    for (unsigned i = 0; i < now.n; i++)
        if (obj[now.at[i].obj].type == type)
            found[n++] = now.at[i].obj;
    return n ? found[pick((uint64_t)n)] : -1;
}

static void unlinked(struct lg_volume *v, int o)
{
    (void)v;
    obj[o].links--;
}

static void attr_begin(struct obj *o, const struct stat *st) { attr_changed(o, (struct attr){ .mode = st->st_mode & 07777, .uid = st->st_uid, .gid = st->st_gid }); }

static void need_open(struct lg_volume *v, struct obj *o)
{
    if (!o->h)
        CHECK(lg_volume_open_file(v, o->node, O_RDWR, &o->h) == 0, "open");
}

/* A name that nothing has, for a new object. */
static bool free_place(int *ret_dir, unsigned *ret_name)
{
    *ret_dir = some(S_IFDIR);
    *ret_name = (unsigned)pick(NAMES);
    return name_find(&now, *ret_dir, *ret_name) < 0 && now.n < LIVE - 2 && n_obj < OBJS - 1;
}

static void do_create(struct lg_volume *v, bool dir)
{
    int d;
    unsigned name;
    struct lg_entry e;
    if (!free_place(&d, &name))
        return;
    struct obj *o = &obj[n_obj];
    *o = (struct obj){ .type = dir ? S_IFDIR : S_IFREG, .links = 1 };
    if (dir) {
        CHECK(lg_volume_mkdir(v, obj[d].node, names[name], 0755, &me, &e) == 0, "mkdir");
    } else {
        CHECK(lg_volume_create_file(v, obj[d].node, names[name], O_RDWR | O_EXCL, 0644, &me, &e, &o->h) == 0, "create");
        o->data = calloc(1, SIZE_MAX_);
        CHECK(o->data, "no memory");
        changed(o);
    }
    attr_begin(o, &e.st);
    o->node = e.node;
    name_put(&now, d, name, n_obj++);
}

static void do_symlink(struct lg_volume *v)
{
    int d;
    unsigned name;
    struct lg_entry e;
    if (!free_place(&d, &name))
        return;
    struct obj *o = &obj[n_obj];
    *o = (struct obj){ .type = S_IFLNK, .links = 1 };
    snprintf(o->target, sizeof o->target, "target %d", n_obj);
    CHECK(lg_volume_symlink(v, obj[d].node, names[name], o->target, &me, &e) == 0, "symlink");
    o->node = e.node;
    name_put(&now, d, name, n_obj++);
}

static void write_to(struct obj *o);

static void do_tmpfile(struct lg_volume *v)
{
    int d;
    unsigned name;
    struct lg_entry e;
    if (!free_place(&d, &name))
        return;
    struct obj *o = &obj[n_obj];
    *o = (struct obj){ .type = S_IFREG, .links = 1, .linked = true, .data = calloc(1, SIZE_MAX_) };
    CHECK(o->data, "no memory");
    CHECK(lg_volume_tmpfile(v, obj[d].node, O_RDWR, 0640, &me, &e, &o->h) == 0, "tmpfile");
    o->node = e.node;
    changed(o);
    attr_begin(o, &e.st);
    if (pick(4))
        write_to(o);
    if (pick(2)) {
        CHECK(lg_volume_fsync(o->h, false) == 0, "fsync");
        synced(o);
        attr_synced(o);
    }
    CHECK(lg_volume_link(v, o->node, obj[d].node, names[name], &e) == 0, "link of a nameless file");
    CHECK(e.node == o->node, "another node");
    lg_volume_forget(v, e.node, 1);
    name_put(&now, d, name, n_obj++);
}

static void do_attributes(struct lg_volume *v)
{
    int n = some(pick(4) ? S_IFREG : S_IFDIR);
    struct stat st = { 0 }, ret;
    if (n <= 0)
        return;
    struct obj *o = &obj[n];
    struct attr a = o->attr[o->n_attr - 1];
    unsigned set = 0;
    switch (pick(4)) {
    case 0:
        set = LG_SET_MODE;
        a.mode = st.st_mode = 0600 | (mode_t)pick(0200);
        break;
    case 1:
        if (geteuid() != 0)
            return;
        set = LG_SET_UID | LG_SET_GID;
        a.uid = st.st_uid = (uid_t)pick(5);
        a.gid = st.st_gid = (gid_t)pick(5);
        break;
    case 2:
        set = LG_SET_MTIME;
        st.st_mtim = o->mtime = (struct timespec){ (time_t)pick(1u << 30), (long)pick(1000000000) };
        o->mtime_op = op;
        break;
    default:
        if (a.x && pick(3) == 0) {
            CHECK(lg_volume_removexattr(v, o->node, "user.k") == 0, "removexattr");
            a.x = 0;
        } else {
            a.x = 1 + (unsigned)pick(1u << 30);
            CHECK(lg_volume_setxattr(v, o->node, "user.k", &a.x, sizeof a.x, 0) == 0, "setxattr");
        }
    }
    CHECK(!set || lg_volume_setattr(v, o->node, &st, set, &ret) == 0, "setattr %x", set);
    attr_changed(o, a);
}

static void do_write(struct lg_volume *v)
{
    int n = some(S_IFREG);
    if (n < 0)
        return;
    need_open(v, &obj[n]);
    write_to(&obj[n]);
}

static void write_to(struct obj *o)
{
    static uint8_t buf[SIZE_MAX_];
    uint64_t len, off;
    switch (pick(5)) {
    case 0: len = 1 + pick(100); break;
    case 1: len = CS; break;
    case 2: len = 1 + pick(3 * CS); break;
    case 3: len = CS * (1 + pick(6)); break;
    default: len = pick(6) ? 1 + pick(CS) : 1 + pick(100 * CS); break;
    }
    switch (pick(5)) {
    case 0: case 1: off = o->size; break;                     /* append */
    case 2: off = pick(o->size + 1); break;                   /* over */
    case 3: off = pick(o->size + 1) / CS * CS; break;         /* over, whole chunks */
    default: off = pick(4) ? o->size + pick(2 * CS) : pick(90 * CS); break; /* leaves a hole */
    }
    if (off >= SIZE_MAX_)
        return;
    if (len > SIZE_MAX_ - off)
        len = SIZE_MAX_ - off;
    for (uint64_t i = 0; i < len; i++)
        buf[i] = (uint8_t)(rnd(&rng) >> 24);
    CHECK(lg_volume_write(o->h, buf, len, off) == (ssize_t)len, "write");
    memcpy(o->data + off, buf, len);
    if (off + len > o->size)
        o->size = off + len;
    changed(o);
}

static void do_resize(struct lg_volume *v)
{
    int n = some(S_IFREG);
    if (n < 0)
        return;
    struct obj *o = &obj[n];
    uint64_t size = pick(4) == 0 ? 0 : pick(3) ? pick(o->size + 1) : pick(SIZE_MAX_);
    struct stat st = { .st_size = (off_t)size }, ret;
    need_open(v, o);
    CHECK(lg_volume_setattr(v, o->node, &st, LG_SET_SIZE, &ret) == 0, "truncate");
    if (size < o->size)
        memset(o->data + size, 0, o->size - size);
    o->size = size;
    changed(o);
}

static void do_punch(struct lg_volume *v)
{
    int n = some(S_IFREG);
    if (n < 0 || !obj[n].size)
        return;
    struct obj *o = &obj[n];
    uint64_t off = pick(o->size), len = 1 + (pick(2) ? pick(10 * CS) : pick(o->size));
    need_open(v, o);
    CHECK(lg_volume_fallocate(o->h, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, off, len) == 0, "punch");
    if (len > o->size - off)
        len = o->size - off;
    memset(o->data + off, 0, len);
    changed(o);
}

static void do_rename(struct lg_volume *v)
{
    if (!now.n)
        return;
    unsigned i = (unsigned)pick(now.n), name = (unsigned)pick(NAMES);
    struct name from = now.at[i];
    int d = some(S_IFDIR), j = name_find(&now, d, name);
    bool is_dir = obj[from.obj].type == S_IFDIR;
    if ((is_dir && below(&now, d, from.obj)) || (d == from.dir && name == from.name))
        return;
    unsigned flags = j >= 0 && pick(4) == 0 ? RENAME_EXCHANGE : 0;
    if (j >= 0) {
        int o = now.at[j].obj;
        if (o == from.obj)
            return;
        if (flags && obj[o].type == S_IFDIR && below(&now, from.dir, o))
            return;
        if (!flags && ((obj[o].type == S_IFDIR) != is_dir || (is_dir && !dir_is_empty(&now, o))))
            return;
    }
    int over = j >= 0 ? now.at[j].obj : -1;
    CHECK(lg_volume_rename(v, obj[from.dir].node, names[from.name], obj[d].node, names[name], flags, NULL) == 0, "rename");
    if (flags) {
        now.at[i].obj = over;
        now.at[j].obj = from.obj;
        entries_changed(from.dir);
        entries_changed(d);
        return;
    }
    if (over >= 0 && is_dir) { /* exchanged, then the empty one goes: it may still be seen under the old name */
        between[op] = now;
        between[op].at[i].obj = over;
        between[op].at[j].obj = from.obj;
        has_between[op] = true;
    }
    if (over >= 0)
        unlinked(v, over);
    name_put(&now, d, name, from.obj);
    name_drop(&now, name_find(&now, from.dir, from.name));
}

static void do_link(struct lg_volume *v)
{
    int n = some(S_IFREG), d = some(S_IFDIR);
    unsigned name = (unsigned)pick(NAMES);
    struct lg_entry e;
    if (n < 0 || name_find(&now, d, name) >= 0 || now.n >= LIVE - 2)
        return;
    CHECK(lg_volume_link(v, obj[n].node, obj[d].node, names[name], &e) == 0, "link");
    lg_volume_forget(v, e.node, 1);
    obj[n].links++;
    obj[n].linked = true;
    name_put(&now, d, name, n);
}

static void do_remove(struct lg_volume *v)
{
    if (!now.n)
        return;
    int i = (int)pick(now.n), o = now.at[i].obj;
    const char *name = names[now.at[i].name];
    uint64_t dir = obj[now.at[i].dir].node;
    if (obj[o].type != S_IFDIR) {
        CHECK(lg_volume_unlink(v, dir, name, NULL) == 0, "unlink");
    } else {
        int rc = lg_volume_rmdir(v, dir, name);
        CHECK(rc == (dir_is_empty(&now, o) ? 0 : -ENOTEMPTY), "rmdir: %d", rc);
        if (rc)
            return;
    }
    unlinked(v, o);
    name_drop(&now, i);
}

static void do_sync(struct lg_volume *v)
{
    int n = some(S_IFREG);
    if (n < 0)
        return;
    bool data_only = pick(3) == 0;
    need_open(v, &obj[n]);
    CHECK(lg_volume_fsync(obj[n].h, data_only) == 0, "fsync");
    synced(&obj[n]);
    if (!data_only)
        attr_synced(&obj[n]);
}

/* The path of a name, with its NUL, before end. */
static char *path_of(const struct name *at, char *begin, char *end)
{
    const char *text = names[at->name];
    size_t len = strlen(text) + 1;
    CHECK((size_t)(end - begin) > len + 1, "a long path");
    char *p = memcpy(end - len, text, len);
    for (unsigned i = 0; at->dir && i < now.n; i++)
        if (now.at[i].obj == at->dir) {
            *--p = 0;
            char *up = path_of(&now.at[i], begin, p + 1);
            *p = '/';
            return up;
        }
    return p;
}

/* All names of a file, in an order of chance. */
static size_t names_of(int n, char *to, size_t cap)
{
    size_t len = 0;
    for (unsigned i = 0, first = (unsigned)pick(now.n); i < now.n; i++) {
        const struct name *at = &now.at[(first + i) % now.n];
        if (at->obj != n)
            continue;
        char path[4096], *p = path_of(at, path, path + sizeof path);
        CHECK(len + strlen(p) + 1 <= cap, "long names");
        memcpy(to + len, p, strlen(p) + 1);
        len += strlen(p) + 1;
    }
    return len;
}

static int some_linked(void) /* rather one with several names */
{
    int n = some(S_IFREG);
    for (unsigned i = 0, first = (unsigned)pick(now.n + 1); i < now.n && pick(8); i++)
        if (obj[now.at[(first + i) % now.n].obj].type == S_IFREG && obj[now.at[(first + i) % now.n].obj].links > 1)
            return now.at[(first + i) % now.n].obj;
    return n;
}

static void do_rekey(struct lg_volume *v)
{
    static char list[LIVE * 4096];
    int n = some_linked();
    struct stat st;
    if (n < 0)
        return;
    memkeys_newest++;
    int rc = lg_volume_rekey(v, obj[n].node, NULL);
    /* One whose name seen last is gone is not found by another before that is looked up. */
    CHECK(rc == (obj[n].links > 1 ? -EMLINK : 0) || (rc == -ENOENT && obj[n].linked), "re-encryption: %d", rc);
    if (rc == -EMLINK) {
        rc = lg_volume_rekey_links(v, obj[n].node, list, names_of(n, list, sizeof list));
        CHECK(rc == 0, "re-encryption under %u names: %d", obj[n].links, rc);
        CHECK(lg_volume_getattr(v, obj[n].node, &st) == 0 && st.st_nlink == obj[n].links, "%u links", (unsigned)st.st_nlink);
        n_relinked++;
    }
    for (unsigned i = 0; i < now.n; i++)
        if (now.at[i].obj == n)
            entries_changed(now.at[i].dir);
    if (!rc) {
        synced(&obj[n]);
        attr_synced(&obj[n]);
    }
}

static void do_close(struct lg_volume *v)
{
    (void)v;
    int n = some(S_IFREG);
    if (n < 0 || !obj[n].h)
        return;
    CHECK(lg_volume_flush(obj[n].h) == 0, "flush");
    if (pick(3)) {
        lg_volume_release(obj[n].h);
        obj[n].h = NULL;
    }
}

static void do_sync_dir(struct lg_volume *v)
{
    struct lg_dir *d;
    struct obj *o = &obj[some(S_IFDIR)];
    CHECK(lg_volume_opendir(v, o->node, 0, &d) == 0, "opendir");
    CHECK(lg_volume_fsyncdir(d) == 0, "fsyncdir");
    lg_volume_releasedir(d);
    attr_synced(o);
    dir_synced[op] = true;
}

static void step(struct lg_volume *v)
{
    switch (pick(31)) {
    case 0: case 1: case 2: do_create(v, false); break;
    case 3: do_create(v, true); break;
    case 4: do_symlink(v); break;
    case 5: do_rename(v); break;
    case 6: case 30: do_link(v); break;
    case 7: do_remove(v); break;
    case 8: do_resize(v); break;
    case 9: do_punch(v); break;
    case 10: case 11: case 12: do_sync(v); break;
    case 13: case 14: do_close(v); break;
    case 15: do_sync_dir(v); break;
    case 16: CHECK(lg_journal_checkpoint(v->env.journal) == 0, "checkpoint"); break;
    case 17: CHECK(lg_volume_commit_all(v) == 0, "commit"); break;
    case 18: case 29: do_rekey(v); break;
    case 19: do_tmpfile(v); break;
    case 20: case 21: case 22: do_attributes(v); break;
    default: do_write(v); break;
    }
}

/* ---- what a crash left ------------------------------------------------------------------------------------------------------------------------ */

struct seen {
    int dir; /* index of its directory in found, -1: the root */
    unsigned name;
    mode_t type;
    uint64_t node;
};

struct found {
    struct lg_volume *v;
    struct seen at[LIVE * 2];
    int n, in;
};

static unsigned name_index(const char *name)
{
    for (unsigned i = 0; i < NAMES; i++)
        if (strcmp(names[i], name) == 0)
            return i;
    CHECK(false, "a name that nobody gave: %s", name);
    return 0;
}

static bool on_entry(void *arg, const char *name, const struct lg_entry *e, uint64_t next)
{
    struct found *f = arg;
    (void)next;
    if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
        return true;
    CHECK(f->n < LIVE * 2, "too many names");
    f->at[f->n++] = (struct seen){ f->in, name_index(name), e->st.st_mode & S_IFMT, e->node };
    return true;
}

static void look(struct found *f, int in, uint64_t node)
{
    struct lg_dir *d;
    int from = f->n, rc = lg_volume_opendir(f->v, node, 0, &d);
    CHECK(rc == 0, "opendir: %d", rc);
    f->in = in;
    rc = lg_volume_readdir(d, 0, true, on_entry, f);
    CHECK(rc == 0, "readdir: %d", rc);
    lg_volume_releasedir(d);
    for (int i = from, to = f->n; i < to; i++)
        if (f->at[i].type == S_IFDIR)
            look(f, i, f->at[i].node);
}

/* Are the names found those of t? Then ret_obj tells which object each is. */
static bool matches(const struct found *f, const struct tree *t, int ret_obj[])
{
    if ((unsigned)f->n != t->n)
        return false;
    for (int i = 0; i < f->n; i++) {
        int k = name_find(t, f->at[i].dir < 0 ? 0 : ret_obj[f->at[i].dir], f->at[i].name);
        if (k < 0 || obj[t->at[k].obj].type != f->at[i].type)
            return false;
        ret_obj[i] = t->at[k].obj;
    }
    return true;
}

/* Reads a file whole. -errno, or its size. */
static int64_t slurp(struct lg_volume *v, uint64_t node, uint8_t *buf)
{
    struct lg_handle *h;
    int rc = lg_volume_open_file(v, node, O_RDONLY, &h);
    if (rc)
        return rc;
    ssize_t n = lg_volume_read(h, buf, SIZE_MAX_ + 8192, 0, O_RDONLY);
    lg_volume_release(h);
    return n;
}

/* May o, after a crash with `done` operations finished, hold this? */
static bool allowed(const struct obj *o, unsigned done, uint64_t size, uint32_t crc)
{
    unsigned since = 0;
    for (size_t i = 0; i < o->n_sync && o->sync[i] <= done; i++)
        since = o->sync[i];
    for (size_t i = 0; i < o->n_snap && o->snap[i].op <= done + 1; i++) {
        bool superseded = i + 1 < o->n_snap && o->snap[i + 1].op <= since; /* by what was made durable */
        if (!superseded && o->snap[i].size == size && o->snap[i].crc == crc)
            return true;
    }
    return false;
}

/* The same of its attributes. ret_what: which is not. */
static bool attr_allowed(struct lg_volume *v, uint64_t node, const struct obj *o, unsigned done, const char **ret_what)
{
    unsigned since = 0, x = 0;
    bool mode = false, uid = false, gid = false, xattr = false;
    struct stat st;
    for (size_t i = 0; i < o->n_attr_sync && o->attr_sync[i] <= done; i++)
        since = o->attr_sync[i];
    if (!since) /* never durable */
        return true;
    CHECK(lg_volume_getattr(v, node, &st) == 0, "getattr");
    ssize_t got = lg_volume_getxattr(v, node, "user.k", &x, sizeof x);
    CHECK(got == -ENODATA || got == sizeof x, "attribute: %zd", got);
    for (size_t i = 0; i < o->n_attr && o->attr[i].op <= done + 1; i++) {
        if (i + 1 < o->n_attr && o->attr[i + 1].op <= since)
            continue;
        mode |= o->attr[i].mode == (st.st_mode & 07777);
        uid |= o->attr[i].uid == st.st_uid;
        gid |= o->attr[i].gid == st.st_gid;
        xattr |= o->attr[i].x == x;
    }
    bool time = n_unclean > 1 || !o->mtime_op || o->mtime_op > since || (o->mtime.tv_sec == st.st_mtim.tv_sec && o->mtime.tv_nsec == st.st_mtim.tv_nsec);
    *ret_what = !mode ? "mode" : !uid || !gid ? "owner" : !xattr ? "extended attribute" : !time ? "time" : NULL;
    return !*ret_what;
}

static bool was_synced(const struct obj *o, unsigned done) { return o->n_sync && o->sync[0] <= done; }

static uint8_t content[SIZE_MAX_ + 8192];

/* The volume as recovered, against the model. held: what each file turned out to hold, for later. */
static bool explain(struct found *f, const struct tree *t, unsigned done, struct snap held[], char *why, size_t why_len)
{
    int is[LIVE * 2];
    if (!matches(f, t, is)) {
        snprintf(why, why_len, "%d names found, %u expected", f->n, t->n);
        return false;
    }
    for (int i = 0; i < f->n; i++) {
        const struct obj *o = &obj[is[i]];
        held[i].op = 0;
        if (o->type == S_IFLNK) {
            char target[64];
            int rc = lg_volume_readlink(f->v, f->at[i].node, target, sizeof target);
            if (rc || strcmp(target, o->target) != 0) {
                snprintf(why, why_len, "symbolic link: %d", rc);
                return false;
            }
        }
        const char *what;
        if (o->type == S_IFDIR && !attr_allowed(f->v, f->at[i].node, o, done, &what)) {
            snprintf(why, why_len, "directory %d: %s", is[i], what);
            return false;
        }
        if (o->type != S_IFREG)
            continue;
        int64_t n = slurp(f->v, f->at[i].node, content);
        if (n == -EIO && !was_synced(o, done)) {
            held[i].op = 1; /* lost, as it may be */
            continue;
        }
        if (!attr_allowed(f->v, f->at[i].node, o, done, &what)) {
            snprintf(why, why_len, "object %d: %s", is[i], what);
            return false;
        }
        struct stat st;
        unsigned links = 0;
        for (int k = 0; k < f->n; k++)
            links += is[k] == is[i] && f->at[k].node == f->at[i].node;
        for (int k = 0; k < f->n; k++)
            if (is[k] == is[i] && f->at[k].node != f->at[i].node) {
                snprintf(why, why_len, "object %d: its names mean several files", is[i]);
                return false;
            }
        if (lg_volume_getattr(f->v, f->at[i].node, &st) || st.st_nlink != links) {
            snprintf(why, why_len, "object %d: %u links of %u names", is[i], (unsigned)st.st_nlink, links);
            return false;
        }
        held[i].size = (uint64_t)n;
        held[i].crc = n < 0 ? 0 : crc_of(content, (uint64_t)n);
        if (n < 0 || !allowed(o, done, held[i].size, held[i].crc)) {
            snprintf(why, why_len, "object %d: %lld is not what it may hold (%s)", is[i], (long long)n, last_finding);
            return false;
        }
    }
    return true;
}

static void forget(struct found *f)
{
    for (int i = 0; i < f->n; i++)
        lg_volume_forget(f->v, f->at[i].node, 1);
}

/* Everything can be written to, closed, and opened again by a session that trusts the one before. */
static void go_on(const char *dir, struct found *f, struct snap held[], uint64_t session)
{
    struct lg_handle *h;
    for (int i = 0; i < f->n; i++) {
        if (f->at[i].type != S_IFREG || held[i].op)
            continue;
        struct stat st;
        CHECK(lg_volume_open_file(f->v, f->at[i].node, O_RDWR, &h) == 0, "open to write");
        CHECK(lg_volume_getattr(f->v, f->at[i].node, &st) == 0, "getattr");
        CHECK(lg_volume_write(h, "more", 4, (uint64_t)st.st_size) == 4, "append");
        CHECK(lg_volume_flush(h) == 0, "flush");
        lg_volume_release(h);
    }
    forget(f);
    CHECK(lg_volume_close(f->v) == 0, "close");
    struct found g = { .n = 0 };
    int was = f->n;
    CHECK(open_volume(dir, session, &g.v) == 0, "open again");
    look(&g, -1, LG_ROOT_NODE);
    CHECK(g.n == was, "%d names, then %d", was, g.n);
    for (int i = 0; i < g.n; i++) {
        if (g.at[i].type != S_IFREG)
            continue;
        int64_t n = slurp(g.v, g.at[i].node, content);
        int k = 0; /* readdir may give another order: find it by what it holds */
        for (; k < was; k++)
            if (f->at[k].type == S_IFREG && (held[k].op ? n == -EIO : n >= 4 && crc_of(content, held[k].size) == held[k].crc && (uint64_t)n >= held[k].size + 4))
                break;
        CHECK(k < was, "a file of %lld bytes is not what was left", (long long)n);
    }
    forget(&g);
    CHECK(lg_volume_close(g.v) == 0, "close again");
}

static uint64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t); /* others may be using the machine */
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}

/* Opens the state, perhaps crashing again on the way; at last compares. */
static void recover(struct image *im, const char *dir, unsigned names_done, unsigned done, unsigned depth)
{
    struct found f = { .n = 0 };
    struct snap held[LIVE * 2] = { 0 };
    char why[3][256] = { "", "", "" };
    uint64_t session = unclean[n_unclean - 1] + 1;
    image_write(im, dir);
    bool again = depth < 3 && pick(depth ? 3 : 6) == 0;
    struct record *r = again ? record_begin(im) : NULL;
    unsigned long calls = disk_calls;
    uint64_t began = now_us();
    int rc = open_volume(dir, session, &f.v);
    CHECK(rc == 0, "the volume does not open: %d", rc);
    look(&f, -1, LG_ROOT_NODE);
    for (int i = 0; i < f.n; i++) { /* files recover as they are opened */
        struct lg_handle *h;
        if (f.at[i].type == S_IFREG && lg_volume_open_file(f.v, f.at[i].node, O_RDONLY, &h) == 0)
            lg_volume_release(h);
    }
    if (now_us() - began > slowest_us)
        slowest_us = now_us() - began;
    if (disk_calls - calls > most_calls)
        most_calls = disk_calls - calls;
    bool ok = explain(&f, &after[names_done], done, held, why[0], sizeof why[0]) ||
              (names_done < OPS && explain(&f, &after[names_done + 1], done, held, why[1], sizeof why[1])) ||
              (names_done < OPS && has_between[names_done + 1] && explain(&f, &between[names_done + 1], done, held, why[2], sizeof why[2]));
    CHECK(ok, "depth %u, %u operations done, names of %u: %s; %s; %s", depth, done, names_done, why[0], why[1], why[2]);
    if (again) {
        forget(&f);
        rc = lg_volume_close(f.v);
        CHECK(rc == 0, "close: %d", rc);
        record_stop();
        scratch_remove(AT_FDCWD, dir);
        size_t cut = pick(record_len(r) + 1), names_in;
        struct image *next = record_crash(r, cut, &rng, &names_in);
        unclean[n_unclean++] = session;
        n_deep++;
        recover(next, dir, names_done, done, depth + 1);
        n_unclean--;
        image_free(next);
        record_free(r);
        return;
    }
    if (pick(3) == 0) {
        go_on(dir, &f, held, session + 1);
    } else {
        forget(&f);
        rc = lg_volume_close(f.v);
        CHECK(rc == 0, "close: %d", rc);
    }
    scratch_remove(AT_FDCWD, dir);
}

/* ---- runs ------------------------------------------------------------------------------------------------------------------------------------ */

static void one_run(uint64_t seed, unsigned states)
{
    char dir[96], crash[96];
    struct lg_volume *v;
    run_seed = rng = seed;
    for (unsigned i = 0; i < 8; i++)
        rnd(&rng);
    snprintf(dir, sizeof dir, "%s/vault", top);
    snprintf(crash, sizeof crash, "%s/crash", top);
    keys = scratch_vault(dir, CS);
    memset(obj, 0, sizeof obj);
    memset(has_between, 0, sizeof has_between);
    memset(dir_synced, 0, sizeof dir_synced);
    now.n = 0;
    obj[0] = (struct obj){ .type = S_IFDIR, .node = LG_ROOT_NODE };
    n_obj = 1;
    n_unclean = 0;
    struct image *im = image_scan(dir);
    struct record *r = record_begin(im);
    CHECK(open_volume(dir, 1, &v) == 0, "open");
    after[0] = now;
    end_of[0] = record_len(r);
    for (op = 1; op <= OPS; op++) {
        step(v);
        after[op] = now;
        end_of[op] = record_len(r);
    }
    op = OPS;
    record_stop();
    size_t len = record_len(r);
    for (int i = 1; i < n_obj; i++) {
        if (obj[i].h)
            lg_volume_release(obj[i].h);
        lg_volume_forget(v, obj[i].node, 1);
    }
    CHECK(lg_volume_close(v) == 0, "close");
    scratch_remove(AT_FDCWD, dir);
    unclean[n_unclean++] = 1;
    for (unsigned s = 0; s < states; s++) {
        size_t cut = pick(len + 1), names_in;
        unsigned done = 0, names_done = 0;
        while (done < OPS && end_of[done + 1] <= cut)
            done++;
        struct image *state = record_crash(r, cut, &rng, &names_in);
        while (names_done < OPS && record_names(r, end_of[names_done + 1]) <= names_in)
            names_done++;
        if (names_done > done)
            names_done = done;
        for (unsigned k = names_done + 1; k <= done; k++) /* the simulated disk keeps names in one order */
            CHECK(!dir_synced[k], "a directory was synced by operation %u, of %u that were done, and names are those of %u", k, done, names_done);
        n_names += names_in;
        recover(state, crash, names_done, done, 0);
        image_free(state);
        n_states++;
    }
    image_free(im);
    record_free(r);
    for (int i = 1; i < n_obj; i++) {
        free(obj[i].data);
        free(obj[i].snap);
        free(obj[i].sync);
        free(obj[i].attr);
        free(obj[i].attr_sync);
    }
    lg_keys_free(keys);
}

/* Half of the states in each of two processes. */
static int all_runs(uint64_t seed, unsigned long states)
{
    int failed = 0;
    for (unsigned p = 0; p < 2; p++) {
        pid_t pid = fork();
        if (pid < 0)
            return 1;
        if (pid)
            continue;
        uint64_t s = seed + p * 0x9e3779b97f4a7c15u;
        if (scratch_dir("lgcrash", top))
            _exit(1);
        unsigned long mine = states / 2, runs = (mine + STATES_PER_RUN - 1) / STATES_PER_RUN;
        for (unsigned long i = 0; i < runs; i++) {
            uint64_t one = rnd(&s);
            one_run(one ? one : 1, STATES_PER_RUN);
        }
        printf("%lu crash states of %lu workloads of %d operations, %lu of recovery crashed again: all as promised; the slowest recovery took %.1f ms of processor time, "
               "the longest %lu calls below; %lu re-encryptions of files with several names\n",
               n_states, runs, OPS, n_deep, (double)slowest_us / 1000, most_calls, n_relinked);
        rmdir(top);
        fflush(stdout);
        _exit(0);
    }
    for (int status; wait(&status) > 0;)
        failed |= status != 0;
    return failed;
}

int main(int argc, char **argv)
{
    static const struct option options[] = { { "states", required_argument, NULL, 'n' }, { "seed", required_argument, NULL, 's' }, { "run", required_argument, NULL, 'r' }, { 0 } };
    unsigned long states = 2000;
    uint64_t seed = (uint64_t)time(NULL) * 2654435761u | 1, run = 0;
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;)
        if (c == 'n')
            states = strtoul(optarg, NULL, 0);
        else if (c == 's')
            seed = strtoull(optarg, NULL, 0);
        else if (c == 'r')
            run = strtoull(optarg, NULL, 0);
        else
            return 2;
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    for (unsigned i = 0; i < NAMES; i++)
        snprintf(names[i], sizeof names[i], i == NAMES - 1 ? "long %0250u" : "n%u", i);
    if (run) {
        if (scratch_dir("lgcrash", top))
            return 1;
        one_run(run, STATES_PER_RUN);
        rmdir(top);
        puts("this run is as promised");
        return 0;
    }
    printf("seed %llu\n", (unsigned long long)seed);
    fflush(stdout);
    return all_runs(seed, states);
}
