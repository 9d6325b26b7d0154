/* Inside the volume. Lock order: relinking, ns, then directories by node id, then a node's mu, then table.
 *
 * A node's lock (lg_node_lock) is named its mu here.
 *
 * ns is held shared by every call that looks at names or changes them: exclusively only to forget the keys of names and to put another lower
 * file in a node's place. What may not happen at the same time in one directory is kept apart by that directory's own lock, so that a slow
 * lower filesystem holds up nobody elsewhere. */
#ifndef LG_VOLUME_INTERNAL_H
#define LG_VOLUME_INTERNAL_H

#include <assert.h>
#include <dirent.h>
#include <pthread.h>

#include "leadglass/journal.h"
#include "leadglass/names.h"
#include "leadglass/volume.h"

#define LG_VAULT_NAME "leadglass.vault"
#define LG_ROOT_NAME "root"
#define LG_HANDLE_MAX 128u
#define LG_COMMIT_AFTER_S 5
#define LG_MTIME_MOVED_NS 987654321 /* docs/FORMAT-names.md, "Re-encrypted files" */
#define LG_MTIME_XATTR "user.lg.mtime"

struct lg_handle_bytes {
    struct lg_handle_bytes *earlier;
    uint8_t type, len;
    uint8_t b[];
};

/* ---- slab.c: memory in pieces of up to LG_SLAB_MAX bytes, aligned for anything; the caller knows how long each is, and locks. Freed pieces are used again, and
 * their memory goes back to the system with the whole. */
#define LG_SLAB_MAX 512u
struct lg_slab {
    void *free[LG_SLAB_MAX / 16];
    struct lg_slab_chunk *chunks;
    uint8_t *at;
    size_t left;
};
void *lg_slab_get(struct lg_slab *s, size_t len) LG_MUST; /* not zeroed. NULL: no memory, or len is 0 or too long */
void lg_slab_put(struct lg_slab *s, void *p, size_t len); /* p may be NULL */
void lg_slab_free(struct lg_slab *s);

/* The lock of a node is a byte in it, waited for here: there may be millions of nodes, and few are locked at a time. Nodes that share one of these wait for
 * their own lock only. */
struct lg_node_wait {
    pthread_mutex_t mu;
    pthread_cond_t free;
};
#define LG_NODE_WAITS 64u

/* A million of these are to fit into 300 MiB with their names and handles: its members stand in the order that leaves no gaps. */
struct lg_node {
    struct lg_node *next_id, *next_key; /* hash chains */
    uint64_t id, lookups;               /* lookups under table */
    _Atomic ino_t ino;                  /* this and handle change when the file is re-encrypted */
    struct lg_handle_bytes *_Atomic handle; /* NULL: no handles here, fd is kept instead. Earlier ones stay as long as the node: somebody may be reading them */
    uint64_t parent;                    /* where it was seen last, under table, as is its name */
    char *name;                         /* of the slab, as the node and its handles are */
    pthread_rwlock_t *entries; /* of a directory: shared to look, exclusively to change */

    struct lg_file *f; /* changes under the node's lock and lg_node_wait: either is enough to read it */
    union {
        uint8_t kid[LG_ID_LEN];   /* of a file */
        uint8_t dirid[LG_ID_LEN]; /* of a directory */
    };
    uint32_t key_version; /* of kid; under the node's lock, as what is not said to be otherwise */
    unsigned opens;
    unsigned refs; /* of calls under way; under table */
    uint32_t dev;  /* as Linux numbers devices */
    int fd;        /* O_PATH; -1: none kept. Directories keep one while there are not too many. Under table */
    _Atomic uint32_t traits;      /* of a directory, LG_DIR_*; above these bits a count of changes. Of a file, LG_FILE_PAGED */
    _Atomic uint32_t dirty_since; /* seconds of time(), until 2106; 0: not. Also read without the lock */
    _Atomic uint32_t read_at;     /* the same: when a read was last shown below; 0: not since it was changed (lg_nodes_unread) */
    uint16_t type;                /* S_IFMT bits */
    bool locked;   /* under lg_node_wait: the lock */
    uint8_t was_open; /* under lg_node_wait: how often, 1 to 255 and round again; 0: never. A stat made before f was seen to be NULL may be older than the last close */
    _Atomic bool id_known; /* kid or dirid; a dirid stays as it is from then on, so that it may be read without the lock */
    _Atomic uint8_t lacks;      /* LG_LACKS_*: what it is known not to have; taken away under the lock only */
    _Atomic bool name_pending;  /* re-encrypted under a hidden name; until its directory is synced, a crash brings the old file back */
    _Atomic bool attrs_pending; /* owner, mode, times or attributes were set: the next fsync takes them along */
};
static_assert(sizeof(struct lg_node) <= 136, "see above");

#define LG_LACKS_CAPABILITY 1u /* security.capability */
#define LG_LACKS_SETID 2u      /* set-id bits that a write takes away */

/* What decides about the owner and mode of what is made in a directory, once known. */
#define LG_DIR_KNOWN 1u
#define LG_DIR_SETGID 2u
#define LG_DIR_ACL 4u
#define LG_DIR_CHANGE 8u
/* Reads of it may be remembered by the kernel. */
#define LG_FILE_PAGED 1u

struct lg_volume {
    struct lg_volume_options opt;
    struct lg_file_env env;
    struct lg_vault_info info;
    int dirfd, rootfd, lockfd;
    pthread_rwlock_t ns;
    pthread_mutex_t relinking; /* before ns: one intent at a time */
    _Atomic uint64_t relinks;  /* odd: the names of a file are being given to another, and a count of links means nothing */
    uid_t uid; /* this process's own */
    gid_t gid;
    struct lg_names *names; /* under ns; NULL: locked */
    struct lg_node_wait waits[LG_NODE_WAITS];
    pthread_mutex_t table;
    struct lg_slab slab; /* under table, as what follows */
    struct lg_node **by_id, **by_key;
    size_t n_buckets, n_nodes, n_dirfds;
    uint64_t next_id;
    bool handles;
    bool every_read; /* moves the access time below */
    atomic_int_least64_t room_until_ms; /* until then there is room below, by the coarse clock */
    bool closes_soon; /* a file below that has no name but is open is nowhere to be seen */
    bool attrs_lost; /* under table: attributes may wait for an fsync that no node in memory knows of */
    time_t checkpointed;
    struct timespec opened; /* by the clock that stamps inodes: a temporary changed before is not of this mount */
    bool sweeping, moved_lost; /* under table, as what follows */
    struct lg_node **moved;    /* renamed or linked while a sweep is under way */
    size_t n_moved, cap_moved;
};

struct lg_handle {
    struct lg_volume *v;
    struct lg_node *n;
    int flags;
    bool read_moved; /* see lg_volume_read_moved */
    unsigned lost; /* of lg_file_lost: what it was told, or came before it was opened */
};

/* ---- vault.c ---- */
int lg_vault_verify(int dirfd, const struct lg_secret *vault_key, struct lg_vault_info *ret) LG_MUST;

/* ---- node.c ---- */
int lg_errno(int rc); /* what a caller of POSIX sees */
void lg_nodes_init(struct lg_volume *v);
int lg_node_root(struct lg_volume *v) LG_MUST;
struct lg_node *lg_node_ref(struct lg_volume *v, uint64_t id); /* NULL: no such node */
void lg_node_unref(struct lg_volume *v, struct lg_node *n);
void lg_node_unref2(struct lg_volume *v, struct lg_node *n, struct lg_node *m); /* both at once; either may be NULL */
/* The newest node that stood last under that name and has that lower inode; NULL: none in memory. Makes none, opens nothing. Counts a reference. */
struct lg_node *lg_node_named(struct lg_volume *v, const struct stat *st, uint64_t parent, const char *name);
/* For the access log; n may be NULL. Takes its lock, which whoever opens the file may hold for as long as a key takes to come: hold no other. */
struct lg_subject lg_node_subject(struct lg_volume *v, struct lg_node *n);
/* Its mu; not recursive. */
void lg_node_lock(struct lg_volume *v, struct lg_node *n);
/* Locked: from here on f is the node's open file, or NULL. */
void lg_node_file_set(struct lg_volume *v, struct lg_node *n, struct lg_file *f);
bool lg_node_trylock(struct lg_volume *v, struct lg_node *n);
void lg_node_unlock(struct lg_volume *v, struct lg_node *n);
/* That lower inode has been changed, if only its time of change: whoever reads it next is shown below, which decides anew whether that moves the access time. */
void lg_nodes_unread(struct lg_volume *v, const struct stat *st);
/* The node of a lower name just seen; counts one lookup if so asked, and one reference. */
int lg_node_at(struct lg_volume *v, const struct lg_node *parent, int dirfd, const char *lower, const char *name, bool count, struct lg_node **ret,
               struct stat *st) LG_MUST;
int lg_node_of_fd(struct lg_volume *v, const struct lg_node *parent, int fd, const char *name, bool count, struct lg_node **ret, struct stat *st) LG_MUST;
/* fd is the lower file that has taken the place of n's: its inode and handle, from here on. ns held exclusively. */
int lg_node_rebind(struct lg_volume *v, struct lg_node *n, int fd) LG_MUST;
void lg_node_moved(struct lg_volume *v, struct lg_node *n, uint64_t parent, const char *name);
/* Plaintext path relative to the mount, malloced; NULL when it is not known. */
char *lg_node_path(struct lg_volume *v, uint64_t id);
/* A descriptor of the lower file: caller closes. What is read through it moves no access time. */
int lg_node_open(struct lg_volume *v, const struct lg_node *n, int flags) LG_MUST;
/* The same, and it does, if the filesystem below has it so. */
int lg_node_open_read(struct lg_volume *v, const struct lg_node *n, int flags) LG_MUST;
/* May reading move it, through an open with these flags? */
bool lg_reading_counts(const struct lg_volume *v, int flags);
/* The same for a directory, perhaps a kept one: give back with lg_node_done. */
int lg_node_dirfd(struct lg_volume *v, struct lg_node *n) LG_MUST;
/* lg_node_ref and lg_node_dirfd. NULL: no such node. ret_fd: or an error. */
struct lg_node *lg_node_ref_dir(struct lg_volume *v, uint64_t id, int *ret_fd);
void lg_node_done(const struct lg_node *n, int fd);
/* Attributes as the application should see them, from those of the lower file. */
void lg_node_stat(struct lg_volume *v, struct lg_node *n, struct stat *st);
void lg_nodes_free(struct lg_volume *v);

/* The owner, mode or ACL of a directory has been changed. */
void lg_dir_changed(struct lg_node *n);

/* ---- place.c: ns held ---- */
/* ns, with names at hand. On error it is not held. */
int lg_ns_shared(struct lg_volume *v) LG_MUST;
int lg_ns_change(struct lg_volume *v) LG_MUST; /* shared, unless the mount is read-only: -EROFS */
int lg_ns_exclusive(struct lg_volume *v) LG_MUST;
void lg_ns_unlock(struct lg_volume *v);
/* 0: nothing but our own. */
int lg_dir_empty(int dirfd) LG_MUST;
int lg_dirid_make(struct lg_volume *v, int dirfd, uint8_t id[LG_ID_LEN]) LG_MUST;
int lg_dirid_get(struct lg_volume *v, struct lg_node *dir, int dirfd, uint8_t ret[LG_ID_LEN]) LG_MUST;
/* The lower name; sealed is the whole of it. */
int lg_lower_name(struct lg_volume *v, struct lg_node *dir, int dirfd, const char *name, char sealed[LG_SEALED_NAME_MAX + 1],
                  char lower[LG_LOWER_NAME_MAX + 1]) LG_MUST;
int lg_sidecar_make(int dirfd, const char *sealed, const char *lower) LG_MUST;
void lg_sidecar_drop(int dirfd, const char *lower);
/* Returns -EIO. */
int lg_volume_report(struct lg_volume *v, const struct lg_node *n, const char *kind);

/* ---- volume.c ---- */
/* Calls each for every node, or those that may hold what is not committed, with a reference held and no lock. each returns non-zero to remember that as the
 * result; all are visited. */
int lg_nodes_each(struct lg_volume *v, bool dirty, int (*each)(struct lg_volume *v, struct lg_node *n, void *arg), void *arg) LG_MUST;

/* ---- sweep.c ---- */
/* Tells a sweep that this node has a name that it may miss. ns held. */
void lg_sweep_moved(struct lg_volume *v, struct lg_node *n);

/* One directory and a name in it, for a call. ns held. Filled in even on error: give back with lg_place_done. */
enum lg_hold {
    LG_HOLD_NONE,   /* who holds ns exclusively, or locks by itself */
    LG_HOLD_SHARED, /* to look */
    LG_HOLD_CHANGE,
};
struct lg_place {
    struct lg_node *dir;
    struct lg_node *entry; /* looked up in it, or NULL; given back with it */
    int fd;
    enum lg_hold hold;
    char sealed[LG_SEALED_NAME_MAX + 1], lower[LG_LOWER_NAME_MAX + 1];
};
int lg_place_get(struct lg_volume *v, uint64_t dir, const char *name, enum lg_hold hold, struct lg_place *p) LG_MUST;
/* Without its name. */
int lg_place_dir(struct lg_volume *v, uint64_t dir, enum lg_hold hold, struct lg_place *p) LG_MUST;
void lg_place_done(struct lg_volume *v, struct lg_place *p);

/* ---- tree.c ---- */
/* A hidden name that nobody has. */
void lg_tmp_name(char out[32]);
/* -EEXIST: something stands there. */
int lg_name_exists(int dirfd, const char *lower) LG_MUST;

/* ---- rekey.c ---- */
/* The application's modification time of a re-encrypted file (path: of the lower file), whose own is the time of that. False: what is noted there is of another
 * state of the file, and st as it was. */
bool lg_mtime_moved(const char *path, struct stat *st);
/* Before an fsync is acknowledged: the name of a file re-encrypted just now is durable. */
int lg_name_sync(struct lg_volume *v, struct lg_node *n) LG_MUST;

/* ---- open.c ---- */
/* See lg_volume_kill_privileges; n->mu is held. */
int lg_node_kill_privileges(struct lg_volume *v, struct lg_node *n, bool setid) LG_MUST;
/* n->mu held: the file, opened if it is not; counts an open. */
int lg_node_file(struct lg_volume *v, struct lg_node *n) LG_MUST;
void lg_node_file_done(struct lg_volume *v, struct lg_node *n);
int lg_fd_path(int fd, char out[32]);

#endif
