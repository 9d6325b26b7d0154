#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli.h"
#include "leadglass/classify.h"

static int identify(const char *path, struct lg_study_info *info, const char **how, enum lg_class *ret)
{
    struct lg_classifier *k;
    char buf[16384];
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = fd < 0 ? -errno : lg_classifier_new(&k);
    if (fd >= 0 && rc)
        close(fd);
    if (rc)
        return rc;
    enum lg_class what = LG_CLASS_MORE;
    size_t total = 0;
    while (!rc && what == LG_CLASS_MORE) {
        ssize_t n = read(fd, buf, sizeof buf);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = -errno;
            break;
        }
        what = lg_classifier_feed(k, buf, (size_t)n, n == 0);
        total += (size_t)n;
        if (what == LG_CLASS_MORE && (n == 0 || total >= LG_CLASSIFY_MAX))
            what = LG_CLASS_GENERAL;
    }
    close(fd);
    if (!rc) {
        *ret = what;
        if (what == LG_CLASS_STUDY)
            *info = *lg_classifier_info(k);
        *how = lg_classifier_how(k);
    }
    lg_classifier_free(k);
    return rc;
}

static int run_identify(struct cli *c)
{
    int code = CLI_OK;
    cJSON *all = c->json ? cJSON_CreateArray() : NULL;
    if (!c->argc)
        return cli_fail(CLI_USAGE, "expected FILE...; see leadglass identify --help");
    for (int i = 0; i < c->argc; i++) {
        struct lg_study_info info = { 0 };
        const char *how = "";
        enum lg_class what;
        int rc = identify(c->argv[i], &info, &how, &what);
        if (rc) {
            code = cli_fail(CLI_FAILED, "%s: %s", c->argv[i], strerror(-rc));
            continue;
        }
        bool study = what == LG_CLASS_STUDY;
        if (c->json) {
            cJSON *j = cJSON_CreateObject();
            cJSON_AddStringToObject(j, "file", c->argv[i]);
            if (study) {
                cJSON_AddStringToObject(j, "uid", info.uid);
                cJSON_AddStringToObject(j, "patient_id", info.patient_id);
                cJSON_AddStringToObject(j, "accession", info.accession);
                cJSON_AddStringToObject(j, "study_date", info.date);
                cJSON_AddStringToObject(j, "modality", info.modality);
            } else {
                cJSON_AddNullToObject(j, "uid");
            }
            cJSON_AddStringToObject(j, "how", how);
            cJSON_AddItemToArray(all, j);
        } else {
            printf("%s\t%s\t%s\n", c->argv[i], study ? info.uid : "-", how);
        }
    }
    int rc = c->json ? cli_print_json(all) : CLI_OK;
    return code ? code : rc;
}

const struct cli_command cli_identify = {
    "identify", "FILE...", "show which study each file belongs to, and how that was decided",
    "Prints FILE <tab> study UID (or -) <tab> how. Needs no key manager.\n", NULL, { cli_json_options }, run_identify, true,
};
