/* A size-class allocator over locked, undumpable chunks. Large blocks get a mapping of their own. */
#include "leadglass/secret.h"

#include <openssl/crypto.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>

#include "internal.h"

enum {
    HEADER = 16,             /* before each block: its size; keeps 16-byte alignment */
    CHUNK = 256 * 1024,      /* mapped at a time for small blocks */
    SMALL_MAX = 16 * 1024,   /* largest block of a size class */
    CLASSES = 10,            /* 32, 64 .. 16384 */
    SCRATCH_MIN = 8 * 1024 * 1024,
    BLOCK_MAX = 1024 * 1024, /* contract of lg_secret_alloc */
};

struct block {
    size_t size; /* bytes of the whole block, header included */
    struct block *next;
};
_Static_assert(sizeof(struct block) <= HEADER, "the header holds size and link");

/* OpenSSL's allocation hooks have no argument, so this one state is the process's. */
static struct {
    pthread_mutex_t lock; /* held for less than it takes to fall asleep, but for a new chunk */
    struct block *free[CLASSES];
    uint8_t *chunk;
    size_t chunk_left;
    bool allow_unlocked, unlocked;
} mem = { .lock = PTHREAD_ADAPTIVE_MUTEX_INITIALIZER_NP };

void lg_wipe(void *p, size_t len)
{
    if (p && len)
        explicit_bzero(p, len);
}

bool lg_equal(const void *a, const void *b, size_t len) { return CRYPTO_memcmp(a, b, len) == 0; }

static void *map_locked(size_t len)
{
    void *p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    if (mlock(p, len) != 0) {
        /* Only scrypt asks for that much: its scratch is wiped within a second, and an ordinary user may not lock it. */
        bool scratch = len > SCRATCH_MIN;
        if (!mem.allow_unlocked && !scratch) {
            munmap(p, len);
            return NULL;
        }
        if (!scratch)
            __atomic_store_n(&mem.unlocked, true, __ATOMIC_RELAXED);
    }
    /* A kernel without one of these is too old to mount us; a sandbox may refuse them, and then locking stands alone. */
    (void)madvise(p, len, MADV_DONTDUMP);
    return p;
}

static unsigned class_of(size_t need)
{
    unsigned c = 0;
    for (size_t s = 32; s < need; s <<= 1)
        c++;
    return c;
}

void *lg_secret_get(size_t len)
{
    size_t need = len + HEADER;
    struct block *b = NULL;
    if (need > SMALL_MAX) {
        need = (need + 4095) & ~(size_t)4095;
        b = map_locked(need);
        if (!b)
            return NULL;
        b->size = need;
        return (uint8_t *)b + HEADER;
    }
    unsigned c = class_of(need);
    size_t size = (size_t)32 << c;
    pthread_mutex_lock(&mem.lock);
    b = mem.free[c];
    if (b) {
        mem.free[c] = b->next;
    } else {
        if (mem.chunk_left < size) {
            /* what is left of the old chunk is given up: at most one block's worth in every 256 KiB */
            uint8_t *chunk = map_locked(CHUNK);
            if (chunk) {
                mem.chunk = chunk;
                mem.chunk_left = CHUNK;
            }
        }
        if (mem.chunk_left >= size) {
            b = (struct block *)(void *)mem.chunk;
            mem.chunk += size;
            mem.chunk_left -= size;
        }
    }
    pthread_mutex_unlock(&mem.lock);
    if (!b)
        return NULL;
    b->size = size;
    b->next = NULL;
    return (uint8_t *)b + HEADER;
}

static struct block *block_of(void *p) { return (struct block *)(void *)((uint8_t *)p - HEADER); }

void lg_secret_dealloc(void *p)
{
    if (!p)
        return;
    struct block *b = block_of(p);
    size_t size = b->size;
    lg_wipe(p, size - HEADER);
    if (size > SMALL_MAX) {
        munmap(b, size);
        return;
    }
    unsigned c = class_of(size);
    pthread_mutex_lock(&mem.lock);
    b->next = mem.free[c];
    mem.free[c] = b;
    pthread_mutex_unlock(&mem.lock);
}

void *lg_secret_alloc(size_t len)
{
    if (len == 0 || len > BLOCK_MAX)
        return NULL;
    void *p = lg_secret_get(len);
    if (p)
        memset(p, 0, len); /* blocks come back wiped, but a link may have stood in the header's neighbourhood */
    return p;
}

void *lg_secret_resize(void *p, size_t len)
{
    if (!p)
        return len ? lg_secret_get(len) : NULL;
    if (!len) {
        lg_secret_dealloc(p);
        return NULL;
    }
    size_t have = block_of(p)->size - HEADER;
    if (have >= len)
        return p;
    void *q = lg_secret_get(len);
    if (q) {
        memcpy(q, p, have);
        lg_secret_dealloc(p);
    }
    return q;
}

static void *ossl_malloc(size_t len, const char *file, int line)
{
    (void)file, (void)line;
    return len ? lg_secret_get(len) : NULL;
}
static void ossl_free(void *p, const char *file, int line)
{
    (void)file, (void)line;
    lg_secret_dealloc(p);
}
static void *ossl_realloc(void *p, size_t len, const char *file, int line)
{
    (void)file, (void)line;
    return lg_secret_resize(p, len);
}

int lg_secret_init(bool allow_unlocked)
{
    mem.allow_unlocked = allow_unlocked;
    struct rlimit none = { 0, 0 };
    if (setrlimit(RLIMIT_CORE, &none) != 0 || prctl(PR_SET_DUMPABLE, 0) != 0)
        return -errno;
    struct rlimit rl;
    if (getrlimit(RLIMIT_MEMLOCK, &rl) == 0) {
        struct rlimit all = { RLIM_INFINITY, RLIM_INFINITY };
        if (setrlimit(RLIMIT_MEMLOCK, &all) != 0) { /* needs CAP_SYS_RESOURCE */
            rl.rlim_cur = rl.rlim_max;
            (void)setrlimit(RLIMIT_MEMLOCK, &rl);
        }
    }
    void *probe = lg_secret_alloc(4096);
    if (!probe)
        return -EPERM;
    lg_secret_dealloc(probe);
    if (!CRYPTO_set_mem_functions(ossl_malloc, ossl_realloc, ossl_free))
        return -EINVAL; /* OpenSSL was used already */
    return 0;
}

bool lg_secret_unlocked(void) { return __atomic_load_n(&mem.unlocked, __ATOMIC_RELAXED); }

struct lg_secret *lg_secret_new(void) { return lg_secret_alloc(sizeof(struct lg_secret)); }

struct lg_secret *lg_secret_random(void)
{
    struct lg_secret *s = lg_secret_new();
    if (s && lg_random(s->b, sizeof s->b) != 0) {
        lg_secret_free(s);
        return NULL;
    }
    return s;
}

struct lg_secret *lg_secret_dup(const struct lg_secret *s)
{
    struct lg_secret *d = lg_secret_new();
    if (d)
        *d = *s;
    return d;
}

void lg_secret_free(struct lg_secret *s) { lg_secret_dealloc(s); }
