#include <fcntl.h>
#include <stdlib.h>
#include <sys/file.h>
#include <unistd.h>

#include "against.h"
#include "internal.h"
#include "manifest.h"

enum { DEPTH_MAX = 1024, FLUSH_EACH = 256, NAME_ROOM = LG_PLAIN_NAME_MAX + 1 };
#define VAULT_NAME "leadglass.vault"
#define ROOT_NAME "root"

const char *lg_scrub_class_name(enum lg_scrub_class c)
{
    static const char *const name[LG_SCRUB_CLASSES] = { "damage", "differs", "unreadable", "unfinished", "no-key", "revoked", "recovered", "leftover", "changed", "repaired" };
    return (unsigned)c < LG_SCRUB_CLASSES ? name[c] : "?";
}

/* ---- telling --------------------------------------------------------------------------------------------------------------------------- */

void lg_scrub_find(struct scrub *s, enum lg_scrub_class cls, const char *kind, const uint8_t *id, uint64_t from, uint64_t to)
{
    struct lg_scrub_finding f = { .cls = cls, .kind = kind, .lower = lg_text(&s->lower), .path = s->path_known ? lg_text(&s->path) : NULL, .has_id = id != NULL, .from = from, .to = to, .other = s->other };
    if (id)
        memcpy(f.file_id, id, LG_ID_LEN);
    s->n_reported++;
    s->st.found[cls]++;
    s->o->finding(s->o->arg, &f);
}

static void on_file(void *arg, const struct lg_finding *f)
{
    struct scrub *s = arg;
    if (s->held_reports) {
        if (s->n_held < sizeof s->held / sizeof *s->held)
            s->held[s->n_held++] = *f;
        return;
    }
    lg_scrub_find(s, s->cls, f->kind, f->file_id, f->from, f->to);
}

void lg_scrub_tell_held(struct scrub *s)
{
    for (unsigned i = 0; i < s->n_held; i++)
        lg_scrub_find(s, s->cls, s->held[i].kind, s->held[i].file_id, s->held[i].from, s->held[i].to);
    s->n_held = 0;
}

int lg_scrub_read(struct scrub *s, size_t n)
{
    s->st.bytes += n;
    int rc = s->o->pace(s->o->arg, &s->st, false, lg_text(&s->position));
    s->stopped = rc && rc != -EKEYREVOKED;
    return rc;
}

/* An entry is done. */
static int at_rest(struct scrub *s)
{
    int rc = 0;
    if (!s->manifest || ++s->unflushed >= FLUSH_EACH) { /* what position says is behind stands in the manifest's file, for good */
        s->unflushed = 0;
        rc = s->manifest ? lg_manifest_sync(s->manifest) : 0;
        lg_text_cut(&s->position, 0);
        if (!rc)
            rc = lg_text_push(&s->position, lg_text(&s->lower));
    }
    if (rc)
        return rc;
    rc = s->o->pace(s->o->arg, &s->st, true, lg_text(&s->position));
    s->stopped = rc != 0;
    return rc;
}

bool lg_scrub_locked(const struct scrub *s)
{
    struct lg_kref *k;
    int rc = lg_keys_general(s->env.keys, &k);
    if (!rc)
        lg_kref_unref(k);
    return rc != 0;
}

/* ---- one entry ---------------------------------------------------------------------------------------------------------------------------- */

static int open_quietly(int dirfd, const char *lower, int flags)
{
    int fd = openat(dirfd, lower, flags | O_NOATIME | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return fd >= 0 || errno != EPERM ? fd : openat(dirfd, lower, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
}

static void describe(struct lg_item *it, const struct stat *st)
{
    it->mode = st->st_mode;
    it->uid = st->st_uid;
    it->gid = st->st_gid;
    it->mtime_s = st->st_mtim.tv_sec;
    it->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
}

static int keep_item(struct scrub *s, const struct lg_item *it)
{
    int rc = s->manifest ? lg_manifest_add(s->manifest, lg_text(&s->lower), it) : 0;
    return rc || !s->against ? rc : lg_against_item(s->against, lg_text(&s->lower), it);
}

static int leaf(struct scrub *s, int dirfd, const char *lower, struct stat *st)
{
    struct lg_item it = { .type = S_ISREG(st->st_mode) ? LG_ITEM_FILE : S_ISLNK(st->st_mode) ? LG_ITEM_LINK : LG_ITEM_OTHER, .state = LG_ITEM_VERIFIED };
    bool keyless = !s->names;
    int rc = 0;
    if (S_ISREG(st->st_mode)) {
        s->st.files++;
        if (s->o->skip && s->o->skip(s->o->arg))
            return 0;
        bool write = !keyless && !s->env.read_only;
        int fd = open_quietly(dirfd, lower, write ? O_RDWR : O_RDONLY);
        if (fd < 0) {
            if (errno != ENOENT || !s->st.live)
                lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(errno), NULL, 0, 0);
            it.state = LG_ITEM_DAMAGED;
        } else if (keyless) {
            rc = lg_scrub_keyless_xattrs(s, fd);
            if (!rc)
                rc = lg_scrub_keyless_file(s, fd);
            close(fd);
        } else {
            rc = lg_scrub_xattrs(s, fd, &it);
            if (rc)
                close(fd);
            else
                rc = lg_scrub_file(s, fd, &it);
        }
        if (!rc && it.state == LG_ITEM_DAMAGED && s->o->remove && !s->env.read_only && fd >= 0)
            rc = lg_scrub_removed(s, dirfd, lower);
    } else if (S_ISLNK(st->st_mode)) {
        s->st.links++;
        rc = keyless ? lg_scrub_keyless_link(s, dirfd, lower) : lg_scrub_link(s, dirfd, lower, &it);
    } else {
        s->st.others++;
    }
    if (!rc && fstatat(dirfd, lower, st, AT_SYMLINK_NOFOLLOW) == 0) { /* as it is now: recovery may have changed it */
        describe(&it, st);
        if (!keyless)
            rc = keep_item(s, &it);
    }
    return rc;
}

static int dir(struct scrub *s, int fd, unsigned depth, const char *resume);

/* Belongs to Leadglass itself. */
static int hidden(struct scrub *s, int dirfd, const char *lower)
{
    struct stat st;
    const char *kind = "is not of this vault";
    enum lg_scrub_class cls = LG_SCRUB_LEFTOVER;
    if (strcmp(lower, LG_DIRID_NAME) == 0)
        return 0;
    size_t n = strlen(lower), suffix = strlen(LG_LONG_SUFFIX);
    if (strncmp(lower, LG_LONG_PREFIX, strlen(LG_LONG_PREFIX)) == 0 && n > suffix && strcmp(lower + n - suffix, LG_LONG_SUFFIX) == 0) {
        char of[LG_LOWER_NAME_MAX + 1];
        memcpy(of, lower, n - suffix);
        of[n - suffix] = 0;
        if (fstatat(dirfd, of, &st, AT_SYMLINK_NOFOLLOW) == 0)
            return 0;
        kind = "the long name of nothing";
    } else if (strncmp(lower, LG_TMP_PREFIX, strlen(LG_TMP_PREFIX)) == 0) {
        kind = "something half made or half removed";
    }
    if (s->st.live)
        return 0;
    lg_scrub_find(s, cls, kind, NULL, 0, 0);
    return s->o->repair && !s->env.read_only ? lg_scrub_removed(s, dirfd, lower) : 0;
}

/* id: of the directory, or NULL when it is not known. */
static int entry(struct scrub *s, int dirfd, const uint8_t *id, const char *lower, unsigned depth, const char *resume)
{
    char name[NAME_ROOM];
    struct stat st;
    size_t lower_len = s->lower.len, path_len = s->path.len;
    bool known = s->path_known;
    int rc = lg_text_push(&s->lower, lower);
    if (!rc && lg_name_is_hidden(lower)) {
        s->path_known = false;
        if (!resume)
            rc = hidden(s, dirfd, lower);
        goto out;
    }
    if (!rc && fstatat(dirfd, lower, &st, AT_SYMLINK_NOFOLLOW)) {
        if (errno != ENOENT)
            lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(errno), NULL, 0, 0);
        goto out;
    }
    int named = rc || !id ? -ENOENT : s->names ? lg_name_read(s->names, dirfd, id, lower, name) : lg_scrub_keyless_name_ok(dirfd, lower) ? -ENOENT : -EBADMSG;
    s->path_known = known && !named;
    if (!rc && !named)
        rc = lg_text_push(&s->path, name);
    if (!rc && named == -EBADMSG && !resume)
        lg_scrub_find(s, s->st.live ? LG_SCRUB_UNFINISHED : LG_SCRUB_DAMAGE, s->names ? "name does not verify" : "name is not a sealed one", NULL, 0, 0);
    if (!rc && S_ISDIR(st.st_mode)) {
        int fd = openat(dirfd, lower, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (fd < 0)
            lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(errno), NULL, 0, 0);
        else if (!depth)
            lg_scrub_find(s, LG_SCRUB_UNREADABLE, "directories are nested too deep", NULL, 0, 0);
        else
            rc = dir(s, fd, depth - 1, resume);
        if (fd >= 0)
            close(fd);
    } else if (!rc) {
        rc = leaf(s, dirfd, lower, &st);
    }
    /* Last: from here on it stands elsewhere, or no more. The contents of a directory without a good id are each moved for themselves. */
    if (!rc && s->names && !s->env.read_only && (named == -EBADMSG || (!id && s->o->repair))) {
        if (s->o->remove && !S_ISDIR(st.st_mode) && named == -EBADMSG)
            rc = lg_scrub_removed(s, dirfd, lower);
        else if (s->o->repair)
            rc = lg_scrub_to_lost(s, dirfd, lower);
    }
    if (!rc)
        rc = at_rest(s);
out:
    lg_text_cut(&s->lower, lower_len);
    lg_text_cut(&s->path, path_len);
    s->path_known = known;
    return rc;
}

static bool has_entries(int fd)
{
    struct lg_batch b = { 0 };
    bool any = false;
    char after[LG_LOWER_NAME_MAX + 1];
    const char *from = NULL;
    while (!any && !lg_batch_next(fd, from, &b) && b.n) {
        for (size_t i = 0; i < b.n; i++)
            any = any || !lg_name_is_hidden(b.text + b.at[i]);
        memcpy(after, b.text + b.at[b.n - 1], strlen(b.text + b.at[b.n - 1]) + 1);
        from = after;
    }
    lg_batch_free(&b);
    return any;
}

/* The directory itself. ret_id_ok: names in it can be opened. */
static int dir_self(struct scrub *s, int fd, bool report, uint8_t id[LG_ID_LEN], bool *ret_id_ok)
{
    struct lg_item it = { .type = LG_ITEM_DIR, .state = LG_ITEM_VERIFIED };
    struct stat st;
    int rc = s->names ? lg_dirid_read(s->names, fd, id) : lg_scrub_keyless_dirid_ok(fd) ? 0 : -EBADMSG;
    *ret_id_ok = !rc;
    if (!report)
        return 0;
    s->st.dirs++;
    if (rc && (rc == -EBADMSG || rc == -ENOENT) && ((s->names && rc == -EBADMSG) || has_entries(fd))) {
        lg_scrub_find(s, s->st.live ? LG_SCRUB_UNFINISHED : LG_SCRUB_DAMAGE, "directory id is missing or does not verify", NULL, 0, 0);
        it.state = LG_ITEM_DAMAGED;
    } else if (rc && rc != -EBADMSG && rc != -ENOENT) {
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), NULL, 0, 0);
        it.state = LG_ITEM_DAMAGED;
    }
    if (!s->names)
        return lg_scrub_keyless_xattrs(s, fd);
    if (!rc)
        memcpy(it.id, id, LG_ID_LEN);
    rc = lg_scrub_xattrs(s, fd, &it);
    if (!rc && !fstat(fd, &st)) {
        describe(&it, &st);
        rc = keep_item(s, &it);
    }
    return rc;
}

/* resume: the part of the position that lies in here, or NULL. fd is borrowed. */
static int dir(struct scrub *s, int fd, unsigned depth, const char *resume)
{
    struct lg_batch b = { 0 };
    uint8_t id[LG_ID_LEN];
    char after[LG_LOWER_NAME_MAX + 1], first[LG_LOWER_NAME_MAX + 1] = "";
    const char *from = NULL, *rest = NULL;
    bool id_ok;
    int rc = dir_self(s, fd, !resume, id, &id_ok);
    if (!rc && resume) {
        size_t n = strcspn(resume, "/");
        if (n > LG_LOWER_NAME_MAX)
            rc = -EINVAL;
        else {
            memcpy(first, resume, n);
            first[n] = 0;
            rest = resume[n] ? resume + n + 1 : NULL;
        }
    }
    while (!rc) {
        rc = lg_batch_next(fd, from, &b);
        if (rc) { /* what was read of it is checked */
            lg_scrub_find(s, LG_SCRUB_UNREADABLE, strerror(-rc), NULL, 0, 0);
            rc = 0;
            break;
        }
        for (size_t i = 0; !rc && i < b.n; i++) {
            const char *lower = b.text + b.at[i];
            int cmp = first[0] ? strcmp(lower, first) : 1;
            if (cmp < 0 || (cmp == 0 && !rest))
                continue; /* done before */
            rc = entry(s, fd, id_ok ? id : NULL, lower, depth, cmp == 0 ? rest : NULL);
        }
        if (!b.n)
            break;
        memcpy(after, b.text + b.at[b.n - 1], strlen(b.text + b.at[b.n - 1]) + 1);
        from = after;
    }
    lg_batch_free(&b);
    if (!rc && !id_ok && s->names && s->o->repair && !s->env.read_only && !has_entries(fd))
        lg_scrub_new_dirid(s, fd);
    return rc;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------------------------ */

static int add_pending(void *arg, const uint8_t id[LG_ID_LEN])
{
    struct scrub *s = arg;
    uint8_t(*p)[LG_ID_LEN] = reallocarray(s->pending, s->n_pending + 1, LG_ID_LEN);
    if (!p)
        return -ENOMEM;
    s->pending = p;
    memcpy(s->pending[s->n_pending++], id, LG_ID_LEN);
    return 0;
}

/* No damage: every name is whole as it stands. */
static int relink(struct scrub *s, int dirfd)
{
    int rc = lg_vault_relink(dirfd, s->vault_id);
    if (rc == -ENOMEM)
        return rc;
    if (!rc)
        lg_scrub_find(s, LG_SCRUB_LEFTOVER, s->st.live ? "the re-encryption of a file with several names is under way, or waits for the next mount"
                                                       : "the re-encryption of a file with several names was interrupted: the next mount completes it, until then they may stand for two files", NULL, 0, 0);
    else if (rc == -EPROTO)
        lg_scrub_find(s, LG_SCRUB_DAMAGE, "the note of an interrupted re-encryption (leadglass.relink) is damaged: names of one file may stand for two", NULL, 0, 0);
    else if (rc != -ENOENT)
        lg_scrub_find(s, LG_SCRUB_UNREADABLE, rc == -EPROTONOSUPPORT ? "the note of an interrupted re-encryption (leadglass.relink) is of a newer version" : "the note of an interrupted re-encryption (leadglass.relink) cannot be read", NULL, 0, 0);
    return 0;
}

static int keyless_begin(struct scrub *s, int dirfd)
{
    struct lg_vault_info info;
    s->started = time(NULL);
    int rc = lg_vault_read(s->o->dir, &info), fd;
    if (rc == -EPROTONOSUPPORT)
        return rc;
    if (rc) {
        lg_scrub_find(s, rc == -EPROTO || rc == -ENOENT ? LG_SCRUB_DAMAGE : LG_SCRUB_UNREADABLE, "the vault's header (" VAULT_NAME ") is missing, damaged or not readable", NULL, 0, 0);
    } else {
        s->chunk_size = info.chunk_size;
        memcpy(s->vault_id, info.vault_id, LG_ID_LEN);
    }
    fd = openat(dirfd, VAULT_NAME, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    s->st.live = fd >= 0 && flock(fd, LOCK_SH | LOCK_NB) && errno == EWOULDBLOCK;
    if (fd >= 0)
        close(fd);
    if (rc)
        return 0;
    rc = lg_journal_pending(s->sys, dirfd, s->vault_id, add_pending, s);
    if (rc == -ENOMEM)
        return rc;
    if (rc)
        lg_scrub_find(s, rc == -EPROTO || rc == -ENOENT ? LG_SCRUB_DAMAGE : LG_SCRUB_UNREADABLE, "the journal (" LG_JOURNAL_NAME ") is missing, damaged or not readable", NULL, 0, 0);
    else if (s->n_pending && !s->st.live)
        lg_scrub_find(s, LG_SCRUB_UNFINISHED, "the journal holds changes that the next mount puts in place", NULL, 0, 0);
    return relink(s, dirfd);
}

static int keys_begin(struct scrub *s, int dirfd)
{
    struct lg_kref *k;
    if ((s->o->manifest && !s->o->sign) || (s->o->against && !s->o->signer))
        return -EINVAL;
    s->env = *lg_volume_env(s->o->volume);
    s->env.finding = on_file;
    s->env.arg = s;
    s->env.path_rule = NULL; /* nothing is written anew */
    s->env.accept_crash = s->o->accept_crash;
    s->chunk_size = s->env.chunk_size;
    memcpy(s->vault_id, s->env.vault_id, LG_ID_LEN);
    int rc = relink(s, dirfd); /* opened to be written to, the volume has completed it */
    if (!rc)
        rc = lg_keys_vault(s->env.keys, &k);
    if (rc)
        return rc;
    rc = lg_names_new(k->key, &s->names);
    struct lg_manifest_info info = { .version = LG_MANIFEST_SIGNED, .created = (uint64_t)s->o->now, .session = s->env.session };
    memcpy(info.vault_id, s->vault_id, LG_ID_LEN);
    if (!rc && s->o->against)
        rc = lg_against_begin(s, s->o->against, k->key, s->resume, &s->against);
    if (!rc && s->o->manifest)
        rc = lg_manifest_create(s->o->manifest, &info, s->resume, &s->manifest);
    lg_kref_unref(k);
    return rc;
}

static int finish(struct scrub *s)
{
    struct lg_kref *k;
    int rc = s->against ? lg_against_end(s->against) : 0;
    if (rc || !s->manifest)
        return rc;
    rc = lg_keys_vault(s->env.keys, &k);
    if (rc)
        return rc;
    rc = lg_manifest_finish(s->manifest, k->key, s->o->sign, s->o->arg);
    lg_kref_unref(k);
    return rc;
}

int lg_scrub_run(const struct lg_scrub_options *o, struct lg_scrub_stat *ret)
{
    struct scrub s = { .o = o, .sys = o->sys ? o->sys : &lg_sys_posix, .resume = o->resume && *o->resume ? o->resume : NULL };
    int dirfd = open(o->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = dirfd < 0 ? -errno : 0, root = -1;
    if (!rc)
        rc = o->volume ? keys_begin(&s, dirfd) : keyless_begin(&s, dirfd);
    if (!rc) {
        root = openat(dirfd, ROOT_NAME, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
        if (root < 0)
            lg_scrub_find(&s, errno == ENOENT ? LG_SCRUB_DAMAGE : LG_SCRUB_UNREADABLE, "the directory " ROOT_NAME " is missing or not readable", NULL, 0, 0);
    }
    s.path_known = o->volume != NULL;
    if (!rc && s.resume)
        rc = lg_text_push(&s.position, s.resume);
    if (!rc && root >= 0)
        rc = dir(&s, root, DEPTH_MAX, s.resume);
    if (!rc)
        rc = finish(&s);
    if (root >= 0)
        close(root);
    if (dirfd >= 0)
        close(dirfd);
    lg_manifest_writer_free(s.manifest);
    lg_against_free(s.against);
    lg_names_free(s.names);
    free(s.pending);
    free(s.lower.p);
    free(s.path.p);
    free(s.position.p);
    *ret = s.st;
    return rc;
}
