/* Files of destroyed studies that are still in vaults: which keys they name, and what became of them. */
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#include "daemon.h"

enum { PAIRS = (LG_WIRE_BLOB_MAX - 1) / (2 * LG_ID_LEN) };

static void reply_blob(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q, int status, uint8_t *blob, size_t len)
{
    struct lg_answer a = { .type = q->type, .id = q->id, .status = status, .blob = blob, .blob_len = status ? 0 : len };
    lg_reply(w, c, &a);
}

void lg_on_kids(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    struct lg_kid_pair *pair = calloc(PAIRS, sizeof *pair);
    uint8_t *b = malloc(LG_WIRE_BLOB_MAX);
    struct lg_wr wr = lg_wr(b, b ? LG_WIRE_BLOB_MAX : 0);
    unsigned n = 0;
    bool end = false;
    int rc = !pair || !b ? -ENOMEM : q->pass_len && q->pass_len != 2 * LG_ID_LEN ? -EINVAL : 0;
    if (!rc)
        rc = lg_keyring_destroyed_kids(w->keyring, q->uid, q->pass_len ? q->pass : NULL, pair, PAIRS, &n, &end);
    lg_wr_u8(&wr, end);
    for (unsigned i = 0; !rc && i < n; i++) {
        lg_wr_bytes(&wr, pair[i].study, LG_ID_LEN);
        lg_wr_bytes(&wr, pair[i].kid, LG_ID_LEN);
    }
    reply_blob(w, c, q, rc ? rc : wr.bad ? -ENOSPC : 0, b, wr.len);
    free(pair);
    free(b);
}

void lg_on_reaped(struct lg_worker *w, struct lg_conn *c, const struct lg_request *q)
{
    uint8_t b[32];
    struct lg_reaped x = { 0 };
    struct lg_rd r = lg_rd(q->pass, q->pass_len);
    uint64_t files = lg_rd_u64(&r), bytes = lg_rd_u64(&r);
    int rc = lg_rd_done(&r) ? lg_keyring_reaped(w->keyring, q->kid, q->vault_id, files, bytes, q->now, &x) : -EINVAL;
    struct lg_wr wr = lg_wr(b, sizeof b);
    lg_wr_u64(&wr, x.files);
    lg_wr_u64(&wr, x.bytes);
    lg_wr_u64(&wr, x.counted);
    lg_wr_u64(&wr, x.removed);
    if (!rc && q->now)
        lg_log(LOG_NOTICE, "user %u removed %llu files of a destroyed study from a vault", (unsigned)c->uid, (unsigned long long)x.files);
    reply_blob(w, c, q, rc, b, wr.len);
}
