/* Following all chains of a log directory, and remembering how far. */
#include "leadglass/clock.h"
#include "leadglass/follow.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "chase.h"
#include "leadglass/write.h"

enum { SCAN_MS = 1000, ROUND = 4096 }; /* records after which chains that were dry are asked again */

struct lg_follow {
    char dir[4096], position[4096];
    int lock; /* of the position */
    bool resumed;
    struct lg_chase *c[LG_FOLLOW_CHAINS_MAX];
    unsigned n;
    struct lg_follow_position lost[LG_FOLLOW_CHAINS_MAX]; /* of chains that are not there */
    unsigned n_lost, n_untold; /* the first ones of these have to be told */
    struct lg_audit_chain absent; /* as it is told */
    int64_t scanned_ms;
    unsigned round;
    uint8_t *file; /* the position, as it was read */
    const uint8_t *note;
    size_t note_len;
    struct lg_audit_record r;
};

/* ---- the position ------------------------------------------------------------------------------------------------------------------ */

static int lock_position(struct lg_follow *f)
{
    char path[4200];
    snprintf(path, sizeof path, "%s.lock", f->position);
    f->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    return f->lock < 0 || flock(f->lock, LOCK_EX | LOCK_NB) ? -errno : 0;
}

static int read_position(struct lg_follow *f)
{
    struct stat st;
    int fd = open(f->position, O_RDONLY | O_CLOEXEC | O_NOFOLLOW), rc = 0;
    size_t len = 0;
    if (fd < 0)
        return errno == ENOENT ? 0 : -errno;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode) || st.st_size > (off_t)LG_FOLLOW_FILE_MAX)
        rc = -EPROTO;
    else if (!(f->file = malloc((size_t)st.st_size + 1)))
        rc = -ENOMEM;
    while (!rc && len < (size_t)st.st_size) {
        ssize_t n = read(fd, f->file + len, (size_t)st.st_size - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            rc = n ? -errno : -EPROTO;
        else
            len += (size_t)n;
    }
    close(fd);
    if (!rc)
        rc = lg_follow_decode(f->file, len, f->lost, &f->n_lost, &f->note, &f->note_len);
    f->resumed = rc == 0;
    return rc;
}

static int write_whole(const char *path, const uint8_t *p, size_t len)
{
    char tmp[4200], dir[4200];
    snprintf(tmp, sizeof tmp, "%s.tmp", path);
    snprintf(dir, sizeof dir, "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600), rc = fd < 0 ? -errno : 0;
    if (!rc)
        rc = lg_write_all(fd, p, len);
    if (!rc && fsync(fd))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    if (!rc && rename(tmp, path))
        rc = -errno;
    fd = rc ? -1 : open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (!rc && (fd < 0 || fsync(fd)))
        rc = -errno;
    if (fd >= 0)
        close(fd);
    return rc;
}

int lg_follow_save(struct lg_follow *f, const void *note, size_t note_len)
{
    struct lg_follow_position all[LG_FOLLOW_CHAINS_MAX];
    unsigned n = 0;
    size_t cap = note_len + 128u * (LG_FOLLOW_CHAINS_MAX + 1), len = 0;
    int rc = 0;
    if (!f->position[0])
        return 0;
    if (note_len > LG_FOLLOW_NOTE_MAX)
        return -E2BIG;
    for (unsigned i = 0; !rc && i < f->n; i++) {
        rc = lg_chase_sync(f->c[i]);
        all[n++] = f->c[i]->p;
    }
    for (unsigned i = 0; i < f->n_lost && n < LG_FOLLOW_CHAINS_MAX; i++)
        all[n++] = f->lost[i];
    uint8_t *out = rc ? NULL : malloc(cap);
    if (!rc && !out)
        rc = -ENOMEM;
    if (!rc)
        rc = lg_follow_encode(all, n, note, note_len, out, cap, &len);
    if (!rc)
        rc = write_whole(f->position, out, len);
    free(out);
    return rc;
}

const void *lg_follow_note(const struct lg_follow *f, size_t *ret_len)
{
    *ret_len = f->note_len;
    return f->note;
}

bool lg_follow_resumed(const struct lg_follow *f) { return f->resumed; }

/* ---- chains ------------------------------------------------------------------------------------------------------------------------ */

static struct lg_chase *known(struct lg_follow *f, const uint8_t id[LG_ID_LEN])
{
    for (unsigned i = 0; i < f->n; i++)
        if (memcmp(f->c[i]->chain.id, id, LG_ID_LEN) == 0)
            return f->c[i];
    return NULL;
}

/* One that has not been seen since we began: from where we left it, or else from its beginning if it came while we followed. */
static int add(struct lg_follow *f, const struct lg_follow_options *o, const struct lg_audit_chain *chain)
{
    if (f->n == LG_FOLLOW_CHAINS_MAX)
        return -E2BIG;
    struct lg_chase *c = malloc(sizeof *c);
    if (!c)
        return -ENOMEM;
    lg_chase_init(c, chain);
    int rc = 0;
    unsigned i = 0;
    while (i < f->n_lost && memcmp(f->lost[i].chain, chain->id, LG_ID_LEN) != 0)
        i++;
    if (i < f->n_lost) {
        c->p = f->lost[i];
        memmove(&f->lost[i], &f->lost[i + 1], (--f->n_lost - i) * sizeof f->lost[0]);
        f->n_untold -= i < f->n_untold;
    } else if (o && !f->resumed && !o->all) {
        rc = lg_chase_end(c, f->dir, o->last);
    }
    if (rc) {
        lg_chase_done(c);
        free(c);
        return rc;
    }
    f->c[f->n++] = c;
    return 0;
}

/* Chains appear when a vault is mounted for the first time, or when one cannot be continued; directories may be renamed. */
static int scan(struct lg_follow *f, const struct lg_follow_options *o)
{
    struct lg_audit_chain *all = calloc(LG_FOLLOW_CHAINS_MAX, sizeof *all);
    unsigned n = 0;
    int rc = all ? lg_audit_chains(f->dir, all, LG_FOLLOW_CHAINS_MAX, &n) : -ENOMEM;
    if (!rc && n > LG_FOLLOW_CHAINS_MAX)
        rc = -E2BIG;
    for (unsigned i = 0; !rc && i < n; i++) {
        struct lg_chase *c = known(f, all[i].id);
        if (c)
            memcpy(c->chain.name, all[i].name, sizeof all[i].name);
        else
            rc = add(f, o, &all[i]);
    }
    free(all);
    f->scanned_ms = lg_clock_ms();
    return rc;
}

int lg_follow_open(const struct lg_follow_options *o, struct lg_follow **ret)
{
    struct lg_follow *f = calloc(1, sizeof *f);
    if (!f)
        return -ENOMEM;
    f->lock = -1;
    int rc = snprintf(f->dir, sizeof f->dir, "%s", o->dir) >= (int)sizeof f->dir ? -ENAMETOOLONG : 0;
    if (!rc && o->position) {
        rc = snprintf(f->position, sizeof f->position, "%s", o->position) >= (int)sizeof f->position ? -ENAMETOOLONG : 0;
        if (!rc)
            rc = lock_position(f);
        if (!rc)
            rc = read_position(f);
    }
    if (!rc)
        rc = scan(f, o);
    if (rc) {
        lg_follow_close(f);
        return rc;
    }
    for (unsigned i = 0, n = f->n_lost; i < n; i++) /* those to be told first */
        if (f->lost[i].seq && !f->lost[i].gone) {
            struct lg_follow_position x = f->lost[i];
            f->lost[i] = f->lost[f->n_untold];
            f->lost[f->n_untold++] = x;
        }
    *ret = f;
    return 0;
}

void lg_follow_close(struct lg_follow *f)
{
    if (!f)
        return;
    for (unsigned i = 0; i < f->n; i++) {
        lg_chase_done(f->c[i]);
        free(f->c[i]);
    }
    if (f->lock >= 0)
        close(f->lock);
    free(f->file);
    free(f);
}

/* ---- what comes next ------------------------------------------------------------------------------------------------------------------ */

/* A chain that was there when the position was saved, and is not now. */
static int tell_absent(struct lg_follow *f, struct lg_followed *ret)
{
    struct lg_follow_position *p = &f->lost[--f->n_untold];
    p->gone = true;
    f->absent = (struct lg_audit_chain){ .name = "(absent)" };
    memcpy(f->absent.id, p->chain, LG_ID_LEN);
    *ret = (struct lg_followed){ .chain = &f->absent, .finding = { LG_AUDIT_TRUNCATED, 1, p->seq, p->segment } };
    return 1;
}

static int64_t time_of(const struct lg_chase *c) { return c->next == LG_CHASE_LINE && c->sound ? c->e.time_us : INT64_MIN; }

/* The chain whose next record is the oldest. */
static int oldest(struct lg_follow *f, struct lg_chase **ret)
{
    struct lg_chase *best = NULL;
    bool again = ++f->round % ROUND == 0;
    for (unsigned i = 0; i < f->n; i++) {
        struct lg_chase *c = f->c[i];
        if (c->dry && !again)
            continue;
        int rc = lg_chase_peek(c, f->dir);
        if (rc < 0)
            return rc;
        if (rc && (!best || time_of(c) < time_of(best)))
            best = c;
    }
    *ret = best;
    return 0;
}

int lg_follow_next(struct lg_follow *f, struct lg_followed *ret)
{
    struct lg_chase *c;
    int rc;
    if (f->n_untold)
        return tell_absent(f, ret);
    for (;;) {
        if (lg_clock_ms() - f->scanned_ms >= SCAN_MS && (rc = scan(f, NULL)))
            return rc;
        if ((rc = oldest(f, &c)))
            return rc;
        if (!c)
            break;
        rc = lg_chase_take(c, ret);
        if (rc < 0)
            return rc;
        if (!rc)
            continue;
        if (ret->line && lg_audit_record_parse(ret->line, ret->len, &f->r)) {
            ret->finding = (struct lg_audit_problem){ LG_AUDIT_ALTERED, c->p.seq, c->p.seq, c->p.segment };
            ret->line = NULL;
        }
        ret->record = ret->line ? &f->r : NULL;
        return 1;
    }
    for (unsigned i = 0; i < f->n; i++) /* next time all are asked again */
        f->c[i]->dry = false;
    return 0;
}
