#include "ring.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leadglass/bytes.h"

enum { PROBE = 16 };
static const char magic[8] = "LGRING1";

struct shared { /* layout is this program's own: a ring of another layout is not adopted */
    char magic[8];
    uint32_t size, group_size;
    uint8_t chain[LG_ID_LEN];
    _Atomic uint64_t head, tail; /* bytes ever written, bytes ever taken */
    _Atomic uint64_t intent_to, intent_seq, intent_n;
    uint32_t n_groups;
    struct lg_group group[LG_GROUPS];
    uint8_t ring[LG_RING_BYTES];
};

struct lg_ring {
    struct shared *s;
    char *path;
};

int lg_ring_open(const char *path, const uint8_t chain[LG_ID_LEN], struct lg_ring **ret)
{
    struct lg_ring *r = calloc(1, sizeof *r);
    struct stat st;
    if (!r)
        return -ENOMEM;
    r->path = strdup(path);
    int fd = r->path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    int rc = !r->path ? -ENOMEM : fd < 0 || fstat(fd, &st) ? -errno : 0;
    if (!rc && (st.st_uid != geteuid() || !S_ISREG(st.st_mode) || st.st_mode & 077))
        rc = -EPERM; /* somebody else was first */
    bool fresh = !rc && st.st_size != (off_t)sizeof *r->s;
    if (fresh && (ftruncate(fd, 0) || posix_fallocate(fd, 0, sizeof *r->s)))
        rc = -ENOSPC;
    if (!rc) {
        r->s = mmap(NULL, sizeof *r->s, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (r->s == MAP_FAILED) {
            r->s = NULL;
            rc = -errno;
        }
    }
    if (fd >= 0)
        close(fd);
    if (rc) {
        free(r->path);
        free(r);
        return rc;
    }
    struct shared *s = r->s;
    uint64_t head = atomic_load(&s->head), tail = atomic_load(&s->tail);
    if (memcmp(s->magic, magic, sizeof magic) != 0 || s->size != sizeof *s || s->group_size != sizeof *s->group || memcmp(s->chain, chain, LG_ID_LEN) != 0 || head < tail ||
        head - tail > LG_RING_BYTES || head > LG_RING_HEAD_MAX) {
        memset(s, 0, offsetof(struct shared, ring));
        s->size = sizeof *s;
        s->group_size = sizeof *s->group;
        memcpy(s->chain, chain, LG_ID_LEN);
        memcpy(s->magic, magic, sizeof magic);
    }
    *ret = r;
    return 0;
}

void lg_ring_close(struct lg_ring *r, bool remove)
{
    if (!r)
        return;
    if (remove)
        unlink(r->path);
    munmap(r->s, sizeof *r->s);
    free(r->path);
    free(r);
}

/* ---- entries ------------------------------------------------------------------------------------------------------------------ */

size_t lg_ring_free(const struct lg_ring *r) { return (size_t)(LG_RING_BYTES - (atomic_load(&r->s->head) - atomic_load(&r->s->tail))); }
bool lg_ring_empty(const struct lg_ring *r) { return atomic_load(&r->s->head) == atomic_load(&r->s->tail); }
uint64_t lg_ring_tail(const struct lg_ring *r) { return atomic_load(&r->s->tail); }
uint64_t lg_ring_head(const struct lg_ring *r) { return atomic_load(&r->s->head); }

static void copy_in(struct lg_ring *r, uint64_t at, const uint8_t *p, size_t n)
{
    size_t o = (size_t)(at % LG_RING_BYTES), k = n < LG_RING_BYTES - o ? n : LG_RING_BYTES - o;
    memcpy(r->s->ring + o, p, k);
    memcpy(r->s->ring, p + k, n - k);
}

static void copy_out(const struct lg_ring *r, uint64_t at, uint8_t *p, size_t n)
{
    size_t o = (size_t)(at % LG_RING_BYTES), k = n < LG_RING_BYTES - o ? n : LG_RING_BYTES - o;
    memcpy(p, r->s->ring + o, k);
    memcpy(p + k, r->s->ring, n - k);
}

bool lg_ring_push(struct lg_ring *r, const struct lg_audit_record *rec)
{
    uint8_t buf[LG_ENTRY_MAX];
    struct lg_wr w = lg_wr(buf, sizeof buf);
    lg_wr_u32(&w, 0);
    lg_wr_bytes(&w, rec, offsetof(struct lg_audit_record, user)); /* read back by this same build, see size above */
    lg_wr_str(&w, rec->user);
    lg_wr_str(&w, rec->host);
    lg_wr_str(&w, rec->exe);
    lg_wr_str(&w, rec->text);
    lg_wr_str(&w, rec->path);
    lg_wr_str(&w, rec->target);
    if (w.bad || w.len > lg_ring_free(r))
        return false;
    struct lg_wr len = lg_wr(buf, 4);
    lg_wr_u32(&len, (uint32_t)w.len);
    uint64_t head = atomic_load(&r->s->head);
    copy_in(r, head, buf, w.len);
    atomic_store(&r->s->head, head + w.len); /* only now it is there, whenever we die */
    return true;
}

bool lg_ring_at(const struct lg_ring *r, uint64_t *at, struct lg_audit_record *ret)
{
    uint8_t buf[LG_ENTRY_MAX];
    uint64_t head = atomic_load(&r->s->head);
    if (*at >= head || head - *at < 4)
        return false;
    copy_out(r, *at, buf, 4);
    struct lg_rd d = lg_rd(buf, 4);
    size_t n = lg_rd_u32(&d);
    if (n < 4 || n > sizeof buf || n > head - *at)
        return false;
    copy_out(r, *at, buf, n);
    d = lg_rd(buf + 4, n - 4);
    lg_audit_record_init(ret);
    lg_rd_copy(&d, ret, offsetof(struct lg_audit_record, user));
    lg_rd_str(&d, ret->user, LG_AUDIT_NAME_MAX);
    lg_rd_str(&d, ret->host, LG_AUDIT_NAME_MAX);
    lg_rd_str(&d, ret->exe, LG_AUDIT_EXE_MAX);
    lg_rd_str(&d, ret->text, LG_AUDIT_TEXT_MAX);
    lg_rd_str(&d, ret->path, LG_AUDIT_PATH_MAX);
    lg_rd_str(&d, ret->target, LG_AUDIT_PATH_MAX);
    ret->event[LG_AUDIT_EVENT_MAX] = ret->how[LG_AUDIT_EVENT_MAX] = 0;
    if (!lg_rd_done(&d))
        return false;
    *at += n;
    return true;
}

void lg_ring_intend(struct lg_ring *r, uint64_t to, uint64_t seq, uint64_t n)
{
    atomic_store(&r->s->intent_n, 0);
    atomic_store(&r->s->intent_to, to);
    atomic_store(&r->s->intent_seq, seq);
    atomic_store(&r->s->intent_n, n);
}

void lg_ring_done(struct lg_ring *r, uint64_t to)
{
    atomic_store(&r->s->tail, to);
    atomic_store(&r->s->intent_n, 0);
}

uint64_t lg_ring_recover(struct lg_ring *r, uint64_t last, uint64_t *ret_lost)
{
    static struct lg_audit_record rec;
    uint64_t n = atomic_load(&r->s->intent_n), seq = atomic_load(&r->s->intent_seq), at = lg_ring_tail(r), left = 0;
    for (; n && seq <= last && lg_ring_at(r, &at, &rec); n--, seq++)
        ;
    lg_ring_done(r, at);
    while (lg_ring_at(r, &at, &rec))
        left++;
    *ret_lost = lg_ring_head(r) - at;
    atomic_store(&r->s->head, at);
    r->s->n_groups = 0;
    for (unsigned i = 0; i < LG_GROUPS; i++)
        r->s->n_groups += r->s->group[i].hash != 0;
    return left;
}

/* ---- groups -------------------------------------------------------------------------------------------------------------------- */

static struct lg_group_key key_of(const struct lg_audit_record *rec)
{
    struct lg_group_key k;
    memset(&k, 0, sizeof k); /* padding is compared too */
    k.uid = rec->uid;
    k.gid = rec->gid;
    k.pid = rec->pid;
    k.outcome = rec->outcome;
    k.has = rec->has & (LG_AUDIT_WHO | LG_AUDIT_STUDY | LG_AUDIT_MOVED);
    if (rec->has & LG_AUDIT_STUDY) {
        k.key = rec->key;
        memcpy(k.study, rec->study, LG_ID_LEN);
    }
    memcpy(k.event, rec->event, strnlen(rec->event, LG_AUDIT_EVENT_MAX));
    memcpy(k.how, rec->how, strnlen(rec->how, LG_AUDIT_EVENT_MAX));
    return k;
}

static uint64_t hash_of(const struct lg_group_key *k)
{
    uint64_t h = 0x9e3779b97f4a7c15u, w;
    const uint8_t *p = (const uint8_t *)k;
    for (size_t i = 0; i + 8 <= sizeof *k; i += 8) {
        memcpy(&w, p + i, 8);
        h = (h ^ w) * 0xff51afd7ed558ccdu;
        h ^= h >> 32;
    }
    return h | 1;
}

struct lg_group *lg_group_find(struct lg_ring *r, const struct lg_audit_record *rec)
{
    struct lg_group_key k = key_of(rec);
    uint64_t h = hash_of(&k);
    for (unsigned i = 0; i < PROBE; i++) {
        struct lg_group *g = &r->s->group[((h >> 8) + i) % LG_GROUPS];
        if (g->hash == h && memcmp(&g->k, &k, sizeof k) == 0)
            return g;
    }
    return NULL;
}

struct lg_group *lg_group_make(struct lg_ring *r, const struct lg_audit_record *rec)
{
    struct lg_group_key k = key_of(rec);
    uint64_t h = hash_of(&k);
    for (unsigned i = 0; i < PROBE; i++) {
        struct lg_group *g = &r->s->group[((h >> 8) + i) % LG_GROUPS];
        if (g->hash)
            continue;
        *g = (struct lg_group){ .k = k };
        memcpy(g->exe, rec->exe, strnlen(rec->exe, sizeof g->exe - 1)); /* not what is behind it: a record is not cleared whole, and this is in a file */
        g->hash = h;
        r->s->n_groups++;
        return g;
    }
    return NULL;
}

void lg_group_free(struct lg_ring *r, struct lg_group *g)
{
    g->hash = 0;
    r->s->n_groups--;
}

struct lg_group *lg_group_nth(struct lg_ring *r, unsigned i) { return r->s->group[i].hash ? &r->s->group[i] : NULL; }
unsigned lg_groups_used(const struct lg_ring *r) { return r->s->n_groups; }

void lg_group_record(const struct lg_group *g, struct lg_audit_record *ret)
{
    lg_audit_record_init(ret);
    ret->time_us = g->first_us;
    ret->until_us = g->last_us;
    ret->uid = g->k.uid;
    ret->gid = g->k.gid;
    ret->pid = g->k.pid;
    ret->outcome = g->k.outcome;
    ret->key = g->k.key;
    ret->has = g->k.has | LG_AUDIT_COUNT;
    memcpy(ret->study, g->k.study, LG_ID_LEN);
    memcpy(ret->event, g->k.event, sizeof ret->event);
    memcpy(ret->how, g->k.how, sizeof ret->how);
    memcpy(ret->exe, g->exe, sizeof ret->exe);
    ret->exe[LG_AUDIT_EXE_MAX] = ret->event[LG_AUDIT_EVENT_MAX] = ret->how[LG_AUDIT_EVENT_MAX] = 0;
    ret->count = g->count;
    ret->read = g->read;
    ret->written = g->written;
}
