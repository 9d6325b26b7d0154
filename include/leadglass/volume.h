/* volume.h: a mounted vault without FUSE: nodes, names, directories and open files, in POSIX terms. The FUSE front maps each request to
 * one call here; tests call it directly.
 *
 * Node ids are 64-bit counters never reused; 1 is the root. A node lives while its lookup count is above zero. No descriptor is kept per node, but see lg_volume_handles.
 * All calls are thread-safe and return 0 or -errno as the POSIX call of that name would; -ENOKEY when locked, -EKEYREVOKED, -EIO when
 * something below was tampered with or damaged. */
#ifndef LEADGLASS_VOLUME_H
#define LEADGLASS_VOLUME_H

#include <sys/stat.h>
#include <sys/statvfs.h>

#include "leadglass/file.h"

#define LG_NAME_MAX 255u
#define LG_ROOT_NODE 1u

/* ---- the vault on disk (fs/volume/vault.c) -------------------------------------------------------------------------------- */

struct lg_vault_info {
    uint8_t vault_id[LG_ID_LEN];
    uint8_t keyring_id[LG_ID_LEN];
    uint32_t chunk_size;
    uint32_t version;
};
#define LG_CHUNK_SIZE_DEFAULT (16u * 1024u)
/* Makes a new vault in dir (created if missing; -ENOTEMPTY when it has entries): header, root directory with its id, journal.
 * The keys are those of lg_client_vault_add. */
int lg_vault_create(const char *dir, const struct lg_vault_info *info, const struct lg_secret *vault_key) LG_MUST;
/* Reads the header without keys. -ENOENT: no vault here; -EPROTO: damaged; -EPROTONOSUPPORT: newer version. */
int lg_vault_read(const char *dir, struct lg_vault_info *ret) LG_MUST;
/* What the key manager gave the vault to keep, as it stands there; *ret_len 0: nothing. */
#define LG_VAULT_ANCHOR_MAX 512u
int lg_vault_anchor_read(const char *dir, uint8_t ret[LG_VAULT_ANCHOR_MAX], size_t *ret_len) LG_MUST;

/* Without keys, of the vault's open directory: 0 when the re-encryption of a file with several names waits for the next mount to complete it. -ENOENT: none does;
 * -EPROTO: the note of it is damaged or another vault's; -EPROTONOSUPPORT: it is of a newer version. */
int lg_vault_relink(int dirfd, const uint8_t vault_id[LG_ID_LEN]) LG_MUST;

/* ---- a volume ------------------------------------------------------------------------------------------------------------- */

struct lg_volume;
struct lg_volume_options {
    const struct lg_sys *sys;         /* NULL: lg_sys_posix */
    struct lg_keys *keys;             /* borrowed */
    uint64_t session;
    const uint64_t *unclean;          /* borrowed */
    unsigned n_unclean;
    bool read_only;
    bool noatime;                     /* reading moves no access time */
    int (*path_rule)(void *arg, const char *path, struct lg_study_info *ret);
    void (*finding)(void *arg, const struct lg_finding *f);
    void *arg;
};
/* Takes the vault's writer lock (-EWOULDBLOCK: mounted already), checks that the header's MAC matches the vault key (-EBADMSG), replays
 * the journal. */
int lg_volume_open(const char *dir, const struct lg_volume_options *opt, struct lg_volume **ret) LG_MUST;
/* Keeps it in the vault, durably: the old one or the new one is there whenever a crash comes. */
int lg_volume_anchor(struct lg_volume *v, const uint8_t *anchor, size_t len) LG_MUST;
/* Commits and syncs everything, retires the journal. 0 only if all of it succeeded: then the session has ended cleanly. */
int lg_volume_close(struct lg_volume *v) LG_MUST;

/* False: there are no file handles below that may be opened, so a descriptor is kept for each node, and the limit of open files is one of nodes: -EMFILE. */
bool lg_volume_handles(const struct lg_volume *v);

/* Who asks: owner of what is created. */
struct lg_cred {
    uid_t uid;
    gid_t gid;
    mode_t umask;
    pid_t pid;
};

struct lg_entry {
    uint64_t node;
    struct stat st; /* st_ino is the lower inode number; st_size and st_blocks as the application should see them */
};

int lg_volume_lookup(struct lg_volume *v, uint64_t parent, const char *name, struct lg_entry *ret) LG_MUST; /* counts one lookup */
void lg_volume_forget(struct lg_volume *v, uint64_t node, uint64_t n);
int lg_volume_getattr(struct lg_volume *v, uint64_t node, struct stat *ret) LG_MUST;

/* When the lower file was made. -EOPNOTSUPP: the filesystem below does not say. */
int lg_volume_birth(struct lg_volume *v, uint64_t node, struct timespec *ret) LG_MUST;

#define LG_SET_MODE 1u
#define LG_SET_UID 2u
#define LG_SET_GID 4u
#define LG_SET_SIZE 8u
#define LG_SET_ATIME 16u
#define LG_SET_MTIME 32u
#define LG_SET_KILL_SUIDGID 64u /* with LG_SET_SIZE: by a caller without CAP_FSETID; set-id bits go (security.capability always does) */
/* st->st_atim / st_mtim may have tv_nsec UTIME_NOW. */
int lg_volume_setattr(struct lg_volume *v, uint64_t node, const struct stat *st, unsigned set, struct stat *ret) LG_MUST;

/* Each counts one lookup for the entry it returns. */
int lg_volume_mkdir(struct lg_volume *v, uint64_t parent, const char *name, mode_t mode, const struct lg_cred *c, struct lg_entry *ret) LG_MUST;
int lg_volume_mknod(struct lg_volume *v, uint64_t parent, const char *name, mode_t mode, dev_t rdev, const struct lg_cred *c, struct lg_entry *ret) LG_MUST;
int lg_volume_symlink(struct lg_volume *v, uint64_t parent, const char *name, const char *target, const struct lg_cred *c, struct lg_entry *ret) LG_MUST;
int lg_volume_link(struct lg_volume *v, uint64_t node, uint64_t new_parent, const char *new_name, struct lg_entry *ret) LG_MUST;
/* What was unlinked or renamed, for the access log: the key of a file, if it was open at any time in this mount. Nothing is opened to find out. */
struct lg_subject {
    bool known;
    uint8_t study[LG_ID_LEN]; /* id of the key */
    uint32_t key;             /* its version */
};
int lg_volume_unlink(struct lg_volume *v, uint64_t parent, const char *name, struct lg_subject *ret_of /* may be NULL */) LG_MUST;
int lg_volume_rmdir(struct lg_volume *v, uint64_t parent, const char *name) LG_MUST;
/* flags: RENAME_NOREPLACE or RENAME_EXCHANGE (linux/fs.h), or 0. */
int lg_volume_rename(struct lg_volume *v, uint64_t parent, const char *name, uint64_t new_parent, const char *new_name, unsigned flags,
                     struct lg_subject *ret_of /* may be NULL */) LG_MUST;
/* buf gets a NUL. */
int lg_volume_readlink(struct lg_volume *v, uint64_t node, char *buf, size_t cap) LG_MUST;
int lg_volume_statfs(struct lg_volume *v, struct statvfs *ret) LG_MUST;

/* Open files. open and create take open(2) flags (O_TRUNC and O_NOATIME are obeyed, O_APPEND remembered). Access times move below as the filesystem there is
 * mounted to have them moved: by reads that come here, and by an open for reading alone, as what the kernel then answers from memory never comes here. */
struct lg_handle;
/* open_file, read, write and flush: -LG_ELATER as later.h says. */
int lg_volume_open_file(struct lg_volume *v, uint64_t node, int flags, struct lg_handle **ret) LG_MUST;
int lg_volume_create_file(struct lg_volume *v, uint64_t parent, const char *name, int flags, mode_t mode, const struct lg_cred *c,
                          struct lg_entry *ret, struct lg_handle **ret_h) LG_MUST;
/* O_TMPFILE: a nameless file, in reach of lg_volume_link afterwards. */
int lg_volume_tmpfile(struct lg_volume *v, uint64_t parent, int flags, mode_t mode, const struct lg_cred *c,
                      struct lg_entry *ret, struct lg_handle **ret_h) LG_MUST;
/* flags: those of the open file as they are now: with O_NOATIME it moves no access time; without O_DIRECT, the caller remembers what it is given. */
ssize_t lg_volume_read(struct lg_handle *h, void *buf, size_t len, uint64_t off, int flags) LG_MUST;
/* May somebody remember a part of the file, from a read without O_DIRECT? Once that has begun. */
bool lg_volume_paged(const struct lg_handle *h);
ssize_t lg_volume_write(struct lg_handle *h, const void *buf, size_t len, uint64_t off) LG_MUST;
/* Before a write, or a change of what is allocated: takes away security.capability and, with setid (the caller has no CAP_FSETID), set-id bits as
 * chmod(2) and write(2) of Linux do. 1: something was taken, and whoever remembers attributes must ask again; 0: there was nothing. */
int lg_volume_kill_privileges(struct lg_handle *h, bool setid) LG_MUST;
int lg_volume_flush(struct lg_handle *h) LG_MUST;               /* commit */
int lg_volume_fsync(struct lg_handle *h, bool data_only) LG_MUST; /* commit, durable; a new name's directory entry too */
int lg_volume_fallocate(struct lg_handle *h, int mode, uint64_t off, uint64_t len) LG_MUST;
int lg_volume_seek(struct lg_handle *h, uint64_t off, int whence, uint64_t *ret) LG_MUST;
void lg_volume_release(struct lg_handle *h);
bool lg_volume_release_waits(const struct lg_handle *h); /* for the disk, or somebody's lock */
/* Opening it has moved the access time, and whoever remembers attributes and contents may never ask. */
bool lg_volume_read_moved(const struct lg_handle *h);
/* For the access log. key: the id and version of the key of an open file; false while undecided. file: its pseudonym (lg_audit_file_id).
 * path: of a node, relative to the mount, malloced; NULL when it is not known. */
bool lg_volume_audit_key(struct lg_handle *h, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version);
int lg_volume_audit_file(struct lg_handle *h, uint8_t ret[LG_ID_LEN]) LG_MUST;
char *lg_volume_path(struct lg_volume *v, uint64_t node);
/* The key of a file that may not be open: if need be as its header claims, unverified. False: not known. */
bool lg_volume_audit_node(struct lg_volume *v, uint64_t node, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version);

/* Directories: a stable snapshot-free stream; cookies are opaque, 0 is the start. fill returns false when its buffer is full (that entry
 * comes again next time). st has at least st_ino and the type in st_mode; with plus, a full entry whose lookup is counted if fill returned true. */
struct lg_dir;
int lg_volume_opendir(struct lg_volume *v, uint64_t node, int flags /* of open(2): O_NOATIME is obeyed */, struct lg_dir **ret) LG_MUST;
int lg_volume_readdir(struct lg_dir *d, uint64_t cookie, bool plus,
                      bool (*fill)(void *arg, const char *name, const struct lg_entry *e, uint64_t next_cookie), void *arg) LG_MUST;
int lg_volume_fsyncdir(struct lg_dir *d) LG_MUST;
void lg_volume_releasedir(struct lg_dir *d);

/* Extended attributes: user.* encrypted, name and value; security.*, trusted.* and system.posix_acl_* passed through. size 0 asks for the length. */
ssize_t lg_volume_getxattr(struct lg_volume *v, uint64_t node, const char *name, void *buf, size_t size) LG_MUST;
/* trusted: the caller may see trusted.* names (xattr(7): CAP_SYS_ADMIN). */
ssize_t lg_volume_listxattr(struct lg_volume *v, uint64_t node, bool trusted, char *buf, size_t size) LG_MUST;
int lg_volume_setxattr(struct lg_volume *v, uint64_t node, const char *name, const void *value, size_t size, int flags) LG_MUST;
int lg_volume_removexattr(struct lg_volume *v, uint64_t node, const char *name) LG_MUST;

/* The key that protects a regular file, as its header names it: needs no key and proves nothing. -EINVAL: not a regular file. */
int lg_volume_claim(struct lg_volume *v, uint64_t node, struct lg_claim *ret) LG_MUST;
int lg_volume_key_of(struct lg_volume *v, uint64_t node, uint8_t ret_kid[LG_ID_LEN], uint32_t *ret_version) LG_MUST; /* the same */
/* Re-encrypts a regular file under a new file key: under the newest version of the key that it has (how NULL; -EALREADY when that is what it has), or
 * under that of another study, if the key manager allows it (lg_keys_assign: -EPERM, -EINVAL). Takes time in proportion to the file's size; reads and writes of it go on, and everything else. The lower
 * file is replaced by a new one as a whole, its time changed so that backup tools take it up; the application sees the times, owner, mode
 * and attributes that it had. -EMLINK: has more than one name. -EBUSY: was written to all the time. -ENOENT: its name is in no directory that is in
 * memory. A crash leaves the old file or the new one, and perhaps a hidden temporary, which the next sweep takes away. */
struct lg_rekey {
    const struct lg_study_info *to; /* NULL: the key that it has */
    const uint8_t *act;             /* the officers' act that allows it; NULL: none */
};
int lg_volume_rekey(struct lg_volume *v, uint64_t node, const struct lg_rekey *how) LG_MUST;
/* The same, under the key that it has, of a file with several names, all of which are said: paths below the mount, each with a NUL behind it. Afterwards all of them
 * mean the new lower file, or all of them the old one; so they do after a crash once the vault was mounted again. -EMLINK: those are not its names (any more);
 * -ENOENT: one is not there; -E2BIG: more than LG_LINKS_MAX. */
#define LG_LINKS_MAX 512u
int lg_volume_rekey_links(struct lg_volume *v, uint64_t node, const char *names, size_t len) LG_MUST;
/* The same as extended attributes, for tools on the mount: LG_XATTR_KEY reads as "key-id-in-hex version file-id-in-hex" (the oldest version that a header slot names); setting LG_XATTR_REKEY re-encrypts,
 * to the study whose UID is the value if there is one, followed by a space and the act's id in hex if there is one. The kernel lets only CAP_SYS_ADMIN use trusted.*; neither is listed. */
#define LG_XATTR_KEY "trusted.leadglass.key"
#define LG_XATTR_REKEY "trusted.leadglass.rekey"
#define LG_XATTR_REKEY_LINKS "trusted.leadglass.rekey-links" /* value: the names */

/* Takes away a name of a regular file if the file is under that key, as its header says and, when it is open, as it stands in memory: -ESTALE otherwise. Needs no key of it.
 * As an attribute of the directory: LG_XATTR_REAP, "key-id-in-hex name". */
int lg_volume_reap(struct lg_volume *v, uint64_t parent, const char *name, const uint8_t kid[LG_ID_LEN]) LG_MUST;
#define LG_XATTR_REAP "trusted.leadglass.reap"

/* Every few seconds: commits files dirty for 5 s, checkpoints the journal, expires leases. */
void lg_volume_tick(struct lg_volume *v);

/* After lg_keys_lock / lg_keys_revoke: makes every file concerned forget its keys (see lg_file_drop_keys); then calls back with each node whose
 * pages the kernel must drop (from the calling thread, no lock held). kids NULL: all. Order for lock: lg_volume_commit_all, lg_keys_lock, this. */
int lg_volume_commit_all(struct lg_volume *v) LG_MUST;
void lg_volume_drop_keys(struct lg_volume *v, const uint8_t (*kids)[LG_ID_LEN], unsigned n, bool discard,
                         void (*each)(void *arg, uint64_t node), void *arg);

/* The keys of the files that are open, each once; free *ret. A node whose file is closed has none: opening it asks for its key. */
struct lg_volume_kid {
    uint8_t kid[LG_ID_LEN];
    uint32_t version;
};
int lg_volume_kids(struct lg_volume *v, struct lg_volume_kid **ret, size_t *ret_n) LG_MUST;

/* Opens every file that a session which ended uncleanly may have left half committed, so that it is recovered (R8 of the format's "Opening a
 * file"), beside everything else that goes on: on the caller's thread, working a quarter of the time. Waits while locked. stop is asked
 * between files; true ends it with -ECANCELED.
 * 0: all was looked at, and from here on no session excuses a half-committed file in this volume: the caller closes the sessions
 * (lg_client_session_close). Files that have no key, or are damaged, are passed over. -EIO: some could not be looked at. Call it once at a time. */
struct lg_sweep_stat {
    uint64_t files;   /* seen */
    uint64_t opened;  /* might have been half committed */
    uint64_t refused; /* of these: no key, or damaged (reported) */
    uint64_t failed;
};
int lg_volume_sweep(struct lg_volume *v, bool (*stop)(void *arg), void *arg, struct lg_sweep_stat *ret) LG_MUST;

/* ---- for fs/scrub, which walks what stands below by itself ---- */
const struct lg_file_env *lg_volume_env(const struct lg_volume *v);
int lg_volume_rootfd(const struct lg_volume *v); /* borrowed */

#endif
