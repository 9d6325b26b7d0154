/* scrub.h: checks every name and every byte of a vault that is not mounted, or of a copy of one; with keys, or by checksums alone
 * (docs/OPERATIONS.md, "Checking a vault and a backup"). Bounded memory whatever the vault's size. One run uses one thread. */
#ifndef LEADGLASS_SCRUB_H
#define LEADGLASS_SCRUB_H

#include "leadglass/manifestsig.h"
#include "leadglass/volume.h"

enum lg_scrub_class {
    LG_SCRUB_DAMAGE,     /* bytes are not as they were written */
    LG_SCRUB_DIFFERS,    /* not what the manifest says: deleted, rolled back, moved, swapped */
    LG_SCRUB_UNREADABLE, /* the system does not let it be read */
    LG_SCRUB_UNFINISHED, /* half committed, or its changes are still in the journal: only a run with keys can tell that from damage */
    LG_SCRUB_NO_KEY,     /* the keyring does not know the key: it may be older than the vault */
    LG_SCRUB_REVOKED,    /* the study's key was revoked or destroyed: as it should be */
    LG_SCRUB_RECOVERED,  /* a crash left it half committed; put right */
    LG_SCRUB_LEFTOVER,   /* what a crash left of a name; harms nobody */
    LG_SCRUB_CHANGED,    /* since the manifest, as use changes it: new, written, attributes */
    LG_SCRUB_REPAIRED,   /* done because it was asked for */
    LG_SCRUB_CLASSES,
};
const char *lg_scrub_class_name(enum lg_scrub_class c); /* one word, for reports */

struct lg_scrub_finding {
    enum lg_scrub_class cls;
    const char *kind;
    const char *lower; /* path below root/; "" is the root itself */
    const char *path;  /* plaintext path below the mountpoint, or NULL: not known */
    bool has_id;
    uint8_t file_id[LG_ID_LEN];
    uint64_t from, to; /* plaintext bytes; to 0: all of it */
    const char *other; /* of two names: the other's lower path, or where it was put; or NULL */
};

struct lg_scrub_stat {
    uint64_t files, dirs, links, others, bytes; /* bytes: ciphertext read */
    uint64_t verified; /* files of which every byte is as it was written */
    uint64_t found[LG_SCRUB_CLASSES];
    bool live; /* somebody has the vault mounted (keyless only) */
    uint32_t against_version; /* of the manifest compared with; 1: it has a MAC alone, whoever had the vault's key could have made it. 0: none was opened */
};

struct lg_scrub_options {
    const struct lg_sys *sys; /* NULL: lg_sys_posix */
    const char *dir;          /* the vault */
    struct lg_volume *volume; /* with keys: dir opened, no one else using it; NULL: keyless */
    struct lg_keys *keys;     /* with volume */
    bool accept_crash;        /* half-committed files are recovered whatever session wrote them */
    const char *resume;       /* go on behind this lower path, or NULL */

    const char *manifest;     /* write one here (complete or not at all: beside it stands NAME.part meanwhile), or NULL; with keys */
    const char *against;      /* compare with this one, or NULL; with keys */
    time_t now;               /* goes into the manifest */
    const uint8_t *signer;    /* with against: the public key that must have signed it */
    int (*sign)(void *arg, struct lg_manifest_sig *s); /* with manifest: has it signed. vault_id, begun, entries and hash are given, the rest is to be filled in */

    bool repair;  /* what stands under no good name is moved to lost+found, leftovers are removed; with keys, not read-only */
    bool remove;  /* files, names, links and attributes that do not verify are removed instead; with keys, not read-only */
    const char *salvage; /* what can be read of damaged files is written beneath this directory, or NULL; with keys */

    /* Before the plaintext of a damaged file is written out; non-zero: it is not, for that reason. NULL: nobody is asked. */
    int (*salvaging)(void *arg, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN]);
    bool (*skip)(void *arg); /* asked for every regular file: true passes over it. NULL: none is */
    void (*finding)(void *arg, const struct lg_scrub_finding *f);
    /* Called about every MiB, and between files with at_rest set: then no key of a file is held, and position is how far it came (for resume).
     * Non-zero ends the run with that; -EKEYREVOKED, not at rest, only gives up the file. */
    int (*pace)(void *arg, const struct lg_scrub_stat *s, bool at_rest, const char *position);
    void *arg;
};
/* 0: looked at everything, whatever was found. -EBADMSG: the manifest to compare with does not verify; -EKEYREJECTED: it is not signed by signer; -ENODATA: it is not signed at all,
 * although its version is; -EPROTO: is none; -EALREADY: the one to be resumed was begun as another version; -ENOKEY: locked meanwhile. */
int lg_scrub_run(const struct lg_scrub_options *o, struct lg_scrub_stat *ret) LG_MUST;

/* What a manifest says of itself, read whole, without any key: that its hashes are right and, when it is signed, that the key it names has signed it; whose that is, is for the caller
 * to know. -EPROTO: no manifest; -EPROTONOSUPPORT: a newer one; -EBADMSG, -EKEYREJECTED, -ENODATA: it was altered, the signature is no good, is missing. */
struct lg_manifest_look {
    bool is_signed;
    struct lg_manifest_sig sig; /* not signed: vault_id, begun, entries and hash alone */
};
int lg_manifest_look(const char *path, struct lg_manifest_look *ret) LG_MUST;

#endif
