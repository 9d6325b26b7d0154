/* What the access log asks: keys and pseudonyms of files. */
#include <fcntl.h>
#include <string.h>

#include "internal.h"
#include "leadglass/audit.h"

bool lg_volume_audit_key(struct lg_handle *h, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version) { return lg_file_kid_soon(h->n->f, ret_kid, ret_version); }

int lg_volume_audit_file(struct lg_handle *h, uint8_t ret[LG_ID_LEN])
{
    uint8_t kid[LG_ID_LEN], id[LG_ID_LEN];
    uint32_t version;
    struct lg_kref *k;
    if (!lg_file_kid_soon(h->n->f, kid, &version))
        return -ENOKEY;
    int rc = lg_keys_by_id(h->v->opt.keys, kid, version, &k);
    if (rc)
        return rc;
    lg_file_id(h->n->f, id);
    rc = lg_audit_file_id(k->key, id, ret);
    lg_kref_unref(k);
    return rc;
}

char *lg_volume_path(struct lg_volume *v, uint64_t node) { return lg_node_path(v, node); }

static bool in_memory(struct lg_volume *v, struct lg_node *n, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    lg_node_lock(v, n);
    bool known = S_ISREG(n->type) && (n->f ? lg_file_kid_soon(n->f, ret_kid, ret_version) : n->id_known);
    if (known && !n->f) {
        memcpy(ret_kid, n->kid, LG_ID_LEN);
        *ret_version = n->key_version;
    }
    lg_node_unlock(v, n);
    return known;
}

bool lg_volume_audit_node(struct lg_volume *v, uint64_t node, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version)
{
    struct lg_node *n = lg_node_ref(v, node);
    bool known = n && in_memory(v, n, ret_kid, ret_version);
    if (n)
        lg_node_unref(v, n);
    return known || lg_volume_key_of(v, node, ret_kid, ret_version) == 0;
}

struct lg_subject lg_node_subject(struct lg_volume *v, struct lg_node *n)
{
    struct lg_subject s = { .known = false };
    s.known = n && in_memory(v, n, s.study, &s.key);
    return s;
}
