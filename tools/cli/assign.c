/* leadglass study assign: a file goes over to another study. What destroying a study destroys changes by it: where officers are registered it takes two. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "act.h"
#include "leadglass/volume.h"

/* Asks for it; another officer approves. */
static int request(const struct cli *c, struct lg_client *k, const char *file, const char *uid, const struct cli_file *f)
{
    struct lg_act a = { .action = LG_ACT_ASSIGN };
    struct lg_assign what = { 0 };
    struct lg_study *s = calloc(1, sizeof *s);
    size_t len = strlen(file);
    int code, rc = s ? lg_client_study_show(k, uid, s) : -ENOMEM;
    memcpy(what.file_id, f->file_id, LG_ID_LEN);
    memcpy(what.from, f->kid, LG_ID_LEN);
    snprintf(what.name, sizeof what.name, "%s", len > LG_ASSIGN_NAME_MAX ? file + len - LG_ASSIGN_NAME_MAX : file);
    if (!rc)
        rc = lg_assign_encode(&what, a.data, &a.data_len);
    if (rc)
        code = rc == -ENOENT ? cli_fail(CLI_FAILED, "study %s is not known to this keyring", uid) : cli_explain(c, rc, uid);
    else if (memcmp(s->kid, f->kid, LG_ID_LEN) == 0)
        code = cli_fail(CLI_OK, "%s belongs to that study already", file);
    else {
        snprintf(a.uid, sizeof a.uid, "%s", uid);
        memcpy(a.kid, s->kid, LG_ID_LEN);
        code = act_perform(c, k, &a);
    }
    free(s);
    return code;
}

static int failed(const char *file, int e, bool act)
{
    return cli_fail(e == EKEYREVOKED ? CLI_REVOKED : e == ENOKEY ? CLI_LOCKED : e == EPERM || (act && (e == EINVAL || e == ETIME || e == EALREADY || e == ESTALE)) ? CLI_REFUSED : CLI_FAILED, "%s: %s", file,
                    e == EMLINK                ? "has several names (hard links); copy it to one of its own"
                    : e == EKEYREVOKED         ? "the key of one of the two studies is revoked"
                    : e == EBUSY               ? "was being written to all the time; try again later"
                    : e == EPERM && act        ? "nobody has approved that act yet"
                    : e == EPERM               ? "officers are registered: two of them sign this. Ask for it with --reason TEXT --sign KEYFILE; once another officer has approved, say --act ID"
                    : e == EINVAL && act       ? "that act is of another file, key or study, or of another kind"
                    : e == ETIME               ? "that act has expired"
                    : e == EALREADY && act     ? "that act was used, or the file belongs to that study already"
                    : e == ESTALE && act       ? "the study has another key by now"
                                               : strerror(e));
}

static int carry_out(const struct cli *c, const char *file, const char *uid, bool officers)
{
    char value[LG_UID_MAX + 2 + 2 * LG_ID_LEN + 1];
    uint8_t act[LG_ID_LEN];
    if (c->act && (strlen(c->act) != 2 * LG_ID_LEN || lg_hex_decode(c->act, act, LG_ID_LEN)))
        return cli_fail(CLI_USAGE, "%s is no act's id (32 hexadecimal digits; leadglass request list)", c->act);
    int n = snprintf(value, sizeof value, "%s%s%s", uid, c->act ? " " : "", c->act ? c->act : "");
    if (n < 0 || n >= (int)sizeof value)
        return cli_fail(CLI_USAGE, "%s is no study UID", uid);
    if (lsetxattr(file, LG_XATTR_REKEY, value, (size_t)n, 0)) {
        if (errno == EALREADY && !c->act)
            return cli_fail(CLI_OK, "%s belongs to that study already", file);
        return failed(file, errno, c->act != NULL);
    }
    if (!officers && !c->act)
        fputs("single-administrator mode: assigned by one administrator alone, without anybody's approval. To change that: leadglass officer add\n", stderr);
    if (c->json) {
        cJSON *j = cJSON_CreateObject();
        cJSON_AddStringToObject(j, "file", file);
        cJSON_AddStringToObject(j, "uid", uid);
        return cli_print_json(j);
    }
    printf("%s: belongs to study %s now\n", file, uid);
    return CLI_OK;
}

int cli_assign(const struct cli *c, struct lg_client *k, const char *file, const char *uid)
{
    struct cli_file f = { .path = file };
    struct lg_keyd_status *st = calloc(1, sizeof *st);
    int code = CLI_OK, rc = st ? lg_client_status(k, st) : -ENOMEM;
    if (geteuid() != 0)
        code = cli_fail(CLI_FAILED, "this needs root (who carries an officer's key, or their signed file: leadglass request submit)");
    else if (rc)
        code = cli_explain(c, rc, "study assign");
    else if ((rc = cli_key_of(file, &f)) != 0)
        code = cli_fail(CLI_FAILED, "%s: %s", file, rc == -EOPNOTSUPP || rc == -ENODATA ? "is not on a mounted vault; name the file where it is mounted" : strerror(-rc));
    else if (c->act && (c->sign || c->offline))
        code = cli_fail(CLI_USAGE, "say --sign or --offline to ask for it, or --act ID to carry out what was approved");
    else if (c->sign || c->offline)
        code = request(c, k, file, uid, &f);
    else
        code = carry_out(c, file, uid, st->officer_mode);
    free(st);
    return code;
}
