/* The journal file: a header sector, then two areas used in turn. See docs/FORMAT.md, "Journal". */
#ifndef LG_JOURNAL_INTERNAL_H
#define LG_JOURNAL_INTERNAL_H

#include "leadglass/bytes.h"
#include "leadglass/journal.h"

#define LG_JOURNAL_VERSION 1u
#define LG_AREA_LEN (16u * 1024u * 1024u)
#define LG_AREA_DATA LG_HEADER_LEN /* records begin here within an area */

static inline uint64_t lg_area_off(unsigned a) { return LG_HEADER_LEN + (uint64_t)a * LG_AREA_LEN; }

/* The fixed part of a record; ops and data follow. */
struct lg_jrec {
    uint32_t len; /* whole record, a multiple of LG_SECTOR */
    uint64_t generation, number;
    uint8_t file_id[LG_ID_LEN];
    int32_t handle_type;
    uint32_t handle_len;
    uint8_t handle[LG_JOURNAL_HANDLE_MAX];
    uint64_t seq;
    int64_t mtime_s;
    uint32_t mtime_ns;
    uint32_t n_ops;
    const uint8_t *ops; /* into the buffer it was decoded from */
    size_t ops_len;
};
#define LG_JREC_FIXED 208u
#define LG_JOP_FIXED 24u

/* Length of the record that begins with this sector, 0: none of this generation. Not yet checked beyond that. */
size_t lg_jrec_len(const uint8_t sector[LG_SECTOR], uint64_t generation);
/* Bounded: checks magic, lengths, checksum and every op. -ENOENT: no record of this generation here. */
int lg_jrec_decode(const uint8_t *buf, size_t len, uint64_t generation, struct lg_jrec *ret) LG_MUST;
/* Carries out the ops of a decoded record on fd. */
int lg_jrec_apply(const struct lg_sys *sys, const struct lg_jrec *r, int fd) LG_MUST;

/* Learns the file's handle, once. */
void lg_jfile_locate(struct lg_jfile *f);

/* An area's own header. Generations only grow, and are kept when an area is retired: no record left behind by an earlier use of the area can
 * pass for one of the present use. */
struct lg_area_header {
    uint64_t generation;
    bool live; /* holds records that are not retired */
    bool here; /* written by this very journal file, not by one that it is a copy of: the handles in its records lead to this vault's files */
};
/* self: the journal file itself. */
int lg_area_header_read(const struct lg_sys *sys, const struct lg_jfile *self, unsigned area, struct lg_area_header *ret) LG_MUST;
int lg_area_header_write(const struct lg_sys *sys, const struct lg_jfile *self, unsigned area, uint64_t generation, bool live) LG_MUST;

/* Replays the live areas, older first; durable below on return, areas not yet retired. */
int lg_journal_replay(const struct lg_sys *sys, int vault_dirfd, const struct lg_jfile *self, const uint8_t vault_id[LG_ID_LEN], bool read_only) LG_MUST;
/* Calls each for the file of every record in the live areas. */
int lg_journal_unretired(const struct lg_sys *sys, const struct lg_jfile *self, int (*each)(void *arg, const uint8_t file_id[LG_ID_LEN]), void *arg) LG_MUST;

#endif
