/* What acts that are carried out elsewhere say of it, in their data. */
#include "leadglass/act.h"

int lg_assign_encode(const struct lg_assign *x, uint8_t out[LG_ACT_DATA_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_ACT_DATA_MAX);
    lg_wr_bytes(&w, x->file_id, LG_ID_LEN);
    lg_wr_bytes(&w, x->from, LG_ID_LEN);
    lg_wr_str(&w, x->name);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_assign_decode(const uint8_t *untrusted, size_t len, struct lg_assign *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    struct lg_assign x;
    lg_rd_copy(&r, x.file_id, LG_ID_LEN);
    lg_rd_copy(&r, x.from, LG_ID_LEN);
    lg_rd_str(&r, x.name, LG_ASSIGN_NAME_MAX);
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = x;
    return 0;
}

int lg_trim_encode(const struct lg_trim *x, uint8_t out[LG_ACT_DATA_MAX], size_t *ret_len)
{
    struct lg_wr w = lg_wr(out, LG_ACT_DATA_MAX);
    if (x->n_vaults > LG_TRIM_VAULTS_MAX)
        return -EINVAL;
    lg_wr_u8(&w, x->others_gone);
    lg_wr_u8(&w, (uint8_t)x->n_vaults);
    lg_wr_bytes(&w, x->vault, x->n_vaults * (size_t)LG_ID_LEN);
    if (w.bad)
        return -EINVAL;
    *ret_len = w.len;
    return 0;
}

int lg_trim_decode(const uint8_t *untrusted, size_t len, struct lg_trim *ret)
{
    struct lg_rd r = lg_rd(untrusted, len);
    uint8_t gone = lg_rd_u8(&r), n = lg_rd_u8(&r);
    struct lg_trim x = { .others_gone = gone == 1, .n_vaults = n };
    if (gone > 1 || n > LG_TRIM_VAULTS_MAX)
        return -EPROTO;
    lg_rd_copy(&r, x.vault, n * (size_t)LG_ID_LEN);
    if (!lg_rd_done(&r))
        return -EPROTO;
    *ret = x;
    return 0;
}
