/* Inside the keyring: what making and reading a backup share. */
#ifndef LG_KEYRING_BACKUP_H
#define LG_KEYRING_BACKUP_H

#include "govern.h"
#include "leadglass/backup.h"

enum { FRAME_META = 0, FRAME_ROWS = 1, FRAME_END = 2, FRAME_BODY = 60000, VALUE_MAX = 16384 };

struct frames {
    struct lg_siv *siv;
    uint8_t id[LG_ID_LEN];
    uint64_t n;
};
int lg_frames_init(struct frames *f, const struct lg_secret *key, const uint8_t id[LG_ID_LEN]) LG_MUST;

struct frame_ad {
    uint8_t b[8 + LG_ID_LEN + 8];
};
struct frame_ad lg_frame_ad(struct frames *f); /* of the next frame */
/* inventory.c: enters this one, or what is known of it by now. */
int lg_backup_entry_put(struct lg_keyring *k, const struct lg_backup_entry *e) LG_MUST;
/* The keyring was made of this backup (id, created, epoch, name), which is therefore outstanding. carried: the inventory of its time came with it. Before the new
 * incarnation is noted. */
int lg_inventory_restored(struct lg_keyring *k, const struct lg_backup_entry *from, bool carried) LG_MUST;
/* The mark in meta that backups carry the inventory. */
bool lg_inventory_marked(struct lg_keyring *k);
int lg_inventory_mark(struct lg_keyring *k) LG_MUST;
bool lg_inventory_row(enum lg_table t, const uint8_t *key, size_t len); /* does this row of a backup tell that it does? */
bool lg_backup_exported(enum lg_table t, const uint8_t *key, size_t len);

#endif
