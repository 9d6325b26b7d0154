#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "internal.h"

enum { LOOK_EVERY = 128 };

struct wreck {
    const struct lg_file_env *env;
    int fd;
    struct lg_s0 s0;
    uint8_t s0_raw[LG_SECTOR], slot_raw[2][LG_SECTOR];
    struct lg_filekey *key[2]; /* as the slots lead to them: the file may have been given another */
    uint64_t phys;
    uint64_t size[2]; /* what it may be long: as a slot says that is authentic, and as it stands below */
    struct {
        uint8_t id[LG_ID_LEN];
        uint32_t version;
    } study[2];       /* key of each slot's study, where key is there: a file that was written anew may have become another study's */
    unsigned newest;  /* which of them is named first */
};

/* The keys that the slots lead to. A checksum or MAC that is wrong does not matter, as the commitment proves the key. */
static int find_keys(struct wreck *w)
{
    struct lg_slot s[2];
    uint8_t acc[LG_PRF_OUT];
    uint64_t seq = 0;
    int rc = -EBADMSG;
    bool known = false;
    for (unsigned i = 0; i < 2; i++) {
        struct lg_kref *kref;
        if (lg_slot_decode(w->slot_raw[i], &s[i]))
            lg_slot_claims(w->slot_raw[i], &s[i]);
        int r = lg_keys_by_id(w->env->keys, s[i].kid, s[i].key_version, &kref);
        if (!r) {
            r = lg_filekey_open(kref->key, &s[i], &w->s0, &w->key[i]);
            lg_kref_unref(kref);
        }
        bool sound = !r && s[i].seq >= seq && !lg_slot_verify(w->slot_raw[i], &s[i], w->key[i], w->s0_raw, acc);
        if (sound) {
            w->size[0] = s[i].size;
            seq = s[i].seq;
        }
        if (sound || (!r && !known))
            w->newest = i;
        if (!r) {
            known = true;
            memcpy(w->study[i].id, s[i].kid, LG_ID_LEN);
            w->study[i].version = s[i].key_version;
        }
        if (r == -EKEYREVOKED || (r == -ENOKEY && rc != -EKEYREVOKED))
            rc = r;
    }
    return w->key[0] || w->key[1] ? 0 : rc;
}

static int begin(struct wreck *w)
{
    uint8_t head[3 * LG_SECTOR] = { 0 };
    struct stat st;
    int rc = w->env->sys->fstat(w->env->sys->arg, w->fd, &st);
    if (rc)
        return rc;
    ssize_t n = lg_sys_read_full(w->env->sys, w->fd, head, sizeof head, 0);
    if (n < 0)
        return (int)n;
    if (lg_s0_decode(head, &w->s0) || memcmp(w->s0.vault_id, w->env->vault_id, LG_ID_LEN) != 0 || w->s0.chunk_size != w->env->chunk_size) {
        /* All but the file's id is the same in every file; the wrap proves whether that is right. */
        w->s0 = (struct lg_s0){ .version = LG_FORMAT_VERSION, .suite = LG_SUITE_1, .chunk_size = w->env->chunk_size };
        memcpy(w->s0.vault_id, w->env->vault_id, LG_ID_LEN);
        lg_s0_claimed_id(head, w->s0.file_id);
    }
    lg_s0_encode(&w->s0, w->s0_raw);
    memcpy(w->slot_raw, head + LG_SECTOR, sizeof w->slot_raw);
    w->phys = (uint64_t)st.st_size;
    w->size[1] = lg_format_plain_size(w->env->chunk_size, w->phys);
    if (w->size[1] > LG_FILE_SIZE_MAX)
        w->size[1] = LG_FILE_SIZE_MAX;
    return find_keys(w);
}

/* Chunk i, whatever length and key it may have; *ret_len 0: it does not verify. */
static int chunk(struct wreck *w, uint64_t i, const uint8_t *entry, uint8_t *buf, uint32_t *ret_len)
{
    uint32_t cs = w->env->chunk_size;
    *ret_len = 0;
    for (unsigned k = 0; k < 4 && !*ret_len; k++) {
        uint64_t size = w->size[k & 1];
        const struct lg_filekey *key = w->key[k >> 1];
        if (!key || i >= lg_format_chunks(cs, size))
            continue;
        uint32_t len = size - i * cs < cs ? (uint32_t)(size - i * cs) : cs;
        ssize_t n = lg_sys_read_full(w->env->sys, w->fd, buf, len, lg_format_chunk_off(cs, i));
        if (n < 0)
            return (int)n;
        if (n == (ssize_t)len && !lg_chunk_open(key, w->s0.file_id, i, buf, len, entry, buf))
            *ret_len = len;
    }
    return 0;
}

/* From chunk i on, whose entry is in a hole below, the next whose entry may not be: whoever lengthens a file makes no entries, and there may be a thousand million
 * of them. n: there is none but beyond the end of the file, or of what is looked for. */
static uint64_t after_hole(const struct wreck *w, uint64_t i, uint64_t n)
{
    uint32_t cs = w->env->chunk_size;
    const struct lg_sys *sys = w->env->sys;
    off_t data = sys->lseek(sys->arg, w->fd, (off_t)lg_format_entry_off(cs, i), SEEK_DATA);
    uint64_t at = data >= 0 ? (uint64_t)data : data == -ENXIO ? w->phys : 0, lo = i + 1;
    while (lo < n) { /* the first that ends behind it */
        uint64_t mid = lo + (n - lo) / 2;
        if (lg_format_entry_off(cs, mid) + LG_ENTRY_LEN > at)
            n = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

/* Both studies, where there are two: a chunk of either may be put. */
static int tell(const struct wreck *w, const struct lg_salvage_sink *out)
{
    unsigned a = w->newest, b = !a;
    int rc = out->begin ? out->begin(out->arg, w->study[a].id, w->study[a].version, w->s0.file_id) : 0;
    if (!rc && out->begin && w->key[b] && memcmp(w->study[a].id, w->study[b].id, LG_ID_LEN) != 0)
        rc = out->begin(out->arg, w->study[b].id, w->study[b].version, w->s0.file_id);
    return rc;
}

int lg_file_salvage(const struct lg_file_env *env, int fd, const struct lg_salvage_sink *out, struct lg_salvaged *ret)
{
    struct wreck w = { .env = env, .fd = fd };
    uint32_t cs = env->chunk_size, len;
    struct lg_salvaged r = { 0 };
    uint8_t *buf = malloc(cs), entry[LG_ENTRY_LEN];
    int rc = buf ? begin(&w) : -ENOMEM;
    if (!rc)
        rc = tell(&w, out);
    uint64_t top = w.size[0] > w.size[1] ? w.size[0] : w.size[1], n = lg_format_chunks(cs, top), end = 0, look = 0;
    for (uint64_t i = 0, next; !rc && i < n; i = next) {
        next = i + 1;
        ssize_t got = lg_sys_read_full(env->sys, fd, entry, sizeof entry, lg_format_entry_off(cs, i));
        if (got < 0) {
            rc = (int)got;
            break;
        }
        if (got < (ssize_t)sizeof entry) { /* beyond the end: so is all that follows */
            rc = out->lost(out->arg, i * cs, top);
            break;
        }
        if (lg_entry_empty(entry)) {
            if (i >= look) {
                next = after_hole(&w, i, n);
                look = i + LOOK_EVERY;
            }
            continue;
        }
        rc = chunk(&w, i, entry, buf, &len);
        if (rc)
            break;
        if (len) {
            r.good += len;
            end = i * cs + len;
            rc = out->put(out->arg, i * cs, buf, len);
        } else {
            rc = out->lost(out->arg, i * cs, i * cs + cs < top ? i * cs + cs : top);
        }
    }
    r.size = w.size[0] >= end && w.size[0] ? w.size[0] : end > w.size[1] ? end : w.size[1];
    memcpy(r.file_id, w.s0.file_id, LG_ID_LEN);
    lg_filekey_free(w.key[0]);
    lg_filekey_free(w.key[1]);
    if (!rc && !r.good && top)
        rc = -EBADMSG;
    if (buf)
        lg_wipe(buf, cs);
    free(buf);
    if (!rc)
        *ret = r;
    return rc;
}
