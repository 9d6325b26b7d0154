#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <syslog.h>
#include <unistd.h>

#include "audit.h"
#include "found.h"
#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "options.h"

enum { READAHEAD_BELOW_KB = 512, TICK_S = 1, IDLE_THREADS = 10, EXPIRE_S = 60, ANCHOR_S = 600, ANCHOR_AGAIN_S = 10, ASK_AGAIN_S = 5, FOUND_MS = 10000 };

struct program {
    struct lg_front_options o;
    struct lg_front front;
    struct lg_client *client;
    struct lg_watch *watch;
    struct lg_rules *rules;
    struct lg_found *found;
    struct lg_key_source source;
    uint64_t session, unclean[LG_UNCLEAN_MAX];
    unsigned n_unclean;
    char mountpoint[PATH_MAX], vault[PATH_MAX];
    atomic_bool to_syslog;
    pthread_t ticker, sweeper;
    bool sweeping; /* the thread is there to be joined */
    pthread_mutex_t mu;
    pthread_cond_t stop_cond;
    bool stop;
    pthread_mutex_t telling; /* the kernel, on the watch's thread */
    atomic_bool ending;
    uint8_t vault_id[LG_ID_LEN];
    uint32_t chunk_size;
    atomic_bool anchor_due, ask_due;
    uint8_t anchor[LG_VAULT_ANCHOR_LEN]; /* to keep; of one thread at a time */
    size_t anchor_len;
    int anchor_rc, anchor_said;
};

/* ---- messages --------------------------------------------------------------------------------------------------------------------------- */

static void vsay(const struct program *p, int level, const char *fmt, va_list ap) LG_PRINTF(3, 0);
static void vsay(const struct program *p, int level, const char *fmt, va_list ap)
{
    if (p && p->to_syslog) {
        vsyslog(level, fmt, ap);
        return;
    }
    flockfile(stderr); /* lines of several threads stay apart */
    fputs("leadglass-fs: ", stderr);
    vfprintf(stderr, fmt, ap);
    fputc('\n', stderr);
    funlockfile(stderr);
}
static void say(const struct program *p, int level, const char *fmt, ...) LG_PRINTF(3, 4);
static void say(const struct program *p, int level, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(p, level, fmt, ap);
    va_end(ap);
}
static int fail(const struct program *p, int code, const char *fmt, ...) LG_PRINTF(3, 4);
static int fail(const struct program *p, int code, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    vsay(p, LOG_ERR, fmt, ap);
    va_end(ap);
    return code;
}

static void on_audit_alarm(void *arg, int level, const char *text) { say(arg, level, "%s", text); }

static void on_finding(void *arg, const struct lg_finding *f)
{
    struct program *p = arg;
    lg_front_finding(&p->front, f, lg_found_same(p->found, f));
    lg_found_tell(p->found, f);
}

static void say_found(void *arg, const char *line) { say(arg, LOG_WARNING, "%s", line); }

static int on_path(void *arg, const char *path, struct lg_study_info *ret)
{
    const struct program *p = arg;
    return lg_rules_match(p->rules, path, ret);
}

/* ---- checks before anything is touched ------------------------------------------------------------------------------------------------------ */

static bool beneath(const char *path, const char *dir)
{
    size_t n = strlen(dir);
    return strncmp(path, dir, n) == 0 && (path[n] == '/' || !path[n] || strcmp(dir, "/") == 0);
}

static int check_places(struct program *p, char socket[PATH_MAX])
{
    const struct lg_front_options *o = &p->o;
    struct stat st, up;
    if (!realpath(o->vault, p->vault))
        return fail(p, EXIT_FAILED, errno == ENOENT ? "vault %s: %s. Create it with `leadglass init`" : "vault %s: %s", o->vault, strerror(errno));
    if (lg_stale_detach(o->mountpoint) == -ENOTCONN)
        return fail(p, EXIT_FAILED, "%s: another filesystem's mount, whose daemon is gone, is still there; unmount it first", o->mountpoint);
    if (!realpath(o->mountpoint, p->mountpoint)) {
        if (errno == ENOTCONN)
            return fail(p, EXIT_FAILED, "%s: a mount whose daemon is gone is still there; run `leadglass umount %s` first", o->mountpoint, o->mountpoint);
        return fail(p, EXIT_FAILED, "mountpoint %s: %s. Create the directory first", o->mountpoint, strerror(errno));
    }
    if (stat(p->mountpoint, &st))
        return fail(p, EXIT_FAILED, "mountpoint %s: %s%s", o->mountpoint, strerror(errno), errno == ENOTCONN ? "; run `leadglass umount` on it first" : "");
    if (!S_ISDIR(st.st_mode))
        return fail(p, EXIT_FAILED, "mountpoint %s is not a directory", o->mountpoint);
    char parent[PATH_MAX + 4];
    snprintf(parent, sizeof parent, "%s/..", p->mountpoint);
    if (!stat(parent, &up) && up.st_dev != st.st_dev)
        return fail(p, EXIT_FAILED, "something is mounted at %s already; unmount it first", o->mountpoint);
    DIR *d = opendir(p->mountpoint);
    bool empty = true;
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            empty = false;
    if (d)
        closedir(d);
    if (!empty && !o->nonempty)
        return fail(p, EXIT_FAILED, "mountpoint %s is not empty: its files would be hidden. Choose an empty directory, or say -o nonempty", o->mountpoint);
    if (beneath(p->vault, p->mountpoint))
        return fail(p, EXIT_FAILED, "the vault %s lies beneath its own mountpoint %s; choose another mountpoint", p->vault, p->mountpoint);
    if (beneath(p->mountpoint, p->vault))
        return fail(p, EXIT_FAILED, "the mountpoint %s lies within the vault %s; choose another mountpoint", p->mountpoint, p->vault);
    char real[PATH_MAX];
    if (o->socket)
        snprintf(socket, PATH_MAX, "%s", o->socket);
    else if (lg_client_default_socket(socket, PATH_MAX))
        return fail(p, EXIT_USAGE, "no default socket: say --socket PATH or set LEADGLASS_SOCKET");
    if (realpath(socket, real) && beneath(real, p->mountpoint))
        return fail(p, EXIT_FAILED, "the key manager's socket %s lies beneath the mountpoint; move it elsewhere", socket);
    int fd = open("/dev/fuse", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return fail(p, EXIT_FAILED, "/dev/fuse: %s. %s", strerror(errno),
                    errno == EACCES || errno == EPERM ? "This user may not use FUSE here (in a container: pass the device through)" : "Load the kernel module: modprobe fuse");
    close(fd);
    return 0;
}

static int explain_client(const struct program *p, int rc, const char *socket, const char *what)
{
    switch (rc) {
    case -ENOENT:
    case -ECONNREFUSED:
        return fail(p, EXIT_NO_KEYD, "no key manager answers at %s. Start one: leadglass-keyd --keyring DIR", socket);
    case -ETIMEDOUT:
        return fail(p, EXIT_NO_KEYD, "the key manager at %s did not answer in time", socket);
    case -EACCES:
        return fail(p, EXIT_FAILED, "%s: this user may not do that, or may not reach %s", what, socket);
    case -ENOKEY:
        return fail(p, EXIT_LOCKED, "the keyring is locked. Run `leadglass unlock` first");
    case -ECONNRESET:
        return fail(p, EXIT_NO_KEYD, "%s: the key manager at %s ended the connection. If it was started by another version than is installed now, start it anew; else see its log", what, socket);
    case -EPROTO:
    case -EPROTONOSUPPORT:
        return fail(p, EXIT_FAILED, "%s: the answer of the key manager at %s is not understood. If it was started by another version than is installed now, start it anew; else see its log", what, socket);
    default:
        return fail(p, EXIT_FAILED, "%s: %s", what, strerror(-rc));
    }
}

/* ---- events from the key manager --------------------------------------------------------------------------------------------------------------- */

static void invalidate(void *arg, uint64_t node)
{
    struct program *p = arg;
    struct timespec t;
    do { /* one that waits in it may wait for as long as the mount lives */
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec++;
        if (atomic_load(&p->ending))
            return;
    } while (pthread_mutex_timedlock(&p->telling, &t));
    if (!atomic_load(&p->ending))
        fuse_lowlevel_notify_inval_inode(p->front.session, node, 0, 0);
    pthread_mutex_unlock(&p->telling);
}

/* Before the session's descriptor is closed: from here on nothing is written to it, which might be another file by then. A word to the kernel that waits for a request of
 * this session, which nobody answers any more, has its descriptor already, and ends with the mount. */
static void stop_telling(struct program *p)
{
    struct timespec t;
    atomic_store(&p->ending, true);
    clock_gettime(CLOCK_REALTIME, &t);
    t.tv_sec++;
    if (pthread_mutex_timedlock(&p->telling, &t) == 0)
        pthread_mutex_unlock(&p->telling);
}

/* Files that are open go on with what they hold only while the key manager says so, or a lease runs: asked whenever it was away, as a revocation may have been missed, and
 * once a minute for leases that have ended. False: it could not be asked about all of them. Holds no lock. */
static bool ask_anew(struct program *p)
{
    struct lg_volume_kid *kid = NULL;
    size_t n = 0;
    bool sure = true, answered = true;
    int rc = lg_volume_kids(p->front.volume, &kid, &n);
    uint8_t (*ended)[LG_ID_LEN] = !rc && n ? calloc(2 * n, LG_ID_LEN) : NULL, (*revoked)[LG_ID_LEN] = ended ? ended + n : NULL;
    size_t n_ended = 0, n_revoked = 0;
    if (rc || (n && !ended)) {
        free(kid);
        return false;
    }
    for (size_t i = 0; i < n; i++) {
        rc = lg_keys_still(p->front.keys, kid[i].kid, kid[i].version, answered);
        answered = answered && (!rc || rc == -EKEYREVOKED); /* one that hangs is not waited for again and again */
        if (rc == -EAGAIN)
            sure = false;
        else if (rc == -EKEYREVOKED)
            memcpy(revoked[n_revoked++], kid[i].kid, LG_ID_LEN);
        else if (rc)
            memcpy(ended[n_ended++], kid[i].kid, LG_ID_LEN);
    }
    if (n_revoked) {
        lg_front_audit_event(p->front.audit, "key.revoke");
        lg_keys_revoke(p->front.keys, (const uint8_t(*)[LG_ID_LEN])revoked, (unsigned)n_revoked);
        lg_volume_drop_keys(p->front.volume, (const uint8_t(*)[LG_ID_LEN])revoked, (unsigned)n_revoked, true, invalidate, p);
        say(p, LOG_NOTICE, "%zu keys were revoked while the key manager was away", n_revoked);
    }
    if (n_ended) {
        lg_volume_drop_keys(p->front.volume, (const uint8_t(*)[LG_ID_LEN])ended, (unsigned)n_ended, false, invalidate, p);
        say(p, LOG_WARNING, "the leases of %zu keys have ended, and the key manager does not renew them", n_ended);
    }
    free(ended);
    free(kid);
    return sure;
}

/* On the watch's own thread; holds no lock. Its return is the acknowledgement. */
static int on_event(void *arg, const struct lg_event *e)
{
    struct program *p = arg;
    struct lg_volume *v = p->front.volume;
    int rc = 0;
    if (e->kind == LG_EVENT_LOCK || e->kind == LG_EVENT_REVOKE)
        lg_front_audit_event(p->front.audit, e->kind == LG_EVENT_LOCK ? "lock" : "key.revoke");
    switch (e->kind) {
    case LG_EVENT_LOCK:
        rc = lg_volume_commit_all(v);
        if (rc)
            say(p, LOG_ERR, "not everything could be committed before the lock: %s", strerror(-rc));
        lg_keys_lock(p->front.keys);
        lg_volume_drop_keys(v, NULL, 0, false, invalidate, p);
        say(p, LOG_NOTICE, "locked");
        break;
    case LG_EVENT_REVOKE:
        lg_keys_revoke(p->front.keys, e->kids, e->n_kids);
        lg_volume_drop_keys(v, e->kids, e->n_kids, true, invalidate, p);
        say(p, LOG_NOTICE, "%u keys revoked", e->n_kids);
        break;
    case LG_EVENT_UNLOCK:
        lg_keys_unlock(p->front.keys);
        if (atomic_exchange(&p->ask_due, false) && !ask_anew(p))
            atomic_store(&p->ask_due, true);
        break;
    case LG_EVENT_RESYNC:
        lg_keys_resync(p->front.keys);
        atomic_store(&p->ask_due, !ask_anew(p));
        atomic_store(&p->anchor_due, true); /* another keyring's key manager, perhaps */
        break;
    case LG_EVENT_TRIMMED: /* a header that is still to be written may name an older version: it is, before anybody looks */
        rc = lg_volume_commit_all(v);
        lg_keys_trimmed(p->front.keys, e->kids, e->n_kids);
        if (rc)
            say(p, LOG_ERR, "not everything could be committed before old versions of keys are retired: %s", strerror(-rc));
        return rc;
    case LG_EVENT_ROTATED:
        lg_keys_rotated(p->front.keys, e->kids, e->n_kids);
        break;
    }
    return 0;
}

/* ---- the mount ------------------------------------------------------------------------------------------------------------------------------------ */

/* Shows the key manager what this vault has seen of its keyring, and keeps what it gives: once the vault is open. */
static void anchor_ask(struct program *p)
{
    uint8_t have[LG_VAULT_ANCHOR_MAX];
    size_t len = 0;
    p->anchor_len = 0;
    p->anchor_rc = lg_vault_anchor_read(p->vault, have, &len);
    if (!p->anchor_rc)
        p->anchor_rc = lg_client_anchor(p->client, p->vault_id, have, len, !p->o.read_only, p->anchor, &p->anchor_len);
}

static void anchor_keep(struct program *p)
{
    int rc = p->anchor_rc;
    if (!rc && p->anchor_len)
        rc = lg_volume_anchor(p->front.volume, p->anchor, p->anchor_len);
    if (rc && rc != -ENOKEY && rc != p->anchor_said) /* a full disk, the key manager away: what is there stays, and it is tried again */
        say(p, LOG_WARNING, "the vault's anchor could not be renewed: %s", strerror(-rc));
    p->anchor_said = rc;
}

static void *ticking(void *arg)
{
    struct program *p = arg;
    unsigned n = 0;
    pthread_mutex_lock(&p->mu);
    while (!p->stop) {
        struct timespec t;
        clock_gettime(CLOCK_REALTIME, &t);
        t.tv_sec += TICK_S;
        pthread_cond_timedwait(&p->stop_cond, &p->mu, &t);
        if (p->stop)
            break;
        pthread_mutex_unlock(&p->mu);
        lg_volume_tick(p->front.volume);
        n++;
        if (n % EXPIRE_S == 0 || (n % ASK_AGAIN_S == 0 && atomic_load(&p->ask_due)))
            atomic_store(&p->ask_due, !ask_anew(p));
        if (n % EXPIRE_S == 0) {
            lg_keys_expire(p->front.keys);
            lg_front_tell_reads(&p->front, pthread_self());
        }
        if (n % (p->anchor_rc ? ANCHOR_AGAIN_S : ANCHOR_S) == 0 || atomic_exchange(&p->anchor_due, false)) {
            anchor_ask(p);
            anchor_keep(p);
        }
        pthread_mutex_lock(&p->mu);
    }
    pthread_mutex_unlock(&p->mu);
    return NULL;
}

static bool stopping(void *arg)
{
    struct program *p = arg;
    pthread_mutex_lock(&p->mu);
    bool stop = p->stop;
    pthread_mutex_unlock(&p->mu);
    return stop;
}

/* After an unclean end: recovers every file, then has the sessions closed, so that nothing half committed is ever excused by them again. */
static void *sweeping(void *arg)
{
    struct program *p = arg;
    struct lg_sweep_stat st;
    int rc = lg_volume_sweep(p->front.volume, stopping, p, &st);
    if (rc == -ECANCELED)
        return NULL;
    if (rc) {
        say(p, LOG_ERR, "%llu files could not be looked at after an unclean end; the next mount tries again", (unsigned long long)st.failed);
        return NULL;
    }
    for (unsigned i = 0; i < p->n_unclean;) {
        rc = lg_client_session_close(p->client, p->unclean[i]);
        if (!rc || rc == -EINVAL || rc == -ENOENT) { /* closed already */
            i++;
            continue;
        }
        if (stopping(p))
            return NULL;
        sleep(1); /* the key manager is away */
    }
    say(p, LOG_NOTICE, "swept after an unclean end: %llu files, %llu looked into, %llu refused; nothing half committed is accepted from here on", (unsigned long long)st.files,
        (unsigned long long)st.opened, (unsigned long long)st.refused);
    return NULL;
}

static void log_to_syslog(enum fuse_log_level level, const char *fmt, va_list ap) LG_PRINTF(2, 0);
static void log_to_syslog(enum fuse_log_level level, const char *fmt, va_list ap)
{
    vsyslog((int)level, fmt, ap);
}

static void raise_limits(void)
{
    struct rlimit r;
    if (!getrlimit(RLIMIT_NOFILE, &r)) {
        r.rlim_cur = r.rlim_max;
        (void)!setrlimit(RLIMIT_NOFILE, &r);
    }
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd >= 0) {
        (void)!write(fd, "-500", 4);
        close(fd);
    }
}

/* Whoever has CAP_SYS_RESOURCE writes past quotas and into the blocks that ext4 keeps back, and so would everybody here through this process. Once the limits
 * are raised and before there are other threads: a thread has the capabilities of the one that made it. */
static void obey_quotas(void)
{
    struct __user_cap_header_struct head = { .version = _LINUX_CAPABILITY_VERSION_3 };
    struct __user_cap_data_struct caps[_LINUX_CAPABILITY_U32S_3];
    if (syscall(SYS_capget, &head, caps))
        return;
    caps[CAP_TO_INDEX(CAP_SYS_RESOURCE)].effective &= ~CAP_TO_MASK(CAP_SYS_RESOURCE);
    (void)!syscall(SYS_capset, &head, caps);
}

/* The kernel reads ahead 128 KiB unless told otherwise; larger requests cost less each. From 512 KiB on it would make 64 KiB, not 32, of the first few
 * that somebody reads of a file; and where one request ends and the next begins, whole chunks do, lest both open the same. Best effort. */
static void raise_readahead(const char *mountpoint, uint32_t chunk_size)
{
    unsigned chunk_kb = chunk_size / 1024;
    char device[LG_DEVICE_MAX], path[96], value[16];
    if (!lg_mount_device(mountpoint, device))
        return;
    snprintf(path, sizeof path, "/sys/class/bdi/%s/read_ahead_kb", device);
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    int n = snprintf(value, sizeof value, "%u", (READAHEAD_BELOW_KB - 1) / chunk_kb * chunk_kb);
    (void)!write(fd, value, (size_t)n);
    close(fd);
}

static int open_volume(struct program *p, const char *socket)
{
    struct lg_vault_info info;
    uint8_t keyring_id[LG_ID_LEN];
    struct lg_key vault = { .key = NULL }, general = { .key = NULL };
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int rc = lg_vault_read(p->vault, &info);
    if (!st)
        return fail(p, EXIT_FAILED, "out of memory");
    if (rc) {
        free(st);
        return fail(p, EXIT_FAILED, "%s %s", p->vault,
                    rc == -ENOENT            ? "is not a vault. Create one with `leadglass init DIR`"
                    : rc == -EPROTONOSUPPORT ? "was made by a newer version of Leadglass; nothing was touched. Install that version"
                    : rc == -EPROTO          ? "has a damaged header (leadglass.vault); restore that file from a backup"
                                             : strerror(-rc));
    }
    rc = lg_client_new(socket, &p->client);
    if (!rc)
        rc = lg_client_status(p->client, st);
    bool other = !rc && memcmp(st->keyring.keyring_id, info.keyring_id, LG_ID_LEN) != 0, locked = !rc && !st->unlocked;
    char have[2 * LG_ID_LEN + 1], want[2 * LG_ID_LEN + 1];
    lg_hex_encode(st->keyring.keyring_id, LG_ID_LEN, have);
    lg_hex_encode(info.keyring_id, LG_ID_LEN, want);
    int code = 0;
    if (rc)
        code = explain_client(p, rc, socket, "asking the key manager");
    else if (other)
        code = fail(p, EXIT_FAILED, "vault %s belongs to keyring %s, but the key manager at %s holds keyring %s (%s). Start the key manager of that keyring", p->vault, want, socket,
                    have, st->keyring_dir);
    else if (locked)
        code = explain_client(p, -ENOKEY, socket, "");
    free(st);
    if (code)
        return code;
    rc = lg_client_vault_get(p->client, info.vault_id, keyring_id, &vault, &general);
    lg_secret_free(vault.key);
    lg_secret_free(general.key);
    if (rc == -ENOENT)
        return fail(p, EXIT_FAILED, "keyring %s does not know vault %s: it was restored from before that vault was made, or the vault is another's", have, p->vault);
    if (rc)
        return explain_client(p, rc, socket, "asking for the vault's keys");
    memcpy(p->vault_id, info.vault_id, LG_ID_LEN);
    p->chunk_size = info.chunk_size;
    anchor_ask(p); /* before the keyring numbers a session */
    rc = lg_client_session_begin(p->client, info.vault_id, p->mountpoint, p->o.audit.off, &p->session, p->unclean, &p->n_unclean);
    if (rc == -EBUSY)
        return fail(p, EXIT_FAILED, "vault %s is mounted already (see `leadglass status`): a vault has one mount at a time", p->vault);
    if (rc)
        return explain_client(p, rc, socket, "beginning a mount session");
    p->n_unclean = p->n_unclean > LG_UNCLEAN_MAX ? LG_UNCLEAN_MAX : p->n_unclean;
    p->source = lg_key_source_client(p->client);
    rc = lg_keys_new(&p->source, info.vault_id, &p->front.keys);
    struct lg_volume_options vo = { .keys = p->front.keys, .session = p->session, .unclean = p->unclean, .n_unclean = p->n_unclean,
                                    .read_only = p->o.read_only, .noatime = p->o.noatime, .path_rule = p->rules ? on_path : NULL, .finding = on_finding, .arg = p };
    if (!rc) { /* before anything can be found or done */
        char why[512] = "";
        if (lg_front_audit_open(&p->o.audit, socket, &info, p->session, p->mountpoint, on_audit_alarm, p, &p->front.audit, why, sizeof why)) {
            (void)!lg_client_session_end(p->client, p->session);
            return fail(p, EXIT_FAILED, "%s", why);
        }
    }
    if (!rc)
        rc = lg_volume_open(p->vault, &vo, &p->front.volume);
    if (!rc) {
        anchor_keep(p);
        return 0;
    }
    lg_front_audit_close(p->front.audit, false);
    (void)!lg_client_session_end(p->client, p->session);
    return fail(p, EXIT_FAILED, "vault %s: %s", p->vault,
                rc == -EWOULDBLOCK       ? "is mounted already by another process: a vault has one mount at a time"
                : rc == -EBADMSG         ? "header does not verify under its key: it was tampered with or damaged"
                : rc == -EPROTONOSUPPORT ? "was written by a newer version of Leadglass; nothing was touched"
                : rc == -EPROTO          ? "has a damaged journal (leadglass.journal)"
                : rc == -EROFS           ? "was not unmounted cleanly: mount it writable once, so that its journal can be replayed"
                                         : strerror(-rc));
}

static int fuse_begin(struct program *p)
{
    char opts[2048];
    struct lg_front *f = &p->front;
    char ring[64] = "";
    f->lack = p->o.transport == TRANSPORT_DEV ? LG_RING_UNASKED : lg_ring_lack();
    bool uring = f->lack == LG_RING_TRIED; /* docs/PERFORMANCE.md, "Transport" */
    if (p->o.transport == TRANSPORT_URING && !uring)
        return fail(p, EXIT_FAILED, "requests cannot come over io_uring: %s. Mount with -o transport=dev or auto instead", lg_ring_reason(f->lack)->why);
    if (uring)
        snprintf(ring, sizeof ring, ",io_uring,io_uring_q_depth=%d", LG_RING_DEPTH);
    snprintf(opts, sizeof opts, "-osubtype=leadglass%s%s%s%s%s%s%s", ring, strstr(p->o.extra, "fsname=") ? "" : ",fsname=leadglass", p->o.read_only ? ",ro" : "", p->o.allow_other ? ",allow_other" : "",
             p->o.default_permissions ? ",default_permissions" : "", geteuid() == 0 ? ",suid,dev" : "", p->o.extra); /* the last that is said of a thing holds */
    char *argv[] = { (char[]){ "leadglass-fs" }, opts, p->o.debug ? (char[]){ "-d" } : NULL, NULL };
    struct fuse_args args = FUSE_ARGS_INIT(p->o.debug ? 3 : 2, argv);
    f->session = fuse_session_new(&args, &lg_front_ops, sizeof lg_front_ops, f);
    fuse_opt_free_args(&args);
    if (!f->session)
        return fail(p, EXIT_FAILED, "FUSE session cannot be set up (options: %s)", opts);
    if (uring && lg_ring_start(f, p->o.threads)) {
        fuse_session_destroy(f->session);
        f->session = NULL;
        return fail(p, EXIT_FAILED, "out of memory");
    }
    if (fuse_set_signal_handlers(f->session) || fuse_session_mount(f->session, p->mountpoint)) {
        fuse_session_destroy(f->session);
        f->session = NULL;
        return fail(p, EXIT_FAILED, "cannot mount at %s (see the line above). Mounting needs root, or fusermount3 and access to the mountpoint; allow_other by a user needs user_allow_other in /etc/fuse.conf",
                    p->mountpoint);
    }
    return 0;
}

/* Answers the kernel's first request, which it makes by mounting: who waits for the mount finds it agreed what the two do, over the ring or not. Nothing else can come
 * before. That the mount is gone again, serve finds as well. */
static void settle(struct program *p)
{
    struct lg_front *f = &p->front;
    struct fuse_buf first = { .mem = NULL };
    int n;
    while ((n = fuse_session_receive_buf(f->session, &first)) == -EINTR && !fuse_session_exited(f->session))
        ;
    if (n > 0)
        fuse_session_process_buf(f->session, &first);
    free(first.mem);
    if (n > 0 && lg_ring_running(f))
        f->lack = LG_RING_RUNS;
    lg_gone_settled(f);
}

static void warn_of_descriptors(const struct program *p)
{
    struct rlimit r;
    if (!lg_volume_handles(p->front.volume) && !getrlimit(RLIMIT_NOFILE, &r))
        say(p, LOG_WARNING, "the filesystem below the vault gives no file handles (most overlayfs), or this process may not open them (CAP_DAC_READ_SEARCH): each file and directory that the kernel "
            "remembers keeps a descriptor open here, and once there are %llu, the limit of open files, others fail with \"Too many open files\". See OPERATIONS.md, \"File handles below\"",
            (unsigned long long)r.rlim_cur);
}

static int serve(struct program *p)
{
    if (p->front.lack != LG_RING_RUNS && p->front.lack != LG_RING_UNASKED)
        say(p, LOG_NOTICE, "requests come over /dev/fuse: %s", lg_ring_reason(p->front.lack)->why);
    int uring = lg_uring_state();
    if (uring && uring != -ECANCELED)
        say(p, LOG_NOTICE, "ciphertext is read with pread: the system refuses io_uring (%s)", strerror(-uring));
    struct fuse_loop_config *c = fuse_loop_cfg_create();
    fuse_loop_cfg_set_clone_fd(c, 1);
    fuse_loop_cfg_set_max_threads(c, p->o.threads);
    unsigned idle = p->front.lack == LG_RING_RUNS ? 2 : IDLE_THREADS; /* 2: one before which forgets gather (linger), and one for an interrupt, which would start it each time */
    fuse_loop_cfg_set_idle_threads(c, p->o.threads < idle ? p->o.threads : idle);
    int rc = fuse_session_loop_mt(p->front.session, c);
    fuse_loop_cfg_destroy(c);
    lg_ring_stop(&p->front);
    return rc;
}

static int end(struct program *p, int code)
{
    struct lg_front *f = &p->front;
    pthread_mutex_lock(&p->mu);
    p->stop = true;
    pthread_cond_signal(&p->stop_cond);
    pthread_mutex_unlock(&p->mu);
    stop_telling(p);
    pthread_join(p->ticker, NULL);
    lg_gone_stop(&p->front);
    lg_pages_stop(&p->front);
    fuse_session_unmount(f->session);
    if (p->sweeping)
        pthread_join(p->sweeper, NULL);
    lg_watch_stop(p->watch);
    fuse_remove_signal_handlers(f->session);
    fuse_session_destroy(f->session);
    anchor_ask(p);
    anchor_keep(p);
    int rc = lg_volume_close(f->volume);
    lg_found_free(p->found);
    p->found = NULL;
    lg_front_audit_close(f->audit, rc == 0);
    f->audit = NULL;
    if (rc) {
        say(p, LOG_ERR, "not everything could be written when unmounting: %s. The session is left open for recovery at the next mount", strerror(-rc));
        code = EXIT_FAILED;
    } else {
        rc = lg_client_session_end(p->client, p->session);
        if (rc)
            say(p, LOG_WARNING, "the key manager could not be told of the clean end: %s. The next mount will check what this one wrote", strerror(-rc));
    }
    lg_keys_free(f->keys);
    lg_client_free(p->client);
    lg_rules_free(p->rules);
    say(p, LOG_NOTICE, "unmounted %s", p->mountpoint);
    return code;
}

/* ready: pipe to the waiting parent, or -1. */
static int run(struct program *p, int ready)
{
    char socket[PATH_MAX], error[1200];
    int code = check_places(p, socket);
    if (code)
        return code;
    if (p->o.rules && lg_rules_load(p->o.rules, &p->rules, error, sizeof error))
        return fail(p, EXIT_USAGE, "%s", error);
    p->front.ruled = p->rules != NULL;
    if (lg_found_new(FOUND_MS, NULL, say_found, p, &p->found))
        return fail(p, EXIT_FAILED, "out of memory");
    if (lg_found_start(p->found))
        return fail(p, EXIT_FAILED, "cannot start threads");
    raise_limits();
    obey_quotas();
    umask(0); /* modes arrive as they are to be */
    p->front.entry_timeout = p->o.entry_timeout;
    p->front.attr_timeout = p->o.attr_timeout;
    p->front.read_only = p->o.read_only;
    p->front.unchecked = !p->o.default_permissions;
    code = open_volume(p, socket);
    if (code)
        return code;
    code = fuse_begin(p);
    if (code) {
        lg_front_audit_close(p->front.audit, true);
        if (lg_volume_close(p->front.volume) == 0)
            (void)!lg_client_session_end(p->client, p->session);
        return code;
    }
    if (lg_gone_start(&p->front) || lg_pages_start(&p->front) || lg_watch_start(socket, p->session, on_event, p, &p->watch) || pthread_create(&p->ticker, NULL, ticking, p)) {
        stop_telling(p);
        fuse_session_unmount(p->front.session);
        if (lg_volume_close(p->front.volume) == 0)
            (void)!lg_client_session_end(p->client, p->session);
        return fail(p, EXIT_FAILED, "cannot start threads");
    }
    settle(p);
    lg_front_tell_reads(&p->front, p->ticker); /* before anybody asks */
    raise_readahead(p->mountpoint, p->chunk_size);
    if (ready >= 0) {
        uint8_t ok = EXIT_OK;
        warn_of_descriptors(p); /* who waits for the mount; the log has it as well */
        (void)!chdir("/"); /* hold no other filesystem busy */
        int null = open("/dev/null", O_RDWR);
        openlog("leadglass-fs", LOG_PID, LOG_DAEMON);
        lg_found_tick(p->found); /* what opening found is for who waits */
        p->to_syslog = true; /* the threads look at it */
        fuse_set_log_func(log_to_syslog);
        if (null >= 0) {
            dup2(null, 0);
            dup2(null, 1);
            dup2(null, 2);
            close(null);
        }
        (void)!write(ready, &ok, 1);
        close(ready);
    }
    say(p, LOG_NOTICE, "vault %s mounted at %s, session %llu%s", p->vault, p->mountpoint, (unsigned long long)p->session, p->n_unclean ? " (an earlier one ended uncleanly)" : "");
    if (p->o.audit.off)
        say(p, LOG_WARNING, "audit=off: NO ACCESS LOG of this mount is kept");
    warn_of_descriptors(p);
    p->sweeping = p->n_unclean && !p->o.read_only && pthread_create(&p->sweeper, NULL, sweeping, p) == 0;
    int rc = serve(p);
    return end(p, rc < 0 ? EXIT_FAILED : EXIT_OK);
}

static int start(struct program *p, int ready)
{
    if (lg_secret_init(p->o.allow_unlocked))
        return fail(p, EXIT_FAILED, "key memory cannot be locked. Raise the limit (ulimit -l, LimitMEMLOCK=), or say --allow-unlocked-memory");
    if (lg_crypto_init())
        return fail(p, EXIT_FAILED, "OpenSSL lacks an algorithm that is needed, or AES-256-GCM fails its test");
    int code = run(p, ready);
    lg_found_free(p->found); /* unless it ended in order: what was found belongs to the reason */
    return code;
}

int lg_front_run(int argc, char **argv)
{
    static struct program p;
    bool root = geteuid() == 0;
    p.o = (struct lg_front_options){ .allow_other = root, .default_permissions = true, .entry_timeout = 60, .attr_timeout = 60, .threads = 64, .audit = { .window_s = 10, .keep_days = LG_AUDIT_KEEP_DAYS_MIN } };
    pthread_mutex_init(&p.mu, NULL);
    pthread_mutex_init(&p.telling, NULL);
    pthread_cond_init(&p.stop_cond, NULL);
    int code = lg_front_parse(argc, argv, &p.o);
    if (code)
        return code;
    if (p.o.foreground)
        return start(&p, -1);
    int fds[2];
    if (pipe2(fds, O_CLOEXEC))
        return fail(NULL, EXIT_FAILED, "%s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0)
        return fail(NULL, EXIT_FAILED, "%s", strerror(errno));
    if (pid == 0) {
        close(fds[0]);
        setsid();
        code = start(&p, fds[1]);
        if (!p.to_syslog) { /* the parent still waits: give it the reason's number */
            uint8_t c = (uint8_t)code;
            (void)!write(fds[1], &c, 1);
        }
        _exit(code);
    }
    close(fds[1]);
    uint8_t c = EXIT_FAILED;
    ssize_t n;
    while ((n = read(fds[0], &c, 1)) < 0 && errno == EINTR)
        ;
    close(fds[0]);
    return n == 1 ? c : EXIT_FAILED;
}
