/* Alerts: the configuration, and the state that comes back after a restart: as the input has it, and one that was saved with bytes of the input laid over it. First byte: which. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "../../tools/alert/deliver.h"

static void raised(void *arg, const struct lg_alert *a)
{
    char line[512];
    (void)arg;
    free(lg_alert_json(a));
    lg_alert_line(a, line, sizeof line);
    for (const char *p = line; *p; p++)
        if (*p == '\n')
            abort();
}

static void failed(void *arg, const char *subject, const char *text) { (void)arg, (void)subject, (void)text; }

static void config(const uint8_t *data, size_t len)
{
    char path[40], error[256] = "";
    struct lg_alert_config *c;
    int fd = memfd_create("config", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, len) != (ssize_t)len)
        abort();
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int rc = lg_alert_config_load(path, &c, error, sizeof error);
    close(fd);
    if (rc && !error[0])
        abort(); /* it always says why */
    if (rc)
        return;
    for (unsigned i = 0; i < LG_ALERT_RULES; i++)
        if (!c->rule[i].threshold || !c->rule[i].window_s || c->rule[i].grade >= LG_ALERT_GRADES)
            abort();
    if (c->hours_from >= c->hours_to || c->hours_to > 1440 || c->days > 127 || c->n_outcomes > LG_ALERT_OUTCOMES_MAX)
        abort();
    lg_alert_config_free(c);
}

/* Whatever came back: records go on being judged, and it can be saved again. */
static void state(const uint8_t *data, size_t len)
{
    static struct lg_alert_config *c;
    static struct lg_alerts *x; /* as new after a load that failed; it takes long to make */
    static uint8_t out[4 << 20];
    struct lg_delivery *d;
    struct lg_audit_record r;
    char error[64];
    if (!c && lg_alert_config_load(NULL, &c, error, sizeof error))
        abort();
    if (!x && lg_alerts_new(c, raised, NULL, &x))
        abort();
    struct lg_rd rd = lg_rd(data, len);
    if (lg_alerts_load(x, &rd))
        return;
    if (lg_delivery_new(c, failed, NULL, &d))
        abort();
    if (!lg_delivery_load(d, &rd))
        (void)!lg_alerts_load_silence(x, &rd);
    lg_audit_record_init(&r);
    r.time_us = 1764072000000000;
    r.has = LG_AUDIT_WHO | LG_AUDIT_STUDY;
    snprintf(r.event, sizeof r.event, "file.open");
    snprintf(r.how, sizeof r.how, "write");
    lg_alerts_record(x, "mount-1", &r);
    snprintf(r.event, sizeof r.event, "file.tampered");
    lg_alerts_record(x, "mount-1", &r);
    lg_alerts_tick(x, INT64_MAX / 4);
    struct lg_wr w = lg_wr(out, sizeof out);
    lg_alerts_save(x, &w);
    lg_delivery_save(d, &w);
    lg_alerts_save_silence(x, &w);
    if (w.bad)
        abort();
    lg_delivery_free(d);
    lg_alerts_free(x);
    x = NULL;
}

static struct lg_delivery *queue;
static void queued(void *arg, const struct lg_alert *a)
{
    (void)arg;
    lg_delivery_add(queue, a);
}

/* One of each part: counts, pairs of user and study, what was told, what waits to be delivered. */
static size_t saved(uint8_t *out, size_t cap)
{
    struct lg_alert_config *c;
    struct lg_alerts *x;
    struct lg_audit_record r;
    char error[64];
    if (lg_alert_config_load(NULL, &c, error, sizeof error) || lg_delivery_new(c, failed, NULL, &queue) || lg_alerts_new(c, queued, NULL, &x))
        abort();
    for (unsigned i = 0; i < 40; i++) {
        lg_audit_record_init(&r);
        r.time_us = 1764072000000000 + i;
        r.has = LG_AUDIT_WHO | LG_AUDIT_STUDY;
        r.uid = 1000 + i % 2;
        r.study[0] = (uint8_t)i;
        r.outcome = i % 3 ? 0 : -13;
        snprintf(r.event, sizeof r.event, "%s", i % 8 == 7 ? "file.tampered" : "file.open");
        snprintf(r.how, sizeof r.how, "read");
        lg_alerts_record(x, "mount-1", &r);
    }
    struct lg_wr w = lg_wr(out, cap);
    lg_alerts_save(x, &w);
    lg_delivery_save(queue, &w);
    lg_alerts_save_silence(x, &w);
    if (w.bad)
        abort();
    lg_delivery_free(queue);
    lg_alerts_free(x);
    lg_alert_config_free(c);
    return w.len;
}

/* Three bytes each: where, and what. */
static void laid_over(const uint8_t *data, size_t len)
{
    static uint8_t good[1 << 20], b[sizeof good];
    static size_t n;
    if (!n)
        n = saved(good, sizeof good);
    memcpy(b, good, n);
    for (size_t i = 0; i + 2 < len; i += 3)
        b[(data[i] | (size_t)data[i + 1] << 8) % n] = data[i + 2];
    state(b, len % 3 == 1 ? n - 1 : n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (!len)
        return 0;
    if (*data & 1)
        config(data + 1, len - 1);
    else if (*data & 2)
        laid_over(data + 1, len - 1);
    else
        state(data + 1, len - 1);
    return 0;
}
