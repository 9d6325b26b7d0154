/* Known answers come from an independent implementation (tables of logarithms, in Python). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <string.h>

#include "leadglass/crypto.h"
#include "leadglass/shares.h"

static const struct lg_share known[3] = {
    { .set = "SETSETSE", .k = 3, .n = 17, .x = 2,
      .y = { 0x5a, 0x59, 0x7c, 0x57, 0x36, 0x25, 0x60, 0x6b, 0xb9, 0xba, 0xbf, 0x74, 0x75, 0x06, 0x23, 0x08, 0x71, 0x72, 0x97, 0xbc, 0x9d, 0x8e, 0x10, 0x1b, 0x12, 0x11, 0x14, 0x84, 0x85, 0xb6, 0x93, 0xf8 } },
    { .set = "SETSETSE", .k = 3, .n = 17, .x = 5,
      .y = { 0x53, 0x7a, 0x51, 0x88, 0x07, 0x06, 0xae, 0xff, 0x1d, 0x34, 0x4f, 0xdb, 0xa4, 0x55, 0xa6, 0xa7, 0x43, 0x6a, 0xba, 0x63, 0x4c, 0x4d, 0x7f, 0x2e, 0x81, 0xa8, 0xd3, 0x1c, 0x63, 0x32, 0xc1, 0x60 } },
    { .set = "SETSETSE", .k = 3, .n = 17, .x = 17,
      .y = { 0xc9, 0x91, 0x72, 0x5e, 0xaf, 0x7f, 0xf7, 0x0b, 0x56, 0x0e, 0xe6, 0x17, 0xfb, 0x36, 0x0e, 0xf9, 0x66, 0x3e, 0xe7, 0xcb, 0x2c, 0xfc, 0xd5, 0x29, 0x16, 0x4e, 0xa6, 0x58, 0xb4, 0x6f, 0x57, 0xb6 } },
};
static const char text[] = "# share 5 of 17; any 3 open nothing\n"
        " 1: 059M-AN2K-NT\n"
        " 2: 8NA5-6H83-X3\n"
        " 3: 242N-6YJH-Z7\n"
        " 4: H03G-DBQZ-91\n"
        " 5: 3MT4-ZPX4-H1\n"
        " 6: APKA-EGVA-4W\n"
        " 7: Q9HM-RKBZ-XC\n"
        " 8: 5T0T-HMRW-R6\n"
        " 9: CCSC-2R2S-WN\n"
        "10: NFK2-4000-EW\n";

static void test_known(void **state)
{
    (void)state;
    LG_SECRET_AUTO s = lg_secret_new();
    struct lg_share read;
    unsigned bad;
    char out[LG_SHARE_TEXT_MAX];
    assert_int_equal(lg_shares_join(known, 3, s), 0);
    for (unsigned i = 0; i < LG_KEY_LEN; i++)
        assert_int_equal(s->b[i], i);
    assert_int_equal(lg_share_text(&known[1], "nothing", out), 0);
    assert_string_equal(out, text);
    assert_int_equal(lg_share_parse(text, strlen(text), &read, &bad), 0);
    assert_memory_equal(&read, &known[1], sizeof read);
}

/* Every k of n give it back; with one less, each value is as likely as any other: here, that a share more or less gives another one. */
static void test_subsets(void **state)
{
    (void)state;
    LG_SECRET_AUTO secret = lg_secret_random();
    LG_SECRET_AUTO out = lg_secret_new();
    struct lg_share all[LG_SHARES_MAX], some[LG_SHARES_MAX];
    for (unsigned n = 2; n <= 7; n++)
        for (unsigned k = 2; k <= n; k++) {
            assert_int_equal(lg_shares_split(secret, k, n, all), 0);
            for (unsigned mask = 1; mask < 1u << n; mask++) {
                unsigned m = 0;
                for (unsigned i = n; i-- > 0;) /* in any order */
                    if (mask >> i & 1)
                        some[m++] = all[i];
                memset(out->b, 0, LG_KEY_LEN);
                int rc = lg_shares_join(some, m, out);
                assert_int_equal(rc, m < k ? -ENODATA : 0);
                assert_int_equal(lg_equal(out->b, secret->b, LG_KEY_LEN), m >= k);
                for (unsigned i = 0; m < k && k > 2 && i < m; i++) /* whoever says that fewer are enough gets something else */
                    some[i].k = (uint8_t)m;
                if (m < k && m >= 2 && lg_shares_join(some, m, out) == 0)
                    assert_memory_not_equal(out->b, secret->b, LG_KEY_LEN);
            }
        }
    assert_int_equal(lg_shares_split(secret, 17, 32, all), 0);
    assert_int_equal(lg_shares_join(all + 15, 17, out), 0);
    assert_memory_equal(out->b, secret->b, LG_KEY_LEN);
    assert_int_equal(lg_shares_split(secret, 1, 3, all), -EINVAL);
    assert_int_equal(lg_shares_split(secret, 4, 3, all), -EINVAL);
    assert_int_equal(lg_shares_split(secret, 2, 33, all), -EINVAL);
}

static void test_mixed(void **state)
{
    (void)state;
    LG_SECRET_AUTO secret = lg_secret_random();
    LG_SECRET_AUTO out = lg_secret_new();
    struct lg_share a[3], b[3], m[3];
    assert_int_equal(lg_shares_split(secret, 2, 3, a), 0);
    assert_int_equal(lg_shares_split(secret, 2, 3, b), 0);
    m[0] = a[0], m[1] = b[1];
    assert_int_equal(lg_shares_join(m, 2, out), -EXDEV);
    m[1] = a[0];
    assert_int_equal(lg_shares_join(m, 2, out), -EEXIST);
    assert_int_equal(lg_shares_join(m, 0, out), -ENODATA);
    m[1] = a[1], m[1].x = 9;
    assert_int_equal(lg_shares_join(m, 2, out), -EINVAL);
}

/* One character wrong, two that changed places, one missing, a line missing or in another's place: named, each. */
static void test_typing(void **state)
{
    (void)state;
    struct lg_share s;
    unsigned bad, tried = 0;
    static const char digits[] = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    const char *lines[LG_SHARE_GROUPS + 1];
    char t[LG_SHARE_TEXT_MAX];
    size_t len = strlen(text);
    lines[0] = strchr(text, '\n') + 1;
    for (unsigned g = 0; g < LG_SHARE_GROUPS; g++) {
        lines[g + 1] = strchr(lines[g], '\n') + 1;
        for (const char *c = strchr(lines[g], ':') + 2; *c != '\n'; c++) {
            if (*c == '-')
                continue;
            for (const char *d = digits; *d; d++) {
                memcpy(t, text, len + 1);
                t[c - text] = *d;
                int rc = lg_share_parse(t, len, &s, &bad);
                assert_int_equal(rc, *d == *c ? 0 : -EPROTO);
                if (rc)
                    assert_int_equal(bad, g + 1);
                tried++;
            }
            const char *next = c[1] == '-' ? c + 2 : c + 1;
            if (*next != '\n' && *next != *c) {
                memcpy(t, text, len + 1);
                t[c - text] = *next, t[next - text] = *c;
                assert_int_equal(lg_share_parse(t, len, &s, &bad), -EPROTO);
                assert_int_equal(bad, g + 1);
            }
            memcpy(t, text, len + 1);
            memmove(t + (c - text), c + 1, strlen(c));
            assert_int_equal(lg_share_parse(t, len - 1, &s, &bad), -EPROTO);
            assert_int_equal(bad, g + 1);
        }
    }
    assert_int_equal(tried, 10 * 10 * 32);
    for (unsigned g = 0; g + 1 < LG_SHARE_GROUPS; g++) { /* each line has the same length */
        size_t n = (size_t)(lines[1] - lines[0]);
        memcpy(t, text, len + 1);
        memcpy(t + (lines[g] - text), lines[g + 1], n);
        memcpy(t + (lines[g + 1] - text), lines[g], n);
        assert_int_equal(lg_share_parse(t, len, &s, &bad), -EPROTO);
        assert_int_equal(bad, g + 1);
        memcpy(t, text, len + 1);
        memmove(t + (lines[g] - text), lines[g + 1], strlen(lines[g + 1]) + 1);
        assert_int_equal(lg_share_parse(t, strlen(t), &s, &bad), -EPROTO);
        assert_int_equal(bad, g + 1);
    }
    for (size_t cut = 0; cut < len - 1; cut++)
        assert_int_equal(lg_share_parse(text, cut, &s, &bad), -EPROTO);
    /* As people write: lower case, O for 0, l for 1, without hyphens and numbers, with blank lines. */
    size_t at = 0;
    for (const char *c = lines[0]; *c; c++) {
        if (c == lines[0] || c[-1] == '\n')
            c = strchr(c, ':') + 1;
        if (*c == '\n')
            t[at++] = '\r', t[at++] = '\n';
        if (*c != '-')
            t[at++] = *c == '0' ? 'O' : *c == '1' ? 'l' : *c >= 'A' && *c <= 'Z' ? (char)(*c - 'A' + 'a') : *c;
    }
    assert_int_equal(lg_share_parse(t, at, &s, &bad), 0);
    assert_memory_equal(&s, &known[1], sizeof s);
    memcpy(t, text, len);
    memcpy(t + len, lines[0], 20);
    assert_int_equal(lg_share_parse(t, len + 20, &s, &bad), -E2BIG);
    /* A line at a time, with what is printed around it; and what is said of one that is another's. */
    static const char *const third[] = { " 3: 242N-6YJH-Z7", "3:242N6YJHZ7", "3. 242N-6YJH-Z7", "3) 242n 6yjh z7\r", "3 242N-6YJH-Z7", "3\t242N6YJHZ7", "242N-6YJH-Z7", "group 3: 242N-6YJH-Z7", "\f 3: 242N-6YJH-Z7 " };
    for (size_t i = 0; i < sizeof third / sizeof *third; i++) {
        assert_int_equal(lg_share_group_check(third[i], strlen(third[i]), 3), 0);
        int other = lg_share_group_check(third[i], strlen(third[i]), 4);
        assert_int_equal(other, i == 6 || i == 7 ? -EPROTO : -ERANGE);
    }
    static const char sheet[] = "# share 5 of 17; any 3 open nothing\n\n1. 059M-AN2K-NT\n2) 8NA5-6H83-X3\n3 242N-6YJH-Z7\n\f4: H03G-DBQZ-91\ngroup 5: 3MT4-ZPX4-H1\n 6: APKA-EGVA-4W\r\n"
                                "7. q9hm rkbz xc\n8: 5T0T-HMRW-R6\n9 CCSC2R2SWN\n10 NFK2-4000-EW\n"; /* a whole one, as somebody copied it */
    assert_int_equal(lg_share_parse(sheet, sizeof sheet - 1, &s, &bad), 0);
    assert_memory_equal(&s, &known[1], sizeof s);
    static const char *const none[] = { "", " \t\r\f", "# share 5 of 17; any 3 open nothing", "  #" };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++)
        assert_int_equal(lg_share_group_check(none[i], strlen(none[i]), 3), -ENODATA);
    static const char *const no[] = { "3:", "3 ", "3", "3: 242N-6YJH-Z", "3: 242N-6YJH-Z77", "33: 242N", "3 3 242N-6YJH-Z7", "3: 3: 242N-6YJH-Z7", ":", ".", "42N-6YJH-Z7" };
    for (size_t i = 0; i < sizeof no / sizeof *no; i++)
        assert_true(lg_share_group_check(no[i], strlen(no[i]), 3) < 0);
    assert_int_equal(lg_share_group_check("2: 242N-6YJH-Z7", 15, 3), 0); /* misnumbered by hand: the characters know better */
    assert_int_equal(lg_share_group_check("10: NFK2-4000-EW", 16, 10), 0);
    assert_int_equal(lg_share_group_check("10 NFK2-4000-EW", 15, 10), 0);
    assert_int_equal(lg_share_group_check("10: NFK2-4000-EW", 16, 1), -ERANGE);
    assert_int_equal(lg_share_group_check(lines[2], 16, 3), 0);
    assert_int_equal(lg_share_group_check(lines[2], 16, 4), -ERANGE);
    assert_int_equal(lg_share_group_check(lines[2], 16, 0), -EPROTO);
}

int main(void)
{
    if (lg_secret_init(true) || lg_crypto_init())
        return 1;
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_known), cmocka_unit_test(test_subsets), cmocka_unit_test(test_mixed), cmocka_unit_test(test_typing) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
