/* Inside `leadglass scrub`. */
#ifndef LG_CLI_SCRUB_H
#define LG_CLI_SCRUB_H

#include <signal.h>
#include <stdio.h>

#include "cli.h"
#include "leadglass/scrub.h"

struct run {
    struct cli *c;
    struct lg_scrub_options o;
    bool keyless, read_only, json, resume, tty;
    const char *state;
    double rate; /* bytes a second, 0: any */
    struct lg_scrub_stat base; /* of the part done before */
    uint8_t vault_id[LG_ID_LEN];
    FILE *log; /* the state, or a temporary file: findings, one a line, and positions */
    bool log_bad, complete;
    uint64_t begun_ns, said_ns, saved_ns;
    char found[160]; /* what the access log is told at the end */
    struct lg_session *keys; /* of a run with keys */
    uint8_t signer[LG_SIGN_PUB_LEN]; /* the key that signs manifests, where one is written or compared with */
    int unsigned_why;                /* why the key manager did not sign */
};

/* ---- state.c: what a run writes down, so that it can go on and tell everything at its end ---- */
/* Opens (and with --resume reads) the state, or a temporary file. ret_position: malloced, NULL: from the beginning. An exit status. */
int state_open(struct run *r, char **ret_position);
void state_finding(struct run *r, const struct lg_scrub_finding *f);
void state_position(struct run *r, const struct lg_scrub_stat *total, const char *position);
void state_done(struct run *r, const struct lg_scrub_stat *total);
/* The whole report as JSON on standard output. An exit status. */
int state_print(struct run *r, const struct lg_scrub_stat *total);
void scrub_print_finding(const struct lg_scrub_finding *f);

/* ---- session.c: keys and the vault's lock for as long as a run takes ---- */
struct lg_session;
/* An exit status. Fills in o.volume and o.keys. */
int session_open(struct run *r, const char *vault);
/* Between files (at_rest) and while one is read: what the key manager has asked for meanwhile. 0, -ENOKEY: locked, -EKEYREVOKED: give up this file. */
int session_pace(struct lg_session *s, bool at_rest);
/* Puts it on record that the plaintext of this file is about to be written out. */
int session_salvaging(struct lg_session *s, const uint8_t kid[LG_ID_LEN], uint32_t key_version, const uint8_t file_id[LG_ID_LEN]);
/* Has the manifest signed. */
int session_sign(struct run *r, struct lg_manifest_sig *s);
/* complete: everything was recovered that crashes left, so their sessions are closed. An exit status. */
int session_close(struct run *r, bool complete);

uint64_t scrub_now_ns(void);

#endif
