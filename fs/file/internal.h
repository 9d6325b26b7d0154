/* Inside lg_file: entry table, overlay, loading, committing. Lock order: commit_mu, then lock; the journal's locks come last. */
#ifndef LG_FILE_INTERNAL_H
#define LG_FILE_INTERNAL_H

#include <pthread.h>

#include "leadglass/classify.h"
#include "leadglass/file.h"
#include "leadglass/format.h"
#include "leadglass/journal.h"
#include "leadglass/later.h"

/* Dirty plaintext held in memory beyond this is committed at once. */
#define LG_OVERLAY_MAX (4u * 1024u * 1024u)
/* Until its study is known, so much of a file is held in memory. */
#define LG_UNDECIDED_MAX (2u * LG_CLASSIFY_MAX)
#define LG_SEAL_MAX (1024u * 1024u)
#define LG_SIZE_NONE UINT64_MAX

#define LG_PAGE_GROUP 1024u
/* 128 consecutive entries (80 in the first), contiguous below as well. */
struct lg_tpage {
    uint8_t dirty; /* one bit per sector */
    bool huge;     /* it stands in one of the file's blocks */
    uint8_t e[LG_REGION_ENTRIES * LG_ENTRY_LEN];
};

/* Plaintext of a chunk that is newer than what stands below. */
struct lg_ochunk {
    uint64_t i;
    uint8_t *data;   /* chunk_size bytes, zero beyond the chunk's end */
    bool dirty;      /* not committed */
    uint64_t record; /* journal record that holds it; readable below once that is retired. 0: none */
};

/* Ranges from .. to-1, in the order in which they came. */
struct lg_ranges {
    struct { uint64_t from, to; } *at;
    size_t n, cap;
};

struct lg_file {
    const struct lg_file_env *env;
    char *path;
    int fd;
    pthread_mutex_t commit_mu; /* one commit or sync at a time */
    pthread_rwlock_t lock;     /* everything below */
    _Atomic unsigned held;     /* lg_file_hold */

    /* Comes last of all locks. For lg_file_look, which waits until there is something newer than when it came, unless seen_valid says that f->seen is as good
     * as what is behind the lock. */
    pthread_mutex_t seen_mu;
    pthread_cond_t seen_cond;
    struct lg_file_look seen;
    uint8_t seen_kid[LG_ID_LEN];
    uint32_t seen_key_version; /* 0: the key may still change */
    uint64_t seen_gen;
    unsigned seen_waiting;
    bool seen_valid;

    bool loaded;
    bool trying; /* chunks that do not verify only tell which slot it is */
    bool suspect;       /* this session left it half committed: recovered as after a crash */
    unsigned n_unclean; /* of the environment, when it was loaded */
    int dead; /* set once: every operation gives this error */
    unsigned n_lost; /* how often uncommitted bytes were given up with the keys, and why last */
    int lost;
    struct lg_s0 s0;
    uint8_t s0_raw[LG_SECTOR], slot_raw[2][LG_SECTOR];
    uint64_t slot_seq[2];
    int newest, durable; /* index of slot, -1: none */
    bool durable_unknown; /* committed earlier in this session, by a handle that is gone */
    uint64_t newest_record; /* journal record that holds the newest slot; 0: in place */
    uint64_t seq, durable_size;
    uint64_t size, committed_size;
    uint64_t committed_n; /* chunks that a slot which may still be needed names (R1) */
    uint64_t phys;        /* size below, once nothing is unretired; LG_SIZE_NONE: not known, since a write failed */
    bool dirty, unsynced; /* unsynced: something went straight to the lower file since its last fdatasync */
    bool cleared; /* an entry below committed_n was emptied, and a slot that names it may still be needed */
    uint64_t in_place_from; /* first chunk written in place since the last sync, LG_SIZE_NONE: none */
    bool sync_failed;       /* what was to become durable may be lost, though the next sync succeeds: see again.c */
    bool half;              /* the last commit failed: of what it wrote, a part may stand below */
    bool committed_changed; /* an entry below committed_n was changed and not committed */
    uint64_t cut;           /* the smallest size below committed_size since the last commit, or LG_SIZE_NONE */
    uint64_t cut_record;    /* last journal record that shrank the file */

    struct lg_filekey *key; /* NULL: undecided, nothing sealed yet */
    struct lg_filekey *spare; /* of the empty file, while undecided: it sealed nothing */
    uint64_t chunk_writes;
    uint8_t acc[LG_PRF_OUT];
    uint8_t kid[LG_ID_LEN];
    uint32_t key_version;
    bool provisional, general;

    struct lg_tpage **page; /* NULL: nothing but empty entries. A thousand million entries may be so: who looks for others goes by lg_page_next */
    size_t n_page, n_live;  /* how many may be there, and how many are */
    uint16_t *live;         /* the same of each LG_PAGE_GROUP of them */
    struct lg_tblock *blocks; /* of pages, once there are many */
    struct lg_tpage *unused;  /* in them, and given back */
    size_t n_huge;            /* how many are there, and not given back */
    uint64_t n_full; /* entries that are not empty */
    bool reserved;   /* space was set aside beyond what is written */
    struct lg_ranges zero; /* pages dropped since the last commit and non-empty below */
    struct lg_ranges hole; /* chunks emptied since the last commit; their space below is given back, unless they were filled anew */

    struct lg_ochunk *o; /* ascending */
    size_t n_o, cap_o, n_o_dirty;

    struct lg_classifier *cls; /* while deciding */
    uint64_t fed;
    uint64_t decided; /* bytes that the decision was made from */
    bool decided_reported;
    bool redo; /* a write that decided it was given back, and comes again */
    bool unsettled; /* the next write looks at its first bytes again: it has a key that was given while they told nothing */

    atomic_bool shows; /* lg_file_show_reads: fd is without O_NOATIME */
    _Atomic uint64_t streamed; /* where the farthest large read of the reader who had the last one ended below, since one was not in memory (cold.c); 0: all were */
    atomic_bool cache_asked;   /* whether the first was is known */

    struct timespec mtime;   /* tv_nsec UTIME_OMIT: the lower file's own */
    bool mtime_below;        /* the lower file's own is that of a write through this object */
    bool mtime_set;          /* by the application, not by a write */
    _Atomic bool mtime_seen; /* told to somebody since it changed */
    struct lg_jfile j;
};

static inline uint32_t lg_chunk_len(const struct lg_file *f, uint64_t i)
{
    uint64_t left = f->size - i * f->env->chunk_size;
    return left < f->env->chunk_size ? (uint32_t)left : f->env->chunk_size;
}
static inline uint64_t lg_n_chunks(const struct lg_file *f, uint64_t size) { return lg_format_chunks(f->env->chunk_size, size); }
/* After an unretired truncation everything goes through the journal (R5). */
static inline bool lg_cut_pending(struct lg_file *f) { return f->cut != LG_SIZE_NONE || f->cut_record > atomic_load(&f->j.retired); }
/* May what no slot names be written in place from chunk or entry i on, without the journal (R1)? */
static inline bool lg_in_place(struct lg_file *f, uint64_t i) { return i >= f->committed_n && !lg_cut_pending(f); }
/* Empty, or a hole that got its key while it was one: what it is comes with its first bytes. */
static inline bool lg_blank(const struct lg_file *f) { return f->size == 0 || (f->general && !f->n_full && !f->n_o); }
/* Its key may still change: everything stays in memory. Either no key is known, or the first few bytes, which told nothing, had to be committed
 * under the general key. A provisional key stays. */
static inline bool lg_undecided(const struct lg_file *f) { return !f->key || (f->cls && !f->provisional); }
void lg_file_report(const struct lg_file *f, const char *kind, uint64_t from, uint64_t to);

/* ---- look.c ---- */
/* Lock held exclusively, all complete: what follows may take long. */
void lg_file_slow(struct lg_file *f);
void lg_unlock_exclusive(struct lg_file *f);
/* From here on the lower file's own time is right, unless somebody was told another one: false. */
bool lg_file_mtime_leave(struct lg_file *f) LG_MUST;

/* ---- table.c: all under the lock; changes exclusively ---- */
static inline size_t lg_page_of(uint64_t i) { return i < LG_HEAD_ENTRIES ? 0 : 1 + (size_t)((i - LG_HEAD_ENTRIES) / LG_REGION_ENTRIES); }
static inline uint64_t lg_page_first(size_t p) { return p ? LG_HEAD_ENTRIES + (uint64_t)(p - 1) * LG_REGION_ENTRIES : 0; }
static inline uint32_t lg_page_count(size_t p) { return p ? LG_REGION_ENTRIES : LG_HEAD_ENTRIES; }
const uint8_t *lg_entry_get(const struct lg_file *f, uint64_t i);
/* The first page from p on that is there, or n_page. */
size_t lg_page_next(const struct lg_file *f, size_t p);
/* The first chunk from i on, before n, whose entry is not empty, or n. */
uint64_t lg_entry_next(const struct lg_file *f, uint64_t i, uint64_t n);
/* May chunk i? A committed hole too: whatever stands below, it reads as zeros until its entry, which goes through the journal, says otherwise. */
static inline bool lg_chunk_in_place(struct lg_file *f, uint64_t i)
{
    return lg_in_place(f, i) || (!f->cleared && !lg_cut_pending(f) && lg_entry_empty(lg_entry_get(f, i)));
}
/* Sets n consecutive entries; keeps the accumulator. */
int lg_entries_set(struct lg_file *f, uint64_t i, const uint8_t *entries, size_t n) LG_MUST;
/* Empties entries from .. to-1; whole pages are dropped and remembered in zero. */
int lg_entries_clear(struct lg_file *f, uint64_t from, uint64_t to) LG_MUST;
void lg_table_free(struct lg_file *f);
/* Reads the table for n chunks from below into memory, computing the accumulator into acc. head: the LG_HEAD_ENTRIES of the header, read already.
 * ret_exact: nothing but zeros stands in the unused entries behind. */
int lg_table_load(struct lg_file *f, uint64_t n, const uint8_t *head, uint8_t acc[LG_PRF_OUT], bool *ret_exact) LG_MUST;

/* ---- overlay.c ---- */
struct lg_ochunk *lg_o_find(const struct lg_file *f, uint64_t i);
/* The first chunk from i on, before n, that has bytes, here or below; n: the rest is a hole. */
uint64_t lg_data_next(const struct lg_file *f, uint64_t i, uint64_t n);
struct lg_ochunk *lg_o_add(struct lg_file *f, uint64_t i) LG_MUST; /* zeroed, not dirty; NULL: no memory */
void lg_o_dirty(struct lg_file *f, struct lg_ochunk *c);
void lg_o_drop(struct lg_file *f, uint64_t from, uint64_t to); /* chunks from .. to-1 */
void lg_o_settle(struct lg_file *f, uint64_t retired);         /* drops clean ones whose record is retired */
void lg_o_free(struct lg_file *f);

/* ---- load.c ---- */
/* Exclusively locked. Brings keys and table into memory, recovering what a crash left (R7, R8). */
int lg_file_load(struct lg_file *f) LG_MUST;
void lg_file_unload(struct lg_file *f);
/* Takes the lock, loaded: shared or exclusive. On error no lock is held. */
int lg_lock_shared(struct lg_file *f) LG_MUST;
int lg_lock_exclusive(struct lg_file *f) LG_MUST;
/* Learns which journal records have been retired. */
void lg_file_settle(struct lg_file *f);

/* ---- rw.c ---- */
/* Chunk i in the overlay, marked dirty; with want_old, holding what the file holds now. */
int lg_o_get(struct lg_file *f, uint64_t i, bool want_old, struct lg_ochunk **ret) LG_MUST;
/* Plaintext of a whole chunk into out (chunk_size bytes, zero beyond its end). */
int lg_chunk_load(struct lg_file *f, uint64_t i, uint8_t *out) LG_MUST;

/* ---- cold.c: what of the ciphertext stays in memory below. off, len: of what is read, below ---- */
void lg_cold_ask(struct lg_file *f, uint64_t off, size_t len); /* before the first read that counts: whether it is in memory. Asks once */
void lg_cold_found(struct lg_file *f); /* something was not */
void lg_cold_read(struct lg_file *f, uint64_t off, size_t len, bool cold); /* a large read has ended. Lets go of what it brought in, in time */
bool lg_cold_any(const struct lg_file *f); /* something is still to be let go of */
void lg_cold_end(struct lg_file *f); /* before the descriptor is closed: lets go of that. The system may wait for other processors meanwhile, or write */

/* ---- load.c: the lock of a thread that may have to leave waiting to another (later.h) ---- */
int lg_lock_read(struct lg_file *f) LG_MUST;  /* -LG_ELATER: it is not held */
int lg_lock_write(struct lg_file *f) LG_MUST; /* likewise */

/* ---- decide.c: which key ---- */
/* Sees the bytes of a write to a file without a key, before they are stored. 0 with f->key still NULL: undecided. */
int lg_decide_write(struct lg_file *f, const void *buf, size_t len, uint64_t off) LG_MUST;
/* What wraps file keys under kref, lasting as long as that does, or ret_own, which the caller frees. */
int lg_wrap_of(struct lg_kref *kref, struct lg_siv **ret, struct lg_siv **ret_own) LG_MUST;
/* A file key wrapped by kref: a fresh one, or that of the empty file. */
int lg_key_use(struct lg_file *f, struct lg_kref *kref) LG_MUST;
/* Of that size, under a key of that kind: whether its study may still come. */
bool lg_unsettled(enum lg_key_kind kind, uint64_t size);
/* At a commit: gives the file a key whatever is known. */
int lg_decide_commit(struct lg_file *f) LG_MUST;

/* ---- commit.c: commit_mu and lock held exclusively ---- */
int lg_commit(struct lg_file *f) LG_MUST;
/* commit_mu held, lock not. */
int lg_sync(struct lg_file *f) LG_MUST;
/* fdatasync of the lower file. */
int lg_sync_below(struct lg_file *f) LG_MUST;

/* ---- place.c: lock held exclusively ---- */
/* Counts n sealed chunks against what the file key may do. */
int lg_count_writes(struct lg_file *f, uint64_t n) LG_MUST;
/* Seals chunks from i (all full but perhaps the last) out of plain, at most LG_SEAL_MAX bytes, and writes them in place. */
int lg_seal_in_place(struct lg_file *f, uint64_t i, const uint8_t *plain, size_t len) LG_MUST;
/* Dirty chunks that may go straight to their place do. The others stay dirty. */
int lg_flush_in_place(struct lg_file *f) LG_MUST;

/* ---- again.c: commit_mu and lock held exclusively ---- */
/* After a sync that failed: writes once more whatever is not known durable. Nothing to do otherwise. */
int lg_write_again(struct lg_file *f) LG_MUST;

/* ---- suspect.c: s may be NULL ---- */
void lg_suspects_add(struct lg_suspects *s, const uint8_t id[LG_ID_LEN]);
void lg_suspects_drop(struct lg_suspects *s, const uint8_t id[LG_ID_LEN]);
bool lg_suspects_has(struct lg_suspects *s, const uint8_t id[LG_ID_LEN]);

#endif
