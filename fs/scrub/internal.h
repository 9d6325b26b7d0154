/* Inside scrub. */
#ifndef LG_SCRUB_INTERNAL_H
#define LG_SCRUB_INTERNAL_H

#include "leadglass/format.h"
#include "leadglass/journal.h"
#include "leadglass/names.h"
#include "leadglass/scrub.h"

/* ---- text.c: a path that grows and shrinks ---- */
struct lg_text {
    char *p; /* always terminated, once something was pushed */
    size_t len, cap;
};
int lg_text_push(struct lg_text *t, const char *part) LG_MUST; /* with a slash between */
void lg_text_cut(struct lg_text *t, size_t len);
const char *lg_text(const struct lg_text *t);

/* ---- batch.c: names of a directory in order, a bounded number at a time ---- */
struct lg_batch {
    char *text;
    size_t used, cap;
    uint32_t *at;
    size_t n, cap_at;
};
/* The smallest names greater than after (NULL: any), sorted; n 0: no more. "." and ".." are left out. */
int lg_batch_next(int dirfd, const char *after, struct lg_batch *b) LG_MUST;
void lg_batch_free(struct lg_batch *b);

struct lg_manifest_writer;
struct lg_against;
struct lg_item;

struct scrub {
    const struct lg_scrub_options *o;
    const struct lg_sys *sys;
    const char *resume; /* NULL: from the beginning */
    uint8_t vault_id[LG_ID_LEN];
    uint32_t chunk_size;
    struct lg_scrub_stat st;
    struct lg_text lower, path, position;
    const char *other; /* of the finding that is told */
    unsigned unflushed; /* entries since the manifest was written out; position follows when it is */
    bool path_known;
    /* with keys */
    struct lg_file_env env;
    struct lg_names *names;
    enum lg_scrub_class cls; /* of what lg_file reports now */
    unsigned n_reported;
    bool held_reports; /* kept until it is known what they mean */
    struct lg_finding held[4];
    unsigned n_held;
    bool stopped; /* pace said so */
    struct lg_manifest_writer *manifest;
    struct lg_against *against;
    /* keyless */
    uint8_t (*pending)[LG_ID_LEN]; /* files with changes in the journal */
    size_t n_pending;
    time_t started;
};

void lg_scrub_find(struct scrub *s, enum lg_scrub_class cls, const char *kind, const uint8_t *file_id, uint64_t from, uint64_t to);
void lg_scrub_tell_held(struct scrub *s);
bool lg_scrub_locked(const struct scrub *s); /* no key at all is to be had */
/* Bytes were read: counts them and lets the caller rest. */
int lg_scrub_read(struct scrub *s, size_t n) LG_MUST;

/* ---- check.c: with keys ---- */
/* The file open as fd (taken over). Its identity goes to it. */
int lg_scrub_file(struct scrub *s, int fd, struct lg_item *it) LG_MUST;
int lg_scrub_link(struct scrub *s, int dirfd, const char *lower, struct lg_item *it) LG_MUST;
/* fd may be O_PATH. */
int lg_scrub_xattrs(struct scrub *s, int fd, struct lg_item *it) LG_MUST;

/* ---- repair.c ---- */
/* Takes an entry away, whatever it is but a directory, and says so. */
int lg_scrub_removed(struct scrub *s, int dirfd, const char *lower) LG_MUST;
/* What stands at lower in dirfd is given a name in lost+found, made from its own id if it has one. */
int lg_scrub_to_lost(struct scrub *s, int dirfd, const char *lower) LG_MUST;
/* An empty directory whose id is bad. */
void lg_scrub_new_dirid(struct scrub *s, int fd);
/* What can be read of the damaged file. */
int lg_scrub_salvage(struct scrub *s, int fd, const uint8_t id[LG_ID_LEN]) LG_MUST;

/* ---- keyless.c ---- */
int lg_scrub_keyless_file(struct scrub *s, int fd) LG_MUST; /* fd is borrowed */
int lg_scrub_keyless_link(struct scrub *s, int dirfd, const char *lower) LG_MUST;
int lg_scrub_keyless_xattrs(struct scrub *s, int fd) LG_MUST;
bool lg_scrub_keyless_dirid_ok(int dirfd); /* something that looks like one is there */
bool lg_scrub_keyless_name_ok(int dirfd, const char *lower);

#endif
