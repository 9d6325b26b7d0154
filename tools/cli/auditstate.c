/* What `leadglass status` tells of the programs that follow the access log: each writes down every few seconds how it is getting on. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "../alert/alert.h"
#include "cli.h"
#include "settings.h"

cJSON *cli_json_file(const char *path)
{
    char text[8192];
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, sizeof text, f) : 0;
    if (f)
        fclose(f);
    cJSON *j = n ? cJSON_ParseWithLength(text, n) : NULL;
    if (cJSON_IsObject(j))
        return j;
    cJSON_Delete(j);
    return NULL;
}

uint64_t cli_json_number(const cJSON *j, const char *name)
{
    const cJSON *x = cJSON_GetObjectItemCaseSensitive(j, name);
    return cJSON_IsNumber(x) && x->valuedouble >= 0 && x->valuedouble < 9e15 ? (uint64_t)x->valuedouble : 0;
}

const char *cli_json_string(const cJSON *j, const char *name)
{
    const char *s = cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(j, name));
    return s ? s : "";
}

/* One that was killed could not take back that it is running. */
bool cli_alive(const cJSON *state)
{
    uint64_t pid = cli_json_number(state, "pid");
    bool said = cJSON_IsTrue(cJSON_GetObjectItem(state, "running")) && pid >= 1 && pid < 1 << 30;
    struct pollfd p = { .fd = said ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1, .events = POLLIN };
    bool alive = p.fd >= 0 && poll(&p, 1, 0) == 0; /* readable: ended, though nobody has asked how yet */
    if (p.fd >= 0)
        close(p.fd);
    return alive;
}

/* NULL: it never ran with this configuration. */
static cJSON *state_of(const char *path)
{
    cJSON *s = cli_json_file(path);
    bool alive = s && cli_alive(s);
    while (s && cJSON_HasObjectItem(s, "running"))
        cJSON_DeleteItemFromObject(s, "running");
    if (s)
        cJSON_AddBoolToObject(s, "running", alive);
    return s;
}

static void when(const cJSON *s, const char *name, char out[32]) { cli_time(cli_json_number(s, name), out); }

static void tell_watch(const cJSON *s, bool configured)
{
    const cJSON *last = cJSON_GetObjectItem(s, "last_alert");
    char at[32];
    if (!s) {
        printf("alerts        %s\n", configured ? "NOT WATCHED: leadglass audit watch (the unit leadglass-watch) has not run" : "not watched (leadglass audit watch)");
        return;
    }
    when(s, "time", at);
    printf("alerts        %s, as of %s; %llu since its start, %llu not delivered yet\n", cJSON_IsTrue(cJSON_GetObjectItem(s, "running")) ? "watched" : "NOT WATCHED any more", at,
           (unsigned long long)cli_json_number(s, "alerts"), (unsigned long long)cli_json_number(s, "waiting"));
    if (last)
        printf("last alert    %s %s: %s\n", cli_json_string(last, "time"), cli_json_string(last, "grade"), cli_json_string(last, "text"));
}

static void tell_export(const cJSON *s, const struct lg_export_settings *g)
{
    char at[32];
    if (!s) {
        if (g->release)
            puts("export        NOT RUNNING: leadglass audit export --follow (the unit leadglass-export) has not run");
        return;
    }
    printf("export        %s, to %s port %s, %llu sent since its start", cJSON_IsTrue(cJSON_GetObjectItem(s, "running")) ? "running" : "NOT RUNNING any more", cli_json_string(s, "receiver"), cli_json_string(s, "port"),
           (unsigned long long)cli_json_number(s, "sent"));
    if (cli_json_number(s, "delivered") > 0) {
        when(s, "delivered", at);
        printf(", the last at %s", at);
    }
    printf("; spool %.1f of %.0f MiB%s\n", (double)cli_json_number(s, "spool_bytes") / 1048576, (double)cli_json_number(s, "spool_max") / 1048576,
           cJSON_IsTrue(cJSON_GetObjectItem(s, "spool_full")) ? ", FULL: the log waits" : "");
    if (cli_json_number(s, "outage_since") > 0) {
        when(s, "outage_since", at);
        printf("WARNING       the export's receiver cannot be reached since %s: %s\n", at, cli_json_string(s, "receiver_waits"));
    }
    if (cli_json_string(s, "alarm")[0])
        printf("WARNING       export: %s\n", cli_json_string(s, "alarm"));
}

void cli_audit_services(const struct cli *c, cJSON *j)
{
    const char *file = c->watch.config ? c->watch.config : access(CLI_AUDIT_CONFIG, F_OK) == 0 ? CLI_AUDIT_CONFIG : NULL;
    struct lg_export_settings g = { .spool = "/var/lib/leadglass/export" };
    struct lg_alert_config *w = NULL;
    char error[1024] = "", path[4200];
    if (lg_alert_config_load(file, &w, error, sizeof error) || (file && lg_export_settings_load(file, &g, error, sizeof error)))
        fprintf(stderr, "leadglass: %s\n", error);
    snprintf(path, sizeof path, "%.4090s.json", w && w->state[0] ? w->state : CLI_WATCH_STATE);
    cJSON *watch = state_of(path);
    snprintf(path, sizeof path, "%s/state.json", g.spool);
    cJSON *export = state_of(path);
    if (!j) {
        tell_watch(watch, file != NULL);
        tell_export(export, &g);
        cJSON_Delete(watch);
        cJSON_Delete(export);
    } else { /* null: never ran */
        cJSON_AddItemToObject(j, "watch", watch ? watch : cJSON_CreateNull());
        cJSON_AddItemToObject(j, "export", export ? export : cJSON_CreateNull());
    }
    lg_alert_config_free(w);
}
