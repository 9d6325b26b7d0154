/* names.h: how names look below. Pure; docs/FORMAT-names.md is the specification.
 *
 * A name is sealed with AES-SIV bound to the random id of its directory, so equal names in two directories look different. Everything whose
 * lower name begins with "lg." is Leadglass's own; sealed names are base64url and never do. Thread-safe. */
#ifndef LEADGLASS_NAMES_H
#define LEADGLASS_NAMES_H

#include <stdbool.h>
#include <sys/types.h>

#include "leadglass/bytes.h"
#include "leadglass/crypto.h"
#include "leadglass/study.h"

#define LG_HIDDEN "lg."
#define LG_DIRID_NAME "lg.dirid"
#define LG_TMP_PREFIX "lg.tmp."
#define LG_LONG_PREFIX "lg.long."
#define LG_LONG_SUFFIX ".name"
#define LG_PLAIN_NAME_MAX 255u
#define LG_SEALED_NAME_MAX 362u /* of a name of 255 bytes */
#define LG_LOWER_NAME_MAX 255u
#define LG_DIRID_TEXT_LEN 43u /* base64url of id and 16-byte tag */

struct lg_names;
int lg_names_new(const struct lg_secret *vault_key, struct lg_names **ret) LG_MUST;
void lg_names_free(struct lg_names *n);

/* The text of a directory's id, the target of the symlink LG_DIRID_NAME in it. */
int lg_dirid_seal(struct lg_names *n, const uint8_t id[LG_ID_LEN], char out[LG_DIRID_TEXT_LEN + 1]) LG_MUST;
int lg_dirid_open(struct lg_names *n, const char *text, size_t len, uint8_t ret_id[LG_ID_LEN]) LG_MUST; /* -EBADMSG */

/* -ENAMETOOLONG above 255 bytes. */
int lg_name_seal(struct lg_names *n, const uint8_t dirid[LG_ID_LEN], const char *name, char out[LG_SEALED_NAME_MAX + 1]) LG_MUST;
int lg_name_open(struct lg_names *n, const uint8_t dirid[LG_ID_LEN], const char *sealed, char out[LG_PLAIN_NAME_MAX + 1]) LG_MUST; /* -EBADMSG */

/* What stands below for a sealed name: itself or, when that is longer than 255 bytes, LG_LONG_PREFIX and a hash; then true, and the sealed name is
 * the target of a symlink of that name with LG_LONG_SUFFIX. */
bool lg_name_lower(const char *sealed, char out[LG_LOWER_NAME_MAX + 1]);
bool lg_name_is_hidden(const char *lower); /* never shown: "lg." but not a long name */
bool lg_name_is_long(const char *lower);

/* Symbolic links: random salt, so equal targets look different. Plaintext length is a function of the sealed length. A sealed target longer than
 * LG_TARGET_LOWER_MAX is divided: the link below holds its first LG_TARGET_HEAD characters and LG_TARGET_MORE, the link's extended attribute
 * LG_TARGET_XATTR the rest. */
#define LG_TARGET_SEALED_MAX 5503u /* of a target of 4,095 bytes */
#define LG_TARGET_LOWER_MAX 4095u
#define LG_TARGET_HEAD 4092u
#define LG_TARGET_MORE "..."
#define LG_TARGET_XATTR "trusted.leadglass.target"
int lg_target_seal(struct lg_names *n, const char *target, char *out, size_t cap) LG_MUST; /* -ENAMETOOLONG */
int lg_target_open(struct lg_names *n, const char *sealed, size_t len, char *out, size_t cap) LG_MUST; /* out gets a NUL; -EBADMSG */
size_t lg_target_len(size_t sealed_len);

/* Extended attributes user.*: name after "user." to a lower name "user.lg.<...>", value with salt. */
#define LG_XATTR_OVERHEAD 32u
int lg_xattr_name_seal(struct lg_names *n, const char *name, char *out, size_t cap) LG_MUST; /* -ERANGE when it does not fit 255 */
int lg_xattr_name_open(struct lg_names *n, const char *lower, char out[256]) LG_MUST;
int lg_xattr_seal(struct lg_names *n, const char *name, const void *value, size_t len, uint8_t *out) LG_MUST; /* len + 32 bytes */
int lg_xattr_open(struct lg_names *n, const char *name, const uint8_t *in, size_t len, uint8_t *out) LG_MUST; /* len - 32 bytes; -EBADMSG */

/* ---- as they stand below (lower.c): the only functions here that make system calls ---- */

/* The id of an open directory. -ENOENT: it has none; -EBADMSG. */
int lg_dirid_read(struct lg_names *n, int dirfd, uint8_t ret_id[LG_ID_LEN]) LG_MUST;
/* The plaintext name of a lower one, which is not hidden. -EBADMSG: it does not verify, or is long and without its link. */
int lg_name_read(struct lg_names *n, int dirfd, const uint8_t dirid[LG_ID_LEN], const char *lower, char out[LG_PLAIN_NAME_MAX + 1]) LG_MUST;
/* The link that goes with a long lower name, and the sealed name in it. Needs no key. -EBADMSG: missing, or another name's. */
void lg_sidecar_name(const char *lower, char out[LG_LOWER_NAME_MAX + 1]);
int lg_sidecar_read(int dirfd, const char *lower, char sealed[LG_SEALED_NAME_MAX + 1]) LG_MUST;
/* The sealed target of a symbolic link (fd is O_PATH): its length, or -errno. -EBADMSG: a part is missing. Not terminated. */
ssize_t lg_link_text(int fd, char out[LG_TARGET_SEALED_MAX + 1]) LG_MUST;

#endif
