/* The manifest: what stood in a vault, in the order of a walk, a MAC over it, and the key manager's signature (docs/FORMAT-manifest.md). */
#ifndef LG_SCRUB_MANIFEST_H
#define LG_SCRUB_MANIFEST_H

#include "leadglass/file.h"
#include "leadglass/manifestsig.h"

#define LG_MANIFEST_PATH_MAX 263168u /* deeper than scrub goes */
#define LG_MANIFEST_HEADER 64u
#define LG_MANIFEST_FIXED 146u /* of an entry, without its path */
#define LG_MANIFEST_END 80u /* without the signature */
#define LG_MANIFEST_MAC_ONLY 1u /* versions */
#define LG_MANIFEST_SIGNED 2u

enum lg_item_type { LG_ITEM_FILE = 1, LG_ITEM_DIR = 2, LG_ITEM_LINK = 3, LG_ITEM_OTHER = 4 };
enum lg_item_state {
    LG_ITEM_VERIFIED = 1, /* with its key */
    LG_ITEM_CLAIMED = 2,  /* no key: what its header says */
    LG_ITEM_DAMAGED = 3,
};
struct lg_item {
    enum lg_item_type type;
    enum lg_item_state state;
    uint8_t id[LG_ID_LEN];    /* file id or directory id */
    uint64_t seq, size;       /* of files */
    uint8_t mac[LG_MAC_LEN];  /* of a file's newest slot; SHA-256 of a link's sealed target */
    uint32_t mode, uid, gid;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint8_t xattrs[LG_MAC_LEN]; /* over its user.* attributes as they stand below; zeros: none */
};

struct lg_manifest_info {
    uint32_t version;
    uint8_t vault_id[LG_ID_LEN];
    uint64_t created, session;
};

/* ---- bytes: pure; for fuzzing ---- */
void lg_manifest_header_encode(const struct lg_manifest_info *i, uint8_t out[LG_MANIFEST_HEADER]);
int lg_manifest_header_decode(const uint8_t in[LG_MANIFEST_HEADER], struct lg_manifest_info *ret) LG_MUST; /* -EPROTO, -EPROTONOSUPPORT */
/* Into out[LG_MANIFEST_FIXED + length of path]; how many. */
size_t lg_item_encode(const struct lg_item *it, const char *path, uint8_t *out);
/* The whole length of the entry that begins here, from its first 4 bytes; 0: none (the end, or not an entry). */
size_t lg_item_len(const uint8_t in[4]);
/* path: room for LG_MANIFEST_PATH_MAX + 1. -EPROTO. */
int lg_item_decode(const uint8_t *in, size_t len, struct lg_item *ret, char *path) LG_MUST;
/* In which order a walk meets them: parents first, then by name. */
int lg_path_cmp(const char *a, const char *b);
/* Whether a walk whose position is at has been at path: before it, or beneath it, as a directory's position is told when everything in it is done. */
bool lg_path_done(const char *path, const char *at);

/* ---- writing ---- */
struct lg_manifest_writer;
/* Writes path.part; of the signed version. resume: keeps of it what stands up to this lower path, "" for nothing; NULL: begins anew. -EALREADY: what is to be resumed was
 * begun as another version. */
int lg_manifest_create(const char *path, const struct lg_manifest_info *i, const char *resume, struct lg_manifest_writer **ret) LG_MUST;
int lg_manifest_add(struct lg_manifest_writer *w, const char *path, const struct lg_item *it) LG_MUST;
int lg_manifest_flush(struct lg_manifest_writer *w) LG_MUST;
int lg_manifest_sync(struct lg_manifest_writer *w) LG_MUST; /* what was added is there after a power cut, too */
/* Seals it, makes it durable, gives it its name. sign fills in all but what it is given: vault, begun, entries, hash. -EKEYREJECTED: that is no signature of those. */
int lg_manifest_finish(struct lg_manifest_writer *w, const struct lg_secret *vault_key, int (*sign)(void *arg, struct lg_manifest_sig *s), void *arg) LG_MUST;
void lg_manifest_writer_free(struct lg_manifest_writer *w); /* .part stays */

/* ---- reading ---- */
struct lg_manifest_reader;
/* Opens it and verifies all of it. -EBADMSG: it does not verify under this vault's key; -EPROTO: not a manifest; -EXDEV: another vault's; -EKEYREJECTED: it is not pub's
 * signature; -ENODATA: there is none. One of version 1 has a MAC alone (lg_manifest_info). */
int lg_manifest_open(const char *path, const uint8_t vault_id[LG_ID_LEN], const struct lg_secret *vault_key, const uint8_t pub[LG_SIGN_PUB_LEN], struct lg_manifest_reader **ret) LG_MUST;
void lg_manifest_reader_free(struct lg_manifest_reader *r);
int lg_manifest_rewind(struct lg_manifest_reader *r) LG_MUST;
/* The next entry, path owned by the reader until the next call. -ENOENT: the end. -EBADMSG: changed since it was verified. */
int lg_manifest_next(struct lg_manifest_reader *r, struct lg_item *ret, const char **ret_path) LG_MUST;
const struct lg_manifest_info *lg_manifest_info(const struct lg_manifest_reader *r);

#endif
