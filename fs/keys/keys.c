#include "leadglass/keys.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "leadglass/later.h"

/* One key, or the knowledge that it is revoked. */
struct held {
    struct held *next;     /* by key id */
    struct held *next_uid; /* by study, newest version only */
    struct lg_kref *k;     /* NULL: revoked */
    uint8_t kid[LG_ID_LEN];
    uint32_t version; /* 0 for a revoked one: every version */
    char uid[LG_UID_MAX + 1]; /* empty: not asked for by study */
    time_t until;
    bool stale; /* may have been revoked while we were not told: ask again if anybody answers */
};

enum { BUCKETS = 4096, WRAPS_MAX = 1024 };

struct lg_keys {
    struct lg_key_source src;
    uint8_t vault_id[LG_ID_LEN];
    pthread_mutex_t mu;
    pthread_cond_t answered;
    atomic_uint n_asking;
    bool locked;
    unsigned epoch; /* of lock and revocation: an answer asked for before is not kept */
    struct lg_kref *vault, *general;
    struct held *by_kid[BUCKETS], *by_uid[BUCKETS];
    struct asking {
        struct asking *next;
        char uid[LG_UID_MAX + 1];
        uint8_t kid[LG_ID_LEN];
        uint32_t version;
    } *asking; /* requests under way: who wants the same waits */
};

/* The key manager is asked, counted for lg_keys_asking. */
#define ASK(k, what, ...)                                                                                                                                                     \
    __extension__({                                                                                                                                                           \
        atomic_fetch_add_explicit(&(k)->n_asking, 1, memory_order_relaxed);                                                                                                   \
        int asked_ = (k)->src.what((k)->src.arg, __VA_ARGS__);                                                                                                                \
        atomic_fetch_sub_explicit(&(k)->n_asking, 1, memory_order_relaxed);                                                                                                   \
        asked_;                                                                                                                                                               \
    })

static time_t now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t); /* goes on during suspend */
    return t.tv_sec;
}

static struct lg_kref *kref_ref(struct lg_kref *k)
{
    __atomic_add_fetch(&k->refs, 1, __ATOMIC_RELAXED);
    return k;
}

static atomic_uint wraps; /* kept, of all keys: some 2 KiB each */

bool lg_kref_keep_wrap(struct lg_kref *k, struct lg_siv *wrap)
{
    struct lg_siv *none = NULL;
    if (atomic_fetch_add(&wraps, 1) < WRAPS_MAX && atomic_compare_exchange_strong(&k->wrap, &none, wrap))
        return true;
    atomic_fetch_sub(&wraps, 1);
    return false;
}

void lg_kref_unref(struct lg_kref *k)
{
    if (!k || __atomic_sub_fetch(&k->refs, 1, __ATOMIC_ACQ_REL))
        return;
    if (k->wrap)
        atomic_fetch_sub(&wraps, 1);
    lg_siv_free(k->wrap);
    lg_secret_free(k->key);
    free(k);
}

/* Takes over the key. */
static struct lg_kref *kref_new(struct lg_key *key)
{
    struct lg_kref *k = malloc(sizeof *k);
    if (!k) {
        lg_secret_free(key->key);
        return NULL;
    }
    memcpy(k->kid, key->kid, LG_ID_LEN);
    k->version = key->version;
    k->kind = key->kind;
    k->key = key->key;
    k->wrap = NULL;
    k->refs = 1;
    return k;
}

int lg_keys_new(const struct lg_key_source *src, const uint8_t vault_id[LG_ID_LEN], struct lg_keys **ret)
{
    struct lg_keys *k = calloc(1, sizeof *k);
    if (!k)
        return -ENOMEM;
    k->src = *src;
    memcpy(k->vault_id, vault_id, LG_ID_LEN);
    pthread_mutex_init(&k->mu, NULL);
    pthread_cond_init(&k->answered, NULL);
    *ret = k;
    return 0;
}

static unsigned kid_bucket(const uint8_t kid[LG_ID_LEN]) { return (kid[0] | (unsigned)kid[1] << 8) % BUCKETS; }
static unsigned uid_bucket(const char *uid)
{
    uint32_t h = 2166136261u;
    for (; *uid; uid++)
        h = (h ^ (uint8_t)*uid) * 16777619u;
    return h % BUCKETS;
}

/* ---- mu held ------------------------------------------------------------------------------------------------------------------------ */

static void held_free(struct held *h)
{
    lg_kref_unref(h->k);
    free(h);
}

static void uid_unlink(struct lg_keys *k, struct held *h)
{
    if (!h->uid[0])
        return;
    for (struct held **p = &k->by_uid[uid_bucket(h->uid)]; *p; p = &(*p)->next_uid)
        if (*p == h) {
            *p = h->next_uid;
            break;
        }
    h->uid[0] = 0;
}

/* Takes out every held key for which gone says so. */
static bool sweep(struct lg_keys *k, bool (*gone)(const struct held *h, const void *arg), const void *arg)
{
    bool any = false;
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct held **p = &k->by_kid[b]; *p;) {
            struct held *h = *p;
            if (gone && !gone(h, arg)) {
                p = &h->next;
                continue;
            }
            any = true;
            *p = h->next;
            uid_unlink(k, h);
            held_free(h);
        }
    return any;
}

static void vault_forget(struct lg_keys *k)
{
    lg_kref_unref(k->vault);
    lg_kref_unref(k->general);
    k->vault = k->general = NULL;
}

static struct held *find_kid(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version)
{
    for (struct held *h = k->by_kid[kid_bucket(kid)]; h; h = h->next)
        if (!memcmp(h->kid, kid, LG_ID_LEN) && (h->version == version || !h->k))
            return h;
    return NULL;
}

static struct held *find_uid(struct lg_keys *k, const char *uid)
{
    for (struct held *h = k->by_uid[uid_bucket(uid)]; h; h = h->next_uid)
        if (strcmp(h->uid, uid) == 0)
            return h;
    return NULL;
}

/* Keeps a key (which it takes over); empty uid: not asked for by study. */
static int keep(struct lg_keys *k, struct lg_key *key, const char *uid, unsigned lease_s, struct lg_kref **ret)
{
    struct held *h = find_kid(k, key->kid, key->version);
    if (h && h->k) { /* known already: the lease is renewed */
        lg_secret_free(key->key);
    } else {
        h = calloc(1, sizeof *h);
        struct lg_kref *r = kref_new(key);
        if (!h || !r) {
            free(h);
            lg_kref_unref(r);
            return -ENOMEM;
        }
        h->k = r;
        memcpy(h->kid, r->kid, LG_ID_LEN);
        h->version = r->version;
        h->next = k->by_kid[kid_bucket(h->kid)];
        k->by_kid[kid_bucket(h->kid)] = h;
    }
    h->until = now() + (time_t)lease_s;
    h->stale = false;
    if (uid[0] && strcmp(h->uid, uid) != 0) {
        struct held *old = find_uid(k, uid);
        if (old)
            uid_unlink(k, old);
        uid_unlink(k, h);
        snprintf(h->uid, sizeof h->uid, "%s", uid);
        h->next_uid = k->by_uid[uid_bucket(uid)];
        k->by_uid[uid_bucket(uid)] = h;
    }
    *ret = kref_ref(h->k);
    return 0;
}

/* From what is held: 1 when it is not there (or should rather be asked for again). */
static int from_held(const struct held *h, bool even_stale, struct lg_kref **ret)
{
    if (!h || (h->k && h->until <= now()))
        return 1;
    if (!h->k)
        return -EKEYREVOKED;
    if (h->stale && !even_stale)
        return 1;
    *ret = kref_ref(h->k);
    return 0;
}

static bool nobody_answers(int rc) { return rc == -ECONNREFUSED || rc == -ENOENT || rc == -ETIMEDOUT || rc == -ECONNRESET || rc == -EPIPE; }

/* What the application sees when the key manager cannot be asked. */
static int absent(int rc) { return nobody_answers(rc) ? -ENOKEY : rc; }

static struct asking *under_way(struct lg_keys *k, const struct asking *a)
{
    for (struct asking *x = k->asking; x; x = x->next)
        if (strcmp(x->uid, a->uid) == 0 && x->version == a->version && !memcmp(x->kid, a->kid, LG_ID_LEN))
            return x;
    return NULL;
}

/* One key by study (info) or by id. The source is called without the lock; concurrent askers of one key wait for one answer. */
static int ask(struct lg_keys *k, const struct lg_study_info *info, const uint8_t *kid, uint32_t version, struct lg_kref **ret)
{
    struct asking me = { .version = version };
    struct lg_key key = { .key = NULL };
    unsigned lease = 0;
    int rc;
    if (info)
        snprintf(me.uid, sizeof me.uid, "%s", info->uid);
    else
        memcpy(me.kid, kid, LG_ID_LEN);
    pthread_mutex_lock(&k->mu);
    for (;;) {
        rc = k->locked ? -ENOKEY : from_held(info ? find_uid(k, me.uid) : find_kid(k, me.kid, version), false, ret);
        if (rc <= 0 || lg_later() || !under_way(k, &me))
            break;
        pthread_cond_wait(&k->answered, &k->mu);
    }
    if (rc <= 0 || lg_later()) {
        pthread_mutex_unlock(&k->mu);
        return rc <= 0 ? rc : -LG_ELATER;
    }
    me.next = k->asking;
    k->asking = &me;
    unsigned epoch = k->epoch;
    pthread_mutex_unlock(&k->mu);

    rc = info ? ASK(k, study, info, &key, &lease) : ASK(k, by_id, me.kid, version, &key, &lease);

    pthread_mutex_lock(&k->mu);
    for (struct asking **p = &k->asking; *p; p = &(*p)->next)
        if (*p == &me) {
            *p = me.next;
            break;
        }
    if (!rc && (k->locked || k->epoch != epoch)) { /* locked or revoked meanwhile: perhaps this one */
        lg_secret_free(key.key);
        rc = k->locked ? -ENOKEY : -EAGAIN;
    } else if (!rc) {
        rc = keep(k, &key, me.uid, lease, ret);
    } else if (nobody_answers(rc)) {
        int r = from_held(info ? find_uid(k, me.uid) : find_kid(k, me.kid, version), true, ret);
        rc = r == 1 ? absent(rc) : r;
    }
    pthread_cond_broadcast(&k->answered);
    pthread_mutex_unlock(&k->mu);
    return rc;
}

static int ask_again(struct lg_keys *k, const struct lg_study_info *info, const uint8_t *kid, uint32_t version, struct lg_kref **ret)
{
    int rc;
    do
        rc = ask(k, info, kid, version, ret);
    while (rc == -EAGAIN);
    return rc;
}

static int vault_keys(struct lg_keys *k, bool general, struct lg_kref **ret)
{
    struct lg_key a = { .key = NULL }, b = { .key = NULL };
    pthread_mutex_lock(&k->mu);
    int rc = k->locked ? -ENOKEY : !k->vault && lg_later() ? -LG_ELATER : 0;
    if (!rc && !k->vault) {
        pthread_mutex_unlock(&k->mu);
        rc = ASK(k, vault, k->vault_id, &a, &b);
        pthread_mutex_lock(&k->mu);
        if (!rc && k->locked)
            rc = -ENOKEY;
        if (!rc && !k->vault) {
            k->vault = kref_new(&a);
            k->general = kref_new(&b);
            a.key = b.key = NULL;
            if (!k->vault || !k->general) {
                vault_forget(k);
                rc = -ENOMEM;
            }
        }
        lg_secret_free(a.key);
        lg_secret_free(b.key);
        rc = absent(rc);
    }
    if (!rc)
        *ret = kref_ref(general ? k->general : k->vault);
    pthread_mutex_unlock(&k->mu);
    return rc;
}

bool lg_keys_asking(const struct lg_keys *k) { return atomic_load_explicit(&k->n_asking, memory_order_relaxed) > 0; }

/* ---- the interface -------------------------------------------------------------------------------------------------------------------- */

int lg_keys_vault(struct lg_keys *k, struct lg_kref **ret) { return vault_keys(k, false, ret); }
int lg_keys_general(struct lg_keys *k, struct lg_kref **ret) { return vault_keys(k, true, ret); }
int lg_keys_study(struct lg_keys *k, const struct lg_study_info *info, struct lg_kref **ret) { return ask_again(k, info, NULL, 0, ret); }

int lg_keys_by_id(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version, struct lg_kref **ret)
{
    int rc = lg_keys_general(k, ret); /* the commonest one is at hand already */
    if (rc)
        return rc;
    if (!memcmp((*ret)->kid, kid, LG_ID_LEN) && (*ret)->version == version)
        return 0;
    lg_kref_unref(*ret);
    *ret = NULL;
    return ask_again(k, NULL, kid, version, ret);
}

int lg_keys_still(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], uint32_t version, bool may_ask)
{
    struct lg_kref *ref = NULL;
    int rc = may_ask ? lg_keys_by_id(k, kid, version, &ref) : 1;
    if (!rc) /* on an error nothing was given */
        lg_kref_unref(ref);
    if (rc == -EKEYREVOKED)
        return rc;
    pthread_mutex_lock(&k->mu);
    const struct held *h = find_kid(k, kid, version);
    bool runs = h && h->k && h->until > now();
    if (h && !h->k)
        rc = -EKEYREVOKED;
    else if (runs && h->stale) /* nobody could say */
        rc = -EAGAIN;
    else if (rc == 1)
        rc = runs || (k->general && k->general->version == version && !memcmp(k->general->kid, kid, LG_ID_LEN)) ? 0 : -ENOKEY;
    pthread_mutex_unlock(&k->mu);
    return rc;
}

int lg_keys_provisional(struct lg_keys *k, struct lg_kref **ret)
{
    struct lg_key key = { .key = NULL };
    unsigned lease = 0;
    pthread_mutex_lock(&k->mu);
    int rc = k->locked ? -ENOKEY : 0;
    pthread_mutex_unlock(&k->mu);
    if (!rc)
        rc = lg_later() ? -LG_ELATER : absent(ASK(k, provisional, &key, &lease));
    if (rc)
        return rc;
    pthread_mutex_lock(&k->mu);
    rc = keep(k, &key, "", lease, ret);
    pthread_mutex_unlock(&k->mu);
    return rc;
}

int lg_keys_attach(struct lg_keys *k, const uint8_t kid[LG_ID_LEN], const struct lg_study_info *info)
{
    return lg_later() ? -LG_ELATER : absent(ASK(k, attach, kid, info));
}

int lg_keys_assign(struct lg_keys *k, const uint8_t *act, const char *uid, const uint8_t from[LG_ID_LEN], const uint8_t file_id[LG_ID_LEN], bool now)
{
    return k->src.assign ? absent(ASK(k, assign, act, uid, from, file_id, now)) : -EPERM;
}

void lg_keys_lock(struct lg_keys *k)
{
    pthread_mutex_lock(&k->mu);
    k->locked = true;
    k->epoch++;
    sweep(k, NULL, NULL);
    vault_forget(k);
    pthread_mutex_unlock(&k->mu);
}

static bool no_longer_sure(const struct held *h, const void *arg)
{
    (void)arg;
    return !h->k;
}

void lg_keys_unlock(struct lg_keys *k)
{
    pthread_mutex_lock(&k->mu);
    k->locked = false;
    k->epoch++;
    sweep(k, no_longer_sure, NULL); /* what was revoked may have been taken back: ask again */
    pthread_mutex_unlock(&k->mu);
}

void lg_keys_revoke(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n)
{
    pthread_mutex_lock(&k->mu);
    k->epoch++;
    for (unsigned i = 0; i < n; i++) {
        for (struct held **p = &k->by_kid[kid_bucket(kids[i])]; *p;) {
            struct held *h = *p;
            if (memcmp(h->kid, kids[i], LG_ID_LEN) != 0) {
                p = &h->next;
                continue;
            }
            *p = h->next;
            uid_unlink(k, h);
            held_free(h);
        }
        struct held *h = calloc(1, sizeof *h); /* without memory the key manager still says no */
        if (h) {
            memcpy(h->kid, kids[i], LG_ID_LEN);
            h->next = k->by_kid[kid_bucket(kids[i])];
            k->by_kid[kid_bucket(kids[i])] = h;
        }
    }
    pthread_mutex_unlock(&k->mu);
}

void lg_keys_resync(struct lg_keys *k)
{
    pthread_mutex_lock(&k->mu);
    if (k->locked) { /* that it was unlocked may have been told while nobody listened: whoever is asked knows */
        k->locked = false;
        k->epoch++;
    }
    for (unsigned b = 0; b < BUCKETS; b++)
        for (struct held *h = k->by_kid[b]; h; h = h->next)
            h->stale = true;
    pthread_mutex_unlock(&k->mu);
}

void lg_keys_rotated(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n)
{
    pthread_mutex_lock(&k->mu);
    k->epoch++; /* an answer under way may be the older version */
    for (unsigned b = 0; !n && b < BUCKETS; b++)
        for (struct held *h = k->by_kid[b]; h; h = h->next)
            h->stale = h->stale || h->uid[0];
    for (unsigned i = 0; i < n; i++)
        for (struct held *h = k->by_kid[kid_bucket(kids[i])]; h; h = h->next)
            if (memcmp(h->kid, kids[i], LG_ID_LEN) == 0)
                h->stale = true;
    pthread_mutex_unlock(&k->mu);
}

struct trimmed {
    const uint8_t (*kids)[LG_ID_LEN];
    unsigned n;
};
static bool is_trimmed(const struct held *h, const void *arg)
{
    const struct trimmed *t = arg;
    for (unsigned i = 0; i < t->n; i++)
        if (memcmp(h->kid, t->kids[i], LG_ID_LEN) == 0)
            return h->k != NULL;
    return h->k && !t->n;
}

void lg_keys_trimmed(struct lg_keys *k, const uint8_t (*kids)[LG_ID_LEN], unsigned n)
{
    const struct trimmed t = { kids, n };
    pthread_mutex_lock(&k->mu);
    k->epoch++; /* an answer under way may be an older version */
    sweep(k, is_trimmed, &t);
    pthread_mutex_unlock(&k->mu);
}

static bool expired(const struct held *h, const void *arg) { return h->k && h->until <= *(const time_t *)arg; }

bool lg_keys_expire(struct lg_keys *k)
{
    time_t t = now();
    pthread_mutex_lock(&k->mu);
    bool any = sweep(k, expired, &t);
    pthread_mutex_unlock(&k->mu);
    return any;
}

void lg_keys_free(struct lg_keys *k)
{
    if (!k)
        return;
    sweep(k, NULL, NULL);
    vault_forget(k);
    pthread_mutex_destroy(&k->mu);
    pthread_cond_destroy(&k->answered);
    free(k);
}
