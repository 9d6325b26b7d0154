#include "leadglass/names.h"

#include <stdatomic.h>
#include <stdlib.h>

enum { SALT = 16, XATTR_NAME_MAX = 255 };
#define XATTR_LOWER "user.lg."

struct lg_names {
    uint64_t serial; /* no other of this process has it */
    struct lg_siv *name, *dirid, *target, *xname, *xvalue;
};

int lg_names_new(const struct lg_secret *vault_key, struct lg_names **ret)
{
    static const char *const label[] = { "leadglass names", "leadglass directory ids", "leadglass symlinks", "leadglass xattr names", "leadglass xattr values" };
    static _Atomic uint64_t last_serial;
    struct lg_names *n = calloc(1, sizeof *n);
    LG_SECRET_AUTO k = lg_secret_new();
    if (!n || !k) {
        free(n);
        return -ENOMEM;
    }
    n->serial = atomic_fetch_add(&last_serial, 1) + 1;
    struct lg_siv **const out[] = { &n->name, &n->dirid, &n->target, &n->xname, &n->xvalue };
    int rc = 0;
    for (size_t i = 0; !rc && i < 5; i++) {
        rc = lg_derive(vault_key, label[i], NULL, 0, k);
        if (!rc)
            rc = lg_siv_new(k, out[i]);
    }
    if (rc)
        lg_names_free(n);
    else
        *ret = n;
    return rc;
}

void lg_names_free(struct lg_names *n)
{
    if (!n)
        return;
    lg_siv_free(n->name);
    lg_siv_free(n->dirid);
    lg_siv_free(n->target);
    lg_siv_free(n->xname);
    lg_siv_free(n->xvalue);
    free(n);
}

int lg_dirid_seal(struct lg_names *n, const uint8_t id[LG_ID_LEN], char out[LG_DIRID_TEXT_LEN + 1])
{
    uint8_t b[LG_ID_LEN + LG_SIV_TAG_LEN];
    memcpy(b, id, LG_ID_LEN);
    int rc = lg_siv_seal_with(n->dirid, id, LG_ID_LEN, NULL, 0, b + LG_ID_LEN);
    if (!rc)
        lg_b64_encode(b, sizeof b, out);
    return rc;
}

int lg_dirid_open(struct lg_names *n, const char *text, size_t len, uint8_t ret_id[LG_ID_LEN])
{
    uint8_t b[LG_ID_LEN + LG_SIV_TAG_LEN], none[1];
    size_t got;
    if (len != LG_DIRID_TEXT_LEN || lg_b64_decode(text, len, b, sizeof b, &got) || got != sizeof b)
        return -EBADMSG;
    int rc = lg_siv_open_with(n->dirid, b, LG_ID_LEN, b + LG_ID_LEN, LG_SIV_TAG_LEN, none);
    if (!rc)
        memcpy(ret_id, b, LG_ID_LEN);
    return rc;
}

/* What this thread sealed last: a new file's name is looked up, made and given another within a millisecond, and a name seals to the same each time. */
enum { RECENT = 4, RECENT_NAME_MAX = 79 };
static _Thread_local struct {
    uint64_t serial; /* 0: nothing yet */
    uint8_t dirid[LG_ID_LEN];
    char name[RECENT_NAME_MAX + 1], sealed[(RECENT_NAME_MAX + LG_SIV_TAG_LEN + 2) / 3 * 4 + 1];
} recent[RECENT];
static _Thread_local unsigned oldest;

int lg_name_seal(struct lg_names *n, const uint8_t dirid[LG_ID_LEN], const char *name, char out[LG_SEALED_NAME_MAX + 1])
{
    uint8_t b[LG_PLAIN_NAME_MAX + LG_SIV_TAG_LEN];
    size_t len = strlen(name);
    if (len > LG_PLAIN_NAME_MAX)
        return -ENAMETOOLONG;
    for (unsigned i = 0; i < RECENT; i++)
        if (recent[i].serial == n->serial && strcmp(recent[i].name, name) == 0 && memcmp(recent[i].dirid, dirid, LG_ID_LEN) == 0) {
            memcpy(out, recent[i].sealed, sizeof recent[i].sealed);
            return 0;
        }
    int rc = lg_siv_seal_with(n->name, dirid, LG_ID_LEN, name, len, b);
    if (rc)
        return rc;
    lg_b64_encode(b, len + LG_SIV_TAG_LEN, out);
    if (len <= RECENT_NAME_MAX) {
        recent[oldest].serial = n->serial;
        memcpy(recent[oldest].dirid, dirid, LG_ID_LEN);
        memcpy(recent[oldest].name, name, len + 1);
        memcpy(recent[oldest].sealed, out, lg_b64_len(len + LG_SIV_TAG_LEN) + 1);
        oldest = (oldest + 1) % RECENT;
    }
    return 0;
}

int lg_name_open(struct lg_names *n, const uint8_t dirid[LG_ID_LEN], const char *sealed, char out[LG_PLAIN_NAME_MAX + 1])
{
    uint8_t b[LG_PLAIN_NAME_MAX + LG_SIV_TAG_LEN];
    size_t got, len = strlen(sealed);
    if (len > LG_SEALED_NAME_MAX || lg_b64_decode(sealed, len, b, sizeof b, &got) || got <= LG_SIV_TAG_LEN)
        return -EBADMSG;
    int rc = lg_siv_open_with(n->name, dirid, LG_ID_LEN, b, got, (uint8_t *)out);
    if (rc)
        return rc;
    len = got - LG_SIV_TAG_LEN;
    out[len] = 0;
    return memchr(out, 0, len) || memchr(out, '/', len) ? -EBADMSG : 0;
}

bool lg_name_lower(const char *sealed, char out[LG_LOWER_NAME_MAX + 1])
{
    uint8_t h[LG_MAC_LEN];
    size_t len = strlen(sealed), p = strlen(LG_LONG_PREFIX);
    if (len <= LG_LOWER_NAME_MAX) {
        memcpy(out, sealed, len + 1);
        return false;
    }
    if (lg_sha256(sealed, len, h)) /* cannot fail once the algorithms are fetched; a name that nobody has if it does */
        memset(h, 0, sizeof h);
    memcpy(out, LG_LONG_PREFIX, p);
    lg_b64_encode(h, sizeof h, out + p);
    return true;
}

bool lg_name_is_long(const char *lower)
{
    size_t p = strlen(LG_LONG_PREFIX);
    return strncmp(lower, LG_LONG_PREFIX, p) == 0 && !strchr(lower + p, '.');
}

bool lg_name_is_hidden(const char *lower) { return strncmp(lower, LG_HIDDEN, strlen(LG_HIDDEN)) == 0 && !lg_name_is_long(lower); }

int lg_target_seal(struct lg_names *n, const char *target, char *out, size_t cap)
{
    size_t len = strlen(target);
    if (len > 4095 || lg_b64_len(SALT + LG_SIV_TAG_LEN + len) >= cap)
        return -ENAMETOOLONG;
    uint8_t *b = malloc(SALT + LG_SIV_TAG_LEN + len);
    if (!b)
        return -ENOMEM;
    int rc = lg_random(b, SALT);
    if (!rc)
        rc = lg_siv_seal_with(n->target, b, SALT, target, len, b + SALT);
    if (!rc)
        lg_b64_encode(b, SALT + LG_SIV_TAG_LEN + len, out);
    free(b);
    return rc;
}

size_t lg_target_len(size_t sealed_len)
{
    size_t bytes = sealed_len * 3 / 4;
    return bytes > SALT + LG_SIV_TAG_LEN ? bytes - SALT - LG_SIV_TAG_LEN : 0;
}

int lg_target_open(struct lg_names *n, const char *sealed, size_t len, char *out, size_t cap)
{
    size_t room = len * 3 / 4 + 3, got;
    uint8_t *b = malloc(room);
    if (!b)
        return -ENOMEM;
    int rc = lg_b64_decode(sealed, len, b, room, &got);
    if (rc || got < SALT + LG_SIV_TAG_LEN || got - SALT - LG_SIV_TAG_LEN >= cap)
        rc = -EBADMSG;
    if (!rc)
        rc = lg_siv_open_with(n->target, b, SALT, b + SALT, got - SALT, (uint8_t *)out);
    if (!rc)
        out[got - SALT - LG_SIV_TAG_LEN] = 0;
    free(b);
    return rc;
}

int lg_xattr_name_seal(struct lg_names *n, const char *name, char *out, size_t cap)
{
    uint8_t b[XATTR_NAME_MAX + LG_SIV_TAG_LEN];
    size_t len = strlen(name), p = strlen(XATTR_LOWER);
    if (len > XATTR_NAME_MAX || p + lg_b64_len(len + LG_SIV_TAG_LEN) > XATTR_NAME_MAX || p + lg_b64_len(len + LG_SIV_TAG_LEN) >= cap)
        return -ERANGE;
    int rc = lg_siv_seal_with(n->xname, "name", 4, name, len, b);
    if (rc)
        return rc;
    memcpy(out, XATTR_LOWER, p);
    lg_b64_encode(b, len + LG_SIV_TAG_LEN, out + p);
    return 0;
}

int lg_xattr_name_open(struct lg_names *n, const char *lower, char out[256])
{
    uint8_t b[XATTR_NAME_MAX];
    size_t p = strlen(XATTR_LOWER), got;
    if (strncmp(lower, XATTR_LOWER, p) != 0 || lg_b64_decode(lower + p, strlen(lower + p), b, sizeof b, &got) || got < LG_SIV_TAG_LEN)
        return -EBADMSG;
    int rc = lg_siv_open_with(n->xname, "name", 4, b, got, (uint8_t *)out);
    if (!rc)
        out[got - LG_SIV_TAG_LEN] = 0;
    return rc;
}

static size_t value_ad(const char *name, const uint8_t salt[SALT], uint8_t ad[XATTR_NAME_MAX + 1 + SALT])
{
    size_t len = strnlen(name, XATTR_NAME_MAX);
    memcpy(ad, name, len);
    ad[len] = 0;
    memcpy(ad + len + 1, salt, SALT);
    return len + 1 + SALT;
}

int lg_xattr_seal(struct lg_names *n, const char *name, const void *value, size_t len, uint8_t *out)
{
    uint8_t ad[XATTR_NAME_MAX + 1 + SALT];
    int rc = lg_random(out, SALT);
    return rc ? rc : lg_siv_seal_with(n->xvalue, ad, value_ad(name, out, ad), value, len, out + SALT);
}

int lg_xattr_open(struct lg_names *n, const char *name, const uint8_t *in, size_t len, uint8_t *out)
{
    uint8_t ad[XATTR_NAME_MAX + 1 + SALT];
    if (len < LG_XATTR_OVERHEAD)
        return -EBADMSG;
    return lg_siv_open_with(n->xvalue, ad, value_ad(name, in, ad), in + SALT, len - SALT, out);
}
