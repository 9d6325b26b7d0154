#include "scratch.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "leadglass/volume.h"
#include "memkeys.h"

int scratch_dir(const char *name, char out[64])
{
    snprintf(out, 64, "%s/%s-XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", name);
    if (mkdtemp(out))
        return 0;
    perror(out);
    return -1;
}

struct lg_keys *scratch_vault(const char *dir, uint32_t chunk_size)
{
    struct lg_vault_info info = { .chunk_size = chunk_size, .version = 1 };
    struct lg_keys *keys;
    struct lg_key vk;
    memset(info.vault_id, 'V', LG_ID_LEN);
    memset(info.keyring_id, 'K', LG_ID_LEN);
    memkeys_vault(&vk);
    if (lg_vault_create(dir, &info, vk.key) || lg_keys_new(&memkeys, info.vault_id, &keys)) {
        fprintf(stderr, "%s: no vault could be made\n", dir);
        abort();
    }
    lg_secret_free(vk.key);
    return keys;
}

void scratch_remove(int at, const char *name)
{
    if (unlinkat(at, name, 0) == 0)
        return;
    int fd = openat(at, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
    DIR *d = fd < 0 ? NULL : fdopendir(fd);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
            scratch_remove(fd, e->d_name);
    if (d)
        closedir(d);
    unlinkat(at, name, AT_REMOVEDIR);
}
