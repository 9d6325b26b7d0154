/* Inside the audit module: the files of one chain. docs/AUDIT.md names them. */
#ifndef LG_AUDIT_DIR_H
#define LG_AUDIT_DIR_H

#include "leadglass/audit.h"

#define LG_AUDIT_CHAIN_FILE "chain"
#define LG_AUDIT_RESERVE_FILE "reserve"
#define LG_AUDIT_LOCK_FILE "lock"
#define LG_AUDIT_SEGMENT_MAX (1u << 30) /* bytes, uncompressed */
enum { LG_AUDIT_FILE_NAME = 32 };

enum lg_audit_file { LG_AUDIT_PLAIN, LG_AUDIT_PACKED, LG_AUDIT_HEADS };
void lg_audit_file_name(unsigned segment, enum lg_audit_file kind, char out[LG_AUDIT_FILE_NAME]);
/* Numbers of the segments there are, ascending, each once; *ret is malloced. */
int lg_audit_segments(int dirfd, unsigned **ret, size_t *ret_n) LG_MUST;
int lg_audit_chain_read(int dirfd, struct lg_audit_chain *ret) LG_MUST; /* -ENOENT, -EPROTO; name is left alone */
int lg_audit_chain_write(int dirfd, const struct lg_audit_chain *c) LG_MUST; /* durable */
/* Lines of a descriptor, plain or compressed; the last may have no newline (cut). */
int lg_audit_lines(int fd, bool packed, int (*line)(void *arg, const char *s, size_t len, bool cut), void *arg) LG_MUST;

#endif
