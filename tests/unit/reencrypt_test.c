/* leadglass key reencrypt over a tree that is made up: files with several names when there is room for all their names, and when there is not; names that change
 * meanwhile; a rate; an interruption. The mount is the two attributes that ask it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <sys/xattr.h>

#include "cli.h"

static int asked(const char *path, const char *attr, const void *value, size_t len, int flags);
#define lsetxattr asked
#define LG_REENCRYPT_ROOM 8192
#include "reencrypt.c"
#undef lsetxattr

/* ---- the tree ---------------------------------------------------------------------------------------------------------------------------- */
#define TOP "/top"
enum { FILES = 400, NAMES_MAX = 600 };
static struct {
    unsigned names, hidden; /* hidden: of these, not seen in the walks before this one */
    unsigned done;
    int error; /* instead */
} file[FILES];
static unsigned n_files, walks, calls, stop_at;
static char printed[256];

static void name_of(unsigned i, unsigned k, char out[64]) { snprintf(out, 64, "d%u/f%u-%u", k % 7, i, k); }

int cli_walk(const char *top, int (*tell)(void *arg, const struct cli_file *f), void *arg)
{
    int code = CLI_OK;
    char name[64], path[128];
    walks++;
    for (unsigned k = 0; !code && k < NAMES_MAX; k++) /* the names of one file stand far from each other */
        for (unsigned i = 0; !code && i < n_files; i++) {
            if (k >= file[i].names || (k + 1 == file[i].names && walks <= file[i].hidden))
                continue;
            struct stat st = { .st_ino = i + 1, .st_nlink = file[i].names, .st_size = 1000 };
            struct cli_file f = { .path = path, .st = &st, .version = file[i].done ? 2 : 1 };
            memcpy(f.file_id, &i, sizeof i);
            name_of(i, k, name);
            snprintf(path, sizeof path, "%s/%s", top, name);
            code = tell(arg, &f);
        }
    return code;
}

static int asked(const char *path, const char *attr, const void *value, size_t len, int flags)
{
    unsigned i, k, n = 0;
    char name[64];
    (void)flags;
    assert_int_equal(sscanf(path, TOP "/d%u/f%u-%u", &k, &i, &k), 3);
    assert_true(i < n_files && k < file[i].names);
    if (++calls == stop_at)
        interrupted = SIGINT;
    bool links = strcmp(attr, LG_XATTR_REKEY_LINKS) == 0;
    assert_int_equal(links, file[i].names > 1);
    for (const char *p = value; links && p < (const char *)value + len; p += strlen(p) + 1, n++) { /* each name of it once, and no other's */
        bool of = false;
        for (k = 0; !of && k < file[i].names; k++) {
            name_of(i, k, name);
            of = strcmp(p, name) == 0;
        }
        assert_true(of);
        for (const char *q = value; q < p; q += strlen(q) + 1)
            assert_string_not_equal(p, q);
    }
    errno = file[i].error ? file[i].error : file[i].done ? EALREADY : links && n != file[i].names ? EMLINK : 0;
    if (errno)
        return -1;
    file[i].done++;
    return 0;
}

/* ---- what else it needs --------------------------------------------------------------------------------------------------------------------- */
int cli_mount_of(const struct cli *c, struct lg_client *k, const char *vault, char ret[1024]) { return (void)c, (void)k, (void)vault, strcpy(ret, TOP), CLI_OK; }
int cli_explain(const struct cli *c, int rc, const char *what) { return (void)c, (void)rc, (void)what, CLI_FAILED; }
int cli_fail(int code, const char *fmt, ...) { return (void)fmt, code; }
int cli_print_json(cJSON *j)
{
    char *text = cJSON_PrintUnformatted(j);
    snprintf(printed, sizeof printed, "%s", text);
    cJSON_free(text);
    cJSON_Delete(j);
    return CLI_OK;
}

static int run(unsigned rate, unsigned n, const char *want)
{
    struct cli c = { .json = true, .all_studies = true, .rate = rate };
    n_files = n;
    walks = calls = 0;
    interrupted = 0;
    int code = cli_reencrypt(&c, NULL, "vault");
    if (want)
        assert_string_equal(printed, want);
    return code;
}

static void tree(unsigned n, unsigned names)
{
    memset(file, 0, sizeof file);
    stop_at = 0;
    for (unsigned i = 0; i < n; i++)
        file[i].names = names;
}

static void all_done(unsigned n)
{
    for (unsigned i = 0; i < n; i++)
        assert_int_equal(file[i].done, 1);
}

/* Room for all: one walk. Not for all: each file is still asked for once, with all its names, in one walk more for each part. */
static void test_room(void **state)
{
    (void)state;
    tree(3, 3);
    file[1].names = 1;
    assert_int_equal(run(0, 3, "{\"files\":7,\"reencrypted\":3,\"bytes\":3000,\"current\":0,\"failed\":0,\"interrupted\":false}"), CLI_OK);
    assert_int_equal(walks, 1);
    all_done(3);
    tree(FILES, 3);
    for (unsigned i = 0; i < FILES; i += 10)
        file[i].names = 1;
    assert_int_equal(run(0, FILES, "{\"files\":1120,\"reencrypted\":400,\"bytes\":400000,\"current\":0,\"failed\":0,\"interrupted\":false}"), CLI_OK);
    assert_in_range(walks, 1 + 1080 * sizeof(struct linked) / ROOM, 1 + 1080 * (sizeof(struct linked) + 16) / ROOM + 1);
    all_done(FILES);
    assert_int_equal(calls, FILES + 40 * (walks - 1)); /* those of one name are asked again: they may have had several */
    /* Once more: nothing is done twice. */
    assert_int_equal(run(0, FILES, "{\"files\":1120,\"reencrypted\":0,\"bytes\":0,\"current\":400,\"failed\":0,\"interrupted\":false}"), CLI_OK);
    all_done(FILES);
    /* As many names as there may be, and one more. */
    tree(2, LG_LINKS_MAX);
    file[1].names++;
    assert_int_equal(run(0, 2, "{\"files\":1025,\"reencrypted\":1,\"bytes\":1000,\"current\":0,\"failed\":1,\"interrupted\":false}"), CLI_FAILED);
    assert_int_equal(file[0].done, 1);
    assert_int_equal(file[1].done, 0);
}

/* A name that a walk did not see: looked for again; one that never shows is told as a failure, and the others are done. */
static void test_names_change(void **state)
{
    (void)state;
    for (unsigned n = 2; n <= FILES; n += FILES - 2) {
        tree(n, 2);
        assert_int_equal(run(0, n, NULL), CLI_OK);
        unsigned first = walks; /* as many walks as it takes when nothing changes */
        tree(n, 2);
        file[0].hidden = first;
        assert_int_equal(run(0, n, NULL), CLI_OK);
        assert_true(walks > first);
        all_done(n);
        tree(n, 2);
        file[1].hidden = UINT32_MAX;
        assert_int_equal(run(0, n, NULL), CLI_FAILED);
        assert_non_null(strstr(printed, "\"failed\":1,"));
        assert_int_equal(file[1].done, 0);
        file[1].done = 1;
        all_done(n);
    }
}

static void test_errors(void **state)
{
    (void)state;
    tree(20, 1);
    for (unsigned i = 10; i < 20; i++)
        file[i].names = 2;
    file[3].error = file[13].error = EBUSY;
    file[4].error = file[14].error = EKEYREVOKED;
    file[5].error = file[15].error = ENOKEY;
    assert_int_equal(run(0, 20, "{\"files\":30,\"reencrypted\":14,\"bytes\":14000,\"current\":2,\"failed\":4,\"interrupted\":false}"), CLI_FAILED);
    /* What was in the way is gone: the rest, and nothing twice. */
    for (unsigned i = 0; i < 20; i++)
        file[i].error = 0;
    assert_int_equal(run(0, 20, "{\"files\":30,\"reencrypted\":6,\"bytes\":6000,\"current\":14,\"failed\":0,\"interrupted\":false}"), CLI_OK);
    all_done(20);
}

/* Interrupted among those of one name, among those of several, and in a part of them: what is under way is ended, nothing else is begun, and the next run does the rest. */
static void test_interrupted(void **state)
{
    (void)state;
    static const unsigned at[] = { 1, 7, 40, 41, 60, 399 };
    for (size_t i = 0; i < sizeof at / sizeof *at; i++) {
        unsigned done = 0;
        tree(FILES, 3);
        for (unsigned j = 0; j < FILES; j += 10)
            file[j].names = 1;
        stop_at = at[i];
        assert_int_equal(run(0, FILES, NULL), CLI_INTERRUPTED);
        assert_non_null(strstr(printed, "\"interrupted\":true}"));
        assert_int_equal(calls, at[i]);
        for (unsigned j = 0; j < FILES; j++)
            done += file[j].done;
        char text[64];
        snprintf(text, sizeof text, "\"reencrypted\":%u,", done);
        assert_non_null(strstr(printed, text));
        stop_at = 0;
        assert_int_equal(run(0, FILES, NULL), CLI_OK);
        snprintf(text, sizeof text, "\"reencrypted\":%u,\"bytes\":%u,\"current\":%u,", FILES - done, (FILES - done) * 1000, done);
        assert_non_null(strstr(printed, text));
        all_done(FILES);
    }
}

/* What the rate lets through never exceeds it by more than a second's worth, also after a time in which there was nothing to do. */
static void test_rate(void **state)
{
    (void)state;
    struct cli c = { .rate = 4 };
    struct work w = { .c = &c, .begun = now() - 3600, .paid = now() - 3600 }; /* an hour of passing over */
    double t = now();
    interrupted = 0;
    for (unsigned i = 0; i < 30; i++)
        assert_int_equal(outcome(&w, "x", 262144, 0), CLI_OK); /* 7.5 MiB */
    assert_true(now() - t > 7.5 / 4 - CREDIT_S - 0.01);
    assert_true(w.paid <= now() + 0.001); /* nobody waits for more than was done */
    assert_true(w.paid > t + 7.5 / 4 - CREDIT_S - 0.01);
    interrupted = SIGINT; /* not even for that */
    t = now();
    assert_int_equal(outcome(&w, "x", 1ull << 40, 0), CLI_INTERRUPTED);
    assert_true(now() - t < 3600);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(test_room), cmocka_unit_test(test_names_change), cmocka_unit_test(test_errors), cmocka_unit_test(test_interrupted), cmocka_unit_test(test_rate) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
