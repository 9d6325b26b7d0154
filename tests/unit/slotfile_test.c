/* The root-slot file: what opens it, what must not, and the change of roots. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

static char dir[] = "/tmp/lg-slot-XXXXXX";
static char path[64];
static struct lg_slotfile made;
static struct lg_root root = { 7, NULL };

static int setup(void **state)
{
    (void)state;
    static const uint8_t id[LG_ID_LEN] = { 1, 2, 3 };
    if (lg_secret_init(true) || lg_crypto_init() || !mkdtemp(dir))
        return -1;
    (void)snprintf(path, sizeof path, "%s/k.root", dir);
    root.key = lg_secret_random();
    return !root.key || lg_slotfile_make(&made, id, &root, "open", 4, 1) || lg_slotfile_write(path, &made, root.key, true);
}

static int teardown(void **state)
{
    (void)state;
    lg_secret_free(root.key);
    (void)unlink(path);
    return rmdir(dir);
}

static void put(const uint8_t *b, size_t len)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(b, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

static void unlocks(void **state)
{
    (void)state;
    struct lg_roots r = { 0 };
    assert_int_equal(lg_slotfile_unlock(path, LG_SLOT_PASSPHRASE, NULL, "open", 4, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.r[0].epoch, 7);
    assert_memory_equal(r.r[0].key->b, root.key->b, LG_KEY_LEN);
    lg_roots_done(&r);
    assert_int_equal(lg_slotfile_unlock(path, LG_SLOT_PASSPHRASE, NULL, "opem", 4, &r), -EKEYREJECTED);
    assert_int_equal(lg_slotfile_unlock("/nonexistent/x", LG_SLOT_PASSPHRASE, NULL, "open", 4, &r), -ENOENT);
    assert_int_equal(lg_slotfile_write(path, &made, root.key, true), -EEXIST);
}

static void damage(void **state)
{
    (void)state;
    uint8_t b[LG_SLOTFILE_MAX], sum[LG_MAC_LEN];
    size_t len;
    struct lg_slotfile s;
    assert_int_equal(lg_slotfile_read(path, b, &len), 0);
    for (size_t i = 0; i < len; i++) {
        b[i] ^= 0x10;
        int rc = lg_slotfile_decode(b, len, &s);
        assert_true(rc == -EPROTO || (rc == -EPROTONOSUPPORT && (i == 8 || i == 9)));
        b[i] ^= 0x10;
        assert_int_equal(lg_slotfile_decode(b, i, &s), -EPROTO);
    }
    /* A forger can repair the damage hash, but not the MAC: one bit of the officers' hash. */
    struct lg_roots r = { 0 };
    uint8_t forged[LG_SLOTFILE_MAX];
    memcpy(forged, b, len);
    forged[len - 2 * LG_MAC_LEN - 1] ^= 1;
    assert_int_equal(lg_sha256(forged, len - LG_MAC_LEN, sum), 0);
    memcpy(forged + len - LG_MAC_LEN, sum, LG_MAC_LEN);
    put(forged, len);
    assert_int_equal(lg_slotfile_unlock(path, LG_SLOT_PASSPHRASE, NULL, "open", 4, &r), -EPROTO);
    /* scrypt parameters beyond the bound are refused before they cost anything. */
    s = made;
    s.slots[0].scrypt.log2_n = 21;
    assert_int_equal(lg_slotfile_encode(&s, root.key, forged, &len), 0);
    assert_int_equal(lg_slotfile_decode(forged, len, &s), -EPROTO);
    assert_int_equal(lg_slotfile_write(path, &made, root.key, false), 0);
}

static void changes_root(void **state)
{
    (void)state;
    struct lg_slotfile s = made;
    struct lg_roots r = { 0 };
    struct lg_root fresh = { 8, lg_secret_random() };
    assert_non_null(fresh.key);
    assert_int_equal(lg_slotfile_root_add(&s, &root, &fresh), 0);
    assert_int_equal(lg_slotfile_write(path, &s, fresh.key, false), 0);
    assert_int_equal(lg_slotfile_unlock(path, LG_SLOT_PASSPHRASE, NULL, "open", 4, &r), 0);
    assert_int_equal(r.n, 2);
    assert_memory_equal(r.r[0].key->b, root.key->b, LG_KEY_LEN);
    assert_memory_equal(r.r[1].key->b, fresh.key->b, LG_KEY_LEN);
    lg_roots_done(&r);
    lg_slotfile_root_drop(&s);
    assert_int_equal(lg_slotfile_write(path, &s, fresh.key, false), 0);
    assert_int_equal(lg_slotfile_unlock(path, LG_SLOT_PASSPHRASE, NULL, "open", 4, &r), 0);
    assert_int_equal(r.n, 1);
    assert_int_equal(r.r[0].epoch, 8);
    assert_memory_equal(r.r[0].key->b, fresh.key->b, LG_KEY_LEN);
    lg_roots_done(&r);
    /* Nothing of the old root is left in the bytes. */
    uint8_t b[LG_SLOTFILE_MAX];
    size_t len;
    assert_int_equal(lg_slotfile_read(path, b, &len), 0);
    assert_null(memmem(b, len, made.slots[0].root[0], LG_WRAPPED_LEN));
    assert_null(memmem(b, len, made.slots[0].root_slot[0], LG_WRAPPED_LEN));
    lg_secret_free(fresh.key);
    assert_int_equal(lg_slotfile_write(path, &made, root.key, false), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(unlocks), cmocka_unit_test(damage), cmocka_unit_test(changes_root) };
    return cmocka_run_group_tests(tests, setup, teardown);
}
