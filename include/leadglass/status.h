/* status.h: the one status convention.
 *
 * Every function that can fail returns int: 0, or a negative errno value. Outputs named ret_* are written
 * only on success. Libraries never log and never exit. Values with a meaning of their own here:
 *   -ENOKEY         the key manager is locked, or it does not know the key
 *   -EKEYREVOKED    the key was revoked or its study destroyed
 *   -EKEYREJECTED   a wrong passphrase
 *   -EBADMSG        authenticated bytes do not verify (tampering or damage); -EIO at the mount
 *   -EPROTO         malformed bytes from a peer or a file
 *   -EPROTONOSUPPORT a newer protocol or format version than this program knows
 */
#ifndef LEADGLASS_STATUS_H
#define LEADGLASS_STATUS_H

#include <errno.h>

#define LG_MUST __attribute__((warn_unused_result))
/* A large variable of a function, which the compiler is not to clear each time (-ftrivial-auto-var-init). */
#define LG_UNCLEARED __attribute__((uninitialized))
#define LG_PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))

#define LEADGLASS_VERSION "0.1.0"

#endif
