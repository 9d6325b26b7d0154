#include "leadglass/wire.h"

int lg_governance_encode(const struct lg_governance *g, uint8_t *out, size_t cap, size_t *ret_len)
{
    uint8_t b[LG_POLICY_MAX];
    size_t len;
    struct lg_wr w = lg_wr(out, cap);
    lg_wr_bytes(&w, g->keyring_id, LG_ID_LEN);
    lg_wr_bytes(&w, g->sign_pub, sizeof g->sign_pub);
    lg_wr_u8(&w, g->officer_mode);
    lg_wr_u64(&w, g->time.wall_s);
    lg_wr_u64(&w, g->time.last_s);
    lg_wr_u64(&w, g->time.run_s);
    lg_wr_u8(&w, (uint8_t)g->time.frozen);
    lg_wr_u64(&w, g->time.frozen_at);
    int rc = lg_policy_encode(&g->policy, b, &len);
    if (rc)
        return rc;
    lg_wr_u16(&w, (uint16_t)len);
    lg_wr_bytes(&w, b, len);
    lg_wr_u16(&w, (uint16_t)g->n_officers);
    for (unsigned i = 0; i < g->n_officers && i < LG_OFFICERS_MAX; i++) {
        uint8_t o[LG_OFFICER_REC_MAX];
        rc = lg_officer_encode(&g->officers[i], o, &len);
        if (rc)
            return rc;
        lg_wr_u16(&w, (uint16_t)len);
        lg_wr_bytes(&w, o, len);
    }
    if (w.bad)
        return -ENOSPC;
    *ret_len = w.len;
    return 0;
}

int lg_governance_decode(const uint8_t *untrusted, size_t len, struct lg_governance *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_governance *g = ret;
    lg_rd_copy(&r, g->keyring_id, LG_ID_LEN);
    lg_rd_copy(&r, g->sign_pub, sizeof g->sign_pub);
    uint8_t mode = lg_rd_u8(&r);
    g->time.wall_s = lg_rd_u64(&r);
    g->time.last_s = lg_rd_u64(&r);
    g->time.run_s = lg_rd_u64(&r);
    uint8_t frozen = lg_rd_u8(&r);
    g->time.frozen_at = lg_rd_u64(&r);
    size_t n = lg_rd_u16(&r);
    const uint8_t *p = lg_rd_bytes(&r, n);
    if (!p || mode > 1 || frozen > LG_FROZEN_DOWN || lg_policy_decode(p, n, &g->policy))
        return -EPROTO;
    g->officer_mode = mode == 1;
    g->time.frozen = (enum lg_frozen)frozen;
    g->n_officers = lg_rd_u16(&r);
    if (g->n_officers > LG_OFFICERS_MAX)
        return -EPROTO;
    for (unsigned i = 0; i < g->n_officers; i++) {
        n = lg_rd_u16(&r);
        p = lg_rd_bytes(&r, n);
        if (!p || lg_officer_decode(p, n, &g->officers[i]))
            return -EPROTO;
    }
    return lg_rd_done(&r) ? 0 : -EPROTO;
}
