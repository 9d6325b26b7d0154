/* New versions of study keys. Old versions stay, so that files and backups from before go on opening. */
#include <stdlib.h>
#include <string.h>

#include "govern.h"

static const char versions_name[] = "versions", others_name[] = "others";

static uint64_t counted(struct lg_keyring *k, const char *name)
{
    uint64_t n;
    return lg_meta_numbers(k, name, &n, 1) == 1 ? n : 0;
}

static int count(struct lg_keyring *k, const char *name, unsigned more)
{
    uint64_t n = counted(k, name) + more;
    return lg_meta_numbers_put(k, name, &n, 1);
}

uint64_t lg_versions_added(struct lg_keyring *k) { return counted(k, versions_name); }
static int versions_add(struct lg_keyring *k, unsigned n) { return count(k, versions_name, n); }
uint64_t lg_others_made(struct lg_keyring *k) { return counted(k, others_name); }
int lg_others_add(struct lg_keyring *k) { return count(k, others_name, 1); }

/* What is known of the study moves under the new version, as the newest one seals it. */
static int version_add(struct lg_keyring *k, struct lg_record *r)
{
    LG_SECRET_AUTO fresh = lg_secret_random();
    struct lg_study_info info;
    struct lg_siv *bucket = NULL;
    struct lg_key old;
    if (r->state != LG_KEY_ACTIVE)
        return -EKEYREVOKED;
    if (r->n >= LG_KEY_VERSIONS_MAX || (r->n && r->version[r->n - 1] == UINT32_MAX))
        return -ENOSPC;
    if (!fresh)
        return -ENOMEM;
    int rc = lg_record_key(k, r, r->n - 1, &old);
    if (rc)
        return rc;
    rc = lg_info_open(k, r, old.key, &info);
    lg_secret_free(old.key);
    if (!rc)
        rc = lg_bucket_siv(k, lg_bucket_of(r->kid), &bucket);
    r->version[r->n] = r->version[r->n - 1] + 1;
    if (!rc)
        rc = lg_version_wrap(k, bucket, r, r->n, fresh);
    lg_siv_free(bucket);
    if (!rc)
        rc = lg_info_seal(k, r, fresh, &info);
    if (!rc) {
        r->c.rotated = lg_keyring_wall(k);
        r->n++;
        rc = lg_record_put(k, r);
    }
    return rc;
}

int lg_keyring_rotate_study(struct lg_keyring *k, const char *uid, uint8_t ret_kid[LG_ID_LEN])
{
    struct lg_record *r = malloc(sizeof *r);
    int rc = r ? lg_keyring_need(k, true) : -ENOMEM;
    if (!rc)
        rc = lg_record_find(k, uid, r);
    if (!rc)
        rc = version_add(k, r);
    if (!rc)
        rc = versions_add(k, 1);
    if (!rc)
        memcpy(ret_kid, r->kid, LG_ID_LEN);
    free(r);
    return rc;
}

int lg_keyring_rotate_studies(struct lg_keyring *k, const uint8_t *after, unsigned max, struct lg_rotated *ret)
{
    struct lg_record *r = malloc(sizeof *r);
    struct lg_rotated out = { 0 };
    uint8_t key[64];
    size_t len = after ? LG_ID_LEN : 0, vlen;
    const uint8_t *p;
    int rc = r ? lg_keyring_need(k, true) : -ENOMEM;
    if (after)
        memcpy(key, after, LG_ID_LEN);
    while (!rc && out.n < max) {
        rc = lg_store_next(k->store, LG_T_KEYS, len != 0, key, &len, &p, &vlen);
        if (!rc && len != LG_ID_LEN)
            rc = -EPROTO;
        if (!rc)
            memcpy(out.last, key, LG_ID_LEN);
        if (rc || p[0] != LG_KIND_STUDY)
            continue;
        rc = lg_record_parse(k, key, p, vlen, r);
        if (rc || r->state != LG_KEY_ACTIVE)
            continue;
        rc = version_add(k, r);
        out.n += !rc;
        if (rc == -ENOSPC && r->n >= LG_KEY_VERSIONS_MAX) {
            out.full++;
            rc = 0;
        }
    }
    free(r);
    out.end = rc == -ENOENT;
    rc = out.end ? 0 : rc;
    if (!rc && out.n)
        rc = versions_add(k, out.n);
    if (!rc)
        *ret = out;
    return rc;
}
