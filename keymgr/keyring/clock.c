/* Which time it is, and whether that can be believed. Whoever can set the clock forward could end waiting periods and retention early; so the wall clock is
 * compared with CLOCK_BOOTTIME, which nobody sets, and across boots with the last time that was stored. What disagrees freezes everything that would
 * become due, until officers say that the clock is right. */
#include <fcntl.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

#include "govern.h"

static const char purpose[8] = "time....", name[] = "time";
enum { TOLERANCE_S = 300, DRIFT = 1000 /* one part in so many */, DOWN_S = 7 * 86400, DOWN_SHARE = 10 };

static void boot_id(uint8_t out[LG_ID_LEN])
{
    char text[40] = "", hex[2 * LG_ID_LEN + 1];
    unsigned n = 0;
    memset(out, 0, LG_ID_LEN);
    int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t len = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
    if (fd >= 0)
        close(fd);
    for (ssize_t i = 0; i < len && n < 2 * LG_ID_LEN; i++)
        if (text[i] != '-')
            hex[n++] = text[i];
    hex[n] = 0;
    if (n != 2 * LG_ID_LEN || lg_hex_decode(hex, out, LG_ID_LEN))
        memset(out, 0, LG_ID_LEN);
}

static void real_clock(void *arg, struct lg_clock *ret)
{
    struct timespec t;
    (void)arg;
    clock_gettime(CLOCK_REALTIME, &t);
    ret->wall_s = (uint64_t)t.tv_sec;
    clock_gettime(CLOCK_BOOTTIME, &t);
    ret->boot_s = (uint64_t)t.tv_sec;
    clock_gettime(CLOCK_MONOTONIC, &t); /* stands still while the host sleeps: a sleeping key manager does not serve */
    ret->run_s = (uint64_t)t.tv_sec;
    boot_id(ret->boot_id);
}

static struct lg_clock clock_of(struct lg_keyring *k)
{
    struct lg_clock c;
    (k->clock ? k->clock : real_clock)(k->clock_arg, &c);
    return c;
}

void lg_keyring_set_clock(struct lg_keyring *k, lg_keyring_clock clock, void *arg)
{
    k->clock = clock;
    k->clock_arg = arg;
}

uint64_t lg_keyring_wall(struct lg_keyring *k) { return clock_of(k).wall_s; }

static int load(struct lg_keyring *k, struct lg_time *t)
{
    uint8_t b[128];
    size_t len;
    int rc = lg_sealed_get(k, LG_T_STATE, purpose, name, sizeof name - 1, b, sizeof b, &len);
    if (rc)
        return rc;
    struct lg_rd r = lg_rd(b, len);
    lg_rd_copy(&r, t->boot_id, LG_ID_LEN);
    t->base_wall = lg_rd_u64(&r);
    t->base_boot = lg_rd_u64(&r);
    t->last_wall = lg_rd_u64(&r);
    t->run = lg_rd_u64(&r);
    t->down = lg_rd_u64(&r);
    t->frozen = lg_rd_u8(&r);
    t->frozen_at = lg_rd_u64(&r);
    return lg_rd_done(&r) && t->frozen <= LG_FROZEN_DOWN ? 0 : -EPROTO;
}

static int save(struct lg_keyring *k, const struct lg_time *t)
{
    uint8_t b[128];
    struct lg_wr w = lg_wr(b, sizeof b);
    lg_wr_bytes(&w, t->boot_id, LG_ID_LEN);
    lg_wr_u64(&w, t->base_wall);
    lg_wr_u64(&w, t->base_boot);
    lg_wr_u64(&w, t->last_wall);
    lg_wr_u64(&w, t->run);
    lg_wr_u64(&w, t->down);
    lg_wr_u8(&w, t->frozen);
    lg_wr_u64(&w, t->frozen_at);
    return lg_sealed_put(k, LG_T_STATE, purpose, name, sizeof name - 1, b, w.len);
}

static void rebase(struct lg_time *t, const struct lg_clock *c)
{
    memcpy(t->boot_id, c->boot_id, LG_ID_LEN);
    t->base_wall = c->wall_s;
    t->base_boot = c->boot_s;
}

static void freeze(struct lg_time *t, enum lg_frozen why, uint64_t at)
{
    if (t->frozen)
        return;
    t->frozen = (uint8_t)why;
    t->frozen_at = at;
}

static void judge(struct lg_time *t, const struct lg_clock *c)
{
    if (memcmp(t->boot_id, c->boot_id, LG_ID_LEN) == 0 && c->boot_s >= t->base_boot) {
        uint64_t passed = c->boot_s - t->base_boot, want = t->base_wall + passed, slack = TOLERANCE_S + passed / DRIFT;
        if (c->wall_s > want + slack)
            freeze(t, LG_FROZEN_FORWARD, c->wall_s);
        else if (c->wall_s + slack < want)
            freeze(t, LG_FROZEN_BACK, c->wall_s);
        return;
    }
    if (c->wall_s + TOLERANCE_S < t->last_wall)
        freeze(t, LG_FROZEN_BACK, c->wall_s);
    else if (c->wall_s > t->last_wall)
        t->down += c->wall_s - t->last_wall;
    if (t->down > DOWN_S + t->run / DOWN_SHARE)
        freeze(t, LG_FROZEN_DOWN, c->wall_s);
    rebase(t, c);
}

int lg_time_now(struct lg_keyring *k, struct lg_time *ret)
{
    struct lg_time t = { 0 };
    struct lg_clock c = clock_of(k);
    int rc = load(k, &t);
    if (rc == -ENOENT) {
        rebase(&t, &c);
        rc = 0;
    } else if (!rc) {
        judge(&t, &c);
    }
    if (rc)
        return rc;
    if (k->ticked && c.run_s >= k->ticked_run)
        t.run += c.run_s - k->ticked_run;
    t.last_wall = c.wall_s;
    rc = save(k, &t);
    if (rc)
        return rc;
    /* If the transaction is undone, what ran meanwhile is not counted: the safe side. */
    k->ticked = true;
    k->ticked_run = c.run_s;
    *ret = t;
    return 0;
}

int lg_time_confirm(struct lg_keyring *k)
{
    struct lg_time t;
    struct lg_clock c = clock_of(k);
    int rc = load(k, &t);
    if (rc)
        return rc;
    rebase(&t, &c);
    t.last_wall = c.wall_s;
    t.down = 0;
    t.frozen = LG_FROZEN_NOT;
    t.frozen_at = 0;
    return save(k, &t);
}

static int tell(struct lg_keyring *k, bool look, struct lg_keyring_time *ret)
{
    struct lg_time t;
    struct lg_clock c = clock_of(k);
    int rc = load(k, &t);
    if (!rc && look)
        judge(&t, &c);
    if (rc == -ENOENT)
        t = (struct lg_time){ .last_wall = lg_keyring_wall(k) }, rc = 0;
    if (!rc)
        *ret = (struct lg_keyring_time){ .wall_s = lg_keyring_wall(k), .last_s = t.last_wall, .run_s = t.run, .frozen = (enum lg_frozen)t.frozen, .frozen_at = t.frozen_at };
    return rc;
}

int lg_keyring_time(struct lg_keyring *k, struct lg_keyring_time *ret) { return tell(k, false, ret); }
int lg_keyring_time_look(struct lg_keyring *k, struct lg_keyring_time *ret) { return tell(k, true, ret); }

int lg_keyring_tick(struct lg_keyring *k, struct lg_keyring_time *ret)
{
    struct lg_time t;
    int rc = lg_keyring_need(k, true);
    if (!rc)
        rc = lg_time_now(k, &t);
    return rc ? rc : lg_keyring_time(k, ret);
}
