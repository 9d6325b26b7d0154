#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <time.h>
#include <unistd.h>

#include "daemon.h"

enum { LG_SESSIONS_LOOK = 1024, LATEST_S = LG_LEASE_S + 120 /* a mount looks once a minute for leases that have ended */ };

bool lg_mount_alive(const struct lg_mount *m)
{
    struct pollfd p = { m->pidfd, POLLIN, 0 };
    return m->pidfd >= 0 && poll(&p, 1, 0) == 0; /* readable once the process has ended */
}

int lg_pidfd(pid_t pid) { return (int)syscall(SYS_pidfd_open, pid, 0); }

size_t lg_proc_read(pid_t pid, const char *name, char *buf, size_t cap)
{
    char path[64];
    snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(buf, 1, cap - 1, f) : 0;
    if (f)
        fclose(f);
    buf[n] = 0;
    return n;
}

/* Field 22 of its stat: a process number is used again, not within the same clock tick. 0: cannot be told. */
static uint64_t started_at(pid_t pid)
{
    char line[4096];
    unsigned long long t = 0;
    (void)lg_proc_read(pid, "stat", line, sizeof line);
    const char *p = strrchr(line, ')'); /* the name before it may hold anything */
    if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &t) != 1)
        return 0;
    return t;
}

static void boot_id(uint8_t ret[LG_ID_LEN])
{
    char text[64] = "", hex[2 * LG_ID_LEN + 1];
    size_t n = 0;
    FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
    if (f && !fgets(text, sizeof text, f))
        text[0] = 0;
    if (f)
        fclose(f);
    for (const char *p = text; *p && *p != '\n' && n < 2 * LG_ID_LEN; p++)
        if (*p != '-')
            hex[n++] = *p;
    hex[n] = 0;
    if (n != 2 * LG_ID_LEN || lg_hex_decode(hex, ret, LG_ID_LEN))
        memset(ret, 0, LG_ID_LEN);
}

void lg_place_of(pid_t pid, const char *mountpoint, struct lg_session_place *ret)
{
    *ret = (struct lg_session_place){ .begun = (uint64_t)time(NULL), .pid = (uint32_t)pid, .pid_started = started_at(pid) };
    boot_id(ret->boot);
    snprintf(ret->mountpoint, sizeof ret->mountpoint, "%s", mountpoint);
}

/* Is anything of ours still mounted there (NULL: anywhere)? Its pages may outlive its daemon. */
static bool still_mounted(const char *mountpoint)
{
    char line[8192], escaped[4 * LG_WIRE_MOUNTPOINT_MAX + 3], *o = escaped;
    *o++ = ' ';
    for (const char *s = mountpoint ? mountpoint : ""; *s; s++) /* as the kernel writes it */
        if (strchr(" \t\n\\", *s))
            o += snprintf(o, 5, "\\%03o", (unsigned char)*s);
        else
            *o++ = *s;
    if (mountpoint)
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

/* Of a session of the keyring, the process that serves it: -1 when it is over. */
static int process_of(const struct lg_session_place *p)
{
    static const uint8_t unknown[LG_ID_LEN];
    uint8_t boot[LG_ID_LEN];
    boot_id(boot);
    if (memcmp(boot, unknown, LG_ID_LEN) != 0 && memcmp(p->boot, unknown, LG_ID_LEN) != 0 && memcmp(boot, p->boot, LG_ID_LEN) != 0)
        return -1;
    int fd = lg_pidfd((pid_t)p->pid);
    uint64_t t = fd >= 0 ? started_at((pid_t)p->pid) : 0;
    if (t && p->pid_started && t != p->pid_started) { /* another one has its number */
        close(fd);
        return -1;
    }
    return fd;
}

int lg_mounts_expect(struct lg_worker *w)
{
    struct lg_open_session *s = calloc(LG_SESSIONS_LOOK, sizeof *s);
    unsigned n = 0, at = 0;
    int rc = s ? lg_keyring_sessions_open(w->keyring, s, LG_SESSIONS_LOOK, &n) : -ENOMEM;
    for (unsigned i = 0; (!rc || rc == -ENOSPC) && i < n && at < LG_MOUNTS_MAX; i++) {
        int fd = s[i].placed ? process_of(&s[i].place) : -1;
        if (fd < 0 && !still_mounted(s[i].placed ? s[i].place.mountpoint : NULL))
            continue; /* ended with its process; the next mount of the vault recovers what it left */
        struct lg_mount *m = &w->mounts[at++];
        *m = (struct lg_mount){ .used = true, .session = s[i].number, .pid = (pid_t)s[i].place.pid, .pidfd = fd, .expected = true, .placed = s[i].placed, .away = (uint64_t)time(NULL) };
        memcpy(m->vault_id, s[i].vault_id, LG_ID_LEN);
        snprintf(m->mountpoint, sizeof m->mountpoint, "%s", s[i].placed ? s[i].place.mountpoint : "(one of an earlier version, which did not say where)");
    }
    free(s);
    return rc;
}

bool lg_mounts_expected(struct lg_worker *w)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++)
        if (w->mounts[i].used && w->mounts[i].expected && (lg_mount_alive(&w->mounts[i]) || !w->mounts[i].placed))
            return true;
    return false;
}

int lg_mount_add(struct lg_worker *w, uint64_t session, const uint8_t vault_id[LG_ID_LEN], const struct lg_conn *c, const char *mountpoint, struct lg_mount **ret)
{
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used)
            continue;
        *m = (struct lg_mount){ .used = true, .session = session, .pid = c->pid, .pidfd = lg_pidfd(c->pid), .placed = true };
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
        if (m->used && !lg_mount_alive(m) && !still_mounted(m->placed ? m->mountpoint : NULL)) {
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

static void name(const struct lg_mount *m, struct lg_unconfirmed_mount *ret)
{
    *ret = (struct lg_unconfirmed_mount){ .away = m->away };
    memcpy(ret->vault_id, m->vault_id, LG_ID_LEN);
    if (!m->placed || lg_mount_alive(m)) /* by itself: a daemon that is gone drops nothing any more */
        ret->latest = (uint64_t)time(NULL) + LATEST_S;
    snprintf(ret->mountpoint, sizeof ret->mountpoint, "%s", m->mountpoint);
}

void lg_mounts_unconfirmed(struct lg_worker *w, uint64_t number, struct lg_unconfirmed *ret)
{
    ret->n = 0;
    lg_mounts_reap(w);
    for (unsigned i = 0; i < LG_MOUNTS_MAX; i++) {
        struct lg_mount *m = &w->mounts[i];
        if (m->used && ((m->waits_for && number == w->telling.last) || m->failed) && ret->n < 64)
            name(m, &ret->mount[ret->n++]);
        m->waits_for = 0;
        m->failed = false;
    }
}
