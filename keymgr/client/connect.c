#include "connect.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

int64_t lg_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int wait_for(int fd, short events, int64_t deadline, int stop)
{
    for (;;) {
        struct pollfd p[2] = { { fd, events, 0 }, { stop, POLLIN, 0 } };
        int64_t left = deadline < 0 ? -1 : deadline - lg_now_ms();
        if (deadline >= 0 && left < 0)
            return -ETIMEDOUT;
        int n = poll(p, stop >= 0 ? 2 : 1, (int)left);
        if (n < 0 && errno != EINTR)
            return -errno;
        if (n > 0 && stop >= 0 && p[1].revents)
            return -ECANCELED;
        if (n > 0 && p[0].revents)
            return 0;
    }
}

int lg_connect(const char *path, int64_t deadline)
{
    struct sockaddr_un a = { .sun_family = AF_UNIX };
    if (strlen(path) >= sizeof a.sun_path)
        return -ENAMETOOLONG;
    memcpy(a.sun_path, path, strlen(path) + 1);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    for (;;) {
        if (connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
            return fd;
        int rc = -errno;
        if (rc == -EAGAIN && lg_now_ms() < deadline) { /* its queue is full */
            poll(NULL, 0, 5);
            continue;
        }
        close(fd);
        return rc == -EAGAIN ? -ETIMEDOUT : rc;
    }
}

int lg_send_frame(int fd, const uint8_t *frame, size_t len, int64_t deadline)
{
    while (len) {
        ssize_t n = send(fd, frame, len, MSG_NOSIGNAL);
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLOUT, deadline, -1);
            if (rc)
                return rc;
        } else if (n < 0 && errno != EINTR) {
            return errno == EPIPE ? -ECONNRESET : -errno;
        } else if (n > 0) {
            frame += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

static int recv_all(int fd, uint8_t *p, size_t len, int64_t deadline, int stop)
{
    while (len) {
        ssize_t n = recv(fd, p, len, 0);
        if (n == 0)
            return -ECONNRESET;
        if (n < 0 && errno == EAGAIN) {
            int rc = wait_for(fd, POLLIN, deadline, stop);
            if (rc)
                return rc;
        } else if (n < 0 && errno != EINTR) {
            return -errno;
        } else if (n > 0) {
            p += n;
            len -= (size_t)n;
        }
    }
    return 0;
}

int lg_recv_frame(int fd, uint8_t *frame, size_t cap, size_t *ret_len, int64_t deadline, int stop)
{
    struct lg_header h;
    int rc = recv_all(fd, frame, LG_WIRE_HEADER, deadline, stop);
    if (!rc)
        rc = lg_wire_header(frame, LG_WIRE_HEADER, &h);
    if (!rc && h.len > cap)
        rc = -EPROTO;
    if (!rc)
        rc = recv_all(fd, frame + LG_WIRE_HEADER, h.len - LG_WIRE_HEADER, deadline, stop);
    if (!rc)
        *ret_len = h.len;
    return rc;
}
