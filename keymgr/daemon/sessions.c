/* Requests about mount sessions, and the connections on which mounts are told of events. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon.h"

void lg_on_session_begin(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_answer a = { .type = q->type, .id = q->id };
    struct lg_session_place place;
    struct lg_mount *m;
    uint64_t *unclean = calloc(LG_UNCLEAN_MAX, sizeof *unclean);
    if (q->mountpoint[0] != '/') /* a scrub says so in its place */
        w->asked_event = "scrub.begin";
    if (!unclean)
        a.status = -ENOMEM;
    for (unsigned i = 0; !a.status && i < LG_MOUNTS_MAX; i++) {
        m = &w->mounts[i];
        if (!m->used || memcmp(m->vault_id, q->vault_id, LG_ID_LEN) != 0)
            continue;
        if (lg_mount_alive(m))
            a.status = -EBUSY;
        else
            lg_mount_remove(w, m);
    }
    if (!a.status)
        a.status = lg_keyring_session_begin(w->keyring, q->vault_id, &a.session);
    lg_place_of(c->pid, q->mountpoint, &place);
    if (!a.status)
        a.status = lg_keyring_session_place(w->keyring, a.session, &place);
    if (!a.status)
        a.status = lg_keyring_sessions_unclean(w->keyring, q->vault_id, unclean, LG_UNCLEAN_MAX, &a.n_unclean);
    if (!a.status)
        a.status = lg_mount_add(w, a.session, q->vault_id, c, q->mountpoint, &m);
    if (a.n_unclean > LG_UNCLEAN_MAX)
        a.n_unclean = LG_UNCLEAN_MAX;
    a.unclean = unclean;
    lg_reply(w, c, &a);
    free(unclean);
}

void lg_on_session_end(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_mount *m = lg_mount_of(w, q->session);
    if (m && m->mountpoint[0] != '/')
        w->asked_event = "scrub.end";
    int rc = lg_keyring_session_set(w->keyring, q->session, LG_SESSION_CLEAN);
    if (!rc && m)
        lg_mount_remove(w, m);
    lg_reply_status(w, c, q, rc);
}

/* What a scrub reports of itself, for the access log: what it found, what it is about to write out. */
void lg_on_found(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    const struct lg_mount *m = lg_mount_of(w, q->session);
    lg_reply_status(w, c, q, m && m->mountpoint[0] != '/' ? 0 : -EINVAL);
}

void lg_on_session_close(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    uint8_t vault[LG_ID_LEN];
    enum lg_session_state s;
    int rc = lg_keyring_session_get(w->keyring, q->session, vault, &s);
    if (!rc && s != LG_SESSION_UNCLEAN)
        rc = -EINVAL;
    if (!rc)
        rc = lg_keyring_session_set(w->keyring, q->session, LG_SESSION_CLOSED);
    lg_reply_status(w, c, q, rc);
}

/* After a restart of the worker the mounts come by themselves; the mountpoint is the last argument of leadglass-fs. */
static void mountpoint_of(pid_t pid, char *out, size_t cap)
{
    char args[8192];
    size_t n = lg_proc_read(pid, "cmdline", args, sizeof args);
    const char *last = "";
    for (size_t at = 0; at < n; at += strlen(args + at) + 1)
        last = args + at;
    if (last[0] == '/')
        snprintf(out, cap, "%.*s", (int)cap - 1, last);
    else
        snprintf(out, cap, "(process %d)", (int)pid);
}

void lg_on_watch(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_mount *m = lg_mount_of(w, q->session);
    int rc = 0;
    if (!m) {
        uint8_t vault[LG_ID_LEN];
        enum lg_session_state s;
        char mountpoint[LG_WIRE_MOUNTPOINT_MAX + 1];
        rc = lg_keyring_session_get(w->keyring, q->session, vault, &s);
        if (!rc && s != LG_SESSION_OPEN)
            rc = -EINVAL;
        if (!rc) {
            mountpoint_of(c->pid, mountpoint, sizeof mountpoint);
            rc = lg_mount_add(w, q->session, vault, c, mountpoint, &m);
        }
    }
    if (!rc && m->expected) { /* back, perhaps seen by another number */
        if (m->pid != c->pid) {
            if (m->pidfd >= 0)
                close(m->pidfd);
            m->pid = c->pid;
            m->pidfd = lg_pidfd(c->pid);
        }
        if (!m->placed)
            mountpoint_of(c->pid, m->mountpoint, sizeof m->mountpoint);
        m->expected = false;
        m->placed = true;
    }
    if (!rc && m->pid != c->pid)
        rc = -EACCES;
    if (!rc) {
        m->away = 0;
        m->watch = c;
        c->watching = true;
    }
    lg_reply_status(w, c, q, rc);
}

void lg_on_ack(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used && m->watch == c && lg_mounts_acked(w, m, q->event, q->event_result != 0) && m->waits_for && w->n_ops)
            w->ops[0].deadline = lg_ms() + LG_ACK_MS; /* there is more of it: that has its own time */
    }
}
