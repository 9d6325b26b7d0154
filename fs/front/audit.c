#include "audit.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "leadglass/bytes.h"

enum { COSIGN_MS = 5000, TASKS = 256, TASK_MS = 1000 };

struct lg_front_audit {
    struct lg_audit_log *log;
    struct lg_client *client;
    uint8_t vault[LG_ID_LEN];
    uint64_t session;
    char dir[4096];
    bool names;
    pthread_t cosigner;
    pthread_mutex_t mu; /* what follows; and one head at a time */
    pthread_cond_t stop_cond;
    bool stop, refused;
    unsigned unsure; /* how often the key manager is asked first what it signed last */
    struct lg_audit_head asked;
    pthread_mutex_t tasks_mu;
    struct task { /* the kernel names the thread that asks; the log names its process */
        int32_t tid, pid;
        int64_t until_ms;
    } tasks[TASKS];
    void (*alarm)(void *arg, int level, const char *text);
    void *arg;
};

static int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC_COARSE, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- heads -------------------------------------------------------------------------------------------------------------------------- */

/* No answer came: whether what was asked is signed is not known, and the key manager refuses, with an alarm, what does not follow from its last. So that is asked for first.
 * One that was slow may still have our request before it: so twice. 0: another may be asked for, following tip. */
static int catch_up(struct lg_front_audit *a, struct lg_audit_head *tip)
{
    struct lg_audit_head last = { .n = 0 };
    char text[LG_HEAD_TEXT_MAX + 1];
    if (!a->unsure)
        return 0;
    int rc = lg_client_audit_state(a->client, tip->chain, text);
    if (!rc && text[0])
        rc = lg_audit_head_parse(text, strlen(text), &last);
    if (rc)
        return rc;
    if (last.n != tip->n + 1 || last.seq != a->asked.seq || memcmp(last.hash, a->asked.hash, LG_MAC_LEN) != 0)
        return --a->unsure ? -EAGAIN : 0;
    rc = lg_audit_head_store(a->log, &last);
    a->unsure = rc ? 2 : 0;
    return rc ? rc : lg_audit_tip(a->log, tip) ? 0 : -EALREADY;
}

static void cosign(struct lg_front_audit *a)
{
    struct lg_audit_head tip, head;
    char want[LG_HEAD_TEXT_MAX + 1], got[LG_HEAD_TEXT_MAX + 1];
    size_t len;
    pthread_mutex_lock(&a->mu);
    if (lg_audit_tip(a->log, &tip) && !catch_up(a, &tip)) {
        a->asked = tip;
        tip.n++;
        int rc = lg_audit_head_encode(&tip, want, sizeof want - 1, &len);
        want[rc ? 0 : len] = 0;
        if (!rc)
            rc = lg_client_audit_head(a->client, want, got);
        if (!rc)
            rc = lg_audit_head_parse(got, strlen(got), &head);
        if (!rc)
            rc = lg_audit_head_store(a->log, &head);
        a->unsure = rc && rc != -EBADMSG && rc != -ENOKEY ? 2 : 0;
        /* Locked, or away: later. Refused: that does not mend itself. */
        if (rc == -EBADMSG && !a->refused && a->alarm)
            a->alarm(a->arg, LOG_ALERT, "the key manager refuses to sign the access log: it does not follow from what was signed last");
        a->refused = rc == -EBADMSG;
    }
    pthread_mutex_unlock(&a->mu);
}

static void *cosigning(void *arg)
{
    struct lg_front_audit *a = arg;
    pthread_mutex_lock(&a->mu);
    while (!a->stop) {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        t.tv_sec += COSIGN_MS / 1000;
        pthread_cond_timedwait(&a->stop_cond, &a->mu, &t);
        if (a->stop)
            break;
        pthread_mutex_unlock(&a->mu);
        cosign(a);
        pthread_mutex_lock(&a->mu);
    }
    pthread_mutex_unlock(&a->mu);
    return NULL;
}

/* ---- life ---------------------------------------------------------------------------------------------------------------------------- */

static void put_mount(struct lg_front_audit *a, const char *event, int outcome, const char *text)
{
    LG_UNCLEARED struct lg_audit_record r;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "%s", event);
    r.outcome = outcome;
    r.has = LG_AUDIT_VAULT | LG_AUDIT_SESSION;
    memcpy(r.vault, a->vault, LG_ID_LEN);
    r.session = a->session;
    snprintf(r.text, sizeof r.text, "%s", text);
    lg_audit_put(a->log, &r);
}

void lg_front_audit_event(struct lg_front_audit *a, const char *event)
{
    if (!a)
        return;
    put_mount(a, event, 0, "the mount was told, and drops it");
    if (lg_audit_flush(a->log, false) == 0)
        cosign(a);
}

static int open_log(struct lg_front_audit *a, const struct lg_front_audit_options *o, const char *mountpoint, struct lg_audit_info *info, char *error, size_t cap)
{
    char name[32], id[17], head[LG_HEAD_TEXT_MAX + 1] = "", real[4096];
    struct lg_audit_chain chain;
    struct lg_audit_head last = { .n = 0 };
    int rc = lg_client_audit_info(a->client, info);
    const char *dir = o->dir ? o->dir : info->dir;
    if (!rc && !dir[0]) {
        snprintf(error, cap, "the key manager keeps no access log; say where this mount's is to be kept (-o audit=DIR), or -o audit=off");
        return -ENOENT;
    }
    if (!rc && mkdir(dir, 0700) && errno != EEXIST)
        rc = -errno;
    if (!rc && !realpath(dir, real))
        rc = -errno;
    size_t n = strlen(mountpoint);
    if (!rc && strncmp(real, mountpoint, n) == 0 && (real[n] == '/' || !real[n])) {
        snprintf(error, cap, "the access log %s lies beneath the mountpoint; keep it elsewhere (-o audit=DIR)", real);
        return -EINVAL;
    }
    lg_hex_encode(a->vault, 8, id);
    snprintf(name, sizeof name, "mount-%s", id);
    struct lg_audit_options lo = { .dir = real, .name = name, .kind = "mount", .keep_going = o->keep_going, .window_s = o->names ? 0 : o->window_s, .sync_ms = o->sync_ms, .keep_days = o->keep_days,
                                   .segment_bytes = o->segment_bytes, .alarm = a->alarm, .arg = a->arg };
    if (!rc && lg_audit_find(real, name, &chain) == 0)
        rc = lg_client_audit_state(a->client, chain.id, head);
    if (!rc && head[0])
        rc = lg_audit_head_parse(head, strlen(head), &last);
    if (!rc)
        rc = lg_audit_open(&lo, &last, &a->log);
    snprintf(a->dir, sizeof a->dir, "%s", real);
    if (rc)
        snprintf(error, cap, "access log %s: %s. Give it another place with -o audit=DIR, or none with -o audit=off", dir,
                 rc == -EWOULDBLOCK ? "another process writes this vault's" : strerror(-rc));
    return rc;
}

int lg_front_audit_open(const struct lg_front_audit_options *o, const char *socket, const struct lg_vault_info *vault, uint64_t session, const char *mountpoint,
                        void (*alarm)(void *arg, int level, const char *text), void *arg, struct lg_front_audit **ret, char *error, size_t cap)
{
    char text[256];
    pthread_condattr_t mono;
    if (o->off)
        return 0;
    struct lg_front_audit *a = calloc(1, sizeof *a);
    struct lg_audit_info *info = calloc(1, sizeof *info);
    if (!a || !info) {
        free(a);
        free(info);
        snprintf(error, cap, "out of memory");
        return -ENOMEM;
    }
    a->alarm = alarm;
    a->arg = arg;
    a->names = o->names;
    a->session = session;
    memcpy(a->vault, vault->vault_id, LG_ID_LEN);
    pthread_mutex_init(&a->mu, NULL);
    pthread_mutex_init(&a->tasks_mu, NULL);
    pthread_condattr_init(&mono);
    pthread_condattr_setclock(&mono, CLOCK_MONOTONIC);
    pthread_cond_init(&a->stop_cond, &mono);
    pthread_condattr_destroy(&mono);
    int rc = lg_client_new(socket, &a->client);
    if (rc)
        snprintf(error, cap, "%s", strerror(-rc));
    else
        rc = open_log(a, o, mountpoint, info, error, cap);
    if (!rc) {
        snprintf(text, sizeof text, "audit.names=%s audit.window=%u audit.keep=%u audit.on-failure=%s", o->names ? "on" : "off", o->window_s, o->keep_days, o->keep_going ? "continue" : "refuse");
        put_mount(a, "mount", 0, text);
        if (o->keep_going || o->names)
            put_mount(a, "config", 0, text);
        rc = lg_audit_flush(a->log, false);
        if (!rc)
            rc = -pthread_create(&a->cosigner, NULL, cosigning, a);
        if (rc)
            snprintf(error, cap, "access log: %s", strerror(-rc));
    }
    if (rc) {
        lg_audit_close(a->log);
        lg_client_free(a->client);
        free(info);
        free(a);
        return rc;
    }
    cosign(a);
    if (lg_client_audit_info(a->client, info) == 0) /* by now there is a key, whoever was first to have a head signed */
        lg_audit_write_pub(a->dir, info->pub);
    free(info);
    *ret = a;
    return 0;
}

void lg_front_audit_close(struct lg_front_audit *a, bool clean)
{
    if (!a)
        return;
    pthread_mutex_lock(&a->mu);
    a->stop = true;
    pthread_cond_signal(&a->stop_cond);
    pthread_mutex_unlock(&a->mu);
    pthread_join(a->cosigner, NULL);
    put_mount(a, "unmount", clean ? 0 : -EIO, "");
    if (lg_audit_flush(a->log, true) == 0)
        cosign(a);
    lg_audit_close(a->log);
    lg_client_free(a->client);
    free(a);
}

/* ---- who -------------------------------------------------------------------------------------------------------------------------------- */

static int32_t read_tgid(int32_t tid)
{
    char path[48], buf[512];
    snprintf(path, sizeof path, "/proc/%d/status", tid);
    int fd = tid > 0 ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    ssize_t n = fd < 0 ? -1 : read(fd, buf, sizeof buf - 1);
    if (fd >= 0)
        close(fd);
    buf[n > 0 ? n : 0] = 0;
    const char *at = strstr(buf, "\nTgid:\t");
    long v = at ? strtol(at + 7, NULL, 10) : 0;
    return v > 0 && v <= INT32_MAX ? (int32_t)v : tid;
}

/* The process of a thread: asked for once a second at most, as it costs more than an open does. */
static int32_t process_of(struct lg_front_audit *a, int32_t tid)
{
    struct task *t = &a->tasks[(uint32_t)tid % TASKS];
    int64_t now = now_ms();
    pthread_mutex_lock(&a->tasks_mu);
    int32_t pid = t->tid == tid && t->until_ms > now ? t->pid : 0;
    pthread_mutex_unlock(&a->tasks_mu);
    if (pid)
        return pid;
    pid = read_tgid(tid);
    pthread_mutex_lock(&a->tasks_mu);
    *t = (struct task){ tid, pid, now + TASK_MS };
    pthread_mutex_unlock(&a->tasks_mu);
    return pid;
}

static void start(struct lg_audit_record *r, const char *event, const char *how, int rc, uint32_t uid, uint32_t gid, int32_t pid)
{
    lg_audit_record_init(r);
    memcpy(r->event, event, strlen(event) + 1);
    memcpy(r->how, how, strlen(how) + 1);
    r->outcome = rc;
    r->has = LG_AUDIT_WHO;
    r->uid = uid;
    r->gid = gid;
    r->pid = pid;
}

int64_t lg_front_now(const struct lg_front *f)
{
    struct timespec t;
    if (!f->audit)
        return 0;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static void took(const struct lg_front *f, struct lg_audit_record *r, int64_t began_us)
{
    r->has |= LG_AUDIT_US;
    r->us = (uint64_t)(lg_front_now(f) - began_us);
}

/* ---- what -------------------------------------------------------------------------------------------------------------------------------- */

struct detail {
    struct lg_front *f;
    struct lg_handle *h;
    fuse_ino_t node, to_node;
    const char *name, *to;
};

static void name_of(struct lg_front *f, fuse_ino_t node, const char *name, char *out, size_t cap)
{
    char *path = lg_volume_path(f->volume, node);
    const char *dir = path ? path : "?";
    int n = name ? snprintf(out, cap, "%s%s%s", dir, dir[0] ? "/" : "", name) : snprintf(out, cap, "%s", dir);
    if (n < 0 || (size_t)n >= cap)
        out[cap - 1] = 0;
    free(path);
}

/* What costs time, only for records written by themselves. */
static void fill(void *arg, struct lg_audit_record *r)
{
    const struct detail *d = arg;
    lg_audit_exe(r->pid, r->exe);
    if (d->h && r->has & LG_AUDIT_STUDY && lg_volume_audit_file(d->h, r->file) == 0)
        r->has |= LG_AUDIT_FILE;
    if (!d->f->audit->names)
        return;
    if (d->node)
        name_of(d->f, d->node, d->name, r->path, sizeof r->path);
    if (d->to_node)
        name_of(d->f, d->to_node, d->to, r->target, sizeof r->target);
}

static void key_of(struct lg_handle *h, struct lg_audit_record *r)
{
    if (h && lg_volume_audit_key(h, r->study, &r->key))
        r->has |= LG_AUDIT_STUDY;
}

int lg_front_ready(struct lg_front *f) { return f->audit ? lg_audit_ready(f->audit->log) : 0; }

void lg_front_opened(struct lg_front *f, fuse_req_t req, fuse_ino_t ino, struct lg_opened *o, const char *how, int rc)
{
    const struct fuse_ctx *c = fuse_req_ctx(req);
    LG_UNCLEARED struct lg_audit_record r;
    if (!f->audit)
        return;
    o->uid = c->uid;
    o->gid = c->gid;
    o->pid = process_of(f->audit, c->pid);
    o->how = how;
    start(&r, "file.open", how, rc, o->uid, o->gid, o->pid);
    took(f, &r, o->began_us);
    if (o->h)
        key_of(o->h, &r);
    else if (ino && lg_volume_audit_node(f->volume, ino, r.study, &r.key))
        r.has |= LG_AUDIT_STUDY;
    struct detail d = { .f = f, .h = o->h, .node = ino };
    lg_audit_count(f->audit->log, &r, fill, &d);
}

void lg_front_closed(struct lg_front *f, struct lg_opened *o)
{
    LG_UNCLEARED struct lg_audit_record r;
    if (!f->audit)
        return;
    start(&r, "file.close", o->how, 0, o->uid, o->gid, o->pid);
    took(f, &r, o->began_us);
    r.has |= LG_AUDIT_MOVED;
    r.read = atomic_load(&o->read);
    r.written = atomic_load(&o->written);
    key_of(o->h, &r);
    struct detail d = { .f = f, .h = o->h };
    lg_audit_count(f->audit->log, &r, fill, &d);
}

struct lg_subject lg_front_subject(struct lg_front *f, fuse_ino_t node)
{
    struct lg_subject s = { .known = false };
    if (f->audit)
        s.known = lg_volume_audit_node(f->volume, node, s.study, &s.key);
    return s;
}

void lg_front_changed(struct lg_front *f, fuse_req_t req, const char *event, const struct lg_subject *of, fuse_ino_t parent, const char *name, fuse_ino_t to_parent, const char *to, int rc,
                      int64_t began_us)
{
    const struct fuse_ctx *c = fuse_req_ctx(req);
    LG_UNCLEARED struct lg_audit_record r;
    if (!f->audit)
        return;
    start(&r, event, "", rc, c->uid, c->gid, process_of(f->audit, c->pid));
    took(f, &r, began_us);
    if (of && of->known) {
        r.has |= LG_AUDIT_STUDY;
        memcpy(r.study, of->study, LG_ID_LEN);
        r.key = of->key;
    }
    struct detail d = { .f = f, .node = parent, .name = name, .to_node = to_parent, .to = to };
    lg_audit_count(f->audit->log, &r, fill, &d);
}

/* On whatever thread found it, perhaps holding locks of the volume: nothing is asked of it, and of the key manager only what a lease does not answer. The
 * file's id itself stays out of the log, as it would still name the file when its key is gone; the alarm has it. Whoever reads a damaged chunk again and again finds it
 * again and again: that is counted. */
void lg_front_finding(struct lg_front *f, const struct lg_finding *found, uint64_t same)
{
    LG_UNCLEARED struct lg_audit_record r;
    struct lg_kref *k;
    if (!f->audit)
        return;
    lg_audit_record_init(&r);
    snprintf(r.event, sizeof r.event, "file.tampered");
    r.outcome = -EIO;
    if (found->to) {
        r.has |= LG_AUDIT_RANGE;
        r.from = found->from;
        r.to = found->to - 1;
    }
    if (found->ino) {
        snprintf(r.text, sizeof r.text, "inode %llu below: %s", (unsigned long long)found->ino, found->kind);
    } else {
        snprintf(r.text, sizeof r.text, "%s", found->kind);
        if (found->key_version) {
            r.has |= LG_AUDIT_STUDY;
            memcpy(r.study, found->kid, LG_ID_LEN);
            r.key = found->key_version;
        }
        if (found->key_version && lg_keys_by_id(f->keys, found->kid, found->key_version, &k) == 0) {
            r.has |= lg_audit_file_id(k->key, found->file_id, r.file) == 0 ? LG_AUDIT_FILE : 0;
            lg_kref_unref(k);
        }
    }
    lg_audit_count_found(f->audit->log, &r, same);
}
