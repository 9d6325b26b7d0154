#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"

enum { ID_LISTEN = LG_CLIENTS_MAX, ID_WAKE, ID_SIGNAL, ID_SUPER };

int64_t lg_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

int64_t lg_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* ---- the supervisor -------------------------------------------------------------------------------------------------------------------------- */

int lg_super_send(int fd, const struct lg_super *m)
{
    ssize_t n;
    while ((n = send(fd, m, sizeof *m, MSG_NOSIGNAL)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof *m ? 0 : n < 0 ? -errno : -EIO;
}

int lg_super_recv(int fd, struct lg_super *m)
{
    ssize_t n;
    while ((n = recv(fd, m, sizeof *m, 0)) < 0 && errno == EINTR)
        ;
    return n == (ssize_t)sizeof *m ? 0 : n < 0 ? -errno : -ECONNRESET;
}

static int to_supervisor(struct lg_worker *w, uint32_t kind, const struct lg_root *root)
{
    LG_SECRET_BUF_AUTO struct lg_super *m = lg_secret_alloc(sizeof *m);
    if (!m)
        return -ENOMEM;
    m->kind = kind;
    if (root) {
        m->epoch = root->epoch;
        memcpy(m->root, root->key->b, LG_KEY_LEN);
    }
    int rc = lg_super_send(w->o.super_fd, m);
    if (!rc && kind != LG_SUPER_READY)
        rc = lg_super_recv(w->o.super_fd, m);
    return rc ? rc : kind != LG_SUPER_READY && m->kind != LG_SUPER_DONE ? -EPROTO : 0;
}

int lg_root_to_supervisor(struct lg_worker *w)
{
    struct lg_root root;
    int rc = lg_keyring_root(w->keyring, &root);
    if (rc)
        return rc;
    rc = to_supervisor(w, LG_SUPER_ROOT, &root);
    lg_secret_free(root.key);
    return rc;
}

int lg_root_forget(struct lg_worker *w) { return to_supervisor(w, LG_SUPER_FORGET, NULL); }

/* ---- connections -------------------------------------------------------------------------------------------------------------------------------- */

static void conn_close(struct lg_worker *w, struct lg_conn *c)
{
    if (c->fd < 0)
        return;
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++)
        if (w->mounts[i].watch == c) {
            w->mounts[i].watch = NULL;
            w->mounts[i].away = (uint64_t)time(NULL);
            if (w->mounts[i].waits_for) { /* will not acknowledge any more */
                w->mounts[i].waits_for = 0;
                w->mounts[i].failed = true;
            }
        }
    lg_backup_drop(w, c);
    close(c->fd);
    c->fd = -1;
    lg_secret_dealloc(c->in);
    lg_secret_dealloc(c->out);
    c->in = c->out = NULL;
}

static void want_out(struct lg_worker *w, struct lg_conn *c, bool on)
{
    struct epoll_event e = { .events = EPOLLIN | (on ? EPOLLOUT : 0), .data.u32 = (uint32_t)(c - w->conns) };
    epoll_ctl(w->epoll, EPOLL_CTL_MOD, c->fd, &e);
}

static void conn_flush(struct lg_worker *w, struct lg_conn *c)
{
    while (c->out_len) {
        ssize_t n = send(c->fd, c->out + c->out_at, c->out_len, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            want_out(w, c, true);
            return;
        }
        if (n < 0) {
            c->closing = true;
            return;
        }
        c->out_at += (size_t)n;
        c->out_len -= (size_t)n;
        c->out_since = lg_ms();
    }
    lg_secret_dealloc(c->out);
    c->out = NULL;
    c->out_at = c->out_cap = 0;
    want_out(w, c, false);
}

void lg_conn_send(struct lg_worker *w, struct lg_conn *c, const uint8_t *frame, size_t len)
{
    if (c->out_at + c->out_len + len > c->out_cap) {
        size_t cap = c->out_len + len;
        uint8_t *out = cap <= 4 * LG_WIRE_FRAME_MAX ? lg_secret_alloc(cap) : NULL;
        if (!out) { /* does not read what it asks for */
            c->closing = true;
            return;
        }
        if (c->out_len)
            memcpy(out, c->out + c->out_at, c->out_len);
        lg_secret_dealloc(c->out);
        c->out = out;
        c->out_at = 0;
        c->out_cap = cap;
    }
    if (!c->out_len)
        c->out_since = lg_ms();
    memcpy(c->out + c->out_at + c->out_len, frame, len);
    c->out_len += len;
    conn_flush(w, c);
}

void lg_reply(struct lg_worker *w, struct lg_conn *c, const struct lg_answer *a)
{
    size_t len;
    if (!w->asked_op)
        lg_keyd_audit_answer(w, c, a);
    size_t cap = a->status ? 64 : LG_WIRE_FRAME_MAX;
    LG_SECRET_BUF_AUTO uint8_t *frame = lg_secret_alloc(cap);
    if (!frame || w->n_held == sizeof w->held / sizeof *w->held || lg_answer_encode(a, frame, cap, &len)) {
        c->closing = true;
        return;
    }
    struct held *h = &w->held[w->n_held];
    *h = (struct held){ .conn = c, .serial = c->serial, .id = a->id, .type = a->type, .frame = lg_secret_alloc(len), .len = len };
    if (!h->frame) {
        c->closing = true;
        return;
    }
    memcpy(h->frame, frame, len);
    w->n_held++;
}

void lg_reply_status(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q, int status)
{
    struct lg_answer a = { .type = q->type, .id = q->id, .status = status };
    lg_reply(w, c, &a);
}

static void conn_accept(struct lg_worker *w)
{
    for (;;) {
        int fd = accept4(w->o.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0)
            return;
        struct ucred u;
        socklen_t len = sizeof u;
        struct lg_conn *c = NULL;
        unsigned same = 0;
        bool ok = getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &u, &len) == 0;
        for (unsigned i = 0; i < LG_CLIENTS_MAX; i++) {
            if (w->conns[i].fd < 0)
                c = c ? c : &w->conns[i];
            else
                same += ok && w->conns[i].uid == u.uid;
        }
        /* Nobody but an administrator may take more than a share. */
        bool admin = ok && (u.uid == 0 || u.uid == geteuid());
        uint8_t *in = ok && c && (admin || same < LG_CLIENTS_MAX / 16) ? lg_secret_alloc(LG_WIRE_REQUEST_MAX) : NULL;
        struct epoll_event e = { .events = EPOLLIN, .data.u32 = c ? (uint32_t)(c - w->conns) : 0 };
        if (!in || epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e)) {
            lg_secret_dealloc(in);
            close(fd);
            continue;
        }
        *c = (struct lg_conn){ .fd = fd, .serial = ++w->next_serial, .uid = u.uid, .gid = u.gid, .pid = u.pid, .in = in };
    }
}

static void conn_frames(struct lg_worker *w, struct lg_conn *c)
{
    size_t at = 0;
    while (!c->closing && c->in_len - at >= LG_WIRE_HEADER) {
        struct lg_header h;
        struct lg_request q;
        if (lg_wire_header(c->in + at, c->in_len - at, &h) || h.len > LG_WIRE_REQUEST_MAX) {
            c->closing = true;
            break;
        }
        if (c->in_len - at < h.len)
            break;
        int rc = lg_request_decode(c->in + at, h.len, &q);
        if (rc == -EPROTONOSUPPORT) {
            struct lg_answer a = { .type = h.type, .id = h.id, .status = rc };
            lg_reply(w, c, &a);
        } else if (rc) {
            c->closing = true;
        } else {
            lg_request_handle(w, c, &q);
        }
        lg_wipe(c->in + at, h.len);
        at += h.len;
    }
    memmove(c->in, c->in + at, c->in_len - at);
    c->in_len -= at;
    c->in_since = lg_ms();
}

static void conn_read(struct lg_worker *w, struct lg_conn *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_len, LG_WIRE_REQUEST_MAX - c->in_len, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        conn_close(w, c);
        return;
    }
    if (!c->in_len)
        c->in_since = lg_ms();
    c->in_len += (size_t)n;
    conn_frames(w, c);
}

/* ---- turns ------------------------------------------------------------------------------------------------------------------------------------------ */

void lg_copies_report(struct lg_worker *w)
{
    struct lg_keyring_stat st;
    if (lg_keyring_stat(w->keyring, &st) || st.stale == w->stale)
        return;
    w->stale = st.stale;
    lg_keyd_audit(w, st.stale ? "mirror.degraded" : "mirror.in-step", geteuid(), getpid(), st.stale ? -EIO : 0, NULL,
                  st.stale == LG_STALE_MIRROR ? "the mirror" : st.stale ? "the first copy" : "");
    if (!st.stale) {
        lg_log(LOG_NOTICE, "both copies of the keyring are in step again");
        return;
    }
    lg_log(LOG_ALERT, "DEGRADED: the %s has failed or fallen behind; keys are in one copy only, and nothing can be destroyed. Put the disk right, then send leadglass-keyd SIGHUP",
           st.stale == LG_STALE_MIRROR ? "mirror" : "keyring's first copy");
}

/* At the start. The first copy may be the one that is gone: then the words are of that. */
static void mirror_refused(const struct lg_worker *w, int why)
{
    struct lg_keyring_stat st;
    char dir[PATH_MAX];
    struct stat s;
    const char *copy = lg_keyring_stat(w->keyring, &st) == 0 && st.stale == LG_STALE_KEYRING ? w->o.keyring : w->o.mirror;
    snprintf(dir, sizeof dir, "%s", copy);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = 0;
    bool orphan = why == -ENOENT && stat(dir, &s) && errno == ENOENT;
    lg_log(LOG_ALERT, "the two copies of the keyring cannot be brought in step: %s: %s%s%s", copy, orphan ? "it cannot be made, as there is no directory " : strerror(-why), orphan ? dir : "",
           orphan ? ". Is its disk mounted, is the path right? Only the last part of it is made" : "");
}

static void unkept_report(struct lg_worker *w)
{
    int rc = lg_keyring_unkept(w->keyring);
    if (rc == w->unkept)
        return;
    w->unkept = rc;
    if (rc)
        lg_log(LOG_ERR, "%s.tombstones could not be brought up to date (%s): a restore of an older backup would not know from it what was destroyed", w->o.slot, strerror(-rc));
}

/* Everything of a turn becomes durable together; only then is any of it answered. */
static void turn_end(struct lg_worker *w)
{
    int rc = lg_keyring_in_txn(w->keyring) ? lg_keyring_commit(w->keyring) : 0;
    if (rc)
        lg_log(LOG_ERR, "the keyring cannot be written: %s", strerror(-rc));
    lg_keyd_audit_turn(w);
    lg_copies_report(w);
    unkept_report(w);
    for (unsigned i = 0; i < w->n_held; i++) {
        struct held *h = &w->held[i];
        if (h->conn->fd >= 0 && h->conn->serial == h->serial && rc) {
            uint8_t frame[64];
            size_t len;
            struct lg_answer a = { .type = h->type, .id = h->id, .status = rc };
            if (!lg_answer_encode(&a, frame, sizeof frame, &len))
                lg_conn_send(w, h->conn, frame, len);
        } else if (h->conn->fd >= 0 && h->conn->serial == h->serial) {
            lg_conn_send(w, h->conn, h->frame, h->len);
        }
        lg_secret_dealloc(h->frame);
    }
    w->n_held = 0;
}

static int next_timeout(const struct lg_worker *w)
{
    int64_t at = lg_ops_deadline(w), now = lg_ms(), sign = lg_keyd_audit_deadline(w);
    if (sign >= 0 && (at < 0 || sign < at))
        at = sign;
    if (lg_keyring_unlocked(w->keyring) && (at < 0 || w->tick_at < at))
        at = w->tick_at;
    if (lg_keyring_unlocked(w->keyring) && w->gathering && w->gather_at < at)
        at = w->gather_at;
    for (unsigned i = 0; i < LG_CLIENTS_MAX; i++) {
        const struct lg_conn *c = &w->conns[i];
        if (c->fd < 0)
            continue;
        int64_t t = c->in_len ? c->in_since + LG_HALF_MS : -1;
        if (c->out_len && (t < 0 || c->out_since + LG_HALF_MS < t))
            t = c->out_since + LG_HALF_MS;
        if (t >= 0 && (at < 0 || t < at))
            at = t;
    }
    return at < 0 ? -1 : at <= now ? 0 : (int)(at - now) + 1;
}

static void sweep(struct lg_worker *w)
{
    int64_t now = lg_ms();
    for (unsigned i = 0; i < LG_CLIENTS_MAX; i++) {
        struct lg_conn *c = &w->conns[i];
        if (c->fd >= 0 && (c->closing || (c->in_len && now - c->in_since > LG_HALF_MS) || (c->out_len && now - c->out_since > LG_HALF_MS)))
            conn_close(w, c);
    }
}

static int watch_fd(struct lg_worker *w, int fd, uint32_t id)
{
    struct epoll_event e = { .events = EPOLLIN, .data.u32 = id };
    return fd < 0 || epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &e) ? -errno : 0;
}

static void serve(struct lg_worker *w)
{
    struct epoll_event ev[64];
    while (!w->stop) {
        int n = epoll_wait(w->epoll, ev, 64, next_timeout(w));
        for (int i = 0; i < n; i++) {
            uint32_t id = ev[i].data.u32;
            uint64_t x;
            if (id == ID_LISTEN) {
                conn_accept(w);
            } else if (id == ID_WAKE) {
                (void)!read(w->wake, &x, sizeof x);
                w->derivation.busy = false;
            } else if (id == ID_SIGNAL || id == ID_SUPER) {
                w->stop = true; /* the supervisor says nothing unasked: it is gone */
            } else if (id < LG_CLIENTS_MAX && w->conns[id].fd >= 0) {
                struct lg_conn *c = &w->conns[id];
                if (ev[i].events & EPOLLOUT)
                    conn_flush(w, c);
                if (ev[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR) && c->fd >= 0)
                    conn_read(w, c);
            }
        }
        turn_end(w);
        lg_tick(w);
        lg_ops_step(w);
        turn_end(w); /* what the ops answered */
        sweep(w);
        lg_keyd_audit_tick(w);
    }
}

static int start(struct lg_worker *w)
{
    LG_SECRET_BUF_AUTO struct lg_super *m = lg_secret_alloc(sizeof *m);
    sigset_t set;
    if (!m)
        return -ENOMEM;
    int rc = lg_super_recv(w->o.super_fd, m);
    if (!rc && m->kind != LG_SUPER_START)
        rc = -EPROTO;
    if (rc)
        return rc;
    rc = lg_keyring_open(w->o.keyring, w->o.slot, w->o.mirror, &w->keyring);
    if (rc) {
        lg_log(LOG_ERR, "keyring %s: %s", w->o.keyring,
               rc == -EWOULDBLOCK       ? "another key manager serves it already. See `leadglass status`, or end that one first"
               : rc == -EPROTONOSUPPORT ? "was made by a newer version of Leadglass; nothing was touched. Install that version"
               : rc == -ENOENT          ? "there is none. Create one with `leadglass-keyd --init --keyring DIR`"
               : rc == -ESTALE          ? "only the copy that had fallen behind is there. Bring the other one back; or, to go on without the newest keys, remove the mark *.degraded beside the root slots"
               : rc == -EXDEV           ? "is another keyring than its mirror; nothing was touched. Name the right directory with --mirror"
               : rc == -ENOTEMPTY       ? "the mirror's directory holds other files; nothing was touched. Name an empty one with --mirror"
               : rc == -EPROTO          ? "is damaged: it does not have the structure of a keyring. Restore it from a backup"
                                        : strerror(-rc));
        return rc;
    }
    rc = lg_mounts_expect(w);
    if (rc) /* no reason not to serve */
        lg_log(LOG_ERR, "not every mount that stood when this key manager was started can be told from the keyring (%s): one that does not come back is not named", strerror(-rc));
    rc = lg_keyd_tpm_start(w);
    if (rc)
        return rc;
    int why;
    enum lg_mirror_news news = lg_keyring_mirror_news(w->keyring, &why);
    if (w->o.mirror)
        snprintf(w->mirror_slot, sizeof w->mirror_slot, "%s.root", w->o.mirror);
    if (news && why)
        mirror_refused(w, why);
    else if (news)
        lg_log(LOG_NOTICE, news == LG_MIRROR_MADE ? "the mirror was made" : "the two copies of the keyring differed and are in step again");
    rc = lg_keyd_audit_start(w);
    if (rc)
        lg_log(LOG_ERR, "access log %s: %s. Give it another place with --audit DIR, or none with --audit off", w->o.audit, rc == -EWOULDBLOCK ? "another process writes it" : strerror(-rc));
    if (rc)
        return rc;
    if (news)
        lg_keyd_audit(w, news == LG_MIRROR_MADE ? "mirror.made" : "mirror.in-step", geteuid(), getpid(), why, NULL, "");
    lg_copies_report(w);
    if (m->epoch) { /* the worker before this one died */
        struct lg_roots roots = { .n = 1, .r = { { .epoch = m->epoch, .key = lg_secret_new() } } };
        if (!roots.r[0].key)
            return -ENOMEM;
        memcpy(roots.r[0].key->b, m->root, LG_KEY_LEN);
        rc = lg_keyring_unlock(w->keyring, &roots);
        lg_rollback_unlock(w, &rc);
        lg_roots_done(&roots);
        if (!rc)
            rc = lg_root_to_supervisor(w);
        lg_log(rc ? LOG_ERR : LOG_NOTICE, rc ? "restarted, but locked: %s" : "restarted and unlocked", rc ? strerror(-rc) : "");
        lg_keyd_audit(w, "unlock", geteuid(), getpid(), rc, NULL, "after a restart");
        if (!rc)
            lg_officers_unlocked(w), lg_rollback_unlocked(w);
        if (!rc && lg_keyring_unfinished(w->keyring))
            lg_log(LOG_ERR, "studies that were being destroyed still are (%s)", strerror(-lg_keyring_unfinished(w->keyring)));
    }
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    w->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    rc = watch_fd(w, w->o.listen_fd, ID_LISTEN);
    if (!rc)
        rc = watch_fd(w, w->wake, ID_WAKE);
    if (!rc)
        rc = watch_fd(w, signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK), ID_SIGNAL);
    if (!rc)
        rc = watch_fd(w, w->o.super_fd, ID_SUPER);
    if (!rc && m->first) {
        lg_unlock_alone(w);
        turn_end(w);
    }
    return rc ? rc : to_supervisor(w, LG_SUPER_READY, NULL);
}

int lg_worker_run(const struct lg_worker_options *o)
{
    struct lg_worker *w = calloc(1, sizeof *w);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    lg_log_open(false); /* to whoever waits for us to serve */
    if (!w)
        return LG_EXIT_FATAL;
    w->o = *o;
    w->started = lg_ms();
    for (unsigned i = 0; i < LG_CLIENTS_MAX; i++)
        w->conns[i].fd = -1;
    int rc = start(w);
    if (!rc && o->to_syslog) {
        int null = open("/dev/null", O_RDWR);
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            dup2(null, 2);
            close(null);
        }
        lg_log_open(true);
    }
    if (!rc && !w->o.audit)
        lg_log(LOG_WARNING, "--audit off: NO ACCESS LOG of the key manager is kept, and nothing can be recorded of mounts that keep none");
    if (!rc)
        serve(w);
    for (unsigned i = 0; i < LG_CLIENTS_MAX; i++)
        conn_close(w, &w->conns[i]);
    if (w->keyring) {
        lg_backup_drop(w, NULL);
        lg_keyd_audit_stop(w);
        lg_keyring_close(w->keyring);
    }
    if (!w->derivation.busy)
        lg_keyd_tpm_stop(w);
    free(w->telling.kid);
    free(w);
    return rc == -EWOULDBLOCK ? LG_EXIT_BUSY : rc ? LG_EXIT_FATAL : LG_EXIT_OK;
}
