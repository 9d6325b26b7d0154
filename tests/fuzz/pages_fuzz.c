/* The walker over the pages of an LMDB file: never reads out of bounds, and LMDB itself can walk whatever it lets pass. */
#include <fcntl.h>
#include <lmdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!path[0]) {
        snprintf(path, sizeof path, "%s/lgpages.%d", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", (int)getpid());
        atexit(gone);
    }
    uint8_t *p = malloc(len + 1);
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (!p || fd < 0)
        abort();
    memcpy(p, data, len);
    repair(p, len);
    ssize_t n = write(fd, p, len);
    close(fd);
    free(p);
    if (n == (ssize_t)len && lg_pages_check(path) == 0)
        walk_all();
    return 0;
}
