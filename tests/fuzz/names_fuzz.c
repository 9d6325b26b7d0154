/* Names, directory ids, targets and attributes as they stand below: as they are, and sealed here so that what lies behind their MAC is reached. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "leadglass/names.h"
#include "scratch.h"

static struct lg_names *names;
static struct lg_secret *zero, *k;

/* base64url of SIV under the vault key's label, as a stranger with the key could write it. */
static char *sealed(const char *label, const void *ad, size_t ad_len, const uint8_t *pt, size_t len, const char *before, size_t salt)
{
    size_t pre = strlen(before), n = salt + len + LG_SIV_TAG_LEN;
    uint8_t *b = malloc(n);
    char *text = malloc(pre + lg_b64_len(n) + 1);
    if (!b || !text || lg_derive(zero, label, NULL, 0, k) || lg_siv_seal(k, ad, ad_len, pt, len, b + salt))
        abort();
    if (salt)
        memcpy(b, ad, salt);
    memcpy(text, before, pre);
    lg_b64_encode(b, n, text + pre);
    free(b);
    return text;
}

/* The same through the filesystem: the links that hold directory ids, long names and targets. */
static char dir[64];
static int fd;
static void gone(void) { rmdir(dir); }

static void below(const uint8_t *id, const char *text)
{
    char lower[LG_LOWER_NAME_MAX + 1], side[LG_LOWER_NAME_MAX + 1], name[LG_PLAIN_NAME_MAX + 1], *link = malloc(LG_TARGET_SEALED_MAX + 1);
    uint8_t got[LG_ID_LEN];
    if (!dir[0]) {
        fuzz_dir("lgnames", dir, sizeof dir);
        if ((fd = open(dir, O_RDONLY | O_DIRECTORY)) < 0)
            abort();
        atexit(gone);
    }
    if (!link)
        abort();
    (void)!lg_dirid_read(names, fd, got);
    if (*text && symlinkat(text, fd, LG_DIRID_NAME) == 0) {
        int l = openat(fd, LG_DIRID_NAME, O_PATH | O_NOFOLLOW);
        (void)!lg_dirid_read(names, fd, got);
        (void)!lg_link_text(l, link);
        close(l);
        unlinkat(fd, LG_DIRID_NAME, 0);
    }
    (void)!lg_name_read(names, fd, id, "lg.long.none", name);
    if (*text && lg_name_lower(text, lower)) {
        lg_sidecar_name(lower, side);
        if (symlinkat(text, fd, side) == 0) {
            (void)!lg_name_read(names, fd, id, lower, name);
            unlinkat(fd, side, 0);
        }
        lower[LG_LOWER_NAME_MAX / 8] ^= 1;
        lg_sidecar_name(lower, side);
        if (symlinkat(text, fd, side) == 0) { /* under another's name */
            if (lg_name_is_long(lower) && !lg_name_read(names, fd, id, lower, name))
                abort();
            unlinkat(fd, side, 0);
        }
    } else {
        (void)!lg_name_read(names, fd, id, text, name);
    }
    free(link);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!names && (lg_secret_init(true) || lg_crypto_init() || !(zero = lg_secret_new()) || !(k = lg_secret_new()) || lg_names_new(zero, &names)))
        abort();
    if (len < LG_ID_LEN || len > 6000)
        return 0;
    char name[LG_PLAIN_NAME_MAX + 1], attribute[256], lower[LG_LOWER_NAME_MAX + 1], again[LG_SEALED_NAME_MAX + 1], *target = malloc(5000), *text = malloc(len + 1);
    uint8_t id[LG_ID_LEN], *value = malloc(len + 1);
    const uint8_t *pt = data + LG_ID_LEN;
    size_t n = len - LG_ID_LEN;
    if (!text || !target || !value)
        abort();
    /* as they are */
    memcpy(text, pt, n);
    text[n] = 0;
    (void)!lg_name_open(names, data, text, name);
    (void)!lg_target_open(names, text, n, target, 5000);
    (void)!lg_xattr_name_open(names, text, attribute);
    (void)!lg_dirid_open(names, text, n, id);
    (void)!lg_xattr_open(names, "user.a", data, len, value);
    (void)(lg_name_lower(text, lower) && !lg_name_is_long(lower));
    (void)lg_name_is_hidden(text);
    below(data, text);
    (void)lg_target_len(n);
    free(text);
    /* sealed */
    text = sealed("leadglass names", data, LG_ID_LEN, pt, n, "", 0);
    if (!lg_name_open(names, data, text, name) && (lg_name_seal(names, data, name, again) || strcmp(again, text) != 0))
        abort(); /* one encoding only */
    free(text);
    text = sealed("leadglass symlinks", data, LG_ID_LEN, pt, n, "", LG_ID_LEN);
    (void)!lg_target_open(names, text, strlen(text), target, 5000);
    free(text);
    text = sealed("leadglass xattr names", "name", 4, pt, n, "user.lg.", 0);
    (void)!lg_xattr_name_open(names, text, attribute);
    free(text);
    char dirid[LG_DIRID_TEXT_LEN + 1];
    if (lg_dirid_seal(names, data, dirid) || lg_dirid_open(names, dirid, LG_DIRID_TEXT_LEN, id) || memcmp(id, data, LG_ID_LEN) != 0)
        abort();
    if (lg_xattr_seal(names, "user.a", pt, n < 2000 ? n : 2000, (uint8_t *)target) ||
        lg_xattr_open(names, "user.a", (uint8_t *)target, (n < 2000 ? n : 2000) + LG_XATTR_OVERHEAD, value))
        abort();
    free(target);
    free(value);
    return 0;
}
