/* leadglass.relink, which is read before a vault is served: decoding is bounded, as it is and with a checksum that is right; what decodes encodes to the same bytes, and
 * its paths lead to nothing but names that files of a vault can have. The same from the file, whatever stands under that name. And what a re-encrypted file's attribute
 * says of its time: believed if it speaks of the time below. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "../../fs/volume/internal.h"
#include "../../fs/volume/intent.h"
#include "scratch.h"

static const char name[] = "leadglass.relink";
static char dir[64], timed[80];
static int vaultfd;

static void gone(void)
{
    unlinkat(vaultfd, name, 0);
    unlink(timed);
    rmdir(dir);
}

static void begin(void)
{
    fuzz_dir("lgrelink", dir, sizeof dir);
    if ((vaultfd = open(dir, O_RDONLY | O_DIRECTORY)) < 0)
        abort();
    snprintf(timed, sizeof timed, "%s/timed", dir);
    close(open(timed, O_WRONLY | O_CREAT, 0600));
    atexit(gone);
}

/* As a file, a link or a directory: what is read from it is what decodes. */
static void below(const uint8_t *p, size_t len, unsigned how)
{
    static const uint8_t other[LG_ID_LEN] = "another vault's";
    struct lg_intent in;
    uint8_t vault[LG_ID_LEN];
    unlinkat(vaultfd, name, 0);
    if (how == 1 || how == 2) { /* neither is read */
        if (how == 1 ? symlinkat("/dev/zero", vaultfd, name) : mkdirat(vaultfd, name, 0700))
            abort();
        if (lg_vault_relink(vaultfd, other) != -EPROTO || unlinkat(vaultfd, name, how == 2 ? AT_REMOVEDIR : 0) || lg_vault_relink(vaultfd, other) != -ENOENT)
            abort();
        return;
    }
    int fd = openat(vaultfd, name, O_WRONLY | O_CREAT, 0600), want = lg_intent_decode(p, len, &in);
    if (fd < 0 || write(fd, p, len) != (ssize_t)len)
        abort();
    close(fd);
    if (!want) {
        memcpy(vault, in.vault_id, sizeof vault);
        lg_intent_free(&in);
    }
    if (lg_vault_relink(vaultfd, other) == 0 || (!want && lg_vault_relink(vaultfd, vault) != 0))
        abort();
}

static void times(const uint8_t *p, size_t len)
{
    uint8_t raw[32];
    struct stat st, was;
    if (setxattr(timed, LG_MTIME_XATTR, p, len, 0) || stat(timed, &st))
        return;
    was = st;
    lg_mtime_moved(timed, &st);
    if (st.st_mtim.tv_nsec < 0 || st.st_mtim.tv_nsec > 999999999 || (len != sizeof raw && st.st_mtim.tv_sec != was.st_mtim.tv_sec))
        abort();
    memset(raw, 0, sizeof raw);
    memcpy(raw, p, len < sizeof raw ? len : sizeof raw);
    struct lg_wr w = lg_wr(raw, 16); /* the time below as it is */
    lg_wr_u64(&w, (uint64_t)was.st_mtim.tv_sec);
    lg_wr_u64(&w, (uint64_t)was.st_mtim.tv_nsec);
    if (setxattr(timed, LG_MTIME_XATTR, raw, sizeof raw, 0))
        abort();
    st = was;
    lg_mtime_moved(timed, &st);
    if (st.st_mtim.tv_nsec < 0 || st.st_mtim.tv_nsec > 999999999)
        abort();
}

static void take(const uint8_t *p, size_t len)
{
    struct lg_intent in;
    uint8_t *exact = malloc(len + 1), *again;
    size_t again_len;
    if (!exact)
        abort();
    memcpy(exact, p, len);
    if (!lg_intent_decode(exact, len, &in)) {
        for (uint32_t i = 0; i < in.n; i++) {
            char part[LG_LOWER_NAME_MAX + 1], tmp[32];
            for (const char *at = in.path[i]; *at;)
                if (!(at = lg_intent_part(at, part)) || strchr(part, '/') || part[0] == '.' || lg_name_is_hidden(part))
                    abort();
            lg_intent_tmp(&in, i, tmp);
        }
        if (lg_intent_encode(&in, &again, &again_len) || again_len != len || memcmp(again, exact, len) != 0)
            abort();
        free(again);
        lg_intent_free(&in);
    }
    free(exact);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    enum { FIXED = 98, MOST = 4096 };
    uint8_t b[FIXED + MOST + 4] = "LGRELINK\1";
    if (!vaultfd)
        begin();
    take(data, len);
    below(data, len, len ? data[0] % 8 : 0);
    times(data, len);
    if (len < 3 || len - 3 > MOST)
        return 0;
    uint32_t text = (uint32_t)len - 3, n = data[0];
    memcpy(b + 12, &n, 4);
    memcpy(b + 16, &text, 4);
    memset(b + 20, data[1], FIXED - 20);
    memcpy(b + FIXED, data + 3, text);
    if (data[2] & 1 && text)
        b[FIXED + text - 1] = 0;
    uint32_t crc = lg_crc32c(0, b, FIXED + text);
    memcpy(b + FIXED + text, &crc, 4);
    take(b, FIXED + text + 4);
    below(b, FIXED + text + 4, 0);
    return 0;
}
