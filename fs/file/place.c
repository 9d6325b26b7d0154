/* Chunks that go straight to their place: sealed and written in runs. */
#include <stdlib.h>
#include <string.h>

#include "internal.h"

enum { RUN_MAX = LG_SEAL_MAX, STEP = 128 * 1024 };

int lg_count_writes(struct lg_file *f, uint64_t n)
{
    if (f->chunk_writes + n > LG_CHUNK_WRITES_MAX) {
        lg_file_report(f, "file key used up: copy the file to go on writing", 0, 0);
        return -EIO;
    }
    f->chunk_writes += n;
    return 0;
}

/* What several threads seal and write at a time: parts of STEP bytes, small enough to be written while still in a core's cache. */
struct sealing {
    const struct lg_file *f;
    uint64_t i, off; /* first chunk, and where it stands below */
    const uint8_t *plain;
    uint8_t *entries;
    size_t len, step;
};

static int seal_part(void *arg, unsigned n)
{
    const struct sealing *s = arg;
    uint32_t cs = s->f->env->chunk_size;
    size_t at = n * s->step, len = s->len - at < s->step ? s->len - at : s->step, chunk = at / cs;
    uint8_t *cipher = lg_scratch(s->step);
    int rc = cipher ? 0 : -ENOMEM;
    if (!rc)
        rc = lg_chunks_seal(s->f->key, s->f->s0.file_id, s->i + chunk, cs, s->plain + at, len, cipher, s->entries + chunk * LG_ENTRY_LEN);
    if (!rc)
        rc = lg_sys_write_full(s->f->env->sys, s->f->fd, cipher, len, s->off + at);
    return rc;
}

int lg_seal_in_place(struct lg_file *f, uint64_t i, const uint8_t *plain, size_t len)
{
    uint32_t cs = f->env->chunk_size;
    size_t n = (len + cs - 1) / cs;
    LG_UNCLEARED uint8_t entries[RUN_MAX / LG_CHUNK_SIZE_MIN * LG_ENTRY_LEN];
    struct sealing s = { .f = f, .i = i, .off = lg_format_chunk_off(cs, i), .plain = plain, .entries = entries, .len = len, .step = cs < STEP ? STEP : cs };
    if (len > RUN_MAX)
        return -EINVAL;
    int rc = lg_count_writes(f, n);
    if (rc)
        return rc;
    f->unsynced = f->dirty = true; /* whatever comes of it, below no longer stands what was committed */
    if (i < f->in_place_from)
        f->in_place_from = i;
    if (s.off + len > f->phys)
        f->phys = s.off + len;
    rc = lg_pool_run(f->env->pool, (unsigned)((len + s.step - 1) / s.step), seal_part, &s, 0);
    if (rc)
        f->phys = LG_SIZE_NONE;
    return rc ? rc : lg_entries_set(f, i, entries, n);
}

int lg_flush_in_place(struct lg_file *f)
{
    uint32_t cs = f->env->chunk_size;
    uint8_t *buf = NULL;
    int rc = 0;
    for (size_t k = 0; !rc && k < f->n_o;) {
        struct lg_ochunk *c = &f->o[k];
        if (!c->dirty || !lg_chunk_in_place(f, c->i)) {
            k++;
            continue;
        }
        uint64_t i = c->i, most = lg_format_run(i);
        size_t n = 1, len = lg_chunk_len(f, i);
        while (k + n < f->n_o && n < most && n < RUN_MAX / cs && c[n].dirty && c[n].i == i + n && lg_chunk_in_place(f, i + n))
            len += lg_chunk_len(f, i + n++);
        const uint8_t *plain = c->data;
        if (n > 1) {
            if (!buf && !(buf = malloc(RUN_MAX)))
                return -ENOMEM;
            for (size_t m = 0; m < n; m++)
                memcpy(buf + m * cs, c[m].data, lg_chunk_len(f, i + m));
            plain = buf;
        }
        rc = lg_seal_in_place(f, i, plain, len);
        if (!rc)
            lg_o_drop(f, i, i + n);
    }
    free(buf);
    return rc;
}
