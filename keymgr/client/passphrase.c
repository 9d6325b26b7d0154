#include "leadglass/passphrase.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "leadglass/secret.h"

static int read_fd(int fd, bool line, char *out, size_t *ret_len)
{
    size_t len = 0;
    for (;;) {
        ssize_t n = read(fd, out + len, line ? 1 : LG_PASSPHRASE_MAX + 1 - len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -errno;
        if (n == 0 || (line && out[len] == '\n'))
            break;
        len += (size_t)n;
        if (len > LG_PASSPHRASE_MAX)
            return -E2BIG;
    }
    if (len && out[len - 1] == '\n')
        len--;
    out[len] = 0;
    *ret_len = len;
    return len ? 0 : -EINVAL;
}

static int ask(const char *prompt, char *out, size_t *ret_len)
{
    struct termios old, quiet;
    int tty = open("/dev/tty", O_RDWR | O_CLOEXEC);
    if (tty < 0)
        return -ENOTTY;
    if (tcgetattr(tty, &old)) {
        close(tty);
        return -ENOTTY;
    }
    quiet = old;
    quiet.c_lflag &= ~(tcflag_t)ECHO;
    dprintf(tty, "%s: ", prompt);
    tcsetattr(tty, TCSAFLUSH, &quiet);
    int rc = read_fd(tty, true, out, ret_len);
    tcsetattr(tty, TCSAFLUSH, &old);
    dprintf(tty, "\n");
    close(tty);
    return rc;
}

int lg_passphrase_read(const struct lg_passphrase_source *src, const char *prompt, bool twice, char *out, size_t *ret_len)
{
    if (src->fd >= 0)
        return read_fd(src->fd, false, out, ret_len);
    if (src->file && strcmp(src->file, "-") == 0)
        return read_fd(STDIN_FILENO, false, out, ret_len);
    if (src->file) {
        int fd = open(src->file, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
            return -errno;
        int rc = read_fd(fd, false, out, ret_len);
        close(fd);
        return rc;
    }
    int rc = ask(prompt, out, ret_len);
    if (rc || !twice)
        return rc;
    LG_SECRET_BUF_AUTO char *again = lg_secret_alloc(LG_PASSPHRASE_MAX + 1);
    size_t len;
    if (!again)
        return -ENOMEM;
    rc = ask("Once more", again, &len);
    return rc ? rc : len == *ret_len && lg_equal(out, again, len) ? 0 : -EKEYREJECTED;
}
