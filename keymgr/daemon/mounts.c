#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "daemon.h"

bool lg_mount_alive(const struct lg_mount *m)
{
    struct pollfd p = { m->pidfd, POLLIN, 0 };
    return m->pidfd >= 0 && poll(&p, 1, 0) == 0; /* readable once the process has ended */
}

/* Is anything of ours still mounted there? Its pages may outlive its daemon. */
static bool still_mounted(const char *mountpoint)
{
    char line[8192], escaped[4 * LG_WIRE_MOUNTPOINT_MAX + 3], *o = escaped;
    *o++ = ' ';
    for (const char *s = mountpoint; *s; s++) /* as the kernel writes it */
        if (strchr(" \t\n\\", *s))
            o += snprintf(o, 5, "\\%03o", (unsigned char)*s);
        else
            *o++ = *s;
    *o++ = ' ';
    *o = 0;
    FILE *f = fopen("/proc/self/mountinfo", "re");
    bool found = false;
    while (f && !found && fgets(line, sizeof line, f))
        found = strstr(line, escaped) && strstr(line, " fuse.leadglass ");
    if (f)
        fclose(f);
    return found;
}

struct lg_mount *lg_mount_of(struct lg_worker *w, uint64_t session)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++)
        if (w->mounts[i].used && w->mounts[i].session == session)
            return &w->mounts[i];
    return NULL;
}

int lg_mount_add(struct lg_worker *w, uint64_t session, const uint8_t vault_id[LG_ID_LEN], const struct lg_conn *c, const char *mountpoint, struct lg_mount **ret)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used)
            continue;
        *m = (struct lg_mount){ .used = true, .session = session, .pid = c->pid, .pidfd = (int)syscall(SYS_pidfd_open, c->pid, 0) };
        memcpy(m->vault_id, vault_id, LG_ID_LEN);
        snprintf(m->mountpoint, sizeof m->mountpoint, "%s", mountpoint);
        *ret = m;
        return 0;
    }
    return -EMFILE;
}

void lg_mount_remove(struct lg_worker *w, struct lg_mount *m)
{
    (void)w;
    if (m->pidfd >= 0)
        close(m->pidfd);
    m->used = false;
}

void lg_mounts_reap(struct lg_worker *w)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used && !lg_mount_alive(m) && !still_mounted(m->mountpoint)) {
            lg_log(LOG_WARNING, "the mount at %s ended without saying so (session %llu)", m->mountpoint, (unsigned long long)m->session);
            lg_mount_remove(w, m);
        }
    }
}

/* Part i of what is being told; the mount acknowledges it before it gets the next, so that any number of keys may be named. */
static bool tell_part(struct lg_worker *w, struct lg_mount *m, uint64_t number)
{
    static uint8_t frame[LG_WIRE_HEADER + 8 + LG_WIRE_KIDS_MAX * LG_ID_LEN];
    size_t len, at = (size_t)(number - w->telling.first) * LG_WIRE_KIDS_MAX, left = w->telling.n - at;
    struct lg_event e = { .kind = w->telling.kind, .n_kids = (unsigned)(left < LG_WIRE_KIDS_MAX ? left : LG_WIRE_KIDS_MAX), .kids = (const uint8_t(*)[LG_ID_LEN])w->telling.kid + at };
    if (!m->watch || lg_event_encode(number, &e, frame, sizeof frame, &len))
        return false;
    m->waits_for = number;
    lg_conn_send(w, m->watch, frame, len);
    return true;
}

uint64_t lg_mounts_tell(struct lg_worker *w, enum lg_event_kind kind, const uint8_t (*kids)[LG_ID_LEN], size_t n)
{
    lg_mounts_reap(w);
    free(w->telling.kid);
    w->telling.kind = kind;
    w->telling.n = n;
    w->telling.kid = n ? malloc(n * LG_ID_LEN) : NULL;
    bool ok = !n || w->telling.kid;
    if (n && ok)
        memcpy(w->telling.kid, kids, n * LG_ID_LEN);
    w->telling.first = w->next_event + 1;
    w->next_event += n ? (n + LG_WIRE_KIDS_MAX - 1) / LG_WIRE_KIDS_MAX : 1;
    w->telling.last = w->next_event;
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (!m->used)
            continue;
        m->waits_for = 0;
        m->failed = !ok || !tell_part(w, m, w->telling.first); /* then there is nothing to wait for: it will be named */
    }
    return w->telling.last;
}

bool lg_mounts_acked(struct lg_worker *w, struct lg_mount *m, uint64_t number, bool failed)
{
    if (!m->waits_for || m->waits_for != number)
        return false;
    m->waits_for = 0;
    m->failed = m->failed || failed;
    if (number < w->telling.last && !tell_part(w, m, number + 1))
        m->failed = true;
    return true;
}

void lg_mounts_notify(struct lg_worker *w, const struct lg_event *e)
{
    static uint8_t frame[LG_WIRE_HEADER + 8 + LG_WIRE_KIDS_MAX * LG_ID_LEN];
    size_t len;
    if (lg_event_encode(++w->next_event, e, frame, sizeof frame, &len))
        return;
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++)
        if (w->mounts[i].used && w->mounts[i].watch)
            lg_conn_send(w, w->mounts[i].watch, frame, len);
}

bool lg_mounts_waiting(const struct lg_worker *w, uint64_t number)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++)
        if (w->mounts[i].used && w->mounts[i].waits_for && number == w->telling.last)
            return true;
    return false;
}

void lg_mounts_unconfirmed(struct lg_worker *w, uint64_t number, struct lg_unconfirmed *ret)
{
    ret->n = 0;
    lg_mounts_reap(w);
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used && ((m->waits_for && number == w->telling.last) || m->failed) && ret->n < 64)
            snprintf(ret->mountpoint[ret->n++], sizeof ret->mountpoint[0], "%s", m->mountpoint);
        m->waits_for = 0;
        m->failed = false;
    }
}
