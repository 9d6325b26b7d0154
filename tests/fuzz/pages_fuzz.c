/* The walker over the pages of an LMDB file: never reads out of bounds, and LMDB itself can walk whatever it lets pass. An input that begins with 1 is laid
 * over a file that LMDB wrote: 3 bytes where, 1 byte what. */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../../keymgr/keyring/internal.h"

static char path[64];
static void gone(void) { unlink(path); }

/* Magic, version and page size of both meta pages and the number of every page made good, so that what lies behind them is reached. */
static void repair(uint8_t *p, size_t len)
{
    enum { PAGE = 4096, HEADER = 16 };
    for (uint64_t n = 0; (n + 1) * PAGE <= len; n++) {
        static const uint32_t magic[2] = { 0xBEEFC0DE, 1 }, size = PAGE;
        memcpy(p + n * PAGE, &n, sizeof n);
        if (n < 2) {
            p[n * PAGE + 10] |= 8;
            memcpy(p + n * PAGE + HEADER, magic, sizeof magic);
            memcpy(p + n * PAGE + HEADER + 24, &size, sizeof size);
        }
    }
}

/* Tables, values on pages of their own, branches, a list of free pages. */
static uint8_t *made;
static size_t made_len;

static void make(void)
{
    static const char *const table[] = { "meta", "keys", "lookup" };
    static char value[9000];
    char dir[80], file[100];
    MDB_env *e;
    MDB_txn *t;
    MDB_dbi dbi;
    snprintf(dir, sizeof dir, "%s.dir", path); /* a directory, as the keyring: LMDB writes down that it is one */
    snprintf(file, sizeof file, "%s/data.mdb", dir);
    if (mkdir(dir, 0700) || mdb_env_create(&e) || mdb_env_set_maxdbs(e, 16) || mdb_env_set_mapsize(e, 1 << 20) || mdb_env_open(e, dir, MDB_NOLOCK | MDB_NOSYNC, 0600))
        abort();
    for (unsigned round = 0; round < 6; round++) {
        if (mdb_txn_begin(e, NULL, 0, &t))
            abort();
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            if (mdb_dbi_open(t, table[i], MDB_CREATE, &dbi))
                abort();
            for (uint32_t n = 0; n < 60; n++) {
                MDB_val k = { sizeof n, &n }, v = { round == 1 || (n == 1 && !i) ? 9000 : 40 + 7 * n % 300, value };
                if (round == 3 && n % 3 == 0)
                    (void)!mdb_del(t, dbi, &k, NULL);
                else if ((round != 1 || n < 4) && mdb_put(t, dbi, &k, &v, 0))
                    abort();
            }
        }
        if (mdb_txn_commit(t))
            abort();
    }
    mdb_env_close(e);
    int fd = open(file, O_RDONLY | O_CLOEXEC);
    off_t end = lseek(fd, 0, SEEK_END);
    made = malloc((size_t)end);
    made_len = (size_t)end;
    if (fd < 0 || !made || pread(fd, made, made_len, 0) != end)
        abort();
    close(fd);
    if (lg_pages_check(file))
        abort(); /* what LMDB wrote is good */
    unlink(file);
    rmdir(dir);
}

/* Of the input, or of the file that was made: malloced. */
static uint8_t *lay(const uint8_t *data, size_t len, size_t *ret_len)
{
    bool over = len && data[0] == 1;
    *ret_len = over ? made_len : len;
    uint8_t *p = malloc(*ret_len + 1);
    if (!p)
        abort();
    memcpy(p, over ? made : data, *ret_len);
    for (size_t i = 1; over && i + 4 <= len; i += 4)
        p[(data[i] | (size_t)data[i + 1] << 8 | (size_t)data[i + 2] << 16) % made_len] = data[i + 3];
    return p;
}

static void walk_table(MDB_txn *t, MDB_dbi dbi)
{
    MDB_cursor *c;
    MDB_val k, v;
    volatile uint8_t sum = 0;
    if (mdb_cursor_open(t, dbi, &c))
        return;
    for (int rc = mdb_cursor_get(c, &k, &v, MDB_FIRST), n = 0; rc == 0 && n < 4096; rc = mdb_cursor_get(c, &k, &v, MDB_NEXT), n++) {
        for (size_t i = 0; i < k.mv_size; i++)
            sum = (uint8_t)(sum + ((uint8_t *)k.mv_data)[i]);
        for (size_t i = 0; i < v.mv_size; i++)
            sum = (uint8_t)(sum + ((uint8_t *)v.mv_data)[i]);
    }
    mdb_cursor_close(c);
}

static void walk_all(void)
{
    static const char *const table[] = { "meta", "buckets", "keys", "lookup", "attached", "vaults", "sessions", "pending" };
    MDB_env *e;
    MDB_txn *t;
    if (mdb_env_create(&e))
        abort();
    mdb_env_set_maxdbs(e, 16);
    mdb_env_set_mapsize(e, 1 << 20);
    if (mdb_env_open(e, path, MDB_NOSUBDIR | MDB_RDONLY | MDB_NOLOCK, 0600) == 0 && mdb_txn_begin(e, NULL, MDB_RDONLY, &t) == 0) {
        for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
            MDB_dbi dbi;
            if (mdb_dbi_open(t, table[i], 0, &dbi) == 0)
                walk_table(t, dbi);
        }
        mdb_txn_abort(t);
    }
    mdb_env_close(e);
}

/* The walk that goes on beside damage: stays within bounds too, and misses nothing that the other refuses. */
static unsigned damages;
static void on_damage(void *arg, const char *part, uint64_t page, const char *what)
{
    (void)arg;
    (void)page;
    damages += part[0] && what[0];
}

static int on_row(void *arg, enum lg_table t, const uint8_t *key, size_t key_len, const uint8_t *value, size_t len)
{
    volatile uint8_t *sum = arg;
    if (t >= LG_TABLES || key_len > 511)
        abort();
    for (size_t i = 0; i < key_len; i++)
        *sum = (uint8_t)(*sum + key[i]);
    for (size_t i = 0; i < len; i++)
        *sum = (uint8_t)(*sum + value[i]);
    return 0;
}

static void walk_beside(bool good)
{
    uint8_t sum = 0;
    const struct lg_pages_visitor v = { &sum, on_damage, on_row, NULL };
    damages = 0;
    int rc = lg_pages_walk(path, &v);
    if (!good && !rc && !damages)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!path[0]) {
        snprintf(path, sizeof path, "%s/lgpages.%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
        atexit(gone);
        make();
    }
    uint8_t *p = lay(data, len, &len);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0)
        abort();
    repair(p, len);
    ssize_t n = write(fd, p, len);
    close(fd);
    free(p);
    bool good = n == (ssize_t)len && lg_pages_check(path) == 0;
    if (good)
        walk_all();
    if (n == (ssize_t)len)
        walk_beside(good);
    return 0;
}
